//! Queries made up from the grammar: none makes the engine panic, and a range is its instants
//! whatever is nested in what, on floats, histograms and series that have both.

mod common;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::string::string_regex;
use tidewatch_model::histogram::{CounterResetHint, Span};
use tidewatch_model::{FloatHistogram, Labels, STALE_NAN, SampleValue, Value};
use tidewatch_promql::{Engine, EngineOptions, QueryContext};

use common::{Piece, TinyStore, Values, env, parse};

fn scalar() -> BoxedStrategy<String> {
    prop_oneof![
        string_regex("[0-9]{1,2}(\\.5)?").expect("a pattern"),
        Just("time()".to_owned()),
        Just("scalar(m{i=\"1\"})".to_owned()),
        Just("NaN".to_owned()),
        Just("-Inf".to_owned()),
        Just("(1 - 0.7)".to_owned()),
    ]
    .boxed()
}

fn selector() -> BoxedStrategy<String> {
    let name = prop_oneof![
        4 => Just("m"),
        2 => Just("h"),
        2 => Just("mixed"),
        1 => Just("m{i!=\"0\"}"),
        1 => Just("b_bucket"),
        1 => Just("none"),
    ];
    let shift = prop_oneof![
        4 => Just(""),
        1 => Just(" offset 45s"),
        1 => Just(" offset -45s"),
        1 => Just(" @ 300"),
        1 => Just(" @ end() offset 1m"),
    ];
    // What stands behind a range is put there by the caller.
    (name, shift).prop_map(|(name, shift)| format!("{name}|{shift}")).boxed()
}

fn at(selector: &str, range: &str) -> String {
    selector.replacen('|', range, 1)
}

const OVER_TIME: [&str; 28] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "resets",
    "changes",
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "first_over_time",
    "present_over_time",
    "absent_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "mad_over_time",
    "deriv",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_max_over_time",
    "ts_of_min_over_time",
    "histogram_sum",
    "abs",
    "rate",
    "sum_over_time",
];

const PLAIN: [&str; 14] = [
    "abs",
    "ceil",
    "exp",
    "sgn",
    "histogram_count",
    "histogram_sum",
    "histogram_avg",
    "histogram_stddev",
    "absent",
    "timestamp",
    "hour",
    "-",
    "+",
    "sort",
];

fn vector() -> BoxedStrategy<String> {
    let range = prop_oneof![Just("[2m]"), Just("[90s]"), Just("[10s]")];
    let windowed = (0..24usize, selector(), range)
        .prop_map(|(function, selector, range)| format!("{}({})", OVER_TIME[function], at(&selector, range)));
    let leaf = prop_oneof![
        2 => selector().prop_map(|selector| at(&selector, "")),
        3 => windowed,
        1 => scalar().prop_map(|value| format!("vector({value})")),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let operator = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "^", "==", "!=", ">", "<=", "> bool", "atan2", "</", ">/",
        ]);
        let matching = prop::sample::select(vec![
            "",
            "on (i)",
            "ignoring (g)",
            "on (g) group_left ()",
            "on (i) group_right ()",
            "fill (1)",
        ]);
        let aggregation = prop::sample::select(vec![
            "sum",
            "avg",
            "min",
            "max",
            "count",
            "group",
            "stddev",
            "stdvar",
            "quantile(0.3, ",
            "count_values(\"v\", ",
        ]);
        let grouping = prop::sample::select(vec!["", "by (g)", "without (i)", "by (i, g)"]);
        let set = prop::sample::select(vec!["and", "or", "unless", "and on (i)", "or on (g)"]);
        prop_oneof![
            (0..PLAIN.len(), inner.clone()).prop_map(|(f, v)| format!("{}({v})", PLAIN[f])),
            (inner.clone(), operator.clone(), matching, inner.clone())
                .prop_map(|(a, op, matching, b)| format!("(({a}) {op} {matching} ({b}))")),
            (inner.clone(), operator.clone(), scalar()).prop_map(|(v, op, s)| format!("(({v}) {op} {s})")),
            (scalar(), operator, inner.clone()).prop_map(|(s, op, v)| format!("({s} {op} ({v}))")),
            (inner.clone(), set, inner.clone()).prop_map(|(a, op, b)| format!("(({a}) {op} ({b}))")),
            (aggregation, grouping, inner.clone()).prop_map(|(op, by, v)| match op.strip_suffix(", ") {
                Some(_) => format!("{op}{v}) {by}"),
                None => format!("{op} {by} ({v})"),
            }),
            (0..24usize, inner.clone()).prop_map(|(f, v)| format!("{}(({v})[3m:40s])", OVER_TIME[f])),
            (scalar(), inner.clone()).prop_map(|(q, v)| format!("histogram_quantile({q}, {v})")),
            (scalar(), scalar(), inner.clone())
                .prop_map(|(a, b, v)| format!("histogram_fraction({a}, {b}, {v})")),
            (scalar(), inner.clone()).prop_map(|(s, v)| format!("clamp_max({v}, {s})")),
            inner.prop_map(|v| format!(r#"label_replace({v}, "x", "$1", "i", "(.)")"#)),
        ]
    })
    .boxed()
}

