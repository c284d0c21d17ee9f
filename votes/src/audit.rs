//! The proof: recounts the log and the book, and compares both with the tallies.
//!
//! Every record of the log below the tallies' positions is looked up in the book by its ballot key. It has to stand there
//! at its own place with its own content, or be a repeat of one that stands at a lower offset. What stands is folded
//! anew and compared with the tallies, key by key. Memory holds the contests' totals and one batch, not the votes.
//!
//! Of votes that have expired in the book its summary is taken, and of those that have expired on the log what the book
//! has. While it reads nothing may expire: if something did, it begins anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{Debug, Display};
use std::hash::Hash;

use serde::Serialize;

use crate::{
    Batch, Book, ContestCounts, ContestId, Counts, LoggedVote, Offset, Partition, Place, Snapshot, StoreError, Summary,
    Tallies, VoteFeed,
};

/// Records and documents that are compared at a time.
const CHUNK: usize = 1_000;

/// How often the audit begins anew because votes expired meanwhile.
const ATTEMPTS: usize = 10;

/// The most differences that are spelled out.
const MAX_DIFFERENCES: usize = 100;

/// What the audit found. `log - dead - duplicates = book = tallies` if all is well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Whether there is no difference.
    pub ok: bool,
    /// Records of the log below the tallies' positions.
    pub log: u64,
    /// Those of them that are no votes.
    pub dead: u64,
    /// Those of them that repeat a ballot.
    pub duplicates: u64,
    /// Votes in the book below the positions.
    pub book: u64,
    /// Votes in the tallies.
    pub tallies: u64,
    /// Records on the log at or past the positions: durable, and not counted yet.
    pub uncounted: u64,
    /// Votes that the log no longer has, or only the book's summaries have; they were checked against the book alone.
    pub expired: u64,
    /// What does not agree, in words; at most 100, and then how many more.
    pub differences: Vec<String>,
}

