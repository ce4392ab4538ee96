//! A fixed workload on the simulated disk, with the n-th change of the disk failing, for every n:
//! what was acknowledged is read, what is read was sent, and the database always opens again.

mod ledger;
mod support;

use std::collections::BTreeMap;
use std::path::Path;

use tidewatch_env::sim::{Failure, Simulation};
use tidewatch_env::{Env, Open};
use tidewatch_model::histogram::{Histogram, Span};
use tidewatch_model::{
    Batch, BatchHistogram, FloatHistogram, Labels, Limits, NativeHistogram, RawLabels, STALE_NAN, Sample,
    spell_pair,
};
use tidewatch_storage::{Append, TimeRange};
use tidewatch_tsdb::{Db, DbOptions, Job};
use tidewatch_wal::{Item, Position, Reader};

use ledger::Ledger;
use support::{ALL, Contents, contents};

fn series(name: &str, i: usize) -> Labels {
    Labels::from_pairs([("__name__", name), ("i", &i.to_string())])
}

fn open(simulation: &Simulation) -> Option<Db> {
    let options = DbOptions {
        image_log_bytes: 1000,
        retention_ms: Some(RETENTION_MS),
        stale_share: 0.2,
        ..DbOptions::new("/data")
    };
    let db = Db::open(simulation.env.clone(), options).ok()?;
    db.recover().ok()?;
    Some(db)
}

/// Histograms of all kinds: with integers, whose layout changes now and then and which end now and
/// then, and with floats in custom buckets.
fn histogram(i: usize, step: usize) -> NativeHistogram {
    let count = (step * 3 + i) as u64;
    match i {
        _ if step % 7 == 6 => NativeHistogram::stale(),
        0 => NativeHistogram::Integer(Histogram {
            schema: 2,
            zero_threshold: if step < 12 { 0.001 } else { 0.01 },
            zero_count: 1,
            count: 1 + 2 * count,
            sum: count as f64 * 0.25,
            positive_spans: vec![Span { offset: 1, length: 2 }],
            positive_deltas: vec![count as i64, 0],
            ..Histogram::default()
        }),
        _ => NativeHistogram::Float(FloatHistogram {
            schema: -53,
            count: count as f64 + 0.5,
            sum: count as f64 * 0.1,
            positive_spans: vec![Span { offset: 0, length: 3 }],
            positive_buckets: vec![0.5, count as f64, 0.0],
            custom_values: Some(vec![0.1, 1.0].into()),
            ..FloatHistogram::default()
        }),
    }
}

/// Some scrapes of some series, now and then a new one, and late samples. Each time a series begins
/// that ends the next time; of some of these the end is not the end.
fn ingest(db: &Db, simulation: &Simulation, ledger: &mut Ledger, first: usize, steps: usize) {
    ingest_every(db, simulation, ledger, first, steps, 15_000);
}

fn ingest_every(
    db: &Db,
    simulation: &Simulation,
    ledger: &mut Ledger,
    first: usize,
    steps: usize,
    step_ms: u64,
) {
    let start = simulation.clock_ms();
    for step in first..first + steps {
        let timestamp = start + (step - first) as i64 * step_ms as i64;
        let known: Vec<Labels> = (0..5 + step / 3).map(|i| series("known", i)).collect();
        let sample = |i: usize, timestamp| Sample { timestamp, value: (i * step) as f64 * 0.5 };
        let mut samples: Vec<(&Labels, Sample)> =
            known.iter().enumerate().map(|(i, labels)| (labels, sample(i, timestamp))).collect();
        let brief: Vec<Labels> = (0..4).map(|back| series("brief", step + 4 - back)).collect();
        samples.push((&brief[0], sample(1, timestamp)));
        samples.push((&brief[1], Sample { timestamp, value: STALE_NAN }));
        if step % 4 == 3 {
            samples.push((&brief[3], sample(3, timestamp)));
        }
        // The last one has floats and histograms in turn.
        let latencies: Vec<Labels> = (0..3).map(|i| series("latency", i)).collect();
        let start = start - 60_000;
        let of = |i: usize| BatchHistogram { timestamp, start, value: histogram(i, step) };
        let mut histograms: Vec<(&Labels, BatchHistogram)> =
            latencies.iter().enumerate().map(|(i, labels)| (labels, of(i))).collect();
        if step % 3 == 2 {
            histograms.pop();
            samples.push((&latencies[2], sample(2, timestamp)));
        }
        ledger.append(db, &samples, &histograms);
        samples.truncate(2);
        samples.iter_mut().for_each(|(_, sample)| sample.timestamp -= 7_000);
        histograms.remove(0);
        histograms.iter_mut().for_each(|(_, histogram)| histogram.timestamp -= 7_000);
        ledger.append(db, &samples, &histograms);
        if step % 2 == 0 {
            ledger.commit(db);
        }
        simulation.clock.advance_ms(step_ms);
    }
    ledger.commit(db);
}

