//! Damage that is met while the database runs: the query that meets it says so, it is named and counted,
//! what is whole is read again soon after, and what merges later leaves out no more than was damaged.

mod files;
mod support;

use std::path::{Path, PathBuf};

use tidewatch_env::sim::{Failure, Simulation};
use tidewatch_env::{Clock, Env};
use tidewatch_model::{Batch, Labels, Matcher, RawLabels, Sample};
use tidewatch_storage::{Append, Scratch, Select};
use tidewatch_tsdb::block::{StoredRun, StoredValues};
use tidewatch_tsdb::{Backfill, Db, DbOptions, OpenError, offline};

use files::{files, restore};
use support::{ALL, Contents, contents, contents_of};

const STEP_MS: i64 = 60_000;
const SERIES: usize = 30;

fn series(i: usize) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("i", &format!("{i:02}"))])
}

fn open(simulation: &Simulation) -> Db {
    try_open(simulation).expect("opens and recovers")
}

fn try_open(simulation: &Simulation) -> Result<Db, OpenError> {
    let options = DbOptions { retention_ms: None, image_log_bytes: 2000, ..DbOptions::new("/data") };
    let db = Db::open(simulation.env.clone(), options)?;
    db.recover()?;
    Ok(db)
}

fn ingest(db: &Db, simulation: &Simulation, steps: usize) {
    ingest_of(db, simulation, steps, SERIES);
}

fn ingest_of(db: &Db, simulation: &Simulation, steps: usize, count: usize) {
    for step in 0..steps {
        let names: Vec<Labels> = (0..count).map(series).collect();
        let timestamp = simulation.clock.wall_ms();
        let mut batch = Batch::new();
        for (i, name) in names.iter().enumerate() {
            let value = ((step * 31 + i * 7) % 53) as f64 * 0.37;
            batch.push(RawLabels::Canonical(name.as_bytes()), &[Sample { timestamp, value }]);
        }
        assert_eq!(db.append(&batch).expect("takes writes").refused, []);
        simulation.clock.advance_ms(STEP_MS as u64);
    }
    db.commit().expect("a good disk");
}

fn run_jobs(db: &Db, simulation: &Simulation) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    while let Some(job) = db.next_job(simulation.clock.wall_ms()) {
        kinds.push(job.kind());
        // One that meets damage fails, and is done when that is mended.
        let _ = db.run(job);
    }
    kinds
}

/// The same with one byte changed at each of these places.
fn changed(places: &[usize]) -> (Simulation, PathBuf, Contents) {
    changed_by(|bytes| places.iter().for_each(|place| bytes[*place] ^= 1))
}

/// Nothing tells any more what is in a block: neither its index nor a copy of that.
fn wipe(bytes: &mut [u8]) {
    let copies: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"TWBKCOPY")).collect();
    copies.into_iter().chain([0, bytes.len() - 1]).for_each(|at| bytes[at] ^= 1);
}

/// A directory with two blocks and a head, of which the first block is changed; and what it held before.
fn changed_by(change: impl Fn(&mut [u8])) -> (Simulation, PathBuf, Contents) {
    let simulation = Env::simulated(4);
    let start_ms = simulation.clock.wall_ms() / 7_200_000 * 7_200_000;
    simulation.clock.jump_to_ms(start_ms);
    let db = open(&simulation);
    ingest(&db, &simulation, 5 * 60 + 30);
    assert_eq!(run_jobs(&db, &simulation), ["cut", "image"]);
    let whole = contents(&db);
    assert_eq!(whole.len(), SERIES * (5 * 60 + 30));
    drop(db);
    let path = Path::new("/data/blocks/00000001.block").to_owned();
    let mut bytes = simulation.disk.peek(&path).expect("the first block");
    change(&mut bytes);
    simulation.disk.poke(&path, &bytes).expect("there");
    simulation.disk.kill();
    (simulation, path, whole)
}

/// The same where the places are of the data, and a database that has it open.
fn damaged(places: &[usize]) -> (Simulation, Db, PathBuf, Contents) {
    let (simulation, path, whole) = changed(places);
    let db = open(&simulation);
    assert_eq!(db.status().damage, [], "nobody has looked at the samples yet");
    (simulation, db, path, whole)
}

