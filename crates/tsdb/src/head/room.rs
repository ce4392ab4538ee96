//! Room for new series, and the pace at which they may come: whatever makes them without end is found before it has
//! taken all.

use std::sync::atomic::Ordering;

use super::Head;
use super::append::Terms;
use super::registry::Registry;

impl Head {
    /// Whether there is room for new series. Above half of what there is they are refused where they come
    /// fast.
    pub(super) fn check_room(
        &self,
        registry: &Registry,
        missing: usize,
        terms: &Terms<'_>,
    ) -> Result<(), String> {
        let have = registry.len();
        if missing > registry.ids_left() {
            return Err(format!(
                "{missing} new series are more than the numbers that are left, {} of four billion: start the \
                 server on a snapshot of its data, where they begin anew",
                registry.ids_left()
            ));
        }
        let (most, half) = (terms.series_max, terms.series_max / 2);
        if have + missing > most {
            return Err(format!("{have} active series and {missing} new ones are over the limit of {most}"));
        }
        if have + missing <= half {
            return Ok(());
        }
        let created = self.series_created.load(Ordering::Relaxed);
        let mut pace = self.pace.lock();
        if !(pace.since_ms..pace.since_ms.saturating_add(60_000)).contains(&terms.now_ms) {
            *pace = Pace { since_ms: terms.now_ms, have, created };
        }
        let most = (pace.have.max(half) / PACE_SHARE).max(PACE_MIN);
        let before = (created - pace.created) as usize;
        let come = before + missing;
        // The first batch of a minute may be larger: a large target comes as one.
        if come <= most || before == 0 {
            return Ok(());
        }
        Err(format!(
            "{come} new series within a minute are over the limit of {most}, one of {PACE_SHARE}: there are \
             {have} active series, which with these is above half of what there may be ({half})"
        ))
    }
}

/// Above half of the series that there may be, one new series a minute for so many that are there.
const PACE_SHARE: usize = 5;

/// So few are taken at any pace.
const PACE_MIN: usize = 1000;

/// A minute in which new series are counted.
#[derive(Debug)]
pub(super) struct Pace {
    since_ms: i64,
    /// Active series, and those that were ever created, when it began.
    have: usize,
    created: u64,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { since_ms: i64::MIN, have: 0, created: 0 }
    }
}
