//! Rule files, groups, recording and alerting rules, and the templates of their texts.
//!
//! ```text
//! rule file ─ RuleFile::parse ─► RuleGroup ─► Group ─ step(now, evaluator) ─► Effects
//!                                               ▲                              │ samples ─► store
//!                              journal ─ restore┘                              │ changes ─► journal
//!                                                                              └ notifications ─► notify
//! ```
//!
//! Invariants: a group that was restored goes on as if the process had slept; a change of an
//! alert and the notification it causes come out of the same step.
//!
//! Not here: threads, clocks, files (the binary), the evaluation of expressions (behind
//! [`Evaluator`]), grouping and delivery (`notify`).

#![forbid(unsafe_code)]

mod alert;
mod alerting;
mod definition;
mod dependencies;
mod effects;
mod file;
mod group;
mod lint;
mod patience;
mod reader;
mod recording;
mod reload;
mod running;
mod status;
pub mod template;
pub mod testfile;

pub use alert::{AlertInstance, AlertState};
pub use definition::{AlertingFields, Query, Rule, RuleFile, RuleGroup, RuleKind};
pub use effects::{
    AlertChange, Append, ChangeKind, Effects, EvalError, Evaluator, Gap, Notification, RuleFailure, RuleId,
    RuleSample,
};
pub use file::{LoadOptions, RuleFileError, RulePlace};
pub use group::{Group, Settings, stale_markers};
pub use lint::{DuplicateRule, duplicate_rules};
pub use reload::{EndedSeries, GroupNote, Reloaded, awake_until_ms, rehome, reload};
pub use status::{AlertStatus, AlertingStatus, GroupStatus, Health, RuleStatus};
