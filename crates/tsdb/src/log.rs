//! What the frames of the log hold.
//!
//! ```text
//! offset  size  field
//!      0     1  kind      see [`FrameKind`]
//!      1     1  flags     zero; readers set a frame with others aside
//!      2     …  body
//! ```
//!
//! Samples of floats, one frame for each shard that a request touches:
//!
//! ```text
//!      2     4  count     of samples
//!      6     8  base      a timestamp
//!            …  ids       for each sample the difference to the series id before it, zigzag varint
//!            …  rows      how many (varint), then each as difference to the one before, zigzag varint
//!            …  row of each sample (varint), only if there are several rows
//!            …  lengths   four bits a sample, low half first: bytes of its value that are kept
//!            …  values    the bits' high bytes, little-endian, without trailing zero bytes
//! ```
//!
//! Definitions of series, before any sample of theirs; each frame stands for itself:
//!
//! ```text
//!      2     4  first     id of the first series; the others follow it
//!            …  pairs     how many (varint), then name and value, each length (varint) and bytes
//!            …  series    how many (varint), then of each how many labels and the number of each
//!                         pair in this frame (varints)
//! ```
//!
//! The beginning of a cut, logged for each shard among its samples: `shard u8`, `bar i64`. What
//! the shard had before the bar at this point is the cut's; what comes later is not. The end of
//! a cut: `floor i64`. What is the cut's is in durable blocks.
//!
//! A deferred batch, taken while recovery was still running: how many series (varint), of each
//! the canonical label bytes (length varint, bytes), how many samples (varint), and each
//! `timestamp i64, bits u64`.
//!
//! A deletion from a shard: see `delete`. Series that have left a shard: see `stale`.
//!
//! Native histograms and start timestamps: see `frames`; metadata and exemplars: see the modules
//! of these names. A deferred batch that has such:
//!
//! ```text
//!      2     …  series  how many (varint), of each the canonical label bytes (length varint, bytes),
//!                       then its floats: how many (varint), of each `timestamp i64, start i64,
//!                       bits u64`; then its histograms: how many (varint), of each `timestamp
//!                       i64, start i64` and the histogram, see `rows`
//! ```

use tidewatch_model::{BatchHistogram, Labels, Sample};

use crate::delete::Deletion;
use crate::frames::{Histograms, Starts, read_histograms, read_starts};
use crate::head::SHARDS;
use crate::head::registry::{PairId, Pairs, SeriesId};
use crate::rows::{push_alone, read_alone};
use crate::stale::Departure;
use crate::{exemplars, metadata};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Floats = 1,
    Definitions = 2,
    CutBegin = 3,
    CutEnd = 4,
    Deferred = 5,
    Delete = 6,
    Left = 7,
    Histograms = 16,
    FloatHistograms = 17,
    Starts = 18,
    Metadata = 19,
    Exemplars = 20,
    DeferredWhole = 21,
}

impl FrameKind {
    fn of(byte: u8) -> Option<FrameKind> {
        use FrameKind::{
            CutBegin, CutEnd, Deferred, DeferredWhole, Definitions, Delete, Exemplars, FloatHistograms,
            Floats, Histograms, Left, Metadata, Starts,
        };
        let first = [Floats, Definitions, CutBegin, CutEnd, Deferred, Delete, Left];
        let later = [Histograms, FloatHistograms, Starts, Metadata, Exemplars, DeferredWhole];
        first.into_iter().chain(later).find(|kind| *kind as u8 == byte)
    }
}

/// Why a frame's content can not be used, though its checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the frame's kind {0} is not known: a newer version wrote it")]
    Kind(u8),
    #[error("the frame is cut short or malformed")]
    Malformed,
}

/// Builds a frame of samples.
#[derive(Debug, Default)]
pub(crate) struct FloatsFrame {
    count: u32,
    previous_id: u32,
    base: i64,
    ids: Vec<u8>,
    rows: Vec<i64>,
    /// Row of each sample.
    row_of: Vec<u32>,
    lengths: Vec<u8>,
    values: Vec<u8>,
    bytes: Vec<u8>,
}

