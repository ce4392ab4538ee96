//! The head alone: what is appended is what is selected.

use std::ops::ControlFlow;

use tidewatch_env::{Clock, Env};
use tidewatch_model::{Batch, Labels, MatchOp, Matcher, RawLabels, STALE_NAN, Sample};
use tidewatch_storage::{Append, Latest, Refusal, RunValues, Scratch, Select, SelectError, TimeRange};
use tidewatch_tsdb::{Db, DbOptions};

const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

fn db() -> Db {
    Db::in_memory(Env::in_memory(), DbOptions::new(""))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied())
}

fn append(db: &Db, labels: &Labels, samples: &[(i64, f64)]) -> Vec<(Refusal, u64)> {
    let samples: Vec<Sample> =
        samples.iter().map(|&(timestamp, value)| Sample { timestamp, value }).collect();
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &samples);
    db.append(&batch).expect("takes writes").refused
}

/// Every selected series with its samples, one line each.
fn dump(db: &Db, matchers: &[Matcher], range: TimeRange) -> Vec<String> {
    let selection = db.select(matchers, range).expect("complete");
    let mut lines: Vec<String> = (0..selection.len()).map(|at| selection.labels(at).to_string()).collect();
    let mut visit = |series: usize, run: tidewatch_storage::Run<'_>| {
        let RunValues::Floats(values) = run.values else { panic!("only floats went in") };
        assert_eq!(values.len(), run.timestamps.len());
        for (timestamp, value) in run.timestamps.iter().zip(values) {
            lines[series] += &format!(" {value}@{timestamp}");
        }
        ControlFlow::Continue(())
    };
    selection.scan(0..selection.len(), range, &mut Scratch::default(), &mut visit).expect("readable");
    lines
}

#[test]
fn a_selection_asks_for_its_memory_as_it_grows() {
    let db = db();
    for i in 0..5_000 {
        append(&db, &labels(&[("__name__", "up"), ("instance", &format!("host-{i}"))]), &[(1000, 1.0)]);
    }
    let up = [Matcher::equal("__name__", "up")];
    let mut asked = 0;
    let selection = db.select_within(&up, ALL, &mut |bytes| {
        asked += bytes;
        true
    });
    assert_eq!(selection.expect("there is room").len(), 5_000);
    assert!((5_000 * 150..5_000 * 500).contains(&asked), "{asked} bytes for 5,000 series");
    // One that is resolved anew asks in parts, one that is known at once.
    let same = [Matcher::new(MatchOp::Regex, "__name__", "up").expect("compiles")];
    for (matchers, new) in [(&same, true), (&up, false)] {
        let (mut left, mut times) = (asked / 2, 0);
        let refused = db.select_within(matchers, ALL, &mut |bytes| {
            times += 1;
            left = left.saturating_sub(bytes);
            left > 0
        });
        assert!(matches!(refused, Err(SelectError::NoRoom)));
        assert_eq!(times > 3, new, "{times} times so far");
    }
}

/// An expression may take long for each value: who has no more time says so in between.
#[test]
fn a_selection_asks_whether_to_go_on_while_it_matches() {
    let db = db();
    for i in 0..2_000 {
        let path = format!("{}-{i}", "/a/long/path".repeat(9));
        append(&db, &labels(&[("__name__", "up"), ("path", &path)]), &[(1000, 1.0)]);
    }
    let none = [Matcher::new(MatchOp::Regex, "path", ".*/[b-d][[:digit:]]").expect("compiles")];
    let mut asked = 0;
    let mut room = |_| {
        asked += 1;
        asked < 3
    };
    assert!(matches!(db.select_within(&none, ALL, &mut room), Err(SelectError::NoRoom)));
    assert_eq!(asked, 3, "nothing more is matched");
    for names in [true, false] {
        let mut asked = 0;
        let mut room = |_| {
            asked += 1;
            asked < 3
        };
        let found = match names {
            true => db.label_names(&none, ALL, 9, &mut room),
            false => db.label_values("path", &none, ALL, 9, &mut room),
        };
        assert!(matches!(found, Err(SelectError::NoRoom)), "{found:?}");
        assert_eq!(asked, 3);
    }
}

