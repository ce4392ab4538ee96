//! The tokio loop against a real server on loopback.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tidewatch_env::Env;
use tidewatch_model::{Batch, METRIC_NAME};
use tidewatch_net::{BasicAuth, Secret};
use tidewatch_scrape::{ScrapeConfig, ScrapeOptions, Scraper, Sink, SinkOutcome, StaticConfig, run};

/// The last value of each metric, with how often it came.
#[derive(Default)]
struct Latest(Mutex<BTreeMap<String, (f64, usize)>>);

impl Sink for Latest {
    fn append(&self, batch: &Batch<'_>) -> SinkOutcome {
        let mut latest = self.0.lock().unwrap();
        for series in &batch.series {
            let mut pairs = series.labels.pairs().flatten();
            let (_, name) = pairs.find(|(name, _)| *name == METRIC_NAME.as_bytes()).expect("a metric's name");
            let sample = batch.samples[series.samples.start as usize];
            let entry = latest.entry(String::from_utf8_lossy(name).into_owned()).or_default();
            *entry = (sample.value, entry.1 + 1);
        }
        SinkOutcome::default()
    }
}

async fn start_server() -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service =
                    service_fn(|request| async move { Ok::<_, std::convert::Infallible>(answer(&request)) });
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
    let path = request.uri().path();
    let (status, content_type, body) = match path {
        "/metrics" if header("authorization") != "Basic dXNlcjpwYXNz" => (401, "text/plain", "no"),
        "/metrics" => {
            assert!(header("accept").starts_with("application/openmetrics-text;version=1.0.0"));
            assert_eq!(header("accept-encoding"), "gzip");
            assert_eq!(header("x-prometheus-scrape-timeout-seconds"), "0.2");
            (200, "application/openmetrics-text; version=1.0.0", "# TYPE m counter\nm_total 7.0\n# EOF\n")
        }
        "/large" => (200, "text/plain", "m{x=\"0123456789012345678901234567890123456789\"} 1\n"),
        "/html" => (200, "text/html", "<html>"),
        _ => (500, "text/plain", "broken"),
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(body.as_bytes()).unwrap();
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .header("content-encoding", "gzip")
        .body(Full::new(gzip.finish().unwrap().into()))
        .unwrap()
}

/// Scrapes `path` of a server for a while; gives what the store saw and the target's last error.
async fn scrape(
    path: &str,
    change: impl FnOnce(&mut ScrapeConfig),
) -> (BTreeMap<String, (f64, usize)>, String) {
    let port = start_server().await;
    let env = Env::real().unwrap();
    let mut config = ScrapeConfig::new("job");
    (config.scrape_interval_ms, config.scrape_timeout_ms) = (200, 200);
    config.metrics_path = path.to_owned();
    config.static_configs =
        vec![StaticConfig { targets: vec![format!("127.0.0.1:{port}")], labels: Vec::new() }];
    change(&mut config);
    let scraper = Arc::new(Scraper::new(env.clone(), ScrapeOptions::default()));
    scraper.apply(vec![config]).unwrap();
    let sink = Arc::new(Latest::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    let running = tokio::spawn(run(scraper.clone(), env, sink.clone(), shutdown));
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if sink.0.lock().unwrap().get("up").is_some_and(|up| up.1 >= 3) {
            break;
        }
    }
    stop.send(()).unwrap();
    running.await.unwrap();
    let latest = sink.0.lock().unwrap().clone();
    (latest, scraper.targets().active[0].last_error.clone())
}

#[tokio::test]
async fn a_real_server_is_scraped_again_and_again() {
    let (latest, error) = scrape("/metrics", |config| {
        let password = Some(Secret::Inline("pass".into()));
        config.http.basic_auth = Some(BasicAuth { username: Secret::Inline("user".into()), password });
    })
    .await;
    assert_eq!(error, "");
    assert!(latest["m_total"].0 == 7.0 && latest["m_total"].1 >= 3, "{latest:?}");
    assert_eq!(latest["up"].0, 1.0);
    assert!(latest["scrape_duration_seconds"].0 > 0.0);
}

#[tokio::test]
async fn answers_that_are_no_metrics_say_what_they_are() {
    let (latest, error) = scrape("/metrics", |_| {}).await;
    assert_eq!((latest["up"].0, error.as_str()), (0.0, "server returned HTTP status 401 Unauthorized"));
    let (_, error) = scrape("/broken", |_| {}).await;
    assert_eq!(error, "server returned HTTP status 500 Internal Server Error");
    let (_, error) = scrape("/html", |_| {}).await;
    assert_eq!(
        error,
        "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target"
    );
    let (latest, error) = scrape("/large", |config| {
        (config.body_size_limit, config.extra_scrape_metrics) = (30, true);
    })
    .await;
    assert_eq!((latest["scrape_body_size_bytes"].0, error.as_str()), (-1.0, "body size limit exceeded"));
}

#[tokio::test]
async fn a_target_that_is_not_there_is_down() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (latest, error) = scrape("/metrics", |config| {
        config.static_configs[0].targets = vec![free.to_string()];
    })
    .await;
    assert_eq!(latest["up"].0, 0.0);
    assert!(error.starts_with(&format!("Get \"http://{free}/metrics\": ")), "{error}");
    assert!(error.contains("refused"), "{error}");
}
