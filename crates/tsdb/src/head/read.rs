//! What a selector takes out of the head: a copy that stays whatever the head does next.
//!
//! Open runs are copied as tokens and clocks as rows, both small and shared by many; sealed runs
//! are shared by reference count. Nothing is decoded before it is asked for.

mod views;

use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashMap;
use tidewatch_model::{NativeHistogram, Sample};
use tidewatch_storage::{SelectError, TimeRange};

use super::Head;
use super::cells::NONE;
use super::histograms::{HistogramSeries, SealedRun};
use super::registry::SeriesId;
use super::sealed::ChunkBytes;
use super::shard::{Open, Shard};
use super::starts::Step;
use crate::debt::Debt;
use crate::intervals::Intervals;
use crate::resolve::Resolution;
use crate::rows::RowLayout;

pub(crate) use views::{HistogramRunView, RunView};

/// What the series of a resolution have in the head.
#[derive(Debug, Default)]
pub(crate) struct HeadSnapshot {
    /// One for each series of the resolution.
    series: Vec<SnapshotSeries>,
    runs: Vec<SnapshotRun>,
    /// Rows of all clocks, one after the other.
    rows: Vec<i64>,
    clocks: Vec<Range<u32>>,
    /// Tokens and columns that could not be shared.
    bytes: Vec<u8>,
    late: Vec<Sample>,
    histograms: Vec<HistogramRun>,
    late_histograms: Vec<(i64, NativeHistogram)>,
    steps: Vec<Step>,
    /// Beside what the columns hold, what histograms have on the heap.
    histogram_bytes: usize,
}

#[derive(Debug, Default, Clone)]
struct SnapshotSeries {
    /// Ascending in time.
    runs: Range<u32>,
    late: Range<u32>,
    histograms: Range<u32>,
    late_histograms: Range<u32>,
    /// When its counters started.
    steps: Range<u32>,
}

/// A run of native histograms.
#[derive(Debug)]
struct HistogramRun {
    run: RowSource,
    /// Rows before this time are in blocks.
    floor: i64,
    /// What is deleted of the runs of the series.
    deleted: Option<Intervals>,
    /// Whether it is the first of its series here.
    is_first: bool,
}

#[derive(Debug)]
enum RowSource {
    Sealed(SealedRun),
    Open { times: Vec<i64>, layout: Option<RowLayout>, rows: Vec<u8> },
}

#[derive(Debug)]
struct SnapshotRun {
    clock: u32,
    first_row: u8,
    count: u8,
    /// Rows at the start that are not read: blocks have them, or they are deleted.
    skip: u8,
    /// Where the rows end that are read.
    end: u8,
    values: RunSource,
}

#[derive(Debug, Clone)]
enum RunSource {
    /// An open run: tokens, and its newest value at hand.
    Tokens {
        bytes: Range<u32>,
        newest: f64,
    },
    /// A sealed run's column.
    Shared(Bytes),
    Copied(Range<u32>),
}

/// Which of the samples out of order a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LateOnes {
    All,
    /// Those of the cut under way.
    Cut,
}

impl Head {
    /// Copies what a selector needs: what its series have in `range`.
    pub(crate) fn snapshot(
        &self,
        resolution: &Resolution,
        range: TimeRange,
        debt: &mut Debt<'_, '_>,
    ) -> Result<HeadSnapshot, SelectError> {
        self.snapshot_of(resolution, range, LateOnes::All, debt)
    }

    /// Copies all that the series of a resolution have in `range`.
    pub(crate) fn whole_snapshot(&self, resolution: &Resolution, range: TimeRange) -> HeadSnapshot {
        let mut room = |_| true;
        let snapshot = self.snapshot_of(resolution, range, LateOnes::All, &mut Debt::new(&mut room));
        snapshot.expect("there is always room")
    }

