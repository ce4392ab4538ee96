//! Decimals that arithmetic has moved by a few places: `94231 * 0.001`, or a sum of many.
//!
//! ```text
//! exponent, patches, mantissas   as in `decimal`
//! corrections  …                 see `ints`: by how many places in the order of the doubles
//!                                each value lies above its quotient; 0 where patched
//! ```
//!
//! Programs add up seconds as doubles and scale by reciprocals, so a quarter of a recorded
//! scrape's bytes went to series whose decimals were off by one or a few places: as the image of
//! their bits they take 6.5 bytes a sample, as mantissa and correction two.

use crate::ChunkError;
use crate::decimal::{self, DecimalScratch, power_of, to_double, to_mantissa};
use crate::ints::{self, IntScratch};
use crate::values::{from_image, to_image};

/// Digits after the point that a program's clock or counter may have. Finer ones make every
/// double a near decimal.
const EXPONENT_MAX: u8 = 12;

const CORRECTION_MAX: u64 = 1 << 12;

/// Mantissa times correction stays below this: a double has 53 bits, so that a random one passes
/// with a chance of one in 64.
const PRODUCT_MAX: u64 = 1 << 46;

fn correction(value: f64, power: f64) -> i64 {
    to_image(value).wrapping_sub(to_image(to_double(to_mantissa(value, power), power)))
}

fn is_near(value: f64, power: f64) -> bool {
    let (mantissa, correction) = ((value * power).abs(), correction(value, power).unsigned_abs());
    // Not so for NaNs and infinities, whose patches are bits.
    mantissa < PRODUCT_MAX as f64
        && correction <= CORRECTION_MAX
        && (mantissa as u64 + 1) * correction < PRODUCT_MAX
}

/// Appends `values`, at least one; false, and `out` is to be discarded, where too few are near.
pub(crate) fn encode(
    values: &[f64],
    scratch: &mut DecimalScratch,
    ints: &mut IntScratch,
    corrections: &mut Vec<i64>,
    out: &mut Vec<u8>,
) -> bool {
    let Some(scale) = decimal::find_scale_by(values, EXPONENT_MAX, is_near) else { return false };
    decimal::encode_by(values, scale.exponent, is_near, scratch, ints, out);
    let power = power_of(scale.exponent);
    corrections.clear();
    corrections.extend(
        values.iter().map(|value| if is_near(*value, power) { correction(*value, power) } else { 0 }),
    );
    ints::encode(corrections, ints, out);
    true
}

/// Fills `out`, at least one sample.
pub(crate) fn decode(input: &mut &[u8], out: &mut [f64]) -> Result<(), ChunkError> {
    decimal::decode(input, out)?;
    ints::decode(input, out.len(), |at, corrections| {
        for (value, correction) in out[at..at + corrections.len()].iter_mut().zip(corrections) {
            *value = from_image(to_image(*value).wrapping_add(*correction));
        }
    })
}
