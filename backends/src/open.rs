//! Opens a port from its URL.

use std::{fmt::Display, sync::Arc};

use service::{Config, ConfigError, Health, health::Weight, program::Failure};
use votes::{Book, StoreError, Tallies, VoteFeed, VoteQueue, VoterSecret};

use crate::embedded::{self, Embedded};

/// A store that can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct OpenError {
    what: String,
    problem: String,
}

impl OpenError {
    pub(crate) fn new(what: impl Display, problem: impl Display) -> Self {
        Self { what: what.to_string(), problem: problem.to_string() }
    }
}

/// The three stores of a system.
#[derive(Clone)]
pub struct Stores(Embedded);

impl Stores {
    /// Opens the stores for the process that works on them.
    ///
    /// # Errors
    /// [`ConfigError`] if a URL names no store, [`OpenError`] if a store can't be opened: each says what to do.
    pub fn open(config: &Config) -> Result<Self, Failure> {
        check_urls(config)?;
        Ok(Self(Embedded::open(&config.data, config.queue_votes)?))
    }

    /// Opens the stores for reading, beside the processes that work on them or while there are none.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_for_reading(config: &Config) -> Result<Self, Failure> {
        check_urls(config)?;
        Ok(Self(Embedded::open_for_reading(&config.data)?))
    }

    /// Whether other processes work on the stores now.
    ///
    /// # Errors
    /// If the stores can't be asked.
    pub fn are_in_use(config: &Config) -> Result<bool, OpenError> {
        embedded::is_in_use(&config.data).map_err(|error| OpenError::new(config.data.display(), error))
    }

    /// Damage of the stores that reading them would not show, in words.
    ///
    /// # Errors
    /// If they can't be opened.
    pub fn damage(config: &Config) -> Result<Vec<String>, OpenError> {
        Embedded::damage(&config.data)
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

/// Shows a store's state at `/health`.
macro_rules! watch {
    ($name:ident, $port:ident, $shown:literal) => {
        #[doc = concat!("Shows the state of the ", $shown, " at `/health`.")]
        pub fn $name(&self, health: &Health, weight: Weight) {
            let store = self.$port();
            health.check($shown, weight, move || {
                let store = Arc::clone(&store);
                async move { store.check().await.map_err(|error: StoreError| error.to_string()) }
            });
        }
    };
}

impl Stores {
    watch!(watch_queue, queue, "vote log");
    watch!(watch_book, book, "book");
    watch!(watch_tallies, tallies, "tallies");
}

fn check_urls(config: &Config) -> Result<(), ConfigError> {
    for (key, url) in [("queue", &config.queue), ("tally", &config.tally), ("book", &config.book)] {
        if url != "embedded:" {
            let problem = format!("{url:?} names no store that this program knows; it knows `embedded:`");
            return Err(ConfigError::new(key, problem));
        }
    }
    Ok(())
}
