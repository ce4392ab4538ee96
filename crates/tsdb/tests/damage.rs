//! Damaged files: whatever bit is changed, wherever a file ends, and whichever files are exchanged,
//! doubled, gone or not ours, the database opens, never answers with a sample that was not sent, and
//! says so when it lacks one.
//!
//! `TIDEWATCH_DAMAGE=all` changes every bit of every file and cuts each at every length; without it
//! a part of these, which takes seconds.

mod ledger;
mod numbers;
mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env, Open};
use tidewatch_model::histogram::{Histogram, Span};
use tidewatch_model::{BatchHistogram, Labels, NativeHistogram, Sample};
use tidewatch_storage::{Select, TimeRange};
use tidewatch_tsdb::{Damage, Db, DbOptions, Job, offline};

use ledger::Ledger;
use numbers::Numbers;
use support::{ALL, Contents, contents};

/// What all files together may take, so that every bit can be tried.
const DIRECTORY_BYTES_MAX: usize = 16 << 10;

fn open(simulation: &Simulation, image_log_bytes: u64) -> Result<Db, String> {
    let options = DbOptions { image_log_bytes, ..DbOptions::new("/data") };
    let db = Db::open(simulation.env.clone(), options).map_err(|error| error.to_string())?;
    db.recover().map_err(|error| error.to_string())?;
    Ok(db)
}

/// A directory with everything that there is: blocks, tombstones, images and a log behind them, with
/// floats, histograms and deletions in all of these; and what it holds.
struct Reference {
    files: Vec<(PathBuf, Vec<u8>)>,
    now: i64,
    ledger: Ledger,
    whole: Contents,
}

fn histogram(i: usize, step: usize) -> NativeHistogram {
    let count = (step * 3 + i) as u64;
    NativeHistogram::Integer(Histogram {
        schema: 2,
        count: 2 * count,
        sum: count as f64 * 0.25,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_deltas: vec![count as i64, 0],
        ..Histogram::default()
    })
}

impl Reference {
    fn new() -> Reference {
        let simulation = Env::simulated(5);
        let mut ledger = Ledger::default();
        for round in 0..3 {
            let db = open(&simulation, 300).expect("a good disk");
            for step in 0..6 {
                ingest(&db, &simulation, &mut ledger, round, step);
                while round < 2
                    && let Some(job) = db.next_job(simulation.clock.wall_ms())
                {
                    db.run(job).expect("a good disk");
                }
                if step == 3 {
                    // Images have it, but for the last round, where the log alone does.
                    let now = simulation.clock.wall_ms();
                    let recent = TimeRange { start: now - 3_600_000, end: now };
                    ledger.delete(&db, &series("m", 1, round), recent);
                }
                simulation.clock.advance_ms(40 * 60_000);
            }
            if round == 2 {
                let all = TimeRange { start: 0, end: simulation.clock.wall_ms() };
                ledger.delete(&db, &series("m", 2, 0), all);
            }
            ledger.restart();
        }
        simulation.disk.kill();
        let db = open(&simulation, u64::MAX).expect("a good disk");
        let whole = contents(&db);
        assert!(ledger.acknowledged() > 50 && ledger.deleted() > 9, "{} deleted", ledger.deleted());
        ledger.check(&whole, "before any damage");
        drop(db);
        let disk = &simulation.disk;
        let files: Vec<_> =
            disk.files().into_iter().map(|path| (path.clone(), disk.peek(&path).expect("there"))).collect();
        let bytes: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= DIRECTORY_BYTES_MAX, "{bytes} bytes");
        for part in [".block", ".tombstones", "series.image", "shard-", ".wal", "FORMAT"] {
            assert!(
                files.iter().any(|(path, _)| path.to_string_lossy().contains(part)),
                "{part} in {files:?}"
            );
        }
        Reference { files, now: simulation.clock.wall_ms(), ledger, whole }
    }

    /// The files on a disk of their own.
    fn disk(&self) -> Simulation {
        let simulation = Env::simulated(7);
        simulation.clock.jump_to_ms(self.now);
        self.files.iter().for_each(|(path, bytes)| put(&simulation, path, bytes));
        simulation
    }

    /// Damages a copy, opens it, and looks at what it says. Gives whether it says that something is
    /// damaged.
    #[track_caller]
    fn check(&self, context: &str, damage: impl FnOnce(&Simulation)) -> bool {
        self.check_unless(context, false, damage)
    }

    /// The same where, if `silent`, something can be lost without a trace.
    #[track_caller]
    fn check_unless(&self, context: &str, silent: bool, damage: impl FnOnce(&Simulation)) -> bool {
        let simulation = self.disk();
        damage(&simulation);
        let verified = verify(&simulation);
        let db = open(&simulation, u64::MAX).unwrap_or_else(|error| panic!("{context}: refuses: {error}"));
        check_verified(verified, &db.status().damage, context);
        let named = !db.status().damage.is_empty();
        // A query over damage may fail, but it must not be wrong.
        if db.select(&[], ALL).is_ok_and(|selection| readable(&*selection)) {
            let read = contents(&db);
            self.ledger.check_sent(&read, context);
            let lacks = self.whole.keys().find(|key| !read.contains_key(key));
            assert!(
                lacks.is_none() || named || silent,
                "{context}: {lacks:?} is missing and nothing is said"
            );
            let back = self.ledger.back_again(&read);
            assert!(
                back.is_none() || named || silent,
                "{context}: {back:?} was deleted, and nothing is said"
            );
        }
        // And it goes on: what comes now is taken, and there after another start.
        let mut ledger = Ledger::default();
        let sample = Sample { timestamp: self.now, value: 0.5 };
        assert!(ledger.append(&db, &[(&series("new", 0, 0), sample)], &[]), "{context}");
        assert!(ledger.commit(&db), "{context}");
        drop(db);
        simulation.disk.crash(0);
        let db =
            open(&simulation, u64::MAX).unwrap_or_else(|error| panic!("{context}: refuses then: {error}"));
        let new = [tidewatch_model::Matcher::equal("__name__", "new")];
        // Nothing of others either: no series is given what another one had.
        ledger.check(&support::contents_of(&db, &new, ALL), context);
        named
    }
}

