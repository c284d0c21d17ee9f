//! A gRPC producer for tests, and a client that can send any bytes.

use std::{
    collections::BTreeMap, convert::Infallible, marker::PhantomData, net::SocketAddr, sync::Arc, time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use futures::{StreamExt, channel::mpsc};
use grpc_producer::Dependencies;
use http_body_util::{BodyExt, Full};
use prost::Message;
use proto::v1::{CastVoteRequest, CastVotesResponse, VoteError, cast_votes_response::Outcome};
use proto_grpc::v1::vote_service_client::VoteServiceClient;
use service::{CancellationToken, Health, client_ip::TrustedProxies, ingest::MeteredIngest, serve::ServeError};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tonic::{
    Code, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, http},
    transport::Channel,
};
use tonic_types::StatusExt;
use votes::{Contest, Contests, Ingest, ProducerKind, UnixMillis, VoterSecret, VotesPerVoter, fake::FakeLog};

/// The longest time that a test waits for an event.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A producer that runs until it is dropped.
pub(crate) struct TestProducer {
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<FakeLog>,
    pub(crate) health: Health,
    pub(crate) shutdown: CancellationToken,
    pub(crate) server: JoinHandle<Result<(), ServeError>>,
    pub(crate) channel: Channel,
    pub(crate) metered: MeteredIngest,
}

impl TestProducer {
    pub(crate) async fn open() -> Self {
        Self::open_with(Health::default()).await
    }

    pub(crate) async fn open_with(health: Health) -> Self {
        Self::open_behind(TrustedProxies::default(), health).await
    }

    pub(crate) async fn open_behind(proxies: TrustedProxies, health: Health) -> Self {
        let log = FakeLog::new();
        let secret = VoterSecret::new(&[7; 32]).unwrap();
        let ingest = Ingest::new(ProducerKind::Grpc, Arc::new(contests()), Some(secret), log.clone());
        let metered = MeteredIngest::new(ingest, proxies);
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dependencies = Dependencies { ingest: metered.clone(), health: health.clone(), log_writer: None };
        let server = tokio::spawn(grpc_producer::run(listener, dependencies, shutdown.clone()));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { address, log, health, shutdown, server, channel, metered }
    }

    pub(crate) fn client(&self) -> VoteServiceClient<Channel> {
        VoteServiceClient::new(self.channel.clone())
    }

    /// Calls `CastVote` with these bytes as its message.
    pub(crate) async fn cast_bytes(&self, message: Vec<u8>) -> Result<(), Status> {
        self.call("CastVote", frame(0, &message), &[]).await
    }

    /// Calls a method with these bytes as the body of the request.
    pub(crate) async fn call(&self, method: &str, body: Vec<u8>, metadata: &[(&str, &str)]) -> Result<(), Status> {
        let mut request = http::Request::post(format!("http://{}/ovation.v1.VoteService/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let body = Body::new(Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {}));
        let mut channel = self.channel.clone();
        futures::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
        let response =
            timeout(TEST_TIMEOUT, channel.call(request.body(body).unwrap())).await.expect("no response").unwrap();
        let (head, body) = response.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        let status = Status::from_header_map(&head.headers).or_else(|| Status::from_header_map(trailers.as_ref()?));
        let status = status.unwrap();
        if status.code() == Code::Ok { Ok(()) } else { Err(status) }
    }

    /// Opens a `CastVotes` stream.
    pub(crate) async fn stream(&self) -> TestStream {
        let (sender, receiver) = mpsc::unbounded::<Bytes>();
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/ovation.v1.VoteService/CastVotes");
        let request = tonic::Request::new(receiver);
        let responses = grpc.streaming(request, path, Encoded(PhantomData)).await.unwrap().into_inner();
        TestStream { sender: Some(sender), responses }
    }

    /// Waits until this many votes wait for their receipts.
    pub(crate) async fn wait_until_pending(&self, votes: usize) {
        let waited = timeout(TEST_TIMEOUT, self.log.wait_until_pending(votes)).await;
        waited.unwrap_or_else(|_| panic!("{} votes wait, not {votes}", self.log.pending()));
    }
}

impl Drop for TestProducer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Puts a message into a gRPC frame with this flag (0 is uncompressed).
pub(crate) fn frame(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], length.as_slice(), message].concat()
}

