//! What the log still has of a shard whose image is lost, or sections of it.
//!
//! ```text
//!  image, made at P ──────────► what is whole of it, put aside ─────────────┐
//!  log, from its beginning ───► an empty shard ──► at P: what it shows of ──┴─► shard ──► replay from P on
//!                                                  series that lost some
//! ```
//!
//! What the log has of a shard came behind its beginning; so it was deleted, cut or let go behind that, if it was, and
//! the log says so, in order. So at P the empty shard shows a part of what the head showed there, and nothing that was
//! gone. What is whole waits for that: a deletion that it has seen would hide what came after, and a cut take it away.
//! Where the image is lost as a whole, what the log shows at its end is all there is.
//!
//! Two things the log can not tell without what was before it. Of a cut it may have the end alone: what came between
//! is late, and no part of the cut, though nothing newer is there to tell that it was late. And when a counter started
//! holds until the next step, which may have been there already: what comes back has no start, nor has what came behind
//! the image to series whose steps may be lost.
//!
//! Not here: which sections are lost (`head::image`), and whether frames name series that are known (`recover`).

use std::mem;

use tidewatch_model::Sample;
use tidewatch_wal::{OpenReport, Position, SEGMENT_HEADER_SIZE};

use crate::head::image::Remains;
use crate::head::read::HeadSnapshot;
use crate::head::registry::SeriesId;
use crate::head::shard::{NO_WINDOW, Shard};
use crate::log::{Frame, read_frame};

/// A shard on its way back.
#[derive(Debug)]
pub(crate) struct Regain {
    /// What is whole of its image, until the log has come up to that; `None` where there is none, too.
    image: Option<Shard>,
    /// Of which series and kinds that has all.
    remains: Remains,
    /// Up to where the image goes, or the newest of the others.
    until: Position,
    /// Whether the shard has what is whole of its image.
    is_over: bool,
    /// Whether a cut is under way whose beginning the log has.
    cut_began: bool,
}

impl Regain {
    /// Puts what is whole of an image aside and leaves an empty shard.
    pub(crate) fn beside(shard: &mut Shard, remains: Remains, until: Position) -> Regain {
        Regain { image: Some(mem::take(shard)), remains, ..Regain::without_image(until) }
    }

    /// Begins with a shard that has no image.
    pub(crate) fn without_image(until: Position) -> Regain {
        Regain { image: None, remains: Remains::default(), until, is_over: false, cut_began: false }
    }

    /// From where the log is replayed.
    pub(crate) fn from(&self, opened: &OpenReport) -> Position {
        contiguous_from(opened, self.until)
    }

    /// The log has come up to a position.
    pub(crate) fn reach(&mut self, at: usize, shard: &mut Shard, position: Position) {
        if self.until <= position {
            self.finish(at, shard);
        }
    }

    /// The log has damage at a position, in which there may be what was deleted, or cut, of that before it.
    pub(crate) fn doubt(&mut self, position: Position, shard: &mut Shard) {
        if position < self.until {
            *shard = Shard::default();
            self.cut_began = false;
        }
    }

    /// Whether a frame is replayed like any other.
    pub(crate) fn takes(&mut self, at: usize, shard: &mut Shard, frame: &[u8]) -> bool {
        if self.is_over {
            return true;
        }
        match read_frame(frame) {
            Ok(Frame::CutBegin { .. }) => {
                self.cut_began = true;
                true
            }
            Ok(Frame::CutEnd { floor }) => {
                let has_begun = mem::take(&mut self.cut_began);
                if !has_begun {
                    keep_behind(at, shard, floor);
                }
                has_begun
            }
            _ => true,
        }
    }

    /// Whether all is there of a series on which the start of a counter may rest.
    pub(crate) fn takes_start(&self, id: SeriesId) -> bool {
        self.is_over && self.remains.has_histograms(id)
    }

    /// Gives the shard what is whole of its image, and of the rest what was replayed.
    pub(crate) fn finish(&mut self, at: usize, shard: &mut Shard) {
        if let Some(image) = self.image.take() {
            let replayed = mem::replace(shard, image);
            give_back(at, &replayed, shard, &self.remains);
            self.is_over = true;
        }
    }
}

/// Sets the floor of a shard of which blocks have nothing.
fn keep_behind(at: usize, shard: &mut Shard, floor: i64) {
    let replayed = mem::take(shard);
    shard.restore_bounds(floor, floor);
    give_back(at, &replayed, shard, &Remains::default());
}

/// Gives a shard what was replayed of series and kinds that are not whole there.
fn give_back(at: usize, replayed: &Shard, shard: &mut Shard, remains: &Remains) {
    for page in 0..replayed.page_count() {
        for (slot, _) in replayed.used_of_page(page) {
            let id = Shard::id_of(at, page, slot);
            let snapshot = HeadSnapshot::of_series(replayed, id);
            if !remains.has_floats(id) {
                take_floats(shard, id, &snapshot);
            }
            if !remains.has_histograms(id) {
                take_histograms(shard, id, &snapshot);
            }
        }
    }
}

