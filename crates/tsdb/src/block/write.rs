//! Writing a block: series by series in label order, samples straight to the disk, the index at
//! the end.
//!
//! Memory is that of the index: some 50 bytes a series and 32 a chunk, whatever the samples.
//!
//! ```text
//! create ─► { series ─► run … } … ─► finish ─► synced, renamed, directory synced
//!    └──────────── dropped, failed ─► nothing; after a crash a file NAME.tmp, which goes when the directory is
//!                                     opened next
//! ```

mod columns;
mod index;
mod pairs;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidewatch_chunk::{encode_times, fits};
use tidewatch_env::{Env, File, Open};
use tidewatch_model::{Labels, NativeHistogram};

use self::columns::{ChunkClock, Columns};
pub(super) use self::index::IndexBuilder;
use super::copies::{CopyWriter, gap_behind};
use super::format::{self, BlockId, BlockMeta, block_path};
use super::series::Chunk;
use super::{BlockError, CHUNK_SAMPLES_MAX, CHUNK_SPAN_MS, DENSE_SAMPLES_MAX, DENSE_SPAN_MS};
use crate::gather::{StoredRun, StoredValues};

/// Bytes that are collected before they go to the file.
const BUFFER: usize = 1 << 18;

/// What a block is to be.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    pub id: BlockId,
    /// The range that it is cut for; all samples must be within. The end is not included.
    pub start_ms: i64,
    pub end_ms: i64,
    pub level: u8,
    /// Whether it is to be as small as can be: for what is large and kept long. Takes twice the CPU.
    pub dense: bool,
    /// The blocks that it replaces, ascending.
    pub parents: Vec<BlockId>,
}

impl WriterOptions {
    /// In which stretch a time lies that no chunk leaves, and how many samples a chunk has at most.
    fn chunks(&self) -> (impl Fn(i64) -> u64 + use<>, usize) {
        let (span_ms, from_ms, samples_max) = match self.dense {
            true => (DENSE_SPAN_MS, self.start_ms, DENSE_SAMPLES_MAX),
            false => {
                let from_ms = self.start_ms.div_euclid(CHUNK_SPAN_MS).saturating_mul(CHUNK_SPAN_MS);
                (CHUNK_SPAN_MS, from_ms, CHUNK_SAMPLES_MAX)
            }
        };
        // No time lies before it, and as the difference of any two fits 64 bits without a sign.
        (move |time: i64| time.wrapping_sub(from_ms) as u64 / span_ms as u64, samples_max)
    }
}

/// Writes one block. A writer that is dropped leaves only a file that nobody reads.
pub struct Writer {
    env: Env,
    dir: PathBuf,
    path: PathBuf,
    beside: Beside,
    file: Arc<dyn File>,
    options: WriterOptions,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    /// Bytes of the data section so far, those of the buffer included.
    data_len: u64,
    columns: Columns,
    index: IndexBuilder,
    copies: CopyWriter,
    /// The series that was started last: labels must ascend.
    labels: Option<Labels>,
    /// The next chunk: times, values of one of the kinds, and starts or none of these.
    pending_times: Vec<i64>,
    pending_values: Vec<f64>,
    pending_histograms: Vec<NativeHistogram>,
    pending_starts: Vec<i64>,
}

/// The file of a block that is not complete, which goes with its writer.
struct Beside {
    env: Env,
    path: PathBuf,
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Nothing is there when it has its name. What can not be removed now goes at the next start.
        if self.env.disk.exists(&self.path).unwrap_or(false) {
            let _ = self.env.disk.remove(&self.path);
        }
    }
}

impl Writer {
    /// Starts a block in `dir`, beside its final name.
    pub fn create(env: &Env, dir: &Path, options: WriterOptions) -> Result<Writer, BlockError> {
        assert!(options.id <= BlockId::MAX, "block ids stay below their limit");
        assert!(options.start_ms < options.end_ms, "a block has a range");
        assert!(options.parents.is_sorted(), "parents ascend");
        let path = block_path(dir, options.id);
        let mut beside = path.clone().into_os_string();
        beside.push(".tmp");
        let beside = PathBuf::from(beside);
        let io = |source| BlockError::Io { path: beside.clone(), source };
        if env.disk.exists(&beside).map_err(io)? {
            env.disk.remove(&beside).map_err(io)?;
        }
        let file = env.disk.open(&beside, Open::Create).map_err(io)?;
        Ok(Writer {
            env: env.clone(),
            dir: dir.to_owned(),
            path,
            beside: Beside { env: env.clone(), path: beside },
            file,
            buffer: format::header(options.dense).to_vec(),
            data_len: 0,
            columns: Columns::new(options.dense, env.entropy.next_u64()),
            options,
            index: IndexBuilder::default(),
            copies: CopyWriter::default(),
            labels: None,
            pending_times: Vec::new(),
            pending_values: Vec::new(),
            pending_histograms: Vec::new(),
            pending_starts: Vec::new(),
        })
    }

