//! Histograms as rows: one after the other, each against the one before it. So they stand in
//! the log, in open runs and in images; blocks and sealed runs have columns (`chunk`).
//!
//! ```text
//! layout   schema           zigzag
//!          zero threshold   8 bytes
//!          spans            positive, then negative: how many; of each offset zigzag, length
//!          bounds           0, or one more than how many custom bounds follow, 8 bytes each
//! row      head u8          0..=3 the counter reset hint; 4 a marker of staleness, and the row ends
//!          sum, then as integers: count, zero count, the buckets' deltas; as floats: count, zero
//!          count, buckets
//! ```
//!
//! Numbers are varints. A field of a row is the difference to the same field of the row before
//! (zigzag), or for floats the XOR of the bits, high bytes first, so that whole numbers stay
//! short. Before the first row all fields are 0.
//!
//! Not here: which rows share a layout (the caller), what they belong to.

use std::sync::Arc;

use tidewatch_chunk::BUCKETS_MAX;
use tidewatch_model::FloatHistogram;
use tidewatch_model::histogram::{CounterResetHint, Histogram, NativeHistogram, Span};

use crate::fields::{Reader, push_varint, unzigzag, zigzag};
use crate::log::FrameError;

const MARKER: u8 = 4;

/// Where the buckets of rows are, and what their counts are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RowLayout {
    pub(crate) is_float: bool,
    schema: i32,
    /// Bits, so that equality is of bits.
    zero_threshold: u64,
    positive_spans: Vec<Span>,
    negative_spans: Vec<Span>,
    custom_values: Option<Arc<[f64]>>,
}

fn buckets(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.length as usize).sum()
}

impl RowLayout {
    pub(crate) fn of(histogram: &NativeHistogram) -> RowLayout {
        let layout = histogram.layout();
        let custom_values = match histogram {
            NativeHistogram::Integer(histogram) => histogram.custom_values.clone(),
            NativeHistogram::Float(histogram) => histogram.custom_values.clone(),
        };
        RowLayout {
            is_float: matches!(histogram, NativeHistogram::Float(_)),
            schema: layout.schema,
            zero_threshold: layout.zero_threshold.to_bits(),
            positive_spans: layout.positive_spans.to_vec(),
            negative_spans: layout.negative_spans.to_vec(),
            custom_values,
        }
    }

    /// Whether a histogram has this layout.
    pub(crate) fn is_of(&self, histogram: &NativeHistogram) -> bool {
        let layout = histogram.layout();
        let bits = |bounds: &[f64]| bounds.iter().map(|bound| bound.to_bits()).collect::<Vec<_>>();
        self.is_float == matches!(histogram, NativeHistogram::Float(_))
            && self.schema == layout.schema
            && self.zero_threshold == layout.zero_threshold.to_bits()
            && self.positive_spans == layout.positive_spans
            && self.negative_spans == layout.negative_spans
            && self.custom_values.as_deref().map(bits) == layout.custom_values.map(bits)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        push_varint(zigzag(i64::from(self.schema)), out);
        out.extend_from_slice(&self.zero_threshold.to_le_bytes());
        for spans in [&self.positive_spans, &self.negative_spans] {
            push_varint(spans.len() as u64, out);
            for span in spans {
                push_varint(zigzag(i64::from(span.offset)), out);
                push_varint(u64::from(span.length), out);
            }
        }
        match &self.custom_values {
            None => push_varint(0, out),
            Some(bounds) => {
                push_varint(bounds.len() as u64 + 1, out);
                bounds.iter().for_each(|bound| out.extend_from_slice(&bound.to_bits().to_le_bytes()));
            }
        }
    }

    pub(crate) fn read(is_float: bool, reader: &mut Reader<'_>) -> Result<RowLayout, FrameError> {
        let schema = i32::try_from(unzigzag(reader.varint()?)).map_err(|_| FrameError::Malformed)?;
        let zero_threshold = u64::from_le_bytes(reader.array()?);
        let (positive_spans, negative_spans) = (read_spans(reader)?, read_spans(reader)?);
        let custom_values = match reader.varint()? {
            0 => None,
            more => {
                let count = more as usize - 1;
                if count > reader.bytes.len() / 8 {
                    return Err(FrameError::Malformed);
                }
                let bounds = reader.take(count * 8)?.as_chunks::<8>().0.iter();
                Some(bounds.map(|bytes| f64::from_bits(u64::from_le_bytes(*bytes))).collect())
            }
        };
        Ok(RowLayout { is_float, schema, zero_threshold, positive_spans, negative_spans, custom_values })
    }

