//! Fixed-width bit packing: values of `width` bits one after the other, low bit first.

/// How many values a group has. 64 values of `w` bits are `w` words, and a mask is one word.
pub(crate) const GROUP: usize = 64;

/// Appends the low `width` bits of each value, padded with zero bits to a whole byte.
pub(crate) fn pack(values: &[u64], width: u32, out: &mut Vec<u8>) {
    debug_assert!((1..=64).contains(&width));
    let end = out.len() + packed_len(values.len(), width);
    let (mut word, mut fill) = (0u64, 0u32);
    for &value in values {
        word |= value << fill;
        fill += width;
        if fill >= 64 {
            out.extend_from_slice(&word.to_le_bytes());
            fill -= 64;
            // What did not fit. A shift by the full width would be undefined; it means nothing is left.
            word = if fill == 0 { 0 } else { value >> (width - fill) };
        }
    }
    out.extend_from_slice(&word.to_le_bytes());
    out.truncate(end);
}

/// Bytes that `count` values of `width` bits take.
pub(crate) fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Unpacks 64 values of `width` bits, 0 to 64. Where fewer are packed, those after the last are
/// arbitrary. `input` starts at the packed bytes and may go on beyond them.
pub(crate) fn unpack(input: &[u8], width: u32, out: &mut [u64; GROUP]) {
    KERNELS[width as usize](input, out);
}

type Kernel = fn(&[u8], &mut [u64; GROUP]);

/// One kernel for each width, so that all offsets, shifts and masks are constants
/// (bench: `chunk/decode`).
const KERNELS: [Kernel; 65] = {
    macro_rules! kernels {
        ($($w:literal)*) => { [$(kernel::<$w>),*] };
    }
    kernels!(
        0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32
        33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64
    )
};

/// Room for 64 values of 64 bits, and for the load that starts at the last byte.
const WINDOW: usize = GROUP * 8 + 16;

fn kernel<const W: usize>(input: &[u8], out: &mut [u64; GROUP]) {
    if W == 0 {
        *out = [0; GROUP];
    } else if input.len() >= W * 8 + 16 {
        unpack_from::<W>(input, out);
    } else {
        // The column ends here. Loads reach past the packed bits, so give them room.
        let mut window = [0u8; WINDOW];
        let len = input.len().min(WINDOW);
        window[..len].copy_from_slice(&input[..len]);
        unpack_from::<W>(&window, out);
    }
}

#[inline(always)]
fn unpack_from<const W: usize>(input: &[u8], out: &mut [u64; GROUP]) {
    // The only length check: eight values are W bytes, and the loads of the last eight end here.
    let input = &input[..W * 8 + 16];
    let mask = if W == 64 { u64::MAX } else { (1 << W) - 1 };
    for (eight, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let block = &input[eight * W..eight * W + W + 16];
        for (i, out) in out.iter_mut().enumerate() {
            let (byte, bit) = (i * W / 8, i * W % 8);
            let low = u64::from_le_bytes(block[byte..byte + 8].try_into().expect("eight bytes"));
            let mut value = low >> bit;
            if bit + W > 64 {
                // Only for widths of 58 and more: the value's top bits are in a ninth byte.
                value |= u64::from(block[byte + 8]) << (64 - bit);
            }
            *out = value & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_and_count_comes_back() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for width in 1..=64 {
            for count in [1, 2, 7, 8, 63, 64] {
                let values: Vec<u64> = (0..count)
                    .map(|_| {
                        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                        (seed ^ seed >> 31) >> (64 - width)
                    })
                    .collect();
                let mut packed = Vec::new();
                pack(&values, width, &mut packed);
                assert_eq!(packed.len(), packed_len(count, width));
                for slack in [0, 40] {
                    let mut input = packed.clone();
                    input.resize(packed.len() + slack, 0xff);
                    let mut out = [0; GROUP];
                    unpack(&input, width, &mut out);
                    assert_eq!(out[..count], values, "width {width}, slack {slack}");
                }
            }
        }
    }
}
