//! Deletion, clean-up, snapshots and retention by size: what they promise, and the n-th change of
//! the disk failing under them, for every n.

mod ledger;
mod support;

use std::path::Path;

use tidewatch_env::sim::{Failure, Simulation};
use tidewatch_env::{Clock, Env, Open, create_dir_durably};
use tidewatch_model::{Batch, Labels, Matcher, RawLabels, Sample};
use tidewatch_storage::{Append, Select, TimeRange};
use tidewatch_tsdb::{BlockStatus, Db, DbOptions, Job, JobError, Replay, Retention, offline};

use ledger::Ledger;
use support::{ALL, Contents, contents};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

fn options(dir: &Path) -> DbOptions {
    DbOptions { image_log_bytes: 1 << 20, retention_ms: None, ..DbOptions::new(dir) }
}

fn open_at(simulation: &Simulation, dir: &Path) -> Db {
    let db = Db::open(simulation.env.clone(), options(dir)).expect("opens");
    db.recover().expect("recovers");
    db
}

fn open(simulation: &Simulation) -> Db {
    open_at(simulation, Path::new("/data"))
}

fn series(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "known"), ("i", &i.to_string())])
}

fn now(simulation: &Simulation) -> i64 {
    simulation.clock.wall_ms()
}

/// Scrapes of some series every twenty minutes, a late sample with each, and jobs in between.
fn ingest(db: &Db, simulation: &Simulation, ledger: &mut Ledger, scrapes: usize) {
    for step in 0..scrapes {
        let timestamp = now(simulation);
        let known: Vec<Labels> = (0..4).map(series).collect();
        let sample = |i: usize, timestamp| Sample { timestamp, value: (i + step) as f64 * 0.5 };
        let samples: Vec<_> = known.iter().enumerate().map(|(i, l)| (l, sample(i, timestamp))).collect();
        ledger.append(db, &samples, &[]);
        ledger.append(db, &[(&known[step % 4], sample(9, timestamp - 7 * MINUTE_MS))], &[]);
        ledger.commit(db);
        simulation.clock.advance_ms(20 * 60_000);
    }
}

fn run_jobs(db: &Db, simulation: &Simulation) {
    while let Some(job) = db.next_job(now(simulation)) {
        let _ = db.run(job);
    }
}

/// A directory with blocks, of which something is deleted, a head, and images.
fn prepared(seed: u64) -> (Simulation, Ledger, Db) {
    let simulation = Env::simulated(seed);
    let mut ledger = Ledger::default();
    let db = open(&simulation);
    ingest(&db, &simulation, &mut ledger, 24);
    run_jobs(&db, &simulation);
    ledger.delete(&db, &series(3), TimeRange { start: i64::MIN, end: now(&simulation) - 4 * HOUR_MS });
    ingest(&db, &simulation, &mut ledger, 2);
    assert!(db.status().blocks.len() >= 2, "{:?}", db.status().blocks);
    assert!(ledger.acknowledged() > 80 && ledger.deleted() > 5);
    (simulation, ledger, db)
}

/// Does `act` with the n-th change failing, for every n and every way to fail, and looks at what a
/// restart finds.
#[track_caller]
fn check_every_failure(what: &str, act: impl Fn(&Db, &Simulation, &mut Ledger)) {
    for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
        for n in 1.. {
            let mut fired = false;
            for fate in [0, 1, n + 7] {
                let (simulation, mut ledger, db) = prepared(n * 31 + failure as u64);
                simulation.disk.fail_at(simulation.disk.changes() + n, failure);
                act(&db, &simulation, &mut ledger);
                fired |= simulation.disk.fired();
                drop(db);
                ledger.restart();
                // The power goes twice: the first start must not have spoilt anything.
                for _ in 0..2 {
                    simulation.disk.crash(fate);
                    simulation.disk.repair();
                    simulation.disk.free_space();
                    let context = format!("{what}, change {n} failing with {failure:?}, fate {fate}");
                    let db = open(&simulation);
                    ledger.check(&contents(&db), &context);
                    // The log's end may be torn; blocks and tombstones are whole or not there.
                    let damage = db.status().damage;
                    assert!(
                        !damage.iter().any(|damage| damage.path.contains("blocks")),
                        "{context}: {damage:?}"
                    );
                }
            }
            if !fired {
                assert!(n > 3, "{what} changes the disk");
                eprintln!("== {what}: each of {} changes failing with {failure:?}, three fates", n - 1);
                break;
            }
        }
    }
}

