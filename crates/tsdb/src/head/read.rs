//! What a selector takes out of the head: a copy that stays whatever the head does next.
//!
//! Open runs are copied as tokens and clocks as rows, both small and shared by many; sealed runs
//! are shared by reference count. Nothing is decoded before it is asked for.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;
use hashbrown::HashMap;
use roaring::RoaringBitmap;
use tidewatch_model::{Matcher, Sample};
use tidewatch_storage::{SelectError, TimeRange};

use super::cells::{NONE, decode_tokens};
use super::registry::{Registry, SeriesId};
use super::sealed::ChunkBytes;
use super::shard::{Open, Shard};
use super::{Directory, Head};
use crate::index::{Index, postings_for_matchers};
use crate::intervals::Intervals;
use crate::resolve::Resolution;
use crate::select::Debt;

/// What the series of a resolution have in the head.
#[derive(Debug, Default)]
pub(crate) struct HeadSnapshot {
    /// One for each series of the resolution.
    series: Vec<SnapshotSeries>,
    runs: Vec<SnapshotRun>,
    /// Rows of all clocks, one after the other.
    rows: Vec<i64>,
    clocks: Vec<Range<u32>>,
    /// Tokens and columns that could not be shared.
    bytes: Vec<u8>,
    late: Vec<Sample>,
}

#[derive(Debug, Default, Clone)]
struct SnapshotSeries {
    /// Ascending in time.
    runs: Range<u32>,
    late: Range<u32>,
}

#[derive(Debug)]
struct SnapshotRun {
    clock: u32,
    first_row: u8,
    count: u8,
    /// Rows at the start that are not read: blocks have them, or they are deleted.
    skip: u8,
    /// Where the rows end that are read.
    end: u8,
    values: RunSource,
}

#[derive(Debug, Clone)]
enum RunSource {
    /// An open run: tokens, and its newest value at hand.
    Tokens {
        bytes: Range<u32>,
        newest: f64,
    },
    /// A sealed run's column.
    Shared(Bytes),
    Copied(Range<u32>),
}

/// One run of a snapshot, as far as its timestamps go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunView<'a> {
    snapshot: &'a HeadSnapshot,
    run: &'a SnapshotRun,
}

impl Head {
    /// Copies what a selector needs: what its series have in `range`.
    pub(crate) fn snapshot(
        &self,
        resolution: &Resolution,
        range: TimeRange,
        debt: &mut Debt<'_, '_>,
    ) -> Result<HeadSnapshot, SelectError> {
        self.snapshot_of(resolution, range, Shard::late_of, debt)
    }

    /// Copies all that the series of a resolution have in `range`.
    pub(crate) fn whole_snapshot(&self, resolution: &Resolution, range: TimeRange) -> HeadSnapshot {
        let mut room = |_| true;
        let snapshot = self.snapshot_of(resolution, range, Shard::late_of, &mut Debt::new(&mut room));
        snapshot.expect("there is always room")
    }

    /// Copies the part that the cut under way has of some series.
    pub(crate) fn cut_snapshot(&self, resolution: &Resolution, range: TimeRange) -> HeadSnapshot {
        let mut room = |_| true;
        let snapshot = self.snapshot_of(resolution, range, Shard::cutting, &mut Debt::new(&mut room));
        snapshot.expect("there is always room")
    }

