//! From the hash of label bytes to the series that probably has them.
//!
//! A table of parts, chosen by bits of the hash: a start fills them side by side, each within a cache,
//! and a part that grows makes a request wait for one of sixteen.
//!
//! Invariant: a slot has the half of its series' hash that chooses part and bucket, so that nothing
//! is hashed again when a part grows.
//!
//! Not here: whether the labels are equal (`registry`).

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tidewatch_env::{Job, Parallel};

use super::SeriesId;

const PART_BITS: u32 = 4;
const PARTS: usize = 1 << PART_BITS;

/// One entry: enough of the hash to grow without hashing again.
#[derive(Debug, Clone, Copy)]
struct Slot {
    tag: u32,
    id: SeriesId,
}

impl Slot {
    fn new(hash: u64, id: SeriesId) -> Slot {
        Slot { tag: tag(hash), id }
    }

    /// Which part has the slots with this tag.
    #[inline]
    fn part(tag: u32) -> usize {
        (tag >> (u32::BITS - PART_BITS)) as usize
    }

    /// The hash within the part: hashbrown takes its bucket from the low and its filter from the top bits.
    #[inline]
    fn spread(tag: u32) -> u64 {
        u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[inline]
fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Series by the hashes of their labels.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    parts: [HashTable<Slot>; PARTS],
}

/// Slots on their way into a table, by its parts.
#[derive(Debug, Default)]
pub(super) struct Slots([Vec<Slot>; PARTS]);

impl Slots {
    /// Room for so many slots in all.
    pub(super) fn reserve(&mut self, slots: usize) {
        // Parts differ little in size: the hash spreads well.
        let each = slots / PARTS + slots / PARTS / 8;
        self.0.iter_mut().for_each(|part| part.reserve(each));
    }

    #[inline]
    pub(super) fn push(&mut self, hash: u64, id: SeriesId) {
        self.0[Slot::part(tag(hash))].push(Slot::new(hash, id));
    }
}

impl SeriesTable {
    /// The first series with this hash that `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(SeriesId) -> bool) -> Option<SeriesId> {
        let tag = tag(hash);
        let same = |slot: &Slot| slot.tag == tag && is_it(slot.id);
        self.parts[Slot::part(tag)].find(Slot::spread(tag), same).map(|slot| slot.id)
    }

    pub(super) fn insert(&mut self, hash: u64, id: SeriesId) {
        let slot = Slot::new(hash, id);
        self.parts[Slot::part(slot.tag)]
            .insert_unique(Slot::spread(slot.tag), slot, |slot| Slot::spread(slot.tag));
    }

    pub(super) fn retain(&mut self, keep: impl Fn(SeriesId) -> bool) {
        self.parts.iter_mut().for_each(|part| part.retain(|slot| keep(slot.id)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Series, and other spellings of theirs.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.parts.iter().map(HashTable::allocation_size).sum()
    }

    /// A table of slots that come in stretches, and the series for which a newer one stands there: one
    /// of which `are_equal` says that it has the same labels.
    pub(super) fn of(
        stretches: &[Slots],
        are_equal: &(dyn Fn(SeriesId, SeriesId) -> bool + Sync),
        parallel: &dyn Parallel,
    ) -> (SeriesTable, Vec<SeriesId>) {
        let mut table = SeriesTable::default();
        let mut outdated: [Vec<SeriesId>; PARTS] = Default::default();
        let parts = table.parts.iter_mut().zip(&mut outdated).enumerate();
        let jobs = parts.map(|(at, (part, outdated))| {
            let job: Job<'_> = Box::new(move || {
                let slots = stretches.iter().map(|slots| &slots.0[at]);
                *part = fill(slots, are_equal, outdated);
            });
            job
        });
        parallel.run(jobs.collect());
        (table, outdated.concat())
    }
}

/// One part, which, with its size known, does not grow on the way.
fn fill<'a>(
    slots: impl Iterator<Item = &'a Vec<Slot>> + Clone,
    are_equal: &dyn Fn(SeriesId, SeriesId) -> bool,
    outdated: &mut Vec<SeriesId>,
) -> HashTable<Slot> {
    let mut part: HashTable<Slot> = HashTable::with_capacity(slots.clone().map(Vec::len).sum());
    for slot in slots.flatten() {
        let same = |have: &Slot| have.tag == slot.tag && are_equal(have.id, slot.id);
        match part.entry(Slot::spread(slot.tag), same, |slot| Slot::spread(slot.tag)) {
            Entry::Vacant(place) => drop(place.insert(*slot)),
            Entry::Occupied(mut older) => outdated.push(std::mem::replace(older.get_mut(), *slot).id),
        }
    }
    part
}
