//! What of a shard's samples is deleted.
//!
//! Samples that came out of order are removed at once. Runs stay as they are and are read
//! through stretches of time that are hidden, until a cut leaves these out. A stretch ends with
//! the newest row that its series has when it is made, so it only ever hides rows that were
//! there then: what is written later at such a time goes to the late samples, which are read.
//! Floats and histograms of a series have runs of their own, and so stretches of their own.
//! What lies before a floor that goes back, which blocks have, is hidden in the same way.
//!
//! In an image the stretches are a section behind the pages: the varint [`DELETED_PAGE`] where a page has
//! its number, how many series (varint), of each its id (varint) and how many stretches
//! (varint), of each the distance from the end of the one before (zigzag varint; the first: from
//! 0) and its length in ms (varint). Those of histograms are another such section, whose number is
//! 2^32 more, as that of their pages is.
//!
//! Not here: who may delete, and the log (`delete`); blocks (`block::tombstones`).

use hashbrown::HashMap;
use tidewatch_model::Sample;
use tidewatch_storage::TimeRange;

use super::cells::NONE;
use super::registry::SeriesId;
use super::shard::{Open, Shard};
use super::{PAGE_SERIES, SHARDS};
use crate::fields::{Reader, push_varint, unzigzag, zigzag};
use crate::intervals::Intervals;
use crate::log::FrameError;

/// Stands where a page of an image has its number; no page has it.
pub(crate) const DELETED_PAGE: u64 = u32::MAX as u64 / PAGE_SERIES as u64 + 1;

/// Hidden stretches of the runs of a shard, by series.
pub(crate) type Deleted = HashMap<SeriesId, Intervals>;

impl Shard {
    /// Deletes the samples of a series in a range, of all kinds: those that it has now.
    pub(crate) fn delete(&mut self, id: SeriesId, range: TimeRange) {
        let Some(open) = self.get(id).copied() else { return };
        if open.has_histograms {
            self.delete_histograms(id, range);
        }
        self.remove_late(id, |timestamp| range.start <= timestamp && timestamp <= range.end);
        let Some(rows) = self.extent_of_runs(&open) else { return };
        let hidden = TimeRange { start: range.start.max(rows.start), end: range.end.min(rows.end) };
        if hidden.start <= hidden.end {
            self.deleted.entry(id).or_default().add(hidden);
        }
    }

    /// Hides what the runs of a series have before a time at which they have a row, or later: a stretch that ends
    /// before their newest row, as all do.
    pub(super) fn hide_before(&mut self, id: SeriesId, time: i64) {
        let rows = self.get(id).and_then(|open| self.extent_of_runs(open));
        let Some(rows) = rows.filter(|rows| rows.start < time && time <= rows.end) else { return };
        self.deleted.entry(id).or_default().add(TimeRange { start: rows.start, end: time - 1 });
    }

    /// Whether a series may have samples in a range that are not deleted, those below the floor
    /// included: what is written again at such a time must not be taken for a repeat.
    pub(crate) fn may_hold(&self, id: SeriesId, range: TimeRange) -> bool {
        let Some(open) = self.get(id) else { return false };
        let of_runs = self.extent_of_runs(open).and_then(|rows| {
            let part = TimeRange { start: range.start.max(rows.start), end: range.end.min(rows.end) };
            (part.start <= part.end).then_some(part)
        });
        let runs =
            of_runs.is_some_and(|part| !self.deleted_of(id).is_some_and(|deleted| deleted.covers(part)));
        let within = |sample: &Sample| range.start <= sample.timestamp && sample.timestamp <= range.end;
        runs || (open.has_late && self.late.get(&id).is_some_and(|late| late.iter().any(within)))
            || (open.has_histograms && self.may_hold_histograms(id, range))
    }

    /// Whether nothing is hidden of any run.
    pub(crate) fn hides_nothing(&self) -> bool {
        self.deleted.is_empty() && self.histograms.values().all(|series| series.deleted.is_empty())
    }

    /// What is hidden of a series' runs of floats.
    pub(crate) fn deleted_of(&self, id: SeriesId) -> Option<&Intervals> {
        // Nearly always there is nothing at all.
        if self.deleted.is_empty() { None } else { self.deleted.get(&id) }
    }

    /// Whether a row of this time is hidden.
    #[inline]
    pub(crate) fn is_deleted(&self, id: SeriesId, timestamp: i64) -> bool {
        self.deleted_of(id).is_some_and(|deleted| deleted.contains(timestamp))
    }

