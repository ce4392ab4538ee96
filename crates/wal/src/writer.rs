//! The writing side: many append, one commits for all.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;
use parking_lot::Mutex;
use tidewatch_env::{Env, File, Open, create_dir_durably, is_no_file};

use crate::error::WalError;
use crate::format::{END_UNKNOWN, FRAME_BYTES_MAX, Position, SEGMENT_BYTES_MAX, SegmentHeader};
use crate::pending::{Batch, PENDING_BYTES_MAX, Pending};
use crate::reader::{self, Damage, End, Loaded};
use crate::segments::{self, Listing};

#[derive(Debug, Clone, Copy)]
pub struct WalOptions {
    /// When a segment is full; a larger frame gets one of its own. 16 MiB is a good size: few
    /// files, few bytes kept for the sake of one, and few to read before a log is open again.
    pub segment_bytes: u64,
    /// The lowest number a new segment may get. A caller who keeps a position elsewhere passes
    /// the number after its segment, so that positions stay ordered even if somebody emptied
    /// the directory.
    pub segment_min: u64,
    /// Whose log it is, as its segments say: a segment that says otherwise is damage. 0: nobody's in particular.
    pub owner: u64,
}

impl WalOptions {
    pub const SEGMENT_BYTES: u64 = 16 << 20;
}

impl Default for WalOptions {
    fn default() -> WalOptions {
        WalOptions { segment_bytes: WalOptions::SEGMENT_BYTES, segment_min: 1, owner: 0 }
    }
}

/// What was found when a log was opened.
#[derive(Debug, Clone)]
pub struct OpenReport {
    /// The segment that the first frame of this process goes to. A reader of what was there
    /// before stops in front of it.
    pub first_segment: u64,
    /// Segments that were there, ascending.
    pub segments: Vec<u64>,
    /// Where the frames of the newest segment end; `None` without one, or where some of it can not be read.
    pub end: Option<Position>,
    /// Bytes at the end of the newest segment that are no frame, or that it lacks of its header: a write that was
    /// under way when the power went, and never acknowledged, or damage to the very last frame.
    pub torn: Option<Damage>,
    /// The newest of these segments, unless some of it can not be read.
    pub newest: Option<Loaded>,
    /// Files in the directory that are no segments. They are left alone.
    pub foreign: Vec<PathBuf>,
}

impl OpenReport {
    /// What opening the log in `dir` would find, and nothing is changed. A directory that is not there is an empty one.
    pub fn look(env: &Env, dir: &Path, options: WalOptions) -> Result<OpenReport, WalError> {
        let listing = match env.disk.exists(dir).map_err(WalError::io(dir))? {
            true => segments::list(&*env.disk, dir)?,
            false => Listing::default(),
        };
        let newest = listing.numbers.last().copied();
        let End { offset, torn, loaded } = match newest {
            Some(number) => reader::find_end(env, dir, number, options.owner)?,
            None => End::default(),
        };
        Ok(OpenReport {
            first_segment: newest.map_or(1, |number| number + 1).max(options.segment_min),
            segments: listing.numbers,
            end: newest.zip(offset).map(|(segment, offset)| Position { segment, offset }),
            torn,
            newest: loaded,
            foreign: listing.foreign,
        })
    }

    /// For the header of the next segment, see [`SegmentHeader`].
    fn previous_end(&self) -> u64 {
        match self.end {
            Some(end) => end.offset,
            None if self.segments.is_empty() => 0,
            None => END_UNKNOWN,
        }
    }
}

/// An open log. All methods may be called from any thread.
pub struct Wal {
    env: Env,
    dir: PathBuf,
    segment_bytes: u64,
    /// Guards what is appended and not yet taken. Held for a copy, never for input or output.
    /// Taken after `writer` where both are needed.
    pending: Mutex<Pending>,
    /// Guards the files. Held while a commit writes and syncs, so that whoever comes second
    /// finds his frames committed by the first.
    writer: Mutex<Writer>,
    /// Guards what everybody may ask at any time: how far the log is durable and whether it
    /// takes more. Held for a copy.
    progress: Mutex<Progress>,
}

#[derive(Debug, Clone)]
struct Progress {
    durable: Position,
    /// Why nothing is accepted: a latch, or a full disk.
    refusal: Option<WalError>,
}

