//! Go's formatting: quoting, floats, and the verbs of `printf`.

use tidewatch_model::{quote, quote_char};

use super::value::Value;

/// The widest field and finest precision that are honoured; Go's own bound is 1e6.
const WIDTH_MAX: usize = 100_000;

/// A quoted text, its characters beyond ASCII escaped if `%+q` wants it so.
fn ascii_if(wanted: bool, quoted: String) -> String {
    if !wanted {
        return quoted;
    }
    let mut out = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        match u32::from(c) {
            0..=0x7f => out.push(c),
            code @ 0x80..=0xffff => out.push_str(&format!("\\u{code:04x}")),
            code => out.push_str(&format!("\\U{code:08x}")),
        }
    }
    out
}

/// Go's `strconv.Unquote` for the two string syntaxes; bytes that are no UTF-8 are replaced.
pub(super) fn unquote(quoted: &str) -> Option<String> {
    if let Some(raw) = quoted.strip_prefix('`') {
        return Some(raw.strip_suffix('`')?.replace('\r', ""));
    }
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    let mut encoded = [0; 4];
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut encoded).as_bytes());
            continue;
        }
        let escape = chars.next()?;
        let code = |digits: usize, radix: u32, chars: &mut std::str::Chars<'_>, first: Option<char>| {
            let mut code = first.map_or(Some(0), |c| c.to_digit(radix))?;
            for _ in first.iter().count()..digits {
                code = code.checked_mul(radix)?.checked_add(chars.next()?.to_digit(radix)?)?;
            }
            Some(code)
        };
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' | '"' => bytes.push(escape as u8),
            'x' => bytes.push(u8::try_from(code(2, 16, &mut chars, None)?).ok()?),
            '0'..='7' => bytes.push(u8::try_from(code(3, 8, &mut chars, Some(escape))?).ok()?),
            'u' | 'U' => {
                let digits = if escape == 'u' { 4 } else { 8 };
                let c = char::from_u32(code(digits, 16, &mut chars, None)?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut encoded).as_bytes());
            }
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A float with Go's verb `e`, `f` or `g` (or their capitals); without a precision the shortest
/// digits that read back equal.
pub(crate) fn format_float(value: f64, verb: char, precision: Option<usize>) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned();
    }
    let text = match verb.to_ascii_lowercase() {
        'e' => exponential(value, precision),
        'f' => match precision {
            Some(precision) => format!("{value:.precision$}"),
            None => format!("{value}"),
        },
        _ => general(value, precision),
    };
    if verb.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text }
}

