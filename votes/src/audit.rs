//! The audit recounts the log and the ledger, and compares both with the tallies.
//!
//! The audit reads every record of the log below the positions of the tallies, and looks up the record's ballot key in
//! the ledger. Either the ledger has the same vote at the same position, or the record is a duplicate of a vote that
//! the ledger has at a lower offset. The votes that count are counted again and compared with the tallies, key by key.
//! The audit needs memory for the counts, for one batch and for the offsets of one
//! partition's dead letters, not for all votes.
//!
//! For votes that have expired in the ledger, the audit uses the ledger's summary. For votes that have expired on the
//! log, it uses the ledger's votes. Votes may expire while the audit reads. Then it continues where the log or the
//! ledger begins now: it locks nothing, and reads nothing twice. Only if the votes of a partition have expired beyond
//! the position of the tallies that it compares with, it starts again, with the tallies' present positions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{Debug, Display};
use std::hash::Hash;

use serde::Serialize;

use crate::{
    counts::{ContestCounts, Counts},
    ids::{ContestId, LogPosition, Offset, Partition},
    ports::{Batch, Bounds, Ledger, LogReader, Snapshot, StoreError, Summary, Tallies},
    vote::LoggedVote,
};

/// The maximum number of records that are compared at a time.
const MAX_BATCH: usize = 1_000;

/// The maximum number of attempts. An attempt fails if votes expire beyond the positions that the tallies had when the
/// audit began.
const MAX_ATTEMPTS: usize = 5;

/// The maximum number of differences that are described one by one.
const MAX_DIFFERENCES: usize = 100;

/// The result of the audit. If `ok` is true, `log + expired - dead_letters - duplicates = ledger = tallies`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
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
    /// The number of these votes that expired in the ledger while the audit ran, before it compared them.
    pub unseen: u64,
    /// The youngest age, in seconds, at which a vote expired in the ledger: the time between the vote and the next vote
    /// on the log that was to be counted, less the allowed errors of these times. A duplicate that follows its original by less is recognised. `None` if no vote
    /// has expired.
    pub youngest_expired_seconds: Option<f64>,
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
    let mut attempts = 1;
    loop {
        match audit_once(log_reader, ledger, tallies, progress).await {
            Ok(report) => return Ok(report),
            Err(Interruption::Store(error)) => return Err(error),
            Err(Interruption::Expired(error)) if attempts == MAX_ATTEMPTS => return Err(error),
            Err(Interruption::Expired(_)) => attempts += 1,
        }
    }
}

/// Why an attempt ended without a report.
enum Interruption {
    /// A store can't be read.
    Store(StoreError),
    /// Votes have expired that the tallies had not counted when the attempt began.
    Expired(StoreError),
}

