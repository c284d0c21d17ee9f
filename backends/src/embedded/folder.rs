//! The folder of the embedded stores: who may write it, and what must be in it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use votes::VoterSecret;

use crate::OpenError;

const LOCK: &str = "lock";
const SECRET: &str = "secret";
const SECRET_BYTES: usize = 32;

/// A folder, locked if this process may write it.
pub(super) struct Folder {
    path: PathBuf,
    lock: Option<File>,
}

impl Folder {
    /// Makes the folder if there is none, and locks it for this process.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        let error = |error: io::Error| OpenError::new(path.display(), error);
        fs::create_dir_all(path).map_err(error)?;
        let options = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK));
        let mut lock = options().map_err(error)?;
        match lock_patiently(&lock) {
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
        folder.check_log()?;
        Ok(folder)
    }

    /// A folder that is only read.
    pub(super) fn read(path: &Path) -> Result<Self, OpenError> {
        if !path.join("log.db").is_file() {
            return Err(OpenError::new(path.display(), "there are no Ovation stores in this folder (no log.db)"));
        }
        Ok(Self { path: path.to_owned(), lock: None })
    }

    /// The log holds the votes; without it the rest is no reason to begin anew.
    fn check_log(&self) -> Result<(), OpenError> {
        if self.path.join("log.db").exists() {
            return Ok(());
        }
        match ["log.db-wal", "count.db", SECRET].into_iter().find(|file| self.path.join(file).exists()) {
            Some(file) => Err(OpenError::new(
                self.path.display(),
                format!("log.db is missing though {file} is there; restore it, or begin in an empty folder"),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the folder locked as long as the file lives.
    pub(super) fn lock_file(&self) -> Result<Option<File>, OpenError> {
        self.lock.as_ref().map(File::try_clone).transpose().map_err(|error| OpenError::new(self.path.display(), error))
    }

    /// The secret under which voters are hashed; made if the log is new. With another secret every voter would have
    /// another vote, so for a log that has votes it must be there.
    pub(super) fn secret(&self, may_be_made: bool) -> Result<VoterSecret, OpenError> {
        let path = self.path.join(SECRET);
        let error = |problem: &dyn std::fmt::Display| OpenError::new(path.display(), problem);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound && may_be_made => self.make_secret(&path)?,
            Err(problem) => return Err(error(&format!("the voters' secret can't be read: {problem}; restore it"))),
        };
        VoterSecret::new(&bytes).map_err(|problem| error(&problem))
    }

    fn make_secret(&self, path: &Path) -> Result<Vec<u8>, OpenError> {
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

/// Tries for a while: whoever asks [`is_in_use`] holds the lock for an instant.
fn lock_patiently(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..10 {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
            outcome => return outcome,
        }
    }
    lock.try_lock()
}

/// Whether some process has the folder open for writing.
///
/// # Errors
/// If the folder can't be read.
pub(crate) fn is_in_use(path: &Path) -> io::Result<bool> {
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
