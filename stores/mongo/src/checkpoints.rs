//! Reads the checkpoints of partitions, and inserts their first ones.

use mongodb::{
    Collection,
    bson::{Bson, Document, RawDocumentBuf, doc},
};
use votes::{Partition, StoreError};

use crate::{
    call::{driver_error, failed, is_duplicate_key},
    document::{StoredCheckpoint, read_checkpoint},
};

/// The maximum number of attempts to change a checkpoint, or to read what it names. An attempt fails if another process
/// changes the checkpoint at the same time.
pub(super) const MAX_ATTEMPTS: usize = 8;

/// Reads the checkpoint of a partition. Returns `None` if the partition has none.
pub(super) async fn read(
    checkpoints: &Collection<RawDocumentBuf>,
    partition: Partition,
) -> Result<Option<StoredCheckpoint>, StoreError> {
    let document = checkpoints.find_one(doc! { "_id": partition.to_string() }).await.map_err(driver_error)?;
    document.as_deref().map(read_checkpoint).transpose()
}

/// Inserts the first checkpoint of a partition. Returns `false` if another process has inserted a checkpoint.
pub(super) async fn insert_first(
    checkpoints: &Collection<RawDocumentBuf>,
    partition: Partition,
    fields: Document,
) -> Result<bool, StoreError> {
    let mut document = doc! { "_id": partition.to_string() };
    document.extend(fields);
    let document = RawDocumentBuf::try_from(&document).map_err(failed)?;
    match checkpoints.insert_one(document).await {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate_key(&error) => Ok(false),
        Err(error) => Err(driver_error(error)),
    }
}

/// Returns the condition that a number of a checkpoint has this value. Numbers that are 0 may be absent: the cut-off is
/// absent until votes expire.
pub(super) fn number_filter(number: i64) -> Bson {
    if number == 0 { doc! { "$in": [Bson::Null, 0_i64] }.into() } else { number.into() }
}
