//! The series of each pair of a block.
//!
//! ```text
//! lists     u32, how many: one for each pair
//! series    u32, how many there are
//! ends      for each list: u32, where it ends after the ends
//! lists     short: how many, below 64, then the first and the differences, all varints
//!           long: a zero byte, then a roaring bitmap in its portable serialization
//! ```
//!
//! Series are numbered in the order of their labels, so the lists of leading labels are runs.

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::IndexError;
use crate::wire::{put_varint, take_array, take_slice, take_u32, u32_at};

/// From this many on a list is a bitmap.
const SHORT_MAX: u64 = 64;

const CUT: IndexError = IndexError("the postings are cut short");

/// Encodes a list for each pair, in order; none is empty.
pub fn encode(lists: &mut [RoaringBitmap], series_count: u32, out: &mut Vec<u8>) {
    let (mut ends, mut bytes) = (Vec::with_capacity(lists.len() * 4), Vec::new());
    for list in &mut *lists {
        if list.len() < SHORT_MAX {
            put_varint(&mut bytes, list.len());
            let mut previous = 0;
            for series in list.iter() {
                put_varint(&mut bytes, u64::from(series - previous));
                previous = series;
            }
        } else {
            bytes.push(0);
            list.optimize();
            list.serialize_into(&mut bytes).expect("memory takes all");
        }
        let end = u32::try_from(bytes.len()).expect("the postings of a block stay below 4 GiB");
        ends.extend_from_slice(&end.to_le_bytes());
    }
    out.extend_from_slice(&(lists.len() as u32).to_le_bytes());
    out.extend_from_slice(&series_count.to_le_bytes());
    out.extend_from_slice(&ends);
    out.extend_from_slice(&bytes);
}

/// The encoded lists, mapped.
#[derive(Debug, Clone)]
pub struct Lists {
    ends: Bytes,
    lists: Bytes,
    all: RoaringBitmap,
}

impl Lists {
    pub fn open(bytes: &Bytes) -> Result<Lists, IndexError> {
        let mut input = &bytes[..];
        let count = take_array(&mut input).map(u32::from_le_bytes).ok_or(CUT)?;
        let series = take_array(&mut input).map(u32::from_le_bytes).ok_or(CUT)?;
        let ends = take_slice(&mut input, count as usize * 4).ok_or(CUT)?;
        let mut all = RoaringBitmap::new();
        all.insert_range(0..series);
        Ok(Lists { ends: bytes.slice_ref(ends), lists: bytes.slice_ref(input), all })
    }

    /// How many lists there are.
    pub fn len(&self) -> u32 {
        self.ends.len() as u32 / 4
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Every series.
    pub fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    pub fn list(&self, pair: u32) -> Result<RoaringBitmap, IndexError> {
        let pair = pair as usize;
        let end = u32_at(&self.ends, pair).ok_or(CUT)?;
        let start = if pair == 0 { 0 } else { u32_at(&self.ends, pair - 1).ok_or(CUT)? };
        let mut input = self.lists.get(start as usize..end as usize).ok_or(CUT)?;
        let list = match take_u32(&mut input).ok_or(CUT)? {
            0 => RoaringBitmap::deserialize_from(&mut input)
                .map_err(|_| IndexError("a bitmap does not decode"))?,
            count => take_short(&mut input, count)?,
        };
        let known = list.max().is_some_and(|last| u64::from(last) < self.all.len());
        if known && input.is_empty() {
            Ok(list)
        } else {
            Err(IndexError("a list has series that are not there"))
        }
    }
}

fn take_short(input: &mut &[u8], count: u32) -> Result<RoaringBitmap, IndexError> {
    let (mut list, mut series) = (RoaringBitmap::new(), 0u32);
    for _ in 0..count {
        let step = take_u32(input).ok_or(CUT)?;
        series = series.checked_add(step).ok_or(IndexError("a list has series that are not there"))?;
        list.insert(series);
    }
    Ok(list)
}
