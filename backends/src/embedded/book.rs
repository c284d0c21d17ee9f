//! The book's half of `count.db`.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};
use uuid::Uuid;
use votes::{
    Advanced, BallotKey, Book, Checkpoint, Facts, LoggedVote, Offset, Partition, Place, Repeat, Store, StoreError,
    Summary, UnixMillis, Vote, VoteId, VoterHash,
};

use super::{
    database::{Readers, used_bytes},
    summary,
    writer::Tasks,
};

/// Votes that are deleted in one transaction: others wait for it.
const FORGET_CHUNK: u64 = 2_000;

pub(super) struct EmbeddedBook {
    readers: Arc<Readers>,
    writer: Option<Tasks>,
}

impl EmbeddedBook {
    pub(super) fn new(readers: Arc<Readers>, writer: Option<Tasks>) -> Self {
        Self { readers, writer }
    }

    fn writer(&self) -> Result<&Tasks, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::new("count.db", "opened for reading only"))
    }
}

#[async_trait]
impl Store for EmbeddedBook {
    async fn check(&self) -> Result<Facts, StoreError> {
        match &self.writer {
            Some(writer) => writer.run(touch).await,
            None => self.readers.read(|db| db.query_row("SELECT 1", [], |_| Ok(()))).await,
        }?;
        Ok(Facts::new())
    }
}

#[async_trait]
impl Book for EmbeddedBook {
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError> {
        self.readers.read(move |db| read_checkpoint(db, partition)).await
    }

    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError> {
        self.writer()?.run(move |db| insert_all(db, &votes)).await
    }