pub(crate) fn vote(name: &str) -> CastVoteRequest {
    CastVoteRequest { name: name.to_owned(), ..CastVoteRequest::default() }
}

/// Returns the reason, the field and the `vote_id` in the details of a status.
pub(crate) fn details(status: &Status) -> (String, Option<String>, Option<String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no error info: {status:?}"));
    assert_eq!(info.domain, "ovation");
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    (info.reason.clone(), field, info.metadata.get("vote_id").cloned())
}

/// An open `CastVotes` stream.
pub(crate) struct TestStream {
    sender: Option<mpsc::UnboundedSender<Bytes>>,
    responses: Streaming<CastVotesResponse>,
}

impl TestStream {
    pub(crate) fn send(&self, name: &str) {
        self.send_bytes(vote(name).encode_to_vec());
    }

    pub(crate) fn send_bytes(&self, message: Vec<u8>) {
        self.sender.as_ref().unwrap().unbounded_send(message.into()).unwrap();
    }

    pub(crate) fn finish(&mut self) {
        self.sender = None;
    }

    pub(crate) async fn next(&mut self) -> Option<Result<Outcome, Status>> {
        let response = timeout(TEST_TIMEOUT, self.responses.next()).await.expect("no response")?;
        Some(response.map(|response| response.outcome.unwrap()))
    }

    /// Waits for the next outcome. Returns `accepted`, or the reason of the refusal.
    pub(crate) async fn outcome(&mut self) -> String {
        match self.next().await.unwrap().unwrap() {
            Outcome::Receipt(_) => "accepted".to_owned(),
            Outcome::Error(error) => error.reason,
        }
    }

    /// Waits for the next outcome, which must be a refusal.
    pub(crate) async fn error(&mut self) -> VoteError {
        match self.next().await.unwrap().unwrap() {
            Outcome::Receipt(receipt) => panic!("accepted: {receipt:?}"),
            Outcome::Error(error) => error,
        }
    }

    /// Waits for the end of the stream and returns its status.
    pub(crate) async fn end(&mut self) -> Result<(), Status> {
        match self.next().await {
            None => Ok(()),
            Some(Err(status)) => Err(status),
            Some(Ok(outcome)) => panic!("another outcome before the end: {outcome:?}"),
        }
    }
}

/// A codec for requests that the test has already encoded.
struct Encoded<R>(PhantomData<R>);

impl<R: Message + Default + 'static> Codec for Encoded<R> {
    type Encode = Bytes;
    type Decode = R;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(PhantomData)
    }

    fn decoder(&mut self) -> Self {
        Self(PhantomData)
    }
}

impl<R: Message> Encoder for Encoded<R> {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl<R: Message + Default> Decoder for Encoded<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        Ok(Some(R::decode(message.copy_to_bytes(message.remaining())).unwrap()))
    }
}

fn contests() -> Contests {
    let contest = |candidates: Option<&[&str]>, votes_per_voter, opens, closes| {
        let candidates = candidates.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        Contest::new(candidates, votes_per_voter, opens, closes).unwrap()
    };
    let (many, one) = (VotesPerVoter::Many, VotesPerVoter::One);
    let past = Some(UnixMillis(0));
    let future = Some(UnixMillis(4_102_444_800_000));
    Contests::new(BTreeMap::from([
        ("bands".parse().unwrap(), contest(None, many, None, None)),
        ("finals".parse().unwrap(), contest(Some(&["Pink Floyd", "Björk"]), many, None, None)),
        ("fair".parse().unwrap(), contest(None, one, None, None)),
        ("over".parse().unwrap(), contest(None, many, None, past)),
        ("soon".parse().unwrap(), contest(None, many, future, None)),
    ]))
}
