//! These helpers drive the built programs from outside, as users do.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, missing_docs)]

pub mod chaos;
pub mod on_signal;
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

/// The longest time that a test waits for a condition. No condition needs this long, even on a busy machine, so the
/// test then fails.
pub const TEST_TIMEOUT: Duration = Duration::from_mins(1);

/// Returns the path of the program `ovation`, built in the same folder as this test.
pub fn program() -> PathBuf {
    program_named("ovation")
}

/// Returns the path of a program, built in the same folder as this one.
pub fn program_named(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let folder = this.parent().unwrap();
    // Tests are in `deps`, a subfolder of the folder with the programs.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    let program = folder.join(name);
    assert!(program.is_file(), "{} is not built; run `cargo build --workspace` first", program.display());
    program
}

/// Returns a command that runs `ovation`. The environment of the command has no stores: each test passes its own.
pub fn command() -> Command {
    without_stores(Command::new(program()))
}

/// Removes the variables with the stores from the environment of a command.
pub fn without_stores(mut command: Command) -> Command {
    for key in ["OVATION_VOTE_LOG", "OVATION_TALLIES", "OVATION_LEDGER", "OVATION_OBJECTS"] {
        command.env_remove(key);
    }
    command
}

/// The stores of one test on the servers of `dev/stack`: its own topic, prefix of keys, and database.
#[derive(Clone, Debug)]
pub struct Servers {
    pub urls: Urls,
    /// The name of the topic, the prefix of keys and the database.
    pub name: String,
}

impl Servers {
    /// Returns stores that no other test uses, on the servers that the environment names.
    pub fn fresh() -> Self {
        let url = |key: &str| {
            std::env::var(key).unwrap_or_else(|_| panic!("no {key}: run `dev/stack up && export $(dev/stack env)`"))
        };
        let name = format!("test-{}", Uuid::now_v7());
        let without_path = |url: String| url.rsplit_once('/').unwrap().0.to_owned();
        let urls = Urls {
            vote_log: format!("{}/{name}", without_path(url("OVATION_VOTE_LOG"))),
            tallies: format!("{}?prefix={name}", url("OVATION_TALLIES")),
            ledger: format!("{}/{name}", without_path(url("OVATION_LEDGER"))),
        };
        Self { urls, name }
    }

    /// Returns a key of the tallies.
    pub fn key(&self, rest: &str) -> String {
        format!("{{{}}}:{rest}", self.name)
    }

    /// Runs a command of the program on these stores.
    pub fn run(&self, command: &[&str]) -> Output {
        run(&[command, &self.urls.flags()].concat())
    }

    /// Runs the audit, checks that the exit code agrees with the report, and returns the report.
    pub fn audit(&self) -> Value {
        audit_report(&self.run(&["audit", "--json"]))
    }
}

/// The addresses of a system.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub rest: SocketAddr,
    pub grpc: SocketAddr,
    pub results: SocketAddr,
    pub results_grpc: SocketAddr,
    pub admin: SocketAddr,
}

impl Addresses {
    /// Returns addresses with five free ports.
    pub fn free() -> Self {
        let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self { rest: free(), grpc: free(), results: free(), results_grpc: free(), admin: free() }
    }
}

/// Returns a free port. The port is below Linux's range of ports for outgoing connections, so no connection takes it
/// before the test listens on it.
pub fn free_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        // The first port depends on the id of the process, because tests run in several processes.
        let next = std::process::id() * 10 + COUNT.fetch_add(1, Ordering::Relaxed);
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
    /// Starts on free ports, and waits until the system is ready.
    pub fn start(data: &Path) -> Self {
        Self::start_with(data, Addresses::free(), &[])
    }

    /// Starts with these addresses and additional flags, and waits until the system is ready.
    pub fn start_with(data: &Path, addresses: Addresses, flags: &[&str]) -> Self {
        let mut system = Self::spawn(command(), data, addresses, flags);
        system.wait_until_ready();
        system
    }

    /// Starts `command up ...`. `command` is the program, or a tool that runs the program, for example `strace`.
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

    /// Returns the log of the system.
    pub fn log(&self) -> String {
        let mut log = String::new();
        File::open(self.data.with_extension("log")).unwrap().read_to_string(&mut log).unwrap();
        log
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends SIGKILL, and waits for the end of the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM. Returns the exit status, and the time until the process ended.
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
        wait_for("the system to stop", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Posts a vote. Returns the status and the body of the response.
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

    /// Gets a JSON response from the results.
    pub fn results(&self, path: &str) -> Value {
        get(&format!("http://{}{path}", self.addresses.results))
    }

    pub fn total(&self, contest: &str) -> u64 {
        self.results(&format!("/v1/contests/{contest}/tally"))["total"].as_u64().unwrap()
    }

    /// Waits until all records of the log are counted.
    pub fn wait_until_counted(&self) {
        wait_for("all votes to be counted", || {
            let tally = self.results("/v1/contests/bands/tally");
            tally["processed"] == tally["accepted"]
        });
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the system's log ---\n{}", self.log());
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TEST_TIMEOUT)).build().into()
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

/// Parses the JSON value that a command printed.
pub fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error} in {text:?}; stderr: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Runs the audit on a folder, checks that the exit code agrees with the report, and returns the report.
pub fn audit(data: &Path) -> Value {
    audit_report(&run(&["audit", "--json", "--data", data.to_str().unwrap()]))
}

fn audit_report(output: &Output) -> Value {
    let report = json(output);
    assert_eq!(report["ok"].as_bool().unwrap(), output.status.success(), "{report}");
    report
}

/// Waits for a condition.
///
/// # Panics
/// If the condition is false after [`TEST_TIMEOUT`].
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < TEST_TIMEOUT, "waited {TEST_TIMEOUT:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
