//! An invalid value ends the program with exit code 64 and an error that names the key.
#![allow(clippy::unwrap_used)]

use std::{fs, process::Command};

use tests::{command, program_named, run, without_stores};

/// Starts `ovation up` with an invalid configuration. Checks that it ends with exit code 64 before it creates a folder,
/// and returns its error.
fn refused(file: &str, flags: &[&str], env: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ovation.toml");
    fs::write(&path, file).unwrap();
    let mut up = command();
    up.arg("up").arg("--config").arg(&path).args(flags).envs(env.iter().copied()).current_dir(folder.path());
    let output = up.output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{file} {flags:?} {env:?}: {error}");
    assert!(!folder.path().join("ovation-data").exists(), "the configuration is checked before a folder is created");
    println!("{error}");
    error
}

#[test]
fn the_error_for_an_invalid_value_names_its_key() {
    let cases = [
        (refused("rest = \"nowhere\"", &[], &[]), "rest"),
        (refused("max_queued_votes = -1", &[], &[]), "max_queued_votes"),
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
        (refused("vote_log = \"pulsar://x\"", &[], &[]), "vote_log"),
        (refused("", &["--tallies", "redis"], &[]), "tallies"),
        (refused("", &["--vote-log", "kafka://127.0.0.1:1/votes"], &[]), "embedded stores and servers can't be mixed"),
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
        assert!(error.contains(key), "{error:?} does not name {key}");
    }
}

/// Starts one of the four programs with a configuration that it must refuse. Checks that it ends with exit code 64, and
/// returns its error. A program that does not refuse it would run on, so `timeout` ends it.
fn refused_by(name: &str, flags: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut program = without_stores(Command::new("timeout"));
    program.arg("60").arg(program_named(name)).args(["--admin", "127.0.0.1:0", "--log", "error"]).args(flags);
    let output = program.current_dir(folder.path()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{name} {flags:?}: {error}");
    error
}

#[test]
fn an_option_of_kafka_that_the_promise_depends_on_ends_the_program_and_is_named() {
    for option in
        ["delivery.timeout.ms", "metadata.broker.list", "retries", "transactional.id", "queue.buffering.max.ms"]
    {
        let log = format!("kafka://127.0.0.1:1/votes?{option}=1");
        let producer = ["--vote-log", &log, "--listen", "127.0.0.1:0"];
        let consumer =
            ["--vote-log", &log, "--tallies", "redis://127.0.0.1:1", "--ledger", "mongodb://127.0.0.1:1/test"];
        for (name, flags) in
            [("rest-producer", producer.as_slice()), ("grpc-producer", &producer), ("consumer", &consumer)]
        {
            let error = refused_by(name, flags);
            assert!(error.contains(option), "{name} {option}: {error}");
        }
    }
}

#[test]
fn a_flag_overrides_the_environment_and_the_environment_overrides_the_file() {
    // The source with the higher priority has the invalid value, and the error names that source.
    assert!(refused("rest = \"127.0.0.1:1\"", &[], &[("OVATION_REST", "bad")]).contains("in OVATION_REST"));
    assert!(!refused("", &["--rest", "bad"], &[("OVATION_REST", "127.0.0.1:1")]).contains("in OVATION_REST"));
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in
        ["up", "flood", "compare", "check", "tally", "rate", "stats", "votes", "audit", "replay", "dead-letters"]
    {
        let help = String::from_utf8(run(&[command, "--help"]).stdout).unwrap();
        assert!(help.contains("ovation") && help.to_lowercase().contains("example"), "{command}: {help}");
    }
    assert_eq!(run(&["tally", "--nonsense"]).status.code(), Some(64));
}

/// Starts one of the four programs with an address that is in use, and checks the error.
fn refused_address(name: &str, key: &str, flags: &[&str]) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let all = if name == "results" { ["--listen", "127.0.0.1:0", "--grpc", "127.0.0.1:0"].as_slice() } else { &[] };
    let others = all.chunks(2).filter(|flag| !flags.contains(&flag[0])).flatten();
    let all_flags: Vec<&str> = others.chain(flags).copied().chain([address.as_str()]).collect();
    let error = refused_by(name, &all_flags);
    assert!(error.contains(&format!("{key}: can't listen on {address}: ")), "{name} {flags:?}: {error}");
}

#[test]
fn an_address_in_use_ends_the_program_and_is_named_with_its_key() {
    refused_address("rest-producer", "rest", &["--listen"]);
    refused_address("grpc-producer", "grpc", &["--listen"]);
    refused_address("results", "results", &["--listen"]);
    refused_address("results", "results_grpc", &["--grpc"]);
}
