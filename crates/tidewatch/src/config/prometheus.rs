//! The schema of `prometheus.yml`.

use std::collections::HashSet;

use tidewatch_model::{LabelsBuilder, relabel};

use super::discovery::{DISCOVERY, check_labels, statics};
use super::http::{HTTP_CLIENT, TLS};
use super::relabel::{RELABEL, rules};
use super::schema::{Object, Problem, Section, Type, no_check};
use super::types::{DURATION, SIZE, TEXT_MAP, TEXTS, URL, target_address};

pub(super) static CONFIG: Object = Object {
    name: "config.plain",
    fields: &[
        ("global", Type::Object(&GLOBAL)),
        ("runtime", Type::Object(&RUNTIME)),
        ("alerting", Type::Object(&ALERTING)),
        ("rule_files", Type::List(&Type::Checked(rule_file_path))),
        ("scrape_config_files", Type::List(&Type::Checked(scrape_file_path))),
        ("scrape_configs", SCRAPE_CONFIGS),
        ("storage", Type::Object(&STORAGE)),
        ("tracing", Type::Object(&TRACING)),
        (
            "remote_write",
            Type::Items(&Type::Object(&REMOTE_WRITE), "empty or null remote write config section"),
        ),
        ("remote_read", Type::Items(&Type::Object(&REMOTE_READ), "empty or null remote read config section")),
        ("otlp", Type::Object(&OTLP)),
    ],
    inline: &[],
    check: check_remotes,
};

const SCRAPE_CONFIGS: Type = Type::Items(&Type::Object(&SCRAPE), "empty or null scrape config section");

/// A file named by `scrape_config_files`.
pub(super) static SCRAPE_FILE: Object = Object {
    name: "config.ScrapeConfigs",
    fields: &[("scrape_configs", SCRAPE_CONFIGS)],
    inline: &[],
    check: no_check,
};

static GLOBAL: Object = Object {
    name: "config.plain",
    fields: &[
        ("scrape_interval", DURATION),
        ("scrape_timeout", DURATION),
        ("scrape_protocols", Type::List(&Type::Text)),
        ("evaluation_interval", DURATION),
        ("rule_query_offset", DURATION),
        ("query_log_file", Type::Text),
        ("scrape_failure_log_file", Type::Text),
        ("external_labels", TEXT_MAP),
        ("keep_dropped_targets", Type::Uint),
        ("metric_name_validation_scheme", Type::Checked(validation_scheme)),
        ("metric_name_escaping_scheme", Type::Checked(escaping_scheme)),
        ("scrape_native_histograms", Type::Bool),
        ("convert_classic_histograms_to_nhcb", Type::Bool),
        ("always_scrape_classic_histograms", Type::Bool),
        ("extra_scrape_metrics", Type::Bool),
    ],
    inline: &[&SCRAPE_LIMITS],
    check: |section, problems| {
        check_protocols(section, None, problems);
        let (interval, timeout) =
            (section.duration_ms("scrape_interval"), section.duration_ms("scrape_timeout"));
        if matches!((interval, timeout), (interval, Some(timeout)) if timeout > interval.unwrap_or(60_000)) {
            let message = "global scrape timeout greater than scrape interval";
            problems.push(section.problem("scrape_timeout", message));
        }
        check_labels(section, problems);
    },
};

static SCRAPE_LIMITS: Object = Object {
    name: "config.ScrapeLimits",
    fields: &[
        ("body_size_limit", SIZE),
        ("sample_limit", Type::Uint),
        ("target_limit", Type::Uint),
        ("label_limit", Type::Uint),
        ("label_name_length_limit", Type::Uint),
        ("label_value_length_limit", Type::Uint),
    ],
    inline: &[],
    check: no_check,
};

