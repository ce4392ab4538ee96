//! Rule files: text to checked definitions, or to everything that is wrong with them.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use tidewatch_model::{METRIC_NAME, is_valid_label_name, is_valid_legacy_name, quote};
use tidewatch_parser::{ParserOptions, parse_expr};
use tidewatch_yaml::{Node, YamlError, parse_unique};

use crate::definition::{AlertingFields, Query, Rule, RuleFile, RuleGroup, RuleKind};
use crate::reader::{Fields, Reader};
use crate::template::Template;

/// How strictly a rule file is read.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Fields that Prometheus does not know are passed over and not refused.
    pub ignore_unknown_fields: bool,
    /// Names may have only letters, digits, underscores and colons, as before Prometheus 3.
    pub legacy_names: bool,
    /// The language of expressions.
    pub parser: ParserOptions,
}

/// What is wrong with a rule file, in Prometheus' words. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFileError {
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// Present where a rule is to blame.
    pub rule: Option<RulePlace>,
    pub message: String,
}

/// A rule as a message names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RulePlace {
    pub group: String,
    /// Counted from 1.
    pub number: usize,
    pub name: String,
}

impl fmt::Display for RuleFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}:{}: ", self.file, self.line, self.column)?;
        if let Some(RulePlace { group, number, name }) = &self.rule {
            write!(f, "group {}, rule {number}, {}: ", quote(group), quote(name))?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for RuleFileError {}

impl RuleFile {
    /// Reads and checks a rule file; `name` is its path. Every mistake is reported.
    pub fn parse(text: &str, name: &str, options: &LoadOptions) -> Result<RuleFile, Vec<RuleFileError>> {
        let place = |error: YamlError| RuleFileError {
            file: name.to_owned(),
            line: error.line,
            column: error.column,
            rule: None,
            message: error.message,
        };
        let root = parse_unique(text).map_err(|error| vec![place(error)])?;
        let reader = Reader::new(options.ignore_unknown_fields);
        let mut loader = Loader { file: name, text, reader: &reader, options, errors: Vec::new() };
        let groups = loader.groups(&root);
        let mut errors = loader.errors;
        errors.extend(reader.finish().into_iter().map(place));
        errors.sort_by_key(|error| (error.line, error.column));
        if errors.is_empty() { Ok(RuleFile { name: name.to_owned(), groups }) } else { Err(errors) }
    }
}

struct Loader<'d> {
    file: &'d str,
    text: &'d str,
    reader: &'d Reader,
    options: &'d LoadOptions,
    errors: Vec<RuleFileError>,
}

/// A rule being read: its fields and what messages call it.
struct RuleNode<'d> {
    node: &'d Node,
    fields: Fields<'d>,
    place: RulePlace,
}

impl RuleNode<'_> {
    /// The place of a field, or of the rule where it has none.
    fn at(&self, field: &str) -> &Node {
        self.fields.get(field).copied().unwrap_or(self.node)
    }
}

impl<'d> Loader<'d> {
    fn groups(&mut self, root: &'d Node) -> Vec<RuleGroup> {
        let fields = self.reader.fields(root, "a rule file", &["groups"]);
        let mut names = HashSet::new();
        let mut groups = Vec::new();
        for node in self.reader.items(fields.get("groups").copied()) {
            let group = self.group(node);
            if group.name.is_empty() {
                self.reader.error(node, "Groupname must not be empty");
            }
            if !names.insert(group.name.clone()) {
                let message = format!("groupname: \"{}\" is repeated in the same file", group.name);
                self.reader.error(node, message);
            }
            groups.push(group);
        }
        groups
    }

    fn group(&mut self, node: &'d Node) -> RuleGroup {
        const KNOWN: [&str; 6] = ["name", "interval", "query_offset", "limit", "labels", "rules"];
        let reader = self.reader;
        let fields = reader.fields(node, "a group", &KNOWN);
        let field = |name: &str| fields.get(name).copied();
        let name = reader.optional_text(field("name"));
        let labels = reader.texts(field("labels"));
        for message in label_mistakes(&labels, self.options) {
            reader.error(field("labels").unwrap_or(node), message);
        }
        let mut rules = Vec::new();
        for (index, node) in reader.items(field("rules")).into_iter().enumerate() {
            rules.extend(self.rule(node, &name, index + 1, &labels));
        }
        let limit = reader.value(field("limit"), |text| {
            text.parse::<i64>().map_err(|_| format!("cannot unmarshal !!str `{text}` into int"))
        });
        RuleGroup {
            name,
            interval_ms: reader.duration_ms(field("interval")).filter(|interval| *interval > 0),
            query_offset_ms: reader.duration_ms(field("query_offset")),
            limit: limit.map_or(0, |limit| usize::try_from(limit).unwrap_or(0)),
            rules,
        }
    }

