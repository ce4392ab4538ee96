//! The ways to tell a receiver: one table for each kind of integration.

use super::super::http::{HTTP_CLIENT, TLS};
use super::super::schema::{Object, Problem, Section, Type, no_check};
use super::super::types::{DURATION, TEXT_MAP, TEXTS};
use super::scalars::{GO_DURATION, HOST_PORT, HTTP_URL, TEMPLATE_URL};
use super::tables::at_most_one;

/// What an integration speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Discord,
    Email,
    Incidentio,
    Jira,
    Mattermost,
    Msteams,
    Msteamsv2,
    Opsgenie,
    Pagerduty,
    Pushover,
    Rocketchat,
    Slack,
    Sns,
    Telegram,
    Victorops,
    Webex,
    Webhook,
    Wechat,
}

impl Kind {
    /// In the order in which Alertmanager looks at a receiver's lists.
    pub(super) const ALL: [Kind; 18] = [
        Kind::Webhook,
        Kind::Email,
        Kind::Slack,
        Kind::Pushover,
        Kind::Pagerduty,
        Kind::Incidentio,
        Kind::Opsgenie,
        Kind::Wechat,
        Kind::Victorops,
        Kind::Sns,
        Kind::Telegram,
        Kind::Discord,
        Kind::Webex,
        Kind::Msteams,
        Kind::Msteamsv2,
        Kind::Jira,
        Kind::Rocketchat,
        Kind::Mattermost,
    ];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        self.field().strip_suffix("_configs").expect("every list is named so")
    }

    /// The receiver's field that lists integrations of this kind.
    pub(super) fn field(self) -> &'static str {
        match self {
            Kind::Discord => "discord_configs",
            Kind::Email => "email_configs",
            Kind::Incidentio => "incidentio_configs",
            Kind::Jira => "jira_configs",
            Kind::Mattermost => "mattermost_configs",
            Kind::Msteams => "msteams_configs",
            Kind::Msteamsv2 => "msteamsv2_configs",
            Kind::Opsgenie => "opsgenie_configs",
            Kind::Pagerduty => "pagerduty_configs",
            Kind::Pushover => "pushover_configs",
            Kind::Rocketchat => "rocketchat_configs",
            Kind::Slack => "slack_configs",
            Kind::Sns => "sns_configs",
            Kind::Telegram => "telegram_configs",
            Kind::Victorops => "victorops_configs",
            Kind::Webex => "webex_configs",
            Kind::Webhook => "webhook_configs",
            Kind::Wechat => "wechat_configs",
        }
    }

    /// Whether the end of an alert is told unless the file says otherwise.
    pub(super) fn sends_resolved(self) -> bool {
        !matches!(self, Kind::Email | Kind::Slack | Kind::Rocketchat | Kind::Wechat)
    }
}

pub(super) static RECEIVER: Object = Object {
    name: "config.plain",
    fields: &[
        ("name", Type::Text),
        ("labels", TEXT_MAP),
        ("discord_configs", Type::Items(&Type::Object(&DISCORD), "missing discord config")),
        ("email_configs", Type::Items(&Type::Object(&EMAIL), "missing email config")),
        ("incidentio_configs", Type::Items(&Type::Object(&INCIDENTIO), "missing incidentio config")),
        ("jira_configs", Type::Items(&Type::Object(&JIRA), "missing jira config")),
        ("mattermost_configs", Type::Items(&Type::Object(&MATTERMOST), "missing mattermost config")),
        ("msteams_configs", Type::Items(&Type::Object(&MSTEAMS), "missing msteams config")),
        ("msteamsv2_configs", Type::Items(&Type::Object(&MSTEAMSV2), "missing msteamsv2 config")),
        ("pagerduty_configs", Type::Items(&Type::Object(&PAGERDUTY), "missing pagerduty config")),
        ("pushover_configs", Type::Items(&Type::Object(&PUSHOVER), "missing pushover config")),
        ("sns_configs", Type::Items(&Type::Object(&SNS), "missing sns config")),
        ("telegram_configs", Type::Items(&Type::Object(&TELEGRAM), "missing telegram config")),
        ("victorops_configs", Type::Items(&Type::Object(&VICTOROPS), "missing victorops config")),
        ("webex_configs", Type::Items(&Type::Object(&WEBEX), "missing webex config")),
        ("webhook_configs", Type::Items(&Type::Object(&WEBHOOK), "missing webhook config")),
        // An empty item of these takes everything from `global`.
        ("opsgenie_configs", Type::List(&Type::Object(&OPSGENIE))),
        ("rocketchat_configs", Type::List(&Type::Object(&ROCKETCHAT))),
        ("slack_configs", Type::List(&Type::Object(&SLACK))),
        ("wechat_configs", Type::List(&Type::Object(&WECHAT))),
    ],
    inline: &[],
    check: |section, problems| {
        if !section.filled("name") {
            problems.push(section.problem("name", "missing name in receiver"));
        }
    },
};