pub(super) static SCRAPE: Object = Object {
    name: "config.ScrapeConfig",
    fields: &[
        ("job_name", Type::Text),
        ("honor_labels", Type::Bool),
        ("honor_timestamps", Type::Bool),
        ("track_timestamps_staleness", Type::Bool),
        ("params", Type::Map(&TEXTS)),
        ("scrape_interval", DURATION),
        ("scrape_timeout", DURATION),
        ("scrape_protocols", Type::List(&Type::Text)),
        ("fallback_scrape_protocol", Type::Text),
        ("scrape_native_histograms", Type::Bool),
        ("always_scrape_classic_histograms", Type::Bool),
        ("convert_classic_histograms_to_nhcb", Type::Bool),
        ("extra_scrape_metrics", Type::Bool),
        ("scrape_failure_log_file", Type::Text),
        ("metrics_path", Type::Text),
        ("scheme", Type::Text),
        ("enable_compression", Type::Bool),
        ("native_histogram_bucket_limit", Type::Uint),
        ("native_histogram_min_bucket_factor", Type::Float),
        ("keep_dropped_targets", Type::Uint),
        ("metric_name_validation_scheme", Type::Checked(validation_scheme)),
        ("metric_name_escaping_scheme", Type::Checked(escaping_scheme)),
        (
            "relabel_configs",
            Type::Items(&Type::Object(&RELABEL), "empty or null target relabeling rule in scrape config"),
        ),
        (
            "metric_relabel_configs",
            Type::Items(&Type::Object(&RELABEL), "empty or null metric relabeling rule in scrape config"),
        ),
    ],
    inline: &[&SCRAPE_LIMITS, &HTTP_CLIENT, &DISCOVERY],
    check: |section, problems| {
        if !section.filled("job_name") {
            problems.push(section.problem("job_name", "job_name is empty"));
        }
        check_protocols(section, section.text("job_name"), problems);
        check_addresses(section, problems);
    },
};

pub(super) static ALERTMANAGER: Object = Object {
    name: "config.AlertmanagerConfig",
    fields: &[
        ("scheme", Type::Text),
        ("path_prefix", Type::Text),
        ("timeout", DURATION),
        ("api_version", Type::Checked(alertmanager_api)),
        ("sigv4", Type::Any),
        (
            "relabel_configs",
            Type::Items(&Type::Object(&RELABEL), "empty or null Alertmanager target relabeling rule"),
        ),
        (
            "alert_relabel_configs",
            Type::Items(&Type::Object(&RELABEL), "empty or null Alertmanager alert relabeling rule"),
        ),
    ],
    inline: &[&HTTP_CLIENT, &DISCOVERY],
    check: check_addresses,
};

static ALERTING: Object = Object {
    name: "config.plain",
    fields: &[
        (
            "alert_relabel_configs",
            Type::Items(&Type::Object(&RELABEL), "empty or null alert relabeling rule"),
        ),
        ("alertmanagers", Type::List(&Type::Object(&ALERTMANAGER))),
    ],
    inline: &[],
    check: no_check,
};

static RUNTIME: Object =
    Object { name: "config.RuntimeConfig", fields: &[("gogc", Type::Int)], inline: &[], check: no_check };

static STORAGE: Object = Object {
    name: "config.StorageConfig",
    fields: &[("tsdb", Type::Object(&TSDB)), ("exemplars", Type::Object(&EXEMPLARS))],
    inline: &[],
    check: no_check,
};

static EXEMPLARS: Object = Object {
    name: "config.ExemplarsConfig",
    fields: &[("max_exemplars", Type::Int)],
    inline: &[],
    check: no_check,
};

static TSDB: Object = Object {
    name: "config.plain",
    fields: &[
        ("out_of_order_time_window", DURATION),
        ("stale_series_compaction_threshold", Type::Float),
        ("retention", Type::Object(&RETENTION)),
        ("chunk_encoding", Type::Object(&CHUNK_ENCODING)),
    ],
    inline: &[],
    check: no_check,
};

static RETENTION: Object = Object {
    name: "config.plain",
    fields: &[("time", DURATION), ("size", Type::Text), ("percentage", Type::Float)],
    inline: &[],
    check: |section, problems| {
        if section.number::<f64>("percentage").is_some_and(|share| !(0.0..=100.0).contains(&share)) {
            let message = "'storage.tsdb.retention.percentage' must be in the range [0, 100]";
            problems.push(section.problem("percentage", message));
        }
        match section.text("size") {
            Some(size) if size.starts_with('-') => {
                let message = "'storage.tsdb.retention.size' must be greater than or equal to 0";
                problems.push(section.problem("size", message));
            }
            Some(size) => {
                if let Err(message) = super::types::parse_size(size) {
                    problems.push(section.problem("size", message));
                }
            }
            None => {}
        }
    },
};

static CHUNK_ENCODING: Object = Object {
    name: "config.plain",
    fields: &[("floats", Type::Checked(float_encoding))],
    inline: &[],
    check: no_check,
};

