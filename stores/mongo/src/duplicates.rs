//! Recording duplicates: their documents, and the marks of their originals.
//!
//! The document of a vote has the optional field `last_duplicate`: the highest offset of a recorded duplicate of the
//! vote. A vote is not purged while this offset is at or after the cut-off.

use std::collections::BTreeMap;

use mongodb::{
    Collection, Database,
    bson::{Document, RawDocumentBuf, doc, serialize_to_bson},
};
use votes::{Duplicate, StoreError};

use crate::{
    call::{DUPLICATE_KEY, driver_error, failed, reply_number},
    connect::majority_write_concern,
    document::{duplicate_document, int64},
    insert::refused_documents,
};

/// The maximum number of originals that one command marks. Such a command is far below the limit of 16 MB.
const MAX_MARKS: usize = 1_000;

/// Inserts the documents of duplicates. Documents that exist stay as they are.
pub(super) async fn insert(
    collection: &Collection<RawDocumentBuf>,
    duplicates: &[Duplicate],
) -> Result<(), StoreError> {
    let documents: Vec<RawDocumentBuf> = duplicates.iter().map(duplicate_document).collect();
    let Err(error) = collection.insert_many(documents).ordered(false).await else { return Ok(()) };
    match refused_documents(error)?.iter().find(|refused| refused.code != DUPLICATE_KEY) {
        None => Ok(()),
        Some(refused) => Err(failed(format!("a duplicate was refused: {} (code {})", refused.message, refused.code))),
    }
}

/// Marks the originals of duplicates. Returns whether the ledger has each original at its position.
pub(super) async fn mark_originals(ledger: &Database, duplicates: &[Duplicate]) -> Result<bool, StoreError> {
    let marks = marks(duplicates);
    let write_concern = serialize_to_bson(&majority_write_concern()).map_err(failed)?;
    let mut is_complete = true;
    for marks in marks.chunks(MAX_MARKS) {
        // The driver's own call for many updates needs the command bulkWrite, which FerretDB does not have.
        let update = doc! {
            "update": "votes",
            "updates": marks,
            "ordered": false,
            "writeConcern": &write_concern,
        };
        let reply = ledger.run_command(update).await.map_err(driver_error)?;
        is_complete &= usize::try_from(marked(&reply)?) == Ok(marks.len());
    }
    Ok(is_complete)
}

/// Returns an update for each original. It matches only if the vote is at the position of the original.
fn marks(duplicates: &[Duplicate]) -> Vec<Document> {
    let mut last_duplicates = BTreeMap::new();
    for Duplicate { position, key, original } in duplicates {
        let last = last_duplicates.entry((key.as_str(), *original)).or_insert(position.offset);
        *last = position.offset.max(*last);
    }
    last_duplicates
        .into_iter()
        .map(|((key, original), last)| {
            doc! {
                "q": { "_id": key, "offset": int64(original) },
                "u": { "$max": { "last_duplicate": int64(last) } },
            }
        })
        .collect()
}

/// Reads how many originals the server has found, from the reply to a command.
///
/// # Errors
/// If an original could not be marked, or if the marks are not durable.
fn marked(reply: &Document) -> Result<i64, StoreError> {
    if let Ok(errors) = reply.get_array("writeErrors")
        && let Some(error) = errors.first()
    {
        return Err(failed(format!("the original of a duplicate could not be marked: {error}")));
    }
    if let Some(error) = reply.get("writeConcernError") {
        return Err(failed(format!("the write did not reach a majority: {error}")));
    }
    reply_number(reply, "n")
}

#[cfg(test)]
mod tests {
    use mongodb::bson::Bson;
    use votes::{LogPosition, Offset, Partition, conformance::key};

    use super::*;

    #[test]
    fn an_original_is_marked_once_with_its_last_duplicate() {
        let duplicate = |offset, n, original| {
            let position = LogPosition { partition: Partition(3), offset: Offset(offset) };
            Duplicate { position, key: key(n), original: Offset(original) }
        };
        let mark = |n, original: i64, last: i64| {
            doc! { "q": { "_id": key(n).as_str(), "offset": original }, "u": { "$max": { "last_duplicate": last } } }
        };
        let marks = marks(&[duplicate(7, 1, 2), duplicate(9, 1, 2), duplicate(8, 1, 2), duplicate(5, 2, 3)]);
        assert_eq!(marks.len(), 2);
        assert!(marks.contains(&mark(1, 2, 9)) && marks.contains(&mark(2, 3, 5)), "{marks:?}");
    }

    #[test]
    fn a_reply_has_the_number_of_marked_originals_or_an_error() {
        for number in [Bson::Int32(2), Bson::Int64(2), Bson::Double(2.0)] {
            assert_eq!(marked(&doc! { "n": number, "writeErrors": [], "ok": 1.0 }).unwrap(), 2);
        }
        let refused = doc! { "index": 0, "code": 121, "errmsg": "Document failed validation" };
        let error = marked(&doc! { "n": 2, "writeErrors": [refused], "ok": 1.0 }).unwrap_err().to_string();
        assert!(error.contains("Document failed validation"), "{error}");
        let timed_out = doc! { "code": 64, "errmsg": "waiting for replication timed out" };
        let error = marked(&doc! { "n": 2, "writeConcernError": timed_out, "ok": 1.0 }).unwrap_err().to_string();
        assert!(error.contains("waiting for replication timed out"), "{error}");
        marked(&doc! { "ok": 1.0 }).unwrap_err();
    }
}
