//! Little-endian base-128 integers, and signed ones folded so that small magnitudes stay short.

use crate::ChunkError;

pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, fold(value));
}

/// Takes one integer off the front of `input`.
pub(crate) fn take(input: &mut &[u8]) -> Result<u64, ChunkError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first().ok_or(ChunkError::Short)?;
        *input = rest;
        // The tenth byte has room for one bit only.
        if shift == 63 && byte > 1 {
            return Err(ChunkError::Field("varint"));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(ChunkError::Field("varint"))
}

pub(crate) fn take_signed(input: &mut &[u8]) -> Result<i64, ChunkError> {
    take(input).map(unfold)
}

/// 0, -1, 1, -2, … to 0, 1, 2, 3, …
#[inline(always)]
pub(crate) fn fold(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline(always)]
pub(crate) fn unfold(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub(crate) fn take_byte(input: &mut &[u8]) -> Result<u8, ChunkError> {
    let (&byte, rest) = input.split_first().ok_or(ChunkError::Short)?;
    *input = rest;
    Ok(byte)
}

pub(crate) fn take_bytes<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], ChunkError> {
    let (bytes, rest) = input.split_at_checked(len).ok_or(ChunkError::Short)?;
    *input = rest;
    Ok(bytes)
}
