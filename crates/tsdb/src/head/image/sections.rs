//! The frame of an image: its header and where its sections lie, so that damage to these costs nothing behind.
//!
//! ```text
//! header │ frame body │ frame body │ … │ copies │ frames │ count │ crc32 │ header
//!        └─ as many as the header says ┘        └─ what the end has once more ───┘
//! ```
//!
//! The length before a section says where the next begins: one changed bit there would cost all that follow, and
//! one in the header the image. So both stand at the end as well, and what differs is named. An image of an earlier
//! release has no end, and such a release does not read on behind the last section; so the end changes no
//! version.
//!
//! Behind the sections may stand copies of the first ones, which the header does not count. That of a shard's clocks
//! is worth it: without them the runs of all its series have no times.
//!
//! Not here: what is in a section (`read`, `series`, `write`).

use std::ops::Range;

use super::{HEADER_LEN, ImageError, ImageHeader};
use crate::log::FrameError;

/// Bytes of a frame: length u32, crc32 of the body u32.
const FRAME_LEN: usize = 8;

/// What follows the frames at the end: count u32, crc32 over the frames and that u32, header.
const END_LEN: usize = 8 + HEADER_LEN;

/// A copy takes at most one of so many parts of the image: what is much of it costs much, and is most of what
/// damage would cost.
const COPY_SHARE: usize = 4;

/// What stands before a section, and once more at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    len: u32,
    crc: u32,
}

impl Frame {
    fn of(body: &[u8]) -> Frame {
        let len = u32::try_from(body.len()).expect("a section is below 4 GiB");
        Frame { len, crc: crc32fast::hash(body) }
    }

    fn encode(self) -> [u8; FRAME_LEN] {
        let mut bytes = [0; FRAME_LEN];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8], at: usize) -> Option<Frame> {
        let bytes = bytes.get(at..)?.first_chunk::<FRAME_LEN>()?;
        Some(Frame { len: half(&bytes[..4]), crc: half(&bytes[4..]) })
    }

    /// Where the body lies of the section that begins at an offset.
    fn body(self, at: usize) -> Range<usize> {
        at + FRAME_LEN..(at + FRAME_LEN).saturating_add(self.len as usize)
    }

    fn is_of(self, body: &[u8]) -> bool {
        self.crc == crc32fast::hash(body)
    }
}

fn half(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("four bytes"))
}

/// An image on its way to a file.
pub(super) struct ImageWriter {
    bytes: Vec<u8>,
    header: ImageHeader,
    frames: Vec<u8>,
}

impl ImageWriter {
    pub(super) fn new(header: ImageHeader) -> ImageWriter {
        ImageWriter { bytes: vec![0; HEADER_LEN], header, frames: Vec::new() }
    }

