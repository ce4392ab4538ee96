//! The database: head, log and blocks as one, behind the traits of `storage`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tidewatch_env::Env;
use tidewatch_model::{Batch, Matcher};
use tidewatch_storage::{
    Append, AppendError, AppendOutcome, Refusal, Select, SelectError, Selection, Ticket, TimeRange,
};

use crate::head::Head;
use crate::head::append::{FrameLog, Terms};
use crate::options::DbOptions;
use crate::select::DbSelection;
use crate::status::{Cardinality, Counters, DbStatus};

/// A database of series.
pub struct Db {
    env: Env,
    options: DbOptions,
    head: Head,
    complete: AtomicBool,
    counters: AtomicCounters,
}

/// The part of [`Counters`] that requests count.
#[derive(Debug, Default)]
struct AtomicCounters {
    appended: AtomicU64,
    duplicates: AtomicU64,
    too_old: AtomicU64,
    conflict: AtomicU64,
    future: AtomicU64,
    labels: AtomicU64,
    unsupported: AtomicU64,
}

/// The log of a database in memory.
struct NoLog;

impl FrameLog for NoLog {
    fn append(&self, _: &[u8]) -> Result<Ticket, AppendError> {
        Ok(Ticket::default())
    }
}

impl Db {
    /// A database without files: it ends with the process and is complete at once.
    pub fn in_memory(env: Env, options: DbOptions) -> Db {
        let head = Head::new(env.entropy.next_u64());
        Db { env, options, head, complete: AtomicBool::new(true), counters: AtomicCounters::default() }
    }

    /// Makes everything that was appended durable and returns up to where that is so.
    pub fn commit(&self) -> Result<Ticket, AppendError> {
        Ok(Ticket::default())
    }

    /// Up to where the log is durable.
    pub fn durable(&self) -> Ticket {
        Ticket::default()
    }

    pub fn status(&self) -> DbStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = Counters {
            samples_appended: load(&self.counters.appended),
            duplicates: load(&self.counters.duplicates),
            refused_too_old: load(&self.counters.too_old),
            refused_conflict: load(&self.counters.conflict),
            refused_future: load(&self.counters.future),
            refused_labels: load(&self.counters.labels),
            refused_unsupported: load(&self.counters.unsupported),
            ..Counters::default()
        };
        DbStatus {
            complete: self.complete.load(Ordering::Acquire),
            head: self.head.status(),
            counters,
            ..DbStatus::default()
        }
    }

    /// The `limit` largest metrics, labels and pairs of the head.
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        self.head.cardinality(limit)
    }

    fn check_complete(&self) -> Result<(), SelectError> {
        if self.complete.load(Ordering::Acquire) { Ok(()) } else { Err(SelectError::Recovering) }
    }
}

impl Append for Db {
    fn append(&self, batch: &Batch<'_>) -> Result<AppendOutcome, AppendError> {
        let terms = Terms {
            until_ms: self.env.clock.wall_ms().saturating_add(self.options.limits.future_ms),
            limits: &self.options.limits,
            series_max: self.options.series_max,
        };
        let outcome = self.head.append(batch, &terms, &NoLog)?;
        self.counters.count(&outcome);
        Ok(outcome)
    }
}

impl AtomicCounters {
    fn count(&self, outcome: &AppendOutcome) {
        self.appended.fetch_add(outcome.accepted - outcome.duplicates, Ordering::Relaxed);
        self.duplicates.fetch_add(outcome.duplicates, Ordering::Relaxed);
        for (refusal, count) in &outcome.refused {
            let counter = match refusal {
                Refusal::InvalidLabels | Refusal::LabelLimit => &self.labels,
                Refusal::TooOld => &self.too_old,
                Refusal::TooFarInFuture => &self.future,
                Refusal::Conflict => &self.conflict,
                Refusal::Unsupported => &self.unsupported,
            };
            counter.fetch_add(*count, Ordering::Relaxed);
        }
    }
}

impl Select for Db {
    fn select(&self, matchers: &[Matcher], range: TimeRange) -> Result<Box<dyn Selection>, SelectError> {
        self.check_complete()?;
        Ok(Box::new(DbSelection::new(self.head.snapshot(matchers, range))))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, SelectError> {
        self.check_complete()?;
        let mut names = self.head.label_names(matchers, range);
        names.truncate(limit);
        Ok(names)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
    ) -> Result<Vec<String>, SelectError> {
        self.check_complete()?;
        let mut values = self.head.label_values(name, matchers, range);
        values.truncate(limit);
        Ok(values)
    }
}
