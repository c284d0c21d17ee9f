//! The ledger in `MongoDB`, behind the port `Ledger`.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use mongodb::{
    Collection, Database,
    bson::{Bson, DateTime, Document, RawDocumentBuf, doc},
    options::FindOptions,
};
use votes::{
    Advanced, BallotKey, Checkpoint, ConnectError, Duplicate, HealthDetails, Ledger, LogPosition, LoggedVote, Offset,
    Partition, Store, StoreError, Summary,
};

use crate::{
    call::{DUPLICATE_KEY, STORE, driver_error, failed, is_duplicate_key, with_timeout},
    connect::{self, majority_collection},
    document::{duplicate_document, int64, read_checkpoint, read_duplicate, read_position, read_vote},
    insert::{Inserter, refused_documents},
    summary,
};

/// The maximum number of ballot keys in one `find`. Such a command is far below the limit of 16 MB.
const MAX_KEYS_PER_FIND: usize = 10_000;

/// The maximum number of documents in a reply. `MongoDB`'s default is 101 documents in the first reply. A reply also has
/// at most 16 MB.
const MAX_REPLY_DOCUMENTS: u32 = 10_000;

/// The maximum number of attempts to change a checkpoint or to read a summary. An attempt fails if another process
/// changes the checkpoint or the summary at the same time.
const MAX_ATTEMPTS: usize = 8;

/// The ledger of one database.
pub struct MongoLedger {
    pub(super) database: Database,
    /// The votes. This collection and the following ones are read from the primary. Reads and writes have the concern
    /// `majority`.
    pub(super) votes: Collection<RawDocumentBuf>,
    inserter: Inserter,
    pub(super) checkpoints: Collection<RawDocumentBuf>,
    pub(super) duplicates: Collection<RawDocumentBuf>,
    pub(super) summaries: Collection<RawDocumentBuf>,
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
        Ok(Self {
            inserter: Inserter::new(votes.clone()),
            votes,
            checkpoints: majority_collection(&database, "checkpoints"),
            duplicates: majority_collection(&database, "duplicates"),
            summaries: majority_collection(&database, "summaries"),
            database,
        })
    }

    /// Reads the checkpoint of a partition and the generation of its summary. Returns `None` if the partition has no
    /// checkpoint.
    pub(super) async fn read_checkpoint(
        &self,
        partition: Partition,
    ) -> Result<Option<(Checkpoint, Option<String>)>, StoreError> {
        let document = self.checkpoints.find_one(doc! { "_id": partition.to_string() }).await.map_err(driver_error)?;
        let Some(document) = document else { return Ok(None) };
        let (checkpoint, generation) = read_checkpoint(&document)?;
        Ok(Some((checkpoint, generation.map(str::to_owned))))
    }

    /// Inserts the first checkpoint of a partition. Returns `false` if another process has inserted a checkpoint.
    pub(super) async fn insert_first_checkpoint(
        &self,
        partition: Partition,
        fields: &Document,
    ) -> Result<bool, StoreError> {
        let mut document = doc! { "_id": partition.to_string() };
        document.extend(fields.clone());
        let document = RawDocumentBuf::try_from(&document).map_err(failed)?;
        match self.checkpoints.insert_one(document).await {
            Ok(_) => Ok(true),
            Err(error) if is_duplicate_key(&error) => Ok(false),
            Err(error) => Err(driver_error(error)),
        }
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
            Ok(self.read_checkpoint(partition).await?.map_or_else(Checkpoint::default, |(checkpoint, _)| checkpoint))
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
            "cut_off": cut_off_filter(cut_off),
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
                let current = self.read_checkpoint(partition).await?;
                let is_new = current.is_none();
                let Checkpoint { offset: recorded, cut_off: current_cut_off, .. } =
                    current.map_or_else(Checkpoint::default, |(checkpoint, _)| checkpoint);
                if current_cut_off != cut_off {
                    return Ok(Advanced::CutOffMoved(current_cut_off));
                }
                if recorded < from {
                    return Ok(Advanced::Hole(recorded));
                }
                if recorded >= to || (is_new && self.insert_first_checkpoint(partition, &fields).await?) {
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
        let filter = doc! {
            "partition": i32::from(partition.0),
            "offset": { "$gte": int64(from), "$lt": int64(to) },
        };
        with_timeout(STORE, Self::read_votes(&self.votes, filter, doc! { "offset": 1 }, max)).await
    }

    async fn record_duplicates(&self, duplicates: Vec<Duplicate>) -> Result<(), StoreError> {
        let documents: Vec<RawDocumentBuf> = duplicates.iter().map(duplicate_document).collect();
        with_timeout(STORE, async {
            let Err(error) = self.duplicates.insert_many(documents).ordered(false).await else { return Ok(()) };
            // A duplicate that was recorded before has the same original: only one vote of a ballot counts.
            match refused_documents(error)?.iter().find(|write_error| write_error.code != DUPLICATE_KEY) {
                None => Ok(()),
                Some(write_error) => {
                    Err(failed(format!("a duplicate was refused: {} (code {})", write_error.message, write_error.code)))
                }
            }
        })
        .await
    }

    async fn duplicates(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Duplicate>, StoreError> {
        let filter = doc! {
            "partition": i32::from(partition.0),
            "offset": { "$gte": int64(from), "$lt": int64(to) },
        };
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
        with_timeout(STORE, async {
            for _ in 0..MAX_ATTEMPTS {
                let Some((Checkpoint { cut_off, .. }, Some(generation))) = self.read_checkpoint(partition).await?
                else {
                    return Ok(Summary::default());
                };
                let counts = summary::read(&self.summaries, partition, &generation).await?;
                // If the checkpoint still has this generation, no part of the summary was deleted meanwhile.
                if self
                    .read_checkpoint(partition)
                    .await?
                    .is_some_and(|(_, current)| current.as_ref() == Some(&generation))
                {
                    return Ok(Summary { cut_off, counts });
                }
            }
            Err(failed(format!("the summary of partition {partition} changed {MAX_ATTEMPTS} times meanwhile")))
        })
        .await
    }
}

/// Returns the condition on the field `cut_off` for a checkpoint with this cut-off. The field is absent until votes
/// expire.
pub(super) fn cut_off_filter(cut_off: Offset) -> Bson {
    if cut_off == Offset(0) { doc! { "$in": [Bson::Null, 0_i64] }.into() } else { int64(cut_off).into() }
}
