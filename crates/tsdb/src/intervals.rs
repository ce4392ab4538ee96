//! Stretches of time in which what was stored is deleted.
//!
//! Plain values: who holds them says which samples they are about.

use std::ops::Range;

use tidewatch_storage::TimeRange;

/// Ascending stretches, both ends included, that neither meet nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intervals(Vec<TimeRange>);

impl Intervals {
    /// Adds a stretch; an empty one is nothing. Returns whether that changed anything.
    pub(crate) fn add(&mut self, range: TimeRange) -> bool {
        if range.start > range.end || self.covers(range) {
            return false;
        }
        // Those that the new one meets or overlaps become one with it.
        let from = self.0.partition_point(|known| known.end < range.start.saturating_sub(1));
        let until = self.0.partition_point(|known| known.start <= range.end.saturating_add(1)).max(from);
        let mut whole = range;
        for known in &self.0[from..until] {
            whole.start = whole.start.min(known.start);
            whole.end = whole.end.max(known.end);
        }
        self.0.splice(from..until, [whole]);
        true
    }

    pub(crate) fn contains(&self, time: i64) -> bool {
        self.covers(TimeRange { start: time, end: time })
    }

    /// Whether all of a stretch is deleted.
    pub(crate) fn covers(&self, range: TimeRange) -> bool {
        let at = self.0.partition_point(|known| known.end < range.end);
        self.0.get(at).is_some_and(|known| known.start <= range.start)
    }

    /// The newest time before `time` that is not deleted, if `time` is; `None` where it is not.
    pub(crate) fn skip_back(&self, time: i64) -> Option<i64> {
        let at = self.0.partition_point(|known| known.end < time);
        let known = self.0.get(at).filter(|known| known.start <= time)?;
        Some(known.start.saturating_sub(1))
    }

    /// The rows of ascending `times` that are left, as ranges that ascend.
    pub(crate) fn kept(&self, times: &[i64]) -> impl Iterator<Item = Range<usize>> {
        let mut at = 0;
        let mut deleted = self.0.iter();
        std::iter::from_fn(move || {
            while at < times.len() {
                let start = at;
                let end = match deleted.next() {
                    Some(gap) => {
                        let end = start + times[start..].partition_point(|time| *time < gap.start);
                        at = end + times[end..].partition_point(|time| *time <= gap.end);
                        end
                    }
                    None => {
                        at = times.len();
                        at
                    }
                };
                if start < end {
                    return Some(start..end);
                }
            }
            None
        })
    }

    /// What is left of a stretch, as stretches that ascend.
    pub(crate) fn kept_of(&self, range: TimeRange) -> Vec<TimeRange> {
        let (mut kept, mut start) = (Vec::new(), Some(range.start));
        for gap in self.0.iter().filter(|gap| gap.end >= range.start && gap.start <= range.end) {
            if let Some(start) = start.filter(|start| *start < gap.start) {
                kept.push(TimeRange { start, end: gap.start - 1 });
            }
            start = gap.end.checked_add(1);
        }
        kept.extend(
            start.filter(|start| *start <= range.end).map(|start| TimeRange { start, end: range.end }),
        );
        kept
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = TimeRange> + '_ {
        self.0.iter().copied()
    }

    /// The end of the last stretch.
    pub(crate) fn last_ms(&self) -> Option<i64> {
        self.0.last().map(|range| range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange { start, end }
    }

    #[test]
    fn the_ends_of_all_time_can_be_deleted() {
        let mut all = Intervals::default();
        assert!(all.add(range(i64::MAX, i64::MAX)));
        assert!(all.add(range(i64::MIN, 5)));
        assert_eq!(all.skip_back(3), Some(i64::MIN));
        assert!(all.add(range(i64::MIN, i64::MAX)));
        assert_eq!(all.iter().collect::<Vec<_>>(), [range(i64::MIN, i64::MAX)]);
        assert_eq!(all.kept_of(range(i64::MIN, i64::MAX)), []);
        assert_eq!(all.kept(&[i64::MIN, 0, i64::MAX]).count(), 0);
        assert!(!all.add(range(1, 0)));
    }

    proptest! {
        #[test]
        fn intervals_know_what_a_set_of_times_knows(
            added in proptest::collection::vec((0..40i64, 0..8i64), 0..12),
            times in proptest::collection::btree_set(0..48i64, 0..30),
        ) {
            let mut intervals = Intervals::default();
            let mut set = std::collections::BTreeSet::new();
            for (start, len) in added {
                let before = set.len();
                set.extend(start..start + len);
                prop_assert_eq!(intervals.add(range(start, start + len - 1)), set.len() > before);
            }
            let apart = intervals.0.windows(2).all(|pair| pair[0].end + 1 < pair[1].start);
            prop_assert!(apart, "{:?}", intervals);
            for time in 0..48 {
                prop_assert_eq!(intervals.contains(time), set.contains(&time));
                let before = (-1..time).rev().find(|t| !set.contains(t));
                prop_assert_eq!(intervals.skip_back(time), before.filter(|_| set.contains(&time)));
            }
            let times: Vec<i64> = times.into_iter().collect();
            let kept: Vec<i64> = intervals.kept(&times).flat_map(|rows| times[rows].to_vec()).collect();
            let expected: Vec<i64> = times.iter().copied().filter(|t| !set.contains(t)).collect();
            prop_assert_eq!(kept, expected);
            let kept: Vec<i64> =
                intervals.kept_of(range(3, 44)).iter().flat_map(|part| part.start..=part.end).collect();
            let expected: Vec<i64> = (3..=44).filter(|t| !set.contains(t)).collect();
            prop_assert_eq!(kept, expected);
        }
    }
}
