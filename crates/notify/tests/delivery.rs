//! Delivery in virtual time: what happens to the notifier in, what it sends and keeps out.

use std::collections::BTreeMap;

use tidewatch_model::{Labels, RelabelAction, RelabelConfig, RelabelFields};
use tidewatch_notify::{
    Alert, Endpoint, Notifier, Options, OutboxChanges, Outcome, Request, RequestId, alerts_url,
};

fn endpoint(name: &str) -> Endpoint {
    let url = alerts_url("http", name, "/");
    Endpoint { url, timeout_ms: 10_000, relabel: Vec::new(), section: 0 }
}

/// A notifier that sends to `names`.
fn notifier(names: &[&str]) -> Notifier {
    let mut notifier = Notifier::new(Options::default());
    notifier.set_endpoints(0, names.iter().map(|name| endpoint(name)).collect());
    notifier
}

fn firing(name: &str, at_ms: i64) -> Alert {
    Alert {
        labels: Labels::from_pairs([("alertname", name)]),
        annotations: BTreeMap::new(),
        starts_at_ms: at_ms,
        ends_at_ms: at_ms + 240_000,
        resolved: false,
        generator_url: "http://x/graph".to_owned(),
    }
}

fn resolved(name: &str, at_ms: i64) -> Alert {
    Alert { ends_at_ms: at_ms, resolved: true, ..firing(name, at_ms) }
}

/// `host: A B!`: the alerts of each request, resolved ones with a mark.
fn describe(requests: &[Request], now_ms: i64) -> Vec<String> {
    let line = |request: &Request| {
        let posted: serde_json::Value = serde_json::from_slice(&request.body).expect("a body is JSON");
        let now = jiff::Timestamp::from_millisecond(now_ms).expect("in range");
        let names: Vec<String> = posted
            .as_array()
            .expect("a list")
            .iter()
            .map(|alert| {
                let ends: jiff::Timestamp =
                    alert["endsAt"].as_str().expect("a time").parse().expect("a time");
                let mark = if ends <= now { "!" } else { "" };
                format!("{}{mark}", alert["labels"]["alertname"].as_str().expect("a name"))
            })
            .collect();
        let host = request.url.split('/').nth(2).expect("a host");
        format!("{host}: {}", names.join(" "))
    };
    requests.iter().map(line).collect()
}

/// What is due at `now_ms`, described, and the requests' ids.
fn due(notifier: &mut Notifier, now_ms: i64) -> (Vec<String>, Vec<RequestId>) {
    let requests = notifier.due(now_ms);
    (describe(&requests, now_ms), requests.iter().map(|request| request.id).collect())
}

#[test]
fn the_body_is_what_an_alertmanager_expects() {
    let mut notifier = notifier(&["am:9093"]);
    let annotations = BTreeMap::from([("text".to_owned(), "a \"b\"".to_owned())]);
    notifier.enqueue(1_500, &[Alert { annotations, ..firing("A", 1_500) }]);
    let request = notifier.due(1_500).remove(0);
    assert_eq!(
        String::from_utf8(request.body).expect("UTF-8"),
        concat!(
            r#"[{"labels":{"alertname":"A"},"annotations":{"text":"a \"b\""},"#,
            r#""startsAt":"1970-01-01T00:00:01.500Z","endsAt":"1970-01-01T00:04:01.500Z","#,
            r#""generatorURL":"http://x/graph"}]"#
        )
    );
    assert_eq!((request.method, request.url.as_str()), ("POST", "http://am:9093/api/v2/alerts"));
    assert_eq!(alerts_url("https", "h", "/a/b/"), "https://h/a/b/api/v2/alerts");
}

#[test]
fn a_dead_receiver_delays_no_other_and_gets_the_newest_state_when_it_is_back() {
    let mut notifier = notifier(&["dead", "well"]);
    notifier.enqueue(0, &[firing("A", 0), firing("B", 0)]);
    let (sent, ids) = due(&mut notifier, 0);
    assert_eq!(sent, ["dead: A B", "well: A B"]);
    notifier.completed(10, ids[1], Outcome::Status(200));
    notifier.enqueue(20, &[resolved("A", 20)]);
    let (sent, well) = due(&mut notifier, 20);
    assert_eq!(sent, ["well: A!"]);
    notifier.completed(30, well[0], Outcome::Status(200));
    notifier.completed(10_000, ids[0], Outcome::Failed("connection refused".to_owned()));
    // The first wait is a second, the next ones double.
    assert_eq!(notifier.next_due_ms(), Some(11_000));
    assert_eq!(due(&mut notifier, 10_999).0, [""; 0]);
    let (sent, ids) = due(&mut notifier, 11_000);
    assert_eq!(sent, ["dead: A! B"]);
    notifier.completed(11_000, ids[0], Outcome::Status(503));
    assert_eq!(notifier.next_due_ms(), Some(13_000));
    let (_, ids) = due(&mut notifier, 13_000);
    notifier.completed(13_000, ids[0], Outcome::Status(200));
    assert_eq!(notifier.next_due_ms(), None);
    assert_eq!(notifier.counters().delivered, 5);
}

