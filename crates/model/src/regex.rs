//! Regular expressions with Go's RE2 meaning on Rust's linear-time engine.

mod classes;
mod shape;
mod translate;

use std::sync::OnceLock;

use regex_syntax::hir::{Hir, HirKind};

use crate::Limits;
use shape::Shape;

/// A compiled expression, anchored at both ends as Prometheus anchors it: `^(?s:…)$`.
#[derive(Debug, Clone)]
pub struct GoRegex {
    pattern: String,
    shape: Shape,
    /// In Rust's spelling, anchored.
    translated: String,
    /// The engine's program. Compiled at once where matching needs it; lists and prefixes, which
    /// most matchers are, do without and compile it for captures only.
    engine: OnceLock<regex::Regex>,
    /// No less than the program takes.
    program_bytes: usize,
}

/// Sizes that are tried before the limit: the engine does not tell how large a program is, but
/// refuses one that is larger than it may be.
const PROGRAM_BYTES: [usize; 2] = [16 << 10, 128 << 10];

impl GoRegex {
    /// Compiles `pattern` anchored. Bounded by [`Limits`]' pattern and program sizes. An error is
    /// in Go's words where Go has one for it.
    pub fn new(pattern: &str) -> Result<GoRegex, String> {
        let limits = Limits::default();
        if pattern.len() > limits.regex_pattern_bytes {
            return Err(format!(
                "regular expression of {} bytes is longer than {}",
                pattern.len(),
                limits.regex_pattern_bytes
            ));
        }
        let translated = format!("^(?s:{})$", translate::translate(pattern)?);
        let hir = regex_syntax::parse(&translated).map_err(|_| invalid(pattern))?;
        let shape = anchored(&hir).map_or(Shape::Other { prefix: String::new() }, |hir| shape::shape(&hir));
        let engine = OnceLock::new();
        let mut program_bytes = translated.len();
        if let Shape::Other { .. } = shape {
            let (regex, bytes) = measured(&translated, &limits).map_err(|error| reason(&error, pattern))?;
            engine.set(regex).expect("nothing was set before");
            program_bytes += bytes;
        }
        Ok(GoRegex { pattern: pattern.to_owned(), shape, translated, engine, program_bytes })
    }

    /// A bound on the memory that the compiled expression takes.
    pub fn program_bytes(&self) -> usize {
        self.program_bytes
    }

    /// The pattern as it was written, without the anchors.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    pub fn is_match(&self, text: &str) -> bool {
        match &self.shape {
            Shape::Set(set) => set.binary_search_by(|member| member.as_str().cmp(text)).is_ok(),
            Shape::Any => true,
            Shape::NonEmpty => !text.is_empty(),
            Shape::Prefix(prefix) => text.starts_with(prefix),
            Shape::Suffix(suffix) => text.ends_with(suffix),
            Shape::Contains(part) => text.contains(part),
            Shape::Other { prefix } => text.starts_with(prefix) && self.regex().is_match(text),
        }
    }

    /// The texts that match, sorted, if they are few enough to be listed.
    pub fn set_matches(&self) -> Option<&[String]> {
        if let Shape::Set(set) = &self.shape { Some(set) } else { None }
    }

    /// Whether more than comparing texts is needed to match.
    pub fn needs_engine(&self) -> bool {
        matches!(self.shape, Shape::Other { .. })
    }

    /// The same expression for texts of which only these match, and the empty one if it does.
    pub(crate) fn listed(&self, mut texts: Vec<String>) -> GoRegex {
        texts.extend(self.is_match("").then(String::new));
        texts.sort_unstable();
        texts.dedup();
        GoRegex { shape: Shape::Set(texts), ..self.clone() }
    }

    /// A text that everything that matches begins with; empty where nothing is known.
    pub fn prefix(&self) -> &str {
        match &self.shape {
            Shape::Prefix(prefix) | Shape::Other { prefix } => prefix,
            Shape::Set(set) if set.len() == 1 => &set[0],
            _ => "",
        }
    }

    /// Whether every text matches.
    pub fn matches_all(&self) -> bool {
        self.shape == Shape::Any
    }

    /// The engine's expression, for captures and expansion.
    pub fn regex(&self) -> &regex::Regex {
        self.engine.get_or_init(|| {
            // A list, prefix or suffix was parsed in `new`; its program is about as long as its
            // pattern, which is limited.
            regex::Regex::new(&self.translated).expect("an expression that was parsed compiles")
        })
    }
}

