//! From the files to the head, after a start.
//!
//! ```text
//! images ──► shards, series      (state up to a position in the log)
//! log ─► frames ─┬─ definitions ─► series              in order
//!                ├─ samples (of a request: its parts), cuts, deletions, departures ─► queue of a shard ─► shards,
//!                │                                                                                    side by side
//!                └─ deferred batches ─► kept to the end, then appended like new ones
//! ```
//!
//! A shard of whose image something is lost, or all, is replayed from the beginning of the log: see `regain`.
//!
//! Invariants: the samples of one series reach its shard in the order of the log, so every
//! repeat and conflict is decided as it was before; rows that a cut had taken come back until the end, but are
//! neither read nor asked for repeats; memory stays below the segments of three queues plus
//! the head itself; what names a series that nobody defined is counted, and the segment that
//! has it is kept under `damaged/`.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashMap;
use tidewatch_env::Job;
use tidewatch_wal::{Frame as WalFrame, Item, OpenReport, Position, Reader, WalError};

use crate::db::Db;
use crate::directory::Directory;
use crate::floats::first_of_floats;
use crate::head::image::Remains;
use crate::head::registry::{KnownIds, PairId, Registry, SeriesId};
use crate::head::shard::{NO_WINDOW, Shard, Verdict};
use crate::head::{Head, SHARDS};
use crate::image::{Images, Settled};
use crate::log::{Definitions, Frame, FrameError, read_frame};
use crate::regain::{Regain, contiguous_from, is_complete};
use crate::repeat::{FrameHash, Place, Repeat};
use crate::request::{Parts, read_part};
use crate::status::Replay;

/// Bytes of frames that are read while the shards replay as many: enough that a shard has work for
/// a while, and little to wait for before the first has any.
const QUEUE_BYTES: usize = 4 << 20;

/// Segments from which a queue is filled: a frame keeps its whole segment in memory, and where few shards still need
/// the log a queue would have frames of many.
const QUEUE_SEGMENTS: u64 = 2;

/// What recovery found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) samples: u64,
    pub(crate) samples_set_aside: u64,
    /// Bytes of log that the next start would replay again.
    pub(crate) log_bytes: u64,
    /// Whether blocks have what images have, too: a cut ended behind them.
    pub(crate) has_cut: bool,
    /// Frames of deferred batches, in order.
    pub(crate) deferred: Vec<Vec<u8>>,
}

/// Frames of one shard, in the order of the log; `None` stands for bytes that are none.
#[derive(Debug, Default)]
struct Queue {
    frames: Vec<(Position, Option<Bytes>)>,
}

/// What a shard's queue left over.
#[derive(Debug, Default)]
struct Replayed {
    samples: u64,
    set_aside: u64,
    /// Segments with samples that were set aside.
    segments: BTreeSet<u64>,
    newest_id: Option<SeriesId>,
    /// Frames that can not be read, though their checksums hold.
    damaged: Vec<(Position, FrameError)>,
}

/// Loads images and replays the log behind them into the head, as far as it was there when it was opened.
pub(crate) fn replay(
    db: &Db,
    directory: &Directory,
    images: &Images,
    opened: &OpenReport,
) -> Result<Recovered, WalError> {
    let (env, head) = (&db.env, &db.head);
    let loaded = images.load(env, directory, head);
    let settled = loaded.settled;
    let mut regains = begin_regains(head, images, opened, loaded.remains);
    let mut log = LogReading::begin(db, directory, images, opened, loaded.series_lost, &regains)?;
    let mut segments = opened.segments.iter().copied().filter(|segment| *segment >= log.start.segment);
    let first = segments.next().unwrap_or(0);
    let last = segments.next_back().unwrap_or(first);
    *db.replay.lock() = Replay { first, last, current: first };
    let mut newest_id = None;
    let mut queues = log.read_queues()?;
    // Who replays frames knows the series of the next ones: where a definition is damaged, its second one comes later.
    let mut ahead = log.read_queues()?;
    while let Some(mut queued) = queues.take() {
        let known = head.directory.read().registry.known_ids();
        let mut results: [Replayed; SHARDS] = Default::default();
        let mut next = Ok(None);
        // While the shards replay what was read, the next frames are read.
        let mut jobs: Vec<Job<'_>> = vec![Box::new(|| next = log.read_queues())];
        let shards = queued.iter_mut().zip(&mut results).zip(&mut regains).enumerate();
        jobs.extend(shards.filter(|(_, ((queue, _), _))| !queue.frames.is_empty()).map(
            |(at, ((queue, result), regain))| {
                let (queue, known) = (std::mem::take(queue), &known);
                let replay = move || {
                    *result = replay_queue(&mut head.shards[at].lock(), at, known, settled, queue, regain);
                };
                Box::new(replay) as Job<'_>
            },
        ));
        env.parallel.run(jobs);
        (queues, ahead) = (ahead, next?);
        results.into_iter().for_each(|result| newest_id = newest_id.max(log.take(result)));
    }
    db.replay.lock().current = last;
    for (at, regain) in regains.into_iter().enumerate() {
        regain.into_iter().for_each(|mut regain| regain.finish(at, &mut head.shards[at].lock()));
    }
    complete(head, &log, newest_id, settled);
    Ok(log.recovered)
}

