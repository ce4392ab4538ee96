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

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tidewatch_env::{Env, Job, Open, is_unreadable, replace_durably};
use tidewatch_storage::SelectError;
use tidewatch_wal::{Position, SEGMENT_HEADER_SIZE, segment_path};

use crate::block::UNREADABLE;
use crate::db::Db;
use crate::directory::{Directory, map, reads};
use crate::files::Files;
use crate::head::image::{
    HEADER_LEN, ImageError, ImageHeader, ImageKind, Section, VERSION, sections, visit_series,
};
use crate::head::registry::SeriesId;
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

/// The images that are not in `head`, where that is damage: the log of these segments, ascending, is kept
/// from its beginning until all are there. What is lost is named with each.
pub(crate) fn missing(env: &Env, head: &Path, segments: &[u64]) -> Vec<(PathBuf, String)> {
    // The first segment of a log has the number after the start's.
    if segments.first().is_none_or(|first| *first <= Position::START.segment + 1) {
        return Vec::new();
    }
    let paths = (0..SHARDS).map(shard_name).chain([SERIES.to_owned()]).map(|name| head.join(name));
    let gone = paths.filter(|path| !env.disk.exists(path).unwrap_or(true));
    gone.map(|path| (path, "the image is missing, with what the log had before it".to_owned())).collect()
}

