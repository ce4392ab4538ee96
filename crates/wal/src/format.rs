//! The bytes of a segment: one header, then frames without padding.

use crc32fast::Hasher;

/// The largest body of a frame.
pub const FRAME_BYTES_MAX: usize = 32 << 20;

/// The largest segment a reader loads; a longer file is damage. Twice the largest size that
/// may be configured, so that one frame beyond the size still fits.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The newest format that we read, and the one that we write.
pub(crate) const VERSION: u16 = 2;

pub const SEGMENT_HEADER_SIZE: usize = 32;
pub const FRAME_HEADER_SIZE: usize = 16;

const SEGMENT_MAGIC: [u8; 4] = *b"TWWL";
pub(crate) const FRAME_MAGIC: [u8; 4] = [0xa7, b'T', b'W', 0x9d];

/// Stands for the end of a previous segment that nobody could read.
pub(crate) const END_UNKNOWN: u64 = u64::MAX;

/// A place in the log: a segment's number and a byte in it. Later is larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    pub segment: u64,
    pub offset: u64,
}

impl Position {
    /// Before everything.
    pub const START: Position = Position { segment: 0, offset: 0 };
}

/// Fixed header of a segment file: 32 bytes, little-endian.
///
/// ```text
/// offset  size  field
///      0     4  magic         "TWWL"
///      4     2  version       2
///      6     2  reserved      zero
///      8     4  number        of this segment, as in its file name
///     12     4  previous_end  where the segment before ended when this one began: bytes
///                             behind it are a torn end. 0 for the first one, all ones
///                             where the one before could not be read
///     16     8  owner         whose log it is; 0 where that is not said
///     24     4  salt          drawn for this segment
///     28     4  crc32         over bytes 0..28
/// ```
///
/// In version 1, which is read, number and previous end have eight bytes each, and there is no owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) previous_end: u64,
    pub(crate) owner: u64,
    pub(crate) salt: u32,
}

