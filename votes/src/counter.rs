//! Counting exactly once.
//!
//! No transaction spans the log, the book and the tallies, so each store carries its own position in a partition:
//! **B** in the book and **T** in the tallies, the first offset not yet in them. Ranges are half-open. One batch
//! `[from, to)` of a partition is counted like this:
//!
//! 1. **Reconcile** ([`Counter::reconcile`]) on assignment and whenever a later step disagrees. Where `T < B`, the book's
//!    range `[T, B)` is folded into the tallies: so they catch up after a crash, and so a wiped or rolled-back Redis
//!    comes back. Where `B < T`, the book was restored from a backup: the log from B on is recorded in the book, and
//!    not tallied below T. The log is asked whether it is still the one that was counted; others may be counting at the same
//!    time, so what it says is compared with positions that can't be newer than it.
//! 2. **Fold**: of several votes with one ballot key in the batch only the lowest offset is a candidate.
//! 3. **Book**: the candidates are inserted under their ballot key, with their place on the log.
//! 4. For every key that was there already, the stored place is read: a vote counts if and only if the stored place is
//!    its own. The duplicate alone decides nothing, since after a crash it is the vote itself that is there.
//!    Those that don't are noted as repeats.
//! 5. **Checkpoint**: B is raised to `to`, never lowered. A B below `from` is a hole: back to 1.
//! 6. **Tallies**: in one step, if `T == from` the counts are added and T becomes `to`; else nothing changes: back to 1.
//!
//! | failure | what happens |
//! |---|---|
//! | crash before 6 | the batch is replayed, or folded from the book; booked votes recognise themselves by their place |
//! | the reply of 6 is lost | the repeat is fenced, T is already `to` |
//! | a zombie consumer wakes | its inserts change nothing, its checkpoint never lowers B, its addition is fenced |
//! | tallies rolled back or wiped | T and counts went back together; step 1 folds the book up to B |
//! | book restored | step 1 replays the log into it; restore with consumers stopped |
//!
//! # Keeping less
//!
//! Votes in the book may [expire](Counter::expire): those below a partition's **cut-off** are folded into its summary, and
//! then deleted. Moving the cut-off and replacing the summary is one step, and documents below the cut-off count no more, so a
//! crash before they are deleted changes nothing. Tallies with `T == 0` get the summary, and then the documents from the
//! cut-off on. Tallies that were rolled back to a T below the cut-off can't be mended from there: they are cleared.
//!
//! A deleted document no longer says that a later record repeats its ballot. So that this is decided once:
//!
//! - a vote stays, though it is summed up, while a repeat at or after the cut-off is noted;
//! - B is raised only where the cut-off is the one from before the batch's repeats were looked up. Whoever raised B noted
//!   its repeats before the cut-off moved, and so before anything was deleted; whoever comes later looks again.
//!
//! A repeat that comes when the vote that stands is gone counts: that is the horizon that a retention has.

use std::{collections::HashMap, sync::Arc};

use crate::{
    Added, Advanced, Batch, Book, Bounds, Checkpoint, Counts, LoggedVote, Offset, Partition, Place, Repeat, StoreError,
    Summary, Tallies, UnixMillis, VoteId,
};

/// How many booked votes are folded into the tallies at a time.
const FOLD_CHUNK: usize = 1_000;

/// Counts batches of votes; it decides, the stores only do.
#[derive(Clone)]
pub struct Counter {
    book: Arc<dyn Book>,
    tallies: Arc<dyn Tallies>,
}

/// What the stores say of how far a partition has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// B, and the record by which the log is recognised.
    pub booked: Checkpoint,
    /// T.
    pub tallied: Offset,
}

/// What the log says of itself, for [`Counter::reconcile`]. Ask it after the [`Positions`].
#[derive(Clone, Copy, Debug)]
pub struct LogFacts {
    /// What the log has.
    pub bounds: Bounds,
    /// The id of the vote at the offset of [`Positions::booked`]'s `last`, if the log still has that record and it is a vote.
    pub last: Option<VoteId>,
}

/// How far a partition has been counted: B and T. The feed continues at B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// B.
    pub booked: Offset,
    /// T, never below B after reconciling.
    pub tallied: Offset,
    /// The book's cut-off.
    pub cut_off: Offset,
}

