//! What a target says about its metric families.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use tidewatch_model::MetricType;

use crate::room;

/// Scrapes for which a family is remembered after the target stopped naming it.
const SCRAPES_KEPT: u64 = 10;
/// Bytes of families kept for one target; a family or a text that comes later is not taken up.
const BYTES_MAX: usize = 8 << 20;
/// What a family takes beside its name, help and unit.
const FAMILY_BYTES: usize = 128;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) kind: MetricType,
    pub(crate) help: String,
    pub(crate) unit: String,
    /// The scrape that named it last.
    seen: u64,
    /// Whether this has not been given to the store yet.
    is_news: bool,
}

#[derive(Debug, Default)]
pub(crate) struct MetadataStore {
    families: HashMap<String, Family, FixedState>,
    bytes: usize,
    /// Whether some family is news.
    has_news: bool,
    /// The last scrape whose metadata was read. Until the next all have named the same families.
    read: u64,
    /// Whether there are families that it did not name.
    is_aging: bool,
}

impl MetadataStore {
    /// An empty store. The seed keeps a hostile target from choosing names that collide.
    pub(crate) fn new(seed: u64) -> MetadataStore {
        MetadataStore {
            families: HashMap::with_hasher(FixedState::with_seed(seed)),
            ..MetadataStore::default()
        }
    }

    /// The metadata of this scrape is read, as it is not that of the scrape before. To be said before any of it.
    pub(crate) fn begin(&mut self, scrape: u64) {
        let read = std::mem::replace(&mut self.read, scrape);
        if read + 1 < scrape {
            // What the last one that was read named was named by all since.
            let named = self.families.values_mut().filter(|family| family.seen == read);
            named.for_each(|family| family.seen = scrape - 1);
        }
    }

    pub(crate) fn set_kind(&mut self, family: &[u8], kind: MetricType, scrape: u64) {
        self.update(family, scrape, |known, _| {
            known.is_news |= known.kind != kind;
            known.kind = kind;
        });
    }

    pub(crate) fn set_help(&mut self, family: &[u8], help: &str, scrape: u64) {
        self.update(family, scrape, |known, room| known.is_news |= set_text(&mut known.help, help, room));
    }

    pub(crate) fn set_unit(&mut self, family: &[u8], unit: &[u8], scrape: u64) {
        let unit = std::str::from_utf8(unit).unwrap_or_default();
        self.update(family, scrape, |known, room| known.is_news |= set_text(&mut known.unit, unit, room));
    }

    /// Notes that a family is named, and has it changed. `change` is told how many bytes there is room for.
    fn update(&mut self, family: &[u8], scrape: u64, change: impl FnOnce(&mut Family, usize)) {
        let Ok(family) = std::str::from_utf8(family) else { return };
        if !self.families.contains_key(family) {
            let new = Family { is_news: true, ..Family::default() };
            let bytes = bytes_of(family, &new);
            if self.bytes + bytes > BYTES_MAX {
                return;
            }
            self.bytes += bytes;
            self.families.insert(family.to_owned(), new);
        }
        let known = self.families.get_mut(family).expect("added above");
        let (room, before) = (BYTES_MAX - self.bytes, bytes_of(family, known));
        known.seen = scrape;
        change(known, room);
        self.has_news |= known.is_news;
        self.bytes = self.bytes - before + bytes_of(family, known);
    }

    /// Gives what has changed since the last time.
    pub(crate) fn take_news(&mut self) -> Vec<(String, Family)> {
        if !std::mem::take(&mut self.has_news) {
            return Vec::new();
        }
        let news = self.families.iter_mut().filter(|(_, family)| family.is_news);
        let mut news: Vec<_> = news
            .map(|(name, family)| {
                family.is_news = false;
                (name.clone(), family.clone())
            })
            .collect();
        news.sort_by(|a, b| a.0.cmp(&b.0));
        news
    }

    /// Ends a scrape, read or not: forgets what was not named for a while.
    pub(crate) fn finish(&mut self, scrape: u64) {
        if self.read < scrape && !self.is_aging {
            return;
        }
        let (bytes, read) = (&mut self.bytes, self.read);
        self.is_aging = false;
        self.families.retain(|name, known| {
            let is_named = known.seen == read;
            let keep = is_named || scrape - known.seen <= SCRAPES_KEPT;
            if !keep {
                *bytes -= bytes_of(name, known);
            }
            self.is_aging |= keep && !is_named;
            keep
        });
        if room::is_excess(self.families.capacity(), self.families.len()) {
            self.families.shrink_to_fit();
        }
    }

    /// All families in the order of their names.
    pub(crate) fn list(&self) -> Vec<(&str, &Family)> {
        let mut families: Vec<_> =
            self.families.iter().map(|(name, family)| (name.as_str(), family)).collect();
        families.sort_by_key(|(name, _)| *name);
        families
    }
}

/// Whether a text is another now: that it stays where there is no room for more is no news.
fn set_text(text: &mut String, new: &str, room: usize) -> bool {
    let is_news = text != new && new.len() <= text.len() + room;
    if is_news {
        // Not into the room of a longer one, which would stay.
        *text = new.to_owned();
    }
    is_news
}

fn bytes_of(name: &str, family: &Family) -> usize {
    FAMILY_BYTES + name.len() + family.help.len() + family.unit.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_kept_for_a_while_and_within_their_budget() {
        let mut store = MetadataStore::default();
        store.begin(1);
        store.set_kind(b"up", MetricType::Gauge, 1);
        store.set_help(b"up", "Whether it is up.", 1);
        store.begin(9);
        store.set_help(b"other", "Stays.", 9);
        // Named by those that were not read, too.
        store.finish(10);
        store.finish(18);
        assert_eq!(store.list().len(), 2);
        store.begin(19);
        assert_eq!(store.list().len(), 2);
        store.finish(19);
        assert_eq!(store.list().iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["other"]);
        assert_eq!(store.bytes, FAMILY_BYTES + "otherStays.".len());

        assert_eq!(store.take_news().len(), 1);
        store.set_help(b"other", "Stays.", 19);
        assert_eq!(store.take_news(), []);
        store.set_kind(b"other", MetricType::Info, 19);
        assert_eq!(store.take_news().len(), 1);

        store.set_help(b"other", &"x".repeat(BYTES_MAX), 19);
        assert_eq!(store.list()[0].1.help, "Stays.");
        store.set_help(b"other", &"x".repeat(BYTES_MAX / 2), 19);
        store.set_help(b"other", "Short.", 19);
        assert!(store.families["other"].help.capacity() < 100);
    }

    #[test]
    fn many_small_families_are_bounded_and_leave_no_room_behind() {
        let mut store = MetadataStore::default();
        store.begin(1);
        (0..100_000).for_each(|i| store.set_kind(format!("{i}").as_bytes(), MetricType::Gauge, 1));
        let count = store.list().len();
        assert!((50_000..BYTES_MAX / FAMILY_BYTES).contains(&count), "{count}");
        // What is named again is kept, though there is no room for more.
        store.begin(2);
        (0..100_000).for_each(|i| store.set_kind(format!("{i}").as_bytes(), MetricType::Gauge, 2));
        store.finish(2);
        store.finish(12);
        assert_eq!(store.list().len(), count);
        for scrape in 13..=30 {
            store.begin(scrape);
            store.set_kind(b"9", MetricType::Gauge, scrape);
            store.finish(scrape);
        }
        assert_eq!((store.list().len(), store.bytes), (1, FAMILY_BYTES + 1));
        assert!(store.families.capacity() < 5000, "{}", store.families.capacity());
    }
}
