//! The rules of types, checked on the whole tree once it is read. All mistakes are reported, in
//! the order in which Prometheus finds them.

use tidewatch_model::{METRIC_NAME, quote};

use crate::ast::{
    AggregateExpr, BinaryExpr, Call, Cardinality, Expr, Fill, PosRange, SubqueryExpr, ValueType,
    VectorSelector,
};
use crate::error::ParseError;
use crate::functions::FunctionId;
use crate::scan::is_space;

/// Checks `expr`, which was parsed from `text`, and completes it: vector matching remains where
/// both operands are vectors.
pub(crate) fn types(expr: &mut Expr, text: &[u8]) -> Vec<ParseError> {
    let mut checker = Checker { text, errors: Vec::new() };
    checker.expr(expr);
    checker.errors
}

struct Checker<'a> {
    text: &'a [u8],
    errors: Vec<ParseError>,
}

impl Checker<'_> {
    fn error(&mut self, pos: PosRange, message: impl Into<String>) {
        self.errors.push(ParseError { message: message.into(), pos });
    }

    fn expr(&mut self, expr: &mut Expr) -> ValueType {
        match expr {
            Expr::Number(_) | Expr::String(_) => {}
            Expr::Vector(selector) => self.selector(selector),
            Expr::Matrix(matrix) => self.selector(&matrix.selector),
            Expr::Subquery(subquery) => self.subquery(subquery),
            Expr::Paren(paren) => {
                self.expr(&mut paren.expr);
            }
            Expr::Unary(unary) => {
                let found = self.expr(&mut unary.expr);
                if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {}",
                        quote(found.documented())
                    );
                    self.error(unary.pos, message);
                }
            }
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Call(call) => self.call(call),
            Expr::Binary(binary) => self.binary(binary),
        }
        expr.value_type()
    }

    fn expect(&mut self, expr: &mut Expr, wanted: ValueType, place: &str) {
        let found = self.expr(expr);
        if found != wanted {
            let message =
                format!("expected type {} in {place}, got {}", wanted.documented(), found.documented());
            self.error(expr.pos(), message);
        }
    }

    fn selector(&mut self, selector: &VectorSelector) {
        if let Some(name) = &selector.name {
            // The last condition is that on the name before the braces.
            let inside = &selector.matchers[..selector.matchers.len() - 1];
            for matcher in inside.iter().filter(|matcher| matcher.name() == METRIC_NAME) {
                let message = format!(
                    "metric name must not be set twice: {} or {}",
                    quote(name),
                    quote(matcher.value())
                );
                self.error(selector.pos, message);
            }
        } else if !selector.info_argument && selector.matchers.iter().all(|m| m.matches_empty()) {
            self.error(selector.pos, "vector selector must contain at least one non-empty matcher");
        }
    }

    fn subquery(&mut self, subquery: &mut SubqueryExpr) {
        let found = self.expr(&mut subquery.expr);
        if found != ValueType::Vector {
            let message =
                format!("subquery is only allowed on instant vector, got {} instead", found.as_str());
            self.error(subquery.pos, message);
        }
    }

    fn aggregate(&mut self, aggregate: &mut AggregateExpr) {
        self.expect(&mut aggregate.expr, ValueType::Vector, "aggregation expression");
        if let (Some(param), Some(wanted)) = (&mut aggregate.param, aggregate.op.parameter()) {
            self.expect(param, wanted, "aggregation parameter");
        }
    }

    fn call(&mut self, call: &mut Call) {
        let (function, name) = (call.function, quote(call.function.name));
        let (wanted, found) = (function.parameters.len(), call.args.len());
        let most = (wanted + function.variadic.max(0) as usize).saturating_sub(1);
        let count =
            |bound: String| Some(format!("expected {bound} argument(s) in call to {name}, got {found}"));
        let message = match function.variadic {
            0 if found != wanted => count(wanted.to_string()),
            0 => None,
            _ if found + 1 < wanted => count(format!("at least {}", wanted - 1)),
            1.. if found > most => count(format!("at most {most}")),
            _ => None,
        };
        if let Some(message) = message {
            self.error(call.pos, message);
        }
        if function.id == FunctionId::Info {
            self.info_argument(call);
        }
        for (i, arg) in call.args.iter_mut().enumerate() {
            if i >= wanted && function.variadic == 0 {
                break;
            }
            let wanted = function.parameters[i.min(wanted - 1)];
            self.expect(arg, wanted, &format!("call to function {name}"));
        }
    }

    /// The second argument of `info` selects labels, not a metric.
    fn info_argument(&mut self, call: &mut Call) {
        let pos = call.pos;
        let Some(arg) = call.args.get_mut(1) else { return };
        let found = arg.value_type();
        if found != ValueType::Vector {
            let message = format!(
                "expected type {} in call to function \"info\", got {}",
                ValueType::Vector.documented(),
                found.documented()
            );
            self.error(pos, message);
        }
        match arg {
            Expr::Vector(selector) if selector.name.is_some() => {
                let pos = selector.pos;
                self.error(pos, "expected label selectors only, got vector selector instead");
            }
            Expr::Vector(selector) => selector.info_argument = true,
            other => {
                let pos = other.pos();
                self.error(pos, "expected label selectors only");
            }
        }
    }

    fn binary(&mut self, binary: &mut BinaryExpr) {
        let lhs = self.expr(&mut binary.lhs);
        let rhs = self.expr(&mut binary.rhs);
        let scalars = lhs == ValueType::Scalar && rhs == ValueType::Scalar;
        if binary.return_bool && !binary.op.is_comparison() {
            self.error(self.operator_pos(binary), "bool modifier can only be used on comparison operators");
        }
        if binary.op.is_comparison() && !binary.return_bool && scalars {
            self.error(self.operator_pos(binary), "comparisons between scalars must use BOOL modifier");
        }
        self.shared_labels(binary);
        for (operand, found) in [(&binary.lhs, lhs), (&binary.rhs, rhs)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                self.error(operand.pos(), message);
            }
        }
        self.matching(binary, lhs == ValueType::Vector && rhs == ValueType::Vector);
        let any_scalar = lhs == ValueType::Scalar || rhs == ValueType::Scalar;
        if any_scalar && binary.op.is_set() {
            let op = quote(binary.op.as_str());
            self.error(binary.pos, format!("set operator {op} not allowed in binary scalar expression"));
        }
    }

    /// A label cannot be matched on and be taken from one side.
    fn shared_labels(&mut self, binary: &BinaryExpr) {
        let Some(matching) = binary.matching.as_ref().filter(|matching| matching.on) else { return };
        for label in &matching.labels {
            for _ in matching.include.iter().filter(|included| *included == label) {
                let message = format!("label {} must not occur in ON and GROUP clause at once", quote(label));
                self.error(self.operator_pos(binary), message);
            }
        }
    }

    fn matching(&mut self, binary: &mut BinaryExpr, vectors: bool) {
        let (op, pos) = (binary.op, binary.pos);
        let Some(matching) = &mut binary.matching else { return };
        let fills = matching.fill != Fill::default();
        if !vectors {
            if !matching.labels.is_empty() {
                self.error(pos, "vector matching only allowed between instant vectors");
            }
            if fills {
                self.error(pos, "filling in missing series only allowed between instant vectors");
            }
            binary.matching = None;
            return;
        }
        if !op.is_set() {
            return;
        }
        if matching.cardinality == Cardinality::OneToOne {
            matching.cardinality = Cardinality::ManyToMany;
        }
        if matching.cardinality != Cardinality::ManyToMany {
            self.error(pos, format!("no grouping allowed for {} operation", quote(op.as_str())));
            self.error(pos, "set operations must always be many-to-many");
        }
        if fills {
            self.error(pos, "filling in missing series not allowed for set operators");
        }
    }

    /// The bytes from the operator to the right operand, less the last one: that is how
    /// Prometheus counts them.
    fn operator_pos(&self, binary: &BinaryExpr) -> PosRange {
        let blank = |at: usize| self.text.get(at).is_some_and(|byte| is_space(*byte));
        let mut start = binary.lhs.pos().end;
        while blank(start) {
            start += 1;
        }
        let mut end = binary.rhs.pos().start.saturating_sub(1);
        while end > start && blank(end) {
            end -= 1;
        }
        PosRange::new(start, end)
    }
}
