//! Native histograms on their way from a real Prometheus to us and back: the three answer alike.

use anyhow::Result;
use tidewatch_model::histogram::{CounterResetHint, FloatHistogram, Histogram, Span};
use tidewatch_model::{BatchHistogram, NativeHistogram};

use super::*;

const STEP_MS: i64 = 15_000;
const STEPS: i64 = 200;

/// Counters that gain buckets on the way, are reset, end and begin again; and gauges.
fn histogram(step: i64, is_gauge: bool) -> Option<Histogram> {
    if step == 140 {
        return Some(Histogram { sum: f64::from_bits(STALE_NAN_BITS), ..Histogram::default() });
    }
    if (141..150).contains(&step) {
        return None;
    }
    let total = if is_gauge { step * 7 % 50 + 1 } else { step % 90 + 1 };
    let length = if step > 40 { 5 } else { 3 };
    let counts: Vec<i64> = (0..2 + length).map(|bucket| total * (bucket + 1)).collect();
    let negative = [total, total * 3];
    let deltas = |counts: &[i64]| {
        let before = std::iter::once(&0).chain(counts);
        counts.iter().zip(before).map(|(count, before)| count - before).collect()
    };
    Some(Histogram {
        hint: if is_gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown },
        schema: 3,
        zero_threshold: 0.001,
        zero_count: total as u64,
        count: (total + counts.iter().chain(&negative).sum::<i64>()) as u64,
        sum: total as f64 * 12.3,
        positive_spans: vec![Span { offset: -2, length: 2 }, Span { offset: 1, length: length as u32 }],
        negative_spans: vec![Span { offset: 0, length: 2 }],
        positive_deltas: deltas(&counts),
        negative_deltas: deltas(&negative),
        ..Histogram::default()
    })
}

fn halved(histogram: &Histogram) -> FloatHistogram {
    let mut float = histogram.to_float();
    if !float.is_stale() {
        float.count /= 2.0;
        float.zero_count /= 2.0;
        let buckets = float.positive_buckets.iter_mut().chain(&mut float.negative_buckets);
        buckets.for_each(|count| *count /= 2.0);
    }
    float
}

/// What the series are.
const COUNTERS: [&str; 2] = ["integer", "float"];
const GAUGES: [&str; 1] = ["gauge"];

/// Sends the samples of some kinds, a request for each step, the last at `newest_ms`.
fn send(port: u16, newest_ms: i64, kinds: &[&str]) -> Result<()> {
    for step in 0..STEPS {
        let timestamp = newest_ms - (STEPS - 1 - step) * STEP_MS;
        let mut batch = Batch::new();
        let labels: Vec<Labels> = kinds
            .iter()
            .map(|kind| Labels::from_pairs([("__name__", "latency_seconds"), ("kind", *kind)]))
            .collect();
        for (kind, labels) in kinds.iter().zip(&labels) {
            let Some(histogram) = histogram(step, *kind == "gauge") else { continue };
            let value = match *kind {
                "float" => NativeHistogram::Float(halved(&histogram)),
                _ => NativeHistogram::Integer(histogram),
            };
            let sample = BatchHistogram { timestamp, start: 0, value };
            batch.push_histograms(RawLabels::Canonical(labels.as_bytes()), &[sample]);
        }
        remote_write(port, &batch)?;
    }
    Ok(())
}

/// Questions whose answers show counts and layouts, at bounds of buckets: within them newer releases
/// interpolate in another way.
const QUESTIONS: [&str; 5] = [
    "histogram_count(latency_seconds)",
    "histogram_sum(latency_seconds)",
    "histogram_fraction(-1, 1, latency_seconds)",
    "histogram_fraction(-Inf, 1, latency_seconds)",
    "histogram_fraction(1, 2, latency_seconds)",
];

/// And some that show resets, which Prometheus 2.42 answers wrongly: zero for integers. So these
/// answers are held against those of a server of ours that got the samples by remote write.
const RESETS: [&str; 4] = [
    "histogram_quantile(0.9, latency_seconds{kind!=\"gauge\"})",
    "histogram_count(increase(latency_seconds{kind!=\"gauge\"}[5m]))",
    "histogram_quantile(0.5, rate(latency_seconds{kind!=\"gauge\"}[5m]))",
    "resets(latency_seconds{kind!=\"gauge\"}[40m])",
];

/// The answers by question, series and time.
type Answers = BTreeMap<(String, String, i64), f64>;

fn answers(port: u16, newest_ms: i64, questions: &[&str]) -> Result<Answers> {
    let mut found = Answers::new();
    let (start, end) = ((newest_ms - STEPS * STEP_MS) / 1000 + 7, newest_ms / 1000 + 607);
    for question in questions {
        let path =
            format!("/api/v1/query_range?query={}&start={start}&end={end}&step=30", http::encode(question));
        let answer = http::get(port, &path)?;
        let json = answer.json().with_context(|| answer.text())?;
        let series = json["data"]["result"].as_array().with_context(|| answer.text())?;
        for one in series {
            for pair in one["values"].as_array().with_context(|| answer.text())? {
                let time = pair[0].as_f64().context("a time")? as i64;
                let value = pair[1].as_str().context("a value")?.parse()?;
                found.insert(((*question).to_owned(), one["metric"].to_string(), time), value);
            }
        }
    }
    Ok(found)
}

