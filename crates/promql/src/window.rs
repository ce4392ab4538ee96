//! Functions over ranges: `rate(x[5m])`, `max_over_time(x[1h:1m])` and all their kin.

use std::ops::Range;
use std::sync::Arc;

use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{FloatHistogram, Labels, Matcher};
use tidewatch_parser::{FunctionId, PosRange, RangeModifier};
use tidewatch_storage::{Selection, TimeRange};

use crate::context::QueryError;
use crate::engine::step_bytes;
use crate::eval::{Evaluator, Tally, fixes_name};
use crate::frame::{Frame, Name};
use crate::functions::{self, WindowCall};
use crate::grid::Grid;
use crate::guard::Checks;
use crate::notes::Notes;
use crate::plan::{Matrix, MatrixSource, Window};
use crate::row::{Cell, Row, histogram_samples};
use crate::samples::{Bound, BoundsCache, Places, Reading, Samples, Windows};
use crate::stream::{Visit, Worker, scan};

/// Rows of a function over a range.
pub(crate) struct WindowSource {
    input: Input,
    windows: Windows,
    call: WindowCall,
    /// `rate` and `increase` tell the reader when a metric's name is not a counter's.
    counter_check: CounterCheck,
    start_timestamps: bool,
}

/// The series whose samples the windows hold.
pub(crate) enum Input {
    Selection {
        selection: Arc<dyn Selection>,
        matchers: Arc<[Matcher]>,
        counts_only: bool,
    },
    /// A subquery's rows, which have a sample at each of the inner times.
    Rows {
        frame: Frame,
        inner: Grid,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CounterCheck {
    Off,
    ByName,
    ByType,
}

/// What a window function sees of one series: its samples and where it stands.
pub(crate) struct Series<'a> {
    pub samples: &'a Samples,
    pub labels: &'a Labels,
    pub windows: &'a Windows,
    pub pos: PosRange,
    /// Whether start timestamps count.
    pub starts: bool,
}

impl WindowSource {
    pub(crate) fn new(
        evaluator: &mut Evaluator<'_>,
        plan: &Window,
        grid: Grid,
    ) -> Result<WindowSource, QueryError> {
        let scalars =
            plan.scalars.iter().map(|node| evaluator.scalar(node, grid)).collect::<Result<Vec<_>, _>>()?;
        let windows = windows(evaluator, &plan.matrix, grid);
        let input = Input::new(evaluator, &plan.matrix, &windows)?;
        let call = WindowCall::new(plan, scalars);
        let counter_check = match plan.id {
            FunctionId::Rate | FunctionId::Increase if evaluator.options.type_and_unit_labels => {
                CounterCheck::ByType
            }
            FunctionId::Rate | FunctionId::Increase => CounterCheck::ByName,
            _ => CounterCheck::Off,
        };
        let start_timestamps = evaluator.options.start_timestamps;
        Ok(WindowSource { input, windows, call, counter_check, start_timestamps })
    }

    pub(crate) fn len(&self) -> usize {
        self.input.len()
    }

    pub(crate) fn selection(&self) -> Option<&Arc<dyn Selection>> {
        self.input.selection()
    }

    pub(crate) fn name(&self, row: usize) -> Name {
        self.input.name(row)
    }

    pub(crate) fn labels(&self, row: usize) -> &Labels {
        self.input.labels(row)
    }

    pub(crate) fn fixes_name(&self) -> bool {
        matches!(&self.input, Input::Selection { matchers, .. } if fixes_name(matchers))
    }

    pub(crate) fn make(
        &self,
        range: Range<usize>,
        worker: &mut Worker,
        visit: &mut Visit<'_>,
    ) -> Result<(), QueryError> {
        let hull = self.windows.hull();
        self.input.samples(range, hull, worker, &mut |series, worker| {
            let mut row = std::mem::take(&mut worker.row);
            row.reset(self.windows.grid.count);
            self.apply(series, worker, &mut row)?;
            let visited = visit(series, &mut row, &mut worker.notes);
            worker.row = row;
            visited
        })
    }

    fn apply(&self, series: usize, worker: &mut Worker, row: &mut Row) -> Result<(), QueryError> {
        let Worker { samples, bounds, notes, tally, pace, guard, .. } = worker;
        if self.call.needs_resets() {
            samples.count_resets();
        }
        let labels = self.labels(series);
        let view = Series {
            samples,
            labels,
            windows: &self.windows,
            pos: self.call.first_pos,
            starts: self.start_timestamps,
        };
        let (places, histograms) = bounds.places(&self.windows, samples);
        count(tally, samples, places, histograms);
        let mut checks = Checks { pace, guard };
        functions::apply_window(&self.call, &view, (places, histograms), row, notes, &mut checks)?;
        self.check_counter(labels, row, notes);
        Ok(())
    }

