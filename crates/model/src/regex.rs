//! Regular expressions with Go's RE2 meaning on Rust's linear-time engine.

use crate::Limits;

/// A compiled expression, anchored at both ends as Prometheus anchors it: `^(?s:…)$`.
#[derive(Debug, Clone)]
pub struct GoRegex {
    pattern: String,
    regex: regex::Regex,
}

impl GoRegex {
    /// Compiles `pattern` anchored. Bounded by [`Limits`]' pattern and program sizes.
    pub fn new(pattern: &str) -> Result<GoRegex, String> {
        let limits = Limits::default();
        if pattern.len() > limits.regex_pattern_bytes {
            return Err(format!(
                "regular expression of {} bytes is longer than {}",
                pattern.len(),
                limits.regex_pattern_bytes
            ));
        }
        let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
            .size_limit(limits.regex_compiled_bytes)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(GoRegex { pattern: pattern.to_owned(), regex })
    }

    /// The pattern as it was written, without the anchors.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The engine's expression, for captures and expansion.
    pub fn regex(&self) -> &regex::Regex {
        &self.regex
    }
}

impl PartialEq for GoRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for GoRegex {}
