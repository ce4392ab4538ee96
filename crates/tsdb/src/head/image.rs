//! Images: the state of a shard, or of the directory of series, at a position of the log.
//!
//! A start loads images and replays only what the log has behind them. An image is one file:
//!
//! ```text
//! offset  size  field
//!      0     4  magic     "TWIM"
//!      4     2  version   1; 2 where a shard has sections of histograms
//!      6     1  kind      1 series, 2 shard
//!      7     1  shard     0 for series
//!      8     8  segment   the position in the log up to which the state goes
//!     16     8  offset
//!     24     8  floor     of the shard
//!     32     8  bar       of the shard
//!     40     4  next id   of the series
//!     44     4  sections
//!     48    12  reserved  zero
//!     60     4  crc32     over bytes 0..60
//!     64     …  sections, each: length u32, crc32 of the body u32, body
//! ```
//!
//! A section of series is the body of a definitions frame (see `log`) and stands for up to 1,024
//! ids. A shard begins with a section of its clocks: how many, then of each its number, how many
//! rows, and the rows as differences (zigzag varints). A section for each page follows:
//!
//! ```text
//! page    varint
//! series  varint, how many; of each:
//!   slot    varint, within the page
//!   chunks  varint, how many; from old to new: clock varint, first row u8, count u8,
//!           length varint, column
//!   open    count u8; unless 0: clock varint, first row u8, repeating u8, exponent u8, newest
//!           value u64, length varint, tokens (see `cells`)
//!   late    varint, how many; of each: timestamp i64, bits u64
//! ```
//!
//! Then, for each page that has native histograms or start timestamps, a section of these:
//!
//! ```text
//! page    varint, 2^32 more than its number
//! series  varint, how many; of each:
//!   slot    varint, within the page
//!   sealed  varint, how many runs; from old to new: kind u8, count varint, length of the column of
//!           timestamps varint, length varint, columns of timestamps and of histograms
//!   open    varint, how many rows; unless 0: layout (u8: 0 none, 1 of integers, 2 of floats, then
//!           see `rows`), timestamps as differences (zigzag varints), length varint, rows
//!   late    varint, how many; of each: timestamp i64, histogram (see `rows`)
//!   starts  varint, how many steps; of each: from i64, start i64
//! ```
//!
//! A section of what is deleted, and one of what is deleted of histograms, where something is: see
//! `deleted`.
//!
//! Damage costs the section that it is in. The columns of sealed runs are not copied out of the
//! file again: once it is there they are read from it, and the heap is rid of them.

use std::ops::Range;

use bytes::Bytes;
use tidewatch_model::Sample;

use super::cells::{NONE, RunState};
use super::deleted::{DELETED_PAGE, write_deleted};
use super::histograms::{HistogramSeries, OpenRun, SealedRun};
use super::registry::{Registry, SeriesId};
use super::sealed::{ChunkBytes, NewChunk, check_readable};
use super::shard::{Open, Shard};
use super::starts::Step;
use super::{PAGE_SERIES, SHARDS};
use crate::log::{FrameError, Reader, push_text, push_varint, unzigzag, write_definitions, zigzag};
use crate::rows::{RowLayout, push_alone, read_alone};

pub(crate) const HEADER_LEN: usize = 64;
const MAGIC: [u8; 4] = *b"TWIM";
/// The newest that this release reads; what an older one can read is written as version 1.
pub(crate) const VERSION: u16 = 2;

/// Added to the number of a page, or to [`DELETED_PAGE`], in a section of histograms.
const HISTOGRAMS: u64 = 1 << 32;

/// What an image is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageKind {
    Series,
    Shard(usize),
}

/// The fields of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageHeader {
    pub(crate) version: u16,
    pub(crate) kind: ImageKind,
    /// Segment and offset in the log.
    pub(crate) position: (u64, u64),
    pub(crate) floor: i64,
    pub(crate) bar: i64,
    pub(crate) next_id: u32,
    pub(crate) sections: u32,
}

/// Why an image is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("the header is damaged")]
    Header,
    #[error("version {0} of the image's format is newer than this release reads")]
    Version(u16),
}

