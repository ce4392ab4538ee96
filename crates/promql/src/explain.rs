//! A plan as a person reads it: what each node does and what it has cost.

use tidewatch_model::{METRIC_NAME, Matcher};
use tidewatch_parser::{Cardinality, FUNCTIONS, FunctionId, VectorMatching};

use crate::plan::{Aggregate, Binary, Kind, Matrix, MatrixSource, Node, NodeId};
use crate::profile::Cost;

/// One node of a plan with what it has cost.
///
/// A node's own cost does not hold that of the nodes below. Nodes that hand rows on one by one do
/// not keep them: their `bytes_held` is 0.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanNode {
    /// What it does: `sum by (job)`, `rate[5m]`, `select`.
    pub operation: String,
    /// What it does it to: a selector.
    pub subject: Option<String>,
    /// Whether it is evaluated once and its value holds at every step.
    pub once: bool,
    /// Whether an equal part was evaluated before and gave its rows; nothing below it was done.
    pub repeated: bool,
    /// Series that the selector resolved to.
    pub series: u64,
    pub samples_read: u64,
    pub bytes_read: u64,
    /// Rows given, and the samples in them.
    pub rows: u64,
    pub points: u64,
    pub bytes_held: u64,
    /// Busy time of all workers.
    pub busy_ns: u64,
    pub children: Vec<PlanNode>,
}

/// Recursion is bounded: the parser limits the depth of a tree.
pub(crate) fn explain(node: &Node, costs: &[Cost]) -> PlanNode {
    if let Kind::Invariant(inner) = &node.kind {
        let mut explained = explain(inner, costs);
        // Repeating the value is part of what it costs.
        explained.busy_ns += costs[node.id.0 as usize].busy_ns;
        explained.once = true;
        return explained;
    }
    let (operation, subject, children) = match &node.kind {
        Kind::Number(value) => (tidewatch_model::format_float(*value), None, Vec::new()),
        Kind::Text(text) => (tidewatch_model::quote(text), None, Vec::new()),
        Kind::Select(selector) => ("select".to_owned(), Some(written(&selector.matchers)), Vec::new()),
        Kind::Matrix(matrix) => (format!("range{}", window(matrix)), subject(matrix), inside(matrix)),
        Kind::Call { id, args } => (function_name(*id).to_owned(), None, args.iter().collect()),
        Kind::Window(plan) => {
            let children = plan.scalars.iter().chain(inside(&plan.matrix)).collect();
            (format!("{}{}", plan.name, window(&plan.matrix)), subject(&plan.matrix), children)
        }
        Kind::Negate(inner) => ("-".to_owned(), None, vec![&**inner]),
        Kind::Binary(plan) => (operator(plan), None, vec![&plan.lhs, &plan.rhs]),
        Kind::Aggregate(plan) => (aggregation(plan), None, plan.param.iter().chain([&plan.input]).collect()),
        Kind::Invariant(_) => unreachable!("handled above"),
    };
    let NodeId(id) = node.id;
    let cost = costs[id as usize];
    PlanNode {
        operation,
        subject,
        once: false,
        repeated: cost.repeated,
        series: cost.series,
        samples_read: cost.samples_read,
        bytes_read: cost.bytes_read,
        rows: cost.rows,
        points: cost.points,
        bytes_held: cost.bytes_held,
        busy_ns: cost.busy_ns,
        children: children.into_iter().map(|child| explain(child, costs)).collect(),
    }
}

fn function_name(id: FunctionId) -> &'static str {
    FUNCTIONS.iter().find(|function| function.id == id).map_or("", |function| function.name)
}

fn subject(matrix: &Matrix) -> Option<String> {
    match &matrix.source {
        MatrixSource::Selector(matchers) => Some(written(matchers)),
        MatrixSource::Subquery { .. } => None,
    }
}

fn inside(matrix: &Matrix) -> Vec<&Node> {
    match &matrix.source {
        MatrixSource::Selector(_) => Vec::new(),
        MatrixSource::Subquery { node, .. } => vec![node],
    }
}

/// `[5m]`, or `[1h:1m]` for a subquery.
fn window(matrix: &Matrix) -> String {
    let range = tidewatch_model::format_duration(matrix.range);
    match &matrix.source {
        MatrixSource::Selector(_) => format!("[{range}]"),
        MatrixSource::Subquery { step, .. } => {
            format!("[{range}:{}]", tidewatch_model::format_duration(*step))
        }
    }
}

fn written(matchers: &[Matcher]) -> String {
    let is_name = |m: &&Matcher| m.name() == METRIC_NAME && m.op() == tidewatch_model::MatchOp::Equal;
    let name = matchers.iter().find(is_name).map_or("", Matcher::value);
    let rest: Vec<String> =
        matchers.iter().filter(|m| !(is_name(m) && m.value() == name)).map(Matcher::to_string).collect();
    if rest.is_empty() && !name.is_empty() {
        name.to_owned()
    } else {
        format!("{name}{{{}}}", rest.join(","))
    }
}

fn aggregation(plan: &Aggregate) -> String {
    let mut text = plan.op.as_str().to_owned();
    if plan.without || !plan.grouping.is_empty() {
        let word = if plan.without { "without" } else { "by" };
        text.push_str(&format!(" {word} ({})", plan.grouping.join(", ")));
    }
    text
}

fn operator(plan: &Binary) -> String {
    let bool_word = if plan.return_bool { " bool" } else { "" };
    let matching = plan.matching.as_ref().map_or_else(String::new, matching);
    format!("{}{bool_word}{matching}", plan.op.as_str())
}

fn matching(matching: &VectorMatching) -> String {
    let mut text = String::new();
    if matching.on || !matching.labels.is_empty() {
        let word = if matching.on { "on" } else { "ignoring" };
        text.push_str(&format!(" {word} ({})", matching.labels.join(", ")));
    }
    match matching.cardinality {
        Cardinality::ManyToOne => text.push_str(" group_left"),
        Cardinality::OneToMany => text.push_str(" group_right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => {}
    }
    text
}
