//! The real servers, as `dev/stack` runs them, in a folder and on ports of a test's own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::json;

use crate::ending::on_signal;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Running servers. Stopped when dropped, and their data deleted unless somebody will want to look at them.
pub struct Stack {
    pub folder: PathBuf,
    pub port: u16,
    pub brokers: u16,
    pub urls: Urls,
    is_kept: bool,
    /// Options of `dev/stack up`, and the environment it reads.
    options: Vec<&'static str>,
    environment: Vec<(&'static str, String)>,
    /// Commands that change the servers take turns, so that the last one, which stops them, is the last.
    turn: Arc<Mutex<()>>,
}

/// Where the stores are.
#[derive(Clone, Debug)]
pub struct Urls {
    pub queue: String,
    pub tally: String,
    pub book: String,
}

impl Urls {
    /// The brokers as Kafka's clients want them.
    pub fn brokers(&self) -> &str {
        self.queue.strip_prefix("kafka://").and_then(|rest| rest.split_once('/')).unwrap().0
    }

    /// As flags of every program.
    pub fn flags(&self) -> [&str; 6] {
        ["--queue", &self.queue, "--tally", &self.tally, "--book", &self.book]
    }
}

impl Stack {
    /// Starts empty servers on eight ports from `port`.
    pub fn up(folder: &Path, port: u16, brokers: u16) -> Self {
        Self::up_with(folder, port, brokers, Vec::new(), Vec::new())
    }

    /// As [`up`](Self::up), with stores that speak TLS and ask for a password. They take eight ports.
    pub fn secured(folder: &Path, port: u16) -> Self {
        Self::up_with(folder, port, 1, vec!["--secure"], Vec::new())
    }

    /// As [`up`](Self::up), with Prometheus, which asks these admin ports each second, the exporters, and Alertmanager, which
    /// tells the webhook at once what takes it minutes otherwise. They take 15 ports.
    pub fn watched(folder: &Path, port: u16, admin: &[SocketAddr], webhook: SocketAddr) -> Self {
        let targets = folder.join("targets");
        std::fs::create_dir_all(&targets).unwrap();
        let addresses: Vec<String> = admin.iter().map(ToString::to_string).collect();
        std::fs::write(targets.join("programs.json"), json!([{ "targets": addresses }]).to_string()).unwrap();
        let environment = vec![
            ("OVATION_STACK_SCRAPE", "1s".to_owned()),
            ("OVATION_STACK_ALERT_SPEED", "60".to_owned()),
            ("OVATION_STACK_ALERT_WEBHOOK", format!("http://{webhook}")),
        ];
        Self::up_with(folder, port, 1, vec!["--watch"], environment)
    }

    fn up_with(
        folder: &Path,
        port: u16,
        brokers: u16,
        options: Vec<&'static str>,
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let urls = Urls { queue: String::new(), tally: String::new(), book: String::new() };
        let folder = folder.canonicalize().unwrap();
        let mut stack =
            Self { folder, port, brokers, urls, is_kept: false, options, environment, turn: Arc::default() };
        let (mut down, turn) = (stack.command(&["down"]), Arc::clone(&stack.turn));
        on_signal(move || {
            // Kept: whoever comes after it would start something again.
            std::mem::forget(turn.lock());
            let _ = down.status();
        });
        let brokers = brokers.to_string();
        stack.run(&[&["up", "--fresh", "--brokers", &brokers], stack.options.as_slice()].concat());
        let env = stack.run(&["env"]);
        let value = |key: &str| {
            let line = env.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("dev/stack env names no {key}: {env}")).to_owned()
        };
        stack.urls = Urls { queue: value("OVATION_QUEUE"), tally: value("OVATION_TALLY"), book: value("OVATION_BOOK") };
        stack
    }

    /// Runs a command of `dev/stack` to its end and returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.command(arguments).output().unwrap()
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "dev/stack {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(root().join("dev/stack"));
        command
            .args(arguments)
            .env("OVATION_STACK_DIR", &self.folder)
            .env("OVATION_STACK_PORT", self.port.to_string())
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null());
        command
    }

    pub fn start(&self, server: &str) {
        self.run(&["start", server]);
    }

    /// SIGKILL, and its end.
    pub fn kill(&self, server: &str) {
        self.run(&["kill", server]);
    }

    pub fn pid(&self, server: &str) -> Option<u32> {
        let output = self.command(&["pid", server]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    }

    /// The folder with a server's data.
    pub fn data(&self, server: &str) -> PathBuf {
        self.folder.join(server)
    }

    /// Keeps the data when the servers are stopped.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// A broker's name, counted from 0.
    pub fn broker(&self, number: u16) -> String {
        if self.brokers == 1 { "kafka".to_owned() } else { format!("kafka-{}", number % self.brokers + 1) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let stopped = if self.is_kept || std::thread::panicking() {
            eprintln!("what the servers had is in {}", self.folder.display());
            self.command(&["down"]).status()
        } else {
            self.command(&["down", "--wipe"]).status()
        };
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("the servers in {} could not be stopped", self.folder.display());
        }
    }
}
