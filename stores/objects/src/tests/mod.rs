//! Tests of the port with a folder and with S3, and of what remains after errors.
//!
//! `OVATION_OBJECTS` names the S3 server. Each test uses its own prefix there. The tests in `own_server` start and stop
//! their own servers.
#![allow(clippy::unwrap_used)]

#[cfg(feature = "servers")]
mod own_server;
#[cfg(feature = "servers")]
mod s3;

use std::{
    fs,
    path::Path as Folder,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use query::Objects;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{Location, ObjectStorage};

const MEBIBYTE: usize = 1 << 20;

fn open_at(url: &str) -> ObjectStorage {
    ObjectStorage::open(&Location::of(Some(url), Folder::new("unused")).unwrap()).unwrap()
}

/// Returns the paths of all files in a folder.
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

/// Waits until a condition is true. `what` describes the condition.
async fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not within 20 s");
        sleep(Duration::from_millis(20)).await;
    }
}

mod folder {
    use super::*;

    #[expect(clippy::unused_async, reason = "the conformance suite awaits it")]
    async fn open() -> (Arc<dyn Objects>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        // This path contains characters that a URL encodes.
        let url = format!("file://{}/a%20b/c%2541", folder.path().display());
        (Arc::new(open_at(&url)), folder)
    }

    query::objects_conformance!(open);

    #[tokio::test]
    async fn the_folder_is_created_with_the_first_object() {
        let (objects, folder) = open().await;
        let details = objects.check().await.unwrap();
        assert_eq!(details["writable"], "yes");
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
            wait_until("no file is left", || files(folder.path()).is_empty()).await;
        }
    }

    #[tokio::test]
    async fn an_error_of_a_folder_that_is_not_writable_names_the_object() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "no folder").unwrap();
        let objects = open_at(&format!("file://{}/file", folder.path().display()));
        let error = objects.create("x").await.map(drop).unwrap_err().to_string();
        assert!(error.starts_with("objects: file://") && error.contains("/file/x: "), "{error}");
    }
}

/// Settings of a cloud in the environment.
mod environment {
    use super::*;

    /// The variable with the URL that a child test opens.
    const URL: &str = "OVATION_TEST_URL";

    #[test]
    fn a_wrong_setting_is_reported_when_the_store_is_opened() {
        for (url, name, value, problem) in [
            ("s3://bucket/x", "AWS_ENDPOINT_URL", "http://127.0.0.1:1", "set AWS_ALLOW_HTTP=true to allow that"),
            ("s3://bucket/x", "AWS_CA_BUNDLE", "/nowhere.pem", "AWS_CA_BUNDLE, /nowhere.pem: No such file"),
            ("gs://bucket/x", "GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json", "/nowhere.json"),
        ] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "tests::environment::open_the_store", "--ignored", "--nocapture"]);
            child.env_remove("AWS_ALLOW_HTTP").env(name, value).env(URL, url);
            let output = child.output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(
                printed.contains(&format!("refused: objects: {url}: ")) && printed.contains(problem),
                "{name}: {printed}"
            );
        }
    }

    #[test]
    #[ignore = "a child of the test above, run in several environments"]
    fn open_the_store() {
        let url = std::env::var(URL).expect("only another test runs this one");
        match ObjectStorage::open(&Location::of(Some(&url), Folder::new("unused")).unwrap()) {
            Ok(_) => println!("opened"),
            Err(error) => println!("refused: {error}"),
        }
    }
}
