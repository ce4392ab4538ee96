//! Backfills read back: any order, repeats, both kinds of samples, blocks of sorted sources.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tidewatch_env::{Clock, Env};
use tidewatch_model::histogram::{CounterResetHint, Histogram, Span};
use tidewatch_model::{Batch, Matcher, NativeHistogram, Sample};
use tidewatch_storage::{Append, RunValues, Scratch, Select, TimeRange};

use super::*;
use crate::{Db, DbOptions};

fn floats<'a>(timestamps: &'a [i64], values: &'a [f64]) -> StoredRun<'a> {
    StoredRun { timestamps, values: StoredValues::Floats(values), starts: None }
}

fn histograms<'a>(timestamps: &'a [i64], values: &'a [NativeHistogram]) -> StoredRun<'a> {
    StoredRun { timestamps, values: StoredValues::Histograms(values), starts: None }
}

fn histogram(count: u64, hint: CounterResetHint) -> NativeHistogram {
    NativeHistogram::Integer(Histogram {
        hint,
        count,
        sum: count as f64,
        positive_spans: vec![Span { offset: 0, length: 1 }],
        positive_deltas: vec![count as i64],
        ..Histogram::default()
    })
}

/// The histograms, floats and starts of series `x`, one line each.
fn listed(env: &Env) -> Vec<String> {
    let options = DbOptions { retention_ms: None, ..DbOptions::new("/data") };
    let db = Db::open(env.clone(), options).expect("opens");
    db.recover().expect("recovers");
    let all = TimeRange { start: i64::MIN, end: i64::MAX };
    let stored = db.stored(&[Matcher::equal("__name__", "x")], all).expect("complete");
    let mut found = Vec::new();
    for series in 0..stored.len() {
        let mut visit = |run: StoredRun<'_>| {
            for (row, time) in run.timestamps.iter().enumerate() {
                let value = match run.values {
                    StoredValues::Floats(values) => values[row].to_string(),
                    StoredValues::Histograms(values) if values[row].is_stale() => "ended".to_owned(),
                    StoredValues::Histograms(values) => {
                        format!("histogram {} {:?}", values[row].sum(), values[row].hint())
                    }
                };
                let start = run.starts.map_or(0, |starts| starts[row]);
                found.push(format!("{time}: {value} since {start}"));
            }
            Ok::<(), tidewatch_storage::SelectError>(())
        };
        stored.visit(series, all, &mut visit).expect("readable");
    }
    found
}

/// Whatever a source says of resets, what is stored says no reset where there is one.
#[test]
fn histograms_come_out_with_floats_and_starts_and_no_reset_is_hidden() {
    use CounterResetHint::{Gauge, NotReset, Reset, Unknown};
    let simulation = Env::simulated(1);
    let mut backfill = Backfill::open(&simulation.env, Path::new("/data")).expect("opens");
    let values = [(1, NotReset), (3, NotReset), (2, NotReset), (5, Reset), (6, Unknown), (1, Gauge)];
    let values: Vec<NativeHistogram> = values.iter().map(|(count, hint)| histogram(*count, *hint)).collect();
    for row in (0..values.len()).rev() {
        backfill.push(&series(1), &histograms(&[row as i64 * 10], &values[row..=row])).expect("taken");
    }
    backfill.push(&series(1), &histograms(&[60], &[NativeHistogram::stale()])).expect("taken");
    let started = StoredRun { starts: Some(&[3, 0]), ..floats(&[70, 80], &[0.5, 1.5]) };
    backfill.push(&series(1), &started).expect("taken");
    // A float at the time of a histogram, another histogram, and the same again.
    backfill.push(&series(1), &floats(&[10], &[0.5])).expect("taken");
    backfill
        .push(&series(1), &histograms(&[10, 20], &[histogram(4, Unknown), values[2].clone()]))
        .expect("taken");
    backfill.flush().expect("a good disk");
    assert_eq!((backfill.counts().conflicts.count, backfill.counts().duplicates), (2, 1));
    let first = backfill.counts().conflicts.first.clone().unwrap_or_default();
    assert!(first.ends_with("at 10 ms: a histogram with the sum 3 was kept, not 0.5"), "{first}");
    drop(backfill);
    let expected = [
        "0: histogram 1 Unknown since 0",
        "10: histogram 3 NotReset since 0",
        "20: histogram 2 Unknown since 0",
        "30: histogram 5 Reset since 0",
        "40: histogram 6 NotReset since 0",
        "50: histogram 1 Gauge since 0",
        "60: ended since 0",
        "70: 0.5 since 3",
        "80: 1.5 since 0",
    ];
    assert_eq!(listed(&simulation.env), expected);
}

