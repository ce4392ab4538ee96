//! Random work on the simulated disk that ends in a crash at a random moment, again and again:
//! what was acknowledged is read, what is read was sent, and the database always opens again.
//!
//! ```text
//! life: ┌─► work, with the disk failing somewhere ─► crash ─► start, perhaps crashed itself ─► check ─┐
//!       └──────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Each turn is a crash state: of what was not synced, the disk has lost, torn and reordered what it
//! likes. `TIDEWATCH_CRASH_STATES` makes it more of them, `TIDEWATCH_CRASH_SEED` others. A failure
//! prints the seed of its life, which those two repeat; `TIDEWATCH_CRASH_TRACE=1` tells what is done.

mod ledger;
mod numbers;
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tidewatch_env::sim::{Failure, Simulation};
use tidewatch_env::{Clock, Env, Open};
use tidewatch_model::histogram::{Histogram, Span};
use tidewatch_model::{BatchHistogram, FloatHistogram, Labels, NativeHistogram, STALE_NAN, Sample};
use tidewatch_storage::TimeRange;
use tidewatch_tsdb::{Db, DbOptions};

use ledger::Ledger;
use numbers::{Numbers, variable};
use support::{ALL, Contents, contents};

const LIFE_STATES: u64 = 25;
const MINUTE_MS: i64 = 60_000;
/// Bytes of a segment in which all is that a process logs here.
const WHOLE_LIFE: u64 = 16 << 20;
const RETENTION_MS: i64 = 8 * 60 * MINUTE_MS;

#[test]
fn no_crash_loses_what_was_acknowledged_or_invents_anything() {
    let states = variable("TIDEWATCH_CRASH_STATES").unwrap_or(1_500);
    let first = variable("TIDEWATCH_CRASH_SEED").unwrap_or(1);
    let mut totals = Totals::default();
    for at in (0..states).step_by(LIFE_STATES as usize) {
        let seed = first + at / LIFE_STATES;
        let lived = catch_unwind(AssertUnwindSafe(|| {
            let mut life = Life::new(seed);
            (0..LIFE_STATES.min(states - at)).for_each(|_| life.turn());
            life.totals
        }));
        match lived {
            Ok(life) => totals.add(&life),
            Err(panic) => {
                eprintln!(
                    "a life went wrong: TIDEWATCH_CRASH_SEED={seed} TIDEWATCH_CRASH_STATES=25 repeats it"
                );
                resume_unwind(panic);
            }
        }
    }
    eprintln!("== {states} crash states from seed {first}: {totals:?}");
    if states >= 1_000 {
        totals.check();
    }
}

/// What the lives were like, to see that they met what they are to meet.
#[derive(Debug, Default)]
struct Totals {
    acknowledged: u64,
    deleted: u64,
    crashes_in_work: u64,
    crashes_in_recovery: u64,
    kills: u64,
    failures: u64,
    cuts: u64,
    stale_series_cut: u64,
    compactions: u64,
    images: u64,
    wrong_clocks: u64,
    sections_lost: u64,
    samples_lost: u64,
    samples_logged: u64,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.acknowledged += other.acknowledged;
        self.deleted += other.deleted;
        self.crashes_in_work += other.crashes_in_work;
        self.crashes_in_recovery += other.crashes_in_recovery;
        self.kills += other.kills;
        self.failures += other.failures;
        self.cuts += other.cuts;
        self.stale_series_cut += other.stale_series_cut;
        self.compactions += other.compactions;
        self.images += other.images;
        self.wrong_clocks += other.wrong_clocks;
        self.sections_lost += other.sections_lost;
        self.samples_lost += other.samples_lost;
        self.samples_logged += other.samples_logged;
    }

    fn check(&self) {
        let Totals { acknowledged, deleted, crashes_in_work, crashes_in_recovery, .. } = *self;
        assert!(acknowledged > 10_000 && deleted > 100, "{self:?}");
        assert!(crashes_in_work > 200 && crashes_in_recovery > 50 && self.kills > 50, "{self:?}");
        assert!(self.stale_series_cut > 100 && self.wrong_clocks > 20, "{self:?}");
        assert!(self.sections_lost > 100 && self.samples_lost > 0 && self.samples_logged > 0, "{self:?}");
        assert!(self.failures > 50 && self.cuts > 20 && self.compactions > 5 && self.images > 50, "{self:?}");
    }
}