    /// A histogram of this layout, its fields taken off `next`, its counts in the order of a row.
    fn build<T: Copy>(
        &self,
        mut next: impl FnMut() -> Result<T, FrameError>,
    ) -> Result<(Vec<T>, Vec<T>), FrameError> {
        let positive = (0..buckets(&self.positive_spans)).map(|_| next()).collect::<Result<_, _>>()?;
        let negative = (0..buckets(&self.negative_spans)).map(|_| next()).collect::<Result<_, _>>()?;
        Ok((positive, negative))
    }
}

fn read_spans(reader: &mut Reader<'_>) -> Result<Vec<Span>, FrameError> {
    let count = reader.varint()?;
    // A span takes two bytes.
    if count > reader.bytes.len() as u64 / 2 {
        return Err(FrameError::Malformed);
    }
    let mut spans = Vec::with_capacity(count as usize);
    let mut total = 0u64;
    for _ in 0..count {
        let offset = i32::try_from(unzigzag(reader.varint()?)).map_err(|_| FrameError::Malformed)?;
        let length = u32::try_from(reader.varint()?).map_err(|_| FrameError::Malformed)?;
        total += u64::from(length);
        if total > BUCKETS_MAX as u64 {
            return Err(FrameError::Malformed);
        }
        spans.push(Span { offset, length });
    }
    Ok(spans)
}

fn hint_number(hint: CounterResetHint) -> u8 {
    match hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    }
}

fn hint_of(number: u8) -> Result<CounterResetHint, FrameError> {
    Ok(match number {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => return Err(FrameError::Malformed),
    })
}

/// Appends the head of a row; `true` where fields follow.
pub(crate) fn push_head(histogram: &NativeHistogram, out: &mut Vec<u8>) -> bool {
    let is_stale = histogram.is_stale();
    out.push(if is_stale { MARKER } else { hint_number(histogram.hint()) });
    !is_stale
}

/// What the head of a row says: a hint, or that this is a marker.
pub(crate) fn read_head(reader: &mut Reader<'_>) -> Result<Option<CounterResetHint>, FrameError> {
    match reader.byte()? {
        MARKER => Ok(None),
        number => hint_of(number).map(Some),
    }
}

/// Appends the fields of a row. `previous` has the same layout and is no marker.
pub(crate) fn push_fields(
    histogram: &NativeHistogram,
    previous: Option<&NativeHistogram>,
    out: &mut Vec<u8>,
) {
    let mut before = 0u64;
    let mut float = |value: f64, previous: f64| {
        before = value.to_bits() ^ previous.to_bits();
        push_varint(before.swap_bytes(), out);
    };
    match histogram {
        NativeHistogram::Float(h) => {
            let empty = FloatHistogram::default();
            let p = match previous {
                Some(NativeHistogram::Float(previous)) => previous,
                _ => &empty,
            };
            float(h.sum, p.sum);
            float(h.count, p.count);
            float(h.zero_count, p.zero_count);
            let sides =
                [(&h.positive_buckets, &p.positive_buckets), (&h.negative_buckets, &p.negative_buckets)];
            for (now, before) in sides {
                let before = before.iter().copied().chain(std::iter::repeat(0.0));
                now.iter().zip(before).for_each(|(now, before)| float(*now, before));
            }
        }
        NativeHistogram::Integer(h) => {
            let empty = Histogram::default();
            let p = match previous {
                Some(NativeHistogram::Integer(previous)) => previous,
                _ => &empty,
            };
            float(h.sum, p.sum);
            push_varint(zigzag((h.count as i64).wrapping_sub(p.count as i64)), out);
            push_varint(zigzag((h.zero_count as i64).wrapping_sub(p.zero_count as i64)), out);
            let sides = [(&h.positive_deltas, &p.positive_deltas), (&h.negative_deltas, &p.negative_deltas)];
            for (now, before) in sides {
                let before = before.iter().copied().chain(std::iter::repeat(0));
                let differences = now.iter().zip(before).map(|(now, before)| now.wrapping_sub(before));
                differences.for_each(|difference| push_varint(zigzag(difference), out));
            }
        }
    }
}