/// When all was replayed: what can not be used is kept, series are found by their labels, and those that left go.
fn complete(head: &Head, log: &LogReading<'_>, newest_id: Option<SeriesId>, settled: Settled) {
    for segment in &log.kept {
        log.directory.keep_copy(&log.directory.segment(*segment));
    }
    let held = head.shards.iter().enumerate().filter_map(|(at, shard)| shard.lock().newest_id(at));
    let newest_id = newest_id.max(held.max());
    let mut series = head.directory.write();
    if let Some(newest) = newest_id {
        // An id that samples bear, in the log or in an image, and no definition gives must not be given to
        // another series.
        series.registry.skip_to(SeriesId(newest.0.saturating_add(1)));
    }
    for id in series.complete(&*log.db.env.parallel) {
        head.shards[Shard::of(id)].lock().leave(id);
    }
    for (definitions, ids) in log.once.values() {
        head.repeat(ids.clone(), definitions);
    }
    let known = series.registry.known_ids();
    for (at, shard) in head.shards.iter().enumerate() {
        shard.lock().leave_unknown(at, &known, |id| settled.has_left(id));
    }
}

/// The shards that lack something which the log may have.
fn begin_regains(
    head: &Head,
    images: &Images,
    opened: &OpenReport,
    mut remains: [Option<Remains>; SHARDS],
) -> [Option<Regain>; SHARDS] {
    std::array::from_fn(|at| {
        if let Some(until) = images.shard_position(at) {
            return Some(Regain::beside(&mut head.shards[at].lock(), remains[at].take()?, until));
        }
        let regain = Regain::without_image(images.newest_position());
        // A young store has no images yet, or not all of them, and a log of all that there was.
        let is_young = is_complete(&opened.segments, regain.from(opened)) && !images.lacks_shard(at);
        (!is_young).then_some(regain)
    })
}

/// The log on its way to the shards.
struct LogReading<'a> {
    db: &'a Db,
    directory: &'a Directory,
    reader: Reader,
    /// Where it begins.
    start: Position,
    /// From where each shard needs it.
    from: [Position; SHARDS],
    /// From where definitions of series are needed.
    defined_from: Position,
    /// From where metadata and exemplars are needed: they are logged with each image once more.
    metadata_from: Position,
    deferred_from: Position,
    recovered: Recovered,
    /// Segments that are kept under `damaged/`.
    kept: BTreeSet<u64>,
    /// Frames of definitions that nothing far behind them repeats, with the ids of their series.
    once: HashMap<FrameHash, (Bytes, Range<u32>), foldhash::fast::RandomState>,
}

