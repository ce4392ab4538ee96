//! Columns of float values: which codec, and the tag that says so.
//!
//! ```text
//! codec     payload
//! 0 raw       8 bytes a sample
//! 1 constant  the bits, most significant byte first, without their trailing zero bytes
//! 2 decimal   see `decimal`
//! 3 image     the bits as integers in the order of the doubles, see `ints`
//! 4 xor       see `xor`
//! 5 near      decimals that arithmetic has moved by a few places, see `near`
//! 6 dense     one of 2, 3 and 5 as bytes under zstd, see `dense`
//! ```
//!
//! A column of no samples is the single byte 0. The image of a double is its bits as `i64`, all
//! but the sign inverted where it is negative: neighbours in value are neighbours as integers.

use std::ops::Range;

use crate::decimal::{self, DecimalScratch};
use crate::dense;
use crate::ints::{self, IntScratch, Layout};
use crate::near;
use crate::varint::take_byte;
use crate::xor;
use crate::{COUNT_MAX, ChunkError};

/// The codec of a column of values, for statistics and benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ValueCodec {
    Raw = 0,
    Constant = 1,
    Decimal = 2,
    Image = 3,
    Xor = 4,
    Near = 5,
    Dense = 6,
}

/// A decimal column shorter than this many bits a sample needs no rival.
const DECIMAL_GOOD_BITS: usize = 24;

/// Where the image does better than this, XOR does worse.
const IMAGE_GOOD_BITS: usize = 12;

/// Encodes columns, and keeps its memory between them.
#[derive(Debug, Default)]
pub struct Encoder {
    decimal: DecimalScratch,
    ints: IntScratch,
    images: Vec<i64>,
    rival: Vec<u8>,
}

impl Encoder {
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Appends the shortest column for `values` to `out` and tells which codec that was.
    ///
    /// # Panics
    /// If there are more than [`COUNT_MAX`].
    pub fn encode(&mut self, values: &[f64], out: &mut Vec<u8>) -> ValueCodec {
        assert!(values.len() <= COUNT_MAX, "a column has at most COUNT_MAX samples");
        let Some(first) = values.first() else {
            out.push(ValueCodec::Raw as u8);
            return ValueCodec::Raw;
        };
        let start = out.len();
        let bits = first.to_bits();
        if values.iter().fold(0, |differ, value| differ | (value.to_bits() ^ bits)) == 0 {
            out.push(ValueCodec::Constant as u8);
            let len = 8 - bits.trailing_zeros() as usize / 8;
            out.extend_from_slice(&bits.to_be_bytes()[..len]);
            return ValueCodec::Constant;
        }
        let mut best = None;
        if let Some(scale) = decimal::find_scale(values) {
            out.push(ValueCodec::Decimal as u8);
            decimal::encode(values, scale.exponent, &mut self.decimal, &mut self.ints, out);
            if scale.misfits == 0 && (out.len() - start) * 8 <= values.len() * DECIMAL_GOOD_BITS {
                return ValueCodec::Decimal;
            }
            best = Some(ValueCodec::Decimal);
        }
        for codec in [ValueCodec::Near, ValueCodec::Image, ValueCodec::Xor, ValueCodec::Raw] {
            let size = out.len() - start;
            if best.is_some() && !worth_trying(codec, size * 8 / values.len()) {
                continue;
            }
            self.rival.clear();
            if self.encode_rival(codec, values) && (best.is_none() || self.rival.len() < size) {
                out.truncate(start);
                out.extend_from_slice(&self.rival);
                best = Some(codec);
            }
        }
        best.expect("raw always competes")
    }

    /// Lays `values`, at least one, out in bytes as a column of this codec, of decimals, near ones or
    /// images; `None` where it can not hold them.
    pub(crate) fn lay_out(&mut self, codec: ValueCodec, values: &[f64]) -> Option<&[u8]> {
        self.ints.layout = Layout::Planes;
        self.rival.clear();
        let holds = self.encode_rival(codec, values);
        self.ints.layout = Layout::Groups;
        holds.then_some(&self.rival)
    }

    /// Encodes into `rival`; false where the codec can not hold these values.
    fn encode_rival(&mut self, codec: ValueCodec, values: &[f64]) -> bool {
        let Encoder { decimal, ints, images, rival } = self;
        rival.push(codec as u8);
        match codec {
            ValueCodec::Decimal => {
                let Some(scale) = decimal::find_scale(values) else { return false };
                decimal::encode(values, scale.exponent, decimal, ints, rival);
            }
            ValueCodec::Near => return near::encode(values, decimal, ints, images, rival),
            ValueCodec::Image => {
                images.clear();
                images.extend(values.iter().map(|value| to_image(*value)));
                ints::encode(images, ints, rival);
            }
            ValueCodec::Xor => xor::encode(values, rival),
            _ => values.iter().for_each(|v| rival.extend_from_slice(&v.to_bits().to_le_bytes())),
        }
        true
    }
}

