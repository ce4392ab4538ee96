//! A world for scrapes: a virtual clock, targets that show what they are told, a store that
//! remembers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use tidewatch_env::sim::SimClock;
use tidewatch_env::{Clock, Env, Open};
use tidewatch_model::{Batch, METRIC_NAME, RelabelConfig, RelabelFields, Sample, is_stale};
use tidewatch_scrape::{
    Fetch, FetchError, Fetched, InProcess, ScrapeConfig, ScrapeOptions, Scraper, Sink, SinkOutcome, Task,
};

const START_MS: i64 = 1_700_000_000_000;

pub(crate) fn relabel_rule(change: impl FnOnce(&mut RelabelFields)) -> RelabelConfig {
    let mut fields = RelabelFields::default();
    change(&mut fields);
    RelabelConfig::new(fields).unwrap()
}

pub(crate) fn set_label(name: &str, value: &str) -> RelabelConfig {
    relabel_rule(|f| (f.target_label, f.replacement) = (name.to_owned(), value.to_owned()))
}

/// Remembers every sample, by series as text.
#[derive(Default)]
struct Store {
    series: Mutex<BTreeMap<String, Vec<Sample>>>,
    refusal: Mutex<Option<String>>,
}

impl Sink for Store {
    fn append(&self, batch: &Batch<'_>) -> SinkOutcome {
        if let Some(error) = self.refusal.lock().unwrap().clone() {
            return SinkOutcome { error: Some(error), ..SinkOutcome::default() };
        }
        let mut all = self.series.lock().unwrap();
        for series in &batch.series {
            let samples = &batch.samples[series.samples.start as usize..series.samples.end as usize];
            all.entry(series_text(series.labels)).or_default().extend_from_slice(samples);
        }
        SinkOutcome { accepted: batch.samples.len() as u64, ..SinkOutcome::default() }
    }
}

fn series_text(labels: tidewatch_model::RawLabels<'_>) -> String {
    let pairs: Vec<(String, String)> = labels
        .pairs()
        .map(|pair| pair.expect("labels are well formed"))
        .map(|(n, v)| (String::from_utf8(n.to_vec()).unwrap(), String::from_utf8(v.to_vec()).unwrap()))
        .collect();
    assert!(pairs.is_sorted_by(|a, b| a.0 < b.0), "label names ascend: {pairs:?}");
    let name = pairs.iter().find(|(n, _)| n == METRIC_NAME).map_or("", |(_, v)| v);
    let rest: Vec<String> =
        pairs.iter().filter(|(n, _)| n != METRIC_NAME).map(|(n, v)| format!("{n}={v:?}")).collect();
    format!("{name}{{{}}}", rest.join(", "))
}

/// What targets show, by in-process address or by URL.
type Texts = Arc<Mutex<HashMap<String, Result<String, String>>>>;

pub(crate) struct World {
    pub(crate) scraper: Scraper,
    env: Env,
    clock: Arc<SimClock>,
    texts: Texts,
    sources: Mutex<HashMap<String, InProcess>>,
    store: Store,
    first_ms: Mutex<Option<i64>>,
}

impl World {
    pub(crate) fn new() -> World {
        let clock = Arc::new(SimClock::at(START_MS));
        let env = Env::in_memory_at(clock.clone());
        env.disk.create_dir_all(Path::new("/sd")).unwrap();
        World {
            scraper: Scraper::new(env.clone(), ScrapeOptions::default()),
            env,
            clock,
            texts: Texts::default(),
            sources: Mutex::default(),
            store: Store::default(),
            first_ms: Mutex::default(),
        }
    }

    /// An in-process target that shows what it is told; the same source for the same address.
    pub(crate) fn source(&self, address: &str) -> InProcess {
        let (texts, key) = (self.texts.clone(), address.to_owned());
        let new = || InProcess {
            address: address.to_owned(),
            labels: Vec::new(),
            source: Arc::new(move || {
                let texts = texts.lock().unwrap();
                texts.get(&key).and_then(|text| text.clone().ok()).unwrap_or_default().into_bytes()
            }),
        };
        self.sources.lock().unwrap().entry(address.to_owned()).or_insert_with(new).clone()
    }

    pub(crate) fn show(&self, target: &str, text: &str) {
        self.texts.lock().unwrap().insert(target.to_owned(), Ok(text.to_owned()));
    }

    pub(crate) fn fail(&self, target: &str, error: &str) {
        self.texts.lock().unwrap().insert(target.to_owned(), Err(error.to_owned()));
    }

    pub(crate) fn refuse_all(&self, error: &str) {
        *self.store.refusal.lock().unwrap() = Some(error.to_owned());
    }

    pub(crate) fn write_file(&self, path: &str, text: &str) {
        let path = Path::new(path);
        if self.env.disk.exists(path).unwrap() {
            self.env.disk.remove(path).unwrap();
        }
        self.env.disk.open(path, Open::Create).unwrap().append(text.as_bytes()).unwrap();
    }

