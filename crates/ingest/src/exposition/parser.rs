//! Lines of tokens to entries.

use std::borrow::Cow;
use std::str;

use memchr::{memchr, memchr_iter};
use tidewatch_model::{LabelsBuilder, METRIC_NAME, MetricType};

use super::labels::{normalize, unescape, unescape_help};
use super::lexer::{Lexer, Token};
use super::number::{parse_float, parse_int};
use super::{Entry, Exemplar, Format, ParseError, Series, go};

/// The NaN that a scraped `NaN` becomes, whatever its spelling: Prometheus' ordinary one.
const NORMAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

fn normal(value: f64) -> f64 {
    if value.is_nan() { NORMAL_NAN } else { value }
}

/// A label in the document: where its name and its value stand, without quotes.
#[derive(Debug, Clone, Copy)]
struct LabelSpan {
    name: (usize, usize),
    value: (usize, usize),
}

/// Reads a document entry by entry. Memory is taken only for the longest label list so far.
pub struct Parser<'a> {
    lexer: Lexer<'a>,
    bytes: &'a [u8],
    format: Format,
    /// Where the current entry starts.
    start: usize,
    /// The type of the last `TYPE` line.
    kind: MetricType,
    /// Where the name of the current series stands.
    name: Option<(usize, usize)>,
    labels: Vec<LabelSpan>,
    exemplar_labels: Vec<LabelSpan>,
}

impl<'a> Parser<'a> {
    pub fn new(bytes: &'a [u8], format: Format) -> Parser<'a> {
        Parser {
            lexer: Lexer::new(bytes, format),
            bytes,
            format,
            start: 0,
            kind: MetricType::Unknown,
            name: None,
            labels: Vec::new(),
            exemplar_labels: Vec::new(),
        }
    }

    /// The next entry; [`Entry::Eof`] at a good end. Not to be called again after an error.
    pub fn next_entry(&mut self) -> Result<Entry<'a>, ParseError> {
        self.read_entry().map_err(|message| {
            let until = self.lexer.start.min(self.bytes.len());
            ParseError { line: 1 + memchr_iter(b'\n', &self.bytes[..until]).count(), message }
        })
    }

