//! This module deletes old votes from the ledger while counting stays exact.
//!
//! Votes in the ledger [expire](Expiry::expire). Each partition has a **cut-off**: the votes below the cut-off are
//! folded into the partition's summary, and then deleted. One step moves the cut-off and replaces the summary.
//! From this step on, the summary counts these votes, and their documents in the ledger are not counted again. Until a
//! document is deleted, it is used only to recognise duplicates. So a crash before the deletion changes nothing.
//!
//! If T of a partition is 0, the partition's summary is added to the tallies, and then its documents at or after the
//! cut-off. If T is between 0 and the cut-off (the tallies were rolled back), the missing votes can't be found. So the
//! tallies of all partitions are cleared, and rebuilt from T = 0.
//!
//! If a batch is counted again, after a crash or by another consumer, the decision for each record must be the same as
//! the first time. But if the original of a ballot was deleted in between, the ledger could not recognise the duplicate
//! in the batch. So the ledger also stores the duplicates of each batch, each with its position, and two rules retain
//! the originals that such a batch still needs:
//!
//! - A vote below the cut-off is not deleted as long as a stored duplicate of the vote has a position at or after the
//!   cut-off.
//! - A batch's duplicates are stored first, and B is raised after that. B is raised only if the cut-off has not moved
//!   since the consumer looked up the duplicates. If the cut-off has moved, the consumer reconciles and looks up the
//!   duplicates again.
//!
//! A duplicate that arrives after its original was deleted counts as a new vote. So in a contest with one vote per voter,
//! `Contest::can_expire` allows only a retention that is at least as long as the contest is open: then no vote expires
//! before the contest has closed. In the other contests, the retention
//! must be longer than the time during which a client may send a vote again.

use std::sync::Arc;

use crate::{
    counter::{Counter, Cursor, MAX_VOTES_PER_FOLD, StorePositions},
    counts::Counts,
    ids::{Offset, Partition, UnixMillis},
    ports::{LedgerRetention, StoreError, Summary, Tallies},
};

/// Up to where the caller wants votes to expire. The cut-off of a partition moves at most to this limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// Votes below this offset expire.
    At(Offset),
    /// Votes below the first vote that was accepted at or after this time expire.
    Time(UnixMillis),
}

/// Expires counted votes from the ledger.
#[derive(Clone)]
pub struct Expiry {
    ledger: Arc<dyn LedgerRetention>,
    counter: Counter,
}

impl Expiry {
    /// Creates an expiry that uses the same stores as a [`Counter`].
    pub fn new(ledger: Arc<dyn LedgerRetention>, tallies: Arc<dyn Tallies>) -> Self {
        let counter = Counter::new(Arc::clone(&ledger) as Arc<dyn crate::ports::Ledger>, tallies);
        Self { ledger, counter }
    }

    /// Expires the partition's counted votes below `until`. `cursor` is where the caller believes the partition to be.
    /// Returns the new cursor, and how many votes expired. Call this only between two batches of the partition.
    ///
    /// Returns `None` if a store is at another position than `cursor`. The caller must then reconcile.
    ///
    /// # Errors
    /// An error of a store. It is unknown which steps took effect, so the caller must reconcile.
    pub async fn expire(
        &self,
        partition: Partition,
        cursor: Cursor,
        until: CutOff,
    ) -> Result<Option<(Cursor, u64)>, StoreError> {
        let StorePositions { checkpoint, tallies } = self.counter.positions(partition).await?;
        let tallied = tallies.offset;
        let Summary { cut_off: from, mut counts } = self.ledger.summary(partition).await?;
        let now = Cursor { recorded: checkpoint.offset, tallied, cut_off: checkpoint.cut_off };
        if now != cursor || from != cursor.cut_off {
            return Ok(None);
        }
        let counted = checkpoint.offset.min(tallied);
        let (limit, time) = match until {
            CutOff::At(offset) => (counted.min(offset), None),
            CutOff::Time(time) => (counted, Some(time)),
        };
        let before = counts.total();
        let (mut to, mut is_done) = (from, false);
        while to < limit && !is_done {
            let mut votes = self.ledger.range(partition, to, limit, MAX_VOTES_PER_FOLD).await?;
            let first_retained = time.and_then(|time| votes.iter().position(|logged| logged.vote.accepted_at >= time));
            let end = match (first_retained, votes.last()) {
                (Some(index), _) => {
                    is_done = true;
                    votes[index].position.offset
                }
                (None, Some(last)) if votes.len() == MAX_VOTES_PER_FOLD => last.position.offset.next(),
                _ => limit,
            };
            votes.truncate(first_retained.unwrap_or(votes.len()));
            counts.merge(Counts::of(&votes));
            // A summary does not store the windows that have a retention of their own (10 ms and 1 s).
            counts.drop_expiring_windows();
            to = end;
        }
        let expired = counts.total() - before;
        if to > from && !self.ledger.put_summary(partition, from, Summary { cut_off: to, counts }).await? {
            return Ok(None);
        }
        // Expired votes are purged even if no vote expired now: a process may have moved the cut-off and ended before
        // the purge.
        self.ledger.purge_expired(partition).await?;
        Ok(Some((Cursor { cut_off: to.max(from), ..cursor }, expired)))
    }
}
