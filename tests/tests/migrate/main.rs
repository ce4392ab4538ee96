//! The migration doors with real peers: what a real Prometheus stored comes over sample by sample,
//! and what we export is opened by it.

mod histograms;
mod interrupted;
mod late;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidewatch_ingest::{compress, encode_write_request};
use tidewatch_model::{Batch, BatchExemplar, Labels, RawLabels, STALE_NAN_BITS, Sample};
use tidewatch_tests::process::{Process, free_port, tidewatch, wait_for};
use tidewatch_tests::{http, peers};

/// Samples by series and time. NaNs are one: promtool does not tell them apart.
type Samples = BTreeMap<(String, i64), u64>;

fn run(program: &Path, arguments: &[String]) -> Result<Output> {
    Command::new(program).args(arguments).output().with_context(|| format!("run {}", program.display()))
}

/// Runs a program that must succeed; gives what it prints.
fn succeed(program: &Path, arguments: &[String]) -> Result<String> {
    let output = run(program, arguments)?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{} {arguments:?}: {}\n{out}{err}", program.display(), output.status);
    Ok(out.into_owned())
}

fn promtool(arguments: &[&str]) -> Result<String> {
    let program = peers::find("promtool").context("promtool")?;
    succeed(&program, &arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>())
}

fn import(folder: &Path, format: &str, source: &Path) -> Result<String> {
    succeed(&tidewatch()?, &import_arguments(folder, format, source))
}

fn import_arguments(folder: &Path, format: &str, source: &Path) -> Vec<String> {
    vec![
        "import".to_owned(),
        format!("--format={format}"),
        format!("--storage.tsdb.path={}", folder.display()),
        source.display().to_string(),
    ]
}

fn export(folder: &Path, format: &str, more: &[&str]) -> Result<String> {
    let mut arguments = vec![
        "export".to_owned(),
        format!("--format={format}"),
        format!("--storage.tsdb.path={}", folder.display()),
    ];
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    succeed(&tidewatch()?, &arguments)
}

fn bits(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}

/// What a data directory of ours holds.
fn held(folder: &Path) -> Result<Samples> {
    let mut samples = Samples::new();
    for line in export(folder, "jsonl", &[])?.lines() {
        let line: Value = serde_json::from_str(line)?;
        let metric = line["metric"].as_object().context("a metric")?;
        let labels =
            Labels::from_pairs(metric.iter().map(|(name, value)| (name, value.as_str().unwrap_or(""))));
        let (times, values) = (line["timestamps"].as_array(), line["values"].as_array());
        for (time, value) in times.context("times")?.iter().zip(values.context("values")?) {
            let value = match value {
                Value::Null => f64::from_bits(STALE_NAN_BITS),
                Value::String(text) => text.parse()?,
                value => value.as_f64().context("a number")?,
            };
            let before = samples.insert((labels.to_string(), time.as_i64().context("a time")?), bits(value));
            ensure!(before.is_none(), "{labels} has two samples at {time}");
        }
    }
    Ok(samples)
}

/// What promtool reads in a directory of Prometheus.
fn dumped(folder: &Path) -> Result<Samples> {
    let mut samples = Samples::new();
    for line in promtool(&["tsdb", "dump", &folder.display().to_string()])?.lines() {
        let mut parts = line.rsplitn(3, ' ');
        let time = parts.next().and_then(|time| time.parse().ok()).context(line.to_owned())?;
        let value: f64 = parts.next().and_then(|value| value.parse().ok()).context(line.to_owned())?;
        samples.insert((parts.next().context(line.to_owned())?.to_owned(), time), bits(value));
    }
    Ok(samples)
}

#[track_caller]
fn check_equal(ours: &Samples, theirs: &Samples) -> Result<()> {
    let missing = theirs.iter().find(|(key, value)| ours.get(*key) != Some(*value));
    let extra = ours.iter().find(|(key, value)| theirs.get(*key) != Some(*value));
    ensure!(missing.is_none(), "theirs, not ours: {missing:?}; {} and {}", ours.len(), theirs.len());
    ensure!(extra.is_none(), "ours, not theirs: {extra:?}; {} and {}", ours.len(), theirs.len());
    Ok(())
}

const NEWEST_MS: i64 = 1_795_000_000_000;

