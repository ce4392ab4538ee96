//! Whole servers under one load, side by side: `compare [WORK…] [SERVER…]` with the works `known`,
//! `new`, `memory`, `latency` and `queries` and the servers `tidewatch`, `prometheus` and `victoria-metrics`; all where
//! none is named. Prints each figure and its ratio to the peers'.
//!
//! The sender shares the machine, so only the servers' own CPU time counts, read from the
//! operating system.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tidewatch_benches::load::{Load, STEP_S};
use tidewatch_benches::recording::Recording;
use tidewatch_benches::servers::{Kind, Sender, Server};
use tidewatch_tests::{http, root};

const CONNECTIONS: usize = 4;

/// One line of the result: a figure for each server.
struct Figure {
    name: String,
    values: Vec<Option<f64>>,
    more_is_better: bool,
}

fn main() -> Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let chosen_of = |all: &[&str], one: &str| {
        !wanted.iter().any(|w| all.contains(&w.as_str())) || wanted.iter().any(|w| w == one)
    };
    let chosen = |work: &str| chosen_of(&["known", "new", "memory", "latency", "queries"], work);
    let recording = Recording::read(&root().join("benches/data/recording.gz"))?;
    let kinds: Vec<Kind> = [Kind::Tidewatch, Kind::Prometheus, Kind::VictoriaMetrics]
        .into_iter()
        .filter(|kind| chosen_of(&["tidewatch", "prometheus", "victoria-metrics"], kind.name()))
        .filter(|kind| {
            let there = kind.program().is_some();
            if !there {
                eprintln!("left out: {} is not installed (tidewatch: cargo build --release)", kind.name());
            }
            there
        })
        .collect();
    let folder = std::env::temp_dir().join(format!("tidewatch-compare-{}", std::process::id()));
    let mut columns = Vec::new();
    for kind in &kinds {
        let mut figures = Vec::new();
        if chosen("known") || chosen("queries") {
            let load = Load::new(&recording, 50, 1_000)?;
            figures.extend(known(
                *kind,
                &folder.join(format!("{}-known", kind.name())),
                &load,
                chosen("queries"),
            )?);
        }
        if chosen("new") {
            let load = Load::new(&recording, 1_000, 1_000)?;
            figures.extend(new(*kind, &folder.join(format!("{}-new", kind.name())), &load)?);
        }
        if chosen("memory") {
            let load = Load::new(&recording, 214, 1_000)?;
            figures.extend(memory(*kind, &folder.join(format!("{}-memory", kind.name())), &load)?);
        }
        if chosen("latency") {
            let load = Load::new(&recording, 50, 1_000)?;
            figures.extend(latency(*kind, &folder.join(format!("{}-latency", kind.name())), &load)?);
        }
        for (name, value, _) in &figures {
            eprintln!("{}: {name}: {value:?}", kind.name());
        }
        columns.push(figures);
        let _ = std::fs::remove_dir_all(&folder);
    }
    print(&kinds, columns);
    Ok(())
}

type Measured = (String, Option<f64>, bool);

