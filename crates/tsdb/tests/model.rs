//! Random work on a database against a `BTreeMap` that knows what must come out.

mod numbers;
mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env};
use tidewatch_model::histogram::{Histogram, Span};
use tidewatch_model::{
    Batch, BatchHistogram, Labels, MatchOp, Matcher, NativeHistogram, RawLabels, STALE_NAN, Sample,
};
use tidewatch_storage::{Append, Latest, Refusal, Scratch, Select, Selection, TimeRange};
use tidewatch_tsdb::{Db, DbOptions, Job};

use numbers::{Numbers, variable};
use support::{ALL, Contents, contents, contents_of, fingerprint};

const STEP_MS: i64 = 15_000;
const WINDOW_MS: i64 = 60 * 60 * 1000;
const RETENTION_MS: i64 = 12 * 60 * 60 * 1000;

#[derive(Debug, Clone)]
enum Op {
    /// A scrape of all series but those of `absent`, after so many steps of quiet.
    Scrape {
        absent: u32,
        quiet: i64,
        value: u32,
    },
    /// A sample of one series, so many steps and milliseconds back.
    Late {
        series: usize,
        back: i64,
        offset: i64,
        value: u32,
    },
    Jobs,
    /// Lets series leave the head that have ended, however few.
    CutStale,
    /// Moves all but the newest minutes to one block.
    CompactWhole,
    Restart {
        fate: u64,
    },
    /// Some hours without samples.
    Sleep {
        hours: i64,
    },
    /// Deletes series by their numbers from so many steps back on, for so many steps, or for all time.
    Delete {
        kind: u8,
        series: usize,
        back: i64,
        steps: i64,
    },
    /// Rewrites blocks without what is deleted.
    Clean,
    /// Makes a snapshot, opens it, and compares.
    Snapshot {
        skip_head: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (any::<u32>(), 0..3i64, 0..40u32).prop_map(|(absent, quiet, value)| Op::Scrape { absent, quiet, value }),
        4 => (0..SERIES, 0..300i64, 0..2i64, 0..4u32)
            .prop_map(|(series, back, offset, value)| Op::Late { series, back, offset: offset * 7, value }),
        1 => Just(Op::Jobs),
        1 => Just(Op::CutStale),
        1 => Just(Op::CompactWhole),
        1 => (0..5u64).prop_map(|fate| Op::Restart { fate }),
        1 => (1..4i64).prop_map(|hours| Op::Sleep { hours }),
        1 => (0..4u8, 0..SERIES, 0..2000i64, 0..2000i64)
            .prop_map(|(kind, series, back, steps)| Op::Delete { kind, series, back, steps }),
        1 => Just(Op::Clean),
        1 => any::<bool>().prop_map(|skip_head| Op::Snapshot { skip_head }),
    ]
}

const SERIES: usize = 12;

fn labels(i: usize) -> Labels {
    Labels::from_pairs([("__name__", ["a", "b", "c"][i % 3]), ("i", &format!("{i:02}"))])
}

/// Values of every kind that the codecs tell apart.
fn value(n: u32, at: i64) -> f64 {
    match n % 8 {
        0 => 0.0,
        1 => at as f64 / 1000.0,
        2 => f64::from(n) * 0.1,
        3 => STALE_NAN,
        4 => -f64::from(n),
        5 => (at as f64).sqrt(),
        6 => f64::INFINITY,
        _ => 42.0,
    }
}

#[derive(Debug, Clone)]
enum Value {
    Float(f64),
    Histogram(NativeHistogram),
}

impl Value {
    /// As [`Contents`] have it.
    fn bits(&self) -> u64 {
        match self {
            Value::Float(value) => value.to_bits(),
            Value::Histogram(histogram) => fingerprint(&histogram.to_float()),
        }
    }
}

/// What a series has: the last four have histograms, and two of them floats now and then.
fn value_of(series: usize, n: u32, at: i64) -> Value {
    if series < SERIES - 4 || series >= SERIES - 2 && n % 5 < 2 {
        return Value::Float(value(n, at));
    }
    let count = u64::from(n) * 2 + at as u64 / 1000 % 1000;
    let integer = Histogram {
        schema: 1 + i32::from(n.is_multiple_of(17)),
        count: 2 * count,
        sum: count as f64 * 0.5,
        positive_spans: vec![Span { offset: -1, length: 1 }, Span { offset: 3, length: 1 }],
        positive_deltas: vec![count as i64, 0],
        ..Histogram::default()
    };
    Value::Histogram(match n % 11 {
        0 => NativeHistogram::stale(),
        1 => NativeHistogram::Float(integer.to_float()),
        _ => NativeHistogram::Integer(integer),
    })
}

