//! The port.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use mongodb::{
    Collection, Database,
    bson::{DateTime, Document, RawDocumentBuf, doc},
    error::{Error, ErrorKind, WriteFailure},
    options::FindOptions,
};
use votes::{
    Advanced, BallotKey, Book, Checkpoint, Facts, LoggedVote, Offset, Partition, Place, Store, StoreError, UnixMillis,
    VoteQuery,
};

use super::{
    bounded,
    connect::{self, counted},
    document::{int64, read_checkpoint, read_place, read_vote},
    failed,
    insert::{DUPLICATE_KEY, Inserter},
    problem,
};
use crate::open::NotOpen;

/// Ballot keys that are looked up at a time: far below the 16 MB of a command.
const LOCATE_CHUNK: usize = 10_000;

/// Documents that a reply may have. Replies end at 16 MB in any case, and begin with 101 documents if nothing is said.
const REPLY_DOCUMENTS: u32 = 10_000;

/// How often raising a checkpoint is tried while others change it.
const ADVANCE_ATTEMPTS: usize = 8;

pub(crate) struct MongoBook {
    database: Database,
    /// As counting needs them: majority, from the primary.
    pub(super) votes: Collection<RawDocumentBuf>,
    inserter: Inserter,
    checkpoints: Collection<RawDocumentBuf>,
    /// As the URL says, for people's questions, which a secondary may answer.
    archive: Collection<RawDocumentBuf>,
}

impl MongoBook {
    /// Opens the book that a URL names, making its indexes if they are not there yet.
    pub(crate) async fn connect(url: &str) -> Result<Self, NotOpen> {
        let database = connect::connect(url).await?;
        // The last handle of a client says goodbye to the servers by a task, which panics if the runtime is leaving meanwhile.
        // A process has one client for its life, and what it leaves on the servers ends by itself.
        std::mem::forget(database.client().clone());
        let votes = counted(&database, "votes");
        Ok(Self {
            inserter: Inserter::new(votes.clone()),
            votes,
            checkpoints: counted(&database, "checkpoints"),
            archive: database.collection("votes"),
            database,
        })
    }

    async fn read_checkpoint(&self, partition: Partition) -> Result<Option<Checkpoint>, StoreError> {
        let document = self.checkpoints.find_one(doc! { "_id": partition.to_string() }).await.map_err(driver)?;
        let Some(document) = document else { return Ok(None) };
        let (offset, last) = read_checkpoint(&document)?;
        Ok(Some(Checkpoint { offset, last }))
    }

    /// Makes a partition's first checkpoint. Whether nobody else was faster.
    async fn begin_checkpoint(&self, partition: Partition, fields: &Document) -> Result<bool, StoreError> {
        let mut document = doc! { "_id": partition.to_string() };
        document.extend(fields.clone());
        let document = RawDocumentBuf::try_from(&document).map_err(failed)?;
        match self.checkpoints.insert_one(document).await {
            Ok(_) => Ok(true),
            Err(error) if is_duplicate(&error) => Ok(false),
            Err(error) => Err(driver(error)),
        }
    }

    /// Reads votes in one or more replies.
    async fn read_votes(
        votes: &Collection<RawDocumentBuf>,
        filter: Document,
        sort: Document,
        most: usize,
    ) -> Result<Vec<LoggedVote>, StoreError> {
        // A limit of 0 means none.
        if most == 0 {
            return Ok(Vec::new());
        }
        let options = FindOptions::builder()
            .sort(sort)
            .limit(i64::try_from(most).ok().filter(|most| *most < i64::MAX))
            .batch_size(u32::try_from(most).unwrap_or(u32::MAX).min(REPLY_DOCUMENTS));
        let mut cursor = votes.find(filter).with_options(options.build()).await.map_err(driver)?;
        let mut read = Vec::new();
        while cursor.advance().await.map_err(driver)? {
            read.push(read_vote(cursor.current())?);
        }
        Ok(read)
    }
}

#[async_trait]
impl Store for MongoBook {
    /// Writes a little with majority: only that shows that there is a primary, that it has a majority behind it, and that the
    /// disks take it.
    async fn check(&self) -> Result<Facts, StoreError> {
        bounded(async {
            let now = doc! { "$set": { "at": DateTime::now() } };
            match self.checkpoints.update_one(doc! { "_id": "check" }, now).upsert(true).await {
                Ok(_) => {}
                // Two made the document at once, so the book is written to.
                Err(error) if is_duplicate(&error) => {}
                Err(error) => return Err(driver(error)),
            }
            let hello = self.database.run_command(doc! { "hello": 1 }).await.map_err(driver)?;
            let topology = match (hello.get_str("msg"), hello.get_str("setName")) {
                (Ok("isdbgrid"), _) => "sharded cluster".to_owned(),
                (_, Ok(name)) => format!("replica set {name}"),
                _ => "one server, no replica set".to_owned(),
            };
            let build = self.database.run_command(doc! { "buildInfo": 1 }).await.map_err(driver)?;
            Ok(Facts::from([
                ("version", build.get_str("version").unwrap_or("unknown").to_owned()),
                ("topology", topology),
                ("write_concern", "majority, journaled".to_owned()),
            ]))
        })
        .await
    }
}

