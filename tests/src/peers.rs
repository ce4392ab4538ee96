//! Which real programs are installed, and what to do where one is missing.

use std::path::PathBuf;

use tidewatch_conformance::say;

/// Where a Debian machine keeps a program of this name, if it is installed.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Says whether all `programs` are there. Where one is missing the test says so and passes, so
/// that a fresh machine with only a Rust toolchain is green; under `CI=true` it is a failure,
/// because `.ci/run` installs the peers.
pub fn present(programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    let text = format!("not run: {} not installed (Debian packages; see .ci/run)", missing.join(", "));
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
    say(&text);
    false
}
