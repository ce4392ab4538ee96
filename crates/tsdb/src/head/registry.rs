//! The series that the head knows: from label bytes to id, from id to labels.
//!
//! Labels are interned by pairs: host metrics have few distinct pairs, however many series. A
//! pair is kept in the spelling of remote write's protobuf, so that a request's label bytes are
//! verified against a series by comparing slices. A series is a list of pair ids.
//!
//! ```text
//! raw bytes ── hash ──► table ──► id ── verify ──► pairs of the series against the raw bytes
//!     └── miss ──► canonical spelling ── hash ──► table (a second spelling: add an alias)
//!                                                  └── miss ──► new series
//! ```
//!
//! Invariants: the table holds each series under the hash of its canonical spelling, and under
//! those of other spellings that were seen; a hit counts only when the labels are equal, so that
//! neither a collision nor a second spelling can mix or double a series. Ids ascend and are not
//! given out again.
//!
//! Not here: samples (`shard`), which series match a selector (`index`), how series come back
//! after a start (`restore`).

mod pairs;
mod renumber;
mod restore;
mod table;

use std::cmp::Ordering;

use tidewatch_model::{Labels, Limits, RawLabels, spell_pair};
use tidewatch_storage::Refusal;

use super::PAGE_SERIES;
use crate::index::PairTable;

pub(crate) use pairs::{LabelHasher, PairId, Pairs};
pub(crate) use restore::KnownIds;

use table::SeriesTable;

/// A series of the head, or of all time within one data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SeriesId(pub(crate) u32);

/// What follows `prefix` in `bytes`, if they begin with it.
#[inline]
fn strip<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(prefix.len())?;
    is_same(head, prefix).then_some(tail)
}

/// Compares in place what is as long as a pair: a call for each would take longer than the work.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if let (Some(a_end), Some(b_end)) = (a.last_chunk::<16>(), b.last_chunk::<16>()) {
        return a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0).all(|(a, b)| a == b)
            && a_end == b_end;
    }
    match (a.first_chunk::<8>(), b.first_chunk::<8>()) {
        (Some(a_start), Some(b_start)) => a_start == b_start && a.last_chunk::<8>() == b.last_chunk::<8>(),
        _ => a == b,
    }
}

/// The labels of up to [`PAGE_SERIES`] series with neighbouring ids.
#[derive(Debug, Default)]
struct LabelPage {
    pairs: Vec<PairId>,
    /// Where each series' pairs end.
    ends: Vec<u32>,
    /// Series of this page that are alive.
    alive: Vec<u64>,
}

impl LabelPage {
    /// Ends the labels of the next series. A page that is full gives back what it does not need.
    fn close_slot(&mut self) {
        self.ends.push(self.pairs.len() as u32);
        if self.ends.len() == PAGE_SERIES as usize {
            self.pairs.shrink_to_fit();
        }
    }

    fn is_alive(&self, slot: usize) -> bool {
        self.alive.get(slot / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }
}

#[derive(Debug)]
pub(crate) struct Registry {
    hasher: LabelHasher,
    pub(crate) pairs: Pairs,
    pages: Vec<Option<Box<LabelPage>>>,
    table: SeriesTable,
    next: u32,
    live: u32,
    /// Grows when series are removed: an id that was looked up before is to be looked up again.
    pub(crate) removals: u64,
    scratch: Vec<u8>,
}

/// So many spellings beside the canonical one are always kept.
const ALIASES_MIN: usize = 1024;

/// What [`Registry::define`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defined {
    Known(SeriesId),
    New(SeriesId),
}

impl Registry {
    pub(crate) fn new(seed: u64) -> Registry {
        Registry {
            hasher: LabelHasher::new(seed),
            pairs: Pairs::new(),
            pages: Vec::new(),
            table: SeriesTable::default(),
            next: 0,
            live: 0,
            removals: 0,
            scratch: Vec::new(),
        }
    }

