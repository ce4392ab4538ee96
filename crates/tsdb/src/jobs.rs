//! What has to be done in the background, and the one place that decides what is next.
//!
//! The caller runs one job at a time; a job works in slices and ends early when told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidewatch_storage::{AppendError, SelectError};

use crate::block::{Block, BlockError, BlockId, block_path};
use crate::compact::{self, CompactOptions, Merge, Plan, Progress};
use crate::db::{Db, Files};
use crate::options::{BLOCK_MS, OpenError};

/// A piece of background work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Write what the head has before this time to blocks.
    Cut { until_ms: i64 },
    /// Write images of the head, so that a start has little to replay, and trim the log.
    Image,
    /// Remove blocks that are older than retention.
    Retain(Vec<BlockId>),
    /// Merge blocks to a larger one.
    Compact(Plan),
}

impl Job {
    /// What kind of job this is, in a word.
    pub fn kind(&self) -> &'static str {
        match self {
            Job::Cut { .. } => "cut",
            Job::Image => "image",
            Job::Retain(_) => "retain",
            Job::Compact(_) => "compact",
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
    #[error("stopped before it was done")]
    Stopped,
}

/// How long a kind of job that failed, or panicked, is left alone; the others go on.
const RETRY_MS: i64 = 30_000;

/// Series that a job handles before it looks whether it is to stop.
pub(crate) const SLICE_SERIES: usize = 4096;

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

impl Db {
    /// What is to be done at `now_ms`, most urgent first; `None` when nothing is.
    pub fn next_job(&self, now_ms: i64) -> Option<Job> {
        let files = self.files.as_ref().filter(|_| self.is_complete() && !self.is_stopping())?;
        files.watch_space();
        let state = self.jobs.lock();
        let may = |job: &Job| {
            let waits = |at: &i64| now_ms < *at && *at <= now_ms.saturating_add(RETRY_MS);
            !state.not_before_ms.get(job.kind()).is_some_and(waits)
        };
        let metas = self.blocks.metas();
        if let Some(retention_ms) = self.options.retention_ms {
            let newest_ms = self.head.newest().unwrap_or(now_ms);
            let expired = compact::expired(&metas, retention_ms, newest_ms, now_ms);
            if let Some(job) = (!expired.is_empty()).then_some(Job::Retain(expired)).filter(may) {
                return Some(job);
            }
        }
        if let Some(job) = self.cut_due(now_ms).map(|until_ms| Job::Cut { until_ms }).filter(may) {
            return Some(job);
        }
        if let Some(job) = self.image_due(files).then_some(Job::Image).filter(may) {
            return Some(job);
        }
        let mergeable: Vec<_> =
            metas.into_iter().filter(|meta| !state.unmergeable.contains(&meta.id)).collect();
        let range_max_ms = range_max_ms(self.options.retention_ms);
        let options = CompactOptions { block_ms: BLOCK_MS, range_max_ms };
        compact::plan(&mergeable, &options, self.head.floor()).map(Job::Compact).filter(may)
    }

    /// Does a job. One at a time: a second caller waits.
    pub fn run(&self, job: Job) -> Result<(), JobError> {
        let Some(files) = &self.files else { return Ok(()) };
        let _one_at_a_time = self.running.lock();
        // Before it begins: a job that panics has failed, too.
        let retry_ms = self.env.clock.wall_ms().saturating_add(RETRY_MS);
        self.jobs.lock().not_before_ms.insert(job.kind(), retry_ms);
        let result = match &job {
            Job::Cut { until_ms } => self.cut(files, *until_ms),
            Job::Image => self.write_images(files),
            Job::Retain(expired) => self.retain(files, expired),
            Job::Compact(plan) => self.compact(files, plan),
        };
        let mut state = self.jobs.lock();
        match result {
            Ok(()) => state.not_before_ms.remove(job.kind()),
            Err(_) => {
                let retry_ms = self.env.clock.wall_ms().saturating_add(RETRY_MS);
                state.not_before_ms.insert(job.kind(), retry_ms)
            }
        };
        if let (
            Err(JobError::Block(BlockError::Corrupt { .. } | BlockError::Damaged(_))),
            Job::Compact(plan),
        ) = (&result, &job)
        {
            state.unmergeable.extend(&plan.sources);
        }
        result
    }

    /// Lets a running job end soon, and no other begin: the server is going down.
    pub fn stop_jobs(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Up to where the head is to be cut, if it is time: whole blocks, and nothing that a sample
    /// within the out-of-order window could still fall into.
    fn cut_due(&self, now_ms: i64) -> Option<i64> {
        let (oldest, newest) = self.head.time_range()?;
        let settled = newest.min(now_ms).saturating_sub(self.options.limits.out_of_order_window_ms);
        let until_ms = settled.div_euclid(BLOCK_MS).saturating_mul(BLOCK_MS);
        (oldest < until_ms && self.head.floor() < until_ms).then_some(until_ms)
    }

    fn retain(&self, files: &Files, expired: &[BlockId]) -> Result<(), JobError> {
        self.blocks.replace(expired, []);
        self.counters.blocks_retired.fetch_add(expired.len() as u64, Ordering::Relaxed);
        Ok(compact::remove(&self.env, &files.directory.blocks(), expired)?)
    }

    fn compact(&self, files: &Files, plan: &Plan) -> Result<(), JobError> {
        let dir = files.directory.blocks();
        let list = self.blocks.list();
        let sources: Vec<Arc<Block>> =
            list.iter().filter(|block| plan.sources.contains(&block.meta().id)).cloned().collect();
        if sources.len() != plan.sources.len() {
            // Planned before another job ran.
            return Ok(());
        }
        let id = self.blocks.take_id();
        let mut merge = Merge::start(&self.env, &dir, plan, id, sources)?;
        loop {
            match merge.step(SLICE_SERIES)? {
                (Progress::Done(meta), _) => {
                    let merged = meta.map(|meta| Block::open(&self.env, &block_path(&dir, meta.id)));
                    self.blocks.replace(&plan.sources, merged.transpose()?);
                    self.counters.compactions.fetch_add(1, Ordering::Relaxed);
                    return Ok(compact::remove(&self.env, &dir, &plan.sources)?);
                }
                (_, Some(rest)) => merge = rest,
                (_, None) => unreachable!("a merge that is not done goes on"),
            }
            if self.is_stopping() {
                return Err(JobError::Stopped);
            }
        }
    }
}