/// Changes an image so that it is lost, or a section of it, or all of them; not one of what is deleted, which then is
/// there again. Gives whether there was something to lose.
fn spoil(image: &mut Vec<u8>, numbers: &mut Numbers) -> bool {
    const HEADER_LEN: usize = 64;
    if numbers.upto(3) == 0 {
        let copy = image.len() - HEADER_LEN;
        [0, copy].into_iter().for_each(|at| image[at] ^= 4);
        return true;
    }
    let half = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().expect("four")) as usize;
    let count = half(image.len() - HEADER_LEN - 8);
    let (mut sections, mut end) = (Vec::new(), HEADER_LEN);
    for _ in 0..count {
        let body = end + 8..end + 8 + half(end);
        end = body.end;
        // The number that stands where a page has its own.
        let is_deleted = [[128, 128, 128, 2], [128, 128, 128, 130]]
            .iter()
            .any(|number| image[body.clone()].starts_with(number));
        if !is_deleted && !body.is_empty() {
            sections.push(body);
        }
    }
    if sections.is_empty() {
        return false;
    }
    if numbers.upto(2) == 0 {
        image.truncate(HEADER_LEN);
        return true;
    }
    let at = sections[numbers.upto(sections.len() as u64 - 1) as usize].start;
    image[at] ^= 4;
    // And what it would be rebuilt from: parity and frames stand behind the sections, then count, checksum and header.
    let parity_end = image.len() - HEADER_LEN - 8 - count * 8;
    image[end..parity_end].iter_mut().for_each(|byte| *byte ^= 4);
    true
}

/// One database, from crash to crash.
struct Life {
    simulation: Simulation,
    ledger: Ledger,
    numbers: Numbers,
    /// `None` where the disk failed the last start.
    db: Option<Db>,
    /// What the last start that did not fail has found.
    found: Contents,
    segment_bytes: u64,
    /// Scrapes so far: later ones have more series.
    scrapes: u64,
    totals: Totals,
    traced: bool,
}

fn open(simulation: &Simulation, segment_bytes: u64) -> Result<Db, String> {
    let options = DbOptions {
        segment_bytes,
        image_log_bytes: 1000,
        retention_ms: Some(RETENTION_MS),
        stale_share: 0.1,
        ..DbOptions::new("/data")
    };
    let db = Db::open(simulation.env.clone(), options).map_err(|error| error.to_string())?;
    db.recover().map_err(|error| error.to_string())?;
    Ok(db)
}

fn series(name: &str, i: u64) -> Labels {
    Labels::from_pairs([("__name__", name), ("i", &i.to_string())])
}

/// The value of a series at a time, and of no other series or time.
fn value(i: u64, timestamp: i64) -> f64 {
    let count = (timestamp / 1000) as f64;
    match i % 5 {
        0 => count,
        1 => count * 0.1 + i as f64,
        2 => (count + i as f64).sqrt(),
        3 => (i as f64) - count,
        _ => (timestamp % 7) as f64 + i as f64 * 1e-3,
    }
}

fn histogram(i: u64, timestamp: i64) -> NativeHistogram {
    let count = timestamp.unsigned_abs() / 1000 % 100_000 + i;
    match (count + i) % 9 {
        0 => NativeHistogram::stale(),
        1..=2 => NativeHistogram::Float(FloatHistogram {
            schema: -53,
            count: count as f64 + 0.5,
            sum: count as f64 * 0.1,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![0.5, count as f64, 0.0],
            custom_values: Some(vec![0.1, 1.0].into()),
            ..FloatHistogram::default()
        }),
        _ => NativeHistogram::Integer(Histogram {
            schema: 2,
            zero_threshold: 0.001,
            zero_count: 1,
            count: 1 + 2 * count,
            sum: count as f64 * 0.25,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_deltas: vec![count as i64, 0],
            ..Histogram::default()
        }),
    }
}

