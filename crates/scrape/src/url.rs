//! Escaping in URLs as Go's `net/url` escapes, and a target's URL as others can reach it.

use std::fmt::Write;

/// What `globalUrl` needs to know of this server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalAddress {
    /// Scheme and `host[:port]` of the external URL.
    pub scheme: String,
    pub host: String,
    /// The port that we listen on ourselves.
    pub own_port: Option<u16>,
}

/// Escapes a path: what may stand there does, slashes too.
pub(crate) fn escape_path(path: &str) -> String {
    escape(path, |byte| b"-_.~$&+,/:;=@".contains(&byte))
}

/// Escapes a parameter's name or value; a space becomes a plus.
pub(crate) fn escape_query(text: &str) -> String {
    escape(text, |byte| b"-_.~ ".contains(&byte)).replace(' ', "+")
}

fn escape(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || is_plain(byte) {
            out.push(byte as char);
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string succeeds");
        }
    }
    out
}

/// Replaces a loopback host by the external one. Only where the port is our own do we know that
/// scheme and port are the external ones as well; elsewhere the host is the best guess.
pub(crate) fn global_url(url: &str, external: &ExternalAddress) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_len);
    let (host, port) = split_port(authority);
    if !matches!(host, "127.0.0.1" | "localhost" | "::1") || external.host.is_empty() {
        return url.to_owned();
    }
    if port.is_some() && port.and_then(|port| port.parse().ok()) == external.own_port {
        return format!("{}://{}{path}", external.scheme, external.host);
    }
    let (external_host, _) = split_port(&external.host);
    let bracketed =
        if external_host.contains(':') { format!("[{external_host}]") } else { external_host.to_owned() };
    match port {
        Some(port) => format!("{scheme}://{bracketed}:{port}{path}"),
        None => format!("{scheme}://{bracketed}{path}"),
    }
}

/// Host without brackets, and port.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_replaced() {
        let external =
            ExternalAddress { scheme: "https".into(), host: "mon.test:443".into(), own_port: Some(9090) };
        for (url, global) in [
            ("http://localhost:9090/metrics", "https://mon.test:443/metrics"),
            ("http://127.0.0.1:9100/m?x=1", "http://mon.test:9100/m?x=1"),
            ("http://[::1]:9100/m", "http://mon.test:9100/m"),
            ("http://localhost/m", "http://mon.test/m"),
            ("http://other:9090/m", "http://other:9090/m"),
        ] {
            assert_eq!(global_url(url, &external), global);
        }
    }
}
