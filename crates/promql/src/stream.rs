//! Rows that are made one at a time and handed on: from storage through window kernels and
//! element-wise maps to whoever folds or collects them.
//!
//! ```text
//! Selection ── scan ──► Samples ── kernel ──► Row ── maps ──► visit (fold, collect)
//! ```
//!
//! A stream is driven by workers, each on a range of series with memory of its own, so that the
//! memory of a query grows with what is kept and not with what is read.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewatch_env::Job;
use tidewatch_model::Labels;
use tidewatch_parser::{FunctionId, ValueType};
use tidewatch_storage::{Scratch, Selection, Statistics};

use crate::binary;
use crate::context::QueryError;
use crate::eval::{Evaluator, Tally, fixes_name};
use crate::frame::{Frame, Name, distinct_without_metadata};
use crate::functions::{self, RowMap};
use crate::grid::Grid;
use crate::guard::{Guard, Pace, Room};
use crate::instant::{InstantSource, Pick};
use crate::notes::Notes;
use crate::plan::{Kind, Node, NodeId, Selector};
use crate::profile::{Meter, Profile};
use crate::row::Row;
use crate::samples::{BoundsCache, Reading, Samples};
use crate::window::WindowSource;

/// Which labels an operation takes off its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strip {
    Keep,
    /// Name, type and unit.
    Metadata,
    MetricName,
}

/// Where rows come from.
pub(crate) enum Source {
    Instant(InstantSource),
    Window(WindowSource),
    Frame(Frame),
}

/// Rows to be made.
pub(crate) struct Stream {
    source: Source,
    /// Whose rows the source makes; a frame was made before.
    node: Option<NodeId>,
    maps: Vec<(NodeId, RowMap)>,
    strip: Strip,
    pub grid: Grid,
}

/// What one worker lends to the rows it makes.
pub(crate) struct Worker {
    pub scratch: Scratch,
    pub samples: Samples,
    pub bounds: BoundsCache,
    pub row: Row,
    pub notes: Notes,
    pub tally: Tally,
    pub pace: Pace,
    pub room: Room,
    pub guard: Guard,
    /// Present where the query is explained.
    pub meter: Option<Meter>,
}

impl Worker {
    /// A worker for rows that go through `maps` maps.
    pub(crate) fn new(evaluator: &Evaluator<'_>, maps: usize) -> Worker {
        let steps = evaluator.tally.per_step.len();
        Worker {
            scratch: Scratch::default(),
            samples: Samples::default(),
            bounds: BoundsCache::default(),
            row: Row::default(),
            notes: Notes::default(),
            tally: Tally::sized(steps, steps > 0),
            pace: Pace::default(),
            room: Room::default(),
            guard: evaluator.guard.clone(),
            meter: evaluator.profile.as_ref().map(|profile| Meter::new(profile.clock(), maps)),
        }
    }
}

/// Takes a row: its number in the stream, and the row to keep, change or leave.
pub(crate) type Visit<'v> = dyn FnMut(usize, &mut Row, &mut Notes) -> Result<(), QueryError> + 'v;

/// Rows for which starting another worker pays.
const ROWS_PER_WORKER: usize = 64;

impl Stream {
    /// The rows of a node; whatever is no stream by itself is evaluated to a frame first.
    pub(crate) fn of(evaluator: &mut Evaluator<'_>, node: &Node, grid: Grid) -> Result<Stream, QueryError> {
        if matches!(node.kind, Kind::Window(_)) && evaluator.shared(node, grid)?.is_some() {
            return Stream::evaluated(evaluator, node, grid);
        }
        evaluator.profiled(node.id, |evaluator| Stream::of_kind(evaluator, node, grid))
    }

    /// As [`Stream::of`], evaluated here whether the node stands elsewhere too or not.
    pub(crate) fn of_kind(
        evaluator: &mut Evaluator<'_>,
        node: &Node,
        grid: Grid,
    ) -> Result<Stream, QueryError> {
        match &node.kind {
            Kind::Select(selector) => Stream::of_selector(evaluator, selector, node, grid, Pick::Value),
            Kind::Window(plan) if !functions::is_absent(plan) => {
                let source = WindowSource::new(evaluator, plan, grid)?;
                let stream = Stream::of_window(source, node, grid);
                // These two act like an offset and keep the name.
                let keeps = matches!(plan.id, FunctionId::LastOverTime | FunctionId::FirstOverTime);
                if keeps { Ok(stream) } else { stream.strip_window(evaluator) }
            }
            Kind::Negate(inner) => {
                let stream = Stream::of(evaluator, inner, grid)?;
                stream.map_and_strip(evaluator, node, functions::negate(), Strip::Metadata)
            }
            Kind::Call { id, args } => match functions::row_map(evaluator, *id, args, grid)? {
                Some((map, strip)) => {
                    Stream::of(evaluator, &args[0], grid)?.map_and_strip(evaluator, node, map, strip)
                }
                None => Stream::evaluated(evaluator, node, grid),
            },
            Kind::Binary(plan) if plan.lhs.value_type != plan.rhs.value_type => {
                let (vector, scalar) = match plan.lhs.value_type {
                    ValueType::Scalar => (&plan.rhs, &plan.lhs),
                    _ => (&plan.lhs, &plan.rhs),
                };
                let scalar = evaluator.scalar(scalar, grid)?;
                let (map, strip) = binary::scalar_map(plan, node.pos, scalar);
                Stream::of(evaluator, vector, grid)?.map_and_strip(evaluator, node, map, strip)
            }
            _ => Stream::evaluated(evaluator, node, grid),
        }
    }

