//! Monitoring works on a running system: Prometheus, the queries of the dashboards, and Alertmanager.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tests::{free_port, get, program_named, run, stack::Stack};

/// The first port of the servers. The 15 ports are below those of [`free_port`], and no other test uses them.
const PORT: u16 = 19_800;

/// The longest time that the test waits for a condition. An accelerated alert needs far less, even on a busy machine.
const ALERT_TIMEOUT: Duration = Duration::from_mins(4);

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < ALERT_TIMEOUT, "waited {ALERT_TIMEOUT:?} for {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A server that receives the notifications of Alertmanager.
struct Webhook {
    address: SocketAddr,
    /// The receiver, the alert and the status of each notification.
    notifications: Arc<Mutex<Vec<(String, String, String)>>>,
}

impl Webhook {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, notifications) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let received = Arc::clone(&notifications);
        thread::spawn(move || listener.incoming().flatten().for_each(|client| receive(&client, &received)));
        Self { address, notifications }
    }

    /// Returns the number of notifications of an alert with this status.
    fn count(&self, alert: &str, status: &str) -> usize {
        let notifications = self.notifications.lock().unwrap();
        let is_of = |(_, name, its_status): &&(String, String, String)| name == alert && its_status == status;
        notifications.iter().filter(is_of).count()
    }
}

/// Reads one HTTP request of Alertmanager, and adds its alerts to the notifications.
fn receive(mut client: &TcpStream, notifications: &Mutex<Vec<(String, String, String)>>) {
    let mut reader = BufReader::new(client);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_ascii_lowercase()),
        }
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let receiver = lines[0].split(' ').nth(1).unwrap().to_owned();
    let message: Value = serde_json::from_slice(&body).unwrap();
    for alert in message["alerts"].as_array().unwrap() {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (name, status) = (text(&alert["labels"]["alertname"]), text(&alert["status"]));
        notifications.lock().unwrap().push((receiver.clone(), name, status));
    }
    let _ = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
}

/// One of the programs. Dropping this kills the process.
struct Program {
    name: &'static str,
    flags: Vec<String>,
    child: Child,
}

