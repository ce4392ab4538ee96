//! `eval`: a query, when it is asked, and what it must answer.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use tidewatch_model::{Labels, parse_duration_ms, quote};
use tidewatch_parser::{ParserOptions, SequenceValue, parse_expr};

use super::expect::{Expectations, Pattern};
use super::load::read_series;
use super::{Lines, misplaced};

static INSTANT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$")
        .expect("a valid expression")
});
static RANGE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$")
        .expect("a valid expression")
});
static RANGE_VECTOR: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^expect range vector\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+)$").expect("a valid expression")
});

/// An evaluation.
#[derive(Debug)]
pub struct Eval {
    /// The command's line, counted from 1.
    pub line: usize,
    pub query: String,
    pub time: Time,
    pub expectations: Expectations,
    pub expected: Expected,
    /// Times of the expected points of a range vector.
    pub points: Option<Points>,
}

/// When a query is asked, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Instant(i64),
    Range(Points),
}

/// Times at equal distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Points {
    pub start: i64,
    pub end: i64,
    pub step: i64,
}

/// What a query must answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Expected {
    Scalar(f64),
    String(String),
    /// In the order of the script; empty for no result.
    Series(Vec<ExpectedSeries>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ExpectedSeries {
    pub labels: Labels,
    /// The place in an ordered result, from 1.
    pub position: usize,
    pub values: Vec<SequenceValue>,
}

pub(super) fn read(lines: &mut Lines<'_>, options: &ParserOptions) -> Result<Eval, String> {
    let line = lines.at + 1;
    let header = lines.next_of_command().expect("the caller peeked");
    let (parts, instant) = match (INSTANT.captures(header), RANGE.captures(header)) {
        (Some(parts), _) => (parts, true),
        (None, Some(parts)) => (parts, false),
        (None, None) => {
            return Err(misplaced(
                "invalid evaluation command. Must be either 'eval[_fail|_warn|_ordered] instant [at \
                 <offset:duration>] <query>' or 'eval[_fail|_warn] range from <from> to <to> step <step> \
                 <query>'"
                    .to_owned(),
            ));
        }
    };
    let query = &parts[if instant { 3 } else { 5 }];
    check_query(query, header, line, options)?;
    let time = if instant { instant_time(&parts) } else { range_time(&parts).map(Time::Range) };
    let mut eval = Eval {
        line,
        query: query.to_owned(),
        time: time.map_err(|why| in_eval(query, line, &why))?,
        expectations: legacy_expectations(parts.get(1).map(|mode| mode.as_str())),
        expected: Expected::Series(Vec::new()),
        points: None,
    };
    let mut position = 1;
    while let Some(text) = lines.next_of_command() {
        match eval.add_line(text, lines.at - 1, &mut position)? {
            More::Lines => {}
            More::Nothing => break,
        }
    }
    Ok(eval)
}

/// Whether the command may go on behind a line.
enum More {
    Lines,
    Nothing,
}

impl Eval {
    /// Adds a line behind the header; `before` lines precede it in the script.
    fn add_line(&mut self, text: &str, before: usize, position: &mut usize) -> Result<More, String> {
        let fail = |why: String| Err(in_eval(&self.query, before + 1, &why));
        if self.expectations.fail
            && let Some(message) = text.strip_prefix("expected_fail_message")
        {
            self.expectations.legacy_fail = Some(Pattern::Exactly(message.trim().to_owned()));
            return Ok(More::Nothing);
        }
        if self.expectations.fail
            && let Some(pattern) = text.strip_prefix("expected_fail_regexp")
        {
            let pattern = pattern.trim();
            match Pattern::matching(pattern) {
                Ok(pattern) => self.expectations.legacy_fail = Some(pattern),
                Err(error) => {
                    return fail(format!("invalid regexp '{pattern}' for expected_fail_regexp: {error}"));
                }
            }
            return Ok(More::Nothing);
        }
        if text.starts_with("expect range vector") {
            match range_vector_points(text) {
                Ok(points) => {
                    self.points = Some(points);
                    self.time = Time::Instant(points.end);
                }
                Err(why) => return fail(why),
            }
        } else if text.starts_with("expect string") {
            match string_literal(text) {
                Ok(string) => self.expected = Expected::String(string),
                Err(why) => return fail(why),
            }
        } else if text.split(' ').next() == Some("expect") {
            if let Err(why) = self.expectations.add(text) {
                return fail(why);
            }
            return Ok(More::Lines);
        } else if let Some(value) = number(text) {
            self.expected = Expected::Scalar(value);
            return Ok(More::Nothing);
        } else {
            self.add_series(text, before, *position)?;
        }
        *position += 1;
        Ok(More::Lines)
    }

    fn add_series(&mut self, text: &str, before: usize, position: usize) -> Result<(), String> {
        let (labels, values) = read_series(text, before)?;
        if values.len() > 1 && matches!(self.time, Time::Instant(_)) && self.points.is_none() {
            let why = "expecting multiple values in instant evaluation not allowed. consider using \
                       'expect range vector' directive to enable a range vector result for an instant query";
            return Err(in_eval(&self.query, before + 1, why));
        }
        if !matches!(self.expected, Expected::Series(_)) {
            self.expected = Expected::Series(Vec::new());
        }
        let Expected::Series(all) = &mut self.expected else { unreachable!("set above") };
        let series = ExpectedSeries { labels, position, values };
        match all.iter_mut().find(|other| other.labels == series.labels) {
            Some(other) => *other = series,
            None => all.push(series),
        }
        Ok(())
    }

    /// Whether the query gives something else than an instant vector or a scalar, so that a
    /// range query cannot give the same.
    pub fn instant_only(&self) -> bool {
        self.points.is_some() || matches!(self.expected, Expected::String(_))
    }
}

fn in_eval(query: &str, line: usize, why: &str) -> String {
    format!("error in eval {query} (line {line}): {why}")
}

/// A query that cannot be parsed is refused at its place in the script.
fn check_query(query: &str, header: &str, line: usize, options: &ParserOptions) -> Result<(), String> {
    let Err(errors) = parse_expr(query, options) else { return Ok(()) };
    let first = errors.first();
    let mut pos = first.pos;
    let offset = header.find(query).unwrap_or(0);
    pos.start += offset;
    Err(format!("{}: parse error: {}", pos.start_in_lines(header, line - 1), first.message))
}

fn instant_time(parts: &Captures<'_>) -> Result<Time, String> {
    let at = parts.get(2).map_or("", |at| at.as_str());
    parse_duration_ms(at)
        .map(Time::Instant)
        .map_err(|error| format!("invalid timestamp definition {}: {error}", quote(at)))
}

fn range_time(parts: &Captures<'_>) -> Result<Points, String> {
    points(&parts[2], &parts[3], &parts[4])
}

fn range_vector_points(text: &str) -> Result<Points, String> {
    let Some(parts) = RANGE_VECTOR.captures(text) else {
        return Err(format!("invalid range vector definition {}", quote(text)));
    };
    points(&parts[1], &parts[2], &parts[3])
}

fn points(from: &str, to: &str, step: &str) -> Result<Points, String> {
    let read = |text: &str, what: &str| {
        parse_duration_ms(text).map_err(|error| format!("invalid {what} definition {}: {error}", quote(text)))
    };
    let start = read(from, "start timestamp")?;
    let end = read(to, "end timestamp")?;
    if end < start {
        return Err(format!(
            "invalid test definition, end timestamp ({to}) is before start timestamp ({from})"
        ));
    }
    Ok(Points { start, end, step: read(step, "step")? })
}

fn legacy_expectations(mode: Option<&str>) -> Expectations {
    Expectations {
        ordered: mode == Some("ordered"),
        fail: mode == Some("fail"),
        any_warning: mode == Some("warn"),
        any_info: mode == Some("info"),
        ..Expectations::default()
    }
}

/// Reads the text of `expect string "…"`: a string literal of Go, quoted or raw.
fn string_literal(line: &str) -> Result<String, String> {
    let literal = line.strip_prefix("expect string ").unwrap_or_default();
    if literal.is_empty() {
        return Err("expected string literal not valid - a quoted string literal is required".to_owned());
    }
    match parse_expr(literal, &ParserOptions::stable()) {
        Ok(tidewatch_parser::Expr::String(string)) if !literal.starts_with('\'') => Ok(string.value),
        _ => Err("expected string literal not valid - check that the string is correctly quoted".to_owned()),
    }
}

/// A line that is nothing but a number is the expected scalar.
fn number(text: &str) -> Option<f64> {
    let (minus, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    match parse_expr(unsigned, &ParserOptions::stable()) {
        Ok(tidewatch_parser::Expr::Number(number))
            if !number.duration && number.pos.end == unsigned.len() =>
        {
            let signed_twice = unsigned.starts_with(['-', '+']);
            (!signed_twice).then_some(if minus { -number.value } else { number.value })
        }
        _ => None,
    }
}
