//! Test files: YAML to plain values.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use tidewatch_model::Labels;
use tidewatch_yaml::{Node, YamlError, parse_unique};

use super::compare::Alert;
use super::{AlertTest, ExpectedSample, ExprTest, InputSeries, TestFile, TestGroup};
use crate::reader::{Fields, Reader, parse_bool, parse_float};

const EVALUATION_INTERVAL_MS: i64 = 60_000;

impl TestFile {
    /// Reads a test file; `name` is its path. Unknown fields are refused always. Every mistake is
    /// reported, with its place.
    pub fn parse(text: &str, name: &str) -> Result<TestFile, Vec<String>> {
        let place = |error: YamlError| format!("{name}: {}:{}: {}", error.line, error.column, error.message);
        let root = parse_unique(text).map_err(|error| vec![place(error)])?;
        let reader = Reader::new(false);
        let file = read_file(&reader, &root, name);
        let mut errors = reader.finish();
        errors.sort_by_key(|error| (error.line, error.column));
        if errors.is_empty() { Ok(file) } else { Err(errors.into_iter().map(place).collect()) }
    }
}

fn read_file(reader: &Reader, root: &Node, name: &str) -> TestFile {
    const KNOWN: [&str; 5] =
        ["rule_files", "evaluation_interval", "group_eval_order", "tests", "fuzzy_compare"];
    let fields = reader.fields(root, "a test file", &KNOWN);
    let field = |name: &str| fields.get(name).copied();
    let texts = |name: &str| reader.items(field(name)).into_iter().map(|node| reader.text(node)).collect();
    let evaluation_interval_ms = nonzero(reader.duration_ms(field("evaluation_interval")));
    let evaluation_interval_ms = evaluation_interval_ms.unwrap_or(EVALUATION_INTERVAL_MS);
    let group_eval_order: Vec<String> = texts("group_eval_order");
    let mut seen = HashSet::new();
    if let Some(repeated) = group_eval_order.iter().find(|group| !seen.insert(*group)) {
        let node = field("group_eval_order").expect("it has elements");
        reader.error(node, format!("group name repeated in evaluation order: {repeated}"));
    }
    let tests = reader.items(field("tests")).into_iter().enumerate();
    TestFile {
        name: name.to_owned(),
        rule_files: texts("rule_files"),
        evaluation_interval_ms,
        group_eval_order,
        fuzzy_compare: reader.value(field("fuzzy_compare"), parse_bool).unwrap_or(false),
        tests: tests.map(|(index, node)| read_group(reader, node, index, evaluation_interval_ms)).collect(),
    }
}

fn nonzero(duration_ms: Option<i64>) -> Option<i64> {
    duration_ms.filter(|duration_ms| *duration_ms > 0)
}

fn read_group(reader: &Reader, node: &Node, index: usize, interval_ms: i64) -> TestGroup {
    const KNOWN: [&str; 8] = [
        "name",
        "interval",
        "input_series",
        "alert_rule_test",
        "promql_expr_test",
        "external_labels",
        "external_url",
        "start_timestamp",
    ];
    let fields = reader.fields(node, "a test group", &KNOWN);
    let field = |name: &str| fields.get(name).copied();
    let items = |name: &str| reader.items(field(name)).into_iter();
    TestGroup {
        name: reader.optional_text(field("name")),
        index,
        interval_ms: nonzero(reader.duration_ms(field("interval"))).unwrap_or(interval_ms),
        start_ms: reader.value(field("start_timestamp"), parse_start_ms).unwrap_or(0),
        input_series: items("input_series").map(|node| read_series(reader, node)).collect(),
        alert_tests: items("alert_rule_test").map(|node| read_alert_test(reader, node)).collect(),
        expr_tests: items("promql_expr_test").map(|node| read_expr_test(reader, node)).collect(),
        external_labels: Labels::from_pairs(reader.texts(field("external_labels"))),
        external_url: reader.optional_text(field("external_url")),
    }
}

/// Seconds since the epoch, or a time as RFC 3339 writes it.
fn parse_start_ms(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = seconds * 1000.0;
        let in_range = ms.abs() < 1e15;
        return if in_range { Ok(ms as i64) } else { Err(format!("time {text} is out of range")) };
    }
    let time = text.parse::<Timestamp>();
    time.map(Timestamp::as_millisecond).map_err(|_| format!("cannot parse {text:?} to a valid timestamp"))
}

fn read_series(reader: &Reader, node: &Node) -> InputSeries {
    let fields = reader.fields(node, "an input series", &["series", "values"]);
    let text = |name: &str| reader.optional_text(fields.get(name).copied());
    InputSeries { series: text("series"), values: text("values") }
}

fn eval_time_ms(reader: &Reader, fields: &Fields<'_>) -> i64 {
    reader.duration_ms(fields.get("eval_time").copied()).unwrap_or(0)
}

fn read_alert_test(reader: &Reader, node: &Node) -> AlertTest {
    let fields = reader.fields(node, "an alert test", &["eval_time", "alertname", "exp_alerts"]);
    let alert = reader.optional_text(fields.get("alertname").copied());
    if alert.is_empty() {
        reader.error(node, "an item under alert_rule_test misses required attribute alertname");
    }
    let expected = reader.items(fields.get("exp_alerts").copied()).into_iter().map(|node| {
        let fields = reader.fields(node, "an expected alert", &["exp_labels", "exp_annotations"]);
        let mut labels: BTreeMap<String, String> = reader.texts(fields.get("exp_labels").copied());
        // The rule adds it, so that people leave it out.
        labels.insert("alertname".to_owned(), alert.clone());
        Alert {
            labels: Labels::from_pairs(labels),
            annotations: reader.texts(fields.get("exp_annotations").copied()),
        }
    });
    let expected = expected.collect();
    AlertTest { eval_time_ms: eval_time_ms(reader, &fields), alert, expected }
}

fn read_expr_test(reader: &Reader, node: &Node) -> ExprTest {
    let fields = reader.fields(node, "an expression test", &["expr", "eval_time", "exp_samples"]);
    let expected = reader.items(fields.get("exp_samples").copied()).into_iter().map(|node| {
        let fields = reader.fields(node, "an expected sample", &["labels", "value", "histogram"]);
        ExpectedSample {
            labels: reader.optional_text(fields.get("labels").copied()),
            value: reader.value(fields.get("value").copied(), parse_float).unwrap_or(0.0),
            histogram: reader.optional_text(fields.get("histogram").copied()),
        }
    });
    let expected = expected.collect();
    let expr = reader.optional_text(fields.get("expr").copied());
    ExprTest { eval_time_ms: eval_time_ms(reader, &fields), expr, expected }
}
