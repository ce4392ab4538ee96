//! The head's index: lists by pair, in memory, growing as series appear.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::gather::Gathered;
use super::{GONE, Index, IndexError};

/// Where the text of the head's pairs lives.
pub trait PairTable {
    /// Name and value of a pair that was inserted.
    fn pair(&self, pair: u32) -> (&str, &str);

    /// The pair of this name and value.
    fn find_pair(&self, name: &str, value: &str) -> Option<u32>;
}

/// Lists of series by pair, and pairs by name.
///
/// Budget: 16 bytes a series. A series of seven labels is in seven lists, of which most are
/// long: two bytes an id there, and an eighth of a byte or less in those of nearly all series.
#[derive(Debug, Default)]
pub struct MemPostings {
    /// By pair; empty for pairs that no series bears.
    lists: Vec<List>,
    /// The pairs of each name whose lists are not empty, in the order in which they appeared.
    names: HashMap<Box<str>, Vec<u32>, RandomState>,
    all: RoaringBitmap,
    /// How often pairs have lost their place in `names`, or their number.
    moves: u64,
}

/// Ascending ids. Many pairs have one series (a host's name, a version): those cost no allocation.
#[derive(Debug, Default, Clone)]
enum List {
    #[default]
    None,
    One(u32),
    Few(Vec<u32>),
    Many(Box<RoaringBitmap>),
}

/// Beyond this a bitmap's container is smaller than the plain ids.
const FEW_MAX: usize = 16;

impl List {
    /// Whether the list was empty.
    fn insert(&mut self, series: u32) -> bool {
        match self {
            List::None => {
                *self = List::One(series);
                return true;
            }
            List::One(one) if *one == series => {}
            List::One(one) => *self = List::Few(vec![(*one).min(series), (*one).max(series)]),
            List::Few(ids) => {
                if let Err(at) = ids.binary_search(&series) {
                    ids.insert(at, series);
                }
                if ids.len() > FEW_MAX {
                    *self = List::Many(Box::new(ids.iter().copied().collect()));
                }
            }
            List::Many(ids) => {
                ids.insert(series);
            }
        }
        false
    }

    /// Adds ranges of ids that ascend and lie behind those of the list.
    fn append(&mut self, ranges: impl Iterator<Item = RangeInclusive<u32>> + Clone) {
        let count: usize = ranges.clone().map(|ids| (ids.end() - ids.start()) as usize + 1).sum();
        if count == 0 {
            return;
        }
        let few = match std::mem::take(self) {
            List::Many(mut many) => {
                append(&mut many, ranges);
                *self = List::Many(many);
                return;
            }
            List::None => Vec::new(),
            List::One(one) => vec![one],
            List::Few(few) => few,
        };
        *self = match few.len() + count {
            1 => List::One(ranges.flatten().next().expect("there is one")),
            2..=FEW_MAX => List::Few(few.into_iter().chain(ranges.flatten()).collect()),
            _ => {
                let mut many: Box<RoaringBitmap> = Box::new(few.into_iter().collect());
                append(&mut many, ranges);
                List::Many(many)
            }
        };
    }

    fn remove(&mut self, series: u32) {
        match self {
            List::One(one) if *one == series => *self = List::None,
            List::None | List::One(_) => {}
            List::Few(ids) => {
                if let Ok(at) = ids.binary_search(&series) {
                    ids.remove(at);
                }
                if ids.is_empty() {
                    *self = List::None;
                }
            }
            List::Many(ids) => {
                ids.remove(series);
                if ids.is_empty() {
                    *self = List::None;
                }
            }
        }
    }