/// What a query of all series says.
fn refusal(db: &Db) -> Option<String> {
    let selection = db.select(&[], ALL).expect("the index is whole");
    let visit = &mut |_: usize, _: tidewatch_storage::Run<'_>| std::ops::ControlFlow::Continue(());
    let read = selection.scan(0..selection.len(), ALL, &mut Scratch::default(), visit);
    read.err().map(|error| error.to_string())
}

/// Of which series something is missing, and how much.
fn lost(whole: &Contents, read: &Contents) -> (Vec<String>, usize) {
    assert!(read.iter().all(|(key, bits)| whole.get(key) == Some(bits)), "nothing that was not sent");
    let missing: Vec<&(String, i64)> = whole.keys().filter(|key| !read.contains_key(key)).collect();
    let mut series: Vec<String> = missing.iter().map(|(name, _)| name.clone()).collect();
    series.dedup();
    (series, missing.len())
}

#[test]
fn damage_costs_one_query_an_error_and_then_what_was_damaged() {
    let (simulation, db, path, whole) = damaged(&[2000]);
    let said = refusal(&db).expect("a column is damaged");
    let status = db.status();
    let [damage] = &status.damage[..] else { panic!("one piece: {:?}", status.damage) };
    assert_eq!((damage.path.as_str(), status.damage_found), ("/data/blocks/00000001.block", 1));
    assert!(said.contains(&damage.reason), "{said} and {}", damage.reason);
    assert!(
        damage.reason.contains("a column's checksum does not hold; {__name__=\"m\", i="),
        "{}",
        damage.reason
    );
    assert_eq!(run_jobs(&db, &simulation), ["mend"]);
    // A chunk of two hours of one series.
    let (of, count) = lost(&whole, &contents(&db));
    assert_eq!((of.len(), count), (1, 120));
    assert!(damage.reason.contains(&of[0]), "{of:?} is named");
    let status = db.status();
    assert_eq!((status.damage_found, status.counters.chunks_set_aside), (1, 1));
    let aside = Path::new("/data/damaged/00000001.block");
    let bytes = |path: &Path| simulation.disk.peek(path).expect("there");
    assert_eq!(bytes(aside), bytes(&path), "it is kept as it was found");
    // Whoever reads that very series goes on with what is left of it.
    let number = &of[0][of[0].len() - 4..of[0].len() - 2];
    assert_eq!(contents_of(&db, &[Matcher::equal("i", number)], ALL).len(), 5 * 60 + 30 - 120);
}

#[test]
fn what_was_set_aside_stays_so_and_merges_leave_it_out() {
    let (simulation, db, _, whole) = damaged(&[1500, 2500]);
    assert!(refusal(&db).is_some());
    let job = db.next_job(simulation.clock.wall_ms()).expect("due");
    assert_eq!(job.kind(), "mend");
    db.run(job).expect("a good disk");
    let left = contents(&db);
    assert_eq!(lost(&whole, &left).1, 2 * 120);
    drop(db);
    simulation.disk.crash(0);
    let db = open(&simulation);
    assert_eq!((contents(&db), db.status().damage), (left.clone(), Vec::new()));
    drop(db);
    assert_eq!(offline_findings(&simulation), [""; 0]);
    let db = open(&simulation);
    ingest(&db, &simulation, 3 * 60);
    let kinds = run_jobs(&db, &simulation);
    assert!(kinds.contains(&"compact") || kinds.contains(&"clean"), "{kinds:?}");
    assert!(!simulation.disk.files().contains(&"/data/blocks/00000001.block".into()));
    let read = contents(&db);
    assert!(left.iter().all(|(key, bits)| read.get(key) == Some(bits)));
    assert_eq!(db.status().damage, []);
}

/// What the start of a database says is damaged.
fn said(db: &Db) -> Vec<String> {
    db.status().damage.into_iter().map(|damage| format!("{}: {}", damage.path, damage.reason)).collect()
}

/// The copy under `damaged/` is none of what was mended.
#[test]
fn a_mended_block_that_somebody_removes_is_named() {
    for with_tombstones in [false, true] {
        let (simulation, db, path, _) = damaged(&[2000]);
        assert!(refusal(&db).is_some());
        assert_eq!(run_jobs(&db, &simulation), ["mend"]);
        let block = db.status().blocks.remove(0);
        assert!(path.ends_with(&block.name));
        drop(db);
        simulation.disk.kill();
        simulation.env.disk.remove(&path).expect("a good disk");
        if with_tombstones {
            simulation.env.disk.remove(&path.with_extension("tombstones")).expect("a good disk");
        }
        let (path, from, to) = (path.display(), block.min_time, block.max_time);
        let expected = format!(
            "{path}: the file is missing, with its samples from {from} to {to} ms: put it back from a copy while no \
             server has the data; if you put other blocks in its place, nothing is amiss"
        );
        assert_eq!(offline_findings(&simulation), [expected.replace(": the", ": damaged at byte 0: the")]);
        assert_eq!(said(&open(&simulation)), [expected]);
        assert_eq!(said(&open(&simulation)), [""; 0], "for the second time");
    }
}

