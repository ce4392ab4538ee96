//! The label pairs of a block: names and their values in order, to be searched where they lie.
//!
//! ```text
//! names     u32
//! pairs     u32
//! blocks    u32
//! name      for each name, ascending: length and text, then how many values, both varints
//! offsets   for each block of values: u32, where it starts after the offsets
//! blocks    up to 16 values of one name, ascending; for each as varints how many bytes it
//!           shares with the one before (the first: 0) and how many follow; those bytes
//! ```
//!
//! A pair's number is its place in the order of name and value. Front coding takes 9 bytes for a
//! pod's name of 30; names are few and read when the block is opened.

use bytes::Bytes;

use super::IndexError;
use crate::wire::{put_varint, take_array, take_slice, take_u32, u32_at};

/// Values of one block: a search reads at most this many.
const BLOCK: usize = 16;

const SHORT: IndexError = IndexError("the labels are cut short");

/// Encodes names and values that ascend.
pub fn encode<'a, V>(names: impl IntoIterator<Item = (&'a str, V)>, out: &mut Vec<u8>)
where
    V: ExactSizeIterator<Item = &'a str>,
{
    let (mut name_count, mut pair_count) = (0u32, 0u32);
    let (mut heads, mut offsets, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    for (name, values) in names {
        name_count += 1;
        pair_count += values.len() as u32;
        put_varint(&mut heads, name.len() as u64);
        heads.extend_from_slice(name.as_bytes());
        put_varint(&mut heads, values.len() as u64);
        let mut previous = "";
        for (i, value) in values.enumerate() {
            let mut shared = 0;
            if i % BLOCK == 0 {
                let offset = u32::try_from(blocks.len()).expect("the labels of a block stay below 4 GiB");
                offsets.push(offset);
            } else {
                shared = previous.bytes().zip(value.bytes()).take_while(|(a, b)| a == b).count();
            }
            put_varint(&mut blocks, shared as u64);
            put_varint(&mut blocks, (value.len() - shared) as u64);
            blocks.extend_from_slice(&value.as_bytes()[shared..]);
            previous = value;
        }
    }
    for count in [name_count, pair_count, offsets.len() as u32] {
        out.extend_from_slice(&count.to_le_bytes());
    }
    out.extend_from_slice(&heads);
    offsets.iter().for_each(|offset| out.extend_from_slice(&offset.to_le_bytes()));
    out.extend_from_slice(&blocks);
}

/// The encoded pairs, mapped.
#[derive(Debug, Clone)]
pub struct Dictionary {
    names: Vec<Name>,
    offsets: Bytes,
    blocks: Bytes,
    pair_count: u32,
}

#[derive(Debug, Clone)]
struct Name {
    text: Box<str>,
    first_pair: u32,
    value_count: u32,
    first_block: u32,
}

impl Dictionary {
    /// Reads the names; values are read when they are asked for.
    pub fn open(bytes: &Bytes) -> Result<Dictionary, IndexError> {
        let mut input = &bytes[..];
        let mut count = || take_array(&mut input).map(u32::from_le_bytes).ok_or(SHORT);
        let (name_count, pair_count, block_count) = (count()?, count()?, count()?);
        let mut names: Vec<Name> = Vec::new();
        let (mut first_pair, mut first_block) = (0u32, 0u32);
        for _ in 0..name_count {
            let len = take_u32(&mut input).ok_or(SHORT)?;
            let text = take_slice(&mut input, len as usize).ok_or(SHORT)?;
            let text = str::from_utf8(text).map_err(|_| IndexError("a label name is not UTF-8"))?;
            if names.last().is_some_and(|last| *last.text >= *text) {
                return Err(IndexError("label names do not ascend"));
            }
            let value_count = take_u32(&mut input).filter(|count| *count > 0).ok_or(SHORT)?;
            names.push(Name { text: text.into(), first_pair, value_count, first_block });
            first_pair = first_pair.checked_add(value_count).ok_or(SHORT)?;
            first_block += value_count.div_ceil(BLOCK as u32);
        }
        if first_pair != pair_count || first_block != block_count {
            return Err(IndexError("label values are not as many as their names say"));
        }
        let offsets = take_slice(&mut input, block_count as usize * 4).ok_or(SHORT)?;
        Ok(Dictionary {
            names,
            offsets: bytes.slice_ref(offsets),
            blocks: bytes.slice_ref(input),
            pair_count,
        })
    }

    pub fn pair_count(&self) -> u32 {
        self.pair_count
    }

    /// Names, ascending.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &*name.text)
    }

    /// How many values a name has, by name.
    pub fn value_counts(&self) -> impl Iterator<Item = (&str, u32)> {
        self.names.iter().map(|name| (&*name.text, name.value_count))
    }

    /// The name of a pair; its value goes into `value`, which is emptied first.
    pub fn pair(&self, pair: u32, value: &mut String) -> Result<&str, IndexError> {
        if pair >= self.pair_count {
            return Err(IndexError("a pair's number is out of range"));
        }
        let name = &self.names[self.names.partition_point(|name| name.first_pair <= pair) - 1];
        let at = (pair - name.first_pair) as usize;
        let mut found = false;
        self.visit_block(name, at / BLOCK, |text, number| {
            found = number == pair;
            if found {
                value.clear();
                value.push_str(text);
            }
            !found
        })?;
        if found { Ok(&name.text) } else { Err(SHORT) }
    }

    pub fn find(&self, name: &str, value: &str) -> Result<Option<u32>, IndexError> {
        let Some(name) = self.name(name) else { return Ok(None) };
        let block = self.last_block_not_after(name, value)?;
        let mut found = None;
        self.visit_block(name, block, |text, pair| {
            if text == value {
                found = Some(pair);
            }
            text < value
        })?;
        Ok(found)
    }

    /// Visits the values of a name that start with `prefix`, ascending, while `visit` gives true.
    pub fn visit_values(
        &self,
        name: &str,
        prefix: &str,
        visit: &mut dyn FnMut(&str, u32) -> bool,
    ) -> Result<(), IndexError> {
        let Some(name) = self.name(name) else { return Ok(()) };
        let mut going = true;
        for block in self.last_block_not_after(name, prefix)?..name.block_count() {
            self.visit_block(name, block, |text, pair| {
                let beyond = text > prefix && !text.starts_with(prefix);
                going = !beyond && (!text.starts_with(prefix) || visit(text, pair));
                going
            })?;
            if !going {
                break;
            }
        }
        Ok(())
    }

    fn name(&self, name: &str) -> Option<&Name> {
        self.names.binary_search_by(|probe| (*probe.text).cmp(name)).ok().map(|at| &self.names[at])
    }

    /// The block that would hold `value`: the last whose first value is not after it, or the first.
    fn last_block_not_after(&self, name: &Name, value: &str) -> Result<usize, IndexError> {
        let (mut low, mut high) = (0, name.block_count());
        while low + 1 < high {
            let middle = (low + high) / 2;
            let mut after = false;
            self.visit_block(name, middle, |first, _| {
                after = first > value;
                false
            })?;
            if after {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(low)
    }

    /// Visits the values of a name's block, ascending, while `visit` gives true.
    fn visit_block(
        &self,
        name: &Name,
        block: usize,
        mut visit: impl FnMut(&str, u32) -> bool,
    ) -> Result<(), IndexError> {
        let start = u32_at(&self.offsets, name.first_block as usize + block).ok_or(SHORT)?;
        let mut input = self.blocks.get(start as usize..).ok_or(SHORT)?;
        let mut value = String::new();
        let first = block * BLOCK;
        for at in first..(name.value_count as usize).min(first + BLOCK) {
            let shared = take_u32(&mut input).ok_or(SHORT)? as usize;
            let len = take_u32(&mut input).ok_or(SHORT)? as usize;
            let rest = take_slice(&mut input, len).ok_or(SHORT)?;
            // Values are cut between bytes, not between characters.
            let mut bytes = std::mem::take(&mut value).into_bytes();
            if shared > bytes.len() {
                return Err(IndexError("a label value shares more than there is"));
            }
            bytes.truncate(shared);
            bytes.extend_from_slice(rest);
            value = String::from_utf8(bytes).map_err(|_| IndexError("a label value is not UTF-8"))?;
            if !visit(&value, name.first_pair + at as u32) {
                break;
            }
        }
        Ok(())
    }
}

impl Name {
    fn block_count(&self) -> usize {
        self.value_count.div_ceil(BLOCK as u32) as usize
    }
}
