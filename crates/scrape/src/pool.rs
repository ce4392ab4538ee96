//! The targets of one job: which there should be, given what discovery says.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use tidewatch_env::Disk;
use tidewatch_model::Labels;
use tidewatch_net::Client;

use crate::file_sd::FileDiscovery;
use crate::metadata::MetadataStore;
use crate::schedule::EntryId;
use crate::target::{Built, Target, build_target};
use crate::target_loop::TargetLoop;
use crate::{Health, InProcess, ScrapeConfig};

/// A target that is scraped.
pub(crate) struct Active {
    pub(crate) target: Arc<Target>,
    pub(crate) config: Arc<ScrapeConfig>,
    pub(crate) source: Source,
    pub(crate) status: Mutex<Status>,
    pub(crate) metadata: Mutex<MetadataStore>,
    /// Locked while an answer is read and written. Never locked while waiting for a target.
    pub(crate) work: Mutex<TargetLoop>,
}

/// Where a target's text comes from.
#[derive(Clone)]
pub(crate) enum Source {
    Http(Client),
    InProcess(Arc<dyn Fn() -> Vec<u8> + Send + Sync>),
}

/// What the last scrape found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// Those of the last discovery, which may change while the target stays the same.
    pub(crate) discovered_labels: Labels,
    pub(crate) health: Health,
    pub(crate) last_error: String,
    pub(crate) last_scrape_ms: Option<i64>,
    pub(crate) last_duration_seconds: f64,
}

/// One job.
pub(crate) struct Pool {
    pub(crate) config: Arc<ScrapeConfig>,
    pub(crate) client: Client,
    pub(crate) files: Vec<FileDiscovery>,
    /// Targets by all their labels, which identify them within the job.
    pub(crate) active: HashMap<Labels, (EntryId, Arc<Active>), FixedState>,
    /// Those that are kept for the API.
    pub(crate) dropped: Vec<Labels>,
    pub(crate) dropped_count: usize,
}

/// A target that discovery wants, not yet compared with those that run.
pub(crate) struct Wanted {
    pub(crate) target: Target,
    pub(crate) source: Source,
}

impl Pool {
    pub(crate) fn new(config: Arc<ScrapeConfig>, client: Client) -> Pool {
        let files = config.file_sd_configs.iter().cloned().map(FileDiscovery::new).collect();
        Pool { config, client, files, active: HashMap::default(), dropped: Vec::new(), dropped_count: 0 }
    }

    /// Looks at the discovery files; says whether groups have changed.
    pub(crate) fn refresh(&mut self, disk: &dyn Disk) -> bool {
        let mut has_changed = false;
        for files in &mut self.files {
            has_changed |= files.refresh(disk);
        }
        has_changed
    }

    pub(crate) fn poll_interval_ms(&self) -> Option<i64> {
        self.files.iter().map(FileDiscovery::poll_interval_ms).min()
    }

    /// Builds every target that discovery names, each label set once, and notes the dropped ones.
    pub(crate) fn wanted(&mut self) -> HashMap<Labels, Wanted, FixedState> {
        let mut wanted = HashMap::default();
        let mut dropped = Vec::new();
        for (labels, source) in self.addresses() {
            match build_target(&self.config, &labels) {
                Ok(Built::Target(target)) => {
                    wanted.entry(target.all_labels.clone()).or_insert(Wanted { target: *target, source });
                }
                Ok(Built::Dropped(labels)) => dropped.push(labels),
                Err(error) => {
                    tracing::error!(job = self.config.job_name, error, ?labels, "target can not be built");
                }
            }
        }
        self.dropped_count = dropped.len();
        let kept = match self.config.keep_dropped_targets {
            0 => dropped.len(),
            limit => usize::try_from(limit).unwrap_or(usize::MAX),
        };
        dropped.truncate(kept);
        self.dropped = dropped;
        wanted
    }

    /// The labels of every address that was found, a group's under those of the address.
    fn addresses(&self) -> Vec<(Vec<(String, String)>, Source)> {
        let http = Source::Http(self.client.clone());
        let mut addresses = Vec::new();
        for group in self
            .config
            .static_configs
            .iter()
            .cloned()
            .chain(self.files.iter().flat_map(FileDiscovery::groups))
        {
            for address in &group.targets {
                addresses.push((with_address(&group.labels, address), http.clone()));
            }
        }
        for InProcess { address, labels, source } in &self.config.in_process {
            addresses.push((with_address(labels, address), Source::InProcess(source.clone())));
        }
        addresses
    }

    /// Why no target of the job may be scraped.
    pub(crate) fn forced_error(&self) -> Option<String> {
        let (count, limit) = (self.active.len(), self.config.target_limit);
        (limit > 0 && count as u64 > limit)
            .then(|| format!("target_limit exceeded (number of targets: {count}, limit: {limit})"))
    }
}

fn with_address(labels: &[(String, String)], address: &str) -> Vec<(String, String)> {
    let mut labels = labels.to_vec();
    labels.push(("__address__".to_owned(), address.to_owned()));
    labels
}
