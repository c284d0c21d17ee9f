//! The algorithm that counts each vote exactly once.
//!
//! No transaction spans the vote log, the ledger and the tallies. So the ledger and the tallies each have a position in
//! every partition: **B** in the ledger and **T** in the tallies. A position is the first offset that the store does not
//! have yet. Ranges are half-open.
//!
//! Several records can have the same ballot key. The first of these records on the log is the **original**, which
//! counts. The others are **duplicates**, which don't count.
//!
//! A batch `[from, to)` of a partition is counted in six steps:
//!
//! 1. **Reconcile** ([`Counter::reconcile`]) when the partition is assigned, when a later step fails, and when a later
//!    step finds a store at another position than expected.
//!    - First, in every case, verify that the log is the log that was counted. Other consumers may count at the same
//!      time. So the positions are read first, and the state of the log second.
//!    - If `T < B`, add the ledger's votes in `[T, B)` to the tallies. In this way the tallies catch up after a crash,
//!      and a wiped or rolled-back Redis is rebuilt.
//!    - If `B < T`, the ledger was restored from a backup. Nothing is repaired here: steps 2 to 6 replay the log from B
//!      on into the ledger, and step 6 does not add the votes below T again.
//! 2. **Deduplicate**: of all votes of the batch with the same ballot key, only the one with the lowest offset is a
//!    candidate.
//! 3. **Insert**: the candidates are inserted into the ledger under their ballot keys, with their positions on the log.
//! 4. **Compare**: for each key that the ledger had already, the stored position is read. A vote counts if and only if
//!    the stored position is the position of the vote. A known key alone decides nothing: after a crash, the stored
//!    vote can be the candidate itself. The votes that don't count are recorded as duplicates.
//! 5. **Checkpoint**: B is raised to `to`, and never lowered. If B is below `from`, the ledger has a hole, and the
//!    consumer continues with step 1.
//! 6. **Add**: in one step, if `T == from`, the counts are added to the tallies and T becomes `to`. Otherwise the
//!    addition is fenced: nothing changes, and the consumer continues with step 1.
//!
//! | failure | effect |
//! |---|---|
//! | crash before step 6 | the batch is replayed, or added from the ledger; step 4 recognises recorded votes as their own |
//! | the reply of step 6 is lost | if the addition is repeated, it is fenced, because T is already `to` |
//! | a zombie consumer continues | its inserts change nothing, its checkpoint never lowers B, its addition is fenced |
//! | the tallies are rolled back or wiped | T is rolled back with the counts, so step 1 adds exactly the missing votes |
//! | the ledger is restored | step 1 replays the log into it; the consumers must be stopped during the restore |

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crate::{
    counts::Counts,
    ids::{LogPosition, Offset, Partition, VoteId},
    ports::{
        Added, Advanced, Batch, Bounds, Checkpoint, ClearCondition, Duplicate, Ledger, StoreError, Summary, Tallies,
        TalliesPosition,
    },
    vote::LoggedVote,
};

/// The maximum number of votes that are read from the ledger and added to the tallies at a time.
pub(crate) const MAX_VOTES_PER_FOLD: usize = 1_000;

/// Counts batches of votes. The counter makes every decision; the stores only execute single steps.
#[derive(Clone)]
pub struct Counter {
    ledger: Arc<dyn Ledger>,
    tallies: Arc<dyn Tallies>,
}

/// How far each store has counted a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorePositions {
    /// The ledger's position B. Its last vote below B identifies the log.
    pub checkpoint: Checkpoint,
    /// The tallies' position T. Their last vote below T identifies the log, too: several systems may use the same
    /// tallies by mistake.
    pub tallies: TalliesPosition,
}

impl StorePositions {
    /// Returns how many records the tallies must count again, if the tallies lost data. After a crash of a consumer, the
    /// tallies are behind the ledger by a few batches, which is no loss.
    pub fn records_to_recount(&self) -> Option<u64> {
        let behind = self.checkpoint.offset.0.saturating_sub(self.tallies.offset.0);
        (behind > MAX_VOTES_PER_FOLD as u64).then_some(behind)
    }

