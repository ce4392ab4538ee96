//! Label matchers: `=`, `!=`, `=~`, `!~`.

use std::fmt;

use crate::quote;
use crate::regex::GoRegex;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    Equal,
    NotEqual,
    Regex,
    NotRegex,
}

impl MatchOp {
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// Why a matcher was refused: its regular expression does not compile or is too large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatcherError {
    pub message: String,
}

impl fmt::Display for MatcherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MatcherError {}

/// A condition on one label. A label that is absent counts as the empty text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    /// Present exactly for the regex operators.
    regex: Option<GoRegex>,
}

impl Matcher {
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Matcher, MatcherError> {
        let regex = match op {
            MatchOp::Regex | MatchOp::NotRegex => {
                Some(GoRegex::new(value).map_err(|message| MatcherError { message })?)
            }
            MatchOp::Equal | MatchOp::NotEqual => None,
        };
        Ok(Matcher { name: name.to_owned(), op, value: value.to_owned(), regex })
    }

    pub fn equal(name: &str, value: &str) -> Matcher {
        Matcher { name: name.to_owned(), op: MatchOp::Equal, value: value.to_owned(), regex: None }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn op(&self) -> MatchOp {
        self.op
    }

    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label with this value satisfies the matcher; `""` for an absent label.
    pub fn matches(&self, value: &str) -> bool {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => self.value == value,
            (MatchOp::NotEqual, _) => self.value != value,
            (MatchOp::Regex, regex) => regex.as_ref().expect("built in new").is_match(value),
            (MatchOp::NotRegex, regex) => !regex.as_ref().expect("built in new").is_match(value),
        }
    }

    /// The values that satisfy a positive matcher, sorted, if they are few enough to be listed.
    pub fn set_matches(&self) -> Option<&[String]> {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => Some(std::slice::from_ref(&self.value)),
            (MatchOp::Regex, Some(regex)) => regex.set_matches(),
            _ => None,
        }
    }

    /// A text that every value that satisfies a positive matcher begins with; empty where
    /// nothing is known.
    pub fn prefix(&self) -> &str {
        match (self.op, &self.regex) {
            (MatchOp::Equal, _) => &self.value,
            (MatchOp::Regex, Some(regex)) => regex.prefix(),
            _ => "",
        }
    }

    /// The compiled expression of a regex matcher.
    pub fn regex(&self) -> Option<&GoRegex> {
        self.regex.as_ref()
    }

    /// The same matcher for labels of which the expression matches these values only, and the empty one if it does.
    pub fn listed(&self, values: Vec<String>) -> Matcher {
        Matcher { regex: self.regex.as_ref().map(|regex| regex.listed(values)), ..self.clone() }
    }

    /// Whether series without the label satisfy the matcher.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }
}

/// `name="value"`, as Prometheus prints a matcher.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op, value) = (self.op.as_str(), quote(&self.value));
        if crate::is_valid_legacy_name(&self.name) {
            write!(f, "{}{op}{value}", self.name)
        } else {
            write!(f, "{}{op}{value}", quote(&self.name))
        }
    }
}
