//! `ovation study` measures the three ways to read (direct, pool and cache), has cache hits and misses, checks every
//! answer, and writes a complete report.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Output,
};

use serde_json::{Value, json};
use tests::{Addresses, Servers, System, run};

fn start(folder: &Path, servers: &Servers) -> System {
    System::start_with(&folder.join("data"), Addresses::free(), &servers.urls.flags())
}

/// Runs `ovation study` with settings that need only some seconds.
fn study(servers: &Servers, url: SocketAddr, admin: SocketAddr, out: &Path) -> Output {
    let at = ["--url", &format!("http://{url}"), "--admin", &format!("http://{admin}"), "--out", out.to_str().unwrap()];
    let small = ["--rows", "500", "--queries", "5", "--users", "4", "--pause", "5ms", "--rounds", "1"];
    let short = ["--seconds", "1s", "--change-every", "400ms"];
    servers.run(&[&["study", "--json"], &at[..], &small, &short].concat())
}

#[test]
fn each_way_is_measured_with_hits_and_misses_and_the_report_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::fresh();
    let system = start(folder.path(), &servers);
    let out = folder.path().join("study");
    let Addresses { results, admin, .. } = system.addresses;
    let done = study(&servers, results, admin, &out);
    assert!(done.status.success(), "{done:?}");

    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report, serde_json::from_str::<Value>(&fs::read_to_string(out.join("study.json")).unwrap()).unwrap());
    assert!(report["ledger_server"].as_str().unwrap().contains("DB"), "{report}");
    let ways = report["ways"].as_array().unwrap();
    assert_eq!(ways.iter().map(|way| &way["way"]).collect::<Vec<_>>(), ["direct", "pool", "cache"]);
    for way in ways {
        assert_eq!((way["failed"].as_u64(), way["measurements"].as_u64()), (Some(0), Some(2)), "{way}");
        assert!(way["answers"].as_u64().unwrap() > 0 && way["p95_ms"]["median"].as_f64().unwrap() > 0.0, "{way}");
        // A row has about 120 bytes, and an answer has 35 % of 500 rows.
        assert!((10_000.0..50_000.0).contains(&way["bytes_per_answer"].as_f64().unwrap()), "{way}");
        let processes = way["processes"].as_array().unwrap();
        let names: Vec<&Value> = processes.iter().map(|process| &process["process"]).collect();
        assert_eq!(names, ["API", "MongoDB", "Redis", "study"]);
        assert!(processes.iter().all(|process| process["peak_mb"].as_f64().unwrap() > 1.0), "{way}");
        assert!(processes[0]["max_connections"].as_u64().unwrap() >= 4, "one connection for each reader: {way}");
    }
    let [direct, pool, cache] = ways.as_slice() else { panic!("{report}") };
    for way in [direct, pool] {
        assert_eq!(way["cache"], json!({ "bypassed": way["answers"] }));
    }
    let count = |status: &str| cache["cache"][status].as_u64().unwrap();
    assert!(count("hit") > 0 && count("miss") > 0, "{cache}");
    assert_eq!(cache["hit_rate"], cache["metrics_hit_rate"], "the answers and the metrics disagree");
    assert_eq!(report["pairs"].as_array().unwrap().len(), 3, "all pairs of ways");

    let report = fs::read_to_string(out.join("report.md")).unwrap();
    for text in ["cache against direct", "The cache", "CPU per answer", "| direct | MongoDB |", "does not show"] {
        assert!(report.contains(text), "{text} is missing in the report:\n{report}");
    }
    for plot in ["times.svg", "figures.svg", "processes.svg"] {
        let svg = fs::read_to_string(out.join(plot)).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("direct"), "{plot}");
    }
    assert_eq!(system.results("/v1/datasets"), json!({ "datasets": [] }), "the dataset was not removed");
}

#[test]
fn a_wrong_answer_ends_the_study() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::fresh();
    let system = start(folder.path(), &servers);
    let Addresses { results, admin, .. } = system.addresses;
    let proxy = forging_proxy(results);
    let done = study(&servers, proxy, admin, &folder.path().join("study"));
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let problem = String::from_utf8(done.stderr).unwrap();
    assert!(problem.contains("a wrong answer to price="), "{problem}");
    assert_eq!(system.results("/v1/datasets"), json!({ "datasets": [] }), "the dataset was not removed");
}

/// Starts a proxy that changes the price of a row in every response to a query via the cache.
fn forging_proxy(service: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            std::thread::spawn(move || forward(service, &connection));
        }
    });
    address
}

fn forward(service: SocketAddr, mut connection: &TcpStream) {
    let mut lines = BufReader::new(connection).lines();
    while let Some(Ok(request)) = lines.next() {
        let path = request.split(' ').nth(1).unwrap();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let url = format!("http://{service}{path}");
        let posted = request.starts_with("POST").then(|| ureq::post(&url).send_empty());
        let mut response = posted.unwrap_or_else(|| ureq::get(&url).call()).unwrap();
        let mut body = response.body_mut().read_to_string().unwrap();
        if path.contains("via=cache") {
            body = body.replacen("\"price\":\"", "\"price\":\"1", 1);
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        if connection.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).is_err() {
            return;
        }
    }
}

#[test]
fn embedded_stores_are_refused_because_two_processes_would_use_them() {
    let folder = tempfile::tempdir().unwrap();
    let done = run(&["study", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(64), "{done:?}");
    assert!(String::from_utf8(done.stderr).unwrap().contains("ledger: "));
}
