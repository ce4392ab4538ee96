//! Records of the write-ahead log.
//!
//! ```text
//!  1 series      each: reference (8, big-endian), count of labels, names and values
//!  2 samples     first reference and time (8 and 8); each: differences to them as varints, value (8)
//!  3 tombstones  each: reference (8), first and last time as varints
//!  4 exemplars   as samples, and behind each value its labels
//!  5 markers     of chunks in other files: passed over
//!  6 metadata    each: reference as an unsigned varint, type (1), how many fields, names and values
//!  7 histograms  as samples, with a histogram in place of the value: see `histograms`
//!  8 the same with float counts; 9 and 10: 7 and 8 with custom buckets
//! 11 samples     with starts: first reference, time and start as varints, value; each further one:
//!                difference to the reference before and to the first time, start, value
//! 12 and 13      histograms with integer and float counts, in the way of 11
//! 14 the time from which a checkpoint holds: passed over
//! ```
//!
//! A start is a byte: 0 none, 1 that of the sample before, else the difference to the first as a
//! varint behind it.

use std::sync::Arc;

use tidewatch_model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Histogram, Span};
use tidewatch_model::{Labels, MetricType, NativeHistogram};

use super::reader::{Reader, Short};

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Series by reference. `None` where the labels are no label set.
    Series(Vec<(u64, Option<Labels>)>),
    Samples(Vec<(At, f64)>),
    Histograms(Vec<(At, NativeHistogram)>),
    /// Reference, first and last time.
    Tombstones(Vec<(u64, i64, i64)>),
    /// Value and labels. `None` where the labels are no label set.
    Exemplars(Vec<(At, f64, Option<Labels>)>),
    Metadata(Vec<Metadata>),
    /// Notes of Prometheus to itself.
    Passed,
    /// What a newer release wrote.
    Unknown(u8),
}

/// Where a sample belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct At {
    pub reference: u64,
    pub time: i64,
    /// When its counter started; 0 where that is not known.
    pub start: i64,
}

/// What a target said of a series' metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub reference: u64,
    pub kind: MetricType,
    pub help: String,
    pub unit: String,
}

/// Reads an unpacked record.
pub fn decode(record: &[u8]) -> Result<Record, &'static str> {
    let mut reader = Reader::new(record);
    let kind = reader.u8().map_err(|_| "a record is empty")?;
    match kind {
        1 => series(reader).map(Record::Series),
        2 => based(reader, |reader| reader.float()).map(Record::Samples),
        3 => tombstones(reader).map(Record::Tombstones),
        4 => exemplars(reader).map(Record::Exemplars),
        5 | 14 => Ok(Record::Passed),
        6 => metadata(reader).map(Record::Metadata),
        7 | 9 => based(reader, integer_histogram).map(Record::Histograms),
        8 | 10 => based(reader, float_histogram).map(Record::Histograms),
        11 => started(reader, |reader| reader.float()).map(Record::Samples),
        12 => started(reader, integer_histogram).map(Record::Histograms),
        13 => started(reader, float_histogram).map(Record::Histograms),
        kind => Ok(Record::Unknown(kind)),
    }
    .map_err(|Short| "a record is cut short")
}

fn series(mut reader: Reader<'_>) -> Result<Vec<(u64, Option<Labels>)>, Short> {
    let mut found = Vec::new();
    while !reader.rest.is_empty() {
        found.push((reader.be64()?, labels(&mut reader)?));
    }
    Ok(found)
}

fn labels(reader: &mut Reader<'_>) -> Result<Option<Labels>, Short> {
    let mut pairs = Vec::new();
    let mut is_set = true;
    for _ in 0..reader.uvarint()? {
        let mut text = || Ok::<_, Short>(str::from_utf8(reader.text()?));
        match (text()?, text()?) {
            (Ok(name), Ok(value)) => pairs.push((name, value)),
            _ => is_set = false,
        }
    }
    is_set &= pairs.is_sorted_by(|a, b| a.0 < b.0) && pairs.iter().all(|(name, _)| !name.is_empty());
    Ok(is_set.then(|| Labels::from_pairs(pairs)))
}

