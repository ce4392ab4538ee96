//! A batch on its way into the head.
//!
//! All series of the request are looked up first, then written shard by shard: at a million series
//! each look-up misses the cache, and a loop that does one thing lets the processor have several of
//! them under way. How they are found: `lookup`.
//!
//! The shards that a request touches stay locked until its frame is logged: see the head's locks.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::atomic::Ordering;

use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
use tidewatch_chunk::BUCKETS_MAX;
use tidewatch_model::{Batch, BatchHistogram, Limits, NativeHistogram, RawLabels, Sample, format_duration};
use tidewatch_storage::{AppendError, AppendOutcome, Refusal, Ticket};

use super::lookup::{Found, UNKNOWN};
use super::registry::{Defined, SeriesId};
use super::shard::{InBlocks, Shard, Verdict};
use super::{Directory, Head, SHARDS};
use crate::blocks::Blocks;
use crate::floats::FloatsFrame;
use crate::frames::{HistogramsFrame, StartsFrame};
use crate::late::{Kind, Looked, Pick, picked};
use crate::log::write_definitions;
use crate::request::RequestFrame;

/// Where frames go before their samples count as taken.
pub(crate) trait FrameLog {
    /// Adds a frame; it is durable when the log is, up to the ticket.
    fn append(&self, frame: &[u8]) -> Result<Ticket, AppendError>;
}

/// Keeps the frames: a log for tests.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Kept(pub(crate) parking_lot::Mutex<Vec<Vec<u8>>>);

#[cfg(test)]
impl FrameLog for Kept {
    fn append(&self, frame: &[u8]) -> Result<Ticket, AppendError> {
        self.0.lock().push(frame.to_vec());
        Ok(Ticket(1))
    }
}

/// What a request is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub(crate) now_ms: i64,
    /// The oldest time that a sample may have: what is older would be gone at once.
    pub(crate) from_ms: i64,
    /// The newest time that a sample may have.
    pub(crate) until_ms: i64,
    /// How long samples are kept, for messages.
    pub(crate) retention_ms: Option<i64>,
    pub(crate) limits: &'a Limits,
    pub(crate) series_max: usize,
    pub(crate) blocks: &'a Blocks,
    /// What is known of the batch's late samples; `None` where blocks are not asked yet.
    pub(crate) looked: Option<&'a Looked>,
}

impl Terms<'_> {
    /// Why no sample of this time is taken, whatever its series; `None` where it may be.
    #[inline]
    pub(crate) fn refusal(&self, timestamp: i64) -> Option<Refusal> {
        match timestamp {
            time if time > self.until_ms => Some(Refusal::TooFarInFuture),
            time if time < self.from_ms.max(TIME_MIN) => Some(Refusal::TooOld),
            _ => None,
        }
    }

    /// What is known of the batch's late samples, if that is true still. To be asked while their shard is locked: a
    /// block that has what the shard has forgotten is in the list then.
    fn known(&self) -> Option<&Looked> {
        self.looked.filter(|looked| looked.is_of(&self.blocks.list()))
    }

    /// What is wrong with the time of a sample, after "the sample".
    pub(crate) fn cause(&self, timestamp: i64, refusal: Refusal) -> String {
        match (refusal, self.retention_ms) {
            (Refusal::TooOld, Some(retention)) if timestamp < self.from_ms => {
                format!("is older than the retention of {}", format_duration(retention))
            }
            (Refusal::TooOld, _) if timestamp < TIME_MIN => "is before all times that are stored".to_owned(),
            (Refusal::TooOld, _) => "is older than the out-of-order window".to_owned(),
            (Refusal::TooFarInFuture, _) => "is too far in the future".to_owned(),
            (Refusal::Conflict, _) => "has another value than the sample stored at that time".to_owned(),
            (Refusal::InvalidLabels | Refusal::LabelLimit | Refusal::InvalidHistogram, _) => {
                "can not be taken".to_owned()
            }
        }
    }
}

/// The oldest time that is taken, far before any calendar: stretches of blocks can be computed
/// around every time behind it.
pub(crate) const TIME_MIN: i64 = i64::MIN / 8;

/// Memory of one request.
#[derive(Debug, Default)]
pub(crate) struct RequestScratch {
    found: Found,
    /// Series of the batch, by shard.
    order: Vec<u32>,
    frames: Frames,
    request: RequestFrame,
    definitions: Vec<u8>,
}

