//! One shard of the head: the samples of the series whose pages fall to it.
//!
//! ```text
//!  sample ─► take ─┬─ next in order ─► clock row + token in a cell   (open run)
//!                  │        clock full, or run of many cells:
//!                  │        open run ─► strong codec                 (sealed run)
//!                  └─ older ─► there already? ─► duplicate, conflict
//!                                   └─ no ─► late samples, apart and sorted
//! ```
//!
//! Invariants: the open run of a series is not empty once the series has a sample in order, so
//! its newest time is a row of its clock; runs of a series ascend; a late sample's time is not
//! among the series' runs. What lies below the floor is in blocks, and not read here, except
//! for late samples, which are removed the moment a block has them.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use tidewatch_chunk::{Encoder, HistogramEncoder};
use tidewatch_model::{NativeHistogram, Sample, is_stale};
use tidewatch_storage::{Refusal, TimeRange};

use super::cells::{Cells, NONE, RunState, Tail, decode_tokens};
use super::clock::Clocks;
use super::deleted::Deleted;
use super::histograms::HistogramSeries;
use super::registry::SeriesId;
use super::sealed::{ChunkBytes, NewChunk, Sealed, check_readable};
use super::starts::{Starts, Step};
use super::{PAGE_SERIES, SHARDS};
use crate::log::FrameError;

/// The open run of a series and the way to its older runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Open {
    pub(crate) tail: Tail,
    pub(crate) clock: u32,
    /// Newest sealed chunk.
    pub(crate) chunk: u32,
    pub(crate) first_row: u8,
    pub(crate) count: u8,
    /// Whether the shard holds late samples of this series.
    pub(crate) has_late: bool,
    /// Whether it holds native histograms of this series.
    pub(crate) has_histograms: bool,
}

const NO_RUN: Open = Open {
    tail: Tail::EMPTY,
    clock: NONE,
    chunk: NONE,
    first_row: 0,
    count: 0,
    has_late: false,
    has_histograms: false,
};

impl Open {
    fn holds_something(&self) -> bool {
        self.clock != NONE || self.has_late || self.has_histograms
    }
}

/// Columns below this many bytes, of constants above all, are no shorter with fewer rows.
const SHORTENED_LEN: u16 = 16;

// 856,000 of them: each word here is 7 MB there.
const _: () = assert!(size_of::<Open>() == 40);

/// How an image has the values of an open run.
pub(crate) enum OpenValues<'a> {
    /// As the cells have them, with the state of the last token.
    Tokens {
        tokens: &'a [u8],
        repeating: bool,
        exponent: u8,
    },
    Column(&'a [u8]),
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Taken,
    Duplicate,
    Refused(Refusal),
}

#[derive(Debug)]
pub(crate) struct Shard {
    pages: Vec<Option<OpenPage>>,
    pub(crate) cells: Cells,
    pub(crate) clocks: Clocks,
    pub(crate) sealed: Sealed,
    pub(crate) late: HashMap<SeriesId, Vec<Sample>>,
    /// What of the runs is deleted, see `deleted`.
    pub(super) deleted: Deleted,
    /// Native histograms: of the series whose records say so.
    pub(crate) histograms: HashMap<SeriesId, HistogramSeries>,
    /// When counters started, of series whose senders say so.
    pub(crate) starts: HashMap<SeriesId, Starts>,
    /// Samples of runs before this time are in blocks.
    pub(crate) floor: i64,
    /// Samples before this time are taken as late ones: a cut has the others, or will.
    bar: i64,
    /// Late samples that are part of the cut under way.
    cutting: HashMap<SeriesId, Vec<Sample>>,
    /// Times of late histograms that are.
    pub(super) cutting_histograms: HashMap<SeriesId, Vec<i64>>,
    /// Times of the samples taken since the shard began; `i64::MAX` and `MIN` before the first.
    pub(crate) oldest: i64,
    pub(crate) newest: i64,
    pub(crate) samples: u64,
    /// Samples that were taken out of order since the start.
    pub(crate) taken_late: u64,
    encoder: Encoder,
    pub(super) histogram_encoder: HistogramEncoder,
    values: Vec<f64>,
    tokens: Vec<u8>,
}

