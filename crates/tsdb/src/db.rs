//! The database: head, log and blocks as one, behind the traits of `storage`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tidewatch_env::Env;
use tidewatch_model::{Batch, Exemplar, Labels, Limits, Matcher};
use tidewatch_storage::{
    Append, AppendError, AppendOutcome, Refusal, Room, Select, SelectError, Selection, Ticket, TimeRange,
};

use crate::block::BlockMeta;
use crate::blocks::Blocks;
use crate::compact;
use crate::counters::AtomicCounters;
use crate::debt::Debt;
use crate::deferred::{Deferred, batch_of};
use crate::durable::Owing;
use crate::exemplars::Exemplars;
use crate::files::{Files, Left, reserve_bytes};
use crate::growth::GrowthWatch;
use crate::head::Head;
use crate::head::append::{FrameLog, Terms};
use crate::jobs::JobState;
use crate::late::Looked;
use crate::metadata::{FamilyMetadata, MetadataStore};
use crate::options::{DbOptions, OpenError, Retention};
use crate::recover;
use crate::resolve::Resolutions;
use crate::select::{DbSelection, blocks_within, damaged};
use crate::stale::StaleWatch;
use crate::status::{Cardinality, Damage, DbStatus, DiskStatus, Replay};
use crate::texts::Texts;
use crate::wounds::Wounds;

/// A database of series.
///
/// ```text
///  open ──► ready, not complete ── recover ──► complete
///           appends are taken,                  queries are answered
///           queries refused
/// ```
///
/// The caller runs [`Db::recover`] once, [`Db::commit`] in a loop, and the jobs that are due.
pub struct Db {
    pub(crate) env: Env,
    pub(crate) options: DbOptions,
    /// What is kept. Starts as the options say; a reload may change it.
    retention: RwLock<Retention>,
    pub(crate) head: Head,
    /// Files and log; `None` in memory.
    pub(crate) files: Option<Files>,
    pub(crate) blocks: Blocks,
    pub(crate) resolutions: Resolutions,
    /// What the jobs remember.
    pub(crate) jobs: Mutex<JobState>,
    /// Held by the job that runs.
    pub(crate) running: Mutex<()>,
    /// Held by the one compaction of all there is that may be under way.
    pub(crate) compacting: Mutex<()>,
    pub(crate) stopping: AtomicBool,
    /// Bytes that the log had been given when the newest images were written, and their size.
    pub(crate) imaged_at: AtomicU64,
    pub(crate) image_bytes: AtomicU64,
    /// Whether the images have samples that are in blocks since: they are smaller without.
    pub(crate) images_stale: AtomicBool,
    complete: AtomicBool,
    /// How far recovery has come. The lock is held for a copy.
    pub(crate) replay: Mutex<Replay>,
    /// Batches that came while recovery was running; `None` once it is over.
    deferred: Mutex<Option<Deferred>>,
    pub(crate) exemplars: Exemplars,
    pub(crate) metadata: MetadataStore,
    pub(crate) stale: StaleWatch,
    pub(crate) growth: GrowthWatch,
    /// Up to when time has passed as far as blocks tell, see [`compact::passed`]; `i64::MAX` where they do not.
    pub(crate) passed_ms: AtomicI64,
    /// Damage that was met in runs of the head.
    pub(crate) head_wounds: Arc<Wounds>,
    pub(crate) counters: AtomicCounters,
}

/// The log of a database in memory.
pub(crate) struct NoLog;

impl FrameLog for NoLog {
    fn append(&self, _: &[u8]) -> Result<Ticket, AppendError> {
        Ok(Ticket::default())
    }
}

impl Db {
    /// A database without files: it ends with the process and is complete at once.
    pub fn in_memory(env: Env, options: DbOptions) -> Db {
        Db::new(env, options, None)
    }

    /// Takes a directory and makes the database ready for appends. Nothing is read yet: queries
    /// wait for [`Db::recover`].
    pub fn open(env: Env, options: DbOptions) -> Result<Db, OpenError> {
        let files = Files::open(&env, &options.dir, options.segment_bytes)?;
        Ok(Db::new(env, options, Some(files)))
    }

