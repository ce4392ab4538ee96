//! The frame of a block file: header, meta, section table, footer; and the file's name.

use std::path::{Path, PathBuf};

/// Names a block within its data directory. Ascends; never given out again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u64);

impl BlockId {
    /// Below this, an id and the number of a clock make one [`tidewatch_storage::ClockId`].
    pub const MAX: BlockId = BlockId((1 << 31) - 1);

    /// What is beyond is nobody's that gives ids out one by one, and none is given out behind it.
    pub(crate) const GIVEN_MAX: BlockId = BlockId(1 << 30);
}

pub const FILE_SUFFIX: &str = ".block";

/// Where a block of this id lies in a directory: `00000017.block`.
pub fn block_path(dir: &Path, id: BlockId) -> PathBuf {
    dir.join(format!("{:08}{FILE_SUFFIX}", id.0))
}

/// The id in a block's file name; `None` for other files.
pub fn parse_block_name(path: &Path) -> Option<BlockId> {
    let digits = path.file_name()?.to_str()?.strip_suffix(FILE_SUFFIX)?;
    let canonical = digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    let id = digits.parse().ok().filter(|id| canonical && *id <= BlockId::MAX.0)?;
    Some(BlockId(id))
}

/// What a block holds.
///
/// ```text
/// offset  size  field
///      0     8  id
///      8     1  level      0 from the head, one more for each merge
///      9     7  reserved   zero
///     16     8  start_ms   the range that the block was cut for; samples are within
///     24     8  end_ms     its end, not included
///     32     8  min_ms     the first sample
///     40     8  max_ms     the last sample
///     48     8  series
///     56     8  chunks
///     64     8  samples
///     72     4  parents    how many
///     76     4  reserved   zero
///     80   8×n  the ids of the blocks that this one replaces, ascending
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMeta {
    pub id: BlockId,
    pub level: u8,
    pub start_ms: i64,
    pub end_ms: i64,
    pub min_ms: i64,
    pub max_ms: i64,
    pub series: u64,
    pub chunks: u64,
    pub samples: u64,
    /// What it was merged from, where that was done: see `compact::superseded`.
    pub parents: Vec<BlockId>,
    /// Length of the file. Not stored.
    pub size: u64,
}

const META_LEN: usize = 80;

impl BlockMeta {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0.to_le_bytes());
        out.extend_from_slice(&[self.level, 0, 0, 0, 0, 0, 0, 0]);
        for time in [self.start_ms, self.end_ms, self.min_ms, self.max_ms] {
            out.extend_from_slice(&time.to_le_bytes());
        }
        for count in [self.series, self.chunks, self.samples, self.parents.len() as u64] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        for parent in &self.parents {
            out.extend_from_slice(&parent.0.to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8], size: u64) -> Result<BlockMeta, &'static str> {
        let (head, parents) = bytes.split_at_checked(META_LEN).ok_or("the meta section is cut short")?;
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let (parents, rest) = parents.as_chunks::<8>();
        if head[9..16] != [0; 7] || word(72) != parents.len() as u64 || !rest.is_empty() {
            return Err("the meta section has fields that must be zero, or more parents than it says");
        }
        let meta = BlockMeta {
            id: BlockId(word(0)),
            level: head[8],
            start_ms: word(16) as i64,
            end_ms: word(24) as i64,
            min_ms: word(32) as i64,
            max_ms: word(40) as i64,
            series: word(48),
            chunks: word(56),
            samples: word(64),
            parents: parents.iter().map(|id| BlockId(u64::from_le_bytes(*id))).collect(),
            size,
        };
        let ordered = meta.start_ms <= meta.min_ms && meta.min_ms <= meta.max_ms && meta.max_ms < meta.end_ms;
        if !ordered || meta.id > BlockId::MAX || meta.series > u64::from(u32::MAX) {
            return Err("the meta section contradicts itself");
        }
        Ok(meta)
    }
}