#[test]
fn a_sorted_source_becomes_a_block_as_it_is_read() {
    let simulation = Env::simulated(1);
    let mut backfill = Backfill::open(&simulation.env, Path::new("/data")).expect("opens");
    let mut block = backfill.sorted(0, 1000).expect("a good disk");
    let values = [2, 3, 1].map(|count| histogram(count, CounterResetHint::NotReset));
    assert_eq!(block.push(&series(1), &histograms(&[10, 20, 30], &values)).expect("a good disk"), None);
    assert!(!block.takes(&series(1), &[30]) && !block.takes(&series(0), &[40]));
    assert!(!block.takes(&series(2), &[999, 1000]) && !block.takes(&series(2), &[20, 10]));
    // The run goes on, and so does what is known of the one before.
    let more = [
        histogram(1, CounterResetHint::NotReset),
        NativeHistogram::Integer(Histogram { count: 9, ..Histogram::default() }),
    ];
    let reason =
        block.push(&series(1), &histograms(&[40, 50], &more)).expect("a good disk").expect("one is invalid");
    assert!(reason.contains("the one at 50 ms is invalid"), "{reason}");
    assert_eq!(block.push(&series(2), &floats(&[10], &[7.0])).expect("a good disk"), None);
    backfill.keep(block).expect("a good disk");
    assert_eq!((backfill.counts().samples, backfill.counts().blocks), (5, 1));
    drop(backfill);
    let expected = [
        "10: histogram 2 Unknown since 0",
        "20: histogram 3 NotReset since 0",
        "30: histogram 1 Unknown since 0",
        "40: histogram 1 NotReset since 0",
        "10: 7 since 0",
    ];
    assert_eq!(listed(&simulation.env), expected);
}

/// What the head has was stored first, and what comes after it goes on.
#[test]
fn what_was_stored_first_stays_where_it_is_in_the_head() {
    let simulation = Env::simulated(1);
    let open = || {
        let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
        db.recover().expect("recovers");
        db
    };
    let send = |db: &Db, timestamp: i64, value: f64| {
        let (labels, mut batch) = (series(0), Batch::new());
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value }]);
        assert_eq!(db.append(&batch).expect("takes writes").accepted, 1);
        db.commit().expect("a good disk");
    };
    let now = simulation.clock.wall_ms();
    send(&open(), now, 5.0);
    let mut backfill = Backfill::open(&simulation.env, Path::new("/data")).expect("opens");
    backfill.push(&series(0), &floats(&[now - 1000, now], &[104.0, 105.0])).expect("taken");
    backfill.flush().expect("a good disk");
    backfill.merge(&mut |_| {}).expect("a good disk");
    drop(backfill);
    send(&open(), now + 1000, 6.0);
    let found: Vec<(i64, f64)> = held(&simulation.env)
        .into_iter()
        .map(|((_, time), bits)| (time - now, f64::from_bits(bits)))
        .collect();
    assert_eq!(found, [(-1000, 104.0), (0, 5.0), (1000, 6.0)]);
}

