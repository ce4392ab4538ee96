//! Parity of the bytes of an image: what damage in one place is rebuilt from.
//!
//! ```text
//! bytes    stripe 0 │ stripe 1 │ stripe 2 │ … │ stripe n-1, which may be shorter
//! group           0          1          2   …   0          1          …     by turns, of `groups`
//! parity   of group n%groups │ …      as if counted on; each the XOR of its group's stripes, zeros behind a short one
//! crc32    of each stripe, then of each parity: u32
//! ```
//!
//! A stripe whose checksum does not hold is the XOR of its parity and of all others of its group. Neighbours are of
//! different groups, and there are so many of these that a page of the disk that is lost ([`BURST`]) takes one stripe
//! of each at most, and in a large image one byte in sixteen in a row.
//!
//! The lengths follow from that of the bytes: a stripe has one part of 32 of them, at most a page.

use std::ops::Range;

/// Bytes in a row that may be damaged, wherever they begin.
const BURST: usize = 4096;

const STRIPE_MAX: usize = 4096;
const STRIPE_MIN: usize = 64;

/// Stripes of a group at most: parity takes a sixteenth of what is not small.
const GROUP_MAX: usize = 16;

const CRC_LEN: usize = 4;

/// How so many bytes are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stripes {
    len: usize,
    stripe: usize,
    groups: usize,
}

impl Stripes {
    pub(super) fn of(len: usize) -> Stripes {
        let stripe = len.div_ceil(32).next_multiple_of(8).clamp(STRIPE_MIN, STRIPE_MAX);
        let count = len.div_ceil(stripe);
        let groups = count.div_ceil(GROUP_MAX).max(BURST.div_ceil(stripe) + 2).min(count);
        Stripes { len, stripe, groups }
    }

    fn count(&self) -> usize {
        self.len.div_ceil(self.stripe)
    }

    /// Bytes of all parities.
    pub(super) fn parity_len(&self) -> usize {
        self.groups * self.stripe
    }

    pub(super) fn crcs_len(&self) -> usize {
        (self.count() + self.groups) * CRC_LEN
    }

    /// Bytes of parities and checksums.
    pub(super) fn encoded_len(&self) -> usize {
        self.parity_len() + self.crcs_len()
    }

    fn place(&self, number: usize) -> Range<usize> {
        number * self.stripe..((number + 1) * self.stripe).min(self.len)
    }

    fn parity_place(&self, group: usize) -> Range<usize> {
        let number = (group + self.groups - self.count() % self.groups) % self.groups;
        number * self.stripe..(number + 1) * self.stripe
    }
}

/// Appends the parities of what `out` has from `start` on, and the checksums.
pub(super) fn append(start: usize, out: &mut Vec<u8>) {
    let stripes = Stripes::of(out.len() - start);
    let end = out.len();
    out.resize(end + stripes.parity_len(), 0);
    let (before, parities) = out.split_at_mut(end);
    let bytes = &before[start..];
    for number in 0..stripes.count() {
        xor(&mut parities[stripes.parity_place(number % stripes.groups)], &bytes[stripes.place(number)]);
    }
    let of_bytes = (0..stripes.count()).map(|number| crc32fast::hash(&bytes[stripes.place(number)]));
    let of_parities =
        (0..stripes.groups).map(|group| crc32fast::hash(&parities[stripes.parity_place(group)]));
    let crcs: Vec<u8> = of_bytes.chain(of_parities).flat_map(u32::to_le_bytes).collect();
    out.extend_from_slice(&crcs);
}

/// Goes as far as the shorter one.
fn xor(into: &mut [u8], with: &[u8]) {
    into.iter_mut().zip(with).for_each(|(into, with)| *into ^= with);
}

/// Bytes, and what they are rebuilt from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parity<'a> {
    stripes: Stripes,
    bytes: &'a [u8],
    parities: &'a [u8],
    crcs: &'a [u8],
}

