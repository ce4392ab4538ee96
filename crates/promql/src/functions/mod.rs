//! The functions of PromQL, one file for each family.

mod absent;
mod date;
mod element;
pub(crate) mod extended;
mod histogram;
mod info;
mod labels;
mod over_time;
mod rate;
mod regression;
mod sort;
mod window;

use tidewatch_parser::{FunctionId, RangeModifier, ValueType};

pub(crate) use absent::{absent_over_time, is_absent};
pub(crate) use date::civil_from_days;
pub(crate) use element::{RowMap, negate, row_map};
pub(crate) use labels::is_valid_label;
pub(crate) use rate::Extrapolation;
pub(crate) use window::{WindowCall, apply_window};

use crate::context::QueryError;
use crate::eval::{Evaluator, Output};
use crate::frame::{Frame, Name};
use crate::grid::Grid;
use crate::instant::Pick;
use crate::plan::{Kind, Node, Window};
use crate::row::{Cell, Row};
use crate::stream::Stream;

/// Functions whose value depends on the time of evaluation, though their arguments may not.
pub(crate) fn depends_on_time(id: FunctionId, arguments: usize) -> bool {
    use FunctionId as F;
    match id {
        F::Time | F::Timestamp | F::PredictLinear => true,
        // Without an argument they take the time of evaluation; Prometheus keeps them apart in any case.
        F::DaysInMonth
        | F::DayOfMonth
        | F::DayOfWeek
        | F::DayOfYear
        | F::Hour
        | F::Minute
        | F::Month
        | F::Year => arguments == 0,
        _ => false,
    }
}

const ANCHORED: &str = "changes, delta, increase, rate, resets";
const SMOOTHED: &str = "delta, increase, rate";

/// Refuses a range modifier on a function that cannot deal with samples outside of the range.
pub(crate) fn check_modifier(plan: &Window) -> Result<(), QueryError> {
    use FunctionId::{Changes, Delta, Increase, Rate, Resets};
    let (modifier, safe, list) = match plan.matrix.modifier {
        None => return Ok(()),
        Some(RangeModifier::Anchored) => {
            ("anchored", matches!(plan.id, Changes | Delta | Increase | Rate | Resets), ANCHORED)
        }
        Some(RangeModifier::Smoothed) => ("smoothed", matches!(plan.id, Delta | Increase | Rate), SMOOTHED),
    };
    if safe {
        return Ok(());
    }
    let name = plan.name;
    Err(QueryError::Execution(format!("{modifier} modifier can only be used with: {list} - not with {name}")))
}

/// Evaluates a call that has no matrix among its arguments.
pub(crate) fn call(
    evaluator: &mut Evaluator<'_>,
    node: &Node,
    id: FunctionId,
    args: &[Node],
    grid: Grid,
) -> Result<Output, QueryError> {
    use FunctionId as F;
    match id {
        F::Time => Ok(Output::Scalar(grid.times().map(|time| time as f64 / 1000.0).collect())),
        F::MinOf | F::MaxOf => {
            let (a, b) = (evaluator.scalar(&args[0], grid)?, evaluator.scalar(&args[1], grid)?);
            let pick = if id == F::MinOf { element::go_min } else { element::go_max };
            Ok(Output::Scalar(a.into_iter().zip(b).map(|(a, b)| pick(a, b)).collect()))
        }
        F::ScalarOf => {
            let frame = evaluator.rows(&args[0], grid)?;
            Ok(Output::Scalar(scalar(&frame)))
        }
        F::VectorOf => {
            let frame = evaluator.rows_or_scalar(&args[0], grid)?;
            Ok(Output::Rows(frame))
        }
        F::Absent => absent::absent(evaluator, &args[0], grid).map(Output::Rows),
        F::Timestamp => timestamp(evaluator, &args[0], grid).map(Output::Rows),
        F::StartTimestamp => start_timestamp(evaluator, &args[0], grid).map(Output::Rows),
        F::LabelReplace => labels::label_replace(evaluator, args, grid).map(Output::Rows),
        F::LabelJoin => labels::label_join(evaluator, args, grid).map(Output::Rows),
        F::Info => info::info(evaluator, args, grid).map(Output::Rows),
        F::Sort | F::SortDesc => sort::by_value(evaluator, id, (node.pos, &args[0]), grid).map(Output::Rows),
        F::SortByLabel | F::SortByLabelDesc => {
            sort::by_label(evaluator, id, (node.pos, args), grid).map(Output::Rows)
        }
        F::HistogramQuantile | F::HistogramQuantiles | F::HistogramFraction => {
            histogram::buckets_call(evaluator, id, args, grid).map(Output::Rows)
        }
        _ if args.is_empty() && date::is_date(id) => date::of_steps(evaluator, id, grid).map(Output::Rows),
        _ => {
            let stream = Stream::of(evaluator, node, grid)?;
            stream.collect(evaluator).map(Output::Rows)
        }
    }
}

