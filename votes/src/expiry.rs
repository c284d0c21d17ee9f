//! This module deletes old votes from the ledger while counting stays exact.
//!
//! Votes in the ledger [expire](Expiry::step). Each partition has a **cut-off**: the votes below the cut-off are counted
//! in the partition's summary, and then deleted. One step moves the cut-off and adds to the summary.
//! From this step on, the summary counts these votes, and their documents in the ledger are not counted again. Until a
//! document is deleted, it is used only to recognise duplicates. So a crash before the deletion changes nothing.
//!
//! If T of a partition is 0, the partition's summary is added to the tallies, and then its documents at or after the
//! cut-off. If T is between 0 and the cut-off (the tallies were rolled back), the missing votes can't be found. So the
//! tallies of all partitions are cleared, and rebuilt from T = 0.
//!
//! # Bounded steps
//!
//! A step reads, adds and deletes at most as many votes as its caller wants, and is durable. So counting continues after each
//! step, a task can stop between two steps, and a crash repeats at most one step.
//!
//! # Which votes may expire
//!
//! A duplicate of a vote is recognised as long as the vote is in the ledger. The time within which this is so is measured
//! on the log, and not by the clock: [`log_time`] is the time of the next vote that is to be counted. If a consumer was
//! stopped for a day, the votes that it reads then were accepted a day ago, and so was the duplicate that follows on
//! the log two seconds after its original. Measured by the clock, the original would expire before the duplicate is read,
//! and the duplicate would count.
//!
//! The times of votes on the log are not exact. [`LOG_TIME_ERROR`] allows for clocks that differ, and for votes that a
//! producer stamped before it published them. So a retention is always longer by this time.
//!
//! # Duplicates of expired votes
//!
//! If a batch is counted again, after a crash or by another consumer, the decision for each record must be the same as
//! the first time. But if the original of a ballot was deleted in between, the ledger could not recognise the duplicate
//! in the batch. So the ledger also stores the duplicates of each batch, each with its position, and two rules retain
//! the originals that such a batch still needs:
//!
//! - An original has the offset of its last recorded duplicate. It is not deleted as long as this offset is at or after
//!   the cut-off. The offset is in the vote's own document, so a vote is either marked first, and then not deleted, or
//!   deleted first, and then [`record_duplicates`](crate::Ledger::record_duplicates) finds that it is gone.
//! - A batch's duplicates are stored first, and B is raised after that. B is raised only if the cut-off has not moved
//!   since the consumer looked up the duplicates. If the cut-off has moved, the consumer reconciles and looks up the
//!   duplicates again.
//!
//! A duplicate that arrives after its original was deleted counts as a new vote. So in a contest with one vote per voter,
//! `Contest::can_expire` allows only a retention that is at least as long as the contest is open: then no vote expires
//! before the contest has closed. In the other contests, the retention
//! must be longer than the time during which a client may send a vote again.

use std::{sync::Arc, time::Duration};

use crate::{
    counter::{Counter, Cursor, StorePositions},
    counts::Counts,
    ids::{Offset, Partition, UnixMillis},
    ports::{LedgerRetention, StoreError, Summary, Tallies},
    vote::LoggedVote,
};

/// The longest time by which the clock of a producer or a consumer may be wrong.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(1);

/// The longest time from a vote's `accepted_at` until the vote is on the log.
const MAX_DELIVERY_TIME: Duration = Duration::from_secs(3);

/// The longest time by which a vote may be older than an earlier vote of its partition, or than the [`log_time`] at
/// which it was not on the log yet: twice the error of a clock, and the time of a delivery.
pub const LOG_TIME_ERROR: Duration = Duration::from_secs(2 * MAX_CLOCK_ERROR.as_secs() + MAX_DELIVERY_TIME.as_secs());

/// Returns up to when a partition is counted: the time of the next vote that is to be counted, but at most `now`. If the
/// partition is counted to its end, there is no next vote. The caller reads the clock before it reads the end of the log.
pub fn log_time(now: UnixMillis, next: Option<UnixMillis>) -> UnixMillis {
    next.map_or(now, |next| next.min(now))
}

