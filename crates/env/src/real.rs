//! The machine as it is: files by positioned system calls, the system's clocks, the kernel's
//! randomness, and a pool of threads as wide as the cores we may use.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::FallocateFlags;
use rustix::rand::GetRandomFlags;

use crate::mapped;
use crate::traits::{Clock, Disk, Entropy, Env, File, Job, Lock, NoFile, Open, Parallel, Space};

impl Env {
    /// This machine. Fails only where the threads for parallel work cannot be started.
    pub fn real() -> io::Result<Env> {
        Ok(Env {
            disk: Arc::new(RealDisk),
            clock: Arc::new(RealClock::start()),
            entropy: Arc::new(RealEntropy),
            parallel: Arc::new(RealParallel::start()?),
        })
    }
}

struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(how != Open::Read).create_new(how == Open::Create);
        let file = open_file(&mut options, path)?;
        let end = file.metadata()?.len();
        Ok(Arc::new(RealFile { file, end: Mutex::new(end) }))
    }

    fn map(&self, path: &Path) -> io::Result<Bytes> {
        let file = open_file(fs::OpenOptions::new().read(true), path)?;
        // An empty range cannot be mapped.
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::new());
        }
        mapped::map(&file, path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        // What we store is nobody else's to read.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock()?;
        Ok(Box::new(RealLock { _file: file }))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Space {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            // What we may use, without root's reserve.
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }
}

/// Opens a file, and nothing else that has a name: to open a pipe would be to wait for who writes to it.
fn open_file(options: &mut fs::OpenOptions, path: &Path) -> io::Result<fs::File> {
    // The flag means nothing to files.
    let file = match options.custom_flags(libc::O_NONBLOCK).open(path) {
        // A socket.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(no_file()),
        opened => opened?,
    };
    let kind = file.metadata()?.file_type();
    match kind {
        kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        kind if kind.is_fifo() => Err(no_file()),
        _ => Ok(file),
    }
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, NoFile)
}

struct RealFile {
    file: fs::File,
    /// Where the next append goes: the length as far as this handle knows. A failed append
    /// leaves it, so that the next one covers what the failed one may have left behind. (Not
    /// `O_APPEND`: under it Linux ignores the offset of positioned writes.)
    end: Mutex<u64>,
}

impl File for RealFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut end = self.end.lock();
        self.file.write_all_at(bytes, *end)?;
        *end += bytes.len() as u64;
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        let mut end = self.end.lock();
        *end = (*end).max(offset + bytes.len() as u64);
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut end = self.end.lock();
        self.file.set_len(len)?;
        *end = len;
        Ok(())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        use rustix::io::Errno;
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, len) {
            // File systems without extents cannot; the room is then taken as it is written.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The kernel gives the lock back when the last handle is closed, also after `kill -9`.
struct RealLock {
    _file: fs::File,
}

impl Lock for RealLock {}

pub(crate) struct RealClock {
    start: Instant,
}

impl RealClock {
    pub(crate) fn start() -> RealClock {
        RealClock { start: Instant::now() }
    }
}

impl Clock for RealClock {
    fn wall_ms(&self) -> i64 {
        // Before 1970 counts backwards: a broken clock must not stop the process.
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
        }
    }

    fn monotonic_ns(&self) -> u64 {
        // 2^64 ns are 584 years.
        self.start.elapsed().as_nanos() as u64
    }
}

pub(crate) struct RealEntropy;

impl Entropy for RealEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                // Every Linux since 3.17 has the call, and once the pool is filled it cannot
                // fail; going on with predictable bytes would be worse than stopping.
                Err(error) => panic!("the kernel gives no randomness: {error}"),
            }
        }
    }
}

pub(crate) struct RealParallel {
    pool: rayon::ThreadPool,
}

impl RealParallel {
    pub(crate) fn start() -> io::Result<RealParallel> {
        let width = std::thread::available_parallelism().map_or(1, usize::from);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(width)
            .thread_name(|index| format!("worker-{index}"))
            .build()
            .map_err(io::Error::other)?;
        Ok(RealParallel { pool })
    }
}

impl Parallel for RealParallel {
    fn width(&self) -> usize {
        self.pool.current_num_threads()
    }

    fn run<'a>(&self, mut jobs: Vec<Job<'a>>) {
        // One job has nobody to run beside: spare it the way to another thread.
        if jobs.len() == 1 {
            return jobs.remove(0)();
        }
        self.pool.in_place_scope(|scope| {
            for job in jobs {
                scope.spawn(move |_| job());
            }
        });
    }

    fn beside<'a>(&self, here: Job<'a>, away: Job<'a>) {
        self.pool.in_place_scope(|scope| {
            scope.spawn(move |_| away());
            here();
        });
    }
}
