//! How one client reaches its peers: Prometheus' `http_config`, as plain values.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads a whole file, for certificates and secrets.
pub type ReadFile = Arc<dyn Fn(&Path) -> io::Result<Vec<u8>> + Send + Sync>;

/// A value that must not be printed, given inline or as a file that holds it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Inline(String),
    /// Read again for each use; white space around it is dropped.
    File(PathBuf),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Secret::Inline(_) => f.write_str("<secret>"),
            Secret::File(path) => write!(f, "file {}", path.display()),
        }
    }
}

/// Prometheus' `http_config`. At most one of `basic_auth` and `authorization` is set; the
/// configuration's reader checks that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpClientConfig {
    pub basic_auth: Option<BasicAuth>,
    pub authorization: Option<Authorization>,
    pub tls: TlsConfig,
    pub proxy: ProxyConfig,
    pub follow_redirects: bool,
    pub enable_http2: bool,
    /// Sent with each request, before the request's own headers.
    pub headers: Vec<(String, Secret)>,
}

impl Default for HttpClientConfig {
    fn default() -> Self {
        HttpClientConfig {
            basic_auth: None,
            authorization: None,
            tls: TlsConfig::default(),
            proxy: ProxyConfig::default(),
            follow_redirects: true,
            enable_http2: true,
            headers: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasicAuth {
    pub username: Secret,
    /// Absent means the empty password.
    pub password: Option<Secret>,
}

/// `Authorization: <scheme> <credentials>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// `Bearer` unless configured otherwise.
    pub scheme: String,
    pub credentials: Secret,
}

/// Prometheus' `tls_config`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// PEM of the authorities to trust; the system's where absent.
    pub ca: Option<Secret>,
    /// PEM of the client's certificate chain, given with `key` or not at all.
    pub cert: Option<Secret>,
    pub key: Option<Secret>,
    /// The name the peer must prove, where it is not the host of the address.
    pub server_name: Option<String>,
    pub insecure_skip_verify: bool,
    pub min_version: Option<TlsVersion>,
    pub max_version: Option<TlsVersion>,
}

/// Versions older than 1.2 can not be spoken; asking for them as a minimum means 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls10,
    Tls11,
    Tls12,
    Tls13,
}

/// How to get past a proxy. `url` and `from_environment` exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyConfig {
    /// `http://[user:password@]host:port`.
    pub url: Option<String>,
    /// Comma-separated hosts, domains, addresses and networks that are reached directly.
    pub no_proxy: String,
    /// Take `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` from the environment.
    pub from_environment: bool,
    /// Sent with `CONNECT`.
    pub connect_headers: Vec<(String, Secret)>,
}
