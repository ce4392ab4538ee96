//! A list of blocks of any bytes: read or refused, never a panic; what is read is written as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    tidewatch_tsdb::walk_block_list(bytes);
});
