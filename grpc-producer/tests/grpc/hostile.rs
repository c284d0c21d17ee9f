//! Hostile calls. Each has exactly one correct status. A refused vote is never published.

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use proto::v1::CastVoteRequest;
use tonic::Code;

use crate::client::{TestProducer, details, frame, vote};

/// A message, and the code, reason and field of the only correct status.
struct Case {
    what: &'static str,
    message: Vec<u8>,
    code: Code,
    reason: &'static str,
    field: Option<&'static str>,
}

fn case(what: &'static str, message: impl Into<Vec<u8>>, code: Code, reason: &'static str) -> Case {
    Case { what, message: message.into(), code, reason, field: None }
}

fn malformed(what: &'static str, message: impl Into<Vec<u8>>) -> Case {
    case(what, message, Code::InvalidArgument, "MALFORMED_BODY")
}

fn invalid(what: &'static str, field: &'static str, message: impl Into<Vec<u8>>) -> Case {
    Case { field: Some(field), ..case(what, message, Code::InvalidArgument, "INVALID_FIELD") }
}

/// Appends bytes to a valid vote.
fn vote_and(bytes: &[u8]) -> Vec<u8> {
    [vote("X").encode_to_vec().as_slice(), bytes].concat()
}

fn varint(field: u32, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(field, WireType::Varint, &mut bytes);
    encode_varint(value, &mut bytes);
    bytes
}

fn text(field: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(field, WireType::LengthDelimited, &mut bytes);
    encode_varint(value.len() as u64, &mut bytes);
    [bytes.as_slice(), value].concat()
}

