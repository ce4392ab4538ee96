//! Times and values of one series from several places, merged.

use std::ops::Range;

use tidewatch_model::Sample;
use tidewatch_storage::{Run, RunValues, TimeRange};

/// Two columns of one length, ascending in time.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) times: Vec<i64>,
    pub(super) values: Vec<f64>,
}

impl Columns {
    pub(super) fn push(&mut self, run: &Run<'_>) {
        let RunValues::Floats(values) = run.values else { unreachable!("the series has floats only") };
        self.times.extend_from_slice(run.timestamps);
        self.values.extend_from_slice(values);
    }

    pub(super) fn within(mut self, range: TimeRange) -> Columns {
        let rows = rows_within(&self.times, range);
        self.times.truncate(rows.end);
        self.values.truncate(rows.end);
        self.times.drain(..rows.start);
        self.values.drain(..rows.start);
        self
    }

    /// Both in one; at equal times the sample of `self` stays.
    pub(super) fn merge(self, other: Columns) -> Columns {
        if self.times.is_empty() || other.times.is_empty() {
            return if self.times.is_empty() { other } else { self };
        }
        let room = self.times.len() + other.times.len();
        let mut merged = Columns { times: Vec::with_capacity(room), values: Vec::with_capacity(room) };
        let (mut a, mut b) = (0, 0);
        while a < self.times.len() || b < other.times.len() {
            let from_self = match (self.times.get(a), other.times.get(b)) {
                (Some(left), Some(right)) => {
                    b += usize::from(left == right);
                    left <= right
                }
                (left, _) => left.is_some(),
            };
            let (columns, at) = if from_self { (&self, &mut a) } else { (&other, &mut b) };
            merged.times.push(columns.times[*at]);
            merged.values.push(columns.values[*at]);
            *at += 1;
        }
        merged
    }
}

pub(super) fn rows_within(timestamps: &[i64], range: TimeRange) -> Range<usize> {
    let start = timestamps.partition_point(|t| *t < range.start);
    let end = timestamps.partition_point(|t| *t <= range.end);
    start..end.max(start)
}

pub(super) fn within(samples: &[Sample], range: TimeRange) -> &[Sample] {
    let start = samples.partition_point(|sample| sample.timestamp < range.start);
    let end = samples.partition_point(|sample| sample.timestamp <= range.end);
    &samples[start..end.max(start)]
}
