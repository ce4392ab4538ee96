//! Walks a plan.
//!
//! Nodes whose rows each come from one row below are streams ([`crate::stream`]); where rows must
//! meet (binary operators between vectors, sorting, histograms of buckets) they are collected
//! into a [`Frame`] first.

use std::sync::Arc;

use tidewatch_env::Parallel;
use tidewatch_model::{Labels, METRIC_NAME, MatchOp, Matcher};
use tidewatch_storage::{Select, SelectError, Selection, TimeRange};

use crate::aggregate;
use crate::binary;
use crate::context::{EngineOptions, QueryError};
use crate::frame::{Frame, Name};
use crate::functions;
use crate::grid::Grid;
use crate::guard::{Charge, Guard};
use crate::notes::Notes;
use crate::plan::{CommonId, Kind, MatrixSource, Node, NodeId};
use crate::profile::Profile;
use crate::stream::{Stream, Strip};
use crate::window;

/// What a node gives: a scalar for each step, one text, or rows.
pub(crate) enum Output {
    Scalar(Vec<f64>),
    Text(String),
    Rows(Frame),
}

impl Output {
    pub(crate) fn into_scalar(self) -> Vec<f64> {
        match self {
            Output::Scalar(values) => values,
            _ => unreachable!("the parser has checked types"),
        }
    }

    pub(crate) fn into_rows(self) -> Frame {
        match self {
            Output::Rows(frame) => frame,
            _ => unreachable!("the parser has checked types"),
        }
    }
}

/// Samples that selectors looked at, by Prometheus' count.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub total: u64,
    /// One for each step of the query, where the context asks for it.
    pub per_step: Vec<u64>,
}

impl Tally {
    pub(crate) fn sized(steps: usize, wanted: bool) -> Tally {
        Tally { total: 0, per_step: vec![0; if wanted { steps } else { 0 }] }
    }

    #[inline]
    pub(crate) fn add(&mut self, step: usize, samples: u64) {
        self.total += samples;
        if let Some(count) = self.per_step.get_mut(step) {
            *count += samples;
        }
    }

    pub(crate) fn merge(&mut self, other: &Tally) {
        self.total += other.total;
        for (count, more) in self.per_step.iter_mut().zip(&other.per_step) {
            *count += more;
        }
    }
}

/// One query on its way.
pub(crate) struct Evaluator<'a> {
    pub store: &'a dyn Select,
    pub parallel: &'a dyn Parallel,
    pub options: &'a EngineOptions,
    pub lookback: i64,
    pub guard: Guard,
    pub notes: Notes,
    pub tally: Tally,
    /// Common parts of the plan, by their numbers.
    pub common: Vec<Common>,
    /// Selections so far: equal selectors are resolved once.
    pub selections: Vec<Resolved>,
    /// The budget's part of scalars: kept to the end, as maps of streams hold on to them.
    pub scalars: Vec<Charge>,
    /// Kept where the query is explained.
    pub profile: Option<Profile>,
}

pub(crate) struct Resolved {
    matchers: Arc<[Matcher]>,
    range: TimeRange,
    pub selection: Arc<dyn Selection>,
    _charges: Vec<Charge>,
}

/// A part that stands in the query more than once.
pub(crate) struct Common {
    pub uses: u32,
    pub kept: Option<Kept>,
}

/// What a common part gave on one grid.
pub(crate) struct Kept {
    grid: Grid,
    frame: Frame,
    /// Samples looked at, which count for each use as in Prometheus.
    tally: Tally,
}

/// Rows of a function over a range that stands in the query twice are kept where they take at most
/// this part of the budget.
const SHARED_PARTS: u64 = 16;

