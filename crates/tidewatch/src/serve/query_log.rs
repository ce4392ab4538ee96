//! The file that `global.query_log_file` names: opened anew at each reload, so that it can be rotated.
//! Queries of clients come from the server, those of rules by [`Logged`].

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tidewatch_env::{Disk, File, Open, is_no_file};
use tidewatch_model::{Annotations, Value};
use tidewatch_parser::Expr;
use tidewatch_rules::{EvalError, Evaluator};
use tidewatch_server::{Asker, LoggedQuery};

use crate::evaluate::{LocalEvaluator, for_rule};

#[derive(Default)]
pub struct QueryLog {
    /// Guards the file against lines that mix.
    file: Mutex<Option<Target>>,
    /// Whether there is one: asked for each query.
    on: AtomicBool,
}

struct Target {
    path: PathBuf,
    file: Arc<dyn File>,
    /// A full disk is told once, and not once a query.
    failed: bool,
}

impl QueryLog {
    /// Appends to `path` from now on, or to nothing.
    pub fn switch(&self, disk: &dyn Disk, path: Option<&Path>) -> Result<()> {
        let target = match path {
            None => None,
            Some(path) => {
                let how = if disk.exists(path)? { Open::Write } else { Open::Create };
                match disk.open(path, how) {
                    // A pipe, as `/dev/stdout` may be one, has no place where a line could be put.
                    Err(error) if is_no_file(&error) && error.kind() != ErrorKind::IsADirectory => {
                        tracing::error!(file = %path.display(), %error, "queries are not logged");
                        None
                    }
                    opened => {
                        let file =
                            opened.with_context(|| format!("open the query log {}", path.display()))?;
                        Some(Target { path: path.to_owned(), file, failed: false })
                    }
                }
            }
        };
        self.on.store(target.is_some(), Ordering::Relaxed);
        *self.file.lock() = target;
        Ok(())
    }

    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Writes one line. A query does not fail for its log.
    pub fn write(&self, line: &str) {
        let mut target = self.file.lock();
        let Some(target) = &mut *target else { return };
        match target.file.append(line.as_bytes()) {
            Ok(()) => target.failed = false,
            Err(error) if !std::mem::replace(&mut target.failed, true) => {
                tracing::error!(file = %target.path.display(), %error, "queries are not logged");
            }
            Err(_) => {}
        }
    }
}

/// Evaluates the rules of a group and logs their queries.
pub struct Logged<'a> {
    pub evaluator: &'a LocalEvaluator,
    pub log: &'a QueryLog,
    pub file: &'a str,
    pub group: &'a str,
}

impl Evaluator for Logged<'_> {
    fn instant(&self, expr: &Expr, at_ms: i64) -> Result<(Value, Annotations), EvalError> {
        if !self.log.is_on() {
            return self.evaluator.instant(expr, at_ms);
        }
        let began_ns = self.monotonic_ns();
        let answer = self.evaluator.answer(expr, at_ms);
        let logged = LoggedQuery {
            query: &expr.to_string(),
            asker: Asker::RuleGroup { file: self.file, name: self.group },
            start_ms: at_ms,
            end_ms: at_ms,
            step_ms: 0,
            queued_ns: 0,
            total_ns: self.monotonic_ns().saturating_sub(began_ns),
            result: answer.as_ref().map(|answer| answer.statistics.clone()),
        };
        self.log.write(&logged.line(self.evaluator.env.clock.wall_ms()));
        for_rule(answer)
    }

    fn monotonic_ns(&self) -> u64 {
        self.evaluator.monotonic_ns()
    }
}
