//! The plainest store: every series a list of columns in memory.
//!
//! It is the reference that other stores are compared with, what scripts and rule tests load
//! their data into, and where tests of the engine put runs that are cut and clocked as they want
//! them. Histograms that are pushed come back with the counter reset hints that a Prometheus store
//! gives: what is known of a sample is whether it continues the one before it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, RwLock};

use tidewatch_model::histogram::CounterResetHint;
use tidewatch_model::{Batch, FloatHistogram, Labels, LabelsBuilder, Matcher};
use tidewatch_storage::{
    Append, AppendError, AppendOutcome, ClockId, Latest, Refusal, Room, Run, RunValues, Scratch, Select,
    SelectError, Selection, Statistics, TimeRange,
};

/// A store in memory without limits. Samples of a series must ascend in time.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// Guards all series; a selection keeps those that it resolved.
    series: RwLock<BTreeMap<Labels, Arc<Series>>>,
}

/// A sample's value on its way in.
#[derive(Debug, Clone, PartialEq)]
pub enum SampleData {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

#[derive(Debug, Clone, Default)]
struct Series {
    /// Ascending in time; each of one kind.
    stretches: Vec<Stretch>,
}

/// Samples of one kind: columns of equal length, ascending in time. Where no counter's start is known there are no
/// starts.
#[derive(Debug, Clone)]
struct Stretch {
    /// As a run came with it; samples that are pushed have none.
    clock: Option<ClockId>,
    timestamps: Vec<i64>,
    starts: Vec<i64>,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    Floats(Vec<f64>),
    Histograms(Vec<FloatHistogram>),
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Appends one sample. `start` is when the counter started, 0 where that is not known.
    pub fn push(&self, labels: &Labels, timestamp: i64, start: i64, data: SampleData) -> Result<(), Refusal> {
        let mut all = self.series.write().expect("no writer panics");
        let series = match all.get_mut(labels) {
            Some(series) => series,
            None => all.entry(labels.clone()).or_default(),
        };
        Arc::make_mut(series).push(timestamp, start, data)
    }

    /// Appends a run, which selections give back as a run of its own, whatever stands before it.
    ///
    /// # Panics
    /// If it has no samples, or they do not ascend and follow those that the series has.
    pub fn push_run(&self, labels: &Labels, run: &Run<'_>) {
        let mut all = self.series.write().expect("no writer panics");
        let stretches = &mut Arc::make_mut(all.entry(labels.clone()).or_default()).stretches;
        let before = stretches.last().and_then(|stretch| stretch.timestamps.last());
        let ascends = run.timestamps.is_sorted_by(|a, b| a < b) && before < run.timestamps.first();
        assert!(ascends, "the samples of {labels} ascend");
        stretches.push(Stretch {
            clock: run.clock,
            timestamps: run.timestamps.to_vec(),
            starts: run.starts.unwrap_or_default().to_vec(),
            values: match run.values {
                RunValues::Floats(values) => Values::Floats(values.to_vec()),
                RunValues::Histograms(values) => Values::Histograms(values.to_vec()),
            },
        });
    }

    pub fn sample_count(&self) -> usize {
        let all = self.series.read().expect("no writer panics");
        all.values().flat_map(|series| &series.stretches).map(|stretch| stretch.timestamps.len()).sum()
    }

    /// Drops everything.
    pub fn clear(&self) {
        self.series.write().expect("no writer panics").clear();
    }

