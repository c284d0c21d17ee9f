//! The ports `LedgerRetention`, which expires votes, and `LedgerRepair`, which sets a checkpoint back.

use std::collections::HashSet;

use async_trait::async_trait;
use mongodb::{
    bson::{Bson, doc},
    options::FindOptions,
};
use uuid::Uuid;
use votes::{Checkpoint, LedgerRepair, LedgerRetention, Offset, Partition, StoreError, Summary};

use crate::{
    call::{STORE, driver_error, failed, with_timeout},
    document::{int64, read_duplicate, read_position},
    ledger::{MongoLedger, cut_off_filter},
    summary,
};

/// The maximum number of votes that one command deletes.
const MAX_PURGED_VOTES: i64 = 1_000;

impl MongoLedger {
    /// Returns the offsets of the votes below the cut-off that have a duplicate at or after the cut-off. These votes
    /// must be retained, so that the duplicates are recognised.
    async fn originals_to_retain(&self, partition: Partition, cut_off: Offset) -> Result<HashSet<Offset>, StoreError> {
        let later = doc! {
            "partition": i32::from(partition.0),
            "offset": { "$gte": int64(cut_off) },
            "original": { "$lt": int64(cut_off) },
        };
        let mut cursor = self.duplicates.find(later).await.map_err(driver_error)?;
        let mut originals = HashSet::new();
        while cursor.advance().await.map_err(driver_error)? {
            originals.insert(read_duplicate(cursor.current())?.original);
        }
        Ok(originals)
    }

    /// Deletes the oldest votes with offsets in `[from, cut_off)`, at most [`MAX_PURGED_VOTES`], except those to
    /// retain. Returns how many votes were deleted and the offset to continue from, or `None` if there are no such
    /// votes.
    async fn purge_batch(
        &self,
        partition: Partition,
        from: Offset,
        cut_off: Offset,
        to_retain: &HashSet<Offset>,
    ) -> Result<Option<(u64, Offset)>, StoreError> {
        let partition = i32::from(partition.0);
        let old = doc! { "partition": partition, "offset": { "$gte": int64(from), "$lt": int64(cut_off) } };
        let options = FindOptions::builder().sort(doc! { "offset": 1 }).limit(MAX_PURGED_VOTES);
        let options = options.projection(doc! { "partition": 1, "offset": 1 }).build();
        let mut cursor = self.votes.find(old).with_options(options).await.map_err(driver_error)?;
        let (mut last, mut keys) = (None, Vec::new());
        while cursor.advance().await.map_err(driver_error)? {
            let (key, position) = read_position(cursor.current())?;
            last = Some(position.offset);
            if !to_retain.contains(&position.offset) {
                keys.push(key.to_owned());
            }
        }
        let Some(last) = last else { return Ok(None) };
        // Delete by key and offset: another process may have deleted a vote meanwhile, and the same ballot may have
        // been counted again at a later position.
        let old = doc! { "_id": { "$in": keys }, "partition": partition, "offset": { "$lt": int64(cut_off) } };
        let deleted = self.votes.delete_many(old).await.map_err(driver_error)?.deleted_count;
        Ok(Some((deleted, last.next())))
    }
}

#[async_trait]
impl LedgerRetention for MongoLedger {
    async fn put_summary(&self, partition: Partition, from: Offset, summary: Summary) -> Result<bool, StoreError> {
        let Summary { cut_off, counts } = summary;
        let generation = Uuid::now_v7().to_string();
        with_timeout(STORE, async {
            summary::write(&self.summaries, partition, &generation, cut_off, &counts).await?;
            let fields = doc! { "cut_off": int64(cut_off), "summary": &generation };
            let expected = doc! { "_id": partition.to_string(), "cut_off": cut_off_filter(from) };
            let moved =
                self.checkpoints.update_one(expected, doc! { "$set": fields.clone() }).await.map_err(driver_error)?;
            if moved.matched_count > 0 {
                return Ok(true);
            }
            if from > Offset(0) || self.read_checkpoint(partition).await?.is_some() {
                return Ok(false);
            }
            let mut first = doc! { "offset": 0_i64 };
            first.extend(fields);
            self.insert_first_checkpoint(partition, &first).await
        })
        .await
    }

    async fn purge_expired(&self, partition: Partition) -> Result<u64, StoreError> {
        let (cut_off, generation, to_retain) = with_timeout(STORE, async {
            let checkpoint = self.read_checkpoint(partition).await?;
            let (Checkpoint { cut_off, .. }, generation) = checkpoint.unwrap_or_default();
            Ok((cut_off, generation.unwrap_or_default(), self.originals_to_retain(partition, cut_off).await?))
        })
        .await?;
        let (mut from, mut purged) = (Offset(0), 0);
        while let Some((deleted, next)) =
            with_timeout(STORE, self.purge_batch(partition, from, cut_off, &to_retain)).await?
        {
            purged += deleted;
            from = next;
        }
        with_timeout(STORE, async {
            let old = doc! { "partition": i32::from(partition.0), "offset": { "$lt": int64(cut_off) } };
            self.duplicates.delete_many(old).await.map_err(driver_error)?;
            let obsolete = summary::obsolete_parts(partition, &generation, cut_off);
            self.summaries.delete_many(obsolete).await.map_err(driver_error)
        })
        .await?;
        Ok(purged)
    }

    /// Returns the uncompressed size of all documents in the database.
    async fn size(&self) -> Result<u64, StoreError> {
        with_timeout(STORE, async {
            let stats = self.database.run_command(doc! { "dbStats": 1 }).await.map_err(driver_error)?;
            // Use the size of the documents: files and indexes don't shrink when documents are deleted. The type of the
            // number depends on the server.
            let bytes = match stats.get("dataSize") {
                Some(Bson::Double(bytes)) => *bytes,
                Some(Bson::Int32(bytes)) => f64::from(*bytes),
                Some(Bson::Int64(bytes)) => *bytes as f64,
                other => return Err(failed(format!("the server returned {other:?} as the size of the documents"))),
            };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
            Ok(bytes as u64)
        })
        .await
    }
}

#[async_trait]
impl LedgerRepair for MongoLedger {
    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        let rewound = doc! {
            "$set": { "offset": int64(to) },
            "$unset": { "last_offset": "", "last_vote_id": "" },
        };
        with_timeout(STORE, async {
            let partition = doc! { "_id": partition.to_string() };
            self.checkpoints.update_one(partition, rewound).upsert(true).await.map(drop).map_err(driver_error)
        })
        .await
    }
}
