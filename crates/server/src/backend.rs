//! What the handlers need from the running program besides store and query engine.

use std::future::Future;
use std::pin::Pin;

use tidewatch_model::{Exemplar, Labels, Matcher};
use tidewatch_rules::GroupStatus;
use tidewatch_scrape::{MetadataEntry, TargetsSnapshot};
use tidewatch_storage::{SelectError, Ticket, TimeRange};

/// A future behind a pointer, so that [`Backend`] can be a trait object.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The running program as its HTTP interface sees it. Calls return at once, except where they
/// say otherwise.
pub trait Backend: Send + Sync {
    /// Resolves when everything up to `ticket` is durable; an error says why it never will be.
    fn durable(&self, ticket: Ticket) -> Pending<'_, Result<(), String>>;

    /// A write request has come in whole and is being decoded: whoever syncs may wait a moment for it,
    /// so that one sync is for several. Each call is followed by one of
    /// [`write_ended`](Backend::write_ended), whatever became of the request.
    fn write_began(&self) {}

    /// The samples of a request are appended, or it was refused.
    fn write_ended(&self) {}

    /// Where the program stands on its way up or down.
    fn phase(&self) -> Phase;

    /// How far the start has come with the log.
    fn replay(&self) -> ReplayView;

    /// Applies the configuration files anew. An error is the text for the person who asked; the
    /// last good configuration stays in force then.
    fn reload(&self) -> Pending<'_, Result<(), String>>;

    /// Begins an orderly shutdown.
    fn quit(&self);

    /// In order of file and place in the file; `None` while a start still brings back their alerts or the data: an
    /// empty list would say that nothing is wrong.
    fn rule_groups(&self) -> Option<Vec<GroupStatus>>;

    fn targets(&self) -> TargetsSnapshot;

    /// What active targets say about their metrics, in order of target, then of family.
    fn metadata(&self) -> Vec<MetadataEntry>;

    /// What is known about metrics of whatever source, in order of family; of targets that are
    /// active and, without a target's labels, of what was sent or scraped before. `None` until a start has that back.
    fn all_metadata(&self) -> Option<Vec<MetadataEntry>> {
        Some(self.metadata())
    }

    /// The exemplars within `range` of the series that satisfy all matchers of one of the
    /// selectors, in the order of the series' labels. Called on a thread for blocking work.
    fn exemplars(
        &self,
        _selectors: &[Vec<Matcher>],
        _range: TimeRange,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, SelectError> {
        Ok(Vec::new())
    }

    fn alertmanagers(&self) -> AlertmanagersView;

    /// The configuration in force, as YAML, secrets replaced by `<secret>`.
    fn config_yaml(&self) -> String;

    /// Command-line flags with their values in force.
    fn flags(&self) -> Vec<(String, String)>;

    fn build_info(&self) -> BuildInfo;

    fn runtime_info(&self) -> RuntimeInfo;

    /// Statistics of the store; each list has at most `limit` entries. May take its time: called
    /// on a thread for blocking work.
    fn tsdb_status(&self, limit: usize) -> TsdbStatus;

    /// The blocks of the store, oldest first; `None` until a start has opened them all. Called on a thread for blocking work.
    fn tsdb_blocks(&self) -> Option<Vec<BlockView>> {
        Some(Vec::new())
    }

    /// How many series the store holds in memory. The page asks every few seconds, so an
    /// implementation that knows it without statistics should say so.
    fn series_count(&self) -> u64 {
        self.tsdb_status(1).series_count
    }

    /// Deletes the samples of a range, both ends included, in milliseconds, of the series that
    /// satisfy all matchers. Durable when it returns. These four may take their time: called on
    /// a thread for blocking work.
    fn delete_series(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<(), AdminError>;

    /// Rewrites what is stored without what is deleted.
    fn clean_tombstones(&self) -> Result<(), AdminError>;

    /// Brings what is stored to as few bytes as can be, without waiting for what may still come.
    fn compact(&self) -> Result<(), AdminError>;

    /// Makes a snapshot and gives its name.
    fn snapshot(&self, skip_head: bool) -> Result<String, AdminError>;

    /// Somebody was elected in the deduplication of replicas: it is to be stored. May take its
    /// time, but is rare.
    fn replica_elected(&self) {}

    /// Labels that go with everything that leaves this server.
    fn external_labels(&self) -> Labels;

    /// The program's own metrics in Prometheus' text format, those of the server left out. Called
    /// on a thread for blocking work.
    fn metrics(&self) -> String;

    /// Whether queries are logged when they end.
    fn logs_queries(&self) -> bool {
        false
    }

    /// Takes one line of the query log, with its line break. Called on a thread for blocking work.
    fn log_query(&self, _line: &str) {}

    /// Sections of the configuration and conditions of the host that a person should know of:
    /// for the page.
    fn notices(&self) -> Vec<String>;
}

/// Why an admin call was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminError {
    /// Not now: the store is recovering, or takes no writes.
    Unavailable(String),
    Failed(String),
}

/// Ready means that writes are acknowledged; complete, that queries see all data.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    Starting,
    /// Writes are taken; queries answer 503.
    Recovering,
    Complete,
    Stopping,
}

