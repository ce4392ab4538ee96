//! Floats as Go prints them, so that answers are equal to Prometheus' to the letter.

/// Formats as Go's `strconv.FormatFloat(value, 'f', -1, 64)`, which Prometheus uses for sample
/// values in the API and for label values made from numbers: shortest digits that read back
/// equal, never an exponent, `NaN`, `+Inf`, `-Inf`.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned()
    } else {
        // Rust's Display is the shortest digits without an exponent, as Go's 'f' with -1.
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::format_float;

    #[test]
    fn floats_print_as_go_prints_them() {
        let cases = [
            (1.0, "1"),
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e21, "1000000000000000000000"),
            (1.5e-7, "0.00000015"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(format_float(value), text);
        }
    }
}