    fn snapshot_of(
        &self,
        resolution: &Resolution,
        range: TimeRange,
        late_of: impl for<'a> Fn(&'a Shard, SeriesId) -> &'a [Sample],
        debt: &mut Debt<'_, '_>,
    ) -> Result<HeadSnapshot, SelectError> {
        debt.owe(resolution.series.len() * size_of::<SnapshotSeries>())?;
        let series = vec![SnapshotSeries::default(); resolution.series.len()];
        let mut snapshot = HeadSnapshot { series, ..HeadSnapshot::default() };
        for (shard, of_shard) in self.shards.iter().zip(&resolution.of_shards) {
            if of_shard.is_empty() {
                continue;
            }
            let shard = shard.lock();
            let mut clocks = HashMap::new();
            for at in of_shard {
                let id = resolution.series[*at as usize].head.expect("listed as one of the head");
                let Some(open) = shard.get(id) else { continue };
                let before = snapshot.bytes();
                let runs = snapshot.copy_runs(&shard, id, open, range, &mut clocks);
                let late = if open.has_late { late_of(&shard, id) } else { &[] };
                let late = snapshot.copy_late(late, range);
                snapshot.series[*at as usize] = SnapshotSeries { runs, late };
                debt.owe(snapshot.bytes() - before)?;
            }
        }
        Ok(snapshot)
    }

    /// All series in the order of their labels.
    pub(crate) fn ids_by_labels(&self) -> Vec<SeriesId> {
        let directory = self.directory.read();
        let mut ids: Vec<SeriesId> = directory.registry.ids().collect();
        ids.sort_unstable_by(|a, b| compare(&directory.registry, *a, *b));
        ids
    }

    /// Names of labels on series that satisfy `matchers` and have samples in `range`, sorted.
    pub(crate) fn label_names(&self, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let directory = self.directory.read();
        let living = self.living(&directory, matchers, range);
        let bears = |pairs: &[u32]| pairs.iter().any(|pair| directory.is_borne(*pair, &living));
        let names = directory.postings.names().filter(|(_, pairs)| bears(pairs));
        let mut names: Vec<String> = names.map(|(name, _)| name.to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// Values of `name` on series that satisfy `matchers` and have samples in `range`, sorted.
    pub(crate) fn label_values(&self, name: &str, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
        let directory = self.directory.read();
        let living = self.living(&directory, matchers, range);
        let mut values = Vec::new();
        let visited = directory.index().visit_values(name, "", &mut |value, pair| {
            if directory.is_borne(pair, &living) {
                values.push(value.to_owned());
            }
            true
        });
        visited.expect(IN_MEMORY);
        values.sort_unstable();
        values
    }

    /// The series that satisfy `matchers` and have samples in `range`.
    fn living(&self, directory: &Directory, matchers: &[Matcher], range: TimeRange) -> RoaringBitmap {
        let mut ids = directory.matching(matchers);
        let mut out = RoaringBitmap::new();
        for (at, shard) in self.shards.iter().enumerate() {
            let shard = shard.lock();
            // A shard whose samples all lie within the range needs no look at its series.
            let within = shard.oldest >= range.start && shard.newest <= range.end && shard.deleted.is_empty();
            if !within {
                let of_shard = ids.iter().filter(|id| Shard::of(SeriesId(*id)) == at);
                out.extend(of_shard.filter(|id| !shard.has_samples(SeriesId(*id), range)));
            }
        }
        ids -= out;
        ids
    }
}

const IN_MEMORY: &str = "the head's index is in memory and can not be damaged";

impl Directory {
    pub(crate) fn matching(&self, matchers: &[Matcher]) -> RoaringBitmap {
        postings_for_matchers(&self.index(), matchers).expect(IN_MEMORY)
    }

    /// Whether a pair is on one of `series`.
    fn is_borne(&self, pair: u32, series: &RoaringBitmap) -> bool {
        !self.index().series_of(pair).expect(IN_MEMORY).is_disjoint(series)
    }
}

/// Order of two series' labels: interned pairs that are the same need no look at their texts.
fn compare(registry: &Registry, a: SeriesId, b: SeriesId) -> Ordering {
    let (a, b) = (registry.labels(a), registry.labels(b));
    for (left, right) in a.iter().zip(b) {
        if left != right {
            return registry.pairs.parts(*left).cmp(&registry.pairs.parts(*right));
        }
    }
    a.len().cmp(&b.len())
}

impl Shard {
    /// Samples out of order of a series.
    fn late_of(&self, id: SeriesId) -> &[Sample] {
        self.late.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Whether a series has samples within a range that are not in blocks.
    fn has_samples(&self, id: SeriesId, range: TimeRange) -> bool {
        let Some(open) = self.get(id) else { return false };
        let mut found = false;
        let deleted = self.deleted_of(id);
        self.for_each_run(open, range, |place| {
            let rows = self.clocks.rows(place.clock, place.first_row, place.count);
            found |= deleted.is_none_or(|deleted| {
                deleted.kept(rows).any(|kept| rows[kept].iter().any(|row| contains(range, *row)))
            });
        });
        let late =
            || self.late.get(&id).into_iter().flatten().any(|sample| contains(range, sample.timestamp));
        found || (open.has_late && late())
    }

    /// Visits the runs of a series that overlap a range, newest first.
    pub(super) fn for_each_run(&self, open: &Open, range: TimeRange, mut visit: impl FnMut(RunPlace)) {
        let start = range.start.max(self.floor);
        let mut place =
            RunPlace { clock: open.clock, first_row: open.first_row, count: open.count, chunk: NONE };
        let mut chunk = open.chunk;
        loop {
            if place.clock != NONE {
                let rows = self.clocks.rows(place.clock, place.first_row, place.count);
                let (Some(oldest), Some(newest)) = (rows.first(), rows.last()) else { return };
                if *newest < start {
                    return;
                }
                if *oldest <= range.end {
                    visit(place);
                }
            }
            if chunk == NONE {
                return;
            }
            let at = self.sealed.get(chunk);
            place = RunPlace { clock: at.clock, first_row: at.first_row, count: at.count, chunk };
            chunk = at.older;
        }
    }
}

/// Where a run stands in its shard; `chunk` is [`NONE`] for the open one.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunPlace {
    pub(super) clock: u32,
    pub(super) first_row: u8,
    pub(super) count: u8,
    chunk: u32,
}

fn contains(range: TimeRange, timestamp: i64) -> bool {
    range.start <= timestamp && timestamp <= range.end
}

impl HeadSnapshot {
    /// What the columns hold, the list of series apart.
    fn bytes(&self) -> usize {
        size_of_val(&self.runs[..])
            + size_of_val(&self.rows[..])
            + size_of_val(&self.clocks[..])
            + self.bytes.len()
            + size_of_val(&self.late[..])
    }

    fn copy_runs(
        &mut self,
        shard: &Shard,
        id: SeriesId,
        open: &Open,
        range: TimeRange,
        clocks: &mut HashMap<u32, u32>,
    ) -> Range<u32> {
        let start = self.runs.len();
        shard.for_each_run(open, range, |place| {
            let clock = *clocks.entry(place.clock).or_insert_with(|| self.copy_clock(shard, place.clock));
            let rows = shard.clocks.rows(place.clock, place.first_row, place.count);
            let skip = rows.partition_point(|row| *row < shard.floor);
            let values = if place.chunk == NONE {
                let from = self.bytes.len() as u32;
                shard.cells.copy_tokens(&open.tail, &mut self.bytes);
                RunSource::Tokens { bytes: from..self.bytes.len() as u32, newest: open.newest() }
            } else {
                match shard.sealed.bytes(shard.sealed.get(place.chunk)) {
                    ChunkBytes::Shared(bytes) => RunSource::Shared(bytes),
                    ChunkBytes::Filling(bytes) => {
                        let from = self.bytes.len() as u32;
                        self.bytes.extend_from_slice(bytes);
                        RunSource::Copied(from..self.bytes.len() as u32)
                    }
                }
            };
            let RunPlace { first_row, count, .. } = place;
            let run = SnapshotRun { clock, first_row, count, skip: skip as u8, end: count, values };
            match shard.deleted_of(id) {
                None => self.runs.push(run),
                Some(deleted) => self.push_kept(run, &rows[skip..], deleted),
            }
        });
        self.runs[start..].reverse();
        start as u32..self.runs.len() as u32
    }

    /// Adds what is left of a run, newest first as all runs come.
    fn push_kept(&mut self, run: SnapshotRun, rows: &[i64], deleted: &Intervals) {
        let from = self.runs.len();
        for kept in deleted.kept(rows) {
            let (skip, end) = (run.skip + kept.start as u8, run.skip + kept.end as u8);
            self.runs.push(SnapshotRun { skip, end, values: run.values.clone(), ..run });
        }
        self.runs[from..].reverse();
    }

    fn copy_clock(&mut self, shard: &Shard, clock: u32) -> u32 {
        let start = self.rows.len() as u32;
        self.rows.extend_from_slice(&shard.clocks.get(clock).rows);
        self.clocks.push(start..self.rows.len() as u32);
        self.clocks.len() as u32 - 1
    }

    fn copy_late(&mut self, late: &[Sample], range: TimeRange) -> Range<u32> {
        let start = self.late.len() as u32;
        self.late.extend(late.iter().filter(|sample| contains(range, sample.timestamp)));
        start..self.late.len() as u32
    }

    /// Whether a series has samples.
    pub(crate) fn has(&self, series: usize) -> bool {
        let SnapshotSeries { runs, late } = &self.series[series];
        !runs.is_empty() || !late.is_empty()
    }

    /// The runs of a series, by its number in the resolution.
    pub(crate) fn runs(&self, series: usize) -> impl DoubleEndedIterator<Item = RunView<'_>> {
        let range = &self.series[series].runs;
        self.runs[range.start as usize..range.end as usize].iter().map(|run| RunView { snapshot: self, run })
    }

    /// Samples out of order of a series, ascending; none of their times is among its runs.
    pub(crate) fn late(&self, series: usize) -> &[Sample] {
        let range = &self.series[series].late;
        &self.late[range.start as usize..range.end as usize]
    }
}

