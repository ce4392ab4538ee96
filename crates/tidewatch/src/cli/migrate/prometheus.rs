//! Importing a Prometheus' data directory: block by block, then the write-ahead log.
//!
//! A block has its series in order, so it becomes a block of ours as it is read. The log's samples
//! are in the order of time; those that a block has already are passed over, as Prometheus does at
//! its start.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, bail};
use tidewatch_env::{Env, Lock};
use tidewatch_migrate::prometheus::{
    At, Block, Interval, Meta, Metadata, Record, Run, Segments, Values, decode_record, is_deleted,
    read_segment,
};
use tidewatch_model::{Exemplar, Labels};
use tidewatch_tsdb::block::{StoredRun, StoredValues};
use tidewatch_tsdb::{Backfill, FamilyMetadata, OpenError};

use super::import::{Importer, entries};
use super::progress::Progress;
use super::state::{Reached, Sum};

pub fn import(importer: &mut Importer<'_, '_>, source: &Path) -> Result<()> {
    let _lock = lock(&importer.env, source)?;
    let metas = metas(importer, source)?;
    let in_blocks = metas.iter().filter(|(_, meta)| !meta.is_out_of_order()).map(|(_, meta)| meta.max_time);
    let in_blocks = in_blocks.max().unwrap_or(i64::MIN);
    let log = Segments::list(&importer.env, &source.join("wal"))?;
    for (name, meta) in metas {
        block(importer, &source.join(name), meta)?;
    }
    let late = Segments::list(&importer.env, &source.join("wbl"))?;
    Log::default().import(importer, source, &log, &late, in_blocks)
}

/// Fails where a directory is none that can be imported now. Asked before anything is created.
pub fn check(env: &Env, source: &Path) -> Result<()> {
    let _lock = lock(env, source)?;
    let has_blocks = entries(env, source)?.iter().any(|(name, _)| is_block(name));
    if !has_blocks && Segments::list(env, &source.join("wal"))?.files.is_empty() {
        bail!(
            "{}: this is no data directory of Prometheus: it has neither blocks nor a log",
            source.display()
        );
    }
    Ok(())
}

fn is_block(name: &str) -> bool {
    name.len() == 26 && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Keeps a Prometheus from running on a directory meanwhile: it would remove what is being read. A directory without
/// its lock, or on a disk that can not be written, is nobody's.
fn lock(env: &Env, source: &Path) -> Result<Option<Box<dyn Lock>>> {
    let path = source.join("lock");
    if !env.disk.exists(&path).unwrap_or(false) {
        return Ok(None);
    }
    match env.disk.lock(&path) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => bail!(
            "{}: a Prometheus runs on this directory: stop it, or import a snapshot that it makes \
             (POST /api/v1/admin/tsdb/snapshot)",
            source.display()
        ),
        lock => Ok(lock.ok()),
    }
}

/// The blocks of a directory, those excepted that another replaces.
fn metas(importer: &mut Importer<'_, '_>, source: &Path) -> Result<Vec<(String, Meta)>> {
    let mut metas = Vec::new();
    for (name, path) in entries(&importer.env, source)? {
        if !is_block(&name) {
            continue;
        }
        match Block::read_meta(&importer.env, &path) {
            Ok(meta) => metas.push((name, meta)),
            Err(reason) => importer.problem(path.join("meta.json").display(), reason),
        }
    }
    let replaced: BTreeSet<String> =
        metas.iter().flat_map(|(_, meta)| meta.parents().map(str::to_owned).collect::<Vec<_>>()).collect();
    metas.retain(|(_, meta)| !replaced.contains(&meta.ulid));
    metas.sort_by_key(|(_, meta)| meta.min_time);
    Ok(metas)
}