impl ImageHeader {
    fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&self.version.to_le_bytes());
        (bytes[6], bytes[7]) = match self.kind {
            ImageKind::Series => (1, 0),
            ImageKind::Shard(shard) => (2, shard as u8),
        };
        bytes[8..16].copy_from_slice(&self.position.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.position.1.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.floor.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.bar.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.next_id.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.sections.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<ImageHeader, ImageError> {
        let bytes = bytes.first_chunk::<HEADER_LEN>().ok_or(ImageError::Header)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[..4] != MAGIC || half(60) != crc32fast::hash(&bytes[..60]) {
            return Err(ImageError::Header);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if !(1..=VERSION).contains(&version) {
            return Err(ImageError::Version(version));
        }
        let kind = match (bytes[6], usize::from(bytes[7])) {
            (1, 0) => ImageKind::Series,
            (2, shard) if shard < SHARDS => ImageKind::Shard(shard),
            _ => return Err(ImageError::Header),
        };
        if bytes[48..60] != [0; 12] || word(16) >= 1 << 32 {
            return Err(ImageError::Header);
        }
        let (position, floor, bar) = ((word(8), word(16)), word(24) as i64, word(32) as i64);
        Ok(ImageHeader { version, kind, position, floor, bar, next_id: half(40), sections: half(44) })
    }
}

/// An image on its way to a file.
struct ImageWriter {
    bytes: Vec<u8>,
    header: ImageHeader,
}

impl ImageWriter {
    fn new(header: ImageHeader) -> ImageWriter {
        ImageWriter { bytes: vec![0; HEADER_LEN], header }
    }

    fn section(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 8]);
        write(&mut self.bytes);
        let (frame, body) = self.bytes[start..].split_at_mut(8);
        let len = u32::try_from(body.len()).expect("a section is below 4 GiB");
        frame[..4].copy_from_slice(&len.to_le_bytes());
        frame[4..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        self.header.sections += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[..HEADER_LEN].copy_from_slice(&self.header.encode());
        self.bytes
    }
}

/// Reads bytes as sections of a shard, as if their checksums held: for tests of bytes that may be
/// anything. The first byte says how many are of the section of clocks.
pub fn walk(bytes: &[u8]) {
    let Some((clocks_len, rest)) = bytes.split_first() else { return };
    let (clocks, page) = rest.split_at(usize::from(*clocks_len).min(rest.len()));
    let mut shard = Shard::default();
    let bytes = Bytes::copy_from_slice(page);
    let number = shard.sealed.add_page(bytes.clone());
    if let Ok(known) = shard.clocks.read(Reader { bytes: clocks }) {
        let place = PageBytes { file: &bytes, start: 0, page: number };
        let _ = shard.read_page(0, Reader { bytes: &bytes }, &place, &known);
    }
}

/// Walks the good sections of an image, as ranges of its bytes; names the damaged ones.
pub(crate) fn sections(
    bytes: &[u8],
    header: &ImageHeader,
    mut visit: impl FnMut(Range<usize>) -> Result<(), FrameError>,
    mut damage: impl FnMut(u64, &str),
) {
    let mut at = HEADER_LEN;
    for _ in 0..header.sections {
        let Some(frame) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else {
            return damage(at as u64, "the image is cut short");
        };
        let len = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
        let crc = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
        let body = at + 8..(at + 8).saturating_add(len);
        match bytes.get(body.clone()) {
            None => return damage(at as u64, "a section of the image is longer than the file"),
            Some(content) if crc32fast::hash(content) != crc => {
                damage(at as u64, "a section of the image is damaged");
            }
            Some(_) => {
                if visit(body.clone()).is_err() {
                    damage(at as u64, "a section of the image is malformed");
                }
            }
        }
        at = body.end;
    }
}