static TRACING: Object = Object {
    name: "config.plain",
    fields: &[
        ("client_type", Type::Text),
        ("endpoint", Type::Text),
        ("sampling_fraction", Type::Float),
        ("insecure", Type::Bool),
        ("tls_config", Type::Object(&TLS)),
        ("headers", TEXT_MAP),
        ("compression", Type::Text),
        ("timeout", DURATION),
    ],
    inline: &[],
    check: |section, problems| {
        check_headers(section, problems);
        if !section.filled("endpoint") {
            problems.push(section.problem("endpoint", "tracing endpoint must be set"));
        }
        if let Some(compression) = section.text("compression").filter(|c| !matches!(*c, "" | "gzip")) {
            let message = format!("invalid compression type {compression} provided, valid options: gzip");
            problems.push(section.problem("compression", message));
        }
    },
};

static REMOTE_WRITE: Object = Object {
    name: "config.plain",
    fields: &[
        ("url", URL),
        ("remote_timeout", DURATION),
        ("headers", TEXT_MAP),
        (
            "write_relabel_configs",
            Type::Items(&Type::Object(&RELABEL), "empty or null relabeling rule in remote write config"),
        ),
        ("name", Type::Text),
        ("send_exemplars", Type::Bool),
        ("send_native_histograms", Type::Bool),
        ("round_robin_dns", Type::Bool),
        ("queue_config", Type::Object(&QUEUE)),
        ("metadata_config", Type::Object(&METADATA)),
        ("sigv4", Type::Any),
        ("azuread", Type::Any),
        ("google_iam", Type::Any),
        ("protobuf_message", Type::Checked(protobuf_message)),
    ],
    inline: &[&HTTP_CLIENT],
    check: |section, problems| {
        if !section.filled("url") {
            problems.push(section.problem("url", "url for remote_write is empty"));
        }
        check_headers(section, problems);
    },
};

static QUEUE: Object = Object {
    name: "config.plain",
    fields: &[
        ("capacity", Type::Int),
        ("max_shards", Type::Int),
        ("min_shards", Type::Int),
        ("max_samples_per_send", Type::Int),
        ("batch_send_deadline", DURATION),
        ("min_backoff", DURATION),
        ("max_backoff", DURATION),
        ("retry_on_http_429", Type::Bool),
        ("sample_age_limit", DURATION),
    ],
    inline: &[],
    check: check_queue,
};

static METADATA: Object = Object {
    name: "config.plain",
    fields: &[("send", Type::Bool), ("send_interval", DURATION), ("max_samples_per_send", Type::Int)],
    inline: &[],
    check: no_check,
};

static REMOTE_READ: Object = Object {
    name: "config.plain",
    fields: &[
        ("url", URL),
        ("remote_timeout", DURATION),
        ("chunked_read_limit", Type::Uint),
        ("headers", TEXT_MAP),
        ("read_recent", Type::Bool),
        ("name", Type::Text),
        ("required_matchers", TEXT_MAP),
        ("filter_external_labels", Type::Bool),
    ],
    inline: &[&HTTP_CLIENT],
    check: |section, problems| {
        if !section.filled("url") {
            problems.push(section.problem("url", "url for remote_read is empty"));
        }
        check_headers(section, problems);
    },
};

static OTLP: Object = Object {
    name: "config.plain",
    fields: &[
        ("promote_all_resource_attributes", Type::Bool),
        ("promote_resource_attributes", TEXTS),
        ("ignore_resource_attributes", TEXTS),
        ("translation_strategy", Type::Checked(translation_strategy)),
        ("keep_identifying_resource_attributes", Type::Bool),
        ("convert_histograms_to_nhcb", Type::Bool),
        ("promote_scope_metadata", Type::Bool),
        ("label_name_underscore_sanitization", Type::Bool),
        ("label_name_preserve_multiple_underscores", Type::Bool),
    ],
    inline: &[],
    check: check_otlp,
};

fn validation_scheme(text: &str) -> Result<(), String> {
    match text {
        "" | "legacy" | "utf8" => Ok(()),
        _ => Err(format!("unrecognized ValidationScheme: {text:?}")),
    }
}

fn escaping_scheme(text: &str) -> Result<(), String> {
    match text {
        "" | "allow-utf-8" | "underscores" | "dots" | "values" => Ok(()),
        _ => Err(format!(
            "unknown global name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', or 'values', got {text:?}"
        )),
    }
}

