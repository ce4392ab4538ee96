//! The journal itself: append, commit, maintain, open.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tidewatch_env::{Env, create_dir_durably};
use tidewatch_wal::{Damage, Item, Position, Reader, Wal, WalError, WalOptions};

use crate::codec::{self, DecodeError};
use crate::error::JournalError;
use crate::record::{Key, Record};
use crate::state::{Findings, JournalState, Mirror};

/// About how many bytes of a snapshot go into one frame: what one damaged frame can cost, and
/// how long appends wait for a part of a snapshot.
const SNAPSHOT_FRAME_BYTES: usize = 16 << 10;

/// About how many bytes go into one frame of [`Journal::append_all`]: far less than a frame may have, and
/// far more than one evaluation mostly leaves behind.
const FRAME_BYTES: usize = 4 << 20;

/// How many segments may pile up by restarts before a snapshot replaces them.
const SEGMENT_COUNT_MAX: usize = 8;

/// Where files with damage go before their segment is removed.
const SET_ASIDE: &str = "damaged";

#[derive(Debug, Clone, Copy)]
pub struct JournalOptions {
    /// How many bytes the log grows before [`Journal::maintain`] writes a snapshot; twice the
    /// last snapshot where that is more, so that snapshots cost at most half of all writing.
    pub log_bytes: u64,
    pub wal: WalOptions,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        let wal = WalOptions { segment_bytes: 4 << 20, ..WalOptions::default() };
        JournalOptions { log_bytes: 4 << 20, wal }
    }
}

/// An open journal. All methods may be called from any thread.
pub struct Journal {
    wal: Wal,
    options: JournalOptions,
    /// Guards the order: records come to the log and to the mirror in the same. Held for
    /// encoding and copying, never for input or output.
    inner: Mutex<Inner>,
    /// Held by who writes a snapshot.
    maintenance: Mutex<()>,
}

struct Inner {
    /// What the log would give back.
    mirror: Mirror,
    /// Bytes appended since the last snapshot, and the size of that.
    grown_bytes: u64,
    snapshot_bytes: u64,
    /// A frame being built, kept for its memory.
    frame: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `dir`, which is created where it is missing, with all it holds.
    pub fn open(env: &Env, dir: &Path) -> Result<(Journal, JournalState), JournalError> {
        Journal::open_with(env, dir, JournalOptions::default())
    }

    pub fn open_with(
        env: &Env,
        dir: &Path,
        options: JournalOptions,
    ) -> Result<(Journal, JournalState), JournalError> {
        let (wal, report) = Wal::open(env, dir, options.wal)?;
        let mut reader = Reader::open(env, dir, Position::START)?.until(report.first_segment);
        let replayed = replay(&mut reader, dir)?;
        set_aside(env, dir, &replayed.damage);
        let mut foreign = report.foreign;
        foreign.retain(|path| *path != dir.join(SET_ASIDE));
        let findings = Findings { damage: replayed.damage, torn: report.torn, foreign };
        let state = replayed.mirror.to_state(findings);
        let inner = Inner {
            mirror: replayed.mirror,
            grown_bytes: replayed.bytes,
            snapshot_bytes: 0,
            frame: Vec::new(),
        };
        Ok((Journal { wal, options, inner: Mutex::new(inner), maintenance: Mutex::new(()) }, state))
    }

    /// Adds records as one frame, in memory: after a crash all of them are there or none. They
    /// are durable once [`durable`](Journal::durable) is greater than the position returned.
    pub fn append(&self, records: &[Record]) -> Result<Position, JournalError> {
        let mut inner = self.inner.lock();
        let position = inner.append(&self.wal, records)?;
        for record in records {
            inner.mirror.apply(record.clone());
        }
        Ok(position)
    }

    /// Adds records in their order: as one frame, or as several where they are too much for one. Tries
    /// again behind a commit where the log has no room. Takes as many as it can.
    pub fn append_all(&self, records: Vec<Record>) -> Taken {
        let mut taken = Taken { rest: records.into(), too_large: 0, error: None };
        while !taken.rest.is_empty() {
            let part = frame_of(&mut taken.rest);
            let retry = |error: JournalError| match error.may_pass() {
                true => self.commit().and_then(|_| self.append(&part)),
                false => Err(error),
            };
            match self.append(&part).or_else(retry) {
                Ok(_) => {}
                Err(JournalError::Log(WalError::TooLarge { .. })) if part.len() == 1 => taken.too_large += 1,
                Err(error) => {
                    part.into_iter().rev().for_each(|record| taken.rest.push_front(record));
                    taken.error = Some(error);
                    break;
                }
            }
        }
        taken
    }

    /// Whether the log would give back something under this key.
    pub(crate) fn knows(&self, key: &Key) -> bool {
        self.inner.lock().mirror.has(key)
    }

    /// Makes everything durable that was appended before the call.
    pub fn commit(&self) -> Result<Position, JournalError> {
        Ok(self.wal.commit()?)
    }

    /// Everything in front of this is durable.
    pub fn durable(&self) -> Position {
        self.wal.durable()
    }

    /// What all records say that were appended so far, durable or not.
    pub fn state(&self) -> JournalState {
        self.inner.lock().mirror.to_state(Findings::default())
    }

