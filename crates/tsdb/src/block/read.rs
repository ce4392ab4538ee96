//! What a block holds and which of its series match.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hashbrown::HashMap;
use roaring::RoaringBitmap;
use tidewatch_env::{give_back, unreadable};
use tidewatch_model::{Labels, Matcher};

use super::clocks::ClockTable;
use super::error::{BlockError, UNREADABLE};
use super::format::BlockMeta;
use super::open::Opening;
use super::salvage::Kept;
use super::scan::{ClockCache, Cursor};
use super::series::{GROUP, Record, SeriesTable};
use super::tombstones::Tombstones;
use crate::index::dictionary::Dictionary;
use crate::index::lists::Lists;
use crate::index::{Index, IndexError, postings_for_matchers, visit_names_of, visit_values_of};
use crate::wounds::Wounds;

/// An open block. The file is mapped; the index was checked against its checksums, chunks are
/// checked when they are read.
#[derive(Debug, Clone)]
pub struct Block {
    pub(super) path: PathBuf,
    pub(super) meta: BlockMeta,
    pub(super) dense: bool,
    pub(super) data: Bytes,
    pub(super) clocks: ClockTable,
    pub(super) series: SeriesTable,
    pub(super) clock_cache: Arc<ClockCache>,
    pub(super) index: Arc<BlockIndex>,
    /// Everything behind the data, which the index is made of.
    pub(super) index_bytes: Bytes,
    /// Checksum of the section table: tells this file from others of its name.
    pub(super) table_crc: u32,
    pub(super) tombstones: Arc<Tombstones>,
    /// Damage that reading has met, also through other tombstones.
    pub(super) wounds: Arc<Wounds>,
    pub(super) opening: Arc<Opening>,
    /// Columns of clocks by their offsets, as the copies of the index have them: read when one is damaged.
    pub(super) copied_columns: Arc<OnceLock<HashMap<u64, Box<[u8]>>>>,
}

impl Block {
    /// Gives the memory of the file back, after it was read as a whole.
    pub(crate) fn give_back(&self) {
        give_back(&self.data);
        give_back(&self.index_bytes);
    }

    /// The same block, read through these tombstones.
    pub fn with_tombstones(&self, tombstones: Tombstones) -> Block {
        Block { tombstones: Arc::new(tombstones), ..self.clone() }
    }

    pub fn meta(&self) -> &BlockMeta {
        &self.meta
    }

    /// Whether it was written dense: see [`super::WriterOptions`].
    pub fn is_dense(&self) -> bool {
        self.dense
    }

    pub(super) fn table_crc(&self) -> u32 {
        self.table_crc
    }

    /// Whether it was opened without some of its series, as nothing says any more what they are.
    pub(crate) fn lacks_series(&self) -> bool {
        self.opening.kept.is_some()
    }

    /// Those that it has, where it lacks some.
    pub(super) fn kept(&self) -> Option<&Kept> {
        self.opening.kept.as_ref()
    }

