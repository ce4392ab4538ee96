//! A range selector or a subquery as a whole instant query: its samples, as they are.

use std::sync::Arc;

use tidewatch_model::{Labels, RangeSeries};
use tidewatch_parser::RangeModifier;

use crate::context::{Held, QueryError};
use crate::engine::series_bytes;
use crate::eval::{Evaluator, without_metadata};
use crate::frame::Name;
use crate::grid::Grid;
use crate::plan::{Matrix, NodeId};
use crate::stream::Worker;
use crate::window::{Input, single_bounds, windows};

pub(crate) fn eval(
    evaluator: &mut Evaluator<'_>,
    plan: &Matrix,
    node: NodeId,
    grid: Grid,
) -> Result<(Vec<RangeSeries>, Held), QueryError> {
    let windows = windows(evaluator, plan, grid);
    let input = Input::new(evaluator, plan, &windows)?;
    let mut worker = Worker::new(evaluator, 0);
    let mut result: Vec<RangeSeries> = Vec::new();
    let mut charges = Vec::new();
    let guard = evaluator.guard.clone();
    input.samples(0..input.len(), windows.hull(), &mut worker, &mut |series, worker| {
        let samples = &worker.samples;
        let (floats, histograms) = single_bounds(&windows, samples);
        let (floats, histograms) =
            (floats.0 as usize..floats.1 as usize, histograms.0 as usize..histograms.1 as usize);
        let count = (floats.len() + histograms.len()) as u64;
        charges.push(guard.charge(series_bytes(input.labels(series)) + count * 16, count)?);
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
    if let Some(profile) = &mut evaluator.profile {
        let cost = profile.cost(node);
        (cost.series, cost.rows) = (input.len() as u64, result.len() as u64);
        cost.points = worker.tally.total;
        let read = input.selection().map(|selection| selection.statistics()).unwrap_or_default();
        (cost.samples_read, cost.bytes_read) = (read.samples, read.bytes);
    }
    result.sort_by(|a, b| a.labels.cmp(&b.labels));
    if result.windows(2).any(|pair| pair[0].labels == pair[1].labels) {
        return Err(crate::frame::same_labels_error());
    }
    Ok((result, Held::new(charges)))
}

/// A name that was marked to be dropped is dropped now.
fn final_labels(name: Name) -> Labels {
    if name.drop { without_metadata(&name.labels) } else { name.labels }
}

/// Gives a modified range a sample at each of its edges: the anchored one the sample before its
/// start and its last sample, the smoothed one values on the lines that cross the edges.
fn extend(series: &mut RangeSeries, modifier: RangeModifier, start: i64, end: i64) {
    let floats = std::mem::take(&mut series.floats);
    let Some(mut last) = floats.len().checked_sub(1) else { return };
    let smoothed = modifier == RangeModifier::Smoothed;
    let first = floats[..last].partition_point(|(time, _)| *time <= start).saturating_sub(1);
    if smoothed {
        last = floats[..last].partition_point(|(time, _)| *time < end);
    }
    if floats[last].0 <= start {
        return;
    }
    let line = |a: usize, b: usize, at: i64| {
        let ((t1, v1), (t2, v2)) = (floats[a], floats[b]);
        v1 + (v2 - v1) * (at - t1) as f64 / (t2 - t1) as f64
    };
    let cuts_left = smoothed && floats[first].0 < start;
    let left = if cuts_left { line(first, first + 1, start) } else { floats[first].1 };
    let cuts_right = smoothed && last > 0 && floats[last].0 > end;
    let right = if cuts_right { line(last - 1, last, end) } else { floats[last].1 };
    let inside = floats.get(first + 1..last).unwrap_or(&[]).iter().copied();
    series.floats = std::iter::once((start, left)).chain(inside).chain([(end, right)]).collect();
}
