//! Metric families in protobuf, as federation sends them to whoever asks for it:
//! `io.prometheus.client.MetricFamily`, each behind its length.
//!
//! ```text
//! MetricFamily  1 name, 3 type: enum, 4 metric: Metric*
//! Metric        1 label: LabelPair*, 5 untyped, 6 timestamp_ms: int64, 7 histogram
//! LabelPair     1 name, 2 value          Untyped  1 value: double
//! Histogram     2 sample_sum: double    4 sample_count_float: double   5 schema: sint32
//!               6 zero_threshold: double 8 zero_count_float: double
//!               9 negative_span*       11 negative_count: double*
//!              12 positive_span*       14 positive_count: double*
//! BucketSpan    1 offset: sint32, 2 length: uint32
//! ```

use tidewatch_model::histogram::Span;
use tidewatch_model::{FloatHistogram, Labels};

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FamilyType {
    Untyped = 3,
    Histogram = 4,
    GaugeHistogram = 5,
}

/// The value of a metric.
pub(crate) enum MetricValue<'a> {
    Untyped(f64),
    Histogram(&'a FloatHistogram),
}

/// One family on its way.
pub(crate) struct Family {
    message: Vec<u8>,
}

impl Family {
    pub(crate) fn new(name: &str, kind: FamilyType) -> Family {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, name.as_bytes());
        put_number(&mut message, 3, kind as u64);
        Family { message }
    }

    /// Adds a metric. One without an `instance` gets an empty one, or its reader would put the
    /// address of this server there.
    pub(crate) fn metric(&mut self, labels: &Labels, timestamp_ms: i64, value: &MetricValue<'_>) {
        let (mut metric, mut part) = (Vec::new(), Vec::new());
        let missing = (!labels.has("instance")).then_some(("instance", ""));
        for (name, value) in labels.iter().chain(missing) {
            part.clear();
            put_bytes(&mut part, 1, name.as_bytes());
            put_bytes(&mut part, 2, value.as_bytes());
            put_bytes(&mut metric, 1, &part);
        }
        part.clear();
        match value {
            MetricValue::Untyped(value) => {
                put_double(&mut part, 1, *value);
                put_bytes(&mut metric, 5, &part);
            }
            MetricValue::Histogram(histogram) => {
                put_histogram(&mut part, histogram);
                put_bytes(&mut metric, 7, &part);
            }
        }
        put_number(&mut metric, 6, timestamp_ms as u64);
        put_bytes(&mut self.message, 4, &metric);
    }

    /// Appends the family, behind its length.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        put_varint(out, self.message.len() as u64);
        out.extend_from_slice(&self.message);
    }
}

fn put_histogram(out: &mut Vec<u8>, histogram: &FloatHistogram) {
    put_double(out, 2, histogram.sum);
    put_double(out, 4, histogram.count);
    put_number(out, 5, zigzag(histogram.schema));
    put_double(out, 6, histogram.zero_threshold);
    put_double(out, 8, histogram.zero_count);
    let sides = [
        (9, &histogram.negative_spans, &histogram.negative_buckets),
        (12, &histogram.positive_spans, &histogram.positive_buckets),
    ];
    let mut part = Vec::new();
    for (number, spans, counts) in sides {
        for Span { offset, length } in spans {
            part.clear();
            put_number(&mut part, 1, zigzag(*offset));
            put_number(&mut part, 2, u64::from(*length));
            put_bytes(out, number, &part);
        }
        part.clear();
        counts.iter().for_each(|count| part.extend_from_slice(&count.to_le_bytes()));
        if !part.is_empty() {
            put_bytes(out, number + 2, &part);
        }
    }
    // A reader takes what has neither spans nor zero bucket for a classic histogram: an empty span
    // says that this is none.
    if histogram.positive_spans.is_empty()
        && histogram.negative_spans.is_empty()
        && histogram.zero_threshold == 0.0
    {
        put_bytes(out, 12, &[8, 0, 16, 0]);
    }
}

fn zigzag(value: i32) -> u64 {
    u64::from((value << 1 ^ value >> 31) as u32)
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_frozen() {
        let labels = Labels::from_pairs([("instance", "x")]);
        let mut out = Vec::new();
        let mut family = Family::new("m", FamilyType::Untyped);
        family.metric(&labels, 5, &MetricValue::Untyped(1.0));
        family.finish(&mut out);
        let metric = [
            10, 13, 10, 8, b'i', b'n', b's', b't', b'a', b'n', b'c', b'e', 18, 1, b'x', 42, 9, 9, 0, 0, 0, 0,
            0, 0, 0xf0, 0x3f, 48, 5,
        ];
        let expected = [&[35, 10, 1, b'm', 24, 3, 34, 28][..], &metric].concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn a_histogram_is_frozen() {
        let histogram = FloatHistogram {
            schema: -1,
            count: 2.0,
            sum: 1.0,
            positive_spans: vec![Span { offset: -1, length: 1 }],
            positive_buckets: vec![2.0],
            ..FloatHistogram::default()
        };
        let mut out = Vec::new();
        put_histogram(&mut out, &histogram);
        let one = [0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        let two = [0, 0, 0, 0, 0, 0, 0, 0x40];
        let head = [&[17][..], &one, &[33], &two, &[40, 1, 49], &[0; 8], &[65], &[0; 8]].concat();
        let expected = [&head[..], &[98, 4, 8, 1, 16, 1, 114, 8], &two].concat();
        assert_eq!(out, expected);
    }
}
