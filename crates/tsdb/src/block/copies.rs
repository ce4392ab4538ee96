//! Copies of the index among the data: what a block is read by whose index is damaged or cut off.
//!
//! One changed bit in the index would cost all samples of a block, though each of them is whole. So behind the data
//! of each 256 series stands what the index says of them, in a form that needs nothing else. A file that ends early
//! keeps the series before its end.
//!
//! ```text
//! offset  size  field       of a copy
//!      0     8  magic       "TWBKCOPY": copies are found by it, wherever they lie
//!      8     4  len         of the body
//!     12     4  raw_len     of the body, decompressed
//!     16     4  crc32       over bytes 8..16 and the body
//!     20     …  body        a zstd frame of:
//!
//! at        u64     where the copy begins in the data section
//! data      u64     where the data of its first series begins there
//! first     u32     the number of that series
//! dense     u8      whether the block is
//! last      u8      whether no series follow
//! reserved  u16     zero
//! meta      u32 len, then as the section, of these series alone
//! clocks    u32 count, then as the section: those of these series' chunks, wherever their columns lie
//! columns   u32 count, of each: u64 offset in the data section, u32 len, bytes
//! series    for each, all varints but texts and checksums:
//!             how many leading labels it shares with the one before
//!             how many follow, of each: length and bytes of the name, length and bytes of the value
//!             its chunks as in `series`, with clocks by their number among those above
//! ```
//!
//! *Columns* are those of clocks that more than one chunk has, once a block: one changed bit there would cost
//! every series of a target.
//!
//! A copy ends where a group of `series` begins, whose place is stored there. Behind the last one lies a page of
//! zeros, unless the block is small: a page of the disk that is lost must not take both it and the index.
//!
//! Not here: the block that is made of them (`salvage`).

use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashMap;
use memchr::memmem;
use tidewatch_model::Labels;

use super::clocks::{Clock, ClockTable};
use super::format::BlockMeta;
use super::series::{Chunk, GROUP, PAIRS_MAX, put_chunks, take_chunks};
use super::write::WriterOptions;
use crate::index::IndexError;
use crate::wire::{put_varint, take_array, take_slice, take_u32};

/// Series between two copies. Fewer would compress less; what a file that is cut loses beyond the cut are at most
/// these.
const SERIES: u32 = 256;
const _: () = assert!((SERIES as usize).is_multiple_of(GROUP));

const MAGIC: [u8; 8] = *b"TWBKCOPY";
const FRAME_LEN: usize = 20;

/// A body that would be larger is left out: nothing has as many or as long labels.
const RAW_MAX: usize = 64 << 20;

/// A page of the disk.
const GAP: usize = 4096;

/// Blocks with less data have no gap: it would be much of them.
const GAP_FROM: u64 = 8 * GAP as u64;

/// How many zeros lie behind the last copy, which ends at `end` of the data section.
pub(super) fn gap_behind(end: u64) -> usize {
    if end < GAP_FROM { 0 } else { GAP }
}

/// Collects what the next copy will say.
#[derive(Default)]
pub(super) struct CopyWriter {
    /// The number of the first series, and of the one behind the last.
    first: u32,
    next: u32,
    /// Where the data of the first begins.
    data: u64,
    records: Vec<u8>,
    previous: Option<Labels>,
    clocks: Vec<Clock>,
    /// Their numbers here by those in the block.
    numbers: HashMap<u32, u32, foldhash::fast::RandomState>,
    chunks: u64,
    samples: u64,
}

impl CopyWriter {
    /// The number of the series to come.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Whether the copy is to stand before the next series.
    pub(super) fn is_due(&self) -> bool {
        self.next - self.first == SERIES
    }

    /// Notes that the data of a series begins.
    pub(super) fn begin(&mut self, data_offset: u64) {
        if self.next == self.first {
            self.data = data_offset;
        }
    }