    /// Series that satisfy all matchers and have a sample in the range.
    fn matching(&self, matchers: &[Matcher], range: TimeRange) -> Vec<(Labels, Arc<Series>)> {
        let all = self.series.read().expect("no writer panics");
        all.iter()
            .filter(|(labels, _)| {
                matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
            })
            .filter(|(_, series)| series.stretches.iter().any(|stretch| !stretch.within(range).is_empty()))
            .map(|(labels, series)| (labels.clone(), Arc::clone(series)))
            .collect()
    }
}

impl Series {
    fn push(&mut self, timestamp: i64, start: i64, data: SampleData) -> Result<(), Refusal> {
        if let Some(last) = self.stretches.last() {
            let newest = *last.timestamps.last().expect("a stretch has samples");
            if timestamp == newest && last.ends_with(&data) {
                return Ok(());
            }
            if timestamp <= newest {
                return Err(if timestamp == newest { Refusal::Conflict } else { Refusal::TooOld });
            }
        }
        let fits = self.stretches.last().is_some_and(|last| {
            let is_alike = matches!(
                (&last.values, &data),
                (Values::Floats(_), SampleData::Float(_)) | (Values::Histograms(_), SampleData::Histogram(_))
            );
            // A clock says which rows there are.
            is_alike && last.clock.is_none()
        });
        if !fits {
            let values = match data {
                SampleData::Float(_) => Values::Floats(Vec::new()),
                SampleData::Histogram(_) => Values::Histograms(Vec::new()),
            };
            let (timestamps, starts) = (Vec::new(), Vec::new());
            self.stretches.push(Stretch { clock: None, timestamps, starts, values });
        }
        let last = self.stretches.last_mut().expect("pushed above");
        if start != 0 || !last.starts.is_empty() {
            last.starts.resize(last.timestamps.len(), 0);
            last.starts.push(start);
        }
        last.timestamps.push(timestamp);
        match (&mut last.values, data) {
            (Values::Floats(floats), SampleData::Float(value)) => floats.push(value),
            (Values::Histograms(histograms), SampleData::Histogram(histogram)) => {
                let histogram = with_stored_hint(&histogram, histograms.last());
                histograms.push(histogram);
            }
            _ => unreachable!("a new stretch was begun for another kind"),
        }
        Ok(())
    }
}

/// A histogram as a store gives it back: a gauge stays one; else it is known not to be a reset
/// where it continues the histogram before it, and nothing is known where it does not.
fn with_stored_hint(histogram: &FloatHistogram, previous: Option<&FloatHistogram>) -> FloatHistogram {
    let mut stored = histogram.clone();
    if histogram.hint == CounterResetHint::Gauge {
        return stored;
    }
    stored.hint = CounterResetHint::Unknown;
    let continues = previous.is_some_and(|previous| {
        histogram.hint != CounterResetHint::Reset
            && previous.hint != CounterResetHint::Gauge
            && !previous.is_stale()
            && (stored.is_stale()
                || (stored.schema == previous.schema
                    && stored.zero_threshold == previous.zero_threshold
                    && stored.custom_bounds() == previous.custom_bounds()
                    && !stored.detect_reset(previous)))
    });
    if continues {
        stored.hint = CounterResetHint::NotReset;
    }
    stored
}

impl Stretch {
    /// Indexes of the samples in a range.
    fn within(&self, range: TimeRange) -> Range<usize> {
        let start = self.timestamps.partition_point(|t| *t < range.start);
        let end = self.timestamps.partition_point(|t| *t <= range.end);
        start..end.max(start)
    }

    fn run(&self, at: Range<usize>) -> Run<'_> {
        let is_whole = at.len() == self.timestamps.len();
        Run {
            // A clock that is cut by the range is another one.
            clock: self.clock.filter(|_| is_whole),
            timestamps: &self.timestamps[at.clone()],
            starts: self.starts.get(at.clone()).filter(|starts| starts.iter().any(|start| *start != 0)),
            values: match &self.values {
                Values::Floats(floats) => RunValues::Floats(&floats[at]),
                Values::Histograms(histograms) => RunValues::Histograms(&histograms[at]),
            },
        }
    }

    fn latest(&self, index: usize) -> Latest {
        let timestamp = self.timestamps[index];
        match &self.values {
            Values::Floats(floats) => Latest::Float { timestamp, value: floats[index] },
            Values::Histograms(histograms) => {
                Latest::Histogram { timestamp, value: Box::new(histograms[index].clone()) }
            }
        }
    }

    /// Whether the last sample is `data`, to the bit.
    fn ends_with(&self, data: &SampleData) -> bool {
        match (&self.values, data) {
            (Values::Floats(floats), SampleData::Float(value)) => {
                floats.last().is_some_and(|last| last.to_bits() == value.to_bits())
            }
            (Values::Histograms(histograms), SampleData::Histogram(histogram)) => {
                histograms.last().is_some_and(|last| last.same_data(histogram))
            }
            _ => false,
        }
    }
}

