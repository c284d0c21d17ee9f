//! The file of receipts: the id of each acknowledged vote as a line.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use uuid::Uuid;

/// A line is in the file at most 100 ms after its vote was acknowledged.
pub(super) const FLUSH_EVERY: Duration = Duration::from_millis(50);

const BUFFER: usize = 64 * 1024;
const LINE: usize = uuid::fmt::Hyphenated::LENGTH + 1;

/// Lines go to the file whole, so that a reader of a growing file, or of one whose flood was killed, finds none cut.
pub(super) struct Receipts(Mutex<Pages>);

struct Pages {
    file: File,
    buffer: Vec<u8>,
    /// After the first error nothing more is written.
    error: Option<io::Error>,
}

impl Receipts {
    /// Creates the file, or empties it.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let pages = Pages { file: File::create(path)?, buffer: Vec::with_capacity(BUFFER), error: None };
        Ok(Self(Mutex::new(pages)))
    }

    /// Writes the line of a vote. To be called after its acknowledgement, never before.
    pub(super) fn write(&self, vote_id: Uuid) {
        let mut pages = self.pages();
        if pages.buffer.len() + LINE > BUFFER {
            pages.flush();
        }
        let mut line = [b'\n'; LINE];
        vote_id.hyphenated().encode_lower(&mut line);
        pages.buffer.extend_from_slice(&line);
    }

    /// Hands what is buffered to the file.
    pub(super) fn flush(&self) {
        self.pages().flush();
    }

    /// Flushes, and tells of the first error there was.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut pages = self.pages();
        pages.flush();
        pages.error.take().map_or(Ok(()), Err)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn flush(&mut self) {
        if self.error.is_none() && !self.buffer.is_empty() {
            self.error = self.file.write_all(&self.buffer).err();
        }
        self.buffer.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{env, fs};

    use super::*;

    #[test]
    fn every_receipt_is_a_whole_line_in_order() {
        let path = env::temp_dir().join(format!("ovation-receipts-{}", Uuid::now_v7()));
        let ids: Vec<_> = (0..5000).map(|_| Uuid::now_v7()).collect();
        let receipts = Receipts::create(&path).unwrap();
        for id in &ids {
            receipts.write(*id);
        }
        let early = fs::read(&path).unwrap();
        assert!(!early.is_empty() && early.len().is_multiple_of(LINE), "a full buffer is written in whole lines");
        receipts.finish().unwrap();
        let lines = fs::read_to_string(&path).unwrap();
        assert_eq!(lines.lines().map(|line| line.parse().unwrap()).collect::<Vec<Uuid>>(), ids);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_full_disk_is_told_at_the_end() {
        let receipts = Receipts::create(Path::new("/dev/full")).unwrap();
        receipts.write(Uuid::now_v7());
        receipts.flush();
        receipts.write(Uuid::now_v7());
        assert_eq!(receipts.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
