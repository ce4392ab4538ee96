//! The command line: `serve` under Prometheus' flag names, and promtool's checks under
//! promtool's.

mod arguments;
mod check;
mod explain;
mod junit;
mod migrate;
mod query;
pub mod serve;
mod targets;
mod test;
mod tsdb;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Where a command writes: its answers, and what is wrong.
pub struct Console<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

/// What a shell sees of a program whose reader went away.
const READER_GONE: u8 = 128 + 13;

/// Parses the command line, runs the command, and prints an error once, as one line.
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments::without_negations(std::env::args_os()));
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    let mut console = Console { out: &mut out, err: &mut err };
    let outcome = match cli.command {
        None => crate::serve::run(cli.serve).map(|()| check::OK),
        Some(Command::Serve(arguments)) => crate::serve::run(*arguments).map(|()| check::OK),
        Some(Command::Check(Check::Config(arguments))) => check::config(&arguments, &mut console),
        Some(Command::Check(Check::Rules(arguments))) => check::rules(&arguments, &mut console),
        Some(Command::Check(Check::Alertmanager(arguments))) => check::alertmanager(&arguments, &mut out),
        Some(Command::Query(arguments)) => query::run(&arguments, &mut out),
        Some(Command::Import(arguments)) => migrate::import(&arguments, &mut console),
        Some(Command::Export(arguments)) => migrate::export(&arguments, &mut console),
        Some(Command::Test(Test::Rules(arguments))) => test::rules(&arguments, &mut console),
        Some(Command::Test(Test::Promql { files })) => test::promql(&files, &mut out),
        Some(Command::Tsdb(command)) => tsdb::run(&command, &mut out),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_reader_gone(&error) => ExitCode::from(READER_GONE),
        Err(error) => {
            // Nobody may be left to read this: then there is nothing to do about it.
            let _ = writeln!(err, "tidewatch: {}", one_line(&error));
            ExitCode::from(check::FAILED)
        }
    }
}

/// Whether the output went into a pipe that nobody reads any more, as in `tidewatch … | head`.
fn is_reader_gone(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    kind == Some(io::ErrorKind::BrokenPipe)
}

/// An error with its causes. Many errors print their cause already: what was said is not said twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// A time-series and alert-evaluation engine: drop-in for Prometheus.
#[derive(Debug, Parser)]
#[command(name = "tidewatch", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server (also what `tidewatch` alone does).
    Serve(Box<serve::ServeArgs>),
    /// Check files without a server.
    #[command(subcommand)]
    Check(Check),
    /// Ask a server.
    #[command(subcommand)]
    Query(Query),
    /// Run tests of rules and queries.
    #[command(subcommand)]
    Test(Test),
    /// Look at a data directory, and repair it.
    #[command(subcommand)]
    Tsdb(tsdb::Tsdb),
    /// Write what others stored into a data directory that no server has.
    Import(migrate::Import),
    /// Write what a data directory holds in forms that others read; no server may have it.
    Export(migrate::Export),
}

#[derive(Debug, Subcommand)]
pub enum Check {
    /// Check whether configuration files are valid.
    Config(CheckConfig),
    /// Check whether rule files are valid.
    Rules(CheckRules),
    /// Check whether Alertmanager's configuration files are valid.
    Alertmanager(CheckAlertmanager),
}

#[derive(Debug, Args)]
pub struct CheckAlertmanager {
    /// Features of Alertmanager to check for: classic-mode, utf8-strict-mode (several with commas).
    #[arg(long = "enable-feature", default_value = "")]
    pub enable_feature: String,
    #[arg(required = true)]
    pub files: Vec<std::path::PathBuf>,
}

#[derive(Debug, Args)]
pub struct CheckConfig {
    /// Only check the syntax, not the files that the configuration names.
    #[arg(long = "syntax-only")]
    pub syntax_only: bool,
    /// Check for use in agent mode.
    #[arg(long)]
    pub agent: bool,
    #[command(flatten)]
    pub lint: Lint,
    #[arg(required = true)]
    pub files: Vec<std::path::PathBuf>,
}

