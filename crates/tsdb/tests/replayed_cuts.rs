//! What a cut has moved to blocks, what came while it wrote and what was deleted afterwards: a start that
//! replays the log answers what was answered before. So does one whose images of shards are lost, as far as the log
//! goes back.
//!
//! Told as text. A time is so many minutes after the start, a value stands behind `=` (else it is the time),
//! and when its counter started behind `~`.
//!
//! ```text
//! clock 5                          somebody sets the clock
//! take x 5 6=7 8~2 9..20=1         samples of a series; `..`: one each minute
//! conflict x 5=9                   one that is refused, as there is another at its time
//! delete x 0..5
//! cut [after STEP; STEP …]         the job that is due, which must be a cut; the steps before it begins
//! cut [while STEP; STEP …]         the same while it writes
//! cut until 95                     one that nobody has asked for yet
//! roll                             the log begins its next segment
//! late 2                           how many samples came out of order since the start, replayed ones too
//! image
//! restart [while STEP]             after a kill; the step comes before what was there is read again
//! ```

mod interrupt;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use tidewatch_env::sim::{SIM_START_MS, SimClock, Simulation};
use tidewatch_env::{Disk, Env, Open};
use tidewatch_model::histogram::Histogram;
use tidewatch_model::{
    Batch, BatchHistogram, Labels, MatchOp, Matcher, Metadata, MetricType, NativeHistogram, RawLabels, Sample,
};
use tidewatch_storage::{Append, Refusal, RunValues, Scratch, Select, TimeRange};
use tidewatch_tsdb::{Db, DbOptions, Job};

use interrupt::InterruptedDisk;

const MINUTE_MS: i64 = 60_000;
const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

#[derive(Debug, Clone, Copy)]
enum Kind {
    Float,
    Histogram,
}

/// A store and what it answers to steps.
#[derive(Clone)]
struct World {
    db: Arc<Db>,
    clock: Arc<SimClock>,
    disk: InterruptedDisk,
    kind: Kind,
}

fn time(minutes: &str) -> i64 {
    SIM_START_MS + minutes.parse::<i64>().expect("a number of minutes") * MINUTE_MS
}

fn minutes(time: i64) -> i64 {
    (time - SIM_START_MS) / MINUTE_MS
}

fn open(simulation: &Simulation, kind: Kind) -> World {
    let disk = InterruptedDisk::new(simulation.disk.clone());
    let env = Env { disk: Arc::new(disk.clone()), ..simulation.env.clone() };
    let options = DbOptions { retention_ms: None, segment_bytes: 64 << 10, ..DbOptions::new("/data") };
    let db = Db::open(env, options).expect("opens");
    World { db: Arc::new(db), clock: Arc::clone(&simulation.clock), disk, kind }
}

