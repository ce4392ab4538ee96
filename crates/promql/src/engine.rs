//! The engine: the door through which queries come.

use std::sync::Arc;

use tidewatch_env::{Env, Parallel};
use tidewatch_model::{InstantSample, Labels, RangeSeries, SampleValue, Value};
use tidewatch_parser::{Expr, ValueType};
use tidewatch_storage::Select;

use crate::context::{Answer, EngineOptions, Held, QueryContext, QueryError, QueryStatistics};
use crate::eval::{Common, Evaluator, Output, Tally, without_metadata};
use crate::explain;
use crate::frame::{Frame, same_labels_error};
use crate::grid::Grid;
use crate::guard::Guard;
use crate::matrix;
use crate::notes::Notes;
use crate::plan::{self, Kind, Node};
use crate::profile::Profile;
use crate::row::{Cell, RowRef, set_steps};

/// Evaluates expressions. Holds no state between queries.
#[derive(Clone)]
pub struct Engine {
    env: Env,
    options: EngineOptions,
}

impl Engine {
    pub fn new(env: Env, options: EngineOptions) -> Engine {
        Engine { env, options }
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates `expr` at one time, in milliseconds.
    pub fn instant(
        &self,
        store: &dyn Select,
        expr: &Expr,
        at: i64,
        context: &QueryContext,
    ) -> Result<Answer, QueryError> {
        self.evaluate(store, expr, Grid::single(at), 0, at, context)
    }

    /// Evaluates `expr` at `start`, `start + step`, … up to and including `end`.
    pub fn range(
        &self,
        store: &dyn Select,
        expr: &Expr,
        start: i64,
        end: i64,
        step: i64,
        context: &QueryContext,
    ) -> Result<Answer, QueryError> {
        if !matches!(expr.value_type(), ValueType::Scalar | ValueType::Vector) {
            return Err(QueryError::Invalid(format!(
                "invalid expression type \"{}\" for range query, must be Scalar or instant Vector",
                expr.value_type().documented()
            )));
        }
        if end < start {
            return Err(QueryError::Execution("end timestamp must not be before start time".to_owned()));
        }
        if step <= 0 {
            return Err(QueryError::Execution(
                "zero or negative query resolution step widths are not accepted. Try a positive integer"
                    .to_owned(),
            ));
        }
        self.evaluate(store, expr, Grid::new(start, end, step), step, end, context)
    }

    fn evaluate(
        &self,
        store: &dyn Select,
        expr: &Expr,
        grid: Grid,
        step: i64,
        end: i64,
        context: &QueryContext,
    ) -> Result<Answer, QueryError> {
        let plan = plan::build(expr, grid, step, end, &self.options, context.query.as_deref())?;
        let guard = Guard::new(Arc::clone(&self.env.clock), context.clone(), self.options.samples_max);
        // Rows are as long as the grid: refused before the first is made.
        let _room = guard.charge(grid.count as u64 * step_bytes(&*self.env.parallel), 0)?;
        let mut evaluator = Evaluator {
            store,
            parallel: &*self.env.parallel,
            options: &self.options,
            lookback: context.lookback_ms.unwrap_or(self.options.lookback_ms),
            guard,
            notes: Notes::default(),
            tally: Tally::sized(grid.count, context.per_step_statistics),
            selections: Vec::new(),
            common: plan.uses.iter().map(|uses| Common { uses: *uses, kept: None }).collect(),
            scalars: Vec::new(),
            profile: context.explain.then(|| Profile::new(Arc::clone(&self.env.clock), plan.nodes)),
        };
        let (value, held) = self.value(&mut evaluator, &plan.root, grid, step)?;
        let statistics = statistics(&evaluator, grid);
        let annotations = evaluator.notes.into_annotations(context.query.as_deref());
        let plan = evaluator.profile.map(|profile| explain::explain(&plan.root, &profile.into_costs()));
        Ok(Answer { value, annotations, statistics, plan, held })
    }

    fn value(
        &self,
        evaluator: &mut Evaluator<'_>,
        node: &Node,
        grid: Grid,
        step: i64,
    ) -> Result<(Value, Held), QueryError> {
        if let Kind::Matrix(plan) = &node.kind {
            return evaluator
                .profiled(node.id, |evaluator| matrix::eval(evaluator, plan, node.id, grid))
                .map(|(series, held)| (Value::Matrix(series), held));
        }
        let output = evaluator.eval(node, grid)?;
        let time = grid.start;
        let rows = |frame| {
            let frame = drop_names(evaluator, frame)?;
            let held = hold(evaluator, &frame)?;
            Ok::<_, QueryError>((frame, held))
        };
        Ok(match (output, step) {
            (Output::Scalar(values), 0) => {
                (Value::Scalar { timestamp: time, value: values[0] }, Held::default())
            }
            (Output::Scalar(values), _) => {
                let floats = grid.times().zip(values).collect();
                (Value::Matrix(vec![RangeSeries { floats, ..RangeSeries::default() }]), Held::default())
            }
            (Output::Text(value), _) => (Value::String { timestamp: time, value }, Held::default()),
            (Output::Rows(frame), 0) => {
                let (frame, held) = rows(frame)?;
                (Value::Vector(instant_samples(&frame, time)), held)
            }
            (Output::Rows(frame), _) => {
                let (frame, held) = rows(frame)?;
                (Value::Matrix(range_series(&frame, grid)), held)
            }
        })
    }
}

/// Charges for the value that a frame is about to become.
fn hold(evaluator: &Evaluator<'_>, frame: &Frame) -> Result<Held, QueryError> {
    let bytes = frame.rows().map(|(name, row)| series_bytes(&name.labels) + row.samples() * 16).sum();
    Ok(Held::new(vec![evaluator.guard.charge(bytes, 0)?]))
}

/// What a series of a value takes beside its samples.
pub(crate) fn series_bytes(labels: &Labels) -> u64 {
    (size_of::<RangeSeries>() + 32 + labels.as_bytes().len()) as u64
}

/// What the workers hold for each step of a grid: a row, the samples of a row below, and the
/// bounds of its windows.
pub(crate) fn step_bytes(parallel: &dyn Parallel) -> u64 {
    48 * parallel.width() as u64
}

/// Drops the names that were only marked so far, and refuses rows with equal labels.
fn drop_names(evaluator: &Evaluator<'_>, frame: Frame) -> Result<Frame, QueryError> {
    let frame = if evaluator.options.delayed_name_removal {
        frame.rename(&evaluator.guard, |name| {
            let mut name = name.clone();
            if name.drop {
                name.labels = without_metadata(&name.labels);
            }
            Ok(name)
        })?
    } else {
        frame
    };
    if frame.has_equal_labels() {
        return Err(same_labels_error());
    }
    Ok(frame)
}

fn sample_value(cell: Cell<'_>) -> SampleValue {
    match cell {
        Cell::Float(value) => SampleValue::Float(value),
        Cell::Histogram(histogram) => SampleValue::Histogram(Arc::clone(histogram)),
    }
}

fn instant_samples(frame: &Frame, timestamp: i64) -> Vec<InstantSample> {
    let samples = frame.rows().filter_map(|(name, row)| {
        let value = sample_value(row.get(0)?);
        Some(InstantSample { labels: name.labels.clone(), timestamp, value })
    });
    samples.collect()
}

/// Rows with any sample, sorted by labels.
fn range_series(frame: &Frame, grid: Grid) -> Vec<RangeSeries> {
    let rows = frame.rows().filter(|(_, row)| !row.is_empty());
    let mut series: Vec<RangeSeries> = rows
        .map(|(name, row)| RangeSeries { labels: name.labels.clone(), ..samples_of(row, grid) })
        .collect();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}

fn samples_of(row: RowRef<'_>, grid: Grid) -> RangeSeries {
    let mut series = RangeSeries::default();
    for step in set_steps(row.present) {
        match row.get(step).expect("the bit is set") {
            Cell::Float(value) => series.floats.push((grid.time(step), value)),
            Cell::Histogram(histogram) => series.histograms.push((grid.time(step), Arc::clone(histogram))),
        }
    }
    series
}

fn statistics(evaluator: &Evaluator<'_>, grid: Grid) -> QueryStatistics {
    let mut statistics = QueryStatistics {
        samples_total: evaluator.tally.total,
        samples_peak: evaluator.guard.samples_peak().max(evaluator.tally.total.min(1)),
        samples_per_step: grid.times().zip(evaluator.tally.per_step.iter().copied()).collect(),
        bytes_peak: evaluator.guard.bytes_peak(),
        ..QueryStatistics::default()
    };
    for resolved in &evaluator.selections {
        let read = resolved.selection.statistics();
        statistics.series += resolved.selection.len() as u64;
        statistics.samples_read += read.samples;
        statistics.bytes_read += read.bytes;
    }
    statistics
}
