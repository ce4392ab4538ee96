//! The schema of `remote_write` and `remote_read`: checked, though not served yet.

use super::http::HTTP_CLIENT;
use super::relabel::RELABEL;
use super::schema::{Object, Problem, Section, Type, no_check};
use super::types::{DURATION, TEXT_MAP, URL};

pub(super) static REMOTE_WRITE: Object = Object {
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
        ("sigv4", Type::Object(&SIGV4)),
        ("azuread", Type::Object(&AZUREAD)),
        ("google_iam", Type::Object(&GOOGLE_IAM)),
        ("protobuf_message", Type::Checked(protobuf_message)),
    ],
    inline: &[&HTTP_CLIENT],
    check: |section, problems| {
        if !section.filled("url") {
            problems.push(section.problem("url", "url for remote_write is empty"));
        }
        check_headers(section, problems);
        check_identities(section, problems);
    },
};

pub(super) static SIGV4: Object = Object {
    name: "sigv4.plain",
    fields: &[
        ("region", Type::Text),
        ("access_key", Type::Text),
        ("secret_key", Type::Text),
        ("profile", Type::Text),
        ("role_arn", Type::Text),
        ("external_id", Type::Text),
        ("use_fips_sts_endpoint", Type::Bool),
        ("service_name", Type::Text),
    ],
    inline: &[],
    check: |section, problems| {
        if section.count_filled(&["access_key", "secret_key"]) == 1 {
            let message = "must provide a AWS SigV4 Access key and Secret Key if credentials are specified in the SigV4 config";
            problems.push(Problem::at(section.node, message));
        }
    },
};

static AZUREAD: Object = Object {
    name: "azuread.plain",
    fields: &[
        ("cloud", Type::Any),
        ("managed_identity", Type::Any),
        ("workload_identity", Type::Any),
        ("oauth", Type::Any),
        ("sdk", Type::Any),
        ("scope", Type::Text),
    ],
    inline: &[],
    check: |section, problems| {
        let ways = ["managed_identity", "workload_identity", "oauth", "sdk"];
        let message = match ways.iter().filter(|way| section.has(way)).count() {
            0 => {
                "must provide an Azure Managed Identity, Azure Workload Identity, Azure OAuth or Azure SDK in the Azure AD config"
            }
            1 => return,
            _ => "cannot provide multiple authentication methods in the Azure AD config",
        };
        problems.push(Problem::at(section.node, message));
    },
};

static GOOGLE_IAM: Object = Object {
    name: "googleiam.plain",
    fields: &[("credentials_file", Type::Text)],
    inline: &[],
    check: no_check,
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

pub(super) static REMOTE_READ: Object = Object {
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

fn protobuf_message(text: &str) -> Result<(), String> {
    match text {
        "prometheus.WriteRequest" | "io.prometheus.write.v2.Request" => Ok(()),
        _ => Err(format!(
            "unknown type for remote write protobuf message {text}, supported: prometheus.WriteRequest, \
             io.prometheus.write.v2.Request"
        )),
    }
}

/// Headers that a remote client, its connection or its signature sets itself.
const RESERVED: [&str; 16] = [
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

/// Ways to say who we are to a remote system: one at most.
fn check_identities(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let ways = ["basic_auth", "authorization", "oauth2", "sigv4", "azuread", "google_iam"];
    let configured: Vec<&str> = ways.into_iter().filter(|way| section.has(way)).collect();
    if configured.len() > 1 {
        let message = format!(
            "at most one of basic_auth, authorization, oauth2, sigv4, azuread or google_iam must be configured. \
             Currently configured: [{}]",
            configured.join(" ")
        );
        problems.push(section.problem(configured[1], message));
    }
}

pub(super) fn check_headers(section: &Section<'_>, problems: &mut Vec<Problem>) {
    for (name, _) in section.pairs("headers") {
        let lower = name.to_ascii_lowercase();
        if lower == "authorization" {
            let message = "authorization header must be changed via the basic_auth, authorization, oauth2, sigv4, azuread or google_iam parameter";
            problems.push(section.problem("headers", message));
        } else if RESERVED.contains(&lower.as_str()) {
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
