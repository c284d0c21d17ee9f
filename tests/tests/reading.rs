//! Queries for single votes: the three ways (direct, pool and cache) have the same result, popular queries are cached
//! at the next start, and a request without the token is refused.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use serde_json::{Value, json};
use tests::{Addresses, System, command, wait_for};

const TOKEN: &str = "a-token-of-the-tests";

const QUERY: &str = "/v1/votes?name=like:BAND*3&year=gte:1990&sort=rank:desc,year&limit=20";

fn start(folder: &Path, flags: &[&str]) -> System {
    let token = folder.join("token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let flags = [&["--read-token-file", token.to_str().unwrap()], flags].concat();
    System::start_with(&folder.join("data"), Addresses::free(), &flags)
}

fn query(system: &System, path: &str) -> Value {
    let url = format!("http://{}{path}", system.addresses.results);
    let mut response = ureq::get(&url).header("authorization", format!("Bearer {TOKEN}")).call().unwrap();
    response.body_mut().read_json().unwrap()
}

fn has_metric(system: &System, line: &str) -> bool {
    let url = format!("http://{}/metrics", system.addresses.admin);
    let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    text.lines().any(|metric| metric == line)
}

/// Casts votes, and queries them. Returns the stopped system.
fn cast_and_read(folder: &Path, flags: &[&str]) -> System {
    let mut system = start(folder, flags);
    let vote = |n: u32| json!({ "name": format!("Band {}", n % 7), "year": 1960 + n % 60, "rank": n % 100 });
    let votes: Vec<Value> = (0..1_000).map(vote).collect();
    assert_eq!(system.post_batch(&json!(votes)).0, 200);
    system.wait_until_counted();

    let direct = query(&system, &format!("{QUERY}&via=direct"));
    assert_eq!(direct["votes"].as_array().unwrap().len(), 20);
    assert_eq!(direct["votes"], query(&system, &format!("{QUERY}&via=pool"))["votes"]);
    wait_for("the response to be cached", || {
        let cached = query(&system, QUERY);
        assert_eq!(cached["votes"], direct["votes"]);
        cached["served"]["cache"] == "hit"
    });
    assert_eq!(system.post(&json!({ "name": "Band 3", "year": 2000, "rank": 100 })).0, 202);
    system.wait_until_counted();
    assert_eq!(query(&system, QUERY)["votes"][0]["rank"], 100.0, "the outdated response is not used");

    let unauthorized = ureq::get(format!("http://{}/v1/votes", system.addresses.results)).call();
    assert!(matches!(unauthorized, Err(ureq::Error::StatusCode(401))), "{unauthorized:?}");
    let token = folder.join("token");
    let url = format!("http://{}", system.addresses.results);
    let printed = command().args(["votes", "--json", "--url", &url, "--token-file"]).arg(&token).output().unwrap();
    assert_eq!(tests::json(&printed).as_array().unwrap().len(), 20);

    wait_for("the query to be popular", || has_metric(&system, "ovation_cache_popular_queries 1"));
    assert!(system.stop().0.success());
    system
}

#[test]
fn votes_are_read_from_embedded_stores() {
    let folder = tempfile::tempdir().unwrap();
    drop(cast_and_read(folder.path(), &[]));
    let system = start(folder.path(), &[]);
    wait_for("the popular query to be cached", || has_metric(&system, "ovation_cache_warmed_total 1"));
    assert_eq!(query(&system, QUERY)["served"]["cache"], "hit");
}

/// The same test on servers.
#[cfg(feature = "servers")]
mod on_servers {
    use tests::Servers;

    use super::*;

    #[test]
    fn votes_are_read_from_servers() {
        let folder = tempfile::tempdir().unwrap();
        let servers = Servers::fresh();
        drop(cast_and_read(folder.path(), &servers.urls.flags()));
    }
}
