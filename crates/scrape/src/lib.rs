//! Scraping: which targets there are, when each is due, and what its answer means.
//!
//! ```text
//! ScrapeConfig ─ discovery ─► target groups ─ relabel ─► targets ─ due(now) ─► fetch (net)
//!      ─► exposition entries (ingest) ─ cache, relabel, limits ─► Batch ─► Sink
//! ```
//!
//! Decisions are synchronous and ask `env` for the time: which targets a group yields
//! ([`build_target`]), which are due ([`Scraper::due`]), what an answer adds to the store and
//! which series have vanished ([`Scraper::finish`]). [`run`] drives them on tokio;
//! [`Scraper::step`] drives in-process targets under a virtual clock.
//!
//! Invariants: each scrape writes `up` and its companions, whatever happened to it; a series
//! that a target no longer shows gets a staleness marker exactly once; a reload that leaves a
//! target's configuration alone leaves its schedule and its series alone. What a target sends
//! is hostile: body, samples, labels and the caches that remember them are bounded.
//!
//! Not here: storage (behind [`Sink`]), reading the configuration file (the binary fills
//! [`ScrapeConfig`]), service discovery other than static, file and in-process.

#![forbid(unsafe_code)]

mod accept;
mod cache;
mod config;
mod file_sd;
mod lines;
mod metadata;
mod numbered;
mod pool;
mod room;
mod run;
mod schedule;
mod scraper;
mod starts;
mod status;
mod target;
mod target_loop;
mod texts;
mod url;

pub use config::{FileSdConfig, InProcess, NameEscaping, ScrapeConfig, ScrapeProtocol, StaticConfig};
pub use file_sd::parse as parse_discovery_file;
pub use run::run;
pub use scraper::{ApplyError, Fetch, ScrapeOptions, Scraper, Task};
pub use status::{DroppedTarget, Health, MetadataEntry, TargetStatus, TargetsSnapshot};
pub use target::{Built, Target, build_target};
pub use target_loop::{FetchError, Fetched};
pub use url::ExternalAddress;

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
