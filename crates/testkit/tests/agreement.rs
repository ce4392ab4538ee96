//! The engine against the oracle, on made-up samples and made-up queries: the same values, labels,
//! refusals and warnings, wherever the samples lie.
//!
//! `AGREEMENT_CASES` sets how many data sets each test makes up, `AGREEMENT_SEED` where it begins;
//! with `AGREEMENT_QUERY` only that query is asked, of the data set of the seed.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use common::db::DbStore;
use tidewatch_conformance::say;
use tidewatch_model::{FloatHistogram, Labels, SampleValue, Value};
use tidewatch_parser::{Expr, FunctionId, ParserOptions, ValueType, parse_expr};
use tidewatch_promql::{Answer, Engine, EngineOptions, QueryContext, QueryError};
use tidewatch_storage::Select;
use tidewatch_testkit::madeup::{Dice, QueryMaker, Scope, samples};
use tidewatch_testkit::script::Load;
use tidewatch_testkit::{MemoryStore, Oracle, OracleAnswer, SampleData, TestStore, almost_equal};

const MINUTE: i64 = 60_000;

/// The relative error between sums of different order.
const EPSILON: f64 = 1e-9;

/// When a query is asked.
#[derive(Debug, Clone, Copy)]
enum When {
    At(i64),
    Range { start: i64, end: i64, step: i64 },
}

fn times(dice: &mut Dice, until_ms: i64) -> Vec<When> {
    let start = dice.below(until_ms as usize) as i64;
    let step = *dice.pick(&[&13_000, &15_000, &47_000, &120_000]);
    let end = (start + dice.below(9) as i64 * step + dice.below(5000) as i64).min(until_ms + 4 * MINUTE);
    let range = When::Range { start, end: end.max(start), step };
    vec![When::At(until_ms / 2), When::At(dice.below(until_ms as usize + 60_000) as i64), range]
}

/// Data in the oracle and in a store, and an engine over it.
struct Bench<'a> {
    oracle: &'a Oracle,
    store: &'a dyn Select,
    engine: Engine,
}

fn oracle(load: &Load) -> Oracle {
    let mut oracle = Oracle::default();
    for series in &load.series {
        for sample in &series.samples {
            let value = match &sample.data {
                SampleData::Float(value) => SampleValue::Float(*value),
                SampleData::Histogram(histogram) => SampleValue::Histogram(histogram.clone()),
            };
            oracle.push(&series.labels, sample.timestamp, value);
        }
    }
    oracle
}

enum Verdict {
    Equal,
    /// Series without their names meet at different times: an error of whole ranges alone.
    Excused,
    Differs(String),
}

impl Bench<'_> {
    fn ask(&self, expr: &Expr, when: When) -> Verdict {
        let context = QueryContext::unbounded();
        let (found, wanted) = match when {
            When::At(at) => {
                (self.engine.instant(self.store, expr, at, &context), self.oracle.instant(expr, at))
            }
            When::Range { start, end, step } => (
                self.engine.range(self.store, expr, start, end, step, &context),
                self.oracle.range(expr, start, end, step),
            ),
        };
        match compare(expr, when, found, wanted) {
            Ok(true) => Verdict::Equal,
            Ok(false) => Verdict::Excused,
            Err(why) => Verdict::Differs(why),
        }
    }

    /// The smallest part of a query on which the two disagree at that time, and how.
    fn smallest(&self, expr: &Expr, when: When, why: String) -> (String, String) {
        for child in expr.children() {
            // A matrix is no answer by itself: what is anchored has its edges from its function.
            if !matches!(child.value_type(), ValueType::String | ValueType::Matrix)
                && let Verdict::Differs(why) = self.ask(child, when)
            {
                return self.smallest(child, when, why);
            }
        }
        (expr.to_string(), why)
    }
}