#[test]
fn a_block_whose_file_is_gone_is_named_once() {
    let (_, _, db) = prepared(1);
    let names: Vec<String> = db.status().blocks.into_iter().map(|block| block.name).collect();
    for name in names {
        let (simulation, _, db) = prepared(1);
        let block = db.status().blocks.into_iter().find(|block| block.name == name).expect("as before");
        drop(db);
        let path = Path::new("/data/blocks").join(&name);
        simulation.env.disk.remove(&path).expect("a good disk");
        let said: Vec<_> =
            open(&simulation).status().damage.into_iter().map(|d| (d.path, d.reason)).collect();
        let (from, to) = (block.min_time, block.max_time);
        let reason = format!(
            "the file is missing, with its samples from {from} to {to} ms: put it back from a copy while no \
             server has the data; if you put other blocks in its place, nothing is amiss"
        );
        assert_eq!(said, [(path.display().to_string(), reason)]);
        assert_eq!(open(&simulation).status().damage, [], "{name} for the second time");
    }
}

/// Somebody brings a block from another directory, where the blocks that it was merged from have the numbers that
/// others have here.
#[test]
fn a_block_of_another_directory_replaces_none_of_this_one() {
    let without_merges = |simulation: &Simulation, db: &Db| {
        while let Some(job) = db.next_job(now(simulation)).filter(|job| job.kind() != "compact") {
            db.run(job).expect("a good disk");
        }
    };
    let there = Env::simulated(1);
    let db = open(&there);
    ingest(&db, &there, &mut Ledger::default(), 36);
    without_merges(&there, &db);
    db.compact_whole().expect("a good disk");
    let merged = db.status().blocks.pop().expect("one");
    let mut brought = contents(&db);
    brought.retain(|key, _| key.1 <= merged.max_time);
    let path = Path::new("/data/blocks").join(&merged.name);
    let bytes = there.disk.peek(&path).expect("there");

    let here = Env::simulated(2);
    here.clock.advance_ms(90 * 24 * 60 * 60_000);
    let db = open(&here);
    let mut ledger = Ledger::default();
    ingest(&db, &here, &mut ledger, 36);
    without_merges(&here, &db);
    let names: Vec<String> = db.status().blocks.into_iter().map(|block| block.name).collect();
    let shared = merged.parents.iter().filter(|parent| names.contains(parent)).count();
    assert!(shared > 1 && !names.contains(&merged.name), "{merged:?} beside {names:?}");
    let held = contents(&db);
    drop(db);
    here.disk.kill();
    let file = here.env.disk.open(&path, Open::Create).expect("a good disk");
    file.append(&bytes).expect("a good disk");
    drop(file);
    let check = |db: &Db, context| {
        let read = contents(db);
        let lost = |whole: &Contents| whole.keys().filter(|key| !read.contains_key(*key)).count();
        assert_eq!((lost(&held), lost(&brought)), (0, 0), "{context}");
        assert_eq!(db.status().damage, [], "{context}");
    };
    for start in ["the first start", "the second"] {
        let db = open(&here);
        check(&db, start);
        drop(db);
        here.disk.kill();
    }
    let db = open(&here);
    run_jobs(&db, &here);
    check(&db, "merged");
}

#[test]
fn a_start_says_which_segments_it_has_read() {
    let simulation = Env::simulated(1);
    let mut ledger = Ledger::default();
    for starts in 0..4 {
        let db = open(&simulation);
        let last = starts as u64;
        assert_eq!(db.replay(), Replay { first: last.min(1), last, current: last });
        ingest(&db, &simulation, &mut ledger, 1);
        drop(db);
        simulation.disk.kill();
    }
}

