//! Folders and S3 keep every promise of the port, and what is left when something goes wrong.
//!
//! The S3 server is the one that `OVATION_OBJECTS` names; each test has a prefix of its own there. What is done to servers is done to
//! one of the test's own.

use std::{
    fs,
    mem::ManuallyDrop,
    net::TcpListener,
    path::{Path as Folder, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use service::Config;
use tempfile::TempDir;
use tokio::time::sleep;
use uuid::Uuid;
use votes::{Objects, Store};

use super::{ObjectStorage, Place};

const MEBIBYTE: usize = 1 << 20;

fn open_at(url: &str) -> ObjectStorage {
    let config = Config::load(None, serde_json::json!({ "objects": url }), 0).unwrap();
    ObjectStorage::open(&Place::of(&config).unwrap()).unwrap()
}

/// All files in a folder, by what follows its own name.
fn files(folder: &Folder) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

async fn settle(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        sleep(Duration::from_millis(20)).await;
    }
}

mod folder {
    use super::*;

    #[expect(clippy::unused_async, reason = "the suite opens all stores so")]
    async fn open() -> (Arc<dyn Objects>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        // A path that has to be encoded in a URL.
        let url = format!("file://{}/a%20b/c%2541", folder.path().display());
        (Arc::new(open_at(&url)), folder)
    }

    votes::objects_conformance!(open);

    #[tokio::test]
    async fn it_is_made_when_the_first_object_is_written() {
        let (objects, folder) = open().await;
        let facts = objects.check().await.unwrap();
        assert_eq!(facts["writable"], "yes");
        assert_eq!(objects.read("a", 0..1).await.unwrap(), None);
        objects.remove("a").await.unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        objects.create("x/y").await.unwrap().finish().await.unwrap();
        assert!(folder.path().join("a b/c%41/x/y").is_file());
    }

    #[tokio::test]
    async fn a_dropped_writer_leaves_no_file() {
        let (objects, folder) = open().await;
        for mebibytes in [0, 9, 30] {
            let mut writer = objects.create("x/y").await.unwrap();
            writer.write(vec![1; mebibytes * MEBIBYTE]).await.unwrap();
            assert_eq!(files(folder.path()).len(), 1);
            drop(writer);
            settle("no file is left", || files(folder.path()).is_empty()).await;
        }
    }

    #[tokio::test]
    async fn one_that_cannot_be_written_says_so() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "no folder").unwrap();
        let objects = open_at(&format!("file://{}/file", folder.path().display()));
        let error = objects.create("x").await.map(drop).unwrap_err().to_string();
        assert!(error.starts_with("objects: file://") && error.contains("/file/x: "), "{error}");
    }
}

mod s3 {
    use super::*;

    /// A prefix in the bucket that the environment names.
    fn of_the_environment() -> ObjectStorage {
        let url = std::env::var("OVATION_OBJECTS").expect(
            "these tests need an S3 server and find it by OVATION_OBJECTS: `dev/stack up --s3 && export $(dev/stack env)` starts \
             one and sets that",
        );
        assert!(url.starts_with("s3://"), "OVATION_OBJECTS begins with s3://");
        open_at(&format!("{url}/test-{}", Uuid::now_v7()))
    }

    #[expect(clippy::unused_async, reason = "the suite opens all stores so")]
    async fn open() -> (Arc<dyn Objects>, ()) {
        (Arc::new(of_the_environment()), ())
    }

    votes::objects_conformance!(open);

    #[tokio::test]
    async fn it_says_where_it_is() {
        let facts = of_the_environment().check().await.unwrap();
        assert!(facts["place"].starts_with("s3://"), "{facts:?}");
    }

    #[tokio::test]
    async fn a_bucket_that_is_not_there_is_named() {
        let objects = open_at("s3://nobody-made-this/x");
        let error = objects.check().await.unwrap_err().to_string();
        assert!(error.contains("s3://nobody-made-this/x") && error.contains("NoSuchBucket"), "{error}");
        let error = objects.create("y").await.map(drop).unwrap_err().to_string();
        assert!(error.contains("NoSuchBucket"), "{error}");
    }
}

