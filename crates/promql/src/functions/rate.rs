//! How fast counters grow: `rate`, `increase`, `delta`, `irate`, `idelta`.

use tidewatch_model::FloatHistogram;
use tidewatch_model::histogram::CounterResetHint;
use tidewatch_parser::FunctionId;

use super::window::{Reduced, View, WindowCall};
use crate::notes::{Notes, Operation};
use crate::row::{Row, set_bit, words};
use crate::samples::Places;
use crate::window::Series;

/// Whether a sample's start time says that its counter was reset after the sample before it.
pub(super) fn is_start_reset(previous_start: i64, previous: i64, start: i64, time: i64) -> bool {
    // Zero is unknown, after the sample is nonsense, at the sample is how OpenTelemetry spells unknown.
    if start == 0 || start >= time || start < previous {
        return false;
    }
    if start > previous {
        return true;
    }
    // It starts where the sample before it was taken: a delta if that one has a start of its own
    // that makes sense, else a cumulative series whose start nobody knows.
    previous_start != 0 && previous_start < previous
}

fn overlaps(previous_start: i64, previous: i64, start: i64) -> bool {
    start != 0 && start < previous && start != previous_start
}

/// Where the samples of a window lie.
struct Placement {
    /// Between the window's start and the first sample, and the last sample and its end; seconds.
    to_start: f64,
    to_end: f64,
    /// Between the first and the last sample.
    sampled: f64,
    average: f64,
}

impl Placement {
    fn new(first: i64, last: i64, samples: usize, start: i64, end: i64) -> Placement {
        let sampled = (last - first) as f64 / 1000.0;
        let average = if samples > 1 { sampled / (samples - 1) as f64 } else { 0.0 };
        Placement {
            to_start: first.saturating_sub(start) as f64 / 1000.0,
            to_end: end.saturating_sub(last) as f64 / 1000.0,
            sampled,
            average,
        }
    }

    /// By what a growth between the samples is multiplied to hold for the whole window. Samples
    /// that begin or end about where the next one was due cover the window; else half an interval
    /// is added. `zero` is the growth before the first sample at which the counter was zero.
    fn factor(&self, zero: Option<f64>) -> f64 {
        let threshold = self.average * 1.1;
        let to_start = if self.to_start >= threshold { self.average / 2.0 } else { self.to_start };
        let to_start = match zero {
            Some(zero) if zero < to_start => zero,
            _ => to_start,
        };
        self.factor_from(to_start)
    }

    fn factor_from(&self, to_start: f64) -> f64 {
        let to_end = if self.to_end >= self.average * 1.1 { self.average / 2.0 } else { self.to_end };
        if self.sampled == 0.0 { 1.0 } else { (self.sampled + to_start + to_end) / self.sampled }
    }
}

/// What the times of a window say of how growth within it extrapolates: the same for every series
/// with these times.
pub(crate) struct Extrapolation {
    step: u32,
    /// The first and the last sample.
    first: u32,
    last: u32,
    placement: Placement,
    /// [`Placement::factor`] where the counter was not zero shortly before the first sample.
    factor: f64,
}

/// Remembers how the windows of several samples extrapolate.
fn extrapolate(series: &Series<'_>, places: &mut Places) {
    let times = &series.samples.times;
    let Places { bounds, extrapolations, extrapolated, .. } = places;
    extrapolated.clear();
    extrapolated.resize(words(bounds.len()), 0);
    for (step, (low, high)) in bounds.iter().enumerate().filter(|(_, (low, high))| low + 1 < *high) {
        let (first, last) = (*low, *high - 1);
        let (start, end) = (series.windows.start(step), series.windows.end(step));
        let placement =
            Placement::new(times[first as usize], times[last as usize], (high - low) as usize, start, end);
        let factor = placement.factor(None);
        set_bit(extrapolated, step);
        extrapolations.push(Extrapolation { step: step as u32, first, last, placement, factor });
    }
}