/// What a look at the directory finds: of each piece the path, and what is said.
fn verify(simulation: &Simulation) -> Option<Vec<(String, String)>> {
    // Without a whole `FORMAT` nothing says that it is ours, but to a start, which writes that anew.
    let verified = offline::verify(&simulation.env, Path::new("/data")).ok()?;
    let said = |finding: offline::Finding| (finding.path.display().to_string(), finding.reason);
    Some(verified.findings.into_iter().map(said).collect())
}

/// It names what the start named, and more only of what a start does not read: the samples in blocks, and what the log
/// has before the images.
#[track_caller]
fn check_verified(verified: Option<Vec<(String, String)>>, damage: &[Damage], context: &str) {
    let Some(verified) = verified else {
        let of_format = damage.iter().any(|damage| damage.path.ends_with("/FORMAT"));
        return assert!(of_format, "{context}: nothing could be looked at, and {damage:?}");
    };
    let started: Vec<(String, String)> =
        damage.iter().map(|damage| (damage.path.clone(), damage.reason.clone())).collect();
    let is_of = |dir: &str, (path, _): &(String, String)| path.starts_with(&format!("/data/{dir}"));
    for said in &started {
        let is_named = match is_of("blocks", said) {
            true => verified.iter().any(|(path, _)| *path == said.0),
            false => verified.contains(said),
        };
        assert!(is_named, "{context}: a start says {said:?}, and before that {verified:?}");
    }
    for said in verified.iter().filter(|said| is_of("head", said)) {
        assert!(started.contains(said), "{context}: {said:?}, and the start {started:?}");
    }
}

fn series(name: &str, i: usize, round: usize) -> Labels {
    Labels::from_pairs([("__name__", name), ("i", &format!("{i}-{round}"))])
}

fn ingest(db: &Db, simulation: &Simulation, ledger: &mut Ledger, round: usize, step: usize) {
    let timestamp = simulation.clock.wall_ms();
    let floats: Vec<Labels> = (0..3).map(|i| series("m", i, round)).collect();
    let sample = |i: usize| Sample { timestamp, value: i as f64 * 0.25 + step as f64 };
    let samples: Vec<_> = floats.iter().enumerate().map(|(i, labels)| (labels, sample(i))).collect();
    let latency = series("h", 0, round);
    let of = BatchHistogram { timestamp, start: 0, value: histogram(0, step) };
    assert!(ledger.append(db, &samples, &[(&latency, of)]));
    assert!(ledger.commit(db));
}

fn put(simulation: &Simulation, path: &Path, bytes: &[u8]) {
    let disk = &simulation.env.disk;
    if simulation.disk.poke(path, bytes).is_err() {
        disk.create_dir_all(path.parent().expect("files lie in directories")).expect("a good disk");
        let file = disk.open(path, Open::Create).expect("new");
        file.append(bytes).expect("a good disk");
        file.sync().expect("a good disk");
    }
    // As it is when nobody has written for long.
    for dir in path.ancestors().skip(1) {
        disk.sync_dir(dir).expect("a good disk");
    }
}

fn readable(selection: &dyn tidewatch_storage::Selection) -> bool {
    let mut scratch = tidewatch_storage::Scratch::default();
    let visit = &mut |_: usize, _: tidewatch_storage::Run<'_>| std::ops::ControlFlow::Continue(());
    selection.scan(0..selection.len(), ALL, &mut scratch, visit).is_ok()
}

/// Whether every case is to be tried.
fn all_of_them() -> bool {
    std::env::var("TIDEWATCH_DAMAGE").is_ok_and(|text| text == "all")
}

