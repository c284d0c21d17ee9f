//! The tallies' half of `count.db`.

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
    Added, AlbumVotes, BandVotes, ContestCounts, ContestId, Counts, Facts, Offset, Others, Partition, RateWindow,
    Snapshot, Store, StoreError, Tallies, Tally, UnixMillis, Window,
};

use super::{book::touch, database::Readers, writer::Tasks};

/// How often a reader in another process looks for changes.
const POLL: Duration = Duration::from_millis(50);

/// How often windows that are no longer kept are deleted.
const EXPIRE_EVERY: i64 = 60_000;

pub(super) struct EmbeddedTallies {
    readers: Arc<Readers>,
    writer: Option<Tasks>,
    version: watch::Sender<u64>,
    expired_at: Arc<AtomicI64>,
}

impl EmbeddedTallies {
    pub(super) fn new(readers: Arc<Readers>, writer: Option<Tasks>) -> Result<Self, crate::OpenError> {
        let version = readers.read_now(read_version).map_err(|error| crate::OpenError::new("count.db", error))?;
        Ok(Self { readers, writer, version: watch::Sender::new(version), expired_at: Arc::default() })
    }

    fn writer(&self) -> Result<&Tasks, StoreError> {
        self.writer.as_ref().ok_or_else(|| StoreError::new("count.db", "opened for reading only"))
    }

    /// Wakes whoever waits for a change.
    fn tell(&self, version: u64) {
        // Tasks of one transaction may be answered in any order.
        self.version.send_if_modified(|seen| {
            let is_newer = version > *seen;
            *seen = version.max(*seen);
            is_newer
        });
    }
}

#[async_trait]
impl Store for EmbeddedTallies {
    async fn check(&self) -> Result<Facts, StoreError> {
        match &self.writer {
            Some(writer) => writer.run(touch).await,
            None => self.readers.read(read_version).await.map(|_| ()),
        }?;
        Ok(Facts::new())
    }
}

#[async_trait]
impl Tallies for EmbeddedTallies {
    async fn position(&self, partition: Partition) -> Result<Offset, StoreError> {
        self.readers.read(move |db| read_position(db, partition)).await
    }

    async fn add(&self, partition: Partition, from: Offset, to: Offset, counts: Counts) -> Result<Added, StoreError> {
        let expired_at = Arc::clone(&self.expired_at);
        let added = self
            .writer()?
            .run(move |db| {
                let position = read_position(db, partition)?;
                if position != from {
                    return Ok(Err(position));
                }
                add_counts(db, &counts)?;
                db.prepare_cached("INSERT OR REPLACE INTO positions VALUES (?1, ?2)")?
                    .execute([u64::from(partition.0), to.0])?;
                expire_windows(db, &expired_at)?;
                Ok(Ok(raise_version(db)?))
            })
            .await?;
        Ok(match added {
            Ok(version) => {
                self.tell(version);
                Added::Added
            }
            Err(position) => Added::Fenced(position),
        })
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

    async fn changed(&self, seen: u64) -> Result<u64, StoreError> {
        if self.writer.is_some() {
            let mut version = self.version.subscribe();
            let version = version.wait_for(|version| *version != seen).await;
            return version.map(|version| *version).map_err(|error| StoreError::new("count.db", error));
        }
        loop {
            let version = self.readers.read(read_version).await?;
            if version != seen {
                return Ok(version);
            }
            sleep(POLL).await;
        }
    }

    async fn clear(&self) -> Result<(), StoreError> {
        let version = self
            .writer()?
            .run(|db| {
                for table in ["positions", "bands", "albums", "doors", "windows"] {
                    db.execute(&format!("DELETE FROM {table}"), [])?;
                }
                raise_version(db)
            })
            .await?;
        self.tell(version);
        Ok(())
    }
}

fn raise_version(db: &Connection) -> rusqlite::Result<u64> {
    let raise = "UPDATE meta SET value = value + 1 WHERE key = 'version' RETURNING value";
    db.prepare_cached(raise)?.query_row([], |row| row.get(0))
}

fn read_version(db: &Connection) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT value FROM meta WHERE key = 'version'")?.query_row([], |row| row.get(0))
}

fn read_position(db: &Connection, partition: Partition) -> rusqlite::Result<Offset> {
    let sql = r#"SELECT "offset" FROM positions WHERE partition = ?1"#;
    let position = db.prepare_cached(sql)?.query_row([partition.0], |row| row.get(0)).optional()?;
    Ok(Offset(position.unwrap_or(0)))
}