/// What the environment says about a cloud.
mod environment {
    use super::*;

    /// The URL that a test which is run by another one opens.
    const URL: &str = "OVATION_TEST_URL";

    #[test]
    fn what_is_wrong_in_it_is_told_before_anything_is_asked() {
        for (url, name, value, problem) in [
            ("s3://bucket/x", "AWS_ENDPOINT_URL", "http://127.0.0.1:1", "set AWS_ALLOW_HTTP=true if that is meant"),
            ("s3://bucket/x", "AWS_CA_BUNDLE", "/nowhere.pem", "AWS_CA_BUNDLE, /nowhere.pem: No such file"),
            ("gs://bucket/x", "GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json", "/nowhere.json"),
        ] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "objects::tests::environment::it_is_opened", "--ignored", "--nocapture"]);
            child.env_remove("AWS_ALLOW_HTTP").env(name, value).env(URL, url);
            let output = child.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains(&format!("refused: objects: {url}: ")) && said.contains(problem), "{name}: {said}");
        }
    }

    #[test]
    #[ignore = "run by the test above, in several environments"]
    fn it_is_opened() {
        let url = std::env::var(URL).expect("this test is run by another one");
        let config = Config::load(None, serde_json::json!({ "objects": url }), 0).unwrap();
        match ObjectStorage::open(&Place::of(&config).unwrap()) {
            Ok(_) => println!("opened"),
            Err(error) => println!("refused: {error}"),
        }
    }
}

/// A server of a test's own, to be killed, as `dev/stack` runs it.
mod mortal {
    use super::*;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

    /// The next ports to try.
    static PORT: AtomicU16 = AtomicU16::new(20_500);

    /// What a test that is run by another one is told of its server.
    const FOLDER: &str = "OVATION_TEST_STACK_DIR";
    const FIRST_PORT: &str = "OVATION_TEST_STACK_PORT";

    struct Server {
        folder: PathBuf,
        port: u16,
    }

    impl Server {
        /// `secure` is `yes` for one that speaks TLS.
        fn start(name: &str, secure: &str) -> Self {
            let folder = PathBuf::from(ROOT).join("target").join(format!("stack-{name}"));
            let is_free = |first: &u16| TcpListener::bind(("127.0.0.1", first + 15)).is_ok();
            let port =
                std::iter::repeat_with(|| PORT.fetch_add(1, Ordering::Relaxed)).find(is_free).expect("a free port");
            let server = Self { folder, port };
            server.run(&["down", "--wipe"]);
            fs::write(server.folder.join("settings"), format!("port={port}\nsecure={secure}\n")).unwrap();
            server.run(&["start", "s3"]);
            server
        }

        /// S3's endpoint comes from the environment, which a test can't set for itself: another test is run in a process of its own.
        fn run_test(&self, name: &str) {
            let env = self.run(&["env"]);
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", &format!("objects::tests::mortal::{name}"), "--ignored", "--nocapture"]);
            child.envs(env.lines().filter_map(|line| line.split_once('=')));
            child.env(FOLDER, &self.folder).env(FIRST_PORT, self.port.to_string());
            let output = child.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            let is_well = output.status.success() && said.contains("1 passed");
            assert!(is_well, "{said}{}", String::from_utf8_lossy(&output.stderr));
        }

        /// The server in whose environment this process runs. Whoever started it stops it.
        fn of_the_parent() -> ManuallyDrop<Self> {
            let value =
                |key| std::env::var(key).unwrap_or_else(|_| panic!("no {key}: this test is run by another one"));
            ManuallyDrop::new(Self { folder: value(FOLDER).into(), port: value(FIRST_PORT).parse().unwrap() })
        }

        fn run(&self, arguments: &[&str]) -> String {
            let mut command = Command::new(format!("{ROOT}/dev/stack"));
            command
                .args(arguments)
                .env("OVATION_STACK_DIR", &self.folder)
                .env("OVATION_STACK_PORT", self.port.to_string());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        }

