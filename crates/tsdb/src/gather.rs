//! Samples as they are stored, and those of one series gathered from several places.
//!
//! Queries see histograms with float counts; whoever stores samples again (a cut, a merge) must
//! have them as they came. Where places overlap in time or a series has samples of both kinds,
//! its samples are gathered, sorted, and handed on in stretches of one kind.
//!
//! Invariant: of two samples at one time that of the lower rank stays, which is the place that was
//! stored first; a histogram that is said to continue the one before it has come from the same
//! place as that one.

use std::fmt;

use tidewatch_model::NativeHistogram;
use tidewatch_model::histogram::CounterResetHint;

/// A stretch of a series: columns of equal length, ascending in time.
#[derive(Debug, Clone, Copy)]
pub struct StoredRun<'a> {
    pub timestamps: &'a [i64],
    pub values: StoredValues<'a>,
    /// When the counter of each sample started, 0 where that is not known; `None` where it is of none.
    pub starts: Option<&'a [i64]>,
}

impl<'a> StoredRun<'a> {
    /// One sample of it.
    pub(crate) fn row(&self, row: usize) -> StoredRun<'a> {
        let values = match self.values {
            StoredValues::Floats(values) => StoredValues::Floats(&values[row..=row]),
            StoredValues::Histograms(histograms) => StoredValues::Histograms(&histograms[row..=row]),
        };
        let starts = self.starts.map(|starts| &starts[row..=row]);
        StoredRun { timestamps: &self.timestamps[row..=row], values, starts }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum StoredValues<'a> {
    Floats(&'a [f64]),
    Histograms(&'a [NativeHistogram]),
}

/// A sample's value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StoredValue<'a> {
    Float(f64),
    Histogram(&'a NativeHistogram),
}

impl StoredValue<'_> {
    /// Whether two are the same, bit for bit.
    pub(crate) fn is_same(self, other: StoredValue<'_>) -> bool {
        match (self, other) {
            (StoredValue::Float(a), StoredValue::Float(b)) => a.to_bits() == b.to_bits(),
            (StoredValue::Histogram(a), StoredValue::Histogram(b)) => a.same_data(b),
            _ => false,
        }
    }
}

impl fmt::Display for StoredValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoredValue::Float(value) => write!(f, "{value}"),
            StoredValue::Histogram(histogram) => write!(f, "a histogram with the sum {}", histogram.sum()),
        }
    }
}

/// A sample that is left out, as a place of a lower rank has one at its time.
pub(crate) struct Repeat<'a> {
    pub(crate) time: i64,
    /// Rank and value of the one that stays, and of the other.
    pub(crate) kept: (u32, StoredValue<'a>),
    pub(crate) left: (u32, StoredValue<'a>),
}

#[derive(Debug, Clone)]
enum Value {
    Float(f64),
    Histogram(Box<NativeHistogram>),
}

#[derive(Debug, Clone)]
struct Gathered {
    timestamp: i64,
    rank: u32,
    start: i64,
    value: Value,
}

impl Gathered {
    fn ranked(&self) -> (u32, StoredValue<'_>) {
        let value = match &self.value {
            Value::Float(value) => StoredValue::Float(*value),
            Value::Histogram(histogram) => StoredValue::Histogram(histogram),
        };
        (self.rank, value)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    samples: Vec<Gathered>,
    timestamps: Vec<i64>,
    starts: Vec<i64>,
    floats: Vec<f64>,
    histograms: Vec<NativeHistogram>,
}

impl Gather {
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Adds what a place has. Of one place all is added before the next one's.
    pub(crate) fn push(&mut self, rank: u32, run: &StoredRun<'_>) {
        let start = |at: usize| run.starts.map_or(0, |starts| starts[at]);
        let value = |at: usize| match run.values {
            StoredValues::Floats(values) => Value::Float(values[at]),
            StoredValues::Histograms(histograms) => Value::Histogram(Box::new(histograms[at].clone())),
        };
        let samples = run.timestamps.iter().enumerate();
        self.samples.extend(samples.map(|(at, timestamp)| Gathered {
            timestamp: *timestamp,
            rank,
            start: start(at),
            value: value(at),
        }));
    }

    /// Hands everything on in stretches of one kind, ascending, until `visit` fails.
    pub(crate) fn for_each<E>(&mut self, visit: impl FnMut(StoredRun<'_>) -> Result<(), E>) -> Result<(), E> {
        self.for_each_telling(&mut |_| {}, visit)
    }

    /// The same, and tells of each sample that is left out.
    pub(crate) fn for_each_telling<E>(
        &mut self,
        tell: &mut dyn FnMut(Repeat<'_>),
        mut visit: impl FnMut(StoredRun<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Gather { samples, timestamps, starts, floats, histograms } = self;
        samples.sort_by_key(|sample| (sample.timestamp, sample.rank));
        samples.dedup_by(|later, first| {
            let repeats = later.timestamp == first.timestamp;
            if repeats {
                tell(Repeat { time: first.timestamp, kept: first.ranked(), left: later.ranked() });
            }
            repeats
        });
        unhint(samples);
        let is_float = |sample: &Gathered| matches!(sample.value, Value::Float(_));
        for stretch in samples.chunk_by(|a, b| is_float(a) == is_float(b)) {
            timestamps.clear();
            starts.clear();
            floats.clear();
            histograms.clear();
            timestamps.extend(stretch.iter().map(|sample| sample.timestamp));
            starts.extend(stretch.iter().map(|sample| sample.start));
            for sample in stretch {
                match &sample.value {
                    Value::Float(value) => floats.push(*value),
                    Value::Histogram(histogram) => histograms.push((**histogram).clone()),
                }
            }
            let values = match floats.is_empty() {
                false => StoredValues::Floats(floats),
                true => StoredValues::Histograms(histograms),
            };
            let starts = starts.iter().any(|start| *start != 0).then_some(&starts[..]);
            visit(StoredRun { timestamps, values, starts })?;
        }
        Ok(())
    }
}

/// What a histogram is known to continue stood before it where it came from: elsewhere nothing is
/// known.
fn unhint(samples: &mut [Gathered]) {
    let mut previous: Option<(u32, bool)> = None;
    for sample in samples {
        let follows = previous == Some((sample.rank, true));
        previous = Some((sample.rank, matches!(sample.value, Value::Histogram(_))));
        if let Value::Histogram(histogram) = &mut sample.value
            && !follows
        {
            histogram.set_hint(alone(histogram.hint()));
        }
    }
}

/// The hint of a histogram without the one before it.
pub(crate) fn alone(hint: CounterResetHint) -> CounterResetHint {
    if hint == CounterResetHint::NotReset { CounterResetHint::Unknown } else { hint }
}
