//! Functions that make labels: `label_replace`, `label_join`, `absent`.

use regex::Regex;
use tidewatch_model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, SampleValue};
use tidewatch_parser::Expr;

use super::eval::{At, Query};
use super::{Answer, Element, distinct};

/// `label_replace(v, destination, replacement, source, regex)`
pub(super) fn replace(query: &Query<'_>, args: &[Expr], at: At) -> Result<Answer, String> {
    let vector = query.vector(&args[0], at)?;
    let texts: Vec<String> = args[1..].iter().map(|arg| query.text(arg, at)).collect::<Result<_, _>>()?;
    let [destination, replacement, source, pattern] = &texts[..] else {
        unreachable!("the parser wants four texts")
    };
    let regex = Regex::new(&format!("^(?s:{pattern})$")).map_err(|error| error.to_string())?;
    valid_label(destination)?;
    let elements = vector.into_iter().map(|element| {
        let Some(captures) = regex.captures(element.labels.get(source).unwrap_or_default()) else {
            return element;
        };
        let mut value = String::new();
        captures.expand(replacement, &mut value);
        with_label(element, destination, &value)
    });
    distinct(elements.collect())
}

/// `label_join(v, destination, separator, source…)`
pub(super) fn join(query: &Query<'_>, args: &[Expr], at: At) -> Result<Answer, String> {
    let vector = query.vector(&args[0], at)?;
    let texts: Vec<String> = args[1..].iter().map(|arg| query.text(arg, at)).collect::<Result<_, _>>()?;
    let (destination, separator, sources) = (&texts[0], &texts[1], &texts[2..]);
    valid_label(destination)?;
    let elements = vector.into_iter().map(|element| {
        let values: Vec<&str> =
            sources.iter().map(|source| element.labels.get(source).unwrap_or_default()).collect();
        let value = values.join(separator);
        with_label(element, destination, &value)
    });
    distinct(elements.collect())
}

fn valid_label(name: &str) -> Result<(), String> {
    if name.is_empty() { Err("invalid destination label name".to_owned()) } else { Ok(()) }
}

fn with_label(element: Element, name: &str, value: &str) -> Element {
    let mut labels = element.labels.to_builder();
    labels.set(name, value);
    Element { labels: labels.build(), value: element.value }
}

/// One element where there is nothing, with the labels that the selector asks for by `=`: those
/// that it names once.
pub(super) fn absent(arg: &Expr, present: bool) -> Answer {
    if present {
        return Answer::Vector(Vec::new());
    }
    let matchers = match arg {
        Expr::Vector(selector) => &selector.matchers[..],
        Expr::Matrix(matrix) => &matrix.selector.matchers[..],
        Expr::Paren(paren) => return absent(&paren.expr, present),
        _ => &[],
    };
    let mut labels = LabelsBuilder::new();
    let mut named: Vec<&str> = Vec::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name() != METRIC_NAME) {
        if matcher.op() == MatchOp::Equal && !named.contains(&matcher.name()) {
            labels.set(matcher.name(), matcher.value());
            named.push(matcher.name());
        } else {
            labels.remove(matcher.name());
        }
    }
    let labels: Labels = labels.build();
    Answer::Vector(vec![Element { labels, value: SampleValue::Float(1.0) }])
}
