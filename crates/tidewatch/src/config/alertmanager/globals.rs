//! What integrations take from `global`.

use std::sync::Arc;

use tidewatch_yaml::{Entry, Kind as Shape, Node};

use super::super::schema::{Problem, Section};
use super::integrations::{Kind, authorizes};

/// Fields that an integration takes from `global` where it has none of them itself.
struct Inherited {
    /// Each field with the global one that stands for it.
    fields: &'static [(&'static str, &'static str)],
    /// Why the integration is refused when neither has one; empty where that is fine.
    missing: &'static str,
}

/// The same for one field that may stay away.
const fn optional(fields: &'static [(&'static str, &'static str)]) -> Inherited {
    Inherited { fields, missing: "" }
}

const EMAIL: &[Inherited] = &[
    Inherited { fields: &[("smarthost", "smtp_smarthost")], missing: "no global SMTP smarthost set" },
    Inherited { fields: &[("from", "smtp_from")], missing: "no global SMTP from set" },
    optional(&[("hello", "smtp_hello")]),
    optional(&[("auth_username", "smtp_auth_username")]),
    optional(&[("auth_password", "smtp_auth_password"), ("auth_password_file", "smtp_auth_password_file")]),
    optional(&[("auth_secret", "smtp_auth_secret"), ("auth_secret_file", "smtp_auth_secret_file")]),
    optional(&[("auth_identity", "smtp_auth_identity")]),
    optional(&[("require_tls", "smtp_require_tls")]),
    optional(&[("force_implicit_tls", "smtp_force_implicit_tls")]),
    optional(&[("tls_config", "smtp_tls_config")]),
];

const OPSGENIE: &[Inherited] = &[
    optional(&[("api_url", "opsgenie_api_url")]),
    Inherited {
        fields: &[("api_key", "opsgenie_api_key"), ("api_key_file", "opsgenie_api_key_file")],
        missing: "no global OpsGenie API Key set either inline or in a file",
    },
];

const WECHAT: &[Inherited] = &[
    optional(&[("api_url", "wechat_api_url")]),
    Inherited {
        fields: &[("api_secret", "wechat_api_secret"), ("api_secret_file", "wechat_api_secret_file")],
        missing: "no global Wechat Api Secret set either inline or in a file",
    },
    Inherited { fields: &[("corp_id", "wechat_api_corp_id")], missing: "no global Wechat CorpID set" },
];

const VICTOROPS: &[Inherited] = &[
    optional(&[("api_url", "victorops_api_url")]),
    Inherited {
        fields: &[("api_key", "victorops_api_key"), ("api_key_file", "victorops_api_key_file")],
        missing: "no global VictorOps API Key set",
    },
];

const TELEGRAM: &[Inherited] = &[
    optional(&[("api_url", "telegram_api_url")]),
    Inherited {
        fields: &[("bot_token", "telegram_bot_token"), ("bot_token_file", "telegram_bot_token_file")],
        missing: "missing bot_token or bot_token_file on telegram_config",
    },
];

const ROCKETCHAT: &[Inherited] = &[
    optional(&[("api_url", "rocketchat_api_url")]),
    Inherited {
        fields: &[("token_id", "rocketchat_token_id"), ("token_id_file", "rocketchat_token_id_file")],
        missing: "no global Rocketchat TokenID set either inline or in a file",
    },
    Inherited {
        fields: &[("token", "rocketchat_token"), ("token_file", "rocketchat_token_file")],
        missing: "no global Rocketchat Token set either inline or in a file",
    },
];

const MATTERMOST: &[Inherited] = &[Inherited {
    fields: &[("webhook_url", "mattermost_webhook_url"), ("webhook_url_file", "mattermost_webhook_url_file")],
    missing: "missing webhook_url or webhook_url_file on mattermost_config",
}];

const SLACK_TOKEN: Inherited =
    optional(&[("app_token", "slack_app_token"), ("app_token_file", "slack_app_token_file")]);

const SLACK_URL: Inherited =
    optional(&[("api_url", "slack_api_url"), ("api_url_file", "slack_api_url_file")]);

/// Settings of `global` that hold although nobody wrote them.
const DEFAULTS: [(&str, &str); 10] = [
    ("smtp_hello", "localhost"),
    ("smtp_require_tls", "true"),
    ("pagerduty_url", "https://events.pagerduty.com/v2/enqueue"),
    ("opsgenie_api_url", "https://api.opsgenie.com/"),
    ("wechat_api_url", "https://qyapi.weixin.qq.com/cgi-bin/"),
    ("victorops_api_url", "https://alert.victorops.com/integrations/generic/20131114/alert/"),
    ("telegram_api_url", "https://api.telegram.org"),
    ("webex_api_url", "https://webexapis.com/v1/messages"),
    ("rocketchat_api_url", "https://open.rocket.chat/"),
    ("slack_app_url", "https://slack.com/api/chat.postMessage"),
];

