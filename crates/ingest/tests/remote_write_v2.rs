//! Remote write 2.0 by hand against prost and a model told plainly: what one reads from any request,
//! the other reads too.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use prost::Message;
use support::{ProtoHistogram, any_bits, describe, fields, histogram, read_histogram, shuffle};
use tidewatch_ingest::{
    LeftOut, Spelling, WriteError, WriteSummary, decode_write_request, decode_write_request_v2,
    encode_write_request,
};
use tidewatch_model::{Batch, BatchHistogram, Limits, Metadata, MetricType};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(bytes = "vec", repeated, tag = "4")]
    symbols: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<ProtoSample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<ProtoHistogram>,
    #[prost(message, repeated, tag = "4")]
    exemplars: Vec<Exemplar>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<ProtoMetadata>,
    #[prost(int64, tag = "6")]
    created_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
    #[prost(int64, tag = "3")]
    start_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Exemplar {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(int64, tag = "3")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoMetadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "3")]
    help_ref: u32,
    #[prost(uint32, tag = "4")]
    unit_ref: u32,
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// The labels that references name, sorted and without empty ones; `None` where they name none.
fn labels(refs: &[u32], symbols: &[Vec<u8>]) -> Option<Pairs> {
    let text = |reference: u32| symbols.get(reference as usize).cloned();
    let (pairs, rest) = refs.as_chunks::<2>();
    let mut pairs: Pairs =
        pairs.iter().map(|[name, value]| Some((text(*name)?, text(*value)?))).collect::<Option<_>>()?;
    pairs.retain(|(name, value)| name.is_empty() || !value.is_empty());
    pairs.sort();
    rest.is_empty().then_some(pairs)
}

/// Whether no two labels of a series have the same name, empty ones among them.
fn names_are_unique(series: &TimeSeries, symbols: &[Vec<u8>]) -> bool {
    let mut names = series.labels_refs.iter().step_by(2).map(|name| &symbols[*name as usize]);
    let mut seen = BTreeSet::new();
    names.all(|name| seen.insert(name))
}

fn family(metric: &str, kind: MetricType) -> String {
    let suffixes: &[&str] = match kind {
        MetricType::Histogram => &["_bucket", "_count", "_sum"],
        MetricType::GaugeHistogram => &["_bucket", "_gcount", "_gsum"],
        MetricType::Summary => &["_count", "_sum"],
        _ => &[],
    };
    for suffix in suffixes {
        if metric.ends_with(suffix) && metric != *suffix {
            return metric[..metric.len() - suffix.len()].to_owned();
        }
    }
    metric.to_owned()
}