impl Registry {
    /// The image of all living series, at a position in the log.
    pub(crate) fn to_image(&self, position: (u64, u64)) -> Vec<u8> {
        let next_id = self.next_id().0;
        let kind = ImageKind::Series;
        let mut image = ImageWriter::new(ImageHeader {
            version: 1,
            kind,
            position,
            floor: 0,
            bar: 0,
            next_id,
            sections: 0,
        });
        let mut frame = Vec::new();
        for page in (0..next_id).step_by(PAGE_SERIES as usize) {
            let mut id = page;
            let end = (page + PAGE_SERIES).min(next_id);
            while id < end {
                // A definitions frame names consecutive ids: one for each stretch of living series.
                let until = (id..end).find(|id| !self.is_alive(SeriesId(*id))).unwrap_or(end);
                if until > id {
                    let series = (id..until).map(|id| self.labels(SeriesId(id)));
                    write_definitions(SeriesId(id), &self.pairs, series, &mut frame);
                    image.section(|out| out.extend_from_slice(&frame));
                }
                id = until + 1;
            }
        }
        image.finish()
    }
}

/// Where a chunk stands in an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) chunk: u32,
    pub(crate) offset: u32,
}

/// Where a sealed run of histograms stands in an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacedRun {
    id: SeriesId,
    /// Among the series' runs.
    run: usize,
    offset: usize,
}

/// Where the columns of a shard stand in its image.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) chunks: Vec<Placed>,
    pub(crate) runs: Vec<PlacedRun>,
}

impl Places {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.runs.is_empty()
    }
}

impl Shard {
    /// Columns stand in a file now: they are read from there, and the heap is rid of them.
    pub(crate) fn relocate(&mut self, file: Bytes, places: &Places) {
        for PlacedRun { id, run, offset } in &places.runs {
            let series = self.histograms.get_mut(id).and_then(|series| series.sealed.get_mut(*run));
            let run = series.expect("runs go in cuts alone, which no image is written beside");
            run.bytes = file.slice(*offset..*offset + run.bytes.len());
            run.is_mapped = true;
        }
        if !places.chunks.is_empty() {
            self.sealed.relocate(file, &places.chunks);
        }
    }

    /// Whether all that an image would copy can be read. Ask after copying.
    pub(crate) fn check_readable(&self) -> Result<(), String> {
        self.sealed.check_readable()?;
        let runs = self.histograms.values().flat_map(|series| &series.sealed);
        runs.filter(|run| run.is_mapped).try_for_each(|run| check_readable(&run.bytes))
    }

    /// The image of the shard at a position in the log, and where its columns stand in it.
    pub(crate) fn to_image(&self, shard: usize, position: (u64, u64)) -> (Vec<u8>, Places) {
        let kind = ImageKind::Shard(shard);
        let header = ImageHeader {
            version: 1,
            kind,
            position,
            floor: self.floor,
            bar: self.bar(),
            next_id: 0,
            sections: 0,
        };
        let mut image = ImageWriter::new(header);
        let mut places = Places::default();
        image.section(|out| self.clocks.write(out));
        for page in 0..self.page_count() {
            let used: Vec<(usize, &Open)> = self.used_of_page(page).collect();
            if used.is_empty() {
                continue;
            }
            image.section(|out| {
                push_varint(page as u64, out);
                push_varint(used.len() as u64, out);
                for (slot, open) in used {
                    push_varint(slot as u64, out);
                    self.write_series(Shard::id_of(shard, page, slot), open, &mut places.chunks, out);
                }
            });
        }
        if !self.deleted.is_empty() {
            image.section(|out| {
                push_varint(DELETED_PAGE, out);
                write_deleted(self.deleted.iter().map(|(id, deleted)| (*id, deleted)).collect(), out);
            });
        }
        self.write_special_pages(shard, &mut image, &mut places.runs);
        let deleted = self.deleted_histograms();
        if !deleted.is_empty() {
            image.section(|out| {
                push_varint(HISTOGRAMS + DELETED_PAGE, out);
                write_deleted(deleted, out);
            });
        }
        (image.finish(), places)
    }

    /// Sections of histograms and start timestamps.
    fn write_special_pages(&self, shard: usize, image: &mut ImageWriter, placed: &mut Vec<PlacedRun>) {
        let mut ids: Vec<SeriesId> = self.histograms.keys().chain(self.starts.keys()).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let page_of = |id: &SeriesId| u64::from(id.0 / PAGE_SERIES) / SHARDS as u64;
        debug_assert!(ids.iter().all(|id| Shard::of(*id) == shard), "a shard has series of its own");
        for ids in ids.chunk_by(|a, b| page_of(a) == page_of(b)) {
            image.header.version = 2;
            image.section(|out| {
                push_varint(HISTOGRAMS + page_of(&ids[0]), out);
                push_varint(ids.len() as u64, out);
                for id in ids {
                    push_varint(u64::from(id.0 % PAGE_SERIES), out);
                    self.write_special(*id, placed, out);
                }
            });
        }
    }

