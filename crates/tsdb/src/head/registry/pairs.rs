//! Interned labels, and the hash of label bytes.
//!
//! ```text
//! pair   0x0a len { 0x0a len name, 0x12 len value }     as remote write spells it
//! ```
//!
//! Invariant: a pair keeps its number while a series bears it (`renumber` gives new ones to all).
//!
//! Not here: which series bears which (`registry`).

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use tidewatch_model::{RawLabels, spell_pair};

/// Hashes label bytes. Seeded for each process, so that nobody can aim at the table.
#[derive(Debug, Clone)]
pub(crate) struct LabelHasher(FixedState);

impl LabelHasher {
    pub(crate) fn new(seed: u64) -> LabelHasher {
        LabelHasher(FixedState::with_seed(seed))
    }

    #[inline]
    pub(crate) fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

/// An interned label: name and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PairId(pub(crate) u32);

impl From<PairId> for u32 {
    fn from(pair: PairId) -> u32 {
        pair.0
    }
}

/// Interned pairs, in the spelling `0x0a len { 0x0a len name, 0x12 len value }`.
#[derive(Debug)]
pub(crate) struct Pairs {
    pub(super) text: Vec<u8>,
    /// Start of each pair in `text`; one more at the end.
    pub(super) starts: Vec<u32>,
    pub(super) table: HashTable<PairId>,
    scratch: Vec<u8>,
}

impl Pairs {
    pub(super) fn new() -> Pairs {
        Pairs { text: Vec::new(), starts: vec![0], table: HashTable::new(), scratch: Vec::new() }
    }

    /// The pair's spelling.
    #[inline]
    pub(crate) fn bytes(&self, pair: PairId) -> &[u8] {
        let at = pair.0 as usize;
        &self.text[self.starts[at] as usize..self.starts[at + 1] as usize]
    }

    /// Name and value as bytes, which are in the order of the texts.
    pub(crate) fn parts(&self, pair: PairId) -> (&[u8], &[u8]) {
        RawLabels::Proto(self.bytes(pair)).pairs().next().flatten().expect("interned in this spelling")
    }

    pub(crate) fn get(&self, pair: PairId) -> (&str, &str) {
        let (name, value) = self.parts(pair);
        let text = |bytes| std::str::from_utf8(bytes).expect("checked before it was interned");
        (text(name), text(value))
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The id of a pair, and whether it is new.
    pub(super) fn intern(&mut self, hasher: &LabelHasher, name: &str, value: &str) -> (PairId, bool) {
        let Pairs { text, starts, table, scratch } = self;
        scratch.clear();
        spell_pair(name.as_bytes(), value.as_bytes(), scratch);
        let bytes = |pair: PairId, text: &[u8], starts: &[u32]| {
            let at = pair.0 as usize;
            hasher.hash(&text[starts[at] as usize..starts[at + 1] as usize])
        };
        let hash = hasher.hash(scratch);
        let same = |pair: &PairId| {
            let at = pair.0 as usize;
            text[starts[at] as usize..starts[at + 1] as usize] == scratch[..]
        };
        if let Some(pair) = table.find(hash, same) {
            return (*pair, false);
        }
        let pair = PairId(starts.len() as u32 - 1);
        text.extend_from_slice(scratch);
        starts.push(
            u32::try_from(text.len()).expect("label text is below 4 GiB: the series limit is far below"),
        );
        table.insert_unique(hash, pair, |pair| bytes(*pair, text, starts));
        (pair, true)
    }

    /// The id of a pair that is known.
    pub(crate) fn find(&self, hasher: &LabelHasher, name: &str, value: &str) -> Option<PairId> {
        let mut spelled = Vec::with_capacity(name.len() + value.len() + 12);
        spell_pair(name.as_bytes(), value.as_bytes(), &mut spelled);
        self.table.find(hasher.hash(&spelled), |pair| self.bytes(*pair) == spelled).copied()
    }

    pub(super) fn bytes_held(&self) -> usize {
        self.text.capacity() + self.starts.capacity() * 4 + self.table.allocation_size()
    }
}
