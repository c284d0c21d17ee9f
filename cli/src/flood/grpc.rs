//! One vote a call: `VoteService.CastVote`.

use std::{error::Error, sync::Arc, time::Duration};

use hyper::Uri;
use hyper_util::rt::TokioIo;
use proto::v1::vote_service_client::VoteServiceClient;
use tokio::time::timeout;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{
    args::Plan,
    http::describe,
    ledger::Answer,
    votes::{Bands, DueVote},
    wire::Counted,
    worker::Caster,
};

/// A connection that makes itself again when it was lost.
pub(super) async fn connect(plan: &Plan) -> Channel {
    let endpoint = Endpoint::from(plan.url.clone())
        .connect_timeout(plan.timeout)
        // The receipts of a stream's whole window fit, so that the server never waits for us to read.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 20);
    let wire = Arc::clone(&plan.wire);
    let connector = service_fn(move |address: Uri| {
        let wire = Arc::clone(&wire);
        async move {
            let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
            Counted::connect(host, address.port_u16().unwrap_or(80), wire).await.map(TokioIo::new)
        }
    });
    match endpoint.connect_with_connector(connector.clone()).await {
        Ok(channel) => channel,
        // A server that is not there yet will be called again by the first vote.
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
    async fn cast(&mut self, bands: &Bands, votes: &[DueVote], answers: &mut Vec<Answer>) {
        for vote in votes {
            let call = self.client.cast_vote(bands.message(vote));
            answers.push(match timeout(self.timeout, call).await {
                Ok(Ok(receipt)) => receipt_of(&receipt.into_inner().vote_id, vote),
                Ok(Err(status)) => refusal(&status),
                Err(_) => Answer::Failed { reason: format!("no answer within {:?}", self.timeout) },
            });
        }
    }
}

/// Whether a receipt is this vote's.
pub(super) fn receipt_of(vote_id: &str, vote: &DueVote) -> Answer {
    if vote_id.parse() == Ok(vote.id) {
        Answer::Acknowledged
    } else {
        Answer::Failed { reason: "the receipt of another vote".to_owned() }
    }
}

/// What a status says. One that tonic made of a broken connection has a cause; one that the server sent has none.
fn refusal(status: &Status) -> Answer {
    if let Some(cause) = status.source() {
        return Answer::Failed { reason: describe(cause) };
    }
    refusal_of(status.code(), status.message())
}

/// What a code that the server sent says.
pub(super) fn refusal_of(code: Code, message: &str) -> Answer {
    let reason = if message.is_empty() { format!("{code:?}") } else { format!("{code:?}: {message}") };
    Answer::Refused { reason, is_passing: matches!(code, Code::Unavailable | Code::ResourceExhausted) }
}
