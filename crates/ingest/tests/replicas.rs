//! Replicas that write the same series: which is heard, and what of its labels is stored.

use proptest::prelude::*;
use tidewatch_ingest::{HaOptions, HaTracker, Replaced, StateError, decode_state, encode_state};
use tidewatch_model::{Batch, BatchExemplar, Labels, RawLabels, Sample};

/// Does one line after the other and compares what comes of it:
/// `TIME CLUSTER/REPLICA@SAMPLE -> taken | left out | too many`.
#[track_caller]
fn check(script: &str) {
    let mut tracker = HaTracker::new(HaOptions { clusters_max: 2, ..HaOptions::default() });
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (call, expected) = line.split_once(" -> ").expect("an expectation");
        let number = |text: &str| text.parse::<i64>().expect("a number") * 1000;
        if let Some(now) = call.strip_suffix(" restart") {
            let state = encode_state(&tracker);
            tracker = HaTracker::new(HaOptions { clusters_max: 2, ..HaOptions::default() });
            decode_state(&state, &mut tracker, number(now)).expect("just written");
            continue;
        }
        let (now, who) = call.split_once(' ').expect("a time");
        let (who, at) = who.split_once('@').expect("a sample's time");
        let (cluster, replica) = who.split_once('/').expect("a replica");
        let labels = Labels::from_pairs([("__name__", "up"), ("cluster", cluster), ("__replica__", replica)]);
        let mut batch = Batch::new();
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp: number(at), value: 1.0 }]);
        let mut replaced = Replaced::default();
        let examined = tracker.examine(&batch, number(now), &mut replaced);
        replaced.apply(&mut batch);
        let found = match (examined.deduplicated, examined.refused) {
            (0, 0) => {
                let stored = Labels::from_pairs([("__name__", "up"), ("cluster", cluster)]);
                assert_eq!(batch.series[0].labels, RawLabels::Canonical(stored.as_bytes()), "{line}");
                "taken"
            }
            (1, 0) => "left out",
            _ => "too many",
        };
        assert_eq!(found, expected, "{line}");
        assert_eq!(batch.series.is_empty(), found != "taken", "{line}");
    }
}

#[test]
fn the_first_replica_is_heard_until_it_is_silent_for_the_timeout() {
    check(
        "0 eu/a@0 -> taken
         1 eu/b@1 -> left out
         5 us/b@5 -> taken
         15 eu/a@15 -> taken
         44 eu/b@44 -> left out
         45 eu/b@45 -> taken
         46 eu/a@46 -> left out",
    );
}

#[test]
fn a_replica_that_catches_up_does_not_take_over() {
    check(
        "0 eu/a@0 -> taken
         100 eu/b@-50 -> left out
         101 eu/b@0 -> left out
         102 eu/b@1 -> taken",
    );
    // Samples from the future do not keep anybody elected.
    check(
        "0 eu/a@600 -> taken
         31 eu/b@31 -> taken",
    );
}

#[test]
fn who_is_elected_survives_a_restart_and_has_the_timeout_again() {
    check(
        "0 eu/a@0 -> taken
         1000 restart -> ok
         1001 eu/b@1001 -> left out
         1002 eu/a@1002 -> taken
         1020 eu/b@1020 -> left out
         1032 eu/b@1032 -> taken",
    );
}

#[test]
fn a_clock_that_is_set_back_does_not_lock_the_others_out() {
    check(
        "10000 eu/a@10000 -> taken
         0 eu/b@20 -> left out
         30 eu/b@30 -> taken",
    );
}

#[test]
fn clusters_are_bounded() {
    check(
        "0 eu/a@0 -> taken
         0 us/a@0 -> taken
         0 ap/a@0 -> too many
         1790 us/a@1790 -> taken
         1800 ap/a@1800 -> taken
         1801 eu/a@1801 -> too many
         1802 us/a@1802 -> taken",
    );
}

// The names are kept for half an hour at least: those of a few requests must not take gigabytes.
#[test]
fn names_that_no_label_may_have_elect_nobody_and_are_left_to_the_store() {
    let mut tracker = HaTracker::new(HaOptions::default());
    for (cluster, replica, expected) in [(1 << 20, 1, 0), (1, 1 << 20, 0), (4097, 1, 0), (4096, 4096, 1)] {
        let (cluster, replica) = ("x".repeat(cluster), "y".repeat(replica));
        let labels =
            Labels::from_pairs([("__name__", "up"), ("cluster", &cluster), ("__replica__", &replica)]);
        let mut batch = Batch::new();
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp: 1, value: 1.0 }]);
        let mut replaced = Replaced::default();
        tracker.examine(&batch, 1, &mut replaced);
        replaced.apply(&mut batch);
        let (kept, is_as_it_was) =
            (tracker.status().len(), batch.series[0].labels == RawLabels::Canonical(labels.as_bytes()));
        assert_eq!(
            (kept, is_as_it_was),
            (expected, expected == 0),
            "{} and {}",
            cluster.len(),
            replica.len()
        );
    }
}

