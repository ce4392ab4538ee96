//! Ranges, steps and offsets: literals, or arithmetic that waits for the query's own range.

use crate::ast::{BinaryOp, Duration, DurationExpr, DurationOp, UnaryOp};
use crate::expr::sign;
use crate::parser::{Parsed, Parser, fail};
use crate::token::{Keyword, Token, TokenKind};

/// Beyond this many seconds Go's nanoseconds overflow.
const SECONDS_MAX: f64 = (1u64 << 63) as f64 / 1e9;

impl Parser<'_> {
    /// Reads a range or a step.
    pub(crate) fn positive_duration(&mut self) -> Parsed<Duration> {
        let expr = self.duration_expr(0)?;
        match &expr {
            DurationExpr::Number(number) if number.value <= 0.0 => {
                fail(number.pos, "duration must be greater than 0".to_owned())
            }
            _ => Ok(resolve(expr)),
        }
    }

    /// Reads an offset, and gives its end. Literals and calls, with or without a sign, end the
    /// offset: `foo offset 1m + 1m` is an addition to `foo offset 1m`.
    pub(crate) fn offset_duration(&mut self) -> Parsed<(Duration, usize)> {
        let first = self.peek()?;
        let Some(op) = sign(first) else {
            let expr = match first.kind {
                TokenKind::LeftParen => self.duration_expr(0)?,
                _ => self.duration_operand()?,
            };
            return Ok(with_end(expr));
        };
        self.next()?;
        let expr = if sign(self.peek()?).is_some() {
            let operand = self.duration_signed()?;
            let lhs = self.apply_duration_sign(op, first, operand)?;
            self.duration_operators(lhs, 0)?
        } else {
            let operand = self.duration_operand()?;
            self.apply_duration_sign(op, first, operand)?
        };
        Ok(with_end(expr))
    }

    fn duration_expr(&mut self, min: u8) -> Parsed<DurationExpr> {
        self.deeper(|parser| {
            let lhs = parser.duration_signed()?;
            parser.duration_operators(lhs, min)
        })
    }

    fn duration_operators(&mut self, mut lhs: DurationExpr, min: u8) -> Parsed<DurationExpr> {
        let mut height = 0;
        while let Some((op, binds)) = duration_op(self.peek()?) {
            if binds < min {
                break;
            }
            let token = self.next()?;
            self.count_node(token.pos())?;
            height += 1;
            self.limit_depth(height, token.pos())?;
            let rhs = self.duration_expr(if op == DurationOp::Pow { POW } else { binds + 1 })?;
            let zero = matches!(&rhs, DurationExpr::Number(number) if number.value == 0.0);
            match op {
                DurationOp::Div if zero => return fail(token.pos(), "division by zero".to_owned()),
                DurationOp::Mod if zero => return fail(token.pos(), "modulo by zero".to_owned()),
                _ => {}
            }
            let pos = lhs.pos().to(rhs.pos());
            lhs = DurationExpr::Binary { op, lhs: Box::new(lhs), rhs: Box::new(rhs), pos };
        }
        Ok(lhs)
    }

    fn duration_signed(&mut self) -> Parsed<DurationExpr> {
        let token = self.peek()?;
        let Some(op) = sign(token) else { return self.duration_operand() };
        self.next()?;
        let operand = self.duration_expr(POW)?;
        self.apply_duration_sign(op, token, operand)
    }

    /// A sign before a literal becomes part of it; a plus before anything else means nothing.
    fn apply_duration_sign(
        &mut self,
        op: UnaryOp,
        token: Token,
        operand: DurationExpr,
    ) -> Parsed<DurationExpr> {
        match operand {
            DurationExpr::Number(mut number) => {
                if op == UnaryOp::Minus {
                    number.value = -number.value;
                }
                number.pos.start = token.start;
                Ok(DurationExpr::Number(number))
            }
            operand if op == UnaryOp::Plus => Ok(operand),
            operand => {
                self.count_node(token.pos())?;
                let pos = token.pos().to(operand.pos());
                Ok(DurationExpr::Negate { operand: Box::new(operand), pos })
            }
        }
    }

    fn duration_operand(&mut self) -> Parsed<DurationExpr> {
        let token = self.peek()?;
        self.count_node(token.pos())?;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                let number = self.number()?;
                if number.value > SECONDS_MAX || number.value < -SECONDS_MAX {
                    return fail(number.pos, "duration out of range".to_owned());
                }
                Ok(DurationExpr::Number(number))
            }
            TokenKind::LeftParen => self.duration_paren(),
            TokenKind::Keyword(word @ (Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf)) => {
                self.next()?;
                self.duration_call(word, token)
            }
            _ => self.unexpected(token),
        }
    }

    fn duration_paren(&mut self) -> Parsed<DurationExpr> {
        let open = self.next()?;
        let inner = self.duration_expr(0)?;
        let close = self.expect(TokenKind::RightParen)?;
        let pos = open.pos().to(close.pos());
        // Parentheses around parentheses say nothing more, and are printed once.
        Ok(match inner {
            DurationExpr::Paren { inner, .. } => DurationExpr::Paren { inner, pos },
            inner => DurationExpr::Paren { inner: Box::new(inner), pos },
        })
    }

    fn duration_call(&mut self, word: Keyword, name: Token) -> Parsed<DurationExpr> {
        self.expect(TokenKind::LeftParen)?;
        let operands = if matches!(word, Keyword::MinOf | Keyword::MaxOf) {
            let lhs = Box::new(self.duration_expr(0)?);
            self.expect(TokenKind::Comma)?;
            Some((lhs, Box::new(self.duration_expr(0)?)))
        } else {
            None
        };
        let close = self.expect(TokenKind::RightParen)?;
        let pos = name.pos().to(close.pos());
        Ok(match operands {
            Some((lhs, rhs)) if word == Keyword::MinOf => DurationExpr::MinOf { lhs, rhs, pos },
            Some((lhs, rhs)) => DurationExpr::MaxOf { lhs, rhs, pos },
            None if word == Keyword::Step => DurationExpr::Step { pos },
            None => DurationExpr::Range { pos },
        })
    }
}

/// The precedence of `^`. A sign binds looser.
const POW: u8 = 3;

fn duration_op(token: Token) -> Option<(DurationOp, u8)> {
    let TokenKind::Operator(op) = token.kind else { return None };
    Some(match op {
        BinaryOp::Add => (DurationOp::Add, 1),
        BinaryOp::Sub => (DurationOp::Sub, 1),
        BinaryOp::Mul => (DurationOp::Mul, 2),
        BinaryOp::Div => (DurationOp::Div, 2),
        BinaryOp::Mod => (DurationOp::Mod, 2),
        BinaryOp::Pow => (DurationOp::Pow, POW),
        _ => return None,
    })
}

fn with_end(expr: DurationExpr) -> (Duration, usize) {
    let end = expr.pos().end;
    (resolve(expr), end)
}

/// A literal is known now; Go counts it in whole nanoseconds, and evaluates in milliseconds.
fn resolve(expr: DurationExpr) -> Duration {
    match expr {
        DurationExpr::Number(number) => {
            let nanoseconds = (number.value * 1e9).round() as i64;
            Duration::Fixed(nanoseconds / 1_000_000)
        }
        expr => Duration::Computed(Box::new(expr)),
    }
}