/// Six hours of scrapes of 50 hosts: the steady state of a fleet.
fn known(kind: Kind, folder: &Path, load: &Load, queries: bool) -> Result<Vec<Measured>> {
    let server = Server::start(kind, folder)?;
    let idle_bytes = server.resident_bytes()?;
    // Six hours, ending now: no sample is in the future.
    let steps = 6 * 3600 / STEP_S;
    let start_ms = now_ms()? - (steps * STEP_S * 1000) as i64 - 60_000;
    send(&server, load, 0..1, start_ms)?;
    let (cpu, clock) = (server.cpu_seconds()?, Instant::now());
    let mut resident = 0;
    let mut sent = 0;
    for part in [1..480, 480..steps] {
        sent += send(&server, load, part, start_ms)?;
        if resident == 0 {
            resident = server.resident_bytes()?;
        }
    }
    let (cpu, seconds) = (server.cpu_seconds()? - cpu, clock.elapsed().as_secs_f64());
    let series = load.series_count() as f64;
    let mut figures: Vec<Measured> = vec![
        ("known: samples per CPU-second".to_owned(), Some(sent as f64 / cpu), true),
        ("known: samples per second".to_owned(), Some(sent as f64 / seconds), true),
        (
            "known: bytes of memory per series after 2 h".to_owned(),
            Some(resident.saturating_sub(idle_bytes) as f64 / series),
            false,
        ),
    ];
    let (server, restart) = server.kill_and_restart("count(up) or vector(0)")?;
    figures.push(("known: seconds to complete after kill -9".to_owned(), Some(restart), false));
    let kept = scalar(&server, "sum(count_over_time(node_load1[7h]))")?;
    let lost = 50.0 * steps as f64 - kept;
    figures.push(("known: of 72,000 samples lost by the kill".to_owned(), Some(lost), false));
    let total = series * steps as f64;
    let not_log = |path: &Path| {
        !path.components().any(|part| part.as_os_str() == "wal" || part.as_os_str() == "chunks_head")
    };
    // For jobs that were due.
    std::thread::sleep(Duration::from_secs(10));
    figures.push((
        "known: bytes on disk per sample, log excluded, unasked".to_owned(),
        Some(server.disk_bytes(not_log) as f64 / total),
        false,
    ));
    let cpu = server.cpu_seconds()?;
    match kind {
        Kind::Tidewatch => {
            let answer = http::request(server.port, "POST", "/api/v1/admin/tsdb/compact", &[], &[])?;
            anyhow::ensure!(answer.status == 204, "compact: {}", answer.text());
        }
        Kind::VictoriaMetrics => drop(http::get(server.port, "/internal/force_merge")?),
        // It merges when it finds it right.
        Kind::Prometheus => {}
    }
    // For merges to end.
    std::thread::sleep(Duration::from_secs(30));
    figures.push((
        "known: CPU-seconds that the merge took".to_owned(),
        Some(server.cpu_seconds()? - cpu),
        false,
    ));
    figures.push((
        "known: bytes on disk per sample, log excluded, merged".to_owned(),
        Some(server.disk_bytes(not_log) as f64 / total),
        false,
    ));
    if queries {
        figures.extend(query(&server, start_ms, steps)?);
    }
    Ok(figures)
}

/// A thousand hosts that are seen for the first time.
fn new(kind: Kind, folder: &Path, load: &Load) -> Result<Vec<Measured>> {
    let server = Server::start(kind, folder)?;
    let idle_bytes = server.resident_bytes()?;
    let start_ms = now_ms()? - 8 * STEP_S as i64 * 1000 - 60_000;
    let cpu = server.cpu_seconds()?;
    let sent = send(&server, load, 0..8, start_ms)?;
    let cpu = server.cpu_seconds()? - cpu;
    let resident = server.resident_bytes()?;
    let (server, restart) = server.kill_and_restart("count(node_load1) or vector(0)")?;
    Ok(vec![
        ("new: samples per CPU-second".to_owned(), Some(sent as f64 / cpu), true),
        (
            "new: bytes of memory per series".to_owned(),
            Some(resident.saturating_sub(idle_bytes) as f64 / load.series_count() as f64),
            false,
        ),
        ("new: seconds to complete after kill -9".to_owned(), Some(restart), false),
        (
            "new: series lost by the kill".to_owned(),
            Some(load.series_count() as f64 - scalar(&server, "count({__name__=~\".+\"})")?),
            false,
        ),
    ])
}

/// Two hours of 214 hosts: what a series holds when its samples have come in.
fn memory(kind: Kind, folder: &Path, load: &Load) -> Result<Vec<Measured>> {
    let server = Server::start(kind, folder)?;
    let idle_bytes = server.resident_bytes()?;
    let start_ms = now_ms()? - 480 * STEP_S as i64 * 1000 - 60_000;
    send(&server, load, 0..480, start_ms)?;
    let series = load.series_count() as f64;
    if kind == Kind::Tidewatch {
        print_parts(&server, series)?;
    }
    let resident = server.resident_bytes()?.saturating_sub(idle_bytes) as f64;
    Ok(vec![(
        format!("memory: bytes per series, {} series after 480 samples each", load.series_count()),
        Some(resident / series),
        false,
    )])
}

/// What the parts of our head hold, as its metrics say.
fn print_parts(server: &Server, series: f64) -> Result<()> {
    let metrics = http::get(server.port, "/metrics")?.text();
    for line in
        metrics.lines().filter_map(|line| line.strip_prefix("tidewatch_store_head_memory_bytes{part="))
    {
        let (part, bytes) = line.split_once("} ").context("a metric has a value")?;
        eprintln!("memory: {:>6.1} bytes per series: {part}", bytes.parse::<f64>()? / series);
    }
    Ok(())
}