/// The head has late samples alone, from before the time up to which the import before had cut.
#[test]
fn what_came_late_between_two_imports_was_stored_first() {
    let simulation = Env::simulated(1);
    let now = simulation.clock.wall_ms();
    let send = |timestamp: i64, value: f64| {
        let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
        db.recover().expect("recovers");
        let (labels, mut batch) = (series(0), Batch::new());
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value }]);
        assert_eq!(db.append(&batch).expect("takes writes").accepted, 1);
        db.commit().expect("a good disk");
    };
    let import = |timestamp: i64, value: f64| {
        let mut backfill = Backfill::open(&simulation.env, Path::new("/data")).expect("opens");
        backfill.push(&series(0), &floats(&[timestamp], &[value])).expect("taken");
        backfill.flush().expect("a good disk");
    };
    send(now, 1.0);
    import(now - 2000, 2.0);
    send(now - 1000, 3.0);
    import(now - 1000, 4.0);
    let found: Vec<(i64, f64)> = held(&simulation.env)
        .into_iter()
        .map(|((_, time), bits)| (time - now, f64::from_bits(bits)))
        .collect();
    assert_eq!(found, [(-2000, 2.0), (-1000, 3.0), (0, 1.0)]);
}

type Samples = BTreeMap<(String, i64), u64>;

/// All that a database holds, as a server would find it.
fn held(env: &Env) -> Samples {
    let options = DbOptions { retention_ms: None, ..DbOptions::new("/data") };
    let db = Db::open(env.clone(), options).expect("opens");
    db.recover().expect("recovers");
    let all = TimeRange { start: i64::MIN, end: i64::MAX };
    let selection = db.select(&[Matcher::equal("__name__", "x")], all).expect("complete");
    let mut found = Samples::new();
    let mut visit = |series: usize, run: tidewatch_storage::Run<'_>| {
        let RunValues::Floats(values) = run.values else { unreachable!("floats were written") };
        for (time, value) in run.timestamps.iter().zip(values) {
            found.insert((selection.labels(series).to_string(), *time), value.to_bits());
        }
        ControlFlow::Continue(())
    };
    selection.scan(0..selection.len(), all, &mut Scratch::default(), &mut visit).expect("readable");
    found
}

fn series(instance: i64) -> Labels {
    Labels::from_pairs([("__name__", "x"), ("instance", &instance.to_string())])
}

#[test]
fn samples_in_any_order_come_out_sorted_and_once() {
    let simulation = Env::simulated(1);
    let mut backfill = Backfill::open(&simulation.env, Path::new("/data")).expect("opens");
    let mut expected = Samples::new();
    for round in 0..3 {
        for step in (0..2000i64).rev() {
            let (labels, time) = (series(step % 7), (step * 7919 % 4000 - 900) * 60_000);
            backfill.push(&labels, &floats(&[time], &[step as f64])).expect("taken");
            expected.entry((labels.to_string(), time)).or_insert((step as f64).to_bits());
        }
        backfill.flush().expect("a good disk");
        assert_eq!(backfill.counts().samples, (round + 1) * expected.len() as u64);
    }
    let within = backfill.counts().conflicts.count + backfill.counts().duplicates;
    assert_eq!(within, 6000 - 3 * expected.len() as u64);
    backfill.merge(&mut |_| {}).expect("a good disk");
    assert!(backfill.counts().merged > 0 && backfill.counts().unmerged.is_empty());
    drop(backfill);
    assert_eq!(held(&simulation.env), expected);
}

