//! Why a client could not be built, or a request got no answer.

use std::io;
use std::path::PathBuf;

/// Why a client can not be built from its configuration.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("unable to read {what} {}: {source}", path.display())]
    Read { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what} holds no usable PEM: {reason}")]
    Pem { what: &'static str, reason: String },
    #[error("TLS configuration: {0}")]
    Tls(String),
    #[error("proxy {url}: {reason}")]
    Proxy { url: String, reason: &'static str },
    #[error("header {name:?} can not be sent: {reason}")]
    Header { name: String, reason: &'static str },
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("{url:?} is no http or https URL")]
    Url { url: String },
    /// A secret's or certificate's file can not be used now.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Named as Go names it, which is what people search for.
    #[error("context deadline exceeded")]
    Timeout,
    #[error("{0}")]
    Connect(String),
    #[error("proxy {proxy}: {reason}")]
    Proxy { proxy: String, reason: String },
    #[error("{0}")]
    Protocol(String),
    #[error("body size limit exceeded")]
    BodyTooLarge { limit: usize },
    #[error("body is no gzip: {0}")]
    Encoding(io::Error),
    #[error("redirect from {from}: {reason}")]
    Redirect { from: String, reason: String },
}
