//! Chunks of native histograms, with integer counts (encoding 2) or float counts (3).
//!
//! ```text
//! count    2 bytes, big-endian
//! flags    1 byte; the highest two bits: 00 nothing known of a reset before the chunk, 10 a reset,
//!          01 none, 11 gauges
//! layout   zero threshold: 0 is zero, 255 and 64 bits, else a power of two by its exponent and 244
//!          schema; spans of the positive and of the negative side: how many, then length and offset
//!          of each; with schema −53 the bounds: how many, then each in thousandths and one more, or
//!          0 and 64 bits
//! first    time, count, count of zeros, sum, buckets of both sides
//! others   the same, integers as differences of differences, floats as changes
//! ```
//!
//! Numbers are varbits, floats 64 bits; see `bits`. A marker of staleness has no buckets, but in the
//! first place, where its layout has none.
//!
//! A chunk says of its first histogram alone how it relates to the one before. Prometheus works that out itself and
//! does not trust it when it reads, since it may be another chunk that comes before by now (late samples, other
//! blocks); nor does an import. What an export writes there is what a sender said, see [`begins_with_reset`].

#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidewatch_model::histogram::{CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Histogram, Span};
use tidewatch_model::{NativeHistogram, is_stale};

use super::bits::{Bits, Sink, Window};

/// Encodings of chunks.
pub const INTEGER: u8 = 2;
pub const FLOAT: u8 = 3;

const SHORT: &str = "the chunk is cut short";

/// Samples of a chunk times what each of them has: far above what is written, since a chunk ends
/// near 1 KiB. Where nothing changes a bucket takes a bit, and becomes eight bytes.
const CELLS_MAX: usize = 1 << 22;

const GAUGE: u8 = 0b1100_0000;
const RESET: u8 = 0b1000_0000;
const NO_RESET: u8 = 0b0100_0000;

/// Where the buckets of a chunk are.
struct Layout {
    schema: i32,
    zero_threshold: f64,
    positive: Vec<Span>,
    negative: Vec<Span>,
    bounds: Option<Arc<[f64]>>,
    /// Buckets of the positive side, and of both.
    split: usize,
    buckets: usize,
}

/// Appends the samples of a chunk. After an error the columns hold what came before it.
pub fn decode(
    encoding: u8,
    data: &[u8],
    times: &mut Vec<i64>,
    histograms: &mut Vec<NativeHistogram>,
) -> Result<(), &'static str> {
    let (head, bits) = data.split_at_checked(3).ok_or(SHORT)?;
    let count = usize::from(u16::from_be_bytes([head[0], head[1]]));
    let mut bits = Bits::new(bits);
    if count == 0 {
        return Ok(());
    }
    let layout = read_layout(&mut bits)?;
    if layout.buckets > bits.left() {
        return Err(SHORT);
    }
    let parts = layout.buckets + layout.positive.len() + layout.negative.len() + 3;
    if count.saturating_mul(parts) > CELLS_MAX {
        return Err("the chunk has more buckets than any that is written");
    }
    let gauges = head[2] & GAUGE == GAUGE;
    let mut rows = Rows { times, histograms, layout: &layout, gauges, first: true };
    match encoding {
        INTEGER => decode_integers(bits, count, &mut rows),
        _ => decode_floats(bits, count, &mut rows),
    }
    .ok_or(SHORT)
}

/// Whether a chunk says that its counters were reset before its first histogram.
pub fn begins_with_reset(data: &[u8]) -> bool {
    data.get(2).is_some_and(|flags| flags & GAUGE == RESET)
}

/// Where decoded samples go.
struct Rows<'a> {
    times: &'a mut Vec<i64>,
    histograms: &'a mut Vec<NativeHistogram>,
    layout: &'a Layout,
    gauges: bool,
    first: bool,
}

impl Rows<'_> {
    fn push(&mut self, time: i64, sum: u64, histogram: impl FnOnce(&Layout) -> NativeHistogram) {
        let hint = match (self.gauges, self.first) {
            (true, _) => CounterResetHint::Gauge,
            (false, true) => CounterResetHint::Unknown,
            (false, false) => CounterResetHint::NotReset,
        };
        self.first = false;
        self.times.push(time);
        self.histograms.push(if is_stale(f64::from_bits(sum)) {
            NativeHistogram::stale()
        } else {
            let mut histogram = histogram(self.layout);
            histogram.set_hint(hint);
            histogram
        });
    }
}