    fn new(env: Env, options: DbOptions, files: Option<Files>) -> Db {
        Db {
            head: Head::new(env.entropy.next_u64()),
            blocks: Blocks::default(),
            resolutions: Resolutions::default(),
            jobs: Mutex::default(),
            running: Mutex::default(),
            compacting: Mutex::default(),
            stopping: AtomicBool::new(false),
            imaged_at: AtomicU64::new(0),
            image_bytes: AtomicU64::new(0),
            images_stale: AtomicBool::new(false),
            complete: AtomicBool::new(files.is_none()),
            replay: Mutex::default(),
            deferred: Mutex::new(files.as_ref().map(|_| Deferred::default())),
            exemplars: Exemplars::new(options.exemplars_max, files.is_some()),
            metadata: MetadataStore::new(files.is_some()),
            counters: AtomicCounters::default(),
            retention: RwLock::new(options.retention()),
            stale: StaleWatch::new(options.stale_share),
            growth: GrowthWatch::default(),
            passed_ms: AtomicI64::new(i64::MAX),
            head_wounds: Arc::default(),
            env,
            options,
            files,
        }
    }

    /// Brings back what was stored, and then takes queries. Batches that come meanwhile are
    /// logged at once and applied at the end.
    pub fn recover(&self) -> Result<(), OpenError> {
        let Some(files) = self.files.as_ref().filter(|_| !self.is_complete()) else { return Ok(()) };
        let Left { images, opened } = files.take_left();
        self.image_bytes.store(images.bytes(), Ordering::Relaxed);
        let (mut settled, mut replayed) = (Ok(()), None);
        let settle = || {
            self.blocks.load(&self.env, &files.directory)?;
            files.directory.renew_segment(&opened.segments, opened.newest.as_ref())
        };
        self.env.parallel.beside(
            Box::new(|| settled = settle()),
            Box::new(|| replayed = Some(recover::replay(self, &files.directory, &images, &opened))),
        );
        settled?;
        let recovered =
            replayed.expect("replayed above").map_err(|error| OpenError::Log(error.to_string()))?;
        // Until damaged ones are written anew, more damage could cost what this one did not.
        let is_damaged = [files.directory.head(), files.directory.wal()]
            .iter()
            .any(|dir| files.directory.has_damage_below(dir));
        self.images_stale.store(recovered.has_cut || is_damaged, Ordering::Relaxed);
        self.exemplars.complete();
        self.metadata.complete();
        files.log.count_replayed(recovered.log_bytes);
        let metas = self.blocks.metas();
        self.note_passed(&metas);
        let of_blocks = metas.iter().map(|meta| meta.max_ms).max();
        if let Some(newest_ms) = of_blocks {
            // A block of a clock that was ahead must not make all samples late ones.
            let newest_ms = newest_ms.min(self.env.clock.wall_ms());
            self.head.shards.iter().for_each(|shard| shard.lock().replayed(newest_ms));
        }
        let of_head = self.head.time_range().map(|(_, newest)| newest);
        of_blocks.max(of_head).into_iter().for_each(|newest| self.head.has_newest(newest));
        self.counters.replayed.fetch_add(recovered.samples, Ordering::Relaxed);
        self.counters.set_aside.fetch_add(recovered.samples_set_aside, Ordering::Relaxed);
        files.has_deferred.fetch_or(!recovered.deferred.is_empty(), Ordering::Release);
        for frame in &recovered.deferred {
            self.counters.count_replayed(&self.append_deferred(files, frame));
        }
        // Jobs begin when the store is complete, and an image must not be made of what goes meanwhile.
        let _no_job = self.running.lock();
        self.complete_with_deferred(files);
        // Nobody reads what goes here, so nobody has to wait for it.
        self.head.truncate();
        self.give_back_files(|_| true);
        Ok(())
    }

    /// Appends what came meanwhile until nothing is left, and says that the store is complete.
    fn complete_with_deferred(&self, files: &Files) {
        let append = |frame: &Vec<u8>| self.counters.count(&self.append_deferred(files, frame));
        for pass in 1.. {
            let mut deferred = self.deferred.lock();
            let (frames, are_few) = deferred.as_mut().map_or((Vec::new(), true), Deferred::take);
            if are_few || pass == PASSES_MAX {
                // Under the lock: no batch is deferred once nobody looks for it, and those who write without a pause
                // do not keep this from its end.
                frames.iter().for_each(append);
                self.complete.store(true, Ordering::Release);
                *deferred = None;
                return;
            }
            drop(deferred);
            frames.iter().for_each(append);
        }
    }