struct Run {
    simulation: Simulation,
    db: Option<Db>,
    model: BTreeMap<(usize, i64), u64>,
    /// The newest time that each series had, deleted or not.
    newest: BTreeMap<usize, i64>,
    /// Until when samples of a series may be in blocks alone, because it had ended or somebody asked for it.
    may_have_left: BTreeMap<usize, i64>,
}

impl Run {
    fn new() -> Run {
        let mut run = Run {
            simulation: Env::simulated(11),
            db: None,
            model: BTreeMap::new(),
            newest: BTreeMap::new(),
            may_have_left: BTreeMap::new(),
        };
        run.open();
        run
    }

    fn open(&mut self) {
        self.db = None;
        let options = DbOptions {
            retention_ms: Some(RETENTION_MS),
            image_log_bytes: 500,
            stale_share: 0.2,
            ..DbOptions::new("/data")
        };
        let db = Db::open(self.simulation.env.clone(), options).expect("opens");
        db.recover().expect("recovers");
        self.db = Some(db);
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn now(&self) -> i64 {
        self.simulation.clock.wall_ms()
    }

    fn append(&mut self, samples: &[(usize, i64, Value)]) {
        if let [(series, timestamp, value)] = samples
            && self.may_have_left.get(series).is_some_and(|until| timestamp <= until)
        {
            return self.append_to_one_that_left(*series, *timestamp, value);
        }
        let names: Vec<Labels> = samples.iter().map(|(series, ..)| labels(*series)).collect();
        let mut batch = Batch::new();
        let mut refused: BTreeMap<Refusal, u64> = BTreeMap::new();
        // Where the head has forgotten what it had at a time beyond the window, a repeat of that is
        // too old: blocks have it.
        let mut old_repeats = 0;
        for ((series, timestamp, value), name) in samples.iter().zip(&names) {
            let (timestamp, name) = (*timestamp, RawLabels::Canonical(name.as_bytes()));
            match value {
                Value::Float(value) => batch.push(name, &[Sample { timestamp, value: *value }]),
                Value::Histogram(value) => {
                    let histogram = BatchHistogram { timestamp, start: 0, value: value.clone() };
                    batch.push_histograms(name, &[histogram]);
                }
            }
            let key = (*series, timestamp);
            let newest = self.newest.get(series).copied();
            let is_old = newest.is_some_and(|newest| timestamp < newest - WINDOW_MS);
            old_repeats += u64::from(is_old && self.model.contains_key(&key));
            match self.model.get(&key) {
                Some(bits) if *bits == value.bits() => {}
                Some(_) => {
                    *refused.entry(Refusal::Conflict).or_insert(0) += 1;
                }
                None if is_old => {
                    *refused.entry(Refusal::TooOld).or_insert(0) += 1;
                }
                None => {
                    self.model.insert(key, value.bits());
                    let newest = self.newest.entry(*series).or_insert(timestamp);
                    *newest = (*newest).max(timestamp);
                }
            }
        }
        let outcome = self.db().append(&batch).expect("takes writes");
        let found: BTreeMap<Refusal, u64> = outcome.refused.into_iter().collect();
        if old_repeats > 0 && found.contains_key(&Refusal::TooOld) {
            assert_eq!(samples.len(), 1, "only late samples are old, and they come alone");
            return;
        }
        assert_eq!(found, refused);
    }

    /// A late sample of a series that may have left the head: nothing there tells what it had, so its age is no
    /// reason to refuse it.
    fn append_to_one_that_left(&mut self, series: usize, timestamp: i64, value: &Value) {
        let labels = labels(series);
        let mut batch = Batch::new();
        let name = RawLabels::Canonical(labels.as_bytes());
        match value {
            Value::Float(value) => batch.push(name, &[Sample { timestamp, value: *value }]),
            Value::Histogram(value) => {
                batch.push_histograms(name, &[BatchHistogram { timestamp, start: 0, value: value.clone() }]);
            }
        }
        let outcome = self.db().append(&batch).expect("takes writes");
        let accepted = outcome.accepted + outcome.accepted_histograms == 1;
        let known = self.model.get(&(series, timestamp)).copied();
        let newest = self.newest.get(&series).copied();
        let is_old = newest.is_some_and(|newest| timestamp < newest - WINDOW_MS);
        let refused: Vec<Refusal> = outcome.refused.iter().map(|(refusal, _)| *refusal).collect();
        match known {
            Some(bits) if bits == value.bits() => assert!(accepted || is_old, "{refused:?}"),
            Some(_) if is_old => assert!(!accepted, "{refused:?}"),
            Some(_) => assert_eq!(refused, [Refusal::Conflict]),
            None if accepted => {
                self.model.insert((series, timestamp), value.bits());
            }
            None => assert!(is_old && refused == [Refusal::TooOld], "{refused:?}"),
        }
    }

    /// Notes what may leave the head with the next cut of series that ended, or of all.
    fn note_ended(&mut self) {
        for (series, newest) in &self.newest {
            self.may_have_left.insert(*series, *newest);
        }
    }

    /// Deletes in the database and in the map.
    fn delete(&mut self, kind: u8, series: usize, range: TimeRange) {
        let name = format!("{series:02}");
        let metric = ["a", "b", "c"][series % 3];
        let matchers = match kind {
            0 => vec![Matcher::equal("i", &name)],
            1 => vec![Matcher::equal("__name__", metric)],
            2 => vec![Matcher::new(MatchOp::Regex, "i", "0[0-4]").expect("compiles")],
            _ => vec![Matcher::new(MatchOp::NotEqual, "i", &name).expect("compiles")],
        };
        self.db().delete(&matchers, range).expect("a good disk");
        self.model.retain(|(series, time), _| {
            let labels = labels(*series);
            let is_it =
                matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or("")));
            !(is_it && range.start <= *time && *time <= range.end)
        });
    }

    fn snapshot(&self, skip_head: bool) {
        let name = self.db().snapshot(skip_head).expect("a good disk");
        let dir = std::path::Path::new("/data/snapshots").join(name);
        {
            let options = DbOptions { retention_ms: None, ..DbOptions::new(&dir) };
            let copy = Db::open(self.simulation.env.clone(), options).expect("opens");
            copy.recover().expect("recovers");
            let (found, all) = (contents(&copy), contents(self.db()));
            if skip_head {
                assert!(found.iter().all(|(key, bits)| all.get(key) == Some(bits)));
            } else {
                assert_eq!(found, all);
            }
        }
        self.simulation.env.disk.remove_dir_all(&dir).expect("a good disk");
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Scrape { absent, quiet, value: n } => {
                self.simulation.clock.advance_ms((STEP_MS * (1 + quiet * quiet)) as u64);
                let timestamp = self.now();
                let present = (0..SERIES).filter(|i| absent >> (i + 8) & absent >> i & 1 == 0);
                let sample = |i: usize| (i, timestamp, value_of(i, n + i as u32, timestamp));
                self.append(&present.map(sample).collect::<Vec<_>>());
            }
            Op::Late { series, back, offset, value: n } => {
                let timestamp = self.now() - back * STEP_MS - offset;
                self.append(&[(series, timestamp, value_of(series, n, timestamp))]);
            }
            Op::Jobs => {
                while let Some(job) = self.db().next_job(self.now()) {
                    if job == Job::CutStale {
                        self.note_ended();
                    }
                    self.db().run(job).expect("a good disk");
                }
            }
            Op::CutStale => {
                self.note_ended();
                self.db().run(Job::CutStale).expect("a good disk");
            }
            Op::CompactWhole => {
                self.note_ended();
                self.db().compact_whole().expect("a good disk");
            }
            Op::Restart { fate } => {
                self.db().commit().expect("a good disk");
                self.simulation.disk.crash(fate);
                self.open();
            }
            Op::Delete { kind, series, back, steps } => {
                let start = if steps == 0 { i64::MIN } else { self.now() - back * STEP_MS };
                let end = if steps % 5 == 0 { i64::MAX } else { start.saturating_add(steps * STEP_MS) };
                self.delete(kind, series, TimeRange { start, end });
            }
            Op::Clean => self.db().clean_tombstones().expect("a good disk"),
            Op::Snapshot { skip_head } => self.snapshot(skip_head),
            Op::Sleep { hours } => self.simulation.clock.advance_ms((hours * 3_600_000) as u64),
        }
    }

    /// What a query must answer; samples beyond retention may be there or not.
    fn expected(&self, range: TimeRange) -> Contents {
        self.model
            .iter()
            .filter(|((_, t), _)| range.start <= *t && *t <= range.end)
            .map(|((series, t), bits)| ((labels(*series).to_string(), *t), *bits))
            .collect()
    }

    fn check(&self) {
        let kept = TimeRange { start: self.now() - RETENTION_MS, end: i64::MAX };
        assert_eq!(contents_of(self.db(), &[], kept), self.expected(kept));
        let everything = self.expected(ALL);
        assert!(contents(self.db()).iter().all(|(key, bits)| everything.get(key) == Some(bits)));
        let part = TimeRange { start: self.now() - 3 * 3_600_000, end: self.now() - 3_600_000 };
        let matcher = Matcher::new(MatchOp::Regex, "i", "0[1-7]").expect("compiles");
        let mut expected = self.expected(part);
        expected.retain(|(name, _), _| ('1'..='7').any(|digit| name.contains(&format!("i=\"0{digit}\""))));
        assert_eq!(contents_of(self.db(), &[matcher], part), expected);
        for back in [0, STEP_MS * 3 + 1, 2_000_000, 9_000_000] {
            self.check_latest(self.now() - back - 300_000, self.now() - back);
        }
    }

    fn check_latest(&self, after: i64, at: i64) {
        let range = TimeRange { start: after + 1, end: at };
        let selection = self.db().select(&[], range).expect("complete");
        let found = latest_of(&*selection, selection.len(), after, at);
        let newest =
            (0..SERIES).filter_map(|series| self.model.range((series, after + 1)..=(series, at)).next_back());
        let expected: Contents =
            newest.map(|((series, t), bits)| ((labels(*series).to_string(), *t), *bits)).collect();
        assert_eq!(found, expected);
        for most in [1, 4, SERIES] {
            // Of a selector that nobody else asks for, so that it is not known.
            let any = Matcher::new(MatchOp::NotEqual, "i", &format!("none{most}")).expect("no expression");
            let first = self.db().select_first(&[any], range, most, &mut |_| true).expect("complete");
            let count = first.len();
            assert!(count >= most.min(selection.len()), "{count} of {} for {most}", selection.len());
            assert!((0..count).all(|series| first.labels(series) == selection.labels(series)));
            assert_eq!(latest_of(&*first, count, after, at), latest_of(&*selection, count, after, at));
        }
    }
}

