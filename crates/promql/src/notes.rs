//! Warnings and infos on their way to [`Annotations`]: what was found and where in the query.
//!
//! As in Prometheus, two notes with the same words are one, whose position is that of the
//! later; notes that carry details of the data join them.

use std::collections::BTreeMap;

use tidewatch_model::histogram::format_g;
use tidewatch_model::{Annotations, Labels, quote};
use tidewatch_parser::PosRange;

/// Notes that are kept: readers get to see ten, and each of a million metrics may cause one.
const NOTES_MAX: usize = 10_000;

/// Notes by their words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    notes: BTreeMap<String, Note>,
}

#[derive(Debug, Clone)]
struct Note {
    position: PosRange,
    monotonicity: Option<Monotonicity>,
}

/// What `histogram_quantile` had to mend in classic buckets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Monotonicity {
    pub bucket_min: f64,
    pub bucket_max: f64,
    pub difference_max: f64,
    pub samples: u64,
    pub time_min: i64,
    pub time_max: i64,
}

impl Monotonicity {
    fn join(&self, other: &Monotonicity) -> Monotonicity {
        Monotonicity {
            bucket_min: self.bucket_min.min(other.bucket_min),
            bucket_max: self.bucket_max.max(other.bucket_max),
            difference_max: self.difference_max.max(other.difference_max),
            samples: self.samples + other.samples,
            time_min: self.time_min.min(other.time_min),
            time_max: self.time_max.max(other.time_max),
        }
    }
}

/// An operation on histograms, as notes name it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    Addition,
    Subtraction,
    Aggregation,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Addition => "addition",
            Operation::Subtraction => "subtraction",
            Operation::Aggregation => "aggregation",
        }
    }
}

impl Notes {
    pub(crate) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub(crate) fn merge(&mut self, other: Notes) {
        for (words, note) in other.notes {
            self.insert(words, note);
        }
    }

    /// Warnings and infos with positions as Prometheus' API shows them.
    pub(crate) fn into_annotations(self, query: Option<&str>) -> Annotations {
        let mut annotations = Annotations::default();
        for (words, note) in self.notes {
            let mut text = words.clone();
            if let Some(m) = note.monotonicity {
                text.push_str(&format!(
                    ", from buckets {} to {}, with a max diff of {}, over {} samples from {} to {}",
                    format_g(m.bucket_min),
                    format_g(m.bucket_max),
                    two_digits(m.difference_max),
                    m.samples,
                    rfc3339(m.time_min),
                    rfc3339(m.time_max),
                ));
            }
            text.push_str(&format!(" ({})", line_and_column(query, note.position)));
            match words.starts_with("PromQL info") {
                true => annotations.info(text),
                false => annotations.warn(text),
            }
        }
        annotations
    }

    fn insert(&mut self, words: String, mut note: Note) {
        if self.notes.len() >= NOTES_MAX && !self.notes.contains_key(&words) {
            return;
        }
        if let Some(previous) = self.notes.get(&words)
            && let (Some(a), Some(b)) = (&previous.monotonicity, &note.monotonicity)
        {
            note.monotonicity = Some(a.join(b));
        }
        self.notes.insert(words, note);
    }

    fn add(&mut self, position: PosRange, words: String) {
        self.insert(words, Note { position, monotonicity: None });
    }

    fn warn(&mut self, position: PosRange, words: impl std::fmt::Display) {
        self.add(position, format!("PromQL warning: {words}"));
    }

    fn info(&mut self, position: PosRange, words: impl std::fmt::Display) {
        self.add(position, format!("PromQL info: {words}"));
    }

    pub(crate) fn invalid_quantile(&mut self, q: f64, at: PosRange) {
        self.warn(at, format_args!("quantile value should be between 0 and 1, got {}", format_g(q)));
    }

    pub(crate) fn invalid_ratio(&mut self, ratio: f64, to: f64, at: PosRange) {
        let (ratio, to) = (format_g(ratio), format_g(to));
        self.warn(at, format_args!("ratio value should be between -1 and 1, got {ratio}, capping to {to}"));
    }

    pub(crate) fn bad_bucket_label(&mut self, name: &str, label: &str, at: PosRange) {
        let label = quote(label);
        let words = format!("bucket label \"le\" is missing or has a malformed value of {label}");
        self.warn(at, format_args!("{words}{}", for_metric(name)));
    }

    pub(crate) fn mixed_floats_histograms(&mut self, labels: &Labels, at: PosRange) {
        let name = quote(labels.metric_name().unwrap_or_default());
        self.warn(at, format_args!("encountered a mix of histograms and floats for metric name {name}"));
    }

    pub(crate) fn mixed_aggregation(&mut self, at: PosRange) {
        self.warn(at, "encountered a mix of histograms and floats for aggregation");
    }

    pub(crate) fn mixed_classic_native(&mut self, name: &str, at: PosRange) {
        let name = for_metric(name);
        self.warn(at, format_args!("vector contains a mix of classic and native histograms{name}"));
    }

    pub(crate) fn histogram_not_counter(&mut self, labels: &Labels, at: PosRange) {
        let name = quote(labels.metric_name().unwrap_or_default());
        self.warn(at, format_args!("this native histogram metric is not a counter: {name}"));
    }

    pub(crate) fn histogram_not_gauge(&mut self, labels: &Labels, at: PosRange) {
        let name = quote(labels.metric_name().unwrap_or_default());
        self.warn(at, format_args!("this native histogram metric is not a gauge: {name}"));
    }

