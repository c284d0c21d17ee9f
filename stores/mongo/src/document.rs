//! Votes, checkpoints and duplicates as documents of the ledger.
//!
//! Votes are encoded directly as bytes. For each vote, building a tree of keys and values would cost more than
//! everything else that this crate does with the vote.

use std::time::Duration;

use mongodb::bson::{DateTime, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc, raw::cstr};
use uuid::Uuid;
use votes::{
    BallotKey, Checkpoint, Duplicate, LogPosition, LoggedVote, Offset, Partition, StoreError, UnixMillis, Vote, VoteId,
};

use crate::call::failed;

/// Returns the document of a vote. Optional fields that the vote does not have are absent.
pub(super) fn vote_document(logged: &LoggedVote) -> RawDocumentBuf {
    let LoggedVote { position, vote } = logged;
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
        document.append(cstr!("voter"), voter.to_string().as_str());
    }
    document.append(cstr!("accepted_at"), DateTime::from_millis(vote.accepted_at.0));
    document.append(cstr!("producer"), vote.producer.as_str());
    document.append(cstr!("partition"), i32::from(position.partition.0));
    document.append(cstr!("offset"), int64(position.offset));
    document
}

/// Reads the document of a vote.
///
/// # Errors
/// If a field is missing or invalid. The error names the field.
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
            voter: optional(document, "voter", |voter| voter.as_str()?.parse().ok())?,
            accepted_at: UnixMillis(required(document, "accepted_at", RawBsonRef::as_datetime)?.timestamp_millis()),
            producer: text(document, "producer")?.parse().map_err(|problem| format!("producer: {problem}"))?,
            traceparent: None,
        };
        Ok(LoggedVote { position: position(document)?, vote })
    };
    read().map_err(|problem: String| unreadable(document, &problem))
}

/// Reads the ballot key and the position of a vote.
pub(super) fn read_position(document: &RawDocument) -> Result<(&str, LogPosition), StoreError> {
    let read = || Ok((text(document, "_id")?, position(document)?));
    read().map_err(|problem: String| unreadable(document, &problem))
}

/// What the checkpoint document of a partition has. Fields of the summary are absent until votes expire.
#[derive(Debug, Default)]
pub(super) struct StoredCheckpoint {
    pub(super) checkpoint: Checkpoint,
    /// The generations of the partition's summary, from the oldest to the newest.
    pub(super) generations: Vec<Generation>,
    /// The number of changes of the generations or of the cut-off.
    pub(super) summary_version: i64,
    /// The fence, which a writer of parts must have read before. See [`summary`](crate::summary).
    pub(super) summary_fence: i64,
    /// The youngest age at which a vote expired.
    pub(super) youngest_expired: Option<Duration>,
}

/// A generation of a summary: parts that were stored together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    pub(super) id: String,
    /// The number of the parts.
    pub(super) parts: u32,
}

impl Generation {
    /// Returns the element of the checkpoint's list.
    pub(super) fn document(&self) -> Document {
        doc! { "id": &self.id, "parts": self.parts }
    }
}

/// Reads the checkpoint of a partition.
pub(super) fn read_checkpoint(document: &RawDocument) -> Result<StoredCheckpoint, StoreError> {
    let read = || {
        let id = optional(document, "last_vote_id", RawBsonRef::as_str)?.map(read_vote_id).transpose()?;
        let last = optional(document, "last_offset", |offset| integer(offset)?.try_into().ok())?;
        let cut_off: Option<u64> = optional(document, "cut_off", |offset| integer(offset)?.try_into().ok())?;
        let checkpoint = Checkpoint {
            offset: offset(document, "offset")?,
            last: last.map(Offset).zip(id),
            cut_off: Offset(cut_off.unwrap_or(0)),
        };
        let youngest_expired = optional(document, "youngest_expired_ms", |age| integer(age)?.try_into().ok())?;
        Ok(StoredCheckpoint {
            checkpoint,
            generations: generations(document)?,
            summary_version: optional(document, "summary_version", integer)?.unwrap_or(0),
            summary_fence: optional(document, "summary_fence", integer)?.unwrap_or(0),
            youngest_expired: youngest_expired.map(Duration::from_millis),
        })
    };
    read().map_err(|problem: String| unreadable(document, &problem))
}

fn generations(document: &RawDocument) -> Result<Vec<Generation>, String> {
    let Some(list) = optional(document, "summary", RawBsonRef::as_array)? else { return Ok(Vec::new()) };
    list.into_iter().map(|element| generation(element.map_err(|error| error.to_string())?)).collect()
}

fn generation(element: RawBsonRef<'_>) -> Result<Generation, String> {
    let generation = element.as_document().ok_or_else(|| format!("summary can't have {element:?}"))?;
    let parts = required(generation, "parts", |parts| integer(parts)?.try_into().ok())?;
    Ok(Generation { id: text(generation, "id")?.to_owned(), parts })
}

/// Returns the document of a duplicate.
pub(super) fn duplicate_document(duplicate: &Duplicate) -> RawDocumentBuf {
    let Duplicate { position, key, original } = duplicate;
    let mut document = RawDocumentBuf::new();
    document.append(cstr!("_id"), duplicate_id(*position));
    document.append(cstr!("partition"), i32::from(position.partition.0));
    document.append(cstr!("offset"), int64(position.offset));
    document.append(cstr!("key"), key.as_str());
    document.append(cstr!("original"), int64(*original));
    document
}

/// Returns the `_id` of the document of the duplicate at a position.
pub(super) fn duplicate_id(position: LogPosition) -> String {
    format!("{}/{}", position.partition, position.offset)
}

/// Reads a duplicate.
pub(super) fn read_duplicate(document: &RawDocument) -> Result<Duplicate, StoreError> {
    let read = || {
        let key = BallotKey::stored(text(document, "key")?);
        Ok(Duplicate { position: position(document)?, key, original: offset(document, "original")? })
    };
    read().map_err(|problem: String| unreadable(document, &problem))
}

/// Returns the filter for the documents of a partition with offsets in `[from, to)`.
pub(super) fn offsets_in(partition: Partition, from: Offset, to: Offset) -> Document {
    doc! { "partition": i32::from(partition.0), "offset": { "$gte": int64(from), "$lt": int64(to) } }
}

/// Converts an offset to the largest integer type of BSON. No log has greater offsets.
pub(super) fn int64(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

fn position(document: &RawDocument) -> Result<LogPosition, String> {
    let partition = required(document, "partition", |partition| integer(partition)?.try_into().ok())?;
    Ok(LogPosition { partition: Partition(partition), offset: offset(document, "offset")? })
}

fn offset(document: &RawDocument, field: &str) -> Result<Offset, String> {
    required(document, field, |offset| integer(offset)?.try_into().ok()).map(Offset)
}

fn text<'a>(document: &'a RawDocument, field: &str) -> Result<&'a str, String> {
    required(document, field, RawBsonRef::as_str)
}

/// Reads a whole number of 32 or 64 bits: tools that restore a ledger from JSON write small numbers with 32 bits.
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