/// The newest samples of the first series of a selection.
fn latest_of(selection: &dyn Selection, count: usize, after: i64, at: i64) -> Contents {
    let mut found = Contents::new();
    let mut visit = |series: usize, latest: Latest| {
        let (timestamp, bits) = match latest {
            Latest::Float { timestamp, value } => (timestamp, value.to_bits()),
            Latest::Histogram { timestamp, value } => (timestamp, fingerprint(&value)),
        };
        found.insert((selection.labels(series).to_string(), timestamp), bits);
    };
    selection.latest(0..count, after, at, &mut Scratch::default(), &mut visit).expect("readable");
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn whatever_is_done_the_database_answers_as_a_map_would(ops in proptest::collection::vec(op(), 1..400)) {
        let mut run = Run::new();
        for (at, op) in ops.iter().enumerate() {
            run.apply(op);
            if at % 40 == 39 {
                run.check();
            }
        }
        run.check();
    }
}

/// What a long life does next.
fn random_op(numbers: &mut Numbers) -> Op {
    match numbers.upto(99) {
        0 => Op::Jobs,
        1 if numbers.upto(1) == 0 => Op::CutStale,
        1 => Op::Jobs,
        2 if numbers.upto(3) == 0 => Op::CompactWhole,
        2 => Op::Restart { fate: numbers.upto(4) },
        3 => Op::Sleep { hours: 1 + numbers.upto(2) as i64 },
        4 => {
            let (kind, series) = (numbers.upto(3) as u8, numbers.upto(SERIES as u64 - 1) as usize);
            Op::Delete { kind, series, back: numbers.upto(2000) as i64, steps: numbers.upto(2000) as i64 }
        }
        5 if numbers.upto(3) == 0 => Op::Clean,
        5 if numbers.upto(9) == 0 => Op::Snapshot { skip_head: numbers.upto(1) == 0 },
        6..=30 => Op::Late {
            series: numbers.upto(SERIES as u64 - 1) as usize,
            back: numbers.upto(299) as i64,
            offset: numbers.upto(1) as i64,
            value: numbers.upto(3) as u32,
        },
        _ => {
            let (absent, value) = (numbers.upto(u32::MAX.into()) as u32, numbers.upto(39) as u32);
            Op::Scrape { absent, quiet: numbers.upto(2) as i64, value }
        }
    }
}

/// A long life of one database. `TIDEWATCH_MODEL_OPS` makes it longer, `TIDEWATCH_MODEL_SEED` another.
#[test]
fn a_long_life_answers_as_a_map_would() {
    let ops = variable("TIDEWATCH_MODEL_OPS").unwrap_or(4_000);
    let seed = variable("TIDEWATCH_MODEL_SEED").unwrap_or(1);
    let mut numbers = Numbers(seed);
    let mut run = Run::new();
    for at in 0..ops {
        let op = random_op(&mut numbers);
        let step = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run.apply(&op);
            if at % 250 == 249 {
                run.check();
                // What is long past retention is gone from both.
                let oldest = run.now() - 6 * RETENTION_MS;
                run.model.retain(|(_, time), _| *time >= oldest);
            }
        }));
        if let Err(panic) = step {
            eprintln!("operation {at} of seed {seed}: {op:?}");
            std::panic::resume_unwind(panic);
        }
    }
    run.check();
    let counters = run.db().status().counters;
    eprintln!("== {ops} operations of seed {seed}: {counters:?}");
}
