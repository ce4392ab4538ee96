//! A stored state of replicas with any bytes, its checksum made to hold: read or refused, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewatch_ingest::{HaOptions, HaTracker, decode_state, encode_state};

fuzz_target!(|bytes: &[u8]| {
    let mut file = b"TWHA\x01\0\0\0".to_vec();
    file.extend_from_slice(bytes);
    let crc = crc32fast::hash(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    for state in [bytes, &file] {
        let mut tracker = HaTracker::new(HaOptions::default());
        if decode_state(state, &mut tracker, 0).is_ok() {
            let again = encode_state(&tracker);
            decode_state(&again, &mut HaTracker::new(HaOptions::default()), 0).expect("just written");
        }
    }
});