    /// Appends what was acknowledged while recovery was running. It was held to all terms but one that nobody
    /// could tell then: a sample whose time has another value is refused now, and counted. (A label set is longer as
    /// it is stored than as it came, so it is not measured twice.)
    fn append_deferred(&self, files: &Files, frame: &[u8]) -> AppendOutcome {
        let limits = self.limits_of_checked();
        let terms = Terms {
            from_ms: i64::MIN,
            until_ms: i64::MAX,
            series_max: usize::MAX,
            limits: &limits,
            ..self.terms(i64::MAX)
        };
        let outcome = self.append_asking(&batch_of(frame), &terms, &Owing(&files.log));
        outcome.expect("this log refuses nothing")
    }

    /// The limits of what was held against them before.
    fn limits_of_checked(&self) -> Limits {
        Limits {
            out_of_order_window_ms: i64::MAX,
            labels_per_series: usize::MAX,
            label_name_bytes: usize::MAX,
            label_value_bytes: usize::MAX,
            label_set_bytes: usize::MAX,
            ..self.options.limits.clone()
        }
    }

    /// Makes everything that was appended durable and returns up to where that is so.
    pub fn commit(&self) -> Result<Ticket, AppendError> {
        let Some(files) = &self.files else { return Ok(Ticket::default()) };
        files.watch_space_often(self.env.clock.monotonic_ns() / 1_000_000);
        files.log.commit()
    }

    /// Up to where the log is durable: a batch is when its ticket is not beyond.
    pub fn durable(&self) -> Ticket {
        self.files.as_ref().map_or(Ticket::default(), |files| files.log.durable())
    }

    pub(crate) fn retention(&self) -> Retention {
        *self.retention.read()
    }

    /// Keeps samples by other terms from now on.
    pub fn set_retention(&self, retention: Retention) {
        *self.retention.write() = retention;
    }

    /// Whether recovery is over.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// How far recovery has come with the log.
    pub fn replay(&self) -> Replay {
        *self.replay.lock()
    }

    pub fn status(&self) -> DbStatus {
        let mut status = DbStatus {
            complete: self.is_complete(),
            head: self.head.status(),
            blocks: self.blocks.status(),
            counters: self.counters.load(),
            ..DbStatus::default()
        };
        status.head.exemplars = self.exemplars.count();
        status.head.stale_series = self.stale.count();
        status.counters.series_created = self.head.series_created.load(Ordering::Relaxed);
        if let Some(files) = &self.files {
            status.read_only = self.read_only();
            status.wal_bytes = files.log_bytes();
            status.image_bytes = self.image_bytes.load(Ordering::Relaxed);
            (status.damage, status.damage_found) = self.damage();
            status.counters.commits = files.log.commits();
            status.disk = files.space().map(|space| DiskStatus {
                total_bytes: space.total_bytes,
                free_bytes: space.free_bytes,
                reserve_bytes: reserve_bytes(space),
            });
        }
        status
    }

    /// What was found damaged since the start, oldest first, the first hundred pieces; and how many there are.
    pub fn damage(&self) -> (Vec<Damage>, u64) {
        let Some(files) = &self.files else { return Default::default() };
        self.note_wounds(files);
        files.directory.damage()
    }

    /// Why samples are refused, if they are.
    pub fn read_only(&self) -> Option<String> {
        self.files.as_ref().and_then(Files::refusal)
    }

    /// The exemplars within `range` of the series that satisfy all matchers of one of the
    /// selectors, by the series' labels.
    pub fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, SelectError> {
        self.check_complete()?;
        Ok(self.exemplars.select(selectors, range))
    }

    /// What is known of metric families, by name.
    pub fn metadata(&self) -> Vec<(String, FamilyMetadata)> {
        self.metadata.list()
    }

    /// Takes what a batch has beside samples; says whether one of its exemplars was there already.
    fn append_beside(
        &self,
        batch: &Batch<'_>,
        log: &dyn FrameLog,
        outcome: &mut AppendOutcome,
    ) -> Result<bool, AppendError> {
        let metadata = self.metadata.append(&batch.metadata, log)?;
        let exemplars = self.exemplars.append(batch, &self.options.limits, log)?;
        outcome.accepted_exemplars = exemplars.taken + exemplars.repeats;
        let ticket = metadata.max(exemplars.ticket).unwrap_or_default();
        outcome.ticket = outcome.ticket.max(ticket);
        Ok(exemplars.repeats > 0)
    }

    /// The `limit` largest metrics, labels and pairs of the head.
    pub fn cardinality(&self, limit: usize) -> Cardinality {
        self.head.cardinality(limit)
    }

    fn check_complete(&self) -> Result<(), SelectError> {
        if self.is_complete() { Ok(()) } else { Err(SelectError::Recovering) }
    }