#[test]
fn series_without_both_labels_are_left_as_they_are_and_replicas_may_mix() {
    let mut tracker = HaTracker::new(HaOptions::default());
    let sets = [
        Labels::from_pairs([("__name__", "up"), ("cluster", "eu")]),
        Labels::from_pairs([("__name__", "up"), ("__replica__", "a")]),
        Labels::from_pairs([("__name__", "up"), ("cluster", "eu"), ("__replica__", "a")]),
        Labels::from_pairs([("__name__", "up"), ("cluster", "eu"), ("__replica__", "b")]),
        Labels::from_pairs([("__name__", "up"), ("cluster", "us"), ("__replica__", "b")]),
    ];
    let mut batch = Batch::new();
    for labels in &sets {
        batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp: 1, value: 1.0 }]);
    }
    let mut replaced = Replaced::default();
    let examined = tracker.examine(&batch, 1, &mut replaced);
    assert_eq!((examined.deduplicated, examined.elected), (1, true));
    assert_eq!(examined.example, Some(("b".to_owned(), "a".to_owned())));
    replaced.apply(&mut batch);
    let left: Vec<usize> = batch.series.iter().map(|series| series.labels.pairs().count()).collect();
    assert_eq!(left, [2, 2, 2, 2]);
    let proto = b"\x0a\x10\x0a\x0b__replica__\x12\x01a\x0a\x0d\x0a\x07cluster\x12\x02eu";
    let mut batch = Batch::new();
    batch.push(RawLabels::Proto(proto), &[]);
    assert!(!tracker.examine(&batch, 2, &mut replaced).elected);
    replaced.apply(&mut batch);
    assert_eq!(batch.series[0].labels, RawLabels::Proto(&proto[18..]));
}

// A series may have long labels and many exemplars, of a few bytes each.
#[test]
fn the_labels_of_a_series_are_copied_once_for_all_its_exemplars() {
    let long = "x".repeat(10_000);
    let series =
        Labels::from_pairs([("__name__", "up"), ("cluster", "eu"), ("__replica__", "a"), ("long", &long)]);
    let labels = RawLabels::Canonical(series.as_bytes());
    let mut batch = Batch::new();
    batch.push(labels, &[Sample { timestamp: 1, value: 1.0 }]);
    let none = RawLabels::Canonical(&[]);
    batch.exemplars = vec![BatchExemplar { series: labels, labels: none, value: 1.0, timestamp: 1 }; 1000];
    let mut replaced = Replaced::default();
    HaTracker::new(HaOptions::default()).examine(&batch, 1, &mut replaced);
    assert!(replaced.capacity() < 100_000, "{}", replaced.capacity());
    replaced.apply(&mut batch);
    assert_eq!(batch.exemplars.len(), 1000);
    assert!(batch.exemplars.iter().all(|exemplar| exemplar.series == batch.series[0].labels));
}

// An exemplar that kept its replica's label would never be found under its series.
#[test]
fn exemplars_go_the_way_of_their_series() {
    let mut tracker = HaTracker::new(HaOptions { clusters_max: 1, ..HaOptions::default() });
    let of = |cluster, replica| {
        Labels::from_pairs([("__name__", "up"), ("cluster", cluster), ("__replica__", replica)])
    };
    let (a, b, nobody) = (of("eu", "a"), of("eu", "b"), Labels::from_pairs([("__name__", "up")]));
    let too_many = of("us", "a");
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(a.as_bytes()), &[Sample { timestamp: 1, value: 1.0 }]);
    let none = RawLabels::Canonical(&[]);
    batch.push(RawLabels::Canonical(too_many.as_bytes()), &[Sample { timestamp: 1, value: 1.0 }]);
    batch.exemplars = [&a, &b, &nobody, &too_many]
        .map(|labels| RawLabels::Canonical(labels.as_bytes()))
        .map(|series| BatchExemplar { series, labels: none, value: 1.0, timestamp: 1 })
        .to_vec();
    let mut replaced = Replaced::default();
    let examined = tracker.examine(&batch, 1, &mut replaced);
    assert_eq!((examined.deduplicated_exemplars, examined.deduplicated, examined.refused), (1, 0, 1));
    replaced.apply(&mut batch);
    let stored = Labels::from_pairs([("__name__", "up"), ("cluster", "eu")]);
    let left: Vec<_> = batch.exemplars.iter().map(|exemplar| exemplar.series.bytes()).collect();
    assert_eq!(left, [stored.as_bytes(), nobody.as_bytes()]);
}

#[test]
fn the_state_is_frozen_and_every_changed_byte_of_it_is_found() {
    let mut tracker = HaTracker::new(HaOptions::default());
    let labels = Labels::from_pairs([("cluster", "eu"), ("__replica__", "a")]);
    let mut batch = Batch::new();
    batch.push(RawLabels::Canonical(labels.as_bytes()), &[]);
    tracker.examine(&batch, 258, &mut Replaced::default());
    let state = encode_state(&tracker);
    let expected = [
        b'T', b'W', b'H', b'A', 1, 0, 0, 0, 1, 0, 0, 0, // header
        2, 0, 0, 0, b'e', b'u', 1, 0, 0, 0, b'a', 2, 1, 0, 0, 0, 0, 0, 0, // cluster
    ];
    assert_eq!(state[..state.len() - 4], expected);
    for at in 0..state.len() {
        let mut damaged = state.clone();
        damaged[at] ^= 1;
        let mut tracker = HaTracker::new(HaOptions::default());
        let error = decode_state(&damaged, &mut tracker, 0).expect_err("damaged");
        assert!(matches!(error, StateError::Damaged(_)), "{at}");
        assert!(tracker.status().is_empty());
        assert!(decode_state(&state[..at], &mut tracker, 0).is_err());
    }
}

proptest! {
    #[test]
    fn no_state_makes_the_reader_panic(mut body in proptest::collection::vec(any::<u8>(), 0..80), fit in any::<bool>()) {
        if fit {
            let mut whole = b"TWHA\x01\0\0\0".to_vec();
            whole.append(&mut body);
            let crc = crc32fast::hash(&whole);
            whole.extend_from_slice(&crc.to_le_bytes());
            body = whole;
        }
        let mut tracker = HaTracker::new(HaOptions::default());
        if decode_state(&body, &mut tracker, 0).is_ok() {
            let again = encode_state(&tracker);
            prop_assert!(decode_state(&again, &mut HaTracker::new(HaOptions::default()), 0).is_ok());
        }
    }
}