    /// Adds a series that is complete. `clocks` are all of the block.
    pub(super) fn push(&mut self, labels: &Labels, chunks: &[Chunk], clocks: &[Clock]) {
        let previous = self.previous.iter().flat_map(Labels::iter);
        let shared = previous.zip(labels.iter()).take_while(|(a, b)| a == b).count();
        put_varint(&mut self.records, shared as u64);
        put_varint(&mut self.records, (labels.iter().count() - shared) as u64);
        for (name, value) in labels.iter().skip(shared) {
            for text in [name, value] {
                put_varint(&mut self.records, text.len() as u64);
                self.records.extend_from_slice(text.as_bytes());
            }
        }
        for chunk in chunks {
            self.numbers.entry(chunk.clock).or_insert_with(|| {
                self.clocks.push(clocks[chunk.clock as usize]);
                self.clocks.len() as u32 - 1
            });
            self.samples += u64::from(clocks[chunk.clock as usize].count);
        }
        let numbers = &self.numbers;
        put_chunks(
            &mut self.records,
            chunks.iter().map(|chunk| Chunk { clock: numbers[&chunk.clock], ..*chunk }),
        );
        self.chunks += chunks.len() as u64;
        self.previous = Some(labels.clone());
        self.next += 1;
    }

    /// Appends the copy, which begins at `at` of the data section, and begins the next. `columns` are of clocks
    /// with these offsets.
    pub(super) fn finish(
        &mut self,
        options: &WriterOptions,
        at: u64,
        is_last: bool,
        columns: &[(u64, Vec<u8>)],
        out: &mut Vec<u8>,
    ) {
        let done =
            std::mem::replace(self, CopyWriter { first: self.next, next: self.next, ..Self::default() });
        let mut raw = Vec::with_capacity(done.records.len() + 1024);
        raw.extend_from_slice(&at.to_le_bytes());
        raw.extend_from_slice(&done.data.to_le_bytes());
        raw.extend_from_slice(&done.first.to_le_bytes());
        raw.extend_from_slice(&[u8::from(options.dense), u8::from(is_last), 0, 0]);
        let mut meta = Vec::new();
        done.meta(options).encode(&mut meta);
        raw.extend_from_slice(&(meta.len() as u32).to_le_bytes());
        raw.extend_from_slice(&meta);
        raw.extend_from_slice(&(done.clocks.len() as u32).to_le_bytes());
        done.clocks.iter().for_each(|clock| clock.encode(&mut raw));
        raw.extend_from_slice(&(columns.len() as u32).to_le_bytes());
        for (offset, column) in columns {
            raw.extend_from_slice(&offset.to_le_bytes());
            raw.extend_from_slice(&(column.len() as u32).to_le_bytes());
            raw.extend_from_slice(column);
        }
        raw.extend_from_slice(&done.records);
        if raw.len() <= RAW_MAX {
            put_frame(&raw, out);
        }
    }

    fn meta(&self, options: &WriterOptions) -> BlockMeta {
        BlockMeta {
            id: options.id,
            level: options.level,
            start_ms: options.start_ms,
            end_ms: options.end_ms,
            min_ms: self.clocks.iter().map(|clock| clock.first_ms).min().unwrap_or(options.start_ms),
            max_ms: self.clocks.iter().map(Clock::last_ms).max().unwrap_or(options.start_ms),
            series: u64::from(self.next - self.first),
            chunks: self.chunks,
            samples: self.samples,
            parents: options.parents.clone(),
            size: 0,
        }
    }
}

fn put_frame(raw: &[u8], out: &mut Vec<u8>) {
    let body = zstd::bulk::compress(raw, zstd::DEFAULT_COMPRESSION_LEVEL).expect("memory takes all");
    let start = out.len() + MAGIC.len();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    let crc = checksum(&out[start..], &body);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&body);
}

fn checksum(lens: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc32fast::hash(lens));
    hasher.update(body);
    hasher.finalize()
}

/// A data section of one copy with this body, decompressed: for tests and fuzzers that look behind its checksum.
pub fn copy_of(raw: &[u8]) -> Vec<u8> {
    let mut out = super::format::header(false).to_vec();
    put_frame(raw, &mut out);
    out
}

/// A copy that is whole.
#[derive(Debug)]
pub(super) struct IndexCopy {
    /// Where it lies in the data section.
    pub(super) range: Range<u64>,
    /// The numbers of its series.
    pub(super) series: Range<u32>,
    pub(super) is_dense: bool,
    pub(super) is_last: bool,
    pub(super) meta: BlockMeta,
    pub(super) clocks: ClockTable,
    /// Columns of clocks by their offsets.
    pub(super) columns: Vec<(u64, Bytes)>,
    data: u64,
    records: Bytes,
}

const MALFORMED: IndexError = IndexError("a copy of the index is malformed");