fn compare(
    expr: &Expr,
    when: When,
    found: Result<Answer, QueryError>,
    wanted: Result<OracleAnswer, String>,
) -> Result<bool, String> {
    let (found, wanted) = match (found, wanted) {
        (Err(_), Err(_)) => return Ok(true),
        (Ok(found), Err(error)) => {
            return Err(format!("the oracle refuses it ({error}), the engine gives {:?}", found.value));
        }
        (Err(error), Ok(_)) if error.to_string().contains("same labelset") && spans_times(expr, when) => {
            return Ok(false);
        }
        (Err(error), Ok(wanted)) => {
            return Err(format!("the engine refuses it ({error}), the oracle gives {:?}", wanted.value));
        }
        (Ok(found), Ok(wanted)) => (found, wanted),
    };
    let (engine, oracle) = (points(&found.value), points(&wanted.value));
    let mut differences = String::new();
    for (key, value) in &oracle {
        match engine.get(key) {
            Some(other) if same(other, value) => {}
            other => {
                let _ = write!(
                    differences,
                    "\n    {} at {}: oracle {}, engine {}",
                    key.0,
                    key.1,
                    shown(Some(value)),
                    shown(other)
                );
            }
        }
    }
    for (key, value) in engine.iter().filter(|(key, _)| !oracle.contains_key(key)) {
        let _ = write!(
            differences,
            "\n    {} at {}: oracle nothing, engine {}",
            key.0,
            key.1,
            shown(Some(value))
        );
    }
    if !differences.is_empty() {
        return Err(differences);
    }
    if is_sorted(expr) && !same_order(&found.value, &wanted.value) {
        return Err(format!("another order: {:?} and {:?}", found.value, wanted.value));
    }
    // That a range is not sorted is said of the query, not of its steps.
    let warned = found.annotations.warnings.iter().any(|text| !text.contains("sort is ineffective"));
    if warned != wanted.warned {
        return Err(format!("oracle warned: {}, engine {:?}", wanted.warned, found.annotations));
    }
    Ok(true)
}

/// Whether an answer is made of more than one time.
fn spans_times(expr: &Expr, when: When) -> bool {
    matches!(when, When::Range { .. })
        || matches!(expr, Expr::Subquery(_))
        || expr.children().into_iter().any(|child| spans_times(child, when))
}

fn is_sorted(expr: &Expr) -> bool {
    matches!(expr, Expr::Call(call) if matches!(call.function.id, FunctionId::Sort | FunctionId::SortDesc))
}

fn same_order(a: &Value, b: &Value) -> bool {
    let (Value::Vector(a), Value::Vector(b)) = (a, b) else { return true };
    a.iter().zip(b).all(|(a, b)| same(&a.value, &b.value))
}

fn same(a: &SampleValue, b: &SampleValue) -> bool {
    match (a, b) {
        (SampleValue::Float(a), SampleValue::Float(b)) => almost_equal(*a, *b, EPSILON),
        (SampleValue::Histogram(a), SampleValue::Histogram(b)) => same_histogram(a, b),
        _ => false,
    }
}

/// Equal but for rounding and empty buckets. Hints are for the scripts to check.
fn same_histogram(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let numbers = |histogram: &FloatHistogram| {
        let mut numbers =
            vec![histogram.count, histogram.sum, histogram.zero_count, histogram.zero_threshold];
        let buckets = histogram.negative().chain(histogram.positive()).filter(|bucket| bucket.count != 0.0);
        numbers.extend(buckets.flat_map(|bucket| [bucket.lower, bucket.upper, bucket.count]));
        numbers
    };
    let (x, y) = (numbers(a), numbers(b));
    a.schema == b.schema && x.len() == y.len() && x.iter().zip(&y).all(|(x, y)| almost_equal(*x, *y, EPSILON))
}

fn shown(value: Option<&SampleValue>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(SampleValue::Float(value)) => format!("{value:?}"),
        Some(SampleValue::Histogram(histogram)) => histogram.to_string(),
    }
}

