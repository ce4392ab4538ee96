//! The index of a block, version 2: symbols, and series with their chunks. Postings are not read:
//! an import takes every series.
//!
//! ```text
//! magic 0xbaaad700, version 2
//! symbols   length, count, texts; CRC-32C
//! series    each on a multiple of 16: length; pairs of symbols; chunks; CRC-32C
//! …
//! table     six offsets: symbols, series, label indices and their table, postings and their table
//!           (0 where there is none); CRC-32C
//! ```

use bytes::Bytes;
use tidewatch_model::Labels;

use super::reader::{Reader, Short};

const MAGIC: u32 = 0xbaaa_d700;
const TABLE_LEN: usize = 6 * 8 + 4;

/// Series begin on multiples of this, and are named by it.
pub const SERIES_ALIGN: usize = 16;

/// An index whose table and symbols hold.
pub struct Index {
    file: Bytes,
    /// Where each symbol's length stands.
    symbols: Vec<u32>,
    /// Where the series begin and end.
    series: (usize, usize),
}

/// A series of a block.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// As tombstones name it.
    pub reference: u64,
    pub labels: Labels,
    pub chunks: Vec<ChunkAt>,
}

/// A chunk as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkAt {
    pub min_ms: i64,
    pub max_ms: i64,
    /// File in the upper half, counted from 0; offset in the lower.
    pub reference: u64,
}

impl Index {
    pub fn open(file: Bytes) -> Result<Index, String> {
        let mut reader = Reader::new(&file);
        if reader.be32() != Ok(MAGIC) {
            return Err("this is no index".to_owned());
        }
        match reader.u8() {
            Ok(2) => {}
            Ok(version) => return Err(format!("the index has version {version}; version 2 is read")),
            Err(Short) => return Err("the index is cut short".to_owned()),
        }
        let table_at = file.len().checked_sub(TABLE_LEN).ok_or("the index is cut short")?;
        let (table, crc) = file[table_at..].split_last_chunk::<4>().expect("longer than that");
        if crc32c::crc32c(table).to_be_bytes() != *crc {
            return Err("the checksum of the table at the end does not hold".to_owned());
        }
        let offsets = table.as_chunks::<8>().0.iter().map(|offset| u64::from_be_bytes(*offset));
        let offsets: Vec<usize> =
            offsets.map(|offset| usize::try_from(offset).map_or(table_at, |at| at.min(table_at))).collect();
        let series = offsets[1];
        let end = offsets.iter().copied().filter(|offset| *offset > series).min().unwrap_or(table_at);
        let symbols = symbols(&file, offsets[0])?;
        Ok(Index { file, symbols, series: (series, end) })
    }

    fn symbol(&self, number: u64) -> Option<&str> {
        let at = *self.symbols.get(usize::try_from(number).ok()?)?;
        let text = Reader::new(&self.file[at as usize..]).text().ok()?;
        str::from_utf8(text).ok()
    }

    /// Visits the series in their order; `problem` gets the offset of what can not be read. A visit
    /// that fails ends it.
    pub fn visit<E>(
        &self,
        problem: &mut dyn FnMut(usize, &str),
        visit: &mut dyn FnMut(Series) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = self.series.0.next_multiple_of(SERIES_ALIGN);
        // Behind damage the next series is looked for where one may begin.
        let mut lost = false;
        while at < self.series.1 {
            let section = &self.file[at..self.series.1];
            match body(section) {
                Some((body, len)) => {
                    lost = false;
                    match self.decode(at, body) {
                        Ok(series) => visit(series)?,
                        Err(reason) => problem(at, reason),
                    }
                    at = (at + len).next_multiple_of(SERIES_ALIGN);
                }
                None => {
                    if !lost && section.iter().any(|byte| *byte != 0) {
                        problem(at, "the checksum of a series does not hold");
                        lost = true;
                    }
                    at += SERIES_ALIGN;
                }
            }
        }
        Ok(())
    }

    fn decode(&self, at: usize, body: &[u8]) -> Result<Series, &'static str> {
        const SHORT: &str = "a series is cut short";
        let mut reader = Reader::new(body);
        let mut next = || reader.uvarint().map_err(|_| SHORT);
        let mut pairs = Vec::new();
        for _ in 0..next()? {
            let (name, value) = (next()?, next()?);
            let text = |number| self.symbol(number).ok_or("a label is no symbol of the index, or not UTF-8");
            pairs.push((text(name)?, text(value)?));
        }
        let ascend = pairs.is_sorted_by(|a, b| a.0 < b.0);
        if !ascend || pairs.iter().any(|(name, value)| name.is_empty() || value.is_empty()) {
            return Err("the labels of a series are no label set");
        }
        let chunks = chunks(reader).map_err(|_| SHORT)?;
        let reference = (at / SERIES_ALIGN) as u64;
        Ok(Series { reference, labels: Labels::from_sorted(pairs.iter().copied()), chunks })
    }
}

fn symbols(file: &[u8], at: usize) -> Result<Vec<u32>, String> {
    let short = |_| "the symbols are cut short".to_owned();
    let mut reader = Reader::new(&file[at..]);
    let len = reader.be32().map_err(short)?;
    let body = reader.take(len.into()).map_err(short)?;
    if reader.be32() != Ok(crc32c::crc32c(body)) {
        return Err("the checksum of the symbols does not hold".to_owned());
    }
    let mut reader = Reader::new(body);
    let count = reader.be32().map_err(short)?;
    let mut symbols = Vec::new();
    for _ in 0..count {
        let offset = at + 4 + (body.len() - reader.rest.len());
        symbols.push(u32::try_from(offset).map_err(|_| "the symbols lie beyond 4 GiB".to_owned())?);
        reader.text().map_err(short)?;
    }
    Ok(symbols)
}

/// The body of a series at the front of bytes, if its checksum holds; and where the series ends.
fn body(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let mut reader = Reader::new(bytes);
    let body = reader.text().ok()?;
    let crc = reader.be32().ok()?;
    // Nothing but zeros between series has a length of 0 and no checksum that holds.
    (crc == crc32c::crc32c(body) && !body.is_empty()).then(|| (body, bytes.len() - reader.rest.len()))
}

fn chunks(mut reader: Reader<'_>) -> Result<Vec<ChunkAt>, Short> {
    let mut chunks: Vec<ChunkAt> = Vec::new();
    for _ in 0..reader.uvarint()? {
        let chunk = match chunks.last() {
            None => {
                let min_ms = reader.varint()?;
                let max_ms = min_ms.wrapping_add(reader.uvarint()? as i64);
                ChunkAt { min_ms, max_ms, reference: reader.uvarint()? }
            }
            Some(before) => {
                let min_ms = before.max_ms.wrapping_add(reader.uvarint()? as i64);
                let max_ms = min_ms.wrapping_add(reader.uvarint()? as i64);
                ChunkAt { min_ms, max_ms, reference: before.reference.wrapping_add(reader.varint()? as u64) }
            }
        };
        chunks.push(chunk);
    }
    Ok(chunks)
}
