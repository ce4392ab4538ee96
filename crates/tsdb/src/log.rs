//! What the frames of the log hold.
//!
//! ```text
//! offset  size  field
//!      0     1  kind      see [`FrameKind`]
//!      1     1  flags     zero; readers set a frame with others aside
//!      2     …  body
//! ```
//!
//! Definitions of series, before any sample of theirs; each frame stands for itself, and two times more, compressed:
//! see `repeat` and `head::repeats`:
//!
//! ```text
//!      2     4  first     id of the first series; the others follow it
//!            …  pairs     how many (varint), then name and value, each length (varint) and bytes
//!            …  series    how many (varint), then of each how many labels and the number of each
//!                         pair in this frame (varints)
//! ```
//!
//! The beginning of a cut, logged for each shard among its samples: `shard u8`, `bar i64`. What
//! the shard had before the bar at this point is the cut's; what comes later is not. The end of
//! a cut: `floor i64`. What is the cut's is in durable blocks.
//!
//! A deletion from a shard: see `delete`. Series that have left a shard: see `stale`.
//!
//! Samples of floats: see `floats`; native histograms and start timestamps: see `frames`; those of one request
//! together: see `request`; metadata, exemplars and deferred batches: see the modules of these names.

use crate::deferred::DeferredBatch;
use crate::delete::Deletion;
use crate::fields::{Reader, push_text, push_varint};
use crate::floats::{Floats, read_floats};
use crate::frames::{Histograms, Starts, read_histograms, read_starts};
use crate::head::SHARDS;
use crate::head::registry::{PairId, Pairs, SeriesId};
use crate::repeat::{Repeat, read_repeat};
use crate::request::Parts;
use crate::stale::Departure;
use crate::{exemplars, metadata};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Floats = 1,
    Definitions = 2,
    CutBegin = 3,
    CutEnd = 4,
    Deferred = 5,
    Delete = 6,
    Left = 7,
    Repeat = 8,
    Request = 9,
    Histograms = 16,
    FloatHistograms = 17,
    Starts = 18,
    Metadata = 19,
    Exemplars = 20,
    DeferredWhole = 21,
}

impl FrameKind {
    fn of(byte: u8) -> Option<FrameKind> {
        use FrameKind::{
            CutBegin, CutEnd, Deferred, DeferredWhole, Definitions, Delete, Exemplars, FloatHistograms,
            Floats, Histograms, Left, Metadata, Repeat, Request, Starts,
        };
        let first = [Floats, Definitions, CutBegin, CutEnd, Deferred, Delete, Left, Repeat, Request];
        let later = [Histograms, FloatHistograms, Starts, Metadata, Exemplars, DeferredWhole];
        first.into_iter().chain(later).find(|kind| *kind as u8 == byte)
    }
}

/// Why a frame's content can not be used, though its checksum holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the frame's kind {0} is not known: a newer version wrote it")]
    Kind(u8),
    #[error("the frame is cut short or malformed")]
    Malformed,
}

/// Writes the frame that defines the series from `first` on.
pub(crate) fn write_definitions<'a>(
    first: SeriesId,
    pairs: &Pairs,
    series: impl Iterator<Item = &'a [PairId]> + Clone,
    out: &mut Vec<u8>,
) {
    out.clear();
    out.extend_from_slice(&[FrameKind::Definitions as u8, 0]);
    out.extend_from_slice(&first.0.to_le_bytes());
    let mut used: Vec<PairId> = series.clone().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    push_varint(used.len() as u64, out);
    for pair in &used {
        let (name, value) = pairs.get(*pair);
        push_text(name.as_bytes(), out);
        push_text(value.as_bytes(), out);
    }
    push_varint(series.clone().count() as u64, out);
    for labels in series {
        push_varint(labels.len() as u64, out);
        for pair in labels {
            let number = used.binary_search(pair).expect("collected above");
            push_varint(number as u64, out);
        }
    }
}