    /// Starts the next series. A series without samples is left out.
    ///
    /// # Panics
    /// If the labels do not ascend.
    pub fn series(&mut self, labels: &Labels) -> Result<(), BlockError> {
        self.end_series()?;
        if let Some(previous) = &self.labels {
            assert!(previous < labels, "series ascend by labels: {previous} came before {labels}");
        }
        self.labels = Some(labels.clone());
        Ok(())
    }

    /// Adds floats to the series that was started last.
    ///
    /// # Panics
    /// If the columns differ in length, or the timestamps do not ascend or are out of range.
    pub fn floats(&mut self, times: &[i64], values: &[f64]) -> Result<(), BlockError> {
        self.run(&StoredRun { timestamps: times, values: StoredValues::Floats(values), starts: None })
    }

    /// Adds samples of any kind to the series that was started last.
    ///
    /// # Panics
    /// As [`Writer::floats`].
    pub fn run(&mut self, run: &StoredRun<'_>) -> Result<(), BlockError> {
        let times = run.timestamps;
        let (count, is_float) = match run.values {
            StoredValues::Floats(values) => (values.len(), true),
            StoredValues::Histograms(histograms) => (histograms.len(), false),
        };
        assert_eq!(times.len(), count, "columns of one run are equally long");
        assert!(run.starts.is_none_or(|starts| starts.len() == count), "columns of one run are equally long");
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return Ok(()) };
        assert!(self.labels.is_some(), "samples belong to a series");
        let ascends = self.pending_times.last().is_none_or(|before| *before < first);
        assert!(ascends && times.is_sorted_by(|a, b| a < b), "the samples of a series ascend");
        let range = self.options.start_ms..self.options.end_ms;
        assert!(range.contains(&first) && range.contains(&last), "samples are in the block's range");
        if is_float != self.pending_histograms.is_empty() {
            self.end_chunk()?;
        }
        let (span_of, samples_max) = self.options.chunks();
        let mut at = 0;
        while at < count {
            let span = span_of(times[at]);
            let crosses = self.pending_times.last().is_some_and(|last| span_of(*last) != span);
            if crosses || self.pending_times.len() == samples_max {
                self.end_chunk()?;
            }
            let in_span = times[at..].partition_point(|time| span_of(*time) == span);
            let room = in_span.min(samples_max - self.pending_times.len());
            let len = match run.values {
                StoredValues::Floats(values) => {
                    self.pending_values.extend_from_slice(&values[at..at + room]);
                    room
                }
                StoredValues::Histograms(histograms) => self.pend_histograms(&histograms[at..at + room]),
            };
            let before = self.pending_times.len();
            self.pending_times.extend_from_slice(&times[at..at + len]);
            self.pend_starts(before, run.starts.map(|starts| &starts[at..at + len]));
            at += len;
            if len < room {
                self.end_chunk()?;
            }
        }
        Ok(())
    }

    /// Takes as many as go into the pending chunk, and tells how many that were.
    fn pend_histograms(&mut self, histograms: &[NativeHistogram]) -> usize {
        let mut leader = self.pending_histograms.iter().find(|histogram| !histogram.is_stale()).cloned();
        for (taken, histogram) in histograms.iter().enumerate() {
            let len = self.pending_histograms.len();
            if leader.as_ref().is_some_and(|leader| !fits(leader, len, histogram)) {
                return taken;
            }
            if leader.is_none() && !histogram.is_stale() {
                if len > 0 && !fits(&NativeHistogram::stale(), len, histogram) {
                    return taken;
                }
                leader = Some(histogram.clone());
            }
            self.pending_histograms.push(histogram.clone());
        }
        histograms.len()
    }

    fn pend_starts(&mut self, before: usize, starts: Option<&[i64]>) {
        let starts = starts.filter(|starts| starts.iter().any(|start| *start != 0));
        if starts.is_none() && self.pending_starts.is_empty() {
            return;
        }
        self.pending_starts.resize(before, 0);
        self.pending_starts.extend_from_slice(starts.unwrap_or(&[]));
        self.pending_starts.resize(self.pending_times.len(), 0);
    }

    fn end_chunk(&mut self) -> Result<(), BlockError> {
        if self.pending_times.is_empty() {
            return Ok(());
        }
        let begins = self.copies.next() == self.index.series_count();
        if begins && self.copies.is_due() {
            self.copy(false);
        }
        let data_start = self.data_len;
        let start = self.buffer.len();
        let clock = match self.columns.clock(&self.pending_times, data_start, &mut self.buffer) {
            ChunkClock::Known(number) => number,
            ChunkClock::New(clock) => self.index.add_clock(clock),
        };
        let values_start = self.buffer.len();
        let kind = self.columns.values(&self.pending_values, &self.pending_histograms, &mut self.buffer);
        let len = self.buffer.len() - values_start;
        if !self.pending_starts.is_empty() {
            encode_times(&self.pending_starts, &mut self.buffer);
        }
        let columns = &self.buffer[values_start..];
        let chunk = Chunk {
            clock,
            offset: data_start + (values_start - start) as u64,
            len: len as u32,
            starts_len: (columns.len() - len) as u32,
            crc: crc32fast::hash(columns),
            kind,
        };
        self.data_len += (self.buffer.len() - start) as u64;
        if begins {
            let labels = self.labels.as_ref().expect("samples belong to a series");
            self.index.add_series(labels, data_start);
            self.copies.begin(data_start);
        }
        self.index.add_chunk(chunk);
        self.pending_times.clear();
        self.pending_values.clear();
        self.pending_histograms.clear();
        self.pending_starts.clear();
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn end_series(&mut self) -> Result<(), BlockError> {
        self.end_chunk()?;
        if let Some(labels) = self.labels.as_ref().filter(|_| self.copies.next() < self.index.series_count())
        {
            self.copies.push(labels, self.index.last_chunks(), self.index.clocks());
        }
        Ok(())
    }

    /// Repeats what the index will say of the series behind the last copy.
    fn copy(&mut self, is_last: bool) {
        let start = self.buffer.len();
        let clocks = self.index.clocks();
        let shared = self.columns.take_shared().into_iter();
        let shared: Vec<_> = shared.map(|(clock, column)| (clocks[clock as usize].offset, column)).collect();
        self.copies.finish(&self.options, self.data_len, is_last, &shared, &mut self.buffer);
        self.data_len += (self.buffer.len() - start) as u64;
        if is_last && self.buffer.len() > start {
            let gap = gap_behind(self.data_len);
            self.buffer.resize(self.buffer.len() + gap, 0);
            self.data_len += gap as u64;
        }
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        let io = |source| BlockError::Io { path: self.beside.path.clone(), source };
        self.file.append(&self.buffer).map_err(io)?;
        self.buffer.clear();
        Ok(())
    }

    /// Completes the block: durable under its name when this returns. `None` where no series had
    /// a sample; then there is no block.
    pub fn finish(mut self) -> Result<Option<BlockMeta>, BlockError> {
        self.end_series()?;
        if self.index.series_count() == 0 {
            self.env.disk.remove(&self.beside.path).map_err(|source| self.failed(source))?;
            return Ok(None);
        }
        self.copy(true);
        self.flush()?;
        let write = |bytes: &[u8]| {
            let io = |source| BlockError::Io { path: self.beside.path.clone(), source };
            self.file.append(bytes).map_err(io)
        };
        let meta = self.index.finish(&self.options, self.data_len, write)?;
        self.publish()?;
        Ok(meta)
    }

    fn publish(&self) -> Result<(), BlockError> {
        let failed = |source| self.failed(source);
        self.file.sync().map_err(failed)?;
        self.env.disk.rename(&self.beside.path, &self.path).map_err(failed)?;
        self.env.disk.sync_dir(&self.dir).map_err(failed)
    }

    fn failed(&self, source: std::io::Error) -> BlockError {
        BlockError::Io { path: self.path.clone(), source }
    }
}
