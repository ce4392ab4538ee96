//! The `.test` language of Prometheus: scripts that load samples, evaluate queries and say what
//! the answers must be.
//!
//! ```text
//! load 5m
//!   http_requests{job="api"} 0+10x10
//!
//! eval instant at 50m rate(http_requests[10m])
//!   {job="api"} 0.0333
//! ```
//!
//! A command ends at a blank line. Blank and comment lines are the same. A command that cannot be
//! read is a failure of its own and the script goes on behind it, so that one report names
//! everything that is wrong.

mod eval;
mod expect;
mod histograms;
mod load;
mod starts;

use tidewatch_parser::ParserOptions;

pub use eval::{Eval, Expected, ExpectedSeries, Points, Time};
pub use expect::{Expectation, Expectations, Pattern};
pub use load::{Load, LoadedSample, LoadedSeries};
pub use starts::start_offsets;

/// A script, read.
#[derive(Debug)]
pub struct Script {
    pub commands: Vec<Command>,
}

#[derive(Debug)]
pub enum Command {
    Load(Load),
    Clear,
    Eval(Box<Eval>),
    /// What could not be read.
    Invalid(Failure),
}

/// What is wrong, and the line of the script, counted from 1, that it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub line: usize,
    pub reason: String,
}

impl Script {
    /// Reads a script. Queries are parsed with `options`.
    pub fn parse(text: &str, options: &ParserOptions) -> Script {
        let lines: Vec<&str> = text.lines().map(without_comment).collect();
        let mut reader = Lines { lines: &lines, at: 0 };
        let mut commands = Vec::new();
        while let Some(line) = reader.peek() {
            if line.is_empty() {
                reader.at += 1;
                continue;
            }
            let start = reader.at;
            commands.push(command(&mut reader, options).unwrap_or_else(|reason| {
                // The message may concern a later line; the failure is that of its command.
                reader.skip_command();
                Command::Invalid(Failure { line: start + 1, reason })
            }));
        }
        Script { commands }
    }
}

fn command(lines: &mut Lines<'_>, options: &ParserOptions) -> Result<Command, String> {
    let line = lines.peek().expect("the caller peeked");
    let word = line.split([' ', '\t']).next().unwrap_or_default().to_ascii_lowercase();
    if word == "clear" {
        lines.at += 1;
        return Ok(Command::Clear);
    }
    if word.starts_with("load") {
        return load::read(lines).map(Command::Load);
    }
    if word.starts_with("eval") {
        return eval::read(lines, options).map(|eval| Command::Eval(Box::new(eval)));
    }
    Err(misplaced(format!("invalid command {}", tidewatch_model::quote(line))))
}

/// A mistake without a query to point into, as Prometheus words it.
fn misplaced(reason: String) -> String {
    format!("unknown position: parse error: {reason}")
}

fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') { "" } else { line }
}

/// Lines of a script, trimmed, comments blank, and a cursor.
struct Lines<'a> {
    lines: &'a [&'a str],
    at: usize,
}

impl<'a> Lines<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.at).copied()
    }

    /// Takes the next line of the command, if it goes on.
    fn next_of_command(&mut self) -> Option<&'a str> {
        let line = self.peek().filter(|line| !line.is_empty())?;
        self.at += 1;
        Some(line)
    }

    fn skip_command(&mut self) {
        // At least one line, so that reading always gets on.
        self.at += 1;
        while self.next_of_command().is_some() {}
    }
}
