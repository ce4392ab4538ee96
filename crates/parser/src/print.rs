//! A tree as text, as Prometheus prints it: what it prints parses to the same tree.

use std::fmt::{self, Display, Formatter, Write as _};

use tidewatch_model::{METRIC_NAME, MatchOp, format_duration, format_float, is_valid_legacy_name, quote};

use crate::ast::{
    AggregateExpr, At, BinaryExpr, Call, Cardinality, Duration, DurationExpr, DurationOp, Expr,
    MatrixSelector, NumberLiteral, RangeModifier, SubqueryExpr, UnaryOp, VectorMatching, VectorSelector,
};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Number(number) => number.fmt(f),
            Expr::String(string) => f.write_str(&readable(&string.quoted())),
            Expr::Vector(selector) => selector.fmt(f),
            Expr::Matrix(matrix) => matrix.fmt(f),
            Expr::Subquery(subquery) => write!(f, "{}{}", subquery.expr, SubquerySuffix(subquery)),
            Expr::Unary(unary) => write!(f, "{}{}", unary.op.as_str(), unary.expr),
            Expr::Binary(binary) => {
                write!(f, "{} {} {}", binary.lhs, Operator(binary), binary.rhs)
            }
            Expr::Aggregate(aggregate) => {
                write!(f, "{}(", AggregateHead(aggregate))?;
                if let Some(param) = &aggregate.param {
                    write!(f, "{param}, ")?;
                }
                write!(f, "{})", aggregate.expr)
            }
            Expr::Call(call) => call.fmt(f),
            Expr::Paren(paren) => write!(f, "({})", paren.expr),
        }
    }
}

impl UnaryOp {
    pub fn as_str(self) -> &'static str {
        match self {
            UnaryOp::Plus => "+",
            UnaryOp::Minus => "-",
        }
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.duration {
            return f.write_str(&format_float(self.value));
        }
        f.write_str(&format_duration((self.value * 1000.0).round() as i64))
    }
}

impl Display for Call {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.name)?;
        for (i, arg) in self.args.iter().enumerate() {
            write!(f, "{}{arg}", if i > 0 { ", " } else { "" })?;
        }
        f.write_char(')')
    }
}

impl Display for VectorSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Name(self).fmt(f)?;
        AtSuffix(self.at).fmt(f)?;
        ModifierSuffix(self.modifier).fmt(f)?;
        OffsetSuffix(&self.offset).fmt(f)
    }
}

/// Modifiers of the selector stand behind the range.
impl Display for MatrixSelector {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", Name(&self.selector), self.range)?;
        ModifierSuffix(self.selector.modifier).fmt(f)?;
        AtSuffix(self.selector.at).fmt(f)?;
        OffsetSuffix(&self.selector.offset).fmt(f)
    }
}

impl Display for Duration {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Duration::Fixed(ms) => f.write_str(&format_duration(*ms)),
            Duration::Computed(expr) => expr.fmt(f),
        }
    }
}

impl Display for DurationExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DurationExpr::Number(number) => number.fmt(f),
            DurationExpr::Negate { operand, .. } => write!(f, "-{operand}"),
            DurationExpr::Binary { op, lhs, rhs, .. } => write!(f, "{lhs} {} {rhs}", op.as_str()),
            DurationExpr::Step { .. } => f.write_str("step()"),
            DurationExpr::Range { .. } => f.write_str("range()"),
            DurationExpr::MinOf { lhs, rhs, .. } => write!(f, "min_of({lhs}, {rhs})"),
            DurationExpr::MaxOf { lhs, rhs, .. } => write!(f, "max_of({lhs}, {rhs})"),
            DurationExpr::Paren { inner, .. } => write!(f, "({inner})"),
        }
    }
}

impl DurationOp {
    pub fn as_str(self) -> &'static str {
        match self {
            DurationOp::Add => "+",
            DurationOp::Sub => "-",
            DurationOp::Mul => "*",
            DurationOp::Div => "/",
            DurationOp::Mod => "%",
            DurationOp::Pow => "^",
        }
    }
}

/// Escapes U+FFFD, which a query may contain as an escape only: the lexer cannot tell the
/// character itself from bytes that are no UTF-8.
fn readable(quoted: &str) -> String {
    quoted.replace('\u{fffd}', "\\ufffd")
}

