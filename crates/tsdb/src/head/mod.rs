//! The head: every series that is being written, and the samples that are not in blocks yet.
//!
//! ```text
//!            ┌─ registry: label bytes ─► id ─► labels      (one lock, mostly read)
//!  batch ─►  ┤
//!            └─ shards: id ─► open run, sealed runs, late samples   (a lock each)
//! ```
//!
//! Locks, always in this order: the directory of series, then shards, then the log's own or that of the list of blocks.
//! A request keeps the directory read-locked until its samples are in, so that no series is removed under it. It locks
//! all shards that it touches, in the order of their numbers, and nobody else locks more than one, so none waits for
//! another in a circle. A frame is logged while its shards are locked, so that the log has the samples of a series in
//! the order in which the head took them: recovery then decides about repeats, conflicts and deletions as the running
//! head did.
//!
//! Not here: files, blocks, and when anything happens (`db`).

pub(crate) mod append;
pub(crate) mod cells;
pub(crate) mod clock;
pub(crate) mod deleted;
pub(crate) mod ended;
pub(crate) mod histograms;
pub(crate) mod image;
mod listed;
pub(crate) mod lookup;
mod names;
pub(crate) mod read;
pub(crate) mod registry;
mod repeats;
mod room;
pub(crate) mod sealed;
pub(crate) mod shard;
pub(crate) mod starts;
pub(crate) mod tokens;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tidewatch_env::{Parallel, give_back};
use tidewatch_model::METRIC_NAME;

use crate::index::{MemIndex, MemPostings};
use crate::status::{Cardinality, HeadStatus, Memory, TopEntry};
use crate::stretches::Stretches;
use append::RequestScratch;
use registry::{PairId, Registry, SeriesId};
use repeats::Repeats;
use room::Pace;
use shard::Shard;

/// Series of one page: neighbours in id, of one shard.
pub(crate) const PAGE_SERIES: u32 = 1024;

/// Fewer pairs are not worth a look.
const PAIRS_MIN: usize = 64;

/// Shards of the head. More than cores, so that writers seldom meet.
pub(crate) const SHARDS: usize = 16;

/// The series and how to find them.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) registry: Registry,
    pub(crate) postings: MemPostings,
}

#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) directory: RwLock<Directory>,
    pub(crate) shards: [Mutex<Shard>; SHARDS],
    pub(crate) series_created: AtomicU64,
    /// How many series are new of late. Taken with the directory held, and held for a look.
    pace: Mutex<Pace>,
    /// Time of the newest sample of the store, in blocks or here; `i64::MIN` before the first.
    newest: AtomicI64,
    /// Memory of requests, lent and given back.
    scratch: Mutex<Vec<RequestScratch>>,
    repeats: Repeats,
}

impl Head {
    pub(crate) fn new(seed: u64) -> Head {
        let directory = Directory { registry: Registry::new(seed), postings: MemPostings::new() };
        Head {
            directory: RwLock::new(directory),
            shards: Default::default(),
            series_created: AtomicU64::new(0),
            pace: Mutex::default(),
            newest: AtomicI64::new(i64::MIN),
            scratch: Mutex::new(Vec::new()),
            repeats: Repeats::default(),
        }
    }

    /// Takes a frame of definitions of these series that nothing far behind it repeats, to log it again.
    pub(crate) fn repeat(&self, ids: std::ops::Range<u32>, definitions: &[u8]) {
        self.repeats.add(ids, definitions);
    }

    /// Times of the oldest and newest sample, if there is one.
    pub(crate) fn time_range(&self) -> Option<(i64, i64)> {
        let (mut oldest, mut newest) = (i64::MAX, i64::MIN);
        for shard in &self.shards {
            let shard = shard.lock();
            if shard.samples > 0 {
                (oldest, newest) = (oldest.min(shard.oldest), newest.max(shard.newest));
            }
        }
        (oldest <= newest).then_some((oldest, newest))
    }

