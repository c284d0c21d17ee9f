//! The stores that results are read from.

use std::sync::Arc;

use service::token::ReadToken;
use stores::{ImportPorts, QueryPorts};
use votes::{Contests, Ingest, LogReader, Tallies};

/// The stores that results are read from.
#[derive(Clone)]
pub struct Sources {
    /// The contests with their rules.
    pub contests: Arc<Contests>,
    /// The tallies, for the live page, the streams and the rates.
    pub tallies: Arc<dyn Tallies>,
    /// The stores of single votes and datasets, for queries.
    pub query_ports: QueryPorts,
    /// The vote log. Only the ends of the log are read. Their sum is the number of accepted votes.
    pub log_reader: Arc<dyn LogReader>,
    /// The stores that imports need in addition to the datasets.
    pub import_ports: ImportPorts,
    /// The ingest of imported votes.
    pub ingest: Ingest,
    /// The token for reading single votes and datasets. Without a token, all clients may read them.
    pub token: Option<ReadToken>,
}
