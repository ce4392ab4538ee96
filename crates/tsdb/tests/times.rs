//! Samples of any age: what is acknowledged stays readable as long as retention says, and what
//! would not is refused.

mod support;

use tidewatch_env::sim::Simulation;
use tidewatch_env::{Clock, Env};
use tidewatch_model::{Batch, Labels, RawLabels, Sample};
use tidewatch_storage::{Append, AppendError, Refusal};
use tidewatch_tsdb::{Db, DbOptions, Job};

use support::contents;

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

fn open(simulation: &Simulation, retention_ms: Option<i64>) -> Db {
    let options = DbOptions { retention_ms, ..DbOptions::new("/data") };
    Db::open(simulation.env.clone(), options).expect("opens")
}

fn recovered(simulation: &Simulation, retention_ms: Option<i64>) -> Db {
    let db = open(simulation, retention_ms);
    db.recover().expect("recovers");
    db
}

/// Sends one sample of a series at each time. Gives `accepted`, or what the refusal says, or why to try again.
fn send(db: &Db, name: &str, times: impl IntoIterator<Item = i64>) -> String {
    let labels = Labels::from_pairs([("__name__", name)]);
    let samples: Vec<Sample> =
        times.into_iter().map(|timestamp| Sample { timestamp, value: timestamp as f64 }).collect();
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &samples);
    let outcome = match db.append(&batch) {
        Err(AppendError::Overloaded { reason }) => return reason,
        outcome => outcome.expect("takes writes"),
    };
    db.commit().expect("a good disk");
    assert_eq!(outcome.accepted + outcome.refused_count(), samples.len() as u64);
    match outcome.first_refusal {
        None => "accepted".to_owned(),
        Some(text) => {
            assert!(outcome.refused.iter().all(|(why, _)| *why == Refusal::TooOld), "{:?}", outcome.refused);
            text.split_once(" ms ").expect("names a time").1.to_owned()
        }
    }
}

fn run_jobs(db: &Db, simulation: &Simulation) {
    for _ in 0..1000 {
        let Some(job) = db.next_job(simulation.clock.wall_ms()) else { return };
        db.run(job).expect("a good disk");
    }
    panic!("the jobs do not come to an end");
}

const OLD: &str = "is older than the retention of 15d";

#[test]
fn what_is_older_than_retention_is_refused_and_the_rest_stays_readable() {
    let simulation = Env::simulated(1);
    let now = simulation.clock.wall_ms();
    let db = recovered(&simulation, Some(15 * DAY_MS));
    assert_eq!(send(&db, "new_in_an_empty_store", [now - 16 * DAY_MS]), OLD);
    assert_eq!(send(&db, "live", [now - HOUR_MS, now]), "accepted");
    assert_eq!(send(&db, "new", [now - 15 * DAY_MS - 1]), OLD);
    assert_eq!(send(&db, "new", [i64::MIN]), OLD);
    assert_eq!(send(&db, "live", [now - 2 * HOUR_MS]), "is older than the out-of-order window");
    // Senders that catch up after an outage: their series have nothing newer here.
    let backfill = (0..15 * 24).map(|hour| now - 15 * DAY_MS + hour * HOUR_MS);
    assert_eq!(send(&db, "backfill", backfill), "accepted");
    let acknowledged = contents(&db);
    assert_eq!(acknowledged.len(), 2 + 15 * 24);
    run_jobs(&db, &simulation);
    assert_eq!(contents(&db), acknowledged);
    assert!(!db.status().blocks.is_empty());
    drop(db);
    simulation.disk.kill();
    let db = recovered(&simulation, Some(15 * DAY_MS));
    assert_eq!(contents(&db), acknowledged);
    assert_eq!(send(&db, "new", [now - 16 * DAY_MS]), OLD);
}

#[test]
fn batches_that_come_before_recovery_are_held_against_retention_too() {
    let simulation = Env::simulated(2);
    let now = simulation.clock.wall_ms();
    let db = open(&simulation, Some(15 * DAY_MS));
    assert_eq!(send(&db, "x", [now - 16 * DAY_MS]), OLD);
    assert_eq!(send(&db, "y", [i64::MIN, i64::MIN + 1]), OLD);
    assert_eq!(send(&db, "z", [now - 14 * DAY_MS, now]), "accepted");
    db.recover().expect("recovers");
    assert_eq!(contents(&db).len(), 2);
}

#[test]
fn a_clock_that_jumps_ahead_refuses_nothing() {
    let simulation = Env::simulated(3);
    let now = simulation.clock.wall_ms();
    let db = recovered(&simulation, Some(DAY_MS));
    assert_eq!(send(&db, "x", [now]), "accepted");
    simulation.clock.jump_to_ms(now + 400 * DAY_MS);
    assert_eq!(send(&db, "x", [now + 15_000]), "accepted");
    assert_eq!(send(&db, "y", [now - 2 * DAY_MS]), "is older than the retention of 1d");
    run_jobs(&db, &simulation);
    assert_eq!(contents(&db).len(), 2);
}