trait ClockOf {
    fn clock_ms(&self) -> i64;
}

impl ClockOf for Simulation {
    fn clock_ms(&self) -> i64 {
        use tidewatch_env::Clock;
        self.clock.wall_ms()
    }
}

/// Does every job that is due, as far as the disk lets it.
fn run_jobs(db: &Db, simulation: &Simulation) {
    while let Some(job) = db.next_job(simulation.clock_ms()) {
        // One kind of job that fails does not stop the others.
        let _ = db.run(job);
    }
}

const MINUTES_20: u64 = 20 * 60 * 1000;

/// Short enough that the workload's first blocks are past it at its end.
const RETENTION_MS: i64 = 6 * 60 * 60 * 1000;

/// The workload: append, seal, cut, cut of series that ended, merge, merge of all, retention,
/// deletion, restart; each part goes on as far as the disk lets it. Gives how many series left early.
fn work(simulation: &Simulation, ledger: &mut Ledger) -> u64 {
    let mut left = 0;
    for round in 0..4 {
        if let Some(db) = open(simulation) {
            ingest_every(&db, simulation, ledger, round * 10, 10, MINUTES_20);
            run_jobs(&db, simulation);
            if round % 2 == 1 {
                delete_some(&db, simulation, ledger, round);
            }
            if round == 2 {
                let _ = db.clean_tombstones();
                let _ = db.compact_whole();
            }
            ledger.commit(&db);
            left += db.status().counters.stale_series_cut;
        }
        ledger.restart();
    }
    left
}

/// Deletes a part of series that lie in blocks and head, and all of others: floats and histograms.
fn delete_some(db: &Db, simulation: &Simulation, ledger: &mut Ledger, round: usize) {
    let now = simulation.clock_ms();
    let part = TimeRange { start: now - 5 * HOUR_MS, end: now - 30 * 60_000 };
    ledger.delete(db, &series("known", 0), part);
    ledger.delete(db, &series("latency", 2), part);
    ledger.delete(db, &series("known", round), ALL);
    ledger.delete(db, &series("latency", round / 2), ALL);
}

const HOUR_MS: i64 = 60 * 60 * 1000;

#[test]
fn no_failing_change_of_the_disk_loses_or_invents_a_sample() {
    for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
        for n in 1.. {
            let seed = n * 31 + failure as u64;
            let simulation = Env::simulated(seed);
            let mut ledger = Ledger::default();
            simulation.disk.fail_at(n, failure);
            let begin = simulation.clock_ms();
            let left = work(&simulation, &mut ledger);
            if !simulation.disk.fired() {
                assert!(n > 10, "the workload changes the disk");
                assert!(ledger.deleted() > 20, "the workload deletes");
                assert!(ledger.acknowledged() > 300, "without a failure all is acknowledged");
                simulation.disk.crash(0);
                let db = open(&simulation).expect("opens");
                assert!(!db.status().blocks.is_empty(), "the workload cuts");
                assert!(left > 10, "series that ended leave: {left}");
                let oldest = contents(&db).keys().map(|(_, timestamp)| *timestamp).min();
                assert!(oldest > Some(begin), "and what is past retention goes");
                let files = simulation.disk.files();
                assert!(files.iter().any(|file| file.ends_with("series.image")), "it writes images");
                assert!(!files.iter().any(|file| file.ends_with("00000001.wal")), "and trims the log");
                eprintln!("== each of {} changes failing with {failure:?}, three fates of the rest", n - 1);
                break;
            }
            for fate in [0, 1, seed + 2] {
                // The power goes once more right after the recovery: it must not have spoilt anything.
                simulation.disk.crash(fate);
                simulation.disk.repair();
                simulation.disk.free_space();
                let context = format!("change {n} failing with {failure:?}, fate {fate}");
                let db = open(&simulation).unwrap_or_else(|| panic!("{context}: opens again"));
                ledger.check_since(simulation.clock_ms() - RETENTION_MS, &contents(&db), &context);
            }
        }
    }
}

