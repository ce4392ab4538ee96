//! The decoder by hand against prost: what one reads from any request, the other reads too.

use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use tidewatch_ingest::{WriteError, decode_write_request, encode_write_request};
use tidewatch_model::{Batch, BatchHistogram, Labels, Limits, Metadata, MetricType, RawLabels, Sample};

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<MetricMetadata>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<ProtoSample>,
    #[prost(message, repeated, tag = "3")]
    exemplars: Vec<Exemplar>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<ProtoHistogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct MetricMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    metric_family_name: String,
    #[prost(string, tag = "4")]
    help: String,
    #[prost(string, tag = "5")]
    unit: String,
}

#[derive(Clone, PartialEq, Message)]
struct BucketSpan {
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoHistogram {
    #[prost(oneof = "Count", tags = "1, 2")]
    count: Option<Count>,
    #[prost(double, tag = "3")]
    sum: f64,
    #[prost(sint32, tag = "4")]
    schema: i32,
    #[prost(double, tag = "5")]
    zero_threshold: f64,
    #[prost(uint64, tag = "6")]
    zero_count_int: u64,
    #[prost(double, tag = "7")]
    zero_count_float: f64,
    #[prost(message, repeated, tag = "8")]
    negative_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "9")]
    negative_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "10")]
    negative_counts: Vec<f64>,
    #[prost(message, repeated, tag = "11")]
    positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "12")]
    positive_deltas: Vec<i64>,
    #[prost(double, repeated, tag = "13")]
    positive_counts: Vec<f64>,
    #[prost(int32, tag = "14")]
    reset_hint: i32,
    #[prost(int64, tag = "15")]
    timestamp: i64,
    #[prost(double, repeated, tag = "16")]
    custom_values: Vec<f64>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Count {
    #[prost(uint64, tag = "1")]
    Int(u64),
    #[prost(double, tag = "2")]
    Float(f64),
}

