//! Writers, a committer, jobs and readers side by side: nothing stalls, and a reader never misses
//! what was there before it began, whatever is being sealed, imaged, cut, merged or let go meanwhile.

mod support;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use tidewatch_env::Env;
use tidewatch_env::sim::SIM_START_MS;
use tidewatch_model::{Batch, Labels, RawLabels, STALE_NAN, Sample};
use tidewatch_storage::Append;
use tidewatch_tsdb::{Db, DbOptions, Job};

use support::contents;

const WRITERS: usize = 3;
const STEPS: i64 = 400;
const STEP_MS: i64 = 2 * 60 * 1000;
const SERIES: usize = 40;

fn labels(writer: usize, i: usize, generation: i64) -> Labels {
    let i = format!("{i:02}");
    let generation = generation.to_string();
    Labels::from_pairs([
        ("__name__", "m"),
        ("writer", ["a", "b", "c"][writer]),
        ("i", &i),
        ("pod", &generation),
    ])
}

/// One writer's scrapes; some of its series are replaced by others every hundred steps, and some end
/// again and again, and go on at once or after a while.
fn write(db: &Db, writer: usize, done: &AtomicI64) {
    for step in 0..STEPS {
        let generation = |i: usize| if i.is_multiple_of(4) { step / 100 } else { 0 };
        let names: Vec<Labels> = (0..SERIES).map(|i| labels(writer, i, generation(i))).collect();
        let mut batch = Batch::new();
        for (i, name) in names.iter().enumerate() {
            let ends = i % 4 == 1 && (step + i as i64) % 7 == 0;
            let value = if ends { STALE_NAN } else { (i as i64 + step) as f64 };
            let sample = Sample { timestamp: SIM_START_MS + step * STEP_MS, value };
            batch.push(RawLabels::Canonical(name.as_bytes()), &[sample]);
        }
        let outcome = db.append(&batch).expect("takes writes");
        assert_eq!((outcome.accepted, outcome.refused), (SERIES as u64, Vec::new()));
        done.store(step + 1, Ordering::Release);
    }
}

#[test]
fn readers_miss_nothing_while_everything_goes_on() {
    let simulation = Env::simulated(21);
    simulation.clock.jump_to_ms(SIM_START_MS + STEPS * STEP_MS);
    let options = DbOptions { image_log_bytes: 20_000, ..DbOptions::new("/data") };
    let db = Db::open(simulation.env.clone(), options).expect("opens");
    db.recover().expect("recovers");
    let done: [AtomicI64; WRITERS] = Default::default();
    let (running, reads) = (AtomicBool::new(true), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = done
            .iter()
            .enumerate()
            .map(|(writer, done)| {
                let db = &db;
                scope.spawn(move || write(db, writer, done))
            })
            .collect();
        scope.spawn(|| {
            while running.load(Ordering::Acquire) {
                db.commit().expect("a good disk");
                if let Some(job) = db.next_job(SIM_START_MS + STEPS * STEP_MS) {
                    db.run(job).expect("a good disk");
                }
                db.run(Job::CutStale).expect("a good disk");
            }
        });
        scope.spawn(|| {
            while running.load(Ordering::Acquire) {
                let before: i64 = done.iter().map(|done| done.load(Ordering::Acquire)).sum();
                let read = contents(&db).len() as i64;
                assert!(read >= before * SERIES as i64, "{read} of {} samples", before * SERIES as i64);
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        running.store(false, Ordering::Release);
        results.into_iter().for_each(|result| result.expect("a writer"));
    });
    assert!(reads.load(Ordering::Relaxed) > 0);
    while let Some(job) = db.next_job(SIM_START_MS + STEPS * STEP_MS) {
        db.run(job).expect("a good disk");
    }
    // How many left while others wrote is chance; one of each writer ends with its last sample.
    db.run(Job::CutStale).expect("a good disk");
    let status = db.status();
    assert!(status.counters.cuts > 0 && status.counters.series_removed > 0);
    assert!(status.counters.stale_series_cut >= WRITERS as u64, "{:?}", status.counters);
    assert_eq!(contents(&db).len(), WRITERS * SERIES * STEPS as usize);
}