    /// Copies the part that the cut under way has of some series.
    pub(crate) fn cut_snapshot(&self, resolution: &Resolution, range: TimeRange) -> HeadSnapshot {
        let mut room = |_| true;
        let snapshot = self.snapshot_of(resolution, range, LateOnes::Cut, &mut Debt::new(&mut room));
        snapshot.expect("there is always room")
    }

    fn snapshot_of(
        &self,
        resolution: &Resolution,
        range: TimeRange,
        which: LateOnes,
        debt: &mut Debt<'_, '_>,
    ) -> Result<HeadSnapshot, SelectError> {
        debt.owe(resolution.series.len() * size_of::<SnapshotSeries>())?;
        let series = vec![SnapshotSeries::default(); resolution.series.len()];
        let mut snapshot = HeadSnapshot { series, ..HeadSnapshot::default() };
        for (shard, of_shard) in self.shards.iter().zip(&resolution.of_shards) {
            if of_shard.is_empty() {
                continue;
            }
            let shard = shard.lock();
            let mut clocks = HashMap::new();
            for at in of_shard {
                let id = resolution.series[*at as usize].head.expect("listed as one of the head");
                let Some(open) = shard.get(id) else { continue };
                let before = snapshot.bytes();
                snapshot.series[*at as usize] =
                    snapshot.copy_series(&shard, id, open, range, which, &mut clocks);
                debt.owe(snapshot.bytes() - before)?;
            }
        }
        Ok(snapshot)
    }
}

impl Shard {
    /// Samples out of order of a series.
    fn late_of(&self, id: SeriesId) -> &[Sample] {
        self.late.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Visits the runs of a series that overlap a range, newest first.
    pub(super) fn for_each_run(&self, open: &Open, range: TimeRange, mut visit: impl FnMut(RunPlace)) {
        let start = range.start.max(self.floor);
        let mut place =
            RunPlace { clock: open.clock, first_row: open.first_row, count: open.count, chunk: NONE };
        let mut chunk = open.chunk;
        loop {
            if place.clock != NONE {
                let rows = self.clocks.rows(place.clock, place.first_row, place.count);
                let (Some(oldest), Some(newest)) = (rows.first(), rows.last()) else { return };
                if *newest < start {
                    return;
                }
                if *oldest <= range.end {
                    visit(place);
                }
            }
            if chunk == NONE {
                return;
            }
            let at = self.sealed.get(chunk);
            place = RunPlace { clock: at.clock, first_row: at.first_row, count: at.count, chunk };
            chunk = at.older;
        }
    }
}

/// Where a run stands in its shard; `chunk` is [`NONE`] for the open one.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunPlace {
    pub(super) clock: u32,
    pub(super) first_row: u8,
    pub(super) count: u8,
    chunk: u32,
}

pub(super) fn contains(range: TimeRange, timestamp: i64) -> bool {
    range.start <= timestamp && timestamp <= range.end
}

impl HeadSnapshot {
    /// All that one series of a shard has.
    pub(crate) fn of_series(shard: &Shard, id: SeriesId) -> HeadSnapshot {
        let mut snapshot =
            HeadSnapshot { series: vec![SnapshotSeries::default()], ..HeadSnapshot::default() };
        if let Some(open) = shard.get(id) {
            let all = TimeRange { start: i64::MIN, end: i64::MAX };
            snapshot.series[0] =
                snapshot.copy_series(shard, id, open, all, LateOnes::All, &mut HashMap::new());
        }
        snapshot
    }

    /// What the columns hold, the list of series apart.
    fn bytes(&self) -> usize {
        size_of_val(&self.runs[..])
            + size_of_val(&self.rows[..])
            + size_of_val(&self.clocks[..])
            + self.bytes.len()
            + size_of_val(&self.late[..])
            + size_of_val(&self.histograms[..])
            + size_of_val(&self.late_histograms[..])
            + self.histogram_bytes
            + size_of_val(&self.steps[..])
    }

