//! The audit recounts the log and the ledger, and compares both with the tallies.
//!
//! The audit reads every record of the log below the positions of the tallies, and looks up the record's ballot key in
//! the ledger. Either the ledger has the same vote at the same position, or the record is a duplicate of a vote that
//! the ledger has at a lower offset. The votes that count are counted again and compared with the tallies, key by key.
//! The audit needs memory for the counts, for one batch and for the offsets of one
//! partition's dead letters, not for all votes.
//!
//! For votes that have expired in the ledger, the audit uses the ledger's summary. For votes that have expired on the
//! log, it uses the ledger's votes. If votes expire while the audit reads, the audit starts again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{Debug, Display};
use std::hash::Hash;

use serde::Serialize;

use crate::{
    counts::{ContestCounts, Counts},
    ids::{ContestId, LogPosition, Offset, Partition},
    ports::{Batch, Ledger, LogReader, Snapshot, StoreError, Summary, Tallies},
    vote::LoggedVote,
};

/// The maximum number of records that are compared at a time.
const MAX_BATCH: usize = 1_000;

/// The maximum number of attempts. An attempt fails if votes expire while the audit reads.
const MAX_ATTEMPTS: usize = 10;

/// The maximum number of differences that are described one by one.
const MAX_DIFFERENCES: usize = 100;

/// The result of the audit. If `ok` is true, `log + expired - dead_letters - duplicates = ledger = tallies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Whether the audit found no difference.
    pub ok: bool,
    /// The number of records of the log below the tallies' positions.
    pub log: u64,
    /// The number of these records that are not votes.
    pub dead_letters: u64,
    /// The number of records among the dead letters that are no dead letters. Another program wrote them, and the audit
    /// skipped them. Only partitions with invalid records are searched.
    pub foreign_records: u64,
    /// The number of these records that repeat a ballot.
    pub duplicates: u64,
    /// The number of votes in the ledger below the positions.
    pub ledger: u64,
    /// The number of votes in the tallies.
    pub tallies: u64,
    /// The number of records of the log at or after the positions. They are durable, and not counted yet.
    pub uncounted: u64,
    /// The number of votes that have expired on the log or in the ledger. For these votes, the tallies are compared
    /// with the ledger's votes and summaries, and not with the log.
    pub expired: u64,
    /// Descriptions of at most 100 differences. If there are more, the last text has the number of the others.
    pub differences: Vec<String>,
}

