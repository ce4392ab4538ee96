//! Reading integers off bytes that may be anything. Every taker gives `None` past the end.

/// Appends a little-endian base-128 integer.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn take_varint(input: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = input.split_first()?;
    if first < 0x80 {
        *input = rest;
        return Some(u64::from(first));
    }
    take_long_varint(input)
}

fn take_long_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (i, byte) in input.iter().enumerate().take(10) {
        if i == 9 && *byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if *byte < 0x80 {
            *input = &input[i + 1..];
            return Some(value);
        }
    }
    None
}

/// A varint that must fit 32 bits.
#[inline]
pub(crate) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    take_varint(input).and_then(|value| u32::try_from(value).ok())
}

#[inline]
pub(crate) fn take_slice<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (slice, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(slice)
}

#[inline]
pub(crate) fn take_array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (array, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*array)
}

/// The `at`-th little-endian `u32` of a table.
#[inline]
pub(crate) fn u32_at(table: &[u8], at: usize) -> Option<u32> {
    table.as_chunks::<4>().0.get(at).map(|bytes| u32::from_le_bytes(*bytes))
}