    /// What `pick` takes of an instant selector's samples.
    pub(crate) fn picked(
        evaluator: &mut Evaluator<'_>,
        selector: &Selector,
        node: &Node,
        grid: Grid,
        pick: Pick,
    ) -> Result<Stream, QueryError> {
        evaluator.profiled(node.id, |evaluator| Stream::of_selector(evaluator, selector, node, grid, pick))
    }

    pub(crate) fn of_selector(
        evaluator: &mut Evaluator<'_>,
        selector: &Selector,
        node: &Node,
        grid: Grid,
        pick: Pick,
    ) -> Result<Stream, QueryError> {
        let source = InstantSource::new(evaluator, selector, (node.pos, pick), grid)?;
        Ok(Stream { node: Some(node.id), ..Stream::new(Source::Instant(source), grid) })
    }

    pub(crate) fn of_window(source: WindowSource, node: &Node, grid: Grid) -> Stream {
        Stream { node: Some(node.id), ..Stream::new(Source::Window(source), grid) }
    }

    pub(crate) fn of_frame(frame: Frame, grid: Grid) -> Stream {
        Stream::new(Source::Frame(frame), grid)
    }

    fn evaluated(evaluator: &mut Evaluator<'_>, node: &Node, grid: Grid) -> Result<Stream, QueryError> {
        let frame = evaluator.rows(node, grid)?;
        Ok(Stream::new(Source::Frame(frame), grid))
    }

    fn new(source: Source, grid: Grid) -> Stream {
        Stream { source, node: None, maps: Vec::new(), strip: Strip::Keep, grid }
    }

    fn map(mut self, node: &Node, map: RowMap) -> Stream {
        self.maps.push((node.id, map));
        self
    }

    pub(crate) fn len(&self) -> usize {
        match &self.source {
            Source::Instant(source) => source.selection.len(),
            Source::Window(source) => source.len(),
            Source::Frame(frame) => frame.len(),
        }
    }

    /// The name of a row before anything is taken off it.
    fn base_name(&self, row: usize) -> Name {
        match &self.source {
            Source::Instant(source) => Name::keep(source.selection.labels(row).clone()),
            Source::Window(source) => source.name(row),
            Source::Frame(frame) => frame.names[row].clone(),
        }
    }

    /// Labels of a row, and whether metadata among them are gone and do not count.
    pub(crate) fn base_labels(&self, row: usize) -> &Labels {
        match &self.source {
            Source::Instant(source) => source.selection.labels(row),
            Source::Window(source) => source.labels(row),
            Source::Frame(frame) => &frame.names[row].labels,
        }
    }

    pub(crate) fn name(&self, evaluator: &Evaluator<'_>, row: usize) -> Name {
        evaluator.strip(&self.base_name(row), self.strip)
    }

    /// What has been taken off the names.
    pub(crate) fn stripped(&self) -> Strip {
        self.strip
    }

    /// Whether names stay distinct when metadata labels are taken off: as selectors fix the metric
    /// name, or else as the labels say.
    fn names_stay_distinct(&self, evaluator: &Evaluator<'_>) -> Result<bool, QueryError> {
        let fixed = match &self.source {
            Source::Instant(source) => fixes_name(&source.matchers),
            Source::Window(source) => source.fixes_name(),
            Source::Frame(frame) => frame.names.iter().all(|name| name.labels.metric_name().is_none()),
        };
        let typed = |labels: &Labels| labels.has("__type__") || labels.has("__unit__");
        if fixed && !(0..self.len()).any(|row| typed(self.base_labels(row))) {
            return Ok(true);
        }
        let _hashes = evaluator.guard.charge(8 * self.len() as u64, 0)?;
        Ok(distinct_without_metadata((0..self.len()).map(|row| self.base_labels(row))))
    }