    /// Replaces the log by a snapshot if it has grown enough. Returns whether it did. Appends
    /// go on meanwhile.
    pub fn maintain(&self) -> Result<bool, JournalError> {
        let _alone = self.maintenance.lock();
        let many = self.wal.segments().len() > SEGMENT_COUNT_MAX;
        let grown = {
            let inner = self.inner.lock();
            inner.grown_bytes >= self.options.log_bytes.max(2 * inner.snapshot_bytes)
        };
        if !grown && !many {
            return Ok(false);
        }
        // Everything durable first, so that a full disk is met before anything is begun.
        self.wal.commit()?;
        let grown_bytes = std::mem::take(&mut self.inner.lock().grown_bytes);
        let outcome = self.write_snapshot();
        if outcome.is_err() {
            self.inner.lock().grown_bytes += grown_bytes;
        }
        outcome.map(|()| true)
    }

    /// Writes every record that counts once more, from a new segment on, and removes the
    /// segments before it. A record is copied under the lock as it is at that moment, so what
    /// is appended meanwhile lies behind its older copy, never in front of a newer one. A
    /// snapshot that a crash cuts short does no harm: the segments before it are still there.
    fn write_snapshot(&self) -> Result<(), JournalError> {
        let cut = self.wal.cut();
        let mut last = None;
        let mut bytes = 0;
        loop {
            let mut inner = self.inner.lock();
            let (records, until) = inner.next_part(last.as_ref());
            if records.is_empty() {
                inner.snapshot_bytes = bytes;
                break;
            }
            match inner.append(&self.wal, &records) {
                Ok(_) => {
                    bytes += inner.frame.len() as u64;
                    inner.grown_bytes -= inner.frame.len() as u64;
                    last = until;
                }
                // Memory holds only so much that is not written.
                Err(WalError::Backlog { .. }) => {
                    drop(inner);
                    self.wal.commit()?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.wal.commit()?;
        self.wal.remove_before(cut.segment)?;
        Ok(())
    }
}

impl Inner {
    fn append(&mut self, wal: &Wal, records: &[Record]) -> Result<Position, WalError> {
        self.frame.clear();
        codec::encode_frame(records, &mut self.frame);
        let position = wal.append(&[&self.frame])?;
        self.grown_bytes += self.frame.len() as u64;
        Ok(position)
    }

    /// The next records of a snapshot behind the key `last`, and the key of the last of them.
    fn next_part(&self, last: Option<&Key>) -> (Vec<Record>, Option<Key>) {
        let mut size = 0;
        let mut part = Vec::new();
        let mut until = None;
        for (key, record) in self.mirror.records_after(last) {
            if size >= SNAPSHOT_FRAME_BYTES {
                break;
            }
            size += codec::size_hint(record);
            part.push(record.clone());
            until = Some(key.clone());
        }
        (part, until)
    }
}

/// What became of [`Journal::append_all`].
#[derive(Debug)]
pub struct Taken {
    /// What was not taken, and why.
    pub rest: VecDeque<Record>,
    pub error: Option<JournalError>,
    /// Records that no frame can hold. They are dropped.
    pub too_large: usize,
}

/// Takes the records of the next frame: at least one.
fn frame_of(records: &mut VecDeque<Record>) -> Vec<Record> {
    let mut size = 0;
    let fits = |record: &&Record| {
        let is_first = size == 0;
        size += codec::size_hint(record);
        is_first || size <= FRAME_BYTES
    };
    let count = records.iter().take_while(fits).count();
    records.drain(..count).collect()
}

struct Replayed {
    mirror: Mirror,
    damage: Vec<Damage>,
    bytes: u64,
}

fn replay(reader: &mut Reader, dir: &Path) -> Result<Replayed, JournalError> {
    let mut replayed = Replayed { mirror: Mirror::default(), damage: Vec::new(), bytes: 0 };
    while let Some(item) = reader.read()? {
        let frame = match item {
            Item::Frame(frame) => frame,
            Item::Damage(damage) => {
                replayed.damage.push(damage);
                continue;
            }
        };
        replayed.bytes += frame.bytes.len() as u64;
        let path = || tidewatch_wal::segment_path(dir, frame.position.segment);
        match codec::decode_frame(&frame.bytes) {
            Ok(records) => records.into_iter().for_each(|record| replayed.mirror.apply(record)),
            Err(DecodeError::Version(found)) => {
                return Err(JournalError::Version { path: path(), found, newest: codec::VERSION });
            }
            Err(DecodeError::Malformed | DecodeError::Kind(_)) => replayed.damage.push(Damage {
                path: path(),
                offset: frame.position.offset,
                len: frame.end.offset - frame.position.offset,
                reason: "the frame holds no records that this release knows",
            }),
        }
    }
    Ok(replayed)
}

/// Gives each damaged file a second name that no snapshot removes, for whoever wants to look.
/// Where that fails, nothing else depends on it.
fn set_aside(env: &Env, dir: &Path, damage: &[Damage]) {
    let aside = dir.join(SET_ASIDE);
    let mut paths: Vec<&PathBuf> = damage.iter().map(|damage| &damage.path).collect();
    paths.dedup();
    for path in paths {
        let Some(name) = path.file_name() else { continue };
        let _ = create_dir_durably(&*env.disk, &aside)
            .and_then(|()| env.disk.link(path, &aside.join(name)))
            .and_then(|()| env.disk.sync_dir(&aside));
    }
}
