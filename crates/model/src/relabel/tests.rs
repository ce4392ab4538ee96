//! Relabelling against the tables of others, and rules that are refused.

use std::collections::BTreeMap;

use serde_json::Value;
use tidewatch_conformance::{cases, say};

use super::{NameValidation, RelabelAction, RelabelConfig, RelabelFields, relabel};
use crate::{Labels, LabelsBuilder};

fn fields(rule: &Value) -> RelabelFields {
    let default = RelabelFields::default();
    let text = |name: &str, default: String| rule[name].as_str().map_or(default, str::to_owned);
    RelabelFields {
        source_labels: rule["SourceLabels"]
            .as_array()
            .map(|names| names.iter().map(|n| n.as_str().unwrap().to_owned()).collect())
            .unwrap_or_default(),
        separator: text("Separator", default.separator),
        target_label: text("TargetLabel", default.target_label),
        regex: text("Regex", default.regex),
        modulus: rule["Modulus"].as_u64().unwrap_or(default.modulus),
        replacement: text("Replacement", default.replacement),
        action: RelabelAction::from_name(rule["Action"].as_str().unwrap_or("replace")).unwrap(),
    }
}

#[test]
fn sets_are_relabelled_as_prometheus_relabels_them() {
    let cases = cases("model/relabel.json");
    for case in &cases {
        let map = |value: &Value| -> BTreeMap<String, String> {
            serde_json::from_value(value.clone()).expect("labels by name")
        };
        let rules: Vec<RelabelConfig> = case["relabel"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| RelabelConfig::new(fields(r)).unwrap())
            .collect();
        let mut labels = Labels::from_pairs(map(&case["input"])).to_builder();
        let kept = relabel(&mut labels, &rules);
        assert_eq!(kept, case["keep"].as_bool().unwrap(), "{}", case["id"]);
        if kept {
            assert_eq!(labels.build(), Labels::from_pairs(map(&case["output"])), "{}", case["id"]);
        }
    }
    say(&format!("model: {} relabellings as expected", cases.len()));
}

#[test]
fn legacy_targets_are_checked_as_prometheus_checks_them() {
    let cases = cases("model/relabel-target-legacy.json");
    for case in &cases {
        let target = case["target_label"].as_str().unwrap();
        assert_eq!(NameValidation::Legacy.is_target(target), case["valid"].as_bool().unwrap(), "{target}");
    }
    say(&format!("model: {} legacy targets as expected", cases.len()));
}

#[test]
fn bad_rules_are_refused_in_prometheus_words() {
    let with = |change: fn(&mut RelabelFields)| {
        let mut fields = RelabelFields::default();
        change(&mut fields);
        RelabelConfig::with_names(fields, NameValidation::Legacy).unwrap_err().message
    };
    type Change = fn(&mut RelabelFields);
    let cases: [(Change, &str); 9] = [
        (|_| {}, "relabel configuration for replace action requires 'target_label' value"),
        (|f| f.target_label = "a-b".into(), "\"a-b\" is invalid 'target_label' for replace action"),
        (|f| f.target_label = "1$x".into(), "\"1$x\" is invalid 'target_label' for replace action"),
        (
            |f| f.action = RelabelAction::HashMod,
            "relabel configuration for hashmod requires non-zero modulus",
        ),
        (
            |f| (f.action, f.modulus, f.target_label) = (RelabelAction::HashMod, 8, "0a".into()),
            "\"0a\" is invalid 'target_label' for hashmod action",
        ),
        (
            |f| {
                (f.action, f.replacement, f.target_label) =
                    (RelabelAction::Lowercase, "x".into(), "a".into());
            },
            "'replacement' can not be set for lowercase action",
        ),
        (
            |f| (f.action, f.replacement) = (RelabelAction::LabelMap, "-$1".into()),
            "\"-$1\" is invalid 'replacement' for labelmap action",
        ),
        (
            |f| (f.action, f.regex, f.target_label) = (RelabelAction::KeepEqual, "x".into(), "a".into()),
            "keepequal action requires only 'source_labels' and `target_label`, and no other fields",
        ),
        (
            |f| (f.action, f.target_label) = (RelabelAction::LabelDrop, "a".into()),
            "labeldrop action requires only 'regex', and no other fields",
        ),
    ];
    for (change, message) in cases {
        assert_eq!(with(change), message);
    }
    assert_eq!(RelabelAction::from_name("Nope").unwrap_err().message, "unknown relabel action \"Nope\"");
    assert_eq!(RelabelAction::from_name("LabelMap"), Ok(RelabelAction::LabelMap));
}

#[track_caller]
fn check(change: impl FnOnce(&mut RelabelFields), input: &[(&str, &str)], expected: Option<&[(&str, &str)]>) {
    let mut fields = RelabelFields::default();
    change(&mut fields);
    let rule = RelabelConfig::new(fields).unwrap();
    let mut labels = LabelsBuilder::new();
    input.iter().for_each(|(name, value)| labels.set(name, value));
    let kept = relabel(&mut labels, &[rule]);
    let expected = expected.map(|pairs| Labels::from_pairs(pairs.iter().copied()));
    assert_eq!(kept.then(|| labels.build()), expected);
}

#[test]
fn references_expand_as_in_go() {
    let rule = |replacement: &'static str| {
        move |f: &mut RelabelFields| {
            f.source_labels = vec!["a".into()];
            f.regex = "(?<first>.)(.)".into();
            f.target_label = "b".into();
            f.replacement = replacement.into();
        }
    };
    for (replacement, value) in [
        ("$1-${2}-${first}-$0", "x-y-x-xy"),
        ("[$1x]", "[]"),
        ("$$1 ${", "$1 ${"),
        ("${no-name} $", "${no-name} $"),
        ("[${9}$01]", "[]"),
    ] {
        check(rule(replacement), &[("a", "xy")], Some(&[("a", "xy"), ("b", value)]));
    }
}

#[test]
fn an_empty_replacement_removes_the_label() {
    let rule = |f: &mut RelabelFields| (f.target_label, f.replacement) = ("a".into(), String::new());
    check(rule, &[("a", "x"), ("b", "y")], Some(&[("b", "y")]));
}

#[test]
fn case_is_changed_character_by_character() {
    let rule = |action: RelabelAction| {
        move |f: &mut RelabelFields| {
            (f.action, f.source_labels, f.target_label) = (action, vec!["a".into()], "b".into());
        }
    };
    check(rule(RelabelAction::Lowercase), &[("a", "AbÉİ")], Some(&[("a", "AbÉİ"), ("b", "abéi")]));
    check(rule(RelabelAction::Uppercase), &[("a", "abéß")], Some(&[("a", "abéß"), ("b", "ABÉß")]));
    check(|f| (f.action, f.target_label) = (RelabelAction::DropEqual, "b".into()), &[("a", "x")], None);
}
