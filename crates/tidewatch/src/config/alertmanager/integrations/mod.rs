//! The ways to tell a receiver: one table for each kind of integration.

mod chat;
mod paging;

use super::super::http::HTTP_CLIENT;
use super::super::schema::{Object, Problem, Section, Type, no_check};
use super::super::types::TEXT_MAP;
use super::tables::at_most_one;
use chat::{DISCORD, MATTERMOST, MSTEAMS, MSTEAMSV2, ROCKETCHAT, SLACK, TELEGRAM, WEBEX, WECHAT};
use paging::{EMAIL, INCIDENTIO, JIRA, OPSGENIE, PAGERDUTY, PUSHOVER, SNS, VICTOROPS, WEBHOOK};

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

fn exactly_one(section: &Section<'_>, one: &str, other: &str, problems: &mut Vec<Problem>) {
    if section.count_filled(&[one, other]) == 0 {
        problems.push(section.problem(one, format!("one of {one} or {other} must be configured")));
    }
    at_most_one(section, one, other, problems);
}

/// Whether the section's own client sends an `Authorization`.
pub(super) fn authorizes(section: &Section<'_>) -> bool {
    let client = section.section("http_config");
    client.is_some_and(|client| {
        ["authorization", "bearer_token", "bearer_token_file"].iter().any(|field| client.has(field))
    })
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
