//! Rules and queries meet the engine here: the only place where the language tower sees data.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tidewatch_env::Env;
use tidewatch_model::{
    Annotations, Batch, BatchHistogram, NativeHistogram, RawLabels, Sample, SampleValue, Value,
};
use tidewatch_parser::{Expr, ParserOptions};
use tidewatch_promql::{Answer, Engine, EngineOptions, MemoryPool, QueryContext, QueryError};
use tidewatch_rules::{EvalError, Evaluator, RuleSample};
use tidewatch_storage::{Append, Select, Ticket};

/// Evaluates the expressions of rules with the local engine on the local store.
pub struct LocalEvaluator {
    pub env: Env,
    pub engine: Arc<Engine>,
    pub store: Arc<dyn Select>,
    pub timeout_ms: i64,
    /// What all evaluations may hold together.
    pub memory: Arc<MemoryPool>,
}

impl LocalEvaluator {
    /// The value of `expr` at one time, within the time and memory of rules.
    pub fn answer(&self, expr: &Expr, at_ms: i64) -> Result<Answer, QueryError> {
        let deadline = self.env.clock.monotonic_ns() + self.timeout_ms.unsigned_abs() * 1_000_000;
        let context = QueryContext {
            deadline_ns: Some(deadline),
            cancel: Arc::new(AtomicBool::new(false)),
            memory_bytes: self.memory.limit(),
            pool: Some(self.memory.clone()),
            ..QueryContext::unbounded()
        };
        self.engine.instant(&*self.store, expr, at_ms, &context)
    }
}

/// What a rule takes of an answer.
pub fn for_rule(answer: Result<Answer, QueryError>) -> Result<(Value, Annotations), EvalError> {
    answer.map(|answer| (answer.value, answer.annotations)).map_err(|error| EvalError::new(error.to_string()))
}

impl Evaluator for LocalEvaluator {
    fn instant(&self, expr: &Expr, at_ms: i64) -> Result<(Value, Annotations), EvalError> {
        for_rule(self.answer(expr, at_ms))
    }

    fn monotonic_ns(&self) -> u64 {
        self.env.clock.monotonic_ns()
    }
}

/// What `--enable-feature` switches on in parser and engine. Names that mean nothing here come
/// back for a warning.
pub fn features(names: &[String], engine: &mut EngineOptions) -> (ParserOptions, Vec<String>) {
    let mut parser = ParserOptions::default();
    let mut unknown = Vec::new();
    for name in names {
        match name.as_str() {
            "promql-delayed-name-removal" => engine.delayed_name_removal = true,
            "type-and-unit-labels" => engine.type_and_unit_labels = true,
            "use-start-timestamps" => engine.start_timestamps = true,
            _ if parser.enable(name) => {}
            // The server's.
            "promql-per-step-stats" => {}
            // On by default or of no consequence in this version of Prometheus.
            "promql-at-modifier"
            | "promql-negative-offset"
            | "remote-write-receiver"
            | "native-histograms"
            // Read where the store and the scraper are made.
            | "exemplar-storage"
            | "st-storage"
            | "extra-scrape-metrics" => {}
            _ => unknown.push(name.clone()),
        }
    }
    (parser, unknown)
}

/// Gives a rule's samples to a store; how many were refused comes back as an error, as Prometheus
/// reports it.
pub fn append_rule_samples(store: &dyn Append, samples: &[RuleSample]) -> Result<Ticket, String> {
    let mut batch = Batch::new();
    for sample in samples {
        match &sample.value {
            SampleValue::Float(value) => {
                let float = Sample { timestamp: sample.timestamp, value: *value };
                batch.push(RawLabels::Canonical(sample.labels.as_bytes()), &[float]);
            }
            SampleValue::Histogram(histogram) => {
                let value = NativeHistogram::Float((**histogram).clone());
                let histogram = BatchHistogram { timestamp: sample.timestamp, start: 0, value };
                batch.push_histograms(RawLabels::Canonical(sample.labels.as_bytes()), &[histogram]);
            }
        }
    }
    let outcome = store.append(&batch).map_err(|error| error.to_string())?;
    match outcome.first_refusal {
        Some(reason) => Err(reason),
        None => Ok(outcome.ticket),
    }
}