    fn copy_series(
        &mut self,
        shard: &Shard,
        id: SeriesId,
        open: &Open,
        range: TimeRange,
        which: LateOnes,
        clocks: &mut HashMap<u32, u32>,
    ) -> SnapshotSeries {
        let runs = self.copy_runs(shard, id, open, range, clocks);
        let late = match which {
            _ if !open.has_late => &[],
            LateOnes::All => shard.late_of(id),
            LateOnes::Cut => shard.cutting(id),
        };
        let late = self.copy_late(late, range);
        let (histograms, late_histograms) = match shard.histograms.get(&id) {
            Some(series) if open.has_histograms => self.copy_histograms(shard, id, series, range, which),
            _ => (0..0, 0..0),
        };
        let is_empty = [&runs, &late, &histograms, &late_histograms].iter().all(|part| part.is_empty());
        let steps = if is_empty { 0..0 } else { self.copy_steps(shard, id) };
        SnapshotSeries { runs, late, histograms, late_histograms, steps }
    }

    fn copy_runs(
        &mut self,
        shard: &Shard,
        id: SeriesId,
        open: &Open,
        range: TimeRange,
        clocks: &mut HashMap<u32, u32>,
    ) -> Range<u32> {
        let start = self.runs.len();
        shard.for_each_run(open, range, |place| {
            let clock = *clocks.entry(place.clock).or_insert_with(|| self.copy_clock(shard, place.clock));
            let rows = shard.clocks.rows(place.clock, place.first_row, place.count);
            let skip = rows.partition_point(|row| *row < shard.floor);
            let values = if place.chunk == NONE {
                let from = self.bytes.len() as u32;
                shard.cells.copy_tokens(&open.tail, &mut self.bytes);
                RunSource::Tokens { bytes: from..self.bytes.len() as u32, newest: open.newest() }
            } else {
                match shard.sealed.bytes(shard.sealed.get(place.chunk)) {
                    ChunkBytes::Shared(bytes) => RunSource::Shared(bytes),
                    ChunkBytes::Filling(bytes) => {
                        let from = self.bytes.len() as u32;
                        self.bytes.extend_from_slice(bytes);
                        RunSource::Copied(from..self.bytes.len() as u32)
                    }
                }
            };
            let RunPlace { first_row, count, .. } = place;
            let run = SnapshotRun { clock, first_row, count, skip: skip as u8, end: count, values };
            match shard.deleted_of(id) {
                None => self.runs.push(run),
                Some(deleted) => self.push_kept(run, &rows[skip..], deleted),
            }
        });
        self.runs[start..].reverse();
        start as u32..self.runs.len() as u32
    }

    /// Adds what is left of a run, newest first as all runs come.
    fn push_kept(&mut self, run: SnapshotRun, rows: &[i64], deleted: &Intervals) {
        let from = self.runs.len();
        for kept in deleted.kept(rows) {
            let (skip, end) = (run.skip + kept.start as u8, run.skip + kept.end as u8);
            self.runs.push(SnapshotRun { skip, end, values: run.values.clone(), ..run });
        }
        self.runs[from..].reverse();
    }

    fn copy_clock(&mut self, shard: &Shard, clock: u32) -> u32 {
        let start = self.rows.len() as u32;
        self.rows.extend_from_slice(&shard.clocks.get(clock).rows);
        self.clocks.push(start..self.rows.len() as u32);
        self.clocks.len() as u32 - 1
    }

    fn copy_late(&mut self, late: &[Sample], range: TimeRange) -> Range<u32> {
        let start = self.late.len() as u32;
        self.late.extend(late.iter().filter(|sample| contains(range, sample.timestamp)));
        start..self.late.len() as u32
    }

    /// Whether a series has samples.
    pub(crate) fn has(&self, series: usize) -> bool {
        self.has_floats(series) || self.has_histograms(series)
    }

    /// Whether a series has more than floats.
    pub(crate) fn is_special(&self, series: usize) -> bool {
        self.has_histograms(series) || !self.steps(series).is_empty()
    }