fn alertmanager_api(text: &str) -> Result<(), String> {
    match text {
        "v2" => Ok(()),
        "v1" => {
            Err("expected Alertmanager api version to be one of [v2] but got v1: remove the line".to_owned())
        }
        _ => Err(format!("expected Alertmanager api version to be one of [v2] but got {text}")),
    }
}

fn float_encoding(text: &str) -> Result<(), String> {
    match text {
        "xor" | "xor2" => Ok(()),
        _ => Err(format!(
            "'storage.tsdb.chunk_encoding.floats' must be 'xor' or 'xor2', or the field must be omitted entirely, got {text:?}"
        )),
    }
}

fn protobuf_message(text: &str) -> Result<(), String> {
    match text {
        "prometheus.WriteRequest" | "io.prometheus.write.v2.Request" => Ok(()),
        _ => Err(format!(
            "unknown type for remote write protobuf message {text}, supported: prometheus.WriteRequest, \
             io.prometheus.write.v2.Request"
        )),
    }
}

fn translation_strategy(text: &str) -> Result<(), String> {
    match text {
        ""
        | "UnderscoreEscapingWithSuffixes"
        | "UnderscoreEscapingWithoutSuffixes"
        | "NoUTF8EscapingWithSuffixes"
        | "NoTranslation" => Ok(()),
        _ => Err(format!("unsupported OTLP translation strategy {text:?}")),
    }
}

/// A `*` may stand in the last part of a path only.
fn glob_in_last_part(text: &str) -> bool {
    let folder = text.rsplit_once('/').map_or("", |(folder, _)| folder);
    !folder.contains('*')
}

fn rule_file_path(text: &str) -> Result<(), String> {
    if glob_in_last_part(text) { Ok(()) } else { Err(format!("invalid rule file path {text:?}")) }
}

fn scrape_file_path(text: &str) -> Result<(), String> {
    if glob_in_last_part(text) { Ok(()) } else { Err(format!("invalid scrape config file path {text:?}")) }
}

/// Formats that Prometheus knows; the protobuf one is not offered by us and falls away.
const PROTOCOLS: [&str; 5] = [
    "OpenMetricsText0.0.1",
    "OpenMetricsText1.0.0",
    "PrometheusProto",
    "PrometheusText0.0.4",
    "PrometheusText1.0.0",
];

fn check_protocols(section: &Section<'_>, job: Option<&str>, problems: &mut Vec<Problem>) {
    let suffix = job.map(|job| format!(" for scrape config with job name {job:?}")).unwrap_or_default();
    let protocols = section.strings("scrape_protocols");
    let supported = PROTOCOLS.join(" ");
    let mut seen = HashSet::new();
    for protocol in &protocols {
        let message = if !PROTOCOLS.contains(&protocol.as_str()) {
            format!("scrape_protocols: unknown scrape protocol {protocol}, supported: [{supported}]{suffix}")
        } else if !seen.insert(protocol) {
            format!("duplicated protocol in scrape_protocols, got [{}]{suffix}", protocols.join(" "))
        } else {
            continue;
        };
        problems.push(section.problem("scrape_protocols", message));
    }
    if let Some(fallback) = section.text("fallback_scrape_protocol").filter(|f| !PROTOCOLS.contains(f)) {
        let message = format!(
            "invalid fallback_scrape_protocol{suffix}: unknown scrape protocol {fallback}, supported: [{supported}]"
        );
        problems.push(section.problem("fallback_scrape_protocol", message));
    }
}

/// The commonest slip, a URL as a target, unless relabelling makes an address of it.
fn check_addresses(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let relabelling = rules(section, "relabel_configs");
    for (group, node) in statics(section).iter().zip(section.items("static_configs")) {
        for target in &group.targets {
            let mut labels = LabelsBuilder::new();
            labels.set("__address__", target);
            for (name, value) in &group.labels {
                labels.set(name, value);
            }
            if !relabel(&mut labels, &relabelling) {
                continue;
            }
            if let Err(message) = target_address(labels.get("__address__").unwrap_or_default()) {
                problems.push(
                    node.problem(
                        "targets",
                        format!("{message}; write host:port, and the path as metrics_path"),
                    ),
                );
            }
        }
    }
}

