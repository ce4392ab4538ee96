//! Importing a Prometheus' data directory: block by block, then the write-ahead log.
//!
//! A block has its series in order, so it becomes a block of ours as it is read. Of the log that is
//! taken which Prometheus takes at its start:
//!
//! ```text
//! wal  samples that are newer than all before them of their series, and than the blocks; what was
//!      deleted of a stretch is none of them, wherever in the log the deletion stands
//! wbl  samples out of order, which stand in `wal`, too. No deletion reaches them: older releases
//!      show them all the same, newer ones hide them until they write them to a block, where they are back
//! ```
//!
//! A deletion of all times says that the series went to a block with all it had until then.

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
    let in_blocks = metas.iter().filter(|(_, meta)| !meta.is_beside_log()).map(|(_, meta)| meta.max_time);
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
    /// How often a series still goes to a block, from here on in the log.
    moves: HashMap<u32, u32>,
    /// The newest sample by series, of those that came in order.
    newest: HashMap<u32, i64>,
    /// Samples in order that were deleted.
    deleted_samples: u64,
    /// Samples out of order that are taken though their times were deleted.
    kept_samples: u64,
    /// Samples out of order, of which the log for these should tell.
    late_samples: u64,
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
            done += self.read(importer, file, Pass::Deletions)?;
            progress.set(done, importer.console.err, || "looking for deletions".to_owned());
        }
        for (segments, pass) in [(log, Pass::InOrder { from_ms: in_blocks }), (late, Pass::Late)] {
            for file in &segments.files {
                done += self.read(importer, file, pass)?;
                importer.show(&mut progress, done);
            }
        }
        drop(progress);
        importer.backfill.flush()?;
        self.say(importer, &shown, !late.files.is_empty())?;
        if importer.beside.is_empty() {
            return importer.reached(&key, Reached::Done);
        }
        importer.beside.then_done(key);
        Ok(())
    }

    /// Reads a segment; gives its length.
    fn read(&mut self, importer: &mut Importer<'_, '_>, file: &Path, pass: Pass) -> Result<u64> {
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
        if pass != Pass::Deletions {
            for (at, reason) in problems.into_iter().chain(broken) {
                importer.problem(format!("{}:{at}", file.display()), reason);
            }
        }
        Ok(map.len() as u64)
    }

    fn apply(&mut self, importer: &mut Importer<'_, '_>, record: Record, pass: Pass) -> Result<()> {
        match (record, pass) {
            (Record::Series(series), _) => series.into_iter().for_each(|(reference, labels)| match labels {
                Some(labels) => self.name(reference, labels),
                None => self.unreadable += u64::from(pass != Pass::Deletions),
            }),
            (Record::Tombstones(deletions), pass) => {
                for (reference, first, last) in deletions {
                    if let Some(series) = self.series.get(&reference) {
                        self.delete(*series, (first, last), pass);
                    }
                }
            }
            (_, Pass::Deletions) => {}
            (Record::Samples(samples), pass) => {
                for (at, value) in &samples {
                    self.sample(importer, at, StoredValues::Floats(std::slice::from_ref(value)), pass);
                }
            }
            (Record::Histograms(samples), pass) => {
                for (at, value) in &samples {
                    self.sample(importer, at, StoredValues::Histograms(std::slice::from_ref(value)), pass);
                }
            }
            (Record::Exemplars(exemplars), _) => {
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
            (Record::Metadata(metadata), _) => {
                for Metadata { reference, kind, help, unit } in metadata {
                    match self.labels_of(reference) {
                        Some(series) => importer.beside.metadata(series, FamilyMetadata { kind, help, unit }),
                        None => self.nameless += 1,
                    }
                }
            }
            (Record::Unknown(kind), _) => *self.unknown.entry(kind).or_default() += 1,
            (Record::Passed, _) => {}
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

    fn delete(&mut self, series: u32, interval: Interval, pass: Pass) {
        match (pass, interval == (i64::MIN, i64::MAX)) {
            (Pass::Deletions, true) => *self.moves.entry(series).or_default() += 1,
            (Pass::Deletions, false) => self.deleted.entry(series).or_default().push(interval),
            (Pass::InOrder { .. }, true) => {
                self.moves.entry(series).and_modify(|moves| *moves = moves.saturating_sub(1));
                self.newest.remove(&series);
            }
            (Pass::InOrder { .. }, false) | (Pass::Late, _) => {}
        }
    }

    /// Whether Prometheus takes a sample from the place in its logs that is read.
    fn takes(&mut self, series: u32, time: i64, pass: Pass) -> bool {
        let is_deleted = || self.deleted.get(&series).is_some_and(|intervals| is_deleted(intervals, time));
        let Pass::InOrder { from_ms } = pass else {
            self.kept_samples += u64::from(is_deleted());
            return true;
        };
        if time < from_ms || self.moves.get(&series).is_some_and(|moves| *moves > 0) {
            return false;
        }
        let newest = self.newest.get(&series).copied();
        if newest.is_some_and(|newest| time <= newest) {
            // One that was sent twice is logged twice.
            self.late_samples += u64::from(newest != Some(time));
            return false;
        }
        let is_deleted = is_deleted();
        self.deleted_samples += u64::from(is_deleted);
        self.newest.insert(series, time);
        !is_deleted
    }

    fn sample(&mut self, importer: &mut Importer<'_, '_>, at: &At, values: StoredValues<'_>, pass: Pass) {
        let Some(&series) = self.series.get(&at.reference) else {
            self.nameless += 1;
            return;
        };
        if !self.takes(series, at.time, pass) {
            return;
        }
        let starts = [at.start];
        let run = StoredRun { timestamps: &[at.time], values, starts: Some(&starts) };
        if let Err(reason) = importer.backfill.push(&self.labels[series as usize], &run)
            && self.refused.len() < REFUSED_MAX
        {
            self.refused.insert(reason);
        }
    }

    fn say(self, importer: &mut Importer<'_, '_>, shown: &str, has_late: bool) -> Result<()> {
        let late_samples = if has_late { 0 } else { self.late_samples };
        for (count, what) in [
            (self.deleted_samples, "samples were deleted"),
            (
                self.kept_samples,
                "samples that came out of order have times that were deleted: they were taken, as Prometheus keeps them",
            ),
            (
                late_samples,
                "samples came out of order: as Prometheus does, only those were taken that blocks have, as there is no wbl",
            ),
        ] {
            if count > 0 {
                writeln!(importer.console.out, "{shown}: {count} {what}")?;
            }
        }
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
        Ok(())
    }
}

/// What is read, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// `wal`, for what was deleted: that comes behind the samples.
    Deletions,
    /// `wal`, for the samples that no block has.
    InOrder { from_ms: i64 },
    /// `wbl`, for all it has.
    Late,
}

#[cfg(test)]
mod tests {
    use tidewatch_env::Open;
    use tidewatch_storage::TimeRange;
    use tidewatch_tsdb::{Db, DbOptions};

    use super::*;
    use crate::cli::Console;
    use crate::cli::migrate::beside::Beside;
    use crate::cli::migrate::state::State;

    fn series(reference: u64, name: &str) -> Vec<u8> {
        let head = [&[1][..], &reference.to_be_bytes(), &[1, 8], b"__name__", &[name.len() as u8]].concat();
        [&head, name.as_bytes()].concat()
    }

    fn sample(reference: u64, time: i64, value: f64) -> Vec<u8> {
        let place = [&[2][..], &reference.to_be_bytes(), &time.to_be_bytes(), &[0, 0]].concat();
        [&place[..], &value.to_be_bytes()].concat()
    }

    fn tombstone(reference: u64, first: i64, last: i64) -> Vec<u8> {
        let varint = |value: i64| {
            let mut rest = (value << 1) ^ (value >> 63);
            let mut bytes = Vec::new();
            while rest as u64 > 127 {
                bytes.push(rest as u8 | 128);
                rest = (rest as u64 >> 7) as i64;
            }
            bytes.push(rest as u8);
            bytes
        };
        [&[3][..], &reference.to_be_bytes(), &varint(first), &varint(last)].concat()
    }

    fn put(env: &Env, path: &str, records: &[Vec<u8>]) {
        let path = Path::new(path);
        env.disk.create_dir_all(path.parent().expect("a file")).expect("a good disk");
        let file = env.disk.open(path, Open::Create).expect("a good disk");
        for record in records {
            let length = (record.len() as u16).to_be_bytes();
            let fragment = [&[1][..], &length, &crc32c::crc32c(record).to_be_bytes(), record].concat();
            file.append(&fragment).expect("a good disk");
        }
    }

    /// What an import of `/theirs` says and stores: times and values.
    fn imported(env: &Env) -> (String, Vec<String>) {
        let dir = Path::new("/data");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let backfill = Backfill::open(env, dir).expect("a good disk");
        let state = State::load(env, dir).expect("a good disk");
        let mut console = Console { out: &mut out, err: &mut err };
        let beside = Beside::default();
        let console = &mut console;
        let mut importer = Importer { env: env.clone(), backfill, state, console, problems: 0, beside };
        import(&mut importer, Path::new("/theirs")).expect("a good disk");
        assert_eq!(importer.problems, 0);
        drop(importer);
        assert_eq!(String::from_utf8_lossy(&err), "");
        let db =
            Db::open(env.clone(), DbOptions { retention_ms: None, ..DbOptions::new(dir) }).expect("opens");
        db.recover().expect("recovers");
        let all = TimeRange { start: i64::MIN, end: i64::MAX };
        let stored = db.stored(&[], all).expect("complete");
        let mut found = Vec::new();
        for series in 0..stored.len() {
            let mut visit = |run: StoredRun<'_>| {
                let StoredValues::Floats(values) = run.values else { panic!("no floats") };
                let pairs = run.timestamps.iter().zip(values);
                found.extend(pairs.map(|(time, value)| format!("{time} {value}")));
                anyhow::Ok(())
            };
            stored.visit(series, all, &mut visit).expect("readable");
        }
        (String::from_utf8_lossy(&out).into_owned(), found)
    }

    const WAL: &str = "/theirs/wal/00000000";
    const WBL: &str = "/theirs/wbl/00000000";

    /// A deletion reaches what came in order before it or after it, and nothing that came out of order.
    #[test]
    fn deletions_reach_what_came_in_order() {
        let env = Env::simulated(1).env;
        let late = [sample(1, 1500, 15.0), sample(1, 1600, 16.0)];
        let mut wal = vec![series(1, "a"), sample(1, 1000, 1.0), sample(1, 2000, 2.0), late[0].clone()];
        wal.extend([tombstone(1, 1000, 2000), late[1].clone(), sample(1, 3000, 3.0), sample(1, 3000, 3.0)]);
        put(&env, WAL, &wal);
        let (said, found) = imported(&env);
        assert_eq!(found, ["3000 3"]);
        let of_late = "2 samples came out of order: as Prometheus does, only those were taken that blocks have, as there is \
                       no wbl";
        assert_eq!(said, format!("/theirs/wal: 2 samples were deleted\n/theirs/wal: {of_late}\n"));

        let env = Env::simulated(1).env;
        put(&env, WAL, &wal);
        put(&env, WBL, &late);
        let (said, found) = imported(&env);
        assert_eq!(found, ["1500 15", "1600 16", "3000 3"]);
        let kept = "2 samples that came out of order have times that were deleted: they were taken, as Prometheus keeps them";
        assert_eq!(said, format!("/theirs/wal: 2 samples were deleted\n/theirs/wal: {kept}\n"));
    }

    /// A series that had ended went to a block, and came again.
    #[test]
    fn a_series_that_went_to_a_block_goes_on_behind_it() {
        let env = Env::simulated(1).env;
        let moved = tombstone(1, i64::MIN, i64::MAX);
        let wal = [series(1, "a"), sample(1, 1000, 1.0), sample(1, 2000, 2.0), moved, series(2, "a")];
        put(&env, WAL, &[&wal[..], &[sample(2, 1500, 3.0), sample(2, 2500, 4.0)]].concat());
        assert_eq!(imported(&env), (String::new(), vec!["1500 3".to_owned(), "2500 4".to_owned()]));
    }
}
