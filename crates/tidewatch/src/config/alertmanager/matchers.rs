//! Matchers as `alertmanager.yml` writes them, in either of its two syntaxes.
//!
//! The classic one has plain label names and takes almost any value, quoted or not. The UTF-8
//! one has names of any text, and wants quotes around what it could mistake for syntax. Unless
//! a mode is chosen a line is read by both, and where they differ the classic reading holds, so
//! that no file changes its meaning.

use tidewatch_model::{MatchOp, Matcher, is_valid_label_name, is_valid_legacy_name};

use super::Names;

/// Reads one line of a list of matchers; a line may hold several, with commas.
pub(super) fn parse(text: &str, names: Names) -> Result<Vec<Matcher>, String> {
    match names {
        Names::Classic => classic(text),
        Names::Strict => utf8(text),
        Names::Fallback => match (classic(text), utf8(text)) {
            (Ok(matchers), _) | (Err(_), Ok(matchers)) => Ok(matchers),
            (Err(_), Err(message)) => Err(message),
        },
    }
}

/// Whether a label may have this name.
pub(super) fn is_name(name: &str, names: Names) -> bool {
    match names {
        Names::Classic => is_valid_legacy_name(name),
        Names::Fallback | Names::Strict => is_valid_label_name(name),
    }
}

fn operator(text: &str) -> Option<(MatchOp, &str)> {
    let operators =
        [("=~", MatchOp::Regex), ("!~", MatchOp::NotRegex), ("!=", MatchOp::NotEqual), ("=", MatchOp::Equal)];
    operators.iter().find_map(|(sign, op)| Some((*op, text.strip_prefix(sign)?)))
}

fn new(op: MatchOp, name: &str, value: &str) -> Result<Matcher, String> {
    Matcher::new(op, name, value).map_err(|error| error.message)
}

fn classic(text: &str) -> Result<Vec<Matcher>, String> {
    let text = text.strip_prefix('{').unwrap_or(text);
    let text = text.strip_suffix('}').unwrap_or(text);
    let mut matchers = Vec::new();
    let (mut start, mut in_quotes, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            ',' if !in_quotes => {
                matchers.push(classic_one(&text[start..at])?);
                start = at + 1;
            }
            '"' if !escaped => in_quotes = !in_quotes,
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    if !text[start..].trim().is_empty() {
        matchers.push(classic_one(&text[start..])?);
    }
    Ok(matchers)
}

fn classic_one(text: &str) -> Result<Matcher, String> {
    let malformed = || format!("bad matcher format: {text}");
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    let (name, rest) = trimmed.split_at(end.ok_or_else(malformed)?);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(malformed());
    }
    let (op, value) = operator(rest.trim_start()).ok_or_else(malformed)?;
    new(op, name, &classic_value(value.trim())?)
}

/// Quotes are optional, but come in pairs; a backslash that escapes nothing stands for itself.
fn classic_value(raw: &str) -> Result<String, String> {
    let unescaped = || format!("matcher value contains unescaped double quote: {raw}");
    let quoted = raw.starts_with('"');
    let mut chars = raw[usize::from(quoted)..].chars();
    let mut value = String::new();
    let mut closed = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.as_str().is_empty() => closed = true,
            '"' => return Err(unescaped()),
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some(c @ ('"' | '\\')) => value.push(c),
                Some(c) => value.extend(['\\', c]),
                None => value.push('\\'),
            },
            c => value.push(c),
        }
    }
    if quoted && !closed { Err(unescaped()) } else { Ok(value) }
}

