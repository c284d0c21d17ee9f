//! The folder of the embedded stores: its lock, its secret, and the check that no file is missing.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use votes::{OpenError, VoterSecret};

const LOCK: &str = "lock";
const SECRET: &str = "secret";
const SECRET_BYTES: usize = 32;

/// A folder with embedded stores. If this process may write to the stores, it has locked the folder.
pub(super) struct Folder {
    path: PathBuf,
    lock: Option<File>,
}

impl Folder {
    /// Creates the folder if it is missing, and locks it for this process.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        let error = |error: io::Error| OpenError::new(path.display(), error);
        fs::create_dir_all(path).map_err(error)?;
        let options = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK));
        let mut lock = options().map_err(error)?;
        match lock_with_retries(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                lock.read_to_string(&mut owner).map_err(error)?;
                let owner = owner.trim();
                return Err(OpenError::new(
                    path.display(),
                    format!(
                        "process {owner} has these stores open, and embedded stores belong to one process; \
                         stop it, or give another folder with --data"
                    ),
                ));
            }
            Err(TryLockError::Error(problem)) => return Err(error(problem)),
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(error)?;
        let folder = Self { path: path.to_owned(), lock: Some(lock) };
        folder.refuse_missing_log()?;
        Ok(folder)
    }

    /// Opens a folder for reading. Does not lock it.
    pub(super) fn open_for_reading(path: &Path) -> Result<Self, OpenError> {
        if !path.join("log.db").is_file() {
            return Err(OpenError::new(path.display(), "there are no Ovation stores in this folder (no log.db)"));
        }
        Ok(Self { path: path.to_owned(), lock: None })
    }

    /// Refuses a folder without a log that has other files of the stores. A new log would hide that the old log, with
    /// its votes, is lost.
    fn refuse_missing_log(&self) -> Result<(), OpenError> {
        if self.path.join("log.db").exists() {
            return Ok(());
        }
        match ["log.db-wal", "count.db", SECRET].into_iter().find(|file| self.path.join(file).exists()) {
            Some(file) => Err(OpenError::new(
                self.path.display(),
                format!("log.db is missing although {file} exists; restore it, or use an empty folder"),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a handle of the lock, if this process has locked the folder. The folder stays locked while a handle
    /// exists.
    pub(super) fn lock_file(&self) -> Result<Option<File>, OpenError> {
        self.lock.as_ref().map(File::try_clone).transpose().map_err(|error| OpenError::new(self.path.display(), error))
    }

    /// Reads the secret that voters are hashed with, or creates it if `may_create`. With another secret every voter
    /// could vote again, so the caller must allow this only while the log has no votes.
    pub(super) fn secret(&self, may_create: bool) -> Result<VoterSecret, OpenError> {
        let path = self.path.join(SECRET);
        let error = |problem: &dyn std::fmt::Display| OpenError::new(path.display(), problem);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound && may_create => self.create_secret(&path)?,
            Err(problem) => return Err(error(&format!("the voters' secret can't be read: {problem}; restore it"))),
        };
        VoterSecret::new(&bytes).map_err(|problem| error(&problem))
    }

    fn create_secret(&self, path: &Path) -> Result<Vec<u8>, OpenError> {
        let error = |problem: &dyn std::fmt::Display| OpenError::new(path.display(), problem);
        let mut secret = vec![0; SECRET_BYTES];
        getrandom::fill(&mut secret).map_err(|problem| error(&problem))?;
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&secret)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|problem| error(&problem))?;
        Ok(secret)
    }
}

/// Locks a file. Tries several times, because [`is_in_use`] in another process briefly locks the file too.
fn lock_with_retries(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..10 {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
            outcome => return outcome,
        }
    }
    lock.try_lock()
}

/// Returns whether a process has the folder open for writing.
///
/// # Errors
/// If the folder can't be read.
pub fn is_in_use(path: &Path) -> io::Result<bool> {
    match File::open(path.join(LOCK)) {
        Ok(lock) => match lock.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
