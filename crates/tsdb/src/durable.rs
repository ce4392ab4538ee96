//! The head's frames on their way into the log, and how far they are durable.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidewatch_env::Env;
use tidewatch_storage::{AppendError, Ticket};
use tidewatch_wal::{OpenReport, Position, Wal, WalError, WalOptions};

use crate::head::append::FrameLog;
use crate::split::{log_each, split};

/// The log of a database on disk.
pub(crate) struct DurableLog {
    pub(crate) wal: Wal,
    /// Frames whose samples the head has and the log refused: the disk was full. They go in
    /// before anything else does, so that the log has every sample that the head has, in order.
    stuck: Mutex<VecDeque<Vec<u8>>>,
    /// Why the newest commit failed, if it did.
    refusal: Mutex<Option<String>>,
    commits: AtomicU64,
    /// Bytes of frames that were appended, and of those that were replayed at the start.
    appended_bytes: AtomicU64,
}

const FULL: &str = "the log has no room on its disk";

/// A frame at `position` is durable when the log is beyond it.
fn ticket_of(position: Position) -> Ticket {
    Ticket(ticket_at(position).0 + 1)
}

/// The ticket that is reached when the log is durable up to `position`.
fn ticket_at(position: Position) -> Ticket {
    assert!(position.offset < 1 << 32, "a segment is below 4 GiB");
    Ticket(position.segment << 32 | position.offset)
}

pub(crate) fn read_only(error: &WalError) -> AppendError {
    AppendError::ReadOnly { reason: error.to_string() }
}

impl DurableLog {
    pub(crate) fn open(
        env: &Env,
        dir: &Path,
        options: WalOptions,
    ) -> Result<(DurableLog, OpenReport), WalError> {
        let (wal, report) = Wal::open(env, dir, options)?;
        let log = DurableLog {
            wal,
            stuck: Mutex::default(),
            refusal: Mutex::default(),
            commits: AtomicU64::new(0),
            appended_bytes: AtomicU64::new(0),
        };
        Ok((log, report))
    }

    /// Why nothing is accepted, if that is so; asked before samples reach the head.
    pub(crate) fn refusal(&self) -> Option<String> {
        let stuck = || (!self.stuck.lock().is_empty()).then(|| FULL.to_owned());
        // Not held while the other lock is taken: who holds that one commits, which takes this one.
        let refusal = self.refusal.lock().clone();
        refusal.or_else(stuck)
    }

    /// Everything that was appended up to now is durable when this ticket is.
    pub(crate) fn end(&self) -> Ticket {
        ticket_at(self.wal.end())
    }

    pub(crate) fn durable(&self) -> Ticket {
        ticket_at(self.wal.durable())
    }

    /// Writes and syncs all that was appended.
    pub(crate) fn commit(&self) -> Result<Ticket, AppendError> {
        let position = self.commit_once()?;
        if self.stuck.lock().is_empty() {
            return Ok(ticket_at(position));
        }
        // There is room again: what was stuck goes first.
        let mut stuck = self.stuck.lock();
        while let Some(frame) = stuck.front() {
            self.push(frame)?;
            stuck.pop_front();
        }
        drop(stuck);
        self.commit_once().map(ticket_at)
    }

    fn commit_once(&self) -> Result<Position, AppendError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let result = self.wal.commit();
        *self.refusal.lock() = result.as_ref().err().map(WalError::to_string);
        result.map_err(|error| read_only(&error))
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Bytes that went to the log, those that a start would replay at first among them.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn count_replayed(&self, bytes: u64) {
        self.appended_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Appends a frame; where too much waits to be written, writes it first.
    fn push(&self, frame: &[u8]) -> Result<Position, AppendError> {
        self.appended_bytes.fetch_add(frame.len() as u64, Ordering::Relaxed);
        match self.wal.append(&[frame]) {
            Err(WalError::Backlog { .. }) => {
                self.commit_once()?;
                self.wal.append(&[frame]).map_err(|error| read_only(&error))
            }
            result => result.map_err(|error| read_only(&error)),
        }
    }
}

/// The log for what is in it already in another form, and acknowledged: what it refuses now it has the sooner or later,
/// before anything else, so the head may have it.
pub(crate) struct Owing<'a>(pub(crate) &'a DurableLog);

impl FrameLog for Owing<'_> {
    fn append(&self, frame: &[u8]) -> Result<Ticket, AppendError> {
        Ok(self.0.append(frame).unwrap_or_else(|_| self.0.end()))
    }
}

impl FrameLog for DurableLog {
    fn append(&self, frame: &[u8]) -> Result<Ticket, AppendError> {
        let mut stuck = self.stuck.lock();
        let Some(parts) = split(frame) else { return self.append_one(&mut stuck, frame) };
        log_each(parts, |(_, part)| self.append_one(&mut stuck, &part))
    }
}

impl DurableLog {
    fn append_one(&self, stuck: &mut VecDeque<Vec<u8>>, frame: &[u8]) -> Result<Ticket, AppendError> {
        if stuck.is_empty() {
            let result = self.push(frame);
            if let Ok(position) = result {
                return Ok(ticket_of(position));
            }
            stuck.push_back(frame.to_vec());
            result.map(ticket_of)
        } else {
            // A request that was under way when the log began to refuse: behind the others.
            stuck.push_back(frame.to_vec());
            Err(AppendError::ReadOnly { reason: FULL.to_owned() })
        }
    }
}
