//! What a request brings to the shards, in one frame of the log:
//!
//! ```text
//! offset  size  field
//!      0     2  kind (9), flags as in `log`
//!            …  parts, each: length (u32), and a frame of floats, histograms or start timestamps of one shard
//! ```
//!
//! A single part stands in the log as it is. Parts have no parts. A request of many megabytes is several frames.

use crate::fields::Reader;
use crate::log::{Frame, FrameError, FrameKind, read_frame};

/// A frame that has grown to this is followed by another: far below what the log takes.
pub(crate) const FRAME_BYTES: usize = 4 << 20;

const HEAD_LEN: usize = 2;

const LENGTH_LEN: usize = size_of::<u32>();

/// Builds the frame of a request, or several where it grows long: a part alone may be long, but never as long as
/// the log takes less [`FRAME_BYTES`].
#[derive(Debug, Default)]
pub(crate) struct RequestFrame {
    bytes: Vec<u8>,
    frames: Vec<Built>,
}

/// A frame among the bytes, up to the one behind it.
#[derive(Debug)]
struct Built {
    start: usize,
    parts: usize,
}

impl RequestFrame {
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
        self.bytes.clear();
        // One that was long is no reason to keep so much.
        self.bytes.shrink_to(FRAME_BYTES);
    }

    /// Adds the part that `write` appends.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.frames.last().is_none_or(|frame| self.bytes.len() - frame.start >= FRAME_BYTES) {
            self.frames.push(Built { start: self.bytes.len(), parts: 0 });
            self.bytes.extend_from_slice(&[FrameKind::Request as u8, 0]);
        }
        let start = self.bytes.len() + LENGTH_LEN;
        self.bytes.resize(start, 0);
        write(&mut self.bytes);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start - LENGTH_LEN..start].copy_from_slice(&len.to_le_bytes());
        self.frames.last_mut().expect("begun above").parts += 1;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES
    }

    /// What is to be logged, if there is anything.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.frames.iter().skip(1).map(|frame| frame.start).chain([self.bytes.len()]);
        self.frames.iter().zip(ends).map(|(frame, end)| {
            let head = if frame.parts == 1 { HEAD_LEN + LENGTH_LEN } else { 0 };
            &self.bytes[frame.start + head..end]
        })
    }
}

/// Parts of a frame.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) fields: Reader<'a>,
}

impl<'a> Parts<'a> {
    /// Visits the parts in order. Where a length is malformed, those before it are good.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&'a [u8])) -> Result<(), FrameError> {
        let mut reader = self.fields.clone();
        while !reader.bytes.is_empty() {
            let len = u32::from_le_bytes(reader.array()?);
            visit(reader.take(len as usize)?);
        }
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<(), FrameError> {
        let mut all = Ok(());
        self.for_each(|part| all = all.and(read_part(part).and_then(|part| part.check())))?;
        all
    }
}

/// Takes a part of a frame apart.
pub(crate) fn read_part(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    // Asked before it is read: parts of parts of parts would be read as deep as they go.
    match bytes.first() {
        Some(kind) if *kind == FrameKind::Request as u8 => Err(FrameError::Malformed),
        _ => match read_frame(bytes)? {
            part @ (Frame::Floats(_) | Frame::Histograms(_) | Frame::Starts(_)) => Ok(part),
            _ => Err(FrameError::Malformed),
        },
    }
}

#[cfg(test)]
mod tests {
    use tidewatch_model::Sample;

    use super::*;
    use crate::floats::FloatsFrame;
    use crate::head::registry::SeriesId;

    fn push(request: &mut RequestFrame, id: u32) {
        let mut floats = FloatsFrame::default();
        floats.push(SeriesId(id), Sample { timestamp: 3, value: 1.0 });
        request.push(|out| floats.write(out));
    }

    fn frames(request: &RequestFrame) -> Vec<Vec<u8>> {
        request.frames().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn frames_of_requests_are_frozen() {
        let mut request = RequestFrame::default();
        request.clear();
        assert_eq!(frames(&request), [[0; 0]; 0]);
        push(&mut request, 7);
        let part = [1, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 14, 1, 0, 2, 0xf0, 0x3f];
        assert_eq!(frames(&request), [part], "a single part stands alone");
        push(&mut request, 7);
        let whole = [&[9, 0][..], &[20, 0, 0, 0], &part, &[20, 0, 0, 0], &part].concat();
        assert_eq!(frames(&request), [&whole[..]]);
        let Ok(Frame::Request(parts)) = read_frame(&whole) else { panic!("not a request") };
        assert_eq!(parts.check(), Ok(()));
        let mut found = Vec::new();
        parts.for_each(|part| found.push(part.to_vec())).expect("whole");
        assert_eq!(found, [part, part]);
        // What is cut short has the parts before, and says so.
        for len in HEAD_LEN..whole.len() {
            let Ok(Frame::Request(parts)) = read_frame(&whole[..len]) else { panic!("{len} bytes") };
            let mut count = 0;
            let result = parts.for_each(|_| count += 1);
            let (before, rest) = ((len - HEAD_LEN) / 24, (len - HEAD_LEN) % 24);
            assert_eq!((count, result.is_ok()), (before, rest == 0), "{len} bytes");
        }
    }

    #[test]
    fn what_grows_long_is_several_frames() {
        let mut request = RequestFrame::default();
        for len in [FRAME_BYTES, 1, 2, FRAME_BYTES, 3, 4] {
            request.push(|out| out.resize(out.len() + len, len as u8));
        }
        let shapes: Vec<(u8, usize)> = request.frames().map(|frame| (frame[0], frame.len())).collect();
        // One alone, three together, two together.
        assert_eq!(shapes, [(0, FRAME_BYTES), (9, FRAME_BYTES + 3 + 14), (9, 7 + 10)]);
    }

    #[test]
    fn a_part_is_of_samples() {
        let end = [4, 0, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(read_frame(&end).is_ok());
        let nested = [9, 0];
        for part in [&end[..], &nested] {
            let whole = [&[9, 0, part.len() as u8, 0, 0, 0], part].concat();
            let Ok(Frame::Request(parts)) = read_frame(&whole) else { panic!("not a request") };
            assert_eq!(parts.check(), Err(FrameError::Malformed));
        }
    }
}
