//! What one request brings to several shards of the head, or much of, in the log: a start decides as the head did.

mod support;

use std::path::Path;
use std::sync::Barrier;

use tidewatch_env::Env;
use tidewatch_env::sim::{Failure, SIM_START_MS, Simulation};
use tidewatch_model::histogram::{FloatHistogram, Span};
use tidewatch_model::{Batch, BatchHistogram, Labels, NativeHistogram, RawLabels, Sample};
use tidewatch_storage::{Append, TimeRange};
use tidewatch_tsdb::{Db, DbOptions, Job};
use tidewatch_wal::{Item, Position, Reader};

use support::contents;

fn open(simulation: &Simulation) -> Db {
    let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
    db.recover().expect("recovers");
    db
}

/// Series of several shards.
fn wide(count: usize) -> Vec<Labels> {
    (0..count).map(|i| Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())])).collect()
}

/// One sample of each series, from a start of its counter on.
fn write(db: &Db, series: &[Labels], timestamp: i64, start: i64) {
    let mut batch = Batch::new();
    for labels in series {
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value: 0.5 }]);
        batch.set_starts(&[start]);
    }
    assert_eq!(db.append(&batch).expect("takes writes").accepted, series.len() as u64);
}

#[test]
fn deletions_beside_requests_take_after_a_start_what_they_took_before() {
    const ROUNDS: i64 = 200;
    let simulation = Env::simulated(22);
    let db = open(&simulation);
    let series = wide(5000);
    // One that is not deleted, so that all series are known.
    write(&db, &series, SIM_START_MS, 0);
    let begins = Barrier::new(2);
    std::thread::scope(|scope| {
        let each = |act: &(dyn Fn(i64) + Sync)| {
            (1..=ROUNDS).for_each(|round| {
                begins.wait();
                act(SIM_START_MS + round);
            });
        };
        let (db, series) = (&db, &series);
        scope.spawn(move || each(&|at| write(db, series, at, 0)));
        scope.spawn(move || {
            each(&|at| db.delete(&[], TimeRange { start: at, end: at }).expect("a good disk"))
        });
    });
    db.commit().expect("a good disk");
    let before = contents(&db);
    drop(db);
    let after = contents(&open(&simulation));
    assert!(after == before, "{} samples, and {} after a start", before.len(), after.len());
}

#[test]
fn each_shard_replays_its_part_from_where_its_image_ends() {
    let series = wide(2500);
    let mut interrupted = 0;
    for n in 1.. {
        let simulation = Env::simulated(23);
        let db = open(&simulation);
        write(&db, &series, SIM_START_MS, SIM_START_MS - 9);
        db.commit().expect("a good disk");
        simulation.disk.fail_at(simulation.disk.changes() + n, Failure::Io);
        let result = db.run(Job::Image);
        if !simulation.disk.fired() {
            break;
        }
        interrupted += usize::from(result.is_err());
        write(&db, &series, SIM_START_MS + 1, SIM_START_MS - 9);
        db.delete(&[], TimeRange { start: SIM_START_MS, end: SIM_START_MS }).expect("a good disk");
        write(&db, &series, SIM_START_MS + 2, SIM_START_MS + 1);
        db.commit().expect("a good disk");
        let before = contents(&db);
        assert_eq!(before.len(), 2 * series.len());
        drop(db);
        simulation.disk.crash(n);
        let db = open(&simulation);
        assert!(contents(&db) == before, "change {n} of the disk failed");
        assert_eq!(db.status().damage, [], "change {n} of the disk failed");
    }
    assert!(interrupted > 20, "{interrupted}");
}

/// The lengths of the frames in the log.
fn lengths(simulation: &Simulation) -> Vec<usize> {
    let log = Reader::open(&simulation.env, Path::new("/data/wal"), Position::START);
    let mut log = log.expect("readable");
    let mut lengths = Vec::new();
    while let Some(Item::Frame(frame)) = log.read().expect("readable") {
        lengths.push(frame.bytes.len());
    }
    lengths
}

// A frame that the log did not take kept it closed, for this process and for all that the sender said later.
#[test]
fn histograms_that_one_frame_can_not_hold_are_kept() {
    const BUCKETS: usize = 8191;
    let simulation = Env::simulated(24);
    let db = open(&simulation);
    let value = NativeHistogram::Float(FloatHistogram {
        count: BUCKETS as f64 * 0.1,
        positive_spans: vec![Span { offset: 0, length: BUCKETS as u32 }],
        // Eight bytes in a request, and ten in the log.
        positive_buckets: vec![0.1; BUCKETS],
        ..FloatHistogram::default()
    });
    let mut batch = Batch::new();
    let series = wide(2);
    for labels in &series {
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[]);
        let first = batch.histograms.len() as u32;
        batch.histograms.extend((0..244).map(|at| BatchHistogram {
            timestamp: SIM_START_MS + at,
            start: SIM_START_MS - 1,
            value: value.clone(),
        }));
        batch.series.last_mut().expect("just pushed").histograms = first..batch.histograms.len() as u32;
    }
    let outcome = db.append(&batch).expect("takes writes");
    assert_eq!((outcome.accepted_histograms, outcome.refused), (488, vec![]));
    db.commit().expect("the log has it all");
    write(&db, &wide(1), SIM_START_MS + 1000, 0);
    db.commit().expect("and more");
    let lengths = lengths(&simulation);
    assert!(lengths.iter().sum::<usize>() > 32 << 20, "it is more than the log takes at once: {lengths:?}");
    let before = contents(&db);
    assert_eq!(before.len(), 489);
    drop(db);
    simulation.disk.crash(0);
    assert!(contents(&open(&simulation)) == before, "a start has other samples");
}
