//! A small store, a program that is always in the same state, and a way to ask them.

// Each test binary uses its part.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tidewatch_env::Env;
use tidewatch_env::sim::SimClock;
use tidewatch_ingest::HaTracker;
use tidewatch_model::{
    Batch, BatchExemplar, BatchHistogram, Exemplar, Labels, Limits, Matcher, Metadata, MetricType, RawLabels,
};
use tidewatch_parser::ParserOptions;
use tidewatch_promql::{Engine, EngineOptions};
use tidewatch_rules::{AlertState, AlertStatus, AlertingStatus, GroupStatus, Health, RuleStatus};
use tidewatch_scrape::{DroppedTarget, MetadataEntry, TargetStatus, TargetsSnapshot};
use tidewatch_server::{
    AdminError, AlertmanagersView, App, Backend, BlockView, BuildInfo, DamageView, DiskView, Pending, Phase,
    ReplayView, Request, RuntimeInfo, ServerOptions, Service, StoreStatus, TsdbStatus,
};
use tidewatch_storage::{Append, AppendError, AppendOutcome, SelectError, Ticket, TimeRange};
use tidewatch_testkit::{MemoryStore, SampleData};

/// The time at which every test takes place: 1970-01-01T01:00:00Z.
pub const NOW_MS: i64 = 3_600_000;

/// The way into a store, which a test can close.
pub struct Door {
    store: Arc<MemoryStore>,
    pub overloaded: AtomicBool,
    /// Exemplar storage is off.
    pub leaves_exemplars_out: AtomicBool,
    /// What came beside float samples, and when these started, in words.
    pub beside: Mutex<Vec<String>>,
}

/// Labels, where they are texts.
fn read_labels(labels: &RawLabels<'_>) -> Option<Labels> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let pairs: Option<Vec<(String, String)>> =
        labels.pairs().map(|pair| pair.and_then(|(n, v)| Some((text(n)?, text(v)?)))).collect();
    pairs.map(Labels::from_pairs)
}

/// What a batch has beside float samples, in words.
fn beside(batch: &Batch<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for series in &batch.series {
        let Some(labels) = read_labels(&series.labels) else { continue };
        for at in series.samples.start as usize..series.samples.end as usize {
            if batch.start_of(at) != 0 {
                let (timestamp, start) = (batch.samples[at].timestamp, batch.start_of(at));
                lines.push(format!("{labels} at {timestamp} since {start}"));
            }
        }
        let histograms = series.histograms.start as usize..series.histograms.end as usize;
        for BatchHistogram { timestamp, start, value } in &batch.histograms[histograms] {
            let count = value.to_float().count;
            lines.push(format!("{labels} histogram of {count} at {timestamp} since {start}"));
        }
    }
    for exemplar in &batch.exemplars {
        let Some(series) = read_labels(&exemplar.series) else { continue };
        let own = read_labels(&exemplar.labels).expect("labels");
        lines.push(format!("{series} exemplar {own} {} at {}", exemplar.value, exemplar.timestamp));
    }
    lines.extend(batch.metadata.iter().map(|metadata| {
        let Metadata { family, kind, help, unit } = metadata;
        format!("{family} is a {} of {unit:?}: {help}", kind.as_str())
    }));
    lines
}

impl Append for Door {
    fn append(&self, batch: &Batch<'_>) -> Result<AppendOutcome, AppendError> {
        if self.overloaded.load(Ordering::Relaxed) {
            return Err(AppendError::Overloaded { reason: "no room".to_owned() });
        }
        self.beside.lock().extend(beside(batch));
        let mut outcome = self.store.append(batch)?;
        if !self.leaves_exemplars_out.load(Ordering::Relaxed) {
            let can_be_kept = |exemplar: &&BatchExemplar<'_>| read_labels(&exemplar.series).is_some();
            outcome.accepted_exemplars = batch.exemplars.iter().filter(can_be_kept).count() as u64;
        }
        Ok(outcome)
    }
}

fn add(store: &MemoryStore, labels: &[(&str, &str)], samples: &[(i64, f64)]) {
    let labels = Labels::from_pairs(labels.iter().copied());
    for (timestamp, value) in samples {
        store.push(&labels, *timestamp, 0, SampleData::Float(*value)).expect("samples ascend");
    }
}