impl World {
    fn step(&self, step: &str) {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "clock" => self.clock.jump_to_ms(time(rest)),
            "take" => self.take(rest, None),
            "conflict" => self.take(rest, Some(Refusal::Conflict)),
            "delete" => self.delete(rest),
            "cut" => self.cut(rest),
            "roll" => self.roll(),
            "late" => assert_eq!(self.db.status().head.out_of_order.to_string(), rest),
            "image" => self.db.run(Job::Image).expect("a good disk"),
            _ => panic!("no step: {step}"),
        }
    }

    fn take(&self, samples: &str, refusal: Option<Refusal>) {
        let (name, samples) = samples.split_once(' ').expect("a name and samples");
        for sample in samples.split(' ') {
            let (sample, start) =
                sample.split_once('~').map_or((sample, 0), |(word, start)| (word, time(start)));
            let (times, value) =
                sample.split_once('=').map_or((sample, None), |(times, value)| (times, Some(value)));
            let (first, last) = times.split_once("..").unwrap_or((times, times));
            for timestamp in (time(first)..=time(last)).step_by(MINUTE_MS as usize) {
                let value = value.map_or(minutes(timestamp), |value| value.parse().expect("a number"));
                let refused = self.append(name, timestamp, value as u64, start);
                assert_eq!(refused, refusal, "{name} at {timestamp}");
            }
        }
        self.db.commit().expect("a good disk");
    }

    fn append(&self, name: &str, timestamp: i64, value: u64, start: i64) -> Option<Refusal> {
        let labels = Labels::from_pairs([("__name__", name)]);
        let labels = RawLabels::Canonical(labels.as_bytes());
        let mut batch = Batch::new();
        match self.kind {
            Kind::Float => {
                batch.push(labels, &[Sample { timestamp, value: value as f64 }]);
                batch.set_starts(&[start]);
            }
            Kind::Histogram => {
                let value = Histogram { zero_count: value, count: value, ..Histogram::default() };
                let value = NativeHistogram::Integer(value);
                batch.push_histograms(labels, &[BatchHistogram { timestamp, start, value }]);
            }
        }
        let outcome = self.db.append(&batch).expect("takes writes");
        outcome.refused.first().map(|(refusal, _)| *refusal)
    }

    fn delete(&self, what: &str) {
        let (name, range) = what.split_once(' ').expect("a name and a range");
        let (start, end) = range.split_once("..").expect("a range");
        let matcher = Matcher::new(MatchOp::Equal, "__name__", name).expect("a matcher");
        self.db.delete(&[matcher], TimeRange { start: time(start), end: time(end) }).expect("a good disk");
    }

    fn cut(&self, how: &str) {
        if let Some(until) = how.strip_prefix("until ") {
            return self.db.run(Job::Cut { until_ms: time(until) }).expect("a good disk");
        }
        let job = self.db.next_job(time_of(&self.clock));
        let Some(job @ Job::Cut { .. }) = job else { panic!("not a cut: {job:?}") };
        let (when, steps) = how.split_once(' ').unwrap_or_default();
        let (world, steps) = (self.clone(), steps.to_owned());
        let act = move || steps.split("; ").for_each(|step| world.step(step));
        match when {
            "after" => act(),
            "while" => self.disk.at_next_block(act),
            _ => assert_eq!(how, ""),
        }
        self.db.run(job).expect("a good disk");
        assert!(!self.disk.waits(), "the cut has written nothing");
    }

    /// Fills the newest segment with what is no sample.
    fn roll(&self) {
        let newest = || self.disk.list(Path::new("/data/wal")).expect("there").into_iter().max();
        let before = newest();
        for byte in (b'a'..=b'z').cycle() {
            if newest() > before {
                return;
            }
            let help = String::from_utf8(vec![byte; 4 << 10]).expect("ASCII");
            let mut batch = Batch::new();
            batch.metadata.push(Metadata { family: "x", kind: MetricType::Counter, help: &help, unit: "" });
            self.db.append(&batch).expect("takes writes");
            self.db.commit().expect("a good disk");
        }
    }

    /// All that there is, in the words of `take`.
    fn answer(&self) -> String {
        let selection = self.db.select(&[], ALL).expect("complete");
        let mut text = String::new();
        let mut last = None;
        let mut visit = |series: usize, run: tidewatch_storage::Run<'_>| {
            if last.replace(series) != Some(series) {
                text += if text.is_empty() { "" } else { "; " };
                text += selection.labels(series).get("__name__").expect("named");
            }
            for (at, timestamp) in run.timestamps.iter().enumerate() {
                let value = match run.values {
                    RunValues::Floats(values) => values[at],
                    RunValues::Histograms(values) => values[at].count,
                };
                text += &format!(" {}={value}", minutes(*timestamp));
                let start = run.starts.map_or(0, |starts| starts[at]);
                text += &if start == 0 { String::new() } else { format!("~{}", minutes(start)) };
            }
            ControlFlow::Continue(())
        };
        selection.scan(0..selection.len(), ALL, &mut Scratch::default(), &mut visit).expect("readable");
        text
    }
}

fn time_of(clock: &SimClock) -> i64 {
    tidewatch_env::Clock::wall_ms(clock)
}

/// A store that has done what a script says.
struct Played {
    simulation: Simulation,
    kind: Kind,
    world: World,
}

