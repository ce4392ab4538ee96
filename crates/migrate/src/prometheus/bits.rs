//! Numbers of so many bits, the highest of a byte first: what chunks are made of.
//!
//! ```text
//! varbit   0: zero │ 10 and 3 bits │ 110 and 6 │ 1110 and 9 │ 11110 and 12 │ 111110 and 18
//!          1111110 and 25 │ 11111110 and 56 │ 11111111 and 64
//! change   0: as before │ 10: the bits that changed, in the window of the last │ 11: a new window,
//!          leading zeros in 5 bits, length in 6 (0 means 64), then the bits
//! ```
//!
//! A signed number of n bits is negative where it is above 2ⁿ⁻¹, so that 2ⁿ⁻¹ itself is positive.

use super::reader::{push_uvarint, push_varint, unzigzag};

/// Lengths of a varbit by the ones in front of it.
const VARBIT: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// Where the bits of a value stand that change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    leading: u32,
    len: u32,
}

/// A writer that was interrupted refers to the whole value without having said so.
impl Default for Window {
    fn default() -> Window {
        Window { leading: 0, len: 64 }
    }
}

/// Takes bits from the front of bytes. `None` where there are too few.
pub struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl<'a> Bits<'a> {
    pub fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, at: 0 }
    }

    /// How many there are.
    pub fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    pub fn take(&mut self, len: u32) -> Option<u64> {
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

    pub fn float(&mut self) -> Option<f64> {
        self.take(64).map(f64::from_bits)
    }

    pub fn uvarint(&mut self) -> Option<u64> {
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

    pub fn varint(&mut self) -> Option<i64> {
        self.uvarint().map(unzigzag)
    }

    /// How many ones come before the next zero, `max` at most: then no zero is taken.
    pub fn ones(&mut self, max: usize) -> Option<usize> {
        let mut ones = 0;
        while ones < max && self.take(1)? == 1 {
            ones += 1;
        }
        Some(ones)
    }

    pub fn signed(&mut self, len: u32) -> Option<i64> {
        let bits = self.take(len)? as i64;
        let negative = (1..64).contains(&len) && bits > 1 << (len - 1);
        Some(if negative { bits - (1 << len) } else { bits })
    }

    /// In two's complement.
    pub fn twos(&mut self, len: u32) -> Option<i64> {
        Some(((self.take(len)? << (64 - len)) as i64) >> (64 - len))
    }

    pub fn varbit(&mut self) -> Option<u64> {
        let len = VARBIT[self.ones(8)?];
        self.take(len)
    }

    pub fn signed_varbit(&mut self) -> Option<i64> {
        let len = VARBIT[self.ones(8)?];
        self.signed(len)
    }

    /// What differs from the value before.
    pub fn change(&mut self, window: &mut Window) -> Option<u64> {
        if self.take(1)? == 0 {
            return Some(0);
        }
        let is_new = self.take(1)? == 1;
        self.changed(window, is_new)
    }

    /// What differs, in the window of the last or in a new one.
    pub fn changed(&mut self, window: &mut Window, is_new: bool) -> Option<u64> {
        if is_new {
            let leading = self.take(5)? as u32;
            let len = match self.take(6)? as u32 {
                0 => 64,
                len => len,
            };
            *window = Window { leading, len };
        }
        // A window that reaches over the end is of no writer.
        let trailing = 64u32.checked_sub(window.leading + window.len)?;
        Some(self.take(window.len)? << trailing)
    }
}

/// Appends bits to bytes.
pub struct Sink<'a> {
    out: &'a mut Vec<u8>,
    /// Bits of the last byte that are not used.
    free: u32,
}