/// Takes the fields of a row. `previous` is what [`push_fields`] was given.
pub(crate) fn read_fields(
    layout: &RowLayout,
    hint: CounterResetHint,
    previous: Option<&NativeHistogram>,
    reader: &mut Reader<'_>,
) -> Result<NativeHistogram, FrameError> {
    let count = buckets(&layout.positive_spans) + buckets(&layout.negative_spans);
    // A field takes a byte: nothing is allocated for what is not there.
    if count + 3 > reader.bytes.len() {
        return Err(FrameError::Malformed);
    }
    Ok(match previous {
        _ if layout.is_float => NativeHistogram::Float(match previous {
            Some(NativeHistogram::Float(previous)) => read_float(layout, hint, previous, reader)?,
            _ => read_float(layout, hint, &FloatHistogram::default(), reader)?,
        }),
        Some(NativeHistogram::Integer(previous)) => {
            NativeHistogram::Integer(read_integer(layout, hint, previous, reader)?)
        }
        _ => NativeHistogram::Integer(read_integer(layout, hint, &Histogram::default(), reader)?),
    })
}

fn read_xor(previous: f64, reader: &mut Reader<'_>) -> Result<f64, FrameError> {
    Ok(f64::from_bits(reader.varint()?.swap_bytes() ^ previous.to_bits()))
}

fn read_float(
    layout: &RowLayout,
    hint: CounterResetHint,
    p: &FloatHistogram,
    reader: &mut Reader<'_>,
) -> Result<FloatHistogram, FrameError> {
    let sum = read_xor(p.sum, reader)?;
    let count = read_xor(p.count, reader)?;
    let zero_count = read_xor(p.zero_count, reader)?;
    let before = p.positive_buckets.iter().chain(&p.negative_buckets).copied();
    let mut before = before.chain(std::iter::repeat(0.0));
    let (positive_buckets, negative_buckets) =
        layout.build(|| read_xor(before.next().unwrap_or_default(), reader))?;
    Ok(FloatHistogram {
        hint,
        schema: layout.schema,
        zero_threshold: f64::from_bits(layout.zero_threshold),
        zero_count,
        count,
        sum,
        positive_spans: layout.positive_spans.clone(),
        negative_spans: layout.negative_spans.clone(),
        positive_buckets,
        negative_buckets,
        custom_values: layout.custom_values.clone(),
    })
}

fn read_integer(
    layout: &RowLayout,
    hint: CounterResetHint,
    p: &Histogram,
    reader: &mut Reader<'_>,
) -> Result<Histogram, FrameError> {
    let sum = read_xor(p.sum, reader)?;
    let mut next =
        |previous: i64| -> Result<i64, FrameError> { Ok(previous.wrapping_add(unzigzag(reader.varint()?))) };
    let count = next(p.count as i64)? as u64;
    let zero_count = next(p.zero_count as i64)? as u64;
    let before = p.positive_deltas.iter().chain(&p.negative_deltas).copied();
    let mut before = before.chain(std::iter::repeat(0));
    let (positive_deltas, negative_deltas) = layout.build(|| next(before.next().unwrap_or_default()))?;
    Ok(Histogram {
        hint,
        schema: layout.schema,
        zero_threshold: f64::from_bits(layout.zero_threshold),
        zero_count,
        count,
        sum,
        positive_spans: layout.positive_spans.clone(),
        negative_spans: layout.negative_spans.clone(),
        positive_deltas,
        negative_deltas,
        custom_values: layout.custom_values.clone(),
    })
}

/// Appends a histogram that stands for itself: kind u8 (0 marker, 1 integers, 2 floats), then
/// layout, head and fields, unless it is a marker.
pub(crate) fn push_alone(histogram: &NativeHistogram, out: &mut Vec<u8>) {
    if histogram.is_stale() {
        return out.push(0);
    }
    let layout = RowLayout::of(histogram);
    out.push(1 + u8::from(layout.is_float));
    layout.write(out);
    push_head(histogram, out);
    push_fields(histogram, None, out);
}

/// Takes what [`push_alone`] wrote, and checks that it can be computed with.
pub(crate) fn read_alone(reader: &mut Reader<'_>) -> Result<NativeHistogram, FrameError> {
    let is_float = match reader.byte()? {
        0 => return Ok(NativeHistogram::stale()),
        1 => false,
        2 => true,
        _ => return Err(FrameError::Malformed),
    };
    let layout = RowLayout::read(is_float, reader)?;
    let hint = read_head(reader)?.ok_or(FrameError::Malformed)?;
    let histogram = read_fields(&layout, hint, None, reader)?;
    histogram.validate().map_err(|_| FrameError::Malformed)?;
    Ok(histogram)
}
