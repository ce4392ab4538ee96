//! `@st` lines: when the counters of a series started, as offsets from each sample's time.

use tidewatch_model::{parse_duration_ms, quote};

/// How many offsets one item may stand for.
const REPETITIONS_MAX: u64 = 1 << 20;

/// Splits `metric@st sequence` into its parts; the metric is empty for a default.
pub(super) fn split_line(line: &str) -> Option<(&str, &str)> {
    let (first, sequence) = line.split_once([' ', '\t'])?;
    Some((first.strip_suffix("@st")?, sequence.trim()))
}

/// Reads a sequence of offsets in milliseconds; `None` where a sample has no start.
///
/// ```text
/// _  _x3   no start, three times        -1m     one minute before the sample
/// *  *x3   the last offset again        -1mx2   three times, as 1x2 is three samples
///                                       -1m+15sx2   -1m -45s -30s
/// ```
pub fn start_offsets(sequence: &str) -> Result<Vec<Option<i64>>, String> {
    let mut offsets = Vec::new();
    for item in sequence.split_whitespace() {
        push_item(&mut offsets, item).map_err(|why| format!("invalid ST item {}: {why}", quote(item)))?;
    }
    Ok(offsets)
}

fn push_item(offsets: &mut Vec<Option<i64>>, item: &str) -> Result<(), String> {
    if let Some(rest) = item.strip_prefix('_') {
        let count = if rest.is_empty() { 1 } else { repetitions(rest)? };
        if count == 0 {
            return Err("invalid repeat count".to_owned());
        }
        offsets.extend(std::iter::repeat_n(None, count as usize));
        return Ok(());
    }
    if let Some(rest) = item.strip_prefix('*') {
        let last = offsets.iter().rev().copied().flatten().next().unwrap_or(0);
        let count = if rest.is_empty() { 1 } else { repetitions(rest)? + 1 };
        offsets.extend(std::iter::repeat_n(Some(last), count as usize));
        return Ok(());
    }
    let (base, rest) = duration_prefix(item)?;
    let (step, count) = match rest.as_bytes().first() {
        None => (0, 1),
        Some(b'x') => (0, repetitions(rest)? + 1),
        Some(sign @ (b'+' | b'-')) => {
            let (step, rest) =
                duration_prefix(&rest[1..]).map_err(|why| format!("invalid step duration: {why}"))?;
            if !rest.starts_with('x') {
                return Err("expected 'x<count>' after step duration".to_owned());
            }
            (if *sign == b'-' { -step } else { step }, repetitions(rest)? + 1)
        }
        Some(other) => return Err(format!("unexpected character '{}' after duration", char::from(*other))),
    };
    offsets.extend((0..count as i64).map(|i| Some(base + i * step)));
    Ok(())
}

/// Reads `x3`.
fn repetitions(text: &str) -> Result<u64, String> {
    let count = text.strip_prefix('x').and_then(|count| count.parse::<u64>().ok());
    count.filter(|count| *count <= REPETITIONS_MAX).ok_or_else(|| "invalid repeat count".to_owned())
}

/// Reads a duration with or without a sign, in milliseconds, and gives what follows it.
fn duration_prefix(text: &str) -> Result<(i64, &str), String> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Err(if text.is_empty() {
            "empty duration".to_owned()
        } else {
            format!("expected digits in duration {}", quote(text))
        });
    }
    // An `x` starts the repetitions; no unit has one.
    let unit = unsigned[digits..].bytes().take_while(|b| b.is_ascii_alphabetic() && *b != b'x').count();
    let (duration, rest) = unsigned.split_at(digits + unit);
    let ms = parse_duration_ms(duration)
        .map_err(|error| format!("invalid duration {}: {error}", quote(duration)))?;
    Ok((if text.starts_with('-') { -ms } else { ms }, rest))
}