impl Played {
    #[track_caller]
    fn new(script: &str, kind: Kind) -> Played {
        let simulation = Env::simulated(1);
        let mut played = Played { world: opened(&simulation, kind, ""), simulation, kind };
        for step in script.lines().map(str::trim) {
            match step.strip_prefix("restart") {
                Some(how) => played.restart(how.strip_prefix(" while ").unwrap_or("")),
                None => played.world.step(step),
            }
        }
        played
    }

    fn restart(&mut self, meanwhile: &str) {
        self.simulation.disk.kill();
        self.world = opened(&self.simulation, self.kind, meanwhile);
    }

    /// Writes images and loses those of the shards.
    fn lose_images(&mut self, loss: Loss) {
        self.world.step("image");
        self.simulation.disk.kill();
        self.lose("shard-", loss);
        let is_named = !matches!(loss, Loss::Removed) || !self.has_whole_log();
        self.restart("");
        let named = if is_named { 16 } else { 0 };
        assert_eq!(self.world.db.status().damage_found, named, "an image of each shard {loss:?}");
    }

    /// Loses the images of shards, and as many as tell the next start that there were some.
    fn lose_known(&self, loss: Loss) {
        self.lose(if matches!(loss, Loss::Removed) { "shard-00" } else { "shard-" }, loss);
    }

    /// Loses the images whose paths have this.
    fn lose(&self, which: &str, loss: Loss) {
        let disk = &self.simulation.disk;
        for path in disk.files().into_iter().filter(|path| path.to_string_lossy().contains(which)) {
            let mut image = disk.peek(&path).expect("there");
            match loss {
                Loss::BehindHeader => image.truncate(64),
                Loss::Headers => {
                    let copy = image.len() - 64;
                    [0, copy].into_iter().for_each(|at| image[at] ^= 1);
                }
                Loss::Removed => {
                    self.simulation.env.disk.remove(&path).expect("there");
                    continue;
                }
            }
            disk.poke(&path, &image).expect("there");
        }
    }

    /// Whether the log was never trimmed.
    fn has_whole_log(&self) -> bool {
        self.simulation.disk.peek(Path::new("/data/wal/00000001.wal")).is_ok()
    }
}

/// What is lost of images.
#[derive(Debug, Clone, Copy)]
enum Loss {
    BehindHeader,
    Headers,
    Removed,
}

const LOSSES: [Loss; 3] = [Loss::BehindHeader, Loss::Headers, Loss::Removed];

fn opened(simulation: &Simulation, kind: Kind, meanwhile: &str) -> World {
    let world = open(simulation, kind);
    if !meanwhile.is_empty() {
        world.step(meanwhile);
    }
    world.db.recover().expect("recovers");
    world
}

#[track_caller]
fn check(script: &str, expected: &str) {
    for kind in [Kind::Float, Kind::Histogram] {
        let mut played = Played::new(script, kind);
        assert_eq!(played.world.answer(), expected, "{kind:?}s before the start");
        played.restart("");
        assert_eq!(played.world.answer(), expected, "{kind:?}s after the start");
        // Nor do they come back when the next cut writes them.
        played.simulation.clock.jump_to_ms(time("20000"));
        played.world.take("later 20000", None);
        played.world.cut("");
        assert_eq!(
            played.world.answer(),
            format!("later 20000=20000; {expected}"),
            "{kind:?}s after the next cut"
        );

        for loss in LOSSES {
            let mut played = Played::new(script, kind);
            played.lose_images(loss);
            check_lost(&played, expected, loss, "after the start");
            played.simulation.clock.jump_to_ms(time("20000"));
            played.world.take("later 20000", None);
            played.world.cut("");
            let expected = format!("later 20000=20000; {expected}");
            check_lost(&played, &expected, loss, "after the next cut");
        }
    }
}