/// Values by differences to the first reference and time.
fn based<'a, T>(
    mut reader: Reader<'a>,
    mut value: impl FnMut(&mut Reader<'a>) -> Result<T, Short>,
) -> Result<Vec<(At, T)>, Short> {
    let mut found = Vec::new();
    if reader.rest.is_empty() {
        return Ok(found);
    }
    let (reference, time) = (reader.be64()?, reader.be64()? as i64);
    while !reader.rest.is_empty() {
        let reference = reference.wrapping_add(reader.varint()? as u64);
        let time = time.wrapping_add(reader.varint()?);
        found.push((At { reference, time, start: 0 }, value(&mut reader)?));
    }
    Ok(found)
}

/// Values with starts.
fn started<'a, T>(
    mut reader: Reader<'a>,
    mut value: impl FnMut(&mut Reader<'a>) -> Result<T, Short>,
) -> Result<Vec<(At, T)>, Short> {
    let mut found = Vec::new();
    if reader.rest.is_empty() {
        return Ok(found);
    }
    let first = At { reference: reader.varint()? as u64, time: reader.varint()?, start: reader.varint()? };
    found.push((first, value(&mut reader)?));
    let mut before = first;
    while !reader.rest.is_empty() {
        let reference = before.reference.wrapping_add(reader.varint()? as u64);
        let time = first.time.wrapping_add(reader.varint()?);
        let start = match reader.u8()? {
            0 => 0,
            1 => before.start,
            _ => first.start.wrapping_add(reader.varint()?),
        };
        before = At { reference, time, start };
        found.push((before, value(&mut reader)?));
    }
    Ok(found)
}

fn tombstones(mut reader: Reader<'_>) -> Result<Vec<(u64, i64, i64)>, Short> {
    let mut found = Vec::new();
    while !reader.rest.is_empty() {
        found.push((reader.be64()?, reader.varint()?, reader.varint()?));
    }
    Ok(found)
}

fn exemplars(reader: Reader<'_>) -> Result<Vec<(At, f64, Option<Labels>)>, Short> {
    let found = based(reader, |reader| Ok((reader.float()?, labels(reader)?)))?;
    Ok(found.into_iter().map(|(at, (value, labels))| (at, value, labels)).collect())
}

fn metadata(mut reader: Reader<'_>) -> Result<Vec<Metadata>, Short> {
    let mut found = Vec::new();
    while !reader.rest.is_empty() {
        let mut entry = Metadata {
            reference: reader.uvarint()?,
            kind: metric_type(reader.u8()?),
            help: String::new(),
            unit: String::new(),
        };
        for _ in 0..reader.uvarint()? {
            let (name, value) = (reader.text()?, reader.text()?);
            let value = String::from_utf8_lossy(value).into_owned();
            match name {
                b"HELP" => entry.help = value,
                b"UNIT" => entry.unit = value,
                _ => {}
            }
        }
        found.push(entry);
    }
    Ok(found)
}

fn metric_type(byte: u8) -> MetricType {
    match byte {
        1 => MetricType::Counter,
        2 => MetricType::Gauge,
        3 => MetricType::Histogram,
        4 => MetricType::GaugeHistogram,
        5 => MetricType::Summary,
        6 => MetricType::Info,
        7 => MetricType::Stateset,
        _ => MetricType::Unknown,
    }
}

/// Hint (1), schema, zero threshold (8), count of zeros and count, sum (8); spans of both sides,
/// buckets of both sides; with custom buckets their bounds (8 each). How many stands before each list.
fn integer_histogram(reader: &mut Reader<'_>) -> Result<NativeHistogram, Short> {
    let (hint, schema, zero_threshold) = (hint(reader.u8()?), schema(reader)?, reader.float()?);
    let (zero_count, count, sum) = (reader.uvarint()?, reader.uvarint()?, reader.float()?);
    let (positive_spans, negative_spans) = (list(reader, span)?, list(reader, span)?);
    let (positive_deltas, negative_deltas) = (list(reader, Reader::varint)?, list(reader, Reader::varint)?);
    Ok(NativeHistogram::Integer(Histogram {
        hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        negative_spans,
        positive_deltas,
        negative_deltas,
        custom_values: bounds(reader, schema)?,
    }))
}

