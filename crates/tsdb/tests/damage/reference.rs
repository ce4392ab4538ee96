//! A directory with everything that there is, and what must hold of it whatever is damaged.

use std::path::{Path, PathBuf};

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env, Open};
use tidewatch_model::histogram::{Histogram, Span};
use tidewatch_model::{BatchHistogram, Labels, NativeHistogram, Sample};
use tidewatch_storage::{Select, TimeRange};
use tidewatch_tsdb::{Damage, Db, DbOptions, offline};

use crate::ledger::Ledger;
use crate::support::{self, ALL, Contents, contents};

/// What all files together may take, so that every bit can be tried.
const DIRECTORY_BYTES_MAX: usize = 16 << 10;

pub fn open(simulation: &Simulation, image_log_bytes: u64) -> Result<Db, String> {
    let options = DbOptions { image_log_bytes, ..DbOptions::new("/data") };
    let db = Db::open(simulation.env.clone(), options).map_err(|error| error.to_string())?;
    db.recover().map_err(|error| error.to_string())?;
    Ok(db)
}

/// A directory with everything that there is: blocks, tombstones, images and a log behind them, with
/// floats, histograms and deletions in all of these; and what it holds.
pub struct Reference {
    pub files: Vec<(PathBuf, Vec<u8>)>,
    pub now: i64,
    pub ledger: Ledger,
    pub whole: Contents,
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
    pub fn new() -> Reference {
        Reference::of(5, 0)
    }

    /// Another one where the seed is another, with other samples of the same series at the same times where the
    /// first step is.
    pub fn of(seed: u64, first_step: usize) -> Reference {
        let simulation = Env::simulated(seed);
        let mut ledger = Ledger::default();
        for round in 0..3 {
            let db = open(&simulation, 300).expect("a good disk");
            for step in 0..6 {
                ingest(&db, &simulation, &mut ledger, round, first_step + step);
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
        for part in [".block", ".tombstones", "series.image", "shard-", ".wal", "FORMAT", "OWNER"] {
            assert!(
                files.iter().any(|(path, _)| path.to_string_lossy().contains(part)),
                "{part} in {files:?}"
            );
        }
        Reference { files, now: simulation.clock.wall_ms(), ledger, whole }
    }

    /// The files on a disk of their own.
    pub fn disk(&self) -> Simulation {
        let simulation = Env::simulated(7);
        simulation.clock.jump_to_ms(self.now);
        self.files.iter().for_each(|(path, bytes)| put(&simulation, path, bytes));
        simulation
    }

    /// Damages a copy, opens it, and looks at what it says. Gives whether it says that something is
    /// damaged.
    #[track_caller]
    pub fn check(&self, context: &str, damage: impl FnOnce(&Simulation)) -> bool {
        self.check_unless(context, false, damage)
    }

    /// The same where, if `silent`, something can be lost without a trace.
    #[track_caller]
    pub fn check_unless(&self, context: &str, silent: bool, damage: impl FnOnce(&Simulation)) -> bool {
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
pub fn verify(simulation: &Simulation) -> Vec<(String, String)> {
    let verified = offline::verify(&simulation.env, Path::new("/data")).expect("it is ours");
    let said = |finding: offline::Finding| (finding.path.display().to_string(), finding.reason);
    verified.findings.into_iter().map(said).collect()
}

/// It names what the start named, and more only of what a start does not read: the samples in blocks, and what the log
/// has before the images.
#[track_caller]
pub fn check_verified(verified: Vec<(String, String)>, damage: &[Damage], context: &str) {
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

pub fn series(name: &str, i: usize, round: usize) -> Labels {
    Labels::from_pairs([("__name__", name), ("i", &format!("{i}-{round}"))])
}

pub fn ingest(db: &Db, simulation: &Simulation, ledger: &mut Ledger, round: usize, step: usize) {
    let timestamp = simulation.clock.wall_ms();
    let floats: Vec<Labels> = (0..3).map(|i| series("m", i, round)).collect();
    let sample = |i: usize| Sample { timestamp, value: i as f64 * 0.25 + step as f64 };
    let samples: Vec<_> = floats.iter().enumerate().map(|(i, labels)| (labels, sample(i))).collect();
    let latency = series("h", 0, round);
    let of = BatchHistogram { timestamp, start: 0, value: histogram(0, step) };
    assert!(ledger.append(db, &samples, &[(&latency, of)]));
    assert!(ledger.commit(db));
}

pub fn put(simulation: &Simulation, path: &Path, bytes: &[u8]) {
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

pub fn readable(selection: &dyn tidewatch_storage::Selection) -> bool {
    let mut scratch = tidewatch_storage::Scratch::default();
    let visit = &mut |_: usize, _: tidewatch_storage::Run<'_>| std::ops::ControlFlow::Continue(());
    selection.scan(0..selection.len(), ALL, &mut scratch, visit).is_ok()
}

/// Whether every case is to be tried.
pub fn all_of_them() -> bool {
    std::env::var("TIDEWATCH_DAMAGE").is_ok_and(|text| text == "all")
}

/// What a start finds where this file has these bytes.
pub fn contents_with(simulation: &Simulation, path: &Path, bytes: &[u8]) -> Contents {
    let copy = Env::simulated(7);
    copy.clock.jump_to_ms(simulation.clock.wall_ms());
    for path in simulation.disk.files() {
        put(&copy, &path, &simulation.disk.peek(&path).expect("there"));
    }
    put(&copy, path, bytes);
    contents(&open(&copy, u64::MAX).expect("opens"))
}

pub fn share(all: bool) -> &'static str {
    if all { "all" } else { "a part" }
}