/// The same where of all that is `expected` the log still has this.
#[track_caller]
fn check_trimmed(script: &str, expected: &str, in_log: &str) {
    check(script, expected);
    for kind in [Kind::Float, Kind::Histogram] {
        for loss in LOSSES {
            let mut played = Played::new(script, kind);
            played.lose_images(loss);
            assert!(!played.has_whole_log());
            assert_eq!(played.world.answer(), in_log, "{kind:?}s with images {loss:?}");
        }
    }
}

/// Where images were lost nothing is there that was not, and all that the log still has: which is all where it was
/// never trimmed.
#[track_caller]
fn check_lost(played: &Played, expected: &str, loss: Loss, context: &str) {
    let (answer, context) = (played.world.answer(), format!("{:?}s {context}, images {loss:?}", played.kind));
    let (found, expected) = (samples(&answer), samples(expected));
    let mut rest = expected.clone();
    for found in &found {
        let at = rest.iter().position(|expected| found.0 == expected.0);
        let expected = rest.swap_remove(at.unwrap_or_else(|| panic!("{context}: {found:?} of {answer}")));
        let is_same = found.1.is_none() || found.1 == expected.1;
        // Where all images are gone and the log is whole, that is a young store to the next start.
        let is_young = matches!(loss, Loss::Removed) && played.has_whole_log();
        assert!(is_same || is_young, "{context}: {found:?} of {answer}");
    }
    if played.has_whole_log() {
        assert_eq!(found.len(), expected.len(), "{context}: {answer}");
    }
}

/// Samples with their series, each as often as it is given, and when its counter started. That is not known of what
/// the log alone has.
fn samples(answer: &str) -> Vec<((&str, &str), Option<&str>)> {
    let parts = answer.split("; ").filter_map(|part| part.split_once(' '));
    let samples = parts.flat_map(|(name, samples)| samples.split(' ').map(move |sample| (name, sample)));
    let with_start = samples.map(|(name, sample)| match sample.split_once('~') {
        Some((sample, start)) => ((name, sample), Some(start)),
        None => ((name, sample), None),
    });
    with_start.collect()
}

/// The clock is ahead again when what it was ahead before is to go to blocks: what comes then is newer than the
/// floor, and follows what is replayed below it.
#[test]
fn what_is_deleted_stays_so_when_the_clock_jumps_ahead_under_a_cut_that_goes_back() {
    check(
        "take x 0
         clock 50
         take x 50
         clock 1
         cut while take x 1
         cut after clock 58; take x 58; clock 1
         delete x 2..50",
        "x 0=0 1=1 58=58",
    );
}

/// The same where the run that goes on behind the floor was sealed meanwhile, with a column that fewer rows make no
/// shorter, or with one that they do.
#[test]
fn what_is_deleted_stays_so_in_a_sealed_run_that_goes_on_behind_the_floor() {
    for (samples, value) in
        [("58..200=1", |_| 1), ("58..200", |time| time as i64)] as [(&str, fn(i32) -> i64); 2]
    {
        let last: String = (58..=200).map(|time| format!(" {time}={}", value(time))).collect();
        check(
            &format!(
                "take x 0=1
                 clock 50
                 take x 50=1
                 clock 1
                 cut while take x 1
                 cut after clock 200; take x {samples}; clock 1
                 delete x 2..50"
            ),
            &format!("x 0=1 1=1{last}"),
        );
    }
}

#[test]
fn what_is_written_again_after_a_deletion_is_no_repeat_of_what_a_cut_took() {
    check(
        "take x 0 10
         clock 400
         take y 400
         cut while take x 20
         delete x 0..15
         take x 0 10=7",
        "x 0=0 10=7 20=20; y 400=400",
    );
}

#[test]
fn what_is_written_below_the_floor_before_a_cut_goes_back_is_no_repeat() {
    check(
        "take x 0
         clock 50
         take x 50
         clock 1
         cut while take x 1
         delete x 0..0
         take x 0=3
         cut after clock 58; take x 58; clock 1
         delete x 50..50
         clock 58
         take x 50=4",
        "x 0=3 1=1 50=4 58=58",
    );
}