/// A disk that fails to read once, at every read of a start: what it has is all there, at once or at
/// the next start, and nothing is taken for lost.
#[test]
fn a_read_that_fails_once_costs_at_most_a_start() {
    let (mut refused, mut starts) = (0, 0);
    for n in 1.. {
        let simulation = Env::simulated(17);
        let mut ledger = Ledger::default();
        work(&simulation, &mut ledger);
        simulation.disk.crash(0);
        simulation.disk.fail_read_at(simulation.disk.reads() + n);
        let first = open(&simulation);
        if !simulation.disk.fired() {
            break;
        }
        starts += 1;
        refused += u64::from(first.is_none());
        let since = simulation.clock_ms() - RETENTION_MS;
        for db in [first, None] {
            let db = db.or_else(|| {
                simulation.disk.kill();
                open(&simulation)
            });
            let db = db.unwrap_or_else(|| panic!("read {n} failed: opens again"));
            assert_eq!(db.status().damage, [], "read {n} failed");
            ledger.check_since(since, &contents(&db), &format!("read {n} failed"));
        }
    }
    assert!(starts > 30 && refused < starts / 3, "{refused} of {starts} starts were refused");
}

#[test]
fn a_database_that_ran_out_of_room_goes_on_when_there_is_room() {
    let simulation = Env::simulated(7);
    let mut ledger = Ledger::default();
    let db = open(&simulation).expect("opens");
    ingest(&db, &simulation, &mut ledger, 0, 3);
    simulation.disk.fail_at(simulation.disk.changes() + 1, Failure::Full);
    let before = ledger.acknowledged();
    ingest(&db, &simulation, &mut ledger, 3, 3);
    assert_eq!(ledger.acknowledged(), before, "nothing is acknowledged without room");
    assert!(db.status().read_only.is_some());
    simulation.disk.free_space();
    assert!(ledger.commit(&db));
    assert_eq!(db.status().read_only, None);
    ingest(&db, &simulation, &mut ledger, 6, 3);
    assert!(ledger.acknowledged() > before);
    drop(db);
    simulation.disk.crash(0);
    let db = open(&simulation).expect("opens");
    ledger.check(&contents(&db), "after the disk was full");
}

// The room was first looked at a second after a start: a server that is started again and again ate the reserve.
#[test]
fn a_start_on_a_disk_that_is_nearly_full_takes_no_samples() {
    let simulation = Env::simulated(7);
    let mut ledger = Ledger::default();
    let db = open(&simulation).expect("opens");
    ingest(&db, &simulation, &mut ledger, 0, 3);
    let acknowledged = ledger.acknowledged();
    drop(db);
    simulation.disk.kill();
    let files = simulation.disk.files();
    let used: usize = files.iter().filter_map(|path| Some(simulation.disk.peek(path).ok()?.len())).sum();
    simulation.disk.set_capacity((used + used / 50) as u64);
    let db = open(&simulation).expect("opens");
    let reason = db.status().read_only.unwrap_or_default();
    assert!(reason.contains("nearly full"), "{reason}");
    ingest(&db, &simulation, &mut ledger, 3, 3);
    assert_eq!(ledger.acknowledged(), acknowledged);
    ledger.check(&contents(&db), "in the reserve");
}

#[test]
fn a_job_that_fails_is_left_alone_for_a_while_and_the_others_go_on() {
    let simulation = Env::simulated(8);
    let mut ledger = Ledger::default();
    let db = open(&simulation).expect("opens");
    ingest_every(&db, &simulation, &mut ledger, 0, 14, MINUTES_20);
    let kind = |db: &Db| db.next_job(simulation.clock_ms()).map(|job| job.kind());
    assert_eq!(kind(&db), Some("cut"));
    simulation.disk.fail_at(simulation.disk.changes() + 1, Failure::Io);
    db.run(db.next_job(simulation.clock_ms()).expect("due")).expect_err("the disk fails");
    assert_eq!(kind(&db), Some("image"));
    db.run(db.next_job(simulation.clock_ms()).expect("due")).expect("the disk is well again");
    assert_eq!(kind(&db), Some("cut_stale"));
    db.run(db.next_job(simulation.clock_ms()).expect("due")).expect("the disk is well");
    assert_eq!(kind(&db), None);
    simulation.clock.advance_ms(31_000);
    assert_eq!(kind(&db), Some("cut"));
    run_jobs(&db, &simulation);
    assert!(!db.status().blocks.is_empty());
    ledger.check(&contents(&db), "after a cut that failed once");
}

