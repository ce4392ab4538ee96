//! The typed tree that a query is parsed to.
//!
//! Every node knows the bytes of the query that it came from. A tree that the parser returned
//! satisfies its type rules, is at most [`tidewatch_model::Limits::query_depth`] high and has at
//! most `query_nodes` nodes, so that a visitor may recurse.

use std::sync::Arc;

use tidewatch_model::{Matcher, quote, quote_bytes};

use crate::functions::Function;

/// Bytes `start..end` of the query text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct PosRange {
    pub start: usize,
    pub end: usize,
}

impl PosRange {
    pub fn new(start: usize, end: usize) -> PosRange {
        PosRange { start, end }
    }

    /// From the start of `self` to the end of `last`.
    pub fn to(self, last: PosRange) -> PosRange {
        PosRange { start: self.start, end: last.end }
    }
}

/// What an expression evaluates to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    Scalar,
    String,
    Vector,
    Matrix,
}

impl ValueType {
    /// The name in error messages.
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
        }
    }

    /// The name in the API (`resultType`).
    pub fn as_str(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
        }
    }
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Number(NumberLiteral),
    String(StringLiteral),
    Vector(VectorSelector),
    Matrix(MatrixSelector),
    Subquery(SubqueryExpr),
    Unary(UnaryExpr),
    Binary(BinaryExpr),
    Aggregate(AggregateExpr),
    Call(Call),
    Paren(ParenExpr),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NumberLiteral {
    pub value: f64,
    /// Written as a duration (`5m`); the value is in seconds then.
    pub duration: bool,
    pub pos: PosRange,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StringLiteral {
    /// The text; U+FFFD stands for what is no UTF-8.
    pub value: String,
    /// The bytes, where escapes name some that are no UTF-8 (`"\xff"`): no name, and no value
    /// that a label could have.
    pub invalid_utf8: Option<Vec<u8>>,
    pub pos: PosRange,
}

impl StringLiteral {
    /// The text in quotes, as errors and printed queries have it.
    pub fn quoted(&self) -> String {
        match &self.invalid_utf8 {
            Some(bytes) => quote_bytes(bytes),
            None => quote(&self.value),
        }
    }
}

/// `name{matchers} anchored offset 5m @ 1234`
#[derive(Debug, Clone, PartialEq)]
pub struct VectorSelector {
    /// The name before the braces. A name within them is a matcher alone.
    pub name: Option<String>,
    /// All conditions, that on the name among them. Shared, as evaluators keep them.
    pub matchers: Arc<[Matcher]>,
    pub offset: Duration,
    pub at: Option<At>,
    pub modifier: Option<RangeModifier>,
    /// The second argument of `info()`: it need not have a matcher that refuses the empty text.
    pub info_argument: bool,
    pub pos: PosRange,
}

/// How a range selector treats its edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeModifier {
    Anchored,
    Smoothed,
}

/// The `@` modifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At {
    /// Milliseconds since the epoch.
    Timestamp(i64),
    /// The start of the query.
    Start,
    /// The end of the query.
    End,
}

/// `selector[range]`. Offset, `@` and modifier are those of the selector.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixSelector {
    pub selector: VectorSelector,
    pub range: Duration,
    pub pos: PosRange,
}

/// `expr[range:step] offset 5m @ 1234`
#[derive(Debug, Clone, PartialEq)]
pub struct SubqueryExpr {
    pub expr: Box<Expr>,
    pub range: Duration,
    /// Absent where the evaluator's default applies.
    pub step: Option<Duration>,
    pub offset: Duration,
    pub at: Option<At>,
    pub pos: PosRange,
}

/// A range, step or offset: known, or to be computed when the query's own range is known.
#[derive(Debug, Clone, PartialEq)]
pub enum Duration {
    /// Milliseconds.
    Fixed(i64),
    Computed(Box<DurationExpr>),
}

impl Duration {
    pub const ZERO: Duration = Duration::Fixed(0);
}

