//! What has to be done in the background, and the one place that decides what is next.
//!
//! The caller runs one job at a time; a job works in slices and ends early when told to.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidewatch_storage::{AppendError, SelectError};

use crate::block::{Block, BlockError, BlockId, BlockMeta, block_path};
use crate::compact::{self, CompactOptions, Merge, Plan, Progress};
use crate::db::Db;
use crate::files::Files;
use crate::options::{BLOCK_MS, OpenError};

/// A piece of background work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Write what the head has before this time to blocks.
    Cut { until_ms: i64 },
    /// Write what series have that ended to blocks, and let them leave the head.
    CutStale,
    /// Write images of the head, so that a start has little to replay, and trim the log.
    Image,
    /// Hide what is damaged of a block, so that what is whole can be read.
    Mend(BlockId),
    /// Remove blocks that are past retention, by time or by size.
    Retain(Vec<Expired>),
    /// Merge blocks to a larger one.
    Compact(Plan),
    /// Rewrite blocks: without what is deleted, where that is much, or so that damage heals.
    Clean(Plan),
}

impl Job {
    /// What kind of job this is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Job::Cut { .. } => "cut",
            Job::CutStale => "cut_stale",
            Job::Image => "image",
            Job::Mend(_) => "mend",
            Job::Retain(_) => "retain",
            Job::Compact(_) => "compact",
            Job::Clean(_) => "clean",
        }
    }
}

/// A block that is past retention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    pub meta: BlockMeta,
    pub rule: RetentionRule,
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BlockMeta { id, min_ms, max_ms, size, .. } = &self.meta;
        let name = block_path(Path::new(""), *id);
        let rule = self.rule.name();
        write!(f, "{} from {min_ms} to {max_ms} ms, {size} bytes, by {rule}", name.display())
    }
}

/// What takes blocks out of retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionRule {
    /// [`Retention::time_ms`](crate::Retention::time_ms), which goes before the others.
    Time,
    /// [`Retention::size_bytes`](crate::Retention::size_bytes).
    Size,
    /// [`Retention::disk_percent`](crate::Retention::disk_percent).
    Percentage,
}

impl RetentionRule {
    /// The name that it has in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            RetentionRule::Time => "time",
            RetentionRule::Size => "size",
            RetentionRule::Percentage => "percentage",
        }
    }
}

