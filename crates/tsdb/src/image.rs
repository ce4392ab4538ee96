//! Images on the disk: written so that a start has little to replay, and the log little to keep.
//!
//! ```text
//! head/series.image     the directory of series
//! head/shard-05.image   a shard
//! ```
//!
//! Each is replaced as a whole and names its own position in the log, so they need not agree:
//! the log is kept from the oldest of these positions on. Before an image is put in place the
//! log is durable up to that image's position, so that series which it names are defined there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tidewatch_env::{Env, Job, is_unreadable, replace_durably};
use tidewatch_storage::SelectError;
use tidewatch_wal::{Damage as Torn, OpenReport, Position, SEGMENT_HEADER_SIZE, segment_path};

use crate::block::UNREADABLE;
use crate::db::Db;
use crate::directory::{Directory, map, reads};
use crate::files::Files;
use crate::head::image::{
    HEADER_LEN, ImageError, ImageHeader, ImageKind, Remains, Section, VERSION, sections, visit_series,
};
use crate::head::registry::{Registry, SeriesId};
use crate::head::{Head, SHARDS};
use crate::jobs::JobError;
use crate::log::{Frame, read_frame};
use crate::options::OpenError;
use crate::recover::define;

const SERIES: &str = "series.image";

fn shard_name(shard: usize) -> String {
    format!("shard-{shard:02}.image")
}

/// Whether a file of the directory of images has the name of one.
pub(crate) fn is_image_name(name: &Path) -> bool {
    name == Path::new(SERIES) || (0..SHARDS).any(|shard| name == Path::new(&shard_name(shard)))
}

pub(crate) fn series_path(directory: &Directory) -> PathBuf {
    directory.head().join(SERIES)
}

pub(crate) fn shard_path(directory: &Directory, shard: usize) -> PathBuf {
    directory.head().join(shard_name(shard))
}

pub(crate) fn to_position((segment, offset): (u64, u64)) -> Position {
    Position { segment, offset }
}

impl Db {
    /// Whether the log has grown enough since the last images. They cost as many bytes as the
    /// head has, so the log may grow to their size: at most half of what is written is images. After a
    /// cut they are written in any case, as they have then what blocks have, too.
    pub(crate) fn image_due(&self, files: &Files) -> bool {
        let since = files.log.appended_bytes().saturating_sub(self.imaged_at.load(Ordering::Relaxed));
        self.images_stale.load(Ordering::Relaxed)
            || since > self.options.image_log_bytes.max(self.image_bytes.load(Ordering::Relaxed))
    }

    /// Sees to it that no start appends a batch once more that came during a recovery, when what it has goes from the
    /// head: it would meet neither its samples there nor those that it is in conflict with. The log has such a batch
    /// twice, as it came and as it was taken, and images make the first of these superfluous.
    pub(crate) fn settle_deferred(&self, files: &Files) -> Result<(), JobError> {
        match files.has_deferred.load(Ordering::Acquire) {
            true => self.write_images(files),
            false => Ok(()),
        }
    }

    /// Writes all images and removes the log that they make superfluous.
    pub(crate) fn write_images(&self, files: &Files) -> Result<(), JobError> {
        let directory = &files.directory;
        let (image, oldest) = {
            let series = self.head.directory.read();
            let position = files.log.wal.end();
            (series.registry.to_image((position.segment, position.offset), directory.owner), position)
        };
        // Behind the position from which the log is kept.
        self.metadata.log_all(&files.log)?;
        self.exemplars.log_all(&files.log)?;
        let appended = files.log.appended_bytes();
        let mut bytes = image.len();
        files.log.commit()?;
        put(&self.env, &series_path(directory), &image)?;
        for (at, shard) in self.head.shards.iter().enumerate() {
            if self.is_stopping() {
                return Err(JobError::Stopped);
            }
            let (image, placed) = {
                let shard = shard.lock();
                let position = files.log.wal.end();
                let image = shard.to_image(at, (position.segment, position.offset), directory.owner);
                shard.check_readable().map_err(SelectError::Damaged)?;
                image
            };
            bytes += image.len();
            files.log.commit()?;
            let path = shard_path(directory, at);
            put(&self.env, &path, &image)?;
            drop(image);
            shard.lock().imaged();
            if !placed.is_empty() {
                let file = self.env.disk.map(&path).map_err(OpenError::io(&path))?;
                shard.lock().relocate(file, &placed);
            }
        }
        // Each shard has an image of a time when no batch was deferred any more.
        files.has_deferred.store(false, Ordering::Release);
        self.imaged_at.store(appended, Ordering::Relaxed);
        self.images_stale.store(false, Ordering::Relaxed);
        self.image_bytes.store(bytes as u64, Ordering::Relaxed);
        files.log.wal.remove_before(oldest.segment).map_err(|error| OpenError::Log(error.to_string()))?;
        Ok(())
    }
}