// Other values for times that were stored already were left out in silence.
#[test]
fn what_was_stored_with_another_value_is_counted_and_stays() {
    let simulation = Env::simulated(1);
    let open = || Backfill::open(&simulation.env, Path::new("/data")).expect("opens");
    let count = |count| [histogram(count, CounterResetHint::Unknown)];
    let mut backfill = open();
    backfill.push(&series(1), &floats(&[10, 20, 30], &[1.0, 2.0, f64::NAN])).expect("taken");
    backfill.push(&series(2), &histograms(&[10], &count(3))).expect("taken");
    backfill.push(&series(2), &histograms(&[20], &count(4))).expect("taken");
    backfill.flush().expect("a good disk");
    backfill.merge(&mut |_| {}).expect("a good disk");
    assert_eq!(backfill.made().count(), 0);
    drop(backfill);
    let before = listed(&simulation.env);

    // Interrupted before it could merge: equal ones, others, new ones; and another for what is new by then.
    let mut backfill = open();
    backfill.push(&series(1), &floats(&[10, 20, 30, 40], &[1.0, 5.0, f64::NAN, 4.0])).expect("taken");
    backfill.push(&series(2), &histograms(&[10], &count(7))).expect("taken");
    backfill.push(&series(2), &histograms(&[20], &count(4))).expect("taken");
    backfill.flush().expect("a good disk");
    backfill.push(&series(1), &floats(&[40], &[9.0])).expect("taken");
    backfill.flush().expect("a good disk");
    let made: Vec<BlockId> = backfill.made().collect();
    assert_eq!(made.len(), 2);
    drop(backfill);
    let mut backfill = open();
    backfill.resume(made);
    backfill.push(&series(2), &floats(&[10], &[0.5])).expect("taken");
    backfill.flush().expect("a good disk");
    backfill.merge(&mut |_| {}).expect("a good disk");
    let BackfillCounts { conflicts, stored_conflicts, .. } = backfill.counts().clone();
    let shown = |conflicts: Conflicts| (conflicts.count, conflicts.first.unwrap_or_default());
    let x = series(1);
    assert_eq!(shown(stored_conflicts), (3, format!("{x} at 20 ms: 2 was kept, not 5")));
    assert_eq!(shown(conflicts), (1, format!("{x} at 40 ms: 4 was kept, not 9")));
    drop(backfill);
    let mut expected = before;
    expected.insert(3, "40: 4 since 0".to_owned());
    assert_eq!(listed(&simulation.env), expected);

    // They were merged with what was stored, and are that now.
    let mut backfill = open();
    backfill.merge(&mut |_| {}).expect("a good disk");
    assert_eq!(backfill.counts(), &BackfillCounts::default());
}

#[test]
fn a_server_that_has_the_directory_keeps_it() {
    let simulation = Env::simulated(1);
    let _db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("opens");
    let Err(error) = Backfill::open(&simulation.env, Path::new("/data")) else {
        panic!("two have one directory")
    };
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn what_no_write_request_may_send_is_refused_by_name() {
    let simulation = Env::simulated(1);
    let mut backfill = Backfill::open(&simulation.env, Path::new("/data")).expect("opens");
    let long = Labels::from_pairs([("__name__", "x"), ("path", "/".repeat(5000).as_str())]);
    let reason = backfill.push(&long, &floats(&[0], &[1.0])).expect_err("too long");
    assert!(reason.contains("over the limit of 4096"), "{reason}");
    let times = [i64::MAX, 5, i64::MIN];
    let reason = backfill.push(&series(1), &floats(&times, &[1.0; 3])).expect_err("beyond all times");
    assert!(reason.contains("2 samples have a time that can not be stored"), "{reason}");
    let invalid = Histogram { count: 1, ..Histogram::default() };
    let mixed = [NativeHistogram::Integer(invalid), histogram(2, CounterResetHint::Unknown)];
    let reason = backfill.push(&series(2), &histograms(&[1, 2], &mixed)).expect_err("invalid");
    assert!(reason.contains("1 histograms can not be stored: the one at 1 ms is invalid"), "{reason}");
    backfill.flush().expect("a good disk");
    assert_eq!(backfill.counts().samples, 2);
}

#[test]
fn what_was_taken_counts_before_it_is_written() {
    let env = Env::simulated(1).env;
    let mut backfill = Backfill::open(&env, Path::new("/data")).expect("a good disk");
    let labels = Labels::from_pairs([("__name__", "x")]);
    backfill.push(&labels, &floats(&[1, 2, 2, 2], &[1.0, 2.0, 2.0, 3.0])).expect("fine");
    assert_eq!((backfill.taken(), backfill.counts().samples), (4, 0));
    backfill.flush().expect("a good disk");
    assert_eq!((backfill.taken(), backfill.counts().samples), (4, 2));
}