impl<'a> Parity<'a> {
    /// `encoded` is what stands behind the bytes, of which the checksums hold; `None` where that is not as long as it
    /// ought to be.
    pub(super) fn of(bytes: &'a [u8], encoded: &'a [u8]) -> Option<Parity<'a>> {
        let stripes = Stripes::of(bytes.len());
        let (parities, crcs) = encoded.split_at_checked(stripes.parity_len())?;
        (crcs.len() == stripes.crcs_len()).then_some(Parity { stripes, bytes, parities, crcs })
    }

    fn crc(&self, number: usize) -> u32 {
        let bytes = self.crcs[number * CRC_LEN..].first_chunk().expect("as long as that");
        u32::from_le_bytes(*bytes)
    }

    /// Whether the checksums of all parities hold.
    pub(super) fn is_whole(&self) -> bool {
        (0..self.stripes.groups).all(|group| {
            let parity = &self.parities[self.stripes.parity_place(group)];
            crc32fast::hash(parity) == self.crc(self.stripes.count() + group)
        })
    }

    /// A range of the bytes as it was; `None` where too much is damaged.
    pub(super) fn rebuild(&self, range: Range<usize>) -> Option<Vec<u8>> {
        let mut out = self.bytes[range.clone()].to_vec();
        for number in range.start / self.stripes.stripe..range.end.div_ceil(self.stripes.stripe) {
            let place = self.stripes.place(number);
            if crc32fast::hash(&self.bytes[place.clone()]) == self.crc(number) {
                continue;
            }
            let stripe = self.stripe(number)?;
            let (from, to) = (place.start.max(range.start), place.end.min(range.end));
            out[from - range.start..to - range.start]
                .copy_from_slice(&stripe[from - place.start..to - place.start]);
        }
        Some(out)
    }

    /// A stripe, from all the others of its group.
    fn stripe(&self, number: usize) -> Option<Vec<u8>> {
        let Stripes { groups, .. } = self.stripes;
        let mut stripe = self.parities[self.stripes.parity_place(number % groups)].to_vec();
        let group = (number % groups..self.stripes.count()).step_by(groups);
        group
            .filter(|other| *other != number)
            .for_each(|other| xor(&mut stripe, &self.bytes[self.stripes.place(other)]));
        stripe.truncate(self.stripes.place(number).len());
        (crc32fast::hash(&stripe) == self.crc(number)).then_some(stripe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stripes_are_frozen() {
        let of = |len| {
            let stripes = Stripes::of(len);
            (stripes.stripe, stripes.count(), stripes.groups, stripes.encoded_len())
        };
        assert_eq!(of(0), (64, 0, 0, 0));
        assert_eq!(of(1), (64, 1, 1, 72));
        assert_eq!(of(1000), (64, 16, 16, 1152));
        assert_eq!(of(40_000), (1256, 32, 6, 7688));
        assert_eq!(Stripes::of(40_000).burst(), BURST);
        assert_eq!(of(1 << 20), (4096, 256, 16, 66_624));
        assert_eq!(of(40 << 20), (4096, 10_240, 640, 2_664_960));
        let mut bytes: Vec<u8> = (0..64).chain([0xf0; 65]).collect();
        append(0, &mut bytes);
        // Of three stripes each is alone; the first of the groups that are counted on is that of stripe 0.
        assert_eq!(
            (&bytes[129..193], bytes[257], &bytes[258..321]),
            (&bytes[..64].to_vec()[..], 0xf0, &[0; 63][..])
        );
        assert_eq!(bytes[321..325], crc32fast::hash(&bytes[..64]).to_le_bytes());
        assert_eq!(bytes.len(), 129 + 3 * 64 + 6 * 4);
    }

    impl Stripes {
        /// Bytes in a row that may be damaged: of what is less than two pages the disk loses all at once anyway.
        pub(in crate::head::image) fn burst(&self) -> usize {
            (self.groups.saturating_sub(2) * self.stripe).clamp(1, BURST)
        }
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        (0..len as u64).map(|at| ((at + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_burst_is_rebuilt_wherever_it_begins(
            len in prop_oneof![0..5000usize, 5000..200_000usize],
            at in any::<prop::sample::Index>(),
            burst in any::<prop::sample::Index>(),
            part in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let whole = noise(len, 7);
            let mut file = whole.clone();
            append(0, &mut file);
            let at = at.index(file.len().max(1));
            let burst = 1 + burst.index(Stripes::of(len).burst());
            let end = (at + burst).min(len + Stripes::of(len).parity_len()).max(at);
            file[at.min(end)..end].iter_mut().for_each(|byte| *byte ^= 0x5a);
            let (bytes, encoded) = file.split_at(len);
            let parity = Parity::of(bytes, encoded).expect("as long as that");
            let (a, b) = (part.0.index(len + 1), part.1.index(len + 1));
            let range = a.min(b)..a.max(b);
            prop_assert_eq!(parity.rebuild(range.clone()), Some(whole[range].to_vec()));
            prop_assert_eq!(parity.is_whole(), end <= len || at >= end, "{}..{} of {}", at, end, len);
        }

        #[test]
        fn two_of_a_group_are_not_made_up(len in 3000..100_000usize, numbers in any::<(prop::sample::Index, prop::sample::Index)>()) {
            let mut file = noise(len, 3);
            append(0, &mut file);
            let stripes = Stripes::of(len);
            let numbers = [numbers.0, numbers.1].map(|number| number.index(stripes.count()));
            (1..).zip(numbers).for_each(|(change, number)| file[stripes.place(number).start] ^= change);
            let (bytes, encoded) = file.split_at(len);
            let parity = Parity::of(bytes, encoded).expect("as long as that");
            let is_lost = numbers[0] != numbers[1] && numbers[0] % stripes.groups == numbers[1] % stripes.groups;
            let rebuilt = parity.rebuild(stripes.place(numbers[0]));
            let expected = noise(len, 3)[stripes.place(numbers[0])].to_vec();
            prop_assert_eq!(rebuilt, (!is_lost).then_some(expected));
        }
    }
}
