//! `check config` and `check rules`: what promtool checks, with its flags, output and exit codes;
//! and `check alertmanager`, which is amtool's `check-config`. As with promtool, what is wrong goes
//! to the standard error and the rest to the standard output.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use tidewatch_parser::ParserOptions;
use tidewatch_promql::EngineOptions;
use tidewatch_rules::{LoadOptions, RuleFile, duplicate_rules};

use super::{CheckAlertmanager, CheckConfig, CheckRules, Console, Lint, targets};
use crate::config::alertmanager::{self, AlertmanagerFile, Names};
use crate::{config, evaluate, files};

/// The exit codes of promtool.
pub const OK: u8 = 0;
pub const FAILED: u8 = 1;
/// A lint found something and `--lint-fatal` was given.
pub const LINT: u8 = 3;

/// Which lints `--lint` asks for.
fn wants_duplicates(lint: &Lint) -> bool {
    lint.lint.split(',').any(|name| matches!(name.trim(), "all" | "duplicate-rules"))
}

/// Jobs that are scraped so seldom that their series go stale between two scrapes, as promtool's
/// lint `too-long-scrape-interval` describes them.
fn too_long_intervals(config: &config::Config, lint: &Lint) -> Vec<String> {
    if !lint.lint.split(',').any(|name| matches!(name.trim(), "all" | "too-long-scrape-interval")) {
        return Vec::new();
    }
    let lookback_ms = EngineOptions::default().lookback_ms;
    let slow = config.scrape.iter().filter(|job| job.scrape_interval_ms >= lookback_ms);
    slow.map(|job| {
        let interval = tidewatch_model::format_duration(job.scrape_interval_ms);
        let job = &job.job_name;
        format!("too long scrape interval found, data point will be marked as stale - job: {job}, interval: {interval}")
    })
    .collect()
}

/// A lint that nobody knows is no error, as with promtool.
fn warn_of_unknown_lints(lint: &Lint) {
    for name in lint.lint.split(',').map(str::trim) {
        if !matches!(name, "all" | "duplicate-rules" | "too-long-scrape-interval" | "none") {
            eprintln!("WARNING: unknown lint option {name:?}");
        }
    }
}

fn parser_options(features: &[String]) -> ParserOptions {
    evaluate::features(features, &mut EngineOptions::default()).0
}

pub fn config(arguments: &CheckConfig, console: &mut Console<'_>) -> Result<u8> {
    warn_of_unknown_lints(&arguments.lint);
    let mut worst = OK;
    for file in &arguments.files {
        writeln!(console.out, "Checking {}", file.display())?;
        let code = match config::load(file, config::LoadOptions { agent: arguments.agent }) {
            Ok(loaded) => check_loaded(&loaded, file, arguments, console)?,
            Err(error) => {
                writeln!(console.err, "  FAILED: {error}")?;
                writeln!(console.out)?;
                FAILED
            }
        };
        worst = worst_of(worst, code);
    }
    Ok(worst)
}

/// Checks what a valid configuration names: files, rules, targets.
fn check_loaded(
    loaded: &config::Config,
    file: &Path,
    arguments: &CheckConfig,
    console: &mut Console<'_>,
) -> Result<u8> {
    let mut worst = OK;
    let mut notices = Vec::new();
    let mut rules = Vec::new();
    for warning in &loaded.warnings {
        writeln!(console.out, "  WARNING: {warning}")?;
    }
    if !arguments.syntax_only {
        notices = missing_files(loaded);
        rules = rule_files(&loaded.rule_files, &mut notices);
        let found = targets::check(loaded);
        for warning in &found.warnings {
            writeln!(console.out, "  WARNING: {warning}")?;
        }
        notices.extend(found.problems);
    }
    for finding in too_long_intervals(loaded, &arguments.lint) {
        writeln!(console.err, "  FAILED: {finding}")?;
        worst = worst_of(worst, if arguments.lint.lint_fatal { LINT } else { OK });
    }
    for notice in &notices {
        writeln!(console.err, "  FAILED: {notice}")?;
        worst = FAILED;
    }
    if notices.is_empty() {
        if !rules.is_empty() {
            writeln!(console.out, "  SUCCESS: {} rule files found", rules.len())?;
        }
        writeln!(console.out, " SUCCESS: {} is valid prometheus config file syntax", file.display())?;
    }
    writeln!(console.out)?;
    Ok(worst_of(worst, check_files(&rules, &arguments.lint, console)?))
}

