//! Reductions of a window: sums, means, extremes, spread, counts of transitions.
//!
//! Kernels for floats are free functions on slices that are not empty.

use std::collections::VecDeque;

use tidewatch_model::FloatHistogram;
use tidewatch_model::histogram::{CounterResetHint, IncompatibleSchemas, Reconciled, kahan_inc};

use super::rate::is_start_reset;
use super::window::{Reduced, View};
use crate::context::QueryError;
use crate::guard::Checks;
use crate::notes::{Notes, Operation};
use crate::quantile::{nan_first, quantile};
use crate::row::Row;
use crate::samples::Bound;
use crate::window::Series;

pub(super) fn sum(values: &[f64]) -> f64 {
    let (mut sum, mut compensation) = (0.0, 0.0);
    for value in values {
        kahan_inc(*value, &mut sum, &mut compensation);
    }
    if sum.is_infinite() { sum } else { sum + compensation }
}

/// The mean: of the compensated sum while that is finite, incremental from where it is not.
pub(super) fn avg(values: &[f64]) -> f64 {
    let (mut sum, mut compensation, mut count) = (values[0], 0.0, 1.0);
    for (i, value) in values.iter().enumerate().skip(1) {
        count = (i + 1) as f64;
        let (mut next, mut next_compensation) = (sum, compensation);
        kahan_inc(*value, &mut next, &mut next_compensation);
        if next.is_infinite() {
            return incremental_avg(sum / i as f64, compensation / i as f64, &values[i..], i as f64);
        }
        (sum, compensation) = (next, next_compensation);
    }
    sum / count + compensation / count
}

/// Windows that are reduced side by side.
const LANES: usize = 4;

/// Compensated sums of [`LANES`] windows of one length: each addition of a sum waits for the one
/// before it, so that several sums together take hardly longer than one (bench: `promql/avg`).
fn sums(windows: [&[f64]; LANES]) -> [(f64, f64); LANES] {
    let mut sums = [(0.0, 0.0); LANES];
    for i in 0..windows[0].len() {
        for (window, (sum, compensation)) in windows.iter().zip(&mut sums) {
            kahan_inc(window[i], sum, compensation);
        }
    }
    sums
}

/// Reduces every window by its sum: `whole` where that is finite, `other` from the window where
/// it is not.
pub(super) fn by_sum(
    values: &[f64],
    bounds: &[Bound],
    row: &mut Row,
    checks: &mut Checks<'_>,
    whole: impl Fn(f64, f64, f64) -> f64,
    other: impl Fn(&[f64]) -> f64,
) -> Result<(), QueryError> {
    let window = |(low, high): &Bound| &values[*low as usize..*high as usize];
    let (quads, rest) = bounds.as_chunks::<LANES>();
    for (quad, bounds) in quads.iter().enumerate() {
        let windows = bounds.each_ref().map(window);
        let len = windows[0].len();
        checks.worked(len * LANES)?;
        if len == 0 || windows.iter().any(|window| window.len() != len) {
            let ragged = windows.iter().enumerate().filter(|(_, window)| !window.is_empty());
            ragged.for_each(|(lane, window)| row.set(quad * LANES + lane, other(window)));
            continue;
        }
        for (lane, (sum, compensation)) in sums(windows).into_iter().enumerate() {
            let value = match sum.is_finite() {
                true => whole(sum, compensation, len as f64),
                false => other(windows[lane]),
            };
            row.set(quad * LANES + lane, value);
        }
    }
    for (step, bound) in rest.iter().enumerate().filter(|(_, (low, high))| low < high) {
        row.set(quads.len() * LANES + step, other(window(bound)));
    }
    Ok(())
}

/// Visits each window with its values in ascending order, NaN first. Windows that overlap share
/// the work: what leaves is taken out and what comes is put in its place.
pub(super) fn sorted_windows(
    values: &[f64],
    bounds: &[Bound],
    sorted: &mut Vec<f64>,
    mut visit: impl FnMut(usize, &[f64]) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    let (mut from, mut until) = (0, 0);
    sorted.clear();
    for (step, (low, high)) in bounds.iter().enumerate().filter(|(_, (low, high))| low < high) {
        let (low, high) = (*low as usize, *high as usize);
        // Each move costs about as much as sorting a few values.
        let moved = (low - from) + (high - until);
        if low >= until || moved * 2 > high - low {
            sorted.clear();
            sorted.extend_from_slice(&values[low..high]);
            sorted.sort_unstable_by(nan_first);
        } else {
            for value in &values[from..low] {
                sorted.remove(place(sorted, *value));
            }
            for value in &values[until..high] {
                sorted.insert(place(sorted, *value), *value);
            }
        }
        (from, until) = (low, high);
        visit(step, sorted)?;
    }
    Ok(())
}

