//! Asserts the rules that every accepted vote satisfies.

use std::sync::LazyLock;

use votes::{Contests, ProducerKind, UnixMillis, Vote, VoteRequest, VoterSecret};

static CONTESTS: LazyLock<Contests> = LazyLock::new(Contests::default);

/// Admits a request. If the vote is accepted, asserts that it is valid, and that admitting it again does not change it.
pub fn check(request: VoteRequest) {
    let secret = VoterSecret::new(&[7; 32]).expect("a secret of 32 bytes is long enough");
    let admit = |request| Vote::admit(request, &CONTESTS, Some(&secret), ProducerKind::Rest, UnixMillis(0));
    let Ok(vote) = admit(request.clone()) else { return };
    assert!((1..=100).contains(&vote.name.chars().count()));
    assert_eq!(vote.name.trim(), vote.name);
    assert!(!vote.name.chars().any(char::is_control));
    assert!(vote.album.as_ref().is_none_or(|album| (1..=200).contains(&album.chars().count())));
    assert!(vote.year.is_none_or(|year| (1900..=2100).contains(&year)));
    assert!(vote.rank.is_none_or(|rank| (0.0..=100.0).contains(&rank)));
    assert_eq!(vote.key.as_str(), format!("{}|{}", vote.contest, vote.vote_id));
    let readmitted = admit(VoteRequest {
        name: Some(vote.name.clone()),
        album: vote.album.clone(),
        vote_id: Some(vote.vote_id.to_string()),
        idempotency_key: None,
        ..request
    });
    assert_eq!(readmitted, Ok(vote), "admitting an accepted vote again must not change it");
}
