//! Queries about single votes and datasets: formats, the three ways to serve them, the response cache, and access
//! control.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::{join, join_all};
use query::{DatasetRow, Datasets};
use results::Limits;
use serde_json::{Value, json};
use service::token::ReadToken;
use votes::UnixMillis;

use crate::{
    memory::{Memory, vote_for},
    server::{Server, start, start_on, with_timeout},
};

/// Creates a dataset with these rows.
pub(crate) async fn load_dataset(memory: &Arc<Memory>, name: &str, columns: &[&str], rows: &[&[&str]]) {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let dataset = memory.create(&name.parse().unwrap(), owned(columns)).await.unwrap().unwrap();
    let rows = (0..).zip(rows).map(|(number, cells)| DatasetRow { number, cells: owned(cells) }).collect();
    memory.load(&dataset, rows).await.unwrap();
}

fn query_store_calls(server: &Server) -> usize {
    *server.memory.query_store_calls.borrow()
}

/// Sends a request whose response is not cached yet, and waits until the response is cached.
async fn get_and_cache(server: &Server, path: &str) -> Value {
    let mut cached = server.memory.cached.subscribe();
    let before = *cached.borrow_and_update();
    let response = server.get(path).await.json();
    assert_eq!(response["served"]["cache"], "miss", "{response}");
    with_timeout(cached.wait_for(|cached| *cached > before)).await.unwrap();
    response
}