    /// Returns the offsets of the stores' last votes that a log with these bounds must have. The caller reads the log at
    /// these offsets, each of them once.
    pub fn offsets_to_verify(&self, bounds: Bounds) -> BTreeSet<Offset> {
        let offsets = self.last_votes().into_iter().map(|(_, offset, _)| offset);
        offsets.filter(|offset| (bounds.start..bounds.end).contains(offset)).collect()
    }

    /// Returns the last vote of each store that has one, with the name of the store.
    fn last_votes(&self) -> Vec<(&'static str, Offset, VoteId)> {
        let stores = [("ledger", self.checkpoint.last), ("tallies", self.tallies.last)];
        stores.into_iter().filter_map(|(store, last)| last.map(|(offset, id)| (store, offset, id))).collect()
    }
}

/// The state of a partition's log, for [`Counter::reconcile`]. Read it after the [`StorePositions`].
#[derive(Clone, Debug)]
pub struct LogState {
    /// The offsets that the log has.
    pub bounds: Bounds,
    /// The votes that the log has at the offsets of [`StorePositions::offsets_to_verify`]. An offset is absent if its
    /// record is not a vote.
    pub votes: BTreeMap<Offset, VoteId>,
}

/// How far a consumer has counted a partition. The next batch begins at B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The ledger's position B.
    pub recorded: Offset,
    /// The tallies' position T. After reconciling, T is never below B.
    pub tallied: Offset,
    /// The offset below which votes have expired from the ledger.
    pub cut_off: Offset,
}

/// The result of counting a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Counted {
    /// The batch is counted.
    Done {
        /// The cursor after the batch.
        cursor: Cursor,
        /// The votes of the batch that count.
        votes: CountedVotes,
        /// The number of votes of the batch that are duplicates.
        duplicates: u64,
    },
    /// A store is at another position than the cursor: another consumer was faster, or a store was rolled back. No vote
    /// was counted twice. Reconcile, and continue from the new cursor.
    PositionsChanged,
}

/// The votes of a batch that count.
#[derive(Clone, Debug, PartialEq)]
pub struct CountedVotes {
    candidates: Arc<[LoggedVote]>,
    /// Whether the candidate with the same index counts.
    is_counted: Vec<bool>,
}

impl CountedVotes {
    /// Returns the votes in the order of their offsets.
    pub fn iter(&self) -> impl Iterator<Item = &LoggedVote> {
        self.candidates.iter().zip(&self.is_counted).filter(|(_, is_counted)| **is_counted).map(|(logged, _)| logged)
    }

    /// Returns the number of votes.
    pub fn count(&self) -> u64 {
        self.is_counted.iter().filter(|is_counted| **is_counted).count() as u64
    }
}

/// Why a partition must not be counted further until an operator has repaired it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartitionHalt {
    /// The log deleted votes before they were recorded in the ledger.
    #[error(
        "partition {partition}: the log begins at offset {start}, but the ledger only has the offsets below {recorded}; \
         the {} records [{recorded}, {start}) were deleted before they were counted. Restore the log. To accept the loss \
         instead, stop the consumers and run `ovation replay ledger --partition {partition} --from {start}`",
        .start.0.saturating_sub(.recorded.0)
    )]
    Lost {
        /// The partition.
        partition: Partition,
        /// The ledger's position B.
        recorded: Offset,
        /// The first offset of the log.
        start: Offset,
    },
    /// A store has counted more than the log has.
    #[error(
        "partition {partition}: the position in the {store} is {position}, but the log ends at {end}; this is not the log \
         that was counted. Correct the URL of the log. If the topic was deleted and created again, keep this ledger as the \
         record of the old votes, and count the new topic with an empty ledger and empty tallies"
    )]
    BeyondEnd {
        /// The partition.
        partition: Partition,
        /// `ledger` or `tallies`.
        store: &'static str,
        /// The position of this store: B or T.
        position: Offset,
        /// The offset after the last record of the log.
        end: Offset,
    },
    /// The log has another record at the offset of the last vote of a store.
    #[error(
        "partition {partition}: the last vote in the {store}, {expected}, is not on the log at offset {offset}; this is not \
         the log that was counted. Correct the URL of the log. If the topic was deleted and created again, keep this ledger \
         as the record of the old votes, and count the new topic with an empty ledger and empty tallies. If another system \
         counts into the same {store}, give each system its own"
    )]
    OtherLog {
        /// The partition.
        partition: Partition,
        /// `ledger` or `tallies`.
        store: &'static str,
        /// The offset of the vote in this store.
        offset: Offset,
        /// The vote's id in this store.
        expected: VoteId,
    },
}

