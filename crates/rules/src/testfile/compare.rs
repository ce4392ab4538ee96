//! What was expected beside what was got, in promtool's layout.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{FloatHistogram, InstantSample, Labels, SampleValue};

use crate::template::format_float;

/// A firing alert as tests see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Alert {
    pub(super) labels: Labels,
    pub(super) annotations: BTreeMap<String, String>,
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not a label set, as an annotation may be empty.
        let annotation =
            |(name, text): (&String, &String)| format!("{name}={}", tidewatch_model::quote(text));
        let annotations: Vec<String> = self.annotations.iter().map(annotation).collect();
        write!(f, "Labels:{}\nAnnotations:{{{}}}", self.labels, annotations.join(", "))
    }
}

/// `[]`, or the alerts with their numbers, each indented.
pub(super) fn alerts_text(alerts: &[Alert]) -> String {
    if alerts.is_empty() {
        return "[]".to_owned();
    }
    let numbered = |(i, alert): (usize, &Alert)| format!("{i}:{}", indent(&format!("\n{alert}"), "  "));
    let numbered: Vec<String> = alerts.iter().enumerate().map(numbered).collect();
    format!("[\n{}\n]", numbered.join(",\n"))
}

/// Indents every line but the first.
pub(super) fn indent(text: &str, by: &str) -> String {
    text.replace('\n', &format!("\n{by}"))
}

/// A sample of an expression's result; results are sorted by their labels.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) labels: Labels,
    pub(super) value: f64,
    /// In the notation of tests.
    pub(super) histogram: Option<String>,
}

impl Sample {
    pub(super) fn of(sample: InstantSample) -> Sample {
        let (value, histogram) = match sample.value {
            SampleValue::Float(value) => (value, None),
            SampleValue::Histogram(histogram) => (0.0, Some(histogram_text(&histogram))),
        };
        Sample { labels: sample.labels, value, histogram }
    }

    /// Whether two samples agree; fuzzily, when values may be neighbours.
    fn agrees(&self, other: &Sample, fuzzy: bool) -> bool {
        let (a, b) = (self.value, other.value);
        let equal = a == b || a.is_nan() && b.is_nan() || fuzzy && (a.next_down() == b || a.next_up() == b);
        self.labels == other.labels && equal && self.histogram == other.histogram
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.histogram {
            Some(histogram) => write!(f, "{} {histogram}", self.labels),
            None => write!(f, "{} {}", self.labels, format_float(self.value, 'E', None)),
        }
    }
}

pub(super) fn samples_agree(expected: &[Sample], got: &[Sample], fuzzy: bool) -> bool {
    expected.len() == got.len() && expected.iter().zip(got).all(|(a, b)| a.agrees(b, fuzzy))
}

pub(super) fn samples_text(samples: &[Sample]) -> String {
    if samples.is_empty() {
        return "nil".to_owned();
    }
    samples.iter().map(Sample::to_string).collect::<Vec<_>>().join(", ")
}

/// A histogram as tests write it: `{{schema:1 count:3 sum:4 buckets:[1 2]}}`.
pub(super) fn histogram_text(histogram: &FloatHistogram) -> String {
    let mut histogram = histogram.clone();
    histogram.compact();
    let mut parts = Vec::new();
    let mut part = |name: &str, value: f64| {
        if value != 0.0 {
            parts.push(format!("{name}:{}", format_float(value, 'g', None)));
        }
    };
    part("schema", f64::from(histogram.schema));
    part("count", histogram.count);
    part("sum", histogram.sum);
    part("z_bucket", histogram.zero_count);
    part("z_bucket_w", histogram.zero_threshold);
    if histogram.uses_custom_buckets() {
        parts.push(format!("custom_values:{}", list(histogram.custom_bounds())));
    }
    parts.extend(match histogram.hint {
        CounterResetHint::Unknown => None,
        CounterResetHint::Reset => Some("counter_reset_hint:reset".to_owned()),
        CounterResetHint::NotReset => Some("counter_reset_hint:not_reset".to_owned()),
        CounterResetHint::Gauge => Some("counter_reset_hint:gauge".to_owned()),
    });
    let sides = [
        ("", &histogram.positive_spans, &histogram.positive_buckets),
        ("n_", &histogram.negative_spans, &histogram.negative_buckets),
    ];
    for (prefix, spans, buckets) in sides {
        let Some(first) = spans.first() else { continue };
        if first.offset != 0 {
            parts.push(format!("{prefix}offset:{}", first.offset));
        }
        let mut filled = Vec::new();
        let mut rest = buckets.iter().copied();
        for (i, span) in spans.iter().enumerate() {
            let gap = if i == 0 { 0 } else { usize::try_from(span.offset).unwrap_or(0) };
            filled.extend(std::iter::repeat_n(0.0, gap));
            filled.extend(rest.by_ref().take(span.length as usize));
        }
        parts.push(format!("{prefix}buckets:{}", list(&filled)));
    }
    format!("{{{{{}}}}}", parts.join(" "))
}

fn list(values: &[f64]) -> String {
    let texts: Vec<String> = values.iter().map(|value| format_float(*value, 'g', None)).collect();
    format!("[{}]", texts.join(" "))
}

/// The lines of two texts side by side: those only expected with `-`, those only got with `+`.
pub(super) fn diff(expected: &str, got: &str) -> String {
    let (expected, got): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), got.lines().collect());
    let common = longest_common(&expected, &got);
    let mut out = String::new();
    let (mut e, mut g) = (0, 0);
    for (next_e, next_g) in common.into_iter().chain([(expected.len(), got.len())]) {
        for (mark, lines) in [("-", &expected[e..next_e]), ("+", &got[g..next_g])] {
            for line in lines {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "{mark} {line}");
            }
        }
        if let Some(line) = expected.get(next_e) {
            let _ = writeln!(out, "  {line}");
        }
        (e, g) = (next_e + 1, next_g + 1);
    }
    out
}

/// Places of a longest common subsequence of lines, or none where the texts are too long for the
/// table to be worth its memory.
fn longest_common(a: &[&str], b: &[&str]) -> Vec<(usize, usize)> {
    const CELLS_MAX: usize = 1 << 20;
    if a.len().saturating_mul(b.len()) > CELLS_MAX {
        return Vec::new();
    }
    let width = b.len() + 1;
    let mut lengths = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            lengths[i * width + j] = if a[i] == b[j] {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut places = Vec::new();
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            places.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::diff;

    #[test]
    fn a_difference_shows_what_is_missing_and_what_is_new() {
        assert_eq!(diff("a\nb\nc\n", "a\nx\nc\nd\n"), "  a\n- b\n+ x\n  c\n+ d\n");
        assert_eq!(diff("", "a"), "+ a\n");
    }
}
