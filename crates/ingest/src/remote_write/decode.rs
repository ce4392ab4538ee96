//! `prometheus.WriteRequest` to a batch, by hand: one pass, no copies, no allocation for a
//! series or a sample once the batch has grown to the size of the sender's requests.
//!
//! ```text
//! WriteRequest    1 timeseries: TimeSeries*, 3 metadata: MetricMetadata*
//! TimeSeries      1 labels: Label*, 2 samples: Sample*, 3 exemplars, 4 histograms: Histogram*
//! Label           1 name: string, 2 value: string
//! Sample          1 value: double, 2 timestamp: int64 (ms)
//! Exemplar        1 labels: Label*, 2 value: double, 3 timestamp: int64 (ms)
//! MetricMetadata  1 type: enum, 2 metric_family_name, 4 help, 5 unit: string
//! ```

use tidewatch_model::{Batch, BatchExemplar, BatchSeries, Limits, Metadata, MetricType, RawLabels, Sample};

use super::histogram::{BucketRoom, decode_histogram};
use super::wire::{Reader, Reason, WRONG_TYPE, Wire, put_bytes};
use super::{WriteError, WriteSummary};

/// Tags as every encoder writes them: of a `TimeSeries` in the request, of `Label` and `Sample`
/// in a series, of value and time in a sample.
const SERIES_TAG: u8 = 0x0a;
const LABEL_TAG: u8 = 0x0a;
const SAMPLE_TAG: u8 = 0x12;
const VALUE_TAG: u8 = 0x09;
const TIME_TAG: u8 = 0x10;

/// Fills `batch` from a decompressed request. Known fields may stand in any order and unknown
/// ones are skipped. The batch borrows `body`; only where a sender mixes the labels of a series
/// with other fields, which none is known to do, the request is first written anew, in order,
/// into `reordered`.
///
/// Labels are taken as bytes: whether they are UTF-8, sorted, unique and named is checked by the
/// store, once for each new series. After an error the batch is empty.
pub fn decode_write_request<'a>(
    body: &'a [u8],
    limits: &Limits,
    reordered: &'a mut Vec<u8>,
    batch: &mut Batch<'a>,
) -> Result<WriteSummary, WriteError> {
    batch.clear();
    let mut result = decode(body, limits, batch);
    if matches!(result, Err(Failure::LabelsApart)) {
        reordered.clear();
        result = match reorder(body, reordered) {
            Ok(()) => decode(reordered, limits, batch),
            Err(reason) => Err(Failure::Malformed { offset: 0, reason }),
        };
    }
    result.map_err(|failure| {
        batch.clear();
        match failure {
            Failure::Malformed { offset, reason } => WriteError::Malformed { offset, reason },
            Failure::TooMany { what } => WriteError::TooMany { what, limit: limits.write_samples },
            // `reorder` writes all labels of a series first.
            Failure::LabelsApart => unreachable!("labels stand together after reordering"),
        }
    })
}

enum Failure {
    Malformed {
        offset: usize,
        reason: Reason,
    },
    TooMany {
        what: &'static str,
    },
    /// The labels of a series are not one run of bytes.
    LabelsApart,
}

/// Why one message of the request could not be taken.
enum SeriesFailure {
    Malformed(Reason),
    TooMany(&'static str),
    LabelsApart,
}

impl From<Reason> for SeriesFailure {
    fn from(reason: Reason) -> Self {
        SeriesFailure::Malformed(reason)
    }
}

fn decode<'a>(body: &'a [u8], limits: &Limits, batch: &mut Batch<'a>) -> Result<WriteSummary, Failure> {
    batch.clear();
    let (mut summary, mut buckets) = (WriteSummary::default(), BucketRoom::of(limits));
    let mut reader = Reader::new(body);
    while let Some(&tag) = reader.rest().first() {
        let offset = body.len() - reader.rest().len();
        let field = if tag == SERIES_TAG {
            reader.skip_tag();
            reader.bytes().map(|message| (1, Wire::Bytes(message)))
        } else {
            reader.field()
        };
        let result = match field {
            Ok((1, Wire::Bytes(message))) => {
                decode_series(message, limits, &mut buckets, batch, &mut summary)
            }
            Ok((3, Wire::Bytes(message))) => decode_metadata(message, limits, batch),
            Ok((1 | 3, _)) => Err(SeriesFailure::Malformed(WRONG_TYPE)),
            Ok(_) => Ok(()),
            Err(reason) => Err(SeriesFailure::Malformed(reason)),
        };
        result.map_err(|failure| match failure {
            SeriesFailure::Malformed(reason) => Failure::Malformed { offset, reason },
            SeriesFailure::TooMany(what) => Failure::TooMany { what },
            SeriesFailure::LabelsApart => Failure::LabelsApart,
        })?;
    }
    summary.series = batch.series.len();
    summary.samples = batch.samples.len();
    summary.histograms = batch.histograms.len();
    summary.metadata = batch.metadata.len();
    summary.exemplars = batch.exemplars.len();
    Ok(summary)
}

