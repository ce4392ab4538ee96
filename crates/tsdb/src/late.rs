//! Late samples whose times blocks may have.
//!
//! ```text
//!  batch ─► head ─┬─► taken, repeats, refused
//!                 └─► unsure: late, and not newer than all blocks ─► Looked ─┬─► repeats, conflicts of blocks
//!                        ▲                                                   │
//!                        └─ other blocks have come meanwhile ─── head ◄──────┘ what no block has
//! ```
//!
//! Of two samples at one time that of the block stays, so another one must not be acknowledged. The head has
//! forgotten what it has cut and never saw what was imported. Ordinary cuts stay behind the out-of-order window, so
//! hardly any late sample is as old as a block.
//!
//! Invariants: no block is read while a shard or the directory is locked; what a look has shown holds while the list
//! of blocks is the same, and a shard forgets nothing before the list has the block of it, so the head asks again
//! rather than miss one. What is left out is not logged: a start replays what was taken.
//!
//! Not here: which samples are late (`head::shard`).

use std::ops::ControlFlow;
use std::sync::Arc;

use tidewatch_model::{Batch, BatchSeries, Labels, is_stale};
use tidewatch_storage::{AppendOutcome, Refusal, TimeRange};

use crate::block::{Block, CHUNK_SPAN_MS, Cursor, StoredRun, StoredValues};
use crate::blocks::BlockList;
use crate::gather::{Gather, StoredValue};
use crate::head::append::{Terms, refuse_histogram, refuse_sample};
use crate::head::registry::check_labels;
use crate::select::overlaps;

/// A sample of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick {
    /// The place of its series.
    pub(crate) series: u32,
    pub(crate) kind: Kind,
    /// Its own place among those of its kind.
    pub(crate) at: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Float,
    Histogram,
}

/// The batch of some samples of another: series in its order, and samples of one in that of the picks.
pub(crate) fn picked<'a>(batch: &Batch<'a>, picks: &[Pick]) -> Batch<'a> {
    let mut part = Batch::new();
    for picks in picks.chunk_by(|a, b| a.series == b.series) {
        let (floats, histograms) = (part.samples.len() as u32, part.histograms.len() as u32);
        for Pick { kind, at, .. } in picks {
            match kind {
                Kind::Histogram => part.histograms.push(batch.histograms[*at as usize].clone()),
                Kind::Float => {
                    part.samples.push(batch.samples[*at as usize]);
                    part.starts.push(batch.start_of(*at as usize));
                }
            }
        }
        part.series.push(BatchSeries {
            labels: batch.series[picks[0].series as usize].labels,
            samples: floats..part.samples.len() as u32,
            histograms: histograms..part.histograms.len() as u32,
        });
    }
    if batch.starts.is_empty() {
        part.starts.clear();
    }
    part
}

/// What a look into blocks has shown of the series of a batch.
#[derive(Debug)]
pub(crate) struct Looked {
    blocks: BlockList,
    /// Of each series the time of the newest sample in the blocks that are not older than its samples.
    newest_ms: Vec<Option<i64>>,
}

impl Looked {
    /// Looks what blocks have at the times of a batch. Says what became of the samples that are there, and gives
    /// the rest. Blocks of a clock that was ahead have samples behind `until_ms`: these are nothing to be late to.
    pub(crate) fn at<'a>(
        blocks: BlockList,
        until_ms: i64,
        batch: &Batch<'a>,
        terms: &Terms<'_>,
        outcome: &mut AppendOutcome,
    ) -> (Looked, Batch<'a>) {
        let cursors = blocks.iter().map(|_| Cursor::default()).collect();
        let mut look = Look { blocks: &blocks, cursors, until_ms };
        let (mut rest, mut newest_ms, mut gather) = (Vec::new(), Vec::new(), Gather::default());
        for (number, series) in (0..).zip(&batch.series) {
            let samples = samples_of(batch, number);
            gather.clear();
            // The head knows them all.
            let labels = check_labels(&series.labels, terms.limits).ok();
            let labels = labels.map(|pairs| Labels::from_sorted(pairs.into_iter()));
            let newest = labels.and_then(|labels| look.gather(&labels, &samples, &mut gather));
            let before = rest.len();
            settle(batch, &samples, &mut gather, terms, outcome, &mut rest);
            newest_ms.extend((rest.len() > before).then_some(newest));
        }
        let rest = picked(batch, &rest);
        (Looked { blocks, newest_ms }, rest)
    }

    /// Whether these are the blocks that were looked into.
    pub(crate) fn is_of(&self, blocks: &BlockList) -> bool {
        Arc::ptr_eq(&self.blocks, blocks)
    }

    /// Up to when blocks have samples of a series of the rest.
    pub(crate) fn newest_ms(&self, series: u32) -> Option<i64> {
        self.newest_ms[series as usize]
    }
}

