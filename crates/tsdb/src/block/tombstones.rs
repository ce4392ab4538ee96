//! Tombstones: what of a block is deleted, in a file beside it.
//!
//! ```text
//! Db::delete ─► Block::deletion ─► 00000017.tombstones ─► Block, read through them
//!                                        └──► compaction leaves out what they hide
//! ```
//!
//! A block never changes, so a deletion is noted: `00000017.tombstones` beside `00000017.block`. The file is this twice
//! over: a changed bit brings back nothing that was deleted.
//!
//! ```text
//! offset  size  field
//!      0     4  magic     "TWTS"
//!      4     2  version   2; 1, which is read, stands there once
//!      6     2  reserved  zero
//!      8     8  id        of the block
//!     16     8  size      of the block's file
//!     24     4  crc32     of the block's section table
//!     28     4  series    how many
//!     32     …  of each: its number as distance to the one before (varint; the first: itself), how
//!               many stretches (varint), of each the distance from the end of the one before
//!               (zigzag varint; the first: from the block's start) and its length in ms (varint)
//!    end     4  crc32     over everything before
//! ```
//!
//! Invariants: a file is replaced as a whole and durable before a deletion is acknowledged; it
//! names the very file that it is about, so that it never hides samples of another; each
//! stretch lies within what its series has in the block.
//!
//! Not here: samples that are not in blocks (`head::deleted`), and when blocks are rewritten (`jobs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use roaring::RoaringBitmap;
use tidewatch_model::Matcher;
use tidewatch_storage::{Latest, Scratch, TimeRange};

use super::error::{BlockError, Damage};
use super::format::{BlockId, block_path, parse_block_name};
use super::read::Block;
use super::scan::Cursor;
use super::series::Record;
use crate::fields::{unzigzag, zigzag};
use crate::intervals::Intervals;
use crate::wire::{put_varint, take_u32, take_varint};

/// Where the tombstones of a block lie: `00000017.tombstones`.
pub fn tombstones_path(dir: &Path, id: BlockId) -> PathBuf {
    block_path(dir, id).with_extension("tombstones")
}

/// The id in the name of a file of tombstones; `None` for other files.
pub fn parse_tombstones_name(path: &Path) -> Option<BlockId> {
    let is_one = path.extension().is_some_and(|extension| extension == "tombstones");
    is_one.then(|| parse_block_name(&path.with_extension("block"))).flatten()
}

/// What is deleted of a block's series, by their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tombstones {
    series: BTreeMap<u32, Intervals>,
    /// Series of which nothing is left.
    gone: RoaringBitmap,
}

/// Why a file of tombstones is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TombstonesError {
    #[error("{0}")]
    Damaged(&'static str),
    #[error("the tombstones have version {found}; this release reads up to {newest}")]
    Version { found: u16, newest: u16 },
}

/// What is said of a file with one copy that is whole.
pub(crate) const TOMBSTONES_FLAWED: &str =
    "one of the two copies of the tombstones is damaged; the other is whole";

const MAGIC: [u8; 4] = *b"TWTS";
const VERSION: u16 = 2;
const HEADER_LEN: usize = 32;
const CRC_LEN: usize = 4;

impl Tombstones {
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// How many series lack something.
    pub fn series_count(&self) -> u64 {
        self.series.len() as u64
    }

    pub(super) fn of(&self, series: u32) -> Option<&Intervals> {
        self.series.get(&series)
    }

    pub(super) fn gone(&self) -> &RoaringBitmap {
        &self.gone
    }

