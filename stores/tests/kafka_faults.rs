//! Brokers that are killed or hang: the producers refuse votes in time and recover automatically, and every
//! acknowledged vote is on the log. Each test starts its own brokers with `dev/stack`.
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
use service::health::Criticality;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval, sleep, timeout},
};
use uuid::Uuid;
use votes::{
    Accepted, Contests, Ingest, LogPosition, LogWriter, ProducerKind, Reason, Receipt, Refusal, VoteId, VoteRequest,
};

/// The longest time that a producer may take to respond: ten times the two seconds that it promises, for a busy
/// machine. The tests print the actual time.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(20);

/// The longest time that servers may take to recover.
const RECOVERY_TIMEOUT: Duration = Duration::from_mins(2);

fn ingest(log_writer: &Arc<dyn LogWriter>) -> Ingest {
    Ingest::new(ProducerKind::Rest, Arc::new(Contests::default()), None, Arc::clone(log_writer))
}

fn request() -> VoteRequest {
    let vote_id = Some(Uuid::now_v7().to_string());
    VoteRequest { name: Some("Pink Floyd".to_owned()), vote_id, ..VoteRequest::default() }
}

async fn cast(ingest: &Ingest) -> Result<Accepted, Refusal> {
    timeout(RESPONSE_TIMEOUT, ingest.cast(request())).await.expect("the producer responds in time")
}

/// Casts votes until one is acknowledged. Returns how long it took.
async fn recover(ingest: &Ingest) -> Duration {
    let begun = Instant::now();
    while cast(ingest).await.is_err() {
        assert!(begun.elapsed() < RECOVERY_TIMEOUT, "votes are acknowledged again");
    }
    begun.elapsed()
}

/// Casts a hundred votes within two seconds, and asserts that all are refused. No broker may work meanwhile. Returns
/// how long the slowest refusal took.
async fn assert_all_refused(ingest: &Ingest) -> Duration {
    let mut pending = JoinSet::new();
    let mut ticks = interval(Duration::from_millis(20));
    for _ in 0..100 {
        ticks.tick().await;
        let ingest = ingest.clone();
        pending.spawn(async move {
            let begun = Instant::now();
            let refusal = cast(&ingest).await.expect_err("no broker confirms the vote");
            assert_eq!((refusal.reason, refusal.vote_id.is_some()), (Reason::LogUnavailable, true));
            begun.elapsed()
        });
    }
    pending.join_all().await.into_iter().max().unwrap()
}

/// Returns the resident memory of this process in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_refuse_in_time_while_kafka_is_away_and_recover_automatically() {
    let stack = Stack::up("outage", 1);
    let topic = stack.topic();
    let stores = topic.stores();

    stack.kill("kafka");
    let opening = tokio::spawn({
        let stores = stores.clone();
        async move { stores.log_writer(Criticality::Required).await.unwrap() }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!opening.is_finished(), "opening the log waits for Kafka");
    stack.start("kafka");
    let begun = Instant::now();
    let log_writer = timeout(RECOVERY_TIMEOUT, opening).await.unwrap().unwrap();
    println!("opened {:?} after Kafka started", begun.elapsed());
    let ingest = ingest(&log_writer);
    cast(&ingest).await.unwrap();

    for fault in ["kill -9", "SIGSTOP"] {
        let log_reader = stores.log_reader(Criticality::Required).await.unwrap();
        timeout(RECOVERY_TIMEOUT, log_reader.assignment()).await.unwrap().unwrap();
        match fault {
            "SIGSTOP" => stack.signal("kafka", "STOP"),
            _ => stack.kill("kafka"),
        }
        println!("{fault}: refused within {:?}", assert_all_refused(&ingest).await);
        let begun = Instant::now();
        assert!(timeout(RESPONSE_TIMEOUT, log_writer.check()).await.unwrap().is_err());
        println!("{fault}: the check fails in {:?}", begun.elapsed());
        let begun = Instant::now();
        spawn_blocking(move || drop(log_reader)).await.unwrap();
        println!("{fault}: the log reader is dropped in {:?}", begun.elapsed());
        assert!(begun.elapsed() < RESPONSE_TIMEOUT);

        let before = resident_kib();
        let (mut pending_votes, mut refused, begun) = (JoinSet::new(), 0, Instant::now());
        while begun.elapsed() < Duration::from_secs(3) {
            for _ in 0..500 {
                match ingest.submit(request()).pending {
                    Ok(pending) => drop(pending_votes.spawn(pending)),
                    Err(refusal) => refused += usize::from(refusal.reason == Reason::LogUnavailable),
                }
            }
            while pending_votes.try_join_next().is_some() {}
            sleep(Duration::from_millis(5)).await;
        }
        let growth = resident_kib().saturating_sub(before);
        println!("{fault}: flood: {refused} refused at once, {growth} KiB more memory");
        assert!(growth < 200 * 1_024, "memory stays bounded");
        assert!(refused > 0, "the queue is bounded");

        match fault {
            "SIGSTOP" => stack.signal("kafka", "CONT"),
            _ => stack.start("kafka"),
        }
        println!("{fault}: votes acknowledged {:?} after Kafka was back", recover(&ingest).await);
        log_writer.flush().await;
    }
}

