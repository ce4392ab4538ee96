//! Open runs: the newest values of each series, lightly packed in chained cells of 32 bytes.
//!
//! A value is written as a token against the value before it (the first one against 0.0):
//!
//! ```text
//! 00nnnnnn             the same bits again, n + 1 times
//! 01zzzzzz             both are whole: the difference, zigzag, below 64
//! 10zzzzzz zzzzzzzz    the same, below 16,384, high bits first
//! 11lllttt bytes       XOR of the bits without l leading and t trailing zero bytes
//! ```
//!
//! Tokens are bytes, so that one sample costs a few instructions and most samples one or two
//! bytes; the strong codec comes when the run is sealed. A chain of small cells wastes half a
//! cell a series where growing buffers would waste half of themselves, and all freed cells are
//! of one size.

/// No cell, clock or chunk.
pub(crate) const NONE: u32 = u32::MAX;

const PAYLOAD: usize = 28;
const PAGE: usize = 1024;
/// Largest whole number below which every whole number is a double.
const WHOLE_MAX: i64 = 1 << 53;

#[derive(Debug, Clone, Copy)]
struct Cell {
    bytes: [u8; PAYLOAD],
    next: u32,
}

const EMPTY: Cell = Cell { bytes: [0; PAYLOAD], next: NONE };

const _: () = assert!(size_of::<Cell>() == 32);

/// The cells of a shard's open runs, by pages, so that growth copies nothing.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    pages: Vec<Box<[Cell; PAGE]>>,
    /// First of the chain of free cells.
    free: Option<u32>,
    used: u32,
    /// Cells handed out from the last page, in all.
    fresh: u32,
}

/// Where an open run's values stand and how the next one is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    pub(crate) first: u32,
    last: u32,
    /// Bits of the newest value.
    pub(crate) value: u64,
    /// Bytes used in the last cell.
    fill: u8,
    /// Whether the last token is a repetition that can be extended: its byte is the last one.
    repeating: bool,
}

impl Tail {
    pub(crate) const EMPTY: Tail = Tail { first: NONE, last: NONE, value: 0, fill: 0, repeating: false };
}

impl Cells {
    /// Writes the next value of a run.
    #[inline]
    pub(crate) fn push(&mut self, tail: &mut Tail, value: f64) {
        let bits = value.to_bits();
        let xor = bits ^ tail.value;
        if xor == 0 {
            return self.push_repeat(tail);
        }
        tail.repeating = false;
        if let Some(delta) = whole_delta(tail.value, bits) {
            let zigzag = ((delta << 1) ^ (delta >> 63)) as u64;
            tail.value = bits;
            if zigzag < 64 {
                return self.write(tail, &[0x40 | zigzag as u8]);
            }
            if zigzag < 1 << 14 {
                return self.write(tail, &[0x80 | (zigzag >> 8) as u8, zigzag as u8]);
            }
        }
        tail.value = bits;
        let (lead, trail) = (xor.leading_zeros() / 8, xor.trailing_zeros() / 8);
        let mut token = [0; 9];
        token[0] = 0xc0 | (lead << 3 | trail) as u8;
        token[1..].copy_from_slice(&(xor >> (trail * 8)).to_le_bytes());
        self.write(tail, &token[..9 - (lead + trail) as usize]);
    }

    fn push_repeat(&mut self, tail: &mut Tail) {
        if tail.repeating {
            let count = &mut self.cell(tail.last).bytes[usize::from(tail.fill) - 1];
            if *count < 0x3f {
                *count += 1;
                return;
            }
        }
        self.write(tail, &[0]);
        tail.repeating = true;
    }

    #[inline]
    fn write(&mut self, tail: &mut Tail, token: &[u8]) {
        if tail.last == NONE {
            tail.first = self.take();
            tail.last = tail.first;
            tail.fill = 0;
        }
        let room = PAYLOAD - usize::from(tail.fill);
        let (head, rest) = token.split_at(token.len().min(room));
        let fill = usize::from(tail.fill);
        self.cell(tail.last).bytes[fill..fill + head.len()].copy_from_slice(head);
        tail.fill += head.len() as u8;
        if !rest.is_empty() {
            let next = self.take();
            let cell = self.cell(tail.last);
            cell.next = next;
            tail.last = next;
            self.cell(next).bytes[..rest.len()].copy_from_slice(rest);
            tail.fill = rest.len() as u8;
        }
    }

    /// Appends the bytes of a run's tokens to `out`.
    pub(crate) fn copy_tokens(&self, tail: &Tail, out: &mut Vec<u8>) {
        let mut at = tail.first;
        while at != NONE {
            let cell = &self.pages[at as usize / PAGE][at as usize % PAGE];
            let len = if at == tail.last { usize::from(tail.fill) } else { PAYLOAD };
            out.extend_from_slice(&cell.bytes[..len]);
            at = if at == tail.last { NONE } else { cell.next };
        }
    }

    /// Puts tokens that [`Cells::copy_tokens`] gave back into cells, with the state that came along.
    pub(crate) fn restore(&mut self, tokens: &[u8], value: u64, repeating: bool) -> Tail {
        let mut tail = Tail { value, repeating, ..Tail::EMPTY };
        for piece in tokens.chunks(PAYLOAD) {
            self.write(&mut tail, piece);
        }
        tail
    }

