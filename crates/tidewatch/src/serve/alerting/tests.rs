//! What the journal has of alerts when the disk fails, and what receivers are told.

use std::path::Path;

use tidewatch_env::sim::Simulation;
use tidewatch_model::Labels;
use tidewatch_rules::ChangeKind;
use tidewatch_tsdb::DbOptions;

use super::*;

fn alerting(simulation: &Simulation) -> Alerting {
    let env = simulation.env.clone();
    let (journal, state) = Journal::open(&env, Path::new("/journal")).expect("the journal opens");
    let db = Arc::new(Db::in_memory(env.clone(), DbOptions::new("/data")));
    Alerting::new(env, db, journal, &state)
}

/// An evaluation at which the alert of this host began to fire.
fn fires(host: &str, at_ms: i64) -> Effects {
    let instance = AlertInstance {
        labels: Labels::from_pairs([("alertname", "Down"), ("host", host)]),
        annotations: BTreeMap::new(),
        state: AlertState::Firing,
        value: 1.0,
        active_at_ms: at_ms,
        fired_at_ms: Some(at_ms),
        resolved_at_ms: None,
        keep_firing_since_ms: None,
        last_sent_at_ms: None,
        valid_until_ms: None,
    };
    let rule = RuleId { name: "Down".to_owned(), index: 0 };
    let changes = vec![AlertChange { rule, kind: ChangeKind::Firing, instance }];
    Effects { at_ms, evaluated: true, changes, ..Effects::default() }
}

fn quiet(at_ms: i64) -> Effects {
    Effects { at_ms, evaluated: true, ..Effects::default() }
}

/// What the next process finds: the hosts that fire, and the last evaluation.
fn found(simulation: &Simulation) -> (Vec<String>, Option<i64>) {
    let (_, state) = Journal::open(&simulation.env, Path::new("/journal")).expect("the journal opens");
    let hosts = state.alerts.keys().filter_map(|key| key.labels.get("host").map(str::to_owned)).collect();
    (hosts, records::last_evaluation(&state, "f.yml", "g"))
}

// The log takes what there is no room for when there is some; the alerts' state stayed out until a restart.
#[test]
fn alert_state_is_durable_again_when_the_disk_has_room_again() {
    let simulation = Env::simulated(1);
    let alerting = alerting(&simulation);
    alerting.record("f.yml", "g", &fires("a", 1_000));
    simulation.disk.set_capacity(0);
    for (second, host) in ["b", "c", "d"].into_iter().enumerate() {
        alerting.record("f.yml", "g", &fires(host, 2_000 + second as i64 * 1_000));
        assert!(alerting.maintain().is_err() || alerting.state.lock().failed.is_some());
    }
    simulation.disk.set_capacity(u64::MAX);
    alerting.maintain().expect("there is room");
    assert!(alerting.state.lock().failed.is_none());
    simulation.disk.kill();
    let hosts = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    assert_eq!(found(&simulation), (hosts, Some(4_000)));
}

// Whoever makes room restarts the server next: what waited for it was lost.
#[test]
fn what_waits_for_room_is_written_at_the_end() {
    let simulation = Env::simulated(5);
    let alerting = alerting(&simulation);
    simulation.disk.set_capacity(0);
    for (host, at_ms) in [("a", 1_000), ("b", 2_000), ("c", 3_000)] {
        alerting.record("f.yml", "g", &fires(host, at_ms));
    }
    simulation.disk.set_capacity(u64::MAX);
    alerting.close();
    simulation.disk.kill();
    assert_eq!(found(&simulation), (["a", "b", "c"].map(str::to_owned).to_vec(), Some(3_000)));
}

// It was said to be durable, and was in memory.
#[test]
fn what_waited_for_room_is_durable_when_that_is_said() {
    let simulation = Env::simulated(6);
    let alerting = alerting(&simulation);
    simulation.disk.set_capacity(0);
    for (host, at_ms) in [("a", 1_000), ("b", 2_000)] {
        alerting.record("f.yml", "g", &fires(host, at_ms));
    }
    simulation.disk.set_capacity(u64::MAX);
    alerting.record("f.yml", "g", &quiet(3_000));
    assert!(alerting.state.lock().failed.is_none());
    simulation.disk.kill();
    assert_eq!(found(&simulation), (["a", "b"].map(str::to_owned).to_vec(), Some(3_000)));
}