/// Segments of the log that a start reads; stays as it is when it is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplayView {
    pub first: u64,
    pub last: u64,
    pub current: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertmanagersView {
    /// URLs to which alerts are posted.
    pub active: Vec<String>,
    pub dropped: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildInfo {
    pub version: String,
    pub revision: String,
    pub branch: String,
    pub build_user: String,
    pub build_date: String,
    /// The compiler; the API calls this field `goVersion`.
    pub compiler: String,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeInfo {
    pub start_time_ms: i64,
    pub working_directory: String,
    pub hostname: String,
    pub reload_config_success: bool,
    pub last_config_time_ms: i64,
    pub corruption_count: u64,
    pub thread_count: u64,
    pub cpu_count: u64,
    pub memory_limit_bytes: u64,
    /// As flags say it: `15d`, `15d or 10GiB`.
    pub storage_retention: String,
}

/// What `/api/v1/status/tsdb` shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TsdbStatus {
    pub series_count: u64,
    pub chunk_count: u64,
    pub label_pair_count: u64,
    pub min_time_ms: i64,
    pub max_time_ms: i64,
    /// Largest first, each list.
    pub series_by_metric: Vec<(String, u64)>,
    pub values_by_label: Vec<(String, u64)>,
    pub memory_by_label: Vec<(String, u64)>,
    pub series_by_label_pair: Vec<(String, u64)>,
    /// What Prometheus does not say.
    pub store: StoreStatus,
}

/// The store beyond what Prometheus says of its own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreStatus {
    /// Whether queries see all data.
    pub complete: bool,
    /// Why no writes are taken, if that is so.
    pub read_only: Option<String>,
    pub head_samples: u64,
    /// Series in memory that have ended.
    pub stale_series: u64,
    /// Bytes in memory by what they are for.
    pub memory: Vec<(&'static str, u64)>,
    /// Since when what grew has grown; lists with the largest first.
    pub growth_since_ms: Option<i64>,
    pub growth_by_metric: Vec<(String, u64)>,
    pub growth_by_label: Vec<(String, u64)>,
    pub log_bytes: u64,
    pub image_bytes: u64,
    pub block_count: u64,
    pub block_bytes: u64,
    pub disk: Option<DiskView>,
    /// Pieces of damage found since the start, and the first of them.
    pub damage_found: u64,
    pub damage: Vec<DamageView>,
}

/// Room on the disk, and how much of it samples leave alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskView {
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub reserve_bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DamageView {
    pub file: String,
    pub offset: u64,
    pub reason: String,
}

/// One block of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockView {
    pub name: String,
    /// Times of its first and last sample.
    pub min_time_ms: i64,
    pub max_time_ms: i64,
    pub samples: u64,
    pub series: u64,
    pub chunks: u64,
    /// Series of which something is deleted.
    pub tombstones: u64,
    /// 1 from memory, one more for each merge.
    pub level: u64,
    /// The blocks that it was merged from.
    pub parents: Vec<String>,
    pub bytes: u64,
}
