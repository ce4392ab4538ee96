//! `test promql` and `test rules`: scripts of queries and unit tests of rules, without a server.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use tidewatch_env::Env;
use tidewatch_promql::{Engine, EngineOptions};
use tidewatch_rules::LoadOptions;
use tidewatch_rules::testfile::{GroupReport, RunOptions, TestFile};
use tidewatch_testkit::{MemoryLab, MemoryStore, run_script, script_engine_options};

use super::check::{FAILED, OK};
use super::junit::{self, Suite};
use super::{Console, TestRules};
use crate::{evaluate, files};

/// Runs `.test` scripts: a line `FILE:LINE: reason` for each failure, and the counts at the end.
pub fn promql(files: &[std::path::PathBuf], out: &mut dyn Write) -> Result<u8> {
    let engine = Engine::new(Env::real()?, script_engine_options());
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                writeln!(out, "{}:0: {error}", file.display())?;
                failed += 1;
                continue;
            }
        };
        let report = run_script(&text, &engine, &mut MemoryStore::new());
        for failure in &report.failures {
            writeln!(out, "{}:{}: {}", file.display(), failure.line, failure.reason)?;
        }
        passed += report.passed;
        failed += report.failures.len();
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(if failed == 0 { OK } else { FAILED })
}

/// Runs promtool's unit-test files. Rule files are found relative to the test file.
pub fn rules(arguments: &TestRules, console: &mut Console<'_>) -> Result<u8> {
    let mut engine = EngineOptions::default();
    let (parser, _) = evaluate::features(&arguments.enable_feature, &mut engine);
    let options = RunOptions {
        run: arguments.run.clone(),
        diff: arguments.diff,
        rules: LoadOptions {
            ignore_unknown_fields: arguments.ignore_unknown_fields,
            parser,
            ..LoadOptions::default()
        },
    };
    let lab = MemoryLab::new(Env::real()?, engine);
    let mut worst = OK;
    let mut suites = Vec::new();
    for file in &arguments.files {
        writeln!(console.out, "Unit Testing:  {}", file.display())?;
        let groups = match run_file(file, &lab, &options, console.err) {
            Ok(report) => {
                let is_good = report.passed();
                write!(if is_good { &mut *console.out } else { &mut *console.err }, "{report}")?;
                worst = worst.max(if is_good { OK } else { FAILED });
                report.groups
            }
            Err(errors) => {
                writeln!(console.err, "  FAILED:\n{}", errors.join("\n"))?;
                worst = FAILED;
                vec![GroupReport { name: file.display().to_string(), failures: errors }]
            }
        };
        suites.push(Suite { file: file.display().to_string(), groups });
        writeln!(console.out)?;
    }
    if let Some(file) = &arguments.junit {
        std::fs::write(file, junit::render(&suites)).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(worst)
}

fn run_file(
    file: &Path,
    lab: &MemoryLab,
    options: &RunOptions,
    warnings: &mut dyn Write,
) -> Result<tidewatch_rules::testfile::Report, Vec<String>> {
    let one = |error: String| vec![error];
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| one(format!("{}: {error}", path.display())))
    };
    let test = TestFile::parse(&read(file)?, &file.display().to_string())?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let mut rules = Vec::new();
    for pattern in &test.rule_files {
        let pattern = folder.join(pattern);
        let found = files::glob(&pattern).map_err(one)?;
        let mut existing = found.iter().filter(|path| path.exists()).peekable();
        if existing.peek().is_none() {
            // As with promtool: tests of plain queries need no rules.
            let warning = format!("  WARNING: no file match pattern {}", pattern.display());
            writeln!(warnings, "{warning}").map_err(|error| one(error.to_string()))?;
        }
        for path in existing {
            rules.push((path.display().to_string(), read(path)?));
        }
    }
    test.run(&rules, lab, options).map_err(one)
}
