//! Tokens of both formats.
//!
//! ```text
//! Init ─ name ─► Value ─ { ─► Labels ─ = ─► LabelValue ─ "…" ─► Labels ─ } ─► Value
//! Value ─ number ─► Timestamp ─ line's end ─► Init
//! Init ─ "# " ─► Comment ─ HELP, TYPE, UNIT ─► Meta1 ─ name ─► Meta2 ─ text ─► Init
//! Timestamp ─ " # {" ─► Exemplar ─ = ─► ExemplarValue ─ "…" ─► Exemplar ─ } ─► ExemplarValue
//!     ─ number ─► ExemplarTimestamp ─ line's end ─► Init            (OpenMetrics only)
//! ```
//!
//! Each function of a state takes the longest token that may stand there. Where none may, the
//! token is [`Token::Invalid`] and the position is that of the byte that did not fit, which is
//! what error messages show.

use memchr::{memchr, memchr2, memchr3};

use super::Format;

/// Bytes of an entry that a message shows: a line may be as long as the document.
pub(super) const SHOWN_BYTES_MAX: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Invalid,
    Eof,
    Linebreak,
    Help,
    Type,
    Unit,
    EofWord,
    Text,
    Comment,
    MetricName,
    QuotedString,
    BraceOpen,
    BraceClose,
    LabelName,
    LabelValue,
    Comma,
    Equal,
    Timestamp,
    Value,
}

impl Token {
    /// The token's name in Prometheus' messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Token::Invalid => "INVALID",
            Token::Eof => "EOF",
            Token::Linebreak => "LINEBREAK",
            Token::Help => "HELP",
            Token::Type => "TYPE",
            Token::Unit => "UNIT",
            Token::EofWord => "EOFWORD",
            Token::Text => "TEXT",
            Token::Comment => "COMMENT",
            Token::MetricName => "MNAME",
            Token::QuotedString => "QSTRING",
            Token::BraceOpen => "BOPEN",
            Token::BraceClose => "BCLOSE",
            Token::LabelName => "LNAME",
            Token::LabelValue => "LVALUE",
            Token::Comma => "COMMA",
            Token::Equal => "EQUAL",
            Token::Timestamp => "TIMESTAMP",
            Token::Value => "VALUE",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Init,
    Meta1,
    Meta2,
    Labels,
    LabelValue,
    Value,
    Timestamp,
    Exemplar,
    ExemplarValue,
    ExemplarTimestamp,
}

/// Which bytes end a quoted string badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoted {
    /// Line breaks and NUL are content.
    Anything,
    /// NUL is not allowed.
    NoNul,
    /// Line breaks are not allowed.
    NoBreak,
    /// Neither is allowed.
    Neither,
}

pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    format: Format,
    state: State,
    /// Where the current token starts. Kept when the end of the input is met.
    pub(super) start: usize,
    /// The next byte to look at.
    pub(super) at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(bytes: &'a [u8], format: Format) -> Lexer<'a> {
        Lexer { bytes, format, state: State::Init, start: 0, at: 0 }
    }

    /// Length of the input. A Prometheus document gets a line break after its last byte, so that
    /// the last line needs none.
    fn len(&self) -> usize {
        match self.format {
            Format::Prometheus => self.bytes.len() + 1,
            Format::OpenMetrics => self.bytes.len(),
        }
    }

    /// The byte at `at`; NUL past the end, which fits no token.
    #[inline]
    fn byte(&self, at: usize) -> u8 {
        match self.bytes.get(at) {
            Some(&byte) => byte,
            None if at < self.len() => b'\n',
            None => 0,
        }
    }

    /// Whether nothing of the current line was read.
    pub(super) fn is_at_line(&self) -> bool {
        self.state == State::Init
    }

    /// The current token.
    pub(super) fn token(&self) -> &'a [u8] {
        self.slice(self.start, self.at)
    }

    pub(super) fn slice(&self, start: usize, until: usize) -> &'a [u8] {
        &self.bytes[start.min(self.bytes.len())..until.min(self.bytes.len())]
    }

    /// The bytes from `start` to one past the position, for messages. The line break that is
    /// added to the document shows here as well.
    pub(super) fn shown(&self, start: usize) -> Vec<u8> {
        // One byte more than a message shows, so that the cut is seen.
        let until = self.len().min(self.at + 1).min(start + SHOWN_BYTES_MAX + 1);
        (start.min(until)..until).map(|at| self.byte(at)).collect()
    }

    /// The next token. White space between tokens is skipped in the Prometheus format; in
    /// OpenMetrics it is part of the grammar.
    #[inline]
    pub(super) fn next(&mut self) -> Token {
        match self.format {
            Format::Prometheus => {
                loop {
                    if self.at >= self.len() {
                        return Token::Eof;
                    }
                    self.start = self.at;
                    // Text to the line's end may begin with white space.
                    if self.state == State::Meta2 {
                        return self.prometheus_text();
                    }
                    if !self.skip_blanks() {
                        break;
                    }
                }
                self.prometheus_token()
            }
            Format::OpenMetrics => {
                if self.at >= self.len() {
                    return Token::Eof;
                }
                self.start = self.at;
                self.openmetrics_token()
            }
        }
    }

    fn skip_blanks(&mut self) -> bool {
        let start = self.at;
        while matches!(self.byte(self.at), b' ' | b'\t') {
            self.at += 1;
        }
        self.at > start
    }

    fn prometheus_token(&mut self) -> Token {
        let byte = self.byte(self.at);
        match self.state {
            State::Init => match byte {
                0 => self.take(1, State::Init, Token::Eof),
                b'\n' => self.take(1, State::Init, Token::Linebreak),
                b'{' => self.take(1, State::Labels, Token::BraceOpen),
                b'#' => self.prometheus_comment(),
                _ => self.name(is_name_byte, State::Value, Token::MetricName),
            },
            State::Meta1 => match byte {
                b'"' => self.quoted(Quoted::NoNul, State::Meta2, Token::MetricName),
                _ => self.name(is_name_byte, State::Meta2, Token::MetricName),
            },
            State::Labels => self.label_token(Quoted::NoNul),
            State::LabelValue => self.quoted(Quoted::Anything, State::Labels, Token::LabelValue),
            State::Value if byte == b'{' => self.take(1, State::Labels, Token::BraceOpen),
            State::Value => {
                let ends = |byte| matches!(byte, b'{' | b' ' | b'\t' | b'\n' | 0);
                self.run(ends, State::Timestamp, Token::Value)
            }
            State::Timestamp if byte == b'\n' => self.take(1, State::Init, Token::Linebreak),
            State::Timestamp => self.run(|byte| !byte.is_ascii_digit(), State::Timestamp, Token::Timestamp),
            State::Meta2 | State::Exemplar | State::ExemplarValue | State::ExemplarTimestamp => {
                unreachable!("no Prometheus token leads here")
            }
        }
    }

    /// `# HELP `, `# TYPE `, or a comment to the line's end.
    fn prometheus_comment(&mut self) -> Token {
        self.at += 1;
        if self.skip_blanks() {
            for (word, token) in [(b"HELP", Token::Help), (b"TYPE", Token::Type)] {
                let after = self.at + word.len();
                if self.slice(self.at, after) == word && matches!(self.byte(after), b' ' | b'\t') {
                    self.at = after;
                    self.skip_blanks();
                    self.state = State::Meta1;
                    return token;
                }
            }
        }
        self.at += memchr(b'\n', &self.bytes[self.at.min(self.bytes.len())..])
            .unwrap_or(self.bytes.len().saturating_sub(self.at));
        Token::Comment
    }

    /// What follows the name in a `HELP` or `TYPE` line, its leading blank included; empty where
    /// only blanks follow.
    fn prometheus_text(&mut self) -> Token {
        self.state = State::Init;
        if self.byte(self.at) != 0 {
            self.at += memchr(b'\n', &self.bytes[self.at.min(self.bytes.len())..])
                .unwrap_or(self.bytes.len().saturating_sub(self.at));
        }
        if self.token().iter().all(|byte| matches!(byte, b' ' | b'\t')) {
            self.start = self.at;
        }
        Token::Text
    }

    fn openmetrics_token(&mut self) -> Token {
        let byte = self.byte(self.at);
        match self.state {
            State::Init => match byte {
                b'{' => self.take(1, State::Labels, Token::BraceOpen),
                b'#' => self.openmetrics_comment(),
                _ => self.name(is_name_byte, State::Value, Token::MetricName),
            },
            State::Meta1 => match byte {
                b'"' => self.quoted(Quoted::NoNul, State::Meta2, Token::MetricName),
                _ => self.name(is_name_byte, State::Meta2, Token::MetricName),
            },
            State::Meta2 => self.openmetrics_text(),
            State::Labels => self.label_token(Quoted::NoNul),
            State::LabelValue => self.quoted(Quoted::NoBreak, State::Labels, Token::LabelValue),
            State::Value if byte == b'{' => self.take(1, State::Labels, Token::BraceOpen),
            State::Value => self.spaced(State::Timestamp, Token::Value),
            State::Timestamp if byte == b'\n' => self.take(1, State::Init, Token::Linebreak),
            State::Timestamp => self.timestamp_or_exemplar(),
            State::Exemplar => match byte {
                b'"' => self.quoted(Quoted::Neither, State::Exemplar, Token::QuotedString),
                b'}' => self.take(1, State::ExemplarValue, Token::BraceClose),
                b'=' => self.take(1, State::ExemplarValue, Token::Equal),
                b',' => self.take(1, State::Exemplar, Token::Comma),
                _ => self.name(is_label_byte, State::Exemplar, Token::LabelName),
            },
            State::ExemplarValue if byte == b'"' => {
                self.quoted(Quoted::Neither, State::Exemplar, Token::LabelValue)
            }
            State::ExemplarValue => self.spaced(State::ExemplarTimestamp, Token::Value),
            State::ExemplarTimestamp if byte == b'\n' => self.take(1, State::Init, Token::Linebreak),
            State::ExemplarTimestamp => self.spaced(State::ExemplarTimestamp, Token::Timestamp),
        }
    }

    /// `# HELP `, `# TYPE `, `# UNIT ` or `# EOF`; OpenMetrics has no other comments.
    fn openmetrics_comment(&mut self) -> Token {
        const WORDS: [(&[u8], Token); 4] = [
            (b"# HELP ", Token::Help),
            (b"# TYPE ", Token::Type),
            (b"# UNIT ", Token::Unit),
            (b"# EOF", Token::EofWord),
        ];
        let mut longest = 0;
        for (word, token) in WORDS {
            let rest = self.slice(self.at, self.at + word.len());
            let common = rest.iter().zip(word).take_while(|(a, b)| a == b).count();
            if common < word.len() {
                longest = longest.max(common);
                continue;
            }
            self.at += word.len();
            if token == Token::EofWord {
                self.at += usize::from(self.byte(self.at) == b'\n');
            } else {
                self.state = State::Meta1;
            }
            return token;
        }
        self.at += longest;
        Token::Invalid
    }

    /// ` text` and its line break. NUL may stand in the text, but not before it.
    fn openmetrics_text(&mut self) -> Token {
        if self.byte(self.at) != b' ' {
            return Token::Invalid;
        }
        match memchr(b'\n', &self.bytes[self.at..]) {
            Some(len) => self.take(len + 1, State::Init, Token::Text),
            None => {
                self.at = self.bytes.len();
                Token::Invalid
            }
        }
    }

    /// After a value: ` timestamp`, or ` # {` that opens an exemplar.
    fn timestamp_or_exemplar(&mut self) -> Token {
        if self.slice(self.at, self.at + 3) == b" # " {
            if self.byte(self.at + 3) == b'{' {
                return self.take(4, State::Exemplar, Token::Comment);
            }
            self.at += 3;
            return Token::Invalid;
        }
        self.spaced(State::Timestamp, Token::Timestamp)
    }

    /// One space and what follows it to the next space or line break.
    fn spaced(&mut self, next: State, token: Token) -> Token {
        if self.byte(self.at) != b' ' {
            return Token::Invalid;
        }
        self.at += 1;
        self.run(|byte| matches!(byte, b' ' | b'\n' | 0), next, token)
    }

    fn label_token(&mut self, quoted: Quoted) -> Token {
        match self.byte(self.at) {
            b'"' => self.quoted(quoted, State::Labels, Token::QuotedString),
            b'}' => self.take(1, State::Value, Token::BraceClose),
            b'=' => self.take(1, State::LabelValue, Token::Equal),
            b',' => self.take(1, State::Labels, Token::Comma),
            _ => self.name(is_label_byte, State::Labels, Token::LabelName),
        }
    }

    #[inline]
    fn take(&mut self, len: usize, next: State, token: Token) -> Token {
        self.at += len;
        self.state = next;
        token
    }

    /// A name: bytes that satisfy `is_name`, the first no digit.
    #[inline]
    fn name(&mut self, is_name: fn(u8) -> bool, next: State, token: Token) -> Token {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| is_name(**byte)).count();
        if len == 0 || rest[0].is_ascii_digit() {
            return Token::Invalid;
        }
        self.take(len, next, token)
    }

    /// At least one byte, up to the first for which `ends` holds.
    #[inline]
    fn run(&mut self, ends: impl Fn(u8) -> bool, next: State, token: Token) -> Token {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| !ends(**byte)).count();
        if len == 0 { Token::Invalid } else { self.take(len, next, token) }
    }

    /// A quoted string with backslash escapes, its quotes included.
    fn quoted(&mut self, rule: Quoted, next: State, token: Token) -> Token {
        if self.byte(self.at) != b'"' {
            return Token::Invalid;
        }
        let mut at = self.at + 1;
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let found = match rule {
                Quoted::Anything => memchr2(b'"', b'\\', rest),
                Quoted::NoNul => memchr3(b'"', b'\\', 0, rest),
                Quoted::NoBreak => memchr3(b'"', b'\\', b'\n', rest),
                Quoted::Neither => rest.iter().position(|b| matches!(b, b'"' | b'\\' | b'\n' | 0)),
            };
            let Some(found) = found else {
                self.at = self.len();
                return Token::Invalid;
            };
            at += found;
            match self.bytes[at] {
                b'"' => {
                    self.at = at + 1;
                    self.state = next;
                    return token;
                }
                b'\\' if !matches!(self.byte(at + 1), b'\n' | 0) => at += 2,
                b'\\' => {
                    self.at = at + 1;
                    return Token::Invalid;
                }
                _ => {
                    self.at = at;
                    return Token::Invalid;
                }
            }
        }
    }
}

#[inline]
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

#[inline]
fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
