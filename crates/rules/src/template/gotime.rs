//! Times and durations as Go prints them. All times are UTC.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use super::value::Value;

const SECOND: i64 = 1_000_000_000;

/// `2015-06-23 13:19:44.128 +0000 UTC`
pub(super) fn time_text(nanos: i64) -> String {
    format_time(nanos, "2006-01-02 15:04:05.999999999 -0700 MST")
}

/// `1h2m0.5s`, in smaller units below a second.
pub(crate) fn duration_text(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64| {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", value % unit);
        let rest = rest.trim_end_matches('0');
        let whole = value / unit;
        if rest.is_empty() || unit == 1 { whole.to_string() } else { format!("{whole}.{rest}") }
    };
    match total {
        0..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(total, 1_000_000)),
        _ => {
            let seconds = total / SECOND as u64;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let seconds = fraction(total % (60 * SECOND as u64), SECOND as u64);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, _) => format!("{sign}{minutes}m{seconds}s"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// The pieces of a layout, longest first where one begins another.
const PIECES: [&str; 30] = [
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "-07:00:00",
    "-07:00",
    "-0700",
    "-07",
    "Z07:00",
    "Z0700",
    "002",
    "__2",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "PM",
    "pm",
    "_2",
    "1",
    "2",
    "3",
    "4",
    "5",
    "Z07",
];

/// Go's `Time.Format`.
pub(super) fn format_time(nanos: i64, layout: &str) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).expect("an i64 is in range");
    let time = time.to_zoned(TimeZone::UTC);
    let mut out = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        if let Some((digits, all)) = fraction_piece(rest) {
            out.push_str(&fraction(nanos, digits, rest.as_bytes()[0], all));
            rest = &rest[digits + 1..];
            continue;
        }
        let Some(piece) = PIECES.iter().find(|piece| rest.starts_with(**piece)) else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        // Go takes "Jan" only where no further letter makes it another word.
        let after = &rest[piece.len()..];
        if *piece == "Jan" && after.starts_with(|c: char| c.is_ascii_lowercase()) {
            out.push_str(piece);
        } else {
            out.push_str(&formatted_piece(&time, piece));
        }
        rest = after;
    }
    out
}

fn formatted_piece(time: &jiff::Zoned, piece: &str) -> String {
    let hour12 = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    match piece {
        "January" => month_name(time.month()).to_owned(),
        "Jan" => month_name(time.month())[..3].to_owned(),
        "Monday" => weekday_name(time.weekday()).to_owned(),
        "Mon" => weekday_name(time.weekday())[..3].to_owned(),
        "MST" => "UTC".to_owned(),
        "2006" => format!("{:04}", time.year()),
        "06" => format!("{:02}", time.year().rem_euclid(100)),
        "01" => format!("{:02}", time.month()),
        "1" => time.month().to_string(),
        "02" => format!("{:02}", time.day()),
        "_2" => format!("{:2}", time.day()),
        "2" => time.day().to_string(),
        "002" => format!("{:03}", time.day_of_year()),
        "__2" => format!("{:3}", time.day_of_year()),
        "15" => format!("{:02}", time.hour()),
        "03" => format!("{hour12:02}"),
        "3" => hour12.to_string(),
        "04" => format!("{:02}", time.minute()),
        "4" => time.minute().to_string(),
        "05" => format!("{:02}", time.second()),
        "5" => time.second().to_string(),
        "PM" => (if time.hour() < 12 { "AM" } else { "PM" }).to_owned(),
        "pm" => (if time.hour() < 12 { "am" } else { "pm" }).to_owned(),
        "-0700" => "+0000".to_owned(),
        "-07:00" => "+00:00".to_owned(),
        "-07:00:00" => "+00:00:00".to_owned(),
        "-07" => "+00".to_owned(),
        _ => "Z".to_owned(),
    }
}

/// How many digits of a fraction `.000` or `.999` stand next, and whether zeros are kept.
fn fraction_piece(rest: &str) -> Option<(usize, bool)> {
    let bytes = rest.as_bytes();
    let digit = *bytes.get(1)?;
    if !matches!(bytes[0], b'.' | b',') || !matches!(digit, b'0' | b'9') {
        return None;
    }
    let count = bytes[1..].iter().take_while(|b| **b == digit).count();
    let ends = !bytes.get(1 + count).is_some_and(u8::is_ascii_digit);
    (ends && count <= 9).then_some((count, digit == b'0'))
}

fn fraction(nanos: i64, digits: usize, point: u8, keep_zeros: bool) -> String {
    let text = format!("{:09}", nanos.rem_euclid(SECOND));
    let text = &text[..digits];
    let text = if keep_zeros { text } else { text.trim_end_matches('0') };
    if text.is_empty() { String::new() } else { format!("{}{text}", char::from(point)) }
}

fn month_name(month: i8) -> &'static str {
    const NAMES: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    NAMES[usize::try_from(month - 1).expect("months count from 1")]
}

