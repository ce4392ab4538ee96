//! Chunks of histograms: bits worked out by hand, and what is written reads back.

use proptest::prelude::*;

use super::*;

type Samples = (Vec<i64>, Vec<NativeHistogram>);

fn read(encoding: u8, bytes: &[u8]) -> Result<Samples, &'static str> {
    let (mut times, mut histograms) = (Vec::new(), Vec::new());
    decode(encoding, bytes, &mut times, &mut histograms).map(|()| (times, histograms))
}

fn integer(count: u64, hint: CounterResetHint) -> NativeHistogram {
    NativeHistogram::Integer(Histogram {
        hint,
        count,
        sum: 1.0,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_deltas: vec![count as i64],
        ..Histogram::default()
    })
}

/// Bits as text to bytes.
fn packed(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut sink = Sink::new(&mut out);
    text.bytes().filter(u8::is_ascii_digit).for_each(|bit| sink.put(u64::from(bit - b'0'), 1));
    out
}

/// Worked out by hand from Prometheus' description.
#[test]
fn the_bytes_are_frozen() {
    let histograms = [integer(2, CounterResetHint::Reset), integer(3, CounterResetHint::NotReset)];
    let mut bytes = Vec::new();
    assert_eq!(encode(&[1000, 2000], &histograms, &mut bytes), INTEGER);
    let expected = packed(&format!(
        "00000000 00000010 10000000 00000000 0 10001 10001 0 0 \
         11110001111101000 10010 0 {:064b} 10010 \
         11110001111101000 10001 0 0 10001",
        1f64.to_bits()
    ));
    assert_eq!(bytes, expected);
}

/// Every kind of threshold and bound, in the bits that Prometheus gives them.
#[test]
fn layouts_are_frozen() {
    let custom = NativeHistogram::Float(FloatHistogram {
        schema: CUSTOM_BUCKETS_SCHEMA,
        custom_values: Some(Arc::from([-1.0, 0.005, 33_554.43, 33_554.431])),
        ..FloatHistogram::default()
    });
    let expected = format!(
        "00000000 1110111001011 0 0 10100 0{:064b} 10110 1111110 {:025b} 0{:064b}",
        (-1f64).to_bits(),
        33_554_431,
        33_554.431f64.to_bits()
    );
    check_layout(&custom, &expected);
    for (threshold, expected) in [
        (2f64.powi(-128), "01110100".to_owned()),
        (2f64.powi(-243), "00000001".to_owned()),
        (2f64.powi(10), "11111110".to_owned()),
        (2f64.powi(11), format!("11111111 {:064b}", 2f64.powi(11).to_bits())),
        (0.001, format!("11111111 {:064b}", 0.001f64.to_bits())),
    ] {
        let histogram = Histogram { zero_threshold: threshold, ..Histogram::default() };
        check_layout(&NativeHistogram::Integer(histogram), &format!("{expected} 0 0 0"));
    }
}

#[track_caller]
fn check_layout(histogram: &NativeHistogram, expected: &str) {
    let mut bytes = Vec::new();
    put_layout(&mut Sink::new(&mut bytes), histogram);
    assert_eq!(bytes, packed(expected));
    let read = read_layout(&mut Bits::new(&bytes)).expect("what we wrote");
    let layout = histogram.layout();
    assert_eq!(read.schema, layout.schema);
    assert_eq!(read.zero_threshold, layout.zero_threshold);
    assert_eq!(read.bounds.as_deref(), layout.custom_values);
}

#[test]
fn what_can_not_stand_in_one_chunk_is_told_apart() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    let first = integer(1, Unknown);
    let goes_on = |next: &NativeHistogram| follows(&first, &first, next);
    assert!(goes_on(&integer(2, NotReset)) && goes_on(&NativeHistogram::stale()));
    assert!([Unknown, Reset, Gauge].iter().all(|hint| !goes_on(&integer(2, *hint))));
    assert!(!goes_on(&NativeHistogram::Float(integer(2, NotReset).into_float())));
    let (gauge, marker) = (integer(1, Gauge), NativeHistogram::stale());
    assert!(follows(&gauge, &gauge, &gauge) && !follows(&gauge, &gauge, &integer(2, NotReset)));
    assert!(!follows(&first, &marker, &integer(2, NotReset)) && follows(&first, &marker, &marker));
}