fn points(value: &Value) -> BTreeMap<(Labels, i64), SampleValue> {
    match value {
        Value::Scalar { timestamp, value } => {
            [((Labels::empty(), *timestamp), SampleValue::Float(*value))].into()
        }
        Value::String { .. } => BTreeMap::new(),
        Value::Vector(samples) => {
            samples.iter().map(|s| ((s.labels.clone(), s.timestamp), s.value.clone())).collect()
        }
        Value::Matrix(series) => series
            .iter()
            .flat_map(|series| {
                let floats = series.floats.iter().map(|(t, v)| (*t, SampleValue::Float(*v)));
                let histograms =
                    series.histograms.iter().map(|(t, h)| (*t, SampleValue::Histogram(h.clone())));
                floats.chain(histograms).map(|(t, value)| ((series.labels.clone(), t), value))
            })
            .collect(),
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a number is wanted")))
}

/// What a test has seen.
#[derive(Default)]
struct Tally {
    asked: usize,
    excused: usize,
    failures: Vec<String>,
}

impl Tally {
    fn ask(&mut self, bench: &Bench<'_>, test: &str, seed: u64, query: &str, when: When, place: &str) {
        let expr = parse_expr(query, &ParserOptions::experimental())
            .unwrap_or_else(|error| panic!("seed {seed} makes what is no query, {query}: {error}"));
        if expr.value_type() == ValueType::Matrix && matches!(when, When::Range { .. }) {
            return;
        }
        self.asked += 1;
        match bench.ask(&expr, when) {
            Verdict::Equal => {}
            Verdict::Excused => self.excused += 1,
            Verdict::Differs(_) if self.failures.len() >= 8 => {}
            Verdict::Differs(why) => {
                let (smallest, why) = bench.smallest(&expr, when, why);
                self.failures.push(format!(
                    "AGREEMENT_SEED={seed} AGREEMENT_QUERY='{query}' cargo test -p tidewatch-testkit --test \
                     agreement {test}\n  {when:?}, {place}: {smallest}: {why}"
                ));
            }
        }
    }

    fn close(self, test: &str) {
        say(&format!("{test}: {} evaluations agree, {} excused", self.asked - self.excused, self.excused));
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        assert!(self.excused * 20 <= self.asked, "{} of {} were excused", self.excused, self.asked);
    }
}

/// The seeds of a test's data sets.
fn seeds(cases: u64) -> std::ops::Range<u64> {
    let first = number("AGREEMENT_SEED").unwrap_or(1);
    let only = std::env::var("AGREEMENT_QUERY").is_ok();
    first..first + if only { 1 } else { number("AGREEMENT_CASES").unwrap_or(cases) }
}

fn queries(seed: u64, count: usize, histograms: bool) -> Vec<String> {
    match std::env::var("AGREEMENT_QUERY") {
        Ok(query) => vec![query],
        Err(_) => {
            let scope = Scope { histograms, everything: false, range_calls: true };
            let mut maker = QueryMaker::new(seed, scope);
            (0..count).map(|_| maker.query()).collect()
        }
    }
}

fn engine() -> Engine {
    common::engine(EngineOptions::default())
}

#[test]
fn engine_and_oracle_agree_on_the_reference_store() {
    let mut tally = Tally::default();
    let until_ms = 20 * MINUTE;
    for seed in seeds(60) {
        let load = samples(seed, until_ms, true);
        let (oracle, mut store) = (oracle(&load), MemoryStore::new());
        TestStore::load(&mut store, &load).expect("samples ascend");
        let bench = Bench { oracle: &oracle, store: &store, engine: engine() };
        let mut dice = Dice::new(seed);
        for query in queries(seed, 30, true) {
            for when in times(&mut dice, until_ms) {
                tally.ask(&bench, "reference", seed, &query, when, "memory store");
            }
        }
    }
    tally.close("reference store");
}

#[test]
fn engine_and_oracle_agree_on_the_database_in_memory_and_on_disk() {
    let mut tally = Tally::default();
    let until_ms = 20 * MINUTE;
    for seed in seeds(15) {
        let load = samples(seed, until_ms, false);
        let oracle = oracle(&load);
        let mut dice = Dice::new(seed);
        let (mut memory, mut cut, mut log) = (DbStore::in_memory(), DbStore::on_disk(), DbStore::on_disk());
        for store in [&mut memory, &mut cut, &mut log] {
            store.load(&load).expect("samples ascend");
        }
        // In blocks to the last sample, and in three blocks and the head.
        cut.cut(until_ms + 1);
        for third in 1..=3 {
            log.cut(third * until_ms / 4 + dice.below(60_000) as i64);
        }
        let stores = [(&memory, "head"), (&cut, "one block"), (&log, "three blocks and the head")];
        for query in queries(seed, 20, false) {
            for when in times(&mut dice, until_ms) {
                for (store, place) in stores {
                    let bench = Bench { oracle: &oracle, store: store.select(), engine: engine() };
                    tally.ask(&bench, "database", seed, &query, when, place);
                }
            }
        }
    }
    tally.close("database");
}

#[test]
fn engine_and_oracle_agree_wherever_the_data_are_cut() {
    let mut tally = Tally::default();
    let until_ms = 3 * MINUTE;
    for seed in seeds(2) {
        let load = samples(seed, until_ms, false);
        let oracle = oracle(&load);
        let mut places: Vec<i64> =
            load.series.iter().flat_map(|s| s.samples.iter().map(|s| s.timestamp)).collect();
        places.sort_unstable();
        places.dedup();
        let mut dice = Dice::new(seed);
        let asked: Vec<(String, Vec<When>)> =
            queries(seed, 12, false).into_iter().map(|query| (query, times(&mut dice, until_ms))).collect();
        for place in places {
            let mut store = DbStore::on_disk();
            store.load(&load).expect("samples ascend");
            store.cut(place);
            let bench = Bench { oracle: &oracle, store: store.select(), engine: engine() };
            for (query, whens) in &asked {
                for when in whens {
                    tally.ask(&bench, "wherever", seed, query, *when, &format!("cut at {place}"));
                }
            }
        }
    }
    tally.close("cut everywhere");
}
