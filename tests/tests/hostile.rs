//! Queries that mean harm, against a server with 1 GiB of memory: each is refused in Prometheus'
//! words or finished, the server stays within its memory and alive, and remote write goes on.
//!
//! With 100,000 series. `TIDEWATCH_HOSTILE_SERIES=1000000` asks for more of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use tidewatch_model::{Batch, Labels, RawLabels, Sample};
use tidewatch_tests::cage::{Cage, cpu_seconds, resident_peak_bytes};
use tidewatch_tests::http::{self, Answer, encode};
use tidewatch_tests::process::{Process, free_port, tidewatch, wait_for};
use tidewatch_tests::remote::write;

const MEMORY_BYTES: u64 = 1 << 30;
/// The server's limit on a query. An answer comes within it, the wait for a place and some slack.
const QUERY_SECONDS: u64 = 10;
const ANSWER: Duration = Duration::from_secs(QUERY_SECONDS + 10 + 10);
/// The longest that a write may wait for its acknowledgement.
const WRITE: Duration = Duration::from_secs(15);

struct Stage {
    port: u16,
    server: Process,
    ledger: Ledger,
    now: i64,
    series: usize,
}

#[test]
fn hostile_queries_are_refused_or_finished_and_writes_go_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cage = Cage::new(MEMORY_BYTES);
    eprintln!("limit: {}", cage.describe());
    let outcome = play(folder.path(), &cage);
    if outcome.is_err() {
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        eprintln!("--- log, newest line first");
        log.lines().rev().take(20).for_each(|line| eprintln!("{line}"));
    }
    outcome
}

fn play(folder: &Path, cage: &Cage) -> Result<()> {
    let mut stage = start(folder, cage)?;
    for attack in attacks() {
        stage.attack(&attack)?;
    }
    stage.many_at_once()?;
    stage.clients_that_do_not_read()?;
    stage.clients_that_go()?;
    stage.check_alive("the end")?;
    let peak = resident_peak_bytes(&stage.server)?;
    ensure!(peak < MEMORY_BYTES, "{} MiB were resident", peak >> 20);
    let (acknowledged, slowest) = stage.ledger.finish()?;
    eprintln!(
        "{} series; {} MiB resident at most; {} writes, the slowest took {} ms",
        stage.series,
        peak >> 20,
        acknowledged.len(),
        slowest.as_millis()
    );
    check_ledger(stage.port, &acknowledged)
}

fn start(folder: &Path, cage: &Cage) -> Result<Stage> {
    let port = free_port()?;
    std::fs::write(folder.join("config.yml"), "")?;
    let arguments = [
        format!("--config.file={}", folder.join("config.yml").display()),
        format!("--storage.tsdb.path={}", folder.join("data").display()),
        format!("--web.listen-address=127.0.0.1:{port}"),
        format!("--query.timeout={QUERY_SECONDS}s"),
        "--enable-feature=promql-experimental-functions,promql-duration-expr".to_owned(),
    ];
    let server = cage.start(&tidewatch()?, &arguments, &folder.join("log"))?;
    // Ready means that it takes writes; queries wait for the end of the recovery.
    wait_for("the server is complete", Duration::from_secs(20), || http::query(port, "up").ok())?;
    let wanted = std::env::var("TIDEWATCH_HOSTILE_SERIES").ok();
    let series = wanted.map_or(Ok(100_000), |text| text.parse()).context("TIDEWATCH_HOSTILE_SERIES")?;
    let now = now_ms();
    load(port, series, now)?;
    eprintln!("{:>8} MiB  loaded", resident_peak_bytes(&server)? >> 20);
    Ok(Stage { port, server, ledger: Ledger::start(port), now, series })
}

/// Writes series of three samples each.
fn load(port: u16, series: usize, now: i64) -> Result<()> {
    const REQUEST_SERIES: usize = 5_000;
    for first in (0..series).step_by(REQUEST_SERIES) {
        let labels: Vec<Labels> = (first..series.min(first + REQUEST_SERIES)).map(labels).collect();
        let mut batch = Batch::new();
        for (i, labels) in labels.iter().enumerate() {
            let sample =
                |back: i64| Sample { timestamp: now - back * 15_000, value: (i as i64 + back) as f64 };
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[sample(2), sample(1), sample(0)]);
        }
        wait_for("a request with new series is taken", Duration::from_secs(60), || {
            write(port, &batch).ok().filter(|answer| answer.status / 100 == 2)
        })?;
    }
    Ok(())
}

