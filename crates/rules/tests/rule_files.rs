//! Rule files against the conformance folder, and their messages.

use tidewatch_conformance::{folder, index, say};
use tidewatch_rules::{LoadOptions, RuleFile, duplicate_rules};

/// The messages of a file, or that it has `groups` groups.
fn load(text: &str, options: &LoadOptions) -> String {
    match RuleFile::parse(text, "rules.yml", options) {
        Ok(file) => format!("{} groups", file.groups.len()),
        Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(load(text, &LoadOptions::default()), expected.trim());
}

#[test]
fn good_files_load_and_bad_ones_are_refused_with_prometheus_words() {
    let Some(folder) = folder("rule-files") else { return };
    let cases = index(&folder);
    for case in &cases {
        let file = case["file"].as_str().expect("a case has a file");
        let text = std::fs::read_to_string(folder.join(file)).expect("the file is there");
        let options =
            LoadOptions { legacy_names: case["name_validation"] == "legacy", ..LoadOptions::default() };
        let messages = load(&text, &options);
        let valid = messages.ends_with(" groups");
        assert_eq!(case["valid"], valid, "{file}: {messages}");
        if let Some(part) = case["error_contains"].as_str() {
            assert!(messages.contains(part), "{file}: {messages} lacks {part}");
        }
        let duplicates = RuleFile::parse(&text, file, &options).map(|file| duplicate_rules(&file).len());
        if case["note"].as_str().is_some_and(|note| note.starts_with("lint")) {
            assert_ne!(duplicates.expect("it is valid"), 0, "{file} has duplicate rules");
        }
    }
    say(&format!("rule-files: {} as expected", cases.len()));
}

#[test]
fn real_rule_files_load() {
    let Some(folder) = folder("alert-rules") else { return };
    let mut rules = 0;
    for case in index(&folder) {
        let file = case["file"].as_str().expect("a case has a file");
        let text = std::fs::read_to_string(folder.join(file)).expect("the file is there");
        let loaded = RuleFile::parse(&text, file, &LoadOptions::default());
        // Prometheus 3 takes UTF-8 label names, which 2.42 did not.
        let refused = case["promtool_2_42"].as_str().is_some_and(|verdict| verdict != "accepts")
            && !file.ends_with("contrib-slo-plugins.yml");
        match loaded {
            Ok(loaded) => {
                assert!(!refused, "{file} is to be refused: {case}");
                rules += loaded.groups.iter().map(|group| group.rules.len()).sum::<usize>();
            }
            Err(errors) => assert!(refused, "{file}: {}", errors[0]),
        }
    }
    say(&format!("alert-rules: {rules} rules load"));
    assert!(rules > 1500, "{rules} rules loaded");
}

#[test]
fn every_mistake_is_reported_where_it_stands() {
    check(
        r#"
groups:
- name: a
  rules:
  - record: x
    expr: sum(
  - alert: B
    expr: |
      up
        == = 0
    annotation:
      summary: "{{ $labels.x }}"
  - alert: C
    expr: up
    for: soon
    labels:
      x: "{{ $nothing }}"
- name: a
- interval: 1m
"#,
        r#"
rules.yml: 6:15: group "a", rule 1, "x": could not parse expression: 1:5: parse error: unclosed left parenthesis
rules.yml: 10:12: group "a", rule 2, "B": could not parse expression: 2:6: parse error: unexpected "="
rules.yml: 11:5: field annotation not found in a rule (did you mean annotations?)
rules.yml: 15:10: not a valid duration string: "soon"
rules.yml: 17:7: group "a", rule 3, "C": label "x": template: __alert_C:1: undefined variable "$nothing"
rules.yml: 18:3: groupname: "a" is repeated in the same file
rules.yml: 19:3: Groupname must not be empty
"#,
    );
}

#[test]
fn unknown_fields_can_be_passed_over() {
    let text = "groups:\n- name: a\n  owner: me\n  rules: []\n";
    check(text, "rules.yml: 3:3: field owner not found in a group");
    let options = LoadOptions { ignore_unknown_fields: true, ..LoadOptions::default() };
    assert_eq!(load(text, &options), "1 groups");
}

#[test]
fn what_is_no_rule_file_is_refused_with_its_place() {
    check("", "0 groups");
    check("groups: [", "rules.yml: 1:9: yaml: unclosed bracket '['");
    check("- a", "rules.yml: 1:1: cannot unmarshal !!seq into a rule file");
    check("groups: &a\n- *a", "rules.yml: 2:3: yaml: anchor value contains itself");
    check(
        "groups:\n- name: a\n  name: b",
        "rules.yml: 3:3: yaml: mapping key \"name\" already defined at line 2",
    );
}

#[test]
fn rules_take_the_labels_of_their_group() {
    let text = "groups:\n- name: a\n  labels: {team: x, tier: '1'}\n  rules:\n  - {record: r, expr: up, labels: {tier: 2}}";
    let file = RuleFile::parse(text, "f", &LoadOptions::default()).expect("the file is valid");
    let labels: Vec<_> = file.groups[0].rules[0].labels.iter().collect();
    assert_eq!(format!("{labels:?}"), r#"[("team", "x"), ("tier", "2")]"#);
}

mod bounds {
    use proptest::prelude::*;

    use super::*;

    const LINES: [&str; 24] = [
        "groups:",
        "- name: a",
        "  - name: b",
        "  rules:",
        "    - alert: A",
        "    - record: r",
        "      expr: up",
        "      expr: |",
        "        sum(",
        "      for: 5m",
        "      labels:",
        "        x: \"{{ $labels.y }}\"",
        "      <<: *a",
        "    - &a",
        "      alert: B",
        "*a",
        "---",
        "  interval: 1m",
        "  limit: x",
        "[",
        "{a: b}",
        "? x",
        "\t",
        "      annotations: {t: '{{ .Value'}",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_text_makes_a_rule_file_panic(lines in prop::collection::vec(prop::sample::select(&LINES[..]), 0..16)) {
            let _ = load(&lines.join("\n"), &LoadOptions::default());
        }
    }

    #[test]
    fn aliases_of_aliases_are_refused_before_they_cost_anything() {
        let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
        for (from, to) in "abcdefg".chars().zip("bcdefgh".chars()) {
            text.push_str(&format!("{to}: &{to} [*{from}, *{from}, *{from}, *{from}, *{from}]\n"));
        }
        text.push_str("groups: *h\n");
        assert!(load(&text, &LoadOptions::default()).contains("field b not found in a rule file"));
        let rules = "- {record: r, expr: up}\n".repeat(3_000).replace("- ", "    - ");
        let groups = "- {name: n, rules: *r}\n".repeat(3_000);
        let text = format!("groups:\n- name: a\n  rules: &r\n{rules}{groups}");
        assert!(load(&text, &LoadOptions::default()).contains("excessive aliasing"));
    }
}
