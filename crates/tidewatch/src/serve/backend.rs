//! The running program as its HTTP interface sees it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tidewatch_env::Env;
use tidewatch_model::{Exemplar, Labels, Matcher, format_duration};
use tidewatch_rules::GroupStatus;
use tidewatch_scrape::{MetadataEntry, ScrapeConfig, TargetsSnapshot};
use tidewatch_server::{
    AdminError, AlertmanagersView, Backend, BlockView, BuildInfo, DamageView, DiskView, Pending, Phase,
    ReplayView, RuntimeInfo, StoreStatus, TsdbStatus,
};
use tidewatch_storage::{SelectError, Ticket, TimeRange};
use tidewatch_tsdb::block::FILE_SUFFIX;
use tidewatch_tsdb::{
    BlockStatus, Damage, Db, DbStatus, DiskStatus, Growth, JobError, Replay, Retention, TopEntry,
};
use tokio::sync::{Notify, mpsc, oneshot};

use super::alerting::Alerting;
use super::committer::Committer;
use super::jobs::JobHealth;
use super::query_log::QueryLog;
use super::replicas::Replicas;
use super::rules::Rules;
use super::{memory, metrics};
use crate::cli::serve::ServeArgs;
use crate::config::{Config, format_size};

/// Asks the main loop to read the configuration again; the answer comes back through the sender.
pub type ReloadRequest = oneshot::Sender<Result<(), String>>;

/// Handles to all parts, and what changes while the program runs.
pub struct Running {
    pub env: Env,
    pub arguments: ServeArgs,
    pub db: Arc<Db>,
    pub committer: Arc<Committer>,
    pub rules: Arc<Rules>,
    pub alerting: Arc<Alerting>,
    pub scrape: Arc<tidewatch_scrape::Scraper>,
    pub config: ArcSwap<Config>,
    pub reload: mpsc::Sender<ReloadRequest>,
    pub quit: Notify,
    pub started_ms: i64,
    pub reloaded_ms: AtomicI64,
    pub reload_succeeded: AtomicBool,
    pub phase: AtomicPhase,
    /// Conditions that a person should know of, beside the configuration's warnings.
    pub notices: Vec<String>,
    /// Rule files that the configuration in force names and that do not exist, one sentence each.
    pub missing_files: ArcSwap<Vec<String>>,
    pub query_log: Arc<QueryLog>,
    /// Where replicas are deduplicated.
    pub replicas: Option<Replicas>,
    /// How the storage's jobs go.
    pub job_health: JobHealth,
    /// What is scraped where no configuration is given.
    pub default_jobs: OnceLock<Vec<ScrapeConfig>>,
}

/// A [`Phase`] that threads share.
#[derive(Default)]
pub struct AtomicPhase(AtomicU8);

impl AtomicPhase {
    const STARTING: u8 = 0;
    const RECOVERING: u8 = 1;
    const COMPLETE: u8 = 2;
    const STOPPING: u8 = 3;

    pub fn recovering(&self) {
        self.0.store(Self::RECOVERING, Ordering::Release);
    }

    pub fn complete(&self) {
        // A shutdown that has begun stays one.
        let _ =
            self.0.compare_exchange(Self::RECOVERING, Self::COMPLETE, Ordering::AcqRel, Ordering::Acquire);
    }

    pub fn stopping(&self) {
        self.0.store(Self::STOPPING, Ordering::Release);
    }
}

