//! Open runs: the newest values of each series as [`tokens`](super::tokens), in chained cells of 32 bytes.
//!
//! A chain of small cells wastes half a cell a series where growing buffers would waste half of
//! themselves, and all freed cells are of one size.

use tidewatch_env::prefetch;

use super::tokens::{DELTA_3, DELTA_4, EXPONENT, End, NO_EXPONENT, POWERS, delta_at};

/// No cell, clock or chunk.
pub(crate) const NONE: u32 = u32::MAX;

const PAYLOAD: usize = 28;
const PAGE: usize = 1024;
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
    /// Of the values to come.
    exponent: u8,
    /// Cells of the run.
    cells: u8,
}

/// A run with more cells than this is sealed before its clock is full: the strong codec takes less
/// than half, and most runs, whose values change little, stay below.
const CELLS_MAX: u8 = 8;

impl Tail {
    pub(crate) const EMPTY: Tail =
        Tail { first: NONE, last: NONE, value: 0, fill: 0, repeating: false, exponent: 0, cells: 0 };

    /// Whether the run is to be sealed for the room that it takes.
    #[inline]
    pub(crate) fn is_long(&self) -> bool {
        self.cells > CELLS_MAX
    }
}

impl Cells {
    /// A value of this run will be written soon.
    #[inline]
    pub(crate) fn expect(&self, tail: &Tail) {
        if let Some(page) = self.pages.get(tail.last as usize / PAGE) {
            prefetch(&page[tail.last as usize % PAGE]);
        }
    }

    /// Writes the next value of a run.
    #[inline]
    pub(crate) fn push(&mut self, tail: &mut Tail, value: f64) {
        let bits = value.to_bits();
        let xor = bits ^ tail.value;
        if xor == 0 {
            return self.push_repeat(tail);
        }
        tail.repeating = false;
        let before = std::mem::replace(&mut tail.value, bits);
        if tail.exponent != NO_EXPONENT {
            if let Some(delta) = delta_at(tail.exponent, before, bits) {
                return self.push_delta(tail, delta);
            }
            // NaN and infinities say nothing about the values around them.
            if value.is_finite() && f64::from_bits(before).is_finite() {
                tail.exponent = (0..POWERS.len() as u8)
                    .find(|exponent| delta_at(*exponent, before, bits).is_some())
                    .unwrap_or(NO_EXPONENT);
                if let Some(delta) = delta_at(tail.exponent, before, bits) {
                    self.write(tail, &[EXPONENT | (tail.exponent + 1)]);
                    return self.push_delta(tail, delta);
                }
            }
        }
        self.push_xor(tail, xor);
    }

    #[inline]
    fn push_delta(&mut self, tail: &mut Tail, delta: i64) {
        let zigzag = ((delta << 1) ^ (delta >> 63)) as u64;
        match zigzag {
            0..64 => self.write(tail, &[0x40 | zigzag as u8]),
            64..0x4000 => self.write(tail, &[0x80 | (zigzag >> 8) as u8, zigzag as u8]),
            _ => {
                let bytes = zigzag.to_le_bytes();
                match zigzag {
                    0..0x100_0000 => self.write(tail, &[DELTA_3, bytes[0], bytes[1], bytes[2]]),
                    _ => self.write(tail, &[DELTA_4, bytes[0], bytes[1], bytes[2], bytes[3]]),
                }
            }
        }
    }

    fn push_xor(&mut self, tail: &mut Tail, xor: u64) {
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
        let fill = usize::from(tail.fill);
        if tail.last == NONE || fill + token.len() > PAYLOAD {
            return self.write_across(tail, token);
        }
        self.cell(tail.last).bytes[fill..fill + token.len()].copy_from_slice(token);
        tail.fill += token.len() as u8;
    }

