//! Casts each vote with a call of its own: `VoteService.CastVote`.

use std::{error::Error, sync::Arc, time::Duration};

use client::error::chain;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use proto_grpc::v1::vote_service_client::VoteServiceClient;
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};
use tower::service_fn;

use super::{
    plan::Plan,
    statistics::Outcome,
    votes::{Bands, DueVote},
    worker::Caster,
};
use crate::connections::CountedStream;

/// Connects to the producer. The channel reconnects when the connection is lost.
pub(super) async fn connect(plan: &Plan) -> Channel {
    let endpoint = client::endpoint(plan.url.clone()).connect_timeout(plan.timeout);
    let group = Arc::clone(&plan.group);
    let connector = service_fn(move |address: Uri| {
        let group = Arc::clone(&group);
        async move {
            let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
            CountedStream::connect(host, address.port_u16().unwrap_or(80), group).await.map(TokioIo::new)
        }
    });
    match endpoint.connect_with_connector(connector.clone()).await {
        Ok(channel) => channel,
        // The server is not reachable yet. The first vote tries to connect again.
        Err(_) => endpoint.connect_with_connector_lazy(connector),
    }
}

pub(super) struct Grpc {
    client: VoteServiceClient<Channel>,
    timeout: Duration,
}

impl Grpc {
    pub(super) fn new(channel: Channel, plan: &Plan) -> Self {
        Self { client: VoteServiceClient::new(channel), timeout: plan.timeout }
    }
}

impl Caster for Grpc {
    async fn cast(&mut self, bands: &Bands, votes: &[DueVote], outcomes: &mut Vec<Outcome>) {
        for vote in votes {
            let call = self.client.cast_vote(bands.message(vote));
            outcomes.push(match timeout(self.timeout, call).await {
                Ok(Ok(receipt)) => check_receipt(&receipt.into_inner().vote_id, vote),
                Ok(Err(status)) => outcome_of_status(&status),
                Err(_) => Outcome::Failed { reason: format!("no response within {:?}", self.timeout) },
            });
        }
    }
}

/// Returns the outcome of a vote with a receipt: `Acknowledged` if the receipt is for this vote, else `Failed`.
pub(super) fn check_receipt(vote_id: &str, vote: &DueVote) -> Outcome {
    if vote_id.parse() == Ok(vote.id) {
        Outcome::Acknowledged
    } else {
        Outcome::Failed { reason: "the receipt is for another vote".to_owned() }
    }
}

/// Converts an error status to an outcome. A status that tonic created for a broken connection has a source; a status
/// from the server has none.
fn outcome_of_status(status: &Status) -> Outcome {
    if let Some(cause) = status.source() {
        return Outcome::Failed { reason: chain(cause) };
    }
    outcome_of_code(status.code(), status.message())
}

/// Converts an error code from the server to an outcome.
pub(super) fn outcome_of_code(code: Code, message: &str) -> Outcome {
    let reason = if message.is_empty() { format!("{code:?}") } else { format!("{code:?}: {message}") };
    Outcome::Refused { reason, is_temporary: matches!(code, Code::Unavailable | Code::ResourceExhausted) }
}
