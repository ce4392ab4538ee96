//! The tree at one time.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use tidewatch_model::{Labels, Matcher, SampleValue, is_stale};
use tidewatch_parser as ast;
use tidewatch_parser::{Call, Duration, DurationExpr, DurationOp, Expr, FunctionId, RangeModifier, UnaryOp};

use super::{
    Answer, Element, Oracle, Window, aggregate, binary, distinct, elements, histogram, labels, windows,
};

/// The time of an evaluation, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(pub i64);

/// A query on its way.
pub(super) struct Query<'a> {
    oracle: &'a Oracle,
    start: i64,
    end: i64,
    /// 0 where the query is for one time.
    step: i64,
    warned: Cell<bool>,
}

impl<'a> Query<'a> {
    pub(super) fn new(oracle: &'a Oracle, start: i64, end: i64, step: i64) -> Query<'a> {
        Query { oracle, start, end, step, warned: Cell::new(false) }
    }

    pub(super) fn warned(&self) -> bool {
        self.warned.get()
    }

    pub(super) fn warn(&self) {
        self.warned.set(true);
    }

    pub(super) fn evaluate(&self, expr: &Expr, at: At) -> Result<Answer, String> {
        match expr {
            Expr::Number(number) => Ok(Answer::Scalar(number.value)),
            Expr::String(text) => Ok(Answer::Text(text.value.clone())),
            Expr::Paren(paren) => self.evaluate(&paren.expr, at),
            Expr::Vector(selector) => self.instant_vector(selector, at),
            Expr::Matrix(matrix) => self.range_vector(matrix, at).map(Answer::Matrix),
            Expr::Subquery(subquery) => self.subquery(subquery, at).map(Answer::Matrix),
            Expr::Unary(unary) => self.unary(unary, at),
            Expr::Binary(expr) => {
                let (lhs, rhs) = (self.evaluate(&expr.lhs, at)?, self.evaluate(&expr.rhs, at)?);
                binary::combine(self, expr, lhs, rhs)
            }
            Expr::Aggregate(expr) => {
                let param = expr.param.as_ref().map(|param| self.evaluate(param, at)).transpose()?;
                aggregate::aggregate(self, expr, param, self.vector(&expr.expr, at)?)
            }
            Expr::Call(call) => self.call(call, at),
        }
    }

    pub(super) fn vector(&self, expr: &Expr, at: At) -> Result<Vec<Element>, String> {
        match self.evaluate(expr, at)? {
            Answer::Vector(elements) => Ok(elements),
            other => unreachable!("the parser wants a vector here: {other:?}"),
        }
    }

    pub(super) fn scalar(&self, expr: &Expr, at: At) -> Result<f64, String> {
        match self.evaluate(expr, at)? {
            Answer::Scalar(value) => Ok(value),
            other => unreachable!("the parser wants a scalar here: {other:?}"),
        }
    }

    pub(super) fn text(&self, expr: &Expr, at: At) -> Result<String, String> {
        match self.evaluate(expr, at)? {
            Answer::Text(value) => Ok(value),
            other => unreachable!("the parser wants a string here: {other:?}"),
        }
    }

    fn unary(&self, unary: &ast::UnaryExpr, at: At) -> Result<Answer, String> {
        let value = self.evaluate(&unary.expr, at)?;
        match (unary.op, value) {
            (UnaryOp::Plus, value) => Ok(value),
            (UnaryOp::Minus, Answer::Scalar(value)) => Ok(Answer::Scalar(-value)),
            (UnaryOp::Minus, Answer::Vector(elements)) => distinct(
                elements
                    .into_iter()
                    .map(|element| Element {
                        labels: element.labels.without_metric_name(),
                        value: match element.value {
                            SampleValue::Float(value) => SampleValue::Float(-value),
                            SampleValue::Histogram(mut histogram) => {
                                Arc::make_mut(&mut histogram).mul(-1.0);
                                SampleValue::Histogram(histogram)
                            }
                        },
                    })
                    .collect(),
            ),
            (UnaryOp::Minus, other) => unreachable!("the parser refuses a minus before {other:?}"),
        }
    }

    /// Where a selector looks: at `@` if it has one, then back by its offset.
    fn moved(&self, at: At, fixed: Option<ast::At>, offset: &Duration) -> Result<i64, String> {
        let base = match fixed {
            Some(ast::At::Timestamp(time)) => time,
            Some(ast::At::Start) => self.start,
            Some(ast::At::End) => self.end,
            None => at.0,
        };
        Ok(base - self.milliseconds(offset, false)?)
    }

    fn matching(
        &self,
        matchers: &[Matcher],
    ) -> impl Iterator<Item = (&'a Labels, &'a BTreeMap<i64, SampleValue>)> {
        let matches = move |labels: &Labels| {
            matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
        };
        self.oracle.series.iter().filter(move |(labels, _)| matches(labels))
    }

    /// For each series the time and the value of its newest sample in the lookback.
    pub(super) fn newest(
        &self,
        selector: &ast::VectorSelector,
        at: At,
    ) -> Result<Vec<(i64, Element)>, String> {
        let until = self.moved(at, selector.at, &selector.offset)?;
        let since = until - self.oracle.lookback_ms;
        let mut found = Vec::new();
        for (labels, samples) in self.matching(&selector.matchers) {
            let newest = samples.range(since + 1..=until).next_back();
            if let Some((time, value)) = newest.filter(|(_, value)| !is_marker(value)) {
                found.push((*time, Element { labels: labels.clone(), value: value.clone() }));
            }
        }
        Ok(found)
    }

    fn instant_vector(&self, selector: &ast::VectorSelector, at: At) -> Result<Answer, String> {
        if selector.modifier == Some(RangeModifier::Smoothed) {
            return self.smoothed_vector(selector, at);
        }
        Ok(Answer::Vector(self.newest(selector, at)?.into_iter().map(|(_, element)| element).collect()))
    }

    /// `metric smoothed`: on the line between the samples before and after.
    fn smoothed_vector(&self, selector: &ast::VectorSelector, at: At) -> Result<Answer, String> {
        let time = self.moved(at, selector.at, &selector.offset)?;
        let lookback = self.oracle.lookback_ms;
        let mut elements = Vec::new();
        for (labels, samples) in self.matching(&selector.matchers) {
            let floats: Vec<(i64, f64)> = samples
                .range(time - lookback + 1..=time + lookback)
                .filter(|(_, value)| !is_marker(value))
                .filter_map(|(t, value)| Some((*t, float(value)?)))
                .collect();
            let before = floats.iter().rev().find(|(t, _)| *t <= time);
            let after = floats.iter().find(|(t, _)| *t >= time);
            let value = match (before, after) {
                (Some((_, before)), None) => *before,
                (Some((t0, before)), Some((t1, _))) if t0 == t1 => *before,
                (Some((t0, before)), Some((t1, after))) => {
                    before + (after - before) * (time - t0) as f64 / (t1 - t0) as f64
                }
                (None, _) => continue,
            };
            elements.push(Element { labels: labels.clone(), value: SampleValue::Float(value) });
        }
        Ok(Answer::Vector(elements))
    }

    fn range_vector(&self, matrix: &ast::MatrixSelector, at: At) -> Result<Vec<Window>, String> {
        let until = self.moved(at, matrix.selector.at, &matrix.selector.offset)?;
        let since = until - self.milliseconds(&matrix.range, true)?;
        let lookback = self.oracle.lookback_ms;
        // What is anchored or smoothed needs the neighbours of the window too.
        let (since, until) = match matrix.selector.modifier {
            None => (since, until),
            Some(RangeModifier::Anchored) => (since - lookback, until),
            Some(RangeModifier::Smoothed) => (since - lookback, until + lookback),
        };
        let mut found = Vec::new();
        for (labels, samples) in self.matching(&matrix.selector.matchers) {
            let points: Vec<(i64, SampleValue)> = samples
                .range(since + 1..=until)
                .filter(|(_, value)| !is_marker(value))
                .map(|(time, value)| (*time, value.clone()))
                .collect();
            if !points.is_empty() {
                found.push(Window { labels: labels.clone(), points });
            }
        }
        Ok(found)
    }

    /// The inner expression at every multiple of the step within the range.
    fn subquery(&self, subquery: &ast::SubqueryExpr, at: At) -> Result<Vec<Window>, String> {
        let until = self.moved(at, subquery.at, &subquery.offset)?;
        let since = until - self.milliseconds(&subquery.range, true)?;
        let step = match &subquery.step {
            Some(step) => self.milliseconds(step, true)?,
            None => self.oracle.subquery_step_ms,
        };
        let mut found: Vec<Window> = Vec::new();
        let mut time = (since.div_euclid(step) + 1) * step;
        while time <= until {
            for Element { labels, value } in self.vector_or_scalar(&subquery.expr, At(time))? {
                match found.iter_mut().find(|window| window.labels == labels) {
                    Some(window) => window.points.push((time, value)),
                    None => found.push(Window { labels, points: vec![(time, value)] }),
                }
            }
            time += step;
        }
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }

    fn vector_or_scalar(&self, expr: &Expr, at: At) -> Result<Vec<Element>, String> {
        match self.evaluate(expr, at)? {
            Answer::Scalar(value) => {
                Ok(vec![Element { labels: Labels::empty(), value: SampleValue::Float(value) }])
            }
            Answer::Vector(elements) => Ok(elements),
            other => unreachable!("the parser refuses a subquery of {other:?}"),
        }
    }

    fn call(&self, call: &Call, at: At) -> Result<Answer, String> {
        use FunctionId as F;
        let args = &call.args;
        match call.function.id {
            F::Time => Ok(Answer::Scalar(at.0 as f64 / 1000.0)),
            F::Start => Ok(Answer::Scalar(self.start as f64 / 1000.0)),
            F::End => Ok(Answer::Scalar(self.end as f64 / 1000.0)),
            F::Step => Ok(Answer::Scalar(self.step as f64 / 1000.0)),
            F::Range => Ok(Answer::Scalar((self.end - self.start) as f64 / 1000.0)),
            F::Pi => Ok(Answer::Scalar(std::f64::consts::PI)),
            F::MinOf => {
                Ok(Answer::Scalar(elements::go_min(self.scalar(&args[0], at)?, self.scalar(&args[1], at)?)))
            }
            F::MaxOf => {
                Ok(Answer::Scalar(elements::go_max(self.scalar(&args[0], at)?, self.scalar(&args[1], at)?)))
            }
            F::ScalarOf => Ok(Answer::Scalar(elements::only_float(&self.vector(&args[0], at)?))),
            F::VectorOf => {
                let value = SampleValue::Float(self.scalar(&args[0], at)?);
                Ok(Answer::Vector(vec![Element { labels: Labels::empty(), value }]))
            }
            F::Timestamp => elements::timestamp(self, &args[0], at),
            F::Absent => Ok(labels::absent(&args[0], !self.vector(&args[0], at)?.is_empty())),
            F::AbsentOverTime => Ok(labels::absent(&args[0], !self.windows(&args[0], at)?.is_empty())),
            F::LabelReplace => labels::replace(self, args, at),
            F::LabelJoin => labels::join(self, args, at),
            F::HistogramQuantile => {
                let (q, vector) = (self.scalar(&args[0], at)?, self.vector(&args[1], at)?);
                histogram::quantile(self, q, vector)
            }
            F::HistogramFraction => {
                let (lower, upper) = (self.scalar(&args[0], at)?, self.scalar(&args[1], at)?);
                histogram::fraction(self, lower, upper, self.vector(&args[2], at)?)
            }
            _ => match args.iter().position(|arg| arg.value_type() == ast::ValueType::Matrix) {
                Some(matrix) => {
                    let numbers: Vec<f64> = args
                        .iter()
                        .filter(|arg| arg.value_type() == ast::ValueType::Scalar)
                        .map(|arg| self.scalar(arg, at))
                        .collect::<Result<_, _>>()?;
                    let windows = self.windows(&args[matrix], at)?;
                    let bounds = self.bounds(&args[matrix], at)?;
                    windows::call(self, call.function.id, &numbers, windows, bounds)
                }
                None => elements::call(self, call, at),
            },
        }
    }

    fn windows(&self, expr: &Expr, at: At) -> Result<Vec<Window>, String> {
        match self.evaluate(expr, at)? {
            Answer::Matrix(windows) => Ok(windows),
            other => unreachable!("the parser wants a range vector here: {other:?}"),
        }
    }

    /// The edges of a range vector.
    fn bounds(&self, expr: &Expr, at: At) -> Result<windows::Bounds, String> {
        match expr {
            Expr::Paren(paren) => self.bounds(&paren.expr, at),
            Expr::Matrix(matrix) => {
                let end = self.moved(at, matrix.selector.at, &matrix.selector.offset)?;
                let range = self.milliseconds(&matrix.range, true)?;
                Ok(windows::Bounds { end, range, now: at.0, modifier: matrix.selector.modifier })
            }
            Expr::Subquery(subquery) => {
                let end = self.moved(at, subquery.at, &subquery.offset)?;
                let range = self.milliseconds(&subquery.range, true)?;
                Ok(windows::Bounds { end, range, now: at.0, modifier: None })
            }
            other => unreachable!("not a range vector: {other:?}"),
        }
    }

    fn milliseconds(&self, duration: &Duration, positive: bool) -> Result<i64, String> {
        let expr = match duration {
            Duration::Fixed(milliseconds) => return Ok(*milliseconds),
            Duration::Computed(expr) => expr,
        };
        let seconds = self.seconds(expr)?;
        if positive && (seconds <= 0.0 || seconds.is_nan()) {
            return Err("duration must be greater than 0".to_owned());
        }
        if seconds.is_nan() || seconds.abs() > i64::MAX as f64 / 1e9 {
            return Err("duration is out of range".to_owned());
        }
        Ok((seconds * 1000.0) as i64)
    }

    fn seconds(&self, expr: &DurationExpr) -> Result<f64, String> {
        Ok(match expr {
            DurationExpr::Number(number) => number.value,
            DurationExpr::Step { .. } => self.step as f64 / 1000.0,
            DurationExpr::Range { .. } => (self.end - self.start) as f64 / 1000.0,
            DurationExpr::Negate { operand, .. } => -self.seconds(operand)?,
            DurationExpr::Paren { inner, .. } => self.seconds(inner)?,
            DurationExpr::MinOf { lhs, rhs, .. } => elements::go_min(self.seconds(lhs)?, self.seconds(rhs)?),
            DurationExpr::MaxOf { lhs, rhs, .. } => elements::go_max(self.seconds(lhs)?, self.seconds(rhs)?),
            DurationExpr::Binary { op, lhs, rhs, .. } => {
                let (lhs, rhs) = (self.seconds(lhs)?, self.seconds(rhs)?);
                match op {
                    DurationOp::Add => lhs + rhs,
                    DurationOp::Sub => lhs - rhs,
                    DurationOp::Mul => lhs * rhs,
                    DurationOp::Div if rhs == 0.0 => return Err("division by zero".to_owned()),
                    DurationOp::Div => lhs / rhs,
                    DurationOp::Mod if rhs == 0.0 => return Err("modulo by zero".to_owned()),
                    DurationOp::Mod => lhs % rhs,
                    DurationOp::Pow => lhs.powf(rhs),
                }
            }
        })
    }
}

pub(super) fn float(value: &SampleValue) -> Option<f64> {
    match value {
        SampleValue::Float(value) => Some(*value),
        SampleValue::Histogram(_) => None,
    }
}

/// Whether a sample says that its series has ended.
fn is_marker(value: &SampleValue) -> bool {
    match value {
        SampleValue::Float(value) => is_stale(*value),
        SampleValue::Histogram(histogram) => histogram.is_stale(),
    }
}
