//! Histograms as prost reads them, batches in words, and messages in another order: what the tests of
//! both versions of remote write share.

use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use tidewatch_model::histogram::{CounterResetHint, FloatHistogram, Histogram, NativeHistogram, Span};
use tidewatch_model::{Batch, BatchHistogram, RawLabels, Sample};

#[derive(Clone, PartialEq, Message)]
pub struct BucketSpan {
    #[prost(sint32, tag = "1")]
    pub offset: i32,
    #[prost(uint32, tag = "2")]
    pub length: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ProtoHistogram {
    #[prost(oneof = "Count", tags = "1, 2")]
    pub count: Option<Count>,
    #[prost(double, tag = "3")]
    pub sum: f64,
    #[prost(sint32, tag = "4")]
    pub schema: i32,
    #[prost(double, tag = "5")]
    pub zero_threshold: f64,
    #[prost(uint64, tag = "6")]
    pub zero_count_int: u64,
    #[prost(double, tag = "7")]
    pub zero_count_float: f64,
    #[prost(message, repeated, tag = "8")]
    pub negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    pub negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    pub negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    pub positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    pub positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    pub positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    pub reset_hint: i32,
    #[prost(int64, tag = "15")]
    pub timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    pub custom_values: Vec<f64>,
    /// In 2.0 alone.
    #[prost(int64, tag = "17")]
    pub start_timestamp: i64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Count {
    #[prost(uint64, tag = "1")]
    Int(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}

/// A batch in words, so that the two readers can be compared.
pub fn describe(batch: &Batch<'_>) -> Vec<String> {
    let mut lines: Vec<String> = batch
        .series
        .iter()
        .map(|series| {
            let labels: Option<Vec<_>> = series.labels.pairs().collect();
            let places = series.samples.start as usize..series.samples.end as usize;
            let sample = |at: usize| {
                let Sample { timestamp, value } = batch.samples[at];
                (batch.start_of(at), timestamp, value.to_bits())
            };
            let samples: Vec<_> = places.map(sample).collect();
            let histograms =
                &batch.histograms[series.histograms.start as usize..series.histograms.end as usize];
            format!("{labels:?} {samples:?} {histograms:?}")
        })
        .collect();
    lines.extend(batch.exemplars.iter().map(|exemplar| {
        let pairs = |labels: RawLabels<'_>| format!("{:?}", labels.pairs().collect::<Option<Vec<_>>>());
        let (series, labels) = (pairs(exemplar.series), pairs(exemplar.labels));
        format!("{series} {labels} {:x} {}", exemplar.value.to_bits(), exemplar.timestamp)
    }));
    lines.extend(batch.metadata.iter().map(|metadata| format!("{metadata:?}")));
    lines
}

/// A histogram that prost has read.
pub fn read_histogram(h: &ProtoHistogram) -> BatchHistogram {
    let spans = |spans: &[BucketSpan]| {
        spans.iter().map(|s| Span { offset: s.offset, length: s.length }).collect::<Vec<_>>()
    };
    let hint = match h.reset_hint {
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    };
    let custom_values: Option<Arc<[f64]>> =
        (!h.custom_values.is_empty()).then(|| h.custom_values.clone().into());
    let value = match &h.count {
        Some(Count::Float(count)) => NativeHistogram::Float(FloatHistogram {
            hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: h.zero_count_float,
            count: *count,
            sum: h.sum,
            positive_spans: spans(&h.positive_spans),
            negative_spans: spans(&h.negative_spans),
            positive_buckets: h.positive_counts.clone(),
            negative_buckets: h.negative_counts.clone(),
            custom_values,
        }),
        count => NativeHistogram::Integer(Histogram {
            hint,
            schema: h.schema,
            zero_threshold: h.zero_threshold,
            zero_count: h.zero_count_int,
            count: if let Some(Count::Int(count)) = count { *count } else { 0 },
            sum: h.sum,
            positive_spans: spans(&h.positive_spans),
            negative_spans: spans(&h.negative_spans),
            positive_deltas: h.positive_deltas.clone(),
            negative_deltas: h.negative_deltas.clone(),
            custom_values,
        }),
    };
    BatchHistogram { timestamp: h.timestamp, start: h.start_timestamp, value }
}

pub fn any_bits() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits)
}

pub fn histogram() -> impl Strategy<Value = ProtoHistogram> {
    let span = || (any::<i32>(), any::<u32>()).prop_map(|(offset, length)| BucketSpan { offset, length });
    let numbers = (any::<f64>(), any::<i32>(), any::<f64>(), any::<u64>(), 0..5i32, any::<i64>());
    let histogram = (
        prop_oneof![
            Just(None),
            any::<u64>().prop_map(|n| Some(Count::Int(n))),
            any::<f64>().prop_map(|n| Some(Count::Float(n)))
        ],
        numbers,
        prop::collection::vec(span(), 0..3),
        prop::collection::vec(any::<i64>(), 0..5),
        prop::collection::vec(any::<f64>(), 0..3),
    );
    histogram.prop_map(|(count, n, spans, deltas, custom_values)| ProtoHistogram {
        count,
        sum: n.0,
        schema: n.1,
        zero_threshold: n.2,
        zero_count_int: n.3,
        zero_count_float: n.2 / 3.0,
        negative_spans: spans.clone(),
        negative_deltas: deltas.iter().rev().copied().collect(),
        negative_counts: custom_values.clone(),
        positive_spans: spans,
        positive_counts: deltas.iter().map(|delta| *delta as f64).collect(),
        positive_deltas: deltas,
        reset_hint: n.4,
        timestamp: n.5,
        custom_values,
        start_timestamp: n.5 / 7,
    })
}

/// Splits a message into its fields as bytes, so that they can be put into another order.
pub fn fields(message: &[u8]) -> Vec<&[u8]> {
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let tag = prost::encoding::decode_varint(&mut rest).unwrap();
        match tag & 7 {
            0 => drop(prost::encoding::decode_varint(&mut rest).unwrap()),
            1 => rest = &rest[8..],
            _ => {
                let len = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
                rest = &rest[len..];
            }
        }
        fields.push(&start[..start.len() - rest.len()]);
    }
    fields
}

/// Another order, the same for the same seed.
pub fn shuffle<T>(parts: &mut [T], seed: u64) {
    let mut state = seed | 1;
    for i in (1..parts.len()).rev() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        parts.swap(i, (state >> 33) as usize % (i + 1));
    }
}