/// OpenMetrics text of some kinds of series over seven hours.
fn text() -> String {
    let mut text = "# HELP temperature_celsius Of rooms.\n# TYPE temperature_celsius gauge\n".to_owned();
    let times = || (0..1700i64).map(|step| NEWEST_MS - (1700 - step) * 15_000 + step % 7);
    let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
    for room in ["attic", "cellar \\\"old\\\"", "küche", "back\\\\slash"] {
        for (step, time) in times().enumerate() {
            let value = ((step * 37 + room.len()) % 97) as f64 / 7.0;
            text += &format!("temperature_celsius{{room=\"{room}\"}} {value} {}\n", seconds(time));
        }
    }
    text += "# TYPE requests counter\n";
    for (step, time) in times().enumerate() {
        text += &format!("requests_total{{code=\"200\"}} {} {}\n", step * 3, seconds(time));
    }
    text += "# TYPE odd unknown\n";
    for (time, value) in
        times().zip(["NaN", "+Inf", "-Inf", "-0", "5e-324", "1.7976931348623157e308"].iter().cycle())
    {
        text += &format!("odd {value} {}\n", seconds(time));
    }
    text + "# EOF\n"
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

#[test]
fn text_and_json_come_in_and_go_out_and_are_not_done_twice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [first, second, third] = ["first", "second", "third"].map(|name| folder.path().join(name));
    let source = write(folder.path(), "in.txt", &text())?;
    let said = import(&first, "openmetrics", &source)?;
    ensure!(said.contains("10200 samples"), "{said}");
    let samples = held(&first)?;
    ensure!(samples.len() == 10_200, "{} samples", samples.len());
    let again = import(&first, "openmetrics", &source)?;
    ensure!(again.contains("was imported before") && again.contains("0 samples"), "{again}");

    let json = write(folder.path(), "out.jsonl", &export(&first, "jsonl", &[])?)?;
    import(&second, "jsonl", &json)?;
    check_equal(&held(&second)?, &samples)?;
    let text = write(folder.path(), "out.txt", &export(&first, "openmetrics", &[])?)?;
    import(&third, "openmetrics", &text)?;
    check_equal(&held(&third)?, &samples)?;

    // Selectors and times narrow an export.
    let from = format!("--from={}", (NEWEST_MS - 60_000) as f64 / 1000.0);
    let few = export(&first, "openmetrics", &["--match=requests_total", "--match={code=\"200\"}", &from])?;
    let lines: Vec<&str> = few.lines().collect();
    ensure!(lines.len() == 6 && lines[0] == "# TYPE requests counter", "{few}");
    ensure!(lines[1].starts_with("requests_total{code=\"200\"} 5088 "), "{few}");
    Ok(())
}

// Other values for times that were stored already were left out in silence.
#[test]
fn samples_that_the_store_has_with_other_values_are_counted_and_left_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let first = text();
    import(&data, "openmetrics", &write(folder.path(), "first.txt", &first)?)?;
    let stored = held(&data)?;

    let other = first.replace("{code=\"200\"} 3", "{code=\"200\"} 4");
    let changed = first.lines().zip(other.lines()).filter(|(a, b)| a != b).count();
    let said = import(&data, "openmetrics", &write(folder.path(), "other.txt", &other)?)?;
    let (_, word) = said
        .split_once(&format!("{changed} samples have other values than the store has at these times; "))
        .with_context(|| said.clone())?;
    ensure!(word.starts_with("the stored ones were kept, first: ") && changed > 100, "{said}");
    ensure!(word.contains("code=\"200\"") && word.contains(" ms: 3 was kept, not 4\n"), "{said}");
    check_equal(&held(&data)?, &stored)?;

    // What is the same again is no conflict, nor is what the import before brought.
    let (_, same) = first.split_once('\n').context("lines")?;
    let said = import(&data, "openmetrics", &write(folder.path(), "same.txt", same)?)?;
    ensure!(said.contains("10200 samples") && !said.contains("value"), "{said}");
    check_equal(&held(&data)?, &stored)
}

