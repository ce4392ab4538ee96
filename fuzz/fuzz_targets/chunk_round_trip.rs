#![no_main]
//! Any doubles come back bit for bit.

use libfuzzer_sys::fuzz_target;
use tidewatch_chunk::{COUNT_MAX, decode_values, encode_values};

fuzz_target!(|bits: Vec<u64>| {
    let values: Vec<f64> = bits.iter().take(COUNT_MAX).map(|bits| f64::from_bits(*bits)).collect();
    let (mut column, mut back) = (Vec::new(), Vec::new());
    encode_values(&values, &mut column);
    decode_values(&column, values.len(), &mut back).expect("just encoded");
    assert!(values.iter().map(|v| v.to_bits()).eq(back.iter().map(|v| v.to_bits())));
});
