//! Series that ended leave the head before others: what that changes is memory, and nothing that is read.

mod support;

use std::fmt::Write;

use tidewatch_env::sim::{Failure, Simulation};
use tidewatch_env::{Clock, Env};
use tidewatch_model::{Batch, Labels, Matcher, RawLabels, STALE_NAN, Sample, is_stale};
use tidewatch_storage::{Append, TimeRange};
use tidewatch_tsdb::{Db, DbOptions};

use support::{ALL, contents, contents_of};

const MINUTE_MS: i64 = 60_000;

fn open(simulation: &Simulation) -> Db {
    let db = opened(simulation);
    db.recover().expect("recovers");
    db
}

/// Half of the series has to have ended. What is stored is not read yet.
fn opened(simulation: &Simulation) -> Db {
    let options = DbOptions { stale_share: 0.5, retention_ms: None, ..DbOptions::new("/data") };
    Db::open(simulation.env.clone(), options).expect("opens")
}

fn append(db: &Db, labels: &Labels, timestamp: i64, value: f64) -> String {
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value }]);
    let outcome = db.append(&batch).expect("takes writes");
    outcome.refused.iter().map(|(refusal, _)| format!(" {refusal:?}")).collect()
}

/// Runs a script and gives what it says. Minutes count from the beginning.
///
/// ```text
/// scrape a b        a sample of each series now, whose value is the minute; `a!` ends it
/// late a 5          a sample of minute 5, whose value is 5; `late a 5 = 7` of value 7
/// wait 3            minutes pass
/// jobs              what is due is done; gives the kinds
/// job               the same, of one
/// delete a 2 9      from minute 2 to 9
/// compact           all there is
/// blocks            the minutes of the oldest and the newest sample of each, in the order of their times
/// restart           after a power cut; `restart late a 5 = 7`: that comes before what is stored was read
/// lose departures   after one that took what the log says of series that left; gives how many frames
/// tear 6            the power goes at the sixth change of the disk of the job that is due
/// spoil             after a power cut, and a changed byte of the first section of the image of series
/// head              how many series it has, how many have left early, how many blocks there are
/// pairs             whether it has few label pairs
/// read a            minutes and values; `!` is an end
/// ```
fn run(script: &str) -> String {
    let simulation = Env::simulated(3);
    let start_ms = simulation.clock.wall_ms().div_euclid(2 * 60 * MINUTE_MS) * 2 * 60 * MINUTE_MS;
    simulation.clock.jump_to_ms(start_ms);
    let mut db = open(&simulation);
    let mut said = String::new();
    let (mut left, mut is_damaged) = (0, false);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let minute = |word: &str| start_ms + word.parse::<i64>().expect("a number") * MINUTE_MS;
        let series = |name: &str| Labels::from_pairs([("__name__", "m"), ("i", name)]);
        let now = simulation.clock.wall_ms();
        let mut answer = String::new();
        match words[..] {
            ["scrape", ..] => {
                for name in &words[1..] {
                    let value = ((now - start_ms) / MINUTE_MS) as f64;
                    answer += &match name.strip_suffix('!') {
                        Some(name) => append(&db, &series(name), now, STALE_NAN),
                        None => append(&db, &series(name), now, value),
                    };
                }
                db.commit().expect("a good disk");
            }
            ["late", name, at] => {
                answer = append(&db, &series(name), minute(at), at.parse().expect("a number"))
            }
            ["late", name, at, "=", value] => {
                answer = append(&db, &series(name), minute(at), value.parse().expect("a number"));
            }
            ["wait", minutes] => {
                simulation.clock.advance_ms(minutes.parse::<u64>().expect("a number") * 60_000)
            }
            ["jobs"] => {
                while let Some(job) = db.next_job(now) {
                    write!(answer, " {}", job.kind()).expect("memory takes all");
                    db.run(job).expect("a good disk");
                }
            }
            ["job"] => {
                let job = db.next_job(now).expect("a job is due");
                write!(answer, " {}", job.kind()).expect("memory takes all");
                db.run(job).expect("a good disk");
            }
            ["delete", name, from, until] => {
                let range = TimeRange { start: minute(from), end: minute(until) };
                db.delete(&[Matcher::equal("i", name)], range).expect("a good disk");
            }
            ["compact"] => db.compact_whole().expect("a good disk"),
            ["blocks"] => {
                let minute = |time: i64| (time - start_ms) / MINUTE_MS;
                let blocks = db.status().blocks;
                let mut spans: Vec<_> =
                    blocks.iter().map(|block| (minute(block.min_time), minute(block.max_time))).collect();
                spans.sort_unstable();
                answer = spans.iter().map(|(oldest, newest)| format!(" {oldest}-{newest}")).collect();
            }
            ["restart"] => {
                db.commit().expect("a good disk");
                let before = contents(&db);
                left += db.status().counters.stale_series_cut;
                drop(db);
                simulation.disk.crash(0);
                db = open(&simulation);
                assert_eq!(contents(&db), before);
                assert!(is_damaged || db.status().damage.is_empty());
            }
            ["restart", "late", name, at, "=", value] => {
                left += db.status().counters.stale_series_cut;
                drop(db);
                simulation.disk.crash(0);
                db = opened(&simulation);
                answer = append(&db, &series(name), minute(at), value.parse().expect("a number"));
                db.recover().expect("recovers");
            }
            ["lose", "departures"] => {
                db.commit().expect("a good disk");
                left += db.status().counters.stale_series_cut;
                drop(db);
                simulation.disk.crash(0);
                write!(answer, " {}", lose_departures(&simulation)).expect("memory takes all");
                is_damaged = true;
                db = open(&simulation);
            }
            ["tear", changes] => {
                let job = db.next_job(now).expect("a job is due");
                let at = simulation.disk.changes() + changes.parse::<u64>().expect("a number");
                simulation.disk.fail_at(at, Failure::Crash);
                db.run(job.clone()).expect_err("the power goes");
                left += db.status().counters.stale_series_cut;
                drop(db);
                simulation.disk.crash(0);
                db = open(&simulation);
                let set_aside = db.status().counters.samples_set_aside;
                answer = format!(" {}, {set_aside} samples set aside", job.kind());
            }
            ["spoil"] => {
                drop(db);
                simulation.disk.crash(0);
                let path = std::path::Path::new("/data/head/series.image");
                let mut bytes = simulation.disk.peek(path).expect("an image");
                bytes[80] ^= 1;
                simulation.disk.poke(path, &bytes).expect("an image");
                db = open(&simulation);
                let status = db.status();
                let set_aside = status.counters.samples_set_aside;
                answer = format!(" {} damaged, {set_aside} samples set aside", status.damage.len());
            }
            ["head"] => {
                let status = db.status();
                let gone = left + status.counters.stale_series_cut;
                let (series, samples) = (status.head.series, status.head.samples);
                answer = format!(
                    " {series} series, {samples} samples, {gone} left, {} blocks",
                    status.blocks.len()
                );
            }
            ["pairs"] => {
                let pairs = db.status().head.label_pairs;
                answer = if pairs < 64 { " few".to_owned() } else { format!(" {pairs}") };
            }
            ["read", name] => {
                for ((_, timestamp), bits) in contents_of(&db, &[Matcher::equal("i", name)], ALL) {
                    let (minute, value) = ((timestamp - start_ms) / MINUTE_MS, f64::from_bits(bits));
                    if is_stale(value) {
                        write!(answer, " {minute}!").expect("memory takes all");
                    } else if value == minute as f64 {
                        write!(answer, " {minute}").expect("memory takes all");
                    } else {
                        write!(answer, " {minute}={value}").expect("memory takes all");
                    }
                }
            }
            _ => panic!("{line:?} is no line of a script"),
        }
        if !answer.is_empty() {
            writeln!(said, "{line}:{answer}").expect("memory takes all");
        }
    }
    said
}

