//! `tsdb list`, `analyze`, `verify`, `repair`: a data directory without a server. The first two print as
//! promtool does.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use tidewatch_env::Env;
use tidewatch_model::Matcher;
use tidewatch_tsdb::TopEntry;
use tidewatch_tsdb::block::{Block, BlockMeta};
use tidewatch_tsdb::offline::{self, Finding, Verified};

use super::check::{FAILED, OK};
use crate::config::format_size;

#[derive(Debug, Subcommand)]
pub enum Tsdb {
    /// List the blocks.
    List {
        /// Print times and sizes for people.
        #[arg(short = 'r', long = "human-readable")]
        human_readable: bool,
        #[command(flatten)]
        directory: Directory,
    },
    /// Analyze churn, label pair cardinality and series of a block.
    Analyze {
        /// How many items to show in each list.
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Series selector to analyze.
        #[arg(long = "match", value_name = "SELECTOR")]
        matchers: Option<String>,
        #[command(flatten)]
        directory: Directory,
        /// Block to analyze; the last one where absent.
        block: Option<String>,
    },
    /// Check every checksum, and name what is damaged by file, range and series.
    Verify(Directory),
    /// Write anew what is whole of damaged files, and set these aside. The server must not run.
    Repair(Directory),
}

#[derive(Debug, Args)]
pub struct Directory {
    /// The data directory.
    #[arg(value_name = "DIRECTORY", default_value = "./tidewatch-data")]
    pub path: PathBuf,
}

pub fn run(command: &Tsdb, out: &mut dyn Write) -> Result<u8> {
    let env = Env::real().context("reach the operating system")?;
    match command {
        Tsdb::List { human_readable, directory } => list(&env, &directory.path, *human_readable, out),
        Tsdb::Analyze { limit, matchers, directory, block } => {
            let matchers = match matchers {
                Some(text) => tidewatch_parser::parse_metric_selector(text).context("--match")?,
                None => Vec::new(),
            };
            let block = find_block(&env, &directory.path, block.as_deref())?;
            analyze(&block, &matchers, *limit, out)
        }
        Tsdb::Verify(directory) => {
            let verified = offline::verify(&env, &directory.path)?;
            print_findings(&verified.findings, out)?;
            print_verified(&verified, out)?;
            Ok(if verified.findings.is_empty() { OK } else { FAILED })
        }
        Tsdb::Repair(directory) => repair(&env, &directory.path, out),
    }
}

fn list(env: &Env, path: &Path, human_readable: bool, out: &mut dyn Write) -> Result<u8> {
    let found = offline::blocks(env, path)?;
    if !found.blocks.is_empty() {
        let header = "BLOCK ULID,MIN TIME,MAX TIME,DURATION,NUM SAMPLES,NUM CHUNKS,NUM SERIES,SIZE";
        let mut rows = vec![header.split(',').map(str::to_owned).collect()];
        rows.extend(found.blocks.iter().map(|block| row(block.meta(), human_readable)));
        print_table(&rows, out)?;
    }
    print_findings(&found.findings, out)?;
    Ok(if found.findings.is_empty() { OK } else { FAILED })
}

fn row(meta: &BlockMeta, human_readable: bool) -> Vec<String> {
    let time = |time_ms: i64| match jiff::Timestamp::from_second(time_ms.div_euclid(1000)) {
        Ok(time) if human_readable => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        _ => time_ms.to_string(),
    };
    let size = if human_readable { format_size(meta.size) } else { meta.size.to_string() };
    vec![
        name(meta),
        time(meta.start_ms),
        time(meta.end_ms),
        go_duration(meta.end_ms.saturating_sub(meta.start_ms)),
        meta.samples.to_string(),
        meta.chunks.to_string(),
        meta.series.to_string(),
        size,
    ]
}

fn name(meta: &BlockMeta) -> String {
    format!("{:08}", meta.id.0)
}

/// Columns as wide as their widest cell and two more, thirteen at least.
fn print_table(rows: &[Vec<String>], out: &mut dyn Write) -> Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].len() + 2).max().unwrap_or(0).max(13))
        .collect();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths).take(columns.saturating_sub(1)) {
            write!(out, "{cell:width$}")?;
        }
        writeln!(out, "{}", row.last().map_or("", String::as_str))?;
    }
    Ok(())
}

