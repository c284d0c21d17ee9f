//! Drives the built program `ovation` from outside, as its users do.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs)]

pub mod chaos;
pub mod ending;
pub mod stack;

use std::{
    fs::File,
    io::Read,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;
use uuid::Uuid;

use crate::stack::Urls;

/// Far longer than anything takes on a busy machine: a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The program, as built beside this test.
pub fn program() -> PathBuf {
    program_named("ovation")
}

/// One of the programs, as built beside this one.
pub fn program_named(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let beside = this.parent().unwrap();
    // Tests are in a folder of their own beneath the programs'.
    let folder = if beside.ends_with("deps") { beside.parent().unwrap() } else { beside };
    let program = folder.join(name);
    assert!(program.is_file(), "{} is not built; run `cargo build --workspace` first", program.display());
    program
}

/// The program, as a command that takes no store from the environment: each test says where its own are.
pub fn command() -> Command {
    without_stores(Command::new(program()))
}

fn without_stores(mut command: Command) -> Command {
    for key in ["OVATION_QUEUE", "OVATION_TALLY", "OVATION_BOOK", "OVATION_OBJECTS"] {
        command.env_remove(key);
    }
    command
}

/// A topic, keys and a database of a test's own, on the servers that `dev/stack` started.
#[derive(Clone, Debug)]
pub struct Servers {
    pub urls: Urls,
    /// What the topic, the keys' prefix and the database are called.
    pub name: String,
}

impl Servers {
    pub fn fresh() -> Self {
        let url = |key: &str| {
            std::env::var(key).unwrap_or_else(|_| panic!("no {key}: run `dev/stack up && export $(dev/stack env)`"))
        };
        let name = format!("test-{}", Uuid::now_v7());
        let on = |url: String| url.rsplit_once('/').unwrap().0.to_owned();
        let urls = Urls {
            queue: format!("{}/{name}", on(url("OVATION_QUEUE"))),
            tally: format!("{}?prefix={name}", url("OVATION_TALLY")),
            book: format!("{}/{name}", on(url("OVATION_BOOK"))),
        };
        Self { urls, name }
    }

    /// A key of the tallies.
    pub fn key(&self, rest: &str) -> String {
        format!("{{{}}}:{rest}", self.name)
    }

    /// Runs a command of the program on these stores.
    pub fn run(&self, command: &[&str]) -> Output {
        run(&[command, &self.urls.flags()].concat())
    }

    /// Runs the audit and returns its report, having checked that the exit code agrees with it.
    pub fn audit(&self) -> Value {
        report(&self.run(&["audit", "--json"]))
    }
}

/// Where a system listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub rest: SocketAddr,
    pub grpc: SocketAddr,
    pub results: SocketAddr,
    pub results_grpc: SocketAddr,
    pub admin: SocketAddr,
}

impl Addresses {
    /// Five free ports.
    pub fn free() -> Self {
        let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { rest: free(), grpc: free(), results: free(), results_grpc: free(), admin: free() }
    }
}

/// A port that nobody listens on. It is below those that outgoing connections are given, so none of them takes it meanwhile.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Other test processes begin elsewhere.
        let next = std::process::id() * 10 + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + u16::try_from(next % 12_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A running `ovation up`. Killed when dropped.
pub struct System {
    pub addresses: Addresses,
    pub data: PathBuf,
    child: Child,
}

impl System {
    /// Starts on free ports and waits until it is ready.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, Addresses::free(), &[])
    }

    /// Starts with more flags.
    pub fn start_with(data: &Path, addresses: Addresses, flags: &[&str]) -> Self {
        let mut system = Self::spawn(command(), data, addresses, flags);
        system.wait_until_ready();
        system
    }

    /// Starts `command up ...`, where `command` may be the program or something that runs it.
    pub fn spawn(mut command: Command, data: &Path, addresses: Addresses, flags: &[&str]) -> Self {
        let Addresses { rest, grpc, results, results_grpc, admin } = addresses;
        command = without_stores(command);
        let log = File::options().create(true).append(true).open(data.with_extension("log")).unwrap();
        command.arg("up").arg("--data").arg(data);
        for (flag, address) in [
            ("--rest", rest),
            ("--grpc", grpc),
            ("--results", results),
            ("--results-grpc", results_grpc),
            ("--admin", admin),
        ] {
            command.arg(flag).arg(address.to_string());
        }
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self { addresses, data: data.to_owned(), child: command.spawn().unwrap() }
    }

    pub fn wait_until_ready(&mut self) {
        let url = format!("http://{}/readyz", self.addresses.admin);
        wait_for("the system to be ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the system ended with {status}:\n{}", self.log());
            }
            ureq::get(&url).call().is_ok()
        });
    }

    /// What it logged.
    pub fn log(&self) -> String {
        let mut log = String::new();
        File::open(self.data.with_extension("log")).unwrap().read_to_string(&mut log).unwrap();
        log
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// SIGKILL: it gets no chance to finish anything.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it left.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        self.send_sigterm();
        (self.wait(), begun.elapsed())
    }

    pub fn send_sigterm(&self) {
        let sent = Command::new("kill").args(["-TERM", &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the system to leave", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Posts a vote and returns the status and the answer.
    pub fn post(&self, vote: &Value) -> (u16, Value) {
        self.post_text(&vote.to_string())
    }

    pub fn post_text(&self, body: &str) -> (u16, Value) {
        post(&format!("http://{}/v1/votes", self.addresses.rest), "application/json", body)
    }

    /// Posts a batch of votes as a JSON array.
    pub fn post_batch(&self, votes: &Value) -> (u16, Value) {
        let url = format!("http://{}/v1/votes/batch", self.addresses.rest);
        post(&url, "application/json", &votes.to_string())
    }

    /// Gets JSON from the results.
    pub fn results(&self, path: &str) -> Value {
        get(&format!("http://{}{path}", self.addresses.results))
    }

    pub fn total(&self, contest: &str) -> u64 {
        self.results(&format!("/v1/contests/{contest}/tally"))["total"].as_u64().unwrap()
    }

    /// Waits until everything that is on the log is counted.
    pub fn wait_until_counted(&self) {
        wait_for("all votes to be counted", || {
            let tally = self.results("/v1/contests/bands/tally");
            tally["processed"] == tally["accepted"]
        });
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the system's log ---\n{}", self.log());
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into()
}

pub fn post(url: &str, media_type: &str, body: &str) -> (u16, Value) {
    let mut response = agent().post(url).header("content-type", media_type).send(body).unwrap();
    let body = response.body_mut().read_to_string().unwrap();
    (response.status().as_u16(), serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

pub fn get(url: &str) -> Value {
    let mut response = agent().get(url).call().unwrap();
    assert_eq!(response.status().as_u16(), 200, "{url}");
    response.body_mut().read_json().unwrap()
}

/// Runs a command of the program to its end.
pub fn run(args: &[&str]) -> Output {
    command().args(args).stdin(Stdio::null()).output().unwrap()
}

/// Starts a command of the program.
pub fn start(args: &[&str]) -> Child {
    command().args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The one JSON value that a command printed.
pub fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error} in {text:?}; stderr: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs the audit on a folder and returns its report, having checked that the exit code agrees with it.
pub fn audit(data: &Path) -> Value {
    report(&run(&["audit", "--json", "--data", data.to_str().unwrap()]))
}

fn report(output: &Output) -> Value {
    let report = json(output);
    assert_eq!(report["ok"].as_bool().unwrap(), output.status.success(), "{report}");
    report
}

/// Waits for a condition, for as long as [`PATIENCE`].
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
