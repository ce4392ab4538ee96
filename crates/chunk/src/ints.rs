//! A column of integers: differences of the best order, without the low bits that are clear in
//! all of them, in groups of 64.
//!
//! ```text
//! mode       u8      bits 0..2 order, bit 2 biased, bit 3 flat, bit 4 shifted, bit 5 planes,
//!                    others zero
//! shift      u8      1..=63; only where shifted
//! first      signed  the first integer; of order 0: the smallest
//! step       signed  order 2: the first difference
//! bias       signed  biased: the smallest residual
//! groups     …       the residuals, see `group`; none where flat
//! ```
//!
//! In place of groups there may be planes, for a compressor to look at (`dense`): a byte that says how
//! many, 1..=8, then the lowest byte of each residual, the second of each, and so on.
//!
//! `signed` is a folded varint. The residual of order 0 is the integer less the smallest, of
//! order 1 the difference to the one before, of order 2 the difference of differences. A biased
//! column stores residuals less their smallest, others fold the sign into the lowest bit. Flat
//! means that all stored residuals are zero: the integers lie on a line.
//!
//! All arithmetic wraps, so that images of any bits pass, and hostile bytes only give odd numbers.

use crate::ChunkError;
use crate::group;
use crate::unpack::GROUP;
use crate::varint::{fold, put_signed, take_byte, take_bytes, take_signed, unfold};

const BIASED: u8 = 1 << 2;
const FLAT: u8 = 1 << 3;
const SHIFTED: u8 = 1 << 4;
const PLANES: u8 = 1 << 5;
const MODE_BITS: u8 = 0b11_1111;

/// How residuals are laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In few bits.
    #[default]
    Groups,
    /// In bytes. Trying other orders than the one that groups would have gains a fiftieth.
    Planes,
}

/// Memory of an encoder, kept from column to column.
#[derive(Debug, Default)]
pub(crate) struct IntScratch {
    pub(crate) layout: Layout,
    differences: [Vec<i64>; 2],
    residuals: Vec<u64>,
    /// Union and count of the nonzero residuals of each group.
    groups: Vec<(u64, usize)>,
}

/// How a column's residuals are formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Above the smallest.
    Level { smallest: i64 },
    /// Differences of the order, their sign folded.
    Folded { order: u8 },
    /// Differences of the order, above the smallest of them.
    Biased { order: u8, smallest: i64 },
}

/// Appends `ints`, at least one.
pub(crate) fn encode(ints: &[i64], scratch: &mut IntScratch, out: &mut Vec<u8>) {
    let IntScratch { layout, differences: [first, second], residuals, groups } = scratch;
    differences_of(ints, first);
    differences_of(first, second);
    let shape = best_shape(ints, first, second, groups);
    let (order, biased, source) = match shape {
        Shape::Level { .. } => (0, false, ints),
        Shape::Folded { order: 1 } => (1, false, &first[..]),
        Shape::Folded { .. } => (2, false, &second[..]),
        Shape::Biased { order: 1, .. } => (1, true, &first[..]),
        Shape::Biased { .. } => (2, true, &second[..]),
    };
    let shift = fill_residuals(source, shape, residuals);
    let flat = shift.is_none();
    let shift = shift.unwrap_or(0);
    out.push(
        order
            | if biased { BIASED } else { 0 }
            | if flat { FLAT } else { 0 }
            | if shift > 0 { SHIFTED } else { 0 }
            | if *layout == Layout::Groups || flat { 0 } else { PLANES },
    );
    if shift > 0 {
        out.push(shift as u8);
    }
    put_signed(out, if let Shape::Level { smallest } = shape { smallest } else { ints[0] });
    if order == 2 {
        put_signed(out, first[0]);
    }
    if let Shape::Biased { smallest, .. } = shape {
        put_signed(out, smallest);
    }
    match layout {
        _ if flat => {}
        Layout::Groups => residuals.chunks(GROUP).for_each(|values| group::encode(values, out)),
        Layout::Planes => put_planes(residuals, out),
    }
}

fn put_planes(residuals: &[u64], out: &mut Vec<u8>) {
    let union = residuals.iter().fold(0, |union, residual| union | residual);
    let planes = (64 - union.leading_zeros()).div_ceil(8).max(1);
    out.push(planes as u8);
    for plane in 0..planes {
        out.extend(residuals.iter().map(|residual| (residual >> (8 * plane)) as u8));
    }
}

fn differences_of(ints: &[i64], out: &mut Vec<i64>) {
    out.clear();
    out.extend(ints.iter().zip(ints.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a)));
}