#[test]
fn a_log_that_ends_before_its_images_is_named() {
    let (simulation, _, db) = prepared(1);
    db.run(Job::Image).expect("a good disk");
    drop(db);
    simulation.disk.kill();
    let logs = simulation.disk.files().into_iter().filter(|path| path.starts_with("/data/wal"));
    let newest = logs.max().expect("a segment");
    let whole = simulation.disk.peek(&newest).expect("there");
    let now_ms = now(&simulation);
    let files: Vec<_> = simulation.disk.files().into_iter().collect();
    let bytes: Vec<Vec<u8>> = files.iter().map(|path| simulation.disk.peek(path).expect("there")).collect();
    let mut silent = Vec::new();
    for len in 0..=whole.len() {
        let simulation = Env::simulated(1);
        simulation.clock.jump_to_ms(now_ms);
        for (path, bytes) in files.iter().zip(&bytes) {
            let bytes = if *path == newest { &bytes[..len] } else { &bytes[..] };
            create_dir_durably(&*simulation.env.disk, path.parent().expect("has one")).expect("a good disk");
            let file = simulation.env.disk.open(path, Open::Create).expect("a good disk");
            file.append(bytes).expect("a good disk");
        }
        let verified = offline::verify(&simulation.env, Path::new("/data")).expect("readable");
        let is_named = verified.findings.iter().any(|finding| finding.path == newest);
        let status = open(&simulation).status();
        assert_eq!(is_named, status.damage.iter().any(|damage| damage.path == newest.display().to_string()));
        if !is_named {
            silent.push(len);
        }
    }
    assert_eq!(silent, [whole.len()]);
}

/// A process that ends between removing blocks and syncing their directory leaves names that are gone
/// for its successor and may come back with the power: what was deleted since must not come with them.
#[test]
fn removed_blocks_do_not_bring_back_what_was_deleted_since() {
    for n in 1.. {
        let simulation = Env::simulated(n);
        let mut ledger = Ledger::default();
        let db = open(&simulation);
        ingest(&db, &simulation, &mut ledger, 24);
        run_jobs(&db, &simulation);
        // No tombstones yet: the leftovers of those would be cleaned away by the next start.
        db.set_retention(Retention { time_ms: Some(HOUR_MS), ..Retention::default() });
        let job = db.next_job(now(&simulation)).expect("blocks are past retention");
        assert_eq!(job.kind(), "retain");
        simulation.disk.fail_at(simulation.disk.changes() + n, Failure::Io);
        let _ = db.run(job);
        let fired = simulation.disk.fired();
        drop(db);
        ledger.restart();
        simulation.disk.kill();
        let db = open(&simulation);
        for i in 0..4 {
            assert!(ledger.delete(&db, &series(i), ALL));
        }
        drop(db);
        simulation.disk.crash(0);
        let read = contents(&open(&simulation));
        assert_eq!(ledger.back_again(&read), None, "change {n} failed");
        if !fired {
            assert!(n > 2, "blocks are removed");
            break;
        }
    }
}

#[test]
fn a_deletion_holds_or_fails_whatever_the_disk_does() {
    check_every_failure("a deletion", |db, simulation, ledger| {
        let part = TimeRange { start: now(simulation) - 6 * HOUR_MS, end: now(simulation) - 25 * MINUTE_MS };
        ledger.delete(db, &series(0), part);
        ledger.delete(db, &series(1), ALL);
    });
}

#[test]
fn a_clean_up_loses_nothing_and_brings_nothing_back() {
    check_every_failure("a clean-up", |db, _, ledger| {
        ledger.delete(db, &series(1), ALL);
        let _ = db.clean_tombstones();
        ledger.delete(db, &series(2), ALL);
    });
}

#[test]
fn a_compaction_of_all_loses_nothing_and_brings_nothing_back() {
    check_every_failure("a compaction of all", |db, simulation, ledger| {
        ledger.delete(db, &series(1), ALL);
        let _ = db.compact_whole();
        ingest(db, simulation, ledger, 2);
        ledger.commit(db);
    });
}

