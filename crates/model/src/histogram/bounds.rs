//! From a bucket's index to its bounds.

use std::sync::OnceLock;

use super::{CUSTOM_BUCKETS_SCHEMA, EXPONENTIAL_SCHEMA_MAX};

/// The upper bound of the positive bucket `index` in an exponential schema: `2^(index / 2^schema)`.
///
/// The last bucket for ordinary numbers would end at 2^1024, which is no float: it ends at the
/// largest float instead, and the bucket after it holds the infinities.
pub fn exponential_bound(index: i32, schema: i32) -> f64 {
    const LAST_EXPONENT: i64 = 1024;
    let index = i64::from(index);
    if schema < 0 {
        let exponent = index << -schema;
        return if exponent == LAST_EXPONENT { f64::MAX } else { power_of_two(1.0, exponent) };
    }
    let fraction = fractions()[((index & ((1 << schema) - 1)) << (EXPONENTIAL_SCHEMA_MAX - schema)) as usize];
    let exponent = index >> schema;
    if fraction == 1.0 && exponent == LAST_EXPONENT { f64::MAX } else { power_of_two(fraction, exponent) }
}

/// `2^(i/256)` for i in 0..256: the bounds of the finest schema within one octave. Coarser
/// schemas use every second, fourth, … of them.
fn fractions() -> &'static [f64; 256] {
    static FRACTIONS: OnceLock<[f64; 256]> = OnceLock::new();
    FRACTIONS.get_or_init(|| std::array::from_fn(|i| (i as f64 / 256.0).exp2()))
}

/// `fraction × 2^exponent` in two steps, so that neither factor overflows before the product does.
fn power_of_two(fraction: f64, exponent: i64) -> f64 {
    let exponent = exponent.clamp(-2200, 2200) as i32;
    let half = exponent / 2;
    fraction * f64::from(half).exp2() * f64::from(exponent - half).exp2()
}

/// The upper bound of bucket `index`, for either kind of schema. The bucket before the first
/// custom one ends at −∞, the bucket after the last bound at +∞.
pub(super) fn upper_bound(index: i32, schema: i32, custom: &[f64]) -> f64 {
    if schema != CUSTOM_BUCKETS_SCHEMA {
        return exponential_bound(index, schema);
    }
    match usize::try_from(index) {
        Err(_) => f64::NEG_INFINITY,
        Ok(i) => custom.get(i).copied().unwrap_or(f64::INFINITY),
    }
}

/// The bucket of the coarser schema `to` in which bucket `index` of schema `from` lies.
pub(super) fn coarser_index(index: i32, from: i32, to: i32) -> i32 {
    ((index - 1) >> (from - to)) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_of_two_and_their_roots() {
        for (index, schema, bound) in [
            (0, 0, 1.0),
            (1, 0, 2.0),
            (-1, 0, 0.5),
            (1, 1, 2f64.sqrt()),
            (-3, 2, 2f64.powf(-0.75)),
            (1, -1, 4.0),
            (-1, -4, 2f64.powi(-16)),
            (1024, 0, f64::MAX),
            (1025, 0, f64::INFINITY),
            (64, -4, f64::MAX),
            (-1074, 0, 5e-324),
        ] {
            assert_eq!(exponential_bound(index, schema), bound, "bucket {index} of schema {schema}");
        }
    }

    #[test]
    fn a_coarser_bucket_covers_its_parts() {
        for index in -40..40 {
            let coarse = coarser_index(index, 3, 1);
            assert!(exponential_bound(index, 3) <= exponential_bound(coarse, 1));
            assert!(exponential_bound(index - 1, 3) >= exponential_bound(coarse - 1, 1));
        }
    }
}
