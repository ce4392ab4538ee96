//! Functions of range vectors: each looks at the window of one series.

use std::sync::Arc;

use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{FloatHistogram, SampleValue};
use tidewatch_parser::{FunctionId, RangeModifier};

use super::aggregate::{add_up, extreme};
use super::eval::{Query, float};
use super::{Answer, Element, Window, distinct, numbers};

/// Where a window ends, how long it is and when it is looked at, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub end: i64,
    pub range: i64,
    pub now: i64,
    pub modifier: Option<RangeModifier>,
}

impl Bounds {
    fn start(&self) -> i64 {
        self.end - self.range
    }

    fn range_seconds(&self) -> f64 {
        self.range as f64 / 1000.0
    }
}

pub(super) fn call(
    query: &Query<'_>,
    function: FunctionId,
    numbers: &[f64],
    windows: Vec<Window>,
    bounds: Bounds,
) -> Result<Answer, String> {
    let keeps_name = matches!(function, FunctionId::LastOverTime | FunctionId::FirstOverTime);
    if function == FunctionId::DoubleExponentialSmoothing && !windows.is_empty() {
        for (factor, name) in numbers.iter().zip(["smoothing", "trend"]) {
            if *factor <= 0.0 || *factor >= 1.0 {
                return Err(format!("invalid {name} factor: {factor}"));
            }
        }
    }
    let mut result = Vec::new();
    for window in windows {
        if let Some(value) = one(query, function, numbers, &window, bounds) {
            let labels = if keeps_name { window.labels } else { window.labels.without_metric_name() };
            result.push(Element { labels, value });
        }
    }
    distinct(result)
}

fn one(
    query: &Query<'_>,
    function: FunctionId,
    numbers: &[f64],
    window: &Window,
    bounds: Bounds,
) -> Option<SampleValue> {
    use FunctionId as F;
    let floats: Vec<(i64, f64)> =
        window.points.iter().filter_map(|(time, value)| Some((*time, float(value)?))).collect();
    let histograms: Vec<(i64, Arc<FloatHistogram>)> = window
        .points
        .iter()
        .filter_map(|(time, value)| match value {
            SampleValue::Histogram(histogram) => Some((*time, Arc::clone(histogram))),
            SampleValue::Float(_) => None,
        })
        .collect();
    let points = &window.points;
    let seconds = |time: i64| time as f64 / 1000.0;
    let value = match function {
        F::Rate | F::Increase | F::Delta => {
            return growth(query, function, &floats, &histograms, bounds);
        }
        F::Changes | F::Resets if bounds.modifier.is_some() => {
            let count = if function == F::Changes { changes } else { resets };
            count(&anchored(points, bounds)?)
        }
        F::CountOverTime => points.len() as f64,
        F::PresentOverTime => 1.0,
        F::LastOverTime => return points.last().map(|(_, value)| value.clone()),
        F::FirstOverTime => return points.first().map(|(_, value)| value.clone()),
        F::TsOfFirstOverTime => seconds(points.first()?.0),
        F::TsOfLastOverTime => seconds(points.last()?.0),
        F::Changes => changes(points),
        F::Resets => resets(points),
        F::SumOverTime | F::AvgOverTime if !histograms.is_empty() => {
            return of_histograms(query, function, &histograms, !floats.is_empty());
        }
        F::Irate | F::Idelta => last_two(function, &floats)?,
        _ => of_floats(query, function, numbers, &floats, bounds)?,
    };
    Some(SampleValue::Float(value))
}

/// Functions that look at the floats alone.
fn of_floats(
    query: &Query<'_>,
    function: FunctionId,
    numbers: &[f64],
    floats: &[(i64, f64)],
    bounds: Bounds,
) -> Option<f64> {
    use FunctionId as F;
    let (first_time, _) = *floats.first()?;
    let values: Vec<f64> = floats.iter().map(|(_, value)| *value).collect();
    Some(match function {
        F::SumOverTime => numbers::sum(&values),
        F::AvgOverTime => numbers::mean(&values),
        F::MinOverTime => extreme(&values, |a, b| a < b),
        F::MaxOverTime => extreme(&values, |a, b| a > b),
        F::StdvarOverTime => numbers::variance(&values),
        F::StddevOverTime => numbers::variance(&values).sqrt(),
        F::QuantileOverTime => {
            if !(0.0..=1.0).contains(&numbers[0]) {
                query.warn();
            }
            numbers::quantile(numbers[0], &values)
        }
        F::MadOverTime if values.iter().any(|value| value.is_nan()) => f64::NAN,
        F::MadOverTime => {
            let median = numbers::quantile(0.5, &values);
            let distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
            numbers::quantile(0.5, &distances)
        }
        // Of equal values the last; a NaN gives way to any.
        F::TsOfMinOverTime => time_of(floats, |a, b| a <= b),
        F::TsOfMaxOverTime => time_of(floats, |a, b| a >= b),
        F::Deriv if floats.len() > 1 => numbers::regression(floats, first_time).0,
        F::PredictLinear if floats.len() > 1 => {
            let (slope, intercept) = numbers::regression(floats, bounds.now);
            slope * numbers[0] + intercept
        }
        F::DoubleExponentialSmoothing if floats.len() > 1 => smoothing(&values, numbers[0], numbers[1]),
        F::Deriv | F::PredictLinear | F::DoubleExponentialSmoothing => return None,
        other => unreachable!("the oracle leaves {other:?} out"),
    })
}