    /// Forgets what hides no row any more.
    pub(crate) fn prune_deleted(&mut self) {
        let mut deleted = std::mem::take(&mut self.deleted);
        deleted.retain(|id, deleted| {
            let rows = self.get(*id).and_then(|open| self.extent_of_runs(open));
            rows.is_some_and(|rows| deleted.last_ms().is_some_and(|last| last >= rows.start))
        });
        self.deleted = deleted;
    }

    /// From the oldest to the newest row of a series, those below the floor included.
    fn extent_of_runs(&self, open: &Open) -> Option<TimeRange> {
        let end = self.newest_of(open)?;
        let (mut clock, mut first_row, mut count, mut chunk) =
            (open.clock, open.first_row, open.count, open.chunk);
        while chunk != NONE {
            let older = self.sealed.get(chunk);
            (clock, first_row, count, chunk) = (older.clock, older.first_row, older.count, older.older);
        }
        let start = self.clocks.rows(clock, first_row, count).first().copied()?;
        Some(TimeRange { start, end })
    }

    /// What is hidden of the runs of histograms, by series.
    pub(crate) fn deleted_histograms(&self) -> Vec<(SeriesId, &Intervals)> {
        let of_series = self.histograms.iter().map(|(id, series)| (*id, &series.deleted));
        of_series.filter(|(_, deleted)| !deleted.is_empty()).collect()
    }

    /// Reads a section of shard `shard`, behind [`DELETED_PAGE`].
    pub(crate) fn read_deleted(
        &mut self,
        shard: usize,
        is_of_histograms: bool,
        mut body: Reader<'_>,
    ) -> Result<(), FrameError> {
        for _ in 0..body.varint()? {
            let id = u32::try_from(body.varint()?).map(SeriesId).map_err(|_| FrameError::Malformed)?;
            if Shard::of(id) != shard || shard >= SHARDS {
                return Err(FrameError::Malformed);
            }
            let (mut intervals, mut end) = (Intervals::default(), 0i64);
            for _ in 0..body.varint()? {
                let start = end.wrapping_add(unzigzag(body.varint()?));
                end = start.wrapping_add(body.varint()? as i64);
                let ascends = intervals.last_ms().is_none_or(|last| last < start.saturating_sub(1));
                if !ascends || !intervals.add(TimeRange { start, end }) {
                    return Err(FrameError::Malformed);
                }
            }
            if is_of_histograms {
                // Where the page of the series was damaged, nothing is left to hide.
                if let Some(series) = self.histograms.get_mut(&id) {
                    series.deleted = intervals;
                }
            } else if !intervals.is_empty() {
                self.deleted.insert(id, intervals);
            }
        }
        if body.bytes.is_empty() { Ok(()) } else { Err(FrameError::Malformed) }
    }
}