    fn write_special(&self, id: SeriesId, placed: &mut Vec<PlacedRun>, out: &mut Vec<u8>) {
        let none = HistogramSeries::default();
        let series = self.histograms.get(&id).unwrap_or(&none);
        push_varint(series.sealed.len() as u64, out);
        for (at, run) in series.sealed.iter().enumerate() {
            out.push(run.kind as u8);
            push_varint(u64::from(run.count), out);
            push_varint(u64::from(run.times_len), out);
            push_text(&run.bytes, out);
            placed.push(PlacedRun { id, run: at, offset: out.len() - run.bytes.len() });
        }
        push_varint(series.open.times.len() as u64, out);
        if !series.open.times.is_empty() {
            match series.open.layout() {
                None => out.push(0),
                Some(layout) => {
                    out.push(1 + u8::from(layout.is_float));
                    layout.write(out);
                }
            }
            write_rows(&series.open.times, out);
            push_text(&series.open.rows, out);
        }
        push_varint(series.late.len() as u64, out);
        for (timestamp, histogram) in &series.late {
            out.extend_from_slice(&timestamp.to_le_bytes());
            push_alone(histogram, out);
        }
        let steps = self.starts.get(&id).map_or(&[][..], |starts| starts.steps());
        push_varint(steps.len() as u64, out);
        for Step { from, start } in steps {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&start.to_le_bytes());
        }
    }

    fn write_series(&self, id: SeriesId, open: &Open, placed: &mut Vec<Placed>, out: &mut Vec<u8>) {
        let mut chunks = Vec::new();
        let mut at = open.chunk;
        while at != NONE {
            chunks.push(at);
            at = self.sealed.get(at).older;
        }
        push_varint(chunks.len() as u64, out);
        for number in chunks.into_iter().rev() {
            let chunk = self.sealed.get(number);
            push_varint(u64::from(chunk.clock), out);
            out.extend_from_slice(&[chunk.first_row, chunk.count]);
            match self.sealed.bytes(chunk) {
                ChunkBytes::Shared(bytes) => push_text(&bytes, out),
                ChunkBytes::Filling(bytes) => push_text(bytes, out),
            }
            placed.push(Placed { chunk: number, offset: (out.len() - usize::from(chunk.len)) as u32 });
        }
        out.push(if open.clock == NONE { 0 } else { open.count });
        if open.clock != NONE {
            push_varint(u64::from(open.clock), out);
            let RunState { value, repeating, exponent } = open.tail.state();
            out.extend_from_slice(&[open.first_row, u8::from(repeating), exponent]);
            out.extend_from_slice(&value.to_le_bytes());
            let mut tokens = Vec::new();
            self.cells.copy_tokens(&open.tail, &mut tokens);
            push_text(&tokens, out);
        }
        let late = if open.has_late { self.late.get(&id).map_or(&[][..], Vec::as_slice) } else { &[] };
        push_varint(late.len() as u64, out);
        for sample in late {
            out.extend_from_slice(&sample.timestamp.to_le_bytes());
            out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        }
    }

    /// Reads the sections of an image into an empty shard. `damage` gets the offsets of those
    /// that can not be read, and why.
    pub(crate) fn load_image(
        &mut self,
        shard: usize,
        header: &ImageHeader,
        file: &Bytes,
        damage: impl FnMut(u64, &str),
    ) {
        let page_bytes = self.sealed.add_page(file.clone());
        let mut clocks = None;
        let visit = |range: Range<usize>| {
            let body = Reader { bytes: &file[range.clone()] };
            match &clocks {
                None => {
                    clocks = Some(self.clocks.read(body)?);
                    Ok(())
                }
                Some(known) => {
                    let place = PageBytes { file, start: range.start, page: page_bytes };
                    self.read_page(shard, body, &place, known)
                }
            }
        };
        sections(file, header, visit, damage);
        self.sealed.free_if_unused(page_bytes);
        self.clocks.release_unused();
        self.restore_bounds(header.floor, header.bar);
    }

    fn read_page(
        &mut self,
        shard: usize,
        mut body: Reader<'_>,
        place: &PageBytes<'_>,
        clocks: &ClockNumbers,
    ) -> Result<(), FrameError> {
        let len = body.bytes.len();
        let number = body.varint()?;
        let page = number % HISTOGRAMS;
        if page == DELETED_PAGE && number < 2 * HISTOGRAMS {
            return self.read_deleted(shard, number >= HISTOGRAMS, body);
        }
        let count = body.varint()?;
        let pages = u64::from(u32::MAX / PAGE_SERIES) / SHARDS as u64;
        if page > pages || number >= 2 * HISTOGRAMS || count > u64::from(PAGE_SERIES) {
            return Err(FrameError::Malformed);
        }
        if number >= HISTOGRAMS {
            return self.read_special_page(shard, page as usize, count, body, place);
        }
        for _ in 0..count {
            let slot = body.varint()?;
            if slot >= u64::from(PAGE_SERIES) {
                return Err(FrameError::Malformed);
            }
            let id = Shard::id_of(shard, page as usize, slot as usize);
            for _ in 0..body.varint()? {
                let clock = clocks.get(body.varint()?)?;
                let [first_row, count] = body.array()?;
                let column = body.text()?;
                let offset = place.start + len - body.bytes.len() - column.len();
                self.restore_chunk(
                    id,
                    NewChunk { clock, first_row, count, page: place.page, offset, len: column.len() },
                )?;
            }
            let count = body.byte()?;
            if count > 0 {
                let clock = clocks.get(body.varint()?)?;
                let [first_row, repeating, exponent] = body.array()?;
                let value = u64::from_le_bytes(body.array()?);
                let state = RunState { value, repeating: repeating != 0, exponent };
                self.restore_open(id, clock, (first_row, count), body.text()?, state)?;
            }
            let late = body.varint()?;
            for _ in 0..late {
                let timestamp = i64::from_le_bytes(body.array()?);
                let value = f64::from_bits(u64::from_le_bytes(body.array()?));
                self.restore_late(id, Sample { timestamp, value });
            }
        }
        Ok(())
    }
}

