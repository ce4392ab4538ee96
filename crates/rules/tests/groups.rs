//! Groups in virtual time: rules, series and steps in, what happened out.
//!
//! The evaluator of these tests knows selectors only: an expression is a metric's name, and the
//! samples of its series come every 30 s from the start. `_` is no sample, and `fail` makes the
//! query fail.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use tidewatch_model::{Annotations, InstantSample, Labels, SampleValue, Value, is_stale};
use tidewatch_parser::{Expr, SequenceValue, parse_series_description};
use tidewatch_rules::{
    AlertChange, AlertInstance, AlertState, ChangeKind, Effects, EvalError, Evaluator, Group, GroupNote,
    LoadOptions, RuleFile, RuleId, RuleSample, Settings, rehome, reload,
};

#[path = "groups/waits.rs"]
mod waits;

const STEP_MS: i64 = 30_000;

/// Series by metric; a value is absent, or `None` where the query is to fail.
struct Scripted {
    series: Vec<(Labels, Vec<Option<f64>>)>,
    failing: Vec<(String, i64)>,
}

impl Scripted {
    fn new(text: &str) -> Scripted {
        let mut scripted = Scripted { series: Vec::new(), failing: Vec::new() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("fail ") {
                let (metric, at) = rest.split_once(" at ").expect("fail METRIC at SECONDS");
                scripted.failing.push((metric.to_owned(), at.parse::<i64>().expect("seconds") * 1000));
                continue;
            }
            let (labels, values) = parse_series_description(line).expect("a series");
            scripted.series.push((labels, values.iter().map(float).collect()));
        }
        scripted
    }
}

fn float(value: &SequenceValue) -> Option<f64> {
    match value {
        SequenceValue::Float(value) => Some(*value),
        _ => None,
    }
}

impl Evaluator for Scripted {
    fn instant(&self, expr: &Expr, at_ms: i64) -> Result<(Value, Annotations), EvalError> {
        let metric = expr.to_string();
        if self.failing.contains(&(metric.clone(), at_ms)) {
            return Err(EvalError::new("query timed out in expression evaluation"));
        }
        let index = usize::try_from(at_ms / STEP_MS).expect("times are positive");
        let sample = |(labels, values): &(Labels, Vec<Option<f64>>)| {
            let value = (*values.get(index)?)?;
            let labels = labels.clone();
            Some(InstantSample { labels, timestamp: at_ms, value: SampleValue::Float(value) })
        };
        let of_metric = self.series.iter().filter(|(labels, _)| labels.metric_name() == Some(&metric));
        Ok((Value::Vector(of_metric.filter_map(sample).collect()), Annotations::default()))
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }
}

fn groups(rules: &str, settings: &Arc<Settings>) -> Vec<Group> {
    let file = RuleFile::parse(rules, "rules.yml", &LoadOptions::default()).expect("the rules are valid");
    reload(Vec::new(), vec![file], settings, 0).groups
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        interval_ms: STEP_MS,
        external_url: "http://x".to_owned(),
        external_labels: Labels::from_pairs([("dc", "a")]),
        ..Settings::default()
    })
}

/// What an evaluation did, one thing a line.
fn describe(effects: &Effects, samples: &[RuleSample]) -> String {
    let mut out = String::new();
    let at = effects.at_ms / 1000;
    let seconds = |ms: i64| ms / 1000;
    if let Some(gap) = effects.gap {
        let (from, to) = (seconds(gap.from_ms), seconds(gap.to_ms));
        writeln!(out, "{at}s gap of {} from {from}s to {to}s", gap.evaluations).expect("to a string");
    }
    for change in effects.changes.iter().filter(|change| change.kind != ChangeKind::Sent) {
        let instance = &change.instance;
        let since = seconds(instance.active_at_ms);
        writeln!(out, "{at}s {:?} {} since {since}s", change.kind, instance.labels).expect("to a string");
    }
    for told in &effects.notifications {
        let (starts, ends) = (seconds(told.starts_at_ms), seconds(told.ends_at_ms));
        let (state, annotations) = (told.state.as_str(), &told.annotations);
        writeln!(out, "{at}s tell {state} {starts}s..{ends}s {annotations:?}").expect("to a string");
    }
    for sample in samples {
        let SampleValue::Float(value) = sample.value else { continue };
        let value = if is_stale(value) { "stale".to_owned() } else { value.to_string() };
        writeln!(out, "{at}s {} {value} @{}s", sample.labels, seconds(sample.timestamp))
            .expect("to a string");
    }
    for failure in &effects.failures {
        writeln!(out, "{at}s {} failed: {}", failure.rule.name, failure.message).expect("to a string");
    }
    out
}

