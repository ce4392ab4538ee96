//! Sockets: accept, encrypt, speak HTTP, and stop in good order.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::EXPECT;
use hyper::service::service_fn;
use hyper::{Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;

use crate::counters::Going;
use crate::first_line::FirstLine;
use crate::patience::{PatientBody, Rest};
use crate::request::Peer;
use crate::service::Service;
use crate::watch::{ServedBody, Timeouts, Watch, WatchedStream};

/// How long open requests may go on after the word to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How often certificates and the web configuration are looked at.
const REFRESH: Duration = Duration::from_secs(5);
/// Room for a header, and for what is read of a body at a time. Larger than the limit on headers,
/// as an address alone may have 64 KiB.
const READ_BUFFER_BYTES: usize = 128 << 10;
/// Requests that one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 100;

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
#[error("can not listen on {address}: {source}")]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

/// Sockets that are bound and do not answer yet.
pub struct Server {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    pub async fn bind(listen: &[SocketAddr]) -> Result<Server, BindError> {
        let mut server = Server { listeners: Vec::new(), addresses: Vec::new() };
        for &address in listen {
            let error = |source| BindError { address, source };
            let listener = TcpListener::bind(address).await.map_err(error)?;
            server.addresses.push(listener.local_addr().map_err(error)?);
            server.listeners.push(listener);
        }
        Ok(server)
    }

    /// Where it listens: ports are real ones, also where 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Answers until `shutdown` resolves; then lets open requests end, but not for ever.
    pub async fn serve(self, service: Arc<Service>, shutdown: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(false);
        let places = Arc::new(Semaphore::new(service.app.limits.connections));
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept(listener, service.clone(), places.clone(), stopped.clone()));
        }
        accepting.spawn(refresh(service.clone(), stopped));
        shutdown.await;
        // Every task of ours holds a receiver; the channel closes with this function.
        stop.send_replace(true);
        while accepting.join_next().await.is_some() {}
        let all = u32::try_from(service.app.limits.connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(DRAIN, places.acquire_many(all)).await.is_err() {
            tracing::warn!("connections were cut off at shutdown: they did not end within {DRAIN:?}");
        }
    }
}

async fn refresh(service: Arc<Service>, mut stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {
                let service = service.clone();
                // Reads files.
                let _ = tokio::task::spawn_blocking(move || service.refresh()).await;
            }
            _ = stopped.changed() => return,
        }
    }
}

async fn accept(
    listener: TcpListener,
    service: Arc<Service>,
    places: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    while !*stopped.borrow() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others have to close first.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                tokio::spawn(connection(stream, peer.ip(), service.clone(), place, stopped.clone()));
            }
            Err(_) => {
                service.counters.refuse("connections");
                if service.access.tls().is_none() {
                    refuse(stream).await;
                }
            }
        }
    }
}

/// Says why, without waiting for a client that does not listen.
async fn refuse(mut stream: TcpStream) {
    const TEXT: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 21\r\nRetry-After: 5\r\nConnection: close\r\n\r\ntoo many connections\n";
    let _ = tokio::time::timeout(Duration::from_millis(100), stream.write_all(TEXT)).await;
}

async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    service: Arc<Service>,
    place: OwnedSemaphorePermit,
    stopped: watch::Receiver<bool>,
) {
    let _place = place;
    let _going = Going::on(&service.counters.connections);
    let timeouts = Timeouts {
        header: Duration::from_millis(service.app.limits.header_timeout_ms),
        idle: Duration::from_millis(service.app.limits.idle_timeout_ms),
    };
    let Some(config) = service.access.tls() else {
        return talk(stream, peer, service.clone(), timeouts, stopped).await;
    };
    match tokio::time::timeout(timeouts.header, encrypt(stream, config)).await {
        Ok(Ok(stream)) => talk(stream, peer, service.clone(), timeouts, stopped).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => service.counters.refuse("header_timeout"),
    }
}

/// The handshake. A client that speaks plain HTTP to this port is told so, as Go's server does.
async fn encrypt(mut stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<TlsStream<TcpStream>> {
    const TEXT: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    let mut first = [0; 1];
    stream.peek(&mut first).await?;
    // A method begins with a capital, a handshake with byte 22.
    if first[0].is_ascii_uppercase() {
        // What was sent is read first: closing on unread bytes would take the answer back.
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await?;
        stream.write_all(TEXT).await?;
        stream.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "plain HTTP on a TLS port"));
    }
    TlsAcceptor::from(config).accept(stream).await
}

async fn talk<S>(
    stream: S,
    peer: IpAddr,
    service: Arc<Service>,
    timeouts: Timeouts,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Watch::new();
    let stream = TokioIo::new(FirstLine::new(WatchedStream { stream, watch: watch.clone() }));
    let handle = {
        let (service, watch) = (service.clone(), watch.clone());
        service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            answer(service.clone(), watch.clone(), request)
        })
    };
    let builder = builder(&service);
    let mut conversation = std::pin::pin!(builder.serve_connection(stream, handle));
    let mut expired = std::pin::pin!(watch.expired(timeouts));
    let mut stopping = *stopped.borrow();
    loop {
        if stopping {
            conversation.as_mut().graceful_shutdown();
        }
        tokio::select! {
            result = conversation.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            () = expired.as_mut() => {
                service.counters.refuse("connection_timeout");
                return;
            }
            _ = stopped.changed(), if !stopping => stopping = true,
        }
    }
}

fn builder(service: &Service) -> auto::Builder<TokioExecutor> {
    let limits = &service.app.limits;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The watch has the finer rule: idle is not slow.
        .header_read_timeout(None)
        // Above our own limit, so that most who break it are told why.
        .max_headers(limits.headers * 4)
        .max_buf_size(READ_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX));
    match service.access.http2() {
        true => builder,
        false => builder.http1_only(),
    }
}

async fn answer(
    service: Arc<Service>,
    watch: Watch,
    request: hyper::Request<Incoming>,
) -> Result<Response<ServedBody>, std::convert::Infallible> {
    let mut serving = watch.request(request.version() == Version::HTTP_2);
    let patience = Duration::from_millis(service.app.limits.idle_timeout_ms);
    let waits = request.headers().contains_key(EXPECT);
    let rest = if waits || request.version() == Version::HTTP_2 { Rest::Leave } else { Rest::Read };
    let request = request.map(|body| PatientBody::new(body, patience, rest).boxed_unsync());
    let response = service.handle(request).await;
    serving.computed();
    Ok(response.map(|body| ServedBody { body, _serving: serving }))
}