/// Whether a codec may beat one that takes this many bits a sample.
fn worth_trying(codec: ValueCodec, bits: usize) -> bool {
    match codec {
        ValueCodec::Image => bits > DECIMAL_GOOD_BITS,
        ValueCodec::Xor => bits > IMAGE_GOOD_BITS,
        ValueCodec::Raw => bits >= 64,
        _ => true,
    }
}

/// Appends the shortest column for `values` to `out`. See [`Encoder`] for many columns.
///
/// # Panics
/// If there are more than [`COUNT_MAX`].
pub fn encode_values(values: &[f64], out: &mut Vec<u8>) {
    Encoder::new().encode(values, out);
}

/// The codec that a column's first byte names.
pub fn value_codec(bytes: &[u8]) -> Result<ValueCodec, ChunkError> {
    Ok(match *bytes.first().ok_or(ChunkError::Short)? {
        0 => ValueCodec::Raw,
        1 => ValueCodec::Constant,
        2 => ValueCodec::Decimal,
        3 => ValueCodec::Image,
        4 => ValueCodec::Xor,
        5 => ValueCodec::Near,
        6 => ValueCodec::Dense,
        other => return Err(ChunkError::Codec(other)),
    })
}

/// Appends the `count` values of a column to `out`; on an error `out` is as it was.
pub fn decode_values(bytes: &[u8], count: usize, out: &mut Vec<f64>) -> Result<(), ChunkError> {
    if count > COUNT_MAX {
        return Err(ChunkError::Count(count));
    }
    let start = out.len();
    out.resize(start + count, 0.0);
    let result = decode_whole(bytes, &mut out[start..]);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends the values of `range` of a column of `count` to `out`. Differences have to be summed
/// from the start, so this costs as much as decoding up to the end of the range.
pub fn decode_values_range(
    bytes: &[u8],
    count: usize,
    range: Range<usize>,
    out: &mut Vec<f64>,
) -> Result<(), ChunkError> {
    if count > COUNT_MAX {
        return Err(ChunkError::Count(count));
    }
    assert!(range.start <= range.end && range.end <= count, "the range lies within the column");
    let start = out.len();
    decode_values(bytes, count, out)?;
    out.truncate(start + range.end);
    out.drain(start..start + range.start);
    Ok(())
}

pub(crate) fn decode_whole(bytes: &[u8], out: &mut [f64]) -> Result<(), ChunkError> {
    let codec = value_codec(bytes)?;
    let mut input = bytes;
    take_byte(&mut input)?;
    if out.is_empty() {
        return if codec == ValueCodec::Raw && input.is_empty() { Ok(()) } else { Err(ChunkError::Long) };
    }
    match codec {
        ValueCodec::Raw => decode_raw(&mut input, out)?,
        ValueCodec::Constant => out.fill(take_constant(&mut input)?),
        ValueCodec::Decimal => decimal::decode(&mut input, out)?,
        ValueCodec::Image => ints::decode(&mut input, out.len(), |at, images| {
            for (value, image) in out[at..at + images.len()].iter_mut().zip(images) {
                *value = from_image(*image);
            }
        })?,
        ValueCodec::Xor => xor::decode(&mut input, out)?,
        ValueCodec::Near => near::decode(&mut input, out)?,
        ValueCodec::Dense => return dense::decode(input, out),
    }
    if input.is_empty() { Ok(()) } else { Err(ChunkError::Long) }
}

fn decode_raw(input: &mut &[u8], out: &mut [f64]) -> Result<(), ChunkError> {
    let (values, rest) = input.as_chunks::<8>();
    if values.len() < out.len() || !rest.is_empty() {
        return Err(ChunkError::Short);
    }
    for (out, bytes) in out.iter_mut().zip(values) {
        *out = f64::from_bits(u64::from_le_bytes(*bytes));
    }
    *input = &input[out.len() * 8..];
    Ok(())
}

fn take_constant(input: &mut &[u8]) -> Result<f64, ChunkError> {
    if input.len() > 8 {
        return Err(ChunkError::Long);
    }
    let mut bits = [0; 8];
    bits[..input.len()].copy_from_slice(input);
    *input = &[];
    Ok(f64::from_bits(u64::from_be_bytes(bits)))
}

/// Neighbours in value are neighbours as integers, over zero too.
#[inline(always)]
pub(crate) fn to_image(value: f64) -> i64 {
    fold_sign(value.to_bits() as i64)
}

#[inline(always)]
pub(crate) fn from_image(image: i64) -> f64 {
    f64::from_bits(fold_sign(image) as u64)
}

/// Inverts all but the sign of what is negative, and the same again leads back.
#[inline(always)]
fn fold_sign(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}
