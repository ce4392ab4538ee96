//! What the conformance tests share.

#[allow(dead_code, reason = "not every test needs the real store")]
pub mod db;

use std::path::PathBuf;

use tidewatch_env::Env;
use tidewatch_promql::{Engine, EngineOptions};
use tidewatch_testkit::script_engine_options;

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
