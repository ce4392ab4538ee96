//! What the conformance tests share.

#[allow(dead_code, reason = "not every test needs the real store")]
pub mod db;

use tidewatch_env::Env;
use tidewatch_promql::{Engine, EngineOptions};
use tidewatch_testkit::script_engine_options;

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
