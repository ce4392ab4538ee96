//! Verify and repair: damage is named by file, range and series, and what is whole of a damaged
//! file stays.

mod files;
mod ledger;
mod support;

use std::path::{Path, PathBuf};

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env, Open};
use tidewatch_model::{Labels, Matcher, Sample};
use tidewatch_storage::TimeRange;
use tidewatch_tsdb::block::reseal;
use tidewatch_tsdb::offline::{self, Finding, Lost};
use tidewatch_tsdb::{Db, DbOptions, Job};

use files::{files, restore};
use ledger::Ledger;
use support::{Contents, contents};

const ROOT: &str = "/data";

fn open(simulation: &Simulation) -> Db {
    let options = DbOptions { retention_ms: None, image_log_bytes: u64::MAX, ..DbOptions::new(ROOT) };
    let db = Db::open(simulation.env.clone(), options).expect("opens");
    db.recover().expect("recovers");
    db
}

fn labels(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())])
}

/// Blocks, one with tombstones, images, and a log behind them; and what they hold.
fn directory() -> (Simulation, Ledger, Contents) {
    let simulation = Env::simulated(5);
    let mut ledger = Ledger::default();
    let db = open(&simulation);
    for step in 0..24 {
        let timestamp = simulation.clock.wall_ms();
        let series: Vec<Labels> = (0..3).map(labels).collect();
        let sample = |i: usize| Sample { timestamp, value: i as f64 * 0.25 + f64::from(step * step) };
        let samples: Vec<_> = series.iter().enumerate().map(|(i, labels)| (labels, sample(i))).collect();
        assert!(ledger.append(&db, &samples, &[]) && ledger.commit(&db));
        if step == 18 {
            while let Some(job) = db.next_job(timestamp) {
                db.run(job).expect("a good disk");
            }
            db.run(Job::Image).expect("a good disk");
        }
        simulation.clock.advance_ms(30 * 60_000);
    }
    let early = TimeRange { start: 0, end: simulation.clock.wall_ms() - 10 * 3_600_000 };
    assert!(ledger.delete(&db, &labels(2), early));
    let whole = contents(&db);
    drop(db);
    simulation.disk.kill();
    (simulation, ledger, whole)
}

#[test]
fn a_whole_directory_has_no_findings_and_repair_leaves_it_alone() {
    let (simulation, ..) = directory();
    let before = files(&simulation);
    let verified = offline::verify(&simulation.env, Path::new(ROOT)).expect("readable");
    assert_eq!(verified.findings, []);
    assert!(verified.blocks > 1 && verified.images > 1 && verified.frames > 5, "{verified:?}");
    let repaired = offline::repair(&simulation.env, Path::new(ROOT)).expect("a good disk");
    assert_eq!((repaired.rewritten, repaired.set_aside, repaired.head), (0, 0, false));
    assert_eq!(files(&simulation), before);
}

#[test]
fn a_damaged_chunk_is_named_and_costs_its_samples_alone() {
    let (simulation, _, whole) = directory();
    let is_block = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "block");
    let path = simulation.disk.files().into_iter().find(is_block).expect("a block");
    let intact = simulation.disk.peek(&path).expect("there");
    // Behind the header stand columns of timestamps and of values: the first byte whose change costs one chunk.
    let mut bytes = Vec::new();
    let damage = (16..intact.len()).find_map(|at| {
        bytes.clone_from(&intact);
        bytes[at] ^= 0xff;
        reseal(&mut bytes);
        simulation.disk.poke(&path, &bytes).expect("there");
        let verified = offline::verify(&simulation.env, Path::new(ROOT)).expect("readable");
        let one = verified.findings.len() == 1 && verified.findings[0].lost.is_some();
        one.then_some(verified)
    });
    let verified = damage.expect("a column of values");
    for finding in &verified.findings {
        assert_eq!(finding.path, path);
        let Lost { series, start_ms, end_ms } = finding.lost.as_ref().expect("a chunk");
        let text = finding.to_string();
        assert!(text.contains(series.as_str()) && text.contains(&format!("from {start_ms} to {end_ms} ms")));
    }
    let half_made = path.with_file_name("00000099.block.tmp");
    simulation.env.disk.open(&half_made, Open::Create).expect("a good disk");
    let repaired = offline::repair(&simulation.env, Path::new(ROOT)).expect("a good disk");
    assert_eq!((repaired.rewritten, repaired.set_aside, repaired.head), (1, 0, false));
    assert_eq!(repaired.left.findings, []);
    assert!(!simulation.env.disk.exists(&half_made).expect("a good disk"));
    let aside = Path::new(ROOT).join("damaged").join(path.file_name().expect("has one"));
    assert_eq!(simulation.disk.peek(&aside).expect("set aside"), bytes);
    let lost = |key: &(String, i64)| {
        verified
            .findings
            .iter()
            .filter_map(|finding| finding.lost.as_ref())
            .any(|lost| lost.series == key.0 && lost.start_ms <= key.1 && key.1 <= lost.end_ms)
    };
    let expected: Contents = whole.into_iter().filter(|(key, _)| !lost(key)).collect();
    assert_eq!(contents(&open(&simulation)), expected);
}

