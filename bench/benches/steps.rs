//! Microbenchmarks of the code that handles each vote: `cargo bench -p bench`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use divan::{Bencher, counter::ItemsCount};
use votes::{
    Contests, Counts, LoggedVote, Partition, ProducerKind, UnixMillis, Vote, VoteRequest,
    conformance::{logged, vote},
};

/// A vote in the form that files for load tests have.
const JSON: &[u8] = br#"{"name":"Pink Floyd","album":"The Wall","year":"1979","rank":"5","vote_id":"019c9a0e-5c1f-7d52-b5ae-6a3f1c3c7b11"}"#;

/// The number of votes in the largest batch of a consumer.
const BATCH: u64 = 1_000;

fn main() {
    divan::main();
}

#[divan::bench]
fn read_json(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(1_u32)).bench(|| VoteRequest::from_json(black_box(JSON)).unwrap());
}

#[divan::bench]
fn validate(bencher: Bencher<'_, '_>) {
    let contests = Contests::default();
    let admit = |request| Vote::admit(request, &contests, None, ProducerKind::Rest, UnixMillis(1)).unwrap();
    bencher.counter(ItemsCount::new(1_u32)).with_inputs(|| VoteRequest::from_json(JSON).unwrap()).bench_values(admit);
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let vote = vote(7);
    bencher.counter(ItemsCount::new(1_u32)).bench(|| log_record::encode(black_box(&vote)));
}

#[divan::bench]
fn count(bencher: Bencher<'_, '_>) {
    let votes: Vec<LoggedVote> = (0..BATCH).map(|n| logged(n, Partition(0), n)).collect();
    bencher.counter(ItemsCount::new(BATCH)).bench(|| Counts::of(black_box(&votes)));
}
