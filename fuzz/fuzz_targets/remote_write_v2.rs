#![no_main]
//! A decompressed request of remote write 2.0: no panic, no memory beyond what it is given room for,
//! labels that 1.0 spells alike, and nothing left in the buffers that the next request could meet.
use libfuzzer_sys::fuzz_target;
use tidewatch_ingest::{Spelling, decode_write_request, decode_write_request_v2, encode_write_request};
use tidewatch_model::{Batch, Limits};

fuzz_target!(|body: &[u8]| {
    let limits = Limits { write_body_bytes: 1 << 20, ..Limits::default() };
    let mut given = 0;
    let mut room = |bytes| {
        given += bytes;
        true
    };
    let (mut spelling, mut batch) = (Spelling::default(), Batch::new());
    let Ok(first) = decode_write_request_v2(body, &limits, &mut room, &mut spelling, &mut batch) else {
        assert!(given <= limits.write_body_bytes + 3 * limits.label_set_bytes);
        return;
    };
    let mut once = Vec::new();
    encode_write_request(&batch, &mut once);
    let (mut reordered, mut again) = (Vec::new(), Batch::new());
    if let Ok(summary) = decode_write_request(&once, &limits, &mut reordered, &mut again) {
        assert_eq!((summary.series, summary.samples), (first.series, first.samples));
        let same = batch.series.iter().zip(&again.series).all(|(a, b)| a.labels == b.labels);
        assert!(same, "labels are not spelled as in 1.0");
    }
    // The buffers of one request are the next one's.
    drop((batch, again));
    let mut batch = Batch::new();
    let second = decode_write_request_v2(body, &limits, &mut |_| true, &mut spelling, &mut batch);
    assert_eq!(second, Ok(first));
    let mut twice = Vec::new();
    encode_write_request(&batch, &mut twice);
    assert!(once == twice, "the same request reads otherwise the second time");
});