/// Up to where votes expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// This offset.
    At(Offset),
    /// The first vote that was accepted at or after this time.
    Time(UnixMillis),
}

/// What counting a batch came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Counted {
    /// It is counted, up to this progress.
    Done {
        /// The new progress.
        progress: Progress,
        /// Votes of the batch that stand.
        votes: Standing,
        /// Votes of the batch that are repeats of others.
        duplicates: u64,
    },
    /// A store is elsewhere than this counter thought: another consumer was faster, or a store was rolled back. Nothing was
    /// counted twice; reconcile and go on from there.
    Disagreed,
}

/// The votes of a batch that stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    candidates: Arc<[LoggedVote]>,
    stands: Vec<bool>,
}

impl Standing {
    /// By offset.
    pub fn iter(&self) -> impl Iterator<Item = &LoggedVote> {
        self.candidates.iter().zip(&self.stands).filter(|(_, stands)| **stands).map(|(logged, _)| logged)
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.stands.iter().filter(|stands| **stands).count() as u64
    }
}

/// Why a partition must not be counted further before an operator has looked at it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The log lost votes before they were recorded.
    #[error(
        "partition {partition}: the log begins at offset {start}, but only offsets below {booked} are in the book; \
         the votes [{booked}, {start}) were deleted before they were counted. Restore the log; or accept the loss: \
         stop the consumers and give `ovation replay book --partition {partition} --from {start}`"
    )]
    Lost {
        /// The partition.
        partition: Partition,
        /// B.
        booked: Offset,
        /// The log's start.
        start: Offset,
    },
    /// A store has counted further than the log reaches.
    #[error(
        "partition {partition}: the position in the {store} is {position}, but the log ends at {end}; this is not the log \
         that was counted. Restore that log, or begin with empty stores"
    )]
    BeyondEnd {
        /// The partition.
        partition: Partition,
        /// `book` or `tallies`.
        store: &'static str,
        /// B or T.
        position: Offset,
        /// The log's end.
        end: Offset,
    },
    /// The last recorded vote is not on the log where it was.
    #[error(
        "partition {partition}: the book's last vote {expected} is not on the log at offset {offset}; this is not the log \
         that was counted. Restore that log, or begin with empty stores"
    )]
    OtherLog {
        /// The partition.
        partition: Partition,
        /// Where the vote was.
        offset: Offset,
        /// The vote.
        expected: VoteId,
    },
}

impl Counter {
    /// A counter over two stores.
    pub fn new(book: Arc<dyn Book>, tallies: Arc<dyn Tallies>) -> Self {
        Self { book, tallies }
    }

    /// Where the stores are. [`reconcile`](Self::reconcile) needs it from before the log was asked.
    pub async fn positions(&self, partition: Partition) -> Result<Positions, StoreError> {
        let booked = self.book.checkpoint(partition).await?;
        Ok(Positions { booked, tallied: self.tallies.position(partition).await? })
    }

    /// Whether the stores are where this progress has brought them.
    pub async fn is_at(&self, partition: Partition, progress: Progress) -> Result<bool, StoreError> {
        let Positions { booked, tallied } = self.positions(partition).await?;
        Ok(Progress { booked: booked.offset, tallied, cut_off: booked.cut_off } == progress)
    }

    /// Step 1. Call it when a partition is assigned, after [`Counted::Disagreed`] and after any error, then seek the feed to
    /// the progress' `booked`.
    ///
    /// `before` are the positions from before the log was asked, since others may count meanwhile: of the log that was
    /// counted it is certain that it reaches as far as *those*, and that it begins no later than B does *after*.
    ///
    /// # Errors
    /// Of the stores. The inner error stops the partition.
    pub async fn reconcile(
        &self,
        partition: Partition,
        before: Positions,
        log: LogFacts,
    ) -> Result<Result<Progress, Stop>, StoreError> {
        let Positions { booked: Checkpoint { offset: booked, cut_off, .. }, mut tallied } =
            self.positions(partition).await?;
        if let Err(stop) = recognise(partition, before, booked, log) {
            return Ok(Err(stop));
        }
        while tallied < booked {
            tallied = self.fold_chunk(partition, tallied, booked).await?;
        }
        Ok(Ok(Progress { booked, tallied, cut_off }))
    }