/// Frames of what one shard takes of a request.
#[derive(Debug, Default)]
struct Frames {
    starts: StartsFrame,
    floats: FloatsFrame,
    histograms: HistogramsFrame,
    /// What blocks have to be asked about first, of all shards.
    unsure: Vec<Pick>,
}

impl Frames {
    fn clear(&mut self) {
        self.starts.clear();
        self.floats.clear();
        self.histograms.clear();
    }

    /// Adds the frames that have something: starts before the samples that they are of.
    fn write(&mut self, request: &mut RequestFrame) {
        self.starts.finish().for_each(|starts| request.push(|out| out.extend_from_slice(starts)));
        if !self.floats.is_empty() {
            request.push(|out| self.floats.write(out));
        }
        self.histograms.finish().for_each(|histograms| request.push(|out| out.extend_from_slice(histograms)));
    }
}

impl Head {
    /// Takes what can be taken of a batch, see [`tidewatch_storage::Append::append`]. Gives the samples that blocks
    /// have to be asked about first.
    pub(crate) fn append<'a>(
        &self,
        batch: &Batch<'a>,
        terms: &Terms<'_>,
        log: &dyn FrameLog,
        outcome: &mut AppendOutcome,
    ) -> Result<Batch<'a>, AppendError> {
        let mut scratch = self.scratch.lock().pop().unwrap_or_default();
        let result = self.append_with(batch, terms, log, &mut scratch, outcome);
        // Not kept like the rest: few requests have some.
        let unsure = std::mem::take(&mut scratch.frames.unsure);
        self.scratch.lock().push(scratch);
        result.map(|()| picked(batch, &unsure))
    }

    fn append_with(
        &self,
        batch: &Batch<'_>,
        terms: &Terms<'_>,
        log: &dyn FrameLog,
        scratch: &mut RequestScratch,
        outcome: &mut AppendOutcome,
    ) -> Result<(), AppendError> {
        let directory = self.directory.read();
        let directory = match scratch.found.find_all(&directory.registry, batch) {
            0 => directory,
            _ => {
                drop(directory);
                self.define_missing(batch, terms, log, scratch, outcome)?
            }
        };
        order_by_shard(scratch);
        let logged = self.take_all(batch, terms, log, scratch, outcome)?;
        self.repeats.advance(logged, &directory.registry, log);
        // Until here no series may be removed.
        drop(directory);
        Ok(())
    }

    /// Takes the samples of the series that are known, and logs them in one frame, or several where that grows long.
    /// Gives how many bytes that are.
    fn take_all(
        &self,
        batch: &Batch<'_>,
        terms: &Terms<'_>,
        log: &dyn FrameLog,
        scratch: &mut RequestScratch,
        outcome: &mut AppendOutcome,
    ) -> Result<u64, AppendError> {
        let RequestScratch { found: Found { ids, .. }, order, frames, request, .. } = scratch;
        let mut locked: [Option<MutexGuard<'_, Shard>>; SHARDS] = Default::default();
        let (mut rest, mut logged) = (&order[..], 0);
        request.clear();
        while let Some(first) = rest.first() {
            let at = Shard::of(ids[*first as usize]);
            let end = rest.partition_point(|series| Shard::of(ids[*series as usize]) == at);
            let (group, others) = rest.split_at(end);
            rest = others;
            let shard = locked[at].insert(self.shards[at].lock());
            frames.clear();
            take_group(batch, group, ids, terms, shard, frames, outcome);
            frames.write(request);
            if shard.newest > i64::MIN {
                self.has_newest(shard.newest);
            }
            if rest.is_empty() || request.is_full() {
                // The shards stay locked, so nobody has read what the log may still refuse.
                logged += log_frames(request, log, outcome)?;
                request.clear();
                locked.iter_mut().for_each(|shard| *shard = None);
            }
        }
        Ok(logged)
    }

    /// Creates the series that are not known, if there is room for them, and logs them; the directory comes
    /// back readable.
    fn define_missing(
        &self,
        batch: &Batch<'_>,
        terms: &Terms<'_>,
        log: &dyn FrameLog,
        scratch: &mut RequestScratch,
        outcome: &mut AppendOutcome,
    ) -> Result<RwLockReadGuard<'_, Directory>, AppendError> {
        let mut directory = self.directory.write();
        // Others may have created or removed series in between.
        scratch.found.find_all(&directory.registry, batch);
        let missing = scratch.found.ids.iter().filter(|id| **id == UNKNOWN).count();
        if let Err(reason) = self.check_room(&directory.registry, missing, terms) {
            // The others must not pay for it: a target's reports, samples of what was there before.
            outcome.overloaded = Some(reason);
            return Ok(RwLockWriteGuard::downgrade(directory));
        }
        let first = directory.registry.next_id();
        for (at, series) in batch.series.iter().enumerate() {
            if scratch.found.ids[at] != UNKNOWN {
                continue;
            }
            // An alias that this very request has added is found here.
            if let Some(id) = directory.registry.find(scratch.found.hashes[at], &series.labels) {
                scratch.found.ids[at] = id;
                continue;
            }
            match directory.registry.define(scratch.found.hashes[at], &series.labels, terms.limits) {
                Ok(Defined::Known(id)) => scratch.found.ids[at] = id,
                Ok(Defined::New(id)) => {
                    scratch.found.ids[at] = id;
                    directory.insert_postings(id);
                }
                Err((refusal, cause)) => {
                    let count = (series.samples.len() + series.histograms.len()) as u64;
                    refuse(outcome, refusal, count, || format!("{}: {cause}", Shown(&series.labels)));
                }
            }
        }
        let registry = &directory.registry;
        let created = first.0..registry.next_id().0;
        self.series_created.fetch_add(created.len() as u64, Ordering::Relaxed);
        if created.is_empty() {
            return Ok(RwLockWriteGuard::downgrade(directory));
        }
        let series = created.clone().map(|id| registry.labels(SeriesId(id)));
        write_definitions(first, &registry.pairs, series, &mut scratch.definitions);
        let logged = log.append(&scratch.definitions);
        // Whoever reads need not wait for the rest.
        let directory = RwLockWriteGuard::downgrade(directory);
        let again = self.repeats.log_again(created, &scratch.definitions, log);
        outcome.ticket = outcome.ticket.max(logged?).max(again?);
        Ok(directory)
    }
}

