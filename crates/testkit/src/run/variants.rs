//! Other queries that must give the same: with every selector fixed in time by `@`, a query gives
//! the same whenever it is asked.

use tidewatch_parser::{At, Expr, FunctionId, ParserOptions, parse_expr};

/// A query and when to ask it.
pub(super) struct Variant {
    pub query: String,
    pub at: i64,
}

/// Fixes all selectors at `at` and asks at other times, unless the query's result depends on
/// when it is asked however its selectors are fixed.
pub(super) fn at_modifier(query: &str, at: i64, options: &ParserOptions) -> Vec<Variant> {
    let Ok(mut expr) = parse_expr(query, options) else { return Vec::new() };
    if depends_on_time(&expr) {
        return Vec::new();
    }
    fix(&mut expr, at);
    let query = expr.to_string();
    let times = if at == 0 { vec![-1000, 0, 1000] } else { vec![-10 * at, 0, at / 5, at, 10 * at] };
    times.into_iter().map(|at| Variant { query: query.clone(), at }).collect()
}

/// Whether a query names its own start, end, range or step, which a range query changes.
pub(super) fn depends_on_range(query: &str) -> bool {
    ["start()", "end()", "range()", "step()"].iter().any(|call| query.contains(call))
}

/// Sets `@`, except below a subquery that is fixed itself.
fn fix(expr: &mut Expr, at: i64) {
    let set = |modifier: &mut Option<At>| {
        if !matches!(modifier, Some(At::Timestamp(_))) {
            *modifier = Some(At::Timestamp(at));
        }
    };
    match expr {
        Expr::Vector(selector) => set(&mut selector.at),
        Expr::Matrix(matrix) => set(&mut matrix.selector.at),
        Expr::Subquery(subquery) => set(&mut subquery.at),
        Expr::Unary(unary) => fix(&mut unary.expr, at),
        Expr::Paren(paren) => fix(&mut paren.expr, at),
        Expr::Binary(binary) => {
            fix(&mut binary.lhs, at);
            fix(&mut binary.rhs, at);
        }
        Expr::Aggregate(aggregate) => {
            fix(&mut aggregate.expr, at);
            if let Some(param) = &mut aggregate.param {
                fix(param, at);
            }
        }
        Expr::Call(call) => call.args.iter_mut().for_each(|arg| fix(arg, at)),
        Expr::Number(_) | Expr::String(_) => {}
    }
}

/// Whether a call outside of subqueries looks at the time of evaluation.
fn depends_on_time(expr: &Expr) -> bool {
    use FunctionId::{
        DayOfMonth, DayOfWeek, DayOfYear, DaysInMonth, End, Hour, Minute, Month, PredictLinear, Range, Start,
        Step, Time, Timestamp, Year,
    };
    let here = match expr {
        Expr::Call(call) => matches!(
            call.function.id,
            DaysInMonth
                | DayOfMonth
                | DayOfWeek
                | DayOfYear
                | Hour
                | Minute
                | Month
                | Year
                | PredictLinear
                | Time
                | Timestamp
                | Start
                | End
                | Range
                | Step
        ),
        // Fixed, so that what is below is evaluated at the same times whenever it is asked.
        Expr::Subquery(_) => return false,
        _ => false,
    };
    here || expr.children().into_iter().any(depends_on_time)
}