fn labels(name: &str, pairs: &[(&str, String)]) -> Labels {
    let name = ("__name__", name.to_owned());
    Labels::from_pairs(std::iter::once(name).chain(pairs.iter().cloned()))
}

fn floats(start: i64, count: i64, value: impl Fn(i64) -> f64) -> Piece {
    let times = (0..count).map(|t| start + t * 20_000).collect();
    Piece { clock: Some(start as u64), times, values: Values::Floats((0..count).map(value).collect()) }
}

fn histograms(start: i64, count: i64, schema: i32, hint: CounterResetHint) -> Piece {
    let histogram = |n: i64| {
        let n = (n % 9 + 1) as f64;
        FloatHistogram {
            hint,
            schema,
            count: 4.0 * n,
            sum: n,
            zero_threshold: 0.001,
            zero_count: n,
            positive_spans: vec![Span { offset: -1, length: 2 }],
            positive_buckets: vec![n, n],
            negative_spans: vec![Span { offset: 1, length: 1 }],
            negative_buckets: vec![n],
            ..FloatHistogram::default()
        }
    };
    let times = (0..count).map(|t| start + t * 20_000).collect();
    Piece { clock: None, times, values: Values::Histograms((0..count).map(histogram).collect()) }
}

fn custom(start: i64, count: i64) -> Piece {
    let histogram = |n: i64| FloatHistogram {
        schema: -53,
        count: (3 * n) as f64,
        sum: n as f64,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_buckets: vec![n as f64, (2 * n) as f64],
        custom_values: Some([1.0, 5.0].into()),
        ..FloatHistogram::default()
    };
    let times = (0..count).map(|t| start + t * 20_000).collect();
    Piece { clock: None, times, values: Values::Histograms((0..count).map(histogram).collect()) }
}

fn store() -> TinyStore {
    let set = |name: &str, i: usize| labels(name, &[("i", i.to_string()), ("g", (i % 2).to_string())]);
    let mut series = vec![
        (set("m", 0), vec![floats(0, 40, |t| ((t * 7) % 23) as f64)]),
        (set("m", 1), vec![floats(5000, 10, |t| t as f64), floats(405_000, 12, |t| (t * t) as f64)]),
        (set("m", 2), vec![floats(0, 30, |t| if t == 14 { STALE_NAN } else { -(t as f64) })]),
        (set("h", 0), vec![histograms(0, 35, 0, CounterResetHint::Unknown)]),
        (set("h", 1), vec![histograms(0, 35, 2, CounterResetHint::Gauge)]),
        (set("h", 2), vec![custom(0, 35)]),
        (
            set("mixed", 0),
            vec![floats(0, 12, |t| t as f64), histograms(300_000, 12, 1, CounterResetHint::Unknown)],
        ),
    ];
    for (n, le) in ["1", "5", "+Inf"].into_iter().enumerate() {
        let labels = labels("b_bucket", &[("le", le.to_owned())]);
        series.push((labels, vec![floats(0, 40, move |t| ((t + 1) * (n as i64 + 1)) as f64)]));
    }
    TinyStore::new(series)
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
        Value::Scalar { .. } | Value::String { .. } => {}
    }
    points
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_made_up_query_is_answered_alike_as_a_range_and_step_by_step(query in vector()) {
        // The end of a range is not the end of each of its instants.
        let query = query.replace("@ end()", "@ 500");
        let (store, engine) = (store(), Engine::new(env(1), EngineOptions::default()));
        let (expr, context) = (parse(&query), QueryContext::unbounded());
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
            (Ok(range), None) => prop_assert_eq!(points(&range.value), instants, "{}", query),
            (Err(_), Some(_)) => {}
            // Series of one name at different times are an error of the range alone.
            (Err(error), None) => prop_assert!(
                error.to_string().contains("same labelset"), "{}: {}", query, error
            ),
            (Ok(_), Some(error)) => prop_assert!(false, "{}: an instant is refused: {}", query, error),
        }
    }
}
