//! What an engine is told once, and what a query brings along.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tidewatch_model::{Annotations, Value};
use tidewatch_storage::SelectError;

use crate::explain::PlanNode;
use crate::guard::Charge;
use crate::memory::MemoryPool;

/// How an engine evaluates; fixed for its life. The switches are those of Prometheus'
/// `--enable-feature` that concern evaluation; those that concern the grammar are the parser's.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// How far back an instant selector looks for a sample.
    pub lookback_ms: i64,
    /// The step of a subquery that names none.
    pub subquery_step_ms: i64,
    /// Most samples that a query may hold at once.
    pub samples_max: u64,
    /// `promql-delayed-name-removal`: operations drop the metric name at the end of the query only.
    pub delayed_name_removal: bool,
    /// `type-and-unit-labels`: operations drop `__type__` and `__unit__` along with the name.
    pub type_and_unit_labels: bool,
    /// `use-start-timestamps`: `rate` and its kin find resets by the time at which counters started.
    pub start_timestamps: bool,
}

impl Default for EngineOptions {
    /// Prometheus' defaults.
    fn default() -> EngineOptions {
        EngineOptions {
            lookback_ms: 5 * 60_000,
            subquery_step_ms: 60_000,
            samples_max: 50_000_000,
            delayed_name_removal: false,
            type_and_unit_labels: false,
            start_timestamps: false,
        }
    }
}

/// The bounds of one query.
#[derive(Debug, Clone)]
pub struct QueryContext {
    /// When the query must end, on the environment's monotonic clock.
    pub deadline_ns: Option<u64>,
    /// Set from outside to end the query.
    pub cancel: Arc<AtomicBool>,
    /// Most bytes that the query may hold at once.
    pub memory_bytes: u64,
    /// What it shares with other queries.
    pub pool: Option<Arc<MemoryPool>>,
    /// Overrides the engine's lookback.
    pub lookback_ms: Option<i64>,
    /// Counts samples for each step too (`stats=all`).
    pub per_step_statistics: bool,
    /// Accounts what each node of the plan costs: [`Answer::plan`].
    pub explain: bool,
    /// The query's text, which turns the places of annotations into lines and columns. Without
    /// it they are columns of one line.
    pub query: Option<Arc<str>>,
}

impl QueryContext {
    /// No deadline, the engine's lookback, and the default memory budget.
    pub fn unbounded() -> QueryContext {
        QueryContext {
            deadline_ns: None,
            cancel: Arc::new(AtomicBool::new(false)),
            memory_bytes: tidewatch_model::Limits::default().query_memory_bytes as u64,
            pool: None,
            lookback_ms: None,
            per_step_statistics: false,
            explain: false,
            query: None,
        }
    }
}

/// What a query gave.
#[derive(Debug, Clone)]
pub struct Answer {
    pub value: Value,
    pub annotations: Annotations,
    pub statistics: QueryStatistics,
    /// Present where the context asked for it.
    pub plan: Option<PlanNode>,
    /// The value's part of the budget: to be kept as long as the value.
    pub held: Held,
}

/// Memory of an answer, given back when the last copy is dropped.
#[derive(Clone, Default)]
pub struct Held {
    _charges: Arc<Vec<Charge>>,
}

impl Held {
    pub(crate) fn new(charges: Vec<Charge>) -> Held {
        Held { _charges: Arc::new(charges) }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

/// What a query has cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryStatistics {
    /// Series that its selectors resolved to.
    pub series: u64,
    /// Samples and bytes that the storage decoded.
    pub samples_read: u64,
    pub bytes_read: u64,
    /// Samples that the query looked at, counted for each step as Prometheus counts them
    /// (`totalQueryableSamples`).
    pub samples_total: u64,
    /// Most samples held at once (`peakSamples`).
    pub samples_peak: u64,
    /// `samples_total` by step, where the context asked for it.
    pub samples_per_step: Vec<(i64, u64)>,
    /// Most bytes accounted at once.
    pub bytes_peak: u64,
}

/// Why a query has no answer. Texts are Prometheus' where it has the error too.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The deadline passed (`timeout`, 503).
    #[error("query timed out in {0}")]
    Timeout(&'static str),
    /// Someone set the cancel flag (`canceled`).
    #[error("query was canceled in {0}")]
    Canceled(&'static str),
    /// The query means nothing at these times and steps, whatever the data (`bad_data`, 400).
    #[error("{0}")]
    Invalid(String),
    /// The data contradict the query (`execution`, 422).
    #[error("{0}")]
    Execution(String),
    /// The sample limit (`execution`).
    #[error("query processing would load too many samples into memory in {0}")]
    TooManySamples(&'static str),
    /// The byte budget (`execution`).
    #[error(
        "query needs more than {limit_bytes} bytes of memory: narrow its selectors, its range or its step"
    )]
    OutOfMemory { limit_bytes: u64 },
    /// The memory of all queries (`unavailable`, 503).
    #[error("queries and answers under way fill their {limit_bytes} bytes of memory: try again")]
    Overloaded { limit_bytes: u64 },
    /// The store could not answer (`internal`, or 503 while it recovers).
    #[error("{0}")]
    Storage(#[from] SelectError),
}
