//! Stretches of native histograms: round trips, frozen bytes, hostile bytes.

use proptest::prelude::*;
use tidewatch_chunk::{
    HistogramEncoder, SampleKind, decode_float_histograms, decode_histograms, stretch_len,
};
use tidewatch_model::histogram::{CounterResetHint, Histogram, NativeHistogram, Span};
use tidewatch_model::{FloatHistogram, STALE_NAN_BITS};

/// Cuts into stretches, and everything must come back, bit for bit.
#[track_caller]
fn check(histograms: &[NativeHistogram]) -> usize {
    let mut encoder = HistogramEncoder::new();
    let (mut rest, mut stretches) = (histograms, 0);
    while !rest.is_empty() {
        let (stretch, others) = rest.split_at(stretch_len(rest));
        let mut bytes = Vec::new();
        let kind = encoder.encode(stretch, &mut bytes);
        let (mut back, mut floats) = (Vec::new(), Vec::new());
        decode_histograms(kind, &bytes, stretch.len(), &mut back).expect("just encoded");
        decode_float_histograms(kind, &bytes, stretch.len(), &mut floats).expect("just encoded");
        assert_eq!(back.len(), stretch.len());
        for ((back, float), wanted) in back.iter().zip(&floats).zip(stretch) {
            assert!(back.same_data(wanted), "{back:?} instead of {wanted:?}");
            assert!(wanted.is_stale() || back.hint() == wanted.hint());
            assert!(wanted.is_stale() || back.layout() == wanted.layout());
            assert!(float.same_data(&back.to_float()), "{float:?} instead of {:?}", back.to_float());
        }
        for cut in 0..bytes.len() {
            decode_histograms(kind, &bytes[..cut], stretch.len(), &mut Vec::new()).expect_err("cut short");
        }
        rest = others;
        stretches += 1;
    }
    stretches
}

fn latencies(count: u64) -> Histogram {
    Histogram {
        schema: 2,
        zero_threshold: 0.001,
        zero_count: 1,
        count: 1 + 2 * count + count + 3,
        sum: count as f64 * 0.25,
        positive_spans: vec![Span { offset: -2, length: 1 }, Span { offset: 4, length: 2 }],
        positive_deltas: vec![2 * count as i64, -(count as i64), 3 - count as i64],
        ..Histogram::default()
    }
}

#[test]
fn a_stretch_is_frozen() {
    let stale = NativeHistogram::stale();
    let stretch = [NativeHistogram::Integer(latencies(1)), NativeHistogram::Integer(latencies(2)), stale];
    let mut bytes = Vec::new();
    assert_eq!(HistogramEncoder::new().encode(&stretch, &mut bytes), SampleKind::Histogram);
    let layout = [4, 0xfc, 0xa9, 0xf1, 0xd2, 0x4d, 0x62, 0x50, 0x3f, 2, 3, 1, 8, 2, 0, 0];
    assert_eq!(bytes[..16], layout, "{bytes:02x?}");
    assert_eq!(bytes[16..], FROZEN[..], "{bytes:02x?}");
    assert_eq!(check(&stretch), 1);
}

const FROZEN: [u8; 30] = [
    16, 2, 0, 1, 4, // hints: unknown, unknown, marker
    9, 2, 130, 1, 2, 0, 14, 50, 50, 49, // sums: 0.25, 0.5, the marker's
    8, 0, // nothing outside of buckets
    8, 2, // the zero bucket
    16, 1, 4, 1, 6, 0, 2, 1, 6, 8, 6, // buckets
];

#[test]
fn a_changed_layout_begins_a_new_stretch() {
    let wider = Histogram { zero_threshold: 0.01, ..latencies(3) };
    let float = NativeHistogram::Float(latencies(4).to_float());
    let histograms = [
        NativeHistogram::stale(),
        NativeHistogram::Integer(latencies(1)),
        NativeHistogram::Integer(wider),
        float.clone(),
        NativeHistogram::stale(),
        float,
    ];
    assert_eq!(check(&histograms), 3);
}

