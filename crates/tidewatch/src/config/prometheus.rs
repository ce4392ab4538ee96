//! The schema of `prometheus.yml`.

use std::collections::HashSet;

use tidewatch_model::{LabelsBuilder, NameValidation, relabel};

use super::discovery::{DISCOVERY, check_labels, statics};
use super::http::{HTTP_CLIENT, TLS};
use super::relabel::{RELABEL, rules};
use super::remote::{REMOTE_READ, REMOTE_WRITE, SIGV4, check_headers};
use super::schema::{Object, Problem, Section, Type, no_check};
use super::types::{DURATION, SIZE, TEXT_MAP, TEXTS, target_address};

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
        ("metric_name_escaping_scheme", Type::Checked(global_escaping)),
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
        ("metric_name_escaping_scheme", Type::Checked(job_escaping)),
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
        ("sigv4", Type::Object(&SIGV4)),
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
    check: |section, problems| {
        if section.has("sigv4") && section.count_filled(&["basic_auth", "authorization", "oauth2"]) > 0 {
            let message = "at most one of basic_auth, authorization, oauth2, & sigv4 must be configured";
            problems.push(section.problem("sigv4", message));
        }
        check_addresses(section, problems);
    },
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
        ("client_type", Type::Checked(tracing_client)),
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
        if section.pairs("headers").iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            let message = "custom authorization header configuration is not yet supported";
            problems.push(section.problem("headers", message));
        } else {
            check_headers(section, problems);
        }
        if !section.filled("endpoint") {
            problems.push(section.problem("endpoint", "tracing endpoint must be set"));
        }
        if let Some(compression) = section.text("compression").filter(|c| !matches!(*c, "" | "gzip")) {
            let message = format!("invalid compression type {compression} provided, valid options: gzip");
            problems.push(section.problem("compression", message));
        }
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

fn tracing_client(text: &str) -> Result<(), String> {
    match text {
        "http" | "grpc" => Ok(()),
        _ => Err(format!("expected tracing client type to be to be http or grpc, but got {text}")),
    }
}

fn validation_scheme(text: &str) -> Result<(), String> {
    match text {
        "" | "legacy" | "utf8" => Ok(()),
        _ => Err(format!("unrecognized ValidationScheme: {text:?}")),
    }
}

fn global_escaping(text: &str) -> Result<(), String> {
    escaping_scheme("global", text)
}

fn job_escaping(text: &str) -> Result<(), String> {
    escaping_scheme("scrape config", text)
}

fn escaping_scheme(of: &str, text: &str) -> Result<(), String> {
    match text {
        "" | "allow-utf-8" | "underscores" | "dots" | "values" => Ok(()),
        _ => Err(format!(
            "unknown {of} name escaping method specified, must be one of 'allow-utf-8', 'underscores', 'dots', or 'values', got {text:?}"
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
    // What is wrong with the rules themselves was said already.
    let relabelling = rules(section, "relabel_configs", NameValidation::Utf8).unwrap_or_default();
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
                let message = format!("{message}; write host:port, and the path as metrics_path");
                problems.push(node.problem("targets", message));
            }
        }
    }
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

/// A job that wants UTF-8 names must be allowed to have them.
fn check_names(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let scheme = |of: &Section<'_>| of.string("metric_name_validation_scheme");
    let global = section.section("global").map(|global| scheme(&global)).unwrap_or_default();
    for job in section.items("scrape_configs") {
        let own = scheme(&job);
        let is_legacy = if own.is_empty() { global == "legacy" } else { own == "legacy" };
        if is_legacy && job.text("metric_name_escaping_scheme") == Some("allow-utf-8") {
            let message = "utf8 metric names requested but validation scheme is not set to UTF8";
            problems.push(job.problem("metric_name_escaping_scheme", message));
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
    check_names(section, problems);
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
