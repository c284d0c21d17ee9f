//! Tests of the rounds, without a Kafka client.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use proptest::prelude::*;
use votes::{DeliveryFuture, Offset, delivery_channel};

use super::*;

const NOW: UnixMillis = UnixMillis(7);

const NEVER: Duration = Duration::from_hours(1);

fn position(number: usize) -> LogPosition {
    LogPosition { partition: Partition(0), offset: Offset(number as u64) }
}

fn rounds(partitions: u16, max_votes: usize) -> Rounds<usize> {
    Rounds::new(partitions, max_votes, Gauge::noop())
}

/// Adds a vote, whose record is a number. Returns the records to hand over, and the receipt.
fn add(rounds: &Rounds<usize>, partition: u16, record: usize) -> (Vec<(usize, usize)>, DeliveryFuture) {
    let (sender, receipt) = delivery_channel();
    rounds.add(Partition(partition), record, NOW, sender).expect("there is room");
    (rounds.begin(), receipt)
}

fn numbers(records: &[(usize, usize)]) -> Vec<usize> {
    records.iter().map(|(_, number)| *number).collect()
}

/// Completes a vote. Returns the records to hand over.
fn complete(rounds: &Rounds<usize>, opaque: usize) -> Vec<(usize, usize)> {
    rounds.complete(opaque, Ok(position(0)));
    rounds.notify();
    rounds.begin()
}

/// Makes every round overdue that has begun.
fn make_overdue(rounds: &Rounds<usize>) -> Vec<(usize, usize)> {
    for round in rounds.state().rounds.values_mut() {
        round.begun -= OVERDUE_AFTER;
    }
    assert_eq!(rounds.expire(NEVER), 0);
    rounds.notify();
    rounds.begin()
}

