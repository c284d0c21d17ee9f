//! What streams follow: the newest standing of a contest, read once and serialised once for all who watch it.
//!
//! Each contest that somebody watches has one task. It waits until the tallies change, reads, and leaves the newest
//! standing in a channel that keeps only that one. A reader takes it when it is ready for more, so a slow one skips what
//! it missed, holds nobody back, and costs no memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use metrics::gauge;
use service::CancellationToken;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use votes::{ContestId, StoreError};

use crate::{Limits, stores::Stores, stream, tally::Standing};

/// The least time from one reading to the next: 20 a second are as smooth as people see, and a change is shown within
/// this and the time that reading takes.
const GAP: Duration = Duration::from_millis(50);

/// After a reading the task rests for so many times its length, so that a contest with a million names does not keep its
/// store busy with reading: that takes a fifth of the time at most.
const REST: u32 = 4;

/// How often watchers hear of what is no vote of their contest: votes that are accepted, or counted for other contests.
const REFRESH: Duration = Duration::from_millis(500);

/// The pause after a first failure, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Where contests are followed.
#[derive(Clone)]
pub(crate) struct Watch {
    stores: Arc<Stores>,
    channels: Arc<Channels>,
    places: Arc<Semaphore>,
    patience: Duration,
    shutdown: CancellationToken,
}

/// The channels of the contests that are watched. Each receiver here is beside those of the followers.
type Channels = Mutex<HashMap<ContestId, watch::Receiver<State>>>;

/// What a contest's channel shows.
#[derive(Clone, Debug)]
enum State {
    /// Nothing has been read yet.
    Reading,
    /// The newest.
    Current(Arc<Update>),
    /// The stores have been failing, and this is why.
    Down(StoreError),
}

/// A standing, and its one serialised form.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) standing: Arc<Standing>,
    /// As a server-sent event.
    pub(crate) event: Bytes,
}

impl Update {
    fn of(standing: &Arc<Standing>) -> Self {
        Self { standing: Arc::clone(standing), event: stream::tally_event(standing) }
    }
}

/// Why a contest can't be followed.
#[derive(Debug)]
pub(crate) enum NotFollowed {
    /// There are as many followers as there may be.
    Full,
    /// There is nothing to show.
    Down(StoreError),
    /// The process is leaving.
    Leaving,
}

impl Watch {
    /// All that is followed ends on shutdown.
    pub(crate) fn new(stores: Arc<Stores>, limits: Limits, shutdown: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(limits.streams));
        Self { stores, channels: Arc::default(), places, patience: limits.patience, shutdown }
    }

    /// Begins to follow a contest. The first news, the standing as it is, are there at once.
    pub(crate) async fn follow(&self, contest: &ContestId, protocol: &'static str) -> Result<Follower, NotFollowed> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| NotFollowed::Full)?;
        let mut channel = self.channel(contest);
        let state = channel.wait_for(|state| !matches!(state, State::Reading)).await.map(|state| state.clone());
        let first = match state.map_err(|_| NotFollowed::Leaving)? {
            State::Current(update) => update,
            // The task may be about to try again: who comes now should not wait for it.
            _ => Arc::new(Update::of(&self.stores.standing(contest).await.map_err(NotFollowed::Down)?)),
        };
        Ok(Follower::new(first, channel, protocol, place))
    }

    /// The contest's channel. Whoever comes first starts its task.
    fn channel(&self, contest: &ContestId) -> watch::Receiver<State> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        // A channel without its task is closed.
        if let Some(channel) = channels.get(contest).filter(|channel| channel.has_changed().is_ok()) {
            return channel.clone();
        }
        let (sender, channel) = watch::channel(State::Reading);
        channels.insert(contest.clone(), channel.clone());
        let task = Task {
            stores: Arc::clone(&self.stores),
            channels: Arc::clone(&self.channels),
            contest: contest.clone(),
            sender,
            patience: self.patience,
            shown: None,
        };
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(task.run()).await });
        channel
    }
}

/// One who follows a contest. Its place is free again when it is dropped.
pub(crate) struct Follower {
    first: Option<Arc<Update>>,
    channel: watch::Receiver<State>,
    protocol: &'static str,
    _place: OwnedSemaphorePermit,
}