#[test]
fn no_changed_bit_gives_a_wrong_answer_or_a_silent_loss() {
    let reference = Reference::new();
    let (all, mut tried) = (all_of_them(), 0);
    for (path, bytes) in &reference.files {
        for bit in 0..bytes.len() * 8 {
            // Another bit at each byte; bytes near the ends all, those within by turns.
            let at = bit / 8;
            let chosen = (at < 80 || at % 7 == 0 || bytes.len() - at < 40) && bit % 8 == at % 8;
            if !all && !chosen {
                continue;
            }
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (bit % 8);
            let context = format!("{} with bit {} of byte {at} changed", path.display(), bit % 8);
            reference.check(&context, |simulation| put(simulation, path, &damaged));
            tried += 1;
        }
    }
    eprintln!("== {tried} bits of {} files changed, {} of all bits", reference.files.len(), share(all));
}

/// What says where things lie in an image stands there twice, and a section is rebuilt from the others.
#[test]
fn a_changed_byte_of_an_image_costs_nothing() {
    let reference = Reference::new();
    let is_image = |path: &&(PathBuf, Vec<u8>)| path.0.extension().is_some_and(|end| end == "image");
    for (path, bytes) in reference.files.iter().filter(is_image) {
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let simulation = reference.disk();
            put(&simulation, path, &damaged);
            let db = open(&simulation, u64::MAX).expect("opens");
            let context = format!("{} with byte {at} changed", path.display());
            assert_eq!(contents(&db), reference.whole, "{context}");
            let said: Vec<String> = db.status().damage.into_iter().map(|damage| damage.path).collect();
            assert_eq!(said, [path.display().to_string()], "{context}");
        }
    }
}

/// What of the log is damaged costs one request at most, though series are defined there that later ones rest on.
#[test]
fn a_changed_bit_of_the_log_costs_at_most_the_request_that_it_is_in() {
    let (reference, mut costly) = (Reference::new(), 0);
    with_each_changed_bit(&reference, "wal", |db, context| {
        let read = contents(db);
        let missing: Vec<_> = reference.whole.keys().filter(|key| !read.contains_key(key)).collect();
        assert!(missing.iter().all(|(_, at)| *at == missing[0].1), "{context}: {missing:?}");
        assert!(missing.is_empty() || !db.status().damage.is_empty(), "{context}");
        costly += usize::from(!missing.is_empty());
    });
    assert!(costly > 0);
}

/// Opens the directory with each bit changed, or one of each byte, of the files with this ending.
fn with_each_changed_bit(reference: &Reference, ending: &str, mut check: impl FnMut(&Db, &str)) {
    let all = all_of_them();
    let is_one = |path: &&(PathBuf, Vec<u8>)| path.0.extension().is_some_and(|end| end == ending);
    for (path, bytes) in reference.files.iter().filter(is_one) {
        for bit in (0..bytes.len() * 8).filter(|bit| all || bit % 8 == bit / 8 % 8) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let simulation = reference.disk();
            put(&simulation, path, &damaged);
            let db = open(&simulation, u64::MAX).expect("opens");
            check(&db, &format!("{} with bit {bit} changed", path.display()));
        }
    }
}

/// One sample each of so many series, acknowledged.
fn step(db: &Db, simulation: &Simulation, ledger: &mut Ledger, count: usize) {
    simulation.clock.advance_ms(15_000);
    let timestamp = simulation.clock.wall_ms();
    let names: Vec<Labels> = (0..count).map(|i| series("many", i, 0)).collect();
    let sample = |i: usize| Sample { timestamp, value: (i * 31 % 7) as f64 * 0.37 };
    let samples: Vec<_> = names.iter().enumerate().map(|(i, labels)| (labels, sample(i))).collect();
    assert!(ledger.append(db, &samples, &[]) && ledger.commit(db));
}

/// The log's files.
fn segments(simulation: &Simulation) -> Vec<(PathBuf, Vec<u8>)> {
    let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "wal");
    let paths = simulation.disk.files().into_iter().filter(is_log);
    paths.map(|path| (path.clone(), simulation.disk.peek(&path).expect("there"))).collect()
}

/// What a start finds where this file has these bytes.
fn contents_with(simulation: &Simulation, path: &Path, bytes: &[u8]) -> Contents {
    let copy = Env::simulated(7);
    copy.clock.jump_to_ms(simulation.clock.wall_ms());
    for path in simulation.disk.files() {
        put(&copy, &path, &simulation.disk.peek(&path).expect("there"));
    }
    put(&copy, path, bytes);
    contents(&open(&copy, u64::MAX).expect("opens"))
}

/// Times of which something is missing.
fn times_lost(whole: &Contents, read: &Contents) -> BTreeSet<i64> {
    whole.keys().filter(|key| !read.contains_key(key)).map(|(_, at)| *at).collect()
}

