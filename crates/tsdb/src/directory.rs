//! The data directory: who has it, which format it has, where things lie, and where damaged
//! ones go.
//!
//! ```text
//! LOCK                 held by the process that has the directory
//! OWNER                see `owner`
//! FORMAT               "tidewatch-data 1\n"; of a newer format see `parse_format`
//! wal/00000017.wal     see `wal`
//! head/                images of the head, see `image`
//! blocks/00000017.block, and 00000017.tombstones where something of it is deleted
//! LIST                 which blocks there are, see `expected`
//! snapshots/           see `snapshot`
//! damaged/             what could not be read, under its old name, for a person to look at
//! ```
//!
//! A file is written beside its name, with `.tmp` behind it, and renamed when it is durable. What a crash leaves of
//! that goes when the directory is opened next.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parking_lot::Mutex;
use tidewatch_env::{
    Env, Lock, Open, create_dir_durably, is_no_file, is_unreadable, parent_of, replace_durably, unreadable,
};
use tidewatch_wal::Loaded;

use crate::block::{block_path, is_block, parse_block_name, parse_tombstones_name, tombstones_path};
use crate::expected::{list_path, list_path_before};
use crate::head::image::{ImageError, ImageHeader};
use crate::image::is_image_name;
use crate::options::OpenError;
use crate::owner::{self, Looked, owner_path};
use crate::snapshot::is_snapshot_name;
use crate::status::Damage;

/// The format of the directory that this release writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// Damage that is remembered. More than a person reads; the files are in `damaged/` anyway.
const DAMAGE_MAX: usize = 100;

/// An open data directory.
pub(crate) struct Directory {
    pub(crate) env: Env,
    pub(crate) root: PathBuf,
    /// See `owner`.
    pub(crate) owner: u64,
    damage: Mutex<Found>,
    _lock: Box<dyn Lock>,
}

/// What was found damaged.
#[derive(Default)]
struct Found {
    /// The first pieces, and how many there were in all.
    first: Vec<Damage>,
    count: u64,
    /// The files of all of them.
    files: BTreeSet<PathBuf>,
}

