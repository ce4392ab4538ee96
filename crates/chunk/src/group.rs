//! A group: up to 64 unsigned residuals in as few bits as their shape allows.
//!
//! ```text
//! header     what follows, for n values
//!      0     nothing: all are zero
//!   1..=64   plain: n values of `header` bits
//!  65..=128  masked: ceil(n/8) bytes that tell which are not zero; those, of header-64 bits
//! 129..=192  sparse: count, that many positions (a byte each); those values, of header-128 bits
//! 193..=255  patched: count, high width, that many positions; n values of header-193 bits, then
//!            the bits above them of those that are wider, of `high width` bits
//! ```
//!
//! Masked serves counters that often stand still, sparse those that rarely move, and patched a
//! reset or a spike, which must not widen its 63 neighbours.

use crate::ChunkError;
use crate::unpack::{GROUP, pack, packed_len, unpack};
use crate::varint::{take_byte, take_bytes};

const MASKED: u32 = 64;
const SPARSE: u32 = 128;
const PATCHED: u32 = 193;
const PATCHED_WIDTH_MAX: u32 = 62;

/// A wider value costs a position and its high bits; with more than this many, a group is wide.
const PATCHES_MAX: u32 = 12;

/// Bits of the shortest of the plain, masked and sparse shapes: an estimate that needs only the
/// union of the values and the count of those that are not zero.
#[inline]
pub(crate) fn estimate(count: usize, union: u64, nonzero: usize) -> usize {
    let width = (64 - union.leading_zeros()) as usize;
    let masked = count + nonzero * width;
    let sparse = 8 + nonzero * (8 + width);
    8 + (count * width).min(masked).min(sparse)
}

pub(crate) fn encode(values: &[u64], out: &mut Vec<u8>) {
    debug_assert!(!values.is_empty() && values.len() <= GROUP);
    let union = values.iter().fold(0, |union, value| union | value);
    if union == 0 {
        out.push(0);
        return;
    }
    let width = 64 - union.leading_zeros();
    let (count, nonzero) = (values.len(), values.iter().filter(|value| **value != 0).count());
    let plain = packed_len(count, width);
    let masked = count.div_ceil(8) + packed_len(nonzero, width);
    let sparse = 1 + nonzero + packed_len(nonzero, width);
    let best = plain.min(masked).min(sparse);
    if let Some(low) = patched_width(values, width, best) {
        encode_patched(values, low, width - low, out);
    } else if best == plain {
        out.push(width as u8);
        pack(values, width, out);
    } else {
        encode_nonzero(values, width, masked <= sparse, out);
    }
}

/// The width below which a patched group is the shortest and shorter than `best` bytes.
fn patched_width(values: &[u64], width: u32, best: usize) -> Option<u32> {
    // Two bytes of header and two for a patch: nothing to gain in groups this short.
    if width < 3 || best < 8 {
        return None;
    }
    let mut widths = [0u8; 65];
    for value in values {
        widths[(64 - value.leading_zeros()) as usize] += 1;
    }
    let (mut wider, mut winner) = (0u32, (best, None));
    for low in (0..width).rev() {
        wider += u32::from(widths[low as usize + 1]);
        if wider > PATCHES_MAX {
            break;
        }
        let patches = wider as usize;
        let size = 2 + patches + packed_len(values.len(), low) + packed_len(patches, width - low);
        if size < winner.0 && low <= PATCHED_WIDTH_MAX {
            winner = (size, Some(low));
        }
    }
    winner.1
}

fn encode_patched(values: &[u64], low: u32, high: u32, out: &mut Vec<u8>) {
    let mut tops = [0u64; GROUP];
    let mut top_count = 0;
    out.extend_from_slice(&[(PATCHED + low) as u8, 0, high as u8]);
    let count_at = out.len() - 2;
    for (position, value) in values.iter().enumerate() {
        if value >> low != 0 {
            tops[top_count] = value >> low;
            top_count += 1;
            out.push(position as u8);
        }
    }
    out[count_at] = top_count as u8;
    if low > 0 {
        let mut lows = [0u64; GROUP];
        for (low_part, value) in lows.iter_mut().zip(values) {
            *low_part = value & ((1 << low) - 1);
        }
        pack(&lows[..values.len()], low, out);
    }
    pack(&tops[..top_count], high, out);
}

fn encode_nonzero(values: &[u64], width: u32, masked: bool, out: &mut Vec<u8>) {
    let mut kept = [0u64; GROUP];
    let (mut count, mut mask) = (0, 0u64);
    for (position, &value) in values.iter().enumerate() {
        kept[count] = value;
        count += usize::from(value != 0);
        mask |= u64::from(value != 0) << position;
    }
    if masked {
        out.push((MASKED + width) as u8);
        out.extend_from_slice(&mask.to_le_bytes()[..values.len().div_ceil(8)]);
    } else {
        out.extend_from_slice(&[(SPARSE + width) as u8, count as u8]);
        out.extend((0..values.len()).filter(|position| mask >> position & 1 == 1).map(|p| p as u8));
    }
    pack(&kept[..count], width, out);
}

