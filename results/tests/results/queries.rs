//! The HTTP routes: parameters, responses, and their documentation.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use votes::{UnixMillis, VoteRequest};

use crate::{memory::vote_for, reading::load_dataset, server::start};

#[tokio::test(flavor = "multi_thread")]
async fn all_configured_contests_are_listed() {
    let server = start().await;
    assert_eq!(
        server.get("/v1/contests").await.json(),
        json!({"contests": [{"contest": "bands"}, {"contest": "quiet"}]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tally_has_the_leading_bands_and_the_number_of_accepted_votes() {
    let server = start().await;
    let version = server.memory.count(&["Pink Floyd", "Queen", "Pink Floyd", "Björk"]);
    server.memory.accept(2);
    assert_eq!(
        server.get("/v1/contests/bands/tally").await.json(),
        json!({
            "contest": "bands",
            "total": 4,
            "version": version,
            "bands": [
                {"name": "Pink Floyd", "votes": 2, "share": 0.5},
                {"name": "Björk", "votes": 1, "share": 0.25},
                {"name": "Queen", "votes": 1, "share": 0.25},
            ],
            "others": {"bands": 0, "votes": 0},
            "producers": {"rest": 4},
            "processed": 4,
            "accepted": 6,
            "recounting": false,
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bands_after_the_hundredth_are_summed_up() {
    let server = start().await;
    let names: Vec<String> = (0..130).map(|n| format!("Band {n}")).collect();
    server.memory.count(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let tally = server.get("/v1/contests/bands/tally").await.json();
    assert_eq!(tally["bands"].as_array().unwrap().len(), 100);
    assert_eq!(tally["others"], json!({"bands": 30, "votes": 30}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_contest_is_not_found() {
    let server = start().await;
    for path in [
        "/v1/contests/films/tally",
        "/v1/contests/films/tally/stream",
        "/v1/contests/films/albums",
        "/v1/contests/No%20Slug!/tally",
        "/v1/rates?contest=films",
        "/v1/votes?contest=films",
    ] {
        let response = server.get(path).await;
        assert_eq!((response.status, response.header("content-type")), (404, "application/problem+json"), "{path}");
        assert_eq!(response.json()["type"], "urn:ovation:unknown-contest", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_parameter_is_named() {
    let server = start().await;
    for (query, field) in [
        ("rates?every=5s", "every"),
        ("rates?every=", "every"),
        ("rates?last=60", "last"),
        ("rates?last=-1s", "last"),
        ("rates?last=500ms", "last"),
        ("rates?every=1m&last=30s", "last"),
        ("rates?every=10ms&last=16m", "last"),
        ("rates?last=25h", "last"),
        ("rates?every=1m&last=366d", "last"),
        ("rates?last=9223372036854775807d", "last"),
        ("rates?evry=1s", "evry"),
        ("rates/settled?from=yesterday", "from"),
        ("rates/settled?from=0", "from"),
        ("rates/settled?every=1m&from=-1", "from"),
        ("rates/settled?from=1763750000000&last=60s", "from"),
        ("rates/settled?last=25h", "last"),
        ("rates?every=1s&every=1m", "every"),
        ("rates?contest=No+Slug", "contest"),
        ("votes?limit=0", "limit"),
        ("votes?limit=50001", "limit"),
        ("votes?limit=many", "limit"),
        ("votes?from=yesterday", "from"),
        ("votes?to=2026-13-01T00:00:00Z", "to"),
        ("votes?from=2026-11-21T20:00:00%2B01:00&to=2026-11-21T19:00:00Z", "to"),
        ("votes?from=2026-11-21T20:00:00+01:00", "from"),
        ("votes?name=", "name"),
        ("votes?name=%00", "name"),
        ("votes?contest=-x", "contest"),
        ("votes?voter=me", "voter"),
        ("votes?name=a&name=b", "name"),
        ("votes?name[0]=a", "name[0]"),
        ("votes?name=floyd:x", "name"),
        ("votes?sort=name:up", "sort"),
        ("votes?fields=name,band", "fields"),
        ("votes?cursor=00000000", "cursor"),
        ("votes?limit=99990,100", "limit"),
        ("votes?via=telephone", "via"),
        ("votes?format=xml", "format"),
        ("votes?max_age=11m", "max_age"),
        ("votes?max_age=1s&via=pool", "max_age"),
        ("votes?from=2026-11-21T20:00:00Z&accepted_at=gte:2026-11-21T20:00:00Z", "from"),
        ("contests/bands/albums?top=0", "top"),
        ("contests/bands/albums?top=x", "top"),
        ("contests/bands/albums?to=1", "to"),
    ] {
        let response = server.get(&format!("/v1/{query}")).await;
        assert_eq!((response.status, response.header("content-type")), (422, "application/problem+json"), "{query}");
        let problem = response.json();
        assert_eq!(problem["type"], "urn:ovation:invalid-field", "{query}");
        assert_eq!(problem["field"], field, "{query}");
        assert!(problem["detail"].as_str().unwrap().starts_with(field), "{query}: {problem}");
    }
    assert_eq!(
        server.memory.tallies_calls.load(std::sync::atomic::Ordering::Relaxed),
        0,
        "no store is read for an invalid request"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_count_votes_by_the_time_they_were_accepted() {
    let server = start().await;
    let now = UnixMillis::now().0;
    let second = now - now % 1_000;
    let at = |before: i64| UnixMillis(second - before);
    let mut other = vote_for("Amadeus");
    other.contest = Some("quiet".into());
    server.memory.count_votes(vec![
        (vote_for("Queen"), at(2_000)),
        (vote_for("Queen"), at(1_500)),
        (vote_for("Queen"), at(1_001)),
        (other, at(30_000)),
        (vote_for("Queen"), at(7_200_000)),
    ]);
    let windows = |response: &Value| -> Vec<(i64, u64)> {
        let windows = response.as_array().unwrap().iter();
        windows.map(|window| (window["start"].as_i64().unwrap() - second, window["votes"].as_u64().unwrap())).collect()
    };
    let all = server.get("/v1/rates").await;
    assert_eq!(all.header("content-type"), "application/json");
    assert_eq!(all.header("x-content-type-options"), "nosniff");
    assert_eq!(windows(&all.json()), [(-30_000, 1), (-2_000, 3)]);
    assert_eq!(windows(&server.get("/v1/rates?contest=bands").await.json()), [(-2_000, 3)]);
    assert_eq!(windows(&server.get("/v1/rates?every=1s&last=10s").await.json()), [(-2_000, 3)]);
    assert_eq!(
        windows(&server.get("/v1/rates?every=10ms&last=1m&contest=bands").await.json()),
        [(-2_000, 1), (-1_500, 1), (-1_010, 1)]
    );
    let minutes = server.get("/v1/rates?every=1m&last=3h").await.json();
    let minutes = windows(&minutes);
    assert_eq!(minutes.iter().map(|(_, votes)| votes).sum::<u64>(), 5);
    assert!(minutes.is_sorted() && minutes.iter().all(|(start, _)| (start + second) % 60_000 == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_settled_once_all_accepted_votes_are_counted() {
    let server = start().await;
    let now = UnixMillis::now();
    let second = |ago: i64| UnixMillis((now.0 - ago * 1_000).div_euclid(1_000) * 1_000);
    server.memory.count_votes(vec![
        (vote_for("Queen"), second(20)),
        (vote_for("Queen"), UnixMillis(second(20).0 + 999)),
        (vote_for("Queen"), second(10)),
        (vote_for("Queen"), now),
    ]);
    // The log has another vote, which may belong to any of these windows.
    server.memory.accept(1);
    let path = format!("/v1/rates/settled?from={}", second(20).0);
    let request = async || server.get(&path).await.json();
    let nothing = json!({"from": second(20), "before": second(20), "windows": []});
    assert_eq!(request().await, nothing);
    server.memory.catch_up();
    let settled = request().await;
    let windows = json!([{"start": second(20), "votes": 2}, {"start": second(10), "votes": 1}]);
    assert_eq!((&settled["from"], &settled["windows"]), (&json!(second(20)), &windows));
    let before = settled["before"].as_i64().unwrap();
    assert_eq!(before % 1_000, 0);
    // The votes of the last seconds may not be on the log yet.
    assert!(before <= UnixMillis::now().0 - 3_000 && before > second(5).0, "{before}");
    // After a loss of data, the tallies have fewer votes than were returned before.
    server.memory.lose_positions();
    assert_eq!(request().await, nothing);
    server.memory.catch_up();
    assert_eq!(request().await["windows"], windows);
    let beginning = server.get("/v1/rates/settled?every=1m").await.json();
    assert_eq!((&beginning["from"], &beginning["windows"]), (&beginning["before"], &json!([])));
    assert_eq!(server.get("/v1/rates/settled?contest=films").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_without_an_album_are_not_among_the_leading_albums() {
    let server = start().await;
    let album = |album: &str| VoteRequest { album: Some(album.into()), ..vote_for("Pink Floyd") };
    let now = UnixMillis::now();
    let votes = [album("Animals"), album("The Wall"), album("The Wall"), vote_for("Pink Floyd")];
    server.memory.count_votes(votes.into_iter().map(|vote| (vote, now)).collect());
    let wall = json!({"name": "Pink Floyd", "album": "The Wall", "votes": 2});
    let animals = json!({"name": "Pink Floyd", "album": "Animals", "votes": 1});
    assert_eq!(
        server.get("/v1/contests/bands/albums").await.json(),
        json!({"contest": "bands", "albums": [wall, animals]})
    );
    assert_eq!(
        server.get("/v1/contests/bands/albums?top=1").await.json(),
        json!({"contest": "bands", "albums": [wall]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn votes_are_found_by_band_and_time_newest_first() {
    let server = start().await;
    let noon = |seconds: i64| UnixMillis(1_795_262_400_000 + seconds * 1_000);
    let full = VoteRequest {
        album: Some("Jóga".into()),
        year: Some(1997),
        rank: Some(4.5),
        voter: Some("voter-1".into()),
        vote_id: Some("0190e1c8-5d6f-7aaa-8bbb-0123456789ab".into()),
        ..vote_for("Björk")
    };
    server.memory.count_votes(vec![(full, noon(0)), (vote_for("Queen"), noon(1)), (vote_for("Queen"), noon(2))]);

    // The name is decomposed, as some keyboards type it: o and a combining diaeresis.
    let found = server.get("/v1/votes?name=Bjo%CC%88rk").await.json();
    let vote = &found["votes"][0];
    let voter = vote["voter"].as_str().unwrap();
    assert!(voter.len() == 64 && voter.bytes().all(|byte| byte.is_ascii_hexdigit()), "{voter}");
    assert_eq!(
        found,
        json!({"total": 1, "total_is": "exact", "served": found["served"], "votes": [{
            "vote_id": "0190e1c8-5d6f-7aaa-8bbb-0123456789ab",
            "contest": "bands",
            "name": "Björk",
            "album": "Jóga",
            "year": 1997,
            "rank": 4.5,
            "voter": voter,
            "accepted_at": "2026-11-21T12:00:00.000Z",
            "producer": "rest",
            "partition": 0,
            "offset": 0,
        }]})
    );

    let times = async |query: &str| -> Vec<String> {
        let found = server.get(&format!("/v1/votes?{query}")).await.json();
        found["votes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|vote| vote["accepted_at"].as_str().unwrap()[17..19].into())
            .collect()
    };
    assert_eq!(times("").await, ["02", "01", "00"]);
    assert_eq!(times("limit=1").await, ["02"]);
    assert_eq!(times("from=2026-11-21T12:00:01Z").await, ["02", "01"]);
    assert_eq!(times("from=2026-11-21T13:00:01%2B01:00&to=2026-11-21T12:00:02Z").await, ["01"]);
    assert_eq!(times("contest=quiet").await, Vec::<String>::new());
    let bare = &server.get("/v1/votes?limit=1").await.json()["votes"][0];
    let fields: Vec<_> = bare.as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields, ["accepted_at", "contest", "name", "offset", "partition", "producer", "vote_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_have_exactly_the_documented_fields() {
    let server = start().await;
    let request = VoteRequest {
        album: Some("The Wall".into()),
        year: Some(1979),
        rank: Some(1.0),
        voter: Some("voter-1".into()),
        ..vote_for("Pink Floyd")
    };
    server.memory.count_votes(vec![(request, UnixMillis::now())]);
    load_dataset(&server.memory, "ballots", &["name"], &[&["Queen"]]).await;
    let document = server.get("/openapi.json").await.json();
    assert_eq!(document["openapi"].as_str().unwrap().split('.').take(2).collect::<Vec<_>>(), ["3", "1"]);
    for (route, path) in [
        ("/v1/contests", "/v1/contests"),
        ("/v1/contests/{contest}/tally", "/v1/contests/bands/tally"),
        ("/v1/contests/{contest}/albums", "/v1/contests/bands/albums"),
        ("/v1/rates", "/v1/rates"),
        ("/v1/votes", "/v1/votes"),
        ("/v1/datasets", "/v1/datasets"),
        ("/v1/datasets/{dataset}", "/v1/datasets/ballots"),
    ] {
        let schema = &document["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{route}");
        check_fields(&document, schema, &server.get(path).await.json(), route);
    }
    let problem = server.get("/v1/rates?every=x").await.json();
    let schema =
        &document["paths"]["/v1/rates"]["get"]["responses"]["422"]["content"]["application/problem+json"]["schema"];
    check_fields(&document, schema, &problem, "problem");
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_of_queries_equal_the_api_types() {
    let server = start().await;
    let request = VoteRequest {
        album: Some("The Wall".into()),
        year: Some(1979),
        rank: Some(4.5),
        voter: Some("voter-1".into()),
        ..vote_for("Pink Floyd")
    };
    server.memory.count_votes(vec![(request, UnixMillis::now()), (vote_for("Queen"), UnixMillis::now())]);
    load_dataset(&server.memory, "ballots", &["album", "name"], &[&["", "Queen"], &["x", "y"]]).await;
    for (query, has_next) in [("limit=1", true), ("", false)] {
        let votes = server.get(&format!("/v1/votes?{query}")).await.body;
        let read: api::VotesResponse = serde_json::from_slice(&votes).unwrap();
        assert_eq!(read.next.is_some(), has_next);
        assert_eq!(serde_json::to_string(&read).unwrap().as_bytes(), &votes[..]);
        let rows = server.get(&format!("/v1/datasets/ballots?{query}")).await.body;
        let read: api::RowsResponse = serde_json::from_slice(&rows).unwrap();
        assert_eq!(read.next.is_some(), has_next);
        assert_eq!(serde_json::to_string(&read).unwrap().as_bytes(), &rows[..]);
    }
}

/// Compares the fields of a response with those of its schema: each field is documented, and each required field is
/// present.
fn check_fields(document: &Value, schema: &Value, response: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return check_fields(document, document.pointer(&reference[1..]).expect(reference), response, at);
    }
    match response {
        Value::Array(items) => {
            assert!(!items.is_empty(), "{at} is empty");
            for item in items {
                check_fields(document, &schema["items"], item, at);
            }
        }
        Value::Object(fields) if schema["properties"].is_object() => {
            let documented = schema["properties"].as_object().unwrap();
            for (name, value) in fields {
                let schema = documented.get(name).unwrap_or_else(|| panic!("{at}.{name} is not documented"));
                check_fields(document, schema, value, &format!("{at}.{name}"));
            }
            let present: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(present.contains(required.as_str().unwrap()), "{at} has no {required}");
            }
        }
        Value::Object(fields) => {
            let schema = &schema["additionalProperties"];
            assert!(schema.is_object(), "{at} is not documented as a map");
            for value in fields.values() {
                check_fields(document, schema, value, at);
            }
        }
        _ => {
            let types = match &schema["type"] {
                Value::Array(types) => types.clone(),
                one => vec![one.clone()],
            };
            let actual = match response {
                Value::String(_) => "string",
                Value::Number(number) if number.is_f64() => "number",
                Value::Number(_) => "integer",
                Value::Bool(_) => "boolean",
                other => panic!("{at}: {other}"),
            };
            assert!(
                types.contains(&actual.into()) || types.contains(&"number".into()),
                "{at} is {actual}, but is documented as {types:?}"
            );
        }
    }
}
