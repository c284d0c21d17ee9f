//! The port `Ledger`, in `count.db`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};
use uuid::Uuid;
use votes::{
    Advanced, BallotKey, Checkpoint, Duplicate, HealthDetails, Ledger, LogPosition, LoggedVote, Offset, Partition,
    Store, StoreError, Summary, UnixMillis, Vote, VoteId, VoterHash,
};

use crate::{
    database::{Readers, write_probe},
    summary,
    writer::WriteExecutor,
};

pub(super) struct EmbeddedLedger {
    pub(super) readers: Arc<Readers>,
    writer: Option<WriteExecutor>,
}

impl EmbeddedLedger {
    pub(super) fn new(readers: Arc<Readers>, writer: Option<WriteExecutor>) -> Self {
        Self { readers, writer }
    }

    pub(super) fn writer(&self) -> Result<&WriteExecutor, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::new("count.db", "opened for reading only"))
    }
}

#[async_trait]
impl Store for EmbeddedLedger {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        match &self.writer {
            Some(writer) => writer.run(write_probe).await,
            None => self.readers.read(|db| db.query_row("SELECT 1", [], |_| Ok(()))).await,
        }?;
        Ok(HealthDetails::new())
    }
}

#[async_trait]
impl Ledger for EmbeddedLedger {
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError> {
        self.readers.read(move |db| read_checkpoint(db, partition)).await
    }

    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError> {
        self.writer()?.run(move |db| insert_all(db, &votes)).await
    }

