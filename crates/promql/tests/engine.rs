//! What holds for every query: a range is its instants, workers do not change answers, and
//! nothing outgrows its bounds.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tidewatch_env::{Clock, Env};
use tidewatch_model::histogram::Span;
use tidewatch_model::{FloatHistogram, Labels, STALE_NAN, SampleValue, Value};
use tidewatch_promql::{Engine, EngineOptions, MemoryPool, QueryContext, QueryError};
use tidewatch_storage::{Run, RunValues};
use tidewatch_testkit::MemoryStore;

use common::{counters, env, parse, push_floats};

/// Queries of every kind of node, whose answers do not depend on the order of their series.
const QUERIES: [&str; 40] = [
    "m",
    "m offset 1m",
    "m @ 300",
    "timestamp(m)",
    "rate(m[2m])",
    "increase(m[90s] offset 30s)",
    "delta(m[2m])",
    "irate(m[2m])",
    "resets(m[5m])",
    "changes(m[5m])",
    "sum_over_time(m[2m])",
    "avg_over_time(m[2m])",
    "min_over_time(m[2m])",
    "max_over_time(m[2m])",
    "count_over_time(m[2m])",
    "last_over_time(m[2m])",
    "stddev_over_time(m[3m])",
    "quantile_over_time(0.7, m[3m])",
    "mad_over_time(m[3m])",
    "deriv(m[3m])",
    "predict_linear(m[3m], 60)",
    "sum by (g) (rate(m[2m]))",
    "avg by (g) (m)",
    "stddev without (i) (m)",
    "max(m) - min(m)",
    "count(m > 40)",
    "group by (g) (m)",
    "quantile by (g) (0.5, m)",
    "topk by (g) (2, m)",
    "m / on (i, g) (m + 1)",
    "m + on (g) group_left sum by (g) (m)",
    "m and on (i) (m > 50)",
    "m unless (m > 50)",
    "(m > 50) or (m * 2)",
    "abs(-m) ^ 2 % 7",
    "clamp(m, 10, scalar(avg(m)))",
    "max_over_time(rate(m[1m])[5m:1m])",
    "absent(m > 1e9)",
    "absent_over_time(m[1s])",
    "histogram_count(h) + on () group_left () histogram_sum(sum(rate(h[2m])))",
];

type Points = BTreeMap<(Labels, i64), String>;

fn text(value: &SampleValue) -> String {
    match value {
        // Sums of many workers may differ in the last digits.
        SampleValue::Float(value) => format!("{value:.9e}"),
        SampleValue::Histogram(histogram) => histogram.to_string(),
    }
}

fn points(value: &Value) -> Points {
    match value {
        Value::Scalar { timestamp, value } => {
            [((Labels::empty(), *timestamp), text(&SampleValue::Float(*value)))].into()
        }
        Value::String { .. } => Points::new(),
        Value::Vector(samples) => {
            samples.iter().map(|s| ((s.labels.clone(), s.timestamp), text(&s.value))).collect()
        }
        Value::Matrix(series) => {
            let mut points = Points::new();
            for series in series {
                let floats = series.floats.iter().map(|(t, v)| (*t, SampleValue::Float(*v)));
                let histograms =
                    series.histograms.iter().map(|(t, h)| (*t, SampleValue::Histogram(h.clone())));
                for (time, value) in floats.chain(histograms) {
                    points.insert((series.labels.clone(), time), text(&value));
                }
            }
            points
        }
    }
}

fn range(engine: &Engine, store: &MemoryStore, query: &str, (start, end, step): (i64, i64, i64)) -> Points {
    let answer = engine.range(store, &parse(query), start, end, step, &QueryContext::unbounded());
    points(&answer.unwrap_or_else(|error| panic!("{query}: {error}")).value)
}

fn instants(
    engine: &Engine,
    store: &MemoryStore,
    query: &str,
    (start, end, step): (i64, i64, i64),
) -> Points {
    let mut all = Points::new();
    for at in (start..=end).step_by(step as usize) {
        let answer = engine.instant(store, &parse(query), at, &QueryContext::unbounded());
        all.append(&mut points(&answer.unwrap_or_else(|error| panic!("{query}: {error}")).value));
    }
    all
}

/// A stretch of a series of floats, with a clock or without.
type Piece = (Option<u64>, Vec<i64>, Vec<f64>);

/// A series with gaps, markers and resets, in runs of random length.
fn any_series(number: usize) -> impl Strategy<Value = (Labels, Vec<Piece>)> {
    let sample = prop_oneof![8 => (0..100i32).prop_map(f64::from), 1 => Just(STALE_NAN), 1 => Just(f64::NAN)];
    let pieces = prop::collection::vec(
        (prop::collection::vec((1..40i64, sample), 1..30), any::<bool>(), 0..60i64),
        0..4,
    );
    let labels = Labels::from_pairs([
        ("__name__", "m".to_owned()),
        ("i", number.to_string()),
        ("g", (number % 2).to_string()),
    ]);
    pieces.prop_map(move |pieces| {
        let mut time = 0;
        let mut runs = Vec::new();
        for (n, (samples, clocked, gap)) in pieces.into_iter().enumerate() {
            time += gap * 1000;
            let (mut times, mut values) = (Vec::new(), Vec::new());
            for (step, value) in samples {
                time += step * 1000;
                times.push(time);
                values.push(value);
            }
            let clock = clocked.then_some((number * 10 + n) as u64);
            runs.push((clock, times, values));
        }
        (labels.clone(), runs)
    })
}

