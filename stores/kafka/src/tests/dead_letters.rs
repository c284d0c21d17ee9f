//! Dead letters on a real Kafka: of records of every size, and beside records of other programs.

use rdkafka::message::{Header, OwnedHeaders};
use votes::{DeadLetter, DeadLetterPart, InvalidRecord, LogPosition, LogReader, Offset, UnixMillis};

use super::topic::{P, Topic, next_batch};
use crate::log_reader::KafkaLogReader;

/// Reads all dead letters of [`P`] as one part.
async fn read_all(log_reader: &KafkaLogReader) -> DeadLetterPart {
    let mut reader = log_reader.dead_letters(P).await.unwrap();
    let mut all = DeadLetterPart::default();
    while let Some(part) = reader.next_part().await.unwrap() {
        all.letters.extend(part.letters);
        all.foreign.extend(part.foreign);
    }
    all
}

fn headers(headers: &[(&str, &str)]) -> OwnedHeaders {
    let insert = |all: OwnedHeaders, (key, value): &(&str, &str)| all.insert(Header { key, value: Some(*value) });
    headers.iter().fold(OwnedHeaders::new(), insert)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_any_size_that_brokers_accept_becomes_a_dead_letter() {
    let topic = Topic::create(1).await;
    let log_reader = topic.reader().await;
    log_reader.seek(P, Offset(0)).await.unwrap();
    // The bytes of the key, of the value, and of a header. Brokers accept 1 048 588 bytes by default.
    for (key, value, header) in [
        (0, 0, 0),
        (10, 6, 0),
        (10, 65_536, 0),
        (10, 65_537, 0),
        (10, 990_000, 0),
        (10, 1_000_000, 0),
        (10, 1_020_000, 0),
        (10, 1_048_000, 0),
        (4_096, 6, 0),
        (4_097, 6, 0),
        (1_020_000, 6, 0),
        (500_000, 500_000, 0),
        (10, 6, 1_020_000),
    ] {
        let case = format!("key {key}, value {value}, header {header}");
        let (key, value) = (vec![b'k'; key], vec![255; value]);
        let text = "h".repeat(header);
        let offset = topic.produce(&topic.name, &key, &value, headers(&[("note", &text)])).await;
        let batch = next_batch(&log_reader).await;
        let letters = batch.dead_letters();
        assert_eq!(letters.len(), 1, "{case}");
        // Sending it again changes nothing.
        log_reader.send_to_dead_letters(&letters).await.unwrap_or_else(|error| panic!("{case}: {error}"));
        log_reader.send_to_dead_letters(&letters).await.unwrap();

        let DeadLetterPart { mut letters, foreign } = read_all(&log_reader).await;
        assert_eq!(foreign, [], "{case}");
        letters.retain(|letter| letter.position == LogPosition { partition: P, offset });
        assert_eq!(letters.len(), 1, "{case}");
        let DeadLetter { invalid, size, is_truncated, accepted_at, .. } = letters.remove(0);
        assert_eq!(accepted_at, batch.records[0].accepted_at, "{case}");
        assert_eq!(size, value.len() as u64, "{case}");
        assert_eq!(invalid.key, key[..key.len().min(4_096)], "{case}");
        assert_eq!(invalid.value, value[..value.len().min(65_536)], "{case}");
        assert_eq!(is_truncated, key.len() > 4_096 || value.len() > 65_536, "{case}");
    }
    // The whole record stays on the log.
    log_reader.seek(P, Offset(6)).await.unwrap();
    let whole = next_batch(&log_reader).await.records.remove(0).vote.unwrap_err();
    assert_eq!(whole.value.len(), 1_020_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_reason_and_a_time_in_the_future_are_no_obstacle() {
    let topic = Topic::create(1).await;
    let log_reader = topic.reader().await;
    let position = LogPosition { partition: P, offset: Offset(7) };
    let invalid = InvalidRecord { reason: "é".repeat(800_000), key: Vec::new(), value: b"?".to_vec() };
    let accepted_at = UnixMillis(UnixMillis::now().0 + 365 * 24 * 3_600_000);
    log_reader.send_to_dead_letters(&[DeadLetter::whole(position, accepted_at, invalid)]).await.unwrap();
    let letter = read_all(&log_reader).await.letters.remove(0);
    assert_eq!((letter.position, letter.accepted_at, letter.is_truncated), (position, accepted_at, false));
    assert_eq!(letter.invalid.reason, "é".repeat(512));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_other_programs_among_the_dead_letters_are_skipped_and_reported() {
    let topic = Topic::create(1).await;
    let (log_reader, dead) = (topic.reader().await, format!("{}.dead", topic.name));
    let letter = |offset| {
        let position = LogPosition { partition: P, offset: Offset(offset) };
        let invalid = InvalidRecord { reason: "no vote".to_owned(), key: b"k".to_vec(), value: b"v".to_vec() };
        DeadLetter::whole(position, UnixMillis(1_700_000_000_000), invalid)
    };
    log_reader.send_to_dead_letters(&[letter(5)]).await.unwrap();
    let foreign = [
        (headers(&[]), "it has no header \"partition\""),
        (headers(&[("partition", "0"), ("offset", "x"), ("reason", "")]), "the header \"offset\" is no whole number"),
        (headers(&[("partition", "0"), ("offset", "9")]), "it has no header \"reason\""),
        (
            headers(&[("partition", "3"), ("offset", "9"), ("reason", "")]),
            "the header \"partition\" is \"3\", but it is on partition 0",
        ),
    ];
    for (headers, _) in &foreign {
        topic.produce(&dead, b"key", b"value", headers.clone()).await;
    }
    // A dead letter of an earlier version has three headers.
    let earlier = headers(&[("partition", "0"), ("offset", "3"), ("reason", "no vote")]);
    topic.produce(&dead, b"k", b"v", earlier).await;
    log_reader.send_to_dead_letters(&[letter(5), letter(6)]).await.unwrap();

    let all = read_all(&log_reader).await;
    let offsets: Vec<_> = all.letters.iter().map(|letter| letter.position.offset.0).collect();
    assert_eq!(offsets, [5, 3, 6]);
    assert_eq!((all.letters[1].size, all.letters[1].is_truncated), (1, false));
    let problems: Vec<_> = all.foreign.iter().map(|record| (record.offset.0, record.problem.as_str())).collect();
    assert_eq!(problems, (1..).zip(foreign.iter().map(|(_, problem)| *problem)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_dropped_or_late_reads_what_was_stored_before_it_was_opened() {
    let topic = Topic::create(1).await;
    let log_reader = topic.reader().await;
    assert_eq!(read_all(&log_reader).await, DeadLetterPart::default());
    let letter = |offset| {
        let invalid = InvalidRecord { reason: "no vote".to_owned(), key: Vec::new(), value: vec![1; 60_000] };
        DeadLetter::whole(LogPosition { partition: P, offset: Offset(offset) }, UnixMillis(1), invalid)
    };
    log_reader.send_to_dead_letters(&(0..50).map(letter).collect::<Vec<_>>()).await.unwrap();
    let mut reader = log_reader.dead_letters(P).await.unwrap();
    log_reader.send_to_dead_letters(&[letter(50)]).await.unwrap();
    let (mut parts, mut letters) = (0, 0);
    while let Some(part) = reader.next_part().await.unwrap() {
        (parts, letters) = (parts + 1, letters + part.letters.len());
    }
    assert_eq!((parts > 1, letters), (true, 50));
    let mut dropped = log_reader.dead_letters(P).await.unwrap();
    assert!(!dropped.next_part().await.unwrap().unwrap().letters.is_empty());
    drop(dropped);
}