/// `name{matchers}`, the matchers in the order of their text.
struct Name<'a>(&'a VectorSelector);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = self.0.name.as_deref().unwrap_or_default();
        f.write_str(name)?;
        let mut matchers: Vec<String> = self
            .0
            .matchers
            .iter()
            .filter(|m| {
                m.name() != METRIC_NAME || m.op() != MatchOp::Equal || m.value() != name || name.is_empty()
            })
            .map(|matcher| readable(&matcher.to_string()))
            .collect();
        if matchers.is_empty() && !name.is_empty() {
            return Ok(());
        }
        matchers.sort();
        write!(f, "{{{}}}", matchers.join(","))
    }
}

struct AtSuffix(Option<At>);

impl Display for AtSuffix {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(At::Timestamp(ms)) => write!(f, " @ {:.3}", ms as f64 / 1000.0),
            Some(At::Start) => f.write_str(" @ start()"),
            Some(At::End) => f.write_str(" @ end()"),
        }
    }
}

struct ModifierSuffix(Option<RangeModifier>);

impl Display for ModifierSuffix {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "",
            Some(RangeModifier::Anchored) => " anchored",
            Some(RangeModifier::Smoothed) => " smoothed",
        })
    }
}

struct OffsetSuffix<'a>(&'a Duration);

impl Display for OffsetSuffix<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if *self.0 == Duration::ZERO { Ok(()) } else { write!(f, " offset {}", self.0) }
    }
}

/// `[range:step]` and the modifiers behind it.
pub(crate) struct SubquerySuffix<'a>(pub &'a SubqueryExpr);

impl Display for SubquerySuffix<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "[{}:", self.0.range)?;
        if let Some(step) = &self.0.step {
            step.fmt(f)?;
        }
        f.write_char(']')?;
        AtSuffix(self.0.at).fmt(f)?;
        OffsetSuffix(&self.0.offset).fmt(f)
    }
}

/// `sum by (a, b) `, up to the parenthesis of the arguments.
pub(crate) struct AggregateHead<'a>(pub &'a AggregateExpr);

impl Display for AggregateHead<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op.as_str())?;
        if self.0.without {
            write!(f, " without ({}) ", LabelNames(&self.0.grouping))
        } else if self.0.grouping.is_empty() {
            Ok(())
        } else {
            write!(f, " by ({}) ", LabelNames(&self.0.grouping))
        }
    }
}

/// An operator and its modifiers: `== bool on (a) group_left (b)`.
pub(crate) struct Operator<'a>(pub &'a BinaryExpr);

impl Display for Operator<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.op.as_str())?;
        if self.0.return_bool {
            f.write_str(" bool")?;
        }
        self.0.matching.as_ref().map_or(Ok(()), |matching| matching.fmt(f))
    }
}

/// Each modifier with a space before it.
impl Display for VectorMatching {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let side = match self.cardinality {
            Cardinality::ManyToOne => Some("left"),
            Cardinality::OneToMany => Some("right"),
            Cardinality::OneToOne | Cardinality::ManyToMany => None,
        };
        if !self.labels.is_empty() || self.on || side.is_some() {
            let word = if self.on { "on" } else { "ignoring" };
            write!(f, " {word} ({})", LabelNames(&self.labels))?;
        }
        if let Some(side) = side {
            write!(f, " group_{side} ({})", LabelNames(&self.include))?;
        }
        match (self.fill.lhs, self.fill.rhs) {
            // Bits are compared, as `fill (NaN)` is one value for both sides too.
            (Some(lhs), Some(rhs)) if lhs.to_bits() == rhs.to_bits() => {
                write!(f, " fill ({})", format_float(lhs))
            }
            (lhs, rhs) => {
                if let Some(lhs) = lhs {
                    write!(f, " fill_left ({})", format_float(lhs))?;
                }
                rhs.map_or(Ok(()), |rhs| write!(f, " fill_right ({})", format_float(rhs)))
            }
        }
    }
}

struct LabelNames<'a>(&'a [String]);

impl Display for LabelNames<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_valid_legacy_name(name) {
                f.write_str(name)?;
            } else {
                f.write_str(&readable(&quote(name)))?;
            }
        }
        Ok(())
    }
}