    /// The same where a new cell is needed.
    #[inline(never)]
    fn write_across(&mut self, tail: &mut Tail, token: &[u8]) {
        if tail.last == NONE {
            tail.first = self.take();
            tail.last = tail.first;
            tail.fill = 0;
            tail.cells = 1;
        }
        let fill = usize::from(tail.fill);
        let (head, rest) = token.split_at(token.len().min(PAYLOAD - fill));
        self.cell(tail.last).bytes[fill..fill + head.len()].copy_from_slice(head);
        tail.fill += head.len() as u8;
        if !rest.is_empty() {
            let next = self.take();
            let cell = self.cell(tail.last);
            cell.next = next;
            tail.last = next;
            tail.cells = tail.cells.saturating_add(1);
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
    pub(crate) fn restore(&mut self, tokens: &[u8], state: RunState) -> Tail {
        let RunState { value, repeating, exponent } = state;
        let mut tail = Tail { value, repeating, exponent, ..Tail::EMPTY };
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
            self.add_page();
        }
        self.fresh += 1;
        self.fresh - 1
    }

    /// Not inlined: a page is built on the stack, and who has room for one touches all of it each time.
    #[cold]
    #[inline(never)]
    fn add_page(&mut self) {
        self.pages.push(Box::new([EMPTY; PAGE]));
    }

    #[inline]
    fn cell(&mut self, at: u32) -> &mut Cell {
        &mut self.pages[at as usize / PAGE][at as usize % PAGE]
    }
}

/// What goes with a run's tokens so that it can be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunState {
    pub(crate) value: u64,
    pub(crate) repeating: bool,
    pub(crate) exponent: u8,
}

impl RunState {
    /// Whether an encoder can be in this state behind tokens that end so.
    pub(crate) fn is_of(&self, end: &End) -> bool {
        let is_sought = self.exponent == end.exponent || self.exponent == NO_EXPONENT;
        is_sought && (end.repeats || !self.repeating)
    }
}

impl Tail {
    pub(crate) fn state(&self) -> RunState {
        RunState { value: self.value, repeating: self.repeating, exponent: self.exponent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::tokens::{decode_tokens, end_of_tokens};
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
        let end = end_of_tokens(&tokens, values.len()).expect("just written");
        assert!(end.value == tail.value && tail.state().is_of(&end), "{end:?} {tail:?}");
        let mut again = cells.restore(&tokens, tail.state());
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
        check(&[0.1, 0.25, 7.0, f64::NAN, 12.125, 1e-7, 0.5, 3.0, -0.000_001, 99_999.999_999]);
        check(&[5.0, 20_000.0, 9e6, -4e9, 1e15, -1e15]);
    }

    #[test]
    fn decimals_take_two_bytes() {
        let (mut cells, mut tail, mut tokens) = (Cells::default(), Tail::EMPTY, Vec::new());
        for i in 0..100 {
            cells.push(&mut tail, f64::from(1_234_567 + i * 150) / 100.0);
        }
        cells.copy_tokens(&tail, &mut tokens);
        assert!(tokens.len() < 206, "{} bytes", tokens.len());
    }

    #[test]
    fn the_tokens_are_frozen() {
        let values = [1.0, 1.0, 1.0, 3.0, 1000.0, 0.5, 100_000.5, f64::NAN, 0.1, 10_000_000.1];
        let (mut cells, mut tail, mut tokens) = (Cells::default(), Tail::EMPTY, Vec::new());
        values.iter().for_each(|value| cells.push(&mut tail, *value));
        cells.copy_tokens(&tail, &mut tokens);
        assert_eq!(tokens, FROZEN, "{tokens:02x?}");
    }

    const FROZEN: &[u8] = &[
        0x42, 0x01, 0x44, 0x87, 0xca, 0xfa, 0xf2, 0x15, 0x4e, 0x00, 0xf2, 0x80, 0x84, 0x1e, 0xc4, 0x08, 0x6a,
        0x00, 0x3f, 0xc0, 0x9a, 0x99, 0x99, 0x99, 0x99, 0x99, 0x41, 0x40, 0xf3, 0x00, 0xc2, 0xeb, 0x0b,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_run_comes_back(bits in proptest::collection::vec(prop_oneof![any::<u64>(),
            (0u64..300).prop_map(|v| (v as f64).to_bits()),
            (0u64..1_000_000, 0i32..8).prop_map(|(v, e)| (v as f64 / 10f64.powi(e)).to_bits()), Just(1f64.to_bits())], 0..140)) {
            check(&bits.into_iter().map(f64::from_bits).collect::<Vec<_>>());
        }

        #[test]
        fn no_tokens_make_the_decoder_panic(tokens in proptest::collection::vec(any::<u8>(), 0..60), count in 0usize..200) {
            let mut out = Vec::new();
            let whole = decode_tokens(&tokens, count, &mut out);
            prop_assert!(out.len() <= count);
            let newest = end_of_tokens(&tokens, count).map(|end| end.value);
            prop_assert_eq!(newest, whole.then(|| out.last().map_or(0, |value| value.to_bits())));
        }
    }
}
