//! The program itself, killed and without power at random moments, under remote write from several
//! connections: what it acknowledged is there afterwards, bit for bit, nothing is there that was not
//! sent, and it always starts again within five seconds.
//!
//! A few rounds by default. `TIDEWATCH_KILLS=200` and `TIDEWATCH_POWER_CUTS=150` make it more,
//! `TIDEWATCH_TORTURE_SEED` other ones; a failure names its seed. (The moments are drawn from it, but
//! the machine has its own clock: the same seed makes the same thing likely, not certain.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use tidewatch_model::histogram::{Histogram, Span};
use tidewatch_model::{Batch, BatchHistogram, Labels, NativeHistogram, RawLabels, Sample};
use tidewatch_tests::http;
use tidewatch_tests::ledger::Ledger;
use tidewatch_tests::power::PoweredDisk;
use tidewatch_tests::process::{Process, free_port, tidewatch, wait_for};
use tidewatch_tests::remote::{self, Contents, fingerprint};

const CLIENTS: u64 = 4;
/// The longest that a start may take until queries are answered.
const START: Duration = Duration::from_secs(5);
/// Faults that one data directory lives through.
const LIFE_FAULTS: u64 = 25;
/// Time passes faster for the samples than for us, so that blocks are cut and merged.
const STEP_MS: i64 = 20_000;
const HISTORY_MS: i64 = 40 * 3_600_000;