fn decode_series<'a>(
    message: &'a [u8],
    limits: &Limits,
    buckets: &mut BucketRoom,
    batch: &mut Batch<'a>,
    summary: &mut WriteSummary,
) -> Result<(), SeriesFailure> {
    let samples_start = batch.samples.len() as u32;
    let histograms_start = batch.histograms.len() as u32;
    let exemplars_start = batch.exemplars.len();
    let mut labels: &[u8] = &[];
    let mut reader = Reader::new(message);
    while let Some(&tag) = reader.rest().first() {
        if tag == LABEL_TAG && labels.is_empty() {
            labels = label_run(&mut reader)?;
            continue;
        }
        if let Some((sample, rest)) = plain_sample(reader.rest()) {
            batch.samples.push(sample);
            reader = Reader::new(rest);
            if batch.samples.len() + batch.histograms.len() > limits.write_samples {
                return Err(SeriesFailure::TooMany("samples"));
            }
            continue;
        }
        match reader.field()? {
            (2, Wire::Bytes(sample)) => batch.samples.push(decode_sample(sample)?),
            (1, Wire::Bytes(_)) => return Err(SeriesFailure::LabelsApart),
            (3, Wire::Bytes(exemplar)) => batch.exemplars.push(decode_exemplar(exemplar)?),
            (4, Wire::Bytes(histogram)) => batch.histograms.push(decode_histogram(histogram, buckets)?),
            (1..=4, _) => return Err(WRONG_TYPE.into()),
            _ => {}
        }
        if batch.samples.len() + batch.histograms.len() > limits.write_samples {
            return Err(SeriesFailure::TooMany("samples"));
        }
        if batch.exemplars.len() > limits.write_samples {
            return Err(SeriesFailure::TooMany("exemplars"));
        }
    }
    for exemplar in &mut batch.exemplars[exemplars_start..] {
        exemplar.series = RawLabels::Proto(labels);
    }
    let samples = samples_start..batch.samples.len() as u32;
    let histograms = histograms_start..batch.histograms.len() as u32;
    // A series of two bytes must not become forty: without samples it is counted, not kept.
    if samples.is_empty() && histograms.is_empty() {
        summary.empty_series += 1;
    } else {
        batch.series.push(BatchSeries { labels: RawLabels::Proto(labels), samples, histograms });
    }
    Ok(())
}

/// Takes the labels that follow each other, as they stand.
#[inline]
fn label_run<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Reason> {
    let start = reader.rest();
    while reader.rest().first() == Some(&LABEL_TAG) {
        reader.skip_tag();
        reader.bytes()?;
    }
    Ok(&start[..start.len() - reader.rest().len()])
}

/// A sample in the form in which senders write it, and what comes after: the value unless it is
/// zero, then a time of six bytes, which are those from 1971 to 2109. What looks otherwise is left
/// to [`decode_sample`].
#[inline]
pub(super) fn plain_sample(message: &[u8]) -> Option<(Sample, &[u8])> {
    let (value, time, rest) = match message {
        [SAMPLE_TAG, 16, VALUE_TAG, tail @ ..] => {
            let (value, tail) = tail.split_first_chunk::<8>()?;
            let (time, rest) = tail.split_first_chunk::<7>()?;
            (f64::from_le_bytes(*value), time, rest)
        }
        [SAMPLE_TAG, 7, tail @ ..] => {
            let (time, rest) = tail.split_first_chunk::<7>()?;
            (0.0, time, rest)
        }
        _ => return None,
    };
    let [tag, a, b, c, d, e, f] = *time;
    if tag != TIME_TAG || a & b & c & d & e < 0x80 || f >= 0x80 {
        return None;
    }
    let low = |byte: u8| i64::from(byte & 0x7f);
    let timestamp = low(a) | low(b) << 7 | low(c) << 14 | low(d) << 21 | low(e) << 28 | low(f) << 35;
    Some((Sample { timestamp, value }, rest))
}

