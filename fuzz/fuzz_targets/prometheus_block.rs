#![no_main]
//! Files of a Prometheus block of any bytes: refused or read, never a panic.

use libfuzzer_sys::fuzz_target;
use tidewatch_migrate::prometheus::{
    FLOAT, INTEGER, Index, decode_histograms, decode_tombstones, decode_xor, decode_xor2,
};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_xor(bytes, &mut Vec::new(), &mut Vec::new());
    let _ = decode_xor2(bytes, &mut Vec::new(), &mut Vec::new(), &mut Vec::new());
    for encoding in [INTEGER, FLOAT] {
        let _ = decode_histograms(encoding, bytes, &mut Vec::new(), &mut Vec::new());
    }
    let _ = decode_tombstones(bytes);
    if let Ok(index) = Index::open(bytes.to_vec().into()) {
        let visited: Result<(), ()> = index.visit(&mut |_, _| {}, &mut |_| Ok(()));
        visited.expect("no visit fails");
    }
});