impl<'a> LogReading<'a> {
    /// Where what images have is whole, the log is needed behind it; where something is lost, all that there is.
    fn begin(
        db: &'a Db,
        directory: &'a Directory,
        images: &Images,
        opened: &OpenReport,
        series_lost: bool,
        regains: &[Option<Regain>; SHARDS],
    ) -> Result<LogReading<'a>, WalError> {
        let positions = images.positions();
        let metadata_from = images.oldest_position();
        let defined_from = if series_lost { contiguous_from(opened, metadata_from) } else { metadata_from };
        let from: [Position; SHARDS] = std::array::from_fn(|at| {
            regains[at].as_ref().map_or(positions[at], |regain| regain.from(opened))
        });
        let start = from.iter().copied().fold(defined_from, Position::min);
        let reader = Reader::open(&db.env, &directory.wal(), start)?
            .of(directory.owner)
            .until(opened.first_segment)
            .with(opened.newest.clone());
        Ok(LogReading {
            db,
            directory,
            reader,
            start,
            from,
            defined_from,
            metadata_from,
            // Shards have images only of times when no batch was deferred any more.
            deferred_from: positions.into_iter().fold(Position::START, Position::max),
            recovered: Recovered::default(),
            kept: BTreeSet::new(),
            once: HashMap::default(),
        })
    }

    /// Reads on until enough is queued; `None` at the end. What is not of a shard is applied at once.
    fn read_queues(&mut self) -> Result<Option<[Queue; SHARDS]>, WalError> {
        let mut queues: [Queue; SHARDS] = Default::default();
        let (mut queued_bytes, mut first, mut last) = (0, None, 0);
        while queued_bytes < QUEUE_BYTES && first.is_none_or(|first| last < first + QUEUE_SEGMENTS) {
            match self.reader.read()? {
                None if queues.iter().all(|queue| queue.frames.is_empty()) => return Ok(None),
                None => break,
                Some(Item::Frame(frame)) => {
                    last = frame.position.segment;
                    if first.is_none() {
                        first = Some(last);
                        self.db.replay.lock().current = last;
                    }
                    self.recovered.log_bytes += frame.bytes.len() as u64;
                    queued_bytes += self.queue(frame, &mut queues);
                }
                Some(Item::Damage(damage)) => {
                    self.directory.report(&damage.path, damage.offset, damage.reason.to_string());
                    self.directory.keep_copy(&damage.path);
                    let position = damage.position().expect("the reader reads segments");
                    queues.iter_mut().for_each(|queue| queue.frames.push((position, None)));
                }
            }
        }
        Ok(Some(queues))
    }

    /// Queues a frame for its shard, or applies it; gives the bytes that wait.
    fn queue(&mut self, frame: WalFrame, queues: &mut [Queue; SHARDS]) -> usize {
        let WalFrame { position, bytes, .. } = frame;
        let mut queue = |shard: usize| {
            let is_needed = position >= self.from[shard];
            if is_needed {
                queues[shard].frames.push((position, Some(bytes.clone())));
            }
            if is_needed { bytes.len() } else { 0 }
        };
        // Nearly all frames: what else they say is for their shards to read.
        if let Some(id) = first_of_floats(&bytes) {
            return queue(Shard::of(id));
        }
        match read_frame(&bytes) {
            Ok(samples @ (Frame::Floats(_) | Frame::Histograms(_) | Frame::Starts(_))) => {
                match samples.first_id() {
                    Some(id) => return queue(Shard::of(id)),
                    None => self.report(position, FrameError::Malformed),
                }
            }
            Ok(Frame::Request(parts)) => return self.queue_parts(position, &bytes, &parts, queues),
            Ok(Frame::CutBegin { shard, .. }) => return queue(shard),
            Ok(Frame::Delete(deletion)) => return queue(deletion.shard),
            Ok(Frame::Left(departure)) => return queue(departure.shard),
            Ok(Frame::CutEnd { .. }) => {
                let queued = (0..SHARDS).map(queue).sum();
                self.recovered.has_cut |= queued > 0;
                return queued;
            }
            Ok(Frame::Definitions(_) | Frame::Repeat(_)) if position < self.defined_from => {}
            Ok(Frame::Metadata(_) | Frame::Exemplars(_)) if position < self.metadata_from => {}
            Ok(Frame::Definitions(definitions)) => {
                let ids = define(&mut self.db.head.directory.write().registry, &definitions);
                self.once.insert(FrameHash::of(&bytes), (bytes, ids));
            }
            Ok(Frame::Repeat(repeat)) => {
                if let Err(error) = self.repeat(&repeat) {
                    self.report(position, error);
                }
            }
            // A malformed rest is left out: nobody's samples are in it.
            Ok(Frame::Metadata(metadata)) => drop(self.db.metadata.restore(&metadata)),
            Ok(Frame::Exemplars(exemplars)) => drop(self.db.exemplars.restore(&exemplars)),
            Ok(Frame::Deferred(_)) if position < self.deferred_from => {}
            Ok(Frame::Deferred(_)) => self.recovered.deferred.push(bytes.to_vec()),
            Err(error) => self.report(position, error),
        }
        0
    }

    /// Queues the parts of a request's frame, each for its shard.
    fn queue_parts(
        &mut self,
        position: Position,
        frame: &Bytes,
        parts: &Parts<'_>,
        queues: &mut [Queue; SHARDS],
    ) -> usize {
        let (mut queued, mut unread) = (0, None);
        let result = parts.for_each(|part| match shard_of(part) {
            Ok(shard) if position >= self.from[shard] => {
                queues[shard].frames.push((position, Some(frame.slice_ref(part))));
                queued += part.len();
            }
            Ok(_) => {}
            Err(error) => unread = Some(error),
        });
        if let Some(error) = result.err().or(unread) {
            self.report(position, error);
        }
        queued
    }

    /// Defines what a frame repeats, where the first one was not there.
    fn repeat(&mut self, repeat: &Repeat<'_>) -> Result<(), FrameError> {
        let is_there = match repeat.place {
            Place::Near => self.once.contains_key(&repeat.hash),
            Place::Far => self.once.remove(&repeat.hash).is_some(),
        };
        if is_there {
            return Ok(());
        }
        let frame = repeat.unpack()?;
        if let Frame::Definitions(definitions) = read_frame(&frame)? {
            let ids = define(&mut self.db.head.directory.write().registry, &definitions);
            self.once.insert(repeat.hash, (frame.into(), ids));
        }
        Ok(())
    }

    fn report(&mut self, position: Position, error: FrameError) {
        let path = self.directory.segment(position.segment);
        self.directory.report(&path, position.offset, error.to_string());
        self.kept.insert(position.segment);
    }

    /// Adds up what a shard replayed; gives the newest id that nobody defined.
    fn take(&mut self, mut result: Replayed) -> Option<SeriesId> {
        self.recovered.samples += result.samples;
        self.recovered.samples_set_aside += result.set_aside;
        self.kept.append(&mut result.segments);
        result.damaged.into_iter().for_each(|(position, error)| self.report(position, error));
        result.newest_id
    }
}

