//! Which series of the head match, in which order they stand, and which names and values their labels have.
//!
//! Not here: their samples (`read`), lists and sets of series (`index`).

use std::cmp::Ordering;

use parking_lot::RwLockReadGuard;
use roaring::RoaringBitmap;
use tidewatch_model::Matcher;
use tidewatch_storage::TimeRange;

use super::read::contains;
use super::registry::{Registry, SeriesId};
use super::shard::Shard;
use super::{Directory, Head};
use crate::index::{postings_for_matchers, visit_names_of, visit_values_of};
use crate::texts::Texts;

impl Head {
    /// All series in the order of their labels.
    pub(crate) fn ids_by_labels(&self) -> Vec<SeriesId> {
        let ids = self.directory.read().registry.ids().collect();
        self.by_labels(ids)
    }

    /// Series in the order of their labels.
    pub(crate) fn by_labels(&self, mut ids: Vec<SeriesId>) -> Vec<SeriesId> {
        let directory = self.directory.read();
        ids.sort_unstable_by(|a, b| compare(&directory.registry, *a, *b));
        ids
    }

    /// Adds the names of labels on series that satisfy `matchers` and have samples in `range`.
    pub(crate) fn label_names(&self, matchers: &[Matcher], range: TimeRange, texts: &mut Texts<'_, '_>) {
        let (directory, living) = self.living(matchers, range, texts);
        visit_names_of(&directory.index(), Some(&living), &mut |name| texts.add(name)).expect(IN_MEMORY);
    }

    /// Adds the values of `name` on series that satisfy `matchers` and have samples in `range`.
    pub(crate) fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        texts: &mut Texts<'_, '_>,
    ) {
        let (directory, living) = self.living(matchers, range, texts);
        let mut add = |value: &str| texts.add(value);
        visit_values_of(&directory.index(), name, Some(&living), &mut add).expect(IN_MEMORY);
    }

    /// The series that satisfy `matchers` and have samples in `range`; none where `texts` takes no more.
    fn living(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
        texts: &mut Texts<'_, '_>,
    ) -> (RwLockReadGuard<'_, Directory>, RoaringBitmap) {
        let until = self.directory.read().registry.next_id();
        let matching = self.matching_below(until, matchers, texts.debt());
        let (directory, mut ids) = matching.unwrap_or_else(|_| (self.directory.read(), RoaringBitmap::new()));
        let mut out = RoaringBitmap::new();
        for (at, shard) in self.shards.iter().enumerate() {
            let shard = shard.lock();
            // A shard whose samples all lie within the range needs no look at its series.
            let within = shard.oldest >= range.start && shard.newest <= range.end && shard.hides_nothing();
            if !within {
                let of_shard = ids.iter().filter(|id| Shard::of(SeriesId(*id)) == at);
                out.extend(of_shard.filter(|id| !shard.has_samples(SeriesId(*id), range)));
            }
        }
        ids -= out;
        (directory, ids)
    }
}

const IN_MEMORY: &str = "the head's index is in memory and can not be damaged";

impl Directory {
    /// The series that satisfy all matchers; not whole where `go_on` has said no.
    pub(crate) fn matching(&self, matchers: &[Matcher], go_on: &mut dyn FnMut() -> bool) -> RoaringBitmap {
        postings_for_matchers(&self.index(), matchers, go_on).expect(IN_MEMORY)
    }
}

/// Order of two series' labels: interned pairs that are the same need no look at their texts.
fn compare(registry: &Registry, a: SeriesId, b: SeriesId) -> Ordering {
    let (a, b) = (registry.labels(a), registry.labels(b));
    for (left, right) in a.iter().zip(b) {
        if left != right {
            return registry.pairs.parts(*left).cmp(&registry.pairs.parts(*right));
        }
    }
    a.len().cmp(&b.len())
}

impl Shard {
    /// Whether a series has samples within a range that are not in blocks.
    fn has_samples(&self, id: SeriesId, range: TimeRange) -> bool {
        let Some(open) = self.get(id) else { return false };
        let mut found = false;
        let deleted = self.deleted_of(id);
        self.for_each_run(open, range, |place| {
            let rows = self.clocks.rows(place.clock, place.first_row, place.count);
            found |= deleted.is_none_or(|deleted| {
                deleted.kept(rows).any(|kept| rows[kept].iter().any(|row| contains(range, *row)))
            });
        });
        let late =
            || self.late.get(&id).into_iter().flatten().any(|sample| contains(range, sample.timestamp));
        let histograms =
            || self.histograms.get(&id).is_some_and(|series| series.has_samples(range, self.floor));
        found || (open.has_late && late()) || (open.has_histograms && histograms())
    }
}