/// What stands beside samples in a text comes in and goes out again, each family in one piece.
#[test]
fn metadata_and_exemplars_of_a_text_come_in_and_go_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let seconds = NEWEST_MS / 1000;
    let text = format!(
        "# HELP rooms Rooms \\\\ \\\"here\\\".\n# TYPE rooms gauge\nrooms 3 {seconds}\n\
         # HELP wait_seconds Waits.\n# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\n\
         wait_seconds_bucket{{le=\"0.5\"}} 1 {seconds} # {{trace=\"a \\\"b\\\"\"}} 0.25 {seconds}\n\
         wait_seconds_bucket{{le=\"+Inf\"}} 2 {seconds}\nwait_seconds_count 2 {seconds}\n\
         wait_seconds_sum 3.5 {seconds}\n# TYPE zones unknown\nzones{{le=\"1\"}} 1 {seconds}\n# EOF\n"
    );
    // Nothing is known of one, whose label must not be taken for that of the histogram before it.
    let zones = format!("zones{{le=\"1\"}} 1 {seconds}\n");
    let source = zones.clone() + &text.replace(&format!("# TYPE zones unknown\n{zones}"), "");
    // One that no reader of Prometheus would take comes in, and does not go out.
    let rooms = format!("\nrooms 3 {seconds}");
    let source = source.replace(&rooms, &format!("{rooms} # {{trace=\"c\"}} 3 {seconds}"));
    let said = import(&first, "openmetrics", &write(folder.path(), "in.txt", &source)?)?;
    ensure!(said.contains("2 exemplars and the metadata of 2 metrics"), "{said}");
    let found = export(&first, "openmetrics", &[])?;
    let mut lines: (Vec<&str>, Vec<&str>) = (text.lines().collect(), found.lines().collect());
    // Buckets are in the order of their labels' texts.
    lines.0.sort_unstable();
    lines.1.sort_unstable();
    ensure!(lines.0 == lines.1, "{found}");
    let again = write(folder.path(), "out.txt", &found)?;
    import(&second, "openmetrics", &again)?;
    ensure!(export(&second, "openmetrics", &[])? == found, "what went out comes in again");

    // Of a family that is not asked for nothing is said.
    let few = export(&first, "openmetrics", &["--match=rooms"])?;
    ensure!(few.lines().count() == 4 && !few.contains("wait"), "{few}");
    Ok(())
}

#[test]
fn bad_lines_are_named_and_cost_themselves_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let source = write(folder.path(), "in.txt", "a 1 1\na{b= 2 2\nb 3\nc 4 4\n")?;
    let output = run(&tidewatch()?, &import_arguments(&data, "openmetrics", &source))?;
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "what was left out shows in the status");
    for place in ["in.txt:2: ", "in.txt:3: the sample has no time", "does not end with"] {
        ensure!(err.contains(place), "{place:?} is not in {err}");
    }
    ensure!(held(&data)?.len() == 2, "the good lines are there");
    Ok(())
}

#[test]
fn a_server_that_has_the_directory_is_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let port = free_port()?;
    let arguments = [
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--log.level=error".to_owned(),
    ];
    let mut server = Process::start(tidewatch()?, &arguments, &folder.path().join("log"))?;
    wait_for("the server is ready", Duration::from_secs(30), || {
        http::get(port, "/-/ready").ok().filter(|answer| answer.status == 200)
    })?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let source = write(folder.path(), "in.txt", &format!("imported 7 {}\n# EOF\n", now - 86_400))?;
    let output = run(&tidewatch()?, &import_arguments(&data, "openmetrics", &source))?;
    let err = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && err.contains("in use by another process"), "{err}");

    // Once it has ended the import goes through, and a server shows it beside its own.
    server.terminate(Duration::from_secs(30))?;
    import(&data, "openmetrics", &source)?;
    let _server = Process::start(tidewatch()?, &arguments, &folder.path().join("log"))?;
    let query = format!("/api/v1/query?query=imported&time={}", now - 86_400);
    wait_for("the sample is served", Duration::from_secs(30), || {
        http::get(port, &query).ok().filter(|answer| answer.text().contains("\"7\""))
    })?;
    Ok(())
}

