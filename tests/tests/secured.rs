//! The system works with stores that require TLS and passwords. The errors name a wrong certificate or password.
#![allow(clippy::unwrap_used)]

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tests::{
    chaos::processes::{Addresses, Fleet},
    program_named,
    stack::{Stack, Urls},
    wait_for,
};

/// The first port. The stores use eight ports, and the programs use ports from `PORT + 10`.
const PORT: u16 = 19_850;

/// A REST producer that forwards votes to a gRPC producer. Dropping this kills the process.
struct Forwarder(Child);

impl Forwarder {
    fn start(grpc: &str, port: u16, log: &Path) -> Self {
        let mut program = Command::new(program_named("rest-producer"));
        program.args([
            "--forward",
            grpc,
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--admin",
            &format!("127.0.0.1:{}", port + 1),
        ]);
        program.stdin(Stdio::null()).stdout(File::create(log).unwrap()).stderr(File::create(log).unwrap());
        Self(program.spawn().unwrap())
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn flood(protocol: &str, url: &str) -> u64 {
    let output = tests::run(&["flood", "--protocol", protocol, "--url", url, "--rate", "500", "--for", "2s", "--json"]);
    let report = tests::json(&output);
    assert_eq!(report["acknowledged"], report["sent"], "{report}");
    report["acknowledged"].as_u64().unwrap()
}

/// Returns the error of the audit for stores that it can't open.
fn audit_error(urls: &Urls) -> String {
    let output = tests::run(&[["audit"].as_slice(), &urls.flags()].concat());
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn votes_are_counted_once_over_tls_and_a_refused_client_gets_the_reason() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("secured");
    fs::create_dir_all(&folder).unwrap();
    let config = folder.join("ovation.toml");
    fs::write(&config, "").unwrap();
    let stack = Stack::secured(&folder.join("servers"), PORT);
    let urls = &stack.urls;
    for (url, words) in [(&urls.vote_log, "sasl_ssl"), (&urls.tallies, "rediss://:"), (&urls.ledger, "tls=true")] {
        assert!(url.contains(words), "{url}");
    }

    let fleet = Fleet::start(&folder.join("programs"), Addresses::new(PORT + 10, 1), urls, &config, 2);
    fleet.wait_until_ready();
    let url_of = |address: &dyn std::fmt::Display| format!("http://{address}");
    let addresses = &fleet.addresses;
    let (rest, grpc, results) = (url_of(&addresses.rest[0]), url_of(&addresses.grpc[0]), url_of(&addresses.results));
    let _forwarder = Forwarder::start(&grpc, PORT + 40, &folder.join("forwarder.log"));
    let forwarded = url_of(&format!("127.0.0.1:{}", PORT + 40));

    let checked =
        tests::run(&["check", "--rest", &rest, "--rest", &forwarded, "--grpc", &grpc, "--results", &results, "--json"]);
    assert_eq!(tests::json(&checked)["votes"].as_array().map(Vec::len), Some(3));
    let (by_rest, by_grpc) = (flood("rest", &rest), flood("grpc", &grpc) + flood("rest", &forwarded));
    let producers = || -> Value { tests::get(&format!("{results}/v1/contests/bands/tally"))["producers"].clone() };
    wait_for("all votes to be counted", || producers()["rest"] == by_rest + 1 && producers()["grpc"] == by_grpc + 2);
    let audit = tests::json(&tests::run(&[["audit", "--json"].as_slice(), &urls.flags()].concat()));
    assert_eq!((&audit["ok"], audit["tallies"].as_u64()), (&Value::Bool(true), Some(by_rest + by_grpc + 3)), "{audit}");
    fleet.kill_all();

    let password = fs::read_to_string(stack.folder.join("secure/password")).unwrap();
    let ca = stack.folder.join("secure/ca.pem").display().to_string();
    let stranger = stack.folder.join("secure/stranger.pem").display().to_string();
    // For each store, returns the URLs with a changed URL of this store.
    let with_changed_url = |change: &dyn Fn(&str) -> String| {
        [
            ("vote log", Urls { vote_log: change(&urls.vote_log), ..urls.clone() }),
            ("tallies", Urls { tallies: change(&urls.tallies), ..urls.clone() }),
            ("ledger", Urls { ledger: change(&urls.ledger), ..urls.clone() }),
        ]
    };
    for (store, wrong) in with_changed_url(&|url| url.replace(&password, "guess")) {
        let error = audit_error(&wrong);
        assert!(error.contains(&format!("error: {store}: ")) && error.contains("password"), "{error}");
        assert!(!error.contains("guess") && !error.contains(&password), "{error}");
    }
    for (store, wrong) in with_changed_url(&|url| url.replace(&ca, &stranger)) {
        let error = audit_error(&wrong);
        assert!(error.contains(&format!("error: {store}: ")) && error.contains("certificate"), "{error}");
        assert!(error.contains("tlsCAFile") || error.contains("ssl.ca.location"), "{error}");
    }
    for (key, wrong) in ["vote_log", "tallies", "ledger"]
        .into_iter()
        .zip(with_changed_url(&|url| url.replace(&ca, "/no/such/file.pem")))
    {
        let error = audit_error(&wrong.1);
        assert!(error.contains(&format!("error: {key}: ")) && error.contains("/no/such/file.pem"), "{error}");
    }
}
