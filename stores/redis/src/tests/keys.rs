//! Tests of the content of the keys, and that an addition changes all keys or none.

use std::collections::BTreeMap;

use futures::future::join_all;
use votes::{
    Added, ClearCondition, ConnectError, ContestCounts, ContestId, Counts, Offset, Partition, ProducerKind, Tallies,
    TalliesPosition, UnixMillis, Window, conformance::vote_id,
};

use super::{open, server::Server};
use crate::RedisTallies;

const P: Partition = Partition(3);

/// Returns the counts of one contest.
fn counts_of(counts: ContestCounts) -> Counts {
    Counts { contests: BTreeMap::from([(ContestId::default(), counts)]) }
}

/// Returns the counts of one vote for each of `bands` bands, each with an album.
pub(super) fn counts_of_bands(bands: u64) -> Counts {
    let now = UnixMillis::now();
    counts_of(ContestCounts {
        bands: (0..bands).map(|n| (format!("Band {n}"), 1)).collect(),
        albums: (0..bands).map(|n| ((format!("Band {n}"), format!("Album {n}")), 1)).collect(),
        producers: BTreeMap::from([(ProducerKind::Rest, bands)]),
        windows: Window::ALL.into_iter().map(|window| ((window, window.start(now)), bands)).collect(),
    })
}

pub(super) async fn add(tallies: &RedisTallies, from: u64, to: u64, counts: Counts) -> Added {
    let to = TalliesPosition { offset: Offset(to), last: Some((Offset(from), vote_id(7))) };
    tallies.add(P, Offset(from), to, counts).await.unwrap()
}

pub(super) async fn total(tallies: &RedisTallies) -> u64 {
    tallies.tally(&ContestId::default(), 10).await.unwrap().total
}

