//! Writing one object, in parts of which few are in memory.

use std::mem;

use async_trait::async_trait;
use object_store::{Error, MultipartUpload};
use tokio::{runtime::Handle, task::JoinSet};
use votes::{ObjectWriter, StoreError};

use super::{CALL, COMPLETION, STORE, TRANSFER, failed, within};

/// Bytes of a part, all but the last: S3 wants at least 5 MiB, takes at most 10 000, and some of its kind want equal ones. So an
/// object has at most 78 GiB.
const PART: usize = 8 << 20;

/// How many parts are on their way while the next one fills.
const ON_THEIR_WAY: usize = 2;

pub(super) struct Writer {
    /// For errors.
    url: String,
    part: Vec<u8>,
    /// `None` once a call has failed, or was given up before it ended: then bytes are missing.
    upload: Option<Upload>,
}

impl Writer {
    pub(super) fn new(url: String, upload: Box<dyn MultipartUpload>) -> Self {
        Self { url, part: Vec::new(), upload: Some(Upload { upload: Some(upload), parts: JoinSet::new() }) }
    }

    fn take_upload(&mut self) -> Result<Upload, StoreError> {
        let gone =
            || StoreError::new(STORE, format!("{}: it was given up when bytes of it could not be written", self.url));
        self.upload.take().ok_or_else(gone)
    }
}

#[async_trait]
impl ObjectWriter for Writer {
    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), StoreError> {
        let mut upload = self.take_upload()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(PART - self.part.len()));
            self.part.extend_from_slice(now);
            rest = later;
            if self.part.len() == PART {
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

/// An upload and its parts. Dropped before it has finished, it takes away what it brought.
struct Upload {
    /// `None` once it has finished.
    upload: Option<Box<dyn MultipartUpload>>,
    parts: JoinSet<Result<(), Error>>,
}

impl Upload {
    async fn send(&mut self, part: Vec<u8>) -> Result<(), Error> {
        self.wait_for(ON_THEIR_WAY - 1).await?;
        if let Some(upload) = &mut self.upload {
            self.parts.spawn(within(TRANSFER, upload.put_part(part.into())));
        }
        Ok(())
    }

    /// Waits until at most so many parts are on their way.
    async fn wait_for(&mut self, most: usize) -> Result<(), Error> {
        while self.parts.len() > most {
            match self.parts.join_next().await {
                Some(part) => part.map_err(|source| Error::JoinError { source })??,
                None => break,
            }
        }
        Ok(())
    }

    async fn finish(&mut self, rest: Vec<u8>) -> Result<(), Error> {
        if !rest.is_empty() {
            self.send(rest).await?;
        }
        self.wait_for(0).await?;
        if let Some(upload) = &mut self.upload {
            within(COMPLETION, upload.complete()).await?;
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
            // First, since a part that is stored later would stay; one that is cut off may be stored all the same.
            while parts.join_next().await.is_some() {}
            if let Err(error) = within(CALL, upload.abort()).await {
                tracing::warn!(%error, "parts of an object that was given up may stay in the object store");
            }
        });
    }
}