/// Evaluates every group at each of `times` (in seconds) and describes what happened. Lines with
/// `ALERTS` are shown only when `with_samples`.
fn run(groups: &mut [Group], evaluator: &Scripted, times: &[i64], with_samples: bool) -> String {
    let mut out = String::new();
    for at in times {
        for group in &mut *groups {
            let mut stored = Vec::new();
            let mut append = |samples: &[RuleSample]| {
                stored.extend_from_slice(samples);
                Ok(())
            };
            let effects = group.evaluate(at * 1000, evaluator, &mut append);
            out.push_str(&describe(&effects, if with_samples { &stored } else { &[] }));
        }
    }
    out
}

#[track_caller]
fn check(rules: &str, series: &str, times: &[i64], with_samples: bool, expected: &str) {
    let mut groups = groups(rules, &settings());
    let got = run(&mut groups, &Scripted::new(series), times, with_samples);
    let trimmed: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let got: Vec<&str> = got.lines().collect();
    assert_eq!(got, trimmed, "\n{}", got.join("\n"));
}

fn every_30s(count: i64) -> Vec<i64> {
    (0..count).map(|i| i * 30).collect()
}

const DOWN: &str = r#"
groups:
- name: g
  rules:
  - alert: Down
    expr: down
    for: 1m
    labels: {severity: page, job: "{{ $labels.job }}!"}
    annotations: {text: "{{ $labels.__name__ }} {{ $value }} {{ $externalLabels.dc }}"}
"#;

#[test]
fn an_alert_waits_fires_is_told_and_resolves() {
    check(
        DOWN,
        r#"down{job="a"} _ 1 2 3 4 5 6 _ _"#,
        &every_30s(10),
        true,
        r#"
        30s Pending {alertname="Down", job="a!", severity="page"} since 30s
        30s {__name__="ALERTS", alertname="Down", alertstate="pending", job="a!", severity="page"} 1 @30s
        30s {__name__="ALERTS_FOR_STATE", alertname="Down", job="a!", severity="page"} 30 @30s
        60s {__name__="ALERTS", alertname="Down", alertstate="pending", job="a!", severity="page"} 1 @60s
        60s {__name__="ALERTS_FOR_STATE", alertname="Down", job="a!", severity="page"} 30 @60s
        90s Firing {alertname="Down", job="a!", severity="page"} since 30s
        90s tell firing 90s..330s {"text": "down 3 a"}
        90s {__name__="ALERTS", alertname="Down", alertstate="firing", job="a!", severity="page"} 1 @90s
        90s {__name__="ALERTS_FOR_STATE", alertname="Down", job="a!", severity="page"} 30 @90s
        90s {__name__="ALERTS", alertname="Down", alertstate="pending", job="a!", severity="page"} stale @90s
        120s {__name__="ALERTS", alertname="Down", alertstate="firing", job="a!", severity="page"} 1 @120s
        120s {__name__="ALERTS_FOR_STATE", alertname="Down", job="a!", severity="page"} 30 @120s
        150s {__name__="ALERTS", alertname="Down", alertstate="firing", job="a!", severity="page"} 1 @150s
        150s {__name__="ALERTS_FOR_STATE", alertname="Down", job="a!", severity="page"} 30 @150s
        180s tell firing 90s..420s {"text": "down 6 a"}
        180s {__name__="ALERTS", alertname="Down", alertstate="firing", job="a!", severity="page"} 1 @180s
        180s {__name__="ALERTS_FOR_STATE", alertname="Down", job="a!", severity="page"} 30 @180s
        210s Resolved {alertname="Down", job="a!", severity="page"} since 30s
        210s tell inactive 90s..210s {"text": "down 6 a"}
        210s {__name__="ALERTS", alertname="Down", alertstate="firing", job="a!", severity="page"} stale @210s
        210s {__name__="ALERTS_FOR_STATE", alertname="Down", job="a!", severity="page"} stale @210s
        "#,
    );
}