impl FloatsFrame {
    pub(crate) fn clear(&mut self) {
        let FloatsFrame { count, previous_id, ids, rows, row_of, lengths, values, .. } = self;
        (*count, *previous_id) = (0, 0);
        ids.clear();
        rows.clear();
        row_of.clear();
        lengths.clear();
        values.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline]
    pub(crate) fn push(&mut self, id: SeriesId, sample: Sample) {
        push_varint(zigzag(i64::from(id.0) - i64::from(self.previous_id)), &mut self.ids);
        self.previous_id = id.0;
        let row = self.row(sample.timestamp);
        self.row_of.push(row);
        let bits = sample.value.to_bits();
        // Whole numbers and short binary fractions end in zero bytes.
        let len = 8 - (bits.trailing_zeros() / 8).min(8);
        let high = if len == 0 { 0 } else { bits >> ((8 - len) * 8) };
        match self.count % 2 {
            0 => self.lengths.push(len as u8),
            _ => *self.lengths.last_mut().expect("pushed with the sample before") |= (len as u8) << 4,
        }
        // Eight bytes are one store, a length that varies would be a call.
        let end = self.values.len() + len as usize;
        self.values.extend_from_slice(&high.to_le_bytes());
        self.values.truncate(end);
        self.count += 1;
    }

    /// The row of a timestamp. Only the newest rows are searched: a second row with the same
    /// time costs two bytes and harms nothing.
    #[inline]
    fn row(&mut self, timestamp: i64) -> u32 {
        if self.rows.last() == Some(&timestamp) {
            return self.rows.len() as u32 - 1;
        }
        let newest = self.rows.len().saturating_sub(32);
        if let Some(at) = self.rows[newest..].iter().rposition(|row| *row == timestamp) {
            return (newest + at) as u32;
        }
        if self.rows.is_empty() {
            self.base = timestamp;
        }
        self.rows.push(timestamp);
        self.rows.len() as u32 - 1
    }

    pub(crate) fn finish(&mut self) -> &[u8] {
        let out = &mut self.bytes;
        out.clear();
        out.extend_from_slice(&[FrameKind::Floats as u8, 0]);
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.ids);
        push_varint(self.rows.len() as u64, out);
        let mut previous = self.base;
        for row in &self.rows {
            push_varint(zigzag(row.wrapping_sub(previous)), out);
            previous = *row;
        }
        if self.rows.len() > 1 {
            self.row_of.iter().for_each(|row| push_varint(u64::from(*row), out));
        }
        out.extend_from_slice(&self.lengths);
        out.extend_from_slice(&self.values);
        out
    }
}

/// Writes the frame that defines the series from `first` on.
pub(crate) fn write_definitions<'a>(
    first: SeriesId,
    pairs: &Pairs,
    series: impl Iterator<Item = &'a [PairId]> + Clone,
    out: &mut Vec<u8>,
) {
    out.clear();
    out.extend_from_slice(&[FrameKind::Definitions as u8, 0]);
    out.extend_from_slice(&first.0.to_le_bytes());
    let mut used: Vec<PairId> = series.clone().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    push_varint(used.len() as u64, out);
    for pair in &used {
        let (name, value) = pairs.get(*pair);
        push_text(name.as_bytes(), out);
        push_text(value.as_bytes(), out);
    }
    push_varint(series.clone().count() as u64, out);
    for labels in series {
        push_varint(labels.len() as u64, out);
        for pair in labels {
            let number = used.binary_search(pair).expect("collected above");
            push_varint(number as u64, out);
        }
    }
}

pub(crate) fn write_cut_begin(shard: u8, bar: i64, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[FrameKind::CutBegin as u8, 0, shard]);
    out.extend_from_slice(&bar.to_le_bytes());
}

pub(crate) fn write_cut_end(floor: i64, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[FrameKind::CutEnd as u8, 0]);
    out.extend_from_slice(&floor.to_le_bytes());
}

/// One series of a deferred batch.
#[derive(Debug, Default)]
pub(crate) struct DeferredSeries<L> {
    pub(crate) labels: L,
    pub(crate) samples: Vec<Sample>,
    /// When the counters of the samples started; empty where that is not known of any.
    pub(crate) starts: Vec<i64>,
    pub(crate) histograms: Vec<BatchHistogram>,
}

impl<L> DeferredSeries<L> {
    fn is_plain(&self) -> bool {
        self.starts.is_empty() && self.histograms.is_empty()
    }
}

