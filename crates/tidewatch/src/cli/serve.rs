//! Flags of the server, named as Prometheus names them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use tidewatch_model::parse_duration_ms;

use crate::config::format_size;
use crate::logging::LogFormat;

/// Messages of remote write 1.0 and 2.0.
const WRITE_MESSAGES: [&str; 2] = ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"];

#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Prometheus configuration file. Without one the server watches this host and itself.
    #[arg(long = "config.file", value_name = "FILE", value_parser = file())]
    pub config_file: Option<PathBuf>,
    /// Directory for data.
    #[arg(long = "storage.tsdb.path", value_name = "DIRECTORY", default_value = "./tidewatch-data")]
    pub storage_path: PathBuf,
    /// How long to keep samples.
    #[arg(long = "storage.tsdb.retention.time", value_name = "DURATION", value_parser = duration)]
    pub retention_ms: Option<i64>,
    /// How many bytes blocks and log may take, beyond which the oldest blocks go: 512MB, 10GB, …
    #[arg(long = "storage.tsdb.retention.size", value_name = "SIZE", value_parser = size)]
    pub retention_bytes: Option<u64>,
    /// Address to listen on; may be given several times.
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = "127.0.0.1:9090", value_parser = address)]
    pub listen: Vec<SocketAddr>,
    /// File with TLS and authentication settings.
    #[arg(long = "web.config.file", value_name = "FILE", value_parser = file())]
    pub web_config_file: Option<PathBuf>,
    /// The URL under which the server is reached from outside.
    #[arg(long = "web.external-url", value_name = "URL", default_value = "")]
    pub external_url: String,
    /// Prefix of all routes; the path of the external URL where absent.
    #[arg(long = "web.route-prefix", value_name = "PATH")]
    pub route_prefix: Option<String>,
    /// Allow shutdown and reload by HTTP.
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,
    /// Allow deleting series, cleaning up and snapshots by HTTP.
    #[arg(long = "web.enable-admin-api")]
    pub enable_admin: bool,
    /// Regular expression of origins that may read by CORS.
    #[arg(long = "web.cors.origin", value_name = "REGEX", default_value = ".*")]
    pub cors_origin: String,
    /// Title of the page.
    #[arg(long = "web.page-title", value_name = "TEXT", default_value = "Tidewatch")]
    pub page_title: String,
    /// Most connections at once.
    #[arg(long = "web.max-connections", value_name = "COUNT", default_value_t = 512)]
    pub max_connections: usize,
    /// Messages of remote write that are taken; may be repeated.
    #[arg(
        long = "web.remote-write-receiver.accepted-protobuf-messages",
        value_name = "MESSAGE",
        value_parser = WRITE_MESSAGES,
        default_values = WRITE_MESSAGES
    )]
    pub write_messages: Vec<String>,
    /// The longest that a query may take.
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub query_timeout_ms: i64,
    /// Most queries at once; twice the cores where absent.
    #[arg(long = "query.max-concurrency", value_name = "COUNT")]
    pub query_concurrency: Option<usize>,
    /// Most samples that a query may hold at once.
    #[arg(long = "query.max-samples", value_name = "COUNT", default_value_t = 50_000_000)]
    pub query_max_samples: u64,
    /// How far back an instant selector looks for a sample.
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub lookback_ms: i64,
    /// Shortest time between two notifications of an alert.
    #[arg(long = "rules.alert.resend-delay", value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub resend_delay_ms: i64,
    /// Features to switch on, with commas between them.
    #[arg(long = "enable-feature", value_name = "NAMES", value_delimiter = ',')]
    pub enable_feature: Vec<String>,
    /// Only messages of this level or above: error, warn, info, debug, trace.
    #[arg(long = "log.level", value_name = "LEVEL", default_value = "info")]
    pub log_level: tracing::Level,
    /// How messages are written.
    #[arg(long = "log.format", value_name = "FORMAT", default_value = "logfmt")]
    pub log_format: LogFormat,

    #[command(flatten)]
    pub ha_tracker: HaTrackerArgs,

    /// Always on here; taken so that command lines need no change.
    #[arg(long = "web.enable-remote-write-receiver", hide = true)]
    pub remote_write_receiver: bool,
    #[command(flatten)]
    pub no_effect: NoEffect,
}

/// Flags of the deduplication of replicas, as of Mimir's HA tracker.
#[derive(Debug, Clone, Args)]
pub struct HaTrackerArgs {
    /// Of several replicas that write the same series by remote write, take one and leave the others out.
    #[arg(long = "ha-tracker.accept-ha-samples")]
    pub accept_ha_samples: bool,
    /// Label that names the cluster of replicas.
    #[arg(long = "ha-tracker.cluster", value_name = "LABEL", default_value = "cluster")]
    pub cluster: String,
    /// Label that names the replica; it is taken off.
    #[arg(long = "ha-tracker.replica", value_name = "LABEL", default_value = "__replica__")]
    pub replica: String,
    /// How long the elected replica may be silent until another takes over.
    #[arg(long = "ha-tracker.failover-timeout", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub failover_timeout_ms: i64,
    /// Most clusters; samples of more are refused.
    #[arg(long = "ha-tracker.max-clusters", value_name = "COUNT", default_value_t = 100)]
    pub max_clusters: usize,
}

