//! Good and bad configuration files of others, where ../shared/conformance is present.

use std::path::Path;

use tidewatch::config::alertmanager::{self, Names};
use tidewatch::config::{LoadOptions, load, load_http_client, secret_files};
use tidewatch_conformance::{folder, index, say};
use tidewatch_scrape::parse_discovery_file;

/// One line of the folder's index.
struct Case {
    file: String,
    valid: bool,
    error_contains: Vec<String>,
    agent: bool,
}

fn cases(folder: &Path, suite: &str) -> Vec<Case> {
    let entries = index(folder).into_iter().filter(|entry| entry["suite"] == suite);
    entries
        .map(|entry| Case {
            file: entry["file"].as_str().expect("a name").to_owned(),
            valid: entry["valid"].as_bool().expect("a verdict"),
            error_contains: entry["error_contains"]
                .as_array()
                .map(|texts| texts.iter().filter_map(|t| t.as_str()).map(str::to_owned).collect())
                .unwrap_or_default(),
            agent: entry["agent_mode"] == true,
        })
        .collect()
}

/// Runs a suite; `accept` gives the refusal's text.
fn run(suite: &str, accept: impl Fn(&Path, bool) -> Result<(), String>) {
    let Some(folder) = folder("config") else { return };
    let cases = cases(&folder, suite);
    let mut wrong = Vec::new();
    for case in &cases {
        match (accept(&folder.join(&case.file), case.agent), case.valid) {
            (Ok(()), true) => {}
            (Ok(()), false) => {
                wrong.push(format!("{}: accepted, expected {:?}", case.file, case.error_contains))
            }
            (Err(error), true) => wrong.push(format!("{}: refused: {error}", case.file)),
            (Err(error), false) => {
                // Upstream's messages name files by their place in its own tree.
                let error = error.replace(&format!("{}/{suite}/", folder.display()), "testdata/");
                if let Some(text) = case.error_contains.iter().find(|text| !error.contains(text.as_str())) {
                    wrong.push(format!("{}: expected {text:?} in {error:?}", case.file));
                }
            }
        }
    }
    say(&format!("config, {suite}: {} of {} as expected", cases.len() - wrong.len(), cases.len()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn prometheus_files_load_or_are_refused_as_prometheus_does() {
    run("prometheus", |file, agent| {
        load(file, LoadOptions { agent }).map(drop).map_err(|error| error.to_string())
    });
}

// The verdicts come from tests that read names and matchers in the classic way.
#[test]
fn alertmanager_files_load_or_are_refused_as_alertmanager_does() {
    run("alertmanager", |file, _| {
        alertmanager::load(file, Names::Classic).map(drop).map_err(|error| error.to_string())
    });
}

// A client may be configured well and still fail at its first request, when it reads its secrets.
// The suite has one such file; others name files that nobody reads.
#[test]
fn http_client_files_load_or_are_refused_as_prometheus_does() {
    let scratch = tempfile::tempdir().expect("a directory");
    run("http_client", |file, _| {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        let mut file = file.to_owned();
        if name.starts_with("tls_config") {
            let text = std::fs::read_to_string(&file).expect("readable");
            let inner: String = text.lines().map(|line| format!("  {line}\n")).collect();
            file = scratch.path().join(name);
            std::fs::write(&file, format!("tls_config:\n{inner}")).expect("written");
        }
        let client = load_http_client(&file).map_err(|error| error.to_string())?;
        if name.contains("invalid-bearer-token-file") {
            for secret in secret_files(&client) {
                std::fs::read(secret).map_err(|error| format!("{}: {error}", secret.display()))?;
            }
        }
        Ok(())
    });
}

#[test]
fn discovery_files_load_or_are_refused_as_prometheus_does() {
    run("file_sd", |file, _| {
        let bytes = std::fs::read(file).expect("readable");
        parse_discovery_file(file, &bytes).map(drop)
    });
}