/// Writes the section of an image, behind [`DELETED_PAGE`].
pub(crate) fn write_deleted(mut deleted: Vec<(SeriesId, &Intervals)>, out: &mut Vec<u8>) {
    deleted.sort_unstable_by_key(|(id, _)| *id);
    push_varint(deleted.len() as u64, out);
    for (id, intervals) in deleted {
        push_varint(u64::from(id.0), out);
        push_varint(intervals.iter().len() as u64, out);
        let mut end = 0i64;
        for range in intervals.iter() {
            push_varint(zigzag(range.start.wrapping_sub(end)), out);
            push_varint(range.end.wrapping_sub(range.start) as u64, out);
            end = range.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewatch_model::NativeHistogram;
    use tidewatch_model::histogram::Histogram;
    use tidewatch_storage::Refusal;

    use super::super::image::{ImageHeader, Section, sections};
    use super::super::shard::Verdict;
    use super::*;
    use bytes::Bytes;

    fn shard_of(times: &[i64]) -> (Shard, SeriesId) {
        let mut shard = Shard::default();
        let id = Shard::id_of(2, 0, 5);
        for timestamp in times {
            assert_eq!(
                shard.take(id, Sample { timestamp: *timestamp, value: 1.0 }, i64::MAX),
                Verdict::Taken
            );
        }
        (shard, id)
    }

    #[test]
    fn what_is_written_after_a_deletion_is_taken_and_not_hidden() {
        let (mut shard, id) = shard_of(&[1000, 2000, 3000, 1500]);
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        shard.delete(id, all);
        let sample = |timestamp, value| Sample { timestamp, value };
        assert_eq!(shard.take(id, sample(2000, 1.0), i64::MAX), Verdict::Taken);
        assert_eq!(shard.take(id, sample(2000, 1.0), i64::MAX), Verdict::Duplicate);
        assert_eq!(shard.take(id, sample(1500, 7.0), i64::MAX), Verdict::Taken);
        assert_eq!(shard.take(id, sample(1500, 8.0), i64::MAX), Verdict::Refused(Refusal::Conflict));
        assert_eq!(shard.take(id, sample(4000, 1.0), i64::MAX), Verdict::Taken);
        assert_eq!(shard.late[&id], [sample(1500, 7.0), sample(2000, 1.0)]);
        assert!(shard.is_deleted(id, 3000) && !shard.is_deleted(id, 4000));
        shard.delete(id, TimeRange { start: 2000, end: 2500 });
        assert_eq!(shard.late[&id], [sample(1500, 7.0)]);
    }

    fn last_section(bytes: &[u8]) -> Bytes {
        let header = ImageHeader::decode(bytes).expect("whole");
        let mut last = Bytes::new();
        let visit = |section: Section| {
            last = section.body;
            Ok(())
        };
        let file = Bytes::copy_from_slice(bytes);
        sections(&file, &header, visit, |offset, reason| panic!("{reason} at {offset}"));
        last
    }

    #[test]
    fn an_image_keeps_what_is_deleted() {
        let (mut shard, id) = shard_of(&[1000, 2000, 3000]);
        shard.delete(id, TimeRange { start: 0, end: 1999 });
        shard.delete(id, TimeRange { start: 3000, end: 3000 });
        let (bytes, _) = shard.to_image(2, (1, 1), 0);
        let section = [128, 128, 128, 2, 1, 0x85, 0x10, 2, 0xd0, 0x0f, 0xe7, 7, 0xd2, 0x0f, 0];
        assert_eq!(last_section(&bytes)[..], section, "{bytes:02x?}");
        let mut again = Shard::default();
        let header = ImageHeader::decode(&bytes).expect("whole");
        again.load_image(2, &header, &Bytes::from(bytes), |offset, reason| panic!("{reason} at {offset}"));
        assert_eq!(again.deleted, shard.deleted);
    }

    #[test]
    fn histograms_are_hidden_by_stretches_of_their_own() {
        let (mut shard, id) = (Shard::default(), Shard::id_of(2, 0, 5));
        let histogram =
            |count| NativeHistogram::Integer(Histogram { zero_count: count, count, ..Histogram::default() });
        let take =
            |shard: &mut Shard, time, count| shard.take_histogram(id, time, &histogram(count), i64::MAX);
        for time in [1000, 2000, 3000, 1500] {
            assert_eq!(take(&mut shard, time, 1), Verdict::Taken);
        }
        let float = |timestamp| Sample { timestamp, value: 1.0 };
        assert_eq!(shard.take(id, float(2500), i64::MAX), Verdict::Taken);
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        assert!(shard.may_hold(id, all) && shard.hides_nothing());
        shard.delete(id, all);
        assert!(!shard.may_hold(id, all) && !shard.hides_nothing());
        assert_eq!(take(&mut shard, 2000, 1), Verdict::Taken);
        assert_eq!(take(&mut shard, 2000, 1), Verdict::Duplicate);
        assert_eq!(take(&mut shard, 2000, 2), Verdict::Refused(Refusal::Conflict));
        assert_eq!(take(&mut shard, 1500, 3), Verdict::Taken);
        // Newer than every float that is deleted, older than a histogram that is: not hidden.
        assert_eq!(shard.take(id, float(2600), i64::MAX), Verdict::Taken);
        assert!(shard.is_deleted(id, 2500) && !shard.is_deleted(id, 2600));
        assert_eq!(take(&mut shard, 2600, 1), Verdict::Refused(Refusal::Conflict));
        let late: Vec<i64> = shard.histograms[&id].late.iter().map(|(time, _)| *time).collect();
        assert_eq!((late, shard.samples), (vec![1500, 2000], 7));

        let (bytes, _) = shard.to_image(2, (1, 1), 0);
        let section = [128, 128, 128, 130, 16, 1, 0x85, 0x10, 1, 0xd0, 0x0f, 0xd0, 0x0f];
        assert_eq!(last_section(&bytes)[..], section, "{bytes:02x?}");
        let mut again = Shard::default();
        let header = ImageHeader::decode(&bytes).expect("whole");
        again.load_image(2, &header, &Bytes::from(bytes), |offset, reason| panic!("{reason} at {offset}"));
        assert_eq!(again.deleted_histograms(), shard.deleted_histograms());
        assert_eq!((again.deleted, again.samples), (shard.deleted, shard.samples));
    }
}