/// Files that the configuration names and that are not there.
fn missing_files(config: &config::Config) -> Vec<String> {
    let clients =
        config.scrape.iter().map(|job| &job.http).chain(config.alertmanagers.iter().map(|a| &a.http));
    let mut missing = Vec::new();
    for client in clients {
        for file in config::secret_files(client) {
            if !file.exists() {
                missing.push(format!("error checking file {:?}: no such file", file.display().to_string()));
            }
        }
    }
    missing.sort();
    missing.dedup();
    missing
}

/// The rule files of all patterns; what is wrong with a pattern, or with a path that is none, goes
/// to `notices`.
fn rule_files(patterns: &[PathBuf], notices: &mut Vec<String>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for pattern in patterns {
        match files::glob(pattern) {
            Ok(files) => found.extend(files),
            Err(reason) => notices.push(reason),
        }
    }
    found.retain(|file| {
        let exists = file.exists();
        if !exists {
            notices.push(format!("{:?} does not point to an existing file", file.display().to_string()));
        }
        exists
    });
    found
}

/// The exit code for several files: a failure outweighs what a lint found.
fn worst_of(one: u8, other: u8) -> u8 {
    if one == FAILED || other == FAILED { FAILED } else { one.max(other) }
}

pub fn rules(arguments: &CheckRules, console: &mut Console<'_>) -> Result<u8> {
    warn_of_unknown_lints(&arguments.lint);
    if arguments.files.is_empty() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        writeln!(console.out, "Checking standard input")?;
        return check_text(&text, "standard input", &arguments.lint, console);
    }
    check_files(&arguments.files, &arguments.lint, console)
}

fn check_files(files: &[PathBuf], lint: &Lint, console: &mut Console<'_>) -> Result<u8> {
    let mut worst = OK;
    for file in files {
        writeln!(console.out, "Checking {}", file.display())?;
        let code = match read(file) {
            Ok(text) => check_text(&text, &file.display().to_string(), lint, console)?,
            Err(reason) => {
                writeln!(console.err, "  FAILED:\n{reason}")?;
                writeln!(console.out)?;
                FAILED
            }
        };
        worst = worst_of(worst, code);
    }
    Ok(worst)
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn check_text(text: &str, name: &str, lint: &Lint, console: &mut Console<'_>) -> Result<u8> {
    let options = LoadOptions {
        ignore_unknown_fields: lint.ignore_unknown_fields,
        parser: parser_options(&lint.enable_feature),
        ..LoadOptions::default()
    };
    let file = match RuleFile::parse(text, name, &options) {
        Ok(file) => file,
        Err(errors) => {
            writeln!(console.err, "  FAILED:")?;
            for error in errors {
                writeln!(console.err, "{error}")?;
            }
            writeln!(console.out)?;
            return Ok(FAILED);
        }
    };
    let count: usize = file.groups.iter().map(|group| group.rules.len()).sum();
    let duplicates = if wants_duplicates(lint) { duplicate_rules(&file) } else { Vec::new() };
    if duplicates.is_empty() {
        writeln!(console.out, "  SUCCESS: {count} rules found\n")?;
        return Ok(OK);
    }
    writeln!(console.err, "  FAILED:\nlint error {} duplicate rule(s) found.", duplicates.len())?;
    for duplicate in &duplicates {
        write!(console.err, "{duplicate}")?;
    }
    writeln!(console.err, "Might cause inconsistency while recording expressions")?;
    writeln!(console.out)?;
    Ok(if lint.lint_fatal { LINT } else { OK })
}

pub fn alertmanager(arguments: &CheckAlertmanager, out: &mut dyn Write) -> Result<u8> {
    let mut failed = 0;
    let mut names = Names::Fallback;
    for feature in arguments.enable_feature.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        names = match feature {
            "classic-mode" => Names::Classic,
            "utf8-strict-mode" => Names::Strict,
            _ => anyhow::bail!("unknown feature {feature:?}: must be classic-mode or utf8-strict-mode"),
        };
    }
    for file in &arguments.files {
        write!(out, "Checking '{}'", file.display())?;
        match alertmanager::load(file, names) {
            Err(error) => {
                writeln!(out, "  FAILED: {error}")?;
                failed += 1;
            }
            Ok(loaded) => {
                writeln!(out, "  SUCCESS")?;
                failed += usize::from(!describe(&loaded, out)?);
            }
        }
        writeln!(out)?;
    }
    anyhow::ensure!(failed == 0, "failed to validate {failed} file(s)");
    Ok(OK)
}

