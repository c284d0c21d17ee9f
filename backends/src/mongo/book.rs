//! The port.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use mongodb::{
    Collection, Database,
    bson::{Bson, DateTime, Document, RawDocumentBuf, doc},
    error::{Error, ErrorKind, WriteFailure},
    options::FindOptions,
};
use votes::{
    Advanced, BallotKey, Book, Checkpoint, Facts, LoggedVote, Offset, Partition, Place, Repeat, Store, StoreError,
    Summary,
};

use uuid::Uuid;

use super::{
    STORE, bounded,
    connect::{self, counted},
    document::{int64, of_repeat, read_checkpoint, read_place, read_repeat, read_vote},
    failed,
    insert::{DUPLICATE_KEY, Inserter, refused},
    problem, summary,
};
use crate::open::NotOpen;

/// Ballot keys that are looked up at a time: far below the 16 MB of a command.
const LOCATE_CHUNK: usize = 10_000;

/// Documents that a reply may have. Replies end at 16 MB in any case, and begin with 101 documents if nothing is said.
const REPLY_DOCUMENTS: u32 = 10_000;

/// Votes that are deleted by one command.
const FORGET_CHUNK: i64 = 1_000;

/// How often raising a checkpoint is tried while others change it.
const ADVANCE_ATTEMPTS: usize = 8;