#[derive(Debug, Args)]
pub struct CheckRules {
    #[command(flatten)]
    pub lint: Lint,
    /// Rule files; standard input where none is named.
    pub files: Vec<std::path::PathBuf>,
}

#[derive(Debug, Args)]
pub struct Lint {
    /// What to look for: all, duplicate-rules, too-long-scrape-interval, none (several with commas).
    #[arg(long, default_value = "duplicate-rules")]
    pub lint: String,
    /// End with status 3 where a lint finds something.
    #[arg(long = "lint-fatal")]
    pub lint_fatal: bool,
    /// Fields that are not known are no error.
    #[arg(long = "ignore-unknown-fields")]
    pub ignore_unknown_fields: bool,
    /// Features to switch on, as of `serve`.
    #[arg(long = "enable-feature", value_delimiter = ',')]
    pub enable_feature: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Query {
    /// Run a query for what it costs: its plan with series, samples, bytes and time of each part.
    Explain(Explain),
    /// Run an instant query.
    Instant {
        #[command(flatten)]
        output: Output,
        /// When to evaluate: RFC 3339 or Unix seconds; now where absent.
        #[arg(long)]
        time: Option<String>,
        /// Headers to send, NAME=VALUE.
        #[arg(long)]
        header: Vec<String>,
        /// The server: http://host:port
        server: String,
        expr: String,
    },
    /// Run a range query.
    Range {
        #[command(flatten)]
        output: Output,
        /// From here: RFC 3339 or Unix seconds; five minutes before the end where absent.
        #[arg(long)]
        start: Option<String>,
        /// … to here; now where absent.
        #[arg(long)]
        end: Option<String>,
        /// … at steps of this duration; 250 steps where absent.
        #[arg(long)]
        step: Option<String>,
        /// Headers to send, NAME=VALUE.
        #[arg(long)]
        header: Vec<String>,
        server: String,
        expr: String,
    },
}

#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    pub output: Output,
    /// When to evaluate: RFC 3339 or Unix seconds; now where absent.
    #[arg(long, conflicts_with_all = ["start", "end", "step"])]
    pub time: Option<String>,
    /// Explain a range query from here.
    #[arg(long)]
    pub start: Option<String>,
    /// … to here; now where absent.
    #[arg(long)]
    pub end: Option<String>,
    /// … at steps of this duration.
    #[arg(long)]
    pub step: Option<String>,
    /// The server: http://host:port
    pub server: String,
    pub expr: String,
}

#[derive(Debug, Args)]
pub struct Output {
    /// How to print the answer.
    #[arg(short = 'o', long = "format", default_value = "promql", value_parser = ["promql", "json"])]
    pub format: String,
    /// How to connect: a file with Prometheus' settings of an HTTP client (TLS, authentication, proxy).
    #[arg(long = "http.config.file", value_name = "FILE")]
    pub http_config_file: Option<std::path::PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Test {
    /// Run promtool's unit-test files.
    Rules(TestRules),
    /// Run Prometheus' `.test` scripts.
    Promql {
        #[arg(required = true)]
        files: Vec<std::path::PathBuf>,
    },
}

#[derive(Debug, Args)]
pub struct TestRules {
    /// Only run test groups whose name matches one of these regular expressions.
    #[arg(long)]
    pub run: Vec<String>,
    /// Show differences line by line.
    #[arg(long)]
    pub diff: bool,
    /// Taken for promtool's sake; there is nothing more to say.
    #[arg(long)]
    pub debug: bool,
    /// Also write the results to a file, as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<std::path::PathBuf>,
    /// Fields of rule files that are not known are no error.
    #[arg(long = "ignore-unknown-fields")]
    pub ignore_unknown_fields: bool,
    /// Features to switch on, as of `serve`.
    #[arg(long = "enable-feature", value_delimiter = ',')]
    pub enable_feature: Vec<String>,
    /// Test files; the rule files that they name are found from their folder.
    #[arg(required = true)]
    pub files: Vec<std::path::PathBuf>,
}
