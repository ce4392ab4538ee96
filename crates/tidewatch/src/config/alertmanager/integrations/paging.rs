//! Integrations that page somebody, open a ticket, or hand the alerts on: mail, webhooks, queues.

use super::super::super::http::TLS;
use super::super::super::schema::{Object, Problem, Section, Type, no_check};
use super::super::super::types::{DURATION, TEXT_MAP, TEXTS};
use super::super::scalars::{GO_DURATION, HOST_PORT, HTTP_URL, TEMPLATE_URL};
use super::super::tables::at_most_one;
use super::{CLIENT, NOTIFIER, authorizes, exactly_one};

pub(super) static WEBHOOK: Object = Object {
    name: "webhook.plain",
    fields: &[
        ("url", TEMPLATE_URL),
        ("url_file", Type::Text),
        ("max_alerts", Type::Uint),
        ("timeout", GO_DURATION),
        ("payload", Type::Any),
    ],
    inline: &[&CLIENT],
    check: |section, problems| exactly_one(section, "url", "url_file", problems),
};

pub(super) static INCIDENTIO: Object = Object {
    name: "incidentio.plain",
    fields: &[
        ("url", HTTP_URL),
        ("url_file", Type::Text),
        ("alert_source_token", Type::Text),
        ("alert_source_token_file", Type::Text),
        ("max_alerts", Type::Uint),
        ("timeout", GO_DURATION),
    ],
    inline: &[&CLIENT],
    check: check_incidentio,
};

pub(super) static EMAIL: Object = Object {
    name: "email.plain",
    fields: &[
        ("to", Type::Text),
        ("from", Type::Text),
        ("hello", Type::Text),
        ("smarthost", HOST_PORT),
        ("auth_username", Type::Text),
        ("auth_password", Type::Text),
        ("auth_password_file", Type::Text),
        ("auth_secret", Type::Text),
        ("auth_secret_file", Type::Text),
        ("auth_identity", Type::Text),
        ("headers", TEXT_MAP),
        ("html", Type::Text),
        ("text", Type::Text),
        ("require_tls", Type::Bool),
        ("tls_config", Type::Object(&TLS)),
        ("force_implicit_tls", Type::Bool),
        ("threading", Type::Object(&THREADING)),
    ],
    inline: &[&NOTIFIER],
    check: check_email,
};

static THREADING: Object = Object {
    name: "email.ThreadingConfig",
    fields: &[("enabled", Type::Bool), ("thread_by_date", Type::Text)],
    inline: &[],
    check: no_check,
};

pub(super) static PAGERDUTY: Object = Object {
    name: "pagerduty.plain",
    fields: &[
        ("service_key", Type::Text),
        ("service_key_file", Type::Text),
        ("routing_key", Type::Text),
        ("routing_key_file", Type::Text),
        ("url", HTTP_URL),
        ("client", Type::Text),
        ("client_url", Type::Text),
        ("description", Type::Text),
        ("details", Type::Map(&Type::Any)),
        ("images", Type::List(&Type::Object(&PAGERDUTY_IMAGE))),
        ("links", Type::List(&Type::Object(&PAGERDUTY_LINK))),
        ("source", Type::Text),
        ("severity", Type::Text),
        ("class", Type::Text),
        ("component", Type::Text),
        ("group", Type::Text),
        ("timeout", GO_DURATION),
    ],
    inline: &[&CLIENT],
    check: |section, problems| {
        let keys = ["routing_key", "service_key", "routing_key_file", "service_key_file"];
        if section.count_filled(&keys) == 0 {
            problems
                .push(section.problem("routing_key", "missing service or routing key in PagerDuty config"));
        }
        at_most_one(section, "routing_key", "routing_key_file", problems);
        at_most_one(section, "service_key", "service_key_file", problems);
    },
};

static PAGERDUTY_IMAGE: Object = Object {
    name: "pagerduty.PagerdutyImage",
    fields: &[("src", Type::Text), ("alt", Type::Text), ("href", Type::Text)],
    inline: &[],
    check: no_check,
};

static PAGERDUTY_LINK: Object = Object {
    name: "pagerduty.PagerdutyLink",
    fields: &[("href", Type::Text), ("text", Type::Text)],
    inline: &[],
    check: no_check,
};

pub(super) static VICTOROPS: Object = Object {
    name: "victorops.plain",
    fields: &[
        ("api_key", Type::Text),
        ("api_key_file", Type::Text),
        ("api_url", HTTP_URL),
        ("routing_key", Type::Text),
        ("message_type", Type::Text),
        ("state_message", Type::Text),
        ("entity_display_name", Type::Text),
        ("monitoring_tool", Type::Text),
        ("custom_fields", TEXT_MAP),
    ],
    inline: &[&CLIENT],
    check: check_victorops,
};

