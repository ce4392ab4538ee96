//! What the outside can do for us.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

/// One environment: a real one, or one half of a simulation. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub parallel: Arc<dyn Parallel>,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Read only; must exist.
    Read,
    /// Read and write; must exist.
    Write,
    /// Read and write; must not exist yet.
    Create,
}

/// Files and directories. Paths are absolute, or relative to the process' directory.
pub trait Disk: Send + Sync {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;

    /// The whole file, mapped. The file must not be shortened while the map lives. Of a part that the
    /// disk can not give, zeros are read; [`unreadable`](crate::unreadable) tells.
    fn map(&self, path: &Path) -> io::Result<Bytes>;

    /// Replaces `to` atomically if it exists. Durable after `sync_dir` of the parent.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// A second name for the same file.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and its missing parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory, sorted, without the directory's own path.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Takes the exclusive lock of a directory by a file in it, for as long as the value lives;
    /// `WouldBlock` where another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// An open file. Writes are positioned by the caller or appended; both may be short only by error.
pub trait File: Send + Sync {
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes data and length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;

    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Reserves room without changing the length, where the file system can.
    fn reserve(&self, len: u64) -> io::Result<()>;
}

/// Why a pipe or a socket is not opened.
#[derive(Debug)]
pub(crate) struct NoFile;

impl std::error::Error for NoFile {}

impl std::fmt::Display for NoFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a pipe or a socket, and no file")
    }
}

/// Whether an error says that what has the name of a file can not be read, as the disk fails (`EIO`) or
/// as it [is no file](is_no_file), rather than that it is missing or not allowed.
pub fn is_unreadable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EIO) || is_no_file(error)
}

/// Whether an error says that what has the name of a file is none: a directory, a pipe or a socket.
pub fn is_no_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::IsADirectory || error.get_ref().is_some_and(|cause| cause.is::<NoFile>())
}

/// Held for as long as it lives.
pub trait Lock: Send + Sync {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch. May jump.
    fn wall_ms(&self) -> i64;

    /// Nanoseconds since some fixed moment of this process. Never goes back.
    fn monotonic_ns(&self) -> u64;
}

pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);

    fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// A piece of parallel work that may borrow from its caller.
pub type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs jobs side by side.
pub trait Parallel: Send + Sync {
    /// How many jobs run at once; 1 in a simulation.
    fn width(&self) -> usize;

    /// Runs all jobs to their end. A simulation runs them inline in a seeded order. A job's
    /// panic is passed on once all others are done.
    fn run<'a>(&self, jobs: Vec<Job<'a>>);

    /// Runs `here` on this thread and `away` beside it, both to their end. For work that waits for
    /// the disk: no core's worker is lost to the waiting.
    fn beside<'a>(&self, here: Job<'a>, away: Job<'a>) {
        self.run(vec![here, away]);
    }
}
