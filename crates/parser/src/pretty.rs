//! A tree as text over several lines: what does not fit into one is split into its parts.

use crate::ast::Expr;
use crate::print::{AggregateHead, Operator, SubquerySuffix};

/// Characters after which an expression is split, as in Prometheus.
const LINE_MAX: usize = 100;

/// Prints a query for people to read, as `/api/v1/format_query` does.
pub fn pretty(expr: &Expr) -> String {
    pretty_within(expr, LINE_MAX)
}

/// Prints with another length of lines.
pub fn pretty_within(expr: &Expr, line_max: usize) -> String {
    Printer { line_max }.at(expr, 0)
}

struct Printer {
    line_max: usize,
}

impl Printer {
    fn at(&self, expr: &Expr, level: usize) -> String {
        let indent = "  ".repeat(level);
        let whole = expr.to_string();
        // A sign and a subquery's suffix stay with what they belong to, however long it is.
        match expr {
            Expr::Unary(unary) => {
                let operand = self.at(&unary.expr, level);
                return format!("{indent}{}{}", unary.op.as_str(), operand.trim_start());
            }
            _ if whole.len() <= self.line_max => return format!("{indent}{whole}"),
            _ => {}
        }
        match expr {
            Expr::Number(_) | Expr::String(_) | Expr::Vector(_) | Expr::Matrix(_) | Expr::Unary(_) => {
                format!("{indent}{whole}")
            }
            Expr::Paren(paren) => {
                format!("{indent}(\n{}\n{indent})", self.at(&paren.expr, level + 1))
            }
            Expr::Subquery(subquery) => {
                format!("{}{}", self.at(&subquery.expr, level), SubquerySuffix(subquery))
            }
            Expr::Call(call) => {
                let args: Vec<String> = call.args.iter().map(|arg| self.at(arg, level + 1)).collect();
                format!("{indent}{}(\n{}\n{indent})", call.function.name, args.join(",\n"))
            }
            Expr::Aggregate(aggregate) => {
                let param = aggregate.param.as_ref().map(|param| self.at(param, level + 1) + ",\n");
                let vector = self.at(&aggregate.expr, level + 1);
                let head = AggregateHead(aggregate);
                format!("{indent}{head}(\n{}{vector}\n{indent})", param.unwrap_or_default())
            }
            Expr::Binary(binary) => format!(
                "{}\n{indent}{}\n{}",
                self.at(&binary.lhs, level + 1),
                Operator(binary),
                self.at(&binary.rhs, level + 1)
            ),
        }
    }
}
