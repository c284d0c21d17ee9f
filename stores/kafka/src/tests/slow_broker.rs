//! One broker of three that does not respond: only the votes of its partitions are refused. The mock cluster of librdkafka
//! delays the responses.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::Gauge;
use rdkafka::mocking::MockCluster;
use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};
use uuid::Uuid;
use votes::{Contests, Ingest, LogWriter, Partition, ProducerKind, Refusal, VoteId, VoteRequest};

use crate::{address::Address, log_writer::KafkaLogWriter, topic::Topic};

const BROKERS: i32 = 3;

const PARTITIONS: u16 = 12;

/// The room for votes. The votes of the slow partitions that arrive until the first of them times out need more.
const MAX_QUEUED_VOTES: usize = 500;

/// The longest time that one step may take. It is much longer than usual, for a busy machine.
const TEST_TIMEOUT: Duration = Duration::from_mins(1);

/// The broker that does not respond.
const SLOW_BROKER: i32 = 3;

fn leader(partition: u16) -> i32 {
    1 + i32::from(partition) % BROKERS
}

/// The outcomes of votes.
#[derive(Debug, Default)]
struct Outcomes {
    accepted: usize,
    refused: Vec<Refusal>,
}

impl Outcomes {
    fn add<T>(&mut self, outcome: Result<T, Refusal>) {
        match outcome {
            Ok(_) => self.accepted += 1,
            Err(refusal) => self.refused.push(refusal),
        }
    }
}

/// Casts votes for a time, several hundred per second. The votes have ids of the client if `with_ids`. Returns the outcomes
/// of the votes with an id whose partition the slow broker leads, and those of the other votes.
async fn cast_votes(ingest: &Ingest, time: Duration, with_ids: bool) -> (Outcomes, Outcomes) {
    let (mut slow, mut others, mut pending) = (Outcomes::default(), Outcomes::default(), JoinSet::new());
    let (begun, mut ticks) = (Instant::now(), interval(Duration::from_millis(10)));
    while begun.elapsed() < time {
        ticks.tick().await;
        for _ in 0..8 {
            let vote_id = with_ids.then(VoteId::new);
            let request = VoteRequest {
                name: Some("Queen".to_owned()),
                vote_id: vote_id.map(|id| id.to_string()),
                ..VoteRequest::default()
            };
            let is_slow = vote_id.is_some_and(|id| leader(partition_of(id).0) == SLOW_BROKER);
            match ingest.submit(request).pending {
                Ok(receipt) => _ = pending.spawn(async move { (is_slow, receipt.await) }),
                Err(refusal) => if is_slow { &mut slow } else { &mut others }.add::<()>(Err(refusal)),
            }
        }
    }
    for (is_slow, outcome) in timeout(TEST_TIMEOUT, pending.join_all()).await.expect("each vote has its outcome") {
        if is_slow { &mut slow } else { &mut others }.add(outcome);
    }
    (slow, others)
}

fn partition_of(VoteId(id): VoteId) -> Partition {
    votes::BallotKey::stored(&format!("bands|{}", Uuid::hyphenated(id))).partition(PARTITIONS)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_respond_refuses_only_the_votes_of_its_partitions() {
    let cluster = MockCluster::new(BROKERS).unwrap();
    cluster.create_topic("votes", i32::from(PARTITIONS), 1).unwrap();
    for partition in 0..PARTITIONS {
        cluster.partition_leader("votes", i32::from(partition), Some(leader(partition))).unwrap();
    }
    let address = Address::parse(&format!("kafka://{}/votes", cluster.bootstrap_servers())).unwrap();
    let topic = Topic { name: "votes".to_owned(), partitions: PARTITIONS, replication: 1, min_insync: 1 };
    let log_writer: Arc<dyn LogWriter> =
        Arc::new(KafkaLogWriter::start(&address, topic, MAX_QUEUED_VOTES, Gauge::noop()).unwrap());
    let ingest = Ingest::new(ProducerKind::Rest, Arc::new(Contests::default()), None, log_writer);
    let warmed_up = async { while cast_votes(&ingest, Duration::from_millis(100), true).await.0.accepted == 0 {} };
    timeout(TEST_TIMEOUT, warmed_up).await.expect("votes of each broker are accepted");

    cluster.broker_round_trip_time(SLOW_BROKER, Duration::from_secs(30)).unwrap();
    let (slow, others) = cast_votes(&ingest, Duration::from_secs(4), true).await;
    println!("slow: {} accepted, {} refused; others: {}", slow.accepted, slow.refused.len(), others.accepted);
    assert!(slow.accepted == 0 && slow.refused.len() > 300, "{slow:?}");
    assert!(others.accepted > 600 && others.refused.is_empty(), "{others:?}");

    // Votes whose ids the producer creates avoid the slow partitions. Only now and then, some of them try a slow one.
    let (_, drawn) = cast_votes(&ingest, Duration::from_secs(4), false).await;
    println!("drawn: {} accepted, {} refused", drawn.accepted, drawn.refused.len());
    assert!(drawn.accepted > 20 * drawn.refused.len(), "{drawn:?}");

    cluster.broker_round_trip_time(SLOW_BROKER, Duration::ZERO).unwrap();
    let recovered =
        async { while !cast_votes(&ingest, Duration::from_millis(500), true).await.0.refused.is_empty() {} };
    timeout(TEST_TIMEOUT, recovered).await.expect("the votes of the slow broker are accepted again");
}