/// A program in a fixed state, but for what a test sets.
#[derive(Default)]
pub struct FixedBackend {
    pub stopping: AtomicBool,
    /// A start still brings back alerts.
    pub restoring: AtomicBool,
    pub reload_fails: AtomicBool,
    pub quit: AtomicBool,
    /// The log failed: nothing becomes durable any more.
    pub broken: AtomicBool,
    /// What the admin calls asked for.
    pub admin: Mutex<Vec<String>>,
    pub elections: AtomicUsize,
}

impl Backend for FixedBackend {
    fn durable(&self, _: Ticket) -> Pending<'_, Result<(), String>> {
        let broken = self.broken.load(Ordering::Relaxed);
        Box::pin(async move { if broken { Err("fsync failed".to_owned()) } else { Ok(()) } })
    }

    fn phase(&self) -> Phase {
        if self.stopping.load(Ordering::Relaxed) { Phase::Stopping } else { Phase::Complete }
    }

    fn replay(&self) -> ReplayView {
        ReplayView { first: 3, last: 7, current: 5 }
    }

    fn reload(&self) -> Pending<'_, Result<(), String>> {
        let fails = self.reload_fails.load(Ordering::Relaxed);
        Box::pin(async move { if fails { Err("tide.yml:3:5: no".to_owned()) } else { Ok(()) } })
    }

    fn quit(&self) {
        self.quit.store(true, Ordering::Relaxed);
    }

    fn delete_series(&self, matchers: &[Matcher], start_ms: i64, end_ms: i64) -> Result<(), AdminError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(AdminError::Unavailable("the store is recovering".to_owned()));
        }
        let matchers: Vec<String> = matchers.iter().map(ToString::to_string).collect();
        self.admin.lock().push(format!("delete {} {start_ms} {end_ms}", matchers.join(",")));
        Ok(())
    }

    fn clean_tombstones(&self) -> Result<(), AdminError> {
        self.admin.lock().push("clean".to_owned());
        Ok(())
    }

    fn compact(&self) -> Result<(), AdminError> {
        self.admin.lock().push("compact".to_owned());
        Ok(())
    }

    fn snapshot(&self, skip_head: bool) -> Result<String, AdminError> {
        self.admin.lock().push(format!("snapshot {skip_head}"));
        Ok("19700101T010000Z-0123456789abcdef".to_owned())
    }

    fn replica_elected(&self) {
        self.elections.fetch_add(1, Ordering::Relaxed);
    }

    fn rule_groups(&self) -> Option<Vec<GroupStatus>> {
        let is_restoring = self.restoring.load(Ordering::Relaxed);
        (!is_restoring).then(|| vec![group("first", "a.yml"), group("second", "b.yml")])
    }

    fn all_metadata(&self) -> Option<Vec<MetadataEntry>> {
        (!self.restoring.load(Ordering::Relaxed)).then(|| self.metadata())
    }

    fn targets(&self) -> TargetsSnapshot {
        let target = TargetStatus {
            labels: Labels::from_pairs([("instance", "localhost:9100"), ("job", "node")]),
            discovered_labels: Labels::from_pairs([("__address__", "localhost:9100"), ("job", "node")]),
            scrape_pool: "node".to_owned(),
            scrape_url: "http://localhost:9100/metrics".to_owned(),
            global_url: "http://host:9100/metrics".to_owned(),
            last_error: String::new(),
            last_scrape_ms: Some(NOW_MS - 1_500),
            last_scrape_duration_seconds: 0.0125,
            health: tidewatch_scrape::Health::Up,
            scrape_interval_ms: 15_000,
            scrape_timeout_ms: 10_000,
        };
        let dropped = DroppedTarget {
            discovered_labels: Labels::from_pairs([("__address__", "old:9100")]),
            scrape_pool: "node".to_owned(),
        };
        TargetsSnapshot {
            active: vec![target],
            dropped: vec![dropped],
            dropped_counts: vec![("node".to_owned(), 1), ("other".to_owned(), 0)],
            pools: vec!["node".to_owned(), "other".to_owned()],
        }
    }

    fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, SelectError> {
        let matches = |matchers: &Vec<Matcher>| {
            matchers.iter().all(|m| m.matches(if m.name() == "__name__" { "up" } else { "" }))
        };
        if !selectors.iter().any(matches) || range.end < 12_500 {
            return Ok(Vec::new());
        }
        let labels = Labels::from_pairs([("trace_id", "a")]);
        let exemplars = vec![Exemplar { labels, value: 6.0, timestamp: 12_500 }];
        Ok(vec![(Labels::from_pairs([("__name__", "up")]), exemplars)])
    }

    fn metadata(&self) -> Vec<MetadataEntry> {
        let entry = |instance: &str, family: &str, kind, help: &str| MetadataEntry {
            target: Labels::from_pairs([("instance", instance)]),
            family: family.to_owned(),
            kind,
            help: help.to_owned(),
            unit: String::new(),
        };
        vec![
            entry("a", "up", MetricType::Gauge, "Is it up."),
            entry("b", "up", MetricType::Gauge, "Is it up?"),
            entry("b", "requests", MetricType::Counter, "Requests."),
        ]
    }

    fn alertmanagers(&self) -> AlertmanagersView {
        AlertmanagersView { active: vec!["http://am:9093/api/v2/alerts".to_owned()], dropped: Vec::new() }
    }

    fn config_yaml(&self) -> String {
        "global:\n  scrape_interval: 15s\n".to_owned()
    }

    fn flags(&self) -> Vec<(String, String)> {
        vec![("log.level".to_owned(), "info".to_owned())]
    }

    fn build_info(&self) -> BuildInfo {
        BuildInfo { version: "1.2.3".to_owned(), ..BuildInfo::default() }
    }

    fn runtime_info(&self) -> RuntimeInfo {
        RuntimeInfo {
            reload_config_success: true,
            cpu_count: 2,
            storage_retention: "15d".to_owned(),
            ..RuntimeInfo::default()
        }
    }

    fn tsdb_status(&self, limit: usize) -> TsdbStatus {
        let series_by_metric = vec![("up".to_owned(), 2), ("requests".to_owned(), 1)];
        TsdbStatus {
            series_count: 3,
            series_by_metric: series_by_metric.into_iter().take(limit).collect(),
            store: StoreStatus {
                complete: true,
                read_only: Some("no room".to_owned()),
                memory: vec![("labels", 700), ("index", 203)],
                growth_since_ms: Some(1000),
                growth_by_metric: vec![("up".to_owned(), 1)],
                disk: Some(DiskView { total_bytes: 9, free_bytes: 1, reserve_bytes: 2 }),
                damage_found: 2,
                damage: vec![DamageView {
                    file: "blocks/00000001.block".to_owned(),
                    offset: 7,
                    reason: "a column".to_owned(),
                }],
                ..StoreStatus::default()
            },
            ..TsdbStatus::default()
        }
    }

    fn tsdb_blocks(&self) -> Option<Vec<BlockView>> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let first = BlockView {
            name: "00000007".to_owned(),
            min_time_ms: 5,
            max_time_ms: 9,
            samples: 4,
            series: 2,
            chunks: 3,
            level: 1,
            ..BlockView::default()
        };
        let parents = names(&["00000004", "00000005"]);
        let merged = BlockView {
            name: "00000009".to_owned(),
            tombstones: 1,
            level: 2,
            parents,
            bytes: 99,
            ..BlockView::default()
        };
        (!self.restoring.load(Ordering::Relaxed)).then(|| vec![first, merged])
    }

    fn external_labels(&self) -> Labels {
        Labels::from_pairs([("region", "eu")])
    }

    fn metrics(&self) -> String {
        "tidewatch_something 1\n".to_owned()
    }

    fn notices(&self) -> Vec<String> {
        vec!["remote_read is not served yet".to_owned()]
    }
}