/// `1.5e+06`: at least two digits of exponent, and a sign.
fn exponential(value: f64, precision: Option<usize>) -> String {
    let text = match precision {
        Some(precision) => format!("{value:.precision$e}"),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = text.split_once('e').expect("an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `e` for very small and very large numbers, `f` without trailing zeros otherwise.
fn general(value: f64, precision: Option<usize>) -> String {
    let precision = precision.map(|precision| precision.max(1));
    let scientific = match precision {
        Some(precision) => format!("{value:.*e}", precision - 1),
        None => format!("{value:e}"),
    };
    let (mantissa, exponent) = scientific.split_once('e').expect("an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let mantissa =
        if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    let limit = precision.map_or(6, |precision| i32::try_from(precision).unwrap_or(i32::MAX));
    if exponent < -4 || exponent >= limit {
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let decimals = usize::try_from(digits - 1 - exponent).unwrap_or(0);
    let rounded: f64 = scientific.parse().expect("just printed");
    format!("{rounded:.decimals$}")
}

/// Go's `fmt.Sprint`: a space between operands of which neither is a text.
pub(super) fn sprint(args: &[Value]) -> String {
    let mut out = String::new();
    for (i, arg) in args.iter().enumerate() {
        if i > 0 && !arg.is_text() && !args[i - 1].is_text() {
            out.push(' ');
        }
        out.push_str(&display(arg));
    }
    out
}

/// Go's `fmt.Sprintln`.
pub(super) fn sprintln(args: &[Value]) -> String {
    let mut out = args.iter().map(display).collect::<Vec<_>>().join(" ");
    out.push('\n');
    out
}

/// A value as `%v` shows it.
pub(super) fn display(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, 'v', &Flags::default());
    out
}

#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Go's `fmt.Sprintf`, its complaints within the text among them.
pub(super) fn sprintf(format: &str, args: &[Value]) -> String {
    let mut printer = Printer { out: String::new(), args, next: 0, reordered: false };
    let mut rest = format;
    while let Some(percent) = rest.find('%') {
        printer.out.push_str(&rest[..percent]);
        rest = printer.directive(&rest[percent + 1..]);
    }
    printer.out.push_str(rest);
    printer.complain_of_extra();
    printer.out
}

struct Printer<'a> {
    out: String,
    args: &'a [Value],
    next: usize,
    /// An explicit index was used, so that unused arguments are no mistake.
    reordered: bool,
}

impl<'a> Printer<'a> {
    /// Formats one directive, whose percent sign was passed, and returns what follows it.
    fn directive<'f>(&mut self, mut rest: &'f str) -> &'f str {
        let mut flags = Flags::default();
        let mut bad_index = false;
        loop {
            match rest.as_bytes().first() {
                Some(b'+') => flags.plus = true,
                Some(b'-') => (flags.minus, flags.zero) = (true, false),
                Some(b'#') => flags.sharp = true,
                Some(b' ') => flags.space = true,
                Some(b'0') => flags.zero = !flags.minus,
                _ => break,
            }
            rest = &rest[1..];
        }
        rest = self.index(rest, &mut bad_index);
        if let Some(after) = rest.strip_prefix('*') {
            rest = after;
            match self.star("BADWIDTH") {
                Some(width) if width < 0 => {
                    (flags.minus, flags.zero) = (true, false);
                    flags.width = Some(width.unsigned_abs() as usize);
                }
                width => flags.width = width.map(|width| width as usize),
            }
        } else {
            (flags.width, rest) = digits(rest);
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = self.index(after, &mut bad_index);
            if let Some(after) = rest.strip_prefix('*') {
                rest = after;
                flags.precision = self.star("BADPREC").and_then(|precision| usize::try_from(precision).ok());
            } else {
                let (precision, after) = digits(rest);
                flags.precision = Some(precision.unwrap_or(0));
                rest = after;
            }
        }
        rest = self.index(rest, &mut bad_index);
        let Some(verb) = rest.chars().next() else {
            self.out.push_str("%!(NOVERB)");
            return rest;
        };
        self.verb(verb, &flags, bad_index);
        &rest[verb.len_utf8()..]
    }

    fn verb(&mut self, verb: char, flags: &Flags, bad_index: bool) {
        if verb == '%' {
            self.out.push('%');
        } else if bad_index {
            self.out.push_str(&format!("%!{verb}(BADINDEX)"));
        } else if let Some(arg) = self.args.get(self.next) {
            self.next += 1;
            write_value(&mut self.out, arg, verb, flags);
        } else {
            self.out.push_str(&format!("%!{verb}(MISSING)"));
        }
    }

    /// `[n]`: the next argument is the n-th.
    fn index<'f>(&mut self, rest: &'f str, bad: &mut bool) -> &'f str {
        let Some(inner) = rest.strip_prefix('[') else { return rest };
        self.reordered = true;
        let Some((number, after)) = inner.split_once(']') else {
            *bad = true;
            return inner;
        };
        match number.parse::<usize>() {
            Ok(n) if (1..=self.args.len()).contains(&n) => self.next = n - 1,
            _ => *bad = true,
        }
        after
    }

    fn star(&mut self, complaint: &str) -> Option<i64> {
        let number = match self.args.get(self.next) {
            Some(Value::Int(number)) if number.unsigned_abs() <= WIDTH_MAX as u64 => Some(*number),
            _ => None,
        };
        self.next += 1;
        if number.is_none() {
            self.out.push_str(&format!("%!({complaint})"));
        }
        number
    }

    fn complain_of_extra(&mut self) {
        let Some(extra) = self.args.get(self.next..).filter(|extra| !extra.is_empty()) else { return };
        if self.reordered {
            return;
        }
        let extra: Vec<String> = extra
            .iter()
            .map(|arg| match arg {
                Value::Nil => "<nil>".to_owned(),
                _ => format!("{}={}", arg.type_name(), display(arg)),
            })
            .collect();
        self.out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
}

