//! From images back to a shard.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidewatch_model::Sample;

use super::sections::{Section, walk_sections};
use super::series::walk_series;
use super::{EXPONENT_BITS, HISTOGRAMS, ImageHeader, ImageKind, LATE_PIECE, REPEATING, page_of, sections};
use crate::fields::{Reader, unzigzag};
use crate::head::clock::ROWS_MAX;
use crate::head::deleted::DELETED_PAGE;
use crate::head::histograms::{HistogramSeries, OpenRun, SealedRun};
use crate::head::registry::SeriesId;
use crate::head::sealed::NewChunk;
use crate::head::shard::Shard;
use crate::head::shard::restore::OpenValues;
use crate::head::starts::Step;
use crate::head::tokens::NO_EXPONENT;
use crate::head::{PAGE_SERIES, SHARDS};
use crate::log::FrameError;
use crate::rows::{RowLayout, read_alone};

/// Reads bytes as sections of a shard, as if their checksums held: for tests of bytes that may be
/// anything. The first byte says how many are of the section of clocks, the second of which version
/// the other section is; it is read as one of series, too.
pub fn walk(bytes: &[u8]) {
    let Some(([clocks_len, version], rest)) = bytes.split_first_chunk() else { return };
    walk_series(rest);
    let (clocks, page) = rest.split_at(usize::from(*clocks_len).min(rest.len()));
    let mut shard = Shard::default();
    let bytes = Bytes::copy_from_slice(page);
    let number = shard.sealed.add_page(bytes.clone(), true);
    let version = u16::from(version % 3 + 1);
    let known = shard.clocks.read(version, Reader { bytes: clocks }).unwrap_or(ClockNumbers::lost());
    let header = ImageHeader {
        version,
        kind: ImageKind::Shard(0),
        position: (0, 0),
        floor: 0,
        bar: 0,
        next_id: 0,
        sections: 2,
        owner: 0,
    };
    walk_sections(rest, &header);
    let place = PageBytes { bytes: &bytes, page: number, is_mapped: true, version };
    let _ = shard.read_page(0, Reader { bytes: &bytes }, &place, &known);
}

/// The number of the section of the clocks.
const CLOCKS: u32 = 0;

/// What is whole of an image of a shard that lacks something.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    clocks: bool,
    /// The numbers that the sections begin with.
    pages: BTreeSet<u64>,
}

impl Remains {
    /// Whether nothing is lost of the floats that a series had.
    pub(crate) fn has_floats(&self, id: SeriesId) -> bool {
        self.clocks && self.pages.contains(&page_of(id))
    }

    /// Whether the histograms are there that it had, and when its counters started; not so where its page had none.
    pub(crate) fn has_histograms(&self, id: SeriesId) -> bool {
        self.pages.contains(&(HISTOGRAMS + page_of(id)))
    }
}

impl Shard {
    /// Reads the sections of an image into an empty shard. `damage` gets the offsets of those
    /// that can not be read, and why. Gives what is whole of one that lacks some.
    pub(crate) fn load_image(
        &mut self,
        shard: usize,
        header: &ImageHeader,
        file: &Bytes,
        damage: impl FnMut(u64, &str),
    ) -> Option<Remains> {
        let of_file = self.sealed.add_page(file.clone(), true);
        // Without them the pages still have late samples, and all else has times of its own.
        let mut clocks = ClockNumbers::lost();
        let mut remains = Remains::default();
        let visit = |Section { number, body, in_file, .. }: Section| {
            let reader = Reader { bytes: &body };
            let version = header.version;
            if number == CLOCKS {
                clocks = self.clocks.read(version, reader)?;
                remains.clocks = true;
                return Ok(());
            }
            let read = if in_file {
                let place = PageBytes { bytes: file, page: of_file, is_mapped: true, version };
                self.read_page(shard, reader, &place, &clocks)
            } else {
                // What was rebuilt is on the heap until the next image.
                let page = self.sealed.add_page(body.clone(), false);
                let place = PageBytes { bytes: &body, page, is_mapped: false, version };
                let read = self.read_page(shard, reader, &place, &clocks);
                self.sealed.free_if_unused(page);
                read
            };
            remains.pages.insert(read?);
            Ok(())
        };
        let is_whole = sections(file, header, visit, damage);
        self.sealed.free_if_unused(of_file);
        self.clocks.release_unused();
        self.restore_bounds(header.floor, header.bar);
        if is_whole {
            return None;
        }
        // A stretch hides rows that were there when it was made: not what comes in place of those that are lost.
        self.prune_deleted();
        Some(remains)
    }