/// Flags of Prometheus that have nothing to act on here. Each that is given is named in a warning.
#[derive(Debug, Clone, Args)]
pub struct NoEffect {
    #[arg(long = "storage.tsdb.wal-compression", hide = true)]
    wal_compression: bool,
    #[arg(long = "storage.tsdb.no-lockfile", hide = true)]
    no_lockfile: bool,
    #[arg(long = "web.console.templates", hide = true)]
    console_templates: Option<String>,
    #[arg(long = "web.console.libraries", hide = true)]
    console_libraries: Option<String>,
    #[arg(long = "alertmanager.notification-queue-capacity", hide = true)]
    notification_queue: Option<String>,
    #[arg(long = "web.read-timeout", hide = true)]
    read_timeout: Option<String>,
    #[arg(long = "rules.alert.for-outage-tolerance", hide = true)]
    for_outage_tolerance: Option<String>,
    #[arg(long = "rules.alert.for-grace-period", hide = true)]
    for_grace_period: Option<String>,
    #[arg(long = "rules.max-concurrent-evals", hide = true)]
    rules_max_concurrent: Option<String>,
    #[arg(long = "storage.tsdb.min-block-duration", hide = true)]
    min_block_duration: Option<String>,
    #[arg(long = "storage.tsdb.max-block-duration", hide = true)]
    max_block_duration: Option<String>,
    #[arg(long = "storage.remote.flush-deadline", hide = true)]
    remote_flush_deadline: Option<String>,
    #[arg(long = "storage.tsdb.wal-segment-size", hide = true)]
    wal_segment_size: Option<String>,
    #[arg(long = "storage.tsdb.wal-compression-type", hide = true)]
    wal_compression_type: Option<String>,
    #[arg(long = "storage.tsdb.head-chunks-write-queue-size", hide = true)]
    head_chunks_queue: Option<String>,
    #[arg(long = "storage.tsdb.samples-per-chunk", hide = true)]
    samples_per_chunk: Option<String>,
    #[arg(long = "storage.tsdb.max-block-chunk-segment-size", hide = true)]
    block_segment_size: Option<String>,
    #[arg(long = "storage.tsdb.delay-compact-file.path", hide = true)]
    delay_compact_file: Option<String>,
    #[arg(long = "storage.remote.read-sample-limit", hide = true)]
    remote_read_samples: Option<String>,
    #[arg(long = "storage.remote.read-concurrent-limit", hide = true)]
    remote_read_concurrency: Option<String>,
    #[arg(long = "storage.remote.read-max-bytes-in-frame", hide = true)]
    remote_read_frame: Option<String>,
    #[arg(long = "rules.max-concurrent-rule-evals", hide = true)]
    rules_concurrent_evals: Option<String>,
    #[arg(long = "alertmanager.timeout", hide = true)]
    alertmanager_timeout: Option<String>,
    #[arg(long = "alertmanager.notification-batch-size", hide = true)]
    notification_batch: Option<String>,
    #[arg(long = "alertmanager.drain-notification-queue-on-shutdown", hide = true)]
    drain_notifications: bool,
    #[arg(long = "scrape.adjust-timestamps", hide = true)]
    adjust_timestamps: bool,
    #[arg(long = "scrape.timestamp-tolerance", hide = true)]
    timestamp_tolerance: Option<String>,
    #[arg(long = "scrape.discovery-reload-interval", hide = true)]
    discovery_reload: Option<String>,
    #[arg(long = "web.max-notifications-subscribers", hide = true)]
    notification_subscribers: Option<String>,
    #[arg(long = "auto-gomaxprocs", hide = true)]
    auto_gomaxprocs: bool,
    #[arg(long = "auto-gomemlimit", hide = true)]
    auto_gomemlimit: bool,
    #[arg(long = "auto-gomemlimit.ratio", hide = true)]
    auto_gomemlimit_ratio: Option<String>,
}