pub(crate) struct MongoBook {
    database: Database,
    /// As counting needs them: majority, from the primary.
    pub(super) votes: Collection<RawDocumentBuf>,
    inserter: Inserter,
    checkpoints: Collection<RawDocumentBuf>,
    repeats: Collection<RawDocumentBuf>,
    summaries: Collection<RawDocumentBuf>,
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
            repeats: counted(&database, "repeats"),
            summaries: counted(&database, "summaries"),
            database,
        })
    }

    /// The checkpoint, and the generation of the summary, if there are any.
    async fn read_checkpoint(&self, partition: Partition) -> Result<Option<(Checkpoint, Option<String>)>, StoreError> {
        let document = self.checkpoints.find_one(doc! { "_id": partition.to_string() }).await.map_err(driver)?;
        let Some(document) = document else { return Ok(None) };
        let (checkpoint, generation) = read_checkpoint(&document)?;
        Ok(Some((checkpoint, generation.map(str::to_owned))))
    }

    /// The votes below the cut-off that a repeat at or after it repeats.
    async fn held(&self, partition: Partition, cut_off: Offset) -> Result<HashSet<Offset>, StoreError> {
        let later = doc! {
            "partition": i32::from(partition.0),
            "offset": { "$gte": int64(cut_off) },
            "of": { "$lt": int64(cut_off) },
        };
        let mut cursor = self.repeats.find(later).await.map_err(driver)?;
        let mut held = HashSet::new();
        while cursor.advance().await.map_err(driver)? {
            held.insert(read_repeat(cursor.current())?.of);
        }
        Ok(held)
    }

    /// Deletes some of the oldest votes below the cut-off from an offset on. Returns how many, and where to go on.
    async fn forget_some(
        &self,
        partition: Partition,
        from: Offset,
        cut_off: Offset,
        held: &HashSet<Offset>,
    ) -> Result<Option<(u64, Offset)>, StoreError> {
        let partition = i32::from(partition.0);
        let old = doc! { "partition": partition, "offset": { "$gte": int64(from), "$lt": int64(cut_off) } };
        let options = FindOptions::builder().sort(doc! { "offset": 1 }).limit(FORGET_CHUNK);
        let options = options.projection(doc! { "partition": 1, "offset": 1 }).build();
        let mut cursor = self.votes.find(old).with_options(options).await.map_err(driver)?;
        let (mut last, mut keys) = (None, Vec::new());
        while cursor.advance().await.map_err(driver)? {
            let (key, place) = read_place(cursor.current())?;
            last = Some(place.offset);
            if !held.contains(&place.offset) {
                keys.push(key.to_owned());
            }
        }
        let Some(last) = last else { return Ok(None) };
        // A ballot that was deleted meanwhile may stand again, at a later place.
        let old = doc! { "_id": { "$in": keys }, "partition": partition, "offset": { "$lt": int64(cut_off) } };
        let deleted = self.votes.delete_many(old).await.map_err(driver)?.deleted_count;
        Ok(Some((deleted, last.next())))
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
        bounded(STORE, async {
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
        bounded(STORE, async {
            Ok(self.read_checkpoint(partition).await?.map_or_else(Checkpoint::default, |(checkpoint, _)| checkpoint))
        })
        .await
    }

    async fn insert(&self, votes: Arc<[LoggedVote]>) -> Result<Vec<usize>, StoreError> {
        self.inserter.insert(votes).await
    }

    async fn locate(&self, keys: Vec<BallotKey>) -> Result<Vec<Option<Place>>, StoreError> {
        bounded(STORE, async {
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
        let Checkpoint { offset: to, last, cut_off } = checkpoint;
        let mut fields = doc! { "offset": int64(to) };
        if let Some((offset, vote)) = last {
            fields.extend(doc! { "last_offset": int64(offset), "last_vote_id": vote.to_string() });
        }
        let below = doc! {
            "_id": partition.to_string(),
            "offset": { "$gte": int64(from), "$lt": int64(to) },
            "cut_off": is_cut_off(cut_off),
        };
        let raise = doc! { "$set": fields.clone() };
        bounded(STORE, async {
            for _ in 0..ADVANCE_ATTEMPTS {
                // No upsert: where the document is there and B is not in the range, it would try to make a second one.
                let raised = self.checkpoints.update_one(below.clone(), raise.clone()).await.map_err(driver)?;
                if raised.matched_count > 0 {
                    return Ok(Advanced::Done);
                }
                let begun = self.read_checkpoint(partition).await?;
                let is_new = begun.is_none();
                let Checkpoint { offset: booked, cut_off: now, .. } =
                    begun.map_or_else(Checkpoint::default, |(checkpoint, _)| checkpoint);
                if now != cut_off {
                    return Ok(Advanced::Expired(now));
                }
                if booked < from {
                    return Ok(Advanced::Hole(booked));
                }
                if booked >= to || (is_new && self.begin_checkpoint(partition, &fields).await?) {
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
        bounded(STORE, Self::read_votes(&self.votes, filter, doc! { "offset": 1 }, most)).await
    }

    async fn note_repeats(&self, repeats: Vec<Repeat>) -> Result<(), StoreError> {
        let documents: Vec<RawDocumentBuf> = repeats.iter().map(of_repeat).collect();
        bounded(STORE, async {
            let Err(error) = self.repeats.insert_many(documents).ordered(false).await else { return Ok(()) };
            // Those that are there already say the same: of a ballot one vote stands.
            match refused(error)?.iter().find(|refused| refused.code != DUPLICATE_KEY) {
                None => Ok(()),
                Some(refused) => {
                    Err(failed(format!("a repeat is refused: {} (code {})", refused.message, refused.code)))
                }
            }
        })
        .await
    }

    async fn repeats(&self, partition: Partition, from: Offset, to: Offset) -> Result<Vec<Repeat>, StoreError> {
        let filter = doc! {
            "partition": i32::from(partition.0),
            "offset": { "$gte": int64(from), "$lt": int64(to) },
        };
        bounded(STORE, async {
            let mut cursor = self.repeats.find(filter).sort(doc! { "offset": 1 }).await.map_err(driver)?;
            let mut repeats = Vec::new();
            while cursor.advance().await.map_err(driver)? {
                repeats.push(read_repeat(cursor.current())?);
            }
            Ok(repeats)
        })
        .await
    }

    async fn summary(&self, partition: Partition) -> Result<Summary, StoreError> {
        bounded(STORE, async {
            for _ in 0..ADVANCE_ATTEMPTS {
                let Some((Checkpoint { cut_off, .. }, Some(generation))) = self.read_checkpoint(partition).await?
                else {
                    return Ok(Summary::default());
                };
                let counts = summary::read(&self.summaries, partition, &generation).await?;
                // Parts are deleted only when another generation counts.
                if self.read_checkpoint(partition).await?.is_some_and(|(_, now)| now.as_ref() == Some(&generation)) {
                    return Ok(Summary { cut_off, counts });
                }
            }
            Err(failed(format!("the summary of partition {partition} changed {ADVANCE_ATTEMPTS} times meanwhile")))
        })
        .await
    }

    async fn summarise(&self, partition: Partition, from: Offset, summary: Summary) -> Result<bool, StoreError> {
        let Summary { cut_off, counts } = summary;
        let generation = Uuid::now_v7().to_string();
        bounded(STORE, async {
            summary::write(&self.summaries, partition, &generation, cut_off, &counts).await?;
            let fields = doc! { "cut_off": int64(cut_off), "summary": &generation };
            let unmoved = doc! { "_id": partition.to_string(), "cut_off": is_cut_off(from) };
            let moved = self.checkpoints.update_one(unmoved, doc! { "$set": fields.clone() }).await.map_err(driver)?;
            if moved.matched_count > 0 {
                return Ok(true);
            }
            if from > Offset(0) || self.read_checkpoint(partition).await?.is_some() {
                return Ok(false);
            }
            let mut first = doc! { "offset": 0_i64 };
            first.extend(fields);
            self.begin_checkpoint(partition, &first).await
        })
        .await
    }

    async fn forget(&self, partition: Partition) -> Result<u64, StoreError> {
        let (cut_off, generation, held) = bounded(STORE, async {
            let checkpoint = self.read_checkpoint(partition).await?;
            let (Checkpoint { cut_off, .. }, generation) = checkpoint.unwrap_or_default();
            Ok((cut_off, generation.unwrap_or_default(), self.held(partition, cut_off).await?))
        })
        .await?;
        let (mut from, mut forgotten) = (Offset(0), 0);
        while let Some((deleted, next)) = bounded(STORE, self.forget_some(partition, from, cut_off, &held)).await? {
            forgotten += deleted;
            from = next;
        }
        bounded(STORE, async {
            let old = doc! { "partition": i32::from(partition.0), "offset": { "$lt": int64(cut_off) } };
            self.repeats.delete_many(old).await.map_err(driver)?;
            self.summaries.delete_many(summary::others(partition, &generation, cut_off)).await.map_err(driver)
        })
        .await?;
        Ok(forgotten)
    }

    /// The documents of the database, not as they are compressed.
    async fn size(&self) -> Result<u64, StoreError> {
        bounded(STORE, async {
            let stats = self.database.run_command(doc! { "dbStats": 1 }).await.map_err(driver)?;
            // Whatever type the server chose. Files and indexes don't shrink when documents leave, so they tell nothing.
            let bytes = match stats.get("dataSize") {
                Some(Bson::Double(bytes)) => *bytes,
                Some(Bson::Int32(bytes)) => f64::from(*bytes),
                Some(Bson::Int64(bytes)) => *bytes as f64,
                other => return Err(failed(format!("the server says {other:?} of how large the documents are"))),
            };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size")]
            Ok(bytes as u64)
        })
        .await
    }

    async fn rewind(&self, partition: Partition, to: Offset) -> Result<(), StoreError> {
        let rewound = doc! {
            "$set": { "offset": int64(to) },
            "$unset": { "last_offset": "", "last_vote_id": "" },
        };
        bounded(STORE, async {
            let partition = doc! { "_id": partition.to_string() };
            self.checkpoints.update_one(partition, rewound).upsert(true).await.map(drop).map_err(driver)
        })
        .await
    }
}

/// What the field of a checkpoint with this cut-off is. Where nothing has ever expired there is none.
fn is_cut_off(cut_off: Offset) -> Bson {
    if cut_off == Offset(0) { doc! { "$in": [Bson::Null, 0_i64] }.into() } else { int64(cut_off).into() }
}

pub(super) fn is_duplicate(error: &Error) -> bool {
    match &*error.kind {
        ErrorKind::Write(WriteFailure::WriteError(refused)) => refused.code == DUPLICATE_KEY,
        ErrorKind::Command(refused) => refused.code == DUPLICATE_KEY,
        _ => false,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` passes it")]
pub(super) fn driver(error: Error) -> StoreError {
    failed(problem(&error))
}