/// As Go prints durations: `2h0m0s`, `1m0.5s`, `500ms`.
fn go_duration(ms: i64) -> String {
    let (seconds, rest) = (ms / 1000, ms % 1000);
    let fraction = format!(".{rest:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) if rest == 0 => "0s".to_owned(),
        (0, 0, 0) => format!("{rest}ms"),
        (0, 0, seconds) => format!("{seconds}{fraction}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

fn find_block(env: &Env, path: &Path, wanted: Option<&str>) -> Result<Block> {
    let found = offline::blocks(env, path)?;
    for finding in &found.findings {
        eprintln!("{finding}");
    }
    let is_it = |block: &&Block| wanted.is_none_or(|wanted| name(block.meta()) == wanted);
    match (found.blocks.iter().rev().find(is_it), wanted) {
        (Some(block), _) => Ok(block.clone()),
        (None, Some(wanted)) => bail!("block {wanted} is not in {}", path.display()),
        (None, None) => bail!("{} has no block yet: the newest samples are in its head", path.display()),
    }
}

fn analyze(block: &Block, matchers: &[Matcher], limit: usize, out: &mut dyn Write) -> Result<u8> {
    let meta = block.meta();
    let analysis = offline::analyze(block, matchers, limit)?;
    writeln!(out, "Block ID: {}", name(meta))?;
    writeln!(out, "Duration: {}", go_duration(meta.end_ms.saturating_sub(meta.start_ms)))?;
    writeln!(out, "Total Series: {}", analysis.series)?;
    if !matchers.is_empty() {
        let matchers: Vec<String> = matchers.iter().map(ToString::to_string).collect();
        writeln!(out, "Matcher: {{{}}}", matchers.join(","))?;
    }
    writeln!(out, "Label names: {}", analysis.label_names)?;
    if !matchers.is_empty() {
        writeln!(out, "Matched series: {}", analysis.matched)?;
    }
    writeln!(out, "Postings (unique label pairs): {}", analysis.pairs)?;
    writeln!(out, "Postings entries (total label pairs): {}", analysis.entries)?;
    let lists: [(&str, &[TopEntry]); 6] = [
        ("Label pairs most involved in churning", &analysis.churn_by_pair),
        ("Label names most involved in churning", &analysis.churn_by_name),
        ("Most common label pairs", &analysis.series_by_pair),
        ("Label names with highest cumulative label value length", &analysis.bytes_by_name),
        ("Highest cardinality labels", &analysis.values_by_name),
        ("Highest cardinality metric names", &analysis.series_by_metric),
    ];
    for (title, entries) in lists {
        writeln!(out, "\n{title}:")?;
        for TopEntry { name, count } in entries {
            writeln!(out, "{count} {name}")?;
        }
    }
    Ok(OK)
}

fn print_findings(findings: &[Finding], out: &mut dyn Write) -> Result<()> {
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    Ok(())
}

fn print_verified(verified: &Verified, out: &mut dyn Write) -> Result<()> {
    let Verified { blocks, series, chunks, images, frames, findings } = verified;
    writeln!(
        out,
        "read {blocks} blocks with {series} series and {chunks} chunks, {images} images, {frames} frames of the log"
    )?;
    match findings.len() {
        0 => writeln!(out, "no damage")?,
        1 => writeln!(out, "1 piece of damage: `tidewatch tsdb repair` sets it aside")?,
        count => writeln!(out, "{count} pieces of damage: `tidewatch tsdb repair` sets them aside")?,
    }
    Ok(())
}

fn repair(env: &Env, path: &Path, out: &mut dyn Write) -> Result<u8> {
    let repaired = offline::repair(env, path)?;
    print_findings(&repaired.findings, out)?;
    if !repaired.findings.is_empty() {
        writeln!(
            out,
            "{} blocks written anew from what is whole, {} set aside as a whole; what was damaged is in {}",
            repaired.rewritten,
            repaired.set_aside,
            path.join("damaged").display()
        )?;
    }
    if repaired.head {
        writeln!(out, "images and log written anew from what is whole")?;
    }
    print_findings(&repaired.left.findings, out)?;
    print_verified(&repaired.left, out)?;
    Ok(if repaired.left.findings.is_empty() { OK } else { FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_tables_are_those_of_go() {
        for (ms, text) in
            [(0, "0s"), (500, "500ms"), (60_500, "1m0.5s"), (7_200_000, "2h0m0s"), (1_020, "1.02s")]
        {
            assert_eq!(go_duration(ms), text);
        }
        let rows = [vec!["A", "B", "C"], vec!["a long cell of it", "b", "c"]];
        let rows = rows.map(|row| row.into_iter().map(str::to_owned).collect());
        let mut out = Vec::new();
        print_table(&rows, &mut out).expect("memory takes all");
        let expected = "A                  B            C\na long cell of it  b            c\n";
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
    }
}
