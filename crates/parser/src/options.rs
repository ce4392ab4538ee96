//! Which parts of the language are on, and how large a query may be.

use tidewatch_model::Limits;

/// Switches and bounds of the parser.
#[derive(Debug, Clone)]
pub struct ParserOptions {
    /// Experimental functions and the aggregations `limitk` and `limit_ratio`.
    pub experimental_functions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left` and `fill_right`.
    pub fill_modifiers: bool,
    /// Bytes of a query's text.
    pub text_bytes: usize,
    /// How deep expressions may nest.
    pub depth: usize,
    /// How many nodes a tree may have.
    pub nodes: usize,
    /// Bytes of all its regular expressions when compiled.
    pub regex_bytes: usize,
}

impl ParserOptions {
    /// The stable language, with the default [`Limits`].
    pub fn stable() -> ParserOptions {
        let limits = Limits::default();
        ParserOptions {
            experimental_functions: false,
            extended_range_selectors: false,
            fill_modifiers: false,
            text_bytes: limits.query_text_bytes,
            depth: limits.query_depth,
            nodes: limits.query_nodes,
            regex_bytes: limits.query_regex_bytes,
        }
    }

    /// The whole language.
    pub fn experimental() -> ParserOptions {
        ParserOptions {
            experimental_functions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            ..ParserOptions::stable()
        }
    }

    /// Turns on a feature by the name that `--enable-feature` gives it. `false` where the name
    /// is none of the parser's.
    pub fn enable(&mut self, feature: &str) -> bool {
        let switch = match feature {
            "promql-experimental-functions" => &mut self.experimental_functions,
            // Stable since 3.14.
            "promql-duration-expr" => return true,
            "promql-extended-range-selectors" => &mut self.extended_range_selectors,
            "promql-binop-fill-modifiers" => &mut self.fill_modifiers,
            _ => return false,
        };
        *switch = true;
        true
    }
}

impl Default for ParserOptions {
    fn default() -> Self {
        ParserOptions::stable()
    }
}
