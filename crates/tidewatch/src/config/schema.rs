//! A schema as a table, and the walk that checks a document against it.
//!
//! Each section of Prometheus' and Alertmanager's configuration is an [`Object`]: its fields
//! with their types, the objects whose fields it shares, and a check that looks at the section
//! as a whole. The tables say what is valid; what the product makes of a section is read
//! afterwards through [`Section`].
//!
//! Messages are those of Prometheus where it has them, so that a search for one finds help.

use std::collections::HashSet;

use tidewatch_yaml::{Kind, Node, parse_bool, parse_float};

/// What a field may hold.
#[derive(Clone, Copy)]
pub enum Type {
    Text,
    Bool,
    Int,
    Uint,
    Float,
    /// A text that a function approves, or refuses with a reason.
    Checked(fn(&str) -> Result<(), String>),
    List(&'static Type),
    /// A list in which an empty item is an error with this text.
    Items(&'static Type, &'static str),
    /// A map from any key.
    Map(&'static Type),
    Object(&'static Object),
    /// A map is a section, anything else the simpler type.
    Or(&'static Type, &'static Object),
    Any,
}

/// A section.
pub struct Object {
    /// Its name in messages: `config.plain`, `config.ScrapeConfig`.
    pub name: &'static str,
    pub fields: &'static [(&'static str, Type)],
    /// Objects whose fields stand directly in this one.
    pub inline: &'static [&'static Object],
    /// Looks at a section whose fields have the right types.
    pub check: fn(&Section<'_>, &mut Vec<Problem>),
}

/// Nothing more to check.
pub fn no_check(_: &Section<'_>, _: &mut Vec<Problem>) {}

/// One thing wrong, with its place in the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

impl Problem {
    pub fn at(node: &Node, message: impl Into<String>) -> Problem {
        Problem { line: node.line, column: node.column, message: message.into() }
    }
}

/// Checks `node` against `object` and says all that is wrong.
pub fn check(node: &Node, object: &'static Object) -> Vec<Problem> {
    let mut problems = Vec::new();
    walk(node, Type::Object(object), &mut problems);
    problems
}

fn walk(node: &Node, wanted: Type, problems: &mut Vec<Problem>) {
    match wanted {
        Type::Any => {}
        Type::Object(object) => walk_object(node, object, problems),
        Type::Or(_, object) if matches!(node.kind, Kind::Map(_)) => walk_object(node, object, problems),
        Type::Or(simple, _) => walk(node, *simple, problems),
        // Null leaves the default, whatever the type.
        _ if node.is_null() => {}
        Type::List(item) => walk_list(node, *item, None, problems),
        Type::Items(item, empty) => walk_list(node, *item, Some(empty), problems),
        Type::Map(value) => match &node.kind {
            Kind::Map(entries) => {
                for (_, entry) in entries {
                    walk(entry, *value, problems);
                }
            }
            _ => problems.push(mismatch(node, "map[string]string")),
        },
        Type::Text => drop(scalar(node, "string", problems)),
        Type::Checked(approve) => {
            if let Some(text) = scalar(node, "string", problems)
                && let Err(reason) = approve(text)
            {
                problems.push(Problem::at(node, reason));
            }
        }
        Type::Bool => expect(node, "bool", problems, |text| parse_bool(text).is_some()),
        Type::Int => expect(node, "int", problems, |text| text.parse::<i64>().is_ok()),
        Type::Uint => expect(node, "uint64", problems, |text| text.parse::<u64>().is_ok()),
        Type::Float => expect(node, "float64", problems, |text| parse_float(text).is_some()),
    }
}

fn scalar<'a>(node: &'a Node, wanted: &str, problems: &mut Vec<Problem>) -> Option<&'a str> {
    let text = node.text();
    if text.is_none() {
        problems.push(mismatch(node, wanted));
    }
    text
}

fn expect(node: &Node, wanted: &str, problems: &mut Vec<Problem>, fits: impl Fn(&str) -> bool) {
    if let Some(text) = scalar(node, wanted, problems)
        && !fits(text)
    {
        problems.push(mismatch(node, wanted));
    }
}

fn mismatch(node: &Node, wanted: &str) -> Problem {
    let shown = node
        .text()
        .map(|text| format!(" `{}`", text.chars().take(20).collect::<String>()))
        .unwrap_or_default();
    Problem::at(node, format!("unmarshal errors: cannot unmarshal {}{shown} into {wanted}", node.tag()))
}

fn walk_list(node: &Node, item: Type, empty: Option<&str>, problems: &mut Vec<Problem>) {
    let Kind::List(items) = &node.kind else {
        problems.push(mismatch(node, "[]string"));
        return;
    };
    for entry in items {
        match empty {
            Some(message) if entry.is_null() => problems.push(Problem::at(entry, message)),
            _ => walk(entry, item, problems),
        }
    }
}

