//! The subscriptions to the tallies of contests.
//!
//! Each contest that has subscribers has one task. The task waits for a change of the tallies, reads the contest,
//! serialises the tally once, and puts the tally into a channel that has only the newest tally. The stream of a
//! subscriber takes the newest tally when the client can receive more. So a slow subscriber skips older tallies, delays no other subscriber, and needs no
//! memory.

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

use super::{contest_tally::ContestTally, stores::LiveStores};
use crate::limits::Limits;

/// The shortest time between two reads of a contest. 20 updates per second look smooth. If reads are fast, a change is
/// shown after at most this time and the time of a read.
const MIN_READ_INTERVAL: Duration = Duration::from_millis(50);

/// After a read, the task pauses for this multiple of the time that the read took. So reads take at most a fifth of the
/// time, even for a contest with a million bands.
const READ_PAUSE_FACTOR: u32 = 4;

/// If no vote of the contest was counted since the last update, the next update is sent after this time at the earliest.
/// Such an update differs from the last one only in two numbers, which are for all contests together: how many records
/// were accepted, and how many were processed.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);

/// The pause after the first failed read. The pause doubles with each further failure, up to [`MAX_RETRY_DELAY`].
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The longest pause after a failed read.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);

/// The subscriptions to all contests.
#[derive(Clone)]
pub(crate) struct Subscriptions {
    stores: Arc<LiveStores>,
    channels: Arc<Channels>,
    permits: Arc<Semaphore>,
    stale_after: Duration,
    shutdown: CancellationToken,
}

/// The channels of the contests that have subscribers. In addition to the receivers of its subscribers, each channel
/// has one receiver here.
type Channels = Mutex<HashMap<ContestId, watch::Receiver<ChannelState>>>;

/// The contents of the channel of a contest.
#[derive(Clone, Debug)]
enum ChannelState {
    /// The contest has not been read yet.
    Pending,
    /// The newest tally.
    Current(Arc<Update>),
    /// The stores have been failing, with this error.
    Unavailable(StoreError),
}

/// A tally of a contest, with its serialised form.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) contest_tally: Arc<ContestTally>,
    /// The tally as a server-sent event.
    pub(crate) event: Bytes,
}

impl Update {
    fn of(contest_tally: &Arc<ContestTally>) -> Self {
        Self { contest_tally: Arc::clone(contest_tally), event: contest_tally.to_event() }
    }
}

/// Why a subscription is refused.
#[derive(Debug)]
pub(crate) enum SubscribeError {
    /// The number of streams has reached its limit.
    TooManyStreams,
    /// The tally can't be read.
    StoreUnavailable(StoreError),
    /// The process is shutting down.
    ShuttingDown,
}

impl Subscriptions {
    /// Creates the registry of subscriptions. All subscriptions end on shutdown.
    pub(crate) fn new(stores: Arc<LiveStores>, limits: Limits, shutdown: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(limits.streams));
        Self { stores, channels: Arc::default(), permits, stale_after: limits.stale_after, shutdown }
    }

    /// Subscribes to a contest. The first event, the current tally, is available at once.
    pub(crate) async fn subscribe(
        &self,
        contest: &ContestId,
        protocol: &'static str,
    ) -> Result<Subscriber, SubscribeError> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| SubscribeError::TooManyStreams)?;
        let mut channel = self.channel(contest);
        let state = channel.wait_for(|state| !matches!(state, ChannelState::Pending)).await.map(|state| state.clone());
        let first = if let ChannelState::Current(update) = state.map_err(|_| SubscribeError::ShuttingDown)? {
            update
        } else {
            // The task may be pausing before its next attempt. A new subscriber does not wait for the task.
            let contest_tally = self.stores.contest_tally(contest).await.map_err(SubscribeError::StoreUnavailable)?;
            Arc::new(Update::of(&contest_tally))
        };
        Ok(Subscriber::new(first, channel, protocol, permit))
    }

    /// Returns the channel of the contest. Starts the task of the contest if none is running.
    fn channel(&self, contest: &ContestId) -> watch::Receiver<ChannelState> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        // The channel is closed if its task has ended.
        if let Some(channel) = channels.get(contest).filter(|channel| channel.has_changed().is_ok()) {
            return channel.clone();
        }
        let (sender, channel) = watch::channel(ChannelState::Pending);
        channels.insert(contest.clone(), channel.clone());
        let task = ContestTask {
            stores: Arc::clone(&self.stores),
            channels: Arc::clone(&self.channels),
            contest: contest.clone(),
            sender,
            stale_after: self.stale_after,
            sent: None,
        };
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(task.run()).await });
        channel
    }
}

/// A subscriber of a contest. Dropping this releases the permit.
pub(crate) struct Subscriber {
    first: Option<Arc<Update>>,
    channel: watch::Receiver<ChannelState>,
    protocol: &'static str,
    _permit: OwnedSemaphorePermit,
}

/// What a subscriber receives.
pub(crate) enum SubscriptionEvent {
    /// The newest tally.
    Update(Arc<Update>),
    /// The stores have been failing for some time, so the last tally may be out of date.
    StoreUnavailable(StoreError),
    /// The subscription has ended.
    Closed,
}

