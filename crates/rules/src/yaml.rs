//! YAML as a tree with places, for files whose every mistake is to be shown with line and column.
//!
//! ```text
//! text ─► events ─► [Document] ─► [Reader] ─► fields, with errors gathered on the way
//! ```
//!
//! Invariants: an alias is the index of its target, never a copy, and a target is complete before
//! it can be named, so that a tree has no cycle; a reader visits at most [`VISITS_MAX`] nodes, so
//! that aliases of aliases cost no more than they are worth. Only the first document of a stream
//! is read, as Prometheus does.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// Nodes that one reading may visit; a file of 10,000 rules has about 200,000.
const VISITS_MAX: usize = 1_000_000;

/// A mistake and its place; lines and columns start at 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) message: String,
}

/// The first document of a stream.
#[derive(Debug)]
pub(crate) struct Document<'t> {
    source: &'t str,
    nodes: Vec<Node>,
    root: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) column: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar {
        text: String,
        style: ScalarStyle,
        bytes: Option<(usize, usize)>,
    },
    Sequence(Vec<usize>),
    /// Keys and values in turn while the mapping is being read; an even count afterwards.
    Mapping(Vec<usize>),
}

impl<'t> Document<'t> {
    pub(crate) fn parse(source: &'t str) -> Result<Document<'t>, YamlError> {
        let mut document = Document { source, nodes: Vec::new(), root: None };
        let mut open: Vec<usize> = Vec::new();
        let mut anchors: HashMap<usize, usize> = HashMap::new();
        for next in Parser::new_from_str(source) {
            let (event, span) = next.map_err(|error| YamlError {
                line: error.marker().line(),
                column: error.marker().col() + 1,
                message: format!("yaml: {}", error.info()),
            })?;
            match event {
                Event::Scalar(text, style, anchor, _) => {
                    let bytes = span.start.byte_offset().zip(span.end.byte_offset());
                    let content = Content::Scalar { text: text.into_owned(), style, bytes };
                    let node = document.push(&open, &span, content);
                    anchors.insert(anchor, node);
                }
                Event::SequenceStart(_, anchor, _) => {
                    let node = document.push(&open, &span, Content::Sequence(Vec::new()));
                    anchors.insert(anchor, node);
                    open.push(node);
                }
                Event::MappingStart(_, anchor, _) => {
                    let node = document.push(&open, &span, Content::Mapping(Vec::new()));
                    anchors.insert(anchor, node);
                    open.push(node);
                }
                Event::SequenceEnd | Event::MappingEnd => drop(open.pop()),
                Event::Alias(anchor) => {
                    let target = anchors.get(&anchor).copied().filter(|target| !open.contains(target));
                    let target = target.ok_or_else(|| YamlError {
                        line: span.start.line(),
                        column: span.start.col() + 1,
                        message: "yaml: anchor value contains itself".to_owned(),
                    })?;
                    document.attach(&open, target);
                }
                Event::DocumentEnd => break,
                _ => {}
            }
        }
        document.refuse_duplicates()?;
        Ok(document)
    }

    pub(crate) fn root(&self) -> Option<&Node> {
        self.root.map(|root| &self.nodes[root])
    }

    fn push(&mut self, open: &[usize], span: &Span, content: Content) -> usize {
        let index = self.nodes.len();
        self.nodes.push(Node { line: span.start.line(), column: span.start.col() + 1, content });
        self.attach(open, index);
        index
    }

    /// Makes `child` the next part of the innermost open collection.
    fn attach(&mut self, open: &[usize], child: usize) {
        match open.last().map(|parent| &mut self.nodes[*parent].content) {
            Some(Content::Sequence(items) | Content::Mapping(items)) => items.push(child),
            _ => self.root = Some(child),
        }
    }

    fn refuse_duplicates(&self) -> Result<(), YamlError> {
        for node in &self.nodes {
            let Content::Mapping(parts) = &node.content else { continue };
            let mut seen: HashMap<&str, usize> = HashMap::new();
            for pair in parts.chunks_exact(2) {
                let key = &self.nodes[pair[0]];
                let Content::Scalar { text, .. } = &key.content else { continue };
                if text == "<<" {
                    continue;
                }
                if let Some(line) = seen.insert(text, key.line) {
                    let message = format!("yaml: mapping key {text:?} already defined at line {line}");
                    return Err(YamlError { line: key.line, column: key.column, message });
                }
            }
        }
        Ok(())
    }

    /// The line and column of byte `offset` of a scalar's text, where the file shows the text as
    /// it is; the place of the scalar itself where folding or escapes come between.
    pub(crate) fn locate(&self, node: &Node, offset: usize) -> (usize, usize) {
        let whole = (node.line, node.column);
        let Content::Scalar { text, style, bytes } = &node.content else { return whole };
        let Some(before) = text.get(..offset.min(text.len())) else { return whole };
        if *style == ScalarStyle::Literal {
            return self.locate_in_block(node, before).unwrap_or(whole);
        }
        let Some(raw) = bytes.and_then(|(start, end)| self.source.get(start..end)) else { return whole };
        let quote = usize::from(*style != ScalarStyle::Plain);
        match raw.get(quote..raw.len() - quote) {
            Some(inner) if inner == text => (node.line, node.column + quote + before.chars().count()),
            _ => whole,
        }
    }

    /// A literal block starts on the line after its header and keeps its lines.
    fn locate_in_block(&self, node: &Node, before: &str) -> Option<(usize, usize)> {
        let Content::Scalar { text, bytes, .. } = &node.content else { return None };
        let (header, _) = (*bytes)?;
        let first_line = 1 + self.source.get(..header)?.matches('\n').count();
        // The place of a block is that of its header or of its content: find the content.
        let content = text.lines().next()?;
        let (index, line) = self
            .source
            .lines()
            .enumerate()
            .skip(first_line - 1)
            .take(16)
            .find(|(_, line)| !content.is_empty() && line.ends_with(content))?;
        let indent = line.len() - content.len();
        let row = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or("").chars().count();
        Some((index + 1 + row, indent + column + 1))
    }
}

impl Node {
    /// Whether nothing was written, or `null`.
    pub(crate) fn is_null(&self) -> bool {
        match &self.content {
            Content::Scalar { text, style: ScalarStyle::Plain, .. } => {
                matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    fn kind(&self) -> &'static str {
        match self.content {
            Content::Scalar { .. } => "!!str",
            Content::Sequence(_) => "!!seq",
            Content::Mapping(_) => "!!map",
        }
    }
}

/// Reads typed fields from a document and gathers what is wrong with them. A field that is wrong
/// reads as its default, so that one reading finds every mistake.
pub(crate) struct Reader<'d> {
    document: &'d Document<'d>,
    ignore_unknown: bool,
    visits: Cell<usize>,
    errors: RefCell<Vec<YamlError>>,
}

/// The fields of a mapping by name.
pub(crate) type Fields<'d> = BTreeMap<&'d str, &'d Node>;

impl<'d> Reader<'d> {
    pub(crate) fn new(document: &'d Document<'d>, ignore_unknown: bool) -> Reader<'d> {
        Reader { document, ignore_unknown, visits: Cell::new(0), errors: RefCell::default() }
    }

