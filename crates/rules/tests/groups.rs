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

#[test]
fn after_a_long_sleep_rules_wait_for_fresh_samples() {
    let nothing = Scripted::new("");
    let mut append = |_: &[RuleSample]| Ok(());
    let mut before = groups(DOWN, &settings());
    run(&mut before, &Scripted::new(r#"down{job="a"} 1 1 1 1"#), &[0, 30, 60, 90], false);
    let mut after = groups(DOWN, &settings()).remove(0);
    after.restore(Some(90_000), Some(95_000), &mut kept(&before));
    // What fires is told again meanwhile: receivers would take silence for its end.
    let effects = after.step(1_000_000, &nothing, &mut append).expect("a reminder");
    assert!(!effects.evaluated && effects.gap.is_none() && effects.failures.is_empty());
    assert_eq!(effects.changes.iter().map(|change| change.kind).collect::<Vec<_>>(), [ChangeKind::Sent]);
    assert!(effects.notifications[0].ends_at_ms > 1_190_000, "{:?}", effects.notifications);
    assert!(after.step(1_005_000, &nothing, &mut append).is_none());
    assert_eq!(after.next_due_ms(), 1_060_000);
    assert!(after.step(1_059_999, &nothing, &mut append).is_none());
    // Stopped in the middle of it, for so long that what came in is seen no more: it begins anew.
    after.slept(1_050_000, 1_330_000);
    assert_eq!(after.waits_until_ms(1_330_000), Some(1_390_000));
    let effects = after.step(1_330_000, &nothing, &mut append).expect("a reminder");
    assert!(!effects.evaluated && effects.notifications[0].state == AlertState::Firing);
    // Stopped for less: nothing came in meanwhile.
    after.slept(1_340_000, 1_360_000);
    assert_eq!(after.waits_until_ms(1_360_000), Some(1_410_000));
    let effects = after.step(1_410_007, &nothing, &mut append).expect("it is due");
    // As of a time at which all had come back, not as of the slot before it.
    assert!(effects.evaluated && effects.at_ms == 1_410_000, "{effects:?}");
    let gap = effects.gap.expect("what was missed");
    assert!(gap.from_ms > 90_000 && gap.from_ms <= 120_000 && gap.to_ms < 1_410_000, "{gap:?}");
    assert_eq!(gap.evaluations as i64, (gap.to_ms - gap.from_ms) / STEP_MS + 1);
    assert_eq!(effects.changes[0].kind, ChangeKind::Resolved);
    assert!(after.next_due_ms() > 1_410_000 && after.next_due_ms() <= 1_440_000);
}

/// Sleeps of a group as `SINCE-UNTIL`, in seconds, and until when it waits after each of them.
#[track_caller]
fn check_sleeps(refill: i64, sleeps: &str, expected: &str) {
    let settings = Settings { refill_ms: refill * 1000, interval_ms: STEP_MS, ..Settings::default() };
    let rules = "groups: [{name: g, rules: [{alert: A, expr: a}]}]";
    let mut group = groups(rules, &Arc::new(settings)).remove(0);
    let waits: Vec<String> = sleeps
        .split(' ')
        .map(|sleep| {
            let (since, until) = sleep.split_once('-').expect("SINCE-UNTIL");
            let ms = |seconds: &str| seconds.parse::<i64>().expect("seconds") * 1000;
            group.slept(ms(since), ms(until));
            group.waits_until_ms(ms(until)).map_or("-".to_owned(), |ms| (ms / 1000).to_string())
        })
        .collect();
    assert_eq!(waits.join(" "), expected);
}

// A virtual machine that is denied the CPU for a moment each minute: rules waited for ever.
#[test]
fn a_process_that_stutters_during_a_wait_still_ends_it() {
    check_sleeps(240, "1000-2000 2060-2076 2136-2152 2212-2228 2288-2304", "2240 2256 2272 2288 -");
}

// A laptop that looks for mail each five minutes: alerts ended for want of samples.
#[test]
fn sleeps_with_a_moment_awake_between_them_are_one() {
    check_sleeps(30, "1000-1250 1255-1505", "- 1565");
    // Here all series came back in between.
    check_sleeps(30, "1000-1250 1281-1531", "- -");
    // Many short ones do not add up.
    check_sleeps(120, "1000-1070 1190-1260 1380-1450 1570-1640", "- - - -");
}

// Alerts that read what another group records were judged before it was recorded, as a group that
// records and alerts waited as long as its readers.
#[test]
fn a_group_waits_for_those_that_record_what_it_reads() {
    let waits = |rules: &str| -> Vec<(String, i64)> {
        let mut groups = groups(rules, &settings());
        groups.iter_mut().for_each(|group| group.slept(1_000_000, 2_000_000));
        let wait = |group: &Group| group.waits_until_ms(2_000_000).expect("it waits") / 1000 - 2000;
        groups.iter().map(|group| (group.name().to_owned(), wait(group))).collect()
    };
    let named = |list: &[(&str, i64)]| -> Vec<(String, i64)> {
        list.iter().map(|(name, wait)| ((*name).to_owned(), *wait)).collect()
    };
    let chain = r#"
groups:
- {name: last, rules: [{alert: Z, expr: t > 1}]}
- {name: mixed, rules: [{record: r, expr: a}, {alert: X, expr: r > 1}]}
- {name: second, interval: 15s, rules: [{record: s, expr: 'avg_over_time(r[5m])'}]}
- {name: third, interval: 10m, rules: [{record: t, expr: 's{x="1"}'}]}
- {name: plain, rules: [{alert: P, expr: up == 0}]}
- {name: regex, rules: [{alert: R, expr: '{__name__=~"[ab]|s"}'}]}
- {name: meta, rules: [{alert: M, expr: 'ALERTS{alertname="P"}'}]}
"#;
    let expected = [
        ("last", 60 + 30 + 15 + 60),
        ("mixed", 60),
        ("second", 60 + 30),
        ("third", 60 + 30 + 15),
        ("plain", 60),
        ("regex", 60 + 30 + 15),
        ("meta", 60 + 30 + 15 + 60 + 30),
    ];
    assert_eq!(waits(chain), named(&expected));
    // Nobody waits for himself by way of another.
    let circle =
        "groups: [{name: a, rules: [{record: r, expr: s}]}, {name: b, rules: [{record: s, expr: r}]}]";
    assert_eq!(waits(circle), named(&[("a", 90), ("b", 60)]));
}

// The rules looked into the sleep, and took for resolved what had come back.
#[test]
fn a_group_that_looks_into_the_past_waits_until_the_sleep_is_behind_it() {
    let mut groups =
        groups("groups: [{name: g, query_offset: 2m, rules: [{alert: A, expr: a}]}]", &settings());
    groups[0].slept(1_000_000, 2_000_000);
    assert_eq!(groups[0].waits_until_ms(2_000_000), Some(2_180_000));
}

// A clock that was an hour ahead: `for`, the next telling and the end of an alert came an hour late.
#[test]
fn alerts_of_a_clock_that_was_ahead_go_on_when_it_is_set_back() {
    let rules = r#"
groups:
- name: g
  rules:
  - {alert: Held, expr: held, for: 1m}
  - {alert: Told, expr: told}
  - {alert: Kept, expr: told, keep_firing_for: 1m}
"#;
    check(
        rules,
        "held 1 1 1 1 1 1 1 1 _ 1\n told _ _ _ _ _ _ _ _ _ 1 1",
        &[270, 0, 30, 60],
        false,
        r#"
        270s Pending {alertname="Held"} since 270s
        270s Firing {alertname="Told"} since 270s
        270s Firing {alertname="Kept"} since 270s
        270s tell firing 270s..510s {}
        270s tell firing 270s..510s {}
        0s Redated {alertname="Held"} since 0s
        0s Redated {alertname="Told"} since 0s
        0s Resolved {alertname="Told"} since 0s
        0s Redated {alertname="Kept"} since 0s
        0s Kept {alertname="Kept"} since 0s
        0s tell inactive 0s..0s {}
        0s tell firing 0s..240s {}
        60s Firing {alertname="Held"} since 0s
        60s Resolved {alertname="Kept"} since 0s
        60s tell firing 60s..300s {}
        60s tell inactive 0s..60s {}
        "#,
    );
}

// It was due again at once, and took a core until the server was ended.
#[test]
fn a_group_whose_evaluation_panics_goes_on_with_its_next_one() {
    struct Panics;
    impl Evaluator for Panics {
        fn instant(&self, _: &Expr, _: i64) -> Result<(Value, Annotations), EvalError> {
            panic!("a defect")
        }
        fn monotonic_ns(&self) -> u64 {
            0
        }
    }
    let mut group = groups(DOWN, &settings()).remove(0);
    let due_ms = group.next_due_ms();
    let step = std::panic::AssertUnwindSafe(|| group.step(due_ms, &Panics, &mut |_| Ok(())).is_some());
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
fn a_group_that_a_reload_brings_waits_as_the_others_do() {
    let settings = settings();
    let file = |text: &str| RuleFile::parse(text, "rules.yml", &LoadOptions::default()).expect("valid");
    let mut old = groups(DOWN, &settings);
    old[0].slept(0, 1_000_000);
    let with_new = format!("{DOWN}\n- {{name: new, rules: [{{alert: Gone, expr: absent(down)}}]}}");
    let reloaded = reload(old, vec![file(&with_new)], &settings, 1_001_000);
    let due: Vec<i64> = reloaded.groups.iter().map(Group::next_due_ms).collect();
    assert_eq!(due, [1_060_000, 1_060_000]);
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
fn a_clock_that_was_ahead_for_a_while_stops_no_group() {
    let evaluator = Scripted::new("a 1 1 1 1 1 1 1 1 1 1 1 1");
    let mut append = |_: &[RuleSample]| Ok(());
    let rules = "groups: [{name: g, interval: 30s, rules: [{record: r, expr: a}]}]";
    let mut group = groups(rules, &settings()).remove(0);
    assert!(group.step(60_000, &evaluator, &mut append).is_some());
    let year_ms = 365 * 86_400_000;
    group.slept(60_000, year_ms);
    assert!(group.step(year_ms, &evaluator, &mut append).is_none());
    assert!(group.step(90_000, &evaluator, &mut append).is_none());
    assert!(group.step(150_000, &evaluator, &mut append).is_some());
}

/// Sleeps and what they lead to: how long rules wait, in seconds.
#[test]
fn a_sleep_that_the_window_does_not_bridge_makes_rules_wait() {
    let alert = |expr: &str| format!("groups: [{{name: g, rules: [{{alert: A, expr: '{expr}'}}]}}]");
    let wait = |rules: &str, lookback: i64, refill: i64, slept: i64| {
        let (lookback_ms, refill_ms) = (lookback * 1000, refill * 1000);
        let settings = Settings { lookback_ms, refill_ms, interval_ms: STEP_MS, ..Settings::default() };
        let mut group = groups(rules, &Arc::new(settings)).remove(0);
        let now_ms = 10_000_000;
        group.slept(now_ms - slept * 1000, now_ms);
        (group.next_due_ms() - now_ms).max(0) / 1000
    };
    // What the head holds lasts for five minutes, of which new samples need half a minute.
    assert_eq!(wait(&alert("a"), 300, 30, 270), 0);
    assert_eq!(wait(&alert("a"), 300, 30, 271), 60);
    // Alerts may read what is recorded once the samples are there.
    let both = "groups: [{name: g, rules: [{alert: A, expr: r}]}, {name: h, interval: 1m, rules: [{record: r, expr: a}]}]";
    assert_eq!(wait(both, 300, 30, 271), 120);
    // Targets that are scraped every two minutes.
    assert_eq!(wait(&alert("a"), 300, 240, 149), 0);
    assert_eq!(wait(&alert("a"), 300, 240, 151), 240);
    // The narrowest window counts, also one of the server's.
    assert_eq!(wait(&alert("a > b or rate(c[1m]) > 1"), 300, 30, 31), 60);
    assert_eq!(wait(&alert("rate(c[10m]) > 1"), 300, 30, 60), 0);
    assert_eq!(wait(&alert("max_over_time(a[1h:1m]) > 1"), 300, 30, 271), 60);
    assert_eq!(wait(&alert("a"), 20, 30, 30), 60);
    // The clock was set back.
    assert_eq!(wait(&alert("a"), 300, 30, -3_000), 0);
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