#[test]
fn a_state_that_changes_while_it_is_sent_is_sent_again() {
    let mut notifier = notifier(&["am"]);
    notifier.enqueue(0, &[firing("A", 0)]);
    let (_, ids) = due(&mut notifier, 0);
    notifier.enqueue(5, &[resolved("A", 5)]);
    assert!(notifier.due(6).is_empty(), "one request at a time");
    notifier.completed(7, ids[0], Outcome::Status(200));
    assert_eq!(due(&mut notifier, 7).0, ["am: A!"]);
}

#[test]
fn a_firing_alert_that_waited_long_arrives_as_firing() {
    let mut notifier = notifier(&["am"]);
    notifier.enqueue(0, &[firing("A", 0)]);
    assert_eq!(due(&mut notifier, 3_600_000).0, ["am: A"]);
}

#[test]
fn requests_hold_at_most_a_batch() {
    let mut notifier = notifier(&["am"]);
    let alerts: Vec<Alert> = (0..150).map(|i| firing(&format!("A{i}"), 0)).collect();
    notifier.enqueue(0, &alerts);
    let mut counts = Vec::new();
    while let Some(request) = notifier.due(0).pop() {
        counts.push(request.alerts);
        notifier.completed(0, request.id, Outcome::Status(200));
    }
    assert_eq!(counts, [64, 64, 22]);
}

#[test]
fn an_alert_that_is_refused_holds_up_no_other() {
    let mut notifier = notifier(&["am"]);
    notifier.enqueue(0, &[firing("bad", 0), firing("good", 0)]);
    let (_, ids) = due(&mut notifier, 0);
    notifier.completed(0, ids[0], Outcome::Status(400));
    let (sent, ids) = due(&mut notifier, 0);
    assert_eq!(sent, ["am: bad"]);
    notifier.completed(0, ids[0], Outcome::Status(400));
    let (sent, ids) = due(&mut notifier, 0);
    assert_eq!(sent, ["am: good"]);
    notifier.completed(0, ids[0], Outcome::Status(200));
    let counters = notifier.counters();
    assert_eq!((counters.refused, counters.delivered), (1, 1));
}

/// Plays changes as a journal would.
fn note(journal: &mut BTreeMap<u64, Vec<u8>>, changes: OutboxChanges) {
    journal.extend(changes.puts);
    for id in changes.removals {
        journal.remove(&id);
    }
}

#[test]
fn what_was_not_delivered_survives_a_crash() {
    let mut journal = BTreeMap::new();
    let mut before = notifier(&["a", "b"]);
    before.enqueue(0, &[firing("X", 0), firing("Y", 0)]);
    let (_, ids) = due(&mut before, 0);
    before.completed(1, ids[0], Outcome::Status(200));
    before.enqueue(2, &[resolved("Y", 2)]);
    note(&mut journal, before.take_changes());
    let mut after = Notifier::new(Options::default());
    assert_eq!(after.restore(10, journal.clone()), 0);
    after.set_endpoints(10, vec![endpoint("a"), endpoint("b")]);
    let (sent, ids) = due(&mut after, 10);
    assert_eq!(sent, ["a: Y!", "b: X Y!"]);
    for id in ids {
        after.completed(11, id, Outcome::Status(200));
    }
    note(&mut journal, after.take_changes());
    assert!(journal.is_empty(), "{journal:?}");
    assert_eq!(after.restore(12, [(99, b"no entry".to_vec())]), 1);
    assert_eq!(after.take_changes().removals, [99]);
}

#[test]
fn a_receiver_that_discovery_loses_for_a_moment_loses_nothing() {
    let mut notifier = notifier(&["a"]);
    notifier.enqueue(0, &[firing("X", 0)]);
    notifier.set_endpoints(1, Vec::new());
    assert!(notifier.due(2).is_empty());
    notifier.set_endpoints(60_000, vec![endpoint("a")]);
    assert_eq!(due(&mut notifier, 60_000).0, ["a: X"]);
}

#[test]
fn a_receiver_that_is_gone_for_good_is_forgotten_and_counted() {
    let mut journal = BTreeMap::new();
    let mut notifier = notifier(&["a"]);
    notifier.enqueue(0, &[firing("X", 0)]);
    notifier.set_endpoints(0, Vec::new());
    assert!(notifier.due(15 * 60 * 1000).is_empty());
    note(&mut journal, notifier.take_changes());
    assert!(journal.is_empty() && notifier.status().is_empty());
    assert_eq!(notifier.counters().dropped_absent, 1);
    notifier.enqueue(1_000_000, &[firing("X", 0)]);
    assert_eq!(notifier.counters().without_receiver, 1);
}

