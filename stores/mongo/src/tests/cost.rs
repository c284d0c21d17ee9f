//! Measures the rate and the cost of calls of the ledger.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mongodb::bson::Document;
use query::{Query, QueryStore, Schema, Table};
use votes::{Ledger, Offset};

use super::{P, Scratch, batch};
use crate::{MongoQueryStore, databases::Server, document::vote_document};

/// Returns the CPU time that all threads of this process have used so far.
fn cpu_time() -> Duration {
    let of_thread = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(std::fs::read_dir("/proc/self/task").unwrap().map(of_thread).sum())
}

/// Runs `work`, which handles `votes` votes, and prints the rate and the cost per vote.
async fn measure<T>(what: &str, votes: u64, work: impl Future<Output = T>) -> T {
    let (begun, used_before) = (Instant::now(), cpu_time());
    let result = work.await;
    let (took, used) = (begun.elapsed(), cpu_time().saturating_sub(used_before));
    let per_vote = |time: Duration| time.as_secs_f64() * 1e6 / votes as f64;
    let rate = votes as f64 / took.as_secs_f64();
    println!("{what:45} {rate:9.0}/s {:7.2} us per vote, {:6.2} us of CPU", per_vote(took), per_vote(used));
    result
}

/// Run it with `cargo test --release -p stores-mongo --features servers -- --ignored --nocapture the_rate_of`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test"]
async fn the_rate_of_ledger_calls() {
    const BATCHES: u64 = 20;
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    let batches = |from: u64| (from..from + BATCHES).map(|n| batch(n * 1_000..(n + 1) * 1_000)).collect::<Vec<_>>();
    let votes = BATCHES * 1_000;
    for round in 0..2 {
        println!("round {round}");
        let inserted = batches(3 * round * BATCHES);
        measure("encoding of the documents", votes, async {
            for batch in &inserted {
                std::hint::black_box(batch.iter().map(vote_document).collect::<Vec<_>>());
            }
        })
        .await;
        measure("the driver's insert_many of trees", votes, async {
            for batch in &batches((3 * round + 1) * BATCHES) {
                let documents = batch.iter().map(|logged| Document::try_from(vote_document(logged)).unwrap());
                let documents: Vec<Document> = documents.collect();
                let votes = ledger.votes.clone_with_type();
                votes.insert_many(documents).ordered(false).await.unwrap();
            }
        })
        .await;
        let raw: Vec<Vec<_>> =
            batches((3 * round + 2) * BATCHES).iter().map(|batch| batch.iter().map(vote_document).collect()).collect();
        measure("the driver's insert_many of bytes", votes, async {
            for batch in &raw {
                ledger.votes.insert_many(batch).ordered(false).await.unwrap();
            }
        })
        .await;
        measure("insert", votes, async {
            for batch in &inserted {
                ledger.insert(Arc::clone(batch)).await.unwrap();
            }
        })
        .await;
        measure("insert of duplicates only", votes, async {
            for batch in &inserted {
                assert_eq!(ledger.insert(Arc::clone(batch)).await.unwrap().len(), 1_000);
            }
        })
        .await;
        measure("positions_of", votes, async {
            for batch in &inserted {
                let keys = batch.iter().map(|logged| logged.vote.key.clone()).collect();
                assert_eq!(ledger.positions_of(keys).await.unwrap().len(), 1_000);
            }
        })
        .await;
        measure("range", votes, async {
            for batch in &inserted {
                let from = batch[0].position.offset;
                assert_eq!(ledger.range(P, from, Offset(from.0 + 1_000), 1_000).await.unwrap().len(), 1_000);
            }
        })
        .await;
    }
    let query_store = MongoQueryStore::new(Server::of(&scratch.url(), 1).await.unwrap().connect().await.unwrap());
    for parameters in [[("contest", "bands"), ("limit", "100")].as_slice(), &[("contest", "bands"), ("name", "Band 3")]]
    {
        let query = Query::parse(&Schema::votes(), parameters.iter().copied()).unwrap();
        measure("find, the newest 100", 100, async { query_store.find(&Table::Votes, &query).await.unwrap() }).await;
    }
}