/// Why a job did not do its work. Nothing is lost by that; it is tried again later.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("{0}")]
    Block(#[from] BlockError),
    #[error("{0}")]
    Log(#[from] AppendError),
    #[error("{0}")]
    Read(#[from] SelectError),
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("a database in memory has no files")]
    InMemory,
    #[error("stopped before it was done")]
    Stopped,
    #[error("a compaction of all there is runs already")]
    Busy,
}

/// How long a kind of job that failed, or panicked, is left alone; the others go on.
const RETRY_MS: i64 = 30_000;

/// Series that a job handles before it looks whether it is to stop.
pub(crate) const SLICE_SERIES: usize = 4096;

/// A block is rewritten when more than one of so many of its series lacks something: what is deleted
/// then costs less than the rewriting saves.
const CLEAN_SHARE: u64 = 20;

/// A tenth of retention, but not less than a day: larger blocks leave late.
fn range_max_ms(retention_ms: Option<i64>) -> i64 {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    retention_ms.map_or(31 * DAY_MS, |retention| (retention / 10).clamp(DAY_MS, 31 * DAY_MS))
}

/// What the jobs remember.
#[derive(Debug, Default)]
pub(crate) struct JobState {
    /// Kinds that are under way or have failed: when to try again.
    not_before_ms: BTreeMap<&'static str, i64>,
    /// Blocks that could not be merged. They stay as they are until the next start.
    unmergeable: Vec<BlockId>,
}

impl JobState {
    fn mergeable(&self, metas: Vec<BlockMeta>) -> Vec<BlockMeta> {
        metas.into_iter().filter(|meta| !self.unmergeable.contains(&meta.id)).collect()
    }
}

impl Db {
    /// Those of some blocks that merging has not failed with for good.
    pub(crate) fn mergeable(&self, metas: Vec<BlockMeta>) -> Vec<BlockMeta> {
        self.jobs.lock().mergeable(metas)
    }

    /// What is to be done at `now_ms`, most urgent first; `None` when nothing is.
    pub fn next_job(&self, now_ms: i64) -> Option<Job> {
        let files = self.files.as_ref().filter(|_| self.is_complete() && !self.is_stopping())?;
        files.watch_space();
        self.note_wounds(files);
        self.note_growth(now_ms);
        let state = self.jobs.lock();
        let may = |job: &Job| {
            let waits = |at: &i64| now_ms < *at && *at <= now_ms.saturating_add(RETRY_MS);
            !state.not_before_ms.get(job.kind()).is_some_and(waits)
        };
        let metas = self.blocks.metas();
        self.note_passed(&metas);
        let expired = self.past_retention(files, &metas, now_ms);
        if let Some(job) = (!expired.is_empty()).then_some(Job::Retain(expired)).filter(may) {
            return Some(job);
        }
        if let Some(job) = self.mend_due().map(Job::Mend).filter(may) {
            return Some(job);
        }
        if let Some(job) = self.cut_due(now_ms).map(|until_ms| Job::Cut { until_ms }).filter(may) {
            return Some(job);
        }
        if let Some(job) = self.image_due(files).then_some(Job::Image).filter(may) {
            return Some(job);
        }
        if files.is_low() {
            // A merge needs room for its result before it gives back its sources', and a block of ended
            // series gives back none.
            return None;
        }
        if may(&Job::CutStale) && self.stale_due(now_ms) {
            return Some(Job::CutStale);
        }
        let mergeable = state.mergeable(metas);
        let options = self.compact_options(files);
        let merge = compact::plan(&mergeable, &options, self.head.floor()).map(Job::Compact).filter(may);
        merge.or_else(|| self.clean_due(&mergeable, options.room_bytes).map(Job::Clean).filter(may))
    }

    /// The blocks that have had their time, or are too many for the room that the store may take.
    fn past_retention(&self, files: &Files, metas: &[BlockMeta], now_ms: i64) -> Vec<Expired> {
        let mut rules = BTreeMap::new();
        if let Some((rule, bytes_max)) = self.size_max(files) {
            let head_bytes = files.log_bytes() + self.image_bytes.load(Ordering::Relaxed);
            let gone = compact::beyond_size(metas, head_bytes, bytes_max);
            rules.extend(gone.into_iter().map(|id| (id, rule)));
        }
        if let Some(retention_ms) = self.retention().time_ms {
            let gone = compact::expired(metas, retention_ms, now_ms);
            rules.extend(gone.into_iter().map(|id| (id, RetentionRule::Time)));
        }
        let expired = |meta: &BlockMeta| Some(Expired { meta: meta.clone(), rule: *rules.get(&meta.id)? });
        metas.iter().filter_map(expired).collect()
    }

    /// How many bytes there may be, if that is limited: by a share of the disk, or by a number.
    fn size_max(&self, files: &Files) -> Option<(RetentionRule, u64)> {
        let retention = self.retention();
        let share = |percent: f64| Some((files.space()?.total_bytes as f64 * percent / 100.0) as u64);
        let of_disk = retention.disk_percent.filter(|percent| *percent > 0.0).and_then(share);
        let of_disk = of_disk.map(|bytes| (RetentionRule::Percentage, bytes));
        of_disk.or_else(|| Some((RetentionRule::Size, retention.size_bytes?)))
    }

    /// Up to where blocks are merged: a tenth of what is kept, in time and in bytes, as a block leaves as a
    /// whole.
    pub(crate) fn compact_options(&self, files: &Files) -> CompactOptions {
        let bytes_max = self.size_max(files).map_or(u64::MAX, |(_, bytes)| bytes / 10);
        CompactOptions {
            block_ms: BLOCK_MS,
            range_max_ms: range_max_ms(self.retention().time_ms),
            bytes_max,
            room_bytes: files.room_bytes(),
        }
    }

    /// A block of which much is deleted, or that heals when it is written anew; with those that overlap it, where
    /// there is room.
    fn clean_due(&self, metas: &[BlockMeta], room_bytes: u64) -> Option<Plan> {
        let list = self.blocks.list();
        let is_due = |block: &&Arc<Block>| {
            let deleted = block.tombstones().series_count();
            deleted * CLEAN_SHARE > block.meta().series + 1 || block.wounds().heals()
        };
        let mut plans = list.iter().filter(is_due).filter_map(|block| compact::clean(metas, block.meta().id));
        plans.find(|plan| plan.source_bytes(metas) <= room_bytes)
    }

    /// Does a job. One at a time: a second caller waits.
    pub fn run(&self, job: Job) -> Result<(), JobError> {
        let Some(files) = &self.files else { return Ok(()) };
        let _one_at_a_time = self.running.lock();
        // Before it begins: a job that panics has failed, too.
        let retry_ms = self.env.clock.wall_ms().saturating_add(RETRY_MS);
        self.jobs.lock().not_before_ms.insert(job.kind(), retry_ms);
        let there: Vec<BlockId> = self.blocks.metas().iter().map(|meta| meta.id).collect();
        let result = match &job {
            Job::Cut { until_ms } => self.cut(files, *until_ms),
            Job::CutStale => self.cut_stale(files),
            Job::Mend(id) => self.mend(files, *id),
            Job::Image => self.write_images(files),
            Job::Retain(expired) => self.retain(files, expired),
            Job::Compact(plan) => self.compact(files, plan, &self.counters.compactions),
            Job::Clean(plan) => self.compact(files, plan, &self.counters.blocks_cleaned),
        };
        self.blocks.note(&self.env, &files.directory);
        self.give_back_files(|id| !there.contains(id));
        let mut state = self.jobs.lock();
        match result {
            Ok(()) => state.not_before_ms.remove(job.kind()),
            Err(_) => {
                let retry_ms = self.env.clock.wall_ms().saturating_add(RETRY_MS);
                state.not_before_ms.insert(job.kind(), retry_ms)
            }
        };
        if let (Err(JobError::Block(error)), Job::Compact(plan) | Job::Clean(plan)) = (&result, &job) {
            // What can be mended is, and then merges.
            let stays = match error {
                BlockError::Damaged(damage) => !damage.is_mendable(),
                error => matches!(error, BlockError::Corrupt { .. }),
            };
            state.unmergeable.extend(plan.sources.iter().filter(|_| stays));
        }
        result
    }

    /// Gives the memory of files back that were read as a whole, by a job or a start: the images of the
    /// head, and some blocks.
    pub(crate) fn give_back_files(&self, which: impl Fn(&BlockId) -> bool) {
        self.head.give_back_files();
        let blocks = self.blocks.list();
        blocks.iter().filter(|block| which(&block.meta().id)).for_each(|block| block.give_back());
    }

    /// Lets a running job end soon, and no other begin: the server is going down.
    pub fn stop_jobs(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Up to where the head is to be cut, if it is time: whole blocks, and nothing that a sample
    /// within the out-of-order window could still fall into. Of a clock that was ahead there are samples of times
    /// to come, and nothing would be new beside them: all goes to blocks, and the next cut is up to now again.
    fn cut_due(&self, now_ms: i64) -> Option<i64> {
        let (oldest, newest) = self.head.time_range()?;
        if self.is_ahead(newest, now_ms) && newest < i64::MAX {
            return Some(newest + 1);
        }
        let settled = newest.min(now_ms).saturating_sub(self.options.limits.out_of_order_window_ms);
        let until_ms = settled.div_euclid(BLOCK_MS).saturating_mul(BLOCK_MS);
        let floor = self.head.floor();
        (oldest < until_ms && floor < until_ms || self.is_ahead(floor, now_ms)).then_some(until_ms)
    }

    /// Whether no sample of this time would be taken yet.
    pub(crate) fn is_ahead(&self, time_ms: i64, now_ms: i64) -> bool {
        time_ms > now_ms.saturating_add(self.options.limits.future_ms)
    }

    fn retain(&self, files: &Files, expired: &[Expired]) -> Result<(), JobError> {
        let gone: Vec<BlockId> = expired.iter().map(|expired| expired.meta.id).collect();
        self.blocks.replace(&gone, []);
        self.counters.blocks_retired.fetch_add(expired.len() as u64, Ordering::Relaxed);
        Ok(self.blocks.sweep(&self.env, &files.directory)?)
    }

    /// Merges blocks, which leaves out what is deleted; counts it when it is done.
    fn compact(&self, files: &Files, plan: &Plan, counter: &AtomicU64) -> Result<(), JobError> {
        self.blocks.sweep(&self.env, &files.directory)?;
        let dir = files.directory.blocks();
        let list = self.blocks.list();
        let sources: Vec<Arc<Block>> =
            list.iter().filter(|block| plan.sources.contains(&block.meta().id)).cloned().collect();
        let is_newer = |id: BlockId| plan.sources.iter().all(|source| *source < id);
        let overlaps = |meta: &BlockMeta| meta.start_ms < plan.end_ms && plan.start_ms < meta.end_ms;
        let others = self.mergeable(self.blocks.metas());
        let overtaken = others.iter().any(|meta| is_newer(meta.id) && overlaps(meta));
        if overtaken || sources.len() != plan.sources.len() {
            // Planned before another job ran. What merges must not become newer than a block that it
            // overlaps: of two samples at one time the one stays that was stored first.
            return Ok(());
        }
        check_room(files, plan.source_bytes(sources.iter().map(|block| block.meta())))?;
        for block in sources.iter().filter(|block| block.lacks_series()) {
            files.directory.keep_copy_once(block.path())?;
        }
        let id = self.blocks.take_id();
        let mut merge = Merge::start(&self.env, &dir, plan, id, sources)?;
        loop {
            match merge.step(SLICE_SERIES)? {
                (Progress::Done(meta), _) => {
                    let merged = meta.map(|meta| Block::open(&self.env, &block_path(&dir, meta.id)));
                    self.blocks.replace(&plan.sources, merged.transpose()?);
                    counter.fetch_add(1, Ordering::Relaxed);
                    return Ok(self.blocks.sweep(&self.env, &files.directory)?);
                }
                (_, Some(rest)) => merge = rest,
                (_, None) => unreachable!("a merge that is not done goes on"),
            }
            if self.is_stopping() {
                return Err(JobError::Stopped);
            }
            // Others may take the room meanwhile.
            check_room(files, 0)?;
        }
    }
}

/// Fails where the disk has no room for so many bytes beside the reserve.
pub(crate) fn check_room(files: &Files, bytes: u64) -> Result<(), JobError> {
    files.watch_space();
    let room = files.room_bytes();
    if !files.is_low() && bytes <= room {
        return Ok(());
    }
    let reason = match bytes {
        0 => "merging needs more room than is free beside the reserve: make room".to_owned(),
        _ => format!("merging needs {bytes} bytes, and {room} are free beside the reserve: make room"),
    };
    let source = io::Error::new(io::ErrorKind::StorageFull, reason);
    Err(JobError::Io { path: files.directory.blocks(), source })
}