    pub(crate) fn wounds(&self) -> &Wounds {
        &self.wounds
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many series there are. They are numbered from 0 in the order of their labels.
    pub fn series_count(&self) -> u32 {
        self.series.len()
    }

    /// The index, for matchers and cardinalities.
    pub fn index(&self) -> &BlockIndex {
        &self.index
    }

    /// The series that satisfy all matchers and of which something is left.
    pub fn select(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, BlockError> {
        self.select_while(matchers, &mut || true)
    }

    /// The same while `go_on` says yes; after a no it is not whole.
    pub fn select_while(
        &self,
        matchers: &[Matcher],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<RoaringBitmap, BlockError> {
        let found = self.of_index(postings_for_matchers(&*self.index, matchers, go_on))?;
        Ok(found - self.tombstones.gone())
    }

    /// The series that satisfy the matchers, as far as `go_on` says yes, or `None` for all of the block.
    pub fn narrowed(
        &self,
        matchers: &[Matcher],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<RoaringBitmap>, BlockError> {
        let all = matchers.is_empty() && self.tombstones.gone().is_empty();
        if all { Ok(None) } else { self.select_while(matchers, go_on).map(Some) }
    }

    /// Visits the names of labels on `series`, or on all, while `visit` gives true.
    pub fn visit_label_names(
        &self,
        series: Option<&RoaringBitmap>,
        visit: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), BlockError> {
        self.of_index(visit_names_of(&*self.index, series, visit))
    }

    /// Visits the values of `name` on `series`, or on all, while `visit` gives true.
    pub fn visit_label_values(
        &self,
        name: &str,
        series: Option<&RoaringBitmap>,
        visit: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), BlockError> {
        self.of_index(visit_values_of(&*self.index, name, series, visit))
    }

    /// The labels of a series. Ask in ascending order with one cursor: neighbours share the work.
    pub fn labels(&self, cursor: &mut Cursor, series: u32) -> Result<Labels, BlockError> {
        let Cursor { record, pairs } = cursor;
        self.read_series(series, record)?;
        self.of_index(self.index.labels(&record.pairs, pairs))
    }

    /// The number of a series, if it is there.
    pub(crate) fn find(&self, cursor: &mut Cursor, labels: &Labels) -> Result<Option<u32>, BlockError> {
        let mut series = 0..self.series_count();
        while !series.is_empty() {
            let middle = series.start + (series.end - series.start) / 2;
            // The first of a group is read without those before it.
            let first = middle - middle % GROUP as u32;
            let middle = if first > series.start { first } else { middle };
            match self.labels(cursor, middle)?.cmp(labels) {
                Ordering::Less => series.start = middle + 1,
                Ordering::Equal => return Ok(Some(middle)),
                Ordering::Greater => series.end = middle,
            }
        }
        Ok(None)
    }

    /// Reads where the chunks of a series lie.
    pub(super) fn read_series(&self, series: u32, record: &mut Record) -> Result<(), BlockError> {
        self.of_index(self.series.read(series, &self.clocks, record))
    }

    /// What was read from the index, unless the disk has lost a part of it since it was checked.
    pub(super) fn of_index<T>(&self, read: Result<T, IndexError>) -> Result<T, BlockError> {
        let corrupt = |reason| BlockError::Corrupt { path: self.path.clone(), offset: 0, reason };
        match unreadable(&self.index_bytes) {
            Some(_) => {
                self.wounds.meet(0, UNREADABLE.to_owned(), false);
                Err(corrupt(UNREADABLE))
            }
            None => read.map_err(|error| corrupt(error.0)),
        }
    }
}

/// A block's label pairs and their series: an [`Index`].
#[derive(Debug)]
pub struct BlockIndex {
    pub(super) dictionary: Dictionary,
    pub(super) lists: Lists,
}

/// Pairs whose text was decoded, by number.
#[derive(Debug, Default)]
pub(super) struct PairTexts {
    texts: HashMap<u32, (Box<str>, Box<str>), foldhash::fast::RandomState>,
}

/// Pairs that a cursor remembers; a scan over more starts over.
const PAIR_TEXTS_MAX: usize = 1 << 14;

impl PairTexts {
    fn load(&mut self, pair: u32, dictionary: &Dictionary) -> Result<(), IndexError> {
        if !self.texts.contains_key(&pair) {
            let mut value = String::new();
            let name = dictionary.pair(pair, &mut value)?;
            self.texts.insert(pair, (name.into(), value.into()));
        }
        Ok(())
    }
}

impl BlockIndex {
    pub fn dictionary(&self) -> &Dictionary {
        &self.dictionary
    }

    fn labels(&self, pairs: &[u32], texts: &mut PairTexts) -> Result<Labels, IndexError> {
        if texts.texts.len() > PAIR_TEXTS_MAX {
            texts.texts.clear();
        }
        for pair in pairs {
            texts.load(*pair, &self.dictionary)?;
        }
        let text = |pair: &u32| {
            texts.texts.get(pair).map(|(name, value)| (&**name, &**value)).expect("loaded above")
        };
        let ascend = pairs.is_sorted_by(|a, b| text(a).0 < text(b).0);
        if !ascend || pairs.iter().any(|pair| text(pair).1.is_empty()) {
            return Err(IndexError("the labels of a series are no label set"));
        }
        Ok(Labels::from_sorted(pairs.iter().map(text)))
    }
}

impl Index for BlockIndex {
    fn all(&self) -> Result<Cow<'_, RoaringBitmap>, IndexError> {
        Ok(Cow::Borrowed(self.lists.all()))
    }

    fn series_of(&self, pair: u32) -> Result<Cow<'_, RoaringBitmap>, IndexError> {
        self.lists.list(pair).map(Cow::Owned)
    }

    fn find(&self, name: &str, value: &str) -> Result<Option<u32>, IndexError> {
        self.dictionary.find(name, value)
    }

    fn visit_values(
        &self,
        name: &str,
        prefix: &str,
        visit: &mut dyn FnMut(&str, u32) -> bool,
    ) -> Result<(), IndexError> {
        self.dictionary.visit_values(name, prefix, visit)
    }

    fn visit_names(&self, visit: &mut dyn FnMut(&str)) -> Result<(), IndexError> {
        self.dictionary.names().for_each(visit);
        Ok(())
    }
}
