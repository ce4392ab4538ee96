#![no_main]
//! A segment of Prometheus' log of any bytes, and any record: read or named, never a panic.

use libfuzzer_sys::fuzz_target;
use tidewatch_migrate::prometheus::{decode_record, read_segment};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_record(bytes);
    read_segment(bytes, &mut |_, _| {}, &mut |_, record| {
        let _ = decode_record(record);
    });
});