/// How many sorted values come before `value`. Few are counted without a branch, which costs less
/// than guessing wrong at each turn of a search (bench: `promql/quantile`).
fn place(sorted: &[f64], value: f64) -> usize {
    const FEW: usize = 128;
    if sorted.len() > FEW || value.is_nan() {
        return sorted.partition_point(|other| nan_first(other, &value).is_lt());
    }
    sorted.iter().map(|other| usize::from((*other < value) | other.is_nan())).sum()
}

/// Goes on from the mean of `seen` values.
fn incremental_avg(mut mean: f64, mut compensation: f64, values: &[f64], seen: f64) -> f64 {
    let mut count = seen;
    for value in values {
        count += 1.0;
        let q = (count - 1.0) / count;
        mean *= q;
        compensation *= q;
        kahan_inc(value / count, &mut mean, &mut compensation);
    }
    mean + compensation
}

pub(super) fn max(values: &[f64]) -> f64 {
    values.iter().fold(values[0], |max, value| if *value > max || max.is_nan() { *value } else { max })
}

pub(super) fn min(values: &[f64]) -> f64 {
    values.iter().fold(values[0], |min, value| if *value < min || min.is_nan() { *value } else { min })
}

/// The extreme of every window, in one pass: a queue holds the values that may yet be one, the
/// best first, as both ends of the windows only ascend. `beats` tells whether a value takes the
/// place of an earlier one. NaN is an extreme only where there is nothing else.
pub(super) fn sliding(values: &[f64], bounds: &[Bound], row: &mut Row, beats: impl Fn(f64, f64) -> bool) {
    let mut queue: VecDeque<u32> = VecDeque::new();
    let mut next = 0;
    for (step, (low, high)) in bounds.iter().enumerate() {
        while next < *high {
            let value = values[next as usize];
            if !value.is_nan() {
                while queue.back().is_some_and(|last| beats(value, values[*last as usize])) {
                    queue.pop_back();
                }
                queue.push_back(next);
            }
            next += 1;
        }
        while queue.front().is_some_and(|first| first < low) {
            queue.pop_front();
        }
        if low < high {
            row.set(step, queue.front().map_or(f64::NAN, |first| values[*first as usize]));
        }
    }
}

/// The index of the last value that `beats` all before it.
pub(super) fn last_extreme(values: &[f64], beats: impl Fn(f64, f64) -> bool) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if beats(*value, values[best]) || values[best].is_nan() {
            best = i;
        }
    }
    best
}

/// The population variance, by Welford's method with compensation.
pub(super) fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut mean_c, mut aux, mut aux_c) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for value in values {
        count += 1.0;
        let delta = value - (mean + mean_c);
        kahan_inc(delta / count, &mut mean, &mut mean_c);
        kahan_inc(delta * (value - (mean + mean_c)), &mut aux, &mut aux_c);
    }
    (aux + aux_c) / count
}

/// The median of the distances from the median; NaN where there is one among the values.
pub(super) fn median_deviation(values: &[f64], scratch: &mut Vec<f64>) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    scratch.clear();
    scratch.extend_from_slice(values);
    let median = quantile(0.5, scratch);
    scratch.clear();
    scratch.extend(values.iter().map(|value| (value - median).abs()));
    quantile(0.5, scratch)
}

pub(super) fn changes(values: &[f64]) -> f64 {
    let changed = |pair: &&[f64]| pair[0] != pair[1] && !(pair[0].is_nan() && pair[1].is_nan());
    values.windows(2).filter(changed).count() as f64
}

/// The newest or the oldest sample; of a float and a histogram at one time the histogram.
pub(super) fn edge(view: &View<'_>, newest: bool) -> Option<Reduced> {
    let pick = |len: usize| if newest { len.checked_sub(1) } else { (len > 0).then_some(0) };
    let (float, histogram) = (pick(view.times.len()), pick(view.histograms.len()));
    let histogram_first = match (float, histogram) {
        (Some(f), Some(h)) if newest => view.times[f] <= view.histogram_times[h],
        (Some(f), Some(h)) => view.times[f] >= view.histogram_times[h],
        (float, _) => float.is_none(),
    };
    if histogram_first {
        return histogram.map(|i| Reduced::Shared(view.histograms[i].clone()));
    }
    float.map(|i| Reduced::Float(view.values[i]))
}

/// One sample of either kind.
#[derive(Clone, Copy)]
enum Sample<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}

/// Samples of both kinds in the order of time, with their times and starts.
fn merged<'a>(view: &'a View<'_>) -> Vec<(i64, i64, Sample<'a>)> {
    let start = |starts: &[i64], i: usize| starts.get(i).copied().unwrap_or(0);
    let floats = view.times.iter().zip(view.values).enumerate();
    let floats = floats.map(|(i, (time, value))| (*time, start(view.starts, i), Sample::Float(*value)));
    let histograms = view.histogram_times.iter().zip(view.histograms).enumerate();
    let histograms =
        histograms.map(|(i, (time, h))| (*time, start(view.histogram_starts, i), Sample::Histogram(h)));
    let mut samples: Vec<_> = floats.chain(histograms).collect();
    samples.sort_by_key(|(time, ..)| *time);
    samples
}