/// Damages the frames of the log that say which series left.
fn lose_departures(simulation: &Simulation) -> usize {
    const FRAME_MAGIC: [u8; 4] = [0xa7, b'T', b'W', 0x9d];
    const KIND_LEFT: u8 = 7;
    let mut lost = 0;
    for path in simulation.disk.files() {
        if path.extension().is_some_and(|extension| extension == "wal") {
            let mut bytes = simulation.disk.peek(&path).expect("a file of the log");
            for at in 0..bytes.len().saturating_sub(20) {
                if bytes[at..].starts_with(&FRAME_MAGIC) && bytes[at + 16..].starts_with(&[KIND_LEFT, 0]) {
                    bytes[at + 18] ^= 1;
                    lost += 1;
                }
            }
            simulation.disk.poke(&path, &bytes).expect("a file of the log");
        }
    }
    lost
}

#[track_caller]
fn check(script: &str, expected: &str) {
    let lines =
        |text: &str| text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let (said, expected): (Vec<String>, Vec<String>) = (lines(&run(script)), lines(expected));
    assert_eq!(said, expected);
}

#[test]
fn series_that_ended_leave_when_they_are_many_and_are_read_as_before() {
    check(
        "scrape a b c d
         wait 1
         scrape a b c d
         wait 1
         scrape a b! c! d
         wait 1
         scrape a d
         jobs
         head
         wait 1
         jobs
         head
         read b
         read a
         restart
         head
         read c
         wait 1
         scrape a d
         jobs",
        "head: 4 series, 14 samples, 0 left, 0 blocks
         jobs: cut_stale
         head: 2 series, 8 samples, 2 left, 1 blocks
         read b: 0 1 2!
         read a: 0 1 2 3
         head: 2 series, 8 samples, 2 left, 1 blocks
         read c: 0 1 2!",
    );
}