#[test]
fn a_second_process_is_refused_the_directory() {
    let simulation = Env::simulated(1);
    let _first = open(&simulation).expect("opens");
    let refused = Db::open(simulation.env.clone(), DbOptions::new("/data")).err().expect("locked");
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
}

/// Opens `/data` with these files in it; gives `opens`, or the error. A refusal changes nothing.
fn open_with(files: &[&str]) -> String {
    let simulation = Env::simulated(1);
    for file in files {
        let path = Path::new("/data").join(file);
        simulation.env.disk.create_dir_all(path.parent().expect("a file")).expect("a good disk");
        let file = simulation.env.disk.open(&path, Open::Create).expect("new");
        file.append(b"of others\n").expect("a good disk");
    }
    let before = simulation.disk.files();
    let Err(error) = Db::open(simulation.env.clone(), DbOptions::new("/data")) else {
        return "opens".to_owned();
    };
    if !before.contains(&"/data/FORMAT".into()) {
        assert_eq!(simulation.disk.files(), before);
    }
    error.to_string()
}

#[test]
fn a_directory_of_others_is_refused_and_left_alone() {
    assert_eq!(open_with(&[]), "opens");
    assert_eq!(open_with(&["LOCK", "FORMAT.tmp"]), "opens");
    assert_eq!(
        open_with(&["wal/00000000", "chunks_head/000001", "lock", "queries.active"]),
        "/data: the directory has \"chunks_head\" in it and no FORMAT file of Tidewatch, so it is not \
         Tidewatch's: name an empty or a new directory (Prometheus' own data can not be used in place)"
    );
    assert!(open_with(&["wal/00000001.wal"]).contains("has \"wal\" in it and no FORMAT file"));
    assert_eq!(
        open_with(&["FORMAT", "wal/00000000"]),
        "/data/FORMAT: this is not a format file of Tidewatch: name an empty or a new directory, or, if the \
         directory is Tidewatch's and only this file is damaged, write the line \"tidewatch-data 1\" into it"
    );
}

/// The very first start, with the n-th change of the disk failing, for every n: the next one opens.
#[test]
fn a_first_start_that_was_cut_short_does_not_make_the_directory_foreign() {
    for failure in [Failure::Crash, Failure::Io, Failure::IoForGood, Failure::Full] {
        for n in 1.. {
            let mut fired = true;
            for fate in [0, 1, n + 7] {
                let simulation = Env::simulated(n);
                simulation.disk.fail_at(n, failure);
                drop(open(&simulation));
                fired &= simulation.disk.fired();
                simulation.disk.crash(fate);
                simulation.disk.repair();
                simulation.disk.free_space();
                let opened = Db::open(simulation.env.clone(), DbOptions::new("/data"));
                opened.unwrap_or_else(|error| panic!("change {n}, {failure:?}, fate {fate}: {error}"));
            }
            if !fired {
                assert!(n > 5, "a first start changes the disk");
                break;
            }
        }
    }
}

#[test]
fn batches_that_come_before_recovery_are_kept_and_readable_after_it() {
    let simulation = Env::simulated(3);
    let mut ledger = Ledger::default();
    let db = open(&simulation).expect("opens");
    ingest(&db, &simulation, &mut ledger, 0, 4);
    drop(db);
    for round in 0..3 {
        simulation.disk.crash(0);
        ledger.restart();
        let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
        ingest(&db, &simulation, &mut ledger, 4 + round * 4, 4);
        if round == 1 {
            // Killed before recovery ran at all: the deferred batches are in the log alone.
            continue;
        }
        db.recover().expect("recovers");
        assert!(ledger.commit(&db));
        ledger.check(&contents(&db), "after deferred batches");
        assert_eq!(db.status().counters.samples_set_aside, 0);
    }
}

