//! The XOR chunk: times as differences of differences, values as what changed since the last.
//!
//! ```text
//! count    2 bytes, big-endian
//! first    time as a varint, value as 64 bits
//! second   difference of times as an unsigned varint, then a value
//! others   difference of differences: 0 │ 10 and 14 bits │ 110 and 17 │ 1110 and 20 │ 1111 and 64
//! value    0: as before │ 10: the bits that changed, in the window of the last │ 11: a new window,
//!          leading zeros in 5 bits, length in 6 (0 means 64), then the bits
//! ```
//!
//! A number of n bits is negative where it is above 2ⁿ⁻¹, so that 2ⁿ⁻¹ itself is positive.

use super::reader::{push_uvarint, push_varint, unzigzag};

/// Appends the samples of a chunk. After an error the columns hold what came before it.
pub fn decode(data: &[u8], times: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<(), &'static str> {
    const SHORT: &str = "the chunk is cut short";
    let (count, bits) = data.split_at_checked(2).ok_or(SHORT)?;
    let count = usize::from(u16::from_be_bytes([count[0], count[1]]));
    let mut bits = Bits { bytes: bits, at: 0 };
    let (mut time, mut delta, mut value) = (0i64, 0i64, 0u64);
    let mut window = Window { leading: 0, len: 0 };
    for row in 0..count {
        match row {
            0 => {
                time = unzigzag(bits.uvarint().ok_or(SHORT)?);
                value = bits.take(64).ok_or(SHORT)?;
            }
            1 => {
                delta = bits.uvarint().ok_or(SHORT)? as i64;
                time = time.wrapping_add(delta);
                value ^= bits.change(&mut window).ok_or(SHORT)?;
            }
            _ => {
                delta = delta.wrapping_add(bits.delta_of_delta().ok_or(SHORT)?);
                time = time.wrapping_add(delta);
                value ^= bits.change(&mut window).ok_or(SHORT)?;
            }
        }
        times.push(time);
        values.push(f64::from_bits(value));
    }
    Ok(())
}

/// Where the bits stand that change.
#[derive(Clone, Copy)]
struct Window {
    leading: u32,
    len: u32,
}

/// Takes bits, the highest of a byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, len: u32) -> Option<u64> {
        let mut value = 0u64;
        let mut left = len;
        while left > 0 {
            let byte = *self.bytes.get(self.at / 8)?;
            let inside = (self.at % 8) as u32;
            let count = left.min(8 - inside);
            let part = byte << inside >> (8 - count);
            value = value << count | u64::from(part);
            self.at += count as usize;
            left -= count;
        }
        Some(value)
    }

    fn uvarint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(8)?;
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn delta_of_delta(&mut self) -> Option<i64> {
        let mut ones = 0;
        while ones < 4 && self.take(1)? == 1 {
            ones += 1;
        }
        let len = [0, 14, 17, 20, 64][ones];
        let bits = self.take(len)? as i64;
        let negative = (1..64).contains(&len) && bits > 1 << (len - 1);
        Some(if negative { bits - (1 << len) } else { bits })
    }

    /// What differs from the value before.
    fn change(&mut self, window: &mut Window) -> Option<u64> {
        if self.take(1)? == 0 {
            return Some(0);
        }
        if self.take(1)? == 1 {
            let leading = self.take(5)? as u32;
            let len = match self.take(6)? as u32 {
                0 => 64,
                len => len,
            };
            *window = Window { leading, len };
        }
        // A window that reaches over the end is of no writer.
        let trailing = 64u32.checked_sub(window.leading + window.len)?;
        let bits = self.take(window.len)?;
        Some(if window.len == 0 { 0 } else { bits << trailing })
    }
}

/// Appends a chunk of these samples, at most 65,535, ascending in time.
pub fn encode(times: &[i64], values: &[f64], out: &mut Vec<u8>) {
    assert_eq!(times.len(), values.len(), "columns of one run are equally long");
    let count = u16::try_from(times.len()).expect("a chunk counts its samples in two bytes");
    out.extend_from_slice(&count.to_be_bytes());
    let mut sink = Sink { out, free: 0 };
    let mut delta = 0i64;
    let mut window: Option<Window> = None;
    for row in 0..times.len() {
        let bits = values[row].to_bits();
        if row == 0 {
            let mut bytes = Vec::with_capacity(10);
            push_varint(&mut bytes, times[0]);
            bytes.iter().for_each(|byte| sink.put(u64::from(*byte), 8));
            sink.put(bits, 64);
            continue;
        }
        let next = times[row].wrapping_sub(times[row - 1]);
        if row == 1 {
            let mut bytes = Vec::with_capacity(10);
            push_uvarint(&mut bytes, next as u64);
            bytes.iter().for_each(|byte| sink.put(u64::from(*byte), 8));
        } else {
            sink.put_delta_of_delta(next.wrapping_sub(delta));
        }
        delta = next;
        sink.put_change(bits ^ values[row - 1].to_bits(), &mut window);
    }
}

struct Sink<'a> {
    out: &'a mut Vec<u8>,
    /// Bits of the last byte that are not used.
    free: u32,
}

impl Sink<'_> {
    /// Puts the lowest `len` bits.
    fn put(&mut self, value: u64, len: u32) {
        let mut left = len;
        while left > 0 {
            if self.free == 0 {
                self.out.push(0);
                self.free = 8;
            }
            let count = left.min(self.free);
            let part = (value >> (left - count)) as u8 & (0xff >> (8 - count));
            *self.out.last_mut().expect("pushed above") |= part << (self.free - count);
            self.free -= count;
            left -= count;
        }
    }

    fn put_delta_of_delta(&mut self, dod: i64) {
        let fits = |bits: u32| dod > -(1 << (bits - 1)) && dod <= 1 << (bits - 1);
        match dod {
            0 => self.put(0, 1),
            _ if fits(14) => self.put(0b10 << 14 | dod as u64 & 0x3fff, 16),
            _ if fits(17) => self.put(0b110 << 17 | dod as u64 & 0x1_ffff, 20),
            _ if fits(20) => self.put(0b1110 << 20 | dod as u64 & 0xf_ffff, 24),
            _ => {
                self.put(0b1111, 4);
                self.put(dod as u64, 64);
            }
        }
    }

    fn put_change(&mut self, change: u64, window: &mut Option<Window>) {
        if change == 0 {
            return self.put(0, 1);
        }
        // Five bits hold no more.
        let leading = change.leading_zeros().min(31);
        let trailing = change.trailing_zeros();
        if let Some(Window { leading: before, len }) = *window
            && leading >= before
            && trailing >= 64 - before - len
        {
            self.put(0b10, 2);
            return self.put(change >> (64 - before - len), len);
        }
        let len = 64 - leading - trailing;
        *window = Some(Window { leading, len });
        self.put(0b11, 2);
        self.put(u64::from(leading), 5);
        self.put(u64::from(len) & 0x3f, 6);
        self.put(change >> trailing, len);
    }
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