/// Arithmetic on durations, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum DurationExpr {
    Number(NumberLiteral),
    Negate {
        operand: Box<DurationExpr>,
        pos: PosRange,
    },
    Binary {
        op: DurationOp,
        lhs: Box<DurationExpr>,
        rhs: Box<DurationExpr>,
        pos: PosRange,
    },
    /// `step()`: the step of the query.
    Step {
        pos: PosRange,
    },
    /// `range()`: the end of the query less its start.
    Range {
        pos: PosRange,
    },
    MinOf {
        lhs: Box<DurationExpr>,
        rhs: Box<DurationExpr>,
        pos: PosRange,
    },
    MaxOf {
        lhs: Box<DurationExpr>,
        rhs: Box<DurationExpr>,
        pos: PosRange,
    },
    Paren {
        inner: Box<DurationExpr>,
        pos: PosRange,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DurationOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
}

#[derive(Debug, Clone, PartialEq)]
pub struct UnaryExpr {
    pub op: UnaryOp,
    pub expr: Box<Expr>,
    pub pos: PosRange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    Plus,
    Minus,
}

#[derive(Debug, Clone, PartialEq)]
pub struct BinaryExpr {
    pub op: BinaryOp,
    pub lhs: Box<Expr>,
    pub rhs: Box<Expr>,
    /// Present exactly where both operands are instant vectors.
    pub matching: Option<VectorMatching>,
    /// A comparison gives 0 or 1 and does not filter.
    pub return_bool: bool,
    pub pos: PosRange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    /// `</`: drops a histogram's observations above the scalar.
    TrimUpper,
    /// `>/`: drops a histogram's observations below the scalar.
    TrimLower,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Greater => ">",
            BinaryOp::Less => "<",
            BinaryOp::GreaterOrEqual => ">=",
            BinaryOp::LessOrEqual => "<=",
            BinaryOp::TrimUpper => "</",
            BinaryOp::TrimLower => ">/",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        }
    }

    pub fn is_comparison(self) -> bool {
        use BinaryOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        matches!(self, Equal | NotEqual | Greater | Less | GreaterOrEqual | LessOrEqual)
    }

    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

/// How elements of two vectors find each other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VectorMatching {
    pub cardinality: Cardinality,
    /// Labels to match on, or to leave out of the match.
    pub labels: Vec<String>,
    /// Whether `labels` are matched on; they are ignored otherwise.
    pub on: bool,
    /// Labels that the result takes from the side of which there is one.
    pub include: Vec<String>,
    /// Values that stand in for a missing partner.
    pub fill: Fill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Cardinality {
    #[default]
    OneToOne,
    ManyToOne,
    OneToMany,
    ManyToMany,
}

impl Cardinality {
    pub fn as_str(self) -> &'static str {
        match self {
            Cardinality::OneToOne => "one-to-one",
            Cardinality::ManyToOne => "many-to-one",
            Cardinality::OneToMany => "one-to-many",
            Cardinality::ManyToMany => "many-to-many",
        }
    }
}

