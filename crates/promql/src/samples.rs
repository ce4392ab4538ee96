//! The samples of one series, gathered from its runs, and the windows over them.

use std::sync::Arc;

use hashbrown::HashMap;
use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{FloatHistogram, is_stale};
use tidewatch_storage::{Run, RunValues};

use crate::functions::Extrapolation;
use crate::grid::Grid;
use crate::plan::Shift;

/// Columns of one series, floats and histograms apart, each ascending in time.
///
/// Staleness markers are left out, or kept where the newest sample before a time is asked for.
#[derive(Default)]
pub(crate) struct Samples {
    pub times: Vec<i64>,
    pub values: Vec<f64>,
    /// When each counter started; empty where nothing is known.
    pub starts: Vec<i64>,
    pub histogram_times: Vec<i64>,
    pub histograms: Vec<Arc<FloatHistogram>>,
    pub histogram_starts: Vec<i64>,
    histogram_bytes: usize,
    /// How many resets lie at or before each float, for the functions that ask; empty where there
    /// is none.
    pub resets: Vec<u32>,
    /// The newest histogram with its buckets, where those are not kept.
    previous: Option<FloatHistogram>,
    /// The clocks of the runs, while all have one and no marker was left out.
    clocks: Vec<u64>,
    clocked: bool,
}

/// How a series is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    /// Staleness markers are kept.
    pub markers: bool,
    /// Histograms are stripped of their buckets, once it is known where they were reset.
    pub counts_only: bool,
}

/// Time and start timestamp of a sample, the latter 0 where there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub time: i64,
    pub start: i64,
}

impl Samples {
    pub(crate) fn clear(&mut self) {
        self.times.clear();
        self.values.clear();
        self.starts.clear();
        self.histogram_times.clear();
        self.histograms.clear();
        self.histogram_starts.clear();
        self.histogram_bytes = 0;
        self.resets.clear();
        self.previous = None;
        self.clocks.clear();
        self.clocked = true;
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len() + self.histogram_times.len()
    }

    /// When a float was taken, and since when it counts.
    pub(crate) fn float_at(&self, i: usize) -> Stamp {
        Stamp { time: self.times[i], start: self.starts.get(i).copied().unwrap_or(0) }
    }

    /// The same of a histogram.
    pub(crate) fn histogram_at(&self, i: usize) -> Stamp {
        Stamp { time: self.histogram_times[i], start: self.histogram_starts[i] }
    }

    /// Bytes that the columns hold.
    pub(crate) fn bytes(&self) -> u64 {
        (self.times.len() * 16 + self.starts.len() * 8 + self.histogram_bytes) as u64
    }

    /// Appends a run.
    pub(crate) fn push(&mut self, run: &Run<'_>, reading: Reading) {
        match run.values {
            RunValues::Floats(values) => self.push_floats(run, values, reading.markers),
            RunValues::Histograms(histograms) => self.push_histograms(run, histograms, reading),
        }
    }

    fn push_floats(&mut self, run: &Run<'_>, values: &[f64], markers: bool) {
        let starts = run.starts.filter(|starts| starts.iter().any(|start| *start != 0));
        if starts.is_some() {
            self.starts.resize(self.times.len(), 0);
        }
        if !markers && values.iter().any(|value| is_stale(*value)) {
            self.clocked = false;
            for (i, (time, value)) in run.timestamps.iter().zip(values).enumerate() {
                if !is_stale(*value) {
                    self.times.push(*time);
                    self.values.push(*value);
                    self.starts.extend(starts.map(|starts| starts[i]));
                }
            }
        } else {
            match run.clock {
                Some(clock) => self.clocks.extend([clock.0, values.len() as u64]),
                None => self.clocked = false,
            }
            self.times.extend_from_slice(run.timestamps);
            self.values.extend_from_slice(values);
            self.starts.extend_from_slice(starts.unwrap_or(&[]));
        }
        if !self.starts.is_empty() {
            self.starts.resize(self.times.len(), 0);
        }
    }

    fn push_histograms(&mut self, run: &Run<'_>, histograms: &[FloatHistogram], reading: Reading) {
        for (i, (time, histogram)) in run.timestamps.iter().zip(histograms).enumerate() {
            if !reading.markers && histogram.is_stale() {
                continue;
            }
            let kept = match reading.counts_only {
                true => self.without_buckets(histogram),
                false => histogram.clone(),
            };
            self.histogram_bytes += kept.size_bytes() + 24;
            self.histogram_times.push(*time);
            self.histograms.push(Arc::new(kept));
            self.histogram_starts.push(run.starts.map_or(0, |starts| starts[i]));
        }
    }

    /// Count and sum, with a hint that says what the buckets said of a reset.
    fn without_buckets(&mut self, histogram: &FloatHistogram) -> FloatHistogram {
        let mut hint = histogram.hint;
        if let (CounterResetHint::Unknown, Some(previous)) = (hint, &self.previous) {
            hint = match histogram.detect_reset(previous) {
                true => CounterResetHint::Reset,
                false => CounterResetHint::NotReset,
            };
        }
        if !histogram.is_stale() {
            self.previous = Some(histogram.clone());
        }
        FloatHistogram {
            hint,
            // The kind of buckets still tells what can be added to what.
            schema: histogram.schema,
            custom_values: histogram.custom_values.clone(),
            count: histogram.count,
            sum: histogram.sum,
            ..FloatHistogram::default()
        }
    }