    /// Reads a section behind the clocks; gives the number that it begins with.
    fn read_page(
        &mut self,
        shard: usize,
        mut body: Reader<'_>,
        place: &PageBytes<'_>,
        clocks: &ClockNumbers,
    ) -> Result<u64, FrameError> {
        let number = body.varint()?;
        let page = number % HISTOGRAMS;
        if page == DELETED_PAGE && number < 2 * HISTOGRAMS {
            return self.read_deleted(shard, number >= HISTOGRAMS, body).map(|()| number);
        }
        let count = body.varint()?;
        let pages = u64::from(u32::MAX / PAGE_SERIES) / SHARDS as u64;
        if page > pages || number >= 2 * HISTOGRAMS || count > u64::from(PAGE_SERIES) {
            return Err(FrameError::Malformed);
        }
        if number >= HISTOGRAMS {
            return self.read_special_page(shard, page as usize, count, body, place).map(|()| number);
        }
        if place.version < 3 {
            return self.read_plain_page(shard, page as usize, count, body, place, clocks).map(|()| number);
        }
        let (mut shapes, mut next): (Vec<Shape>, u64) = (Vec::new(), 0);
        for _ in 0..count {
            let slot = body.varint()?.checked_add(next).filter(|slot| *slot < u64::from(PAGE_SERIES));
            let slot = slot.ok_or(FrameError::Malformed)?;
            next = slot + 1;
            let head = body.varint()?;
            if head >> 1 == shapes.len() as u64 {
                shapes.push(Shape::read(&mut body, clocks)?);
            }
            let shape = usize::try_from(head >> 1).ok().and_then(|number| shapes.get(number));
            let id = Shard::id_of(shard, page as usize, slot as usize);
            self.read_series(id, shape.ok_or(FrameError::Malformed)?, &mut body, place)?;
            if head & 1 == 1 {
                self.read_late(id, &mut body)?;
            }
        }
        Ok(number)
    }

    fn read_series(
        &mut self,
        id: SeriesId,
        shape: &Shape,
        body: &mut Reader<'_>,
        place: &PageBytes<'_>,
    ) -> Result<(), FrameError> {
        for &(clock, first_row, count) in &shape.chunks {
            let chunk = place.chunk(body.text()?);
            if let Some(clock) = clock {
                self.restore_chunk(id, NewChunk { clock, first_row, count, ..chunk })?;
            }
        }
        let Some((clock, first_row, count)) = shape.open else { return Ok(()) };
        let head = body.varint()?;
        let len = usize::try_from(head >> 1).map_err(|_| FrameError::Malformed)?;
        let values = match head & 1 {
            1 => OpenValues::Column(body.take(len)?),
            _ => {
                let state = body.byte()?;
                let exponent = match state & !REPEATING {
                    EXPONENT_BITS => NO_EXPONENT,
                    exponent => exponent,
                };
                OpenValues::Tokens { tokens: body.take(len)?, repeating: state & REPEATING != 0, exponent }
            }
        };
        clock.map_or(Ok(()), |clock| self.restore_open(id, clock, (first_row, count), values))
    }

    fn read_late(&mut self, id: SeriesId, body: &mut Reader<'_>) -> Result<(), FrameError> {
        let mut left = body.varint()?;
        let (mut values, mut newest) = (Vec::new(), None);
        while left > 0 {
            let count = left.min(LATE_PIECE as u64);
            let times = read_times(body.text()?, count)?;
            values.clear();
            tidewatch_chunk::decode_values(body.text()?, count as usize, &mut values)
                .map_err(|_| FrameError::Malformed)?;
            if newest >= times.first().copied() {
                return Err(FrameError::Malformed);
            }
            newest = times.last().copied();
            for (timestamp, value) in times.into_iter().zip(values.iter().copied()) {
                self.restore_late(id, Sample { timestamp, value });
            }
            left -= count;
        }
        Ok(())
    }

    /// A page of version 1 or 2.
    fn read_plain_page(
        &mut self,
        shard: usize,
        page: usize,
        count: u64,
        mut body: Reader<'_>,
        place: &PageBytes<'_>,
        clocks: &ClockNumbers,
    ) -> Result<(), FrameError> {
        for _ in 0..count {
            let id = read_id(shard, page, &mut body)?;
            for _ in 0..body.varint()? {
                let clock = clocks.get(body.varint()?)?;
                let [first_row, count] = body.array()?;
                let chunk = place.chunk(body.text()?);
                if let Some(clock) = clock {
                    self.restore_chunk(id, NewChunk { clock, first_row, count, ..chunk })?;
                }
            }
            let count = body.byte()?;
            if count > 0 {
                let clock = clocks.get(body.varint()?)?;
                // The newest value follows, which the tokens tell as well.
                let [first_row, repeating, exponent, ..] = body.array::<11>()?;
                let values = OpenValues::Tokens { tokens: body.text()?, repeating: repeating != 0, exponent };
                if let Some(clock) = clock {
                    self.restore_open(id, clock, (first_row, count), values)?;
                }
            }
            for _ in 0..body.varint()? {
                let timestamp = i64::from_le_bytes(body.array()?);
                let value = f64::from_bits(u64::from_le_bytes(body.array()?));
                self.restore_late(id, Sample { timestamp, value });
            }
        }
        Ok(())
    }
}