pub(super) static PUSHOVER: Object = Object {
    name: "pushover.plain",
    fields: &[
        ("user_key", Type::Text),
        ("user_key_file", Type::Text),
        ("token", Type::Text),
        ("token_file", Type::Text),
        ("title", Type::Text),
        ("message", Type::Text),
        ("url", Type::Text),
        ("url_title", Type::Text),
        ("device", Type::Text),
        ("sound", Type::Text),
        ("priority", Type::Text),
        ("retry", GO_DURATION),
        ("expire", GO_DURATION),
        ("ttl", GO_DURATION),
        ("html", Type::Bool),
        ("monospace", Type::Bool),
    ],
    inline: &[&CLIENT],
    check: |section, problems| {
        exactly_one(section, "user_key", "user_key_file", problems);
        exactly_one(section, "token", "token_file", problems);
        if section.bool("html", false) && section.bool("monospace", false) {
            problems.push(section.problem("monospace", "at most one of monospace & html must be configured"));
        }
    },
};

pub(super) static OPSGENIE: Object = Object {
    name: "opsgenie.plain",
    fields: &[
        ("api_key", Type::Text),
        ("api_key_file", Type::Text),
        ("api_url", HTTP_URL),
        ("message", Type::Text),
        ("description", Type::Text),
        ("source", Type::Text),
        ("details", TEXT_MAP),
        ("entity", Type::Text),
        ("responders", Type::List(&Type::Object(&OPSGENIE_RESPONDER))),
        ("actions", Type::Text),
        ("tags", Type::Text),
        ("note", Type::Text),
        ("priority", Type::Text),
        ("update_alerts", Type::Bool),
    ],
    inline: &[&CLIENT],
    check: |section, problems| at_most_one(section, "api_key", "api_key_file", problems),
};

static OPSGENIE_RESPONDER: Object = Object {
    name: "opsgenie.OpsGenieConfigResponder",
    fields: &[("id", Type::Text), ("name", Type::Text), ("username", Type::Text), ("type", Type::Text)],
    inline: &[],
    check: check_responder,
};

pub(super) static SNS: Object = Object {
    name: "sns.plain",
    fields: &[
        ("api_url", Type::Text),
        ("sigv4", Type::Object(&SIGV4)),
        ("topic_arn", Type::Text),
        ("phone_number", Type::Text),
        ("target_arn", Type::Text),
        ("subject", Type::Text),
        ("message", Type::Text),
        ("attributes", TEXT_MAP),
        ("use_aws_http_client", Type::Bool),
    ],
    inline: &[&CLIENT],
    check: |section, problems| {
        if section.count_filled(&["target_arn", "topic_arn", "phone_number"]) != 1 {
            let message = "must provide either a Target ARN, Topic ARN, or Phone Number for SNS config";
            problems.push(Problem::at(section.node, message));
        }
    },
};

static SIGV4: Object = Object {
    name: "sigv4.plain",
    fields: &[
        ("region", Type::Text),
        ("access_key", Type::Text),
        ("secret_key", Type::Text),
        ("profile", Type::Text),
        ("role_arn", Type::Text),
        ("external_id", Type::Text),
        ("use_fips_sts_endpoint", Type::Bool),
    ],
    inline: &[],
    check: |section, problems| {
        if section.count_filled(&["access_key", "secret_key"]) == 1 {
            let message = "must provide a AWS SigV4 Access key and Secret Key if credentials are specified in the SigV4 config";
            problems.push(section.problem("access_key", message));
        }
    },
};

pub(super) static JIRA: Object = Object {
    name: "jira.plain",
    fields: &[
        ("api_url", HTTP_URL),
        ("api_type", Type::Checked(jira_api_type)),
        ("project", Type::Text),
        ("summary", Type::Or(&Type::Text, &JIRA_FIELD)),
        ("description", Type::Or(&Type::Text, &JIRA_FIELD)),
        ("labels", Type::Or(&TEXTS, &JIRA_LABELS)),
        ("priority", Type::Text),
        ("issue_type", Type::Text),
        ("reopen_transition", Type::Text),
        ("resolve_transition", Type::Text),
        ("wont_fix_resolution", Type::Text),
        ("reopen_duration", DURATION),
        ("fields", Type::Map(&Type::Any)),
    ],
    inline: &[&CLIENT],
    check: |section, problems| {
        for field in ["project", "issue_type"] {
            if !section.filled(field) {
                problems.push(section.problem(field, format!("missing {field} in jira_config")));
            }
        }
    },
};

