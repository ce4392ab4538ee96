//! Columns of native histograms: a stretch whose buckets lie alike.
//!
//! ```text
//! layout     schema          signed
//!            zero threshold  8 bytes
//!            spans           positive, then negative: how many; of each offset signed, length
//!            bounds          0, or one more than how many custom bounds follow as a column (*)
//! hints      ints, 0..=3, or 4 for the marker that ends a series
//! sums       column of values (*)
//! counts     integer kind: `ints` of the count less what is in buckets, of the zero bucket, of each
//!            bucket; float kind: columns of values of the count, the zero bucket, each bucket (*)
//! (*)        length, then the column, see `values`
//! ```
//!
//! Numbers are varints. A bucket's column has its absolute counts: in time they grow in small
//! steps, which `ints` packs; across buckets they do not. A marker has no buckets of its own and
//! stands in the columns with the counts before it, so that it costs a bit or two.

use std::sync::Arc;

use tidewatch_model::histogram::{CounterResetHint, Histogram, Layout, NativeHistogram, Span};
use tidewatch_model::{FloatHistogram, STALE_NAN};

use crate::ints::{self, IntScratch};
use crate::values::{Encoder, decode_values};
use crate::varint::{put, put_signed, take, take_bytes, take_signed};
use crate::{COUNT_MAX, ChunkError, SampleKind};

/// Buckets of both sides that a stored histogram may have, and its custom bounds. The finest
/// schema that covers twelve decimal orders has some 10,000.
pub const BUCKETS_MAX: usize = 1 << 13;

/// Samples times buckets of one column. A column that is constant takes two bytes whatever its
/// count, so this bounds what a decoder allocates.
pub const CELLS_MAX: usize = 1 << 20;

const STALE: i64 = 4;

/// Whether a histogram may come after `len` others in one stretch. `leader`: the first of those that
/// is no marker, or a marker if all are.
pub fn fits(leader: &NativeHistogram, len: usize, next: &NativeHistogram) -> bool {
    let same_kind = std::mem::discriminant(leader) == std::mem::discriminant(next);
    let alike = leader.is_stale() || next.is_stale() || same_kind && leader.layout() == next.layout();
    let like = if leader.is_stale() { next } else { leader };
    alike && len < COUNT_MAX && (len + 1) * (like.bucket_count() + 3) <= CELLS_MAX
}

/// The first histogram that says where buckets are: not a marker.
fn leader(histograms: &[NativeHistogram]) -> &NativeHistogram {
    histograms.iter().find(|histogram| !histogram.is_stale()).unwrap_or(&histograms[0])
}

/// How many of the first histograms can stand in one stretch.
pub fn stretch_len(histograms: &[NativeHistogram]) -> usize {
    let Some(mut leader) = histograms.first() else { return 0 };
    let mut len = 0;
    for histogram in histograms {
        if len > 0 && !fits(leader, len, histogram) {
            break;
        }
        leader = if leader.is_stale() { histogram } else { leader };
        len += 1;
    }
    len
}

/// The kind of a stretch.
pub fn kind_of(histograms: &[NativeHistogram]) -> SampleKind {
    match leader(histograms) {
        NativeHistogram::Integer(_) => SampleKind::Histogram,
        NativeHistogram::Float(_) => SampleKind::FloatHistogram,
    }
}

/// Memory of an encoder of histograms, kept from stretch to stretch.
#[derive(Debug, Default)]
pub struct HistogramEncoder {
    values: Encoder,
    ints: IntScratch,
    /// Columns of integers or floats, one after the other.
    counts: Vec<i64>,
    floats: Vec<f64>,
    column: Vec<u8>,
}

impl HistogramEncoder {
    pub fn new() -> HistogramEncoder {
        HistogramEncoder::default()
    }

    /// Appends a stretch to `out` and tells its kind.
    ///
    /// # Panics
    /// If there are none, or they can not stand in one stretch; see [`stretch_len`].
    pub fn encode(&mut self, histograms: &[NativeHistogram], out: &mut Vec<u8>) -> SampleKind {
        assert!(!histograms.is_empty(), "a stretch has samples");
        assert_eq!(stretch_len(histograms), histograms.len(), "the samples of a stretch have one layout");
        let leader = leader(histograms);
        self.encode_layout(&leader.layout(), out);
        self.counts.clear();
        self.counts.extend(histograms.iter().map(|histogram| match histogram {
            marker if marker.is_stale() => STALE,
            other => hint_number(other.hint()),
        }));
        ints::encode(&self.counts, &mut self.ints, out);
        self.floats.clear();
        self.floats.extend(histograms.iter().map(NativeHistogram::sum));
        self.encode_floats(0..histograms.len(), out);
        match leader {
            NativeHistogram::Integer(_) => self.encode_integer(histograms, leader.bucket_count(), out),
            NativeHistogram::Float(_) => self.encode_float(histograms, leader.bucket_count(), out),
        }
        kind_of(histograms)
    }

