//! The seam to the world: what a step asks for and what it gives back.

use std::collections::BTreeMap;

use tidewatch_model::{Annotations, Labels, SampleValue, Value};
use tidewatch_parser::Expr;

use crate::alert::{AlertInstance, AlertState};

/// Answers the queries of rules and of their templates: a local engine, or a remote one.
pub trait Evaluator {
    /// The value of `expr` at `at_ms`.
    fn instant(&self, expr: &Expr, at_ms: i64) -> Result<(Value, Annotations), EvalError>;

    /// A clock that only grows, in nanoseconds; for the durations that the status shows.
    fn monotonic_ns(&self) -> u64;
}

/// Why a query has no answer, in the words that the rule's status will show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    pub message: String,
}

impl EvalError {
    pub fn new(message: impl Into<String>) -> EvalError {
        EvalError { message: message.into() }
    }
}

/// A sample that a rule gives to the store.
#[derive(Debug, Clone)]
pub struct RuleSample {
    pub labels: Labels,
    pub timestamp: i64,
    pub value: SampleValue,
}

/// Takes a rule's samples, before the next rule of the group is evaluated, which may read them.
/// An error is a sentence; it becomes the rule's last error.
pub type Append<'a> = &'a mut dyn FnMut(&[RuleSample]) -> Result<(), String>;

/// What one evaluation of a group did, for the journal, the notifier and the log. Changes and
/// the notifications they cause belong into one durable record.
#[derive(Debug, Clone, Default)]
pub struct Effects {
    /// The time for which the group was evaluated.
    pub at_ms: i64,
    /// Whether it was; after a sleep a group may only tell again of what fires.
    pub evaluated: bool,
    /// Evaluations that were due since the last one and did not happen.
    pub gap: Option<Gap>,
    /// Alerts that changed, in the order of the rules.
    pub changes: Vec<AlertChange>,
    pub notifications: Vec<Notification>,
    /// Samples given to the store.
    pub samples: u64,
    /// Rules that failed, with what they said.
    pub failures: Vec<RuleFailure>,
    /// Warnings and infos of the queries.
    pub annotations: Annotations,
}

/// A stretch of time in which a group should have been evaluated and was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first evaluation that was missed, and the last.
    pub from_ms: i64,
    pub to_ms: i64,
    pub evaluations: u64,
}

/// Which rule of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId {
    pub name: String,
    /// Its place in the group.
    pub index: usize,
}

/// One alert after it changed.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertChange {
    pub rule: RuleId,
    pub kind: ChangeKind,
    pub instance: AlertInstance,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// The condition holds since now.
    Pending,
    /// It held for long enough.
    Firing,
    /// A firing alert's condition holds no more; it is kept for a while to be told so.
    Resolved,
    /// A firing alert's condition ended or came back, and `keep_firing_for` keeps it firing.
    Kept,
    /// Nothing but the times of its last notification changed.
    Sent,
    /// Times of it that were noted by a clock that was ahead are those of the evaluation now.
    Redated,
    /// Its rule stands at another place of the group now; the alert is as it was.
    Moved,
    /// The alert is gone: it was pending, its retention ended, or its rule was removed.
    Forgotten,
}

/// An alert as it is to be told to receivers.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    pub rule: RuleId,
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    /// When it began to fire.
    pub starts_at_ms: i64,
    /// When it was resolved, or until when it is valid if nothing more is heard.
    pub ends_at_ms: i64,
    /// [`AlertState::Firing`], or [`AlertState::Inactive`] when it was resolved.
    pub state: AlertState,
    /// A link to the alert's expression.
    pub generator_url: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFailure {
    pub rule: RuleId,
    pub message: String,
}
