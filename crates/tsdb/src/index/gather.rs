//! Lists of all series at once: what a start has to make.
//!
//! ```text
//! series  1 2 3 4 5      pairs of neighbours at the same place are mostly the same, so a list gets
//! place 0 a a a a a ─►   ranges: a 1..=5, b 1..=2, c 3..=5 and so on; they are sorted by pair, and
//! place 1 b b c c c      each list takes its own in one go
//! ```
//!
//! Not here: lists that grow series by series (`mem`).

use std::ops::{Range, RangeInclusive};

/// Ids whose lists are gathered at a time: what is gathered stays in the cache, a bitmap has a
/// container for as many, and two bytes say which.
const STRETCH: u32 = 1 << 16;

/// A range of ids, both ends included, behind the first id of a stretch.
type Ids = (u16, u16);

/// The lists of one stretch of ids.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    first: u32,
    alive: Vec<Ids>,
    /// All ranges, by their pairs.
    ranges: Vec<Ids>,
    /// By pair: where its ranges end.
    ends: Vec<u32>,
    /// Ranges in the order in which they ended.
    runs: Vec<(u32, Ids)>,
}

impl Gathered {
    /// Gathers the series of `ids`, each with the pairs that `pairs_of` gives, stretch by stretch; a
    /// series without pairs is none.
    pub(super) fn each<'a, P: Copy + Eq + Into<u32> + 'a>(
        ids: Range<u32>,
        pairs_of: impl Fn(u32) -> &'a [P],
        mut take: impl FnMut(&Gathered),
    ) {
        let mut gathered = Gathered::default();
        for first in ids.clone().step_by(STRETCH as usize) {
            gathered.first = first;
            gathered.walk(first..ids.end.min(first.saturating_add(STRETCH)), &pairs_of);
            gathered.sort();
            take(&gathered);
        }
    }

    /// Finds where the pair of each place changes, and notes the ranges between.
    fn walk<'a, P: Copy + Eq + Into<u32> + 'a>(
        &mut self,
        ids: Range<u32>,
        pairs_of: impl Fn(u32) -> &'a [P],
    ) {
        let Gathered { first, alive, ends, runs, .. } = self;
        alive.clear();
        runs.clear();
        ends.fill(0);
        let mut end = |(pair, since): (P, u16), last: u16| {
            let pair: u32 = pair.into();
            let at = pair as usize;
            if ends.len() <= at {
                ends.resize(at + 1, 0);
            }
            ends[at] += 1;
            runs.push((pair, (since, last)));
        };
        // The pairs of the series before, and since when their places have had them.
        let mut places: Vec<(P, u16)> = Vec::new();
        let mut before = 0;
        for id in ids {
            let at = (id - *first) as u16;
            let pairs = pairs_of(id);
            match alive.last_mut() {
                _ if pairs.is_empty() => {}
                Some((_, last)) if !places.is_empty() => *last = at,
                _ => alive.push((at, at)),
            }
            for (place, pair) in places.iter_mut().zip(pairs) {
                if place.0 != *pair {
                    end(std::mem::replace(place, (*pair, at)), before);
                }
            }
            places.drain(pairs.len().min(places.len())..).for_each(|place| end(place, before));
            places.extend(pairs[places.len()..].iter().map(|pair| (*pair, at)));
            before = at;
        }
        places.drain(..).for_each(|place| end(place, before));
    }

    /// Sorts the ranges by pair, by counting; they ascend already.
    fn sort(&mut self) {
        let Gathered { ranges, ends, runs, .. } = self;
        let mut sum = 0;
        for end in ends.iter_mut() {
            sum += std::mem::replace(end, sum);
        }
        ranges.resize(runs.len(), (0, 0));
        for (pair, ids) in runs {
            // The start of a pair's ranges moves to their end.
            let place = &mut ends[*pair as usize];
            ranges[*place as usize] = *ids;
            *place += 1;
        }
    }

    /// How many pairs there are at most.
    pub(super) fn pair_count(&self) -> usize {
        self.ends.len()
    }

    /// The ids of all series.
    pub(super) fn alive(&self) -> impl Iterator<Item = RangeInclusive<u32>> + Clone {
        self.ranges_of(&self.alive)
    }

    /// The ids of each pair in turn, ascending; of many pairs there are none.
    pub(super) fn lists(&self) -> impl Iterator<Item = impl Iterator<Item = RangeInclusive<u32>> + Clone> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let ranges = start..*end as usize;
            start = ranges.end;
            self.ranges_of(&self.ranges[ranges])
        })
    }

    fn ranges_of<'a>(
        &self,
        ranges: &'a [Ids],
    ) -> impl Iterator<Item = RangeInclusive<u32>> + Clone + use<'a> {
        let first = self.first;
        ranges.iter().map(move |(start, end)| first + u32::from(*start)..=first + u32::from(*end))
    }
}