    pub(crate) fn apply(&self, configs: Vec<ScrapeConfig>) {
        self.scraper.apply(configs).unwrap();
    }

    /// When the first scrape will be.
    pub(crate) fn first_scrape_ms(&self) -> i64 {
        self.scraper.refresh();
        let wait_ns = self.scraper.next_ns().unwrap() - self.clock.monotonic_ns();
        self.clock.wall_ms() + (wait_ns / 1_000_000) as i64
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.clock.advance_ms(seconds * 1000);
    }

    /// Moves the clock to the next thing to do.
    pub(crate) fn advance_to_next(&self) {
        self.scraper.refresh();
        if let Some(next_ns) = self.scraper.next_ns() {
            self.clock.advance_ms(next_ns.saturating_sub(self.clock.monotonic_ns()).div_ceil(1_000_000));
        }
    }

    /// Goes on until so many scrapes are done.
    pub(crate) fn scrape_times(&self, count: usize) {
        let mut done = 0;
        while done < count {
            self.advance_to_next();
            self.scraper.refresh();
            for task in self.scraper.due() {
                self.finish(task);
                done += 1;
            }
        }
    }

    pub(crate) fn run_for(&self, seconds: u64) {
        let end_ns = self.clock.monotonic_ns() + seconds * 1_000_000_000;
        loop {
            self.scraper.refresh();
            for task in self.scraper.due() {
                self.finish(task);
            }
            let next_ns = self.scraper.next_ns().unwrap_or(u64::MAX).min(end_ns);
            let now_ns = self.clock.monotonic_ns();
            if now_ns >= end_ns {
                return;
            }
            self.clock.advance_ms(next_ns.saturating_sub(now_ns).div_ceil(1_000_000).max(1));
        }
    }

    /// Fetches what the task's target shows now, and finishes the task.
    pub(crate) fn finish(&self, task: Task) {
        let fetched = match self.scraper.fetch(&task) {
            Fetch::Http(_, request) => self.shown(&request.url),
            Fetch::InProcess(source) => {
                let sources = self.sources.lock().unwrap();
                let known = sources.values().find(|known| Arc::ptr_eq(&known.source, &source));
                self.shown(&known.expect("made by source()").address)
            }
            Fetch::Nothing => Err("nothing to fetch".to_owned()),
        };
        self.first_ms.lock().unwrap().get_or_insert(self.clock.wall_ms());
        let fetched = fetched
            .map(|text| Fetched::text(text.into_bytes()))
            .map_err(|message| FetchError { message, is_body_too_large: false });
        self.scraper.finish(task, fetched, &self.store);
    }

    fn shown(&self, target: &str) -> Result<String, String> {
        let texts = self.texts.lock().unwrap();
        texts.get(target).cloned().unwrap_or_else(|| Err(format!("{target} shows nothing")))
    }

    pub(crate) fn step(&self) {
        self.scraper.step(&self.store);
    }

    /// Values of all series of a metric, series by series.
    pub(crate) fn values(&self, metric: &str) -> Vec<f64> {
        let all = self.store.series.lock().unwrap();
        let series = all.iter().filter(|(series, _)| series.starts_with(&format!("{metric}{{")));
        series.flat_map(|(_, samples)| samples.iter().map(|sample| sample.value)).collect()
    }

    /// The last value of a metric at an instance.
    pub(crate) fn last(&self, metric: &str, instance: &str) -> f64 {
        let all = self.store.series.lock().unwrap();
        let part = format!("instance={instance:?}");
        let mut series = all
            .iter()
            .filter(|(series, _)| series.starts_with(&format!("{metric}{{")) && series.contains(&part));
        series.next().expect("the series exists").1.last().expect("it has samples").value
    }

    /// Compares the store with `expected`: a line for each series of the `metrics` (all where
    /// empty), its samples as `<seconds since the first scrape>s:<value>`.
    #[track_caller]
    pub(crate) fn check(&self, metrics: &str, expected: &str) {
        let all = self.store.series.lock().unwrap();
        let first_ms = self.first_ms.lock().unwrap().unwrap_or(START_MS);
        let wanted: Vec<&str> = metrics.split(' ').filter(|metric| !metric.is_empty()).collect();
        let is_wanted = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            wanted.is_empty()
                || wanted
                    .iter()
                    .any(|metric| name == *metric || metric.ends_with('_') && name.starts_with(metric))
        };
        let lines: Vec<String> = all
            .iter()
            .filter(|(series, _)| is_wanted(series))
            .map(|(series, samples)| {
                let samples: Vec<String> = samples.iter().map(|sample| show(sample, first_ms)).collect();
                format!("{series}  {}", samples.join(" "))
            })
            .collect();
        let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, expected);
    }
}

fn show(sample: &Sample, first_ms: i64) -> String {
    let seconds = (sample.timestamp - first_ms) as f64 / 1000.0;
    if is_stale(sample.value) { format!("{seconds}s:stale") } else { format!("{seconds}s:{}", sample.value) }
}
