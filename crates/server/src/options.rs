//! What the server is made of and how it is set up.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewatch_env::Env;
use tidewatch_ingest::HaTracker;
use tidewatch_model::Limits;
use tidewatch_parser::ParserOptions;
use tidewatch_promql::Engine;
use tidewatch_storage::{Append, Select};

use crate::backend::Backend;

/// The parts that the handlers stand on.
#[derive(Clone)]
pub struct App {
    pub env: Env,
    pub select: Arc<dyn Select>,
    pub append: Arc<dyn Append>,
    pub engine: Arc<Engine>,
    pub backend: Arc<dyn Backend>,
    pub parser: ParserOptions,
    pub limits: Limits,
    /// Where samples of replicas are deduplicated: who is elected. The lock guards that.
    pub replicas: Option<Arc<Mutex<HaTracker>>>,
    pub options: ServerOptions,
}

/// Flags that concern HTTP, under Prometheus' names.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// `--web.listen-address`; port 0 takes a free one. Where one is not of this host alone,
    /// lifecycle calls want a password.
    pub listen: Vec<SocketAddr>,
    /// `--web.config.file`
    pub web_config_file: Option<PathBuf>,
    /// `--web.external-url`, without a slash at the end.
    pub external_url: String,
    /// `--web.route-prefix`: `/`, or a path that all routes are below.
    pub route_prefix: String,
    /// `--web.cors.origin`: a regular expression that must match the whole origin.
    pub cors_origin: String,
    /// `--web.page-title`
    pub page_title: String,
    /// `--web.enable-lifecycle`
    pub enable_lifecycle: bool,
    /// `--enable-feature=promql-per-step-stats`: `stats=all` counts by step.
    pub per_step_statistics: bool,
    /// `--web.remote-write-receiver.accepted-protobuf-messages`: names of those that are taken.
    pub write_messages: Vec<String>,
    /// `--enable-feature=st-storage`: start timestamps of write requests are stored.
    pub start_timestamps: bool,
    /// `--web.enable-admin-api`; as lifecycle calls, it wants a password beyond this host.
    pub enable_admin: bool,
    /// How many queries run at once; more wait for [`Limits::query_queue_ms`].
    pub query_concurrency: usize,
    /// Bytes of write requests, compressed and decompressed, that are held at once.
    pub write_bytes_in_flight: usize,
}