/// All but the newest minutes lie in one block, and what comes late goes on being taken. The block that is cut
/// next begins where this one ended; only where it has late samples from before, the two merge.
#[test]
fn a_compaction_of_all_leaves_one_block_and_the_store_goes_on() {
    for late in [false, true] {
        let (simulation, mut ledger, db) = prepared(5);
        let before = contents(&db);
        db.compact_whole().expect("a good disk");
        assert_eq!(contents(&db), before);
        let blocks = db.status().blocks;
        let [whole] = &blocks[..] else { panic!("{blocks:?}") };
        let left = before.len() - whole.samples as usize;
        assert!(0 < left && left <= 8, "{left}: {blocks:?}");
        db.compact_whole().expect("a good disk");
        assert_eq!(db.status().blocks[0].name, whole.name, "there was nothing to do");
        if late {
            let time = now(&simulation) - 30 * MINUTE_MS - 7;
            assert_eq!(send(&db, &series(0), &[(time, 5.0)]), (1, 0, 0));
        }
        let all = contents(&db);
        assert_eq!(all.len(), before.len() + usize::from(late));
        drop(db);
        simulation.disk.crash(0);
        let db = open(&simulation);
        assert_eq!(contents(&db), all);
        ingest(&db, &simulation, &mut ledger, 24);
        let all = contents(&db);
        run_jobs(&db, &simulation);
        assert_eq!(contents(&db), all);
        let blocks = db.status().blocks;
        let merged = !blocks.iter().any(|block| block.name == whole.name);
        assert!(blocks.len() > 1 && merged == late, "{blocks:?}");
    }
}

/// What a snapshot has of the head begins where that compaction ended, and so does what the copy cuts.
#[test]
fn a_snapshot_behind_a_compaction_of_all_leaves_its_block_alone() {
    let (simulation, mut ledger, db) = prepared(5);
    db.compact_whole().expect("a good disk");
    let whole = db.status().blocks[0].name.clone();
    ingest(&db, &simulation, &mut ledger, 2);
    let name = db.snapshot(false).expect("a good disk");
    let copy = open_at(&simulation, &Path::new("/data/snapshots").join(name));
    assert_eq!(contents(&copy), contents(&db));
    ingest(&copy, &simulation, &mut Ledger::default(), 12);
    let all = contents(&copy);
    run_jobs(&copy, &simulation);
    assert_eq!(contents(&copy), all);
    let blocks = copy.status().blocks;
    assert!(blocks.len() > 1 && blocks.iter().any(|block| block.name == whole), "{blocks:?}");
}

/// A job that fails leaves files that no list names: a deletion that follows must hold for them, too.
#[test]
fn what_is_deleted_after_a_job_failed_stays_deleted() {
    check_every_failure("jobs before a deletion", |db, simulation, ledger| {
        ingest(db, simulation, ledger, 12);
        run_jobs(db, simulation);
        simulation.disk.repair();
        simulation.disk.free_space();
        ledger.commit(db);
        ledger.delete(db, &series(0), ALL);
        simulation.clock.advance_ms(60_000);
        run_jobs(db, simulation);
        ledger.delete(db, &series(1), ALL);
    });
}

#[test]
fn a_snapshot_holds_everything_or_is_not_there() {
    for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
        for n in 1.. {
            let mut fired = false;
            for fate in [0, 1, n + 7] {
                let (simulation, mut ledger, db) = prepared(n * 31 + failure as u64);
                let before = contents(&db);
                simulation.disk.fail_at(simulation.disk.changes() + n, failure);
                let name = db.snapshot(false);
                fired |= simulation.disk.fired();
                drop(db);
                ledger.restart();
                simulation.disk.crash(fate);
                simulation.disk.repair();
                simulation.disk.free_space();
                let context = format!("change {n} failing with {failure:?}, fate {fate}");
                ledger.check(&contents(&open(&simulation)), &context);
                let at = Path::new("/data/snapshots");
                let names = simulation.env.disk.list(at).unwrap_or_default();
                let whole: Vec<_> = names.iter().filter(|name| name.extension().is_none()).collect();
                if let Ok(name) = &name {
                    assert!(whole.iter().any(|whole| **whole == Path::new(name)), "{context}: {names:?}");
                }
                for name in whole {
                    // Also one whose success could not be told any more.
                    let copy = open_at(&simulation, &at.join(name));
                    assert_eq!(contents(&copy), before, "{context}");
                }
            }
            if !fired {
                assert!(n > 10, "a snapshot changes the disk");
                break;
            }
        }
    }
}