fn time_of(floats: &[(i64, f64)], beats: fn(f64, f64) -> bool) -> f64 {
    let mut best = floats[0];
    for point in floats {
        if beats(point.1, best.1) || best.1.is_nan() {
            best = *point;
        }
    }
    best.0 as f64 / 1000.0
}

/// Holt's double exponential smoothing.
fn smoothing(values: &[f64], factor: f64, trend_factor: f64) -> f64 {
    let (mut before, mut smoothed, mut trend) = (0.0, values[0], values[1] - values[0]);
    for (i, value) in values.iter().enumerate().skip(1) {
        if i > 1 {
            trend = trend_factor * (smoothed - before) + (1.0 - trend_factor) * trend;
        }
        let next = factor * value + (1.0 - factor) * (smoothed + trend);
        (before, smoothed) = (smoothed, next);
    }
    smoothed
}

fn changes(points: &[(i64, SampleValue)]) -> f64 {
    use SampleValue::{Float, Histogram};
    let changed = |pair: &&[(i64, SampleValue)]| match (&pair[0].1, &pair[1].1) {
        (Float(a), Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Histogram(a), Histogram(b)) => !a.same_data(b),
        _ => true,
    };
    points.windows(2).filter(changed).count() as f64
}

fn resets(points: &[(i64, SampleValue)]) -> f64 {
    use SampleValue::{Float, Histogram};
    let reset = |pair: &&[(i64, SampleValue)]| match (&pair[0].1, &pair[1].1) {
        (Float(a), Float(b)) => b < a,
        (Histogram(a), Histogram(b)) => b.detect_reset(a),
        _ => true,
    };
    points.windows(2).filter(reset).count() as f64
}

/// The window with the sample before it, if there is one; nothing where no sample is in it.
fn anchored(points: &[(i64, SampleValue)], bounds: Bounds) -> Option<Vec<(i64, SampleValue)>> {
    if points.last()?.0 <= bounds.start() {
        return None;
    }
    let before = points.iter().rposition(|(time, _)| *time <= bounds.start()).unwrap_or(0);
    Some(points[before..].to_vec())
}

fn of_histograms(
    query: &Query<'_>,
    function: FunctionId,
    histograms: &[(i64, Arc<FloatHistogram>)],
    mixed: bool,
) -> Option<SampleValue> {
    if mixed {
        query.warn();
        return None;
    }
    let all: Vec<&FloatHistogram> = histograms.iter().map(|(_, histogram)| &**histogram).collect();
    let mut total = add_up(query, &all)?;
    if function == FunctionId::AvgOverTime {
        total.div(all.len() as f64);
    }
    Some(SampleValue::Histogram(Arc::new(total)))
}

/// `irate` and `idelta`: the last two samples.
fn last_two(function: FunctionId, floats: &[(i64, f64)]) -> Option<f64> {
    let [.., (t0, before), (t1, now)] = floats else { return None };
    if function == FunctionId::Idelta {
        return Some(now - before);
    }
    let growth = if now < before { *now } else { now - before };
    Some(growth / ((t1 - t0) as f64 / 1000.0))
}

/// `rate`, `increase` and `delta`.
fn growth(
    query: &Query<'_>,
    function: FunctionId,
    floats: &[(i64, f64)],
    histograms: &[(i64, Arc<FloatHistogram>)],
    bounds: Bounds,
) -> Option<SampleValue> {
    let counter = function != FunctionId::Delta;
    let rate = function == FunctionId::Rate;
    if !floats.is_empty() && !histograms.is_empty() {
        query.warn();
        return None;
    }
    if bounds.modifier.is_some() {
        let increase = extended(floats, bounds, counter)?;
        return Some(SampleValue::Float(if rate { increase / bounds.range_seconds() } else { increase }));
    }
    if histograms.len() > 1 {
        let mut increase = histogram_increase(query, histograms, counter)?;
        let times: Vec<i64> = histograms.iter().map(|(time, _)| *time).collect();
        let first = histograms[0].1.count;
        let factor = extrapolation(&times, counter.then_some((first, increase.count)), bounds);
        increase.mul(if rate { factor / bounds.range_seconds() } else { factor });
        increase.compact();
        return Some(SampleValue::Histogram(Arc::new(increase)));
    }
    if floats.len() < 2 {
        return None;
    }
    let mut increase = floats[floats.len() - 1].1 - floats[0].1;
    if counter {
        // What was counted before each reset is not lost.
        for pair in floats.windows(2).filter(|pair| pair[1].1 < pair[0].1) {
            increase += pair[0].1;
        }
    }
    let times: Vec<i64> = floats.iter().map(|(time, _)| *time).collect();
    let factor = extrapolation(&times, counter.then_some((floats[0].1, increase)), bounds);
    Some(SampleValue::Float(increase * if rate { factor / bounds.range_seconds() } else { factor }))
}

