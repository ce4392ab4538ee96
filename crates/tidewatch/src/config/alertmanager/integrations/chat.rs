//! Integrations that write into a conversation.

use super::super::super::schema::{Object, Problem, Section, Type, no_check};
use super::super::super::types::TEXTS;
use super::super::scalars::{GO_DURATION, HTTP_URL};
use super::super::tables::at_most_one;
use super::{CLIENT, authorizes, exactly_one};

pub(super) static DISCORD: Object = Object {
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

pub(super) static MSTEAMS: Object = Object {
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

pub(super) static MSTEAMSV2: Object = Object {
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

pub(super) static SLACK: Object = Object {
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

pub(super) static WECHAT: Object = Object {
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

pub(super) static TELEGRAM: Object = Object {
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

pub(super) static WEBEX: Object = Object {
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

pub(super) static ROCKETCHAT: Object = Object {
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

pub(super) static MATTERMOST: Object = Object {
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

fn require_each(section: &Section<'_>, fields: &[&str], what: &str, problems: &mut Vec<Problem>) {
    for field in fields.iter().filter(|field| !section.filled(field)) {
        problems.push(section.problem(field, format!("missing {field} in {what} configuration")));
    }
}

fn check_webhook_url(section: &Section<'_>, problems: &mut Vec<Problem>) {
    exactly_one(section, "webhook_url", "webhook_url_file", problems);
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

fn telegram_parse_mode(text: &str) -> Result<(), String> {
    match text {
        "" | "Markdown" | "MarkdownV2" | "HTML" => Ok(()),
        _ => Err("unknown parse_mode on telegram_config, must be Markdown, MarkdownV2, HTML or empty string"
            .to_owned()),
    }
}
