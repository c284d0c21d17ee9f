//! Waiting for a change.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use redis::RedisResult;
use tokio::{
    select,
    sync::{Mutex, watch},
    time::sleep,
};

/// How often the server is asked for the version, however many wait.
const POLL: Duration = Duration::from_millis(50);

/// Those who wait for a change. One of them asks the server, for all.
///
/// There is no task of its own: whoever holds the turn asks, and when it has what it wants, fails or is dropped, another
/// one takes the turn.
pub(super) struct Changes {
    turn: Mutex<()>,
    heard: watch::Sender<Heard>,
}

/// A version that the server told.
#[derive(Clone, Copy)]
struct Heard {
    version: u64,
    /// When it was asked for.
    asked: Instant,
}

impl Changes {
    pub(super) fn new() -> Self {
        Self { turn: Mutex::default(), heard: watch::Sender::new(Heard { version: 0, asked: Instant::now() }) }
    }

    /// Waits until the version is another than `seen`; `ask` asks the server for it.
    ///
    /// # Errors
    /// If the server does not answer the one who asks.
    pub(super) async fn wait<F: Future<Output = RedisResult<u64>>>(
        &self,
        seen: u64,
        ask: impl Fn() -> F,
    ) -> RedisResult<u64> {
        let began = Instant::now();
        let mut heard = self.heard.subscribe();
        // What was asked for before may be older than what the caller has seen.
        let is_news = |heard: &Heard| heard.asked >= began && heard.version != seen;
        select! {
            // What was heard comes first: whoever has it must not ask again.
            biased;
            Ok(heard) = heard.wait_for(is_news) => Ok(heard.version),
            version = self.take_turn(seen, ask) => version,
        }
    }

    async fn take_turn<F: Future<Output = RedisResult<u64>>>(
        &self,
        seen: u64,
        ask: impl Fn() -> F,
    ) -> RedisResult<u64> {
        let _turn = self.turn.lock().await;
        loop {
            let asked = Instant::now();
            let version = ask().await?;
            self.heard.send_replace(Heard { version, asked });
            if version != seen {
                return Ok(version);
            }
            sleep(POLL).await;
        }
    }
}
