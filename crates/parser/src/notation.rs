//! Histograms in the notation of series descriptions: `{{schema:1 count:3 buckets:[1 2]}}`.

use tidewatch_model::FloatHistogram;
use tidewatch_model::histogram::{CounterResetHint, Span, format_g};

/// A run of empty buckets longer than this is abbreviated, as offsets may be of any size.
const EMPTY_RUN_MAX: i64 = 1000;

/// Writes `histogram` as a series description would, properties with a zero value left out.
pub fn histogram_notation(histogram: &FloatHistogram) -> String {
    let mut parts = Vec::new();
    if histogram.schema != 0 {
        parts.push(format!("schema:{}", histogram.schema));
    }
    for (name, value) in [
        ("count", histogram.count),
        ("sum", histogram.sum),
        ("z_bucket", histogram.zero_count),
        ("z_bucket_w", histogram.zero_threshold),
    ] {
        if value != 0.0 {
            parts.push(format!("{name}:{}", format_g(value)));
        }
    }
    if histogram.uses_custom_buckets() {
        let bounds: Vec<String> = histogram.custom_bounds().iter().map(|bound| format_g(*bound)).collect();
        parts.push(format!("custom_values:[{}]", bounds.join(" ")));
    }
    match histogram.hint {
        CounterResetHint::Unknown => {}
        CounterResetHint::Reset => parts.push("counter_reset_hint:reset".to_owned()),
        CounterResetHint::NotReset => parts.push("counter_reset_hint:not_reset".to_owned()),
        CounterResetHint::Gauge => parts.push("counter_reset_hint:gauge".to_owned()),
    }
    push_buckets(&mut parts, "", &histogram.positive_spans, &histogram.positive_buckets);
    push_buckets(&mut parts, "n_", &histogram.negative_spans, &histogram.negative_buckets);
    format!("{{{{{}}}}}", parts.join(" "))
}

/// Writes the buckets as one run, empty ones between spans as zeros, without empty ends.
fn push_buckets(parts: &mut Vec<String>, prefix: &str, spans: &[Span], buckets: &[f64]) {
    let (mut index, mut counts) = (0i64, buckets.iter());
    let mut first = None;
    let (mut written, mut after_last) = (Vec::new(), 0i64);
    for span in spans {
        index += i64::from(span.offset);
        for count in counts.by_ref().take(span.length as usize) {
            if *count != 0.0 {
                first.get_or_insert(index);
                if !written.is_empty() {
                    push_empty(&mut written, index - after_last);
                }
                written.push(format_g(*count));
                after_last = index + 1;
            }
            index += 1;
        }
    }
    let Some(offset) = first else { return };
    if offset != 0 {
        parts.push(format!("{prefix}offset:{offset}"));
    }
    parts.push(format!("{prefix}buckets:[{}]", written.join(" ")));
}

fn push_empty(written: &mut Vec<String>, count: i64) {
    if count > EMPTY_RUN_MAX {
        written.push(format!("(0x{count})"));
    } else {
        written.extend((0..count).map(|_| "0".to_owned()));
    }
}
