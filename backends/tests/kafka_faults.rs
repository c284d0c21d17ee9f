//! Brokers that are killed and that hang: the doors refuse in time and recover by themselves, and what was acknowledged is on
//! the log. Each test starts brokers of its own with `dev/stack`.
#![cfg(feature = "kafka")]
#![allow(clippy::unwrap_used)]

mod kafka_cluster;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use kafka_cluster::{Topic, stack::Stack};
use rdkafka::{
    Message, TopicPartitionList,
    admin::{NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use service::health::Weight;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval, sleep, timeout},
};
use uuid::Uuid;
use votes::{Accepted, Contests, Door, DoorKind, Place, Reason, Receipt, Refusal, VoteId, VoteQueue, VoteRequest};

/// How long a door may take: two seconds, with an order of magnitude for a busy machine. What it took is printed.
const ANSWER: Duration = Duration::from_secs(20);

/// How long servers may take.
const SOON: Duration = Duration::from_mins(2);

fn door(queue: &Arc<dyn VoteQueue>) -> Door {
    Door::new(DoorKind::Rest, Arc::new(Contests::default()), None, Arc::clone(queue))
}

fn request() -> VoteRequest {
    let vote_id = Some(Uuid::now_v7().to_string());
    VoteRequest { name: Some("Pink Floyd".to_owned()), vote_id, ..VoteRequest::default() }
}

async fn cast(door: &Door) -> Result<Accepted, Refusal> {
    timeout(ANSWER, door.cast(request())).await.expect("the door answers in time")
}

/// Casts until a vote is acknowledged.
async fn recover(door: &Door) -> Duration {
    let begun = Instant::now();
    while cast(door).await.is_err() {
        assert!(begun.elapsed() < SOON, "votes are acknowledged again");
    }
    begun.elapsed()
}

/// Casts a hundred votes while no broker works, some at a time; the longest time that a refusal took.
async fn refused(door: &Door) -> Duration {
    let mut casting = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(20));
    for _ in 0..100 {
        ticks.tick().await;
        let door = door.clone();
        casting.spawn(async move {
            let begun = Instant::now();
            let refusal = cast(&door).await.expect_err("no broker has it");
            assert_eq!((refusal.reason, refusal.vote_id.is_some()), (Reason::LogUnavailable, true));
            begun.elapsed()
        });
    }
    casting.join_all().await.into_iter().max().unwrap()
}

/// Resident memory of this process in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_refuse_in_time_while_kafka_is_away_and_recover_by_themselves() {
    let stack = Stack::up("outage", 1);
    let topic = stack.topic();
    let stores = topic.stores();

    stack.kill("kafka");
    let opening = tokio::spawn({
        let stores = stores.clone();
        async move { stores.queue(Weight::Vital).await.unwrap() }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!opening.is_finished(), "a start waits for Kafka");
    stack.start("kafka");
    let begun = Instant::now();
    let queue = timeout(SOON, opening).await.unwrap().unwrap();
    println!("opened {:?} after Kafka was there", begun.elapsed());
    let door = door(&queue);
    cast(&door).await.unwrap();

    for fault in ["kill -9", "SIGSTOP"] {
        let feed = stores.feed(Weight::Vital).await.unwrap();
        timeout(SOON, feed.assignment()).await.unwrap().unwrap();
        match fault {
            "SIGSTOP" => stack.signal("kafka", "STOP"),
            _ => stack.kill("kafka"),
        }
        println!("{fault}: refused within {:?}", refused(&door).await);
        let begun = Instant::now();
        assert!(timeout(ANSWER, queue.check()).await.unwrap().is_err());
        println!("{fault}: the check fails in {:?}", begun.elapsed());
        let begun = Instant::now();
        spawn_blocking(move || drop(feed)).await.unwrap();
        println!("{fault}: a feed is closed in {:?}", begun.elapsed());
        assert!(begun.elapsed() < ANSWER);

        let before = memory();
        let (mut waiting, mut refused, begun) = (JoinSet::new(), 0, Instant::now());
        while begun.elapsed() < Duration::from_secs(3) {
            for _ in 0..500 {
                match door.submit(request()).casting {
                    Ok(casting) => drop(waiting.spawn(casting)),
                    Err(refusal) => refused += usize::from(refusal.reason == Reason::LogUnavailable),
                }
            }
            while waiting.try_join_next().is_some() {}
            sleep(Duration::from_millis(5)).await;
        }
        println!("{fault}: a flood: {refused} refused at once, {} KiB more", memory().saturating_sub(before));
        assert!(memory().saturating_sub(before) < 200 * 1_024, "memory stays bounded");
        assert!(refused > 0, "the queue is bounded");

        match fault {
            "SIGSTOP" => stack.signal("kafka", "CONT"),
            _ => stack.start("kafka"),
        }
        println!("{fault}: well again {:?} after Kafka", recover(&door).await);
        queue.flush().await;
    }
}

