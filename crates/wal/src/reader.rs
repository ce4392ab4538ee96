//! The reading side: every good frame from a position on, and what lies between them.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidewatch_env::{Disk, Env, File, Open};

use crate::error::WalError;
use crate::format::{
    END_UNKNOWN, HeaderCheck, Position, SEGMENT_BYTES_MAX, SEGMENT_HEADER_SIZE, SegmentHeader, VERSION,
};
use crate::scan::{Piece, Scan};
use crate::segments;

/// Where a disk fails to read, it is asked again in pieces of this size, to lose no more.
const RETRY_SIZE: usize = 4096;

const UNREADABLE: &str = "the disk cannot read this";

const FOREIGN: &str = "the segment is of another data directory: put the one of this directory back before a server starts, \
                       or go on without";

/// A frame as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub position: Position,
    /// Where the next frame of the segment begins.
    pub end: Position,
    /// A view of the segment in memory, which lives as long as any of its frames.
    pub bytes: Bytes,
}

/// Bytes that ought to be frames and are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    pub offset: u64,
    pub len: u64,
    pub reason: &'static str,
}

impl Damage {
    /// Where it begins, if the path is that of a segment.
    pub fn position(&self) -> Option<Position> {
        let segment = segments::number(Path::new(self.path.file_name()?))?;
        Some(Position { segment, offset: self.offset })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Frame(Frame),
    Damage(Damage),
}

/// Reads a log in order. Frames that are appended after it was opened may or may not be seen:
/// see [`until`](Reader::until).
pub struct Reader {
    env: Env,
    dir: PathBuf,
    /// Where to begin in the first segment that is read.
    from: Position,
    /// The first segment not to be read.
    until: u64,
    /// Segments on the disk at or behind `from`, ascending.
    numbers: Vec<u64>,
    /// How many of `numbers` were begun.
    begun: usize,
    current: Option<Current>,
    /// The number that has to come next; `None` where any may be the first.
    expected: Option<u64>,
    /// A segment that is in memory already.
    loaded: Option<Loaded>,
    /// See [`WalOptions::owner`](crate::WalOptions::owner).
    owner: u64,
}

/// A segment in memory: opening a log reads the newest one for its end, and who reads the log next
/// need not read it again.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub number: u64,
    pub bytes: Bytes,
}

/// The segment being walked.
struct Current {
    number: u64,
    path: PathBuf,
    scan: Scan,
    /// Ranges that the disk failed to read; zero in memory.
    unreadable: Vec<Range<usize>>,
    /// A tail without frames is the end of the log, not damage.
    is_last: bool,
    /// What to say when the walk is over: the file is shorter than it once was.
    missing_end: Option<Damage>,
}

impl Reader {
    /// Begins at `from`, which is [`Position::START`] or one that the log gave out.
    pub fn open(env: &Env, dir: &Path, from: Position) -> Result<Reader, WalError> {
        let mut numbers = segments::list(&*env.disk, dir)?.numbers;
        numbers.retain(|number| *number >= from.segment);
        let expected = (from != Position::START).then_some(from.segment);
        Ok(Reader {
            env: env.clone(),
            dir: dir.to_owned(),
            from,
            until: u64::MAX,
            numbers,
            begun: 0,
            current: None,
            expected,
            loaded: None,
            owner: 0,
        })
    }

    /// Believes no segment that says to be of the log of another owner.
    pub fn of(mut self, owner: u64) -> Reader {
        self.owner = owner;
        self
    }

    /// Does not read a segment again that is there.
    pub fn with(mut self, loaded: Option<Loaded>) -> Reader {
        self.loaded = loaded;
        self
    }

    /// Stops in front of this segment. A log that is written while its past is read passes
    /// [`OpenReport::first_segment`](crate::OpenReport::first_segment).
    pub fn until(mut self, segment: u64) -> Reader {
        self.until = segment;
        self
    }

