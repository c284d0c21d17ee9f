//! The wire: messages and services of package `ovation.v1`, generated from `proto/ovation/v1/*.proto`.

/// Package `ovation.v1`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("ovation.v1");
}

/// The file descriptors of all messages and services, encoded, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ovation.bin"));
