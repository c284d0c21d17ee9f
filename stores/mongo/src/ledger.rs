//! The ledger in `MongoDB`, behind the port `Ledger`.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use mongodb::{
    Collection, Database,
    bson::{DateTime, Document, RawDocumentBuf, doc},
    options::FindOptions,
};
use votes::{
    Advanced, BallotKey, Checkpoint, ConnectError, Duplicate, HealthDetails, Ledger, LogPosition, LoggedVote, Offset,
    Partition, Store, StoreError, Summary,
};

use crate::{
    call::{STORE, driver_error, failed, is_duplicate_key, with_timeout},
    checkpoints::{self, MAX_ATTEMPTS, number_filter},
    connect::{self, majority_collection},
    document::{int64, offsets_in, read_duplicate, read_position, read_vote},
    duplicates,
    insert::Inserter,
    summary::Summaries,
};

/// The maximum number of ballot keys in one `find`. Such a command is far below the limit of 16 MB.
const MAX_KEYS_PER_FIND: usize = 10_000;

/// The maximum number of documents in a reply. `MongoDB`'s default is 101 documents in the first reply. A reply also has
/// at most 16 MB.
pub(super) const MAX_REPLY_DOCUMENTS: u32 = 10_000;

/// The ledger of one database.
pub struct MongoLedger {
    pub(super) database: Database,
    /// The votes. This collection and the following ones are read from the primary. Reads and writes have the concern
    /// `majority`.
    pub(super) votes: Collection<RawDocumentBuf>,
    inserter: Inserter,
    pub(super) checkpoints: Collection<RawDocumentBuf>,
    pub(super) duplicates: Collection<RawDocumentBuf>,
    pub(super) summaries: Summaries,
}

impl MongoLedger {
    /// Connects to the ledger that a URL names, creates missing indexes and checks the layout version.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        let database = connect::connect(url).await?;
        // Leak a handle, so that the client is never dropped. When its last handle is dropped, the client ends its
        // sessions in a task, which panics if the runtime shuts down meanwhile. A process needs the client until it
        // ends, and then the servers end the sessions automatically.
        std::mem::forget(database.client().clone());
        let votes = majority_collection(&database, "votes");
        let checkpoints = majority_collection(&database, "checkpoints");
        Ok(Self {
            inserter: Inserter::new(votes.clone()),
            votes,
            duplicates: majority_collection(&database, "duplicates"),
            summaries: Summaries::new(checkpoints.clone(), majority_collection(&database, "summaries")),
            checkpoints,
            database,
        })
    }

    /// Reads at most `max` votes.
    async fn read_votes(
        votes: &Collection<RawDocumentBuf>,
        filter: Document,
        sort: Document,
        max: usize,
    ) -> Result<Vec<LoggedVote>, StoreError> {
        // To MongoDB, a limit of 0 is no limit.
        if max == 0 {
            return Ok(Vec::new());
        }
        let options = FindOptions::builder()
            .sort(sort)
            .limit(i64::try_from(max).ok().filter(|max| *max < i64::MAX))
            .batch_size(u32::try_from(max).unwrap_or(u32::MAX).min(MAX_REPLY_DOCUMENTS));
        let mut cursor = votes.find(filter).with_options(options.build()).await.map_err(driver_error)?;
        let mut read = Vec::new();
        while cursor.advance().await.map_err(driver_error)? {
            read.push(read_vote(cursor.current())?);
        }
        Ok(read)
    }
}

#[async_trait]
impl Store for MongoLedger {
    /// Writes a small document with the write concern `majority`. Only a write shows that there is a primary with a
    /// majority, and that the disks accept writes.
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        with_timeout(STORE, async {
            let update = doc! { "$set": { "at": DateTime::now() } };
            match self.checkpoints.update_one(doc! { "_id": "check" }, update).upsert(true).await {
                Ok(_) => {}
                // Another process inserted the document at the same time, so the ledger accepts writes.
                Err(error) if is_duplicate_key(&error) => {}
                Err(error) => return Err(driver_error(error)),
            }
            let hello = self.database.run_command(doc! { "hello": 1 }).await.map_err(driver_error)?;
            let topology = match (hello.get_str("msg"), hello.get_str("setName")) {
                (Ok("isdbgrid"), _) => "sharded cluster".to_owned(),
                (_, Ok(name)) => format!("replica set {name}"),
                _ => "one server, no replica set".to_owned(),
            };
            let build = self.database.run_command(doc! { "buildInfo": 1 }).await.map_err(driver_error)?;
            Ok(HealthDetails::from([
                ("version", build.get_str("version").unwrap_or("unknown").to_owned()),
                ("topology", topology),
                ("write_concern", "majority, journaled".to_owned()),
            ]))
        })
        .await
    }
}

