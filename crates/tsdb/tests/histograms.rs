//! Native histograms, start timestamps, exemplars and metadata on the way from a batch through
//! log, head, images and blocks, told as text.

use std::ops::ControlFlow;

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env};
use tidewatch_model::histogram::{CounterResetHint, Histogram, Span};
use tidewatch_model::{
    Batch, BatchExemplar, BatchHistogram, Labels, Matcher, Metadata, MetricType, NativeHistogram, RawLabels,
    STALE_NAN, Sample, spell_pair,
};
use tidewatch_storage::{Append, AppendOutcome, Refusal, RunValues, Scratch, Select, TimeRange};
use tidewatch_tsdb::{Db, DbOptions};

const MINUTE: i64 = 60_000;
const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

struct World {
    simulation: Simulation,
    db: Option<Db>,
    start: i64,
}

fn latency(count: u64) -> Histogram {
    Histogram {
        schema: 1,
        count: 2 * count,
        sum: count as f64,
        positive_spans: vec![Span { offset: 0, length: 2 }],
        positive_deltas: vec![count as i64, 0],
        ..Histogram::default()
    }
}

impl World {
    fn new() -> World {
        let simulation = Env::simulated(5);
        let start = simulation.clock.wall_ms();
        let mut world = World { simulation, db: None, start };
        world.open();
        world
    }

    fn open(&mut self) {
        self.db = None;
        let options = DbOptions {
            image_log_bytes: 300,
            exemplars_max: 3,
            retention_ms: None,
            ..DbOptions::new("/data")
        };
        let db = Db::open(self.simulation.env.clone(), options).expect("opens");
        db.recover().expect("recovers");
        self.db = Some(db);
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("open")
    }

    /// Moves the clock to a minute after the start.
    fn at(&self, minute: i64) -> i64 {
        let time = self.start + minute * MINUTE;
        let wait = time - self.simulation.clock.wall_ms();
        self.simulation.clock.advance_ms(wait.max(0) as u64);
        time
    }

    fn append(&self, batch: &Batch<'_>) -> Vec<(Refusal, u64)> {
        self.db().append(batch).expect("takes writes").refused
    }

    fn float(&self, name: &str, minute: i64, value: f64, start: i64) {
        let labels = Labels::from_pairs([("__name__", name)]);
        let mut batch = Batch::new();
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp: self.at(minute), value }]);
        batch.set_starts(&[start]);
        assert_eq!(self.append(&batch), []);
    }

    fn histogram(&self, name: &str, minute: i64, value: NativeHistogram, start: i64) {
        let labels = Labels::from_pairs([("__name__", name)]);
        let mut batch = Batch::new();
        let histogram = BatchHistogram { timestamp: self.at(minute), start, value };
        batch.push_histograms(RawLabels::Canonical(labels.as_bytes()), &[histogram]);
        assert_eq!(self.append(&batch), []);
    }

    fn delete(&self, name: &str, from: i64, to: i64) {
        let range = TimeRange { start: self.start + from * MINUTE, end: self.start + to * MINUTE };
        self.db().delete(&[Matcher::equal("__name__", name)], range).expect("a good disk");
    }

    fn jobs(&self) {
        while let Some(job) = self.db().next_job(self.simulation.clock.wall_ms()) {
            self.db().run(job).expect("a good disk");
        }
    }

    fn restart(&mut self) {
        self.db().commit().expect("a good disk");
        self.simulation.disk.crash(0);
        self.open();
    }

    /// All samples: series, minute, value, and the start where there is one.
    fn samples(&self) -> Vec<String> {
        let selection = self.db().select(&[], ALL).expect("complete");
        let mut lines = Vec::new();
        let mut visit = |series: usize, run: tidewatch_storage::Run<'_>| {
            for (at, timestamp) in run.timestamps.iter().enumerate() {
                let value = match run.values {
                    RunValues::Floats(values) if values[at].is_nan() => "stale".to_owned(),
                    RunValues::Floats(values) => values[at].to_string(),
                    RunValues::Histograms(histograms) if histograms[at].is_stale() => "{stale}".to_owned(),
                    RunValues::Histograms(histograms) => {
                        let hint = match histograms[at].hint {
                            CounterResetHint::Unknown => "",
                            CounterResetHint::Reset => " reset",
                            CounterResetHint::NotReset => " goes on",
                            CounterResetHint::Gauge => " gauge",
                        };
                        format!("{{{}{hint}}}", histograms[at].count)
                    }
                };
                let start = run.starts.map_or(0, |starts| starts[at]);
                let start = if start == 0 { String::new() } else { format!(" since {start}") };
                let name = selection.labels(series).metric_name().expect("named").to_owned();
                lines.push(format!("{name} {}: {value}{start}", (timestamp - self.start) / MINUTE));
            }
            ControlFlow::Continue(())
        };
        selection.scan(0..selection.len(), ALL, &mut Scratch::default(), &mut visit).expect("readable");
        lines
    }

    /// The same samples wherever they are: in the head, after a restart, in blocks, in larger ones.
    #[track_caller]
    fn check_everywhere(&mut self, expected: &[&str]) {
        assert_eq!(self.samples(), expected, "in the head");
        self.restart();
        assert_eq!(self.samples(), expected, "after a restart from the log");
        self.jobs();
        self.restart();
        assert_eq!(self.samples(), expected, "after a restart from images and blocks");
        for hours in [8, 30] {
            self.at(hours * 60);
            self.float("zz_newest", hours * 60, 1.0, 0);
            self.jobs();
            let mut found = self.samples();
            found.retain(|line| !line.starts_with("zz_newest"));
            assert_eq!(found, expected, "after {hours} hours");
        }
        assert!(!self.db().status().blocks.is_empty());
    }
}

