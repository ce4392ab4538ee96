//! Dense columns: a column laid out in bytes under zstd, where that saves much.
//!
//! ```text
//! codec   u8   6
//! frame   …    a zstd frame of one column, without its four bytes of magic; it says how long its
//!              content is. The column is decimal, image or near, its integers in planes (`ints`).
//! ```
//!
//! Bits packed one after the other leave a compressor nothing to see. As bytes, a series that repeats
//! itself is found out: a job of every ten minutes, a set of few values, a load that a test replays. What
//! comes from elsewhere (noise, a busy machine's counters) groups pack as well, and decode faster: so
//! a column is dense only where that saves a fifth. Longer columns leave more to find.
//!
//! Equal input gives equal bytes, as long as the release of zstd stays.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{compress_bound, find_frame_compressed_size, get_frame_content_size};

use crate::ChunkError;
use crate::values::{Encoder, ValueCodec, decode_whole, value_codec};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Of a column that is shorter, headers and tables of a frame would be a large part.
const SHORTEST: usize = 64;

/// Level 6 gains a twentieth where there is anything to gain, and takes twice as long.
const LEVEL: i32 = 3;

/// What a column laid out in bytes may take at most: two lists of integers, and patches.
fn content_max(count: usize) -> usize {
    64 + count * 32
}

/// Encodes columns that are to be read rarely and kept long, and keeps its memory between them.
pub struct DenseEncoder {
    plain: Encoder,
    compressor: Compressor<'static>,
    frame: Vec<u8>,
}

impl std::fmt::Debug for DenseEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DenseEncoder").finish_non_exhaustive()
    }
}

impl Default for DenseEncoder {
    fn default() -> DenseEncoder {
        DenseEncoder::new()
    }
}

impl DenseEncoder {
    pub fn new() -> DenseEncoder {
        DenseEncoder {
            plain: Encoder::new(),
            compressor: Compressor::new(LEVEL).expect("the level is one of zstd's"),
            frame: Vec::new(),
        }
    }

    /// As [`Encoder::encode`], or a dense column where that is clearly shorter.
    ///
    /// # Panics
    /// If there are more than [`crate::COUNT_MAX`].
    pub fn encode(&mut self, values: &[f64], out: &mut Vec<u8>) -> ValueCodec {
        let start = out.len();
        let codec = self.plain.encode(values, out);
        let plain_len = out.len() - start;
        if plain_len < SHORTEST {
            return codec;
        }
        let inner = match codec {
            ValueCodec::Decimal | ValueCodec::Near => codec,
            _ => ValueCodec::Image,
        };
        let column = self.plain.lay_out(inner, values).expect("it held them in groups");
        assert!(column.len() <= content_max(values.len()), "a decoder would refuse it");
        self.frame.clear();
        self.frame.reserve(compress_bound(column.len()));
        self.compressor.compress_to_buffer(column, &mut self.frame).expect("there is room for any frame");
        let (magic, frame) = self.frame.split_at(MAGIC.len());
        assert_eq!(magic, MAGIC, "zstd's frames begin with their magic");
        if (1 + frame.len()) * 5 > plain_len * 4 {
            return codec;
        }
        out.truncate(start);
        out.push(ValueCodec::Dense as u8);
        out.extend_from_slice(frame);
        ValueCodec::Dense
    }
}

/// What a thread that decodes needs, made when it first does: 160 KB.
struct Decoder {
    decompressor: Decompressor<'static>,
    frame: Vec<u8>,
    column: Vec<u8>,
}

thread_local! {
    static DECODER: RefCell<Option<Box<Decoder>>> = const { RefCell::new(None) };
}

/// Fills `out`, at least one sample.
pub(crate) fn decode(input: &[u8], out: &mut [f64]) -> Result<(), ChunkError> {
    DECODER.with_borrow_mut(|decoder| {
        let decoder = decoder.get_or_insert_with(|| {
            let decompressor = Decompressor::default();
            Box::new(Decoder { decompressor, frame: Vec::new(), column: Vec::new() })
        });
        decode_whole(decoder.column(input, out.len())?, out)
    })
}

impl Decoder {
    /// The column in a frame, which is not dense itself.
    fn column(&mut self, input: &[u8], count: usize) -> Result<&[u8], ChunkError> {
        const BROKEN: ChunkError = ChunkError::Field("frame");
        let Decoder { decompressor, frame, column } = self;
        frame.clear();
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(input);
        let len = get_frame_content_size(frame).ok().flatten().ok_or(BROKEN)?;
        let len = usize::try_from(len).ok().filter(|len| *len <= content_max(count)).ok_or(BROKEN)?;
        if find_frame_compressed_size(frame).ok() != Some(frame.len()) {
            return Err(ChunkError::Long);
        }
        column.clear();
        column.reserve(len);
        decompressor.decompress_to_buffer(frame, column).map_err(|_| BROKEN)?;
        if column.len() != len {
            return Err(BROKEN);
        }
        match value_codec(column)? {
            ValueCodec::Decimal | ValueCodec::Image | ValueCodec::Near => Ok(column),
            other => Err(ChunkError::Codec(other as u8)),
        }
    }
}
