#![no_main]
//! A stretch of histograms with any bytes, kind and count: refused or decoded, and what is decoded
//! can be encoded again.

use libfuzzer_sys::fuzz_target;
use tidewatch_chunk::{
    HistogramEncoder, SampleKind, decode_float_histograms, decode_histograms, stretch_len,
};
use tidewatch_model::NativeHistogram;

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (kind, count, bytes) = input;
    let Some(kind) = SampleKind::of(kind % 3) else { return };
    let mut histograms = Vec::new();
    let decoded = decode_histograms(kind, bytes, usize::from(count), &mut histograms);
    let mut floats = Vec::new();
    let as_floats = decode_float_histograms(kind, bytes, usize::from(count), &mut floats);
    assert_eq!(decoded.is_ok(), as_floats.is_ok());
    if decoded.is_ok() && stretch_len(&histograms) == histograms.len() {
        let (mut again, mut back) = (Vec::new(), Vec::new());
        let kind = HistogramEncoder::new().encode(&histograms, &mut again);
        decode_histograms(kind, &again, histograms.len(), &mut back).expect("just encoded");
        // A threshold that is not a number is like no other for queries, and comes back all the same.
        let same = |(a, b): (&NativeHistogram, &NativeHistogram)| a.same_data(b) || text(a) == text(b);
        assert!(histograms.iter().zip(&back).all(same));
    }
});

fn text(histogram: &NativeHistogram) -> String {
    format!("{histogram:?}")
}
