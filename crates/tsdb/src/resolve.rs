//! What a selector means: its series in the order of their labels, each with its places in head
//! and blocks.
//!
//! Dashboards and rules ask the same selectors again and again, and to spell out labels and sort
//! them costs more than to read a few samples of each series. So the newest resolutions are kept.
//! One is still true while the blocks are the same ones; series that are new in the head since
//! then are added to it. A series that has left the head stays in it, without samples there.
//!
//! Not here: samples (`select`), lists and sets of series (`index`).

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
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

/// The series of a selector, by labels.
#[derive(Debug, Default)]
pub(crate) struct Resolution {
    pub(crate) series: Vec<Resolved>,
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
        Resolution::new(found.collect())
    }

    pub(crate) fn parts(&self, resolved: &Resolved) -> &[Part] {
        &self.parts[resolved.parts.start as usize..resolved.parts.end as usize]
    }

    /// What was found, in the order in which the places were looked at.
    fn new(mut found: Vec<(Labels, Place)>) -> Resolution {
        // Stable, so the places of a series stay in order; and fast on lists that are sorted already.
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let mut resolution = Resolution { series: Vec::with_capacity(found.len()), ..Resolution::default() };
        found.into_iter().for_each(|(labels, place)| resolution.push(labels, place));
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
    fn with(&self, new: Vec<(Labels, Place)>) -> Resolution {
        let mut found = Vec::with_capacity(self.series.len() + self.parts.len() + new.len());
        for resolved in &self.series {
            let labels = &resolved.labels;
            found.extend(self.parts(resolved).iter().map(|part| (labels.clone(), Place::Block(*part))));
            found.extend(resolved.head.map(|id| (labels.clone(), Place::Head(id))));
        }
        found.extend(new);
        Resolution::new(found)
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

    /// The series of a selector in the head and in `blocks`. One that is known is paid for like a
    /// new one: it may be held longer than it is known.
    pub(crate) fn resolve(
        &self,
        head: &Head,
        blocks: &[Arc<Block>],
        matchers: &[Matcher],
        debt: &mut Debt<'_, '_>,
    ) -> Result<Arc<Resolution>, SelectError> {
        let ids: Vec<BlockId> = blocks.iter().map(|block| block.meta().id).collect();
        let known = self.find(matchers, &ids);
        known.as_ref().map_or(Ok(()), |known| debt.owe(known.bytes))?;
        let from = known.as_ref().map_or(SeriesId(0), |known| known.until);
        let (new, until) = in_head(head, matchers, from, debt)?;
        let resolution = match &known {
            Some(known) if new.is_empty() => Arc::clone(&known.resolution),
            Some(known) => Arc::new(known.resolution.with(new)),
            None => Arc::new(Resolution::new([in_blocks(blocks, matchers, debt)?, new].concat())),
        };
        if known.is_none_or(|known| known.until != until) {
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

/// What a series takes beside the text of its labels, while it is found and afterwards.
const SERIES_BYTES: usize =
    size_of::<(Labels, Place)>() + size_of::<Resolved>() + size_of::<Entry>() + LABELS_BYTES;

/// The series of the head from an id on, and the id below which all were looked at.
fn in_head(
    head: &Head,
    matchers: &[Matcher],
    from: SeriesId,
    debt: &mut Debt<'_, '_>,
) -> Result<(Vec<(Labels, Place)>, SeriesId), SelectError> {
    let mut found = Vec::new();
    let until = head.directory.read().registry.next_id();
    if until == from {
        return Ok((found, until));
    }
    let (directory, mut ids) = head.matching_below(until, matchers, debt)?;
    ids.remove_range(..from.0);
    for id in ids.iter().map(SeriesId) {
        let labels = directory.registry.to_labels(id);
        debt.owe(SERIES_BYTES + labels.as_bytes().len())?;
        found.push((labels, Place::Head(id)));
    }
    Ok((found, until))
}

fn in_blocks(
    blocks: &[Arc<Block>],
    matchers: &[Matcher],
    debt: &mut Debt<'_, '_>,
) -> Result<Vec<(Labels, Place)>, SelectError> {
    let mut found = Vec::new();
    for (at, block) in blocks.iter().enumerate() {
        let mut cursor = Cursor::default();
        let selected = block.select_while(matchers, &mut || debt.goes_on()).map_err(damaged)?;
        debt.check()?;
        for series in &selected {
            let labels = block.labels(&mut cursor, series).map_err(damaged)?;
            debt.owe(SERIES_BYTES + size_of::<Part>() + labels.as_bytes().len())?;
            found.push((labels, Place::Block(Part { block: at as u32, series })));
        }
    }
    Ok(found)
}
