//! The ports `LedgerRetention`, which expires votes, and `LedgerRepair`, which sets a checkpoint back.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use votes::{BallotKey, LedgerRepair, LedgerRetention, Offset, Partition, Purged, StoreError, Summary};

use crate::{
    database::used_bytes,
    ledger::{EmbeddedLedger, read_checkpoint},
    summary,
};

#[async_trait]
impl LedgerRetention for EmbeddedLedger {
    async fn add_to_summary(&self, partition: Partition, from: Offset, expired: Summary) -> Result<bool, StoreError> {
        let youngest = expired.youngest_expired.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        // `min` of a number and NULL would be NULL.
        let sql = r#"INSERT INTO checkpoints (partition, "offset", cut_off, youngest_expired) VALUES (?1, 0, ?2, ?3)
            ON CONFLICT DO UPDATE SET cut_off = excluded.cut_off,
            youngest_expired = min(ifnull(youngest_expired, excluded.youngest_expired),
                ifnull(excluded.youngest_expired, youngest_expired))"#;
        self.writer()?
            .run(move |db| {
                if read_checkpoint(db, partition)?.cut_off != from {
                    return Ok(false);
                }
                db.prepare_cached(sql)?.execute(params![partition.0, expired.cut_off.0, youngest])?;
                summary::add(db, partition, &expired.counts)?;
                Ok(true)
            })
            .await
    }

    /// Purges in one transaction. Other writes wait for it, so there must not be many votes and duplicates.
    async fn purge_expired(
        &self,
        partition: Partition,
        votes: Vec<(BallotKey, Offset)>,
        max_duplicates: usize,
    ) -> Result<Purged, StoreError> {
        let max_duplicates = i64::try_from(max_duplicates).unwrap_or(i64::MAX);
        self.writer()?.run(move |db| purge(db, partition, &votes, max_duplicates)).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        self.readers.read(used_bytes).await
    }
}

#[async_trait]
impl LedgerRepair for EmbeddedLedger {
    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        let sql = r#"INSERT INTO checkpoints (partition, "offset") VALUES (?1, ?2)
            ON CONFLICT DO UPDATE SET "offset" = excluded."offset", last_offset = NULL, last_vote_id = NULL"#;
        self.writer()?.run(move |db| db.prepare_cached(sql)?.execute(params![partition.0, to.0]).map(drop)).await
    }
}

/// Deletes votes, and the first `max_duplicates` duplicates with their originals, as far as they are below the cut-off. Of
/// these votes, those that have a duplicate at or after the cut-off stay.
fn purge(
    db: &Connection,
    partition: Partition,
    votes: &[(BallotKey, Offset)],
    max_duplicates: i64,
) -> rusqlite::Result<Purged> {
    let cut_off = read_checkpoint(db, partition)?.cut_off.0;
    let mut deleted = 0;
    for (key, offset) in votes {
        deleted += delete_vote(db, partition, (key.as_str(), offset.0), cut_off)?;
    }
    let sql = r#"SELECT "offset", key, original FROM duplicates WHERE partition = ?1 AND "offset" < ?2
        ORDER BY "offset" LIMIT ?3"#;
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params![partition.0, cut_off, max_duplicates])?;
    let (mut duplicates, mut last) = (0, None);
    while let Some(row) = rows.next()? {
        deleted += delete_vote(db, partition, (row.get_ref(1)?.as_str()?, row.get(2)?), cut_off)?;
        duplicates += 1;
        last = Some(row.get::<_, u64>(0)?);
    }
    drop(rows);
    let sql = r#"DELETE FROM duplicates WHERE partition = ?1 AND "offset" <= ?2"#;
    if let Some(last) = last {
        db.prepare_cached(sql)?.execute(params![partition.0, last])?;
    }
    Ok(Purged { votes: deleted, is_done: duplicates < max_duplicates })
}

/// Deletes a vote and its ballot, unless the vote has a duplicate at or after the cut-off. Returns the number of deleted
/// votes.
fn delete_vote(
    db: &Connection,
    partition: Partition,
    (key, offset): (&str, u64),
    cut_off: u64,
) -> rusqlite::Result<u64> {
    let sql = r#"DELETE FROM votes WHERE partition = ?1 AND "offset" = ?2 AND "offset" < ?4 AND key = ?3
        AND ifnull(last_duplicate, -1) < ?4"#;
    let votes = db.prepare_cached(sql)?.execute(params![partition.0, offset, key, cut_off])?;
    if votes > 0 {
        db.prepare_cached("DELETE FROM ballots WHERE key = ?1")?.execute([key])?;
    }
    Ok(votes as u64)
}