fn push_histograms(store: &MemoryStore) {
    let histogram = |n: u32| FloatHistogram {
        count: f64::from(3 * n),
        sum: f64::from(n),
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![f64::from(n), f64::from(2 * n)],
        ..FloatHistogram::default()
    };
    let times: Vec<i64> = (0..40).map(|t| t * 15_000).collect();
    let values: Vec<FloatHistogram> = (0..40).map(histogram).collect();
    let run = Run { clock: None, timestamps: &times, values: RunValues::Histograms(&values), starts: None };
    store.push_run(&Labels::from_pairs([("__name__", "h")]), &run);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_range_is_its_instants(
        (a, b, c) in (any_series(0), any_series(1), any_series(2)),
        start in 0..600_000i64,
        step in 1_000..90_000i64,
    ) {
        let store = MemoryStore::new();
        for (labels, pieces) in [a, b, c] {
            for (clock, times, values) in pieces {
                push_floats(&store, &labels, clock, &times, &values);
            }
        }
        push_histograms(&store);
        let engine = Engine::new(env(1), EngineOptions::default());
        for query in QUERIES {
            let times = (start, start + 5 * step, step);
            prop_assert_eq!(
                range(&engine, &store, query, times),
                instants(&engine, &store, query, times),
                "{}", query
            );
        }
    }
}

#[test]
fn many_workers_answer_as_one() {
    let mut series = 0;
    for run in [40, 7] {
        let store = counters(300, 100, run);
        let times = (200_000, 1_400_000, 40_000);
        for query in QUERIES {
            let one = range(&Engine::new(env(1), EngineOptions::default()), &store, query, times);
            let four = range(&Engine::new(env(4), EngineOptions::default()), &store, query, times);
            assert_eq!(one, four, "{query}");
            series += one.len();
        }
    }
    assert!(series > 10_000, "the queries have answers");
}

fn run(query: &str, context: &QueryContext) -> Result<usize, QueryError> {
    let store = counters(200, 100, 40);
    let engine = Engine::new(env(2), EngineOptions::default());
    let answer = engine.range(&store, &parse(query), 0, 1_500_000, 15_000, context)?;
    Ok(points(&answer.value).len())
}

#[test]
fn a_query_ends_at_its_deadline_and_when_it_is_cancelled() {
    let late = QueryContext { deadline_ns: Some(0), ..QueryContext::unbounded() };
    assert!(matches!(run("sum(rate(m[5m]))", &late), Err(QueryError::Timeout(_))));
    let cancelled = QueryContext::unbounded();
    cancelled.cancel.store(true, Ordering::Relaxed);
    assert!(matches!(run("sum(rate(m[5m]))", &cancelled), Err(QueryError::Canceled(_))));
}

/// Each look at it takes a nanosecond, and nothing else does.
#[derive(Default)]
struct Looks(AtomicU64);

