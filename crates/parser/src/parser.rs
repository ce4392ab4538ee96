//! The parser's state and entry points.
//!
//! It reads one token ahead and stops at the first mistake. Prometheus' grammar is one for a
//! generated parser, in which a mistake deep within a construct is reported by the innermost
//! rule around it that expects mistakes; [`Context`] is that rule here.

use tidewatch_model::{Labels, Matcher};

use crate::ParserOptions;
use crate::ast::{Expr, PosRange};
use crate::check;
use crate::error::{ParseError, ParseErrors};
use crate::lexer::Lexer;
use crate::series::SequenceValue;
use crate::token::{Token, TokenKind};

/// Parses a query.
pub fn parse_expr(text: &str, options: &ParserOptions) -> Result<Expr, ParseErrors> {
    parse_expr_bytes(text.as_bytes(), options)
}

/// Parses a query that came from elsewhere and is perhaps no UTF-8.
pub fn parse_expr_bytes(text: &[u8], options: &ParserOptions) -> Result<Expr, ParseErrors> {
    let refuse = |errors| ParseErrors::new(errors, text);
    let mut parser = Parser::new(Lexer::new(text), options);
    let mut expr = parser.query(text.len()).map_err(|error| refuse(vec![*error]))?;
    let errors = check::types(&mut expr, text);
    if errors.is_empty() { Ok(expr) } else { Err(refuse(errors)) }
}

/// The places of all tokens up to the lexer's first mistake, comments left out: most of them a
/// parser that stops at its own first mistake never sees. For fuzzing.
#[doc(hidden)]
pub fn token_places(text: &[u8], series: bool) -> Vec<PosRange> {
    let mut lexer = if series { Lexer::for_series(text) } else { Lexer::new(text) };
    let mut places = Vec::new();
    while let Ok(token) = lexer.next_token() {
        if token.kind == TokenKind::Eof {
            break;
        }
        places.push(token.pos());
    }
    places
}

/// Parses `name{label="value"}` to its conditions.
pub fn parse_metric_selector(text: &str) -> Result<Vec<Matcher>, ParseErrors> {
    let options = ParserOptions::stable();
    let mut parser = Parser::new(Lexer::new(text.as_bytes()), &options);
    let parse = |parser: &mut Parser<'_>| {
        parser.limit_text(text.len())?;
        let selector = parser.vector_selector()?;
        parser.expect_end()?;
        Ok(selector.matchers.to_vec())
    };
    parse(&mut parser).map_err(|error: Box<ParseError>| ParseErrors::new(vec![*error], text.as_bytes()))
}

/// Parses a series as scripts and unit tests describe it: `metric{label="value"} 1 2+3x4 _ stale`.
pub fn parse_series_description(text: &str) -> Result<(Labels, Vec<SequenceValue>), ParseErrors> {
    let options = ParserOptions::stable();
    let mut parser = Parser::new(Lexer::for_series(text.as_bytes()), &options);
    parser.series_description().map_err(|error| ParseErrors::new(vec![*error], text.as_bytes()))
}

/// A result that ends the parse when it is an error. Boxed, as it passes through every function.
pub(crate) type Parsed<T> = Result<T, Box<ParseError>>;

/// The rule that reports an unexpected token, where no rule closer by does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// What is being read, for `in …`; may be empty.
    pub within: &'static str,
    /// What was expected there; may be empty.
    pub expected: &'static str,
}

impl Context {
    const START: Context = Context { within: "", expected: "" };
    pub(crate) const AGGREGATION: Context = Context { within: "aggregation", expected: "" };
    pub(crate) const OFFSET: Context =
        Context { within: "offset", expected: "number, duration, step(), or range()" };
    pub(crate) const AT: Context = Context { within: "@", expected: "timestamp" };
    pub(crate) const RANGE: Context =
        Context { within: "subquery or range selector", expected: "number, duration, step(), or range()" };
    pub(crate) const RANGE_END: Context = Context { within: "subquery or range", expected: "\":\" or \"]\"" };
    pub(crate) const STEP: Context =
        Context { within: "subquery selector", expected: "number, duration, step(), range(), or \"]\"" };
    pub(crate) const STEP_END: Context = Context { within: "subquery selector", expected: "\"]\"" };
    pub(crate) const HISTOGRAM: Context = Context {
        within: "histogram description",
        expected: "histogram description key, e.g. buckets:[5 10 7]",
    };
    pub(crate) const SERIES: Context = Context { within: "series values", expected: "" };
}

pub(crate) struct Parser<'a> {
    lexer: Lexer<'a>,
    pub(crate) options: &'a ParserOptions,
    /// The token ahead, if it was looked at.
    ahead: Option<Token>,
    context: Context,
    /// How deep the functions that call themselves stand, and how many nodes were made.
    depth: usize,
    nodes: usize,
    /// Bytes of the regular expressions that were compiled.
    regex_bytes: usize,
}