/// How often one sample follows another as after a reset, or differs from it. A change of kind
/// is both.
pub(super) fn count_transitions(resets: bool, view: &View<'_>) -> Option<f64> {
    count_transitions_from(resets, view, i64::MIN)
}

/// As [`count_transitions`], from the newest sample at or before `anchor` on, where there is one.
pub(super) fn count_transitions_from(resets: bool, view: &View<'_>, anchor: i64) -> Option<f64> {
    let samples = merged(view);
    let first = samples.partition_point(|(time, ..)| *time <= anchor).saturating_sub(1);
    if samples.last().is_none_or(|(time, ..)| *time <= anchor) {
        return None;
    }
    let pairs = samples[first..].windows(2);
    let counted = pairs.filter(|pair| {
        let ((before, before_start, a), (now, now_start, b)) = (pair[0], pair[1]);
        if resets && is_start_reset(before_start, before, now_start, now) {
            return true;
        }
        match (a, b) {
            (Sample::Float(a), Sample::Float(b)) if resets => b < a,
            (Sample::Float(a), Sample::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
            (Sample::Histogram(a), Sample::Histogram(b)) if resets => b.detect_reset(a),
            (Sample::Histogram(a), Sample::Histogram(b)) => !b.same_data(a),
            _ => true,
        }
    });
    Some(counted.count() as f64)
}

/// `sum_over_time` and `avg_over_time` of floats or of histograms, never of both.
pub(super) fn sum_or_avg(
    average: bool,
    series: &Series<'_>,
    view: &View<'_>,
    notes: &mut Notes,
) -> Option<Reduced> {
    if view.histograms.is_empty() {
        return Some(Reduced::Float(if average { avg(view.values) } else { sum(view.values) }));
    }
    if !view.values.is_empty() {
        notes.mixed_floats_histograms(series.labels, series.pos);
        return None;
    }
    let mut hints = Hints::default();
    let mut fold = if average { fold_avg(view, &mut hints) } else { fold_sum(view, &mut hints) };
    hints.note(series, notes);
    match &mut fold {
        Ok(_) => {}
        Err(IncompatibleSchemas) => notes.mixed_exponential_custom(series.labels, series.pos),
    }
    fold.ok().map(Reduced::Histogram)
}

/// What was seen on the way through a window of histograms.
#[derive(Default)]
struct Hints {
    reset: bool,
    not_reset: bool,
    bounds: bool,
}

impl Hints {
    fn see(&mut self, histogram: &FloatHistogram) {
        self.reset |= histogram.hint == CounterResetHint::Reset;
        self.not_reset |= histogram.hint == CounterResetHint::NotReset;
    }

    fn reconciled(&mut self, reconciled: Reconciled) {
        self.bounds |= reconciled.custom_bounds;
    }

    fn note(&self, series: &Series<'_>, notes: &mut Notes) {
        if self.reset && self.not_reset {
            notes.reset_collision(Operation::Aggregation, series.pos);
        }
        if self.bounds {
            notes.bounds_reconciled(Operation::Aggregation, series.pos);
        }
    }
}

fn fold_sum(view: &View<'_>, hints: &mut Hints) -> Result<FloatHistogram, IncompatibleSchemas> {
    let mut sum = FloatHistogram::clone(&view.histograms[0]);
    hints.see(&sum);
    let mut compensation = sum.compensation();
    for histogram in &view.histograms[1..] {
        hints.see(histogram);
        hints.reconciled(sum.kahan_add(histogram, &mut compensation)?);
    }
    if view.histograms.len() > 1 {
        sum.add(&compensation)?;
    }
    Ok(sum)
}

/// As [`avg`]: of the sum while that is finite, incremental from where it is not.
fn fold_avg(view: &View<'_>, hints: &mut Hints) -> Result<FloatHistogram, IncompatibleSchemas> {
    let mut mean = FloatHistogram::clone(&view.histograms[0]);
    hints.see(&mean);
    let mut compensation = mean.compensation();
    let (mut incremental, mut count) = (false, 1.0);
    for (i, histogram) in view.histograms.iter().enumerate().skip(1) {
        hints.see(histogram);
        count = (i + 1) as f64;
        if !incremental {
            let (mut next, mut next_compensation) = (mean.clone(), compensation.clone());
            hints.reconciled(next.kahan_add(histogram, &mut next_compensation)?);
            if !next.has_overflow() {
                (mean, compensation) = (next, next_compensation);
                continue;
            }
            incremental = true;
            mean.div(count - 1.0);
            compensation.div(count - 1.0);
        }
        let q = (count - 1.0) / count;
        let mut part = FloatHistogram::clone(histogram);
        part.div(count);
        mean.mul(q);
        compensation.mul(q);
        hints.reconciled(mean.kahan_add(&part, &mut compensation)?);
    }
    if !incremental {
        mean.div(count);
        compensation.div(count);
    }
    if view.histograms.len() > 1 {
        mean.add(&compensation)?;
    }
    Ok(mean)
}
