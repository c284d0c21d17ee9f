//! Writes one object in parts. At most three parts are in memory.

use std::mem;

use async_trait::async_trait;
use object_store::{Error, MultipartUpload};
use query::ObjectWriter;
use tokio::{runtime::Handle, task::JoinSet};
use votes::StoreError;

use crate::call::{CALL_TIMEOUT, COMPLETION_TIMEOUT, STORE, TRANSFER_TIMEOUT, failed, with_timeout};

/// The size of all parts except the last. S3 requires parts of at least 5 MiB and accepts at most 10 000 parts, so an
/// object has at most 78 GiB. Some compatible stores require that the parts have the same size.
const PART_BYTES: usize = 8 << 20;

/// The maximum number of parts that are being sent while the next part is filled.
const MAX_PARTS_IN_FLIGHT: usize = 2;

pub(super) struct Writer {
    /// The object's URL, for errors.
    url: String,
    part: Vec<u8>,
    /// `None` after a call failed or was cancelled, because then bytes are missing.
    upload: Option<Upload>,
}

impl Writer {
    pub(super) fn new(url: String, upload: Box<dyn MultipartUpload>) -> Self {
        Self { url, part: Vec::new(), upload: Some(Upload { upload: Some(upload), parts: JoinSet::new() }) }
    }

    fn take_upload(&mut self) -> Result<Upload, StoreError> {
        let aborted = || {
            StoreError::new(
                STORE,
                format!("{}: the upload was aborted, because a part of it could not be written", self.url),
            )
        };
        self.upload.take().ok_or_else(aborted)
    }
}

#[async_trait]
impl ObjectWriter for Writer {
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        let mut upload = self.take_upload()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (next, remaining) = rest.split_at(rest.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(next);
            rest = remaining;
            if self.part.len() == PART_BYTES {
                upload.send(mem::take(&mut self.part)).await.map_err(|error| failed(&self.url, &error))?;
            }
        }
        self.upload = Some(upload);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        let mut upload = self.take_upload()?;
        let rest = mem::take(&mut self.part);
        upload.finish(rest).await.map_err(|error| failed(&self.url, &error))
    }
}

/// An upload and its parts. If an upload is dropped before it has finished, a task aborts it and deletes its parts.
struct Upload {
    /// `None` after the upload has finished.
    upload: Option<Box<dyn MultipartUpload>>,
    parts: JoinSet<Result<(), Error>>,
}

impl Upload {
    /// Starts to send a part. First waits if [`MAX_PARTS_IN_FLIGHT`] parts are being sent.
    async fn send(&mut self, part: Vec<u8>) -> Result<(), Error> {
        self.wait_for_parts(MAX_PARTS_IN_FLIGHT - 1).await?;
        if let Some(upload) = &mut self.upload {
            self.parts.spawn(with_timeout(TRANSFER_TIMEOUT, upload.put_part(part.into())));
        }
        Ok(())
    }

    /// Waits until at most `max` parts are being sent.
    async fn wait_for_parts(&mut self, max: usize) -> Result<(), Error> {
        while self.parts.len() > max {
            match self.parts.join_next().await {
                Some(part) => part.map_err(|source| Error::JoinError { source })??,
                None => break,
            }
        }
        Ok(())
    }

    /// Sends the rest, and assembles the object from its parts.
    async fn finish(&mut self, rest: Vec<u8>) -> Result<(), Error> {
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        self.wait_for_parts(0).await?;
        if let Some(upload) = &mut self.upload {
            with_timeout(COMPLETION_TIMEOUT, upload.complete()).await?;
        }
        self.upload = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(mut upload), Ok(runtime)) = (self.upload.take(), Handle::try_current()) else { return };
        let mut parts = mem::take(&mut self.parts);
        runtime.spawn(async move {
            // Wait for the parts first: a part that is stored after the abort would remain, and cancelling its request
            // does not always prevent this.
            while parts.join_next().await.is_some() {}
            if let Err(error) = with_timeout(CALL_TIMEOUT, upload.abort()).await {
                tracing::warn!(%error, "parts of an aborted upload may remain in the object store");
            }
        });
    }
}
