//! The file that `--web.config.file` names: Prometheus' schema, with its messages.
//!
//! A relative path in it is relative to the file itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

/// Why the file, or what it names, can not be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct WebConfigError {
    pub path: PathBuf,
    pub reason: String,
}

/// The file as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WebConfig {
    pub(crate) tls_server_config: TlsServerConfig,
    pub(crate) http_server_config: HttpServerConfig,
    pub(crate) rate_limit: RateLimit,
    /// User names with bcrypt hashes of their passwords.
    pub(crate) basic_auth_users: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsServerConfig {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) client_ca: String,
    pub(crate) cert_file: PathBuf,
    pub(crate) key_file: PathBuf,
    pub(crate) client_ca_file: PathBuf,
    pub(crate) client_auth_type: String,
    pub(crate) client_allowed_sans: Option<Vec<String>>,
    pub(crate) cipher_suites: Vec<String>,
    pub(crate) curve_preferences: Vec<String>,
    pub(crate) min_version: String,
    pub(crate) max_version: String,
    pub(crate) prefer_server_cipher_suites: Option<bool>,
}

/// The key is never printed.
impl std::fmt::Debug for TlsServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsServerConfig").field("cert_file", &self.cert_file).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpServerConfig {
    pub(crate) http2: bool,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Default for HttpServerConfig {
    fn default() -> Self {
        HttpServerConfig { http2: true, headers: BTreeMap::new() }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RateLimit {
    pub(crate) burst: u32,
    /// A duration such as `1s`; requests beyond the burst are let through one each interval.
    pub(crate) interval: String,
}

impl TlsServerConfig {
    pub(crate) fn is_enabled(&self) -> bool {
        [&self.cert, &self.key, &self.client_ca, &self.client_auth_type].iter().any(|text| !text.is_empty())
            || self.files().next().is_some()
    }

    /// The files that it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file, &self.client_ca_file]
            .into_iter()
            .filter(|path| !path.as_os_str().is_empty())
            .map(PathBuf::as_path)
    }
}

/// What is wrong and where, without the picture of it that follows on more lines.
fn first_line(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

impl WebConfig {
    pub(crate) fn read(path: &Path) -> Result<WebConfig, WebConfigError> {
        let error = |reason: String| WebConfigError { path: path.to_owned(), reason };
        let text = fs::read_to_string(path).map_err(|cause| error(cause.to_string()))?;
        WebConfig::parse(&text, path.parent().unwrap_or(Path::new(""))).map_err(error)
    }

    /// Parses and checks what can be checked without other files.
    fn parse(text: &str, folder: &Path) -> Result<WebConfig, String> {
        // An empty document is an empty configuration.
        let empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        let mut config: WebConfig = if empty {
            WebConfig::default()
        } else {
            serde_saphyr::from_str(text).map_err(|error| first_line(&error.to_string()))?
        };
        for (user, hash) in &config.basic_auth_users {
            if hash.parse::<bcrypt::HashParts>().is_err() {
                return Err(format!(
                    "basic_auth_users: the password of {user:?} is no bcrypt hash: make one with `htpasswd -nBC 10 \"\"`"
                ));
            }
        }
        for (name, value) in &config.http_server_config.headers {
            check_header(name, value)?;
        }
        if !config.rate_limit.interval.is_empty() {
            tidewatch_model::parse_duration_ms(&config.rate_limit.interval)
                .map_err(|error| format!("rate_limit: interval: {error}"))?;
        }
        let tls = &mut config.tls_server_config;
        for path in [&mut tls.cert_file, &mut tls.key_file, &mut tls.client_ca_file] {
            if !path.as_os_str().is_empty() {
                *path = folder.join(&path);
            }
        }
        Ok(config)
    }

    pub(crate) fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let parse = |(name, value): (&String, &String)| Some((name.parse().ok()?, value.parse().ok()?));
        self.http_server_config.headers.iter().filter_map(parse).collect()
    }
}

/// Headers that may be set, with the values that they may have; any, where none is named.
const HEADERS: &[(&str, &[&str])] = &[
    ("Strict-Transport-Security", &[]),
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Cache-Control", &[]),
    ("Cross-Origin-Embedder-Policy", &[]),
    ("Cross-Origin-Opener-Policy", &[]),
    ("Cross-Origin-Resource-Policy", &[]),
    ("Permissions-Policy", &[]),
    ("Referrer-Policy", &[]),
];

fn check_header(name: &str, value: &str) -> Result<(), String> {
    let Some((_, allowed)) = HEADERS.iter().find(|(known, _)| *known == name) else {
        return Err(format!("HTTP header {name:?} can not be configured"));
    };
    if !allowed.is_empty() && !value.is_empty() && !allowed.contains(&value) {
        let expected = allowed.join("\" \"");
        return Err(format!(
            "invalid value for {name}. Expected one of: [\"{expected}\"], but got: {value:?}"
        ));
    }
    if value.parse::<HeaderValue>().is_err() {
        return Err(format!(
            "invalid value for {name}: {value:?} has characters that a header can not carry"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        match WebConfig::parse(text, Path::new("/etc/tide")) {
            Ok(config) => assert_eq!(expected, "", "{config:?}"),
            Err(error) => assert!(!expected.is_empty() && error.contains(expected), "{error}"),
        }
    }

    #[test]
    fn files_of_prometheus_are_read_and_mistakes_are_named() {
        check("", "");
        check("# nothing\n", "");
        check("tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n  min_version: TLS12\n", "");
        check("http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n", "");
        check(
            "basic_auth_users:\n  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n",
            "",
        );
        check("rate_limit:\n  burst: 5\n  interval: 1s\n", "");
        check("tls_config:\n  cert_file: a\n", "tls_config");
        let error =
            WebConfig::parse("http_server_config: {http2: maybe}", Path::new("")).expect_err("is refused");
        assert!(error.contains("line 1") && !error.contains('\n'), "{error:?}");
        check("basic_auth_users:\n  bob: plain\n", "the password of \"bob\" is no bcrypt hash");
        check(
            "http_server_config:\n  headers:\n    X-Frame-Options: maybe\n",
            "invalid value for X-Frame-Options. Expected one of: [\"deny\" \"sameorigin\"], but got: \"maybe\"",
        );
        check(
            "http_server_config:\n  headers:\n    Server: x\n",
            "HTTP header \"Server\" can not be configured",
        );
        check("rate_limit:\n  interval: soon\n", "rate_limit: interval: not a valid duration string");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let config = WebConfig::parse(
            "tls_server_config: {cert_file: a.crt, key_file: /k/b.key}",
            Path::new("/etc/tide"),
        );
        let tls = config.expect("valid").tls_server_config;
        assert_eq!((tls.cert_file, tls.key_file), ("/etc/tide/a.crt".into(), "/k/b.key".into()));
    }
}
