//! Columns on their way into the data section of a block: values of each chunk, and timestamps once for all chunks
//! that share them.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tidewatch_chunk::{DenseEncoder, Encoder, HistogramEncoder, SampleKind, encode_times};
use tidewatch_model::NativeHistogram;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::block::clocks::Clock;

/// What encodes columns, and which clocks there are.
pub(super) struct Columns {
    encoder: FloatEncoder,
    histograms: HistogramEncoder,
    /// Clocks by a hash of their timestamps. The hash is keyed, so that nobody can aim at it, and
    /// with 128 bits chance does not meet it either; a comparison would have to read the file back.
    numbers: HashMap<u128, Number, RandomState>,
    key: u64,
    /// Columns that were shared for the first time since they were taken last.
    shared: Vec<(u32, Vec<u8>)>,
    /// What is hashed: kept for its memory.
    hashed: Vec<u8>,
}

struct Number {
    clock: u32,
    is_shared: bool,
}

/// The clock of a chunk.
pub(super) enum ChunkClock {
    Known(u32),
    /// It has the next number.
    New(Clock),
}

enum FloatEncoder {
    Plain(Box<Encoder>),
    Dense(Box<DenseEncoder>),
}

impl FloatEncoder {
    fn encode(&mut self, values: &[f64], out: &mut Vec<u8>) {
        match self {
            FloatEncoder::Plain(encoder) => encoder.encode(values, out),
            FloatEncoder::Dense(encoder) => encoder.encode(values, out),
        };
    }
}

impl Columns {
    pub(super) fn new(dense: bool, key: u64) -> Columns {
        Columns {
            encoder: match dense {
                true => FloatEncoder::Dense(Box::default()),
                false => FloatEncoder::Plain(Box::default()),
            },
            histograms: HistogramEncoder::new(),
            numbers: HashMap::default(),
            key,
            shared: Vec::new(),
            hashed: Vec::new(),
        }
    }

    /// Appends the column of a chunk: of the histograms, or of the floats where there are none.
    pub(super) fn values(
        &mut self,
        floats: &[f64],
        histograms: &[NativeHistogram],
        out: &mut Vec<u8>,
    ) -> SampleKind {
        if !histograms.is_empty() {
            return self.histograms.encode(histograms, out);
        }
        self.encoder.encode(floats, out);
        SampleKind::Float
    }

    /// The clock with these timestamps; the column of a new one is appended to `out`, which ends at `offset` of
    /// the data section.
    pub(super) fn clock(&mut self, times: &[i64], offset: u64, out: &mut Vec<u8>) -> ChunkClock {
        let hash = self.hash(times);
        if let Some(number) = self.numbers.get_mut(&hash) {
            if !std::mem::replace(&mut number.is_shared, true) {
                let mut column = Vec::new();
                encode_times(times, &mut column);
                self.shared.push((number.clock, column));
            }
            return ChunkClock::Known(number.clock);
        }
        let start = out.len();
        encode_times(times, out);
        let column = &out[start..];
        let (first_ms, last_ms) = (times[0], times[times.len() - 1]);
        self.numbers.insert(hash, Number { clock: self.numbers.len() as u32, is_shared: false });
        ChunkClock::New(Clock {
            offset,
            first_ms,
            span_ms: (last_ms - first_ms) as u32,
            len: column.len() as u32,
            count: times.len() as u32,
            crc: crc32fast::hash(column),
        })
    }

    /// The numbers and columns of clocks that turned out to be shared since the last call.
    pub(super) fn take_shared(&mut self) -> Vec<(u32, Vec<u8>)> {
        std::mem::take(&mut self.shared)
    }

    fn hash(&mut self, times: &[i64]) -> u128 {
        // Differences fit 32 bits within a chunk's span, so half the bytes are hashed.
        let first = times[0];
        self.hashed.clear();
        self.hashed.extend_from_slice(&first.to_le_bytes());
        self.hashed.extend(times.iter().flat_map(|time| ((time - first) as u32).to_le_bytes()));
        xxh3_128_with_seed(&self.hashed, self.key)
    }
}
