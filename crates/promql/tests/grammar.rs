//! Queries made up from the grammar: none makes the engine panic, and a range is its instants
//! whatever is nested in what, on floats, histograms and series that have both.
//!
//! `GRAMMAR_CASES` sets how many queries are made up, `GRAMMAR_SEED` with which one it begins.

mod common;

use std::collections::BTreeMap;
use std::ops::Range;

use tidewatch_model::{FloatHistogram, Labels, SampleValue, Value};
use tidewatch_promql::{Engine, EngineOptions, QueryContext};
use tidewatch_storage::{Run, RunValues};
use tidewatch_testkit::madeup::{Dice, QueryMaker, Scope, samples};
use tidewatch_testkit::script::LoadedSample;
use tidewatch_testkit::{MemoryStore, SampleData};

use common::{env, parse, push_floats};

/// Made-up samples in runs of every length, some of which share clocks.
fn store(seed: u64) -> MemoryStore {
    let mut dice = Dice::new(seed);
    let store = MemoryStore::new();
    let is_float = |sample: &LoadedSample| matches!(sample.data, SampleData::Float(_));
    for series in samples(seed, 15 * 60_000, true).series {
        let longest = 1 + dice.below(30);
        let of_one_kind = series.samples.chunk_by(|a, b| is_float(a) == is_float(b));
        for samples in of_one_kind.flat_map(|samples| samples.chunks(longest)) {
            push(&store, &series.labels, seed.is_multiple_of(2), samples);
        }
    }
    store
}

/// Adds samples of one kind as a run. Runs of floats with the same times have the same clock, if they have any.
fn push(store: &MemoryStore, labels: &Labels, has_clock: bool, samples: &[LoadedSample]) {
    let times: Vec<i64> = samples.iter().map(|sample| sample.timestamp).collect();
    let (mut floats, mut histograms) = (Vec::new(), Vec::new());
    for sample in samples {
        match &sample.data {
            SampleData::Float(value) => floats.push(*value),
            SampleData::Histogram(value) => histograms.push(FloatHistogram::clone(value)),
        }
    }
    if histograms.is_empty() {
        let clock = times.iter().fold(0u64, |hash, time| hash.wrapping_mul(31) ^ *time as u64);
        return push_floats(store, labels, has_clock.then_some(clock), &times, &floats);
    }
    let values = RunValues::Histograms(&histograms);
    store.push_run(labels, &Run { clock: None, timestamps: &times, values, starts: None });
}

fn text(value: &SampleValue) -> String {
    match value {
        SampleValue::Float(value) => format!("{value:.9e}"),
        SampleValue::Histogram(histogram) => histogram.to_string(),
    }
}

type Points = BTreeMap<(Labels, i64), String>;

fn points(value: &Value) -> Points {
    let mut points = Points::new();
    match value {
        Value::Vector(samples) => {
            points.extend(samples.iter().map(|s| ((s.labels.clone(), s.timestamp), text(&s.value))));
        }
        Value::Matrix(series) => {
            for series in series {
                let floats = series.floats.iter().map(|(t, v)| (*t, text(&SampleValue::Float(*v))));
                let histograms =
                    series.histograms.iter().map(|(t, h)| (*t, text(&SampleValue::Histogram(h.clone()))));
                points.extend(floats.chain(histograms).map(|(t, v)| ((series.labels.clone(), t), v)));
            }
        }
        Value::Scalar { timestamp, value } => {
            points.insert((Labels::empty(), *timestamp), text(&SampleValue::Float(*value)));
        }
        Value::String { .. } => {}
    }
    points
}

fn seeds() -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let first = number("GRAMMAR_SEED").unwrap_or(1);
    first..first + number("GRAMMAR_CASES").unwrap_or(1500)
}

#[test]
fn a_made_up_query_is_answered_alike_as_a_range_and_step_by_step() {
    for seed in seeds() {
        let scope = Scope { histograms: true, everything: true, range_calls: false };
        let query = QueryMaker::new(seed, scope).query();
        let (store, engine) = (store(seed), Engine::new(env(1), EngineOptions::default()));
        let (expr, context) = (parse(&query), QueryContext::unbounded());
        if expr.value_type() == tidewatch_parser::ValueType::Matrix {
            continue;
        }
        let range = engine.range(&store, &expr, 60_000, 740_000, 85_000, &context);
        let mut instants = Points::new();
        let mut refused = None;
        for time in (60_000..=740_000).step_by(85_000) {
            match engine.instant(&store, &expr, time, &context) {
                Ok(answer) => instants.append(&mut points(&answer.value)),
                Err(error) => refused = Some(error),
            }
        }
        match (range, refused) {
            (Ok(range), None) => {
                let range = points(&range.value);
                assert!(range == instants, "GRAMMAR_SEED={seed}: {query}\n{range:?}\n{instants:?}");
            }
            (Err(_), Some(_)) => {}
            // Series of one name at different times are an error of the range alone.
            (Err(error), None) => {
                assert!(error.to_string().contains("same labelset"), "GRAMMAR_SEED={seed}: {query}: {error}")
            }
            (Ok(_), Some(error)) => panic!("GRAMMAR_SEED={seed}: {query}: an instant is refused: {error}"),
        }
    }
}
