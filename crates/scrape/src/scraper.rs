//! All jobs, their targets and their schedule: the synchronous core.
//!
//! ```text
//! apply(configs), refresh() ─► pools ─► schedule
//! due() ─► Task ─ fetch ─► finish(task, answer) ─► Sink, status, schedule
//! ```
//!
//! A target that goes away stays in the schedule as *ending* until it would have been scraped
//! next, then its series get their markers. A target whose configuration changes is replaced by
//! a successor that inherits its series and its place in time.
//!
//! Locks: `state` before an entry's `work`; `work` before `status` and `metadata`. `finish` does
//! not hold `work` when it takes `state`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use tidewatch_env::Env;
use tidewatch_model::{Labels, Limits};
use tidewatch_net::{Client, ClientError, Request};

use crate::accept::headers;
use crate::file_sd::read_file;
use crate::metadata::MetadataStore;
use crate::pool::{Active, Pool, Source, Status, Wanted};
use crate::schedule::{Alignment, EntryId, Schedule, identity, place_in_interval};
use crate::target::Target;
use crate::target_loop::{FetchError, Fetched, LoopOptions, TargetLoop};
use crate::url::global_url;
use crate::{
    DroppedTarget, ExternalAddress, Health, MetadataEntry, ScrapeConfig, Sink, TargetStatus, TargetsSnapshot,
};

const NS_PER_MS: u64 = 1_000_000;
/// Bytes of a secret's or certificate's file.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// Bytes of a target's last error, which may quote what the target sent.
const ERROR_BYTES_MAX: usize = 4096;

/// What holds for all jobs.
#[derive(Debug, Clone, Default)]
pub struct ScrapeOptions {
    pub limits: Limits,
    /// Moves the places of all targets, so that two servers do not scrape one target together.
    pub offset_seed: u64,
    /// Whether exemplars of the answers are kept.
    pub exemplars: bool,
    /// Whether `_created` lines say when counters started, and are no series then.
    pub start_timestamps: bool,
    pub external: ExternalAddress,
}

/// Why a configuration was not applied. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
#[error("error creating HTTP client of job {job:?}: {source}")]
pub struct ApplyError {
    pub job: String,
    pub source: ClientError,
}

/// Knows all targets and decides when each is scraped and what its answers mean.
pub struct Scraper {
    env: Env,
    options: ScrapeOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By job name.
    pools: BTreeMap<String, Pool>,
    schedule: Schedule,
    /// What each slot of the schedule stands for.
    entries: HashMap<EntryId, Entry, FixedState>,
    /// When discovery files are looked at next.
    refresh_ns: Option<u64>,
}

struct Entry {
    active: Arc<Active>,
    forced_error: Option<String>,
    /// The target is gone; its series end when it is due.
    is_ending: bool,
}

/// Something that is due now. Give it back to [`Scraper::finish`].
pub struct Task {
    id: EntryId,
    active: Arc<Active>,
    at_ms: i64,
    started_ns: u64,
    kind: TaskKind,
}

enum TaskKind {
    Scrape,
    /// The target must not be scraped: every scrape of it fails with this.
    Refused(String),
    End,
}

/// How a task's text is fetched.
pub enum Fetch {
    Http(Box<Client>, Box<Request>),
    InProcess(Arc<dyn Fn() -> Vec<u8> + Send + Sync>),
    /// There is nothing to fetch: finish the task at once.
    Nothing,
}

impl Scraper {
    pub fn new(env: Env, options: ScrapeOptions) -> Scraper {
        Scraper { env, options, state: Mutex::new(State::default()) }
    }

    /// Makes `configs` the jobs that run. A job that did not change is left alone; a target that
    /// did not change keeps its place in time and its series.
    pub fn apply(&self, configs: Vec<ScrapeConfig>) -> Result<(), ApplyError> {
        let mut state = self.state.lock();
        let names: Vec<String> = configs.iter().map(|config| config.job_name.clone()).collect();
        let mut changed = Vec::new();
        for config in configs {
            let old = state.pools.get(&config.job_name);
            if old.is_some_and(|pool| *pool.config == config) {
                continue;
            }
            let client = match old.filter(|pool| pool.config.http == config.http) {
                Some(pool) => pool.client.clone(),
                None => self
                    .client(&config)
                    .map_err(|source| ApplyError { job: config.job_name.clone(), source })?,
            };
            changed.push(Pool::new(Arc::new(config), client));
        }
        // Nothing fails from here on.
        state.remove_pools(&names);
        for mut pool in changed {
            let name = pool.config.job_name.clone();
            if let Some(old) = state.pools.remove(&name) {
                pool.active = old.active;
            }
            pool.refresh(&*self.env.disk);
            self.sync(&mut state, &mut pool);
            state.pools.insert(name, pool);
        }
        state.refresh_ns = Some(self.env.clock.monotonic_ns());
        Ok(())
    }