    /// The file's bytes.
    pub(crate) fn encode(&self, block: &Block) -> Vec<u8> {
        let meta = block.meta();
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&meta.id.0.to_le_bytes());
        out.extend_from_slice(&meta.size.to_le_bytes());
        out.extend_from_slice(&block.table_crc().to_le_bytes());
        out.extend_from_slice(&(self.series.len() as u32).to_le_bytes());
        let mut before = 0;
        for (series, intervals) in &self.series {
            put_varint(&mut out, u64::from(series - before));
            before = *series;
            put_varint(&mut out, intervals.iter().len() as u64);
            let mut end = meta.start_ms;
            for range in intervals.iter() {
                put_varint(&mut out, zigzag(range.start.wrapping_sub(end)));
                put_varint(&mut out, range.end.wrapping_sub(range.start) as u64);
                end = range.end;
            }
        }
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_within(..);
        out
    }

    /// A file about `block` with any body, its checksum made to hold: for tests that look behind it.
    pub fn file_of(block: &Block, body: &[u8]) -> Vec<u8> {
        let mut file = Tombstones::default().encode(block);
        // The header of the first copy.
        file.truncate(HEADER_LEN - 4);
        // The first bytes of the body stand where the number of series does.
        file.extend_from_slice(body);
        let crc = crc32fast::hash(&file);
        file.extend_from_slice(&crc.to_le_bytes());
        file
    }

    /// Reads a file that must be about `block`; says whether one of the two copies in it is damaged or gone.
    pub fn decode(bytes: &[u8], block: &Block) -> Result<(Tombstones, bool), TombstonesError> {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let (body, is_flawed) = match [first, second].map(check) {
            [Ok(body), other] | [other, Ok(body)] => (body, other != Ok(body)),
            // One copy, of version 1 or of what is left: cut off, or with something behind it.
            _ => match check(bytes).map_err(|error| first_copy(bytes).ok_or(error)) {
                Ok(body) => (body, version(body) == VERSION),
                Err(copy) => (check(copy?)?, true),
            },
        };
        Tombstones::decode_body(body, block).map(|tombstones| (tombstones, is_flawed))
    }

    fn decode_body(body: &[u8], block: &Block) -> Result<Tombstones, TombstonesError> {
        let damaged = TombstonesError::Damaged;
        match version(body) {
            1 | VERSION if body[6..8] == [0; 2] => {}
            1 | VERSION => return Err(damaged("the tombstones have reserved bytes that are not zero")),
            found => return Err(TombstonesError::Version { found, newest: VERSION }),
        }
        let meta = block.meta();
        let identity = [meta.id.0.to_le_bytes(), meta.size.to_le_bytes()].concat();
        let is_of_file = body[8..24] == identity && body[24..28] == block.table_crc().to_le_bytes();
        // Of a block that lacks series nothing tells any more what its file was like: its id does.
        let kept = block.kept().filter(|_| !is_of_file && body[8..16] == identity[..8]);
        if !is_of_file && kept.is_none() {
            return Err(damaged("the tombstones are of another file than the block beside them"));
        }
        let count = u32::from_le_bytes(body[28..32].try_into().expect("four bytes"));
        let number = |before: u32| kept.map_or(Some(before), |kept| kept.number(before));
        let series = read_series(&body[HEADER_LEN..], count, block, number)
            .ok_or(damaged("the tombstones contradict their block"))?;
        let mut tombstones = Tombstones { series, gone: RoaringBitmap::new() };
        tombstones.find_gone(block).map_err(|_| damaged("the tombstones contradict their block"))?;
        Ok(tombstones)
    }

    /// Notes the series of which nothing is left.
    fn find_gone(&mut self, block: &Block) -> Result<(), BlockError> {
        let mut record = Record::default();
        for (series, intervals) in &self.series {
            if block.extent(*series, &mut record)?.is_some_and(|extent| intervals.covers(extent)) {
                self.gone.insert(*series);
            }
        }
        Ok(())
    }
}

fn version(body: &[u8]) -> u16 {
    u16::from_le_bytes([body[4], body[5]])
}

/// A copy without its checksum, if that holds.
fn check(copy: &[u8]) -> Result<&[u8], TombstonesError> {
    let damaged = TombstonesError::Damaged;
    let body_len = copy
        .len()
        .checked_sub(CRC_LEN)
        .filter(|len| *len >= HEADER_LEN)
        .ok_or(damaged("the tombstones are cut short"))?;
    let (body, crc) = copy.split_at(body_len);
    if body[..4] != MAGIC {
        return Err(damaged("not a file of tombstones"));
    }
    if crc != crc32fast::hash(body).to_le_bytes() {
        return Err(damaged("the tombstones' checksum does not hold"));
    }
    Ok(body)
}

/// The copy that a file begins with, whatever it has behind it.
fn first_copy(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(HEADER_LEN..)?;
    let count = u32::from_le_bytes(bytes[HEADER_LEN - 4..HEADER_LEN].try_into().expect("four bytes"));
    for _ in 0..count {
        take_u32(&mut rest)?;
        for _ in 0..take_varint(&mut rest)? {
            take_varint(&mut rest)?;
            take_varint(&mut rest)?;
        }
    }
    bytes.get(..bytes.len() - rest.len() + CRC_LEN)
}