    fn check_counter(&self, labels: &Labels, row: &Row, notes: &mut Notes) {
        if self.counter_check == CounterCheck::Off {
            return;
        }
        let Some(name) = labels.metric_name() else { return };
        let suffixes = ["_total", "_sum", "_count", "_bucket"];
        let by_name = self.counter_check == CounterCheck::ByName;
        let kind = labels.get("__type__").unwrap_or_default();
        let counts = match by_name {
            true => suffixes.iter().any(|suffix| name.ends_with(suffix)),
            false => matches!(kind, "counter" | "histogram"),
        };
        let has_float = || {
            crate::row::set_steps(&row.present).any(|step| !matches!(row.histograms.get(step), Some(Some(_))))
        };
        if counts || !has_float() {
            return;
        }
        match by_name {
            true => notes.possible_non_counter(name, self.call.first_pos),
            false => notes.possible_non_counter_type(name, kind, self.call.first_pos),
        }
    }
}

/// The windows of a matrix at each step of `grid`.
pub(crate) fn windows(evaluator: &Evaluator<'_>, matrix: &Matrix, grid: Grid) -> Windows {
    let lookback = evaluator.lookback;
    let (before, after) = match matrix.modifier {
        None => (0, 0),
        Some(RangeModifier::Anchored) => (lookback, 0),
        Some(RangeModifier::Smoothed) => (lookback, lookback),
    };
    Windows { grid, shift: matrix.shift, length: matrix.range, before, after }
}

impl Input {
    pub(crate) fn new(
        evaluator: &mut Evaluator<'_>,
        matrix: &Matrix,
        windows: &Windows,
    ) -> Result<Input, QueryError> {
        match &matrix.source {
            MatrixSource::Selector(matchers) => {
                let (start, end) = windows.hull();
                let selection = evaluator.select(matchers, TimeRange { start, end })?;
                Ok(Input::Selection {
                    selection,
                    matchers: Arc::clone(matchers),
                    counts_only: matrix.counts_only,
                })
            }
            MatrixSource::Subquery { node, step } => {
                let inner = inner_grid(windows, *step);
                // Rows are as long as the grid: refused before the first is made.
                let bytes = inner.count as u64 * step_bytes(evaluator.parallel);
                let _room = evaluator.guard.charge(bytes, inner.count as u64)?;
                // The samples below count once more when the window looks at them; Prometheus
                // counts the latter only.
                let tally = std::mem::take(&mut evaluator.tally);
                let frame = evaluator.rows_or_scalar(node, inner)?;
                evaluator.tally = tally;
                Ok(Input::Rows { frame, inner })
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Input::Selection { selection, .. } => selection.len(),
            Input::Rows { frame, .. } => frame.len(),
        }
    }

    pub(crate) fn selection(&self) -> Option<&Arc<dyn Selection>> {
        match self {
            Input::Selection { selection, .. } => Some(selection),
            Input::Rows { .. } => None,
        }
    }

    /// The name of a series.
    pub(crate) fn name(&self, series: usize) -> Name {
        match self {
            Input::Selection { selection, .. } => Name::keep(selection.labels(series).clone()),
            Input::Rows { frame, .. } => frame.names[series].clone(),
        }
    }

    pub(crate) fn labels(&self, series: usize) -> &Labels {
        match self {
            Input::Selection { selection, .. } => selection.labels(series),
            Input::Rows { frame, .. } => &frame.names[series].labels,
        }
    }

    /// Gathers the samples of each series between the times of `hull`.
    pub(crate) fn samples(
        &self,
        range: Range<usize>,
        hull: (i64, i64),
        worker: &mut Worker,
        visit: &mut dyn FnMut(usize, &mut Worker) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let (frame, inner) = match self {
            Input::Selection { selection, counts_only, .. } => {
                let reading = Reading { markers: false, counts_only: *counts_only };
                return scan(selection, range, hull, reading, worker, visit);
            }
            Input::Rows { frame, inner } => (frame, inner),
        };
        // Times, values, resets.
        worker.room.grow_to(&worker.guard, inner.count as u64 * 20, inner.count as u64)?;
        for series in range {
            worker.samples.clear();
            let row = frame.row(series);
            let mut floats = 0;
            for step in crate::row::set_steps(row.present) {
                match row.get(step).expect("the bit is set") {
                    Cell::Float(value) => {
                        worker.samples.push_float(inner.time(step), value);
                        floats += 1;
                    }
                    Cell::Histogram(histogram) => {
                        worker.samples.push_histogram(inner.time(step), unhinted(histogram));
                    }
                }
            }
            // Rows without gaps share the inner grid as their clock.
            worker.samples.set_clock((floats == inner.count).then_some(u64::MAX));
            worker.pace.advance(&worker.guard, floats)?;
            if worker.samples.len() > 0 {
                visit(series, worker)?;
            }
        }
        Ok(())
    }
}

/// The times at which a subquery's inside is evaluated: multiples of its step within the windows.
fn inner_grid(windows: &Windows, step: i64) -> Grid {
    let last = windows.grid.count.saturating_sub(1);
    let (a, b) = (windows.start(0), windows.end(last));
    let mut start = step * (a / step);
    if start <= a {
        start = start.saturating_add(step);
    }
    Grid::new(start, b, step)
}

/// A subquery may skip or repeat samples, so what a hint says of a predecessor does not hold.
fn unhinted(histogram: &Arc<FloatHistogram>) -> Arc<FloatHistogram> {
    match histogram.hint {
        CounterResetHint::Reset | CounterResetHint::NotReset => {
            Arc::new(FloatHistogram { hint: CounterResetHint::Unknown, ..FloatHistogram::clone(histogram) })
        }
        CounterResetHint::Unknown | CounterResetHint::Gauge => Arc::clone(histogram),
    }
}

/// Counts the samples of all windows for the statistics.
fn count(tally: &mut Tally, samples: &Samples, floats: &Places, histograms: &[Bound]) {
    if tally.per_step.is_empty() {
        tally.total += floats.samples;
    } else {
        for (step, (low, high)) in floats.bounds.iter().enumerate() {
            tally.add(step, u64::from(high - low));
        }
    }
    if samples.histograms.is_empty() {
        return;
    }
    for (step, (low, high)) in histograms.iter().enumerate() {
        let window = &samples.histograms[*low as usize..*high as usize];
        tally.add(step, window.iter().map(|h| histogram_samples(h)).sum());
    }
}

/// The bounds of a single window, for a matrix that is the whole query.
pub(crate) fn single_bounds(windows: &Windows, samples: &Samples) -> (Bound, Bound) {
    let mut cache = BoundsCache::default();
    let (floats, histograms) = cache.places(windows, samples);
    (floats.bounds[0], histograms[0])
}
