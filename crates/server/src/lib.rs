//! The way in for people and programs: HTTP routes, JSON, limits and authentication over the
//! layers below.
//!
//! ```text
//! listen ─ TLS ─ hyper ─► Service::handle ─ auth ─ route ─► api::write  ─► Append, durable wait
//!                                                           api::query  ─► parser, promql
//!                                                           api::…      ─► Backend, Select
//!                                                           page        ─► ui
//! ```
//!
//! Handlers are thin: they read parameters, call one of the layers below and write the answer
//! as Prometheus' API version 1 shapes it. [`Service::handle`] is the whole server without its
//! sockets, which is how tests and the embedded library speak to it.
//!
//! Invariants: a write is acknowledged only after its samples are durable; every limit of
//! [`tidewatch_model::Limits`] that concerns a request is checked before memory is taken; a
//! query whose client went away is cancelled; a body that would break a limit half-way ends the
//! connection, so that no cut answer looks whole.
//!
//! Not here: what a query means (`promql`), what an alert is (`rules`), how samples are kept
//! (`tsdb`), when anything is evaluated, scraped or sent (the binary).

#![forbid(unsafe_code)]

mod access;
mod api;
mod backend;
mod body;
mod counters;
mod error;
mod first_line;
mod json;
mod listen;
mod names;
mod options;
mod patience;
mod query_log;
mod reply;
mod request;
mod router;
mod service;
mod tls;
mod watch;
mod web_config;

pub use backend::{
    AdminError, AlertmanagersView, Backend, BlockView, BuildInfo, DamageView, DiskView, Pending, Phase,
    ReplayView, RuntimeInfo, StoreStatus, TsdbStatus,
};
pub use body::{BodyError, RequestBody, ResponseBody};
pub use listen::{BindError, Server};
pub use names::alternative_names;
pub use options::{App, ServerOptions};
pub use query_log::{Asker, LoggedQuery};
pub use request::{format_time, parse_time};
pub use service::{Request, Service, ServiceError};
pub use web_config::WebConfigError;