/// Nor is one missing that a start, or a repair, has set aside, wherever that ended.
#[test]
fn a_block_that_was_set_aside_is_not_missing() {
    for repairs in [false, true] {
        for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
            for n in 1.. {
                let mut fired = false;
                for fate in [0, 1, n + 7] {
                    let (simulation, path, _) = changed_by(wipe);
                    simulation.disk.fail_at(simulation.disk.changes() + n, failure);
                    match repairs {
                        true => drop(offline::repair(&simulation.env, Path::new("/data"))),
                        false => drop(try_open(&simulation)),
                    }
                    fired |= simulation.disk.fired();
                    simulation.disk.crash(fate);
                    simulation.disk.repair();
                    simulation.disk.free_space();
                    let context = format!("change {n} failing with {failure:?}, fate {fate}");
                    for _ in 0..2 {
                        let said = said(&open(&simulation));
                        assert!(!said.iter().any(|said| said.contains("missing")), "{context}: {said:?}");
                    }
                    let files = simulation.disk.files();
                    assert!(!files.contains(&path), "{context}");
                    assert!(files.iter().any(|file| file.ends_with("damaged/00000001.block")), "{context}");
                }
                if !fired {
                    assert!(n > 3, "setting aside changes the disk");
                    break;
                }
            }
        }
    }
}

fn offline_findings(simulation: &Simulation) -> Vec<String> {
    let verified = offline::verify(&simulation.env, Path::new("/data")).expect("a good disk");
    verified.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_merge_that_meets_damage_first_is_done_when_that_is_mended() {
    let (simulation, db, _, whole) = damaged(&[2000]);
    ingest(&db, &simulation, 3 * 60);
    let kinds = run_jobs(&db, &simulation);
    assert_eq!(kinds[..3], ["cut", "image", "compact"], "{kinds:?}");
    assert!(kinds.contains(&"mend"), "{kinds:?}");
    simulation.clock.advance_ms(31_000);
    assert_eq!(run_jobs(&db, &simulation), ["compact"]);
    let status = db.status();
    assert_eq!((status.damage_found, status.counters.compactions), (1, 1));
    let read = contents(&db);
    let missing = whole.keys().filter(|key| !read.contains_key(key)).count();
    assert_eq!(missing, 120);
}

/// Runs the jobs of a database while each change of the disk fails in each way, and looks at what is there after
/// that and a crash; gives how many changes there were at least.
fn with_each_failing_change(
    stage: impl Fn() -> (Simulation, Db, Contents),
    check: impl Fn(&Simulation, &Contents, &str),
) -> u64 {
    let mut least = u64::MAX;
    for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
        for n in 1.. {
            let mut fired = false;
            for fate in [0, 1, n + 7] {
                let (simulation, db, whole) = stage();
                simulation.disk.fail_at(simulation.disk.changes() + n, failure);
                run_jobs(&db, &simulation);
                fired |= simulation.disk.fired();
                drop(db);
                simulation.disk.crash(fate);
                simulation.disk.repair();
                simulation.disk.free_space();
                check(&simulation, &whole, &format!("change {n} failing with {failure:?}, fate {fate}"));
            }
            if !fired {
                least = least.min(n - 1);
                break;
            }
        }
    }
    least
}

#[test]
fn no_failing_change_of_the_disk_loses_more_than_was_damaged() {
    let stage = || {
        let (simulation, db, _, whole) = damaged(&[2000]);
        assert!(refusal(&db).is_some());
        (simulation, db, whole)
    };
    let changes = with_each_failing_change(stage, |simulation, whole, context| {
        let db = open(simulation);
        // Hidden, or found again.
        if refusal(&db).is_some() {
            assert_eq!(run_jobs(&db, simulation), ["mend"], "{context}");
        }
        assert_eq!(lost(whole, &contents(&db)).1, 120, "{context}");
    });
    assert!(changes > 1, "mending changes the disk");
}

