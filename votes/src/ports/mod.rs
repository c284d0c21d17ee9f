//! The ports of counting. Each port is a trait that the crates below `stores/` implement, and has a conformance suite
//! that every adapter must pass.

mod ledger;
mod log_reader;
mod log_writer;
mod store;
mod tallies;

pub use ledger::{
    Advanced, Checkpoint, Duplicate, Ledger, LedgerRepair, LedgerRetention, Purged, Summary, WholeLedger,
};
pub use log_reader::{
    Assignment, Batch, Bounds, DeadLetter, DeadLetterPart, DeadLetterReader, ForeignRecord, InvalidRecord, LogReader,
    Record,
};
pub use log_writer::{DeliveryFuture, DeliverySender, LogWriter, PublishError, Receipt, delivery_channel};
pub use store::{ConnectError, HealthDetails, OpenError, Store, StoreError};
pub use tallies::{Added, ClearCondition, Snapshot, Tallies, TalliesPosition};
