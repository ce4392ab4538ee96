//! One shard of the head: the samples of the series whose pages fall to it.
//!
//! ```text
//!  sample ─► take ─┬─ next in order ─► clock row + token in a cell   (open run)
//!                  │        clock full, or run of many cells:
//!                  │        open run ─► strong codec                 (sealed run)
//!                  └─ older ─► there already? ─► duplicate, conflict
//!                                   └─ no ─► in blocks, perhaps? ─► asked about first (`late`)
//!                                                └─ no ─► late samples, apart and sorted
//! ```
//!
//! Invariants: the open run of a series is not empty once the series has a sample in order, so
//! its newest time is a row of its clock; runs of a series ascend; a late sample's time is not
//! among the series' runs. What lies below the floor is in blocks, and not read here, except
//! for late samples, which are removed the moment a block has them.
//!
//! Not here: what goes when blocks have it (`truncate`), what comes back from images (`restore`).

pub(super) mod restore;
mod truncate;

use hashbrown::HashMap;
use tidewatch_chunk::{Encoder, HistogramEncoder};
use tidewatch_model::{NativeHistogram, Sample, is_stale};
use tidewatch_storage::Refusal;

use super::cells::{Cells, NONE, Tail};
use super::clock::Clocks;
use super::deleted::Deleted;
use super::histograms::HistogramSeries;
use super::registry::SeriesId;
use super::sealed::{ChunkBytes, Sealed, check_readable};
use super::starts::{Starts, Step};
use super::tokens::decode_tokens;
use super::{PAGE_SERIES, SHARDS};

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

// 856,000 of them: each word here is 7 MB there.
const _: () = assert!(size_of::<Open>() == 40);

/// For what was taken once: however old it is, the window was applied then.
pub(crate) const NO_WINDOW: i64 = i64::MAX;

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Taken,
    Duplicate,
    Refused(Refusal),
    /// Not taken yet: a block may have its time, and nobody has looked.
    Unsure,
}

/// What blocks have of a series, as far as the request at hand knows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InBlocks {
    /// Up to when they have samples, or may have.
    pub(crate) until_ms: Option<i64>,
    /// Whether nobody has looked yet.
    pub(crate) is_unsure: bool,
}

impl InBlocks {
    /// All that a start knows: it replays what was taken.
    const NOTHING: InBlocks = InBlocks { until_ms: None, is_unsure: false };
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
    /// Rows of runs before this time are not asked whether a sample was taken already: a start brings back rows
    /// that had gone with a cut, of which deletions said nothing to the head.
    pub(super) known_from: i64,
    /// Samples before this time are taken as late ones: a cut has the others, or will.
    bar: i64,
    /// So are samples before this one: a start began runs as it replayed the log, and knew nothing of blocks.
    replayed_until: i64,
    /// Of the series that is written to. One that has no run here begins none within that.
    pub(crate) in_blocks: InBlocks,
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
    &mut pages[page].get_or_insert_with(new_page)[slot]
}