/// Sorts the known series by shard, and keeps the order of the batch within each.
fn order_by_shard(scratch: &mut RequestScratch) {
    let RequestScratch { found: Found { ids, .. }, order, .. } = scratch;
    let mut counts = [0u32; SHARDS];
    ids.iter().filter(|id| **id != UNKNOWN).for_each(|id| counts[Shard::of(*id)] += 1);
    let mut start = 0;
    let mut starts = counts.map(|count| {
        let here = start;
        start += count;
        here
    });
    order.clear();
    order.resize(start as usize, 0);
    for (at, id) in ids.iter().enumerate().filter(|(_, id)| **id != UNKNOWN) {
        let place = &mut starts[Shard::of(*id)];
        order[*place as usize] = at as u32;
        *place += 1;
    }
}

/// Logs the frames of a request; gives how many bytes that are. Where the log refuses one it is given the others all
/// the same: it keeps them, as the head does, until it takes something again.
fn log_frames(
    request: &RequestFrame,
    log: &dyn FrameLog,
    outcome: &mut AppendOutcome,
) -> Result<u64, AppendError> {
    let (mut result, mut bytes) = (Ok(()), 0);
    for frame in request.frames() {
        bytes += frame.len() as u64;
        match log.append(frame) {
            Ok(ticket) => outcome.ticket = outcome.ticket.max(ticket),
            Err(error) => result = Err(error),
        }
    }
    result.map(|()| bytes)
}

/// How many series ahead the memory of a series is asked for: about as long as an answer takes.
const AHEAD: usize = 4;

/// Takes the samples of the series `group`, which are all of `shard`, and frames those taken.
fn take_group(
    batch: &Batch<'_>,
    group: &[u32],
    ids: &[SeriesId],
    terms: &Terms<'_>,
    shard: &mut Shard,
    frames: &mut Frames,
    outcome: &mut AppendOutcome,
) {
    let window_ms = terms.limits.out_of_order_window_ms;
    let has_starts = !batch.starts.is_empty() || !shard.starts.is_empty();
    let known = terms.known();
    shard.in_blocks = InBlocks { until_ms: terms.blocks.newest_ms(), is_unsure: true };
    for (place, number) in group.iter().enumerate() {
        if let Some(later) = group.get(place + AHEAD) {
            shard.expect(ids[*later as usize]);
        }
        let series = &batch.series[*number as usize];
        let id = ids[*number as usize];
        if let Some(looked) = known {
            shard.in_blocks = InBlocks { until_ms: looked.newest_ms(*number), is_unsure: false };
        }
        let first = series.samples.start as usize;
        for (at, sample) in batch.samples[first..series.samples.end as usize].iter().enumerate() {
            let verdict = match terms.refusal(sample.timestamp) {
                None => shard.take(id, *sample, window_ms),
                Some(refusal) => Verdict::Refused(refusal),
            };
            match verdict {
                Verdict::Taken => {
                    outcome.accepted += 1;
                    frames.floats.push(id, *sample);
                    if has_starts {
                        set_start(shard, frames, id, sample.timestamp, batch.start_of(first + at));
                    }
                }
                Verdict::Duplicate => {
                    outcome.accepted += 1;
                    outcome.duplicates += 1;
                }
                Verdict::Refused(refusal) => refuse_sample(outcome, &series.labels, *sample, refusal, terms),
                Verdict::Unsure => {
                    frames.unsure.push(Pick { series: *number, kind: Kind::Float, at: (first + at) as u32 })
                }
            }
        }
        if !series.histograms.is_empty() {
            take_histograms(batch, *number, id, terms, shard, frames, outcome);
        }
    }
}