#[tokio::test]
async fn every_count_is_in_its_documented_key() {
    let (tallies, server, prefix) = open().await;
    let at = UnixMillis::now();
    let counts = counts_of(ContestCounts {
        bands: [("Pink Floyd".to_owned(), 3)].into(),
        albums: [(("Pink Floyd".to_owned(), "The Wall".to_owned()), 2)].into(),
        producers: [(ProducerKind::Grpc, 3)].into(),
        windows: Window::ALL.into_iter().map(|window| ((window, window.start(at)), 3)).collect(),
    });
    add(&tallies, 0, 4, counts).await;
    let key = |name: &str| format!("{{{prefix}}}:{name}");
    let hash = async |name: &str| server.cli::<BTreeMap<String, u64>>(&["HGETALL", &key(name)]).await;
    assert_eq!(hash("tally:bands").await, BTreeMap::from([("Pink Floyd".to_owned(), 3)]));
    assert_eq!(hash("albums:bands").await, BTreeMap::from([(r#"["Pink Floyd","The Wall"]"#.to_owned(), 2)]));
    assert_eq!(hash("producers:bands").await, BTreeMap::from([("grpc".to_owned(), 3)]));
    assert_eq!(hash("position").await, BTreeMap::from([("3".to_owned(), 4)]));
    let last: BTreeMap<String, String> = server.cli(&["HGETALL", &key("last")]).await;
    assert_eq!(last, BTreeMap::from([("3".to_owned(), format!("0:{}", vote_id(7)))]));
    let contests: Vec<String> = server.cli(&["SMEMBERS", &key("contests")]).await;
    assert_eq!(contests, vec!["bands"]);
    let layout: String = server.cli(&["GET", &key("layout")]).await;
    assert_eq!(layout, "1");
    for (window, group, ends) in [
        (Window::Centisecond, 10_000, Some(10_000 + 15 * 60_000)),
        (Window::Second, 3_600_000, Some(25 * 3_600_000)),
        (Window::Minute, 86_400_000, None),
    ] {
        let group = at.0 / group * group;
        let name = format!("rate:bands:{window}:{group}");
        assert_eq!(hash(&name).await, BTreeMap::from([(window.start(at).0.to_string(), 3)]));
        let expires: i64 = server.cli(&["PEXPIRETIME", &key(&name)]).await;
        assert_eq!(expires, ends.map_or(-1, |ends| group + ends), "{window}");
    }
}

#[tokio::test]
async fn keys_of_another_layout_version_are_refused() {
    let (_tallies, server, prefix) = open().await;
    let key = format!("{{{prefix}}}:layout");
    for version in ["2", "0", "none"] {
        let _: () = server.cli(&["SET", &key, version]).await;
        let Err(ConnectError::Refused(problem)) = RedisTallies::connect(&server.url(&prefix)).await else {
            panic!("layout version {version} was accepted");
        };
        assert!(problem.contains(&format!("layout version {version}")), "{problem}");
    }
}

#[tokio::test]
async fn an_addition_to_a_key_of_another_type_changes_nothing() {
    for name in
        ["position", "last", "version", "contests", "groups:1s", "tally:bands", "albums:bands", "producers:bands"]
    {
        let (tallies, server, prefix) = open().await;
        add(&tallies, 0, 5, counts_of_bands(5)).await;
        let key = format!("{{{prefix}}}:{name}");
        let (original, foreign) = (format!("{key}.original"), format!("{key}.foreign"));
        let _: () = server.cli(&["RENAME", &key, &original]).await;
        let _: u64 = server.cli(&["LPUSH", &key, "of another type"]).await;
        let error = tallies.add(P, Offset(5), Offset(9).into(), counts_of_bands(4)).await.unwrap_err();
        assert!(error.problem.contains(&key) && error.problem.contains("WRONGTYPE"), "{error}");
        let _: () = server.cli(&["RENAME", &key, &foreign]).await;
        let _: () = server.cli(&["RENAME", &original, &key]).await;
        assert_eq!(total(&tallies).await, 5, "{name}");
        assert_eq!(add(&tallies, 5, 9, counts_of_bands(4)).await, Added::Added, "{name}");
        assert_eq!(total(&tallies).await, 9, "{name}");
    }
}

#[tokio::test]
async fn an_addition_to_a_value_that_is_not_a_number_changes_nothing() {
    let (tallies, server, prefix) = open().await;
    add(&tallies, 0, 2, counts_of_bands(2)).await;
    let before = tallies.snapshot().await.unwrap();
    let key = format!("{{{prefix}}}:albums:bands");
    for foreign in ["many", "-1", "1.5", "9007199254740992", "0x10", ""] {
        let _: u64 = server.cli(&["HSET", &key, r#"["Band 1","Album 1"]"#, foreign]).await;
        let error = tallies.add(P, Offset(2), Offset(4).into(), counts_of_bands(2)).await.unwrap_err();
        assert!(error.problem.contains(&key), "{error}");
    }
    let _: u64 = server.cli(&["HSET", &key, r#"["Band 1","Album 1"]"#, "1"]).await;
    assert_eq!(tallies.snapshot().await.unwrap(), before);
}

#[tokio::test]
async fn expired_windows_are_not_written() {
    let (tallies, server, prefix) = open().await;
    let hour_ago = UnixMillis(UnixMillis::now().0 - 3_600_000);
    let two_days_ago = UnixMillis(hour_ago.0 - 48 * 3_600_000);
    let windows = |at: UnixMillis| Window::ALL.map(|window| ((window, window.start(at)), 7));
    let windows = [hour_ago, two_days_ago].into_iter().flat_map(windows).collect();
    add(&tallies, 0, 14, counts_of(ContestCounts { windows, ..ContestCounts::default() })).await;
    let mut keys: Vec<String> = server.cli(&["KEYS", &format!("{{{prefix}}}:rate:*")]).await;
    for key in &mut keys {
        key.truncate(key.rfind(':').unwrap());
    }
    keys.sort();
    let rate = |window: &str| format!("{{{prefix}}}:rate:bands:{window}");
    assert_eq!(keys[0], rate("1m"));
    assert_eq!(keys.last(), Some(&rate("1s")));
    assert_eq!(keys.iter().filter(|key| **key == rate("1s")).count(), 1);
    let (from, to) = (UnixMillis(0), UnixMillis(i64::MAX));
    for (window, count) in [(Window::Centisecond, 0), (Window::Second, 1), (Window::Minute, 2)] {
        assert_eq!(tallies.rates(None, window, from, to).await.unwrap().len(), count);
    }
}

#[tokio::test]
async fn expired_groups_are_removed_when_a_new_one_begins() {
    let (tallies, server, prefix) = open().await;
    let index = format!("{{{prefix}}}:groups:10ms");
    let _: u64 = server.cli(&["ZADD", &index, "1000000000000", "bands:1000000000000"]).await;
    add(&tallies, 0, 1, counts_of_bands(1)).await;
    let members: Vec<String> = server.cli(&["ZRANGE", &index, "0", "-1"]).await;
    assert_eq!(members.len(), 1);
    assert_ne!(members[0], "bands:1000000000000");
}

#[tokio::test]
async fn the_rate_of_all_contests_is_the_sum_of_their_windows() {
    let (tallies, _server, _) = open().await;
    let at = UnixMillis::now();
    let counts =
        ContestCounts { windows: [((Window::Second, Window::Second.start(at)), 2)].into(), ..Default::default() };
    let contests = ["a", "b"].map(|contest| (contest.parse().unwrap(), counts.clone()));
    add(&tallies, 0, 4, Counts { contests: contests.into() }).await;
    let (from, to) = (UnixMillis(at.0 - 1_000), UnixMillis(at.0 + 1));
    let votes = async |contest: Option<&str>| {
        let contest = contest.map(|contest| contest.parse().unwrap());
        let rates = tallies.rates(contest.as_ref(), Window::Second, from, to).await.unwrap();
        rates.iter().map(|window| window.votes).collect::<Vec<_>>()
    };
    assert_eq!(votes(None).await, vec![4]);
    assert_eq!(votes(Some("b")).await, vec![2]);
    assert_eq!(votes(Some("c")).await, Vec::<u64>::new());
}

#[tokio::test]
async fn a_batch_with_ten_thousand_bands_is_counted_in_one_step() {
    let (tallies, server, prefix) = open().await;
    for n in 0..3 {
        assert_eq!(add(&tallies, n * 10_000, (n + 1) * 10_000, counts_of_bands(10_000)).await, Added::Added);
    }
    let tally = tallies.tally(&ContestId::default(), 3).await.unwrap();
    let leaders: Vec<_> = tally.bands.iter().map(|band| (band.name.as_str(), band.votes)).collect();
    assert_eq!(leaders, vec![("Band 0", 3), ("Band 1", 3), ("Band 10", 3)]);
    assert_eq!((tally.others.bands, tally.others.votes, tally.total), (9_997, 29_991, 30_000));
    assert_eq!(staged_lists(&server, &prefix).await, [""; 0]);
}

async fn staged_lists(server: &Server, prefix: &str) -> Vec<String> {
    server.cli(&["KEYS", &format!("{{{prefix}}}:staged:*")]).await
}

#[tokio::test]
async fn no_command_has_many_arguments_however_many_names_an_addition_has() {
    let server = Server::start(&["--slowlog-log-slower-than", "0", "--slowlog-max-len", "100000"]);
    let tallies = RedisTallies::connect(&server.url("a")).await.unwrap();
    let names = 60_000;
    assert_eq!(add(&tallies, 0, names, counts_of_bands(names)).await, Added::Added);
    assert_eq!(total(&tallies).await, names);
    // The slow log has the first arguments of each command, and the number of the others as a text.
    let log: Vec<redis::Value> = server.cli(&["SLOWLOG", "GET", "-1"]).await;
    let arguments = log.into_iter().map(|entry| {
        let (_, _, _, arguments, _, _): (i64, i64, i64, Vec<String>, String, String) =
            redis::from_redis_value(entry).unwrap();
        let others = arguments.last().unwrap().strip_prefix("... (");
        let others = others.and_then(|others| others.split_once(' ')).map_or(0, |(others, _)| others.parse().unwrap());
        arguments.len() + others
    });
    let most = arguments.max().unwrap();
    assert!((1_000..3_000).contains(&most), "a command has {most} arguments");
}

#[tokio::test]
async fn an_addition_of_many_names_that_fails_changes_nothing_and_leaves_no_lists() {
    let (tallies, server, prefix) = open().await;
    add(&tallies, 0, 2, counts_of_bands(2)).await;
    let before = tallies.snapshot().await.unwrap();
    let names = 6_000;
    let key = format!("{{{prefix}}}:albums:bands");
    for field in [0, names / 2, names - 1] {
        let field = format!(r#"["Band {field}","Album {field}"]"#);
        let original: Option<String> = server.cli(&["HGET", &key, &field]).await;
        let _: u64 = server.cli(&["HSET", &key, &field, "many"]).await;
        let error = tallies.add(P, Offset(2), Offset(4).into(), counts_of_bands(names)).await.unwrap_err();
        assert!(error.problem.contains(&key), "{error}");
        let _: u64 = match &original {
            Some(votes) => server.cli(&["HSET", &key, &field, votes]).await,
            None => server.cli(&["HDEL", &key, &field]).await,
        };
        assert_eq!(staged_lists(&server, &prefix).await, [""; 0]);
    }
    assert_eq!(tallies.snapshot().await.unwrap(), before);
    // An addition that is fenced stages nothing.
    assert_eq!(add(&tallies, 1, 4, counts_of_bands(names)).await, Added::Fenced(Offset(2)));
    assert_eq!(staged_lists(&server, &prefix).await, [""; 0]);
    assert_eq!(tallies.snapshot().await.unwrap(), before);
}

#[tokio::test]
async fn any_name_is_stored_unchanged() {
    let (tallies, _server, _) = open().await;
    let names = ["東京事変", "AC/DC \"live\"", "a:b:c", "[\"x\",\"y\"]", "{ovation}", "%s\\n", "0", "-1", "🤘", "'--"];
    let counts = ContestCounts {
        bands: names.into_iter().map(|name| (name.to_owned(), 1)).collect(),
        albums: names.into_iter().map(|name| ((name.to_owned(), format!("{name} II")), 1)).collect(),
        ..ContestCounts::default()
    };
    add(&tallies, 0, 10, counts_of(counts.clone())).await;
    let snapshot = tallies.snapshot().await.unwrap();
    assert_eq!(snapshot.contests[&ContestId::default()], counts);
    let albums = tallies.albums(&ContestId::default(), 100).await.unwrap();
    assert!(albums.iter().all(|album| album.album == format!("{} II", album.name)) && albums.len() == names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_concurrent_callers_count_each_range_once() {
    let (tallies, _server, _) = open().await;
    join_all((0..16).map(async |_| {
        let mut at = 0;
        while at < 200 {
            at = match add(&tallies, at, at + 4, counts_of_bands(4)).await {
                Added::Added => at + 4,
                Added::Fenced(position) => position.0,
            };
        }
    }))
    .await;
    assert_eq!((total(&tallies).await, tallies.position(P).await.unwrap().offset), (200, Offset(200)));
}

#[tokio::test]
async fn the_largest_offset_is_stored_exactly() {
    let (tallies, server, prefix) = open().await;
    let largest = u64::MAX;
    let _: u64 = server.cli(&["HSET", &format!("{{{prefix}}}:position"), "3", &(largest - 1).to_string()]).await;
    assert_eq!(add(&tallies, largest - 2, largest, counts_of_bands(1)).await, Added::Fenced(Offset(largest - 1)));
    assert_eq!(add(&tallies, largest - 1, largest, counts_of_bands(1)).await, Added::Added);
    assert_eq!(tallies.position(P).await.unwrap().offset, Offset(largest));
}

#[tokio::test(flavor = "multi_thread")]
async fn clearing_during_additions_leaves_counts_and_position_consistent() {
    let (tallies, _server, _) = open().await;
    let adding = async {
        let mut at = 0;
        let mut fenced = 0;
        for _ in 0..400 {
            at = match add(&tallies, at, at + 4, counts_of_bands(4)).await {
                Added::Added => at + 4,
                Added::Fenced(position) => {
                    fenced += 1;
                    position.0
                }
            };
        }
        fenced
    };
    let clearing = async {
        for _ in 0..10 {
            assert!(tallies.clear(ClearCondition::Always).await.unwrap());
        }
    };
    let (fenced, ()) = futures::future::join(adding, clearing).await;
    assert!(fenced > 0);
    assert_eq!(total(&tallies).await, tallies.position(P).await.unwrap().offset.0);
}