// Appended series by series they would take longer than others need to send more, and recovery would not end.
#[test]
fn a_batch_that_comes_before_recovery_is_appended_as_one() {
    let simulation = Env::simulated(3);
    let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
    assert_eq!(append_many(&db, 300, simulation.clock_ms()), Some(300));
    db.recover().expect("recovers");
    db.commit().expect("a good disk");
    let mut reader = Reader::open(&simulation.env, Path::new("/data/wal"), Position::START).expect("opens");
    let mut kinds = BTreeMap::new();
    while let Some(Item::Frame(frame)) = reader.read().expect("readable") {
        *kinds.entry(frame.bytes[0]).or_insert(0) += 1;
    }
    // The batch, its definitions, their repeat, and a frame of its samples.
    assert_eq!(kinds, BTreeMap::from([(1, 1), (2, 1), (5, 1), (8, 1)]));
    assert_eq!(contents(&db).len(), 300);
}

/// So many series, each with a sample of this time.
fn append_many(db: &Db, count: usize, timestamp: i64) -> Option<u64> {
    let series: Vec<Labels> = (0..count).map(|i| Labels::from_pairs([("i", &*i.to_string())])).collect();
    let mut batch = Batch::new();
    let sample = Sample { timestamp, value: 0.5 };
    series.iter().for_each(|labels| batch.push(RawLabels::Canonical(labels.as_bytes()), &[sample]));
    db.append(&batch).ok().map(|outcome| outcome.accepted)
}

#[test]
fn a_disk_that_fills_during_recovery_costs_nothing_that_was_acknowledged() {
    let simulation = Env::simulated(3);
    let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
    let now = simulation.clock_ms();
    assert_eq!(append_many(&db, 5000, now), Some(5000));
    db.commit().expect("there is room");
    let lens =
        simulation.disk.files().into_iter().map(|file| simulation.disk.peek(&file).expect("there").len());
    simulation.disk.set_capacity(lens.sum::<usize>() as u64 + 4096);
    let is_refused = (1..50).any(|i| {
        append_many(&db, 2000, now + i);
        db.commit().is_err()
    });
    assert!(is_refused, "the log is full");
    db.recover().expect("recovers");
    simulation.disk.free_space();
    simulation.disk.set_capacity(1 << 30);
    db.commit().expect("there is room");
    for image in [false, true] {
        assert_eq!(append_many(&db, 1, now + 1000 + i64::from(image)), Some(1), "there is room again");
        db.commit().expect("there is room");
        let at = |contents: &Contents| contents.keys().filter(|(_, at)| *at == now).count();
        assert_eq!(at(&contents(&db)), 5000);
        if image {
            db.run(Job::Image).expect("a good disk");
        }
        let files = simulation.disk.files();
        let copy = Env::simulated(4);
        copy.clock.jump_to_ms(simulation.clock_ms());
        for file in files {
            let disk = &copy.env.disk;
            disk.create_dir_all(file.parent().expect("a directory")).expect("memory");
            let to = disk.open(&file, Open::Create).expect("memory");
            to.append(&simulation.disk.peek(&file).expect("there")).expect("memory");
        }
        let again = Db::open(copy.env.clone(), DbOptions::new("/data")).expect("opens");
        again.recover().expect("recovers");
        assert_eq!(at(&contents(&again)), 5000, "after the next start");
    }
}

/// So many new series of 15,600 bytes of labels each.
fn long_series(count: usize) -> Vec<Labels> {
    let value = |i: usize, part: &str| format!("{i:06}{part}").repeat(3900 / 7);
    let set = |i| ["a", "b", "c", "d"].map(|name| (name, value(i, name)));
    (0..count).map(|i| Labels::from_pairs(set(i))).collect()
}

