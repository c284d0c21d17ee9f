//! Redis servers that the tests start.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use redis::{Cmd, FromRedisValue, RedisResult, aio::MultiplexedConnection};
use tempfile::TempDir;

/// A server with its own folder. Dropping it kills the server and deletes the folder.
pub(super) struct Server {
    port: u16,
    folder: TempDir,
    options: Vec<String>,
    process: Mutex<Option<Child>>,
}

impl Server {
    /// Returns a server that several tests share. These tests must not change its settings. The server is stopped when
    /// the last of these tests drops it.
    pub(super) fn shared() -> Arc<Self> {
        static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(&[]));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// Starts a server with these options in addition to the default options.
    pub(super) fn start(options: &[&str]) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let server =
            Self { port: new_port(), folder: tempfile::tempdir().unwrap(), options, process: Mutex::default() };
        server.start_again();
        server
    }

    /// Starts the server with the data of its folder, and waits until it is ready.
    pub(super) fn start_again(&self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]).args(&self.options);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().expect("redis-server is installed");
        *self.process.lock().unwrap() = Some(process);
        let begun = Instant::now();
        while !self.is_ready() {
            assert!(begun.elapsed() < Duration::from_secs(20), "redis-server is not ready within 20 s");
            assert!(self.is_running(), "redis-server ended: is port {} in use?", self.port);
            sleep(Duration::from_millis(5));
        }
    }

    fn is_running(&self) -> bool {
        self.process.lock().unwrap().as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// Returns whether the server has started and loaded its data. A server that requires a password is ready too.
    fn is_ready(&self) -> bool {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let reply: RedisResult<String> =
            client.get_connection().and_then(|mut open| redis::cmd("PING").query(&mut open));
        reply.map_or_else(|error| error.code() == Some("NOAUTH"), |_| true)
    }

    /// Kills the server with SIGKILL.
    pub(super) fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Suspends the server with SIGSTOP: it keeps its connections, and does not reply.
    pub(super) fn suspend(&self) {
        let id = self.process.lock().unwrap().as_ref().expect("the server runs").id().to_string();
        assert!(Command::new("kill").args(["-STOP", &id]).status().unwrap().success());
    }

    /// Returns the host and the port.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(super) fn url(&self, prefix: &str) -> String {
        format!("redis://127.0.0.1:{}/?prefix={prefix}", self.port)
    }

    /// Sends a command, as `redis-cli` does, and returns the reply.
    pub(super) async fn cli<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = Cmd::new();
        command.arg(words);
        command.query_async(&mut self.connection().await).await.unwrap()
    }

    async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }
}

/// Returns a port that no other server of this process has, not even one that is stopped at the moment. The ports are
/// below those of outgoing connections, because such a connection could take a port before its server starts.
fn new_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let ports = std::iter::repeat_with(|| std::process::id() + COUNT.fetch_add(1, Ordering::Relaxed));
    let mut ports = ports.map(|number| 20_000 + u16::try_from(number % 12_000).unwrap());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a prefix that no other test has.
pub(super) fn new_prefix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