#[test]
fn a_snapshot_stays_as_it_is_and_goes_on_as_a_data_directory() {
    let (simulation, mut ledger, db) = prepared(1);
    let before = contents(&db);
    let name = db.snapshot(false).expect("a good disk");
    let blocks = db.snapshot(true).expect("a good disk");
    assert_ne!(name, blocks);
    ledger.delete(&db, &series(0), ALL);
    ingest(&db, &simulation, &mut ledger, 12);
    run_jobs(&db, &simulation);
    db.clean_tombstones().expect("a good disk");
    let at = Path::new("/data/snapshots");
    let without_head = contents(&open_at(&simulation, &at.join(&blocks)));
    assert!(!without_head.is_empty() && without_head.len() < before.len());
    let copy = open_at(&simulation, &at.join(&name));
    assert_eq!(contents(&copy), before);
    let mut ledger = Ledger::default();
    ingest(&copy, &simulation, &mut ledger, 12);
    run_jobs(&copy, &simulation);
    ledger.check(
        &contents(&copy).into_iter().filter(|(key, _)| !before.contains_key(key)).collect(),
        "goes on",
    );
    assert!(before.iter().all(|(key, bits)| contents(&copy).get(key) == Some(bits)));
    // What a call that was cut short has left is gone with the next.
    simulation.env.disk.create_dir_all(&at.join("x.tmp/blocks")).expect("a good disk");
    db.snapshot(true).expect("a good disk");
    assert!(!simulation.env.disk.exists(&at.join("x.tmp")).expect("a good disk"));
}

fn send(db: &Db, labels: &Labels, times: &[(i64, f64)]) -> (u64, u64, u64) {
    let samples: Vec<Sample> =
        times.iter().map(|(timestamp, value)| Sample { timestamp: *timestamp, value: *value }).collect();
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &samples);
    let outcome = db.append(&batch).expect("takes writes");
    db.commit().expect("a good disk");
    (outcome.accepted - outcome.duplicates, outcome.duplicates, outcome.refused_count())
}

/// Times of a series.
fn times(db: &Db, labels: &Labels) -> Vec<i64> {
    let name = labels.to_string();
    contents(db).keys().filter(|(series, _)| *series == name).map(|(_, time)| *time).collect()
}

#[test]
fn what_is_written_after_a_deletion_stays_also_at_the_same_times() {
    let simulation = Env::simulated(3);
    let start = now(&simulation);
    let x = series(7);
    let mut db = open(&simulation);
    let at: Vec<i64> = (0..5).map(|i| start + i * 15_000).collect();
    simulation.clock.advance_ms(60_000);
    let all: Vec<(i64, f64)> = at.iter().map(|time| (*time, 1.0)).collect();
    assert_eq!(send(&db, &x, &all), (5, 0, 0));
    db.delete(&[Matcher::equal("i", "7")], TimeRange { start: at[1], end: at[3] }).expect("a good disk");
    assert_eq!(times(&db, &x), [at[0], at[4]]);
    // One again as it was, one with another value; what was not deleted is known.
    assert_eq!(send(&db, &x, &[(at[1], 1.0), (at[2], 7.0), (at[4], 1.0)]), (2, 1, 0));
    assert_eq!(times(&db, &x), [at[0], at[1], at[2], at[4]]);
    for round in 0..3 {
        simulation.disk.crash(0);
        db = open(&simulation);
        assert_eq!(times(&db, &x), [at[0], at[1], at[2], at[4]], "round {round}");
        if round == 1 {
            db.run(Job::Image).expect("a good disk");
        }
    }
    // Into blocks, and there once more.
    simulation.clock.advance_ms(4 * HOUR_MS as u64);
    assert_eq!(send(&db, &x, &[(now(&simulation), 1.0)]), (1, 0, 0));
    run_jobs(&db, &simulation);
    assert_eq!(db.status().blocks.len(), 1);
    db.delete(&[], TimeRange { start: at[2], end: at[4] }).expect("a good disk");
    assert_eq!(times(&db, &x)[..2], [at[0], at[1]]);
    assert_eq!(times(&db, &x).len(), 3);
    simulation.disk.crash(0);
    let db = open(&simulation);
    assert_eq!(times(&db, &x).len(), 3);
    assert_eq!(db.status().blocks[0].tombstones, 1);
    db.clean_tombstones().expect("a good disk");
    assert_eq!(times(&db, &x).len(), 3);
    let status = db.status();
    assert_eq!((status.blocks[0].tombstones, status.blocks[0].samples), (0, 2));
    assert!(!simulation.disk.files().iter().any(|file| file.to_string_lossy().contains("tombstones")));
}

