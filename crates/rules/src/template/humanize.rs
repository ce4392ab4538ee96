//! Numbers for people: the `humanize` family, times and durations.

use tidewatch_model::parse_duration_ms;

use super::value::Value;
use super::verbs::format_float;

const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

/// A number, or a text that is one.
fn float(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(x) => Ok(*x),
        Value::Int(n) => Ok(*n as f64),
        Value::Uint(n) => Ok(*n as f64),
        Value::Duration(nanos) => Ok(*nanos as f64 / 1e9),
        Value::Str(text) => parse_float(text),
        _ => Err(format!("can't convert {} to float", value.type_name())),
    }
}

fn parse_float(text: &str) -> Result<f64, String> {
    let quoted = tidewatch_model::quote(text);
    let parsed: f64 =
        text.parse().map_err(|_| format!("strconv.ParseFloat: parsing {quoted}: invalid syntax"))?;
    if parsed.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) {
        return Err(format!("strconv.ParseFloat: parsing {quoted}: value out of range"));
    }
    Ok(parsed)
}

/// Four significant digits.
fn short(value: f64) -> String {
    format_float(value, 'g', Some(4))
}

/// Divides by `step` until the value is below it, and names how often.
fn scaled(mut value: f64, step: f64, prefixes: &[&str]) -> String {
    let mut prefix = "";
    for next in prefixes {
        if value.abs() < step {
            break;
        }
        prefix = next;
        value /= step;
    }
    format!("{}{prefix}", short(value))
}

/// Multiplies by 1000 until the value is not below 1, and names how often.
fn scaled_up(mut value: f64) -> String {
    let mut prefix = "";
    for next in SMALL {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = next;
        value *= 1000.0;
    }
    format!("{}{prefix}", short(value))
}

pub(super) fn humanize(value: &Value) -> Result<Value, String> {
    let value = float(value)?;
    let text = if value == 0.0 || !value.is_finite() {
        short(value)
    } else if value.abs() >= 1.0 {
        scaled(value, 1000.0, &["k", "M", "G", "T", "P", "E", "Z", "Y"])
    } else {
        scaled_up(value)
    };
    Ok(Value::str(&text))
}

pub(super) fn humanize1024(value: &Value) -> Result<Value, String> {
    let value = float(value)?;
    let text = if value.abs() <= 1.0 || !value.is_finite() {
        short(value)
    } else {
        scaled(value, 1024.0, &["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"])
    };
    Ok(Value::str(&text))
}

pub(super) fn humanize_duration(value: &Value) -> Result<Value, String> {
    let value = float(value)?;
    if !value.is_finite() {
        return Ok(Value::str(&short(value)));
    }
    if value != 0.0 && value.abs() < 1.0 {
        return Ok(Value::str(&format!("{}s", scaled_up(value))));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let magnitude = value.abs();
    let total = magnitude as i64;
    let (days, hours, minutes, seconds) = (total / 86_400, total / 3600 % 24, total / 60 % 60, total % 60);
    let text = match (days, hours, minutes) {
        (0, 0, 0) => format!("{sign}{}s", short(magnitude)),
        (0, 0, _) => format!("{sign}{minutes}m {seconds}s"),
        (0, ..) => format!("{sign}{hours}h {minutes}m {seconds}s"),
        _ => format!("{sign}{days}d {hours}h {minutes}m {seconds}s"),
    };
    Ok(Value::str(&text))
}

pub(super) fn humanize_percentage(value: &Value) -> Result<Value, String> {
    Ok(Value::str(&format!("{}%", short(float(value)? * 100.0))))
}

pub(super) fn humanize_timestamp(value: &Value) -> Result<Value, String> {
    let seconds = float(value)?;
    if !seconds.is_finite() {
        return Ok(Value::str(&short(seconds)));
    }
    Ok(Value::str(&to_time(value)?.text()))
}

/// A Unix time in seconds as nanoseconds; Prometheus' times are whole milliseconds.
pub(super) fn to_time(value: &Value) -> Result<Value, String> {
    let nanos = nanoseconds(float(value)?, "timestamp")?;
    Ok(Value::Time(nanos / 1_000_000 * 1_000_000))
}

pub(super) fn to_duration(value: &Value) -> Result<Value, String> {
    nanoseconds(float(value)?, "duration").map(Value::Duration)
}

fn nanoseconds(seconds: f64, what: &str) -> Result<i64, String> {
    if !seconds.is_finite() {
        return Err("value is NaN or Inf".to_owned());
    }
    let nanos = seconds * 1e9;
    if nanos > i64::MAX as f64 || nanos < i64::MIN as f64 {
        let seconds = format_float(seconds, 'g', None);
        return Err(format!(
            "{seconds} cannot be represented as a nanoseconds {what} since it overflows int64"
        ));
    }
    Ok(nanos as i64)
}

/// Seconds of a duration such as `1h30m`, which may be negative.
pub(super) fn parse_duration(text: &str) -> Result<Value, String> {
    let (sign, magnitude) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let ms = parse_duration_ms(magnitude).map_err(|error| error.message)?;
    Ok(Value::Float(sign * ms as f64 / 1000.0))
}