/// How long writes take while others query: all connections send as fast as they can.
fn latency(kind: Kind, folder: &Path, load: &Load) -> Result<Vec<Measured>> {
    let server = Server::start(kind, folder)?;
    let steps = 800;
    let start_ms = now_ms()? - (steps * STEP_S * 1000) as i64 - 60_000;
    send(&server, load, 0..80, start_ms)?;
    let done = AtomicBool::new(false);
    let (times, queries) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&server, start_ms, &done));
        let times = send_timed(&server, load, 80..steps, start_ms);
        done.store(true, Ordering::Relaxed);
        (times, asking.join().expect("no client panics"))
    });
    let (mut times, queries) = (times?, queries?);
    times.sort_unstable();
    let ms = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1000.0;
    eprintln!("{}: {} writes, {queries} queries beside them", kind.name(), times.len());
    Ok(vec![
        ("latency: of writes beside queries, median, ms".to_owned(), Some(ms(0.5)), false),
        ("latency: of writes beside queries, p99, ms".to_owned(), Some(ms(0.99)), false),
    ])
}

/// Asks for dashboards of the first twenty minutes until it is done; gives the number of answers.
fn ask(server: &Server, start_ms: i64, done: &AtomicBool) -> Result<usize> {
    let (start, end) = (start_ms / 1000, start_ms / 1000 + 80 * STEP_S as i64);
    let mut client = server.connect()?;
    let mut count = 0;
    while !done.load(Ordering::Relaxed) {
        let (name, expression, _) = QUERIES[count % QUERIES.len()];
        let expression = http::encode(expression);
        let path =
            format!("/api/v1/query_range?query={expression}&start={start}&end={end}&step=60&nocache=1");
        let answer = client.get(&path)?;
        anyhow::ensure!(answer.status == 200, "{name}: {}", answer.text());
        count += 1;
    }
    Ok(count)
}

