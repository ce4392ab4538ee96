//! The frame of an image: its header and where its sections lie, and what a damaged section is rebuilt from.
//!
//! ```text
//! header │ frame body │ frame body │ … │ parity │ frames │ count │ crc32 │ header
//!        └─ as many as the header says ┘        └─ what the end has once more ───┘
//! ```
//!
//! The length before a section says where the next begins: one changed bit there would cost all that follow, and
//! one in the header the image. So both stand at the end as well, and what differs is named. An image of an earlier
//! release has no end, and such a release does not read on behind the last section; so the end changes no
//! version.
//!
//! A section whose checksum does not hold is rebuilt from the parity (see `parity`), must hold under the checksum that
//! the end has of it, is named, and costs nothing. Where too much is damaged it is lost.
//!
//! Releases between had copies of the first sections instead, behind the others and counted in the end. Here they are
//! passed over; those releases find the checksum of an end with parity wrong, and go by the lengths.
//!
//! Not here: what is in a section (`read`, `series`, `write`).

use std::ops::Range;

use bytes::Bytes;

use super::parity::{self, Parity, Stripes};
use super::{HEADER_LEN, ImageError, ImageHeader};
use crate::log::FrameError;

#[cfg(test)]
mod tests;

/// Bytes of a frame: length u32, crc32 of the body u32.
const FRAME_LEN: usize = 8;

/// What follows the frames at the end: count u32, crc32, header.
const END_LEN: usize = 8 + HEADER_LEN;

/// What the checksum of an end begins with that has parity. It goes over the parity's checksums, the frames and
/// their count.
const WITH_PARITY: &[u8] = b"parity";

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
        self.header.sections += 1;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; FRAME_LEN]);
        write(&mut self.bytes);
        let (frame, body) = self.bytes[start..].split_at_mut(FRAME_LEN);
        frame.copy_from_slice(&Frame::of(body).encode());
        self.frames.extend_from_slice(frame);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        let header = self.header.encode();
        self.bytes[..HEADER_LEN].copy_from_slice(&header);
        let crcs_len = Stripes::of(self.bytes.len() - HEADER_LEN).crcs_len();
        parity::append(HEADER_LEN, &mut self.bytes);
        let checked_from = self.bytes.len() - crcs_len;
        self.bytes.extend_from_slice(&self.frames);
        self.bytes.extend_from_slice(&self.header.sections.to_le_bytes());
        let crc = checksum(WITH_PARITY, &self.bytes[checked_from..]);
        self.bytes.extend_from_slice(&crc.to_le_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes
    }
}

/// Of an end.
fn checksum(first: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(first);
    hasher.update(bytes);
    hasher.finalize()
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

/// Where the sections of an image lie, and what they are rebuilt from.
struct Layout<'a> {
    file: &'a Bytes,
    placed: Vec<(usize, Frame)>,
    /// Of all bytes between the header and the end of the last section.
    parity: Option<Parity<'a>>,
}

impl Layout<'_> {
    /// As the end says; `None` where there is none, or it is damaged.
    fn at_end<'a>(file: &'a Bytes, header: &ImageHeader) -> Option<Layout<'a>> {
        let count_at = file.len().checked_sub(END_LEN)?;
        let count = half(&file[count_at..count_at + 4]);
        let frames_at = count_at.checked_sub((count as usize).checked_mul(FRAME_LEN)?)?;
        let crc = half(&file[count_at + 4..count_at + 8]);
        let (mut placed, end) = lay_out(&file[frames_at..count_at], frames_at)?;
        let stripes = Stripes::of(end - HEADER_LEN);
        if end + stripes.encoded_len() == frames_at && count == header.sections {
            let checked = &file[frames_at - stripes.crcs_len()..count_at + 4];
            let parity = Parity::of(&file[HEADER_LEN..end], &file[end..frames_at])?;
            return (crc == checksum(WITH_PARITY, checked)).then_some(Layout {
                file,
                placed,
                parity: Some(parity),
            });
        }
        if end != frames_at || count < header.sections || crc != checksum(&[], &file[frames_at..count_at + 4])
        {
            return None;
        }
        placed.truncate(header.sections as usize);
        Some(Layout { file, placed, parity: None })
    }

    /// A section, as it lies there or rebuilt; names what is damaged of it.
    fn section(&self, number: usize, damage: &mut impl FnMut(u64, &str)) -> Option<Section> {
        let offset = self.placed[number].0 as u64;
        let of_file = self.whole(number).map(|body| self.file.slice(body));
        let in_file = of_file.is_some();
        let body = of_file.or_else(|| self.rebuild(number).map(Bytes::from));
        if body.is_none() {
            damage(offset, "a section of the image is damaged");
        } else if !in_file {
            damage(offset, "a section of the image is damaged; it was rebuilt from the parity");
        } else if !self.is_framed(number) {
            let reason =
                "the length or the checksum of a section of the image is damaged; their copy is whole";
            damage(offset, reason);
        }
        body.map(|body| Section { number: number as u32, offset, body, in_file })
    }

    /// Where the body of a section lies, if its checksum holds.
    fn whole(&self, number: usize) -> Option<Range<usize>> {
        let (at, frame) = self.placed[number];
        Some(frame.body(at)).filter(|body| frame.is_of(&self.file[body.clone()]))
    }

    /// Whether the same stands before a section.
    fn is_framed(&self, number: usize) -> bool {
        let (at, frame) = self.placed[number];
        Frame::read(self.file, at) == Some(frame)
    }

    /// The body of a section, as it was.
    fn rebuild(&self, number: usize) -> Option<Vec<u8>> {
        let (at, frame) = self.placed[number];
        let Range { start, end } = frame.body(at);
        let body = self.parity?.rebuild(start - HEADER_LEN..end - HEADER_LEN)?;
        frame.is_of(&body).then_some(body)
    }
}

