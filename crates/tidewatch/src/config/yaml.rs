//! YAML text to a tree in which every node knows its line and column.
//!
//! Configuration is checked against a schema of ours ([`super::schema`]) and not by `serde`,
//! because an error has to name the place of the bad scalar, in Prometheus' words, and because
//! Go's YAML resolves a scalar by the type that is wanted: `job_name: 1` is the text `1`.
//!
//! Bounds: depth, and the number of nodes after aliases are expanded, so that no document grows
//! beyond what its size justifies.

use std::collections::HashMap;

use base64::Engine;
use granit_parser::{Event, Parser, ScalarStyle};

/// Nesting that a configuration never needs.
const DEPTH_MAX: usize = 100;
/// Nodes after expansion: a file with 10,000 targets has about 20,000.
const NODES_MAX: usize = 2_000_000;

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
        /// Written without quotes, so that `null`, `true` and numbers are what they look like.
        plain: bool,
    },
    List(Vec<Node>),
    /// Keys in the order of the document, duplicates included.
    Map(Vec<(Node, Node)>),
}

/// Why a text is no YAML, with the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl Node {
    pub fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, plain } => {
                *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
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

    /// A text at the same place.
    pub fn with_text(&self, text: &str) -> Node {
        let kind = Kind::Scalar { text: text.to_owned(), plain: false };
        Node { kind, line: self.line, column: self.column }
    }

    /// What Go's decoder calls this kind of node in its messages.
    pub fn tag(&self) -> &'static str {
        match &self.kind {
            Kind::List(_) => "!!seq",
            Kind::Map(_) => "!!map",
            Kind::Scalar { text, plain } if *plain => match text.as_str() {
                "true" | "false" => "!!bool",
                _ if text.parse::<i64>().is_ok() => "!!int",
                _ if text.parse::<f64>().is_ok() => "!!float",
                _ => "!!str",
            },
            Kind::Scalar { .. } => "!!str",
        }
    }

    /// The value of `key`, where this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _)| k.text() == Some(key)).map(|(_, v)| v),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { .. } => 0,
            Kind::List(items) => items.iter().map(Node::size).sum(),
            Kind::Map(entries) => entries.iter().map(|(k, v)| k.size() + v.size()).sum(),
        }
    }
}

/// Parses the first document of `text`. An empty document is null.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let mut builder = Builder::default();
    for item in Parser::new_from_str(text) {
        let (event, span) = item.map_err(|error| YamlError {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            message: format!("yaml: {}", error.info()),
        })?;
        let place = (span.start.line(), span.start.col() + 1);
        if builder.event(event, place)? {
            break;
        }
    }
    Ok(builder.root.unwrap_or(Node {
        kind: Kind::Scalar { text: String::new(), plain: true },
        line: 1,
        column: 1,
    }))
}

/// A collection that is still open.
struct Open {
    node: Node,
    anchor: usize,
    /// In a map, the key that waits for its value.
    key: Option<Node>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    /// Takes one event; `true` when the document is complete.
    fn event(&mut self, event: Event<'_>, place: (usize, usize)) -> Result<bool, YamlError> {
        let error = |message: &str| YamlError { line: place.0, column: place.1, message: message.to_owned() };
        let node = |kind| Node { kind, line: place.0, column: place.1 };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let binary = tag.is_some_and(|tag| tag.suffix() == "binary");
                let plain = style == ScalarStyle::Plain && !binary;
                let text = if binary {
                    decode_binary(&text).map_err(|message| error(&message))?
                } else {
                    text.into_owned()
                };
                self.close(node(Kind::Scalar { text, plain }), anchor, 1, place)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.push(Open { node: node(Kind::List(Vec::new())), anchor, key: None })
            }
            Event::MappingStart(_, anchor, _) => {
                self.open.push(Open { node: node(Kind::Map(Vec::new())), anchor, key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { mut node, anchor, .. } = self.open.pop().expect("the parser balances its events");
                merge_keys(&mut node);
                self.close(node, anchor, 1, place)?;
            }
            Event::Alias(anchor) => {
                let target =
                    self.anchors.get(&anchor).cloned().ok_or_else(|| error("yaml: unknown anchor"))?;
                let size = target.size();
                self.close(target, 0, size, place)?;
            }
            Event::DocumentEnd => return Ok(true),
            _ => {}
        }
        if self.open.len() > DEPTH_MAX {
            return Err(error(&format!("yaml: nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(false)
    }

    /// Puts a complete node where it belongs.
    fn close(
        &mut self,
        node: Node,
        anchor: usize,
        size: usize,
        place: (usize, usize),
    ) -> Result<(), YamlError> {
        self.nodes += size;
        if self.nodes > NODES_MAX {
            let message = format!("yaml: document has more than {NODES_MAX} nodes");
            return Err(YamlError { line: place.0, column: place.1, message });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open { node: Node { kind: Kind::List(items), .. }, .. }) => items.push(node),
            Some(Open { node: Node { kind: Kind::Map(entries), .. }, key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(name) => entries.push((name, node)),
            },
            Some(_) => unreachable!("only collections are opened"),
        }
        Ok(())
    }
}

/// The text of a `!!binary` scalar. Only label values could be bytes, and they must be UTF-8.
fn decode_binary(text: &str) -> Result<String, String> {
    let compact: String = text.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| "yaml: !!binary value contains invalid base64 data".to_owned())?;
    String::from_utf8(bytes).map_err(|error| {
        let shown: String =
            error.as_bytes().iter().map(|b| std::ascii::escape_default(*b).to_string()).collect();
        format!("\"{shown}\" is not a valid label value")
    })
}

/// Resolves `<<: *base`: entries of the merged maps stand behind the map's own.
fn merge_keys(node: &mut Node) {
    let Kind::Map(entries) = &mut node.kind else { return };
    while let Some(index) = entries.iter().position(|(k, _)| k.text() == Some("<<")) {
        let (_, merged) = entries.remove(index);
        let sources = match merged.kind {
            Kind::List(items) => items,
            kind => vec![Node { kind, ..merged }],
        };
        for source in sources {
            let Kind::Map(more) = source.kind else { continue };
            for (key, value) in more {
                if !entries.iter().any(|(k, _)| k.text() == key.text()) {
                    entries.push((key, value));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_place() {
        let tree = parse("a: 1\nb:\n  - x\n  - {c: 'y'}\n").expect("valid");
        let item = &tree.get("b").expect("b").kind;
        let Kind::List(items) = item else { panic!("a list") };
        assert_eq!((items[0].line, items[0].column), (3, 5));
        assert_eq!(items[1].get("c").and_then(Node::text), Some("y"));
    }

    #[test]
    fn merged_maps_give_way_to_the_maps_own_keys() {
        let tree = parse("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n").expect("valid");
        let used = tree.get("use").expect("use");
        assert_eq!(used.get("x").and_then(Node::text), Some("1"));
        assert_eq!(used.get("y").and_then(Node::text), Some("3"));
    }

    #[test]
    fn alias_bombs_and_deep_nesting_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..10 {
            let refs = vec![format!("*a{}", i - 1); 10].join(",");
            bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
        }
        assert!(parse(&bomb).expect_err("a bomb").message.contains("nodes"));
        assert!(parse(&"[".repeat(5_000)).is_err());
        assert!(parse("a: [").is_err());
    }
}