impl Evaluator<'_> {
    /// Recursion is bounded: the parser limits the depth of a tree.
    pub(crate) fn eval(&mut self, node: &Node, grid: Grid) -> Result<Output, QueryError> {
        self.guard.check()?;
        if grid.count == 0 {
            return Ok(Output::Rows(Frame::new(0)));
        }
        let output = self.profiled(node.id, |evaluator| match evaluator.shared(node, grid)? {
            Some(id) => evaluator.eval_common(node, id, grid),
            None => evaluator.eval_kind(node, grid),
        })?;
        if let Output::Scalar(values) = &output {
            self.scalars.push(self.guard.charge(values.len() as u64 * 8, 0)?);
        }
        if let Some(profile) = &mut self.profile {
            profile.gave(node.id, &output);
        }
        Ok(output)
    }

    /// The number of a part that stands in the query more than once and is to be evaluated once. Rows
    /// of a function over a range would not be kept but for that: they are where they are few.
    pub(crate) fn shared(&mut self, node: &Node, grid: Grid) -> Result<Option<CommonId>, QueryError> {
        let Some(id) = node.common.filter(|id| self.common[id.0 as usize].uses > 1) else { return Ok(None) };
        let Kind::Window(plan) = &node.kind else { return Ok(Some(id)) };
        let MatrixSource::Selector(matchers) = &plan.matrix.source else { return Ok(Some(id)) };
        let (start, end) = window::windows(self, &plan.matrix, grid).hull();
        let rows = self.select(matchers, TimeRange { start, end })?.len() as u64;
        // Values and their presence.
        let bytes = rows.saturating_mul(grid.count as u64 * 9);
        Ok((bytes <= self.guard.memory_bytes() / SHARED_PARTS).then_some(id))
    }

    /// Evaluates a part that stands in the query more than once, or repeats what it gave. One that
    /// has something to say is evaluated each time: notes tell where they belong.
    fn eval_common(&mut self, node: &Node, id: CommonId, grid: Grid) -> Result<Output, QueryError> {
        let steps = self.tally.per_step.len();
        if let Some(kept) = &self.common[id.0 as usize].kept
            && kept.grid == grid
            && kept.tally.per_step.len() == steps
        {
            self.tally.merge(&kept.tally);
            let frame = kept.frame.copy(&self.guard)?;
            if let Some(profile) = &mut self.profile {
                profile.cost(node.id).repeated = true;
            }
            return Ok(Output::Rows(frame));
        }
        let notes = std::mem::take(&mut self.notes);
        let tally = std::mem::replace(&mut self.tally, Tally::sized(steps, steps > 0));
        let output = self.eval_kind(node, grid)?;
        let silent = self.notes.is_empty();
        let own_notes = std::mem::replace(&mut self.notes, notes);
        let own_tally = std::mem::replace(&mut self.tally, tally);
        self.notes.merge(own_notes);
        self.tally.merge(&own_tally);
        if let Output::Rows(frame) = &output
            && silent
        {
            let kept = Kept { grid, frame: frame.copy(&self.guard)?, tally: own_tally };
            self.common[id.0 as usize].kept = Some(kept);
        }
        Ok(output)
    }

    /// Does a node's work and accounts the time to it, less that of the nodes below.
    pub(crate) fn profiled<T>(&mut self, node: NodeId, work: impl FnOnce(&mut Self) -> T) -> T {
        if let Some(profile) = &mut self.profile {
            profile.open(node);
        }
        let done = work(self);
        if let Some(profile) = &mut self.profile {
            profile.close();
        }
        done
    }

    fn eval_kind(&mut self, node: &Node, grid: Grid) -> Result<Output, QueryError> {
        match &node.kind {
            Kind::Number(value) => Ok(Output::Scalar(vec![*value; grid.count])),
            Kind::Text(text) => Ok(Output::Text(text.clone())),
            Kind::Invariant(inner) => self.invariant(inner, grid),
            Kind::Negate(inner) if inner.value_type == tidewatch_parser::ValueType::Scalar => {
                let mut values = self.eval(inner, grid)?.into_scalar();
                values.iter_mut().for_each(|value| *value = -*value);
                Ok(Output::Scalar(values))
            }
            Kind::Call { id, args } => functions::call(self, node, *id, args, grid),
            Kind::Binary(plan) => binary::eval(self, node, plan, grid),
            Kind::Aggregate(plan) => aggregate::eval(self, plan, grid).map(Output::Rows),
            Kind::Window(plan) if functions::is_absent(plan) => {
                functions::absent_over_time(self, plan, node, grid).map(Output::Rows)
            }
            Kind::Select(_) | Kind::Window(_) | Kind::Negate(_) => {
                let stream = Stream::of_kind(self, node, grid)?;
                stream.collect(self).map(Output::Rows)
            }
            Kind::Matrix(_) => {
                Err(QueryError::Execution("a range vector is the result of an instant query only".to_owned()))
            }
        }
    }

    pub(crate) fn scalar(&mut self, node: &Node, grid: Grid) -> Result<Vec<f64>, QueryError> {
        Ok(self.eval(node, grid)?.into_scalar())
    }

    pub(crate) fn rows(&mut self, node: &Node, grid: Grid) -> Result<Frame, QueryError> {
        Ok(self.eval(node, grid)?.into_rows())
    }

    fn invariant(&mut self, inner: &Node, grid: Grid) -> Result<Output, QueryError> {
        let single = Tally::sized(1, !self.tally.per_step.is_empty());
        let outer = std::mem::replace(&mut self.tally, single);
        let output = self.eval(inner, Grid { count: 1, ..grid })?;
        let once = std::mem::replace(&mut self.tally, outer).total;
        (0..grid.count).for_each(|step| self.tally.add(step, once));
        if grid.is_instant() {
            return Ok(output);
        }
        Ok(match output {
            Output::Scalar(values) => Output::Scalar(vec![values[0]; grid.count]),
            Output::Text(text) => Output::Text(text),
            Output::Rows(frame) => Output::Rows(frame.broadcast(grid.count, &self.guard)?),
        })
    }

    /// Resolves a selector, once for all its uses.
    pub(crate) fn select(
        &mut self,
        matchers: &Arc<[Matcher]>,
        range: TimeRange,
    ) -> Result<Arc<dyn Selection>, QueryError> {
        let known = self.selections.iter().find(|known| {
            known.range == range && (Arc::ptr_eq(&known.matchers, matchers) || known.matchers == *matchers)
        });
        if let Some(known) = known {
            return Ok(Arc::clone(&known.selection));
        }
        self.guard.check()?;
        let (mut charges, mut refusal) = (Vec::new(), None);
        let mut room = |bytes| match self.guard.check().and_then(|()| self.guard.charge(bytes, 0)) {
            Ok(charge) => {
                // Nothing is asked where it is for the time alone.
                charges.extend((bytes > 0).then_some(charge));
                true
            }
            Err(error) => {
                refusal = Some(error);
                false
            }
        };
        let selection: Arc<dyn Selection> = match self.store.select_within(matchers, range, &mut room) {
            Ok(selection) => Arc::from(selection),
            Err(SelectError::NoRoom) if refusal.is_some() => return Err(refusal.expect("checked")),
            Err(error) => return Err(error.into()),
        };
        self.selections.push(Resolved {
            matchers: Arc::clone(matchers),
            range,
            selection: Arc::clone(&selection),
            _charges: charges,
        });
        Ok(selection)
    }

    /// A name after an operation that changes what a metric means.
    pub(crate) fn strip(&self, name: &Name, strip: Strip) -> Name {
        match strip {
            Strip::Keep => name.clone(),
            _ if self.options.delayed_name_removal => Name { labels: name.labels.clone(), drop: true },
            Strip::Metadata => Name { labels: without_metadata(&name.labels), drop: name.drop },
            Strip::MetricName => Name { labels: name.labels.without_metric_name(), drop: name.drop },
        }
    }

    /// Renames every row as `strip` says and makes rows of equal names one.
    pub(crate) fn strip_frame(&self, frame: Frame, strip: Strip) -> Result<Frame, QueryError> {
        if strip == Strip::Keep {
            return Ok(frame);
        }
        if self.options.delayed_name_removal {
            let mut frame = frame;
            frame.names.iter_mut().for_each(|name| name.drop = true);
            return Ok(frame);
        }
        frame.rename(&self.guard, |name| Ok(self.strip(name, strip)))
    }
}