fn group(name: &str, file: &str) -> GroupStatus {
    let rule = |name: &str, query: &str, alerting| RuleStatus {
        name: name.to_owned(),
        query: query.to_owned(),
        labels: Labels::from_pairs([("severity", "page")]),
        health: Health::Good,
        last_error: None,
        evaluation_ns: 500_000,
        last_evaluation_ms: Some(NOW_MS),
        alerting,
    };
    let texts = BTreeMap::from([("summary".to_owned(), "<b>down</b>".to_owned())]);
    let alert = AlertStatus {
        labels: Labels::from_pairs([("alertname", "Down"), ("job", "api")]),
        annotations: texts.clone(),
        state: AlertState::Firing,
        active_at_ms: NOW_MS - 30_000,
        keep_firing_since_ms: None,
        value: 0.0,
    };
    let alerting = AlertingStatus {
        state: AlertState::Firing,
        for_ms: 30_000,
        keep_firing_for_ms: 0,
        annotations: texts,
        alerts: vec![alert],
    };
    GroupStatus {
        name: name.to_owned(),
        file: file.to_owned(),
        interval_ms: 15_000,
        query_offset_ms: 0,
        limit: 0,
        rules: vec![rule("Down", "up == 0", Some(alerting)), rule("job:up:sum", "sum by (job) (up)", None)],
        evaluation_ns: 1_000_000,
        last_evaluation_ms: Some(NOW_MS),
        missed: 0,
    }
}

