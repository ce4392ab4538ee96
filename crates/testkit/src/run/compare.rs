//! Compares an answer with what a script expects, in Prometheus' words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tidewatch_model::histogram::{Span, format_g};
use tidewatch_model::{FloatHistogram, InstantSample, Labels, RangeSeries, SampleValue, Value, format_float};
use tidewatch_parser::{SequenceValue, histogram_notation};

use super::almost::{EPSILON, almost_equal};
use crate::script::{Eval, Expected, ExpectedSeries, Points, Time};

/// Compares a whole answer.
pub(super) fn value(eval: &Eval, value: &Value) -> Result<(), String> {
    match value {
        Value::Scalar { timestamp, value } => scalar(&eval.expected, *timestamp, *value),
        Value::String { value, .. } => {
            let expected = if let Expected::String(expected) = &eval.expected { expected } else { "" };
            if expected == value {
                return Ok(());
            }
            Err(format!("expected string \"{expected}\" but got \"{value}\""))
        }
        Value::Vector(samples) => vector(eval, samples),
        Value::Matrix(series) => matrix(eval, series),
    }
}

/// Compares the step at `at` of a range query with what the instant query had to give.
pub(super) fn range_as_instant(eval: &Eval, instant: &Value, range: Value, at: i64) -> Result<(), String> {
    let Value::Matrix(series) = range else {
        return Err("a range query gave no matrix".to_owned());
    };
    sorted(&series)?;
    let samples: Vec<InstantSample> = series.iter().filter_map(|series| step(series, at)).collect();
    if matches!(instant, Value::Scalar { .. }) {
        let Some(InstantSample { value: SampleValue::Float(value), .. }) = samples.first() else {
            return Err("expected a scalar, but the range has no value at this step".to_owned());
        };
        return scalar(&eval.expected, at, *value);
    }
    vector(eval, &samples)
}

fn step(series: &RangeSeries, at: i64) -> Option<InstantSample> {
    let float = series.floats.iter().find(|(t, _)| *t == at).map(|(_, value)| SampleValue::Float(*value));
    let histogram = || series.histograms.iter().find(|(t, _)| *t == at);
    let value = float.or_else(|| histogram().map(|(_, h)| SampleValue::Histogram(h.clone())))?;
    Some(InstantSample { labels: series.labels.clone(), timestamp: at, value })
}

fn scalar(expected: &Expected, timestamp: i64, value: f64) -> Result<(), String> {
    match expected {
        Expected::Scalar(wanted) if almost_equal(*wanted, value, EPSILON) => Ok(()),
        Expected::Scalar(wanted) => {
            Err(format!("expected scalar {} but got {}", format_g(*wanted), format_g(value)))
        }
        _ => Err(format!(
            "expected vector or matrix result, but got scalar: {} @[{timestamp}]",
            format_g(value)
        )),
    }
}

fn expected_series(expected: &Expected) -> &[ExpectedSeries] {
    if let Expected::Series(series) = expected { series } else { &[] }
}

fn vector(eval: &Eval, samples: &[InstantSample]) -> Result<(), String> {
    if matches!(eval.expected, Expected::Scalar(_)) {
        let shown: Vec<String> = samples
            .iter()
            .map(|s| format!("{} => {} @[{}]", s.labels, shown_value(&s.value), s.timestamp))
            .collect();
        return Err(format!("expected scalar result, but got vector {}", shown.join("\n")));
    }
    let expected = expected_series(&eval.expected);
    let mut seen = BTreeSet::new();
    for (index, sample) in samples.iter().enumerate() {
        let Some(wanted) = expected.iter().find(|wanted| wanted.labels == sample.labels) else {
            let value = shown_value(&sample.value);
            return Err(format!("unexpected metric {} in result, has value {value}", sample.labels));
        };
        if eval.expectations.ordered && wanted.position != index + 1 {
            return Err(format!(
                "expected metric {} with {} at position {} but was at {}",
                sample.labels,
                shown_sequence(&wanted.values),
                wanted.position,
                index + 1
            ));
        }
        one_value(wanted, sample)?;
        seen.insert(&sample.labels);
    }
    match expected.iter().find(|wanted| !seen.contains(&wanted.labels)) {
        Some(missing) => Err(format!(
            "expected metric {} with {}: {} not found",
            missing.labels,
            missing.position,
            shown_sequence(&missing.values)
        )),
        None => Ok(()),
    }
}