/// The shape of the fewest estimated bits; of equals the lower order, which decodes faster.
fn best_shape(ints: &[i64], first: &[i64], second: &[i64], groups: &mut Vec<(u64, usize)>) -> Shape {
    let smallest = |values: &[i64]| values.iter().copied().min().unwrap_or(0);
    let level = smallest(ints);
    let level_bits = signed_bits(level) + estimate(ints, groups, |v| v.wrapping_sub(level));
    let mut best = (level_bits, Shape::Level { smallest: level });
    let mut head = signed_bits(ints[0]);
    for (order, values) in [(1, first), (2, second)] {
        if values.is_empty() {
            break;
        }
        let low = smallest(values);
        let biased = head + signed_bits(low) + estimate(values, groups, |v| v.wrapping_sub(low));
        if biased < best.0 {
            best = (biased, Shape::Biased { order, smallest: low });
        }
        if low < 0 {
            // A bit for each sign. The magnitude has the same low zero bits.
            let folded = head + estimate(values, groups, i64::wrapping_abs) + values.len();
            if folded < best.0 {
                best = (folded, Shape::Folded { order });
            }
        }
        head += signed_bits(values[0]);
    }
    best.1
}

/// Bits of a folded varint.
fn signed_bits(value: i64) -> usize {
    (64 - (fold(value) | 1).leading_zeros() as usize).div_ceil(7) * 8
}

#[inline]
fn estimate(values: &[i64], groups: &mut Vec<(u64, usize)>, residual: impl Fn(i64) -> i64) -> usize {
    groups.clear();
    let mut all = 0;
    for values in values.chunks(GROUP) {
        let (mut union, mut nonzero) = (0, 0);
        for &value in values {
            let residual = residual(value) as u64;
            union |= residual;
            nonzero += usize::from(residual != 0);
        }
        all |= union;
        groups.push((union, nonzero));
    }
    if all == 0 {
        return 0;
    }
    let shift = all.trailing_zeros();
    let last = groups.len() - 1;
    let count_of = |group| if group < last { GROUP } else { values.len() - last * GROUP };
    groups
        .iter()
        .enumerate()
        .map(|(i, (union, nonzero))| group::estimate(count_of(i), union >> shift, *nonzero))
        .sum()
}

/// Fills in the stored residuals and gives the shift that was taken out of them; `None` where
/// all are zero.
fn fill_residuals(source: &[i64], shape: Shape, residuals: &mut Vec<u64>) -> Option<u32> {
    residuals.clear();
    let bias = match shape {
        Shape::Level { smallest } | Shape::Biased { smallest, .. } => Some(smallest),
        Shape::Folded { .. } => None,
    };
    let union = source.iter().fold(0, |union, v| union | v.wrapping_sub(bias.unwrap_or(0)));
    if union == 0 {
        return None;
    }
    let shift = union.trailing_zeros();
    match bias {
        Some(bias) => residuals.extend(source.iter().map(|v| v.wrapping_sub(bias) as u64 >> shift)),
        None => residuals.extend(source.iter().map(|v| fold(v >> shift))),
    }
    Some(shift)
}

/// A column's fields, read and checked; the groups are still to come.
struct Head {
    order: u8,
    biased: bool,
    flat: bool,
    planes: bool,
    shift: u32,
    first: i64,
    step: i64,
    bias: i64,
}

fn take_head(input: &mut &[u8]) -> Result<Head, ChunkError> {
    let mode = take_byte(input)?;
    let order = mode & 3;
    let biased = mode & BIASED != 0;
    if mode & !MODE_BITS != 0
        || order == 3
        || (order == 0 && biased)
        || mode & (FLAT | PLANES) == FLAT | PLANES
    {
        return Err(ChunkError::Field("mode"));
    }
    let shift = if mode & SHIFTED != 0 { take_byte(input)? } else { 0 };
    if shift > 63 {
        return Err(ChunkError::Field("shift"));
    }
    Ok(Head {
        order,
        biased,
        flat: mode & FLAT != 0,
        planes: mode & PLANES != 0,
        shift: u32::from(shift),
        first: take_signed(input)?,
        step: if order == 2 { take_signed(input)? } else { 0 },
        bias: if biased { take_signed(input)? } else { 0 },
    })
}

/// Takes `count` integers off the front of `input` and hands them on in pieces of at most 64,
/// each with the index of its first. `count` is at least one.
#[inline(always)]
pub(crate) fn decode(
    input: &mut &[u8],
    count: usize,
    mut visit: impl FnMut(usize, &[i64]),
) -> Result<(), ChunkError> {
    let head = take_head(input)?;
    let mut state = State { last: head.first, step: head.step };
    let mut at = 0;
    if head.order >= 1 {
        visit(0, &[state.last]);
        at = 1;
    }
    if head.order == 2 && count > 1 {
        state.last = state.last.wrapping_add(state.step);
        visit(1, &[state.last]);
        at = 2;
    }
    let mut residuals = [0; GROUP];
    let mut ints = [0; GROUP];
    let mut planes = if head.planes { take_planes(input, count - at)? } else { Planes::default() };
    while at < count {
        let len = (count - at).min(GROUP);
        if head.planes {
            planes.next(len, &mut residuals);
        } else if !head.flat {
            group::decode(input, len, &mut residuals)?;
        }
        head.sum(&residuals, &mut state, &mut ints);
        visit(at, &ints[..len]);
        at += len;
    }
    Ok(())
}