/// Writes a deferred batch.
pub(crate) fn write_deferred(series: &[DeferredSeries<Labels>], out: &mut Vec<u8>) {
    let is_plain = series.iter().all(DeferredSeries::is_plain);
    let kind = if is_plain { FrameKind::Deferred } else { FrameKind::DeferredWhole };
    out.clear();
    out.extend_from_slice(&[kind as u8, 0]);
    push_varint(series.len() as u64, out);
    for one in series {
        push_text(one.labels.as_bytes(), out);
        push_varint(one.samples.len() as u64, out);
        for (at, sample) in one.samples.iter().enumerate() {
            out.extend_from_slice(&sample.timestamp.to_le_bytes());
            if !is_plain {
                let start = one.starts.get(at).copied().unwrap_or(0);
                out.extend_from_slice(&start.to_le_bytes());
            }
            out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        }
        if !is_plain {
            push_varint(one.histograms.len() as u64, out);
            for BatchHistogram { timestamp, start, value } in &one.histograms {
                out.extend_from_slice(&timestamp.to_le_bytes());
                out.extend_from_slice(&start.to_le_bytes());
                push_alone(value, out);
            }
        }
    }
}

/// A frame, taken apart as far as it can be without knowing series.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Floats(Floats<'a>),
    Definitions(Definitions<'a>),
    CutBegin { shard: usize, bar: i64 },
    CutEnd { floor: i64 },
    Deferred(DeferredBatch<'a>),
    Delete(Deletion<'a>),
    Left(Departure<'a>),
    Histograms(Histograms<'a>),
    Starts(Starts<'a>),
    Metadata(metadata::Logged<'a>),
    Exemplars(exemplars::Logged<'a>),
}

impl Frame<'_> {
    /// The first series of samples, which is of the same shard as all others of the frame.
    pub(crate) fn first_id(&self) -> Option<SeriesId> {
        match self {
            Frame::Floats(floats) => floats.first_id(),
            Frame::Histograms(histograms) => histograms.first_id(),
            Frame::Starts(starts) => starts.first_id(),
            _ => None,
        }
    }

    /// Reads the parts that [`read_frame`] left unread.
    pub(crate) fn check(&self) -> Result<(), FrameError> {
        match self {
            Frame::Definitions(definitions) => definitions.for_each(|_, _| {}),
            Frame::Deferred(batch) => batch.for_each(|_| {}),
            Frame::Histograms(histograms) => histograms.for_each(|_, _, _| {}),
            Frame::Starts(starts) => starts.for_each(|_, _| {}),
            Frame::Metadata(metadata) => metadata.for_each(|_| {}),
            Frame::Exemplars(exemplars) => exemplars.for_each(|_, _| {}),
            Frame::Floats(_)
            | Frame::CutBegin { .. }
            | Frame::CutEnd { .. }
            | Frame::Delete(_)
            | Frame::Left(_) => Ok(()),
        }
    }
}

/// A deferred batch: its series can be read one by one.
#[derive(Debug)]
pub(crate) struct DeferredBatch<'a> {
    is_plain: bool,
    fields: Reader<'a>,
}

/// Samples of a frame, checked as far as their columns have the right lengths.
#[derive(Debug)]
pub(crate) struct Floats<'a> {
    pub(crate) count: usize,
    ids: Reader<'a>,
    rows: Vec<i64>,
    row_of: Reader<'a>,
    lengths: &'a [u8],
    values: &'a [u8],
}

/// Definitions of a frame: the first id, the pairs' texts, and the lists of the series.
#[derive(Debug)]
pub(crate) struct Definitions<'a> {
    pub(crate) first: SeriesId,
    pub(crate) pairs: Vec<(&'a str, &'a str)>,
    pub(crate) series: usize,
    lists: Reader<'a>,
}

pub(crate) fn read_frame(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let mut reader = Reader { bytes };
    let kind = reader.byte()?;
    let kind = FrameKind::of(kind).ok_or(FrameError::Kind(kind))?;
    if reader.byte()? != 0 {
        return Err(FrameError::Malformed);
    }
    Ok(match kind {
        FrameKind::Floats => Frame::Floats(read_floats(reader)?),
        FrameKind::Definitions => Frame::Definitions(read_definitions(reader)?),
        FrameKind::CutBegin => {
            let shard = usize::from(reader.byte()?);
            if shard >= SHARDS {
                return Err(FrameError::Malformed);
            }
            Frame::CutBegin { shard, bar: i64::from_le_bytes(reader.array()?) }
        }
        FrameKind::CutEnd => Frame::CutEnd { floor: i64::from_le_bytes(reader.array()?) },
        FrameKind::Delete => Frame::Delete(Deletion::read(reader)?),
        FrameKind::Left => Frame::Left(Departure::read(reader)?),
        FrameKind::Deferred => Frame::Deferred(DeferredBatch { is_plain: true, fields: reader }),
        FrameKind::DeferredWhole => Frame::Deferred(DeferredBatch { is_plain: false, fields: reader }),
        FrameKind::Histograms => Frame::Histograms(read_histograms(false, reader)?),
        FrameKind::FloatHistograms => Frame::Histograms(read_histograms(true, reader)?),
        FrameKind::Starts => Frame::Starts(read_starts(reader)?),
        FrameKind::Metadata => Frame::Metadata(metadata::read_metadata(reader)?),
        FrameKind::Exemplars => Frame::Exemplars(exemplars::read_exemplars(reader)?),
    })
}

/// The first series of a frame of floats, for who leaves the rest to others; `None` where the
/// frame is another, or is to be read to see what is wrong with it.
pub(crate) fn first_of_floats(bytes: &[u8]) -> Option<SeriesId> {
    let mut reader = Reader { bytes };
    let is_floats = reader.array().is_ok_and(|head| head == [FrameKind::Floats as u8, 0]);
    let count = u32::from_le_bytes(reader.array().ok()?);
    reader.take(8).ok().filter(|_| is_floats && count > 0)?;
    Some(SeriesId(unzigzag(reader.varint().ok()?) as u32))
}

fn read_floats(mut reader: Reader<'_>) -> Result<Floats<'_>, FrameError> {
    let count = u32::from_le_bytes(reader.array()?) as usize;
    let base = i64::from_le_bytes(reader.array()?);
    let ids = reader.clone();
    // An id takes at least a byte, so this also bounds the count by the frame.
    (0..count).try_for_each(|_| reader.varint().map(drop))?;
    let row_count = reader.varint()? as usize;
    if row_count > count {
        return Err(FrameError::Malformed);
    }
    let mut rows = Vec::with_capacity(row_count);
    let mut previous = base;
    for _ in 0..row_count {
        previous = previous.wrapping_add(unzigzag(reader.varint()?));
        rows.push(previous);
    }
    let row_of = reader.clone();
    if row_count > 1 {
        for _ in 0..count {
            if reader.varint()? >= row_count as u64 {
                return Err(FrameError::Malformed);
            }
        }
    }
    let lengths = reader.take(count.div_ceil(2))?;
    let half = |at: usize| usize::from(lengths[at / 2] >> (at % 2 * 4) & 0xf);
    let mut size = 0;
    for at in 0..count {
        if half(at) > 8 {
            return Err(FrameError::Malformed);
        }
        size += half(at);
    }
    if size != reader.bytes.len() || (count > 0 && rows.is_empty()) {
        return Err(FrameError::Malformed);
    }
    Ok(Floats { count, ids, rows, row_of, lengths, values: reader.bytes })
}

impl Floats<'_> {
    /// The first sample's series, which is of the same shard as all others.
    pub(crate) fn first_id(&self) -> Option<SeriesId> {
        let first = self.ids.clone().varint().ok().filter(|_| self.count > 0)?;
        Some(SeriesId(unzigzag(first) as u32))
    }

    /// Visits the samples in order.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(SeriesId, Sample)) {
        let (mut ids, mut row_of, mut values) = (self.ids.clone(), self.row_of.clone(), self.values);
        let mut id = 0i64;
        for at in 0..self.count {
            id = id.wrapping_add(unzigzag(ids.varint().expect("walked when the frame was read")));
            let row = match self.rows.len() {
                1 => 0,
                _ => row_of.varint().expect("walked when the frame was read") as usize,
            };
            let len = usize::from(self.lengths[at / 2] >> (at % 2 * 4) & 0xf);
            let (bytes, rest) = values.split_at(len);
            values = rest;
            let mut bits = [0; 8];
            bits[8 - len..].copy_from_slice(bytes);
            let value = f64::from_bits(u64::from_le_bytes(bits));
            visit(SeriesId(id as u32), Sample { timestamp: self.rows[row], value });
        }
    }
}

fn read_definitions(mut reader: Reader<'_>) -> Result<Definitions<'_>, FrameError> {
    let first = SeriesId(u32::from_le_bytes(reader.array()?));
    let count = reader.varint()? as usize;
    // A pair takes at least two bytes.
    if count > reader.bytes.len() / 2 {
        return Err(FrameError::Malformed);
    }
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        pairs.push((reader.utf8()?, reader.utf8()?));
    }
    let series = reader.varint()? as usize;
    Ok(Definitions { first, pairs, series, lists: reader })
}

impl Definitions<'_> {
    /// Visits each series: its id and its pairs, as numbers of the frame's pairs.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(SeriesId, &[usize])) -> Result<(), FrameError> {
        let mut reader = self.lists.clone();
        let mut numbers = Vec::new();
        for at in 0..self.series {
            let count = reader.varint()? as usize;
            numbers.clear();
            for _ in 0..count {
                let number = reader.varint()? as usize;
                if number >= self.pairs.len() {
                    return Err(FrameError::Malformed);
                }
                numbers.push(number);
            }
            let id = u32::try_from(at).ok().and_then(|at| self.first.0.checked_add(at));
            visit(SeriesId(id.ok_or(FrameError::Malformed)?), &numbers);
        }
        Ok(())
    }
}

