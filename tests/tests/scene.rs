//! The scene the product exists for, with real programs: an API is disconnected, its alert waits
//! 30 s across a `kill -9`, fires into a real Alertmanager, and resolves when the API is back;
//! meanwhile a real Prometheus and a ledger of our own write, and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidewatch_model::{Batch, Labels, RawLabels, Sample};
use tidewatch_tests::backend::Backend;
use tidewatch_tests::process::{Process, free_port, tidewatch, wait_for};
use tidewatch_tests::{http, peers, remote};

const API_UP: &str = "http_requests_total{code=\"200\"} 42\n";

/// The programs of the scene, on ports of their own.
struct Stage {
    folder: PathBuf,
    port: u16,
    node_port: u16,
    api: Backend,
    pager: Backend,
    server: Process,
    _peers: Vec<Process>,
}

fn start(folder: &Path) -> Result<Stage> {
    let [port, node_port, alertmanager_port, prometheus_port] =
        [free_port()?, free_port()?, free_port()?, free_port()?];
    let api = Backend::start(API_UP)?;
    let pager = Backend::start("")?;
    let write = |name: &str, text: String| -> Result<String> {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let alertmanager_yml = write(
        "alertmanager.yml",
        format!(
            "route: {{receiver: pager, group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers: [{{name: pager, webhook_configs: [{{url: 'http://127.0.0.1:{}/', send_resolved: true}}]}}]\n",
            pager.port()
        ),
    )?;
    write(
        "rules.yml",
        "groups:\n- name: api\n  interval: 1s\n  rules:\n  - record: job:up:sum\n    expr: sum by (job) (up)\n  \
         - alert: ApiDown\n    expr: up{job=\"api\"} == 0\n    for: 30s\n    labels: {severity: page}\n    \
         annotations: {summary: '{{ $labels.instance }} is down, up is {{ $value }}'}\n"
            .to_owned(),
    )?;
    write(
        "tidewatch.yml",
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s, external_labels: {{site: test}}}}\n\
             rule_files: [rules.yml]\n\
             alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager_port}']}}]}}]}}\n\
             scrape_configs:\n- {{job_name: api, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}\n\
             - {{job_name: node, static_configs: [{{targets: ['127.0.0.1:{node_port}']}}]}}\n",
            api.port()
        ),
    )?;
    let prometheus_yml = write(
        "prometheus.yml",
        format!(
            "global: {{scrape_interval: 1s}}\nremote_write: [{{url: 'http://127.0.0.1:{port}/api/v1/write'}}]\n\
             scrape_configs: [{{job_name: prometheus, static_configs: [{{targets: ['127.0.0.1:{prometheus_port}']}}]}}]\n"
        ),
    )?;
    let program = |name: &str| peers::find(name).context(name.to_owned());
    let log = |name: &str| folder.join(format!("{name}.log"));
    let peers = vec![
        Process::start(
            program("prometheus-node-exporter")?,
            &[format!("--web.listen-address=127.0.0.1:{node_port}")],
            &log("node_exporter"),
        )?,
        Process::start(
            program("prometheus-alertmanager")?,
            &[
                format!("--config.file={alertmanager_yml}"),
                format!("--storage.path={}", folder.join("alertmanager").display()),
                format!("--web.listen-address=127.0.0.1:{alertmanager_port}"),
                "--cluster.listen-address=".to_owned(),
            ],
            &log("alertmanager"),
        )?,
        Process::start(
            program("prometheus")?,
            &[
                format!("--config.file={prometheus_yml}"),
                format!("--storage.tsdb.path={}", folder.join("prometheus").display()),
                format!("--web.listen-address=127.0.0.1:{prometheus_port}"),
            ],
            &log("prometheus"),
        )?,
    ];
    let server = start_server(folder, port)?;
    Ok(Stage { folder: folder.to_owned(), port, node_port, api, pager, server, _peers: peers })
}

