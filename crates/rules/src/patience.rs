//! How long a group can go without new samples, and how long it waits for them.
//!
//! ```text
//!   last sample            awake again          a sample of each series
//! ──────┤ ···· asleep ···· ├──── refill ────────┤
//!       ├──────────── window ────────┤ what was stored before is seen no more:
//!                                      alerts would end for want of samples
//! ```
//!
//! After a sleep that the window does not bridge, rules wait. They would take every alert for
//! resolved, start every `for` anew and find `absent` everything that had not come back yet.
//!
//! Not here: who notices that the process slept (the binary, and `Group::restore`).

use tidewatch_parser::{Duration, Expr};

use crate::definition::RuleGroup;
use crate::group::Settings;

/// The least time that senders get to come back.
const GRACE_MS: i64 = 60_000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// A sleep that is longer is followed by a wait.
    pub(crate) bearable_ms: i64,
    pub(crate) wait_ms: i64,
}

impl Patience {
    pub(crate) fn of(group: &RuleGroup, settings: &Settings) -> Patience {
        let windows = group.rules.iter().map(|rule| window_ms(&rule.query.expr, settings.lookback_ms));
        let window_ms = windows.min().unwrap_or(i64::MAX).min(settings.lookback_ms);
        // A window that is narrower than two intervals is of series that come more often.
        let refill_ms = settings.refill_ms.min(window_ms / 2);
        Patience { bearable_ms: window_ms - refill_ms, wait_ms: settings.refill_ms.max(GRACE_MS) }
    }
}

/// What a group knows of a sleep of the process, which is the same for all groups.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wait {
    /// Until when the process before this one was awake; not stepped since.
    pub(crate) asleep_since_ms: Option<i64>,
    /// No evaluation as of a time before this one.
    pub(crate) hold_ms: Option<i64>,
}

impl Wait {
    /// What somebody knows who knows both.
    pub(crate) fn and(self, other: Wait) -> Wait {
        Wait {
            asleep_since_ms: self.asleep_since_ms.into_iter().chain(other.asleep_since_ms).min(),
            hold_ms: self.hold_ms.max(other.hold_ms),
        }
    }
}

/// How far back the narrowest selector looks.
fn window_ms(expr: &Expr, lookback_ms: i64) -> i64 {
    let fixed = |range: &Duration| match range {
        Duration::Fixed(ms) => *ms,
        Duration::Computed(_) => lookback_ms,
    };
    match expr {
        Expr::Vector(_) => lookback_ms,
        Expr::Matrix(matrix) => fixed(&matrix.range),
        // Its steps of the past keep what they had.
        Expr::Subquery(subquery) => fixed(&subquery.range),
        other => {
            let children = other.children().into_iter();
            children.map(|child| window_ms(child, lookback_ms)).min().unwrap_or(i64::MAX)
        }
    }
}