/// At each step the only float of a vector, or NaN.
fn scalar(frame: &Frame) -> Vec<f64> {
    let mut values = vec![f64::NAN; frame.steps];
    let mut found = vec![0u8; frame.steps];
    for (_, row) in frame.rows() {
        for step in crate::row::set_steps(row.present) {
            if let Some(Cell::Float(value)) = row.get(step) {
                found[step] = found[step].saturating_add(1);
                values[step] = if found[step] == 1 { value } else { f64::NAN };
            }
        }
    }
    values
}

/// `timestamp(v)`: of a selector the times of its samples, of anything else the time of evaluation.
fn timestamp(evaluator: &mut Evaluator<'_>, arg: &Node, grid: Grid) -> Result<Frame, QueryError> {
    let inner = match &arg.kind {
        Kind::Invariant(inner) => inner,
        _ => arg,
    };
    let frame = match &inner.kind {
        // A smoothed value is one of the time of evaluation.
        Kind::Select(selector) if selector.modifier != Some(RangeModifier::Smoothed) => {
            Stream::picked(evaluator, selector, inner, grid, Pick::Time)?.collect(evaluator)?
        }
        _ => {
            let input = evaluator.rows(arg, grid)?;
            let mut frame = Frame::new(grid.count);
            let mut times = Row::default();
            for (name, row) in input.rows() {
                times.copy_from(row);
                times.histograms.clear();
                grid.times().enumerate().for_each(|(step, time)| times.values[step] = time as f64 / 1000.0);
                frame.push(name.clone(), times.as_ref(), &evaluator.guard)?;
            }
            frame
        }
    };
    evaluator.strip_frame(frame, crate::stream::Strip::Metadata)
}

/// `start_timestamp(v)`: of a selector the start timestamps of its samples, 0 where they have none.
/// Nothing where start timestamps do not count, or of anything else.
fn start_timestamp(evaluator: &mut Evaluator<'_>, arg: &Node, grid: Grid) -> Result<Frame, QueryError> {
    let inner = match &arg.kind {
        Kind::Invariant(inner) => inner,
        _ => arg,
    };
    let frame = match &inner.kind {
        Kind::Select(selector) if evaluator.options.start_timestamps && selector.modifier.is_none() => {
            Stream::picked(evaluator, selector, inner, grid, Pick::Start)?.collect(evaluator)?
        }
        _ => Frame::new(grid.count),
    };
    evaluator.strip_frame(frame, crate::stream::Strip::Metadata)
}

/// The text of an argument that the parser has checked to be one.
fn text(node: &Node) -> &str {
    match &node.kind {
        Kind::Text(text) => text,
        _ => unreachable!("the parser has checked types"),
    }
}

/// One row for a name.
fn single_row(
    evaluator: &Evaluator<'_>,
    name: Name,
    steps: usize,
    value: impl Fn(usize) -> Option<f64>,
) -> Result<Frame, QueryError> {
    let mut row = Row::default();
    row.reset(steps);
    for step in 0..steps {
        if let Some(value) = value(step) {
            row.set(step, value);
        }
    }
    let mut frame = Frame::new(steps);
    if !row.is_empty() {
        frame.push(name, row.as_ref(), &evaluator.guard)?;
    }
    Ok(frame)
}

/// Whether an argument is a vector.
fn is_vector(node: &Node) -> bool {
    node.value_type == ValueType::Vector
}