    async fn positions_of(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<LogPosition>>, StoreError> {
        self.readers
            .read(move |db| {
                let mut query = db.prepare_cached(r#"SELECT partition, "offset" FROM ballots WHERE key = ?1"#)?;
                let position =
                    |row: &Row<'_>| Ok(LogPosition { partition: Partition(row.get(0)?), offset: Offset(row.get(1)?) });
                keys.iter().map(|key| query.query_row([key.as_str()], position).optional()).collect()
            })
            .await
    }

    async fn advance_checkpoint(
        &self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Result<Advanced, StoreError> {
        self.writer()?
            .run(move |db| {
                let Checkpoint { offset: recorded, cut_off, .. } = read_checkpoint(db, partition)?;
                if cut_off != checkpoint.cut_off {
                    return Ok(Advanced::CutOffMoved(cut_off));
                }
                if recorded < from {
                    return Ok(Advanced::Hole(recorded));
                }
                if recorded < checkpoint.offset {
                    write_checkpoint(db, partition, checkpoint)?;
                }
                Ok(Advanced::Done)
            })
            .await
    }

    async fn range(
        &self,
        partition: Partition,
        from: Offset,
        to: Offset,
        max: usize,
    ) -> Result<Vec<LoggedVote>, StoreError> {
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let sql = format!(
            r#"SELECT {COLUMNS} FROM votes WHERE partition = ?1 AND "offset" >= ?2 AND "offset" < ?3
                ORDER BY "offset" LIMIT ?4"#
        );
        self.readers
            .read(move |db| {
                let mut query = db.prepare_cached(&sql)?;
                query.query_map(params![partition.0, from.0, to.0, max], read_vote)?.collect()
            })
            .await
    }

    async fn record_duplicates(&self, duplicates: Vec<Duplicate>) -> Result<bool, StoreError> {
        self.writer()?.run(move |db| record_all(db, &duplicates)).await
    }

    async fn duplicates(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Duplicate>, StoreError> {
        let sql = r#"SELECT "offset", key, original FROM duplicates
            WHERE partition = ?1 AND "offset" >= ?2 AND "offset" < ?3 ORDER BY "offset""#;
        // SQLite's integers are signed.
        let to = to.0.min(i64::MAX.unsigned_abs());
        self.readers
            .read(move |db| {
                let duplicate = |row: &Row<'_>| -> rusqlite::Result<Duplicate> {
                    let position = LogPosition { partition, offset: Offset(row.get(0)?) };
                    let key = BallotKey::stored(row.get_ref(1)?.as_str()?);
                    Ok(Duplicate { position, key, original: Offset(row.get(2)?) })
                };
                db.prepare_cached(sql)?.query_map(params![partition.0, from.0, to], duplicate)?.collect()
            })
            .await
    }

    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError> {
        self.readers
            .read(move |db| {
                let cut_off = read_checkpoint(db, partition)?.cut_off;
                let counts = summary::read(db, partition)?;
                Ok(Summary { cut_off, counts, youngest_expired: read_youngest_expired(db, partition)? })
            })
            .await
    }
}

/// Counts the rows of `ballots` that have no row in `votes`.
pub(super) fn count_ballots_without_vote(db: &Connection) -> rusqlite::Result<u64> {
    let sql = r#"SELECT count(*) FROM ballots LEFT JOIN votes USING (partition, "offset")
        WHERE votes.key IS NULL OR votes.key <> ballots.key"#;
    db.query_row(sql, [], |row| row.get(0))
}

/// Inserts the votes whose ballot is not in the ledger. Returns the indexes of the other votes.
fn insert_all(db: &Connection, votes: &[LoggedVote]) -> rusqlite::Result<Vec<usize>> {
    let mut ballot = db.prepare_cached("INSERT OR IGNORE INTO ballots VALUES (?1, ?2, ?3)")?;
    let mut append = db.prepare_cached(
        r#"INSERT INTO votes (partition, "offset", key, vote_id, contest, name, album, year, rank, voter, accepted_at, producer)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"#,
    )?;
    let mut known = Vec::new();
    for (index, LoggedVote { position, vote }) in votes.iter().enumerate() {
        let (partition, offset, key) = (position.partition.0, position.offset.0, vote.key.as_str());
        if ballot.execute(params![key, partition, offset])? == 0 {
            known.push(index);
            continue;
        }
        append.execute(params![
            partition,
            offset,
            key,
            vote.vote_id.0.as_bytes(),
            vote.contest.as_str(),
            vote.name,
            vote.album,
            vote.year,
            vote.rank,
            vote.voter.as_ref().map(|voter| voter.0.as_slice()),
            vote.accepted_at.0,
            vote.producer.as_str(),
        ])?;
    }
    Ok(known)
}

/// Marks the originals of duplicates, and stores the duplicates. Returns whether the ledger has all originals. A
/// duplicate without its original is not stored.
fn record_all(db: &Connection, duplicates: &[Duplicate]) -> rusqlite::Result<bool> {
    // A batch may have many duplicates of one ballot. Their original is marked once.
    let mut offsets_by_original: BTreeMap<(LogPosition, &BallotKey), Vec<Offset>> = BTreeMap::new();
    for Duplicate { position, key, original } in duplicates {
        let original = LogPosition { partition: position.partition, offset: *original };
        offsets_by_original.entry((original, key)).or_default().push(position.offset);
    }
    let mut mark = db.prepare_cached(
        r#"UPDATE votes SET last_duplicate = max(ifnull(last_duplicate, -1), ?4)
            WHERE partition = ?1 AND "offset" = ?2 AND key = ?3"#,
    )?;
    let mut insert = db.prepare_cached(
        r#"INSERT OR REPLACE INTO duplicates (partition, "offset", key, original) VALUES (?1, ?2, ?3, ?4)"#,
    )?;
    let mut has_all_originals = true;
    for ((LogPosition { partition, offset: original }, key), offsets) in offsets_by_original {
        let last = offsets.iter().map(|offset| offset.0).max();
        if mark.execute(params![partition.0, original.0, key.as_str(), last])? == 0 {
            has_all_originals = false;
            continue;
        }
        for offset in offsets {
            insert.execute(params![partition.0, offset.0, key.as_str(), original.0])?;
        }
    }
    Ok(has_all_originals)
}

pub(super) fn read_checkpoint(db: &Connection, partition: Partition) -> rusqlite::Result<Checkpoint> {
    let sql = r#"SELECT "offset", last_offset, last_vote_id, cut_off FROM checkpoints WHERE partition = ?1"#;
    let checkpoint = db
        .prepare_cached(sql)?
        .query_row([partition.0], |row| {
            let last: Option<u64> = row.get(1)?;
            let last = last.map(|last| Ok::<_, rusqlite::Error>((Offset(last), read_vote_id(row, 2)?))).transpose()?;
            Ok(Checkpoint { offset: Offset(row.get(0)?), last, cut_off: Offset(row.get(3)?) })
        })
        .optional()?;
    Ok(checkpoint.unwrap_or_default())
}

fn read_youngest_expired(db: &Connection, partition: Partition) -> rusqlite::Result<Option<Duration>> {
    let sql = "SELECT youngest_expired FROM checkpoints WHERE partition = ?1";
    let millis = |row: &Row<'_>| row.get::<_, Option<u64>>(0);
    let youngest = db.prepare_cached(sql)?.query_row([partition.0], millis).optional()?;
    Ok(youngest.flatten().map(Duration::from_millis))
}

fn write_checkpoint(db: &Connection, partition: Partition, checkpoint: Checkpoint) -> rusqlite::Result<()> {
    let sql = r#"INSERT INTO checkpoints (partition, "offset", last_offset, last_vote_id) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT DO UPDATE SET "offset" = excluded."offset",
        last_offset = ifnull(excluded.last_offset, last_offset),
        last_vote_id = ifnull(excluded.last_vote_id, last_vote_id)"#;
    let (last_offset, last_vote_id) = checkpoint.last.unzip();
    let last_offset = last_offset.map(|offset| offset.0);
    let last_vote_id = last_vote_id.map(|id| *id.0.as_bytes());
    db.prepare_cached(sql)?.execute(params![partition.0, checkpoint.offset.0, last_offset, last_vote_id])?;
    Ok(())
}

const COLUMNS: &str =
    r#"partition, "offset", key, vote_id, contest, name, album, year, rank, voter, accepted_at, producer"#;

/// Reads a row of [`COLUMNS`].
fn read_vote(row: &Row<'_>) -> rusqlite::Result<LoggedVote> {
    let unreadable =
        |index: usize, problem: String| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, problem.into());
    let vote = Vote {
        vote_id: read_vote_id(row, 3)?,
        key: BallotKey::stored(row.get_ref(2)?.as_str()?),
        contest: row.get_ref(4)?.as_str()?.parse().map_err(|problem| unreadable(4, problem))?,
        name: row.get(5)?,
        album: row.get(6)?,
        year: row.get(7)?,
        rank: row.get(8)?,
        voter: row.get::<_, Option<[u8; 32]>>(9)?.map(VoterHash),
        accepted_at: UnixMillis(row.get(10)?),
        producer: row.get_ref(11)?.as_str()?.parse().map_err(|problem| unreadable(11, problem))?,
        traceparent: None,
    };
    Ok(LoggedVote { position: LogPosition { partition: Partition(row.get(0)?), offset: Offset(row.get(1)?) }, vote })
}

pub(super) fn read_vote_id(row: &Row<'_>, index: usize) -> rusqlite::Result<VoteId> {
    row.get::<_, [u8; 16]>(index).map(|bytes| VoteId(Uuid::from_bytes(bytes)))
}
