//! `/api/v1/format_query` and `/api/v1/parse_query`: a query as text laid out, and as a tree.
//!
//! Fields of the tree stand in alphabetical order, as Prometheus gives them.

use std::sync::Arc;

use tidewatch_model::{Matcher, format_float};
use tidewatch_parser::{
    AggregateExpr, At, BinaryExpr, Call, Duration, DurationExpr, Expr, RangeModifier, SubqueryExpr, UnaryOp,
    VectorMatching, VectorSelector, parse_expr, pretty,
};

use super::blocking;
use super::query::place;
use crate::error::ApiError;
use crate::json::Json;
use crate::reply::Reply;
use crate::request::Params;
use crate::service::Service;

pub(crate) async fn format(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    parsed(service, params, |expr| Ok(Reply::json(|json| json.string(&pretty(expr))))).await
}

pub(crate) async fn tree(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    parsed(service, params, |expr| Ok(Reply::json(|json| write(json, expr)))).await
}

/// Parses in a place of a query: compiling large regular expressions takes time and memory.
pub(super) async fn parsed(
    service: &Arc<Service>,
    params: &Params,
    answer: impl FnOnce(&Expr) -> Result<Reply, ApiError> + Send + 'static,
) -> Result<Reply, ApiError> {
    let place = place(service, service.app.limits.query_timeout_ms).await?;
    let text = params.get("query").to_owned();
    blocking(service, move |service| {
        let _place = place;
        let expr = parse_expr(&text, &service.app.parser);
        answer(&expr.map_err(|error| ApiError::parameter("query", error))?)
    })
    .await?
}

/// Recursion is bounded by the parser's limit on depth.
fn write(json: &mut Json<'_>, expr: &Expr) {
    json.object(|json| match expr {
        Expr::Number(number) => {
            json.key("type").string("numberLiteral");
            json.key("val").string(&format_float(number.value));
        }
        Expr::String(text) => {
            json.key("type").string("stringLiteral");
            json.key("val").string(&text.value);
        }
        Expr::Vector(selector) => write_selector(json, selector, None),
        Expr::Matrix(matrix) => write_selector(json, &matrix.selector, Some(&matrix.range)),
        Expr::Subquery(subquery) => write_subquery(json, subquery),
        Expr::Unary(unary) => {
            write(json.key("expr"), &unary.expr);
            json.key("op").string(match unary.op {
                UnaryOp::Plus => "+",
                UnaryOp::Minus => "-",
            });
            json.key("type").string("unaryExpr");
        }
        Expr::Binary(binary) => write_binary(json, binary),
        Expr::Aggregate(aggregate) => write_aggregate(json, aggregate),
        Expr::Call(call) => write_call(json, call),
        Expr::Paren(paren) => {
            write(json.key("expr"), &paren.expr);
            json.key("type").string("parenExpr");
        }
    });
}

fn write_selector(json: &mut Json<'_>, selector: &VectorSelector, range: Option<&Duration>) {
    json.key("anchored").bool(selector.modifier == Some(RangeModifier::Anchored));
    json.key("matchers").array(selector.matchers.iter(), write_matcher);
    json.key("name").string(selector.name.as_deref().unwrap_or(""));
    json.key("offset").integer(milliseconds(&selector.offset));
    write_computed(json.key("offsetExpr"), Some(&selector.offset));
    if let Some(range) = range {
        json.key("range").integer(milliseconds(range));
        write_computed(json.key("rangeExpr"), Some(range));
    }
    json.key("smoothed").bool(selector.modifier == Some(RangeModifier::Smoothed));
    write_at(json, selector.at, |_| {});
    json.key("type").string(if range.is_some() { "matrixSelector" } else { "vectorSelector" });
}

fn write_matcher(json: &mut Json<'_>, matcher: &Matcher) {
    json.object(|json| {
        json.key("name").string(matcher.name());
        json.key("type").string(matcher.op().as_str());
        json.key("value").string(matcher.value());
    });
}

fn write_subquery(json: &mut Json<'_>, subquery: &SubqueryExpr) {
    write(json.key("expr"), &subquery.expr);
    json.key("offset").integer(milliseconds(&subquery.offset));
    write_computed(json.key("offsetExpr"), Some(&subquery.offset));
    json.key("range").integer(milliseconds(&subquery.range));
    write_computed(json.key("rangeExpr"), Some(&subquery.range));
    let step = subquery.step.as_ref();
    write_at(json, subquery.at, |json| {
        json.key("step").integer(step.map_or(0, milliseconds));
        write_computed(json.key("stepExpr"), step);
    });
    json.key("type").string("subquery");
}

