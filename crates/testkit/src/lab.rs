//! The memory store and the engine as a laboratory for unit tests of rules.

use tidewatch_env::Env;
use tidewatch_model::{Annotations, SampleValue, Value};
use tidewatch_parser::Expr;
use tidewatch_promql::{Engine, EngineOptions, QueryContext};
use tidewatch_rules::testfile::{Bench, Lab};
use tidewatch_rules::{EvalError, Evaluator, RuleSample};
use tidewatch_storage::Refusal;

use crate::store::{MemoryStore, SampleData};

/// Gives each test group a [`MemoryStore`] of its own.
#[derive(Clone)]
pub struct MemoryLab {
    env: Env,
    options: EngineOptions,
}

impl MemoryLab {
    pub fn new(env: Env, options: EngineOptions) -> MemoryLab {
        MemoryLab { env, options }
    }

    /// A store with its engine, for rules that are run outside of a test file.
    pub fn memory_bench(&self) -> MemoryBench {
        let engine = Engine::new(self.env.clone(), self.options.clone());
        MemoryBench { env: self.env.clone(), engine, store: MemoryStore::new() }
    }
}

impl Lab for MemoryLab {
    fn bench(&self, interval_ms: i64) -> Box<dyn Bench> {
        let options = EngineOptions { subquery_step_ms: interval_ms, ..self.options.clone() };
        let lab = MemoryLab { env: self.env.clone(), options };
        Box::new(lab.memory_bench())
    }
}

/// A memory store and an engine that answers from it.
pub struct MemoryBench {
    env: Env,
    engine: Engine,
    store: MemoryStore,
}

impl Evaluator for MemoryBench {
    fn instant(&self, expr: &Expr, at_ms: i64) -> Result<(Value, Annotations), EvalError> {
        self.engine
            .instant(&self.store, expr, at_ms, &QueryContext::unbounded())
            .map(|answer| (answer.value, answer.annotations))
            .map_err(|error| EvalError::new(error.to_string()))
    }

    fn monotonic_ns(&self) -> u64 {
        self.env.clock.monotonic_ns()
    }
}

impl Bench for MemoryBench {
    /// Takes every sample that can be taken; the first that can not is the error, in Prometheus'
    /// words.
    fn append(&self, samples: &[RuleSample]) -> Result<(), String> {
        let mut first = Ok(());
        for RuleSample { labels, timestamp, value } in samples {
            let data = match value {
                SampleValue::Float(value) => SampleData::Float(*value),
                SampleValue::Histogram(histogram) => SampleData::Histogram(histogram.clone()),
            };
            if let Err(refusal) = self.store.push(labels, *timestamp, 0, data) {
                first = first.and(Err(refusal_text(refusal)));
            }
        }
        first
    }
}

fn refusal_text(refusal: Refusal) -> String {
    match refusal {
        Refusal::TooOld => "out of order sample".to_owned(),
        Refusal::Conflict => "duplicate sample for timestamp".to_owned(),
        other => format!("sample refused: {other:?}"),
    }
}
