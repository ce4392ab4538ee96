//! `absent` and `absent_over_time`: one where there is nothing.

use tidewatch_model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};
use tidewatch_parser::FunctionId;

use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::{Frame, Name};
use crate::grid::Grid;
use crate::plan::{Kind, MatrixSource, Node, Window};
use crate::stream::Stream;
use crate::window::WindowSource;

pub(crate) fn is_absent(plan: &Window) -> bool {
    plan.id == FunctionId::AbsentOverTime
}

pub(super) fn absent(evaluator: &mut Evaluator<'_>, arg: &Node, grid: Grid) -> Result<Frame, QueryError> {
    let inner = match &arg.kind {
        Kind::Invariant(inner) => inner,
        _ => arg,
    };
    let labels = match &inner.kind {
        Kind::Select(selector) => labels_of(&selector.matchers),
        _ => Labels::empty(),
    };
    let stream = Stream::of(evaluator, arg, grid)?;
    where_none(evaluator, stream, labels)
}

pub(crate) fn absent_over_time(
    evaluator: &mut Evaluator<'_>,
    plan: &Window,
    node: &Node,
    grid: Grid,
) -> Result<Frame, QueryError> {
    let labels = match &plan.matrix.source {
        MatrixSource::Selector(matchers) => labels_of(matchers),
        MatrixSource::Subquery { .. } => Labels::empty(),
    };
    // Where something is present, absence is not.
    let present = Window { id: FunctionId::PresentOverTime, ..plan.clone() };
    let source = WindowSource::new(evaluator, &present, grid)?;
    where_none(evaluator, Stream::of_window(source, node, grid), labels)
}

/// One row with a 1 at each step at which the stream has no sample.
fn where_none(evaluator: &mut Evaluator<'_>, stream: Stream, labels: Labels) -> Result<Frame, QueryError> {
    let steps = stream.grid.count;
    let words = crate::row::words(steps);
    let parts = stream.fold(
        evaluator,
        || Ok(vec![0u64; words]),
        |seen, _, row, _| {
            seen.iter_mut().zip(&row.present).for_each(|(seen, present)| *seen |= present);
            Ok(())
        },
    )?;
    let mut seen = vec![0u64; words];
    for part in parts {
        seen.iter_mut().zip(part).for_each(|(seen, present)| *seen |= present);
    }
    let absent = |step: usize| (!crate::row::bit(&seen, step)).then_some(1.0);
    super::single_row(evaluator, Name::keep(labels), steps, absent)
}

/// Labels that the matchers fix to one value. A label with two conditions is fixed to none.
fn labels_of(matchers: &[Matcher]) -> Labels {
    let mut labels = LabelsBuilder::new();
    let mut seen: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
            labels.set(matcher.name(), matcher.value());
            seen.push(matcher.name());
        } else {
            labels.remove(matcher.name());
        }
    }
    labels.build()
}
