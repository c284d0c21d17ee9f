//! The system on stores that speak TLS and ask for a password; and what is said where a certificate or password is wrong.
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

/// Eight for the stores, then those of the programs.
const PORT: u16 = 19_850;

/// A REST producer that passes votes on. Killed when dropped.
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

/// What the audit says of stores that it can't open.
fn refused(urls: &Urls) -> String {
    let output = tests::run(&[["audit"].as_slice(), &urls.flags()].concat());
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn votes_are_counted_once_over_tls_and_whoever_is_not_let_in_is_told_why() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("secured");
    fs::create_dir_all(&folder).unwrap();
    let config = folder.join("ovation.toml");
    fs::write(&config, "").unwrap();
    let stack = Stack::secured(&folder.join("servers"), PORT);
    let urls = &stack.urls;
    for (url, words) in [(&urls.queue, "sasl_ssl"), (&urls.tally, "rediss://:"), (&urls.book, "tls=true")] {
        assert!(url.contains(words), "{url}");
    }

    let fleet = Fleet::start(&folder.join("programs"), Addresses::new(PORT + 10, 1), urls, &config, 2);
    fleet.wait_until_ready();
    let at = |address: &dyn std::fmt::Display| format!("http://{address}");
    let addresses = &fleet.addresses;
    let (rest, grpc, results) = (at(&addresses.rest[0]), at(&addresses.grpc[0]), at(&addresses.results));
    let _forwarder = Forwarder::start(&grpc, PORT + 40, &folder.join("forwarder.log"));
    let forwarded = at(&format!("127.0.0.1:{}", PORT + 40));

    let checked =
        tests::run(&["check", "--rest", &rest, "--rest", &forwarded, "--grpc", &grpc, "--results", &results, "--json"]);
    assert_eq!(tests::json(&checked)["votes"].as_array().map(Vec::len), Some(3));
    let (by_rest, by_grpc) = (flood("rest", &rest), flood("grpc", &grpc) + flood("rest", &forwarded));
    let doors = || -> Value { tests::get(&format!("{results}/v1/contests/bands/tally"))["doors"].clone() };
    wait_for("all votes to be counted", || doors()["rest"] == by_rest + 1 && doors()["grpc"] == by_grpc + 2);
    let audit = tests::json(&tests::run(&[["audit", "--json"].as_slice(), &urls.flags()].concat()));
    assert_eq!((&audit["ok"], audit["tallies"].as_u64()), (&Value::Bool(true), Some(by_rest + by_grpc + 3)), "{audit}");
    fleet.end();

    let password = fs::read_to_string(stack.folder.join("secure/password")).unwrap();
    let ca = stack.folder.join("secure/ca.pem").display().to_string();
    let stranger = stack.folder.join("secure/stranger.pem").display().to_string();
    // The password's place differs; a certificate's file is an option's last part everywhere.
    let with = |change: &dyn Fn(&str) -> String| {
        [
            ("vote log", Urls { queue: change(&urls.queue), ..urls.clone() }),
            ("tallies", Urls { tally: change(&urls.tally), ..urls.clone() }),
            ("book", Urls { book: change(&urls.book), ..urls.clone() }),
        ]
    };
    for (store, wrong) in with(&|url| url.replace(&password, "guess")) {
        let said = refused(&wrong);
        assert!(said.contains(&format!("error: {store}: ")) && said.contains("password"), "{said}");
        assert!(!said.contains("guess") && !said.contains(&password), "{said}");
    }
    for (store, wrong) in with(&|url| url.replace(&ca, &stranger)) {
        let said = refused(&wrong);
        assert!(said.contains(&format!("error: {store}: ")) && said.contains("certificate"), "{said}");
        assert!(said.contains("tlsCAFile") || said.contains("ssl.ca.location"), "{said}");
    }
    for (key, wrong) in ["queue", "tally", "book"].into_iter().zip(with(&|url| url.replace(&ca, "/no/such/file.pem"))) {
        let said = refused(&wrong.1);
        assert!(said.contains(&format!("error: {key}: ")) && said.contains("/no/such/file.pem"), "{said}");
    }
}