impl Backend for Running {
    fn durable(&self, ticket: Ticket) -> Pending<'_, Result<(), String>> {
        Box::pin(self.committer.durable(ticket))
    }

    fn write_began(&self) {
        self.committer.write_began();
    }

    fn write_ended(&self) {
        self.committer.write_ended();
    }

    fn phase(&self) -> Phase {
        match self.phase.0.load(Ordering::Acquire) {
            AtomicPhase::STARTING => Phase::Starting,
            AtomicPhase::RECOVERING => Phase::Recovering,
            AtomicPhase::COMPLETE => Phase::Complete,
            _ => Phase::Stopping,
        }
    }

    fn replay(&self) -> ReplayView {
        let Replay { first, last, current } = self.db.replay();
        ReplayView { first, last, current }
    }

    fn reload(&self) -> Pending<'_, Result<(), String>> {
        Box::pin(async {
            let (sender, answer) = oneshot::channel();
            let gone = |_| "the server is shutting down".to_owned();
            self.reload.send(sender).await.map_err(|_| gone(()))?;
            answer.await.map_err(|_| gone(()))?
        })
    }

    fn quit(&self) {
        self.quit.notify_one();
    }

    fn delete_series(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<(), AdminError> {
        let range = TimeRange { start: start_ms, end: end_ms };
        let outcome = self.db.delete(matchers, range);
        let matchers: Vec<String> = matchers.iter().map(ToString::to_string).collect();
        match &outcome {
            Ok(()) => tracing::info!(matchers = matchers.join(","), start_ms, end_ms, "series were deleted"),
            Err(error) => tracing::error!(%error, matchers = matchers.join(","), "series were not deleted"),
        }
        outcome.map_err(admin_error)
    }

    fn clean_tombstones(&self) -> Result<(), AdminError> {
        self.db.clean_tombstones().map_err(admin_error)
    }

    fn compact(&self) -> Result<(), AdminError> {
        let outcome = self.db.compact_whole();
        let blocks = self.db.status().blocks;
        let bytes: u64 = blocks.iter().map(|block| block.bytes).sum();
        match &outcome {
            Ok(()) => tracing::info!(blocks = blocks.len(), bytes, "the store was compacted"),
            Err(error) => tracing::error!(%error, "the store was not compacted as a whole"),
        }
        outcome.map_err(admin_error)
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, AdminError> {
        let outcome = self.db.snapshot(skip_head);
        if let Ok(name) = &outcome {
            let path = self.arguments.storage_path.join("snapshots").join(name);
            tracing::info!(path = %path.display(), "a snapshot was made");
        }
        outcome.map_err(admin_error)
    }

    fn replica_elected(&self) {
        if let Some(replicas) = &self.replicas {
            replicas.store();
        }
    }

    fn rule_groups(&self) -> Option<Vec<GroupStatus>> {
        self.rules.status().filter(|_| self.db.is_complete())
    }

    fn targets(&self) -> TargetsSnapshot {
        self.scrape.targets()
    }

    fn metadata(&self) -> Vec<MetadataEntry> {
        self.scrape.metadata()
    }

    fn all_metadata(&self) -> Option<Vec<MetadataEntry>> {
        if !self.db.is_complete() {
            return None;
        }
        let mut entries = self.scrape.metadata();
        let active: HashSet<&str> = entries.iter().map(|entry| entry.family.as_str()).collect();
        let stored = self.db.metadata().into_iter().filter(|(family, _)| !active.contains(family.as_str()));
        let stored: Vec<MetadataEntry> = stored
            .map(|(family, known)| MetadataEntry {
                target: Labels::empty(),
                family,
                kind: known.kind,
                help: known.help,
                unit: known.unit,
            })
            .collect();
        entries.extend(stored);
        entries.sort_by(|a, b| a.family.cmp(&b.family));
        Some(entries)
    }

    fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, SelectError> {
        self.db.exemplars(selectors, range)
    }

    fn alertmanagers(&self) -> AlertmanagersView {
        self.alerting.alertmanagers()
    }

    fn config_yaml(&self) -> String {
        self.config.load().masked_text()
    }

    fn flags(&self) -> Vec<(String, String)> {
        self.arguments.flags()
    }

    fn build_info(&self) -> BuildInfo {
        BuildInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            compiler: format!("rust {}", env!("CARGO_PKG_RUST_VERSION")),
            ..BuildInfo::default()
        }
    }

    fn runtime_info(&self) -> RuntimeInfo {
        RuntimeInfo {
            start_time_ms: self.started_ms,
            working_directory: std::env::current_dir()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            reload_config_success: self.reload_succeeded.load(Ordering::Relaxed),
            last_config_time_ms: self.reloaded_ms.load(Ordering::Relaxed),
            corruption_count: self.db.status().damage_found,
            thread_count: metrics::thread_count(),
            cpu_count: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
            memory_limit_bytes: memory::limit_bytes(),
            storage_retention: describe(self.retention()),
        }
    }

    fn tsdb_status(&self, limit: usize) -> TsdbStatus {
        let status = self.db.status();
        let top = self.db.cardinality(limit);
        TsdbStatus {
            series_count: status.head.series,
            // A series has an open run beside its sealed ones.
            chunk_count: status.head.chunks + status.head.series,
            label_pair_count: status.head.label_pairs,
            min_time_ms: status.head.min_time.unwrap_or(0),
            max_time_ms: status.head.max_time.unwrap_or(0),
            series_by_metric: list(top.series_by_metric),
            values_by_label: list(top.values_by_label),
            memory_by_label: list(top.bytes_by_label),
            series_by_label_pair: list(top.series_by_pair),
            store: store_status(status, self.db.growth(limit)),
        }
    }

    fn tsdb_blocks(&self) -> Option<Vec<BlockView>> {
        if !self.db.is_complete() {
            return None;
        }
        let name = |file: &str| file.trim_end_matches(FILE_SUFFIX).to_owned();
        let view = |block: BlockStatus| BlockView {
            name: name(&block.name),
            min_time_ms: block.min_time,
            max_time_ms: block.max_time,
            samples: block.samples,
            series: block.series,
            chunks: block.chunks,
            tombstones: block.tombstones,
            level: u64::from(block.level) + 1,
            parents: block.parents.iter().map(|parent| name(parent)).collect(),
            bytes: block.bytes,
        };
        let mut blocks: Vec<BlockView> = self.db.status().blocks.into_iter().map(view).collect();
        blocks.sort_by(|a, b| (a.min_time_ms, &a.name).cmp(&(b.min_time_ms, &b.name)));
        Some(blocks)
    }

    fn series_count(&self) -> u64 {
        self.db.status().head.series
    }

    fn external_labels(&self) -> Labels {
        self.config.load().global.external_labels.clone()
    }

    fn metrics(&self) -> String {
        metrics::render(self)
    }

    fn logs_queries(&self) -> bool {
        self.query_log.is_on()
    }

    fn log_query(&self, line: &str) {
        self.query_log.write(line);
    }

    fn notices(&self) -> Vec<String> {
        let config = self.config.load();
        let status = self.db.status();
        let damage =
            status.damage.iter().map(|d| format!("{}: damaged at byte {}: {}", d.path, d.offset, d.reason));
        let read_only = status.read_only.iter().map(|reason| format!("the store takes no writes: {reason}"));
        let warnings = config.warnings.iter().map(ToString::to_string);
        let jobs = self.job_health.notices();
        let missing = self.missing_files.load();
        let standing = self.notices.iter().chain(missing.iter()).cloned();
        let replicas = self.replicas.iter().flat_map(Replicas::notices);
        standing.chain(replicas).chain(read_only).chain(jobs).chain(damage).chain(warnings).collect()
    }
}

