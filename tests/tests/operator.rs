//! The operator's commands work on real servers: audit, replay, dead letters and check.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use redis::Commands;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Addresses, Servers, System, TEST_TIMEOUT, json, wait_for};

/// Starts a system on servers, casts votes, and waits until they are counted.
fn start_with_votes(votes: u64) -> (Servers, System, TempDir) {
    let (servers, folder) = (Servers::fresh(), tempfile::tempdir().unwrap());
    let system = start(&servers, &folder);
    vote(&system, votes);
    (servers, system, folder)
}

fn start(servers: &Servers, folder: &TempDir) -> System {
    System::start_with(&folder.path().join("data"), Addresses::free(), &servers.urls.flags())
}

/// Casts votes for 90 bands, and waits until they are counted.
fn vote(system: &System, votes: u64) {
    let before = system.total("bands");
    for first in (0..votes).step_by(1_000) {
        let batch: Vec<_> =
            (first..votes.min(first + 1_000)).map(|n| json!({ "name": format!("Band {}", n % 90) })).collect();
        assert_eq!(system.post_batch(&json!(batch)).0, 200);
    }
    wait_for("all votes to be counted", || system.total("bands") == before + votes);
}

fn connect_to_redis(servers: &Servers) -> redis::Connection {
    redis::Client::open(servers.urls.tallies.split('?').next().unwrap()).unwrap().get_connection().unwrap()
}

/// Writes a record to partition 2 of a topic, as another program can do.
fn produce(servers: &Servers, topic: &str, key: &[u8], value: &[u8], headers: &[(&str, &str)]) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", servers.urls.brokers()).create().unwrap();
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
    producer.send(BaseRecord::to(topic).partition(2).key(key).payload(value).headers(headers)).unwrap();
    producer.flush(TEST_TIMEOUT).unwrap();
}

/// Returns the key and the value of the first record of a topic.
fn first_record(servers: &Servers, topic: &str) -> (Vec<u8>, Vec<u8>) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers.urls.brokers()).set("group.id", "test");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut all = TopicPartitionList::new();
    (0..12).for_each(|partition| all.add_partition_offset(topic, partition, Offset::Beginning).unwrap());
    consumer.assign(&all).unwrap();
    let message = consumer.poll(TEST_TIMEOUT).unwrap().unwrap();
    (message.key().unwrap().to_vec(), message.payload().unwrap().to_vec())
}

/// Returns the end of partition 2 of the log.
fn log_end(servers: &Servers) -> i64 {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", servers.urls.brokers()).create().unwrap();
    client.fetch_watermarks(&servers.name, 2, TEST_TIMEOUT).unwrap().1
}

/// Deletes the votes of half of the partitions from the ledger.
fn delete_half_the_ledger(servers: &Servers) {
    let delete = async {
        let client = mongodb::Client::with_uri_str(&servers.urls.ledger).await.unwrap();
        let votes = client.database(&servers.name).collection::<Document>("votes");
        let deleted = votes.delete_many(doc! { "partition": { "$lt": 6 } }).await.unwrap();
        assert!(deleted.deleted_count > 0);
    };
    tokio::runtime::Runtime::new().unwrap().block_on(delete);
}

#[test]
fn a_lone_vote_is_counted_soon() {
    let (_servers, system, _folder) = start_with_votes(10);
    let mut waits: Vec<Duration> = (11..31)
        .map(|total| {
            let begun = Instant::now();
            assert_eq!(system.post(&json!({ "name": "Pink Floyd" })).0, 202);
            let acknowledged = begun.elapsed();
            wait_for("the vote to be counted", || system.total("bands") == total);
            begun.elapsed().checked_sub(acknowledged).unwrap()
        })
        .collect();
    waits.sort_unstable();
    println!("from acknowledged to visible: median {:?}, maximum {:?}", waits[10], waits[19]);
    // The documented time on an idle machine is 0.1 s.
    assert!(waits[10] < Duration::from_secs(1), "{waits:?}");
}

