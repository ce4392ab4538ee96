//! YAML text to a tree in which every node knows its line and column.
//!
//! ```text
//! text ─ events ─► Builder ─► Node ─► a schema: configuration, rule files, target groups
//! ```
//!
//! Files are checked against tables and readers of ours and not by `serde`, because a mistake is
//! told with its place, in Prometheus' words, and because Go's YAML resolves a scalar by the type
//! that is wanted: `job_name: 1` is the text `1`.
//!
//! Invariants: an alias shares its target and copies nothing, and a target is complete before it
//! can be named, so that a tree has no cycle. Whoever walks a whole tree visits at most
//! [`NODES_MAX`] nodes and is never deeper than [`DEPTH_MAX`], aliases followed: a document that
//! would be larger is refused while it is read, so that readers need no budget of their own.
//! Merge keys (`<<`) are resolved. Only the first document of a stream is read, as Prometheus does.
//!
//! Not here: what a field means.

#![forbid(unsafe_code)]

mod builder;
mod scalar;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use builder::{parse, parse_unique};
pub use scalar::{parse_bool, parse_float};

/// Nesting that no file of ours needs.
pub const DEPTH_MAX: usize = 100;
/// Nodes with aliases followed: a file with 10,000 rules has about 200,000.
pub const NODES_MAX: usize = 2_000_000;

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub kind: Kind,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Scalar {
        text: String,
        style: Style,
        /// The bytes of the source that hold the text, where they are known.
        span: Option<Range<usize>>,
    },
    List(Vec<Arc<Node>>),
    /// In the order of the document, keys that stand twice included.
    Map(Vec<Entry>),
}

/// A key and its value.
pub type Entry = (Arc<Node>, Arc<Node>);

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes, so that `null`, `true` and numbers are what they look like.
    Plain,
    /// In quotes, or by a tag a text whatever it looks like.
    Quoted,
    /// A block that keeps its lines.
    Literal,
    /// A block whose lines are joined.
    Folded,
}

/// Why a text is no YAML, or what is wrong with a node, with the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for YamlError {}

impl Node {
    /// A map without entries, at the start of a document.
    pub fn empty_map() -> Node {
        Node { kind: Kind::Map(Vec::new()), line: 1, column: 1 }
    }

    /// A text at the place of this node.
    pub fn with_text(&self, text: &str) -> Node {
        let kind = Kind::Scalar { text: text.to_owned(), style: Style::Quoted, span: None };
        Node { kind, line: self.line, column: self.column }
    }

    pub fn error(&self, message: impl Into<String>) -> YamlError {
        YamlError { line: self.line, column: self.column, message: message.into() }
    }

    /// Whether nothing was written, or `null`.
    pub fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, style: Style::Plain, .. } => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// The text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// What Go's decoder calls this kind of node in its messages.
    pub fn tag(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "!!seq",
            Kind::Map(_) => "!!map",
            Kind::Scalar { text, style: Style::Plain, .. } => match text.as_str() {
                "true" | "false" => "!!bool",
                _ if text.parse::<i64>().is_ok() => "!!int",
                _ if parse_float(text).is_some() => "!!float",
                _ => "!!str",
            },
            Kind::Scalar { .. } => "!!str",
        }
    }

    /// The value of `key`, where this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Kind::Map(entries) = &self.kind else { return None };
        entries.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| &**value)
    }

    /// The line and column of byte `offset` of a scalar's text, where `source` shows the text as
    /// it is; the place of the scalar itself where folding or escapes come between.
    pub fn locate(&self, source: &str, offset: usize) -> (usize, usize) {
        let whole = (self.line, self.column);
        let Kind::Scalar { text, style, span: Some(span) } = &self.kind else { return whole };
        let Some(before) = text.get(..offset.min(text.len())) else { return whole };
        if *style == Style::Literal {
            return locate_in_block(source, text, span.start, before).unwrap_or(whole);
        }
        let quote = usize::from(*style == Style::Quoted);
        let inner = source.get(span.clone()).and_then(|raw| raw.get(quote..raw.len().checked_sub(quote)?));
        match inner {
            Some(inner) if inner == text => (self.line, self.column + quote + before.chars().count()),
            _ => whole,
        }
    }
}

/// A literal block starts on the line after its header and keeps its lines.
fn locate_in_block(source: &str, text: &str, start: usize, before: &str) -> Option<(usize, usize)> {
    let first_line = source.get(..start)?.matches('\n').count();
    // The place of a block is that of its header or of its content: find the content.
    let content = text.lines().next()?;
    let lines = source.lines().enumerate().skip(first_line).take(16);
    let (index, line) = lines.into_iter().find(|(_, line)| !content.is_empty() && line.ends_with(content))?;
    let indent = line[..line.len() - content.len()].chars().count();
    let row = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or("").chars().count();
    Some((index + 1 + row, indent + column + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_place() {
        let tree = parse("a: 1\nb:\n  - x\n  - {c: 'y'}\n").expect("valid");
        let Some(Node { kind: Kind::List(items), .. }) = tree.get("b") else { panic!("a list") };
        assert_eq!((items[0].line, items[0].column), (3, 5));
        assert_eq!(items[1].get("c").and_then(Node::text), Some("y"));
    }

    #[test]
    fn nulls_and_tags_are_what_go_sees() {
        let tree = parse("[~, '', null, \"null\", !!str null, 1, 1.5, true, x, {}, []]").expect("valid");
        let Kind::List(items) = &tree.kind else { panic!("a list") };
        let seen: Vec<_> =
            items.iter().map(|item| if item.is_null() { "null" } else { item.tag() }).collect();
        assert_eq!(
            seen,
            [
                "null", "!!str", "null", "!!str", "!!str", "!!int", "!!float", "!!bool", "!!str", "!!map",
                "!!seq"
            ]
        );
        assert!(parse("").expect("valid").is_null());
    }

    #[test]
    fn a_place_in_a_text_is_a_place_in_the_file() {
        let source = "plain: sum(x\nquoted: 'sum(x'\nescaped: \"s\\u0075m(x\"\nblock: |\n    sum(\n      x\n";
        let tree = parse(source).expect("valid");
        let place = |key: &str, offset| tree.get(key).expect("there").locate(source, offset);
        assert_eq!(place("plain", 4), (1, 12));
        assert_eq!(place("quoted", 4), (2, 14));
        assert_eq!(place("escaped", 4), (3, 10));
        assert_eq!(place("block", 3), (5, 8));
        assert_eq!(place("block", 7), (6, 7));
    }
}
