//! Real sockets: TLS, passwords, slow and idle clients, the connection limit, and stopping.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use support::{Scene, options};
use tidewatch_env::Env;
use tidewatch_model::Limits;
use tidewatch_server::{Server, ServerOptions};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server on a port of its own, until it is dropped.
struct Running {
    address: SocketAddr,
    runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    scene: Scene,
}

impl Running {
    fn start(options: ServerOptions, limits: Limits) -> Running {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let scene = Scene::in_env(Env::in_memory(), options, limits);
        let loopback = "127.0.0.1:0".parse().expect("an address");
        let server = runtime.block_on(Server::bind(&[loopback])).expect("a free port");
        let address = server.addresses()[0];
        let (stop, stopped) = oneshot::channel();
        let service = scene.service.clone();
        let task = runtime.spawn(server.serve(service, async move { drop(stopped.await) }));
        Running { address, runtime, stop: Some(stop), task: Some(task), scene }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        stream
    }

    /// Asks the server to stop and waits until it has.
    fn stop(&mut self) -> Duration {
        let began = Instant::now();
        drop(self.stop.take());
        self.runtime.block_on(self.task.take().expect("stopped once")).expect("no panic");
        began.elapsed()
    }
}

fn get(mut stream: impl Read + Write, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    answer
}

/// What a client reads until the server closes, and how long that takes.
fn read_until_closed(stream: &mut TcpStream) -> (String, Duration) {
    let began = Instant::now();
    let mut bytes = Vec::new();
    // A reset is a way to close too.
    let _ = stream.read_to_end(&mut bytes);
    (String::from_utf8_lossy(&bytes).into_owned(), began.elapsed())
}

fn write_certificate(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("a writable folder");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a writable folder");
    made.cert.pem()
}

fn tls(stream: TcpStream, certificate: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate"))
        .expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), stream)
}

#[test]
fn tls_and_passwords_guard_every_address_and_certificates_are_replaced_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = write_certificate(folder.path());
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    let file = folder.path().join("web.yml");
    let text = format!(
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\nhttp_server_config:\n  headers:\n    X-Frame-Options: sameorigin\nbasic_auth_users:\n  alice: {hash}\n"
    );
    std::fs::write(&file, &text).expect("a writable folder");
    let mut running =
        Running::start(ServerOptions { web_config_file: Some(file.clone()), ..options() }, Limits::default());
    assert!(running.scene.service.uses_tls() && running.scene.service.requires_password());

    let ask = |certificate: &str, path: &str, headers: &str| {
        get(tls(running.connect(), certificate), path, headers)
    };
    let answer = ask(&first, "/-/healthy", "");
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("www-authenticate: Basic"), "{answer}");
    // alice:wrong, bob:secret, alice:secret twice: computed first, remembered then.
    assert!(
        ask(&first, "/metrics", "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n").starts_with("HTTP/1.1 401 ")
    );
    assert!(
        ask(&first, "/metrics", "Authorization: Basic Ym9iOnNlY3JldA==\r\n").starts_with("HTTP/1.1 401 ")
    );
    let right = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";
    for _ in 0..2 {
        let answer = ask(&first, "/api/v1/labels", right);
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("x-frame-options: sameorigin"),
            "{answer}"
        );
    }

    let answer = get(running.connect(), "/-/healthy", "");
    assert!(
        answer.starts_with("HTTP/1.0 400 ") && answer.contains("an HTTP request to an HTTPS server"),
        "{answer}"
    );

    let second = write_certificate(folder.path());
    running.scene.service.refresh();
    assert!(ask(&second, "/api/v1/labels", right).starts_with("HTTP/1.1 200 "));
    // What became unusable changes nothing.
    std::fs::write(&file, "basic_auth_users: {alice: plain}\n# changed\n").expect("a writable folder");
    running.scene.service.refresh();
    assert!(ask(&second, "/api/v1/labels", right).starts_with("HTTP/1.1 200 "));
    assert!(running.stop() < Duration::from_secs(5));
}

