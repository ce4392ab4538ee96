//! From images back to a shard.

use std::ops::Range;

use bytes::Bytes;
use tidewatch_model::Sample;

use super::{HISTOGRAMS, ImageHeader, sections};
use crate::head::cells::RunState;
use crate::head::clock::ROWS_MAX;
use crate::head::deleted::DELETED_PAGE;
use crate::head::histograms::{HistogramSeries, OpenRun, SealedRun};
use crate::head::sealed::NewChunk;
use crate::head::shard::Shard;
use crate::head::starts::Step;
use crate::head::{PAGE_SERIES, SHARDS};
use crate::log::{FrameError, Reader, unzigzag};
use crate::rows::{RowLayout, read_alone};

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

impl Shard {
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
    let is_run = count > 0 && count <= ROWS_MAX as u64;
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

impl crate::head::clock::Clocks {
    fn read(&mut self, mut body: Reader<'_>) -> Result<ClockNumbers, FrameError> {
        let mut known = ClockNumbers::default();
        for _ in 0..body.varint()? {
            let number = body.varint()?;
            let count = body.varint()?;
            if count == 0 || count > ROWS_MAX as u64 {
                return Err(FrameError::Malformed);
            }
            let rows = read_rows(&mut body, count)?;
            known.numbers.insert(number, self.restore(rows));
        }
        Ok(known)
    }
}
