//! Durations that are computed: `[step() * 4]`, `offset -min_of(range(), 1h)`.

use tidewatch_parser::{Duration, DurationExpr, DurationOp};

use crate::context::QueryError;

/// What `step()` and `range()` stand for, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct QuerySpan {
    pub step: i64,
    pub range: i64,
}

/// Says where in the query it is, as a range of bytes.
fn error(expr: &DurationExpr, text: &str) -> QueryError {
    let pos = expr.pos();
    QueryError::Invalid(format!("{}:{}: {text}", pos.start, pos.end))
}

/// A range or a step, which must be positive.
pub(super) fn positive(duration: &Duration, span: QuerySpan) -> Result<i64, QueryError> {
    match duration {
        Duration::Fixed(ms) => Ok(*ms),
        Duration::Computed(expr) => {
            let seconds = evaluate(expr, span)?;
            if seconds <= 0.0 || seconds.is_nan() {
                return Err(error(expr, "duration must be greater than 0"));
            }
            milliseconds(expr, seconds)
        }
    }
}

/// An offset, which may be of either sign.
pub(super) fn signed(duration: &Duration, span: QuerySpan) -> Result<i64, QueryError> {
    match duration {
        Duration::Fixed(ms) => Ok(*ms),
        Duration::Computed(expr) => milliseconds(expr, evaluate(expr, span)?),
    }
}

fn milliseconds(expr: &DurationExpr, seconds: f64) -> Result<i64, QueryError> {
    // The range of Go's durations, in nanoseconds of an i64.
    if seconds.is_nan() || seconds.abs() > i64::MAX as f64 / 1e9 {
        return Err(error(expr, "duration is out of range"));
    }
    Ok((seconds * 1000.0) as i64)
}

/// Recursion is bounded: the parser limits the depth of a tree.
fn evaluate(expr: &DurationExpr, span: QuerySpan) -> Result<f64, QueryError> {
    Ok(match expr {
        DurationExpr::Number(number) => number.value,
        DurationExpr::Step { .. } => span.step as f64 / 1000.0,
        DurationExpr::Range { .. } => span.range as f64 / 1000.0,
        DurationExpr::Negate { operand, .. } => -evaluate(operand, span)?,
        DurationExpr::Paren { inner, .. } => evaluate(inner, span)?,
        DurationExpr::MinOf { lhs, rhs, .. } => evaluate(lhs, span)?.min(evaluate(rhs, span)?),
        DurationExpr::MaxOf { lhs, rhs, .. } => evaluate(lhs, span)?.max(evaluate(rhs, span)?),
        DurationExpr::Binary { op, lhs, rhs, .. } => {
            let (lhs, rhs) = (evaluate(lhs, span)?, evaluate(rhs, span)?);
            match op {
                DurationOp::Add => lhs + rhs,
                DurationOp::Sub => lhs - rhs,
                DurationOp::Mul => lhs * rhs,
                DurationOp::Div if rhs == 0.0 => return Err(error(expr, "division by zero")),
                DurationOp::Div => lhs / rhs,
                DurationOp::Mod if rhs == 0.0 => return Err(error(expr, "modulo by zero")),
                DurationOp::Mod => lhs % rhs,
                DurationOp::Pow => lhs.powf(rhs),
            }
        }
    })
}
