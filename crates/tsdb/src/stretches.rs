//! Which blocks a cut makes: one for each stretch of two hours that has samples.
//!
//! ```text
//!              12:00             14:00             16:00
//!  samples       │     ·   · ·  ·  │                 │  ·
//!  blocks        │     [───────────)                 [─────────────────)
//! ```
//!
//! A block names a range, and blocks whose ranges overlap are merged. So the first begins with its oldest
//! sample: where the cut before ended in the middle of a stretch, or a compaction of all did, its block is left
//! alone, unless late samples came from before. The last ends with its stretch, wherever its samples
//! end: of one stretch come several blocks where series end, and they are to merge with one another.
//!
//! Not here: what is cut (`cut`, `stale`, `snapshot`).

use std::collections::BTreeSet;

use crate::options::BLOCK_MS;

/// Blocks that one cut may make: those of a backfill of five days.
const BLOCKS_MAX: usize = 64;

/// The stretches of some samples.
#[derive(Debug)]
pub(crate) struct Stretches {
    numbers: BTreeSet<i64>,
    oldest_ms: i64,
}

impl Stretches {
    pub(crate) fn new() -> Stretches {
        Stretches { numbers: BTreeSet::new(), oldest_ms: i64::MAX }
    }

    pub(crate) fn add(&mut self, time: i64) {
        self.numbers.insert(time.div_euclid(BLOCK_MS));
        self.oldest_ms = self.oldest_ms.min(time);
    }

    /// Adds times that ascend. Nearly always they are of one stretch.
    pub(crate) fn add_ascending(&mut self, times: &[i64]) {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return };
        self.add(*first);
        if first.div_euclid(BLOCK_MS) != last.div_euclid(BLOCK_MS) {
            times.iter().for_each(|time| self.add(*time));
        }
    }

    /// The ranges of the blocks, ascending; their ends are not included.
    pub(crate) fn ranges(self) -> impl Iterator<Item = (i64, i64)> {
        let (length_ms, numbers) = widen(BLOCK_MS, self.numbers);
        let start_ms = move |number: i64| number.saturating_mul(length_ms);
        numbers.into_iter().map(move |number| (start_ms(number).max(self.oldest_ms), start_ms(number + 1)))
    }
}

/// Samples may have any times, so they may lie in more stretches than there should be blocks:
/// then wider ones are taken.
pub(crate) fn widen(mut length_ms: i64, mut numbers: BTreeSet<i64>) -> (i64, BTreeSet<i64>) {
    while numbers.len() > BLOCKS_MAX {
        length_ms = length_ms.saturating_mul(3);
        numbers = numbers.into_iter().map(|number| number.div_euclid(3)).collect();
    }
    (length_ms, numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::append::TIME_MIN;

    #[test]
    fn scattered_times_make_few_blocks_and_no_number_too_large() {
        let times = (0..10_000i64).map(|i| TIME_MIN + i * (TIME_MIN.unsigned_abs() / 9000) as i64);
        let mut stretches = Stretches::new();
        times.clone().for_each(|time| stretches.add(time));
        let ranges: Vec<(i64, i64)> = stretches.ranges().collect();
        assert!(ranges.len() <= BLOCKS_MAX);
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:?}");
        for time in times {
            assert!(ranges.iter().any(|(start, end)| (*start..*end).contains(&time)), "{time}");
        }
    }

    /// Times and ranges in minutes.
    #[track_caller]
    fn check(times: &[i64], expected: &[(i64, i64)]) {
        const MINUTE: i64 = 60_000;
        let times: Vec<i64> = times.iter().map(|minute| minute * MINUTE).collect();
        let (mut stretches, mut alone) = (Stretches::new(), Stretches::new());
        stretches.add_ascending(&times);
        times.iter().rev().for_each(|time| alone.add(*time));
        let shown = |stretches: Stretches| -> Vec<(i64, i64)> {
            stretches.ranges().map(|(start, end)| (start / MINUTE, end / MINUTE)).collect()
        };
        assert_eq!(shown(stretches), expected);
        assert_eq!(shown(alone), expected);
    }

    #[test]
    fn the_first_block_begins_with_its_oldest_sample() {
        check(&[], &[]);
        check(&[0], &[(0, 120)]);
        check(&[7, 119], &[(7, 120)]);
        check(&[119, 120, 300], &[(119, 120), (120, 240), (240, 360)]);
        check(&[-1, 5], &[(-1, 0), (0, 120)]);
    }
}