/// The definitions are longer than a page, and nothing a page behind repeats them yet.
#[test]
fn a_changed_bit_of_long_definitions_costs_at_most_one_request() {
    let (simulation, mut ledger) = (Env::simulated(3), Ledger::default());
    let db = open(&simulation, u64::MAX).expect("a good disk");
    [400, 9, 9].into_iter().for_each(|count| step(&db, &simulation, &mut ledger, count));
    let whole = contents(&db);
    drop(db);
    simulation.disk.kill();
    let (mut costly, mut tried) = (0, 0);
    for (path, bytes) in segments(&simulation) {
        let stride = if all_of_them() { 1 } else { 23 };
        for at in (0..bytes.len()).step_by(stride) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let lost = times_lost(&whole, &contents_with(&simulation, &path, &damaged));
            assert!(lost.len() <= 1, "byte {at} of {}: {lost:?}", path.display());
            (costly, tried) = (costly + lost.len(), tried + 1);
        }
    }
    assert!(costly > 0 && costly < tried, "{costly} of {tried}");
}

/// A page of the disk, wherever it begins in the log: no later sample is lost for want of a definition.
#[test]
fn a_lost_page_of_the_log_costs_the_requests_that_are_in_it() {
    let (simulation, mut ledger) = (Env::simulated(3), Ledger::default());
    let db = open(&simulation, u64::MAX).expect("a good disk");
    // Many series at once, and then one more now and then; and a process that did not come to repeat all.
    (0..30).for_each(|_| step(&db, &simulation, &mut ledger, 100));
    (100..140).for_each(|count| step(&db, &simulation, &mut ledger, count));
    drop(db);
    simulation.disk.kill();
    let db = open(&simulation, u64::MAX).expect("a good disk");
    (0..40).for_each(|_| step(&db, &simulation, &mut ledger, 140));
    let whole = contents(&db);
    drop(db);
    simulation.disk.kill();
    let (mut tried, mut most) = (0, 0);
    let segments = segments(&simulation);
    for (path, bytes) in &segments {
        for at in (0..bytes.len()).step_by(512) {
            let mut damaged = bytes.clone();
            damaged[at..(at + 4096).min(bytes.len())].iter_mut().for_each(|byte| *byte = !*byte);
            most = most.max(times_lost(&whole, &contents_with(&simulation, path, &damaged)).len());
            tried += 1;
        }
    }
    let per_step = segments.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() / 110;
    assert!(most > 0 && most <= 4096 / per_step + 3, "a page costs {most} of 110 steps of {per_step} bytes");
    eprintln!("== {tried} pages of the log lost, each costs at most {most} of 110 requests");
}

/// A chunk is there once, and everything else of a block twice.
#[test]
fn a_changed_bit_of_a_block_costs_at_most_the_chunk_that_it_is_in() {
    let (reference, mut costly) = (Reference::new(), 0);
    with_each_changed_bit(&reference, "block", |db, context| {
        let whole = db.select(&[], ALL).is_ok_and(|selection| readable(&*selection));
        while let Some(job) = db.next_job(reference.now) {
            db.run(job).unwrap_or_else(|error| panic!("{context}: {error}"));
        }
        let read = contents(db);
        let missing: Vec<_> = reference.whole.keys().filter(|key| !read.contains_key(key)).collect();
        assert!(missing.iter().all(|(series, _)| *series == missing[0].0), "{context}: {missing:?}");
        assert_eq!(whole, missing.is_empty(), "{context}: {missing:?}");
        assert_eq!(read.len() + missing.len(), reference.whole.len(), "{context}: what is deleted stays so");
        costly += usize::from(!whole);
    });
    assert!(costly > 0);
}

#[test]
fn no_shortened_file_gives_a_wrong_answer_or_a_silent_loss() {
    let reference = Reference::new();
    let (all, mut tried) = (all_of_them(), 0);
    for (path, bytes) in &reference.files {
        // The end of the newest segment of the log is where a crash tears: that is no damage.
        let is_log = path.extension().is_some_and(|extension| extension == "wal");
        for len in (0..bytes.len()).filter(|len| all || len % 11 == 0) {
            let context = format!("{} cut to {len} bytes", path.display());
            let damage = |simulation: &Simulation| put(simulation, path, &bytes[..len]);
            reference.check_unless(&context, is_log, damage);
            tried += 1;
        }
    }
    eprintln!("== {tried} shortened files, {} of all lengths", share(all));
}