impl NoEffect {
    /// Names of those that were given.
    pub fn given(&self) -> Vec<&'static str> {
        [
            ("storage.tsdb.wal-compression", self.wal_compression),
            ("storage.tsdb.no-lockfile", self.no_lockfile),
            ("web.console.templates", self.console_templates.is_some()),
            ("web.console.libraries", self.console_libraries.is_some()),
            ("alertmanager.notification-queue-capacity", self.notification_queue.is_some()),
            ("web.read-timeout", self.read_timeout.is_some()),
            ("rules.alert.for-outage-tolerance", self.for_outage_tolerance.is_some()),
            ("rules.alert.for-grace-period", self.for_grace_period.is_some()),
            ("rules.max-concurrent-evals", self.rules_max_concurrent.is_some()),
            ("storage.tsdb.min-block-duration", self.min_block_duration.is_some()),
            ("storage.tsdb.max-block-duration", self.max_block_duration.is_some()),
            ("storage.remote.flush-deadline", self.remote_flush_deadline.is_some()),
            ("storage.tsdb.wal-segment-size", self.wal_segment_size.is_some()),
            ("storage.tsdb.wal-compression-type", self.wal_compression_type.is_some()),
            ("storage.tsdb.head-chunks-write-queue-size", self.head_chunks_queue.is_some()),
            ("storage.tsdb.samples-per-chunk", self.samples_per_chunk.is_some()),
            ("storage.tsdb.max-block-chunk-segment-size", self.block_segment_size.is_some()),
            ("storage.tsdb.delay-compact-file.path", self.delay_compact_file.is_some()),
            ("storage.remote.read-sample-limit", self.remote_read_samples.is_some()),
            ("storage.remote.read-concurrent-limit", self.remote_read_concurrency.is_some()),
            ("storage.remote.read-max-bytes-in-frame", self.remote_read_frame.is_some()),
            ("rules.max-concurrent-rule-evals", self.rules_concurrent_evals.is_some()),
            ("alertmanager.timeout", self.alertmanager_timeout.is_some()),
            ("alertmanager.notification-batch-size", self.notification_batch.is_some()),
            ("alertmanager.drain-notification-queue-on-shutdown", self.drain_notifications),
            ("scrape.adjust-timestamps", self.adjust_timestamps),
            ("scrape.timestamp-tolerance", self.timestamp_tolerance.is_some()),
            ("scrape.discovery-reload-interval", self.discovery_reload.is_some()),
            ("web.max-notifications-subscribers", self.notification_subscribers.is_some()),
            ("auto-gomaxprocs", self.auto_gomaxprocs),
            ("auto-gomemlimit", self.auto_gomemlimit),
            ("auto-gomemlimit.ratio", self.auto_gomemlimit_ratio.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

/// A file name, or nothing: scripts write `--web.config.file=` for "none".
fn file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration_ms(text).map_err(|error| error.message)
}

fn size(text: &str) -> Result<u64, String> {
    crate::config::parse_size(text)
}

/// `host:port` with a literal address; `:9090` is every address, as in Go.
fn address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.replace("localhost:", "127.0.0.1:")
    };
    full.parse().map_err(|_| format!("{text:?} is no address: write 127.0.0.1:9090, [::1]:9090 or :9090"))
}

impl ServeArgs {
    /// Takes empty file names for absent ones, as Prometheus does.
    pub fn normalize(&mut self) {
        for file in [&mut self.config_file, &mut self.web_config_file] {
            file.take_if(|file| file.as_os_str().is_empty());
        }
    }

    /// Flags with their values in force, for the API and the page.
    pub fn flags(&self) -> Vec<(String, String)> {
        let duration = tidewatch_model::format_duration;
        let path =
            |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        let listen: Vec<String> = self.listen.iter().map(SocketAddr::to_string).collect();
        [
            ("config.file", path(&self.config_file)),
            ("enable-feature", self.enable_feature.join(",")),
            ("ha-tracker.accept-ha-samples", self.ha_tracker.accept_ha_samples.to_string()),
            ("ha-tracker.cluster", self.ha_tracker.cluster.clone()),
            ("ha-tracker.failover-timeout", duration(self.ha_tracker.failover_timeout_ms)),
            ("ha-tracker.max-clusters", self.ha_tracker.max_clusters.to_string()),
            ("ha-tracker.replica", self.ha_tracker.replica.clone()),
            ("log.format", format!("{:?}", self.log_format).to_lowercase()),
            ("log.level", self.log_level.to_string().to_lowercase()),
            ("query.lookback-delta", duration(self.lookback_ms)),
            ("query.max-concurrency", self.query_concurrency().to_string()),
            ("query.max-samples", self.query_max_samples.to_string()),
            ("query.timeout", duration(self.query_timeout_ms)),
            ("rules.alert.resend-delay", duration(self.resend_delay_ms)),
            ("storage.tsdb.path", self.storage_path.display().to_string()),
            ("storage.tsdb.retention.size", format_size(self.retention_bytes.unwrap_or(0))),
            ("storage.tsdb.retention.time", duration(self.retention_ms.unwrap_or(0))),
            ("web.config.file", path(&self.web_config_file)),
            ("web.cors.origin", self.cors_origin.clone()),
            ("web.enable-admin-api", self.enable_admin.to_string()),
            ("web.enable-lifecycle", self.enable_lifecycle.to_string()),
            ("web.enable-remote-write-receiver", "true".to_owned()),
            ("web.external-url", self.external_url.clone()),
            ("web.listen-address", listen.join(",")),
            ("web.max-connections", self.max_connections.to_string()),
            ("web.page-title", self.page_title.clone()),
            ("web.remote-write-receiver.accepted-protobuf-messages", self.write_messages.join(",")),
            ("web.route-prefix", self.route_prefix.clone().unwrap_or_default()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// Whether `--enable-feature` names it.
    pub fn enables(&self, feature: &str) -> bool {
        self.enable_feature.iter().any(|name| name == feature)
    }

    pub fn query_concurrency(&self) -> usize {
        self.query_concurrency
            .unwrap_or_else(|| 2 * std::thread::available_parallelism().map_or(2, usize::from))
    }
}
