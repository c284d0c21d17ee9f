//! A bad value ends the program with exit code 64 and a sentence that names the key.
#![allow(clippy::unwrap_used)]

use std::fs;

use tests::{command, run};

fn refused(file: &str, flags: &[&str], env: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ovation.toml");
    fs::write(&path, file).unwrap();
    let mut up = command();
    up.arg("up").arg("--config").arg(&path).args(flags).envs(env.iter().copied()).current_dir(folder.path());
    let output = up.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{file} {flags:?} {env:?}: {error}");
    assert!(!folder.path().join("ovation-data").exists(), "it is checked before anything is made");
    println!("{error}");
    error
}

#[test]
fn a_bad_value_is_named_with_its_key() {
    let cases = [
        (refused("rest = \"nowhere\"", &[], &[]), "rest"),
        (refused("queue_votes = -1", &[], &[]), "queue_votes"),
        (refused("", &["--grpc", "1.2.3.4"], &[]), "grpc"),
        (refused("", &[], &[("OVATION_ADMIN", "here")]), "admin"),
        (refused("log_format = \"xml\"", &[], &[]), "log_format"),
        (refused("trusted_proxies = [\"10.0.0.0/33\"]", &[], &[]), "trusted_proxies"),
        (refused("", &["--trusted-proxies", "10.0.0.0/8,,::1"], &[]), "trusted_proxies"),
        (refused("", &[], &[("OVATION_TRUSTED_PROXIES", "10.0.0.0/8,ingress")]), "trusted_proxies"),
        (refused("", &["--traces", "collector:4317"], &[]), "traces"),
        (refused("traces = \"https://collector:4317\"", &[], &[]), "traces"),
        (refused("", &[], &[("OVATION_TRACES", "http://collector:4317/v1/traces")]), "OVATION_TRACES"),
        (refused("traces_ratio = 1.5", &[], &[]), "traces_ratio"),
        (refused("", &[], &[("OVATION_TRACES_RATIO", "half")]), "OVATION_TRACES_RATIO"),
        (refused("", &["--results", "0.0.0.0:0"], &[]), "read_token_file"),
        (refused("read_token_file = \"none.txt\"", &[], &[]), "read_token_file"),
        (refused("", &[], &[("OVATION_READ_TOKEN_FILE", "/dev/null")]), "read_token_file"),
        (refused("", &["--read-pool", "0"], &[]), "read_pool"),
        (refused("", &["--objects", "ftp://files"], &[]), "objects"),
        (refused("objects = \"s3://\"", &[], &[]), "objects"),
        (refused("", &[], &[("OVATION_OBJECTS", "file://imported")]), "objects: file://imported names no folder"),
        (refused("unknown = 1", &[], &[]), "unknown"),
        (refused("queue = \"pulsar://x\"", &[], &[]), "queue"),
        (refused("", &["--tally", "redis"], &[]), "tally"),
        (refused("", &["--queue", "kafka://127.0.0.1:1/votes"], &[]), "embedded stores and servers can't be mixed"),
        (refused("[contests.Final]", &[], &[]), "contests"),
        (refused("[contests.final]\ncandidates = []", &[], &[]), "contests.final.candidates"),
        (refused("[contests.final]\ncandidates = \"none.txt\"", &[], &[]), "contests.final.candidates"),
        (refused("[contests.final]\nvotes_per_voter = \"two\"", &[], &[]), "votes_per_voter"),
        (refused("[contests.final]\nopens = \"soon\"", &[], &[]), "contests.final.opens"),
        (
            refused("[contests.f]\nopens = \"2026-01-02T00:00:00Z\"\ncloses = \"2026-01-01T00:00:00Z\"", &[], &[]),
            "contests.f.closes",
        ),
    ];
    for (error, key) in cases {
        assert!(error.contains(key), "{error:?} names {key}");
    }
}

#[test]
fn a_flag_is_stronger_than_the_environment_and_that_than_the_file() {
    // Each stronger source has the bad value, and the error says where it was.
    assert!(refused("rest = \"127.0.0.1:1\"", &[], &[("OVATION_REST", "bad")]).contains("in OVATION_REST"));
    assert!(!refused("", &["--rest", "bad"], &[("OVATION_REST", "127.0.0.1:1")]).contains("in OVATION_REST"));
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in ["up", "flood", "compare", "check", "tally", "rate", "stats", "votes", "audit", "replay", "dead"] {
        let help = String::from_utf8(run(&[command, "--help"]).stdout).unwrap();
        assert!(help.contains("ovation") && help.to_lowercase().contains("example"), "{command}: {help}");
    }
    assert_eq!(run(&["tally", "--nonsense"]).status.code(), Some(64));
}