    pub(crate) fn sort_in_range(&mut self, at: PosRange) {
        self.warn(at, "sort is ineffective for range queries since results are always ordered by labels");
    }

    pub(crate) fn start_overlaps(&mut self, labels: &Labels, at: PosRange) {
        let name = quote(labels.metric_name().unwrap_or_default());
        self.warn(
            at,
            format_args!(
                "sample has start time that overlaps with previous sample timestamp for metric {name}"
            ),
        );
    }

    pub(crate) fn mixed_exponential_custom(&mut self, labels: &Labels, at: PosRange) {
        let name = quote(labels.metric_name().unwrap_or_default());
        self.warn(
            at,
            format_args!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {name}"
            ),
        );
    }

    pub(crate) fn possible_non_counter(&mut self, name: &str, at: PosRange) {
        let name = quote(name);
        self.info(
            at,
            format_args!(
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name}"
            ),
        );
    }

    pub(crate) fn possible_non_counter_type(&mut self, name: &str, kind: &str, at: PosRange) {
        let (name, kind) = (quote(name), quote(kind));
        self.info(
            at,
            format_args!(
                "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {kind}: {name}"
            ),
        );
    }

    pub(crate) fn forced_monotonicity(&mut self, name: &str, at: PosRange, details: Monotonicity) {
        let words = format!(
            "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}",
            for_metric(name)
        );
        self.insert(words, Note { position: at, monotonicity: Some(details) });
    }

    pub(crate) fn incompatible_types(&mut self, lhs: &str, op: &str, rhs: &str, at: PosRange) {
        let quoted = quote(op);
        self.info(
            at,
            format_args!(
                "incompatible sample types encountered for binary operator {quoted}: {lhs} {op} {rhs}"
            ),
        );
    }

    pub(crate) fn histogram_ignored_in_aggregation(&mut self, aggregation: &str, at: PosRange) {
        self.info(at, format_args!("ignored histogram in {aggregation} aggregation"));
    }

    pub(crate) fn histograms_ignored_in_range(&mut self, labels: &Labels, at: PosRange) {
        let name = quote(labels.metric_name().unwrap_or_default());
        self.info(
            at,
            format_args!(
                "ignored histograms in a range containing both floats and histograms for metric name {name}"
            ),
        );
    }

    pub(crate) fn incompatible_buckets(&mut self, op: &str, at: PosRange) {
        self.warn(at, format_args!("incompatible bucket layout encountered for binary operator {op}"));
    }

    pub(crate) fn quantile_nan(&mut self, name: &str, at: PosRange) {
        let name = for_metric(name);
        self.info(at, format_args!("input to histogram_quantile has NaN observations, result is NaN{name}"));
    }

    pub(crate) fn quantile_skewed(&mut self, name: &str, at: PosRange) {
        let name = for_metric(name);
        self.info(
            at,
            format_args!("input to histogram_quantile has NaN observations, result is skewed higher{name}"),
        );
    }

    pub(crate) fn fraction_nan(&mut self, name: &str, at: PosRange) {
        let name = for_metric(name);
        self.info(
            at,
            format_args!(
                "input to histogram_fraction has NaN observations, which are excluded from all fractions{name}"
            ),
        );
    }

    pub(crate) fn reset_collision(&mut self, operation: Operation, at: PosRange) {
        let operation = operation.as_str();
        self.warn(at, format_args!("conflicting counter resets during histogram {operation}"));
    }

    pub(crate) fn bounds_reconciled(&mut self, operation: Operation, at: PosRange) {
        let operation = operation.as_str();
        self.info(at, format_args!("mismatched custom buckets were reconciled during {operation}"));
    }
}

fn for_metric(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" for metric name {}", quote(name)) }
}

/// `line:column` of the position's start, both from 1.
fn line_and_column(query: Option<&str>, position: PosRange) -> String {
    let Some(before) = query.and_then(|query| query.as_bytes().get(..position.start)) else {
        return format!("1:{}", position.start + 1);
    };
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    format!("{line}:{column}")
}

/// Go's `%.2g`: two significant digits.
fn two_digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.1e}").parse().unwrap_or(value);
    let exponent = if rounded == 0.0 { 0.0 } else { rounded.abs().log10().floor() };
    if rounded.is_finite() && (2.0..6.0).contains(&exponent) {
        let text = format!("{rounded:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{digits}e+{exponent:0>2}");
    }
    format_g(rounded)
}

/// A time in milliseconds as Go's `time.RFC3339Nano` prints its second.
fn rfc3339(time_ms: i64) -> String {
    let seconds = time_ms.div_euclid(1000);
    let (year, month, day) = crate::functions::civil_from_days(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_with_equal_words_are_one_at_the_later_place() {
        let mut notes = Notes::default();
        notes.mixed_aggregation(PosRange::new(2, 3));
        notes.mixed_aggregation(PosRange::new(7, 8));
        notes.possible_non_counter("up", PosRange::new(0, 2));
        let annotations = notes.into_annotations(Some("abcde\nfgh"));
        assert_eq!(
            annotations.warnings.into_iter().collect::<Vec<_>>(),
            ["PromQL warning: encountered a mix of histograms and floats for aggregation (2:2)"]
        );
        assert_eq!(
            annotations.infos.into_iter().collect::<Vec<_>>(),
            [
                "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"up\" (1:1)"
            ]
        );
    }

    #[test]
    fn numbers_shorten_to_two_digits() {
        for (value, text) in [(0.0, "0"), (1.0, "1"), (0.123, "0.12"), (123.0, "1.2e+02"), (98.7, "99")] {
            assert_eq!(two_digits(value), text);
        }
    }
}