/// A service with its parts at hand.
pub struct Scene {
    pub store: Arc<MemoryStore>,
    pub door: Arc<Door>,
    pub backend: Arc<FixedBackend>,
    pub service: Arc<Service>,
}

pub fn options() -> ServerOptions {
    ServerOptions {
        listen: Vec::new(),
        web_config_file: None,
        external_url: String::new(),
        route_prefix: "/".to_owned(),
        cors_origin: ".*".to_owned(),
        page_title: "Tidewatch".to_owned(),
        enable_lifecycle: false,
        per_step_statistics: true,
        start_timestamps: true,
        write_messages: ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"]
            .map(str::to_owned)
            .to_vec(),
        enable_admin: false,
        query_concurrency: 4,
        write_bytes_in_flight: 64 << 20,
    }
}

impl Scene {
    pub fn new() -> Scene {
        Scene::with(options(), Limits::default())
    }

    pub fn with(options: ServerOptions, limits: Limits) -> Scene {
        let env = Env::in_memory_at(Arc::new(SimClock::at(NOW_MS)));
        Scene::in_env(env, options, limits)
    }

    pub fn in_env(env: Env, options: ServerOptions, limits: Limits) -> Scene {
        Scene::with_replicas(env, options, limits, None)
    }

    pub fn with_replicas(
        env: Env,
        options: ServerOptions,
        limits: Limits,
        replicas: Option<Arc<Mutex<HaTracker>>>,
    ) -> Scene {
        let store = Arc::new(MemoryStore::new());
        let up = |job, values: [f64; 2]| {
            let samples = [(NOW_MS - 60_000, values[0]), (NOW_MS - 1_000, values[1])];
            add(&store, &[("__name__", "up"), ("job", job)], &samples);
        };
        up("api", [1.0, 0.0]);
        up("node", [1.0, 1.0]);
        add(&store, &[("__name__", "http.size"), ("job", "api")], &[(NOW_MS - 1_000, 1_234_567.5)]);
        let door = Arc::new(Door {
            store: store.clone(),
            overloaded: AtomicBool::new(false),
            leaves_exemplars_out: AtomicBool::new(false),
            beside: Mutex::default(),
        });
        let backend = Arc::new(FixedBackend::default());
        let app = App {
            engine: Arc::new(Engine::new(env.clone(), EngineOptions::default())),
            env,
            select: store.clone(),
            append: door.clone(),
            backend: backend.clone(),
            parser: ParserOptions::stable(),
            limits,
            replicas,
            options,
        };
        let service = Service::new(app).expect("a valid configuration");
        Scene { store, door, backend, service }
    }

    /// Sends a request and gives status, headers and body.
    pub fn send(&self, request: hyper::Request<Bytes>) -> (hyper::http::response::Parts, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let request: Request =
                request.map(|body| Full::new(body).map_err(|never| match never {}).boxed_unsync());
            let (parts, body) = self.service.handle(request).await.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes().to_vec();
            (parts, body)
        })
    }

    /// `GET /path` or `POST /path form`; gives `STATUS body`.
    pub fn ask(&self, text: &str) -> String {
        let mut words = text.splitn(3, ' ');
        let (method, target, form) =
            (words.next().expect("a method"), words.next().expect("a path"), words.next().unwrap_or(""));
        let request = hyper::Request::builder()
            .method(method)
            .uri(target)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::copy_from_slice(form.as_bytes()))
            .expect("a request");
        let (parts, body) = self.send(request);
        format!("{} {}", parts.status.as_u16(), String::from_utf8(body).expect("UTF-8"))
    }

    #[track_caller]
    pub fn check(&self, request: &str, expected: &str) {
        assert_eq!(self.ask(request), expected, "{request}");
    }
}