fn integer(count: u64) -> NativeHistogram {
    NativeHistogram::Integer(latency(count))
}

#[test]
fn hints_and_markers_are_the_same_wherever_a_histogram_lies() {
    let mut world = World::new();
    world.histogram("h", 0, integer(1), 0);
    world.histogram("h", 1, integer(2), 0);
    world.histogram("h", 2, integer(1), 0);
    world.histogram("h", 3, NativeHistogram::stale(), 0);
    world.histogram("h", 4, integer(5), 0);
    world.histogram("h", 5, NativeHistogram::Integer(Histogram { schema: 0, ..latency(6) }), 0);
    world.histogram("h", 6, NativeHistogram::Float(latency(7).to_float()), 0);
    let gauge = Histogram { hint: CounterResetHint::Gauge, ..latency(1) };
    world.histogram("h", 7, NativeHistogram::Integer(gauge), 0);
    world.histogram("h", 9, integer(20), 0);
    world.histogram("h", 8, integer(30), 0);
    // Whoever ends a series need not know its kind.
    world.float("h", 10, STALE_NAN, 0);
    world.check_everywhere(&[
        "h 0: {2}",
        "h 1: {4 goes on}",
        "h 2: {2}",
        "h 3: {stale}",
        "h 4: {10}",
        "h 5: {12}",
        "h 6: {14}",
        "h 7: {2 gauge}",
        "h 8: {60}",
        "h 9: {40}",
        "h 10: {stale}",
    ]);
}

// Empty spans belong to no bucket: those of a few requests must not fill the memory.
#[test]
fn a_histogram_of_many_empty_spans_is_refused() {
    let world = World::new();
    for (empty, expected) in [(8190, vec![]), (8192, vec![(Refusal::InvalidHistogram, 1)])] {
        let mut value = latency(1);
        value.positive_spans.extend(vec![Span { offset: 0, length: 0 }; empty]);
        let histogram =
            BatchHistogram { timestamp: world.at(1), start: 0, value: NativeHistogram::Integer(value) };
        let labels = Labels::from_pairs([("__name__", format!("spans_{empty}").as_str())]);
        let mut batch = Batch::new();
        batch.push_histograms(RawLabels::Canonical(labels.as_bytes()), &[histogram]);
        assert_eq!(world.append(&batch), expected, "{empty} empty spans");
    }
}