/// `between` writes the field whose name lies between the two.
fn write_at(json: &mut Json<'_>, at: Option<At>, between: impl FnOnce(&mut Json<'_>)) {
    let key = json.key("startOrEnd");
    match at {
        Some(At::Start) => key.string("start"),
        Some(At::End) => key.string("end"),
        Some(At::Timestamp(_)) | None => key.null(),
    }
    between(json);
    let key = json.key("timestamp");
    match at {
        Some(At::Timestamp(timestamp)) => key.integer(timestamp),
        _ => key.null(),
    }
}

/// A duration that is to be computed, or null.
fn write_computed(json: &mut Json<'_>, duration: Option<&Duration>) {
    match duration {
        Some(Duration::Computed(expr)) => write_duration(json, expr, false),
        _ => json.null(),
    }
}

/// Recursion is bounded by the parser's limit on depth.
fn write_duration(json: &mut Json<'_>, expr: &DurationExpr, wrapped: bool) {
    let (op, lhs, rhs) = match expr {
        DurationExpr::Number(number) => {
            return json.object(|json| {
                json.key("duration").bool(number.duration);
                json.key("type").string("numberLiteral");
                json.key("val").string(&format_float(number.value));
            });
        }
        DurationExpr::Paren { inner, .. } => return write_duration(json, inner, true),
        DurationExpr::Negate { operand, .. } => ("-", None, Some(operand)),
        DurationExpr::Binary { op, lhs, rhs, .. } => (op.as_str(), Some(lhs), Some(rhs)),
        DurationExpr::Step { .. } => ("step", None, None),
        DurationExpr::Range { .. } => ("range", None, None),
        DurationExpr::MinOf { lhs, rhs, .. } => ("min_of", Some(lhs), Some(rhs)),
        DurationExpr::MaxOf { lhs, rhs, .. } => ("max_of", Some(lhs), Some(rhs)),
    };
    json.object(|json| {
        for (name, side) in [("lhs", lhs), ("rhs", rhs)] {
            match side {
                Some(side) => write_duration(json.key(name), side, false),
                None => json.key(name).null(),
            }
            if name == "lhs" {
                json.key("op").string(op);
            }
        }
        json.key("type").string("durationExpr");
        json.key("wrapped").bool(wrapped);
    });
}

/// What is to be computed when the query runs has no number here.
fn milliseconds(duration: &Duration) -> i64 {
    match duration {
        Duration::Fixed(ms) => *ms,
        Duration::Computed(_) => 0,
    }
}

fn write_binary(json: &mut Json<'_>, binary: &BinaryExpr) {
    json.key("bool").bool(binary.return_bool);
    write(json.key("lhs"), &binary.lhs);
    let key = json.key("matching");
    match &binary.matching {
        Some(matching) => key.object(|json| write_matching(json, matching)),
        None => key.null(),
    }
    json.key("op").string(binary.op.as_str());
    write(json.key("rhs"), &binary.rhs);
    json.key("type").string("binaryExpr");
}

fn write_matching(json: &mut Json<'_>, matching: &VectorMatching) {
    json.key("card").string(matching.cardinality.as_str());
    json.key("fillValues").object(|json| {
        for (name, value) in [("lhs", matching.fill.lhs), ("rhs", matching.fill.rhs)] {
            match value {
                Some(value) => json.key(name).number(value),
                None => json.key(name).null(),
            }
        }
    });
    json.key("include").strings(&matching.include);
    json.key("labels").strings(&matching.labels);
    json.key("on").bool(matching.on);
}

fn write_aggregate(json: &mut Json<'_>, aggregate: &AggregateExpr) {
    write(json.key("expr"), &aggregate.expr);
    json.key("grouping").strings(&aggregate.grouping);
    json.key("op").string(aggregate.op.as_str());
    let key = json.key("param");
    match &aggregate.param {
        Some(param) => write(key, param),
        None => key.null(),
    }
    json.key("type").string("aggregation");
    json.key("without").bool(aggregate.without);
}

fn write_call(json: &mut Json<'_>, call: &Call) {
    json.key("args").array(&call.args, write);
    json.key("func").object(|json| {
        let function = call.function;
        json.key("argTypes").strings(function.parameters.iter().map(|kind| kind.as_str()));
        json.key("name").string(function.name);
        json.key("returnType").string(function.returns.as_str());
        json.key("variadic").integer(function.variadic);
    });
    json.key("type").string("call");
}