impl Counter {
    /// Creates a counter that uses these stores.
    pub fn new(ledger: Arc<dyn Ledger>, tallies: Arc<dyn Tallies>) -> Self {
        Self { ledger, tallies }
    }

    /// Reads the positions of both stores. [`reconcile`](Self::reconcile) needs positions that were read before the
    /// state of the log.
    pub async fn positions(&self, partition: Partition) -> Result<StorePositions, StoreError> {
        let checkpoint = self.ledger.checkpoint(partition).await?;
        Ok(StorePositions { checkpoint, tallies: self.tallies.position(partition).await? })
    }

    /// Returns whether the stores are still at this cursor.
    pub async fn is_at(&self, partition: Partition, cursor: Cursor) -> Result<bool, StoreError> {
        let StorePositions { checkpoint, tallies } = self.positions(partition).await?;
        Ok(Cursor { recorded: checkpoint.offset, tallied: tallies.offset, cut_off: checkpoint.cut_off } == cursor)
    }

    /// Executes step 1. Call this when a partition is assigned, after [`Counted::PositionsChanged`] and after any error. Then
    /// seek the log reader to the cursor's `recorded`.
    ///
    /// The caller reads `earlier_positions` before it reads `log`. This function reads the positions again. Other
    /// consumers may count between these reads, so the positions may have risen. Two facts are certain about the log that
    /// was counted:
    /// - It ends at or after the earlier positions, because votes are on the log before they are counted.
    /// - It begins at or before the new B, unless votes were deleted before they were counted.
    ///
    /// # Errors
    /// The outer error is an error of a store. The inner error halts the partition.
    pub async fn reconcile(
        &self,
        partition: Partition,
        earlier_positions: StorePositions,
        log: LogState,
    ) -> Result<Result<Cursor, PartitionHalt>, StoreError> {
        let StorePositions { checkpoint, tallies } = self.positions(partition).await?;
        let Checkpoint { offset: recorded, cut_off, .. } = checkpoint;
        let mut tallied = tallies.offset;
        if let Err(halt) = verify_log(partition, earlier_positions, recorded, &log) {
            return Ok(Err(halt));
        }
        if (StorePositions { checkpoint, tallies }).records_to_recount().is_some() {
            self.tallies.announce_recount(partition, recorded).await?;
        }
        while tallied < recorded {
            tallied = self.fold_chunk(partition, tallied, recorded).await?;
        }
        Ok(Ok(Cursor { recorded, tallied, cut_off }))
    }

    /// Adds one chunk of the ledger's votes in `[from, to)` to the tallies. Returns the new T.
    async fn fold_chunk(&self, partition: Partition, from: Offset, to: Offset) -> Result<Offset, StoreError> {
        let votes = self.ledger.range(partition, from, to, MAX_VOTES_PER_FOLD).await?;
        // The cut-off only rises. If it is at or below `from` now, it was so when the votes were read, and no vote had
        // expired from the range.
        let Checkpoint { cut_off, .. } = self.ledger.checkpoint(partition).await?;
        if from < cut_off {
            return self.fold_summary(partition, from).await;
        }
        let end = match votes.last() {
            Some(last) if votes.len() == MAX_VOTES_PER_FOLD => last.position.offset.next(),
            _ => to,
        };
        let last = votes.last().map(|logged| (logged.position.offset, logged.vote.vote_id));
        let to = TalliesPosition { offset: end, last };
        match self.tallies.add(partition, from, to, Counts::of(&votes)).await? {
            Added::Added => Ok(end),
            Added::Fenced(position) => Ok(position),
        }
    }

