//! Scraping: which targets there are, when each is due, and what its answer means.
//!
//! ```text
//! ScrapeConfig ─ discovery ─► target groups ─ relabel ─► targets ─ due(now) ─► fetch (net)
//!      ─► exposition entries (ingest) ─ cache, relabel, limits ─► Batch ─► Sink
//! ```
//!
//! Decisions are synchronous and take `now`: which targets a group yields (`build_target`),
//! which target is due (`Schedule`), what a body adds to the store and which series have
//! vanished (`Loop`). `Manager` drives them on the binary's tokio runtime.
//!
//! Invariants: each scrape writes `up` and its companions, whatever happened to it; a series
//! that a target no longer shows gets a staleness marker exactly once; a reload that leaves a
//! target's configuration alone leaves its schedule and its series alone. What a target sends
//! is hostile: body, samples, labels and the caches that remember them are bounded.
//!
//! Not here: storage (behind [`Sink`]), reading the configuration file (the binary fills
//! [`ScrapeConfig`]), service discovery other than static, file and in-process.

#![forbid(unsafe_code)]

mod config;
mod status;

pub use config::{FileSdConfig, InProcess, ScrapeConfig, ScrapeProtocol, StaticConfig};
pub use status::{DroppedTarget, Health, MetadataEntry, TargetStatus, TargetsSnapshot};

use tidewatch_model::Batch;

/// Takes what scrapes bring. Called from scrape tasks, perhaps from several at once; it may
/// block for as long as an append takes.
pub trait Sink: Send + Sync {
    fn append(&self, batch: &Batch<'_>) -> SinkOutcome;
}

/// What became of a scrape's samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkOutcome {
    pub accepted: u64,
    pub refused: u64,
    /// The whole batch was turned away: why, in words for the target's `lastError`.
    pub error: Option<String>,
}