/// Takes a group of `count` values, at most 64, off the front of `input`. Values after the last
/// are arbitrary.
#[inline]
pub(crate) fn decode(input: &mut &[u8], count: usize, out: &mut [u64; GROUP]) -> Result<(), ChunkError> {
    debug_assert!(count <= GROUP);
    let header = u32::from(take_byte(input)?);
    match header {
        0 => *out = [0; GROUP],
        1..=MASKED => take_packed(input, count, header, out)?,
        65..=SPARSE => decode_masked(input, count, header - MASKED, out)?,
        129..PATCHED => decode_sparse(input, count, header - SPARSE, out)?,
        _ => decode_patched(input, count, header - PATCHED, out)?,
    }
    Ok(())
}

#[inline]
fn take_packed(
    input: &mut &[u8],
    count: usize,
    width: u32,
    out: &mut [u64; GROUP],
) -> Result<(), ChunkError> {
    let len = packed_len(count, width);
    if input.len() < len {
        return Err(ChunkError::Short);
    }
    unpack(input, width, out);
    *input = &input[len..];
    Ok(())
}

fn decode_masked(
    input: &mut &[u8],
    count: usize,
    width: u32,
    out: &mut [u64; GROUP],
) -> Result<(), ChunkError> {
    let bytes = take_bytes(input, count.div_ceil(8))?;
    let mut mask = [0; 8];
    mask[..bytes.len()].copy_from_slice(bytes);
    let mask = u64::from_le_bytes(mask);
    if count < 64 && mask >> count != 0 {
        return Err(ChunkError::Field("mask"));
    }
    let mut kept = [0; GROUP];
    take_packed(input, mask.count_ones() as usize, width, &mut kept)?;
    let mut next = 0;
    for (position, out) in out.iter_mut().enumerate() {
        // Branch-free: whether a counter moves is not predictable.
        let bit = mask >> position & 1;
        *out = kept[next % GROUP] & bit.wrapping_neg();
        next += bit as usize;
    }
    Ok(())
}

fn decode_sparse(
    input: &mut &[u8],
    count: usize,
    width: u32,
    out: &mut [u64; GROUP],
) -> Result<(), ChunkError> {
    let kept_count = usize::from(take_byte(input)?);
    let positions = take_positions(input, kept_count, count)?;
    let mut kept = [0; GROUP];
    take_packed(input, kept_count, width, &mut kept)?;
    *out = [0; GROUP];
    for (position, value) in positions.iter().zip(kept) {
        out[usize::from(*position) % GROUP] = value;
    }
    Ok(())
}

fn decode_patched(
    input: &mut &[u8],
    count: usize,
    low: u32,
    out: &mut [u64; GROUP],
) -> Result<(), ChunkError> {
    let patches = usize::from(take_byte(input)?);
    let high = u32::from(take_byte(input)?);
    if high == 0 || low + high > 64 {
        return Err(ChunkError::Field("patch width"));
    }
    let positions = take_positions(input, patches, count)?;
    take_packed(input, count, low, out)?;
    let mut tops = [0; GROUP];
    take_packed(input, patches, high, &mut tops)?;
    for (position, top) in positions.iter().zip(tops) {
        out[usize::from(*position) % GROUP] |= top << low;
    }
    Ok(())
}

/// Positions below `count`, and no more of them than that.
fn take_positions<'a>(input: &mut &'a [u8], len: usize, count: usize) -> Result<&'a [u8], ChunkError> {
    if len > count {
        return Err(ChunkError::Field("count of positions"));
    }
    let positions = take_bytes(input, len)?;
    match positions.iter().all(|position| usize::from(*position) < count) {
        true => Ok(positions),
        false => Err(ChunkError::Field("position")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[u64], bytes: &[u8]) {
        let mut out = Vec::new();
        encode(values, &mut out);
        assert_eq!(out, bytes);
        let mut back = [0; GROUP];
        let mut input = &out[..];
        decode(&mut input, values.len(), &mut back).expect("just encoded");
        assert_eq!((&back[..values.len()], input), (values, &[][..]));
    }

    #[test]
    fn each_shape_is_taken_where_it_is_the_shortest() {
        check(&[0; 64], &[0]);
        check(&[3, 1, 2, 3], &[2, 0b11_10_01_11]);
        let mut masked = [0; 20];
        for i in [1, 5, 9, 13, 17] {
            masked[i] = 0xab;
        }
        check(&masked, &[64 + 8, 0x22, 0x22, 0x02, 0xab, 0xab, 0xab, 0xab, 0xab]);
        let mut sparse = [0; 64];
        sparse[7] = 5;
        sparse[63] = 0x1234;
        check(&sparse, &[128 + 13, 2, 7, 63, 0x05, 0x80, 0x46, 0x02]);
        let mut patched = [1; 32];
        patched[30] = 0x1_0001;
        check(&patched, &[193 + 1, 1, 16, 30, 0xff, 0xff, 0xff, 0xff, 0x00, 0x80]);
        check(
            &[u64::MAX; 2],
            &[64, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        );
    }
}