    /// Adds a chunk of the book's `[from, to)` to the tallies and returns T.
    async fn fold_chunk(&self, partition: Partition, from: Offset, to: Offset) -> Result<Offset, StoreError> {
        let votes = self.book.range(partition, from, to, FOLD_CHUNK).await?;
        // After reading: where nothing of this has expired now, nothing was missing then.
        let Checkpoint { cut_off, .. } = self.book.checkpoint(partition).await?;
        if from < cut_off {
            return self.fold_summary(partition, from).await;
        }
        let end = match votes.last() {
            Some(last) if votes.len() == FOLD_CHUNK => last.place.offset.next(),
            _ => to,
        };
        match self.tallies.add(partition, from, end, Counts::of(&votes)).await? {
            Added::Added => Ok(end),
            Added::Fenced(position) => Ok(position),
        }
    }

    /// Brings the tallies from below the cut-off to it, and returns T.
    async fn fold_summary(&self, partition: Partition, from: Offset) -> Result<Offset, StoreError> {
        if from > Offset(0) {
            let position = self.tallies.position(partition).await?;
            if position != from {
                return Ok(position);
            }
            // Part of what the summary has is in the tallies already, and nobody can tell which part.
            self.tallies.clear().await?;
            return Ok(Offset(0));
        }
        let Summary { cut_off, counts } = self.book.summary(partition).await?;
        match self.tallies.add(partition, Offset(0), cut_off, counts).await? {
            Added::Added => Ok(cut_off),
            Added::Fenced(position) => Ok(position),
        }
    }

    /// Lets the partition's votes below `until` expire, as far as they are counted. Call it between batches.
    ///
    /// # Errors
    /// Of the stores; what was done is not known, so reconcile. `None` if the stores are elsewhere than `progress`: reconcile,
    /// too.
    pub async fn expire(
        &self,
        partition: Partition,
        progress: Progress,
        until: CutOff,
    ) -> Result<Option<(Progress, u64)>, StoreError> {
        let Positions { booked, tallied } = self.positions(partition).await?;
        let Summary { cut_off: from, mut counts } = self.book.summary(partition).await?;
        let now = Progress { booked: booked.offset, tallied, cut_off: booked.cut_off };
        if now != progress || from != progress.cut_off {
            return Ok(None);
        }
        let most = booked.offset.min(tallied);
        let (most, time) = match until {
            CutOff::At(offset) => (most.min(offset), None),
            CutOff::Time(time) => (most, Some(time)),
        };
        let before = counts.total();
        let (mut to, mut is_done) = (from, false);
        while to < most && !is_done {
            let mut votes = self.book.range(partition, to, most, FOLD_CHUNK).await?;
            let kept = time.and_then(|time| votes.iter().position(|logged| logged.vote.accepted_at >= time));
            let end = match (kept, votes.last()) {
                (Some(kept), _) => {
                    is_done = true;
                    votes[kept].place.offset
                }
                (None, Some(last)) if votes.len() == FOLD_CHUNK => last.place.offset.next(),
                _ => most,
            };
            votes.truncate(kept.unwrap_or(votes.len()));
            counts.merge(Counts::of(&votes));
            counts.keep_permanent();
            to = end;
        }
        let expired = counts.total() - before;
        if to > from && !self.book.summarise(partition, from, Summary { cut_off: to, counts }).await? {
            return Ok(None);
        }
        // Also where nothing has expired: who was to delete may have died.
        self.book.forget(partition).await?;
        Ok(Some((Progress { cut_off: to.max(from), ..progress }, expired)))
    }

