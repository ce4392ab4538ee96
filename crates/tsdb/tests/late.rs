//! Late samples whose times blocks have: a repeat is one, another value is refused, and what a query shows is what was
//! acknowledged. Told as scripts: a line is something done and, behind `=>`, what became of it.

mod support;

use std::path::Path;

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env};
use tidewatch_model::histogram::{Histogram, Span};
use tidewatch_model::{
    Batch, BatchHistogram, Labels, Matcher, NativeHistogram, RawLabels, STALE_NAN, STALE_NAN_BITS, Sample,
};
use tidewatch_storage::{Append, AppendOutcome, TimeRange};
use tidewatch_tsdb::block::{StoredRun, StoredValues};
use tidewatch_tsdb::{Backfill, Db, DbOptions, Job};

use support::{contents, fingerprint};

const MINUTE: i64 = 60_000;

enum Value {
    Float(f64),
    Histogram(NativeHistogram),
}

/// A value as scripts have it: a number, `h` and a number for a histogram, or what ends a series of either kind.
fn value(text: &str) -> Value {
    let histogram = |count: i64| Histogram {
        count: count as u64,
        sum: count as f64,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_deltas: vec![count],
        ..Histogram::default()
    };
    match text {
        "end" => Value::Float(STALE_NAN),
        "hend" => Value::Histogram(NativeHistogram::stale()),
        _ => match text.strip_prefix('h') {
            Some(count) => {
                Value::Histogram(NativeHistogram::Integer(histogram(count.parse().expect("a count"))))
            }
            None => Value::Float(text.parse().expect("a number")),
        },
    }
}

/// `x 3=1 4=h2`: a series, and its samples by minutes.
fn series(text: &str) -> (Labels, Vec<(i64, Value)>) {
    let mut words = text.split_whitespace();
    let labels = Labels::from_pairs([("__name__", words.next().expect("a series"))]);
    let sample = |word: &str| {
        let (minute, text) = word.split_once('=').expect("a sample");
        (minute.parse().expect("a minute"), value(text))
    };
    (labels, words.map(sample).collect())
}