/// What is to come of a request: the batch in words, and what was left out.
fn expected(request: &Request) -> (Vec<String>, LeftOut) {
    let (mut series_lines, mut exemplar_lines, mut metadata_lines) = (Vec::new(), Vec::new(), Vec::new());
    let mut left_out = LeftOut::default();
    // What was said last, by the symbol of the metric's name.
    let mut said: BTreeMap<u32, ProtoMetadata> = BTreeMap::new();
    for series in &request.timeseries {
        let count = (series.samples.len() + series.histograms.len()) as u64;
        let of_exemplars: Vec<_> =
            series.exemplars.iter().map(|e| (e, labels(&e.labels_refs, &request.symbols))).collect();
        left_out.exemplars += of_exemplars.iter().filter(|(_, labels)| labels.is_none()).count() as u64;
        if count == 0 {
            left_out.empty_series += 1;
            continue;
        }
        let pairs = labels(&series.labels_refs, &request.symbols);
        let of_series = pairs.filter(|_| names_are_unique(series, &request.symbols)).and_then(|pairs| {
            let metric = pairs.iter().find(|(name, _)| name == b"__name__")?.1.clone();
            Some((pairs, metric))
        });
        let Some((pairs, metric)) = of_series else {
            left_out.malformed += count;
            continue;
        };
        let metadata = series.metadata.clone().unwrap_or_default();
        let text = |reference: u32| match reference {
            0 => Some(&[][..]),
            _ => request.symbols.get(reference as usize).map(Vec::as_slice),
        };
        let (help, unit) = (text(metadata.help_ref), text(metadata.unit_ref));
        let both_kinds = !series.samples.is_empty() && !series.histograms.is_empty();
        let (Some(help), Some(unit), false) = (help, unit, both_kinds) else {
            left_out.malformed += count;
            continue;
        };
        let start = |own: i64| if own == 0 { series.created_timestamp } else { own };
        let samples: Vec<_> = series
            .samples
            .iter()
            .map(|s| (start(s.start_timestamp), s.timestamp, s.value.to_bits()))
            .collect();
        let histograms: Vec<BatchHistogram> = series
            .histograms
            .iter()
            .map(read_histogram)
            .map(|h| BatchHistogram { start: start(h.start), ..h })
            .collect();
        let pairs = Some(pairs);
        series_lines.push(format!("{pairs:?} {samples:?} {histograms:?}"));
        for (exemplar, labels) in of_exemplars.iter().filter(|(_, labels)| labels.is_some()) {
            let bits = exemplar.value.to_bits();
            exemplar_lines.push(format!("{pairs:?} {labels:?} {bits:x} {}", exemplar.timestamp));
        }
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
        let kind = kinds.get(metadata.kind as usize).copied().unwrap_or(MetricType::Unknown);
        if let (Ok(metric), Ok(help), Ok(unit)) =
            (str::from_utf8(&metric), str::from_utf8(help), str::from_utf8(unit))
            && (kind, help, unit) != (MetricType::Unknown, "", "")
        {
            let family = family(metric, kind);
            let line = format!("{:?}", Metadata { family: &family, kind, help, unit });
            let is_name = |at: &usize| request.symbols[series.labels_refs[*at] as usize] == b"__name__";
            let at = (0..series.labels_refs.len()).step_by(2).find(is_name);
            let symbol = series.labels_refs[at.expect("it has a metric") + 1];
            if said.insert(symbol, metadata.clone()).as_ref() != Some(&metadata) {
                metadata_lines.push(line);
            }
        }
    }
    (series_lines.into_iter().chain(exemplar_lines).chain(metadata_lines).collect(), left_out)
}

/// The batch in words; what was left out, without the words.
fn decoded(body: &[u8]) -> Result<(Vec<String>, LeftOut), WriteError> {
    let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
    let summary = decode(body, &Limits::default(), &mut spelling, &mut batch)?;
    let (is_told, counts) = (summary.left_out.first.is_some(), LeftOut { first: None, ..summary.left_out });
    assert_eq!(is_told, counts != LeftOut::default(), "what is told of is counted, and the other way");
    Ok((describe(&batch), counts))
}

fn decode<'a>(
    body: &'a [u8],
    limits: &Limits,
    spelling: &'a mut Spelling,
    batch: &mut Batch<'a>,
) -> Result<WriteSummary, WriteError> {
    decode_write_request_v2(body, limits, &mut |_| true, spelling, batch)
}

/// A symbol table in which a metric's name is found often, and repeated texts.
fn symbols() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let symbol = prop_oneof![
        "[a-z_]{0,12}".prop_map(String::into_bytes),
        "[a-z]{1,5}_(bucket|sum|count|gcount)".prop_map(String::into_bytes),
        "\\PC{0,200}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..10),
    ];
    prop::collection::vec(symbol, 6..20).prop_map(|mut symbols| {
        symbols[0].clear();
        symbols[1] = b"__name__".to_vec();
        symbols
    })
}

/// References that mostly lie in the table, and mostly begin with a name.
fn refs() -> impl Strategy<Value = Vec<u32>> {
    let pair = (0..12u32, 0..20u32);
    (prop::bool::weighted(0.9), 2..8u32, prop::collection::vec(pair, 0..6), prop::bool::weighted(0.05))
        .prop_map(|(named, name, pairs, odd)| {
            let mut refs: Vec<u32> = pairs.into_iter().flat_map(|(name, value)| [name, value]).collect();
            if named {
                refs.extend([1, name]);
            }
            if odd {
                refs.push(3);
            }
            refs
        })
}

