//! What a selector means: its series in the order of their labels, each with its places in head
//! and blocks.
//!
//! Dashboards and rules ask the same selectors again and again, and to spell out labels and sort
//! them costs more than to read a few samples of each series. So the newest resolutions are kept.
//! One is still true while the blocks are the same ones; series that are new in the head since
//! then are added to it. A series that has left the head stays in it, without samples there.
//!
//! Who wants the first series only gets these: a block has them in order, and of the head all are compared and
//! few spelled out.
//!
//! Not here: samples (`select`), lists and sets of series (`index`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use roaring::RoaringBitmap;
use tidewatch_model::{Labels, Matcher};
use tidewatch_storage::SelectError;

use crate::block::{Block, BlockId, Cursor};
use crate::debt::Debt;
use crate::head::registry::SeriesId;
use crate::head::shard::Shard;
use crate::head::{Directory, Head, SHARDS};
use crate::select::{Entry, LABELS_BYTES, damaged};

/// A series in one of the blocks of a resolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) block: u32,
    pub(crate) series: u32,
}

/// One series.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) labels: Labels,
    pub(crate) head: Option<SeriesId>,
    /// Its places in blocks, in the order of the blocks.
    parts: Range<u32>,
}

/// The series of a selector, by labels: all, or the first.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    pub(crate) series: Vec<Resolved>,
    pub(crate) is_all: bool,
    parts: Vec<Part>,
    /// The series that are in the head, by shard.
    pub(crate) of_shards: [Vec<u32>; SHARDS],
}

/// Where a series was found.
#[derive(Debug, Clone, Copy)]
enum Place {
    Head(SeriesId),
    Block(Part),
}

impl Resolution {
    /// Series of the head alone, which are in the order of their labels already.
    pub(crate) fn of_head(directory: &Directory, ids: &[SeriesId]) -> Resolution {
        let found = ids.iter().map(|id| (directory.registry.to_labels(*id), Place::Head(*id)));
        Resolution::new(Found { places: found.collect(), is_all: true }, usize::MAX)
    }

    pub(crate) fn parts(&self, resolved: &Resolved) -> &[Part] {
        &self.parts[resolved.parts.start as usize..resolved.parts.end as usize]
    }

    /// The first of what was found, in the order in which the places were looked at.
    fn new(found: Found, first: usize) -> Resolution {
        let Found { mut places, is_all } = found;
        // Stable, so the places of a series stay in order; and fast on lists that are sorted already.
        places.sort_by(|a, b| a.0.cmp(&b.0));
        let count = places.len().min(first);
        let mut resolution =
            Resolution { series: Vec::with_capacity(count), is_all, ..Resolution::default() };
        for (labels, place) in places {
            if resolution.series.len() == first
                && resolution.series.last().is_none_or(|last| last.labels != labels)
            {
                resolution.is_all = false;
                break;
            }
            resolution.push(labels, place);
        }
        for (at, resolved) in resolution.series.iter().enumerate() {
            if let Some(id) = resolved.head {
                resolution.of_shards[Shard::of(id)].push(at as u32);
            }
        }
        resolution
    }

    fn push(&mut self, labels: Labels, place: Place) {
        if self.series.last().is_none_or(|last| last.labels != labels) {
            let start = self.parts.len() as u32;
            self.series.push(Resolved { labels, head: None, parts: start..start });
        }
        let resolved = self.series.last_mut().expect("pushed above");
        match place {
            // A series that came back to the head has a second id there: the later counts.
            Place::Head(id) => resolved.head = resolved.head.max(Some(id)),
            Place::Block(part) => {
                self.parts.push(part);
                resolved.parts.end += 1;
            }
        }
    }

    /// The same with further series of the head.
    fn with(&self, new: Found) -> Resolution {
        let mut places = Vec::with_capacity(self.series.len() + self.parts.len() + new.places.len());
        for resolved in &self.series {
            let labels = &resolved.labels;
            places.extend(self.parts(resolved).iter().map(|part| (labels.clone(), Place::Block(*part))));
            places.extend(resolved.head.map(|id| (labels.clone(), Place::Head(id))));
        }
        places.extend(new.places);
        Resolution::new(Found { places, is_all: self.is_all && new.is_all }, usize::MAX)
    }

    /// About how much memory it holds.
    fn bytes(&self) -> usize {
        let texts: usize = self.series.iter().map(|resolved| resolved.labels.as_bytes().len()).sum();
        texts + self.series.len() * SERIES_BYTES + self.parts.len() * size_of::<Part>()
    }
}

/// The newest resolutions.
#[derive(Debug, Default)]
pub(crate) struct Resolutions {
    /// The one used last is at the end. The lock is held to find, not to resolve.
    known: Mutex<Vec<Known>>,
}

#[derive(Debug, Clone)]
struct Known {
    matchers: Arc<[Matcher]>,
    blocks: Vec<BlockId>,
    /// Series of the head below this id were looked at.
    until: SeriesId,
    bytes: usize,
    resolution: Arc<Resolution>,
}

/// The selectors of a few dashboards and rule groups.
const KNOWN_MAX: usize = 256;

/// About 100,000 series; a selector of more than half as many is resolved anew each time.
const BYTES_MAX: usize = 32 << 20;

impl Resolutions {
    /// Forgets all: series that a deletion leaves nothing of are not to be named any more.
    pub(crate) fn forget(&self) {
        self.known.lock().clear();
    }

