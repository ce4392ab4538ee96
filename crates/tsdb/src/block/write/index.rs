//! The index of a block on its way to the file: series by series in label order, encoded at the end.

use roaring::RoaringBitmap;
use tidewatch_model::Labels;

use super::WriterOptions;
use super::pairs::Pairs;
use crate::block::BlockError;
use crate::block::clocks::Clock;
use crate::block::format::{self, BlockMeta, SECTIONS, Section, SectionId};
use crate::block::series::{Chunk, SeriesEncoder};
use crate::index::lists;

/// What the index is made of: some 50 bytes a series and 32 a chunk.
#[derive(Default)]
pub(in crate::block) struct IndexBuilder {
    pairs: Pairs,
    series: Vec<SeriesEntry>,
    /// The pairs of all series behind each other, by provisional number.
    series_pairs: Vec<u32>,
    chunks: Vec<Chunk>,
    clocks: Vec<Clock>,
}

/// Where a series ends in the lists of pairs and of chunks, and where its data starts.
struct SeriesEntry {
    pairs_end: usize,
    chunks_end: usize,
    data_offset: u64,
}

impl IndexBuilder {
    pub(in crate::block) fn clocks(&self) -> &[Clock] {
        &self.clocks
    }

    /// The number of a clock that is new.
    pub(in crate::block) fn add_clock(&mut self, clock: Clock) -> u32 {
        self.clocks.push(clock);
        self.clocks.len() as u32 - 1
    }

    /// Begins a series. `data_offset` is where its first chunk, or the clock before it, starts.
    pub(in crate::block) fn add_series(&mut self, labels: &Labels, data_offset: u64) {
        self.series_pairs.extend(labels.iter().map(|(name, value)| self.pairs.intern(name, value)));
        let (pairs_end, chunks_end) = (self.series_pairs.len(), self.chunks.len());
        self.series.push(SeriesEntry { pairs_end, chunks_end, data_offset });
    }

    /// Adds a chunk to the series that was begun last.
    pub(in crate::block) fn add_chunk(&mut self, chunk: Chunk) {
        self.chunks.push(chunk);
        self.series.last_mut().expect("a chunk belongs to a series").chunks_end = self.chunks.len();
    }

    pub(in crate::block) fn series_count(&self) -> u32 {
        self.series.len() as u32
    }

    /// The chunks of the series that was begun last.
    pub(super) fn last_chunks(&self) -> &[Chunk] {
        let start = self.series.len().checked_sub(2).map_or(0, |before| self.series[before].chunks_end);
        &self.chunks[start..]
    }

    /// Gives `write` the sections behind the data and their table, part by part; `None` where no series has a
    /// sample.
    pub(in crate::block) fn finish(
        &self,
        options: &WriterOptions,
        data_len: u64,
        mut write: impl FnMut(&[u8]) -> Result<(), BlockError>,
    ) -> Result<Option<BlockMeta>, BlockError> {
        let Some(mut meta) = self.meta(options) else { return Ok(None) };
        let mut at = format::HEADER_LEN as u64 + data_len;
        let data = (SectionId::Data as u16, format::HEADER_LEN as u64);
        let mut sections = vec![Section { id: data.0, crc: 0, offset: data.1, len: data_len }];
        let (mut bytes, mut finals) = (Vec::new(), Vec::new());
        for id in &SECTIONS[1..] {
            bytes.clear();
            match id {
                SectionId::Data => {}
                SectionId::Meta => meta.encode(&mut bytes),
                SectionId::Labels => finals = self.pairs.finish(&mut bytes),
                SectionId::Postings => self.encode_postings(&finals, &mut bytes),
                SectionId::Clocks => self.clocks.iter().for_each(|clock| clock.encode(&mut bytes)),
                SectionId::Series => self.encode_series(&finals, &mut bytes),
            }
            let (crc, len) = (crc32fast::hash(&bytes), bytes.len() as u64);
            sections.push(Section { id: *id as u16, crc, offset: at, len });
            at += len;
            write(&bytes)?;
        }
        bytes.clear();
        format::encode_table(&sections, &mut bytes);
        meta.size = at + bytes.len() as u64;
        write(&bytes)?;
        Ok(Some(meta))
    }

    fn meta(&self, options: &WriterOptions) -> Option<BlockMeta> {
        let of = |chunk: &Chunk| &self.clocks[chunk.clock as usize];
        Some(BlockMeta {
            id: options.id,
            level: options.level,
            start_ms: options.start_ms,
            end_ms: options.end_ms,
            min_ms: self.chunks.iter().map(|chunk| of(chunk).first_ms).min()?,
            max_ms: self.chunks.iter().map(|chunk| of(chunk).last_ms()).max()?,
            series: self.series.len() as u64,
            chunks: self.chunks.len() as u64,
            samples: self.chunks.iter().map(|chunk| u64::from(of(chunk).count)).sum(),
            parents: options.parents.clone(),
            size: 0,
        })
    }

    fn encode_postings(&self, finals: &[u32], out: &mut Vec<u8>) {
        let mut by_pair = vec![RoaringBitmap::new(); finals.len()];
        let mut start = 0;
        for (number, series) in self.series.iter().enumerate() {
            for pair in &self.series_pairs[start..series.pairs_end] {
                by_pair[finals[*pair as usize] as usize].insert(number as u32);
            }
            start = series.pairs_end;
        }
        lists::encode(&mut by_pair, self.series.len() as u32, out);
    }

    fn encode_series(&self, finals: &[u32], out: &mut Vec<u8>) {
        let mut encoder = SeriesEncoder::default();
        let (mut pairs_start, mut chunks_start) = (0, 0);
        let mut pairs = Vec::new();
        for series in &self.series {
            pairs.clear();
            pairs
                .extend(self.series_pairs[pairs_start..series.pairs_end].iter().map(|p| finals[*p as usize]));
            encoder.push(&pairs, &self.chunks[chunks_start..series.chunks_end], series.data_offset);
            (pairs_start, chunks_start) = (series.pairs_end, series.chunks_end);
        }
        encoder.finish(out);
    }
}
