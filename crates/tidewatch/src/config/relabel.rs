//! `relabel_configs` and their kin.

use tidewatch_model::{NameValidation, RelabelAction, RelabelConfig, RelabelFields};

use super::schema::{Object, Problem, Section, Type};
use super::types::TEXTS;

pub(super) static RELABEL: Object = Object {
    name: "relabel.plain",
    fields: &[
        ("source_labels", TEXTS),
        ("separator", Type::Text),
        ("target_label", Type::Text),
        ("regex", Type::Text),
        ("modulus", Type::Uint),
        ("replacement", Type::Text),
        ("action", Type::Checked(action_name)),
    ],
    inline: &[],
    check: |section, problems| {
        if let Err(problem) = rule(section, NameValidation::Utf8) {
            problems.push(problem);
        }
    },
};

fn action_name(text: &str) -> Result<(), String> {
    action(text).map(drop)
}

fn action(text: &str) -> Result<RelabelAction, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "" => return Err("relabel action cannot be empty".to_owned()),
        "replace" => RelabelAction::Replace,
        "keep" => RelabelAction::Keep,
        "drop" => RelabelAction::Drop,
        "keepequal" => RelabelAction::KeepEqual,
        "dropequal" => RelabelAction::DropEqual,
        "hashmod" => RelabelAction::HashMod,
        "labelmap" => RelabelAction::LabelMap,
        "labeldrop" => RelabelAction::LabelDrop,
        "labelkeep" => RelabelAction::LabelKeep,
        "lowercase" => RelabelAction::Lowercase,
        "uppercase" => RelabelAction::Uppercase,
        _ => return Err(format!("unknown relabel action {text:?}")),
    })
}

fn rule(section: &Section<'_>, names: NameValidation) -> Result<RelabelConfig, Problem> {
    let mut fields = RelabelFields::default();
    if let Some(node) = section.node.get("action") {
        // Present but null is an error, unlike an absent field.
        fields.action =
            action(node.text().unwrap_or_default()).map_err(|message| Problem::at(node, message))?;
    }
    fields.source_labels = section.strings("source_labels");
    fields.target_label = section.string("target_label");
    fields.modulus = section.number("modulus").unwrap_or(0);
    if let Some(node) = section.node.get("separator") {
        node.text().unwrap_or_default().clone_into(&mut fields.separator);
    }
    // Present but null is empty, unlike an absent field: so does Go's decoder.
    if let Some(node) = section.node.get("regex") {
        node.text().unwrap_or_default().clone_into(&mut fields.regex);
    }
    if let Some(node) = section.node.get("replacement") {
        node.text().unwrap_or_default().clone_into(&mut fields.replacement);
    }
    RelabelConfig::with_names(fields, names).map_err(|error| Problem::at(section.node, error.message))
}

/// Reads a list of rules whose labels may have these names.
pub(super) fn rules(
    section: &Section<'_>,
    name: &str,
    names: NameValidation,
) -> Result<Vec<RelabelConfig>, Problem> {
    section.items(name).iter().map(|item| rule(item, names)).collect()
}
