//! Frames of the log beside those of floats: native histograms and start timestamps.
//!
//! Histograms with integer counts (kind 16) and with float counts (kind 17), one frame of each
//! (a part of one: `request`) for each shard that a request touches:
//!
//! ```text
//! offset  size  field
//!      0     2  kind, flags as in `log`
//!      2     4  count   of samples
//!            …  samples, of each:
//!                 id         difference to the series id before it, zigzag varint
//!                 timestamp  difference to the one before it, zigzag varint
//!                 head       see `rows`; of a marker nothing follows
//!                 layout     0: it follows; n: the n-th layout of this frame (varint)
//!                 fields     see `rows`, against nothing
//! ```
//!
//! Start timestamps (kind 18), before the samples that they are of: steps, each said of a series
//! from a time on until its next step.
//!
//! ```text
//!      2     4  count   of steps
//!            …  steps, of each: id as above, timestamp as above, start as difference to the
//!               timestamp, zigzag varint
//! ```

use tidewatch_model::NativeHistogram;

use crate::fields::{Reader, push_varint, unzigzag, zigzag};
use crate::head::registry::SeriesId;
use crate::head::starts::Step;
use crate::log::{FrameError, FrameKind};
use crate::request::FRAME_BYTES;
use crate::rows::{RowLayout, push_fields, push_head, read_fields, read_head};

/// Layouts that a new sample is compared with: of the series just before it.
const RECENT_LAYOUTS: usize = 16;

/// Ids and timestamps as differences.
#[derive(Debug, Default, Clone, Copy)]
struct Place {
    id: u32,
    timestamp: i64,
}

impl Place {
    fn push(&mut self, id: SeriesId, timestamp: i64, out: &mut Vec<u8>) {
        push_varint(zigzag(i64::from(id.0) - i64::from(self.id)), out);
        push_varint(zigzag(timestamp.wrapping_sub(self.timestamp)), out);
        *self = Place { id: id.0, timestamp };
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(SeriesId, i64), FrameError> {
        let id = i64::from(self.id).wrapping_add(unzigzag(reader.varint()?));
        self.id = u32::try_from(id).map_err(|_| FrameError::Malformed)?;
        self.timestamp = self.timestamp.wrapping_add(unzigzag(reader.varint()?));
        Ok((SeriesId(self.id), self.timestamp))
    }
}

/// Builds a frame of histograms of one kind.
#[derive(Debug, Default)]
struct Rows {
    count: u32,
    place: Place,
    layouts: Vec<RowLayout>,
    bytes: Vec<u8>,
    /// Frames that are full.
    full: Vec<Vec<u8>>,
}

const HEAD_LEN: usize = 6;

impl Rows {
    fn clear(&mut self) {
        self.begin();
        self.full.clear();
    }

    fn begin(&mut self) {
        (self.count, self.place) = (0, Place::default());
        self.layouts.clear();
        self.bytes.clear();
        self.bytes.resize(HEAD_LEN, 0);
    }

    fn push(&mut self, kind: FrameKind, id: SeriesId, timestamp: i64, histogram: &NativeHistogram) {
        if self.bytes.len() >= FRAME_BYTES {
            let full = self.close(kind).to_vec();
            self.full.push(full);
            self.begin();
        }
        self.count += 1;
        self.place.push(id, timestamp, &mut self.bytes);
        if !push_head(histogram, &mut self.bytes) {
            return;
        }
        let newest = self.layouts.len().saturating_sub(RECENT_LAYOUTS);
        match self.layouts[newest..].iter().rposition(|layout| layout.is_of(histogram)) {
            Some(at) => push_varint((newest + at + 1) as u64, &mut self.bytes),
            None => {
                let layout = RowLayout::of(histogram);
                push_varint(0, &mut self.bytes);
                layout.write(&mut self.bytes);
                self.layouts.push(layout);
            }
        }
        push_fields(histogram, None, &mut self.bytes);
    }

    fn close(&mut self, kind: FrameKind) -> &[u8] {
        self.bytes[0] = kind as u8;
        self.bytes[2..HEAD_LEN].copy_from_slice(&self.count.to_le_bytes());
        &self.bytes
    }

    fn finish(&mut self, kind: FrameKind) -> impl Iterator<Item = &[u8]> {
        let is_empty = self.count == 0;
        self.close(kind);
        self.full.iter().chain((!is_empty).then_some(&self.bytes)).map(Vec::as_slice)
    }
}

/// Builds the frames of histograms of one shard.
#[derive(Debug, Default)]
pub(crate) struct HistogramsFrame {
    integers: Rows,
    floats: Rows,
}

impl HistogramsFrame {
    pub(crate) fn clear(&mut self) {
        self.integers.clear();
        self.floats.clear();
    }

