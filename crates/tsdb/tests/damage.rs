//! Damaged files: whatever byte is changed and wherever a file ends, the database opens, never
//! answers with a sample that was not sent, and says so when it lacks one. The one exception is
//! the file that says whose directory it is: without it the database refuses to open.

mod ledger;
mod support;

use std::path::{Path, PathBuf};

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env};
use tidewatch_model::{Labels, Sample};
use tidewatch_storage::{Select, TimeRange};
use tidewatch_tsdb::{Db, DbOptions, OpenError};

use ledger::Ledger;
use support::{ALL, Contents, contents};

fn open(simulation: &Simulation, image_log_bytes: u64) -> Db {
    let options = DbOptions { image_log_bytes, ..DbOptions::new("/data") };
    let db = Db::open(simulation.env.clone(), options).expect("opens, whatever is damaged");
    db.recover().expect("recovers, whatever is damaged");
    db
}

/// A directory with blocks, images and a log behind them, and what it holds.
fn directory() -> (Simulation, Ledger, Contents) {
    let simulation = Env::simulated(5);
    let mut ledger = Ledger::default();
    for round in 0..3 {
        let db = open(&simulation, 300);
        for step in 0..6 {
            let timestamp = simulation.clock.wall_ms();
            let series: Vec<Labels> = (0..4)
                .map(|i| Labels::from_pairs([("__name__", "m"), ("i", &format!("{i}-{round}"))]))
                .collect();
            let value = |i: usize| i as f64 * 0.25 + f64::from(step);
            let sample = |i: usize| Sample { timestamp, value: value(i) };
            let samples: Vec<_> = series.iter().enumerate().map(|(i, labels)| (labels, sample(i))).collect();
            assert!(ledger.append(&db, &samples, &[]));
            assert!(ledger.commit(&db));
            while round < 2
                && let Some(job) = db.next_job(simulation.clock.wall_ms())
            {
                db.run(job).expect("a good disk");
            }
            if step == 3 {
                // Images have it, but for the last round, where the log alone does.
                let recent = TimeRange { start: timestamp - 3_600_000, end: timestamp };
                ledger.delete(&db, &series[1], recent);
            }
            simulation.clock.advance_ms(40 * 60_000);
        }
        if round == 2 {
            let old = Labels::from_pairs([("__name__", "m"), ("i", "2-0")]);
            ledger.delete(&db, &old, TimeRange { start: 0, end: simulation.clock.wall_ms() });
        }
        ledger.restart();
    }
    simulation.disk.kill();
    let db = open(&simulation, u64::MAX);
    let whole = contents(&db);
    assert!(ledger.acknowledged() > 50 && ledger.deleted() > 9, "{} deleted", ledger.deleted());
    ledger.check(&whole, "before any damage");
    drop(db);
    simulation.disk.kill();
    let files = simulation.disk.files();
    let has = |part: &str| files.iter().any(|file| file.to_string_lossy().contains(part));
    assert!(
        has(".block") && has(".tombstones") && has("series.image") && has("shard-") && has(".wal"),
        "{files:?}"
    );
    (simulation, ledger, whole)
}

/// Puts `damaged` in the place of a file, opens, and puts everything back.
fn check(
    simulation: &Simulation,
    ledger: &Ledger,
    whole: &Contents,
    path: &Path,
    damaged: &[u8],
    context: &str,
) {
    let before: Vec<(PathBuf, Vec<u8>)> = simulation
        .disk
        .files()
        .into_iter()
        .map(|file| (file.clone(), simulation.disk.peek(&file).expect("there")))
        .collect();
    simulation.disk.poke(path, damaged).expect("there");
    if path.ends_with("FORMAT") {
        // Nobody can tell whose directory this is.
        let refused = Db::open(simulation.env.clone(), DbOptions::new("/data")).err().expect(context);
        assert!(
            matches!(refused, OpenError::NoFormat { .. } | OpenError::Version { .. }),
            "{context}: {refused}"
        );
        simulation.disk.kill();
        simulation
            .disk
            .poke(path, &before.iter().find(|(known, _)| known == path).expect("there").1)
            .expect("there");
        return;
    }
    let db = open(simulation, u64::MAX);
    // A query over damage may fail, but it must not be wrong.
    let answers = db.select(&[], ALL).is_ok_and(|selection| readable(&*selection));
    if answers {
        let read = contents(&db);
        ledger.check_sent(&read, context);
        let lacks = whole.keys().any(|key| !read.contains_key(key));
        let named = !db.status().damage.is_empty();
        assert!(!lacks || named, "{context}: samples are missing and nothing is said");
        let back = ledger.back_again(&read);
        assert!(back.is_none() || named, "{context}: {back:?} was deleted, and nothing is said");
    }
    drop(db);
    simulation.disk.kill();
    for file in simulation.disk.files() {
        if !before.iter().any(|(known, _)| *known == file) {
            simulation.env.disk.remove(&file).expect("there");
        }
    }
    for (file, bytes) in before {
        if simulation.disk.poke(&file, &bytes).is_err() {
            let again = simulation.env.disk.open(&file, tidewatch_env::Open::Create).expect("a new file");
            again.append(&bytes).expect("a good disk");
        }
    }
}

fn readable(selection: &dyn tidewatch_storage::Selection) -> bool {
    let mut scratch = tidewatch_storage::Scratch::default();
    let visit = &mut |_: usize, _: tidewatch_storage::Run<'_>| std::ops::ControlFlow::Continue(());
    selection.scan(0..selection.len(), ALL, &mut scratch, visit).is_ok()
}

#[test]
fn no_changed_byte_gives_a_wrong_answer_or_a_silent_loss() {
    let (simulation, ledger, whole) = directory();
    for path in simulation.disk.files() {
        let bytes = simulation.disk.peek(&path).expect("there");
        // Another bit at each byte; bytes near the ends all, those within by turns.
        for at in (0..bytes.len()).filter(|at| *at < 80 || at % 5 == 0 || bytes.len() - at < 40) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let context = format!("{} with byte {at} changed", path.display());
            check(&simulation, &ledger, &whole, &path, &damaged, &context);
        }
    }
}

#[test]
fn no_shortened_file_gives_a_wrong_answer_or_a_silent_loss() {
    let (simulation, ledger, whole) = directory();
    for path in simulation.disk.files() {
        let bytes = simulation.disk.peek(&path).expect("there");
        // The end of the newest segment of the log is where a crash tears: that is no damage.
        let is_log = path.extension().is_some_and(|extension| extension == "wal");
        for len in (0..bytes.len()).filter(|len| len % 7 == 0 && !is_log) {
            let context = format!("{} cut to {len} bytes", path.display());
            check(&simulation, &ledger, &whole, &path, &bytes[..len], &context);
        }
    }
}