impl<'a> Parser<'a> {
    fn new(lexer: Lexer<'a>, options: &'a ParserOptions) -> Parser<'a> {
        let context = Context::START;
        Parser { lexer, options, ahead: None, context, depth: 0, nodes: 0, regex_bytes: 0 }
    }

    fn query(&mut self, text_bytes: usize) -> Parsed<Expr> {
        self.limit_text(text_bytes)?;
        if self.peek()?.kind == TokenKind::Eof {
            return fail(PosRange::default(), "no expression found in input".to_owned());
        }
        let node = self.expression(0)?;
        self.expect_end()?;
        Ok(node.expr)
    }

    fn limit_text(&self, bytes: usize) -> Parsed<()> {
        let max = self.options.text_bytes;
        if bytes > max {
            return fail(PosRange::default(), format!("query of {bytes} bytes is longer than {max}"));
        }
        Ok(())
    }

    fn expect_end(&mut self) -> Parsed<()> {
        let token = self.next()?;
        if token.kind == TokenKind::Eof { Ok(()) } else { self.unexpected(token) }
    }

    /// Looks at the next token.
    pub(crate) fn peek(&mut self) -> Parsed<Token> {
        if let Some(token) = self.ahead {
            return Ok(token);
        }
        let token = self
            .lexer
            .next_token()
            .map_err(|error| Box::new(ParseError { message: error.message, pos: error.pos }))?;
        self.ahead = Some(token);
        Ok(token)
    }

    /// Takes the next token.
    pub(crate) fn next(&mut self) -> Parsed<Token> {
        let token = self.peek()?;
        self.ahead = None;
        Ok(token)
    }

    /// Takes the next token if it is of `kind`.
    pub(crate) fn accept(&mut self, kind: TokenKind) -> Parsed<Option<Token>> {
        let token = self.peek()?;
        if token.kind != kind {
            return Ok(None);
        }
        self.ahead = None;
        Ok(Some(token))
    }

    pub(crate) fn expect(&mut self, kind: TokenKind) -> Parsed<Token> {
        let token = self.next()?;
        if token.kind == kind { Ok(token) } else { self.unexpected(token) }
    }

    pub(crate) fn text(&self, token: Token) -> &'a str {
        self.lexer.text(token)
    }

    /// Reads with another rule to report unexpected tokens.
    pub(crate) fn within<T>(
        &mut self,
        context: Context,
        read: impl FnOnce(&mut Self) -> Parsed<T>,
    ) -> Parsed<T> {
        let outer = std::mem::replace(&mut self.context, context);
        let result = read(self)?;
        self.context = outer;
        Ok(result)
    }

    /// Refuses a token by the rule around.
    pub(crate) fn unexpected<T>(&self, token: Token) -> Parsed<T> {
        self.unexpected_in(token, self.context.within, self.context.expected)
    }

    /// Refuses a token by a rule of its own.
    pub(crate) fn unexpected_in<T>(&self, token: Token, within: &str, expected: &str) -> Parsed<T> {
        let mut message = format!("unexpected {}", token.kind.describe(self.text(token)));
        if !within.is_empty() {
            message = format!("{message} in {within}");
        }
        if !expected.is_empty() {
            message = format!("{message}, expected {expected}");
        }
        fail(token.pos(), message)
    }

    /// Reads one level deeper, if the limit allows.
    pub(crate) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.depth += 1;
        let pos = self.peek()?.pos();
        self.limit_depth(self.depth, pos)?;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Checks the depth of what is read, or the height of a tree that has been built.
    pub(crate) fn limit_depth(&self, depth: usize, pos: PosRange) -> Parsed<()> {
        let max = self.options.depth;
        if depth > max {
            return fail(pos, format!("expression is nested more than {max} levels deep"));
        }
        Ok(())
    }

    /// Counts the compiled size of a regular expression, at `pos`.
    pub(crate) fn count_regex(&mut self, bytes: usize, pos: PosRange) -> Parsed<()> {
        self.regex_bytes += bytes;
        let max = self.options.regex_bytes;
        if self.regex_bytes > max {
            let message =
                format!("regular expressions of the query are larger than {max} bytes when compiled");
            return fail(pos, message);
        }
        Ok(())
    }

    /// Counts a node, at `pos`.
    pub(crate) fn count_node(&mut self, pos: PosRange) -> Parsed<()> {
        self.nodes += 1;
        let max = self.options.nodes;
        if self.nodes > max {
            return fail(pos, format!("expression has more than {max} parts"));
        }
        Ok(())
    }
}

/// Ends the parse.
pub(crate) fn fail<T>(pos: PosRange, message: String) -> Parsed<T> {
    Err(Box::new(ParseError { message, pos }))
}