#[test]
fn no_kill_loses_what_was_acknowledged() -> Result<()> {
    let (kills, seed) = (variable("TIDEWATCH_KILLS")?.unwrap_or(12), seed()?);
    let mut totals = Totals::default();
    for life in 0..kills.div_ceil(LIFE_FAULTS) {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let faults = LIFE_FAULTS.min(kills - life * LIFE_FAULTS);
        let mut stage = Stage::new(folder.path(), data, Numbers(seed + life))?;
        let outcome = stage.live(faults, &mut totals, |server, _| server.kill());
        stage.explain(outcome, folder, seed + life)?;
    }
    eprintln!("== {kills} kills from seed {seed}: {totals:?}");
    Ok(())
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() -> Result<()> {
    let (cuts, seed) = (variable("TIDEWATCH_POWER_CUTS")?.unwrap_or(6), seed()?);
    let mut totals = Totals::default();
    let journalings = ["ordered", "writeback", "journal"];
    for (life, journaling) in (0..).zip(journalings) {
        let folder = tempfile::tempdir()?;
        let Some(mut disk) = PoweredDisk::new(folder.path(), journaling)? else { return Ok(()) };
        let data = disk.path().join("data");
        let mut stage = Stage::new(folder.path(), data, Numbers(seed + life))?;
        let power = stage.power.clone();
        let cut = |server: &mut Process, numbers: &mut Numbers| {
            power.next();
            disk.cut()?;
            power.next();
            // The process goes on for a while, on a disk that takes nothing any more.
            numbers.pause(9);
            server.kill()?;
            power.next();
            disk.restore()
        };
        let outcome = stage.live(cuts.div_ceil(journalings.len() as u64), &mut totals, cut);
        stage.explain(outcome, folder, seed + life)?;
    }
    eprintln!("== {cuts} power cuts from seed {seed}: {totals:?}");
    Ok(())
}

fn variable(name: &str) -> Result<Option<u64>> {
    std::env::var(name).ok().map(|text| text.parse().with_context(|| name.to_owned())).transpose()
}

/// A new one for each run, so that many runs see many moments.
fn seed() -> Result<u64> {
    let seed = variable("TIDEWATCH_TORTURE_SEED")?.unwrap_or(now_ms().unsigned_abs() % 1_000_000);
    eprintln!("seed {seed}: TIDEWATCH_TORTURE_SEED={seed} repeats it");
    Ok(seed)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Numbers that look random (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn upto(&mut self, max: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % (max + 1)
    }

    /// Waits up to so many milliseconds as two to the power of `most`: short times as often as long.
    fn pause(&mut self, most: u64) {
        let most = 1000 << self.upto(most);
        std::thread::sleep(Duration::from_micros(self.upto(most)));
    }
}

/// Where the power of the disk is: on, going, off, on again, …
///
/// A machine without power does not acknowledge anything, but our server still runs while the power of
/// its disk goes. A sync that is under way then may succeed without its journal (the kernel looks at the
/// power when a sync begins). So what is acknowledged while the power goes counts neither way. What
/// is sent when it is off must not be acknowledged.
#[derive(Debug, Default)]
struct Power {
    phase: AtomicU64,
}

impl Power {
    fn next(&self) {
        self.phase.fetch_add(1, Ordering::SeqCst);
    }

    fn phase(&self) -> u64 {
        self.phase.load(Ordering::SeqCst)
    }

    fn is_on(phase: u64) -> bool {
        phase.is_multiple_of(3)
    }

    fn is_off(phase: u64) -> bool {
        phase % 3 == 2
    }
}

/// What the lives were like.
#[derive(Debug, Default)]
struct Totals {
    faults: u64,
    of_them_in_recovery: u64,
    lives: u64,
    acknowledged: usize,
    blocks: u64,
    slowest_start_ms: u128,
}

/// One data directory, its server and those who write to it.
struct Stage {
    folder: PathBuf,
    data: PathBuf,
    port: u16,
    numbers: Numbers,
    ledger: Arc<Ledger>,
    power: Arc<Power>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Stage {
    fn new(folder: &Path, data: PathBuf, mut numbers: Numbers) -> Result<Stage> {
        std::fs::write(folder.join("empty.yml"), "scrape_configs: []\n")?;
        let port = free_port()?;
        let (ledger, stop) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
        let power = Arc::new(Power::default());
        let clock = Arc::new(AtomicI64::new(now_ms() - HISTORY_MS));
        let clients = (0..CLIENTS).map(|number| {
            let (ledger, power, stop, clock) = (ledger.clone(), power.clone(), stop.clone(), clock.clone());
            let client = Client {
                number,
                port,
                ledger,
                stop,
                clock,
                power,
                numbers: Numbers(numbers.upto(u64::MAX - 1)),
            };
            std::thread::spawn(move || client.run())
        });
        let clients = clients.collect();
        Ok(Stage { folder: folder.to_owned(), data, port, numbers, ledger, power, stop, clients })
    }

    fn start(&self) -> Result<Process> {
        let arguments = [
            format!("--config.file={}", self.folder.join("empty.yml").display()),
            format!("--storage.tsdb.path={}", self.data.display()),
            format!("--web.listen-address=127.0.0.1:{}", self.port),
        ];
        Process::start(tidewatch()?, &arguments, &self.folder.join("log"))
    }

    /// Starts, works, and meets a fault, again and again; looks after each.
    fn live(
        &mut self,
        faults: u64,
        totals: &mut Totals,
        mut fault: impl FnMut(&mut Process, &mut Numbers) -> Result<()>,
    ) -> Result<()> {
        let mut left = faults;
        loop {
            let mut server = self.start()?;
            let took = self.complete(&mut server)?;
            totals.slowest_start_ms = totals.slowest_start_ms.max(took.as_millis());
            self.check()?;
            if left == 0 {
                return self.end(server, faults, totals);
            }
            self.numbers.pause(11);
            fault(&mut server, &mut self.numbers)?;
            left -= 1;
            // And while it recovers, perhaps more than once.
            while left > 0 && self.numbers.upto(2) == 0 {
                let mut server = self.start()?;
                self.numbers.pause(8);
                if let Some(status) = server.ended()? {
                    bail!("the server ended by itself during recovery: {status}");
                }
                fault(&mut server, &mut self.numbers)?;
                totals.of_them_in_recovery += 1;
                left -= 1;
            }
        }
    }

    /// Waits until the server answers queries, and says how long that took.
    fn complete(&self, server: &mut Process) -> Result<Duration> {
        let began = Instant::now();
        let ready = || {
            let answers =
                || http::get(self.port, "/api/v1/query?query=up").is_ok_and(|answer| answer.status == 200);
            match server.ended() {
                Ok(None) => answers().then_some(Ok(())),
                Ok(Some(status)) => Some(Err(anyhow::anyhow!("the server refused to start: {status}"))),
                Err(error) => Some(Err(error)),
            }
        };
        wait_for("queries are answered after a start", START, ready)??;
        Ok(began.elapsed())
    }

    /// What is read lies between what is acknowledged and what is sent.
    fn check(&self) -> Result<()> {
        if let Some(failed) = self.clients.iter().find(|client| client.is_finished()) {
            bail!("client {:?} has ended: see below", failed.thread().id());
        }
        let acknowledged = self.ledger.acknowledged();
        let read = remote::contents(self.port, r#"{__name__=~"torture_.+"}"#)?;
        self.ledger.check(&acknowledged, &read)
    }

    /// The last look: nobody writes any more, and all files are whole.
    fn end(&mut self, mut server: Process, faults: u64, totals: &mut Totals) -> Result<()> {
        self.numbers.pause(11);
        self.stop_clients()?;
        let acknowledged = self.ledger.acknowledged();
        ensure!(
            acknowledged.len() as u64 > faults * 20,
            "only {} samples were acknowledged",
            acknowledged.len()
        );
        let read = remote::contents(self.port, r#"{__name__=~"torture_.+"}"#)?;
        self.ledger.check(&acknowledged, &read)?;
        server.kill()?;
        let verified = Command::new(tidewatch()?).args(["tsdb", "verify"]).arg(&self.data).output()?;
        let said = String::from_utf8_lossy(&verified.stdout);
        ensure!(verified.status.success(), "something is damaged: {said}");
        let blocks = std::fs::read_dir(self.data.join("blocks"))?.flatten();
        totals.blocks +=
            blocks.filter(|file| file.path().extension().is_some_and(|e| e == "block")).count() as u64;
        totals.faults += faults;
        totals.lives += 1;
        totals.acknowledged += acknowledged.len();
        Ok(())
    }

    fn stop_clients(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended: Vec<Result<()>> =
            self.clients.drain(..).map(|client| client.join().expect("a client does not panic")).collect();
        ended.into_iter().collect()
    }

    /// Says of a failure what there is to say, and keeps the directory.
    fn explain(&mut self, outcome: Result<()>, folder: tempfile::TempDir, seed: u64) -> Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        let of_clients = self.stop_clients().err().map_or_else(String::new, |error| format!("\n{error:#}"));
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let newest: Vec<&str> = log.lines().rev().take(20).collect();
        let newest: String = newest.iter().rev().map(|line| format!("\n{line}")).collect();
        bail!("seed {seed}, kept in {}: {error:#}{of_clients}{newest}", folder.keep().display());
    }
}

/// One connection's worth of remote write: it sends its samples in order and sends a request again
/// until that is acknowledged, as real senders do.
struct Client {
    number: u64,
    port: u16,
    ledger: Arc<Ledger>,
    power: Arc<Power>,
    stop: Arc<AtomicBool>,
    /// The time of the next samples, of whomever.
    clock: Arc<AtomicI64>,
    numbers: Numbers,
}

impl Client {
    fn run(mut self) -> Result<()> {
        let mut round = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let timestamp = self.clock.fetch_add(STEP_MS, Ordering::Relaxed);
            if timestamp > now_ms() {
                return self.wait();
            }
            let (body, samples) = self.request(round, timestamp);
            round += 1;
            self.ledger.send(&samples);
            while !self.stop.load(Ordering::Relaxed) {
                let sent = self.power.phase();
                let answer = remote::send(self.port, &body);
                let answered = self.power.phase();
                match answer {
                    Ok(answer) if answer.status / 100 == 2 => {
                        if Power::is_off(sent) && sent == answered {
                            bail!("client {}: acknowledged though the disk has no power", self.number);
                        }
                        if Power::is_on(sent) && sent == answered {
                            self.ledger.acknowledge(&samples);
                        }
                        break;
                    }
                    Ok(answer) if answer.status / 100 == 4 => {
                        bail!("client {}: {} {}", self.number, answer.status, answer.text());
                    }
                    _ => std::thread::sleep(Duration::from_millis(5)),
                }
            }
            self.numbers.pause(5);
        }
        Ok(())
    }

    /// All of history is written.
    fn wait(&self) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Known series, a new one, a sample out of order and histograms.
    fn request(&mut self, round: u64, timestamp: i64) -> (Vec<u8>, Contents) {
        let series = |name: &str, i: u64| {
            let (client, i) = (self.number.to_string(), i.to_string());
            Labels::from_pairs([("__name__", name), ("client", &client), ("i", &i)])
        };
        let mut floats: Vec<(Labels, i64)> =
            (0..8).map(|i| (series("torture_known", i), timestamp)).collect();
        floats.push((series("torture_new", round), timestamp));
        // Not a multiple of a step from any other sample of the series.
        let back = self.numbers.upto(100) as i64 * STEP_MS + 1 + (round % 19_998) as i64;
        floats.push((series("torture_known", round % 8), timestamp - back));
        let histograms: Vec<Labels> = (0..2).map(|i| series("torture_latency", i)).collect();
        let mut batch = Batch::new();
        let mut samples = Contents::new();
        for (at, (labels, timestamp)) in floats.iter().enumerate() {
            let sample = Sample { timestamp: *timestamp, value: value(at as u64, *timestamp) };
            samples.insert((labels.to_string(), *timestamp), sample.value.to_bits());
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[sample]);
        }
        for (at, labels) in histograms.iter().enumerate() {
            let value = histogram(at as u64, timestamp);
            samples.insert((labels.to_string(), timestamp), fingerprint(&value.to_float()));
            let histogram = BatchHistogram { timestamp, start: 0, value };
            batch.push_histograms(RawLabels::Canonical(labels.as_bytes()), &[histogram]);
        }
        (remote::body_of(&batch), samples)
    }
}

/// Values of every kind that the codecs tell apart, but NaN, of which the API does not tell the bits.
fn value(at: u64, timestamp: i64) -> f64 {
    let seconds = timestamp as f64 / 1000.0;
    match at {
        0 => 42.0,
        1 => seconds,
        2 => -0.0,
        3 => (timestamp % 977) as f64 * 0.1,
        4 => seconds.sqrt(),
        5 => f64::from_bits(timestamp.unsigned_abs()),
        6 => f64::INFINITY,
        _ => -((timestamp / 7) as f64),
    }
}

fn histogram(at: u64, timestamp: i64) -> NativeHistogram {
    let count = timestamp.unsigned_abs() / 1000 % 5_000 + 1 + at;
    NativeHistogram::Integer(Histogram {
        schema: 2,
        zero_threshold: 0.001,
        zero_count: at,
        count: at + 2 * count,
        sum: count as f64 * 0.25,
        positive_spans: vec![Span { offset: 1, length: 1 }, Span { offset: 3 + at as i32, length: 1 }],
        positive_deltas: vec![count as i64, 0],
        ..Histogram::default()
    })
}
