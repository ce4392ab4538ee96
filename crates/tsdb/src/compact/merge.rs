//! Merging blocks: series by series in label order, in slices that the caller decides.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use tidewatch_env::Env;
use tidewatch_model::Labels;
use tidewatch_storage::TimeRange;

use super::Plan;
use crate::block::{Block, BlockError, BlockId, BlockMeta, Cursor, Writer, WriterOptions};
use crate::gather::{Gather, Repeat, StoredRun, StoredValue};

/// A merge that is under way. Dropping it ends it without a trace but a file that nobody reads.
pub struct Merge {
    /// In the order of their ids: of two values at one time the one that was stored first stays.
    sources: Vec<Source>,
    /// Whether two sources have samples in the same stretch of time.
    overlap: bool,
    writer: Writer,
    /// Samples of one series, where sources overlap.
    samples: Gather,
}

struct Source {
    block: Arc<Block>,
    cursor: Cursor,
    next: u32,
    /// Those of series `next`; `None` after the last.
    labels: Option<Labels>,
}

/// A sample that a merge leaves out, as a block that was written before has one at its time.
pub(crate) struct LeftOut<'a> {
    pub(crate) labels: &'a Labels,
    pub(crate) time: i64,
    /// The one that stays, and the block that it is from.
    pub(crate) kept: (BlockId, StoredValue<'a>),
    pub(crate) left: (BlockId, StoredValue<'a>),
}

/// How far a merge has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do; the share of the input that is done, in thousandths.
    More(u32),
    /// The block is durable under its name. `None` where the sources had no sample.
    Done(Option<BlockMeta>),
}

impl Source {
    fn load(&mut self) -> Result<(), BlockError> {
        self.labels = match self.next < self.block.series_count() {
            true => Some(self.block.labels(&mut self.cursor, self.next)?),
            false => None,
        };
        Ok(())
    }
}

impl Merge {
    /// Prepares to merge `blocks`, those that the plan names, into block `id` of `dir`.
    pub fn start(
        env: &Env,
        dir: &Path,
        plan: &Plan,
        id: BlockId,
        mut blocks: Vec<Arc<Block>>,
    ) -> Result<Merge, BlockError> {
        blocks.sort_unstable_by_key(|block| block.meta().id);
        assert!(
            blocks.iter().map(|block| block.meta().id).eq(plan.sources.iter().copied()),
            "the plan's blocks"
        );
        let mut spans: Vec<_> =
            blocks.iter().map(|block| (block.meta().min_ms, block.meta().max_ms)).collect();
        spans.sort_unstable();
        let overlap = spans.windows(2).any(|pair| pair[1].0 <= pair[0].1);
        if !overlap {
            blocks.sort_unstable_by_key(|block| block.meta().min_ms);
        }
        let options = WriterOptions {
            id,
            start_ms: plan.start_ms,
            end_ms: plan.end_ms,
            level: plan.level,
            // What was dense does not grow again.
            dense: plan.dense || blocks.iter().any(|block| block.is_dense()),
            parents: plan.sources.clone(),
        };
        let start = |block| Source { block, cursor: Cursor::default(), next: 0, labels: None };
        let mut merge = Merge {
            sources: blocks.into_iter().map(start).collect(),
            overlap,
            writer: Writer::create(env, dir, options)?,
            samples: Gather::default(),
        };
        merge.sources.iter_mut().try_for_each(Source::load)?;
        Ok(merge)
    }

    /// Merges up to `series` more series; after the last it completes the block.
    pub fn step(self, series: usize) -> Result<(Progress, Option<Merge>), BlockError> {
        self.step_telling(series, &mut |_| {})
    }

    /// The same, and tells of each sample that is left out.
    pub(crate) fn step_telling(
        mut self,
        series: usize,
        tell: &mut dyn FnMut(LeftOut<'_>),
    ) -> Result<(Progress, Option<Merge>), BlockError> {
        for _ in 0..series {
            let Some(labels) = self.sources.iter().filter_map(|source| source.labels.as_ref()).min().cloned()
            else {
                return Ok((Progress::Done(self.writer.finish()?), None));
            };
            self.merge_series(&labels, tell)?;
        }
        let (done, all) = self.sources.iter().fold((0, 0), |(done, all), source| {
            (done + u64::from(source.next), all + u64::from(source.block.series_count()))
        });
        Ok((Progress::More((done * 1000 / all.max(1)) as u32), Some(self)))
    }

    fn merge_series(&mut self, labels: &Labels, tell: &mut dyn FnMut(LeftOut<'_>)) -> Result<(), BlockError> {
        self.writer.series(labels)?;
        self.samples.clear();
        for (rank, source) in self.sources.iter_mut().enumerate() {
            if source.labels.as_ref() != Some(labels) {
                continue;
            }
            let (writer, samples, overlap) = (&mut self.writer, &mut self.samples, self.overlap);
            let mut written = Ok(());
            let mut visit = |run: StoredRun<'_>| {
                if overlap {
                    samples.push(rank as u32, &run);
                } else {
                    written = writer.run(&run);
                }
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let all = TimeRange { start: i64::MIN, end: i64::MAX };
            let _ = source.block.scan_stored(&mut source.cursor, source.next, all, &mut visit)?;
            written?;
            source.next += 1;
            source.load()?;
        }
        // The first source's value at each time.
        let Merge { sources, writer, samples, .. } = self;
        let block = |rank: u32| sources[rank as usize].block.meta().id;
        let mut tell = |repeat: Repeat<'_>| {
            let Repeat { time, kept, left } = repeat;
            tell(LeftOut { labels, time, kept: (block(kept.0), kept.1), left: (block(left.0), left.1) });
        };
        samples.for_each_telling(&mut tell, |run| writer.run(&run))
    }
}