#[async_trait]
impl Book for MongoBook {
    async fn checkpoint(&self, partition: Partition) -> Result<Checkpoint, StoreError> {
        bounded(async { Ok(self.read_checkpoint(partition).await?.unwrap_or_default()) }).await
    }

    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError> {
        self.inserter.insert(votes).await
    }

    async fn locate(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<Place>>, StoreError> {
        bounded(async {
            let mut places = HashMap::with_capacity(keys.len());
            for keys in keys.chunks(LOCATE_CHUNK) {
                let wanted: Vec<&str> = keys.iter().map(BallotKey::as_str).collect();
                let mut cursor = self
                    .votes
                    .find(doc! { "_id": { "$in": wanted } })
                    .projection(doc! { "partition": 1, "offset": 1 })
                    .batch_size(REPLY_DOCUMENTS)
                    .await
                    .map_err(driver)?;
                while cursor.advance().await.map_err(driver)? {
                    let (key, place) = read_place(cursor.current())?;
                    places.insert(BallotKey::stored(key), place);
                }
            }
            Ok(keys.iter().map(|key| places.get(key).copied()).collect())
        })
        .await
    }

    async fn advance(
        &self,
        partition: Partition,
        from: Offset,
        checkpoint: Checkpoint,
    ) -> Result<Advanced, StoreError> {
        let Checkpoint { offset: to, last } = checkpoint;
        let mut fields = doc! { "offset": int64(to) };
        if let Some((offset, vote)) = last {
            fields.extend(doc! { "last_offset": int64(offset), "last_vote_id": vote.to_string() });
        }
        let below = doc! { "_id": partition.to_string(), "offset": { "$gte": int64(from), "$lt": int64(to) } };
        let raise = doc! { "$set": fields.clone() };
        bounded(async {
            for _ in 0..ADVANCE_ATTEMPTS {
                // No upsert: where the document is there and B is not in the range, it would try to make a second one.
                let raised = self.checkpoints.update_one(below.clone(), raise.clone()).await.map_err(driver)?;
                if raised.matched_count > 0 {
                    return Ok(Advanced::Done);
                }
                let begun = self.read_checkpoint(partition).await?;
                let booked = begun.unwrap_or_default().offset;
                if booked < from {
                    return Ok(Advanced::Hole(booked));
                }
                if booked >= to || (begun.is_none() && self.begin_checkpoint(partition, &fields).await?) {
                    return Ok(Advanced::Done);
                }
                // Another consumer moved B between the question and the answer.
            }
            Err(failed(format!("the checkpoint of partition {partition} changed {ADVANCE_ATTEMPTS} times meanwhile")))
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
        let filter = doc! {
            "partition": i32::from(partition.0),
            "offset": { "$gte": int64(from), "$lt": int64(to) },
        };
        bounded(Self::read_votes(&self.votes, filter, doc! { "offset": 1 }, most)).await
    }

    async fn find(&self, query: VoteQuery) -> Result<Vec<LoggedVote>, StoreError> {
        let time = |time: UnixMillis| DateTime::from_millis(time.0);
        let mut accepted = doc! { "$gte": time(query.from.unwrap_or(UnixMillis(0))) };
        if let Some(to) = query.to {
            accepted.insert("$lt", time(to));
        }
        // Every vote has a time after 1970, a partition and an offset; FerretDB, patched as `dev/stack` has it, takes the order
        // from its index only if the filter bounds all that is sorted by.
        let mut filter = doc! {
            "contest": query.contest.as_str(),
            "accepted_at": accepted,
            "partition": { "$gte": 0 },
            "offset": { "$gte": 0_i64 },
        };
        if let Some(name) = query.name {
            filter.insert("name", name);
        }
        let newest_first = doc! { "accepted_at": -1, "partition": 1, "offset": -1 };
        bounded(Self::read_votes(&self.archive, filter, newest_first, query.most)).await
    }

    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        let rewound = doc! {
            "$set": { "offset": int64(to) },
            "$unset": { "last_offset": "", "last_vote_id": "" },
        };
        bounded(async {
            let partition = doc! { "_id": partition.to_string() };
            self.checkpoints.update_one(partition, rewound).upsert(true).await.map(drop).map_err(driver)
        })
        .await
    }
}

fn is_duplicate(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(refused)) => refused.code == DUPLICATE_KEY,
        ErrorKind::Command(refused) => refused.code == DUPLICATE_KEY,
        _ => false,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
fn driver(error: Error) -> StoreError {
    failed(problem(&error))
}
