//! Relabelling: rules that rewrite, keep or drop label sets. Semantics are Prometheus'
//! (`relabel_configs`, `metric_relabel_configs`, `alert_relabel_configs`, `write_relabel_configs`).

mod template;

use md5::{Digest, Md5};
use std::fmt;

use crate::regex::GoRegex;
use crate::{LabelsBuilder, is_valid_label_name, is_valid_legacy_name, quote};

pub use template::expand_template;
use template::is_legacy_target;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelabelAction {
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

impl RelabelAction {
    /// The action of that name, in any case.
    pub fn from_name(name: &str) -> Result<RelabelAction, RelabelError> {
        use RelabelAction::*;
        let all = [
            Replace, Keep, Drop, KeepEqual, DropEqual, HashMod, LabelMap, LabelDrop, LabelKeep, Lowercase,
            Uppercase,
        ];
        if name.is_empty() {
            return Err(refused("relabel action cannot be empty".to_owned()));
        }
        all.into_iter()
            .find(|action| action.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| refused(format!("unknown relabel action {}", quote(name))))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            RelabelAction::Replace => "replace",
            RelabelAction::Keep => "keep",
            RelabelAction::Drop => "drop",
            RelabelAction::KeepEqual => "keepequal",
            RelabelAction::DropEqual => "dropequal",
            RelabelAction::HashMod => "hashmod",
            RelabelAction::LabelMap => "labelmap",
            RelabelAction::LabelDrop => "labeldrop",
            RelabelAction::LabelKeep => "labelkeep",
            RelabelAction::Lowercase => "lowercase",
            RelabelAction::Uppercase => "uppercase",
        }
    }
}

/// Which texts are label names: Prometheus' `metric_name_validation_scheme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameValidation {
    #[default]
    Utf8,
    Legacy,
}

impl NameValidation {
    pub fn is_label_name(self, name: &str) -> bool {
        match self {
            NameValidation::Utf8 => is_valid_label_name(name),
            NameValidation::Legacy => is_valid_legacy_name(name),
        }
    }

    /// Whether `name`, which may refer to groups of an expression, can become a label name.
    pub fn is_target(self, name: &str) -> bool {
        match self {
            NameValidation::Utf8 => is_valid_label_name(name),
            NameValidation::Legacy => is_legacy_target(name),
        }
    }
}

/// A rule's fields as configured, with Prometheus' defaults filled in by [`Default`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelabelFields {
    pub source_labels: Vec<String>,
    pub separator: String,
    pub target_label: String,
    pub regex: String,
    pub modulus: u64,
    pub replacement: String,
    pub action: RelabelAction,
}

impl Default for RelabelFields {
    fn default() -> Self {
        RelabelFields {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            target_label: String::new(),
            regex: "(.*)".to_owned(),
            modulus: 0,
            replacement: "$1".to_owned(),
            action: RelabelAction::Replace,
        }
    }
}

/// A rule that was checked and compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelabelConfig {
    fields: RelabelFields,
    names: NameValidation,
    regex: GoRegex,
}

/// Why a rule was refused, in Prometheus' words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelabelError {
    pub message: String,
}

impl fmt::Display for RelabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RelabelError {}

fn refused(message: String) -> RelabelError {
    RelabelError { message }
}

impl RelabelConfig {
    /// A rule whose label names may be any UTF-8.
    pub fn new(fields: RelabelFields) -> Result<RelabelConfig, RelabelError> {
        RelabelConfig::with_names(fields, NameValidation::Utf8)
    }

    pub fn with_names(fields: RelabelFields, names: NameValidation) -> Result<RelabelConfig, RelabelError> {
        let regex = GoRegex::new(&fields.regex).map_err(refused)?;
        validate(&fields, names).map_err(refused)?;
        Ok(RelabelConfig { fields, names, regex })
    }

    pub fn fields(&self) -> &RelabelFields {
        &self.fields
    }

    /// The compiled expression of the rule.
    pub fn regex(&self) -> &GoRegex {
        &self.regex
    }