/// Up to where the caller wants votes to expire. The cut-off of a partition moves at most to this limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// Votes below this offset expire.
    At(Offset),
    /// Votes below the first vote that was accepted at or after this time expire.
    Time(UnixMillis),
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryStep {
    /// The cursor after the step.
    pub cursor: Cursor,
    /// The number of votes that expired.
    pub votes: u64,
    /// The votes below this offset that can be deleted have been deleted.
    pub purged_to: Offset,
    /// Whether no vote up to the limit is left to expire, and no expired vote is left to delete.
    pub is_done: bool,
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

    /// Expires at most `max_votes` of the partition's counted votes below `until`, and deletes at most as many duplicates.
    /// `cursor` is where the caller believes the partition to be, and `log_time` is the partition's [`log_time`]. The first call for
    /// a partition has the `purged_to` 0, a later call that of the call before. Call this only between two batches of
    /// the partition.
    ///
    /// If votes between `purged_to` and the cut-off were not deleted, a step only deletes them: a process may have moved the
    /// cut-off and ended before it deleted the votes. Without `until`, the steps do no more than that.
    ///
    /// Returns `None` if a store is at another position than `cursor`. The caller must then reconcile.
    ///
    /// # Errors
    /// An error of a store. It is unknown which parts of the step took effect, so the caller must reconcile.
    pub async fn step(
        &self,
        partition: Partition,
        cursor: Cursor,
        until: Option<CutOff>,
        log_time: UnixMillis,
        purged_to: Offset,
        max_votes: usize,
    ) -> Result<Option<ExpiryStep>, StoreError> {
        let StorePositions { checkpoint, tallies } = self.counter.positions(partition).await?;
        let now = Cursor { recorded: checkpoint.offset, tallied: tallies.offset, cut_off: checkpoint.cut_off };
        if now != cursor {
            return Ok(None);
        }
        if purged_to == Offset(0) {
            self.ledger.clean_summary(partition).await?;
        }
        if purged_to < cursor.cut_off {
            let found = self.ledger.range(partition, purged_to, cursor.cut_off, max_votes).await?;
            let is_last = found.len() < max_votes;
            let purged_to =
                found.last().filter(|_| !is_last).map_or(cursor.cut_off, |last| last.position.offset.next());
            let is_purged = self.purge(partition, &found, max_votes).await? && is_last;
            return Ok(Some(ExpiryStep { cursor, votes: 0, purged_to, is_done: is_purged && until.is_none() }));
        }
        let Some(until) = until else {
            let is_done = self.purge(partition, &[], max_votes).await?;
            return Ok(Some(ExpiryStep { cursor, votes: 0, purged_to, is_done }));
        };
        let Expiring { cut_off, votes, is_last } = self.read_expiring(partition, cursor, until, max_votes).await?;
        if cut_off > cursor.cut_off {
            let expired = summary(cut_off, &votes, log_time);
            if !self.ledger.add_to_summary(partition, cursor.cut_off, expired).await? {
                return Ok(None);
            }
        }
        let is_purged = self.purge(partition, &votes, max_votes).await?;
        let (cursor, votes) = (Cursor { cut_off, ..cursor }, votes.len() as u64);
        Ok(Some(ExpiryStep { cursor, votes, purged_to: cut_off, is_done: is_last && is_purged }))
    }

    /// Deletes expired votes, and duplicates that have expired. Returns whether no duplicate is left to delete.
    async fn purge(&self, partition: Partition, votes: &[LoggedVote], max_votes: usize) -> Result<bool, StoreError> {
        let votes = votes.iter().map(|logged| (logged.vote.key.clone(), logged.position.offset)).collect();
        Ok(self.ledger.purge_expired(partition, votes, max_votes).await?.is_done)
    }

    /// Reads the first votes at or after the cut-off that have to expire.
    async fn read_expiring(
        &self,
        partition: Partition,
        Cursor { recorded, tallied, cut_off: from }: Cursor,
        until: CutOff,
        max_votes: usize,
    ) -> Result<Expiring, StoreError> {
        let counted = recorded.min(tallied);
        let (limit, time) = match until {
            CutOff::At(offset) => (counted.min(offset), None),
            CutOff::Time(time) => (counted, Some(time)),
        };
        if limit <= from {
            return Ok(Expiring { cut_off: from, votes: Vec::new(), is_last: true });
        }
        let mut votes = self.ledger.range(partition, from, limit, max_votes).await?;
        let first_retained = time.and_then(|time| votes.iter().position(|logged| logged.vote.accepted_at >= time));
        let (cut_off, is_last) = match (first_retained, votes.last()) {
            (Some(index), _) => (votes[index].position.offset, true),
            (None, Some(last)) if votes.len() == max_votes => (last.position.offset.next(), false),
            _ => (limit, true),
        };
        votes.truncate(first_retained.unwrap_or(votes.len()));
        Ok(Expiring { cut_off, votes, is_last })
    }
}

/// The votes that expire in a step.
struct Expiring {
    /// The new cut-off.
    cut_off: Offset,
    votes: Vec<LoggedVote>,
    /// Whether no further vote has to expire.
    is_last: bool,
}

/// Returns what votes add to a summary that expire at a time of the log.
fn summary(cut_off: Offset, votes: &[LoggedVote], log_time: UnixMillis) -> Summary {
    let mut counts = Counts::of(votes);
    // A summary does not store the windows that have a retention of their own (10 ms and 1 s).
    counts.drop_expiring_windows();
    let latest = votes.iter().map(|logged| logged.vote.accepted_at).max();
    let youngest_expired = latest.map(|latest| log_time.before(LOG_TIME_ERROR).since(latest));
    Summary { cut_off, counts, youngest_expired }
}
