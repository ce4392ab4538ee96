//! The files of an open database: its directory, its log, and how much room the disk has.
//!
//! Not here: where things lie in the directory (`directory`), the log's bytes (`durable`, `log`).

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tidewatch_env::{Env, Open, Space};
use tidewatch_wal::{OpenReport, WalOptions};

use crate::directory::Directory;
use crate::durable::DurableLog;
use crate::image::{Flaw, Images};
use crate::options::OpenError;

/// What a database on disk has.
pub(crate) struct Files {
    pub(crate) directory: Directory,
    pub(crate) log: DurableLog,
    /// Whether the disk is so full that samples are refused.
    low_space: AtomicBool,
    /// Whether the log has batches that came during a recovery, behind the last images.
    pub(crate) has_deferred: AtomicBool,
    /// What the last process left, until recovery has it.
    left: Mutex<Option<Left>>,
    /// When the disk was last asked for its room, in monotonic milliseconds.
    watched_ms: AtomicU64,
}

/// Images, and what the log's directory held.
pub(crate) struct Left {
    pub(crate) images: Images,
    pub(crate) opened: OpenReport,
}

/// Room on the disk that samples leave alone, so that the log can be trimmed and alerts be
/// stored: a twentieth, but no more than this.
const RESERVE_BYTES_MAX: u64 = 256 << 20;

/// How often the room is looked at while samples come.
const WATCH_MS: u64 = 1000;

pub(crate) fn reserve_bytes(space: Space) -> u64 {
    (space.total_bytes / 20).min(RESERVE_BYTES_MAX)
}

/// What is said of a disk that is down to the reserve.
pub(crate) fn nearly_full(space: Option<Space>) -> String {
    let reserve = space.map_or(RESERVE_BYTES_MAX, reserve_bytes) >> 20;
    format!("the disk is nearly full: its last {reserve} MiB are a reserve; make room")
}

impl Files {
    /// Takes a directory and makes its log ready for appends. No sample is read yet.
    pub(crate) fn open(env: &Env, root: &Path, segment_bytes: u64) -> Result<Files, OpenError> {
        let directory = Directory::open(env, root)?;
        let images = Images::open(env, &directory)?;
        let wal = WalOptions { segment_bytes, segment_min: images.segment_min(), owner: directory.owner };
        let (log, opened) = DurableLog::open(env, &directory.wal(), wal)
            .map_err(|error| OpenError::Log(error.to_string()))?;
        for Flaw { path, offset, reason } in images.flaws_beside(env, root, &opened) {
            // One that was set aside just now was named.
            if !directory.has_damage(&path) {
                directory.report(&path, offset, reason);
            }
        }
        let files = Files {
            directory,
            log,
            low_space: AtomicBool::new(false),
            has_deferred: AtomicBool::new(false),
            left: Mutex::new(Some(Left { images, opened })),
            watched_ms: AtomicU64::new(0),
        };
        // Before the first batch comes: who is started again and again would eat the reserve.
        files.watch_space();
        Ok(files)
    }

    /// What the last process left, once.
    pub(crate) fn take_left(&self) -> Left {
        self.left.lock().take().expect("a database whose recovery failed is not used")
    }

    /// Looks whether there is room for samples.
    pub(crate) fn watch_space(&self) {
        let Some(space) = self.space() else { return };
        self.low_space.store(space.free_bytes < reserve_bytes(space), Ordering::Relaxed);
    }

    /// The same for who asks often: looks once a second, or again and again while there is none.
    pub(crate) fn watch_space_often(&self, now_ms: u64) {
        let due_ms = self.watched_ms.load(Ordering::Relaxed) + WATCH_MS;
        if now_ms >= due_ms || self.is_low() {
            self.watched_ms.store(now_ms, Ordering::Relaxed);
            self.watch_space();
        }
    }

    pub(crate) fn space(&self) -> Option<Space> {
        self.directory.env.disk.space(&self.directory.root).ok()
    }

    /// Bytes that there is room for beside the reserve. Where the disk does not say, there is room.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.space().map_or(u64::MAX, |space| space.free_bytes.saturating_sub(reserve_bytes(space)))
    }

    /// Whether the disk is down to the reserve.
    pub(crate) fn is_low(&self) -> bool {
        self.low_space.load(Ordering::Relaxed)
    }

    /// Why samples are refused, if they are.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.log.refusal().or_else(|| self.is_low().then(|| nearly_full(self.space())))
    }

    /// Bytes of the log's files, as far as they can be asked.
    pub(crate) fn log_bytes(&self) -> u64 {
        let directory = &self.directory;
        let size = |number| directory.env.disk.open(&directory.segment(number), Open::Read)?.len();
        self.log.wal.segments().into_iter().filter_map(|number| size(number).ok()).sum()
    }
}
