//! Chores of the project that take too long, or are too rare, for `cargo test`.
//!
//! ```text
//! cargo xtask torture                     all parts, in their long form
//! cargo xtask torture kills crashes       these parts
//! cargo xtask torture --tenth             a tenth of each
//! cargo xtask torture --release           with optimised programs
//! ```
//!
//! The tests are those that `cargo test` runs in a short form; here they get more rounds by their
//! environment. Whatever was done ends in a table.
//!
//! Not here: the tests themselves (`crates/tsdb/tests`, `tests/tests`).

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One kind of torture: a test and what makes it long.
struct Part {
    name: &'static str,
    what: &'static str,
    package: &'static str,
    test: &'static str,
    /// Tests of the file whose name has this.
    filter: &'static str,
    /// Variable and value that make it longer than `cargo test` does; a number is divided for a
    /// shorter run.
    variable: Option<(&'static str, &'static str)>,
}

const PARTS: [Part; 7] = [
    Part {
        name: "kills",
        what: "kill -9 of the program under remote write",
        package: "tidewatch-tests",
        test: "torture",
        filter: "no_kill",
        variable: Some(("TIDEWATCH_KILLS", "200")),
    },
    Part {
        name: "power",
        what: "power cuts of ext4 under the program",
        package: "tidewatch-tests",
        test: "torture",
        filter: "no_power_cut",
        variable: Some(("TIDEWATCH_POWER_CUTS", "150")),
    },
    Part {
        name: "crashes",
        what: "random crash states of the simulated disk",
        package: "tidewatch-tsdb",
        test: "crashes",
        filter: "",
        variable: Some(("TIDEWATCH_CRASH_STATES", "100000")),
    },
    Part {
        name: "writes",
        what: "every change of the disk failing: crash, EIO once and for good, disk full",
        package: "tidewatch-tsdb",
        test: "faults",
        filter: "",
        variable: None,
    },
    Part {
        name: "deletions",
        what: "the same under deletion, clean-up, snapshot and retention",
        package: "tidewatch-tsdb",
        test: "lifecycle",
        filter: "",
        variable: None,
    },
    Part {
        name: "damage",
        what: "every bit, every length, files exchanged, doubled, gone, foreign",
        package: "tidewatch-tsdb",
        test: "damage",
        filter: "",
        variable: Some(("TIDEWATCH_DAMAGE", "all")),
    },
    Part {
        name: "model",
        what: "random operations against a map",
        package: "tidewatch-tsdb",
        test: "model",
        filter: "a_long_life",
        variable: Some(("TIDEWATCH_MODEL_OPS", "1000000")),
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> Result<bool> {
    let usage = || {
        let names = PARTS.map(|part| format!("  {:<10} {}", part.name, part.what));
        format!("usage: cargo xtask torture [--release] [--tenth] [PART…]\nparts:\n{}", names.join("\n"))
    };
    let [task, arguments @ ..] = arguments else { bail!(usage()) };
    let (flags, names): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|argument| argument.starts_with("--"));
    let known = flags.iter().all(|flag| ["--release", "--tenth"].contains(&flag.as_str()))
        && names.iter().all(|name| PARTS.iter().any(|part| part.name == *name));
    if task != "torture" || !known {
        bail!(usage());
    }
    let has = |flag: &str| flags.iter().any(|given| *given == flag);
    let chosen = PARTS.iter().filter(|part| names.is_empty() || names.iter().any(|name| *name == part.name));
    // The tests start the program and do not build it again where it is there.
    build(has("--release"))?;
    let outcomes =
        chosen.map(|part| torture(part, has("--release"), has("--tenth"))).collect::<Result<Vec<_>>>()?;
    print(&outcomes);
    Ok(outcomes.iter().all(|outcome| outcome.passed))
}

fn cargo(arguments: &[&str], release: bool) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    if release {
        command.arg("--release");
    }
    command
}

fn build(release: bool) -> Result<()> {
    let status = cargo(&["build", "--package", "tidewatch"], release).status().context("cargo build")?;
    if status.success() { Ok(()) } else { bail!("the program can not be built") }
}

/// How a part went.
struct Outcome {
    part: &'static Part,
    passed: bool,
    took: Duration,
    /// Lines in which the tests say what they did: those that begin with `==`.
    said: Vec<String>,
}

fn torture(part: &'static Part, release: bool, tenth: bool) -> Result<Outcome> {
    let shortened = |value: &str| match value.parse::<u64>() {
        Ok(count) if tenth => (count / 10).to_string(),
        _ => value.to_owned(),
    };
    let variable = part.variable.map(|(name, value)| (name, shortened(value)));
    eprintln!("\n== {}: {} {variable:?}", part.name, part.what);
    let began = Instant::now();
    let mut child = cargo(&["test", "--package", part.package, "--test", part.test], release)
        .args(["--", "--nocapture", part.filter])
        .envs(variable)
        // Both streams in one, in order, and still seen by who waits.
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped())
        .spawn()
        .context("cargo test")?;
    let mut said = Vec::new();
    for line in BufReader::new(child.stderr.take().expect("piped above")).lines() {
        let line = line?;
        eprintln!("{line}");
        said.extend(line.strip_prefix("== ").map(str::to_owned));
    }
    let passed = child.wait()?.success();
    Ok(Outcome { part, passed, took: began.elapsed(), said })
}

fn print(outcomes: &[Outcome]) {
    println!("\n{:<10} {:<7} {:>8}  what was done", "part", "outcome", "seconds");
    for Outcome { part, passed, took, said } in outcomes {
        let outcome = if *passed { "passed" } else { "FAILED" };
        let mut lines = said.iter().map(String::as_str);
        let first = lines.next().unwrap_or(part.what);
        println!("{:<10} {:<7} {:>8.0}  {first}", part.name, outcome, took.as_secs_f64());
        lines.for_each(|line| println!("{:<28} {line}", ""));
    }
}