/// Fixed header: 16 bytes.
///
/// ```text
/// offset  size  field
///      0     4  magic     "TWBK"
///      4     2  version   3; 1 and 2, which are read, have no copies of the index, and 2 is dense
///      6     1  dense     1: columns may have the codec 6, and more samples; 0
///      7     5  reserved  zero; readers reject anything else
///     12     4  crc32     over bytes 0..12
/// ```
pub(super) const HEADER_LEN: usize = 16;
pub(super) const VERSION: u16 = 3;
const PLAIN_VERSION: u16 = 1;
const DENSE_VERSION: u16 = 2;
const MAGIC: [u8; 4] = *b"TWBK";

/// The headers that there are, and whether their blocks are dense.
const HEADERS: [(u16, u8, bool); 4] =
    [(VERSION, 0, false), (VERSION, 1, true), (PLAIN_VERSION, 0, false), (DENSE_VERSION, 0, true)];

pub(super) fn header(dense: bool) -> [u8; HEADER_LEN] {
    header_of(VERSION, u8::from(dense))
}

fn header_of(version: u16, dense: u8) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&version.to_le_bytes());
    header[6] = dense;
    let crc = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Which of the headers that there are a damaged one comes closest to.
pub(super) fn may_be_dense(file: &[u8]) -> bool {
    let distance = |(version, dense, _): &(u16, u8, bool)| -> u32 {
        let header = header_of(*version, *dense);
        header.iter().zip(file).map(|(byte, found)| (byte ^ found).count_ones()).sum()
    };
    HEADERS.iter().min_by_key(|header| distance(header)).is_some_and(|(.., dense)| *dense)
}

/// What a header can be.
pub(super) enum Header {
    Good { dense: bool },
    Newer(u16),
    Bad(&'static str),
}

/// Whether bytes begin a block, of this release or a newer one.
pub(crate) fn is_block(bytes: &[u8]) -> bool {
    matches!(check_header(bytes), Header::Good { .. } | Header::Newer(_))
}

pub(super) fn check_header(bytes: &[u8]) -> Header {
    let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else { return Header::Bad("no header") };
    if bytes[..4] != MAGIC {
        return Header::Bad("not a block");
    }
    if bytes[12..] != crc32fast::hash(&bytes[..12]).to_le_bytes() {
        return Header::Bad("the header's checksum does not hold");
    }
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if version > VERSION {
        return Header::Newer(version);
    }
    let known = HEADERS.iter().find(|(known, dense, _)| *bytes == header_of(*known, *dense));
    match known {
        Some((.., dense)) => Header::Good { dense: *dense },
        None => Header::Bad("the header is none that a release writes"),
    }
}

/// The sections, in the order of the file. Ids from 128 on are for additions that an older reader
/// can do without; it refuses what it does not know below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum SectionId {
    /// Under the checksums of its chunks and clocks, not of its own.
    Data = 1,
    Meta = 2,
    Labels = 3,
    Postings = 4,
    Clocks = 5,
    Series = 6,
}

pub(super) const SECTIONS: [SectionId; 6] = [
    SectionId::Data,
    SectionId::Meta,
    SectionId::Labels,
    SectionId::Postings,
    SectionId::Clocks,
    SectionId::Series,
];

const OPTIONAL_IDS: u16 = 128;

/// One entry of the section table: 24 bytes.
///
/// ```text
/// offset  size  field
///      0     2  id
///      2     2  reserved  zero
///      4     4  crc32     of the section; 0 for data
///      8     8  offset    where the section before it ends
///     16     8  len
/// ```
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    pub(super) id: u16,
    pub(super) crc: u32,
    pub(super) offset: u64,
    pub(super) len: u64,
}

const SECTION_LEN: usize = 24;

/// The last 16 bytes of the file.
///
/// ```text
/// offset  size  field
///      0     4  sections  how many; their table stands before the footer
///      4     4  reserved  zero
///      8     4  crc32     over the table and bytes 0..8
///     12     4  magic     "KBWT"
/// ```
const FOOTER_LEN: usize = 16;
const END_MAGIC: [u8; 4] = *b"KBWT";

/// More would be a newer format.
const SECTIONS_MAX: usize = 64;

