//! Native histograms of a shard's series.
//!
//! ```text
//! histogram ─► take ─┬─ newer than the series' histograms ─► row of the open run
//!                    │     full, or of another layout: open run ─► column codec   (sealed run)
//!                    └─ older ─► there already? ─► duplicate, conflict
//!                                    └─ no ─► in blocks, perhaps? ─► asked about first (`late`)
//!                                                 └─ no ─► late, apart and sorted
//! ```
//!
//! Few series have histograms, so what they need lies beside the records of the series and not in
//! them; a record has one bit that says to look here. A series may have floats too: each kind is
//! kept by itself, what reads puts them together, and no time has both.
//!
//! Invariants: runs ascend, late ones apart; a histogram's hint is true of the one before it in its run
//! or the run before (deleted or not: who reads looks), or unknown; markers of staleness have no other content.

use bytes::Bytes;
use tidewatch_chunk::{HistogramEncoder, SampleKind, decode_histograms, decode_times, encode_times, fits};
use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{NativeHistogram, is_stale};
use tidewatch_storage::{Refusal, TimeRange};

use super::clock::ROWS_MAX;
use super::registry::SeriesId;
use super::sealed::check_readable;
use super::shard::{Open, Shard, Verdict};
use crate::fields::Reader;
use crate::intervals::Intervals;
use crate::log::FrameError;
use crate::rows::{RowLayout, push_fields, push_head, read_fields, read_head};

/// A row of the open run may take so many bytes on average before the run is sealed early.
const OPEN_BYTES_MAX: usize = 64 << 10;

/// The histograms of one series.
#[derive(Debug, Default)]
pub(crate) struct HistogramSeries {
    /// Ascending in time.
    pub(crate) sealed: Vec<SealedRun>,
    pub(crate) open: OpenRun,
    /// Out of order; ascending, and at no time of a run.
    pub(crate) late: Vec<(i64, NativeHistogram)>,
    /// What of the runs is deleted, see `deleted`.
    pub(crate) deleted: Intervals,
}

/// A run in the column codec.
#[derive(Debug, Clone)]
pub(crate) struct SealedRun {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) count: u32,
    pub(crate) kind: SampleKind,
    /// Where the column of timestamps ends and that of histograms begins.
    pub(crate) times_len: u32,
    pub(crate) bytes: Bytes,
    /// Whether the bytes are a file's, mapped.
    pub(crate) is_mapped: bool,
}

/// Rows that one layout fits.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenRun {
    pub(crate) times: Vec<i64>,
    /// See `rows`: head and fields of each, against the last that is no marker.
    pub(crate) rows: Vec<u8>,
    /// The newest row that is no marker.
    full: Option<NativeHistogram>,
    /// Whether the newest row is a marker.
    ends_stale: bool,
}

impl OpenRun {
    fn push(&mut self, timestamp: i64, histogram: &NativeHistogram) {
        self.times.push(timestamp);
        self.ends_stale = !push_head(histogram, &mut self.rows);
        if !self.ends_stale {
            push_fields(histogram, self.full.as_ref(), &mut self.rows);
            self.full = Some(histogram.clone());
        }
    }

    /// Whether a histogram can be the next row.
    fn takes(&self, next: &NativeHistogram) -> bool {
        let len = self.times.len();
        let alike = self.full.as_ref().is_none_or(|leader| fits(leader, len, next));
        len < ROWS_MAX && self.rows.len() < OPEN_BYTES_MAX && alike
    }

    pub(crate) fn newest(&self) -> Option<NativeHistogram> {
        match &self.full {
            _ if self.times.is_empty() => None,
            Some(full) if !self.ends_stale => Some(full.clone()),
            _ => Some(NativeHistogram::stale()),
        }
    }

    /// Where the rows' buckets are; `None` where all are markers.
    pub(crate) fn layout(&self) -> Option<RowLayout> {
        self.full.as_ref().map(RowLayout::of)
    }

