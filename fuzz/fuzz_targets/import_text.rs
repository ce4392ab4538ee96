#![no_main]
//! Lines of an import of any bytes: read or refused, never a panic.

use libfuzzer_sys::fuzz_target;
use tidewatch_migrate::{jsonl, openmetrics};

fuzz_target!(|bytes: &[u8]| {
    let mut reader = openmetrics::Reader::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = jsonl::read(line);
        let _ = reader.read(line);
    }
});