impl Directory {
    /// Takes the directory, creating it where it is missing.
    pub(crate) fn open(env: &Env, root: &Path) -> Result<Directory, OpenError> {
        create_dir_durably(&*env.disk, root).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                let reason = "a file is in the way; name a directory for the data";
                OpenError::io(root)(io::Error::new(error.kind(), reason))
            }
            _ => OpenError::io(root)(error),
        })?;
        refuse_foreign(env, root)?;
        let lock_path = root.join("LOCK");
        let lock = env.disk.lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked { path: root.to_owned() },
            _ => OpenError::io(&lock_path)(error),
        })?;
        let mut directory = Directory {
            env: env.clone(),
            root: root.to_owned(),
            owner: 0,
            damage: Mutex::default(),
            _lock: lock,
        };
        directory.check_format()?;
        if lacks_log(env, root) {
            directory.report(&directory.wal(), 0, NO_LOG.to_owned());
        }
        if lacks_blocks(env, root) {
            directory.report(&directory.blocks(), 0, NO_BLOCKS.to_owned());
        }
        for name in ["wal", "head", "blocks"] {
            let path = directory.root.join(name);
            create_dir_durably(&*env.disk, &path).map_err(OpenError::io(&path))?;
        }
        directory.owner = directory.settle_owner();
        directory.remove_half_made();
        Ok(directory)
    }

    /// Removes what an earlier process was writing beside its name when it ended. Who writes the same name again replaces
    /// its own, but a number of a block or segment may not come again. Nobody reads these, so what the disk does not
    /// let go now goes at the next start.
    fn remove_half_made(&self) {
        let is_segment = |name: &Path| tidewatch_wal::segment_number(name).is_some();
        let disk = &self.env.disk;
        let remove = |path: PathBuf| drop(disk.remove(&path));
        self.half_made(self.wal(), is_segment).into_iter().for_each(remove);
        self.half_made(self.head(), is_image_name).into_iter().for_each(remove);
        self.half_made(self.blocks(), is_beside_blocks).into_iter().for_each(remove);
        let is_list = |name: &Path| list_path(Path::new("")) == name;
        self.half_made(self.root.clone(), is_list).into_iter().for_each(remove);
        let remove = |path: PathBuf| drop(disk.remove_dir_all(&path));
        self.half_made(self.snapshots(), is_snapshot_name).into_iter().for_each(remove);
    }

    /// What lies beside such names in a directory.
    fn half_made(&self, dir: PathBuf, is_ours: fn(&Path) -> bool) -> Vec<PathBuf> {
        let names = self.env.disk.list(&dir).unwrap_or_default().into_iter();
        let half_made = names.filter(|name| finished_name(name).is_some_and(is_ours));
        half_made.map(|name| dir.join(name)).collect()
    }

    fn check_format(&self) -> Result<(), OpenError> {
        let path = self.root.join("FORMAT");
        let exists = self.env.disk.exists(&path).map_err(OpenError::io(&path))?;
        match (has_format(&self.env, &self.root), exists) {
            (Ok(true), _) => return Ok(()),
            (Ok(false), _) => self.report(&path, 0, NO_FORMAT.to_owned()),
            (Err(_), false) => {}
            (Err(error), true) => return Err(error),
        }
        write_format(&self.env, &self.root).map_err(OpenError::io(&path))
    }

    /// Whose the files are; `OWNER` is written where it does not say so.
    fn settle_owner(&self) -> u64 {
        let Looked { owner, flaw } = owner::look(&self.env, &self.root);
        if let Some(reason) = flaw {
            self.report(&owner_path(&self.root), 0, reason.to_owned());
        }
        let write = |owner| owner::write(&self.env, &self.root, owner);
        match (owner, flaw) {
            (Some(owner), None) => owner,
            // Others say the same: it holds where it can not be written, too.
            (Some(owner), Some(_)) => {
                let _ = write(owner);
                owner
            }
            (None, _) => {
                let owner = self.env.entropy.next_u64().max(1);
                write(owner).map_or(0, |()| owner)
            }
        }
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// Writes the newest of these segments of the log anew.
    ///
    /// A process whose sync failed leaves frames that every reader sees and no disk has: the
    /// kernel takes its pages for clean, so another sync "succeeds" and writes nothing. Batches
    /// that are acknowledged from now on rely on the series that such frames define, so they
    /// have to be on the disk first. Older segments were synced before newer ones began.
    pub(crate) fn renew_segment(&self, segments: &[u64], loaded: Option<&Loaded>) -> Result<(), OpenError> {
        let Some(newest) = segments.last() else { return Ok(()) };
        let path = self.segment(*newest);
        let disk = &*self.env.disk;
        let loaded = loaded.filter(|loaded| loaded.number == *newest);
        let read = || read_whole(&self.env, &path).map(Bytes::from);
        let bytes = match loaded.map_or_else(read, |loaded| Ok(loaded.bytes.clone())) {
            Ok(bytes) => bytes,
            // What is no file is no segment: the newest is an older one.
            Err(error) if is_no_file(&error) => {
                return self.renew_segment(&segments[..segments.len() - 1], None);
            }
            // What can not be read is damage, which the reader of the log names and works around.
            Err(_) => return Ok(()),
        };
        match replace_durably(disk, &path, &bytes) {
            // Without room the old file stays; it may well be whole, and it must be readable.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(()),
            result => result.map_err(OpenError::io(&path)),
        }
    }

    pub(crate) fn segment(&self, number: u64) -> PathBuf {
        self.wal().join(format!("{number:08}.wal"))
    }

    pub(crate) fn head(&self) -> PathBuf {
        self.root.join("head")
    }

    pub(crate) fn blocks(&self) -> PathBuf {
        self.root.join("blocks")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Remembers damage for the status.
    pub(crate) fn report(&self, path: &Path, offset: u64, reason: String) {
        let found = &mut *self.damage.lock();
        found.count += 1;
        found.files.insert(path.to_owned());
        if found.first.len() < DAMAGE_MAX {
            found.first.push(Damage { path: path.display().to_string(), offset, reason });
        }
    }

    /// Whether something was found of a file.
    pub(crate) fn has_damage(&self, path: &Path) -> bool {
        self.damage.lock().files.contains(path)
    }

    /// Whether something was found of a file in a directory.
    pub(crate) fn has_damage_below(&self, dir: &Path) -> bool {
        self.damage.lock().files.iter().any(|path| path.starts_with(dir))
    }

    pub(crate) fn damage(&self) -> (Vec<Damage>, u64) {
        let found = self.damage.lock();
        (found.first.clone(), found.count)
    }

    /// Moves a damaged file out of the way, keeping it. Where even that fails it stays where it
    /// is; the next start finds it again.
    pub(crate) fn set_aside(&self, path: &Path, offset: u64, reason: String) {
        self.report(path, offset, reason);
        let _ = self.move_aside(path);
    }

    /// Moves a file to the damaged ones, if it is there.
    pub(crate) fn move_aside(&self, path: &Path) -> io::Result<()> {
        if !self.env.disk.exists(path)? {
            return Ok(());
        }
        self.keep(path, |from, to| self.env.disk.rename(from, to))
    }

    /// Gives a damaged file a second name under `damaged/`, so that it outlives its first, which is overwritten next.
    pub(crate) fn keep_copy_surely(&self, path: &Path) -> Result<(), OpenError> {
        self.keep(path, |from, to| self.env.disk.link(from, to)).map_err(OpenError::io(path))
    }

    /// The same, unless a file of that name and length is there.
    pub(crate) fn keep_copy_once(&self, path: &Path) -> Result<(), OpenError> {
        let len = |path: &Path| self.env.disk.open(path, Open::Read).and_then(|file| file.len()).ok();
        let kept = path.file_name().and_then(|name| len(&self.root.join("damaged").join(name)));
        if kept.is_some() && kept == len(path) { Ok(()) } else { self.keep_copy_surely(path) }
    }

    /// The same as far as the disk lets.
    pub(crate) fn keep_copy(&self, path: &Path) {
        let _ = self.keep_copy_once(path);
    }

    fn keep(&self, path: &Path, act: impl FnOnce(&Path, &Path) -> io::Result<()>) -> io::Result<()> {
        let disk = &*self.env.disk;
        let aside = self.root.join("damaged");
        create_dir_durably(disk, &aside)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut to = aside.join(&name);
        for n in 1.. {
            if !disk.exists(&to)? {
                break;
            }
            to = aside.join(format!("{name}.{n}"));
        }
        act(path, &to)?;
        disk.sync_dir(&aside)?;
        disk.sync_dir(parent_of(path))
    }
}

/// The name that a file would have got, where it ends as those do that are not whole yet: see
/// [`replace_durably`] and [`Writer`](crate::block::Writer).
fn finished_name(name: &Path) -> Option<&Path> {
    name.to_str()?.strip_suffix(".tmp").map(Path::new)
}

/// Whether a name is one that we give a file in the directory of blocks.
fn is_beside_blocks(name: &Path) -> bool {
    let dir = Path::new("");
    let is_block = parse_block_name(name).is_some_and(|id| block_path(dir, id) == name);
    let is_tombstones = || parse_tombstones_name(name).is_some_and(|id| tombstones_path(dir, id) == name);
    is_block || is_tombstones() || list_path_before(dir).file_name() == Some(name.as_os_str())
}

/// What may be in a directory that is not ours yet: what a first start leaves behind that ended
/// before `FORMAT` was durable, and what file systems put there themselves.
const NOBODYS: [&str; 3] = ["LOCK", "FORMAT.tmp", "lost+found"];

/// Refuses a directory with files of others, before anything is written there. `FORMAT` is
/// durable before anything else is created but the lock, so without it there are no data of ours.
fn refuse_foreign(env: &Env, root: &Path) -> Result<(), OpenError> {
    let mut paths = env.disk.list(root).map_err(OpenError::io(root))?;
    let is_format = |path: &PathBuf| path.file_name().is_some_and(|name| name == "FORMAT");
    if paths.iter().any(is_format) || has_our_files(env, root) {
        return Ok(());
    }
    paths.sort_unstable();
    let names = paths.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy());
    match names.into_iter().find(|name| !NOBODYS.contains(&&**name)) {
        Some(found) => Err(OpenError::Foreign { path: root.to_owned(), found: found.into_owned() }),
        None => Ok(()),
    }
}