    fn to_bitmap(&self) -> Cow<'_, RoaringBitmap> {
        match self {
            List::None => Cow::Owned(RoaringBitmap::new()),
            List::One(one) => Cow::Owned(RoaringBitmap::from([*one])),
            List::Few(ids) => Cow::Owned(ids.iter().copied().collect()),
            List::Many(ids) => Cow::Borrowed(ids),
        }
    }

    fn meets(&self, series: &RoaringBitmap) -> bool {
        match self {
            List::None => false,
            List::One(one) => series.contains(*one),
            List::Few(ids) => ids.iter().any(|id| series.contains(*id)),
            List::Many(ids) => !ids.is_disjoint(series),
        }
    }

    fn len(&self) -> u64 {
        match self {
            List::None => 0,
            List::One(_) => 1,
            List::Few(ids) => ids.len() as u64,
            List::Many(ids) => ids.len(),
        }
    }

    fn bytes_held(&self) -> usize {
        match self {
            List::None | List::One(_) => 0,
            List::Few(ids) => ids.capacity() * 4,
            // The serialized form is what the containers hold; 48 bytes are theirs and the box's.
            List::Many(ids) => ids.serialized_size() + 48,
        }
    }
}

/// Ranges of ids that ascend, behind those of a bitmap.
fn append(to: &mut RoaringBitmap, ranges: impl Iterator<Item = RangeInclusive<u32>> + Clone) {
    let mut singles = ranges.clone().take(2);
    match (singles.next(), singles.next()) {
        // Those of a job, or of a metric whose series came together.
        (Some(ids), None) => drop(to.insert_range(ids)),
        _ => {
            // They do not where a series bears a pair twice, which no whole file says.
            if to.append(ranges.clone().flatten()).is_err() {
                to.extend(ranges.flatten());
            }
        }
    }
}

impl MemPostings {
    pub fn new() -> MemPostings {
        MemPostings::default()
    }

    /// Adds a series with its pairs.
    pub fn insert(&mut self, series: u32, pairs: impl IntoIterator<Item = u32>, table: &dyn PairTable) {
        self.all.insert(series);
        for pair in pairs {
            let at = pair as usize;
            if self.lists.len() <= at {
                self.lists.resize(at + 1, List::None);
            }
            if self.lists[at].insert(series) {
                self.enlist(pair, table.pair(pair).0);
            }
        }
    }

    /// Adds the series of `ids`, each with the pairs that `pairs_of` gives, to lists that are
    /// empty; a series without pairs is none. Costs a tenth of as many calls of [`MemPostings::insert`].
    pub fn fill<'a, P: Copy + Eq + Into<u32> + 'a>(
        &mut self,
        ids: Range<u32>,
        pairs_of: impl Fn(u32) -> &'a [P],
        table: &dyn PairTable,
    ) {
        assert!(self.all.is_empty(), "lists are filled before series are inserted");
        Gathered::each(ids, pairs_of, |gathered| {
            append(&mut self.all, gathered.alive());
            self.lists.resize(gathered.pair_count(), List::None);
            self.lists.iter_mut().zip(gathered.lists()).for_each(|(list, ids)| list.append(ids));
        });
        for pair in 0..self.lists.len() {
            if self.lists[pair].len() > 0 {
                self.enlist(pair as u32, table.pair(pair as u32).0);
            }
        }
    }

    fn enlist(&mut self, pair: u32, name: &str) {
        match self.names.get_mut(name) {
            Some(pairs) => pairs.push(pair),
            None => {
                self.names.insert(name.into(), vec![pair]);
            }
        }
    }

    /// Takes series away, each with the pairs that it was inserted with.
    pub fn remove<P: IntoIterator<Item = u32>>(&mut self, gone: impl IntoIterator<Item = (u32, P)>) {
        for (series, pairs) in gone {
            self.all.remove(series);
            for pair in pairs {
                self.lists[pair as usize].remove(series);
            }
        }
        self.moves += 1;
        let lists = &self.lists;
        self.names.retain(|_, pairs| {
            pairs.retain(|pair| lists[*pair as usize].len() > 0);
            !pairs.is_empty()
        });
    }