struct Writer {
    /// The segment that was written last, if this process wrote any.
    current: Option<Segment>,
    /// Numbers of the segments on the disk, ascending.
    segments: Vec<u64>,
    /// Taken from `pending`, not yet written.
    queue: VecDeque<Batch>,
    /// End of what was handed to the operating system.
    written: Position,
}

struct Segment {
    number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl Wal {
    /// Opens the log in `dir`, which is created where it is missing. What is there is left as
    /// it is; the first frame begins a new segment.
    pub fn open(env: &Env, dir: &Path, options: WalOptions) -> Result<(Wal, OpenReport), WalError> {
        assert!(options.segment_bytes <= SEGMENT_BYTES_MAX / 2, "readers refuse larger segments");
        create_dir_durably(&*env.disk, dir).map_err(WalError::io(dir))?;
        let report = OpenReport::look(env, dir, options)?;
        let refusal = settle(env, dir, &report.segments).err();
        let salt = env.entropy.next_u64() as u32;
        let pending = Pending::new(report.first_segment, report.previous_end(), salt, &options);
        let start = pending.next();
        let wal = Wal {
            env: env.clone(),
            dir: dir.to_owned(),
            segment_bytes: options.segment_bytes,
            pending: Mutex::new(pending),
            writer: Mutex::new(Writer {
                current: None,
                segments: report.segments.clone(),
                queue: VecDeque::new(),
                written: start,
            }),
            progress: Mutex::new(Progress { durable: start, refusal }),
        };
        Ok((wal, report))
    }

    /// Adds one frame made of `parts`, in memory. It is durable once [`durable`](Wal::durable)
    /// is greater than the position returned.
    pub fn append(&self, parts: &[&[u8]]) -> Result<Position, WalError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > FRAME_BYTES_MAX {
            return Err(WalError::TooLarge { len });
        }
        self.check_accepting()?;
        let mut body = Hasher::new();
        for part in parts {
            body.update(part);
        }
        let mut pending = self.pending.lock();
        if pending.bytes() + len > PENDING_BYTES_MAX {
            return Err(WalError::Backlog { pending_bytes: pending.bytes() });
        }
        if pending.needs_cut(len) {
            pending.cut(self.env.entropy.next_u64() as u32);
        }
        Ok(pending.push(parts, len as u32, body))
    }

    /// Writes and syncs everything that was appended before the call, by whomever. Returns how
    /// far the log is durable now. Of several threads that call at once, the first works for
    /// those whose frames were in memory by then, and the second for all the others.
    pub fn commit(&self) -> Result<Position, WalError> {
        let target = self.pending.lock().next();
        let mut writer = self.writer.lock();
        if self.durable() < target {
            self.write_queue(&mut writer)?;
            self.sync(&mut writer)?;
        }
        Ok(self.durable())
    }

    /// Hands everything that was appended to the operating system without a sync: it survives
    /// the end of the process, but not a power cut. For callers who chose that bargain.
    pub fn write(&self) -> Result<Position, WalError> {
        let mut writer = self.writer.lock();
        self.write_queue(&mut writer)?;
        Ok(writer.written)
    }

    /// Everything in front of this is durable.
    pub fn durable(&self) -> Position {
        self.progress.lock().durable
    }

    /// Where the next frame would go.
    pub fn end(&self) -> Position {
        self.pending.lock().next()
    }

    /// Lets the next frame begin a new segment, unless it does anyway. All later frames lie at
    /// or behind the position returned, all earlier ones in front of it.
    pub fn cut(&self) -> Position {
        let mut pending = self.pending.lock();
        pending.cut(self.env.entropy.next_u64() as u32);
        pending.next()
    }

