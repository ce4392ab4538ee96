#![no_main]
//! The snappy block around a write request.
use libfuzzer_sys::fuzz_target;
use tidewatch_model::Limits;

fuzz_target!(|compressed: &[u8]| {
    let mut body = Vec::new();
    let _ = tidewatch_ingest::decompress(compressed, &Limits::default(), &mut body);
});
