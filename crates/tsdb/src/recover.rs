//! From the files to the head, after a start.
//!
//! ```text
//! images ──► shards, series      (state up to a position in the log)
//! log ─► frames ─┬─ definitions ─► series              in order
//!                ├─ samples, cuts, deletions ─► queue of a shard ─► shards, side by side
//!                └─ deferred batches ─► kept to the end, then appended like new ones
//! ```
//!
//! Invariants: the samples of one series reach its shard in the order of the log, so every
//! repeat and conflict is decided as it was before; memory stays below [`QUEUE_BYTES_MAX`] plus
//! the head itself; what names a series that nobody defined is counted, and the segment that
//! has it is kept under `damaged/`.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidewatch_env::{Env, Job};
use tidewatch_model::{Batch, RawLabels};
use tidewatch_wal::{Item, Position, Reader};

use crate::db::Db;
use crate::directory::Directory;
use crate::head::registry::{PairId, Registry, SeriesId};
use crate::head::shard::{Shard, Verdict};
use crate::head::{Head, SHARDS};
use crate::image::Images;
use crate::log::{Definitions, Frame, read_frame};

/// Bytes of frames that wait for their shards.
const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Samples that are older than this were taken once; the window was applied then.
const NO_WINDOW: i64 = i64::MAX;

/// What recovery found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) samples: u64,
    pub(crate) samples_set_aside: u64,
    /// Bytes of log that the next start would replay again.
    pub(crate) log_bytes: u64,
    /// Frames of deferred batches, in order.
    pub(crate) deferred: Vec<Vec<u8>>,
}

/// Frames of one shard, in the order of the log.
#[derive(Debug, Default)]
struct Queue {
    frames: Vec<(Position, Bytes)>,
}

/// What a shard's queue left over.
#[derive(Debug, Default)]
struct Replayed {
    samples: u64,
    set_aside: u64,
    /// Segments with samples that were set aside.
    segments: BTreeSet<u64>,
    newest_id: Option<SeriesId>,
}

/// Loads images and replays the log behind them into the head, up to segment `until`.
pub(crate) fn replay(
    db: &Db,
    directory: &Directory,
    images: &Images,
    until: u64,
) -> Result<Recovered, tidewatch_wal::WalError> {
    let (env, head) = (&db.env, &db.head);
    let mut recovered = Recovered::default();
    let mut queues: [Queue; SHARDS] = Default::default();
    let mut queued_bytes = 0;
    let mut newest_id = None;
    let mut kept = BTreeSet::new();
    images.load(env, directory, head);
    let from = &images.positions();
    let start = from.iter().copied().fold(images.series_position(), Position::min);
    // Shards have images only of times when no batch was deferred any more.
    let deferred_from = from.iter().copied().fold(Position::START, Position::max);
    let mut reader = Reader::open(env, &directory.wal(), start)?.until(until);
    while let Some(item) = reader.read()? {
        let frame = match item {
            Item::Frame(frame) => frame,
            Item::Damage(damage) => {
                directory.report(&damage.path, damage.offset, damage.reason.to_string());
                directory.keep_copy(&damage.path);
                continue;
            }
        };
        recovered.log_bytes += frame.bytes.len() as u64;
        match read_frame(&frame.bytes) {
            Ok(samples @ (Frame::Floats(_) | Frame::Histograms(_) | Frame::Starts(_))) => {
                let Some(id) = samples.first_id() else { continue };
                let shard = Shard::of(id);
                if frame.position >= from[shard] {
                    queued_bytes += frame.bytes.len();
                    queues[shard].frames.push((frame.position, frame.bytes.clone()));
                }
            }
            Ok(Frame::CutBegin { shard, .. }) => {
                if frame.position >= from[shard] {
                    queues[shard].frames.push((frame.position, frame.bytes.clone()));
                }
            }
            Ok(Frame::Delete(deletion)) => {
                if frame.position >= from[deletion.shard] {
                    queued_bytes += frame.bytes.len();
                    queues[deletion.shard].frames.push((frame.position, frame.bytes.clone()));
                }
            }
            Ok(Frame::CutEnd { .. }) => {
                for (queue, from) in queues.iter_mut().zip(from) {
                    if frame.position >= *from {
                        queue.frames.push((frame.position, frame.bytes.clone()));
                    }
                }
            }
            Ok(Frame::Definitions(definitions)) => define(head, &definitions),
            // A malformed rest is left out: nobody's samples are in it.
            Ok(Frame::Metadata(metadata)) => drop(db.metadata.restore(&metadata)),
            Ok(Frame::Exemplars(exemplars)) => drop(db.exemplars.restore(&exemplars)),
            Ok(Frame::Deferred(_)) if frame.position < deferred_from => {}
            Ok(Frame::Deferred(_)) => recovered.deferred.push(frame.bytes.to_vec()),
            Err(error) => {
                let path = directory.segment(frame.position.segment);
                directory.report(&path, frame.position.offset, error.to_string());
                kept.insert(frame.position.segment);
            }
        }
        if queued_bytes > QUEUE_BYTES_MAX {
            drain(env, head, &mut queues, &mut recovered, &mut newest_id, &mut kept);
            queued_bytes = 0;
        }
    }
    drain(env, head, &mut queues, &mut recovered, &mut newest_id, &mut kept);
    for segment in kept {
        directory.keep_copy(&directory.segment(segment));
    }
    if let Some(newest) = newest_id {
        // An id that samples bear and no definition gives must not be given to another series.
        head.directory.write().registry.skip_to(SeriesId(newest.0.saturating_add(1)));
    }
    Ok(recovered)
}