/// Reads the vote at each position of the log, with a client that the adapter does not use.
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
        match consumer.poll(RECOVERY_TIMEOUT).expect("the log responds") {
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

/// Waits until every partition has three replicas in sync.
async fn wait_until_in_sync(log_writer: &Arc<dyn LogWriter>) {
    let begun = Instant::now();
    loop {
        if let Ok(details) = log_writer.check().await
            && details["in_sync_replicas"] == "3"
        {
            return;
        }
        assert!(begun.elapsed() < RECOVERY_TIMEOUT, "the replicas are in sync again");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_vote_survives_the_death_of_leaders() {
    let stack = Arc::new(Stack::up("three", 3));
    let topic = stack.topic();
    let log_writer = topic.stores().log_writer(Criticality::Required).await.unwrap();
    let details = log_writer.check().await.unwrap();
    let details = ["acks", "idempotence", "replication", "min_insync_replicas"].map(|key| details[key].as_str());
    assert_eq!(details, ["all", "on", "3", "2"]);

    let ingest = ingest(&log_writer);
    let (is_stopped, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood = tokio::spawn({
        let (ingest, is_stopped, acknowledged) = (ingest.clone(), Arc::clone(&is_stopped), Arc::clone(&acknowledged));
        async move {
            let (mut pending_votes, mut refused) = (JoinSet::new(), 0_u64);
            let mut ticks = interval(Duration::from_millis(10));
            let mut receipts: Vec<(VoteId, Receipt)> = Vec::new();
            loop {
                ticks.tick().await;
                for _ in 0..if is_stopped.load(Ordering::Relaxed) { 0 } else { 20 } {
                    match ingest.submit(request()).pending {
                        Ok(pending) => drop(pending_votes.spawn(pending)),
                        Err(_) => refused += 1,
                    }
                }
                while let Some(outcome) = pending_votes.try_join_next() {
                    match outcome.unwrap() {
                        Ok(accepted) => {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            receipts.push((accepted.vote_id, accepted.receipt));
                        }
                        Err(_) => refused += 1,
                    }
                }
                if is_stopped.load(Ordering::Relaxed) && pending_votes.is_empty() {
                    return (receipts, refused);
                }
            }
        }
    });
    let wait_for_2000_more = async || {
        let wanted = acknowledged.load(Ordering::Relaxed) + 2_000;
        let flowing = async {
            while acknowledged.load(Ordering::Relaxed) < wanted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(RECOVERY_TIMEOUT, flowing).await.expect("votes are acknowledged");
    };
    wait_for_2000_more().await;
    for broker in ["kafka-1", "kafka-3"] {
        // Each broker leads four of the twelve partitions.
        wait_until_in_sync(&log_writer).await;
        let run = |action: fn(&Stack, &str)| {
            let stack = Arc::clone(&stack);
            spawn_blocking(move || action(&stack, broker))
        };
        run(Stack::kill).await.unwrap();
        let begun = Instant::now();
        wait_for_2000_more().await;
        println!("{broker} killed: 2000 more votes acknowledged in {:?}", begun.elapsed());
        run(Stack::start).await.unwrap();
    }
    wait_until_in_sync(&log_writer).await;
    wait_for_2000_more().await;
    is_stopped.store(true, Ordering::Relaxed);
    let (receipts, refused_count) = flood.await.unwrap();
    let log = spawn_blocking({
        let topic = topic.clone();
        move || read_log(&topic)
    });
    let log = log.await.unwrap();
    println!("{} acknowledged, {refused_count} refused, {} on the log", receipts.len(), log.len());
    assert!(receipts.len() > 6_000);
    for (vote_id, Receipt { position: LogPosition { partition, offset }, .. }) in receipts {
        let position = (i32::from(partition.0), i64::try_from(offset.0).unwrap());
        assert_eq!(log.get(&position), Some(&vote_id), "acknowledged at {position:?}");
    }

    // With one broker left, no vote is acknowledged.
    stack.kill("kafka-1");
    stack.kill("kafka-2");
    println!("two of three killed: refused within {:?}", assert_all_refused(&ingest).await);
    assert!(log_writer.check().await.is_err());
    stack.start("kafka-1");
    println!("one is back: recovered in {:?}", recover(&ingest).await);

    stack.start("kafka-2");
    for (replicas, in_sync, words) in
        [(3, "1", "could be acknowledged and be lost"), (1, "1", "kafka-reassign-partitions")]
    {
        let topic = stack.topic();
        let dead_letters = format!("{}.dead", topic.name);
        let topics = [&topic.name, &dead_letters].map(|name| {
            let topic = NewTopic::new(name, 12, TopicReplication::Fixed(replicas));
            topic.set("retention.ms", "-1").set("min.insync.replicas", in_sync)
        });
        topic.create(&topics).await;
        let Err(refusal) = timeout(RECOVERY_TIMEOUT, topic.stores().log_writer(Criticality::Required)).await.unwrap()
        else {
            panic!("{replicas} replicas and min.insync.replicas {in_sync} were accepted")
        };
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
}