/// What the first bytes of a file say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderCheck {
    Good(SegmentHeader),
    /// Whole, but of a release to come.
    Newer(u16),
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_SIZE] {
        let mut bytes = [0; SEGMENT_HEADER_SIZE];
        bytes[0..4].copy_from_slice(&SEGMENT_MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        let short = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        bytes[8..12].copy_from_slice(&short(self.number));
        bytes[12..16].copy_from_slice(&short(self.previous_end));
        bytes[16..24].copy_from_slice(&self.owner.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn check(bytes: &[u8]) -> HeaderCheck {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_SIZE>() else { return HeaderCheck::Damaged };
        if bytes[0..4] != SEGMENT_MAGIC || le_u32(&bytes[28..]) != crc32fast::hash(&bytes[..28]) {
            return HeaderCheck::Damaged;
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        let (number, previous_end, owner) = match version {
            1 => (le_u64(&bytes[8..]), le_u64(&bytes[16..]), 0),
            VERSION => {
                let end = le_u32(&bytes[12..]);
                let previous_end = if end == u32::MAX { END_UNKNOWN } else { end.into() };
                (le_u32(&bytes[8..]).into(), previous_end, le_u64(&bytes[16..]))
            }
            newer if newer > VERSION => return HeaderCheck::Newer(newer),
            _ => return HeaderCheck::Damaged,
        };
        if bytes[6..8] != [0, 0] {
            return HeaderCheck::Damaged;
        }
        HeaderCheck::Good(SegmentHeader { number, previous_end, owner, salt: le_u32(&bytes[24..]) })
    }

    /// Whether the segment is of somebody else's log.
    pub(crate) fn is_foreign(&self, owner: u64) -> bool {
        self.owner != 0 && owner != 0 && self.owner != owner
    }
}

/// Whether bytes begin a segment of a log, of this release or a newer one.
pub fn is_segment(bytes: &[u8]) -> bool {
    !matches!(SegmentHeader::check(bytes), HeaderCheck::Damaged)
}

/// Whose log the segment is of that these bytes begin; `None` where it does not say.
pub fn segment_owner(bytes: &[u8]) -> Option<u64> {
    match SegmentHeader::check(bytes) {
        HeaderCheck::Good(header) if header.owner != 0 => Some(header.owner),
        _ => None,
    }
}

/// Fixed header of a frame: 16 bytes, little-endian, followed by the body.
///
/// ```text
/// offset  size  field
///      0     4  magic   a7 'T' 'W' 9d
///      4     4  len     bytes of the body, at most FRAME_BYTES_MAX
///      8     4  salt    of the segment
///     12     4  crc32   over the body, then bytes 0..12, then the segment's number and the
///                       offset of this header in the file, 8 bytes each
/// ```
///
/// Number and offset in the checksum keep a frame from being believed anywhere but where it
/// was written (a file under another's name, a block of a deleted file that comes back after a
/// power cut). The salt, which no client knows, keeps a frame that a client sent as the content
/// of another from being believed once the outer one is damaged. The body comes first in the
/// checksum, so that it can be summed before the frame has its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) len: u32,
    pub(crate) salt: u32,
    pub(crate) crc: u32,
}

impl FrameHeader {
    /// The header of a frame at `position` whose body has gone through `body` already.
    pub(crate) fn seal(len: u32, salt: u32, body: Hasher, position: Position) -> FrameHeader {
        FrameHeader { len, salt, crc: finish(body, len, salt, position) }
    }

    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER_SIZE] {
        let mut bytes = [0; FRAME_HEADER_SIZE];
        bytes[..12].copy_from_slice(&summed_part(self.len, self.salt));
        bytes[12..].copy_from_slice(&self.crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, not yet compared with any body. `None` where there
    /// is none, or one with an impossible length.
    pub(crate) fn decode(bytes: &[u8]) -> Option<FrameHeader> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_SIZE>()?;
        let header =
            FrameHeader { len: le_u32(&bytes[4..]), salt: le_u32(&bytes[8..]), crc: le_u32(&bytes[12..]) };
        (bytes[..4] == FRAME_MAGIC && header.len as usize <= FRAME_BYTES_MAX).then_some(header)
    }

    pub(crate) fn matches(&self, body: &[u8], position: Position) -> bool {
        let mut hasher = Hasher::new();
        hasher.update(body);
        finish(hasher, self.len, self.salt, position) == self.crc
    }
}

fn summed_part(len: u32, salt: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[0..4].copy_from_slice(&FRAME_MAGIC);
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    bytes[8..12].copy_from_slice(&salt.to_le_bytes());
    bytes
}

fn finish(mut hasher: Hasher, len: u32, salt: u32, position: Position) -> u32 {
    hasher.update(&summed_part(len, salt));
    hasher.update(&position.segment.to_le_bytes());
    hasher.update(&position.offset.to_le_bytes());
    hasher.finalize()
}

/// The first four bytes, of which the caller has made sure.
fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(*bytes.first_chunk().expect("four bytes"))
}

fn le_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_segment_header_is_frozen() {
        let (number, previous_end, salt) = (0x0102, 0x0304, 0x0506_0708);
        let check = |header: SegmentHeader, expected: [u8; 28]| {
            let crc = crc32fast::hash(&expected).to_le_bytes();
            let bytes = [&expected[..], &crc].concat();
            assert_eq!(SegmentHeader::check(&bytes), HeaderCheck::Good(header));
            bytes
        };
        let header = SegmentHeader { number, previous_end, owner: 0x0a0b_0c0d, salt };
        let now = check(
            header,
            [
                b'T', b'W', b'W', b'L', 2, 0, 0, 0, //
                2, 1, 0, 0, 4, 3, 0, 0, //
                0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0, //
                8, 7, 6, 5,
            ],
        );
        assert_eq!(header.encode()[..], now);
        let unknown = SegmentHeader { previous_end: END_UNKNOWN, ..header };
        assert_eq!(SegmentHeader::check(&unknown.encode()), HeaderCheck::Good(unknown));
        check(
            SegmentHeader { owner: 0, ..header },
            [
                b'T', b'W', b'W', b'L', 1, 0, 0, 0, //
                2, 1, 0, 0, 0, 0, 0, 0, //
                4, 3, 0, 0, 0, 0, 0, 0, //
                8, 7, 6, 5,
            ],
        );
    }

    #[test]
    fn a_newer_header_is_told_from_a_damaged_one() {
        let mut bytes = SegmentHeader { number: 1, previous_end: 0, owner: 0, salt: 0 }.encode();
        bytes[4] = 3;
        assert_eq!(SegmentHeader::check(&bytes), HeaderCheck::Damaged);
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::check(&bytes), HeaderCheck::Newer(3));
        assert_eq!(SegmentHeader::check(&bytes[..31]), HeaderCheck::Damaged);
    }

    #[test]
    fn the_frame_header_is_frozen() {
        let mut body = Hasher::new();
        body.update(b"abc");
        let position = Position { segment: 1, offset: 32 };
        let header = FrameHeader::seal(3, 0x0a0b_0c0d, body, position);
        let bytes = header.encode();
        assert_eq!(bytes[..12], [0xa7, b'T', b'W', 0x9d, 3, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a]);
        let mut summed = b"abc".to_vec();
        summed.extend_from_slice(&bytes[..12]);
        summed.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(le_u32(&bytes[12..]), crc32fast::hash(&summed));
        assert!(header.matches(b"abc", position));
        assert!(!header.matches(b"abc", Position { segment: 2, offset: 32 }));
        assert!(!header.matches(b"abc", Position { segment: 1, offset: 33 }));
        assert_eq!(FrameHeader::decode(&bytes), Some(header));
    }
}
