//! Samples that wait to be written: of any series, in any order.
//!
//! A row has what a float needs, 24 bytes; what few samples have more stands apart. Sorting is
//! stable, so of two samples at one time the one that came first stays first.
//!
//! Not here: what can be stored (the caller asks before), and where it goes.

use std::collections::BTreeSet;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tidewatch_model::{Labels, NativeHistogram};

use crate::gather::{StoredRun, StoredValue, StoredValues};
use crate::options::BLOCK_MS;
use crate::stretches::widen;

/// Samples that are collected before they are written: 96 MiB, and half of that to sort them.
const SAMPLES_MAX: usize = 4 << 20;

/// Bytes of labels, histograms and starts that are collected.
const BYTES_MAX: usize = 64 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Pending {
    /// Series by labels, numbered as they come.
    numbers: HashMap<Labels, u32, RandomState>,
    labels: Vec<Labels>,
    rows: Vec<Row>,
    extras: Vec<Extra>,
    /// Of labels and extras.
    bytes: usize,
}

/// A sample that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) series: u32,
    /// 0, or one more than the place among the extras.
    extra: u32,
    pub(super) time: i64,
    pub(super) value: f64,
}

/// What a sample has beside its time and a float.
#[derive(Debug)]
struct Extra {
    /// 0 where none is known.
    start: i64,
    histogram: Option<NativeHistogram>,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= SAMPLES_MAX || self.bytes >= BYTES_MAX
    }

    /// The number of a series, if it has one.
    pub(super) fn number(&self, labels: &Labels) -> Option<u32> {
        self.numbers.get(labels).copied()
    }

    pub(super) fn add_series(&mut self, labels: &Labels) -> u32 {
        let number = self.labels.len() as u32;
        self.numbers.insert(labels.clone(), number);
        self.labels.push(labels.clone());
        // The text, its counts, and the places in both tables.
        self.bytes += labels.as_bytes().len() + 64;
        number
    }

    /// Adds a row of a run.
    pub(super) fn push(&mut self, series: u32, run: &StoredRun<'_>, row: usize) {
        let start = run.starts.map_or(0, |starts| starts[row]);
        let (value, histogram) = match run.values {
            StoredValues::Floats(values) => (values[row], None),
            StoredValues::Histograms(histograms) => (0.0, Some(&histograms[row])),
        };
        let mut extra = 0;
        if start != 0 || histogram.is_some() {
            self.bytes += size_of::<Extra>() + histogram.map_or(0, size_beside);
            let histogram = histogram.map(|histogram| match histogram.is_stale() {
                // Whatever else a marker carries means nothing.
                true => NativeHistogram::stale(),
                false => histogram.clone(),
            });
            self.extras.push(Extra { start, histogram });
            extra = self.extras.len() as u32;
        }
        self.rows.push(Row { series, extra, time: run.timestamps[row], value });
    }

    /// Everything, sorted; nothing waits any more.
    pub(super) fn take(&mut self) -> Sorted {
        let labels = std::mem::take(&mut self.labels);
        let mut order: Vec<u32> = (0..labels.len() as u32).collect();
        order.sort_unstable_by(|a, b| labels[*a as usize].cmp(&labels[*b as usize]));
        let mut ranks = vec![0; order.len()];
        for (rank, number) in (0..).zip(&order) {
            ranks[*number as usize] = rank;
        }
        let mut rows = std::mem::take(&mut self.rows);
        let windows: BTreeSet<i64> = rows.iter().map(|row| row.time.div_euclid(BLOCK_MS)).collect();
        let (length_ms, _) = widen(BLOCK_MS, windows);
        rows.iter_mut().for_each(|row| row.series = ranks[row.series as usize]);
        rows.sort_by_key(|row| (row.time.div_euclid(length_ms), row.series, row.time));
        self.numbers.clear();
        self.bytes = 0;
        Sorted {
            labels: order.iter().map(|number| labels[*number as usize].clone()).collect(),
            rows,
            extras: std::mem::take(&mut self.extras),
            length_ms,
        }
    }

    /// Takes the memory of rows back.
    pub(super) fn reuse(&mut self, mut sorted: Sorted) {
        sorted.rows.clear();
        self.rows = sorted.rows;
    }
}

/// What a histogram takes beside its fields.
fn size_beside(histogram: &NativeHistogram) -> usize {
    let layout = histogram.layout();
    let spans = layout.positive_spans.len() + layout.negative_spans.len();
    8 * (histogram.bucket_count() + spans + layout.custom_values.map_or(0, <[f64]>::len))
}

/// Samples by stretch of time, series and time.
pub(super) struct Sorted {
    /// Ascending; rows count them.
    pub(super) labels: Vec<Labels>,
    pub(super) rows: Vec<Row>,
    extras: Vec<Extra>,
    /// Of a stretch.
    pub(super) length_ms: i64,
}

impl Sorted {
    fn extra(&self, row: &Row) -> Option<&Extra> {
        Some(&self.extras[row.extra.checked_sub(1)? as usize])
    }

    pub(super) fn start(&self, row: &Row) -> i64 {
        self.extra(row).map_or(0, |extra| extra.start)
    }

    pub(super) fn histogram(&self, row: &Row) -> Option<&NativeHistogram> {
        self.extra(row)?.histogram.as_ref()
    }

    pub(super) fn value(&self, row: &Row) -> StoredValue<'_> {
        self.histogram(row).map_or(StoredValue::Float(row.value), StoredValue::Histogram)
    }
}
