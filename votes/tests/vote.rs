//! These tests validate votes with random input.

#![allow(clippy::unwrap_used, reason = "an unexpected error fails the test")]

use std::fmt::Debug;

use proptest::{prelude::*, sample::select};
use serde_json::{Map, Value, json};
use unicode_normalization::UnicodeNormalization;
use votes::{
    Contests, MAX_VOTE_BYTES, ProducerKind, Reason, Refusal, TraceParent, UnixMillis, Vote, VoteId, VoteRequest,
    VoterSecret,
};

/// Validates a request with the default contests.
fn admit(request: VoteRequest) -> Result<Vote, Refusal> {
    let secret = VoterSecret::new(&[7; 32]).unwrap();
    Vote::admit(request, &Contests::default(), Some(&secret), ProducerKind::Rest, UnixMillis(0))
}

fn named(name: &str) -> VoteRequest {
    VoteRequest { name: Some(name.to_owned()), ..VoteRequest::default() }
}

fn read(json: &Value) -> Result<VoteRequest, Refusal> {
    VoteRequest::from_json(json.to_string().as_bytes())
}

/// Returns the field that a refusal names. The reason must be an invalid field.
fn invalid_field_of<T: Debug>(outcome: Result<T, Refusal>) -> String {
    let refusal = outcome.unwrap_err();
    assert_eq!(refusal.reason, Reason::InvalidField, "{refusal}");
    let field = refusal.field.unwrap();
    assert!(refusal.detail.starts_with(&*field), "{}", refusal.detail);
    field.into()
}

/// Generates text that is not blank, has no control characters, and is short enough in every normal form.
fn plain() -> impl Strategy<Value = String> {
    "\\PC{1,30}".prop_filter("blank", |text| !text.trim().is_empty())
}

fn space() -> impl Strategy<Value = String> {
    prop::collection::vec(select(vec![' ', '\u{a0}', '\u{2003}', '\u{3000}']), 0..5).prop_map(String::from_iter)
}

fn control() -> impl Strategy<Value = char> {
    prop_oneof![0_u32..0x20, 0x7f_u32..0xa0].prop_map(|code| char::from_u32(code).unwrap())
}

fn id() -> impl Strategy<Value = VoteId> {
    any::<u128>().prop_map(|bits| VoteId(uuid::Uuid::from_u128(bits)))
}

prop_compose! {
    fn any_request()(
        name in proptest::option::of(any::<String>()),
        album in proptest::option::of(any::<String>()),
        year in proptest::option::of(-3_000_i64..3_000),
        rank in proptest::option::of(-10.0..110.0),
        contest in proptest::option::of(any::<String>()),
        voter in proptest::option::of(any::<String>()),
        vote_id in proptest::option::of(any::<String>()),
    ) -> VoteRequest {
        VoteRequest { name, album, year, rank, contest, voter, vote_id, ..VoteRequest::default() }
    }
}

fn as_json(request: &VoteRequest) -> Map<String, Value> {
    let VoteRequest { name, album, year, rank, contest, voter, vote_id, .. } = request;
    let fields = json!({
        "name": name, "album": album, "year": year, "rank": rank, "contest": contest, "voter": voter, "vote_id": vote_id,
    });
    fields.as_object().unwrap().clone()
}

