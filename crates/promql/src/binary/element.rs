//! One operation on two elements.

use tidewatch_model::FloatHistogram;
use tidewatch_model::histogram::{CounterResetHint, Reconciled};
use tidewatch_parser::{BinaryOp, PosRange};

use crate::notes::{Notes, Operation};
use crate::row::Cell;

/// An operation between floats; a comparison gives 1 or 0.
pub(crate) fn scalar_op(op: BinaryOp, a: f64, b: f64) -> f64 {
    use BinaryOp as B;
    let truth = |holds: bool| f64::from(u8::from(holds));
    match op {
        B::Add => a + b,
        B::Sub => a - b,
        B::Mul => a * b,
        B::Div => a / b,
        B::Mod => a % b,
        B::Pow => a.powf(b),
        B::Atan2 => a.atan2(b),
        B::Equal => truth(a == b),
        B::NotEqual => truth(a != b),
        B::Greater => truth(a > b),
        B::Less => truth(a < b),
        B::GreaterOrEqual => truth(a >= b),
        B::LessOrEqual => truth(a <= b),
        B::TrimUpper | B::TrimLower | B::And | B::Or | B::Unless => f64::NAN,
    }
}

#[derive(Clone, Copy)]
pub(super) enum Side<'a> {
    Float(f64),
    Histogram(&'a FloatHistogram),
}

impl<'a> From<Cell<'a>> for Side<'a> {
    fn from(cell: Cell<'a>) -> Side<'a> {
        match cell {
            Cell::Float(value) => Side::Float(value),
            Cell::Histogram(histogram) => Side::Histogram(histogram),
        }
    }
}

pub(super) enum Outcome {
    Float(f64),
    Histogram(FloatHistogram),
    /// Of a comparison, which passes its left side on where it holds.
    Holds(bool),
}

/// Computes, or notes why there is nothing to compute.
pub(super) fn compute(
    op: BinaryOp,
    lhs: Side<'_>,
    rhs: Side<'_>,
    pos: PosRange,
    notes: &mut Notes,
) -> Option<Outcome> {
    use BinaryOp as B;
    use Side::{Float, Histogram};
    let trims = matches!(op, B::TrimUpper | B::TrimLower);
    match (lhs, rhs, op) {
        (Float(a), Float(b), _) if op.is_comparison() => {
            return Some(Outcome::Holds(scalar_op(op, a, b) != 0.0));
        }
        (Float(a), Float(b), _) if !trims => return Some(Outcome::Float(scalar_op(op, a, b))),
        (Float(a), Histogram(b), B::Mul) => return Some(scaled(b, |h| h.mul(a))),
        (Histogram(a), Float(b), B::Mul) => return Some(scaled(a, |h| h.mul(b))),
        (Histogram(a), Float(b), B::Div) => return Some(scaled(a, |h| h.div(b))),
        (Histogram(a), Float(b), B::TrimUpper) => return Some(scaled(a, |h| h.trim_above(b))),
        (Histogram(a), Float(b), B::TrimLower) => return Some(scaled(a, |h| h.trim_below(b))),
        (Histogram(a), Histogram(b), B::Add | B::Sub) => return combine(op, a, b, pos, notes),
        (Histogram(a), Histogram(b), B::Equal) => return Some(Outcome::Holds(a.same_data(b))),
        (Histogram(a), Histogram(b), B::NotEqual) => return Some(Outcome::Holds(!a.same_data(b))),
        _ => {}
    }
    let kind = |side: Side<'_>| match side {
        Float(_) => "float",
        Histogram(_) => "histogram",
    };
    notes.incompatible_types(kind(lhs), op.as_str(), kind(rhs), pos);
    None
}

fn scaled(histogram: &FloatHistogram, change: impl Fn(&mut FloatHistogram)) -> Outcome {
    let mut result = histogram.clone();
    change(&mut result);
    result.compact();
    Outcome::Histogram(result)
}

fn combine(
    op: BinaryOp,
    a: &FloatHistogram,
    b: &FloatHistogram,
    pos: PosRange,
    notes: &mut Notes,
) -> Option<Outcome> {
    let mut result = a.clone();
    let (outcome, operation) = match op {
        BinaryOp::Add => (result.add(b), Operation::Addition),
        _ => (result.sub(b), Operation::Subtraction),
    };
    let Ok(Reconciled { reset_collision, custom_bounds }) = outcome else {
        notes.incompatible_buckets(op.as_str(), pos);
        return None;
    };
    if op == BinaryOp::Sub {
        result.hint = CounterResetHint::Gauge;
    }
    if reset_collision {
        notes.reset_collision(operation, pos);
    }
    if custom_bounds {
        notes.bounds_reconciled(operation, pos);
    }
    result.compact();
    Some(Outcome::Histogram(result))
}