static JIRA_FIELD: Object = Object {
    name: "jira.plain",
    fields: &[("template", Type::Text), ("enable_update", Type::Bool)],
    inline: &[],
    check: no_check,
};

static JIRA_LABELS: Object = Object {
    name: "jira.plain",
    fields: &[
        ("values", TEXTS),
        ("enable_update", Type::Bool),
        ("update_mode", Type::Checked(jira_update_mode)),
    ],
    inline: &[],
    check: no_check,
};

fn check_incidentio(section: &Section<'_>, problems: &mut Vec<Problem>) {
    exactly_one(section, "url", "url_file", problems);
    at_most_one(section, "alert_source_token", "alert_source_token_file", problems);
    let has_token = section.count_filled(&["alert_source_token", "alert_source_token_file"]) > 0;
    let message = if has_token && authorizes(section) {
        "cannot specify alert_source_token or alert_source_token_file when using http_config.authorization"
    } else if section.has("http_config") && !has_token && !authorizes(section) {
        "at least one of alert_source_token, alert_source_token_file or http_config.authorization must be configured"
    } else {
        return;
    };
    problems.push(section.problem("alert_source_token", message));
}

fn check_email(section: &Section<'_>, problems: &mut Vec<Problem>) {
    if !section.filled("to") {
        problems.push(section.problem("to", "missing to address in email config"));
    }
    let headers: Vec<String> =
        section.pairs("headers").iter().map(|(name, _)| canonical_header(name)).collect();
    for (i, header) in headers.iter().enumerate() {
        if headers[..i].contains(header) {
            let message = format!("duplicate header {header:?} in email config");
            problems.push(section.problem("headers", message));
        }
    }
    let Some(threading) = section.section("threading").filter(|t| t.bool("enabled", false)) else { return };
    for reserved in ["References", "In-Reply-To"] {
        if headers.iter().any(|header| header == reserved) {
            let message = format!(
                "conflicting configuration: threading.enabled conflicts with custom {reserved} header"
            );
            problems.push(section.problem("headers", message));
        }
    }
    if !matches!(threading.text("thread_by_date"), Some("none" | "daily")) {
        let message = "threading.thread_by_date must be either 'none' or 'daily'";
        problems.push(threading.problem("thread_by_date", message));
    }
}

/// `in-reply-to` as `In-Reply-To`.
fn canonical_header(name: &str) -> String {
    let mut starts_word = true;
    let letters = name.chars().map(|c| {
        let letter = if starts_word { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        starts_word = c == '-';
        letter
    });
    letters.collect()
}

fn check_victorops(section: &Section<'_>, problems: &mut Vec<Problem>) {
    const RESERVED: [&str; 7] = [
        "routing_key",
        "message_type",
        "state_message",
        "entity_display_name",
        "monitoring_tool",
        "entity_id",
        "entity_state",
    ];
    if !section.filled("routing_key") {
        problems.push(section.problem("routing_key", "missing Routing key in VictorOps config"));
    }
    at_most_one(section, "api_key", "api_key_file", problems);
    for (name, _) in section.pairs("custom_fields").into_iter().filter(|(name, _)| RESERVED.contains(name)) {
        let message = format!(
            "victorOps config contains custom field {name} which cannot be used as it conflicts with the fixed/static fields"
        );
        problems.push(section.problem("custom_fields", message));
    }
}

fn check_responder(section: &Section<'_>, problems: &mut Vec<Problem>) {
    let [id, name, username, kind] = ["id", "name", "username", "type"].map(|field| section.string(field));
    let shown = format!("{{{id} {name} {username} {kind}}}");
    if section.count_filled(&["id", "name", "username"]) == 0 {
        let message = format!(
            "opsGenieConfig responder {shown} has to have at least one of id, username or name specified"
        );
        problems.push(Problem::at(section.node, message));
    }
    let is_known =
        matches!(kind.to_lowercase().as_str(), "team" | "teams" | "user" | "escalation" | "schedule");
    if !is_known && !kind.contains("{{") {
        let message = format!(
            "opsGenieConfig responder {shown} type does not match valid options ^(team|teams|user|escalation|schedule)$"
        );
        problems.push(section.problem("type", message));
    }
}

fn jira_api_type(text: &str) -> Result<(), String> {
    match text {
        "auto" | "cloud" | "datacenter" => Ok(()),
        _ => Err("unknown api_type on jira_config, must be auto, cloud or datacenter".to_owned()),
    }
}

fn jira_update_mode(text: &str) -> Result<(), String> {
    match text {
        "" | "replace" | "merge" => Ok(()),
        _ => Err("unknown labels.update_mode, must be replace or merge".to_owned()),
    }
}
