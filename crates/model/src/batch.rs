//! What one request or scrape brings, on its way into the store.

use crate::histogram::NativeHistogram;
use crate::{Labels, Sample};
use std::ops::Range;

/// A batch: columns of series and of their samples, borrowed from the request's body.
///
/// It is filled by `ingest` (or by hand), reused from request to request with [`Batch::clear`],
/// and appended as a whole. Each series names its samples as a range of [`Batch::samples`].
#[derive(Debug, Default)]
pub struct Batch<'a> {
    pub series: Vec<BatchSeries<'a>>,
    pub samples: Vec<Sample>,
    /// When the counter of each sample started; 0 where that is not known. Empty where that is
    /// so of all.
    pub starts: Vec<i64>,
    pub histograms: Vec<BatchHistogram>,
    pub metadata: Vec<Metadata<'a>>,
    pub exemplars: Vec<BatchExemplar<'a>>,
}

/// A native histogram of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchHistogram {
    pub timestamp: i64,
    /// When its counter started; 0 where that is not known.
    pub start: i64,
    pub value: NativeHistogram,
}

/// An observation behind a sample: what a trace's id hangs on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchExemplar<'a> {
    /// The series that it is of, which need not be among [`Batch::series`].
    pub series: RawLabels<'a>,
    /// Labels of its own, such as the trace's id.
    pub labels: RawLabels<'a>,
    pub value: f64,
    pub timestamp: i64,
}

/// An exemplar as it is stored and shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// Labels of its own, such as the trace's id.
    pub labels: Labels,
    pub value: f64,
    pub timestamp: i64,
}

/// One series of a batch.
#[derive(Debug, Clone)]
pub struct BatchSeries<'a> {
    pub labels: RawLabels<'a>,
    /// Its samples in [`Batch::samples`], ascending in time as the sender had them.
    pub samples: Range<u32>,
    /// Its histograms in [`Batch::histograms`].
    pub histograms: Range<u32>,
}

impl<'a> Batch<'a> {
    pub fn new() -> Batch<'a> {
        Batch::default()
    }

    /// Appends a series with float samples.
    pub fn push(&mut self, labels: RawLabels<'a>, samples: &[Sample]) {
        let start = self.samples.len() as u32;
        self.samples.extend_from_slice(samples);
        let end = self.samples.len() as u32;
        self.series.push(BatchSeries { labels, samples: start..end, histograms: 0..0 });
    }

    /// Appends a series with native histograms.
    pub fn push_histograms(&mut self, labels: RawLabels<'a>, histograms: &[BatchHistogram]) {
        let (at, start) = (self.samples.len() as u32, self.histograms.len() as u32);
        self.histograms.extend_from_slice(histograms);
        let end = self.histograms.len() as u32;
        self.series.push(BatchSeries { labels, samples: at..at, histograms: start..end });
    }

    /// When the counter of a sample started, by the sample's place in [`Batch::samples`].
    #[inline]
    pub fn start_of(&self, sample: usize) -> i64 {
        self.starts.get(sample).copied().unwrap_or(0)
    }

    /// Says of the series that was pushed last when the counters of its samples started.
    pub fn set_starts(&mut self, starts: &[i64]) {
        if starts.is_empty() {
            return;
        }
        self.starts.resize(self.samples.len() - starts.len(), 0);
        self.starts.extend_from_slice(starts);
    }

    /// Leaves out when counters started.
    pub fn forget_starts(&mut self) {
        self.starts.clear();
        self.histograms.iter_mut().for_each(|histogram| histogram.start = 0);
    }

    /// Bytes that are kept from body to body.
    pub fn capacity(&self) -> usize {
        self.series.capacity() * size_of::<BatchSeries<'_>>()
            + self.samples.capacity() * size_of::<Sample>()
            + self.starts.capacity() * size_of::<i64>()
            + self.histograms.capacity() * size_of::<BatchHistogram>()
            + self.metadata.capacity() * size_of::<Metadata<'_>>()
            + self.exemplars.capacity() * size_of::<BatchExemplar<'_>>()
    }

    /// Empties the batch and keeps its memory, for a body of another lifetime.
    pub fn recycle<'b>(mut self) -> Batch<'b> {
        self.clear();
        // The vectors are empty, so collecting in place keeps the allocation and changes the lifetime.
        Batch {
            series: self.series.into_iter().map(|_| unreachable!("cleared above")).collect(),
            samples: self.samples,
            starts: self.starts,
            histograms: self.histograms,
            metadata: self.metadata.into_iter().map(|_| unreachable!("cleared above")).collect(),
            exemplars: self.exemplars.into_iter().map(|_| unreachable!("cleared above")).collect(),
        }
    }

    pub fn clear(&mut self) {
        self.series.clear();
        self.samples.clear();
        self.starts.clear();
        self.histograms.clear();
        self.metadata.clear();
        self.exemplars.clear();
    }
}