    /// Brings tallies whose T, `from`, is below the cut-off nearer to the cut-off. If T is 0, adds the summary.
    /// Otherwise clears the tallies of all partitions, unless T is no longer `from`: then another partition has cleared
    /// them. Returns the new T.
    async fn fold_summary(&self, partition: Partition, from: Offset) -> Result<Offset, StoreError> {
        if from > Offset(0) {
            // The tallies already contain a part of the summary. That part can't be subtracted, so start again from
            // empty tallies.
            let is_cleared = self.tallies.clear(ClearCondition::IfAt(partition, from)).await?;
            return if is_cleared { Ok(Offset(0)) } else { Ok(self.tallies.position(partition).await?.offset) };
        }
        let Summary { cut_off, counts, .. } = self.ledger.summary(partition).await?;
        // The ids of the expired votes are not known, so the position gets no last vote.
        match self.tallies.add(partition, Offset(0), cut_off.into(), counts).await? {
            Added::Added => Ok(cut_off),
            Added::Fenced(position) => Ok(position),
        }
    }

    /// Executes steps 2 to 6. Send the batch's invalid records to the dead letters before this call.
    ///
    /// # Errors
    /// An error of a store. It is unknown which steps took effect, so the caller must reconcile.
    pub async fn count(&self, cursor: Cursor, batch: Batch) -> Result<Counted, StoreError> {
        let Batch { partition, from, to, records } = batch;
        let votes: Vec<LoggedVote> = records
            .into_iter()
            .filter_map(|record| {
                let position = LogPosition { partition, offset: record.offset };
                record.vote.ok().map(|vote| LoggedVote { position, vote })
            })
            .collect();
        let last = votes.last().map(|logged| (logged.position.offset, logged.vote.vote_id));
        let votes_in_batch = votes.len() as u64;
        let (candidates, batch_duplicates) = deduplicate(votes);
        let candidates: Arc<[LoggedVote]> = candidates.into();
        let Some(original_positions) = self.insert_and_compare(&candidates).await? else {
            return Ok(Counted::PositionsChanged);
        };
        let is_counted: Vec<bool> =
            candidates.iter().zip(&original_positions).map(|(logged, original)| logged.position == *original).collect();
        let duplicates_to_record = list_duplicates(&candidates, &original_positions, batch_duplicates);
        if !duplicates_to_record.is_empty() && !self.ledger.record_duplicates(duplicates_to_record).await? {
            // An original has expired and was deleted since its position was read.
            return Ok(Counted::PositionsChanged);
        }

        let cut_off = cursor.cut_off;
        match self.ledger.advance_checkpoint(partition, from, Checkpoint { offset: to, last, cut_off }).await? {
            Advanced::Done => {}
            Advanced::Hole(_) | Advanced::CutOffMoved(_) => return Ok(Counted::PositionsChanged),
        }

        let votes = CountedVotes { candidates, is_counted };
        let mut tallied = cursor.tallied;
        if tallied < to {
            let counts = Counts::of(votes.iter().filter(|logged| logged.position.offset >= tallied));
            let to = TalliesPosition { offset: to, last };
            match self.tallies.add(partition, tallied.max(from), to, counts).await? {
                Added::Added => tallied = to.offset,
                Added::Fenced(_) => return Ok(Counted::PositionsChanged),
            }
        }
        let duplicates = votes_in_batch - votes.count();
        Ok(Counted::Done { cursor: Cursor { recorded: to, tallied, cut_off }, votes, duplicates })
    }

