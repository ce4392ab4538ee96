//! Why a text was refused, in Prometheus' words, and where.

use std::fmt;

use crate::ast::PosRange;

/// One mistake and the bytes that it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    pub message: String,
    pub pos: PosRange,
}

/// All mistakes that were found, at least one: the first that keeps the text from being read, or
/// every one against the rules of types. Prints as its first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseErrors {
    pub errors: Vec<ParseError>,
    query: String,
}

impl ParseErrors {
    pub(crate) fn new(errors: Vec<ParseError>, query: &[u8]) -> ParseErrors {
        assert!(!errors.is_empty(), "a refusal has a reason");
        ParseErrors { errors, query: String::from_utf8_lossy(query).into_owned() }
    }

    pub fn first(&self) -> &ParseError {
        &self.errors[0]
    }
}

/// `1:5: parse error: unexpected end of input`
impl fmt::Display for ParseErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first();
        write!(f, "{}: parse error: {}", first.pos.start_in(&self.query), first.message)
    }
}

impl std::error::Error for ParseErrors {}

impl PosRange {
    /// `line:column` of the start within `query`, both counted from 1 and columns in bytes, as
    /// messages and annotations carry it.
    pub fn start_in(self, query: &str) -> String {
        self.start_in_lines(query, 0)
    }

    /// The same where `lines_before` lines precede the query in its file.
    pub fn start_in_lines(self, query: &str, lines_before: usize) -> String {
        if query.is_empty() {
            return "unknown position".to_owned();
        }
        let Some(before) = query.as_bytes().get(..self.start) else {
            return "invalid position".to_owned();
        };
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1 + lines_before;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        format!("{line}:{column}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_bytes_from_one() {
        let at = |start| PosRange::new(start, start).start_in("ab\ncd");
        assert_eq!([at(0), at(2), at(3), at(5), at(6)], ["1:1", "1:3", "2:1", "2:3", "invalid position"]);
        assert_eq!(PosRange::new(0, 0).start_in(""), "unknown position");
    }
}