fn list(entries: Vec<TopEntry>) -> Vec<(String, u64)> {
    entries.into_iter().map(|entry| (entry.name, entry.count)).collect()
}

fn store_status(status: DbStatus, growth: Growth) -> StoreStatus {
    let disk = |disk: DiskStatus| DiskView {
        total_bytes: disk.total_bytes,
        free_bytes: disk.free_bytes,
        reserve_bytes: disk.reserve_bytes,
    };
    let damage = |Damage { path, offset, reason }| DamageView { file: path, offset, reason };
    StoreStatus {
        complete: status.complete,
        read_only: status.read_only,
        head_samples: status.head.samples,
        stale_series: status.head.stale_series,
        memory: status.head.memory.by_use().to_vec(),
        growth_since_ms: growth.since_ms,
        growth_by_metric: list(growth.series_by_metric),
        growth_by_label: list(growth.values_by_label),
        log_bytes: status.wal_bytes,
        image_bytes: status.image_bytes,
        block_count: status.blocks.len() as u64,
        block_bytes: status.blocks.iter().map(|block| block.bytes).sum(),
        disk: status.disk.map(disk),
        damage_found: status.damage_found,
        damage: status.damage.into_iter().map(damage).collect(),
    }
}

impl Running {
    /// What is kept, by the configuration in force.
    fn retention(&self) -> Retention {
        retention(&self.arguments, &self.config.load())
    }
}

/// What the configuration or else the flags say of retention; 15 days where neither says anything.
pub fn retention(arguments: &ServeArgs, config: &Config) -> Retention {
    const DEFAULT_MS: i64 = 15 * 86_400_000;
    let storage = &config.storage;
    let mut time_ms = storage.retention_time_ms.filter(|time| *time > 0).or(arguments.retention_ms);
    let size_bytes = storage.retention_bytes.filter(|size| *size > 0).or(arguments.retention_bytes);
    let size_bytes = size_bytes.filter(|size| *size > 0);
    let disk_percent = storage.retention_percent.filter(|percent| *percent > 0.0);
    if size_bytes.is_none() && disk_percent.is_none() {
        time_ms = time_ms.or(Some(DEFAULT_MS));
    }
    Retention { time_ms: time_ms.filter(|time| *time > 0), size_bytes, disk_percent }
}

/// As Prometheus says it: `15d`, `15d or 10GiB`, `10GiB or 50%`.
fn describe(retention: Retention) -> String {
    let time = retention.time_ms.map(format_duration);
    let size = retention.size_bytes.map(format_size);
    let percent = retention.disk_percent.map(|percent| format!("{percent}%"));
    let parts: Vec<String> = [time, size, percent].into_iter().flatten().collect();
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" or ") }
}

fn admin_error(error: JobError) -> AdminError {
    let text = error.to_string();
    match error {
        JobError::Log(_) | JobError::Read(SelectError::Recovering) | JobError::Stopped | JobError::Busy => {
            AdminError::Unavailable(text)
        }
        _ => AdminError::Failed(text),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{LoadOptions, load_text};

    #[track_caller]
    fn check(flags: &str, file: &str, expected: &str) {
        let line = ["tidewatch"].into_iter().chain(flags.split_whitespace());
        let arguments = crate::cli::Cli::parse_from(line).serve;
        let text = format!("storage: {{tsdb: {{retention: {{{file}}}}}}}\n");
        let config = load_text(&text, std::path::Path::new("p.yml"), LoadOptions::default()).expect("valid");
        assert_eq!(describe(retention(&arguments, &config)), expected, "{flags} {file}");
    }

    #[test]
    fn the_file_wins_over_flags_and_time_has_a_default_only_where_nothing_is_said() {
        check("", "", "15d");
        check("--storage.tsdb.retention.time=30d", "", "30d");
        check("--storage.tsdb.retention.size=10GB", "", "10GiB");
        check(
            "--storage.tsdb.retention.time=30d --storage.tsdb.retention.size=1GB",
            "time: 2d",
            "2d or 1GiB",
        );
        check("--storage.tsdb.retention.time=30d", "size: 5MB, percentage: 50", "30d or 5MiB or 50%");
        check("", "percentage: 12.5", "12.5%");
        check("--storage.tsdb.retention.time=0s", "", "0s");
    }
}
