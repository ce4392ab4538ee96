//! Typed fields out of a YAML tree, with every mistake gathered on the way.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tidewatch_yaml::{Kind, Node, YamlError};

/// Reads fields and remembers what is wrong with them. A field that is wrong reads as its
/// default, so that one reading finds every mistake.
pub(crate) struct Reader {
    ignore_unknown: bool,
    errors: RefCell<Vec<YamlError>>,
}

/// The fields of a mapping by name.
pub(crate) type Fields<'d> = BTreeMap<&'d str, &'d Node>;

impl Reader {
    pub(crate) fn new(ignore_unknown: bool) -> Reader {
        Reader { ignore_unknown, errors: RefCell::default() }
    }

    pub(crate) fn finish(self) -> Vec<YamlError> {
        self.errors.into_inner()
    }

    pub(crate) fn error(&self, node: &Node, message: impl Into<String>) {
        self.errors.borrow_mut().push(node.error(message));
    }

    /// The fields of a mapping. A name that `known` lacks is a mistake, unless unknown ones are to
    /// be ignored; `what` says what has no such field.
    pub(crate) fn fields<'d>(&self, node: &'d Node, what: &str, known: &[&str]) -> Fields<'d> {
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
    pub(crate) fn texts(&self, node: Option<&Node>) -> BTreeMap<String, String> {
        let Some(node) = node else { return BTreeMap::new() };
        let entries = self.entries(node, "map[string]string");
        entries.into_iter().map(|(name, (_, value))| (name.to_owned(), self.text(value))).collect()
    }

    pub(crate) fn items<'d>(&self, node: Option<&'d Node>) -> Vec<&'d Node> {
        let Some(node) = node.filter(|node| !node.is_null()) else { return Vec::new() };
        match &node.kind {
            Kind::List(items) => items.iter().map(|item| &**item).collect(),
            _ => {
                self.error(node, format!("cannot unmarshal {} into a list", node.tag()));
                Vec::new()
            }
        }
    }

    /// A scalar as written; a null is the empty text.
    pub(crate) fn text(&self, node: &Node) -> String {
        match &node.kind {
            _ if node.is_null() => String::new(),
            Kind::Scalar { text, .. } => text.clone(),
            _ => {
                self.error(node, format!("cannot unmarshal {} into string", node.tag()));
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

    /// A mapping's entries by name, each with its key.
    fn entries<'d>(&self, node: &'d Node, what: &str) -> BTreeMap<&'d str, (&'d Node, &'d Node)> {
        let mut entries = BTreeMap::new();
        match &node.kind {
            _ if node.is_null() => {}
            Kind::Map(all) => {
                for (key, value) in all {
                    match &key.kind {
                        Kind::Scalar { text, .. } => drop(entries.insert(text.as_str(), (&**key, &**value))),
                        _ => self.error(key, format!("cannot unmarshal {} into string", key.tag())),
                    }
                }
            }
            _ => self.error(node, format!("cannot unmarshal {} into {what}", node.tag())),
        }
        entries
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

pub(crate) fn parse_float(text: &str) -> Result<f64, String> {
    tidewatch_yaml::parse_float(text).ok_or_else(|| format!("cannot unmarshal !!str `{text}` into float64"))
}

pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    tidewatch_yaml::parse_bool(text).ok_or_else(|| format!("cannot unmarshal !!str `{text}` into bool"))
}