/// A dashboard asks for metrics that a store does not have.
#[test]
fn no_value_is_matched_where_no_series_has_the_other_labels() {
    let db = db();
    for i in 0..2_000 {
        let path = format!("{}-{i}", "/a/long/path".repeat(9));
        append(&db, &labels(&[("__name__", "up"), ("path", &path)]), &[(1000, 1.0)]);
    }
    for (name, is_asked) in [("up", true), ("down", false)] {
        let matchers = [
            Matcher::new(MatchOp::Regex, "path", ".*/[b-d][[:digit:]]").expect("compiles"),
            Matcher::equal("__name__", name),
        ];
        let mut asked = 0;
        let mut room = |_| {
            asked += 1;
            true
        };
        assert_eq!(db.select_within(&matchers, ALL, &mut room).expect("there is room").len(), 0);
        assert_eq!(asked > 0, is_asked, "{name}");
    }
}

/// Nobody waits for who matches: a series is added in between.
#[test]
fn series_are_added_while_an_expression_is_matched() {
    let db = db();
    let path =
        |i: usize| labels(&[("__name__", "up"), ("path", &format!("{}-{i}", "/a/long/path".repeat(9)))]);
    (0..2_000).for_each(|i| drop(append(&db, &path(i), &[(1000, 1.0)])));
    let some = [Matcher::new(MatchOp::Regex, "path", ".*/path-1?[0-3]").expect("compiles")];
    let (mut asked, mut new) = (0, 5_000);
    let mut room = |_| {
        asked += 1;
        std::thread::scope(|scope| {
            let (done, is_done) = std::sync::mpsc::channel();
            let (db, labels) = (&db, path(new));
            scope.spawn(move || done.send(append(db, &labels, &[(1000, 1.0)])));
            assert_eq!(is_done.recv_timeout(std::time::Duration::from_secs(20)), Ok(vec![]), "{asked}");
        });
        new += 1;
        true
    };
    let found = db.select_within(&some, ALL, &mut room).expect("there is room").len();
    assert_eq!(found, 8);
    let names = db.label_values("path", &some, ALL, usize::MAX, &mut room).expect("there is room");
    assert_eq!(names.len(), 8);
    assert!(asked > 6, "{asked}");
}

#[test]
fn expressions_find_what_they_match() {
    let db = db();
    let all: Vec<Labels> = (0..600)
        .map(|i| match i % 3 {
            0 => labels(&[("__name__", "up"), ("i", &i.to_string())]),
            1 => labels(&[("__name__", "up"), ("i", &i.to_string()), ("job", &format!("job-{}", i % 7))]),
            _ => labels(&[("__name__", "down"), ("job", &format!("job {i}"))]),
        })
        .collect();
    all.iter().for_each(|labels| drop(append(&db, labels, &[(1000, 1.0)])));
    for (name, expression) in [
        ("job", "job.[1-4]"),
        ("job", "(job.*[05])?"),
        ("i", "[^1]*"),
        ("i", "1.+|2.+5"),
        ("nobody", "a.b|c.d"),
    ] {
        for op in [MatchOp::Regex, MatchOp::NotRegex] {
            let matchers =
                [Matcher::new(op, name, expression).expect("compiles"), Matcher::equal("__name__", "up")];
            let satisfies = |labels: &&Labels| {
                matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
            };
            let mut expected: Vec<String> =
                all.iter().filter(satisfies).map(|labels| format!("{labels} 1@1000")).collect();
            expected.sort_unstable();
            let mut found = dump(&db, &matchers, ALL);
            found.sort_unstable();
            assert_eq!(found, expected, "{name} {op:?} {expression}");
        }
    }
}

