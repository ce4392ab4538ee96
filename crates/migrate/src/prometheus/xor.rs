//! The XOR chunk: times as differences of differences, values as what changed since the last.
//!
//! ```text
//! count    2 bytes, big-endian
//! first    time as a varint, value as 64 bits
//! second   difference of times as an unsigned varint, then a value
//! others   difference of differences: 0 │ 10 and 14 bits │ 110 and 17 │ 1110 and 20 │ 1111 and 64
//! value    what changed, see `bits`
//! ```

use super::bits::{Bits, Sink, Window, fits};

/// Appends the samples of a chunk. After an error the columns hold what came before it.
pub fn decode(data: &[u8], times: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<(), &'static str> {
    const SHORT: &str = "the chunk is cut short";
    let (count, bits) = data.split_at_checked(2).ok_or(SHORT)?;
    let count = usize::from(u16::from_be_bytes([count[0], count[1]]));
    let mut bits = Bits::new(bits);
    let (mut time, mut delta, mut value) = (0i64, 0i64, 0u64);
    let mut window = Window::default();
    for row in 0..count {
        match row {
            0 => {
                time = bits.varint().ok_or(SHORT)?;
                value = bits.take(64).ok_or(SHORT)?;
            }
            1 => {
                delta = bits.uvarint().ok_or(SHORT)? as i64;
                time = time.wrapping_add(delta);
                value ^= bits.change(&mut window).ok_or(SHORT)?;
            }
            _ => {
                delta = delta.wrapping_add(delta_of_delta(&mut bits).ok_or(SHORT)?);
                time = time.wrapping_add(delta);
                value ^= bits.change(&mut window).ok_or(SHORT)?;
            }
        }
        times.push(time);
        values.push(f64::from_bits(value));
    }
    Ok(())
}

/// Appends a chunk of these samples, at most 65,535, ascending in time.
pub fn encode(times: &[i64], values: &[f64], out: &mut Vec<u8>) {
    assert_eq!(times.len(), values.len(), "columns of one run are equally long");
    let count = u16::try_from(times.len()).expect("a chunk counts its samples in two bytes");
    out.extend_from_slice(&count.to_be_bytes());
    let mut sink = Sink::new(out);
    let mut delta = 0i64;
    let mut window: Option<Window> = None;
    for row in 0..times.len() {
        let bits = values[row].to_bits();
        if row == 0 {
            sink.put_varint(times[0]);
            sink.put(bits, 64);
            continue;
        }
        let next = times[row].wrapping_sub(times[row - 1]);
        if row == 1 {
            sink.put_uvarint(next as u64);
        } else {
            put_delta_of_delta(&mut sink, next.wrapping_sub(delta));
        }
        delta = next;
        sink.put_change(bits ^ values[row - 1].to_bits(), &mut window);
    }
}

/// Differences of differences: how many bits by the ones in front of them.
const DELTA_OF_DELTA: [u32; 5] = [0, 14, 17, 20, 64];

fn delta_of_delta(bits: &mut Bits<'_>) -> Option<i64> {
    let ones = bits.ones(4)?;
    bits.signed(DELTA_OF_DELTA[ones])
}

fn put_delta_of_delta(sink: &mut Sink<'_>, dod: i64) {
    let holds = |len: u32| len == 64 || fits(dod, len);
    let ones = DELTA_OF_DELTA.iter().position(|len| holds(*len)).expect("64 bits hold all");
    sink.put_ones(ones, 4);
    sink.put(dod as u64, DELTA_OF_DELTA[ones]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The bytes that Prometheus writes: worked out by hand from its description.
    #[test]
    fn the_bytes_are_frozen() {
        let mut bytes = Vec::new();
        encode(&[1000, 2000, 3000, 4015], &[1.0, 1.0, 1.0, 2.0], &mut bytes);
        let expected = [
            0,
            4, // count
            0xd0,
            0x0f, // 1000
            0x3f,
            0xf0,
            0,
            0,
            0,
            0,
            0,
            0, // 1.0
            0xe8,
            0x07, // 1000 more
            // 0: as before; 0, 0: as before; 10 and 15 in 14 bits; 11, 1 leading, 11 long, the bits
            0b0001_0000,
            0b0000_0001,
            0b1111_1000,
            0b0100_1011,
            0b1111_1111,
            0b1110_0000,
        ];
        assert_eq!(bytes, expected);
    }

    fn check(times: &[i64], values: &[f64]) {
        let mut bytes = Vec::new();
        encode(times, values, &mut bytes);
        let (mut read_times, mut read_values) = (Vec::new(), Vec::new());
        decode(&bytes, &mut read_times, &mut read_values).expect("what we wrote");
        assert_eq!(read_times, times);
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read_values), bits(values));
        for len in 0..bytes.len() {
            let _ = decode(&bytes[..len], &mut Vec::new(), &mut Vec::new());
        }
    }

    #[test]
    fn differences_at_the_edges_of_their_ranges_read_back() {
        let mut times = vec![0, 1000];
        for bits in [14, 17, 20, 33] {
            for dod in [1i64 << (bits - 1), (1 << (bits - 1)) + 1, -(1 << (bits - 1)), 1 - (1 << (bits - 1))]
            {
                let [.., before, last] = times[..] else { unreachable!("two at least") };
                times.push(last + (last - before) + dod);
            }
        }
        check(&times, &vec![0.5; times.len()]);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(samples in proptest::collection::vec((any::<i64>(), any::<u64>()), 0..60)) {
            let (times, values): (Vec<i64>, Vec<f64>) =
                samples.iter().map(|(time, bits)| (*time, f64::from_bits(*bits))).unzip();
            check(&times, &values);
        }

        #[test]
        fn small_steps_read_back(steps in proptest::collection::vec((0i64..20_000, -50i32..50), 0..200)) {
            let (mut time, mut value) = (1_700_000_000_000, 0);
            let samples = steps.iter().map(|(step, change)| {
                (time, value) = (time + step, value + change);
                (time, f64::from(value) / 8.0)
            });
            let (times, values): (Vec<i64>, Vec<f64>) = samples.unzip();
            check(&times, &values);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            let _ = decode(&bytes, &mut Vec::new(), &mut Vec::new());
        }
    }
}
