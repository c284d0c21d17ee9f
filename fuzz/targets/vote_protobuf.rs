//! A vote in protobuf. Our reader accepts only messages that prost accepts, and reads the same values.

#![no_main]

#[path = "admit.rs"]
mod admit;
#[path = "../../grpc-producer/src/message.rs"]
mod message;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use votes::VoteRequest;

/// The message `ovation.v1.CastVoteRequest`. The tests of the gRPC producer compare our reader with the generated
/// message.
#[derive(Clone, PartialEq, Message)]
struct CastVoteRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, optional, tag = "2")]
    album: Option<String>,
    #[prost(int32, optional, tag = "3")]
    year: Option<i32>,
    #[prost(double, optional, tag = "4")]
    rank: Option<f64>,
    #[prost(string, optional, tag = "5")]
    contest: Option<String>,
    #[prost(string, optional, tag = "6")]
    voter: Option<String>,
    #[prost(string, optional, tag = "7")]
    vote_id: Option<String>,
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut ours) = message::parse(bytes) else { return };
    let theirs = CastVoteRequest::decode(bytes).expect("prost must accept what our reader accepts");
    // The ranks are compared bit by bit, because NaN is not equal to itself.
    let rank = ours.rank.take();
    assert_eq!(rank.map(f64::to_bits), theirs.rank.map(f64::to_bits));
    let theirs = VoteRequest {
        name: ours.name.is_some().then_some(theirs.name),
        album: theirs.album,
        year: theirs.year.map(i64::from),
        contest: theirs.contest,
        voter: theirs.voter,
        vote_id: theirs.vote_id,
        ..VoteRequest::default()
    };
    assert_eq!(ours, theirs);
    admit::check(VoteRequest { rank, ..ours });
});
