//! Inserts votes. While a command is running, the batches of several partitions wait, and the next command inserts
//! their votes together. Under load, an additional command with its journal write is more expensive for the
//! server than additional votes in the same command.

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

use crate::{
    call::{DUPLICATE_KEY, STORE, error_text, failed, with_timeout},
    document::vote_document,
};

/// The maximum number of votes in a command that batches share. A batch of this size or larger is sent at once in a
/// separate command, and such commands run concurrently.
const MAX_SHARED_VOTES: usize = 1_000;

/// Inserts the votes of all partitions into one collection.
#[derive(Clone)]
pub(super) struct Inserter(Arc<Inner>);

struct Inner {
    votes: Collection<RawDocumentBuf>,
    queue: Mutex<InsertQueue>,
}

#[derive(Default)]
struct InsertQueue {
    waiting: Vec<Batch>,
    is_sending: bool,
}

/// Votes, and the sender of the result to the caller.
struct Batch {
    votes: Arc<[LoggedVote]>,
    reply: oneshot::Sender<InsertResult>,
}

/// The indexes, in the batch, of the votes that were already in the ledger.
type InsertResult = Result<Vec<usize>, StoreError>;

impl Inserter {
    pub(super) fn new(votes: Collection<RawDocumentBuf>) -> Self {
        Self(Arc::new(Inner { votes, queue: Mutex::default() }))
    }

    /// Stores the votes that are not in the ledger yet, and returns the indexes of the other votes.
    pub(super) async fn insert(&self, votes: Arc<[LoggedVote]>) -> InsertResult {
        if votes.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, result) = oneshot::channel();
        let batch = Batch { votes, reply };
        if batch.votes.len() >= MAX_SHARED_VOTES {
            self.send(vec![batch]).await;
        } else if self.enqueue(batch) {
            // Send in a separate task: if this caller is dropped, the batches of other callers must still be sent.
            tokio::spawn(self.clone().send_all());
        }
        // The time in the queue is included. Otherwise a batch would wait for the time-outs of all batches before it.
        with_timeout(STORE, async { result.await.map_err(|_| failed("the insert was aborted"))? }).await
    }

    fn queue(&self) -> MutexGuard<'_, InsertQueue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch to the queue. Returns `true` if no task is sending: the caller must then start one.
    fn enqueue(&self, batch: Batch) -> bool {
        let mut queue = self.queue();
        queue.waiting.push(batch);
        !std::mem::replace(&mut queue.is_sending, true)
    }

    async fn send_all(self) {
        let _sending = Sending(&self);
        while let Some(batches) = self.next_batches() {
            self.send(batches).await;
        }
    }

    /// Takes the batches of the next command from the queue. Returns `None` if the queue is empty.
    fn next_batches(&self) -> Option<Vec<Batch>> {
        let mut queue = self.queue();
        // The callers of these batches have given up, and will insert the votes again.
        queue.waiting.retain(|batch| !batch.reply.is_closed());
        let mut votes = 0;
        let fits = |batch: &&Batch| {
            votes += batch.votes.len();
            votes <= MAX_SHARED_VOTES
        };
        let count = queue.waiting.iter().take_while(fits).count();
        queue.is_sending = count > 0;
        queue.is_sending.then(|| queue.waiting.drain(..count).collect())
    }

    /// Sends the votes of batches in one command, and sends each caller its result.
    async fn send(&self, batches: Vec<Batch>) {
        let documents = batches.iter().flat_map(|batch| batch.votes.iter().map(vote_document));
        // Unordered: the server continues after a duplicate.
        let insert = self.0.votes.insert_many(documents).ordered(false);
        let refused = with_timeout(STORE, async {
            match insert.await {
                Ok(_) => Ok(Vec::new()),
                Err(error) => refused_documents(error),
            }
        })
        .await;
        let mut from = 0;
        for Batch { votes, reply } in batches {
            let range = from..from + votes.len();
            from = range.end;
            // The caller may have dropped the receiver. This does not change what is in the ledger.
            let _ = reply.send(refused.clone().and_then(|refused| duplicates_in(&refused, range)));
        }
    }
}

/// The task that sends batches. If it panics, the batches that wait fail, and the next batch starts a new task.
struct Sending<'a>(&'a Inserter);

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = self.0.queue();
            queue.is_sending = false;
            queue.waiting.clear();
        }
    }
}

/// Returns the errors of the documents that were refused, if all other documents are durable.
pub(super) fn refused_documents(error: Error) -> Result<Vec<IndexedWriteError>, StoreError> {
    // If the documents are too many for one command, the driver sends several commands. The indexes in its errors are
    // those of the caller's list.
    match *error.kind {
        ErrorKind::InsertMany(InsertManyError { write_errors, write_concern_error: None, .. }) => {
            Ok(write_errors.unwrap_or_default())
        }
        ErrorKind::InsertMany(InsertManyError { write_concern_error: Some(error), .. }) => {
            Err(failed(format!("the write did not reach a majority: {} (code {})", error.message, error.code)))
        }
        _ => Err(failed(error_text(&error))),
    }
}

/// Returns the indexes of the votes of a batch that were already in the ledger. `refused` has the errors of the whole
/// command, and `batch` is the range of the batch's votes in the command. The returned indexes count from the first vote of
/// the batch.
///
/// # Errors
/// If the server refused a vote of the batch for another reason.
pub(super) fn duplicates_in(refused: &[IndexedWriteError], batch: Range<usize>) -> InsertResult {
    let of_batch = refused.iter().filter(|refused| batch.contains(&refused.index));
    let known = of_batch.map(|IndexedWriteError { index, code, message, .. }| {
        let index = index - batch.start;
        match *code {
            DUPLICATE_KEY => Ok(index),
            code => Err(failed(format!("vote {index} of the batch was refused: {message} (code {code})"))),
        }
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use mongodb::{Client, options::ClientOptions};
    use votes::{Partition, conformance::logged};

    use super::*;

    fn inserter() -> Inserter {
        let client = Client::with_options(ClientOptions::default()).unwrap();
        Inserter::new(client.database("none").collection("votes"))
    }

    fn batch() -> (Batch, oneshot::Receiver<InsertResult>) {
        let (reply, result) = oneshot::channel();
        (Batch { votes: [logged(1, Partition(0), 0)].into(), reply }, result)
    }

    #[tokio::test]
    async fn a_batch_whose_caller_has_given_up_is_not_sent() {
        let inserter = inserter();
        let ((given_up, result), (wanted, _result)) = (batch(), batch());
        inserter.enqueue(given_up);
        inserter.enqueue(wanted);
        drop(result);
        assert_eq!(inserter.next_batches().unwrap().len(), 1);
        assert!(inserter.next_batches().is_none());
    }

    #[tokio::test]
    async fn after_a_panic_waiting_batches_fail_and_the_next_batch_starts_a_new_task() {
        let inserter = inserter();
        let (first, first_result) = batch();
        assert!(inserter.enqueue(first), "this caller starts the task");
        let task = tokio::spawn({
            let inserter = inserter.clone();
            async move {
                let _sending = Sending(&inserter);
                panic!("a bug");
            }
        });
        assert!(task.await.unwrap_err().is_panic());
        assert!(first_result.await.is_err(), "the caller gets an error");
        let (second, _result) = batch();
        assert!(inserter.enqueue(second), "the next caller starts a new task");
    }
}
