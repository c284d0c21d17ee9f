//! A vote as a record of the log: the key is the ballot key, the time is that of acceptance, and the value is a
//! protobuf message.

use prost::Message;
use proto::v1::VoteRecord;
use uuid::Uuid;
use votes::{BallotKey, DeadLetter, InvalidRecord, TraceParent, UnixMillis, Vote, VoteId, VoterHash};

/// The version of the layout that [`encode`] writes, and the newest version that [`decode`] reads.
pub const VERSION: u32 = 1;

/// A record that a newer release wrote. The record is a vote, so it must not become a dead letter: upgrade this program
/// to count it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record has version {0} and this program reads up to version {VERSION}: upgrade this program")]
pub struct NewerRecord(pub u32);

/// Returns the value of the record of a vote.
pub fn encode(vote: &Vote) -> Vec<u8> {
    let record = VoteRecord {
        vote_id: vote.vote_id.0.as_bytes().to_vec(),
        contest: vote.contest.as_str().to_owned(),
        name: vote.name.clone(),
        album: vote.album.clone(),
        year: vote.year.map(u32::from),
        rank: vote.rank,
        voter: vote.voter.map(|voter| voter.0.to_vec()),
        producer: vote.producer.as_str().to_owned(),
        version: VERSION,
    };
    record.encode_to_vec()
}

/// Reads a record. Checks only the form of the record, because the producer has validated the vote. The inner error is
/// an invalid record: it is no vote of any version.
///
/// # Errors
/// If a newer release wrote the record.
pub fn decode(
    key: &[u8],
    accepted_at: UnixMillis,
    value: &[u8],
    traceparent: Option<&str>,
) -> Result<Result<Vote, InvalidRecord>, NewerRecord> {
    match parse(key, accepted_at, value, traceparent) {
        Ok(vote) => Ok(Ok(vote)),
        Err(Unreadable::Newer(newer)) => Err(newer),
        Err(Unreadable::Invalid(reason)) => Ok(Err(InvalidRecord { reason, key: key.to_vec(), value: value.to_vec() })),
    }
}

/// Reads the record of a dead letter again. This release may read a record that an earlier release could not.
///
/// # Errors
/// Returns why the record is still no vote.
pub fn decode_dead_letter(letter: &DeadLetter) -> Result<Vote, String> {
    parse(&letter.invalid.key, letter.accepted_at, &letter.invalid.value, None).map_err(|unreadable| match unreadable {
        Unreadable::Newer(newer) => newer.to_string(),
        Unreadable::Invalid(reason) => reason,
    })
}

/// Why a record can't be read.
enum Unreadable {
    Newer(NewerRecord),
    Invalid(String),
}

impl From<String> for Unreadable {
    fn from(reason: String) -> Self {
        Self::Invalid(reason)
    }
}

fn parse(key: &[u8], accepted_at: UnixMillis, value: &[u8], traceparent: Option<&str>) -> Result<Vote, Unreadable> {
    let key = match std::str::from_utf8(key) {
        Ok("") => return Err("key: missing".to_owned().into()),
        Ok(key) => BallotKey::stored(key),
        Err(error) => return Err(format!("key: {error}").into()),
    };
    let record = VoteRecord::decode(value).map_err(|error| format!("not a vote record: {error}"))?;
    let vote_id = VoteId(Uuid::from_slice(&record.vote_id).map_err(|error| format!("vote_id: {error}"))?);
    // Every version has the key and the vote id. A record without them is no vote, whatever its version field says.
    if record.version > VERSION {
        return Err(Unreadable::Newer(NewerRecord(record.version)));
    }
    let year = record.year.map(u16::try_from).transpose().map_err(|error| format!("year: {error}"))?;
    let voter = record.voter.map(TryInto::try_into).transpose();
    Ok(Vote {
        vote_id,
        key,
        contest: record.contest.parse().map_err(|problem| format!("contest: {problem}"))?,
        name: if record.name.is_empty() { Err("name: missing".to_owned()) } else { Ok(record.name) }?,
        album: record.album,
        year,
        rank: record.rank,
        voter: voter.map(|voter| voter.map(VoterHash)).map_err(|_| "voter: not 32 bytes".to_owned())?,
        accepted_at,
        producer: record.producer.parse().map_err(|problem| format!("producer: {problem}"))?,
        traceparent: traceparent.and_then(TraceParent::parse),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"bands|0197f3a0-0000-7000-8000-000000000001";

    fn record(version: u32) -> VoteRecord {
        VoteRecord {
            vote_id: Uuid::from_u128(1).as_bytes().to_vec(),
            contest: "bands".to_owned(),
            name: "Queen".to_owned(),
            producer: "rest".to_owned(),
            version,
            ..VoteRecord::default()
        }
    }

    fn decode_record(record: &VoteRecord) -> Result<Result<Vote, InvalidRecord>, NewerRecord> {
        decode(KEY, UnixMillis(0), &record.encode_to_vec(), None)
    }

    #[test]
    fn a_record_carries_its_version() {
        let vote = decode_record(&record(VERSION)).unwrap().unwrap();
        assert_eq!(VoteRecord::decode(encode(&vote).as_slice()).unwrap(), record(VERSION));
    }

    #[test]
    fn a_record_without_a_version_is_read_as_version_1() {
        assert_eq!(decode_record(&record(0)).unwrap().unwrap().name, "Queen");
    }

    #[test]
    fn a_record_of_a_newer_release_is_an_error_but_not_an_invalid_record() {
        let newer = decode_record(&record(VERSION + 1)).unwrap_err();
        assert_eq!(newer, NewerRecord(2));
        assert!(newer.to_string().contains("upgrade"), "{newer}");
    }

    #[test]
    fn bytes_that_are_no_vote_are_invalid_whatever_version_they_claim() {
        let no_vote = VoteRecord { vote_id: b"short".to_vec(), ..record(9) };
        assert!(decode_record(&no_vote).unwrap().is_err());
    }
}
