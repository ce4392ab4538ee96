//! A configuration as YAML again, with secrets left out, for those who may read but not know.
//!
//! The text is printed from the tree and not cut from the file: a mask over byte ranges would
//! miss a secret the moment a scalar's range is off by one.

use super::yaml::{Kind, Node};

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

/// Prints a document, each secret as `<secret>`.
pub(super) fn masked(node: &Node) -> String {
    let mut out = String::new();
    if node.is_null() {
        return "{}\n".to_owned();
    }
    print(node, 0, false, &mut out);
    out
}

/// Prints a value at `indent`. Collections begin on a line of their own; depth is bounded by the
/// reader of the tree.
fn print(node: &Node, indent: usize, secret: bool, out: &mut String) {
    match &node.kind {
        Kind::Scalar { .. } if secret && !node.is_null() => out.push_str("<secret>\n"),
        Kind::Scalar { text, plain } => {
            out.push_str(&scalar(text, *plain));
            out.push('\n');
        }
        Kind::List(items) if items.is_empty() => out.push_str("[]\n"),
        Kind::Map(entries) if entries.is_empty() => out.push_str("{}\n"),
        Kind::List(items) => {
            for (i, item) in items.iter().enumerate() {
                pad(indent, i == 0, out);
                out.push_str("- ");
                print(item, indent + 2, secret, out);
            }
        }
        Kind::Map(entries) => {
            for (i, (key, value)) in entries.iter().enumerate() {
                pad(indent, i == 0, out);
                let name = key.text().unwrap_or_default();
                out.push_str(&scalar(name, true));
                out.push(':');
                let hidden = secret || SECRET_KEYS.contains(&name);
                let nested = match &value.kind {
                    Kind::List(items) => !items.is_empty(),
                    Kind::Map(entries) => !entries.is_empty(),
                    Kind::Scalar { .. } => false,
                };
                if nested {
                    out.push('\n');
                    out.extend(std::iter::repeat_n(' ', indent + 2));
                } else {
                    out.push(' ');
                }
                print(value, indent + 2, hidden, out);
            }
        }
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
    if simple && plain || text.is_empty() && plain { text } else { format!("{text:?}") }
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
    use crate::config::yaml::parse;

    #[test]
    fn secrets_do_not_show_and_the_rest_reads_back() {
        let text = "a:\n- basic_auth: {username: u, password: 'p: w'}\n  x: \"1\"\n- http_headers: {H: {secrets: [s1, s2]}}\n\
                    url: http://me:pw@host/x\nempty: []\nnested: {b: [[1, 2], {c: d}]}\n";
        let tree = parse(text).expect("valid");
        let printed = masked(&tree);
        assert_eq!(
            printed,
            "a:\n  - basic_auth:\n      username: u\n      password: <secret>\n    x: \"1\"\n  - http_headers:\n      H:\n        \
             secrets:\n          - <secret>\n          - <secret>\nurl: http://me:xxxxx@host/x\nempty: []\n\
             nested:\n  b:\n    - - 1\n      - 2\n    - c: d\n"
        );
        assert!(parse(&printed).is_ok());
    }
}
