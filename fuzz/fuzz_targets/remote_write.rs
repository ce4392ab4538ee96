#![no_main]
//! A decompressed write request: no panic, no memory beyond what its bytes justify.
use libfuzzer_sys::fuzz_target;
use tidewatch_model::{Batch, Limits};

fuzz_target!(|body: &[u8]| {
    let (mut reordered, mut batch) = (Vec::new(), Batch::new());
    if tidewatch_ingest::decode_write_request(body, &Limits::default(), &mut reordered, &mut batch).is_ok() {
        let mut again = Vec::new();
        tidewatch_ingest::encode_write_request(&batch, &mut again);
    }
});