    /// The series of a selector in the head and in `blocks`, or the first at least. One that is known is paid
    /// for like a new one: it may be held longer than it is known.
    pub(crate) fn resolve(
        &self,
        head: &Head,
        blocks: &[Arc<Block>],
        matchers: &[Matcher],
        first: usize,
        debt: &mut Debt<'_, '_>,
    ) -> Result<Arc<Resolution>, SelectError> {
        let ids: Vec<BlockId> = blocks.iter().map(|block| block.meta().id).collect();
        let known = self.find(matchers, &ids);
        known.as_ref().map_or(Ok(()), |known| debt.owe(known.bytes))?;
        let (from, first) = known.as_ref().map_or((SeriesId(0), first), |known| (known.until, usize::MAX));
        let (new, until) = in_head(head, matchers, from, first, debt)?;
        let resolution = match &known {
            Some(known) if new.places.is_empty() => Arc::clone(&known.resolution),
            Some(known) => Arc::new(known.resolution.with(new)),
            None => Arc::new(Resolution::new(in_blocks(blocks, matchers, first, debt)?.and(new), first)),
        };
        if resolution.is_all && known.is_none_or(|known| known.until != until) {
            let bytes = resolution.bytes();
            self.keep(Known {
                matchers: matchers.into(),
                blocks: ids,
                until,
                bytes,
                resolution: Arc::clone(&resolution),
            });
        }
        Ok(resolution)
    }

    fn find(&self, matchers: &[Matcher], blocks: &[BlockId]) -> Option<Known> {
        let mut known = self.known.lock();
        let at = known.iter().position(|one| one.is(matchers, blocks))?;
        let found = known.remove(at);
        known.push(found.clone());
        Some(found)
    }

    fn keep(&self, new: Known) {
        let mut known = self.known.lock();
        known.retain(|one| !one.is(&new.matchers, &new.blocks));
        if new.bytes > BYTES_MAX / 2 {
            return;
        }
        known.push(new);
        let mut bytes: usize = known.iter().map(|one| one.bytes).sum();
        while bytes > BYTES_MAX || known.len() > KNOWN_MAX {
            bytes -= known.remove(0).bytes;
        }
    }
}

impl Known {
    fn is(&self, matchers: &[Matcher], blocks: &[BlockId]) -> bool {
        self.blocks == blocks && *self.matchers == *matchers
    }
}

/// Where series of a selector are, in the order in which the places were looked at.
struct Found {
    places: Vec<(Labels, Place)>,
    /// Whether they are all there, and not only the first of each place.
    is_all: bool,
}

impl Found {
    fn and(mut self, other: Found) -> Found {
        self.places.extend(other.places);
        Found { is_all: self.is_all && other.is_all, ..self }
    }
}

/// What a series takes beside the text of its labels, while it is found and afterwards.
const SERIES_BYTES: usize =
    size_of::<(Labels, Place)>() + size_of::<Resolved>() + size_of::<Entry>() + LABELS_BYTES;

/// The first series of the head from an id on, and the id below which all were looked at.
fn in_head(
    head: &Head,
    matchers: &[Matcher],
    from: SeriesId,
    first: usize,
    debt: &mut Debt<'_, '_>,
) -> Result<(Found, SeriesId), SelectError> {
    let mut places = Vec::new();
    let until = head.directory.read().registry.next_id();
    if until == from {
        return Ok((Found { places, is_all: true }, until));
    }
    let (directory, mut ids) = head.matching_below(until, matchers, debt)?;
    ids.remove_range(..from.0);
    if ids.len() > first as u64 {
        return Ok((Found { places: first_of(&directory, &ids, first, debt)?, is_all: false }, until));
    }
    for id in ids.iter().map(SeriesId) {
        let labels = directory.registry.to_labels(id);
        debt.owe(SERIES_BYTES + labels.as_bytes().len())?;
        places.push((labels, Place::Head(id)));
    }
    Ok((Found { places, is_all: true }, until))
}

/// Series of the head that are compared between two questions whether there is time.
const COMPARED: usize = 4096;

/// The first of some series of the head, in the order of their labels: most are compared and not spelled out.
fn first_of(
    directory: &Directory,
    ids: &RoaringBitmap,
    first: usize,
    debt: &mut Debt<'_, '_>,
) -> Result<Vec<(Labels, Place)>, SelectError> {
    let mut found: BTreeMap<Labels, SeriesId> = BTreeMap::new();
    for (count, id) in ids.iter().map(SeriesId).enumerate() {
        if count % COMPARED == 0 {
            debt.goes_on();
            debt.check()?;
        }
        let last = found.last_key_value().filter(|_| found.len() >= first);
        if last.is_some_and(|(last, _)| directory.registry.cmp_labels(id, last).is_gt()) {
            continue;
        }
        let labels = directory.registry.to_labels(id);
        let bytes = SERIES_BYTES + labels.as_bytes().len();
        // Ids ascend: a series that came back to the head has a later one, which counts.
        found.insert(labels, id);
        if found.len() > first {
            found.pop_last();
        } else {
            debt.owe(bytes)?;
        }
    }
    Ok(found.into_iter().map(|(labels, id)| (labels, Place::Head(id))).collect())
}

/// The first series of each block, which has them in the order of their labels.
fn in_blocks(
    blocks: &[Arc<Block>],
    matchers: &[Matcher],
    first: usize,
    debt: &mut Debt<'_, '_>,
) -> Result<Found, SelectError> {
    let (mut places, mut is_all) = (Vec::new(), true);
    for (at, block) in blocks.iter().enumerate() {
        let mut cursor = Cursor::default();
        let selected = block.select_while(matchers, &mut || debt.goes_on()).map_err(damaged)?;
        debt.check()?;
        is_all &= selected.len() <= first as u64;
        for series in selected.iter().take(first) {
            let labels = block.labels(&mut cursor, series).map_err(damaged)?;
            debt.owe(SERIES_BYTES + size_of::<Part>() + labels.as_bytes().len())?;
            places.push((labels, Place::Block(Part { block: at as u32, series })));
        }
    }
    Ok(Found { places, is_all })
}