/// The run that the cut had taken is not sealed yet where a start replays it: its clock came from an image, which does
/// not tell when it is full. So rows before the floor stay there, behind which the run goes on.
#[test]
fn what_is_written_again_is_no_repeat_of_a_row_before_the_floor() {
    let before = "take x 0..3
                  image
                  clock 100
                  take x 4..100
                  cut until 95
                  delete x 50..60";
    let kept: String = (61..=100).map(|time| format!(" {time}={time}")).collect();
    let old: String = (0..50).map(|time| format!(" {time}={time}")).collect();
    let expected = format!("x{old} 50=50 55=9{kept}");
    let again = "take x 50 55=9";
    check(&format!("{before}\n{again}"), &expected);
    check(&format!("{before}\nrestart\n{again}"), &expected);
    check(&format!("{before}\nrestart\nimage\nrestart\n{again}"), &expected);
}

#[test]
fn what_comes_after_a_cut_that_goes_back_is_known() {
    let before = "take x 0
                  clock 50
                  take x 50
                  clock 1
                  cut while take x 1";
    let after = "cut
                 clock 3
                 take x 2 3
                 conflict x 2=5
                 restart
                 conflict x 2=5";
    for image in ["", "image\nrestart\n"] {
        check(&format!("{before}\n{image}{after}"), "x 0=0 1=1 2=2 3=3 50=50");
    }
}

#[test]
fn a_start_is_of_no_late_sample_that_had_none() {
    check(
        "clock 100
         take x 0~-5 100~90
         clock 500
         take y 500
         cut while take x 110~90
         delete x 0..99
         take x 50",
        "x 50=50 100=100~90 110=110~90; y 500=500",
    );
}

/// The second of them is behind the step that the first one took.
#[test]
fn late_samples_one_after_the_other_have_no_start_that_was_forgotten() {
    for image in ["", "image\n"] {
        check(
            &format!(
                "clock 100
                 take x 60~55 70~65 100~90
                 clock 500
                 take y 500
                 cut while take x 110~90
                 {image}take x 65 80"
            ),
            "x 60=60~55 65=65 70=70~65 80=80 100=100~90 110=110~90; y 500=500",
        );
    }
}

/// The log has it as it came, too. Once they were cut, that meets neither its own samples nor those it conflicts with.
#[test]
fn what_came_during_a_start_is_not_taken_again_behind_a_cut() {
    check(
        "take x 0 5
         restart while take x 5=9 6
         clock 400
         take y 400
         cut
         take y 401
         restart
         late 0",
        "x 0=0 5=5 6=6; y 400=400 401=401",
    );
}

/// A deletion hides what there was, a cut takes it: neither what came after.
#[test]
fn what_came_after_a_deletion_and_a_cut_comes_back_without_its_image() {
    check(
        "take x 0..9
         delete x 3..100
         clock 12
         take x 5=50 10..12
         clock 400
         take y 400
         cut while take x 13 2=2
         delete y 0..400
         conflict x 11=7
         take x 14
         delete x 12..13",
        "x 0=0 1=1 2=2 5=50 10=10 11=11 14=14",
    );
}

/// All shard images were removed, and the log began while a cut had written: 320,000 samples of new series that were
/// below its end were taken for what blocks have.
#[test]
fn what_came_while_a_cut_wrote_comes_back_from_a_log_that_begins_there() {
    check_trimmed(
        "take x 0 10
         clock 400
         take y 400
         cut while roll; take z 20..25; take x 11 5; take y 401
         take z 26",
        "x 0=0 5=5 10=10 11=11; y 400=400 401=401; z 20=20 21=21 22=22 23=23 24=24 25=25 26=26",
        "x 0=0 5=5 10=10 11=11; y 401=401; z 20=20 21=21 22=22 23=23 24=24 25=25 26=26",
    );
}

