//! Samples of floats in the log, one frame (a part of one: `request`) for each shard that a request touches:
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

use tidewatch_model::Sample;

use crate::fields::{Reader, push_varint, unzigzag, zigzag};
use crate::head::registry::SeriesId;
use crate::log::{FrameError, FrameKind};

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
}

impl FloatsFrame {
    pub(crate) fn clear(&mut self) {
        let FloatsFrame { count, previous_id, ids, rows, row_of, lengths, values, base: _ } = self;
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

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
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
    }
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

/// The first series of a frame of floats, for who leaves the rest to others; `None` where the
/// frame is another, or is to be read to see what is wrong with it.
pub(crate) fn first_of_floats(bytes: &[u8]) -> Option<SeriesId> {
    let mut reader = Reader { bytes };
    let is_floats = reader.array().is_ok_and(|head| head == [FrameKind::Floats as u8, 0]);
    let count = u32::from_le_bytes(reader.array().ok()?);
    reader.take(8).ok().filter(|_| is_floats && count > 0)?;
    Some(SeriesId(unzigzag(reader.varint().ok()?) as u32))
}

pub(crate) fn read_floats(mut reader: Reader<'_>) -> Result<Floats<'_>, FrameError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Frame, read_frame};
    use proptest::prelude::*;

    fn frame(samples: &[(u32, i64, f64)]) -> Vec<u8> {
        let mut frame = FloatsFrame::default();
        frame.clear();
        for (id, timestamp, value) in samples {
            frame.push(SeriesId(*id), Sample { timestamp: *timestamp, value: *value });
        }
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        bytes
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn samples_come_back(samples in proptest::collection::vec((any::<u32>(), prop_oneof![any::<i64>(),
            0..3i64], prop_oneof![any::<u64>(), (0u64..9).prop_map(|v| (v as f64).to_bits())]), 0..80)) {
            let pushed: Vec<_> = samples.iter().map(|(id, t, bits)| (*id, *t, f64::from_bits(*bits))).collect();
            prop_assert_eq!(read(&frame(&pushed)), samples);
        }
    }
}
