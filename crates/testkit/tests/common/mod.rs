//! What the conformance tests share.

#[allow(dead_code, reason = "not every test needs the real store")]
pub mod db;

use std::path::PathBuf;

use tidewatch_env::Env;
use tidewatch_promql::{Engine, EngineOptions};
use tidewatch_testkit::script_engine_options;

#[allow(dead_code, reason = "tests of our own material need none")]
/// A folder of conformance material, or `None` with a line that says so.
pub fn folder(name: &str) -> Option<PathBuf> {
    let folder =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("no conformance material at {}: nothing was compared", folder.display());
    None
}

/// The engine that scripts count on.
#[allow(dead_code, reason = "not every test runs scripts")]
pub fn script_engine() -> Engine {
    engine(script_engine_options())
}

pub fn engine(options: EngineOptions) -> Engine {
    Engine::new(Env::in_memory(), options)
}

/// The parts of a script between `clear`s that load floats only, as the real store does.
#[allow(dead_code, reason = "not every test splits scripts")]
pub fn float_sections(text: &str) -> Vec<String> {
    let mut sections = vec![String::new()];
    for line in text.lines() {
        if line.trim() == "clear" {
            sections.push(String::new());
        }
        let section = sections.last_mut().expect("never empty");
        section.push_str(line);
        section.push('\n');
    }
    let floats_only = |section: &String| {
        !["load_with_nhcb", "{{", "@st"].iter().any(|histogram| section.contains(histogram))
    };
    sections.into_iter().filter(floats_only).collect()
}
