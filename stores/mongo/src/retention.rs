//! The ports `LedgerRetention`, which expires votes, and `LedgerRepair`, which sets a checkpoint back.
//!
//! # Votes with later duplicates
//!
//! A vote is not deleted while a recorded duplicate of the vote is at or after the cut-off. The document of the vote has
//! the offset of its last duplicate, and two rules keep the documents of votes and duplicates consistent:
//!
//! - One command finds out whether a vote has a later duplicate, and deletes it if not. For one document, this is one
//!   atomic step. So a consumer that records a duplicate after the votes were looked up either marks the vote first, and
//!   the vote stays, or it finds no vote, and then the record is no duplicate.
//! - Duplicates are deleted after their originals. If the process ends in between, the next call finds the duplicates
//!   again, and then tries to delete the originals again.

use std::collections::BTreeSet;

use async_trait::async_trait;
use mongodb::{bson::doc, options::Hint};
use votes::{
    BallotKey, Checkpoint, Duplicate, Ledger, LedgerRepair, LedgerRetention, Offset, Partition, Purged, StoreError,
    Summary,
};

use crate::{
    call::{STORE, driver_error, reply_number, with_timeout},
    document::{duplicate_id, int64, offsets_in, read_duplicate},
    ledger::{MAX_REPLY_DOCUMENTS, MongoLedger},
};

/// The maximum number of votes, or of duplicates, that one command deletes. A command with their keys is far below the
/// limit of 16 MB.
const MAX_PURGED: usize = 10_000;

impl MongoLedger {
    /// Returns the first duplicates below an offset, at most `limit`.
    async fn first_duplicates(
        &self,
        partition: Partition,
        to: Offset,
        limit: usize,
    ) -> Result<Vec<Duplicate>, StoreError> {
        let mut cursor = self
            .duplicates
            .find(offsets_in(partition, Offset(0), to))
            .sort(doc! { "offset": 1 })
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .batch_size(MAX_REPLY_DOCUMENTS)
            .await
            .map_err(driver_error)?;
        let mut duplicates = Vec::new();
        while cursor.advance().await.map_err(driver_error)? {
            duplicates.push(read_duplicate(cursor.current())?);
        }
        Ok(duplicates)
    }

    /// Deletes the votes with these ballot keys that are below the cut-off and have no duplicate at or after it. Returns
    /// their number.
    async fn delete_votes(&self, partition: Partition, keys: &[&str], cut_off: Offset) -> Result<u64, StoreError> {
        // Delete by key and offset: another process may have deleted a vote meanwhile, and the same ballot may have
        // been counted again at a later position.
        let mut expired = offsets_in(partition, Offset(0), cut_off);
        expired.insert("_id", doc! { "$in": keys });
        // Most votes have no duplicate. `$not` also matches if the field is absent.
        expired.insert("last_duplicate", doc! { "$not": { "$gte": int64(cut_off) } });
        // Without the hint, the server might search all votes below the cut-off.
        let delete = self.votes.delete_many(expired).hint(Hint::Name("_id_".to_owned()));
        Ok(delete.await.map_err(driver_error)?.deleted_count)
    }

    async fn delete_duplicates(&self, duplicates: &[Duplicate]) -> Result<(), StoreError> {
        if duplicates.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = duplicates.iter().map(|duplicate| duplicate_id(duplicate.position)).collect();
        self.duplicates.delete_many(doc! { "_id": { "$in": ids } }).await.map(drop).map_err(driver_error)
    }
}

#[async_trait]
impl LedgerRetention for MongoLedger {
    async fn add_to_summary(&self, partition: Partition, from: Offset, expired: Summary) -> Result<bool, StoreError> {
        self.summaries.add(partition, from, expired).await
    }

    async fn compact_summary(&self, partition: Partition) -> Result<(), StoreError> {
        self.summaries.compact(partition).await
    }

    async fn clean_summary(&self, partition: Partition) -> Result<(), StoreError> {
        self.summaries.delete_stale_parts(partition).await
    }

    async fn purge_expired(
        &self,
        partition: Partition,
        votes: Vec<(BallotKey, Offset)>,
        max_duplicates: usize,
    ) -> Result<Purged, StoreError> {
        // To MongoDB, a limit of 0 is no limit.
        let max_duplicates = max_duplicates.clamp(1, MAX_PURGED);
        let Checkpoint { cut_off, .. } = self.checkpoint(partition).await?;
        let duplicates = with_timeout(STORE, self.first_duplicates(partition, cut_off, max_duplicates)).await?;
        let keys = votes.iter().map(|(key, _)| key).chain(duplicates.iter().map(|duplicate| &duplicate.key));
        let keys: BTreeSet<&str> = keys.map(BallotKey::as_str).collect();
        let mut deleted = 0;
        for keys in keys.into_iter().collect::<Vec<_>>().chunks(MAX_PURGED) {
            deleted += with_timeout(STORE, self.delete_votes(partition, keys, cut_off)).await?;
        }
        with_timeout(STORE, self.delete_duplicates(&duplicates)).await?;
        Ok(Purged { votes: deleted, is_done: duplicates.len() < max_duplicates })
    }

    /// Returns the uncompressed size of all documents in the database.
    async fn size(&self) -> Result<u64, StoreError> {
        with_timeout(STORE, async {
            let stats = self.database.run_command(doc! { "dbStats": 1 }).await.map_err(driver_error)?;
            // Use the size of the documents: files and indexes don't shrink when documents are deleted.
            Ok(u64::try_from(reply_number(&stats, "dataSize")?).unwrap_or(0))
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
