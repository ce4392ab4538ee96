//! The plan of a query: its tree with every duration, `@` and constant resolved.
//!
//! ```text
//! Expr ── build ──► Node ── eval ──► Output
//! ```
//!
//! A plan belongs to one query, as `start()`, `step()` and the like depend on its times. Parts
//! whose value is the same at every step are marked, so that they are evaluated once.

mod build;
mod common;
mod durations;

use std::sync::Arc;

use tidewatch_model::Matcher;
use tidewatch_parser::{
    AggregateOp, BinaryOp, FunctionId, PosRange, RangeModifier, ValueType, VectorMatching,
};

pub(crate) use build::build;
pub(crate) use common::CommonId;

/// The tree of a query.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub root: Node,
    /// How many nodes there are: their ids are below.
    pub nodes: usize,
    /// How often each common part stands in the query.
    pub uses: Vec<u32>,
}

/// A node's number within its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(pub u32);

/// An expression that gives a scalar, a text or a vector.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub id: NodeId,
    pub kind: Kind,
    /// Where it stands in the query, for annotations.
    pub pos: PosRange,
    pub value_type: ValueType,
    /// The same for all nodes that mean the same, where their rows are collected anyway.
    pub common: Option<CommonId>,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Number(f64),
    Text(String),
    Select(Selector),
    /// A range selector or subquery by itself: only as a whole instant query.
    Matrix(Matrix),
    /// A function of scalars and vectors.
    Call {
        id: FunctionId,
        args: Vec<Node>,
    },
    /// A function of one matrix and perhaps of scalars.
    Window(Box<Window>),
    Negate(Box<Node>),
    Binary(Box<Binary>),
    Aggregate(Box<Aggregate>),
    /// The same at every step: evaluated at the first alone and repeated.
    Invariant(Box<Node>),
}

/// An instant selector.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    pub matchers: Arc<[Matcher]>,
    pub shift: Shift,
    pub modifier: Option<RangeModifier>,
    /// Of histograms only count and sum are asked.
    pub counts_only: bool,
}

/// From the time of evaluation to the time that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Shift {
    /// The time of `@`.
    pub at: Option<i64>,
    pub offset: i64,
}

impl Shift {
    pub(crate) fn apply(self, time: i64) -> i64 {
        self.at.unwrap_or(time).saturating_sub(self.offset)
    }
}

/// Samples over a range, for a function to reduce.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    pub source: MatrixSource,
    pub range: i64,
    pub shift: Shift,
    pub modifier: Option<RangeModifier>,
    /// Of histograms only count and sum are asked.
    pub counts_only: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum MatrixSource {
    Selector(Arc<[Matcher]>),
    Subquery { node: Box<Node>, step: i64 },
}

/// A function applied to a window of samples at each step.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub id: FunctionId,
    pub name: &'static str,
    pub matrix: Matrix,
    /// The scalar arguments, in their order.
    pub scalars: Vec<Node>,
    /// Where the first argument stands, which is where notes about quantiles point.
    pub first_pos: PosRange,
}

#[derive(Debug, Clone)]
pub(crate) struct Binary {
    pub op: BinaryOp,
    pub lhs: Node,
    pub rhs: Node,
    pub matching: Option<VectorMatching>,
    pub return_bool: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Aggregate {
    pub op: AggregateOp,
    pub input: Node,
    pub param: Option<Node>,
    /// Sorted, without repeats.
    pub grouping: Vec<String>,
    pub without: bool,
    pub pos: PosRange,
}
