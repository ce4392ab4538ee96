//! What a shard does when its samples go to blocks: the part of a cut stays as it is until the blocks are
//! there, and then gives its memory back.
//!
//! Not here: when, and the blocks themselves (`cut`).

use tidewatch_model::Sample;
use tidewatch_storage::TimeRange;

use super::{ChunkBytes, NONE, Open, SeriesId, Shard, check_readable};
use crate::stretches::Stretches;

/// Columns below this many bytes, of constants above all, are no shorter with fewer rows.
const SHORTENED_LEN: u16 = 16;

impl Shard {
    /// A cut begins: what lies before `bar` now is its part, and does not change any more.
    pub(crate) fn begin_cut(&mut self, bar: i64) {
        self.bar = self.bar.max(bar);
        self.cutting.clear();
        for (id, late) in &self.late {
            let part: Vec<Sample> = late.iter().copied().filter(|sample| sample.timestamp < bar).collect();
            if !part.is_empty() {
                self.cutting.insert(*id, part);
            }
        }
        self.cutting_histograms.clear();
        for (id, series) in &self.histograms {
            let part: Vec<i64> =
                series.late.iter().map(|(time, _)| *time).filter(|time| *time < bar).collect();
            if !part.is_empty() {
                self.cutting_histograms.insert(*id, part);
            }
        }
    }

    /// A cut has ended: blocks have what was its part, and it is not read here any more.
    /// [`Shard::truncate`] gives its memory back.
    pub(crate) fn end_cut(&mut self, shard: usize, floor: i64) {
        let before = (self.floor, self.bar);
        if floor < self.floor {
            self.drop_runs(shard);
        }
        self.floor = floor;
        // What comes between it and a floor that goes back is known.
        self.known_from = self.known_from.min(floor);
        for (id, part) in std::mem::take(&mut self.cutting) {
            self.drop_late(id, &part);
        }
        for (id, part) in std::mem::take(&mut self.cutting_histograms) {
            let Some(series) = self.histograms.get_mut(&id) else { continue };
            self.samples -= series.remove_late(|time| part.binary_search(&time).is_ok());
        }
        self.sink(before);
    }

    /// Sets the bar, which goes back with the floor, or after a cut that failed, but not behind late samples: only
    /// below it is a sample held against those.
    fn sink(&mut self, (floor, bar): (i64, i64)) {
        self.bar = self.floor;
        if self.floor < floor.max(bar) {
            let (_, last) = self.extent_of_late();
            self.bar = self.floor.max(bar.min(last.saturating_add(1)));
            if self.floor < floor {
                self.forget_newest_before(floor, last);
            }
        }
    }

    /// Gives back all runs before the floor, which goes back: they are in blocks.
    ///
    /// A run may go on behind the floor, where the clock jumped ahead again while the cut wrote and a start replays
    /// what was given back long ago. Its rows before the floor are hidden like deleted ones: nothing else would keep
    /// them from readers once the floor is lower, and a deletion of what blocks have was never said to the head.
    fn drop_runs(&mut self, shard: usize) {
        for page in 0..self.page_count() {
            let slots: Vec<(usize, Open)> =
                self.used_of_page(page).map(|(slot, open)| (slot, *open)).collect();
            for (slot, open) in slots {
                let rest = self.truncate_runs(open, self.floor);
                self.pages[page].as_mut().expect("has series")[slot] = rest;
                self.hide_before(Shard::id_of(shard, page, slot), self.floor);
            }
        }
        let with_histograms: Vec<SeriesId> = self.histograms.keys().copied().collect();
        with_histograms.into_iter().for_each(|id| self.truncate_histograms(id));
        let floor = self.floor;
        self.histograms.values_mut().for_each(|series| series.hide_before(floor));
        self.prune_deleted();
    }

