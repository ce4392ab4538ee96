#![no_main]
//! Columns of any bytes and any count, as they are and as the content of a frame: refused or decoded, never a
//! panic or unbounded memory.

use libfuzzer_sys::fuzz_target;
use tidewatch_chunk::{ValueCodec, decode_times, decode_values};

fuzz_target!(|input: (u16, &[u8])| {
    let (count, bytes) = input;
    let _ = decode_values(bytes, usize::from(count), &mut Vec::new());
    let _ = decode_times(bytes, usize::from(count), &mut Vec::new());
    let mut dense = vec![ValueCodec::Dense as u8];
    dense.extend(raw_frame(bytes));
    let _ = decode_values(&dense, usize::from(count), &mut Vec::new());
});

/// A zstd frame, without its magic, of one block with the bytes as they are: the length of the content in four
/// bytes, then a last block of type raw.
fn raw_frame(content: &[u8]) -> Vec<u8> {
    let content = &content[..content.len().min(1 << 16)];
    let mut frame = vec![0xa0];
    frame.extend((content.len() as u32).to_le_bytes());
    frame.extend(&((content.len() as u32) << 3 | 1).to_le_bytes()[..3]);
    frame.extend(content);
    frame
}