fn add_counts(db: &Connection, counts: &Counts) -> rusqlite::Result<()> {
    let add = |table: &str, keys: &str| {
        let marks = vec!["?"; keys.split(", ").count() + 1].join(", ");
        db.prepare_cached(&format!(
            "INSERT INTO {table} ({keys}, votes) VALUES ({marks}) ON CONFLICT DO UPDATE SET votes = votes + excluded.votes"
        ))
    };
    let mut bands = add("bands", "contest, name")?;
    let mut albums = add("albums", "contest, name, album")?;
    let mut doors = add("doors", "contest, door")?;
    let mut windows = add("windows", "size, start, contest")?;
    for (contest, counts) in &counts.contests {
        let contest = contest.as_str();
        for (name, votes) in &counts.bands {
            bands.execute(params![contest, name, votes])?;
        }
        for ((name, album), votes) in &counts.albums {
            albums.execute(params![contest, name, album, votes])?;
        }
        for (door, votes) in &counts.doors {
            doors.execute(params![contest, door.as_str(), votes])?;
        }
        for ((window, start), votes) in &counts.windows {
            windows.execute(params![window.millis(), start.0, contest, votes])?;
        }
    }
    Ok(())
}

/// Deletes windows past their time, once a minute.
fn expire_windows(db: &Connection, expired_at: &AtomicI64) -> rusqlite::Result<()> {
    let now = UnixMillis::now().0;
    if now - expired_at.load(Ordering::Relaxed) < EXPIRE_EVERY {
        return Ok(());
    }
    expired_at.store(now, Ordering::Relaxed);
    let mut expire = db.prepare_cached("DELETE FROM windows WHERE size = ?1 AND start < ?2")?;
    for window in Window::ALL {
        if let Some(kept) = window.kept_for() {
            let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
            expire.execute([window.millis(), now - kept])?;
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
    let doors = db
        .prepare_cached("SELECT door, votes FROM doors WHERE contest = ?1")?
        .query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<BTreeMap<String, u64>>>()?;
    let processed =
        db.prepare_cached(r#"SELECT ifnull(sum("offset"), 0) FROM positions"#)?.query_row([], |row| row.get(0))?;
    Ok(Tally { total, version: read_version(db)?, bands: leading, others, doors, processed, contest })
}

fn read_snapshot(db: &Connection) -> rusqlite::Result<Snapshot> {
    let mut snapshot = Snapshot {
        positions: db
            .prepare(r#"SELECT partition, "offset" FROM positions"#)?
            .query_map([], |row| Ok((Partition(row.get(0)?), Offset(row.get(1)?))))?
            .collect::<rusqlite::Result<_>>()?,
        contests: BTreeMap::new(),
    };
    for_each(db, "SELECT contest, votes, name FROM bands", &mut snapshot, |contest, votes, row| {
        contest.bands.insert(row.get(2)?, votes);
        Ok(())
    })?;
    for_each(db, "SELECT contest, votes, name, album FROM albums", &mut snapshot, |contest, votes, row| {
        contest.albums.insert((row.get(2)?, row.get(3)?), votes);
        Ok(())
    })?;
    for_each(db, "SELECT contest, votes, door FROM doors", &mut snapshot, |contest, votes, row| {
        let door = row.get_ref(2)?.as_str()?.parse().map_err(|problem| unknown(2, problem))?;
        contest.doors.insert(door, votes);
        Ok(())
    })?;
    for_each(db, "SELECT contest, votes, size, start FROM windows", &mut snapshot, |contest, votes, row| {
        let size: i64 = row.get(2)?;
        let window = Window::ALL.into_iter().find(|window| window.millis() == size);
        let window = window.ok_or_else(|| unknown(2, format!("{size} ms is no window")))?;
        contest.windows.insert((window, UnixMillis(row.get(3)?)), votes);
        Ok(())
    })?;
    Ok(snapshot)
}

/// Reads rows of `contest, votes, ...` into the counts of their contest.
fn for_each(
    db: &Connection,
    sql: &str,
    snapshot: &mut Snapshot,
    mut take: impl FnMut(&mut ContestCounts, u64, &Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut query = db.prepare(sql)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let contest: ContestId = row.get_ref(0)?.as_str()?.parse().map_err(|problem| unknown(0, problem))?;
        take(snapshot.contests.entry(contest).or_default(), row.get(1)?, row)?;
    }
    Ok(())
}

fn unknown(index: usize, problem: String) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, Type::Text, problem.into())
}
