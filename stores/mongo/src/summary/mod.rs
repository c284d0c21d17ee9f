//! The summaries of expired votes.
//!
//! A summary may be larger than the limit of a document, so it is stored in parts. Votes expire in many small steps, and
//! a step must not rewrite the counts of the whole history. So each step adds a **generation**: parts that have only
//! the counts of the votes that expire in this step. The summary of a partition is the sum of its generations.
//!
//! The checkpoint of the partition lists the generations, and it has the cut-off. So one update of one document changes
//! both. The parts of a generation are written before the generation is listed, and deleted after it is no longer
//! listed. Parts of other generations are ignored. The list has the number of parts of each generation, and parts never
//! change. So if all listed parts were read, no part was deleted meanwhile, and their sum is the summary at the cut-off
//! that was read with the list.
//!
//! [Compaction](Summaries::compact) merges the newest generations into one with the same counts, so that the list stays
//! short.
//!
//! # Stale parts
//!
//! A process may end after it has written parts, and before their generation is listed. The parts are then stale. But
//! they look like the parts of a process that is about to list them. The field `summary_fence` of the checkpoint
//! distinguishes the two:
//!
//! - A writer reads the fence before it writes parts, and each part has this fence. The writer lists the generation only
//!   if the checkpoint still has the same fence.
//! - [Deletion](Summaries::delete_stale_parts) raises the fence first. Then it reads the fence and the list together,
//!   and deletes the parts that have a lower fence and whose generation is not in this list.
//!
//! This is safe: the fence is never lowered, so a writer that has read a lower fence can't list its generation any more.
//! If its generation is not in the list by then, it will never be. A writer that was only slow finds another fence,
//! deletes its own parts, and its caller tries again.

mod merging;
mod parts;

use mongodb::{
    Collection,
    bson::{Document, RawDocumentBuf, doc},
};
use uuid::Uuid;
use votes::{Counts, Offset, Partition, StoreError, Summary};

use crate::{
    call::{STORE, driver_error, failed, with_timeout},
    checkpoints::{self, MAX_ATTEMPTS, number_filter},
    document::{Generation, StoredCheckpoint, int64},
};
use merging::{first_to_merge, replaced};
use parts::{add_part, part_documents};

/// The maximum number of parts that one command inserts. With the longest names they have about 100 MB, and then the
/// driver sends several commands.
const MAX_INSERTED_PARTS: usize = 100;

/// The summaries of all partitions. A summary may be large, so each call of the driver has its own time-out.
pub(super) struct Summaries {
    checkpoints: Collection<RawDocumentBuf>,
    parts: Collection<RawDocumentBuf>,
}

impl Summaries {
    pub(super) fn new(checkpoints: Collection<RawDocumentBuf>, parts: Collection<RawDocumentBuf>) -> Self {
        Self { checkpoints, parts }
    }

