//! Keeping less: what is counted and old leaves the book and the log.

use std::{sync::Arc, time::Duration};

use metrics::{counter, describe_counter};
use tokio::{sync::Mutex, time::Instant};
use votes::{Book, Counter, CutOff, Partition, Progress, Retention, StoreError, VoteFeed};

/// How often a partition looks whether something has to leave.
const EVERY: Duration = Duration::from_millis(500);

/// When it is tried again after a store failed.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Votes may be older than they should by this part of their age: seldom and much, since an audit begins anew when something
/// expires.
const LEEWAY: u32 = 20;

/// How much is kept of the votes that are counted.
#[derive(Clone, Default)]
pub struct Keeping {
    log: Option<Retention>,
    book: Option<(Retention, Arc<SizedBook>)>,
}

/// The book, with how large it is: that is no cheap question, so all partitions ask it together.
struct SizedBook {
    store: Arc<dyn Book>,
    size: Mutex<Option<(Instant, u64)>>,
}

impl Keeping {
    /// Keeps so much of the log and of the book; everything where nothing is said.
    pub fn new(log: Option<Retention>, book: Option<Retention>, of: &Arc<dyn Book>) -> Self {
        let sized = || Arc::new(SizedBook { store: Arc::clone(of), size: Mutex::default() });
        Self { log, book: book.map(|retention| (retention, sized())) }
    }
}

impl SizedBook {
    /// Not older than [`EVERY`].
    async fn size(&self) -> Result<u64, StoreError> {
        let mut size = self.size.lock().await;
        match *size {
            Some((at, size)) if at.elapsed() < EVERY => Ok(size),
            _ => {
                let now = self.store.size().await?;
                *size = Some((Instant::now(), now));
                Ok(now)
            }
        }
    }
}

/// Lets a partition's votes go.
pub(crate) struct Keeper {
    partition: Partition,
    keeping: Keeping,
    next: Instant,
}

impl Keeper {
    pub(crate) fn new(partition: Partition, keeping: Keeping) -> Self {
        describe_counter!("ovation_expired_votes_total", "Votes that left a store because of its retention");
        Self { partition, keeping, next: Instant::now() }
    }

    /// Lets go of what is too old or too much, if it is time to look. Call it between batches. `None` if the stores are
    /// elsewhere than `progress`.
    ///
    /// A store that does not let go holds no counting up: it is said, and tried again later. Where a cut-off moved without our
    /// hearing of it, the next batch disagrees.
    pub(crate) async fn keep(
        &mut self,
        counter: &Counter,
        feed: &dyn VoteFeed,
        progress: Progress,
    ) -> Option<Progress> {
        if Instant::now() < self.next {
            return Some(progress);
        }
        self.next = Instant::now() + EVERY;
        match self.expire(counter, feed, progress).await {
            Ok(kept) => kept,
            Err(error) => {
                self.next = Instant::now() + TRY_AGAIN;
                tracing::warn!(partition = %self.partition, %error, retry_in = ?TRY_AGAIN, "votes did not expire");
                Some(progress)
            }
        }
    }

    async fn expire(
        &self,
        counter: &Counter,
        feed: &dyn VoteFeed,
        mut progress: Progress,
    ) -> Result<Option<Progress>, StoreError> {
        if let Some((retention, book)) = &self.keeping.book
            && let Some(until) = self.cut_off(book, *retention, progress).await?
        {
            let Some((kept, votes)) = counter.expire(self.partition, progress, until).await? else { return Ok(None) };
            counter!("ovation_expired_votes_total", "store" => "book").increment(votes);
            progress = kept;
        }
        if let Some(retention) = self.keeping.log {
            // What is booked needs the log no more, unless the book is restored from a backup.
            let gone = feed.expire(self.partition, retention, progress.booked).await?;
            counter!("ovation_expired_votes_total", "store" => "log").increment(gone);
        }
        Ok(Some(progress))
    }

    /// Up to where votes have to leave the book, if any has.
    async fn cut_off(
        &self,
        book: &SizedBook,
        retention: Retention,
        Progress { booked, cut_off, .. }: Progress,
    ) -> Result<Option<CutOff>, StoreError> {
        match retention {
            Retention::Age(age) => {
                let oldest = book.store.range(self.partition, cut_off, booked, 1).await?;
                let late = Retention::since(age + age / LEEWAY);
                let is_late = oldest.first().is_some_and(|logged| logged.vote.accepted_at < late);
                Ok(is_late.then(|| CutOff::Time(Retention::since(age))))
            }
            Retention::Bytes(bytes) => {
                let used = book.size().await? as f64;
                let kept = Retention::kept(bytes, used, booked.0.saturating_sub(cut_off.0));
                Ok(kept.map(|kept| CutOff::At(votes::Offset(booked.0 - kept))))
            }
        }
    }
}