#[test]
fn tombstones_of_another_length_hide_what_they_did_while_one_copy_is_whole() {
    let reference = Reference::new();
    let is_one = |path: &&(PathBuf, Vec<u8>)| path.0.extension().is_some_and(|end| end == "tombstones");
    for (path, bytes) in reference.files.iter().filter(is_one) {
        let longer = [&bytes[..], &bytes[..bytes.len() / 2], b"of others"].concat();
        for len in (bytes.len() / 2..=longer.len()).filter(|len| *len != bytes.len()) {
            let simulation = reference.disk();
            put(&simulation, path, &longer[..len]);
            let db = open(&simulation, u64::MAX).expect("opens");
            assert_eq!(contents(&db), reference.whole, "{} with {len} bytes", path.display());
            let said: Vec<String> = db.status().damage.into_iter().map(|damage| damage.path).collect();
            assert_eq!(said, [path.display().to_string()]);
        }
    }
}

fn share(all: bool) -> &'static str {
    if all { "all" } else { "a part" }
}

#[test]
fn no_exchanged_doubled_or_replaced_file_gives_a_wrong_answer_or_a_silent_loss() {
    let reference = Reference::new();
    let files = &reference.files;
    // An empty newest segment is what a crash leaves of one that was just begun.
    let is_log = |path: &Path| path.extension().is_some_and(|extension| extension == "wal");
    for (at, (path, bytes)) in files.iter().enumerate() {
        for (other_path, other) in &files[at + 1..] {
            let empties_log = is_log(path) && other.is_empty() || is_log(other_path) && bytes.is_empty();
            let (names, into) = ((path.display(), other_path.display()), (path, other_path));
            let check = |what: String, changes: &[(&PathBuf, &Vec<u8>)]| {
                reference.check_unless(&what, empties_log, |simulation| {
                    changes.iter().for_each(|(path, bytes)| put(simulation, path, bytes));
                });
            };
            check(format!("{} and {} exchanged", names.0, names.1), &[(into.0, other), (into.1, bytes)]);
            check(format!("{} over {}", names.0, names.1), &[(into.1, bytes)]);
            check(format!("{} over {}", names.1, names.0), &[(into.0, other)]);
        }
    }
    for (path, bytes) in files {
        for name in
            ["blocks/00000099.block", "wal/00000099.wal", "head/shard-09.image", "blocks/00000001.tombstones"]
        {
            let twin = Path::new("/data").join(name);
            let context = format!("{} again as {name}", path.display());
            reference.check(&context, |simulation| put(simulation, &twin, bytes));
        }
    }
}

#[test]
fn a_missing_file_costs_what_was_in_it_and_no_more() {
    let reference = Reference::new();
    for (path, _) in &reference.files {
        let context = format!("without {}", path.display());
        // Of the log the newest segment leaves no trace.
        let simulation = reference.disk();
        simulation.env.disk.remove(path).expect("there");
        let last_of_log = path.extension().is_some_and(|extension| extension == "wal");
        let said = verify(&simulation).is_some_and(|said| said.iter().any(|said| path == Path::new(&said.0)));
        let is_image = path.extension().is_some_and(|extension| extension == "image");
        let is_tombstones = path.extension().is_some_and(|extension| extension == "tombstones");
        assert!(said || !is_image && !is_tombstones, "{context}");
        let named = reference.check_unless(&context, last_of_log, |simulation| {
            simulation.env.disk.remove(path).expect("there");
        });
        // Without the list nothing is missing, and with it a block is, whatever it held.
        let is_block = path.extension().is_some_and(|extension| extension == "block");
        // The log has been trimmed, so there were images of all shards.
        assert!(named || !is_block && !is_image && !is_tombstones, "{context}");
    }
}

/// Nothing else says so where no image speaks of the log yet.
#[test]
fn a_log_whose_directory_is_gone_is_named() {
    let young = Env::simulated(5);
    let db = open(&young, u64::MAX).expect("a good disk");
    ingest(&db, &young, &mut Ledger::default(), 0, 0);
    drop(db);
    young.disk.kill();
    for (simulation, name) in [(young, "without images"), (Reference::new().disk(), "with images")] {
        simulation.env.disk.remove_dir_all(Path::new("/data/wal")).expect("there");
        let verified = verify(&simulation);
        let said =
            verified.iter().flatten().any(|(path, reason)| path == "/data/wal" && reason.contains("missing"));
        assert!(said, "{name}: {verified:?}");
        let db = open(&simulation, u64::MAX).expect("opens");
        check_verified(verified, &db.status().damage, name);
        drop(db);
        simulation.disk.kill();
        let named = |damage: Vec<Damage>| damage.iter().any(|damage| damage.path == "/data/wal");
        assert!(
            !named(open(&simulation, u64::MAX).expect("opens").status().damage),
            "{name}, for the second time"
        );
    }
}

