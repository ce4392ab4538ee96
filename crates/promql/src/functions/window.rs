//! From a function over a range to its kernel: one pass over the windows of a series.
//!
//! Series of floats alone, which is nearly all of them, go to loops that are compiled for each
//! function. Series with histograms go window by window through [`View`].

use std::sync::Arc;

use tidewatch_model::FloatHistogram;
use tidewatch_parser::{FunctionId, PosRange, RangeModifier};

use super::over_time as over;
use super::{extended, rate, regression};
use crate::context::QueryError;
use crate::guard::Checks;
use crate::notes::Notes;
use crate::plan::Window;
use crate::row::Row;
use crate::samples::{Bound, Places};
use crate::window::Series;

/// A function over a range with its scalar arguments, a value of each for every step.
pub(crate) struct WindowCall {
    pub id: FunctionId,
    pub scalars: Vec<Vec<f64>>,
    pub first_pos: PosRange,
    pub modifier: Option<RangeModifier>,
    /// The length of the windows.
    pub range_ms: i64,
}

impl WindowCall {
    pub(crate) fn new(plan: &Window, scalars: Vec<Vec<f64>>) -> WindowCall {
        WindowCall {
            id: plan.id,
            scalars,
            first_pos: plan.first_pos,
            modifier: plan.matrix.modifier,
            range_ms: plan.matrix.range,
        }
    }

    /// Whether the kernel asks where a counter went down.
    pub(crate) fn needs_resets(&self) -> bool {
        self.modifier.is_none()
            && matches!(self.id, FunctionId::Rate | FunctionId::Increase | FunctionId::Resets)
    }
}

/// One window of a series.
pub(super) struct View<'a> {
    pub times: &'a [i64],
    pub values: &'a [f64],
    /// Empty where unknown or where start timestamps do not count.
    pub starts: &'a [i64],
    pub histogram_times: &'a [i64],
    pub histograms: &'a [Arc<FloatHistogram>],
    pub histogram_starts: &'a [i64],
    /// The window is `(start, end]`, wider for samples of modified selectors.
    pub start: i64,
    pub end: i64,
    /// The time of evaluation.
    pub now: i64,
}

/// What a window function gives.
pub(super) enum Reduced {
    Float(f64),
    Histogram(FloatHistogram),
    Shared(Arc<FloatHistogram>),
}

/// Computes a series' row.
pub(crate) fn apply_window(
    call: &WindowCall,
    series: &Series<'_>,
    (places, histograms): (&mut Places, &[Bound]),
    row: &mut Row,
    notes: &mut Notes,
    checks: &mut Checks<'_>,
) -> Result<(), QueryError> {
    let samples = series.samples;
    let started = series.starts && !samples.starts.is_empty();
    let plain = samples.histograms.is_empty() && call.modifier.is_none() && !started;
    if plain && apply_floats(call, series, places, row, notes, checks)? {
        return Ok(());
    }
    let floats = &places.bounds;
    for step in 0..floats.len() {
        let ((a, b), (c, d)) = (floats[step], histograms[step]);
        if a == b && c == d {
            continue;
        }
        let (f, h) = (a as usize..b as usize, c as usize..d as usize);
        checks.worked(f.len() + h.len())?;
        let starts: (&[i64], &[i64]) = if series.starts {
            (samples.starts.get(f.clone()).unwrap_or(&[]), &samples.histogram_starts[h.clone()])
        } else {
            (&[], &[])
        };
        let view = View {
            times: &samples.times[f.clone()],
            values: &samples.values[f],
            starts: starts.0,
            histogram_times: &samples.histogram_times[h.clone()],
            histograms: &samples.histograms[h],
            histogram_starts: starts.1,
            start: series.windows.start(step),
            end: series.windows.end(step),
            now: series.windows.grid.time(step),
        };
        match reduce(call, series, step, &view, notes)? {
            Some(Reduced::Float(value)) => row.set(step, value),
            Some(Reduced::Histogram(histogram)) => row.set_histogram(step, Arc::new(histogram)),
            Some(Reduced::Shared(histogram)) => row.set_histogram(step, histogram),
            None => {}
        }
    }
    Ok(())
}

/// Runs `kernel` on every window that has a float: times, values, step.
fn each(
    series: &Series<'_>,
    bounds: &[Bound],
    row: &mut Row,
    checks: &mut Checks<'_>,
    kernel: impl Fn(&[i64], &[f64], usize) -> Option<f64>,
) -> Result<(), QueryError> {
    let samples = series.samples;
    for (step, (low, high)) in bounds.iter().enumerate() {
        if low < high {
            let window = *low as usize..*high as usize;
            checks.worked(window.len())?;
            if let Some(value) = kernel(&samples.times[window.clone()], &samples.values[window], step) {
                row.set(step, value);
            }
        }
    }
    Ok(())
}