    /// Maps rows and takes metadata labels off, in this order: what a map leaves nothing of has no
    /// labels that could be those of another row.
    fn map_and_strip(
        self,
        evaluator: &mut Evaluator<'_>,
        node: &Node,
        map: RowMap,
        strip: Strip,
    ) -> Result<Stream, QueryError> {
        self.map(node, map).strip(evaluator, strip)
    }

    /// Takes metadata labels off. Where that may make names equal, rows are made now and those
    /// with equal names become one, or an error.
    fn strip(mut self, evaluator: &mut Evaluator<'_>, strip: Strip) -> Result<Stream, QueryError> {
        if strip == Strip::Keep || self.strip == Strip::Metadata {
            return Ok(self);
        }
        if evaluator.options.delayed_name_removal || self.names_stay_distinct(evaluator)? {
            self.strip = strip;
            return Ok(self);
        }
        let grid = self.grid;
        let frame = self.collect(evaluator)?;
        let frame = evaluator.strip_frame(frame, strip)?;
        Ok(Stream::new(Source::Frame(frame), grid))
    }

    /// As [`Stream::strip`], for functions over windows: two rows of equal names are an error,
    /// whatever their steps.
    fn strip_window(mut self, evaluator: &mut Evaluator<'_>) -> Result<Stream, QueryError> {
        if evaluator.options.delayed_name_removal || self.names_stay_distinct(evaluator)? {
            self.strip = Strip::Metadata;
            return Ok(self);
        }
        let grid = self.grid;
        let mut frame = self.collect(evaluator)?;
        for name in &mut frame.names {
            *name = evaluator.strip(name, Strip::Metadata);
        }
        if frame.has_equal_labels() {
            return Err(crate::frame::same_labels_error());
        }
        Ok(Stream::new(Source::Frame(frame), grid))
    }

    /// Makes all rows that have a sample.
    pub(crate) fn collect(self, evaluator: &mut Evaluator<'_>) -> Result<Frame, QueryError> {
        if self.maps.is_empty()
            && self.strip == Strip::Keep
            && let Source::Frame(frame) = self.source
        {
            return Ok(frame);
        }
        let steps = self.grid.count;
        let guard = evaluator.guard.clone();
        let names = NameMaker { delayed: evaluator.options.delayed_name_removal };
        let parts = self.fold(
            evaluator,
            || Ok(Frame::new(steps)),
            |frame, i, row, _| {
                if row.is_empty() {
                    return Ok(());
                }
                frame.push(names.make(self.base_name(i), self.strip), row.as_ref(), &guard)
            },
        )?;
        let mut frame = Frame::new(steps);
        parts.into_iter().for_each(|part| frame.append(part));
        Ok(frame)
    }

    /// Makes rows in parallel: each worker folds a range of them into an accumulator of its own.
    /// Accumulators come back in the order of the rows.
    pub(crate) fn fold<A: Send>(
        &self,
        evaluator: &mut Evaluator<'_>,
        init: impl Fn() -> Result<A, QueryError> + Sync,
        visit: impl Fn(&mut A, usize, &mut Row, &mut Notes) -> Result<(), QueryError> + Sync,
    ) -> Result<Vec<A>, QueryError> {
        let ranges = split(self.len(), evaluator.parallel.width());
        let began = evaluator.profile.as_ref().map(|profile| (profile.now_ns(), self.read_so_far()));
        let mut workers: Vec<Worker> =
            ranges.iter().map(|_| Worker::new(evaluator, self.maps.len())).collect();
        let results: Vec<Mutex<Option<Result<A, QueryError>>>> =
            ranges.iter().map(|_| Mutex::new(None)).collect();
        let run = |range: Range<usize>, worker: &mut Worker| {
            let mut accumulator = init()?;
            self.make(range, worker, &mut |i, row, notes| visit(&mut accumulator, i, row, notes))?;
            Ok(accumulator)
        };
        if let [range] = &ranges[..] {
            *results[0].lock() = Some(run(range.clone(), &mut workers[0]));
        } else {
            let run = &run;
            let jobs = ranges.iter().zip(&mut workers).zip(&results).map(|((range, worker), result)| {
                Box::new(move || *result.lock() = Some(run(range.clone(), worker))) as Job<'_>
            });
            evaluator.parallel.run(jobs.collect());
        }
        let mut meters = Vec::new();
        for worker in workers {
            evaluator.notes.merge(worker.notes);
            evaluator.tally.merge(&worker.tally);
            meters.extend(worker.meter);
        }
        if let (Some(profile), Some((since_ns, read))) = (&mut evaluator.profile, began) {
            self.account(profile, since_ns, read, &meters);
        }
        results.into_iter().map(|result| result.into_inner().expect("every job has run")).collect()
    }