type OpenPage = Box<[Open; PAGE_SERIES as usize]>;

/// Page and slot of a series within its shard.
#[inline]
fn place(id: SeriesId) -> (usize, usize) {
    ((id.0 / PAGE_SERIES) as usize / SHARDS, (id.0 % PAGE_SERIES) as usize)
}

#[inline]
fn open_of(pages: &mut Vec<Option<OpenPage>>, id: SeriesId) -> &mut Open {
    let (page, slot) = place(id);
    if pages.len() <= page {
        pages.resize_with(page + 1, || None);
    }
    &mut pages[page].get_or_insert_with(|| Box::new([NO_RUN; PAGE_SERIES as usize]))[slot]
}

impl Default for Shard {
    fn default() -> Self {
        Shard {
            pages: Vec::new(),
            cells: Cells::default(),
            clocks: Clocks::default(),
            sealed: Sealed::default(),
            late: HashMap::new(),
            deleted: Deleted::new(),
            histograms: HashMap::new(),
            starts: HashMap::new(),
            floor: i64::MIN,
            bar: i64::MIN,
            cutting: HashMap::new(),
            cutting_histograms: HashMap::new(),
            oldest: i64::MAX,
            newest: i64::MIN,
            samples: 0,
            taken_late: 0,
            encoder: Encoder::new(),
            histogram_encoder: HistogramEncoder::new(),
            values: Vec::new(),
            tokens: Vec::new(),
        }
    }
}

impl Shard {
    /// The shard that holds a series, by pages of ids in turn: series that arrived together
    /// stay together, so that one request locks few shards and shares few clocks.
    #[inline]
    pub(crate) fn of(id: SeriesId) -> usize {
        (id.0 / PAGE_SERIES) as usize % SHARDS
    }

    #[inline]
    pub(crate) fn get(&self, id: SeriesId) -> Option<&Open> {
        let (page, slot) = place(id);
        self.pages.get(page)?.as_ref().map(|page| &page[slot])
    }

    #[inline]
    pub(crate) fn open_mut(&mut self, id: SeriesId) -> &mut Open {
        open_of(&mut self.pages, id)
    }

    /// Takes a sample, or says why not. `window_ms`: how far behind its series it may be.
    #[inline]
    pub(crate) fn take(&mut self, id: SeriesId, sample: Sample, window_ms: i64) -> Verdict {
        let open = open_of(&mut self.pages, id);
        if open.clock == NONE
            || open.has_histograms
            || sample.timestamp < self.bar
            || open.tail.is_long()
            || !self.clocks.take(open.clock, open.first_row, open.count, sample.timestamp)
        {
            return self.take_apart(id, sample, window_ms);
        }
        self.clocks.remember(open.clock);
        self.cells.push(&mut open.tail, sample.value);
        open.count += 1;
        self.count(sample.timestamp);
        Verdict::Taken
    }

    #[inline]
    pub(super) fn count(&mut self, timestamp: i64) {
        self.samples += 1;
        self.newest = self.newest.max(timestamp);
        self.oldest = self.oldest.min(timestamp);
    }

