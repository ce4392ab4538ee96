//! What waits for one receiver.

use std::collections::{BTreeMap, HashMap};

use tidewatch_model::Labels;

use crate::alert::Waiting;

/// After a failure the first wait, and the longest one; each doubles the one before.
const BACKOFF_MIN_MS: i64 = 1_000;
const BACKOFF_MAX_MS: i64 = 30_000;

/// The alerts for one address, in the order in which they first came. Of an alert only the newest
/// state waits.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: BTreeMap<u64, Entry>,
    /// The place in `entries` of the alert with these labels.
    places: HashMap<Labels, u64>,
    next_place: u64,
    /// What the request on its way holds: places, and the entries that stood there.
    in_flight: Option<Vec<(u64, u64)>>,
    /// Sum of the entries' sizes.
    bytes: usize,
    failures_in_row: u32,
    /// No request before this time.
    not_before_ms: i64,
}

#[derive(Debug)]
pub(crate) struct Entry {
    /// The outbox's name for it; a newer state has a newer one.
    pub(crate) id: u64,
    pub(crate) waiting: Waiting,
    pub(crate) size: usize,
    /// A batch with it was refused: it goes alone, so that a bad alert holds up no other.
    alone: bool,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> {
        self.entries.values().map(|entry| entry.id)
    }

    /// Adds an alert, or replaces its older state, whose id is returned.
    pub(crate) fn put(&mut self, id: u64, waiting: Waiting, size: usize) -> Option<u64> {
        self.bytes += size;
        let place = *self.places.entry(waiting.alert.labels.clone()).or_insert(self.next_place);
        self.next_place += u64::from(place == self.next_place);
        let old = self.entries.insert(place, Entry { id, waiting, size, alone: false })?;
        self.bytes -= old.size;
        Some(old.id)
    }

    /// Drops the alert that has waited for longest, to make room.
    pub(crate) fn drop_oldest(&mut self) -> Option<u64> {
        let place = *self.entries.keys().next()?;
        self.remove(place)
    }

    fn remove(&mut self, place: u64) -> Option<u64> {
        let entry = self.entries.remove(&place)?;
        self.places.remove(&entry.waiting.alert.labels);
        self.bytes -= entry.size;
        Some(entry.id)
    }

    /// When a request can be made; `None` while there is nothing to send or one is on its way.
    pub(crate) fn due_ms(&self) -> Option<i64> {
        (self.in_flight.is_none() && !self.entries.is_empty()).then_some(self.not_before_ms)
    }

    /// The alerts of the next request, which is on its way from now on.
    pub(crate) fn take_batch(&mut self, count_max: usize) -> Vec<&Waiting> {
        let first_alone = self.entries.values().next().is_some_and(|entry| entry.alone);
        let count = if first_alone { 1 } else { count_max };
        let batch: Vec<(&u64, &Entry)> =
            self.entries.iter().take(count).take_while(|(_, entry)| first_alone || !entry.alone).collect();
        self.in_flight = Some(batch.iter().map(|(place, entry)| (**place, entry.id)).collect());
        batch.into_iter().map(|(_, entry)| &entry.waiting).collect()
    }

    /// The request arrived: what it held is done, unless a newer state came meanwhile.
    pub(crate) fn delivered(&mut self, now_ms: i64) -> Vec<u64> {
        (self.failures_in_row, self.not_before_ms) = (0, now_ms);
        let batch = self.in_flight.take().unwrap_or_default();
        let same = |entries: &BTreeMap<u64, Entry>, place, id| {
            entries.get(&place).is_some_and(|entry: &Entry| entry.id == id)
        };
        batch
            .into_iter()
            .filter_map(|(place, id)| if same(&self.entries, place, id) { self.remove(place) } else { None })
            .collect()
    }

    /// The receiver refused what the request held. Of several alerts each is tried alone; one that
    /// was alone is dropped. Returns what was dropped.
    pub(crate) fn refused(&mut self, now_ms: i64) -> Vec<u64> {
        if self.in_flight.as_ref().is_none_or(|batch| batch.len() <= 1) {
            return self.delivered(now_ms);
        }
        for (place, _) in self.in_flight.take().unwrap_or_default() {
            if let Some(entry) = self.entries.get_mut(&place) {
                entry.alone = true;
            }
        }
        (self.failures_in_row, self.not_before_ms) = (0, now_ms);
        Vec::new()
    }

    /// The request did not arrive, or the receiver could not take it: later again.
    pub(crate) fn failed(&mut self, now_ms: i64) {
        self.in_flight = None;
        let wait_ms = (BACKOFF_MIN_MS << self.failures_in_row.min(10)).min(BACKOFF_MAX_MS);
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        self.not_before_ms = now_ms + wait_ms;
    }
}
