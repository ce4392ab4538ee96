//! The client: credentials, redirects, deadlines around [`Transport`].

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, USER_AGENT,
};
use hyper::{Method, StatusCode, Uri};

use crate::body::read_body;
use crate::proxy::ProxyRules;
use crate::redirect::{REDIRECTS_MAX, is_same_origin, redirected_method, resolve};
use crate::tls::{TlsMaterial, client_config};
use crate::transport::Transport;
use crate::{ClientError, HttpClientConfig, ReadFile, RequestError, Secret};

/// Sent where the request names no `User-Agent` of its own.
const DEFAULT_USER_AGENT: &str = concat!("Tidewatch/", env!("CARGO_PKG_VERSION"));

/// A request to send.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub url: String,
    /// Added to those of the client's configuration, which come first.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// From the start to the last byte of the answer.
    pub timeout: Duration,
    /// Bytes of the answer's body, as it travels and decompressed.
    pub body_bytes_max: usize,
}

impl Request {
    pub fn get(url: &str, timeout: Duration, body_bytes_max: usize) -> Request {
        Request {
            method: Method::GET,
            url: url.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            timeout,
            body_bytes_max,
        }
    }
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Decompressed where it came with gzip.
    pub body: Bytes,
    /// Bytes of the body as they travelled.
    pub received_bytes: usize,
}

impl Response {
    /// A header's text; `None` where it is absent or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Sends requests as one configuration says. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    config: HttpClientConfig,
    read_file: ReadFile,
    proxy: Option<ProxyRules>,
    /// Guards the connections in use and the certificates they were made with. Replaced as a
    /// whole when a certificate's file changes.
    transport: Mutex<(TlsMaterial, Arc<Transport>)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Client {
    /// Checks the whole configuration, reading certificates and the names of secrets.
    pub fn new(config: HttpClientConfig, read_file: ReadFile) -> Result<Client, ClientError> {
        let material = TlsMaterial::read(&config.tls, &read_file)?;
        let transport = build_transport(&config, &material, &read_file)?;
        let proxy = ProxyRules::new(&config.proxy)?;
        for (name, _) in &config.headers {
            header_name(name)?;
        }
        let transport = Mutex::new((material, Arc::new(transport)));
        Ok(Client { shared: Arc::new(Shared { config, read_file, proxy, transport }) })
    }

    /// Sends one request and reads the whole answer.
    pub async fn send(&self, request: &Request) -> Result<Response, RequestError> {
        match tokio::time::timeout(request.timeout, self.shared.send(request)).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Timeout),
        }
    }
}