impl Life {
    fn new(seed: u64) -> Life {
        let simulation = Env::simulated(seed);
        // The log begins with a process, or within what it does.
        let segment_bytes = if seed.is_multiple_of(2) { WHOLE_LIFE } else { 1000 };
        let db = Some(open(&simulation, segment_bytes).expect("a new directory"));
        let (ledger, numbers) = (Ledger::default(), Numbers(seed));
        Life {
            simulation,
            ledger,
            numbers,
            db,
            found: Contents::new(),
            segment_bytes,
            scrapes: 0,
            totals: Totals::default(),
            traced: variable("TIDEWATCH_CRASH_TRACE").is_some(),
        }
    }

    fn now(&self) -> i64 {
        self.simulation.clock.wall_ms()
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.traced {
            eprintln!("change {}: {}", self.simulation.disk.changes(), what());
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.numbers.upto(n - 1) == 0
    }

    /// Works, crashes, starts again and looks.
    fn turn(&mut self) {
        self.plan();
        for _ in 0..=self.numbers.upto(24) {
            self.act();
            if self.is_dead() {
                break;
            }
        }
        self.totals.crashes_in_work += u64::from(self.is_dead());
        if let Some(db) = self.db.take() {
            let counters = db.status().counters;
            self.totals.cuts += counters.cuts;
            self.totals.stale_series_cut += counters.stale_series_cut;
            self.totals.compactions += counters.compactions;
        }
        self.crash();
        while self.one_in(3) {
            self.crash_in_recovery();
        }
        self.look();
    }

    /// Decides how the disk fails during the work, if it does.
    fn plan(&mut self) {
        let at = self.simulation.disk.changes() + 1 + self.numbers.upto(60);
        let failure = match self.numbers.upto(9) {
            0..=5 => Failure::Crash,
            6 => Failure::Io,
            7 => Failure::IoForGood,
            8 => Failure::Full,
            _ => return,
        };
        self.totals.failures += u64::from(failure != Failure::Crash);
        self.note(|| format!("{failure:?} is to come at {at}"));
        self.simulation.disk.fail_at(at, failure);
    }

    fn is_dead(&self) -> bool {
        self.simulation.env.disk.exists("/".as_ref()).is_err()
    }

    fn act(&mut self) {
        match self.numbers.upto(99) {
            0..=44 => self.scrape(),
            45..=59 => self.late(),
            60..=79 => {
                let done = self.db.as_ref().map(|db| self.ledger.commit(db));
                self.note(|| format!("commit: {done:?}"));
            }
            80..=89 => self.run_jobs(),
            90..=93 => self.delete(),
            94 => {
                let done = self.db.as_ref().map(Db::clean_tombstones);
                self.note(|| format!("clean: {done:?}"));
            }
            95 => {
                let done = self.db.as_ref().map(|db| db.snapshot(false));
                self.note(|| format!("snapshot: {done:?}"));
            }
            96 => self.simulation.clock.advance_ms(self.numbers.upto(3) * 60 * MINUTE_MS as u64),
            97 => self.wrong_clock(),
            _ => self.restart(),
        }
    }

    fn scrape(&mut self) {
        self.simulation.clock.advance_ms((1 + self.numbers.upto(20)) * MINUTE_MS as u64);
        self.scrapes += 1;
        let (now, count) = (self.now(), 4 + self.scrapes / 6 % 8);
        // Now and then a few, and some that come once.
        let few = self.one_in(4);
        let mut known: Vec<(Labels, u64)> = (0..count).map(|i| (series("known", i), i)).collect();
        known.retain(|_| !few || self.numbers.upto(1) == 0);
        known.push((series("once", self.scrapes), self.scrapes));
        self.append(&known, &(0..3).map(|i| (series("latency", i), i)).collect::<Vec<_>>(), now);
        // What came once has ended, and for now so have those that are missing.
        let mut ended: Vec<Labels> = (0..count).map(|i| series("known", i)).collect();
        ended.retain(|labels| !known.iter().any(|(present, _)| present == labels));
        ended.push(series("once", self.scrapes - 1));
        let Some(db) = &self.db else { return };
        let marker = Sample { timestamp: now, value: STALE_NAN };
        let markers: Vec<_> = ended.iter().map(|labels| (labels, marker)).collect();
        let taken = self.ledger.append(db, &markers, &[]);
        self.note(|| format!("{} end: {taken}", ended.len()));
    }

    fn late(&mut self) {
        let timestamp = self.now() - self.numbers.upto(50 * MINUTE_MS as u64) as i64;
        let i = self.numbers.upto(7);
        if self.one_in(3) {
            self.append(&[], &[(series("latency", i % 3), i % 3)], timestamp);
        } else {
            self.append(&[(series("known", i), i)], &[], timestamp);
        }
    }

    fn append(&mut self, floats: &[(Labels, u64)], histograms: &[(Labels, u64)], timestamp: i64) {
        let Some(db) = &self.db else { return };
        let floats: Vec<_> = floats
            .iter()
            .map(|(labels, i)| (labels, Sample { timestamp, value: value(*i, timestamp) }))
            .collect();
        let start = timestamp - 5 * MINUTE_MS;
        let histograms: Vec<_> = histograms
            .iter()
            .map(|(labels, i)| (labels, BatchHistogram { timestamp, start, value: histogram(*i, timestamp) }))
            .collect();
        let taken = self.ledger.append(db, &floats, &histograms);
        self.note(|| {
            let names =
                floats.iter().map(|(labels, _)| labels).chain(histograms.iter().map(|(labels, _)| labels));
            let names: Vec<String> = names.map(|labels| labels.to_string()).collect();
            format!("append at {timestamp}: {taken}: {}", names.join(" "))
        });
    }

    /// The clock is wrong for a moment, and right again.
    fn wrong_clock(&mut self) {
        const YEAR_MS: i64 = 365 * 24 * 60 * MINUTE_MS;
        let right = self.now();
        self.totals.wrong_clocks += 1;
        // Each time by another year: one and the same for longer than anything is kept is no clock that was wrong for a
        // moment (see `compact::retain`). And no time twice: what a block has of a series that left is not looked at.
        let years = self.totals.wrong_clocks as i64 * if self.one_in(4) { -1 } else { 1 };
        let wrong = right + years * YEAR_MS + self.numbers.upto(59_999) as i64;
        self.ledger.clock_was_wrong = true;
        self.simulation.clock.jump_to_ms(wrong);
        self.note(|| format!("the clock is at {wrong}"));
        for _ in 0..self.numbers.upto(3) {
            self.scrape();
            self.run_jobs();
        }
        self.simulation.clock.jump_to_ms(right);
        self.note(|| format!("the clock is at {right}"));
    }

    fn run_jobs(&mut self) {
        let Some(db) = &self.db else { return };
        // One or all that are due.
        for _ in 0..=self.numbers.upto(1) * 9 {
            let Some(job) = db.next_job(self.simulation.clock.wall_ms()) else { return };
            self.totals.images += u64::from(job.kind() == "image");
            let kind = job.kind();
            let done = db.run(job);
            self.note(|| format!("{kind}: {done:?}"));
        }
    }

    fn delete(&mut self) {
        let i = self.numbers.upto(7);
        let labels = if self.one_in(3) { series("latency", i % 3) } else { series("known", i) };
        let from = self.now() - self.numbers.upto(8 * 60) as i64 * MINUTE_MS;
        let part = TimeRange { start: from, end: from + self.numbers.upto(180) as i64 * MINUTE_MS };
        let range = if self.one_in(3) { ALL } else { part };
        if let Some(db) = &self.db {
            let done = self.ledger.delete(db, &labels, range);
            self.note(|| format!("delete {labels} in {range:?}: {done}"));
        }
    }

    /// An orderly end and a new start.
    fn restart(&mut self) {
        if let Some(db) = self.db.take() {
            self.ledger.commit(&db);
        }
        self.ledger.restart();
        self.db = open(&self.simulation, self.segment_bytes).ok();
        self.note(|| format!("restart: {}", self.db.is_some()));
        self.db.iter().for_each(|db| self.found = contents(db));
    }

    /// The power goes; or the process alone, and then what is not synced can be lost later.
    fn crash(&mut self) {
        self.ledger.restart();
        if self.one_in(6) && !self.is_dead() {
            self.totals.kills += 1;
            self.note(|| "kill".to_owned());
            self.simulation.disk.kill();
        } else {
            let fate = match self.numbers.upto(5) {
                0 => 0,
                1 => 1,
                _ => 2 + self.numbers.upto(u64::MAX / 4),
            };
            self.note(|| format!("power cut, fate {fate}"));
            self.simulation.disk.crash(fate);
        }
        // Failures of the disk end with the machine.
        self.simulation.disk.repair();
        self.simulation.disk.free_space();
    }

    fn crash_in_recovery(&mut self) {
        let at = self.simulation.disk.changes() + 1 + self.numbers.upto(12);
        self.simulation.disk.fail_at(at, Failure::Crash);
        let opened = open(&self.simulation, self.segment_bytes).map(drop);
        self.note(|| format!("start with a crash at {at}: {opened:?}"));
        self.totals.crashes_in_recovery += u64::from(self.is_dead());
        self.crash();
    }

    /// Looks at what a start would find if images had lost sections, or were lost: nothing that is not there now, be it
    /// deleted, in blocks already or refused, and all that the log still has.
    fn lose_sections(&mut self, whole: &Contents) {
        let copy = Env::simulated(self.numbers.upto(1 << 32));
        copy.clock.jump_to_ms(self.now());
        let mut files: Vec<_> = self.simulation.disk.files().into_iter().collect();
        files.sort_unstable();
        let (mut lost, mut lost_series) = (0, false);
        for path in files {
            let mut bytes = self.simulation.disk.peek(&path).expect("there");
            if path.extension().is_some_and(|extension| extension == "image")
                && self.one_in(2)
                && spoil(&mut bytes, &mut self.numbers)
            {
                lost += 1;
                lost_series |= path.ends_with("series.image");
            }
            copy.env.disk.create_dir_all(path.parent().expect("has one")).expect("a good disk");
            let file = copy.env.disk.open(&path, Open::Create).expect("a good disk");
            file.append(&bytes).expect("a good disk");
        }
        let db = open(&copy, self.segment_bytes)
            .unwrap_or_else(|error| panic!("refuses to start without sections: {error}"));
        let read = contents(&db);
        let back = read.iter().find(|(key, bits)| whole.get(key) != Some(bits));
        assert_eq!(back, None, "without {lost} sections");
        // What came since the last start is in segments that no image has made superfluous.
        if self.segment_bytes == WHOLE_LIFE && !lost_series {
            let mut new = whole.iter().filter(|(key, _)| !self.found.contains_key(*key));
            let missing = new.find(|(key, _)| !read.contains_key(*key));
            assert_eq!(missing, None, "without {lost} sections");
            self.totals.samples_logged +=
                whole.keys().filter(|key| !self.found.contains_key(*key)).count() as u64;
        }
        assert!(lost == 0 || db.status().damage_found >= lost as u64);
        self.totals.sections_lost += lost as u64;
        self.totals.samples_lost += (whole.len() - read.len()) as u64;
    }

    fn look(&mut self) {
        let db = open(&self.simulation, self.segment_bytes)
            .unwrap_or_else(|error| panic!("refuses to start: {error}"));
        self.note(|| format!("start: {:?}", db.status().blocks));
        let whole = contents(&db);
        self.ledger.check_since(self.now() - RETENTION_MS, &whole, "after a crash");
        // The log's end may be torn; everything else is whole or not there.
        let damage = db.status().damage;
        assert!(damage.iter().all(|damage| damage.path.ends_with(".wal")), "{damage:?}");
        let mut files = self.simulation.disk.files();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "tmp"));
        assert!(files.is_empty(), "half-made files stay: {files:?}");
        if self.one_in(4) {
            self.lose_sections(&whole);
        }
        self.found = whole;
        self.ledger.forget_before(self.now() - 2 * RETENTION_MS);
        self.totals.acknowledged = self.totals.acknowledged.max(self.ledger.acknowledged() as u64);
        self.totals.deleted = self.totals.deleted.max(self.ledger.deleted() as u64);
        self.db = Some(db);
    }
}
