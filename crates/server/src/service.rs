//! The server without its sockets: a request in, an answer out.

use std::sync::Arc;

use hyper::body::Body;
use hyper::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, LOCATION, ORIGIN, VARY,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tidewatch_model::regex::GoRegex;
use tidewatch_promql::{Lease, QueryError};

use crate::access::Access;
use crate::api::query::QueryGate;
use crate::api::write::WritePool;
use crate::api::{self, admin, expression, rules, series, status, targets, tsdb};
use crate::backend::Phase;
use crate::body::{RequestBody, ResponseBody};
use crate::counters::Counters;
use crate::error::{ApiError, ErrorKind};
use crate::options::App;
use crate::reply::{self, Reply};
use crate::request::{FORM_BYTES_MAX, Params};
use crate::router::{self, Match, NoRoute, Route};
use crate::web_config::WebConfigError;

/// A request, whatever carries its body.
pub type Request = hyper::Request<RequestBody>;

/// Why a server can not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    WebConfig(#[from] WebConfigError),
    #[error("--web.cors.origin: {0}")]
    CorsOrigin(String),
}

/// All handlers with what they share.
pub struct Service {
    pub(crate) app: App,
    pub(crate) access: Arc<Access>,
    pub(crate) counters: Counters,
    pub(crate) queries: QueryGate,
    pub(crate) writes: WritePool,
    cors_origin: GoRegex,
}

impl Service {
    /// Reads the web configuration, if there is one.
    pub fn new(app: App) -> Result<Arc<Service>, ServiceError> {
        let access = Access::new(app.options.web_config_file.clone(), app.env.clone())?;
        let cors_origin = GoRegex::new(&app.options.cors_origin).map_err(ServiceError::CorsOrigin)?;
        Ok(Arc::new(Service {
            access: Arc::new(access),
            counters: Counters::default(),
            queries: QueryGate::new(app.options.query_concurrency, app.limits.queries_memory_bytes),
            writes: WritePool::new(app.options.write_bytes_in_flight),
            cors_origin,
            app,
        }))
    }

    /// Answers one request. Dropping the future cancels the query that it computes.
    pub async fn handle(self: &Arc<Self>, request: Request) -> Response<ResponseBody> {
        let began_ns = self.app.env.clock.monotonic_ns();
        let (parts, body) = request.into_parts();
        let found = router::find(&self.app.options.route_prefix, &parts.method, parts.uri.path());
        let mut response = match self.admit(&parts).await {
            Err(refused) => refused,
            Ok(()) => match found {
                Ok(found) => self.dispatch(found, &parts, body).await,
                Err(NoRoute::NotFound) => reply::text(StatusCode::NOT_FOUND, "404 page not found\n"),
                Err(NoRoute::Method) => self.wrong_method(&parts),
            },
        };
        if parts.uri.path().contains("/api/") {
            self.add_cors(&parts.headers, response.headers_mut());
        }
        compress(&parts.headers, &mut response);
        self.access.add_headers(response.headers_mut());
        let handler = found.map_or("/none", |found| found.pattern);
        let seconds = (self.app.env.clock.monotonic_ns() - began_ns) as f64 / 1e9;
        self.counters.request(handler, response.status().as_u16(), seconds);
        response
    }

    /// What `/metrics` answers: the server's own metrics and the program's.
    pub fn metrics(&self) -> String {
        let mut text = self.app.backend.metrics();
        self.counters.render(&mut text);
        let memory = &self.queries.memory;
        for (name, help, bytes) in [
            ("tidewatch_queries_memory_bytes", "What queries and their answers hold.", memory.used()),
            ("tidewatch_queries_memory_limit_bytes", "What they may hold together.", memory.limit()),
        ] {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {bytes}\n"));
        }
        text
    }

    /// Reads the web configuration and its certificates again where they changed.
    pub fn refresh(&self) {
        self.access.refresh();
    }

    /// Whether callers have to name themselves.
    pub fn requires_password(&self) -> bool {
        self.access.requires_password()
    }

    /// Whether connections are encrypted.
    pub fn uses_tls(&self) -> bool {
        self.access.tls().is_some()
    }