fn block(importer: &mut Importer<'_, '_>, dir: &Path, meta: Meta) -> Result<()> {
    let key = format!("prometheus-block-{}", meta.ulid);
    let shown = dir.display().to_string();
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        importer.problem(shown, "the ulid in meta.json is none");
        return Ok(());
    }
    if importer.state.reached(&key) == Some(&Reached::Done) {
        importer.was_imported(&shown, &key)?;
        return Ok(());
    }
    let all = meta.stats.num_samples;
    let block = match Block::open(&importer.env, dir, meta) {
        Ok(block) => block,
        Err(reason) => {
            importer.problem(shown, reason);
            return Ok(());
        }
    };
    let mut progress = Progress::start(&shown, all);
    let mut problems = Vec::new();
    let (start_ms, end_ms) = (block.meta.min_time, block.meta.max_time);
    let has_range = Backfill::takes_time(start_ms) && Backfill::takes_time(end_ms) && start_ms < end_ms;
    let mut sorted = if has_range { Some(importer.backfill.sorted(start_ms, end_ms)?) } else { None };
    // The series at hand, and whether it can be stored.
    let mut series: Option<(Labels, bool)> = None;
    let mut done = 0;
    let mut visit = |run: Run<'_>| -> Result<()> {
        done += run.times.len() as u64;
        progress.set(done, importer.console.err, || format!("{done} samples"));
        if series.as_ref().is_none_or(|(labels, _)| labels != run.labels) {
            let checked = importer.backfill.check(run.labels);
            series = Some((run.labels.clone(), checked.is_ok()));
            checked.unwrap_or_else(|reason| importer.problem(&shown, reason));
        }
        if !series.as_ref().is_some_and(|(_, is_fine)| *is_fine) {
            return Ok(());
        }
        let stored = stored(&run);
        // What lies outside the block's own range, or out of order, goes another way: no block of
        // Prometheus has it unless it is damaged, or its meta.json.
        let left_out = match sorted.as_mut().filter(|block| block.takes(run.labels, run.times)) {
            Some(block) => block.push(run.labels, &stored)?,
            None => importer.backfill.push(run.labels, &stored).err(),
        };
        left_out.into_iter().for_each(|reason| importer.problem(&shown, reason));
        if importer.backfill.is_full() {
            importer.backfill.flush()?;
        }
        Ok(())
    };
    block.visit(&mut |place, reason| problems.push((place, reason)), &mut visit)?;
    if let Some(sorted) = sorted {
        importer.backfill.keep(sorted)?;
    }
    importer.backfill.flush()?;
    drop(progress);
    for (place, reason) in problems {
        importer.problem(place, reason);
    }
    importer.reached(&key, Reached::Done)
}

fn stored<'a>(run: &Run<'a>) -> StoredRun<'a> {
    let values = match run.values {
        Values::Floats(values) => StoredValues::Floats(values),
        Values::Histograms(values) => StoredValues::Histograms(values),
    };
    StoredRun { timestamps: run.times, values, starts: run.starts }
}

/// What the log has said so far.
#[derive(Default)]
struct Log {
    /// Series by reference; several references may name one series.
    series: HashMap<u64, u32>,
    numbers: HashMap<Labels, u32>,
    labels: Vec<Labels>,
    /// Deletions by series.
    deleted: HashMap<u32, Vec<Interval>>,
    /// Samples, exemplars and metadata of references that nothing names.
    nameless: u64,
    /// Records of kinds that are not known.
    unknown: BTreeMap<u8, u64>,
    refused: BTreeSet<String>,
    unreadable: u64,
}

/// Reasons that are remembered one by one.
const REFUSED_MAX: usize = 10_000;

impl Log {
    fn import(
        mut self,
        importer: &mut Importer<'_, '_>,
        source: &Path,
        log: &Segments,
        late: &Segments,
        in_blocks: i64,
    ) -> Result<()> {
        for path in log.missing.iter().chain(&late.missing) {
            importer.problem(path.display(), "the segment is missing, with the samples that were in it");
        }
        let mut sum = Sum::default();
        let mut bytes = 0;
        for file in log.files.iter().chain(&late.files) {
            let map = importer.env.disk.map(file).map_err(OpenError::io(file))?;
            bytes += map.len() as u64;
            sum.add(file.file_name().unwrap_or_default().as_encoded_bytes());
            sum.add(&map.len().to_le_bytes());
            sum.add(&map[map.len().saturating_sub(4096)..]);
        }
        let key = format!("prometheus-wal-{bytes}-{sum}");
        let shown = source.join("wal").display().to_string();
        if log.files.is_empty() {
            return Ok(());
        }
        if importer.state.reached(&key) == Some(&Reached::Done) {
            importer.was_imported(&shown, &key)?;
            return Ok(());
        }
        let mut progress = Progress::start(&shown, bytes * 2);
        let mut done = 0;
        // Deletions come behind what they delete, so they are looked for first.
        for file in &log.files {
            done += self.read(importer, file, &mut Pass::Deletions)?;
            progress.set(done, importer.console.err, || "looking for deletions".to_owned());
        }
        for (segments, from_ms) in [(log, in_blocks), (late, i64::MIN)] {
            for file in &segments.files {
                done += self.read(importer, file, &mut Pass::Samples { from_ms })?;
                importer.show(&mut progress, done);
            }
        }
        drop(progress);
        importer.backfill.flush()?;
        self.say(importer, &shown);
        if importer.beside.is_empty() {
            return importer.reached(&key, Reached::Done);
        }
        importer.beside.then_done(key);
        Ok(())
    }