fn poll(receipt: &mut DeliveryFuture) -> Poll<Result<Receipt, PublishError>> {
    pin!(receipt).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_lone_vote_leaves_at_once_and_those_that_arrive_meanwhile_leave_together() {
    let rounds = rounds(3, 100);
    let (first, _) = add(&rounds, 0, 10);
    assert_eq!(numbers(&first), [10]);
    for (partition, record) in [(2, 20), (0, 21), (2, 22), (1, 23)] {
        assert_eq!(add(&rounds, partition, record).0, []);
    }
    let records = complete(&rounds, first[0].0);
    assert_eq!(numbers(&records), [21, 23, 20, 22], "sorted by partition");
}

#[test]
fn the_receivers_of_a_round_are_notified_together() {
    let rounds = rounds(1, 100);
    let first = add(&rounds, 0, 0).0[0].0;
    let mut receipts: Vec<_> = (10..13).map(|record| add(&rounds, 0, record).1).collect();
    let records = complete(&rounds, first);
    for (opaque, _) in &records[..2] {
        complete(&rounds, *opaque);
        assert!(receipts.iter_mut().all(|receipt| poll(receipt).is_pending()));
    }
    complete(&rounds, records[2].0);
    let receipt = Receipt { position: position(0), accepted_at: NOW };
    assert!(receipts.iter_mut().all(|pending| poll(pending) == Poll::Ready(Ok(receipt))));
}

#[test]
fn an_overdue_round_holds_up_neither_the_next_one_nor_its_own_confirmed_votes() {
    let rounds = rounds(2, 100);
    let first = add(&rounds, 1, 0).0[0].0;
    let (_, mut confirmed) = add(&rounds, 0, 10);
    let (_, mut hanging) = add(&rounds, 1, 11);
    let records = complete(&rounds, first);
    complete(&rounds, records[0].0);
    let (_, waiting) = add(&rounds, 0, 12);
    assert!(poll(&mut confirmed).is_pending());
    let next = make_overdue(&rounds);
    assert_eq!(numbers(&next), [12]);
    complete(&rounds, next[0].0);
    assert!(poll(&mut confirmed).is_ready() && poll(&mut hanging).is_pending());
    drop(waiting);

    // The votes of the slow partition leave at once, and no broker is busy with them.
    for record in 20..30 {
        assert_eq!(numbers(&add(&rounds, 1, record).0), [record]);
    }
    assert_eq!(numbers(&add(&rounds, 0, 30).0), [30]);
    // A confirmed vote ends this.
    complete(&rounds, records[1].0);
    assert!(poll(&mut hanging).is_ready());
    assert_eq!(add(&rounds, 1, 31).0, []);
}

#[test]
fn a_slow_partition_uses_only_its_share_of_the_room() {
    let rounds = rounds(4, 100);
    drop(add(&rounds, 3, 0));
    make_overdue(&rounds);
    for record in 1..25 {
        drop(add(&rounds, 3, record));
    }
    assert!(matches!(rounds.add(Partition(3), 99, NOW, delivery_channel().0), Err(PublishError::Full)));
    for record in 0..75 {
        drop(add(&rounds, 0, record));
    }
    assert!(matches!(rounds.add(Partition(0), 99, NOW, delivery_channel().0), Err(PublishError::Full)));
}

#[test]
fn a_busy_broker_holds_up_no_other_broker() {
    let rounds = rounds(2, 100);
    rounds.set_leaders([(Partition(0), 7), (Partition(1), 8)]);
    assert_eq!(numbers(&add(&rounds, 0, 1).0), [1]);
    assert_eq!(add(&rounds, 0, 10).0, []);
    assert_eq!(numbers(&add(&rounds, 1, 11).0), [11]);
}

#[test]
fn preferred_partitions_get_equal_shares_and_avoid_slow_partitions_and_busy_brokers() {
    let preferred = |rounds: &Rounds<usize>| rounds.preferred_partition().0;
    let alone = rounds(12, 100);
    let mut votes = [0; 12];
    for record in 0..120 {
        let partition = preferred(&alone);
        votes[usize::from(partition)] += 1;
        complete(&alone, add(&alone, partition, record).0[0].0);
    }
    assert_eq!(votes, [10; 12]);

    // Partition 1 is slow.
    let rounds = rounds(4, 10_000);
    drop(add(&rounds, 1, 0));
    make_overdue(&rounds);
    rounds.set_leaders([(Partition(0), 7), (Partition(1), 7), (Partition(2), 8), (Partition(3), 8)]);
    let mut seen = BTreeSet::new();
    for record in 0..20 {
        seen.insert(preferred(&rounds));
        complete(&rounds, add(&rounds, preferred(&rounds), record).0[0].0);
    }
    assert_eq!(seen, [0, 2, 3].into(), "also with few votes, which alternate between the brokers");
    // After a while, one vote tries the slow partition.
    rounds.state().partitions[1].slow_since = Instant::now().checked_sub(AVOID_TIME + Duration::from_secs(1));
    while preferred(&rounds) != 1 {
        complete(&rounds, add(&rounds, preferred(&rounds), 50).0[0].0);
    }
    drop(add(&rounds, 1, 51));
    for record in 60..80 {
        assert_ne!(preferred(&rounds), 1);
        complete(&rounds, add(&rounds, preferred(&rounds), record).0[0].0);
    }
    // The broker 7 is busy.
    drop(add(&rounds, 0, 99));
    assert!(preferred(&rounds) >= 2);
    // All brokers are busy. The votes of a large batch are in several partitions.
    seen.clear();
    for record in 0..2_000 {
        seen.insert(preferred(&rounds));
        drop(add(&rounds, preferred(&rounds), record));
    }
    assert_eq!(seen, [0, 2, 3].into());
}

/// A waker that records, each time a receipt wakes it, whether `flush` would return.
struct FlushObserver {
    rounds: Arc<Rounds<usize>>,
    observed: Mutex<Vec<bool>>,
}

impl Wake for FlushObserver {
    fn wake(self: Arc<Self>) {
        let flush = pin!(self.rounds.flush());
        let is_flushed = flush.poll(&mut Context::from_waker(Waker::noop())).is_ready();
        self.observed.lock().unwrap().push(is_flushed);
    }
}

#[test]
fn flush_waits_until_every_receiver_is_notified() {
    let rounds = Arc::new(rounds(1, 10));
    let observer = Arc::new(FlushObserver { rounds: Arc::clone(&rounds), observed: Mutex::default() });
    let waker = Waker::from(Arc::clone(&observer));
    let opaque = add(&rounds, 0, 0).0[0].0;
    let mut receipts: Vec<_> = (1..=2).map(|record| Box::pin(add(&rounds, 0, record).1)).collect();
    for receipt in &mut receipts {
        assert!(receipt.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    for (opaque, _) in complete(&rounds, opaque) {
        complete(&rounds, opaque);
    }
    assert_eq!(*observer.observed.lock().unwrap(), [false, false]);
    assert!(rounds.is_empty());
}

/// What happens to the votes in a history.
#[derive(Clone, Debug)]
enum Event {
    Add {
        partition: u16,
    },
    /// The report of one of the votes that were handed over.
    Report {
        index: prop::sample::Index,
        is_confirmed: bool,
    },
    Overdue,
    TimeOut,
    Leaders {
        leader: u16,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let report = (any::<prop::sample::Index>(), prop::bool::weighted(0.9));
    prop_oneof![
        8 => (0..5u16).prop_map(|partition| Event::Add { partition }),
        8 => report.prop_map(|(index, is_confirmed)| Event::Report { index, is_confirmed }),
        1 => Just(Event::Overdue),
        1 => Just(Event::TimeOut),
        1 => (0..3_u16).prop_map(|leader| Event::Leaders { leader }),
    ]
}

proptest! {
    #[test]
    fn each_vote_is_handed_over_once_and_gets_its_own_outcome_once(
        events in prop::collection::vec(event(), 1..400)
    ) {
        let rounds = rounds(5, 40);
        let (mut receipts, mut handed_over, mut open) = (Vec::new(), BTreeSet::new(), Vec::new());
        let outcome_of = |number: usize, is_confirmed: bool| {
            let failed = || PublishError::Unavailable(format!("failed {number}"));
            is_confirmed.then(|| position(number)).ok_or_else(failed)
        };
        for event in events.into_iter().chain(std::iter::repeat_n(Event::TimeOut, 2)) {
            match event {
                Event::Add { partition } => {
                    let (sender, receipt) = delivery_channel();
                    let number = receipts.len();
                    if rounds.add(Partition(partition), number, NOW, sender).is_ok() {
                        receipts.push((receipt, None));
                    }
                }
                Event::Report { index, is_confirmed } if !open.is_empty() => {
                    let (opaque, number): (usize, usize) = open.swap_remove(index.index(open.len()));
                    let (_, expected) = &mut receipts[number];
                    if expected.is_none() {
                        *expected = Some(outcome_of(number, is_confirmed));
                    }
                    rounds.complete(opaque, outcome_of(number, is_confirmed));
                }
                Event::Report { .. } => {}
                Event::Overdue => {
                    rounds.state().rounds.values_mut().for_each(|round| round.begun -= OVERDUE_AFTER);
                    prop_assert_eq!(rounds.expire(NEVER), 0);
                }
                Event::TimeOut => {
                    rounds.state().rounds.values_mut().for_each(|round| round.begun -= NEVER);
                    let timed_out = rounds.expire(NEVER);
                    let ended = receipts.iter_mut().enumerate();
                    let ended = ended.filter(|(number, (_, expected))| {
                        expected.is_none() && handed_over.contains(number)
                    });
                    let ended = ended.map(|(_, (_, expected))| {
                        *expected = Some(Err(PublishError::Unavailable(String::new())));
                    });
                    prop_assert_eq!(ended.count(), timed_out);
                }
                Event::Leaders { leader } => {
                    let partitions = [Partition(leader), Partition(4)];
                    rounds.set_leaders(partitions.map(|partition| (partition, i32::from(leader))));
                }
            }
            let is_woken = pin!(rounds.changed()).poll(&mut Context::from_waker(Waker::noop())).is_ready();
            let has_outcomes = !rounds.state().outcomes.is_empty();
            rounds.notify();
            let records = rounds.begin();
            prop_assert!(is_woken || !has_outcomes && records.is_empty(), "the task that does this was not woken");
            for (opaque, number) in records {
                prop_assert!(handed_over.insert(number), "{} was handed over twice", number);
                open.push((opaque, number));
            }
            let state = rounds.state();
            for broker in state.brokers.values() {
                prop_assert!(broker.waiting.is_empty() || broker.is_busy);
            }
            let unanswered = state.partitions.iter().map(|partition| partition.votes).sum::<usize>();
            prop_assert!(unanswered <= state.votes && state.votes <= 40);
        }
        prop_assert_eq!(handed_over.len(), receipts.len());
        prop_assert!(rounds.is_empty());
        for (number, (receipt, expected)) in receipts.iter_mut().enumerate() {
            match (poll(receipt), expected) {
                (Poll::Ready(Ok(receipt)), Some(Ok(position))) => prop_assert_eq!(receipt.position, *position),
                (Poll::Ready(Err(_)), Some(Err(_))) => {}
                (outcome, expected) => prop_assert!(false, "{}: {:?}, not {:?}", number, outcome, expected),
            }
        }
    }
}