    /// Executes steps 3 and 4: inserts the candidates, and reads the stored position of each known ballot. Returns the
    /// position of the original of each candidate's ballot. A candidate counts if this position is its own. Returns
    /// `None` if the ledger reported a ballot as known, and then did not have the ballot.
    async fn insert_and_compare(&self, candidates: &Arc<[LoggedVote]>) -> Result<Option<Vec<LogPosition>>, StoreError> {
        let mut original_positions: Vec<LogPosition> = candidates.iter().map(|logged| logged.position).collect();
        if candidates.is_empty() {
            return Ok(Some(original_positions));
        }
        let known = self.ledger.insert(Arc::clone(candidates)).await?;
        if known.is_empty() {
            return Ok(Some(original_positions));
        }
        let keys = known.iter().map(|&index| candidates[index].vote.key.clone()).collect();
        for (&index, stored) in known.iter().zip(self.ledger.positions_of(keys).await?) {
            let Some(stored) = stored else { return Ok(None) };
            original_positions[index] = stored;
        }
        Ok(Some(original_positions))
    }
}

/// Verifies that the log is the log that was counted, and that the log has every record that is not counted yet.
/// `recorded` is the B that was read after the state of the log.
fn verify_log(
    partition: Partition,
    earlier_positions: StorePositions,
    recorded: Offset,
    log: &LogState,
) -> Result<(), PartitionHalt> {
    let Bounds { start, end } = log.bounds;
    for (store, position) in
        [("ledger", earlier_positions.checkpoint.offset), ("tallies", earlier_positions.tallies.offset)]
    {
        if position > end {
            return Err(PartitionHalt::BeyondEnd { partition, store, position, end });
        }
    }
    if recorded < start {
        return Err(PartitionHalt::Lost { partition, recorded, start });
    }
    // The log deletes its oldest records, so a last vote may be gone.
    let is_other = |(_, offset, id): &(_, Offset, VoteId)| *offset >= start && log.votes.get(offset) != Some(id);
    match earlier_positions.last_votes().into_iter().find(is_other) {
        Some((store, offset, expected)) => Err(PartitionHalt::OtherLog { partition, store, offset, expected }),
        None => Ok(()),
    }
}

/// A vote that repeats a ballot of the same batch: its position, and the index of the candidate with the same key.
type BatchDuplicate = (LogPosition, usize);

/// Executes step 2. Returns the candidates, and the votes that repeat the ballot of a candidate.
fn deduplicate(votes: Vec<LoggedVote>) -> (Vec<LoggedVote>, Vec<BatchDuplicate>) {
    // For each vote, the index of the candidate with its key.
    let candidate_of: Vec<usize> = {
        let mut index_of_key = HashMap::with_capacity(votes.len());
        votes
            .iter()
            .map(|logged| {
                let next = index_of_key.len();
                *index_of_key.entry(&logged.vote.key).or_insert(next)
            })
            .collect()
    };
    let (mut candidates, mut batch_duplicates) = (Vec::with_capacity(votes.len()), Vec::new());
    for (logged, candidate) in votes.into_iter().zip(candidate_of) {
        if candidate == candidates.len() {
            candidates.push(logged);
        } else {
            batch_duplicates.push((logged.position, candidate));
        }
    }
    (candidates, batch_duplicates)
}

/// Returns the votes of a batch that don't count. `original_positions` has the position of the original of each candidate's
/// ballot.
fn list_duplicates(
    candidates: &[LoggedVote],
    original_positions: &[LogPosition],
    batch_duplicates: Vec<BatchDuplicate>,
) -> Vec<Duplicate> {
    let of_candidates = candidates.iter().enumerate().map(|(candidate, logged)| (logged.position, candidate));
    let records = of_candidates.chain(batch_duplicates);
    let duplicates = records.filter(|(position, candidate)| *position != original_positions[*candidate]);
    duplicates
        .map(|(position, candidate)| {
            let (key, original) = (candidates[candidate].vote.key.clone(), original_positions[candidate].offset);
            Duplicate { position, key, original }
        })
        .collect()
}