/// Puts the series of a frame into the head, unless it has them.
pub(crate) fn define(head: &Head, definitions: &Definitions<'_>) {
    let mut directory = head.directory.write();
    let pairs: Vec<PairId> =
        definitions.pairs.iter().map(|(name, value)| directory.registry.intern(name, value)).collect();
    let mut labels = Vec::new();
    // A malformed list ends the walk; the series before it are good.
    let _ = definitions.for_each(|id, numbers| {
        labels.clear();
        labels.extend(numbers.iter().map(|number| pairs[*number]));
        if directory.registry.restore(id, &labels) {
            directory.insert_postings(id);
        }
    });
}

/// Replays what is queued, shards side by side.
fn drain(
    env: &Env,
    head: &Head,
    queues: &mut [Queue; SHARDS],
    recovered: &mut Recovered,
    newest_id: &mut Option<SeriesId>,
    kept: &mut BTreeSet<u64>,
) {
    let directory = head.directory.read();
    let registry = &directory.registry;
    let mut results: [Replayed; SHARDS] = Default::default();
    let jobs =
        queues.iter_mut().zip(&mut results).enumerate().filter(|(_, (queue, _))| !queue.frames.is_empty());
    let jobs = jobs.map(|(at, (queue, result))| {
        let frames = std::mem::take(&mut queue.frames);
        let job: Job<'_> = Box::new(move || {
            let mut shard = head.shards[at].lock();
            frames.iter().for_each(|(position, bytes)| {
                replay_frame(&mut shard, at, registry, *position, bytes, result)
            });
        });
        job
    });
    env.parallel.run(jobs.collect());
    for mut result in results {
        recovered.samples += result.samples;
        recovered.samples_set_aside += result.set_aside;
        kept.append(&mut result.segments);
        *newest_id = (*newest_id).max(result.newest_id);
    }
}

fn replay_frame(
    shard: &mut Shard,
    at: usize,
    registry: &Registry,
    position: Position,
    bytes: &[u8],
    result: &mut Replayed,
) {
    let known = |id: SeriesId, result: &mut Replayed| {
        let is_known = Shard::of(id) == at && registry.is_alive(id);
        if !is_known {
            result.set_aside += 1;
            result.segments.insert(position.segment);
            if registry.is_near(id) {
                result.newest_id = result.newest_id.max(Some(id));
            }
        }
        is_known
    };
    match read_frame(bytes).expect("read when it was queued") {
        Frame::Floats(floats) => floats.for_each(|id, sample| {
            if known(id, result) && shard.take(id, sample, NO_WINDOW) == Verdict::Taken {
                result.samples += 1;
            }
        }),
        Frame::Histograms(histograms) => {
            let whole = histograms.for_each(|id, timestamp, histogram| {
                let taken = known(id, result)
                    && shard.take_histogram(id, timestamp, &histogram, NO_WINDOW) == Verdict::Taken;
                result.samples += u64::from(taken);
            });
            if whole.is_err() {
                result.set_aside += 1;
                result.segments.insert(position.segment);
            }
        }
        Frame::Starts(starts) => {
            let whole = starts.for_each(|id, step| {
                if known(id, result) {
                    shard.restore_step(id, step);
                }
            });
            if whole.is_err() {
                result.segments.insert(position.segment);
            }
        }
        Frame::CutBegin { bar, .. } => shard.begin_cut(bar),
        Frame::CutEnd { floor } => shard.end_cut(floor),
        Frame::Delete(deletion) => deletion.for_each(|id| shard.delete(id, deletion.range)),
        Frame::Definitions(_) | Frame::Deferred(_) | Frame::Metadata(_) | Frame::Exemplars(_) => {
            unreachable!("not queued for a shard")
        }
    }
}

/// Visits the series of a deferred batch. A malformed rest is left out.
pub(crate) fn for_each_deferred(frame: &[u8], mut visit: impl FnMut(&Batch<'_>)) {
    let Ok(Frame::Deferred(deferred)) = read_frame(frame) else { return };
    let _ = deferred.for_each(|series| {
        let mut batch = Batch::new();
        batch.push(RawLabels::Canonical(series.labels), &series.samples);
        batch.set_starts(&series.starts);
        batch.histograms.extend_from_slice(&series.histograms);
        batch.series[0].histograms = 0..series.histograms.len() as u32;
        visit(&batch);
    });
}