#[test]
fn a_pending_alert_that_ends_is_forgotten_without_a_word() {
    check(
        DOWN,
        r#"down{job="a"} 1 1 _ _"#,
        &every_30s(4),
        false,
        r#"
        0s Pending {alertname="Down", job="a!", severity="page"} since 0s
        60s Forgotten {alertname="Down", job="a!", severity="page"} since 0s
        "#,
    );
}

#[test]
fn a_resolved_alert_is_told_again_for_a_quarter_of_an_hour() {
    let times: Vec<i64> = [0, 30, 60, 90].into_iter().chain((3..35).map(|i| i * 60)).collect();
    let mut groups = groups(DOWN, &settings());
    let got = run(&mut groups, &Scripted::new(r#"down{job="a"} 1 1 1"#), &times, false);
    let told = got.lines().filter(|line| line.contains("tell inactive 60s..90s")).count();
    assert_eq!(told, 8, "{got}");
    assert!(got.contains("1020s Forgotten"), "{got}");
}

#[test]
fn keep_firing_for_bridges_a_pause_and_says_so() {
    check(
        r#"
groups:
- name: g
  rules:
  - {alert: A, expr: a, keep_firing_for: 1m}
"#,
        "a 1 _ 1 _ _ _ _",
        &every_30s(7),
        false,
        r#"
        0s Firing {alertname="A"} since 0s
        0s tell firing 0s..240s {}
        30s Kept {alertname="A"} since 0s
        60s Kept {alertname="A"} since 0s
        90s Kept {alertname="A"} since 0s
        90s tell firing 0s..330s {}
        150s Resolved {alertname="A"} since 0s
        150s tell inactive 0s..150s {}
        "#,
    );
}

#[test]
fn a_failing_rule_keeps_its_alerts_and_repeats_them() {
    check(
        "groups: [{name: g, rules: [{alert: A, expr: a}]}]",
        "a 1 1 1 1 1\n fail a at 30\n fail a at 60\n fail a at 90",
        &every_30s(5),
        false,
        r#"
        0s Firing {alertname="A"} since 0s
        0s tell firing 0s..240s {}
        30s A failed: query timed out in expression evaluation
        60s A failed: query timed out in expression evaluation
        90s tell firing 0s..330s {}
        90s A failed: query timed out in expression evaluation
        "#,
    );
}

#[test]
fn a_recording_rule_renames_relabels_and_ends_its_series() {
    check(
        r#"
groups:
- name: g
  query_offset: 30s
  rules:
  - {record: "b:c", expr: a, labels: {x: new, drop: ""}}
"#,
        r#"a{x="old", drop="me", i="1"} 1 2 _ 4"#,
        &[30, 60, 90, 120],
        true,
        r#"
        30s {__name__="b:c", i="1", x="new"} 1 @0s
        60s {__name__="b:c", i="1", x="new"} 2 @30s
        90s {__name__="b:c", i="1", x="new"} stale @60s
        120s {__name__="b:c", i="1", x="new"} 4 @90s
        "#,
    );
}

#[test]
fn results_that_collide_or_exceed_the_limit_are_errors_of_the_rule() {
    check(
        r#"
groups:
- name: g
  rules:
  - {record: r, expr: a, labels: {i: ""}}
  - {alert: A, expr: a, labels: {i: ""}}
- name: limited
  limit: 1
  rules:
  - {record: r, expr: a}
  - {alert: A, expr: a}
"#,
        "a{i=\"1\"} 1\n a{i=\"2\"} 1",
        &[0],
        true,
        r#"
        0s r failed: vector contains metrics with the same labelset after applying rule labels
        0s A failed: vector contains metrics with the same labelset after applying alert labels
        0s r failed: exceeded limit of 1 with 2 series
        0s A failed: exceeded limit of 1 with 2 alerts
        "#,
    );
}

#[test]
fn a_rule_gives_ten_thousand_alerts_and_one_more_is_its_error() {
    let rules = "groups: [{name: g, rules: [{alert: A, expr: a, annotations: {t: '{{ $labels.i }}'}}]}]";
    let many = |count: usize, steps: &str| {
        (0..count).map(|i| format!("a{{i=\"{i}\"}} {steps}\n")).collect::<String>()
    };
    let mut groups = groups(rules, &settings());
    let got = run(&mut groups, &Scripted::new(&many(10_000, "1 1")), &[0], false);
    assert_eq!(got.lines().filter(|line| line.contains("tell firing")).count(), 10_000);
    let got = run(&mut groups, &Scripted::new(&many(10_001, "_ 1")), &[30], false);
    assert_eq!(got, "30s A failed: exceeded limit of 10000 with 10001 alerts\n");
    assert_eq!(groups[0].alerts().count(), 10_000, "those that stand are kept");
}

#[test]
fn a_text_that_can_not_be_expanded_says_so_and_the_alert_stands() {
    check(
        r#"
groups:
- name: g
  rules:
  - {alert: A, expr: a, annotations: {t: "{{ query \"nothing\" | first }}"}}
"#,
        "a 1",
        &[0],
        false,
        r#"
        0s Firing {alertname="A"} since 0s
        0s tell firing 0s..240s {"t": "<error expanding template: error executing template __alert_A: template: __alert_A:1:133: executing \"__alert_A\" at <first>: error calling first: first() called on vector with no elements>"}
        "#,
    );
}

/// Alerts as a journal would keep them.
fn kept(groups: &[Group]) -> Vec<(RuleId, AlertInstance)> {
    groups.iter().flat_map(Group::alerts).map(|(id, alert)| (id, alert.clone())).collect()
}

#[test]
fn after_a_restart_an_alert_goes_on_as_if_the_process_had_slept() {
    let evaluator = Scripted::new(r#"down{job="a"} 1 1 1 1 1 1 1 1 1"#);
    let mut before = groups(DOWN, &settings());
    run(&mut before, &evaluator, &[0, 30], false);
    let mut after = groups(DOWN, &settings());
    assert!(after[0].restore(Some(30_000), Some(30_000), &mut kept(&before)).is_empty());
    assert_eq!(kept(&after), kept(&before));
    let got = run(&mut after, &evaluator, &[120], true);
    assert!(
        got.contains("120s Firing {alertname=\"Down\", job=\"a!\", severity=\"page\"} since 0s"),
        "{got}"
    );
    assert!(got.contains("alertstate=\"pending\", job=\"a!\", severity=\"page\"} stale"), "{got}");
}

// What the rules before it had to tell was lost with it, each time.
#[test]
fn a_rule_whose_query_panics_fails_alone() {
    struct Panics(Scripted);
    impl Evaluator for Panics {
        fn instant(&self, expr: &Expr, at_ms: i64) -> Result<(Value, Annotations), EvalError> {
            assert!(expr.to_string() != "b", "a defect");
            self.0.instant(expr, at_ms)
        }
        fn monotonic_ns(&self) -> u64 {
            0
        }
    }
    let rules = "groups: [{name: g, rules: [{alert: A, expr: a}, {alert: B, expr: b}, {alert: C, expr: a}]}]";
    let mut group = groups(rules, &settings()).remove(0);
    let (due_ms, panics) = (group.next_due_ms(), Panics(Scripted::new("a 1 1 1")));
    let effects = group.step(due_ms, &panics, &mut |_| Ok(())).expect("it is due");
    let told: Vec<&str> = effects.notifications.iter().map(|told| told.rule.name.as_str()).collect();
    assert_eq!(told, ["A", "C"]);
    assert_eq!(effects.failures[0].message, "the query panicked, which is a defect of this program");
}

// It was due again at once, and took a core until the server was ended.
#[test]
fn a_group_whose_evaluation_panics_goes_on_with_its_next_one() {
    let mut group = groups(DOWN, &settings()).remove(0);
    let due_ms = group.next_due_ms();
    let nothing = Scripted::new(r#"down{job="a"} 1 1 1"#);
    let step =
        std::panic::AssertUnwindSafe(|| group.step(due_ms, &nothing, &mut |_| panic!("a defect")).is_some());
    assert!(std::panic::catch_unwind(step).is_err());
    assert_eq!(group.next_due_ms(), due_ms + STEP_MS);
}

// A group under another name: two intervals later a marker ended series that it had recorded since.
#[test]
fn recorded_series_go_on_where_their_rule_stands_now() {
    let settings = settings();
    let file = |text: &str| RuleFile::parse(text, "rules.yml", &LoadOptions::default()).expect("valid");
    let rules = r#"
groups:
- {name: old, rules: [{record: r, expr: a, labels: {x: "1"}}, {record: gone, expr: a}]}
- {name: stays, rules: [{record: moves, expr: a}, {alert: A, expr: a}, {record: t, expr: a}]}
"#;
    let renamed = r#"
groups:
- {name: new, rules: [{record: r, expr: b, labels: {x: "1"}}, {record: moves, expr: a}, {alert: A, expr: a}]}
- {name: stays, rules: [{record: u, expr: a}]}
"#;
    let evaluator = Scripted::new("a{i=\"1\"} 1 1 1 1\n a{i=\"2\"} 1 1 1 1\n b{i=\"2\"} 2 2 2 2");
    let mut groups = groups(rules, &settings);
    run(&mut groups, &evaluator, &[0], false);
    let mut reloaded = reload(groups, vec![file(renamed)], &settings, 10_000);
    let ended: Vec<String> = reloaded.ended.iter().map(|ended| format!("{:?}", ended.series)).collect();
    assert_eq!(ended, [r#"[{__name__="gone", i="1"}, {__name__="gone", i="2"}]"#]);
    let got = run(&mut reloaded.groups, &evaluator, &[30], true);
    let stale: Vec<&str> = got.lines().filter(|line| line.contains("stale")).collect();
    assert_eq!(
        stale,
        [
            r#"30s {__name__="r", i="1", x="1"} stale @30s"#,
            r#"30s {__name__="t", i="1"} stale @30s"#,
            r#"30s {__name__="t", i="2"} stale @30s"#,
        ],
        "\n{got}"
    );
}

#[test]
fn a_rule_that_is_written_anew_with_the_same_labels_keeps_its_alert_and_its_key() {
    let settings = settings();
    let mut old = groups(DOWN, &settings);
    run(&mut old, &Scripted::new(r#"down{job="a"} 1 1"#), &[0], false);
    let anew = DOWN.replace("$labels.job", ".Labels.job");
    let file = RuleFile::parse(&anew, "rules.yml", &LoadOptions::default()).expect("valid");
    let reloaded = reload(old, vec![file], &settings, 10_000);
    // Forgotten after this would take it out of the journal.
    assert_eq!(noted(&reloaded.notes), ["rules.yml g: Moved Down 0"]);
    assert_eq!(kept(&reloaded.groups).len(), 1);
}

#[test]
fn an_alert_goes_to_the_group_that_is_new_rather_than_to_one_that_has_its_own() {
    let rules =
        |expr: &str| format!("groups: [{{name: node, rules: [{{alert: Down, expr: {expr}, for: 1m}}]}}]");
    let file = |name: &str, expr: &str| {
        RuleFile::parse(&rules(expr), name, &LoadOptions::default()).expect("the rules are valid")
    };
    let settings = settings();
    let mut old = reload(Vec::new(), vec![file("a.yml", "a"), file("b.yml", "b")], &settings, 0).groups;
    run(&mut old, &Scripted::new("b 1 1 1 1"), &[0, 30, 60], false);
    let reloaded = reload(old, vec![file("a.yml", "a"), file("c.yml", "b")], &settings, 70_000);
    assert_eq!(noted(&reloaded.notes), ["c.yml node: Moved Down 0", "b.yml node: Forgotten Down 0"]);
}

#[test]
fn alerts_of_rules_that_are_gone_at_the_restart_are_forgotten() {
    let mut before = groups(DOWN, &settings());
    run(&mut before, &Scripted::new(r#"down{job="a"} 1"#), &[0], false);
    let mut after = groups(&DOWN.replace("severity: page", "severity: warn"), &settings());
    let mut alerts = kept(&before);
    assert!(after[0].restore(None, None, &mut alerts).is_empty());
    assert_eq!(alerts.len(), 1);
    assert_eq!(noted(&rehome(&mut after, "rules.yml", "g", alerts)), ["rules.yml g: Forgotten Down 0"]);
}

fn noted(notes: &[GroupNote]) -> Vec<String> {
    let changes = notes.iter().flat_map(|note| note.changes.iter().map(move |change| (note, change)));
    changes
        .map(|(GroupNote { file, group, .. }, AlertChange { rule, kind, .. })| {
            format!("{file} {group}: {kind:?} {} {}", rule.name, rule.index)
        })
        .collect()
}

#[test]
fn an_alert_goes_on_where_its_rule_stands_now() {
    let settings = settings();
    let evaluator = Scripted::new(r#"down{job="a"} 1 1 1 1 1 1"#);
    let mut before = groups(DOWN, &settings);
    run(&mut before, &evaluator, &[0, 30], false);
    let first = "groups:\n- {name: f, rules: [{alert: Other, expr: down}]}\n- {name: g, rules: [{record: r, expr: down}]}";
    let moved = DOWN.replace("- name: g\n  rules:", "- name: h\n  rules:\n  - {record: s, expr: down}");
    let files = || -> Vec<RuleFile> {
        let parse = |text: &str, name| {
            RuleFile::parse(text, name, &LoadOptions::default()).expect("the rules are valid")
        };
        vec![parse(first, "rules.yml"), parse(&moved, "moved.yml")]
    };
    let notes = ["moved.yml h: Moved Down 1", "rules.yml g: Forgotten Down 0"];

    // Over a restart: the file that the alert was in has a group of that name, without the rule.
    let mut after = reload(Vec::new(), files(), &settings, 0).groups;
    let mut alerts = kept(&before);
    assert!(after[1].restore(Some(30_000), Some(30_000), &mut alerts).is_empty());
    assert_eq!(noted(&rehome(&mut after, "rules.yml", "g", alerts)), notes);
    let got = run(&mut after, &evaluator, &[60], false);
    assert!(got.contains("60s Firing {alertname=\"Down\", job=\"a!\", severity=\"page\"} since 0s"), "{got}");

    // In a running process, where the series that show it go on as well.
    let mut reloaded = reload(before, files(), &settings, 40_000);
    assert_eq!(noted(&reloaded.notes), notes);
    assert!(reloaded.ended.is_empty(), "{:?}", reloaded.ended);
    let got = run(&mut reloaded.groups, &evaluator, &[60], false);
    assert!(got.contains("60s Firing {alertname=\"Down\", job=\"a!\", severity=\"page\"} since 0s"), "{got}");
}

#[test]
fn a_reload_keeps_alerts_and_ends_what_is_gone() {
    let settings = settings();
    let two = "groups:\n- name: g\n  rules:\n  - {alert: A, expr: a, for: 1m}\n  - {record: r, expr: a}\n- name: h\n  rules:\n  - {record: s, expr: a}";
    let one = "groups:\n- name: g\n  interval: 15s\n  rules:\n  - {alert: New, expr: a}\n  - {alert: A, expr: a, for: 1m}";
    let evaluator = Scripted::new("a 1 1 1 1 1");
    let mut groups = groups(two, &settings);
    run(&mut groups, &evaluator, &[0, 30], false);
    let file = RuleFile::parse(one, "rules.yml", &LoadOptions::default()).expect("the rules are valid");
    let mut reloaded = reload(groups, vec![file], &settings, 40_000);
    let ended: Vec<String> = reloaded.ended.iter().map(|e| format!("{:?} {}", e.series, e.due_ms)).collect();
    assert_eq!(ended, [r#"[{__name__="s"}] 100000"#]);
    // A journal, which knows an alert by its rule's place, hears that the place changed.
    assert_eq!(noted(&reloaded.notes), ["rules.yml g: Forgotten A 0", "rules.yml g: Moved A 1"]);
    let got = run(&mut reloaded.groups, &evaluator, &[60], true);
    assert!(got.contains("60s Firing {alertname=\"A\"} since 0s"), "{got}");
    assert!(got.contains("{__name__=\"r\"} stale @60s"), "{got}");
}

#[test]
fn steps_come_at_fixed_times_and_missed_ones_are_a_gap() {
    let evaluator = Scripted::new("a 1");
    let rules = "groups: [{name: g, interval: 1m, rules: [{record: r, expr: a}]}]";
    let mut group = groups(rules, &settings()).remove(0);
    let mut append = |_: &[RuleSample]| Ok(());
    let due = group.next_due_ms();
    assert!((1..=60_000).contains(&due));
    assert!(group.step(due - 1, &evaluator, &mut append).is_none());
    assert_eq!(group.step(due + 7, &evaluator, &mut append).map(|effects| effects.at_ms), Some(due));
    let late = group.step(due + 200_000, &evaluator, &mut append).expect("it is due");
    assert_eq!(late.at_ms, due + 180_000);
    let gap = late.gap.expect("two were missed");
    assert_eq!((gap.from_ms, gap.to_ms, gap.evaluations), (due + 60_000, due + 120_000, 2));
    assert_eq!(group.status().missed, 2);
    // Another group of the same interval has other times; the same one has the same.
    let again = groups(rules, &settings()).remove(0);
    assert_eq!(again.next_due_ms(), due);
    // A restart goes on from the last evaluation.
    let mut restored = groups(rules, &settings()).remove(0);
    restored.restore(Some(late.at_ms), None, &mut Vec::new());
    assert_eq!(restored.next_due_ms(), late.at_ms + 60_000);
    // A clock that was set back does not stop the group.
    assert!(group.step(due + 60_000, &evaluator, &mut append).is_none());
    assert!(group.step(due + 121_000, &evaluator, &mut append).is_some());
}

#[test]
fn the_status_shows_rules_alerts_and_health() {
    let mut groups = groups(
        "groups: [{name: g, rules: [{alert: A, expr: a, for: 1m}, {alert: B, expr: b}, {record: r, expr: a}]}]",
        &settings(),
    );
    let evaluator = Scripted::new("a{i=\"2\"} 1\n a{i=\"1\"} 1\n fail b at 0");
    assert_eq!(groups[0].status().rules[0].health.as_str(), "unknown");
    run(&mut groups, &evaluator, &[0], false);
    let status = groups[0].status();
    let lines: Vec<String> = status
        .rules
        .iter()
        .map(|rule| {
            let alerting = rule.alerting.as_ref();
            let state = alerting.map_or("-", |alerting| alerting.state.as_str());
            let alerts: Vec<String> =
                alerting.iter().flat_map(|a| &a.alerts).map(|alert| alert.labels.to_string()).collect();
            format!("{} {} {state} {}", rule.name, rule.health.as_str(), alerts.join(" "))
        })
        .collect();
    assert_eq!(
        lines,
        [r#"A ok pending {alertname="A", i="1"} {alertname="A", i="2"}"#, "B err inactive ", "r ok - "]
    );
    let errors: BTreeMap<_, _> = status.rules.iter().map(|rule| (&rule.name, &rule.last_error)).collect();
    assert_eq!(errors[&"B".to_owned()].as_deref(), Some("query timed out in expression evaluation"));
}

#[test]
fn a_group_can_be_stepped_on_another_thread() {
    fn sendable<T: Send>(_: &T) {}
    sendable(&groups(DOWN, &settings()));
}
