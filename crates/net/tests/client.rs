//! The client against small servers on loopback: what they see, and what it makes of their answers.

mod support;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode};
use support::{Certificates, Server, answer};
use tidewatch_net::{
    Authorization, BasicAuth, Client, HttpClientConfig, Method, ProxyConfig, Request, Secret, TlsConfig,
    TlsVersion,
};

fn client(config: HttpClientConfig) -> Client {
    Client::new(config, Arc::new(|path| std::fs::read(path))).unwrap()
}

fn get(url: &str) -> Request {
    Request::get(url, Duration::from_secs(5), 1 << 20)
}

fn inline(text: &str) -> Secret {
    Secret::Inline(text.to_owned())
}

async fn error_of(client: &Client, request: &Request) -> String {
    client.send(request).await.expect_err("the request fails").to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_are_read_up_to_the_limit_before_and_after_decompression() {
    let server = Server::start(|request| {
        let path = request.uri().path().to_owned();
        let body = match path.as_str() {
            "/small" => vec![b'x'; 1000],
            "/large" => vec![b'x'; 1001],
            "/gzip" => gzip(&[b'y'; 1000]),
            "/bomb" => gzip(&[0; 1 << 20]),
            _ => b"no gzip at all".to_vec(),
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        if !matches!(path.as_str(), "/small" | "/large") {
            response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        }
        response
    })
    .await;
    let client = client(HttpClientConfig::default());
    let request = |path: &str| Request { body_bytes_max: 1000, ..get(&server.url(path)) };
    assert_eq!(client.send(&request("/small")).await.unwrap().body, vec![b'x'; 1000]);
    assert_eq!(client.send(&request("/gzip")).await.unwrap().body, vec![b'y'; 1000]);
    assert_eq!(error_of(&client, &request("/large")).await, "body size limit exceeded");
    assert_eq!(error_of(&client, &request("/bomb")).await, "body size limit exceeded");
    assert!(error_of(&client, &request("/garbage")).await.starts_with("body is no gzip: "));
}

#[tokio::test]
async fn credentials_are_sent_and_their_files_read_anew_each_time() {
    let server = Server::start(|request| {
        let seen =
            |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        answer(200, &format!("{} {} {}", seen("authorization"), seen("x-tenant"), seen("user-agent")))
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let bearer = HttpClientConfig {
        authorization: Some(Authorization {
            scheme: "Bearer".to_owned(),
            credentials: Secret::File(file.clone()),
        }),
        headers: vec![("X-Tenant".to_owned(), inline("blue"))],
        ..HttpClientConfig::default()
    };
    let bearer = client(bearer);
    let mut request = get(&server.url("/"));
    request.headers.push(("User-Agent".to_owned(), "Test/1".to_owned()));
    assert_eq!(bearer.send(&request).await.unwrap().body, "Bearer first blue Test/1");
    std::fs::write(&file, "second").unwrap();
    assert_eq!(bearer.send(&request).await.unwrap().body, "Bearer second blue Test/1");
    std::fs::remove_file(&file).unwrap();
    let error = error_of(&bearer, &request).await;
    assert!(error.starts_with(&format!("unable to read credentials {}: ", file.display())), "{error}");

    let basic = BasicAuth { username: inline("user"), password: Some(inline("pass")) };
    let basic = client(HttpClientConfig { basic_auth: Some(basic), ..HttpClientConfig::default() });
    assert_eq!(basic.send(&request).await.unwrap().body, "Basic dXNlcjpwYXNz - Test/1");
    assert!(!format!("{basic:?}").contains("pass\""), "{basic:?}");
}

#[tokio::test]
async fn a_redirect_takes_credentials_to_the_same_origin_only() {
    let echo = |request: hyper::Request<hyper::body::Incoming>| {
        let has = |name: &str| request.headers().contains_key(name);
        answer(200, &format!("{} {} {}", request.method(), has("authorization"), has("x-secret")))
    };
    let other = Server::start(echo).await;
    let away = other.url("/away");
    let server = Server::start(move |request| {
        let to = |status: u16, location: &str| {
            let mut response = answer(status, "");
            response.headers_mut().insert("location", location.parse().unwrap());
            response
        };
        match request.uri().path() {
            "/away" => to(302, &away),
            "/here" => to(307, "there"),
            "/post" => to(303, "/there"),
            "/loop" => to(301, "/loop"),
            "/file" => to(301, "file:///etc/passwd"),
            _ => echo(request),
        }
    })
    .await;
    let config = HttpClientConfig {
        basic_auth: Some(BasicAuth { username: inline("u"), password: None }),
        headers: vec![("X-Secret".to_owned(), inline("s"))],
        ..HttpClientConfig::default()
    };
    let still = client(HttpClientConfig { follow_redirects: false, ..config.clone() });
    let client = client(config);
    let post = |path: &str| Request { method: Method::POST, ..get(&server.url(path)) };
    assert_eq!(client.send(&get(&server.url("/away"))).await.unwrap().body, "GET false false");
    assert_eq!(client.send(&post("/here")).await.unwrap().body, "POST true true");
    assert_eq!(client.send(&post("/post")).await.unwrap().body, "GET true true");
    let error = error_of(&client, &get(&server.url("/loop"))).await;
    assert!(error.ends_with("stopped after 10 redirects"), "{error}");
    let error = error_of(&client, &get(&server.url("/file"))).await;
    assert!(error.ends_with("\"file:///etc/passwd\" is no http or https URL"), "{error}");
    assert_eq!(still.send(&get(&server.url("/away"))).await.unwrap().status, StatusCode::FOUND);
}

#[tokio::test]
async fn a_request_ends_at_its_deadline() {
    let server = Server::start_silent().await;
    let request = Request { timeout: Duration::from_millis(50), ..get(&server.url("/")) };
    let error = error_of(&client(HttpClientConfig::default()), &request).await;
    assert_eq!(error, "context deadline exceeded");
}

#[tokio::test]
async fn what_can_not_be_reached_is_named() {
    let client = client(HttpClientConfig::default());
    let free = support::free_port();
    let error = error_of(&client, &get(&format!("http://127.0.0.1:{free}/"))).await;
    assert_eq!(error, format!("dial tcp 127.0.0.1:{free}: connect: connection refused"));
    for url in ["ftp://host/", "http://", "nonsense", "http:///path"] {
        assert_eq!(error_of(&client, &get(url)).await, format!("{url:?} is no http or https URL"));
    }
}

fn trusting(ca: Secret) -> TlsConfig {
    TlsConfig { ca: Some(ca), ..TlsConfig::default() }
}

async fn try_tls(server: &Server, tls: TlsConfig) -> Result<Bytes, String> {
    let client = Client::new(
        HttpClientConfig { tls, ..HttpClientConfig::default() },
        Arc::new(|path| std::fs::read(path)),
    )
    .map_err(|error| error.to_string())?;
    client.send(&get(&server.url("/"))).await.map(|response| response.body).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_peer_must_prove_its_name_to_an_authority_we_trust() {
    let certificates = Certificates::new("127.0.0.1");
    let server = Server::start_tls(&certificates, false, |_| answer(200, "ok")).await;
    let ca = || inline(&certificates.ca_pem);
    assert_eq!(try_tls(&server, trusting(ca())).await.unwrap(), "ok");

    let stranger = Certificates::new("127.0.0.1");
    let error = try_tls(&server, trusting(inline(&stranger.ca_pem))).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");

    let named = TlsConfig { server_name: Some("elsewhere.test".to_owned()), ..trusting(ca()) };
    let error = try_tls(&server, named).await.unwrap_err();
    assert!(error.contains("not valid for name"), "{error}");

    let careless = TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() };
    assert_eq!(try_tls(&server, careless).await.unwrap(), "ok");

    let old = TlsConfig { max_version: Some(TlsVersion::Tls11), ..trusting(ca()) };
    let error = try_tls(&server, old).await.unwrap_err();
    assert_eq!(error, "TLS configuration: no version between min_version and max_version is spoken");
    let garbage = try_tls(&server, trusting(inline("no PEM"))).await.unwrap_err();
    assert_eq!(garbage, "CA certificate holds no usable PEM: there is no certificate in it");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks() {
    let certificates = Certificates::new("127.0.0.1");
    let server = Server::start_tls(&certificates, true, |_| answer(200, "known")).await;
    let anonymous = trusting(inline(&certificates.ca_pem));
    assert!(try_tls(&server, anonymous.clone()).await.is_err());
    let known = TlsConfig {
        cert: Some(inline(&certificates.cert_pem)),
        key: Some(inline(&certificates.key_pem)),
        ..anonymous.clone()
    };
    assert_eq!(try_tls(&server, known).await.unwrap(), "known");
    let half = TlsConfig { cert: Some(inline(&certificates.cert_pem)), ..anonymous };
    assert!(try_tls(&server, half).await.unwrap_err().contains("exactly one of key or key_file"));
}

#[tokio::test]
async fn a_replaced_authority_file_is_used_without_a_restart() {
    let certificates = Certificates::new("127.0.0.1");
    let server = Server::start_tls(&certificates, false, |_| answer(200, "ok")).await;
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("ca.pem");
    std::fs::write(&file, Certificates::new("127.0.0.1").ca_pem).unwrap();
    let tls = trusting(Secret::File(file.clone()));
    let client = client(HttpClientConfig { tls, ..HttpClientConfig::default() });
    assert!(client.send(&get(&server.url("/"))).await.is_err());
    std::fs::write(&file, &certificates.ca_pem).unwrap();
    assert_eq!(client.send(&get(&server.url("/"))).await.unwrap().body, "ok");
}

#[tokio::test]
async fn requests_go_through_the_proxy_unless_excepted() {
    let certificates = Certificates::new("secure.test");
    let secure = Server::start_tls(&certificates, false, |_| answer(200, "through the tunnel")).await;
    let proxy = Server::start_proxy(secure.port()).await;
    let config = HttpClientConfig {
        proxy: ProxyConfig {
            url: Some(format!("http://user:pass@127.0.0.1:{}", proxy.port())),
            no_proxy: "direct.test".to_owned(),
            connect_headers: vec![("X-Reason".to_owned(), inline("scrape"))],
            ..ProxyConfig::default()
        },
        tls: trusting(inline(&certificates.ca_pem)),
        ..HttpClientConfig::default()
    };
    let client = client(config);
    let plain = client.send(&get("http://plain.test:9100/metrics")).await.unwrap();
    assert_eq!(plain.body, "GET http://plain.test:9100/metrics plain.test:9100 Basic dXNlcjpwYXNz");
    let tunnelled = client.send(&get("https://secure.test/")).await.unwrap();
    assert_eq!(tunnelled.body, "through the tunnel");
    assert_eq!(proxy.seen(), ["CONNECT secure.test:443 scrape Basic dXNlcjpwYXNz"]);
    // Excepted names are looked up directly, which fails for a name that does not exist.
    assert!(client.send(&get("http://direct.test:1/")).await.is_err());
}