/// A changed bit in what says where things lie is named, costs nothing, and goes away with the next job.
#[test]
fn a_damaged_index_costs_nothing_and_heals() {
    let len = changed(&[]).0.disk.peek(Path::new("/data/blocks/00000001.block")).expect("there").len();
    // The header, something of the index, the table of sections, the footer.
    for place in [0, 5, len - 700, len - 100, len - 1] {
        let (simulation, path, whole) = changed(&[place]);
        let findings = offline_findings(&simulation);
        assert!(findings.len() == 1 && findings[0].contains("/data/blocks/00000001.block"), "{findings:?}");
        let db = open(&simulation);
        assert_eq!(contents(&db), whole, "byte {place}");
        let damage = db.status().damage;
        assert!(damage.len() == 1 && damage[0].path == path.display().to_string(), "{damage:?}");
        assert_eq!(run_jobs(&db, &simulation), ["clean"], "byte {place}");
        assert_eq!(contents(&db), whole, "byte {place}");
        drop(db);
        assert_eq!(offline_findings(&simulation), [""; 0], "byte {place}");
        let db = open(&simulation);
        assert_eq!((contents(&db), db.status().damage), (whole, vec![]), "byte {place}");
    }
}

#[test]
fn no_failing_change_of_the_disk_loses_anything_while_an_index_heals() {
    let stage = || {
        let (simulation, _, whole) = changed(&[0]);
        let db = open(&simulation);
        (simulation, db, whole)
    };
    let changes = with_each_failing_change(stage, |simulation, whole, context| {
        assert_eq!(contents(&open(simulation)), *whole, "{context}");
    });
    assert!(changes > 3, "healing changes the disk");
}

/// A directory with blocks of 300 series, whose index has two copies; and what it held before.
fn many_series() -> (Simulation, Contents) {
    let simulation = Env::simulated(4);
    simulation.clock.jump_to_ms(simulation.clock.wall_ms() / 7_200_000 * 7_200_000);
    let db = open(&simulation);
    ingest_of(&db, &simulation, 5 * 60, 300);
    assert_eq!(run_jobs(&db, &simulation), ["cut", "image"]);
    let whole = contents(&db);
    drop(db);
    simulation.disk.kill();
    (simulation, whole)
}

/// The place of the second copy of a block's index.
fn second_copy(bytes: &[u8]) -> usize {
    (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"TWBKCOPY")).nth(1).expect("300 series have two")
}

#[test]
fn a_block_that_is_cut_short_keeps_the_series_before_its_end() {
    let (simulation, whole) = many_series();
    let path = Path::new("/data/blocks/00000001.block");
    let mut bytes = simulation.disk.peek(path).expect("there");
    bytes.truncate(second_copy(&bytes));
    simulation.disk.poke(path, &bytes).expect("there");
    let check = |db: &Db| {
        let (of, count) = lost(&whole, &contents(db));
        assert_eq!((of.len(), count), (300 - 256, (300 - 256) * 120));
    };
    let db = open(&simulation);
    check(&db);
    let said = said(&db);
    assert!(said.len() == 2 && said[1].contains("the series from the block's 256th on are lost"), "{said:?}");
    assert_eq!(run_jobs(&db, &simulation), ["clean"]);
    check(&db);
    let aside = Path::new("/data/damaged/00000001.block");
    assert_eq!(simulation.disk.peek(aside).expect("kept as it was found"), bytes);
    drop(db);
    assert_eq!(offline_findings(&simulation), [""; 0]);
    check(&open(&simulation));
}

#[test]
fn an_import_keeps_a_damaged_block_that_it_merges() {
    let (simulation, _) = many_series();
    let path = Path::new("/data/blocks/00000001.block");
    let mut bytes = simulation.disk.peek(path).expect("there");
    bytes.truncate(second_copy(&bytes));
    simulation.disk.poke(path, &bytes).expect("there");
    let oldest = *contents(&open(&simulation)).keys().map(|(_, at)| at).min().expect("samples");
    simulation.disk.kill();
    let mut backfill = Backfill::open(&simulation.env, Path::new("/data")).expect("a good disk");
    let values = StoredValues::Floats(&[1.5]);
    let run = StoredRun { timestamps: &[oldest], values, starts: None };
    backfill.push(&series(1000), &run).expect("is taken");
    backfill.flush().expect("a good disk");
    backfill.merge(&mut |_| {}).expect("a good disk");
    assert_eq!((backfill.counts().merged, simulation.disk.peek(path).is_err()), (1, true));
    let aside = Path::new("/data/damaged/00000001.block");
    assert_eq!(simulation.disk.peek(aside).expect("kept as it was found"), bytes);
}