#[test]
fn slow_silent_and_idle_clients_lose_their_connection() {
    let limits = Limits { header_timeout_ms: 300, idle_timeout_ms: 900, ..Limits::default() };
    let running = Running::start(options(), limits);
    let mut silent = running.connect();
    let mut slow = running.connect();
    slow.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: ").expect("the server reads");
    let mut idle = running.connect();
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").expect("the server reads");

    let mut stalled = running.connect();
    stalled
        .write_all(b"POST /api/v1/write HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        .expect("the server reads");

    assert_eq!(read_until_closed(&mut silent).0, "");
    assert_eq!(read_until_closed(&mut slow).0, "");
    let (answer, waited) = read_until_closed(&mut idle);
    assert!(answer.ends_with("Tidewatch Server is Healthy.\n"), "{answer}");
    assert!(waited > Duration::from_millis(300), "idle connections live longer than slow ones: {waited:?}");
    let answer = read_until_closed(&mut stalled).0;
    assert!(answer.ends_with("error reading body: the client is too slow in sending it\n"), "{answer}");
    let metrics = running.scene.service.metrics();
    assert!(metrics.contains("tidewatch_http_refused_total{limit=\"connection_timeout\"} 3\n"), "{metrics}");
}

#[test]
fn a_connection_too_many_is_told_so_and_large_headers_are_refused() {
    let limits = Limits { connections: 2, header_bytes: 1000, headers: 20, ..Limits::default() };
    let running = Running::start(options(), limits);
    let first = running.connect();
    let second = running.connect();
    // Both are accepted once the server has counted them.
    while !running.scene.service.metrics().contains("tidewatch_http_connections 2\n") {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (answer, _) = read_until_closed(&mut running.connect());
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("too many connections\n"), "{answer}");

    let large = format!("X-Large: {}\r\n", "x".repeat(1000));
    let answer = get(first, "/-/healthy", &large);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(answer.ends_with("request header has 1047 bytes, at most 1000 are read\n"), "{answer}");
    let many: String = (0..30).map(|n| format!("X-{n}: 1\r\n")).collect();
    let answer = get(second, "/-/healthy", &many);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(answer.ends_with("request has 32 headers, at most 20 are read\n"), "{answer}");
}

/// Most clients write a whole request before they read: a reset would cost them the reason.
#[test]
fn a_client_that_sends_all_of_a_refused_body_still_reads_why() {
    let running = Running::start(options(), Limits::default());
    let size = Limits::default().write_compressed_bytes + (4 << 20);
    let chunk = vec![b'x'; 1 << 20];
    let chunked = |stream: &mut TcpStream| {
        for _ in 0..size >> 20 {
            stream
                .write_all(b"100000\r\n")
                .and_then(|()| stream.write_all(&chunk))
                .expect("the server reads");
            stream.write_all(b"\r\n").expect("the server reads");
        }
        stream.write_all(b"0\r\n\r\n").expect("the server reads");
    };
    let declared = |stream: &mut TcpStream| stream.write_all(&vec![b'x'; size]).expect("the server reads");
    let declared_framing = format!("Content-Length: {size}");
    let ways: [&dyn Fn(&mut TcpStream); 2] = [&declared, &chunked];
    for (framing, send) in [declared_framing.as_str(), "Transfer-Encoding: chunked"].into_iter().zip(ways) {
        for (path, kind) in [
            ("/api/v1/write", "application/x-protobuf\r\nContent-Encoding: snappy"),
            ("/api/v1/query", "application/x-www-form-urlencoded"),
        ] {
            let mut stream = running.connect();
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nConnection: close\r\n{framing}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).expect("the server reads");
            send(&mut stream);
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("no reset");
            assert!(answer.starts_with("HTTP/1.1 413 "), "{path}, {framing}: {answer}");
        }
    }
}

#[test]
fn stopping_lets_idle_connections_go_at_once() {
    let mut running = Running::start(options(), Limits::default());
    let mut idle = running.connect();
    idle.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").expect("the server reads");
    let mut byte = [0];
    idle.read_exact(&mut byte).expect("an answer");
    assert!(running.stop() < Duration::from_secs(5));
    assert!(TcpStream::connect(running.address).is_err(), "nobody listens any more");
}
