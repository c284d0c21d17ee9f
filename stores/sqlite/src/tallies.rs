//! The port `Tallies`, in `count.db`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};
use tokio::{
    sync::watch,
    time::{Duration, sleep},
};
use votes::{
    Added, AlbumVotes, BandVotes, ClearCondition, ContestCounts, ContestId, Counts, HealthDetails, Offset, Others,
    Partition, RateWindow, Snapshot, Store, StoreError, Tallies, TalliesPosition, Tally, UnixMillis, Window,
};

use crate::{
    database::{Readers, write_probe},
    ledger::read_vote_id,
    writer::WriteExecutor,
};

/// The time between two checks for changes, in a process that only reads.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The shortest time between two deletions of expired windows, in milliseconds.
const EXPIRE_INTERVAL_MS: i64 = 60_000;

pub(super) struct EmbeddedTallies {
    readers: Arc<Readers>,
    writer: Option<WriteExecutor>,
    version: watch::Sender<u64>,
    /// When expired windows were deleted last, in Unix milliseconds.
    expired_at: Arc<AtomicI64>,
}

impl EmbeddedTallies {
    pub(super) fn new(readers: Arc<Readers>, writer: Option<WriteExecutor>) -> Result<Self, votes::OpenError> {
        let version = readers.read_blocking(read_version).map_err(|error| votes::OpenError::new("count.db", error))?;
        Ok(Self { readers, writer, version: watch::Sender::new(version), expired_at: Arc::default() })
    }

    fn writer(&self) -> Result<&WriteExecutor, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::new("count.db", "opened for reading only"))
    }

    /// Wakes the callers that wait for a new version.
    fn publish_version(&self, version: u64) {
        // The tasks whose writes share a transaction may call this in any order.
        self.version.send_if_modified(|newest| {
            let is_newer = version > *newest;
            *newest = version.max(*newest);
            is_newer
        });
    }
}

#[async_trait]
impl Store for EmbeddedTallies {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        match &self.writer {
            Some(writer) => writer.run(write_probe).await,
            None => self.readers.read(read_version).await.map(|_| ()),
        }?;
        Ok(HealthDetails::new())
    }
}

#[async_trait]
impl Tallies for EmbeddedTallies {
    async fn position(&self, partition: Partition) -> Result<TalliesPosition, StoreError> {
        self.readers.read(move |db| read_position(db, partition)).await
    }

    async fn add(
        &self,
        partition: Partition,
        from: Offset,
        to: TalliesPosition,
        counts: Counts,
    ) -> Result<Added, StoreError> {
        let expired_at = Arc::clone(&self.expired_at);
        let added = self
            .writer()?
            .run(move |db| {
                let TalliesPosition { offset, last } = read_position(db, partition)?;
                if offset != from {
                    return Ok(Err(offset));
                }
                add_counts(db, &counts)?;
                write_position(db, partition, TalliesPosition { last: to.last.or(last), ..to })?;
                expire_windows(db, &expired_at)?;
                Ok(Ok(raise_version(db)?))
            })
            .await?;
        Ok(match added {
            Ok(version) => {
                self.publish_version(version);
                Added::Added
            }
            Err(position) => Added::Fenced(position),
        })
    }

    async fn announce_recount(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        let announce = move |db: &Connection| {
            let sql = r#"INSERT OR REPLACE INTO recounts (partition, "offset") VALUES (?1, ?2)"#;
            db.prepare_cached(sql)?.execute(params![partition.0, to.0])
        };
        self.writer()?.run(announce).await.map(|_| ())
    }

    async fn tally(&self, contest: &ContestId, top: usize) -> Result<Tally, StoreError> {
        let contest = contest.clone();
        self.readers.read(move |db| read_tally(db, contest, top)).await
    }

    async fn albums(&self, contest: &ContestId, top: usize) -> Result<Vec<AlbumVotes>, StoreError> {
        let contest = contest.clone();
        self.readers
            .read(move |db| {
                let sql = "SELECT name, album, votes FROM albums WHERE contest = ?1
                    ORDER BY votes DESC, name, album LIMIT ?2";
                db.prepare_cached(sql)?
                    .query_map(params![contest.as_str(), top], |row| {
                        Ok(AlbumVotes { name: row.get(0)?, album: row.get(1)?, votes: row.get(2)? })
                    })?
                    .collect()
            })
            .await
    }