    /// As [`Parser::next_entry`], faster where the entry is a series with this text, which the same
    /// grammar has read before, and a value alone. [`Parser::labels`] has nothing to give then.
    pub fn next_entry_like(&mut self, text: &[u8]) -> Result<Entry<'a>, ParseError> {
        match self.read_series_like(text) {
            Some(series) => Ok(Entry::Series(series)),
            None => self.next_entry(),
        }
    }

    /// The next line with its break, if it begins with `#` and nothing of it was read: one that the same
    /// grammar has read before need not be read again, see [`Parser::skip_line`].
    pub fn comment_ahead(&self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.lexer.at..).filter(|rest| rest.first() == Some(&b'#'))?;
        let end = memchr(b'\n', rest).filter(|_| self.lexer.is_at_line())?;
        Some(&rest[..=end])
    }

    /// Steps over [`Parser::comment_ahead`]; `kind` is what it says, where it is a `TYPE` line.
    pub fn skip_line(&mut self, kind: Option<MetricType>) {
        let line = self.comment_ahead().expect("asked for before");
        self.lexer.at += line.len();
        self.kind = kind.unwrap_or(self.kind);
    }

    /// The bytes of the entry just read.
    pub fn line(&self) -> &'a [u8] {
        self.lexer.slice(self.start, self.lexer.at)
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.lexer.at.min(self.bytes.len())
    }

    /// Whatever is not plain is left to the grammar, from the line's start.
    fn read_series_like(&mut self, text: &[u8]) -> Option<Series<'a>> {
        let start = self.lexer.at;
        let rest = self.bytes.get(start..)?.strip_prefix(text)?.strip_prefix(b" ")?;
        let number = &rest[..memchr(b'\n', rest)?];
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'+' | b'-');
        if text.is_empty() || !self.lexer.is_at_line() || !number.iter().all(is_part) {
            return None;
        }
        let value = parse_float(number).ok()?;
        self.start = start;
        self.lexer.at = start + text.len() + 1 + number.len() + 1;
        self.name = None;
        Some(Series {
            text: &self.bytes[start..start + text.len()],
            value: normal(value),
            timestamp: None,
            exemplar: None,
        })
    }

    /// Puts the labels of the series just read into `out`, escapes undone, the metric's name as
    /// `__name__`, without empty values.
    pub fn labels(&self, out: &mut LabelsBuilder) -> Result<(), ParseError> {
        *out = LabelsBuilder::new();
        let (start, until) = self.name.expect("a series was read");
        let result = self.utf8(start, until).and_then(|name| {
            out.set(METRIC_NAME, &unescape(name));
            self.labels.iter().try_for_each(|span| self.add_label(span, out, true))
        });
        result.map_err(|message| self.series_error(message))
    }

    /// Whether the series just read shows a label of this name, though its value may be empty.
    pub fn has_label(&self, name: &str) -> bool {
        let is_it = |shown: &str| *unescape(shown) == *name;
        self.labels.iter().any(|span| self.utf8(span.name.0, span.name.1).is_ok_and(is_it))
    }

    /// Puts the labels of the exemplar just read into `out`, as they are written.
    pub fn exemplar_labels(&self, out: &mut LabelsBuilder) -> Result<(), ParseError> {
        *out = LabelsBuilder::new();
        self.exemplar_labels
            .iter()
            .try_for_each(|span| self.add_label(span, out, false))
            .map_err(|message| self.series_error(message))
    }

    fn series_error(&self, message: String) -> ParseError {
        ParseError { line: 1 + memchr_iter(b'\n', &self.bytes[..self.start]).count(), message }
    }

    fn add_label(&self, span: &LabelSpan, out: &mut LabelsBuilder, escaped: bool) -> Result<(), String> {
        let name = self.utf8(span.name.0, span.name.1)?;
        let value = self.utf8(span.value.0, span.value.1)?;
        if !escaped {
            out.set(name, value);
            return Ok(());
        }
        let name = unescape(name);
        if out.get(&name).is_some() {
            return Err(format!("label name {} is not unique: invalid sample", go::quote(name.as_bytes())));
        }
        let value = normalize(self.kind, &name, unescape(value));
        out.set(&name, &value);
        Ok(())
    }

    fn utf8(&self, start: usize, until: usize) -> Result<&'a str, String> {
        let bytes = &self.bytes[start..until];
        str::from_utf8(bytes).map_err(|_| format!("invalid metric name or label names: {}", go::quote(bytes)))
    }

    fn read_entry(&mut self) -> Result<Entry<'a>, String> {
        loop {
            self.start = self.lexer.at;
            let token = self.lexer.next();
            return match token {
                Token::Linebreak => continue,
                Token::Eof if self.format == Format::Prometheus => Ok(Entry::Eof),
                Token::Eof => Err("data does not end with # EOF".to_owned()),
                Token::EofWord => match self.lexer.next() {
                    Token::Eof => Ok(Entry::Eof),
                    _ => Err("unexpected data after # EOF".to_owned()),
                },
                Token::Help | Token::Type | Token::Unit => self.read_metadata(token),
                Token::Comment => {
                    let comment = self.lexer.token();
                    self.expect_linebreak("linebreak expected after comment")?;
                    Ok(Entry::Comment(comment))
                }
                Token::BraceOpen | Token::MetricName => self.read_series(token),
                _ => Err(self.unexpected("expected a valid start token", token)),
            };
        }
    }

    fn read_metadata(&mut self, line: Token) -> Result<Entry<'a>, String> {
        match self.lexer.next() {
            Token::MetricName => {}
            other => {
                return Err(self.unexpected(&format!("expected metric name after {}", line.name()), other));
            }
        }
        let family = unquote(self.lexer.token());
        let text = self.metadata_text(line)?;
        let entry = match line {
            Token::Type => {
                self.kind = metric_type(text, self.format)
                    .ok_or_else(|| format!("invalid metric type {}", go::quote(text)))?;
                Entry::Type { family, kind: self.kind }
            }
            Token::Help => Entry::Help { family, text: self.help_text(text)? },
            _ => {
                let is_suffix = family.strip_suffix(text).is_some_and(|rest| rest.ends_with(b"_"));
                if !text.is_empty() && !is_suffix {
                    let (unit, family) = (go::quote(text), go::quote(family));
                    return Err(format!("unit {unit} not a suffix of metric {family}"));
                }
                Entry::Unit { family, unit: text }
            }
        };
        if self.format == Format::Prometheus {
            self.expect_linebreak("linebreak expected after metadata")?;
        }
        Ok(entry)
    }

    /// The rest of a metadata line, without the blank before it and the line break behind it.
    fn metadata_text(&mut self, line: Token) -> Result<&'a [u8], String> {
        match (self.lexer.next(), self.format) {
            (Token::Text, Format::Prometheus) => Ok(self.lexer.token().get(1..).unwrap_or_default()),
            (Token::Text, Format::OpenMetrics) => {
                let token = self.lexer.token();
                Ok(&token[1..token.len() - 1])
            }
            (token, Format::Prometheus) => {
                Err(format!("expected text in {}, got {}", line.name(), token.name()))
            }
            (_, Format::OpenMetrics) => Err(format!("expected text in {}", line.name())),
        }
    }

    fn help_text(&self, text: &'a [u8]) -> Result<Cow<'a, str>, String> {
        let text = str::from_utf8(text)
            .map_err(|_| format!("help text {} is not a valid utf8 string", go::quote(text)))?;
        Ok(match self.format {
            Format::Prometheus => unescape_help(text),
            Format::OpenMetrics => unescape(text),
        })
    }

    fn read_series(&mut self, first: Token) -> Result<Entry<'a>, String> {
        self.labels.clear();
        self.exemplar_labels.clear();
        self.name = None;
        let mut has_labels = first == Token::BraceOpen;
        let mut until = self.lexer.at;
        let mut next = first;
        if first == Token::MetricName {
            // From the entry's start: leading blanks are part of the name, as in Prometheus.
            self.name = Some((self.start, until));
            next = self.lexer.next();
            has_labels = next == Token::BraceOpen;
        }
        if has_labels {
            self.read_labels(false)?;
            until = self.lexer.at;
            next = self.lexer.next();
        }
        if self.name.is_none() {
            return Err(format!("metric name not set while parsing: {}", self.quoted_entry()));
        }
        let value = self.read_value(next, "metric")?;
        let (timestamp, exemplar) = self.read_suffix()?;
        Ok(Entry::Series(Series { text: &self.bytes[self.start..until], value, timestamp, exemplar }))
    }

    /// The labels between braces, the opening one consumed. A quoted string that stands alone
    /// names the metric.
    fn read_labels(&mut self, is_exemplar: bool) -> Result<(), String> {
        let mut token = self.lexer.next();
        loop {
            let is_quoted = token == Token::QuotedString;
            match token {
                Token::BraceClose => return Ok(()),
                Token::LabelName | Token::QuotedString => {}
                _ => return Err(self.unexpected("expected label name", token)),
            }
            let mut name = (self.lexer.start, self.lexer.at);
            if is_quoted {
                name = (name.0 + 1, name.1 - 1);
            }
            token = self.lexer.next();
            if is_quoted && matches!(token, Token::Comma | Token::BraceClose) {
                self.set_name(name, is_exemplar, token)?;
                if token == Token::BraceClose {
                    return Ok(());
                }
                token = self.lexer.next();
                continue;
            }
            let value = self.read_label_value(token)?;
            let labels = if is_exemplar { &mut self.exemplar_labels } else { &mut self.labels };
            labels.push(LabelSpan { name, value });
            // The Prometheus format lets the comma be left out.
            token = self.lexer.next();
            match (token, self.format) {
                (Token::Comma, _) => token = self.lexer.next(),
                (Token::BraceClose, _) | (_, Format::Prometheus) => {}
                _ => return Err(self.unexpected("expected comma or brace close", token)),
            }
        }
    }

    fn set_name(&mut self, name: (usize, usize), is_exemplar: bool, next: Token) -> Result<(), String> {
        if is_exemplar {
            return Err(self.unexpected("expected label name", next));
        }
        if self.name.is_some() {
            return Err(format!("metric name already set while parsing: {}", self.quoted_entry()));
        }
        self.name = Some(name);
        Ok(())
    }

    /// `="value"`, of which `token` should be the first; gives where the value stands.
    fn read_label_value(&mut self, token: Token) -> Result<(usize, usize), String> {
        if token != Token::Equal {
            return Err(self.unexpected("expected equal", token));
        }
        match self.lexer.next() {
            Token::LabelValue => {}
            other => return Err(self.unexpected("expected label value", other)),
        }
        let quoted = self.lexer.token();
        if str::from_utf8(quoted).is_err() {
            return Err(format!("invalid UTF-8 label value: {}", go::quote(quoted)));
        }
        Ok((self.lexer.start + 1, self.lexer.at - 1))
    }

    fn read_value(&mut self, token: Token, after: &str) -> Result<f64, String> {
        if token != Token::Value {
            return Err(self.unexpected(&format!("expected value after {after}"), token));
        }
        let value = self.parse_number(self.number_text(), parse_float)?;
        Ok(normal(value))
    }

    /// The current token without the space that OpenMetrics counts to it.
    fn number_text(&self) -> &'a [u8] {
        let token = self.lexer.token();
        if self.format == Format::OpenMetrics { &token[1..] } else { token }
    }

    fn parse_number<T>(&self, text: &[u8], parse: fn(&[u8]) -> Result<T, String>) -> Result<T, String> {
        parse(text).map_err(|message| format!("{message} while parsing: {}", self.quoted_entry()))
    }

    /// Timestamp and exemplar, to the line's end.
    fn read_suffix(&mut self) -> Result<(Option<i64>, Option<Exemplar>), String> {
        let mut timestamp = None;
        let mut token = self.lexer.next();
        let expected = match (token, self.format) {
            (Token::Timestamp, format) => {
                timestamp = Some(match format {
                    Format::Prometheus => self.parse_number(self.lexer.token(), parse_int)?,
                    Format::OpenMetrics => self.seconds("timestamp")?,
                });
                token = self.lexer.next();
                "expected next entry after timestamp"
            }
            (Token::Eof, Format::OpenMetrics) => return Err("data does not end with # EOF".to_owned()),
            (_, Format::Prometheus) => "expected timestamp or new record",
            (_, Format::OpenMetrics) => "expected timestamp or # symbol",
        };
        match token {
            Token::Linebreak => Ok((timestamp, None)),
            Token::Comment => Ok((timestamp, Some(self.read_exemplar()?))),
            _ => Err(self.unexpected(expected, token)),
        }
    }

    /// An exemplar, its opening brace consumed.
    fn read_exemplar(&mut self) -> Result<Exemplar, String> {
        self.read_labels(true)?;
        let token = self.lexer.next();
        let value = self.read_value(token, "exemplar labels")?;
        let mut exemplar = Exemplar { value, timestamp: None };
        match self.lexer.next() {
            Token::Linebreak => Ok(exemplar),
            Token::Eof => Err("data does not end with # EOF".to_owned()),
            Token::Timestamp => {
                exemplar.timestamp = Some(self.seconds("exemplar timestamp")?);
                self.expect_linebreak("expected next entry after exemplar timestamp")?;
                Ok(exemplar)
            }
            other => Err(self.unexpected("expected timestamp or comment", other)),
        }
    }

    /// The current token as seconds, in milliseconds.
    fn seconds(&self, what: &str) -> Result<i64, String> {
        let seconds = self.parse_number(self.number_text(), parse_float)?;
        if !seconds.is_finite() {
            return Err(format!("invalid {what} {}", go::openmetrics_float(seconds)));
        }
        // Saturates where Go's conversion is undefined.
        Ok((seconds * 1000.0) as i64)
    }

    fn expect_linebreak(&mut self, expected: &str) -> Result<(), String> {
        match self.lexer.next() {
            Token::Linebreak => Ok(()),
            other => Err(self.unexpected(expected, other)),
        }
    }

    fn unexpected(&self, expected: &str, got: Token) -> String {
        let shown = go::quote(&self.lexer.shown(self.lexer.start));
        let entry = go::quote(&self.lexer.shown(self.start));
        format!("{expected}, got {shown} ({}) while parsing: {entry}", go::quote(got.name().as_bytes()))
    }

    /// The current entry as far as it was read.
    fn quoted_entry(&self) -> String {
        go::quote(self.lexer.slice(self.start, self.lexer.at))
    }
}

fn unquote(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(name)
}

fn metric_type(text: &[u8], format: Format) -> Option<MetricType> {
    Some(match (text, format) {
        (b"counter", _) => MetricType::Counter,
        (b"gauge", _) => MetricType::Gauge,
        (b"histogram", _) => MetricType::Histogram,
        (b"summary", _) => MetricType::Summary,
        (b"untyped", Format::Prometheus) | (b"unknown", Format::OpenMetrics) => MetricType::Unknown,
        (b"gaugehistogram", Format::OpenMetrics) => MetricType::GaugeHistogram,
        (b"info", Format::OpenMetrics) => MetricType::Info,
        (b"stateset", Format::OpenMetrics) => MetricType::Stateset,
        _ => return None,
    })
}
