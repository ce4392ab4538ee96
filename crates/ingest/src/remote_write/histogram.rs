//! `prometheus.Histogram` of remote write 1.0, and that of 2.0, which is the same and has a start.
//!
//! ```text
//!  1 count_int: uint64      2 count_float: double       3 sum: double   4 schema: sint32
//!  5 zero_threshold: double 6 zero_count_int: uint64    7 zero_count_float: double
//!  8 negative_spans         9 negative_deltas: sint64* 10 negative_counts: double*
//! 11 positive_spans        12 positive_deltas: sint64* 13 positive_counts: double*
//! 14 reset_hint: enum      15 timestamp: int64         16 custom_values: double*
//! 17 start_timestamp: int64, in 2.0
//! BucketSpan  1 offset: sint32, 2 length: uint32
//! ```

use tidewatch_model::histogram::{CounterResetHint, FloatHistogram, Histogram, NativeHistogram, Span};
use tidewatch_model::{BatchHistogram, Limits};

use super::wire::{Reader, Reason, WRONG_TYPE, Wire, put_bytes, put_varint};

/// How many spans and deltas the histograms of a request may still have. They take eight bytes each,
/// of which they need one or two in the request.
pub(super) struct BucketRoom(usize);

impl BucketRoom {
    /// Far more than what histograms have: one of 160 buckets, which is large, for every eighth of the
    /// samples that a request may have.
    pub(super) fn of(limits: &Limits) -> BucketRoom {
        BucketRoom(limits.write_samples.saturating_mul(20))
    }

    #[inline]
    fn take(&mut self) -> Result<(), Reason> {
        self.0 = self.0.checked_sub(1).ok_or("the request has too many buckets of native histograms")?;
        Ok(())
    }
}

