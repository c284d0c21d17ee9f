//! Single votes, as people read them: every way gives the same, popular questions are answered at the next start, and who has no
//! token reads nothing.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use serde_json::{Value, json};
use tests::{Addresses, Servers, System, command, wait_for};

const TOKEN: &str = "a-token-of-the-tests";

const QUESTION: &str = "/v1/votes?name=like:BAND*3&year=gte:1990&sort=rank:desc,year&limit=20";

fn start(folder: &Path, flags: &[&str]) -> System {
    let token = folder.join("token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let flags = [&["--read-token-file", token.to_str().unwrap()], flags].concat();
    System::start_with(&folder.join("data"), Addresses::free(), &flags)
}

fn ask(system: &System, path: &str) -> Value {
    let url = format!("http://{}{path}", system.addresses.results);
    let mut answer = ureq::get(&url).header("authorization", format!("Bearer {TOKEN}")).call().unwrap();
    answer.body_mut().read_json().unwrap()
}

fn metric(system: &System, line: &str) -> bool {
    let url = format!("http://{}/metrics", system.addresses.admin);
    let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
    text.lines().any(|known| known == line)
}

/// Returns the system, stopped.
fn cast_and_read(folder: &Path, flags: &[&str]) -> System {
    let mut system = start(folder, flags);
    let vote = |n: u32| json!({ "name": format!("Band {}", n % 7), "year": 1960 + n % 60, "rank": n % 100 });
    let votes: Vec<Value> = (0..1_000).map(vote).collect();
    assert_eq!(system.post_batch(&json!(votes)).0, 200);
    system.wait_until_counted();

    let question = QUESTION;
    let direct = ask(&system, &format!("{question}&via=direct"));
    assert_eq!(direct["votes"].as_array().unwrap().len(), 20);
    assert_eq!(direct["votes"], ask(&system, &format!("{question}&via=pool"))["votes"]);
    wait_for("the answer to be kept", || {
        let kept = ask(&system, question);
        assert_eq!(kept["votes"], direct["votes"]);
        kept["served"]["cache"] == "hit"
    });
    assert_eq!(system.post(&json!({ "name": "Band 3", "year": 2000, "rank": 100 })).0, 202);
    system.wait_until_counted();
    assert_eq!(ask(&system, question)["votes"][0]["rank"], 100.0, "an answer from before is not given any more");

    let nobody = ureq::get(format!("http://{}/v1/votes", system.addresses.results)).call();
    assert!(matches!(nobody, Err(ureq::Error::StatusCode(401))), "{nobody:?}");
    let token = folder.join("token");
    let url = format!("http://{}", system.addresses.results);
    let by_console = command().args(["votes", "--json", "--url", &url, "--token-file"]).arg(&token).output().unwrap();
    assert_eq!(tests::json(&by_console).as_array().unwrap().len(), 20);

    wait_for("the question to be noted as popular", || metric(&system, "ovation_cache_popular_questions 1"));
    assert!(system.stop().0.success());
    system
}

#[test]
fn votes_are_read_from_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    drop(cast_and_read(folder.path(), &[]));
    let system = start(folder.path(), &[]);
    wait_for("what was popular to be read", || metric(&system, "ovation_cache_warmed_total 1"));
    assert_eq!(ask(&system, QUESTION)["served"]["cache"], "hit");
}

#[test]
fn votes_are_read_from_servers() {
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::fresh();
    drop(cast_and_read(folder.path(), &servers.urls.flags()));
}