    /// Everything but the next sample of a running clock. Not inlined: sealing wants pages of
    /// stack, which [`Shard::take`] would have to touch for each sample.
    #[inline(never)]
    fn take_apart(&mut self, id: SeriesId, sample: Sample, window_ms: i64) -> Verdict {
        let mut open = *self.open_mut(id);
        if open.has_histograms && is_stale(sample.value) && self.ends_in_histogram(id, &open) {
            // Who ends a series need not know of which kind it is.
            return self.take_histogram(id, sample.timestamp, &NativeHistogram::stale(), window_ms);
        }
        if open.has_histograms
            && let Err(refusal) = self.may_take_float(id, sample.timestamp, window_ms)
        {
            // What was taken once is a repeat, however old.
            let same = |value: f64| value.to_bits() == sample.value.to_bits();
            let is_repeat = match refusal {
                Refusal::TooOld => self.value_at(id, &open, sample.timestamp).is_some_and(same),
                _ => is_stale(sample.value) && self.is_stale_at(id, sample.timestamp),
            };
            return if is_repeat { Verdict::Duplicate } else { Verdict::Refused(refusal) };
        }
        let newest = self.newest_of(&open);
        if sample.timestamp < self.bar || newest.is_some_and(|newest| sample.timestamp <= newest) {
            return self.take_late(id, sample, window_ms);
        }
        if open.clock == NONE {
            self.start_run(id, sample);
        } else if self.clocks.is_full(open.clock, open.first_row, open.count) {
            self.seal(id);
            self.start_run(id, sample);
        } else if open.tail.is_long() {
            self.seal(id);
            self.continue_clock(id, sample);
        } else {
            if !self.clocks.take(open.clock, open.first_row, open.count, sample.timestamp) {
                open.clock = self.clocks.fork(open.clock, open.first_row, open.count, sample.timestamp);
                open.first_row = 0;
            }
            self.clocks.remember(open.clock);
            open.count += 1;
            self.cells.push(&mut open.tail, sample.value);
            *self.open_mut(id) = open;
        }
        self.count(sample.timestamp);
        Verdict::Taken
    }

    /// Starts a run after one that was sealed before its clock was full: in the same clock, unless
    /// the series has left it.
    fn continue_clock(&mut self, id: SeriesId, sample: Sample) {
        let (open, sealed) = {
            let open = *self.open_mut(id);
            (open, *self.sealed.get(open.chunk))
        };
        match self.clocks.go_on(open.clock, sealed.first_row, sealed.count, sample.timestamp) {
            Some(row) => self.start_run_at(id, sample, open.clock, row),
            None => self.start_run(id, sample),
        }
    }

    fn start_run(&mut self, id: SeriesId, sample: Sample) {
        let former = self.open_mut(id).clock;
        let (clock, first_row) = self.clocks.start(former, sample.timestamp);
        self.start_run_at(id, sample, clock, first_row);
    }

    fn start_run_at(&mut self, id: SeriesId, sample: Sample, clock: u32, first_row: u8) {
        let mut open = *self.open_mut(id);
        (open.clock, open.first_row) = (clock, first_row);
        self.clocks.remember(open.clock);
        open.tail = Tail::EMPTY;
        self.cells.push(&mut open.tail, sample.value);
        open.count = 1;
        *self.open_mut(id) = open;
    }

    /// Seals the open run. Its clock stays named, as the one that the next run follows.
    fn seal(&mut self, id: SeriesId) {
        let mut open = *self.open_mut(id);
        self.values.clear();
        self.decode_open(&open);
        let Shard { encoder, values, sealed, .. } = self;
        open.chunk = sealed.add(open.clock, open.first_row, open.count, open.chunk, |out| {
            encoder.encode(values, out);
        });
        self.cells.release(&mut open.tail);
        open.count = 0;
        *self.open_mut(id) = open;
    }

    /// Appends the open run's values to `self.values`.
    fn decode_open(&mut self, open: &Open) {
        self.tokens.clear();
        self.cells.copy_tokens(&open.tail, &mut self.tokens);
        let whole = decode_tokens(&self.tokens, usize::from(open.count), &mut self.values);
        assert!(whole, "an open run holds the tokens of its samples");
    }

    /// Time of the newest sample that came in order.
    pub(crate) fn newest_of(&self, open: &Open) -> Option<i64> {
        if open.clock == NONE {
            return None;
        }
        self.clocks.rows(open.clock, open.first_row, open.count).last().copied()
    }