#[test]
fn a_series_of_which_all_is_deleted_is_not_found() {
    let (simulation, mut ledger, db) = prepared(4);
    let found = |db: &Db| {
        let selection = db.select(&[Matcher::equal("__name__", "known")], ALL).expect("complete");
        (0..selection.len())
            .map(|at| selection.labels(at).get("i").expect("has it").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(found(&db), ["0", "1", "2", "3"]);
    ledger.delete(&db, &series(2), ALL);
    assert_eq!(found(&db), ["0", "1", "3"]);
    drop(db);
    simulation.disk.crash(0);
    assert_eq!(found(&open(&simulation)), ["0", "1", "3"]);
}

/// Batches that came during a recovery stand in the log twice: once as they came, once when they were
/// appended. A deletion holds for both.
#[test]
fn what_came_during_a_recovery_stays_deleted() {
    let simulation = Env::simulated(5);
    drop(open(&simulation));
    simulation.disk.kill();
    let db = Db::open(simulation.env.clone(), options(Path::new("/data"))).expect("opens");
    let error = db.delete(&[], ALL).expect_err("not yet");
    assert!(matches!(error, JobError::Read(_)), "{error}");
    assert_eq!(send(&db, &series(0), &[(now(&simulation), 1.0)]), (1, 0, 0));
    db.recover().expect("recovers");
    db.delete(&[Matcher::equal("i", "0")], ALL).expect("a good disk");
    assert_eq!(contents(&db), Contents::new());
    drop(db);
    for _ in 0..2 {
        simulation.disk.crash(0);
        assert_eq!(contents(&open(&simulation)), Contents::new());
    }
}

#[test]
fn the_oldest_blocks_go_when_the_store_takes_more_than_it_may() {
    let (simulation, _, db) = prepared(6);
    let before = db.status().blocks.len();
    let newest = contents(&db).keys().map(|(_, time)| *time).max();
    let retain = |size_bytes, disk_percent| {
        db.set_retention(Retention { time_ms: None, size_bytes, disk_percent });
        run_jobs(&db, &simulation);
        let mut blocks: Vec<i64> = db.status().blocks.iter().map(|block| block.max_time).collect();
        blocks.sort_unstable();
        blocks
    };
    let all = retain(None, None);
    assert!(all.len() >= 2 && all.len() <= before);
    let status = db.status();
    let bytes: u64 = status.blocks.iter().map(|block| block.bytes).sum();
    assert_eq!(retain(Some(bytes * 100), None), all);
    let images: u64 = simulation
        .disk
        .files()
        .iter()
        .filter(|file| file.starts_with("/data/head"))
        .map(|file| simulation.disk.peek(file).expect("there").len() as u64)
        .sum();
    let kept = retain(Some(status.wal_bytes + images + bytes - 1), None);
    assert_eq!(kept, all[1..], "the oldest block goes");
    simulation.disk.set_capacity(1 << 40);
    assert_eq!(retain(None, Some(50.0)), kept);
    assert_eq!(retain(None, Some(1e-9)), [0i64; 0], "blocks only");
    assert_eq!(contents(&db).keys().map(|(_, time)| *time).max(), newest, "the head stays");
}

// Retention by time, size and share of the disk removed blocks and no line of the log said which.
#[test]
fn what_is_past_retention_says_which_blocks_and_by_which_rule() {
    let (simulation, _, db) = prepared(6);
    run_jobs(&db, &simulation);
    let blocks = db.status().blocks;
    simulation.disk.set_capacity(1 << 40);
    let small = Some(1);
    let check = |retention: Retention, expected: &[&str]| {
        db.set_retention(retention);
        let said: Vec<String> = match db.next_job(now(&simulation)) {
            Some(Job::Retain(expired)) => expired.iter().map(ToString::to_string).collect(),
            job => panic!("{job:?}"),
        };
        let of = |(block, rule): (&BlockStatus, &&str)| {
            let BlockStatus { name, min_time, max_time, bytes, .. } = block;
            format!("{name} from {min_time} to {max_time} ms, {bytes} bytes, by {rule}")
        };
        let expected: Vec<String> = blocks.iter().zip(expected).map(of).collect();
        assert_eq!(said, expected);
    };
    assert_eq!(blocks.len(), 2);
    let all = Retention::default();
    check(Retention { size_bytes: small, ..all }, &["size", "size"]);
    check(Retention { size_bytes: small, disk_percent: Some(1e-9), ..all }, &["percentage", "percentage"]);
    // Age is measured from the newest sample in blocks, so the newest block stays.
    check(Retention { time_ms: Some(1), ..all }, &["time"]);
    check(Retention { time_ms: Some(1), size_bytes: small, ..all }, &["time", "size"]);
}

/// What a merge makes stands beside what it is made of until it is done: it must not take the room of the log.
#[test]
fn a_merge_that_the_disk_has_no_room_for_waits() {
    let simulation = Env::simulated(7);
    let mut ledger = Ledger::default();
    let db = open(&simulation);
    ingest(&db, &simulation, &mut ledger, 40);
    for _ in ["cut", "image"] {
        db.run(db.next_job(now(&simulation)).expect("is due")).expect("a good disk");
    }
    simulation.disk.set_capacity(1 << 30);
    let planned = db.next_job(now(&simulation)).expect("a merge is due");
    assert_eq!(planned.kind(), "compact");
    let blocks: u64 = db.status().blocks.iter().map(|block| block.bytes).sum();
    let disk = db.status().disk.expect("has a disk");
    let used = disk.total_bytes - disk.free_bytes;
    simulation.disk.set_capacity((used + blocks / 8) * 20 / 19);
    assert_eq!(db.next_job(now(&simulation)), None);
    let changes = simulation.disk.changes();
    let error = db.run(planned.clone()).expect_err("there is no room").to_string();
    assert!(error.contains("/data/blocks: merging needs") && error.contains("make room"), "{error}");
    assert_eq!((simulation.disk.changes(), db.status().read_only), (changes, None));
    simulation.disk.set_capacity(1 << 30);
    simulation.clock.advance_ms(60_000);
    assert_eq!(db.next_job(now(&simulation)), Some(planned));
    run_jobs(&db, &simulation);
    ledger.check(&contents(&db), "with room again");
}

/// A merge needs room before it gives some back; it waits. What frees room goes on.
#[test]
fn a_disk_that_is_nearly_full_holds_merges_back_and_nothing_else() {
    let simulation = Env::simulated(7);
    let mut ledger = Ledger::default();
    let db = open(&simulation);
    ingest(&db, &simulation, &mut ledger, 40);
    // Images are written anew after a cut: they need not have what the blocks have.
    for kind in ["cut", "image"] {
        let job = db.next_job(now(&simulation)).expect("a cut is due, then images");
        assert_eq!(job.kind(), kind);
        db.run(job).expect("a good disk");
    }
    assert_eq!(db.next_job(now(&simulation)).map(|job| job.kind()), Some("compact"));
    // Something large of others, so that the reserve has some room.
    let others = simulation.env.disk.open(Path::new("/others"), Open::Create).expect("a good disk");
    others.append(&vec![0; 1 << 20]).expect("a good disk");
    let used: u64 = simulation
        .disk
        .files()
        .iter()
        .map(|file| simulation.disk.peek(file).expect("there").len() as u64)
        .sum();
    simulation.disk.set_capacity(used + used / 50);
    assert_eq!(db.next_job(now(&simulation)), None);
    let disk = db.status().disk.expect("has a disk");
    assert!(disk.free_bytes < disk.reserve_bytes, "{disk:?}");
    // Deleting is a way out.
    assert!(ledger.delete(&db, &series(0), ALL));
    simulation.disk.set_capacity(used * 100);
    assert!(db.commit().is_ok());
    assert_eq!(db.status().read_only, None, "a commit looks, too");
    run_jobs(&db, &simulation);
    ledger.check(&contents(&db), "with room again");
}
