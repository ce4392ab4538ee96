//! What the API shows of targets, as plain values.

use tidewatch_model::{Labels, MetricType};

/// One active target, as `/api/v1/targets` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetStatus {
    /// Labels after relabelling: those on the target's series.
    pub labels: Labels,
    /// Labels before relabelling, `__address__` and `__meta_*` among them.
    pub discovered_labels: Labels,
    pub scrape_pool: String,
    pub scrape_url: String,
    /// The URL as others can reach it: loopback hosts replaced by this host's name.
    pub global_url: String,
    /// Empty when the last scrape went well.
    pub last_error: String,
    /// Milliseconds since the epoch; `None` before the first scrape.
    pub last_scrape_ms: Option<i64>,
    pub last_scrape_duration_seconds: f64,
    pub health: Health,
    pub scrape_interval_ms: i64,
    pub scrape_timeout_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Not scraped yet.
    #[default]
    Unknown,
    Up,
    Down,
}

impl Health {
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Down => "down",
        }
    }
}

/// A target that relabelling dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedTarget {
    pub discovered_labels: Labels,
    pub scrape_pool: String,
}

/// All targets at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetsSnapshot {
    /// In order of scrape pool, then of labels.
    pub active: Vec<TargetStatus>,
    pub dropped: Vec<DroppedTarget>,
    /// Dropped targets in each pool, those not kept included.
    pub dropped_counts: Vec<(String, usize)>,
    /// Names of all jobs.
    pub pools: Vec<String>,
}

/// What one target says about one metric family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataEntry {
    pub target: Labels,
    pub family: String,
    pub kind: MetricType,
    pub help: String,
    pub unit: String,
}
