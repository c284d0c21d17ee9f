//! A redis-server of the tests' own.

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use redis::{Cmd, FromRedisValue, RedisResult, aio::MultiplexedConnection};
use tempfile::TempDir;

/// A server with a folder of its own, killed when nobody needs it any more.
pub(super) struct Server {
    port: u16,
    folder: TempDir,
    options: Vec<String>,
    process: Mutex<Option<Child>>,
}

impl Server {
    /// The server of all tests that leave it as it is. The last one stops it.
    pub(super) fn shared() -> Arc<Self> {
        static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(&[]));
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// A server with these options beside the usual.
    pub(super) fn start(options: &[&str]) -> Self {
        // Below the ports that outgoing connections are given, so that none of them takes it meanwhile.
        let mut ports = (20_000 + u16::try_from(std::process::id() % 12_000).unwrap())..;
        let port = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let server = Self { port, folder: tempfile::tempdir().unwrap(), options, process: Mutex::default() };
        server.start_again();
        server
    }

    /// Starts it on what it left, and waits until it answers.
    pub(super) fn start_again(&self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]).args(&self.options);
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().expect("redis-server is installed");
        *self.process.lock().unwrap() = Some(process);
        let begun = Instant::now();
        while !self.answers() {
            assert!(begun.elapsed() < Duration::from_secs(20), "redis-server does not answer");
            sleep(Duration::from_millis(5));
        }
    }

    /// Whether it has started and loaded its data; it may want a password.
    fn answers(&self) -> bool {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let answer: RedisResult<String> =
            client.get_connection().and_then(|mut open| redis::cmd("PING").query(&mut open));
        answer.map_or_else(|error| error.code() == Some("NOAUTH"), |_| true)
    }

    /// Kills it as `kill -9` does.
    pub(super) fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap_or_else(PoisonError::into_inner).take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(super) fn url(&self, prefix: &str) -> String {
        format!("redis://127.0.0.1:{}/?prefix={prefix}", self.port)
    }

    /// What `redis-cli` answers to a line.
    pub(super) async fn cli<T: FromRedisValue>(&self, line: &[&str]) -> T {
        let mut command = Cmd::new();
        command.arg(line);
        command.query_async(&mut self.connection().await).await.unwrap()
    }

    async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A prefix that no other test has.
pub(super) fn new_prefix() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
