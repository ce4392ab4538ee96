//! The series of a request: from label bytes to ids, most of them without a hash.
//!
//! ```text
//! labels ─► as those of the id after the one before? ─► found
//!            └─ no ─► hash ─► table: a few at once, the rest of a block together
//! ```
//!
//! Senders repeat themselves, and ids are given out in the order of the first request. So a series
//! mostly follows the one that it followed then, and its labels lie beside those just read; comparing
//! them takes a fraction of what it takes to hash them and to wait for the table's memory.
//!
//! Invariants: an id is found only where the labels are equal, whichever way it was found.
//!
//! Not here: series that nobody knows (`registry::define`).

use tidewatch_model::{Batch, BatchSeries, RawLabels};

use super::registry::{Registry, SeriesId};

/// A series that was refused, or not looked up yet.
pub(crate) const UNKNOWN: SeriesId = SeriesId(u32::MAX);

/// Series that are looked up together.
const BLOCK: usize = 64;

/// How often a block's order may differ from that of the ids before the rest of it goes through
/// the table.
const JUMPS_MAX: usize = 4;

/// The ids of a batch's series, and memory to find them.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) ids: Vec<SeriesId>,
    /// Hashes of the labels of the series that are not known.
    pub(crate) hashes: Vec<u64>,
    /// Series of a block that go through the table together, with their hashes.
    strays: Vec<(u32, u64)>,
}

impl Found {
    /// Looks up every series; returns how many are not known.
    pub(crate) fn find_all(&mut self, registry: &Registry, batch: &Batch<'_>) -> usize {
        let Found { ids, hashes, strays } = self;
        ids.clear();
        hashes.clear();
        hashes.resize(batch.series.len(), 0);
        let mut likely = Likely { next: UNKNOWN, other: UNKNOWN };
        let mut unknown = 0;
        for block in batch.series.chunks(BLOCK) {
            strays.clear();
            let mut jumps = 0;
            for series in block {
                let labels = &series.labels;
                if jumps <= JUMPS_MAX
                    && let Some(id) = likely.find(registry, labels)
                {
                    ids.push(id);
                    continue;
                }
                let (at, hash) = (ids.len(), registry.hasher().hash(labels.bytes()));
                hashes[at] = hash;
                jumps += 1;
                if jumps > JUMPS_MAX {
                    strays.push((at as u32, hash));
                    ids.push(UNKNOWN);
                    continue;
                }
                let found = registry.find(hash, labels);
                found.into_iter().for_each(|id| likely.jump_behind(id));
                unknown += usize::from(found.is_none());
                ids.push(found.unwrap_or(UNKNOWN));
            }
            unknown += find_strays(registry, &batch.series, strays, ids);
        }
        unknown
    }
}

