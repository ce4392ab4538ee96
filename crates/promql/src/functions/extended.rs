//! `anchored` and `smoothed` selectors: ranges that know the samples next to their edges.
//!
//! An anchored range begins with the newest sample at or before its start. A smoothed one begins
//! and ends with values interpolated between the samples on both sides of its edges.

use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{FloatHistogram, Labels};
use tidewatch_parser::{FunctionId, PosRange, RangeModifier};

use super::over_time::count_transitions_from;
use super::rate::{add_noting, sub_noting};
use super::window::{Reduced, View, WindowCall};
use crate::notes::{Notes, Operation};
use crate::row::Row;
use crate::samples::{Samples, Windows};
use crate::window::Series;

/// What notes say of a series: its labels and the place of its selector.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub labels: &'a Labels,
    pub pos: PosRange,
}

/// A modified range function on one window.
pub(super) fn reduce(
    call: &WindowCall,
    series: &Series<'_>,
    view: &View<'_>,
    notes: &mut Notes,
) -> Option<Reduced> {
    if let FunctionId::Changes | FunctionId::Resets = call.id {
        let resets = call.id == FunctionId::Resets;
        return count_transitions_from(resets, view, view.start).map(Reduced::Float);
    }
    if !view.values.is_empty() && !view.histograms.is_empty() {
        notes.mixed_floats_histograms(series.labels, series.pos);
        return None;
    }
    let edges = |times: &[i64]| Edges::find(times, view, call.modifier);
    let counter = call.id != FunctionId::Delta;
    let seconds = if call.id == FunctionId::Rate { call.range_ms as f64 / 1000.0 } else { 1.0 };
    if view.histograms.is_empty() {
        let growth = float_growth(view.times, view.values, edges(view.times)?, counter);
        return Some(Reduced::Float(growth / seconds));
    }
    let edges = edges(view.histogram_times)?;
    let mut growth = histogram_growth(view, edges, counter, series, notes)?;
    if call.id == FunctionId::Rate {
        growth.div(seconds);
    }
    growth.hint = CounterResetHint::Gauge;
    growth.compact();
    Some(Reduced::Histogram(growth))
}

/// The samples at the edges of a range.
#[derive(Clone, Copy)]
struct Edges {
    first: usize,
    last: usize,
    start: i64,
    end: i64,
    smoothed: bool,
}

impl Edges {
    /// `None` where no sample lies within the range.
    fn find(times: &[i64], view: &View<'_>, modifier: Option<RangeModifier>) -> Option<Edges> {
        let smoothed = modifier == Some(RangeModifier::Smoothed);
        let mut last = times.len().checked_sub(1)?;
        let first = times[..last].partition_point(|time| *time <= view.start).saturating_sub(1);
        if smoothed {
            last = times[..last].partition_point(|time| *time < view.end);
        }
        if times[last] <= view.start || smoothed && times[first] > view.end {
            return None;
        }
        Some(Edges { first, last, start: view.start, end: view.end, smoothed })
    }

    /// Whether the left edge lies between two samples.
    fn cuts_left(&self, times: &[i64]) -> bool {
        self.smoothed && times[self.first] < self.start
    }

    fn cuts_right(&self, times: &[i64]) -> bool {
        self.smoothed && self.last > 0 && times[self.last] > self.end
    }
}

/// The value at `time` on the line between two samples. A counter that went down grew from zero.
fn interpolate((t1, v1): (i64, f64), (t2, v2): (i64, f64), time: i64, counter: bool) -> f64 {
    let base = if counter && v2 < v1 { 0.0 } else { v1 };
    base + (v2 - base) * (time - t1) as f64 / (t2 - t1) as f64
}

fn float_growth(times: &[i64], values: &[f64], edges: Edges, counter: bool) -> f64 {
    let at = |i: usize| (times[i], values[i]);
    let Edges { mut first, last, start, end, .. } = edges;
    let left = match edges.cuts_left(times) {
        true => interpolate(at(first), at(first + 1), start, counter),
        false => values[first],
    };
    let right = match edges.cuts_right(times) {
        true => interpolate(at(last - 1), at(last), end, counter),
        false => values[last],
    };
    let growth = right - left;
    if !counter {
        return growth;
    }
    // What lies at the edges is part of left and right already.
    first += usize::from(times[first] <= start);
    let until = if times[last] >= end { last } else { last + 1 };
    let (mut correction, mut previous) = (0.0, left);
    for value in values.get(first..until).unwrap_or(&[]).iter().chain([&right]) {
        if *value < previous {
            correction += previous;
        }
        previous = *value;
    }
    growth + correction
}

/// As [`interpolate`], for histograms; `None` where the two have no common layout.
fn interpolate_histograms(
    (t1, h1): (i64, &FloatHistogram),
    (t2, h2): (i64, &FloatHistogram),
    time: i64,
    counter: bool,
    place: Place<'_>,
    notes: &mut Notes,
) -> Option<FloatHistogram> {
    if time == t1 {
        return Some(h1.clone());
    }
    let mut result = h2.clone();
    if time == t2 {
        return Some(result);
    }
    let share = (time - t1) as f64 / (t2 - t1) as f64;
    if counter && h2.detect_reset(h1) {
        result.mul(share);
        return Some(result);
    }
    let mut combine = |outcome: Result<tidewatch_model::histogram::Reconciled, _>, operation| match outcome {
        Ok(reconciled) => {
            if reconciled.custom_bounds {
                notes.bounds_reconciled(operation, place.pos);
            }
            Some(())
        }
        Err(tidewatch_model::histogram::IncompatibleSchemas) => {
            notes.mixed_exponential_custom(place.labels, place.pos);
            None
        }
    };
    combine(result.sub(h1), Operation::Subtraction)?;
    result.mul(share);
    combine(result.add(h1), Operation::Addition)?;
    Some(result)
}