fn start_server(folder: &Path, port: u16) -> Result<Process> {
    let arguments = [
        format!("--config.file={}", folder.join("tidewatch.yml").display()),
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let process = Process::start(tidewatch()?, &arguments, &folder.join("tidewatch.log"))?;
    wait_for("tidewatch is ready", Duration::from_secs(20), || {
        http::get(port, "/-/ready").ok().filter(|answer| answer.status == 200)
    })?;
    Ok(process)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Writes counters without pause and keeps, beside the server, what was acknowledged.
struct Ledger {
    acknowledged: Arc<Mutex<BTreeMap<i64, f64>>>,
    stop: Arc<AtomicBool>,
    writer: Option<std::thread::JoinHandle<()>>,
}

/// Series of each of the ledger's requests.
const LEDGER_SERIES: usize = 50;

impl Ledger {
    fn start(port: u16) -> Ledger {
        let acknowledged = Arc::new(Mutex::new(BTreeMap::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (kept, halt) = (acknowledged.clone(), stop.clone());
        let writer = std::thread::spawn(move || {
            let mut count = 0.0;
            while !halt.load(Ordering::Relaxed) {
                let timestamp = now_ms();
                count += 1.0;
                let body = request(timestamp, count);
                if remote::send(port, &body).is_ok_and(|answer| answer.status / 100 == 2) {
                    kept.lock().expect("no panic holds it").insert(timestamp, count);
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Ledger { acknowledged, stop, writer: Some(writer) }
    }

    fn finish(&mut self) -> BTreeMap<i64, f64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            writer.join().expect("the writer does not panic");
        }
        self.acknowledged.lock().expect("no panic holds it").clone()
    }
}

fn request(timestamp: i64, value: f64) -> Vec<u8> {
    let labels: Vec<Labels> = (0..LEDGER_SERIES)
        .map(|series| Labels::from_pairs([("__name__", "ledger_total"), ("series", &series.to_string())]))
        .collect();
    let mut batch = Batch::new();
    for labels in &labels {
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value }]);
    }
    remote::body_of(&batch)
}

/// The one alert that the server shows, where it shows one.
fn alert(port: u16) -> Option<Value> {
    let alerts = http::get(port, "/api/v1/alerts").ok()?.json().ok()?;
    alerts["data"]["alerts"].as_array()?.first().cloned()
}

/// Milliseconds of an RFC 3339 time in UTC.
fn rfc3339_ms(text: &str) -> Result<i64> {
    let (date, time) = text.trim_end_matches('Z').split_once('T').context("a time")?;
    let number = |text: &str| text.parse::<i64>().context("a number");
    let date: Vec<i64> = date.split('-').map(number).collect::<Result<_>>()?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let clock: Vec<i64> = clock.split(':').map(number).collect::<Result<_>>()?;
    // Days from civil (Howard Hinnant's algorithm).
    let (y, m) = if date[1] <= 2 { (date[0] - 1, date[1] + 9) } else { (date[0], date[1] - 3) };
    let era = y / 400;
    let day_of_era = (y % 400) * 365 + (y % 400) / 4 - (y % 400) / 100 + (153 * m + 2) / 5 + date[2] - 1;
    let days = era * 146_097 + day_of_era - 719_468;
    let millis = number(&format!("{fraction:0<3}")[..3])?;
    Ok(((days * 24 + clock[0]) * 60 + clock[1]) * 60_000 + clock[2] * 1000 + millis)
}

#[test]
fn a_disconnected_api_pages_after_its_30_seconds_across_a_kill() -> Result<()> {
    if !peers::present(&["prometheus", "prometheus-alertmanager", "prometheus-node-exporter"]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let result = play(folder.path());
    if result.is_err() {
        for name in ["tidewatch", "alertmanager", "prometheus"] {
            let log = std::fs::read_to_string(folder.path().join(format!("{name}.log"))).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- {name}, newest line first\n{}", tail.join("\n"));
        }
    }
    result
}

fn play(folder: &Path) -> Result<()> {
    let mut stage = start(folder)?;
    let port = stage.port;
    let mut ledger = Ledger::start(port);

    // Before: everything is up, and a real Prometheus' own series have arrived.
    wait_for("both targets are up", Duration::from_secs(20), || {
        http::query(port, "up == 1").ok().filter(|r| r.as_array().is_some_and(|r| r.len() >= 2))
    })?;
    wait_for("the host's traffic is there", Duration::from_secs(20), || {
        let rate = format!(
            "rate(node_network_receive_bytes_total{{instance='127.0.0.1:{}'}}[10s])",
            stage.node_port
        );
        http::query(port, &rate).ok().filter(|r| r.as_array().is_some_and(|r| !r.is_empty()))
    })?;
    wait_for("Prometheus has written to us", Duration::from_secs(30), || {
        http::query(port, "prometheus_build_info")
            .ok()
            .filter(|r| r.as_array().is_some_and(|r| !r.is_empty()))
    })?;

    // The backend is disconnected: down at once, then pending.
    stage.api.set(None);
    wait_for("the API shows down", Duration::from_secs(5), || {
        http::query(port, "up{job='api'} == 0").ok().filter(|r| r.as_array().is_some_and(|r| !r.is_empty()))
    })?;
    let pending = wait_for("the alert is pending", Duration::from_secs(5), || alert(port))?;
    ensure!(pending["state"] == "pending", "{pending}");
    let active_at = rfc3339_ms(pending["activeAt"].as_str().context("activeAt")?)?;

    // Killed in the middle of ingest, while pending.
    std::thread::sleep(Duration::from_secs(8));
    stage.server.kill()?;
    std::thread::sleep(Duration::from_secs(2));
    stage.server = start_server(&stage.folder, port)?;
    let again = wait_for("the alert is there after the restart", Duration::from_secs(5), || alert(port))?;
    ensure!(again["state"] == "pending", "{again}");
    let restored = rfc3339_ms(again["activeAt"].as_str().context("activeAt")?)?;
    ensure!(restored == active_at, "activeAt was {active_at}, is {restored} after the restart");

    // It fires when it would have fired.
    let firing = wait_for("the alert fires", Duration::from_secs(40), || {
        alert(port).filter(|a| a["state"] == "firing")
    })?;
    let late_ms = now_ms() - (active_at + 30_000);
    ensure!((-100..=2_500).contains(&late_ms), "fired {late_ms} ms after its 30 s");
    ensure!(
        firing["annotations"]["summary"].as_str().is_some_and(|s| s.ends_with("is down, up is 0")),
        "{firing}"
    );
    let page = wait_for("the page", Duration::from_secs(10), || {
        stage.pager.posted().into_iter().find(|body| body.contains("\"status\":\"firing\""))
    })?;
    ensure!(page.contains("\"alertname\":\"ApiDown\"") && page.contains("\"site\":\"test\""), "{page}");

    // The API is back: the page shows up again.
    stage.api.set(Some(API_UP));
    wait_for("the alert is gone", Duration::from_secs(10), || alert(port).is_none().then_some(()))?;
    wait_for("the resolved page", Duration::from_secs(20), || {
        stage.pager.posted().into_iter().find(|body| body.contains("\"status\":\"resolved\""))
    })?;
    let recorded = http::query(port, "job:up:sum{job='api'}")?;
    ensure!(recorded[0]["value"][1] == "1", "{recorded}");

    check_ledger(port, &ledger.finish())
}

/// Every acknowledged sample is there, with its value.
fn check_ledger(port: u16, acknowledged: &BTreeMap<i64, f64>) -> Result<()> {
    ensure!(acknowledged.len() > 500, "only {} requests were acknowledged", acknowledged.len());
    let result = http::query(port, "ledger_total[10m]")?;
    let series = result.as_array().context("a matrix")?;
    ensure!(series.len() == LEDGER_SERIES, "{} series", series.len());
    for one in series {
        let values = one["values"].as_array().context("values")?;
        let read: BTreeMap<i64, f64> = values
            .iter()
            .filter_map(|pair| {
                Some(((pair[0].as_f64()? * 1000.0).round() as i64, pair[1].as_str()?.parse().ok()?))
            })
            .collect();
        for (timestamp, value) in acknowledged {
            ensure!(read.get(timestamp) == Some(value), "{}: lost {value} at {timestamp}", one["metric"]);
        }
    }
    Ok(())
}
