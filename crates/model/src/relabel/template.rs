//! `$1`, `${name}`: references to what an expression's groups matched, as Go expands them.

use regex::Captures;

/// Appends `template` to `out` with its references replaced. `$name` takes as many letters,
/// digits and underscores as follow; a group that does not exist is empty; `$$` is a dollar, and
/// a dollar that begins no reference stands for itself.
pub fn expand_template(template: &str, captures: &Captures<'_>, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(rest) {
            out.push_str(group(captures, name));
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
}

/// The name that follows a dollar, and what follows it.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (inner, braced) = match text.strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let (name, after) = inner.split_at(inner.find(|c| !is_name(c)).unwrap_or(inner.len()));
    match (name.is_empty(), braced) {
        (true, _) => None,
        (false, true) => Some((name, after.strip_prefix('}')?)),
        (false, false) => Some((name, after)),
    }
}

fn group<'a>(captures: &Captures<'a>, name: &str) -> &'a str {
    // Digits are a number unless a zero leads; then, as in Go, they are a name that no group has.
    let is_number = name.bytes().all(|b| b.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    let group = match is_number {
        true => name.parse().ok().and_then(|index| captures.get(index)),
        false => captures.name(name),
    };
    group.map_or("", |group| group.as_str())
}

/// Whether `target` consists of legacy name characters and well-formed references, and does not
/// begin with a digit: Prometheus' rule for names that are templates.
pub(super) fn is_legacy_target(target: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = target;
    let mut is_first = true;
    while let Some(c) = rest.chars().next() {
        if c == '$' {
            match reference(&rest[1..]) {
                Some((name, after)) if name.chars().all(is_word) => rest = after,
                _ => return false,
            }
        } else if is_word(c) && !(is_first && c.is_ascii_digit()) {
            rest = &rest[1..];
        } else {
            return false;
        }
        is_first = false;
    }
    !target.is_empty()
}
