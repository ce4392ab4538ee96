//! Tokens: how the values of an open run are written, lightly packed.
//!
//! A value is written as a token against the value before it (the first one against 0.0). A run
//! has an exponent e, 0 at first; a value's *mantissa* is the whole number m with m / 10^e = value,
//! where there is one: most values came from decimal text.
//!
//! ```text
//! 00nnnnnn             the same bits again, n + 1 times
//! 01zzzzzz             difference of the mantissas, zigzag, below 64
//! 10zzzzzz zzzzzzzz    the same, below 16,384, high bits first
//! 11lllttt bytes       XOR of the bits without l leading and t trailing zero bytes, l + t < 8
//! 11110010 bytes×3     difference of the mantissas, zigzag, little-endian
//! 11110011 bytes×4     the same
//! 11111eee             the exponent is eee - 1 from here on, 1 ≤ eee
//! ```
//!
//! Tokens are bytes, so that one sample costs a few instructions and most samples one or two
//! bytes; the strong codec comes when the run is sealed.
//!
//! Not here: where they lie, and writing them (`cells`).

/// Whole numbers below this are all doubles.
const MANTISSA_MAX: i64 = 1 << 53;
/// Powers of ten that an exponent can name.
pub(super) const POWERS: [f64; 7] = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6];
/// The exponent of a run that had a value without mantissa at any: it is not sought again.
pub(crate) const NO_EXPONENT: u8 = 0xff;

pub(super) const DELTA_3: u8 = 0b1111_0010;
pub(super) const DELTA_4: u8 = 0b1111_0011;
pub(super) const EXPONENT: u8 = 0b1111_1000;

/// The whole number m with m / 10^exponent = value, bit for bit.
#[inline]
fn mantissa(exponent: u8, bits: u64) -> Option<i64> {
    let (value, power) = (f64::from_bits(bits), POWERS[usize::from(exponent)]);
    let mantissa = (value * power).round_ties_even() as i64;
    // The comparison of bits rules out NaN, infinities and -0.
    let exact = (mantissa as f64 / power).to_bits() == bits;
    (exact && mantissa.abs() < MANTISSA_MAX).then_some(mantissa)
}

/// The difference of two values' mantissas, where both have one and a token has room for it.
#[inline]
pub(super) fn delta_at(exponent: u8, before: u64, now: u64) -> Option<i64> {
    if exponent == 0 {
        // Whole numbers need neither multiplication nor division.
        let (a, b) = (f64::from_bits(before) as i64, f64::from_bits(now) as i64);
        let whole = (a as f64).to_bits() == before && (b as f64).to_bits() == now;
        let small = whole && a.abs() < MANTISSA_MAX && b.abs() < MANTISSA_MAX;
        return small.then(|| b - a).filter(fits);
    }
    if exponent == NO_EXPONENT {
        return None;
    }
    let delta = mantissa(exponent, now)? - mantissa(exponent, before)?;
    Some(delta).filter(fits)
}

fn fits(delta: &i64) -> bool {
    (-(1 << 31)..1 << 31).contains(delta)
}

/// Appends the `count` values of a run's tokens to `out`. The tokens are ours, from memory or
/// from a checksummed image; `false` says that they do not hold `count` values.
#[must_use]
pub(crate) fn decode_tokens(tokens: &[u8], count: usize, out: &mut Vec<f64>) -> bool {
    let end = walk(tokens, count, |repeats, run| {
        let value = f64::from_bits(run.bits());
        match repeats {
            1 => out.push(value),
            _ => out.resize(out.len() + repeats, value),
        }
    });
    end.is_some()
}

/// How the tokens of a run end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// Bits of the newest value.
    pub(crate) value: u64,
    /// Whether the last token is a repetition.
    pub(crate) repeats: bool,
    pub(crate) exponent: u8,
}

/// The end of the `count` values of a run's tokens; `None` where they do not hold as many.
pub(crate) fn end_of_tokens(tokens: &[u8], count: usize) -> Option<End> {
    walk(tokens, count, |_, _| ())
}

/// Gives each value, with how often it repeats itself, to `visit`.
#[inline]
fn walk(mut tokens: &[u8], mut left: usize, mut visit: impl FnMut(usize, &Run)) -> Option<End> {
    let mut run = Run { bits: 0, mantissa: None, exponent: 0 };
    let mut is_repeat = false;
    while let Some((&token, rest)) = tokens.split_first() {
        tokens = rest;
        let low = token & 0x3f;
        let mut repeats = 1;
        is_repeat = token < 0x40;
        match token {
            0..0x40 => repeats = usize::from(low) + 1,
            0x40..0x80 => run.add(u64::from(low)),
            0x80..0xc0 => {
                let (&second, rest) = tokens.split_first()?;
                tokens = rest;
                run.add(u64::from(low) << 8 | u64::from(second));
            }
            DELTA_3 | DELTA_4 => run.add(take_bytes(&mut tokens, usize::from(token - DELTA_3) + 3)?),
            0b1111_1001..=0b1111_1111 => {
                run.set_exponent((token & 7) - 1);
                continue;
            }
            _ => {
                let (lead, trail) = (usize::from(low >> 3), usize::from(low & 7));
                let len = 8usize.saturating_sub(lead + trail);
                run.xor(take_bytes(&mut tokens, len)? << (trail * 8));
            }
        }
        left = left.checked_sub(repeats)?;
        visit(repeats, &run);
    }
    (left == 0).then(|| End { value: run.bits(), repeats: is_repeat, exponent: run.exponent })
}

/// A value on the way through tokens. As long as it moves by differences only the mantissa does: the
/// value itself costs a division, and going back a multiplication.
struct Run {
    /// Of the value, where it has no mantissa.
    bits: u64,
    mantissa: Option<i64>,
    exponent: u8,
}

impl Run {
    #[inline]
    fn power(&self) -> f64 {
        POWERS[usize::from(self.exponent)]
    }

    #[inline]
    fn bits(&self) -> u64 {
        self.mantissa.map_or(self.bits, |mantissa| (mantissa as f64 / self.power()).to_bits())
    }

    /// What is not exact here was not written by the encoder.
    #[inline]
    fn add(&mut self, zigzag: u64) {
        let delta = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        let before = match self.mantissa {
            Some(mantissa) => mantissa,
            None if self.exponent == 0 => f64::from_bits(self.bits) as i64,
            None => (f64::from_bits(self.bits) * self.power()).round_ties_even() as i64,
        };
        self.mantissa = Some(before.wrapping_add(delta));
    }

    fn xor(&mut self, bits: u64) {
        self.bits = self.bits() ^ bits;
        self.mantissa = None;
    }

    fn set_exponent(&mut self, exponent: u8) {
        self.bits = self.bits();
        (self.mantissa, self.exponent) = (None, exponent);
    }
}

/// A little-endian number of up to eight bytes.
#[inline]
fn take_bytes(tokens: &mut &[u8], len: usize) -> Option<u64> {
    let (bytes, rest) = tokens.split_at_checked(len)?;
    *tokens = rest;
    let mut number = [0; 8];
    number[..len].copy_from_slice(bytes);
    Some(u64::from_le_bytes(number))
}
