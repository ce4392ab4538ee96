//! What a target's series are, by their text: so that a scrape that shows what the last one
//! showed does no work on labels, and so that a series that is gone is noticed.
//!
//! ```text
//! text ─ texts ─► series (labels, live?, seen in this scrape?) ◄─ by_labels ─ labels
//! ```
//!
//! Invariants: a series is *live* when the store holds a sample of it that no staleness marker
//! ended; each live series is in `series`, whatever its text was. Two texts of one label set
//! share their series. Texts that a good scrape did not show are forgotten after it; failed
//! scrapes can not grow the cache without bound ([`SeriesCache::fail`]).

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use tidewatch_model::Labels;

/// Texts beyond twice those of the last good scrape that failed scrapes may leave behind.
const FAILED_TEXTS_MAX: usize = 1000;

/// Texts that stand for nothing, because relabelling drops them, are remembered up to here:
/// unlike samples they are bounded by no limit but the body's.
const DROPPED_MAX: usize = 200_000;

/// A series of the target, by its place in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesId(u32);

/// What a text stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Series(SeriesId),
    /// Relabelling drops it.
    Dropped,
}

struct Text {
    hash: u64,
    text: Box<[u8]>,
    known: Known,
    /// The scrape that showed it last.
    seen: u64,
}

struct Series {
    labels: Labels,
    hash: u64,
    is_live: bool,
    /// The scrape that took a sample of it last.
    sampled: u64,
    /// The scrape that showed it last in a way that counts for staleness.
    tracked: u64,
    /// Texts that stand for it.
    texts: u32,
}

#[derive(Default)]
pub(crate) struct SeriesCache {
    hasher: FixedState,
    /// The number of the scrape in progress, from 1.
    scrape: u64,
    texts: HashTable<Text>,
    text_bytes: usize,
    /// Free places are `None` and listed in `free`.
    series: Vec<Option<Series>>,
    free: Vec<u32>,
    by_labels: HashTable<u32>,
    /// Texts after the last good scrape.
    good_texts: usize,
    good_bytes: usize,
}

impl SeriesCache {
    /// An empty cache. The seed keeps a hostile target from choosing texts that collide.
    pub(crate) fn new(seed: u64) -> SeriesCache {
        SeriesCache { hasher: FixedState::with_seed(seed), ..SeriesCache::default() }
    }

    /// The number of the scrape in progress.
    pub(crate) fn scrape(&self) -> u64 {
        self.scrape
    }

    /// Begins a scrape.
    pub(crate) fn begin(&mut self) {
        self.scrape += 1;
    }

    pub(crate) fn find(&mut self, text: &[u8]) -> Option<Known> {
        let hash = self.hasher.hash_one(text);
        let scrape = self.scrape;
        let found = self.texts.find_mut(hash, |known| *known.text == *text)?;
        found.seen = scrape;
        Some(found.known)
    }

    /// Remembers that relabelling drops `text`.
    pub(crate) fn add_dropped(&mut self, text: &[u8]) {
        if self.texts.len() < self.by_labels.len() + DROPPED_MAX {
            self.add_text(text, Known::Dropped);
        }
    }

    /// Remembers that `text` stands for `labels`, and says whether the labels are new.
    pub(crate) fn add(&mut self, text: &[u8], labels: Labels) -> (SeriesId, bool) {
        let (id, is_new) = self.add_series(labels);
        self.get_mut(id).texts += 1;
        self.add_text(text, Known::Series(id));
        (id, is_new)
    }

    fn add_text(&mut self, text: &[u8], known: Known) {
        let hash = self.hasher.hash_one(text);
        self.text_bytes += text.len();
        let entry = Text { hash, text: text.into(), known, seen: self.scrape };
        self.texts.insert_unique(hash, entry, |entry| entry.hash);
    }

    fn add_series(&mut self, labels: Labels) -> (SeriesId, bool) {
        let hash = self.hasher.hash_one(labels.as_bytes());
        let series = &self.series;
        let is_same = |at: &u32| series[*at as usize].as_ref().is_some_and(|known| known.labels == labels);
        if let Some(&at) = self.by_labels.find(hash, is_same) {
            return (SeriesId(at), false);
        }
        let new = Series { labels, hash, is_live: false, sampled: 0, tracked: 0, texts: 0 };
        let at = self.free.pop().unwrap_or_else(|| {
            self.series.push(None);
            u32::try_from(self.series.len() - 1).expect("a scrape's series are counted by its limits")
        });
        self.series[at as usize] = Some(new);
        let series = &self.series;
        self.by_labels.insert_unique(hash, at, |at| series[*at as usize].as_ref().map_or(0, |s| s.hash));
        (SeriesId(at), true)
    }

    fn get_mut(&mut self, id: SeriesId) -> &mut Series {
        self.series[id.0 as usize].as_mut().expect("an id names a series that is kept")
    }

    pub(crate) fn labels(&self, id: SeriesId) -> &Labels {
        &self.series[id.0 as usize].as_ref().expect("an id names a series that is kept").labels
    }

    /// Notes a sample of the series in this scrape; `false` where there was one already.
    pub(crate) fn note_sample(&mut self, id: SeriesId, counts_for_staleness: bool) -> bool {
        let scrape = self.scrape;
        let series = self.get_mut(id);
        if counts_for_staleness {
            series.tracked = scrape;
        }
        std::mem::replace(&mut series.sampled, scrape) != scrape
    }

    /// Ends a good scrape: gives the series that vanished, which are live no more, to `stale`.
    pub(crate) fn finish(&mut self, stale: &mut Vec<Labels>) {
        let scrape = self.scrape;
        for series in self.series.iter_mut().flatten() {
            if series.tracked == scrape {
                series.is_live = true;
            } else if series.is_live {
                series.is_live = false;
                stale.push(series.labels.clone());
            }
        }
        self.forget_unseen();
        self.good_texts = self.texts.len();
        self.good_bytes = self.text_bytes;
    }