struct Look<'a> {
    blocks: &'a [Arc<Block>],
    /// One for each block.
    cursors: Vec<Cursor>,
    until_ms: i64,
}

impl Look<'_> {
    /// Collects what blocks have at the times of samples of a series, which ascend. Gives the newest time that they
    /// have of it. What can not be read is not there: who queries it is told.
    fn gather(&mut self, labels: &Labels, samples: &[(Pick, i64)], gather: &mut Gather) -> Option<i64> {
        let times: Vec<i64> = samples.iter().map(|(_, time)| *time).collect();
        let mut newest = None;
        for (rank, (block, cursor)) in (0..).zip(self.blocks.iter().zip(&mut self.cursors)) {
            if block.meta().max_ms < times[0] {
                continue;
            }
            let Ok(Some(series)) = block.find(cursor, labels) else { continue };
            newest = newest.max(block.newest_ms(cursor, series, self.until_ms).unwrap_or(None));
            gather_of(block, cursor, series, &times, rank, gather);
        }
        newest
    }
}

/// Collects what a block has of a series at some times, which ascend.
fn gather_of(block: &Block, cursor: &mut Cursor, series: u32, times: &[i64], rank: u32, gather: &mut Gather) {
    // Times far apart must not cost what lies between them.
    for near in times.chunk_by(|a, b| b.saturating_sub(*a) < CHUNK_SPAN_MS) {
        let range = TimeRange { start: near[0], end: near[near.len() - 1] };
        let mut collect = |run: StoredRun<'_>| {
            let (first, last) = (run.timestamps[0], run.timestamps[run.timestamps.len() - 1]);
            let near = &near[near.partition_point(|time| *time < first)..];
            let rows = near.iter().take_while(|time| **time <= last);
            for row in rows.filter_map(|time| run.timestamps.binary_search(time).ok()) {
                gather.push(rank, &run.row(row));
            }
            ControlFlow::Continue(())
        };
        if overlaps(block, range) {
            let _ = block.scan_stored(cursor, series, range, &mut collect);
        }
    }
}

/// The samples of a series of a batch, with their times, which ascend.
fn samples_of(batch: &Batch<'_>, series: u32) -> Vec<(Pick, i64)> {
    let BatchSeries { samples, histograms, .. } = &batch.series[series as usize];
    let float = |at| (Pick { series, kind: Kind::Float, at }, batch.samples[at as usize].timestamp);
    let histogram =
        |at| (Pick { series, kind: Kind::Histogram, at }, batch.histograms[at as usize].timestamp);
    let mut samples: Vec<_> = samples.clone().map(float).chain(histograms.clone().map(histogram)).collect();
    samples.sort_by_key(|(_, time)| *time);
    samples
}