pub(super) fn encode_table(sections: &[Section], out: &mut Vec<u8>) {
    let start = out.len();
    for section in sections {
        out.extend_from_slice(&u32::from(section.id).to_le_bytes());
        out.extend_from_slice(&section.crc.to_le_bytes());
        out.extend_from_slice(&section.offset.to_le_bytes());
        out.extend_from_slice(&section.len.to_le_bytes());
    }
    out.extend_from_slice(&(sections.len() as u64).to_le_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&END_MAGIC);
}

/// The table at the end of a file of which `tail` is all from `tail_at` on, checked: sections lie behind one
/// another from the header to the table, the known ones in their order.
pub(super) fn decode_table(tail: &[u8], tail_at: u64) -> Result<Vec<Section>, &'static str> {
    let footer_at = tail.len().checked_sub(FOOTER_LEN).ok_or("no footer")?;
    let footer = &tail[footer_at..];
    if footer[12..] != END_MAGIC {
        return Err("the file is cut short: no footer");
    }
    let count = u64::from_le_bytes(footer[..8].try_into().expect("eight bytes"));
    let count =
        usize::try_from(count).ok().filter(|count| *count <= SECTIONS_MAX).ok_or("too many sections")?;
    let table_at = footer_at.checked_sub(count * SECTION_LEN).ok_or("the section table is cut short")?;
    if footer[8..12] != crc32fast::hash(&tail[table_at..footer_at + 8]).to_le_bytes() {
        return Err("the section table's checksum does not hold");
    }
    let sections: Vec<Section> = tail[table_at..footer_at].as_chunks().0.iter().map(decode_section).collect();
    let table_at = tail_at + table_at as u64;
    let mut at = HEADER_LEN as u64;
    for section in &sections {
        let end = section.offset.checked_add(section.len).ok_or("a section is longer than the file")?;
        if section.offset != at || end > table_at {
            return Err("a section lies elsewhere than the one before it ends");
        }
        at = end;
    }
    let known = sections.iter().filter(|section| section.id < OPTIONAL_IDS).map(|section| section.id);
    if at != table_at || !known.eq(SECTIONS.iter().map(|id| *id as u16)) {
        return Err("the sections are not those of a block");
    }
    Ok(sections)
}

fn decode_section(bytes: &[u8; SECTION_LEN]) -> Section {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    // An id above 16 bits is none of ours: it saturates to one that is optional and unknown.
    let id = u16::try_from(word(0)).unwrap_or(u16::MAX);
    Section { id, crc: word(4), offset: long(8), len: long(16) }
}

/// The checksum in the footer at the end of a file, which [`decode_table`] has checked.
pub(super) fn table_crc(tail: &[u8]) -> u32 {
    let footer = tail.last_chunk::<FOOTER_LEN>().expect("a whole file has a footer");
    u32::from_le_bytes([footer[8], footer[9], footer[10], footer[11]])
}

/// Makes the checksums of a file hold again after it was changed, those of chunks and clocks
/// excepted: tests and fuzzers look behind them with it.
pub fn reseal(file: &mut [u8]) {
    let Some(footer_at) = file.len().checked_sub(FOOTER_LEN).filter(|at| *at >= HEADER_LEN) else { return };
    let crc = crc32fast::hash(&file[..12]);
    file[12..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    let count = u64::from_le_bytes(file[footer_at..footer_at + 8].try_into().expect("eight bytes"));
    let count = count.min(SECTIONS_MAX as u64) as usize;
    let table_at = footer_at.saturating_sub(count * SECTION_LEN).max(HEADER_LEN);
    for at in (table_at..footer_at).step_by(SECTION_LEN).filter(|at| at + SECTION_LEN <= footer_at) {
        let section = decode_section(file[at..at + SECTION_LEN].try_into().expect("as long as that"));
        let end = section.offset.saturating_add(section.len).min(table_at as u64);
        let bytes = &file[(section.offset.min(end) as usize)..end as usize];
        let crc = if section.id == SectionId::Data as u16 { 0 } else { crc32fast::hash(bytes) };
        file[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
    }
    let crc = crc32fast::hash(&file[table_at..footer_at + 8]);
    file[footer_at + 8..footer_at + 12].copy_from_slice(&crc.to_le_bytes());
}
