//! How series come back after a start: their labels one after the other, the table when all are
//! there.
//!
//! ```text
//! definitions ── restore ──► pages of labels ── build_table ──► table
//!                   └── known_ids ──► what the shards may replay samples of
//! ```
//!
//! Invariant: until [`Registry::set_table`] was called nothing is found by its labels.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tidewatch_env::{Job, Parallel};

use super::{LabelPage, PairId, Registry, SeriesId, Slot};
use crate::head::PAGE_SERIES;
use crate::head::image::SeriesVisitor;

/// How many ids may be missing in a row: more is no gap, but a number that is no id.
const LOST_IDS_MAX: u32 = 1 << 24;

/// Words of a page's living series.
const ALIVE_WORDS: usize = PAGE_SERIES as usize / 64;

/// The ids of a moment: whoever replays samples need not keep others from defining more series.
#[derive(Debug, Default)]
pub(crate) struct KnownIds {
    alive: Vec<u64>,
    next: u32,
}

impl KnownIds {
    #[inline]
    pub(crate) fn is_alive(&self, id: SeriesId) -> bool {
        self.alive.get(id.0 as usize / 64).is_some_and(|word| word >> (id.0 % 64) & 1 == 1)
    }

    /// Whether an id is one that can be: the next one, or a little further where definitions
    /// between them were lost.
    pub(crate) fn is_near(&self, id: SeriesId) -> bool {
        is_near(id, self.next)
    }
}

/// The table of a registry, on its way there.
pub(crate) struct Table {
    slots: HashTable<Slot>,
    /// Series whose labels a newer one has.
    outdated: Vec<SeriesId>,
}

fn is_near(id: SeriesId, next: u32) -> bool {
    id.0 < next.saturating_add(LOST_IDS_MAX)
}

impl SeriesVisitor for Registry {
    fn pair(&mut self, name: &str, value: &str) -> PairId {
        self.intern(name, value)
    }

    fn series(&mut self, id: SeriesId, labels: &[PairId]) {
        self.restore(id, labels);
    }
}

impl Registry {
    /// Interns a pair on its way back from the log.
    pub(crate) fn intern(&mut self, name: &str, value: &str) -> PairId {
        self.pairs.intern(&self.hasher, name, value).0
    }

    /// Puts a series back that has its id already; `false` where that is not possible: the id
    /// is behind us (the series is known, or gone again), or too far ahead to be one.
    pub(crate) fn restore(&mut self, id: SeriesId, pairs: &[PairId]) -> bool {
        if id.0 < self.next || !is_near(id, self.next) || pairs.is_empty() {
            return false;
        }
        self.skip_to(id);
        let page = self.page_mut(id.0);
        if page.pairs.capacity() == 0 {
            // Its neighbours have about as many labels; a full page gives the rest back.
            page.pairs.reserve_exact(pairs.len() * (PAGE_SERIES - id.0 % PAGE_SERIES) as usize);
        }
        self.place(id, pairs);
        true
    }

    /// Leaves ids up to `id` without series.
    pub(crate) fn skip_to(&mut self, id: SeriesId) {
        while self.next < id.0 {
            self.close_slot();
        }
    }

    /// The ids that are alive now.
    pub(crate) fn known_ids(&self) -> KnownIds {
        let mut alive = Vec::with_capacity(self.pages.len() * ALIVE_WORDS);
        for page in &self.pages {
            match page {
                Some(page) => alive.extend_from_slice(&page.alive),
                None => alive.resize(alive.len() + ALIVE_WORDS, 0),
            }
        }
        KnownIds { alive, next: self.next }
    }

    /// The table of the series that came back. Their labels are hashed by all cores; the table,
    /// with its size known, does not grow on the way.
    pub(crate) fn build_table(&self, parallel: &dyn Parallel) -> Table {
        let stretch = self.pages.len().div_ceil(parallel.width()).max(1);
        let mut slots: Vec<Vec<Slot>> = self.pages.chunks(stretch).map(|_| Vec::new()).collect();
        let stretches = self.pages.chunks(stretch).zip(&mut slots).enumerate();
        let jobs = stretches.map(|(at, (pages, slots))| {
            let first = (at * stretch) as u32 * PAGE_SERIES;
            let job: Job<'_> = Box::new(move || self.hash_pages(pages, first, slots));
            job
        });
        parallel.run(jobs.collect());
        let mut table = Table { slots: HashTable::with_capacity(self.live as usize), outdated: Vec::new() };
        for slot in slots.into_iter().flatten() {
            let same = |have: &Slot| have.tag == slot.tag && self.labels(have.id) == self.labels(slot.id);
            match table.slots.entry(Slot::spread(slot.tag), same, |slot| Slot::spread(slot.tag)) {
                Entry::Vacant(place) => drop(place.insert(slot)),
                Entry::Occupied(mut older) => {
                    let older = std::mem::replace(older.get_mut(), slot);
                    table.outdated.push(older.id);
                }
            }
        }
        table
    }

    /// From now on the series that came back are found by their labels. Gives those whose labels a
    /// newer one has: it was defined when the older one had been removed, with all that it had in
    /// blocks, and what says so in the log is lost.
    pub(crate) fn set_table(&mut self, table: Table) -> Vec<SeriesId> {
        assert!(self.table.is_empty(), "series come back before others are created");
        self.table = table.slots;
        table.outdated
    }

    /// Hashes the canonical spelling of each living series of pages that begin at id `first`.
    fn hash_pages(&self, pages: &[Option<Box<LabelPage>>], first: u32, slots: &mut Vec<Slot>) {
        let mut canonical = Vec::new();
        for (page, first) in pages.iter().zip((first..).step_by(PAGE_SERIES as usize)) {
            let Some(page) = page else { continue };
            let mut start = 0;
            for (slot, end) in page.ends.iter().enumerate() {
                let labels = &page.pairs[start..*end as usize];
                start = *end as usize;
                if page.is_alive(slot) {
                    canonical.clear();
                    labels.iter().for_each(|pair| canonical.extend_from_slice(self.pairs.bytes(*pair)));
                    let tag = Slot::tag(self.hasher.hash(&canonical));
                    slots.push(Slot { tag, id: SeriesId(first + slot as u32) });
                }
            }
        }
    }
}
