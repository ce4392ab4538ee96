//! From the parser's tree to a plan.

use std::cell::Cell;

use tidewatch_model::quote;
use tidewatch_parser::{
    AggregateExpr, At, BinaryExpr, BinaryOp, Call, Duration, Expr, FunctionId, PosRange, UnaryOp, ValueType,
    VectorSelector,
};

use super::common::CommonParts;
use super::durations::{QuerySpan, positive, signed};
use super::{Aggregate, Binary, Kind, Matrix, MatrixSource, Node, NodeId, Plan, Selector, Shift, Window};
use crate::binary::scalar_op;
use crate::context::{EngineOptions, QueryError};
use crate::functions::{self, is_valid_label};
use crate::grid::Grid;

/// Plans `expr` for a query over `grid`; `step` is that of the query, 0 for an instant one, and `end`
/// its end, which may lie behind its last step.
pub(crate) fn build(
    expr: &Expr,
    grid: Grid,
    step: i64,
    end: i64,
    options: &EngineOptions,
    query: Option<&str>,
) -> Result<Plan, QueryError> {
    let (nodes, common) = (Cell::new(0), CommonParts::default());
    let span = QuerySpan { step, range: end.saturating_sub(grid.start) };
    let builder = Builder {
        grid,
        end,
        span,
        options,
        query,
        nodes: &nodes,
        common: &common,
        counts: false,
        buckets: false,
    };
    let (node, part) = builder.node(expr)?;
    let root = builder.wrap(node, part);
    Ok(Plan { root, nodes: nodes.get() as usize, uses: common.into_uses() })
}

/// Whether a part of the tree is the same at every step, and worth evaluating once.
#[derive(Clone, Copy)]
struct Part {
    invariant: bool,
    /// Not set for literals, and for matrices, whose function is the part to evaluate once.
    wrap: bool,
}

const VARIES: Part = Part { invariant: false, wrap: false };
const LITERAL: Part = Part { invariant: true, wrap: false };

#[derive(Clone, Copy)]
struct Builder<'a> {
    grid: Grid,
    end: i64,
    span: QuerySpan,
    options: &'a EngineOptions,
    query: Option<&'a str>,
    /// How many nodes there are so far.
    nodes: &'a Cell<u32>,
    common: &'a CommonParts,
    /// Below a function that asks of histograms their count or sum alone …
    counts: bool,
    /// … and below something that needs their buckets, which then stay.
    buckets: bool,
}