/// The one number that an instant query gives; 0 where it gives nothing.
fn scalar(server: &Server, expression: &str) -> Result<f64> {
    let result = http::query(server.port, expression)?;
    Ok(result[0]["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0))
}

/// Sends the steps over several connections; gives the number of samples.
fn send(server: &Server, load: &Load, steps: Range<usize>, start_ms: i64) -> Result<usize> {
    let counts = over_connections(server, load, steps, start_ms, |sender, body, count| {
        sender.write(body)?;
        Ok(count)
    })?;
    Ok(counts.iter().sum())
}

/// As [`send`]; gives the time that each request took.
fn send_timed(server: &Server, load: &Load, steps: Range<usize>, start_ms: i64) -> Result<Vec<Duration>> {
    over_connections(server, load, steps, start_ms, |sender, body, _| {
        let began = Instant::now();
        sender.write(body)?;
        Ok(began.elapsed())
    })
}

/// Hands each request, with its number of samples, to `write`; gives what it gave for all.
fn over_connections<T: Send>(
    server: &Server,
    load: &Load,
    steps: Range<usize>,
    start_ms: i64,
    write: impl Fn(&mut Sender, &[u8], usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let write = &write;
    let lists: Vec<Result<Vec<T>>> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|worker| {
                let steps = steps.clone();
                scope.spawn(move || {
                    let mut sender = server.connect()?;
                    let mut list = Vec::new();
                    for step in steps {
                        for (body, count) in load.requests(step, start_ms, worker, CONNECTIONS) {
                            list.push(write(&mut sender, &body, count)?);
                        }
                    }
                    Ok(list)
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("no sender panics")).collect()
    });
    let lists = lists.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(lists.into_iter().flatten().collect())
}

/// Dashboard shapes; `R` stands for a window.
const QUERIES: [(&str, &str, bool); 13] = [
    ("instant sum of rates by instance", "sum by (instance) (rate(node_cpu_seconds_total[5m]))", true),
    ("range sum of rates by mode", "sum by (mode) (rate(node_cpu_seconds_total[5m]))", false),
    (
        "histogram_quantile",
        "histogram_quantile(0.99, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[5m])))",
        false,
    ),
    ("topk", "topk(5, rate(node_network_receive_bytes_total[5m]))", false),
    ("avg_over_time", "avg_over_time(node_load1[10m])", false),
    ("max_over_time", "max by (instance) (max_over_time(node_filesystem_avail_bytes[10m]))", false),
    ("quantile_over_time", "quantile_over_time(0.9, node_memory_MemAvailable_bytes[10m])", false),
    ("join", "node_memory_MemAvailable_bytes / on (instance) node_memory_MemTotal_bytes", false),
    (
        "join with group_left",
        "sum by (nodename) (rate(node_network_receive_bytes_total[5m]) * on (instance) group_left (nodename) node_uname_info)",
        false,
    ),
    ("regex over names", "count({__name__=~\"node_netstat_.*\"})", false),
    ("count of all series", "count({__name__=~\".+\"})", true),
    ("subquery", "max_over_time(sum by (instance) (rate(node_cpu_seconds_total[5m]))[30m:1m])", false),
    ("raw single series", "node_load1{instance=\"host-0001.example.com:9100\"}", false),
];

/// Runs each query until the server has spent a second of CPU on it (ticks are 10 ms) or four have
/// passed on the clock; CPU milliseconds a run.
fn query(server: &Server, start_ms: i64, steps: usize) -> Result<Vec<Measured>> {
    // An hour before the newest sample: a peer that lost the last seconds at the kill has the rest.
    let end = start_ms / 1000 + (steps * STEP_S) as i64 - 3600;
    let mut figures = Vec::new();
    server.forget_peak()?;
    let mut logarithms = 0.0;
    for (name, expression, instant) in QUERIES {
        let path = if instant {
            format!("/api/v1/query?query={}&time={end}", http::encode(expression))
        } else {
            let start = end - 3 * 3600;
            // VictoriaMetrics would answer the repeated query from a cache of results.
            format!(
                "/api/v1/query_range?query={}&start={start}&end={end}&step=60&nocache=1",
                http::encode(expression)
            )
        };
        let mut client = server.connect()?;
        let answer = client.get(&path)?;
        anyhow::ensure!(answer.status == 200, "{expression}: {}", answer.text());
        if answer.json()?["data"]["result"].as_array().is_none_or(Vec::is_empty) {
            eprintln!("{}: {name} found nothing", server.kind.name());
        }
        let (cpu, clock) = (server.cpu_seconds()?, Instant::now());
        let mut runs = 0;
        while clock.elapsed().as_secs_f64() < 4.0 && server.cpu_seconds()? - cpu < 1.0 {
            client.get(&path)?;
            runs += 1;
        }
        let milliseconds = (server.cpu_seconds()? - cpu) * 1000.0 / f64::from(runs);
        logarithms += milliseconds.ln();
        figures.push((format!("query: {name}, CPU ms"), Some(milliseconds), false));
    }
    let mean = (logarithms / QUERIES.len() as f64).exp();
    figures.push(("query: geometric mean of all, CPU ms".to_owned(), Some(mean), false));
    let mebibytes = |bytes: u64| Some(bytes as f64 / f64::from(1 << 20));
    figures.push(("query: resident MiB at the peak".to_owned(), mebibytes(server.peak_bytes()?), false));
    figures.push(("query: resident MiB afterwards".to_owned(), mebibytes(server.resident_bytes()?), false));
    Ok(figures)
}

fn now_ms() -> Result<i64> {
    let elapsed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("a clock after 1970")?;
    Ok(elapsed.as_millis() as i64)
}

/// A table: a row a figure, a column a server, then our ratio to each peer (above 1 is better).
fn print(kinds: &[Kind], columns: Vec<Vec<Measured>>) {
    let rows = columns.first().map_or(0, Vec::len);
    let figures = (0..rows).map(|row| Figure {
        name: columns[0][row].0.clone(),
        values: columns.iter().map(|column| column.get(row).and_then(|figure| figure.1)).collect(),
        more_is_better: columns[0][row].2,
    });
    let names: Vec<String> = kinds.iter().map(|kind| format!("{:>18}", kind.name())).collect();
    println!("{:<52}{}   ratio to peers", "", names.join(""));
    for figure in figures {
        let values: Vec<String> = figure
            .values
            .iter()
            .map(|v| v.map_or(format!("{:>18}", "-"), |v| format!("{v:>18.3}")))
            .collect();
        let ratios: Vec<String> = figure.values[1..]
            .iter()
            .map(|peer| match (figure.values[0], peer) {
                // Nothing to divide by: a loss of none.
                (Some(ours), Some(peer)) if ours == 0.0 || *peer == 0.0 => "-".to_owned(),
                (Some(ours), Some(peer)) if figure.more_is_better => format!("{:.1}", ours / peer),
                (Some(ours), Some(peer)) => format!("{:.1}", peer / ours),
                _ => "-".to_owned(),
            })
            .collect();
        println!("{:<52}{}   {}", figure.name, values.join(""), ratios.join("  "));
    }
}
