//! Series that have ended: their newest sample is a marker of staleness.
//!
//! They are found by looking at the records of all series, since one look a minute costs less than to
//! count with every sample. What such a series has is remembered as an [`Ended`], so that whoever has
//! written it to a block can tell whether it is still all.
//!
//! Not here: when they leave, and the log (`stale`).

use tidewatch_model::is_stale;
use tidewatch_storage::TimeRange;

use super::Head;
use super::registry::{KnownIds, SeriesId};
use super::shard::{Open, Shard};
use crate::stretches::Stretches;

/// A series that has ended, and how far it had come then. A sample that it takes changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) id: SeriesId,
    newest_float: Option<i64>,
    newest_histogram: Option<i64>,
    late_floats: usize,
    late_histograms: usize,
}

impl Head {
    /// The series that ended at or before a time, by shard, ascending.
    pub(crate) fn ended(&self, until_ms: i64) -> Vec<Ended> {
        let known = self.directory.read().registry.known_ids();
        let mut ended = Vec::new();
        for (at, shard) in self.shards.iter().enumerate() {
            shard.lock().for_each_ended(at, until_ms, |series| ended.push(series));
        }
        // Samples whose labels are lost have no place in a block.
        ended.retain(|series: &Ended| known.is_alive(series.id));
        ended
    }

    /// How many series ended at or before a time.
    pub(crate) fn ended_count(&self, until_ms: i64) -> u64 {
        let known = self.directory.read().registry.known_ids();
        let mut count = 0;
        for (at, shard) in self.shards.iter().enumerate() {
            shard.lock().for_each_ended(at, until_ms, |series| count += u64::from(known.is_alive(series.id)));
        }
        count
    }
}

impl Shard {
    fn for_each_ended(&self, shard: usize, until_ms: i64, mut visit: impl FnMut(Ended)) {
        for page in 0..self.page_count() {
            for (slot, open) in self.used_of_page(page) {
                let series = self.ended_of(Shard::id_of(shard, page, slot), open);
                series
                    .filter(|(_, end_ms)| *end_ms <= until_ms)
                    .into_iter()
                    .for_each(|(ended, _)| visit(ended));
            }
        }
    }

    /// A series, if it has ended, and when.
    fn ended_of(&self, id: SeriesId, open: &Open) -> Option<(Ended, i64)> {
        // Asked first: nearly all series go on, and their record says so.
        let ends_in_float = is_stale(f64::from_bits(open.tail.value));
        if !ends_in_float && !open.has_histograms {
            return None;
        }
        let late = self.late.get(&id).filter(|_| open.has_late);
        let histograms = self.histograms.get(&id).filter(|_| open.has_histograms);
        let newest_float = self.newest_of(open);
        let newest_histogram = histograms.and_then(|series| series.newest());
        let is_marker = if newest_histogram > newest_float {
            histograms.and_then(|series| series.open.newest()).is_some_and(|newest| newest.is_stale())
        } else {
            ends_in_float
        };
        let end_ms = newest_float.max(newest_histogram).filter(|_| is_marker)?;
        // What came while a cut was under way stands among the late ones and may be newer.
        let newest_late = late.and_then(|late| late.last()).map(|sample| sample.timestamp);
        let newest_late =
            newest_late.max(histograms.and_then(|series| series.late.last()).map(|(time, _)| *time));
        let ended = Ended {
            id,
            newest_float,
            newest_histogram,
            late_floats: late.map_or(0, Vec::len),
            late_histograms: histograms.map_or(0, |series| series.late.len()),
        };
        newest_late.is_none_or(|late| late < end_ms).then_some((ended, end_ms))
    }

    /// Whether a series has no sample but those that it had when it was found to have ended. Nothing
    /// may have been deleted in between.
    pub(crate) fn is_still(&self, ended: &Ended) -> bool {
        let now = self.get(ended.id).and_then(|open| self.ended_of(ended.id, open));
        now.is_some_and(|(now, _)| now == *ended)
    }

    /// Adds the stretches in which a series has samples.
    pub(crate) fn stretches_of(&self, id: SeriesId, stretches: &mut Stretches) {
        let Some(open) = self.get(id) else { return };
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        self.for_each_run(open, all, |place| {
            let rows = self.clocks.rows(place.clock, place.first_row, place.count);
            stretches.add_ascending(&rows[rows.partition_point(|row| *row < self.floor)..]);
        });
        let late = self.late.get(&id).into_iter().flatten();
        late.for_each(|sample| stretches.add(sample.timestamp));
        if let Some(series) = self.histograms.get(&id) {
            series.for_each_time(|time| {
                if self.floor <= time {
                    stretches.add(time);
                }
            });
            series.late.iter().for_each(|(time, _)| stretches.add(*time));
        }
    }

    /// Forgets the series that are not known any more and of which `has_left` says that blocks have what
    /// they had.
    pub(crate) fn leave_unknown(
        &mut self,
        shard: usize,
        known: &KnownIds,
        has_left: impl Fn(SeriesId) -> bool,
    ) {
        for page in 0..self.page_count() {
            if known.has_whole_page(Shard::id_of(shard, page, 0)) {
                continue;
            }
            let ids = self.used_of_page(page).map(|(slot, _)| Shard::id_of(shard, page, slot));
            let gone: Vec<SeriesId> = ids.filter(|id| !known.is_alive(*id) && has_left(*id)).collect();
            gone.into_iter().for_each(|id| self.leave(id));
        }
    }