/// Not inlined: a page is built on the stack, and who has room for one touches all of it each time.
#[cold]
#[inline(never)]
fn new_page() -> OpenPage {
    Box::new([NO_RUN; PAGE_SERIES as usize])
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
            known_from: i64::MIN,
            bar: i64::MIN,
            replayed_until: i64::MIN,
            in_blocks: InBlocks::NOTHING,
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

    /// A sample of this series will be taken soon.
    #[inline]
    pub(crate) fn expect(&self, id: SeriesId) {
        if let Some(open) = self.get(id) {
            self.cells.expect(&open.tail);
        }
    }

    /// Takes a sample, or says why not. `window_ms`: how far behind its series it may be.
    #[inline]
    pub(crate) fn take(&mut self, id: SeriesId, sample: Sample, window_ms: i64) -> Verdict {
        let open = open_of(&mut self.pages, id);
        if open.clock == NONE
            || open.has_histograms
            || sample.timestamp < self.bar.max(self.replayed_until)
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

    /// Everything but the next sample of a running clock. Not inlined: it is rare and long.
    #[inline(never)]
    fn take_apart(&mut self, id: SeriesId, sample: Sample, window_ms: i64) -> Verdict {
        let open = *self.open_mut(id);
        if open.has_histograms && is_stale(sample.value) && self.ends_in_histogram(id, &open) {
            // Who ends a series need not know of which kind it is.
            return self.take_histogram(id, sample.timestamp, &NativeHistogram::stale(), window_ms);
        }
        self.take_float(id, sample, window_ms)
    }

    /// The same for what is known to be a float, if it is a marker of staleness, too.
    pub(crate) fn take_float(&mut self, id: SeriesId, sample: Sample, window_ms: i64) -> Verdict {
        let mut open = *self.open_mut(id);
        if open.has_histograms
            && let Err(refusal) = self.may_take_float(id, sample.timestamp, window_ms)
        {
            // What was taken once is a repeat, however old.
            let same = |value: f64| value.to_bits() == sample.value.to_bits();
            let is_repeat = match refusal {
                Refusal::TooOld => self.value_at(id, &open, sample.timestamp).is_some_and(same),
                _ => is_stale(sample.value) && self.is_stale_at(id, sample.timestamp),
            };
            return match refusal {
                _ if is_repeat => Verdict::Duplicate,
                Refusal::Conflict => self.conflict(sample.timestamp),
                refusal => Verdict::Refused(refusal),
            };
        }
        // Runs that were lost to damage have left late samples.
        let newest = self.newest_of(&open).or_else(|| Some(self.late.get(&id)?.last()?.timestamp));
        if newest.is_some_and(|newest| sample.timestamp <= newest)
            || self.is_late(sample.timestamp, open.clock != NONE)
        {
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
            return if same { Verdict::Duplicate } else { self.conflict(sample.timestamp) };
        }
        let newest = self.newest_of(&open);
        if newest.is_some_and(|newest| sample.timestamp < newest.saturating_sub(window_ms)) {
            return Verdict::Refused(Refusal::TooOld);
        }
        if self.is_unsure(sample.timestamp) {
            return Verdict::Unsure;
        }
        let late = self.late.entry(id).or_default();
        let at = late.partition_point(|have| have.timestamp < sample.timestamp);
        late.insert(at, sample);
        self.taken_late += 1;
        self.open_mut(id).has_late = true;
        self.count(sample.timestamp);
        Verdict::Taken
    }

    /// Whether a sample is late that is newer than all that its series has here.
    pub(super) fn is_late(&self, timestamp: i64, has_run: bool) -> bool {
        timestamp < self.bar.max(self.replayed_until) || !has_run && self.may_be_in_blocks(timestamp)
    }

    /// Whether blocks may have a sample of the series at a time.
    fn may_be_in_blocks(&self, timestamp: i64) -> bool {
        Some(timestamp) <= self.in_blocks.until_ms
    }

    /// Whether blocks have to be asked before a late sample is taken.
    pub(super) fn is_unsure(&self, timestamp: i64) -> bool {
        self.in_blocks.is_unsure && self.may_be_in_blocks(timestamp)
    }

    /// What becomes of a sample at whose time another value is here: a block may have had its own first.
    pub(super) fn conflict(&self, timestamp: i64) -> Verdict {
        if self.is_unsure(timestamp) { Verdict::Unsure } else { Verdict::Refused(Refusal::Conflict) }
    }

    /// The value that a series has at a time, as far as the head knows.
    pub(super) fn value_at(&mut self, id: SeriesId, open: &Open, timestamp: i64) -> Option<f64> {
        if open.has_late
            && let Some(late) = self.late.get(&id)
            && let Ok(at) = late.binary_search_by_key(&timestamp, |sample| sample.timestamp)
        {
            return Some(late[at].value);
        }
        if open.clock == NONE || timestamp < self.known_from || self.is_deleted(id, timestamp) {
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

    /// Says when the counter of a sample that was just taken started; gives the steps that say so.
    pub(crate) fn set_start(&mut self, id: SeriesId, timestamp: i64, start: i64) -> [Option<Step>; 2] {
        if start == 0 && !self.starts.contains_key(&id) {
            return [None; 2];
        }
        let histograms = self.histograms.get(&id);
        let newest = [
            self.get(id).and_then(|open| self.newest_of(open)),
            histograms.and_then(HistogramSeries::newest),
            // A series may have late samples alone, or they may be newer.
            self.late.get(&id).and_then(|late| late.last()).map(|sample| sample.timestamp),
            histograms.and_then(|series| series.late.last()).map(|(time, _)| *time),
        ];
        let is_newest = newest.into_iter().flatten().all(|newest| newest <= timestamp);
        self.starts.entry(id).or_default().set(timestamp, start, is_newest)
    }

    /// The shard has an image of its own that a start will read.
    pub(crate) fn imaged(&mut self) {
        self.starts.values_mut().for_each(Starts::imaged);
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

    /// The newest series that holds something.
    pub(crate) fn newest_id(&self, shard: usize) -> Option<SeriesId> {
        let newest = |page| self.used_of_page(page).last().map(|(slot, _)| Shard::id_of(shard, page, slot));
        (0..self.page_count()).rev().find_map(newest)
    }

    /// The series at a slot of a page of a shard.
    pub(crate) fn id_of(shard: usize, page: usize, slot: usize) -> SeriesId {
        SeriesId((page * SHARDS + shard) as u32 * PAGE_SERIES + slot as u32)
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