/// Says what became of the samples of a series whose times blocks have; adds the others to `rest`.
fn settle(
    batch: &Batch<'_>,
    samples: &[(Pick, i64)],
    stored: &mut Gather,
    terms: &Terms<'_>,
    outcome: &mut AppendOutcome,
    rest: &mut Vec<Pick>,
) {
    let mut repeats = vec![None; samples.len()];
    let compared = stored.for_each(|run| {
        let last = run.timestamps[run.timestamps.len() - 1];
        let from = samples.partition_point(|(_, time)| *time < run.timestamps[0]);
        let within = samples[from..].iter().zip(&mut repeats[from..]);
        for ((pick, time), repeats) in within.take_while(|((_, time), _)| *time <= last) {
            if let Ok(row) = run.timestamps.binary_search(time) {
                *repeats = Some(is_repeat(batch, pick, run.values, row));
            }
        }
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(()) = compared;
    for ((pick, time), repeats) in samples.iter().zip(repeats) {
        let labels = &batch.series[pick.series as usize].labels;
        match (repeats, pick.kind) {
            (None, _) => rest.push(*pick),
            (Some(true), kind) => {
                outcome.duplicates += 1;
                match kind {
                    Kind::Float => outcome.accepted += 1,
                    Kind::Histogram => outcome.accepted_histograms += 1,
                }
            }
            (Some(false), Kind::Float) => {
                refuse_sample(outcome, labels, batch.samples[pick.at as usize], Refusal::Conflict, terms);
            }
            (Some(false), Kind::Histogram) => {
                let cause = terms.cause(*time, Refusal::Conflict);
                refuse_histogram(outcome, labels, *time, (Refusal::Conflict, cause));
            }
        }
    }
}

/// Whether a sample is what is stored at its time, markers of staleness of either kind.
fn is_repeat(batch: &Batch<'_>, pick: &Pick, stored: StoredValues<'_>, row: usize) -> bool {
    let sample = match pick.kind {
        Kind::Float => StoredValue::Float(batch.samples[pick.at as usize].value),
        Kind::Histogram => StoredValue::Histogram(&batch.histograms[pick.at as usize].value),
    };
    let stored = match stored {
        StoredValues::Floats(values) => StoredValue::Float(values[row]),
        StoredValues::Histograms(histograms) => StoredValue::Histogram(&histograms[row]),
    };
    let ends = |value| match value {
        StoredValue::Float(value) => is_stale(value),
        StoredValue::Histogram(histogram) => histogram.is_stale(),
    };
    sample.is_same(stored) || ends(sample) && ends(stored)
}

#[cfg(test)]
mod tests {
    use tidewatch_env::{Clock, Env};
    use tidewatch_model::{Limits, RawLabels, Sample};
    use tidewatch_storage::Append;

    use super::*;
    use crate::db::NoLog;
    use crate::{Db, DbOptions};

    /// Another request has the time first, and a cut takes its sample to a block, between the look and the head.
    #[test]
    fn the_head_asks_again_where_blocks_have_come_since_the_look() {
        const MINUTE: i64 = 60_000;
        let simulation = Env::simulated(1);
        let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
        db.recover().expect("recovers");
        let now = simulation.clock.wall_ms();
        let labels = Labels::from_pairs([("__name__", "x")]);
        let of = |minutes: i64, value| {
            let mut batch = Batch::new();
            let sample = Sample { timestamp: now + minutes * MINUTE, value };
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[sample]);
            batch
        };
        let put = |minutes, value| db.append(&of(minutes, value)).expect("takes writes");
        [-50, -10, 0].into_iter().for_each(|minutes| drop(put(minutes, 1.0)));
        db.compact_whole().expect("a good disk");

        let limits = Limits::default();
        let terms = Terms {
            now_ms: now,
            from_ms: i64::MIN,
            until_ms: i64::MAX,
            retention_ms: None,
            limits: &limits,
            series_max: 10,
            blocks: &db.blocks,
            looked: None,
        };
        let mut outcome = AppendOutcome::default();
        let mut append = |batch: &Batch<'_>, looked: Option<&Looked>| {
            let unsure = db.head.append(batch, &Terms { looked, ..terms }, &NoLog, &mut outcome);
            (unsure.expect("no log").samples, std::mem::take(&mut outcome))
        };
        let late = of(-20, 7.0);
        assert_eq!(append(&late, None), (late.samples.clone(), AppendOutcome::default()));
        let mut settled = AppendOutcome::default();
        let (looked, rest) = Looked::at(db.blocks.list(), i64::MAX, &late, &terms, &mut settled);
        assert_eq!((rest.samples.clone(), settled), (late.samples.clone(), AppendOutcome::default()));

        put(-20, 8.0);
        simulation.clock.advance_ms(10 * MINUTE as u64);
        put(10, 1.0);
        db.compact_whole().expect("a good disk");
        assert_eq!(append(&rest, Some(&looked)), (late.samples.clone(), AppendOutcome::default()));
        assert_eq!(put(-20, 7.0).refused, [(Refusal::Conflict, 1)]);
        assert_eq!(put(-20, 8.0).duplicates, 1);
        // What is newer than all blocks needs no look.
        assert_eq!(append(&of(9, 1.0), None).0, []);
    }
}