fn series() -> impl Strategy<Value = TimeSeries> {
    let starts = || prop_oneof![3 => Just(0), 1 => any::<i64>()];
    let times = || prop_oneof![any::<i64>(), 1_600_000_000_000..1_900_000_000_000i64];
    let sample = || {
        (any_bits(), times(), starts()).prop_map(|(value, timestamp, start_timestamp)| ProtoSample {
            value,
            timestamp,
            start_timestamp,
        })
    };
    let exemplar = (refs(), any_bits(), any::<i64>()).prop_map(|(labels_refs, value, timestamp)| Exemplar {
        labels_refs,
        value,
        timestamp,
    });
    let metadata = (0..9i32, 0..12u32, 0..12u32).prop_map(|(kind, help_ref, unit_ref)| ProtoMetadata {
        kind,
        help_ref,
        unit_ref,
    });
    let data = prop_oneof![
        6 => prop::collection::vec(sample(), 1..4).prop_map(|samples| (samples, Vec::new())),
        3 => prop::collection::vec(histogram(), 1..3).prop_map(|histograms| (Vec::new(), histograms)),
        1 => (prop::collection::vec(sample(), 0..2), prop::collection::vec(histogram(), 0..2)),
    ];
    let exemplars = prop::collection::vec(exemplar, 0..2);
    (refs(), data, exemplars, prop::option::of(metadata), starts()).prop_map(
        |(labels_refs, (samples, histograms), exemplars, metadata, created_timestamp)| TimeSeries {
            labels_refs,
            samples,
            histograms,
            exemplars,
            metadata,
            created_timestamp,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    (symbols(), prop::collection::vec(series(), 0..8))
        .prop_map(|(symbols, timeseries)| Request { symbols, timeseries })
}

/// A field of bytes.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    prost::encoding::encode_varint(content.len() as u64, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_request_reads_as_prost_reads_it(request in request()) {
        let body = request.encode_to_vec();
        // Read back, since prost does not write a -0.0.
        let read = Request::decode(body.as_slice()).unwrap();
        prop_assert_eq!(decoded(&body).unwrap(), expected(&read));
    }

    // Symbols may stand behind the series, references one by one, unknown fields in between.
    #[test]
    fn the_order_of_fields_does_not_matter(request in request(), seed in any::<u64>()) {
        let mut parts = Vec::new();
        for symbol in &request.symbols {
            parts.push(field(0x22, symbol));
        }
        let at = parts.len();
        for series in &request.timeseries {
            let packed = TimeSeries { labels_refs: Vec::new(), ..series.clone() }.encode_to_vec();
            let mut inner = fields(&packed);
            let refs: Vec<[u8; 2]> = series.labels_refs.iter().map(|r| [0x08, *r as u8]).collect();
            let unknown = [0xa8, 0x01, 0x07];
            inner.push(&unknown);
            shuffle(&mut inner, seed);
            let (before, behind) = inner.split_at(inner.len() / 2);
            parts.push(field(0x2a, &[before.concat(), refs.concat(), behind.concat()].concat()));
        }
        parts.rotate_left(at);
        let body = parts.concat();
        let read = Request::decode(body.as_slice()).unwrap();
        prop_assert_eq!(decoded(&body).unwrap(), expected(&read));
    }

    // What prost refuses we refuse, and the other way.
    #[test]
    fn cut_and_flipped_requests_never_read_otherwise(
        request in request(), cut in any::<prop::sample::Index>(), flip in any::<(prop::sample::Index, u8)>()
    ) {
        let mut body = request.encode_to_vec();
        let at = flip.0.index(body.len());
        body[at] ^= flip.1;
        body.truncate(cut.index(body.len()) + 1);
        if let (Ok(ours), Ok(theirs)) = (decoded(&body), Request::decode(body.as_slice())) {
            prop_assert_eq!(ours, expected(&theirs));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decoded(&body);
    }

    // The labels are those that a sender of 1.0 writes, to the byte.
    #[test]
    fn a_request_written_anew_as_1_0_is_the_same(request in request()) {
        let body = request.encode_to_vec();
        let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
        decode(&body, &Limits::default(), &mut spelling, &mut batch).unwrap();
        batch.starts.clear();
        batch.histograms.iter_mut().for_each(|histogram| histogram.start = 0);
        let mut again = Vec::new();
        encode_write_request(&batch, &mut again);
        let (mut reordered, mut second) = (Vec::new(), Batch::new());
        decode_write_request(&again, &Limits::default(), &mut reordered, &mut second).unwrap();
        prop_assert_eq!(describe(&batch), describe(&second));
        let bytes = |batch: &Batch<'_>| batch.series.iter().map(|s| s.labels.bytes().to_vec()).collect::<Vec<_>>();
        prop_assert_eq!(bytes(&batch), bytes(&second));
    }
}

fn symbol_table(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn one_sample(labels_refs: Vec<u32>) -> TimeSeries {
    let sample = ProtoSample { value: 1.0, timestamp: 1, start_timestamp: 0 };
    TimeSeries { labels_refs, samples: vec![sample], ..TimeSeries::default() }
}

// Two bytes of references can stand for a text as long as the request: a thousand series with a name of
// 16 kB fit into 40 kB.
#[test]
fn labels_that_expand_are_held_to_the_size_of_a_request_and_to_the_room_there_is() {
    let long = "x".repeat(16_000);
    let symbols = symbol_table(&["", "__name__", &long]);
    let request = Request { symbols, timeseries: vec![one_sample(vec![1, 2]); 1_000] };
    let body = request.encode_to_vec();
    assert!(body.len() < 40_000);
    let limits = Limits { write_body_bytes: 1 << 20, ..Limits::default() };
    let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
    let error = decode(&body, &limits, &mut spelling, &mut batch).unwrap_err();
    assert_eq!(
        error.to_string(),
        "labels and metadata of the request, written out, are over the limit of 1048576 bytes: send fewer series"
    );
    assert!(error.is_too_large() && batch_is_empty(&batch));
    assert!(spelling.capacity() < 9 << 17, "{} bytes were taken", spelling.capacity());

    let mut asked = 0;
    let mut room = |bytes| {
        asked += bytes;
        asked <= 1 << 20
    };
    let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
    let result = decode_write_request_v2(&body, &Limits::default(), &mut room, &mut spelling, &mut batch);
    assert_eq!(result, Err(WriteError::NoRoom));
    assert!(batch_is_empty(&batch) && spelling.capacity() < 9 << 17);

    let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
    decode(&body, &Limits::default(), &mut spelling, &mut batch).unwrap();
    assert_eq!(batch.series.len(), 1_000);
}

// Symbols of two bytes take more in our table.
#[test]
fn a_table_of_empty_symbols_is_held_to_the_size_of_a_request_too() {
    let limits = Limits { write_body_bytes: 1 << 20, ..Limits::default() };
    let body = [0x22, 0].repeat(500_000);
    let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
    let result = decode(&body, &limits, &mut spelling, &mut batch);
    assert_eq!(result, Err(WriteError::Expands { limit: 1 << 20 }));
}

// The store copies what is news, and logs it: a help of 16 MiB, said anew by each of 200,000 series, would be
// terabytes.
#[test]
fn metadata_that_expands_is_held_to_the_size_of_a_request() {
    let limits = Limits { write_body_bytes: 1 << 20, ..Limits::default() };
    let help = "x".repeat(16_000);
    let said = |series: usize, unit: fn(usize) -> u32| {
        let of = |at| TimeSeries {
            metadata: Some(ProtoMetadata { kind: 1, help_ref: 3, unit_ref: unit(at) }),
            ..one_sample(vec![1, 2])
        };
        let symbols = symbol_table(&["", "__name__", "up", &help, "s", "m"]);
        Request { symbols, timeseries: (0..series).map(of).collect() }.encode_to_vec()
    };
    for (body, expected) in [
        (said(60, |at| 4 + at as u32 % 2), Ok(60)),
        (said(100, |at| 4 + at as u32 % 2), Err(WriteError::Expands { limit: 1 << 20 })),
        (said(100, |_| 4), Ok(1)),
    ] {
        let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
        let result = decode(&body, &limits, &mut spelling, &mut batch);
        assert_eq!(result.map(|summary| summary.metadata), expected);
    }
}

fn batch_is_empty(batch: &Batch<'_>) -> bool {
    batch.series.is_empty() && batch.samples.is_empty() && batch.metadata.is_empty()
}

#[test]
fn series_over_a_label_limit_are_left_out_alone() {
    let long = "x".repeat(17_000);
    let symbols = symbol_table(&["", "__name__", "up", "text", &long, "a", "b"]);
    let many = [1, 2].into_iter().chain([5, 6].repeat(3_000)).collect();
    let mut third = one_sample(vec![1, 2]);
    let exemplar = |labels_refs| Exemplar { labels_refs, value: 1.0, timestamp: 1 };
    third.exemplars = vec![exemplar(vec![3, 4]), exemplar(vec![4, 0, 3, 2])];
    // An empty label is absent, but its name is compared: in the order of names, and in another one.
    let absent = [vec![1, 2, 4, 0], vec![4, 0, 1, 2], vec![1, 2, 4, 0, 3, 0]].map(one_sample);
    let timeseries = [vec![one_sample(vec![1, 2, 3, 4]), one_sample(many), third], absent.to_vec()].concat();
    let body = Request { symbols, timeseries }.encode_to_vec();
    let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
    let summary = decode(&body, &Limits::default(), &mut spelling, &mut batch).unwrap();
    assert_eq!((summary.series, summary.samples, summary.exemplars), (1, 1, 0));
    let first = Some("series 0: the label set is longer than is allowed".to_owned());
    assert_eq!(summary.left_out, LeftOut { over_limit: 5, first, ..LeftOut::default() });
}

// What is not counted the sender would never hear of.
#[test]
fn a_bad_series_without_samples_is_counted_and_told_of() {
    let long = "x".repeat(17_000);
    let symbols = symbol_table(&["", "__name__", "up", &long, "a"]);
    let exemplar = Exemplar { labels_refs: vec![4, 2], value: 1.0, timestamp: 1 };
    for (labels_refs, why) in [
        (vec![1, 2], "it has neither samples nor histograms"),
        (vec![1], "labels_refs are odd in number: a name has no value"),
        (vec![77, 78], "reference 77 is not among the 5 symbols of the request"),
        (vec![], "the label __name__ is missing or empty"),
        (vec![4, 2], "the label __name__ is missing or empty"),
        (vec![1, 2, 4, 3], "the label set is longer than is allowed"),
        (vec![1, 2, 4, 0, 4, 2], "two labels have the same name, that of reference 4"),
    ] {
        for (exemplars, good) in [(0, 0), (1, 0), (1, 1)] {
            let exemplars = vec![exemplar.clone(); exemplars];
            let bad = TimeSeries { labels_refs: labels_refs.clone(), exemplars, ..TimeSeries::default() };
            let timeseries = [vec![bad], vec![one_sample(vec![1, 2]); good]].concat();
            let body = Request { symbols: symbols.clone(), timeseries }.encode_to_vec();
            let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
            let summary = decode(&body, &Limits::default(), &mut spelling, &mut batch).unwrap();
            let first = Some(format!("series 0: {why}"));
            assert_eq!(summary.left_out, LeftOut { empty_series: 1, first, ..LeftOut::default() });
            assert_eq!((summary.samples, summary.exemplars), (good, 0));
        }
    }
}

// A label that is empty is absent, but two of a name are a mistake of the sender all the same.
#[test]
fn a_label_name_that_is_there_twice_is_refused_even_where_one_is_empty() {
    let symbols = symbol_table(&["", "__name__", "up", "a", "x", "a", "b"]);
    for (labels_refs, name) in [
        (vec![1, 2, 3, 0, 3, 4], 3),
        (vec![1, 2, 3, 4, 3, 0], 3),
        (vec![3, 4, 6, 4, 5, 0, 1, 2], 5),
        (vec![1, 2, 3, 0, 3, 0], 3),
        (vec![1, 0, 1, 2], 1),
        (vec![1, 2, 3, 4, 3, 4], 3),
    ] {
        let timeseries = vec![one_sample(labels_refs), one_sample(vec![6, 0, 1, 2, 3, 0])];
        let body = Request { symbols: symbols.clone(), timeseries }.encode_to_vec();
        let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
        let summary = decode(&body, &Limits::default(), &mut spelling, &mut batch).unwrap();
        let first = Some(format!("series 0: two labels have the same name, that of reference {name}"));
        assert_eq!(summary.left_out, LeftOut { malformed: 1, first, ..LeftOut::default() });
        assert_eq!(describe(&batch).len(), 1);
    }
}

#[test]
fn more_samples_or_exemplars_than_the_limit_are_refused() {
    let limits = Limits { write_samples: 2, ..Limits::default() };
    let series = |samples, exemplars| {
        let exemplar = Exemplar { labels_refs: Vec::new(), value: 1.0, timestamp: 1 };
        let mut series = one_sample(vec![1, 2]);
        series.samples = vec![series.samples[0].clone(); samples];
        series.exemplars = vec![exemplar; exemplars];
        Request { symbols: symbol_table(&["", "__name__", "up"]), timeseries: vec![series] }.encode_to_vec()
    };
    for (body, expected) in [
        (series(2, 2), None),
        (series(3, 0), Some("request holds more than 2 samples")),
        (series(1, 3), Some("request holds more than 2 exemplars")),
    ] {
        let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
        let error = decode(&body, &limits, &mut spelling, &mut batch).err();
        assert!(error.iter().all(WriteError::is_too_large));
        assert_eq!(error.map(|error| error.to_string()).as_deref(), expected);
    }
}

#[test]
fn more_buckets_than_a_request_may_have_are_refused() {
    let limits = Limits { write_samples: 2, ..Limits::default() };
    for (deltas, ok) in [(20, true), (21, false)] {
        let histogram = ProtoHistogram { positive_deltas: vec![1; deltas], ..ProtoHistogram::default() };
        let series =
            TimeSeries { labels_refs: vec![1, 2], histograms: vec![histogram], ..TimeSeries::default() };
        let symbols = symbol_table(&["", "__name__", "up"]);
        let body = Request { symbols, timeseries: vec![series.clone(), series] }.encode_to_vec();
        let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
        let error = decode(&body, &limits, &mut spelling, &mut batch).err().map(|error| error.to_string());
        assert_eq!(error.is_none(), ok);
        let expected = "too many buckets of native histograms";
        assert!(error.iter().all(|error| error.ends_with(expected)), "{error:?}");
    }
}

#[test]
fn malformed_requests_say_where_and_why() {
    for (body, message) in [
        (&b"\x22\x00\x2a\x05\x0a"[..], "malformed write request at byte 2: length is over the message's end"),
        (b"\x22\x00\x2a\x02\x12\x07", "malformed write request at byte 2: length is over the message's end"),
        (b"\x20\x01", "malformed write request at byte 0: wire type of a known field is wrong"),
        (
            b"\x2a\x05\x2a\x03\x1a\x01x",
            "malformed write request at byte 0: wire type of a known field is wrong",
        ),
        (b"\x2a\x03\x0a\x01\x80", "malformed write request at byte 0: varint is cut"),
    ] {
        assert_eq!(decoded(body).unwrap_err().to_string(), message);
    }
}