/// The frames with their offsets, and where the last section ends, if that is not behind `end_max`.
fn lay_out(frames: &[u8], end_max: usize) -> Option<(Vec<(usize, Frame)>, usize)> {
    let mut at = HEADER_LEN;
    let mut placed = Vec::with_capacity(frames.len() / FRAME_LEN);
    for bytes in frames.chunks_exact(FRAME_LEN) {
        let frame = Frame::read(bytes, 0)?;
        placed.push((at, frame));
        at = frame.body(at).end;
        if at > end_max {
            return None;
        }
    }
    (at <= end_max).then_some((placed, at))
}

/// A section whose checksum holds.
pub(crate) struct Section {
    pub(crate) number: u32,
    /// Where it begins in the image, or ought to.
    pub(crate) offset: u64,
    pub(crate) body: Bytes,
    /// Whether the body is a part of the image; it is not where it was rebuilt.
    pub(crate) in_file: bool,
}

/// Walks the good sections of an image; names what is damaged. Gives whether none was lost.
pub(crate) fn sections(
    file: &Bytes,
    header: &ImageHeader,
    mut visit: impl FnMut(Section) -> Result<(), FrameError>,
    mut damage: impl FnMut(u64, &str),
) -> bool {
    let encoded = header.encode();
    if !file.starts_with(&encoded) {
        damage(0, "the header of the image is damaged; its copy is whole");
    }
    let Some(layout) = Layout::at_end(file, header) else {
        return walk_frames(file, header, visit, damage);
    };
    let (counted, mut taken) = (header.sections as usize, 0);
    for number in 0..counted {
        let Some(section) = layout.section(number, &mut damage) else { continue };
        let offset = section.offset;
        match visit(section) {
            Ok(()) => taken += 1,
            Err(_) => damage(offset, "a section of the image is malformed"),
        }
    }
    if layout.parity.is_some_and(|parity| !parity.is_whole()) {
        let end = layout.placed.last().map_or(HEADER_LEN, |(at, frame)| frame.body(*at).end);
        damage(end as u64, "the parity of the image is damaged");
    }
    if !file.ends_with(&encoded) {
        damage((file.len() - HEADER_LEN) as u64, "the copy of the header of the image is damaged");
    }
    taken == counted
}

/// The same from one section to the next: damage to a length costs all that follow.
fn walk_frames(
    file: &Bytes,
    header: &ImageHeader,
    mut visit: impl FnMut(Section) -> Result<(), FrameError>,
    mut damage: impl FnMut(u64, &str),
) -> bool {
    let (mut at, mut taken) = (HEADER_LEN, 0);
    for number in 0..header.sections {
        let offset = at as u64;
        let Some(frame) = Frame::read(file, at) else {
            damage(offset, "the image is cut short");
            return false;
        };
        let body = frame.body(at);
        at = body.end;
        if at > file.len() {
            damage(offset, "a section of the image is longer than the file");
            return false;
        }
        let body = file.slice(body);
        if !frame.is_of(&body) {
            damage(offset, "a section of the image is damaged");
        } else if visit(Section { number, offset, body, in_file: true }).is_err() {
            damage(offset, "a section of the image is malformed");
        } else {
            taken += 1;
        }
    }
    if at < file.len() {
        damage(at as u64, "the end of the image is damaged");
    }
    taken == header.sections
}

/// Reads bytes as what follows a header, and as the frames of an end: for tests of bytes that may be anything.
pub(super) fn walk_sections(bytes: &[u8], header: &ImageHeader) {
    let image = Bytes::from([&header.encode(), bytes].concat());
    let visit = |section: Section| {
        assert!(section.body.len() < image.len());
        Ok(())
    };
    sections(&image, header, visit, |_, _| {});
    // As the bytes of sections, behind which stands anything.
    let (bytes, encoded) = bytes.split_at(bytes.len() / 3);
    if let Some(parity) = Parity::of(bytes, encoded) {
        let _ = (parity.is_whole(), parity.rebuild(0..bytes.len()));
    }
    let mut image = bytes.to_vec();
    parity::append(0, &mut image);
    image.iter_mut().zip(encoded).for_each(|(byte, change)| *byte ^= change);
    let (bytes, encoded) = image.split_at(bytes.len());
    let parity = Parity::of(bytes, encoded).expect("as long as that");
    assert!(parity.rebuild(0..bytes.len()).is_none_or(|rebuilt| rebuilt.len() == bytes.len()));
}