/// A directory as a crash leaves it, with a merged block that lacks series beside so many of the three that it was
/// merged from; where that block is, and what those hold.
fn merged_beside(sources: usize) -> (Simulation, PathBuf, Contents) {
    let (simulation, _) = many_series();
    let db = open(&simulation);
    ingest_of(&db, &simulation, 3 * 60, 300);
    let now_ms = simulation.clock.wall_ms();
    while let Some(job) = db.next_job(now_ms).filter(|job| job.kind() != "compact") {
        db.run(job).expect("a good disk");
    }
    let blocks = db.status().blocks;
    assert_eq!(blocks.len(), 3);
    let mut held = contents(&db);
    held.retain(|key, _| key.1 <= blocks[sources - 1].max_time);
    let path = |name: &String| Path::new("/data/blocks").join(name);
    let before = blocks[..sources].iter().map(|block| path(&block.name));
    let before: Vec<_> =
        before.map(|path| (path.clone(), simulation.disk.peek(&path).expect("there"))).collect();
    assert_eq!(run_jobs(&db, &simulation)[0], "compact");
    let merged = path(&db.status().blocks[0].name);
    drop(db);
    let mut bytes = simulation.disk.peek(&merged).expect("there");
    let at = second_copy(&bytes) + 30;
    bytes[at] ^= 1;
    bytes.truncate(bytes.len() - 1);
    simulation.disk.poke(&merged, &bytes).expect("there");
    let all: Vec<_> = files(&simulation).into_iter().chain(before).collect();
    restore(&simulation, &all);
    (simulation, merged, held)
}

#[test]
fn a_merged_block_that_lacks_series_does_not_replace_what_it_was_merged_from() {
    for sources in [2, 3] {
        let (simulation, _, held) = merged_beside(sources);
        let repairs = [false, true].map(|repairs| (repairs, files(&simulation)));
        for (repairs, files) in repairs {
            restore(&simulation, &files);
            if repairs {
                let repaired = offline::repair(&simulation.env, Path::new("/data")).expect("a good disk");
                assert_eq!(repaired.left.findings, []);
            }
            let db = open(&simulation);
            let context = format!("{sources} sources, repaired: {repairs}");
            let check = |what| {
                let read = contents(&db);
                assert_eq!(held.keys().find(|key| !read.contains_key(key)), None, "{context}, {what}");
            };
            check("opened");
            run_jobs(&db, &simulation);
            check("healed");
            assert!(
                simulation.disk.files().iter().any(|path| path.starts_with("/data/damaged")),
                "{context}"
            );
        }
    }
}

/// Where it could not be moved out of the way at the start it is before anything is deleted: later it may be readable.
#[test]
fn a_block_that_is_set_aside_brings_back_nothing_that_was_deleted_since() {
    let (lacks_series, merged, _) = merged_beside(3);
    let (unreadable, _) = many_series();
    let cases = [(lacks_series, merged, false), (unreadable, "/data/blocks/00000001.block".into(), true)];
    for (simulation, path, is_unreadable) in cases {
        let (before, mut stayed) = (files(&simulation), 0);
        for n in 1.. {
            restore(&simulation, &before);
            if is_unreadable {
                simulation.disk.make_unreadable(&path, 0..u64::MAX).expect("there");
            }
            simulation.disk.fail_at(simulation.disk.changes() + n, Failure::Io);
            let opened = try_open(&simulation);
            let fired = simulation.disk.fired();
            if let Ok(db) = opened
                && simulation.disk.files().contains(&path)
            {
                stayed += 1;
                let first = [Matcher::equal("i", "00")];
                db.delete(&first, ALL).expect("a good disk");
                run_jobs(&db, &simulation);
                drop(db);
                // The disk is well again.
                restore(&simulation, &files(&simulation));
                assert_eq!(contents_of(&open(&simulation), &first, ALL).len(), 0, "change {n} fails");
            }
            if !fired {
                break;
            }
        }
        assert!(stayed > 0, "moving a block is a change of the disk");
    }
}