    pub(crate) fn push(&mut self, id: SeriesId, timestamp: i64, histogram: &NativeHistogram) {
        match histogram {
            NativeHistogram::Integer(_) => {
                self.integers.push(FrameKind::Histograms, id, timestamp, histogram);
            }
            NativeHistogram::Float(_) => {
                self.floats.push(FrameKind::FloatHistograms, id, timestamp, histogram);
            }
        }
    }

    /// The frames that there are.
    pub(crate) fn finish(&mut self) -> impl Iterator<Item = &[u8]> {
        self.integers.finish(FrameKind::Histograms).chain(self.floats.finish(FrameKind::FloatHistograms))
    }
}

/// Histograms of a frame. Samples before a malformed one are good.
#[derive(Debug)]
pub(crate) struct Histograms<'a> {
    is_float: bool,
    count: u32,
    samples: Reader<'a>,
}

pub(crate) fn read_histograms(is_float: bool, mut reader: Reader<'_>) -> Result<Histograms<'_>, FrameError> {
    let count = u32::from_le_bytes(reader.array()?);
    Ok(Histograms { is_float, count, samples: reader })
}

impl Histograms<'_> {
    /// The first sample's series, which is of the same shard as all others.
    pub(crate) fn first_id(&self) -> Option<SeriesId> {
        let place = Place::default().read(&mut self.samples.clone()).ok();
        place.filter(|_| self.count > 0).map(|(id, _)| id)
    }

    /// Visits the samples in order, each one that can be computed with.
    pub(crate) fn for_each(
        &self,
        mut visit: impl FnMut(SeriesId, i64, NativeHistogram),
    ) -> Result<(), FrameError> {
        let mut reader = self.samples.clone();
        let mut place = Place::default();
        let mut layouts: Vec<RowLayout> = Vec::new();
        for _ in 0..self.count {
            let (id, timestamp) = place.read(&mut reader)?;
            let Some(hint) = read_head(&mut reader)? else {
                visit(id, timestamp, NativeHistogram::stale());
                continue;
            };
            let at = match reader.varint()? {
                0 => {
                    layouts.push(RowLayout::read(self.is_float, &mut reader)?);
                    layouts.len()
                }
                number => usize::try_from(number).map_err(|_| FrameError::Malformed)?,
            };
            let layout = layouts.get(at - 1).ok_or(FrameError::Malformed)?;
            let histogram = read_fields(layout, hint, None, &mut reader)?;
            histogram.validate().map_err(|_| FrameError::Malformed)?;
            visit(id, timestamp, histogram);
        }
        if reader.bytes.is_empty() { Ok(()) } else { Err(FrameError::Malformed) }
    }
}

/// Builds the frames of start timestamps of one shard.
#[derive(Debug, Default)]
pub(crate) struct StartsFrame {
    count: u32,
    place: Place,
    bytes: Vec<u8>,
    /// Frames that are full.
    full: Vec<Vec<u8>>,
}

impl StartsFrame {
    pub(crate) fn clear(&mut self) {
        self.begin();
        self.full.clear();
    }

    fn begin(&mut self) {
        (self.count, self.place) = (0, Place::default());
        self.bytes.clear();
        self.bytes.resize(HEAD_LEN, 0);
    }

    pub(crate) fn push(&mut self, id: SeriesId, step: Step) {
        if self.bytes.len() >= FRAME_BYTES {
            self.close();
            self.full.push(self.bytes.clone());
            self.begin();
        }
        self.count += 1;
        self.place.push(id, step.from, &mut self.bytes);
        push_varint(zigzag(step.from.wrapping_sub(step.start)), &mut self.bytes);
    }

    fn close(&mut self) {
        self.bytes[0] = FrameKind::Starts as u8;
        self.bytes[2..HEAD_LEN].copy_from_slice(&self.count.to_le_bytes());
    }

    /// The frames that there are.
    pub(crate) fn finish(&mut self) -> impl Iterator<Item = &[u8]> {
        self.close();
        self.full.iter().chain((self.count > 0).then_some(&self.bytes)).map(Vec::as_slice)
    }
}

/// Start timestamps of a frame.
#[derive(Debug)]
pub(crate) struct Starts<'a> {
    count: u32,
    steps: Reader<'a>,
}