/// How much longer than between its first and last sample a series is taken to grow. `counter`
/// is a counter's first value and its increase: it does not reach back to before it was zero.
fn extrapolation(times: &[i64], counter: Option<(f64, f64)>, bounds: Bounds) -> f64 {
    let (first, last) = (times[0], times[times.len() - 1]);
    let sampled = (last - first) as f64 / 1000.0;
    let mut to_start = (first - bounds.start()) as f64 / 1000.0;
    let mut to_end = (bounds.end - last) as f64 / 1000.0;
    let average = sampled / (times.len() - 1) as f64;
    let threshold = average * 1.1;
    if to_start >= threshold {
        to_start = average / 2.0;
    }
    if let Some((value, increase)) = counter
        && increase > 0.0
        && value >= 0.0
    {
        let to_zero = sampled * (value / increase);
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= threshold {
        to_end = average / 2.0;
    }
    (sampled + to_start + to_end) / sampled
}

/// Between the edges of the window themselves: on the values before them, or on lines through
/// the samples on both sides of them.
fn extended(floats: &[(i64, f64)], bounds: Bounds, counter: bool) -> Option<f64> {
    let smoothed = bounds.modifier == Some(RangeModifier::Smoothed);
    let (start, end) = (bounds.start(), bounds.end);
    let mut first = floats.iter().rposition(|(time, _)| *time <= start).unwrap_or(0);
    let mut last = floats.len().checked_sub(1)?;
    if smoothed {
        last = floats.iter().position(|(time, _)| *time >= end).unwrap_or(last);
    }
    if floats[last].0 <= start || smoothed && floats[first].0 > end {
        return None;
    }
    let left = match floats[first] {
        (time, value) if smoothed && time < start => {
            let (next_time, next) = floats[first + 1];
            line((time, value), (next_time, next), start, counter)
        }
        (_, value) => value,
    };
    let right = match floats[last] {
        (time, value) if smoothed && last > 0 && time > end => {
            let (previous_time, previous) = floats[last - 1];
            line((previous_time, previous), (time, value), end, counter)
        }
        (_, value) => value,
    };
    let mut increase = right - left;
    if counter {
        if floats[first].0 <= start {
            first += 1;
        }
        let until = if floats[last].0 >= end { last } else { last + 1 };
        let mut previous = left;
        for (_, value) in floats.get(first..until).unwrap_or_default() {
            if *value < previous {
                increase += previous;
            }
            previous = *value;
        }
        if right < previous {
            increase += previous;
        }
    }
    Some(increase)
}

/// The value at a time on the line between two samples. A counter that went down grew from zero.
fn line((t0, before): (i64, f64), (t1, after): (i64, f64), time: i64, counter: bool) -> f64 {
    let base = if counter && after < before { 0.0 } else { before };
    base + (after - base) * (time - t0) as f64 / (t1 - t0) as f64
}

/// The increase of a histogram between the first and the last sample.
fn histogram_increase(
    query: &Query<'_>,
    histograms: &[(i64, Arc<FloatHistogram>)],
    counter: bool,
) -> Option<FloatHistogram> {
    let all: Vec<&FloatHistogram> = histograms.iter().map(|(_, histogram)| &**histogram).collect();
    let last = all[all.len() - 1];
    let gauge = |histogram: &&FloatHistogram| histogram.hint == CounterResetHint::Gauge;
    if counter && all.iter().any(gauge) {
        query.warn();
    }
    // A first sample that is followed by a reset does not matter, nor does its layout.
    let nothing;
    let first = if counter && all[1].detect_reset(all[0]) {
        nothing = FloatHistogram {
            schema: all[1].schema,
            custom_values: all[1].custom_values.clone(),
            ..FloatHistogram::default()
        };
        &nothing
    } else {
        all[0]
    };
    let looked_at = if counter { &all[1..] } else { &all[all.len() - 1..] };
    if looked_at.iter().any(|histogram| histogram.uses_custom_buckets() != first.uses_custom_buckets()) {
        query.warn();
        return None;
    }
    let schema = looked_at.iter().map(|histogram| histogram.schema).min()?.min(first.schema);
    let mut increase = last.at_schema(schema);
    increase.sub(first).ok()?;
    if counter {
        let mut previous = first;
        for histogram in &all[1..] {
            if histogram.detect_reset(previous) {
                increase.add(previous).ok()?;
            }
            previous = histogram;
        }
    } else if !gauge(&all[0]) || !gauge(&last) {
        query.warn();
    }
    increase.hint = CounterResetHint::Gauge;
    increase.compact();
    Some(increase)
}