/// Where frames end as they should nobody can know that there were more; else it is said what that may be, or must be.
#[test]
fn how_the_newest_segment_ends_is_said_in_words() {
    let reference = Reference::new();
    let newest =
        reference.files.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "wal")).max();
    let (path, whole) = newest.expect("a log").clone();
    let zeros = |from: usize| [&whole[..from], &vec![0; whole.len() - from]].concat();
    let mut headless = whole.clone();
    headless[..32].fill(0);
    let tails = (0..whole.len()).flat_map(|len| [whole[..len].to_vec(), zeros(len)]);
    let (mut silent, mut maybe, mut surely) = (0, 0, 0);
    for bytes in tails.chain([headless]) {
        let said = verify(&{
            let simulation = reference.disk();
            put(&simulation, &path, &bytes);
            simulation
        });
        let said: Vec<String> = said.expect("ours").into_iter().map(|(_, reason)| reason).collect();
        match &said[..] {
            [] => silent += 1,
            [reason] if reason.contains("A crash leaves") => maybe += 1,
            [..] => {
                let reasons = ["it was safe on the disk up to byte", "the header of the segment is damaged"];
                assert!(
                    said.iter().all(|said| reasons.iter().any(|reason| said.contains(reason))),
                    "{said:?}"
                );
                surely += 1;
            }
        }
    }
    // Frames end in as many places.
    assert!(silent > 3 && silent < 20 && maybe > 100 && surely > 0, "{silent}, {maybe}, {surely}");
}

/// The log goes back to the first sample, so it still has all that images lack.
#[test]
fn an_image_that_is_cut_short_costs_nothing_that_the_log_has() {
    let (simulation, mut ledger) = (Env::simulated(5), Ledger::default());
    let db = open(&simulation, u64::MAX).expect("a good disk");
    for step in 0..40 {
        ingest(&db, &simulation, &mut ledger, step / 30, step);
        if step % 10 == 9 {
            let now = simulation.clock.wall_ms();
            let recent = TimeRange { start: now - 100 * 60_000, end: now };
            ledger.delete(&db, &series("m", 1, step / 30), recent);
        }
        if step == 25 {
            while let Some(job) = db.next_job(simulation.clock.wall_ms()) {
                db.run(job).expect("a good disk");
            }
        }
        simulation.clock.advance_ms(15 * 60_000);
    }
    db.run(Job::Image).expect("a good disk");
    ingest(&db, &simulation, &mut ledger, 2, 41);
    let whole = contents(&db);
    drop(db);
    simulation.disk.kill();
    let (mut tried, mut lost) = (0, 0);
    let is_image = |path: &PathBuf| path.extension().is_some_and(|end| end == "image");
    for path in simulation.disk.files().into_iter().filter(is_image) {
        let image = simulation.disk.peek(&path).expect("there");
        for len in (0..image.len()).filter(|len| all_of_them() || len % 13 == 0) {
            let read = contents_with(&simulation, &path, &image[..len]);
            let missing = whole.keys().find(|key| !read.contains_key(key));
            assert_eq!(missing, None, "{} cut to {len} bytes", path.display());
            // What is deleted is known of an image where that says so, and it is not one of those that came back.
            lost += read.len() - whole.len();
            tried += 1;
        }
    }
    eprintln!("== {tried} shortened images cost nothing; {lost} samples that were deleted are back");
}

/// Numbers of blocks and segments do not come again, so nobody else would ever remove these.
#[test]
fn files_that_were_not_whole_yet_go_at_a_start_and_those_of_others_stay() {
    let reference = Reference::new();
    let of_crashes = [
        "wal/00000098.wal.tmp",
        "head/series.image.tmp",
        "head/shard-09.image.tmp",
        "blocks/00000098.block.tmp",
        "blocks/00000001.tombstones.tmp",
        "blocks/LIST.tmp",
        "LIST.tmp",
        "snapshots/20261128T014500Z-0123456789abcdef.tmp/blocks/00000001.block",
    ];
    let of_others = [
        "00000098.block.tmp",
        "wal/00000098.block.tmp",
        "wal/98.wal.tmp",
        "wal/00000098.wal.tmp.1",
        "head/shard-99.image.tmp",
        "head/LIST.tmp",
        "blocks/000000098.block.tmp",
        "blocks/+0000098.tombstones.tmp",
        "blocks/00000098.tmp",
        "blocks/00000098.block.bak",
        "blocks/.tmp",
        "damaged/00000098.block.tmp",
        "snapshots/20261128T014500Z-0123456789abcdef/blocks/00000001.block",
        "snapshots/20261128T014500Z.tmp/note.txt",
        "snapshots/20261128T014500Z-0123456789ABCDEF.tmp/note.txt",
        "snapshots/before-upgrade-2026-11-28-monday.tmp/note.txt",
    ];
    let simulation = reference.disk();
    for name in of_crashes.iter().chain(&of_others) {
        put(&simulation, &Path::new("/data").join(name), b"half a file");
    }
    // A directory is none of them.
    put(&simulation, Path::new("/data/blocks/00000097.block.tmp/note.txt"), b"of others");
    let db = open(&simulation, u64::MAX).expect("opens");
    reference.ledger.check(&contents(&db), "with half-made files");
    assert_eq!(db.status().damage, []);
    let is_there = |name: &str| simulation.disk.peek(&Path::new("/data").join(name)).is_ok();
    let stayed: Vec<_> = of_crashes.into_iter().filter(|name| is_there(name)).collect();
    assert_eq!(stayed, [""; 0]);
    let gone: Vec<_> = of_others.into_iter().filter(|name| !is_there(name)).collect();
    assert_eq!(gone, [""; 0]);
    assert!(is_there("blocks/00000097.block.tmp/note.txt"));
}

