//! What an addition costs the server, which runs one script at a time:
//! `cargo test --release -p backends redis::tests::cost -- --ignored --nocapture`.

use std::{collections::BTreeMap, time::Instant};

use votes::{Added, ContestCounts, ContestId, Counts, DoorKind, UnixMillis, Window};

use super::{
    keys::{add, wide},
    server::Server,
};
use crate::redis::RedisTallies;

const BATCHES: u64 = 300;

/// The counts of so many votes for twenty bands with three albums each, accepted over a tenth of a second.
fn usual(votes: u64) -> Counts {
    let mut counts = ContestCounts::default();
    let now = UnixMillis::now();
    for n in 0..votes {
        let band = format!("Band {}", n % 20);
        *counts.albums.entry((band.clone(), format!("Album {}", n % 3))).or_default() += 1;
        *counts.bands.entry(band).or_default() += 1;
        *counts.doors.entry(if n % 2 == 0 { DoorKind::Rest } else { DoorKind::Grpc }).or_default() += 1;
        let at = UnixMillis(now.0 + i64::try_from(n % 100).unwrap());
        for window in Window::ALL {
            *counts.windows.entry((window, window.start(at))).or_default() += 1;
        }
    }
    Counts { contests: BTreeMap::from([(ContestId::default(), counts)]) }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn what_an_addition_costs() {
    println!("{BATCHES} batches each; microseconds a batch");
    println!("{:>6} {:<28} {:>9} {:>9}", "votes", "of", "in Redis", "in all");
    for votes in [100, 500, 1_000] {
        for (what, counts) in [("20 bands, 60 albums", usual(votes)), ("as many bands and albums", wide(votes))] {
            let server = Server::start(&["--appendfsync", "everysec"]);
            let tallies = RedisTallies::connect(&server.url("cost")).await.unwrap();
            add(&tallies, 0, votes, counts.clone()).await;
            let _: () = server.cli(&["CONFIG", "RESETSTAT"]).await;
            let begun = Instant::now();
            for n in 1..=BATCHES {
                assert_eq!(add(&tallies, n * votes, (n + 1) * votes, counts.clone()).await, Added::Added);
            }
            let in_all = begun.elapsed().as_micros() / u128::from(BATCHES);
            let stats: String = server.cli(&["INFO", "commandstats"]).await;
            let script = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
            let in_redis = script.split("usec_per_call=").nth(1).unwrap().split(',').next().unwrap();
            println!("{votes:>6} {what:<28} {in_redis:>9} {in_all:>9}");
        }
    }
}
