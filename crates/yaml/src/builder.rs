//! From a parser's events to a tree.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::scalar::decode_binary;
use crate::{DEPTH_MAX, Entry, Kind, NODES_MAX, Node, Style, YamlError};

/// Reads the first document of `text`. An empty document is null.
pub fn parse(text: &str) -> Result<Arc<Node>, YamlError> {
    build(text, false)
}

/// The same, where a key that stands twice in a map is an error.
pub fn parse_unique(text: &str) -> Result<Arc<Node>, YamlError> {
    build(text, true)
}

fn build(text: &str, unique: bool) -> Result<Arc<Node>, YamlError> {
    let mut builder = Builder { unique, open: Vec::new(), anchors: HashMap::new(), root: None };
    for item in Parser::new_from_str(text) {
        let (event, span) = item.map_err(|error| YamlError {
            line: error.marker().line(),
            column: error.marker().col() + 1,
            message: format!("yaml: {}", error.info()),
        })?;
        if builder.event(event, &span)? {
            break;
        }
    }
    let nothing = || {
        let kind = Kind::Scalar { text: String::new(), style: Style::Plain, span: None };
        Arc::new(Node { kind, line: 1, column: 1 })
    };
    Ok(builder.root.unwrap_or_else(nothing))
}

/// A complete node and what it costs to walk.
#[derive(Clone)]
struct Complete {
    node: Arc<Node>,
    /// Nodes, aliases followed.
    nodes: usize,
    depth: usize,
}

/// A collection that is still read.
struct Open {
    line: usize,
    column: usize,
    anchor: usize,
    is_map: bool,
    /// The items of a list; keys and values in turn of a map.
    parts: Vec<Arc<Node>>,
    nodes: usize,
    depth: usize,
}

struct Builder {
    /// Whether a key may stand only once.
    unique: bool,
    open: Vec<Open>,
    /// Complete nodes that have an anchor.
    anchors: HashMap<usize, Complete>,
    root: Option<Arc<Node>>,
}