    /// See [`Select::select_within`].
    pub(crate) fn resolve(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        room: &mut Room<'_>,
    ) -> Result<DbSelection, SelectError> {
        self.resolve_first(matchers, range, usize::MAX, room)
    }

    /// The first series of a selector in the order of their labels: fewer than `most` only where there are no more.
    fn resolve_first(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        most: usize,
        room: &mut Room<'_>,
    ) -> Result<DbSelection, SelectError> {
        self.check_complete()?;
        let (mut debt, mut first) = (Debt::new(room), most);
        loop {
            let list = self.blocks.list();
            let blocks = blocks_within(&list, range);
            let resolution = self.resolutions.resolve(&self.head, &blocks, matchers, first, &mut debt)?;
            let head = self.head.snapshot(&resolution, range, &mut debt)?;
            if !Arc::ptr_eq(&list, &self.blocks.list()) {
                // What a cut has taken from the head meanwhile is in a block that is not in the list.
                continue;
            }
            let is_all = resolution.is_all;
            let selection = DbSelection::new(resolution, head, blocks, Arc::clone(&self.head_wounds));
            if is_all || selection.len() >= most {
                return Ok(selection);
            }
            // Some of them have no samples in the range.
            first = first.saturating_mul(FIRST_GROWTH);
        }
    }

    pub(crate) fn note_passed(&self, metas: &[BlockMeta]) {
        let retention_ms = self.retention().time_ms;
        let passed_ms = retention_ms.and_then(|retention_ms| compact::passed(metas, retention_ms));
        self.passed_ms.store(passed_ms.unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// What requests are held against at `now_ms`.
    ///
    /// Older than retention is what the retention job would take for it right now; a store that
    /// is empty, or does not know yet what it holds, has only the clock to go by. In memory
    /// nothing is removed, so nothing is too old.
    fn terms(&self, now_ms: i64) -> Terms<'_> {
        let retention_ms = self.retention().time_ms.filter(|_| self.files.is_some());
        let newest_ms = self.head.newest().filter(|_| self.is_complete()).unwrap_or(now_ms);
        let newest_ms = newest_ms.min(self.passed_ms.load(Ordering::Relaxed));
        Terms {
            now_ms,
            from_ms: retention_ms
                .map_or(i64::MIN, |retention_ms| compact::kept_from(retention_ms, newest_ms, now_ms)),
            until_ms: now_ms.saturating_add(self.options.limits.future_ms),
            retention_ms,
            limits: &self.options.limits,
            series_max: self.options.series_max,
            blocks: &self.blocks,
            looked: None,
        }
    }

    /// Appends to a database on disk.
    fn append_durably(
        &self,
        files: &Files,
        batch: &Batch<'_>,
        terms: &Terms<'_>,
    ) -> Result<AppendOutcome, AppendError> {
        if let Some(reason) = files.refusal() {
            return Err(AppendError::ReadOnly { reason });
        }
        if !self.is_complete()
            && let Some(deferred) = self.deferred.lock().as_mut()
        {
            files.has_deferred.store(true, Ordering::Release);
            let outcome = deferred.append(batch, terms, &files.log)?;
            self.counters.count_refused(&outcome);
            return Ok(outcome);
        }
        self.append_to_head(batch, terms, &files.log)
    }

    fn append_to_head(
        &self,
        batch: &Batch<'_>,
        terms: &Terms<'_>,
        log: &dyn FrameLog,
    ) -> Result<AppendOutcome, AppendError> {
        let outcome = self.append_asking(batch, terms, log)?;
        self.counters.count(&outcome);
        Ok(outcome)
    }

    /// Appends to the head, and asks blocks about late samples whose times they may have.
    fn append_asking(
        &self,
        batch: &Batch<'_>,
        terms: &Terms<'_>,
        log: &dyn FrameLog,
    ) -> Result<AppendOutcome, AppendError> {
        let mut outcome = AppendOutcome::default();
        let mut unsure = self.head.append(batch, terms, log, &mut outcome)?;
        // Again where other blocks have come meanwhile, which takes a job.
        while !unsure.series.is_empty() {
            let limits = self.limits_of_checked();
            let terms = Terms { limits: &limits, ..*terms };
            let until_ms = self.env.clock.wall_ms().saturating_add(self.options.limits.future_ms);
            let (looked, rest) = Looked::at(self.blocks.list(), until_ms, &unsure, &terms, &mut outcome);
            let terms = Terms { looked: Some(&looked), ..terms };
            unsure = self.head.append(&rest, &terms, log, &mut outcome)?;
        }
        Ok(outcome)
    }
}

impl Append for Db {
    fn append(&self, batch: &Batch<'_>) -> Result<AppendOutcome, AppendError> {
        let terms = self.terms(self.env.clock.wall_ms());
        let samples = batch.samples.len() + batch.histograms.len();
        if samples > BATCH_SAMPLES_MAX {
            let reason = format!("a batch of {samples} samples: split it");
            return Err(AppendError::Overloaded { reason });
        }
        let mut outcome = match &self.files {
            Some(files) => self.append_durably(files, batch, &terms)?,
            None => self.append_to_head(batch, &terms, &NoLog)?,
        };
        let repeats = match &self.files {
            Some(files) => self.append_beside(batch, &files.log, &mut outcome)?,
            None => self.append_beside(batch, &NoLog, &mut outcome)?,
        };
        if let Some(files) = self.files.as_ref().filter(|_| repeats || outcome.duplicates > 0) {
            // What is repeated was there, but perhaps its own batch is not durable yet.
            outcome.ticket = files.log.end();
        }
        let overloaded = outcome.overloaded.take().or_else(|| self.refused_for_now(batch, &outcome, &terms));
        match overloaded {
            Some(reason) => Err(AppendError::Overloaded { reason }),
            None => Ok(outcome),
        }
    }
}

impl Db {
    /// Why samples that are too old will not be so soon: beside those of a clock that was ahead all are, until a job has
    /// moved these to blocks.
    fn refused_for_now(
        &self,
        batch: &Batch<'_>,
        outcome: &AppendOutcome,
        terms: &Terms<'_>,
    ) -> Option<String> {
        let is_too_old = |(refusal, _): &(Refusal, u64)| *refusal == Refusal::TooOld;
        self.files.as_ref().filter(|_| outcome.refused.iter().any(is_too_old))?;
        // Older ones stay too old.
        let from_ms = terms.now_ms.saturating_sub(terms.limits.out_of_order_window_ms);
        let floats = batch.samples.iter().map(|sample| sample.timestamp);
        let mut times = floats.chain(batch.histograms.iter().map(|histogram| histogram.timestamp));
        times.find(|time| *time >= from_ms)?;
        let (_, newest) = self.head.time_range()?;
        let reason =
            "the clock was ahead, and its samples are not in blocks yet: send this again in a second";
        self.is_ahead(newest, terms.now_ms).then(|| reason.to_owned())
    }
}

/// How often a start appends what came meanwhile before those who write wait for the rest.
const PASSES_MAX: usize = 4;

/// How many more series are looked at where too few of the first have samples in a range.
const FIRST_GROWTH: usize = 16;

/// Samples of one batch: its frames stay below the log's limit for one.
const BATCH_SAMPLES_MAX: usize = 1 << 20;

impl Select for Db {
    fn select(&self, matchers: &[Matcher], range: TimeRange) -> Result<Box<dyn Selection>, SelectError> {
        self.select_within(matchers, range, &mut |_| true)
    }