/// Where the bytes of a section lie.
struct PageBytes<'a> {
    file: &'a Bytes,
    /// Of the section's body in the file.
    start: usize,
    /// The number of the file among the pages of sealed runs.
    page: u32,
}

impl Shard {
    fn read_special_page(
        &mut self,
        shard: usize,
        page: usize,
        count: u64,
        mut body: Reader<'_>,
        place: &PageBytes<'_>,
    ) -> Result<(), FrameError> {
        for _ in 0..count {
            let slot = body.varint()?;
            if slot >= u64::from(PAGE_SERIES) {
                return Err(FrameError::Malformed);
            }
            let id = Shard::id_of(shard, page, slot as usize);
            let mut series = HistogramSeries::default();
            for _ in 0..body.varint()? {
                series.sealed.push(read_sealed(&mut body, place, series.newest())?);
            }
            let rows = body.varint()?;
            if rows > 0 {
                series.open = read_open(&mut body, rows, series.newest())?;
            }
            let mut newest_late = None;
            for _ in 0..body.varint()? {
                let timestamp = i64::from_le_bytes(body.array()?);
                if newest_late.replace(timestamp).is_some_and(|before| before >= timestamp) {
                    return Err(FrameError::Malformed);
                }
                series.late.push((timestamp, read_alone(&mut body)?));
            }
            for _ in 0..body.varint()? {
                let (from, start) = (i64::from_le_bytes(body.array()?), i64::from_le_bytes(body.array()?));
                self.restore_step(id, Step { from, start });
            }
            self.restore_histograms(id, series);
        }
        Ok(())
    }
}

