//! promtool's unit tests of rules: every file of the conformance folder gives the verdict that its
//! index names.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value as Json;
use tidewatch_conformance::{folder, index, say};
use tidewatch_env::Env;
use tidewatch_parser::ParserOptions;
use tidewatch_promql::EngineOptions;
use tidewatch_rules::LoadOptions;
use tidewatch_rules::testfile::{RunOptions, TestFile};
use tidewatch_testkit::MemoryLab;

/// Runs a test file and says whether it passed, with what failed.
fn run(folder: &Path, case: &Json) -> Result<(), String> {
    let path = folder.join(case["test"].as_str().expect("a case has a test file"));
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("{path:?}: {error}"));
    let file = TestFile::parse(&read(&path)?, &path.display().to_string()).map_err(|e| e.join("\n"))?;
    let mut rules = Vec::new();
    for pattern in &file.rule_files {
        let rule_path = path.parent().expect("a file has a folder").join(pattern);
        rules.push((pattern.clone(), read(&rule_path)?));
    }
    let texts = |value: &Json| match value {
        Json::String(text) if !text.is_empty() => vec![text.clone()],
        Json::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let rules_options = LoadOptions {
        ignore_unknown_fields: case["ignore_unknown_fields"] == true,
        parser: ParserOptions::stable(),
        ..LoadOptions::default()
    };
    let options = RunOptions { run: texts(&case["run"]), diff: false, rules: rules_options };
    let lab = MemoryLab::new(Env::in_memory(), EngineOptions::default());
    let report = file.run(&rules, &lab, &options)?;
    if report.passed() { Ok(()) } else { Err(report.to_string()) }
}

/// What came of a case.
enum Verdict {
    Agreed,
    LeftOut,
    Wrong(String),
}

fn verdict(folder: &Path, case: &Json) -> Verdict {
    // Range edges: Prometheus 3 itself does not pass these.
    if case["range_edge"] == "2.42 only" {
        return Verdict::LeftOut;
    }
    let outcome = run(folder, case);
    if outcome.is_ok() == (case["expect"] == "pass") {
        return Verdict::Agreed;
    }
    let name = case["name"].as_str().or(case["test"].as_str()).unwrap_or("?");
    let what = outcome.err().unwrap_or_else(|| "passed and should fail".to_owned());
    Verdict::Wrong(format!("{name} (range edge {}): {what}", case["range_edge"]))
}

/// The verdicts of all cases, on all cores.
fn verdicts(folder: &Path, cases: &[Json]) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut verdicts = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            verdicts.push(verdict(folder, case));
        }
        verdicts
    };
    let width = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..width).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no case panics")).collect()
    })
}

#[test]
fn rule_unit_tests_give_the_verdict_that_promtool_gives() {
    let Some(folder) = folder("rule-unit-tests") else { return };
    let cases = index(&folder);
    let (mut agreed, mut left_out, mut wrong) = (0, 0, Vec::new());
    for verdict in verdicts(&folder, &cases) {
        match verdict {
            Verdict::Agreed => agreed += 1,
            Verdict::LeftOut => left_out += 1,
            Verdict::Wrong(what) => wrong.push(what),
        }
    }
    say(&format!("rule-unit-tests: {agreed} of {} as expected, {left_out} left out", cases.len()));
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