impl<'a> RunView<'a> {
    /// The run's timestamps, without those that blocks have.
    pub(crate) fn timestamps(&self) -> &'a [i64] {
        let run = self.run;
        let clock = &self.snapshot.clocks[run.clock as usize];
        let first = clock.start as usize + usize::from(run.first_row);
        &self.snapshot.rows[first + usize::from(run.skip)..first + usize::from(run.end)]
    }

    /// A number that is equal for equal rows of one clock.
    pub(crate) fn clock(&self, rows: &Range<usize>) -> u64 {
        let first = u64::from(self.run.first_row) + u64::from(self.run.skip);
        u64::from(self.run.clock) << 16 | (first + rows.start as u64) << 8 | (first + rows.end as u64 - 1)
    }

    /// Appends the values that belong to [`RunView::timestamps`] to `out`.
    pub(crate) fn decode(&self, out: &mut Vec<f64>) -> Result<(), String> {
        let count = usize::from(self.run.count);
        let column = |bytes: &[u8], out: &mut Vec<f64>| {
            tidewatch_chunk::decode_values(bytes, count, out)
                .map_err(|error| format!("a run of the head: {error}"))
        };
        let from = out.len();
        match &self.run.values {
            RunSource::Tokens { bytes, .. } => {
                let bytes = &self.snapshot.bytes[bytes.start as usize..bytes.end as usize];
                if !decode_tokens(bytes, count, out) {
                    return Err("an open run of the head is malformed".to_owned());
                }
            }
            RunSource::Shared(bytes) => column(bytes, out)?,
            RunSource::Copied(bytes) => {
                column(&self.snapshot.bytes[bytes.start as usize..bytes.end as usize], out)?;
            }
        }
        out.truncate(from + usize::from(self.run.end));
        out.drain(from..from + usize::from(self.run.skip));
        Ok(())
    }

    /// The last value, where it is at hand without decoding.
    pub(crate) fn newest(&self) -> Option<f64> {
        match self.run.values {
            RunSource::Tokens { newest, .. } if self.run.end == self.run.count => Some(newest),
            _ => None,
        }
    }

    /// Bytes that [`RunView::decode`] reads.
    pub(crate) fn encoded_bytes(&self) -> usize {
        match &self.run.values {
            RunSource::Tokens { bytes, .. } | RunSource::Copied(bytes) => bytes.len(),
            RunSource::Shared(bytes) => bytes.len(),
        }
    }
}

impl Open {
    fn newest(&self) -> f64 {
        f64::from_bits(self.tail.value)
    }
}
