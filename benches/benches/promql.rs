//! The engine's kernels over columns that are decoded already: windows of rates, quantiles and
//! means, and the fold of rows into groups. Figures are samples of all windows, or points folded,
//! a second.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use tidewatch_env::{Env, Job, Parallel};
use tidewatch_model::{Labels, Matcher};
use tidewatch_parser::{ParserOptions, parse_expr};
use tidewatch_promql::{Engine, EngineOptions, QueryContext};
use tidewatch_storage::{
    ClockId, Latest, Room, Run, RunValues, Scratch, Select, SelectError, Selection, TimeRange,
};

/// Series that share one clock, 15 s apart.
#[derive(Clone)]
struct Columns {
    labels: Vec<Labels>,
    times: Vec<i64>,
    values: Vec<Vec<f64>>,
}

const SERIES: usize = 100;
const SAMPLES: usize = 1440;
const STEP_MS: i64 = 15_000;

impl Columns {
    /// Counters that grow unevenly.
    fn new() -> Columns {
        let label = |i: usize| Labels::from_pairs([("__name__", "m_total"), ("i", &format!("{i:03}"))]);
        let column = |i: usize| {
            let grow = |t: usize| (t * (i + 7)) as f64 + ((t * 7919 + i) % 13) as f64;
            (0..SAMPLES).map(grow).collect()
        };
        Columns {
            labels: (0..SERIES).map(label).collect(),
            times: (0..SAMPLES as i64).map(|t| t * STEP_MS).collect(),
            values: (0..SERIES).map(column).collect(),
        }
    }
}

impl Select for Columns {
    fn select(&self, _: &[Matcher], _: TimeRange) -> Result<Box<dyn Selection>, SelectError> {
        Ok(Box::new(self.clone()))
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

impl Selection for Columns {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn labels(&self, series: usize) -> &Labels {
        &self.labels[series]
    }

    fn scan(
        &self,
        series: Range<usize>,
        _: TimeRange,
        _: &mut Scratch,
        visit: &mut dyn FnMut(usize, Run<'_>) -> ControlFlow<()>,
    ) -> Result<(), SelectError> {
        for one in series {
            let values = RunValues::Floats(&self.values[one]);
            let run = Run { clock: Some(ClockId(0)), timestamps: &self.times, values, starts: None };
            if visit(one, run).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn latest(
        &self,
        _: Range<usize>,
        _: i64,
        _: i64,
        _: &mut Scratch,
        _: &mut dyn FnMut(usize, Latest),
    ) -> Result<(), SelectError> {
        Ok(())
    }
}

/// So that a figure is one core's.
struct OneCore;

impl Parallel for OneCore {
    fn width(&self) -> usize {
        1
    }

    fn run<'a>(&self, jobs: Vec<Job<'a>>) {
        jobs.into_iter().for_each(|job| job());
    }
}

fn main() {
    let store = Columns::new();
    let env = Env { parallel: Arc::new(OneCore), ..Env::in_memory() };
    let engine = Engine::new(env, EngineOptions::default());
    let mut criterion = Criterion::default().configure_from_args();
    let steps = SAMPLES as u64 / 4;
    // A step a minute; a window of 5 min has 20 samples, one of 10 min 40.
    let kernels = [
        ("select", "sum(m_total)", steps),
        ("fold", "sum by (i) (m_total)", steps),
        ("rate", "sum(rate(m_total[5m]))", steps * 20),
        ("avg", "sum(avg_over_time(m_total[10m]))", steps * 40),
        ("max", "sum(max_over_time(m_total[10m]))", steps * 40),
        ("quantile", "sum(quantile_over_time(0.9, m_total[10m]))", steps * 40),
    ];
    let mut group = criterion.benchmark_group("promql");
    for (name, query, samples) in kernels {
        let expr = parse_expr(query, &ParserOptions::stable()).expect("a query");
        let (end, context) = ((SAMPLES as i64 - 1) * STEP_MS, QueryContext::unbounded());
        group.throughput(Throughput::Elements(samples * SERIES as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| engine.range(&store, &expr, 0, end, 60_000, &context).expect("an answer"));
        });
    }
    group.finish();
    criterion.final_summary();
}
