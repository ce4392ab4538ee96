//! The engine's kernels over columns that are decoded already: windows of rates, quantiles and
//! means, and the fold of rows into groups. Figures are samples of all windows, or points folded,
//! a second.

use std::sync::Arc;

use criterion::{Criterion, Throughput};
use tidewatch_env::{Env, Job, Parallel};
use tidewatch_model::Labels;
use tidewatch_parser::{ParserOptions, parse_expr};
use tidewatch_promql::{Engine, EngineOptions, QueryContext};
use tidewatch_storage::{ClockId, Run, RunValues};
use tidewatch_testkit::MemoryStore;

const SERIES: usize = 100;
const SAMPLES: usize = 1440;
const STEP_MS: i64 = 15_000;

/// Counters that grow unevenly and share one clock, 15 s apart.
fn counters() -> MemoryStore {
    let store = MemoryStore::new();
    let times: Vec<i64> = (0..SAMPLES as i64).map(|t| t * STEP_MS).collect();
    for i in 0..SERIES {
        let grow = |t: usize| (t * (i + 7)) as f64 + ((t * 7919 + i) % 13) as f64;
        let values: Vec<f64> = (0..SAMPLES).map(grow).collect();
        let values = RunValues::Floats(&values);
        let run = Run { clock: Some(ClockId(0)), timestamps: &times, values, starts: None };
        store.push_run(&Labels::from_pairs([("__name__", "m_total"), ("i", &format!("{i:03}"))]), &run);
    }
    store
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
    let store = counters();
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
