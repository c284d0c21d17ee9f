//! The port, over whichever store the place is in.

use std::{
    io,
    ops::Range,
    path::Path as Folder,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use object_store::{Error, ObjectStore, ObjectStoreExt, path::Path};
use rustix::fs::{Access, access};
use service::ConfigError;
use tokio::sync::Mutex;
use votes::{Facts, ObjectWriter, Objects, Store, StoreError};

use super::{CALL, Place, STORE, TRANSFER, failed, in_full, place::Patience, within, writer::Writer};

/// How long what a cloud said of itself is believed: asking costs money.
const BELIEVED: Duration = Duration::from_secs(15);

/// An object that nobody writes. Only the store's answer matters.
const NOBODYS: &str = "is-it-there";

/// A place with objects.
pub(crate) struct ObjectStorage {
    place: Place,
    store: Arc<dyn ObjectStore>,
    /// As `store`, of which a call fails at once: those who ask for the health don't wait long.
    probe: Arc<dyn ObjectStore>,
    /// When a cloud last answered as it should.
    was_well: Mutex<Option<Instant>>,
}

impl ObjectStorage {
    /// # Errors
    /// If the environment says something about the place that can't be.
    pub(crate) fn open(place: &Place) -> Result<Self, ConfigError> {
        let (store, probe) = (place.open(Patience::Again)?, place.open(Patience::Once)?);
        Ok(Self { place: place.clone(), store, probe, was_well: Mutex::new(None) })
    }

    /// For errors.
    fn url(&self, name: &str) -> String {
        format!("{}/{name}", self.place.to_string().trim_end_matches('/'))
    }

    fn path(&self, name: &str) -> Result<Path, StoreError> {
        Path::parse(name).map_err(|error| failed(&self.url(name), &error.into()))
    }

    /// Whether the cloud answers as one that has this bucket and lets us read there.
    async fn ask(&self) -> Result<(), StoreError> {
        match within(CALL, self.probe.get_range(&Path::from(NOBODYS), 0..1)).await {
            Ok(_) => Ok(()),
            // There is no such object, and whoever may list a bucket is told that.
            Err(error @ Error::NotFound { .. }) if !is_bucket_missing(&error) => Ok(()),
            Err(error) => Err(failed(&self.place.to_string(), &error)),
        }
    }

    async fn check_folder(&self, folder: &Folder) -> Result<Facts, StoreError> {
        let folder = folder.to_owned();
        let asked = tokio::task::spawn_blocking(move || may_be_written(&folder)).await;
        let asked = asked.map_err(|error| StoreError::new(STORE, error))?;
        let problem = asked.err().map(|error| format!("{}: it can't be written: {error}", self.place));
        match problem {
            Some(problem) if self.place.is_chosen() => Err(StoreError::new(STORE, problem)),
            problem => Ok(Facts::from([
                ("place", self.place.to_string()),
                ("writable", if problem.is_none() { "yes" } else { "no" }.to_owned()),
            ])),
        }
    }
}

fn is_bucket_missing(error: &Error) -> bool {
    in_full(error).contains("NoSuchBucket")
}

/// Whether a folder, or the next one above it that is there, can be written.
fn may_be_written(folder: &Folder) -> io::Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder);
    Ok(access(there, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[async_trait]
impl Store for ObjectStorage {
    async fn check(&self) -> Result<Facts, StoreError> {
        if let Some(folder) = self.place.folder() {
            return self.check_folder(&folder).await;
        }
        let mut was_well = self.was_well.lock().await;
        if was_well.is_none_or(|at| at.elapsed() >= BELIEVED) {
            self.ask().await?;
            *was_well = Some(Instant::now());
        }
        Ok(Facts::from([("place", self.place.to_string())]))
    }
}

#[async_trait]
impl Objects for ObjectStorage {
    async fn create(&self, name: &str) -> Result<Box<dyn ObjectWriter>, StoreError> {
        let url = self.url(name);
        let upload =
            within(CALL, self.store.put_multipart(&self.path(name)?)).await.map_err(|error| failed(&url, &error))?;
        Ok(Box::new(Writer::new(url, upload)))
    }

    async fn read(&self, name: &str, bytes: Range<u64>) -> Result<Option<Vec<u8>>, StoreError> {
        let (url, path) = (self.url(name), self.path(name)?);
        let short =
            |there: u64| StoreError::new(STORE, format!("{url}: it ends at byte {there}, before {}", bytes.end));
        // Stores refuse to read nothing.
        let read = if bytes.is_empty() {
            within(CALL, self.store.head(&path)).await.map(|object| (object.size.min(bytes.end), Vec::new()))
        } else {
            let read = within(TRANSFER, self.store.get_range(&path, bytes.clone())).await;
            read.map(|read| (bytes.start + read.len() as u64, read.into()))
        };
        match read {
            Ok((there, read)) if there == bytes.end => Ok(Some(read)),
            Ok((there, _)) => Err(short(there)),
            Err(error @ Error::NotFound { .. }) if !is_bucket_missing(&error) => Ok(None),
            Err(error) => Err(failed(&url, &error)),
        }
    }

    async fn remove(&self, name: &str) -> Result<(), StoreError> {
        match within(CALL, self.store.delete(&self.path(name)?)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&self.url(name), &error)),
        }
    }
}
