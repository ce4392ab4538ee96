//! Whether the cost of a query grows with its work and not faster: time and peak of accounted bytes
//! at 1×, 10× and 100× the series, and at 1×, 10× and 100× the steps.
//!
//! ```sh
//! cargo bench -p tidewatch-benches --bench linear
//! ```
//!
//! One store in memory, one thread, no peers; about a minute. Columns with a `×` are the cost divided
//! by that of the column before it: near 10 is linear, less is a fixed part, more needs a reason.
//! The samples lie in one hour, so more steps are closer steps.
//!
//! `cargo test` runs it on a tenth, to see that every query has an answer.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tidewatch_env::Env;
use tidewatch_model::{Batch, Labels, RawLabels, Sample, Value};
use tidewatch_parser::{ParserOptions, parse_expr};
use tidewatch_promql::{Answer, Engine, EngineOptions, QueryContext};
use tidewatch_storage::Append;
use tidewatch_tsdb::{Db, DbOptions};

/// `N` is replaced by the label that chooses how many series there are.
const SHAPES: [(&str, &str); 8] = [
    ("sum of rates", "sum by (g) (rate(m{N}[5m]))"),
    ("topk", "topk(5, m{N})"),
    ("quantile_over_time", "quantile_over_time(0.9, m{N}[5m])"),
    ("histogram_quantile", "histogram_quantile(0.9, sum by (le, i) (rate(b{N}[5m])))"),
    ("join", "m{N} / on (i) n{N}"),
    ("regex", "sum(m{N,i=~\".*[13579]\"})"),
    ("subquery", "max_over_time(sum by (g) (rate(m{N}[1m]))[10m:1m])"),
    ("raw", "m{N}"),
];

const START_MS: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;
const INTERVAL_MS: i64 = 15_000;

struct Cost {
    time: Duration,
    bytes: u64,
}

fn main() {
    // What cargo passes to a benchmark that it runs as a test.
    let test = !std::env::args().any(|argument| argument == "--bench");
    let scale = if test { 10 } else { 100 };
    let sizes = [scale, scale * 10, scale * 100];
    let store = Store::new(&sizes);
    println!("by series, at 240 steps: {sizes:?}");
    for (name, query) in SHAPES {
        let costs = sizes.map(|series| store.cost(query, series, 240, test));
        print_row(name, &costs);
    }
    let steps = [scale, scale * 10, scale * 100];
    println!("\nby steps, over {} series: {steps:?}", sizes[1]);
    for (name, query) in SHAPES {
        let costs = steps.map(|steps| store.cost(query, sizes[1], steps as i64, test));
        print_row(name, &costs);
    }
}

fn print_row(name: &str, costs: &[Cost; 3]) {
    let ms = |cost: &Cost| cost.time.as_secs_f64() * 1e3;
    let kib = |cost: &Cost| cost.bytes as f64 / 1024.0;
    let [a, b, c] = costs;
    println!(
        "{name:<20} {:>9.3} {:>9.3} {:>9.3} ms  ×{:<5.1} ×{:<5.1} {:>9.0} {:>9.0} {:>9.0} KiB  ×{:<5.1} ×{:<5.1}",
        ms(a),
        ms(b),
        ms(c),
        ms(b) / ms(a),
        ms(c) / ms(b),
        kib(a),
        kib(b),
        kib(c),
        kib(b) / kib(a),
        kib(c) / kib(b)
    );
}

struct Store {
    db: Db,
    engine: Engine,
}

impl Store {
    /// For each size so many gauges `m`, as many of their capacities `n`, and as many buckets `b`.
    fn new(sizes: &[usize]) -> Store {
        let env = Env::in_memory();
        let db = Db::in_memory(env.clone(), DbOptions { retention_ms: None, ..DbOptions::new("") });
        let series: Vec<Labels> =
            sizes.iter().flat_map(|size| (0..*size).flat_map(|i| labels(*size, i))).collect();
        for timestamp in (0..HOUR_MS).step_by(INTERVAL_MS as usize).map(|at| START_MS + at) {
            for (part, some) in series.chunks(10_000).enumerate() {
                let mut batch = Batch::new();
                for (i, labels) in some.iter().enumerate() {
                    // Grows unevenly, and starts anew now and then.
                    let ticks = (timestamp - START_MS) / INTERVAL_MS;
                    let value = ((ticks + i as i64) % 100 * (1 + (i as i64 + part as i64) % 7)) as f64;
                    batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value }]);
                }
                let outcome = db.append(&batch).expect("the store takes it");
                assert_eq!(outcome.refused_count(), 0, "{:?}", outcome.first_refusal);
            }
        }
        Store { db, engine: Engine::new(env, EngineOptions::default()) }
    }

    fn cost(&self, query: &str, series: usize, steps: i64, once: bool) -> Cost {
        let query = query.replace('N', &format!("size=\"{series}\""));
        let expr = parse_expr(&query, &ParserOptions::stable()).expect("a valid query");
        let step = HOUR_MS / steps;
        let context = QueryContext { memory_bytes: u64::MAX / 2, ..QueryContext::unbounded() };
        let run = || -> Answer {
            self.engine
                .range(&self.db, &expr, START_MS, START_MS + (steps - 1) * step, step, &context)
                .unwrap_or_else(|error| panic!("{query}: {error}"))
        };
        let answer = run();
        let Value::Matrix(rows) = &answer.value else { panic!("{query}: no matrix") };
        assert!(!rows.is_empty(), "{query}: no answer");
        let bytes = answer.statistics.bytes_peak;
        drop(answer);
        let (mut best, mut all) = (Duration::MAX, Duration::ZERO);
        while all < Duration::from_millis(300) {
            let began = Instant::now();
            black_box(run());
            let took = began.elapsed();
            (best, all) = (best.min(took), all + took);
            if once {
                break;
            }
        }
        Cost { time: best, bytes }
    }
}

fn labels(size: usize, i: usize) -> [Labels; 3] {
    let size = size.to_string();
    let (group, bound) = ((i % 10).to_string(), (1 << (i % 10)).to_string());
    let (own, histogram) = (i.to_string(), (i / 10).to_string());
    [
        Labels::from_pairs([("__name__", "m"), ("size", &size), ("g", &group), ("i", &own)]),
        Labels::from_pairs([("__name__", "n"), ("size", &size), ("g", &group), ("i", &own)]),
        Labels::from_pairs([("__name__", "b"), ("size", &size), ("le", &bound), ("i", &histogram)]),
    ]
}