    pub(crate) fn hasher(&self) -> &LabelHasher {
        &self.hasher
    }

    /// The series with these label bytes, whose hash is `hash`, if this spelling is known.
    #[inline]
    pub(crate) fn find(&self, hash: u64, raw: &RawLabels<'_>) -> Option<SeriesId> {
        self.table.find(hash, |id| self.is_spelled(id, raw))
    }

    /// A series that probably has the label bytes with this hash: to be confirmed with
    /// [`Registry::is_spelled`]. A loop of nothing else lets the processor wait for many entries
    /// of the table at once.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Option<SeriesId> {
        self.table.find(hash, |_| true)
    }

    /// Whether the series is there and `raw` its labels as they are kept, which is how senders send
    /// them. Cheaper than to hash them where it is so, and where it is not.
    #[inline]
    pub(crate) fn is_kept_as(&self, id: SeriesId, raw: &RawLabels<'_>) -> bool {
        self.are_spelled(self.labels(id), raw) && self.is_alive(id)
    }

    /// Whether `raw` is a spelling of the series' labels.
    pub(crate) fn is_spelled(&self, id: SeriesId, raw: &RawLabels<'_>) -> bool {
        let pairs = self.labels(id);
        self.are_spelled(pairs, raw) || self.is_spelled_otherwise(pairs, raw)
    }

    /// Whether `raw` is these pairs, one after the other.
    #[inline]
    fn are_spelled(&self, pairs: &[PairId], raw: &RawLabels<'_>) -> bool {
        match raw {
            RawLabels::Proto(bytes) => {
                let mut rest = *bytes;
                pairs
                    .iter()
                    .all(|pair| strip(rest, self.pairs.bytes(*pair)).map(|tail| rest = tail).is_some())
                    && rest.is_empty()
            }
            RawLabels::Canonical(_) => {
                let mut walk = raw.pairs();
                pairs.iter().all(|pair| {
                    let have = RawLabels::Proto(self.pairs.bytes(*pair)).pairs().next();
                    walk.next() == have
                }) && walk.next().is_none()
            }
        }
    }

    /// The same where the order differs or empty values stand in between.
    #[cold]
    fn is_spelled_otherwise(&self, pairs: &[PairId], raw: &RawLabels<'_>) -> bool {
        let mut sent: Vec<(&[u8], &[u8])> = Vec::with_capacity(pairs.len());
        for pair in raw.pairs() {
            let Some((name, value)) = pair else { return false };
            if !value.is_empty() {
                sent.push((name, value));
            }
        }
        sent.sort_unstable();
        sent.len() == pairs.len()
            && sent.iter().zip(pairs).all(|((name, value), pair)| {
                let (have_name, have_value) = self.pairs.get(*pair);
                *name == have_name.as_bytes() && *value == have_value.as_bytes()
            })
    }

    /// Finds or creates the series of label bytes that [`Registry::find`] did not know.
    pub(crate) fn define(
        &mut self,
        hash: u64,
        raw: &RawLabels<'_>,
        limits: &Limits,
    ) -> Result<Defined, (Refusal, String)> {
        let labels = check_labels(raw, limits)?;
        self.scratch.clear();
        for (name, value) in &labels {
            spell_pair(name.as_bytes(), value.as_bytes(), &mut self.scratch);
        }
        let canonical = std::mem::take(&mut self.scratch);
        let identity = self.hasher.hash(&canonical);
        let known = self.find(identity, &RawLabels::Proto(&canonical));
        self.scratch = canonical;
        let defined = match known {
            Some(id) => Defined::Known(id),
            None => Defined::New(self.create(identity, &labels)),
        };
        if identity != hash && self.has_room_for_alias() {
            let (Defined::Known(id) | Defined::New(id)) = defined;
            self.table.insert(hash, id);
        }
        Ok(defined)
    }

    /// A sender spells a series in one way, or in a few. One that spells it anew in each request must not
    /// fill the memory: beyond as many spellings as there are series, others are read again each time.
    fn has_room_for_alias(&self) -> bool {
        self.table.len() < 2 * self.len() + ALIASES_MIN
    }

    fn create(&mut self, identity: u64, labels: &[(&str, &str)]) -> SeriesId {
        let id = SeriesId(self.next);
        let pairs: Vec<PairId> =
            labels.iter().map(|(name, value)| self.pairs.intern(&self.hasher, name, value).0).collect();
        self.place(id, &pairs);
        self.table.insert(identity, id);
        id
    }

    /// Gives `pairs` to the next id, which is `id`.
    fn place(&mut self, id: SeriesId, pairs: &[PairId]) {
        assert!(id.0 == self.next, "ids are given out in order");
        let slot = (id.0 % PAGE_SERIES) as usize;
        let page = self.page_mut(id.0);
        if page.pairs.capacity() == 0 {
            // Its neighbours have about as many labels; a full page gives the rest back.
            page.pairs.reserve_exact(pairs.len() * (PAGE_SERIES as usize - slot));
        }
        page.pairs.extend_from_slice(pairs);
        page.alive[slot / 64] |= 1 << (slot % 64);
        page.close_slot();
        self.live += 1;
        self.next += 1;
    }

    fn page_mut(&mut self, id: u32) -> &mut LabelPage {
        let at = (id / PAGE_SERIES) as usize;
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, || None);
        }
        self.pages[at].get_or_insert_with(|| {
            Box::new(LabelPage {
                pairs: Vec::new(),
                ends: Vec::with_capacity(PAGE_SERIES as usize),
                alive: vec![0; PAGE_SERIES as usize / 64],
            })
        })
    }

    /// Pair ids of a series, in the order of the names; empty for one that is gone.
    #[inline]
    pub(crate) fn labels(&self, id: SeriesId) -> &[PairId] {
        let slot = (id.0 % PAGE_SERIES) as usize;
        let Some(Some(page)) = self.pages.get((id.0 / PAGE_SERIES) as usize) else { return &[] };
        let Some(end) = page.ends.get(slot) else { return &[] };
        let start = if slot == 0 { 0 } else { page.ends[slot - 1] };
        &page.pairs[start as usize..*end as usize]
    }

    /// A series' labels as a value.
    pub(crate) fn to_labels(&self, id: SeriesId) -> Labels {
        // Collected, because the text is walked twice: for its size, then for itself.
        let pairs: Vec<(&str, &str)> = self.labels(id).iter().map(|pair| self.pairs.get(*pair)).collect();
        Labels::from_sorted(pairs.into_iter())
    }

    /// How the labels of a series compare with others.
    pub(crate) fn cmp_labels(&self, id: SeriesId, other: &Labels) -> Ordering {
        self.labels(id).iter().map(|pair| self.pairs.get(*pair)).cmp(other.iter())
    }

    pub(crate) fn is_alive(&self, id: SeriesId) -> bool {
        let page = self.pages.get((id.0 / PAGE_SERIES) as usize).and_then(Option::as_ref);
        page.is_some_and(|page| page.is_alive((id.0 % PAGE_SERIES) as usize))
    }

    /// Ids of living series, ascending.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SeriesId> + '_ {
        let pages = self.pages.iter().enumerate().filter_map(|(at, page)| Some((at, page.as_ref()?)));
        pages.flat_map(|(at, page)| {
            let slots = (0..page.ends.len()).filter(|slot| page.is_alive(*slot));
            slots.map(move |slot| SeriesId(at as u32 * PAGE_SERIES + slot as u32))
        })
    }

    /// How many ids can still be given out; the last one says that a series is not known.
    pub(crate) fn ids_left(&self) -> usize {
        (u32::MAX - self.next) as usize
    }

    /// Removes series. Their ids stay unused; a page whose last series goes is freed.
    pub(crate) fn remove(&mut self, gone: &[SeriesId]) {
        for id in gone {
            let slot = (id.0 % PAGE_SERIES) as usize;
            let at = (id.0 / PAGE_SERIES) as usize;
            let Some(Some(page)) = self.pages.get_mut(at) else { continue };
            if page.is_alive(slot) {
                page.alive[slot / 64] &= !(1 << (slot % 64));
                self.live -= 1;
            }
            let full = page.ends.len() == PAGE_SERIES as usize;
            if full && page.alive.iter().all(|word| *word == 0) {
                self.pages[at] = None;
            }
        }
        let mut table = std::mem::take(&mut self.table);
        table.retain(|id| self.is_alive(id));
        self.table = table;
        self.removals += 1;
    }

    pub(crate) fn next_id(&self) -> SeriesId {
        SeriesId(self.next)
    }

    pub(crate) fn len(&self) -> usize {
        self.live as usize
    }

    /// Bytes held for texts, for lists of labels, and for the table.
    pub(crate) fn bytes_held(&self) -> (usize, usize, usize) {
        let page = |page: &LabelPage| page.pairs.capacity() * 4 + page.ends.capacity() * 4 + 256;
        let pages = self.pages.iter().flatten().map(|p| page(p)).sum();
        (self.pairs.bytes_held(), pages, self.table.bytes_held())
    }
}

