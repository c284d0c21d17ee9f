//! The ids that a producer creates for votes without one. It draws them so that the ballots are in a given partition.

#![allow(clippy::unwrap_used, reason = "an unexpected error fails the test")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Variant;
use votes::{Contest, Contests, Partition, ProducerKind, UnixMillis, Vote, VoteRequest, VoterSecret, VotesPerVoter};

fn admit(request: VoteRequest, contests: &Contests, now: UnixMillis) -> Vote {
    let secret = VoterSecret::new(&[7; 32]).unwrap();
    Vote::admit(request, contests, Some(&secret), ProducerKind::Rest, now).unwrap()
}

fn request() -> VoteRequest {
    VoteRequest { name: Some("Queen".to_owned()), ..VoteRequest::default() }
}

proptest! {
    #[test]
    fn a_drawn_id_is_a_uuid_of_its_time_whose_ballot_is_in_the_partition(
        now in 0..1_u64 << 47,
        (partitions, partition) in (1..=24_u16).prop_flat_map(|count| (Just(count), (0..count).prop_map(Partition))),
    ) {
        let time = UnixMillis(i64::try_from(now).unwrap());
        let mut vote = admit(request(), &Contests::default(), time);
        vote.draw_id(partition, partitions);
        prop_assert_eq!(vote.key.as_str(), format!("bands|{}", vote.vote_id));
        // At 24 partitions, one of 50 000 draws fails.
        if partitions <= 12 {
            prop_assert_eq!(vote.key.partition(partitions), partition);
        }
        let id = vote.vote_id.0;
        prop_assert_eq!((id.get_version_num(), id.get_variant()), (7, Variant::RFC4122));
        let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
        prop_assert_eq!(seconds * 1_000 + u64::from(nanos) / 1_000_000, now);

        // The same vote with this id is the same ballot.
        let again = VoteRequest { vote_id: Some(vote.vote_id.to_string()), ..request() };
        prop_assert_eq!(admit(again, &Contests::default(), UnixMillis(time.0 + 1)).key, vote.key);
    }
}

#[test]
fn the_random_bits_of_drawn_ids_are_drawn_anew_for_each_vote() {
    const VOTES: usize = 20_000;
    let (mut ids, mut ones) = (BTreeSet::new(), [0_usize; 128]);
    for _ in 0..VOTES {
        let mut vote = admit(request(), &Contests::default(), UnixMillis(0));
        vote.draw_id(Partition(5), 12);
        let bits = vote.vote_id.0.as_u128();
        ids.insert(bits);
        (0..128).for_each(|bit| ones[bit] += usize::from(bits >> bit & 1 == 1));
    }
    assert_eq!(ids.len(), VOTES);
    // The bits of the time, the version and the variant are fixed. A partition fixes less than four bits in total, and no
    // single one: each of the others is one in half of the votes. The allowed deviation is fourteen times the standard one.
    let is_random = |bit: &usize| ones[*bit].abs_diff(VOTES / 2) < VOTES / 20;
    let is_fixed = |bit: &usize| [0, VOTES].contains(&ones[*bit]);
    let random: Vec<usize> = (0..128).filter(is_random).collect();
    assert_eq!(random, (0..62).chain(64..76).collect::<Vec<_>>());
    assert_eq!((0..128).filter(is_fixed).count(), 128 - random.len());
}

#[test]
fn an_id_that_cannot_be_drawn_soon_is_a_valid_one_all_the_same() {
    let mut found = 0;
    for _ in 0..200 {
        let mut vote = admit(request(), &Contests::default(), UnixMillis::now());
        vote.draw_id(Partition(9_999), 10_000);
        assert_eq!(vote.key.as_str(), format!("bands|{}", vote.vote_id));
        found += usize::from(vote.key.partition(10_000) == Partition(9_999));
    }
    assert!(found < 100, "the number of draws is bounded");
}

#[test]
fn the_id_stays_where_the_ballot_follows_from_the_voter() {
    let contest = Contest::new(None, VotesPerVoter::One, None, None).unwrap();
    let contests = Contests::new([("final".parse().unwrap(), contest)].into());
    let voter = VoteRequest { voter: Some("ann".to_owned()), contest: Some("final".to_owned()), ..request() };
    let mut vote = admit(voter, &contests, UnixMillis::now());
    let before = vote.clone();
    vote.draw_id(Partition(5), 12);
    assert_eq!(vote, before);
}
