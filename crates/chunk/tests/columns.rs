//! What every column must do, whatever it holds: come back bit for bit, stay near raw at worst,
//! and take hostile bytes for what they are.

use proptest::prelude::*;
use tidewatch_chunk::{
    COUNT_MAX, ChunkError, DenseEncoder, Encoder, ValueCodec, decode_times, decode_values,
    decode_values_range, encode_times, encode_values, value_codec,
};
use tidewatch_model::STALE_NAN;

#[track_caller]
fn check_values(values: &[f64]) -> usize {
    let mut bytes = Vec::new();
    let codec = Encoder::new().encode(values, &mut bytes);
    assert_eq!(value_codec(&bytes), Ok(codec));
    assert!(bytes.len() <= 1 + values.len() * 8, "{codec:?} is longer than raw: {}", bytes.len());
    let mut back = vec![7.0];
    decode_values(&bytes, values.len(), &mut back).expect("just encoded");
    assert_eq!(back[0], 7.0, "decoding appends");
    assert_eq!(bits(&back[1..]), bits(values), "{codec:?}");
    let range = values.len() / 3..values.len() - values.len() / 4;
    back.clear();
    decode_values_range(&bytes, values.len(), range.clone(), &mut back).expect("just encoded");
    assert_eq!(bits(&back), bits(&values[range]));
    bytes.len()
}

