//! Runs scripts: loads, asks, compares.
//!
//! As in Prometheus' own runner an instant evaluation is more than one query: it is asked again
//! as the middle step of a range, and with `@` on every selector at several other times, and each
//! must give the same.

mod almost;
mod compare;
mod variants;

use tidewatch_model::Value;
use tidewatch_parser::{ParserOptions, parse_expr};
use tidewatch_promql::{Answer, Engine, EngineOptions, QueryContext, QueryError};
use tidewatch_storage::Select;

use crate::script::{Command, Eval, Expectations, Failure, Load, Pattern, Script, Time};
use crate::store::MemoryStore;

pub use almost::almost_equal;

/// A store that scripts can load and ask.
pub trait TestStore {
    fn load(&mut self, load: &Load) -> Result<(), String>;

    fn clear(&mut self);

    fn select(&self) -> &dyn Select;
}

impl TestStore for MemoryStore {
    fn load(&mut self, load: &Load) -> Result<(), String> {
        for series in &load.series {
            for sample in &series.samples {
                self.push(&series.labels, sample.timestamp, sample.start, sample.data.clone())
                    .map_err(|refusal| format!("{} at {}: {refusal:?}", series.labels, sample.timestamp))?;
            }
        }
        Ok(())
    }

    fn clear(&mut self) {
        MemoryStore::clear(self);
    }

    fn select(&self) -> &dyn Select {
        self
    }
}

/// What running a script gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Evaluations that gave what was expected.
    pub passed: usize,
    /// Commands that did not, in the order of the script.
    pub failures: Vec<Failure>,
}

/// The engine options that scripts count on: everything experimental is on, subqueries default
/// to a step of one minute, and no query may load more than a few samples.
pub fn script_engine_options() -> EngineOptions {
    EngineOptions {
        samples_max: 10_000,
        delayed_name_removal: true,
        start_timestamps: true,
        ..EngineOptions::default()
    }
}

/// Runs a script against an empty store.
pub fn run_script(text: &str, engine: &Engine, store: &mut dyn TestStore) -> Report {
    let options = ParserOptions::experimental();
    let script = Script::parse(text, &options);
    let mut runner = Runner { engine, options, store };
    let mut report = Report::default();
    for command in &script.commands {
        match runner.run(command) {
            Ok(evaluated) => report.passed += usize::from(evaluated),
            Err(failure) => report.failures.push(failure),
        }
    }
    report
}

struct Runner<'a> {
    engine: &'a Engine,
    options: ParserOptions,
    store: &'a mut dyn TestStore,
}

impl Runner<'_> {
    /// Runs a command. `true` where it was an evaluation that passed.
    fn run(&mut self, command: &Command) -> Result<bool, Failure> {
        match command {
            Command::Invalid(failure) => Err(failure.clone()),
            Command::Clear => {
                self.store.clear();
                Ok(false)
            }
            Command::Load(load) => {
                self.store.load(load).map_err(|reason| Failure { line: load.line, reason })?;
                Ok(false)
            }
            Command::Eval(eval) => {
                let result = match eval.time {
                    Time::Range(points) => {
                        let answer = self.range(&eval.query, points.start, points.end, points.step);
                        check(eval, &eval.query, answer).map(|_| ())
                    }
                    Time::Instant(at) => self.instant_and_variants(eval, at),
                };
                result.map(|()| true).map_err(|reason| Failure { line: eval.line, reason })
            }
        }
    }

    fn instant_and_variants(&self, eval: &Eval, at: i64) -> Result<(), String> {
        self.instant_and_range(eval, &eval.query, at)?;
        for variant in variants::at_modifier(&eval.query, at, &self.options) {
            self.instant_and_range(eval, &variant.query, variant.at)?;
        }
        Ok(())
    }

    fn instant_and_range(&self, eval: &Eval, query: &str, at: i64) -> Result<(), String> {
        let answer = self.instant(query, at);
        let Some(value) = check(eval, query, answer)? else { return Ok(()) };
        if eval.instant_only() || variants::depends_on_range(query) {
            return Ok(());
        }
        let minute = 60_000;
        let line = eval.line;
        let answer = self.range(query, at - minute, at + minute, minute).map_err(|error| {
            format!("error evaluating query {query:?} (line {line}) in range mode: {error}")
        })?;
        // A range is sorted by labels, so an order cannot be checked.
        if eval.expectations.ordered {
            return Ok(());
        }
        compare::range_as_instant(eval, &value, answer.value, at)
            .map_err(|why| format!("error in eval {query} (line {line}) range mode: {why}"))
    }

    fn instant(&self, query: &str, at: i64) -> Result<Answer, QueryError> {
        let expr = self.parse(query)?;
        self.engine.instant(self.store.select(), &expr, at, &context(query))
    }

    fn range(&self, query: &str, start: i64, end: i64, step: i64) -> Result<Answer, QueryError> {
        let expr = self.parse(query)?;
        self.engine.range(self.store.select(), &expr, start, end, step, &context(query))
    }

    fn parse(&self, query: &str) -> Result<tidewatch_parser::Expr, QueryError> {
        parse_expr(query, &self.options).map_err(|errors| QueryError::Execution(errors.to_string()))
    }
}

