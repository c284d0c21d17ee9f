//! Contests: the producers check the rules of a contest, and the consumer counts one vote per voter.
#![allow(clippy::unwrap_used)]

use std::fs;

use proto::v1::CastVoteRequest;
use proto_grpc::v1::vote_service_client::VoteServiceClient;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Addresses, System, audit, wait_for};
use tonic::Code;

const CONTESTS: &str = r#"
[contests.bands]

[contests.final]
candidates = ["Pink Floyd", "Sigur Rós"]
votes_per_voter = "one"

[contests.tomorrow]
opens = "2999-01-01T00:00:00Z"

[contests.yesterday]
closes = "2001-01-01T00:00:00Z"
"#;

fn start() -> (System, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("contests.toml");
    fs::write(&file, CONTESTS).unwrap();
    let flags = ["--config", file.to_str().unwrap()];
    (System::start_with(&folder.path().join("data"), Addresses::free(), &flags), folder)
}

fn problem_type(problem: &Value) -> &str {
    problem["type"].as_str().unwrap_or_default()
}

#[test]
fn a_vote_against_the_rules_is_refused_with_the_reason() {
    let (system, _folder) = start();
    let refused = [
        (json!({ "contest": "final", "name": "Stranger", "voter": "ann" }), 403, "urn:ovation:not-a-candidate"),
        (json!({ "contest": "final", "name": "Pink Floyd" }), 422, "urn:ovation:voter-required"),
        (json!({ "contest": "tomorrow", "name": "Pink Floyd" }), 403, "urn:ovation:not-open-yet"),
        (json!({ "contest": "yesterday", "name": "Pink Floyd" }), 403, "urn:ovation:closed"),
        (json!({ "contest": "nowhere", "name": "Pink Floyd" }), 404, "urn:ovation:unknown-contest"),
    ];
    for (vote, status, reason) in refused {
        let (actual_status, problem) = system.post(&vote);
        assert_eq!((actual_status, problem_type(&problem)), (status, reason), "{vote}: {problem}");
        assert!(problem["vote_id"].is_string(), "{problem}");
    }
    // A decomposed spelling is the same candidate.
    let (status, _) = system.post(&json!({ "contest": "final", "name": "Sigur Ro\u{301}s", "voter": "ann" }));
    assert_eq!(status, 202);
    wait_for("the vote", || system.total("final") == 1);
    assert_eq!(system.results("/v1/contests/final/tally")["bands"][0]["name"], "Sigur Rós");
}

#[test]
fn a_voter_with_one_vote_counts_once_over_both_producers() {
    let (system, _folder) = start();
    let vote = |voter: &str, name: &str| json!({ "contest": "final", "name": name, "voter": voter });

    // The voter votes twice in one batch.
    let (status, receipts) = system.post_batch(&json!([vote("ann", "Pink Floyd"), vote("ann", "Sigur Rós")]));
    assert_eq!((status, receipts.as_array().unwrap().len()), (200, 2));
    // The voter votes over REST and over gRPC, with different vote ids.
    assert_eq!(system.post(&vote("ben", "Sigur Rós")).0, 202);
    let grpc = format!("http://{}", system.addresses.grpc);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut producer = VoteServiceClient::connect(grpc).await.unwrap();
        let vote = |voter: &str| CastVoteRequest {
            name: "Pink Floyd".to_owned(),
            contest: Some("final".to_owned()),
            voter: Some(voter.to_owned()),
            ..CastVoteRequest::default()
        };
        producer.cast_vote(vote("ben")).await.unwrap();
        producer.cast_vote(vote("cat")).await.unwrap();
        let refused =
            producer.cast_vote(CastVoteRequest { name: "Stranger".to_owned(), ..vote("dan") }).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    });
    // The same voter in another contest has another ballot.
    assert_eq!(system.post(&json!({ "name": "Pink Floyd", "voter": "ann" })).0, 202);

    system.wait_until_counted();
    let tally = system.results("/v1/contests/final/tally");
    assert_eq!(tally["total"], 3, "{tally}");
    // The first vote on the log counts.
    assert_eq!(
        tally["bands"],
        json!([
            { "name": "Pink Floyd", "votes": 2, "share": 2.0 / 3.0 },
            { "name": "Sigur Rós", "votes": 1, "share": 1.0 / 3.0 },
        ])
    );
    assert_eq!(system.total("bands"), 1);
    let report = audit(&system.data);
    assert_eq!((&report["ok"], &report["duplicates"]), (&json!(true), &json!(2)), "{report}");
}

#[test]
fn a_voter_is_never_stored_nor_logged() {
    let (mut system, folder) = start();
    let voter = "ann-of-the-secret-garden";
    assert_eq!(system.post(&json!({ "contest": "final", "name": "Pink Floyd", "voter": voter })).0, 202);
    assert_eq!(system.post(&json!({ "contest": "final", "name": "Stranger", "voter": voter })).0, 403);
    system.wait_until_counted();
    system.stop();
    for entry in fs::read_dir(&system.data).unwrap().chain(fs::read_dir(folder.path()).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = fs::read(&path).unwrap();
            let has_voter = bytes.windows(voter.len()).any(|window| window == voter.as_bytes());
            assert!(!has_voter, "the voter is in {}", path.display());
        }
    }
}

#[test]
fn a_restart_gives_no_voter_a_second_vote() {
    let (mut system, folder) = start();
    let vote = json!({ "contest": "final", "name": "Pink Floyd", "voter": "ann" });
    assert_eq!(system.post(&vote).0, 202);
    system.kill();
    let file = folder.path().join("contests.toml");
    let flags = ["--config", file.to_str().unwrap()];
    let system = System::start_with(&system.data, Addresses::free(), &flags);
    assert_eq!(system.post(&vote).0, 202);
    system.wait_until_counted();
    assert_eq!(system.total("final"), 1);
}
