//! `prometheus.yml` and the files it names, and [`alertmanager`]'s file, read unchanged.
//!
//! ```text
//! text ─ yaml ─► tree with places ─ schema ─► checked sections ─ load ─► [Config]
//! ```
//!
//! The whole schema is parsed. What is wrong is refused with file, line and column; what is
//! right but not served yet becomes a [`Warning`], which the log, a metric and the page show.

pub mod alertmanager;
mod discovery;
mod http;
mod load;
mod print;
mod prometheus;
mod relabel;
mod remote;
pub mod schema;
mod types;

use std::fmt;
use std::path::{Path, PathBuf};

use tidewatch_model::{Labels, RelabelConfig};
use tidewatch_net::HttpClientConfig;
use tidewatch_scrape::{FileSdConfig, ScrapeConfig, StaticConfig};

pub use http::{load_http_client, secret_files};
pub use load::{LoadOptions, load, load_text};
pub use types::{format_size, parse_size};

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The text of the main file, for `/api/v1/status/config`.
    pub text: String,
    pub global: Global,
    /// Globs, made absolute.
    pub rule_files: Vec<PathBuf>,
    pub scrape: Vec<ScrapeConfig>,
    pub alert_relabel_configs: Vec<RelabelConfig>,
    pub alertmanagers: Vec<AlertmanagerConfig>,
    pub storage: Storage,
    /// Valid sections that are not served yet.
    pub warnings: Vec<Warning>,
}

#[derive(Debug, Clone)]
pub struct Global {
    pub scrape_interval_ms: i64,
    pub evaluation_interval_ms: i64,
    pub rule_query_offset_ms: i64,
    pub external_labels: Labels,
    pub query_log_file: Option<PathBuf>,
}

/// One entry of `alerting.alertmanagers`.
#[derive(Debug, Clone)]
pub struct AlertmanagerConfig {
    pub scheme: String,
    pub path_prefix: String,
    pub timeout_ms: i64,
    pub static_configs: Vec<StaticConfig>,
    pub file_sd_configs: Vec<FileSdConfig>,
    pub relabel_configs: Vec<RelabelConfig>,
    pub alert_relabel_configs: Vec<RelabelConfig>,
    pub http: HttpClientConfig,
}

/// What the file says of storage; of retention it wins over flags, as in Prometheus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Storage {
    pub retention_time_ms: Option<i64>,
    pub retention_bytes: Option<u64>,
    /// Share of the disk, in percent.
    pub retention_percent: Option<f64>,
    pub out_of_order_window_ms: Option<i64>,
    /// The share of series that have ended at which these leave memory; 0 for never.
    pub stale_share: Option<f64>,
    pub max_exemplars: Option<i64>,
}

/// A valid section that has no effect yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    pub file: PathBuf,
    pub line: usize,
    /// The section's key: `dns_sd_configs`.
    pub section: String,
}

impl Config {
    /// The main file's text as YAML, secrets replaced by `<secret>`.
    pub fn masked_text(&self) -> String {
        tidewatch_yaml::parse(&self.text).map_or_else(|_| String::new(), |tree| print::masked(&tree, &[]))
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {} is valid, but not served by this version",
            self.file.display(),
            self.line,
            self.section
        )
    }
}

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// The file can not be read.
    Read { file: PathBuf, reason: String },
    /// What stands in it is wrong; every problem, in the order of the file.
    Invalid { file: PathBuf, problems: Vec<schema::Problem> },
}

/// One line for each problem: `parsing YAML file FILE: line L, column C: MESSAGE`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Read { file, reason } => write!(f, "{}: {reason}", file.display()),
            ConfigError::Invalid { file, problems } => {
                for (i, problem) in problems.iter().enumerate() {
                    let newline = if i > 0 { "\n" } else { "" };
                    write!(
                        f,
                        "{newline}parsing YAML file {}: {} (line {}, column {})",
                        file.display(),
                        problem.message,
                        problem.line,
                        problem.column
                    )?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// The folder that relative names in a configuration start from.
#[derive(Debug, Clone)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn of(file: &Path) -> Folder {
        Folder(file.parent().unwrap_or(Path::new("")).to_owned())
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
