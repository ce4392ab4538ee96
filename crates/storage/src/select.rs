//! The way out.

use std::ops::{ControlFlow, Range};

use tidewatch_model::{FloatHistogram, Labels, Matcher};

/// Milliseconds since the epoch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    pub start: i64,
    pub end: i64,
}

/// Whether the caller has so many bytes more to give. Asked before they are taken, and often
/// enough that "no" may also mean that the caller has no more time.
pub type Room<'a> = dyn FnMut(u64) -> bool + 'a;

/// Answers selectors.
pub trait Select: Send + Sync {
    /// Resolves `matchers` (all must hold) to the series that may have samples in `range`.
    fn select(&self, matchers: &[Matcher], range: TimeRange) -> Result<Box<dyn Selection>, SelectError>;

    /// As [`Select::select`], within the caller's memory: asks `room` as the selection grows and
    /// ends with [`SelectError::NoRoom`] where that says no. A store whose series lie in memory
    /// anyway has nothing to ask.
    fn select_within(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _room: &mut Room<'_>,
    ) -> Result<Box<dyn Selection>, SelectError> {
        self.select(matchers, range)
    }

    /// As [`Select::select_within`], where the first series in the order of their labels are enough: fewer than
    /// `most` only where there are no more. Others may be left out.
    fn select_first(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        _most: usize,
        room: &mut Room<'_>,
    ) -> Result<Box<dyn Selection>, SelectError> {
        self.select_within(matchers, range, room)
    }

    /// Names of labels on series that satisfy `matchers`, sorted; the first `limit`. Asks `room` as
    /// the list grows, as [`Select::select_within`] does.
    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        room: &mut Room<'_>,
    ) -> Result<Vec<String>, SelectError>;

    /// Values of `name` on series that satisfy `matchers`, sorted; the first `limit`. Asks `room` as
    /// the list grows.
    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        room: &mut Room<'_>,
    ) -> Result<Vec<String>, SelectError>;
}

/// The series of one selector, resolved once, in the order of their labels.
///
/// Series are named by their index. Parallel workers share a selection and scan disjoint ranges,
/// each with a [`Scratch`] of its own.
pub trait Selection: Send + Sync {
    /// How many series there are.
    fn len(&self) -> usize;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn labels(&self, series: usize) -> &Labels;

    /// Visits the samples of `series` within `range`, series by series in order, each as one or
    /// more runs that ascend. Staleness markers are samples like others. The visitor may end
    /// the scan with `Break`.
    fn scan(
        &self,
        series: Range<usize>,
        range: TimeRange,
        scratch: &mut Scratch,
        visit: &mut dyn FnMut(usize, Run<'_>) -> ControlFlow<()>,
    ) -> Result<(), SelectError>;

    /// Gives for each series of the range its newest sample with `after < timestamp <= at`, in
    /// order, where there is one: what an instant selector needs, without decoding more than a tail.
    fn latest(
        &self,
        series: Range<usize>,
        after: i64,
        at: i64,
        scratch: &mut Scratch,
        visit: &mut dyn FnMut(usize, Latest),
    ) -> Result<(), SelectError>;

    /// What reading has cost so far.
    fn statistics(&self) -> Statistics {
        Statistics::default()
    }
}

/// Identity of a column of timestamps within one selection: runs with equal ids have equal
/// timestamps, so that window bounds computed for one hold for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClockId(pub u64);

/// A stretch of one series: equal-length columns, ascending in time.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// Present where the store knows that other runs share these timestamps.
    pub clock: Option<ClockId>,
    pub timestamps: &'a [i64],
    pub values: RunValues<'a>,
    /// When each sample's counter started, where the sender said so; 0 where it did not.
    pub starts: Option<&'a [i64]>,
}

/// The values of a run; a series that mixes kinds gives a run for each stretch of one kind.
#[derive(Debug, Clone, Copy)]
pub enum RunValues<'a> {
    Floats(&'a [f64]),
    Histograms(&'a [FloatHistogram]),
}

/// The newest sample of a series.
#[derive(Debug, Clone)]
pub enum Latest {
    Float { timestamp: i64, value: f64 },
    Histogram { timestamp: i64, value: Box<FloatHistogram> },
}

impl Latest {
    pub fn timestamp(&self) -> i64 {
        match self {
            Latest::Float { timestamp, .. } | Latest::Histogram { timestamp, .. } => *timestamp,
        }
    }
}

/// Memory that a worker lends to scans, so that they allocate nothing in the steady state.
#[derive(Debug, Default)]
pub struct Scratch {
    pub timestamps: Vec<i64>,
    pub values: Vec<f64>,
    pub starts: Vec<i64>,
    pub histograms: Vec<FloatHistogram>,
    pub bytes: Vec<u8>,
    /// Room for a second column while runs are merged.
    pub merged_timestamps: Vec<i64>,
    pub merged_values: Vec<f64>,
}

/// Costs of reading, for query statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    pub series: u64,
    pub samples: u64,
    pub bytes: u64,
}

/// Why a selector has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The store is still recovering: answer 503, try again.
    #[error("the store is recovering and not complete yet")]
    Recovering,
    /// The caller's [`Room`] said no; the caller knows why.
    #[error("there is no memory for what is selected")]
    NoRoom,
    /// Stored data can not be read; the text names what and where.
    #[error("stored data can not be read: {0}")]
    Damaged(String),
}