/// What a start names and heals, these commands name and heal.
#[test]
fn a_damaged_format_file_and_missing_segments_are_named_and_mended() {
    let (simulation, mut ledger, _) = directory();
    let root = Path::new(ROOT);
    let format = root.join("FORMAT");
    let whole = simulation.disk.peek(&format).expect("there");
    simulation.disk.poke(&format, b"tidewatch-dat").expect("there");
    let repaired = offline::repair(&simulation.env, root).expect("a good disk");
    let named: Vec<&PathBuf> = repaired.findings.iter().map(|finding| &finding.path).collect();
    assert_eq!((named, simulation.disk.peek(&format).ok()), (vec![&format], Some(whole)));

    let mut write_and = |job: Option<Job>| {
        simulation.clock.advance_ms(15_000);
        let db = open(&simulation);
        assert_eq!(db.status().damage, []);
        if job.is_none() {
            let sample = Sample { timestamp: simulation.clock.wall_ms(), value: 1.0 };
            assert!(ledger.append(&db, &[(&labels(0), sample)], &[]) && ledger.commit(&db));
        }
        job.into_iter().for_each(|job| db.run(job).expect("a good disk"));
        drop(db);
        simulation.disk.kill();
        assert_eq!(offline::verify(&simulation.env, root).expect("readable").findings, []);
    };
    // Images that speak of a segment which was not begun when they were written.
    write_and(Some(Job::Image));
    write_and(None);
    write_and(None);
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wal");
    let segments: Vec<PathBuf> = simulation.disk.files().into_iter().filter(is_log).collect();
    let [.., gone, _] = &segments[..] else { panic!("{segments:?}") };
    simulation.env.disk.remove(gone).expect("a good disk");
    let named =
        |findings: &[Finding]| findings.iter().map(|finding| finding.path.clone()).collect::<Vec<_>>();
    let verified = offline::verify(&simulation.env, root).expect("readable");
    assert_eq!(named(&verified.findings), std::slice::from_ref(gone));
    let repaired = offline::repair(&simulation.env, root).expect("a good disk");
    assert_eq!((named(&repaired.findings), named(&repaired.left.findings)), (vec![gone.clone()], Vec::new()));
}

/// A removal that the power ended leaves segments before all images: a start that lacks parts of these reads them.
#[test]
fn damage_to_a_segment_that_images_made_superfluous_is_named() {
    let simulation = Env::simulated(5);
    let mut ledger = Ledger::default();
    let root = Path::new(ROOT);
    let mut write = |job: Option<Job>| {
        let db = open(&simulation);
        let sample = Sample { timestamp: simulation.clock.wall_ms(), value: 1.0 };
        simulation.clock.advance_ms(15_000);
        assert!(ledger.append(&db, &[(&labels(0), sample)], &[]) && ledger.commit(&db));
        job.into_iter().for_each(|job| db.run(job).expect("a good disk"));
        drop(db);
        simulation.disk.kill();
    };
    write(None);
    let older = root.join("wal/00000001.wal");
    let mut bytes = simulation.disk.peek(&older).expect("there");
    write(Some(Job::Image));
    assert!(simulation.disk.peek(&older).is_err(), "images made it superfluous");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    simulation.env.disk.open(&older, Open::Create).expect("a good disk");
    simulation.disk.poke(&older, &bytes).expect("there");
    let verified = offline::verify(&simulation.env, root).expect("readable");
    let named: Vec<&PathBuf> = verified.findings.iter().map(|finding| &finding.path).collect();
    assert_eq!(named, [&older]);
    let image = root.join("head/shard-00.image");
    let bytes = simulation.disk.peek(&image).expect("there");
    simulation.disk.poke(&image, &bytes[..64]).expect("there");
    let named: Vec<String> =
        open(&simulation).status().damage.into_iter().map(|damage| damage.path).collect();
    assert_eq!(named, [image.display().to_string(), older.display().to_string()]);
}