impl Clock for Looks {
    fn wall_ms(&self) -> i64 {
        0
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[test]
fn windows_that_overlap_do_not_outlast_the_deadline() {
    // One row, and a thousand windows of 5,000 samples: no end of a series to look up at.
    for call in [
        "sum_over_time(W)",
        "avg_over_time(W)",
        "stddev_over_time(W)",
        "changes(W)",
        "quantile_over_time(0.5, W)",
        "mad_over_time(W)",
        "deriv(W)",
        "predict_linear(W, 1)",
        "double_exponential_smoothing(W, 0.5, 0.5)",
        "ts_of_max_over_time(W)",
    ] {
        let engine =
            Engine::new(Env { clock: Arc::new(Looks::default()), ..env(1) }, EngineOptions::default());
        let store = counters(1, 1, 1);
        let expr = parse(&call.replace('W', "vector(time())[5000s:1s]"));
        let context = QueryContext { deadline_ns: Some(100), ..QueryContext::unbounded() };
        let answer = engine.range(&store, &expr, 0, 999_000, 1_000, &context);
        assert!(matches!(answer, Err(QueryError::Timeout(_))), "{call}");
    }
}

#[test]
fn a_query_is_refused_where_it_outgrows_its_budget() {
    let small = QueryContext { memory_bytes: 100_000, ..QueryContext::unbounded() };
    // 200 rows of 101 steps do not fit, 4 groups of them do.
    assert!(matches!(run("m", &small), Err(QueryError::OutOfMemory { .. })));
    assert!(run("sum by (g) (m)", &small).is_ok());
    for bomb in ["sum_over_time(m[100y:1ms])", "quantile_over_time(0.5, vector(1)[10y:1ms])"] {
        let refused = run(bomb, &QueryContext::unbounded());
        assert!(
            matches!(refused, Err(QueryError::OutOfMemory { .. } | QueryError::TooManySamples(_))),
            "{bomb}: {refused:?}"
        );
    }
    let bomb = (0..40).fold(r#"label_replace(m, "x", "aaaa", "", "")"#.to_owned(), |inner, _| {
        format!(r#"label_replace({inner}, "x", "$1$1", "x", "(.*)")"#)
    });
    assert!(matches!(run(&bomb, &QueryContext::unbounded()), Err(QueryError::Execution(_))));
}

#[test]
fn scalars_groups_and_matches_are_paid_for() {
    // Each of 45 sums holds its left side while the right one is evaluated.
    let sums = format!("max_over_time(vector({}1{})[1d:100ms])", "time()+(".repeat(45), ")".repeat(45));
    let context = QueryContext { memory_bytes: 200 << 20, ..QueryContext::unbounded() };
    assert!(matches!(run(&sums, &context), Err(QueryError::OutOfMemory { .. })));
    let store = counters(10_000, 2, 2);
    let engine = Engine::new(env(1), EngineOptions::default());
    let least = |query: &str| -> u64 {
        let answer = engine.instant(&store, &parse(query), 15_000, &QueryContext::unbounded());
        answer.expect(query).statistics.bytes_peak
    };
    // 10,000 groups with their names and keys; as many signatures beside the rows of both sides.
    assert!(least("count(sum by (i) (m))") > 10_000 * 128, "{}", least("count(sum by (i) (m))"));
    assert!(least("m / on (i) m") > least("m") + 10_000 * 192);
}

#[test]
fn queries_share_memory_and_answers_keep_their_part() {
    let store = counters(200, 100, 40);
    let engine = Engine::new(env(2), EngineOptions::default());
    let pool = MemoryPool::new(2 << 20);
    let context = QueryContext { pool: Some(pool.clone()), ..QueryContext::unbounded() };
    let ask = |query: &str| engine.range(&store, &parse(query), 0, 1_500_000, 15_000, &context);
    let first = ask("m").expect("there is room");
    let held = pool.used();
    assert!(held > 200 * 100 * 16, "the value is paid for while it lives: {held}");
    let mut answers = vec![first];
    let refused = loop {
        match ask("m") {
            Ok(answer) => answers.push(answer),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, QueryError::Overloaded { limit_bytes } if limit_bytes == 2 << 20), "{refused}");
    assert!(pool.used() <= pool.limit());
    drop(answers);
    assert_eq!(pool.used(), 0);
    ask("m").expect("there is room again");
}

// Each pair of duplicates once cost a look at all rows of the other side.
#[test]
fn duplicates_that_meet_nobody_cost_no_look_at_every_row() {
    let store = MemoryStore::new();
    let series = |name: &str, i: usize| Labels::from_pairs([("__name__", name), ("i", &i.to_string())]);
    for i in 0..5_000 {
        push_floats(&store, &series("one", i), None, &[0], &[1.0]);
        push_floats(&store, &series("many", i), None, &[3_600_000], &[1.0]);
    }
    let engine = Engine::new(env(1), EngineOptions::default());
    let deadline_ns = Some(env(1).clock.monotonic_ns() + 20_000_000_000);
    let context = QueryContext { deadline_ns, ..QueryContext::unbounded() };
    let query = parse("many * on () group_left () one");
    let answer = engine.range(&store, &query, 0, 3_600_000, 60_000, &context).expect("nothing meets");
    assert_eq!(points(&answer.value).len(), 0);
}

#[test]
fn statistics_count_what_windows_look_at() {
    let store = counters(2, 100, 40);
    let engine = Engine::new(env(1), EngineOptions::default());
    let context = QueryContext { per_step_statistics: true, ..QueryContext::unbounded() };
    let check = |query: &str, per_step: &[u64]| {
        let answer = engine.range(&store, &parse(query), 600_000, 720_000, 60_000, &context).expect(query);
        let counts: Vec<u64> = answer.statistics.samples_per_step.iter().map(|(_, n)| *n).collect();
        assert_eq!(counts, per_step, "{query}");
        assert_eq!(answer.statistics.samples_total, per_step.iter().sum::<u64>(), "{query}");
    };
    check("m", &[2, 2, 2]);
    check("m @ 600", &[2, 2, 2]);
    check("rate(m[1m])", &[8, 8, 8]);
    check("m / m", &[4, 4, 4]);
    check("max_over_time(m[2m:1m])", &[4, 4, 4]);
}

#[test]
fn a_range_needs_a_scalar_or_a_vector_and_a_step() {
    let store = counters(1, 10, 10);
    let engine = Engine::new(env(1), EngineOptions::default());
    for (query, end, step, words) in [
        (
            "m[5m]",
            60_000,
            1000,
            "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector",
        ),
        ("m", -1, 1000, "end timestamp must not be before start time"),
        (
            "m",
            60_000,
            0,
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ),
    ] {
        let refused = engine.range(&store, &parse(query), 0, end, step, &QueryContext::unbounded());
        assert_eq!(refused.expect_err(query).to_string(), words);
    }
}