    /// Time of the newest sample of the store, if it has one.
    pub(crate) fn newest(&self) -> Option<i64> {
        Some(self.newest.load(Ordering::Relaxed)).filter(|newest| *newest > i64::MIN)
    }

    /// Learns that the store has a sample of this time.
    pub(crate) fn has_newest(&self, newest_ms: i64) {
        self.newest.fetch_max(newest_ms, Ordering::Relaxed);
    }

    /// Before this time samples are in blocks. All shards have the same one, but those whose images are lost and of
    /// which the log no longer tells.
    pub(crate) fn floor(&self) -> i64 {
        self.shards.iter().map(|shard| shard.lock().floor).fold(i64::MIN, i64::max)
    }

    /// Gives back the memory of what is in blocks now, and removes the series that had only
    /// that. Returns how many series went.
    pub(crate) fn truncate(&self) -> usize {
        let mut gone = Vec::new();
        let of_shards = self.directory.read().ids_of_shards();
        for (shard, ids) in self.shards.iter().zip(of_shards) {
            // Writers wait for no more than a page.
            for ids in ids.chunks(PAGE_SERIES as usize) {
                shard.lock().truncate(ids, &mut gone);
            }
            shard.lock().truncate_rest();
        }
        let mut directory = self.directory.write();
        // Requests hold the directory while they write: what is empty now stays so.
        gone.retain(|id| directory.registry.is_alive(*id) && self.shards[Shard::of(*id)].lock().is_gone(*id));
        directory.remove(&gone);
        if !gone.is_empty() {
            directory.give_back_texts();
            let next = directory.registry.next_id();
            self.shards.iter().enumerate().for_each(|(at, shard)| shard.lock().free_pages(at, next));
        }
        gone.len()
    }

    /// Gives the memory of images back that were read as a whole: by a start, or by a cut.
    pub(crate) fn give_back_files(&self) {
        for shard in &self.shards {
            let files: Vec<Bytes> = shard.lock().sealed.files().cloned().collect();
            files.iter().for_each(|file| give_back(file));
        }
    }

    /// Adds the stretches before `until` in which there are samples.
    pub(crate) fn stretches_before(&self, until: i64, stretches: &mut Stretches) {
        let of_shards = self.directory.read().ids_of_shards();
        for (shard, ids) in self.shards.iter().zip(of_shards) {
            shard.lock().stretches_before(until, ids.into_iter(), stretches);
        }
    }

    pub(crate) fn status(&self) -> HeadStatus {
        let mut status = HeadStatus::default();
        {
            let directory = self.directory.read();
            let (symbols, labels, table) = directory.registry.bytes_held();
            status.series = directory.registry.len() as u64;
            status.label_pairs = directory.registry.pairs.len() as u64;
            status.memory = Memory {
                symbols: symbols as u64,
                labels: labels as u64,
                table: table as u64,
                index: directory.postings.bytes_held() as u64,
                ..Memory::default()
            };
        }
        let memory = &mut status.memory;
        for shard in &self.shards {
            let shard = shard.lock();
            status.chunks += shard.sealed.count();
            status.samples += shard.samples;
            status.out_of_order += shard.taken_late;
            status.clocks += shard.clocks.count() as u64;
            memory.series += shard.bytes_of_open() as u64;
            memory.open_runs += shard.cells.bytes_held() as u64;
            memory.clocks += shard.clocks.bytes_held() as u64;
            memory.sealed += shard.sealed.bytes_held() as u64;
            memory.late += shard.bytes_of_late() as u64;
            memory.histograms += shard.bytes_of_histograms() as u64;
            status.histogram_series += shard.histograms.len() as u64;
            status.chunks += shard.histograms.values().map(|series| series.sealed.len() as u64).sum::<u64>();
        }
        (status.min_time, status.max_time) = self.time_range().unzip();
        status
    }

