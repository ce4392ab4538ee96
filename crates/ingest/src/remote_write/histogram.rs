//! `prometheus.Histogram` of remote write 1.0.
//!
//! ```text
//!  1 count_int: uint64      2 count_float: double       3 sum: double   4 schema: sint32
//!  5 zero_threshold: double 6 zero_count_int: uint64    7 zero_count_float: double
//!  8 negative_spans         9 negative_deltas: sint64* 10 negative_counts: double*
//! 11 positive_spans        12 positive_deltas: sint64* 13 positive_counts: double*
//! 14 reset_hint: enum      15 timestamp: int64         16 custom_values: double*
//! BucketSpan  1 offset: sint32, 2 length: uint32
//! ```

use tidewatch_model::histogram::{CounterResetHint, Histogram, Span};

use super::wire::{Reader, Reason, Wire, put_bytes, put_varint};

const WRONG_TYPE: Reason = "wire type of a histogram's field is wrong";

/// A histogram that was read.
pub(super) enum Decoded {
    Integer(i64, Histogram),
    /// Its counts are floats.
    Float,
}

pub(super) fn decode_histogram(message: &[u8]) -> Result<Decoded, Reason> {
    let mut histogram = Histogram::default();
    let mut custom_values = Vec::new();
    let (mut timestamp, mut is_float) = (0, false);
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.field()? {
            (1, Wire::Varint(count)) => (histogram.count, is_float) = (count, false),
            (2, Wire::Fixed64(_)) => is_float = true,
            (3, Wire::Fixed64(bytes)) => histogram.sum = f64::from_le_bytes(bytes),
            (4, Wire::Varint(schema)) => histogram.schema = zigzag(schema) as i32,
            (5, Wire::Fixed64(bytes)) => histogram.zero_threshold = f64::from_le_bytes(bytes),
            (6, Wire::Varint(count)) => histogram.zero_count = count,
            (8, Wire::Bytes(span)) => histogram.negative_spans.push(decode_span(span)?),
            (9, deltas) => read_deltas(deltas, &mut histogram.negative_deltas)?,
            (11, Wire::Bytes(span)) => histogram.positive_spans.push(decode_span(span)?),
            (12, deltas) => read_deltas(deltas, &mut histogram.positive_deltas)?,
            (14, Wire::Varint(hint)) => histogram.hint = reset_hint(hint),
            (15, Wire::Varint(value)) => timestamp = value as i64,
            (16, values) => read_doubles(values, &mut custom_values)?,
            (7, Wire::Fixed64(_)) | (10 | 13, Wire::Fixed64(_) | Wire::Bytes(_)) => {}
            (1..=16, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    if is_float {
        return Ok(Decoded::Float);
    }
    if !custom_values.is_empty() {
        histogram.custom_values = Some(custom_values.into());
    }
    Ok(Decoded::Integer(timestamp, histogram))
}

fn decode_span(message: &[u8]) -> Result<Span, Reason> {
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
fn read_deltas(content: Wire<'_>, out: &mut Vec<i64>) -> Result<(), Reason> {
    match content {
        Wire::Varint(value) => out.push(zigzag(value)),
        Wire::Bytes(packed) => {
            let mut reader = Reader::new(packed);
            while !reader.is_empty() {
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
pub(super) fn encode_histogram(timestamp: i64, histogram: &Histogram, out: &mut Vec<u8>) {
    let mut scratch = Vec::new();
    put_number(out, 1, histogram.count);
    put_double(out, 3, histogram.sum);
    put_number(out, 4, unzigzag(i64::from(histogram.schema)));
    put_double(out, 5, histogram.zero_threshold);
    put_number(out, 6, histogram.zero_count);
    let sides = [
        (8, &histogram.negative_spans, &histogram.negative_deltas),
        (11, &histogram.positive_spans, &histogram.positive_deltas),
    ];
    for (number, spans, deltas) in sides {
        for span in spans {
            scratch.clear();
            put_number(&mut scratch, 1, unzigzag(i64::from(span.offset)));
            put_number(&mut scratch, 2, u64::from(span.length));
            put_bytes(out, number, &scratch);
        }
        scratch.clear();
        deltas.iter().for_each(|delta| put_varint(&mut scratch, unzigzag(*delta)));
        put_bytes(out, number + 1, &scratch);
    }
    let hint = match histogram.hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    };
    put_number(out, 14, hint);
    put_number(out, 15, timestamp as u64);
    if let Some(values) = &histogram.custom_values {
        scratch.clear();
        values.iter().for_each(|value| scratch.extend_from_slice(&value.to_le_bytes()));
        put_bytes(out, 16, &scratch);
    }
}

fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value);
}

fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}