impl From<StoreError> for Interruption {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

async fn audit_once(
    log_reader: &dyn LogReader,
    ledger: &dyn Ledger,
    tallies: &dyn Tallies,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<AuditReport, Interruption> {
    let snapshot = tallies.snapshot().await?;
    let mut auditor =
        Auditor { log_reader, ledger, report: AuditReport::default(), counts: Counts::default(), more_differences: 0 };
    let total = snapshot.positions.values().map(|position| position.0).sum();
    let mut done = 0;
    for partition in (0..log_reader.partitions()).map(Partition) {
        let position = snapshot.positions.get(&partition).copied().unwrap_or_default();
        auditor.audit_partition(partition, position, &mut |at| progress(done + at, total)).await?;
        done += position.0;
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

/// How far a partition is audited.
struct PartitionAudit {
    partition: Partition,
    /// The first offset that is not audited yet.
    at: Offset,
    /// The offset at which the log reader reads next, if it is known.
    reads_at: Option<Offset>,
    /// The first offset that the log has.
    log_start: Offset,
    /// The counts of the votes below `at`.
    counts: Counts,
    /// The numbers of records below `at`.
    numbers: Numbers,
    /// The offsets of the partition's dead letters, sorted, if the partition has an invalid record.
    dead_letters: Option<Vec<Offset>>,
}

/// The numbers of records of a part of a partition.
#[derive(Default)]
struct Numbers {
    log: u64,
    dead_letters: u64,
    duplicates: u64,
    ledger: u64,
    expired: u64,
}

/// The result of auditing a part of a partition.
enum Audited {
    Done,
    /// The log deleted records at or after `at` meanwhile. It begins at this offset now.
    LogBegins(Offset),
    /// Votes at or after `at` expired in the ledger meanwhile.
    CutOffMoved,
}

impl Auditor<'_> {
    async fn audit_partition(
        &mut self,
        partition: Partition,
        position: Offset,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), Interruption> {
        let Bounds { start: log_start, end } = self.log_reader.bounds(partition).await?;
        self.report.uncounted += end.0.saturating_sub(position.0);
        if position > end {
            self.add_difference(format!(
                "partition {partition}: the tallies have counted up to offset {position}, but the log ends at {end}"
            ));
        }
        if position == Offset(0) {
            return Ok(());
        }
        let mut audit = PartitionAudit {
            partition,
            at: Offset(0),
            reads_at: None,
            log_start,
            counts: Counts::default(),
            numbers: Numbers::default(),
            dead_letters: None,
        };
        self.begin_at_cut_off(&mut audit, position).await?;
        let end = position.min(end);
        while audit.at < end {
            let audited = if audit.at < audit.log_start {
                self.count_expired_on_log(&mut audit, end).await?
            } else {
                self.audit_next_batch(&mut audit, end).await?
            };
            match audited {
                Audited::Done => progress(audit.at.0),
                Audited::LogBegins(start) => audit.log_start = start,
                Audited::CutOffMoved => {
                    let seen = audit.numbers.ledger;
                    self.begin_at_cut_off(&mut audit, position).await?;
                    self.report.unseen += audit.numbers.ledger.saturating_sub(seen);
                }
            }
        }
        self.check_past_end(&mut audit, position).await?;
        let PartitionAudit { counts, numbers, .. } = audit;
        let Numbers { log, dead_letters, duplicates, ledger, expired } = numbers;
        self.report.log += log;
        self.report.dead_letters += dead_letters;
        self.report.duplicates += duplicates;
        self.report.ledger += ledger;
        self.report.expired += expired;
        self.counts.merge(counts);
        Ok(())
    }

    /// Continues at the ledger's cut-off. The votes below it are counted by the ledger's summary, and no longer one by
    /// one.
    async fn begin_at_cut_off(&mut self, audit: &mut PartitionAudit, position: Offset) -> Result<(), Interruption> {
        let partition = audit.partition;
        let Summary { cut_off, counts, youngest_expired } = self.ledger.summary(partition).await?;
        if position < cut_off {
            let problem = format!(
                "partition {partition} is at offset {position}, but votes below {cut_off} have expired in the ledger, \
                 so the two can't be compared. Either the tallies were rolled back: wait until a consumer has counted the \
                 partition again. Or votes expire faster than they can be audited: use a longer retention. Then repeat the audit"
            );
            return Err(Interruption::Expired(StoreError::new("tallies", problem)));
        }
        let total = counts.total();
        (audit.at, audit.counts) = (cut_off, counts);
        audit.numbers = Numbers { ledger: total, expired: total, ..Numbers::default() };
        let youngest = youngest_expired.map(|age| age.as_secs_f64());
        let known = self.report.youngest_expired_seconds;
        self.report.youngest_expired_seconds = known.into_iter().chain(youngest).reduce(f64::min);
        Ok(())
    }

    /// Returns whether votes at or after this offset have expired in the ledger. What was read from the ledger before is
    /// complete if not.
    async fn has_expired(&self, partition: Partition, from: Offset) -> Result<bool, StoreError> {
        Ok(self.ledger.checkpoint(partition).await?.cut_off > from)
    }

    /// Counts some of the ledger's votes that the log no longer has.
    async fn count_expired_on_log(&mut self, audit: &mut PartitionAudit, end: Offset) -> Result<Audited, StoreError> {
        let (partition, from, to) = (audit.partition, audit.at, audit.log_start.min(end));
        let votes = self.ledger.range(partition, from, to, MAX_BATCH).await?;
        if self.has_expired(partition, from).await? {
            return Ok(Audited::CutOffMoved);
        }
        audit.at = match votes.last() {
            Some(last) if votes.len() == MAX_BATCH => last.position.offset.next(),
            _ => to,
        };
        audit.numbers.expired += votes.len() as u64;
        audit.numbers.ledger += votes.len() as u64;
        audit.count(&votes);
        Ok(Audited::Done)
    }

    /// Reads the next batch below `end` and compares it with the ledger.
    async fn audit_next_batch(&mut self, audit: &mut PartitionAudit, end: Offset) -> Result<Audited, StoreError> {
        let (partition, from) = (audit.partition, audit.at);
        let read = self.read_batch(audit).await;
        let begins_at_from =
            read.as_ref().is_ok_and(|batch| batch.records.first().is_some_and(|record| record.offset == from));
        if !begins_at_from {
            // The log has a gap here, or it deleted its first records.
            let start = self.log_reader.bounds(partition).await?.start;
            if start > from {
                audit.reads_at = None;
                return Ok(Audited::LogBegins(start));
            }
        }
        let mut batch = read?;
        batch.records.retain(|record| record.offset < end);
        batch.to = batch.to.min(end);
        if audit.dead_letters.is_none() && batch.records.iter().any(|record| record.vote.is_err()) {
            audit.dead_letters = Some(self.dead_letter_offsets(partition).await?);
        }
        self.audit_batch(audit, batch).await
    }

    async fn read_batch(&self, audit: &mut PartitionAudit) -> Result<Batch, StoreError> {
        if audit.reads_at != Some(audit.at) {
            self.log_reader.seek(audit.partition, audit.at).await?;
        }
        audit.reads_at = None;
        let batch = self.log_reader.next_batch(audit.partition, MAX_BATCH).await?;
        audit.reads_at = Some(batch.to);
        Ok(batch)
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

    /// Compares a batch with the ledger.
    async fn audit_batch(&mut self, audit: &mut PartitionAudit, batch: Batch) -> Result<Audited, StoreError> {
        let Batch { partition, from, to, records } = batch;
        let mut recorded: BTreeMap<Offset, LoggedVote> = BTreeMap::new();
        for logged in self.ledger.range(partition, from, to, usize::MAX).await? {
            recorded.insert(logged.position.offset, logged);
        }
        let keys = records.iter().filter_map(|record| Some(record.vote.as_ref().ok()?.key.clone())).collect();
        let mut originals = self.ledger.positions_of(keys).await?.into_iter();
        // If the original of a duplicate has expired, only the record of the duplicate identifies it.
        let mut known_duplicates = BTreeSet::new();
        if originals.as_slice().iter().any(Option::is_none) {
            let duplicates = self.ledger.duplicates(partition, from, to).await?;
            known_duplicates.extend(duplicates.iter().map(|duplicate| duplicate.position.offset));
        }
        if self.has_expired(partition, from).await? {
            return Ok(Audited::CutOffMoved);
        }

        let numbers = &mut audit.numbers;
        numbers.log += records.len() as u64;
        numbers.ledger += recorded.len() as u64;
        let mut counted = Vec::with_capacity(records.len());
        for record in records {
            let position = LogPosition { partition, offset: record.offset };
            match record.vote {
                Ok(vote) => {
                    let (logged, original) = (LoggedVote { position, vote }, originals.next().flatten());
                    let own = recorded.remove(&record.offset);
                    if original.is_none() && own.is_none() && known_duplicates.contains(&record.offset) {
                        numbers.duplicates += 1;
                    } else if self.check_vote(&logged, original, own) {
                        counted.push(logged);
                    } else {
                        numbers.duplicates += 1;
                    }
                }
                Err(invalid) => {
                    numbers.dead_letters += 1;
                    let is_stored = audit
                        .dead_letters
                        .as_ref()
                        .is_some_and(|letters| letters.binary_search(&record.offset).is_ok());
                    if !is_stored {
                        let reason = invalid.reason;
                        self.add_difference(format!(
                            "{position}: the record is not a vote ({reason}), and is not among the dead letters"
                        ));
                    }
                }
            }
        }
        for logged in recorded.into_values() {
            let (position, vote) = (logged.position, logged.vote.vote_id);
            self.add_difference(format!("{position}: the ledger has vote {vote}, which the log does not have there"));
        }
        audit.count(&counted);
        audit.at = to;
        Ok(Audited::Done)
    }

    /// Compares a vote of the log with the ledger, and adds the differences to the report. Returns whether the vote
    /// counts. Otherwise it is a duplicate.
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
            (Some(at), None) if at.partition == position.partition && at.offset < position.offset => false,
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

    /// Reports the ledger's votes below `position` that are past the end of the log: at most [`MAX_BATCH`] of them.
    async fn check_past_end(&mut self, audit: &mut PartitionAudit, position: Offset) -> Result<(), StoreError> {
        if audit.at < position {
            for logged in self.ledger.range(audit.partition, audit.at, position, MAX_BATCH).await? {
                audit.numbers.ledger += 1;
                let (position, vote) = (logged.position, logged.vote.vote_id);
                self.add_difference(format!("{position}: the ledger has vote {vote}, which is past the log's end"));
            }
        }
        Ok(())
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

impl PartitionAudit {
    fn count(&mut self, votes: &[LoggedVote]) {
        self.counts.merge(Counts::of(votes));
        self.counts.drop_expiring_windows();
    }
}

/// Returns whether two votes are equal in all fields except the trace, which the ledger does not store.
fn is_same(recorded: &LoggedVote, logged: &LoggedVote) -> bool {
    let (a, b) = (&recorded.vote, &logged.vote);
    recorded.position == logged.position
        && (a.vote_id, &a.key, &a.contest, &a.name, &a.album) == (b.vote_id, &b.key, &b.contest, &b.name, &b.album)
        && (a.year, a.rank, a.voter, a.accepted_at, a.producer) == (b.year, b.rank, b.voter, b.accepted_at, b.producer)
}