    /// Late samples of a series that are part of the cut under way.
    pub(crate) fn cutting(&self, id: SeriesId) -> &[Sample] {
        self.cutting.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Adds the stretches before `until` in which there are samples that are not late, or are part of the
    /// cut under way.
    pub(crate) fn stretches_before(
        &self,
        until: i64,
        ids: impl Iterator<Item = SeriesId>,
        stretches: &mut Stretches,
    ) {
        let range = TimeRange { start: i64::MIN, end: until - 1 };
        for id in ids {
            let Some(open) = self.get(id) else { continue };
            self.for_each_run(open, range, |place| {
                let rows = self.clocks.rows(place.clock, place.first_row, place.count);
                // A cut that goes back ends before the floor: then none of them is its part.
                let part = rows.partition_point(|t| *t < self.floor)..rows.partition_point(|t| *t < until);
                stretches.add_ascending(rows.get(part).unwrap_or_default());
            });
        }
        self.cutting.values().flatten().for_each(|sample| stretches.add(sample.timestamp));
        for series in self.histograms.values() {
            series.for_each_time(|time| {
                if self.floor <= time && time < until {
                    stretches.add(time);
                }
            });
        }
        self.cutting_histograms.values().flatten().for_each(|time| stretches.add(*time));
    }

    /// Gives back the memory of runs that lie before the floor as a whole. Gives the series of
    /// `ids` that hold nothing any more to `gone`: of those [`Shard::is_gone`] has the last word.
    pub(crate) fn truncate(&mut self, ids: &[SeriesId], gone: &mut Vec<SeriesId>) {
        for &id in ids {
            if let Some(open) = self.get(id).copied() {
                *self.open_mut(id) = self.truncate_runs(open, self.floor);
                if open.has_histograms {
                    self.truncate_histograms(id);
                }
            }
            if self.is_empty_series(id) {
                gone.push(id);
            }
        }
    }

    /// Whether a series that was empty is so still, when no request can come any more. Its starts go only now: a
    /// sample that came meanwhile has to say that it has another one.
    pub(crate) fn is_gone(&mut self, id: SeriesId) -> bool {
        let is_gone = self.is_empty_series(id);
        if is_gone {
            self.starts.remove(&id);
        }
        is_gone
    }

    /// What is left to do when all series of the shard were truncated.
    pub(crate) fn truncate_rest(&mut self) {
        self.prune_deleted();
        for (id, starts) in &mut self.starts {
            // Late samples before the floor are in no block yet.
            let float = self.late.get(id).and_then(|late| late.first()).map(|sample| sample.timestamp);
            let late = self.histograms.get(id).and_then(|series| series.late.first()).map(|(time, _)| *time);
            let from = [float, late].into_iter().flatten().fold(self.floor, i64::min);
            starts.truncate(from);
        }
        let (first, last) = self.extent_of_late();
        self.oldest = self.oldest.max(self.floor).min(first);
        self.forget_newest_before(self.floor, last);
    }

    /// Where the newest sample lay before a floor all runs are gone, and the newest late one is left.
    fn forget_newest_before(&mut self, floor: i64, newest_late: i64) {
        if self.newest < floor {
            self.newest = newest_late;
        }
    }

    /// Times of the oldest and the newest late sample; the former is greater where there is none.
    fn extent_of_late(&self) -> (i64, i64) {
        let floats = self.late.values().flat_map(|late| [late.first(), late.last()]).flatten();
        let histograms =
            self.histograms.values().flat_map(|series| [series.late.first(), series.late.last()]).flatten();
        let late = floats.map(|sample| sample.timestamp).chain(histograms.map(|(time, _)| *time));
        late.fold((i64::MAX, i64::MIN), |(first, last), time| (first.min(time), last.max(time)))
    }

    fn truncate_histograms(&mut self, id: SeriesId) {
        let Some(series) = self.histograms.get_mut(&id) else { return };
        self.samples -= series.truncate(self.floor);
        self.forget_if_empty(id);
    }

    /// Gives back the memory of the runs of a series that lie before a time.
    pub(in crate::head) fn truncate_runs(&mut self, mut open: Open, floor: i64) -> Open {
        if self.newest_of(&open).is_some_and(|newest| newest < floor) {
            self.cells.release(&mut open.tail);
            self.samples -= u64::from(open.count);
            self.clocks.release(open.clock);
            open = Open { clock: NONE, count: 0, first_row: 0, ..open };
        }
        // The chain goes from new to old: find the first chunk that may go, drop it and the rest.
        let (mut newer, mut at) = (NONE, open.chunk);
        while at != NONE {
            let chunk = *self.sealed.get(at);
            let newest = self.clocks.rows(chunk.clock, chunk.first_row, chunk.count).last();
            if newest.is_some_and(|newest| *newest < floor) {
                break;
            }
            (newer, at) = (at, chunk.older);
        }
        match newer {
            NONE => open.chunk = NONE,
            newer => {
                self.sealed.get_mut(newer).older = NONE;
                self.shorten_chunk(newer, floor);
            }
        }
        while at != NONE {
            let chunk = *self.sealed.get(at);
            self.samples -= u64::from(chunk.count);
            self.clocks.release(chunk.clock);
            self.sealed.remove(at);
            at = chunk.older;
        }
        open
    }

    /// Leaves out of a run what lies before the floor, where that saves something: images would
    /// have it until the whole run goes.
    fn shorten_chunk(&mut self, number: u32, floor: i64) {
        let chunk = *self.sealed.get(number);
        let rows = self.clocks.rows(chunk.clock, chunk.first_row, chunk.count);
        let gone = rows.partition_point(|row| *row < floor);
        if gone == 0 || chunk.len < SHORTENED_LEN {
            return;
        }
        let Shard { encoder, values, sealed, .. } = self;
        values.clear();
        let is_whole = match sealed.bytes(&chunk) {
            ChunkBytes::Shared(bytes) => {
                let decoded = tidewatch_chunk::decode_values(&bytes, usize::from(chunk.count), values);
                decoded.is_ok() && check_readable(&bytes).is_ok()
            }
            ChunkBytes::Filling(bytes) => {
                tidewatch_chunk::decode_values(bytes, usize::from(chunk.count), values).is_ok()
            }
        };
        // What can not be read is said to who wants to read it.
        if is_whole {
            sealed.shorten(number, gone as u8, |out| {
                encoder.encode(&values[gone..], out);
            });
            self.samples -= gone as u64;
        }
    }

    /// Removes late samples of a series that a block has now.
    fn drop_late(&mut self, id: SeriesId, part: &[Sample]) {
        self.remove_late(id, |timestamp| part.binary_search_by_key(&timestamp, |p| p.timestamp).is_ok());
    }

    /// Removes late samples of a series by their times.
    pub(in crate::head) fn remove_late(&mut self, id: SeriesId, goes: impl Fn(i64) -> bool) {
        let Some(late) = self.late.get_mut(&id) else { return };
        let before = late.len();
        late.retain(|sample| !goes(sample.timestamp));
        self.samples -= (before - late.len()) as u64;
        if late.is_empty() {
            self.late.remove(&id);
            self.open_mut(id).has_late = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::shard::Verdict;
    use crate::head::starts::{Step, start_at};

    /// What a request takes before the series is removed keeps it, and a start replays the step.
    #[test]
    fn a_series_that_is_empty_knows_its_start_until_it_is_removed() {
        let (mut shard, id) = (Shard::default(), SeriesId(0));
        let mut logged = Vec::new();
        let mut take = |shard: &mut Shard, timestamp, start| {
            assert_eq!(shard.take(id, Sample { timestamp, value: 1.0 }, i64::MAX), Verdict::Taken);
            logged.extend(shard.set_start(id, timestamp, start).into_iter().flatten());
            logged.clone()
        };
        take(&mut shard, 10, 5);
        shard.begin_cut(20);
        shard.end_cut(0, 20);
        let mut gone = Vec::new();
        shard.truncate(&[id], &mut gone);
        assert_eq!(gone, [id]);
        let logged: Vec<Step> = take(&mut shard, 30, 0);
        assert_eq!(start_at(&logged, 30), 0);
        assert!(!shard.is_gone(id) && shard.starts.contains_key(&id));
        shard.begin_cut(40);
        shard.end_cut(0, 40);
        shard.truncate(&[id], &mut gone);
        assert!(shard.is_gone(id) && shard.starts.is_empty());
    }
}
