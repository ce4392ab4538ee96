//! The chunk of floats with start timestamps, which Prometheus writes on request.
//!
//! ```text
//! count    2 bytes, big-endian
//! starts   1 byte; the highest bit: the first sample has a start; the others: the sample from which
//!          on each has one of its own, 0 where none has
//! first    time as a varint, value as 64 bits; time less start as a varint
//! second   difference of times as an unsigned varint, a value; a start
//! others   0: one step on, as before │ 10: one step on, a changed value │ 11111: one step on, a marker
//!          110 and 13 bits │ 1110 and 20 │ 11110 and 64: difference of differences, then a value
//!          and a start
//! value    0: as before │ 10: changed, in the window of the last │ 110: in a new one │ 111: a marker
//! changed  0: in the window of the last │ 1: in a new one
//! start    the time before less the start; from the second on, what that differs by from the last,
//!          as a varbit
//! ```
//!
//! Markers of staleness do not count as the value before. Differences of differences are in two's
//! complement here.

use tidewatch_model::{STALE_NAN_BITS, is_stale};

use super::bits::{Bits, Window};

const SHORT: &str = "the chunk is cut short";

/// Appends the samples of a chunk. After an error the columns hold what came before it.
pub fn decode(
    data: &[u8],
    times: &mut Vec<i64>,
    values: &mut Vec<f64>,
    starts: &mut Vec<i64>,
) -> Result<(), &'static str> {
    let (head, bits) = data.split_at_checked(3).ok_or(SHORT)?;
    let count = usize::from(u16::from_be_bytes([head[0], head[1]]));
    let own_from = usize::from(head[2] & 0x7f);
    let mut reader = Reader { bits: Bits::new(bits), time: 0, delta: 0, value: 0, window: Window::default() };
    let (mut start, mut behind) = (0i64, 0i64);
    for row in 0..count {
        let before = reader.time;
        let value = reader.sample(row).ok_or(SHORT)?;
        if row == 0 && head[2] & 0x80 != 0 {
            start = reader.time.wrapping_sub(reader.bits.varint().ok_or(SHORT)?);
        }
        if own_from > 0 && row >= own_from {
            let change = reader.bits.signed_varbit().ok_or(SHORT)?;
            behind = if row == own_from { change } else { behind.wrapping_add(change) };
            start = before.wrapping_sub(behind);
        }
        times.push(reader.time);
        values.push(f64::from_bits(value));
        starts.push(start);
    }
    Ok(())
}

struct Reader<'a> {
    bits: Bits<'a>,
    time: i64,
    delta: i64,
    /// The last that was no marker.
    value: u64,
    window: Window,
}

impl Reader<'_> {
    /// Steps to the next time and gives the bits of its value.
    fn sample(&mut self, row: usize) -> Option<u64> {
        match row {
            0 => {
                self.time = self.bits.varint()?;
                let first = self.bits.take(64)?;
                if !is_stale(f64::from_bits(first)) {
                    self.value = first;
                }
                Some(first)
            }
            1 => {
                self.delta = self.bits.uvarint()? as i64;
                self.time = self.time.wrapping_add(self.delta);
                self.next_value()
            }
            _ => self.step(),
        }
    }

    fn step(&mut self) -> Option<u64> {
        let control = self.bits.ones(5)?;
        let change = match control {
            0 | 1 | 5 => 0,
            2 => self.bits.twos(13)?,
            3 => self.bits.twos(20)?,
            _ => self.bits.twos(64)?,
        };
        self.delta = self.delta.wrapping_add(change);
        self.time = self.time.wrapping_add(self.delta);
        match control {
            0 => Some(self.value),
            1 => {
                let is_new = self.bits.take(1)? == 1;
                self.changed(is_new)
            }
            5 => Some(STALE_NAN_BITS),
            _ => self.next_value(),
        }
    }

    fn next_value(&mut self) -> Option<u64> {
        match self.bits.ones(3)? {
            0 => Some(self.value),
            1 => self.changed(false),
            2 => self.changed(true),
            _ => Some(STALE_NAN_BITS),
        }
    }

    fn changed(&mut self, is_new: bool) -> Option<u64> {
        self.value ^= self.bits.changed(&mut self.window, is_new)?;
        Some(self.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bits::Sink;
    use super::*;

    fn check(chunk: &[u8], expected: &[(i64, f64, i64)]) {
        let (mut times, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        decode(chunk, &mut times, &mut values, &mut starts).expect("whole");
        let found: Vec<(i64, u64, i64)> =
            (0..times.len()).map(|row| (times[row], values[row].to_bits(), starts[row])).collect();
        let expected: Vec<(i64, u64, i64)> =
            expected.iter().map(|(time, value, start)| (*time, value.to_bits(), *start)).collect();
        assert_eq!(found, expected);
        for len in 0..chunk.len() {
            assert_eq!(decode(&chunk[..len], &mut Vec::new(), &mut Vec::new(), &mut Vec::new()), Err(SHORT));
        }
    }

    /// Worked out by hand from Prometheus' description: each form of a step and of a value.
    #[test]
    fn every_form_of_a_sample_is_read() {
        let stale = f64::from_bits(STALE_NAN_BITS);
        let mut chunk = vec![0, 9, 0x80 | 6];
        let mut sink = Sink::new(&mut chunk);
        sink.put_varint(1000);
        sink.put_float(1.0);
        sink.put_varint(400);
        // The second: 100 later; a marker.
        sink.put_uvarint(100);
        sink.put(0b111, 3);
        // One step on with the value before the marker; 2.0 in a new window of 1.0: bits 1 to 11.
        sink.put(0, 1);
        sink.put(0b101, 3);
        sink.put(1, 5);
        sink.put(11, 6);
        sink.put(0x7ff, 11);
        // 50 less than a step, back to 1.0 in that window; then 1 more, and the same.
        sink.put(0b110, 3);
        sink.put(-50i64 as u64, 13);
        sink.put(0b10, 2);
        sink.put(0x7ff, 11);
        sink.put(0b1110, 4);
        sink.put(5000, 20);
        sink.put(0, 1);
        // From here on each has a start: the time before less it.
        sink.put(0b11110, 5);
        sink.put(-5000i64 as u64, 64);
        sink.put(0, 1);
        sink.put_signed_varbit(6000);
        sink.put(0b11111, 5);
        sink.put_signed_varbit(50);
        sink.put(0b100, 3);
        sink.put(0x7ff, 11);
        sink.put_signed_varbit(7000 - 6050);
        check(
            &chunk,
            &[
                (1000, 1.0, 600),
                (1100, stale, 600),
                (1200, 1.0, 600),
                (1300, 2.0, 600),
                (1350, 1.0, 600),
                (6400, 1.0, 600),
                (6450, 1.0, 400),
                (6500, stale, 400),
                (6550, 2.0, -500),
            ],
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in any::<Vec<u8>>()) {
            let _ = decode(&bytes, &mut Vec::new(), &mut Vec::new(), &mut Vec::new());
        }
    }
}
