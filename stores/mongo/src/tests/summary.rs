//! Tests of the parts of summaries.

use mongodb::bson::{Document, doc};
use votes::{Counts, Ledger, LedgerRetention, Offset, Summary, conformance::logged};

use super::{P, Scratch};
use crate::MongoLedger;

/// Lets vote `n` expire, at the cut-off `n`.
async fn expire(ledger: &MongoLedger, n: u64) {
    let mut counts = Counts::of(&[logged(n, P, n)]);
    counts.drop_expiring_windows();
    let expired = Summary { cut_off: Offset(n + 1), counts, youngest_expired: None };
    assert!(ledger.add_to_summary(P, Offset(n), expired).await.unwrap());
}

/// Returns the number of votes in the summary, and the number of stored parts.
async fn votes_and_parts(ledger: &MongoLedger) -> (u64, usize) {
    let mut stored = ledger.database.collection::<Document>("summaries").find(doc! {}).await.unwrap();
    let mut parts = 0;
    while stored.advance().await.unwrap() {
        parts += 1;
    }
    (ledger.summary(P).await.unwrap().counts.total(), parts)
}

async fn checkpoint(ledger: &MongoLedger) -> Document {
    let checkpoints = ledger.database.collection::<Document>("checkpoints");
    checkpoints.find_one(doc! { "_id": P.to_string() }).await.unwrap().unwrap()
}

#[tokio::test]
async fn compaction_deletes_the_parts_of_merged_generations() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    for n in 0..7 {
        expire(&ledger, n).await;
    }
    ledger.compact_summary(P).await.unwrap();
    assert_eq!(votes_and_parts(&ledger).await, (7, 7), "these are too few to merge");
    expire(&ledger, 7).await;
    ledger.compact_summary(P).await.unwrap();
    assert_eq!(votes_and_parts(&ledger).await, (8, 1));
    assert_eq!(checkpoint(&ledger).await.get_array("summary").unwrap().len(), 1);
}

#[tokio::test]
async fn cleaning_a_summary_deletes_the_parts_that_no_checkpoint_lists() {
    let scratch = Scratch::new();
    let ledger = scratch.open().await;
    expire(&ledger, 0).await;
    ledger.clean_summary(P).await.unwrap();
    assert!(!checkpoint(&ledger).await.contains_key("summary_fence"), "there are no stale parts");

    let stale = doc! {
        "_id": "3/stale/bands/0",
        "partition": 3,
        "generation": "stale",
        "fence": 0_i64,
        "contest": "bands",
        "counts": [{ "band": { "name": "Band 1", "votes": 5_i64 } }],
    };
    ledger.database.collection::<Document>("summaries").insert_one(stale).await.unwrap();
    ledger.purge_expired(P, Vec::new(), 10).await.unwrap();
    assert_eq!(votes_and_parts(&ledger).await, (1, 2));
    ledger.clean_summary(P).await.unwrap();
    assert_eq!(votes_and_parts(&ledger).await, (1, 1));
    assert_eq!(checkpoint(&ledger).await.get_i64("summary_fence").unwrap(), 1);
    // The parts that are written from now on have the new fence.
    expire(&ledger, 1).await;
    ledger.clean_summary(P).await.unwrap();
    assert_eq!(votes_and_parts(&ledger).await, (2, 2));
}
