//! Connections: pooled to a peer, through a tunnel for https, or one by one through a proxy that
//! forwards plain http.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION};
use hyper::{Request, Response, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::body::describe;
use crate::proxy::Proxy;
use crate::{ClientError, RequestError, TlsConfig};

/// An idle connection is kept for a little longer than the usual longest scrape interval.
const IDLE: Duration = Duration::from_secs(90);
/// Idle connections kept to one peer: a scraper has one request at a time in flight there.
const IDLE_PER_HOST_MAX: usize = 4;

type Body = Full<Bytes>;
type TunnelPool = Pool<HttpsConnector<Tunnel<HttpConnector>>, Body>;

/// All connections of a client that share one TLS configuration.
pub(crate) struct Transport {
    tls: ClientConfig,
    server_name: Option<ServerName<'static>>,
    is_http2_enabled: bool,
    /// Sent with each `CONNECT`.
    connect_headers: HeaderMap,
    direct: Pool<HttpsConnector<HttpConnector>, Body>,
    /// Guards the tunnels in use, by proxy: one, or two where http and https have their own.
    tunnels: Mutex<Vec<(Proxy, TunnelPool)>>,
}

impl Transport {
    pub(crate) fn new(
        tls: ClientConfig,
        config: &TlsConfig,
        is_http2_enabled: bool,
        connect_headers: HeaderMap,
    ) -> Result<Transport, ClientError> {
        let server_name = match &config.server_name {
            Some(name) => Some(
                ServerName::try_from(name.clone())
                    .map_err(|_| ClientError::Tls(format!("server_name {name:?} is no host name")))?,
            ),
            None => None,
        };
        let connector = https(&tls, server_name.as_ref(), is_http2_enabled, tcp());
        Ok(Transport {
            tls,
            server_name,
            is_http2_enabled,
            connect_headers,
            direct: pool(connector),
            tunnels: Mutex::new(Vec::new()),
        })
    }

    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        proxy: Option<Proxy>,
    ) -> Result<Response<Incoming>, RequestError> {
        let host = host_and_port(proxy.as_ref().map_or(request.uri(), |proxy| &proxy.uri));
        let result = match proxy {
            None => self.direct.request(request).await,
            Some(proxy) if request.uri().scheme_str() == Some("https") => {
                self.tunnel(proxy).request(request).await
            }
            Some(proxy) => return forward(request, &proxy).await,
        };
        result.map_err(|error| match error.is_connect() {
            true => RequestError::Connect(unreachable(&error, &host)),
            false => RequestError::Protocol(describe(&error)),
        })
    }

    fn tunnel(&self, proxy: Proxy) -> TunnelPool {
        let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pool)) = tunnels.iter().find(|(known, _)| *known == proxy) {
            return pool.clone();
        }
        let mut tunnel = Tunnel::new(proxy.uri.clone(), tcp()).with_headers(self.connect_headers.clone());
        if let Some(authorization) = &proxy.authorization {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let connector = https(&self.tls, self.server_name.as_ref(), self.is_http2_enabled, tunnel);
        let pool = pool(connector);
        tunnels.push((proxy, pool.clone()));
        pool
    }
}

fn host_and_port(uri: &Uri) -> String {
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    format!("{}:{port}", uri.host().unwrap_or_default())
}

/// Why no connection came about, in the words of Go, which people search for and match on.
fn unreachable(error: &(dyn std::error::Error + 'static), host: &str) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut kinds = causes.clone().filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    let reason = kinds.find_map(|kind| {
        Some(match kind {
            io::ErrorKind::ConnectionRefused => "connect: connection refused",
            io::ErrorKind::HostUnreachable => "connect: no route to host",
            io::ErrorKind::NetworkUnreachable => "connect: network is unreachable",
            io::ErrorKind::TimedOut => "connect: connection timed out",
            _ => return None,
        })
    });
    let text = describe(error);
    match reason {
        Some(reason) => format!("dial tcp {host}: {reason}"),
        None if text.contains("dns error") => {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            let cause = causes.last().map(ToString::to_string).unwrap_or_default();
            let cause = cause.strip_prefix("failed to lookup address information: ").unwrap_or(&cause);
            format!("dial tcp: lookup {name}: no such host ({cause})")
        }
        None => text.replacen("client error (Connect): ", "", 1),
    }
}

fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector
}

fn https<C>(
    tls: &ClientConfig,
    server_name: Option<&ServerName<'static>>,
    is_http2_enabled: bool,
    inner: C,
) -> HttpsConnector<C> {
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
    if let Some(name) = server_name {
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name.clone()));
    }
    if is_http2_enabled {
        builder.enable_all_versions().wrap_connector(inner)
    } else {
        builder.enable_http1().wrap_connector(inner)
    }
}

fn pool<C: Connect + Clone>(connector: C) -> Pool<C, Body> {
    Pool::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .build(connector)
}

/// Sends a plain request to a proxy that forwards it: its target is the whole URL.
async fn forward(mut request: Request<Body>, proxy: &Proxy) -> Result<Response<Incoming>, RequestError> {
    let failed = |reason: String| RequestError::Proxy {
        proxy: proxy.uri.authority().map(ToString::to_string).unwrap_or_default(),
        reason,
    };
    let host = request.uri().authority().map(|authority| authority.as_str()).unwrap_or_default();
    let host = HeaderValue::from_str(host).map_err(|error| failed(error.to_string()))?;
    request.headers_mut().insert(HOST, host);
    if let Some(authorization) = &proxy.authorization {
        request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    let stream = TcpStream::connect(address(&proxy.uri)).await.map_err(|error| failed(error.to_string()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(describe(&error)))?;
    // Ends with the connection, which ends when the sender and the body are dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the proxy ended badly");
        }
    });
    sender.send_request(request).await.map_err(|error| failed(describe(&error)))
}

fn address(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    format!("{host}:{}", uri.port_u16().unwrap_or(80))
}