    fn client(&self, config: &ScrapeConfig) -> Result<Client, ClientError> {
        let disk = self.env.disk.clone();
        let read = move |path: &Path| read_file(&*disk, path, SECRET_BYTES_MAX);
        Client::new(config.http.clone(), Arc::new(read))
    }

    /// Looks at discovery files where it is time to.
    pub fn refresh(&self) {
        let mut state = self.state.lock();
        let now_ns = self.env.clock.monotonic_ns();
        if state.refresh_ns.is_none_or(|at| at > now_ns) {
            return;
        }
        let mut pools = std::mem::take(&mut state.pools);
        for pool in pools.values_mut() {
            if pool.refresh(&*self.env.disk) {
                self.sync(&mut state, pool);
            }
        }
        let interval_ms = pools.values().filter_map(Pool::poll_interval_ms).min();
        state.refresh_ns = interval_ms.map(|interval_ms| now_ns + interval_ms as u64 * NS_PER_MS);
        state.pools = pools;
    }

    /// Makes the targets of a pool those that its discovery names.
    fn sync(&self, state: &mut State, pool: &mut Pool) {
        let wanted = pool.wanted();
        let mut running = std::mem::take(&mut pool.active);
        let mut starting = Vec::new();
        for (labels, wanted) in wanted {
            match running.remove(&labels) {
                Some((id, active)) if is_unchanged(&active, &wanted, pool) => {
                    active.status.lock().discovered_labels = wanted.target.discovered_labels;
                    pool.active.insert(labels, (id, active));
                }
                Some((id, active)) => starting.push((wanted, Some((id, active)))),
                None => starting.push((wanted, None)),
            }
        }
        // First those that go, so that those that come can inherit from them.
        for (id, _) in running.into_values() {
            if let Some(entry) = state.entries.get_mut(&id) {
                entry.is_ending = true;
            }
        }
        for (wanted, predecessor) in starting {
            let (id, active) = self.start(state, pool, wanted, predecessor);
            pool.active.insert(active.target.all_labels.clone(), (id, active));
        }
        let forced_error = pool.forced_error();
        for (id, _) in pool.active.values() {
            if let Some(entry) = state.entries.get_mut(id) {
                entry.forced_error.clone_from(&forced_error);
            }
        }
    }

    /// Starts a target: at its predecessor's place in time where it has one, and with the series
    /// of whatever scraped the same labels before.
    fn start(
        &self,
        state: &mut State,
        pool: &Pool,
        wanted: Wanted,
        predecessor: Option<(EntryId, Arc<Active>)>,
    ) -> (EntryId, Arc<Active>) {
        let seed = self.env.entropy.next_u64();
        let target = Arc::new(wanted.target);
        let options = LoopOptions {
            samples_max: self.options.limits.scrape_samples,
            exemplars: self.options.exemplars,
            start_timestamps: self.options.start_timestamps,
        };
        let mut work = TargetLoop::new(target.clone(), pool.config.clone(), &options, seed);
        let mut status = Status::default();
        let mut slot = None;
        if let Some((id, active)) = predecessor.or_else(|| state.take_ending(&target.labels)) {
            work.inherit(&mut active.work.lock());
            status = active.status.lock().clone();
            state.entries.remove(&id);
            slot = state.schedule.remove(id).filter(|_| {
                active.target.interval_ms == target.interval_ms && active.target.url == target.url
            });
        }
        status.discovered_labels = target.discovered_labels.clone();
        let id = match slot {
            // A scrape that is under way is lost, so the same time is due again.
            Some(slot) => state.schedule.add(slot.due_ns, slot.alignment),
            None => state.schedule.add(self.first_due_ns(&target), Alignment::new(target.interval_ms)),
        };
        let active = Arc::new(Active {
            target,
            config: pool.config.clone(),
            source: wanted.source,
            status: Mutex::new(status),
            metadata: Mutex::new(MetadataStore::new(seed)),
            work: Mutex::new(work),
        });
        let entry = Entry { active: active.clone(), forced_error: None, is_ending: false };
        state.entries.insert(id, entry);
        (id, active)
    }