fn labels(series: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", format!("hostile_{}_total", series % 10)),
        ("host", format!("host-{}.example.org", series / 10 % 1000)),
        ("id", format!("{series:07}-0123456789abcdef")),
        ("job", "hostile".to_owned()),
    ])
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// What is asked, and how.
struct Attack {
    name: &'static str,
    path: &'static str,
    /// The parameter that holds the text.
    parameter: &'static str,
    text: String,
    /// Points of a range, which ends at the time of the newest sample.
    points: u32,
    /// Answers that are right; empty where any answer within the limits is.
    statuses: &'static [u16],
}

const REFUSED: &[u16] = &[400, 413, 422, 503];

fn attacks() -> Vec<Attack> {
    let all = r#"{__name__=~"hostile_.+"}"#;
    let mut attacks = Vec::new();
    let mut range = |name, text: &str, statuses| {
        attacks.push(Attack {
            name,
            path: "/api/v1/query_range",
            parameter: "query",
            text: text.replace("ALL", all),
            points: 11_000,
            statuses,
        });
    };
    range("all series x 11,000 points", "ALL", REFUSED);
    range("every name x 11,000 points", r#"{__name__=~".+"}"#, REFUSED);
    range("a group for each series", "sum by (id) (rate(ALL[5m]))", REFUSED);
    range("one group of all series", "sum(rate(ALL[5m]))", &[]);
    range("topk of a thousand million", "topk(1e9, ALL)", REFUSED);
    range("quantile of all series", "quantile(0.5, ALL)", &[]);
    range("count_values", r#"count_values("v", ALL)"#, &[]);
    range("join of everything with everything", "ALL * on(id) ALL", REFUSED);
    range("nested subqueries", "max_over_time(rate(ALL[1h:1s])[1d:1s])", &[]);
    range("three nested subqueries", "sum_over_time(max_over_time(sum(ALL)[1h:1s])[1h:1s])", &[]);
    range("a subquery of a constant", "sum_over_time(vector(1)[100y:1ms])", REFUSED);
    // Fifteen thousand million values: more than any machine has done when the time is over.
    let windows = (0..8).map(|n| format!("stddev_over_time(vector(time() + {n})[2d:1s])"));
    range("windows over windows", &windows.collect::<Vec<_>>().join(" + "), &[503]);
    range(
        "scalars within a subquery",
        &format!("max_over_time(vector({})[1d:40ms])", nested("time()+(", 45)),
        &[],
    );
    let mut instant = |name, text: String, statuses| {
        let path = "/api/v1/query";
        let text = text.replace("ALL", all);
        attacks.push(Attack { name, path, parameter: "query", text, points: 0, statuses });
    };
    let parens = |count: usize| format!("{}1{}", "(".repeat(count), ")".repeat(count));
    instant("100,000 parentheses", parens(100_000), &[400]);
    instant("30,000 parentheses", parens(30_000), &[400]);
    instant("100,000 signs", format!("{}1", "-".repeat(100_000)), &[400]);
    instant("60,000 signs", format!("{}1", "-".repeat(60_000)), &[400]);
    instant("60,000 open parentheses", "(".repeat(60_000), &[400]);
    instant("10,000 calls within calls", "abs(".repeat(10_000), &[400]);
    instant("30,000 terms", vec!["1"; 30_000].join("+"), &[400]);
    instant("selectors in a row", vec!["x"; 20_000].join(" or "), &[400]);
    instant("subqueries of subqueries", format!("x{}", "[1s:1s]".repeat(9_000)), &[400]);
    instant("a long text", "x".repeat(1_000_000), &[400]);
    let replace = |inner: String, to: &str| format!(r#"label_replace({inner}, "id", "{to}", "id", "(.*)")"#);
    let doubled = (0..40).fold("ALL".to_owned(), |inner, _| replace(inner, "$1$1"));
    instant("labels that double 40 times", doubled, REFUSED);
    instant("labels a thousand times as long", replace("ALL".to_owned(), &"$1".repeat(1000)), REFUSED);
    let joined = (0..40)
        .fold("ALL".to_owned(), |inner, _| format!(r#"label_join({inner}, "id", "", "id", "id", "host")"#));
    instant("joined labels that double 40 times", joined, REFUSED);
    instant(
        "count_values of count_values",
        r#"count_values("b", count_values("a", ALL))"#.to_owned(),
        &[200, 422, 503],
    );
    instant("count_values by id", r#"count_values by (id) ("v", ALL)"#.to_owned(), &[]);
    instant("many to many", "ALL * on() ALL".to_owned(), REFUSED);
    instant("a product of hosts", "ALL * on(host) group_left() ALL".to_owned(), REFUSED);
    instant("everything and nothing", "ALL and nothing".to_owned(), &[]);
    instant("nothing or everything", "nothing or ALL or ALL or ALL".to_owned(), &[]);
    instant("everything unless one", "ALL unless on() vector(1)".to_owned(), &[]);
    instant("one for everything", "ALL * on() group_left() vector(2)".to_owned(), &[]);
    instant("a regex of 17 KiB", format!(r#"x{{a=~"{}"}}"#, "ab".repeat(8_700)), &[400]);
    instant("a regex of a million repeats", r#"x{a=~"(a{1000}){1000}"}"#.to_owned(), &[400]);
    instant("a regex with Unicode classes", r#"x{a=~"(\\pL{50}){50}"}"#.to_owned(), &[400]);
    let alternatives: Vec<String> = (0..2_400).map(|i| format!("x{i}.")).collect();
    instant("a regex of 2,400 alternatives", format!(r#"{{id=~"{}"}}"#, alternatives.join("|")), &[200, 400]);
    let many = vec![r#"x{a=~"\\w{30}[^x]"}"#; 2_500].join(" or ");
    instant("2,500 regexes", many, &[400]);
    instant("a regex that backtracks elsewhere", r#"{id=~"(.*a){30}"}"#.to_owned(), &[]);
    instant("topk of everything", "topk(1e9, ALL)".to_owned(), &[]);
    instant("sorted by quantiles", "sort(quantile by (id) (0.5, ALL))".to_owned(), &[]);
    instant("all samples of a century", "ALL[100y]".to_owned(), &[]);
    let mut other = |name, path, parameter, text: &str, statuses| {
        attacks.push(Attack { name, path, parameter, text: text.to_owned(), points: 0, statuses });
    };
    other("all series", "/api/v1/series", "match[]", r#"{__name__=~".+"}"#, &[]);
    other("all ids", "/api/v1/label/id/values", "match[]", r#"{__name__=~".+"}"#, &[]);
    other("all names of labels", "/api/v1/labels", "match[]", r#"{id=~".+"}"#, &[]);
    other("all samples", "/federate", "match[]", r#"{__name__=~".+"}"#, &[]);
    other("parentheses to lay out", "/api/v1/format_query", "query", &"(".repeat(60_000), &[400]);
    other("a tree of parentheses", "/api/v1/parse_query", "query", &"(".repeat(60_000), &[400]);
    other("exemplars of parentheses", "/api/v1/query_exemplars", "query", &"(".repeat(60_000), &[400]);
    other("a form of 8 MiB", "/api/v1/query", "query", &"x".repeat(8 << 20), &[413]);
    attacks
}

/// `part` so many times around a number, with the parentheses closed.
fn nested(part: &str, times: usize) -> String {
    format!("{}1{}", part.repeat(times), ")".repeat(times))
}

impl Attack {
    fn send(&self, port: u16, now: i64) -> Result<Answer> {
        let mut form = format!("{}={}", self.parameter, encode(&self.text));
        let end = now as f64 / 1000.0;
        match self.points {
            0 => form.push_str(&format!("&time={end}")),
            points => form.push_str(&format!("&start={}&end={end}&step=1", end - f64::from(points) + 1.0)),
        }
        // These two have no form.
        if self.path.starts_with("/api/v1/label/") || self.path == "/federate" {
            return http::get(port, &format!("{}?{form}", self.path));
        }
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        http::request(port, "POST", self.path, &headers, form.as_bytes())
    }

    /// An answer is a whole one, or an error as Prometheus shapes it.
    fn check(&self, answer: &Answer) -> Result<()> {
        let Attack { name, statuses, .. } = self;
        let beginning: String = answer.text().chars().take(300).collect();
        let right = if statuses.is_empty() { &[200, 422, 503][..] } else { statuses };
        ensure!(right.contains(&answer.status), "{name}: {} {beginning}", answer.status);
        if answer.status == 200 {
            let whole =
                answer.body.ends_with(b"}") || self.path == "/federate" && answer.body.ends_with(b"\n");
            ensure!(whole, "{name}: the answer is cut");
            return Ok(());
        }
        let error = answer.json()?;
        let kind = error["errorType"].as_str().unwrap_or_default();
        let kinds = ["bad_data", "execution", "timeout", "unavailable"];
        ensure!(error["status"] == "error" && kinds.contains(&kind), "{name}: {beginning}");
        ensure!(error["error"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {beginning}");
        Ok(())
    }
}

impl Stage {
    fn attack(&mut self, attack: &Attack) -> Result<()> {
        let began = Instant::now();
        let answer = attack.send(self.port, self.now);
        let took = began.elapsed();
        let words = answer.as_ref().ok().filter(|answer| answer.status != 200).map(|answer| {
            let json = answer.json().unwrap_or_default();
            json["error"].as_str().unwrap_or_default().chars().take(110).collect::<String>()
        });
        eprintln!(
            "{:>5} {:>6} ms {:>5} MiB  {:<35} {}",
            answer.as_ref().map_or(0, |answer| answer.status),
            took.as_millis(),
            resident_peak_bytes(&self.server)? >> 20,
            attack.name,
            words.unwrap_or_default()
        );
        match answer {
            Ok(answer) => attack.check(&answer)?,
            Err(error) => bail!("{}: no answer: {error:#}", attack.name),
        }
        ensure!(took < ANSWER, "{} took {took:?}", attack.name);
        self.check_alive(attack.name)
    }

    fn check_alive(&mut self, after: &str) -> Result<()> {
        if let Some(status) = self.server.ended()? {
            bail!("the server ended after {after}: {status}");
        }
        ensure!(http::get(self.port, "/-/ready")?.status == 200, "not ready after {after}");
        let one = http::query(self.port, "1").with_context(|| format!("after {after}"))?;
        ensure!(one[1] == "1", "after {after}: {one}");
        self.ledger.check().with_context(|| format!("after {after}"))
    }

    fn many_at_once(&mut self) -> Result<()> {
        let (port, now) = (self.port, self.now);
        let clients: Vec<_> = (0..24)
            .map(|client| {
                std::thread::spawn(move || {
                    for attack in attacks().iter().cycle().skip(client * 2).take(3) {
                        attack.send(port, now).and_then(|answer| match answer.status {
                            503 => Ok(()),
                            _ => attack.check(&answer),
                        })?;
                    }
                    Ok::<(), anyhow::Error>(())
                })
            })
            .collect();
        let began = Instant::now();
        for client in clients {
            client.join().expect("a client does not panic").context("many at once")?;
        }
        eprintln!(
            "      {:>6} ms {:>5} MiB  24 clients at once",
            began.elapsed().as_millis(),
            resident_peak_bytes(&self.server)? >> 20
        );
        self.check_alive("many at once")
    }

    /// Answers that nobody takes hold memory: what is held stays within the limit of all queries,
    /// and goes when the clients go.
    fn clients_that_do_not_read(&mut self) -> Result<()> {
        // A hundred series with a point at each step: far more than sockets buffer.
        let now = self.now / 1000;
        let query = encode(r#"last_over_time({id=~"00000[0-9]{2}-.+"}[1d])"#);
        let path = format!("query_range?query={query}&start={now}&end={}&step=1", now + 10_999);
        let clients = (0..30).map(|_| self.send_only(&path)).collect::<Result<Vec<_>>>()?;
        std::thread::sleep(Duration::from_secs(1));
        wait_for("all are computed", Duration::from_secs(60), || {
            let left =
                ["prometheus_engine_queries", "tidewatch_queries_waiting"].map(|name| gauge(self.port, name));
            left.iter().all(|count| matches!(count, Ok(0.0))).then_some(())
        })?;
        let (held, limit) = (
            gauge(self.port, "tidewatch_queries_memory_bytes")?,
            gauge(self.port, "tidewatch_queries_memory_limit_bytes")?,
        );
        eprintln!(
            "                {:>5} MiB  30 clients that do not read hold {:.0} of {:.0} MiB",
            resident_peak_bytes(&self.server)? >> 20,
            held / 1048576.0,
            limit / 1048576.0
        );
        ensure!(held > limit / 2.0 && held <= limit, "{held} of {limit} bytes");
        drop(clients);
        wait_for("their memory is given back", Duration::from_secs(10), || {
            gauge(self.port, "tidewatch_queries_memory_bytes").ok().filter(|held| *held == 0.0)
        })?;
        self.check_alive("clients that do not read")
    }

    /// A query ends when its client goes.
    fn clients_that_go(&mut self) -> Result<()> {
        // Little memory, and work for longer than a query may take.
        // One metric: where names may differ, rows are kept to see whether they get equal.
        // All parts differ, as equal ones are evaluated once.
        let part = |q: u32| format!("sum(quantile_over_time(0.{q:02}, hostile_0_total[5m]))");
        let query = encode(&(1..=60).map(part).collect::<Vec<_>>().join(" + "));
        let end = self.now / 1000;
        let path = format!("query_range?query={query}&start={}&end={end}&step=1", end - 10_999);
        // Whoever waits is told after all the time that a query may take: it does take long.
        let began = Instant::now();
        self.send_only(&path)?.read_exact(&mut [0])?;
        let alone = began.elapsed();
        ensure!(alone > Duration::from_secs(3), "it takes {alone:?}, which shows nothing");
        let clients = (0..3).map(|_| self.send_only(&path)).collect::<Result<Vec<_>>>()?;
        let running = || gauge(self.port, "prometheus_engine_queries").ok();
        wait_for("they compute", Duration::from_secs(2), || running().filter(|count| *count == 3.0))?;
        drop(clients);
        let gone = Instant::now();
        wait_for("they end", Duration::from_secs(2), || running().filter(|count| *count == 0.0))?;
        let ended = gone.elapsed();
        let before = cpu_seconds(&self.server)?;
        std::thread::sleep(Duration::from_secs(1));
        let after = cpu_seconds(&self.server)? - before;
        eprintln!(
            "alone {} ms; ended {} ms after their clients; {after:.2} CPU-seconds in the next second",
            alone.as_millis(),
            ended.as_millis()
        );
        ensure!(after < 0.7, "{after} CPU-seconds in a second in which nobody asks");
        self.check_alive("clients that go")
    }

    /// Asks, and leaves the answer to the caller.
    fn send_only(&self, path: &str) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(stream, "GET /api/v1/{path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
        Ok(stream)
    }
}

/// A metric of the server without labels.
fn gauge(port: u16, name: &str) -> Result<f64> {
    let text = http::get(port, "/metrics")?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| name.to_owned())?.parse()?)
}

/// Series of each of the ledger's requests.
const LEDGER_SERIES: usize = 20;

/// Writes counters without pause and keeps what was acknowledged.
struct Ledger {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    writer: Option<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    acknowledged: BTreeMap<i64, f64>,
    slowest: Duration,
    /// The first write that was not acknowledged in time.
    failure: Option<String>,
}

impl Ledger {
    fn start(port: u16) -> Ledger {
        let (state, stop) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let (shared, halt) = (state.clone(), stop.clone());
        let writer = std::thread::spawn(move || {
            let labels: Vec<Labels> = (0..LEDGER_SERIES)
                .map(|series| {
                    Labels::from_pairs([("__name__", "ledger_total"), ("series", &series.to_string())])
                })
                .collect();
            let mut value = 0.0;
            while !halt.load(Ordering::Relaxed) {
                value += 1.0;
                let timestamp = now_ms();
                let mut batch = Batch::new();
                for labels in &labels {
                    batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value }]);
                }
                let began = Instant::now();
                let answer = write(port, &batch);
                let took = began.elapsed();
                let mut state = shared.lock().expect("no panic holds it");
                state.slowest = state.slowest.max(took);
                match answer {
                    Ok(answer) if answer.status / 100 == 2 && took < WRITE => {
                        state.acknowledged.insert(timestamp, value);
                    }
                    other => {
                        state
                            .failure
                            .get_or_insert_with(|| format!("write {value} after {took:?}: {other:?}"));
                    }
                }
                drop(state);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Ledger { state, stop, writer: Some(writer) }
    }

    fn check(&self) -> Result<()> {
        match &self.state.lock().expect("no panic holds it").failure {
            Some(failure) => bail!("a write was not acknowledged: {failure}"),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(BTreeMap<i64, f64>, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            writer.join().expect("the writer does not panic");
        }
        self.check()?;
        let state = self.state.lock().expect("no panic holds it");
        Ok((state.acknowledged.clone(), state.slowest))
    }
}

/// Every acknowledged sample is there, with its value.
fn check_ledger(port: u16, acknowledged: &BTreeMap<i64, f64>) -> Result<()> {
    ensure!(acknowledged.len() > 100, "only {} requests were acknowledged", acknowledged.len());
    for series in 0..LEDGER_SERIES {
        let result = http::query(port, &format!("ledger_total{{series=\"{series}\"}}[1h]"))?;
        let values = result[0]["values"].as_array().context("values")?;
        let read: BTreeMap<i64, f64> = values
            .iter()
            .filter_map(|pair| {
                Some(((pair[0].as_f64()? * 1000.0).round() as i64, pair[1].as_str()?.parse().ok()?))
            })
            .collect();
        for (timestamp, value) in acknowledged {
            ensure!(read.get(timestamp) == Some(value), "series {series}: lost {value} at {timestamp}");
        }
    }
    Ok(())
}