fn put(env: &Env, path: &Path, image: &[u8]) -> Result<(), OpenError> {
    replace_durably(&*env.disk, path, image).map_err(OpenError::io(path))
}

const FOREIGN: &str = "the image is of another data directory: put the one of this directory back before a server starts, \
                       or go on without";

/// Images with their headers checked.
#[derive(Debug, Default)]
pub(crate) struct Images {
    series: Option<(ImageHeader, Bytes)>,
    shards: [Option<(ImageHeader, Bytes)>; SHARDS],
    /// Those of shards that are there and can not be used.
    unusable: [bool; SHARDS],
}

/// What is wrong with a file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    pub(crate) reason: String,
}

impl Flaw {
    fn new(path: PathBuf, reason: impl Into<String>) -> Flaw {
        Flaw { path, offset: 0, reason: reason.into() }
    }
}

impl Images {
    /// Opens what is there. An image whose header is damaged, and its copy, is set aside.
    pub(crate) fn open(env: &Env, directory: &Directory) -> Result<Images, OpenError> {
        let (images, flaws) = Images::read(env, &directory.head(), directory.owner)?;
        flaws
            .into_iter()
            .for_each(|Flaw { path, offset, reason }| directory.set_aside(&path, offset, reason));
        Ok(images)
    }

    /// Reads the headers of the images in `head`, and says of which files none can be used.
    pub(crate) fn read(env: &Env, head: &Path, owner: u64) -> Result<(Images, Vec<Flaw>), OpenError> {
        let mut flaws = Vec::new();
        let mut read = |name: &str, kind: ImageKind| {
            let image = read_image(env, head.join(name), kind, &mut flaws)?;
            Ok(image.filter(|(header, _)| {
                let is_foreign = header.is_foreign(owner);
                if is_foreign {
                    flaws.push(Flaw::new(head.join(name), FOREIGN));
                }
                !is_foreign
            }))
        };
        let mut images = Images { series: read(SERIES, ImageKind::Series)?, ..Images::default() };
        for (at, image) in images.shards.iter_mut().enumerate() {
            *image = read(&shard_name(at), ImageKind::Shard(at))?;
        }
        images.unusable =
            std::array::from_fn(|at| flaws.iter().any(|flaw| flaw.path == head.join(shard_name(at))));
        Ok((images, flaws))
    }

    /// The lowest number that a new segment may have: the log has to go on behind what images speak of. One of
    /// which they have nothing may not have been begun, and is not to be missed.
    pub(crate) fn segment_min(&self) -> u64 {
        let newest = self.newest_position();
        newest.segment + u64::from(newest.offset > SEGMENT_HEADER_SIZE as u64)
    }

    /// Up to where the log was durable once: an image is put in place when all before its position is.
    pub(crate) fn newest_position(&self) -> Position {
        self.positions().into_iter().fold(self.series_position(), Position::max)
    }

    /// From where a start needs the log.
    pub(crate) fn oldest_position(&self) -> Position {
        self.positions().into_iter().fold(self.series_position(), Position::min)
    }

    /// What is wrong with images and log as a whole: `opened` tells what there is of the log. What is damaged between
    /// its ends its reader names.
    pub(crate) fn flaws_beside(&self, env: &Env, root: &Path, opened: &OpenReport) -> Vec<Flaw> {
        let head = root.join("head");
        let missing = missing(env, &head, &opened.segments);
        missing.chain(self.flaw_at_end(&root.join("wal"), opened)).collect()
    }