/// Looks series up in the table; returns how many it does not have.
fn find_strays(
    registry: &Registry,
    series: &[BatchSeries<'_>],
    strays: &[(u32, u64)],
    ids: &mut [SeriesId],
) -> usize {
    // Nothing but the table first, so that the processor waits for many of its entries at once.
    for (at, hash) in strays {
        ids[*at as usize] = registry.candidate(*hash).unwrap_or(UNKNOWN);
    }
    let mut unknown = 0;
    for (at, hash) in strays {
        let (id, labels) = (&mut ids[*at as usize], &series[*at as usize].labels);
        if *id != UNKNOWN && !registry.is_spelled(*id, labels) {
            // Two spellings share the table's part of the hash.
            *id = registry.find(*hash, labels).unwrap_or(UNKNOWN);
        }
        unknown += usize::from(*id == UNKNOWN);
    }
    unknown
}

/// Where the next series of a request probably is: after the one before, or, where others have come
/// in between since, after the one before these.
struct Likely {
    next: SeriesId,
    other: SeriesId,
}

impl Likely {
    #[inline]
    fn find(&mut self, registry: &Registry, labels: &RawLabels<'_>) -> Option<SeriesId> {
        if !registry.is_kept_as(self.next, labels) {
            if !registry.is_kept_as(self.other, labels) {
                return None;
            }
            std::mem::swap(&mut self.next, &mut self.other);
        }
        let found = self.next;
        self.next = after(found);
        Some(found)
    }

    fn jump_behind(&mut self, id: SeriesId) {
        self.other = std::mem::replace(&mut self.next, after(id));
    }
}

fn after(id: SeriesId) -> SeriesId {
    SeriesId(id.0.wrapping_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidewatch_model::Limits;

    /// Labels in remote write's spelling, in the order given.
    fn spelled(pairs: &[(&str, &str)]) -> Vec<u8> {
        let field = |tag: u8, text: &[u8]| [&[tag, text.len() as u8], text].concat();
        let label = |(name, value): &(&str, &str)| {
            field(0x0a, &[field(0x0a, name.as_bytes()), field(0x12, value.as_bytes())].concat())
        };
        pairs.iter().flat_map(label).collect()
    }

    fn labels(number: usize, straight: bool) -> Vec<u8> {
        let value = format!("a value that is longer than sixteen bytes {number}");
        let mut pairs = [("__name__", "metric"), ("n", value.as_str()), ("z", "x")];
        if !straight {
            pairs.reverse();
        }
        spelled(&pairs)
    }

    fn registry(series: usize, gone: &[usize]) -> Registry {
        let mut registry = Registry::new(7);
        for number in 0..series {
            let bytes = labels(number, true);
            let hash = registry.hasher().hash(&bytes);
            registry.define(hash, &RawLabels::Proto(&bytes), &Limits::default()).unwrap();
        }
        let gone: Vec<SeriesId> = gone.iter().map(|id| SeriesId(*id as u32)).collect();
        registry.remove(&gone);
        registry
    }

    /// What a request with these series finds, and what it must.
    fn check(registry: &Registry, request: &[(usize, bool)], is_known: impl Fn(usize, bool) -> bool) {
        let bytes: Vec<Vec<u8>> =
            request.iter().map(|(number, straight)| labels(*number, *straight)).collect();
        let mut batch = Batch::default();
        batch.series.extend(bytes.iter().map(|bytes| BatchSeries {
            labels: RawLabels::Proto(bytes),
            samples: 0..0,
            histograms: 0..0,
        }));
        let mut found = Found::default();
        let unknown = found.find_all(registry, &batch);
        let expected: Vec<SeriesId> = request
            .iter()
            .map(|(number, straight)| match is_known(*number, *straight) {
                true => SeriesId(*number as u32),
                false => UNKNOWN,
            })
            .collect();
        assert_eq!(found.ids, expected);
        assert_eq!(unknown, expected.iter().filter(|id| **id == UNKNOWN).count());
        for (at, id) in found.ids.iter().enumerate().filter(|(_, id)| **id == UNKNOWN) {
            assert_eq!(found.hashes[at], registry.hasher().hash(&bytes[at]), "{id:?}");
        }
    }

    #[test]
    fn series_are_found_in_their_order_and_where_it_is_broken() {
        let registry = registry(300, &[20, 21]);
        let known = |number: usize, straight: bool| number < 300 && straight && !(20..22).contains(&number);
        let in_order: Vec<(usize, bool)> = (0..300).map(|number| (number, true)).collect();
        check(&registry, &in_order, known);
        let backwards: Vec<(usize, bool)> = in_order.iter().rev().copied().collect();
        check(&registry, &backwards, known);
        // Another stream comes in between, one that nobody knows, and one spelled otherwise.
        let between =
            [(0, true), (200, true), (1, true), (201, true), (900, true), (2, true), (3, false), (4, true)];
        check(&registry, &between, known);
        check(&registry, &[], known);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_order_finds_what_the_table_has(
            request in proptest::collection::vec((0usize..2_100, prop::bool::weighted(0.9), 1usize..40), 0..60),
            gone in proptest::collection::vec(0usize..2_000, 0..1_200),
        ) {
            let registry = registry(2_000, &gone);
            // Runs of series, of which some are gone, unknown, or spelled in another order.
            let request: Vec<(usize, bool)> = request
                .into_iter()
                .flat_map(|(first, straight, run)| (first..first + run).map(move |number| (number, straight)))
                .collect();
            check(&registry, &request, |number, straight| number < 2_000 && straight && !gone.contains(&number));
        }
    }
}
