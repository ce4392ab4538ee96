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
//! resolved, start every `for` anew and find `absent` everything that had not come back yet. Who reads
//! what other groups record waits until these had the time to record it (`dependencies`).
//!
//! Not here: who notices that the process slept (the binary, and `Group::restore`).

use tidewatch_parser::{Duration, Expr};

use crate::definition::RuleGroup;
use crate::group::Settings;

/// The least time that senders get to come back.
const GRACE_MS: i64 = 60_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// How far back the narrowest rule looks.
    window_ms: i64,
    /// How long it takes until each series that the rules read has new samples.
    refill_ms: i64,
    /// What those bear whose series it reads, and how long awake a sleep counts for them.
    bearable_max_ms: i64,
    counts_min_ms: i64,
    /// For how long the process has to be awake after a sleep that the window does not bridge.
    pub(crate) wait_ms: i64,
}

impl Patience {
    pub(crate) fn of(group: &RuleGroup, settings: &Settings) -> Patience {
        let windows = group.rules.iter().map(|rule| window_ms(&rule.query.expr, settings.lookback_ms));
        let window_ms = windows.min().unwrap_or(i64::MAX).min(settings.lookback_ms);
        let offset_ms = group.query_offset_ms.unwrap_or(settings.query_offset_ms).max(0);
        // What rules see is as old as their offset: so is the end of the sleep.
        let wait_ms = settings.refill_ms.max(GRACE_MS).saturating_add(offset_ms);
        let refill_ms = settings.refill_ms;
        Patience { window_ms, refill_ms, bearable_max_ms: i64::MAX, counts_min_ms: 0, wait_ms }
    }

    /// Its rules read what other groups record: the rarest at `interval_ms`, and all of them
    /// `lag_ms` after the samples are back.
    pub(crate) fn reads_recorded(&mut self, interval_ms: i64, lag_ms: i64) {
        self.refill_ms = self.refill_ms.max(interval_ms);
        self.wait_ms = self.wait_ms.saturating_add(lag_ms);
    }

    /// A window that is narrower than two intervals is of series that come more often.
    fn refill_ms(&self) -> i64 {
        self.refill_ms.min(self.window_ms / 2)
    }

    /// A sleep that is longer is followed by a wait.
    fn bearable_ms(&self) -> i64 {
        (self.window_ms - self.refill_ms()).min(self.bearable_max_ms)
    }

    /// For how long awake a sleep counts.
    fn counts_ms(&self) -> i64 {
        self.refill_ms().max(self.counts_min_ms)
    }

    /// Who reads what others record, and do not while they wait, waits when they do.
    pub(crate) fn waits_with(&mut self, other: &Patience) {
        self.bearable_max_ms = self.bearable_max_ms.min(other.bearable_ms());
        self.counts_min_ms = self.counts_min_ms.max(other.counts_ms());
    }
}

/// What a group knows of sleeps of the process, which are the same for all groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wait {
    /// Until when the process before this one was awake; not stepped since.
    pub(crate) asleep_since_ms: Option<i64>,
    /// Since when samples come back after a sleep that was too long. Short sleeps move it on, so that
    /// what lies behind it is time awake.
    back_since_ms: Option<i64>,
    /// Later sleeps that were bearable, the oldest first: together they may not be.
    sleeps: Vec<(i64, i64)>,
}

impl Wait {
    /// Takes a sleep, after which a wait may begin or become longer.
    ///
    /// A sleep counts until all series have new samples, so that many short ones are not taken for
    /// a long one, nor a long one with a moment awake in it for two short ones. During a wait only one
    /// that is not bearable begins it anew: a machine that stutters would wait forever.
    pub(crate) fn slept(&mut self, since_ms: i64, now_ms: i64, patience: &Patience) {
        let slept_ms = now_ms - since_ms;
        if slept_ms <= 0 {
            return;
        }
        let (mut asleep_ms, mut awake_ms, mut behind_ms) = (slept_ms, 0, since_ms);
        let mut fresh = self.sleeps.len();
        for (from_ms, until_ms) in self.sleeps.iter().rev() {
            awake_ms += (behind_ms - until_ms).max(0);
            if awake_ms >= patience.counts_ms() {
                break;
            }
            (asleep_ms, behind_ms, fresh) = (asleep_ms + until_ms - from_ms, *from_ms, fresh - 1);
        }
        self.sleeps.drain(..fresh);
        if asleep_ms > patience.bearable_ms() {
            self.back_since_ms = Some(now_ms);
            self.sleeps.clear();
            return;
        }
        self.sleeps.push((since_ms, now_ms));
        if self.hold_ms(patience).is_some_and(|hold_ms| since_ms < hold_ms) {
            self.back_since_ms = self.back_since_ms.map(|back_ms| back_ms + slept_ms);
        }
    }

    /// No evaluation as of a time before this one.
    pub(crate) fn hold_ms(&self, patience: &Patience) -> Option<i64> {
        self.back_since_ms.map(|back_ms| back_ms + patience.wait_ms)
    }

    /// The clock was set to `now_ms`: what lies behind that is measured by another clock.
    pub(crate) fn clock_went_back(&mut self) {
        self.back_since_ms = None;
        self.sleeps.clear();
    }

    /// Samples come back by now at the latest, whatever the clock showed for a while.
    pub(crate) fn not_after(&mut self, now_ms: i64) {
        self.back_since_ms = self.back_since_ms.map(|back_ms| back_ms.min(now_ms));
    }

    /// What somebody knows who knows both.
    pub(crate) fn and(self, other: Wait) -> Wait {
        let sleeps = [self.sleeps, other.sleeps].into_iter().max_by_key(Vec::len).unwrap_or_default();
        Wait {
            asleep_since_ms: self.asleep_since_ms.into_iter().chain(other.asleep_since_ms).min(),
            back_since_ms: self.back_since_ms.max(other.back_since_ms),
            sleeps,
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
