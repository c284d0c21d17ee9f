//! Brokers for one test. The test may kill the brokers.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use super::Topic;

/// The first port that the next stack tries.
static NEXT_PORT: AtomicU16 = AtomicU16::new(21_000);

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Servers that `dev/stack` runs in a separate folder. Dropping a stack stops its servers and deletes their data.
pub(crate) struct Stack {
    folder: PathBuf,
    port: u16,
}

impl Stack {
    pub(crate) fn up(name: &str, brokers: u8) -> Self {
        let folder = PathBuf::from(ROOT).join("target").join(format!("stack-{name}"));
        let are_free = |first: &u16| (*first..first + 8).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        let mut ports = std::iter::repeat_with(|| NEXT_PORT.fetch_add(8, Ordering::Relaxed));
        let port = ports.find(are_free).expect("free ports");
        let stack = Self { folder, port };
        stack.run(&["up", "--fresh", "--brokers", &brokers.to_string()]);
        stack
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(format!("{ROOT}/dev/stack"));
        command.args(arguments).env("OVATION_STACK_DIR", &self.folder);
        command.env("OVATION_STACK_PORT", self.port.to_string());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn kill(&self, broker: &str) {
        self.run(&["kill", broker]);
    }

    pub(crate) fn start(&self, broker: &str) {
        self.run(&["start", broker]);
    }

    /// Sends a signal to a broker: it hangs after `STOP`, and continues after `CONT`.
    pub(crate) fn signal(&self, broker: &str, signal: &str) {
        let pid = self.run(&["pid", broker]);
        assert!(Command::new("kill").args([&format!("-{signal}"), pid.trim()]).status().unwrap().success());
    }

    /// Returns a new topic that does not exist yet.
    pub(crate) fn topic(&self) -> Topic {
        let env = self.run(&["env"]);
        let url = env.lines().find_map(|line| line.strip_prefix("OVATION_VOTE_LOG=")).unwrap();
        Topic::with_brokers_of(url)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.run(&["down", "--wipe"]);
    }
}