fn broken() -> Vec<Case> {
    vec![
        malformed("JSON", br#"{"name":"Pink Floyd"}"#),
        malformed("a lone continuation bit", b"\x80"),
        malformed("a key without a value", b"\x0a"),
        malformed("a text cut short", b"\x0a\x7fPink"),
        malformed("a text longer than memory", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        malformed("a length of more than 64 bits", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        malformed("a number without an end", [b"\x18".as_slice(), &[0xff; 11]].concat()),
        malformed("a field of number 0", vote_and(b"\x02\x01x")),
        malformed("a field whose number is too large", vote_and(b"\xfa\xff\xff\xff\xff\x01\x00")),
        malformed("a group", vote_and(b"\x0b\x0c")),
        malformed("the end of a group", vote_and(b"\x0c")),
        malformed("wire type 6", vote_and(b"\x0e")),
        malformed("wire type 7", vote_and(b"\x0f")),
        malformed("a double cut short", vote_and(b"\x21\x00\x00\x00")),
        malformed("noise", b"\x9b\xc7\x1f\x2e\x99\x01\x55\xaa\xfe\xed"),
        malformed("sixteen thousand zeros", [0; 16_000]),
    ]
}

fn wrong() -> Vec<Case> {
    let encoded = |change: fn(&mut CastVoteRequest)| {
        let mut message = vote("X");
        change(&mut message);
        message.encode_to_vec()
    };
    vec![
        invalid("nothing", "name", b""),
        invalid("an empty name", "name", b"\x0a\x00"),
        invalid("a blank name", "name", vote(" \u{a0} ").encode_to_vec()),
        invalid("a name of 101 characters", "name", vote(&"ö".repeat(101)).encode_to_vec()),
        invalid("a name with a NUL", "name", vote("Pink\0Floyd").encode_to_vec()),
        invalid("a name with a line feed", "name", vote("Pink\nFloyd").encode_to_vec()),
        invalid("a name with a C1 control character", "name", vote("Pink\u{85}").encode_to_vec()),
        invalid("a name that is no UTF-8", "name", text(1, b"\xff\xfe")),
        invalid("a name cut within a character", "name", text(1, b"Bj\xc3")),
        invalid("a name with a surrogate", "name", text(1, b"\xed\xa0\x80")),
        invalid("a name that is a number", "name", varint(1, 7)),
        invalid("a name given twice", "name", vote_and(&text(1, b"Y"))),
        invalid("an unknown field", "8", vote_and(&text(8, b"Y"))),
        invalid("an unknown field that is a number", "536870911", vote_and(&varint(536_870_911, 1))),
        invalid("an unknown field of four bytes", "9", vote_and(b"\x4d\x00\x00\x00\x00")),
        invalid("an album of 201 characters", "album", encoded(|vote| vote.album = Some("ö".repeat(201)))),
        invalid("an album that is no UTF-8", "album", vote_and(&text(2, b"\xc0\xaf"))),
        invalid("a year too early", "year", encoded(|vote| vote.year = Some(1899))),
        invalid("a year too late", "year", encoded(|vote| vote.year = Some(2101))),
        invalid("a negative year", "year", encoded(|vote| vote.year = Some(i32::MIN))),
        invalid("a year that is text", "year", vote_and(&text(3, b"1979"))),
        invalid("a year given twice", "year", vote_and(&[varint(3, 1979), varint(3, 1979)].concat())),
        invalid("a rank below 0", "rank", encoded(|vote| vote.rank = Some(-0.5))),
        invalid("a rank above 100", "rank", encoded(|vote| vote.rank = Some(100.5))),
        invalid("a rank that is not a number", "rank", encoded(|vote| vote.rank = Some(f64::NAN))),
        invalid("an infinite rank", "rank", encoded(|vote| vote.rank = Some(f64::INFINITY))),
        invalid("a rank that is an integer", "rank", vote_and(&varint(4, 5))),
        invalid("a contest in capitals", "contest", encoded(|vote| vote.contest = Some("Bands".into()))),
        invalid("an empty contest", "contest", encoded(|vote| vote.contest = Some(String::new()))),
        invalid("a contest with a key separator", "contest", encoded(|vote| vote.contest = Some("bands|x".into()))),
        invalid("an empty voter", "voter", encoded(|vote| vote.voter = Some(String::new()))),
        invalid("a voter of 257 characters", "voter", encoded(|vote| vote.voter = Some("ö".repeat(257)))),
        invalid("a voter with a control character", "voter", encoded(|vote| vote.voter = Some("a\0b".into()))),
        invalid("a voter that is no UTF-8", "voter", vote_and(&text(6, b"\x80"))),
        invalid("an empty vote_id", "vote_id", encoded(|vote| vote.vote_id = Some(String::new()))),
        invalid("a vote_id that is no UUID", "vote_id", encoded(|vote| vote.vote_id = Some("7".into()))),
        invalid("a vote_id as its 16 bytes", "vote_id", vote_and(&text(7, &[0xfe; 16]))),
    ]
}

fn against_the_rules() -> Vec<Case> {
    let of =
        |contest: &str, name: &str| CastVoteRequest { contest: Some(contest.into()), ..vote(name) }.encode_to_vec();
    let no_voter = case("no voter", of("fair", "X"), Code::InvalidArgument, "VOTER_REQUIRED");
    vec![
        case("an unknown contest", of("none", "X"), Code::NotFound, "UNKNOWN_CONTEST"),
        case("no candidate", of("finals", "Abba"), Code::PermissionDenied, "NOT_A_CANDIDATE"),
        case("a contest that closed", of("over", "X"), Code::PermissionDenied, "CLOSED"),
        case("a contest that has not opened", of("soon", "X"), Code::PermissionDenied, "NOT_OPEN_YET"),
        Case { field: Some("voter"), ..no_voter },
    ]
}

fn cases() -> Vec<Case> {
    [broken(), wrong(), against_the_rules()].into_iter().flatten().collect()
}

#[tokio::test]
async fn each_hostile_vote_gets_its_status_and_nothing_is_published() {
    let producer = TestProducer::open().await;
    let too_large = case("20 KiB", vote(&"x".repeat(20 * 1024)).encode_to_vec(), Code::InvalidArgument, "TOO_LARGE");
    let larger = case("1 MB", vec![0; 1_000_000], Code::InvalidArgument, "TOO_LARGE");
    let cases: Vec<_> = cases().into_iter().chain([too_large, larger]).collect();
    assert!(cases.len() >= 60, "{}", cases.len());
    for Case { what, message, code, reason, field } in cases {
        let status = producer.cast_bytes(message).await.expect_err(what);
        assert_eq!(status.code(), code, "{what}: {status:?}");
        let (given_reason, given_field, _) = details(&status);
        assert_eq!((given_reason.as_str(), given_field.as_deref()), (reason, field), "{what}: {status:?}");
        assert!(status.message().len() > 10, "{what}: {status:?}");
    }
    assert_eq!(producer.log.log(), []);
}

#[tokio::test]
async fn each_hostile_vote_of_a_stream_gets_its_error_and_the_others_are_cast() {
    let producer = TestProducer::open().await;
    let mut stream = producer.stream().await;
    let cases = cases();
    for case in &cases {
        stream.send_bytes(case.message.clone());
        stream.send("Good");
        let error = stream.error().await;
        let what = case.what;
        assert_eq!(error.code, case.code as i32, "{what}: {error:?}");
        assert_eq!(error.reason.to_uppercase().replace('-', "_"), case.reason, "{what}");
        assert_eq!(error.field, case.field.unwrap_or_default(), "{what}");
        assert_eq!(stream.outcome().await, "accepted", "after {what}");
    }
    assert_eq!(producer.log.log().len(), cases.len());
}

#[tokio::test]
async fn each_hostile_call_gets_its_status_and_nothing_is_published() {
    let producer = TestProducer::open().await;
    let good = vote("X").encode_to_vec();
    let framed = frame(0, &good);
    let key = |key| vec![("idempotency-key", key)];
    let long = "k".repeat(256);
    let other_id = CastVoteRequest { vote_id: Some("01890a5d-ac96-774b-bcce-b302099a8057".into()), ..vote("X") };
    let calls = [
        ("no message", Vec::new(), vec![], "MALFORMED_BODY"),
        ("half a frame's head", vec![0, 0, 0], vec![], "MALFORMED_BODY"),
        ("half a frame", framed[..framed.len() - 1].to_vec(), vec![], "MALFORMED_BODY"),
        ("two messages", framed.repeat(2), vec![], "MALFORMED_BODY"),
        ("a message and garbage", [framed.as_slice(), b"\x07"].concat(), vec![], "MALFORMED_BODY"),
        ("a compressed message without an encoding", frame(1, &good), vec![], "MALFORMED_BODY"),
        ("an unknown flag", frame(7, &good), vec![], "MALFORMED_BODY"),
        ("a frame of 4 GB", vec![0, 0xff, 0xff, 0xff, 0xff], vec![], "TOO_LARGE"),
        ("an empty key", framed.clone(), key(""), "INVALID_FIELD"),
        ("a key of 256 characters", framed.clone(), key(&long), "INVALID_FIELD"),
        ("a key that is no ASCII", framed.clone(), key("schlüssel"), "INVALID_FIELD"),
        ("two keys", framed.clone(), [key("one"), key("two")].concat(), "INVALID_FIELD"),
        ("a key that is another id", frame(0, &other_id.encode_to_vec()), key("another"), "INVALID_FIELD"),
    ];
    for (what, body, metadata, reason) in calls {
        let status = producer.call("CastVote", body, &metadata).await.expect_err(what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        assert_eq!(details(&status).0, reason, "{what}: {status:?}");
    }
    assert_eq!(producer.log.log(), []);
}

#[tokio::test]
async fn a_stream_with_broken_framing_ends_with_the_reason() {
    let producer = TestProducer::open().await;
    let framed = frame(0, &vote("X").encode_to_vec());
    for (what, rest) in [("half a frame", &framed[..4]), ("an unknown flag", b"\x07\0\0\0\0"), ("garbage", b"garbage")]
    {
        let status = producer.call("CastVotes", [framed.as_slice(), rest].concat(), &[]).await.expect_err(what);
        assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
        assert_eq!(details(&status).0, "MALFORMED_BODY", "{what}");
    }
    assert_eq!(producer.log.log().len(), 3, "the vote before the error is cast");
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let producer = TestProducer::open().await;
    for method in ["CastNoVote", "castVote", "", "CastVote/CastVote"] {
        let status = producer.call(method, frame(0, &vote("X").encode_to_vec()), &[]).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status:?}");
    }
    assert_eq!(producer.log.log(), []);
}
