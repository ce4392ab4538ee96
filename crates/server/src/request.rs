//! What a request asks: its parameters, decoded, and their common types.

use std::net::IpAddr;

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Body;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use tidewatch_model::parse_duration_ms;

use crate::body::RequestBody;
use crate::error::{ApiError, ErrorKind};

/// Bytes of a form: enough for the longest query, percent-encoded, and many selectors.
pub(crate) const FORM_BYTES_MAX: usize = 1 << 20;
/// Parameters of one request.
const PARAMETERS_MAX: usize = 10_000;

/// Times before the first and after the last that Prometheus accepts, in milliseconds.
pub(crate) const MIN_TIME_MS: i64 = (i64::MIN / 1000 + 62_135_596_801) * 1000;
pub(crate) const MAX_TIME_MS: i64 = (i64::MAX / 1000 - 62_135_596_801) * 1000 + 999;
/// How clients spell them, with years beyond four digits.
const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// Parameters of a request: those of the form before those of the address, as Go orders them.
#[derive(Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    pub(crate) origin: Origin,
}

/// Who asked, and how: for the query log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    /// Absent where no socket is involved.
    pub client: Option<IpAddr>,
    pub method: String,
    pub path: String,
}

/// The other end of the connection, among a request's extensions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub IpAddr);

impl Params {
    /// Reads the address, and the body where it is a form.
    pub(crate) async fn read(parts: &Parts, body: RequestBody) -> Result<Params, ApiError> {
        let Parts { method, uri, headers, extensions, .. } = parts;
        let origin = Origin {
            client: extensions.get::<Peer>().map(|peer| peer.0),
            method: method.to_string(),
            path: uri.path().to_owned(),
        };
        let mut params = Params { pairs: Vec::new(), origin };
        let is_form = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| media_type(value).eq_ignore_ascii_case("application/x-www-form-urlencoded"));
        if matches!(*method, Method::POST | Method::PUT) && is_form {
            let form = read_all(body, FORM_BYTES_MAX).await?;
            params.parse(&form)?;
        }
        params.parse(uri.query().unwrap_or("").as_bytes())?;
        Ok(params)
    }

    fn parse(&mut self, text: &[u8]) -> Result<(), ApiError> {
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let equals = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = equals.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            if self.pairs.len() >= PARAMETERS_MAX {
                return Err(ApiError::bad_data(format!("more than {PARAMETERS_MAX} parameters")));
            }
            self.pairs.push((unescape(name)?, unescape(value)?));
        }
        Ok(())
    }

    /// The first value of `name`; empty where there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// All values of `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A time, or `default` where the parameter is absent or empty.
    pub(crate) fn time_or(&self, name: &str, default: i64) -> Result<i64, ApiError> {
        match self.get(name) {
            "" => Ok(default),
            text => parse_time(text).map_err(|error| {
                ApiError::parameter(name, format_args!("Invalid time value for '{name}': {error}"))
            }),
        }
    }

    pub(crate) fn time(&self, name: &str) -> Result<i64, ApiError> {
        parse_time(self.get(name)).map_err(|error| ApiError::parameter(name, error))
    }

    /// Milliseconds, where the parameter is present.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_duration_ns(text)
                .map(|ns| Some(ns / NS_PER_MS))
                .map_err(|error| ApiError::parameter(name, error)),
        }
    }

    /// The parameter `limit`: the most entries of an answer; absent or 0 for no limit.
    pub(crate) fn limit(&self) -> Result<Option<usize>, ApiError> {
        let limit = self.integer("limit").map_err(|error| ApiError::parameter("limit", error))?;
        match limit {
            Some(limit) if limit < 0 => Err(ApiError::parameter("limit", "limit must be non-negative")),
            limit => Ok(limit.filter(|limit| *limit > 0).map(|limit| limit as usize)),
        }
    }

    /// A whole number, where the parameter is present; an error is in the words of Go's `Atoi`.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, String> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(None);
        }
        let range = text.trim_start_matches(['+', '-']).bytes().all(|b| b.is_ascii_digit());
        let cause = if range { "value out of range" } else { "invalid syntax" };
        text.parse().map(Some).map_err(|_| format!("strconv.Atoi: parsing {text:?}: {cause}"))
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_all(mut body: RequestBody, limit: usize) -> Result<Vec<u8>, ApiError> {
    let too_large =
        || ApiError::new(ErrorKind::TooLarge, format!("request body is larger than {limit} bytes"));
    // A declared length refuses at once, before anything is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_data(format!("error reading body: {error}")))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes)
}

