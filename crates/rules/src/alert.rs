//! One alert and its states.

use std::collections::BTreeMap;

use tidewatch_model::Labels;

/// ```text
///            holds                 held for `for`
/// (none) ───────────► Pending ───────────────────► Firing
///                        │                            │  holds no more,
///                        │ holds no more              │  `keep_firing_for` is over
///                        ▼                            ▼
///                     (none) ◄──────────────────── Inactive ──► Pending, when it holds again
///                             15 min after resolved
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AlertState {
    Inactive,
    Pending,
    Firing,
}

impl AlertState {
    /// As in the label `alertstate` and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            AlertState::Inactive => "inactive",
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
        }
    }
}

/// All that is known of one alert: plain values, so that a journal can keep them.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertInstance {
    /// Its identity within its rule, `alertname` among them.
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    pub state: AlertState,
    /// The value of the expression when it last held.
    pub value: f64,
    /// The evaluation since which the condition holds.
    pub active_at_ms: i64,
    pub fired_at_ms: Option<i64>,
    pub resolved_at_ms: Option<i64>,
    /// Since when only `keep_firing_for` keeps it firing.
    pub keep_firing_since_ms: Option<i64>,
    pub last_sent_at_ms: Option<i64>,
    /// Receivers may take it for resolved after this time.
    pub valid_until_ms: Option<i64>,
}