    async fn locate(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<Place>>, StoreError> {
        self.readers
            .read(move |db| {
                let mut query = db.prepare_cached(r#"SELECT partition, "offset" FROM ballots WHERE key = ?1"#)?;
                let place =
                    |row: &Row<'_>| Ok(Place { partition: Partition(row.get(0)?), offset: Offset(row.get(1)?) });
                keys.iter().map(|key| query.query_row([key.as_str()], place).optional()).collect()
            })
            .await
    }

    async fn advance(
        &self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Result<Advanced, StoreError> {
        self.writer()?
            .run(move |db| {
                let Checkpoint { offset: booked, cut_off, .. } = read_checkpoint(db, partition)?;
                if cut_off != checkpoint.cut_off {
                    return Ok(Advanced::Expired(cut_off));
                }
                if booked < from {
                    return Ok(Advanced::Hole(booked));
                }
                if booked < checkpoint.offset {
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
        most: usize,
    ) -> Result<Vec<LoggedVote>, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let sql = format!(
            r#"SELECT {COLUMNS} FROM votes WHERE partition = ?1 AND "offset" >= ?2 AND "offset" < ?3
                ORDER BY "offset" LIMIT ?4"#
        );
        self.readers
            .read(move |db| {
                let mut query = db.prepare_cached(&sql)?;
                query.query_map(params![partition.0, from.0, to.0, most], read_vote)?.collect()
            })
            .await
    }

    async fn note_repeats(&self, repeats: Vec<Repeat>) -> Result<(), StoreError> {
        self.writer()?
            .run(move |db| {
                let mut note = db.prepare_cached("INSERT OR REPLACE INTO repeats VALUES (?1, ?2, ?3)")?;
                for Repeat { place, of } in &repeats {
                    note.execute(params![place.partition.0, place.offset.0, of.0])?;
                }
                Ok(())
            })
            .await
    }

    async fn repeats(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Repeat>, StoreError> {
        let sql = r#"SELECT "offset", of FROM repeats WHERE partition = ?1 AND "offset" >= ?2 AND "offset" < ?3
            ORDER BY "offset""#;
        // SQLite's numbers are signed.
        let to = to.0.min(i64::MAX.unsigned_abs());
        self.readers
            .read(move |db| {
                let repeat = |row: &Row<'_>| {
                    let place = Place { partition, offset: Offset(row.get(0)?) };
                    Ok(Repeat { place, of: Offset(row.get(1)?) })
                };
                db.prepare_cached(sql)?.query_map(params![partition.0, from.0, to], repeat)?.collect()
            })
            .await
    }

    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError> {
        self.readers
            .read(move |db| {
                let cut_off = read_checkpoint(db, partition)?.cut_off;
                Ok(Summary { cut_off, counts: summary::read(db, partition)? })
            })
            .await
    }

    async fn summarise(&self, partition: Partition, from: Offset, summary: Summary) -> Result<bool, StoreError> {
        self.writer()?
            .run(move |db| {
                if read_checkpoint(db, partition)?.cut_off != from {
                    return Ok(false);
                }
                let sql = r#"INSERT INTO checkpoints (partition, "offset", cut_off) VALUES (?1, 0, ?2)
                    ON CONFLICT DO UPDATE SET cut_off = excluded.cut_off"#;
                db.prepare_cached(sql)?.execute(params![partition.0, summary.cut_off.0])?;
                summary::replace(db, partition, &summary.counts)?;
                Ok(true)
            })
            .await
    }

    async fn forget(&self, partition: Partition) -> Result<u64, StoreError> {
        let cut_off = self.checkpoint(partition).await?.cut_off;
        let sql = r#"SELECT min("offset") FROM votes WHERE partition = ?1"#;
        let oldest = move |db: &Connection| db.prepare_cached(sql)?.query_row([partition.0], |row| row.get(0));
        let oldest: Option<u64> = self.readers.read(oldest).await?;
        let (mut from, mut forgotten) = (oldest.unwrap_or(u64::MAX), 0);
        while from < cut_off.0 {
            let to = (from + FORGET_CHUNK).min(cut_off.0);
            forgotten += self.writer()?.run(move |db| forget(db, partition, (from, to), cut_off)).await?;
            from = to;
        }
        let sql = r#"DELETE FROM repeats WHERE partition = ?1 AND "offset" < ?2"#;
        let repeats = move |db: &Connection| db.prepare_cached(sql)?.execute(params![partition.0, cut_off.0]);
        self.writer()?.run(repeats).await?;
        Ok(forgotten)
    }

    async fn size(&self) -> Result<u64, StoreError> {
        self.readers.read(used_bytes).await
    }

    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        let sql = r#"INSERT INTO checkpoints (partition, "offset") VALUES (?1, ?2)
            ON CONFLICT DO UPDATE SET "offset" = excluded."offset", last_offset = NULL, last_vote_id = NULL"#;
        self.writer()?.run(move |db| db.prepare_cached(sql)?.execute(params![partition.0, to.0]).map(drop)).await
    }
}

/// Writes a little, to know that the disk takes it.
pub(super) fn touch(db: &Connection) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta VALUES ('checked_at', ?1)")?.execute([UnixMillis::now().0])?;
    Ok(())
}

/// Ballots whose vote is not in the book.
pub(super) fn count_orphans(db: &Connection) -> rusqlite::Result<u64> {
    let sql = r#"SELECT count(*) FROM ballots LEFT JOIN votes USING (partition, "offset")
        WHERE votes.key IS NULL OR votes.key <> ballots.key"#;
    db.query_row(sql, [], |row| row.get(0))
}

fn insert_all(db: &Connection, votes: &[LoggedVote]) -> rusqlite::Result<Vec<usize>> {
    let mut ballot = db.prepare_cached("INSERT OR IGNORE INTO ballots VALUES (?1, ?2, ?3)")?;
    let mut append = db.prepare_cached(
        r#"INSERT INTO votes (partition, "offset", key, vote_id, contest, name, album, year, rank, voter, accepted_at, door)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"#,
    )?;
    let mut known = Vec::new();
    for (index, LoggedVote { place, vote }) in votes.iter().enumerate() {
        let (partition, offset, key) = (place.partition.0, place.offset.0, vote.key.as_str());
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
            vote.door.as_str(),
        ])?;
    }
    Ok(known)
}

/// Deletes the votes and ballots in `[from, to)`, but for those that a repeat at or after the cut-off needs.
fn forget(db: &Connection, partition: Partition, (from, to): (u64, u64), cut_off: Offset) -> rusqlite::Result<u64> {
    const WHERE: &str = r#"partition = ?1 AND "offset" >= ?2 AND "offset" < ?3
        AND "offset" NOT IN (SELECT of FROM repeats WHERE partition = ?1 AND "offset" >= ?4)"#;
    let range = params![partition.0, from, to, cut_off.0];
    let sql = format!("DELETE FROM ballots WHERE key IN (SELECT key FROM votes WHERE {WHERE})");
    db.prepare_cached(&sql)?.execute(range)?;
    let forgotten = db.prepare_cached(&format!("DELETE FROM votes WHERE {WHERE}"))?.execute(range)?;
    Ok(forgotten as u64)
}

fn read_checkpoint(db: &Connection, partition: Partition) -> rusqlite::Result<Checkpoint> {
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

fn write_checkpoint(db: &Connection, partition: Partition, checkpoint: Checkpoint) -> rusqlite::Result<()> {
    let sql = r#"INSERT INTO checkpoints VALUES (?1, ?2, ?3, ?4, 0) ON CONFLICT DO UPDATE SET "offset" = excluded."offset",
        last_offset = ifnull(excluded.last_offset, last_offset),
        last_vote_id = ifnull(excluded.last_vote_id, last_vote_id)"#;
    let (last_offset, last_vote_id) = checkpoint.last.unzip();
    let last_offset = last_offset.map(|offset| offset.0);
    let last_vote_id = last_vote_id.map(|id| *id.0.as_bytes());
    db.prepare_cached(sql)?.execute(params![partition.0, checkpoint.offset.0, last_offset, last_vote_id])?;
    Ok(())
}

const COLUMNS: &str =
    r#"partition, "offset", key, vote_id, contest, name, album, year, rank, voter, accepted_at, door"#;

/// Reads a row of [`COLUMNS`].
fn read_vote(row: &Row<'_>) -> rusqlite::Result<LoggedVote> {
    let text =
        |index: usize, problem: String| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, problem.into());
    let vote = Vote {
        vote_id: read_vote_id(row, 3)?,
        key: BallotKey::stored(row.get_ref(2)?.as_str()?),
        contest: row.get_ref(4)?.as_str()?.parse().map_err(|problem| text(4, problem))?,
        name: row.get(5)?,
        album: row.get(6)?,
        year: row.get(7)?,
        rank: row.get(8)?,
        voter: row.get::<_, Option<[u8; 32]>>(9)?.map(VoterHash),
        accepted_at: UnixMillis(row.get(10)?),
        door: row.get_ref(11)?.as_str()?.parse().map_err(|problem| text(11, problem))?,
        traceparent: None,
    };
    Ok(LoggedVote { place: Place { partition: Partition(row.get(0)?), offset: Offset(row.get(1)?) }, vote })
}

fn read_vote_id(row: &Row<'_>, index: usize) -> rusqlite::Result<VoteId> {
    row.get::<_, [u8; 16]>(index).map(|bytes| VoteId(Uuid::from_bytes(bytes)))
}