    /// Reads a segment; gives its length.
    fn read(&mut self, importer: &mut Importer<'_, '_>, file: &Path, pass: &mut Pass) -> Result<u64> {
        let map = importer.env.disk.map(file).map_err(OpenError::io(file))?;
        let mut problems = Vec::new();
        let mut outcome = Ok(());
        let mut broken = Vec::new();
        read_segment(&map, &mut |at, reason| problems.push((at, reason.to_owned())), &mut |at, record| {
            let applied = match decode_record(record) {
                Ok(record) => self.apply(importer, record, pass),
                Err(reason) => {
                    broken.push((at, reason.to_owned()));
                    Ok(())
                }
            };
            if outcome.is_ok() {
                outcome = applied;
            }
        });
        outcome?;
        if let Pass::Samples { .. } = pass {
            for (at, reason) in problems.into_iter().chain(broken) {
                importer.problem(format!("{}:{at}", file.display()), reason);
            }
        }
        Ok(map.len() as u64)
    }

    fn apply(&mut self, importer: &mut Importer<'_, '_>, record: Record, pass: &Pass) -> Result<()> {
        match (record, pass) {
            (Record::Series(series), _) => series.into_iter().for_each(|(reference, labels)| match labels {
                Some(labels) => self.name(reference, labels),
                None => self.unreadable += u64::from(matches!(pass, Pass::Samples { .. })),
            }),
            (Record::Tombstones(deletions), Pass::Deletions) => {
                for (reference, first, last) in deletions {
                    if let Some(series) = self.series.get(&reference) {
                        self.deleted.entry(*series).or_default().push((first, last));
                    }
                }
            }
            (Record::Samples(samples), Pass::Samples { from_ms }) => {
                for (at, value) in samples.iter().filter(|(at, _)| at.time >= *from_ms) {
                    self.sample(importer, at, StoredValues::Floats(std::slice::from_ref(value)));
                }
            }
            (Record::Histograms(samples), Pass::Samples { from_ms }) => {
                for (at, value) in samples.iter().filter(|(at, _)| at.time >= *from_ms) {
                    self.sample(importer, at, StoredValues::Histograms(std::slice::from_ref(value)));
                }
            }
            (Record::Exemplars(exemplars), Pass::Samples { .. }) => {
                for (at, value, labels) in exemplars {
                    match self.labels_of(at.reference).zip(labels) {
                        Some((series, labels)) => {
                            let exemplar = Exemplar { labels, value, timestamp: at.time };
                            importer.beside.exemplar(series, exemplar);
                        }
                        None => self.nameless += 1,
                    }
                }
            }
            (Record::Metadata(metadata), Pass::Samples { .. }) => {
                for Metadata { reference, kind, help, unit } in metadata {
                    match self.labels_of(reference) {
                        Some(series) => importer.beside.metadata(series, FamilyMetadata { kind, help, unit }),
                        None => self.nameless += 1,
                    }
                }
            }
            (Record::Unknown(kind), Pass::Samples { .. }) => *self.unknown.entry(kind).or_default() += 1,
            _ => {}
        }
        if importer.backfill.is_full() {
            importer.backfill.flush()?;
        }
        Ok(())
    }

    fn name(&mut self, reference: u64, labels: Labels) {
        let next = self.labels.len() as u32;
        let number = *self.numbers.entry(labels.clone()).or_insert(next);
        if number == next {
            self.labels.push(labels);
        }
        self.series.insert(reference, number);
    }

    fn labels_of(&self, reference: u64) -> Option<&Labels> {
        self.series.get(&reference).map(|series| &self.labels[*series as usize])
    }

    fn sample(&mut self, importer: &mut Importer<'_, '_>, at: &At, values: StoredValues<'_>) {
        let Some(series) = self.series.get(&at.reference) else {
            self.nameless += 1;
            return;
        };
        if self.deleted.get(series).is_some_and(|intervals| is_deleted(intervals, at.time)) {
            return;
        }
        let starts = [at.start];
        let run = StoredRun { timestamps: &[at.time], values, starts: Some(&starts) };
        if let Err(reason) = importer.backfill.push(&self.labels[*series as usize], &run)
            && self.refused.len() < REFUSED_MAX
        {
            self.refused.insert(reason);
        }
    }

    fn say(self, importer: &mut Importer<'_, '_>, shown: &str) {
        for reason in self.refused {
            importer.problem(shown, reason);
        }
        for (kind, count) in self.unknown {
            importer.problem(shown, format!("{count} records of type {kind}, which is not known"));
        }
        if self.nameless > 0 {
            importer.problem(
                shown,
                format!("{} samples or notes of series that the log does not name", self.nameless),
            );
        }
        if self.unreadable > 0 {
            importer.problem(shown, format!("{} series whose labels are no label set", self.unreadable));
        }
    }
}

/// What a pass over the log is for.
enum Pass {
    Deletions,
    Samples { from_ms: i64 },
}
