//! Real servers for one test. `dev/stack` runs them with a folder and ports of their own.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::json;

use crate::on_signal::on_signal;

/// Returns the root folder of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Running servers. Dropping this stops the servers, and deletes their data, unless the test panicked or called
/// [`keep_data`](Self::keep_data).
pub struct Stack {
    pub folder: PathBuf,
    pub port: u16,
    pub brokers: u16,
    pub urls: Urls,
    keeps_data: bool,
    /// The additional options of `dev/stack up`.
    options: Vec<&'static str>,
    /// The environment variables that `dev/stack` reads.
    environment: Vec<(&'static str, String)>,
    /// Serialises the commands of `dev/stack`. A signal locks this until the end of the process, so no command starts a
    /// server after the servers were stopped.
    command_lock: Arc<Mutex<()>>,
}

/// The URLs of the stores.
#[derive(Clone, Debug)]
pub struct Urls {
    pub vote_log: String,
    pub tallies: String,
    pub ledger: String,
}

impl Urls {
    /// Returns the value of `bootstrap.servers`.
    pub fn brokers(&self) -> &str {
        self.vote_log.strip_prefix("kafka://").and_then(|rest| rest.split_once('/')).unwrap().0
    }

    /// Returns the flags of a program.
    pub fn flags(&self) -> [&str; 6] {
        ["--vote-log", &self.vote_log, "--tallies", &self.tallies, "--ledger", &self.ledger]
    }
}

impl Stack {
    /// Starts empty servers on eight ports from `port`.
    pub fn up(folder: &Path, port: u16, brokers: u16) -> Self {
        Self::up_with(folder, port, brokers, Vec::new(), Vec::new())
    }

    /// Starts servers as [`up`](Self::up) does, with stores that require TLS and a password, on eight ports.
    pub fn secured(folder: &Path, port: u16) -> Self {
        Self::up_with(folder, port, 1, vec!["--secure"], Vec::new())
    }

    /// Starts servers as [`up`](Self::up) does, with the exporters, Prometheus and Alertmanager. Prometheus scrapes the
    /// admin ports every second. Alerts are 60 times faster than in production, and Alertmanager notifies the webhook.
    /// The servers use 15 ports.
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
        let urls = Urls { vote_log: String::new(), tallies: String::new(), ledger: String::new() };
        let folder = folder.canonicalize().unwrap();
        let command_lock = Arc::default();
        let mut stack = Self { folder, port, brokers, urls, keeps_data: false, options, environment, command_lock };
        let (mut down, command_lock) = (stack.command(&["down"]), Arc::clone(&stack.command_lock));
        on_signal(move || {
            // The lock is never released, so no later command starts a server again.
            std::mem::forget(command_lock.lock());
            let _ = down.status();
        });
        let brokers = brokers.to_string();
        stack.run(&[&["up", "--fresh", "--brokers", &brokers], stack.options.as_slice()].concat());
        let env = stack.run(&["env"]);
        let value = |key: &str| {
            let line = env.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("dev/stack env prints no {key}: {env}")).to_owned()
        };
        stack.urls = Urls {
            vote_log: value("OVATION_VOTE_LOG"),
            tallies: value("OVATION_TALLIES"),
            ledger: value("OVATION_LEDGER"),
        };
        stack
    }

    /// Runs a command of `dev/stack` to its end and returns what it printed.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = {
            let _exclusive = self.command_lock.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Sends SIGKILL to a server, and waits for its end.
    pub fn kill(&self, server: &str) {
        self.run(&["kill", server]);
    }

    /// Returns the process id of a server, if the server runs.
    pub fn pid(&self, server: &str) -> Option<u32> {
        let output = self.command(&["pid", server]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().ok()
    }

    /// Returns the folder with the data of a server.
    pub fn data(&self, server: &str) -> PathBuf {
        self.folder.join(server)
    }

    /// Makes dropping this leave the data in the folder.
    pub fn keep_data(&mut self) {
        self.keeps_data = true;
    }

    /// Returns the name of the broker with the index `number` modulo the number of brokers.
    pub fn broker(&self, number: u16) -> String {
        if self.brokers == 1 { "kafka".to_owned() } else { format!("kafka-{}", number % self.brokers + 1) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let stopped = if self.keeps_data || std::thread::panicking() {
            eprintln!("the data of the servers is in {}", self.folder.display());
            self.command(&["down"]).status()
        } else {
            self.command(&["down", "--wipe"]).status()
        };
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("the servers in {} could not be stopped", self.folder.display());
        }
    }
}