fn set_start(shard: &mut Shard, frames: &mut Frames, id: SeriesId, timestamp: i64, start: i64) {
    let steps = shard.set_start(id, timestamp, start);
    steps.into_iter().flatten().for_each(|step| frames.starts.push(id, step));
}

/// Takes the histograms of a series.
fn take_histograms(
    batch: &Batch<'_>,
    number: u32,
    id: SeriesId,
    terms: &Terms<'_>,
    shard: &mut Shard,
    frames: &mut Frames,
    outcome: &mut AppendOutcome,
) {
    let window_ms = terms.limits.out_of_order_window_ms;
    let series = &batch.series[number as usize];
    for at in series.histograms.start as usize..series.histograms.end as usize {
        let histogram = &batch.histograms[at];
        let timestamp = histogram.timestamp;
        let refused = match checked_histogram(histogram, terms) {
            Ok(value) => match shard.take_histogram(id, timestamp, &value, window_ms) {
                Verdict::Taken => {
                    outcome.accepted_histograms += 1;
                    frames.histograms.push(id, timestamp, &value);
                    set_start(shard, frames, id, timestamp, histogram.start);
                    continue;
                }
                Verdict::Duplicate => {
                    outcome.accepted_histograms += 1;
                    outcome.duplicates += 1;
                    continue;
                }
                Verdict::Unsure => {
                    frames.unsure.push(Pick { series: number, kind: Kind::Histogram, at: at as u32 });
                    continue;
                }
                Verdict::Refused(refusal) => (refusal, terms.cause(timestamp, refusal)),
            },
            Err(refused) => refused,
        };
        refuse_histogram(outcome, &series.labels, timestamp, refused);
    }
}

/// A histogram that can be taken, as far as its series need not be known; or why it can not.
pub(crate) fn checked_histogram<'a>(
    histogram: &'a BatchHistogram,
    terms: &Terms<'_>,
) -> Result<Cow<'a, NativeHistogram>, (Refusal, String)> {
    let BatchHistogram { timestamp, value, .. } = histogram;
    if let Some(refusal) = terms.refusal(*timestamp) {
        return Err((refusal, terms.cause(*timestamp, refusal)));
    }
    if value.is_stale() {
        // Whatever else a marker carries means nothing.
        return Ok(Cow::Owned(NativeHistogram::stale()));
    }
    check_histogram(value).map_err(|cause| (Refusal::InvalidHistogram, cause))?;
    Ok(Cow::Borrowed(value))
}

/// Why a histogram is not taken at any time, after "the histogram". A marker always is.
pub(crate) fn check_histogram(histogram: &NativeHistogram) -> Result<(), String> {
    let size = histogram.bucket_count().max(histogram.layout().custom_values.map_or(0, <[f64]>::len));
    if size >= BUCKETS_MAX && !histogram.is_stale() {
        return Err(format!("has {size} buckets: {BUCKETS_MAX} and more are not taken"));
    }
    histogram.validate().map_err(|error| format!("is invalid: {error}"))
}

#[cold]
pub(crate) fn refuse(
    outcome: &mut AppendOutcome,
    refusal: Refusal,
    count: u64,
    describe: impl FnOnce() -> String,
) {
    if outcome.first_refusal.is_none() {
        outcome.first_refusal = Some(describe());
    }
    match outcome.refused.iter_mut().find(|(cause, _)| *cause == refusal) {
        Some((_, so_far)) => *so_far += count,
        None => outcome.refused.push((refusal, count)),
    }
}

