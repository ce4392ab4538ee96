//! `expect` lines: failures, warnings, infos, order.

use std::sync::LazyLock;

use regex::Regex;
use tidewatch_model::regex::GoRegex;

static EXPECT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?$")
        .expect("a valid expression")
});

/// A text that a message must be, or an expression that it must contain a match of.
#[derive(Debug, Clone)]
pub enum Pattern {
    Exactly(String),
    Matches { pattern: String, regex: GoRegex },
}

impl Pattern {
    pub fn matching(pattern: &str) -> Result<Pattern, String> {
        // Refused as written, since the message quotes it; then unanchored.
        GoRegex::new(pattern)?;
        let regex = GoRegex::new(&format!(".*(?:{pattern}).*"))?;
        Ok(Pattern::Matches { pattern: pattern.to_owned(), regex })
    }

    pub fn is_match(&self, text: &str) -> bool {
        match self {
            Pattern::Exactly(message) => message == text,
            Pattern::Matches { regex, .. } => regex.is_match(text),
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Pattern::Exactly(message) => message,
            Pattern::Matches { pattern, .. } => pattern,
        }
    }

    /// The word for it in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Pattern::Exactly(_) => "message",
            Pattern::Matches { .. } => "pattern",
        }
    }
}

/// One `expect` line.
#[derive(Debug, Clone)]
pub enum Expectation {
    Ordered,
    Fail(Pattern),
    Warn(Pattern),
    NoWarn,
    Info(Pattern),
    NoInfo,
}

/// What an evaluation must do beside giving values.
#[derive(Debug, Clone, Default)]
pub struct Expectations {
    pub ordered: bool,
    /// The query must fail; with this message, where one is given.
    pub fail: bool,
    pub fail_pattern: Option<Pattern>,
    /// Of the old forms `expected_fail_message` and `expected_fail_regexp`.
    pub legacy_fail: Option<Pattern>,
    /// Of the old forms `eval_warn` and `eval_info`.
    pub any_warning: bool,
    pub any_info: bool,
    pub warnings: Vec<Pattern>,
    pub infos: Vec<Pattern>,
    pub no_warnings: bool,
    pub no_infos: bool,
}

impl Expectations {
    /// Adds a line, unless it contradicts those before it.
    pub(super) fn add(&mut self, line: &str) -> Result<(), String> {
        match read(line)? {
            Expectation::Ordered => self.ordered = true,
            Expectation::Fail(_) if self.fail_pattern.is_some() => {
                return Err("invalid expect lines, multiple expect fail lines are not allowed".to_owned());
            }
            Expectation::Fail(pattern) => (self.fail, self.fail_pattern) = (true, Some(pattern)),
            Expectation::Warn(pattern) => self.warnings.push(pattern),
            Expectation::NoWarn => self.no_warnings = true,
            Expectation::Info(pattern) => self.infos.push(pattern),
            Expectation::NoInfo => self.no_infos = true,
        }
        if !self.infos.is_empty() && self.no_infos {
            return Err("invalid expect lines, info and no_info cannot be used together".to_owned());
        }
        if !self.warnings.is_empty() && self.no_warnings {
            return Err("invalid expect lines, warn and no_warn cannot be used together".to_owned());
        }
        Ok(())
    }
}

fn read(line: &str) -> Result<Expectation, String> {
    let Some(parts) = EXPECT.captures(line.trim()) else {
        return Err(
            "invalid expect statement, must match `expect <type> <match_type>: <string>` format".to_owned()
        );
    };
    let mode = &parts[1];
    let text = parts.get(3).map_or("", |text| text.as_str()).trim();
    let pattern = match parts.get(2).map(|kind| kind.as_str()) {
        Some("msg") => Pattern::Exactly(text.to_owned()),
        Some(_) => Pattern::matching(text).map_err(|_| format!("invalid regex {text} for {mode}"))?,
        None => Pattern::matching(".*").expect("a valid expression"),
    };
    Ok(match mode {
        "ordered" => Expectation::Ordered,
        "fail" => Expectation::Fail(pattern),
        "warn" => Expectation::Warn(pattern),
        "no_warn" => Expectation::NoWarn,
        "info" => Expectation::Info(pattern),
        _ => Expectation::NoInfo,
    })
}
