//! Questions about single votes and datasets: forms of the answer, the three ways, what is kept, and who may ask.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::{join, join_all};
use results::Limits;
use serde_json::{Value, json};
use service::token::ReadToken;
use votes::{DatasetRow, Datasets, UnixMillis};

use crate::{
    memory::{Memory, vote_for},
    server::{Server, soon, start, start_on},
};

/// Makes a dataset of these rows.
pub(crate) async fn load(memory: &Arc<Memory>, name: &str, columns: &[&str], rows: &[&[&str]]) {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let dataset = memory.create(&name.parse().unwrap(), owned(columns)).await.unwrap().unwrap();
    let rows = (0..).zip(rows).map(|(number, cells)| DatasetRow { number, cells: owned(cells) }).collect();
    memory.load(&dataset, rows).await.unwrap();
}

fn questions(server: &Server) -> usize {
    *server.memory.book_questions.borrow()
}

/// Asks, and waits until the answer is kept.
async fn ask_and_keep(server: &Server, path: &str) -> Value {
    let mut kept = server.memory.kept.subscribe();
    let before = *kept.borrow_and_update();
    let answer = server.get(path).await.json();
    assert_eq!(answer["served"]["cache"], "miss", "{answer}");
    soon(kept.wait_for(|kept| *kept > before)).await.unwrap();
    answer
}