    /// Puts a run back that was stored as times and rows.
    pub(crate) fn restore(
        times: Vec<i64>,
        layout: Option<&RowLayout>,
        rows: &[u8],
    ) -> Result<OpenRun, FrameError> {
        let mut run = OpenRun { times, rows: rows.to_vec(), full: None, ends_stale: false };
        decode_rows(layout, rows, run.times.len(), |histogram| {
            run.ends_stale = histogram.is_stale();
            if !run.ends_stale {
                run.full = Some(histogram.clone());
            }
        })?;
        Ok(run)
    }
}

/// Decodes the rows of an open run.
pub(crate) fn decode_rows(
    layout: Option<&RowLayout>,
    rows: &[u8],
    count: usize,
    mut visit: impl FnMut(&NativeHistogram),
) -> Result<(), FrameError> {
    let mut reader = Reader { bytes: rows };
    let mut full: Option<NativeHistogram> = None;
    for _ in 0..count {
        match read_head(&mut reader)? {
            None => visit(&NativeHistogram::stale()),
            Some(hint) => {
                let layout = layout.ok_or(FrameError::Malformed)?;
                let next = read_fields(layout, hint, full.as_ref(), &mut reader)?;
                visit(&next);
                full = Some(next);
            }
        }
    }
    if reader.bytes.is_empty() { Ok(()) } else { Err(FrameError::Malformed) }
}

impl SealedRun {
    pub(crate) fn times(&self, out: &mut Vec<i64>) -> Result<(), String> {
        let column = &self.bytes[..self.times_len as usize];
        decode_times(column, self.count as usize, out).map_err(|error| format!("a run of the head: {error}"))
    }

    pub(crate) fn column(&self) -> &[u8] {
        &self.bytes[self.times_len as usize..]
    }

    fn histogram_at(&self, timestamp: i64) -> Option<NativeHistogram> {
        let (mut times, mut histograms) = (Vec::new(), Vec::new());
        self.times(&mut times).ok()?;
        let at = times.binary_search(&timestamp).ok()?;
        decode_histograms(self.kind, self.column(), self.count as usize, &mut histograms).ok()?;
        check_readable(&self.bytes).ok()?;
        Some(histograms.swap_remove(at))
    }
}