/// A removal that the power ended leaves a part of what images made superfluous.
#[test]
fn what_was_deleted_in_a_gap_of_the_log_stays_so_without_images() {
    for loss in LOSSES {
        let mut played = Played::new("take x 0..9\nroll\ndelete x 3..5\nroll\ntake x 10", Kind::Float);
        let first = Path::new("/data/wal/00000001.wal");
        let bytes = played.simulation.disk.peek(first).expect("there");
        played.world.step("image");
        played.simulation.disk.kill();
        assert!(!played.has_whole_log());
        played.simulation.env.disk.open(first, Open::Create).expect("a good disk");
        played.simulation.disk.poke(first, &bytes).expect("there");
        played.lose("shard-", loss);
        played.restart("");
        assert_eq!(played.world.answer(), "x 10=10", "{loss:?}");
    }
}

/// Starts that images had forgotten are in the log, and what came later relied on that.
#[test]
fn no_sample_has_the_start_of_another_where_an_image_is_lost() {
    let script = "clock 100
                  take x 60~55 70~65 100~90
                  clock 500
                  take y 500
                  cut while take x 110~90
                  image
                  take x 65 80";
    for loss in LOSSES {
        let mut played = Played::new(script, Kind::Float);
        played.simulation.disk.kill();
        played.lose_known(loss);
        played.restart("");
        // The block has its own.
        let expected = "x 60=60~55 65=65 70=70~65 80=80 100=100~90 110=110; y 500=500";
        assert_eq!(played.world.answer(), expected, "{loss:?}");
    }
}

/// The same where the frame of the deletion is damaged, or the log ends before it.
#[test]
fn what_a_damaged_part_of_the_log_deleted_stays_so_without_images() {
    let wal = Path::new("/data/wal/00000001.wal");
    for loss in LOSSES {
        for (how, after, expected) in
            [("changed", "take x 10", "x 10=10"), ("cut off", "late 0", ""), ("unreadable", "late 0", "")]
        {
            let mut played = Played::new("take x 0..9", Kind::Float);
            let bytes = || played.simulation.disk.peek(wal).expect("there");
            let before = bytes().len();
            played.world.step("delete x 3..5");
            let deletion = before..bytes().len();
            played.world.step(after);
            played.world.step("image");
            played.simulation.disk.kill();
            let mut bytes = bytes();
            match how {
                "changed" => bytes[deletion.end - 1] ^= 1,
                "cut off" => bytes.truncate(before),
                _ => {}
            }
            played.simulation.disk.poke(wal, &bytes).expect("there");
            if how == "unreadable" {
                let part = deletion.start as u64..deletion.end as u64;
                played.simulation.disk.make_unreadable(wal, part).expect("there");
            }
            played.lose_known(loss);
            played.restart("");
            assert_eq!(played.world.answer(), expected, "{loss:?}, the deletion {how}");
        }
    }
}

/// A step that came behind the image ends with one that the image had.
#[test]
fn no_sample_has_the_start_of_one_that_came_behind_the_image() {
    for loss in LOSSES {
        let mut played =
            Played::new("clock 120\ntake x 60~55 70~65 100~90\nimage\ntake x 69~1 110~90", Kind::Float);
        played.simulation.disk.kill();
        played.lose_known(loss);
        played.restart("");
        assert_eq!(played.world.answer(), "x 60=60 69=69 70=70 100=100 110=110", "{loss:?}");
        played.world.step("take x 120~90");
        assert!(played.world.answer().ends_with(" 120=120~90"), "{loss:?}");
    }
}

/// How far the head was cut the first shard tells, where it can.
#[test]
fn what_was_cut_is_not_cut_again_without_the_image_of_the_first_shard() {
    let script = "take x 0 10\nclock 400\ntake y 400\ncut\nroll\ntake x 5\ntake y 401";
    for loss in LOSSES {
        let mut played = Played::new(script, Kind::Float);
        assert_eq!(played.world.db.next_job(time("400")).map(|job| job.kind()), Some("image"));
        played.world.step("image");
        played.simulation.disk.kill();
        played.lose("shard-00", loss);
        played.restart("");
        assert_eq!(played.world.answer(), "x 0=0 5=5 10=10; y 401=401", "{loss:?}");
        assert_eq!(played.world.db.next_job(time("400")).map(|job| job.kind()), Some("image"), "{loss:?}");
    }
}