    /// Appends one sample of a materialised row.
    pub(crate) fn push_float(&mut self, time: i64, value: f64) {
        self.times.push(time);
        self.values.push(value);
    }

    pub(crate) fn push_histogram(&mut self, time: i64, histogram: Arc<FloatHistogram>) {
        self.histogram_times.push(time);
        self.histograms.push(histogram);
        self.histogram_starts.push(0);
    }

    /// Names the clock of samples that were appended one by one.
    pub(crate) fn set_clock(&mut self, clock: Option<u64>) {
        self.clocked = clock.is_some();
        self.clocks.clear();
        self.clocks.extend(clock);
    }

    /// Counts the places where a float is below the one before it.
    pub(crate) fn count_resets(&mut self) {
        self.resets.clear();
        let pairs = self.values.iter().zip(self.values.get(1..).unwrap_or(&[]));
        // Most counters are never reset: this pass has no branch and no result to carry.
        if !pairs.fold(false, |any, (before, after)| any | (after < before)) {
            return;
        }
        self.resets.reserve(self.values.len());
        let (mut count, mut previous) = (0, f64::NEG_INFINITY);
        for value in &self.values {
            count += u32::from(*value < previous);
            previous = *value;
            self.resets.push(count);
        }
    }

    /// How many resets lie between two floats.
    pub(crate) fn resets_between(&self, first: usize, last: usize) -> u32 {
        if self.resets.is_empty() { 0 } else { self.resets[last] - self.resets[first] }
    }
}

/// The samples of one window: from the first index up to the second.
pub(crate) type Bound = (u32, u32);

/// The window of each step.
pub(crate) type Bounds = Vec<Bound>;

/// The windows `(end - length, end]` of all steps, `end` being each step's time after the shift,
/// moved by `extend` to the left and to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    pub grid: Grid,
    pub shift: Shift,
    pub length: i64,
    pub before: i64,
    pub after: i64,
}

impl Windows {
    /// The end of a step's window.
    pub(crate) fn end(&self, step: usize) -> i64 {
        self.shift.apply(self.grid.time(step))
    }

    pub(crate) fn start(&self, step: usize) -> i64 {
        self.end(step).saturating_sub(self.length)
    }

    /// The times of all samples that any window holds, both ends included.
    pub(crate) fn hull(&self) -> (i64, i64) {
        let last = self.grid.count.saturating_sub(1);
        let (a, b) = (self.end(0), self.end(last));
        let start = a.min(b).saturating_sub(self.length).saturating_sub(self.before);
        (start.saturating_add(1), a.max(b).saturating_add(self.after))
    }

    /// Bounds of all windows over ascending `times`: one pass over both.
    pub(crate) fn bounds(&self, times: &[i64], out: &mut Bounds) {
        out.clear();
        let (mut low, mut high) = (0, 0);
        for step in 0..self.grid.count {
            let end = self.end(step);
            let (from, to) =
                (end.saturating_sub(self.length).saturating_sub(self.before), end.saturating_add(self.after));
            while low < times.len() && times[low] <= from {
                low += 1;
            }
            high = high.max(low);
            while high < times.len() && times[high] <= to {
                high += 1;
            }
            out.push((low as u32, high as u32));
        }
    }
}

/// Where the windows lie in a column of times, and what follows from the times alone.
#[derive(Default)]
pub(crate) struct Places {
    pub bounds: Bounds,
    /// Samples of all windows, each counted as often as a window has it.
    pub samples: u64,
    /// How growth extrapolates in each window of several samples; empty until a kernel asks.
    pub extrapolations: Vec<Extrapolation>,
    /// The steps of `extrapolations`.
    pub extrapolated: Vec<u64>,
}

impl Places {
    fn locate(&mut self, windows: &Windows, times: &[i64]) {
        windows.bounds(times, &mut self.bounds);
        self.samples = self.bounds.iter().map(|(low, high)| u64::from(high - low)).sum();
        self.extrapolations.clear();
    }
}

/// Remembers the places of clocks, as the series of one target share theirs.
#[derive(Default)]
pub(crate) struct BoundsCache {
    known: HashMap<Box<[u64]>, Places>,
    scratch: Places,
    histograms: Bounds,
    /// All of `histograms` are empty windows.
    no_histograms: bool,
}

/// Clocks that are remembered: a few targets' worth in the order of labels.
const CLOCKS_MAX: usize = 256;

impl BoundsCache {
    /// Places of the floats and bounds of the histograms of `samples`.
    pub(crate) fn places(&mut self, windows: &Windows, samples: &Samples) -> (&mut Places, &[Bound]) {
        if !samples.histogram_times.is_empty() || self.histograms.len() != windows.grid.count {
            windows.bounds(&samples.histogram_times, &mut self.histograms);
            self.no_histograms = samples.histogram_times.is_empty();
        } else if !self.no_histograms {
            self.histograms.fill((0, 0));
            self.no_histograms = true;
        }
        if !samples.clocked || samples.clocks.is_empty() {
            self.scratch.locate(windows, &samples.times);
            return (&mut self.scratch, &self.histograms);
        }
        if !self.known.contains_key(&samples.clocks[..]) {
            if self.known.len() == CLOCKS_MAX {
                self.known.clear();
            }
            let mut places = Places::default();
            places.locate(windows, &samples.times);
            self.known.insert(samples.clocks.as_slice().into(), places);
        }
        (self.known.get_mut(&samples.clocks[..]).expect("inserted above"), &self.histograms)
    }
}