    fn rule(
        &mut self,
        node: &'d Node,
        group: &str,
        number: usize,
        group_labels: &BTreeMap<String, String>,
    ) -> Option<Rule> {
        const KNOWN: [&str; 7] =
            ["record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"];
        let reader = self.reader;
        let fields = reader.fields(node, "a rule", &KNOWN);
        let text = |name: &str| reader.optional_text(fields.get(name).copied());
        let (record, alert) = (text("record"), text("alert"));
        let name = if alert.is_empty() { record.clone() } else { alert.clone() };
        let place = RulePlace { group: group.to_owned(), number, name };
        let rule = RuleNode { node, fields, place };
        if !record.is_empty() && !alert.is_empty() {
            self.refuse(&rule, "record", "only one of 'record' and 'alert' must be set");
        }
        if record.is_empty() && alert.is_empty() {
            self.refuse(&rule, "expr", "one of 'record' or 'alert' must be set");
        }
        let query = self.query(&rule);
        let own_labels = reader.texts(rule.fields.get("labels").copied());
        for message in label_mistakes(&own_labels, self.options) {
            self.refuse(&rule, "labels", &message);
        }
        let kind = if record.is_empty() {
            self.alerting(&rule, alert, &own_labels)
        } else {
            self.recording(&rule, record)
        };
        let mut labels = group_labels.clone();
        labels.extend(own_labels);
        Some(Rule { kind, query: query?, labels, line: node.line as u64 })
    }

    fn query(&mut self, rule: &RuleNode<'d>) -> Option<Query> {
        let node = rule.fields.get("expr").copied();
        let text = self.reader.optional_text(node);
        let Some(node) = node.filter(|_| !text.is_empty()) else {
            self.refuse(rule, "expr", "field 'expr' must be set in rule");
            return None;
        };
        match parse_expr(&text, &self.options.parser) {
            Ok(expr) => Some(Query { text: expr.to_string(), expr: Arc::new(expr) }),
            Err(error) => {
                let (line, column) = node.locate(self.text, error.first().pos.start);
                self.refuse_at(rule, line, column, format!("could not parse expression: {error}"));
                None
            }
        }
    }

    fn recording(&mut self, rule: &RuleNode<'d>, record: String) -> RuleKind {
        for field in ["annotations", "for", "keep_firing_for"] {
            let node = rule.fields.get(field).copied();
            let set = match field {
                "annotations" => !self.reader.texts(node).is_empty(),
                _ => self.reader.duration_ms(node).is_some_and(|duration| duration != 0),
            };
            if set {
                self.refuse(rule, field, &format!("invalid field '{field}' in recording rule"));
            }
        }
        let legacy = |name: &str| {
            name.split(':').all(|part| part.is_empty() || is_valid_legacy_name(&format!("_{part}")))
        };
        let digit_first = record.starts_with(|c: char| c.is_ascii_digit());
        if self.options.legacy_names && (digit_first || !legacy(&record)) {
            self.refuse(rule, "record", &format!("invalid recording rule name: {record}"));
        }
        // Valid as a UTF-8 name, and yet always a selector in the wrong place.
        if record.contains(['{', '}']) {
            let message =
                format!("braces present in the recording rule name; should it be in expr?: {record}");
            self.refuse(rule, "record", &message);
        }
        RuleKind::Recording { record }
    }

    fn alerting(
        &mut self,
        rule: &RuleNode<'d>,
        alert: String,
        labels: &BTreeMap<String, String>,
    ) -> RuleKind {
        let duration = |field: &str| self.reader.duration_ms(rule.fields.get(field).copied()).unwrap_or(0);
        let (for_ms, keep_firing_for_ms) = (duration("for"), duration("keep_firing_for"));
        let annotations = self.reader.texts(rule.fields.get("annotations").copied());
        for name in annotations.keys().filter(|name| !is_label_name(name, self.options)) {
            self.refuse(rule, "annotations", &format!("invalid annotation name: {name}"));
        }
        for (field, what, texts) in [("labels", "label", labels), ("annotations", "annotation", &annotations)]
        {
            for (name, text) in texts {
                if let Err(message) = alert_template(&alert, text) {
                    let message = format!("{what} {}: {message}", quote(name));
                    self.refuse(rule, field, &message);
                }
            }
        }
        RuleKind::Alerting(AlertingFields { alert, for_ms, keep_firing_for_ms, annotations })
    }

    fn refuse(&mut self, rule: &RuleNode<'_>, field: &str, message: &str) {
        let node = rule.at(field);
        self.refuse_at(rule, node.line, node.column, message.to_owned());
    }

    fn refuse_at(&mut self, rule: &RuleNode<'_>, line: usize, column: usize, message: String) {
        let rule = Some(rule.place.clone());
        self.errors.push(RuleFileError { file: self.file.to_owned(), line, column, rule, message });
    }
}

/// The template of an alert's text, with the variables that every one may use.
pub(crate) fn alert_template(alert: &str, text: &str) -> Result<Template, String> {
    const VARIABLES: &str = "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}\
        {{$externalURL := .ExternalURL}}{{$value := .Value}}";
    let name = format!("__alert_{alert}");
    if !text.contains("{{") {
        return Template::parse(&name, text, false);
    }
    Template::parse(&name, &format!("{VARIABLES}{text}"), false)
}

fn is_label_name(name: &str, options: &LoadOptions) -> bool {
    if options.legacy_names { is_valid_legacy_name(name) } else { is_valid_label_name(name) }
}

fn label_mistakes(labels: &BTreeMap<String, String>, options: &LoadOptions) -> Vec<String> {
    let bad = |name: &&String| *name == METRIC_NAME || !is_label_name(name, options);
    labels.keys().filter(bad).map(|name| format!("invalid label name: {name}")).collect()
}