/// Recounts everything below the positions that the tallies have now. `progress` is told records done and to do.
///
/// The feed must be the audit's own: it is sought.
///
/// # Errors
/// If a store can't be read.
pub async fn audit(
    feed: &dyn VoteFeed,
    book: &dyn Book,
    tallies: &dyn Tallies,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<AuditReport, StoreError> {
    for _ in 0..ATTEMPTS {
        // Before the tallies, which have all that has expired.
        let before = cut_offs(feed, book).await?;
        let report = audit_once(feed, book, tallies, progress).await;
        if cut_offs(feed, book).await? == before {
            return report;
        }
    }
    Err(StoreError::new(
        "book",
        "votes expired faster than they could be audited; give it a longer retention, or less load",
    ))
}

/// Up to where each partition's votes have expired.
async fn cut_offs(feed: &dyn VoteFeed, book: &dyn Book) -> Result<Vec<Offset>, StoreError> {
    let mut cut_offs = Vec::new();
    for partition in (0..feed.partitions()).map(Partition) {
        cut_offs.push(book.checkpoint(partition).await?.cut_off);
    }
    Ok(cut_offs)
}

async fn audit_once(
    feed: &dyn VoteFeed,
    book: &dyn Book,
    tallies: &dyn Tallies,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<AuditReport, StoreError> {
    let snapshot = tallies.snapshot().await?;
    let mut auditor = Auditor { feed, book, report: AuditReport::default(), counts: Counts::default(), more: 0 };
    let todo = snapshot.positions.values().map(|position| position.0).sum();
    for partition in (0..feed.partitions()).map(Partition) {
        let position = snapshot.positions.get(&partition).copied().unwrap_or_default();
        let done = auditor.report.log + auditor.report.expired;
        auditor.partition(partition, position, &mut |more| progress(done + more, todo)).await?;
    }
    auditor.compare(&snapshot);
    Ok(auditor.finish())
}

struct Auditor<'a> {
    feed: &'a dyn VoteFeed,
    book: &'a dyn Book,
    report: AuditReport,
    counts: Counts,
    more: u64,
}

impl Auditor<'_> {
    async fn partition(
        &mut self,
        partition: Partition,
        position: Offset,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), StoreError> {
        let bounds = self.feed.bounds(partition).await?;
        self.report.uncounted += bounds.end.0.saturating_sub(position.0);
        if position > bounds.end {
            self.differ(format!(
                "partition {partition}: the tallies have counted up to offset {position}, but the log ends at {}",
                bounds.end
            ));
        }
        let cut_off = self.summed_up(partition, position).await?;
        let logged = bounds.start.max(cut_off).min(position);
        self.expired(partition, cut_off, logged).await?;
        self.feed.seek(partition, logged).await?;
        let end = position.min(bounds.end);
        let mut at = logged;
        while at < end {
            let mut batch = self.feed.next_batch(partition, CHUNK).await?;
            batch.records.retain(|record| record.offset < end);
            batch.to = batch.to.min(end);
            at = batch.to;
            self.batch(batch).await?;
            progress(at.0);
        }
        self.check_rest(partition, at, position).await
    }

    /// The votes that only the book's summary has, if they are below the position. Returns where the book's documents begin.
    async fn summed_up(&mut self, partition: Partition, position: Offset) -> Result<Offset, StoreError> {
        let Summary { cut_off, counts } = self.book.summary(partition).await?;
        if position == Offset(0) {
            return Ok(position);
        }
        if position < cut_off {
            let problem = format!(
                "partition {partition} was rolled back to offset {position}, and votes below {cut_off} have expired in the book, \
                 so it can't be compared; a running consumer counts it again: try again then"
            );
            return Err(StoreError::new("tallies", problem));
        }
        self.report.expired += counts.total();
        self.report.book += counts.total();
        self.counts.merge(counts);
        Ok(cut_off)
    }

    /// The book's votes that the log no longer has.
    async fn expired(&mut self, partition: Partition, mut from: Offset, to: Offset) -> Result<(), StoreError> {
        while from < to {
            let votes = self.book.range(partition, from, to, CHUNK).await?;
            let Some(last) = votes.last() else { break };
            from = last.place.offset.next();
            self.report.expired += votes.len() as u64;
            self.report.book += votes.len() as u64;
            self.count(&votes);
        }
        Ok(())
    }

    async fn batch(&mut self, batch: Batch) -> Result<(), StoreError> {
        let Batch { partition, from, to, records } = batch;
        self.report.log += records.len() as u64;
        let mut booked: BTreeMap<Offset, LoggedVote> = BTreeMap::new();
        for logged in self.book.range(partition, from, to, usize::MAX).await? {
            booked.insert(logged.place.offset, logged);
        }
        self.report.book += booked.len() as u64;
        let mut buried = BTreeSet::new();
        if records.iter().any(|record| record.vote.is_err()) {
            buried.extend(self.feed.dead(partition, from, to).await?.iter().map(|dead| dead.place.offset));
        }

        let mut votes = Vec::with_capacity(records.len());
        for record in records {
            let place = Place { partition, offset: record.offset };
            match record.vote {
                Ok(vote) => votes.push(LoggedVote { place, vote }),
                Err(poison) => {
                    self.report.dead += 1;
                    if !buried.contains(&record.offset) {
                        let reason = poison.reason;
                        self.differ(format!("{place}: no vote ({reason}), and not among the dead letters"));
                    }
                }
            }
        }
        let keys = votes.iter().map(|logged| logged.vote.key.clone()).collect();
        let located = self.book.locate(keys).await?;
        // They repeat votes that may have expired.
        let mut noted = BTreeSet::new();
        if located.iter().any(Option::is_none) {
            noted.extend(self.book.repeats(partition, from, to).await?.iter().map(|repeat| repeat.place.offset));
        }
        let mut standing = Vec::with_capacity(votes.len());
        for (logged, located) in votes.into_iter().zip(located) {
            let offset = logged.place.offset;
            if located.is_none() && noted.contains(&offset) && !booked.contains_key(&offset) {
                self.report.duplicates += 1;
            } else if self.stands(&logged, located, booked.remove(&offset)) {
                standing.push(logged);
            }
        }
        for logged in booked.into_values() {
            let (place, vote) = (logged.place, logged.vote.vote_id);
            self.differ(format!("{place}: the book has vote {vote}, which the log does not have there"));
        }
        self.count(&standing);
        Ok(())
    }

    /// Whether a vote of the log is one that counts; says what is wrong with it on the way.
    fn stands(&mut self, logged: &LoggedVote, located: Option<Place>, booked: Option<LoggedVote>) -> bool {
        let LoggedVote { place, vote } = logged;
        let id = vote.vote_id;
        match (located, booked) {
            (Some(at), Some(booked)) if at == *place => {
                if !is_same(&booked, logged) {
                    self.differ(format!(
                        "{place}: vote {id} is for {:?} on the log and for {:?} in the book, or differs in \
                        another field",
                        vote.name, booked.vote.name
                    ));
                }
                true
            }
            (Some(at), None) if at.partition == place.partition && at.offset < place.offset => {
                self.report.duplicates += 1;
                false
            }
            (Some(at), Some(_)) => {
                self.differ(format!("{place}: the book has vote {id} here and its ballot again at {at}"));
                true
            }
            (Some(at), None) if at == *place => {
                self.differ(format!("{place}: the book has the ballot of vote {id}, but not the vote"));
                true
            }
            (Some(at), None) => {
                self.differ(format!("{place}: vote {id} is not in the book; a later copy at {at} stands instead"));
                true
            }
            (None, booked) => {
                let how = if booked.is_some() { "its ballot key is missing" } else { "it was lost" };
                self.differ(format!("{place}: vote {id} for {:?} is not in the book: {how}", vote.name));
                true
            }
        }
    }

    /// Votes in the book at offsets below the position that the log does not reach.
    async fn check_rest(&mut self, partition: Partition, from: Offset, to: Offset) -> Result<(), StoreError> {
        if from < to {
            for logged in self.book.range(partition, from, to, CHUNK).await? {
                self.report.book += 1;
                let (place, vote) = (logged.place, logged.vote.vote_id);
                self.differ(format!("{place}: the book has vote {vote}, which is past the log's end"));
            }
        }
        Ok(())
    }

    fn count(&mut self, votes: &[LoggedVote]) {
        self.counts.merge(Counts::of(votes));
        self.counts.keep_permanent();
    }

    fn compare(&mut self, snapshot: &Snapshot) {
        let counted = std::mem::take(&mut self.counts);
        let ids: BTreeSet<&ContestId> = counted.contests.keys().chain(snapshot.contests.keys()).collect();
        let nothing = ContestCounts::default();
        for id in ids {
            let truth = counted.contests.get(id).unwrap_or(&nothing);
            let mut tallied = snapshot.contests.get(id).cloned().unwrap_or_default();
            // Windows that expire can't be compared.
            tallied.keep_permanent();
            self.report.tallies += tallied.total();
            self.compare_map(&format!("{id}: band"), &truth.bands, &tallied.bands);
            self.compare_map(&format!("{id}: album"), &truth.albums, &tallied.albums);
            self.compare_map(
                &format!("{id}: door"),
                &truth.doors.clone().into_iter().collect(),
                &tallied.doors.into_iter().collect(),
            );
            let windows = |counts: BTreeMap<(crate::Window, crate::UnixMillis), u64>| {
                counts.into_iter().map(|((window, start), votes)| (format!("{window} from {start}"), votes)).collect()
            };
            self.compare_map(&format!("{id}: window"), &windows(truth.windows.clone()), &windows(tallied.windows));
        }
    }

    fn compare_map<K: Eq + Hash + Ord + Debug>(
        &mut self,
        what: &str,
        truth: &HashMap<K, u64>,
        tallied: &HashMap<K, u64>,
    ) {
        let keys: BTreeSet<&K> = truth.keys().chain(tallied.keys()).collect();
        for key in keys {
            let (truth, tallied) = (truth.get(key).copied().unwrap_or(0), tallied.get(key).copied().unwrap_or(0));
            if truth != tallied {
                self.differ(format!("{what} {key:?}: {truth} votes on the log, {tallied} in the tallies"));
            }
        }
    }

    fn differ(&mut self, difference: impl Display) {
        if self.report.differences.len() < MAX_DIFFERENCES {
            self.report.differences.push(difference.to_string());
        } else {
            self.more += 1;
        }
    }

    fn finish(mut self) -> AuditReport {
        let AuditReport { log, dead, duplicates, book, tallies, expired, .. } = self.report;
        let standing = (log + expired).saturating_sub(dead + duplicates);
        if self.report.differences.is_empty() && (standing != book || book != tallies) {
            self.differ(format!("{standing} votes stand on the log, {book} are in the book, {tallies} in the tallies"));
        }
        if self.more > 0 {
            self.report.differences.push(format!("and {} more", self.more));
        }
        self.report.ok = self.report.differences.is_empty();
        self.report
    }
}

/// The book does not keep the trace.
fn is_same(booked: &LoggedVote, logged: &LoggedVote) -> bool {
    let (a, b) = (&booked.vote, &logged.vote);
    booked.place == logged.place
        && (a.vote_id, &a.key, &a.contest, &a.name, &a.album) == (b.vote_id, &b.key, &b.contest, &b.name, &b.album)
        && (a.year, a.rank, a.voter, a.accepted_at, a.door) == (b.year, b.rank, b.voter, b.accepted_at, b.door)
}