    /// The next frame or damage; `None` at the end.
    pub fn read(&mut self) -> Result<Option<Item>, WalError> {
        loop {
            let item = match &mut self.current {
                Some(current) => match current.next() {
                    Some(item) => Some(item),
                    None => self.current.take().and_then(|done| done.missing_end).map(Item::Damage),
                },
                None => match self.numbers.get(self.begun).copied() {
                    Some(number) if number < self.until => self.begin(number)?.map(Item::Damage),
                    _ => return Ok(None),
                },
            };
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    /// Loads a segment, or says what is wrong with it as a whole.
    fn begin(&mut self, number: u64) -> Result<Option<Damage>, WalError> {
        let path = segments::path(&self.dir, number);
        if let Some(expected) = self.expected.replace(number)
            && expected < number
        {
            let path = segments::path(&self.dir, expected);
            return Ok(Some(Damage { path, offset: 0, len: 0, reason: "the segment is missing" }));
        }
        self.begun += 1;
        self.expected = number.checked_add(1);
        let (bytes, unreadable) = match self.loaded.take_if(|loaded| loaded.number == number) {
            Some(loaded) => (loaded.bytes, Vec::new()),
            None => match load(&*self.env.disk, &path, number, self.owner)? {
                Ok(loaded) => loaded,
                Err(damage) => return Ok(Some(damage)),
            },
        };
        let len = bytes.len() as u64;
        let next = self.numbers.get(self.begun).copied();
        let end = next.and_then(|next| self.end_before(next, number)).unwrap_or(len);
        let missing_end = (end > len).then(|| Damage {
            path: path.clone(),
            offset: len,
            len: end - len,
            reason: "the segment is cut short",
        });
        let offset = if number == self.from.segment { self.from.offset.min(len) as usize } else { 0 };
        let bytes = bytes.slice(..end.min(len) as usize);
        self.current = Some(Current {
            number,
            path,
            scan: Scan::new(number, bytes, offset),
            unreadable,
            is_last: next.is_none(),
            missing_end,
        });
        Ok(None)
    }

    /// Where `number` ended, if its successor `next` knows.
    fn end_before(&self, next: u64, number: u64) -> Option<u64> {
        if next.checked_sub(1) != Some(number) {
            return None;
        }
        let file = self.env.disk.open(&segments::path(&self.dir, next), Open::Read).ok()?;
        let mut bytes = [0; SEGMENT_HEADER_SIZE];
        let count = file.read_at(0, &mut bytes).ok()?;
        match SegmentHeader::check(&bytes[..count]) {
            HeaderCheck::Good(header) if header.number == next && !header.is_foreign(self.owner) => {
                Some(header.previous_end).filter(|end| *end != END_UNKNOWN)
            }
            _ => None,
        }
    }
}

impl Current {
    fn next(&mut self) -> Option<Item> {
        let position = |offset: usize| Position { segment: self.number, offset: offset as u64 };
        match self.scan.next()? {
            Piece::Frame { offset, body } => Some(Item::Frame(Frame {
                position: position(offset),
                end: position(body.end),
                bytes: self.scan.bytes().slice(body),
            })),
            Piece::Tail { range, .. } if self.is_last && !self.touches_unreadable(&range) => None,
            Piece::Gap { range, reason } | Piece::Tail { range, reason } => {
                let reason = if self.touches_unreadable(&range) { UNREADABLE } else { reason };
                Some(Item::Damage(damage(&self.path, &range, reason)))
            }
        }
    }

    fn touches_unreadable(&self, range: &Range<usize>) -> bool {
        self.unreadable.iter().any(|bad| bad.start < range.end && range.start < bad.end)
    }
}

fn damage(path: &Path, range: &Range<usize>, reason: &'static str) -> Damage {
    Damage { path: path.to_owned(), offset: range.start as u64, len: range.len() as u64, reason }
}

/// How the newest segment ends.
#[derive(Default)]
pub(crate) struct End {
    /// Where its frames do, for the header of the next; `None` where that is not known.
    pub(crate) offset: Option<u64>,
    /// What is behind.
    pub(crate) torn: Option<Damage>,
    pub(crate) loaded: Option<Loaded>,
}

pub(crate) fn find_end(env: &Env, dir: &Path, number: u64, owner: u64) -> Result<End, WalError> {
    let path = segments::path(dir, number);
    let bytes = match load(&*env.disk, &path, number, owner)? {
        Ok((bytes, unreadable)) if unreadable.is_empty() => bytes,
        // Every reader will name this damage; it is not a torn end.
        _ => return Ok(End::default()),
    };
    let loaded = Some(Loaded { number, bytes: bytes.clone() });
    let len = bytes.len() as u64;
    if len == 0 {
        let torn = Some(damage(&path, &(0..0), "the segment is empty"));
        return Ok(End { offset: Some(0), torn, loaded });
    }
    let mut scan = Scan::new(number, bytes, 0);
    while let Some(piece) = scan.next() {
        if let Piece::Tail { range, reason } = piece {
            let torn = Some(damage(&path, &range, reason));
            return Ok(End { offset: Some(range.start as u64), torn, loaded });
        }
    }
    Ok(End { offset: Some(len), torn: None, loaded })
}

/// The bytes of a segment, with zeros where the disk can not read them, and where that is.
type Readable = (Bytes, Vec<Range<usize>>);

/// Reads a segment, or says why it cannot be used as a whole. Read and not mapped: a disk that
/// fails to read a page of a map ends the process.
fn load(disk: &dyn Disk, path: &Path, number: u64, owner: u64) -> Result<Result<Readable, Damage>, WalError> {
    let whole = |len, reason| Ok(Err(Damage { path: path.to_owned(), offset: 0, len, reason }));
    let open = || disk.open(path, Open::Read).and_then(|file| file.len().map(|len| (file, len)));
    // A disk that fails is asked once more: what is taken for lost is given up.
    let (file, len) = match open().or_else(|_| open()) {
        Ok(opened) => opened,
        // The bytes are there and whole: someone has to grant access, nothing is to be set aside.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(WalError::io(path)(error));
        }
        Err(_) => return whole(0, UNREADABLE),
    };
    if len > SEGMENT_BYTES_MAX {
        return whole(len, "the file is larger than a segment can be");
    }
    let (bytes, unreadable) = read_all(&*file, len as usize);
    match SegmentHeader::check(&bytes) {
        HeaderCheck::Newer(found) => Err(WalError::Version { path: path.to_owned(), found, newest: VERSION }),
        HeaderCheck::Good(header) if header.number != number => {
            whole(len, "the file is another segment of the log")
        }
        HeaderCheck::Good(header) if header.is_foreign(owner) => whole(len, FOREIGN),
        _ => Ok(Ok((Bytes::from(bytes), unreadable))),
    }
}

/// The first `len` bytes of a file, with zeros where they cannot be read, and which those are.
fn read_all(file: &dyn File, len: usize) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut bytes = vec![0; len];
    let mut unreadable = Vec::new();
    if read_whole(file, 0, &mut bytes).is_err() {
        for (index, piece) in bytes.chunks_mut(RETRY_SIZE).enumerate() {
            let start = index * RETRY_SIZE;
            if read_whole(file, start as u64, piece).is_err() {
                piece.fill(0);
                unreadable.push(start..start + piece.len());
            }
        }
    }
    (bytes, unreadable)
}

fn read_whole(file: &dyn File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    match file.read_at(offset, buffer)? {
        count if count == buffer.len() => Ok(()),
        // Somebody shortened it since we asked for its length.
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
