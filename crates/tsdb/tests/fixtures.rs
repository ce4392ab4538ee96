//! Data directories that earlier versions wrote: this one opens them and finds what is in them.
//!
//! `tests/fixtures/NAME/` is a directory, `tests/fixtures/NAME.txt` what it holds, a sample a line.
//! A new one is written with `TIDEWATCH_WRITE_FIXTURE=NAME cargo test -p tidewatch-tsdb --test fixtures`, once for
//! each format that a release writes; those that are there are never written again.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env, Open, create_dir_durably};
use tidewatch_model::histogram::Histogram;
use tidewatch_model::{
    Batch, BatchHistogram, Labels, Matcher, NativeHistogram, RawLabels, STALE_NAN, Sample,
};
use tidewatch_storage::{Append, TimeRange};
use tidewatch_tsdb::{Db, DbOptions, Job, offline};
use tidewatch_wal::{Item, Position, Reader};

use support::{Contents, contents};

/// Larger directories do not belong here.
const BYTES_MAX: u64 = 64 << 10;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn open(simulation: &Simulation) -> Db {
    let options = DbOptions { retention_ms: None, image_log_bytes: u64::MAX, ..DbOptions::new("/data") };
    let db = Db::open(simulation.env.clone(), options).expect("opens");
    db.recover().expect("recovers");
    db
}

/// What a directory holds, as text: series, time, bits of the value.
fn text(contents: &Contents) -> String {
    contents.iter().map(|((series, time), bits)| format!("{series} {time} {bits:016x}\n")).collect()
}

/// Writes scrapes and late samples of some series.
fn ingest(db: &Db, simulation: &Simulation, scrapes: i64) {
    for step in 0..scrapes {
        let timestamp = simulation.clock.wall_ms();
        for i in 0..5i64 {
            let labels =
                Labels::from_pairs([("__name__", "m"), ("i", &i.to_string()), ("zone", "ä \\\" \n")]);
            let value = match i {
                0 => 1.0,
                1 => step as f64 * 0.1,
                // What repeats itself is under zstd in a dense block.
                2 => ((step % 12) as f64).sqrt(),
                3 if step % 7 == 3 => STALE_NAN,
                _ => (step * step) as f64,
            };
            let late = Sample { timestamp: timestamp - 100_000, value: 0.5 };
            let samples = [late, Sample { timestamp, value }];
            let mut batch = Batch::new();
            let from = usize::from(step % 3 != i % 3);
            batch.push(RawLabels::Canonical(labels.as_bytes()), &samples[from..]);
            db.append(&batch).expect("takes writes");
        }
        db.commit().expect("a good disk");
        simulation.clock.advance_ms(240_000);
    }
}

/// Series that end and leave the head, and one of them comes back.
fn let_some_leave(db: &Db, simulation: &Simulation) {
    let scrape = |names: &[&str], value: f64| {
        let sample = Sample { timestamp: simulation.clock.wall_ms(), value };
        for name in names {
            let labels = Labels::from_pairs([("__name__", "gone"), ("pod", *name)]);
            let mut batch = Batch::new();
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[sample]);
            db.append(&batch).expect("takes writes");
        }
        db.commit().expect("a good disk");
        simulation.clock.advance_ms(240_000);
    };
    scrape(&["a", "b", "c"], 1.5);
    scrape(&["a", "b", "c"], STALE_NAN);
    db.run(Job::CutStale).expect("a good disk");
    scrape(&["b"], 2.5);
}

/// A request with samples of both kinds and the time since when one counts.
fn ingest_together(db: &Db, simulation: &Simulation) {
    let timestamp = simulation.clock.wall_ms();
    let labels = Labels::from_pairs([("__name__", "together")]);
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value: 3.5 }]);
    batch.set_starts(&[timestamp - 1000]);
    let value = NativeHistogram::Integer(Histogram { count: 2, zero_count: 2, ..Histogram::default() });
    batch.histograms.push(BatchHistogram { timestamp: timestamp + 1, start: timestamp - 1000, value });
    batch.series[0].histograms = 0..1;
    let outcome = db.append(&batch).expect("takes writes");
    assert_eq!((outcome.accepted, outcome.accepted_histograms), (1, 1));
    db.commit().expect("a good disk");
}