/// The loops for floats alone. Returns `false` for a function that has none.
fn apply_floats(
    call: &WindowCall,
    series: &Series<'_>,
    places: &mut Places,
    row: &mut Row,
    notes: &mut Notes,
    checks: &mut Checks<'_>,
) -> Result<bool, QueryError> {
    use FunctionId as F;
    let bounds = &places.bounds;
    match call.id {
        F::Rate | F::Increase | F::Delta => rate::floats(call, series, places, row),
        F::Irate => each(series, bounds, row, checks, |t, v, _| rate::last_two(t, v, true))?,
        F::Idelta => each(series, bounds, row, checks, |t, v, _| rate::last_two(t, v, false))?,
        F::Resets => resets(series, bounds, row),
        F::SumOverTime => {
            over::by_sum(&series.samples.values, bounds, row, checks, |sum, rest, _| sum + rest, over::sum)?;
        }
        F::AvgOverTime => {
            let mean = |sum, rest, count| sum / count + rest / count;
            over::by_sum(&series.samples.values, bounds, row, checks, mean, over::avg)?;
        }
        F::MinOverTime => over::sliding(&series.samples.values, bounds, row, |value, best| value <= best),
        F::MaxOverTime => over::sliding(&series.samples.values, bounds, row, |value, best| value >= best),
        F::CountOverTime => loop_of(series, bounds, row, checks, |values| values.len() as f64)?,
        F::LastOverTime => loop_of(series, bounds, row, checks, |values| values[values.len() - 1])?,
        F::FirstOverTime => loop_of(series, bounds, row, checks, |values| values[0])?,
        F::PresentOverTime => loop_of(series, bounds, row, checks, |_| 1.0)?,
        F::StddevOverTime => loop_of(series, bounds, row, checks, |values| over::variance(values).sqrt())?,
        F::StdvarOverTime => loop_of(series, bounds, row, checks, over::variance)?,
        F::Changes => loop_of(series, bounds, row, checks, over::changes)?,
        F::QuantileOverTime => quantiles(call, series, bounds, row, notes, checks)?,
        F::Deriv => each(series, bounds, row, checks, |t, v, _| regression::deriv(t, v))?,
        F::PredictLinear => each(series, bounds, row, checks, |t, v, step| {
            regression::predict(t, v, series.windows.grid.time(step), call.scalars[0][step])
        })?,
        _ => return apply_with_notes(call, series, bounds, row, notes, checks).map(|()| true),
    }
    Ok(true)
}

/// As [`each`] for kernels of values alone, compiled for each of them.
fn loop_of(
    series: &Series<'_>,
    bounds: &[Bound],
    row: &mut Row,
    checks: &mut Checks<'_>,
    kernel: impl Fn(&[f64]) -> f64,
) -> Result<(), QueryError> {
    each(series, bounds, row, checks, |_, values, _| Some(kernel(values)))
}

fn resets(series: &Series<'_>, bounds: &[Bound], row: &mut Row) {
    for (step, (low, high)) in bounds.iter().enumerate() {
        if low < high {
            row.set(step, f64::from(series.samples.resets_between(*low as usize, *high as usize - 1)));
        }
    }
}

fn quantiles(
    call: &WindowCall,
    series: &Series<'_>,
    bounds: &[Bound],
    row: &mut Row,
    notes: &mut Notes,
    checks: &mut Checks<'_>,
) -> Result<(), QueryError> {
    let mut sorted = Vec::new();
    over::sorted_windows(&series.samples.values, bounds, &mut sorted, |step, sorted| {
        let q = call.scalars[0][step];
        if !(0.0..=1.0).contains(&q) {
            notes.invalid_quantile(q, series.pos);
        }
        row.set(step, crate::quantile::of_sorted(q, sorted));
        checks.worked(sorted.len())
    })
}