/// Whether a directory has a file that only Tidewatch writes, with its header under its checksum: then
/// it is ours even if `FORMAT` is gone.
pub(crate) fn has_our_files(env: &Env, root: &Path) -> bool {
    let has = |dir: &str, is_ours: fn(&[u8]) -> bool| {
        let dir = root.join(dir);
        let names = env.disk.list(&dir).unwrap_or_default();
        names.iter().any(|name| read_small(env, &dir.join(name)).is_ok_and(|bytes| is_ours(&bytes)))
    };
    let is_image = |bytes: &[u8]| !matches!(ImageHeader::decode(bytes), Err(ImageError::Header));
    has("wal", tidewatch_wal::is_segment) || has("head", is_image) || has("blocks", is_block)
}

/// What is said of a directory that [`lacks_log`].
pub(crate) const NO_LOG: &str = "the directory of the log is missing, with all that was in the log alone: put it back from a copy \
                                 while no server has the data, or go on without";

/// Whether somebody removed the directory of the log: it is made before that of the images and before `OWNER`, and
/// stays. (A snapshot has none of these.)
pub(crate) fn lacks_log(env: &Env, root: &Path) -> bool {
    let is_there = |path: PathBuf, unless_known| env.disk.exists(&path).unwrap_or(unless_known);
    let is_older = is_there(root.join("head"), false) || is_there(owner_path(root), false);
    is_older && !is_there(root.join("wal"), true)
}