#[inline]
fn decode_sample(message: &[u8]) -> Result<Sample, Reason> {
    let mut sample = Sample::default();
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.field()? {
            (1, Wire::Fixed64(bytes)) => sample.value = f64::from_le_bytes(bytes),
            (2, Wire::Varint(value)) => sample.timestamp = value as i64,
            (1 | 2, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    Ok(sample)
}

/// The exemplar of a series that is not known yet.
fn decode_exemplar(message: &[u8]) -> Result<BatchExemplar<'_>, SeriesFailure> {
    let nothing = RawLabels::Proto(&[]);
    let mut exemplar = BatchExemplar { series: nothing, labels: nothing, value: 0.0, timestamp: 0 };
    let mut reader = Reader::new(message);
    while let Some(&tag) = reader.rest().first() {
        if tag == LABEL_TAG && exemplar.labels == nothing {
            exemplar.labels = RawLabels::Proto(label_run(&mut reader)?);
            continue;
        }
        match reader.field()? {
            (1, Wire::Bytes(_)) => return Err("labels of an exemplar stand apart".into()),
            (2, Wire::Fixed64(bytes)) => exemplar.value = f64::from_le_bytes(bytes),
            (3, Wire::Varint(value)) => exemplar.timestamp = value as i64,
            (1..=3, _) => return Err(WRONG_TYPE.into()),
            _ => {}
        }
    }
    Ok(exemplar)
}

fn decode_metadata<'a>(
    message: &'a [u8],
    limits: &Limits,
    batch: &mut Batch<'a>,
) -> Result<(), SeriesFailure> {
    let mut metadata = Metadata { family: "", kind: MetricType::Unknown, help: "", unit: "" };
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        match reader.field()? {
            (1, Wire::Varint(kind)) => metadata.kind = metric_type(kind),
            (2, Wire::Bytes(text)) => metadata.family = utf8(text)?,
            (4, Wire::Bytes(text)) => metadata.help = utf8(text)?,
            (5, Wire::Bytes(text)) => metadata.unit = utf8(text)?,
            (1 | 2 | 4 | 5, _) => return Err(WRONG_TYPE.into()),
            _ => {}
        }
    }
    if batch.metadata.len() >= limits.write_samples {
        return Err(SeriesFailure::TooMany("metadata entries"));
    }
    batch.metadata.push(metadata);
    Ok(())
}

fn utf8(bytes: &[u8]) -> Result<&str, Reason> {
    std::str::from_utf8(bytes).map_err(|_| "metadata is not UTF-8")
}

pub(super) fn metric_type(number: u64) -> MetricType {
    match number {
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

/// Writes the request anew with each series' labels first, each label with its name first and
/// nothing else in it. Never longer than the original, since all lengths are written at their
/// shortest.
fn reorder(body: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    let (mut series, mut label) = (Vec::new(), Vec::new());
    let mut reader = Reader::new(body);
    while !reader.is_empty() {
        match reader.field()? {
            (1, Wire::Bytes(message)) => {
                series.clear();
                reorder_series(message, &mut series, &mut label)?;
                put_bytes(out, 1, &series);
            }
            (3, Wire::Bytes(message)) => put_bytes(out, 3, message),
            _ => {}
        }
    }
    Ok(())
}

fn reorder_series(message: &[u8], out: &mut Vec<u8>, label: &mut Vec<u8>) -> Result<(), Reason> {
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        if let (1, Wire::Bytes(content)) = reader.field()? {
            label.clear();
            reorder_label(content, label)?;
            put_bytes(out, 1, label);
        }
    }
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        if let (number @ 2..=4, Wire::Bytes(content)) = reader.field()? {
            put_bytes(out, number, content);
        }
    }
    Ok(())
}

fn reorder_label(content: &[u8], out: &mut Vec<u8>) -> Result<(), Reason> {
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    let mut reader = Reader::new(content);
    while !reader.is_empty() {
        match reader.field()? {
            (1, Wire::Bytes(bytes)) => name = bytes,
            (2, Wire::Bytes(bytes)) => value = bytes,
            (1 | 2, _) => return Err(WRONG_TYPE),
            _ => {}
        }
    }
    put_bytes(out, 1, name);
    put_bytes(out, 2, value);
    Ok(())
}