/// A number of at most [`WIDTH_MAX`]; a larger one is cut to it.
fn digits(text: &str) -> (Option<usize>, &str) {
    let count = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = (count > 0).then(|| text[..count].parse().unwrap_or(WIDTH_MAX).min(WIDTH_MAX));
    (number, &text[count..])
}

fn write_value(out: &mut String, value: &Value, verb: char, flags: &Flags) {
    match (value, verb) {
        (_, 'T') => write_padded(out, value.type_name(), flags),
        (Value::Nil, 'v') => write_padded(out, "<nil>", flags),
        (Value::Nil, _) => out.push_str(&format!("%!{verb}(<nil>)")),
        (Value::Bool(b), 't' | 'v') => write_padded(out, if *b { "true" } else { "false" }, flags),
        (Value::Int(n), 'b' | 'd' | 'o' | 'O' | 'x' | 'X' | 'c' | 'q' | 'U' | 'v') => {
            write_integer(out, *n < 0, n.unsigned_abs(), verb, flags);
        }
        (Value::Uint(n), 'b' | 'd' | 'o' | 'O' | 'x' | 'X' | 'c' | 'q' | 'U' | 'v') => {
            write_integer(out, false, *n, verb, flags);
        }
        (Value::Float(x), 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'v') => write_float(out, *x, verb, flags),
        (Value::Str(text) | Value::Html(text), 's' | 'v' | 'q' | 'x' | 'X') => {
            write_text(out, text, verb, flags);
        }
        (Value::Time(_) | Value::Duration(_) | Value::Histogram(_), 's' | 'v' | 'q' | 'x' | 'X') => {
            write_text(out, &value.text(), verb, flags);
        }
        (Value::Duration(nanos), 'd') => {
            write_integer(out, *nanos < 0, nanos.unsigned_abs(), verb, flags);
        }
        (Value::List(items), _) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                write_value(out, item, verb, flags);
            }
            out.push(']');
        }
        (Value::Labels(_) | Value::Args(_), _) => write_map(out, value, verb, flags),
        (Value::Sample(sample), _) => {
            out.push_str("&{");
            write_map(out, &Value::Labels(sample.labels.clone()), verb, flags);
            out.push(' ');
            write_value(out, &sample.value, verb, flags);
            out.push('}');
        }
        (Value::Alert(data), _) => {
            out.push('{');
            for (i, field) in data.fields().iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                write_value(out, field, verb, flags);
            }
            out.push('}');
        }
        _ => out.push_str(&format!("%!{verb}({}={})", value.type_name(), display(value))),
    }
}

fn write_map(out: &mut String, map: &Value, verb: char, flags: &Flags) {
    out.push_str("map[");
    for (i, (key, value)) in map.entries().into_iter().enumerate() {
        out.push_str(if i > 0 { " " } else { "" });
        write_value(out, &Value::str(&key), verb, flags);
        out.push(':');
        write_value(out, &value, verb, flags);
    }
    out.push(']');
}

fn write_padded(out: &mut String, text: &str, flags: &Flags) {
    let padding = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    let fill = if flags.zero { '0' } else { ' ' };
    if !flags.minus {
        out.extend(std::iter::repeat_n(fill, padding));
    }
    out.push_str(text);
    if flags.minus {
        out.extend(std::iter::repeat_n(' ', padding));
    }
}

