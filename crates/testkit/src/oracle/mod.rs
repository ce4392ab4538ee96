//! The plainest evaluator of PromQL: per step, per series, per sample, to be read in one sitting.
//!
//! ```text
//! series ─ push ─► BTreeMap ─ select ─► evaluate at one time ─ step after step ─► Value
//! ```
//!
//! What the engine does by column, in parallel and by reuse is done here by definition: a range
//! query is its instants one after the other, a window is a scan of its series, `@` is another
//! time. It is written from Prometheus 3.14's semantics and shares nothing with the engine but the
//! tree and the values: where the two agree on made-up data and made-up queries, both are right
//! or both have misread the same sentence.
//!
//! Invariants: no state between queries, and no helper of `promql`. Arithmetic is in the order
//! that Prometheus has it in, with its compensations, so that results are equal to the last digits.
//!
//! Left out, and never made up by [`crate::queries`]: delayed name removal, `__type__` and
//! `__unit__`, start timestamps, `info()`, `sort_by_label`, the histogram trim operators,
//! `histogram_stddev`, `histogram_stdvar`, `histogram_quantiles`, `histogram_fraction` on native
//! histograms, `anchored` and `smoothed` on histograms, `irate` and `idelta` on histograms, and
//! what annotations say: only whether there is a warning. The scripts in `tests/promql` cover these.

mod aggregate;
mod binary;
mod elements;
mod eval;
mod histogram;
mod labels;
mod numbers;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use tidewatch_model::{InstantSample, Labels, RangeSeries, SampleValue, Value};
use tidewatch_parser::{Expr, ValueType};

use eval::{At, Query};

/// All samples of all series, in order.
#[derive(Debug, Clone)]
pub struct Oracle {
    series: BTreeMap<Labels, BTreeMap<i64, SampleValue>>,
    /// How far back an instant selector looks for a sample.
    pub lookback_ms: i64,
    /// The step of a subquery that names none.
    pub subquery_step_ms: i64,
}

/// What a query gave, and whether it came with a warning.
#[derive(Debug, Clone)]
pub struct OracleAnswer {
    pub value: Value,
    pub warned: bool,
}

/// An element of a vector at one time.
#[derive(Debug, Clone)]
struct Element {
    labels: Labels,
    value: SampleValue,
}

/// A series of a range vector with the samples of its window.
#[derive(Debug, Clone)]
struct Window {
    labels: Labels,
    points: Vec<(i64, SampleValue)>,
}

/// What a part of a query is at one time.
#[derive(Debug, Clone)]
enum Answer {
    Scalar(f64),
    Text(String),
    Vector(Vec<Element>),
    Matrix(Vec<Window>),
}

const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

impl Default for Oracle {
    fn default() -> Self {
        Oracle { series: BTreeMap::new(), lookback_ms: 300_000, subquery_step_ms: 60_000 }
    }
}

impl Oracle {
    /// Adds a sample; a later one for the same time replaces it.
    pub fn push(&mut self, labels: &Labels, timestamp: i64, value: SampleValue) {
        self.series.entry(labels.clone()).or_default().insert(timestamp, value);
    }

    /// Evaluates `expr` at one time.
    pub fn instant(&self, expr: &Expr, at: i64) -> Result<OracleAnswer, String> {
        let query = Query::new(self, at, at, 0);
        let value = match query.evaluate(expr, At(at))? {
            Answer::Scalar(value) => Value::Scalar { timestamp: at, value },
            Answer::Text(value) => Value::String { timestamp: at, value },
            Answer::Vector(elements) => Value::Vector(
                elements
                    .into_iter()
                    .map(|Element { labels, value }| InstantSample { labels, timestamp: at, value })
                    .collect(),
            ),
            Answer::Matrix(windows) => Value::Matrix(
                windows.into_iter().map(|window| range_series(window.labels, window.points)).collect(),
            ),
        };
        Ok(OracleAnswer { value, warned: query.warned() })
    }

    /// Evaluates `expr` at `start`, `start + step`, … up to `end`.
    pub fn range(&self, expr: &Expr, start: i64, end: i64, step: i64) -> Result<OracleAnswer, String> {
        if matches!(expr.value_type(), ValueType::Matrix | ValueType::String) {
            return Err("a range query needs a scalar or an instant vector".to_owned());
        }
        let query = Query::new(self, start, end, step);
        let mut series: BTreeMap<Labels, Vec<(i64, SampleValue)>> = BTreeMap::new();
        let mut time = start;
        while time <= end {
            let elements = match query.evaluate(expr, At(time))? {
                Answer::Scalar(value) => {
                    vec![Element { labels: Labels::empty(), value: SampleValue::Float(value) }]
                }
                Answer::Vector(elements) => elements,
                Answer::Text(_) | Answer::Matrix(_) => unreachable!("the type was checked above"),
            };
            for Element { labels, value } in elements {
                series.entry(labels).or_default().push((time, value));
            }
            time += step;
        }
        let series = series.into_iter().map(|(labels, points)| range_series(labels, points));
        Ok(OracleAnswer { value: Value::Matrix(series.collect()), warned: query.warned() })
    }
}

fn range_series(labels: Labels, points: Vec<(i64, SampleValue)>) -> RangeSeries {
    let mut series = RangeSeries { labels, ..RangeSeries::default() };
    for (time, value) in points {
        match value {
            SampleValue::Float(value) => series.floats.push((time, value)),
            SampleValue::Histogram(histogram) => series.histograms.push((time, histogram)),
        }
    }
    series
}

/// A vector has each label set once.
fn distinct(elements: Vec<Element>) -> Result<Answer, String> {
    let labels: BTreeSet<&Labels> = elements.iter().map(|element| &element.labels).collect();
    if labels.len() < elements.len() {
        return Err(SAME_LABELS.to_owned());
    }
    Ok(Answer::Vector(elements))
}