impl Shared {
    async fn send(&self, request: &Request) -> Result<Response, RequestError> {
        let origin = parse_url(&request.url)?;
        let (mut uri, mut method) = (origin.clone(), request.method.clone());
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send_once(request, &method, &uri, is_same_origin(&uri, &origin)).await?;
            let next_method = redirected_method(response.status(), &method);
            match next_method.filter(|_| self.config.follow_redirects) {
                Some(next) if response.headers().contains_key(LOCATION) => {
                    uri = redirect_target(&uri, response.headers())?;
                    method = next;
                }
                _ => return read_response(response, request.body_bytes_max).await,
            }
        }
        let reason = format!("stopped after {REDIRECTS_MAX} redirects");
        Err(RequestError::Redirect { from: uri.to_string(), reason })
    }

    /// One request without redirects. Credentials and configured headers, which may hold some,
    /// go to the origin alone.
    async fn send_once(
        &self,
        request: &Request,
        method: &Method,
        uri: &Uri,
        is_origin: bool,
    ) -> Result<hyper::Response<hyper::body::Incoming>, RequestError> {
        // A redirect that turned POST into GET has no body left.
        let keeps_body = *method == request.method;
        let body = if keeps_body { request.body.clone() } else { Bytes::new() };
        let mut outgoing = hyper::Request::new(Full::new(body));
        *outgoing.method_mut() = method.clone();
        *outgoing.uri_mut() = uri.clone();
        let headers = outgoing.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(DEFAULT_USER_AGENT));
        if is_origin {
            self.add_configured_headers(headers)?;
        }
        for (name, value) in &request.headers {
            let name = header_name(name)?;
            let describes_body = [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH].contains(&name);
            let is_credential = name == AUTHORIZATION || name == hyper::header::COOKIE;
            if (keeps_body || !describes_body) && (is_origin || !is_credential) {
                let value = header_value(name.as_str(), value)?;
                headers.insert(name, value);
            }
        }
        let proxy = self.proxy.as_ref().and_then(|rules| rules.proxy_for(uri));
        self.current_transport(uri)?.send(outgoing, proxy).await
    }

    fn add_configured_headers(&self, headers: &mut HeaderMap) -> Result<(), ClientError> {
        for (name, secret) in &self.config.headers {
            let value = self.secret("header", secret)?;
            headers.append(header_name(name)?, sensitive(name, &value)?);
        }
        let authorization = if let Some(basic) = &self.config.basic_auth {
            let username = self.secret("username", &basic.username)?;
            let password = match &basic.password {
                Some(password) => self.secret("password", password)?,
                None => String::new(),
            };
            format!("Basic {}", BASE64.encode(format!("{username}:{password}")))
        } else if let Some(authorization) = &self.config.authorization {
            let credentials = self.secret("credentials", &authorization.credentials)?;
            format!("{} {credentials}", authorization.scheme)
        } else {
            return Ok(());
        };
        headers.insert(AUTHORIZATION, sensitive("Authorization", &authorization)?);
        Ok(())
    }

    fn secret(&self, what: &'static str, secret: &Secret) -> Result<String, ClientError> {
        read_secret(what, secret, &self.read_file)
    }

    /// The connections to use, made anew when a certificate's file has changed.
    fn current_transport(&self, uri: &Uri) -> Result<Arc<Transport>, ClientError> {
        let mut current = self.transport.lock().unwrap_or_else(PoisonError::into_inner);
        let tls = &self.config.tls;
        let names_a_file =
            [&tls.ca, &tls.cert, &tls.key].into_iter().any(|secret| matches!(secret, Some(Secret::File(_))));
        if uri.scheme_str() == Some("https") && names_a_file {
            let material = TlsMaterial::read(tls, &self.read_file)?;
            if material != current.0 {
                let transport = build_transport(&self.config, &material, &self.read_file)?;
                *current = (material, Arc::new(transport));
            }
        }
        Ok(current.1.clone())
    }
}

fn build_transport(
    config: &HttpClientConfig,
    material: &TlsMaterial,
    read_file: &ReadFile,
) -> Result<Transport, ClientError> {
    let mut connect_headers = HeaderMap::new();
    for (name, secret) in &config.proxy.connect_headers {
        let value = read_secret("proxy header", secret, read_file)?;
        connect_headers.append(header_name(name)?, sensitive(name, &value)?);
    }
    let tls = client_config(&config.tls, material)?;
    Transport::new(tls, &config.tls, config.enable_http2, connect_headers)
}

fn read_secret(what: &'static str, secret: &Secret, read_file: &ReadFile) -> Result<String, ClientError> {
    match secret {
        Secret::Inline(text) => Ok(text.clone()),
        Secret::File(path) => {
            let bytes =
                read_file(path).map_err(|source| ClientError::Read { what, path: path.clone(), source })?;
            Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        }
    }
}

fn parse_url(url: &str) -> Result<Uri, RequestError> {
    let refused = || RequestError::Url { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if is_http && uri.host().is_some_and(|host| !host.is_empty()) { Ok(uri) } else { Err(refused()) }
}

fn redirect_target(from: &Uri, headers: &HeaderMap) -> Result<Uri, RequestError> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    resolve(from, location).ok_or_else(|| RequestError::Redirect {
        from: from.to_string(),
        reason: format!("{location:?} is no http or https URL"),
    })
}

async fn read_response(
    response: hyper::Response<hyper::body::Incoming>,
    body_bytes_max: usize,
) -> Result<Response, RequestError> {
    let (head, body) = response.into_parts();
    let is_gzip = head
        .headers
        .get(CONTENT_ENCODING)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"gzip"));
    let (body, received_bytes) = read_body(body, is_gzip, body_bytes_max).await?;
    Ok(Response { status: head.status, headers: head.headers, body, received_bytes })
}

fn header_name(name: &str) -> Result<HeaderName, ClientError> {
    let invalid = "the name is not valid";
    name.parse().map_err(|_| ClientError::Header { name: name.to_owned(), reason: invalid })
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, ClientError> {
    let invalid = "the value holds bytes that headers can not";
    HeaderValue::from_str(value).map_err(|_| ClientError::Header { name: name.to_owned(), reason: invalid })
}

fn sensitive(name: &str, value: &str) -> Result<HeaderValue, ClientError> {
    let mut value = header_value(name, value)?;
    value.set_sensitive(true);
    Ok(value)
}