#[test]
fn a_chunk_that_claims_too_much_is_refused() {
    // 65,535 samples of 1,000 empty spans, in a bit or two each.
    let mut bytes = vec![0xff, 0xff, 0, 0];
    let mut sink = Sink::new(&mut bytes);
    sink.put_signed_varbit(0);
    sink.put_varbit(1000);
    sink.put(0, 64);
    bytes.resize(40_000, 0);
    assert_eq!(read(INTEGER, &bytes), Err("the chunk has more buckets than any that is written"));
    let mut bytes = vec![0, 1, 0, 0];
    let mut sink = Sink::new(&mut bytes);
    sink.put_signed_varbit(0);
    sink.put_varbit(1);
    sink.put_varbit(u32::MAX.into());
    bytes.resize(100, 0);
    assert_eq!(read(FLOAT, &bytes), Err("the layout of the chunk's buckets is none"));
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    let span = (any::<i32>(), 0u32..5).prop_map(|(offset, length)| Span { offset, length });
    proptest::collection::vec(span, 0..4)
}

/// Samples that stand in one chunk: some, and then perhaps markers.
fn samples() -> impl Strategy<Value = Samples> {
    let bounds = proptest::collection::vec(
        prop_oneof![any::<f64>(), (0u32..5000).prop_map(|t| f64::from(t) / 1000.0)],
        1..4,
    );
    let layout = (
        spans(),
        spans(),
        any::<f64>(),
        any::<i32>(),
        proptest::option::of(bounds),
        any::<bool>(),
        any::<bool>(),
    );
    let rows = proptest::collection::vec((any::<i64>(), proptest::collection::vec(any::<u64>(), 43)), 1..20);
    (layout, rows, 0usize..3).prop_map(
        |((positive, negative, zero_threshold, schema, bounds, float, gauge), rows, markers)| {
            let schema = if bounds.is_some() { CUSTOM_BUCKETS_SCHEMA } else { schema.saturating_abs() };
            let len = |spans: &[Span]| spans.iter().map(|span| span.length as usize).sum::<usize>();
            let (split, all) = (len(&positive), len(&positive) + len(&negative));
            let (mut times, mut histograms) = (Vec::new(), Vec::new());
            for (row, (time, numbers)) in rows.into_iter().enumerate() {
                let value = |at: usize| f64::from_bits(numbers[at]);
                let hint = match (gauge, row) {
                    (true, _) => CounterResetHint::Gauge,
                    (_, 0) => CounterResetHint::Unknown,
                    _ => CounterResetHint::NotReset,
                };
                times.push(time);
                histograms.push(if float {
                    NativeHistogram::Float(FloatHistogram {
                        hint,
                        schema,
                        zero_threshold,
                        count: value(0),
                        zero_count: value(1),
                        sum: value(2),
                        positive_spans: positive.clone(),
                        negative_spans: negative.clone(),
                        positive_buckets: (0..split).map(|at| value(3 + at)).collect(),
                        negative_buckets: (split..all).map(|at| value(3 + at)).collect(),
                        custom_values: bounds.clone().map(Arc::from),
                    })
                } else {
                    NativeHistogram::Integer(Histogram {
                        hint,
                        schema,
                        zero_threshold,
                        count: numbers[0],
                        zero_count: numbers[1],
                        sum: value(2),
                        positive_spans: positive.clone(),
                        negative_spans: negative.clone(),
                        positive_deltas: (0..split).map(|at| numbers[3 + at] as i64).collect(),
                        negative_deltas: (split..all).map(|at| numbers[3 + at] as i64).collect(),
                        custom_values: bounds.clone().map(Arc::from),
                    })
                });
            }
            for marker in 0..markers {
                times.push(marker as i64);
                histograms.push(NativeHistogram::stale());
            }
            (times, histograms)
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_reads_back((times, histograms) in samples()) {
        let mut bytes = Vec::new();
        let encoding = encode(&times, &histograms, &mut bytes);
        let (read_times, read_histograms) = read(encoding, &bytes).expect("what we wrote");
        prop_assert_eq!(&read_times, &times);
        for (read, written) in read_histograms.iter().zip(&histograms) {
            // Bits are compared, which equality of floats does not.
            prop_assert_eq!(format!("{read:?}"), format!("{written:?}"));
            prop_assert!(read.same_data(written));
        }
        for len in 0..bytes.len() {
            let _ = read(encoding, &bytes[..len]);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(encoding in INTEGER..=FLOAT, bytes in any::<Vec<u8>>()) {
        let _ = read(encoding, &bytes);
    }
}