/// Every kind of file: blocks, a dense one among them, tombstones, images with late and deleted samples, and a log
/// with definitions, samples, whole requests, cuts, deletions and departures.
fn write(name: &str) {
    let simulation = Env::simulated(20_261_128);
    let db = open(&simulation);
    ingest(&db, &simulation, 150);
    while let Some(job) = db.next_job(simulation.clock.wall_ms()) {
        db.run(job).expect("a good disk");
    }
    let now = simulation.clock.wall_ms();
    let recent = TimeRange { start: now - 7_000_000, end: now - 1_000_000 };
    db.delete(&[Matcher::equal("i", "4")], recent).expect("a good disk");
    let part = TimeRange { start: now - 20_000_000, end: now - 17_000_000 };
    db.delete(&[Matcher::equal("i", "1")], part).expect("a good disk");
    db.compact_whole().expect("a good disk");
    db.delete(&[Matcher::equal("i", "4")], part).expect("a good disk");
    db.run(Job::Image).expect("a good disk");
    ingest(&db, &simulation, 40);
    while let Some(job) = db.next_job(simulation.clock.wall_ms()) {
        db.run(job).expect("a good disk");
    }
    db.delete(&[Matcher::equal("i", "2")], recent).expect("a good disk");
    let_some_leave(&db, &simulation);
    ingest_together(&db, &simulation);
    let whole = contents(&db);
    drop(db);
    simulation.disk.kill();
    let to = fixtures().join(name);
    for path in simulation.disk.files() {
        let target = to.join(path.strip_prefix("/data").expect("below it"));
        fs::create_dir_all(target.parent().expect("has one")).expect("a good disk");
        fs::write(target, simulation.disk.peek(&path).expect("there")).expect("a good disk");
    }
    fs::write(fixtures().join(format!("{name}.txt")), text(&whole)).expect("a good disk");
}

/// The kinds of the frames in the log.
fn kinds(simulation: &Simulation) -> BTreeSet<u8> {
    let log = Reader::open(&simulation.env, Path::new("/data/wal"), Position::START);
    let mut log = log.expect("readable");
    let mut kinds = BTreeSet::new();
    while let Some(item) = log.read().expect("readable") {
        let Item::Frame(frame) = item else { panic!("{item:?}") };
        kinds.extend(frame.bytes.first());
    }
    kinds
}

/// Puts a directory's files onto a simulated disk; gives how many bytes they have.
fn load(simulation: &Simulation, from: &Path, to: &Path) -> u64 {
    let disk = &simulation.env.disk;
    disk.create_dir_all(to).expect("memory");
    let mut bytes = 0;
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            bytes += load(simulation, &entry.path(), &target);
            continue;
        }
        let content = fs::read(entry.path()).expect("readable");
        bytes += content.len() as u64;
        let file = disk.open(&target, Open::Create).expect("memory");
        file.append(&content).and_then(|()| file.sync()).expect("memory");
    }
    create_dir_durably(&**disk, to).and_then(|()| disk.sync_dir(to)).expect("memory");
    bytes
}

#[test]
fn directories_of_earlier_versions_open_and_hold_what_they_held() {
    if let Ok(name) = std::env::var("TIDEWATCH_WRITE_FIXTURE") {
        assert!(!fixtures().join(&name).exists(), "{name} is there, and never written again");
        write(&name);
    }
    let (mut names, mut all_kinds) = (Vec::new(), BTreeSet::new());
    for entry in fs::read_dir(fixtures()).expect("fixtures").flatten().filter(|entry| entry.path().is_dir()) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let simulation = Env::simulated(1);
        let bytes = load(&simulation, &entry.path(), Path::new("/data"));
        assert!(bytes <= BYTES_MAX, "{name} has {bytes} bytes");
        let verified = offline::verify(&simulation.env, Path::new("/data")).expect("readable");
        assert_eq!(verified.findings, [], "{name}");
        assert!(verified.blocks > 1 && verified.images > 1 && verified.frames > 10, "{name}: {verified:?}");
        all_kinds.append(&mut kinds(&simulation));
        let expected = fs::read_to_string(fixtures().join(format!("{name}.txt"))).expect("its contents");
        let db = open(&simulation);
        assert_eq!(db.status().damage, [], "{name}");
        assert!(text(&contents(&db)) == expected, "{name} holds other samples than it did");
        // It goes on, and what this version writes of it is read again.
        let held = contents(&db);
        let newest = held.keys().map(|(_, time)| *time).max().expect("some");
        simulation.clock.jump_to_ms(newest + 240_000);
        ingest(&db, &simulation, 3);
        let more = contents(&db);
        assert!(more.len() > held.len() + 15, "{name}: {} samples and then {}", held.len(), more.len());
        while let Some(job) = db.next_job(simulation.clock.wall_ms()) {
            db.run(job).expect("a good disk");
        }
        db.run(Job::Image).expect("a good disk");
        db.clean_tombstones().expect("a good disk");
        drop(db);
        simulation.disk.crash(0);
        assert!(contents(&open(&simulation)) == more, "{name} after it was written to");
        names.push(name);
    }
    assert!(["format-1", "format-1-dense"].iter().all(|name| names.iter().any(|n| n == name)), "{names:?}");
    assert_eq!(all_kinds.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 6, 7, 8, 9], "kinds of frames");
}
