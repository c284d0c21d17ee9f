//! `ovation.v1.VoteService` on the wire.
//!
//! The methods are wired by hand, not by generated code: that would decode messages before we see them, and answer what it
//! can't decode with `INTERNAL`, as if the fault were ours. So both methods take streams of undecoded messages; a unary call
//! is a stream of one.

use std::{convert::Infallible, marker::PhantomData, time::Duration};

use ::service::{
    CancellationToken,
    client::{FORWARDED_FOR, Network},
    door::{Line, MeteredDoor},
    requests::GrpcRequests,
};
use bytes::{Buf, Bytes};
use prost::Message;
use proto::v1::{CastVoteResponse, CastVotesResponse, vote_service_server::SERVICE_NAME};
use tokio::time::timeout;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
    codegen::{BoxFuture, Context, Poll, Service, StdError, http},
    metadata::MetadataMap,
    server::{ClientStreamingService, Grpc, NamedService, StreamingService},
};
use tonic_prost::ProstEncoder;
use votes::{MAX_VOTE_BYTES, Reason, Refusal, VoteRequest};

use crate::{message, status, stream::Outcomes};

/// The procedures.
pub(crate) const CAST_VOTE: &str = "CastVote";
pub(crate) const CAST_VOTES: &str = "CastVotes";

/// How long a call may take to bring its one vote.
const PATIENCE: Duration = Duration::from_secs(5);

/// A vote of a stream that is too large is refused alone, up to this size. Beyond it the stream ends.
const MAX_STREAMED_BYTES: usize = 256 * 1024;

/// The service.
#[derive(Clone)]
pub(crate) struct VoteService {
    door: MeteredDoor,
    requests: GrpcRequests,
    shutdown: CancellationToken,
}

impl VoteService {
    /// The service before a door. On shutdown it ends open streams.
    pub(crate) fn new(door: MeteredDoor, requests: GrpcRequests, shutdown: CancellationToken) -> Self {
        Self { door, requests, shutdown }
    }

    async fn cast_vote(self, request: Request<Streaming<Bytes>>) -> Result<Response<CastVoteResponse>, Status> {
        let from = self.network(&request);
        let (metadata, _, mut messages) = request.into_parts();
        let read = async {
            let vote = read_only(&mut messages).await?;
            self.requests.method(CAST_VOTE).sized(Some(vote.len()), None);
            let (idempotency_key, traceparent) = (idempotency_key(&metadata)?, traceparent(&metadata));
            Ok(VoteRequest { idempotency_key, traceparent, ..message::read(&vote)? })
        };
        let slow = || Refusal::new(Reason::SlowBody, format!("the vote did not come within {PATIENCE:?}"));
        let request = timeout(PATIENCE, read).await.unwrap_or_else(|_| Err(slow()));
        match self.door.cast(request, from).await {
            Ok(accepted) => {
                let receipt = status::receipt(&accepted);
                self.requests.method(CAST_VOTE).sized(None, Some(receipt.encoded_len()));
                Ok(Response::new(receipt))
            }
            Err(refusal) => Err(status::status(&refusal)),
        }
    }

    fn cast_votes(self, request: Request<Streaming<Bytes>>) -> Result<Response<Outcomes>, Status> {
        let from = self.network(&request);
        let (metadata, _, messages) = request.into_parts();
        if metadata.contains_key(IDEMPOTENCY_KEY) {
            let detail = "is for a single vote; on a stream each vote carries its own vote_id";
            let refusal = Refusal::field("Idempotency-Key", detail);
            self.door.refuse(&refusal);
            return Err(status::status(&refusal));
        }
        let line = Line::new(self.door, from);
        Ok(Response::new(Outcomes::new(messages, line, traceparent(&metadata), self.shutdown)))
    }

    /// Where a call came from.
    fn network<T>(&self, request: &Request<T>) -> Option<Network> {
        // A line that is no text is no address either.
        let forwarded = request.metadata().get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or("?"));
        self.door.network(request.remote_addr(), forwarded)
    }
}