/// The shard that a part of a request is of.
fn shard_of(part: &[u8]) -> Result<usize, FrameError> {
    let first = match first_of_floats(part) {
        None => read_part(part)?.first_id(),
        first => first,
    };
    first.map(Shard::of).ok_or(FrameError::Malformed)
}

/// Puts the series of a frame into the registry, unless it has them. They are not found by their labels
/// before all are there, see [`crate::head::Directory::complete`]. Gives their ids.
pub(crate) fn define(registry: &mut Registry, definitions: &Definitions<'_>) -> Range<u32> {
    let pairs: Vec<PairId> =
        definitions.pairs.iter().map(|(name, value)| registry.intern(name, value)).collect();
    let (mut labels, mut end) = (Vec::new(), definitions.first.0);
    // A malformed list ends the walk; the series before it are good.
    let _ = definitions.for_each(|id, numbers| {
        labels.clear();
        labels.extend(numbers.iter().map(|number| pairs[*number]));
        registry.restore(id, &labels);
        end = id.0.saturating_add(1);
    });
    definitions.first.0..end
}

/// Replays frames into a shard, or into what comes of it before its regain is over.
fn replay_queue(
    shard: &mut Shard,
    at: usize,
    known: &KnownIds,
    settled: Settled,
    queue: Queue,
    regain: &mut Option<Regain>,
) -> Replayed {
    let mut result = Replayed::default();
    for (position, frame) in queue.frames {
        regain.iter_mut().for_each(|regain| regain.reach(at, shard, position));
        let Some(frame) = frame else {
            regain.iter_mut().for_each(|regain| regain.doubt(position, shard));
            continue;
        };
        if regain.as_mut().is_none_or(|regain| regain.takes(at, shard, &frame)) {
            let takes_start = |id| regain.as_ref().is_none_or(|regain| regain.takes_start(id));
            replay_frame(shard, at, known, settled, (position, &frame), takes_start, &mut result);
        }
    }
    result
}

fn replay_frame(
    shard: &mut Shard,
    at: usize,
    known: &KnownIds,
    settled: Settled,
    (position, bytes): (Position, &[u8]),
    takes_start: impl Fn(SeriesId) -> bool,
    result: &mut Replayed,
) {
    let known = |id: SeriesId, result: &mut Replayed| {
        let is_known = Shard::of(id) == at && known.is_alive(id);
        if !is_known && !settled.had_left(id, position) {
            result.set_aside += 1;
            result.segments.insert(position.segment);
            if known.is_near(id) {
                result.newest_id = result.newest_id.max(Some(id));
            }
        }
        is_known
    };
    let frame = match read_frame(bytes) {
        Ok(frame) => frame,
        Err(error) => return result.damaged.push((position, error)),
    };
    match frame {
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
                if known(id, result) && takes_start(id) {
                    shard.restore_step(id, step);
                }
            });
            if whole.is_err() {
                result.segments.insert(position.segment);
            }
        }
        Frame::CutBegin { bar, .. } => shard.begin_cut(bar),
        Frame::CutEnd { floor } => shard.replay_cut(at, floor),
        Frame::Delete(deletion) => deletion.ids.for_each(|id| shard.delete(id, deletion.range)),
        Frame::Left(departure) => departure.ids.for_each(|id| {
            if Shard::of(id) == at {
                shard.leave(id);
            }
        }),
        Frame::Definitions(_)
        | Frame::Repeat(_)
        | Frame::Request(_)
        | Frame::Deferred(_)
        | Frame::Metadata(_)
        | Frame::Exemplars(_) => unreachable!("not queued for a shard"),
    }
}
