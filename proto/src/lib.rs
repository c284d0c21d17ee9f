//! The messages of the package `ovation.v1`, which are generated from `proto/ovation/v1/*.proto`: the messages of the
//! public services, and the record of the vote log. Reflection does not show this record. The services are in the crate
//! `proto-grpc`.

/// The package `ovation.v1`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/ovation.v1.rs"));
}