/// Rate, increase or delta of every window of a series of floats without start times.
///
/// `row` is empty. The loop has two loads, a division and a store for each step; all that depends
/// on times alone is in the extrapolations (bench: `promql/rate`).
pub(super) fn floats(call: &WindowCall, series: &Series<'_>, places: &mut Places, row: &mut Row) {
    let samples = series.samples;
    let values = &samples.values[..];
    let counter = call.id != FunctionId::Delta;
    let seconds = if call.id == FunctionId::Rate { call.range_ms as f64 / 1000.0 } else { 1.0 };
    if places.extrapolations.is_empty() {
        extrapolate(series, places);
    }
    for window in &places.extrapolations {
        let (low, high) = (window.first as usize, window.last as usize);
        let (first, last) = (values[low], values[high]);
        let mut growth = last - first;
        if counter && samples.resets_between(low, high) != 0 {
            let window = &values[low..=high];
            // One after the other: where values are so large that sums round, the order counts.
            let before = window.windows(2).filter(|pair| pair[1] < pair[0]).map(|pair| pair[0]);
            growth = before.fold(growth, |growth, value| growth + value);
        }
        let mut factor = window.factor;
        // A counter is never negative: it began where its line meets zero at the latest.
        if counter && growth > 0.0 && first >= 0.0 {
            let zero = window.placement.sampled * (first / growth);
            if zero < window.placement.to_start {
                factor = window.placement.factor(Some(zero));
            }
        }
        row.values[window.step as usize] = growth * (factor / seconds);
    }
    row.present.copy_from_slice(&places.extrapolated);
}

/// Rate, increase or delta of one window of any kind.
pub(super) fn extrapolated(
    call: &WindowCall,
    series: &Series<'_>,
    view: &View<'_>,
    notes: &mut Notes,
) -> Option<Reduced> {
    if !view.histograms.is_empty() && !view.values.is_empty() {
        notes.mixed_floats_histograms(series.labels, series.pos);
        return None;
    }
    let counter = call.id != FunctionId::Delta;
    let seconds = if call.id == FunctionId::Rate { call.range_ms as f64 / 1000.0 } else { 1.0 };
    let (times, starts) = if view.histograms.is_empty() {
        (view.times, view.starts)
    } else {
        (view.histogram_times, view.histogram_starts)
    };
    let (first, last) = (*times.first()?, *times.last()?);
    let placement = Placement::new(first, last, times.len(), view.start, view.end);
    // A first sample whose counter began inside of the window grew from zero since then.
    let began = starts.first().copied().filter(|s| counter && *s != 0 && *s > view.start && *s < first);
    if times.len() < 2 && began.is_none() {
        return None;
    }
    let mut placement = placement;
    if let Some(began) = began {
        placement.sampled = (last - began) as f64 / 1000.0;
    }
    if view.histograms.is_empty() {
        let growth = float_growth(counter, series, view, notes);
        let head = view.values[0];
        let growth = if began.is_some() { growth + head } else { growth };
        let factor = match began {
            Some(_) => placement.factor_from(0.0),
            None => {
                let zero =
                    (counter && growth > 0.0 && head >= 0.0).then(|| placement.sampled * (head / growth));
                placement.factor(zero)
            }
        };
        return Some(Reduced::Float(growth * (factor / seconds)));
    }
    let mut growth = match view.histograms.len() {
        1 => None,
        _ => Some(histogram_growth(counter, series, view, notes)?),
    };
    let head = &view.histograms[0];
    let factor = if began.is_some() {
        match &mut growth {
            None => growth = Some(FloatHistogram::clone(head)),
            Some(growth) => add_noting(growth, head, series, notes)?,
        }
        placement.factor_from(0.0)
    } else {
        let count = growth.as_ref().map_or(0.0, |growth| growth.count);
        let zero =
            (counter && count > 0.0 && head.count >= 0.0).then(|| placement.sampled * (head.count / count));
        placement.factor(zero)
    };
    let mut growth = growth?;
    growth.mul(factor / seconds);
    Some(Reduced::Histogram(growth))
}