#[test]
fn scattered_times_make_few_blocks_and_the_jobs_go_on() {
    let simulation = Env::simulated(4);
    let now = simulation.clock.wall_ms();
    let db = recovered(&simulation, None);
    let oldest = i64::MIN / 8;
    let extremes = [i64::MIN, oldest - 1, oldest, 0, now];
    assert_eq!(send(&db, "extreme", extremes), "is before all times that are stored");
    assert_eq!(send(&db, "wide", (0..3000).map(|i| now - 8000 * HOUR_MS + i * 2 * HOUR_MS)), "accepted");
    let acknowledged = contents(&db);
    assert_eq!(acknowledged.len(), 3003);
    let cut = db.next_job(simulation.clock.wall_ms()).expect("a cut is due");
    db.run(cut).expect("a good disk");
    let blocks = db.status().blocks.len();
    assert!((2..=64).contains(&blocks), "{blocks} blocks of one cut");
    run_jobs(&db, &simulation);
    assert_eq!(contents(&db), acknowledged);
}

/// The clock is a year ahead for a moment, or behind: in between a scrape and the jobs take it at its word.
#[test]
fn a_clock_that_was_wrong_costs_nothing_once_it_is_right() {
    for (seed, wrong_ms) in [400 * DAY_MS, HOUR_MS, -HOUR_MS, -400 * DAY_MS].into_iter().enumerate() {
        for restarts in [false, true] {
            check_wrong_clock(seed as u64, wrong_ms, restarts);
        }
    }
}

fn check_wrong_clock(seed: u64, wrong_ms: i64, restarts: bool) {
    let simulation = Env::simulated(seed);
    let context = format!("{wrong_ms} ms, restarts: {restarts}");
    let retention_ms = Some(15 * DAY_MS);
    let mut db = recovered(&simulation, retention_ms);
    let scrape = |db: &Db, name: &str| send(db, name, [simulation.clock.wall_ms()]);
    for _ in 0..60 {
        assert_eq!(scrape(&db, "x"), "accepted");
        simulation.clock.advance_ms(HOUR_MS as u64 / 2);
        run_jobs(&db, &simulation);
    }
    let restart = |db: Db| {
        if !restarts {
            return db;
        }
        drop(db);
        simulation.disk.kill();
        recovered(&simulation, retention_ms)
    };
    let right = simulation.clock.wall_ms();
    simulation.clock.jump_to_ms(right + wrong_ms);
    db = restart(db);
    run_jobs(&db, &simulation);
    assert_eq!(scrape(&db, "new"), "accepted", "{context}");
    let taken = scrape(&db, "x");
    // Between a jump back and the next look at what is to be done a scrape comes too late.
    assert!(wrong_ms < 0 || taken == "accepted", "{context}: {taken}");
    run_jobs(&db, &simulation);
    db = restart(db);
    simulation.clock.jump_to_ms(right);
    run_jobs(&db, &simulation);
    let mut held = contents(&db);
    assert!(held.len() >= 61, "{context}");
    let late = db.status().head.out_of_order;
    for _ in 0..60 {
        for name in ["x", "new"] {
            assert_eq!(scrape(&db, name), "accepted", "{context}");
            held.insert((format!("{{__name__=\"{name}\"}}"), simulation.clock.wall_ms()), Default::default());
        }
        simulation.clock.advance_ms(HOUR_MS as u64 / 2);
        run_jobs(&db, &simulation);
        db = restart(db);
    }
    // Blocks of times to come make no sample a late one, but the first of each. (A start counts anew.)
    let more = db.status().head.out_of_order - late;
    assert!(restarts || more <= 2, "{context}: {more} late samples");
    // What the clock stamped while it was a year behind is older than retention, as it says itself.
    held.retain(|(_, time), _| *time > right - 15 * DAY_MS);
    assert_eq!(contents(&db).keys().collect::<Vec<_>>(), held.keys().collect::<Vec<_>>(), "{context}");
}

// Senders do not repeat what is refused for good: they lost what they sent in that second.
#[test]
fn who_writes_beside_samples_of_times_to_come_is_to_try_again() {
    let simulation = Env::simulated(1);
    let db = recovered(&simulation, None);
    let right = simulation.clock.wall_ms();
    simulation.clock.jump_to_ms(right + DAY_MS);
    assert_eq!(send(&db, "x", [right + DAY_MS]), "accepted");
    simulation.clock.jump_to_ms(right);
    let said = send(&db, "x", [right]);
    assert!(said.contains("send this again in a second"), "{said}");
    assert_eq!(send(&db, "y", [right]), "accepted");
    // What is too old anyhow is refused for good.
    assert!(!send(&db, "x", [right - DAY_MS]).contains("again"));
    run_jobs(&db, &simulation);
    assert_eq!(send(&db, "x", [right]), "accepted");
}

/// A start that replays a cut of what was ahead, and the next one that went back.
#[test]
fn a_start_does_not_cut_again_what_was_ahead() {
    let simulation = Env::simulated(1);
    let db = recovered(&simulation, None);
    let right = simulation.clock.wall_ms();
    let cut = |db: &Db| match db.next_job(simulation.clock.wall_ms()) {
        Some(job @ Job::Cut { .. }) => db.run(job).expect("a good disk"),
        other => panic!("not a cut: {other:?}"),
    };
    simulation.clock.jump_to_ms(right + DAY_MS);
    assert_eq!(send(&db, "x", [right + DAY_MS]), "accepted");
    simulation.clock.jump_to_ms(right);
    cut(&db);
    assert_eq!(send(&db, "x", [right]), "accepted");
    cut(&db);
    let held = contents(&db);
    db.commit().expect("a good disk");
    drop(db);
    simulation.disk.kill();
    let db = recovered(&simulation, None);
    let next = db.next_job(right);
    assert!(!matches!(next, Some(Job::Cut { .. })), "{next:?}");
    assert_eq!(contents(&db), held);
}