fn weekday_name(day: Weekday) -> &'static str {
    match day {
        Weekday::Monday => "Monday",
        Weekday::Tuesday => "Tuesday",
        Weekday::Wednesday => "Wednesday",
        Weekday::Thursday => "Thursday",
        Weekday::Friday => "Friday",
        Weekday::Saturday => "Saturday",
        Weekday::Sunday => "Sunday",
    }
}

/// A method of a time or a duration. `None` where there is no such method; an inner error where
/// the arguments are wrong.
pub(super) fn call_method(receiver: &Value, name: &str, args: &[Value]) -> Option<Result<Value, String>> {
    match receiver {
        Value::Time(nanos) => time_method(*nanos, name, args),
        Value::Duration(nanos) => duration_method(*nanos, name, args),
        _ => None,
    }
}

fn time_method(nanos: i64, name: &str, args: &[Value]) -> Option<Result<Value, String>> {
    let time =
        || Timestamp::from_nanosecond(i128::from(nanos)).expect("an i64 is in range").to_zoned(TimeZone::UTC);
    let int = |n: i64| Ok(Value::Int(n));
    let value = match (name, args) {
        ("Format", [Value::Str(layout)]) => Ok(Value::str(&format_time(nanos, layout))),
        ("Add", [Value::Duration(by)]) => Ok(Value::Time(nanos.saturating_add(*by))),
        ("Sub", [Value::Time(other)]) => Ok(Value::Duration(nanos.saturating_sub(*other))),
        ("Before", [Value::Time(other)]) => Ok(Value::Bool(nanos < *other)),
        ("After", [Value::Time(other)]) => Ok(Value::Bool(nanos > *other)),
        ("Equal", [Value::Time(other)]) => Ok(Value::Bool(nanos == *other)),
        ("Format" | "Add" | "Sub" | "Before" | "After" | "Equal", _) => Err(wrong_args(name, 1, args)),
        ("String", []) => Ok(Value::str(&time_text(nanos))),
        ("UTC" | "Local", []) => Ok(Value::Time(nanos)),
        ("IsZero", []) => Ok(Value::Bool(false)),
        ("Unix", []) => int(nanos.div_euclid(SECOND)),
        ("UnixMilli", []) => int(nanos.div_euclid(1_000_000)),
        ("UnixMicro", []) => int(nanos.div_euclid(1_000)),
        ("UnixNano", []) => int(nanos),
        ("Year", []) => int(time().year().into()),
        ("Month", []) => Ok(Value::str(month_name(time().month()))),
        ("Day", []) => int(time().day().into()),
        ("YearDay", []) => int(time().day_of_year().into()),
        ("Weekday", []) => Ok(Value::str(weekday_name(time().weekday()))),
        ("Hour", []) => int(time().hour().into()),
        ("Minute", []) => int(time().minute().into()),
        ("Second", []) => int(time().second().into()),
        ("Nanosecond", []) => int(nanos.rem_euclid(SECOND)),
        _ => return None,
    };
    Some(value)
}

fn duration_method(nanos: i64, name: &str, args: &[Value]) -> Option<Result<Value, String>> {
    let float = |unit: f64| Ok(Value::Float(nanos as f64 / unit));
    let value = match (name, args) {
        ("Round" | "Truncate", [Value::Duration(unit)]) if *unit <= 0 => Ok(Value::Duration(nanos)),
        ("Truncate", [Value::Duration(unit)]) => Ok(Value::Duration(nanos - nanos % unit)),
        ("Round", [Value::Duration(unit)]) => {
            let (nanos, unit) = (i128::from(nanos), i128::from(*unit));
            let half = if nanos < 0 { -unit / 2 } else { unit / 2 };
            let rounded = (nanos + half) / unit * unit;
            Ok(Value::Duration(rounded.clamp(i64::MIN.into(), i64::MAX.into()) as i64))
        }
        ("Round" | "Truncate", _) => Err(wrong_args(name, 1, args)),
        ("String", []) => Ok(Value::str(&duration_text(nanos))),
        ("Hours", []) => float(3600e9),
        ("Minutes", []) => float(60e9),
        ("Seconds", []) => float(1e9),
        ("Milliseconds", []) => Ok(Value::Int(nanos / 1_000_000)),
        ("Microseconds", []) => Ok(Value::Int(nanos / 1_000)),
        ("Nanoseconds", []) => Ok(Value::Int(nanos)),
        ("Abs", []) => Ok(Value::Duration(nanos.saturating_abs())),
        _ => return None,
    };
    Some(value)
}

fn wrong_args(name: &str, want: usize, args: &[Value]) -> String {
    if args.len() == want {
        format!("wrong type for value; {name} can not take {}", args[0].type_name())
    } else {
        format!("wrong number of args for {name}: want {want} got {}", args.len())
    }
}