    async fn admit(&self, parts: &Parts) -> Result<(), Response<ResponseBody>> {
        let too_large = |limit, text: String| {
            self.counters.refuse(limit);
            reply::text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text)
        };
        let limits = &self.app.limits;
        if parts.headers.len() > limits.headers {
            let text =
                format!("request has {} headers, at most {} are read\n", parts.headers.len(), limits.headers);
            return Err(too_large("headers", text));
        }
        let header_bytes: usize =
            parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        // The address has a limit of its own in `http::Uri`: 64 KiB.
        if header_bytes > limits.header_bytes {
            let text = format!(
                "request header has {header_bytes} bytes, at most {} are read\n",
                limits.header_bytes
            );
            return Err(too_large("header_bytes", text));
        }
        self.access.check(&parts.headers).await
    }

    async fn dispatch(
        self: &Arc<Self>,
        found: Match<'_>,
        parts: &Parts,
        body: RequestBody,
    ) -> Response<ResponseBody> {
        match found.route {
            Route::Write => return api::write::write(self, &parts.headers, body).await,
            Route::Metrics => {
                return match api::blocking(self, Service::metrics).await {
                    Ok(text) => {
                        let body = ResponseBody::whole(text);
                        reply::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
                    }
                    Err(error) => reply::error(&error),
                };
            }
            Route::Healthy => return reply::text(StatusCode::OK, "Tidewatch Server is Healthy.\n"),
            Route::Ready => return self.ready(),
            Route::Reload => return self.reload().await,
            Route::Quit => return self.quit(),
            Route::Page => return page(found.name, &parts.headers),
            Route::AddSlash => return self.add_slash(),
            Route::Preflight => return reply::empty(StatusCode::NO_CONTENT),
            _ => {}
        }
        let _form = match self.form(parts, &body) {
            Ok(lease) => lease,
            Err(error) => return reply::error(&error),
        };
        let params = match Params::read(parts, body).await {
            Ok(params) => params,
            Err(error) => return reply::error(&error),
        };
        if found.route == Route::Federate {
            return api::federate::federate(self, &parts.headers, &params).await;
        }
        if let Route::DeleteSeries | Route::CleanTombstones | Route::Compact | Route::Snapshot = found.route {
            return admin::answer(self, found.route, &params).await;
        }
        match self.api(found, &params).await {
            Ok(reply) => reply.into_response(self.app.limits.response_bytes),
            Err(error) => reply::error(&error),
        }
    }

    /// Memory for a form, as sent and as decoded: each connection may send one.
    fn form(&self, parts: &Parts, body: &RequestBody) -> Result<Option<Lease>, ApiError> {
        let bytes = body.size_hint().upper().unwrap_or(u64::MAX).min(FORM_BYTES_MAX as u64);
        if !matches!(parts.method, Method::POST | Method::PUT) || bytes == 0 {
            return Ok(None);
        }
        let lease = self.queries.memory.take(2 * bytes);
        lease.map(Some).ok_or_else(|| {
            self.counters.refuse("queries_memory_bytes");
            let limit_bytes = self.queries.memory.limit();
            QueryError::Overloaded { limit_bytes }.into()
        })
    }

    async fn api(self: &Arc<Self>, found: Match<'_>, params: &Params) -> Result<Reply, ApiError> {
        let backend = &*self.app.backend;
        Ok(match found.route {
            Route::Query => api::query::instant(self, params).await?,
            Route::QueryRange => api::query::range(self, params).await?,
            Route::Explain => api::query::explain(self, params).await?,
            Route::QueryExemplars => series::exemplars(self, params).await?,
            Route::FormatQuery => expression::format(self, params).await?,
            Route::ParseQuery => expression::tree(self, params).await?,
            Route::Labels => series::label_names(self, params).await?,
            Route::LabelValues => series::label_values(self, params, found.name).await?,
            Route::Series => series::series(self, params).await?,
            Route::DropSeries => return Err(ApiError::new(ErrorKind::Internal, "not implemented")),
            Route::Targets => targets::targets(&backend.targets(), params),
            Route::TargetMetadata => targets::target_metadata(&backend.metadata(), params)?,
            Route::ScrapePools => targets::scrape_pools(&backend.targets()),
            Route::Alertmanagers => targets::alertmanagers(&backend.alertmanagers()),
            Route::Metadata => targets::metadata(&targets::all_metadata(backend)?, params)?,
            Route::Rules => rules::rules(&rules::groups(backend)?, params)?,
            Route::Alerts => rules::alerts(&rules::groups(backend)?),
            Route::BuildInfo => status::build_info(&backend.build_info()),
            Route::RuntimeInfo => status::runtime_info(&backend.runtime_info(), self.app.env.clock.wall_ms()),
            Route::Flags => status::flags(&backend.flags()),
            Route::Config => status::config(&backend.config_yaml()),
            Route::TsdbStatus => tsdb::status(self, params).await?,
            Route::TsdbBlocks => tsdb::blocks(self).await?,
            Route::WalReplay => status::wal_replay(backend.replay()),
            Route::Replicas => status::replicas(self.app.replicas.as_deref()),
            Route::Notices => status::notices(backend, &self.app.options.page_title),
            Route::Write
            | Route::Federate
            | Route::Metrics
            | Route::Healthy
            | Route::Ready
            | Route::Reload
            | Route::Quit
            | Route::Page
            | Route::AddSlash
            | Route::DeleteSeries
            | Route::CleanTombstones
            | Route::Compact
            | Route::Snapshot
            | Route::Preflight => unreachable!("answered in `dispatch`"),
        })
    }

    /// Ready means that writes are acknowledged, which is before queries see all data.
    fn ready(&self) -> Response<ResponseBody> {
        match self.app.backend.phase() {
            Phase::Recovering | Phase::Complete => {
                reply::text(StatusCode::OK, "Tidewatch Server is Ready.\n")
            }
            phase @ (Phase::Starting | Phase::Stopping) => {
                let mut response = reply::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable");
                let stopping =
                    HeaderValue::from_static(if phase == Phase::Stopping { "true" } else { "false" });
                response.headers_mut().insert(HeaderName::from_static("x-tidewatch-stopping"), stopping);
                response
            }
        }
    }

    /// Whoever can reach the port may stop the server or make it read files, so being enabled is
    /// not enough where others than this host can reach it.
    fn lifecycle_refusal(&self) -> Option<Response<ResponseBody>> {
        let options = &self.app.options;
        if !options.enable_lifecycle {
            return Some(reply::text(StatusCode::FORBIDDEN, "Lifecycle API is not enabled."));
        }
        if self.is_open_to_others() {
            let text = "Lifecycle API is off: the server listens beyond this host and asks for no password (--web.config.file).";
            return Some(reply::text(StatusCode::FORBIDDEN, text));
        }
        None
    }

    /// Whether others than this host can reach the port, and nobody has to log in.
    pub(crate) fn is_open_to_others(&self) -> bool {
        let exposed = self.app.options.listen.iter().any(|address| !address.ip().is_loopback());
        exposed && !self.requires_password()
    }

    async fn reload(&self) -> Response<ResponseBody> {
        if let Some(refused) = self.lifecycle_refusal() {
            return refused;
        }
        self.refresh();
        match self.app.backend.reload().await {
            Ok(()) => reply::empty(StatusCode::OK),
            Err(error) => {
                let text = format!("failed to reload config: {error}\n");
                reply::text(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }

    fn quit(&self) -> Response<ResponseBody> {
        if let Some(refused) = self.lifecycle_refusal() {
            return refused;
        }
        self.app.backend.quit();
        reply::text(StatusCode::OK, "Requesting termination... Goodbye!")
    }

    fn add_slash(&self) -> Response<ResponseBody> {
        let mut response = reply::empty(StatusCode::FOUND);
        let location = format!("{}/", self.app.options.route_prefix);
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }

    fn wrong_method(&self, parts: &Parts) -> Response<ResponseBody> {
        let path = parts.uri.path();
        let lifecycle = path.ends_with("/-/reload") || path.ends_with("/-/quit");
        let text = if lifecycle { "Only POST or PUT requests allowed" } else { "Method Not Allowed\n" };
        let mut response = reply::text(StatusCode::METHOD_NOT_ALLOWED, text);
        let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
        let prefix = &self.app.options.route_prefix;
        let allowed: Vec<&str> = methods
            .iter()
            .filter(|method| router::find(prefix, method, path).is_ok())
            .map(Method::as_str)
            .collect();
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_str(&allowed.join(", ")).expect("methods are ASCII"));
        response
    }

    fn add_cors(&self, request: &HeaderMap, response: &mut HeaderMap) {
        let Some(origin) = request.get(ORIGIN) else { return };
        let fixed = [
            ("access-control-allow-headers", "Accept, Authorization, Content-Type, Origin"),
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            ("access-control-expose-headers", "Date"),
        ];
        for (name, value) in fixed {
            response.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response.append(VARY, HeaderValue::from_static("Origin"));
        let name = HeaderName::from_static("access-control-allow-origin");
        if self.cors_origin.pattern() == ".*" {
            response.insert(name, HeaderValue::from_static("*"));
        } else if origin.to_str().is_ok_and(|text| self.cors_origin.is_match(text)) {
            response.insert(name, origin.clone());
        }
    }
}

/// One file of the page. Its tag is its content's, so that a browser asks and rarely loads.
fn page(path: &str, headers: &HeaderMap) -> Response<ResponseBody> {
    let Some(asset) = tidewatch_ui::asset(path) else {
        return reply::text(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let tag = HeaderValue::from_str(&asset.etag).expect("a tag is ASCII");
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known == tag);
    let mut response = match known {
        true => reply::empty(StatusCode::NOT_MODIFIED),
        false => reply::with_type(StatusCode::OK, asset.content_type, ResponseBody::whole(asset.bytes)),
    };
    let fixed = [
        ("cache-control", "no-cache"),
        (
            "content-security-policy",
            "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
        ),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "deny"),
        ("referrer-policy", "same-origin"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response.headers_mut().insert(ETAG, tag);
    response
}

/// Compresses what is worth it for who takes it.
fn compress(request: &HeaderMap, response: &mut Response<ResponseBody>) {
    let text = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .is_some_and(|kind| kind.starts_with("text/") || kind.starts_with("application/"));
    if !text || !accepts_gzip(request) || !response.body_mut().compress() {
        return;
    }
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}