// What a target shows may define more than one frame of the log can have; the head has the series by then, and a log
// that waits for a frame that it never takes would refuse everybody's samples from then on.
#[test]
fn new_series_that_one_frame_of_the_log_can_not_define_are_kept() {
    let simulation = Env::simulated(3);
    let open = || {
        let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
        db.recover().expect("recovers");
        db
    };
    let now = simulation.clock_ms();
    let db = open();
    let mut ledger = Ledger::default();
    let series = long_series(2400);
    let at = |timestamp| {
        let sample = move |labels| (labels, Sample { timestamp, value: 0.5 });
        series.iter().map(sample).collect::<Vec<_>>()
    };
    assert!(ledger.append(&db, &at(now), &[]), "all are taken");
    assert!(ledger.commit(&db));
    let more = (1..40).all(|i| ledger.append(&db, &at(now + i)[..20], &[]) && ledger.commit(&db));
    assert!(more, "and what comes later");
    drop(db);
    for damaged in [false, true] {
        ledger.restart();
        simulation.disk.crash(0);
        if damaged {
            // The frames that define them first: each part has a repeat of its own.
            let path = Path::new("/data/wal/00000001.wal");
            let mut bytes = simulation.disk.peek(path).expect("there");
            bytes[1 << 20] ^= 1;
            simulation.disk.poke(path, &bytes).expect("there");
        }
        let db = open();
        let read = contents(&db);
        ledger.check(&read, "after a crash");
        assert_eq!(read.len(), 2400 + 39 * 20);
        assert_eq!(db.status().damage.len(), usize::from(damaged), "{:?}", db.status().damage);
    }
}

// Lengths take more bytes where labels are stored than in the protobuf that they came in.
#[test]
fn labels_at_the_limit_that_come_before_recovery_are_kept() {
    let simulation = Env::simulated(3);
    let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
    let limits = Limits::default();
    let value = "x".repeat(limits.label_value_bytes);
    let mut labels: Vec<(String, &str)> = vec![("__name__".to_owned(), "long")];
    let spelled = |labels: &[(String, &str)]| {
        let mut bytes = Vec::new();
        labels.iter().for_each(|(name, value)| spell_pair(name.as_bytes(), value.as_bytes(), &mut bytes));
        bytes
    };
    while spelled(&labels).len() <= limits.label_set_bytes {
        labels.push(("n".repeat(200 + labels.len()), &value[..180]));
    }
    labels.pop();
    let room = limits.label_set_bytes - spelled(&labels).len();
    labels.push(("o".to_owned(), &value[..room.saturating_sub(12)]));
    let proto = spelled(&labels);
    assert!((limits.label_set_bytes - 12..=limits.label_set_bytes).contains(&proto.len()), "{}", proto.len());
    let mut batch = Batch::new();
    batch.push(RawLabels::Proto(&proto), &[Sample { timestamp: simulation.clock_ms(), value: 0.5 }]);
    assert_eq!(db.append(&batch).expect("a good disk").accepted, 1);
    db.recover().expect("recovers");
    assert_eq!(contents(&db).len(), 1);
}

#[test]
fn a_late_sample_that_is_acknowledged_during_recovery_is_kept() {
    let simulation = Env::simulated(3);
    let mut db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
    let now = simulation.clock_ms();
    for (timestamp, appended) in [(now, 1), (now - 3 * 3_600_000, 2)] {
        assert_eq!(append_many(&db, 1, timestamp), Some(1));
        db.recover().expect("recovers");
        db.commit().expect("a good disk");
        assert_eq!(contents(&db).len(), appended);
        let counters = db.status().counters;
        assert_eq!((counters.samples_appended, counters.refused_too_old), (1, 0));
        drop(db);
        simulation.disk.crash(0);
        db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
    }
    db.recover().expect("recovers");
    assert_eq!(contents(&db).len(), 2);
    assert_eq!(append_many(&db, 1, now - 4 * 3_600_000), Some(0), "behind the window");
}

#[test]
fn samples_leave_a_reserve_on_the_disk() {
    let simulation = Env::simulated(9);
    let mut ledger = Ledger::default();
    let db = open(&simulation).expect("opens");
    ingest(&db, &simulation, &mut ledger, 0, 2);
    let used: u64 = simulation
        .disk
        .files()
        .iter()
        .map(|file| simulation.disk.peek(file).expect("there").len() as u64)
        .sum();
    simulation.disk.set_capacity(used + used / 50);
    assert_eq!(db.next_job(simulation.clock_ms()), None);
    let read_only = db.status().read_only.expect("refuses samples");
    assert!(read_only.contains("nearly full"), "{read_only}");
    let before = ledger.acknowledged();
    ingest(&db, &simulation, &mut ledger, 3, 1);
    assert_eq!(ledger.acknowledged(), before);
    simulation.disk.set_capacity(used * 100);
    db.next_job(simulation.clock_ms());
    ingest(&db, &simulation, &mut ledger, 4, 1);
    assert!(ledger.acknowledged() > before);
}