    /// Steps 2 to 6. Records that are no votes have to be buried before.
    ///
    /// # Errors
    /// Of the stores; what was done is not known, so reconcile.
    pub async fn count(&self, progress: Progress, batch: Batch) -> Result<Counted, StoreError> {
        let Batch { partition, from, to, records } = batch;
        let votes: Vec<LoggedVote> = records
            .into_iter()
            .filter_map(|record| {
                let place = Place { partition, offset: record.offset };
                record.vote.ok().map(|vote| LoggedVote { place, vote })
            })
            .collect();
        let last = votes.last().map(|logged| (logged.place.offset, logged.vote.vote_id));
        let cast = votes.len() as u64;
        let (candidates, copies) = first_of_each_ballot(votes);
        let candidates: Arc<[LoggedVote]> = candidates.into();
        let Some(places) = self.book_candidates(&candidates).await? else { return Ok(Counted::Disagreed) };
        let stands: Vec<bool> = candidates.iter().zip(&places).map(|(logged, place)| logged.place == *place).collect();
        let repeats = repeats(&candidates, &places, copies);
        if !repeats.is_empty() {
            self.book.note_repeats(repeats).await?;
        }

        let cut_off = progress.cut_off;
        match self.book.advance(partition, from, Checkpoint { offset: to, last, cut_off }).await? {
            Advanced::Done => {}
            Advanced::Hole(_) | Advanced::Expired(_) => return Ok(Counted::Disagreed),
        }

        let votes = Standing { candidates, stands };
        let mut tallied = progress.tallied;
        if tallied < to {
            let counts = Counts::of(votes.iter().filter(|logged| logged.place.offset >= tallied));
            match self.tallies.add(partition, tallied.max(from), to, counts).await? {
                Added::Added => tallied = to,
                Added::Fenced(_) => return Ok(Counted::Disagreed),
            }
        }
        let duplicates = cast - votes.count();
        Ok(Counted::Done { progress: Progress { booked: to, tallied, cut_off }, votes, duplicates })
    }

    /// Steps 3 and 4: the place of the vote that stands for each candidate's ballot. `None` if a ballot that the book said it
    /// had is not in it.
    async fn book_candidates(&self, candidates: &Arc<[LoggedVote]>) -> Result<Option<Vec<Place>>, StoreError> {
        let mut places: Vec<Place> = candidates.iter().map(|logged| logged.place).collect();
        if candidates.is_empty() {
            return Ok(Some(places));
        }
        let known = self.book.insert(Arc::clone(candidates)).await?;
        if known.is_empty() {
            return Ok(Some(places));
        }
        let keys = known.iter().map(|&index| candidates[index].vote.key.clone()).collect();
        for (&index, stored) in known.iter().zip(self.book.locate(keys).await?) {
            let Some(stored) = stored else { return Ok(None) };
            places[index] = stored;
        }
        Ok(Some(places))
    }
}

/// Whether the log is the one that was counted, and still has all that is to be counted. `booked` is B after the log was
/// asked.
fn recognise(partition: Partition, before: Positions, booked: Offset, log: LogFacts) -> Result<(), Stop> {
    let Bounds { start, end } = log.bounds;
    for (store, position) in [("book", before.booked.offset), ("tallies", before.tallied)] {
        if position > end {
            return Err(Stop::BeyondEnd { partition, store, position, end });
        }
    }
    if booked < start {
        return Err(Stop::Lost { partition, booked, start });
    }
    match before.booked.last {
        Some((offset, expected)) if offset >= start && log.last != Some(expected) => {
            Err(Stop::OtherLog { partition, offset, expected })
        }
        _ => Ok(()),
    }
}

/// A vote of a batch that repeats one of the same batch: its place, and the candidate it repeats.
type Copy = (Place, usize);

/// Step 2: the candidates, and the rest.
fn first_of_each_ballot(votes: Vec<LoggedVote>) -> (Vec<LoggedVote>, Vec<Copy>) {
    let firsts: Vec<usize> = {
        let mut first = HashMap::with_capacity(votes.len());
        votes
            .iter()
            .map(|logged| {
                let next = first.len();
                *first.entry(&logged.vote.key).or_insert(next)
            })
            .collect()
    };
    let (mut candidates, mut copies) = (Vec::with_capacity(votes.len()), Vec::new());
    for (logged, first) in votes.into_iter().zip(firsts) {
        if first == candidates.len() {
            candidates.push(logged);
        } else {
            copies.push((logged.place, first));
        }
    }
    (candidates, copies)
}

/// The votes of a batch that don't stand. `places` says what stands for each candidate's ballot.
fn repeats(candidates: &[LoggedVote], places: &[Place], copies: Vec<Copy>) -> Vec<Repeat> {
    let of_others = candidates.iter().map(|logged| logged.place).zip(places.iter().copied());
    let of_candidates = copies.into_iter().map(|(place, first)| (place, places[first]));
    let repeats = of_others.chain(of_candidates).filter(|(place, stands)| place != stands);
    repeats.map(|(place, stands)| Repeat { place, of: stands.offset }).collect()
}
