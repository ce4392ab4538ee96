//! Bits, bytes and pages that are not what was written.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env};
use tidewatch_model::{Labels, Sample};
use tidewatch_storage::Select;
use tidewatch_tsdb::Db;

use crate::ledger::Ledger;
use crate::reference::{Reference, all_of_them, contents_with, open, put, readable, series, share};
use crate::support::{ALL, Contents, contents};

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
