//! Tests that start their own S3 server with `dev/stack`, because they kill it or need TLS.

use std::{
    fs,
    mem::ManuallyDrop,
    net::TcpListener,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use query::Objects;
use votes::Store;

use super::{MEBIBYTE, files, open_at, wait_until};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The first port that the next server tries.
static NEXT_PORT: AtomicU16 = AtomicU16::new(20_500);

/// The environment variables that give a child test the folder and the first port of its server.
const FOLDER: &str = "OVATION_TEST_STACK_DIR";
const FIRST_PORT: &str = "OVATION_TEST_STACK_PORT";

struct Server {
    folder: PathBuf,
    port: u16,
}

impl Server {
    /// Starts a server. It uses TLS if `secure` is `yes`.
    fn start(name: &str, secure: &str) -> Self {
        let folder = PathBuf::from(ROOT).join("target").join(format!("stack-{name}"));
        let is_free = |first: &u16| TcpListener::bind(("127.0.0.1", first + 15)).is_ok();
        let mut ports = std::iter::repeat_with(|| NEXT_PORT.fetch_add(1, Ordering::Relaxed));
        let port = ports.find(is_free).expect("a free port");
        let server = Self { folder, port };
        server.run(&["down", "--wipe"]);
        fs::write(server.folder.join("settings"), format!("port={port}\nsecure={secure}\n")).unwrap();
        server.run(&["start", "s3"]);
        server
    }

    /// Runs a test in a child process, because a test can't set its own environment, which contains the endpoint of S3.
    fn run_test(&self, name: &str) {
        let env = self.run(&["env"]);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &format!("tests::own_server::{name}"), "--ignored", "--nocapture"]);
        child.envs(env.lines().filter_map(|line| line.split_once('=')));
        child.env(FOLDER, &self.folder).env(FIRST_PORT, self.port.to_string());
        let output = child.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let has_passed = output.status.success() && printed.contains("1 passed");
        assert!(has_passed, "{printed}{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the server that the parent process started. Only the parent process stops it.
    fn of_the_parent() -> ManuallyDrop<Self> {
        let value = |key| std::env::var(key).unwrap_or_else(|_| panic!("no {key}: only another test runs this one"));
        ManuallyDrop::new(Self { folder: value(FOLDER).into(), port: value(FIRST_PORT).parse().unwrap() })
    }

    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(format!("{ROOT}/dev/stack"));
        command.args(arguments).env("OVATION_STACK_DIR", &self.folder).env("OVATION_STACK_PORT", self.port.to_string());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the files of parts that no object was assembled from yet.
    fn parts(&self) -> Vec<String> {
        files(&self.folder.join("s3/ovation")).into_iter().filter(|file| file.contains("multipart")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run(&["down", "--wipe"]);
    }
}

#[test]
fn an_upload_to_a_dead_server_fails_and_works_after_a_restart() {
    Server::start("s3", "no").run_test("with_a_server_that_dies");
}

#[test]
fn s3_works_over_tls_with_a_private_authority() {
    Server::start("s3-secure", "yes").run_test("with_a_server_over_tls");
}

#[tokio::test]
#[ignore = "a child of the test above, run in the environment of its server"]
async fn with_a_server_over_tls() {
    let server = Server::of_the_parent();
    assert!(std::env::var("AWS_ENDPOINT_URL").unwrap().starts_with("https://"));
    let objects = open_at(&std::env::var("OVATION_OBJECTS").unwrap());
    let mut writer = objects.create("secret").await.unwrap();
    writer.write(b"encrypted".to_vec()).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(objects.read("secret", 0..9).await.unwrap().unwrap(), b"encrypted");

    let stranger = server.folder.join("secure/stranger.pem");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "tests::own_server::with_a_server_that_is_not_trusted", "--ignored", "--nocapture"]);
    let output = child.env("AWS_CA_BUNDLE", stranger).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
#[ignore = "a child of the test above, run in an environment that trusts another authority"]
async fn with_a_server_that_is_not_trusted() {
    let objects = open_at(&std::env::var("OVATION_OBJECTS").unwrap());
    let begun = Instant::now();
    let error = objects.create("secret").await.map(drop).unwrap_err().to_string();
    assert!(error.contains("certificate") && begun.elapsed() < Duration::from_secs(12), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a child of the test above, run in the environment of its server"]
async fn with_a_server_that_dies() {
    let server = Server::of_the_parent();
    let objects = open_at(&std::env::var("OVATION_OBJECTS").unwrap());
    let part = || vec![7; 9 * MEBIBYTE];

    // A dropped writer deletes its parts.
    let mut writer = objects.create("dropped").await.unwrap();
    writer.write(vec![7; 30 * MEBIBYTE]).await.unwrap();
    wait_until("parts are stored", || !server.parts().is_empty()).await;
    drop(writer);
    wait_until("no part is left", || server.parts().is_empty()).await;

    // The server is killed in the middle of an upload.
    let mut writer = objects.create("killed").await.unwrap();
    writer.write(part()).await.unwrap();
    server.run(&["kill", "s3"]);
    let begun = Instant::now();
    let mut written = 0;
    let error = loop {
        match writer.write(part()).await {
            Ok(()) => written += 1,
            Err(error) => break error.to_string(),
        }
    };
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(written <= 4, "{written} writes succeeded after the server was killed");
    assert!(error.contains("s3://ovation/objects/killed") && error.contains("refused"), "{error}");
    // Later calls of the writer fail too.
    writer.write(part()).await.unwrap_err();
    let error = writer.finish().await.unwrap_err().to_string();
    assert!(error.contains("aborted"), "{error}");

    // The server is still down.
    for (what, error) in [
        ("create", objects.create("x").await.map(drop).unwrap_err()),
        ("read", objects.read("x", 0..1).await.unwrap_err()),
        ("remove", objects.remove("x").await.unwrap_err()),
    ] {
        assert!(error.to_string().contains("refused"), "{what}: {error}");
    }
    let begun = Instant::now();
    let error = objects.check().await.unwrap_err().to_string();
    assert!(error.contains("refused") && begun.elapsed() < Duration::from_secs(2), "{error} in {:?}", begun.elapsed());

    // The server hangs.
    server.run(&["start", "s3"]);
    let pid = server.run(&["pid", "s3"]);
    let signal = |signal: &str| assert!(Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
    signal("-STOP");
    let begun = Instant::now();
    let error = objects.create("x").await.map(drop).unwrap_err().to_string();
    assert!(error.contains("no response within 10 s") && begun.elapsed() < Duration::from_secs(12), "{error}");
    signal("-CONT");

    let mut writer = objects.create("killed").await.unwrap();
    for _ in 0..40 {
        writer.write(part()).await.unwrap();
    }
    writer.finish().await.unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    let peak: usize = peak.parse().unwrap();
    assert!(peak < 150 << 10, "{} MiB of memory for an object of 360 MiB", peak >> 10);
    let end = 360 * MEBIBYTE as u64;
    assert_eq!(objects.read("killed", end - 2..end).await.unwrap().unwrap(), [7, 7]);
    objects.check().await.unwrap();
}