fn one_value(wanted: &ExpectedSeries, sample: &InstantSample) -> Result<(), String> {
    let labels = &sample.labels;
    match (wanted.values.first(), &sample.value) {
        (Some(SequenceValue::Float(wanted)), SampleValue::Float(value)) => {
            if almost_equal(*wanted, *value, EPSILON) {
                return Ok(());
            }
            Err(format!("expected {} for {labels} but got {}", format_g(*wanted), format_g(*value)))
        }
        (Some(SequenceValue::Histogram { histogram, hint_given }), SampleValue::Histogram(found)) => {
            if same_histogram(histogram, found, *hint_given) {
                return Ok(());
            }
            let (wanted, found) = (histogram_notation(histogram), histogram_notation(found));
            Err(format!("expected {wanted} for {labels} but got {found}"))
        }
        (Some(SequenceValue::Histogram { histogram, .. }), SampleValue::Float(value)) => {
            let (wanted, value) = (histogram_notation(histogram), format_g(*value));
            Err(format!("expected histogram {wanted} for {labels} but got float value {value}"))
        }
        (Some(other), SampleValue::Histogram(found)) => {
            let found = histogram_notation(found);
            Err(format!("expected float value {} for {labels} but got histogram {found}", shown_item(other)))
        }
        (_, SampleValue::Float(value)) => {
            Err(format!("expected no value for {labels} but got {}", format_g(*value)))
        }
        (None, SampleValue::Histogram(found)) => {
            Err(format!("expected no value for {labels} but got {}", histogram_notation(found)))
        }
    }
}

fn matrix(eval: &Eval, result: &[RangeSeries]) -> Result<(), String> {
    if eval.expectations.ordered {
        return Err("expected ordered result, but query returned a matrix".to_owned());
    }
    if matches!(eval.expected, Expected::Scalar(_)) {
        let shown: Vec<String> =
            result.iter().map(|series| format!("{} => {}", series.labels, shown_points(series))).collect();
        return Err(format!("expected scalar result, but got matrix {}", shown.join("\n")));
    }
    sorted(result)?;
    let points = match (eval.points, eval.time) {
        (Some(points), _) | (None, Time::Range(points)) => points,
        (None, Time::Instant(at)) => Points { start: at, end: at, step: 1 },
    };
    let expected = expected_series(&eval.expected);
    for series in result {
        match expected.iter().find(|wanted| wanted.labels == series.labels) {
            Some(wanted) => one_series(wanted, series, points)?,
            None => {
                let points = shown_points(series);
                return Err(format!("unexpected metric {} in result, has {points}", series.labels));
            }
        }
    }
    match expected.iter().find(|wanted| !result.iter().any(|series| series.labels == wanted.labels)) {
        Some(missing) => Err(format!("expected metric {} not found", missing.labels)),
        None => Ok(()),
    }
}

fn one_series(wanted: &ExpectedSeries, found: &RangeSeries, points: Points) -> Result<(), String> {
    let labels: &Labels = &wanted.labels;
    let (mut floats, mut histograms) = (Vec::new(), Vec::new());
    for (i, value) in wanted.values.iter().enumerate() {
        let at = points.start + i as i64 * points.step;
        if at > points.end {
            let count = wanted.values.len();
            return Err(format!(
                "expected {count} points for {labels}, but query time range cannot return this many points"
            ));
        }
        match value {
            SequenceValue::Omitted => {}
            SequenceValue::Float(value) => floats.push((at, *value)),
            SequenceValue::Histogram { histogram, hint_given } => {
                histograms.push((at, histogram, *hint_given))
            }
        }
    }
    if floats.len() != found.floats.len() || histograms.len() != found.histograms.len() {
        return Err(format!(
            "expected {} float points and {} histogram points for {labels}, but got {}",
            floats.len(),
            histograms.len(),
            shown_points(found)
        ));
    }
    for (i, ((at, wanted), (time, value))) in floats.iter().zip(&found.floats).enumerate() {
        if at != time {
            return Err(format!(
                "expected float value at index {i} for {labels} to have timestamp {at}, but it had timestamp \
                 {time} (result has {})",
                shown_points(found)
            ));
        }
        if !almost_equal(*value, *wanted, EPSILON) {
            return Err(format!(
                "expected float value at index {i} (t={time}) for {labels} to be {}, but got {} (result has {})",
                format_g(*wanted),
                format_g(*value),
                shown_points(found)
            ));
        }
    }
    for (i, ((at, wanted, hint_given), (time, value))) in histograms.iter().zip(&found.histograms).enumerate()
    {
        if at != time {
            return Err(format!(
                "expected histogram value at index {i} for {labels} to have timestamp {at}, but it had \
                 timestamp {time} (result has {})",
                shown_points(found)
            ));
        }
        if !same_histogram(wanted, value, *hint_given) {
            return Err(format!(
                "expected histogram value at index {i} (t={time}) for {labels} to be {}, but got {} (result \
                 has {})",
                histogram_notation(wanted),
                histogram_notation(value),
                shown_points(found)
            ));
        }
    }
    Ok(())
}