fn check_headers(section: &Section<'_>, problems: &mut Vec<Problem>) {
    const OURS: [&str; 6] = [
        "x-prometheus-remote-write-version",
        "host",
        "content-encoding",
        "content-type",
        "content-length",
        "user-agent",
    ];
    for (name, _) in section.pairs("headers") {
        let lower = name.to_ascii_lowercase();
        if lower == "authorization" {
            let message = "authorization header must be changed via the basic_auth, authorization, oauth2, sigv4, azuread or google_iam parameter";
            problems.push(section.problem("headers", message));
        } else if OURS.contains(&lower.as_str()) {
            problems.push(
                section.problem("headers", format!("{name} is a reserved header. It must not be changed")),
            );
        }
    }
}

fn check_queue(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let number = |name: &str, default: i64| section.number::<i64>(name).unwrap_or(default);
    let duration = |name: &str, default: i64| section.duration_ms(name).unwrap_or(default);
    let (field, message) = if number("max_shards", 50) <= 0 {
        ("max_shards", "remote write queue max_shards must be positive")
    } else if number("min_shards", 1) <= 0 {
        ("min_shards", "remote write queue min_shards must be positive")
    } else if number("min_shards", 1) > number("max_shards", 50) {
        ("min_shards", "remote write queue min_shards must not be greater than max_shards")
    } else if number("max_samples_per_send", 2000) <= 0 {
        ("max_samples_per_send", "remote write queue max_samples_per_send must be positive")
    } else if number("capacity", 10_000) <= 0 {
        ("capacity", "remote write queue capacity must be positive")
    } else if duration("max_backoff", 5_000) < duration("min_backoff", 30) {
        ("max_backoff", "remote write queue max_backoff must not be less than min_backoff")
    } else {
        return;
    };
    problems.push(section.problem(field, message));
}

fn check_otlp(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let promote_all = section.bool("promote_all_resource_attributes", false);
    if promote_all && section.filled("promote_resource_attributes") {
        let message = "'promote_all_resource_attributes' and 'promote_resource_attributes' cannot be configured simultaneously";
        problems.push(section.problem("promote_resource_attributes", message));
    }
    if !promote_all && section.filled("ignore_resource_attributes") {
        let message = "'ignore_resource_attributes' cannot be configured unless 'promote_all_resource_attributes' is true";
        problems.push(section.problem("ignore_resource_attributes", message));
    }
    for (field, adjective) in
        [("ignore_resource_attributes", "ignored"), ("promote_resource_attributes", "promoted")]
    {
        let mut seen = HashSet::new();
        let mut reasons = Vec::new();
        for attribute in section.strings(field) {
            let attribute = attribute.trim().to_owned();
            if attribute.is_empty() {
                reasons.push(format!("empty {adjective} OTel resource attribute"));
            } else if !seen.insert(attribute.clone()) {
                reasons.push(format!("duplicated {adjective} OTel resource attribute {attribute:?}"));
            }
        }
        if !reasons.is_empty() {
            problems.push(section.problem(field, format!("invalid '{field}': {}", reasons.join("\n"))));
        }
    }
}

/// Names that must be unique among remote systems, and schemes that contradict each other.
fn check_remotes(section: &Section<'_>, problems: &mut Vec<Problem>) {
    for (field, what) in [("remote_write", "remote write"), ("remote_read", "remote read")] {
        let mut seen = HashSet::new();
        for remote in section.items(field) {
            let name = remote.string("name");
            if !name.is_empty() && !seen.insert(name.clone()) {
                let message = format!("found multiple {what} configs with job name {name:?}");
                problems.push(Problem::at(remote.node, message));
            }
        }
    }
    let global = section.section("global");
    let legacy = global.is_some_and(|g| g.text("metric_name_validation_scheme") == Some("legacy"));
    if let Some(global) = global
        && legacy
        && global.text("metric_name_escaping_scheme") == Some("allow-utf-8")
    {
        let message = "utf8 metric names requested but validation scheme is not set to UTF8";
        problems.push(global.problem("metric_name_escaping_scheme", message));
    }
    if let Some(otlp) = section.section("otlp")
        && let Some(strategy @ ("NoUTF8EscapingWithSuffixes" | "NoTranslation")) =
            otlp.text("translation_strategy")
        && legacy
    {
        let message = format!("OTLP translation strategy {strategy:?} is not allowed when UTF8 is disabled");
        problems.push(otlp.problem("translation_strategy", message));
    }
}