        /// Parts that wait to become an object.
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
    fn an_upload_that_meets_a_dead_server_fails_and_the_next_one_works() {
        Server::start("s3", "no").run_test("with_a_server_that_dies");
    }

    #[test]
    fn s3_is_spoken_over_tls_with_authorities_of_ones_own() {
        Server::start("s3-secure", "yes").run_test("with_a_server_over_tls");
    }

    #[tokio::test]
    #[ignore = "run by the test above, in the environment of its server"]
    async fn with_a_server_over_tls() {
        let server = Server::of_the_parent();
        assert!(std::env::var("AWS_ENDPOINT_URL").unwrap().starts_with("https://"));
        let objects = open_at(&std::env::var("OVATION_OBJECTS").unwrap());
        let mut writer = objects.create("secret").await.unwrap();
        writer.write(b"whispered".to_vec()).await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(objects.read("secret", 0..9).await.unwrap().unwrap(), b"whispered");

        let stranger = server.folder.join("secure/stranger.pem");
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "objects::tests::mortal::with_a_server_that_is_not_trusted",
            "--ignored",
            "--nocapture",
        ]);
        let output = child.env("AWS_CA_BUNDLE", stranger).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[tokio::test]
    #[ignore = "run by the test above, in an environment that trusts another authority"]
    async fn with_a_server_that_is_not_trusted() {
        let objects = open_at(&std::env::var("OVATION_OBJECTS").unwrap());
        let begun = Instant::now();
        let error = objects.create("secret").await.map(drop).unwrap_err().to_string();
        assert!(error.contains("certificate") && begun.elapsed() < Duration::from_secs(12), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "run by the test above, in the environment of its server"]
    async fn with_a_server_that_dies() {
        let server = Server::of_the_parent();
        let objects = open_at(&std::env::var("OVATION_OBJECTS").unwrap());
        let part = || vec![7; 9 * MEBIBYTE];

        // A dropped writer takes its parts away.
        let mut writer = objects.create("dropped").await.unwrap();
        writer.write(vec![7; 30 * MEBIBYTE]).await.unwrap();
        settle("parts are stored", || !server.parts().is_empty()).await;
        drop(writer);
        settle("no part is left", || server.parts().is_empty()).await;

        // Killed in the middle.
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
        assert!(written <= 4, "{written} parts were taken by nobody");
        assert!(error.contains("s3://ovation/objects/killed") && error.contains("refused"), "{error}");
        // What is missing stays missing.
        writer.write(part()).await.unwrap_err();
        let error = writer.finish().await.unwrap_err().to_string();
        assert!(error.contains("given up"), "{error}");

        // While it is down.
        for (what, error) in [
            ("create", objects.create("x").await.map(drop).unwrap_err()),
            ("read", objects.read("x", 0..1).await.unwrap_err()),
            ("remove", objects.remove("x").await.unwrap_err()),
        ] {
            assert!(error.to_string().contains("refused"), "{what}: {error}");
        }
        let begun = Instant::now();
        let error = objects.check().await.unwrap_err().to_string();
        assert!(
            error.contains("refused") && begun.elapsed() < Duration::from_secs(2),
            "{error} in {:?}",
            begun.elapsed()
        );

        // One that hangs.
        server.run(&["start", "s3"]);
        let pid = server.run(&["pid", "s3"]);
        let signal =
            |signal: &str| assert!(Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
        signal("-STOP");
        let begun = Instant::now();
        let error = objects.create("x").await.map(drop).unwrap_err().to_string();
        assert!(error.contains("no answer within 10 s") && begun.elapsed() < Duration::from_secs(12), "{error}");
        signal("-CONT");

        let mut writer = objects.create("killed").await.unwrap();
        for _ in 0..40 {
            writer.write(part()).await.unwrap();
        }
        writer.finish().await.unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
        let most: usize = most.parse().unwrap();
        assert!(most < 150 << 10, "{} MiB of memory, for an object of 360", most >> 10);
        let end = 360 * MEBIBYTE as u64;
        assert_eq!(objects.read("killed", end - 2..end).await.unwrap().unwrap(), [7, 7]);
        objects.check().await.unwrap();
    }
}