impl HistogramSeries {
    /// Time of the newest histogram that came in order.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.open.times.last().copied().or_else(|| self.sealed.last().map(|run| run.last))
    }

    /// How many samples there are, deleted or not.
    pub(crate) fn count(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|run| u64::from(run.count)).sum();
        sealed + (self.open.times.len() + self.late.len()) as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.times.is_empty() && self.late.is_empty()
    }

    fn seal(&mut self, encoder: &mut HistogramEncoder) {
        let open = std::mem::take(&mut self.open);
        let (Some(first), Some(last)) = (open.times.first(), open.times.last()) else { return };
        let mut histograms = Vec::with_capacity(open.times.len());
        decode_rows(open.layout().as_ref(), &open.rows, open.times.len(), |row| histograms.push(row.clone()))
            .expect("an open run holds the rows of its samples");
        let mut bytes = Vec::new();
        encode_times(&open.times, &mut bytes);
        let times_len = bytes.len() as u32;
        let kind = encoder.encode(&histograms, &mut bytes);
        self.sealed.push(SealedRun {
            first: *first,
            last: *last,
            count: open.times.len() as u32,
            kind,
            times_len,
            bytes: Bytes::from(bytes),
            is_mapped: false,
        });
    }

    /// The histogram at a time. Runs are asked for theirs from `known_from` on.
    pub(super) fn at(&self, timestamp: i64, known_from: i64) -> Option<NativeHistogram> {
        if let Ok(at) = self.late.binary_search_by_key(&timestamp, |(time, _)| *time) {
            return Some(self.late[at].1.clone());
        }
        if timestamp < known_from || self.deleted.contains(timestamp) {
            return None;
        }
        if let Ok(at) = self.open.times.binary_search(&timestamp) {
            if at + 1 == self.open.times.len() {
                return self.open.newest();
            }
            let mut rows = Vec::new();
            decode_rows(self.open.layout().as_ref(), &self.open.rows, self.open.times.len(), |row| {
                rows.push(row.clone());
            })
            .ok()?;
            return Some(rows.swap_remove(at));
        }
        let after = self.sealed.partition_point(|run| run.first <= timestamp);
        self.sealed[..after].last().filter(|run| timestamp <= run.last)?.histogram_at(timestamp)
    }

    /// Visits the times of all samples, deleted or not.
    pub(crate) fn for_each_time(&self, mut visit: impl FnMut(i64)) {
        let mut times = Vec::new();
        for run in &self.sealed {
            times.clear();
            // What can not be read has at least its ends: a cut meets the damage and names it.
            match run.times(&mut times) {
                Ok(()) => times.iter().for_each(|time| visit(*time)),
                Err(_) => [run.first, run.last].into_iter().for_each(&mut visit),
            }
        }
        self.open.times.iter().for_each(|time| visit(*time));
        self.late.iter().for_each(|(time, _)| visit(*time));
    }

    pub(crate) fn has_samples(&self, range: TimeRange, floor: i64) -> bool {
        let part = TimeRange { start: range.start.max(floor), end: range.end };
        self.sealed_within(part).next().is_some()
            || self.has_open_within(part)
            || self.late.iter().any(|(time, _)| contains(range, *time))
    }

    /// Sealed runs that overlap a range and of which something is left.
    pub(crate) fn sealed_within(&self, range: TimeRange) -> impl Iterator<Item = &SealedRun> {
        let is_left = move |run: &SealedRun| {
            let mut times = Vec::new();
            // What can not be read is not left out: who reads it meets the damage and names it.
            self.deleted.is_empty() || run.times(&mut times).is_err() || self.keeps(&times, range)
        };
        let overlaps = move |run: &SealedRun| run.first <= range.end && run.last >= range.start;
        self.sealed.iter().filter(move |run| overlaps(run) && is_left(run))
    }

    /// Whether the same goes for the open run.
    pub(crate) fn has_open_within(&self, range: TimeRange) -> bool {
        let ends = self.open.times.first().zip(self.open.times.last());
        let overlaps = ends.is_some_and(|(first, last)| *first <= range.end && *last >= range.start);
        overlaps && (self.deleted.is_empty() || self.keeps(&self.open.times, range))
    }

    fn keeps(&self, times: &[i64], range: TimeRange) -> bool {
        self.deleted.kept(times).any(|rows| times[rows].iter().any(|time| contains(range, *time)))
    }

    /// From the oldest to the newest row of the runs, deleted or not.
    fn extent(&self) -> Option<TimeRange> {
        let start = self.sealed.first().map(|run| run.first).or_else(|| self.open.times.first().copied())?;
        Some(TimeRange { start, end: self.newest()? })
    }

    /// Deletes what there is in a range; gives how many samples that removed.
    fn delete(&mut self, range: TimeRange) -> u64 {
        if let Some(rows) = self.extent() {
            self.deleted.add(TimeRange { start: range.start.max(rows.start), end: range.end.min(rows.end) });
        }
        self.remove_late(|time| contains(range, time))
    }

    /// Hides what the runs have before a time at which they have a row, or later.
    pub(super) fn hide_before(&mut self, time: i64) {
        if let Some(rows) = self.extent().filter(|rows| rows.start < time && time <= rows.end) {
            self.deleted.add(TimeRange { start: rows.start, end: time - 1 });
        }
    }

    /// Whether there may be samples in a range that are not deleted.
    fn may_hold(&self, range: TimeRange) -> bool {
        let runs = self.extent().is_some_and(|rows| {
            let part = TimeRange { start: range.start.max(rows.start), end: range.end.min(rows.end) };
            part.start <= part.end && !self.deleted.covers(part)
        });
        runs || self.late.iter().any(|(time, _)| contains(range, *time))
    }

    /// Removes late ones by their times; gives how many.
    pub(crate) fn remove_late(&mut self, goes: impl Fn(i64) -> bool) -> u64 {
        let before = self.late.len();
        self.late.retain(|(time, _)| !goes(*time));
        (before - self.late.len()) as u64
    }

    /// Drops runs that lie before the floor; gives how many samples that were.
    pub(crate) fn truncate(&mut self, floor: i64) -> u64 {
        let gone = self.sealed.partition_point(|run| run.last < floor);
        let mut samples: u64 = self.sealed.drain(..gone).map(|run| u64::from(run.count)).sum();
        if self.open.times.last().is_some_and(|last| *last < floor) {
            samples += self.open.times.len() as u64;
            self.open = OpenRun::default();
        }
        let rows = self.extent().zip(self.deleted.last_ms());
        if rows.is_none_or(|(rows, deleted)| deleted < rows.start) {
            self.deleted = Intervals::default();
        }
        samples
    }

    pub(crate) fn bytes_held(&self) -> usize {
        let sealed: usize = self
            .sealed
            .iter()
            .map(|run| size_of::<SealedRun>() + if run.is_mapped { 0 } else { run.bytes.len() })
            .sum();
        // The newest row and the late ones are structures of their own; a bucket is 8 bytes.
        let of = |histogram: &NativeHistogram| size_of::<NativeHistogram>() + 8 * histogram.bucket_count();
        let open = self.open.times.capacity() * 8 + self.open.rows.capacity();
        let full = self.open.full.as_ref().map_or(0, of);
        let late: usize = self.late.iter().map(|(_, histogram)| 8 + of(histogram)).sum();
        sealed + open + full + late + size_of::<HistogramSeries>()
    }
}