/// What the image has, too, is a repeat.
fn take_floats(shard: &mut Shard, id: SeriesId, snapshot: &HeadSnapshot) {
    let (mut samples, mut values) = (snapshot.late(0).to_vec(), Vec::new());
    for run in snapshot.runs(0) {
        values.clear();
        run.decode(&mut values).expect("written just now");
        let rows = run.timestamps().iter().zip(&values);
        samples.extend(rows.map(|(timestamp, value)| Sample { timestamp: *timestamp, value: *value }));
    }
    samples.sort_unstable_by_key(|sample| sample.timestamp);
    for sample in samples {
        shard.take_float(id, sample, NO_WINDOW);
    }
}

fn take_histograms(shard: &mut Shard, id: SeriesId, snapshot: &HeadSnapshot) {
    let mut samples = snapshot.late_histograms(0).to_vec();
    let (mut times, mut histograms) = (Vec::new(), Vec::new());
    for run in snapshot.histogram_runs(0) {
        run.decode(&mut times, &mut histograms).expect("written just now");
    }
    samples.extend(times.into_iter().zip(histograms));
    samples.sort_by_key(|(time, _)| *time);
    for (time, histogram) in samples {
        shard.take_histogram(id, time, &histogram, NO_WINDOW);
    }
}

/// From where the log leads to a position without a gap: in one there may be what was deleted, or cut, of that
/// before it. A removal that the power ended leaves some.
pub(crate) fn contiguous_from(opened: &OpenReport, to: Position) -> Position {
    let OpenReport { segments, end, .. } = opened;
    // Of older segments than the newest the reader sees whether they are whole.
    let is_short = end.is_some_and(|end| end.segment == to.segment && end < to);
    let is_begun = to.offset > SEGMENT_HEADER_SIZE as u64;
    if is_begun && (is_short || segments.binary_search(&to.segment).is_err()) {
        return to;
    }
    let before = segments.iter().rev().copied().filter(|segment| *segment < to.segment);
    let first = before.fold(to.segment, |first, segment| if segment + 1 == first { segment } else { first });
    Position { segment: first, offset: 0 }
}

/// Whether the log from a position on is all that ever was logged.
pub(crate) fn is_complete(segments: &[u64], from: Position) -> bool {
    // The first segment has the number after the start's.
    let first = Position { segment: Position::START.segment + 1, offset: 0 };
    segments.contains(&first.segment) && from <= first
}

#[cfg(test)]
mod tests {
    use tidewatch_model::histogram::Histogram;
    use tidewatch_model::{NativeHistogram, STALE_NAN};

    use super::*;
    use crate::head::shard::Verdict;

    /// When it came the series had floats alone: what the image has behind it came later.
    #[test]
    fn a_marker_of_staleness_comes_back_as_what_it_was_taken_for() {
        let (mut shard, id) = (Shard::default(), Shard::id_of(2, 0, 5));
        let histogram =
            NativeHistogram::Integer(Histogram { count: 1, zero_count: 1, ..Histogram::default() });
        assert_eq!(shard.take_histogram(id, 30, &histogram, NO_WINDOW), Verdict::Taken);
        let mut regain = Regain::beside(&mut shard, Remains::default(), Position { segment: 1, offset: 99 });
        for (timestamp, value) in [(10, 1.0), (20, STALE_NAN)] {
            assert_eq!(shard.take(id, Sample { timestamp, value }, NO_WINDOW), Verdict::Taken);
        }
        regain.finish(2, &mut shard);
        let snapshot = HeadSnapshot::of_series(&shard, id);
        let floats: Vec<&[i64]> = snapshot.runs(0).map(|run| run.timestamps()).collect();
        assert_eq!((floats, snapshot.late_histograms(0).len()), (vec![&[10, 20][..]], 0));
    }

    #[test]
    fn the_log_leads_to_a_position_from_behind_the_last_gap() {
        let opened = |segments: &[u64], end: u64| OpenReport {
            first_segment: 9,
            segments: segments.to_vec(),
            end: segments.last().map(|newest| Position { segment: *newest, offset: end }),
            torn: None,
            newest: None,
            foreign: Vec::new(),
        };
        let header = SEGMENT_HEADER_SIZE as u64;
        for (segments, end, offset, expected) in [
            (&[7, 8][..], 50, 99, (7, 0)),
            (&[7], 99, 99, (7, 0)),
            (&[5, 6, 7, 8], 50, 99, (5, 0)),
            (&[1, 2, 5, 6, 7], 100, 99, (5, 0)),
            (&[1, 2, 7], 99, 99, (7, 0)),
            // What lies before the position is lost.
            (&[], 50, 99, (7, 99)),
            (&[5, 6], 50, 99, (7, 99)),
            (&[1, 2, 5], 50, 99, (7, 99)),
            (&[8], 50, 99, (7, 99)),
            (&[5, 6, 7], 98, 99, (7, 99)),
            // There is nothing before it.
            (&[5, 6], 50, header, (5, 0)),
            (&[5, 6, 7], 0, header, (5, 0)),
            (&[], 50, header, (7, 0)),
        ] {
            let found = contiguous_from(&opened(segments, end), Position { segment: 7, offset });
            assert_eq!((found.segment, found.offset), expected, "{segments:?} up to {end}, {offset}");
        }
    }
}
