//! Decimal columns: integer mantissas over one power of ten, with patches for the rest.
//!
//! ```text
//! exponent   u8      bits 0..5 the power of ten, 0..=22; bit 7 patches follow; others zero
//! patches    …       count as varint, at least one; for each the distance to the one before
//!                    as varint (the first: its index), then a code byte, or 0xff and 8 bytes
//! mantissas  …       see `ints`; those of patched samples are the encoder's choice
//! ```
//!
//! A value v that was written with at most 15 digits and e of them after the point is the
//! double nearest to m / 10^e, and so is the quotient of the doubles m and 10^e, as both are exact
//! and division rounds correctly. Multiplying by 10^-e would not be: that is ALP, which must patch.
//!
//! Patches are values that no quotient gives: NaNs (staleness markers above all), infinities,
//! the negative zero, and the odd value of more digits than its neighbours.

use crate::ChunkError;
use crate::ints::{self, IntScratch};
use crate::varint::{put, take, take_byte, take_bytes};

const EXPONENT_MAX: u8 = 22;

/// 10^e, each exact as a double.
const POWERS: [f64; EXPONENT_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

const PATCHED: u8 = 1 << 7;

/// Bits that stand for themselves in a patch, by code. Append only.
const KNOWN_BITS: [u64; 6] = [
    tidewatch_model::STALE_NAN_BITS,
    0x7ff0_0000_0000_0000, // +Inf
    0xfff0_0000_0000_0000, // -Inf
    0x8000_0000_0000_0000, // -0
    0x7ff8_0000_0000_0001, // Prometheus' and Go's NaN
    0x7ff8_0000_0000_0000, // Rust's and most hardware's NaN
];
const OTHER_BITS: u8 = 0xff;

/// 1.5 · 2^52. Added to a double of magnitude below 2^51 it leaves the nearest integer in the low
/// bits, in one addition and without the call that `round` is on old x86-64.
const MAGIC: f64 = 6_755_399_441_055_744.0;

#[inline(always)]
pub(crate) fn to_mantissa(value: f64, power: f64) -> i64 {
    ((value * power + MAGIC).to_bits() as i64).wrapping_sub(MAGIC.to_bits() as i64)
}

#[inline(always)]
pub(crate) fn to_double(mantissa: i64, power: f64) -> f64 {
    (f64::from_bits(mantissa.wrapping_add(MAGIC.to_bits() as i64) as u64) - MAGIC) / power
}

/// Whether the value is a decimal. Beyond 2^51 scaled doubles survive by chance, and so do NaNs
/// on some machines: those are none.
#[inline(always)]
fn fits(value: f64, power: f64) -> bool {
    let double = to_double(to_mantissa(value, power), power);
    (double.to_bits() == value.to_bits()) & ((value * power).abs() < MANTISSA_MAX)
}

const MANTISSA_MAX: f64 = (1u64 << 51) as f64;

/// How well a column is decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) exponent: u8,
    /// Finite values that do not fit and have to be patched.
    pub(crate) misfits: usize,
}

/// The power of ten that suits all but a few of the values; `None` where too many have none.
pub(crate) fn find_scale(values: &[f64]) -> Option<Scale> {
    find_scale_by(values, EXPONENT_MAX, fits)
}

/// The smallest power of ten, up to an exponent, with which all but a few values fit.
pub(crate) fn find_scale_by(
    values: &[f64],
    exponent_max: u8,
    fits: impl Fn(f64, f64) -> bool,
) -> Option<Scale> {
    let mut exponent = 0;
    let mut misfits = 0;
    let mut specials = 0;
    for (at, &value) in values.iter().enumerate() {
        if fits(value, POWERS[exponent]) {
            continue;
        }
        if !value.is_finite() || value.to_bits() == (-0.0f64).to_bits() {
            specials += 1;
            continue;
        }
        match (exponent + 1..=usize::from(exponent_max)).find(|e| fits(value, POWERS[*e])) {
            // Those before have their digits there too.
            Some(larger) => exponent = larger,
            None => misfits += 1,
        }
        // The search costs a division for each exponent: where most do not fit, it ends soon.
        if misfits > values.len() / 16 || misfits > at / 2 + 3 {
            return None;
        }
    }
    (specials <= values.len() / 4 + 1).then_some(Scale { exponent: exponent as u8, misfits })
}

pub(crate) fn power_of(exponent: u8) -> f64 {
    POWERS[usize::from(exponent)]
}

/// Memory of an encoder, kept from column to column.
#[derive(Debug, Default)]
pub(crate) struct DecimalScratch {
    mantissas: Vec<i64>,
    patches: Vec<u32>,
}

/// Appends `values`, at least one. Right for every exponent, but long where it does not suit.
pub(crate) fn encode(
    values: &[f64],
    exponent: u8,
    scratch: &mut DecimalScratch,
    ints: &mut IntScratch,
    out: &mut Vec<u8>,
) {
    encode_by(values, exponent, fits, scratch, ints, out);
}