fn utf8(text: &str) -> Result<Vec<Matcher>, String> {
    let trimmed = text.trim();
    let inner = match (trimmed.strip_prefix('{'), trimmed.ends_with('}')) {
        (None, false) => trimmed,
        (Some(opened), true) => opened.strip_suffix('}').unwrap_or_default(),
        (Some(_), false) => return Err(format!("{text:?}: expected close brace")),
        (None, true) => return Err(format!("{text:?}: expected opening brace")),
    };
    let mut matchers = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        let (name, after) = word(rest)?;
        if name.is_empty() {
            return Err(format!("{text:?}: label name is empty"));
        }
        let (op, after) = operator(after.trim_start())
            .ok_or_else(|| format!("{text:?}: expected an operator such as '=', '!=', '=~' or '!~'"))?;
        let (value, after) = word(after.trim_start())?;
        matchers.push(new(op, &name, &value)?);
        rest = after.trim_start();
        if let Some(next) = rest.strip_prefix(',') {
            rest = next.trim_start();
        } else if !rest.is_empty() {
            return Err(format!("{text:?}: expected a comma or close brace"));
        }
    }
    Ok(matchers)
}

/// A quoted or plain word and what follows it.
fn word(text: &str) -> Result<(String, &str), String> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted_word(quoted);
    }
    let reserved = |c: char| c.is_whitespace() || "{}!=~,\\\"'`".contains(c);
    let (plain, rest) = text.split_at(text.find(reserved).unwrap_or(text.len()));
    if plain.is_empty() {
        let found = rest.chars().next().map_or("end of input".to_owned(), |c| format!("{c:?}"));
        return Err(format!("expected label name or value, got {found}"));
    }
    Ok((plain.to_owned(), rest))
}

/// After the opening quote: text with Go's escapes.
fn quoted_word(text: &str) -> Result<(String, &str), String> {
    let invalid = || format!("\"{text}: invalid quoted text");
    let mut word = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((word, chars.as_str())),
            '\n' => return Err(invalid()),
            '\\' => word.push(escape(&mut chars).ok_or_else(invalid)?),
            c => word.push(c),
        }
    }
    Err(invalid())
}

fn escape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let digits = match chars.next()? {
        'a' => return Some('\x07'),
        'b' => return Some('\x08'),
        'f' => return Some('\x0c'),
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'v' => return Some('\x0b'),
        c @ ('\\' | '"') => return Some(c),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let mut code = 0;
    for _ in 0..digits {
        code = code * 16 + chars.next()?.to_digit(16)?;
    }
    // A lone byte beyond ASCII would make a text that is no UTF-8.
    char::from_u32(code).filter(|c| digits > 2 || c.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, names: Names, expected: &str) {
        let shown = match parse(text, names) {
            Ok(matchers) => matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            Err(message) => format!("error: {message}"),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn the_classic_syntax_is_tolerant() {
        check(r#"{foo = "bar", dings != bums, }"#, Names::Classic, r#"foo="bar",dings!="bums""#);
        check(r#"a="x, y",b=~5.."#, Names::Classic, r#"a="x, y",b=~"5..""#);
        check("a=", Names::Classic, r#"a="""#);
        check(r#"a="\d\"\n""#, Names::Classic, "a=\"\\\\d\\\"\\n\"");
        check("a b=c", Names::Classic, "error: bad matcher format: a b=c");
        check(r#"a=b"c"#, Names::Classic, r#"error: matcher value contains unescaped double quote: b"c"#);
        check("a=~(", Names::Classic, "error: error parsing regexp: missing closing ): `(`");
    }

    #[test]
    fn names_are_any_text_in_the_utf8_syntax() {
        check(r#"{"my name"="x", é=~"y.*",}"#, Names::Strict, r#""my name"="x","é"=~"y.*""#);
        check(r#"a="\u00e9\x41""#, Names::Strict, r#"a="éA""#);
        check("{}", Names::Strict, "");
        check("{a=b", Names::Strict, "error: \"{a=b\": expected close brace");
        check("a=b c=d", Names::Strict, "error: \"a=b c=d\": expected a comma or close brace");
        check(r#"a="\xff""#, Names::Strict, r#"error: "\xff": invalid quoted text"#);
    }

    // A file that an older Alertmanager read keeps its meaning.
    #[test]
    fn the_classic_reading_holds_where_both_understand() {
        check("a=b c", Names::Fallback, r#"a="b c""#);
        check(r#"a="\n""#, Names::Fallback, "a=\"\\n\"");
        check(r#""é"=b"#, Names::Fallback, r#""é"="b""#);
        check("=b", Names::Fallback, "error: expected label name or value, got '='");
    }
}