    /// The selection behind the rows, if any.
    fn selection(&self) -> Option<&Arc<dyn Selection>> {
        match &self.source {
            Source::Instant(source) => Some(&source.selection),
            Source::Window(source) => source.selection(),
            Source::Frame(_) => None,
        }
    }

    fn read_so_far(&self) -> Statistics {
        self.selection().map_or_else(Statistics::default, |selection| selection.statistics())
    }

    /// Gives each node its part of what making the rows has cost.
    fn account(&self, profile: &mut Profile, since_ns: u64, before: Statistics, meters: &[Meter]) {
        let maps: Vec<NodeId> = self.maps.iter().map(|(node, _)| *node).collect();
        profile.end_fold(since_ns, self.node, &maps, meters);
        if let (Some(node), Some(selection)) = (self.node, self.selection()) {
            let read = selection.statistics();
            let cost = profile.cost(node);
            cost.series = selection.len() as u64;
            cost.samples_read += read.samples - before.samples;
            cost.bytes_read += read.bytes - before.bytes;
        }
    }

    fn make(
        &self,
        range: Range<usize>,
        worker: &mut Worker,
        visit: &mut Visit<'_>,
    ) -> Result<(), QueryError> {
        let Some(mut meter) = worker.meter.take() else {
            return self.make_rows(range, worker, &mut |i, row, notes| {
                for (_, map) in &self.maps {
                    map(row, notes);
                }
                visit(i, row, notes)
            });
        };
        let made = self.make_rows(range, worker, &mut |i, row, notes| {
            meter.stage(0, row);
            for (stage, (_, map)) in self.maps.iter().enumerate() {
                map(row, notes);
                meter.stage(stage + 1, row);
            }
            let visited = visit(i, row, notes);
            meter.visited();
            visited
        });
        meter.end();
        worker.meter = Some(meter);
        made
    }

    fn make_rows(
        &self,
        range: Range<usize>,
        worker: &mut Worker,
        visit: &mut Visit<'_>,
    ) -> Result<(), QueryError> {
        match &self.source {
            Source::Instant(source) => source.make(range, worker, visit),
            Source::Window(source) => source.make(range, worker, visit),
            Source::Frame(frame) => {
                for i in range {
                    worker.pace.advance(&worker.guard, self.grid.count)?;
                    worker.row.copy_from(frame.row(i));
                    visit(i, &mut worker.row, &mut worker.notes)?;
                }
                Ok(())
            }
        }
    }
}

/// Names rows inside workers, which do not have the evaluator.
#[derive(Clone, Copy)]
struct NameMaker {
    delayed: bool,
}

impl NameMaker {
    fn make(self, mut name: Name, strip: Strip) -> Name {
        match strip {
            Strip::Keep => {}
            _ if self.delayed => name.drop = true,
            Strip::Metadata => name.labels = crate::eval::without_metadata(&name.labels),
            Strip::MetricName => name.labels = name.labels.without_metric_name(),
        }
        name
    }
}

/// Cuts `0..count` into at most `width` ranges that are worth a worker each.
fn split(count: usize, width: usize) -> Vec<Range<usize>> {
    let parts = width.min(count / ROWS_PER_WORKER).max(1);
    (0..parts).map(|part| count * part / parts..count * (part + 1) / parts).collect()
}

/// Visits the samples of each series of `range` that has any between the two times.
pub(crate) fn scan(
    selection: &Arc<dyn Selection>,
    range: Range<usize>,
    (start, end): (i64, i64),
    reading: Reading,
    worker: &mut Worker,
    visit: &mut dyn FnMut(usize, &mut Worker) -> Result<(), QueryError>,
) -> Result<(), QueryError> {
    use std::ops::ControlFlow::{Break, Continue};
    if start > end {
        return Ok(());
    }
    let mut scratch = std::mem::take(&mut worker.scratch);
    let mut current: Option<usize> = None;
    let mut failure = None;
    let time_range = tidewatch_storage::TimeRange { start, end };
    let scanned = selection.scan(range, time_range, &mut scratch, &mut |series, run| {
        if current != Some(series) {
            if let Some(done) = current.replace(series)
                && let Err(error) = visit(done, worker)
            {
                failure = Some(error);
                return Break(());
            }
            worker.samples.clear();
        }
        worker.samples.push(&run, reading);
        let bytes = worker.samples.bytes();
        let room = worker.room.grow_to(&worker.guard, bytes, bytes / 16);
        match room.and_then(|()| worker.pace.advance(&worker.guard, run.timestamps.len())) {
            Ok(()) => Continue(()),
            Err(error) => {
                failure = Some(error);
                Break(())
            }
        }
    });
    worker.scratch = scratch;
    if let Some(error) = failure {
        return Err(error);
    }
    scanned?;
    match current {
        Some(last) => visit(last, worker),
        None => Ok(()),
    }
}
