//! What a target's series are, by their text: so that a scrape that shows what the last one
//! showed does no work on labels, and so that a series that is gone is noticed.
//!
//! ```text
//! text ─ as the one behind the one before? ─┬─► text ─► series (labels, live?, seen in this scrape?)
//!         └─ no ─► by its hash ─────────────┘                ▲
//!                                   labels, by their hash ───┘
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

use tidewatch_model::Labels;

use crate::numbered::Numbered;
use crate::texts::Texts;

/// Texts beyond twice those of the last good scrape that failed scrapes may leave behind.
const FAILED_TEXTS_MAX: usize = 1000;

/// Texts beyond one for each series, because relabelling drops them or because they are other spellings
/// of a series, are remembered up to here: unlike samples they are bounded by no limit but the body's.
const SPARE_TEXTS_MAX: usize = 200_000;

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
    seed: u64,
    hasher: FixedState,
    /// The number of the scrape in progress, from 1.
    scrape: u64,
    texts: Texts,
    /// By their labels.
    series: Numbered<Series>,
    /// Texts after the last good scrape.
    good_texts: usize,
    good_bytes: usize,
}

impl SeriesCache {
    /// An empty cache. The seed keeps a hostile target from choosing texts that collide.
    pub(crate) fn new(seed: u64) -> SeriesCache {
        let texts = Texts::new(seed);
        SeriesCache { seed, hasher: FixedState::with_seed(seed), texts, ..SeriesCache::default() }
    }

    /// The number of the scrape in progress.
    pub(crate) fn scrape(&self) -> u64 {
        self.scrape
    }

    /// Begins a scrape. Ids of the one before are not good any more.
    pub(crate) fn begin(&mut self) {
        if self.texts.has_excess_room() || self.series.has_excess_room() {
            // What is live goes into a cache of its size, which learns the texts anew.
            let smaller = SeriesCache::new(self.seed);
            let larger = std::mem::replace(self, smaller);
            self.inherit(&larger);
            self.scrape = larger.scrape;
        }
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
        if self.has_room_to_spare() {
            self.texts.add(text, Known::Dropped);
        }
    }

    fn has_room_to_spare(&self) -> bool {
        self.texts.len() < self.series.len() + SPARE_TEXTS_MAX
    }

    /// Remembers that `text` stands for `labels`, and says whether the labels are new.
    pub(crate) fn add(&mut self, text: &[u8], labels: Labels) -> (SeriesId, bool) {
        let (id, is_new) = self.add_series(labels.spelled().into());
        // What has a sample at the scrape's time is kept by that.
        if self.series[id.0].sampled != self.scrape || self.has_room_to_spare() {
            self.series[id.0].texts += 1;
            self.texts.add(text, Known::Series(id));
        }
        (id, is_new)
    }

    fn add_series(&mut self, labels: Bytes) -> (SeriesId, bool) {
        let hash = self.hasher.hash_one(&labels[..]);
        if let Some(number) = self.series.find(hash, |known| known.labels == labels) {
            return (SeriesId(number), false);
        }
        let new = Series { labels, is_live: false, sampled: 0, tracked: 0, texts: 0 };
        (SeriesId(self.series.add(hash, new)), true)
    }

    /// The labels of a series, as [`RawLabels::Proto`](tidewatch_model::RawLabels::Proto) has them.
    pub(crate) fn labels(&self, id: SeriesId) -> &[u8] {
        &self.series[id.0].labels
    }

    /// Notes a sample of the series at the scrape's own time; `false` where there was one already.
    pub(crate) fn note_sample(&mut self, id: SeriesId) -> bool {
        let series = &mut self.series[id.0];
        series.tracked = self.scrape;
        std::mem::replace(&mut series.sampled, self.scrape) != self.scrape
    }

    /// Notes that the series is shown in a way that counts for staleness.
    pub(crate) fn track(&mut self, id: SeriesId) {
        self.series[id.0].tracked = self.scrape;
    }

    /// Ends a good scrape: gives the series that vanished, which are live no more, to `stale`.
    pub(crate) fn finish(&mut self, stale: &mut Vec<Bytes>) {
        let scrape = self.scrape;
        for series in self.series.iter_mut() {
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
        for series in self.series.iter_mut() {
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
        for series in predecessor.series.iter().filter(|series| series.is_live) {
            let (id, _) = self.add_series(series.labels.clone());
            self.series[id.0].is_live = true;
        }
    }

    #[cfg(test)]
    fn live_count(&self) -> usize {
        self.series.iter().filter(|series| series.is_live).count()
    }

    fn forget_unseen(&mut self) {
        let series = &mut self.series;
        self.texts.forget_unseen(|known| {
            if let Known::Series(id) = known {
                series[id.0].texts -= 1;
            }
        });
        self.series.forget(|series| series.texts == 0 && !series.is_live, drop);
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
        assert!(cache.texts.len() == 20 && cache.series.len() == 20, "{}", cache.series.len());
        for round in 0..500 {
            let values: Vec<String> = (0..20).map(|i| format!("bad {round}-{i}")).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            scrape(&mut cache, &values, false);
        }
        assert!(cache.texts.len() <= 1100 && cache.series.len() <= 1200, "{}", cache.texts.len());
    }

    // A target that once showed a lot must not keep for ever what that took.
    #[test]
    fn room_follows_what_the_target_shows() {
        let mut cache = SeriesCache::default();
        scrape(&mut cache, &["a", "b", "c"], true);
        let many: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        many.push("b");
        assert_eq!(scrape(&mut cache, &many, true), ["a", "c"]);
        assert_eq!(scrape(&mut cache, &["c", "b"], true).len(), 20_000);
        assert_eq!(scrape(&mut cache, &["c", "b"], true), [""; 0]);
        assert_eq!(scrape(&mut cache, &["c"], true), ["b"]);
        assert_eq!(cache.texts.len(), 1);
        let room = (cache.texts.room(), cache.series.room());
        assert!(room.0 < 5000 && room.1 < 5000, "{room:?}");
    }

    #[test]
    fn a_text_that_comes_again_takes_no_room_and_is_no_difference() {
        let mut cache = SeriesCache::default();
        for values in [vec!["a"; 100_000], ["a", "b", "a", "c", "b"].repeat(1000)] {
            scrape(&mut cache, &values, true);
            assert!(cache.texts.room() < 5000, "{}", cache.texts.room());
            cache.begin();
            assert!(values.iter().all(|value| cache.find(value.as_bytes()).is_some()));
            assert!(cache.texts.is_as_before());
        }
    }

    // Nothing limits how many spellings of one series a target may show.
    #[test]
    fn spellings_of_one_series_are_remembered_up_to_a_limit() {
        let mut cache = SeriesCache::default();
        let blank = |is_tab| if is_tab { '\t' } else { ' ' };
        let spelling =
            |i: usize| (0..18).map(|bit| blank(i >> bit & 1 == 1)).chain(['a']).collect::<String>();
        let spellings: Vec<String> = (0..SPARE_TEXTS_MAX + 50).map(spelling).collect();
        let spellings: Vec<&str> = spellings.iter().map(String::as_str).collect();
        for _ in 0..2 {
            assert_eq!(scrape(&mut cache, &spellings, true), [""; 0]);
            assert_eq!((cache.texts.len(), cache.series.len()), (SPARE_TEXTS_MAX + 1, 1));
        }
        assert_eq!(scrape(&mut cache, &spellings[SPARE_TEXTS_MAX + 10..], true), [""; 0]);
        assert_eq!(scrape(&mut cache, &["b"], true), ["a"]);
        assert_eq!((cache.texts.len(), cache.series.len()), (1, 1));
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