    /// What the log lacks at its end. A reader finds the end of each segment in the next one, and of the newest here
    /// alone.
    fn flaw_at_end(&self, wal: &Path, opened: &OpenReport) -> Option<Flaw> {
        let durable = self.newest_position();
        let is_begun = durable.offset > SEGMENT_HEADER_SIZE as u64;
        if is_begun && opened.segments.last().is_none_or(|newest| *newest < durable.segment) {
            return Some(Flaw::new(segment_path(wal, durable.segment), "the segment is missing"));
        }
        // What can not be read its reader names, and what is before all images nobody needs.
        let end = opened.end.filter(|end| end.segment >= self.oldest_position().segment)?;
        let was_safe = (is_begun && end < durable)
            .then(|| format!("it was safe on the disk up to byte {}", durable.offset));
        let reason = match (&opened.torn, was_safe) {
            (None, None) => return None,
            (None | Some(Torn { len: 0, .. }), Some(was_safe)) => {
                format!("the segment is cut short: {was_safe}")
            }
            (Some(Torn { len, reason, .. }), Some(was_safe)) => {
                format!("the last {len} bytes of the segment are damaged ({reason}): {was_safe}")
            }
            (Some(Torn { len: 0, reason, .. }), None) => format!(
                "the log's end: {reason}. A crash leaves one like that which was just begun; if it had more, that is \
                 lost"
            ),
            (Some(Torn { len, reason, .. }), None) => format!(
                "the log's end: {len} bytes are no whole frame ({reason}). A crash leaves a write like that which was \
                 under way, and nobody was told that it was safe; if they were older, they are lost"
            ),
        };
        Some(Flaw { path: segment_path(wal, end.segment), offset: end.offset, reason })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().chain([&self.series]).flatten().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The position from which each shard needs the log.
    pub(crate) fn positions(&self) -> [Position; SHARDS] {
        std::array::from_fn(|at| self.shard_position(at).unwrap_or(Position::START))
    }

    /// Whether an image of a shard was written once that can not be had: they are written in order.
    pub(crate) fn lacks_shard(&self, at: usize) -> bool {
        let was_written = |at: usize| self.shards[at].is_some() || self.unusable[at];
        self.shards[at].is_none() && (at..SHARDS).any(was_written)
    }

    /// Up to where the image of a shard goes, if there is one.
    pub(crate) fn shard_position(&self, at: usize) -> Option<Position> {
        self.shards[at].as_ref().map(|(header, _)| to_position(header.position))
    }

    /// From where definitions are needed.
    pub(crate) fn series_position(&self) -> Position {
        self.series.as_ref().map_or(Position::START, |(header, _)| to_position(header.position))
    }

    /// The images that there are in `head`, with their paths.
    pub(crate) fn each(&self, head: &Path) -> impl Iterator<Item = (PathBuf, &ImageHeader, &Bytes)> {
        let names = [SERIES.to_owned()].into_iter().chain((0..SHARDS).map(shard_name));
        let images = [&self.series].into_iter().chain(&self.shards);
        names.zip(images).filter_map(move |(name, image)| {
            let (header, bytes) = image.as_ref()?;
            Some((head.join(name), header, bytes))
        })
    }

    /// Loads everything into an empty head, shards and series side by side.
    pub(crate) fn load(&self, env: &Env, directory: &Directory, head: &Head) -> Loaded {
        let mut loaded = Loaded::default();
        let Loaded { settled, series_lost, remains } = &mut loaded;
        let mut jobs: Vec<Job<'_>> = Vec::new();
        if let Some((header, bytes)) = &self.series {
            jobs.push(Box::new(move || {
                let path = series_path(directory);
                let bytes = readable(env, &path, bytes);
                let damage = |offset: u64, reason: &str| report(directory, &path, offset, reason);
                let registry = &mut head.directory.write().registry;
                match load_series(registry, header, &bytes, damage) {
                    true => {
                        *settled = Settled { next_id: header.next_id, position: to_position(header.position) }
                    }
                    false => *series_lost = true,
                }
                registry.skip_to(SeriesId(header.next_id));
            }));
        }
        for ((at, image), remains) in self.shards.iter().enumerate().zip(remains) {
            let Some((header, bytes)) = image else { continue };
            jobs.push(Box::new(move || {
                let path = shard_path(directory, at);
                let bytes = readable(env, &path, bytes);
                let damage = |offset: u64, reason: &str| report(directory, &path, offset, reason);
                *remains = head.shards[at].lock().load_image(at, header, &bytes, damage);
            }));
        }
        env.parallel.run(jobs);
        loaded
    }
}

/// What loading images has found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) settled: Settled,
    /// Whether the image of the series lacks some.
    pub(crate) series_lost: bool,
    /// Of the shards whose images lack something, what is whole.
    pub(crate) remains: [Option<Remains>; SHARDS],
}

