//! Hostile requests. Each has exactly one correct response. A refused vote is never published.

use std::time::Duration;

use rest_producer::BodyTimeouts;
use serde_json::Value;

use crate::client::{JSON, NDJSON, Response, TestProducer, slug};

/// A request, and the status, reason and field of the only correct response.
struct Case {
    what: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    status: u16,
    reason: &'static str,
    field: Option<&'static str>,
}

fn case(what: &'static str, body: impl Into<Vec<u8>>, status: u16, reason: &'static str) -> Case {
    Case { what, headers: vec![JSON], body: body.into(), status, reason, field: None }
}

fn malformed(what: &'static str, body: impl Into<Vec<u8>>) -> Case {
    case(what, body, 400, "malformed-body")
}

fn invalid(what: &'static str, field: &'static str, body: impl Into<Vec<u8>>) -> Case {
    Case { field: Some(field), ..case(what, body, 422, "invalid-field") }
}

fn with(header: (&'static str, &'static str), case: Case) -> Case {
    let headers = [case.headers.clone(), vec![header]].concat();
    Case { headers, ..case }
}

/// Bodies that are not JSON objects.
fn broken() -> Vec<Case> {
    vec![
        malformed("nothing", ""),
        malformed("white space", " \r\n\t"),
        malformed("truncated in a string", r#"{"name":"Pink"#),
        malformed("truncated after a field", r#"{"name":"Pink Floyd""#),
        malformed("truncated after a colon", r#"{"name":"#),
        malformed("truncated in a literal", r#"{"name":"X","rank":tru"#),
        malformed("a byte order mark", b"\xef\xbb\xbf{\"name\":\"X\"}"),
        malformed("UTF-16", b"\xff\xfe{\0\"\0n\0\"\0:\0\"\0X\0\"\0}\0"),
        malformed("trailing garbage", r#"{"name":"X"} x"#),
        malformed("a trailing NUL", b"{\"name\":\"X\"}\0"),
        malformed("two votes", r#"{"name":"X"}{"name":"Y"}"#),
        malformed("a trailing comma", r#"{"name":"X",}"#),
        malformed("a missing comma", r#"{"name":"X" "year":1979}"#),
        malformed("single quotes", "{'name':'X'}"),
        malformed("a bare key", r#"{name:"X"}"#),
        malformed("a comment", r#"{"name":"X"/*!*/}"#),
        malformed("an array", r#"[{"name":"X"}]"#),
        malformed("text", r#""Pink Floyd""#),
        malformed("a number", "1979"),
        malformed("null", "null"),
        malformed("true", "true"),
        malformed("a form", "name=Pink+Floyd"),
        malformed("XML", "<vote><name>X</name></vote>"),
        malformed("a key that is no text", r#"{1:"X"}"#),
        malformed("half a surrogate pair in a key", r#"{"\ud800":1,"name":"X"}"#),
        malformed("not a number", r#"{"name":"X","rank":NaN}"#),
        malformed("infinity", r#"{"name":"X","rank":Infinity}"#),
        malformed("a number with a leading zero", r#"{"name":"X","year":01979}"#),
        malformed("a number with a plus", r#"{"name":"X","year":+1979}"#),
        malformed("a number that ends with a point", r#"{"name":"X","rank":5.}"#),
        malformed("a hexadecimal number", r#"{"name":"X","year":0x7bb}"#),
        malformed("a raw NUL in text", b"{\"name\":\"Pink\0Floyd\"}"),
        malformed("a raw line feed in text", "{\"name\":\"Pink\nFloyd\"}"),
        malformed("a raw escape character in text", "{\"name\":\"Pink\x1bFloyd\"}"),
        malformed("a lone continuation byte", b"{\"name\":\"\x80\"}"),
        malformed("a byte that is in no UTF-8", b"{\"name\":\"\xff\"}"),
        malformed("an overlong slash", b"{\"name\":\"\xc0\xaf\"}"),
        malformed("a surrogate in UTF-8", b"{\"name\":\"\xed\xa0\x80\"}"),
        malformed("text cut within a character", b"{\"name\":\"Bj\xc3\"}"),
        malformed("invalid UTF-8 in an unknown field", b"{\"name\":\"X\",\"note\":\"\xff\"}"),
        malformed("an unknown escape", r#"{"name":"\x41"}"#),
        malformed("an escape cut short", r#"{"name":"\u00"}"#),
        malformed("deep nesting that does not end", format!(r#"{{"name":{}"#, "[".repeat(16_000))),
    ]
}

/// Well-formed objects with an invalid field.
fn wrong() -> Vec<Case> {
    let text = |length: usize| "ö".repeat(length);
    vec![
        invalid("no field", "name", "{}"),
        invalid("no name", "name", r#"{"album":"The Wall"}"#),
        invalid("a name that is null", "name", r#"{"name":null}"#),
        invalid("a name that is a number", "name", r#"{"name":1979}"#),
        invalid("a name that is true", "name", r#"{"name":true}"#),
        invalid("a name that is an array", "name", r#"{"name":["Pink Floyd"]}"#),
        invalid("a name that is an object", "name", r#"{"name":{"$gt":""}}"#),
        invalid("an empty name", "name", r#"{"name":""}"#),
        invalid("a blank name", "name", r#"{"name":" \u00a0\u3000 "}"#),
        invalid("a name of 101 characters", "name", format!(r#"{{"name":"{}"}}"#, text(101))),
        invalid("an escaped NUL", "name", r#"{"name":"Pink\u0000Floyd"}"#),
        invalid("an escaped line feed", "name", r#"{"name":"Pink\nFloyd"}"#),
        invalid("an escaped tab at the end", "name", r#"{"name":"Pink Floyd\t"}"#),
        invalid("an escaped delete character", "name", r#"{"name":"Pink\u007f"}"#),
        invalid("a C1 control character", "name", r#"{"name":"Pink\u0085Floyd"}"#),
        invalid("half a surrogate pair", "name", r#"{"name":"\ud83c"}"#),
        invalid("a surrogate pair the wrong way round", "name", r#"{"name":"\udfb8\ud83c"}"#),
        invalid("deep nesting", "name", format!(r#"{{"name":{}{}}}"#, "[".repeat(8_000), "]".repeat(8_000))),
        invalid("a name given twice", "name", r#"{"name":"X","name":"X"}"#),
        invalid("a name given twice, once as an escape", "name", r#"{"name":"X","\u006eame":"Y"}"#),
        invalid("a year given twice, once as null", "year", r#"{"name":"X","year":null,"year":1979}"#),
        invalid("an unknown field", "bamd", r#"{"name":"X","bamd":"Y"}"#),
        invalid("a field in capitals", "Name", r#"{"Name":"X"}"#),
        invalid("a field with a space", "name ", r#"{"name ":"X"}"#),
        invalid("a prototype", "__proto__", r#"{"__proto__":{"name":"X"},"name":"X"}"#),
        invalid("an accepted_at", "accepted_at", r#"{"name":"X","accepted_at":"2026-11-21T12:00:00Z"}"#),
        invalid("a producer", "producer", r#"{"name":"X","producer":"import"}"#),
        invalid("an album of 201 characters", "album", format!(r#"{{"name":"X","album":"{}"}}"#, text(201))),
        invalid("an album that is a number", "album", r#"{"name":"X","album":4}"#),
        invalid("an album with a control character", "album", r#"{"name":"X","album":"The\u0007Wall"}"#),
        invalid("a year too early", "year", r#"{"name":"X","year":1899}"#),
        invalid("a year too late", "year", r#"{"name":"X","year":2101}"#),
        invalid("a negative year", "year", r#"{"name":"X","year":-1979}"#),
        invalid("a year with a fraction", "year", r#"{"name":"X","year":1979.5}"#),
        invalid("a year as words", "year", r#"{"name":"X","year":"late seventies"}"#),
        invalid("a year as empty text", "year", r#"{"name":"X","year":""}"#),
        invalid("a year in other digits", "year", r#"{"name":"X","year":"١٩٧٩"}"#),
        invalid("a year that is false", "year", r#"{"name":"X","year":false}"#),
        invalid("a year beyond 64 bits", "year", r#"{"name":"X","year":18446744073709553595}"#),
        invalid("a year that no float holds", "year", r#"{"name":"X","year":1e400}"#),
        invalid("a year of a thousand digits", "year", format!(r#"{{"name":"X","year":{}}}"#, "9".repeat(1_000))),
        invalid("a rank below 0", "rank", r#"{"name":"X","rank":-0.001}"#),
        invalid("a rank above 100", "rank", r#"{"name":"X","rank":100.001}"#),
        invalid("a rank that no float holds", "rank", r#"{"name":"X","rank":1e400}"#),
        invalid("a rank that is less than any float", "rank", r#"{"name":"X","rank":-1e400}"#),
        invalid("a rank as text that no float holds", "rank", r#"{"name":"X","rank":"1e400"}"#),
        invalid("a rank as the text NaN", "rank", r#"{"name":"X","rank":"NaN"}"#),
        invalid("a rank as the text inf", "rank", r#"{"name":"X","rank":"inf"}"#),
        invalid("a rank with a decimal comma", "rank", r#"{"name":"X","rank":"5,5"}"#),
        invalid("a rank that is an array", "rank", r#"{"name":"X","rank":[5]}"#),
        invalid("a contest in capitals", "contest", r#"{"name":"X","contest":"Bands"}"#),
        invalid("an empty contest", "contest", r#"{"name":"X","contest":""}"#),
        invalid("a contest that begins with a hyphen", "contest", r#"{"name":"X","contest":"-bands"}"#),
        invalid("a contest of 64 characters", "contest", format!(r#"{{"name":"X","contest":"{}"}}"#, "x".repeat(64))),
        invalid("a contest that is a path", "contest", r#"{"name":"X","contest":"../bands"}"#),
        invalid("a contest with a key separator", "contest", r#"{"name":"X","contest":"bands|x"}"#),
        invalid("a contest that is a number", "contest", r#"{"name":"X","contest":7}"#),
        invalid("a vote_id that is no UUID", "vote_id", r#"{"name":"X","vote_id":"1"}"#),
        invalid("an empty vote_id", "vote_id", r#"{"name":"X","vote_id":""}"#),
        invalid("a vote_id that is a number", "vote_id", r#"{"name":"X","vote_id":1}"#),
        invalid(
            "a vote_id with a letter too many",
            "vote_id",
            r#"{"name":"X","vote_id":"01890a5d-ac96-774b-bcce-b302099a80571"}"#,
        ),
        invalid("a voter of 257 characters", "voter", format!(r#"{{"name":"X","voter":"{}"}}"#, text(257))),
        invalid("an empty voter", "voter", r#"{"name":"X","voter":""}"#),
        invalid("a voter with a control character", "voter", r#"{"name":"X","voter":"a\u0000b"}"#),
        invalid("a voter that is a number", "voter", r#"{"name":"X","voter":7}"#),
    ]
}

/// Valid votes that a contest refuses.
fn against_the_rules() -> Vec<Case> {
    let no_voter = case("no voter", r#"{"name":"X","contest":"fair"}"#, 422, "voter-required");
    vec![
        case("an unknown contest", r#"{"name":"X","contest":"none"}"#, 404, "unknown-contest"),
        case("no candidate", r#"{"name":"Abba","contest":"finals"}"#, 403, "not-a-candidate"),
        case("a candidate in capitals", r#"{"name":"PINK FLOYD","contest":"finals"}"#, 403, "not-a-candidate"),
        case("a contest that closed", r#"{"name":"X","contest":"over"}"#, 403, "closed"),
        case("a contest that has not opened", r#"{"name":"X","contest":"soon"}"#, 403, "not-open-yet"),
        Case { field: Some("voter"), ..no_voter },
    ]
}

/// Requests that are refused before their body is parsed.
fn unreadable() -> Vec<Case> {
    let vote = || r#"{"name":"X"}"#;
    let typed = |what, media_type| Case {
        headers: vec![("Content-Type", media_type)],
        ..case(what, vote(), 415, "unsupported-media-type")
    };
    let encoded =
        |what, encoding| with(("Content-Encoding", encoding), case(what, vote(), 415, "unsupported-media-type"));
    vec![
        Case { headers: vec![], ..typed("no content type", "") },
        typed("an empty content type", ""),
        typed("plain text", "text/plain"),
        typed("a form", "application/x-www-form-urlencoded"),
        typed("a form with files", "multipart/form-data; boundary=x"),
        typed("text/json", "text/json"),
        typed("JSON of another kind", "application/vnd.api+json"),
        typed("lines for a single vote", "application/x-ndjson"),
        typed("a content type that is none", "json"),
        typed("any type", "*/*"),
        typed("JSON in another charset", "application/json; charset=utf-16"),
        encoded("gzip", "gzip"),
        encoded("several encodings", "identity, br"),
        encoded("an unknown encoding", "rot13"),
        case("20 KiB", format!(r#"{{"name":"{}"}}"#, "x".repeat(20 * 1024)), 413, "too-large"),
        case("one byte too many", format!(r#"{{"name":"X"}}{}"#, " ".repeat(16 * 1024 - 11)), 413, "too-large"),
        case("1 MB of nothing", " ".repeat(1_000_000), 413, "too-large"),
    ]
}

/// Invalid `Idempotency-Key` headers.
fn bad_keys() -> Vec<Case> {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let key = |what, key| with(("Idempotency-Key", key), invalid(what, "Idempotency-Key", r#"{"name":"X"}"#));
    let other = format!(r#"{{"name":"X","vote_id":"{id}"}}"#);
    vec![
        key("an empty key", ""),
        key("an empty quoted key", "\"\""),
        key("a key of 256 characters", Box::leak("k".repeat(256).into_boxed_str())),
        key("a key with a tab", "a\tb"),
        with(("Idempotency-Key", "two"), key("two keys", "one")),
        with(("Idempotency-Key", "another"), invalid("a key that is another id", "vote_id", other)),
    ]
}

fn check(what: &str, response: &Response, status: u16, reason: &str, field: Option<&str>) {
    assert_eq!(response.status, status, "{what}: {response:?}");
    assert_eq!(response.headers["content-type"], "application/problem+json", "{what}");
    let problem = response.json();
    assert_eq!(problem["status"], status, "{what}");
    check_problem(what, &problem, reason, field);
}

fn check_problem(what: &str, problem: &Value, reason: &str, field: Option<&str>) {
    assert_eq!(slug(problem), reason, "{what}: {problem}");
    assert!(!problem["title"].as_str().unwrap().is_empty(), "{what}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.len() > 10, "{what}: {detail}");
    assert_eq!(problem["field"].as_str(), field, "{what}: {problem}");
    assert!(field.is_none_or(|field| detail.contains(field)), "{what}: {detail}");
}

#[tokio::test]
async fn each_hostile_vote_gets_its_problem_and_nothing_is_published() {
    let producer = TestProducer::open().await;
    let cases = [broken(), wrong(), against_the_rules(), unreadable(), bad_keys()].concat_cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    for Case { what, headers, body, status, reason, field } in cases {
        let response = producer.post("/v1/votes", &headers, &body).await;
        check(what, &response, status, reason, field);
    }
    assert_eq!(producer.log.log(), []);
}

#[tokio::test]
async fn each_hostile_vote_of_a_batch_gets_its_problem_and_the_others_are_cast() {
    let producer = TestProducer::open().await;
    let cases = [wrong(), against_the_rules()].concat_cases();
    let good: &[u8] = br#"{"name":"Good"}"#;
    let bodies: Vec<&[u8]> = cases.iter().flat_map(|case| [case.body.as_slice(), good]).collect();
    let array = [b"[", bodies.join(&b','.to_owned()).as_slice(), b"]"].concat();
    let lines = bodies.join(&b'\n'.to_owned());
    for (header, body) in [(JSON, array), (NDJSON, lines)] {
        let response = producer.post("/v1/votes/batch", &[header], &body).await;
        let items = response.items();
        assert_eq!(items.len(), cases.len() * 2);
        for (case, pair) in cases.iter().zip(items.chunks(2)) {
            check_problem(case.what, &pair[0], case.reason, case.field);
            assert_eq!(pair[0]["status"], case.status);
            assert!(pair[1]["offset"].is_u64(), "after {}: {}", case.what, pair[1]);
        }
    }
    let log = producer.log.log();
    assert_eq!(log.len(), cases.len() * 2);
    assert!(log.iter().all(|vote| vote.name == "Good"));
}

#[tokio::test]
async fn each_hostile_line_gets_its_problem_and_the_others_are_cast() {
    let producer = TestProducer::open().await;
    let is_line = |case: &Case| !case.body.contains(&b'\n') && !case.body.trim_ascii().is_empty();
    let cases: Vec<_> = broken().into_iter().filter(is_line).collect();
    let good: &[u8] = br#"{"name":"Good"}"#;
    let lines: Vec<&[u8]> = cases.iter().flat_map(|case| [case.body.as_slice(), good]).collect();
    let response = producer.post("/v1/votes/batch", &[NDJSON], &lines.join(&b'\n'.to_owned())).await;
    for (case, pair) in cases.iter().zip(response.items().chunks(2)) {
        check_problem(case.what, &pair[0], case.reason, case.field);
        assert!(pair[1]["offset"].is_u64(), "after {}: {}", case.what, pair[1]);
    }
    assert_eq!(producer.log.log().len(), cases.len());
}

#[tokio::test]
async fn each_hostile_batch_gets_its_problem_and_nothing_is_published() {
    let producer = TestProducer::open().await;
    let typed = |what, media_type| Case {
        headers: vec![("Content-Type", media_type)],
        ..case(what, "[]", 415, "unsupported-media-type")
    };
    let keyed = invalid("a key for a batch", "Idempotency-Key", r#"[{"name":"X"}]"#);
    let cases = vec![
        malformed("nothing", ""),
        malformed("white space", "  \n"),
        malformed("an object", r#"{"name":"X"}"#),
        malformed("an object of votes", r#"{"votes":[{"name":"X"}]}"#),
        malformed("lines as an array", "{\"name\":\"X\"}\n{\"name\":\"Y\"}"),
        malformed("a byte order mark", b"\xef\xbb\xbf[]"),
        malformed("an array that does not end", "["),
        malformed("an array that ends in a vote", r#"[{"name":"X""#),
        malformed("an array that ends in a string", r#"[{"name":"X]"#),
        malformed("an array that ends in an escape", "[{\"name\":\"X\\"),
        malformed("an array that ends in a number", "[1"),
        malformed("an array of nothing but commas", "[,,]"),
        malformed("a trailing comma after a wrong vote", "[1,]"),
        malformed("a closing brace", "[}"),
        malformed("a colon", "[:]"),
        malformed("garbage after a wrong vote", "[1 2]"),
        malformed("garbage after the array", "[] []"),
        malformed("a NUL", "[\0]"),
        malformed("invalid UTF-8 between votes", b"[\xff]"),
        malformed("deep nesting that does not end", "[".repeat(1_000_000)),
        malformed("null", "null"),
        malformed("text", "\"[]\""),
        typed("plain text", "text/plain"),
        typed("JSON of another kind", "application/json-seq"),
        typed("another charset", "application/x-ndjson; charset=latin1"),
        Case { headers: vec![], ..typed("no content type", "") },
        with(("Content-Encoding", "gzip"), case("gzip", "[]", 415, "unsupported-media-type")),
        with(("Idempotency-Key", "k"), keyed),
    ];
    for Case { what, headers, body, status, reason, field } in cases {
        let response = producer.post("/v1/votes/batch", &headers, &body).await;
        check(what, &response, status, reason, field);
    }
    assert_eq!(producer.log.log(), []);
}

/// Timeouts for fast tests.
const SHORT: BodyTimeouts = BodyTimeouts { vote: Duration::from_millis(200), batch: Duration::from_millis(600) };

#[tokio::test]
async fn a_slow_vote_is_refused() {
    let producer = TestProducer::open_with(SHORT).await;
    for begin in ["", "{", "{\"name\":\"Pink Floyd\"", "{\"name\":\"Pink Floyd\",\"album\":\"The Wall\"}"] {
        let mut client = producer.connect().await;
        client.head("/v1/votes", &[JSON], 100).await;
        client.send(begin.as_bytes()).await;
        check(begin, &client.response().await, 408, "slow-body", None);
    }
    assert_eq!(producer.log.log(), []);
}

#[tokio::test]
async fn a_slow_batch_is_refused() {
    let producer = TestProducer::open_with(SHORT).await;
    let mut client = producer.connect().await;
    client.head("/v1/votes/batch", &[JSON], 100).await;
    check("nothing", &client.response().await, 408, "slow-body", None);
    let mut client = producer.connect().await;
    client.head("/v1/votes/batch", &[JSON], 100).await;
    client.send(b"[  ").await;
    check("no vote", &client.response().await, 408, "slow-body", None);
    let mut client = producer.connect().await;
    client.head("/v1/votes/batch", &[JSON], 100).await;
    client.send(br#"[{"name":"A"}, {"name"#).await;
    let response = client.response().await;
    assert_eq!(response.status, 200);
    check_problem("after a vote", &response.items()[1], "slow-body", None);
}

#[tokio::test]
async fn a_batch_that_arrives_byte_by_byte_is_refused() {
    let producer = TestProducer::open_with(SHORT).await;
    let mut client = producer.connect().await;
    client.head("/v1/votes/batch", &[NDJSON], 1_000_000).await;
    let mut response = None;
    while response.is_none() {
        client.try_send(b"\n").await;
        response = tokio::time::timeout(Duration::from_millis(20), client.response()).await.ok();
    }
    check("byte by byte", &response.unwrap(), 408, "slow-body", None);
}

#[tokio::test]
async fn the_unfinished_vote_of_an_incomplete_body_is_not_published() {
    let producer = TestProducer::open().await;
    for (path, header, begin) in [
        ("/v1/votes", JSON, r#"{"name":"Pink Floyd"}"#),
        ("/v1/votes/batch", JSON, r#"[{"name":"Pink Floyd"#),
        ("/v1/votes/batch", NDJSON, r#"{"name":"Pink Floyd"}"#),
    ] {
        let mut client = producer.connect().await;
        client.head(path, &[header], 1_000).await;
        client.send(begin.as_bytes()).await;
        client.close_sending().await;
        check(begin, &client.response().await, 400, "malformed-body", None);
    }
    assert_eq!(producer.log.log(), []);
}

#[tokio::test]
async fn a_broken_transfer_encoding_publishes_nothing() {
    let producer = TestProducer::open().await;
    let head = "POST /v1/votes HTTP/1.1\r\nHost: producer\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = producer.connect().await;
    client.send(format!("{head}14\r\n{{\"name\":\"Pink Floyd\"\r\nxyz\r\n").as_bytes()).await;
    check("chunked", &client.response().await, 400, "malformed-body", None);
    assert_eq!(producer.log.log(), []);
}

#[tokio::test]
async fn a_header_that_is_not_utf_8_is_refused_and_not_ignored() {
    let producer = TestProducer::open().await;
    let mut client = producer.connect().await;
    let head =
        b"POST /v1/votes HTTP/1.1\r\nHost: producer\r\nContent-Type: application/json\r\nIdempotency-Key: \xff\r\n";
    client.send(&[head.as_slice(), b"Content-Length: 12\r\n\r\n{\"name\":\"X\"}"].concat()).await;
    let response = client.response().await;
    assert_eq!((response.status, &response.json()["status"]), (400, &400.into()), "{response:?}");
    assert!(response.json()["detail"].as_str().unwrap().contains("idempotency-key"));
    assert!(response.headers.contains_key("x-request-id"));
    assert_eq!(producer.log.log(), []);
}

#[tokio::test]
async fn a_head_that_is_not_http_is_refused() {
    let producer = TestProducer::open().await;
    let many = (0..200).fold(String::new(), |headers, n| headers + &format!("X-{n}: x\r\n"));
    let long = format!("X-Long: {}\r\n", "x".repeat(1_000_000));
    for head in [
        "POST /v1/votes HTTP/9.9\r\n\r\n",
        "{\"name\":\"X\"}\r\n\r\n",
        "POST /v1/votes HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /v1/votes HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /v1/votes HTTP/1.1\r\nTransfer-Encoding: rot13\r\n\r\n",
        "POST /v1/votes HTTP/1.1\r\nIdempotency-Key: a\0b\r\n\r\n",
        &format!("POST /v1/votes HTTP/1.1\r\n{many}\r\n"),
        &format!("POST /v1/votes HTTP/1.1\r\n{long}\r\n"),
        &format!("POST /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)),
    ] {
        let mut client = producer.connect().await;
        client.try_send(head.as_bytes()).await;
        let response = client.response().await;
        assert!((400..500).contains(&response.status), "{head:.60}: {response:?}");
    }
    assert_eq!(producer.log.log(), []);
}

#[tokio::test]
async fn other_paths_and_methods_return_problems() {
    let producer = TestProducer::open().await;
    for (request, status) in [
        ("GET /v1/votes HTTP/1.1", 405),
        ("PUT /v1/votes HTTP/1.1", 405),
        ("DELETE /v1/votes/batch HTTP/1.1", 405),
        ("POST /openapi.json HTTP/1.1", 405),
        ("GET /v1/vote HTTP/1.1", 404),
        ("POST /v1/votes/batch/1 HTTP/1.1", 404),
        ("GET /%00 HTTP/1.1", 404),
        ("GET /../../etc/passwd HTTP/1.1", 404),
        ("BREW /v1/votes HTTP/1.1", 400),
    ] {
        let mut client = producer.connect().await;
        client.send(format!("{request}\r\nHost: producer\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{request}: {response:?}");
        assert_eq!(response.json()["status"], status, "{request}");
        assert_eq!(response.headers.contains_key("allow"), status == 405, "{request}");
    }
}

trait ConcatCases {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> ConcatCases for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}