    /// The next time at which the target's place in the interval comes.
    fn first_due_ns(&self, target: &Target) -> u64 {
        let identity = identity(&[target.all_labels.as_bytes(), target.url.as_bytes()]);
        let place_ms = place_in_interval(identity, self.options.offset_seed, target.interval_ms);
        let past_ms = self.env.clock.wall_ms().rem_euclid(target.interval_ms);
        let wait_ms = (place_ms - past_ms).rem_euclid(target.interval_ms);
        self.env.clock.monotonic_ns() + wait_ms as u64 * NS_PER_MS
    }

    /// Monotonic time at which [`Scraper::due`] or [`Scraper::refresh`] has something to do.
    pub fn next_ns(&self) -> Option<u64> {
        let mut state = self.state.lock();
        [state.schedule.next_ns(), state.refresh_ns].into_iter().flatten().min()
    }

    /// Takes everything that is due. Each task must be given back to [`Scraper::finish`].
    pub fn due(&self) -> Vec<Task> {
        let mut state = self.state.lock();
        let (now_ns, wall_ms) = (self.env.clock.monotonic_ns(), self.env.clock.wall_ms());
        let mut tasks = Vec::new();
        while let Some((id, at_ms)) = state.schedule.take_due(now_ns, wall_ms) {
            let entry = state.entries.get(&id).expect("each slot has its entry");
            let kind = match (&entry.forced_error, entry.is_ending) {
                (_, true) => TaskKind::End,
                (Some(error), false) => TaskKind::Refused(error.clone()),
                (None, false) => TaskKind::Scrape,
            };
            tasks.push(Task { id, active: entry.active.clone(), at_ms, started_ns: now_ns, kind });
        }
        tasks
    }

    /// Writes what a task brought and plans the target's next scrape. May block for as long as
    /// the sink does.
    pub fn finish(&self, task: Task, fetched: Result<Fetched, FetchError>, sink: &dyn Sink) {
        let Task { id, active, at_ms, started_ns, kind } = task;
        let fetched = match kind {
            TaskKind::Scrape => fetched,
            TaskKind::Refused(message) => Err(FetchError { message, is_body_too_large: false }),
            TaskKind::End => {
                active.work.lock().end(at_ms, sink);
                let mut state = self.state.lock();
                state.schedule.remove(id);
                state.entries.remove(&id);
                return;
            }
        };
        let duration_seconds = (self.env.clock.monotonic_ns() - started_ns) as f64 / 1e9;
        let report = active.work.lock().complete(at_ms, duration_seconds, fetched, &active.metadata, sink);
        if let Some(report) = report {
            let mut status = active.status.lock();
            status.health = if report.error.is_none() { Health::Up } else { Health::Down };
            status.last_error = report.error.or(report.sink_error).unwrap_or_default();
            let cut = status.last_error.floor_char_boundary(ERROR_BYTES_MAX);
            status.last_error.truncate(cut);
            status.last_scrape_ms = Some(at_ms);
            status.last_duration_seconds = report.duration_seconds;
        }
        let now_ns = self.env.clock.monotonic_ns();
        self.state.lock().schedule.reschedule(id, now_ns);
    }

    /// Runs what is due without a network: in-process targets are scraped, others fail. For
    /// embedding in tests under a virtual clock.
    pub fn step(&self, sink: &dyn Sink) {
        self.refresh();
        for task in self.due() {
            let fetched = match self.fetch(&task) {
                Fetch::InProcess(source) => Ok(Fetched::text(source())),
                Fetch::Http(..) | Fetch::Nothing => Err(FetchError {
                    message: "this scraper runs without a network".to_owned(),
                    is_body_too_large: false,
                }),
            };
            self.finish(task, fetched, sink);
        }
    }