/// A number as a difference of differences.
#[derive(Clone, Copy, Default)]
struct Series {
    value: i64,
    delta: i64,
}

impl Series {
    fn step(&mut self, change: i64) -> i64 {
        self.delta = self.delta.wrapping_add(change);
        self.value = self.value.wrapping_add(self.delta);
        self.value
    }

    /// The change that makes this the next value.
    fn change_to(&mut self, next: i64) -> i64 {
        let delta = next.wrapping_sub(self.value);
        let change = delta.wrapping_sub(self.delta);
        *self = Series { value: next, delta };
        change
    }
}

fn decode_integers(mut bits: Bits<'_>, count: usize, rows: &mut Rows<'_>) -> Option<()> {
    let mut time = Series { value: bits.signed_varbit()?, delta: 0 };
    let mut total = Series { value: bits.varbit()? as i64, delta: 0 };
    let mut zeros = Series { value: bits.varbit()? as i64, delta: 0 };
    let mut sum = bits.take(64)?;
    let mut window = Window::default();
    let mut buckets = vec![Series::default(); rows.layout.buckets];
    for bucket in &mut buckets {
        bucket.value = bits.signed_varbit()?;
    }
    for row in 0..count {
        if row > 0 {
            time.step(bits.signed_varbit()?);
            total.step(bits.signed_varbit()?);
            zeros.step(bits.signed_varbit()?);
            sum ^= bits.change(&mut window)?;
            if !is_stale(f64::from_bits(sum)) {
                for bucket in &mut buckets {
                    bucket.step(bits.signed_varbit()?);
                }
            }
        }
        rows.push(time.value, sum, |layout| {
            let (positive, negative) = buckets.split_at(layout.split);
            let deltas = |side: &[Series]| side.iter().map(|bucket| bucket.value).collect();
            NativeHistogram::Integer(Histogram {
                hint: CounterResetHint::Unknown,
                schema: layout.schema,
                zero_threshold: layout.zero_threshold,
                zero_count: zeros.value as u64,
                count: total.value as u64,
                sum: f64::from_bits(sum),
                positive_spans: layout.positive.clone(),
                negative_spans: layout.negative.clone(),
                positive_deltas: deltas(positive),
                negative_deltas: deltas(negative),
                custom_values: layout.bounds.clone(),
            })
        });
    }
    Some(())
}

/// A float, and where its bits changed last.
#[derive(Clone, Copy, Default)]
struct Changing {
    bits: u64,
    window: Window,
}

fn decode_floats(mut bits: Bits<'_>, count: usize, rows: &mut Rows<'_>) -> Option<()> {
    let mut time = Series { value: bits.signed_varbit()?, delta: 0 };
    // Count, count of zeros and sum; then the buckets.
    let mut floats = vec![Changing::default(); 3 + rows.layout.buckets];
    for float in &mut floats {
        float.bits = bits.take(64)?;
    }
    for row in 0..count {
        if row > 0 {
            time.step(bits.signed_varbit()?);
            for at in 0..floats.len() {
                if at == 3 && is_stale(f64::from_bits(floats[2].bits)) {
                    break;
                }
                let float = &mut floats[at];
                float.bits ^= bits.change(&mut float.window)?;
            }
        }
        rows.push(time.value, floats[2].bits, |layout| {
            let value = |at: usize| f64::from_bits(floats[at].bits);
            let counts = |from: usize, to: usize| (from..to).map(|at| value(3 + at)).collect();
            NativeHistogram::Float(FloatHistogram {
                hint: CounterResetHint::Unknown,
                schema: layout.schema,
                zero_threshold: layout.zero_threshold,
                zero_count: value(1),
                count: value(0),
                sum: value(2),
                positive_spans: layout.positive.clone(),
                negative_spans: layout.negative.clone(),
                positive_buckets: counts(0, layout.split),
                negative_buckets: counts(layout.split, layout.buckets),
                custom_values: layout.bounds.clone(),
            })
        });
    }
    Some(())
}