    pub(crate) fn finish(self) -> Vec<YamlError> {
        self.errors.into_inner()
    }

    pub(crate) fn error(&self, node: &Node, message: impl Into<String>) {
        let (line, column) = (node.line, node.column);
        self.errors.borrow_mut().push(YamlError { line, column, message: message.into() });
    }

    /// The fields of a mapping, those that `<<` merges among them. A name that `known` lacks is a
    /// mistake, unless unknown ones are to be ignored; `what` says what has no such field.
    pub(crate) fn fields(&self, node: &'d Node, what: &str, known: &[&str]) -> Fields<'d> {
        let fields = self.entries(node, what);
        if !self.ignore_unknown {
            for (name, (key, _)) in fields.iter().filter(|(name, _)| !known.contains(name)) {
                let hint = closest(name, known).map(|k| format!(" (did you mean {k}?)")).unwrap_or_default();
                self.error(key, format!("field {name} not found in {what}{hint}"));
            }
        }
        fields.into_iter().map(|(name, (_, value))| (name, value)).collect()
    }

    /// A mapping of texts to texts.
    pub(crate) fn texts(&self, node: Option<&'d Node>) -> BTreeMap<String, String> {
        let Some(node) = node else { return BTreeMap::new() };
        let entries = self.entries(node, "map[string]string");
        entries.into_iter().map(|(name, (_, value))| (name.to_owned(), self.text(value))).collect()
    }

    pub(crate) fn items(&self, node: Option<&'d Node>) -> Vec<&'d Node> {
        let Some(node) = node.filter(|node| !node.is_null()) else { return Vec::new() };
        match &node.content {
            Content::Sequence(items) if self.visit(node, items.len()) => {
                items.iter().map(|item| &self.document.nodes[*item]).collect()
            }
            Content::Sequence(_) => Vec::new(),
            _ => {
                self.error(node, format!("cannot unmarshal {} into a list", node.kind()));
                Vec::new()
            }
        }
    }

    /// A scalar as written; a null is the empty text.
    pub(crate) fn text(&self, node: &Node) -> String {
        match &node.content {
            _ if node.is_null() || !self.visit(node, 1) => String::new(),
            Content::Scalar { text, .. } => text.clone(),
            _ => {
                self.error(node, format!("cannot unmarshal {} into string", node.kind()));
                String::new()
            }
        }
    }

    pub(crate) fn optional_text(&self, node: Option<&Node>) -> String {
        node.map(|node| self.text(node)).unwrap_or_default()
    }

    /// A value that `read` makes of the scalar's text; absent when it is null or wrong.
    pub(crate) fn value<T>(
        &self,
        node: Option<&Node>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let node = node.filter(|node| !node.is_null())?;
        match read(&self.text(node)) {
            Ok(value) => Some(value),
            Err(message) => {
                self.error(node, message);
                None
            }
        }
    }

    pub(crate) fn duration_ms(&self, node: Option<&Node>) -> Option<i64> {
        self.value(node, |text| tidewatch_model::parse_duration_ms(text).map_err(|error| error.message))
    }

    /// Counts a visit of `count` nodes; false when the reading has visited too many.
    fn visit(&self, node: &Node, count: usize) -> bool {
        let visits = self.visits.get();
        self.visits.set(visits.saturating_add(count));
        if visits < VISITS_MAX && visits + count >= VISITS_MAX {
            self.error(node, "yaml: document contains excessive aliasing");
        }
        visits + count < VISITS_MAX
    }

    fn entries(&self, node: &'d Node, what: &str) -> BTreeMap<&'d str, (&'d Node, &'d Node)> {
        let mut entries = BTreeMap::new();
        self.merge_into(&mut entries, node, what, 0);
        entries
    }

    /// Adds the entries of `node` that are not there yet: its own first, then those it merges.
    fn merge_into(
        &self,
        entries: &mut BTreeMap<&'d str, (&'d Node, &'d Node)>,
        node: &'d Node,
        what: &str,
        depth: usize,
    ) {
        const MERGE_DEPTH_MAX: usize = 16;
        if node.is_null() {
            return;
        }
        let Content::Mapping(parts) = &node.content else {
            self.error(node, format!("cannot unmarshal {} into {what}", node.kind()));
            return;
        };
        if depth == MERGE_DEPTH_MAX || !self.visit(node, parts.len()) {
            return;
        }
        let nodes = &self.document.nodes;
        let mut merged = Vec::new();
        for pair in parts.chunks_exact(2) {
            let (key, value) = (&nodes[pair[0]], &nodes[pair[1]]);
            match &key.content {
                Content::Scalar { text, style: ScalarStyle::Plain, .. } if text == "<<" => merged.push(value),
                Content::Scalar { text, .. } => drop(entries.entry(text).or_insert((key, value))),
                _ => self.error(key, format!("cannot unmarshal {} into string", key.kind())),
            }
        }
        for value in merged {
            match &value.content {
                Content::Sequence(items) => {
                    items.iter().for_each(|i| self.merge_into(entries, &nodes[*i], what, depth + 1));
                }
                _ => self.merge_into(entries, value, what, depth + 1),
            }
        }
    }
}

/// The known name that `name` most likely stands for.
fn closest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let fold = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    let folded = fold(name);
    known.iter().copied().find(|candidate| {
        let candidate = fold(candidate);
        candidate == folded
            || candidate.strip_suffix('s') == Some(&folded)
            || folded.strip_suffix('s') == Some(&candidate)
    })
}

/// The text of a float as YAML and Go write them.
pub(crate) fn parse_float(text: &str) -> Result<f64, String> {
    let text: Cow<'_, str> = match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => "inf".into(),
        "-.inf" | "-.Inf" | "-.INF" => "-inf".into(),
        ".nan" | ".NaN" | ".NAN" => "nan".into(),
        _ => text.replace('_', "").into(),
    };
    text.parse().map_err(|_| format!("cannot unmarshal !!str `{text}` into float64"))
}

pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" | "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(true),
        "false" | "False" | "FALSE" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(false),
        _ => Err(format!("cannot unmarshal !!str `{text}` into bool")),
    }
}
