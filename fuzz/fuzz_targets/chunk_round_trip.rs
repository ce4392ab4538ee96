#![no_main]
//! Any doubles come back bit for bit, whichever encoder they go through.

use libfuzzer_sys::fuzz_target;
use tidewatch_chunk::{COUNT_MAX, DenseEncoder, decode_values, encode_values};

fuzz_target!(|input: (u8, Vec<u64>)| {
    let (times, bits) = input;
    // What repeats itself is dense.
    let bits = bits.iter().cycle().take((bits.len() * (1 + usize::from(times % 8))).min(COUNT_MAX));
    let values: Vec<f64> = bits.map(|bits| f64::from_bits(*bits)).collect();
    let (mut plain, mut dense) = (Vec::new(), Vec::new());
    encode_values(&values, &mut plain);
    DenseEncoder::new().encode(&values, &mut dense);
    assert!(dense.len() <= plain.len());
    for column in [plain, dense] {
        let mut back = Vec::new();
        decode_values(&column, values.len(), &mut back).expect("just encoded");
        assert!(values.iter().map(|v| v.to_bits()).eq(back.iter().map(|v| v.to_bits())));
    }
});
