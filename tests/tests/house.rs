//! The house as it is built against the house as it is described: layers, headers, sizes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use tidewatch_tests::root;

/// The rows of the layer table in docs/architecture.md: crate → (layer, what it may use).
fn layer_table() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = std::fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md");
    text.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let name = cells.get(2)?.strip_prefix('`')?.strip_suffix('`')?;
            let uses = cells.get(4)?.split_whitespace().filter(|w| *w != "–").map(str::to_owned).collect();
            Some((name.to_owned(), (cells[1].to_owned(), uses)))
        })
        .collect()
}

/// What each crate of `crates/` really depends on among its neighbours, tests aside.
fn real_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let short = |name: &str| match name {
        "tidewatch" => Some("tidewatch".to_owned()),
        _ => name.strip_prefix("tidewatch-").map(str::to_owned),
    };
    let mut crates = BTreeMap::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = package["manifest_path"].as_str().expect("a path");
        if !Path::new(manifest).starts_with(root().join("crates")) {
            continue;
        }
        let name =
            short(package["name"].as_str().expect("a name")).expect("our crates are named tidewatch-…");
        let uses = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|d| d["kind"].is_null() || d["kind"] == "build")
            .filter_map(|d| short(d["name"].as_str()?))
            .collect();
        crates.insert(name, uses);
    }
    crates
}

#[test]
fn crates_use_what_the_layer_table_allows_and_nothing_else() {
    let table = layer_table();
    let real = real_dependencies();
    let described: BTreeSet<_> = table.keys().collect();
    assert_eq!(described, real.keys().collect(), "docs/architecture.md lists the crates that there are");
    for (name, uses) in &real {
        let (layer, allowed) = &table[name];
        if layer == "dev" || allowed.contains("any") {
            continue;
        }
        let extra: Vec<_> = uses.difference(allowed).collect();
        assert!(extra.is_empty(), "{name} uses {extra:?}, which docs/architecture.md does not allow");
        for used in uses {
            let lower = &table[used].0;
            assert!(
                lower < layer,
                "{name} (layer {layer}) uses {used} (layer {lower}): arrows run downwards"
            );
        }
    }
}

/// Every Rust file of the project's own packages.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = ["crates", "benches", "tests", "xtask"].map(|folder| root().join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    for file in sources() {
        let text = std::fs::read_to_string(&file).expect("UTF-8");
        let first =
            text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!")).unwrap_or("");
        assert!(
            first.starts_with("//! ") && first.len() > 12,
            "{} does not begin with a `//!` header",
            file.display()
        );
    }
}

#[test]
fn every_crate_header_says_what_is_not_there() {
    for name in real_dependencies().keys() {
        let file = root().join("crates").join(name).join("src/lib.rs");
        let text = std::fs::read_to_string(&file).expect("each crate has a library");
        let header: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(header.contains("Not here:"), "{}: the header does not say what is not here", file.display());
    }
}

#[test]
fn only_env_touches_files_clocks_and_entropy() {
    // The binary and the edge (net, server, scrape) own sockets and read files named by a user;
    // the cores may not.
    let cores = [
        "model", "chunk", "wal", "ingest", "migrate", "parser", "storage", "tsdb", "promql", "journal",
        "notify", "rules",
    ];
    let forbidden = [
        "std::fs",
        "SystemTime::now",
        "Instant::now",
        "std::thread::spawn",
        "tokio::",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
    ];
    for file in sources() {
        let relative = file.strip_prefix(root()).expect("under the root").to_owned();
        let mut parts = relative.iter().filter_map(|p| p.to_str());
        let core = parts.next() == Some("crates")
            && parts.next().is_some_and(|name| cores.contains(&name))
            && parts.next() == Some("src");
        // Modules of tests may read fixtures.
        if !core || relative.iter().any(|part| part == "tests" || part == "tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("UTF-8");
        let product = text.split("#[cfg(test)]").next().unwrap_or("");
        for word in forbidden {
            let found =
                product.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(word));
            assert!(!found, "{} uses {word}: go through env", relative.display());
        }
    }
}