    /// Forgets all that a series has: blocks have it.
    pub(crate) fn leave(&mut self, id: SeriesId) {
        if self.get(id).is_none() {
            return;
        }
        self.remove_late(id, |_| true);
        if let Some(series) = self.histograms.remove(&id) {
            self.samples -= series.count();
            self.open_mut(id).has_histograms = false;
        }
        self.deleted.remove(&id);
        self.starts.remove(&id);
        let open = *self.open_mut(id);
        *self.open_mut(id) = self.truncate_runs(open, i64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use tidewatch_model::histogram::Histogram;
    use tidewatch_model::{NativeHistogram, STALE_NAN, Sample};

    use super::super::shard::Verdict;
    use super::*;

    const SHARD: usize = 2;

    fn id(slot: usize) -> SeriesId {
        Shard::id_of(SHARD, 0, slot)
    }

    fn take(shard: &mut Shard, slot: usize, timestamp: i64, value: f64) {
        assert_eq!(shard.take(id(slot), Sample { timestamp, value }, i64::MAX), Verdict::Taken);
    }

    fn take_histogram(shard: &mut Shard, slot: usize, timestamp: i64, histogram: &NativeHistogram) {
        assert_eq!(shard.take_histogram(id(slot), timestamp, histogram, i64::MAX), Verdict::Taken);
    }

    fn ended(shard: &Shard, until_ms: i64) -> Vec<Ended> {
        let mut ended = Vec::new();
        shard.for_each_ended(SHARD, until_ms, |series| ended.push(series));
        ended
    }

    fn numbers(ended: &[Ended]) -> Vec<usize> {
        ended.iter().map(|series| (0..9).find(|slot| id(*slot) == series.id).expect("one of ours")).collect()
    }

    #[test]
    fn what_ends_is_found_and_what_goes_on_is_not() {
        let mut shard = Shard::default();
        let histogram =
            NativeHistogram::Integer(Histogram { zero_count: 1, count: 1, ..Histogram::default() });
        for slot in 0..4 {
            take(&mut shard, slot, 1000, 1.0);
        }
        take(&mut shard, 1, 2000, STALE_NAN);
        take(&mut shard, 2, 2000, STALE_NAN);
        take(&mut shard, 2, 3000, 1.0);
        take(&mut shard, 3, 5000, STALE_NAN);
        take_histogram(&mut shard, 4, 1000, &histogram);
        take_histogram(&mut shard, 5, 1000, &histogram);
        take_histogram(&mut shard, 5, 2000, &NativeHistogram::stale());
        // A histogram after a marker of floats.
        take(&mut shard, 6, 1000, STALE_NAN);
        take_histogram(&mut shard, 6, 2000, &histogram);
        assert_eq!(numbers(&ended(&shard, 2000)), [1, 5]);
        assert_eq!(numbers(&ended(&shard, 5000)), [1, 3, 5]);
    }

    #[test]
    fn a_series_that_took_anything_since_is_not_still_what_it_was() {
        let histogram =
            NativeHistogram::Integer(Histogram { zero_count: 1, count: 1, ..Histogram::default() });
        for (what, still) in [
            ("nothing", true),
            ("next", false),
            ("late", false),
            ("marker", false),
            ("histogram", false),
            ("late histogram", false),
        ] {
            let mut shard = Shard::default();
            take(&mut shard, 1, 1000, 1.0);
            take_histogram(&mut shard, 1, 1200, &histogram);
            take(&mut shard, 1, 2000, STALE_NAN);
            // A marker that follows a histogram ends it as one of its kind.
            let [before] = ended(&shard, 2000)[..] else { panic!("one series ends") };
            match what {
                "next" => take(&mut shard, 1, 3000, 1.0),
                "late" => take(&mut shard, 1, 1500, 1.0),
                "marker" => take(&mut shard, 1, 3000, STALE_NAN),
                "histogram" => take_histogram(&mut shard, 1, 3000, &histogram),
                "late histogram" => take_histogram(&mut shard, 1, 1100, &histogram),
                _ => {}
            }
            assert_eq!(shard.is_still(&before), still, "{what}");
        }
    }

    #[test]
    fn a_series_that_leaves_gives_everything_back() {
        let mut shard = Shard::default();
        let histogram =
            NativeHistogram::Integer(Histogram { zero_count: 1, count: 1, ..Histogram::default() });
        for step in 0..500 {
            take(&mut shard, 1, step * 60_000, step as f64);
            take(&mut shard, 2, step * 60_000, 1.0);
        }
        take(&mut shard, 1, 90_000, 1.0);
        take_histogram(&mut shard, 1, 80_000_000, &histogram);
        take_histogram(&mut shard, 1, 79_000_000, &histogram);
        let mut stretches = Stretches::new();
        shard.stretches_of(id(1), &mut stretches);
        let hours = |(start, end)| (start / 3_600_000, end / 3_600_000);
        let expected = [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (20, 22), (22, 24)];
        assert_eq!(stretches.ranges().map(hours).collect::<Vec<_>>(), expected);
        shard.leave(id(1));
        assert!(shard.is_empty_series(id(1)) && !shard.is_empty_series(id(2)));
        assert_eq!(shard.samples, 500);
        shard.leave(id(2));
        shard.leave(id(7));
        let held = (
            shard.samples,
            shard.sealed.count(),
            shard.clocks.count(),
            shard.late.len(),
            shard.histograms.len(),
        );
        assert_eq!(held, (0, 0, 0, 0, 0));
        take(&mut shard, 1, 2000, 7.0);
        assert_eq!(shard.samples, 1);
    }
}
