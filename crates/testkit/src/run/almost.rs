//! Equality of computed numbers.

use tidewatch_model::is_stale;

/// The relative error that expected values may have.
pub(super) const EPSILON: f64 = 0.000_001;

/// Whether two numbers are equal but for a relative error of `epsilon`. NaN equals NaN, and the
/// staleness marker itself alone.
pub fn almost_equal(a: f64, b: f64, epsilon: f64) -> bool {
    if is_stale(a) || is_stale(b) {
        return is_stale(a) && is_stale(b);
    }
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        // A relative error means nothing this close to zero.
        return difference < epsilon * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < epsilon
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_equal_numbers_are_equal() {
        for (a, b, equal) in [
            (1.0, 1.000_000_1, true),
            (1.0, 1.000_01, false),
            (0.0, 1e-300, false),
            (f64::NAN, f64::NAN, true),
            (f64::NAN, tidewatch_model::STALE_NAN, false),
            (f64::INFINITY, f64::INFINITY, true),
            (f64::INFINITY, f64::MAX, false),
            (f64::MAX, f64::MAX * 0.999_999_9, true),
        ] {
            assert_eq!(almost_equal(a, b, EPSILON), equal, "{a} and {b}");
        }
    }
}