fn walk_object(node: &Node, object: &'static Object, problems: &mut Vec<Problem>) {
    let before = problems.len();
    match &node.kind {
        Kind::Map(entries) => {
            let mut seen = HashSet::new();
            for (key, value) in entries {
                let name = key.text().unwrap_or_default();
                if !seen.insert(name) {
                    let message =
                        format!("unmarshal errors: field {name} already set in type {}", object.name);
                    problems.push(Problem::at(key, message));
                }
                match object.field(name) {
                    Some(wanted) => walk(value, wanted, problems),
                    None => problems.push(Problem::at(key, unknown(name, object))),
                }
            }
        }
        _ if node.is_null() => {}
        _ => problems.push(mismatch(node, object.name)),
    }
    if problems.len() == before {
        let section = Section { node };
        object.check_parts(&section, problems);
    }
}

/// A field that nobody knows, with the one that was probably meant.
fn unknown(name: &str, object: &Object) -> String {
    let hint = match object.closest(name) {
        Some(known) => format!("; did you mean {known}?"),
        None => String::new(),
    };
    format!("unmarshal errors: field {name} not found in type {}{hint}", object.name)
}

impl Object {
    /// The known field that differs from `name` least: by two edits at most, and by fewer than a
    /// third of its letters.
    fn closest(&self, name: &str) -> Option<&'static str> {
        let own = self.fields.iter().map(|(field, _)| (edits(name, field), *field));
        let inner = self.inline.iter().filter_map(|part| part.closest(name)).map(|f| (edits(name, f), f));
        let (count, field) = own.chain(inner).min()?;
        (count <= 2 && 3 * count < field.len()).then_some(field)
    }

    fn check_parts(&self, section: &Section<'_>, problems: &mut Vec<Problem>) {
        for part in self.inline {
            part.check_parts(section, problems);
        }
        (self.check)(section, problems);
    }

    fn field(&self, name: &str) -> Option<Type> {
        let own = self.fields.iter().find(|(field, _)| *field == name).map(|(_, wanted)| *wanted);
        own.or_else(|| self.inline.iter().find_map(|part| part.field(name)))
    }
}

/// How many letters must be put in, taken out or changed to make `one` of `other`.
fn edits(one: &str, other: &str) -> usize {
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

/// A section that was checked: typed access to its fields. A field that is absent or null reads
/// as nothing.
#[derive(Clone, Copy)]
pub struct Section<'a> {
    pub node: &'a Node,
}

impl<'a> Section<'a> {
    pub fn field(&self, name: &str) -> Option<&'a Node> {
        self.node.get(name).filter(|node| !node.is_null())
    }

    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.field(name)?.text()
    }

    /// The text, or `""`.
    pub fn string(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    /// Whether a text is there and not empty.
    pub fn filled(&self, name: &str) -> bool {
        match self.field(name).map(|node| &node.kind) {
            Some(Kind::Scalar { text, .. }) => !text.is_empty(),
            Some(Kind::List(items)) => !items.is_empty(),
            Some(Kind::Map(_)) => true,
            None => false,
        }
    }

    pub fn bool(&self, name: &str, default: bool) -> bool {
        self.text(name).and_then(parse_bool).unwrap_or(default)
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// A number that counts only when it is not zero: zero means the default.
    pub fn positive(&self, name: &str) -> Option<u64> {
        self.number(name).filter(|number| *number > 0)
    }

    pub fn duration_ms(&self, name: &str) -> Option<i64> {
        tidewatch_model::parse_duration_ms(self.text(name)?).ok()
    }

    pub fn section(&self, name: &str) -> Option<Section<'a>> {
        self.field(name).map(|node| Section { node })
    }

    /// The items of a list; one text counts as a list of one.
    pub fn items(&self, name: &str) -> Vec<Section<'a>> {
        match self.field(name) {
            Some(Node { kind: Kind::List(items), .. }) => items.iter().map(|node| Section { node }).collect(),
            Some(node) if node.text().is_some() => vec![Section { node }],
            _ => Vec::new(),
        }
    }

    pub fn strings(&self, name: &str) -> Vec<String> {
        self.items(name).iter().map(|item| item.node.text().unwrap_or_default().to_owned()).collect()
    }

    /// Keys and values of a map of texts, in the order of the document.
    pub fn pairs(&self, name: &str) -> Vec<(&'a str, &'a str)> {
        match self.field(name).map(|node| &node.kind) {
            Some(Kind::Map(entries)) => entries
                .iter()
                .map(|(key, value)| (key.text().unwrap_or_default(), value.text().unwrap_or_default()))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// A problem with this field, or with the section where the field is absent.
    pub fn problem(&self, name: &str, message: impl Into<String>) -> Problem {
        Problem::at(self.node.get(name).unwrap_or(self.node), message)
    }

    /// How many of these fields are filled.
    pub fn count_filled(&self, names: &[&str]) -> usize {
        names.iter().filter(|name| self.filled(name)).count()
    }
}