impl<'a> DeferredBatch<'a> {
    /// Visits the series. Those before a malformed one are good.
    pub(crate) fn for_each(
        &self,
        mut visit: impl FnMut(&DeferredSeries<&'a [u8]>),
    ) -> Result<(), FrameError> {
        let mut reader = self.fields.clone();
        for _ in 0..reader.varint()? {
            let mut series = DeferredSeries { labels: reader.text()?, ..DeferredSeries::default() };
            for _ in 0..reader.varint()? {
                let timestamp = i64::from_le_bytes(reader.array()?);
                if !self.is_plain {
                    series.starts.push(i64::from_le_bytes(reader.array()?));
                }
                let value = f64::from_bits(u64::from_le_bytes(reader.array()?));
                series.samples.push(Sample { timestamp, value });
            }
            if !self.is_plain {
                for _ in 0..reader.varint()? {
                    let timestamp = i64::from_le_bytes(reader.array()?);
                    let start = i64::from_le_bytes(reader.array()?);
                    let value = read_alone(&mut reader)?;
                    series.histograms.push(BatchHistogram { timestamp, start, value });
                }
            }
            visit(&series);
        }
        Ok(())
    }
}

/// Takes fields off the front of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, FrameError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(FrameError::Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(FrameError::Malformed)?;
        self.bytes = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, FrameError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first().ok_or(FrameError::Malformed)?;
            self.bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FrameError::Malformed)
    }

    pub(crate) fn text(&mut self) -> Result<&'a [u8], FrameError> {
        let len = usize::try_from(self.varint()?).map_err(|_| FrameError::Malformed)?;
        self.take(len)
    }

    pub(crate) fn utf8(&mut self) -> Result<&'a str, FrameError> {
        std::str::from_utf8(self.text()?).map_err(|_| FrameError::Malformed)
    }
}