#[test]
fn a_series_may_change_its_kind_and_is_read_in_the_order_of_time() {
    let mut world = World::new();
    world.float("m", 0, 1.0, 0);
    world.histogram("m", 1, integer(1), 0);
    world.histogram("m", 2, integer(2), 0);
    world.float("m", 3, 2.0, 0);
    world.histogram("m", 4, integer(3), 0);
    world.float("m", 121, 3.0, 0);
    world.histogram("m", 122, integer(4), 0);
    // One time has one value of one kind.
    let labels = Labels::from_pairs([("__name__", "m")]);
    let (name, timestamp) = (RawLabels::Canonical(labels.as_bytes()), world.at(122));
    let mut batch = Batch::new();
    batch.push(name, &[Sample { timestamp, value: 1.0 }]);
    assert_eq!(world.append(&batch), [(Refusal::Conflict, 1)]);
    let mut batch = Batch::new();
    let value = NativeHistogram::Integer(Histogram { count: 7, ..latency(1) });
    batch.push_histograms(name, &[BatchHistogram { timestamp, start: 0, value }]);
    assert_eq!(world.append(&batch), [(Refusal::InvalidHistogram, 1)]);
    world.check_everywhere(&[
        "m 0: 1",
        "m 1: {2}",
        "m 2: {4 goes on}",
        "m 3: 2",
        "m 4: {6}",
        "m 121: 3",
        "m 122: {8}",
    ]);
}

#[test]
fn deleted_histograms_stay_deleted_wherever_they_lay() {
    let mut world = World::new();
    for (minute, count) in [(0, 5), (1, 2), (2, 3), (4, 4), (5, 6), (3, 9)] {
        world.histogram("h", minute, integer(count), 0);
    }
    world.float("m", 0, 1.0, 0);
    world.histogram("m", 1, integer(1), 0);
    world.float("m", 2, 2.0, 0);
    world.histogram("gone", 0, integer(1), 0);
    // The reset goes: what followed it continues nothing.
    world.delete("h", 1, 1);
    world.delete("h", 3, 3);
    world.delete("m", 0, 1);
    world.delete("gone", -1, 1);
    world.histogram("h", 3, integer(7), 0);
    world.check_everywhere(&[
        "h 0: {10}",
        "h 2: {6}",
        "h 3: {14}",
        "h 4: {8}",
        "h 5: {12 goes on}",
        "m 2: 2",
    ]);
    let found = |world: &World| {
        let mut found = world.samples();
        found.retain(|line| !line.starts_with("zz_newest"));
        found
    };
    world.delete("h", 3, 4);
    world.delete("m", 2, 2);
    let expected = ["h 0: {10}", "h 2: {6}", "h 5: {12}"];
    assert_eq!(found(&world), expected, "through tombstones");
    world.restart();
    assert_eq!(found(&world), expected, "through tombstones after a restart");
    world.db().clean_tombstones().expect("a good disk");
    assert_eq!(found(&world), expected, "in blocks without them");
}

#[test]
fn counters_keep_the_time_at_which_they_started() {
    let mut world = World::new();
    for minute in 0..4 {
        world.float("c", minute, minute as f64, 1000);
        world.histogram("h", minute, integer(minute as u64), 2000);
    }
    world.float("c", 5, 0.0, 5000);
    world.float("c", 4, 9.0, 3000);
    world.float("c", 6, 1.0, 5000);
    world.float("c", 125, 1.0, 0);
    world.check_everywhere(&[
        "c 0: 0 since 1000",
        "c 1: 1 since 1000",
        "c 2: 2 since 1000",
        "c 3: 3 since 1000",
        "c 4: 9 since 3000",
        "c 5: 0 since 5000",
        "c 6: 1 since 5000",
        "c 125: 1",
        "h 0: {0} since 2000",
        "h 1: {2 goes on} since 2000",
        "h 2: {4 goes on} since 2000",
        "h 3: {6 goes on} since 2000",
    ]);
}

