//! The project's own specification of PromQL: every script of `tests/promql`, on the reference
//! store and on the real one, with its samples in the head, in blocks and in both.

mod common;

use std::path::{Path, PathBuf};

use common::db::DbStore;
use common::float_sections;
use tidewatch_conformance::say;
use tidewatch_testkit::{MemoryStore, Report, TestStore, run_script};

/// Every script of the folder, by name.
fn scripts() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/promql");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("tests/promql is part of the project")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    paths.sort();
    let name = |path: &Path| path.file_name().expect("a file has a name").to_string_lossy().into_owned();
    paths
        .iter()
        .map(|path| (name(path), std::fs::read_to_string(path).expect("a script can be read")))
        .collect()
}

fn failures(name: &str, report: &Report) -> Vec<String> {
    report.failures.iter().map(|failure| format!("{name}:{}: {}", failure.line, failure.reason)).collect()
}

#[test]
fn every_script_of_ours_passes() {
    let (mut passed, mut wrong) = (0, Vec::new());
    for (name, text) in scripts() {
        let report = run_script(&text, &common::script_engine(), &mut MemoryStore::new());
        passed += report.passed;
        wrong.extend(failures(&name, &report));
    }
    say(&format!("tests/promql: {passed} passed, {} failed", wrong.len()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed >= 250, "{passed} evaluations are no specification");
}

#[track_caller]
fn check_on(place: &str, store: fn() -> DbStore) {
    let (mut passed, mut wrong) = (0, Vec::new());
    for (name, text) in scripts() {
        for section in float_sections(&text) {
            let mut store = store();
            let report = run_script(&section, &common::script_engine(), &mut store as &mut dyn TestStore);
            passed += report.passed;
            wrong.extend(failures(&name, &report));
        }
    }
    say(&format!("tests/promql {place}: {passed} passed, {} failed", wrong.len()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed >= 250, "{passed} evaluations were run");
}

#[test]
fn every_script_of_ours_passes_on_the_head() {
    check_on("in the head", DbStore::in_memory);
}

#[test]
fn every_script_of_ours_passes_on_data_that_were_cut_to_pieces() {
    check_on("in blocks and the head", DbStore::on_disk_in_pieces);
}