#[test]
fn samples_come_back_sorted_by_labels_and_time() {
    let db = db();
    append(&db, &labels(&[("__name__", "up"), ("job", "b")]), &[(1000, 1.0), (2000, 0.0)]);
    append(&db, &labels(&[("__name__", "up"), ("job", "a")]), &[(1000, 0.5), (3000, -1.25)]);
    append(&db, &labels(&[("__name__", "down")]), &[(1000, 7.0)]);
    let up = [Matcher::equal("__name__", "up")];
    assert_eq!(
        dump(&db, &up, ALL),
        [r#"{__name__="up", job="a"} 0.5@1000 -1.25@3000"#, r#"{__name__="up", job="b"} 1@1000 0@2000"#]
    );
    let some = TimeRange { start: 1500, end: 2500 };
    assert_eq!(dump(&db, &up, some), [r#"{__name__="up", job="a"}"#, r#"{__name__="up", job="b"} 0@2000"#]);
    let not_a = [Matcher::new(MatchOp::NotRegex, "job", "a|x").expect("compiles")];
    assert_eq!(dump(&db, &not_a, ALL).len(), 2);
}

#[test]
fn repeats_conflicts_and_late_samples_are_told_apart() {
    let db = db();
    let series = labels(&[("__name__", "x")]);
    assert_eq!(append(&db, &series, &[(10_000, 1.0), (20_000, 2.0)]), []);
    assert_eq!(append(&db, &series, &[(20_000, 2.0), (10_000, 1.0)]), []);
    assert_eq!(append(&db, &series, &[(10_000, 1.5), (20_000, 3.0)]), [(Refusal::Conflict, 2)]);
    assert_eq!(append(&db, &series, &[(15_000, 1.5), (5_000, 0.5), (15_000, 1.5)]), []);
    assert_eq!(append(&db, &series, &[(15_000, 9.0)]), [(Refusal::Conflict, 1)]);
    assert_eq!(append(&db, &series, &[(-4_000_000, 0.0)]), [(Refusal::TooOld, 1)]);
    assert_eq!(append(&db, &series, &[(i64::MAX, 0.0)]), [(Refusal::TooFarInFuture, 1)]);
    assert_eq!(append(&db, &labels(&[("__name__", "y")]), &[(i64::MIN, 0.0)]), [(Refusal::TooOld, 1)]);
    assert_eq!(dump(&db, &[], ALL), [r#"{__name__="x"} 0.5@5000 1@10000 1.5@15000 2@20000"#]);
    let counters = db.status().counters;
    assert_eq!((counters.duplicates, counters.refused_conflict, counters.refused_too_old), (3, 3, 2));
}

// Each series of a sender that collects had a clock of its own, as the first to come took all rows of the request.
#[test]
fn series_that_come_with_several_samples_each_share_their_times() {
    const SERIES: usize = 200;
    for each in [2, 7, 50, 300, 1200] {
        let db = db();
        let names: Vec<Labels> = (0..SERIES).map(|i| labels(&[("i", &i.to_string())])).collect();
        let mut step = 0;
        while step < 1200.max(2 * each) {
            // The last ones come later, or are new.
            let known = if step < 600 { &names[..SERIES / 2] } else { &names[..] };
            let times = step..step + each;
            step += each;
            let samples: Vec<Sample> = times.map(|t| Sample { timestamp: t * 1000, value: 1.0 }).collect();
            let mut batch = Batch::new();
            for name in known {
                batch.push(RawLabels::Canonical(name.as_bytes()), &samples);
            }
            assert_eq!(db.append(&batch).expect("takes writes").refused, []);
        }
        let clocks = db.status().head.clocks;
        assert!(clocks < 80, "{clocks} clocks for {SERIES} series with {each} samples a request");
        let mut counts: Vec<usize> =
            dump(&db, &[], ALL).iter().map(|line| line.matches('@').count()).collect();
        counts.sort_unstable();
        let (all, late) = (step as usize, (step - (600 + each - 1) / each * each) as usize);
        assert_eq!(counts, [vec![late; SERIES / 2], vec![all; SERIES / 2]].concat());
    }
}

#[test]
fn long_series_of_every_cadence_survive_sealing_and_forking() {
    let db = db();
    let names: Vec<Labels> =
        (0..40).map(|i| labels(&[("__name__", "m"), ("i", &format!("{i:02}"))])).collect();
    let mut expected: Vec<Vec<(i64, u64)>> = vec![Vec::new(); names.len()];
    for step in 0..1000i64 {
        let mut batch = Batch::new();
        for (i, name) in names.iter().enumerate() {
            // Some skip rows, some come every other time, one has times of its own.
            let skips =
                (i % 7 == 3 && step % 50 == 49) || (i % 5 == 4 && step % 2 == 1) || (i == 6 && step < 333);
            if skips {
                continue;
            }
            let timestamp = step * 15_000 + if i == 9 { step % 13 } else { 0 };
            let value = match i % 4 {
                0 => step as f64 * 3.0,
                1 => (step as f64).sin(),
                2 if step % 97 == 96 => STALE_NAN,
                _ => 42.0,
            };
            expected[i].push((timestamp, value.to_bits()));
            batch.push(RawLabels::Canonical(name.as_bytes()), &[Sample { timestamp, value }]);
        }
        assert_eq!(db.append(&batch).expect("takes writes").refused, []);
    }
    let selection = db.select(&[], ALL).expect("complete");
    let mut read: Vec<Vec<(i64, u64)>> = vec![Vec::new(); names.len()];
    let mut of_clock = std::collections::HashMap::new();
    let mut visit = |series: usize, run: tidewatch_storage::Run<'_>| {
        let RunValues::Floats(values) = run.values else { panic!("only floats went in") };
        read[series].extend(run.timestamps.iter().zip(values).map(|(t, v)| (*t, v.to_bits())));
        let clock = run.clock.expect("nothing came late");
        assert_eq!(of_clock.entry(clock).or_insert_with(|| run.timestamps.to_vec()), run.timestamps);
        ControlFlow::Continue(())
    };
    let range = TimeRange { start: 100_000, end: 14_000_000 };
    selection.scan(0..selection.len(), range, &mut Scratch::default(), &mut visit).expect("readable");
    for series in &mut expected {
        series.retain(|(t, _)| (range.start..=range.end).contains(t));
    }
    assert_eq!(read, expected);
    let clocks = db.status().head.clocks;
    assert!(clocks < 60, "forty series of six cadences do not need {clocks} clocks");
    for at in [0, 14_999, 777_777, 9_000_007, 14_985_000] {
        let mut latest = vec![None; names.len()];
        let mut visit = |series: usize, found: Latest| {
            let Latest::Float { timestamp, value } = found else { panic!("only floats went in") };
            latest[series] = Some((timestamp, value.to_bits()));
        };
        selection
            .latest(0..selection.len(), at - 300_000, at, &mut Scratch::default(), &mut visit)
            .expect("readable");
        for (i, expected) in expected.iter().enumerate() {
            let newest = expected.iter().rfind(|(t, _)| *t <= at && *t > at - 300_000).copied();
            if at >= range.start + 300_000 && at <= range.end {
                assert_eq!(latest[i], newest, "series {i} at {at}");
            }
        }
    }
}

/// Labels as a sender of remote write spells them, in this order.
fn spell(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in pairs {
        bytes.extend([0x0a, (name.len() + value.len() + 4) as u8, 0x0a, name.len() as u8]);
        bytes.extend(name.as_bytes());
        bytes.extend([0x12, value.len() as u8]);
        bytes.extend(value.as_bytes());
    }
    bytes
}

#[test]
fn a_sender_that_spells_a_series_ever_anew_takes_no_memory_for_it() {
    let db = db();
    for timestamp in 0..20_000 {
        let bytes = spell(&[("__name__", "x"), (&format!("gone{timestamp}"), "")]);
        let mut batch = Batch::new();
        batch.push(RawLabels::Proto(&bytes), &[Sample { timestamp, value: 1.0 }]);
        assert_eq!(db.append(&batch).expect("takes writes").accepted, 1);
    }
    let head = db.status().head;
    assert_eq!((head.series, head.samples), (1, 20_000));
    assert!(head.memory.table < 64 << 10, "{} bytes for one series", head.memory.table);
}

#[test]
fn another_spelling_of_a_label_set_is_the_same_series() {
    let db = db();
    let canonical = labels(&[("__name__", "x"), ("job", "j")]);
    append(&db, &canonical, &[(1, 1.0)]);
    let spellings = [
        spell(&[("__name__", "x"), ("job", "j")]),
        spell(&[("job", "j"), ("__name__", "x")]),
        spell(&[("job", "j"), ("gone", ""), ("__name__", "x")]),
    ];
    for round in 0..2 {
        for (i, bytes) in spellings.iter().enumerate() {
            let mut batch = Batch::new();
            let timestamp = 10 + round * 10 + i as i64;
            batch.push(RawLabels::Proto(bytes), &[Sample { timestamp, value: 1.0 }]);
            assert_eq!(db.append(&batch).expect("takes writes").accepted, 1);
        }
    }
    assert_eq!(db.status().head.series, 1);
    assert_eq!(db.status().head.samples, 7);
}

#[test]
fn labels_that_are_no_label_set_are_refused_and_their_neighbours_taken() {
    let db = db();
    let good = labels(&[("__name__", "good")]);
    let long = labels(&[("__name__", "x"), ("a", &"v".repeat(5000))]);
    let many: Vec<(String, String)> = (0..80).map(|i| (format!("l{i}"), "v".to_owned())).collect();
    let many = Labels::from_pairs(many);
    let mut batch = Batch::new();
    let one = [Sample { timestamp: 1, value: 1.0 }];
    batch.push(RawLabels::Proto(b"\x0a\x0e\x0a\x08__na"), &one);
    batch.push(RawLabels::Proto(b""), &one);
    batch.push(RawLabels::Proto(b"\x0a\x06\x0a\x01a\x12\x01\xff"), &one);
    batch.push(RawLabels::Proto(b"\x0a\x06\x0a\x01a\x12\x011\x0a\x06\x0a\x01a\x12\x012"), &one);
    batch.push(RawLabels::Proto(b"\x0a\x05\x0a\x00\x12\x011"), &one);
    batch.push(RawLabels::Canonical(long.as_bytes()), &one);
    batch.push(RawLabels::Canonical(good.as_bytes()), &one);
    batch.push(RawLabels::Canonical(many.as_bytes()), &one);
    let outcome = db.append(&batch).expect("takes writes");
    assert_eq!(outcome.accepted, 1);
    assert_eq!(outcome.refused, [(Refusal::InvalidLabels, 5), (Refusal::LabelLimit, 2)]);
    assert!(outcome.first_refusal.expect("something was refused").contains("malformed"));
    assert_eq!(dump(&db, &[], ALL), [r#"{__name__="good"} 1@1"#]);
}

#[test]
fn label_names_and_values_are_those_of_series_in_range() {
    let db = db();
    append(&db, &labels(&[("__name__", "a"), ("job", "old"), ("x", "1")]), &[(1000, 1.0)]);
    append(&db, &labels(&[("__name__", "b"), ("job", "new")]), &[(100_000, 1.0)]);
    let late = TimeRange { start: 50_000, end: 200_000 };
    let names = |range| db.label_names(&[], range, 10, &mut |_| true).expect("complete");
    assert_eq!(names(ALL), ["__name__", "job", "x"]);
    assert_eq!(names(late), ["__name__", "job"]);
    let jobs = |matchers: &[Matcher], range, limit| {
        db.label_values("job", matchers, range, limit, &mut |_| true).expect("complete")
    };
    assert_eq!(jobs(&[], ALL, 10), ["new", "old"]);
    assert_eq!(jobs(&[], ALL, 1), ["new"]);
    assert_eq!(jobs(&[Matcher::equal("x", "1")], ALL, 10), ["old"]);
    assert_eq!(jobs(&[], late, 10), ["new"]);
}

#[test]
fn above_half_of_the_limit_new_series_come_at_a_pace() {
    let simulation = Env::simulated(1);
    let db = Db::in_memory(simulation.env.clone(), DbOptions { series_max: 10_000, ..DbOptions::new("") });
    let mut named = 0;
    let mut come = |count: usize| {
        let all: Vec<Labels> =
            (named..named + count).map(|i| labels(&[("__name__", "up"), ("i", &i.to_string())])).collect();
        let sample = [Sample { timestamp: simulation.clock.wall_ms(), value: 1.0 }];
        let mut batch = Batch::new();
        all.iter().for_each(|labels| batch.push(RawLabels::Canonical(labels.as_bytes()), &sample));
        let result = db.append(&batch).map_err(|error| error.to_string());
        named += if result.is_ok() { count } else { 0 };
        result.map(|outcome| outcome.accepted)
    };
    assert_eq!(come(5_000), Ok(5_000));
    assert_eq!(come(600), Ok(600));
    assert_eq!(come(400), Ok(400));
    let reason = come(1).expect_err("one of five in a minute");
    assert!(reason.contains("1001 new series within a minute are over the limit of 1000"), "{reason}");
    simulation.clock.advance_ms(60_000);
    assert_eq!(come(1_200), Ok(1_200));
    assert!(come(1).is_err());
    // Those that are known go on, also beside one that is not taken.
    let sample = [Sample { timestamp: simulation.clock.wall_ms() + 1, value: 2.0 }];
    let both = ["7", "unheard"].map(|i| labels(&[("__name__", "up"), ("i", i)]));
    let mut batch = Batch::new();
    both.iter().for_each(|labels| batch.push(RawLabels::Canonical(labels.as_bytes()), &sample));
    let before = db.status().counters.samples_appended;
    assert!(db.append(&batch).expect_err("one is new").to_string().contains("at its limit"));
    assert_eq!(db.status().counters.samples_appended, before + 1);
    // Far beyond the limit none comes at any pace.
    simulation.clock.advance_ms(60_000);
    assert!(come(2_801).expect_err("too many").contains("over the limit of 10000"));
}

#[test]
fn a_target_that_is_more_than_half_of_all_is_taken_as_one() {
    let db = Db::in_memory(Env::in_memory(), DbOptions { series_max: 10_000, ..DbOptions::new("") });
    let sample = [Sample { timestamp: 0, value: 1.0 }];
    let all: Vec<Labels> = (0..9_000).map(|i| labels(&[("__name__", "up"), ("i", &i.to_string())])).collect();
    let mut batch = Batch::new();
    all.iter().for_each(|labels| batch.push(RawLabels::Canonical(labels.as_bytes()), &sample));
    assert_eq!(db.append(&batch).expect("the first of its minute").accepted, 9_000);
}
