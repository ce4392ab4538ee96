//! What the API and the page show of groups, rules and alerts: plain values.

use std::collections::BTreeMap;

use tidewatch_model::Labels;

use crate::alert::AlertState;

#[derive(Debug, Clone, PartialEq)]
pub struct GroupStatus {
    pub name: String,
    pub file: String,
    pub interval_ms: i64,
    pub query_offset_ms: i64,
    pub limit: usize,
    pub rules: Vec<RuleStatus>,
    /// How long the last evaluation took.
    pub evaluation_ns: u64,
    /// The time for which the group was last evaluated.
    pub last_evaluation_ms: Option<i64>,
    /// Evaluations that were due and did not happen.
    pub missed: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RuleStatus {
    pub name: String,
    pub query: String,
    pub labels: Labels,
    pub health: Health,
    pub last_error: Option<String>,
    pub evaluation_ns: u64,
    pub last_evaluation_ms: Option<i64>,
    /// Present exactly for an alerting rule.
    pub alerting: Option<AlertingStatus>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AlertingStatus {
    /// The highest state among the alerts.
    pub state: AlertState,
    pub for_ms: i64,
    pub keep_firing_for_ms: i64,
    pub annotations: BTreeMap<String, String>,
    /// Pending and firing ones, sorted by labels.
    pub alerts: Vec<AlertStatus>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AlertStatus {
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    pub state: AlertState,
    pub active_at_ms: i64,
    pub keep_firing_since_ms: Option<i64>,
    pub value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// Not evaluated yet.
    Unknown,
    Good,
    Bad,
}

impl Health {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Good => "ok",
            Health::Bad => "err",
        }
    }
}