impl<'a> Sink<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Sink<'a> {
        Sink { out, free: 0 }
    }

    /// Puts the lowest `len` bits.
    pub fn put(&mut self, value: u64, len: u32) {
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

    pub fn put_float(&mut self, value: f64) {
        self.put(value.to_bits(), 64);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.put(u64::from(*byte), 8));
    }

    pub fn put_uvarint(&mut self, value: u64) {
        let mut bytes = Vec::with_capacity(10);
        push_uvarint(&mut bytes, value);
        self.put_bytes(&bytes);
    }

    pub fn put_varint(&mut self, value: i64) {
        let mut bytes = Vec::with_capacity(10);
        push_varint(&mut bytes, value);
        self.put_bytes(&bytes);
    }

    /// Puts so many ones, and a zero unless they are `max`.
    pub fn put_ones(&mut self, ones: usize, max: usize) {
        (0..ones).for_each(|_| self.put(1, 1));
        if ones < max {
            self.put(0, 1);
        }
    }

    pub fn put_varbit(&mut self, value: u64) {
        let ones = VARBIT.iter().position(|len| *len == 64 || value >> len == 0).expect("64 bits hold all");
        self.put_ones(ones, 8);
        self.put(value, VARBIT[ones]);
    }

    pub fn put_signed_varbit(&mut self, value: i64) {
        let holds = |len: u32| len == 64 || fits(value, len);
        let ones = VARBIT.iter().position(|len| holds(*len)).expect("64 bits hold all");
        self.put_ones(ones, 8);
        self.put(value as u64, VARBIT[ones]);
    }

    pub fn put_change(&mut self, change: u64, window: &mut Option<Window>) {
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

/// Whether a signed number goes into so many bits, fewer than 64.
pub fn fits(value: i64, len: u32) -> bool {
    match len {
        0 => value == 0,
        _ => value > -(1 << (len - 1)) && value <= 1 << (len - 1),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Worked out by hand from Prometheus' description of them.
    #[test]
    fn varbits_are_frozen() {
        let bits = |put: &dyn Fn(&mut Sink<'_>)| {
            let mut out = Vec::new();
            put(&mut Sink::new(&mut out));
            out
        };
        assert_eq!(bits(&|sink| sink.put_signed_varbit(0)), [0]);
        assert_eq!(bits(&|sink| sink.put_signed_varbit(4)), [0b10_100_000]);
        assert_eq!(bits(&|sink| sink.put_signed_varbit(-3)), [0b10_101_000]);
        assert_eq!(bits(&|sink| sink.put_signed_varbit(-4)), [0b110_11110, 0b0_0000000]);
        assert_eq!(bits(&|sink| sink.put_varbit(7)), [0b10_111_000]);
        assert_eq!(bits(&|sink| sink.put_varbit(4096)), [0b1111_1000, 0b0001_0000, 0]);
        assert_eq!(bits(&|sink| sink.put_varbit(u64::MAX)), [0xff; 9]);
    }

    #[test]
    fn varbits_at_the_edges_of_their_ranges_read_back() {
        let mut numbers = vec![i64::MIN, i64::MAX];
        for len in VARBIT.iter().filter(|len| (1..64).contains(*len)) {
            let edge = 1i64 << (len - 1);
            numbers.extend([edge - 1, edge, edge + 1, 1 - edge, -edge, -edge - 1, 2 * edge - 1, 2 * edge]);
        }
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out);
        for number in &numbers {
            sink.put_signed_varbit(*number);
            sink.put_varbit(*number as u64);
        }
        let mut bits = Bits::new(&out);
        for number in &numbers {
            assert_eq!(bits.signed_varbit(), Some(*number));
            assert_eq!(bits.varbit(), Some(*number as u64));
        }
    }

    /// A writer that was restarted behind the first value uses a window that it has not said.
    #[test]
    fn the_window_of_the_last_is_the_whole_value_at_first() {
        let mut out = Vec::new();
        let mut sink = Sink::new(&mut out);
        sink.put(0b10, 2);
        sink.put(0x1234_5678_9abc_def0, 64);
        assert_eq!(Bits::new(&out).change(&mut Window::default()), Some(0x1234_5678_9abc_def0));
    }

    proptest! {
        #[test]
        fn numbers_of_any_length_read_back(numbers in proptest::collection::vec((any::<u64>(), 0u32..64), 0..50)) {
            let numbers: Vec<u64> = numbers.iter().map(|(number, shift)| number >> shift).collect();
            let mut out = Vec::new();
            let mut sink = Sink::new(&mut out);
            for number in &numbers {
                sink.put_varbit(*number);
                sink.put_varint(*number as i64);
                sink.put_uvarint(*number);
                sink.put_signed_varbit(*number as i64);
            }
            let mut bits = Bits::new(&out);
            for number in &numbers {
                prop_assert_eq!(bits.varbit(), Some(*number));
                prop_assert_eq!(bits.varint(), Some(*number as i64));
                prop_assert_eq!(bits.uvarint(), Some(*number));
                prop_assert_eq!(bits.signed_varbit(), Some(*number as i64));
            }
        }
    }
}