#[test]
fn few_that_ended_and_those_that_did_just_now_stay() {
    check(
        "scrape a b c
         wait 1
         scrape a! b c
         wait 9
         jobs
         scrape b! c
         wait 1
         jobs
         head
         wait 1
         jobs
         head",
        "head: 3 series, 8 samples, 0 left, 0 blocks
         jobs: cut_stale
         head: 1 series, 3 samples, 2 left, 1 blocks",
    );
}

#[test]
fn a_series_that_comes_back_goes_on_where_it_was() {
    check(
        "scrape a b
         wait 1
         scrape a! b
         wait 5
         jobs
         head
         scrape a b
         late a 3
         read a
         restart
         read a
         head
         wait 1
         scrape a! b
         wait 5
         jobs
         read a
         restart
         read a
         head",
        "jobs: cut_stale
         head: 1 series, 2 samples, 1 left, 1 blocks
         read a: 0 1! 3 6
         read a: 0 1! 3 6
         head: 2 series, 5 samples, 1 left, 1 blocks
         jobs: cut_stale
         read a: 0 1! 3 6 7!
         read a: 0 1! 3 6 7!
         head: 1 series, 4 samples, 2 left, 2 blocks",
    );
}

#[test]
fn the_first_value_stays_though_the_head_has_forgotten_it() {
    check(
        "scrape a b
         wait 1
         scrape a! b
         wait 5
         jobs
         late a 0
         late a 0 = 7
         late a 1 = 7
         read a
         restart
         read a
         wait 500
         scrape b
         jobs
         read a
         head",
        "jobs: cut_stale
         late a 0 = 7: Conflict
         late a 1 = 7: Conflict
         read a: 0 1!
         read a: 0 1!
         jobs: cut image compact
         read a: 0 1!
         head: 1 series, 3 samples, 1 left, 1 blocks",
    );
}

#[test]
fn deletions_reach_what_has_left_and_stay() {
    check(
        "scrape a b
         wait 1
         scrape a b
         wait 1
         delete a 0 0
         scrape a! b
         wait 5
         jobs
         read a
         delete a 1 1
         read a
         late a 1 = 9
         restart
         read a
         wait 500
         scrape b
         jobs
         read a",
        "jobs: cut_stale
         read a: 1 2!
         read a: 2!
         read a: 1=9 2!
         jobs: cut image compact
         read a: 1=9 2!",
    );
}

#[test]
fn texts_of_labels_that_nobody_bears_are_given_back() {
    let mut script = String::new();
    for round in 0..40 {
        let names =
            |round: i32, end: &str| (0..10).map(|pod| format!(" {round}-{pod}{end}")).collect::<String>();
        let ended = if round > 0 { names(round - 1, "!") } else { String::new() };
        writeln!(script, "scrape{}{ended}\nwait 3\njobs\nwait 1", names(round, ""))
            .expect("memory takes all");
    }
    let said = run(&(script + "restart\nhead\npairs\nread 7-3"));
    let said: Vec<&str> = said.lines().filter(|line| !line.starts_with("jobs")).collect();
    assert_eq!(said[0], "head: 10 series, 10 samples, 390 left, 3 blocks");
    assert_eq!(said[1], "pairs: few");
    assert_eq!(said[2], "read 7-3: 28 32!");
}