/// A batch in words, so that the two readers can be compared.
fn describe(batch: &Batch<'_>) -> Vec<String> {
    let mut lines: Vec<String> = batch
        .series
        .iter()
        .map(|series| {
            let labels: Option<Vec<_>> = series.labels.pairs().collect();
            let samples: Vec<_> = batch.samples[series.samples.start as usize..series.samples.end as usize]
                .iter()
                .map(|s| (s.timestamp, s.value.to_bits()))
                .collect();
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

/// The same from what prost read.
fn describe_prost(request: &WriteRequest) -> Vec<String> {
    use tidewatch_model::histogram::{CounterResetHint, FloatHistogram, Histogram, NativeHistogram, Span};
    let spans = |spans: &[BucketSpan]| {
        spans.iter().map(|s| Span { offset: s.offset, length: s.length }).collect::<Vec<_>>()
    };
    let mut lines = Vec::new();
    for series in &request.timeseries {
        let labels: Option<Vec<_>> =
            Some(series.labels.iter().map(|l| (l.name.as_slice(), l.value.as_slice())).collect());
        let samples: Vec<_> = series.samples.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
        let histograms: Vec<BatchHistogram> = series
            .histograms
            .iter()
            .map(|h| {
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
                BatchHistogram { timestamp: h.timestamp, start: 0, value }
            })
            .collect();
        if !samples.is_empty() || !histograms.is_empty() {
            lines.push(format!("{labels:?} {samples:?} {histograms:?}"));
        }
    }
    for series in &request.timeseries {
        let pairs = |labels: &[Label]| {
            Some(labels.iter().map(|l| (l.name.clone(), l.value.clone())).collect::<Vec<_>>())
        };
        lines.extend(series.exemplars.iter().map(|exemplar| {
            let (series, labels) = (pairs(&series.labels), pairs(&exemplar.labels));
            format!("{series:?} {labels:?} {:x} {}", exemplar.value.to_bits(), exemplar.timestamp)
        }));
    }
    for m in &request.metadata {
        let kinds = [
            MetricType::Unknown,
            MetricType::Counter,
            MetricType::Gauge,
            MetricType::Histogram,
            MetricType::GaugeHistogram,
            MetricType::Summary,
            MetricType::Info,
            MetricType::Stateset,
        ];
        let kind = *kinds.get(m.kind as usize).unwrap_or(&MetricType::Unknown);
        let metadata = Metadata { family: &m.metric_family_name, kind, help: &m.help, unit: &m.unit };
        lines.push(format!("{metadata:?}"));
    }
    lines
}

fn decoded(body: &[u8]) -> Result<Vec<String>, WriteError> {
    let (mut reordered, mut batch) = (Vec::new(), Batch::new());
    decode_write_request(body, &Limits::default(), &mut reordered, &mut batch)?;
    Ok(describe(&batch))
}

fn any_bits() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits)
}

fn label() -> impl Strategy<Value = Label> {
    ("[a-z_]{0,12}", "\\PC{0,200}")
        .prop_map(|(name, value)| Label { name: name.into_bytes(), value: value.into_bytes() })
}

fn series() -> impl Strategy<Value = TimeSeries> {
    let sample = (any_bits(), any::<i64>()).prop_map(|(value, timestamp)| ProtoSample { value, timestamp });
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
    let histogram = histogram.prop_map(|(count, n, spans, deltas, custom_values)| ProtoHistogram {
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
    });
    (
        prop::collection::vec(label(), 0..8),
        prop::collection::vec(sample, 0..4),
        prop::collection::vec(histogram, 0..2),
    )
        .prop_map(|(labels, samples, histograms)| TimeSeries {
            exemplars: labels
                .iter()
                .take(1)
                .map(|l| Exemplar { labels: vec![l.clone()], value: 1.0, timestamp: 2 })
                .collect(),
            labels,
            samples,
            histograms,
        })
}

fn request() -> impl Strategy<Value = WriteRequest> {
    let metadata = (0..9i32, "\\PC{0,20}", "\\PC{0,20}").prop_map(|(kind, name, help)| MetricMetadata {
        kind,
        metric_family_name: name,
        help,
        unit: "s".to_owned(),
    });
    (prop::collection::vec(series(), 0..6), prop::collection::vec(metadata, 0..3))
        .prop_map(|(timeseries, metadata)| WriteRequest { timeseries, metadata })
}

/// Splits a message into its fields as bytes, so that they can be put into another order.
fn fields(message: &[u8]) -> Vec<&[u8]> {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_request_reads_as_prost_reads_it(request in request()) {
        let body = request.encode_to_vec();
        // Read back, since prost does not write a -0.0.
        let read = WriteRequest::decode(body.as_slice()).unwrap();
        prop_assert_eq!(decoded(&body).unwrap(), describe_prost(&read));
    }

    // Labels may stand anywhere among a series' fields, unknown fields may stand between.
    #[test]
    fn the_order_of_fields_does_not_matter(series in series(), seed in any::<u64>()) {
        let message = series.encode_to_vec();
        let mut parts = fields(&message);
        let unknown = [0xa8, 0x01, 0x07];
        parts.push(&unknown);
        let mut state = seed | 1;
        for i in (1..parts.len()).rev() {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            parts.swap(i, (state >> 33) as usize % (i + 1));
        }
        let shuffled = parts.concat();
        let mut body = vec![0x0a];
        prost::encoding::encode_varint(shuffled.len() as u64, &mut body);
        body.extend_from_slice(&shuffled);
        let request = WriteRequest::decode(body.as_slice()).unwrap();
        prop_assert_eq!(decoded(&body).unwrap(), describe_prost(&request));
    }

    // What prost refuses we refuse, but for label text, which the store checks.
    #[test]
    fn cut_and_flipped_requests_never_read_otherwise(
        request in request(), cut in any::<prop::sample::Index>(), flip in any::<(prop::sample::Index, u8)>()
    ) {
        let mut body = request.encode_to_vec();
        prop_assume!(!body.is_empty());
        let at = flip.0.index(body.len());
        body[at] ^= flip.1;
        body.truncate(cut.index(body.len()) + 1);
        if let (Ok(ours), Ok(theirs)) = (decoded(&body), WriteRequest::decode(body.as_slice())) {
            let theirs = describe_prost(&theirs);
            // A label that holds unknown fields is left to the store, which refuses the series.
            if !ours.iter().any(|line| line.contains("None")) {
                prop_assert_eq!(ours, theirs);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decoded(&body);
        let mut out = Vec::new();
        let _ = tidewatch_ingest::decompress(&body, &Limits::default(), &mut out);
    }

    #[test]
    fn what_we_encode_prost_reads(request in request()) {
        let body = request.encode_to_vec();
        let (mut reordered, mut batch) = (Vec::new(), Batch::new());
        decode_write_request(&body, &Limits::default(), &mut reordered, &mut batch).unwrap();
        let mut again = Vec::new();
        encode_write_request(&batch, &mut again);
        let read = WriteRequest::decode(again.as_slice()).unwrap();
        prop_assert_eq!(describe(&batch), describe_prost(&read));
    }
}

#[test]
fn canonical_labels_are_encoded_as_a_sender_writes_them() {
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "api"), ("long", &"x".repeat(300))]);
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp: -5, value: 1.5 }]);
    let mut body = Vec::new();
    encode_write_request(&batch, &mut body);
    let read = WriteRequest::decode(body.as_slice()).unwrap();
    assert_eq!(describe(&batch), describe_prost(&read));
    assert_eq!(decoded(&body).unwrap(), describe(&batch));
}

#[test]
fn more_samples_than_the_limit_are_refused() {
    let limits = Limits { write_samples: 2, ..Limits::default() };
    let sample = ProtoSample { value: 1.0, timestamp: 1 };
    for (count, ok) in [(2, true), (3, false)] {
        let series = TimeSeries { samples: vec![sample.clone(); count], ..TimeSeries::default() };
        let body = WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec();
        let (mut reordered, mut batch) = (Vec::new(), Batch::new());
        let result = decode_write_request(&body, &limits, &mut reordered, &mut batch);
        assert_eq!(result.is_ok(), ok);
        if let Err(error) = result {
            assert!(error.is_too_large());
            assert_eq!(error.to_string(), "request holds more than 2 samples");
            assert!(batch.samples.is_empty());
        }
    }
}

#[test]
fn malformed_requests_say_where_and_why() {
    for (body, message) in [
        (&b"\x0a\x05\x0a"[..], "malformed write request at byte 0: length is over the message's end"),
        (b"\x0a\x00\x48\x01\x0b", "malformed write request at byte 4: groups are not supported"),
        (b"\x08\x01", "malformed write request at byte 0: wire type of a known field is wrong"),
        (b"\x00", "malformed write request at byte 0: field number is out of range"),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            "malformed write request at byte 0: varint is longer than 64 bits",
        ),
    ] {
        assert_eq!(decoded(body).unwrap_err().to_string(), message);
    }
}