    /// Ends a failed scrape: everything live has vanished.
    pub(crate) fn fail(&mut self, stale: &mut Vec<Labels>) {
        for series in self.series.iter_mut().flatten() {
            if std::mem::take(&mut series.is_live) {
                stale.push(series.labels.clone());
            }
        }
        // A target whose answers differ each time and end badly must not fill memory.
        let has_grown = self.texts.len() > 2 * self.good_texts + FAILED_TEXTS_MAX
            || self.text_bytes > 2 * self.good_bytes + (1 << 20);
        if has_grown {
            self.forget_unseen();
        }
    }

    /// Takes over the live series of a predecessor, as if this cache had scraped them: those that
    /// the next scrape does not show get their markers then.
    pub(crate) fn inherit(&mut self, predecessor: &SeriesCache) {
        for series in predecessor.series.iter().flatten().filter(|series| series.is_live) {
            let (id, _) = self.add_series(series.labels.clone());
            self.get_mut(id).is_live = true;
        }
    }

    #[cfg(test)]
    fn live_count(&self) -> usize {
        self.series.iter().flatten().filter(|series| series.is_live).count()
    }

    fn forget_unseen(&mut self) {
        let (scrape, series) = (self.scrape, &mut self.series);
        let mut bytes = 0;
        self.texts.retain(|text| {
            let keep = text.seen == scrape;
            match (keep, text.known) {
                (true, _) => bytes += text.text.len(),
                (false, Known::Series(id)) => {
                    series[id.0 as usize].as_mut().expect("a text holds its series").texts -= 1;
                }
                (false, Known::Dropped) => {}
            }
            keep
        });
        self.text_bytes = bytes;
        for at in 0..self.series.len() {
            let is_idle = self.series[at].as_ref().is_some_and(|series| series.texts == 0 && !series.is_live);
            if is_idle {
                let hash = self.series[at].take().map_or(0, |series| series.hash);
                if let Ok(entry) = self.by_labels.find_entry(hash, |known| *known as usize == at) {
                    entry.remove();
                }
                self.free.push(at as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(value: &str) -> Labels {
        Labels::from_pairs([("__name__", "m"), ("v", value)])
    }

    /// One scrape that shows `values`; gives those that vanished, sorted.
    fn scrape(cache: &mut SeriesCache, values: &[&str], good: bool) -> Vec<String> {
        cache.begin();
        for value in values {
            let id = match cache.find(value.as_bytes()) {
                Some(Known::Series(id)) => id,
                Some(Known::Dropped) => unreachable!("nothing is dropped here"),
                None => cache.add(value.as_bytes(), labels(value.trim())).0,
            };
            cache.note_sample(id, true);
        }
        let mut stale = Vec::new();
        if good {
            cache.finish(&mut stale)
        } else {
            cache.fail(&mut stale)
        }
        let mut stale: Vec<String> =
            stale.iter().map(|l| l.get("v").unwrap_or_default().to_owned()).collect();
        stale.sort();
        stale
    }

    #[test]
    fn each_vanished_series_is_given_once() {
        let mut cache = SeriesCache::default();
        assert_eq!(scrape(&mut cache, &["a", "b"], true), [""; 0]);
        assert_eq!(scrape(&mut cache, &["a"], true), ["b"]);
        assert_eq!(scrape(&mut cache, &["a"], true), [""; 0]);
        assert_eq!(scrape(&mut cache, &["a", "b"], true), [""; 0]);
        assert_eq!(scrape(&mut cache, &["a"], false), ["a", "b"]);
        assert_eq!(scrape(&mut cache, &[], false), [""; 0]);
        assert_eq!(scrape(&mut cache, &["b"], true), [""; 0]);
        assert_eq!(scrape(&mut cache, &[], true), ["b"]);
    }

    #[test]
    fn another_spelling_is_the_same_series() {
        let mut cache = SeriesCache::default();
        assert_eq!(scrape(&mut cache, &["a"], true), [""; 0]);
        assert_eq!(scrape(&mut cache, &["a "], true), [""; 0]);
        assert_eq!(cache.live_count(), 1);
        cache.begin();
        let Some(Known::Series(id)) = cache.find(b"a ") else { panic!("known") };
        assert!(cache.note_sample(id, true));
        let (same, is_new) = cache.add(b"a", labels("a"));
        assert_eq!((same, is_new), (id, false));
        assert!(!cache.note_sample(id, true), "the second sample of a scrape is a duplicate");
    }

    #[test]
    fn memory_follows_what_the_target_shows() {
        let mut cache = SeriesCache::default();
        for round in 0..50 {
            let values: Vec<String> = (0..20).map(|i| format!("{round}-{i}")).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            scrape(&mut cache, &values, true);
        }
        assert!(cache.texts.len() == 20 && cache.series.len() <= 60, "{}", cache.series.len());
        for round in 0..500 {
            let values: Vec<String> = (0..20).map(|i| format!("bad {round}-{i}")).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            scrape(&mut cache, &values, false);
        }
        assert!(cache.texts.len() <= 1100 && cache.series.len() <= 1200, "{}", cache.texts.len());
    }

    #[test]
    fn a_successor_ends_what_its_predecessor_began() {
        let mut old = SeriesCache::default();
        scrape(&mut old, &["a", "b"], true);
        let mut new = SeriesCache::default();
        new.inherit(&old);
        assert_eq!(scrape(&mut new, &["b", "c"], true), ["a"]);
    }
}