pub(crate) fn write_cut_begin(shard: u8, bar: i64, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[FrameKind::CutBegin as u8, 0, shard]);
    out.extend_from_slice(&bar.to_le_bytes());
}

pub(crate) fn write_cut_end(floor: i64, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[FrameKind::CutEnd as u8, 0]);
    out.extend_from_slice(&floor.to_le_bytes());
}

/// A frame, taken apart as far as it can be without knowing series.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Floats(Floats<'a>),
    Definitions(Definitions<'a>),
    Repeat(Repeat<'a>),
    Request(Parts<'a>),
    CutBegin { shard: usize, bar: i64 },
    CutEnd { floor: i64 },
    Deferred(DeferredBatch<'a>),
    Delete(Deletion<'a>),
    Left(Departure<'a>),
    Histograms(Histograms<'a>),
    Starts(Starts<'a>),
    Metadata(metadata::Logged<'a>),
    Exemplars(exemplars::Logged<'a>),
}

impl Frame<'_> {
    /// The first series of samples, which is of the same shard as all others of the frame.
    pub(crate) fn first_id(&self) -> Option<SeriesId> {
        match self {
            Frame::Floats(floats) => floats.first_id(),
            Frame::Histograms(histograms) => histograms.first_id(),
            Frame::Starts(starts) => starts.first_id(),
            _ => None,
        }
    }

    /// Reads the parts that [`read_frame`] left unread.
    pub(crate) fn check(&self) -> Result<(), FrameError> {
        match self {
            Frame::Definitions(definitions) => definitions.for_each(|_, _| {}),
            Frame::Repeat(repeat) => repeat.check(),
            Frame::Request(parts) => parts.check(),
            Frame::Deferred(batch) => batch.read().1,
            Frame::Histograms(histograms) => histograms.for_each(|_, _, _| {}),
            Frame::Starts(starts) => starts.for_each(|_, _| {}),
            Frame::Metadata(metadata) => metadata.for_each(|_| {}),
            Frame::Exemplars(exemplars) => exemplars.for_each(|_, _| {}),
            Frame::Floats(_)
            | Frame::CutBegin { .. }
            | Frame::CutEnd { .. }
            | Frame::Delete(_)
            | Frame::Left(_) => Ok(()),
        }
    }
}

/// Definitions of a frame: the first id, the pairs' texts, and the lists of the series.
#[derive(Debug)]
pub(crate) struct Definitions<'a> {
    pub(crate) first: SeriesId,
    pub(crate) pairs: Vec<(&'a str, &'a str)>,
    pub(crate) series: usize,
    lists: Reader<'a>,
}

pub(crate) fn read_frame(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let mut reader = Reader { bytes };
    let kind = reader.byte()?;
    let kind = FrameKind::of(kind).ok_or(FrameError::Kind(kind))?;
    if reader.byte()? != 0 {
        return Err(FrameError::Malformed);
    }
    Ok(match kind {
        FrameKind::Floats => Frame::Floats(read_floats(reader)?),
        FrameKind::Definitions => Frame::Definitions(read_definitions(reader)?),
        FrameKind::Repeat => Frame::Repeat(read_repeat(reader)?),
        FrameKind::Request => Frame::Request(Parts { fields: reader }),
        FrameKind::CutBegin => {
            let shard = usize::from(reader.byte()?);
            if shard >= SHARDS {
                return Err(FrameError::Malformed);
            }
            Frame::CutBegin { shard, bar: i64::from_le_bytes(reader.array()?) }
        }
        FrameKind::CutEnd => Frame::CutEnd { floor: i64::from_le_bytes(reader.array()?) },
        FrameKind::Delete => Frame::Delete(Deletion::read(reader)?),
        FrameKind::Left => Frame::Left(Departure::read(reader)?),
        FrameKind::Deferred => Frame::Deferred(DeferredBatch { is_plain: true, fields: reader }),
        FrameKind::DeferredWhole => Frame::Deferred(DeferredBatch { is_plain: false, fields: reader }),
        FrameKind::Histograms => Frame::Histograms(read_histograms(false, reader)?),
        FrameKind::FloatHistograms => Frame::Histograms(read_histograms(true, reader)?),
        FrameKind::Starts => Frame::Starts(read_starts(reader)?),
        FrameKind::Metadata => Frame::Metadata(metadata::read_metadata(reader)?),
        FrameKind::Exemplars => Frame::Exemplars(exemplars::read_exemplars(reader)?),
    })
}

fn read_definitions(mut reader: Reader<'_>) -> Result<Definitions<'_>, FrameError> {
    let first = SeriesId(u32::from_le_bytes(reader.array()?));
    let count = reader.varint()? as usize;
    // A pair takes at least two bytes.
    if count > reader.bytes.len() / 2 {
        return Err(FrameError::Malformed);
    }
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        pairs.push((reader.utf8()?, reader.utf8()?));
    }
    let series = reader.varint()? as usize;
    Ok(Definitions { first, pairs, series, lists: reader })
}

impl Definitions<'_> {
    /// Visits each series: its id and its pairs, as numbers of the frame's pairs.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(SeriesId, &[usize])) -> Result<(), FrameError> {
        let mut reader = self.lists.clone();
        let mut numbers = Vec::new();
        for at in 0..self.series {
            let count = reader.varint()? as usize;
            numbers.clear();
            for _ in 0..count {
                let number = reader.varint()? as usize;
                if number >= self.pairs.len() {
                    return Err(FrameError::Malformed);
                }
                numbers.push(number);
            }
            let id = u32::try_from(at).ok().and_then(|at| self.first.0.checked_add(at));
            visit(SeriesId(id.ok_or(FrameError::Malformed)?), &numbers);
        }
        Ok(())
    }
}

/// Reads everything that a frame has and forgets it: for tests of bytes that may be anything.
pub fn walk(bytes: &[u8]) {
    match read_frame(bytes) {
        Ok(Frame::Floats(floats)) => floats.for_each(|_, _| {}),
        Ok(Frame::Delete(deletion)) => deletion.ids.for_each(|_| {}),
        Ok(Frame::Left(departure)) => departure.ids.for_each(|_| {}),
        Ok(frame) => drop(frame.check()),
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_of_definitions_is_frozen() {
        let mut registry = crate::head::registry::Registry::new(1);
        let pairs: Vec<PairId> =
            [("a", "x"), ("b", "y"), ("b", "z")].map(|(n, v)| registry.intern(n, v)).to_vec();
        let series = [[pairs[0], pairs[2]], [pairs[0], pairs[1]]];
        let mut bytes = Vec::new();
        write_definitions(SeriesId(7), &registry.pairs, series.iter().map(|s| &s[..]), &mut bytes);
        assert_eq!(
            bytes,
            [
                2, 0, 7, 0, 0, 0, // kind, flags, first
                3, 1, b'a', 1, b'x', 1, b'b', 1, b'y', 1, b'b', 1, b'z', // pairs
                2, 2, 0, 2, 2, 0, 1, // series
            ]
        );
        let Ok(Frame::Definitions(read)) = read_frame(&bytes) else { panic!("not definitions") };
        let mut found = Vec::new();
        read.for_each(|id, numbers| found.push((id.0, numbers.to_vec()))).expect("whole");
        assert_eq!(found, [(7, vec![0, 2]), (8, vec![0, 1])]);
    }

    #[test]
    fn frames_of_cuts_are_frozen() {
        let mut bytes = Vec::new();
        write_cut_begin(3, 258, &mut bytes);
        assert_eq!(bytes, [3, 0, 3, 2, 1, 0, 0, 0, 0, 0, 0]);
        write_cut_end(-1, &mut bytes);
        assert_eq!(bytes, [4, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_bytes_make_the_reader_panic(kind in 0..24u8, rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bytes: Vec<u8> = [kind, 0].into_iter().chain(rest).collect();
            walk(&bytes);
        }
    }
}