/// No bounds, and the query's text for the positions in annotations.
fn context(query: &str) -> QueryContext {
    QueryContext { query: Some(query.into()), ..QueryContext::unbounded() }
}

/// Compares an answer with all that is expected of it. Gives its value, if it had to have one.
fn check(eval: &Eval, query: &str, answer: Result<Answer, QueryError>) -> Result<Option<Value>, String> {
    let line = eval.line;
    let quoted = tidewatch_model::quote(query);
    let answer = match answer {
        Err(error) if eval.expectations.fail => {
            return check_failure(eval, &error.to_string()).map(|()| None);
        }
        Err(error) => return Err(format!("error evaluating query {quoted} (line {line}): {error}")),
        Ok(_) if eval.expectations.fail => {
            return Err(format!("expected error evaluating query {quoted} (line {line}) but got none"));
        }
        Ok(answer) => answer,
    };
    check_annotations(&eval.expectations, query, line, &answer.annotations)?;
    compare::value(eval, &answer.value)
        .map_err(|why| format!("error in eval {query} (line {line}): {why}"))?;
    Ok(Some(answer.value))
}

fn check_failure(eval: &Eval, error: &str) -> Result<(), String> {
    let differs = |kind: &str, pattern: &Pattern| {
        let (expected, query) =
            (tidewatch_model::quote(pattern.as_str()), tidewatch_model::quote(&eval.query));
        let line = eval.line;
        Err(format!(
            "expected error {kind}{expected} evaluating query {query} (line {line}), but got: {error}"
        ))
    };
    match &eval.expectations.legacy_fail {
        Some(pattern @ Pattern::Exactly(_)) if !pattern.is_match(error) => return differs("", pattern),
        Some(pattern) if !pattern.is_match(error) => return differs("matching pattern ", pattern),
        _ => {}
    }
    match &eval.expectations.fail_pattern {
        Some(pattern) if !pattern.is_match(error) => differs("matching ", pattern),
        _ => Ok(()),
    }
}

fn check_annotations(
    expectations: &Expectations,
    query: &str,
    line: usize,
    annotations: &tidewatch_model::Annotations,
) -> Result<(), String> {
    let (warnings, infos) = (&annotations.warnings, &annotations.infos);
    let quoted = tidewatch_model::quote(query);
    if expectations.any_warning && warnings.is_empty() {
        return Err(format!("expected warnings evaluating query {quoted} (line {line}) but got none"));
    }
    if expectations.any_info && infos.is_empty() {
        return Err(format!(
            "expected info annotations evaluating query {quoted} (line {line}) but got none"
        ));
    }
    let all: Vec<&str> = warnings.iter().chain(infos).map(String::as_str).collect();
    let all = format!("[{}]", all.join(" "));
    for (kind, expected, found) in
        [("warn", &expectations.warnings, warnings), ("info", &expectations.infos, infos)]
    {
        if expected.is_empty() {
            continue;
        }
        if found.is_empty() {
            return Err(format!(
                "expected {kind} annotations but none were found for query {quoted} (line {line})"
            ));
        }
        if let Some(missing) =
            expected.iter().find(|pattern| !found.iter().any(|text| pattern.is_match(text)))
        {
            return Err(format!(
                "expected {kind} annotation matching {} {} but no matching annotation was found for query \
                 {quoted} (line {line}), found: {all}",
                missing.kind(),
                tidewatch_model::quote(missing.as_str()),
            ));
        }
        if let Some(other) = found.iter().find(|text| !expected.iter().any(|pattern| pattern.is_match(text)))
        {
            let other = tidewatch_model::quote(other);
            return Err(format!(
                "unexpected {kind} annotation {other} found for query {query} (line {line})"
            ));
        }
    }
    for (kind, refused, found) in
        [("warning", expectations.no_warnings, warnings), ("info", expectations.no_infos, infos)]
    {
        if refused && !found.is_empty() {
            return Err(format!(
                "unexpected {kind} annotations evaluating query {quoted} (line {line}): {all}"
            ));
        }
    }
    Ok(())
}