    fn encode_layout(&mut self, layout: &Layout<'_>, out: &mut Vec<u8>) {
        put_signed(out, i64::from(layout.schema));
        out.extend_from_slice(&layout.zero_threshold.to_bits().to_le_bytes());
        for spans in [layout.positive_spans, layout.negative_spans] {
            put(out, spans.len() as u64);
            for span in spans {
                put_signed(out, i64::from(span.offset));
                put(out, u64::from(span.length));
            }
        }
        match layout.custom_values {
            None => put(out, 0),
            Some(bounds) => {
                put(out, bounds.len() as u64 + 1);
                self.floats.clear();
                self.floats.extend_from_slice(bounds);
                self.encode_floats(0..bounds.len(), out);
            }
        }
    }

    fn encode_floats(&mut self, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        self.column.clear();
        self.values.encode(&self.floats[range], &mut self.column);
        put(out, self.column.len() as u64);
        out.extend_from_slice(&self.column);
    }

    fn encode_integer(&mut self, histograms: &[NativeHistogram], buckets: usize, out: &mut Vec<u8>) {
        let rows = histograms.len();
        self.counts.clear();
        self.counts.resize(rows * (buckets + 2), 0);
        for (row, histogram) in histograms.iter().enumerate() {
            let NativeHistogram::Integer(histogram) = histogram else {
                repeat(&mut self.counts, rows, row);
                continue;
            };
            if tidewatch_model::is_stale(histogram.sum) {
                repeat(&mut self.counts, rows, row);
                continue;
            }
            let mut rest = (histogram.count as i64).wrapping_sub(histogram.zero_count as i64);
            let mut column = 2;
            for deltas in [&histogram.positive_deltas, &histogram.negative_deltas] {
                let mut count = 0i64;
                for delta in deltas {
                    count = count.wrapping_add(*delta);
                    self.counts[column * rows + row] = count;
                    rest = rest.wrapping_sub(count);
                    column += 1;
                }
            }
            self.counts[row] = rest;
            self.counts[rows + row] = histogram.zero_count as i64;
        }
        self.counts.chunks(rows).for_each(|column| ints::encode(column, &mut self.ints, out));
    }

    fn encode_float(&mut self, histograms: &[NativeHistogram], buckets: usize, out: &mut Vec<u8>) {
        let rows = histograms.len();
        self.floats.clear();
        self.floats.resize(rows * (buckets + 2), 0.0);
        for (row, histogram) in histograms.iter().enumerate() {
            match histogram {
                NativeHistogram::Float(histogram) if !histogram.is_stale() => {
                    let heads = [histogram.count, histogram.zero_count];
                    let all =
                        heads.iter().chain(&histogram.positive_buckets).chain(&histogram.negative_buckets);
                    all.enumerate().for_each(|(column, value)| self.floats[column * rows + row] = *value);
                }
                _ => repeat(&mut self.floats, rows, row),
            }
        }
        for column in 0..buckets + 2 {
            self.encode_floats(column * rows..(column + 1) * rows, out);
        }
    }
}

/// Copies row `row - 1` of all columns to `row`.
fn repeat<T: Copy>(columns: &mut [T], rows: usize, row: usize) {
    if row > 0 {
        columns.chunks_mut(rows).for_each(|column| column[row] = column[row - 1]);
    }
}

