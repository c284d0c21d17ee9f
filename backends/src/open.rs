//! Opens a port from its URL.

use std::{fmt::Display, path::PathBuf, sync::Arc};

use votes::{Book, Tallies, VoteFeed, VoteQueue, VoterSecret};

use crate::embedded::{self, Embedded};

/// Which stores to open.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of the embedded stores.
    pub data: PathBuf,
    /// The vote log's URL.
    pub queue: String,
    /// The tallies' URL.
    pub tally: String,
    /// The book's URL.
    pub book: String,
    /// How many votes may wait for the log.
    pub queue_votes: usize,
}

/// A store that can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct OpenError {
    what: String,
    problem: String,
    is_usage: bool,
}

impl OpenError {
    pub(crate) fn new(what: impl Display, problem: impl Display) -> Self {
        Self { what: what.to_string(), problem: problem.to_string(), is_usage: false }
    }

    /// Whether the configuration is at fault: a URL that names no store.
    pub fn is_usage(&self) -> bool {
        self.is_usage
    }
}

/// The three stores of a system.
#[derive(Clone)]
pub struct Stores(Embedded);

impl Stores {
    /// Opens the stores for the process that works on them.
    ///
    /// # Errors
    /// If a URL names no store, or a store can't be opened: the error says what to do.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        check_urls(settings)?;
        Embedded::open(&settings.data, settings.queue_votes).map(Self)
    }

    /// Opens the stores for reading, beside the processes that work on them or while there are none.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for_reading(settings: &Settings) -> Result<Self, OpenError> {
        check_urls(settings)?;
        Embedded::open_for_reading(&settings.data).map(Self)
    }

    /// Whether other processes work on the stores now.
    ///
    /// # Errors
    /// If the stores can't be asked.
    pub fn are_in_use(settings: &Settings) -> Result<bool, OpenError> {
        embedded::is_in_use(&settings.data).map_err(|error| OpenError::new(settings.data.display(), error))
    }

    /// The writing end of the vote log.
    pub fn queue(&self) -> Arc<dyn VoteQueue> {
        self.0.queue()
    }

    /// A reader of the vote log, with positions of its own.
    pub fn feed(&self) -> Arc<dyn VoteFeed> {
        self.0.feed()
    }

    /// The book.
    pub fn book(&self) -> Arc<dyn Book> {
        Arc::clone(&self.0.book)
    }

    /// The tallies.
    pub fn tallies(&self) -> Arc<dyn Tallies> {
        Arc::clone(&self.0.tallies)
    }

    /// The voters' secret that the log keeps, if it keeps one.
    pub fn secret(&self) -> Option<VoterSecret> {
        Some(self.0.secret.clone())
    }
}

fn check_urls(settings: &Settings) -> Result<(), OpenError> {
    for (key, url) in [("queue", &settings.queue), ("tally", &settings.tally), ("book", &settings.book)] {
        if url != "embedded:" {
            let problem = format!("{url:?} names no store that this program knows; it knows `embedded:`");
            return Err(OpenError { what: key.to_owned(), problem, is_usage: true });
        }
    }
    Ok(())
}