/// What is said of a directory that [`lacks_blocks`].
pub(crate) const NO_BLOCKS: &str = "the directory of blocks is missing, with all that was in blocks: put it back \
                                    from a copy while no server has the data, or go on without";

/// Whether somebody removed the directory of blocks and no list says what was in it: it is made before any image, any
/// segment of the log and `OWNER`, and stays. (A snapshot has none of these.)
pub(crate) fn lacks_blocks(env: &Env, root: &Path) -> bool {
    let has = |dir: &str, is_ours: fn(&Path) -> bool| {
        let names = env.disk.list(&root.join(dir)).unwrap_or_default();
        names.iter().any(|name| is_ours(name))
    };
    let is_segment = |name: &Path| tidewatch_wal::segment_number(name).is_some();
    let is_gone = |path: &Path| !env.disk.exists(path).unwrap_or(true);
    is_gone(&root.join("blocks"))
        && is_gone(&list_path(root))
        && (has("head", is_image_name) || has("wal", is_segment) || !is_gone(&owner_path(root)))
}

/// What is said of a directory that [`has_format`] finds to be ours without.
pub(crate) const NO_FORMAT: &str = "the file was missing or damaged, and a start writes it anew";

/// Whether `FORMAT` says that a directory is one of ours, of a format that this release reads. An error where other
/// files do not say so either.
pub(crate) fn has_format(env: &Env, root: &Path) -> Result<bool, OpenError> {
    let lacks = |error: &OpenError| match error {
        OpenError::NoFormat { .. } => true,
        OpenError::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    };
    match check_format(env, root) {
        Err(error) if lacks(&error) && has_our_files(env, root) => Ok(false),
        checked => checked.map(|()| true),
    }
}

/// Fails where nothing shows that a directory is ours: it has neither `FORMAT` nor a file that only Tidewatch writes.
pub fn check_ours(env: &Env, root: &Path) -> Result<(), OpenError> {
    let path = root.join("FORMAT");
    let has_format = match env.disk.exists(&path) {
        // A file has the name, or one on the way.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => false,
        exists => exists.map_err(OpenError::io(&path))?,
    };
    if has_format || has_our_files(env, root) {
        return Ok(());
    }
    Err(OpenError::NotOurs { path: root.to_owned() })
}

