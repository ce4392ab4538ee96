//! A client's certificate: its names are read without a panic, whatever the bytes are.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = tidewatch_server::alternative_names(bytes);
});
