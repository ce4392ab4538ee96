//! What is counted while a database runs, from many threads.
//!
//! Not here: what the parts count of themselves (head, log), and the values that the status has (`status`).

use std::sync::atomic::{AtomicU64, Ordering};

use tidewatch_storage::{AppendOutcome, Refusal};

use crate::status::Counters;

/// See [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct AtomicCounters {
    appended: AtomicU64,
    duplicates: AtomicU64,
    too_old: AtomicU64,
    conflict: AtomicU64,
    future: AtomicU64,
    labels: AtomicU64,
    histograms: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) set_aside: AtomicU64,
    pub(crate) series_removed: AtomicU64,
    pub(crate) stale_series_cut: AtomicU64,
    pub(crate) cuts: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) chunks_set_aside: AtomicU64,
    pub(crate) blocks_retired: AtomicU64,
    pub(crate) blocks_cleaned: AtomicU64,
    pub(crate) deletions: AtomicU64,
}

impl AtomicCounters {
    pub(crate) fn count(&self, outcome: &AppendOutcome) {
        let accepted = outcome.accepted + outcome.accepted_histograms;
        self.appended.fetch_add(accepted - outcome.duplicates, Ordering::Relaxed);
        self.duplicates.fetch_add(outcome.duplicates, Ordering::Relaxed);
        self.count_refused(outcome);
    }

    /// Counts what is refused of a batch that is counted as a whole when it is appended.
    pub(crate) fn count_refused(&self, outcome: &AppendOutcome) {
        for (refusal, count) in &outcome.refused {
            let counter = match refusal {
                Refusal::InvalidLabels | Refusal::LabelLimit => &self.labels,
                Refusal::TooOld => &self.too_old,
                Refusal::TooFarInFuture => &self.future,
                Refusal::Conflict => &self.conflict,
                Refusal::InvalidHistogram => &self.histograms,
            };
            counter.fetch_add(*count, Ordering::Relaxed);
        }
    }

    /// Counts a batch that an earlier process took.
    pub(crate) fn count_replayed(&self, outcome: &AppendOutcome) {
        let accepted = outcome.accepted + outcome.accepted_histograms;
        self.replayed.fetch_add(accepted - outcome.duplicates, Ordering::Relaxed);
    }

    pub(crate) fn load(&self) -> Counters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            samples_appended: load(&self.appended),
            duplicates: load(&self.duplicates),
            refused_too_old: load(&self.too_old),
            refused_conflict: load(&self.conflict),
            refused_future: load(&self.future),
            refused_labels: load(&self.labels),
            refused_histograms: load(&self.histograms),
            samples_replayed: load(&self.replayed),
            samples_set_aside: load(&self.set_aside),
            series_removed: load(&self.series_removed),
            stale_series_cut: load(&self.stale_series_cut),
            cuts: load(&self.cuts),
            compactions: load(&self.compactions),
            chunks_set_aside: load(&self.chunks_set_aside),
            blocks_retired: load(&self.blocks_retired),
            blocks_cleaned: load(&self.blocks_cleaned),
            deletions: load(&self.deletions),
            ..Counters::default()
        }
    }
}