impl Builder {
    /// Takes one event; `true` when the document is complete.
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<bool, YamlError> {
        let (line, column) = (span.start.line(), span.start.col() + 1);
        let error = |message: String| YamlError { line, column, message };
        let mut start = |anchor, is_map| {
            self.open.push(Open { line, column, anchor, is_map, parts: Vec::new(), nodes: 1, depth: 1 });
        };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = scalar(text.into_owned(), style, tag.as_deref(), span).map_err(error)?;
                let node = Arc::new(Node { kind, line, column });
                self.close(Complete { node, nodes: 1, depth: 1 }, anchor).map_err(error)?;
            }
            Event::SequenceStart(_, anchor, _) => start(anchor, false),
            Event::MappingStart(_, anchor, _) => start(anchor, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser balances its events");
                let (anchor, nodes, depth) = (open.anchor, open.nodes, open.depth);
                let node = Arc::new(self.complete(open)?);
                self.close(Complete { node, nodes, depth }, anchor).map_err(error)?;
            }
            Event::Alias(anchor) => {
                // The parser refuses names that nobody gave: what is missing is still open.
                let target = self.anchors.get(&anchor).cloned();
                let target = target.ok_or_else(|| error("yaml: anchor value contains itself".to_owned()))?;
                self.close(target, 0).map_err(error)?;
            }
            Event::DocumentEnd => return Ok(true),
            _ => {}
        }
        if self.open.len() > DEPTH_MAX {
            return Err(error(format!("yaml: nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(false)
    }

    /// Puts a complete node where it belongs.
    fn close(&mut self, complete: Complete, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.anchors.insert(anchor, complete.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(complete.node);
            return Ok(());
        };
        parent.parts.push(complete.node);
        parent.nodes += complete.nodes;
        parent.depth = parent.depth.max(complete.depth + 1);
        let (nodes, depth) = (parent.nodes, parent.depth);
        if nodes > NODES_MAX {
            return Err(format!("yaml: document contains excessive aliasing or more than {NODES_MAX} nodes"));
        }
        if self.open.len() - 1 + depth > DEPTH_MAX {
            return Err(format!("yaml: nested deeper than {DEPTH_MAX} levels"));
        }
        Ok(())
    }

    fn complete(&self, open: Open) -> Result<Node, YamlError> {
        let Open { line, column, parts, .. } = open;
        if !open.is_map {
            return Ok(Node { kind: Kind::List(parts), line, column });
        }
        let mut parts = parts.into_iter();
        let mut entries = Vec::with_capacity(parts.len() / 2);
        while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
            entries.push((key, value));
        }
        if self.unique {
            refuse_duplicates(&entries)?;
        }
        Ok(Node { kind: Kind::Map(merge(entries)?), line, column })
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Result<Kind, String> {
    let bytes = span.start.byte_offset().zip(span.end.byte_offset()).map(|(start, end)| start..end);
    let style = match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
    };
    match tag.map(|tag| tag.suffix()) {
        Some("binary") => Ok(Kind::Scalar { text: decode_binary(&text)?, style: Style::Quoted, span: None }),
        Some("str") if style == Style::Plain => Ok(Kind::Scalar { text, style: Style::Quoted, span: None }),
        _ => Ok(Kind::Scalar { text, style, span: bytes }),
    }
}

fn is_merge(key: &Node) -> bool {
    matches!(&key.kind, Kind::Scalar { text, style: Style::Plain, .. } if text == "<<")
}

fn refuse_duplicates(entries: &[Entry]) -> Result<(), YamlError> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for (key, _) in entries.iter().filter(|(key, _)| !is_merge(key)) {
        let Kind::Scalar { text, .. } = &key.kind else { continue };
        if let Some(line) = seen.insert(text, key.line) {
            return Err(key.error(format!("yaml: mapping key {text:?} already defined at line {line}")));
        }
    }
    Ok(())
}

/// Resolves `<<: *base` and `<<: [*one, *two]`: entries of the merged maps stand behind the map's
/// own, which win, as earlier ones win over later ones. The merged entries were counted when
/// their aliases were read.
fn merge(entries: Vec<Entry>) -> Result<Vec<Entry>, YamlError> {
    if !entries.iter().any(|(key, _)| is_merge(key)) {
        return Ok(entries);
    }
    let (merges, mut own): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|(key, _)| is_merge(key));
    let mut names: HashSet<String> =
        own.iter().filter_map(|(key, _)| key.text().map(str::to_owned)).collect();
    for (_, value) in &merges {
        let sources = match &value.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        for source in sources {
            let Kind::Map(more) = &source.kind else {
                let message = "yaml: map merge requires map or sequence of maps as the value";
                return Err(source.error(message));
            };
            for (key, value) in more {
                if key.text().is_none_or(|name| names.insert(name.to_owned())) {
                    own.push((key.clone(), value.clone()));
                }
            }
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn merged_maps_give_way_to_the_maps_own_keys() {
        let tree = parse("base: &b {x: 1, y: 2}\nuse:\n  <<: [*b, {x: 4, z: 5}]\n  y: 3\n").expect("valid");
        let used = tree.get("use").expect("use");
        assert_eq!(
            ["x", "y", "z", "<<"].map(|key| used.get(key).and_then(Node::text)),
            [Some("1"), Some("3"), Some("5"), None]
        );
        assert_eq!(
            parse("a: {<<: x}").expect_err("no map").to_string(),
            "1:9: yaml: map merge requires map or sequence of maps as the value"
        );
    }

    #[test]
    fn a_key_may_stand_twice_only_where_it_may() {
        let text = "a: 1\n'b': 2\n\"a\": 3\n";
        assert!(parse(text).is_ok());
        assert_eq!(
            parse_unique(text).expect_err("twice").to_string(),
            "3:1: yaml: mapping key \"a\" already defined at line 1"
        );
    }

    #[test]
    fn an_alias_is_its_target_and_no_copy() {
        let tree = parse("a: &x [1, 2]\nb: *x\n").expect("valid");
        let Kind::Map(entries) = &tree.kind else { panic!("a map") };
        assert!(Arc::ptr_eq(&entries[0].1, &entries[1].1));
        let itself = parse("a: &x [*x]\n").expect_err("a cycle").to_string();
        assert_eq!(itself, "1:8: yaml: anchor value contains itself");
    }

    // Levels of aliases of aliases: wide ones multiply the nodes, narrow ones the depth.
    #[test]
    fn documents_larger_than_they_look_are_refused() {
        let nested = |levels: usize, width: usize| {
            let mut text = String::from("a0: &a0 [x]\n");
            for i in 1..levels {
                let refs = vec![format!("*a{}", i - 1); width].join(",");
                text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
            }
            parse(&text).map(drop).map_err(|error| error.message)
        };
        assert_eq!(nested(5, 10), Ok(()));
        assert_eq!(
            nested(10, 10),
            Err(format!("yaml: document contains excessive aliasing or more than {NODES_MAX} nodes"))
        );
        assert_eq!(nested(120, 1), Err(format!("yaml: nested deeper than {DEPTH_MAX} levels")));
        assert!(parse(&"[".repeat(5_000)).is_err());
        assert!(parse("a: [").is_err());
    }

    #[test]
    fn tagged_scalars_are_texts() {
        let tree = parse("a: !!binary aGk=\nb: !!str 1\n").expect("valid");
        assert_eq!(["a", "b"].map(|key| tree.get(key).and_then(Node::text)), [Some("hi"), Some("1")]);
        assert!(parse("a: !!binary '*'").is_err());
    }

    fn count(node: &Node, depth: usize) -> (usize, usize) {
        let children: Vec<&Arc<Node>> = match &node.kind {
            Kind::Scalar { .. } => Vec::new(),
            Kind::List(items) => items.iter().collect(),
            Kind::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
        };
        let below = children.into_iter().map(|child| count(child, depth + 1));
        below.fold((1, depth), |(nodes, deepest), (n, d)| (nodes + n, deepest.max(d)))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_text_gives_a_bounded_tree_or_an_error(text in r"([-:,&*\[\]{}<!'| \n]|a|b|&a |\*a |<<: |- |\n  ){0,40}") {
            if let Ok(tree) = parse(&text) {
                let (nodes, depth) = count(&tree, 1);
                prop_assert!(nodes <= NODES_MAX && depth <= DEPTH_MAX);
            }
        }
    }
}
