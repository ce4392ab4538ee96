//! The engine: the door through which queries come.

use tidewatch_env::Env;
use tidewatch_parser::Expr;
use tidewatch_storage::Select;

use crate::context::{Answer, EngineOptions, QueryContext, QueryError};

/// Evaluates expressions. Holds no state between queries.
#[derive(Clone)]
pub struct Engine {
    env: Env,
    options: EngineOptions,
}

impl Engine {
    pub fn new(env: Env, options: EngineOptions) -> Engine {
        Engine { env, options }
    }

    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates `expr` at one time, in milliseconds.
    pub fn instant(
        &self,
        store: &dyn Select,
        expr: &Expr,
        at: i64,
        context: &QueryContext,
    ) -> Result<Answer, QueryError> {
        self.evaluate(store, expr, at, at, 0, context)
    }

    /// Evaluates `expr` at `start`, `start + step`, … up to and including `end`.
    pub fn range(
        &self,
        store: &dyn Select,
        expr: &Expr,
        start: i64,
        end: i64,
        step: i64,
        context: &QueryContext,
    ) -> Result<Answer, QueryError> {
        self.evaluate(store, expr, start, end, step, context)
    }

    fn evaluate(
        &self,
        _store: &dyn Select,
        _expr: &Expr,
        _start: i64,
        _end: i64,
        _step: i64,
        _context: &QueryContext,
    ) -> Result<Answer, QueryError> {
        let _ = &self.env;
        Err(QueryError::Execution("the evaluator is being written".to_owned()))
    }
}