/// `application/json` of `application/json; charset=utf-8`
pub(crate) fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or("").trim()
}

/// Undoes `%41` and `+`.
fn unescape(text: &[u8]) -> Result<String, ApiError> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let Some(value) = hex_pair(tail) else {
                    let escape = String::from_utf8_lossy(&text[text.len() - tail.len() - 1..]);
                    let escape: String = escape.chars().take(3).collect();
                    return Err(ApiError::bad_data(format!(
                        "error parsing form values: invalid URL escape {escape:?}"
                    )));
                };
                out.push(value);
                rest = &tail[2..];
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|_| ApiError::bad_data("error parsing form values: invalid UTF-8"))
}

/// Undoes `%41` in one segment of a path, where `+` means itself.
pub(crate) fn unescape_path(text: &str) -> Result<String, ApiError> {
    unescape(text.replace('+', "%2B").as_bytes())
}

fn hex_pair(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let value = digit(*text.first()?)? * 16 + digit(*text.get(1)?)?;
    Some(value as u8)
}

/// Seconds since the epoch, perhaps with a fraction, or RFC 3339; in milliseconds.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let error = || format!("cannot parse {text:?} to a valid timestamp");
    if let Some(seconds) = parse_number(text) {
        return milliseconds(seconds).ok_or_else(error);
    }
    match text {
        MIN_TIME_TEXT => Ok(MIN_TIME_MS),
        MAX_TIME_TEXT => Ok(MAX_TIME_MS),
        _ => parse_rfc3339(text).ok_or_else(error),
    }
}

/// Prometheus rounds the part below a second, then cuts to milliseconds: 1.0005 is 1000 ms here.
fn milliseconds(seconds: f64) -> Option<i64> {
    if !seconds.is_finite() || (seconds * 1000.0).abs() >= i64::MAX as f64 {
        return None;
    }
    let ns = (seconds.fract() * 1000.0).round() / 1000.0 * 1e9;
    let ns = seconds.trunc() as i128 * 1_000_000_000 + ns as i128;
    i64::try_from(ns.div_euclid(i128::from(NS_PER_MS))).ok()
}

pub(crate) const NS_PER_MS: i64 = 1_000_000;

/// Seconds as a number, or a Prometheus duration; in nanoseconds, as Go counts durations.
pub(crate) fn parse_duration_ns(text: &str) -> Result<i64, String> {
    if let Some(seconds) = parse_number(text) {
        if !(seconds * 1e9).is_finite() || (seconds * 1e9).abs() > i64::MAX as f64 {
            return Err(format!("cannot parse {text:?} to a valid duration. It overflows int64"));
        }
        return Ok((seconds * 1e9) as i64);
    }
    let ms = parse_duration_ms(text).map_err(|_| format!("cannot parse {text:?} to a valid duration"))?;
    Ok(ms.saturating_mul(NS_PER_MS))
}

/// A float as Go reads it, infinities and NaN left out.
fn parse_number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// `2015-07-01T20:10:51.781Z`, with any offset; years have four digits.
fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = bytes.get(range)?;
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    if !(is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':')) {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let mut at = 19;
    let mut fraction_ms = 0.0;
    if is(at, b'.') {
        let count = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if count == 0 || count > 9 {
            return None;
        }
        fraction_ms = format!("0.{}", &text[at + 1..=at + count]).parse::<f64>().ok()? * 1000.0;
        at += 1 + count;
    }
    let offset_minutes = match *bytes.get(at)? {
        b'Z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b':') => {
            let minutes = digits(at + 1..at + 3)? * 60 + digits(at + 4..at + 6)?;
            if sign == b'+' { minutes } else { -minutes }
        }
        _ => return None,
    };
    let seconds =
        days_from_epoch(year, month, day) * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second;
    Some(seconds * 1000 + fraction_ms as i64)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1 January 1970 in the Gregorian calendar. Years begin in March here, so that the