/// `fill(x)`, `fill_left(x)`, `fill_right(x)`
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fill {
    pub lhs: Option<f64>,
    pub rhs: Option<f64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AggregateExpr {
    pub op: AggregateOp,
    pub expr: Box<Expr>,
    /// Present exactly where the operator takes one.
    pub param: Option<Box<Expr>>,
    pub grouping: Vec<String>,
    /// `without (grouping)`; `by (grouping)` otherwise.
    pub without: bool,
    pub pos: PosRange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    Avg,
    Bottomk,
    Count,
    CountValues,
    Group,
    Limitk,
    LimitRatio,
    Max,
    Min,
    Quantile,
    Stddev,
    Stdvar,
    Sum,
    Topk,
}

impl AggregateOp {
    pub fn as_str(self) -> &'static str {
        match self {
            AggregateOp::Avg => "avg",
            AggregateOp::Bottomk => "bottomk",
            AggregateOp::Count => "count",
            AggregateOp::CountValues => "count_values",
            AggregateOp::Group => "group",
            AggregateOp::Limitk => "limitk",
            AggregateOp::LimitRatio => "limit_ratio",
            AggregateOp::Max => "max",
            AggregateOp::Min => "min",
            AggregateOp::Quantile => "quantile",
            AggregateOp::Stddev => "stddev",
            AggregateOp::Stdvar => "stdvar",
            AggregateOp::Sum => "sum",
            AggregateOp::Topk => "topk",
        }
    }

    /// The type of the parameter before the vector, where there is one.
    pub fn parameter(self) -> Option<ValueType> {
        match self {
            AggregateOp::Bottomk
            | AggregateOp::Topk
            | AggregateOp::Limitk
            | AggregateOp::LimitRatio
            | AggregateOp::Quantile => Some(ValueType::Scalar),
            AggregateOp::CountValues => Some(ValueType::String),
            _ => None,
        }
    }

    pub fn experimental(self) -> bool {
        matches!(self, AggregateOp::Limitk | AggregateOp::LimitRatio)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub function: &'static Function,
    pub args: Vec<Expr>,
    pub pos: PosRange,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ParenExpr {
    pub expr: Box<Expr>,
    pub pos: PosRange,
}

impl Expr {
    pub fn value_type(&self) -> ValueType {
        match self {
            Expr::Number(_) => ValueType::Scalar,
            Expr::String(_) => ValueType::String,
            Expr::Vector(_) | Expr::Aggregate(_) => ValueType::Vector,
            Expr::Matrix(_) | Expr::Subquery(_) => ValueType::Matrix,
            Expr::Unary(unary) => unary.expr.value_type(),
            Expr::Paren(paren) => paren.expr.value_type(),
            Expr::Call(call) => call.function.returns,
            Expr::Binary(binary) => binary.value_type(),
        }
    }

    pub fn pos(&self) -> PosRange {
        match self {
            Expr::Number(node) => node.pos,
            Expr::String(node) => node.pos,
            Expr::Vector(node) => node.pos,
            Expr::Matrix(node) => node.pos,
            Expr::Subquery(node) => node.pos,
            Expr::Unary(node) => node.pos,
            Expr::Binary(node) => node.pos,
            Expr::Aggregate(node) => node.pos,
            Expr::Call(node) => node.pos,
            Expr::Paren(node) => node.pos,
        }
    }

    /// Direct subexpressions in the order of the text; a matrix selector has none.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) => Vec::new(),
            Expr::Subquery(node) => vec![&*node.expr],
            Expr::Unary(node) => vec![&*node.expr],
            Expr::Paren(node) => vec![&*node.expr],
            Expr::Binary(node) => vec![&*node.lhs, &*node.rhs],
            Expr::Aggregate(node) => node.param.iter().chain([&node.expr]).map(|e| &**e).collect(),
            Expr::Call(node) => node.args.iter().collect(),
        }
    }

    /// Visits every vector selector, those of matrix selectors among them, in the order of
    /// the text.
    pub fn for_each_selector<'a>(&'a self, visit: &mut dyn FnMut(&'a VectorSelector)) {
        match self {
            Expr::Vector(selector) => visit(selector),
            Expr::Matrix(matrix) => visit(&matrix.selector),
            other => {
                for child in other.children() {
                    child.for_each_selector(visit);
                }
            }
        }
    }
}

impl BinaryExpr {
    pub fn value_type(&self) -> ValueType {
        let scalar = self.lhs.value_type() == ValueType::Scalar && self.rhs.value_type() == ValueType::Scalar;
        if scalar { ValueType::Scalar } else { ValueType::Vector }
    }
}

impl DurationExpr {
    pub fn pos(&self) -> PosRange {
        match self {
            DurationExpr::Number(number) => number.pos,
            DurationExpr::Negate { pos, .. }
            | DurationExpr::Binary { pos, .. }
            | DurationExpr::Step { pos }
            | DurationExpr::Range { pos }
            | DurationExpr::MinOf { pos, .. }
            | DurationExpr::MaxOf { pos, .. }
            | DurationExpr::Paren { pos, .. } => *pos,
        }
    }
}
