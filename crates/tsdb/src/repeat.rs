//! A frame of definitions once more, compressed: for who finds the first one damaged.
//!
//! ```text
//! offset  size  field
//!      0     2  kind (8), flags as in `log`
//!      2     1  place   0: right behind the first one; 1: a page of samples behind it
//!      3     8  hash    XXH3-64 of the first one
//!     11     4  length  bytes of the first one
//!            …  the first one under zstd
//! ```
//!
//! A reader that has the first one knows this one by its hash and need not unpack it.
//!
//! Not here: when it is logged (`head::repeats`), what a start makes of it (`recover`).

use tidewatch_wal::FRAME_BYTES_MAX;
use xxhash_rust::xxh3::xxh3_64;

use crate::fields::Reader;
use crate::log::{Frame, FrameError, FrameKind, read_frame};

/// Most of what is to be gained: pairs that differ in few bytes, lists of ascending numbers.
const LEVEL: i32 = 1;

/// How far behind the first one it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Place {
    Near = 0,
    Far = 1,
}

/// What the repeats of a frame know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FrameHash(u64);

impl FrameHash {
    pub(crate) fn of(frame: &[u8]) -> FrameHash {
        FrameHash(xxh3_64(frame))
    }
}

/// The frame that repeats a frame of definitions right behind it.
pub(crate) fn write_repeat(definitions: &[u8]) -> Vec<u8> {
    let body = zstd::bulk::compress(definitions, LEVEL).expect("memory takes all");
    let mut out = Vec::with_capacity(15 + body.len());
    out.extend_from_slice(&[FrameKind::Repeat as u8, 0, Place::Near as u8]);
    out.extend_from_slice(&FrameHash::of(definitions).0.to_le_bytes());
    out.extend_from_slice(&(definitions.len() as u32).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// Says of a frame of [`write_repeat`] that it stands a page behind the first one.
pub(crate) fn set_far(repeat: &mut [u8]) {
    repeat[2] = Place::Far as u8;
}

#[derive(Debug)]
pub(crate) struct Repeat<'a> {
    pub(crate) place: Place,
    pub(crate) hash: FrameHash,
    length: usize,
    body: &'a [u8],
}

pub(crate) fn read_repeat(mut reader: Reader<'_>) -> Result<Repeat<'_>, FrameError> {
    let place = match reader.byte()? {
        0 => Place::Near,
        1 => Place::Far,
        _ => return Err(FrameError::Malformed),
    };
    let hash = FrameHash(u64::from_le_bytes(reader.array()?));
    let length = u32::from_le_bytes(reader.array()?) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::Malformed);
    }
    Ok(Repeat { place, hash, length, body: reader.bytes })
}

impl Repeat<'_> {
    /// The frame of definitions.
    pub(crate) fn unpack(&self) -> Result<Vec<u8>, FrameError> {
        let frame = zstd::bulk::decompress(self.body, self.length).map_err(|_| FrameError::Malformed)?;
        let is_same = frame.len() == self.length && FrameHash::of(&frame) == self.hash;
        if is_same { Ok(frame) } else { Err(FrameError::Malformed) }
    }

    /// Whether it has definitions that can be read.
    pub(crate) fn check(&self) -> Result<(), FrameError> {
        let frame = self.unpack()?;
        match read_frame(&frame)? {
            definitions @ Frame::Definitions(_) => definitions.check(),
            _ => Err(FrameError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::walk;

    /// A frame of definitions of one series, `{a="x"}`.
    const ONE: [u8; 14] = [2, 0, 7, 0, 0, 0, 1, 1, b'a', 1, b'x', 1, 1, 0];

    #[test]
    fn a_repeat_is_frozen() {
        let mut bytes = write_repeat(&ONE);
        let head = [
            8, 0, 0, // kind, flags, place
            0xc9, 0x78, 0x03, 0x1b, 0x26, 0x80, 0x75, 0x6a, // hash
            14, 0, 0, 0, // length
        ];
        assert_eq!(bytes[..15], head, "{:02x?}", &bytes[..15]);
        set_far(&mut bytes);
        let Ok(Frame::Repeat(repeat)) = read_frame(&bytes) else { panic!("not a repeat") };
        assert_eq!((repeat.place, repeat.hash), (Place::Far, FrameHash::of(&ONE)));
        assert_eq!(repeat.unpack().expect("whole"), ONE);
        repeat.check().expect("definitions");
    }

    #[test]
    fn what_is_changed_or_holds_something_else_is_refused() {
        let bytes = write_repeat(&ONE);
        for at in 3..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let unpacked = match read_frame(&changed) {
                Ok(Frame::Repeat(repeat)) => repeat.unpack(),
                Ok(frame) => panic!("{frame:?}"),
                Err(error) => Err(error),
            };
            // Only the head of the zstd frame has bits that say nothing of its content.
            assert!(unpacked.is_err() || at < 24 && unpacked.as_deref() == Ok(&ONE[..]), "byte {at}");
        }
        let nested = write_repeat(&bytes);
        let Ok(Frame::Repeat(repeat)) = read_frame(&nested) else { panic!("not a repeat") };
        assert_eq!(repeat.check(), Err(FrameError::Malformed));
    }

    proptest! {
        #[test]
        fn what_is_repeated_comes_back(frame in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let bytes = write_repeat(&frame);
            let Ok(Frame::Repeat(repeat)) = read_frame(&bytes) else { panic!("not a repeat") };
            prop_assert_eq!(repeat.unpack().expect("whole"), frame);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(rest in proptest::collection::vec(any::<u8>(), 0..80)) {
            walk(&[&[8, 0][..], &rest].concat());
        }
    }
}