    /// Gives a run's cells back.
    pub(crate) fn release(&mut self, tail: &mut Tail) {
        let mut at = tail.first;
        while at != NONE {
            let next = if at == tail.last { NONE } else { self.cell(at).next };
            let free = self.free.replace(at).unwrap_or(NONE);
            self.cell(at).next = free;
            self.used -= 1;
            at = next;
        }
        *tail = Tail::EMPTY;
    }

    pub(crate) fn bytes_held(&self) -> usize {
        self.pages.len() * size_of::<[Cell; PAGE]>()
    }

    fn take(&mut self) -> u32 {
        self.used += 1;
        if let Some(at) = self.free {
            let cell = self.cell(at);
            let next = cell.next;
            *cell = EMPTY;
            self.free = (next != NONE).then_some(next);
            return at;
        }
        if self.fresh as usize == self.pages.len() * PAGE {
            self.pages.push(Box::new([EMPTY; PAGE]));
        }
        self.fresh += 1;
        self.fresh - 1
    }

    #[inline]
    fn cell(&mut self, at: u32) -> &mut Cell {
        &mut self.pages[at as usize / PAGE][at as usize % PAGE]
    }
}

impl Tail {
    pub(crate) fn is_repeating(&self) -> bool {
        self.repeating
    }
}

/// The difference of two doubles that both are whole numbers, where it can be added back exactly.
#[inline]
fn whole_delta(before: u64, now: u64) -> Option<i64> {
    let (a, b) = (f64::from_bits(before) as i64, f64::from_bits(now) as i64);
    // The comparison of bits rules out fractions, NaN, infinities and -0.
    let whole = (a as f64).to_bits() == before && (b as f64).to_bits() == now;
    (whole && a.abs() < WHOLE_MAX && b.abs() < WHOLE_MAX).then(|| b - a)
}

/// Appends the `count` values of a run's tokens to `out`. The tokens are ours, from memory or
/// from a checksummed image; `false` says that they do not hold `count` values.
#[must_use]
pub(crate) fn decode_tokens(mut tokens: &[u8], count: usize, out: &mut Vec<f64>) -> bool {
    let end = out.len() + count;
    let mut bits = 0u64;
    while let Some((&token, rest)) = tokens.split_first() {
        tokens = rest;
        let low = token & 0x3f;
        match token >> 6 {
            0 => {
                let repeats = usize::from(low) + 1;
                if out.len() + repeats > end {
                    return false;
                }
                out.resize(out.len() + repeats, f64::from_bits(bits));
                continue;
            }
            1 => bits = add_whole(bits, u64::from(low)),
            2 => {
                let Some((&second, rest)) = tokens.split_first() else { return false };
                tokens = rest;
                bits = add_whole(bits, u64::from(low) << 8 | u64::from(second));
            }
            _ => {
                let (lead, trail) = (usize::from(low >> 3), usize::from(low & 7));
                let len = 8usize.saturating_sub(lead + trail);
                let Some((bytes, rest)) = tokens.split_at_checked(len) else { return false };
                tokens = rest;
                let mut xor = [0; 8];
                xor[..len].copy_from_slice(bytes);
                bits ^= u64::from_le_bytes(xor) << (trail * 8);
            }
        }
        if out.len() == end {
            return false;
        }
        out.push(f64::from_bits(bits));
    }
    out.len() == end
}

#[inline]
fn add_whole(bits: u64, zigzag: u64) -> u64 {
    let delta = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    ((f64::from_bits(bits) as i64).wrapping_add(delta) as f64).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(values: &[f64]) {
        let mut cells = Cells::default();
        let (mut tail, mut other) = (Tail::EMPTY, Tail::EMPTY);
        for value in values {
            cells.push(&mut tail, *value);
            cells.push(&mut other, 1.5);
        }
        let (mut tokens, mut read) = (Vec::new(), Vec::new());
        cells.copy_tokens(&tail, &mut tokens);
        assert!(decode_tokens(&tokens, values.len(), &mut read));
        let bits = |v: &[f64]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read), bits(values));
        let mut again = cells.restore(&tokens, tail.value, tail.is_repeating());
        cells.push(&mut again, 7.25);
        tokens.clear();
        cells.copy_tokens(&again, &mut tokens);
        read.clear();
        assert!(decode_tokens(&tokens, values.len() + 1, &mut read));
        assert_eq!(read.last(), Some(&7.25));
        cells.release(&mut tail);
        cells.release(&mut other);
        cells.release(&mut again);
        assert_eq!(cells.used, 0);
    }

    #[test]
    fn every_double_comes_back_bit_for_bit() {
        let odd =
            [0.0, -0.0, 1.0, f64::NAN, f64::INFINITY, f64::from_bits(0x7ff0_0000_0000_0002), 1e300, 0.1];
        check(&odd);
        check(&[3.0; 200]);
        check(&[9_007_199_254_740_991.0, 9_007_199_254_740_992.0, -1.0, 8191.0, -8192.0, 31.0, -31.0]);
        check(&(0..120).map(|i| f64::from(i) * 0.37).collect::<Vec<_>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_run_comes_back(bits in proptest::collection::vec(prop_oneof![any::<u64>(),
            (0u64..300).prop_map(|v| (v as f64).to_bits()), Just(1f64.to_bits())], 0..140)) {
            check(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
        }

        #[test]
        fn no_tokens_make_the_decoder_panic(tokens in proptest::collection::vec(any::<u8>(), 0..60), count in 0usize..200) {
            let mut out = Vec::new();
            let _ = decode_tokens(&tokens, count, &mut out);
            prop_assert!(out.len() <= count);
        }
    }
}