/// The copies that are whole in some bytes, which begin at `start` of the data section, in their order.
pub(super) fn copies(bytes: &[u8], start: u64) -> impl Iterator<Item = IndexCopy> {
    memmem::find_iter(bytes, &MAGIC).filter_map(move |at| {
        let copy = IndexCopy::read(&bytes[at..])?;
        (copy.range.start == start + at as u64).then_some(copy)
    })
}

impl IndexCopy {
    /// Reads the copy that bytes begin with; `None` where it is damaged.
    pub(super) fn read(bytes: &[u8]) -> Option<IndexCopy> {
        let (frame, rest) = bytes.split_first_chunk::<FRAME_LEN>()?;
        let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().expect("four bytes"));
        let body = rest.get(..word(8) as usize)?;
        let raw_len = Some(word(12) as usize).filter(|len| *len <= RAW_MAX)?;
        let is_whole = frame[..8] == MAGIC && word(16) == checksum(&frame[8..16], body);
        let raw = is_whole.then(|| zstd::bulk::decompress(body, raw_len).ok()).flatten()?;
        IndexCopy::decode(raw.into(), (FRAME_LEN + body.len()) as u64)
    }

    fn decode(raw: Bytes, len: u64) -> Option<IndexCopy> {
        let input = &mut &raw[..];
        let at = u64::from_le_bytes(take_array(input)?);
        let data = u64::from_le_bytes(take_array(input)?);
        let first = u32::from_le_bytes(take_array(input)?);
        let [dense, last, 0, 0] = take_array(input)? else { return None };
        let meta = take_part(input, 1)?;
        let clocks = take_part(input, Clock::LEN)?;
        let columns = (0..take_count(input)?).map(|_| {
            let offset = u64::from_le_bytes(take_array(input)?);
            Some((offset, raw.slice_ref(take_part(input, 1)?)))
        });
        let meta = BlockMeta::decode(meta, 0).ok()?;
        Some(IndexCopy {
            range: at..at.checked_add(len)?,
            series: first..u32::try_from(u64::from(first) + meta.series).ok()?,
            is_dense: dense == 1,
            is_last: last == 1,
            meta,
            clocks: ClockTable::open(raw.slice_ref(clocks)).ok()?,
            columns: columns.collect::<Option<_>>()?,
            data,
            records: raw.slice_ref(input),
        })
    }

    /// Gives `visit` each series with its chunks, whose clocks have the numbers that they have here, and where its
    /// data begins.
    pub(super) fn for_each(
        &self,
        mut visit: impl FnMut(&Labels, u64, &[Chunk]) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        let input = &mut &self.records[..];
        let (mut labels, mut chunks, mut data) = (Vec::new(), Vec::new(), self.data);
        for _ in self.series.clone() {
            take_labels(input, &mut labels)?;
            let start = data;
            take_chunks(input, &self.clocks, &mut data, &mut chunks)?;
            visit(&Labels::from_sorted(labels.iter().copied()), start, &chunks)?;
        }
        if input.is_empty() { Ok(()) } else { Err(MALFORMED) }
    }
}

fn take_count(input: &mut &[u8]) -> Option<usize> {
    take_array(input).map(|bytes| u32::from_le_bytes(bytes) as usize)
}

/// A count and as many pieces of `len` bytes.
fn take_part<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let count = take_count(input)?;
    take_slice(input, count.checked_mul(len)?)
}

fn take_labels<'a>(input: &mut &'a [u8], labels: &mut Vec<(&'a str, &'a str)>) -> Result<(), IndexError> {
    let shared = take_u32(input).ok_or(MALFORMED)? as usize;
    let added = take_u32(input).ok_or(MALFORMED)? as usize;
    if shared > labels.len() || added > PAIRS_MAX || shared + added > PAIRS_MAX {
        return Err(MALFORMED);
    }
    labels.truncate(shared);
    for _ in 0..added {
        let mut take_text = || {
            let len = take_u32(input)? as usize;
            std::str::from_utf8(take_slice(input, len)?).ok()
        };
        let label = take_text().zip(take_text()).filter(|(_, value)| !value.is_empty());
        labels.push(label.ok_or(MALFORMED)?);
    }
    if labels.is_sorted_by(|a, b| a.0 < b.0) { Ok(()) } else { Err(MALFORMED) }
}