fn told(outcome: &AppendOutcome) -> String {
    let taken = outcome.accepted + outcome.accepted_histograms - outcome.duplicates;
    let counts = [(taken, "taken".to_owned()), (outcome.duplicates, "repeated".to_owned())];
    let refused =
        outcome.refused.iter().map(|(refusal, count)| (*count, format!("{refusal:?}").to_lowercase()));
    let all = counts.into_iter().chain(refused).filter(|(count, _)| *count > 0);
    all.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

struct World {
    simulation: Simulation,
    start: i64,
    db: Option<Db>,
}

impl World {
    /// A store that is empty, at minute 60.
    fn new() -> World {
        let simulation = Env::simulated(3);
        let start = simulation.clock.wall_ms();
        simulation.clock.advance_ms(60 * MINUTE as u64);
        let mut world = World { simulation, start, db: None };
        world.open();
        world
    }

    fn open(&mut self) {
        let db = Db::open(self.simulation.env.clone(), DbOptions::new("/data")).expect("opens");
        db.recover().expect("recovers");
        self.db = Some(db);
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    fn send(&self, text: &str) -> String {
        let all: Vec<_> = text.split(';').map(series).collect();
        let mut batch = Batch::new();
        for (labels, samples) in &all {
            let name = RawLabels::Canonical(labels.as_bytes());
            for (minute, value) in samples {
                let timestamp = self.start + minute * MINUTE;
                match value {
                    Value::Float(value) => batch.push(name, &[Sample { timestamp, value: *value }]),
                    Value::Histogram(value) => {
                        batch.push_histograms(
                            name,
                            &[BatchHistogram { timestamp, start: 0, value: value.clone() }],
                        );
                    }
                }
            }
        }
        let outcome = self.db().append(&batch).expect("takes writes");
        self.db().commit().expect("a good disk");
        told(&outcome)
    }

    fn import(&mut self, text: &str) {
        self.db = None;
        let mut backfill = Backfill::open(&self.simulation.env, Path::new("/data")).expect("opens");
        let (labels, samples) = series(text);
        for (minute, value) in samples {
            let timestamps = &[self.start + minute * MINUTE];
            let Value::Float(value) = value else { panic!("floats are imported") };
            let values = &[value];
            let run = StoredRun { timestamps, values: StoredValues::Floats(values), starts: None };
            backfill.push(&labels, &run).expect("can be stored");
        }
        backfill.flush().expect("a good disk");
        drop(backfill);
        self.open();
    }

    fn damage(&mut self) {
        self.db = None;
        for path in self.simulation.disk.files() {
            if path.extension().is_some_and(|extension| extension == "block") {
                let mut bytes = self.simulation.disk.peek(&path).expect("there");
                // The first columns of timestamps and values, and the copy of the former.
                bytes[16..48].iter_mut().for_each(|byte| *byte ^= 0x10);
                self.simulation.disk.poke(&path, &bytes).expect("there");
            }
        }
        self.open();
    }

    /// What a query shows of a series: `3=1 4=h`.
    fn shown(&self, name: &str) -> String {
        let name = format!("{{__name__=\"{name}\"}}");
        let contents = contents(self.db());
        let fingerprint = |count: i32| match value(&format!("h{count}")) {
            Value::Histogram(histogram) => fingerprint(&histogram.to_float()),
            Value::Float(_) => unreachable!("said to be a histogram"),
        };
        let histograms: Vec<(i32, u64)> = (0..10).map(|count| (count, fingerprint(count))).collect();
        let one = |((_, time), bits): (&(String, i64), &u64)| {
            let histogram = histograms.iter().find(|(_, known)| known == bits);
            let value = match histogram {
                Some((count, _)) => format!("h{count}"),
                None if *bits == STALE_NAN_BITS => "end".to_owned(),
                None => f64::from_bits(*bits).to_string(),
            };
            format!("{}={value}", (time - self.start) / MINUTE)
        };
        let of_series = contents.iter().filter(|((series, _), _)| *series == name);
        of_series.map(one).collect::<Vec<_>>().join(" ")
    }

    fn run(&mut self, line: &str) -> String {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("show", name) => return self.shown(name),
            ("compact", _) => self.db().compact_whole().expect("a good disk"),
            ("leave", _) => self.db().run(Job::CutStale).expect("a good disk"),
            ("wait", minutes) => {
                self.simulation.clock.advance_ms(minutes.parse::<u64>().expect("minutes") * MINUTE as u64);
            }
            ("restart", _) => {
                self.db = None;
                self.simulation.disk.crash(0);
                self.open();
            }
            ("damage", _) => self.damage(),
            ("import", samples) => self.import(samples),
            ("delete", name) => {
                let all = TimeRange { start: i64::MIN, end: i64::MAX };
                self.db().delete(&[Matcher::equal("__name__", name)], all).expect("a good disk");
            }
            _ => return self.send(line),
        }
        String::new()
    }
}

#[track_caller]
fn check(script: &str) {
    let mut world = World::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (done, expected) = line.split_once("=>").unwrap_or((line, ""));
        assert_eq!(world.run(done.trim()), expected.trim(), "{done} of{script}");
    }
}

#[test]
fn another_value_than_that_of_a_block_is_refused() {
    check(
        "
        x 10=1 20=2 30=3 58=4           => 4 taken
        compact
        x 20=7                          => 1 conflict
        x 20=2                          => 1 repeated
        x 10=1 15=5 20=7 30=3 40=6      => 2 taken, 2 repeated, 1 conflict
        x 15=5 40=7                     => 1 repeated, 1 conflict
        x 60=8 20=7; y 20=1             => 2 taken, 1 conflict
        show x                          => 10=1 15=5 20=2 30=3 40=6 58=4 60=8
        restart
        x 20=7 15=5 40=6 60=8           => 3 repeated, 1 conflict
        show x                          => 10=1 15=5 20=2 30=3 40=6 58=4 60=8
        compact
        restart
        x 15=4 15=5                     => 1 repeated, 1 conflict
        ",
    );
}

