#![no_main]
//! Files of a Prometheus block of any bytes: refused or read, never a panic.

use libfuzzer_sys::fuzz_target;
use tidewatch_migrate::prometheus::{Index, decode_tombstones, decode_xor};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_xor(bytes, &mut Vec::new(), &mut Vec::new());
    let _ = decode_tombstones(bytes);
    if let Ok(index) = Index::open(bytes.to_vec().into()) {
        let visited: Result<(), ()> = index.visit(&mut |_, _| {}, &mut |_| Ok(()));
        visited.expect("no visit fails");
    }
});
