//! Selectors and their modifiers: matchers in braces, ranges in brackets, `offset`, `@`,
//! `anchored` and `smoothed`.

use std::sync::Arc;

use tidewatch_model::regex::GoRegex;
use tidewatch_model::{METRIC_NAME, MatchOp, Matcher};

use crate::ast::{
    At, BinaryOp, Duration, Expr, MatrixSelector, PosRange, RangeModifier, SubqueryExpr, VectorSelector,
};
use crate::expr::{Node, sign};
use crate::literal;
use crate::parser::{Context, Parsed, Parser, fail};
use crate::token::{Keyword, Token, TokenKind};

const MATCHING: &str = "label matching";

impl Parser<'_> {
    /// Reads a selector and nothing before or behind it.
    pub(crate) fn vector_selector(&mut self) -> Parsed<VectorSelector> {
        let token = self.peek()?;
        match token.kind {
            TokenKind::LeftBrace => self.selector_after(None),
            kind if kind.is_metric_name() => {
                self.next()?;
                self.selector_after(Some(token))
            }
            _ => self.unexpected(token),
        }
    }

    /// Reads the rest of a selector behind its name, if it has one.
    pub(crate) fn selector_after(&mut self, name: Option<Token>) -> Parsed<VectorSelector> {
        let (mut matchers, mut pos) = (Vec::new(), name.map(|name| name.pos()));
        if self.peek()?.kind == TokenKind::LeftBrace {
            let (inside, braces) = self.braces()?;
            matchers = inside;
            pos = Some(pos.unwrap_or(braces).to(braces));
        }
        let name = name.map(|name| self.text(name).to_owned());
        if let Some(name) = &name {
            matchers.push(Matcher::equal(METRIC_NAME, name));
        }
        Ok(VectorSelector {
            name,
            matchers: Arc::from(matchers),
            offset: Duration::ZERO,
            at: None,
            modifier: None,
            info_argument: false,
            pos: pos.expect("a selector has a name or braces"),
        })
    }

    /// Reads `{matcher, …}`.
    fn braces(&mut self) -> Parsed<(Vec<Matcher>, PosRange)> {
        let open = self.expect(TokenKind::LeftBrace)?;
        let mut matchers = Vec::new();
        if let Some(close) = self.accept(TokenKind::RightBrace)? {
            return Ok((matchers, open.pos().to(close.pos())));
        }
        loop {
            matchers.push(self.matcher()?);
            let token = self.next()?;
            let close = match token.kind {
                TokenKind::RightBrace => Some(token),
                TokenKind::Comma => self.accept(TokenKind::RightBrace)?,
                _ => return self.unexpected_in(token, MATCHING, "\",\" or \"}\""),
            };
            if let Some(close) = close {
                return Ok((matchers, open.pos().to(close.pos())));
            }
        }
    }

    /// Reads `label="value"`, or a metric's name in quotes.
    fn matcher(&mut self) -> Parsed<Matcher> {
        let label = self.next()?;
        self.count_node(label.pos())?;
        let name = match label.kind {
            TokenKind::Identifier => self.text(label).to_owned(),
            TokenKind::String => literal::unquote(self.text(label)),
            _ => return self.unexpected_in(label, MATCHING, "identifier or \"}\""),
        };
        let op = match self.peek()?.kind {
            TokenKind::Assign => MatchOp::Equal,
            TokenKind::Operator(BinaryOp::NotEqual) => MatchOp::NotEqual,
            TokenKind::RegexMatch => MatchOp::Regex,
            TokenKind::RegexMismatch => MatchOp::NotRegex,
            _ if label.kind == TokenKind::String => return Ok(Matcher::equal(METRIC_NAME, &name)),
            _ => {
                let token = self.next()?;
                return self.unexpected_in(token, MATCHING, "label matching operator");
            }
        };
        self.next()?;
        let value = self.next()?;
        if value.kind != TokenKind::String {
            return self.unexpected_in(value, MATCHING, "string");
        }
        let pos = label.pos().to(value.pos());
        let matcher = Matcher::new(op, &name, &literal::unquote(self.text(value)))
            .or_else(|error| fail(pos, error.message))?;
        self.count_regex(matcher.regex().map_or(0, GoRegex::program_bytes), pos)?;
        Ok(matcher)
    }

    /// Reads `[range]` or `[range:step]`.
    pub(crate) fn range(&mut self, node: Node) -> Parsed<Node> {
        let open = self.next()?;
        let range = self.within(Context::RANGE, Parser::positive_duration)?;
        let token = self.next()?;
        match token.kind {
            TokenKind::RightBracket => self.matrix(node, range, open.pos().to(token.pos())),
            TokenKind::Colon => self.subquery(node, range),
            _ => self.within(Context::RANGE_END, |parser| parser.unexpected(token)),
        }
    }

    fn matrix(&mut self, node: Node, range: Duration, brackets: PosRange) -> Parsed<Node> {
        let selector = match node.expr {
            Expr::Vector(selector) if selector.offset != Duration::ZERO => {
                return fail(brackets, "no offset modifiers allowed before range".to_owned());
            }
            Expr::Vector(selector) if selector.at.is_some() => {
                return fail(brackets, "no @ modifiers allowed before range".to_owned());
            }
            Expr::Vector(selector) => selector,
            _ => return fail(brackets, "ranges only allowed for vector selectors".to_owned()),
        };
        let pos = selector.pos.to(brackets);
        self.node(Expr::Matrix(MatrixSelector { selector, range, pos }), node.height)
    }

    fn subquery(&mut self, node: Node, range: Duration) -> Parsed<Node> {
        let (step, close) = match self.accept(TokenKind::RightBracket)? {
            Some(close) => (None, close),
            None => {
                let step = self.within(Context::STEP, Parser::positive_duration)?;
                let close = self.within(Context::STEP_END, |p| p.expect(TokenKind::RightBracket))?;
                (Some(step), close)
            }
        };
        let subquery = SubqueryExpr {
            pos: node.expr.pos().to(close.pos()),
            expr: Box::new(node.expr),
            range,
            step,
            offset: Duration::ZERO,
            at: None,
        };
        self.node(Expr::Subquery(subquery), node.height + 1)
    }

    /// Reads `offset 5m`.
    pub(crate) fn offset(&mut self, mut node: Node) -> Parsed<Node> {
        self.next()?;
        let (offset, end) = self.within(Context::OFFSET, Parser::offset_duration)?;
        let pos = node.expr.pos();
        let Some(target) = Modified::of(&mut node.expr) else {
            return fail(pos, not_modifiable("offset"));
        };
        if *target.offset != Duration::ZERO {
            return fail(pos, "offset may not be set multiple times".to_owned());
        }
        *target.offset = offset;
        target.pos.end = end;
        Ok(node)
    }

    /// Reads `@ 1234`, `@ start()` or `@ end()`.
    pub(crate) fn at(&mut self, mut node: Node) -> Parsed<Node> {
        self.next()?;
        let pos = node.expr.pos();
        let (at, end) = self.within(Context::AT, |parser| parser.at_time(pos))?;
        let Some(target) = Modified::of(&mut node.expr) else {
            return fail(pos, not_modifiable("@"));
        };
        if target.at.is_some() {
            return fail(pos, "@ <timestamp> may not be set multiple times".to_owned());
        }
        *target.at = Some(at);
        target.pos.end = end;
        Ok(node)
    }

    fn at_time(&mut self, pos: PosRange) -> Parsed<(At, usize)> {
        if let TokenKind::Keyword(word @ (Keyword::Start | Keyword::End)) = self.peek()?.kind {
            self.next()?;
            self.expect(TokenKind::LeftParen)?;
            let close = self.expect(TokenKind::RightParen)?;
            return Ok((if word == Keyword::Start { At::Start } else { At::End }, close.end));
        }
        let sign = sign(self.peek()?);
        if sign.is_some() {
            self.next()?;
        }
        let number = self.number()?;
        let minus = sign == Some(crate::ast::UnaryOp::Minus);
        let seconds = if minus { -number.value } else { number.value };
        // Compared as Prometheus does; what remains may still saturate, far from any sample.
        if !seconds.is_finite() || seconds >= i64::MAX as f64 || seconds <= i64::MIN as f64 {
            return fail(pos, format!("timestamp out of bounds for @ modifier: {}", six_decimals(seconds)));
        }
        Ok((At::Timestamp((seconds * 1000.0).round() as i64), number.pos.end))
    }

    /// Reads `anchored` or `smoothed`.
    pub(crate) fn range_modifier(&mut self, mut node: Node) -> Parsed<Node> {
        let token = self.next()?;
        let anchored = token.kind == TokenKind::Keyword(Keyword::Anchored);
        let (modifier, name) = if anchored {
            (RangeModifier::Anchored, "anchored")
        } else {
            (RangeModifier::Smoothed, "smoothed")
        };
        let pos = node.expr.pos();
        if !self.options.extended_range_selectors {
            return fail(pos, format!("{name} modifier is experimental and not enabled"));
        }
        let selector = match &mut node.expr {
            Expr::Vector(selector) => selector,
            Expr::Matrix(matrix) => &mut matrix.selector,
            Expr::Subquery(_) => {
                return fail(pos, format!("{name} modifier is not supported for subqueries"));
            }
            _ => return fail(pos, format!("{name} modifier not implemented")),
        };
        if selector.modifier.is_some_and(|other| other != modifier) {
            return fail(pos, "anchored and smoothed modifiers cannot be used together".to_owned());
        }
        selector.modifier = Some(modifier);
        Ok(node)
    }
}

/// The parts of an expression that `offset` and `@` set.
struct Modified<'a> {
    offset: &'a mut Duration,
    at: &'a mut Option<At>,
    pos: &'a mut PosRange,
}

impl Modified<'_> {
    fn of(expr: &mut Expr) -> Option<Modified<'_>> {
        match expr {
            Expr::Vector(s) => Some(Modified { offset: &mut s.offset, at: &mut s.at, pos: &mut s.pos }),
            Expr::Matrix(m) => {
                let s = &mut m.selector;
                Some(Modified { offset: &mut s.offset, at: &mut s.at, pos: &mut m.pos })
            }
            Expr::Subquery(s) => Some(Modified { offset: &mut s.offset, at: &mut s.at, pos: &mut s.pos }),
            _ => None,
        }
    }
}

fn not_modifiable(modifier: &str) -> String {
    format!(
        "{modifier} modifier must be preceded by an instant vector selector or range vector selector or a subquery"
    )
}

/// Go's `%f`.
fn six_decimals(value: f64) -> String {
    if value.is_finite() { format!("{value:.6}") } else { tidewatch_model::format_float(value) }
}