async fn cache_of(server: &Server, path: &str) -> Value {
    server.get(path).await.json()["served"]["cache"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_is_asked_like_the_votes() {
    let server = start().await;
    let columns = ["Band", "votes", "limit", "", "twice", "twice"];
    let rows: [&[&str]; 3] = [
        &["Queen", "9", "a", "b", "c", "d"],
        &["Björk", "10", "x,\"y\"", "", "two\nlines", "e"],
        &["ABBA", "n/a", "", "", "", ""],
    ];
    load(&server.memory, "ballots", &columns, &rows).await;
    let list = server.get("/v1/datasets").await.json();
    let fields: Vec<&str> = list["datasets"][0]["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["Band", "votes", "column.3", "column.4", "column.5", "column.6"]);
    assert_eq!((&list["datasets"][0]["dataset"], &list["datasets"][0]["rows"]), (&json!("ballots"), &json!(3)));

    let bands = async |query: &str| -> Vec<String> {
        let answer = server.get(&format!("/v1/datasets/ballots?{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.json());
        let rows = answer.json()["rows"].as_array().unwrap().clone();
        rows.iter().map(|row| row["Band"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(bands("").await, ["Queen", "Björk", "ABBA"]);
    assert_eq!(bands("VOTES=gt:9").await, ["Björk"]);
    assert_eq!(bands("sort=votes:desc").await, ["Björk", "Queen", "ABBA"]);
    assert_eq!(bands("band=like:bJ%C3%96").await, ["Björk"]);
    assert_eq!(bands("column.3=a").await, ["Queen"]);
    assert_eq!(bands("column.6=in:d,e&limit=1,5").await, ["Björk"]);
    let row = &server.get("/v1/datasets/ballots?limit=1").await.json()["rows"][0];
    assert_eq!(
        row,
        &json!({"Band": "Queen", "votes": "9", "limit": "a", "column.4": "b", "column.5": "c", "column.6": "d"})
    );

    for (path, status) in [("none", 404), ("No%20Slug", 404), ("ballots?twice=c", 422), ("ballots?nothing=1", 422)] {
        let answer = server.get(&format!("/v1/datasets/{path}")).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_lines_or_comma_separated_as_it_is_asked() {
    let server = start().await;
    let rows: [&[&str]; 2] = [&["Queen", "a"], &["Björk", "x,\"y\""]];
    load(&server.memory, "ballots", &["Band", "note"], &rows).await;
    let lines = server.get_with("/v1/datasets/ballots", &[("accept", "application/x-ndjson")]).await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let text = String::from_utf8(lines.body.to_vec()).unwrap();
    assert_eq!(text, "{\"Band\":\"Queen\",\"note\":\"a\"}\n{\"Band\":\"Björk\",\"note\":\"x,\\\"y\\\"\"}\n");
    let csv = server.get("/v1/datasets/ballots?format=csv&fields=note,band").await;
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!((csv.header("x-total"), csv.header("x-served")), ("2", "via=pool; cache=bypassed"));
    assert_eq!(String::from_utf8(csv.body.to_vec()).unwrap(), "note,Band\r\na,Queen\r\n\"x,\"\"y\"\"\",Björk\r\n");
    let json = server.get_with("/v1/datasets/ballots?format=json", &[("accept", "text/csv")]).await;
    assert_eq!(json.header("content-type"), "application/json");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_read_page_by_page() {
    let server = start().await;
    let names: Vec<String> = (0..5_000).map(|n| format!("Band {n}")).collect();
    server.memory.count(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let all = server.get("/v1/votes?format=ndjson&sort=name:desc,album&fields=name").await;
    let lines: Vec<Value> = all
        .body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let mut expected = names.clone();
    expected.sort_by(|a, b| b.cmp(a));
    assert_eq!(lines.iter().map(|line| line["name"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    assert_eq!(questions(&server), 3);
    let some = server.get("/v1/votes?format=csv&limit=10,4500").await;
    assert_eq!(some.body.split(|byte| *byte == b'\n').count(), 4_500 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_seen_to_be_no_whole_one() {
    let server = start().await;
    let names: Vec<String> = (0..5_000).map(|n| format!("Band {n}")).collect();
    server.memory.count(&names.iter().map(String::as_str).collect::<Vec<_>>());
    server.memory.book_gate.forget_permits(1_000);
    let fail = async {
        let mut questions = server.memory.book_questions.subscribe();
        server.memory.book_gate.add_permits(1);
        soon(questions.wait_for(|questions| *questions == 2)).await.unwrap();
        server.memory.book_is_down.store(true, Ordering::Relaxed);
        server.memory.book_gate.add_permits(10);
    };
    let (answer, ()) = join(server.get_raw("/v1/votes?format=csv"), fail).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..200]);
    // The last chunk alone is not it: a row may end with a 0.
    assert!(!answer.ends_with("\r\n0\r\n\r\n"), "it has the end of a whole answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_where_the_last_one_ended() {
    let server = start().await;
    let names: Vec<String> = (0..25).map(|n| format!("Band {n:02}")).collect();
    server.memory.count(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut shown = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.get(&format!("/v1/votes?sort=name&limit=10{cursor}")).await.json();
        shown.extend(page["votes"].as_array().unwrap().iter().map(|vote| vote["name"].as_str().unwrap().to_owned()));
        assert_eq!((&page["total"], &page["total_is"]), (&json!(25), &json!("exact")));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(shown, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_while_nothing_is_counted() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    let first = ask_and_keep(&server, "/v1/votes?name=Queen&limit=10").await;
    // The same, asked otherwise.
    let again = server.get("/v1/votes?limit=0,10&NAME=eq:Queen&contest=bands").await.json();
    assert_eq!((&again["served"]["cache"], &again["votes"]), (&json!("hit"), &first["votes"]));
    assert_eq!(questions(&server), 1);
    server.memory.count(&["Queen"]);
    let newer = ask_and_keep(&server, "/v1/votes?name=Queen&limit=10").await;
    assert_eq!(newer["votes"].as_array().unwrap().len(), 2);
    for via in ["pool", "direct"] {
        let answer = server.get(&format!("/v1/votes?name=Queen&via={via}")).await.json();
        assert_eq!(answer["served"], json!({"via": via, "cache": "bypassed", "age_ms": answer["served"]["age_ms"]}));
    }
    assert_eq!(questions(&server), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_answer_is_given_to_who_allows_it_and_says_so() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    ask_and_keep(&server, "/v1/votes").await;
    server.memory.count(&["Queen"]);
    let old = server.get("/v1/votes?max_age=10m").await.json();
    assert_eq!((&old["served"]["cache"], old["votes"].as_array().unwrap().len()), (&json!("stale"), 1));
    let new = ask_and_keep(&server, "/v1/votes?max_age=0s").await;
    assert_eq!(new["votes"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_a_dataset_is_kept_until_it_gets_rows() {
    let server = start().await;
    load(&server.memory, "ballots", &["name"], &[&["Queen"]]).await;
    let path = "/v1/datasets/ballots?name=Queen";
    ask_and_keep(&server, path).await;
    // Votes are no rows of it.
    server.memory.count(&["Queen"]);
    assert_eq!(cache_of(&server, path).await, "hit");
    let dataset = server.memory.describe(&"ballots".parse().unwrap()).await.unwrap().unwrap();
    server.memory.load(&dataset, vec![DatasetRow { number: 1, cells: vec!["Queen".to_owned()] }]).await.unwrap();
    assert_eq!(ask_and_keep(&server, path).await["total"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_ask_the_same_at_once_cost_one_question() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.book_gate.forget_permits(1_000);
    let asked = join_all((0..30).map(|_| server.get("/v1/votes")));
    let open = async {
        let mut questions = server.memory.book_questions.subscribe();
        soon(questions.wait_for(|questions| *questions == 1)).await.unwrap();
        server.memory.book_gate.add_permits(1_000);
    };
    let (answers, ()) = join(asked, open).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(questions(&server), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_can_be_forgotten() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    ask_and_keep(&server, "/v1/votes").await;
    let forgotten = server.ask("POST", "/v1/cache/invalidate", &[]).await;
    assert_eq!((forgotten.status, forgotten.json()), (200, json!({"forgotten": 1})));
    assert_eq!(cache_of(&server, "/v1/votes").await, "miss");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_place_of_answers_it_is_slower_and_not_down() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.answers_are_down.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let answer = server.get("/v1/votes").await;
        assert_eq!((answer.status, &answer.json()["served"]["cache"]), (200, &json!("degraded")));
    }
    assert_eq!(server.ask("POST", "/v1/cache/invalidate", &[]).await.status, 503);
    server.memory.answers_are_down.store(false, Ordering::Relaxed);
    ask_and_keep(&server, "/v1/votes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_popular_is_read_at_the_start() {
    let memory = Memory::new();
    memory.count(&["Queen"]);
    load(&memory, "ballots", &["name"], &[&["Queen"]]).await;
    let popular = [
        ("votes?contest=eq%3Abands&limit=0%2C100".to_owned(), 9.0),
        ("datasets/ballots?name=eq%3AQueen&limit=0%2C5".to_owned(), 5.0),
        ("datasets/gone?limit=0%2C5".to_owned(), 4.0),
        ("votes?nonsense".to_owned(), 3.0),
    ];
    votes::Answers::note_popular(&*memory, &popular).await.unwrap();
    let server = start_on(memory, Limits::default(), None).await;
    let mut kept = server.memory.kept.subscribe();
    soon(kept.wait_for(|kept| *kept == 2)).await.unwrap();
    assert_eq!(cache_of(&server, "/v1/votes").await, "hit");
    assert_eq!(cache_of(&server, "/v1/datasets/ballots?name=Queen&limit=5").await, "hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_costs_too_much_is_refused_unless_it_says_that_it_may() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.book_is_large.store(true, Ordering::Relaxed);
    for query in ["album=x", "album=x&via=direct", "album=x&format=csv"] {
        let answer = server.get(&format!("/v1/votes?{query}")).await;
        assert_eq!((answer.status, &answer.json()["field"]), (422, &json!("allow_scan")), "{query}");
        assert_eq!(server.get(&format!("/v1/votes?{query}&allow_scan=true")).await.status, 200, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_reads_no_single_vote() {
    let token = ReadToken::new("0123456789abcdef").unwrap();
    let memory = Memory::new();
    memory.count_votes(vec![(vote_for("Queen"), UnixMillis::now())]);
    let server = start_on(memory, Limits::default(), Some(token.clone())).await;
    let private =
        [("GET", "/v1/votes"), ("GET", "/v1/datasets"), ("GET", "/v1/datasets/x"), ("POST", "/v1/cache/invalidate")];
    for (method, path) in private {
        for headers in [[].as_slice(), &[("authorization", "Bearer 0123456789abcdeF")], &[("authorization", "Basic x")]]
        {
            let answer = server.ask(method, path, headers).await;
            assert_eq!((answer.status, answer.header("content-type")), (401, "application/problem+json"), "{path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"ovation\"");
            assert!(answer.json()["detail"].as_str().unwrap().contains("Authorization: Bearer"));
        }
        let authorization = token.authorization();
        let status = server.ask(method, path, &[("authorization", &authorization)]).await.status;
        assert_ne!(status, 401, "{path}");
    }
    assert_eq!(questions(&server), 1, "only who has the token asked the archive");
    for public in
        ["/", "/v1/contests", "/v1/contests/bands/tally", "/v1/contests/bands/albums", "/v1/rates", "/openapi.json"]
    {
        assert_eq!(server.get(public).await.status, 200, "{public}");
    }
    assert!(soon(async { tokio::time::timeout(Duration::from_secs(5), server.watch("bands")).await }).await.is_ok());
}