    /// Reads the summary of a partition.
    pub(super) async fn read(&self, partition: Partition) -> Result<Summary, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let stored = self.checkpoint(partition).await?.unwrap_or_default();
            if let Some(counts) = self.read_parts(partition, &stored.generations).await? {
                let StoredCheckpoint { checkpoint, youngest_expired, .. } = stored;
                return Ok(Summary { cut_off: checkpoint.cut_off, counts, youngest_expired });
            }
        }
        Err(failed(format!(
            "parts of the summary of partition {partition} are missing, or were merged {MAX_ATTEMPTS} times meanwhile"
        )))
    }

    /// Adds the counts of votes that expire, and raises the cut-off, if the cut-off is `from`. Returns whether it did.
    pub(super) async fn add(&self, partition: Partition, from: Offset, expired: Summary) -> Result<bool, StoreError> {
        let stored = self.checkpoint(partition).await?;
        let is_first = stored.is_none();
        let StoredCheckpoint { checkpoint, summary_fence: fence, .. } = stored.unwrap_or_default();
        if checkpoint.cut_off != from {
            return Ok(false);
        }
        let Summary { cut_off, counts, youngest_expired } = expired;
        let added = self.write_parts(partition, fence, &counts).await?;
        let cut_off = int64(cut_off);
        let youngest_ms = youngest_expired.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let is_added = if is_first {
            let mut fields = doc! { "offset": 0_i64, "cut_off": cut_off, "summary_version": 1_i64 };
            if let Some(generation) = &added {
                fields.insert("summary", vec![generation.document()]);
            }
            if let Some(age) = youngest_ms {
                fields.insert("youngest_expired_ms", age);
            }
            with_timeout(STORE, checkpoints::insert_first(&self.checkpoints, partition, fields)).await?
        } else {
            let mut update = doc! { "$set": { "cut_off": cut_off }, "$inc": { "summary_version": 1_i64 } };
            if let Some(generation) = &added {
                update.insert("$push", doc! { "summary": generation.document() });
            }
            if let Some(age) = youngest_ms {
                update.insert("$min", doc! { "youngest_expired_ms": age });
            }
            let expected = doc! {
                "_id": partition.to_string(),
                "cut_off": number_filter(int64(from)),
                "summary_fence": number_filter(fence),
            };
            self.update_checkpoint(expected, update).await?
        };
        // After an error, it is unknown whether the generation is listed, so its parts are left.
        if let Some(generation) = added
            && !is_added
        {
            self.discard(partition, generation).await;
        }
        Ok(is_added)
    }

    /// Merges the newest generations of a partition, if there are enough of them.
    pub(super) async fn compact(&self, partition: Partition) -> Result<(), StoreError> {
        let StoredCheckpoint { generations, summary_fence: fence, .. } =
            self.checkpoint(partition).await?.unwrap_or_default();
        let sizes: Vec<u32> = generations.iter().map(|generation| generation.parts).collect();
        let Some(first) = first_to_merge(&sizes) else { return Ok(()) };
        let old = &generations[first..];
        // If parts are missing, another process has merged the generations meanwhile.
        let Some(counts) = self.read_parts(partition, old).await? else { return Ok(()) };
        let Some(new) = self.write_parts(partition, fence, &counts).await? else { return Ok(()) };
        if self.replace(partition, fence, old, &new).await? {
            self.delete_parts(partition, old).await
        } else {
            self.discard(partition, new).await;
            Ok(())
        }
    }

    /// Deletes the parts that processes have left whose generations will never be listed.
    pub(super) async fn delete_stale_parts(&self, partition: Partition) -> Result<(), StoreError> {
        let Some(stored) = self.checkpoint(partition).await? else { return Ok(()) };
        // Raise the fence only if there are such parts: it makes writers try again that are about to list theirs.
        let unlisted = unlisted_parts(partition, &stored.generations);
        let found = with_timeout(STORE, async {
            self.parts.find_one(unlisted).projection(doc! { "_id": 1 }).await.map_err(driver_error)
        });
        if found.await?.is_none() {
            return Ok(());
        }
        let raise = doc! { "$inc": { "summary_fence": 1_i64 } };
        self.update_checkpoint(doc! { "_id": partition.to_string() }, raise).await?;
        // Read the list after the fence was raised: a generation may have been listed just before.
        let Some(stored) = self.checkpoint(partition).await? else { return Ok(()) };
        let mut stale = unlisted_parts(partition, &stored.generations);
        stale.insert("fence", doc! { "$lt": stored.summary_fence });
        with_timeout(STORE, async { self.parts.delete_many(stale).await.map(drop).map_err(driver_error) }).await
    }

    async fn checkpoint(&self, partition: Partition) -> Result<Option<StoredCheckpoint>, StoreError> {
        with_timeout(STORE, checkpoints::read(&self.checkpoints, partition)).await
    }

    /// Updates a checkpoint. Returns `false` if no checkpoint is as expected.
    async fn update_checkpoint(&self, expected: Document, update: Document) -> Result<bool, StoreError> {
        with_timeout(STORE, async {
            let updated = self.checkpoints.update_one(expected, update).await.map_err(driver_error)?;
            Ok(updated.matched_count > 0)
        })
        .await
    }

    /// Reads and adds the counts of generations. Returns `None` if parts are missing.
    async fn read_parts(&self, partition: Partition, generations: &[Generation]) -> Result<Option<Counts>, StoreError> {
        let mut counts = Counts::default();
        if generations.is_empty() {
            return Ok(Some(counts));
        }
        let parts = doc! { "partition": i32::from(partition.0), "generation": { "$in": ids(generations) } };
        let mut cursor = with_timeout(STORE, async { self.parts.find(parts).await.map_err(driver_error) }).await?;
        let mut read = 0;
        while with_timeout(STORE, async { cursor.advance().await.map_err(driver_error) }).await? {
            add_part(&mut counts, cursor.current())?;
            read += 1;
        }
        let listed: u64 = generations.iter().map(|generation| u64::from(generation.parts)).sum();
        Ok((read == listed).then_some(counts))
    }

    /// Writes the parts of a new generation. Returns `None` if there are no counts.
    async fn write_parts(
        &self,
        partition: Partition,
        fence: i64,
        counts: &Counts,
    ) -> Result<Option<Generation>, StoreError> {
        let id = Uuid::now_v7().to_string();
        let documents = part_documents(partition, &id, fence, counts)?;
        for documents in documents.chunks(MAX_INSERTED_PARTS) {
            with_timeout(STORE, async { self.parts.insert_many(documents).await.map(drop).map_err(driver_error) })
                .await?;
        }
        let parts = u32::try_from(documents.len()).map_err(failed)?;
        Ok((parts > 0).then_some(Generation { id, parts }))
    }

    /// Lists `new` in place of the generations `old`, which have the same counts. Returns `false` if another process has
    /// replaced them, or has raised the fence.
    async fn replace(
        &self,
        partition: Partition,
        fence: i64,
        old: &[Generation],
        new: &Generation,
    ) -> Result<bool, StoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let stored = self.checkpoint(partition).await?.unwrap_or_default();
            let Some(list) = replaced(&stored.generations, old, new) else { return Ok(false) };
            if stored.summary_fence != fence {
                return Ok(false);
            }
            let list: Vec<Document> = list.iter().map(Generation::document).collect();
            let expected = doc! {
                "_id": partition.to_string(),
                "summary_version": number_filter(stored.summary_version),
                "summary_fence": number_filter(fence),
            };
            let update = doc! { "$set": { "summary": list }, "$inc": { "summary_version": 1_i64 } };
            if self.update_checkpoint(expected, update).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes the parts of generations that are not listed.
    async fn delete_parts(&self, partition: Partition, generations: &[Generation]) -> Result<(), StoreError> {
        for Generation { id, .. } in generations {
            let parts = doc! { "partition": i32::from(partition.0), "generation": id };
            with_timeout(STORE, async { self.parts.delete_many(parts).await.map(drop).map_err(driver_error) }).await?;
        }
        Ok(())
    }

    /// Deletes the parts of a generation that will not be listed. If this fails, the parts are stale.
    async fn discard(&self, partition: Partition, generation: Generation) {
        let _ = self.delete_parts(partition, &[generation]).await;
    }
}

/// Returns the filter for the partition's parts of generations that are not in the list.
fn unlisted_parts(partition: Partition, listed: &[Generation]) -> Document {
    doc! { "partition": i32::from(partition.0), "generation": { "$nin": ids(listed) } }
}

fn ids(generations: &[Generation]) -> Vec<&str> {
    generations.iter().map(|generation| generation.id.as_str()).collect()
}