    fn take_late(&mut self, id: SeriesId, sample: Sample, window_ms: i64) -> Verdict {
        let open = *self.open_mut(id);
        if let Some(value) = self.value_at(id, &open, sample.timestamp) {
            let same = value.to_bits() == sample.value.to_bits();
            return if same { Verdict::Duplicate } else { Verdict::Refused(Refusal::Conflict) };
        }
        let newest = self.newest_of(&open);
        if newest.is_some_and(|newest| sample.timestamp < newest.saturating_sub(window_ms)) {
            return Verdict::Refused(Refusal::TooOld);
        }
        let late = self.late.entry(id).or_default();
        let at = late.partition_point(|have| have.timestamp < sample.timestamp);
        late.insert(at, sample);
        self.taken_late += 1;
        self.open_mut(id).has_late = true;
        self.count(sample.timestamp);
        Verdict::Taken
    }

    /// The value that a series has at a time, as far as the head knows.
    pub(super) fn value_at(&mut self, id: SeriesId, open: &Open, timestamp: i64) -> Option<f64> {
        if open.has_late
            && let Some(late) = self.late.get(&id)
            && let Ok(at) = late.binary_search_by_key(&timestamp, |sample| sample.timestamp)
        {
            return Some(late[at].value);
        }
        if open.clock == NONE || self.is_deleted(id, timestamp) {
            return None;
        }
        let rows = self.clocks.rows(open.clock, open.first_row, open.count);
        if rows.last() == Some(&timestamp) {
            // The usual repeat: a request that was sent again.
            return Some(f64::from_bits(open.tail.value));
        }
        if rows[0] <= timestamp {
            let at = rows.binary_search(&timestamp).ok()?;
            self.values.clear();
            self.decode_open(open);
            return Some(self.values[at]);
        }
        self.sealed_value_at(open.chunk, timestamp)
    }

    fn sealed_value_at(&mut self, mut chunk: u32, timestamp: i64) -> Option<f64> {
        while chunk != NONE {
            let at = *self.sealed.get(chunk);
            let rows = self.clocks.rows(at.clock, at.first_row, at.count);
            if rows[0] <= timestamp {
                let row = rows.binary_search(&timestamp).ok()?;
                self.values.clear();
                let count = usize::from(at.count);
                let result = match self.sealed.bytes(&at) {
                    ChunkBytes::Shared(bytes) => {
                        let decoded = tidewatch_chunk::decode_values(&bytes, count, &mut self.values);
                        check_readable(&bytes).ok()?;
                        decoded
                    }
                    ChunkBytes::Filling(bytes) => {
                        tidewatch_chunk::decode_values(bytes, count, &mut self.values)
                    }
                };
                result.ok()?;
                return Some(self.values[row]);
            }
            chunk = at.older;
        }
        None
    }

    /// A cut begins: what lies before `bar` now is its part, and does not change any more.
    pub(crate) fn begin_cut(&mut self, bar: i64) {
        self.bar = self.bar.max(bar);
        self.cutting.clear();
        for (id, late) in &self.late {
            let part: Vec<Sample> = late.iter().copied().filter(|sample| sample.timestamp < bar).collect();
            if !part.is_empty() {
                self.cutting.insert(*id, part);
            }
        }
        self.cutting_histograms.clear();
        for (id, series) in &self.histograms {
            let part: Vec<i64> =
                series.late.iter().map(|(time, _)| *time).filter(|time| *time < bar).collect();
            if !part.is_empty() {
                self.cutting_histograms.insert(*id, part);
            }
        }
    }

    /// A cut has ended: blocks have what was its part, and it is not read here any more.
    /// [`Shard::truncate`] gives its memory back.
    pub(crate) fn end_cut(&mut self, floor: i64) {
        self.floor = self.floor.max(floor);
        self.bar = self.bar.max(floor);
        for (id, part) in std::mem::take(&mut self.cutting) {
            self.drop_late(id, &part);
        }
        for (id, part) in std::mem::take(&mut self.cutting_histograms) {
            let Some(series) = self.histograms.get_mut(&id) else { continue };
            self.samples -= series.remove_late(|time| part.binary_search(&time).is_ok());
        }
    }