#[test]
fn what_lies_in_several_stretches_goes_to_several_blocks_and_merges_with_the_next_cut() {
    check(
        "scrape a b c
         wait 70
         scrape a b c
         wait 70
         scrape a b! c!
         late b 100
         wait 10
         jobs
         head
         read b
         read c
         wait 500
         scrape a
         jobs
         read b
         read a
         restart
         read b
         head",
        "jobs: cut_stale
         head: 1 series, 3 samples, 2 left, 2 blocks
         read b: 0 70 100 140!
         read c: 0 70 140!
         jobs: cut image compact compact compact
         read b: 0 70 100 140!
         read a: 0 70 140 650
         read b: 0 70 100 140!
         head: 1 series, 4 samples, 2 left, 1 blocks",
    );
}

/// The cut behind a compaction of all begins where that ended, and so do the blocks of series that ended since.
#[test]
fn what_ended_after_a_compaction_of_all_merges_with_the_next_cut_alone() {
    let script = |late: &str| {
        format!(
            "scrape a b c
             wait 30
             scrape a b c
             wait 10
             scrape a b c
             compact
             blocks
             wait 1
             scrape a b! c!
             {late}
             wait 3
             jobs
             blocks
             wait 200
             scrape a
             jobs
             blocks
             read b"
        )
    };
    check(
        &script(""),
        "blocks: 0-30
         jobs: cut_stale
         blocks: 0-30 40-41
         jobs: cut image compact
         blocks: 0-30 40-41
         read b: 0 30 40 41!",
    );
    // A sample from before that is among what ended.
    check(
        &script("late b 20"),
        "blocks: 0-30
         jobs: cut_stale
         blocks: 0-30 20-41
         jobs: cut image compact
         blocks: 0-41
         read b: 0 20 30 40 41!",
    );
}

#[test]
fn what_ended_before_a_compaction_of_all_merges_there_and_with_nothing_later() {
    check(
        "scrape a b c
         wait 30
         scrape a b c
         wait 10
         scrape a b! c!
         wait 3
         jobs
         blocks
         wait 10
         scrape a
         compact
         blocks
         wait 200
         scrape a
         jobs
         blocks
         read b
         restart
         read a",
        "jobs: cut_stale
         blocks: 0-40
         blocks: 0-40
         jobs: cut image
         blocks: 0-40 53-53
         read b: 0 30 40!
         read a: 0 30 40 53 253",
    );
}

// What they had is in a block; were they still the owners of their labels, what comes now would be
// theirs, and lie where nobody looks.
#[test]
fn series_that_came_back_are_read_when_the_log_has_lost_that_they_left() {
    check(
        "scrape a b c d
         wait 1
         scrape a b! c! d
         wait 3
         scrape a d
         jobs
         wait 1
         scrape a b c d
         head
         lose departures
         head
         wait 1
         scrape a b c d
         read b
         restart
         read b
         wait 300
         scrape a b c d
         jobs
         read b
         restart
         read b
         read a",
        "jobs: cut_stale
         head: 4 series, 10 samples, 2 left, 1 blocks
         lose departures: 1
         head: 4 series, 10 samples, 2 left, 1 blocks
         read b: 0 1! 5 6
         read b: 0 1! 5 6
         jobs: cut image compact
         read b: 0 1! 5 6 306
         read b: 0 1! 5 6 306
         read a: 0 1 4 5 6 306",
    );
}

#[test]
fn images_of_shards_that_are_older_than_that_of_series_bring_nobody_back() {
    check(
        "scrape a b c d
         wait 200
         scrape a b! c! d
         jobs
         wait 200
         scrape a d
         job
         head
         tear 8
         head
         spoil
         head
         jobs
         head
         read b
         restart
         head",
        "jobs: cut image
         job: cut
         head: 2 series, 6 samples, 0 left, 2 blocks
         tear 8: image, 0 samples set aside
         head: 2 series, 6 samples, 0 left, 2 blocks
         spoil: 1 damaged, 0 samples set aside
         head: 2 series, 6 samples, 0 left, 2 blocks
         jobs: image
         head: 2 series, 6 samples, 0 left, 2 blocks
         read b: 0 200!
         head: 2 series, 6 samples, 0 left, 2 blocks",
    );
}

#[test]
fn what_came_during_a_start_is_not_taken_again_when_its_series_has_left() {
    check(
        "scrape a b
         restart late a 0 = 9
         wait 1
         scrape a! b
         wait 3
         job
         restart
         head
         read a",
        "job: cut_stale
         head: 1 series, 2 samples, 1 left, 1 blocks
         read a: 0 1!",
    );
}
