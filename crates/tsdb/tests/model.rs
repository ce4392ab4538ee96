//! Random work on a database against a `BTreeMap` that knows what must come out.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env};
use tidewatch_model::{Batch, Labels, MatchOp, Matcher, RawLabels, STALE_NAN, Sample};
use tidewatch_storage::{Append, Latest, Refusal, Scratch, Select, TimeRange};
use tidewatch_tsdb::{Db, DbOptions};

use support::{ALL, Contents, contents, contents_of};

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
    Restart {
        fate: u64,
    },
    /// Some hours without samples.
    Sleep {
        hours: i64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (any::<u32>(), 0..3i64, 0..40u32).prop_map(|(absent, quiet, value)| Op::Scrape { absent, quiet, value }),
        4 => (0..SERIES, 0..300i64, 0..2i64, 0..4u32)
            .prop_map(|(series, back, offset, value)| Op::Late { series, back, offset: offset * 7, value }),
        1 => Just(Op::Jobs),
        1 => (0..5u64).prop_map(|fate| Op::Restart { fate }),
        1 => (1..4i64).prop_map(|hours| Op::Sleep { hours }),
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

struct Run {
    simulation: Simulation,
    db: Option<Db>,
    model: BTreeMap<(usize, i64), u64>,
}

impl Run {
    fn new() -> Run {
        let mut run = Run { simulation: Env::simulated(11), db: None, model: BTreeMap::new() };
        run.open();
        run
    }

    fn open(&mut self) {
        self.db = None;
        let options =
            DbOptions { retention_ms: Some(RETENTION_MS), image_log_bytes: 500, ..DbOptions::new("/data") };
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

    fn newest(&self, series: usize) -> Option<i64> {
        self.model.range((series, i64::MIN)..=(series, i64::MAX)).next_back().map(|((_, t), _)| *t)
    }

    fn append(&mut self, samples: &[(usize, Sample)]) {
        let names: Vec<Labels> = samples.iter().map(|(series, _)| labels(*series)).collect();
        let mut batch = Batch::new();
        let mut refused = BTreeMap::new();
        for ((series, sample), name) in samples.iter().zip(&names) {
            batch.push(RawLabels::Canonical(name.as_bytes()), &[*sample]);
            let key = (*series, sample.timestamp);
            match self.model.get(&key) {
                Some(bits) if *bits == sample.value.to_bits() => {}
                Some(_) => *refused.entry(Refusal::Conflict).or_insert(0) += 1,
                None if self.newest(*series).is_some_and(|newest| sample.timestamp < newest - WINDOW_MS) => {
                    *refused.entry(Refusal::TooOld).or_insert(0) += 1;
                }
                None => {
                    self.model.insert(key, sample.value.to_bits());
                }
            }
        }
        let outcome = self.db().append(&batch).expect("takes writes");
        let found: BTreeMap<Refusal, u64> = outcome.refused.into_iter().collect();
        assert_eq!(found, refused);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Scrape { absent, quiet, value: n } => {
                self.simulation.clock.advance_ms((STEP_MS * (1 + quiet * quiet)) as u64);
                let timestamp = self.now();
                let present = (0..SERIES).filter(|i| absent >> (i + 8) & absent >> i & 1 == 0);
                let sample = |i: usize| (i, Sample { timestamp, value: value(n + i as u32, timestamp) });
                self.append(&present.map(sample).collect::<Vec<_>>());
            }
            Op::Late { series, back, offset, value: n } => {
                let timestamp = self.now() - back * STEP_MS - offset;
                self.append(&[(series, Sample { timestamp, value: value(n, timestamp) })]);
            }
            Op::Jobs => {
                while let Some(job) = self.db().next_job(self.now()) {
                    self.db().run(job).expect("a good disk");
                }
            }
            Op::Restart { fate } => {
                self.db().commit().expect("a good disk");
                self.simulation.disk.crash(fate);
                self.open();
            }
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
        let mut found = Contents::new();
        let mut visit = |series: usize, latest: Latest| {
            let Latest::Float { timestamp, value } = latest else { panic!("only floats went in") };
            found.insert((selection.labels(series).to_string(), timestamp), value.to_bits());
        };
        selection
            .latest(0..selection.len(), after, at, &mut Scratch::default(), &mut visit)
            .expect("readable");
        let newest =
            (0..SERIES).filter_map(|series| self.model.range((series, after + 1)..=(series, at)).next_back());
        let expected: Contents =
            newest.map(|((series, t), bits)| ((labels(*series).to_string(), *t), *bits)).collect();
        assert_eq!(found, expected);
    }
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