    /// Late samples of a series that are part of the cut under way.
    pub(crate) fn cutting(&self, id: SeriesId) -> &[Sample] {
        self.cutting.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Gives the numbers of the stretches of `length_ms` before `until` in which there are samples.
    pub(crate) fn windows_before(
        &self,
        until: i64,
        length_ms: i64,
        ids: impl Iterator<Item = SeriesId>,
        windows: &mut BTreeSet<i64>,
    ) {
        let range = TimeRange { start: i64::MIN, end: until - 1 };
        let window = |timestamp: i64| timestamp.div_euclid(length_ms);
        for id in ids {
            let Some(open) = self.get(id) else { continue };
            self.for_each_run(open, range, |place| {
                let rows = self.clocks.rows(place.clock, place.first_row, place.count);
                let rows =
                    &rows[rows.partition_point(|t| *t < self.floor)..rows.partition_point(|t| *t < until)];
                if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
                    windows.insert(window(*first));
                    if window(*first) != window(*last) {
                        windows.extend(rows.iter().map(|t| window(*t)));
                    }
                }
            });
        }
        windows.extend(self.cutting.values().flatten().map(|sample| window(sample.timestamp)));
        for series in self.histograms.values() {
            series.for_each_time(|time| {
                if self.floor <= time && time < until {
                    windows.insert(window(time));
                }
            });
        }
        windows.extend(self.cutting_histograms.values().flatten().map(|time| window(*time)));
    }

    /// Gives back the memory of runs that lie before the floor as a whole. Gives the series of
    /// `ids` that hold nothing any more to `gone`.
    pub(crate) fn truncate(&mut self, ids: &[SeriesId], gone: &mut Vec<SeriesId>) {
        for &id in ids {
            if let Some(open) = self.get(id).copied() {
                *self.open_mut(id) = self.truncate_runs(open, self.floor);
                if open.has_histograms {
                    self.truncate_histograms(id);
                }
            }
            if self.is_empty_series(id) {
                self.starts.remove(&id);
                gone.push(id);
            }
        }
    }

    /// What is left to do when all series of the shard were truncated.
    pub(crate) fn truncate_rest(&mut self) {
        self.prune_deleted();
        self.starts.values_mut().for_each(|starts| starts.truncate(self.floor));
        let late = self.late.values().filter_map(|late| late.first()).map(|sample| sample.timestamp);
        let late =
            late.chain(self.histograms.values().filter_map(|series| series.late.first()).map(|(t, _)| *t));
        self.oldest = self.oldest.max(self.floor).min(late.min().unwrap_or(i64::MAX));
    }

    fn truncate_histograms(&mut self, id: SeriesId) {
        let Some(series) = self.histograms.get_mut(&id) else { return };
        self.samples -= series.truncate(self.floor);
        self.forget_if_empty(id);
    }

    /// Says when the counter of a sample that was just taken started; gives the steps that say so.
    pub(crate) fn set_start(&mut self, id: SeriesId, timestamp: i64, start: i64) -> [Option<Step>; 2] {
        if start == 0 && !self.starts.contains_key(&id) {
            return [None; 2];
        }
        let newest_float = self.get(id).and_then(|open| self.newest_of(open));
        let newest_histogram = self.histograms.get(&id).and_then(HistogramSeries::newest);
        let is_newest = newest_float.max(newest_histogram).is_none_or(|newest| newest <= timestamp);
        self.starts.entry(id).or_default().set(timestamp, start, is_newest)
    }

    /// Puts a step back that was logged.
    pub(crate) fn restore_step(&mut self, id: SeriesId, step: Step) {
        self.starts.entry(id).or_default().insert(step);
    }

    /// Frees pages of series that hold nothing and will not again: those below `next`, which is
    /// not given out yet.
    pub(crate) fn free_pages(&mut self, shard: usize, next: SeriesId) {
        for at in 0..self.pages.len() {
            let past = Shard::id_of(shard, at, 0).0.saturating_add(PAGE_SERIES) <= next.0;
            if past && self.used_of_page(at).next().is_none() {
                self.pages[at] = None;
            }
        }
    }

