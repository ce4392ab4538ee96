//! What a real Prometheus answered to the queries of its compliance suite and of a dashboard.

mod common;

use std::collections::BTreeMap;

use common::db::DbStore;
use serde_json::Value as Json;
use tidewatch_conformance::{folder, say};
use tidewatch_model::{Labels, SampleValue, Value};
use tidewatch_parser::{ParserOptions, parse_expr};
use tidewatch_promql::{Engine, EngineOptions, QueryContext};
use tidewatch_testkit::script::{Command, Script};
use tidewatch_testkit::{MemoryStore, TestStore, almost_equal};

/// The relative error that a recorded number may differ by.
const EPSILON: f64 = 1e-9;

/// Where 3.14 answers otherwise than the 2.42 that was recorded.
const KNOWN_DIFFERENCES: [&str; 4] = [
    // 2.42 refused this label name.
    "~invalid",
    // The first samples of these windows are missing, and resets make the growth large. 2.42
    // extrapolated to the point where the counter was zero before it asked whether that is near
    // enough; now half an interval is the most that is added then.
    r#"rate(node_interrupts_total{instance="localhost:9100",job="node"}[5m])"#,
    r#"rate(node_disk_io_time_weighted_seconds_total{instance="localhost:9100",job="node"}[5m])"#,
    "avg_over_time(rate(demo_cpu_usage_seconds_total[1m])[2m:10s])",
];

/// Values of series by time, whatever form the answer had.
type Points = BTreeMap<Labels, Vec<(i64, f64)>>;

#[test]
fn demo_answers_equal_those_of_a_real_prometheus() {
    check("demo", &mut MemoryStore::new());
}

#[test]
fn node_answers_equal_those_of_a_real_prometheus() {
    check("node", &mut MemoryStore::new());
}

#[test]
fn answers_from_blocks_equal_those_of_a_real_prometheus() {
    check("demo", &mut DbStore::on_disk());
    check("node", &mut DbStore::on_disk());
}

#[track_caller]
fn check(name: &str, store: &mut dyn TestStore) {
    let Some(folder) = folder(&format!("recorded/{name}")) else { return };
    load(&std::fs::read_to_string(folder.join("data.test")).expect("the data are there"), store);
    let engine = common::engine(EngineOptions::default());
    let results = std::fs::read_to_string(folder.join("results.jsonl")).expect("the answers are there");
    let (mut compared, mut skipped, mut failures) = (0, Vec::new(), Vec::new());
    for line in results.lines() {
        let case: Json = serde_json::from_str(line).expect("a line is JSON");
        let query = case["query"].as_str().expect("a query");
        if KNOWN_DIFFERENCES.iter().any(|known| query.contains(known)) {
            skipped.push(query.to_owned());
            continue;
        }
        compared += 1;
        if let Err(why) = compare(&engine, store, query, &case) {
            failures.push(format!("{query}: {why}"));
        }
    }
    say(&format!(
        "recorded/{name}: {} of {compared} queries equal, {} not compared: {skipped:?}",
        compared - failures.len(),
        skipped.len()
    ));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn load(text: &str, store: &mut dyn TestStore) {
    for command in Script::parse(text, &ParserOptions::stable()).commands {
        match command {
            Command::Load(load) => store.load(&load).expect("the samples ascend"),
            other => panic!("data.test only loads: {other:?}"),
        }
    }
}

fn compare(engine: &Engine, store: &dyn TestStore, query: &str, case: &Json) -> Result<(), String> {
    let context = QueryContext::unbounded();
    let expr = parse_expr(query, &ParserOptions::stable());
    let ms = |seconds: &Json| (seconds.as_f64().expect("a time") * 1000.0).round() as i64;
    for instant in case["instant"].as_array().into_iter().flatten() {
        let at = ms(&instant["time"]);
        let found = match &expr {
            Err(error) => Err(error.to_string()),
            Ok(expr) => engine
                .instant(store.select(), expr, at, &context)
                .map(|answer| points(&answer.value))
                .map_err(|error| error.to_string()),
        };
        same(found, instant).map_err(|why| format!("at {at}: {why}"))?;
    }
    let range = &case["range"];
    if range.is_object() {
        let found = match &expr {
            Err(error) => Err(error.to_string()),
            Ok(expr) => engine
                .range(
                    store.select(),
                    expr,
                    ms(&range["start"]),
                    ms(&range["end"]),
                    ms(&range["step"]),
                    &context,
                )
                .map(|answer| points(&answer.value))
                .map_err(|error| error.to_string()),
        };
        same(found, range).map_err(|why| format!("as a range: {why}"))?;
    }
    Ok(())
}

/// Compares with a recorded answer, which has `data`, or else an error.
fn same(found: Result<Points, String>, recorded: &Json) -> Result<(), String> {
    let Some(data) = recorded.get("data").filter(|data| data.is_object()) else {
        return match found {
            Err(_) => Ok(()),
            Ok(points) => Err(format!("Prometheus refuses it, we give {} series", points.len())),
        };
    };
    let (found, wanted) = (found?, recorded_points(data));
    if let Some(extra) = found.keys().find(|labels| !wanted.contains_key(*labels)) {
        return Err(format!("{extra} is too much"));
    }
    for (labels, wanted) in &wanted {
        let Some(found) = found.get(labels) else { return Err(format!("{labels} is missing")) };
        if found.len() != wanted.len() {
            return Err(format!("{labels} has {} points, not {}", found.len(), wanted.len()));
        }
        for ((t, value), (wanted_t, wanted_value)) in found.iter().zip(wanted) {
            if t != wanted_t || !almost_equal(*value, *wanted_value, EPSILON) {
                return Err(format!("{labels} is {value} at {t}, not {wanted_value} at {wanted_t}"));
            }
        }
    }
    Ok(())
}

fn points(value: &Value) -> Points {
    let float = |value: &SampleValue| match value {
        SampleValue::Float(value) => *value,
        SampleValue::Histogram(_) => panic!("the data have no histograms"),
    };
    match value {
        Value::Scalar { timestamp, value } => [(Labels::empty(), vec![(*timestamp, *value)])].into(),
        Value::String { .. } => Points::new(),
        Value::Vector(samples) => {
            samples.iter().map(|s| (s.labels.clone(), vec![(s.timestamp, float(&s.value))])).collect()
        }
        Value::Matrix(series) => series.iter().map(|s| (s.labels.clone(), s.floats.clone())).collect(),
    }
}

fn recorded_points(data: &Json) -> Points {
    let point = |pair: &Json| {
        let number: f64 = pair[1].as_str().expect("a number in quotes").parse().expect("a number");
        ((pair[0].as_f64().expect("a time") * 1000.0).round() as i64, number)
    };
    match data["resultType"].as_str() {
        Some("scalar") => [(Labels::empty(), vec![point(&data["result"])])].into(),
        Some("string") => Points::new(),
        _ => {
            let series = data["result"].as_array().expect("a list of series");
            series
                .iter()
                .map(|series| {
                    let metric = series["metric"].as_object().expect("labels");
                    let labels =
                        Labels::from_pairs(metric.iter().map(|(n, v)| (n, v.as_str().expect("a text"))));
                    let values = series["values"].as_array();
                    let points = values.map_or_else(
                        || vec![point(&series["value"])],
                        |values| values.iter().map(point).collect(),
                    );
                    (labels, points)
                })
                .collect()
        }
    }
}
