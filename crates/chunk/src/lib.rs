//! Compressed columns of one series: values and timestamps, to bytes and back, bit for bit.
//!
//! ```text
//! head ── seal ───► encode_values ─► bytes in a run, a head file or a block
//! large merge ────► DenseEncoder ──► bytes in a block that is kept long
//! scan ◄── f64s ◄── decode_values ◄─ the same bytes, mapped
//! ```
//!
//! A column is a tag byte and a payload; several codecs compete and the smallest wins. Most
//! values came from decimal text, so the common codec divides integer mantissas by one power
//! of ten and packs the differences of the mantissas in groups of 64 ([`values`], [`ints`],
//! [`group`]). What repeats itself goes under zstd, where that is asked for and saves much
//! ([`dense`]). Histograms are columns of sums, counts and buckets ([`histograms`]). How many samples a column has, and its checksum, stand with whoever stores it.
//!
//! Invariants: every `f64` survives with all its bits, NaN payloads included; no column is
//! longer than raw by more than its tag; equal input gives equal bytes; no input makes a
//! decoder panic, and none allocates for more than [`COUNT_MAX`] samples.
//!
//! Not here: which samples form a run (`tsdb`), checksums and files (`tsdb`, `wal`).

#![forbid(unsafe_code)]

mod decimal;
mod dense;
mod group;
mod histograms;
mod ints;
mod near;
mod times;
mod unpack;
mod values;
mod varint;
mod xor;

pub use dense::DenseEncoder;
pub use histograms::{
    BUCKETS_MAX, CELLS_MAX, HistogramEncoder, decode_float_histograms, decode_histograms, fits, kind_of,
    stretch_len,
};
pub use times::{decode_times, encode_times};
pub use values::{Encoder, ValueCodec, decode_values, decode_values_range, encode_values, value_codec};

/// Samples that one column may hold. A decoder refuses a larger count before it allocates: a
/// constant column is two bytes whatever its count, so its length can not bound the memory.
pub const COUNT_MAX: usize = 1 << 13;

/// What the samples of a stored run are. Written as one byte by the formats that hold columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SampleKind {
    Float = 0,
    /// Native histograms with integer counts.
    Histogram = 1,
    /// Native histograms with float counts.
    FloatHistogram = 2,
}

impl SampleKind {
    pub fn of(byte: u8) -> Option<SampleKind> {
        [SampleKind::Float, SampleKind::Histogram, SampleKind::FloatHistogram]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Why a column could not be decoded. The bytes are not what an encoder wrote: quarantine them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The bytes end before the samples do.
    #[error("the column is cut short")]
    Short,
    /// All samples were read and bytes are left.
    #[error("the column has bytes after its last sample")]
    Long,
    /// A newer release may know this codec.
    #[error("column codec {0} is not known")]
    Codec(u8),
    /// More samples than a column may hold.
    #[error("a column of {0} samples is over the limit of {COUNT_MAX}")]
    Count(usize),
    /// A field has a value that no encoder writes.
    #[error("the column's {0} is out of range")]
    Field(&'static str),
}