impl PairTable for Registry {
    fn pair(&self, pair: u32) -> (&str, &str) {
        self.pairs.get(PairId(pair))
    }

    fn find_pair(&self, name: &str, value: &str) -> Option<u32> {
        self.pairs.find(&self.hasher, name, value).map(|pair| pair.0)
    }
}

/// Decodes and checks the labels of a new series: sorted by name, without empty values.
pub(crate) fn check_labels<'a>(
    raw: &RawLabels<'a>,
    limits: &Limits,
) -> Result<Vec<(&'a str, &'a str)>, (Refusal, String)> {
    let invalid = |what: String| (Refusal::InvalidLabels, what);
    let limit = |what: String| (Refusal::LabelLimit, what);
    if raw.bytes().len() > limits.label_set_bytes {
        let (size, most) = (raw.bytes().len(), limits.label_set_bytes);
        return Err(limit(format!("a label set of {size} bytes is over the limit of {most}")));
    }
    let mut labels = Vec::new();
    for pair in raw.pairs() {
        let (name, value) = pair.ok_or_else(|| invalid("the label set is cut or malformed".to_owned()))?;
        if value.is_empty() && !name.is_empty() {
            continue;
        }
        let name = std::str::from_utf8(name).map_err(|_| invalid("a label name is not UTF-8".to_owned()))?;
        if name.is_empty() {
            return Err(invalid("a label has an empty name".to_owned()));
        }
        let value = std::str::from_utf8(value)
            .map_err(|_| invalid(format!("the value of label {name:?} is not UTF-8")))?;
        if name.len() > limits.label_name_bytes {
            let (size, most) = (name.len(), limits.label_name_bytes);
            return Err(limit(format!("a label name of {size} bytes is over the limit of {most}")));
        }
        if value.len() > limits.label_value_bytes {
            let (size, most) = (value.len(), limits.label_value_bytes);
            return Err(limit(format!(
                "the value of label {name:?} has {size} bytes, over the limit of {most}"
            )));
        }
        labels.push((name, value));
    }
    if labels.is_empty() {
        return Err(invalid("the label set is empty".to_owned()));
    }
    if labels.len() > limits.labels_per_series {
        let (count, most) = (labels.len(), limits.labels_per_series);
        return Err(limit(format!("{count} labels are over the limit of {most}")));
    }
    labels.sort_by_key(|(name, _)| *name);
    if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(invalid(format!("label {:?} occurs twice", pair[0].0)));
    }
    Ok(labels)
}