    fn copy_histograms(
        &mut self,
        shard: &Shard,
        id: SeriesId,
        series: &HistogramSeries,
        range: TimeRange,
        which: LateOnes,
    ) -> (Range<u32>, Range<u32>) {
        let (start, late_start) = (self.histograms.len() as u32, self.late_histograms.len() as u32);
        let floor = shard.floor;
        let part = TimeRange { start: range.start.max(floor), end: range.end };
        let deleted = (!series.deleted.is_empty()).then(|| series.deleted.clone());
        let place = |run| HistogramRun { run, floor, deleted: deleted.clone(), is_first: false };
        let sealed = series.sealed_within(part).map(|run| RowSource::Sealed(run.clone()));
        self.histograms.extend(sealed.map(place));
        if series.has_open_within(part) {
            let (times, rows) = (series.open.times.clone(), series.open.rows.clone());
            self.histogram_bytes += size_of_val(&times[..]) + rows.len();
            self.histograms.push(place(RowSource::Open { times, layout: series.open.layout(), rows }));
        }
        if let Some(first) = self.histograms.get_mut(start as usize) {
            first.is_first = true;
        }
        let cutting = shard.cutting_histograms.get(&id).map_or(&[][..], Vec::as_slice);
        let chosen = |time: i64| which == LateOnes::All || cutting.binary_search(&time).is_ok();
        for (time, histogram) in &series.late {
            if contains(range, *time) && chosen(*time) {
                self.histogram_bytes += histogram.bucket_count() * size_of::<f64>();
                self.late_histograms.push((*time, histogram.clone()));
            }
        }
        (start..self.histograms.len() as u32, late_start..self.late_histograms.len() as u32)
    }

    fn copy_steps(&mut self, shard: &Shard, id: SeriesId) -> Range<u32> {
        let start = self.steps.len() as u32;
        // Most stores know no starts at all.
        if !shard.starts.is_empty()
            && let Some(starts) = shard.starts.get(&id)
        {
            self.steps.extend_from_slice(starts.steps());
        }
        start..self.steps.len() as u32
    }

    /// When the counters of a series started.
    pub(crate) fn steps(&self, series: usize) -> &[Step] {
        let range = &self.series[series].steps;
        &self.steps[range.start as usize..range.end as usize]
    }

    /// Whether a series has native histograms.
    pub(crate) fn has_histograms(&self, series: usize) -> bool {
        let SnapshotSeries { histograms, late_histograms, .. } = &self.series[series];
        !histograms.is_empty() || !late_histograms.is_empty()
    }

    /// Whether a series has floats.
    pub(crate) fn has_floats(&self, series: usize) -> bool {
        let SnapshotSeries { runs, late, .. } = &self.series[series];
        !runs.is_empty() || !late.is_empty()
    }

    /// Native histograms out of order of a series, ascending.
    pub(crate) fn late_histograms(&self, series: usize) -> &[(i64, NativeHistogram)] {
        let range = &self.series[series].late_histograms;
        &self.late_histograms[range.start as usize..range.end as usize]
    }

    /// The runs of native histograms of a series, ascending.
    pub(crate) fn histogram_runs(
        &self,
        series: usize,
    ) -> impl DoubleEndedIterator<Item = HistogramRunView<'_>> {
        let range = &self.series[series].histograms;
        self.histograms[range.start as usize..range.end as usize].iter().map(|run| HistogramRunView { run })
    }

    /// The runs of a series, by its number in the resolution.
    pub(crate) fn runs(&self, series: usize) -> impl DoubleEndedIterator<Item = RunView<'_>> {
        let range = &self.series[series].runs;
        self.runs[range.start as usize..range.end as usize].iter().map(|run| RunView { snapshot: self, run })
    }

    /// Samples out of order of a series, ascending; none of their times is among its runs.
    pub(crate) fn late(&self, series: usize) -> &[Sample] {
        let range = &self.series[series].late;
        &self.late[range.start as usize..range.end as usize]
    }
}

impl Open {
    fn newest(&self) -> f64 {
        f64::from_bits(self.tail.value)
    }
}
