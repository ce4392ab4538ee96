//! Prometheus' own scripts: every evaluation of every file, counted by file.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidewatch_conformance::{folder, say};
use tidewatch_testkit::{MemoryStore, run_script};

#[test]
fn every_script_of_prometheus_passes() {
    let Some(folder) = folder("promqltest") else { return };
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder can be read")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "test"))
        .collect();
    files.sort();
    let only = std::env::var("PROMQLTEST_FILE").ok();
    let counts = std::fs::read_to_string(folder.join("counts.json")).expect("the counts are there");
    let counts: serde_json::Value = serde_json::from_str(&counts).expect("the counts are JSON");
    let (mut passed, mut failures, mut wanted) = (0, Vec::new(), 0);
    for path in files {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        wanted += counts[&name]["shared"].as_u64().expect("each file is counted") as usize;
        let text = std::fs::read_to_string(&path).expect("the script can be read");
        // A panic is a failure of the file, not of the count.
        let run = catch_unwind(AssertUnwindSafe(|| {
            run_script(&text, &common::script_engine(), &mut MemoryStore::new())
        }));
        match run {
            Ok(report) => {
                say(&format!(
                    "promqltest, {name}: {} passed, {} failed",
                    report.passed,
                    report.failures.len()
                ));
                passed += report.passed;
                failures.extend(
                    report
                        .failures
                        .iter()
                        .map(|failure| format!("{name}:{}: {}", failure.line, failure.reason)),
                );
            }
            Err(_) => failures.push(format!("{name}: panicked")),
        }
    }
    say(&format!("promqltest: {passed} of {wanted} passed"));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(passed, wanted, "an evaluation was not read");
}
