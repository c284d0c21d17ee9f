//! The service `ovation.v1.VoteService`.
//!
//! This file routes the methods itself, without generated code. Generated code would decode each message before it
//! calls this crate, and return `INTERNAL` for a message that it can't decode, as if the server had failed. So here,
//! both methods receive streams of undecoded messages. A unary call is a stream of one message.

use std::{convert::Infallible, marker::PhantomData};

use ::service::{
    CancellationToken,
    client_ip::{FORWARDED_FOR, Network},
    grpc::refusal_status,
    ingest::{MeteredIngest, VotePipeline},
    requests::GrpcRequests,
};
use bytes::{Buf, Bytes};
use prost::Message;
use proto::v1::{CastVoteResponse, CastVotesResponse};
use proto_grpc::v1::vote_service_server::SERVICE_NAME;
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
use votes::{MAX_VOTE_BYTES, Reason, Refusal, VOTE_BODY_TIMEOUT, VoteMetadata, vote_too_large};

use crate::{message, status, stream::Outcomes};

/// The name of the procedure for one vote.
pub(crate) const CAST_VOTE: &str = "CastVote";

/// The name of the procedure for a stream of votes.
pub(crate) const CAST_VOTES: &str = "CastVotes";

/// The maximum size of a message, in bytes. A message that is larger than [`MAX_VOTE_BYTES`] is refused, and its stream
/// continues. A message that is larger than this size ends its stream.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The service.
#[derive(Clone)]
pub(crate) struct VoteService {
    ingest: MeteredIngest,
    requests: GrpcRequests,
    shutdown: CancellationToken,
}

impl VoteService {
    /// Creates the service. On shutdown, the service ends its open streams.
    pub(crate) fn new(ingest: MeteredIngest, requests: GrpcRequests, shutdown: CancellationToken) -> Self {
        Self { ingest, requests, shutdown }
    }

    async fn cast_vote(self, request: Request<Streaming<Bytes>>) -> Result<Response<CastVoteResponse>, Status> {
        let network = self.network(&request);
        let (metadata, _, mut messages) = request.into_parts();
        let read = async {
            let vote = only_message(&mut messages).await?;
            self.requests.method(CAST_VOTE).record_sizes(Some(vote.len()), None);
            let keys = metadata.get_all(VoteMetadata::IDEMPOTENCY_KEY).iter().map(|key| key.to_str().ok());
            let metadata = VoteMetadata::read(keys, traceparent(&metadata))?;
            Ok(message::parse(&vote)?.with_metadata(metadata))
        };
        let too_slow =
            || Refusal::new(Reason::SlowBody, format!("the vote did not arrive within {VOTE_BODY_TIMEOUT:?}"));
        let request = timeout(VOTE_BODY_TIMEOUT, read).await.unwrap_or_else(|_| Err(too_slow()));
        match self.ingest.cast(request, network).await {
            Ok(accepted) => {
                let receipt = status::receipt(&accepted);
                self.requests.method(CAST_VOTE).record_sizes(None, Some(receipt.encoded_len()));
                Ok(Response::new(receipt))
            }
            Err(refusal) => Err(refusal_status(&refusal)),
        }
    }

    fn cast_votes(self, request: Request<Streaming<Bytes>>) -> Result<Response<Outcomes>, Status> {
        let network = self.network(&request);
        let (metadata, _, messages) = request.into_parts();
        if metadata.contains_key(VoteMetadata::IDEMPOTENCY_KEY) {
            let refusal = VoteMetadata::key_with_many_votes("on a stream");
            self.ingest.count_refusal(&refusal);
            return Err(refusal_status(&refusal));
        }
        let pipeline = VotePipeline::new(self.ingest, network);
        Ok(Response::new(Outcomes::new(messages, pipeline, traceparent(&metadata).map(str::to_owned), self.shutdown)))
    }

    /// Returns the network of the client of a call, if it is known.
    fn network<T>(&self, request: &Request<T>) -> Option<Network> {
        // A value that is not text is replaced by a text that is not an address.
        let forwarded = request.metadata().get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or("?"));
        self.ingest.network(request.remote_addr(), forwarded)
    }
}

/// Returns the message of a unary call.
///
/// # Errors
/// If the call has no message or more than one, or the message is too large.
async fn only_message(messages: &mut Streaming<Bytes>) -> Result<Bytes, Refusal> {
    let mut next = async || messages.message().await.map_err(|problem| status::decode_refusal(&problem));
    let malformed = |detail| Err(Refusal::new(Reason::MalformedBody, detail));
    match (next().await?, next().await?) {
        (Some(vote), None) if vote.len() > MAX_VOTE_BYTES => Err(vote_too_large()),
        (Some(vote), None) => Ok(vote),
        (None, _) => malformed("the call has no message; CastVote takes one vote"),
        (Some(_), Some(_)) => malformed("the call has more than one message; CastVote takes one vote"),
    }
}

/// Returns the metadata `traceparent`, or `None` if it is missing or is not text.
fn traceparent(metadata: &MetadataMap) -> Option<&str> {
    metadata.get(VoteMetadata::TRACEPARENT)?.to_str().ok()
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
                let mut grpc = Grpc::new(Undecoded::<CastVoteResponse>::with_buffer_size(CALL_BUFFER_BYTES))
                    .max_decoding_message_size(MAX_MESSAGE_BYTES);
                Ok(grpc.client_streaming(CastVote(service), request).await)
            }),
            Some("/CastVotes") => Box::pin(async move {
                let mut grpc = Grpc::new(Undecoded::<CastVotesResponse>::with_buffer_size(STREAM_BUFFER_BYTES))
                    .max_decoding_message_size(MAX_MESSAGE_BYTES);
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

/// A codec that does not decode the messages of a request: each stays as bytes.
struct Undecoded<R> {
    buffers: BufferSettings,
    response: PhantomData<R>,
}

/// The initial buffer size of a `CastVote` call, in bytes. tonic's default of 8 KiB is far more than most votes and
/// receipts need.
const CALL_BUFFER_BYTES: usize = 512;

/// The initial buffer size of a `CastVotes` call, in bytes.
const STREAM_BUFFER_BYTES: usize = 8 * 1024;

impl<R> Undecoded<R> {
    fn with_buffer_size(bytes: usize) -> Self {
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