fn check_alike(who: &str, ours: &Answers, theirs: &Answers) -> Result<()> {
    let keys: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let mut differ = Vec::new();
    for key in keys {
        let (ours, theirs) = (ours.get(key), theirs.get(key));
        let alike = ours.zip(theirs).is_some_and(|(ours, theirs)| {
            ours == theirs || (ours - theirs).abs() <= 1e-9 * theirs.abs() || ours.is_nan() && theirs.is_nan()
        });
        if !alike {
            differ.push(format!("{key:?}: {ours:?}, expected {theirs:?}"));
        }
    }
    let shown = differ.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    ensure!(differ.is_empty(), "{who}: {} answers differ:\n{shown}", differ.len());
    Ok(())
}

fn prometheus(folder: &Path, data: &Path) -> Result<(Process, u16)> {
    let port = free_port()?;
    let config = write(folder, "prometheus.yml", "global: {}\n")?;
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--enable-feature=native-histograms".to_owned(),
        "--web.enable-remote-write-receiver".to_owned(),
        "--web.enable-admin-api".to_owned(),
    ];
    let program = peers::find("prometheus").context("prometheus")?;
    let server = Process::start(program, &arguments, &folder.join("prometheus.log"))?;
    wait_ready(port)?;
    Ok((server, port))
}

/// Waits until a server answers queries: ours takes writes before that.
fn wait_ready(port: u16) -> Result<()> {
    wait_for("the server answers", Duration::from_secs(60), || {
        http::get(port, "/api/v1/query?query=latency_seconds").ok().filter(|answer| answer.status == 200)
    })
    .map(drop)
}

fn ours(folder: &Path, data: &Path) -> Result<(Process, u16)> {
    let port = free_port()?;
    let arguments = [
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--log.level=error".to_owned(),
    ];
    let server = Process::start(tidewatch()?, &arguments, &folder.join("log"))?;
    wait_ready(port)?;
    Ok((server, port))
}

/// What our server on `data` answers, to questions about counts and about resets.
fn answers_of_ours(folder: &Path, data: &Path, newest_ms: i64) -> Result<[Answers; 2]> {
    let (_server, port) = ours(folder, data)?;
    Ok([answers(port, newest_ms, &QUESTIONS)?, answers(port, newest_ms, &RESETS)?])
}

#[test]
fn histograms_come_over_from_blocks_and_log_and_go_back() -> Result<()> {
    if !peers::present(&["promtool", "prometheus"]) {
        return Ok(());
    }
    let temporary = tempfile::tempdir()?;
    let folder = temporary.path();
    let [theirs, from_blocks, from_log, written, exported] =
        ["theirs", "from_blocks", "from_log", "written", "exported"].map(|name| folder.join(name));
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    let newest_ms = now_ms / STEP_MS * STEP_MS - 20 * 60_000;
    let (mut server, port) = prometheus(folder, &theirs)?;
    send(port, newest_ms, &COUNTERS)?;
    let counters = answers(port, newest_ms, &QUESTIONS)?;
    // Prometheus 2.42 can not make a snapshot where there are gauges.
    let snapshot = http::request(port, "POST", "/api/v1/admin/tsdb/snapshot", &[], &[])?;
    let name = snapshot.json()?["data"]["name"].as_str().with_context(|| snapshot.text())?.to_owned();
    send(port, newest_ms, &GAUGES)?;
    let expected = answers(port, newest_ms, &QUESTIONS)?;
    ensure!(expected.len() > counters.len() && counters.len() > 500, "{} answers", expected.len());
    server.terminate(Duration::from_secs(30))?;

    let said = import(&from_blocks, "prometheus", &theirs.join("snapshots").join(name))?;
    ensure!(said.contains("382 samples"), "{said}");
    let said = import(&from_log, "prometheus", &theirs)?;
    ensure!(said.contains("573 samples"), "{said}");
    let (_server, port) = ours(folder, &written)?;
    send(port, newest_ms, &COUNTERS)?;
    let resets = answers(port, newest_ms, &RESETS)?;
    ensure!(resets.values().any(|count| *count == 2.0), "two resets show");
    let [counts, found] = answers_of_ours(folder, &from_blocks, newest_ms)?;
    check_alike("ours from blocks", &counts, &counters)?;
    check_alike("ours from blocks, resets", &found, &resets)?;
    let [counts, found] = answers_of_ours(folder, &from_log, newest_ms)?;
    check_alike("ours from the log", &counts, &expected)?;
    check_alike("ours from the log, resets", &found, &resets)?;

    export(&from_log, "prometheus", &[&format!("--output={}", exported.display())])?;
    std::fs::create_dir_all(exported.join("wal"))?;
    let analysed = promtool(&["tsdb", "analyze", &exported.display().to_string()])?;
    ensure!(analysed.contains("kind"), "{analysed}");
    let (_prometheus, port) = prometheus(folder, &exported)?;
    check_alike("Prometheus on our blocks", &answers(port, newest_ms, &QUESTIONS)?, &expected)?;
    // And back once more: blocks of ours, read by us.
    let again = folder.join("again");
    import(&again, "prometheus", &exported)?;
    let [counts, found] = answers_of_ours(folder, &again, newest_ms)?;
    check_alike("ours from our blocks", &counts, &expected)?;
    check_alike("ours from our blocks, resets", &found, &resets)?;

    // Text has no words for histograms, and says so.
    let arguments = ["export", "--format=jsonl", &format!("--storage.tsdb.path={}", from_log.display())];
    let output = run(&tidewatch()?, &arguments.map(str::to_owned))?;
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(output.stdout.is_empty() && err.contains("573 native histograms left out"), "{err}");
    Ok(())
}