/// What a follower hears.
pub(crate) enum News {
    /// The newest standing.
    Update(Arc<Update>),
    /// The stores have been failing for some time: what was shown last may no longer be how it stands.
    Down(StoreError),
    /// There will be no more.
    Over,
}

impl Follower {
    fn new(
        first: Arc<Update>,
        channel: watch::Receiver<State>,
        protocol: &'static str,
        place: OwnedSemaphorePermit,
    ) -> Self {
        gauge!("ovation_results_streams", "protocol" => protocol).increment(1);
        Self { first: Some(first), channel, protocol, _place: place }
    }

    /// Waits for news that were not heard yet. If the future is dropped, nothing was heard.
    pub(crate) async fn news(&mut self) -> News {
        if let Some(first) = self.first.take() {
            return News::Update(first);
        }
        loop {
            if self.channel.changed().await.is_err() {
                return News::Over;
            }
            match &*self.channel.borrow_and_update() {
                State::Reading => {}
                State::Current(update) => return News::Update(Arc::clone(update)),
                State::Down(error) => return News::Down(error.clone()),
            }
        }
    }

    /// Whether the stores answer, so that what was shown last is how it stands now.
    pub(crate) fn is_current(&self) -> bool {
        matches!(&*self.channel.borrow(), State::Current(_))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        gauge!("ovation_results_streams", "protocol" => self.protocol).decrement(1);
    }
}

/// Keeps a contest's channel current for as long as somebody follows it.
struct Task {
    stores: Arc<Stores>,
    channels: Arc<Channels>,
    contest: ContestId,
    sender: watch::Sender<State>,
    patience: Duration,
    shown: Option<(Arc<Standing>, Instant)>,
}

impl Task {
    async fn run(mut self) {
        let mut failing_since = None;
        let mut back_off = BACK_OFF.0;
        while !self.give_up() {
            let begun = Instant::now();
            match self.stores.standing(&self.contest).await {
                Ok(standing) => {
                    (failing_since, back_off) = (None, BACK_OFF.0);
                    let rest = GAP.max(begun.elapsed() * REST);
                    self.show(&standing);
                    sleep(rest).await;
                    self.wait_for_change(standing).await;
                }
                Err(error) => {
                    let since: Instant = *failing_since.get_or_insert(begun);
                    if self.shown.is_none() || since.elapsed() >= self.patience {
                        self.shown = None;
                        self.sender.send_replace(State::Down(error));
                    }
                    sleep(back_off).await;
                    back_off = (back_off * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    /// Waits until the tallies are others than those of the standing. Meanwhile more may be accepted.
    async fn wait_for_change(&mut self, mut standing: Arc<Standing>) {
        while !self.is_deserted() {
            match timeout(REFRESH, self.stores.changed(standing.tally.version)).await {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "no word of changes, so the tallies are read now and then");
                    return sleep(REFRESH).await;
                }
                Err(_) => {
                    let Ok(accepted) = self.stores.accepted(standing.tally.processed).await else { return };
                    if accepted != standing.accepted {
                        standing = Arc::new(Standing { accepted, ..(*standing).clone() });
                    }
                    self.show(&standing);
                }
            }
        }
    }

    /// Shows a standing if it is news: votes of this contest at once, the rest now and then.
    fn show(&mut self, standing: &Arc<Standing>) {
        let is_news = self.shown.as_ref().is_none_or(|(shown, at)| {
            !standing.has_the_same_votes(shown) || (standing != shown && at.elapsed() >= REFRESH)
        });
        if is_news {
            self.shown = Some((Arc::clone(standing), Instant::now()));
            self.sender.send_replace(State::Current(Arc::new(Update::of(standing))));
        }
    }

    /// Whether nobody follows any more.
    fn is_deserted(&self) -> bool {
        self.sender.receiver_count() == 1
    }

    /// Gives the channel up if it is deserted. Once that is done, who comes next starts another task.
    fn give_up(&self) -> bool {
        // Under the lock nobody can begin to follow in between.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let is_deserted = self.is_deserted();
        if is_deserted {
            channels.remove(&self.contest);
        }
        is_deserted
    }
}