proptest! {
    #[test]
    fn space_around_a_name_is_ignored(name in plain(), before in space(), after in space()) {
        let vote = admit(named(&name)).unwrap();
        let padded = admit(named(&format!("{before}{name}{after}"))).unwrap();
        prop_assert_eq!(&padded.name, &vote.name);
        prop_assert_eq!(padded.name.trim(), &padded.name);
    }

    #[test]
    fn a_name_is_the_same_in_every_normal_form(name in plain()) {
        let vote = admit(named(&name)).unwrap();
        for form in [name.nfc().collect::<String>(), name.nfd().collect(), vote.name.clone()] {
            prop_assert_eq!(&admit(named(&form)).unwrap().name, &vote.name);
        }
    }

    #[test]
    fn length_is_counted_in_characters(letter in select(vec!['x', 'ö', '猫', '𝄞', 'א']), length in 0..300_usize) {
        let text: String = std::iter::repeat_n(letter, length).collect();
        prop_assert_eq!(admit(named(&text)).is_ok(), (1..=100).contains(&length));
        let album = VoteRequest { album: Some(text.clone()), ..named("X") };
        prop_assert_eq!(admit(album).is_ok(), length <= 200);
        let voter = VoteRequest { voter: Some(text), ..named("X") };
        prop_assert_eq!(admit(voter).is_ok(), (1..=256).contains(&length));
    }

    #[test]
    fn a_control_character_is_refused_anywhere(before in "\\PC{0,5}", control in control(), after in "\\PC{0,5}") {
        let text = Some(format!("{before}{control}{after}"));
        for (field, request) in [
            ("name", VoteRequest { name: text.clone(), ..VoteRequest::default() }),
            ("album", VoteRequest { album: text.clone(), ..named("X") }),
            ("voter", VoteRequest { voter: text.clone(), ..named("X") }),
            ("contest", VoteRequest { contest: text.clone(), ..named("X") }),
            ("vote_id", VoteRequest { vote_id: text.clone(), ..named("X") }),
            ("Idempotency-Key", VoteRequest { idempotency_key: text.clone(), ..named("X") }),
        ] {
            prop_assert_eq!(invalid_field_of(admit(request)), field);
        }
    }

    #[test]
    fn a_number_and_the_same_number_as_text_agree(
        number in prop_oneof![
            (-3_000_i64..3_000).prop_map(|number| number.to_string()),
            (-200.0..200.0).prop_map(|number| f64::to_string(&number)),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        ],
        around in space(),
    ) {
        for field in ["year", "rank"] {
            let as_number = format!(r#"{{"name":"X","{field}":{number}}}"#);
            let as_text = format!(r#"{{"name":"X","{field}":"{around}{number}{around}"}}"#);
            prop_assert_eq!(VoteRequest::from_json(as_number.as_bytes()), VoteRequest::from_json(as_text.as_bytes()));
        }
    }

    #[test]
    fn years_and_ranks_have_their_range(year in any::<i64>(), near in 1_890_i64..2_110, rank in any::<f64>(), near_rank in -1.0..101.0) {
        for year in [year, near] {
            let vote = admit(VoteRequest { year: Some(year), ..named("X") });
            prop_assert_eq!(vote.is_ok(), (1_900..=2_100).contains(&year));
        }
        for rank in [rank, near_rank] {
            let vote = admit(VoteRequest { rank: Some(rank), ..named("X") });
            prop_assert_eq!(vote.is_ok(), (0.0..=100.0).contains(&rank));
        }
    }

    #[test]
    fn a_request_is_unchanged_after_json(request in any_request()) {
        prop_assert_eq!(read(&Value::Object(as_json(&request))).unwrap(), request);
    }

    #[test]
    fn an_unknown_field_is_refused_and_named(request in any_request(), field in "\\PC{1,20}") {
        let mut json = as_json(&request);
        prop_assume!(!json.contains_key(&field));
        json.insert(field.clone(), Value::Null);
        prop_assert_eq!(invalid_field_of(read(&Value::Object(json))), field);
    }

    #[test]
    fn a_repeated_field_is_refused_and_named(request in any_request(), index in 0..7_usize) {
        let json = as_json(&request);
        let (field, value) = json.iter().nth(index).unwrap();
        let text = Value::Object(json.clone()).to_string();
        let twice = format!("{},{}:{value}}}", &text[..text.len() - 1], json!(field));
        prop_assert_eq!(&invalid_field_of(VoteRequest::from_json(twice.as_bytes())), field);
    }

    #[test]
    fn the_reader_does_not_panic_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = VoteRequest::from_json(&bytes).map(admit);
    }

    #[test]
    fn the_reader_does_not_panic_on_a_changed_vote(
        request in any_request(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut json = Value::Object(as_json(&request)).to_string().into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        let _ = VoteRequest::from_json(&json).map(admit);
        let _ = VoteRequest::from_json(&json[..cut.index(json.len())]).map(admit);
    }

    #[test]
    fn a_voter_never_appears_in_debug_output(voter in "[a-z]{8,20}") {
        let appears = |value: &dyn Debug| format!("{value:?}").contains(&voter);
        let request = VoteRequest { voter: Some(voter.clone()), ..named("X") };
        prop_assert!(!appears(&request));
        prop_assert!(!appears(&admit(request).unwrap()));
        let too_long = VoteRequest { voter: Some(voter.repeat(40)), ..named("X") };
        prop_assert!(!appears(&admit(too_long)));
    }

    #[test]
    fn a_uuid_key_is_the_vote_id_and_another_key_is_hashed_to_one(id in id(), other in id(), key in "[ -~&&[^\"]]{1,255}") {
        let keyed = |key: String| VoteRequest { idempotency_key: Some(key), ..named("X") };
        prop_assert_eq!(admit(keyed(id.to_string())).unwrap().vote_id, id);
        prop_assert_eq!(admit(keyed(format!("\"{id}\""))).unwrap().vote_id, id);
        let mapped = admit(keyed(key.clone())).unwrap().vote_id;
        prop_assert_eq!(admit(keyed(format!("\"{key}\""))).unwrap().vote_id, mapped);

        let both = |vote_id: VoteId| VoteRequest { vote_id: Some(vote_id.to_string()), ..keyed(key.clone()) };
        prop_assert_eq!(admit(both(mapped)).unwrap().vote_id, mapped);
        prop_assume!(other != mapped);
        prop_assert_eq!(invalid_field_of(admit(both(other))), "vote_id");
    }

    #[test]
    fn a_refusal_has_the_vote_id_if_the_id_is_valid(id in id()) {
        let json = json!({"vote_id": id.to_string(), "name": "X", "year": "soon"});
        prop_assert_eq!(read(&json).unwrap_err().vote_id, Some(id));
        let request = VoteRequest { vote_id: Some(id.to_string()), ..named("") };
        prop_assert_eq!(admit(request).unwrap_err().vote_id, Some(id));
    }

    #[test]
    fn votes_without_an_id_get_different_ids(name in plain()) {
        prop_assert_ne!(admit(named(&name)).unwrap().key, admit(named(&name)).unwrap().key);
    }

    #[test]
    fn a_malformed_trace_is_ignored(header in any::<String>()) {
        prop_assert_eq!(TraceParent::parse(&header), None);
    }

    #[test]
    fn a_trace_is_carried_unchanged(trace in "00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}") {
        let request = VoteRequest { traceparent: Some(trace.clone()), ..named("X") };
        let carried = admit(request).unwrap().traceparent.unwrap();
        prop_assert_eq!(carried.as_str(), trace);
    }
}

#[test]
fn numbers_are_not_text_and_text_is_not_numbers() {
    for (field, value) in [
        ("name", json!(7)),
        ("album", json!(true)),
        ("contest", json!([])),
        ("voter", json!({})),
        ("vote_id", json!(1.5)),
        ("year", json!("x")),
        ("year", json!(1979.5)),
        ("year", json!([1979])),
        ("rank", json!("NaN")),
        ("rank", json!("+5")),
        ("rank", json!(".5")),
        ("rank", json!("5,0")),
        ("rank", json!("")),
        ("rank", json!("0x5")),
        ("rank", json!("1_0")),
    ] {
        assert_eq!(invalid_field_of(read(&json!({ field: value }))), field, "{value}");
    }
}

#[test]
fn deep_nesting_is_refused_without_a_stack_overflow() {
    let deep = format!(r#"{{"name":{}{}}}"#, "[".repeat(MAX_VOTE_BYTES), "]".repeat(MAX_VOTE_BYTES));
    assert_eq!(invalid_field_of(VoteRequest::from_json(deep.as_bytes())), "name");
    let deep = format!(r#"{{"name":{}"#, r#"{"a":"#.repeat(MAX_VOTE_BYTES));
    assert_eq!(VoteRequest::from_json(deep.as_bytes()).unwrap_err().reason, Reason::MalformedBody);
}

#[test]
fn every_reason_is_listed_once_with_its_own_name() {
    for (index, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, index);
        assert!((400..=503).contains(&reason.http_status()) && reason.http_status() != 500);
        assert!(![0, 2, 13].contains(&reason.grpc_code()), "{reason:?} is not an error of the client or of the load");
    }
    let mut slugs = Reason::ALL.map(Reason::slug);
    slugs.sort_unstable();
    assert!(slugs.windows(2).all(|pair| pair[0] != pair[1]));
}
