//! Prometheus' own tests of its script language: scripts that must pass or fail, with the text.

mod common;

use tidewatch_conformance::{cases, say};
use tidewatch_parser::ParserOptions;
use tidewatch_testkit::script::{Command, Script, start_offsets};
use tidewatch_testkit::{MemoryStore, run_script};

/// The first thing wrong with a script: what cannot be read comes before what fails.
fn first_failure(script: &str) -> Option<String> {
    let parsed = Script::parse(script, &ParserOptions::experimental());
    let unreadable = parsed.commands.into_iter().find_map(|command| match command {
        Command::Invalid(failure) => Some(failure.reason),
        _ => None,
    });
    unreadable.or_else(|| {
        let report = run_script(script, &common::script_engine(), &mut MemoryStore::new());
        report.failures.into_iter().next().map(|failure| failure.reason)
    })
}

#[test]
fn scripts_pass_and_fail_as_in_prometheus() {
    let cases = cases("promqltest-language/run.json");
    let mut failures = Vec::new();
    for case in &cases {
        let found = first_failure(case["script"].as_str().expect("a script"));
        if found.as_deref() != case["error"].as_str() {
            failures.push(format!(
                "{} {}\n   found {found:?}\n  wanted {}",
                case["id"], case["name"], case["error"]
            ));
        }
    }
    say(&format!(
        "promqltest-language: {} of {} scripts as expected",
        cases.len() - failures.len(),
        cases.len()
    ));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn start_times_are_read_as_in_prometheus() {
    let cases = cases("promqltest-language/st-sequence.json");
    for case in &cases {
        let input = case["input"].as_str().expect("a text");
        let found = start_offsets(input);
        assert_eq!(found.is_err(), case["wantErr"] == true, "{input}: {found:?}");
        let expected = case["expected"].as_array().into_iter().flatten();
        let expected: Vec<Option<i64>> =
            expected.map(|value| value["Value"].as_f64().map(|ms| ms as i64)).collect();
        assert_eq!(found.unwrap_or_default(), expected, "{input}");
    }
    say(&format!("promqltest-language: {} sequences of start times as expected", cases.len()));
}
