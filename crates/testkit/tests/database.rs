//! Prometheus' scripts on the real store: wherever a sample lies, in the head, in a block or in
//! the log of a process that has ended, the answers are those of the reference store.

mod common;

use common::db::DbStore;
use tidewatch_conformance::{folder, say};
use tidewatch_testkit::{MemoryStore, run_script};

#[track_caller]
fn check(name: &str, store: fn() -> DbStore) {
    let Some(folder) = folder("promqltest") else { return };
    let engine = common::script_engine();
    let (mut passed, mut failures) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_none_or(|extension| extension != "test") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("the script can be read");
        let wanted = run_script(&text, &engine, &mut MemoryStore::new());
        let found = run_script(&text, &engine, &mut store());
        passed += found.passed;
        if found != wanted {
            failures.push(format!(
                "{}: {:?} instead of {:?}",
                path.display(),
                found.failures,
                wanted.failures
            ));
        }
    }
    say(&format!("promqltest, {name}: {passed} evaluations as in the reference store"));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(passed > 1500, "{passed} evaluations passed");
}

#[test]
fn scripts_answer_alike_from_a_database_in_memory() {
    check("in memory", DbStore::in_memory);
}

#[test]
fn scripts_answer_alike_from_a_database_that_was_cut_and_restarted() {
    check("cut and restarted", DbStore::on_disk);
}