    /// Pairs that series bear, and all that have a number.
    pub(crate) fn pair_counts(&self) -> (usize, usize) {
        (self.names.values().map(Vec::len).sum(), self.lists.len())
    }

    /// Pairs have other numbers now: the new one of each, or [`GONE`] where no series bears it.
    pub(crate) fn renumber(&mut self, numbers: &[u32]) {
        self.moves += 1;
        let mut lists = Vec::with_capacity(self.pair_counts().0);
        for (list, number) in std::mem::take(&mut self.lists).into_iter().zip(numbers) {
            if *number != GONE {
                debug_assert!(lists.len() == *number as usize, "the order stays");
                lists.push(list);
            }
        }
        self.lists = lists;
        for pairs in self.names.values_mut() {
            pairs.iter_mut().for_each(|pair| *pair = numbers[*pair as usize]);
            pairs.shrink_to_fit();
        }
    }

    /// The pairs of a name, of which new ones come at the end, until the number beside them is another.
    pub(crate) fn pairs_of_name(&self, name: &str) -> (&[u32], u64) {
        (self.names.get(name).map_or(&[], Vec::as_slice), self.moves)
    }

    /// How many series there are.
    pub fn len(&self) -> u64 {
        self.all.len()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many series bear a pair.
    pub fn count(&self, pair: u32) -> u64 {
        self.lists.get(pair as usize).map_or(0, List::len)
    }

    /// Names with their pairs, in any order: cardinality without a scan.
    pub fn names(&self) -> impl Iterator<Item = (&str, &[u32])> {
        self.names.iter().map(|(name, pairs)| (&**name, pairs.as_slice()))
    }

    /// Memory of lists and names.
    pub fn bytes_held(&self) -> usize {
        let lists: usize = self.lists.iter().map(List::bytes_held).sum();
        let names: usize =
            self.names.iter().map(|(name, pairs)| name.len() + 48 + pairs.capacity() * 4).sum();
        lists + names + self.lists.capacity() * size_of::<List>() + self.all.serialized_size()
    }

    /// The lists together with their text, for matchers.
    pub fn index<'a>(&'a self, table: &'a dyn PairTable) -> MemIndex<'a> {
        MemIndex { postings: self, table }
    }
}

/// A [`MemPostings`] with the text of its pairs: an [`Index`].
#[derive(Clone, Copy)]
pub struct MemIndex<'a> {
    postings: &'a MemPostings,
    table: &'a dyn PairTable,
}

impl Index for MemIndex<'_> {
    fn all(&self) -> Result<Cow<'_, RoaringBitmap>, IndexError> {
        Ok(Cow::Borrowed(&self.postings.all))
    }

    fn series_of(&self, pair: u32) -> Result<Cow<'_, RoaringBitmap>, IndexError> {
        Ok(self.postings.lists.get(pair as usize).unwrap_or(&List::None).to_bitmap())
    }

    fn is_on_any(&self, pair: u32, series: &RoaringBitmap) -> Result<bool, IndexError> {
        Ok(self.postings.lists.get(pair as usize).is_some_and(|list| list.meets(series)))
    }

    fn find(&self, name: &str, value: &str) -> Result<Option<u32>, IndexError> {
        Ok(self.table.find_pair(name, value).filter(|pair| self.postings.count(*pair) > 0))
    }

    fn visit_values(
        &self,
        name: &str,
        prefix: &str,
        visit: &mut dyn FnMut(&str, u32) -> bool,
    ) -> Result<(), IndexError> {
        for &pair in self.postings.names.get(name).into_iter().flatten() {
            let value = self.table.pair(pair).1;
            if value.starts_with(prefix) && !visit(value, pair) {
                break;
            }
        }
        Ok(())
    }

    fn visit_names(&self, visit: &mut dyn FnMut(&str)) -> Result<(), IndexError> {
        self.postings.names.keys().for_each(|name| visit(name));
        Ok(())
    }
}