    /// The `limit` largest of each kind.
    pub(crate) fn cardinality(&self, limit: usize) -> Cardinality {
        let directory = self.directory.read();
        let Directory { registry, postings } = &*directory;
        let entry = |name: &str, count: u64| TopEntry { name: name.to_owned(), count };
        let mut pairs = Vec::new();
        let (mut metrics, mut values, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for (name, of_name) in postings.names() {
            let counts = of_name.iter().map(|pair| (postings.count(*pair), PairId(*pair)));
            let value = |pair: PairId| registry.pairs.get(pair).1;
            values.push(entry(name, of_name.len() as u64));
            bytes.push(entry(name, counts.clone().map(|(n, pair)| value(pair).len() as u64 * n).sum()));
            if name == METRIC_NAME {
                metrics.extend(counts.clone().map(|(n, pair)| entry(value(pair), n)));
            }
            pairs.extend(counts);
            pairs.sort_unstable_by(|a, b| b.cmp(a));
            pairs.truncate(limit);
        }
        let pair = |(count, pair): &(u64, PairId)| {
            let (name, value) = registry.pairs.get(*pair);
            entry(&format!("{name}={value}"), *count)
        };
        Cardinality {
            series_by_pair: pairs.iter().map(pair).collect(),
            series_by_metric: top(metrics, limit),
            values_by_label: top(values, limit),
            bytes_by_label: top(bytes, limit),
        }
    }
}

/// The `limit` largest, largest first.
pub(crate) fn top(mut entries: Vec<TopEntry>, limit: usize) -> Vec<TopEntry> {
    entries.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.name.cmp(&b.name)));
    entries.truncate(limit);
    entries
}

impl Directory {
    /// Adds a series that the registry has to the index.
    pub(crate) fn insert_postings(&mut self, id: SeriesId) {
        let pairs = self.registry.labels(id).iter().map(|pair| pair.0);
        self.postings.insert(id.0, pairs, &self.registry);
    }

    /// Makes the series that came back after a start to be found, by their labels and by matchers.
    /// Gives those that had left before, as a newer one has their labels; they are removed.
    pub(crate) fn complete(&mut self, parallel: &dyn Parallel) -> Vec<SeriesId> {
        let Directory { registry, postings } = self;
        let mut table = None;
        {
            let registry = &*registry;
            let pairs_of = |id| match registry.is_alive(SeriesId(id)) {
                true => registry.labels(SeriesId(id)),
                false => &[],
            };
            parallel.run(vec![
                Box::new(|| table = Some(registry.build_table(parallel))),
                Box::new(|| postings.fill(0..registry.next_id().0, pairs_of, registry)),
            ]);
        }
        let outdated = registry.set_table(table.expect("built above"));
        self.remove(&outdated);
        outdated
    }

    /// Ids of living series, ascending, for each shard.
    fn ids_of_shards(&self) -> [Vec<SeriesId>; SHARDS] {
        let mut of_shards: [Vec<SeriesId>; SHARDS] = Default::default();
        self.registry.ids().for_each(|id| of_shards[Shard::of(id)].push(id));
        of_shards
    }

    pub(crate) fn index(&self) -> MemIndex<'_> {
        self.postings.index(&self.registry)
    }

    pub(crate) fn remove(&mut self, gone: &[SeriesId]) {
        if gone.is_empty() {
            return;
        }
        let registry = &self.registry;
        self.postings.remove(gone.iter().map(|id| (id.0, registry.labels(*id).iter().map(|pair| pair.0))));
        self.registry.remove(gone);
    }

    /// Forgets the texts of pairs that no series bears any more, where they are more than half.
    pub(crate) fn give_back_texts(&mut self) {
        let (borne, all) = self.postings.pair_counts();
        if all < PAIRS_MIN || borne * 2 > all {
            return;
        }
        let postings = &self.postings;
        let numbers = self.registry.renumber(&|pair| postings.count(pair) > 0);
        self.postings.renumber(&numbers);
    }
}