/// leap day is the last of its year and months before it have a fixed pattern of lengths.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// `2015-07-01T20:10:51.781Z`: RFC 3339 without zeroes at the end of the fraction, as Go prints.
pub fn format_time(timestamp_ms: i64) -> String {
    let days = timestamp_ms.div_euclid(86_400_000);
    let in_day = timestamp_ms.rem_euclid(86_400_000);
    // The inverse of `days_from_epoch`, in eras of 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60);
    let fraction = match in_day % 1000 {
        0 => String::new(),
        ms => format!(".{ms:03}").trim_end_matches('0').to_owned(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_rfc_3339() {
        let cases = [
            ("0", Ok(0)),
            ("1435781451.781", Ok(1_435_781_451_781)),
            ("-1.5", Ok(-1500)),
            ("1e3", Ok(1_000_000)),
            ("2015-07-01T20:10:51.781Z", Ok(1_435_781_451_781)),
            ("2015-07-01T22:10:51.781+02:00", Ok(1_435_781_451_781)),
            ("2015-06-30T20:10:51Z", Ok(1_435_695_051_000)),
            ("2024-02-29T00:00:00-00:30", Ok(1_709_166_600_000)),
            ("1969-12-31T23:59:59.9Z", Ok(-100)),
            ("0001-01-01T00:00:00Z", Ok(-62_135_596_800_000)),
            (MIN_TIME_TEXT, Ok(MIN_TIME_MS)),
            (MAX_TIME_TEXT, Ok(MAX_TIME_MS)),
            ("", Err("cannot parse \"\" to a valid timestamp")),
            ("foo", Err("cannot parse \"foo\" to a valid timestamp")),
            ("NaN", Err("cannot parse \"NaN\" to a valid timestamp")),
            ("2023-02-29T00:00:00Z", Err("cannot parse \"2023-02-29T00:00:00Z\" to a valid timestamp")),
            ("2015-06-01T00:00:61Z", Err("cannot parse \"2015-06-01T00:00:61Z\" to a valid timestamp")),
            ("2015-06-01T00:00:00é", Err("cannot parse \"2015-06-01T00:00:00é\" to a valid timestamp")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_time(text), expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn times_print_and_read_back() {
        for ms in [
            0,
            -1,
            1_435_781_451_781,
            951_782_400_000,
            4_102_444_800_123,
            -62_135_596_800_000,
            68_169_600_000,
        ] {
            assert_eq!(parse_time(&format_time(ms)), Ok(ms), "{}", format_time(ms));
        }
        assert_eq!(format_time(1_435_781_451_780), "2015-07-01T20:10:51.78Z");
        assert_eq!(format_time(-62_135_596_800_000), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn durations_are_seconds_or_prometheus_durations() {
        let cases = [
            ("1", Ok(1000 * NS_PER_MS)),
            ("0.5", Ok(500 * NS_PER_MS)),
            ("-3", Ok(-3000 * NS_PER_MS)),
            ("1e-9", Ok(1)),
            ("5m", Ok(300_000 * NS_PER_MS)),
            ("1h30m", Ok(5_400_000 * NS_PER_MS)),
            ("foo", Err("cannot parse \"foo\" to a valid duration")),
            ("1e300", Err("cannot parse \"1e300\" to a valid duration. It overflows int64")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_duration_ns(text), expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn parameters_are_unescaped_and_broken_ones_refused() {
        let mut params = Params::default();
        params.parse(b"query=a%2Bb+c&match[]=x&match%5B%5D=y&flag").expect("valid");
        assert_eq!(params.get("query"), "a+b c");
        assert_eq!(params.all("match[]").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(params.get("flag"), "");
        for (text, message) in [
            (&b"a=%zz"[..], "error parsing form values: invalid URL escape \"%zz\""),
            (b"a=%4", "error parsing form values: invalid URL escape \"%4\""),
            (b"a=%ff", "error parsing form values: invalid UTF-8"),
        ] {
            assert_eq!(params.parse(text), Err(ApiError::bad_data(message)));
        }
        assert_eq!(unescape_path("a+b%2Fc").as_deref(), Ok("a+b/c"));
    }
}
