//! `and`, `or`, `unless`: rows of one side, where the other has a match or none.

use tidewatch_parser::BinaryOp;

use super::matching::{Matched, Signer};
use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::Frame;
use crate::grid::Grid;
use crate::plan::Binary;
use crate::row::{Row, words};

pub(super) fn eval(evaluator: &mut Evaluator<'_>, plan: &Binary, grid: Grid) -> Result<Frame, QueryError> {
    let lhs = evaluator.rows(&plan.lhs, grid)?;
    let rhs = evaluator.rows(&plan.rhs, grid)?;
    let matching = plan.matching.clone().unwrap_or_default();
    let matched = Matched::new(&Signer::new(&matching), &lhs, &rhs, &evaluator.guard)?;
    let mut result = Frame::new(grid.count);
    match plan.op {
        BinaryOp::And => {
            let there = presence(&matched.right_rows, &rhs);
            masked(evaluator, &lhs, &matched.left, &there, true, &mut result)?;
        }
        BinaryOp::Unless => {
            let there = presence(&matched.right_rows, &rhs);
            masked(evaluator, &lhs, &matched.left, &there, false, &mut result)?;
        }
        _ => {
            for (name, row) in lhs.rows() {
                result.push(name.clone(), row, &evaluator.guard)?;
            }
            let there = presence(&matched.left_rows, &lhs);
            masked(evaluator, &rhs, &matched.right, &there, false, &mut result)?;
            // Rows of both sides may have the same labels at different steps.
            if !evaluator.options.delayed_name_removal {
                result = result.merge_equal(&evaluator.guard)?;
            }
        }
    }
    Ok(result)
}

/// At which steps a signature has any row.
fn presence(rows: &[Vec<usize>], frame: &Frame) -> Vec<Vec<u64>> {
    let of_signature = |rows: &Vec<usize>| {
        let mut present = vec![0; words(frame.steps)];
        for row in rows {
            present.iter_mut().zip(frame.row(*row).present).for_each(|(a, b)| *a |= b);
        }
        present
    };
    rows.iter().map(of_signature).collect()
}

/// Appends the rows at the steps at which the other side is there, or is not.
fn masked(
    evaluator: &Evaluator<'_>,
    frame: &Frame,
    signatures: &[usize],
    there: &[Vec<u64>],
    wanted: bool,
    result: &mut Frame,
) -> Result<(), QueryError> {
    let mut row = Row::default();
    for (i, (name, cells)) in frame.rows().enumerate() {
        evaluator.guard.check()?;
        row.copy_from(cells);
        for (present, mask) in row.present.iter_mut().zip(&there[signatures[i]]) {
            *present &= if wanted { *mask } else { !*mask };
        }
        if !row.is_empty() {
            for step in 0..row.histograms.len() {
                if !crate::row::bit(&row.present, step) {
                    row.histograms[step] = None;
                }
            }
            result.push(name.clone(), row.as_ref(), &evaluator.guard)?;
        }
    }
    Ok(())
}
