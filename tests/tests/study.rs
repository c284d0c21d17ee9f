//! `ovation study` asks in each of the three ways, meets hits and misses, checks every answer, and writes a report that is whole.
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

/// A study that takes some seconds.
fn study(servers: &Servers, url: SocketAddr, admin: SocketAddr, out: &Path) -> Output {
    let at = ["--url", &format!("http://{url}"), "--admin", &format!("http://{admin}"), "--out", out.to_str().unwrap()];
    let small = ["--rows", "500", "--questions", "5", "--users", "4", "--pause", "5ms", "--rounds", "1"];
    let short = ["--seconds", "1s", "--change-every", "400ms"];
    servers.run(&[&["study", "--json"], &at[..], &small, &short].concat())
}

#[test]
fn each_way_is_asked_with_hits_and_misses_and_the_report_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::fresh();
    let system = start(folder.path(), &servers);
    let out = folder.path().join("study");
    let Addresses { results, admin, .. } = system.addresses;
    let done = study(&servers, results, admin, &out);
    assert!(done.status.success(), "{done:?}");

    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report, serde_json::from_str::<Value>(&fs::read_to_string(out.join("study.json")).unwrap()).unwrap());
    assert!(report["book_server"].as_str().unwrap().contains("DB"), "{report}");
    let ways = report["ways"].as_array().unwrap();
    assert_eq!(ways.iter().map(|way| &way["way"]).collect::<Vec<_>>(), ["direct", "pool", "cache"]);
    for way in ways {
        assert_eq!((way["failed"].as_u64(), way["measurements"].as_u64()), (Some(0), Some(2)), "{way}");
        assert!(way["answers"].as_u64().unwrap() > 0 && way["p95_ms"]["median"].as_f64().unwrap() > 0.0, "{way}");
        // A row is about 120 bytes, and 35 % of 500 rows are an answer.
        assert!((10_000.0..50_000.0).contains(&way["bytes_per_answer"].as_f64().unwrap()), "{way}");
        let processes = way["processes"].as_array().unwrap();
        let names: Vec<&Value> = processes.iter().map(|process| &process["process"]).collect();
        assert_eq!(names, ["API", "MongoDB", "Redis", "study"]);
        assert!(processes.iter().all(|process| process["peak_mb"].as_f64().unwrap() > 1.0), "{way}");
        assert!(processes[0]["most_connections"].as_u64().unwrap() >= 4, "one for each reader: {way}");
    }
    let [direct, pool, cache] = ways.as_slice() else { panic!("{report}") };
    for way in [direct, pool] {
        assert_eq!(way["kept"], json!({ "bypassed": way["answers"] }));
    }
    let count = |what: &str| cache["kept"][what].as_u64().unwrap();
    assert!(count("hit") > 0 && count("miss") > 0, "{cache}");
    assert_eq!(cache["hit_rate"], cache["hit_rate_told"], "answers and metrics say the same");
    assert_eq!(report["pairs"].as_array().unwrap().len(), 3, "each way against each other");

    let report = fs::read_to_string(out.join("report.md")).unwrap();
    for part in ["cache against direct", "The cache", "CPU an answer", "| direct | MongoDB |", "does not show"] {
        assert!(report.contains(part), "{part} is in the report:\n{report}");
    }
    for plot in ["times.svg", "figures.svg", "processes.svg"] {
        let svg = fs::read_to_string(out.join(plot)).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("direct"), "{plot}");
    }
    assert_eq!(system.results("/v1/datasets"), json!({ "datasets": [] }), "the dataset is gone");
}

#[test]
fn a_wrong_answer_ends_the_study() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::fresh();
    let system = start(folder.path(), &servers);
    let Addresses { results, admin, .. } = system.addresses;
    let forger = forge(results);
    let done = study(&servers, forger, admin, &folder.path().join("study"));
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let problem = String::from_utf8(done.stderr).unwrap();
    assert!(problem.contains("a wrong answer to price="), "{problem}");
    assert_eq!(system.results("/v1/datasets"), json!({ "datasets": [] }), "the dataset is gone");
}

/// Stands before a service, and gives a row another price in every answer that comes from the cache.
fn forge(service: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let connection = connection.unwrap();
            std::thread::spawn(move || pass_on(service, &connection));
        }
    });
    address
}

fn pass_on(service: SocketAddr, mut connection: &TcpStream) {
    let mut lines = BufReader::new(connection).lines();
    while let Some(Ok(request)) = lines.next() {
        let path = request.split(' ').nth(1).unwrap();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let url = format!("http://{service}{path}");
        let posted = request.starts_with("POST").then(|| ureq::post(&url).send_empty());
        let mut answer = posted.unwrap_or_else(|| ureq::get(&url).call()).unwrap();
        let mut body = answer.body_mut().read_to_string().unwrap();
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
fn embedded_stores_are_refused_since_two_processes_would_work_on_them() {
    let folder = tempfile::tempdir().unwrap();
    let done = run(&["study", "--data", folder.path().to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(64), "{done:?}");
    assert!(String::from_utf8(done.stderr).unwrap().contains("book: "));
}