/// Reads the message. Which of the counts are given says of which kind it is: where a sender gives
/// both, the later one.
pub(super) fn decode_histogram(message: &[u8], room: &mut BucketRoom) -> Result<BatchHistogram, Reason> {
    let mut integer = Histogram::default();
    let mut float = FloatHistogram::default();
    let mut custom_values = Vec::new();
    let (mut timestamp, mut start, mut is_float) = (0, 0, false);
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.field()? {
            (1, Wire::Varint(count)) => (integer.count, is_float) = (count, false),
            (2, Wire::Fixed64(bytes)) => (float.count, is_float) = (f64::from_le_bytes(bytes), true),
            (3, Wire::Fixed64(bytes)) => integer.sum = f64::from_le_bytes(bytes),
            (4, Wire::Varint(schema)) => integer.schema = zigzag(schema) as i32,
            (5, Wire::Fixed64(bytes)) => integer.zero_threshold = f64::from_le_bytes(bytes),
            (6, Wire::Varint(count)) => integer.zero_count = count,
            (7, Wire::Fixed64(bytes)) => float.zero_count = f64::from_le_bytes(bytes),
            (8, Wire::Bytes(span)) => integer.negative_spans.push(decode_span(span, room)?),
            (9, deltas) => read_deltas(deltas, room, &mut integer.negative_deltas)?,
            (10, counts) => read_doubles(counts, &mut float.negative_buckets)?,
            (11, Wire::Bytes(span)) => integer.positive_spans.push(decode_span(span, room)?),
            (12, deltas) => read_deltas(deltas, room, &mut integer.positive_deltas)?,
            (13, counts) => read_doubles(counts, &mut float.positive_buckets)?,
            (14, Wire::Varint(hint)) => integer.hint = reset_hint(hint),
            (15, Wire::Varint(value)) => timestamp = value as i64,
            (16, values) => read_doubles(values, &mut custom_values)?,
            (17, Wire::Varint(value)) => start = value as i64,
            (1..=17, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    if !custom_values.is_empty() {
        integer.custom_values = Some(custom_values.into());
    }
    let value = if is_float {
        NativeHistogram::Float(FloatHistogram {
            hint: integer.hint,
            schema: integer.schema,
            zero_threshold: integer.zero_threshold,
            sum: integer.sum,
            positive_spans: integer.positive_spans,
            negative_spans: integer.negative_spans,
            custom_values: integer.custom_values,
            ..float
        })
    } else {
        NativeHistogram::Integer(integer)
    };
    Ok(BatchHistogram { timestamp, start, value })
}

fn decode_span(message: &[u8], room: &mut BucketRoom) -> Result<Span, Reason> {
    room.take()?;
    let mut span = Span { offset: 0, length: 0 };
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.field()? {
            (1, Wire::Varint(offset)) => span.offset = zigzag(offset) as i32,
            (2, Wire::Varint(length)) => span.length = length as u32,
            (1 | 2, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    Ok(span)
}

/// Repeated numbers come packed into one field or, from old encoders, one by one.
fn read_deltas(content: Wire<'_>, room: &mut BucketRoom, out: &mut Vec<i64>) -> Result<(), Reason> {
    match content {
        Wire::Varint(value) => {
            room.take()?;
            out.push(zigzag(value));
        }
        Wire::Bytes(packed) => {
            let mut reader = Reader::new(packed);
            while !reader.is_empty() {
                room.take()?;
                out.push(zigzag(reader.varint()?));
            }
        }
        _ => return Err(WRONG_TYPE),
    }
    Ok(())
}

fn read_doubles(content: Wire<'_>, out: &mut Vec<f64>) -> Result<(), Reason> {
    match content {
        Wire::Fixed64(bytes) => out.push(f64::from_le_bytes(bytes)),
        Wire::Bytes(packed) => {
            let (values, rest) = packed.as_chunks::<8>();
            if !rest.is_empty() {
                return Err("packed doubles are cut");
            }
            out.extend(values.iter().map(|bytes| f64::from_le_bytes(*bytes)));
        }
        _ => return Err(WRONG_TYPE),
    }
    Ok(())
}

fn reset_hint(number: u64) -> CounterResetHint {
    match number {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn unzigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// Appends the message; the inverse of [`decode_histogram`].
pub(super) fn encode_histogram(histogram: &BatchHistogram, out: &mut Vec<u8>) {
    let layout = histogram.value.layout();
    let sides = [(8, layout.negative_spans), (11, layout.positive_spans)];
    let mut scratch = Vec::new();
    match &histogram.value {
        NativeHistogram::Integer(value) => {
            put_number(out, 1, value.count);
            put_number(out, 6, value.zero_count);
            for (number, deltas) in [(9, &value.negative_deltas), (12, &value.positive_deltas)] {
                scratch.clear();
                deltas.iter().for_each(|delta| put_varint(&mut scratch, unzigzag(*delta)));
                put_bytes(out, number, &scratch);
            }
        }
        NativeHistogram::Float(value) => {
            put_double(out, 2, value.count);
            put_double(out, 7, value.zero_count);
            put_doubles(out, 10, &value.negative_buckets);
            put_doubles(out, 13, &value.positive_buckets);
        }
    }
    put_double(out, 3, histogram.value.sum());
    put_number(out, 4, unzigzag(i64::from(layout.schema)));
    put_double(out, 5, layout.zero_threshold);
    for (number, spans) in sides {
        for span in spans {
            scratch.clear();
            put_number(&mut scratch, 1, unzigzag(i64::from(span.offset)));
            put_number(&mut scratch, 2, u64::from(span.length));
            put_bytes(out, number, &scratch);
        }
    }
    let hint = match histogram.value.hint() {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    };
    put_number(out, 14, hint);
    put_number(out, 15, histogram.timestamp as u64);
    if let Some(values) = layout.custom_values {
        put_doubles(out, 16, values);
    }
}

fn put_doubles(out: &mut Vec<u8>, number: u32, values: &[f64]) {
    let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    put_bytes(out, number, &packed);
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}
