//! The alert generator compliance test, replayed in virtual time: states, times and texts of
//! alerts over a real engine.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;
use tidewatch_conformance::{folder, say};
use tidewatch_env::Env;
use tidewatch_model::{Labels, SampleValue};
use tidewatch_promql::EngineOptions;
use tidewatch_rules::testfile::Bench;
use tidewatch_rules::{ChangeKind, Group, LoadOptions, Notification, RuleFile, RuleSample, Settings, reload};
use tidewatch_testkit::MemoryLab;

const SAMPLE_MS: i64 = 15_000;
const INTERVAL_MS: i64 = 30_000;

/// What is known of an alert: when (in samples) each of its states began, by the name of the
/// state; and all that was told of it.
#[derive(Default)]
struct History {
    began: Vec<(&'static str, i64)>,
    told: Vec<(i64, Notification)>,
}

/// Replays the samples of a case and evaluates its group every 30 s.
fn replay(case: &Json, rules: &str) -> BTreeMap<Labels, History> {
    let lab = MemoryLab::new(Env::in_memory(), EngineOptions::default());
    let bench = lab.memory_bench();
    let file = RuleFile::parse(rules, "rules.yaml", &LoadOptions::default()).expect("the rules are valid");
    let settings = Arc::new(Settings { interval_ms: INTERVAL_MS, ..Settings::default() });
    let groups = reload(Vec::new(), vec![file], &settings, 0).groups;
    let name = case["group"].as_str().expect("a case has a group");
    let mut group = groups.into_iter().find(|group| group.name() == name).expect("the group is there");
    let series: Vec<(Labels, Vec<f64>)> =
        case["series"].as_array().expect("a case has series").iter().map(series).collect();
    let samples = series.iter().map(|(_, values)| values.len()).max().expect("there are series");
    let mut histories: BTreeMap<Labels, History> = BTreeMap::new();
    for index in 0..samples as i64 + 80 {
        let at_ms = index * SAMPLE_MS;
        for (labels, values) in &series {
            if let Some(value) = values.get(index as usize) {
                let value = SampleValue::Float(*value);
                let sample = RuleSample { labels: labels.clone(), timestamp: at_ms, value };
                bench.append(&[sample]).expect("the store takes it");
            }
        }
        if at_ms % INTERVAL_MS == 0 {
            evaluate(&mut group, &bench, at_ms, &mut histories);
        }
    }
    histories
}

fn series(json: &Json) -> (Labels, Vec<f64>) {
    let labels = json["labels"].as_object().expect("labels");
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str().expect("a text")));
    let mut values = Vec::new();
    for run in json["runs"].as_array().expect("runs") {
        let count = run[1].as_u64().expect("a count") as usize;
        values.extend(std::iter::repeat_n(run[0].as_f64().expect("a value"), count));
    }
    (Labels::from_pairs(labels), values)
}

fn evaluate(group: &mut Group, bench: &dyn Bench, at_ms: i64, histories: &mut BTreeMap<Labels, History>) {
    let effects = group.evaluate(at_ms, bench, &mut |samples| bench.append(samples));
    assert!(effects.failures.is_empty(), "{:?}", effects.failures);
    for change in effects.changes {
        let state = match change.kind {
            ChangeKind::Pending => "pending",
            ChangeKind::Firing => "firing",
            ChangeKind::Resolved => "resolved",
            // A pending alert that is gone counts as resolved.
            ChangeKind::Forgotten if change.instance.resolved_at_ms.is_none() => "resolved",
            _ => continue,
        };
        let history = histories.entry(change.instance.labels).or_default();
        history.began.push((state, at_ms / SAMPLE_MS));
    }
    for told in effects.notifications {
        histories.entry(told.labels.clone()).or_default().told.push((at_ms, told));
    }
}

/// The alert of a timeline's entry: `Name`, `Name key=value …` or `Name (labels key=value …)`.
fn find<'h>(histories: &'h BTreeMap<Labels, History>, alert: &str) -> &'h History {
    let mut words = alert.split([' ', '(', ')']).filter(|word| !word.is_empty() && *word != "labels");
    let name = words.next().expect("a name");
    let wanted: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
    let matches = |labels: &Labels| {
        labels.get("alertname") == Some(name)
            && wanted.iter().all(|(key, value)| *key == "alertstate" || labels.get(key) == Some(value))
    };
    let found = histories.iter().find(|(labels, _)| matches(labels));
    found.unwrap_or_else(|| panic!("{alert} is not among {:?}", histories.keys())).1
}

/// Whether a state began when it was to begin, or one group interval (two samples) later.
fn began(history: &History, state: &str, at: i64) -> bool {
    history.began.iter().any(|(began, when)| *began == state && (at..=at + 2).contains(when))
}

#[test]
fn alerts_follow_the_timeline_of_the_compliance_test() {
    let Some(folder) = folder("alert-generator") else { return };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("the file is there");
    let cases: Json = serde_json::from_str(&read("cases.json")).expect("the cases are JSON");
    let rules = read("rules.yaml");
    for case in cases["cases"].as_array().expect("cases") {
        let histories = replay(case, &rules);
        for entry in case["timeline"].as_array().expect("a timeline") {
            let alert = entry["alert"].as_str().expect("an alert");
            let history = find(&histories, alert);
            for state in ["pending", "firing", "resolved"] {
                let at = match &entry[state] {
                    Json::Number(at) => at.as_i64().expect("a sample"),
                    Json::String(_) => entry["pending"].as_i64().expect("a sample") + 2,
                    _ => continue,
                };
                assert!(began(history, state, at), "{alert}: {state} at {at}: {:?}", history.began);
            }
            let texts = entry["annotations"].as_object().into_iter().flatten();
            for (name, text) in texts {
                let text = text.as_str().expect("a text");
                let told = history.told.iter().any(|(_, told)| told.annotations[name] == text);
                assert!(told, "{alert}: {name} is never {text:?}: {:?}", history.told.last());
            }
            check_telling(alert, history);
        }
    }
    say(&format!("alert-generator: {} cases as expected", cases["cases"].as_array().map_or(0, Vec::len)));
}

/// Firing alerts are told at once and again after the resend delay, with an end that gives room
/// for four; resolved ones end when they were resolved.
fn check_telling(alert: &str, history: &History) {
    for (at_ms, told) in &history.told {
        let firing = told.state.as_str() == "firing";
        let ends = if firing { told.ends_at_ms == at_ms + 240_000 } else { told.ends_at_ms <= *at_ms };
        assert!(ends, "{alert}: told at {at_ms}: {told:?}");
    }
    for state in ["firing", "resolved"] {
        for (_, when) in history.began.iter().filter(|(began, _)| *began == state) {
            let was_firing = history.began.iter().any(|(began, at)| *began == "firing" && at <= when);
            let told = history.told.iter().any(|(at_ms, _)| *at_ms == when * SAMPLE_MS);
            assert_eq!(told, was_firing, "{alert}: {state} at sample {when}");
        }
    }
    let longest = history.told.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let while_firing = history.told.windows(2).map(|pair| pair[0].1.state.as_str() == "firing");
    for (gap_ms, firing) in longest.zip(while_firing) {
        assert!(!firing || gap_ms <= 90_000, "{alert}: silent for {gap_ms} ms while firing");
    }
}