    fn select_within(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        room: &mut Room<'_>,
    ) -> Result<Box<dyn Selection>, SelectError> {
        Ok(Box::new(self.resolve(matchers, range, room)?))
    }

    fn select_first(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        most: usize,
        room: &mut Room<'_>,
    ) -> Result<Box<dyn Selection>, SelectError> {
        Ok(Box::new(self.resolve_first(matchers, range, most, room)?))
    }

    fn label_names(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        room: &mut Room<'_>,
    ) -> Result<Vec<String>, SelectError> {
        self.check_complete()?;
        let mut texts = Texts::new(limit, room);
        self.head.label_names(matchers, range, &mut texts);
        for block in blocks_within(&self.blocks.list(), range) {
            let series = block.narrowed(matchers, &mut || texts.debt().goes_on()).map_err(damaged)?;
            block.visit_label_names(series.as_ref(), &mut |name| texts.add(name)).map_err(damaged)?;
        }
        texts.finish()
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        limit: usize,
        room: &mut Room<'_>,
    ) -> Result<Vec<String>, SelectError> {
        self.check_complete()?;
        let mut texts = Texts::new(limit, room);
        self.head.label_values(name, matchers, range, &mut texts);
        for block in blocks_within(&self.blocks.list(), range) {
            let series = block.narrowed(matchers, &mut || texts.debt().goes_on()).map_err(damaged)?;
            block
                .visit_label_values(name, series.as_ref(), &mut |value| texts.add(value))
                .map_err(damaged)?;
        }
        texts.finish()
    }
}
