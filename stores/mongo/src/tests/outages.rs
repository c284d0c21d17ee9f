//! Tests with servers that are down or hang: calls fail in time, and the ledger recovers automatically.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use votes::{Ledger, LoggedVote, Offset, Store, conformance::key};

use super::{P, Scratch, batch};
use crate::MongoLedger;

/// A TCP relay to a server. It can close all connections, or keep them open and forward nothing.
struct Relay {
    address: String,
    state: watch::Sender<RelayState>,
}

#[derive(Clone, Copy, PartialEq)]
enum RelayState {
    Open,
    Silent,
    Closed,
}

impl Relay {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (state, mut receiver) = watch::channel(RelayState::Open);
        tokio::spawn(async move {
            while let Ok((mut incoming, _)) = listener.accept().await {
                if *receiver.borrow_and_update() == RelayState::Closed {
                    continue;
                }
                let (mut changes, server) = (receiver.clone(), server.clone());
                tokio::spawn(async move {
                    let mut upstream = TcpStream::connect(server).await.unwrap();
                    loop {
                        let state = *changes.borrow_and_update();
                        tokio::select! {
                            _ = copy_bidirectional(&mut incoming, &mut upstream), if state == RelayState::Open => return,
                            outcome = changes.changed() => {
                                if outcome.is_err() || *changes.borrow() == RelayState::Closed {
                                    return;
                                }
                            }
                        }
                    }
                });
            }
        });
        Self { address, state }
    }

    fn set(&self, state: RelayState) {
        self.state.send_replace(state);
    }
}

/// Inserts votes again and again, as a consumer does, until the ledger accepts them.
async fn insert_with_retries(ledger: &MongoLedger, votes: Arc<[LoggedVote]>) {
    let retries = async {
        while ledger.insert(Arc::clone(&votes)).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), retries).await.expect("the ledger accepts votes again");
}

/// Asserts that calls fail within ten seconds during an outage, with one of `words` in the error, and succeed
/// afterwards.
async fn assert_calls_fail_in_time_and_recover(outage: RelayState, words: &[&str]) {
    let scratch = Scratch::new();
    let relay = Relay::to(scratch.server.clone()).await;
    let url = scratch.url_at(&relay.address) + "&directConnection=true";
    let ledger = MongoLedger::connect(&url).await.unwrap();
    ledger.insert(batch(0..10)).await.unwrap();

    relay.set(outage);
    let max_time = Duration::from_secs(10);
    let error = timeout(max_time, ledger.insert(batch(10..20))).await.unwrap().unwrap_err().to_string();
    assert!(error.starts_with("ledger: ") && words.iter().any(|word| error.contains(word)), "{error}");
    timeout(max_time, ledger.positions_of(vec![key(1)])).await.unwrap().unwrap_err();
    timeout(max_time, ledger.check()).await.unwrap().unwrap_err();

    relay.set(RelayState::Open);
    insert_with_retries(&ledger, batch(10..20)).await;
    assert_eq!(ledger.range(P, Offset(0), Offset(99), 99).await.unwrap(), batch(0..20).to_vec());
    ledger.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_fails_in_time_while_the_server_is_down_and_the_ledger_recovers() {
    assert_calls_fail_in_time_and_recover(RelayState::Closed, &["broke", "No available servers", "cleared"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_fails_in_time_while_the_server_hangs_and_the_ledger_recovers() {
    assert_calls_fail_in_time_and_recover(
        RelayState::Silent,
        &["no response within", "timed out", "No available servers", "interrupted"],
    )
    .await;
}