/// Says what a file holds; false where one of its templates can not be read. A template that does
/// not exist is fine, as it is for amtool.
fn describe(file: &AlertmanagerFile, out: &mut dyn Write) -> Result<bool> {
    writeln!(out, "Found:\n - global config\n - route")?;
    writeln!(out, " - {} inhibit rules", file.inhibit_rules.len())?;
    writeln!(out, " - {} receivers", file.receivers.len())?;
    writeln!(out, " - {} templates", file.templates.len())?;
    for warning in &file.warnings {
        writeln!(out, "  WARNING: {warning}")?;
    }
    if file.templates.is_empty() {
        return Ok(true);
    }
    let mut unreadable = Vec::new();
    for pattern in &file.templates {
        let found = files::glob(pattern);
        match found {
            Ok(files) => {
                unreadable.extend(files.iter().filter(|file| file.exists()).filter_map(|f| read(f).err()));
            }
            Err(reason) => unreadable.push(reason),
        }
    }
    for reason in &unreadable {
        writeln!(out, "  FAILED: {reason}")?;
    }
    if unreadable.is_empty() {
        writeln!(out, "  SUCCESS")?;
    }
    Ok(unreadable.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a file with these contents and gives what is printed, and the exit code or error.
    fn checked(text: &str) -> (String, String) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("broken.tmpl"), b"\xff").expect("written");
        let file = folder.path().join("am.yml");
        std::fs::write(&file, text).expect("written");
        let arguments = CheckAlertmanager { enable_feature: String::new(), files: vec![file] };
        let mut out = Vec::new();
        let outcome = alertmanager(&arguments, &mut out);
        let outcome = outcome.map_or_else(|error| error.to_string(), |code| code.to_string());
        let folder = format!("{}/", folder.path().display());
        (String::from_utf8(out).expect("UTF-8").replace(&folder, ""), outcome)
    }

    #[test]
    fn a_good_file_is_described_and_a_bad_one_refused_with_its_place() {
        let (out, outcome) =
            checked("route: {receiver: a}\nreceivers: [{name: a}]\ntemplates: [none.tmpl]\n");
        assert_eq!(
            out,
            "Checking 'am.yml'  SUCCESS\nFound:\n - global config\n - route\n - 0 inhibit rules\n - 1 receivers\n \
             - 1 templates\n  SUCCESS\n\n"
        );
        assert_eq!(outcome, "0");
        let (out, outcome) = checked("route: {receiver: b}\n");
        assert_eq!(
            out,
            "Checking 'am.yml'  FAILED: parsing YAML file am.yml: undefined receiver \"b\" used in route (line 1, column 19)\n\n"
        );
        assert_eq!(outcome, "failed to validate 1 file(s)");
    }

    #[test]
    fn a_job_that_is_scraped_too_seldom_is_a_finding_of_its_lint() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("p.yml");
        let jobs = "scrape_configs: [{job_name: slow, scrape_interval: 5m}, {job_name: fast, scrape_interval: 4m}]\n";
        std::fs::write(&file, jobs).expect("written");
        let run = |lint: &str, lint_fatal| {
            let lint = Lint {
                lint: lint.to_owned(),
                lint_fatal,
                ignore_unknown_fields: false,
                enable_feature: Vec::new(),
            };
            let arguments = CheckConfig { syntax_only: false, agent: false, lint, files: vec![file.clone()] };
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = config(&arguments, &mut Console { out: &mut out, err: &mut err }).expect("written");
            (String::from_utf8(err).expect("UTF-8"), code)
        };
        let found = "  FAILED: too long scrape interval found, data point will be marked as stale - job: slow, interval: 5m\n";
        let (out, code) = run("too-long-scrape-interval", false);
        assert!(out.contains(found) && !out.contains("fast") && code == OK, "{code}: {out}");
        assert_eq!(run("all", true).1, LINT);
        assert!(!run("duplicate-rules", true).0.contains("too long"));
    }

    #[test]
    fn a_template_that_can_not_be_read_fails_the_file() {
        let (out, outcome) = checked("route: {receiver: a}\nreceivers: [{name: a}]\ntemplates: ['*.tmpl']\n");
        assert!(out.contains("  FAILED: broken.tmpl: stream did not contain valid UTF-8\n"), "{out}");
        assert_eq!(outcome, "failed to validate 1 file(s)");
    }
}