/// Up to where it is sure which series there are, as nothing of the image of series is lost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settled {
    next_id: u32,
    position: Position,
}

impl Settled {
    /// Whether a series that is not known had left before the image was made. What it had is in blocks;
    /// images of shards that are older still have it.
    pub(crate) fn has_left(&self, id: SeriesId) -> bool {
        id.0 < self.next_id
    }

    /// Whether samples of a series that is not known, at a position of the log, are of one that left.
    pub(crate) fn had_left(&self, id: SeriesId, position: Position) -> bool {
        self.has_left(id) && position < self.position
    }
}

/// The images that are not in `head`, where that is damage: the log of these segments, ascending, is kept
/// from its beginning until all are there.
fn missing(env: &Env, head: &Path, segments: &[u64]) -> impl Iterator<Item = Flaw> {
    // The first segment of a log has the number after the start's.
    let is_trimmed = segments.first().is_some_and(|first| *first > Position::START.segment + 1);
    let names = (0..SHARDS).map(shard_name).chain([SERIES.to_owned()]).filter(move |_| is_trimmed);
    let gone = names.map(|name| head.join(name)).filter(|path| !env.disk.exists(path).unwrap_or(true));
    gone.map(|path| Flaw::new(path, "the image is missing, with what the log had before it"))
}

/// Reads series into a registry; `damage` gets what can not be read. Gives whether all could.
pub(crate) fn load_series(
    registry: &mut Registry,
    header: &ImageHeader,
    bytes: &Bytes,
    damage: impl FnMut(u64, &str),
) -> bool {
    if header.version >= 3 {
        return visit_series(bytes, header, registry, damage);
    }
    let visit = |section: Section| {
        if let Frame::Definitions(definitions) = read_frame(&section.body)? {
            define(registry, &definitions);
        }
        Ok(())
    };
    sections(bytes, header, visit, damage)
}

/// Names damage, and keeps the file: the next image takes its name.
fn report(directory: &Directory, path: &Path, offset: u64, reason: &str) {
    directory.report(path, offset, reason.to_owned());
    directory.keep_copy(path);
}

/// The bytes of a mapped file, all of them read; mapped anew where the disk failed. What it can not give then either
/// is zeros in a copy: of a mapping with a loss nothing may be made, and the next image takes runs from here.
pub(crate) fn readable(env: &Env, path: &Path, bytes: &Bytes) -> Bytes {
    if reads(bytes) {
        return bytes.clone();
    }
    let again = map(env, path, usize::MAX).unwrap_or_else(|_| bytes.clone());
    if reads(&again) { again } else { Bytes::copy_from_slice(&again) }
}

/// Reads the header of an image, if it is there and can be used.
fn read_image(
    env: &Env,
    path: PathBuf,
    kind: ImageKind,
    flaws: &mut Vec<Flaw>,
) -> Result<Option<(ImageHeader, Bytes)>, OpenError> {
    let bytes = match map(env, &path, HEADER_LEN) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is_unreadable(&error) => {
            flaws.push(Flaw::new(path, UNREADABLE));
            return Ok(None);
        }
        mapped => mapped.map_err(OpenError::io(&path))?,
    };
    let reason = match ImageHeader::find(&bytes) {
        Ok(header) if header.kind == kind => return Ok(Some((header, bytes))),
        Ok(_) => "the image is one of another part".to_owned(),
        Err(ImageError::Version(found)) => {
            return Err(OpenError::Version { path, found: found.into(), newest: VERSION.into() });
        }
        Err(ImageError::Header) => ImageError::Header.to_string(),
    };
    flaws.push(Flaw::new(path, reason));
    Ok(None)
}