impl Program {
    fn start(folder: &Path, name: &'static str, flags: Vec<String>) -> Self {
        let log = File::options().create(true).append(true).open(folder.join(format!("{name}.log"))).unwrap();
        let child = Command::new(program_named(name)).args(&flags).stdin(Stdio::null()).stderr(log).spawn().unwrap();
        Self { name, flags, child }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// All programs on all servers, with monitoring.
struct MonitoredSystem {
    stack: Stack,
    webhook: Webhook,
    programs: Vec<Program>,
    rest: SocketAddr,
    grpc: SocketAddr,
    results: SocketAddr,
    /// The admin ports of the REST producer, the gRPC producer, the consumer and the results.
    admin: [SocketAddr; 4],
}

impl MonitoredSystem {
    fn start(folder: &Path) -> Self {
        let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (rest, grpc, results, results_grpc) = (free(), free(), free(), free());
        let admin = [free(), free(), free(), free()];
        let webhook = Webhook::start();
        let stack = Stack::watched(&folder.join("servers"), PORT, &admin, webhook.address);
        let flags = |admin: SocketAddr, own: &[(&str, SocketAddr)]| {
            let mut flags: Vec<String> = stack.urls.flags().map(str::to_owned).into();
            for (flag, address) in [&[("--admin", admin)], own].concat() {
                flags.extend([flag.to_owned(), address.to_string()]);
            }
            flags
        };
        let programs = vec![
            Program::start(folder, "rest-producer", flags(admin[0], &[("--listen", rest)])),
            Program::start(folder, "grpc-producer", flags(admin[1], &[("--listen", grpc)])),
            Program::start(folder, "consumer", flags(admin[2], &[])),
            Program::start(folder, "results", flags(admin[3], &[("--listen", results), ("--grpc", results_grpc)])),
        ];
        let system = Self { stack, webhook, programs, rest, grpc, results, admin };
        for admin in admin {
            wait_for("the programs to be ready", || ureq::get(&format!("http://{admin}/readyz")).call().is_ok());
        }
        system
    }

    fn prometheus(&self) -> String {
        format!("http://127.0.0.1:{}", self.stack.port + 8)
    }

    /// Runs a query of Prometheus, and returns its single value.
    fn query(&self, query: &str) -> Option<f64> {
        let query = query.bytes().fold(String::new(), |query, byte| query + &format!("%{byte:02X}"));
        let response = get(&format!("{}/api/v1/query?query={query}", self.prometheus()));
        response["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }

    /// Returns the alerts that are firing.
    fn firing(&self) -> BTreeSet<String> {
        let alerts = get(&format!("{}/api/v1/alerts", self.prometheus()));
        let alerts = alerts["data"]["alerts"].as_array().unwrap();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    fn flood(&self, protocol: &str) -> u64 {
        let url = match protocol {
            "rest" => format!("http://{}", self.rest),
            _ => format!("http://{}", self.grpc),
        };
        let flood = run(&["flood", "--protocol", protocol, "--url", &url, "--rate", "300", "--for", "30s", "--json"]);
        tests::json(&flood)["acknowledged"].as_u64().unwrap()
    }

    fn total(&self) -> u64 {
        get(&format!("http://{}/v1/contests/bands/tally", self.results))["total"].as_u64().unwrap()
    }

    /// Starts a thread that casts votes slowly, and ignores errors. Returns the flag that stops the thread.
    fn start_slow_votes(&self) -> Arc<AtomicBool> {
        let (stop, url) = (Arc::new(AtomicBool::new(false)), format!("http://{}/v1/votes", self.rest));
        let is_stopped = Arc::clone(&stop);
        thread::spawn(move || {
            while !is_stopped.load(Ordering::Relaxed) {
                let _ = ureq::post(&url).send_json(json!({ "name": "Can" }));
                thread::sleep(Duration::from_millis(20));
            }
        });
        stop
    }

    /// Breaks the system, waits for the notification of the alert, repairs the system, and waits for the notification
    /// that the alert is resolved.
    fn check_alert(&mut self, alert: &str, break_system: impl FnOnce(&mut Self), repair: impl FnOnce(&mut Self)) {
        wait_for(&format!("{alert} not to fire"), || !self.firing().contains(alert));
        let (fired, resolved) = (self.webhook.count(alert, "firing"), self.webhook.count(alert, "resolved"));
        break_system(self);
        wait_for(alert, || self.webhook.count(alert, "firing") > fired);
        repair(self);
        wait_for(&format!("{alert} to be resolved"), || self.webhook.count(alert, "resolved") > resolved);
    }

    fn restart_consumer(&mut self, folder: &Path) {
        let consumer = self.programs.iter_mut().find(|program| program.name == "consumer").unwrap();
        *consumer = Program::start(folder, "consumer", consumer.flags.clone());
    }
}

/// Reads the metrics of a process.
fn metrics(admin: SocketAddr) -> String {
    ureq::get(&format!("http://{admin}/metrics")).call().unwrap().body_mut().read_to_string().unwrap()
}

fn cpu_micros(admin: SocketAddr) -> u64 {
    let metrics = metrics(admin);
    let cpu = metrics.lines().find_map(|line| line.strip_prefix("ovation_cpu_microseconds_total "));
    cpu.unwrap().parse().unwrap()
}

#[test]
fn every_store_panel_and_alert_works() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = MonitoredSystem::start(folder.path());
    for store in ["vote log", "tallies", "ledger"] {
        wait_for("the check of every store", || {
            system.query(&format!("min(ovation_check_up{{check=\"{store}\"}})")) == Some(1.0)
        });
    }

    let before: Vec<u64> = system.admin.map(cpu_micros).into();
    let begun = Instant::now();
    let acknowledged = thread::scope(|scope| {
        let floods = ["rest", "grpc"].map(|protocol| scope.spawn(|| system.flood(protocol)));
        floods.map(|flood| flood.join().unwrap()).iter().sum::<u64>()
    });
    wait_for("all votes to be counted", || system.total() == acknowledged);
    let used: u64 = system.admin.map(cpu_micros).iter().zip(before).map(|(after, before)| after - before).sum();
    let flooded = begun.elapsed();

    // Every panel has data, and the sums are right.
    let check = Command::new(tests::stack::root().join("grafana/check"))
        .args(["--prometheus", &system.prometheus(), "--scrape", "1", "--range", "60", "--without-history"])
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{}{}",
        String::from_utf8_lossy(&check.stdout),
        String::from_utf8_lossy(&check.stderr)
    );
    for query in [
        "sum(ovation_tally_votes)",
        "sum(ovation_counted_votes_total)",
        "sum(ovation_votes_total{outcome=\"accepted\"})",
    ] {
        wait_for(query, || system.query(query) == Some(acknowledged as f64));
    }

    // There are few series, and a scrape every 5 s is cheap.
    let (mut costs, scrapes) = (0, 100);
    for admin in system.admin {
        let series = metrics(admin).lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert!(series < 2_000, "{series} series");
        let before = cpu_micros(admin);
        (0..scrapes).for_each(|_| drop(metrics(admin)));
        costs += cpu_micros(admin) - before;
    }
    let share = costs as f64 / f64::from(scrapes) / 5.0 / (used as f64 / flooded.as_secs_f64());
    println!("metrics cost {:.2} % of the flood's CPU", share * 100.0);
    // The limit is ten times the documented one, which is for an optimised build on an idle machine.
    assert!(share < 0.1, "{share}");

    // Alerts are delivered, and they are resolved.
    let stop_votes = system.start_slow_votes();
    for (server, alert) in
        [("redis", "OvationTalliesDown"), ("mongo", "OvationLedgerDown"), ("kafka", "OvationVoteLogDown")]
    {
        system.check_alert(alert, |system| system.stack.kill(server), |system| system.stack.start(server));
    }
    let kill_consumer = |system: &mut MonitoredSystem| {
        system.programs.iter_mut().find(|program| program.name == "consumer").unwrap().kill();
    };
    system.check_alert("OvationConsumerMissing", kill_consumer, |system| system.restart_consumer(folder.path()));
    stop_votes.store(true, Ordering::Relaxed);
}
