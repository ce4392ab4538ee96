//! A range selector or a subquery as a whole instant query: its samples, as they are.

use std::sync::Arc;

use tidewatch_model::{Labels, RangeSeries};
use tidewatch_parser::RangeModifier;

use crate::context::QueryError;
use crate::eval::{Evaluator, without_metadata};
use crate::frame::Name;
use crate::grid::Grid;
use crate::plan::Matrix;
use crate::stream::Worker;
use crate::window::{Input, single_bounds, windows};

pub(crate) fn eval(
    evaluator: &mut Evaluator<'_>,
    plan: &Matrix,
    grid: Grid,
) -> Result<Vec<RangeSeries>, QueryError> {
    let windows = windows(evaluator, plan, grid);
    let input = Input::new(evaluator, plan, &windows)?;
    let mut worker = Worker::new(evaluator);
    let mut result: Vec<RangeSeries> = Vec::new();
    let mut charges = Vec::new();
    let guard = evaluator.guard.clone();
    input.samples(0..input.len(), windows.hull(), &mut worker, &mut |series, worker| {
        let samples = &worker.samples;
        let (floats, histograms) = single_bounds(&windows, samples);
        let (floats, histograms) =
            (floats.0 as usize..floats.1 as usize, histograms.0 as usize..histograms.1 as usize);
        let count = (floats.len() + histograms.len()) as u64;
        charges.push(guard.charge(count * 16, count)?);
        worker.tally.add(0, count);
        let mut found = RangeSeries {
            labels: final_labels(input.name(series)),
            floats: samples.times[floats.clone()]
                .iter()
                .copied()
                .zip(samples.values[floats].iter().copied())
                .collect(),
            histograms: samples.histogram_times[histograms.clone()]
                .iter()
                .copied()
                .zip(samples.histograms[histograms].iter().map(Arc::clone))
                .collect(),
        };
        if let Some(modifier) = plan.modifier {
            extend(&mut found, modifier, windows.start(0), windows.end(0));
        }
        if !found.floats.is_empty() || !found.histograms.is_empty() {
            result.push(found);
        }
        Ok(())
    })?;
    evaluator.tally.merge(&worker.tally);
    result.sort_by(|a, b| a.labels.cmp(&b.labels));
    if result.windows(2).any(|pair| pair[0].labels == pair[1].labels) {
        return Err(crate::frame::same_labels_error());
    }
    Ok(result)
}

/// A name that was marked to be dropped is dropped now.
fn final_labels(name: Name) -> Labels {
    if name.drop { without_metadata(&name.labels) } else { name.labels }
}

/// Gives a modified range a sample at each of its edges: the anchored one the sample before its
/// start and its last sample, the smoothed one values on the lines that cross the edges.
fn extend(series: &mut RangeSeries, modifier: RangeModifier, start: i64, end: i64) {
    let floats = &series.floats;
    if floats.last().is_none_or(|(time, _)| *time <= start) && modifier == RangeModifier::Anchored {
        series.floats.clear();
        return;
    }
    let line = |(t1, v1): (i64, f64), (t2, v2): (i64, f64), at: i64| {
        v1 + (v2 - v1) * (at - t1) as f64 / (t2 - t1) as f64
    };
    let smoothed = modifier == RangeModifier::Smoothed;
    let first = floats.partition_point(|(time, _)| *time <= start);
    let until = floats.partition_point(|(time, _)| *time < end);
    let left = match (first.checked_sub(1), floats.get(first)) {
        (Some(before), Some(after)) if smoothed => line(floats[before], *after, start),
        (Some(before), _) => floats[before].1,
        (None, Some(after)) => after.1,
        (None, None) => return,
    };
    let right = match (until.checked_sub(1), floats.get(until)) {
        (_, Some((time, value))) if *time == end => *value,
        (Some(before), Some(after)) if smoothed => line(floats[before], *after, end),
        (Some(before), _) => floats[before].1,
        (None, Some(after)) => after.1,
        (None, None) => return,
    };
    let inside = floats.get(first..until).unwrap_or(&[]).iter().copied();
    series.floats = std::iter::once((start, left)).chain(inside).chain([(end, right)]).collect();
}