#[test]
fn files_of_others_are_left_alone() {
    let reference = Reference::new();
    let mut numbers = Numbers(3);
    let noise: Vec<u8> = (0..700).map(|_| numbers.upto(255) as u8).collect();
    let last = "18446744073709551615.wal";
    for dir in ["", "wal", "head", "blocks", "snapshots", "damaged"] {
        for name in
            ["note.txt", "00000099", "core", ".nfs0001", "00000003.block.tmp", "00000003.wal.bak", last]
        {
            let path = Path::new("/data").join(dir).join(name);
            let context = format!("with {}", path.display());
            let named = reference.check(&context, |simulation| put(simulation, &path, &noise));
            assert!(!named, "{context}: nothing of ours is damaged");
        }
        // A directory where a file would be.
        for name in ["00000098.block", "00000098.wal", "shard-09.image", "00000077.tombstones"] {
            let instead = Path::new("/data").join(dir).join(name);
            if reference.files.iter().any(|(path, _)| *path == instead) {
                continue;
            }
            let path = instead.join("file");
            reference.check(&format!("with {}", path.display()), |simulation| put(simulation, &path, &noise));
        }
    }
    for name in [
        "blocks/00000098.block",
        "blocks/2147483647.block",
        "wal/00000098.wal",
        "head/shard-09.image",
        "blocks/00000001.tombstones",
    ] {
        let path = Path::new("/data").join(name);
        reference.check(&format!("noise as {name}"), |simulation| put(simulation, &path, &noise));
        reference.check(&format!("nothing as {name}"), |simulation| put(simulation, &path, &[]));
    }
}

#[test]
fn a_file_that_the_disk_can_not_read_costs_what_was_in_it() {
    let reference = Reference::new();
    for (path, bytes) in &reference.files {
        let len = bytes.len() as u64;
        for part in [0..len, 0..1, len / 2..len / 2 + 1, len.saturating_sub(1)..len] {
            let context = format!("bytes {part:?} of {} unreadable", path.display());
            reference.check(&context, |simulation| {
                simulation.disk.make_unreadable(path, part.clone()).expect("there");
            });
        }
    }
}

/// A directory is ours by what is in it, even without the file that says so.
#[test]
fn a_damaged_or_missing_format_file_is_written_anew() {
    let reference = Reference::new();
    let format = Path::new("/data/FORMAT");
    for text in ["", "tidewatch-data 3\n", "tidewatch-data x\n", "tidewatch-dat", "\0\0\0\0"] {
        let simulation = reference.disk();
        put(&simulation, format, text.as_bytes());
        let db = open(&simulation, u64::MAX).expect("opens");
        reference.ledger.check(&contents(&db), text);
        let damage = db.status().damage;
        assert!(damage[0].path == "/data/FORMAT" && damage[0].reason.contains("written anew"), "{damage:?}");
        drop(db);
        assert_eq!(simulation.disk.peek(format).expect("there"), b"tidewatch-data 1\n");
        simulation.disk.kill();
        assert_eq!(open(&simulation, u64::MAX).expect("opens").status().damage, []);
    }
}

// A tester wrote "tidewatch-data 2" into it: the start took that for damage and wrote 1 over it.
#[test]
fn a_format_file_of_a_newer_release_is_refused_and_left_alone() {
    let reference = Reference::new();
    let (root, format) = (Path::new("/data"), Path::new("/data/FORMAT"));
    for (found, text) in [
        (2, "tidewatch-data 2\n"),
        (2, "tidewatch-data 2"),
        (99, "tidewatch-data 99\n"),
        (2, "tidewatch-data 2\ncrc32 7a3c33c5\n"),
        // What is a bit from the text of today is damage, unless a second line says otherwise.
        (3, "tidewatch-data 3\ncrc32 0d3b0353\n"),
    ] {
        let simulation = reference.disk();
        put(&simulation, format, text.as_bytes());
        let expected = format!(
            "/data/FORMAT: the data directory has format {found}, written by a newer version of Tidewatch; this one \
             reads up to format 1: upgrade, or use another directory"
        );
        let started = open(&simulation, u64::MAX).err();
        let env = &simulation.env;
        let verified = offline::verify(env, root).err().map(|error| error.to_string());
        let listed = offline::blocks(env, root).err().map(|error| error.to_string());
        let repaired = offline::repair(env, root).err().map(|error| error.to_string());
        for said in [started, verified, listed, repaired] {
            assert_eq!(said.as_deref(), Some(&*expected), "{text:?}");
        }
        assert_eq!(simulation.disk.peek(format).expect("there"), text.as_bytes());
    }
}