pub(crate) fn refuse_sample(
    outcome: &mut AppendOutcome,
    labels: &RawLabels<'_>,
    sample: Sample,
    refusal: Refusal,
    terms: &Terms<'_>,
) {
    refuse(outcome, refusal, 1, || {
        let cause = terms.cause(sample.timestamp, refusal);
        format!("{}: the sample {} at {} ms {cause}", Shown(labels), sample.value, sample.timestamp)
    });
}

pub(crate) fn refuse_histogram(
    outcome: &mut AppendOutcome,
    labels: &RawLabels<'_>,
    timestamp: i64,
    (refusal, cause): (Refusal, String),
) {
    refuse(outcome, refusal, 1, || format!("{}: the histogram at {timestamp} ms {cause}", Shown(labels)));
}

/// Labels as they came, for messages: shortened, and readable whatever they are.
struct Shown<'a>(&'a RawLabels<'a>);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN_BYTES: usize = 512;
        let mut text = String::new();
        for pair in self.0.pairs() {
            let Some((name, value)) = pair else { break };
            if text.len() > SHOWN_BYTES {
                text.push_str(", …");
                break;
            }
            let comma = if text.is_empty() { "" } else { ", " };
            let short =
                |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned();
            write!(text, "{comma}{}={:?}", short(name), short(value))?;
        }
        write!(f, "{{{text}}}")
    }
}

#[cfg(test)]
mod tests {
    use tidewatch_model::Labels;
    use tidewatch_model::histogram::Histogram;

    use super::*;
    use crate::head::PAGE_SERIES;
    use crate::log::{Frame, read_frame};
    use crate::request::read_part;

    fn append(head: &Head, log: &Kept, count: u32, timestamp: i64, is_whole: bool) {
        let names: Vec<Labels> = (0..count).map(|i| Labels::from_pairs([("i", &*i.to_string())])).collect();
        let mut batch = Batch::new();
        for name in &names {
            batch.push(RawLabels::Canonical(name.as_bytes()), &[Sample { timestamp, value: 0.1 }]);
            if is_whole {
                batch.set_starts(&[timestamp - 5]);
                let value = NativeHistogram::Integer(Histogram::default());
                let at = batch.histograms.len() as u32;
                batch.histograms.push(BatchHistogram { timestamp: timestamp + 1, start: 0, value });
                batch.series.last_mut().expect("just pushed").histograms = at..at + 1;
            }
        }
        let limits = Limits::default();
        let (retention_ms, until_ms, series_max) = (None, i64::MAX, 1 << 20);
        let (blocks, looked) = (&Blocks::default(), None);
        let terms = Terms {
            now_ms: 0,
            from_ms: 0,
            until_ms,
            retention_ms,
            limits: &limits,
            series_max,
            blocks,
            looked,
        };
        head.append(&batch, &terms, log, &mut AppendOutcome::default()).expect("a good log");
    }

    /// The kind of a frame, and of its parts.
    fn shape(frame: &[u8]) -> String {
        let kind = |frame: &Frame<'_>| match frame {
            Frame::Definitions(_) | Frame::Repeat(_) => "series",
            Frame::Floats(_) => "floats",
            Frame::Histograms(_) => "histograms",
            Frame::Starts(_) => "starts",
            _ => "other",
        };
        let Ok(Frame::Request(parts)) = read_frame(frame) else {
            return kind(&read_frame(frame).expect("whole")).to_owned();
        };
        let mut shape = Vec::new();
        parts.for_each(|part| shape.push(kind(&read_part(part).expect("whole")))).expect("whole");
        shape.join("+")
    }

    #[test]
    fn a_request_is_one_frame() {
        let (head, log) = (Head::new(1), Kept::default());
        append(&head, &log, 2 * PAGE_SERIES + 1, 10, false);
        let new = std::mem::take(&mut *log.0.lock());
        // Whoever else knows the series may log samples of theirs first, so these are on their own.
        assert_eq!(
            new.iter().map(|frame| shape(frame)).collect::<Vec<_>>(),
            ["series", "series", "floats+floats+floats", "series"]
        );
        append(&head, &log, PAGE_SERIES, 20, false);
        append(&head, &log, PAGE_SERIES + 1, 30, true);
        let known = std::mem::take(&mut *log.0.lock());
        assert_eq!(
            known.iter().map(|frame| shape(frame)).collect::<Vec<_>>(),
            ["floats", "starts+floats+histograms+starts+floats+histograms"]
        );
    }
}