fn read_sealed(
    body: &mut Reader<'_>,
    place: &PageBytes<'_>,
    after: Option<i64>,
) -> Result<SealedRun, FrameError> {
    let kind = tidewatch_chunk::SampleKind::of(body.byte()?).ok_or(FrameError::Malformed)?;
    let count = body.varint()?;
    let times_len = body.varint()?;
    let columns = body.text()?;
    let mut times = Vec::new();
    let column = usize::try_from(times_len).ok().and_then(|len| columns.get(..len));
    let column = column.ok_or(FrameError::Malformed)?;
    let is_run = count > 0 && count <= super::clock::ROWS_MAX as u64;
    if !is_run || tidewatch_chunk::decode_times(column, count as usize, &mut times).is_err() {
        return Err(FrameError::Malformed);
    }
    let ascend = times.is_sorted_by(|a, b| a < b) && after.is_none_or(|after| after < times[0]);
    if !ascend {
        return Err(FrameError::Malformed);
    }
    Ok(SealedRun {
        first: times[0],
        last: times[times.len() - 1],
        count: count as u32,
        kind,
        times_len: times_len as u32,
        bytes: place.file.slice_ref(columns),
        is_mapped: true,
    })
}

fn read_open(body: &mut Reader<'_>, rows: u64, after: Option<i64>) -> Result<OpenRun, FrameError> {
    if rows > super::clock::ROWS_MAX as u64 {
        return Err(FrameError::Malformed);
    }
    let layout = match body.byte()? {
        0 => None,
        kind @ 1..=2 => Some(RowLayout::read(kind == 2, body)?),
        _ => return Err(FrameError::Malformed),
    };
    let times = read_rows(body, rows)?;
    if after.is_some_and(|after| after >= times[0]) {
        return Err(FrameError::Malformed);
    }
    OpenRun::restore(times, layout.as_ref(), body.text()?)
}

/// Timestamps as differences.
fn write_rows(rows: &[i64], out: &mut Vec<u8>) {
    let mut previous = 0;
    for row in rows {
        push_varint(zigzag(row.wrapping_sub(previous)), out);
        previous = *row;
    }
}

/// What [`write_rows`] wrote; ascending.
fn read_rows(body: &mut Reader<'_>, count: u64) -> Result<Vec<i64>, FrameError> {
    let mut rows = Vec::with_capacity(count as usize);
    let mut previous = 0i64;
    for at in 0..count {
        let row = previous.wrapping_add(unzigzag(body.varint()?));
        if at > 0 && row <= previous {
            return Err(FrameError::Malformed);
        }
        rows.push(row);
        previous = row;
    }
    Ok(rows)
}

/// From the numbers of clocks in an image to those in the shard.
#[derive(Debug, Default)]
pub(crate) struct ClockNumbers {
    numbers: hashbrown::HashMap<u64, u32>,
}

impl ClockNumbers {
    fn get(&self, number: u64) -> Result<u32, FrameError> {
        self.numbers.get(&number).copied().ok_or(FrameError::Malformed)
    }
}

impl super::clock::Clocks {
    fn write(&self, out: &mut Vec<u8>) {
        push_varint(self.count() as u64, out);
        for (number, rows) in self.living() {
            push_varint(u64::from(number), out);
            push_varint(rows.len() as u64, out);
            write_rows(rows, out);
        }
    }