/// The one message of a unary call.
async fn read_only(messages: &mut Streaming<Bytes>) -> Result<Bytes, Refusal> {
    let mut next = async || messages.message().await.map_err(|problem| status::unread(&problem));
    let malformed = |detail| Err(Refusal::new(Reason::MalformedBody, detail));
    match (next().await?, next().await?) {
        (Some(vote), None) if vote.len() > MAX_VOTE_BYTES => Err(too_large()),
        (Some(vote), None) => Ok(vote),
        (None, _) => malformed("the call has no message; CastVote takes one vote"),
        (Some(_), Some(_)) => malformed("the call has more than one message; CastVote takes one vote"),
    }
}

/// The refusal of a vote that has too many bytes.
pub(crate) fn too_large() -> Refusal {
    Refusal::new(Reason::TooLarge, format!("a vote has at most {MAX_VOTE_BYTES} bytes"))
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";

fn idempotency_key(metadata: &MetadataMap) -> Result<Option<String>, Refusal> {
    let mut keys = metadata.get_all(IDEMPOTENCY_KEY).iter();
    let wrong = |detail: &str| Refusal::field("Idempotency-Key", detail);
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => match key.to_str() {
            Ok(key) => Ok(Some(key.to_owned())),
            Err(_) => Err(wrong("must be ASCII text")),
        },
        _ => Err(wrong("given twice")),
    }
}

/// One that is not readable is nobody's trace.
fn traceparent(metadata: &MetadataMap) -> Option<String> {
    metadata.get("traceparent")?.to_str().ok().map(str::to_owned)
}

impl NamedService for VoteService {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for VoteService
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        let method = request.uri().path().strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
        match method {
            Some("/CastVote") => Box::pin(async move {
                let mut grpc = Grpc::new(Undecoded::<CastVoteResponse>::in_buffers_of(ONE_VOTE))
                    .max_decoding_message_size(MAX_STREAMED_BYTES);
                Ok(grpc.client_streaming(CastVote(service), request).await)
            }),
            Some("/CastVotes") => Box::pin(async move {
                let mut grpc = Grpc::new(Undecoded::<CastVotesResponse>::in_buffers_of(MANY_VOTES))
                    .max_decoding_message_size(MAX_STREAMED_BYTES);
                Ok(grpc.streaming(CastVotes(service), request).await)
            }),
            _ => Box::pin(async { Ok(Status::unimplemented("VoteService has CastVote and CastVotes").into_http()) }),
        }
    }
}

struct CastVote(VoteService);

impl ClientStreamingService<Bytes> for CastVote {
    type Response = CastVoteResponse;
    type Future = BoxFuture<Response<CastVoteResponse>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        Box::pin(self.0.clone().cast_vote(request))
    }
}

struct CastVotes(VoteService);

impl StreamingService<Bytes> for CastVotes {
    type Response = CastVotesResponse;
    type ResponseStream = Outcomes;
    type Future = std::future::Ready<Result<Response<Outcomes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        std::future::ready(self.0.clone().cast_votes(request))
    }
}

/// Leaves requests as the bytes of their messages.
struct Undecoded<R> {
    buffers: BufferSettings,
    response: PhantomData<R>,
}

/// The bytes that are set aside for each call. Most votes and receipts are a tenth of the usual 8 KiB.
const ONE_VOTE: usize = 512;
const MANY_VOTES: usize = 8 * 1024;

impl<R> Undecoded<R> {
    fn in_buffers_of(bytes: usize) -> Self {
        Self { buffers: BufferSettings::new(bytes, 32 * 1024), response: PhantomData }
    }
}

impl<R: Message + 'static> Codec for Undecoded<R> {
    type Encode = R;
    type Decode = Bytes;
    type Encoder = ProstEncoder<R>;
    type Decoder = BytesDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(self.buffers)
    }

    fn decoder(&mut self) -> Self::Decoder {
        BytesDecoder(self.buffers)
    }
}

struct BytesDecoder(BufferSettings);

impl Decoder for BytesDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0
    }
}