fn contains(range: TimeRange, timestamp: i64) -> bool {
    range.start <= timestamp && timestamp <= range.end
}

/// The hint that a histogram is stored with: a gauge is one, a reset that its sender knows of is
/// one; else it is known to continue the one before it, or nothing is known.
pub(crate) fn stored_hint(
    histogram: &NativeHistogram,
    previous: Option<&NativeHistogram>,
) -> CounterResetHint {
    match histogram.hint() {
        known @ (CounterResetHint::Gauge | CounterResetHint::Reset) => known,
        CounterResetHint::Unknown | CounterResetHint::NotReset => match previous {
            Some(previous) if continues(histogram, previous) => CounterResetHint::NotReset,
            _ => CounterResetHint::Unknown,
        },
    }
}

fn continues(histogram: &NativeHistogram, previous: &NativeHistogram) -> bool {
    if previous.hint() == CounterResetHint::Gauge || previous.is_stale() {
        return false;
    }
    let (now, before) = (histogram.layout(), previous.layout());
    let alike = now.schema == before.schema
        && now.zero_threshold == before.zero_threshold
        && now.custom_values == before.custom_values;
    let mut unhinted = histogram.to_float();
    unhinted.hint = CounterResetHint::Unknown;
    histogram.is_stale() || alike && !unhinted.detect_reset(&previous.to_float())
}

impl Shard {
    /// Takes a histogram that is valid, or says why not. `window_ms`: how far behind its series
    /// it may be.
    pub(crate) fn take_histogram(
        &mut self,
        id: SeriesId,
        timestamp: i64,
        histogram: &NativeHistogram,
        window_ms: i64,
    ) -> Verdict {
        let mut series = self.histograms.remove(&id).unwrap_or_default();
        let verdict = self.take_into(&mut series, id, timestamp, histogram, window_ms);
        if verdict == Verdict::Taken {
            let is_late = series.newest() != Some(timestamp);
            self.taken_late += u64::from(is_late);
            self.count(timestamp);
        }
        if !series.is_empty() {
            self.histograms.insert(id, series);
            self.open_mut(id).has_histograms = true;
        }
        verdict
    }

