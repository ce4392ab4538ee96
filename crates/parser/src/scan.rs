//! Scanners for one token's bytes, without state: what the lexer's modes are made of.

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_while, take_while1};
use nom::combinator::{map, value};
use nom::{IResult, Parser};

use crate::ast::BinaryOp;
use crate::token::TokenKind;

/// Bytes that `scanner` takes from the front of `input`; 0 where it does not match.
fn length<'a, O>(input: &'a [u8], mut scanner: impl FnMut(&'a [u8]) -> IResult<&'a [u8], O>) -> usize {
    scanner(input).map_or(0, |(rest, _)| input.len() - rest.len())
}

pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

pub(crate) fn is_alpha(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphabetic()
}

pub(crate) fn is_alphanumeric(byte: u8) -> bool {
    is_alpha(byte) || byte.is_ascii_digit()
}

pub(crate) fn spaces(input: &[u8]) -> usize {
    length(input, |i| take_while(is_space).parse(i))
}

/// A `#` and the rest of its line.
pub(crate) fn comment(input: &[u8]) -> usize {
    length(input, |i| (tag("#"), take_till(|b| b == b'\n' || b == b'\r')).parse(i))
}

/// Letters and underscores.
pub(crate) fn word(input: &[u8]) -> usize {
    length(input, |i| take_while1(is_alpha).parse(i))
}

/// Letters, digits and underscores.
pub(crate) fn identifier(input: &[u8]) -> usize {
    length(input, |i| take_while1(is_alphanumeric).parse(i))
}

/// Letters, digits, underscores and colons.
pub(crate) fn metric_identifier(input: &[u8]) -> usize {
    length(input, |i| take_while1(|b| is_alphanumeric(b) || b == b':').parse(i))
}

/// Punctuation that means the same wherever an expression may stand.
pub(crate) fn punctuation(input: &[u8]) -> Option<(TokenKind, usize)> {
    fn op<'a>(
        text: &'static str,
        op: BinaryOp,
    ) -> impl Parser<&'a [u8], Output = TokenKind, Error = nom::error::Error<&'a [u8]>> {
        value(TokenKind::Operator(op), tag(text))
    }
    let two = alt((
        op("==", BinaryOp::Equal),
        op("!=", BinaryOp::NotEqual),
        op("<=", BinaryOp::LessOrEqual),
        op(">=", BinaryOp::GreaterOrEqual),
        op("</", BinaryOp::TrimUpper),
        op(">/", BinaryOp::TrimLower),
    ));
    let one = alt((
        op("+", BinaryOp::Add),
        op("-", BinaryOp::Sub),
        op("*", BinaryOp::Mul),
        op("/", BinaryOp::Div),
        op("%", BinaryOp::Mod),
        op("^", BinaryOp::Pow),
        op("<", BinaryOp::Less),
        op(">", BinaryOp::Greater),
        value(TokenKind::Assign, tag("=")),
        value(TokenKind::Comma, tag(",")),
        value(TokenKind::At, tag("@")),
    ));
    let (rest, kind) = map(alt((two, one)), |kind| kind).parse(input).ok()?;
    Some((kind, input.len() - rest.len()))
}

/// What a number's scanner found.
pub(crate) struct Scanned {
    /// Bytes looked at; where the text is no number, those that an error message shows.
    pub len: usize,
    pub ok: bool,
}

/// A number as the lexer sees it: decimal, hexadecimal or float, with underscores. Whether the
/// digits make sense is for [`crate::number`] to say. `in_series`: within a series description an
/// `x` may follow, and there is no hexadecimal.
pub(crate) fn number(input: &[u8], in_series: bool) -> Scanned {
    let mut cursor = Cursor { input, pos: 0 };
    let ok = cursor.number(in_series);
    Scanned { len: cursor.pos, ok }
}

/// The rest of a duration whose first digits [`number`] has taken.
pub(crate) fn duration_rest(input: &[u8], from: usize) -> Scanned {
    let mut cursor = Cursor { input, pos: from };
    let ok = cursor.duration();
    Scanned { len: cursor.pos, ok }
}

struct Cursor<'a> {
    input: &'a [u8],
    pos: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.input.get(self.pos).copied()
    }

    fn is(&self, set: &[u8]) -> bool {
        self.peek().is_some_and(|byte| set.contains(&byte))
    }

    fn accept(&mut self, set: &[u8]) -> bool {
        let accepted = self.is(set);
        self.pos += usize::from(accepted);
        accepted
    }

    fn number(&mut self, in_series: bool) -> bool {
        let mut hex = false;
        if !in_series && self.accept(b"0") && self.accept(b"xX") {
            self.accept(b"_");
            hex = true;
        }
        let digits: &[u8] = if hex { b"0123456789abcdefABCDEF" } else { b"0123456789" };
        self.accept(b".");
        self.accept(digits);
        let (mut dot, mut exponent) = (false, false);
        while self.is(digits) || self.is(b"._eE") {
            if self.is(b".") {
                self.pos += 1;
                // A second dot, a dot before `_` or `.`, a dot in a hexadecimal number.
                if dot || self.accept(b"_.") || hex {
                    return false;
                }
                dot = true;
            } else if self.accept(b"eE") {
                if exponent {
                    return false;
                }
                exponent = true;
                self.accept(b"+-");
                if self.accept(b"._eE") || self.peek().is_none() {
                    return false;
                }
            } else if self.accept(b"_") {
                if self.accept(b"._eE") || self.peek().is_none() {
                    return false;
                }
            } else {
                while self.accept(digits) {}
            }
        }
        let followed = self.peek().is_some_and(is_alphanumeric) && !(in_series && self.is(b"x"));
        self.pos > 0 && !followed
    }

    /// Units, each perhaps followed by `s` and by another number; which are real units is for
    /// the duration's own parser to say.
    fn duration(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        self.accept(b"s");
        while self.accept(b"0123456789") {
            while self.accept(b"0123456789") {}
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        let followed = self.peek().is_some_and(is_alphanumeric);
        // The message about a bad duration shows the byte that is too much.
        self.pos += usize::from(followed);
        !followed
    }
}