/// Fails where `FORMAT` does not say that a directory is one of ours, of a format that this release reads.
fn check_format(env: &Env, root: &Path) -> Result<(), OpenError> {
    let path = root.join("FORMAT");
    // A disk that fails is asked once more.
    let bytes = match read_small(env, &path).or_else(|_| read_small(env, &path)) {
        Err(error) if is_unreadable(&error) => Vec::new(),
        Err(error) => {
            check_ours(env, root)?;
            return Err(OpenError::io(&path)(error));
        }
        Ok(bytes) => bytes,
    };
    match parse_format(&bytes) {
        Some(found) if found > FORMAT => Err(OpenError::Version { path, found, newest: FORMAT }),
        Some(_) => Ok(()),
        None => Err(OpenError::NoFormat { path, expected: format!("tidewatch-data {FORMAT}") }),
    }
}

/// Makes a directory one of ours, of the format that this release writes.
pub(crate) fn write_format(env: &Env, root: &Path) -> io::Result<()> {
    replace_durably(&*env.disk, &root.join("FORMAT"), format_text().as_bytes())
}

fn format_text() -> String {
    format!("tidewatch-data {FORMAT}\n")
}

/// What `FORMAT` says: this format, or a newer one, which nobody may write over.
///
/// One changed bit must not make the directory one of a newer release, and it makes a 3, a 5 or a 9 of a 1. So
/// what is a bit away from the text of today is damaged, and whatever else names a newer format is believed. Newer
/// formats have a second line, `crc32` and the checksum of the first in eight hexadecimal digits, so none of them
/// is that close.
fn parse_format(bytes: &[u8]) -> Option<u32> {
    let text = format_text();
    if bytes == text.as_bytes() {
        return Some(FORMAT);
    }
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let number = std::str::from_utf8(line).ok()?.strip_prefix("tidewatch-data ")?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let found = number.parse().ok().filter(|found| is_number && *found > FORMAT);
    found.filter(|_| !is_a_bit_away(bytes, text.as_bytes()))
}

/// Whether bytes are others with one bit changed.
fn is_a_bit_away(bytes: &[u8], others: &[u8]) -> bool {
    let changed = bytes.iter().zip(others).map(|(byte, other)| (byte ^ other).count_ones());
    bytes.len() == others.len() && changed.sum::<u32>() == 1
}

/// All bytes of a file. Read and not mapped: a page that the disk can not give would end the process.
pub(crate) fn read_whole(env: &Env, path: &Path) -> io::Result<Vec<u8>> {
    let file = env.disk.open(path, Open::Read)?;
    let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    let count = file.read_at(0, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// The first bytes of a file that should be a line long.
pub(crate) fn read_small(env: &Env, path: &Path) -> io::Result<Vec<u8>> {
    let file = env.disk.open(path, Open::Read)?;
    let mut bytes = vec![0; 64];
    let len = file.read_at(0, &mut bytes)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Maps a file and reads its first `len` bytes. A disk that fails is asked once more, before what is there
/// is taken for lost and set aside.
pub(crate) fn map(env: &Env, path: &Path, len: usize) -> io::Result<Bytes> {
    match env.disk.map(path) {
        Err(error) if is_unreadable(&error) => env.disk.map(path),
        Ok(bytes) if !reads(&bytes[..len.min(bytes.len())]) => env.disk.map(path),
        mapped => mapped,
    }
}

/// Reads every page. Loading reads them anyway, so this costs a step for each.
pub(crate) fn reads(bytes: &[u8]) -> bool {
    const PAGE: usize = 4096;
    let sum = bytes.iter().step_by(PAGE).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    // The last page may begin behind the last step.
    std::hint::black_box(sum.wrapping_add(bytes.last().copied().unwrap_or(0)));
    unreadable(bytes).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that goes bad damages many blocks before an image is read, which then is written anew all the same.
    #[test]
    fn damage_is_known_of_every_file_and_told_of_the_first() {
        let directory = Directory::open(&Env::in_memory(), Path::new("/data")).expect("memory");
        let image = directory.head().join("series.image");
        (0..DAMAGE_MAX as u64).for_each(|at| directory.report(&directory.blocks(), at, String::new()));
        assert!(!directory.has_damage(&image) && !directory.has_damage_below(&directory.head()));
        directory.report(&image, 0, String::new());
        assert!(directory.has_damage(&image) && directory.has_damage_below(&directory.head()));
        let (told, count) = directory.damage();
        assert_eq!((told.len(), count), (DAMAGE_MAX, DAMAGE_MAX as u64 + 1));
    }
}