    /// Applies the rule. `false` means that the set is dropped.
    fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        let RelabelFields { target_label, .. } = &self.fields;
        match self.fields.action {
            RelabelAction::Drop => return !self.regex.is_match(&self.source(labels)),
            RelabelAction::Keep => return self.regex.is_match(&self.source(labels)),
            RelabelAction::DropEqual => return self.target(labels) != self.source(labels),
            RelabelAction::KeepEqual => return self.target(labels) == self.source(labels),
            RelabelAction::Replace => self.replace(labels),
            RelabelAction::Lowercase => {
                let lower = map_runes(&self.source(labels), |c| c.to_lowercase());
                labels.set(target_label, &lower);
            }
            RelabelAction::Uppercase => {
                let upper = map_runes(&self.source(labels), |c| c.to_uppercase());
                labels.set(target_label, &upper);
            }
            RelabelAction::HashMod => {
                let digest = Md5::digest(self.source(labels).as_bytes());
                let (_, low) = digest.split_last_chunk().expect("a digest has sixteen bytes");
                let hash = u64::from_be_bytes(*low) % self.fields.modulus;
                labels.set(target_label, &hash.to_string());
            }
            RelabelAction::LabelMap => self.label_map(labels),
            RelabelAction::LabelDrop => labels.retain(|name| !self.regex.is_match(name)),
            RelabelAction::LabelKeep => labels.retain(|name| self.regex.is_match(name)),
        }
        true
    }

    /// The values of the source labels, joined; absent ones are empty.
    fn source(&self, labels: &LabelsBuilder) -> String {
        let values = self.fields.source_labels.iter().map(|name| labels.get(name).unwrap_or_default());
        values.collect::<Vec<_>>().join(&self.fields.separator)
    }

    fn target<'a>(&self, labels: &'a LabelsBuilder) -> &'a str {
        labels.get(&self.fields.target_label).unwrap_or_default()
    }

    fn replace(&self, labels: &mut LabelsBuilder) {
        let source = self.source(labels);
        let regex = self.regex.regex();
        let Some(captures) = regex.captures(&source) else { return };
        let (mut target, mut value) = (String::new(), String::new());
        expand_template(&self.fields.target_label, regex, &captures, &mut target);
        if !self.names.is_label_name(&target) {
            return;
        }
        expand_template(&self.fields.replacement, regex, &captures, &mut value);
        labels.set(&target, &value);
    }

    fn label_map(&self, labels: &mut LabelsBuilder) {
        let (regex, mut mapped) = (self.regex.regex(), Vec::new());
        for (name, value) in labels.iter() {
            if let Some(captures) = regex.captures(name) {
                let mut target = String::new();
                expand_template(&self.fields.replacement, regex, &captures, &mut target);
                mapped.push((target, value.to_owned()));
            }
        }
        for (name, value) in mapped {
            labels.set(&name, &value);
        }
    }
}

/// Maps character by character, as Go does: a character whose other case is several characters
/// stays as it is.
fn map_runes<I: Iterator<Item = char>>(text: &str, map: impl Fn(char) -> I) -> String {
    let single = |c: char| {
        let mut mapped = map(c);
        match (mapped.next(), mapped.next()) {
            (Some(one), None) => one,
            // The only character whose simple mapping differs from a longer full one: İ to i.
            (Some('i'), Some(_)) => 'i',
            _ => c,
        }
    };
    text.chars().map(single).collect()
}

/// Applies `rules` in order. `false` means that the set is dropped.
pub fn relabel(labels: &mut LabelsBuilder, rules: &[RelabelConfig]) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

/// What a rule's fields must satisfy, with Prometheus' messages, in its order.
fn validate(fields: &RelabelFields, names: NameValidation) -> Result<(), String> {
    use RelabelAction::*;
    let RelabelFields { target_label, replacement, action, .. } = fields;
    let name = action.as_str();
    let default = RelabelFields::default();
    let invalid_target = || format!("{} is invalid 'target_label' for {name} action", quote(target_label));
    let sets_one = matches!(action, HashMod | Lowercase | Uppercase | KeepEqual | DropEqual);
    if *action == HashMod && fields.modulus == 0 {
        return Err("relabel configuration for hashmod requires non-zero modulus".to_owned());
    }
    if (sets_one || *action == Replace) && target_label.is_empty() {
        return Err(format!("relabel configuration for {name} action requires 'target_label' value"));
    }
    if *action == Replace {
        let is_valid = match target_label.contains('$') {
            true => names.is_target(target_label),
            false => names.is_label_name(target_label),
        };
        if !is_valid {
            return Err(invalid_target());
        }
    }
    if sets_one && *action != HashMod {
        if !names.is_label_name(target_label) {
            return Err(invalid_target());
        }
        if *replacement != default.replacement {
            return Err(format!("'replacement' can not be set for {name} action"));
        }
    }
    if *action == LabelMap && !names.is_target(replacement) {
        return Err(format!("{} is invalid 'replacement' for {name} action", quote(replacement)));
    }
    if *action == HashMod && !names.is_label_name(target_label) {
        return Err(invalid_target());
    }
    let others_are_default = fields.modulus == default.modulus
        && fields.separator == default.separator
        && *replacement == default.replacement;
    if matches!(action, KeepEqual | DropEqual) && !(others_are_default && fields.regex == default.regex) {
        return Err(format!(
            "{name} action requires only 'source_labels' and `target_label`, and no other fields"
        ));
    }
    let only_regex = others_are_default && fields.source_labels.is_empty() && target_label.is_empty();
    if matches!(action, LabelDrop | LabelKeep) && !only_regex {
        return Err(format!("{name} action requires only 'regex', and no other fields"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