    pub(super) fn section(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.append(write);
        self.header.sections += 1;
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; FRAME_LEN]);
        write(&mut self.bytes);
        let (frame, body) = self.bytes[start..].split_at_mut(FRAME_LEN);
        frame.copy_from_slice(&Frame::of(body).encode());
        self.frames.extend_from_slice(frame);
    }

    /// Repeats the first section behind the last, unless it is much of all.
    pub(super) fn copy_first(&mut self) {
        let first = Frame::read(&self.bytes, HEADER_LEN).expect("a section was written");
        let body = first.body(HEADER_LEN);
        if body.len() <= self.bytes.len() / COPY_SHARE {
            let body = self.bytes[body].to_vec();
            self.append(|out| out.extend_from_slice(&body));
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let header = self.header.encode();
        self.bytes[..HEADER_LEN].copy_from_slice(&header);
        let count = (self.frames.len() / FRAME_LEN) as u32;
        self.frames.extend_from_slice(&count.to_le_bytes());
        self.bytes.extend_from_slice(&self.frames);
        self.bytes.extend_from_slice(&crc32fast::hash(&self.frames).to_le_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes
    }
}

impl ImageHeader {
    /// The header of an image: that in front, or the one at the end where that is damaged.
    pub(crate) fn find(bytes: &[u8]) -> Result<ImageHeader, ImageError> {
        match (ImageHeader::decode(bytes), bytes.last_chunk::<HEADER_LEN>()) {
            (Err(ImageError::Header), Some(last)) => ImageHeader::decode(last),
            (found, _) => found,
        }
    }
}

/// Where the sections lie, copies included, as the end says; `None` where there is none, or it is damaged.
fn sections_at_end(bytes: &[u8], header: &ImageHeader) -> Option<Vec<(usize, Frame)>> {
    let count_at = bytes.len().checked_sub(END_LEN)?;
    let count = half(&bytes[count_at..count_at + 4]);
    let frames_at = count_at.checked_sub((count as usize).checked_mul(FRAME_LEN)?)?;
    let crc = half(&bytes[count_at + 4..count_at + 8]);
    if count < header.sections || crc != crc32fast::hash(&bytes[frames_at..count_at + 4]) {
        return None;
    }
    lay_out(&bytes[frames_at..count_at], frames_at)
}

/// The frames with their offsets, if they reach just up to `end`.
fn lay_out(frames: &[u8], end: usize) -> Option<Vec<(usize, Frame)>> {
    let mut at = HEADER_LEN;
    let mut placed = Vec::with_capacity(frames.len() / FRAME_LEN);
    for bytes in frames.chunks_exact(FRAME_LEN) {
        let frame = Frame::read(bytes, 0)?;
        placed.push((at, frame));
        at = frame.body(at).end;
        if at > end {
            return None;
        }
    }
    (at == end).then_some(placed)
}

/// Walks the good sections of an image, by their numbers and as ranges of its bytes; names what is damaged.
pub(crate) fn sections(
    bytes: &[u8],
    header: &ImageHeader,
    mut visit: impl FnMut(u32, Range<usize>) -> Result<(), FrameError>,
    mut damage: impl FnMut(u64, &str),
) {
    let encoded = header.encode();
    if !bytes.starts_with(&encoded) {
        damage(0, "the header of the image is damaged; its copy is whole");
    }
    let Some(placed) = sections_at_end(bytes, header) else {
        return walk_frames(bytes, header, visit, damage);
    };
    let whole =
        |(at, frame): (usize, Frame)| Some(frame.body(at)).filter(|body| frame.is_of(&bytes[body.clone()]));
    let (counted, copies) = placed.split_at(header.sections as usize);
    for (number, &(at, frame)) in counted.iter().enumerate() {
        if Frame::read(bytes, at) != Some(frame) {
            damage(
                at as u64,
                "the length or the checksum of a section of the image is damaged; their copy is whole",
            );
        }
        let body = whole((at, frame));
        if body.is_none() {
            damage(at as u64, "a section of the image is damaged");
        }
        // Where that is whole, too, the copy costs nothing to ask.
        let body = body.or_else(|| copies.get(number).copied().and_then(whole));
        if body.is_some_and(|body| visit(number as u32, body).is_err()) {
            damage(at as u64, "a section of the image is malformed");
        }
    }
    for &(at, frame) in copies {
        if whole((at, frame)).is_none() || Frame::read(bytes, at) != Some(frame) {
            damage(at as u64, "a copy of a section of the image is damaged");
        }
    }
    if !bytes.ends_with(&encoded) {
        damage((bytes.len() - HEADER_LEN) as u64, "the copy of the header of the image is damaged");
    }
}

/// The same from one section to the next: damage to a length costs all that follow.
fn walk_frames(
    bytes: &[u8],
    header: &ImageHeader,
    mut visit: impl FnMut(u32, Range<usize>) -> Result<(), FrameError>,
    mut damage: impl FnMut(u64, &str),
) {
    let mut at = HEADER_LEN;
    for number in 0..header.sections {
        let Some(frame) = Frame::read(bytes, at) else {
            return damage(at as u64, "the image is cut short");
        };
        let body = frame.body(at);
        match bytes.get(body.clone()) {
            None => return damage(at as u64, "a section of the image is longer than the file"),
            Some(content) if !frame.is_of(content) => {
                damage(at as u64, "a section of the image is damaged");
            }
            Some(_) => {
                if visit(number, body.clone()).is_err() {
                    damage(at as u64, "a section of the image is malformed");
                }
            }
        }
        at = body.end;
    }
    if at < bytes.len() {
        damage(at as u64, "the end of the image is damaged");
    }
}

/// Reads bytes as what follows a header, and as the frames of an end: for tests of bytes that may be anything.
pub(super) fn walk_sections(bytes: &[u8], header: &ImageHeader) {
    let image = [&header.encode(), bytes].concat();
    let visit = |_, body: Range<usize>| {
        assert!(body.end <= image.len());
        Ok(())
    };
    sections(&image, header, visit, |_, _| {});
    for (at, frame) in lay_out(bytes, bytes.len()).unwrap_or_default() {
        assert!(frame.body(at).end <= bytes.len());
    }
}
