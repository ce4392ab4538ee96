//! When each target is due, and which time its samples get.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use foldhash::fast::FixedState;

const NS_PER_MS: u64 = 1_000_000;

/// How late a scrape may begin and still carry the time at which it should have begun.
const TOLERANCE_MS: i64 = 2;

/// Names an entry of the schedule; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EntryId(pub(crate) u64);

/// Where in each interval a target has its place, so that many targets spread evenly and each
/// keeps its place over a restart: milliseconds from a multiple of the interval.
pub(crate) fn place_in_interval(identity: u64, seed: u64, interval_ms: i64) -> i64 {
    ((identity ^ seed) % interval_ms as u64) as i64
}

/// FNV-1a over the parts: the same in each release, as a target's place should be.
pub(crate) fn identity(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().copied().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The timestamps of one target's scrapes. Timers are late by fractions of a millisecond, which
/// would cost the store bytes for every sample: a scrape that is late by no more than the
/// tolerance, or a hundredth of the interval, carries the time it was due at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alignment {
    interval_ms: i64,
    /// The last aligned time; `None` before the first scrape, which begins the series of times.
    last_ms: Option<i64>,
}

impl Alignment {
    pub(crate) fn new(interval_ms: i64) -> Alignment {
        Alignment { interval_ms, last_ms: None }
    }

    pub(crate) fn stamp(&mut self, wall_ms: i64) -> i64 {
        let tolerance_ms = (self.interval_ms / 100).min(TOLERANCE_MS);
        let mut aligned_ms = self.last_ms.unwrap_or(wall_ms);
        if wall_ms > aligned_ms {
            aligned_ms += (wall_ms - aligned_ms) / self.interval_ms * self.interval_ms;
        }
        // The clock was set back: the old times would lie in the future for as long as it was.
        if wall_ms < aligned_ms - tolerance_ms {
            aligned_ms = wall_ms;
        }
        self.last_ms = Some(aligned_ms);
        if wall_ms - aligned_ms <= tolerance_ms { aligned_ms } else { wall_ms }
    }
}

/// One entry's times. Monotonic, so that a clock that is set does not stop or crowd scrapes.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) due_ns: u64,
    pub(crate) alignment: Alignment,
    /// Taken by [`Schedule::due`] and not yet given back by [`Schedule::reschedule`].
    pub(crate) is_taken: bool,
}

/// All entries by the time they are due.
///
/// Invariant: each slot that is not taken has one heap item with its time; other heap items are
/// leftovers and skipped.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    slots: HashMap<EntryId, Slot, FixedState>,
    heap: BinaryHeap<Reverse<(u64, EntryId)>>,
    next_id: u64,
}

impl Schedule {
    pub(crate) fn add(&mut self, due_ns: u64, alignment: Alignment) -> EntryId {
        let id = EntryId(self.next_id);
        self.next_id += 1;
        self.slots.insert(id, Slot { due_ns, alignment, is_taken: false });
        self.heap.push(Reverse((due_ns, id)));
        id
    }

    pub(crate) fn remove(&mut self, id: EntryId) -> Option<Slot> {
        self.slots.remove(&id)
    }

    /// When the next entry is due.
    pub(crate) fn next_ns(&mut self) -> Option<u64> {
        while let Some(Reverse((due_ns, id))) = self.heap.peek() {
            if self.slots.get(id).is_some_and(|slot| !slot.is_taken && slot.due_ns == *due_ns) {
                return Some(*due_ns);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes one entry that is due, with the timestamp for its samples.
    pub(crate) fn take_due(&mut self, now_ns: u64, wall_ms: i64) -> Option<(EntryId, i64)> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let Reverse((_, id)) = self.heap.pop()?;
        let slot = self.slots.get_mut(&id)?;
        slot.is_taken = true;
        Some((id, slot.alignment.stamp(wall_ms)))
    }

    /// Gives an entry back. It is due an interval after it was due before; times that have
    /// passed meanwhile are left out but for one, as a ticker does.
    pub(crate) fn reschedule(&mut self, id: EntryId, now_ns: u64) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let interval_ns = slot.alignment.interval_ms as u64 * NS_PER_MS;
        let passed = now_ns.saturating_sub(slot.due_ns) / interval_ns;
        slot.due_ns += passed.max(1) * interval_ns;
        slot.is_taken = false;
        self.heap.push(Reverse((slot.due_ns, id)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1000 * NS_PER_MS;

    #[test]
    fn late_scrapes_carry_their_due_time_within_the_tolerance() {
        let mut alignment = Alignment::new(10_000);
        let walls = [1_000, 11_001, 21_002, 31_003, 41_000, 75_500, 81_001];
        let stamps = walls.map(|wall_ms| alignment.stamp(wall_ms));
        assert_eq!(stamps, [1_000, 11_000, 21_000, 31_003, 41_000, 75_500, 81_000]);
    }

    #[test]
    fn a_clock_that_is_set_back_begins_anew() {
        let mut alignment = Alignment::new(10_000);
        assert_eq!(
            [100_000, 50_000, 60_001].map(|wall_ms| alignment.stamp(wall_ms)),
            [100_000, 50_000, 60_000]
        );
    }

    #[test]
    fn entries_come_when_due_and_missed_times_are_left_out() {
        let mut schedule = Schedule::default();
        let a = schedule.add(SECOND, Alignment::new(1_000));
        let b = schedule.add(3 * SECOND, Alignment::new(5_000));
        assert_eq!(schedule.take_due(SECOND - 1, 0), None);
        assert_eq!(schedule.take_due(SECOND, 1_000), Some((a, 1_000)));
        assert_eq!(schedule.take_due(3 * SECOND, 3_000), Some((b, 3_000)));
        assert_eq!(schedule.next_ns(), None);
        // Back at once: due at 2 s. Back late: one missed time at once, the others left out.
        schedule.reschedule(a, SECOND + 1);
        assert_eq!(schedule.next_ns(), Some(2 * SECOND));
        assert_eq!(schedule.take_due(2 * SECOND, 2_000), Some((a, 2_000)));
        schedule.reschedule(a, 5 * SECOND + SECOND / 2);
        assert_eq!(schedule.next_ns(), Some(5 * SECOND));
        schedule.remove(a);
        assert_eq!(schedule.next_ns(), None);
        schedule.reschedule(b, 4 * SECOND);
        assert_eq!(schedule.next_ns(), Some(8 * SECOND));
    }

    #[test]
    fn many_targets_spread_over_their_interval() {
        let places: Vec<i64> = (0..1000)
            .map(|i| place_in_interval(identity(&[b"job", format!("host{i}:9100").as_bytes()]), 7, 15_000))
            .collect();
        let mut seconds = [0; 15];
        places.iter().for_each(|place_ms| seconds[(place_ms / 1000) as usize] += 1);
        assert!(seconds.iter().all(|count| (30..110).contains(count)), "{seconds:?}");
    }
}