/// A label set as it came: bytes that are not checked, perhaps not sorted.
///
/// The store finds a known series by these bytes alone; only a new series is decoded and put
/// into the canonical order. Both spellings are walked by [`RawLabels::pairs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawLabels<'a> {
    /// The bytes of a [`crate::Labels`]: checked, canonical.
    Canonical(&'a [u8]),
    /// The `labels` fields of a remote-write 1.0 `TimeSeries`, run together: for each label
    /// `0x0a len { 0x0a len name, 0x12 len value }` in protobuf's encoding.
    Proto(&'a [u8]),
}

impl<'a> RawLabels<'a> {
    pub fn bytes(&self) -> &'a [u8] {
        match *self {
            RawLabels::Canonical(bytes) | RawLabels::Proto(bytes) => bytes,
        }
    }

    /// Walks names and values as they stand. Yields `None` as an item where the bytes
    /// contradict the encoding, and ends there.
    pub fn pairs(&self) -> RawPairs<'a> {
        match *self {
            RawLabels::Canonical(bytes) => RawPairs { rest: bytes, proto: false },
            RawLabels::Proto(bytes) => RawPairs { rest: bytes, proto: true },
        }
    }
}

/// See [`RawLabels::pairs`].
#[derive(Debug, Clone)]
pub struct RawPairs<'a> {
    rest: &'a [u8],
    proto: bool,
}

impl<'a> RawPairs<'a> {
    /// The bytes that were not walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for RawPairs<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let pair = if self.proto { proto_pair(&mut self.rest) } else { canonical_pair(&mut self.rest) };
        if pair.is_none() {
            self.rest = &[];
        }
        Some(pair)
    }
}

fn canonical_pair<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut part = || {
        let (&first, tail) = rest.split_first()?;
        let (len, tail) = if first < 0x7f {
            (usize::from(first), tail)
        } else {
            let (long, tail) = tail.split_at_checked(4)?;
            (long.iter().fold(0, |len, b| len << 7 | usize::from(*b)), tail)
        };
        let (part, tail) = tail.split_at_checked(len)?;
        *rest = tail;
        Some(part)
    };
    Some((part()?, part()?))
}

#[inline]
fn proto_pair<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut label = proto_bytes(rest, 0x0a)?;
    let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
    while let Some(&tag) = label.first() {
        match tag {
            0x0a => name = proto_bytes(&mut label, 0x0a)?,
            0x12 => value = proto_bytes(&mut label, 0x12)?,
            // A field this version does not know. Remote write 1.0 has none; refusing is safe.
            _ => return None,
        }
    }
    Some((name, value))
}

#[inline]
fn proto_bytes<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (&first, mut tail) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let mut len = 0usize;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, next) = tail.split_first()?;
        tail = next;
        len |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let (bytes, next) = tail.split_at_checked(len)?;
            *rest = next;
            return Some(bytes);
        }
    }
    None
}

/// What a target says about a metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata<'a> {
    pub family: &'a str,
    pub kind: MetricType,
    pub help: &'a str,
    pub unit: &'a str,
}

/// The type of a metric family. Numbered as in remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub enum MetricType {
    #[default]
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    GaugeHistogram = 4,
    Summary = 5,
    Info = 6,
    Stateset = 7,
}

impl MetricType {
    /// The name in exposition formats and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Unknown => "unknown",
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::GaugeHistogram => "gaugehistogram",
            MetricType::Summary => "summary",
            MetricType::Info => "info",
            MetricType::Stateset => "stateset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_set_walk_alike() {
        let labels = Labels::from_pairs([("__name__", "up"), ("job", "api")]);
        let proto = b"\x0a\x0e\x0a\x08__name__\x12\x02up\x0a\x0a\x0a\x03job\x12\x03api";
        let canonical: Vec<_> = RawLabels::Canonical(labels.as_bytes()).pairs().collect();
        let sent: Vec<_> = RawLabels::Proto(proto).pairs().collect();
        assert_eq!(canonical, sent);
        assert_eq!(canonical[1], Some((&b"job"[..], &b"api"[..])));
    }

    #[test]
    fn a_cut_label_is_seen_and_ends_the_walk() {
        let cut: Vec<_> = RawLabels::Proto(b"\x0a\x0e\x0a\x08__na").pairs().collect();
        assert_eq!(cut, [None]);
    }
}
