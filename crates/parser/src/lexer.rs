//! The lexer: text to tokens, one at a time.
//!
//! PromQL's tokens depend on where they stand: in braces there are no keywords, in brackets a
//! colon is a token of its own, and a series description is a language within the language. The
//! lexer keeps these modes; [`crate::scan`] knows the bytes of each token.
//!
//! The input is bytes, since a request may carry what is not UTF-8; that is an error within a
//! string and an unexpected character elsewhere, so the text of every token is UTF-8.

use tidewatch_model::{quote, quote_char};

use crate::ast::{BinaryOp, PosRange};
use crate::scan::{self, is_alpha, is_space};
use crate::token::{Descriptor, Keyword, Token, TokenKind, keyword};

/// Why the input cannot be split into tokens. The error covers the rest of the input.
#[derive(Debug)]
pub(crate) struct LexError {
    pub message: String,
    pub pos: PosRange,
}

/// What is lexed next, where flags do not say more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Statements,
    /// The values of a series description.
    Values,
    /// After `[`, and after any token of a duration but a number.
    Duration,
}

#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    input: &'a [u8],
    pos: usize,
    /// Where the current token starts.
    start: usize,
    mode: Mode,
    /// How many parentheses are open.
    parens: usize,
    in_braces: bool,
    in_brackets: bool,
    /// Whether the open bracket has had its colon, and a duration before it.
    had_colon: bool,
    had_duration: bool,
    /// Whether a series description is lexed.
    series: bool,
    /// Whether `{{` is open.
    in_histogram: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Lexer<'a> {
        Lexer {
            input,
            pos: 0,
            start: 0,
            mode: Mode::Statements,
            parens: 0,
            in_braces: false,
            in_brackets: false,
            had_colon: false,
            had_duration: false,
            series: false,
            in_histogram: false,
        }
    }

    /// A lexer for `metric{labels} values`.
    pub(crate) fn for_series(input: &'a [u8]) -> Lexer<'a> {
        Lexer { series: true, ..Lexer::new(input) }
    }

    /// The text of a token.
    pub(crate) fn text(&self, token: Token) -> &'a str {
        std::str::from_utf8(&self.input[token.start..token.end]).expect("tokens are UTF-8")
    }

    /// The next token that is no comment. After [`TokenKind::Eof`] it is `Eof` again.
    pub(crate) fn next_token(&mut self) -> Result<Token, LexError> {
        loop {
            let token = self.scan_token()?;
            if token.kind != TokenKind::Comment {
                return Ok(token);
            }
        }
    }

    fn scan_token(&mut self) -> Result<Token, LexError> {
        match self.mode {
            Mode::Values if !self.in_histogram => self.value(),
            Mode::Duration => self.duration(),
            _ if self.in_histogram && self.in_brackets => self.buckets(),
            _ if self.in_histogram => self.histogram(),
            _ if self.in_braces => self.inside_braces(),
            _ => self.statement(),
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.input[self.pos..]
    }

    fn peek(&self) -> Option<u8> {
        self.input.get(self.pos).copied()
    }

    fn peek_at(&self, ahead: usize) -> Option<u8> {
        self.input.get(self.pos + ahead).copied()
    }

    /// The character at the cursor; U+FFFD at the end and for what is not UTF-8, as in Go.
    fn char_at(&self, pos: usize) -> char {
        let rest = self.input.get(pos..).unwrap_or_default();
        let window = &rest[..rest.len().min(4)];
        match std::str::from_utf8(window) {
            Ok(text) => text.chars().next().unwrap_or('\u{fffd}'),
            Err(error) => std::str::from_utf8(&window[..error.valid_up_to()])
                .ok()
                .and_then(|text| text.chars().next())
                .unwrap_or('\u{fffd}'),
        }
    }

    fn skip_spaces(&mut self) {
        self.pos += scan::spaces(self.rest());
        self.start = self.pos;
    }

    fn emit(&mut self, kind: TokenKind, len: usize) -> Token {
        self.pos += len;
        let token = Token { kind, start: self.start, end: self.pos };
        self.start = self.pos;
        token
    }

    fn error<T>(&self, message: String) -> Result<T, LexError> {
        Err(LexError { message, pos: PosRange::new(self.start, self.input.len()) })
    }

    /// An error behind the next `len` bytes, where Prometheus sees some of them.
    fn error_after<T>(&self, len: usize, message: &str) -> Result<T, LexError> {
        Err(LexError { message: message.to_owned(), pos: PosRange::new(self.start + len, self.input.len()) })
    }

    fn unexpected<T>(&self, what: &str) -> Result<T, LexError> {
        self.error(format!("{what}: {}", quote_char(self.char_at(self.start))))
    }

    fn statement(&mut self) -> Result<Token, LexError> {
        self.skip_spaces();
        let Some(byte) = self.peek() else { return self.end() };
        match byte {
            b'#' => Ok(self.emit(TokenKind::Comment, scan::comment(self.rest()))),
            b'=' if self.peek_at(1) == Some(b'~') => {
                self.error("unexpected character after '=': '~'".to_owned())
            }
            b'!' if self.peek_at(1) != Some(b'=') => {
                let after = quote_char(self.char_at(self.pos + 1));
                self.error(format!("unexpected character after '!': {after}"))
            }
            b'0'..=b'9' => self.number_or_duration(),
            b'.' if self.peek_at(1).is_some_and(|b| b.is_ascii_digit()) => self.number_or_duration(),
            b'"' | b'\'' => self.string(byte),
            b'`' => self.raw_string(),
            b'(' | b')' => self.paren(byte),
            b'{' => {
                self.in_braces = true;
                Ok(self.emit(TokenKind::LeftBrace, 1))
            }
            b'[' | b']' => self.bracket(byte),
            b':' if self.in_brackets && self.had_colon => self.error("unexpected colon ':'".to_owned()),
            b':' if self.in_brackets => Ok(self.colon()),
            _ if is_alpha(byte) && self.in_brackets => {
                self.duration_keyword_or(|lexer| lexer.unexpected_expecting_colon())
            }
            _ if is_alpha(byte) || byte == b':' => Ok(self.keyword_or_identifier()),
            _ => match scan::punctuation(self.rest()) {
                Some((kind, len)) => Ok(self.emit(kind, len)),
                None => self.unexpected("unexpected character"),
            },
        }
    }

    fn end(&mut self) -> Result<Token, LexError> {
        if self.parens != 0 {
            return self.error("unclosed left parenthesis".to_owned());
        }
        if self.in_brackets {
            return self.error("unclosed left bracket".to_owned());
        }
        Ok(self.emit(TokenKind::Eof, 0))
    }

    fn paren(&mut self, byte: u8) -> Result<Token, LexError> {
        if byte == b'(' {
            self.parens += 1;
            return Ok(self.emit(TokenKind::LeftParen, 1));
        }
        if self.parens == 0 {
            return self.error_after(1, "unexpected right parenthesis ')'");
        }
        self.parens -= 1;
        Ok(self.emit(TokenKind::RightParen, 1))
    }

    fn bracket(&mut self, byte: u8) -> Result<Token, LexError> {
        match (byte, self.in_brackets) {
            (b'[', true) => self.error("unexpected left bracket '['".to_owned()),
            (b'[', false) => {
                let token = self.emit(TokenKind::LeftBracket, 1);
                (self.in_brackets, self.had_colon, self.mode) = (true, false, Mode::Duration);
                Ok(token)
            }
            (_, false) => self.error("unexpected right bracket ']'".to_owned()),
            (_, true) => {
                (self.in_brackets, self.mode) = (false, Mode::Statements);
                Ok(self.emit(TokenKind::RightBracket, 1))
            }
        }
    }

    fn colon(&mut self) -> Token {
        self.had_colon = true;
        self.emit(TokenKind::Colon, 1)
    }

    fn unexpected_expecting_colon<T>(&self) -> Result<T, LexError> {
        self.error(format!("unexpected character: {}, expected ':'", quote_char(self.char_at(self.start))))
    }

    /// A token of a duration in brackets. A number leaves the mode, so that what follows a
    /// number is lexed as in a statement: that decides which message bad input gets.
    fn duration(&mut self) -> Result<Token, LexError> {
        self.skip_spaces();
        let Some(byte) = self.peek() else {
            return self.error("unexpected end of input in duration expression".to_owned());
        };
        match byte {
            b']' => self.bracket(byte),
            b':' if !self.had_duration => {
                self.error_after(1, "unexpected colon before duration in duration expression")
            }
            b':' if self.had_colon => self.error_after(1, "unexpected repeated colon in duration expression"),
            b':' => Ok(self.colon()),
            b'(' | b')' => self.paren(byte),
            b'+' | b'-' | b'*' | b'/' | b'%' | b'^' | b',' => {
                let (kind, len) = scan::punctuation(&self.rest()[..1]).expect("listed above");
                Ok(self.emit(kind, len))
            }
            b's' | b'S' | b'm' | b'M' | b'r' | b'R' => self
                .duration_keyword_or(|lexer| lexer.unexpected("unexpected character in duration expression")),
            b'0'..=b'9' => self.number_or_duration(),
            b'.' if self.peek_at(1).is_some_and(|b| b.is_ascii_digit()) => self.number_or_duration(),
            _ => self.unexpected("unexpected character in duration expression"),
        }
    }

    fn duration_keyword_or(
        &mut self,
        otherwise: impl Fn(&Self) -> Result<Token, LexError>,
    ) -> Result<Token, LexError> {
        let len = scan::word(self.rest());
        match keyword(self.ascii(len)) {
            Some(
                kind @ TokenKind::Keyword(Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf),
            ) => Ok(self.emit(kind, len)),
            _ => otherwise(self),
        }
    }

    /// The next `len` bytes, which a scanner found to be ASCII.
    fn ascii(&self, len: usize) -> &'a str {
        std::str::from_utf8(&self.rest()[..len]).expect("scanned as ASCII")
    }

    fn number_or_duration(&mut self) -> Result<Token, LexError> {
        if self.in_brackets {
            self.had_duration = true;
        }
        self.mode = Mode::Statements;
        let number = scan::number(self.rest(), self.series);
        if number.ok {
            return Ok(self.emit(TokenKind::Number, number.len));
        }
        let duration = scan::duration_rest(self.rest(), number.len);
        if duration.ok {
            return Ok(self.emit(TokenKind::Duration, duration.len));
        }
        self.error(format!("bad number or duration syntax: {}", self.quoted(duration.len)))
    }

    fn number(&mut self) -> Result<Token, LexError> {
        let number = scan::number(self.rest(), self.series);
        if number.ok {
            return Ok(self.emit(TokenKind::Number, number.len));
        }
        self.error(format!("bad number syntax: {}", self.quoted(number.len)))
    }

    fn quoted(&self, len: usize) -> String {
        quote(&String::from_utf8_lossy(&self.rest()[..len]))
    }

    fn keyword_or_identifier(&mut self) -> Token {
        let len = scan::metric_identifier(self.rest());
        let word = self.ascii(len);
        let kind = match keyword(word) {
            // As metric names these are older than the modifiers; only `fill (` is the modifier.
            Some(TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.paren_follows(len) =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        };
        let token = self.emit(kind, len);
        if self.series && self.peek() != Some(b'{') {
            self.mode = Mode::Values;
        }
        token
    }

    fn paren_follows(&self, len: usize) -> bool {
        let rest = &self.rest()[len..];
        rest.get(scan::spaces(rest)) == Some(&b'(')
    }

    fn inside_braces(&mut self) -> Result<Token, LexError> {
        self.skip_spaces();
        let Some(byte) = self.peek() else {
            return self.error("unexpected end of input inside braces".to_owned());
        };
        let next = self.peek_at(1);
        match byte {
            b'#' => Ok(self.emit(TokenKind::Comment, scan::comment(self.rest()))),
            b',' => Ok(self.emit(TokenKind::Comma, 1)),
            b'"' | b'\'' => self.string(byte),
            b'`' => self.raw_string(),
            b'=' if next == Some(b'~') => Ok(self.emit(TokenKind::RegexMatch, 2)),
            b'=' => Ok(self.emit(TokenKind::Assign, 1)),
            b'!' if next == Some(b'~') => Ok(self.emit(TokenKind::RegexMismatch, 2)),
            b'!' if next == Some(b'=') => Ok(self.emit(TokenKind::Operator(BinaryOp::NotEqual), 2)),
            b'!' => {
                let after = quote_char(self.char_at(self.pos + 1));
                self.error(format!("unexpected character after '!' inside braces: {after}"))
            }
            b'{' => self.error("unexpected left brace '{'".to_owned()),
            b'}' => {
                self.in_braces = false;
                if self.series {
                    self.mode = Mode::Values;
                }
                Ok(self.emit(TokenKind::RightBrace, 1))
            }
            _ if is_alpha(byte) => {
                let len = scan::identifier(self.rest());
                Ok(self.emit(TokenKind::Identifier, len))
            }
            _ => self.unexpected("unexpected character inside braces"),
        }
    }

    /// A string in double or single quotes, with escapes, on one line.
    fn string(&mut self, quote: u8) -> Result<Token, LexError> {
        let mut end = self.pos + 1;
        loop {
            match self.input.get(end) {
                None | Some(b'\n') => return self.error("unterminated quoted string".to_owned()),
                Some(b'\\') => end = self.escape(end + 1, quote)?,
                Some(byte) if *byte == quote => break,
                Some(_) => end += self.valid_char(end)?,
            }
        }
        Ok(self.emit(TokenKind::String, end + 1 - self.pos))
    }

    fn raw_string(&mut self) -> Result<Token, LexError> {
        let mut end = self.pos + 1;
        loop {
            match self.input.get(end) {
                None => return self.error("unterminated raw string".to_owned()),
                Some(b'`') => break,
                Some(_) => end += self.valid_char(end)?,
            }
        }
        Ok(self.emit(TokenKind::String, end + 1 - self.pos))
    }

    /// The length of the character at `pos` of a string. U+FFFD itself is refused, as Go's
    /// decoder does not tell it from an error.
    fn valid_char(&self, pos: usize) -> Result<usize, LexError> {
        match self.char_at(pos) {
            '\u{fffd}' => self.error("invalid UTF-8 rune".to_owned()),
            c => Ok(c.len_utf8()),
        }
    }

    /// Checks the escape sequence whose backslash ends before `pos`, and gives its end.
    fn escape(&self, pos: usize, quote: u8) -> Result<usize, LexError> {
        let (digits, base, max) = match self.input.get(pos) {
            None => return self.error("escape sequence not terminated".to_owned()),
            Some(b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' | b'\\') => return Ok(pos + 1),
            Some(byte) if *byte == quote => return Ok(pos + 1),
            Some(b'0'..=b'7') => (pos..pos + 3, 8, 255),
            Some(b'x') => (pos + 1..pos + 3, 16, 255),
            Some(b'u') => (pos + 1..pos + 5, 16, u32::from(char::MAX)),
            Some(b'U') => (pos + 1..pos + 9, 16, u32::from(char::MAX)),
            Some(_) => {
                let c = unicode_name(self.char_at(pos));
                return self.error(format!("unknown escape sequence {c}"));
            }
        };
        let mut code = 0u32;
        for at in digits.clone() {
            let Some(byte) = self.input.get(at) else {
                return self.error("escape sequence not terminated".to_owned());
            };
            let Some(digit) = char::from(*byte).to_digit(base) else {
                let c = unicode_name(self.char_at(at));
                return self.error(format!("illegal character {c} in escape sequence"));
            };
            code = code.wrapping_mul(base).wrapping_add(digit);
        }
        if code > max || (0xd800..0xe000).contains(&code) {
            return self.error("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(digits.end)
    }

    /// A token of the values of a series.
    fn value(&mut self) -> Result<Token, LexError> {
        let Some(byte) = self.peek() else { return self.end() };
        match byte {
            b'{' if self.peek_at(1) == Some(b'{') => {
                self.in_histogram = true;
                Ok(self.emit(TokenKind::OpenHistogram, 2))
            }
            _ if is_space(byte) => Ok(self.space()),
            b'+' => Ok(self.emit(TokenKind::Operator(BinaryOp::Add), 1)),
            b'-' => Ok(self.emit(TokenKind::Operator(BinaryOp::Sub), 1)),
            b'x' => Ok(self.emit(TokenKind::Times, 1)),
            b'_' => Ok(self.emit(TokenKind::Blank, 1)),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek_at(1).is_some_and(|b| b.is_ascii_digit()) => self.number(),
            _ if is_alpha(byte) => Ok(self.keyword_or_identifier()),
            _ => self.unexpected("unexpected character in series sequence"),
        }
    }

    /// A run of blank space, whose token is its first byte.
    fn space(&mut self) -> Token {
        let token = self.emit(TokenKind::Space, 1);
        self.skip_spaces();
        token
    }

    /// A token between `{{` and `}}`.
    fn histogram(&mut self) -> Result<Token, LexError> {
        let Some(byte) = self.peek() else {
            return self.unexpected("histogram description incomplete unexpected");
        };
        match byte {
            _ if is_space(byte) => Ok(self.space()),
            _ if is_alpha(byte) => self.descriptor(),
            b':' => Ok(self.emit(TokenKind::Colon, 1)),
            b'-' => Ok(self.emit(TokenKind::Operator(BinaryOp::Sub), 1)),
            b'0'..=b'9' => self.number(),
            b'[' => {
                self.in_brackets = true;
                Ok(self.emit(TokenKind::LeftBracket, 1))
            }
            b'}' if self.peek_at(1) == Some(b'}') => {
                (self.in_histogram, self.mode) = (false, Mode::Values);
                Ok(self.emit(TokenKind::CloseHistogram, 2))
            }
            _ => self.unexpected("histogram description incomplete unexpected"),
        }
    }

    fn descriptor(&mut self) -> Result<Token, LexError> {
        let len = scan::word(self.rest());
        let word = self.ascii(len);
        if let Some(descriptor) = Descriptor::from_word(word) {
            if self.peek_at(len) != Some(b':') {
                return self.error("missing `:` for histogram descriptor".to_owned());
            }
            return Ok(self.emit(TokenKind::Descriptor(descriptor), len));
        }
        if keyword(word) == Some(TokenKind::Number) {
            return Ok(self.emit(TokenKind::Number, len));
        }
        if ["unknown", "reset", "not_reset", "gauge"].iter().any(|hint| word.eq_ignore_ascii_case(hint)) {
            return Ok(self.emit(TokenKind::Hint, len));
        }
        self.error(format!("bad histogram descriptor found: {}", quote(word)))
    }

    /// A token between the brackets of a histogram's buckets.
    fn buckets(&mut self) -> Result<Token, LexError> {
        let Some(byte) = self.peek() else {
            return self.unexpected("invalid character in buckets description");
        };
        match byte {
            _ if is_space(byte) => Ok(self.space()),
            b'-' => Ok(self.emit(TokenKind::Operator(BinaryOp::Sub), 1)),
            b'0'..=b'9' => self.number(),
            b']' => {
                self.in_brackets = false;
                Ok(self.emit(TokenKind::RightBracket, 1))
            }
            _ if is_alpha(byte) => {
                let len = scan::word(self.rest());
                match keyword(self.ascii(len)) {
                    Some(TokenKind::Number) => Ok(self.emit(TokenKind::Number, len)),
                    _ => self.unexpected("invalid character in buckets description"),
                }
            }
            _ => self.unexpected("invalid character in buckets description"),
        }
    }
}

/// A character as Go's `%#U` prints it: `U+0063 'c'`.
fn unicode_name(c: char) -> String {
    if tidewatch_model::is_printable(c) {
        format!("U+{:04X} '{c}'", u32::from(c))
    } else {
        format!("U+{:04X}", u32::from(c))
    }
}
