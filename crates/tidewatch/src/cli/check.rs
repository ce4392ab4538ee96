//! `check config` and `check rules`: what promtool checks, with its flags, output and exit codes.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use tidewatch_parser::ParserOptions;
use tidewatch_promql::EngineOptions;
use tidewatch_rules::{LoadOptions, RuleFile, duplicate_rules};

use super::{CheckConfig, CheckRules, Lint};
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

fn parser_options(features: &[String]) -> ParserOptions {
    evaluate::features(features, &mut EngineOptions::default()).0
}

pub fn config(arguments: &CheckConfig, out: &mut dyn Write) -> Result<u8> {
    let mut worst = OK;
    for file in &arguments.files {
        writeln!(out, "Checking {}", file.display())?;
        match config::load(file, config::LoadOptions { agent: arguments.agent }) {
            Err(error) => {
                writeln!(out, "  FAILED: {error}\n")?;
                worst = FAILED;
            }
            Ok(loaded) => {
                let notices = if arguments.syntax_only { Vec::new() } else { missing_files(&loaded) };
                for warning in &loaded.warnings {
                    writeln!(out, "  WARNING: {warning}")?;
                }
                if notices.is_empty() {
                    writeln!(out, " SUCCESS: {} is valid prometheus config file syntax\n", file.display())?;
                } else {
                    for notice in notices {
                        writeln!(out, "  FAILED: {notice}")?;
                    }
                    writeln!(out)?;
                    worst = FAILED;
                }
                if !arguments.syntax_only {
                    let rules = rule_files(&loaded.rule_files, out)?;
                    worst = worst.max(check_files(&rules, &arguments.lint, out)?);
                }
            }
        }
    }
    Ok(worst)
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

fn rule_files(patterns: &[PathBuf], out: &mut dyn Write) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for pattern in patterns {
        match files::glob(pattern) {
            Ok(files) => found.extend(files),
            Err(reason) => writeln!(out, "  FAILED: {reason}")?,
        }
    }
    Ok(found)
}

pub fn rules(arguments: &CheckRules, out: &mut dyn Write) -> Result<u8> {
    if arguments.files.is_empty() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        writeln!(out, "Checking standard input")?;
        return check_text(&text, "standard input", &arguments.lint, out);
    }
    check_files(&arguments.files, &arguments.lint, out)
}

fn check_files(files: &[PathBuf], lint: &Lint, out: &mut dyn Write) -> Result<u8> {
    let mut worst = OK;
    for file in files {
        writeln!(out, "Checking {}", file.display())?;
        let code = match read(file) {
            Ok(text) => check_text(&text, &file.display().to_string(), lint, out)?,
            Err(reason) => {
                writeln!(out, "  FAILED:\n{reason}\n")?;
                FAILED
            }
        };
        worst = if worst == FAILED { FAILED } else { worst.max(code) };
    }
    Ok(worst)
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn check_text(text: &str, name: &str, lint: &Lint, out: &mut dyn Write) -> Result<u8> {
    let options = LoadOptions {
        ignore_unknown_fields: lint.ignore_unknown_fields,
        parser: parser_options(&lint.enable_feature),
        ..LoadOptions::default()
    };
    let file = match RuleFile::parse(text, name, &options) {
        Ok(file) => file,
        Err(errors) => {
            writeln!(out, "  FAILED:")?;
            for error in errors {
                writeln!(out, "{error}")?;
            }
            writeln!(out)?;
            return Ok(FAILED);
        }
    };
    let count: usize = file.groups.iter().map(|group| group.rules.len()).sum();
    let duplicates = if wants_duplicates(lint) { duplicate_rules(&file) } else { Vec::new() };
    if duplicates.is_empty() {
        writeln!(out, "  SUCCESS: {count} rules found\n")?;
        return Ok(OK);
    }
    writeln!(out, "  {} duplicate rule(s) found.", duplicates.len())?;
    for duplicate in &duplicates {
        write!(out, "{duplicate}")?;
    }
    writeln!(out, "Might cause inconsistency while recording expressions\n")?;
    Ok(if lint.lint_fatal { LINT } else { OK })
}