/// The planes of a column, and how many residuals of it were read.
#[derive(Default)]
struct Planes<'a> {
    bytes: &'a [u8],
    count: usize,
    at: usize,
}

fn take_planes<'a>(input: &mut &'a [u8], count: usize) -> Result<Planes<'a>, ChunkError> {
    let planes = usize::from(take_byte(input)?);
    if !(1..=8).contains(&planes) {
        return Err(ChunkError::Field("count of planes"));
    }
    Ok(Planes { bytes: take_bytes(input, count * planes)?, count, at: 0 })
}

impl Planes<'_> {
    /// Fills in the next residuals; those after the last are arbitrary.
    fn next(&mut self, len: usize, residuals: &mut [u64; GROUP]) {
        *residuals = [0; GROUP];
        for (number, plane) in self.bytes.chunks_exact(self.count).enumerate() {
            let bytes = &plane[self.at..self.at + len];
            for (residual, byte) in residuals.iter_mut().zip(bytes) {
                *residual |= u64::from(*byte) << (8 * number);
            }
        }
        self.at += len;
    }
}

/// Where the sums stand after the integers so far.
struct State {
    last: i64,
    step: i64,
}

impl Head {
    /// Turns residuals back into integers (bench: `chunk/decode`). The decision is made once for
    /// a group, so that each loop is plain.
    #[inline]
    fn sum(&self, residuals: &[u64; GROUP], state: &mut State, ints: &mut [i64; GROUP]) {
        let (shift, bias) = (self.shift, self.bias);
        let pairs = ints.iter_mut().zip(residuals);
        match (self.order, self.biased) {
            (0, _) => pairs.for_each(|(int, r)| *int = self.first.wrapping_add((r << shift) as i64)),
            (1, true) => pairs.for_each(|(int, r)| *int = state.first_order((r << shift) as i64, bias)),
            (1, false) => pairs.for_each(|(int, r)| *int = state.first_order(unfold(*r) << shift, 0)),
            (_, true) => pairs.for_each(|(int, r)| *int = state.second_order((r << shift) as i64, bias)),
            (_, false) => pairs.for_each(|(int, r)| *int = state.second_order(unfold(*r) << shift, 0)),
        }
    }
}

impl State {
    #[inline(always)]
    fn first_order(&mut self, residual: i64, bias: i64) -> i64 {
        self.last = self.last.wrapping_add(residual.wrapping_add(bias));
        self.last
    }

    #[inline(always)]
    fn second_order(&mut self, residual: i64, bias: i64) -> i64 {
        self.step = self.step.wrapping_add(residual.wrapping_add(bias));
        self.first_order(self.step, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ints: &[i64], bytes: &[u8]) {
        let mut out = Vec::new();
        encode(ints, &mut IntScratch::default(), &mut out);
        assert_eq!(out, bytes);
        let (mut back, mut input) = (Vec::new(), &out[..]);
        decode(&mut input, ints.len(), |at, piece| {
            assert_eq!(at, back.len());
            back.extend_from_slice(piece);
        })
        .expect("just encoded");
        assert_eq!((&back[..], input), (ints, &[][..]));
    }

    #[test]
    fn the_order_follows_the_shape_of_the_data() {
        // A level: order 0, flat.
        check(&[7; 200], &[0b1000, 14]);
        // A line: order 1, biased and flat.
        let line: Vec<i64> = (0..200).map(|i| 1_000 + i * 15_000).collect();
        check(&line, &[0b1101, 0xd0, 0x0f, 0xb0, 0xea, 0x01]);
        // Noise around a level, in units of 4096: order 0, shifted.
        check(&[40_960, 45_056, 36_864, 45_056], &[0b1_0000, 12, 0x80, 0xc0, 0x04, 2, 0b10_00_10_01]);
        // A line with noise: order 1, above the smallest difference.
        check(&[0, 100, 201, 300, 401, 500, 602], &[0b101, 0, 0xc6, 0x01, 2, 0b10_00_10_01, 0b11_00]);
        // Every difference wraps.
        check(
            &[i64::MIN, i64::MAX, i64::MIN],
            &[0b1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 2, 0b10_01],
        );
    }
}