/// What a look at the directory says of blocks and their list, a line each; a start must say the same, and the second
/// nothing.
#[track_caller]
fn said_of_blocks(simulation: &Simulation) -> Vec<String> {
    let of_blocks = |path: &str| path.starts_with("/data/blocks") || path == "/data/LIST";
    let looked = verify(simulation).expect("it is ours").into_iter();
    let looked = looked.filter(|(path, _)| of_blocks(path)).map(|(path, reason)| format!("{path}: {reason}"));
    let start = || {
        let damage = open(simulation, u64::MAX).expect("opens").status().damage.into_iter();
        let damage = damage.filter(|damage| of_blocks(&damage.path));
        damage.map(|Damage { path, reason, .. }| format!("{path}: {reason}")).collect::<Vec<_>>()
    };
    let looked: Vec<String> = looked.collect();
    assert_eq!(start(), looked);
    simulation.disk.crash(0);
    assert_eq!(start(), [""; 0], "for the second time");
    looked
}

/// What is to be said where all blocks are gone.
fn all_blocks_gone(reference: &Reference) -> Vec<String> {
    let mut blocks = offline::blocks(&reference.disk().env, Path::new("/data")).expect("readable").blocks;
    blocks.sort_by_key(|block| block.meta().id);
    let line = |block: &tidewatch_tsdb::block::Block| {
        let (path, from, to) = (block.path().display(), block.meta().min_ms, block.meta().max_ms);
        format!("{path}: the file is missing, with its samples from {from} to {to} ms")
    };
    blocks.iter().map(line).collect()
}

// The list of blocks lay among them, and went with them: the start said that the store was complete.
#[test]
fn blocks_that_are_removed_with_all_that_is_beside_them_are_named_once() {
    let reference = Reference::new();
    let lines = all_blocks_gone(&reference);
    assert_ne!(lines, [""; 0]);
    let remove = |simulation: &Simulation, names: &[&str]| {
        for name in names {
            let dir = Path::new("/data").join(name);
            simulation.env.disk.remove_dir_all(&dir).expect("a good disk");
        }
        simulation.env.disk.sync_dir(Path::new("/data")).expect("a good disk");
    };
    let empty = |simulation: &Simulation| {
        let disk = &simulation.env.disk;
        let dir = Path::new("/data/blocks");
        let names = disk.list(dir).expect("a good disk");
        names.iter().for_each(|name| disk.remove(&dir.join(name)).expect("a good disk"));
        disk.sync_dir(dir).expect("a good disk");
    };
    for (what, goes) in [
        (
            "rm -r blocks",
            &(|simulation: &Simulation| remove(simulation, &["blocks"])) as &dyn Fn(&Simulation),
        ),
        ("rm blocks/*", &empty),
        ("rm -r blocks head wal", &|simulation| remove(simulation, &["blocks", "head", "wal"])),
    ] {
        assert!(reference.check(what, goes), "{what}");
        let simulation = reference.disk();
        goes(&simulation);
        assert_eq!(said_of_blocks(&simulation), lines, "{what}");
    }
    // Of a release without a list, or behind a full disk.
    let simulation = reference.disk();
    let _ = simulation.env.disk.remove(Path::new("/data/LIST"));
    remove(&simulation, &["blocks"]);
    let line = "/data/blocks: the directory of blocks is missing, with all that was in blocks: put it back from a copy \
                while no server has the data, or go on without";
    assert_eq!(said_of_blocks(&simulation), [line]);
}

/// Its list is the newer one, where there are two: it knows nothing of the other.
#[test]
fn a_list_of_an_older_release_holds_and_moves() {
    let reference = Reference::new();
    let lines = all_blocks_gone(&reference);
    let (list, before) = (Path::new("/data/LIST"), Path::new("/data/blocks/LIST"));
    let older = |simulation: &Simulation, also_newer: bool| {
        let bytes = simulation.disk.peek(list).expect("there");
        put(simulation, before, &bytes);
        if !also_newer {
            simulation.env.disk.remove(list).expect("a good disk");
        }
    };
    let gone = PathBuf::from(lines[0].split_once(": ").expect("a path").0);
    for (also_newer, is_listed) in [(false, true), (true, true), (true, false)] {
        let simulation = reference.disk();
        older(&simulation, also_newer);
        if !is_listed {
            // The older release has merged or retired them all.
            put(&simulation, before, b"TWBL\x02\0\0\0\0\0\0\0\x48\x4f\xe1\xf5");
        }
        simulation.env.disk.remove(&gone).expect("a good disk");
        assert_eq!(said_of_blocks(&simulation), lines[..usize::from(is_listed)]);
        assert!(simulation.disk.peek(list).is_ok() && simulation.disk.peek(before).is_err());
    }
}