async fn cache_status(server: &Server, path: &str) -> Value {
    server.get(path).await.json()["served"]["cache"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dataset_is_queried_like_votes() {
    let server = start().await;
    let columns = ["Band", "votes", "limit", "", "twice", "twice"];
    let rows: [&[&str]; 3] = [
        &["Queen", "9", "a", "b", "c", "d"],
        &["Björk", "10", "x,\"y\"", "", "two\nlines", "e"],
        &["ABBA", "n/a", "", "", "", ""],
    ];
    load_dataset(&server.memory, "ballots", &columns, &rows).await;
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
        let response = server.get(&format!("/v1/datasets/ballots?{query}")).await;
        assert_eq!(response.status, 200, "{query}: {}", response.json());
        let rows = response.json()["rows"].as_array().unwrap().clone();
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
        let response = server.get(&format!("/v1/datasets/{path}")).await;
        assert_eq!((response.status, response.header("content-type")), (status, "application/problem+json"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_returned_as_ndjson_or_csv_on_request() {
    let server = start().await;
    let rows: [&[&str]; 2] = [&["Queen", "a"], &["Björk", "x,\"y\""]];
    load_dataset(&server.memory, "ballots", &["Band", "note"], &rows).await;
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
async fn a_stream_of_rows_is_read_page_by_page() {
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
    assert_eq!(query_store_calls(&server), 3);
    let some = server.get("/v1/votes?format=csv&limit=10,4500").await;
    assert_eq!(some.body.split(|byte| *byte == b'\n').count(), 4_500 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_rows_that_fails_has_no_end_mark() {
    let server = start().await;
    let names: Vec<String> = (0..5_000).map(|n| format!("Band {n}")).collect();
    server.memory.count(&names.iter().map(String::as_str).collect::<Vec<_>>());
    server.memory.query_store_gate.forget_permits(1_000);
    let fail = async {
        let mut queries = server.memory.query_store_calls.subscribe();
        server.memory.query_store_gate.add_permits(1);
        with_timeout(queries.wait_for(|queries| *queries == 2)).await.unwrap();
        server.memory.query_store_is_down.store(true, Ordering::Relaxed);
        server.memory.query_store_gate.add_permits(10);
    };
    let (response, ()) = join(server.get_raw("/v1/votes?format=csv"), fail).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{}", &response[..200]);
    // The end mark is an empty chunk after the last chunk with rows.
    assert!(!response.ends_with("\r\n0\r\n\r\n"), "the response has the end mark of a complete response");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_begins_after_the_previous_one() {
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
async fn a_response_is_cached_until_a_vote_is_counted() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    let first = get_and_cache(&server, "/v1/votes?name=Queen&limit=10").await;
    // This is another spelling of the same query.
    let again = server.get("/v1/votes?limit=0,10&NAME=eq:Queen&contest=bands").await.json();
    assert_eq!((&again["served"]["cache"], &again["votes"]), (&json!("hit"), &first["votes"]));
    assert_eq!(query_store_calls(&server), 1);
    server.memory.count(&["Queen"]);
    let newer = get_and_cache(&server, "/v1/votes?name=Queen&limit=10").await;
    assert_eq!(newer["votes"].as_array().unwrap().len(), 2);
    for via in ["pool", "direct"] {
        let response = server.get(&format!("/v1/votes?name=Queen&via={via}")).await.json();
        assert_eq!(
            response["served"],
            json!({"via": via, "cache": "bypassed", "age_ms": response["served"]["age_ms"]})
        );
    }
    assert_eq!(query_store_calls(&server), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn max_age_allows_a_stale_response() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    get_and_cache(&server, "/v1/votes").await;
    server.memory.count(&["Queen"]);
    let old = server.get("/v1/votes?max_age=10m").await.json();
    assert_eq!((&old["served"]["cache"], old["votes"].as_array().unwrap().len()), (&json!("stale"), 1));
    let new = get_and_cache(&server, "/v1/votes?max_age=0s").await;
    assert_eq!(new["votes"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_of_a_dataset_is_cached_until_rows_are_added() {
    let server = start().await;
    load_dataset(&server.memory, "ballots", &["name"], &[&["Queen"]]).await;
    let path = "/v1/datasets/ballots?name=Queen";
    get_and_cache(&server, path).await;
    // Votes are not rows of the dataset.
    server.memory.count(&["Queen"]);
    assert_eq!(cache_status(&server, path).await, "hit");
    let dataset = server.memory.describe(&"ballots".parse().unwrap()).await.unwrap().unwrap();
    server.memory.load(&dataset, vec![DatasetRow { number: 1, cells: vec!["Queen".to_owned()] }]).await.unwrap();
    assert_eq!(get_and_cache(&server, path).await["total"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_for_the_same_query_run_it_once() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.query_store_gate.forget_permits(1_000);
    let requests = join_all((0..30).map(|_| server.get("/v1/votes")));
    let open_gate = async {
        let mut queries = server.memory.query_store_calls.subscribe();
        with_timeout(queries.wait_for(|queries| *queries == 1)).await.unwrap();
        server.memory.query_store_gate.add_permits(1_000);
    };
    let (responses, ()) = join(requests, open_gate).await;
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!(query_store_calls(&server), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_can_be_cleared() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    get_and_cache(&server, "/v1/votes").await;
    let cleared = server.request("POST", "/v1/cache/invalidate", &[]).await;
    assert_eq!((cleared.status, cleared.json()), (200, json!({"cleared": 1})));
    assert_eq!(cache_status(&server, "/v1/votes").await, "miss");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_served_without_the_response_cache() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.response_cache_is_down.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        let response = server.get("/v1/votes").await;
        assert_eq!((response.status, &response.json()["served"]["cache"]), (200, &json!("degraded")));
    }
    assert_eq!(server.request("POST", "/v1/cache/invalidate", &[]).await.status, 503);
    server.memory.response_cache_is_down.store(false, Ordering::Relaxed);
    get_and_cache(&server, "/v1/votes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn popular_queries_are_cached_at_the_start() {
    let memory = Memory::new();
    memory.count(&["Queen"]);
    load_dataset(&memory, "ballots", &["name"], &[&["Queen"]]).await;
    let popular = [
        ("votes?contest=eq%3Abands&limit=0%2C100".to_owned(), 9.0),
        ("datasets/ballots?name=eq%3AQueen&limit=0%2C5".to_owned(), 5.0),
        ("datasets/gone?limit=0%2C5".to_owned(), 4.0),
        ("votes?nonsense".to_owned(), 3.0),
    ];
    query::ResponseCache::put_popular(&*memory, &popular).await.unwrap();
    let server = start_on(memory, Limits::default(), None).await;
    let mut cached = server.memory.cached.subscribe();
    with_timeout(cached.wait_for(|cached| *cached == 2)).await.unwrap();
    assert_eq!(cache_status(&server, "/v1/votes").await, "hit");
    assert_eq!(cache_status(&server, "/v1/datasets/ballots?name=Queen&limit=5").await, "hit");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expensive_query_is_refused_without_allow_scan() {
    let server = start().await;
    server.memory.count(&["Queen"]);
    server.memory.query_store_is_large.store(true, Ordering::Relaxed);
    for query in ["album=x", "album=x&via=direct", "album=x&format=csv"] {
        let response = server.get(&format!("/v1/votes?{query}")).await;
        assert_eq!((response.status, &response.json()["field"]), (422, &json!("allow_scan")), "{query}");
        assert_eq!(server.get(&format!("/v1/votes?{query}&allow_scan=true")).await.status, 200, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn single_votes_and_datasets_need_the_token() {
    let token = ReadToken::new("0123456789abcdef").unwrap();
    let memory = Memory::new();
    memory.count_votes(vec![(vote_for("Queen"), UnixMillis::now())]);
    let server = start_on(memory, Limits::default(), Some(token.clone())).await;
    let private =
        [("GET", "/v1/votes"), ("GET", "/v1/datasets"), ("GET", "/v1/datasets/x"), ("POST", "/v1/cache/invalidate")];
    for (method, path) in private {
        for headers in [[].as_slice(), &[("authorization", "Bearer 0123456789abcdeF")], &[("authorization", "Basic x")]]
        {
            let response = server.request(method, path, headers).await;
            assert_eq!((response.status, response.header("content-type")), (401, "application/problem+json"), "{path}");
            assert_eq!(response.header("www-authenticate"), "Bearer realm=\"ovation\"");
            assert!(response.json()["detail"].as_str().unwrap().contains("Authorization: Bearer"));
        }
        let authorization = token.authorization();
        let status = server.request(method, path, &[("authorization", &authorization)]).await.status;
        assert_ne!(status, 401, "{path}");
    }
    assert_eq!(query_store_calls(&server), 1, "only the requests with the token read the query store");
    for public in
        ["/", "/v1/contests", "/v1/contests/bands/tally", "/v1/contests/bands/albums", "/v1/rates", "/openapi.json"]
    {
        assert_eq!(server.get(public).await.status, 200, "{public}");
    }
    assert!(
        with_timeout(async { tokio::time::timeout(Duration::from_secs(5), server.watch("bands")).await }).await.is_ok()
    );
}