// A process that was stopped in the middle of an evaluation told of an alert that had ended by then.
#[test]
fn what_an_evaluation_tells_holds_from_when_it_is_sent() {
    let simulation = Env::simulated(4);
    let alerting = alerting(&simulation);
    let url = "http://am/api/v2/alerts".to_owned();
    let endpoint = Endpoint { url, timeout_ms: 1_000, relabel: Vec::new(), section: 0 };
    alerting.configure(Options::default(), vec![endpoint], Vec::new(), Vec::new());
    let at_ms = simulation.env.clock.wall_ms();
    simulation.clock.advance_ms(600_000);
    let mut effects = fires("a", at_ms);
    effects.notifications.push(Notification {
        rule: RuleId { name: "Down".to_owned(), index: 0 },
        labels: effects.changes[0].instance.labels.clone(),
        annotations: BTreeMap::new(),
        starts_at_ms: at_ms,
        ends_at_ms: at_ms + 240_000,
        state: AlertState::Firing,
        generator_url: String::new(),
    });
    alerting.record("f.yml", "g", &effects);
    let requests = alerting.state.lock().notifier.due(simulation.env.clock.wall_ms());
    let body = String::from_utf8_lossy(&requests[0].body).into_owned();
    assert!(body.contains(r#""endsAt":"2026-01-01T00:14:00.000Z""#), "{body}");
}

/// What the next process makes of groups of `text` once `former` has ended and a minute has passed: the groups,
/// and the names of those whose marks are left.
fn restarted(simulation: &Simulation, former: Alerting, text: &str) -> (Vec<Group>, Vec<String>) {
    former.close();
    drop(former);
    simulation.clock.advance_ms(60_000);
    let file = tidewatch_rules::RuleFile::parse(text, "f.yml", &Default::default()).expect("valid");
    let now_ms = simulation.env.clock.wall_ms();
    let mut groups = tidewatch_rules::reload(Vec::new(), vec![file], &Arc::default(), now_ms).groups;
    let (journal, state) = Journal::open(&simulation.env, Path::new("/journal")).expect("it opens");
    let db = Arc::new(Db::in_memory(simulation.env.clone(), DbOptions::new("/data")));
    let alerting = Alerting::new(simulation.env.clone(), db, journal, &state);
    restore(&mut groups, &state, &alerting);
    (groups, alerting.journal.state().groups.into_keys().map(|key| key.group).collect())
}

// A group that was gone for a week and is back was told to have missed all evaluations of that week.
#[test]
fn a_group_that_was_gone_for_a_while_has_missed_nothing() {
    let simulation = Env::simulated(3);
    let former = alerting(&simulation);
    let week_ms = 7 * 86_400_000;
    let start_ms = simulation.env.clock.wall_ms();
    let marks = [("back", 0), ("gone", 0), ("renamed", week_ms), ("stays", week_ms)];
    for (name, at_ms) in marks {
        former.record("f.yml", name, &quiet(start_ms + at_ms));
    }
    simulation.clock.jump_to_ms(start_ms + week_ms);
    let text =
        "groups: [{name: back, rules: [{record: r, expr: a}]}, {name: stays, rules: [{record: s, expr: a}]}]";
    let (groups, left) = restarted(&simulation, former, text);
    let now_ms = simulation.env.clock.wall_ms();
    let due: Vec<i64> = groups.iter().map(|group| group.next_due_ms() - now_ms).collect();
    assert!(due[0] > 0 && due[1] <= 0, "only what stayed has missed something: {due:?}");
    assert_eq!(left, ["back", "renamed", "stays"]);
}

// One that still waited after a night was taken for one that had been gone, and judged at once what had not
// come back.
#[test]
fn a_group_that_waits_after_a_long_sleep_waits_after_a_restart_too() {
    let simulation = Env::simulated(7);
    let former = alerting(&simulation);
    let (start_ms, night_ms) = (simulation.env.clock.wall_ms(), 8 * 3_600_000);
    former.record("f.yml", "records", &quiet(start_ms));
    former.record("f.yml", "reads", &quiet(start_ms));
    let gap =
        tidewatch_rules::Gap { from_ms: start_ms + 60_000, to_ms: start_ms + night_ms, evaluations: 480 };
    former.record("f.yml", "records", &Effects { gap: Some(gap), ..quiet(start_ms + night_ms + 60_000) });
    simulation.clock.jump_to_ms(start_ms + night_ms + 70_000);
    let text = "groups: [{name: records, rules: [{record: r, expr: a}]}, {name: reads, rules: [{alert: A, expr: r}]}]";
    let (mut groups, _) = restarted(&simulation, former, text);
    let now_ms = simulation.env.clock.wall_ms();
    groups.iter_mut().for_each(|group| group.woke(now_ms));
    let waits = groups.iter().map(|group| group.waits_until_ms(now_ms).map(|until_ms| until_ms - now_ms));
    assert_eq!(waits.collect::<Vec<_>>(), [Some(60_000), Some(120_000)]);
}

// After kill -9 a start took a quiet week for a sleep, told of missed evaluations and waited.
#[test]
fn the_time_of_the_last_evaluation_survives_a_kill_where_no_alert_changes() {
    let simulation = Env::simulated(2);
    let alerting = alerting(&simulation);
    alerting.record("f.yml", "g", &fires("a", 1_000));
    alerting.record("f.yml", "g", &quiet(600_000));
    simulation.clock.advance_ms(30_000);
    alerting.maintain().expect("the disk works");
    simulation.disk.kill();
    assert_eq!(found(&simulation), (vec!["a".to_owned()], Some(600_000)));
}
