//! A frame of the log with any bytes: read or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| tidewatch_tsdb::walk_frame(bytes));