    async fn rates(
        &self,
        contest: Option<&ContestId>,
        window: Window,
        from: UnixMillis,
        to: UnixMillis,
    ) -> Result<Vec<RateWindow>, StoreError> {
        let contest = contest.map(|contest| contest.as_str().to_owned());
        self.readers
            .read(move |db| {
                let sql = "SELECT start, sum(votes) FROM windows
                    WHERE size = ?1 AND start >= ?2 AND start < ?3 AND (?4 IS NULL OR contest = ?4)
                    GROUP BY start ORDER BY start";
                db.prepare_cached(sql)?
                    .query_map(params![window.millis(), from.0, to.0, contest], |row| {
                        Ok(RateWindow { start: UnixMillis(row.get(0)?), votes: row.get(1)? })
                    })?
                    .collect()
            })
            .await
    }

    async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.readers.read(read_snapshot).await
    }

    async fn changed(&self, version: u64) -> Result<u64, StoreError> {
        if self.writer.is_some() {
            let mut current = self.version.subscribe();
            let changed = current.wait_for(|current| *current != version).await;
            return changed.map(|changed| *changed).map_err(|error| StoreError::new("count.db", error));
        }
        loop {
            let current = self.readers.read(read_version).await?;
            if current != version {
                return Ok(current);
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn clear(&self, condition: ClearCondition) -> Result<bool, StoreError> {
        let version = self
            .writer()?
            .run(move |db| {
                if let ClearCondition::IfAt(partition, offset) = condition
                    && read_position(db, partition)?.offset != offset
                {
                    return Ok(None);
                }
                for table in ["positions", "bands", "albums", "producers", "windows"] {
                    db.execute(&format!("DELETE FROM {table}"), [])?;
                }
                raise_version(db).map(Some)
            })
            .await?;
        if let Some(version) = version {
            self.publish_version(version);
        }
        Ok(version.is_some())
    }
}

fn raise_version(db: &Connection) -> rusqlite::Result<u64> {
    let raise = "UPDATE meta SET value = value + 1 WHERE key = 'version' RETURNING value";
    db.prepare_cached(raise)?.query_row([], |row| row.get(0))
}

fn read_version(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT value FROM meta WHERE key = 'version'")?.query_row([], |row| row.get(0))
}

fn read_position(db: &Connection, partition: Partition) -> rusqlite::Result<TalliesPosition> {
    let sql = r#"SELECT "offset", last_offset, last_vote_id FROM positions WHERE partition = ?1"#;
    let position = db.prepare_cached(sql)?.query_row([partition.0], |row| {
        let last: Option<u64> = row.get(1)?;
        let last = last.map(|last| Ok::<_, rusqlite::Error>((Offset(last), read_vote_id(row, 2)?))).transpose()?;
        Ok(TalliesPosition { offset: Offset(row.get(0)?), last })
    });
    Ok(position.optional()?.unwrap_or_default())
}

fn write_position(db: &Connection, partition: Partition, position: TalliesPosition) -> rusqlite::Result<()> {
    let (last_offset, last_vote_id) = position.last.unzip();
    let last_offset = last_offset.map(|offset| offset.0);
    let last_vote_id = last_vote_id.map(|id| *id.0.as_bytes());
    let sql = "INSERT OR REPLACE INTO positions VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(sql)?.execute(params![partition.0, position.offset.0, last_offset, last_vote_id])?;
    Ok(())
}

fn add_counts(db: &Connection, counts: &Counts) -> rusqlite::Result<()> {
    let add = |table: &str, keys: &str| {
        let placeholders = vec!["?"; keys.split(", ").count() + 1].join(", ");
        db.prepare_cached(&format!(
            "INSERT INTO {table} ({keys}, votes) VALUES ({placeholders}) ON CONFLICT DO UPDATE SET votes = votes + excluded.votes"
        ))
    };
    let mut bands = add("bands", "contest, name")?;
    let mut albums = add("albums", "contest, name, album")?;
    let mut producers = add("producers", "contest, producer")?;
    let mut windows = add("windows", "size, start, contest")?;
    for (contest, counts) in &counts.contests {
        let contest = contest.as_str();
        for (name, votes) in &counts.bands {
            bands.execute(params![contest, name, votes])?;
        }
        for ((name, album), votes) in &counts.albums {
            albums.execute(params![contest, name, album, votes])?;
        }
        for (producer, votes) in &counts.producers {
            producers.execute(params![contest, producer.as_str(), votes])?;
        }
        for ((window, start), votes) in &counts.windows {
            windows.execute(params![window.millis(), start.0, contest, votes])?;
        }
    }
    Ok(())
}

/// Deletes expired windows, at most once per [`EXPIRE_INTERVAL_MS`].
fn expire_windows(db: &Connection, expired_at: &AtomicI64) -> rusqlite::Result<()> {
    let now = UnixMillis::now().0;
    if now - expired_at.load(Ordering::Relaxed) < EXPIRE_INTERVAL_MS {
        return Ok(());
    }
    expired_at.store(now, Ordering::Relaxed);
    let mut expire = db.prepare_cached("DELETE FROM windows WHERE size = ?1 AND start < ?2")?;
    for window in Window::ALL {
        if let Some(retained) = window.retention() {
            let retained = i64::try_from(retained.as_millis()).unwrap_or(i64::MAX);
            expire.execute([window.millis(), now - retained])?;
        }
    }
    Ok(())
}

fn read_tally(db: &Connection, contest: ContestId, top: usize) -> rusqlite::Result<Tally> {
    let id = contest.as_str();
    let (total, bands): (u64, u64) = db
        .prepare_cached("SELECT ifnull(sum(votes), 0), count(*) FROM bands WHERE contest = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let share = |votes: u64| if total == 0 { 0.0 } else { votes as f64 / total as f64 };
    let leading: Vec<BandVotes> = db
        .prepare_cached("SELECT name, votes FROM bands WHERE contest = ?1 ORDER BY votes DESC, name LIMIT ?2")?
        .query_map(params![id, top], |row| {
            let votes = row.get(1)?;
            Ok(BandVotes { name: row.get(0)?, votes, share: share(votes) })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let others = Others {
        bands: bands - leading.len() as u64,
        votes: total - leading.iter().map(|band| band.votes).sum::<u64>(),
    };
    let producers = db
        .prepare_cached("SELECT producer, votes FROM producers WHERE contest = ?1")?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<BTreeMap<String, u64>>>()?;
    let processed =
        db.prepare_cached(r#"SELECT ifnull(sum("offset"), 0) FROM positions"#)?.query_row([], |row| row.get(0))?;
    let recounting = db
        .prepare_cached(
            r#"SELECT EXISTS (SELECT 1 FROM recounts LEFT JOIN positions USING (partition)
               WHERE ifnull(positions."offset", 0) < recounts."offset")"#,
        )?
        .query_row([], |row| row.get(0))?;
    let version = read_version(db)?;
    Ok(Tally { total, version, bands: leading, others, producers, processed, recounting, contest })
}

fn read_snapshot(db: &Connection) -> rusqlite::Result<Snapshot> {
    let mut snapshot = Snapshot {
        positions: db
            .prepare(r#"SELECT partition, "offset" FROM positions"#)?
            .query_map([], |row| Ok((Partition(row.get(0)?), Offset(row.get(1)?))))?
            .collect::<rusqlite::Result<_>>()?,
        contests: BTreeMap::new(),
    };
    for_each_row(db, "SELECT contest, votes, name FROM bands", &mut snapshot, |contest, votes, row| {
        contest.bands.insert(row.get(2)?, votes);
        Ok(())
    })?;
    for_each_row(db, "SELECT contest, votes, name, album FROM albums", &mut snapshot, |contest, votes, row| {
        contest.albums.insert((row.get(2)?, row.get(3)?), votes);
        Ok(())
    })?;
    for_each_row(db, "SELECT contest, votes, producer FROM producers", &mut snapshot, |contest, votes, row| {
        let producer = row.get_ref(2)?.as_str()?.parse().map_err(|problem| unreadable(2, problem))?;
        contest.producers.insert(producer, votes);
        Ok(())
    })?;
    for_each_row(db, "SELECT contest, votes, size, start FROM windows", &mut snapshot, |contest, votes, row| {
        let size: i64 = row.get(2)?;
        let window = Window::ALL.into_iter().find(|window| window.millis() == size);
        let window = window.ok_or_else(|| unreadable(2, format!("{size} ms is not the size of a window")))?;
        contest.windows.insert((window, UnixMillis(row.get(3)?)), votes);
        Ok(())
    })?;
    Ok(snapshot)
}

/// Runs a query for rows of `contest, votes, ...`. Calls `add` for each row with the counts of its contest.
fn for_each_row(
    db: &Connection,
    sql: &str,
    snapshot: &mut Snapshot,
    mut add: impl FnMut(&mut ContestCounts, u64, &Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut query = db.prepare(sql)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let contest: ContestId = row.get_ref(0)?.as_str()?.parse().map_err(|problem| unreadable(0, problem))?;
        add(snapshot.contests.entry(contest).or_default(), row.get(1)?, row)?;
    }
    Ok(())
}

fn unreadable(index: usize, problem: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, problem.into())
}