#[test]
fn whatever_byte_is_changed_repair_ends_in_a_whole_directory_and_hides_nothing() {
    let (simulation, ledger, whole) = directory();
    let before = files(&simulation);
    for (path, bytes) in before.iter().filter(|(path, _)| !path.ends_with("FORMAT")) {
        for at in (0..bytes.len()).filter(|at| *at < 40 || at % 11 == 0 || bytes.len() - at < 20) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            simulation.disk.poke(path, &damaged).expect("there");
            let context = format!("{} with byte {at} changed", path.display());
            let repaired = match offline::repair(&simulation.env, Path::new(ROOT)) {
                Ok(repaired) => repaired,
                // A version that is newer is no damage: nobody may touch it.
                Err(error) => {
                    assert!(error.to_string().contains("version"), "{context}: {error}");
                    restore(&simulation, &before);
                    continue;
                }
            };
            assert_eq!(repaired.left.findings, [], "{context}");
            let db = open(&simulation);
            let read = contents(&db);
            ledger.check_sent(&read, &context);
            let lost = whole.keys().any(|key| !read.contains_key(key));
            let named = !repaired.findings.is_empty() || !db.status().damage.is_empty();
            assert!(named || !lost, "{context}: samples are missing and nothing is said");
            assert!(named || ledger.back_again(&read).is_none(), "{context}: deleted and back");
            if path.extension().is_some_and(|extension| extension == "block") {
                let series = |key: &&(String, i64)| !read.contains_key(*key);
                let of: std::collections::BTreeSet<&String> =
                    whole.keys().filter(series).map(|(series, _)| series).collect();
                assert!(of.len() <= 1 && repaired.set_aside == 0, "{context} costs {of:?}");
            }
            drop(db);
            restore(&simulation, &before);
        }
    }
}

#[test]
fn blocks_are_listed_and_analyzed() {
    let (simulation, ..) = directory();
    let found = offline::blocks(&simulation.env, Path::new(ROOT)).expect("readable");
    assert_eq!(found.findings, []);
    assert!(found.blocks.is_sorted_by_key(|block| block.meta().min_ms));
    let analysis = offline::analyze(found.blocks.last().expect("blocks"), &[], 2).expect("whole");
    let list = |entries: &[tidewatch_tsdb::TopEntry]| -> Vec<String> {
        entries.iter().map(|entry| format!("{} {}", entry.count, entry.name)).collect()
    };
    assert_eq!((analysis.series, analysis.matched, analysis.pairs, analysis.entries), (3, 3, 4, 6));
    assert_eq!(list(&analysis.series_by_pair), ["3 __name__=m", "1 i=0"]);
    assert_eq!(list(&analysis.values_by_name), ["3 i", "1 __name__"]);
    assert_eq!(list(&analysis.series_by_metric), ["3 m"]);
    let one = offline::analyze(found.blocks.last().expect("blocks"), &[Matcher::equal("i", "1")], 9);
    assert_eq!(one.expect("whole").matched, 1);
    let elsewhere = offline::verify(&simulation.env, Path::new("/"));
    assert!(elsewhere.is_err(), "a directory of others is refused");
}

#[test]
fn what_is_no_directory_of_ours_is_told_so() {
    let simulation = Env::simulated(6);
    let env = &simulation.env;
    let put = |path: &str| drop(env.disk.open(Path::new(path), Open::Create).expect("a good disk"));
    env.disk.create_dir_all(Path::new("/theirs/wal")).expect("a good disk");
    put("/theirs/wal/00000000");
    for root in ["/none", "/theirs"] {
        let path = Path::new(root);
        let verified = offline::verify(env, path).err().map(|error| error.to_string());
        let listed = offline::blocks(env, path).err().map(|error| error.to_string());
        let repaired = offline::repair(env, path).err().map(|error| error.to_string());
        let checked = offline::check_ours(env, path).err().map(|error| error.to_string());
        for said in [verified, listed, repaired, checked] {
            assert_eq!(said, Some(format!("{root}: this is no data directory of Tidewatch")));
        }
    }
}
