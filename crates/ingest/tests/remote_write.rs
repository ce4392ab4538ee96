//! The decoder by hand against prost: what one reads from any request, the other reads too.

mod support;

use proptest::prelude::*;
use prost::Message;
use support::{BucketSpan, ProtoHistogram, any_bits, describe, fields, histogram, read_histogram, shuffle};
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

/// The same from what prost read.
fn describe_prost(request: &WriteRequest) -> Vec<String> {
    let mut lines = Vec::new();
    for series in &request.timeseries {
        let labels: Option<Vec<_>> =
            Some(series.labels.iter().map(|l| (l.name.as_slice(), l.value.as_slice())).collect());
        let samples: Vec<_> = series.samples.iter().map(|s| (0i64, s.timestamp, s.value.to_bits())).collect();
        let histograms: Vec<BatchHistogram> = series.histograms.iter().map(read_histogram).collect();
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

fn label() -> impl Strategy<Value = Label> {
    ("[a-z_]{0,12}", "\\PC{0,200}")
        .prop_map(|(name, value)| Label { name: name.into_bytes(), value: value.into_bytes() })
}

fn series() -> impl Strategy<Value = TimeSeries> {
    let sample = (any_bits(), any::<i64>()).prop_map(|(value, timestamp)| ProtoSample { value, timestamp });
    (
        prop::collection::vec(label(), 0..8),
        prop::collection::vec(sample, 0..4),
        // Of 1.0, which has no starts.
        prop::collection::vec(histogram().prop_map(|h| ProtoHistogram { start_timestamp: 0, ..h }), 0..2),
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
        shuffle(&mut parts, seed);
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

// A delta takes a byte in the request and eight in memory.
#[test]
fn more_buckets_than_a_request_may_have_are_refused() {
    let limits = Limits { write_samples: 2, ..Limits::default() };
    for (deltas, spans, ok) in [(30, 10, true), (31, 10, false), (0, 41, false)] {
        let span = BucketSpan { offset: 0, length: 1 };
        let histogram = ProtoHistogram {
            positive_deltas: vec![1; deltas],
            negative_spans: vec![span; spans],
            ..ProtoHistogram::default()
        };
        let series = TimeSeries { histograms: vec![histogram], ..TimeSeries::default() };
        let body = WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec();
        let (mut reordered, mut batch) = (Vec::new(), Batch::new());
        let result = decode_write_request(&body, &limits, &mut reordered, &mut batch);
        assert_eq!(result.is_ok(), ok);
        if let Err(error) = result {
            let message =
                "malformed write request at byte 0: the request has too many buckets of native histograms";
            assert_eq!(error.to_string(), message);
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