    /// What to fetch for a task.
    pub fn fetch(&self, task: &Task) -> Fetch {
        let Active { target, config, source, .. } = &*task.active;
        match (&task.kind, source) {
            (TaskKind::Scrape, Source::InProcess(source)) => Fetch::InProcess(source.clone()),
            (TaskKind::Scrape, Source::Http(client)) => {
                let own_max = self.options.limits.scrape_body_bytes;
                let body_bytes_max = match config.body_size_limit {
                    0 => own_max,
                    limit => usize::try_from(limit).unwrap_or(usize::MAX).min(own_max),
                };
                let timeout = Duration::from_millis(target.timeout_ms as u64);
                let mut request = Request::get(&target.url, timeout, body_bytes_max);
                request.headers = headers(config, target.timeout_ms);
                Fetch::Http(Box::new(client.clone()), Box::new(request))
            }
            _ => Fetch::Nothing,
        }
    }

    /// All targets as the API shows them.
    pub fn targets(&self) -> TargetsSnapshot {
        let state = self.state.lock();
        let mut snapshot = TargetsSnapshot::default();
        for (name, pool) in &state.pools {
            snapshot.pools.push(name.clone());
            let mut active: Vec<&Arc<Active>> = pool.active.values().map(|(_, active)| active).collect();
            active.sort_by(|a, b| a.target.all_labels.cmp(&b.target.all_labels));
            snapshot.active.extend(active.into_iter().map(|active| self.target_status(name, active)));
            snapshot.dropped_counts.push((name.clone(), pool.dropped_count));
            snapshot.dropped.extend(pool.dropped.iter().map(|labels| DroppedTarget {
                discovered_labels: labels.clone(),
                scrape_pool: name.clone(),
            }));
        }
        snapshot
    }

    fn target_status(&self, pool: &str, active: &Active) -> TargetStatus {
        let (target, status) = (&active.target, active.status.lock().clone());
        TargetStatus {
            labels: target.labels.clone(),
            discovered_labels: status.discovered_labels,
            scrape_pool: pool.to_owned(),
            scrape_url: target.url.clone(),
            global_url: global_url(&target.url, &self.options.external),
            last_error: status.last_error,
            last_scrape_ms: status.last_scrape_ms,
            last_scrape_duration_seconds: status.last_duration_seconds,
            health: status.health,
            scrape_interval_ms: target.interval_ms,
            scrape_timeout_ms: target.timeout_ms,
        }
    }

    /// What targets say about their families: for each target by family.
    pub fn metadata(&self) -> Vec<MetadataEntry> {
        let state = self.state.lock();
        let active: Vec<Arc<Active>> = state
            .pools
            .values()
            .flat_map(|pool| pool.active.values().map(|(_, active)| active.clone()))
            .collect();
        drop(state);
        let mut entries = Vec::new();
        for active in active {
            let metadata = active.metadata.lock();
            entries.extend(metadata.list().into_iter().map(|(family, known)| MetadataEntry {
                target: active.target.labels.clone(),
                family: family.to_owned(),
                kind: known.kind,
                help: known.help.clone(),
                unit: known.unit.clone(),
            }));
        }
        entries
    }
}

impl State {
    /// Ends every target of the pools that are not named.
    fn remove_pools(&mut self, names: &[String]) {
        let gone: Vec<String> = self.pools.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            let pool = self.pools.remove(&name).expect("listed above");
            for (id, _) in pool.active.into_values() {
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.is_ending = true;
                }
            }
        }
    }

    /// An ending target whose series carry these labels, if there is one.
    fn take_ending(&self, labels: &Labels) -> Option<(EntryId, Arc<Active>)> {
        let entries = self.entries.iter();
        let mut ending =
            entries.filter(|(_, entry)| entry.is_ending && entry.active.target.labels == *labels);
        ending.next().map(|(id, entry)| (*id, entry.active.clone()))
    }
}

/// Whether a target that runs is just what discovery wants.
fn is_unchanged(active: &Active, wanted: &Wanted, pool: &Pool) -> bool {
    let is_same_source = match (&active.source, &wanted.source) {
        (Source::Http(_), Source::Http(_)) => true,
        (Source::InProcess(a), Source::InProcess(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    is_same_source && active.target.url == wanted.target.url && Arc::ptr_eq(&active.config, &pool.config)
}