impl Append for MemoryStore {
    fn append(&self, batch: &Batch<'_>) -> Result<AppendOutcome, AppendError> {
        let mut outcome = AppendOutcome::default();
        for series in &batch.series {
            let mut labels = LabelsBuilder::new();
            let valid = series.labels.pairs().all(|pair| {
                let Some((Ok(name), Ok(value))) =
                    pair.map(|(name, value)| (std::str::from_utf8(name), std::str::from_utf8(value)))
                else {
                    return false;
                };
                labels.set(name, value);
                true
            });
            let range = |range: &Range<u32>| range.start as usize..range.end as usize;
            let floats = range(&series.samples).map(|at| {
                let sample = batch.samples[at];
                (sample.timestamp, batch.start_of(at), SampleData::Float(sample.value))
            });
            let histograms = batch.histograms[range(&series.histograms)]
                .iter()
                .map(|h| (h.timestamp, h.start, SampleData::Histogram(Arc::new(h.value.to_float()))));
            let labels = labels.build();
            for (timestamp, start, data) in floats.chain(histograms) {
                let is_histogram = matches!(data, SampleData::Histogram(_));
                let pushed = if valid {
                    self.push(&labels, timestamp, start, data)
                } else {
                    Err(Refusal::InvalidLabels)
                };
                match pushed {
                    Ok(()) if is_histogram => outcome.accepted_histograms += 1,
                    Ok(()) => outcome.accepted += 1,
                    Err(refusal) => count_refusal(&mut outcome, refusal, &labels, timestamp),
                }
            }
        }
        Ok(outcome)
    }
}

fn count_refusal(outcome: &mut AppendOutcome, refusal: Refusal, labels: &Labels, timestamp: i64) {
    match outcome.refused.iter_mut().find(|(cause, _)| *cause == refusal) {
        Some((_, count)) => *count += 1,
        None => outcome.refused.push((refusal, 1)),
    }
    outcome.first_refusal.get_or_insert_with(|| format!("{labels} at {timestamp}: {refusal:?}"));
}

impl Select for MemoryStore {
    fn select(&self, matchers: &[Matcher], range: TimeRange) -> Result<Box<dyn Selection>, SelectError> {
        Ok(Box::new(MemorySelection { series: self.matching(matchers, range) }))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        room: &mut Room<'_>,
    ) -> Result<Vec<String>, SelectError> {
        let names: BTreeSet<String> = self
            .matching(matchers, range)
            .iter()
            .flat_map(|(labels, _)| labels.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>())
            .collect();
        first(names, limit, room)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        room: &mut Room<'_>,
    ) -> Result<Vec<String>, SelectError> {
        let values: BTreeSet<String> = self
            .matching(matchers, range)
            .iter()
            .filter_map(|(labels, _)| labels.get(name).map(str::to_owned))
            .collect();
        first(values, limit, room)
    }
}

/// What a text takes beside its bytes: its place in the list and the allocator's own.
const TEXT_BYTES: usize = 48;

/// The first texts, where there is room for them.
fn first(texts: BTreeSet<String>, limit: usize, room: &mut Room<'_>) -> Result<Vec<String>, SelectError> {
    let texts: Vec<String> = texts.into_iter().take(limit).collect();
    let bytes = texts.iter().map(|text| (TEXT_BYTES + text.len()) as u64).sum();
    if room(bytes) { Ok(texts) } else { Err(SelectError::NoRoom) }
}

struct MemorySelection {
    series: Vec<(Labels, Arc<Series>)>,
}

impl Selection for MemorySelection {
    fn len(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, series: usize) -> &Labels {
        &self.series[series].0
    }

    fn scan(
        &self,
        series: Range<usize>,
        range: TimeRange,
        _scratch: &mut Scratch,
        visit: &mut dyn FnMut(usize, Run<'_>) -> ControlFlow<()>,
    ) -> Result<(), SelectError> {
        for index in series {
            for stretch in &self.series[index].1.stretches {
                let at = stretch.within(range);
                if !at.is_empty() && visit(index, stretch.run(at)).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn latest(
        &self,
        series: Range<usize>,
        after: i64,
        at: i64,
        _scratch: &mut Scratch,
        visit: &mut dyn FnMut(usize, Latest),
    ) -> Result<(), SelectError> {
        let range = TimeRange { start: after.saturating_add(1), end: at };
        for index in series {
            let newest = self.series[index].1.stretches.iter().rev().find_map(|stretch| {
                let within = stretch.within(range);
                (!within.is_empty()).then(|| stretch.latest(within.end - 1))
            });
            if let Some(latest) = newest {
                visit(index, latest);
            }
        }
        Ok(())
    }

    fn statistics(&self) -> Statistics {
        Statistics { series: self.series.len() as u64, ..Statistics::default() }
    }
}
