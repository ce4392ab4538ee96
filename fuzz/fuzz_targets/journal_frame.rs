//! Any bytes as a frame of the journal: what is read has one spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_journal::{decode_frame, encode_frame};

fuzz_target!(|data: &[u8]| {
    if let Ok(records) = decode_frame(data) {
        let mut again = Vec::new();
        encode_frame(&records, &mut again);
        assert_eq!(again, data);
    }
});
