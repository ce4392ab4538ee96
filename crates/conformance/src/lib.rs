//! Where tests find the external cases, and how they say what they counted.
//!
//! The cases lie beside the project, in `../shared/conformance`, and are never part of it. Where
//! they are absent a test says so and passes. What is said goes past the test runner, which would
//! hide the words of a test that passes: so `cargo test` always shows what was compared.
//!
//! Not here: what is compared, which each test says for its own suite.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A suite's folder; `None`, with a line that says so, where the material is absent.
pub fn folder(suite: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance").join(suite);
    if folder.is_dir() {
        return Some(folder);
    }
    say(&format!("no conformance material at {}: nothing was compared", folder.display()));
    None
}

/// A table, named as `suite/file.json`; `None`, with a line that says so, where the material is
/// absent.
pub fn table(name: &str) -> Option<Value> {
    let (suite, file) = name.rsplit_once('/').expect("a table is named as suite/file.json");
    Some(read(&folder(suite)?.join(file)))
}

/// The cases of a table that is a list; none where the material is absent.
pub fn cases(name: &str) -> Vec<Value> {
    match table(name) {
        Some(Value::Array(cases)) => cases,
        Some(other) => panic!("{name} is no list: {other}"),
        None => Vec::new(),
    }
}

/// The cases of a folder, from its `index.json`.
pub fn index(folder: &Path) -> Vec<Value> {
    match read(&folder.join("index.json")) {
        Value::Array(cases) => cases,
        other => panic!("index.json in {} is no list: {other}", folder.display()),
    }
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Says a line on standard error, also from a test that passes.
pub fn say(line: &str) {
    // One write, so that lines of tests that run side by side stay whole.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
