//! Writes the file of receipts: one line for each acknowledged vote, with its id.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use uuid::Uuid;

/// The interval at which buffered lines are written to the file. It is short, so that a line is in the file within 100
/// ms after the acknowledgement.
pub(super) const FLUSH_INTERVAL: Duration = Duration::from_millis(50);

const BUFFER_BYTES: usize = 64 * 1024;
const LINE_BYTES: usize = uuid::fmt::Hyphenated::LENGTH + 1;

/// The file of receipts. Each write has only whole lines, so the file has no partial line while the flood runs or after
/// it was killed.
pub(super) struct Receipts(Mutex<State>);

struct State {
    file: File,
    buffer: Vec<u8>,
    /// The first error of a write. After it, no more lines are written.
    error: Option<io::Error>,
}

impl Receipts {
    /// Creates the file, or clears an existing file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let state = State { file: File::create(path)?, buffer: Vec::with_capacity(BUFFER_BYTES), error: None };
        Ok(Self(Mutex::new(state)))
    }

    /// Adds the line of a vote to the buffer. Call this only after the vote was acknowledged.
    pub(super) fn write(&self, vote_id: Uuid) {
        let mut state = self.state();
        if state.buffer.len() + LINE_BYTES > BUFFER_BYTES {
            state.flush();
        }
        let mut line = [b'\n'; LINE_BYTES];
        vote_id.hyphenated().encode_lower(&mut line);
        state.buffer.extend_from_slice(&line);
    }

    /// Writes the buffered lines to the file.
    pub(super) fn flush(&self) {
        self.state().flush();
    }

    /// Writes the buffered lines to the file, at the end of the flood.
    ///
    /// # Errors
    /// The first error of any write.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut state = self.state();
        state.flush();
        state.error.take().map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
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
        assert!(!early.is_empty() && early.len().is_multiple_of(LINE_BYTES), "a full buffer is written in whole lines");
        receipts.finish().unwrap();
        let lines = fs::read_to_string(&path).unwrap();
        assert_eq!(lines.lines().map(|line| line.parse().unwrap()).collect::<Vec<Uuid>>(), ids);
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_full_disk_is_reported_at_the_end() {
        let receipts = Receipts::create(Path::new("/dev/full")).unwrap();
        receipts.write(Uuid::now_v7());
        receipts.flush();
        receipts.write(Uuid::now_v7());
        assert_eq!(receipts.finish().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