/// What runs a series has; many have the same.
struct Shape {
    /// Of sealed runs, from old to new: clock, first row and count.
    chunks: Vec<(Option<u32>, u8, u8)>,
    open: Option<(Option<u32>, u8, u8)>,
}

impl Shape {
    fn read(body: &mut Reader<'_>, clocks: &ClockNumbers) -> Result<Shape, FrameError> {
        let mut chunks = Vec::new();
        for _ in 0..body.varint()? {
            let clock = clocks.get(body.varint()?)?;
            let [first_row, count] = body.array()?;
            chunks.push((clock, first_row, count));
        }
        let open = match body.byte()? {
            0 => None,
            count => Some((clocks.get(body.varint()?)?, body.byte()?, count)),
        };
        Ok(Shape { chunks, open })
    }
}

/// Where the columns of a section lie.
struct PageBytes<'a> {
    /// A file, or the section alone.
    bytes: &'a Bytes,
    /// Their number among the pages of sealed runs.
    page: u32,
    /// Whether they are a file's.
    is_mapped: bool,
    /// Of the image's format.
    version: u16,
}

impl PageBytes<'_> {
    /// A sealed run whose column is a part of them; the rest is the caller's to say.
    fn chunk(&self, column: &[u8]) -> NewChunk {
        let offset = column.as_ptr() as usize - self.bytes.as_ptr() as usize;
        NewChunk { clock: 0, first_row: 0, count: 0, page: self.page, offset, len: column.len() }
    }
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
            let id = read_id(shard, page, &mut body)?;
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

/// A series by its slot within a page.
fn read_id(shard: usize, page: usize, body: &mut Reader<'_>) -> Result<SeriesId, FrameError> {
    let slot = body.varint()?;
    if slot >= u64::from(PAGE_SERIES) {
        return Err(FrameError::Malformed);
    }
    Ok(Shard::id_of(shard, page, slot as usize))
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
    let column = usize::try_from(times_len).ok().and_then(|len| columns.get(..len));
    if count == 0 || count > ROWS_MAX as u64 {
        return Err(FrameError::Malformed);
    }
    let times = read_times(column.ok_or(FrameError::Malformed)?, count)?;
    if after.is_some_and(|after| after >= times[0]) {
        return Err(FrameError::Malformed);
    }
    Ok(SealedRun {
        first: times[0],
        last: times[times.len() - 1],
        count: count as u32,
        kind,
        times_len: times_len as u32,
        bytes: place.bytes.slice_ref(columns),
        is_mapped: place.is_mapped,
    })
}

fn read_open(body: &mut Reader<'_>, rows: u64, after: Option<i64>) -> Result<OpenRun, FrameError> {
    if rows > ROWS_MAX as u64 {
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

/// A column of timestamps that ascend.
fn read_times(column: &[u8], count: u64) -> Result<Vec<i64>, FrameError> {
    let mut times = Vec::new();
    let decoded = tidewatch_chunk::decode_times(column, count as usize, &mut times);
    let is_good = decoded.is_ok() && times.is_sorted_by(|a, b| a < b);
    if is_good { Ok(times) } else { Err(FrameError::Malformed) }
}

/// From the numbers of clocks in an image to those in the shard.
#[derive(Debug)]
pub(crate) struct ClockNumbers {
    /// `None` where the section of clocks was lost.
    numbers: Option<hashbrown::HashMap<u64, u32>>,
}

impl ClockNumbers {
    fn lost() -> ClockNumbers {
        ClockNumbers { numbers: None }
    }

    /// The clock of a number; `None` where all were lost, and with them the runs that tell time by them.
    fn get(&self, number: u64) -> Result<Option<u32>, FrameError> {
        let Some(numbers) = &self.numbers else { return Ok(None) };
        numbers.get(&number).copied().map(Some).ok_or(FrameError::Malformed)
    }
}

impl crate::head::clock::Clocks {
    fn read(&mut self, version: u16, mut body: Reader<'_>) -> Result<ClockNumbers, FrameError> {
        let mut numbers = hashbrown::HashMap::new();
        for _ in 0..body.varint()? {
            let number = body.varint()?;
            let count = body.varint()?;
            if count == 0 || count > ROWS_MAX as u64 {
                return Err(FrameError::Malformed);
            }
            let rows = match version {
                ..3 => read_rows(&mut body, count)?,
                _ => read_times(body.text()?, count)?,
            };
            numbers.insert(number, self.restore(rows));
        }
        Ok(ClockNumbers { numbers: Some(numbers) })
    }
}
