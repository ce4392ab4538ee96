//! Sorting of instant vectors. A range query sorts by labels at its end, whatever is asked here.

use std::cmp::Ordering;

use tidewatch_parser::{FunctionId, PosRange};

use super::text;
use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::Frame;
use crate::grid::Grid;
use crate::plan::Node;
use crate::row::{Cell, Row};

/// `sort` and `sort_desc`: floats by value, NaN last; histograms are left out.
pub(super) fn by_value(
    evaluator: &mut Evaluator<'_>,
    id: FunctionId,
    (pos, arg): (PosRange, &Node),
    grid: Grid,
) -> Result<Frame, QueryError> {
    if !grid.is_instant() {
        evaluator.notes.sort_in_range(pos);
    }
    let frame = evaluator.rows(arg, grid)?;
    let mut floats = Frame::new(grid.count);
    let mut row = Row::default();
    for (name, cells) in frame.rows() {
        row.copy_from(cells);
        row.drop_histograms();
        if !row.is_empty() {
            floats.push(name.clone(), row.as_ref(), &evaluator.guard)?;
        }
    }
    if !grid.is_instant() {
        return Ok(floats);
    }
    let mut order: Vec<(usize, f64)> = Vec::new();
    for (i, (_, row)) in floats.rows().enumerate() {
        if let Some(Cell::Float(value)) = row.get(0) {
            order.push((i, value));
        }
    }
    order.sort_by(|(_, a), (_, b)| {
        let by_value = a.partial_cmp(b).unwrap_or(Ordering::Equal);
        let by_value = if id == FunctionId::SortDesc { by_value.reverse() } else { by_value };
        a.is_nan().cmp(&b.is_nan()).then(by_value)
    });
    let order: Vec<usize> = order.into_iter().map(|(i, _)| i).collect();
    floats.pick(&order, &evaluator.guard)
}

/// `sort_by_label` and `sort_by_label_desc`: by the labels named, in natural order, then by all.
pub(super) fn by_label(
    evaluator: &mut Evaluator<'_>,
    id: FunctionId,
    (pos, args): (PosRange, &[Node]),
    grid: Grid,
) -> Result<Frame, QueryError> {
    if !grid.is_instant() {
        evaluator.notes.sort_in_range(pos);
    }
    let frame = evaluator.rows(&args[0], grid)?;
    let labels: Vec<&str> = args[1..].iter().map(text).collect();
    let mut order: Vec<usize> = (0..frame.len()).collect();
    order.sort_by(|a, b| {
        let (a, b) = (&frame.names[*a].labels, &frame.names[*b].labels);
        let by_label = labels
            .iter()
            .map(|label| natural(a.get(label).unwrap_or_default(), b.get(label).unwrap_or_default()));
        let ordering = by_label.fold(Ordering::Equal, Ordering::then).then_with(|| a.cmp(b));
        if id == FunctionId::SortByLabelDesc { ordering.reverse() } else { ordering }
    });
    frame.pick(&order, &evaluator.guard)
}

/// Runs of digits compare as numbers, all else as text.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (Some(part_a), Some(part_b)) = (run(a), run(b)) else {
            return a.len().cmp(&b.len());
        };
        let both_numbers = is_number(part_a) && is_number(part_b);
        let ordering = if both_numbers { by_number(part_a, part_b) } else { part_a.cmp(part_b) };
        if ordering != Ordering::Equal {
            return ordering;
        }
        (a, b) = (&a[part_a.len()..], &b[part_b.len()..]);
    }
}

fn is_number(part: &str) -> bool {
    part.as_bytes()[0].is_ascii_digit()
}

/// The longest start of `text` that is all digits or all something else.
fn run(text: &str) -> Option<&str> {
    let first = text.bytes().next()?.is_ascii_digit();
    let end = text.bytes().position(|byte| byte.is_ascii_digit() != first).unwrap_or(text.len());
    Some(&text[..end])
}

fn by_number(a: &str, b: &str) -> Ordering {
    let (short_a, short_b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    short_a.len().cmp(&short_b.len()).then(short_a.cmp(short_b)).then(a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_within_texts_sort_by_value() {
        let mut texts = ["a10", "a2", "b", "a", "2", "10", "a2b", "", "a02"];
        texts.sort_by(|a, b| natural(a, b));
        assert_eq!(texts, ["", "2", "10", "a", "a2", "a2b", "a02", "a10", "b"]);
    }
}