/// Compiles `pattern` to be searched for anywhere in a text, as Go's `regexp` does; in the bounds of
/// [`GoRegex::new`].
pub fn search(pattern: &str) -> Result<regex::Regex, String> {
    let limits = Limits::default();
    if pattern.len() > limits.regex_pattern_bytes {
        let (len, max) = (pattern.len(), limits.regex_pattern_bytes);
        return Err(format!("regular expression of {len} bytes is longer than {max}"));
    }
    build(&translate::translate(pattern)?, limits.regex_compiled_bytes)
        .map_err(|error| reason(&error, pattern))
}

/// What the group of a name took: the first of those that have the name and took part.
pub(crate) fn named_group<'a>(
    regex: &regex::Regex,
    captures: &regex::Captures<'a>,
    name: &str,
) -> Option<regex::Match<'a>> {
    let groups = regex.capture_names().zip(captures.iter());
    let of_name = |group: Option<&str>| group.is_some_and(|group| translate::name_in_pattern(group) == name);
    groups.filter(|(group, _)| of_name(*group)).find_map(|(_, found)| found)
}

/// Replaces each match of what [`search`] gave by a template.
pub fn replace_all(regex: &regex::Regex, text: &str, template: &str) -> String {
    let expand = |captures: &regex::Captures<'_>| {
        let mut expanded = String::new();
        crate::expand_template(template, regex, captures, &mut expanded);
        expanded
    };
    regex.replace_all(text, expand).into_owned()
}

/// Compiles with the smallest limit that does.
fn measured(translated: &str, limits: &Limits) -> Result<(regex::Regex, usize), regex::Error> {
    for bytes in PROGRAM_BYTES {
        match build(translated, bytes) {
            Err(regex::Error::CompiledTooBig(_)) => {}
            built => return built.map(|regex| (regex, bytes)),
        }
    }
    build(translated, limits.regex_compiled_bytes).map(|regex| (regex, limits.regex_compiled_bytes))
}

fn build(translated: &str, size_bytes: usize) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(translated).size_limit(size_bytes).build()
}

/// The expression between the anchors that [`GoRegex::new`] puts around it.
fn anchored(hir: &Hir) -> Option<Hir> {
    let HirKind::Concat(parts) = hir.kind() else { return None };
    let [_, inner @ .., _] = parts.as_slice() else { return None };
    Some(Hir::concat(inner.to_vec()))
}

/// What translation let pass and Rust refuses: unknown Unicode classes, too deep a nesting, too
/// large a program.
fn reason(error: &regex::Error, pattern: &str) -> String {
    match error {
        regex::Error::CompiledTooBig(bytes) => {
            format!("error parsing regexp: expression is larger than {bytes} bytes when compiled")
        }
        _ => invalid(pattern),
    }
}

fn invalid(pattern: &str) -> String {
    format!("error parsing regexp: invalid expression: `{pattern}`")
}