#[test]
fn external_labels_are_added_and_relabelling_has_the_last_word() {
    let rule = |fields| RelabelConfig::new(fields).expect("a valid rule");
    let drop_quiet = rule(RelabelFields {
        source_labels: vec!["alertname".to_owned()],
        regex: "Quiet".to_owned(),
        action: RelabelAction::Drop,
        ..RelabelFields::default()
    });
    let no_replica = rule(RelabelFields {
        regex: "replica".to_owned(),
        action: RelabelAction::LabelDrop,
        ..RelabelFields::default()
    });
    let external_labels = Labels::from_pairs([("replica", "1"), ("dc", "x"), ("alertname", "no")]);
    let relabel = vec![drop_quiet, no_replica];
    let mut notifier = Notifier::new(Options { external_labels, relabel, ..Options::default() });
    notifier.set_endpoints(0, vec![endpoint("a")]);
    notifier.enqueue(0, &[firing("Quiet", 0), firing("Loud", 0)]);
    let body = String::from_utf8(notifier.due(0).remove(0).body).expect("UTF-8");
    assert!(body.starts_with(r#"[{"labels":{"alertname":"Loud","dc":"x"},"#), "{body}");
    assert_eq!(notifier.counters().relabelled_away, 1);
}

#[test]
fn a_full_outbox_drops_the_oldest_of_the_longest_queue_and_counts_it() {
    let mut notifier = Notifier::new(Options { outbox_bytes: 1_000, ..Options::default() });
    notifier.set_endpoints(0, vec![endpoint("dead")]);
    let alerts: Vec<Alert> = (0..20).map(|i| firing(&format!("A{i:02}"), 0)).collect();
    notifier.enqueue(0, &alerts);
    let status = notifier.status().remove(0);
    assert!(status.waiting_bytes <= 1_000 && status.waiting > 0, "{status:?}");
    assert_eq!(notifier.counters().dropped_full, 20 - status.waiting as u64);
    assert!(due(&mut notifier, 0).0[0].ends_with("A19"));
}

mod at_least_once {
    use proptest::prelude::*;

    use super::*;

    /// Whatever answers, crashes and orders: in the end each receiver has the newest state of every
    /// alert, and the journal is empty.
    fn settles(steps: &[(u8, u8)]) {
        let mut journal = BTreeMap::new();
        let mut notifier = notifier(&["a", "b"]);
        let mut newest: BTreeMap<String, bool> = BTreeMap::new();
        let mut seen: BTreeMap<(String, String), bool> = BTreeMap::new();
        let mut flying: Vec<Request> = Vec::new();
        let mut now_ms = 0;
        for (action, which) in steps {
            now_ms += 500;
            let name = format!("A{}", which % 4);
            match action % 5 {
                0 => {
                    newest.insert(name.clone(), false);
                    notifier.enqueue(now_ms, &[firing(&name, now_ms)]);
                }
                1 => {
                    newest.insert(name.clone(), true);
                    notifier.enqueue(now_ms, &[resolved(&name, now_ms)]);
                }
                2 => flying.extend(notifier.due(now_ms)),
                3 if !flying.is_empty() => {
                    let request = flying.remove(usize::from(*which) % flying.len());
                    let arrived = which % 3 == 0;
                    if arrived {
                        deliver(&request, now_ms, &mut seen);
                    }
                    let outcome = if arrived { Outcome::Status(200) } else { Outcome::Status(500) };
                    notifier.completed(now_ms, request.id, outcome);
                }
                4 if *which < 32 => {
                    flying.clear();
                    note(&mut journal, notifier.take_changes());
                    notifier = Notifier::new(Options::default());
                    notifier.restore(now_ms, journal.clone());
                    notifier.set_endpoints(now_ms, vec![endpoint("a"), endpoint("b")]);
                }
                _ => {}
            }
            note(&mut journal, notifier.take_changes());
        }
        for _ in 0..100 {
            now_ms += 60_000;
            flying.extend(notifier.due(now_ms));
            for request in flying.drain(..) {
                deliver(&request, now_ms, &mut seen);
                notifier.completed(now_ms, request.id, Outcome::Status(200));
            }
        }
        note(&mut journal, notifier.take_changes());
        assert!(journal.is_empty());
        for (name, resolved) in newest {
            for host in ["a", "b"] {
                assert_eq!(seen.get(&(host.to_owned(), name.clone())), Some(&resolved), "{name} at {host}");
            }
        }
    }

    fn deliver(request: &Request, now_ms: i64, seen: &mut BTreeMap<(String, String), bool>) {
        let line = describe(std::slice::from_ref(request), now_ms).remove(0);
        let (host, names) = line.split_once(": ").expect("host: names");
        for name in names.split(' ') {
            let key = (host.to_owned(), name.trim_end_matches('!').to_owned());
            seen.insert(key, name.ends_with('!'));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_receiver_ends_with_the_newest_state(steps in prop::collection::vec(any::<(u8, u8)>(), 0..60)) {
            settles(&steps);
        }
    }
}
