//! A configuration as YAML again, with secrets left out, for those who may read but not know.
//!
//! The text is printed from the tree and not cut from the file: a mask over byte ranges would
//! miss a secret the moment a scalar's range is off by one.

use tidewatch_yaml::{Kind, Node, Style};

/// Keys whose value is a secret, wherever they stand.
const SECRET_KEYS: [&str; 20] = [
    "password",
    "credentials",
    "bearer_token",
    "client_secret",
    "client_certificate_key",
    "secret_key",
    "secrets",
    "token",
    "auth_token",
    "private_key",
    "service_account_key",
    "key_passphrase",
    "application_secret",
    "consumer_key",
    "application_credential_secret",
    "sas_token",
    "api_key",
    "service_key",
    "key",
    "proxy_connect_header",
];

/// The same in `alertmanager.yml`, where an address often is the secret: beside those above.
pub(super) const ALERTMANAGER_KEYS: [&str; 23] = [
    "alert_source_token",
    "api_secret",
    "api_url",
    "app_token",
    "auth_password",
    "auth_secret",
    "bot_token",
    "mattermost_webhook_url",
    "opsgenie_api_key",
    "rocketchat_token",
    "rocketchat_token_id",
    "routing_key",
    "slack_api_url",
    "slack_app_token",
    "smtp_auth_password",
    "smtp_auth_secret",
    "telegram_bot_token",
    "token_id",
    "url",
    "user_key",
    "victorops_api_key",
    "webhook_url",
    "wechat_api_secret",
];

/// Prints a document, each secret as `<secret>`. `more` names keys of secrets beside those that
/// every document has.
pub(super) fn masked(node: &Node, more: &[&str]) -> String {
    if node.is_null() {
        return "{}\n".to_owned();
    }
    let mut printer = Printer { more, out: String::new() };
    printer.print(node, 0, false);
    printer.out
}

struct Printer<'k> {
    more: &'k [&'k str],
    out: String,
}

impl Printer<'_> {
    /// Prints a value at `indent`. Collections begin on a line of their own; depth is bounded by
    /// the reader of the tree.
    fn print(&mut self, node: &Node, indent: usize, secret: bool) {
        match &node.kind {
            Kind::Scalar { .. } if secret && !node.is_null() => self.out.push_str("<secret>\n"),
            Kind::Scalar { text, style, .. } => {
                self.out.push_str(&scalar(text, *style == Style::Plain));
                self.out.push('\n');
            }
            Kind::List(items) if items.is_empty() => self.out.push_str("[]\n"),
            Kind::Map(entries) if entries.is_empty() => self.out.push_str("{}\n"),
            Kind::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    pad(indent, i == 0, &mut self.out);
                    self.out.push_str("- ");
                    self.print(item, indent + 2, secret);
                }
            }
            Kind::Map(entries) => {
                for (i, (key, value)) in entries.iter().enumerate() {
                    pad(indent, i == 0, &mut self.out);
                    self.entry(key, value, indent, secret);
                }
            }
        }
    }

    fn entry(&mut self, key: &Node, value: &Node, indent: usize, secret: bool) {
        let name = key.text().unwrap_or_default();
        self.out.push_str(&scalar(name, true));
        self.out.push(':');
        let nested = match &value.kind {
            Kind::List(items) => !items.is_empty(),
            Kind::Map(entries) => !entries.is_empty(),
            Kind::Scalar { .. } => false,
        };
        if nested {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent + 2));
        } else {
            self.out.push(' ');
        }
        self.print(value, indent + 2, secret || SECRET_KEYS.contains(&name) || self.more.contains(&name));
    }
}

/// The first entry stands where its parent left the line.
fn pad(indent: usize, first: bool, out: &mut String) {
    if !first {
        out.extend(std::iter::repeat_n(' ', indent));
    }
}

fn scalar(text: &str, plain: bool) -> String {
    let text = without_password(text);
    let simple = !text.is_empty()
        && !text.starts_with(|c: char| " -?:,[]{}#&*!|>'\"%@`".contains(c))
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(|c| !c.is_control());
    if plain && (simple || text.is_empty()) { text } else { format!("{text:?}") }
}

/// A URL without the password in it.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
        Some((user, host)) => format!("{scheme}://{user}:xxxxx@{host}{}", &rest[authority.len()..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewatch_yaml::parse;

    #[test]
    fn secrets_do_not_show_and_the_rest_reads_back() {
        let text = "a:\n- basic_auth: {username: u, password: 'p: w'}\n  x: \"1\"\n- http_headers: {H: {secrets: [s1, s2]}}\n\
                    url: http://me:pw@host/x\nempty: []\nnested: {b: [[1, 2], {c: d}]}\n";
        let tree = parse(text).expect("valid");
        let printed = masked(&tree, &[]);
        assert_eq!(
            printed,
            "a:\n  - basic_auth:\n      username: u\n      password: <secret>\n    x: \"1\"\n  - http_headers:\n      H:\n        \
             secrets:\n          - <secret>\n          - <secret>\nurl: http://me:xxxxx@host/x\nempty: []\n\
             nested:\n  b:\n    - - 1\n      - 2\n    - c: d\n"
        );
        assert!(parse(&printed).is_ok());
    }
}