/// Reads the stretches of all series, under the numbers that these have now; those that the block lacks are left out.
fn read_series(
    mut input: &[u8],
    count: u32,
    block: &Block,
    number_now: impl Fn(u32) -> Option<u32>,
) -> Option<BTreeMap<u32, Intervals>> {
    let mut series = BTreeMap::new();
    let mut number = 0u32;
    for at in 0..count {
        let distance = take_u32(&mut input)?;
        number = number.checked_add(distance)?;
        if at > 0 && distance == 0 {
            return None;
        }
        let mut intervals = Intervals::default();
        let mut end = block.meta().start_ms;
        // A stretch takes at least two bytes, so the input bounds the count.
        for _ in 0..take_varint(&mut input)? {
            let start = end.wrapping_add(unzigzag(take_varint(&mut input)?));
            end = start.checked_add(i64::try_from(take_varint(&mut input)?).ok()?)?;
            // Of a block that lacks series the stretches of these may lie without.
            let within = block.meta().min_ms <= start && end <= block.meta().max_ms || block.lacks_series();
            let ascends = intervals.last_ms().is_none_or(|last| last < start.saturating_sub(1));
            if !within || !ascends || !intervals.add(TimeRange { start, end }) {
                return None;
            }
        }
        if intervals.is_empty() {
            return None;
        }
        if let Some(number) = number_now(number) {
            if number >= block.series_count() {
                return None;
            }
            series.insert(number, intervals);
        }
    }
    input.is_empty().then_some(series)
}

impl Block {
    pub fn tombstones(&self) -> &Tombstones {
        &self.tombstones
    }

