//! Binary operators: between scalars, between a vector and a scalar, between vectors.

mod element;
mod matching;
mod set;
mod vector;

use std::sync::Arc;

use tidewatch_parser::{BinaryOp, PosRange, ValueType};

pub(crate) use element::scalar_op;
use element::{Outcome, Side, compute};

use crate::context::QueryError;
use crate::eval::{Evaluator, Output};
use crate::functions::RowMap;
use crate::grid::Grid;
use crate::notes::Notes;
use crate::plan::{Binary, Node};
use crate::row::Row;
use crate::stream::{Stream, Strip};

pub(crate) fn eval(
    evaluator: &mut Evaluator<'_>,
    node: &Node,
    plan: &Binary,
    grid: Grid,
) -> Result<Output, QueryError> {
    match (plan.lhs.value_type, plan.rhs.value_type) {
        (ValueType::Scalar, ValueType::Scalar) => {
            let (lhs, rhs) = (evaluator.scalar(&plan.lhs, grid)?, evaluator.scalar(&plan.rhs, grid)?);
            Ok(Output::Scalar(lhs.into_iter().zip(rhs).map(|(a, b)| scalar_op(plan.op, a, b)).collect()))
        }
        (ValueType::Scalar, _) | (_, ValueType::Scalar) => {
            let stream = Stream::of(evaluator, node, grid)?;
            stream.collect(evaluator).map(Output::Rows)
        }
        _ if plan.op.is_set() => set::eval(evaluator, plan, grid).map(Output::Rows),
        _ => vector::eval(evaluator, node.pos, plan, grid).map(Output::Rows),
    }
}

/// Whether a result is another thing than its operands, so that their name does not fit.
pub(crate) fn changes_meaning(op: BinaryOp) -> bool {
    use BinaryOp::{Add, Atan2, Div, Mod, Mul, Pow, Sub};
    matches!(op, Add | Sub | Mul | Div | Pow | Mod | Atan2)
}

/// The map of rows that an operator between a vector and a scalar is.
pub(crate) fn scalar_map(plan: &Binary, pos: PosRange, scalar: Vec<f64>) -> (RowMap, Strip) {
    let (op, return_bool) = (plan.op, plan.return_bool);
    let swapped = plan.lhs.value_type == ValueType::Scalar;
    let strip = if changes_meaning(op) || return_bool { Strip::Metadata } else { Strip::Keep };
    let map: RowMap = Box::new(move |row, notes| {
        if row.histograms.is_empty() && floats(op, row, &scalar, swapped, return_bool) {
            return;
        }
        cells(op, row, &scalar, swapped, return_bool, pos, notes);
    });
    (map, strip)
}

/// The loops for rows of floats. `false` for operators that have none.
fn floats(op: BinaryOp, row: &mut Row, scalar: &[f64], swapped: bool, return_bool: bool) -> bool {
    use BinaryOp as B;
    let values = row.values.iter_mut().zip(scalar);
    macro_rules! arithmetic {
        ($op:expr) => {{
            let op = $op;
            match swapped {
                false => values.for_each(|(value, scalar)| *value = op(*value, *scalar)),
                true => values.for_each(|(value, scalar)| *value = op(*scalar, *value)),
            }
            return true;
        }};
    }
    match op {
        B::Add => arithmetic!(|a: f64, b: f64| a + b),
        B::Sub => arithmetic!(|a: f64, b: f64| a - b),
        B::Mul => arithmetic!(|a: f64, b: f64| a * b),
        B::Div => arithmetic!(|a: f64, b: f64| a / b),
        B::Mod | B::Pow | B::Atan2 => arithmetic!(|a: f64, b: f64| scalar_op(op, a, b)),
        _ if op.is_comparison() => {}
        _ => return false,
    }
    for (step, (value, scalar)) in row.values.iter_mut().zip(scalar).enumerate() {
        let (lhs, rhs) = if swapped { (*scalar, *value) } else { (*value, *scalar) };
        let holds = scalar_op(op, lhs, rhs);
        if return_bool {
            *value = holds;
        } else if holds == 0.0 {
            crate::row::clear_bit(&mut row.present, step);
        }
    }
    true
}

/// Step by step, for rows with histograms and for operators that only those have.
fn cells(
    op: BinaryOp,
    row: &mut Row,
    scalar: &[f64],
    swapped: bool,
    return_bool: bool,
    pos: PosRange,
    notes: &mut Notes,
) {
    let steps: Vec<usize> = crate::row::set_steps(&row.present).collect();
    for step in steps {
        let histogram = row.histograms.get_mut(step).and_then(Option::take);
        let element = match &histogram {
            Some(histogram) => Side::Histogram(histogram),
            None => Side::Float(row.values[step]),
        };
        let constant = Side::Float(scalar[step]);
        let (lhs, rhs) = if swapped { (constant, element) } else { (element, constant) };
        match compute(op, lhs, rhs, pos, notes) {
            None => row.remove(step),
            Some(Outcome::Float(value)) => row.set(step, value),
            Some(Outcome::Histogram(result)) => row.set_histogram(step, Arc::new(result)),
            Some(Outcome::Holds(holds)) if return_bool => row.set(step, f64::from(u8::from(holds))),
            Some(Outcome::Holds(false)) => row.remove(step),
            // What passes a filter is the element, on whichever side it stands.
            Some(Outcome::Holds(true)) => {
                if let Some(histogram) = histogram {
                    row.set_histogram(step, histogram);
                }
            }
        }
    }
}
