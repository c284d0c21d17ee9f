//! The ports `LedgerRetention`, which expires votes, and `LedgerRepair`, which sets a checkpoint back.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use votes::{Ledger, LedgerRepair, LedgerRetention, Offset, Partition, StoreError, Summary};

use crate::{
    database::used_bytes,
    ledger::{EmbeddedLedger, read_checkpoint},
    summary,
};

/// The maximum number of offsets that one transaction deletes, because other writes wait for the transaction.
const MAX_PURGED_OFFSETS: u64 = 2_000;

#[async_trait]
impl LedgerRetention for EmbeddedLedger {
    async fn put_summary(&self, partition: Partition, from: Offset, summary: Summary) -> Result<bool, StoreError> {
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

    async fn purge_expired(&self, partition: Partition) -> Result<u64, StoreError> {
        let cut_off = self.checkpoint(partition).await?.cut_off;
        let sql = r#"SELECT min("offset") FROM votes WHERE partition = ?1"#;
        let oldest = move |db: &Connection| db.prepare_cached(sql)?.query_row([partition.0], |row| row.get(0));
        let oldest: Option<u64> = self.readers.read(oldest).await?;
        let (mut from, mut purged) = (oldest.unwrap_or(u64::MAX), 0);
        while from < cut_off.0 {
            let to = (from + MAX_PURGED_OFFSETS).min(cut_off.0);
            purged += self.writer()?.run(move |db| purge_range(db, partition, (from, to), cut_off)).await?;
            from = to;
        }
        let sql = r#"DELETE FROM duplicates WHERE partition = ?1 AND "offset" < ?2"#;
        let duplicates = move |db: &Connection| db.prepare_cached(sql)?.execute(params![partition.0, cut_off.0]);
        self.writer()?.run(duplicates).await?;
        Ok(purged)
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

/// Deletes the votes with offsets in `[from, to)` and their ballots, except those that have a duplicate at or after the
/// cut-off. Returns the number of deleted votes.
fn purge_range(
    db: &Connection,
    partition: Partition,
    (from, to): (u64, u64),
    cut_off: Offset,
) -> rusqlite::Result<u64> {
    const WHERE: &str = r#"partition = ?1 AND "offset" >= ?2 AND "offset" < ?3
        AND "offset" NOT IN (SELECT original FROM duplicates WHERE partition = ?1 AND "offset" >= ?4)"#;
    let range = params![partition.0, from, to, cut_off.0];
    let sql = format!("DELETE FROM ballots WHERE key IN (SELECT key FROM votes WHERE {WHERE})");
    db.prepare_cached(&sql)?.execute(range)?;
    let purged = db.prepare_cached(&format!("DELETE FROM votes WHERE {WHERE}"))?.execute(range)?;
    Ok(purged as u64)
}