/// The same, with the encoder of columns that are kept long.
#[track_caller]
fn check_dense(encoder: &mut DenseEncoder, values: &[f64]) -> (ValueCodec, Vec<u8>) {
    let (mut plain, mut bytes, mut back) = (Vec::new(), vec![7], vec![7.0]);
    encode_values(values, &mut plain);
    let codec = encoder.encode(values, &mut bytes);
    let bytes = bytes.split_off(1);
    assert_eq!(value_codec(&bytes), Ok(codec));
    match codec {
        ValueCodec::Dense => {
            assert!(bytes.len() * 5 <= plain.len() * 4, "dense, and saves less than a fifth")
        }
        _ => assert_eq!(bytes, plain),
    }
    decode_values(&bytes, values.len(), &mut back).expect("just encoded");
    assert_eq!(bits(&back[1..]), bits(values), "{codec:?}");
    (codec, bytes)
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[track_caller]
fn check_times(times: &[i64]) -> usize {
    let mut bytes = Vec::new();
    encode_times(times, &mut bytes);
    let mut back = vec![7];
    decode_times(&bytes, times.len(), &mut back).expect("just encoded");
    assert_eq!(&back[1..], times);
    bytes.len()
}

/// Values as they come: counters, decimals, levels, few distinct doubles, any bits, and what is
/// no number in between.
fn any_values() -> impl Strategy<Value = Vec<f64>> {
    let len = 0..300usize;
    let any_bits = any::<u64>().prop_map(f64::from_bits);
    let special = prop::sample::select(vec![
        STALE_NAN,
        f64::NAN,
        f64::from_bits(0x7ff8_0000_0000_0001),
        f64::from_bits(0xfff0_dead_beef_0001),
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        f64::MIN_POSITIVE / 8.0,
        f64::MAX,
        9_007_199_254_740_993.0,
        0.1 + 0.2,
    ]);
    let counter = (prop::collection::vec(0..5_000u32, len.clone()), 0..6i32).prop_map(|(steps, digits)| {
        let mut total = 0u64;
        let sum = steps.iter().map(|step| {
            total = if *step == 0 { 0 } else { total + u64::from(*step) };
            total as f64 / 10f64.powi(digits)
        });
        sum.collect()
    });
    let gauge = (prop::collection::vec(-1_000_000..1_000_000i64, len.clone()), 0..10i32)
        .prop_map(|(mantissas, digits)| mantissas.iter().map(|m| *m as f64 / 10f64.powi(digits)).collect());
    let pages = prop::collection::vec(0..1_000_000u64, len.clone())
        .prop_map(|pages| pages.iter().map(|page| (page * 4096) as f64).collect());
    let few =
        (prop::collection::vec(any_bits.clone(), 1..4), prop::collection::vec(any::<usize>(), len.clone()))
            .prop_map(|(of, picks)| picks.iter().map(|pick| of[pick % of.len()]).collect());
    let sums = (prop::collection::vec(0..1_000_000u32, len.clone()), 0..10i32).prop_map(|(steps, digits)| {
        let add = |sum: &mut f64, step: &u32| {
            *sum += f64::from(*step) * 10f64.powi(-digits);
            Some(*sum)
        };
        steps.iter().scan(0.0, add).collect()
    });
    let random = prop::collection::vec(any_bits, len);
    let column: BoxedStrategy<Vec<f64>> = prop_oneof![counter, gauge, pages, sums, few, random].boxed();
    (column, prop::collection::vec((any::<usize>(), special), 0..6)).prop_map(|(mut values, specials)| {
        for (at, special) in specials {
            if !values.is_empty() {
                let at = at % values.len();
                values[at] = special;
            }
        }
        values
    })
}

/// Values that repeat themselves, more or less.
fn repeated_values() -> impl Strategy<Value = Vec<f64>> {
    let rise = prop::sample::select(vec![0.0, 0.0, 1.0, 0.1]);
    (any_values(), 1..6usize, rise).prop_map(|(values, times, rise)| {
        let all = (0..times).flat_map(|round| values.iter().map(move |value| value + rise * round as f64));
        all.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn values_come_back_bit_for_bit(values in any_values()) {
        check_values(&values);
    }

    #[test]
    fn dense_values_come_back_bit_for_bit(columns in prop::collection::vec(repeated_values(), 1..4)) {
        let mut encoder = DenseEncoder::new();
        for values in columns {
            let (_, bytes) = check_dense(&mut encoder, &values);
            let (_, again) = check_dense(&mut DenseEncoder::new(), &values);
            prop_assert!(bytes == again, "what an encoder did before shows in its bytes");
        }
    }

    /// Frames are as hostile inside as outside.
    #[test]
    fn hostile_frames_are_refused_or_decoded(
        values in repeated_values(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        count in 0..2_000usize,
    ) {
        let (_, mut column) = check_dense(&mut DenseEncoder::new(), &values);
        let _ = decode_values(&column, count, &mut Vec::new());
        for (at, byte) in changes {
            let at = at.index(column.len());
            column[at] = byte;
        }
        for count in [values.len(), count] {
            let mut back = vec![1.0];
            let result = decode_values(&column, count, &mut back);
            prop_assert_eq!(back.len(), if result.is_ok() { 1 + count } else { 1 });
        }
    }

    #[test]
    fn times_come_back(start in any::<i64>(), steps in prop::collection::vec(-20..100_000i64, 0..300)) {
        let times = steps.iter().scan(start, |at, step| { *at = at.wrapping_add(*step); Some(*at) });
        check_times(&times.collect::<Vec<_>>());
    }

    /// A decoder may accept what no encoder wrote, but it neither panics nor runs away.
    #[test]
    fn hostile_bytes_are_refused_or_decoded(
        codec in 0..7u8,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        count in 0..COUNT_MAX,
    ) {
        let column: Vec<u8> = std::iter::once(codec).chain(bytes).collect();
        let (mut values, mut times) = (vec![1.0], vec![1]);
        let result = decode_values(&column, count, &mut values);
        prop_assert_eq!(values.len(), if result.is_ok() { 1 + count } else { 1 });
        let result = decode_times(&column, count, &mut times);
        prop_assert_eq!(times.len(), if result.is_ok() { 1 + count } else { 1 });
    }

    /// Damage inside a real column passes more checks than random bytes do.
    #[test]
    fn damaged_columns_are_refused_or_decoded(
        values in any_values(), at in any::<usize>(), byte in any::<u8>(), cut in any::<usize>(),
    ) {
        let mut column = Vec::new();
        encode_values(&values, &mut column);
        let at = at % column.len();
        column[at] = byte;
        let _ = decode_values(&column, values.len(), &mut Vec::new());
        column.truncate(cut % column.len());
        let _ = decode_values(&column, values.len(), &mut Vec::new());
    }
}

#[test]
fn a_count_over_the_limit_is_refused_before_memory_is_taken() {
    let constant = [ValueCodec::Constant as u8];
    assert_eq!(decode_values(&constant, COUNT_MAX, &mut Vec::new()), Ok(()));
    for count in [COUNT_MAX + 1, usize::MAX] {
        assert_eq!(decode_values(&constant, count, &mut Vec::new()), Err(ChunkError::Count(count)));
        assert_eq!(decode_times(&constant, count, &mut Vec::new()), Err(ChunkError::Count(count)));
    }
}

/// A column of any content under zstd.
fn frame_of(content: &[u8]) -> Vec<u8> {
    let frame = zstd::bulk::compress(content, 1).expect("memory");
    std::iter::once(ValueCodec::Dense as u8).chain(frame[4..].iter().copied()).collect()
}

#[test]
fn a_frame_holds_one_column_of_integers_and_no_more_than_its_samples_need() {
    #[track_caller]
    fn check(column: &[u8], count: usize, error: ChunkError) {
        assert_eq!(decode_values(column, count, &mut Vec::new()), Err(error));
    }
    // Four integers in planes: level 5, then 0, 1, 2 and 256 above it, in two bytes each.
    let planes = [2, 0, 0b10_0000, 10, 2, 0, 1, 2, 0, 0, 0, 0, 1];
    let mut values = Vec::new();
    decode_values(&frame_of(&planes), 4, &mut values).expect("a sound column");
    assert_eq!(values, [5.0, 6.0, 7.0, 261.0]);
    check(&frame_of(&planes), 5, ChunkError::Short);
    check(&frame_of(&planes), 3, ChunkError::Long);
    check(&frame_of(&[2, 0, 0b10_0000, 10, 9, 0, 1]), 2, ChunkError::Field("count of planes"));
    check(&frame_of(&[2, 0, 0b10_0000, 10, 0, 0, 1]), 2, ChunkError::Field("count of planes"));
    // Flat leaves no planes.
    check(&frame_of(&[2, 0, 0b10_1000, 10]), 2, ChunkError::Field("mode"));
    // A column within itself, and one that gains nothing.
    check(&frame_of(&frame_of(&planes)), 4, ChunkError::Codec(ValueCodec::Dense as u8));
    check(&frame_of(&[1, 0x3f, 0xf8]), 4, ChunkError::Codec(ValueCodec::Constant as u8));
    check(&frame_of(&[]), 4, ChunkError::Short);
    // Much from little, which is refused before memory is taken for it.
    check(&frame_of(&vec![0; 1 << 24]), 4, ChunkError::Field("frame"));
    check(&[ValueCodec::Dense as u8], 4, ChunkError::Field("frame"));
    // Another frame behind it, and one that ends early.
    let mut two = frame_of(&planes);
    two.extend([0x28, 0xb5, 0x2f, 0xfd]);
    two.extend(&frame_of(&planes)[1..]);
    check(&two, 4, ChunkError::Long);
    let whole = frame_of(&planes);
    for len in 1..whole.len() {
        assert!(decode_values(&whole[..len], 4, &mut Vec::new()).is_err(), "{len} bytes");
    }
}

#[test]
fn what_repeats_itself_is_dense_and_what_does_not_is_plain() {
    #[track_caller]
    fn check(codec: ValueCodec, per_sample_max: f64, values: impl Iterator<Item = f64>) {
        let values: Vec<f64> = values.take(2_160).collect();
        let (found, bytes) = check_dense(&mut DenseEncoder::new(), &values);
        let size = bytes.len() as f64 / values.len() as f64;
        assert!(found == codec && size <= per_sample_max, "{found:?} of {size} bytes a sample");
    }
    let noise = |i: u32| {
        let mixed = i.wrapping_mul(0x9e37_79b1);
        (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b) >> 12
    };
    check(ValueCodec::Dense, 0.15, (0..).map(|i| f64::from(noise(i % 60)) / 100.0));
    check(ValueCodec::Dense, 0.4, (0..).map(|i| f64::from(noise(i % 60)).sqrt()));
    // A counter that rises alike each time.
    check(ValueCodec::Dense, 0.15, (0..).map(|i| f64::from(i / 60 * 1_000 + noise(i % 60) % 1_000)));
    // Seconds by multiplication, a place beside decimals, with the end of the series.
    let near = |i: u32| if i == 2_159 { STALE_NAN } else { f64::from(noise(i % 60)) * 0.001 };
    check(ValueCodec::Dense, 0.25, (0..).map(near));
    check(ValueCodec::Decimal, 2.6, (0..).map(|i| f64::from(noise(i))));
    check(ValueCodec::Decimal, 0.02, (0..).map(f64::from));
    check(ValueCodec::Constant, 0.002, std::iter::repeat(1.0));
}

#[test]
fn typical_series_are_as_small_as_they_should_be() {
    #[track_caller]
    fn check(per_sample_max: f64, values: impl Iterator<Item = f64>) {
        let values: Vec<f64> = values.take(480).collect();
        let size = check_values(&values) as f64 / values.len() as f64;
        assert!(size <= per_sample_max, "{size} bytes a sample");
    }
    // A few bytes for what stands still, whatever it is, and for what rises evenly.
    check(0.007, std::iter::repeat(1.0));
    check(0.02, std::iter::repeat(f64::NAN));
    check(0.03, (0..).map(|i| f64::from(i) * 15.0));
    // A counter of hundredths that advances by 14.5 to 15 seconds: differences of 6 bits.
    check(0.8, (0..).map(|i| (f64::from(i) * 1475.0 + f64::from(i * i % 50)) / 100.0));
    // The end of a series costs its marker and no more.
    check(0.05, (0..480).map(|i| if i == 479 { STALE_NAN } else { f64::from(i) }));
    // A restart must not widen its neighbours.
    check(0.45, (0..).map(|i| f64::from(i % 300) * 4.0 + f64::from(i * i % 3)));
    // Milliseconds that a program scaled by 0.001, and a running sum: a place or a few beside decimals.
    check(0.9, (0..).map(|i| f64::from(94_000 + i * 30 + i * i % 7) * 0.001));
    let mut sum = 0.0;
    check(
        1.2,
        (0..).map(move |i| {
            sum += f64::from(15_000 + i * i % 50) / 1e6;
            sum
        }),
    );
    // Memory in pages.
    check(1.1, (0..).map(|i| f64::from(500_000 + i * i % 251) * 4096.0));
}

/// The formats of columns, byte for byte. Files written by a release have these; a change here
/// needs a new codec number.
#[test]
fn the_bytes_of_each_codec_are_frozen() {
    #[track_caller]
    fn check(values: &[f64], bytes: &[u8]) {
        let mut out = Vec::new();
        encode_values(values, &mut out);
        assert_eq!(out, bytes);
        check_values(values);
    }
    check(&[], &[0]);
    check(&[0.0; 3], &[1]);
    check(&[1.5; 3], &[1, 0x3f, 0xf8]);
    // Exponent 1; order 1 biased and flat; first 11, difference 2.
    check(&[1.1, 1.3, 1.5, 1.7], &[2, 1, 0b1101, 22, 4]);
    // Two patches: a staleness marker at 2, another NaN at 4.
    let other = f64::from_bits(0x7ff0_0000_0000_00aa);
    let patched = [2, 0x80, 2, 2, 0, 2, 0xff, 0xaa, 0, 0, 0, 0, 0, 0xf0, 0x7f, 0b0, 10, 1, 0b11110];
    check(&[5.0, 6.0, STALE_NAN, 6.0, other], &patched);
    let (a, b): (f64, f64) = (f64::from_bits(0x4012_3456_789a_bcdf), f64::from_bits(0x3ee1_1223_4567_89ab));
    // Neighbours in value: the image, differences above their smallest.
    let drift: Vec<f64> = [0, 3, 1, 4, 2, 5].iter().map(|step| f64::from_bits(a.to_bits() + step)).collect();
    check(&drift, &[3, 1, 190, 243, 213, 137, 207, 149, 154, 146, 128, 1, 3, 158, 103]);
    // One double with changing sign: a window of one bit, then that window again.
    check(&[a, -a, -a, a, -a], &[4, 223, 188, 154, 120, 86, 52, 18, 64, 3, 64, 45]);
    // Thousandths by multiplication: mantissas from 1002 on, corrections of a place.
    check(
        &[1.002, 1.003, 1004.0 * 0.001 + f64::EPSILON, STALE_NAN, 1.006],
        &[5, 131, 1, 3, 0, 13, 212, 15, 2, 0, 0, 1, 4],
    );
    // Three hundred samples of two values in turn, under zstd: its bytes may differ with its release, but
    // these stay readable.
    let dense = [6, 96, 49, 0, 117, 0, 0, 56, 2, 1, 32, 2, 1, 0, 6, 1, 0, 39, 170, 206, 8];
    let turns: Vec<f64> = (0..300).map(|i| [0.1, 0.7, 0.2][i % 3]).collect();
    let mut back = Vec::new();
    decode_values(&dense, turns.len(), &mut back).expect("sound");
    assert_eq!(back, turns);
    let mut raw = vec![0];
    raw.extend([a, b].iter().flat_map(|value| value.to_bits().to_le_bytes()));
    check(&[a, b], &raw);
}

#[test]
fn the_bytes_of_a_clock_are_frozen() {
    #[track_caller]
    fn check(times: &[i64], bytes: &[u8]) {
        let mut out = Vec::new();
        encode_times(times, &mut out);
        assert_eq!(out, bytes);
        check_times(times);
    }
    check(&[], &[1]);
    check(&[5_000, 20_000, 35_000], &[1, 0b1101, 0x90, 0x4e, 0xb0, 0xea, 0x01]);
    // Differences 15,001, 14,999 and 15,003: above the smallest, in units of two.
    check(&[5_000, 20_001, 35_000, 50_003], &[1, 0b1_0101, 1, 0x90, 0x4e, 0xae, 0xea, 0x01, 2, 0b10_00_01]);
}
