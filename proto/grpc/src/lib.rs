//! The services of the package `ovation.v1`: clients, servers, and the descriptors for gRPC reflection.

/// The package `ovation.v1`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("ovation.v1");
}

/// The encoded file descriptors of the public messages and services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ovation.bin"));