/// What every integration but email has.
static CLIENT: Object = Object {
    name: "config.NotifierConfig",
    fields: &[("http_config", Type::Object(&HTTP_CLIENT))],
    inline: &[&NOTIFIER],
    check: no_check,
};

static NOTIFIER: Object = Object {
    name: "config.NotifierConfig",
    fields: &[("send_resolved", Type::Bool)],
    inline: &[],
    check: no_check,
};

static DISCORD: Object = Object {
    name: "discord.plain",
    fields: &[
        ("webhook_url", HTTP_URL),
        ("webhook_url_file", Type::Text),
        ("content", Type::Text),
        ("title", Type::Text),
        ("message", Type::Text),
        ("username", Type::Text),
        ("avatar_url", Type::Text),
    ],
    inline: &[&CLIENT],
    check: check_webhook_url,
};

static MSTEAMS: Object = Object {
    name: "msteams.plain",
    fields: &[
        ("webhook_url", HTTP_URL),
        ("webhook_url_file", Type::Text),
        ("title", Type::Text),
        ("summary", Type::Text),
        ("text", Type::Text),
    ],
    inline: &[&CLIENT],
    check: check_webhook_url,
};

static MSTEAMSV2: Object = Object {
    name: "msteamsv2.plain",
    fields: &[
        ("webhook_url", HTTP_URL),
        ("webhook_url_file", Type::Text),
        ("title", Type::Text),
        ("text", Type::Text),
    ],
    inline: &[&CLIENT],
    check: check_webhook_url,
};