    fn read(&mut self, mut body: Reader<'_>) -> Result<ClockNumbers, FrameError> {
        let mut known = ClockNumbers::default();
        for _ in 0..body.varint()? {
            let number = body.varint()?;
            let count = body.varint()?;
            if count == 0 || count > super::clock::ROWS_MAX as u64 {
                return Err(FrameError::Malformed);
            }
            let rows = read_rows(&mut body, count)?;
            known.numbers.insert(number, self.restore(rows));
        }
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_a_shard_is_frozen() {
        let mut shard = Shard::default();
        let id = Shard::id_of(2, 0, 5);
        for (timestamp, value) in [(1000, 1.0), (1015, 2.0), (1003, 0.5)] {
            shard.take(id, Sample { timestamp, value }, i64::MAX);
        }
        let (bytes, placed) = shard.to_image(2, (3, 4));
        assert!(placed.is_empty());
        let header = ImageHeader::decode(&bytes).expect("whole");
        let expected = ImageHeader {
            version: 1,
            kind: ImageKind::Shard(2),
            position: (3, 4),
            floor: i64::MIN,
            bar: i64::MIN,
            next_id: 0,
            sections: 2,
        };
        assert_eq!(header, expected);
        assert_eq!(bytes[..12], [b'T', b'W', b'I', b'M', 1, 0, 2, 2, 3, 0, 0, 0]);
        let clocks = [1, 0, 2, 0xd0, 0x0f, 30];
        assert_eq!(bytes[64..68], [6, 0, 0, 0]);
        assert_eq!(bytes[72..78], clocks);
        let mut page = vec![0, 1, 5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x40, 2, 0x42, 0x42];
        page.extend([1, 0xeb, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]);
        assert_eq!(bytes[86..], page, "{:02x?}", &bytes[86..]);
    }

    #[test]
    fn a_section_of_histograms_is_frozen() {
        use tidewatch_model::NativeHistogram;
        use tidewatch_model::histogram::{Histogram, Span};
        let mut shard = Shard::default();
        let id = Shard::id_of(2, 0, 5);
        let histogram = NativeHistogram::Integer(Histogram {
            schema: 1,
            count: 6,
            sum: 1.0,
            positive_spans: vec![Span { offset: -1, length: 2 }],
            positive_deltas: vec![2, 2],
            ..Histogram::default()
        });
        for timestamp in [1000, 900] {
            shard.take_histogram(id, timestamp, &histogram, i64::MAX);
        }
        shard.set_start(id, 1000, 990);
        let (bytes, _) = shard.to_image(2, (3, 4));
        let header = ImageHeader::decode(&bytes).expect("whole");
        assert_eq!((header.version, header.sections), (2, 3));
        let layout = [2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0];
        let row = [0, 0xbf, 0xe0, 0x03, 12, 0, 4, 4];
        let parts: [&[u8]; 12] = [
            &[0x80, 0x80, 0x80, 0x80, 0x10, 1, 5, 0], // page, series, slot, sealed
            &[1, 1],                                  // open: rows, integers
            &layout,
            &[0xd0, 0x0f, 8], // timestamp, length
            &row,
            &[1, 0x84, 3, 0, 0, 0, 0, 0, 0, 1], // late: how many, timestamp, integers
            &layout,
            &row,
            &[1], // steps
            &[0xe8, 3, 0, 0, 0, 0, 0, 0],
            &[0xde, 3, 0, 0, 0, 0, 0, 0],
            &[],
        ];
        assert_eq!(bytes[95..], parts.concat(), "{:02x?}", &bytes[64..]);
        let mut again = Shard::default();
        let file = Bytes::from(bytes.clone());
        again.load_image(2, &header, &file, |offset, reason| panic!("{reason} at {offset}"));
        assert_eq!(again.to_image(2, (3, 4)).0, bytes);
    }

    #[test]
    fn what_stands_in_an_image_comes_back_and_goes_on() {
        let mut shard = Shard::default();
        let sample = |at: i64| Sample { timestamp: at * 15_000, value: (at % 7) as f64 };
        let ids: Vec<SeriesId> = (0..50).map(|slot| Shard::id_of(0, slot / 20, slot % 20)).collect();
        let fill = |shard: &mut Shard, range: Range<i64>| {
            for at in range {
                ids.iter().for_each(|id| {
                    assert_eq!(shard.take(*id, sample(at), 0), super::super::shard::Verdict::Taken)
                });
            }
        };
        fill(&mut shard, 0..300);
        let (bytes, placed) = shard.to_image(0, (1, 1));
        shard.relocate(Bytes::from(bytes.clone()), &placed);
        let mut again = Shard::default();
        let header = ImageHeader::decode(&bytes).expect("whole");
        again.load_image(0, &header, &Bytes::from(bytes), |offset, reason| panic!("{reason} at {offset}"));
        fill(&mut shard, 300..500);
        fill(&mut again, 300..500);
        assert_eq!((shard.samples, shard.oldest, shard.newest), (again.samples, again.oldest, again.newest));
        // Numbers of clocks may differ; all else is the same, byte for byte.
        assert_eq!(shard.to_image(0, (2, 2)).0.len(), again.to_image(0, (2, 2)).0.len());
    }
}
