//! The settings of a gRPC connection for streams of votes.

use tonic::transport::Endpoint;

/// How many bytes the server may send before the client has read them. All unanswered receipts of a stream fit into
/// this size.
const WINDOW_BYTES: u32 = 1 << 20;

/// Sets the HTTP/2 windows of an endpoint. They are large enough for all unanswered receipts of a stream, so the server
/// does not have to wait until the client has read earlier receipts.
pub fn endpoint(address: impl Into<Endpoint>) -> Endpoint {
    address.into().initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES)
}
