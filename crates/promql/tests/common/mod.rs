//! A store of a few series for tests of the engine: each series is a list of runs, cut and
//! clocked as a test wants it.

#![allow(dead_code, reason = "each test uses its part")]

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use tidewatch_env::{Env, Job, Parallel};
use tidewatch_model::{FloatHistogram, Labels, Matcher};
use tidewatch_parser::{Expr, ParserOptions, parse_expr};
use tidewatch_storage::{
    ClockId, Latest, Room, Run, RunValues, Scratch, Select, SelectError, Selection, Statistics, TimeRange,
};

/// A stretch of one series.
#[derive(Debug, Clone)]
pub struct Piece {
    pub clock: Option<u64>,
    pub times: Vec<i64>,
    pub values: Values,
}

#[derive(Debug, Clone)]
pub enum Values {
    Floats(Vec<f64>),
    Histograms(Vec<FloatHistogram>),
}

/// Series in the order of their labels.
#[derive(Debug, Clone, Default)]
pub struct TinyStore {
    series: Arc<Vec<(Labels, Vec<Piece>)>>,
}

impl TinyStore {
    pub fn new(mut series: Vec<(Labels, Vec<Piece>)>) -> TinyStore {
        series.sort_by(|a, b| a.0.cmp(&b.0));
        TinyStore { series: Arc::new(series) }
    }

    /// `count` series `m{i="…"}` of floats every 15 s, with resets and gaps, in runs of `run`.
    pub fn counters(count: usize, samples: usize, run: usize) -> TinyStore {
        let series = (0..count).map(|i| {
            let times: Vec<i64> = (0..samples).map(|t| t as i64 * 15_000 + (i % 3) as i64 * 1000).collect();
            let value = |t: usize| ((t * (i + 3)) % (97 + i)) as f64 + t as f64 / 7.0;
            let values: Vec<f64> = (0..samples).map(value).collect();
            let pieces = times.chunks(run).zip(values.chunks(run)).enumerate();
            let pieces = pieces.map(|(n, (times, values))| Piece {
                clock: Some((i % 3 * 1000 + n) as u64),
                times: times.to_vec(),
                values: Values::Floats(values.to_vec()),
            });
            let labels = Labels::from_pairs([
                ("__name__", "m".to_owned()),
                ("i", format!("{i:04}")),
                ("g", format!("{}", i % 4)),
            ]);
            (labels, pieces.collect())
        });
        TinyStore::new(series.collect())
    }
}

impl Select for TinyStore {
    fn select(&self, matchers: &[Matcher], _: TimeRange) -> Result<Box<dyn Selection>, SelectError> {
        let matches = |labels: &Labels| {
            matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
        };
        let found = (0..self.series.len()).filter(|i| matches(&self.series[*i].0)).collect();
        Ok(Box::new(Found { store: self.clone(), found }))
    }

    fn label_names(
        &self,
        _: &[Matcher],
        _: TimeRange,
        _: usize,
        _: &mut Room<'_>,
    ) -> Result<Vec<String>, SelectError> {
        Ok(Vec::new())
    }

    fn label_values(
        &self,
        _: &str,
        _: &[Matcher],
        _: TimeRange,
        _: usize,
        _: &mut Room<'_>,
    ) -> Result<Vec<String>, SelectError> {
        Ok(Vec::new())
    }
}

struct Found {
    store: TinyStore,
    found: Vec<usize>,
}

impl Selection for Found {
    fn len(&self) -> usize {
        self.found.len()
    }

    fn labels(&self, series: usize) -> &Labels {
        &self.store.series[self.found[series]].0
    }

    fn scan(
        &self,
        series: Range<usize>,
        range: TimeRange,
        _: &mut Scratch,
        visit: &mut dyn FnMut(usize, Run<'_>) -> ControlFlow<()>,
    ) -> Result<(), SelectError> {
        for i in series {
            for piece in &self.store.series[self.found[i]].1 {
                let low = piece.times.partition_point(|t| *t < range.start);
                let high = piece.times.partition_point(|t| *t <= range.end);
                if low >= high {
                    continue;
                }
                // A clock that is cut by the range is another one.
                let whole = low == 0 && high == piece.times.len();
                let run = Run {
                    clock: piece.clock.filter(|_| whole).map(ClockId),
                    timestamps: &piece.times[low..high],
                    values: match &piece.values {
                        Values::Floats(values) => RunValues::Floats(&values[low..high]),
                        Values::Histograms(values) => RunValues::Histograms(&values[low..high]),
                    },
                    starts: None,
                };
                if visit(i, run).is_break() {
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
        scratch: &mut Scratch,
        visit: &mut dyn FnMut(usize, Latest),
    ) -> Result<(), SelectError> {
        for i in series {
            let mut newest = None;
            let range = TimeRange { start: after + 1, end: at };
            self.scan(i..i + 1, range, scratch, &mut |_, run| {
                let last = run.timestamps.len() - 1;
                let timestamp = run.timestamps[last];
                newest = Some(match run.values {
                    RunValues::Floats(values) => Latest::Float { timestamp, value: values[last] },
                    RunValues::Histograms(values) => {
                        Latest::Histogram { timestamp, value: Box::new(values[last].clone()) }
                    }
                });
                ControlFlow::Continue(())
            })?;
            newest.into_iter().for_each(|latest| visit(i, latest));
        }
        Ok(())
    }

    fn statistics(&self) -> Statistics {
        Statistics { series: self.found.len() as u64, ..Statistics::default() }
    }
}

/// Runs jobs one after the other, the last first, and claims to be `width` wide.
struct Backwards {
    width: usize,
}

impl Parallel for Backwards {
    fn width(&self) -> usize {
        self.width
    }

    fn run<'a>(&self, jobs: Vec<Job<'a>>) {
        jobs.into_iter().rev().for_each(|job| job());
    }
}

/// An environment in memory with so many workers.
pub fn env(width: usize) -> Env {
    Env { parallel: Arc::new(Backwards { width }), ..Env::in_memory() }
}

pub fn parse(query: &str) -> Expr {
    parse_expr(query, &ParserOptions::experimental()).unwrap_or_else(|error| panic!("{query}: {error}"))
}