/// What a log lacks at its end, which was durable once up to this position. A segment that is behind it may
/// be there; the segments are given in ascending order.
pub(crate) fn missing_end(
    env: &Env,
    wal: &Path,
    end: Position,
    segments: &[u64],
) -> Option<(PathBuf, u64, &'static str)> {
    if end.offset <= SEGMENT_HEADER_SIZE as u64 {
        return None;
    }
    let path = segment_path(wal, end.segment);
    match segments.last().filter(|newest| **newest >= end.segment) {
        None => Some((path, 0, "the segment is missing")),
        Some(newest) if *newest == end.segment => {
            let len = env.disk.open(&path, Open::Read).and_then(|file| file.len()).ok()?;
            (len < end.offset).then_some((path, len, "the segment is cut short"))
        }
        Some(_) => None,
    }
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
            (series.registry.to_image((position.segment, position.offset)), position)
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
                let image = shard.to_image(at, (position.segment, position.offset));
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

/// Images of a start, with their headers checked.
#[derive(Debug, Default)]
pub(crate) struct Images {
    series: Option<(ImageHeader, Bytes)>,
    shards: [Option<(ImageHeader, Bytes)>; SHARDS],
}

impl Images {
    /// Opens what is there. An image whose header is damaged, and its copy, is set aside.
    pub(crate) fn open(env: &Env, directory: &Directory) -> Result<Images, OpenError> {
        let series = open_image(env, directory, &series_path(directory), ImageKind::Series)?;
        let mut images = Images { series, ..Images::default() };
        for (at, image) in images.shards.iter_mut().enumerate() {
            *image = open_image(env, directory, &shard_path(directory, at), ImageKind::Shard(at))?;
        }
        Ok(images)
    }

    /// The lowest number that a new segment may have: the log has to go on behind what images speak of. One of
    /// which they have nothing may not have been begun, and is not to be missed.
    pub(crate) fn segment_min(&self) -> u64 {
        let headers = self.shards.iter().chain([&self.series]).flatten();
        let newest = headers.map(|(header, _)| to_position(header.position)).max().unwrap_or(Position::START);
        newest.segment + u64::from(newest.offset > SEGMENT_HEADER_SIZE as u64)
    }

    /// Names the end of the log where it is missing: an image is put in place when all before its position is
    /// durable. A reader finds the end of each segment in the next one, and of the newest here alone.
    pub(crate) fn check_log(&self, directory: &Directory, segments: &[u64]) {
        for (path, lost) in missing(&directory.env, &directory.head(), segments) {
            // One that was set aside just now was named.
            if !directory.has_damage(&path) {
                directory.report(&path, 0, lost);
            }
        }
        let end = self.positions().into_iter().chain([self.series_position()]).max();
        let flaw = end.and_then(|end| missing_end(&directory.env, &directory.wal(), end, segments));
        flaw.into_iter()
            .for_each(|(path, offset, reason)| directory.report(&path, offset, reason.to_owned()));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().chain([&self.series]).flatten().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The position from which each shard needs the log.
    pub(crate) fn positions(&self) -> [Position; SHARDS] {
        self.shards
            .each_ref()
            .map(|image| image.as_ref().map_or(Position::START, |(header, _)| to_position(header.position)))
    }

    /// From where definitions are needed.
    pub(crate) fn series_position(&self) -> Position {
        self.series.as_ref().map_or(Position::START, |(header, _)| to_position(header.position))
    }

    /// Loads everything into an empty head, shards and series side by side.
    pub(crate) fn load(&self, env: &Env, directory: &Directory, head: &Head) -> Settled {
        let mut settled = Settled { next_id: 0, position: Position::START };
        let mut jobs: Vec<Job<'_>> = Vec::new();
        if let Some((header, bytes)) = &self.series {
            let settled = &mut settled;
            jobs.push(Box::new(move || {
                let bytes = readable(env, &series_path(directory), bytes);
                if load_series(directory, head, header, &bytes) {
                    *settled = Settled { next_id: header.next_id, position: to_position(header.position) };
                }
            }));
        }
        for (at, image) in self.shards.iter().enumerate() {
            let Some((header, bytes)) = image else { continue };
            jobs.push(Box::new(move || {
                let path = shard_path(directory, at);
                let bytes = readable(env, &path, bytes);
                let damage = |offset: u64, reason: &str| report(directory, &path, offset, reason);
                head.shards[at].lock().load_image(at, header, &bytes, damage);
            }));
        }
        env.parallel.run(jobs);
        settled
    }
}

/// Up to where it is sure which series there are, as nothing of the image of series is lost.
#[derive(Debug, Clone, Copy)]
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

/// Whether nothing of the image is lost.
fn load_series(directory: &Directory, head: &Head, header: &ImageHeader, bytes: &Bytes) -> bool {
    let path = series_path(directory);
    let damage = |offset: u64, reason: &str| report(directory, &path, offset, reason);
    let is_whole = if header.version < 3 {
        let visit = |section: Section| {
            if let Frame::Definitions(definitions) = read_frame(&section.body)? {
                define(head, &definitions);
            }
            Ok(())
        };
        sections(bytes, header, visit, damage)
    } else {
        visit_series(bytes, header, &mut head.directory.write().registry, damage)
    };
    head.directory.write().registry.skip_to(SeriesId(header.next_id));
    is_whole
}

/// Names damage, and keeps the file: the next image takes its name.
fn report(directory: &Directory, path: &Path, offset: u64, reason: &str) {
    directory.report(path, offset, reason.to_owned());
    directory.keep_copy(path);
}

/// The bytes of a mapped file, all of them read; mapped anew where the disk failed. What it can not give then either
/// is zeros in a copy: of a mapping with a loss nothing may be made, and the next image takes runs from here.
fn readable(env: &Env, path: &Path, bytes: &Bytes) -> Bytes {
    if reads(bytes) {
        return bytes.clone();
    }
    let again = map(env, path, usize::MAX).unwrap_or_else(|_| bytes.clone());
    if reads(&again) { again } else { Bytes::copy_from_slice(&again) }
}

fn open_image(
    env: &Env,
    directory: &Directory,
    path: &Path,
    kind: ImageKind,
) -> Result<Option<(ImageHeader, Bytes)>, OpenError> {
    if !env.disk.exists(path).map_err(OpenError::io(path))? {
        return Ok(None);
    }
    let bytes = match map(env, path, HEADER_LEN) {
        Err(error) if is_unreadable(&error) => {
            directory.set_aside(path, 0, UNREADABLE.to_owned());
            return Ok(None);
        }
        mapped => mapped.map_err(OpenError::io(path))?,
    };
    match ImageHeader::find(&bytes) {
        Ok(header) if header.kind == kind => Ok(Some((header, bytes))),
        Ok(_) => {
            directory.set_aside(path, 0, "the image is one of another part".to_owned());
            Ok(None)
        }
        Err(ImageError::Version(found)) => {
            Err(OpenError::Version { path: path.to_owned(), found: found.into(), newest: VERSION.into() })
        }
        Err(ImageError::Header) => {
            directory.set_aside(path, 0, ImageError::Header.to_string());
            Ok(None)
        }
    }
}