#[test]
fn blocks_of_prometheus_come_over_and_ours_are_read_by_it() -> Result<()> {
    if !peers::present(&["promtool", "prometheus"]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let [theirs, data, ours] = ["theirs", "data", "ours"].map(|name| folder.path().join(name));
    let source = write(folder.path(), "in.txt", &text())?;
    let shown = |path: &Path| path.display().to_string();
    promtool(&["tsdb", "create-blocks-from", "openmetrics", &shown(&source), &shown(&theirs)])?;
    std::fs::create_dir_all(theirs.join("wal"))?;
    let expected = dumped(&theirs)?;
    ensure!(expected.len() == 10_200, "{} samples", expected.len());
    import(&data, "prometheus", &theirs)?;
    check_equal(&held(&data)?, &expected)?;
    let again = import(&data, "prometheus", &theirs)?;
    ensure!(again.contains("was imported before") && again.contains("0 samples"), "{again}");

    export(&data, "prometheus", &[&format!("--output={}", ours.display())])?;
    std::fs::create_dir_all(ours.join("wal"))?;
    check_equal(&dumped(&ours)?, &expected)?;
    let listed = promtool(&["tsdb", "list", &shown(&ours)])?;
    ensure!(listed.lines().count() >= 4, "{listed}");
    let analysed = promtool(&["tsdb", "analyze", &shown(&ours)])?;
    ensure!(analysed.contains("room"), "{analysed}");
    check_prometheus_serves(folder.path(), &ours)
}

/// A real Prometheus on a copy of our blocks answers from them.
fn check_prometheus_serves(folder: &Path, blocks: &Path) -> Result<()> {
    let port = free_port()?;
    let config = write(folder, "prometheus.yml", "global: {}\n")?;
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", blocks.display()),
        "--storage.tsdb.retention.time=100y".to_owned(),
        format!("--web.listen-address=127.0.0.1:{port}"),
    ];
    let program = peers::find("prometheus").context("prometheus")?;
    let _server = Process::start(program, &arguments, &folder.join("prometheus.log"))?;
    let query = format!(
        "/api/v1/query?query=sum(count_over_time(temperature_celsius[8h]))&time={}",
        (NEWEST_MS + 1000) / 1000
    );
    let mut last = String::new();
    wait_for("Prometheus answers from our blocks", Duration::from_secs(30), || {
        last = http::get(port, &query).ok()?.text();
        last.contains("\"6800\"").then_some(())
    })
    .with_context(|| last)
}