/// Recounts all votes below the positions that the tallies have now. `progress` receives the number of records that
/// were audited, and the number of all records.
///
/// No other task may use the log reader, because the audit changes the offsets from which it reads.
///
/// # Errors
/// If a store can't be read, or if votes expire faster than they can be read.
pub async fn audit(
    log_reader: &dyn LogReader,
    ledger: &dyn Ledger,
    tallies: &dyn Tallies,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<AuditReport, StoreError> {
    for _ in 0..MAX_ATTEMPTS {
        // The cut-offs are read before the tallies. So the tallies have every vote that had expired by then.
        let before = cut_offs(log_reader, ledger).await?;
        let report = audit_once(log_reader, ledger, tallies, progress).await;
        if cut_offs(log_reader, ledger).await? == before {
            return report;
        }
    }
    Err(StoreError::new(
        "ledger",
        "votes expired faster than they could be audited; use a longer retention, or reduce the load",
    ))
}

/// Reads the cut-off of each partition.
async fn cut_offs(log_reader: &dyn LogReader, ledger: &dyn Ledger) -> Result<Vec<Offset>, StoreError> {
    let mut cut_offs = Vec::new();
    for partition in (0..log_reader.partitions()).map(Partition) {
        cut_offs.push(ledger.checkpoint(partition).await?.cut_off);
    }
    Ok(cut_offs)
}

async fn audit_once(
    log_reader: &dyn LogReader,
    ledger: &dyn Ledger,
    tallies: &dyn Tallies,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<AuditReport, StoreError> {
    let snapshot = tallies.snapshot().await?;
    let mut auditor =
        Auditor { log_reader, ledger, report: AuditReport::default(), counts: Counts::default(), more_differences: 0 };
    let total = snapshot.positions.values().map(|position| position.0).sum();
    for partition in (0..log_reader.partitions()).map(Partition) {
        let position = snapshot.positions.get(&partition).copied().unwrap_or_default();
        let done = auditor.report.log + auditor.report.expired;
        auditor.audit_partition(partition, position, &mut |more| progress(done + more, total)).await?;
    }
    auditor.compare_tallies(&snapshot);
    Ok(auditor.finish())
}

struct Auditor<'a> {
    log_reader: &'a dyn LogReader,
    ledger: &'a dyn Ledger,
    report: AuditReport,
    /// The counts of the votes that the log or the ledger has.
    counts: Counts,
    /// The number of differences beyond [`MAX_DIFFERENCES`].
    more_differences: u64,
}

impl Auditor<'_> {
    async fn audit_partition(
        &mut self,
        partition: Partition,
        position: Offset,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), StoreError> {
        let bounds = self.log_reader.bounds(partition).await?;
        self.report.uncounted += bounds.end.0.saturating_sub(position.0);
        if position > bounds.end {
            self.add_difference(format!(
                "partition {partition}: the tallies have counted up to offset {position}, but the log ends at {}",
                bounds.end
            ));
        }
        let cut_off = self.count_summary(partition, position).await?;
        let logged_from = bounds.start.max(cut_off).min(position);
        self.count_expired_on_log(partition, cut_off, logged_from).await?;
        self.log_reader.seek(partition, logged_from).await?;
        let end = position.min(bounds.end);
        let mut dead_letters = None;
        let mut at = logged_from;
        while at < end {
            let mut batch = self.log_reader.next_batch(partition, MAX_BATCH).await?;
            batch.records.retain(|record| record.offset < end);
            batch.to = batch.to.min(end);
            at = batch.to;
            if dead_letters.is_none() && batch.records.iter().any(|record| record.vote.is_err()) {
                dead_letters = Some(self.dead_letter_offsets(partition).await?);
            }
            self.audit_batch(batch, dead_letters.as_deref().unwrap_or_default()).await?;
            progress(at.0);
        }
        self.check_past_end(partition, at, position).await
    }

    /// Counts the votes of the ledger's summary. Returns the offset at which the ledger's documents begin.
    async fn count_summary(&mut self, partition: Partition, position: Offset) -> Result<Offset, StoreError> {
        let Summary { cut_off, counts } = self.ledger.summary(partition).await?;
        if position == Offset(0) {
            return Ok(position);
        }
        if position < cut_off {
            let problem = format!(
                "partition {partition} was rolled back to offset {position}, but votes below {cut_off} have expired in the ledger, \
                 so the two can't be compared; wait until a consumer has counted the partition again, then repeat the audit"
            );
            return Err(StoreError::new("tallies", problem));
        }
        self.report.expired += counts.total();
        self.report.ledger += counts.total();
        self.counts.merge(counts);
        Ok(cut_off)
    }

    /// Counts the ledger's votes in `[from, to)`, which the log no longer has.
    async fn count_expired_on_log(
        &mut self,
        partition: Partition,
        mut from: Offset,
        to: Offset,
    ) -> Result<(), StoreError> {
        while from < to {
            let votes = self.ledger.range(partition, from, to, MAX_BATCH).await?;
            let Some(last) = votes.last() else { break };
            from = last.position.offset.next();
            self.report.expired += votes.len() as u64;
            self.report.ledger += votes.len() as u64;
            self.count(&votes);
        }
        Ok(())
    }

    /// Reads the dead letters of a partition. Returns their offsets, sorted. Every invalid record below the positions
    /// became a dead letter before the positions passed it, so one read is enough for all batches.
    async fn dead_letter_offsets(&mut self, partition: Partition) -> Result<Vec<Offset>, StoreError> {
        let mut reader = self.log_reader.dead_letters(partition).await?;
        let mut offsets = Vec::new();
        while let Some(part) = reader.next_part().await? {
            self.report.foreign_records += part.foreign.len() as u64;
            offsets.extend(part.letters.iter().map(|letter| letter.position.offset));
        }
        offsets.sort_unstable();
        Ok(offsets)
    }

    /// Compares a batch with the ledger. `dead_letters` has the offsets of the partition's dead letters, sorted.
    async fn audit_batch(&mut self, batch: Batch, dead_letters: &[Offset]) -> Result<(), StoreError> {
        let Batch { partition, from, to, records } = batch;
        self.report.log += records.len() as u64;
        let mut recorded: BTreeMap<Offset, LoggedVote> = BTreeMap::new();
        for logged in self.ledger.range(partition, from, to, usize::MAX).await? {
            recorded.insert(logged.position.offset, logged);
        }
        self.report.ledger += recorded.len() as u64;

        let mut votes = Vec::with_capacity(records.len());
        for record in records {
            let position = LogPosition { partition, offset: record.offset };
            match record.vote {
                Ok(vote) => votes.push(LoggedVote { position, vote }),
                Err(invalid) => {
                    self.report.dead_letters += 1;
                    if dead_letters.binary_search(&record.offset).is_err() {
                        let reason = invalid.reason;
                        self.add_difference(format!(
                            "{position}: the record is not a vote ({reason}), and is not among the dead letters"
                        ));
                    }
                }
            }
        }
        let keys = votes.iter().map(|logged| logged.vote.key.clone()).collect();
        let originals = self.ledger.positions_of(keys).await?;
        // If the original of a duplicate has expired, only the record of the duplicate identifies it.
        let mut known_duplicates = BTreeSet::new();
        if originals.iter().any(Option::is_none) {
            let duplicates = self.ledger.duplicates(partition, from, to).await?;
            known_duplicates.extend(duplicates.iter().map(|duplicate| duplicate.position.offset));
        }
        let mut counted = Vec::with_capacity(votes.len());
        for (logged, original) in votes.into_iter().zip(originals) {
            let offset = logged.position.offset;
            if original.is_none() && known_duplicates.contains(&offset) && !recorded.contains_key(&offset) {
                self.report.duplicates += 1;
            } else if self.check_vote(&logged, original, recorded.remove(&offset)) {
                counted.push(logged);
            }
        }
        for logged in recorded.into_values() {
            let (position, vote) = (logged.position, logged.vote.vote_id);
            self.add_difference(format!("{position}: the ledger has vote {vote}, which the log does not have there"));
        }
        self.count(&counted);
        Ok(())
    }

    /// Compares a vote of the log with the ledger, and adds the differences to the report. Returns whether the vote
    /// counts.
    ///
    /// `original` is the position that the ledger has for the vote's key. `recorded` is the vote that the ledger has at
    /// the position of `logged`.
    fn check_vote(&mut self, logged: &LoggedVote, original: Option<LogPosition>, recorded: Option<LoggedVote>) -> bool {
        let LoggedVote { position, vote } = logged;
        let id = vote.vote_id;
        match (original, recorded) {
            (Some(at), Some(recorded)) if at == *position => {
                if !is_same(&recorded, logged) {
                    self.add_difference(format!(
                        "{position}: vote {id} is for {:?} on the log and for {:?} in the ledger, or differs in \
                        another field",
                        vote.name, recorded.vote.name
                    ));
                }
                true
            }
            (Some(at), None) if at.partition == position.partition && at.offset < position.offset => {
                self.report.duplicates += 1;
                false
            }
            (Some(at), Some(_)) => {
                self.add_difference(format!("{position}: the ledger has vote {id} here, and its ballot again at {at}"));
                true
            }
            (Some(at), None) if at == *position => {
                self.add_difference(format!("{position}: the ledger has the ballot of vote {id}, but not the vote"));
                true
            }
            (Some(at), None) => {
                self.add_difference(format!(
                    "{position}: vote {id} is not in the ledger; a later duplicate at {at} counts instead"
                ));
                true
            }
            (None, recorded) => {
                let cause = if recorded.is_some() { "its ballot key is missing" } else { "it was lost" };
                self.add_difference(format!("{position}: vote {id} for {:?} is not in the ledger: {cause}", vote.name));
                true
            }
        }
    }

    /// Reports the ledger's votes in `[from, to)`, which are past the end of the log: at most [`MAX_BATCH`] of them.
    async fn check_past_end(&mut self, partition: Partition, from: Offset, to: Offset) -> Result<(), StoreError> {
        if from < to {
            for logged in self.ledger.range(partition, from, to, MAX_BATCH).await? {
                self.report.ledger += 1;
                let (position, vote) = (logged.position, logged.vote.vote_id);
                self.add_difference(format!("{position}: the ledger has vote {vote}, which is past the log's end"));
            }
        }
        Ok(())
    }

    fn count(&mut self, votes: &[LoggedVote]) {
        self.counts.merge(Counts::of(votes));
        self.counts.drop_expiring_windows();
    }

    /// Compares the counts of the log and the ledger with the tallies.
    fn compare_tallies(&mut self, snapshot: &Snapshot) {
        let counted = std::mem::take(&mut self.counts);
        let ids: BTreeSet<&ContestId> = counted.contests.keys().chain(snapshot.contests.keys()).collect();
        let nothing = ContestCounts::default();
        for id in ids {
            let truth = counted.contests.get(id).unwrap_or(&nothing);
            let mut tallied = snapshot.contests.get(id).cloned().unwrap_or_default();
            // Windows that expire can't be compared.
            tallied.drop_expiring_windows();
            self.report.tallies += tallied.total();
            self.compare_counts(&format!("{id}: band"), &truth.bands, &tallied.bands);
            self.compare_counts(&format!("{id}: album"), &truth.albums, &tallied.albums);
            self.compare_counts(
                &format!("{id}: producer"),
                &truth.producers.clone().into_iter().collect(),
                &tallied.producers.into_iter().collect(),
            );
            let windows = |counts: BTreeMap<(crate::Window, crate::UnixMillis), u64>| {
                counts.into_iter().map(|((window, start), votes)| (format!("{window} from {start}"), votes)).collect()
            };
            self.compare_counts(&format!("{id}: window"), &windows(truth.windows.clone()), &windows(tallied.windows));
        }
    }

    fn compare_counts<K: Eq + Hash + Ord + Debug>(
        &mut self,
        what: &str,
        truth: &HashMap<K, u64>,
        tallied: &HashMap<K, u64>,
    ) {
        let keys: BTreeSet<&K> = truth.keys().chain(tallied.keys()).collect();
        for key in keys {
            let (truth, tallied) = (truth.get(key).copied().unwrap_or(0), tallied.get(key).copied().unwrap_or(0));
            if truth != tallied {
                self.add_difference(format!("{what} {key:?}: {truth} votes on the log, {tallied} in the tallies"));
            }
        }
    }

    fn add_difference(&mut self, difference: impl Display) {
        if self.report.differences.len() < MAX_DIFFERENCES {
            self.report.differences.push(difference.to_string());
        } else {
            self.more_differences += 1;
        }
    }

    fn finish(mut self) -> AuditReport {
        let AuditReport { log, dead_letters, duplicates, ledger, tallies, expired, .. } = self.report;
        let counted = (log + expired).saturating_sub(dead_letters + duplicates);
        if self.report.differences.is_empty() && (counted != ledger || ledger != tallies) {
            let problem =
                format!("{counted} votes of the log count, {ledger} are in the ledger, {tallies} in the tallies");
            self.add_difference(problem);
        }
        if self.more_differences > 0 {
            self.report.differences.push(format!("and {} more", self.more_differences));
        }
        self.report.ok = self.report.differences.is_empty();
        self.report
    }
}

/// Returns whether two votes are equal in all fields except the trace, which the ledger does not store.
fn is_same(recorded: &LoggedVote, logged: &LoggedVote) -> bool {
    let (a, b) = (&recorded.vote, &logged.vote);
    recorded.position == logged.position
        && (a.vote_id, &a.key, &a.contest, &a.name, &a.album) == (b.vote_id, &b.key, &b.contest, &b.name, &b.album)
        && (a.year, a.rank, a.voter, a.accepted_at, a.producer) == (b.year, b.rank, b.voter, b.accepted_at, b.producer)
}
