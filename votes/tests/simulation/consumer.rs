//! A consumer of one partition: it drives the production [`Counter`] as the consumer service does, with no runtime.

use votes::VoteFeed as _;
use votes::{Counted, Counter, CutOff, DeadLetter, LogFacts, Offset, Partition, Progress, Stop, StoreError};

use crate::{mutants::Mutant, stores::Seat, world::Phase};

/// Counts until it is dropped.
pub(crate) async fn run(seat: Seat, partition: Partition, most: usize, mutant: Option<Mutant>) {
    let counter = Counter::new(seat.book(), seat.tallies());
    let consumer = Consumer { seat, partition, most, mutant, counter };
    loop {
        // Failed or disagreed with: reconcile again.
        if let Ok(Some(stop)) = consumer.count_until().await {
            consumer.seat.stops(&stop);
        }
    }
}

struct Consumer {
    seat: Seat,
    partition: Partition,
    most: usize,
    mutant: Option<Mutant>,
    counter: Counter,
}

impl Consumer {
    async fn count_until(&self) -> Result<Option<Stop>, StoreError> {
        self.seat.enters(Phase::Reconciling);
        let mut progress = match self.reconcile().await? {
            Ok(progress) => progress,
            Err(stop) => return Ok(Some(stop)),
        };
        self.seat.seek(self.partition, self.first(progress)).await?;
        loop {
            if let Some(until) = self.seat.expire_to(self.partition) {
                self.seat.enters(Phase::Counting);
                let expired = self.counter.expire(self.partition, progress, CutOff::At(until)).await?;
                let Some((expired, _)) = expired else {
                    self.seat.disagrees();
                    return Ok(None);
                };
                progress = expired;
            }
            self.seat.enters(Phase::Resting);
            let batch = self.seat.next_batch(self.partition, self.most).await?;
            let to = batch.to;
            let dead = batch.dead_letters();
            if self.mutant != Some(Mutant::BuriedLate) {
                self.bury(&dead).await?;
            }
            self.seat.enters(Phase::Counting);
            match self.counter.count(progress, batch).await {
                Ok(Counted::Done { progress: counted, .. }) => progress = counted,
                Ok(Counted::Disagreed) => {
                    self.seat.disagrees();
                    return Ok(None);
                }
                Err(_) if self.mutant == Some(Mutant::SkippedBatch) => continue,
                Err(error) => return Err(error),
            }
            if self.mutant == Some(Mutant::BuriedLate) {
                self.bury(&dead).await?;
            }
            self.seat.enters(Phase::Resting);
            self.seat.commit(self.partition, to).await?;
        }
    }

    async fn reconcile(&self) -> Result<Result<Progress, Stop>, StoreError> {
        let before = self.counter.positions(self.partition).await?;
        let bounds = self.seat.bounds(self.partition).await?;
        let last = match before.booked.last {
            Some((offset, _)) if bounds.start <= offset && offset < bounds.end => {
                self.seat.seek(self.partition, offset).await?;
                let batch = self.seat.next_batch(self.partition, 1).await?;
                let record = batch.records.into_iter().find(|record| record.offset == offset);
                record.and_then(|record| record.vote.ok()).map(|vote| vote.vote_id)
            }
            _ => None,
        };
        self.counter.reconcile(self.partition, before, LogFacts { bounds, last }).await
    }

    /// Where the feed begins.
    fn first(&self, progress: Progress) -> Offset {
        if self.mutant == Some(Mutant::CommittedOffset) { self.seat.committed(self.partition) } else { progress.booked }
    }

    async fn bury(&self, dead: &[DeadLetter]) -> Result<(), StoreError> {
        if dead.is_empty() { Ok(()) } else { self.seat.bury(dead).await }
    }
}