fn float_growth(counter: bool, series: &Series<'_>, view: &View<'_>, notes: &mut Notes) -> f64 {
    let values = view.values;
    let mut growth = values[values.len() - 1] - values[0];
    if !counter {
        return growth;
    }
    note_overlap(series, view.times, view.starts, notes);
    for i in 1..values.len() {
        if values[i] < values[i - 1] || start_reset_at(view.times, view.starts, i) {
            growth += values[i - 1];
        }
    }
    growth
}

fn start_reset_at(times: &[i64], starts: &[i64], i: usize) -> bool {
    i < starts.len() && is_start_reset(starts[i - 1], times[i - 1], starts[i], times[i])
}

fn note_overlap(series: &Series<'_>, times: &[i64], starts: &[i64], notes: &mut Notes) {
    if (1..starts.len()).any(|i| overlaps(starts[i - 1], times[i - 1], starts[i])) {
        notes.start_overlaps(series.labels, series.pos);
    }
}

/// Adds with the notes that this may give; `None` where the two have no common layout.
pub(super) fn add_noting(
    sum: &mut FloatHistogram,
    other: &FloatHistogram,
    series: &Series<'_>,
    notes: &mut Notes,
) -> Option<()> {
    match sum.add(other) {
        Ok(reconciled) if reconciled.custom_bounds => {
            notes.bounds_reconciled(Operation::Addition, series.pos);
        }
        Ok(_) => {}
        Err(_) => {
            notes.mixed_exponential_custom(series.labels, series.pos);
            return None;
        }
    }
    Some(())
}

/// Subtracts with the notes that this may give; `None` where the two have no common layout.
pub(super) fn sub_noting(
    difference: &mut FloatHistogram,
    other: &FloatHistogram,
    series: &Series<'_>,
    notes: &mut Notes,
) -> Option<()> {
    match difference.sub(other) {
        Ok(reconciled) if reconciled.custom_bounds => {
            notes.bounds_reconciled(Operation::Subtraction, series.pos);
        }
        Ok(_) => {}
        Err(_) => {
            notes.mixed_exponential_custom(series.labels, series.pos);
            return None;
        }
    }
    Some(())
}

/// The growth over at least two histograms.
fn histogram_growth(
    counter: bool,
    series: &Series<'_>,
    view: &View<'_>,
    notes: &mut Notes,
) -> Option<FloatHistogram> {
    let (histograms, times, starts) = (view.histograms, view.histogram_times, view.histogram_starts);
    let newest = &histograms[histograms.len() - 1];
    let is_gauge = |h: &FloatHistogram| h.hint == CounterResetHint::Gauge;
    if counter && (is_gauge(&histograms[0]) || is_gauge(newest)) {
        notes.histogram_not_counter(series.labels, series.pos);
    }
    // After a reset between the first two, nothing of the first matters, its layout neither.
    let blank;
    let mut previous: &FloatHistogram = &histograms[0];
    if counter && (start_reset_at(times, starts, 1) || histograms[1].detect_reset(previous)) {
        blank = FloatHistogram {
            schema: histograms[1].schema,
            custom_values: histograms[1].custom_values.clone(),
            ..FloatHistogram::default()
        };
        previous = &blank;
    }
    let custom = previous.uses_custom_buckets();
    let mut schema = newest.schema.min(previous.schema);
    let inner = if counter { &histograms[1..histograms.len() - 1] } else { &[] };
    let mixed =
        newest.uses_custom_buckets() != custom || inner.iter().any(|h| h.uses_custom_buckets() != custom);
    if mixed {
        notes.mixed_exponential_custom(series.labels, series.pos);
        return None;
    }
    for histogram in inner {
        if is_gauge(histogram) {
            notes.histogram_not_counter(series.labels, series.pos);
        }
        schema = schema.min(histogram.schema);
    }
    let mut growth = newest.at_schema(schema);
    sub_noting(&mut growth, previous, series, notes)?;
    if counter {
        note_overlap(series, times, starts, notes);
        for (i, histogram) in histograms.iter().enumerate().skip(1) {
            if start_reset_at(times, starts, i) || histogram.detect_reset(previous) {
                add_noting(&mut growth, previous, series, notes)?;
            }
            previous = histogram;
        }
    } else if !is_gauge(&histograms[0]) || !is_gauge(newest) {
        notes.histogram_not_gauge(series.labels, series.pos);
    }
    growth.hint = CounterResetHint::Gauge;
    growth.compact();
    Some(growth)
}

