//! What does not fit: one frame, the memory of the log, the disk.

use std::path::Path;

use bytes::Bytes;
use tidewatch_env::Env;
use tidewatch_journal::{Alert, AlertKey, AlertState, GAPS_MAX, Gap, GroupKey, Journal, Record, Waiting};
use tidewatch_model::Labels;

fn dir() -> &'static Path {
    Path::new("/data/journal")
}

fn put(id: u64, megabytes: usize) -> Record {
    Record::OutboxPut { id, bytes: Bytes::from(vec![id as u8; megabytes << 20]) }
}

fn ids(env: &Env) -> Vec<u64> {
    let (_, state) = Journal::open(env, dir()).expect("the journal opens");
    state.outbox.into_keys().collect()
}

// Ten thousand alerts for three Alertmanagers are more than a frame holds: the journal refused them.
#[test]
fn what_one_frame_can_not_hold_goes_into_several_in_its_order() {
    let simulation = Env::simulated(1);
    let (journal, _) = Journal::open(&simulation.env, dir()).expect("the journal opens");
    // More than the log takes without a commit, and one that no frame holds among them.
    let mut records: Vec<Record> = (0..90).map(|id| put(id, 1)).collect();
    records.insert(40, put(1_000, 33));
    let taken = journal.append_all(records);
    assert!(taken.rest.is_empty() && taken.error.is_none() && taken.too_large == 1, "{:?}", taken.error);
    journal.commit().expect("there is room");
    drop(journal);
    simulation.disk.kill();
    assert_eq!(ids(&simulation.env), (0..90).collect::<Vec<_>>());
}

#[test]
fn what_finds_no_room_waits_and_goes_first_when_there_is_some() {
    let simulation = Env::simulated(2);
    let (journal, _) = Journal::open(&simulation.env, dir()).expect("the journal opens");
    assert!(journal.append_all(vec![put(1, 1)]).error.is_none());
    journal.commit().expect("there is room");
    simulation.disk.set_capacity(0);
    let mut waiting = Waiting::default();
    let mut refusals = 0;
    for id in 2..6 {
        waiting.add([put(id, 1)], &journal);
        let taken = journal.append_all(waiting.take());
        refusals += usize::from(taken.error.is_some_and(|error| error.may_pass()));
        waiting.add(taken.rest, &journal);
        // Taken into memory until the first commit finds no room.
        assert!(journal.commit().is_err());
    }
    assert!(refusals > 0 && !waiting.is_empty());
    waiting.add([Record::OutboxRemoved { id: 5 }, Record::OutboxRemoved { id: 1 }], &journal);
    simulation.disk.set_capacity(u64::MAX);
    let taken = journal.append_all(waiting.take());
    assert!(taken.error.is_none() && taken.rest.is_empty() && waiting.is_empty(), "{:?}", taken.error);
    journal.commit().expect("there is room again");
    drop(journal);
    assert_eq!(ids(&simulation.env), [2, 3, 4]);
}

fn alert_key(labels: &[(&str, &str)]) -> AlertKey {
    AlertKey {
        group: GroupKey { file: "f.yml".to_owned(), group: "g".to_owned() },
        rule: "Down".to_owned(),
        rule_index: 0,
        labels: Labels::from_pairs(labels.iter().copied()),
    }
}

// Counted without their labels, so that a frame was too large, which closed the journal.
#[test]
fn forgotten_alerts_with_many_labels_go_into_several_frames() {
    let simulation = Env::simulated(3);
    let (journal, _) = Journal::open(&simulation.env, dir()).expect("the journal opens");
    let long = "x".repeat(4_000);
    let forgotten =
        |id: usize| Record::AlertForgotten(alert_key(&[("id", &id.to_string()), ("long", long.as_str())]));
    let taken = journal.append_all((0..10_000).map(forgotten).collect());
    assert!(taken.error.is_none() && taken.rest.is_empty(), "{:?}", taken.error);
}

// Alerts that come and go while a disk is full are as nothing afterwards: each left its end behind.
#[test]
fn what_came_and_went_meanwhile_waits_for_nothing() {
    let simulation = Env::simulated(4);
    let (journal, _) = Journal::open(&simulation.env, dir()).expect("the journal opens");
    let alert = Alert {
        state: AlertState::Pending,
        value: 1.0,
        active_at_ms: 1,
        fired_at_ms: None,
        resolved_at_ms: None,
        keep_firing_since_ms: None,
        last_sent_at_ms: None,
        valid_until_ms: None,
        annotations: Default::default(),
    };
    let known = alert_key(&[("host", "known")]);
    assert!(journal.append_all(vec![Record::Alert(known.clone(), alert.clone())]).error.is_none());
    let mut waiting = Waiting::default();
    for host in ["a", "b", "known"] {
        let key = alert_key(&[("host", host)]);
        waiting.add([Record::Alert(key.clone(), alert.clone())], &journal);
        waiting.add([Record::AlertForgotten(key)], &journal);
    }
    let gap = |at_ms| Record::Gap(Gap { from_ms: at_ms, to_ms: at_ms, evaluations: 1, ..Gap::default() });
    waiting.add((0..GAPS_MAX as i64 + 10).map(gap), &journal);
    let records = waiting.take();
    let (gaps, others): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|record| matches!(record, Record::Gap(_)));
    assert_eq!(others, [Record::AlertForgotten(known)]);
    assert_eq!((gaps.len(), gaps.last()), (GAPS_MAX, Some(&gap(10))), "the newest");
}