fn hint_number(hint: CounterResetHint) -> i64 {
    match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

fn hint_of(number: i64) -> Option<CounterResetHint> {
    Some(match number {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => return None,
    })
}

/// Where the buckets of a stretch are, taken off its bytes and checked.
struct OwnedLayout {
    schema: i32,
    zero_threshold: f64,
    positive_spans: Vec<Span>,
    negative_spans: Vec<Span>,
    custom_values: Option<Arc<[f64]>>,
    positive: usize,
    buckets: usize,
}

/// A stretch, decoded to columns.
struct Columns {
    layout: OwnedLayout,
    rows: usize,
    hints: Vec<i64>,
    sums: Vec<f64>,
    counts: Counts,
}

enum Counts {
    Integer(Vec<i64>),
    Float(Vec<f64>),
}

/// Appends the `count` histograms of a stretch to `out`, as they were stored.
pub fn decode_histograms(
    kind: SampleKind,
    bytes: &[u8],
    count: usize,
    out: &mut Vec<NativeHistogram>,
) -> Result<(), ChunkError> {
    let columns = Columns::decode(kind, bytes, count)?;
    out.extend((0..columns.rows).map(|row| match &columns.counts {
        _ if columns.hints[row] == STALE => NativeHistogram::stale(),
        Counts::Integer(counts) => NativeHistogram::Integer(columns.integer(counts, row)),
        Counts::Float(_) => NativeHistogram::Float(columns.float(row)),
    }));
    Ok(())
}

/// The same with float counts, whatever was stored: as they are computed with.
pub fn decode_float_histograms(
    kind: SampleKind,
    bytes: &[u8],
    count: usize,
    out: &mut Vec<FloatHistogram>,
) -> Result<(), ChunkError> {
    let columns = Columns::decode(kind, bytes, count)?;
    out.extend((0..columns.rows).map(|row| columns.float(row)));
    Ok(())
}

impl Columns {
    fn decode(kind: SampleKind, bytes: &[u8], rows: usize) -> Result<Columns, ChunkError> {
        if rows > COUNT_MAX || rows == 0 {
            return Err(ChunkError::Count(rows));
        }
        let mut input = bytes;
        let layout = take_layout(&mut input)?;
        // Every column takes two bytes at least.
        if layout.buckets > input.len() / 2 {
            return Err(ChunkError::Short);
        }
        if rows > 1 && rows * (layout.buckets + 3) > CELLS_MAX {
            return Err(ChunkError::Field("count of buckets"));
        }
        let mut hints = vec![0; rows];
        take_ints(&mut input, &mut hints)?;
        if hints.iter().any(|hint| *hint != STALE && hint_of(*hint).is_none()) {
            return Err(ChunkError::Field("counter reset hint"));
        }
        let mut sums = Vec::new();
        take_values(&mut input, rows, &mut sums)?;
        let columns = layout.buckets + 2;
        let counts = match kind {
            SampleKind::Histogram => {
                let mut counts = vec![0; rows * columns];
                counts.chunks_mut(rows).try_for_each(|column| take_ints(&mut input, column))?;
                Counts::Integer(counts)
            }
            SampleKind::FloatHistogram => {
                let mut counts = Vec::with_capacity(rows * columns);
                (0..columns).try_for_each(|_| take_values(&mut input, rows, &mut counts))?;
                Counts::Float(counts)
            }
            SampleKind::Float => return Err(ChunkError::Codec(SampleKind::Float as u8)),
        };
        match input.is_empty() {
            true => Ok(Columns { layout, rows, hints, sums, counts }),
            false => Err(ChunkError::Long),
        }
    }

    fn hint(&self, row: usize) -> CounterResetHint {
        hint_of(self.hints[row]).unwrap_or_default()
    }

    fn integer(&self, counts: &[i64], row: usize) -> Histogram {
        let at = |column: usize| counts[column * self.rows + row];
        let OwnedLayout { schema, zero_threshold, positive, buckets, .. } = self.layout;
        let mut count = at(0).wrapping_add(at(1));
        let mut deltas = |range: std::ops::Range<usize>| {
            let mut previous = 0i64;
            let mut deltas = Vec::with_capacity(range.len());
            for bucket in range {
                let absolute = at(bucket + 2);
                count = count.wrapping_add(absolute);
                deltas.push(absolute.wrapping_sub(previous));
                previous = absolute;
            }
            deltas
        };
        let (positive_deltas, negative_deltas) = (deltas(0..positive), deltas(positive..buckets));
        Histogram {
            hint: self.hint(row),
            schema,
            zero_threshold,
            zero_count: at(1) as u64,
            count: count as u64,
            sum: self.sums[row],
            positive_spans: self.layout.positive_spans.clone(),
            negative_spans: self.layout.negative_spans.clone(),
            positive_deltas,
            negative_deltas,
            custom_values: self.layout.custom_values.clone(),
        }
    }

    fn float(&self, row: usize) -> FloatHistogram {
        if self.hints[row] == STALE {
            return FloatHistogram { sum: STALE_NAN, ..FloatHistogram::default() };
        }
        let OwnedLayout { schema, zero_threshold, positive, buckets, .. } = self.layout;
        let value = |column: usize| match &self.counts {
            Counts::Integer(counts) => counts[column * self.rows + row] as f64,
            Counts::Float(counts) => counts[column * self.rows + row],
        };
        let count = match &self.counts {
            Counts::Float(_) => value(0),
            Counts::Integer(counts) => {
                let of_row = counts[row..].iter().step_by(self.rows);
                of_row.fold(0i64, |sum, count| sum.wrapping_add(*count)) as u64 as f64
            }
        };
        FloatHistogram {
            hint: self.hint(row),
            schema,
            zero_threshold,
            zero_count: value(1),
            count,
            sum: self.sums[row],
            positive_spans: self.layout.positive_spans.clone(),
            negative_spans: self.layout.negative_spans.clone(),
            positive_buckets: (0..positive).map(|bucket| value(bucket + 2)).collect(),
            negative_buckets: (positive..buckets).map(|bucket| value(bucket + 2)).collect(),
            custom_values: self.layout.custom_values.clone(),
        }
    }
}

fn take_ints(input: &mut &[u8], out: &mut [i64]) -> Result<(), ChunkError> {
    ints::decode(input, out.len(), |at, ints| out[at..at + ints.len()].copy_from_slice(ints))
}

fn take_values(input: &mut &[u8], count: usize, out: &mut Vec<f64>) -> Result<(), ChunkError> {
    let len = usize::try_from(take(input)?).map_err(|_| ChunkError::Short)?;
    decode_values(take_bytes(input, len)?, count, out)
}

fn take_layout(input: &mut &[u8]) -> Result<OwnedLayout, ChunkError> {
    let schema = i32::try_from(take_signed(input)?).map_err(|_| ChunkError::Field("schema"))?;
    let bits = take_bytes(input, 8)?.try_into().expect("eight bytes");
    let zero_threshold = f64::from_bits(u64::from_le_bytes(bits));
    let (positive_spans, positive) = take_spans(input)?;
    let (negative_spans, negative) = take_spans(input)?;
    let custom_values = match take(input)? {
        0 => None,
        more if more as usize > BUCKETS_MAX => return Err(ChunkError::Field("count of bounds")),
        more => {
            let mut bounds = Vec::new();
            take_values(input, more as usize - 1, &mut bounds)?;
            Some(bounds.into())
        }
    };
    let layout = OwnedLayout {
        schema,
        zero_threshold,
        positive_spans,
        negative_spans,
        custom_values,
        positive,
        buckets: positive + negative,
    };
    layout.check()?;
    Ok(layout)
}

impl OwnedLayout {
    /// Whoever computes with a histogram relies on its spans and bounds.
    fn check(&self) -> Result<(), ChunkError> {
        // A marker alone has none of these; its schema is 0.
        let empty = FloatHistogram {
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            positive_spans: self.positive_spans.clone(),
            negative_spans: self.negative_spans.clone(),
            positive_buckets: vec![0.0; self.positive],
            negative_buckets: vec![0.0; self.buckets - self.positive],
            custom_values: self.custom_values.clone(),
            ..FloatHistogram::default()
        };
        empty.validate().map_err(|_| ChunkError::Field("layout of buckets"))
    }
}

fn take_spans(input: &mut &[u8]) -> Result<(Vec<Span>, usize), ChunkError> {
    let count = take(input)?;
    // A span takes two bytes.
    if count > input.len() as u64 / 2 {
        return Err(ChunkError::Short);
    }
    let mut spans = Vec::with_capacity(count as usize);
    let mut buckets = 0usize;
    for _ in 0..count {
        let offset = i32::try_from(take_signed(input)?).map_err(|_| ChunkError::Field("span"))?;
        let length = u32::try_from(take(input)?).map_err(|_| ChunkError::Field("span"))?;
        buckets += length as usize;
        if buckets > BUCKETS_MAX {
            return Err(ChunkError::Field("count of buckets"));
        }
        spans.push(Span { offset, length });
    }
    Ok((spans, buckets))
}
