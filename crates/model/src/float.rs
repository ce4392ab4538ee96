//! Floats as Go prints them, so that answers are equal to Prometheus' to the letter.
//!
//! Both printers write the shortest digits that read back equal, and of two such texts the one
//! nearer to the value; a tie goes to the even digit. Rust's own printer rounds ties up.

/// Formats as Go's `strconv.FormatFloat(value, 'f', -1, 64)`, which Prometheus uses for sample
/// values in the API and for label values made from numbers: never an exponent, `NaN`, `+Inf`,
/// `-Inf`.
pub fn format_float(value: f64) -> String {
    let mut text = String::new();
    push_float(&mut text, value);
    text
}

/// Appends what [`format_float`] gives.
pub fn push_float(text: &mut String, value: f64) {
    let Some(decimal) = Decimal::of(value, text) else { return };
    let digits = decimal.digits();
    match usize::try_from(decimal.point) {
        // All digits stand behind the point.
        Err(_) | Ok(0) => {
            text.push_str("0.");
            text.extend(std::iter::repeat_n('0', decimal.point.unsigned_abs() as usize));
            text.push_str(digits);
        }
        Ok(point) if point >= digits.len() => {
            text.push_str(digits);
            text.extend(std::iter::repeat_n('0', point - digits.len()));
        }
        Ok(point) => {
            text.push_str(&digits[..point]);
            text.push('.');
            text.push_str(&digits[point..]);
        }
    }
}

/// Formats as Go's `%g` and `%v`: as [`format_float`], but with an exponent below 1e-4 and from
/// 1e6 on.
pub fn format_general(value: f64) -> String {
    let mut text = String::new();
    let Some(decimal) = Decimal::of(value, &mut text) else { return text };
    let exponent = decimal.point - 1;
    if (-4..EXPONENT_FROM).contains(&exponent) {
        return format_float(value);
    }
    let digits = decimal.digits();
    text.push_str(&digits[..1]);
    if digits.len() > 1 {
        text.push('.');
        text.push_str(&digits[1..]);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    text.push_str(&format!("e{sign}{:02}", exponent.abs()));
    text
}

const EXPONENT_FROM: i32 = 6;

/// The shortest digits of a finite number other than zero, without zeros at either end:
/// 0.d₁d₂d₃… × 10^point.
struct Decimal {
    digits: [u8; 20],
    len: usize,
    point: i32,
}

impl Decimal {
    /// Takes a number apart; its sign goes to `text`, and what has no digits entirely.
    fn of(value: f64, text: &mut String) -> Option<Decimal> {
        if value.is_nan() {
            text.push_str("NaN");
            return None;
        }
        if value.is_infinite() {
            text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
            return None;
        }
        if value.is_sign_negative() {
            text.push('-');
        }
        if value == 0.0 {
            text.push('0');
            return None;
        }
        Some(Decimal::parse(zmij::Buffer::new().format_finite(value.abs())))
    }

    /// Reads `123.45`, `1.2e-7` and the like.
    fn parse(printed: &str) -> Decimal {
        let (mantissa, exponent) = printed.split_once('e').unwrap_or((printed, "0"));
        let exponent: i32 = exponent.parse().expect("the printer writes a number behind e");
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut decimal = Decimal { digits: [0; 20], len: 0, point: whole.len() as i32 + exponent };
        for digit in whole.bytes().chain(fraction.bytes()) {
            if decimal.len == 0 && digit == b'0' {
                decimal.point -= 1;
            } else if decimal.len < decimal.digits.len() {
                decimal.digits[decimal.len] = digit;
                decimal.len += 1;
            }
        }
        while decimal.len > 1 && decimal.digits[decimal.len - 1] == b'0' {
            decimal.len -= 1;
        }
        decimal
    }

    fn digits(&self) -> &str {
        std::str::from_utf8(&self.digits[..self.len]).expect("digits are ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::{format_float, format_general};

    #[test]
    fn floats_print_as_go_prints_them() {
        let cases = [
            (1.0, "1", "1"),
            (0.1, "0.1", "0.1"),
            (0.0, "0", "0"),
            (-0.0, "-0", "-0"),
            (123456.789, "123456.789", "123456.789"),
            (1e21, "1000000000000000000000", "1e+21"),
            (1.5e-7, "0.00000015", "1.5e-07"),
            (-2.5377459410576612e14, "-253774594105766.12", "-2.5377459410576612e+14"),
            (f64::MAX, &format!("17976931348623157{}", "0".repeat(292)), "1.7976931348623157e+308"),
            (5e-324, &format!("0.{}5", "0".repeat(323)), "5e-324"),
            (f64::INFINITY, "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf"),
            (f64::NAN, "NaN", "NaN"),
        ];
        for (value, plain, general) in cases {
            assert_eq!(format_float(value), plain);
            assert_eq!(format_general(value), general);
        }
    }
}
