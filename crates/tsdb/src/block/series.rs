//! The series of a block: the pairs of each and where its chunks lie.
//!
//! ```text
//! series   u32      how many
//! groups   12 bytes for each 16 series: u32, where their records start; u64, where their data do
//! records  for each series, all varints but the checksum:
//!            how many leading pairs it shares with the one before (the first of a group: 0)
//!            how many pairs follow; the first, or its distance less one to the pair before, …
//!            how many chunks; for each:
//!              2 × clock + special
//!              special: kind u8, see `tidewatch_chunk::SampleKind`, 16 more with start timestamps
//!              length of the column of values
//!              with start timestamps: length of their column, which follows
//!              crc32 of the column or of both, 4 bytes
//! ```
//!
//! Offsets of chunks are not stored: columns lie in the order of the records, and where a chunk's
//! clock starts at the place reached, it is stepped over. So a series of seven labels and one
//! chunk takes some 15 bytes. Floats without start timestamps are not special.

use bytes::Bytes;
use tidewatch_chunk::SampleKind;

use super::clocks::ClockTable;
use crate::index::IndexError;
use crate::wire::{put_varint, take_array, take_slice, take_u32};

/// Series that are found by one offset; a random access reads half of them on average.
pub(super) const GROUP: usize = 16;

/// More labels than any limit lets in.
pub(super) const PAIRS_MAX: usize = 1 << 12;

const CUT: IndexError = IndexError("the series are cut short");

/// A stretch of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) clock: u32,
    /// In the data section.
    pub(super) offset: u64,
    pub(super) len: u32,
    /// Of the column of start timestamps behind the values; 0 without one.
    pub(super) starts_len: u32,
    pub(super) crc: u32,
    pub(super) kind: SampleKind,
}

const WITH_STARTS: u8 = 16;

impl Chunk {
    /// Whether it is more than floats.
    pub(super) fn is_special(&self) -> bool {
        self.kind != SampleKind::Float || self.starts_len > 0
    }
}

/// Builds the section from series in order.
#[derive(Debug, Default)]
pub(super) struct SeriesEncoder {
    count: u32,
    groups: Vec<u8>,
    records: Vec<u8>,
    previous: Vec<u32>,
}

impl SeriesEncoder {
    /// `data_offset` is where the first chunk, or the clock before it, starts.
    pub(super) fn push(&mut self, pairs: &[u32], chunks: &[Chunk], data_offset: u64) {
        if (self.count as usize).is_multiple_of(GROUP) {
            let start = u32::try_from(self.records.len()).expect("the series of a block stay below 4 GiB");
            self.groups.extend_from_slice(&start.to_le_bytes());
            self.groups.extend_from_slice(&data_offset.to_le_bytes());
            self.previous.clear();
        }
        self.count += 1;
        let shared = self.previous.iter().zip(pairs).take_while(|(a, b)| a == b).count();
        put_varint(&mut self.records, shared as u64);
        put_varint(&mut self.records, (pairs.len() - shared) as u64);
        let mut before = shared.checked_sub(1).map(|last| pairs[last]);
        for &pair in &pairs[shared..] {
            put_varint(&mut self.records, u64::from(before.map_or(pair, |before| pair - before - 1)));
            before = Some(pair);
        }
        put_chunks(&mut self.records, chunks.iter().copied());
        self.previous.clear();
        self.previous.extend_from_slice(pairs);
    }

    pub(super) fn finish(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.groups);
        out.extend_from_slice(&self.records);
    }
}

/// Appends what a record says of the chunks of a series.
pub(super) fn put_chunks(out: &mut Vec<u8>, chunks: impl ExactSizeIterator<Item = Chunk>) {
    put_varint(out, chunks.len() as u64);
    for chunk in chunks {
        let special = chunk.is_special();
        put_varint(out, u64::from(chunk.clock) << 1 | u64::from(special));
        if special {
            let with_starts = if chunk.starts_len > 0 { WITH_STARTS } else { 0 };
            out.push(chunk.kind as u8 | with_starts);
        }
        put_varint(out, u64::from(chunk.len));
        if chunk.starts_len > 0 {
            put_varint(out, u64::from(chunk.starts_len));
        }
        out.extend_from_slice(&chunk.crc.to_le_bytes());
    }
}

/// The section, mapped.
#[derive(Debug, Clone)]
pub(super) struct SeriesTable {
    count: u32,
    groups: Bytes,
    records: Bytes,
}

/// One series as it was read, and the place to go on from.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) pairs: Vec<u32>,
    pub(super) chunks: Vec<Chunk>,
    /// The series after this one, where its record starts and where its data does; `None` where
    /// nothing was read yet or the reading failed.
    next: Option<(u32, usize, u64)>,
}

impl Record {
    /// The series that was read last.
    pub(super) fn series(&self) -> Option<u32> {
        self.next.map(|(next, ..)| next - 1)
    }