/// Functions of floats that may have something to say or refuse their arguments.
fn apply_with_notes(
    call: &WindowCall,
    series: &Series<'_>,
    bounds: &[Bound],
    row: &mut Row,
    notes: &mut Notes,
    checks: &mut Checks<'_>,
) -> Result<(), QueryError> {
    let samples = series.samples;
    let mut sorted = Vec::new();
    for (step, (low, high)) in bounds.iter().enumerate().filter(|(_, (low, high))| low < high) {
        let window = *low as usize..*high as usize;
        checks.worked(window.len())?;
        let (times, values) = (&samples.times[window.clone()], &samples.values[window]);
        if let Some(value) = float_window(call, series.pos, step, times, values, &mut sorted, notes)? {
            row.set(step, value);
        }
    }
    Ok(())
}

/// One window of floats for the functions without a loop of their own.
fn float_window(
    call: &WindowCall,
    pos: PosRange,
    step: usize,
    times: &[i64],
    values: &[f64],
    sorted: &mut Vec<f64>,
    notes: &mut Notes,
) -> Result<Option<f64>, QueryError> {
    use FunctionId as F;
    let seconds = |i: usize| times[i] as f64 / 1000.0;
    Ok(match call.id {
        // Of a series that has histograms too.
        F::QuantileOverTime => {
            let q = call.scalars[0][step];
            if !(0.0..=1.0).contains(&q) {
                notes.invalid_quantile(q, pos);
            }
            sorted.clear();
            sorted.extend_from_slice(values);
            Some(crate::quantile::quantile(q, sorted))
        }
        F::MadOverTime => Some(over::median_deviation(values, sorted)),
        F::TsOfFirstOverTime => Some(seconds(0)),
        F::TsOfLastOverTime => Some(seconds(times.len() - 1)),
        F::TsOfMaxOverTime => Some(seconds(over::last_extreme(values, |value, best| value >= best))),
        F::TsOfMinOverTime => Some(seconds(over::last_extreme(values, |value, best| value <= best))),
        F::DoubleExponentialSmoothing => {
            regression::smoothing(values, call.scalars[0][step], call.scalars[1][step])?
        }
        _ => unreachable!("every function over a range has a kernel"),
    })
}

/// One window of any kind.
fn reduce(
    call: &WindowCall,
    series: &Series<'_>,
    step: usize,
    view: &View<'_>,
    notes: &mut Notes,
) -> Result<Option<Reduced>, QueryError> {
    use FunctionId as F;
    if call.modifier.is_some() {
        return Ok(extended::reduce(call, series, view, notes));
    }
    Ok(match call.id {
        F::Rate | F::Increase | F::Delta => rate::extrapolated(call, series, view, notes),
        F::Irate | F::Idelta => rate::instant(call.id == F::Irate, series, view, notes),
        F::SumOverTime | F::AvgOverTime => over::sum_or_avg(call.id == F::AvgOverTime, series, view, notes),
        F::CountOverTime => Some(Reduced::Float((view.times.len() + view.histograms.len()) as f64)),
        F::PresentOverTime => Some(Reduced::Float(1.0)),
        F::LastOverTime | F::FirstOverTime => over::edge(view, call.id == F::LastOverTime),
        F::TsOfFirstOverTime => {
            let first = view.times.first().into_iter().chain(view.histogram_times.first()).min();
            first.map(|time| Reduced::Float(*time as f64 / 1000.0))
        }
        F::TsOfLastOverTime => {
            let last = view.times.last().into_iter().chain(view.histogram_times.last()).max();
            last.map(|time| Reduced::Float(*time as f64 / 1000.0))
        }
        F::Changes | F::Resets => over::count_transitions(call.id == F::Resets, view).map(Reduced::Float),
        _ => floats_of_mixed(call, series, step, view, notes)?.map(Reduced::Float),
    })
}

/// Functions that see the floats alone and say so where there are histograms too.
fn floats_of_mixed(
    call: &WindowCall,
    series: &Series<'_>,
    step: usize,
    view: &View<'_>,
    notes: &mut Notes,
) -> Result<Option<f64>, QueryError> {
    use FunctionId as F;
    if view.values.is_empty() {
        return Ok(None);
    }
    if !view.histograms.is_empty() {
        notes.histograms_ignored_in_range(series.labels, series.pos);
    }
    let (times, values) = (view.times, view.values);
    Ok(match call.id {
        F::MinOverTime => Some(over::min(values)),
        F::MaxOverTime => Some(over::max(values)),
        F::StddevOverTime => Some(over::variance(values).sqrt()),
        F::StdvarOverTime => Some(over::variance(values)),
        F::Deriv => regression::deriv(times, values),
        F::PredictLinear => regression::predict(times, values, view.now, call.scalars[0][step]),
        _ => float_window(call, series.pos, step, times, values, &mut Vec::new(), notes)?,
    })
}
