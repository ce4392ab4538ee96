//! What a pattern says about its matches without running it.

/// A bound on the values that a regular expression can match.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hint<'a> {
    /// Exactly these texts.
    Literals(Vec<&'a str>),
    /// Texts that start so; the expression decides among them.
    Prefix(&'a str),
    /// Every text but the empty one.
    NotEmpty,
    /// Every text.
    Anything,
}

/// Characters that may mean something else than themselves. A pattern is read no further than
/// its first: what is not understood is left to the expression.
fn is_meta(byte: u8) -> bool {
    matches!(
        byte,
        b'\\' | b'.' | b'+' | b'*' | b'?' | b'(' | b')' | b'|' | b'[' | b']' | b'{' | b'}' | b'^' | b'$'
    )
}

pub(super) fn of_pattern(pattern: &str) -> Hint<'_> {
    match pattern {
        ".*" => return Hint::Anything,
        ".+" => return Hint::NotEmpty,
        _ => {}
    }
    let alternatives = || pattern.split('|');
    if alternatives().all(|literal| !literal.bytes().any(is_meta)) {
        return Hint::Literals(alternatives().collect());
    }
    // An alternative may start otherwise, a brace or a group may hide one.
    if pattern.contains('|') {
        return Hint::Prefix("");
    }
    let end = pattern.bytes().position(is_meta).unwrap_or(pattern.len());
    let optional = matches!(pattern.as_bytes().get(end), Some(b'*' | b'?' | b'{'));
    match (optional, pattern[..end].char_indices().next_back()) {
        // The last character may be absent.
        (true, Some((last, _))) => Hint::Prefix(&pattern[..last]),
        _ => Hint::Prefix(&pattern[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_never_excludes_a_match() {
        assert_eq!(of_pattern("a|b-c|"), Hint::Literals(vec!["a", "b-c", ""]));
        assert_eq!(of_pattern(""), Hint::Literals(vec![""]));
        assert_eq!(of_pattern(".*"), Hint::Anything);
        assert_eq!(of_pattern("node_.*"), Hint::Prefix("node_"));
        assert_eq!(of_pattern("nodes*"), Hint::Prefix("node"));
        assert_eq!(of_pattern("é?"), Hint::Prefix(""));
        assert_eq!(of_pattern("a{0,2}"), Hint::Prefix(""));
        assert_eq!(of_pattern("a+"), Hint::Prefix("a"));
        assert_eq!(of_pattern("(?i)abc"), Hint::Prefix(""));
        assert_eq!(of_pattern("abc.*|x"), Hint::Prefix(""));
        assert_eq!(of_pattern("^ab$"), Hint::Prefix(""));
    }
}