const JIRA: &[Inherited] =
    &[Inherited { fields: &[("api_url", "jira_api_url")], missing: "no global Jira Cloud URL set" }];
const PAGERDUTY: &[Inherited] = &[optional(&[("url", "pagerduty_url")])];
const SLACK: &[Inherited] = &[optional(&[("app_url", "slack_app_url")])];
const WEBEX: &[Inherited] = &[optional(&[("api_url", "webex_api_url")])];

fn inherited(kind: Kind) -> &'static [Inherited] {
    match kind {
        Kind::Email => EMAIL,
        Kind::Jira => JIRA,
        Kind::Mattermost => MATTERMOST,
        Kind::Opsgenie => OPSGENIE,
        Kind::Pagerduty => PAGERDUTY,
        Kind::Rocketchat => ROCKETCHAT,
        Kind::Slack => SLACK,
        Kind::Telegram => TELEGRAM,
        Kind::Victorops => VICTOROPS,
        Kind::Webex => WEBEX,
        Kind::Wechat => WECHAT,
        Kind::Discord
        | Kind::Incidentio
        | Kind::Msteams
        | Kind::Msteamsv2
        | Kind::Pushover
        | Kind::Sns
        | Kind::Webhook => &[],
    }
}

/// The section with what it takes from `global`, or what both lack.
pub(super) fn complete(kind: Kind, section: &Section<'_>, global: &Section<'_>) -> Result<Node, Problem> {
    let mut fields = Fields::of(section, global);
    for wanted in inherited(kind) {
        if !fields.inherit(wanted) && !wanted.missing.is_empty() {
            return Err(Problem::at(section.node, wanted.missing));
        }
    }
    if kind == Kind::Slack {
        complete_slack(&mut fields)?;
    }
    Ok(fields.into_node())
}

/// A Slack webhook and a Slack app exclude each other, so that a section with the one does not
/// take the other from `global`.
fn complete_slack(fields: &mut Fields<'_>) -> Result<(), Problem> {
    let section = fields.section;
    let problem = |message| Err(Problem::at(section.node, message));
    if !authorizes(&section) && !section.has("api_url") {
        fields.inherit(&SLACK_TOKEN);
    }
    fields.inherit(&SLACK_URL);
    let has_token = fields.has(&SLACK_TOKEN);
    if !has_token && !fields.has(&SLACK_URL) {
        return problem("no Slack API URL nor App token set either inline or in a file");
    }
    let client = if section.has("http_config") { section } else { fields.global };
    if has_token && authorizes(&client) {
        return problem("http authorization can't be set when using Slack App tokens");
    }
    Ok(())
}

/// A section's fields while they are completed.
struct Fields<'a> {
    section: Section<'a>,
    global: Section<'a>,
    entries: Vec<Entry>,
}

impl<'a> Fields<'a> {
    fn of(section: &Section<'a>, global: &Section<'a>) -> Fields<'a> {
        let entries = match &section.node.kind {
            Shape::Map(entries) => entries.clone(),
            _ => Vec::new(),
        };
        Fields { section: *section, global: *global, entries }
    }

    fn has(&self, wanted: &Inherited) -> bool {
        let named = |name: &str| self.entries.iter().find(|(key, _)| key.text() == Some(name));
        wanted.fields.iter().any(|(field, _)| {
            named(field).is_some_and(|(_, value)| value.text() != Some("") && !value.is_null())
        })
    }

    /// Takes the fields from `global` unless one is there; says whether one is there now.
    fn inherit(&mut self, wanted: &Inherited) -> bool {
        if !self.has(wanted) {
            for (field, global) in wanted.fields {
                if let Some(value) = self.global_value(global) {
                    self.entries.retain(|(key, _)| key.text() != Some(field));
                    self.entries.push((Arc::new(value.with_text(field)), Arc::new(value)));
                }
            }
        }
        self.has(wanted)
    }

    fn global_value(&self, name: &str) -> Option<Node> {
        let written = self.global.field(name).cloned();
        let default = DEFAULTS.iter().find(|(default, _)| *default == name);
        written.or_else(|| default.map(|(_, text)| self.section.node.with_text(text)))
    }

    fn into_node(self) -> Node {
        let Node { line, column, .. } = *self.section.node;
        Node { kind: Shape::Map(self.entries), line, column }
    }
}
