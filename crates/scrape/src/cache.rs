//! What a target's series are, by their text: so that a scrape that shows what the last one
//! showed does no work on labels, and so that a series that is gone is noticed.
//!
//! ```text
//! text ─ as the one behind the one before? ─┬─► text ─► series (labels, live?, seen in this scrape?)
//!         └─ no ─► by_text ─────────────────┘                ▲
//!                                             by_labels ─────┘
//! ```
//!
//! Targets show their series in the same order each time, so a text is mostly the one that followed
//! in the last scrape; it is compared there, and not hashed.
//!
//! Invariants: a series is *live* when the store holds a sample of it that no staleness marker
//! ended; each live series is in `series`, whatever its text was. Two texts of one label set
//! share their series. Texts that a good scrape did not show are forgotten after it; failed
//! scrapes can not grow the cache without bound ([`SeriesCache::fail`]).

use std::hash::BuildHasher;

use bytes::Bytes;
use foldhash::fast::FixedState;
use hashbrown::HashTable;

use tidewatch_model::Labels;

use crate::texts::Texts;

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

struct Series {
    /// As the store has them: in remote write's spelling.
    labels: Bytes,
    hash: u64,
    is_live: bool,
    /// The scrape that took a sample of it at its own time last.
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
    texts: Texts,
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
        let texts = Texts::new(seed);
        SeriesCache { hasher: FixedState::with_seed(seed), texts, ..SeriesCache::default() }
    }

    /// The number of the scrape in progress.
    pub(crate) fn scrape(&self) -> u64 {
        self.scrape
    }

    /// Begins a scrape.
    pub(crate) fn begin(&mut self) {
        self.scrape += 1;
        self.texts.begin();
    }

    /// The text that probably comes next; empty where nobody knows.
    pub(crate) fn likely(&self) -> &[u8] {
        self.texts.likely()
    }

    pub(crate) fn find(&mut self, text: &[u8]) -> Option<Known> {
        self.texts.find(text)
    }

    /// The texts of another grammar stand for the same series, but are not to be expected.
    pub(crate) fn expect_nothing(&mut self) {
        self.texts.expect_nothing();
    }

    /// Remembers that relabelling drops `text`.
    pub(crate) fn add_dropped(&mut self, text: &[u8]) {
        if self.texts.len() < self.by_labels.len() + DROPPED_MAX {
            self.texts.add(text, Known::Dropped);
        }
    }

    /// Remembers that `text` stands for `labels`, and says whether the labels are new.
    pub(crate) fn add(&mut self, text: &[u8], labels: Labels) -> (SeriesId, bool) {
        let (id, is_new) = self.add_series(labels.spelled().into());
        self.get_mut(id).texts += 1;
        self.texts.add(text, Known::Series(id));
        (id, is_new)
    }

    fn add_series(&mut self, labels: Bytes) -> (SeriesId, bool) {
        let hash = self.hasher.hash_one(&labels[..]);
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

    /// The labels of a series, as [`RawLabels::Proto`](tidewatch_model::RawLabels::Proto) has them.
    pub(crate) fn labels(&self, id: SeriesId) -> &[u8] {
        &self.series[id.0 as usize].as_ref().expect("an id names a series that is kept").labels
    }

    /// Notes a sample of the series at the scrape's own time; `false` where there was one already.
    pub(crate) fn note_sample(&mut self, id: SeriesId) -> bool {
        let scrape = self.scrape;
        let series = self.get_mut(id);
        series.tracked = scrape;
        std::mem::replace(&mut series.sampled, scrape) != scrape
    }

    /// Notes that the series is shown in a way that counts for staleness.
    pub(crate) fn track(&mut self, id: SeriesId) {
        self.get_mut(id).tracked = self.scrape;
    }

    /// Ends a good scrape: gives the series that vanished, which are live no more, to `stale`.
    pub(crate) fn finish(&mut self, stale: &mut Vec<Bytes>) {
        let scrape = self.scrape;
        for series in self.series.iter_mut().flatten() {
            if series.tracked == scrape {
                series.is_live = true;
            } else if series.is_live {
                series.is_live = false;
                stale.push(series.labels.clone());
            }
        }
        if stale.is_empty() && self.texts.is_as_before() {
            return;
        }
        self.forget_unseen();
        self.texts.remember_order();
        self.good_texts = self.texts.len();
        self.good_bytes = self.texts.bytes();
    }

    /// Ends a failed scrape: everything live has vanished.
    pub(crate) fn fail(&mut self, stale: &mut Vec<Bytes>) {
        for series in self.series.iter_mut().flatten() {
            if std::mem::take(&mut series.is_live) {
                stale.push(series.labels.clone());
            }
        }
        // A target whose answers differ each time and end badly must not fill memory.
        let has_grown = self.texts.len() > 2 * self.good_texts + FAILED_TEXTS_MAX
            || self.texts.bytes() > 2 * self.good_bytes + (1 << 20);
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
        let series = &mut self.series;
        self.texts.forget_unseen(|known| {
            if let Known::Series(id) = known {
                series[id.0 as usize].as_mut().expect("a text holds its series").texts -= 1;
            }
        });
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
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tidewatch_model::RawLabels;

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
            cache.note_sample(id);
        }
        let mut stale = Vec::new();
        if good {
            cache.finish(&mut stale)
        } else {
            cache.fail(&mut stale)
        }
        let value = |labels: &Bytes| {
            let pair = RawLabels::Proto(labels).pairs().flatten().find(|(name, _)| *name == b"v");
            String::from_utf8(pair.expect("all have it").1.to_vec()).expect("text")
        };
        let mut stale: Vec<String> = stale.iter().map(value).collect();
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
        assert!(cache.note_sample(id));
        let (same, is_new) = cache.add(b"a", labels("a"));
        assert_eq!((same, is_new), (id, false));
        assert!(!cache.note_sample(id), "the second sample of a scrape is a duplicate");
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

    proptest! {
        /// Whatever order texts come in, the cache finds and forgets what a plain list of them would.
        #[test]
        fn any_order_finds_what_was_shown(
            scrapes in proptest::collection::vec((proptest::collection::vec(0u8..12, 0..14), 0usize..3, prop::bool::weighted(0.8)), 1..12),
        ) {
            let mut cache = SeriesCache::default();
            let (mut live, mut known) = (BTreeSet::new(), BTreeSet::new());
            for (values, again, good) in scrapes {
                // The same once more, as targets do.
                for _ in 0..=again {
                    cache.begin();
                    for value in &values {
                        let text = [b'a' + value];
                        let id = match cache.find(&text) {
                            Some(Known::Series(id)) => {
                                prop_assert!(known.contains(value));
                                id
                            }
                            found => {
                                prop_assert!(found.is_none() && !known.contains(value));
                                cache.add(&text, labels(&value.to_string())).0
                            }
                        };
                        let spelled = labels(&value.to_string()).spelled();
                        prop_assert_eq!(cache.labels(id), spelled);
                        cache.note_sample(id);
                        known.insert(*value);
                    }
                    let (mut stale, shown) = (Vec::new(), values.iter().copied().collect::<BTreeSet<u8>>());
                    let gone = match good {
                        true => {
                            cache.finish(&mut stale);
                            known = shown.clone();
                            std::mem::replace(&mut live, shown.clone()).difference(&shown).count()
                        }
                        false => {
                            cache.fail(&mut stale);
                            std::mem::take(&mut live).len()
                        }
                    };
                    prop_assert_eq!(stale.len(), gone);
                    prop_assert_eq!(cache.live_count(), live.len());
                    prop_assert_eq!(cache.texts.len(), known.len());
                }
            }
        }
    }
}
