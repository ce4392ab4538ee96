//! `scrape_configs`, as plain values. The binary's configuration reader fills them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use tidewatch_model::{NameValidation, RelabelConfig};
use tidewatch_net::HttpClientConfig;

/// One scrape job. Durations are milliseconds; a limit of 0 means none, as in Prometheus.
#[derive(Debug, Clone, PartialEq)]
pub struct ScrapeConfig {
    pub job_name: String,
    pub scrape_interval_ms: i64,
    pub scrape_timeout_ms: i64,
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// URL parameters, each with its values.
    pub params: Vec<(String, Vec<String>)>,
    pub honor_labels: bool,
    pub honor_timestamps: bool,
    pub track_timestamps_staleness: bool,
    /// Offered in this order.
    pub scrape_protocols: Vec<ScrapeProtocol>,
    /// How an answer without a usable content type is read; refused where absent.
    pub fallback_scrape_protocol: Option<ScrapeProtocol>,
    pub enable_compression: bool,
    /// Which names series may have.
    pub names: NameValidation,
    /// How targets are asked to escape names that are not legacy ones.
    pub escaping: NameEscaping,
    pub static_configs: Vec<StaticConfig>,
    pub file_sd_configs: Vec<FileSdConfig>,
    /// Sources inside this process.
    pub in_process: Vec<InProcess>,
    pub relabel_configs: Vec<RelabelConfig>,
    pub metric_relabel_configs: Vec<RelabelConfig>,
    /// Bytes of a body after decompression; our own limit holds where this is 0.
    pub body_size_limit: u64,
    /// Samples of one scrape after relabelling; our own limit holds where this is 0.
    pub sample_limit: u64,
    pub label_limit: u64,
    pub label_name_length_limit: u64,
    pub label_value_length_limit: u64,
    pub target_limit: u64,
    /// How many dropped targets to keep for the API; 0 keeps all.
    pub keep_dropped_targets: u64,
    /// Adds `scrape_timeout_seconds`, `scrape_sample_limit` and `scrape_body_size_bytes`.
    pub extra_scrape_metrics: bool,
    pub http: HttpClientConfig,
}

impl ScrapeConfig {
    /// A job with Prometheus' defaults.
    pub fn new(job_name: &str) -> ScrapeConfig {
        ScrapeConfig {
            job_name: job_name.to_owned(),
            scrape_interval_ms: 60_000,
            scrape_timeout_ms: 10_000,
            metrics_path: "/metrics".to_owned(),
            scheme: "http".to_owned(),
            params: Vec::new(),
            honor_labels: false,
            honor_timestamps: true,
            track_timestamps_staleness: false,
            scrape_protocols: ScrapeProtocol::DEFAULT.to_vec(),
            fallback_scrape_protocol: None,
            enable_compression: true,
            names: NameValidation::Utf8,
            escaping: NameEscaping::AllowUtf8,
            static_configs: Vec::new(),
            file_sd_configs: Vec::new(),
            in_process: Vec::new(),
            relabel_configs: Vec::new(),
            metric_relabel_configs: Vec::new(),
            body_size_limit: 0,
            sample_limit: 0,
            label_limit: 0,
            label_name_length_limit: 0,
            label_value_length_limit: 0,
            target_limit: 0,
            keep_dropped_targets: 0,
            extra_scrape_metrics: false,
            http: HttpClientConfig::default(),
        }
    }
}

/// What a target may do with names that are not legacy ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameEscaping {
    /// Nothing: they are taken as they are.
    AllowUtf8,
    Underscores,
    Dots,
    Values,
}

impl NameEscaping {
    /// What a job asks for that does not say so.
    pub fn of(names: NameValidation) -> NameEscaping {
        match names {
            NameValidation::Utf8 => NameEscaping::AllowUtf8,
            NameValidation::Legacy => NameEscaping::Underscores,
        }
    }

    /// The name in configuration files.
    pub fn from_name(name: &str) -> Option<NameEscaping> {
        use NameEscaping::*;
        [AllowUtf8, Underscores, Dots, Values].into_iter().find(|escaping| escaping.as_str() == name)
    }

    /// The name in configuration files and in `Accept` headers.
    pub fn as_str(self) -> &'static str {
        match self {
            NameEscaping::AllowUtf8 => "allow-utf-8",
            NameEscaping::Underscores => "underscores",
            NameEscaping::Dots => "dots",
            NameEscaping::Values => "values",
        }
    }
}

/// A group of targets that share labels: an entry of `static_configs` or of a discovery file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StaticConfig {
    pub targets: Vec<String>,
    pub labels: Vec<(String, String)>,
}

/// Target groups in JSON or YAML files that are read again every `refresh_interval_ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSdConfig {
    /// Paths ending in `.json`, `.yml` or `.yaml`; the last part may hold `*`, `?` and `[…]`.
    pub files: Vec<PathBuf>,
    pub refresh_interval_ms: i64,
}

/// A target that is a function of this process: its text is read without a socket.
#[derive(Clone)]
pub struct InProcess {
    /// What stands in `__address__` and so, unless relabelled, in `instance`.
    pub address: String,
    pub labels: Vec<(String, String)>,
    /// Gives the Prometheus text (0.0.4) of the moment. May block for a moment.
    pub source: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcess").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Sources are the same when they are the same function.
impl PartialEq for InProcess {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
            && self.labels == other.labels
            && Arc::ptr_eq(&self.source, &other.source)
    }
}

/// A format that a target may be asked for. `PrometheusProto` is not served yet and therefore
/// not listed; the configuration's reader warns of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    PrometheusText004,
    PrometheusText100,
    OpenMetricsText001,
    OpenMetricsText100,
}

impl ScrapeProtocol {
    /// Prometheus' default order, without the protobuf format.
    pub const DEFAULT: [ScrapeProtocol; 4] = [
        ScrapeProtocol::OpenMetricsText100,
        ScrapeProtocol::OpenMetricsText001,
        ScrapeProtocol::PrometheusText100,
        ScrapeProtocol::PrometheusText004,
    ];

    /// The name in configuration files.
    pub fn from_name(name: &str) -> Option<ScrapeProtocol> {
        Some(match name {
            "PrometheusText0.0.4" => ScrapeProtocol::PrometheusText004,
            "PrometheusText1.0.0" => ScrapeProtocol::PrometheusText100,
            "OpenMetricsText0.0.1" => ScrapeProtocol::OpenMetricsText001,
            "OpenMetricsText1.0.0" => ScrapeProtocol::OpenMetricsText100,
            _ => return None,
        })
    }
}