fn sorted(series: &[RangeSeries]) -> Result<(), String> {
    match series.windows(2).position(|pair| pair[0].labels > pair[1].labels) {
        Some(i) => Err(format!(
            "matrix results should always be sorted by labels, but matrix is not sorted: series at index {} \
             with labels {} sorts before series at index {i} with labels {}",
            i + 1,
            series[i + 1].labels,
            series[i].labels
        )),
        None => Ok(()),
    }
}

/// Compares histograms without their empty buckets; the hint where the script gives one.
fn same_histogram(wanted: &FloatHistogram, found: &FloatHistogram, hint_given: bool) -> bool {
    let (mut a, mut b) = (wanted.clone(), found.clone());
    a.compact();
    b.compact();
    let equal = |a: f64, b: f64| almost_equal(a, b, EPSILON);
    let buckets = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(*a, *b));
    a.schema == b.schema
        && equal(a.count, b.count)
        && equal(a.sum, b.sum)
        && (!a.uses_custom_buckets() || a.custom_bounds() == b.custom_bounds())
        && a.zero_threshold == b.zero_threshold
        && equal(a.zero_count, b.zero_count)
        && bucket_indexes(&a.negative_spans) == bucket_indexes(&b.negative_spans)
        && buckets(&a.negative_buckets, &b.negative_buckets)
        && bucket_indexes(&a.positive_spans) == bucket_indexes(&b.positive_spans)
        && buckets(&a.positive_buckets, &b.positive_buckets)
        && (!hint_given || a.hint == b.hint)
}

/// Spans as runs of bucket indexes, so that empty and adjoining spans make no difference.
fn bucket_indexes(spans: &[Span]) -> Vec<(i64, i64)> {
    let mut runs: Vec<(i64, i64)> = Vec::new();
    let mut index = 0i64;
    for span in spans {
        index += i64::from(span.offset);
        let end = index + i64::from(span.length);
        match runs.last_mut() {
            Some(last) if last.1 == index => last.1 = end,
            _ if span.length > 0 => runs.push((index, end)),
            _ => {}
        }
        index = end;
    }
    runs
}

fn shown_value(value: &SampleValue) -> String {
    match value {
        SampleValue::Float(value) => format_g(*value),
        SampleValue::Histogram(histogram) => histogram_notation(histogram),
    }
}

fn shown_item(value: &SequenceValue) -> String {
    match value {
        SequenceValue::Omitted => "_".to_owned(),
        SequenceValue::Float(value) if value.is_finite() => format!("{value:.6}"),
        SequenceValue::Float(value) => format_float(*value),
        SequenceValue::Histogram { histogram, .. } => histogram.to_string(),
    }
}

fn shown_sequence(values: &[SequenceValue]) -> String {
    let items: Vec<String> = values.iter().map(shown_item).collect();
    format!("[{}]", items.join(" "))
}

/// `2 float points [1 @[0] 2 @[1000]] and 0 histogram points []`
fn shown_points(series: &RangeSeries) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let floats: Vec<String> =
        series.floats.iter().map(|(t, value)| format!("{} @[{t}]", format_float(*value))).collect();
    let histograms: Vec<String> =
        series.histograms.iter().map(|(t, h)| format!("{} @[{t}]", histogram_notation(h))).collect();
    let mut text = String::new();
    for (i, (kind, points)) in [("float", &floats), ("histogram", &histograms)].into_iter().enumerate() {
        let joint = if i > 0 { " and " } else { "" };
        let count = points.len();
        // Writing to a String cannot fail.
        let _ = write!(text, "{joint}{count} {kind} point{} [{}]", plural(count), points.join(" "));
    }
    text
}