    /// Where the data of the series that was read last ends.
    pub(super) fn data_end(&self) -> Option<u64> {
        self.next.map(|(.., data)| data)
    }
}

impl SeriesTable {
    pub(super) fn open(bytes: &Bytes) -> Result<SeriesTable, IndexError> {
        let mut input = &bytes[..];
        let count = take_array(&mut input).map(u32::from_le_bytes).ok_or(CUT)?;
        let groups = take_slice(&mut input, (count as usize).div_ceil(GROUP) * 12).ok_or(CUT)?;
        Ok(SeriesTable { count, groups: bytes.slice_ref(groups), records: bytes.slice_ref(input) })
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    /// Reads a series into `record`. Cheap where it is the one after the last that was read.
    pub(super) fn read(
        &self,
        series: u32,
        clocks: &ClockTable,
        record: &mut Record,
    ) -> Result<(), IndexError> {
        if record.series() == Some(series) {
            return Ok(());
        }
        if series >= self.count {
            return Err(IndexError("a series is not there"));
        }
        let group = series as usize / GROUP;
        let (mut at, mut start, mut data) = match record.next.take() {
            // The first of a group may begin behind a copy of the index.
            Some((next, start, data)) if next <= series && next as usize > group * GROUP => {
                (next, start, data)
            }
            _ => self.group(group)?,
        };
        loop {
            let mut input = self.records.get(start..).ok_or(CUT)?;
            let whole = input.len();
            if (at as usize).is_multiple_of(GROUP) {
                record.pairs.clear();
            }
            take_pairs(&mut input, &mut record.pairs)?;
            take_chunks(&mut input, clocks, &mut data, &mut record.chunks)?;
            start += whole - input.len();
            at += 1;
            if at > series {
                record.next = Some((at, start, data));
                return Ok(());
            }
        }
    }

    /// Where the data of a series starts that is the first of a group.
    pub(super) fn data_start(&self, series: u32) -> Result<u64, IndexError> {
        self.group(series as usize / GROUP).map(|(.., data)| data)
    }

    fn group(&self, group: usize) -> Result<(u32, usize, u64), IndexError> {
        let mut entry = self.groups.get(group * 12..).ok_or(CUT)?;
        let start = take_array(&mut entry).map(u32::from_le_bytes).ok_or(CUT)?;
        let data = take_array(&mut entry).map(u64::from_le_bytes).ok_or(CUT)?;
        Ok(((group * GROUP) as u32, start as usize, data))
    }
}

fn take_pairs(input: &mut &[u8], pairs: &mut Vec<u32>) -> Result<(), IndexError> {
    let shared = take_u32(input).ok_or(CUT)? as usize;
    let added = take_u32(input).ok_or(CUT)? as usize;
    if shared > pairs.len() || added > PAIRS_MAX || shared + added > PAIRS_MAX {
        return Err(IndexError("a series has more labels than there are"));
    }
    pairs.truncate(shared);
    for _ in 0..added {
        let distance = take_u32(input).ok_or(CUT)?;
        let pair = match pairs.last() {
            Some(before) => before.checked_add(distance).and_then(|pair| pair.checked_add(1)).ok_or(CUT)?,
            None => distance,
        };
        pairs.push(pair);
    }
    Ok(())
}

/// Reads what a record says of the chunks of a series, whose data begins at `data`; moves that to their end.
pub(super) fn take_chunks(
    input: &mut &[u8],
    clocks: &ClockTable,
    data: &mut u64,
    chunks: &mut Vec<Chunk>,
) -> Result<(), IndexError> {
    const BEYOND: IndexError = IndexError("a chunk lies outside the file");
    let count = take_u32(input).ok_or(CUT)?;
    chunks.clear();
    for _ in 0..count {
        let head = take_u32(input).ok_or(CUT)?;
        let kind_byte = match head & 1 {
            1 => take_array::<1>(input).ok_or(CUT)?[0],
            _ => SampleKind::Float as u8,
        };
        let kind = SampleKind::of(kind_byte & !WITH_STARTS)
            .ok_or(IndexError("a chunk has a kind that this release does not read"))?;
        let clock = head >> 1;
        let place = clocks.get(clock).ok_or(IndexError("a chunk's clock is not there"))?;
        if place.offset == *data {
            *data = data.checked_add(u64::from(place.len)).ok_or(BEYOND)?;
        }
        let len = take_u32(input).ok_or(CUT)?;
        let starts_len = if kind_byte & WITH_STARTS == 0 { 0 } else { take_u32(input).ok_or(CUT)? };
        let crc = take_array(input).map(u32::from_le_bytes).ok_or(CUT)?;
        chunks.push(Chunk { clock, offset: *data, len, starts_len, crc, kind });
        *data = data.checked_add(u64::from(len) + u64::from(starts_len)).ok_or(BEYOND)?;
    }
    Ok(())
}