/// `irate` and `idelta` of floats: what the last two samples tell.
pub(super) fn last_two(times: &[i64], values: &[f64], rate: bool) -> Option<f64> {
    let [.., before, now] = *times else { return None };
    let [.., a, b] = *values else { return None };
    if before == now {
        return None;
    }
    if !rate {
        return Some(b - a);
    }
    let growth = if b < a { b } else { b - a };
    Some(growth / ((now - before) as f64 / 1000.0))
}

/// One of the last two samples of a window.
#[derive(Clone, Copy)]
enum Sample<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}

/// `irate` and `idelta` of one window of any kind.
pub(super) fn instant(
    rate: bool,
    series: &Series<'_>,
    view: &View<'_>,
    notes: &mut Notes,
) -> Option<Reduced> {
    let at = |starts: &[i64], i: usize| starts.get(i).copied().unwrap_or(0);
    let tail = |len: usize| len.saturating_sub(2)..len;
    let mut samples: Vec<(i64, i64, Sample<'_>)> = tail(view.times.len())
        .map(|i| (view.times[i], at(view.starts, i), Sample::Float(view.values[i])))
        .collect();
    samples.extend(tail(view.histograms.len()).map(|i| {
        let sample = Sample::Histogram(&view.histograms[i]);
        (view.histogram_times[i], at(view.histogram_starts, i), sample)
    }));
    samples.sort_by_key(|(time, ..)| *time);
    let [.., (before, before_start, a), (now, start, b)] = samples[..] else { return None };
    if before == now {
        return None;
    }
    let seconds = (now - before) as f64 / 1000.0;
    let reset_by_start = is_start_reset(before_start, before, start, now);
    match (a, b) {
        (Sample::Float(a), Sample::Float(b)) => {
            let growth = if rate && (b < a || reset_by_start) { b } else { b - a };
            Some(Reduced::Float(if rate { growth / seconds } else { growth }))
        }
        (Sample::Histogram(a), Sample::Histogram(b)) => {
            let gauges = [a, b].map(|h| h.hint == CounterResetHint::Gauge);
            if rate && gauges.contains(&true) {
                notes.histogram_not_counter(series.labels, series.pos);
            } else if !rate && gauges.contains(&false) {
                notes.histogram_not_gauge(series.labels, series.pos);
            }
            let mut growth = b.clone();
            if !rate || !reset_by_start && !b.detect_reset(a) {
                sub_noting(&mut growth, a, series, notes)?;
            }
            growth.hint = CounterResetHint::Gauge;
            growth.compact();
            if rate {
                growth.div(seconds);
            }
            Some(Reduced::Histogram(growth))
        }
        _ => {
            notes.mixed_floats_histograms(series.labels, series.pos);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_between_two_samples_is_a_reset() {
        for (previous_start, start, reset) in [
            (0, 0, false),
            (0, 5, false),
            (0, 11, true),
            (0, 20, false),
            (0, 25, false),
            // At the sample before: a delta only where that has a start of its own.
            (0, 10, false),
            (5, 10, true),
            (10, 10, false),
            (12, 10, false),
        ] {
            assert_eq!(is_start_reset(previous_start, 10, start, 20), reset, "{previous_start} {start}");
        }
    }
}
