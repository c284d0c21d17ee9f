//! Inserting votes. Batches of partitions that come while a command is on its way share the next one: under load a server
//! spends more on each command, and on its journal, than on a vote.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mongodb::{
    Collection,
    bson::RawDocumentBuf,
    error::{Error, ErrorKind, IndexedWriteError, InsertManyError},
};
use tokio::sync::oneshot;
use votes::{LoggedVote, StoreError};

use super::{STORE, bounded, document::of_vote, failed, problem};

/// The server's code for an `_id` that is there already.
pub(super) const DUPLICATE_KEY: i32 = 11_000;

/// The most votes of a command that batches share. A batch that has as many needs no company: such batches go at once, side
/// by side.
const SHARED: usize = 1_000;

/// The way of all inserts into one collection.
#[derive(Clone)]
pub(super) struct Inserter(Arc<Shared>);

struct Shared {
    votes: Collection<RawDocumentBuf>,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    waiting: Vec<Batch>,
    is_sending: bool,
}

/// Votes, and who waits to hear which of them were there already.
struct Batch {
    votes: Arc<[LoggedVote]>,
    reply: oneshot::Sender<Known>,
}

/// The indexes of the votes that were in the book already.
type Known = Result<Vec<usize>, StoreError>;

impl Inserter {
    pub(super) fn new(votes: Collection<RawDocumentBuf>) -> Self {
        Self(Arc::new(Shared { votes, line: Mutex::default() }))
    }

    /// Stores the votes that are not there yet, and says which were.
    pub(super) async fn insert(&self, votes: Arc<[LoggedVote]>) -> Known {
        if votes.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, known) = oneshot::channel();
        let batch = Batch { votes, reply };
        if batch.votes.len() >= SHARED {
            self.send(vec![batch]).await;
        } else if self.queue(batch) {
            // Whoever began to wait may leave; those who joined must not be left with him.
            tokio::spawn(self.clone().send_all());
        }
        known.await.map_err(|_| failed("the insert was given up"))?
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody has to begin sending.
    fn queue(&self, batch: Batch) -> bool {
        let mut line = self.line();
        line.waiting.push(batch);
        !std::mem::replace(&mut line.is_sending, true)
    }

    async fn send_all(self) {
        while let Some(batches) = self.next() {
            self.send(batches).await;
        }
    }

    /// What goes next.
    fn next(&self) -> Option<Vec<Batch>> {
        let mut line = self.line();
        let mut votes = 0;
        let fits = |batch: &&Batch| {
            votes += batch.votes.len();
            votes <= SHARED
        };
        let count = line.waiting.iter().take_while(fits).count();
        line.is_sending = count > 0;
        line.is_sending.then(|| line.waiting.drain(..count).collect())
    }

    /// Sends batches in one command and tells each what became of it.
    async fn send(&self, batches: Vec<Batch>) {
        let documents = batches.iter().flat_map(|batch| batch.votes.iter().map(of_vote));
        // Unordered: a duplicate does not stop those after it.
        let insert = self.0.votes.insert_many(documents).ordered(false);
        let refused = bounded(STORE, async {
            match insert.await {
                Ok(_) => Ok(Vec::new()),
                Err(error) => refused(error),
            }
        })
        .await;
        let mut from = 0;
        for Batch { votes, reply } in batches {
            let range = from..from + votes.len();
            from = range.end;
            // Who no longer listens has lost interest, not the votes.
            let _ = reply.send(refused.clone().and_then(|refused| duplicates(&refused, range)));
        }
    }
}

/// The documents that were refused, if the others are stored for good.
pub(super) fn refused(error: Error) -> Result<Vec<IndexedWriteError>, StoreError> {
    // The driver sends what is too much for one command in several, and reports all of them with the caller's indexes.
    match *error.kind {
        ErrorKind::InsertMany(InsertManyError { write_errors, write_concern_error: None, .. }) => {
            Ok(write_errors.unwrap_or_default())
        }
        ErrorKind::InsertMany(InsertManyError { write_concern_error: Some(error), .. }) => {
            Err(failed(format!("votes did not reach a majority: {} (code {})", error.message, error.code)))
        }
        _ => Err(failed(problem(&error))),
    }
}

/// The indexes, within a batch that was sent as this range, of the votes that were there already, if nothing else is wrong
/// with it.
pub(super) fn duplicates(refused: &[IndexedWriteError], batch: Range<usize>) -> Known {
    let of_batch = refused.iter().filter(|refused| batch.contains(&refused.index));
    let known = of_batch.map(|IndexedWriteError { index, code, message, .. }| {
        let index = index - batch.start;
        match *code {
            DUPLICATE_KEY => Ok(index),
            code => Err(failed(format!("vote {index} of the batch is refused: {message} (code {code})"))),
        }
    });
    known.collect()
}
