//! The headers of a vote. An accepted `traceparent` is unchanged, and the same `Idempotency-Key` gives the same vote
//! id.

#![no_main]

use libfuzzer_sys::fuzz_target;
use votes::{Contests, ProducerKind, TraceParent, UnixMillis, Vote, VoteRequest};

fuzz_target!(|header: &str| {
    if let Some(trace) = TraceParent::parse(header) {
        assert_eq!((trace.as_str(), header.len()), (header, 55));
    }
    let admit = |key: String| {
        let request =
            VoteRequest { name: Some("X".into()), idempotency_key: Some(key), ..VoteRequest::default() };
        Vote::admit(request, &Contests::default(), None, ProducerKind::Rest, UnixMillis(0))
    };
    match admit(header.to_owned()) {
        Ok(vote) => assert_eq!(admit(header.to_owned()).map(|vote| vote.vote_id), Ok(vote.vote_id)),
        Err(refusal) => assert_eq!(refusal.field.as_deref(), Some("Idempotency-Key")),
    }
});
