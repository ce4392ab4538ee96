//! Columns of timestamps: integers, packed as they are.
//!
//! ```text
//! codec   u8   1
//! ints    …    see `ints`
//! ```
//!
//! A regular clock costs some ten bytes whatever its length; a jittering one has its
//! differences above their smallest, or folded differences of differences.

use crate::ints::{self, IntScratch};
use crate::varint::take_byte;
use crate::{COUNT_MAX, ChunkError};

const INTS: u8 = 1;

/// Appends a column of timestamps (or of any integers) to `out`.
///
/// # Panics
/// If there are more than [`COUNT_MAX`].
pub fn encode_times(times: &[i64], out: &mut Vec<u8>) {
    assert!(times.len() <= COUNT_MAX, "a column has at most COUNT_MAX samples");
    out.push(INTS);
    if !times.is_empty() {
        ints::encode(times, &mut IntScratch::default(), out);
    }
}

/// Appends the `count` timestamps of a column to `out`; on an error `out` is as it was.
pub fn decode_times(bytes: &[u8], count: usize, out: &mut Vec<i64>) -> Result<(), ChunkError> {
    let start = out.len();
    let result = append_times(bytes, count, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn append_times(mut input: &[u8], count: usize, out: &mut Vec<i64>) -> Result<(), ChunkError> {
    if count > COUNT_MAX {
        return Err(ChunkError::Count(count));
    }
    match take_byte(&mut input)? {
        INTS => {}
        other => return Err(ChunkError::Codec(other)),
    }
    if count > 0 {
        out.reserve(count);
        ints::decode(&mut input, count, |_, piece| out.extend_from_slice(piece))?;
    }
    if input.is_empty() { Ok(()) } else { Err(ChunkError::Long) }
}