/// The same with floats (8) for both counts and the buckets.
fn float_histogram(reader: &mut Reader<'_>) -> Result<NativeHistogram, Short> {
    let (hint, schema, zero_threshold) = (hint(reader.u8()?), schema(reader)?, reader.float()?);
    let (zero_count, count, sum) = (reader.float()?, reader.float()?, reader.float()?);
    let (positive_spans, negative_spans) = (list(reader, span)?, list(reader, span)?);
    let (positive_buckets, negative_buckets) = (list(reader, Reader::float)?, list(reader, Reader::float)?);
    Ok(NativeHistogram::Float(FloatHistogram {
        hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        negative_spans,
        positive_buckets,
        negative_buckets,
        custom_values: bounds(reader, schema)?,
    }))
}

fn hint(byte: u8) -> CounterResetHint {
    match byte {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}

/// One that is too large becomes one that no histogram has.
fn schema(reader: &mut Reader<'_>) -> Result<i32, Short> {
    Ok(i32::try_from(reader.varint()?).unwrap_or(i32::MAX))
}

fn span(reader: &mut Reader<'_>) -> Result<Span, Short> {
    let (offset, length) = (reader.varint()?, reader.uvarint()?);
    let offset = i32::try_from(offset).map_err(|_| Short)?;
    Ok(Span { offset, length: u32::try_from(length).map_err(|_| Short)? })
}

fn bounds(reader: &mut Reader<'_>, schema: i32) -> Result<Option<Arc<[f64]>>, Short> {
    if schema != CUSTOM_BUCKETS_SCHEMA {
        return Ok(None);
    }
    let bounds = list(reader, Reader::float)?;
    Ok((!bounds.is_empty()).then(|| bounds.into()))
}

/// Each takes a byte at least, so there are not more than the record is long.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    mut one: impl FnMut(&mut Reader<'a>) -> Result<T, Short>,
) -> Result<Vec<T>, Short> {
    let mut found = Vec::new();
    for _ in 0..reader.uvarint()? {
        found.push(one(reader)?);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reader::{push_uvarint, push_varint};
    use super::*;

    fn at(reference: u64, time: i64, start: i64) -> At {
        At { reference, time, start }
    }

    fn put_float(record: &mut Vec<u8>, value: f64) {
        record.extend_from_slice(&value.to_bits().to_be_bytes());
    }

    fn put_text(record: &mut Vec<u8>, text: &str) {
        push_uvarint(record, text.len() as u64);
        record.extend_from_slice(text.as_bytes());
    }

    /// The beginning of a record of values by differences.
    fn based_record(kind: u8) -> Vec<u8> {
        let mut record = vec![kind];
        record.extend_from_slice(&9u64.to_be_bytes());
        record.extend_from_slice(&1000i64.to_be_bytes());
        record
    }

    #[test]
    fn series_and_samples_and_deletions_are_read() {
        let mut record = vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 2];
        ["__name__", "up", "job", "a"].iter().for_each(|text| put_text(&mut record, text));
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "a")]);
        assert_eq!(decode(&record), Ok(Record::Series(vec![(9, Some(labels))])));
        assert_eq!(decode(&record[..record.len() - 1]), Err("a record is cut short"));
        let mut record = based_record(2);
        for (reference, time) in [(0, 0), (1, 3)] {
            record.extend_from_slice(&[reference, time]);
            put_float(&mut record, 1.5);
        }
        let expected = vec![(at(9, 1000, 0), 1.5), (at(8, 998, 0), 1.5)];
        assert_eq!(decode(&record), Ok(Record::Samples(expected)));
        assert_eq!(decode(&[3, 0, 0, 0, 0, 0, 0, 0, 9, 2, 4]), Ok(Record::Tombstones(vec![(9, 1, 2)])));
        assert_eq!(decode(&[5, 1]), Ok(Record::Passed));
        assert_eq!(decode(&[77]), Ok(Record::Unknown(77)));
    }

    #[test]
    fn samples_with_starts_are_read() {
        let mut record = vec![11];
        [9, 1000, 400].iter().for_each(|number| push_varint(&mut record, *number));
        put_float(&mut record, 1.0);
        for (reference, time, start) in [(1, 0, &[1][..]), (1, 10, &[0]), (-2, 20, &[2, 3])] {
            push_varint(&mut record, reference);
            push_varint(&mut record, time);
            record.extend_from_slice(start);
            put_float(&mut record, 2.0);
        }
        let expected = vec![
            (at(9, 1000, 400), 1.0),
            (at(10, 1000, 400), 2.0),
            (at(11, 1010, 0), 2.0),
            (at(9, 1020, 398), 2.0),
        ];
        assert_eq!(decode(&record), Ok(Record::Samples(expected)));
    }

    #[test]
    fn histograms_of_both_kinds_are_read() {
        let mut record = based_record(7);
        record.extend_from_slice(&[0, 0, 2, 6]); // The first reference and time; no reset; schema 3.
        put_float(&mut record, 0.001);
        record.extend_from_slice(&[1, 3]);
        put_float(&mut record, 7.5);
        record.extend_from_slice(&[1, 0, 2, 0, 2, 2, 0, 0]);
        let integer = Histogram {
            hint: CounterResetHint::NotReset,
            schema: 3,
            zero_threshold: 0.001,
            zero_count: 1,
            count: 3,
            sum: 7.5,
            positive_spans: vec![Span { offset: 0, length: 2 }],
            positive_deltas: vec![1, 0],
            ..Histogram::default()
        };
        let expected = vec![(at(9, 1000, 0), NativeHistogram::Integer(integer))];
        assert_eq!(decode(&record), Ok(Record::Histograms(expected)));

        let mut record = based_record(10);
        record.extend_from_slice(&[0, 0, 3, 105]); // A gauge; schema −53.
        [0.0, 0.0, 2.5, 7.5].iter().for_each(|value| put_float(&mut record, *value));
        record.extend_from_slice(&[1, 0, 1, 0, 1]);
        put_float(&mut record, 2.5);
        record.extend_from_slice(&[0, 1]);
        put_float(&mut record, 0.25);
        let float = FloatHistogram {
            hint: CounterResetHint::Gauge,
            schema: CUSTOM_BUCKETS_SCHEMA,
            count: 2.5,
            sum: 7.5,
            positive_spans: vec![Span { offset: 0, length: 1 }],
            positive_buckets: vec![2.5],
            custom_values: Some(Arc::from([0.25])),
            ..FloatHistogram::default()
        };
        let expected = vec![(at(9, 1000, 0), NativeHistogram::Float(float))];
        assert_eq!(decode(&record), Ok(Record::Histograms(expected)));
        assert_eq!(decode(&record[..record.len() - 1]), Err("a record is cut short"));
    }

    #[test]
    fn exemplars_and_metadata_are_read() {
        let mut record = based_record(4);
        record.extend_from_slice(&[0, 0]);
        put_float(&mut record, 0.5);
        record.push(1);
        ["trace", "abc"].iter().for_each(|text| put_text(&mut record, text));
        let labels = Labels::from_pairs([("trace", "abc")]);
        assert_eq!(decode(&record), Ok(Record::Exemplars(vec![(at(9, 1000, 0), 0.5, Some(labels))])));
        let mut record = vec![6, 9, 1, 3];
        ["UNIT", "s", "HELP", "Waits.", "NEWER", "x"].iter().for_each(|text| put_text(&mut record, text));
        let expected = Metadata {
            reference: 9,
            kind: MetricType::Counter,
            help: "Waits.".to_owned(),
            unit: "s".to_owned(),
        };
        assert_eq!(decode(&record), Ok(Record::Metadata(vec![expected])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(kind in 0u8..16, bytes in any::<Vec<u8>>()) {
            let mut record = vec![kind];
            record.extend_from_slice(&bytes);
            let _ = decode(&record);
        }
    }
}