static WEBHOOK: Object = Object {
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

static INCIDENTIO: Object = Object {
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

static EMAIL: Object = Object {
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

static PAGERDUTY: Object = Object {
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

static SLACK: Object = Object {
    name: "slack.plain",
    fields: &[
        ("api_url", HTTP_URL),
        ("api_url_file", Type::Text),
        ("app_token", Type::Text),
        ("app_token_file", Type::Text),
        ("app_url", HTTP_URL),
        ("channel", Type::Text),
        ("username", Type::Text),
        ("color", Type::Text),
        ("title", Type::Text),
        ("title_link", Type::Text),
        ("pretext", Type::Text),
        ("text", Type::Text),
        ("message_text", Type::Text),
        ("fields", Type::List(&Type::Object(&SLACK_FIELD))),
        ("short_fields", Type::Bool),
        ("footer", Type::Text),
        ("fallback", Type::Text),
        ("callback_id", Type::Text),
        ("icon_emoji", Type::Text),
        ("icon_url", Type::Text),
        ("image_url", Type::Text),
        ("thumb_url", Type::Text),
        ("link_names", Type::Bool),
        ("mrkdwn_in", TEXTS),
        ("actions", Type::List(&Type::Object(&SLACK_ACTION))),
        ("update_message", Type::Bool),
        ("timeout", GO_DURATION),
    ],
    inline: &[&CLIENT],
    check: check_slack,
};

static SLACK_FIELD: Object = Object {
    name: "slack.plain",
    fields: &[("title", Type::Text), ("value", Type::Text), ("short", Type::Bool)],
    inline: &[],
    check: |section, problems| require_each(section, &["title", "value"], "Slack field", problems),
};

static SLACK_ACTION: Object = Object {
    name: "slack.plain",
    fields: &[
        ("type", Type::Text),
        ("text", Type::Text),
        ("url", Type::Text),
        ("style", Type::Text),
        ("name", Type::Text),
        ("value", Type::Text),
        ("confirm", Type::Object(&SLACK_CONFIRMATION)),
    ],
    inline: &[],
    check: |section, problems| {
        require_each(section, &["type", "text"], "Slack action", problems);
        if section.count_filled(&["url", "name"]) == 0 {
            problems.push(section.problem("url", "missing name or url in Slack action configuration"));
        }
    },
};

static SLACK_CONFIRMATION: Object = Object {
    name: "slack.plain",
    fields: &[
        ("text", Type::Text),
        ("title", Type::Text),
        ("ok_text", Type::Text),
        ("dismiss_text", Type::Text),
    ],
    inline: &[],
    check: |section, problems| {
        // Absent reads as an empty section here, and that is fine.
        if !section.node.is_null() {
            require_each(section, &["text"], "Slack confirmation", problems);
        }
    },
};

static WECHAT: Object = Object {
    name: "wechat.plain",
    fields: &[
        ("api_secret", Type::Text),
        ("api_secret_file", Type::Text),
        ("corp_id", Type::Text),
        ("message", Type::Text),
        ("api_url", HTTP_URL),
        ("to_user", Type::Text),
        ("to_party", Type::Text),
        ("to_tag", Type::Text),
        ("agent_id", Type::Text),
        ("message_type", Type::Checked(wechat_message_type)),
    ],
    inline: &[&CLIENT],
    check: |section, problems| at_most_one(section, "api_secret", "api_secret_file", problems),
};

static VICTOROPS: Object = Object {
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

static PUSHOVER: Object = Object {
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

static OPSGENIE: Object = Object {
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

static SNS: Object = Object {
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

static TELEGRAM: Object = Object {
    name: "telegram.plain",
    fields: &[
        ("api_url", HTTP_URL),
        ("bot_token", Type::Text),
        ("bot_token_file", Type::Text),
        ("chat_id", Type::Int),
        ("chat_id_file", Type::Text),
        ("message_thread_id", Type::Int),
        ("message", Type::Text),
        ("disable_notifications", Type::Bool),
        ("parse_mode", Type::Checked(telegram_parse_mode)),
    ],
    inline: &[&CLIENT],
    check: |section, problems| {
        at_most_one(section, "bot_token", "bot_token_file", problems);
        at_most_one(section, "chat_id", "chat_id_file", problems);
        if section.number::<i64>("chat_id").unwrap_or(0) == 0 && !section.filled("chat_id_file") {
            let message = "missing chat_id or chat_id_file on telegram_config";
            problems.push(section.problem("chat_id", message));
        }
    },
};

static WEBEX: Object = Object {
    name: "webex.plain",
    fields: &[("api_url", HTTP_URL), ("message", Type::Text), ("room_id", Type::Text)],
    inline: &[&CLIENT],
    check: |section, problems| {
        if !section.filled("room_id") {
            problems.push(section.problem("room_id", "missing room_id on webex_config"));
        }
        if !authorizes(section) {
            let message = "missing webex_configs.http_config.authorization";
            problems.push(section.problem("http_config", message));
        }
    },
};

static JIRA: Object = Object {
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

static ROCKETCHAT: Object = Object {
    name: "rocketchat.plain",
    fields: &[
        ("api_url", HTTP_URL),
        ("token_id", Type::Text),
        ("token_id_file", Type::Text),
        ("token", Type::Text),
        ("token_file", Type::Text),
        ("channel", Type::Text),
        ("color", Type::Text),
        ("title", Type::Text),
        ("title_link", Type::Text),
        ("text", Type::Text),
        ("fields", Type::List(&Type::Object(&ROCKETCHAT_FIELD))),
        ("short_fields", Type::Bool),
        ("emoji", Type::Text),
        ("icon_url", Type::Text),
        ("image_url", Type::Text),
        ("thumb_url", Type::Text),
        ("link_names", Type::Bool),
        ("actions", Type::List(&Type::Object(&ROCKETCHAT_ACTION))),
    ],
    inline: &[&CLIENT],
    check: |section, problems| {
        at_most_one(section, "token", "token_file", problems);
        at_most_one(section, "token_id", "token_id_file", problems);
    },
};

static ROCKETCHAT_FIELD: Object = Object {
    name: "rocketchat.RocketchatAttachmentField",
    fields: &[("short", Type::Bool), ("title", Type::Text), ("value", Type::Text)],
    inline: &[],
    check: no_check,
};

/// Alertmanager names these fields by its own lower-cased identifiers, without underscores.
static ROCKETCHAT_ACTION: Object = Object {
    name: "rocketchat.RocketchatAttachmentAction",
    fields: &[
        ("type", Type::Text),
        ("text", Type::Text),
        ("url", Type::Text),
        ("imageurl", Type::Text),
        ("iswebview", Type::Bool),
        ("webviewheightratio", Type::Text),
        ("msg", Type::Text),
        ("msginchatwindow", Type::Bool),
        ("msgprocessingtype", Type::Text),
    ],
    inline: &[],
    check: no_check,
};

static MATTERMOST: Object = Object {
    name: "mattermost.plain",
    fields: &[
        ("webhook_url", HTTP_URL),
        ("webhook_url_file", Type::Text),
        ("channel", Type::Text),
        ("username", Type::Text),
        ("icon_url", Type::Text),
        ("icon_emoji", Type::Text),
        ("attachments", Type::List(&Type::Object(&MATTERMOST_ATTACHMENT))),
        ("type", Type::Text),
        ("props", Type::Object(&MATTERMOST_PROPS)),
        ("priority", Type::Object(&MATTERMOST_PRIORITY)),
    ],
    inline: &[&CLIENT, &MATTERMOST_ATTACHMENT],
    check: |section, problems| at_most_one(section, "webhook_url", "webhook_url_file", problems),
};

static MATTERMOST_ATTACHMENT: Object = Object {
    name: "mattermost.MattermostAttachment",
    fields: &[
        ("fallback", Type::Text),
        ("color", Type::Text),
        ("pretext", Type::Text),
        ("text", Type::Text),
        ("author_name", Type::Text),
        ("author_link", Type::Text),
        ("author_icon", Type::Text),
        ("title", Type::Text),
        ("title_link", Type::Text),
        ("fields", Type::List(&Type::Object(&MATTERMOST_FIELD))),
        ("thumb_url", Type::Text),
        ("footer", Type::Text),
        ("footer_icon", Type::Text),
        ("image_url", Type::Text),
    ],
    inline: &[],
    check: no_check,
};

static MATTERMOST_FIELD: Object = Object {
    name: "mattermost.plain",
    fields: &[("title", Type::Text), ("value", Type::Text), ("short", Type::Bool)],
    inline: &[],
    check: |section, problems| require_each(section, &["title", "value"], "Mattermost field", problems),
};

static MATTERMOST_PROPS: Object = Object {
    name: "mattermost.MattermostProps",
    fields: &[("card", Type::Text)],
    inline: &[],
    check: no_check,
};

static MATTERMOST_PRIORITY: Object = Object {
    name: "mattermost.MattermostPriority",
    fields: &[
        ("priority", Type::Text),
        ("requested_ack", Type::Bool),
        ("persistent_notifications", Type::Bool),
    ],
    inline: &[],
    check: no_check,
};

fn exactly_one(section: &Section<'_>, one: &str, other: &str, problems: &mut Vec<Problem>) {
    if section.count_filled(&[one, other]) == 0 {
        problems.push(section.problem(one, format!("one of {one} or {other} must be configured")));
    }
    at_most_one(section, one, other, problems);
}

fn require_each(section: &Section<'_>, fields: &[&str], what: &str, problems: &mut Vec<Problem>) {
    for field in fields.iter().filter(|field| !section.filled(field)) {
        problems.push(section.problem(field, format!("missing {field} in {what} configuration")));
    }
}

fn check_webhook_url(section: &Section<'_>, problems: &mut Vec<Problem>) {
    exactly_one(section, "webhook_url", "webhook_url_file", problems);
}

/// Whether the section's own client sends an `Authorization`.
pub(super) fn authorizes(section: &Section<'_>) -> bool {
    let client = section.section("http_config");
    client.is_some_and(|client| {
        ["authorization", "bearer_token", "bearer_token_file"].iter().any(|field| client.has(field))
    })
}

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

fn check_slack(section: &Section<'_>, problems: &mut Vec<Problem>) {
    at_most_one(section, "api_url", "api_url_file", problems);
    at_most_one(section, "app_token", "app_token_file", problems);
    let has_url = section.count_filled(&["api_url", "api_url_file"]) > 0;
    if has_url && section.count_filled(&["app_token", "app_token_file"]) > 0 {
        let message = "at most one of api_url/api_url_file & app_token/app_token_file must be configured";
        problems.push(section.problem("app_token", message));
    }
    if section.bool("update_message", false)
        && section.text("api_url") != Some("https://slack.com/api/chat.postMessage")
    {
        let message = "update_message can only be used with bot tokens. api_url must be set to https://slack.com/api/chat.postMessage";
        problems.push(section.problem("update_message", message));
    }
}

fn wechat_message_type(text: &str) -> Result<(), String> {
    match text {
        "" | "text" | "markdown" => Ok(()),
        _ => Err(format!("weChat message type {text:?} does not match valid options ^(text|markdown)$")),
    }
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

fn telegram_parse_mode(text: &str) -> Result<(), String> {
    match text {
        "" | "Markdown" | "MarkdownV2" | "HTML" => Ok(()),
        _ => Err("unknown parse_mode on telegram_config, must be Markdown, MarkdownV2, HTML or empty string"
            .to_owned()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_list_in_a_receiver_and_every_list_its_kind() {
        let mut lists: Vec<&str> = RECEIVER.fields.iter().map(|(name, _)| *name).collect();
        lists.retain(|name| name.ends_with("_configs"));
        let mut kinds = Kind::ALL.map(Kind::field);
        lists.sort_unstable();
        kinds.sort_unstable();
        assert_eq!(lists, kinds);
    }
}