    /// Whether the shard holds no sample of a series.
    pub(crate) fn is_empty_series(&self, id: SeriesId) -> bool {
        self.get(id).is_none_or(|open| !open.holds_something())
    }

    /// Gives back the memory of the runs of a series that lie before a time.
    pub(super) fn truncate_runs(&mut self, mut open: Open, floor: i64) -> Open {
        if self.newest_of(&open).is_some_and(|newest| newest < floor) {
            self.cells.release(&mut open.tail);
            self.samples -= u64::from(open.count);
            self.clocks.release(open.clock);
            open = Open { clock: NONE, count: 0, first_row: 0, ..open };
        }
        // The chain goes from new to old: find the first chunk that may go, drop it and the rest.
        let (mut newer, mut at) = (NONE, open.chunk);
        while at != NONE {
            let chunk = *self.sealed.get(at);
            let newest = self.clocks.rows(chunk.clock, chunk.first_row, chunk.count).last();
            if newest.is_some_and(|newest| *newest < floor) {
                break;
            }
            (newer, at) = (at, chunk.older);
        }
        match newer {
            NONE => open.chunk = NONE,
            newer => {
                self.sealed.get_mut(newer).older = NONE;
                self.shorten_chunk(newer, floor);
            }
        }
        while at != NONE {
            let chunk = *self.sealed.get(at);
            self.samples -= u64::from(chunk.count);
            self.clocks.release(chunk.clock);
            self.sealed.remove(at);
            at = chunk.older;
        }
        open
    }

    /// Leaves out of a run what lies before the floor, where that saves something: images would
    /// have it until the whole run goes.
    fn shorten_chunk(&mut self, number: u32, floor: i64) {
        let chunk = *self.sealed.get(number);
        let rows = self.clocks.rows(chunk.clock, chunk.first_row, chunk.count);
        let gone = rows.partition_point(|row| *row < floor);
        if gone == 0 || chunk.len < SHORTENED_LEN {
            return;
        }
        let Shard { encoder, values, sealed, .. } = self;
        values.clear();
        let is_whole = match sealed.bytes(&chunk) {
            ChunkBytes::Shared(bytes) => {
                let decoded = tidewatch_chunk::decode_values(&bytes, usize::from(chunk.count), values);
                decoded.is_ok() && check_readable(&bytes).is_ok()
            }
            ChunkBytes::Filling(bytes) => {
                tidewatch_chunk::decode_values(bytes, usize::from(chunk.count), values).is_ok()
            }
        };
        // What can not be read is said to who wants to read it.
        if is_whole {
            sealed.shorten(number, gone as u8, |out| {
                encoder.encode(&values[gone..], out);
            });
            self.samples -= gone as u64;
        }
    }

    /// Removes late samples of a series that a block has now.
    fn drop_late(&mut self, id: SeriesId, part: &[Sample]) {
        self.remove_late(id, |timestamp| part.binary_search_by_key(&timestamp, |p| p.timestamp).is_ok());
    }

    /// Removes late samples of a series by their times.
    pub(super) fn remove_late(&mut self, id: SeriesId, goes: impl Fn(i64) -> bool) {
        let Some(late) = self.late.get_mut(&id) else { return };
        let before = late.len();
        late.retain(|sample| !goes(sample.timestamp));
        self.samples -= (before - late.len()) as u64;
        if late.is_empty() {
            self.late.remove(&id);
            self.open_mut(id).has_late = false;
        }
    }

    pub(crate) fn bar(&self) -> i64 {
        self.bar
    }

    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The series of a page that hold something, with their slots.
    pub(crate) fn used_of_page(&self, page: usize) -> impl Iterator<Item = (usize, &Open)> {
        let slots = self.pages[page].iter().flat_map(|page| page.iter().enumerate());
        slots.filter(|(_, open)| open.holds_something())
    }

