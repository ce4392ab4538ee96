//! The schema of `alertmanager.yml`, but for the integrations.

use super::super::http::{HTTP_CLIENT, TLS};
use super::super::schema::{Object, Problem, Section, Type, no_check};
use super::super::types::{DURATION, TEXT_MAP, TEXTS};
use super::integrations::RECEIVER;
use super::intervals::{MUTE_TIME_INTERVAL, TIME_INTERVAL};
use super::scalars::{HOST_PORT, HTTP_URL};

pub(super) static FILE: Object = Object {
    name: "config.plain",
    fields: &[
        ("global", Type::Object(&GLOBAL)),
        ("route", Type::Object(&ROUTE)),
        ("inhibit_rules", Type::List(&Type::Object(&INHIBIT_RULE))),
        ("receivers", Type::List(&Type::Object(&RECEIVER))),
        ("templates", TEXTS),
        ("mute_time_intervals", Type::List(&Type::Object(&MUTE_TIME_INTERVAL))),
        ("time_intervals", Type::List(&Type::Object(&TIME_INTERVAL))),
        ("tracing", Type::Object(&TRACING)),
    ],
    inline: &[],
    check: no_check,
};

static GLOBAL: Object = Object {
    name: "config.plain",
    fields: &[
        ("resolve_timeout", DURATION),
        ("http_config", Type::Object(&HTTP_CLIENT)),
        ("jira_api_url", HTTP_URL),
        ("smtp_from", Type::Text),
        ("smtp_hello", Type::Text),
        ("smtp_smarthost", HOST_PORT),
        ("smtp_auth_username", Type::Text),
        ("smtp_auth_password", Type::Text),
        ("smtp_auth_password_file", Type::Text),
        ("smtp_auth_secret", Type::Text),
        ("smtp_auth_secret_file", Type::Text),
        ("smtp_auth_identity", Type::Text),
        ("smtp_require_tls", Type::Bool),
        ("smtp_tls_config", Type::Object(&TLS)),
        ("smtp_force_implicit_tls", Type::Bool),
        ("slack_api_url", HTTP_URL),
        ("slack_api_url_file", Type::Text),
        ("slack_app_token", Type::Text),
        ("slack_app_token_file", Type::Text),
        ("slack_app_url", HTTP_URL),
        ("pagerduty_url", HTTP_URL),
        ("opsgenie_api_url", HTTP_URL),
        ("opsgenie_api_key", Type::Text),
        ("opsgenie_api_key_file", Type::Text),
        ("wechat_api_url", HTTP_URL),
        ("wechat_api_secret", Type::Text),
        ("wechat_api_secret_file", Type::Text),
        ("wechat_api_corp_id", Type::Text),
        ("victorops_api_url", HTTP_URL),
        ("victorops_api_key", Type::Text),
        ("victorops_api_key_file", Type::Text),
        ("telegram_api_url", HTTP_URL),
        ("telegram_bot_token", Type::Text),
        ("telegram_bot_token_file", Type::Text),
        ("webex_api_url", HTTP_URL),
        ("rocketchat_api_url", HTTP_URL),
        ("rocketchat_token", Type::Text),
        ("rocketchat_token_file", Type::Text),
        ("rocketchat_token_id", Type::Text),
        ("rocketchat_token_id_file", Type::Text),
        ("mattermost_webhook_url", HTTP_URL),
        ("mattermost_webhook_url_file", Type::Text),
    ],
    inline: &[],
    check: check_global,
};

static ROUTE: Object = Object {
    name: "config.plain",
    fields: &[
        ("receiver", Type::Text),
        ("group_by", TEXTS),
        ("match", TEXT_MAP),
        ("match_re", Type::Map(&Type::Any)),
        ("matchers", TEXTS),
        ("mute_time_intervals", TEXTS),
        ("active_time_intervals", TEXTS),
        ("continue", Type::Bool),
        ("routes", Type::Items(&Type::Object(&ROUTE), "missing route")),
        ("group_wait", DURATION),
        ("group_interval", DURATION),
        ("repeat_interval", DURATION),
    ],
    inline: &[],
    check: |section, problems| {
        for field in ["group_interval", "repeat_interval"] {
            if section.duration_ms(field) == Some(0) {
                problems.push(section.problem(field, format!("{field} cannot be zero")));
            }
        }
    },
};

static INHIBIT_RULE: Object = Object {
    name: "config.plain",
    fields: &[
        ("name", Type::Text),
        ("source_match", TEXT_MAP),
        ("source_match_re", Type::Map(&Type::Any)),
        ("source_matchers", TEXTS),
        ("sources", Type::List(&Type::Object(&INHIBIT_SOURCE))),
        ("target_match", TEXT_MAP),
        ("target_match_re", Type::Map(&Type::Any)),
        ("target_matchers", TEXTS),
        ("equal", TEXTS),
    ],
    inline: &[],
    check: |section, problems| {
        let own = ["source_match", "source_match_re", "source_matchers", "equal"];
        if section.filled("sources") && section.count_filled(&own) > 0 {
            let message =
                "sources cannot be combined with source_match, source_match_re, source_matchers, or equal";
            problems.push(section.problem("sources", message));
        }
    },
};

static INHIBIT_SOURCE: Object = Object {
    name: "config.InhibitRuleSource",
    fields: &[("matchers", TEXTS), ("equal", TEXTS)],
    inline: &[],
    check: no_check,
};

static TRACING: Object = Object {
    name: "tracing.plain",
    fields: &[
        ("client_type", Type::Checked(tracing_client)),
        ("endpoint", Type::Text),
        ("sampling_fraction", Type::Float),
        ("insecure", Type::Bool),
        ("tls_config", Type::Object(&TLS)),
        ("headers", Type::Map(&Type::Any)),
        ("compression", Type::Text),
        ("timeout", DURATION),
    ],
    inline: &[],
    check: |section, problems| {
        if section.node.is_null() {
            return;
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

fn tracing_client(text: &str) -> Result<(), String> {
    match text {
        "http" | "grpc" => Ok(()),
        _ => Err(format!("expected tracing client type to be to be http or grpc, but got {text}")),
    }
}

pub(super) fn at_most_one(section: &Section<'_>, one: &str, other: &str, problems: &mut Vec<Problem>) {
    if section.count_filled(&[one, other]) > 1 {
        let message = format!("at most one of {one} & {other} must be configured");
        problems.push(section.problem(other, message));
    }
}

fn check_global(section: &Section<'_>, problems: &mut Vec<Problem>) {
    const ALTERNATIVES: [&str; 11] = [
        "slack_app_token",
        "slack_api_url",
        "opsgenie_api_key",
        "victorops_api_key",
        "telegram_bot_token",
        "smtp_auth_password",
        "rocketchat_token",
        "rocketchat_token_id",
        "smtp_auth_secret",
        "wechat_api_secret",
        "mattermost_webhook_url",
    ];
    for field in ALTERNATIVES {
        at_most_one(section, field, &format!("{field}_file"), problems);
    }
    // A token used to be given as the authorization of a client that posts to Slack's own
    // address; that address may still stand beside a token.
    let app_url = section.text("slack_app_url").unwrap_or("https://slack.com/api/chat.postMessage");
    let has_token = section.count_filled(&["slack_app_token", "slack_app_token_file"]) > 0;
    let has_url = section.count_filled(&["slack_api_url", "slack_api_url_file"]) > 0;
    if has_token && has_url && section.text("slack_api_url") != Some(app_url) {
        let message = "at most one of slack_app_token/slack_app_token_file & slack_api_url/slack_api_url_file must be configured";
        problems.push(section.problem("slack_app_token", message));
    }
}