pub(crate) fn read_starts(mut reader: Reader<'_>) -> Result<Starts<'_>, FrameError> {
    let count = u32::from_le_bytes(reader.array()?);
    Ok(Starts { count, steps: reader })
}

impl Starts<'_> {
    /// The first step's series, which is of the same shard as all others.
    pub(crate) fn first_id(&self) -> Option<SeriesId> {
        let place = Place::default().read(&mut self.steps.clone()).ok();
        place.filter(|_| self.count > 0).map(|(id, _)| id)
    }

    pub(crate) fn for_each(&self, mut visit: impl FnMut(SeriesId, Step)) -> Result<(), FrameError> {
        let mut reader = self.steps.clone();
        let mut place = Place::default();
        for _ in 0..self.count {
            let (id, from) = place.read(&mut reader)?;
            let start = from.wrapping_sub(unzigzag(reader.varint()?));
            visit(id, Step { from, start });
        }
        if reader.bytes.is_empty() { Ok(()) } else { Err(FrameError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewatch_model::histogram::{Histogram, Span};

    use super::*;
    use crate::log::{Frame, read_frame, walk};

    fn histogram(count: i64) -> NativeHistogram {
        NativeHistogram::Integer(Histogram {
            schema: 1,
            count: count as u64 * 3,
            sum: count as f64 * 0.5,
            positive_spans: vec![Span { offset: -1, length: 2 }],
            positive_deltas: vec![count, count],
            ..Histogram::default()
        })
    }

    type Found = Vec<(u32, i64, NativeHistogram)>;

    fn read(bytes: &[u8]) -> Found {
        let Ok(Frame::Histograms(histograms)) = read_frame(bytes) else { panic!("not histograms") };
        let mut found = Vec::new();
        histograms
            .for_each(|id, timestamp, histogram| found.push((id.0, timestamp, histogram)))
            .expect("whole");
        found
    }

    fn frames(samples: &[(u32, i64, NativeHistogram)]) -> Vec<Vec<u8>> {
        let mut frame = HistogramsFrame::default();
        frame.clear();
        samples
            .iter()
            .for_each(|(id, timestamp, histogram)| frame.push(SeriesId(*id), *timestamp, histogram));
        frame.finish().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn a_frame_of_histograms_is_frozen() {
        let samples =
            [(1000, 1500, histogram(2)), (1001, 1500, histogram(1)), (1001, 1510, NativeHistogram::stale())];
        let frames = frames(&samples);
        let expected = [
            16, 0, 3, 0, 0, 0, // kind, flags, count
            0xd0, 0x0f, 0xb8, 0x17, 0, 0, // id, timestamp, head, layout follows
            2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, // layout
            0xbf, 0xe0, 0x03, 12, 0, 4, 4, // fields
            2, 0, 0, 1, 0xbf, 0xc0, 0x03, 6, 0, 2, 2, // the second sample
            0, 20, 4, // the marker
        ];
        assert_eq!(frames, [expected], "{:02x?}", frames[0]);
        // As text, since no NaN equals itself.
        assert_eq!(format!("{:?}", read(&frames[0])), format!("{samples:?}"));
    }

    #[test]
    fn histograms_with_float_counts_have_a_frame_of_their_own() {
        let float = NativeHistogram::Float(histogram(5).to_float());
        let samples = [(7, -3, float), (7, 4, histogram(2))];
        let frames = frames(&samples);
        assert_eq!(frames.iter().map(|frame| frame[0]).collect::<Vec<_>>(), [16, 17]);
        assert_eq!([read(&frames[1]), read(&frames[0])].concat(), samples);
    }

    #[test]
    fn a_frame_of_start_timestamps_is_frozen() {
        let mut frame = StartsFrame::default();
        frame.clear();
        assert_eq!(frame.finish().count(), 0);
        frame.push(SeriesId(3), Step { from: 1000, start: 990 });
        frame.push(SeriesId(2), Step { from: 1001, start: 0 });
        let bytes = frame.finish().next().expect("two steps").to_vec();
        assert_eq!(bytes, [18, 0, 2, 0, 0, 0, 6, 0xd0, 0x0f, 20, 1, 2, 0xd2, 0x0f]);
        let Ok(Frame::Starts(starts)) = read_frame(&bytes) else { panic!("not starts") };
        let mut found = Vec::new();
        starts.for_each(|id, step| found.push((id.0, step.from, step.start))).expect("whole");
        assert_eq!(found, [(3, 1000, 990), (2, 1001, 0)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_bytes_make_the_reader_panic(kind in 16..22u8, rest in proptest::collection::vec(any::<u8>(), 0..90)) {
            walk(&[kind, 0].into_iter().chain(rest).collect::<Vec<u8>>());
        }
    }
}
