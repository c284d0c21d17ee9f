//! A vote as a record of the log: the key is the ballot key, the time that of acceptance, the value a protobuf message.

use prost::Message;
use proto::v1::VoteRecord;
use uuid::Uuid;
use votes::{BallotKey, DeadLetter, Poison, TraceParent, UnixMillis, Vote, VoteId, VoterHash};

/// The record's value.
pub fn encode(vote: &Vote) -> Vec<u8> {
    let record = VoteRecord {
        vote_id: vote.vote_id.0.as_bytes().to_vec(),
        contest: vote.contest.as_str().to_owned(),
        name: vote.name.clone(),
        album: vote.album.clone(),
        year: vote.year.map(u32::from),
        rank: vote.rank,
        voter: vote.voter.map(|voter| voter.0.to_vec()),
        door: vote.door.as_str().to_owned(),
    };
    record.encode_to_vec()
}

/// Reads a record back. It was validated at the door, so only its form is checked.
///
/// # Errors
/// What is there instead of a vote, and why it is none.
pub(crate) fn decode(
    key: &[u8],
    accepted_at: UnixMillis,
    value: &[u8],
    traceparent: Option<&str>,
) -> Result<Vote, Poison> {
    read(key, accepted_at, value, traceparent).map_err(|reason| Poison {
        reason,
        key: key.to_vec(),
        value: value.to_vec(),
    })
}

/// Reads a dead letter again: this version may know what an earlier one did not.
///
/// # Errors
/// Why it still is no vote.
pub fn read_again(letter: &DeadLetter) -> Result<Vote, String> {
    read(&letter.poison.key, letter.accepted_at, &letter.poison.value, None)
}

fn read(key: &[u8], accepted_at: UnixMillis, value: &[u8], traceparent: Option<&str>) -> Result<Vote, String> {
    let key = match std::str::from_utf8(key) {
        Ok("") => return Err("key: missing".to_owned()),
        Ok(key) => BallotKey::stored(key),
        Err(error) => return Err(format!("key: {error}")),
    };
    let record = VoteRecord::decode(value).map_err(|error| format!("not a vote record: {error}"))?;
    let year = record.year.map(u16::try_from).transpose().map_err(|error| format!("year: {error}"))?;
    let voter = record.voter.map(TryInto::try_into).transpose();
    Ok(Vote {
        vote_id: VoteId(Uuid::from_slice(&record.vote_id).map_err(|error| format!("vote_id: {error}"))?),
        key,
        contest: record.contest.parse().map_err(|problem| format!("contest: {problem}"))?,
        name: if record.name.is_empty() { Err("name: missing".to_owned()) } else { Ok(record.name) }?,
        album: record.album,
        year,
        rank: record.rank,
        voter: voter.map(|voter| voter.map(VoterHash)).map_err(|_| "voter: not 32 bytes".to_owned())?,
        accepted_at,
        door: record.door.parse().map_err(|problem| format!("door: {problem}"))?,
        traceparent: traceparent.and_then(TraceParent::parse),
    })
}