/// Late samples that a cut did not have: their starts are in no block.
#[test]
fn late_samples_before_a_cut_keep_their_start_over_a_restart() {
    let mut world = World::new();
    for minute in [12, 50] {
        world.float("c", minute, minute as f64, 1000);
        world.histogram("h", minute, integer(minute as u64), 2000);
    }
    world.simulation.clock.advance_ms(10 * MINUTE as u64);
    world.db().compact_whole().expect("a good disk");
    world.float("c", 8, 8.0, 1000);
    world.histogram("h", 8, integer(8), 2000);
    let expected = world.samples();
    assert!(expected.contains(&"c 8: 8 since 1000".to_owned()), "{expected:?}");
    world.restart();
    assert_eq!(world.samples(), expected);
}

#[test]
fn late_samples_of_a_series_that_has_no_others_each_keep_their_start() {
    let mut world = World::new();
    world.float("newest", 1, 1.0, 0);
    world.float("newest", 50, 1.0, 0);
    world.simulation.clock.advance_ms(10 * MINUTE as u64);
    world.db().compact_whole().expect("a good disk");
    for (minute, start) in [(20, 1000), (22, 1000), (10, 2000), (21, 3000)] {
        world.float("c", minute, minute as f64, start);
        world.histogram("h", minute, integer(minute as u64), start);
    }
    let expected = [
        "c 10: 10 since 2000",
        "c 20: 20 since 1000",
        "c 21: 21 since 3000",
        "c 22: 22 since 1000",
        "h 10: {20} since 2000",
        "h 20: {40} since 1000",
        "h 21: {42} since 3000",
        "h 22: {44} since 1000",
        "newest 1: 1",
        "newest 50: 1",
    ];
    assert_eq!(world.samples(), expected);
    world.restart();
    assert_eq!(world.samples(), expected);
}

/// What came since the clock is right stands among the late samples; the time up to which blocks have all
/// goes back behind it.
#[test]
fn a_clock_that_was_ahead_lets_no_second_histogram_of_a_time_in() {
    let mut world = World::new();
    world.histogram("h", 5, integer(5), 0);
    world.histogram("h", 65, integer(6), 0);
    world.simulation.clock.jump_to_ms(world.start + 6 * MINUTE);
    world.jobs();
    world.histogram("h", 6, integer(7), 0);
    world.jobs();
    let labels = Labels::from_pairs([("__name__", "h")]);
    for restarts in [false, true] {
        if restarts {
            world.restart();
        }
        for (count, refused) in [(8, vec![(Refusal::Conflict, 1)]), (7, vec![])] {
            let mut batch = Batch::new();
            let again = BatchHistogram { timestamp: world.at(6), start: 0, value: integer(count) };
            batch.push_histograms(RawLabels::Canonical(labels.as_bytes()), &[again]);
            assert_eq!(world.append(&batch), refused, "restarts: {restarts}");
        }
    }
    assert_eq!(world.samples(), ["h 5: {10}", "h 6: {14}", "h 65: {12}"]);
}

