//! From a shard to its image.

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tidewatch_chunk::{Encoder, encode_times};
use tidewatch_model::Sample;

use super::sections::ImageWriter;
use super::{EXPONENT_BITS, HISTOGRAMS, ImageHeader, ImageKind, LATE_PIECE, REPEATING, VERSION, page_of};
use crate::fields::{push_text, push_varint, zigzag};
use crate::head::PAGE_SERIES;
use crate::head::cells::NONE;
use crate::head::deleted::{DELETED_PAGE, write_deleted};
use crate::head::histograms::HistogramSeries;
use crate::head::registry::SeriesId;
use crate::head::sealed::{ChunkBytes, check_readable};
use crate::head::shard::{Open, Shard};
use crate::head::starts::Step;
use crate::head::tokens::decode_tokens;
use crate::rows::push_alone;

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

    /// The image of the shard of a data directory at a position in the log, and where its columns stand in it.
    pub(crate) fn to_image(&self, shard: usize, position: (u64, u64), owner: u64) -> (Vec<u8>, Places) {
        let kind = ImageKind::Shard(shard);
        let header = ImageHeader {
            version: VERSION,
            kind,
            position,
            floor: self.floor,
            bar: self.bar(),
            next_id: 0,
            sections: 0,
            owner,
        };
        let mut image = ImageWriter::new(header);
        let mut places = Places::default();
        image.section(|out| self.clocks.write(out));
        let mut scratch = Scratch::default();
        for page in 0..self.page_count() {
            let count = self.used_of_page(page).count();
            if count == 0 {
                continue;
            }
            image.section(|out| {
                push_varint(page as u64, out);
                push_varint(count as u64, out);
                scratch.shapes.clear();
                let mut next = 0;
                for (slot, open) in self.used_of_page(page) {
                    push_varint((slot - next) as u64, out);
                    next = slot + 1;
                    let id = Shard::id_of(shard, page, slot);
                    self.write_series(id, open, &mut scratch, &mut places.chunks, out);
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
        debug_assert!(ids.iter().all(|id| Shard::of(*id) == shard), "a shard has series of its own");
        for ids in ids.chunk_by(|a, b| page_of(*a) == page_of(*b)) {
            image.section(|out| {
                push_varint(HISTOGRAMS + page_of(ids[0]), out);
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

    fn write_series(
        &self,
        id: SeriesId,
        open: &Open,
        scratch: &mut Scratch,
        placed: &mut Vec<Placed>,
        out: &mut Vec<u8>,
    ) {
        let mut at = open.chunk;
        scratch.chunks.clear();
        while at != NONE {
            scratch.chunks.push(at);
            at = self.sealed.get(at).older;
        }
        scratch.chunks.reverse();
        self.write_shape(open, scratch);
        let late = if open.has_late { self.late.get(&id).map_or(&[][..], Vec::as_slice) } else { &[] };
        let (number, is_new) = scratch.shapes.number(&scratch.shape);
        push_varint(u64::from(number) << 1 | u64::from(!late.is_empty()), out);
        if is_new {
            out.extend_from_slice(&scratch.shape);
        }
        for &number in &scratch.chunks {
            let chunk = self.sealed.get(number);
            match self.sealed.bytes(chunk) {
                ChunkBytes::Shared(bytes) => push_text(&bytes, out),
                ChunkBytes::Filling(bytes) => push_text(bytes, out),
            }
            placed.push(Placed { chunk: number, offset: (out.len() - usize::from(chunk.len)) as u32 });
        }
        if open.clock != NONE {
            self.write_open(open, scratch, out);
        }
        if !late.is_empty() {
            write_late(late, scratch, out);
        }
    }

    fn write_shape(&self, open: &Open, scratch: &mut Scratch) {
        let Scratch { chunks, shape, .. } = scratch;
        shape.clear();
        push_varint(chunks.len() as u64, shape);
        for &number in &*chunks {
            let chunk = self.sealed.get(number);
            push_varint(u64::from(chunk.clock), shape);
            shape.extend_from_slice(&[chunk.first_row, chunk.count]);
        }
        if open.clock == NONE {
            shape.push(0);
        } else {
            shape.push(open.count);
            push_varint(u64::from(open.clock), shape);
            shape.push(open.first_row);
        }
    }

    fn write_open(&self, open: &Open, scratch: &mut Scratch, out: &mut Vec<u8>) {
        let Scratch { tokens, values, column, encoder, .. } = scratch;
        tokens.clear();
        self.cells.copy_tokens(&open.tail, tokens);
        if tokens.len() >= LONG_TOKENS {
            values.clear();
            column.clear();
            let whole = decode_tokens(tokens, usize::from(open.count), values);
            assert!(whole, "an open run holds the tokens of its samples");
            encoder.encode(values, column);
            if column.len() < tokens.len() {
                push_varint((column.len() as u64) << 1 | 1, out);
                out.extend_from_slice(column);
                return;
            }
        }
        push_varint((tokens.len() as u64) << 1, out);
        let state = open.tail.state();
        out.push(state.exponent & EXPONENT_BITS | if state.repeating { REPEATING } else { 0 });
        out.extend_from_slice(tokens);
    }
}

/// One of the sources of a server may be an hour behind the others, and then nothing but late.
fn write_late(late: &[Sample], scratch: &mut Scratch, out: &mut Vec<u8>) {
    let Scratch { times, values, column, encoder, .. } = scratch;
    push_varint(late.len() as u64, out);
    for piece in late.chunks(LATE_PIECE) {
        times.clear();
        times.extend(piece.iter().map(|sample| sample.timestamp));
        column.clear();
        encode_times(times, column);
        push_text(column, out);
        values.clear();
        values.extend(piece.iter().map(|sample| sample.value));
        column.clear();
        encoder.encode(values, column);
        push_text(column, out);
    }
}

/// From so many bytes of tokens on the strong codec takes half of them or less, and the time that it
/// takes is well spent: runs of two samples or of a constant are not encoded twice.
const LONG_TOKENS: usize = 40;

/// Memory of an image's making.
#[derive(Default)]
struct Scratch {
    chunks: Vec<u32>,
    shape: Vec<u8>,
    shapes: Shapes,
    tokens: Vec<u8>,
    times: Vec<i64>,
    values: Vec<f64>,
    column: Vec<u8>,
    encoder: Encoder,
}

/// The shapes that a page's section has named, by their bytes.
#[derive(Default)]
struct Shapes {
    numbers: HashMap<Vec<u8>, u32, RandomState>,
    /// The one that was asked for last: neighbours came together.
    last: (Vec<u8>, u32),
}

impl Shapes {
    fn clear(&mut self) {
        self.numbers.clear();
        self.last.0.clear();
    }

    /// The number of a shape, and whether it is new.
    fn number(&mut self, shape: &[u8]) -> (u32, bool) {
        if self.last.0 == shape {
            return (self.last.1, false);
        }
        let next = self.numbers.len() as u32;
        let number = *self.numbers.entry_ref(shape).or_insert(next);
        self.last.0.clear();
        self.last.0.extend_from_slice(shape);
        self.last.1 = number;
        (number, number == next)
    }
}

/// Timestamps as differences.
fn write_rows(rows: &[i64], out: &mut Vec<u8>) {
    let mut previous = 0;
    for row in rows {
        push_varint(zigzag(row.wrapping_sub(previous)), out);
        previous = *row;
    }
}

impl crate::head::clock::Clocks {
    fn write(&self, out: &mut Vec<u8>) {
        push_varint(self.count() as u64, out);
        let mut column = Vec::new();
        for (number, rows) in self.living() {
            push_varint(u64::from(number), out);
            push_varint(rows.len() as u64, out);
            column.clear();
            encode_times(rows, &mut column);
            push_text(&column, out);
        }
    }
}