    fn take_into(
        &mut self,
        series: &mut HistogramSeries,
        id: SeriesId,
        timestamp: i64,
        histogram: &NativeHistogram,
        window_ms: i64,
    ) -> Verdict {
        let open = *self.open_mut(id);
        let newest_float = self.newest_of(&open);
        let newest = series.newest();
        let newest_of_all = newest.max(newest_float);
        let newest_late = series.late.last().map(|(time, _)| *time);
        let is_late = newest.or(newest_late).is_some_and(|newest| timestamp <= newest)
            || self.is_late(timestamp, newest.is_some());
        if is_late || newest_of_all.is_some_and(|newest| timestamp <= newest) {
            if let Some(have) = series.at(timestamp, self.known_from) {
                let same = have.same_data(histogram);
                return if same { Verdict::Duplicate } else { self.conflict(timestamp) };
            }
            if let Some(value) = self.value_at(id, &open, timestamp) {
                let same = histogram.is_stale() && is_stale(value);
                return if same { Verdict::Duplicate } else { self.conflict(timestamp) };
            }
            if newest_of_all.is_some_and(|newest| timestamp < newest.saturating_sub(window_ms)) {
                return Verdict::Refused(Refusal::TooOld);
            }
        }
        if is_late && self.is_unsure(timestamp) {
            return Verdict::Unsure;
        }
        if is_late {
            let mut late = histogram.clone();
            late.set_hint(stored_hint(histogram, None));
            let at = series.late.partition_point(|(time, _)| *time < timestamp);
            series.late.insert(at, (timestamp, late));
            return Verdict::Taken;
        }
        let is_gone = newest.is_some_and(|newest| series.deleted.contains(newest));
        let follows = newest_float.max(newest_late) <= newest && !is_gone;
        let previous = series.open.newest().filter(|_| follows);
        let mut stored = histogram.clone();
        stored.set_hint(if histogram.is_stale() {
            CounterResetHint::Unknown
        } else {
            stored_hint(histogram, previous.as_ref())
        });
        if !series.open.takes(&stored) {
            series.seal(&mut self.histogram_encoder);
        }
        series.open.push(timestamp, &stored);
        Verdict::Taken
    }

    /// Deletes the histograms of a series in a range: those that it has now.
    pub(super) fn delete_histograms(&mut self, id: SeriesId, range: TimeRange) {
        let Some(series) = self.histograms.get_mut(&id) else { return };
        self.samples -= series.delete(range);
        self.forget_if_empty(id);
    }

    /// Whether a series may have histograms in a range that are not deleted.
    pub(super) fn may_hold_histograms(&self, id: SeriesId, range: TimeRange) -> bool {
        self.histograms.get(&id).is_some_and(|series| series.may_hold(range))
    }

    /// Forgets that a series has histograms where none is left.
    pub(super) fn forget_if_empty(&mut self, id: SeriesId) {
        if self.histograms.get(&id).is_some_and(HistogramSeries::is_empty) {
            self.histograms.remove(&id);
            self.open_mut(id).has_histograms = false;
        }
    }

    /// Whether the newest sample of a series is a histogram.
    pub(super) fn ends_in_histogram(&self, id: SeriesId, open: &Open) -> bool {
        let newest = self.histograms.get(&id).and_then(HistogramSeries::newest);
        newest > self.newest_of(open)
    }

    /// Whether a series ends at a time, as far as its histograms say.
    pub(super) fn is_stale_at(&self, id: SeriesId, timestamp: i64) -> bool {
        let histogram = self.histograms.get(&id).and_then(|series| series.at(timestamp, self.known_from));
        histogram.is_some_and(|histogram| histogram.is_stale())
    }

    /// Takes a float of a series that has histograms, too.
    pub(super) fn may_take_float(&self, id: SeriesId, timestamp: i64, window_ms: i64) -> Result<(), Refusal> {
        let Some(series) = self.histograms.get(&id) else { return Ok(()) };
        if series.at(timestamp, self.known_from).is_some() {
            return Err(Refusal::Conflict);
        }
        let too_old = |newest: i64| timestamp < newest.saturating_sub(window_ms);
        if series.newest().is_some_and(too_old) { Err(Refusal::TooOld) } else { Ok(()) }
    }
}