#[test]
fn exemplars_and_metadata_survive_the_log_that_had_them() {
    let mut world = World::new();
    let found = |world: &World| {
        let exemplars = world.db().exemplars(&[vec![]], ALL).expect("complete");
        let traces = exemplars.iter().flat_map(|(series, exemplars)| {
            exemplars.iter().map(move |e| format!("{series} {} {}", e.labels, e.value))
        });
        let families = world.db().metadata();
        let families =
            families.iter().map(|(name, known)| format!("{name} {} {}", known.kind.as_str(), known.help));
        traces.chain(families).collect::<Vec<_>>()
    };
    let offer = |world: &World, minute: i64| {
        let series = Labels::from_pairs([("__name__", "m")]);
        let trace = Labels::from_pairs([("trace_id", minute.to_string())]);
        let mut batch = Batch::new();
        batch.exemplars.push(BatchExemplar {
            series: RawLabels::Canonical(series.as_bytes()),
            labels: RawLabels::Canonical(trace.as_bytes()),
            value: minute as f64,
            timestamp: world.at(minute),
        });
        let help = if minute < 3 { "Old." } else { "New." };
        batch.metadata.push(Metadata { family: "m", kind: MetricType::Counter, help, unit: "" });
        assert_eq!(world.append(&batch), []);
    };
    (0..5).for_each(|minute| offer(&world, minute));
    let expected = [2, 3, 4].map(|minute| format!("{{__name__=\"m\"}} {{trace_id=\"{minute}\"}} {minute}"));
    let expected: Vec<String> = expected.into_iter().chain(["m counter New.".to_owned()]).collect();
    assert_eq!(found(&world), expected);
    world.restart();
    assert_eq!(found(&world), expected, "from the log");
    for minute in 6..40 {
        world.float("other", minute, minute as f64, 0);
        world.jobs();
    }
    let files = world.simulation.disk.files();
    assert!(!files.iter().any(|file| file.ends_with("00000001.wal")), "the log was trimmed: {files:?}");
    world.restart();
    assert_eq!(found(&world), expected, "from what was logged again");
}

/// Appends one sample and one exemplar of a series.
fn append_exemplar(db: &Db, labels: &[(&str, &str)], time: i64) -> AppendOutcome {
    let (mut series, mut trace) = (Vec::new(), Vec::new());
    labels.iter().for_each(|(name, value)| spell_pair(name.as_bytes(), value.as_bytes(), &mut series));
    spell_pair(b"trace_id", b"7f", &mut trace);
    let (series, labels) = (RawLabels::Proto(&series), RawLabels::Proto(&trace));
    let mut batch = Batch::new();
    batch.push(series, &[Sample { timestamp: time, value: 1.0 }]);
    batch.exemplars.push(BatchExemplar { series, labels, value: 1.0, timestamp: time });
    db.append(&batch).expect("takes writes")
}

// Senders of remote write 2.0 are told how many.
#[test]
fn exemplars_that_are_kept_are_counted_and_no_others() {
    let world = World::new();
    let accepted = |labels: &[(&str, &str)], minute| {
        let outcome = append_exemplar(world.db(), labels, world.at(minute));
        (outcome.accepted, outcome.accepted_exemplars)
    };
    assert_eq!(accepted(&[("__name__", "m")], 1), (1, 1));
    assert_eq!(accepted(&[("__name__", "m")], 3), (1, 1));
    assert_eq!(accepted(&[("__name__", "m")], 1), (1, 1), "a repeat");
    assert_eq!(accepted(&[("__name__", "m")], 2), (1, 0), "older than the newest");
    assert_eq!(accepted(&[("__name__", "m"), ("a", "x"), ("a", "y")], 3), (0, 0));
    assert_eq!(world.db().exemplars(&[vec![]], ALL).expect("complete")[0].1.len(), 2);

    let simulation = Env::simulated(5);
    let time = simulation.clock.wall_ms();
    let without = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
    without.recover().expect("recovers");
    let outcome = append_exemplar(&without, &[("__name__", "m")], time);
    assert_eq!((outcome.accepted, outcome.accepted_exemplars), (1, 0), "exemplar storage is off");
}

// Whoever repeats one may not be told sooner that it is kept than the first that sent it.
#[test]
fn a_repeated_exemplar_is_durable_when_the_one_before_is() {
    let world = World::new();
    let mut batch = Batch::new();
    let (m, none) = (Labels::from_pairs([("__name__", "m")]), RawLabels::Canonical(&[]));
    let series = RawLabels::Canonical(m.as_bytes());
    batch.exemplars.push(BatchExemplar { series, labels: none, value: 1.0, timestamp: world.at(1) });
    let first = world.db().append(&batch).expect("takes writes");
    let again = world.db().append(&batch).expect("takes writes");
    assert_eq!((first.accepted_exemplars, again.accepted_exemplars), (1, 1));
    assert!(again.ticket >= first.ticket && first.ticket > Default::default());
}