#[test]
fn a_latency_histogram_takes_few_bytes_a_sample() {
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % below
    };
    let mut counts = [0u64; 30];
    let histograms: Vec<NativeHistogram> = (0..120)
        .map(|_| {
            counts
                .iter_mut()
                .enumerate()
                .for_each(|(i, c)| *c += random(1 + 40 / (1 + i.abs_diff(12) as u64)));
            let absolute = counts.map(|c| c as i64);
            let deltas = (0..30).map(|i| absolute[i] - if i == 0 { 0 } else { absolute[i - 1] }).collect();
            NativeHistogram::Integer(Histogram {
                schema: 3,
                count: counts.iter().sum(),
                sum: counts.iter().sum::<u64>() as f64 * 0.125,
                positive_spans: vec![Span { offset: -10, length: 30 }],
                positive_deltas: deltas,
                ..Histogram::default()
            })
        })
        .collect();
    let mut bytes = Vec::new();
    HistogramEncoder::new().encode(&histograms, &mut bytes);
    assert!(bytes.len() < 120 * 16, "{} bytes for 120 samples of 30 buckets", bytes.len());
    assert_eq!(check(&histograms), 1);
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    proptest::collection::vec((0..5i32, 0..4u32), 0..3)
        .prop_map(|spans| spans.into_iter().map(|(offset, length)| Span { offset, length }).collect())
}

fn bits() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), (0u64..9).prop_map(|v| (v as f64).to_bits()), Just(STALE_NAN_BITS)]
}

fn buckets(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.length as usize).sum()
}

fn native() -> impl Strategy<Value = NativeHistogram> {
    let integer = (0..3i32, spans(), proptest::collection::vec(any::<i16>(), 24), any::<u64>(), bits(), 0..4)
        .prop_map(|(schema, spans, numbers, count, sum, hint)| {
            let deltas = |len: usize| numbers.iter().take(len).map(|n| i64::from(*n)).collect();
            NativeHistogram::Integer(Histogram {
                hint: hint_of(hint),
                schema,
                zero_threshold: 0.5,
                zero_count: count / 3,
                count,
                sum: f64::from_bits(sum),
                positive_deltas: deltas(buckets(&spans)),
                negative_deltas: deltas(buckets(&spans[..spans.len() / 2])),
                negative_spans: spans[..spans.len() / 2].to_vec(),
                positive_spans: spans,
                custom_values: None,
            })
        });
    let float = (spans(), proptest::collection::vec(bits(), 12), bits(), 0..4).prop_map(
        |(spans, counts, sum, hint)| {
            let len = buckets(&spans);
            NativeHistogram::Float(FloatHistogram {
                hint: hint_of(hint),
                schema: -53,
                count: f64::from_bits(counts[0]),
                sum: f64::from_bits(sum),
                positive_buckets: counts.iter().cycle().take(len).map(|bits| f64::from_bits(*bits)).collect(),
                positive_spans: spans,
                custom_values: Some((0..24).map(f64::from).collect()),
                ..FloatHistogram::default()
            })
        },
    );
    prop_oneof![4 => integer, 4 => float, 1 => Just(NativeHistogram::stale())]
}

fn hint_of(number: i32) -> CounterResetHint {
    match number {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        _ => CounterResetHint::Gauge,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_histograms_come_back(some in proptest::collection::vec((native(), 1..5usize), 0..12)) {
        check(&some.into_iter().flat_map(|(h, times)| std::iter::repeat_n(h, times)).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(
        kind in 0..3u8, schema in 0..5u8, rest in proptest::collection::vec(any::<u8>(), 0..120), count in 0usize..2000,
    ) {
        let kind = SampleKind::of(kind).expect("known");
        let bytes: Vec<u8> = [schema, 0, 0, 0, 0, 0, 0, 0, 0].into_iter().chain(rest).collect();
        let _ = decode_histograms(kind, &bytes, count, &mut Vec::new());
        let _ = decode_float_histograms(kind, &bytes, count, &mut Vec::new());
    }
}