#[test]
fn markers_of_staleness_and_histograms_are_compared_as_in_the_head() {
    check(
        "
        x 10=1 20=end 58=4              => 3 taken
        h 10=h1 20=hend 30=h3 58=h4     => 4 taken
        compact
        x 20=end 10=end                 => 1 repeated, 1 conflict
        x 20=hend                       => 1 repeated
        x 10=h1 20=1                    => 2 conflict
        h 10=h1 20=hend 30=h4           => 2 repeated, 1 conflict
        h 20=end                        => 1 repeated
        h 30=end 10=1                   => 2 conflict
        h 15=h2 25=5 60=end             => 3 taken
        h 15=h2 15=h3 25=h5 25=5        => 2 repeated, 2 conflict
        show x                          => 10=1 20=end 58=4
        show h                          => 10=h1 15=h2 20=end 25=5 30=h3 58=h4 60=end
        restart
        h 15=h3 30=h3 25=5 25=h5        => 2 repeated, 2 conflict
        ",
    );
}

#[test]
fn what_is_deleted_in_a_block_is_not_there() {
    check(
        "
        x 10=1 20=2 58=4                => 3 taken
        compact
        delete x
        x 20=7                          => 1 taken
        x 20=2                          => 1 conflict
        show x                          => 20=7
        ",
    );
}

#[test]
fn series_that_left_and_series_that_were_imported_are_known_by_their_blocks() {
    check(
        "
        x 10=1 20=2 30=3 40=end; y 10=1 => 5 taken
        leave
        x 20=7 20=2                     => 1 repeated, 1 conflict
        x 15=5                          => 1 taken
        x 20=7 35=6 30=7                => 1 taken, 2 conflict
        x 50=8 40=1                     => 1 taken, 1 conflict
        show x                          => 10=1 15=5 20=2 30=3 35=6 40=end 50=8
        ",
    );
    check(
        "
        h 10=h1 20=h2 30=h3 40=hend     => 4 taken
        leave
        h 20=h7 20=h2                   => 1 repeated, 1 conflict
        h 15=h5                         => 1 taken
        h 20=h7 35=h6 30=7              => 1 taken, 2 conflict
        h 15=h6 50=h8 40=h1             => 1 taken, 2 conflict
        show h                          => 10=h1 15=h5 20=h2 30=h3 35=h6 40=end 50=h8
        ",
    );
    check(
        "
        x 10=1                          => 1 taken
        import x 10=9 20=2 30=3 40=4
        x 10=1 10=9                     => 1 repeated, 1 conflict
        x 25=5                          => 1 taken
        x 30=7 40=4 50=6                => 1 taken, 1 repeated, 1 conflict
        x 40=7                          => 1 conflict
        show x                          => 10=1 20=2 25=5 30=3 40=4 50=6
        ",
    );
}

/// Nobody can tell, and queries say that something is damaged.
#[test]
fn a_block_that_can_not_be_read_refuses_nothing() {
    check(
        "
        x 10=1 20=2 58=4                => 3 taken
        compact
        damage
        x 20=7                          => 1 taken
        ",
    );
}

/// A start that replays a late sample begins a run with it.
#[test]
fn a_series_that_left_is_known_by_its_block_after_another_start() {
    check(
        "
        x 10=1 20=2 30=3 40=end         => 4 taken
        h 10=h1 20=h2 30=h3 40=hend     => 4 taken
        leave
        x 15=5; h 15=h5                 => 2 taken
        restart
        x 20=7 25=6 30=3; h 20=h7 25=h6 => 2 taken, 1 repeated, 2 conflict
        x 55=1 57=2; h 55=h1 57=h2      => 4 taken
        x 56=1 40=1; h 56=h1 40=h1      => 2 taken, 2 conflict
        show x                          => 10=1 15=5 20=2 25=6 30=3 40=end 55=1 56=1 57=2
        show h                          => 10=h1 15=h5 20=h2 25=h6 30=h3 40=end 55=h1 56=h1 57=h2
        ",
    );
}