impl Subscriber {
    fn new(
        first: Arc<Update>,
        channel: watch::Receiver<ChannelState>,
        protocol: &'static str,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        gauge!("ovation_results_streams", "protocol" => protocol).increment(1);
        Self { first: Some(first), channel, protocol, _permit: permit }
    }

    /// Waits for the next event. If the future is dropped, no event is lost.
    pub(crate) async fn next_event(&mut self) -> SubscriptionEvent {
        if let Some(first) = self.first.take() {
            return SubscriptionEvent::Update(first);
        }
        loop {
            if self.channel.changed().await.is_err() {
                return SubscriptionEvent::Closed;
            }
            match &*self.channel.borrow_and_update() {
                ChannelState::Pending => {}
                ChannelState::Current(update) => return SubscriptionEvent::Update(Arc::clone(update)),
                ChannelState::Unavailable(error) => return SubscriptionEvent::StoreUnavailable(error.clone()),
            }
        }
    }

    /// Returns `false` once the stores have failed for `stale_after`: the last tally may then be out of date.
    pub(crate) fn is_current(&self) -> bool {
        matches!(&*self.channel.borrow(), ChannelState::Current(_))
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        gauge!("ovation_results_streams", "protocol" => self.protocol).decrement(1);
    }
}

/// The task of a contest, which updates the channel while the contest has subscribers.
struct ContestTask {
    stores: Arc<LiveStores>,
    channels: Arc<Channels>,
    contest: ContestId,
    sender: watch::Sender<ChannelState>,
    stale_after: Duration,
    /// The last tally in the channel, and the time at which it was sent. `None` if the channel has no tally.
    sent: Option<(Arc<ContestTally>, Instant)>,
}

impl ContestTask {
    async fn run(mut self) {
        let mut failing_since = None;
        let mut retry_delay = FIRST_RETRY_DELAY;
        while !self.close_if_unused() {
            let begun = Instant::now();
            match self.stores.contest_tally(&self.contest).await {
                Ok(contest_tally) => {
                    (failing_since, retry_delay) = (None, FIRST_RETRY_DELAY);
                    let pause = MIN_READ_INTERVAL.max(begun.elapsed() * READ_PAUSE_FACTOR);
                    self.send_if_new(&contest_tally);
                    sleep(pause).await;
                    self.wait_for_change(contest_tally).await;
                }
                Err(error) => {
                    let since: Instant = *failing_since.get_or_insert(begun);
                    if self.sent.is_none() || since.elapsed() >= self.stale_after {
                        self.sent = None;
                        self.sender.send_replace(ChannelState::Unavailable(error));
                    }
                    sleep(retry_delay).await;
                    retry_delay = (retry_delay * 2).min(MAX_RETRY_DELAY);
                }
            }
        }
    }

    /// Waits until the tallies have another version than this tally. During the wait, sends the number of accepted
    /// votes if this number changes. Returns also if the contest has no subscribers any more, or if a store fails.
    async fn wait_for_change(&mut self, mut contest_tally: Arc<ContestTally>) {
        while !self.has_no_subscribers() {
            match timeout(REFRESH_INTERVAL, self.stores.changed(contest_tally.tally.version)).await {
                Ok(Ok(_)) => return,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "waiting for a change of the tallies failed, so they are read at an interval");
                    return sleep(REFRESH_INTERVAL).await;
                }
                Err(_) => {
                    let Ok(accepted) = self.stores.accepted(contest_tally.tally.processed).await else { return };
                    if accepted != contest_tally.accepted {
                        contest_tally = Arc::new(ContestTally { accepted, ..(*contest_tally).clone() });
                    }
                    self.send_if_new(&contest_tally);
                }
            }
        }
    }

    /// Sends a tally if it is new. A tally with new votes of this contest is sent immediately. Any other new tally is
    /// sent at most once in each [`REFRESH_INTERVAL`].
    fn send_if_new(&mut self, contest_tally: &Arc<ContestTally>) {
        let is_new = self.sent.as_ref().is_none_or(|(sent, at)| {
            !contest_tally.has_the_same_votes(sent) || (contest_tally != sent && at.elapsed() >= REFRESH_INTERVAL)
        });
        if is_new {
            self.sent = Some((Arc::clone(contest_tally), Instant::now()));
            self.sender.send_replace(ChannelState::Current(Arc::new(Update::of(contest_tally))));
        }
    }

    /// Returns whether the receiver in [`Channels`] is the only receiver.
    fn has_no_subscribers(&self) -> bool {
        self.sender.receiver_count() == 1
    }

    /// Removes the channel if it has no subscribers. Returns whether the channel was removed. The next subscriber then
    /// starts another task.
    fn close_if_unused(&self) -> bool {
        // The lock prevents a new subscription between the check and the removal.
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unused = self.has_no_subscribers();
        if is_unused {
            channels.remove(&self.contest);
        }
        is_unused
    }
}
