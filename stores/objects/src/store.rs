//! The port `Objects`, on a folder or a cloud.

use std::{
    io,
    ops::Range,
    path::Path as Folder,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use object_store::{Error, ObjectStore, ObjectStoreExt, path::Path};
use query::{ObjectWriter, Objects};
use rustix::fs::{Access, access};
use tokio::sync::Mutex;
use votes::{HealthDetails, Store, StoreError};

use crate::{
    call::{CALL_TIMEOUT, STORE, TRANSFER_TIMEOUT, error_chain, failed, with_timeout},
    location::{Location, LocationError, Retry},
    writer::Writer,
};

/// How long the result of a successful health check of a cloud is used again, because each request costs money.
const HEALTH_TTL: Duration = Duration::from_secs(15);

/// The name of an object that does not exist. A health check reads it, to check that the store replies.
const PROBE_KEY: &str = "is-it-there";

/// The object store at one location.
pub struct ObjectStorage {
    location: Location,
    store: Arc<dyn ObjectStore>,
    /// A client of the same store without retries, so that a health check fails soon.
    probe: Arc<dyn ObjectStore>,
    /// When a health check of a cloud last succeeded.
    healthy_at: Mutex<Option<Instant>>,
}

impl ObjectStorage {
    /// Opens an object store. Sends no request and writes nothing yet.
    ///
    /// # Errors
    /// If the settings in the environment are wrong.
    pub fn open(location: &Location) -> Result<Self, LocationError> {
        let (store, probe) = (location.open(Retry::Yes)?, location.open(Retry::No)?);
        Ok(Self { location: location.clone(), store, probe, healthy_at: Mutex::new(None) })
    }

    /// Returns the URL of an object, for errors.
    fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.location.to_string().trim_end_matches('/'))
    }

    fn path(&self, name: &str) -> Result<Path, StoreError> {
        Path::parse(name).map_err(|error| failed(&self.url(name), &error.into()))
    }

    /// Checks that the bucket exists and that this client may read it.
    async fn probe_bucket(&self) -> Result<(), StoreError> {
        match with_timeout(CALL_TIMEOUT, self.probe.get_range(&Path::from(PROBE_KEY), 0..1)).await {
            Ok(_) => Ok(()),
            // `NotFound` for the missing object means that the bucket is readable. A client that may not list the
            // bucket would get another error.
            Err(error @ Error::NotFound { .. }) if !is_bucket_missing(&error) => Ok(()),
            Err(error) => Err(failed(&self.location.to_string(), &error)),
        }
    }

    /// Checks that objects can be written to a folder. A default folder that is not writable is no error.
    async fn check_folder(&self, folder: &Folder) -> Result<HealthDetails, StoreError> {
        let folder = folder.to_owned();
        let checked = tokio::task::spawn_blocking(move || check_writable(&folder)).await;
        let checked = checked.map_err(|error| StoreError::new(STORE, error))?;
        let problem = checked.err().map(|error| format!("{}: it is not writable: {error}", self.location));
        match problem {
            Some(problem) if self.location.is_configured() => Err(StoreError::new(STORE, problem)),
            problem => Ok(HealthDetails::from([
                ("location", self.location.to_string()),
                ("writable", if problem.is_none() { "yes" } else { "no" }.to_owned()),
            ])),
        }
    }
}

fn is_bucket_missing(error: &Error) -> bool {
    error_chain(error).contains("NoSuchBucket")
}

/// Checks that a folder is writable. If the folder does not exist, checks the nearest parent folder that exists.
fn check_writable(folder: &Folder) -> io::Result<()> {
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder);
    Ok(access(existing, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[async_trait]
impl Store for ObjectStorage {
    async fn check(&self) -> Result<HealthDetails, StoreError> {
        if let Some(folder) = self.location.folder() {
            return self.check_folder(&folder).await;
        }
        let mut healthy_at = self.healthy_at.lock().await;
        if healthy_at.is_none_or(|at| at.elapsed() >= HEALTH_TTL) {
            self.probe_bucket().await?;
            *healthy_at = Some(Instant::now());
        }
        Ok(HealthDetails::from([("location", self.location.to_string())]))
    }
}

#[async_trait]
impl Objects for ObjectStorage {
    async fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let url = self.url(name);
        let upload = with_timeout(CALL_TIMEOUT, self.store.put_multipart(&self.path(name)?))
            .await
            .map_err(|error| failed(&url, &error))?;
        Ok(Box::new(Writer::new(url, upload)))
    }

    async fn read(&self, name: &str, bytes: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        let (url, path) = (self.url(name), self.path(name)?);
        let too_short =
            |end: u64| StoreError::new(STORE, format!("{url}: it ends at byte {end}, before {}", bytes.end));
        // Stores refuse to read an empty range.
        let read = if bytes.is_empty() {
            with_timeout(CALL_TIMEOUT, self.store.head(&path))
                .await
                .map(|object| (object.size.min(bytes.end), Vec::new()))
        } else {
            let read = with_timeout(TRANSFER_TIMEOUT, self.store.get_range(&path, bytes.clone())).await;
            read.map(|read| (bytes.start + read.len() as u64, read.into()))
        };
        match read {
            Ok((end, read)) if end == bytes.end => Ok(Some(read)),
            Ok((end, _)) => Err(too_short(end)),
            Err(error @ Error::NotFound { .. }) if !is_bucket_missing(&error) => Ok(None),
            Err(error) => Err(failed(&url, &error)),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        match with_timeout(CALL_TIMEOUT, self.store.delete(&self.path(name)?)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&self.url(name), &error)),
        }
    }
}