    /// The series at a slot of a page of a shard.
    pub(crate) fn id_of(shard: usize, page: usize, slot: usize) -> SeriesId {
        SeriesId((page * SHARDS + shard) as u32 * PAGE_SERIES + slot as u32)
    }

    /// Puts a sealed run back; those of a series come from old to new.
    pub(crate) fn restore_chunk(&mut self, id: SeriesId, new: NewChunk) -> Result<(), FrameError> {
        let older = self.open_mut(id).chunk;
        if !self.clocks.refer(new.clock, new.first_row, new.count) {
            return Err(FrameError::Malformed);
        }
        let chunk = self.sealed.restore(new, older).ok_or(FrameError::Malformed)?;
        self.open_mut(id).chunk = chunk;
        self.restored(new.clock, new.first_row, new.count);
        Ok(())
    }

    /// Puts an open run back.
    pub(crate) fn restore_open(
        &mut self,
        id: SeriesId,
        clock: u32,
        (first_row, count): (u8, u8),
        values: OpenValues<'_>,
    ) -> Result<(), FrameError> {
        self.values.clear();
        let is_whole = match values {
            OpenValues::Tokens { tokens, .. } => decode_tokens(tokens, usize::from(count), &mut self.values),
            OpenValues::Column(column) => {
                tidewatch_chunk::decode_values(column, usize::from(count), &mut self.values).is_ok()
            }
        };
        let newest = self.values.last().filter(|_| is_whole).ok_or(FrameError::Malformed)?.to_bits();
        let state = match values {
            OpenValues::Tokens { tokens, repeating, exponent } => {
                Some((tokens, RunState { value: newest, repeating, exponent }))
            }
            OpenValues::Column(_) => None,
        };
        if state.is_some_and(|(_, state)| !state.is_possible()) || !self.clocks.refer(clock, first_row, count)
        {
            return Err(FrameError::Malformed);
        }
        let tail = match state {
            Some((tokens, state)) => self.cells.restore(tokens, state),
            None => {
                let mut tail = Tail::EMPTY;
                self.values.iter().for_each(|value| self.cells.push(&mut tail, *value));
                tail
            }
        };
        let open = self.open_mut(id);
        *open = Open { tail, clock, first_row, count, ..*open };
        self.restored(clock, first_row, count);
        Ok(())
    }

    fn restored(&mut self, clock: u32, first_row: u8, count: u8) {
        let rows = self.clocks.rows(clock, first_row, count);
        self.oldest = self.oldest.min(rows[0]);
        self.newest = self.newest.max(rows[rows.len() - 1]);
        self.samples += u64::from(count);
    }

    pub(crate) fn restore_late(&mut self, id: SeriesId, sample: Sample) {
        self.late.entry(id).or_default().push(sample);
        self.open_mut(id).has_late = true;
        self.count(sample.timestamp);
    }

    pub(crate) fn restore_histograms(&mut self, id: SeriesId, series: HistogramSeries) {
        if series.is_empty() {
            return;
        }
        series.for_each_time(|time| self.count(time));
        self.histograms.insert(id, series);
        self.open_mut(id).has_histograms = true;
    }

    pub(crate) fn restore_bounds(&mut self, floor: i64, bar: i64) {
        (self.floor, self.bar) = (floor, bar);
    }

    pub(crate) fn bytes_of_open(&self) -> usize {
        self.pages.iter().flatten().count() * size_of::<[Open; PAGE_SERIES as usize]>()
    }

    pub(crate) fn bytes_of_histograms(&self) -> usize {
        let series: usize = self.histograms.values().map(HistogramSeries::bytes_held).sum();
        let starts: usize = self.starts.values().map(Starts::bytes_held).sum();
        series + starts + self.histograms.allocation_size() + self.starts.allocation_size()
    }

    pub(crate) fn bytes_of_late(&self) -> usize {
        let samples: usize = self.late.values().map(|late| late.capacity() * size_of::<Sample>()).sum();
        samples + self.late.allocation_size()
    }
}
