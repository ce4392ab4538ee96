//! How series come back after a start: their labels one after the other, the table when all are
//! there.
//!
//! ```text
//! definitions ── restore ──► pages of labels ── build_table ──► table
//!                   └── known_ids ──► what the shards may replay samples of
//! ```
//!
//! Invariant: until [`Registry::set_table`] was called nothing is found by its labels.

use tidewatch_env::{Job, Parallel};

use super::table::{SeriesTable, Slots};
use super::{LabelPage, PairId, Registry, SeriesId};
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

    /// Whether all series of a page, of which this is the first, are alive.
    pub(crate) fn has_whole_page(&self, first: SeriesId) -> bool {
        let at = first.0 as usize / 64;
        self.alive.get(at..at + ALIVE_WORDS).is_some_and(|page| page.iter().all(|word| *word == u64::MAX))
    }

    /// Whether an id is one that can be: the next one, or a little further where definitions
    /// between them were lost.
    pub(crate) fn is_near(&self, id: SeriesId) -> bool {
        is_near(id, self.next)
    }
}

/// The table of a registry, on its way there.
pub(crate) struct Table {
    series: SeriesTable,
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

    /// Puts a series back that has its id already; `false` where that is not possible: the series is
    /// known, or gone again, or the id too far ahead to be one.
    pub(crate) fn restore(&mut self, id: SeriesId, pairs: &[PairId]) -> bool {
        if !is_near(id, self.next) || pairs.is_empty() {
            return false;
        }
        if id.0 < self.next {
            return self.fill(id, pairs);
        }
        self.skip_to(id);
        self.place(id, pairs);
        true
    }

    /// Puts a series in a place that was left without one: what defined it was damaged, and comes once more.
    fn fill(&mut self, id: SeriesId, pairs: &[PairId]) -> bool {
        let slot = (id.0 % PAGE_SERIES) as usize;
        let is_last = id.0 / PAGE_SERIES == self.next / PAGE_SERIES;
        let page = self.page_mut(id.0);
        while !is_last && page.ends.len() < PAGE_SERIES as usize {
            page.close_slot();
        }
        let start = slot.checked_sub(1).map_or(0, |before| page.ends[before]);
        if page.is_alive(slot) || start != page.ends[slot] {
            return false;
        }
        page.pairs.splice(start as usize..start as usize, pairs.iter().copied());
        page.ends[slot..].iter_mut().for_each(|end| *end += pairs.len() as u32);
        page.alive[slot / 64] |= 1 << (slot % 64);
        self.live += 1;
        true
    }

    /// Leaves ids up to `id` without series. Whole pages of them take no memory.
    pub(crate) fn skip_to(&mut self, id: SeriesId) {
        while self.next < id.0 {
            if self.next.is_multiple_of(PAGE_SERIES) && id.0 - self.next >= PAGE_SERIES {
                self.next += PAGE_SERIES;
            } else {
                self.page_mut(self.next).close_slot();
                self.next += 1;
            }
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

    /// The table of the series that came back, by all cores.
    pub(crate) fn build_table(&self, parallel: &dyn Parallel) -> Table {
        let stretch = self.pages.len().div_ceil(parallel.width()).max(1);
        let mut slots: Vec<Slots> = self.pages.chunks(stretch).map(|_| Slots::default()).collect();
        let stretches = self.pages.chunks(stretch).zip(&mut slots).enumerate();
        let jobs = stretches.map(|(at, (pages, slots))| {
            let first = (at * stretch) as u32 * PAGE_SERIES;
            let job: Job<'_> = Box::new(move || self.hash_pages(pages, first, slots));
            job
        });
        parallel.run(jobs.collect());
        let are_equal = |a, b| self.labels(a) == self.labels(b);
        let (series, outdated) = SeriesTable::of(&slots, &are_equal, parallel);
        Table { series, outdated }
    }

    /// From now on the series that came back are found by their labels. Gives those whose labels a
    /// newer one has: it was defined when the older one had been removed, with all that it had in
    /// blocks, and what says so in the log is lost.
    pub(crate) fn set_table(&mut self, table: Table) -> Vec<SeriesId> {
        assert!(self.table.is_empty(), "series come back before others are created");
        self.table = table.series;
        table.outdated
    }

    /// Hashes the canonical spelling of each living series of pages that begin at id `first`.
    fn hash_pages(&self, pages: &[Option<Box<LabelPage>>], first: u32, slots: &mut Slots) {
        slots.reserve(pages.iter().flatten().map(|page| page.ends.len()).sum());
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
                    slots.push(self.hasher.hash(&canonical), SeriesId(first + slot as u32));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewatch_model::Labels;

    use super::*;

    /// The order in which definitions are whole again makes no difference.
    #[test]
    fn series_come_back_in_any_order() {
        let ids: Vec<u32> =
            (0..3 * PAGE_SERIES + 9).filter(|id| id % 7 != 3 && id / PAGE_SERIES != 1).collect();
        let late = |id: &u32| id.is_multiple_of(5) || id / PAGE_SERIES == 2 && id % PAGE_SERIES < 600;
        let orders: [Vec<u32>; 2] = [
            ids.clone(),
            ids.iter().filter(|id| !late(id)).chain(ids.iter().filter(|id| late(id))).copied().collect(),
        ];
        let found = orders.map(|order| {
            let mut registry = Registry::new(7);
            let names: Vec<PairId> = (0..11).map(|n| registry.intern("n", &n.to_string())).collect();
            let job = registry.intern("job", "x");
            for id in &order {
                let pairs = [job, names[*id as usize % 11]];
                let pairs = if id % 3 == 0 { &pairs[1..] } else { &pairs };
                assert!(registry.restore(SeriesId(*id), pairs), "{id}");
                assert!(!registry.restore(SeriesId(*id), pairs), "{id} twice");
            }
            let known = registry.known_ids();
            let ids: Vec<u32> = (0..registry.next).filter(|id| known.is_alive(SeriesId(*id))).collect();
            let labels: Vec<Labels> = ids.iter().map(|id| registry.to_labels(SeriesId(*id))).collect();
            (ids, labels, registry.live)
        });
        assert_eq!(found[0].0, ids);
        assert_eq!(found[0], found[1]);
    }
}