    /// Removes the segments with numbers below `segment`. The newest on the disk stays in any
    /// case, so that numbers go on from it.
    pub fn remove_before(&self, segment: u64) -> Result<(), WalError> {
        let mut writer = self.writer.lock();
        let mut removed = false;
        while let [oldest, _, ..] = writer.segments[..]
            && oldest < segment
        {
            let path = segments::path(&self.dir, oldest);
            match self.env.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(WalError::io(path)(error));
                }
                _ => writer.segments.remove(0),
            };
            removed = true;
        }
        if removed {
            self.env.disk.sync_dir(&self.dir).map_err(WalError::io(&*self.dir))?;
        }
        Ok(())
    }

    /// Numbers of the segments on the disk, ascending.
    pub fn segments(&self) -> Vec<u64> {
        self.writer.lock().segments.clone()
    }

    fn check_accepting(&self) -> Result<(), WalError> {
        self.progress.lock().refusal.clone().map_or(Ok(()), Err)
    }

    /// Closes the log for writing. The first cause stays.
    fn latch(&self, path: &Path, source: io::Error) -> WalError {
        let error = WalError::Latched { path: path.to_owned(), source: Arc::new(source) };
        let mut progress = self.progress.lock();
        match &progress.refusal {
            Some(first @ WalError::Latched { .. }) => first.clone(),
            _ => progress.refusal.insert(error).clone(),
        }
    }

    /// What a failed write means: nothing was lost yet if there was no room.
    fn refuse(&self, path: &Path, source: io::Error) -> WalError {
        if !matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return self.latch(path, source);
        }
        let error = WalError::Full { path: path.to_owned(), source: Arc::new(source) };
        self.progress.lock().refusal.insert(error).clone()
    }

    /// Writes all that is queued and pending, each batch at its place. What found no room stays
    /// queued and goes to the same place the next time.
    fn write_queue(&self, writer: &mut Writer) -> Result<(), WalError> {
        if let Err(error @ WalError::Latched { .. }) = self.check_accepting() {
            return Err(error);
        }
        self.pending.lock().take(&mut writer.queue);
        while let Some(batch) = writer.queue.front() {
            let header = batch.segment_header();
            if writer.current.as_ref().is_none_or(|open| open.number != header.number) {
                self.begin_segment(writer, header)?;
            }
            let open = writer.current.as_ref().expect("begun above");
            let batch = writer.queue.front().expect("seen above");
            open.file
                .write_at(batch.start.offset, &batch.bytes)
                .map_err(|source| self.refuse(&open.path, source))?;
            writer.written = batch.end();
            let batch = writer.queue.pop_front().expect("seen above");
            self.pending.lock().recycle(batch);
        }
        // Room came back, if it had been missing.
        self.progress.lock().refusal = None;
        Ok(())
    }

    /// Finishes the current segment and makes the next one durable, empty but for its header.
    fn begin_segment(&self, writer: &mut Writer, header: SegmentHeader) -> Result<(), WalError> {
        self.sync(writer)?;
        if let Some(done) = writer.current.take() {
            release_reserve(&*done.file);
        }
        let number = header.number;
        let path = segments::path(&self.dir, number);
        let file = match self.env.disk.open(&path, Open::Create) {
            // Left by an attempt of ours that found no room; numbers are never used twice.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.env.disk.open(&path, Open::Write)
            }
            other => other,
        };
        let file = file.map_err(|source| self.refuse(&path, source))?;
        // Blocks side by side, and no search for room at each commit. Where the file system
        // has not that much, the frames may still fit.
        let _ = file.reserve(self.segment_bytes);
        file.write_at(0, &header.encode()).map_err(|source| self.refuse(&path, source))?;
        self.env.disk.sync_dir(&self.dir).map_err(|source| self.latch(&self.dir, source))?;
        assert!(writer.segments.last().is_none_or(|last| *last < number), "numbers ascend");
        writer.segments.push(number);
        writer.current = Some(Segment { number, path, file });
        Ok(())
    }

    /// Makes everything written so far durable.
    fn sync(&self, writer: &mut Writer) -> Result<(), WalError> {
        if let Some(open) = &writer.current
            && self.durable() < writer.written
        {
            open.file.sync().map_err(|source| self.latch(&open.path, source))?;
            self.progress.lock().durable = writer.written;
        }
        Ok(())
    }
}

/// Makes the newest segment of an earlier process durable: a process that was killed may have
/// left frames that only the operating system has, and whoever replays them takes them for
/// safe. A failure closes the log for writing; it can still be read.
fn settle(env: &Env, dir: &Path, numbers: &[u64]) -> Result<(), WalError> {
    for number in numbers.iter().rev() {
        let path = segments::path(dir, *number);
        let settled = env.disk.open(&path, Open::Write).and_then(|file| {
            file.sync()?;
            release_reserve(&*file);
            env.disk.sync_dir(dir)
        });
        match settled {
            // What is no file is no segment: the newest is an older one.
            Err(source) if is_no_file(&source) => {}
            settled => return settled.map_err(|source| WalError::Latched { path, source: Arc::new(source) }),
        }
    }
    Ok(())
}

/// Gives back room behind the end of a file that will not grow. Cutting a file at its own
/// length changes nothing else, and if it fails, only the room is lost.
fn release_reserve(file: &dyn File) {
    let _ = file.len().and_then(|len| file.truncate(len));
}