#[test]
fn the_audit_finds_a_change_in_redis_and_a_replay_repairs_it() {
    let (servers, mut system, folder) = start_with_votes(500);
    assert_eq!(servers.audit()["ok"], true);
    let band = servers.key("tally:bands");
    let _: i64 = connect_to_redis(&servers).hincr(&band, "Band 7", 1).unwrap();
    let report = servers.audit();
    assert_eq!(report["ok"], false);
    assert!(report["differences"][0].as_str().unwrap().contains("Band 7"), "{report}");
    // A replay repairs the tallies while votes arrive.
    assert!(servers.run(&["replay", "tallies"]).status.success());
    assert_eq!(system.post(&json!({ "name": "Genesis" })).0, 202);
    wait_for("the tallies to be restored", || system.total("bands") == 501);
    assert_eq!(servers.audit()["ok"], true);
    system.stop();
    assert_eq!(servers.audit()["ok"], true, "the audit of a stopped system");
    drop(folder);
}

#[test]
fn lost_tallies_are_restored_without_a_new_vote() {
    let (servers, system, _folder) = start_with_votes(300);
    assert!(servers.run(&["replay", "tallies"]).status.success());
    wait_for("the tallies to be restored", || system.total("bands") == 300);
    assert_eq!(servers.audit()["ok"], true);
}