/// VictoriaMetrics takes what we export, and we take what it exports.
#[test]
fn json_lines_go_to_victoria_metrics_and_come_back() -> Result<()> {
    if !peers::present(&["victoria-metrics"]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let source = write(folder.path(), "in.txt", &text())?;
    import(&first, "openmetrics", &source)?;
    let selectors = ["--match=temperature_celsius", "--match=requests_total"];
    let exported = export(&first, "jsonl", &selectors)?;
    let port = free_port()?;
    let arguments = [
        format!("-storageDataPath={}", folder.path().join("theirs").display()),
        format!("-httpListenAddr=127.0.0.1:{port}"),
        "-retentionPeriod=100y".to_owned(),
    ];
    let program = peers::find("victoria-metrics").context("victoria-metrics")?;
    let _server = Process::start(program, &arguments, &folder.path().join("log"))?;
    wait_for("it answers", Duration::from_secs(30), || {
        http::get(port, "/health").ok().filter(|answer| answer.status == 200)
    })?;
    let answer = http::request(port, "POST", "/api/v1/import", &[], exported.as_bytes())?;
    ensure!(answer.status / 100 == 2, "{}: {}", answer.status, answer.text());
    let mut lines = String::new();
    wait_for("it has all", Duration::from_secs(60), || {
        http::get(port, "/internal/force_flush").ok()?;
        lines = http::get(port, "/api/v1/export?match[]={__name__!=\"\"}&start=0").ok()?.text();
        lines.contains("requests_total").then_some(())
    })?;
    let source = write(folder.path(), "out.jsonl", &lines)?;
    import(&second, "jsonl", &source)?;
    let [sent, back] = [held(&first)?, held(&second)?];
    ensure!(back.len() == 5 * 1700, "{} samples", back.len());
    for (key, value) in back {
        // Theirs keeps some twelve digits.
        let (value, sent) = (f64::from_bits(value), f64::from_bits(sent[&key]));
        ensure!((value - sent).abs() <= 1e-10 * sent.abs(), "{key:?}: {value} came back for {sent}");
    }
    Ok(())
}

/// A real Prometheus that scraped itself: its log, with a deletion in it.
#[test]
fn the_log_of_a_real_prometheus_comes_over() -> Result<()> {
    if !peers::present(&["promtool", "prometheus"]) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let [theirs, data] = ["theirs", "data"].map(|name| folder.path().join(name));
    let port = free_port()?;
    let config = write(
        folder.path(),
        "prometheus.yml",
        &format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: self, static_configs: [{{targets: \
             ['127.0.0.1:{port}']}}]}}]\n"
        ),
    )?;
    let arguments = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", theirs.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--web.enable-admin-api".to_owned(),
        "--web.enable-remote-write-receiver".to_owned(),
        "--enable-feature=exemplar-storage".to_owned(),
    ];
    let program = peers::find("prometheus").context("prometheus")?;
    let mut server = Process::start(&program, &arguments, &folder.path().join("prometheus.log"))?;
    let ask = |query: &str| http::get(port, query).ok().map(|answer| answer.text());
    wait_for("it has scraped itself", Duration::from_secs(30), || {
        ask("/api/v1/query?query=count_over_time(up[1m])%3E3").filter(|answer| answer.contains("\"self\""))
    })?;
    let delete = "/api/v1/admin/tsdb/delete_series?match[]=go_goroutines";
    let answer = http::request(port, "POST", delete, &[], &[])?;
    ensure!(answer.status == 204, "{}", answer.text());
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    send_exemplar(port, now_ms)?;
    server.terminate(Duration::from_secs(30))?;
    let expected = dumped(&theirs)?;
    ensure!(expected.len() > 1000, "{} samples", expected.len());
    // As one that runs has it; Debian's is built without.
    let lock = std::fs::File::create(theirs.join("lock"))?;
    lock.lock()?;
    let refused = import(&data, "prometheus", &theirs).err().map_or(String::new(), |error| error.to_string());
    ensure!(refused.contains("a Prometheus runs on this directory"), "{refused}");
    ensure!(!data.exists(), "a refused import leaves nothing");
    drop(lock);
    let said = import(&data, "prometheus", &theirs)?;
    ensure!(said.contains("1 exemplars"), "{said}");
    check_equal(&held(&data)?, &expected)?;
    let again = import(&data, "prometheus", &theirs)?;
    ensure!(again.contains("was imported before") && !again.contains("exemplars"), "{again}");

    let port = free_port()?;
    let arguments = [
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        "--enable-feature=exemplar-storage".to_owned(),
        "--log.level=error".to_owned(),
    ];
    let _server = Process::start(tidewatch()?, &arguments, &folder.path().join("log"))?;
    let (start, end) = (now_ms / 1000 - 60, now_ms / 1000 + 60);
    let query = format!("/api/v1/query_exemplars?query=orders_total&start={start}&end={end}");
    wait_for("the exemplar is served", Duration::from_secs(30), || {
        http::get(port, &query).ok().filter(|answer| answer.text().contains("abc123"))
    })
    .map(drop)
}

/// Sends a sample and an exemplar of its series.
fn send_exemplar(port: u16, timestamp: i64) -> Result<()> {
    let series = Labels::from_pairs([("__name__", "orders_total"), ("shop", "a")]);
    let labels = Labels::from_pairs([("trace_id", "abc123")]);
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(series.as_bytes()), &[Sample { timestamp, value: 7.0 }]);
    batch.exemplars.push(BatchExemplar {
        series: RawLabels::Canonical(series.as_bytes()),
        labels: RawLabels::Canonical(labels.as_bytes()),
        value: 0.5,
        timestamp,
    });
    remote_write(port, &batch)
}

fn remote_write(port: u16, batch: &Batch<'_>) -> Result<()> {
    let (mut body, mut compressed) = (Vec::new(), Vec::new());
    encode_write_request(batch, &mut body);
    compress(&body, &mut compressed);
    let headers = [
        ("Content-Encoding", "snappy"),
        ("Content-Type", "application/x-protobuf"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let answer = http::request(port, "POST", "/api/v1/write", &headers, &compressed)?;
    ensure!(answer.status / 100 == 2, "{}: {}", answer.status, answer.text());
    Ok(())
}
