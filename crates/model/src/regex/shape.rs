//! What can be said about an expression without running it: the texts it matches, or how they
//! begin and end. Most expressions in label matchers are lists or prefixes, and need no engine;
//! an index looks up what is listed and skips to a prefix.

use regex_syntax::hir::{Class, Dot, Hir, HirKind};

/// Lists above this length are matched by the engine.
const SET_MAX: usize = 256;

/// An expression's shape. Expressions are anchored, and `.` matches every character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Exactly these texts, sorted.
    Set(Vec<String>),
    /// `.*`
    Any,
    /// `.+`
    NonEmpty,
    /// `text.*`
    Prefix(String),
    /// `.*text`
    Suffix(String),
    /// `.*text.*`
    Contains(String),
    /// Anything else; what it matches begins with the text.
    Other { prefix: String },
}

/// Finds the shape of a parsed expression.
pub(super) fn shape(hir: &Hir) -> Shape {
    if let Some(mut set) = texts(hir) {
        set.sort();
        set.dedup();
        return Shape::Set(set);
    }
    let parts = parts(hir);
    match parts.as_slice() {
        [only] if is_any(only, 0) => Shape::Any,
        [only] if is_any(only, 1) => Shape::NonEmpty,
        [rest @ .., any] if is_any(any, 0) && literal(rest).is_some() => {
            Shape::Prefix(literal(rest).expect("just seen"))
        }
        [any, rest @ ..] if is_any(any, 0) && literal(rest).is_some() => {
            Shape::Suffix(literal(rest).expect("just seen"))
        }
        [any, rest @ .., last] if is_any(any, 0) && is_any(last, 0) && literal(rest).is_some() => {
            Shape::Contains(literal(rest).expect("just seen"))
        }
        _ => Shape::Other { prefix: literal_prefix(&parts) },
    }
}

/// The parts of a sequence, groups opened.
fn parts(hir: &Hir) -> Vec<&Hir> {
    match hir.kind() {
        HirKind::Concat(parts) => parts.iter().flat_map(|part| self::parts(part)).collect(),
        HirKind::Capture(capture) => parts(&capture.sub),
        _ => vec![hir],
    }
}

/// Whether `hir` is any character, at least `min` times.
fn is_any(hir: &Hir, min: u32) -> bool {
    let HirKind::Repetition(repetition) = hir.kind() else { return false };
    let sub = match repetition.sub.kind() {
        HirKind::Capture(capture) => &capture.sub,
        _ => &repetition.sub,
    };
    repetition.min == min && repetition.max.is_none() && **sub == Hir::dot(Dot::AnyChar)
}

/// The text of parts that are all literal.
fn literal(parts: &[&Hir]) -> Option<String> {
    let mut text = String::new();
    for part in parts {
        let HirKind::Literal(literal) = part.kind() else { return None };
        text.push_str(std::str::from_utf8(&literal.0).ok()?);
    }
    (!text.is_empty()).then_some(text)
}

fn literal_prefix(parts: &[&Hir]) -> String {
    let count = parts.iter().take_while(|part| matches!(part.kind(), HirKind::Literal(_))).count();
    literal(&parts[..count]).unwrap_or_default()
}

/// All texts that the expression matches, if they are few.
fn texts(hir: &Hir) -> Option<Vec<String>> {
    let set = match hir.kind() {
        HirKind::Empty => vec![String::new()],
        HirKind::Literal(literal) => vec![std::str::from_utf8(&literal.0).ok()?.to_owned()],
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = class.iter().map(|range| u32::from(range.end()) - u32::from(range.start()) + 1);
            if ranges.map(u64::from).sum::<u64>() > SET_MAX as u64 {
                return None;
            }
            class.iter().flat_map(|range| range.start()..=range.end()).map(String::from).collect()
        }
        HirKind::Capture(capture) => texts(&capture.sub)?,
        HirKind::Repetition(repetition) if repetition.min == 0 && repetition.max == Some(1) => {
            let mut set = texts(&repetition.sub)?;
            set.push(String::new());
            set
        }
        HirKind::Alternation(alternatives) => {
            let mut set = Vec::new();
            for alternative in alternatives {
                set.extend(texts(alternative)?);
                if set.len() > SET_MAX {
                    return None;
                }
            }
            set
        }
        HirKind::Concat(parts) => {
            let mut set = vec![String::new()];
            for part in parts {
                let ends = texts(part)?;
                if set.len() * ends.len() > SET_MAX {
                    return None;
                }
                set = set
                    .iter()
                    .flat_map(|start| ends.iter().map(move |end| format!("{start}{end}")))
                    .collect();
            }
            set
        }
        HirKind::Class(Class::Bytes(_)) | HirKind::Look(_) | HirKind::Repetition(_) => return None,
    };
    (!set.is_empty() && set.len() <= SET_MAX).then_some(set)
}