#[async_trait]
impl Ledger for MongoLedger {
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError> {
        with_timeout(STORE, async {
            Ok(checkpoints::read(&self.checkpoints, partition).await?.unwrap_or_default().checkpoint)
        })
        .await
    }

    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError> {
        self.inserter.insert(votes).await
    }

    async fn positions_of(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<LogPosition>>, StoreError> {
        with_timeout(STORE, async {
            let mut positions = HashMap::with_capacity(keys.len());
            for keys in keys.chunks(MAX_KEYS_PER_FIND) {
                let wanted: Vec<&str> = keys.iter().map(BallotKey::as_str).collect();
                let mut cursor = self
                    .votes
                    .find(doc! { "_id": { "$in": wanted } })
                    .projection(doc! { "partition": 1, "offset": 1 })
                    .batch_size(MAX_REPLY_DOCUMENTS)
                    .await
                    .map_err(driver_error)?;
                while cursor.advance().await.map_err(driver_error)? {
                    let (key, position) = read_position(cursor.current())?;
                    positions.insert(BallotKey::stored(key), position);
                }
            }
            Ok(keys.iter().map(|key| positions.get(key).copied()).collect())
        })
        .await
    }

    async fn advance_checkpoint(
        &self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Result<Advanced, StoreError> {
        let Checkpoint { offset: to, last, cut_off } = checkpoint;
        let mut fields = doc! { "offset": int64(to) };
        if let Some((offset, vote)) = last {
            fields.extend(doc! { "last_offset": int64(offset), "last_vote_id": vote.to_string() });
        }
        let expected = doc! {
            "_id": partition.to_string(),
            "offset": { "$gte": int64(from), "$lt": int64(to) },
            "cut_off": number_filter(int64(cut_off)),
        };
        let update = doc! { "$set": fields.clone() };
        with_timeout(STORE, async {
            for _ in 0..MAX_ATTEMPTS {
                // Do not upsert: if the document exists and its offset is not in the range, an upsert would try to
                // insert a second document.
                let updated =
                    self.checkpoints.update_one(expected.clone(), update.clone()).await.map_err(driver_error)?;
                if updated.matched_count > 0 {
                    return Ok(Advanced::Done);
                }
                let current = checkpoints::read(&self.checkpoints, partition).await?;
                let is_new = current.is_none();
                let Checkpoint { offset: recorded, cut_off: current_cut_off, .. } =
                    current.unwrap_or_default().checkpoint;
                if current_cut_off != cut_off {
                    return Ok(Advanced::CutOffMoved(current_cut_off));
                }
                if recorded < from {
                    return Ok(Advanced::Hole(recorded));
                }
                if recorded >= to
                    || (is_new && checkpoints::insert_first(&self.checkpoints, partition, fields.clone()).await?)
                {
                    return Ok(Advanced::Done);
                }
                // Another consumer changed the checkpoint between the update and the read.
            }
            Err(failed(format!("the checkpoint of partition {partition} changed {MAX_ATTEMPTS} times meanwhile")))
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
        let filter = offsets_in(partition, from, to);
        with_timeout(STORE, Self::read_votes(&self.votes, filter, doc! { "offset": 1 }, max)).await
    }

    async fn record_duplicates(&self, duplicates: Vec<Duplicate>) -> Result<bool, StoreError> {
        if duplicates.is_empty() {
            return Ok(true);
        }
        with_timeout(STORE, async {
            // Mark first: then no recorded duplicate has an original that could be purged.
            if !duplicates::mark_originals(&self.database, &duplicates).await? {
                return Ok(false);
            }
            duplicates::insert(&self.duplicates, &duplicates).await?;
            Ok(true)
        })
        .await
    }

    async fn duplicates(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Duplicate>, StoreError> {
        let filter = offsets_in(partition, from, to);
        with_timeout(STORE, async {
            let mut cursor = self.duplicates.find(filter).sort(doc! { "offset": 1 }).await.map_err(driver_error)?;
            let mut duplicates = Vec::new();
            while cursor.advance().await.map_err(driver_error)? {
                duplicates.push(read_duplicate(cursor.current())?);
            }
            Ok(duplicates)
        })
        .await
    }

    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError> {
        self.summaries.read(partition).await
    }
}
