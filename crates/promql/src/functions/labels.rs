//! `label_replace` and `label_join`.

use tidewatch_model::regex::GoRegex;
use tidewatch_model::{METRIC_NAME, expand_template};

use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::frame::{Frame, Name};
use crate::grid::Grid;
use crate::plan::Node;

use super::text;

pub(super) fn label_replace(
    evaluator: &mut Evaluator<'_>,
    args: &[Node],
    grid: Grid,
) -> Result<Frame, QueryError> {
    let [target, replacement, source, pattern] = [1, 2, 3, 4].map(|i| text(&args[i]));
    let invalid = |what: &str, text: &str| {
        Err(QueryError::Execution(format!("invalid {what} in label_replace(): {text}")))
    };
    let Ok(regex) = GoRegex::new(pattern) else { return invalid("regular expression", pattern) };
    if !is_valid_label(target) {
        return invalid("destination label name", target);
    }
    // Calls nest, and each holds its expression while those within are evaluated.
    let _room = evaluator.guard.charge(regex.program_bytes() as u64, 0)?;
    let frame = evaluator.rows(&args[0], grid)?;
    let mut expanded = String::new();
    frame.rename(&evaluator.guard, |name| {
        let value = name.labels.get(source).unwrap_or_default();
        let Some(captures) = regex.regex().captures(value) else { return Ok(name.clone()) };
        let references = replacement.bytes().filter(|byte| *byte == b'$').count();
        check_length(replacement.len().saturating_add(references.saturating_mul(value.len())))?;
        expanded.clear();
        expand_template(replacement, regex.regex(), &captures, &mut expanded);
        Ok(set(name, target, &expanded))
    })
}

pub(super) fn label_join(
    evaluator: &mut Evaluator<'_>,
    args: &[Node],
    grid: Grid,
) -> Result<Frame, QueryError> {
    let (target, separator) = (text(&args[1]), text(&args[2]));
    let sources: Vec<&str> = args[3..].iter().map(text).collect();
    let invalid = |what: &str, text: &str| {
        Err(QueryError::Execution(format!("invalid {what} label name in label_join(): {text}")))
    };
    if let Some(source) = sources.iter().find(|source| !is_valid_label(source)) {
        return invalid("source", source);
    }
    if !is_valid_label(target) {
        return invalid("destination", target);
    }
    let frame = evaluator.rows(&args[0], grid)?;
    frame.rename(&evaluator.guard, |name| {
        let values: Vec<&str> =
            sources.iter().map(|source| name.labels.get(source).unwrap_or_default()).collect();
        check_length(values.iter().map(|value| value.len() + separator.len()).sum())?;
        Ok(set(name, target, &values.join(separator)))
    })
}

/// Bytes of a label that a function makes. Calls may nest, each twice as long as the one before.
const VALUE_BYTES_MAX: usize = 1 << 20;

fn check_length(bytes: usize) -> Result<(), QueryError> {
    if bytes > VALUE_BYTES_MAX {
        return Err(QueryError::Execution(format!(
            "a label value would be longer than {VALUE_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// A name that is given explicitly is no longer to be dropped.
fn set(name: &Name, target: &str, value: &str) -> Name {
    let mut labels = name.labels.to_builder();
    labels.set(target, value);
    Name { labels: labels.build(), drop: name.drop && target != METRIC_NAME }
}

/// Whether a text may name a label: any but the empty one. The parser puts U+FFFD where a text
/// was no UTF-8, which no label name may be.
pub(crate) fn is_valid_label(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::REPLACEMENT_CHARACTER)
}