fn read_layout(bits: &mut Bits<'_>) -> Result<Layout, &'static str> {
    const LARGE: &str = "the layout of the chunk's buckets is none";
    let zero_threshold = match bits.take(8).ok_or(SHORT)? {
        0 => 0.0,
        255 => bits.float().ok_or(SHORT)?,
        exponent => f64::from_bits((exponent + 1023 - 244) << 52),
    };
    let schema = i32::try_from(bits.signed_varbit().ok_or(SHORT)?).map_err(|_| LARGE)?;
    let positive = read_spans(bits).ok_or(SHORT)?.ok_or(LARGE)?;
    let negative = read_spans(bits).ok_or(SHORT)?.ok_or(LARGE)?;
    let buckets =
        |spans: &[Span]| spans.iter().fold(0usize, |sum, span| sum.saturating_add(span.length as usize));
    let split = buckets(&positive);
    let buckets = split.saturating_add(buckets(&negative));
    if buckets > CELLS_MAX {
        return Err(LARGE);
    }
    let bounds = match schema {
        CUSTOM_BUCKETS_SCHEMA => Some(read_bounds(bits).ok_or(SHORT)?),
        _ => None,
    };
    let bounds = bounds.filter(|bounds| !bounds.is_empty()).map(Arc::from);
    Ok(Layout { schema, zero_threshold, positive, negative, bounds, split, buckets })
}

/// `None` within where a number is too large.
fn read_spans(bits: &mut Bits<'_>) -> Option<Option<Vec<Span>>> {
    let mut spans = Vec::new();
    for _ in 0..bits.varbit()? {
        let (length, offset) = (bits.varbit()?, bits.signed_varbit()?);
        let (Ok(length), Ok(offset)) = (u32::try_from(length), i32::try_from(offset)) else {
            return Some(None);
        };
        spans.push(Span { offset, length });
    }
    Some(Some(spans))
}

fn read_bounds(bits: &mut Bits<'_>) -> Option<Vec<f64>> {
    let mut bounds = Vec::new();
    for _ in 0..bits.varbit()? {
        bounds.push(match bits.varbit()? {
            0 => bits.float()?,
            thousandths => (thousandths - 1) as f64 / 1000.0,
        });
    }
    Some(bounds)
}

/// Whether a histogram may come behind others in a chunk: it is read as one that continues them.
pub fn follows(first: &NativeHistogram, last: &NativeHistogram, next: &NativeHistogram) -> bool {
    if next.is_stale() || last.is_stale() {
        return next.is_stale();
    }
    let same_kind = std::mem::discriminant(first) == std::mem::discriminant(next);
    let is_gauge = next.hint() == CounterResetHint::Gauge;
    let goes_on = match first.hint() {
        CounterResetHint::Gauge => is_gauge,
        _ => next.hint() == CounterResetHint::NotReset,
    };
    same_kind && goes_on && first.layout() == next.layout()
}

/// Appends a chunk of these samples, each of which [`follows`] those before; tells its encoding.
pub fn encode(times: &[i64], histograms: &[NativeHistogram], out: &mut Vec<u8>) -> u8 {
    assert_eq!(times.len(), histograms.len(), "columns of one run are equally long");
    let count = u16::try_from(times.len()).expect("a chunk counts its samples in two bytes");
    out.extend_from_slice(&count.to_be_bytes());
    let first = histograms.first().expect("a chunk has samples");
    out.push(match first.hint() {
        CounterResetHint::Gauge => GAUGE,
        CounterResetHint::Reset => RESET,
        CounterResetHint::NotReset => NO_RESET,
        CounterResetHint::Unknown => 0,
    });
    let mut sink = Sink::new(out);
    let marker = NativeHistogram::stale();
    let leader = if first.is_stale() { &marker } else { first };
    put_layout(&mut sink, leader);
    match leader {
        NativeHistogram::Integer(_) => encode_integers(times, histograms, &mut sink),
        NativeHistogram::Float(_) => encode_floats(times, histograms, &mut sink),
    }
}

fn encode_integers(times: &[i64], histograms: &[NativeHistogram], sink: &mut Sink<'_>) -> u8 {
    let (mut time, mut total, mut zeros) = (Series::default(), Series::default(), Series::default());
    let mut buckets: Vec<Series> = Vec::new();
    let (mut sum, mut window) = (0u64, None);
    for (row, (at, histogram)) in times.iter().zip(histograms).enumerate() {
        let stale = Histogram { sum: histogram.sum(), ..Histogram::default() };
        let histogram = match histogram {
            NativeHistogram::Integer(histogram) if !is_stale(histogram.sum) => histogram,
            _ => &stale,
        };
        let bits = histogram.sum.to_bits();
        let deltas = histogram.positive_deltas.iter().chain(&histogram.negative_deltas);
        if row == 0 {
            time.value = *at;
            (total.value, zeros.value) = (histogram.count as i64, histogram.zero_count as i64);
            sink.put_signed_varbit(*at);
            sink.put_varbit(histogram.count);
            sink.put_varbit(histogram.zero_count);
            sink.put(bits, 64);
            buckets.extend(deltas.map(|delta| Series { value: *delta, delta: 0 }));
            buckets.iter().for_each(|bucket| sink.put_signed_varbit(bucket.value));
        } else {
            sink.put_signed_varbit(time.change_to(*at));
            if is_stale(histogram.sum) {
                // Nobody reads what a marker counts, and nothing but markers comes behind it.
                sink.put(0, 2);
            } else {
                sink.put_signed_varbit(total.change_to(histogram.count as i64));
                sink.put_signed_varbit(zeros.change_to(histogram.zero_count as i64));
            }
            sink.put_change(sum ^ bits, &mut window);
            for (bucket, delta) in buckets.iter_mut().zip(deltas) {
                sink.put_signed_varbit(bucket.change_to(*delta));
            }
        }
        sum = bits;
    }
    INTEGER
}

fn encode_floats(times: &[i64], histograms: &[NativeHistogram], sink: &mut Sink<'_>) -> u8 {
    let mut time = Series::default();
    let mut floats: Vec<(u64, Option<Window>)> = Vec::new();
    for (row, (at, histogram)) in times.iter().zip(histograms).enumerate() {
        let bits: Vec<u64> = match histogram {
            NativeHistogram::Float(histogram) if !is_stale(histogram.sum) => {
                let counts = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
                let before = [histogram.count, histogram.zero_count, histogram.sum];
                before.iter().chain(counts).map(|value| value.to_bits()).collect()
            }
            marker => vec![0, 0, marker.sum().to_bits()],
        };
        if row == 0 {
            time.value = *at;
            sink.put_signed_varbit(*at);
            bits.iter().for_each(|bits| sink.put(*bits, 64));
            floats.extend(bits.iter().map(|bits| (*bits, None)));
        } else {
            sink.put_signed_varbit(time.change_to(*at));
            for ((before, window), bits) in floats.iter_mut().zip(bits) {
                sink.put_change(*before ^ bits, window);
                *before = bits;
            }
        }
    }
    FLOAT
}

fn put_layout(sink: &mut Sink<'_>, histogram: &NativeHistogram) {
    let layout = histogram.layout();
    let bits = layout.zero_threshold.to_bits();
    // The exponent of a power of two that goes into a byte.
    let exponent = (bits >> 52) as i64 - 1023 + 244;
    if bits == 0 {
        sink.put(0, 8);
    } else if bits << 12 == 0 && (1..255).contains(&exponent) {
        sink.put(exponent as u64, 8);
    } else {
        sink.put(255, 8);
        sink.put(bits, 64);
    }
    sink.put_signed_varbit(layout.schema.into());
    for spans in [layout.positive_spans, layout.negative_spans] {
        sink.put_varbit(spans.len() as u64);
        for span in spans {
            sink.put_varbit(span.length.into());
            sink.put_signed_varbit(span.offset.into());
        }
    }
    if layout.schema == CUSTOM_BUCKETS_SCHEMA {
        let bounds = layout.custom_values.unwrap_or(&[]);
        sink.put_varbit(bounds.len() as u64);
        bounds.iter().for_each(|bound| put_bound(sink, *bound));
    }
}

/// The most thousandths that go into four bytes.
const THOUSANDTHS_MAX: f64 = 33_554_430.0;

fn put_bound(sink: &mut Sink<'_>, bound: f64) {
    let thousandths = (bound * 1000.0).round();
    let is_short = (0.0..=THOUSANDTHS_MAX).contains(&thousandths)
        && ((thousandths as u64) as f64 / 1000.0).to_bits() == bound.to_bits();
    if is_short {
        sink.put_varbit(thousandths as u64 + 1);
    } else {
        sink.put(0, 1);
        sink.put_float(bound);
    }
}