/// Appends exponent, patches for the values that do not fit, and mantissas.
pub(crate) fn encode_by(
    values: &[f64],
    exponent: u8,
    fits: impl Fn(f64, f64) -> bool,
    scratch: &mut DecimalScratch,
    ints: &mut IntScratch,
    out: &mut Vec<u8>,
) {
    let DecimalScratch { mantissas, patches } = scratch;
    let power = power_of(exponent);
    mantissas.clear();
    patches.clear();
    mantissas.extend(values.iter().map(|value| to_mantissa(*value, power)));
    // Without a branch in the loop: nearly always all fit.
    if !values.iter().fold(true, |all, value| all & fits(*value, power)) {
        patches.extend((0..values.len() as u32).filter(|at| !fits(values[*at as usize], power)));
        fill_patched(mantissas, patches);
    }
    out.push(exponent | if patches.is_empty() { 0 } else { PATCHED });
    if !patches.is_empty() {
        encode_patches(values, patches, out);
    }
    ints::encode(mantissas, ints, out);
}

/// Gives patched samples mantissas that cost little: a counter goes on as it went, anything else
/// repeats the mantissa before, or at the start the first that counts.
fn fill_patched(mantissas: &mut [i64], patches: &[u32]) {
    let lead = patches.iter().enumerate().take_while(|(i, at)| *i as u32 == **at).count();
    let first = mantissas.get(lead).copied().unwrap_or(0);
    mantissas[..lead].fill(first);
    for at in patches[lead..].iter().map(|at| *at as usize) {
        let before = &mantissas[at.saturating_sub(3)..at];
        mantissas[at] = match *before {
            [a, b, c] if (a < b && b < c) || (a > b && b > c) => c.wrapping_add(c.wrapping_sub(b)),
            [.., last] => last,
            [] => first,
        };
    }
}

fn encode_patches(values: &[f64], patches: &[u32], out: &mut Vec<u8>) {
    put(out, patches.len() as u64);
    let mut previous = 0;
    for &at in patches {
        put(out, u64::from(at - previous));
        previous = at;
        let bits = values[at as usize].to_bits();
        match KNOWN_BITS.iter().position(|known| *known == bits) {
            Some(code) => out.push(code as u8),
            None => {
                out.push(OTHER_BITS);
                out.extend_from_slice(&bits.to_le_bytes());
            }
        }
    }
}

/// Fills `out` with the first samples of a column of `count`, at least one.
pub(crate) fn decode(input: &mut &[u8], out: &mut [f64]) -> Result<(), ChunkError> {
    let head = take_byte(input)?;
    let exponent = head & !PATCHED;
    if exponent > EXPONENT_MAX {
        return Err(ChunkError::Field("exponent"));
    }
    let mut patches = *input;
    if head & PATCHED != 0 {
        // Walked twice: patches are few, and the mantissas come after them.
        walk_patches(input, out.len(), |_, _| {})?;
    }
    decode_mantissas(input, exponent, out)?;
    if head & PATCHED != 0 {
        walk_patches(&mut patches, out.len(), |at, value| out[at] = value)?;
    }
    Ok(())
}

fn decode_mantissas(input: &mut &[u8], exponent: u8, out: &mut [f64]) -> Result<(), ChunkError> {
    let count = out.len();
    if exponent == 0 {
        return ints::decode(input, count, |at, mantissas| {
            for (value, mantissa) in out[at..at + mantissas.len()].iter_mut().zip(mantissas) {
                *value = to_double(*mantissa, 1.0);
            }
        });
    }
    let power = POWERS[usize::from(exponent)];
    ints::decode(input, count, |at, mantissas| {
        for (value, mantissa) in out[at..at + mantissas.len()].iter_mut().zip(mantissas) {
            *value = to_double(*mantissa, power);
        }
    })
}

fn walk_patches(
    input: &mut &[u8],
    count: usize,
    mut visit: impl FnMut(usize, f64),
) -> Result<(), ChunkError> {
    let patches = take(input)?;
    if patches == 0 || patches > count as u64 {
        return Err(ChunkError::Field("count of patches"));
    }
    let mut at = 0u64;
    for patch in 0..patches {
        let distance = take(input)?;
        at = at.saturating_add(distance);
        if at >= count as u64 || (patch > 0 && distance == 0) {
            return Err(ChunkError::Field("patch index"));
        }
        let bits = match take_byte(input)? {
            OTHER_BITS => u64::from_le_bytes(take_bytes(input, 8)?.try_into().expect("eight bytes")),
            code => *KNOWN_BITS.get(usize::from(code)).ok_or(ChunkError::Field("patch code"))?,
        };
        visit(at as usize, f64::from_bits(bits));
    }
    Ok(())
}
