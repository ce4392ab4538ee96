//! XOR columns: each double's bits against those before, as windows of significant bits.
//!
//! ```text
//! first     8 bytes
//! then bits, low bit of each byte first, for every further sample:
//!   0                                            the same bits again
//!   1 0 body                                     in the window of the last sample that set one
//!   1 1 leading:6 length-1:6 body                a new window: `leading` zero bits, `length` bits
//! ```
//!
//! The fall-back for values that are neither decimal nor near their neighbour as integers, such
//! as a few distinct doubles in turn.

use crate::ChunkError;
use crate::varint::take_bytes;

/// Appends `values`, at least one.
pub(crate) fn encode(values: &[f64], out: &mut Vec<u8>) {
    out.extend_from_slice(&values[0].to_bits().to_le_bytes());
    let mut bits = BitWriter { out, word: 0, fill: 0 };
    let mut window: Option<(u32, u32)> = None;
    for pair in values.windows(2) {
        let xor = pair[0].to_bits() ^ pair[1].to_bits();
        if xor == 0 {
            bits.put(0, 1);
            continue;
        }
        let (leading, trailing) = (xor.leading_zeros(), xor.trailing_zeros());
        match window {
            // A new window costs 12 bits, so a loose one is kept until it wastes more.
            Some((lead, length))
                if leading >= lead
                    && trailing >= 64 - lead - length
                    && length <= 64 - leading - trailing + 12 =>
            {
                bits.put(0b01, 2);
                bits.put(xor >> (64 - lead - length), length);
            }
            _ => {
                let length = 64 - leading - trailing;
                bits.put(0b11, 2);
                bits.put(u64::from(leading), 6);
                bits.put(u64::from(length - 1), 6);
                bits.put(xor >> trailing, length);
                window = Some((leading, length));
            }
        }
    }
    bits.finish();
}

/// Fills `out`, at least one sample.
pub(crate) fn decode(input: &mut &[u8], out: &mut [f64]) -> Result<(), ChunkError> {
    let mut last = u64::from_le_bytes(take_bytes(input, 8)?.try_into().expect("eight bytes"));
    let mut bits = BitReader { input, at: 0 };
    let mut window = None;
    out[0] = f64::from_bits(last);
    for value in &mut out[1..] {
        if bits.take(1)? == 1 {
            if bits.take(1)? == 1 {
                let (lead, length) = (bits.take(6)? as u32, bits.take(6)? as u32 + 1);
                if lead + length > 64 {
                    return Err(ChunkError::Field("window"));
                }
                window = Some((lead, length));
            }
            let (lead, length) = window.ok_or(ChunkError::Field("window"))?;
            last ^= bits.take(length)? << (64 - lead - length);
        }
        *value = f64::from_bits(last);
    }
    let used = bits.at.div_ceil(8);
    *input = &input[used..];
    Ok(())
}

struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    word: u64,
    /// Bits of `word` in use, below 64.
    fill: u32,
}

impl BitWriter<'_> {
    /// `value` has no bits above `len`, 1 to 64.
    fn put(&mut self, value: u64, len: u32) {
        self.word |= value << self.fill;
        self.fill += len;
        if self.fill >= 64 {
            self.out.extend_from_slice(&self.word.to_le_bytes());
            self.fill -= 64;
            self.word = if self.fill == 0 { 0 } else { value >> (len - self.fill) };
        }
    }

    fn finish(self) {
        let len = self.fill.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.word.to_le_bytes()[..len]);
    }
}

struct BitReader<'a, 'b> {
    input: &'a &'b [u8],
    /// In bits.
    at: usize,
}

impl BitReader<'_, '_> {
    /// `len` is 1 to 64.
    fn take(&mut self, len: u32) -> Result<u64, ChunkError> {
        if self.at + len as usize > self.input.len() * 8 {
            return Err(ChunkError::Short);
        }
        let (byte, bit) = (self.at / 8, self.at % 8);
        self.at += len as usize;
        let mut window = [0; 16];
        let rest = &self.input[byte..];
        let loaded = rest.len().min(16);
        window[..loaded].copy_from_slice(&rest[..loaded]);
        Ok((u128::from_le_bytes(window) >> bit) as u64 & (u64::MAX >> (64 - len)))
    }
}