fn histogram_growth(
    view: &View<'_>,
    edges: Edges,
    counter: bool,
    series: &Series<'_>,
    notes: &mut Notes,
) -> Option<FloatHistogram> {
    let (times, histograms) = (view.histogram_times, view.histograms);
    let Edges { first, last, start, end, .. } = edges;
    let window = &histograms[first..=last];
    let custom = window[0].uses_custom_buckets();
    if window.iter().any(|h| h.uses_custom_buckets() != custom) {
        notes.mixed_exponential_custom(series.labels, series.pos);
        return None;
    }
    if counter && window.iter().any(|h| h.hint == CounterResetHint::Gauge) {
        notes.histogram_not_counter(series.labels, series.pos);
    }
    let place = Place { labels: series.labels, pos: series.pos };
    let at = |i: usize| (times[i], &*histograms[i]);
    let left = match edges.cuts_left(times) {
        true => interpolate_histograms(at(first), at(first + 1), start, counter, place, notes)?,
        false => FloatHistogram::clone(&histograms[first]),
    };
    let right = match edges.cuts_right(times) {
        true => interpolate_histograms(at(last - 1), at(last), end, counter, place, notes)?,
        false => FloatHistogram::clone(&histograms[last]),
    };
    let gauges = left.hint == CounterResetHint::Gauge && right.hint == CounterResetHint::Gauge;
    if !counter && !gauges {
        notes.histogram_not_gauge(series.labels, series.pos);
    }
    let mut growth = right.clone();
    sub_noting(&mut growth, &left, series, notes)?;
    if counter {
        correct_resets(&mut growth, view, edges, &left, &right, series, notes)?;
    }
    Some(growth)
}

/// Adds what was counted before each reset within the range.
fn correct_resets(
    growth: &mut FloatHistogram,
    view: &View<'_>,
    edges: Edges,
    left: &FloatHistogram,
    right: &FloatHistogram,
    series: &Series<'_>,
    notes: &mut Notes,
) -> Option<()> {
    let (times, histograms) = (view.histogram_times, view.histograms);
    let (mut from, mut previous) = (edges.first + 1, left);
    // A left edge interpolated across a reset has accounted for it: go on from behind it.
    if edges.cuts_left(times) && histograms[edges.first + 1].detect_reset(&histograms[edges.first]) {
        previous = &histograms[edges.first + 1];
        from += 1;
    }
    if from > edges.last {
        return Some(());
    }
    // The last sample is the right edge, whose hint must not be seen twice.
    let between = histograms[from..edges.last].iter().map(|h| &**h);
    let mut correction: Option<FloatHistogram> = None;
    for histogram in between.chain([right]) {
        if histogram.detect_reset(previous) {
            match &mut correction {
                None => correction = Some(previous.clone()),
                Some(correction) => add_noting(correction, previous, series, notes)?,
            }
        }
        previous = histogram;
    }
    match correction {
        Some(correction) => add_noting(growth, &correction, series, notes),
        None => Some(()),
    }
}

/// A smoothed instant selector: at each step the sample there, or the line between its
/// neighbours, or what came before.
pub(crate) fn smooth_row(
    samples: &Samples,
    windows: &Windows,
    place: Place<'_>,
    row: &mut Row,
    notes: &mut Notes,
) {
    for step in 0..windows.grid.count {
        let now = windows.end(step);
        let (from, to) = (now.saturating_sub(windows.length), now.saturating_add(windows.after));
        let range =
            |times: &[i64]| times.partition_point(|t| *t <= from)..times.partition_point(|t| *t <= to);
        let (floats, histograms) = (range(&samples.times), range(&samples.histogram_times));
        match (floats.is_empty(), histograms.is_empty()) {
            (true, true) => {}
            (false, true) => {
                let (times, values) = (&samples.times[floats.clone()], &samples.values[floats]);
                if let Some(value) = smooth_float(times, values, now) {
                    row.set(step, value);
                }
            }
            (true, false) => {
                let times = &samples.histogram_times[histograms.clone()];
                let found = smooth_histogram(times, &samples.histograms[histograms], now, place, notes);
                if let Some(histogram) = found {
                    row.set_histogram(step, histogram.into());
                }
            }
            (false, false) => notes.mixed_floats_histograms(place.labels, place.pos),
        }
    }
}

fn smooth_float(times: &[i64], values: &[f64], now: i64) -> Option<f64> {
    let next = times.partition_point(|time| *time < now);
    match times.get(next) {
        Some(time) if *time == now => Some(values[next]),
        _ if next == 0 => None,
        Some(time) => {
            let before = (times[next - 1], values[next - 1]);
            Some(interpolate(before, (*time, values[next]), now, false))
        }
        None => Some(values[next - 1]),
    }
}

fn smooth_histogram(
    times: &[i64],
    histograms: &[std::sync::Arc<FloatHistogram>],
    now: i64,
    place: Place<'_>,
    notes: &mut Notes,
) -> Option<FloatHistogram> {
    let next = times.partition_point(|time| *time < now);
    match times.get(next) {
        Some(time) if *time == now => Some(FloatHistogram::clone(&histograms[next])),
        _ if next == 0 => None,
        Some(time) => {
            let (before, after) = (&histograms[next - 1], &histograms[next]);
            if before.uses_custom_buckets() != after.uses_custom_buckets() {
                notes.mixed_exponential_custom(place.labels, place.pos);
                return None;
            }
            let counter = after.hint != CounterResetHint::Gauge;
            let (a, b) = ((times[next - 1], &**before), (*time, &**after));
            interpolate_histograms(a, b, now, counter, place, notes)
        }
        None => Some(FloatHistogram::clone(&histograms[next - 1])),
    }
}