impl Builder<'_> {
    fn next_id(&self) -> NodeId {
        let id = self.nodes.get();
        self.nodes.set(id + 1);
        NodeId(id)
    }

    fn wrap(&self, node: Node, part: Part) -> Node {
        if !part.invariant || !part.wrap {
            return node;
        }
        let (id, pos, value_type) = (self.next_id(), node.pos, node.value_type);
        Node { id, pos, value_type, kind: Kind::Invariant(Box::new(node)), common: None }
    }

    /// Recursion is bounded: the parser limits the depth of a tree.
    fn node(&self, expr: &Expr) -> Result<(Node, Part), QueryError> {
        let (kind, part) = match expr {
            Expr::Number(number) => (Kind::Number(number.value), LITERAL),
            Expr::String(text) => (Kind::Text(text.value.clone()), LITERAL),
            Expr::Paren(paren) => return self.node(&paren.expr),
            Expr::Unary(unary) => {
                let (inner, part) = self.node(&unary.expr)?;
                match (unary.op, &inner.kind) {
                    (UnaryOp::Plus, _) => return Ok((inner, part)),
                    (UnaryOp::Minus, Kind::Number(value)) => (Kind::Number(-value), LITERAL),
                    (UnaryOp::Minus, _) => (Kind::Negate(Box::new(inner)), part),
                }
            }
            Expr::Vector(selector) => {
                let shift = self.shift(&selector.offset, selector.at)?;
                let invariant = shift.at.is_some();
                (Kind::Select(self.selector(selector, shift)), Part { invariant, wrap: invariant })
            }
            Expr::Matrix(_) | Expr::Subquery(_) => {
                let (matrix, part) = self.matrix(expr)?;
                (Kind::Matrix(matrix), part)
            }
            Expr::Binary(binary) => self.binary(binary)?,
            Expr::Aggregate(aggregate) => self.aggregate(aggregate)?,
            Expr::Call(call) => self.call(call)?,
        };
        let common = self.common.number(expr, [self.counts, self.buckets]);
        let (id, pos, value_type) = (self.next_id(), expr.pos(), expr.value_type());
        Ok((Node { id, kind, pos, value_type, common }, part))
    }

    fn selector(&self, selector: &VectorSelector, shift: Shift) -> Selector {
        Selector {
            matchers: selector.matchers.clone(),
            shift,
            modifier: selector.modifier,
            counts_only: self.counts && !self.buckets,
        }
    }

    fn shift(&self, offset: &Duration, at: Option<At>) -> Result<Shift, QueryError> {
        let at = at.map(|at| match at {
            At::Timestamp(time) => time,
            At::Start => self.grid.start,
            At::End => self.end,
        });
        Ok(Shift { at, offset: signed(offset, self.span)? })
    }

    fn matrix(&self, expr: &Expr) -> Result<(Matrix, Part), QueryError> {
        match expr {
            Expr::Matrix(matrix) => {
                let selector = &matrix.selector;
                let shift = self.shift(&selector.offset, selector.at)?;
                let plan = Matrix {
                    source: MatrixSource::Selector(selector.matchers.clone()),
                    range: positive(&matrix.range, self.span)?,
                    shift,
                    modifier: selector.modifier,
                    counts_only: self.counts && !self.buckets,
                };
                Ok((plan, Part { invariant: shift.at.is_some(), wrap: false }))
            }
            Expr::Subquery(subquery) => {
                // Resets between the samples that a subquery picks show in the buckets alone.
                let (node, part) = Builder { buckets: true, ..*self }.node(&subquery.expr)?;
                // The inside is wrapped whatever `@` the subquery has.
                let node = self.wrap(node, Part { wrap: part.invariant, ..part });
                let step = match &subquery.step {
                    Some(step) => positive(step, self.span)?,
                    None => self.options.subquery_step_ms,
                };
                let shift = self.shift(&subquery.offset, subquery.at)?;
                let plan = Matrix {
                    source: MatrixSource::Subquery { node: Box::new(node), step: step.max(1) },
                    range: positive(&subquery.range, self.span)?,
                    shift,
                    modifier: None,
                    counts_only: false,
                };
                Ok((plan, Part { invariant: shift.at.is_some(), wrap: false }))
            }
            Expr::Paren(paren) => self.matrix(&paren.expr),
            Expr::Unary(unary) if unary.op == UnaryOp::Plus => self.matrix(&unary.expr),
            _ => Err(QueryError::Execution("a range vector was expected".to_owned())),
        }
    }

    fn binary(&self, binary: &BinaryExpr) -> Result<(Kind, Part), QueryError> {
        let trims = matches!(binary.op, BinaryOp::TrimUpper | BinaryOp::TrimLower);
        let operands = Builder { buckets: self.buckets || trims, ..*self };
        let (lhs, left) = operands.node(&binary.lhs)?;
        let (rhs, right) = operands.node(&binary.rhs)?;
        if let (Kind::Number(a), Kind::Number(b)) = (&lhs.kind, &rhs.kind) {
            return Ok((Kind::Number(scalar_op(binary.op, *a, *b)), LITERAL));
        }
        let invariant = left.invariant && right.invariant;
        let (lhs, rhs) = if invariant { (lhs, rhs) } else { (self.wrap(lhs, left), self.wrap(rhs, right)) };
        let plan = Binary {
            op: binary.op,
            lhs,
            rhs,
            matching: binary.matching.clone(),
            return_bool: binary.return_bool,
        };
        Ok((Kind::Binary(Box::new(plan)), Part { invariant, wrap: invariant }))
    }

    fn aggregate(&self, aggregate: &AggregateExpr) -> Result<(Kind, Part), QueryError> {
        let (input, part) = self.node(&aggregate.expr)?;
        let param = aggregate.param.as_ref().map(|param| self.node(param)).transpose()?;
        // Prometheus looks at the input alone, as a parameter that varies is evaluated apart.
        let invariant = part.invariant && param.as_ref().is_none_or(|(_, part)| part.invariant);
        let mut grouping = aggregate.grouping.clone();
        if let Some((Node { kind: Kind::Text(label), .. }, _)) = &param {
            if !is_valid_label(label) {
                let written = aggregate.param.as_ref().and_then(|param| self.written(param.pos()));
                return Err(QueryError::Execution(format!(
                    "invalid label name {}",
                    written.map_or_else(|| quote(label), str::to_owned)
                )));
            }
            if !aggregate.without {
                grouping.push(label.clone());
            }
        }
        grouping.sort();
        grouping.dedup();
        let plan = Aggregate {
            op: aggregate.op,
            input: if invariant { input } else { self.wrap(input, part) },
            param: param.map(|(param, part)| if invariant { param } else { self.wrap(param, part) }),
            grouping,
            without: aggregate.without,
            pos: aggregate.pos,
        };
        Ok((Kind::Aggregate(Box::new(plan)), Part { invariant, wrap: invariant }))
    }

    /// The query's text at a place.
    fn written(&self, pos: PosRange) -> Option<&str> {
        self.query?.get(pos.start..pos.end)
    }

    fn call(&self, call: &Call) -> Result<(Kind, Part), QueryError> {
        let seconds = |ms: i64| ms as f64 / 1000.0;
        match call.function.id {
            FunctionId::Start => return Ok((Kind::Number(seconds(self.grid.start)), LITERAL)),
            FunctionId::End => return Ok((Kind::Number(seconds(self.end)), LITERAL)),
            FunctionId::Step => return Ok((Kind::Number(seconds(self.span.step)), LITERAL)),
            FunctionId::Range => return Ok((Kind::Number(seconds(self.span.range)), LITERAL)),
            FunctionId::Pi => return Ok((Kind::Number(std::f64::consts::PI), LITERAL)),
            _ => {}
        }
        let arguments = self.below(call.function.id);
        let is_matrix = |arg: &&Expr| arg.value_type() == ValueType::Matrix;
        if let Some(matrix) = call.args.iter().find(is_matrix) {
            return arguments.window(call, matrix);
        }
        let args = call.args.iter().map(|arg| arguments.node(arg)).collect::<Result<Vec<_>, _>>()?;
        let safe = !functions::depends_on_time(call.function.id, args.len());
        let invariant = safe && args.iter().all(|(_, part)| part.invariant);
        let args = args.into_iter().map(|(arg, part)| if invariant { arg } else { self.wrap(arg, part) });
        let kind = Kind::Call { id: call.function.id, args: args.collect() };
        Ok((kind, Part { invariant, wrap: invariant }))
    }

    /// How arguments of a function are planned.
    fn below(&self, id: FunctionId) -> Builder<'_> {
        use FunctionId as F;
        let counts = matches!(id, F::HistogramCount | F::HistogramSum | F::HistogramAvg);
        let buckets = matches!(
            id,
            F::HistogramQuantile
                | F::HistogramQuantiles
                | F::HistogramFraction
                | F::HistogramStddev
                | F::HistogramStdvar
        );
        Builder { counts: self.counts || counts, buckets: self.buckets || buckets, ..*self }
    }

    fn window(&self, call: &Call, matrix: &Expr) -> Result<(Kind, Part), QueryError> {
        let (plan, part) = self.matrix(matrix)?;
        let mut invariant = part.invariant && !functions::depends_on_time(call.function.id, call.args.len());
        let mut scalars = Vec::new();
        for arg in call.args.iter().filter(|arg| arg.value_type() != ValueType::Matrix) {
            let (node, part) = self.node(arg)?;
            invariant &= part.invariant;
            scalars.push((node, part));
        }
        let scalars =
            scalars.into_iter().map(|(node, part)| if invariant { node } else { self.wrap(node, part) });
        let window = Window {
            id: call.function.id,
            name: call.function.name,
            matrix: plan,
            scalars: scalars.collect(),
            first_pos: call.args.first().map_or(call.pos, Expr::pos),
        };
        functions::check_modifier(&window)?;
        Ok((Kind::Window(Box::new(window)), if invariant { Part { invariant, wrap: true } } else { VARIES }))
    }
}
