//! The way in.

use tidewatch_model::Batch;

/// Where a batch stands in the durable log. A batch is durable when the log is durable up to
/// its ticket; tickets grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// Takes samples.
pub trait Append: Send + Sync {
    /// Takes every sample of the batch that can be taken and reports the rest. Returns before
    /// the batch is durable: acknowledge only after the ticket's commit.
    fn append(&self, batch: &Batch<'_>) -> Result<AppendOutcome, AppendError>;
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppendOutcome {
    pub ticket: Ticket,
    /// Samples taken, exact repeats among them.
    pub accepted: u64,
    /// Samples that were there already with the same value.
    pub duplicates: u64,
    /// Histograms taken.
    pub accepted_histograms: u64,
    /// Exemplars that are kept, exact repeats among them. Those that can not be kept are no error.
    pub accepted_exemplars: u64,
    /// Refused samples by cause, first occurrence described. Empty when all were taken.
    pub refused: Vec<(Refusal, u64)>,
    /// The first refused sample's series, time and cause in words for the sender.
    pub first_refusal: Option<String>,
    /// Why series that are not known were left out, with nothing wrong with them: there is no room. What
    /// the batch has of known ones was taken.
    pub overloaded: Option<String>,
}

impl AppendOutcome {
    pub fn refused_count(&self) -> u64 {
        self.refused.iter().map(|(_, count)| count).sum()
    }
}

/// Why a sample was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Label bytes that are no label set: cut, empty name, a name twice, not UTF-8, no metric name.
    InvalidLabels,
    /// A label limit of [`tidewatch_model::Limits`] is exceeded.
    LabelLimit,
    /// Older than the out-of-order window.
    TooOld,
    /// Further ahead of our clock than is allowed.
    TooFarInFuture,
    /// The series has another value at that time.
    Conflict,
    /// A native histogram that contradicts itself, or has more buckets than is allowed.
    InvalidHistogram,
}

/// Why a batch was not taken as a whole.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The store takes no writes: a failed sync, a full disk. Nothing was taken; try again later.
    #[error("the store is read-only: {reason}")]
    ReadOnly { reason: String },
    /// The memory budget or the limit on new series is reached: try again later. Of series that are known
    /// the samples may have been taken; they are repeats then.
    #[error("the store is at its limit: {reason}")]
    Overloaded { reason: String },
}
