#![no_main]
//! Columns of any bytes and any count: refused or decoded, never a panic or unbounded memory.

use libfuzzer_sys::fuzz_target;
use tidewatch_chunk::{decode_times, decode_values};

fuzz_target!(|input: (u16, &[u8])| {
    let (count, bytes) = input;
    let _ = decode_values(bytes, usize::from(count), &mut Vec::new());
    let _ = decode_times(bytes, usize::from(count), &mut Vec::new());
});
