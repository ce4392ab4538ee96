//! Outbound HTTP: one client for scrapes, notifications and remote systems.
//!
//! ```text
//! scrape, notify (through the binary) ─► Client::send ─► proxy? ─► TLS? ─► peer
//! ```
//!
//! Invariants: a response's body is bounded while it is read, before and after decompression;
//! every request has a deadline that covers everything from resolving the name to the last
//! byte; credentials never follow a redirect to another host; secrets do not appear in errors,
//! in `Debug` output or in logs. Secrets and certificates that are named as files are read
//! again for each request (secrets) or when they change (certificates), so that they rotate
//! without a restart.
//!
//! Not here: OAuth 2, AWS SigV4 and other cloud signatures, which a configuration that asks for
//! them must be told of; serving HTTP (`server`). Files are read through a [`ReadFile`] that the
//! caller gives, since this crate does not touch the disk itself.

#![forbid(unsafe_code)]

mod body;
mod client;
mod config;
mod error;
mod proxy;
mod redirect;
mod tls;
mod transport;

pub use client::{Client, Request, Response};
pub use config::{
    Authorization, BasicAuth, HttpClientConfig, ProxyConfig, ReadFile, Secret, TlsConfig, TlsVersion,
};
pub use error::{ClientError, RequestError};
pub use hyper::{HeaderMap, Method, StatusCode};