    /// The tombstones with which the samples of all matching series in `range` are deleted;
    /// `None` where there are none, or were deleted before.
    pub(crate) fn deletion(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Option<Tombstones>, BlockError> {
        let mut tombstones = (*self.tombstones).clone();
        let mut changed = false;
        let mut record = Record::default();
        for series in &self.select(matchers)? {
            let Some(extent) = self.extent(series, &mut record)? else { continue };
            let start = range.start.max(extent.start);
            let end = range.end.min(extent.end);
            if start > end {
                continue;
            }
            changed |= tombstones.series.entry(series).or_default().add(TimeRange { start, end });
        }
        if !changed {
            return Ok(None);
        }
        tombstones.find_gone(self)?;
        Ok(Some(tombstones))
    }

    /// The tombstones with which damaged chunks are hidden as if they were deleted.
    pub(crate) fn hiding(&self, damage: &[Damage]) -> Result<Tombstones, BlockError> {
        let mut tombstones = (*self.tombstones).clone();
        for Damage { number, start_ms, end_ms, .. } in damage {
            let chunk = TimeRange { start: *start_ms, end: *end_ms };
            tombstones.series.entry(*number).or_default().add(chunk);
        }
        tombstones.find_gone(self)?;
        Ok(tombstones)
    }

    /// From the first to the last sample of a series, deleted or not; `None` where it has none. Ask
    /// in ascending order with one cursor.
    pub fn span(&self, cursor: &mut Cursor, series: u32) -> Result<Option<TimeRange>, BlockError> {
        self.extent(series, &mut cursor.record)
    }

    fn extent(&self, series: u32, record: &mut Record) -> Result<Option<TimeRange>, BlockError> {
        self.read_series(series, record)?;
        let clock = |number: u32| self.clocks.get(number).expect("checked when the record was read");
        let (Some(first), Some(last)) = (record.chunks.first(), record.chunks.last()) else {
            return Ok(None);
        };
        Ok(Some(TimeRange { start: clock(first.clock).first_ms, end: clock(last.clock).last_ms() }))
    }

    /// The newest sample of a series with `after < timestamp <= at` that is not deleted.
    pub fn latest(
        &self,
        cursor: &mut Cursor,
        series: u32,
        after: i64,
        mut at: i64,
        scratch: &mut Scratch,
    ) -> Result<Option<Latest>, BlockError> {
        let deleted = self.tombstones.of(series);
        loop {
            let found = self.latest_stored(cursor, series, after, at, scratch)?;
            let before = found.as_ref().and_then(|found| deleted?.skip_back(found.timestamp()));
            match before {
                Some(before) if before > after => at = before,
                Some(_) => return Ok(None),
                None => return Ok(found),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::ops::ControlFlow;
    use tidewatch_env::Env;
    use tidewatch_storage::{Run, RunValues};

    use super::super::tests::{START, options, sample_model, write};
    use super::*;

    fn block() -> (Env, Block) {
        let (env, dir) = (Env::in_memory(), Path::new("data"));
        env.disk.create_dir_all(dir).expect("memory");
        write(&env, dir, options(5), &sample_model(2, 300), 120).expect("memory takes all");
        let block = Block::open(&env, &block_path(dir, BlockId(5))).expect("just written");
        (env, block)
    }

    fn times(block: &Block, series: u32) -> Vec<i64> {
        let mut times = Vec::new();
        let mut collect = |run: Run<'_>| {
            let RunValues::Floats(values) = run.values else { panic!("only floats were written") };
            assert_eq!(values.len(), run.timestamps.len());
            times.extend_from_slice(run.timestamps);
            ControlFlow::Continue(())
        };
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        let (mut cursor, mut scratch) = (Cursor::default(), Scratch::default());
        let _ = block.scan(&mut cursor, series, all, &mut scratch, &mut collect).expect("whole");
        times
    }

    #[test]
    fn a_file_of_tombstones_is_frozen_and_every_changed_byte_of_it_is_found() {
        let (_, block) = block();
        let up = [Matcher::equal("__name__", "up"), Matcher::equal("instance", "host-0:9100")];
        let range = TimeRange { start: START + 1_000, end: START + 60_000 };
        let tombstones = block.deletion(&up, range).expect("whole").expect("there are samples");
        let file = tombstones.encode(&block);
        let number = block.select(&up).expect("whole").min().expect("one") as u8;
        let (file, second) = file.split_at(file.len() / 2);
        assert_eq!(file, second);
        assert_eq!(file[..16], [b'T', b'W', b'T', b'S', 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(file[28..32], [1, 0, 0, 0]);
        assert_eq!(file[32..file.len() - 4], [number, 1, 0xd0, 0x0f, 0xf8, 0xcc, 3]);
        let twice = [file, file].concat();
        assert_eq!(Tombstones::decode(&twice, &block), Ok((tombstones.clone(), false)));
        for at in 0..twice.len() {
            let mut damaged = twice.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Tombstones::decode(&damaged, &block), Ok((tombstones.clone(), true)), "byte {at}");
            damaged[(at + file.len()) % twice.len()] ^= 0x10;
            assert!(Tombstones::decode(&damaged, &block).is_err(), "byte {at} of both");
        }
        for len in 0..twice.len() {
            let found = Tombstones::decode(&twice[..len], &block);
            match len >= file.len() {
                true => {
                    assert_eq!(found, Ok((tombstones.clone(), true)), "of the second there are {len} bytes")
                }
                false => assert!(found.is_err(), "{len} bytes"),
            }
        }
        let of_version = |version| {
            let mut bytes = file[..file.len() - 4].to_vec();
            bytes[4] = version;
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
            Tombstones::decode(&bytes, &block)
        };
        // As earlier releases wrote it, and as later ones may.
        assert_eq!(of_version(1), Ok((tombstones, false)));
        assert_eq!(of_version(3), Err(TombstonesError::Version { found: 3, newest: 2 }));
    }

    #[test]
    fn what_is_deleted_is_neither_scanned_nor_the_latest_nor_selected() {
        let (_, block) = block();
        let name = |name| [Matcher::equal("__name__", name)];
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        let part = TimeRange { start: START + 600_000, end: i64::MAX };
        let mut block = block;
        for (name, range) in [(name("load1"), all), (name("up"), part)] {
            let tombstones = block.deletion(&name, range).expect("whole").expect("there are samples");
            block = block.with_tombstones(tombstones);
            assert_eq!(block.deletion(&name, range).expect("whole"), None, "deleted before");
        }
        assert!(block.select(&name("load1")).expect("whole").is_empty());
        let (mut cursor, mut scratch) = (Cursor::default(), Scratch::default());
        for series in &block.select(&name("up")).expect("whole") {
            let times = times(&block, series);
            assert!(times.len() > 30 && times.iter().all(|time| *time < part.start));
            let latest = block.latest(&mut cursor, series, i64::MIN, i64::MAX, &mut scratch).expect("whole");
            assert_eq!(latest.map(|latest| latest.timestamp()), times.last().copied());
            let none = block.latest(&mut cursor, series, part.start, i64::MAX, &mut scratch).expect("whole");
            assert!(none.is_none());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_bytes_make_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            let (_, block) = block();
            if let Ok((tombstones, _)) = Tombstones::decode(&Tombstones::file_of(&block, &body), &block) {
                let file = tombstones.encode(&block);
                prop_assert_eq!(Tombstones::decode(&file, &block), Ok((tombstones, false)));
            }
        }
    }
}