/// Pads with zeros between sign and digits where that is asked for.
fn write_number(out: &mut String, sign: &str, digits: &str, flags: &Flags) {
    if !flags.zero {
        return write_padded(out, &format!("{sign}{digits}"), flags);
    }
    out.push_str(sign);
    let width = flags.width.map(|width| width.saturating_sub(sign.len()));
    write_padded(out, digits, &Flags { width, ..*flags });
}

fn write_integer(out: &mut String, negative: bool, magnitude: u64, verb: char, flags: &Flags) {
    let character = || u32::try_from(magnitude).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
    let mut digits = match verb {
        'c' => return write_padded(out, &character().to_string(), flags),
        'q' => return write_padded(out, &ascii_if(flags.plus, quote_char(character())), flags),
        'U' => {
            let suffix = if flags.sharp { format!(" '{}'", character()) } else { String::new() };
            let text = format!("U+{magnitude:04X}{suffix}");
            return write_padded(out, &text, &Flags { zero: false, ..*flags });
        }
        'b' => format!("{magnitude:b}"),
        'o' | 'O' => format!("{magnitude:o}"),
        'x' => format!("{magnitude:x}"),
        'X' => format!("{magnitude:X}"),
        _ => magnitude.to_string(),
    };
    if let Some(precision) = flags.precision {
        digits =
            if precision == 0 && magnitude == 0 { String::new() } else { format!("{digits:0>precision$}") };
    }
    let prefix = match verb {
        'O' => "0o",
        'o' if flags.sharp => "0",
        'b' if flags.sharp => "0b",
        'x' if flags.sharp => "0x",
        'X' if flags.sharp => "0X",
        _ => "",
    };
    let sign = format!("{}{prefix}", sign(negative, flags));
    write_number(out, &sign, &digits, &Flags { zero: flags.zero && flags.precision.is_none(), ..*flags });
}

fn sign(negative: bool, flags: &Flags) -> &'static str {
    match (negative, flags.plus, flags.space) {
        (true, ..) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    }
}

fn write_float(out: &mut String, value: f64, verb: char, flags: &Flags) {
    let precision = match verb {
        'e' | 'E' | 'f' | 'F' => Some(flags.precision.unwrap_or(6)),
        _ => flags.precision,
    };
    let text = format_float(value.abs(), if verb == 'v' { 'g' } else { verb }, precision);
    let digits = text.trim_start_matches('+');
    let sign = sign(value.is_sign_negative() && !value.is_nan(), flags);
    // Go shows the sign of an infinity, and never pads what is no number with zeros.
    let sign = if value.is_infinite() && sign.is_empty() { "+" } else { sign };
    write_number(out, sign, digits, &Flags { zero: flags.zero && value.is_finite(), ..*flags });
}

fn write_text(out: &mut String, text: &str, verb: char, flags: &Flags) {
    let cut: String;
    let text = match flags.precision {
        Some(precision) => {
            cut = text.chars().take(precision).collect();
            cut.as_str()
        }
        None => text,
    };
    match verb {
        'q' if flags.sharp && !text.contains(['`', '\n', '\r']) => {
            write_padded(out, &format!("`{text}`"), flags)
        }
        'q' => write_padded(out, &ascii_if(flags.plus, quote(text)), flags),
        'x' | 'X' => write_padded(out, &hex(text, verb == 'X', flags), flags),
        _ => write_padded(out, text, flags),
    }
}

fn hex(text: &str, upper: bool, flags: &Flags) -> String {
    let byte = |b: u8| if upper { format!("{b:02X}") } else { format!("{b:02x}") };
    let prefix = match (flags.sharp, upper) {
        (false, _) => "",
        (true, false) => "0x",
        (true, true) => "0X",
    };
    let bytes: Vec<String> = text.bytes().map(byte).collect();
    match (bytes.is_empty(), flags.space) {
        (true, _) => String::new(),
        (_, true) => format!("{prefix}{}", bytes.join(&format!(" {prefix}"))),
        (_, false) => format!("{prefix}{}", bytes.concat()),
    }
}
