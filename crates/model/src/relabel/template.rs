//! `$1`, `${name}`: references to what an expression's groups matched, as Go expands them.

use regex::{Captures, Regex};

use crate::regex::named_group;

/// Appends `template` to `out` with its references replaced by what `regex` has captured. `$name` takes as many letters,
/// digits and underscores as follow; a group that does not exist is empty; `$$` is a dollar, and
/// a dollar that begins no reference stands for itself.
pub fn expand_template(template: &str, regex: &Regex, captures: &Captures<'_>, out: &mut String) {
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(rest) {
            out.push_str(group(regex, captures, name));
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

fn group<'a>(regex: &Regex, captures: &Captures<'a>, name: &str) -> &'a str {
    // Digits are a number unless a zero leads; then, as in Go, they are a name.
    let is_number = name.bytes().all(|b| b.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    let group = match is_number {
        true => name.parse().ok().and_then(|index| captures.get(index)),
        false => named_group(regex, captures, name),
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

#[cfg(test)]
mod tests {
    use crate::regex::GoRegex;

    #[track_caller]
    fn check(pattern: &str, text: &str, template: &str, expected: &str) {
        let regex = GoRegex::new(pattern).expect("valid");
        let captures = regex.regex().captures(text).expect("a match");
        let mut out = String::new();
        super::expand_template(template, regex.regex(), &captures, &mut out);
        assert_eq!(out, expected, "{pattern} on {text}, {template}");
    }

    // Go takes a name twice, and one that begins with a digit.
    #[test]
    fn of_groups_that_share_a_name_the_first_that_took_part_counts() {
        check("(?P<a>x)|(?P<a>y)", "x", "$a-${a}$$a$ab", "x-x$a");
        check("(?P<a>x)|(?P<a>y)", "y", "$a-$1-$2", "y--y");
        check("(?P<a>x)?(?P<b>y)(?P<a>z)", "xyz", "${a}${b}", "xy");
        check("(?P<a>x)?(?P<b>y)(?P<a>z)", "yz", "${a}${b}", "zy");
        check("(?P<a>x)(?P<a>y)", "xy", "$3${c}$a_", "");
        check("(?<1>x)(?<2W>y)(?<01>z)(?<_1>a)", "xyza", "$1 ${2W} ${01} ${_1} ${_2}", "x y z a ");
        check("(.*)", "v", "$ ${1 ${} $- $é$", "$ ${1 ${} $- $");
    }
}
