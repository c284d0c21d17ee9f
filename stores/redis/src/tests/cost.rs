//! Measures the cost of one addition on the server. The server runs one script at a time, so this cost limits the rate
//! of additions. Run it with `cargo test --release -p stores-redis --features servers tests::cost -- --ignored
//! --nocapture`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::time::sleep;
use votes::{Added, ContestCounts, ContestId, Counts, Offset, Partition, ProducerKind, Tallies, UnixMillis, Window};

use super::{
    keys::{add, counts_of_bands},
    server::Server,
};
use crate::RedisTallies;

const BATCHES: u64 = 300;

/// Returns the counts of `votes` votes for twenty bands with three albums each, accepted within a tenth of a second.
fn typical_counts(votes: u64) -> Counts {
    let mut counts = ContestCounts::default();
    let now = UnixMillis::now();
    for n in 0..votes {
        let band = format!("Band {}", n % 20);
        *counts.albums.entry((band.clone(), format!("Album {}", n % 3))).or_default() += 1;
        *counts.bands.entry(band).or_default() += 1;
        *counts.producers.entry(if n % 2 == 0 { ProducerKind::Rest } else { ProducerKind::Grpc }).or_default() += 1;
        let at = UnixMillis(now.0 + i64::try_from(n % 100).unwrap());
        for window in Window::ALL {
            *counts.windows.entry((window, window.start(at))).or_default() += 1;
        }
    }
    Counts { contests: BTreeMap::from([(ContestId::default(), counts)]) }
}

#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn measure_the_cost_of_an_addition() {
    println!("{BATCHES} batches each; microseconds per batch");
    println!("{:>6} {:<28} {:>9} {:>9}", "votes", "of", "in Redis", "in total");
    for votes in [100, 500, 1_000] {
        for (what, counts) in
            [("20 bands, 60 albums", typical_counts(votes)), ("one band and album per vote", counts_of_bands(votes))]
        {
            let server = Server::start(&["--appendfsync", "everysec"]);
            let tallies = RedisTallies::connect(&server.url("cost")).await.unwrap();
            add(&tallies, 0, votes, counts.clone()).await;
            let _: () = server.cli(&["CONFIG", "RESETSTAT"]).await;
            let begun = Instant::now();
            for n in 1..=BATCHES {
                assert_eq!(add(&tallies, n * votes, (n + 1) * votes, counts.clone()).await, Added::Added);
            }
            let in_total = begun.elapsed().as_micros() / u128::from(BATCHES);
            let stats: String = server.cli(&["INFO", "commandstats"]).await;
            let script = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
            let in_redis = script.split("usec_per_call=").nth(1).unwrap().split(',').next().unwrap();
            println!("{votes:>6} {what:<28} {in_redis:>9} {in_total:>9}");
        }
    }
}

#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn measure_the_cost_of_an_addition_of_many_names() {
    println!("{:>9} {:<28} {:>9}", "names", "", "s in total");
    for names in [100_000, 300_000, 1_000_000] {
        let server = Server::start(&["--appendfsync", "everysec"]);
        let tallies = RedisTallies::connect(&server.url("cost")).await.unwrap();
        for (from, what) in [(0, "to empty tallies"), (names, "to tallies with these names")] {
            let counts = counts_of_bands(names);
            let begun = Instant::now();
            let added = tallies.add(Partition(3), Offset(from), Offset(from + names).into(), counts).await;
            // If the script takes longer than the time-out of a reply, it adds the counts all the same.
            while tallies.position(Partition(3)).await.map(|position| position.offset).ok()
                != Some(Offset(from + names))
            {
                sleep(Duration::from_millis(50)).await;
            }
            println!("{names:>9} {what:<28} {:>9.1} {added:?}", begun.elapsed().as_secs_f64());
        }
        let stats: String = server.cli(&["INFO", "commandstats"]).await;
        for line in stats.lines().filter(|line| line.starts_with("cmdstat_eval")) {
            println!("{line}");
        }
    }
}
