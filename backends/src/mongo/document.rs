//! A vote as a document of the book, and back.
//!
//! Documents are written as bytes at once: a tree of keys and values for each would cost more than all else that is done
//! to a vote here.

use mongodb::bson::{DateTime, RawBsonRef, RawDocument, RawDocumentBuf, raw::cstr};
use uuid::Uuid;
use votes::{
    BallotKey, Checkpoint, LoggedVote, Offset, Partition, Place, Repeat, StoreError, UnixMillis, Vote, VoteId,
    VoterHash,
};

use super::failed;

/// The document of a vote. What the vote does not say is not in it.
pub(super) fn of_vote(logged: &LoggedVote) -> RawDocumentBuf {
    let LoggedVote { place, vote } = logged;
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), vote.key.as_str());
    document.append(cstr!("vote_id"), &*vote.vote_id.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    document.append(cstr!("contest"), vote.contest.as_str());
    document.append(cstr!("name"), vote.name.as_str());
    if let Some(album) = &vote.album {
        document.append(cstr!("album"), album.as_str());
    }
    if let Some(year) = vote.year {
        document.append(cstr!("year"), i32::from(year));
    }
    if let Some(rank) = vote.rank {
        document.append(cstr!("rank"), rank);
    }
    if let Some(voter) = &vote.voter {
        document.append(cstr!("voter"), hex(voter).as_str());
    }
    document.append(cstr!("accepted_at"), DateTime::from_millis(vote.accepted_at.0));
    document.append(cstr!("door"), vote.door.as_str());
    document.append(cstr!("partition"), i32::from(place.partition.0));
    document.append(cstr!("offset"), int64(place.offset));
    document
}

/// Reads a vote's document.
///
/// # Errors
/// If somebody else wrote it: which field is not as it should be.
pub(super) fn read_vote(document: &RawDocument) -> Result<LoggedVote, StoreError> {
    let read = || {
        let vote = Vote {
            vote_id: read_vote_id(text(document, "vote_id")?)?,
            key: BallotKey::stored(text(document, "_id")?),
            contest: text(document, "contest")?.parse().map_err(|problem| format!("contest: {problem}"))?,
            name: text(document, "name")?.to_owned(),
            album: optional(document, "album", RawBsonRef::as_str)?.map(ToOwned::to_owned),
            year: optional(document, "year", |year| integer(year)?.try_into().ok())?,
            rank: optional(document, "rank", RawBsonRef::as_f64)?,
            voter: optional(document, "voter", |voter| unhex(voter.as_str()?))?,
            accepted_at: UnixMillis(required(document, "accepted_at", RawBsonRef::as_datetime)?.timestamp_millis()),
            door: text(document, "door")?.parse().map_err(|problem| format!("door: {problem}"))?,
            traceparent: None,
        };
        Ok(LoggedVote { place: place(document)?, vote })
    };
    read().map_err(|problem: String| unreadable(document, &problem))
}

/// Reads where a vote is, and its ballot key.
pub(super) fn read_place(document: &RawDocument) -> Result<(&str, Place), StoreError> {
    let read = || Ok((text(document, "_id")?, place(document)?));
    read().map_err(|problem: String| unreadable(document, &problem))
}

/// Reads how far a partition has come, and the generation of its summary.
pub(super) fn read_checkpoint(document: &RawDocument) -> Result<(Checkpoint, Option<&str>), StoreError> {
    let read = || {
        let id = optional(document, "last_vote_id", RawBsonRef::as_str)?.map(read_vote_id).transpose()?;
        let last = optional(document, "last_offset", |offset| integer(offset)?.try_into().ok())?;
        let cut_off: Option<u64> = optional(document, "cut_off", |offset| integer(offset)?.try_into().ok())?;
        let checkpoint = Checkpoint {
            offset: offset(document, "offset")?,
            last: last.map(Offset).zip(id),
            cut_off: Offset(cut_off.unwrap_or(0)),
        };
        Ok((checkpoint, optional(document, "summary", RawBsonRef::as_str)?))
    };
    read().map_err(|problem: String| unreadable(document, &problem))
}

/// The document of a repeat.
pub(super) fn of_repeat(repeat: &Repeat) -> RawDocumentBuf {
    let Repeat { place, of } = repeat;
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), format!("{}/{}", place.partition, place.offset));
    document.append(cstr!("partition"), i32::from(place.partition.0));
    document.append(cstr!("offset"), int64(place.offset));
    document.append(cstr!("of"), int64(*of));
    document
}

/// Reads a repeat.
pub(super) fn read_repeat(document: &RawDocument) -> Result<Repeat, StoreError> {
    let read = || Ok(Repeat { place: place(document)?, of: offset(document, "of")? });
    read().map_err(|problem: String| unreadable(document, &problem))
}

/// An offset as it is stored. Logs have no greater ones than this type.
pub(super) fn int64(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

fn place(document: &RawDocument) -> Result<Place, String> {
    let partition = required(document, "partition", |partition| integer(partition)?.try_into().ok())?;
    Ok(Place { partition: Partition(partition), offset: offset(document, "offset")? })
}

fn offset(document: &RawDocument, field: &str) -> Result<Offset, String> {
    required(document, field, |offset| integer(offset)?.try_into().ok()).map(Offset)
}

fn text<'a>(document: &'a RawDocument, field: &str) -> Result<&'a str, String> {
    required(document, field, RawBsonRef::as_str)
}

/// A whole number of either size: tools that restore a book from JSON choose the smaller one.
fn integer(value: RawBsonRef<'_>) -> Option<i64> {
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}

fn required<'a, T>(
    document: &'a RawDocument,
    field: &str,
    read: impl FnOnce(RawBsonRef<'a>) -> Option<T>,
) -> Result<T, String> {
    optional(document, field, read)?.ok_or_else(|| format!("{field} is missing"))
}

fn optional<'a, T>(
    document: &'a RawDocument,
    field: &str,
    read: impl FnOnce(RawBsonRef<'a>) -> Option<T>,
) -> Result<Option<T>, String> {
    match document.get(field).map_err(|error| error.to_string())? {
        None => Ok(None),
        Some(value) => match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("{field} can't be {value:?}")),
        },
    }
}

fn read_vote_id(text: &str) -> Result<VoteId, String> {
    Uuid::try_parse(text).map(VoteId).map_err(|error| format!("vote id {text:?}: {error}"))
}

fn unreadable(document: &RawDocument, problem: &str) -> StoreError {
    let id = document.get("_id").ok().flatten();
    failed(format!("document {id:?} was not written by Ovation: {problem}"))
}

/// The text of a hash, 64 hexadecimal digits. Its `Display` goes through the formatter for each byte.
fn hex(voter: &VoterHash) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    voter.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

pub(super) fn unhex(text: &str) -> Option<VoterHash> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(VoterHash(hash))
}