/// The vote at each place of the log, read by a client of the test's own.
fn read_log(topic: &Topic) -> BTreeMap<(i32, i64), VoteId> {
    let mut config = topic.client();
    config.set("group.id", "auditor").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(&topic.name, 0, 11);
    list.set_all_offsets(rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (mut log, mut ended) = (BTreeMap::new(), 0);
    while ended < 12 {
        match consumer.poll(SOON).expect("the log answers") {
            Ok(record) => {
                let id = record.headers().unwrap().iter().find(|header| header.key == "ce_id").unwrap().value.unwrap();
                let id = VoteId(Uuid::try_parse_ascii(id).unwrap());
                log.insert((record.partition(), record.offset()), id);
            }
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => println!("{error}"),
        }
    }
    log
}

/// Waits until every replica is in sync.
async fn all_in_sync(queue: &Arc<dyn VoteQueue>) {
    let begun = Instant::now();
    loop {
        if let Ok(facts) = queue.check().await
            && facts["in_sync_replicas"] == "3"
        {
            return;
        }
        assert!(begun.elapsed() < SOON, "replicas come back");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_vote_survives_the_death_of_leaders() {
    let stack = Arc::new(Stack::up("three", 3));
    let topic = stack.topic();
    let queue = topic.stores().queue(Weight::Vital).await.unwrap();
    let facts = queue.check().await.unwrap();
    let facts = ["acks", "idempotence", "replication", "min_insync_replicas"].map(|fact| facts[fact].as_str());
    assert_eq!(facts, ["all", "on", "3", "2"]);

    let door = door(&queue);
    let (is_over, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood = tokio::spawn({
        let (door, is_over, acknowledged) = (door.clone(), Arc::clone(&is_over), Arc::clone(&acknowledged));
        async move {
            let (mut waiting, mut ticks, mut refused) = (JoinSet::new(), interval(Duration::from_millis(10)), 0_u64);
            let mut receipts: Vec<(VoteId, Receipt)> = Vec::new();
            loop {
                ticks.tick().await;
                for _ in 0..if is_over.load(Ordering::Relaxed) { 0 } else { 20 } {
                    match door.submit(request()).casting {
                        Ok(casting) => drop(waiting.spawn(casting)),
                        Err(_) => refused += 1,
                    }
                }
                while let Some(outcome) = waiting.try_join_next() {
                    match outcome.unwrap() {
                        Ok(accepted) => {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            receipts.push((accepted.vote_id, accepted.receipt));
                        }
                        Err(_) => refused += 1,
                    }
                }
                if is_over.load(Ordering::Relaxed) && waiting.is_empty() {
                    return (receipts, refused);
                }
            }
        }
    });
    let more = async || {
        let wanted = acknowledged.load(Ordering::Relaxed) + 2_000;
        let flowing = async {
            while acknowledged.load(Ordering::Relaxed) < wanted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, flowing).await.expect("votes are acknowledged");
    };
    more().await;
    for broker in ["kafka-1", "kafka-3"] {
        // Each broker leads four of the twelve partitions.
        all_in_sync(&queue).await;
        let run = |what: fn(&Stack, &str)| {
            let stack = Arc::clone(&stack);
            spawn_blocking(move || what(&stack, broker))
        };
        run(Stack::kill).await.unwrap();
        let begun = Instant::now();
        more().await;
        println!("{broker} killed: 2000 more acknowledged in {:?}", begun.elapsed());
        run(Stack::start).await.unwrap();
    }
    all_in_sync(&queue).await;
    more().await;
    is_over.store(true, Ordering::Relaxed);
    let (receipts, refused_count) = flood.await.unwrap();
    let log = spawn_blocking({
        let topic = topic.clone();
        move || read_log(&topic)
    });
    let log = log.await.unwrap();
    println!("{} acknowledged, {refused_count} refused, {} on the log", receipts.len(), log.len());
    assert!(receipts.len() > 6_000);
    for (vote_id, Receipt { place: Place { partition, offset }, .. }) in receipts {
        let place = (i32::from(partition.0), i64::try_from(offset.0).unwrap());
        assert_eq!(log.get(&place), Some(&vote_id), "acknowledged at {place:?}");
    }

    // One broker is left: nothing is acknowledged.
    stack.kill("kafka-1");
    stack.kill("kafka-2");
    println!("two of three killed: refused within {:?}", refused(&door).await);
    assert!(queue.check().await.is_err());
    stack.start("kafka-1");
    println!("one came back: well again in {:?}", recover(&door).await);

    stack.start("kafka-2");
    for (copies, in_sync, words) in
        [(3, "1", "could be acknowledged and be lost"), (1, "1", "kafka-reassign-partitions")]
    {
        let topic = stack.topic();
        let dead = format!("{}.dead", topic.name);
        let topics = [&topic.name, &dead].map(|name| {
            let made = NewTopic::new(name, 12, TopicReplication::Fixed(copies));
            made.set("retention.ms", "-1").set("min.insync.replicas", in_sync)
        });
        topic.make(&topics).await;
        let Err(refusal) = timeout(SOON, topic.stores().queue(Weight::Vital)).await.unwrap() else {
            panic!("{copies} copies and min.insync.replicas {in_sync} are refused")
        };
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
}
