//! Labels in remote write's spelling: the bytes by which the store knows a series.

use crate::Labels;

/// Appends a label as a field of remote write's `TimeSeries`: `0x0a len { 0x0a len name, 0x12 len value }`.
/// Labels one after the other are a [`RawLabels::Proto`](crate::RawLabels::Proto).
pub fn spell_pair(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let part = |text: &[u8]| 1 + varint_len(text.len()) + text.len();
    out.push(0x0a);
    push_varint(part(name) + part(value), out);
    for (tag, text) in [(0x0a, name), (0x12, value)] {
        out.push(tag);
        push_varint(text.len(), out);
        out.extend_from_slice(text);
    }
}

impl Labels {
    /// The labels as a sender of remote write spells them: what the store compares without walking it.
    pub fn spelled(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.iter().for_each(|(name, value)| spell_pair(name.as_bytes(), value.as_bytes(), &mut out));
        out
    }
}

fn varint_len(value: usize) -> usize {
    (usize::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

fn push_varint(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::{Labels, RawLabels};

    proptest! {
        #[test]
        fn what_is_spelled_is_walked_as_it_was(pairs in proptest::collection::btree_map("[a-z]{1,9}", ".{1,200}", 0..6)) {
            let labels = Labels::from_pairs(&pairs);
            let spelled = labels.spelled();
            let walked: Option<Vec<_>> = RawLabels::Proto(&spelled).pairs().collect();
            let expected: Vec<_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            prop_assert_eq!(walked, Some(expected));
        }
    }
}