#[test]
fn the_ledger_is_rebuilt_from_the_log() {
    let (servers, mut system, folder) = start_with_votes(400);
    let refused = servers.run(&["replay", "ledger"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop them first"), "{refused:?}");
    system.stop();
    delete_half_the_ledger(&servers);
    assert_eq!(servers.audit()["ok"], false);
    let replayed = servers.run(&["replay", "ledger"]);
    assert!(replayed.status.success(), "{replayed:?}");
    let system = start(&servers, &folder);
    wait_for("the ledger to be complete", || servers.audit()["ok"] == true);
    assert_eq!(system.total("bands"), 400);
}

#[test]
fn an_invalid_record_becomes_a_dead_letter_and_counting_continues() {
    let (servers, system, _folder) = start_with_votes(100);
    produce(&servers, &servers.name, b"bands|no-vote", b"\xff\xff no vote", &[]);
    // Some of these votes follow the invalid record on its partition.
    vote(&system, 200);
    let list = || json(&servers.run(&["dead-letters", "list", "--json"]));
    wait_for("the dead letter", || list()["dead_letters"].as_array().unwrap().len() == 1);
    let letters = list();
    let letter = &letters["dead_letters"][0];
    assert_eq!((letter["partition"].as_u64(), letter["key"].as_str()), (Some(2), Some("bands|no-vote")));
    assert!(letter["reason"].as_str().unwrap().contains("not a vote record"), "{letter}");
    let report = servers.audit();
    assert_eq!((report["ok"].clone(), report["dead_letters"].clone()), (Value::Bool(true), json!(1)));

    // The record still can't be read, so a replay changes nothing.
    let replayed = json(&servers.run(&["dead-letters", "replay", "--json"]));
    assert_eq!(replayed, json!({ "replayed": 0, "unreadable": 1, "incomplete": 0, "foreign_records": 0 }));
}

#[test]
fn a_dead_letter_that_becomes_readable_counts_once() {
    let (servers, system, _folder) = start_with_votes(1);
    // An older version could not read this vote, so it is only a dead letter.
    let (_, value) = first_record(&servers, &servers.name);
    let position = [("partition", "2"), ("offset", "900"), ("reason", "an older version")];
    produce(&servers, &format!("{}.dead", servers.name), b"bands|of-another-ballot", &value, &position);
    for _ in 0..2 {
        let replayed = json(&servers.run(&["dead-letters", "replay", "--json"]));
        assert_eq!(replayed, json!({ "replayed": 1, "unreadable": 0, "incomplete": 0, "foreign_records": 0 }));
    }
    wait_for("both records to be processed", || {
        let tally = system.results("/v1/contests/bands/tally");
        tally["processed"] == 3 && tally["total"] == 2
    });
    assert_eq!(servers.audit()["duplicates"], 1);
}

#[test]
fn a_dead_letter_that_was_cut_is_replayed_from_the_log_or_reported() {
    let (servers, system, _folder) = start_with_votes(1);
    let (_, value) = first_record(&servers, &servers.name);
    let (key, dead_letters) = (b"bands|of-another-ballot", format!("{}.dead", servers.name));
    let offset = log_end(&servers).to_string();
    produce(&servers, &servers.name, key, &value, &[]);
    wait_for("the vote to be counted", || system.total("bands") == 2);
    let letter = |offset: &str| {
        let headers = [
            ("partition", "2"),
            ("offset", offset),
            ("reason", "an older version"),
            ("size", "70000"),
            ("truncated", "true"),
        ];
        produce(&servers, &dead_letters, key, &value[..5], &headers);
    };
    letter(&offset);
    let replayed = json(&servers.run(&["dead-letters", "replay", "--json"]));
    assert_eq!(replayed, json!({ "replayed": 1, "unreadable": 0, "incomplete": 0, "foreign_records": 0 }));

    // The log does not have this record. Records of other programs are skipped.
    letter("900");
    produce(&servers, &dead_letters, b"key", b"value", &[]);
    let output = servers.run(&["dead-letters", "replay", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("the log no longer has the record"), "{error}");
    assert!(error.contains("skipped, because it has no header"), "{error}");
    let replayed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(replayed, json!({ "replayed": 1, "unreadable": 0, "incomplete": 1, "foreign_records": 1 }));
    let list = json(&servers.run(&["dead-letters", "list", "--json"]));
    assert_eq!(list["foreign_records"], 1);
    let truncated = list["dead_letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|letter| (letter["value_bytes"].as_u64().unwrap(), letter["truncated"].as_bool().unwrap()));
    assert_eq!(truncated.collect::<Vec<_>>(), [(70_000, true); 2]);
    wait_for("both replayed records to be processed", || {
        let tally = system.results("/v1/contests/bands/tally");
        tally["processed"] == 4 && tally["total"] == 2
    });
    assert_eq!(servers.audit()["ok"], true);
}

#[test]
fn transactions_of_another_program_hide_no_vote_and_leave_nothing_uncounted() {
    let (servers, system, _folder) = start_with_votes(1);
    let begin = || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", servers.urls.brokers()).set("transactional.id", &servers.name);
        let producer: BaseProducer = config.create().unwrap();
        producer.init_transactions(TEST_TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        for partition in 0..12 {
            let record = BaseRecord::to(&servers.name).partition(partition).key("key").payload("no vote");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(TEST_TIMEOUT).unwrap();
        producer
    };
    let open = begin();
    vote(&system, 100);
    let is_counted = |report: &Value| report["ok"] == true && report["uncounted"] == 0;
    let report = servers.audit();
    assert!(is_counted(&report), "{report}");
    open.abort_transaction(TEST_TIMEOUT).unwrap();
    wait_for("the end of the aborted transaction to be passed", || is_counted(&servers.audit()));
    begin().commit_transaction(TEST_TIMEOUT).unwrap();
    wait_for("the end of the committed transaction to be passed", || {
        let report = servers.audit();
        is_counted(&report) && report["dead_letters"] == 24
    });
    vote(&system, 100);
    assert_eq!(servers.audit()["ok"], true);
}

#[test]
fn a_check_succeeds_only_if_the_votes_are_counted() {
    let (folder, other_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let system = System::start(&folder.path().join("data"));
    let other = System::start(&other_folder.path().join("data"));
    let (rest, grpc) = (format!("http://{}", system.addresses.rest), format!("http://{}", system.addresses.grpc));
    let check = |results: &System, timeout: &str| {
        let results = format!("http://{}", results.addresses.results);
        tests::run(&["check", "--rest", &rest, "--grpc", &grpc, "--results", &results, "--timeout", timeout, "--json"])
    };
    let passed = check(&system, "60s");
    assert!(passed.status.success(), "{}", String::from_utf8_lossy(&passed.stderr));
    assert_eq!((tests::json(&passed)["total"].as_u64(), system.total("bands")), (Some(2), 2));

    let failed = check(&other, "2s");
    let error = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{error}");
    assert!(error.contains("is not in the ledger"), "{error}");
}