/// Labels that say what a metric is, and no longer hold once something is computed from it.
pub(crate) fn is_metadata(name: &str) -> bool {
    matches!(name, METRIC_NAME | "__type__" | "__unit__")
}

pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    labels.without(is_metadata)
}

/// Whether the matchers allow one metric name only, so that labels without it are still distinct.
pub(crate) fn fixes_name(matchers: &[Matcher]) -> bool {
    matchers.iter().any(|m| m.op() == MatchOp::Equal && m.name() == METRIC_NAME && !m.value().is_empty())
}

impl Evaluator<'_> {
    /// Rows of a node; a scalar is one row without labels.
    pub(crate) fn rows_or_scalar(&mut self, node: &Node, grid: Grid) -> Result<Frame, QueryError> {
        match self.eval(node, grid)? {
            Output::Rows(frame) => Ok(frame),
            Output::Scalar(values) => {
                let mut row = crate::row::Row::default();
                row.reset(grid.count);
                values.iter().enumerate().for_each(|(step, value)| row.set(step, *value));
                let mut frame = Frame::new(grid.count);
                frame.push(Name::keep(Labels::empty()), row.as_ref(), &self.guard)?;
                Ok(frame)
            }
            Output::Text(_) => unreachable!("the parser has checked types"),
        }
    }
}