impl PartialEq for GoRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for GoRegex {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, matching: &[&str], other: &[&str]) {
        let regex = GoRegex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
        for text in matching {
            assert!(regex.is_match(text), "{pattern} matches {text:?}");
            assert!(regex.regex().is_match(text), "the engine agrees on {pattern} and {text:?}");
        }
        for text in other {
            assert!(!regex.is_match(text), "{pattern} does not match {text:?}");
            assert!(!regex.regex().is_match(text), "the engine agrees on {pattern} and {text:?}");
        }
    }

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        check(r"\d+", &["12"], &["٣", "1a", ""]);
        check(r"\w\W", &["a-", "aé"], &["é-"]);
        check(r"[\d\s]*", &["1 2\n"], &["a", "\u{a0}"]);
        check(r"[^\D]", &["7"], &["x"]);
        check(r".*\bfoo\b.*", &["a foo b", "éfoo"], &["afoo"]);
        check("a.c", &["abc", "a\nc"], &["ac"]);
        check("foo|bar", &["foo", "bar"], &["xfoo", "foobar"]);
        check(r"\Qa.b*\E+", &["a.b*", "a.b**"], &["axb*"]);
        check(r"\101\x42\x{43}", &["ABC"], &["abc"]);
        check("(?i)HeLLo", &["hello", "HELLO"], &["hell"]);
        check("a{,2}", &["a{,2}"], &["aa"]);
        check("{a}", &["{a}"], &["a"]);
        check("x{2}", &["xx"], &["x"]);
        check("((a{10}b|c){10}){0,10}x{1000}(y{1000}){0}(?:z{1000}){1}", &[], &["xx"]);
        check("[[:alpha:]_-]+", &["ab_-"], &["1"]);
        check("[]a]", &["]", "a"], &["[]a]"]);
        check("[a&&b]", &["&", "a", "b"], &["c"]);
        check("[a-c--]", &["b", "-"], &["d"]);
        check("[[a]", &["[", "a"], &["]"]);
        check("$*bar", &["bar"], &["foo-bar"]);
        check("(?P<name>x)(?<other>y)", &["xy"], &["x"]);
        check("(?P<a>x)(?P<a>y)(?P<_1>a)(?P<1>b)", &["xyab"], &["xy"]);
        check("(?ii)A(?i-i)a(?-ii)a(?s-is)a", &["Aaaa", "aaaa"], &["AAaa", "aaAa"]);
        check("(?i-i:A)(?-i:a)(?mi-m:a)()(?)(?i)b", &["AaAB", "Aaab"], &["aaab"]);
        check("a_<b>:c@d", &["a_<b>:c@d"], &[]);
        check(r"\pL\p{Greek}", &["éα"], &["1α"]);
        check(r"\p{^Lu}\P{^Lu}", &["aÉ"], &["Aa", "AA"]);
        check(r"\PL\P{Greek}\P{^Greek}", &["1aα"], &["1αα", "aaα"]);
        check(r"[\p{Nd}\p{^Latin}]", &["1", "α"], &["a"]);
        check(r"(?i)\p{Lu}", &["a", "A"], &["1"]);
        check(r"\p{Any}\P{Cs}", &["é1"], &["é"]);
        check(r"[\P{Any}a]|b\p{Cs}|[\p{Cs}c]", &["a", "c"], &["b", "\u{e000}", ""]);
        check(r"é\B\W", &["é\n", "éé"], &["éa"]);
        check(r"\S\B", &["é"], &["a"]);
        check(r"a\Bb", &["ab"], &["a"]);
        check("", &[""], &["a"]);
    }

    #[test]
    fn what_go_refuses_is_refused_in_its_words() {
        for (pattern, message) in [
            ("[", "missing closing ]: `[`"),
            ("[a", "missing closing ]: `[a`"),
            ("(a", "missing closing ): `(a`"),
            ("a)", "unexpected ): `a)`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("a|+", "missing argument to repetition operator: `+`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a*+", "invalid nested repetition operator: `*+`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            ("((a{1,10}){10}b){11}", "invalid repeat count: `{11}`"),
            ("(?:x(?P<n>(a{40}|b)){5}c?){6,}", "invalid repeat count: `{6,}`"),
            ("((a{501}){0,}b){2}", "invalid repeat count: `{2}`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            (r"\1", r"invalid escape sequence: `\1`"),
            (r"\C", r"invalid escape sequence: `\C`"),
            ("a\\", "trailing backslash at end of expression: ``"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
            ("(?<=a)", "invalid named capture: `(?<=a)`"),
            ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("[[:word2:]]", "invalid character class range: `[:word2:]`"),
            (r"\p{Script=Greek}", r"invalid character class range: `\p{Script=Greek}`"),
            (r"\p{sc=Greek}", r"invalid character class range: `\p{sc=Greek}`"),
            (r"\p{gc=Lu}", r"invalid character class range: `\p{gc=Lu}`"),
            (r"\p{Alphabetic}", r"invalid character class range: `\p{Alphabetic}`"),
            (r"[a\P{Lowercase}]", r"invalid character class range: `\P{Lowercase}`"),
            (r"\p{IsGreek}", r"invalid character class range: `\p{IsGreek}`"),
            (r"\p{greek}", r"invalid character class range: `\p{greek}`"),
            (r"\p{Letter}", r"invalid character class range: `\p{Letter}`"),
            (r"\p{^^Lu}", r"invalid character class range: `\p{^^Lu}`"),
            (r"\p{}", r"invalid character class range: `\p{}`"),
            (r"\pX", r"invalid character class range: `\pX`"),
            (r"\p{{L}}", r"invalid character class range: `\p{{L}`"),
            (r"\p{Greek", r"invalid character class range: `\p{Greek`"),
            ("(?i-)a", "invalid or unsupported Perl syntax: `(?i-)`"),
            ("(?i--i)a", "invalid or unsupported Perl syntax: `(?i--`"),
            ("(a(?i-", "invalid or unsupported Perl syntax: `(?i-`"),
            ("(?ix)a", "invalid or unsupported Perl syntax: `(?ix`"),
            ("(?P<n", "invalid named capture: `(?P<n`"),
            ("(?P<n!>a)", "invalid named capture: `(?P<n!>`"),
        ] {
            let error = GoRegex::new(pattern).err();
            assert_eq!(error, Some(format!("error parsing regexp: {message}")), "{pattern}");
        }
        assert!(GoRegex::new(&"a".repeat(20_000)).is_err(), "too long");
        assert!(GoRegex::new("((((a{1000}){1000}){1000}){1000})").is_err(), "too large");
        assert!(GoRegex::new(&"(".repeat(8_000)).is_err(), "unclosed");
        assert!(GoRegex::new(&("(".repeat(8_000) + &")".repeat(8_000))).is_err(), "too deep");
    }

    #[test]
    fn lists_and_prefixes_are_known_to_an_index() {
        let set = |pattern: &str| GoRegex::new(pattern).unwrap().set_matches().map(<[String]>::to_vec);
        assert_eq!(set("b|a(x|y)?"), Some(["a", "ax", "ay", "b"].map(str::to_owned).to_vec()));
        assert_eq!(set("api-[0-2]"), Some(["api-0", "api-1", "api-2"].map(str::to_owned).to_vec()));
        assert_eq!(set(r"10\.0\.0\.1:9100"), Some(vec!["10.0.0.1:9100".to_owned()]));
        assert_eq!(set("a.*"), None);
        let prefix = |pattern: &str| GoRegex::new(pattern).unwrap().prefix().to_owned();
        assert_eq!(prefix("api-.*"), "api-");
        assert_eq!(prefix("api-[a-z]+x"), "api-");
        assert_eq!(prefix("(?i)api.*"), "");
        assert!(GoRegex::new(".*").unwrap().matches_all());
        check(".*-api", &["x-api", "-api"], &["api"]);
        check(".*mid.*", &["amidb", "mid"], &["md"]);
        check(".+", &["a", "\n"], &[""]);
        check("pre.+", &["prex"], &["pre", "apre"]);
    }

    use proptest::prelude::*;
    use proptest::sample::select;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_known_of_an_expression_agrees_with_the_engine(
            pieces in prop::collection::vec(select(&[
                "a", "b", "é", ".", ".*", ".+", "(", ")", "|", "[ab]", "[^a]", "?", "*", "{2}", "(?i)", "\\d",
                "\\Qa.b\\E", "^", "$", "\\b", "(?:a|b)", "x{", "-",
            ][..]), 0..7),
            texts in prop::collection::vec("[abAB.é1x{-]{0,5}", 8),
        ) {
            let pattern = pieces.concat();
            if let Ok(regex) = GoRegex::new(&pattern) {
                for text in texts.iter().map(String::as_str).chain(["", "a", "b", "ab"]) {
                    let matches = regex.regex().is_match(text);
                    prop_assert_eq!(regex.is_match(text), matches, "{} on {:?}", pattern, text);
                    if let Some(set) = regex.set_matches() {
                        prop_assert_eq!(set.iter().any(|member| member == text), matches, "{} lists", pattern);
                    }
                    if matches {
                        prop_assert!(text.starts_with(regex.prefix()), "{} begins", pattern);
                    }
                }
            }
        }
    }
}