#[inline]
pub(crate) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn push_text(text: &[u8], out: &mut Vec<u8>) {
    push_varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    (value as u64) << 1 ^ (value >> 63) as u64
}

#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads everything that a frame has and forgets it: for tests of bytes that may be anything.
pub fn walk(bytes: &[u8]) {
    match read_frame(bytes) {
        Ok(Frame::Floats(floats)) => floats.for_each(|_, _| {}),
        Ok(Frame::Delete(deletion)) => deletion.ids.for_each(|_| {}),
        Ok(Frame::Left(departure)) => departure.ids.for_each(|_| {}),
        Ok(frame) => drop(frame.check()),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(samples: &[(u32, i64, f64)]) -> Vec<u8> {
        let mut frame = FloatsFrame::default();
        frame.clear();
        for (id, timestamp, value) in samples {
            frame.push(SeriesId(*id), Sample { timestamp: *timestamp, value: *value });
        }
        frame.finish().to_vec()
    }

    fn read(bytes: &[u8]) -> Vec<(u32, i64, u64)> {
        let Ok(Frame::Floats(floats)) = read_frame(bytes) else { panic!("not a frame of floats") };
        let mut samples = Vec::new();
        floats.for_each(|id, sample| samples.push((id.0, sample.timestamp, sample.value.to_bits())));
        samples
    }

    #[test]
    fn a_frame_of_samples_is_frozen() {
        let bytes = frame(&[(1000, 1500, 1.0), (1001, 1500, 0.0), (1003, 1400, 0.1)]);
        let expected = [
            1, 0, 3, 0, 0, 0, 0xdc, 5, 0, 0, 0, 0, 0, 0, // kind, flags, count, base
            0xd0, 0x0f, 2, 4, // ids
            2, 0, 0xc7, 1, // rows
            0, 0, 1, // row of each
            0x02, 0x08, // lengths
            0xf0, 0x3f, 0x9a, 0x99, 0x99, 0x99, 0x99, 0x99, 0xb9, 0x3f, // values
        ];
        assert_eq!(bytes, expected, "{bytes:02x?}");
    }

    #[test]
    fn a_frame_of_definitions_is_frozen() {
        let mut registry = crate::head::registry::Registry::new(1);
        let pairs: Vec<PairId> =
            [("a", "x"), ("b", "y"), ("b", "z")].map(|(n, v)| registry.intern(n, v)).to_vec();
        let series = [[pairs[0], pairs[2]], [pairs[0], pairs[1]]];
        let mut bytes = Vec::new();
        write_definitions(SeriesId(7), &registry.pairs, series.iter().map(|s| &s[..]), &mut bytes);
        assert_eq!(
            bytes,
            [
                2, 0, 7, 0, 0, 0, // kind, flags, first
                3, 1, b'a', 1, b'x', 1, b'b', 1, b'y', 1, b'b', 1, b'z', // pairs
                2, 2, 0, 2, 2, 0, 1, // series
            ]
        );
        let Ok(Frame::Definitions(read)) = read_frame(&bytes) else { panic!("not definitions") };
        let mut found = Vec::new();
        read.for_each(|id, numbers| found.push((id.0, numbers.to_vec()))).expect("whole");
        assert_eq!(found, [(7, vec![0, 2]), (8, vec![0, 1])]);
    }

    #[test]
    fn the_other_frames_are_frozen() {
        let mut bytes = Vec::new();
        write_cut_begin(3, 258, &mut bytes);
        assert_eq!(bytes, [3, 0, 3, 2, 1, 0, 0, 0, 0, 0, 0]);
        write_cut_end(-1, &mut bytes);
        assert_eq!(bytes, [4, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        let labels = Labels::from_pairs([("a", "x")]);
        let samples = vec![Sample { timestamp: 1, value: 1.0 }];
        let mut series = [DeferredSeries { labels, samples, starts: vec![], histograms: vec![] }];
        write_deferred(&series, &mut bytes);
        let expected =
            [5, 0, 1, 4, 1, b'a', 1, b'x', 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        assert_eq!(bytes, expected);
        let stale =
            BatchHistogram { timestamp: 2, start: 1, value: tidewatch_model::NativeHistogram::stale() };
        series[0].histograms.push(stale);
        write_deferred(&series, &mut bytes);
        let mut expected = vec![21, 0, 1, 4, 1, b'a', 1, b'x', 1, 1, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        expected.extend([1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn samples_come_back(samples in proptest::collection::vec((any::<u32>(), prop_oneof![any::<i64>(),
            0..3i64], prop_oneof![any::<u64>(), (0u64..9).prop_map(|v| (v as f64).to_bits())]), 0..80)) {
            let pushed: Vec<_> = samples.iter().map(|(id, t, bits)| (*id, *t, f64::from_bits(*bits))).collect();
            prop_assert_eq!(read(&frame(&pushed)), samples);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(kind in 0..24u8, rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes: Vec<u8> = [kind, 0].into_iter().chain(rest).collect();
            walk(&bytes);
        }
    }
}
