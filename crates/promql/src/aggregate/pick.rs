//! Aggregations that pass on some of their rows: `topk`, `bottomk`, `limitk`, `limit_ratio`.
//!
//! The rows are collected first, since which of them are passed on may differ at each step.

use std::cmp::Ordering;

use tidewatch_model::Labels;
use tidewatch_parser::AggregateOp;

use super::Groups;
use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::{Frame, Name};
use crate::hash::labels_hash;
use crate::plan::Aggregate;
use crate::row::{Cell, Row};
use crate::stream::Stream;

pub(super) fn eval(
    evaluator: &mut Evaluator<'_>,
    plan: &Aggregate,
    stream: Stream,
    params: Vec<f64>,
) -> Result<Frame, QueryError> {
    let grid = stream.grid;
    // The input first: what is wrong with it is said though nothing of it is picked.
    let input = stream.collect(evaluator)?;
    if let Some(frame) = check_params(evaluator, plan, &params, grid.count)? {
        return Ok(frame);
    }
    let stream = Stream::of_frame(input, grid);
    let groups = Groups::new(evaluator, plan, &stream)?;
    let input = stream.collect(evaluator)?;
    let members = members(&groups);
    let hashes: Vec<f64> = match plan.op {
        AggregateOp::LimitRatio => input.names.iter().map(|name| offset(&name.labels)).collect(),
        _ => Vec::new(),
    };
    let _room = evaluator.guard.charge((input.len() * size_of::<Row>()) as u64, 0)?;
    let mut kept: Vec<Row> = Vec::new();
    kept.resize_with(input.len(), Row::default);
    let (mut order, mut charges) = (Vec::new(), Vec::new());
    let mut chosen = Vec::new();
    for rows in &members {
        for (step, param) in params.iter().enumerate() {
            evaluator.guard.check()?;
            chosen.clear();
            choose(evaluator, plan, &input, rows, step, *param, &hashes, &mut chosen);
            for &i in &chosen {
                if kept[i].values.is_empty() {
                    charges.push(evaluator.guard.charge(grid.count as u64 * 9, grid.count as u64)?);
                    kept[i].reset(grid.count);
                    order.push(i);
                }
                match input.row(i).get(step).expect("chosen among those present") {
                    Cell::Float(value) => kept[i].set(step, value),
                    Cell::Histogram(histogram) => kept[i].set_histogram(step, histogram.clone()),
                }
            }
        }
    }
    let mut frame = Frame::new(grid.count);
    for i in order {
        let Name { labels, drop } = &input.names[i];
        let name = Name { labels: labels.clone(), drop: *drop };
        frame.push(name, kept[i].as_ref(), &evaluator.guard)?;
    }
    Ok(frame)
}

/// Refuses parameters that are no numbers; an empty frame where none of them lets a row pass.
fn check_params(
    evaluator: &mut Evaluator<'_>,
    plan: &Aggregate,
    params: &[f64],
    steps: usize,
) -> Result<Option<Frame>, QueryError> {
    let refuse = |text: String| Err(QueryError::Execution(text));
    let max = params.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let min = params.iter().copied().fold(f64::INFINITY, f64::min);
    let nan = params.iter().any(|param| param.is_nan());
    if plan.op == AggregateOp::LimitRatio {
        if max == 0.0 && min == 0.0 && !nan {
            return Ok(Some(Frame::new(steps)));
        }
        if nan {
            return refuse("Ratio value is NaN".to_owned());
        }
        let pos = plan.param.as_ref().map_or(plan.input.pos, |param| param.pos);
        if max > 1.0 {
            evaluator.notes.invalid_ratio(max, 1.0, pos);
        }
        if min < -1.0 {
            evaluator.notes.invalid_ratio(min, -1.0, pos);
        }
        return Ok(None);
    }
    if nan {
        return refuse("Parameter value is NaN".to_owned());
    }
    if max < 1.0 {
        return Ok(Some(Frame::new(steps)));
    }
    let print = tidewatch_model::histogram::format_g;
    if min <= i64::MIN as f64 {
        return refuse(format!("Scalar value {} underflows int64", print(min)));
    }
    if max >= 9_223_372_036_854_774_784.0 {
        return refuse(format!("Scalar value {} overflows int64", print(max)));
    }
    Ok(None)
}

/// The rows of each group, in order.
fn members(groups: &Groups) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); groups.len()];
    for (row, group) in groups.of_row.iter().enumerate() {
        members[*group as usize].push(row);
    }
    members
}

/// Where a label set stands between 0 and 1, the same in every query.
fn offset(labels: &Labels) -> f64 {
    labels_hash(labels) as f64 / u64::MAX as f64
}

/// The rows that pass at one step, in the order in which an instant query shows them.
#[allow(clippy::too_many_arguments)]
fn choose(
    evaluator: &mut Evaluator<'_>,
    plan: &Aggregate,
    input: &Frame,
    rows: &[usize],
    step: usize,
    param: f64,
    hashes: &[f64],
    chosen: &mut Vec<usize>,
) {
    let present = rows.iter().copied().filter(|i| input.row(*i).get(step).is_some());
    match plan.op {
        AggregateOp::LimitRatio => {
            let ratio = param.clamp(-1.0, 1.0);
            chosen.extend(present.filter(|i| match ratio >= 0.0 {
                true => hashes[*i] < ratio,
                false => hashes[*i] >= 1.0 + ratio,
            }));
        }
        AggregateOp::Limitk => chosen.extend(present.take(k_of(param))),
        op => {
            let k = k_of(param);
            if k == 0 {
                return;
            }
            let mut best: Vec<(usize, f64)> = Vec::new();
            for i in present {
                match input.row(i).get(step) {
                    Some(Cell::Float(value)) => offer(&mut best, op, k, (i, value)),
                    _ => evaluator.notes.histogram_ignored_in_aggregation(op.as_str(), plan.pos),
                }
            }
            let by_rank = |a: &(usize, f64), b: &(usize, f64)| rank(op, a.1, b.1).then(a.0.cmp(&b.0));
            best.sort_by(by_rank);
            chosen.extend(best.into_iter().map(|(i, _)| i));
        }
    }
}

/// Takes an element among the best `k`, a binary heap with the worst on top. Which of equal values
/// stay depends on how a heap moves them; this moves them as Prometheus' does.
fn offer(heap: &mut Vec<(usize, f64)>, op: AggregateOp, k: usize, element: (usize, f64)) {
    let worse = |a: f64, b: f64| a.is_nan() || if op == AggregateOp::Topk { a < b } else { a > b };
    if heap.len() < k {
        heap.push(element);
        let mut at = heap.len() - 1;
        while at > 0 && worse(heap[at].1, heap[(at - 1) / 2].1) {
            heap.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        return;
    }
    if element.1.is_nan() || !worse(heap[0].1, element.1) {
        return;
    }
    heap[0] = element;
    let mut at = 0;
    while 2 * at + 1 < heap.len() {
        let left = 2 * at + 1;
        let right = left + 1;
        let child = if right < heap.len() && worse(heap[right].1, heap[left].1) { right } else { left };
        if !worse(heap[child].1, heap[at].1) {
            break;
        }
        heap.swap(at, child);
        at = child;
    }
}

fn k_of(param: f64) -> usize {
    if param < 1.0 { 0 } else { param as usize }
}

/// The better value first, NaN last.
fn rank(op: AggregateOp, a: f64, b: f64) -> Ordering {
    let by_value = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    let by_value = if op == AggregateOp::Topk { by_value.reverse() } else { by_value };
    a.is_nan().cmp(&b.is_nan()).then(by_value)
}
