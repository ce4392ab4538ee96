//! Go's regular expressions in Rust's spelling.
//!
//! Both are RE2's language, but Go's `\d`, `\s`, `\w` and `\b` are ASCII, its classes know neither
//! nesting nor `&&`, `--` and `~~`, a brace that is no repetition is a brace, and `\Q…\E` and
//! octal escapes exist. The walk below reads Go's grammar and writes what means the same to
//! Rust's parser; what Go refuses it refuses, with Go's text.

use std::iter::Peekable;
use std::str::CharIndices;

use super::classes;

/// Repetitions above this count are refused, as in Go, and those within one another whose product is above it.
const REPEAT_MAX: u32 = 1000;

/// Translates `pattern`, or gives Go's message about it.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut walk = Walk {
        pattern,
        chars: pattern.char_indices().peekable(),
        out: String::with_capacity(pattern.len() + 16),
        repeated: vec![1],
        operand: 1,
        named: 0,
        last: Last::Nothing,
    };
    walk.expression()?;
    Ok(walk.out)
}

/// What stands before the cursor: whether a repetition may follow.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    /// The start of the expression, of a group or of an alternative.
    Nothing,
    Operand,
    /// A repetition, which starts at this byte.
    Repetition(usize),
}

struct Walk<'a> {
    pattern: &'a str,
    chars: Peekable<CharIndices<'a>>,
    out: String,
    /// Of the expression and of each open group, how often the most repeated part of its operands is repeated.
    repeated: Vec<u32>,
    /// The same of the last operand.
    operand: u32,
    /// How many groups have a name.
    named: u32,
    last: Last,
}

fn error<T>(what: &str, text: &str) -> Result<T, String> {
    Err(format!("error parsing regexp: {what}: `{text}`"))
}

impl<'a> Walk<'a> {
    /// The byte at which the cursor stands.
    fn pos(&mut self) -> usize {
        self.chars.peek().map_or(self.pattern.len(), |(at, _)| *at)
    }

    fn rest(&mut self) -> &'a str {
        let pos = self.pos();
        &self.pattern[pos..]
    }

    fn accept(&mut self, wanted: char) -> bool {
        self.chars.next_if(|(_, c)| *c == wanted).is_some()
    }

    fn advance_to(&mut self, pos: usize) {
        while self.chars.next_if(|(at, _)| *at < pos).is_some() {}
    }

    fn expression(&mut self) -> Result<(), String> {
        while let Some((at, c)) = self.chars.next() {
            match c {
                '(' => self.group(at)?,
                ')' if self.open() == 0 => return error("unexpected )", self.pattern),
                ')' => {
                    self.close();
                    self.out.push(')');
                    self.last = Last::Operand;
                }
                '|' => {
                    self.out.push('|');
                    self.last = Last::Nothing;
                }
                '*' | '+' | '?' => self.repeat(at, c.encode_utf8(&mut [0; 4]))?,
                '{' => match counted(&self.pattern[at..]) {
                    Some((len, most)) => {
                        let text = &self.pattern[at..at + len];
                        if most.is_none_or(|most| most > REPEAT_MAX) {
                            return error("invalid repeat count", text);
                        }
                        self.advance_to(at + len);
                        self.repeat(at, text)?;
                        self.count(most, text)?;
                    }
                    None => self.literal('{'),
                },
                '[' => self.class(at)?,
                '\\' => self.escape(at)?,
                '.' | '^' | '$' => self.operand(c.encode_utf8(&mut [0; 4])),
                literal => self.literal(literal),
            }
        }
        if self.open() > 0 {
            return error("missing closing )", self.pattern);
        }
        Ok(())
    }

    fn operand(&mut self, text: &str) {
        self.out.push_str(text);
        self.begin_operand();
    }

    fn literal(&mut self, c: char) {
        push_literal(&mut self.out, c);
        self.begin_operand();
    }

    fn begin_operand(&mut self) {
        self.end_operand();
        self.last = Last::Operand;
    }

    /// No repetition of the last operand follows.
    fn end_operand(&mut self) {
        let operand = std::mem::replace(&mut self.operand, 1);
        let most = self.repeated.last_mut().expect("the expression is the first");
        *most = (*most).max(operand);
    }

    /// How many groups are open.
    fn open(&self) -> usize {
        self.repeated.len() - 1
    }

    fn open_group(&mut self) {
        self.end_operand();
        self.repeated.push(1);
        self.last = Last::Nothing;
    }

    /// Ends a group, which is an operand.
    fn close(&mut self) {
        self.end_operand();
        self.operand = self.repeated.pop().expect("a group is open");
    }

    /// Reads a repetition whose operator `text` starts at `at`, with the `?` that makes it lazy.
    fn repeat(&mut self, at: usize, text: &str) -> Result<(), String> {
        let lazy = self.accept('?');
        match self.last {
            Last::Nothing => {
                let end = at + text.len() + usize::from(lazy);
                return error("missing argument to repetition operator", &self.pattern[at..end]);
            }
            Last::Repetition(start) => {
                let end = at + text.len() + usize::from(lazy);
                return error("invalid nested repetition operator", &self.pattern[start..end]);
            }
            Last::Operand => {}
        }
        self.out.push_str(text);
        if lazy {
            self.out.push('?');
        }
        self.last = Last::Repetition(at);
        Ok(())
    }

    /// Repetitions within repetitions multiply; where nothing is taken nothing is within.
    fn count(&mut self, most: Option<u32>, text: &str) -> Result<(), String> {
        let most = most.unwrap_or_default();
        // Without an upper bound there is something within.
        let most = if text.ends_with(",}") { most.max(1) } else { most };
        let product = self.operand.saturating_mul(most);
        if most >= 2 && product > REPEAT_MAX {
            return error("invalid repeat count", text);
        }
        self.operand = product.max(1);
        Ok(())
    }

    /// Reads what opens a group, or flags for the rest of one.
    fn group(&mut self, at: usize) -> Result<(), String> {
        if !self.accept('?') {
            self.open_group();
            self.out.push('(');
            return Ok(());
        }
        let rest = self.rest();
        if rest.starts_with("P<") || rest.starts_with('<') {
            return self.named_group(at, rest);
        }
        self.flags(at)
    }

    fn named_group(&mut self, at: usize, rest: &str) -> Result<(), String> {
        let start = rest.find('<').expect("checked by the caller") + 1;
        let Some(len) = rest[start..].find('>') else {
            return error("invalid named capture", &self.pattern[at..]);
        };
        let name = &rest[start..start + len];
        let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !valid {
            return error("invalid named capture", &self.pattern[at..at + 2 + start + len + 1]);
        }
        self.named += 1;
        self.out.push_str(&format!("(?P<{}>", numbered_name(self.named, name)));
        let end = self.pos() + start + len + 1;
        self.advance_to(end);
        self.open_group();
        Ok(())
    }

    /// Reads `i`, `m`, `s`, `U` and `-` up to `)` or `:`.
    fn flags(&mut self, at: usize) -> Result<(), String> {
        // The last word about a flag counts; Rust takes one only.
        let (mut set, mut cleared) = (String::new(), String::new());
        let (mut negated, mut any) = (false, false);
        for (pos, c) in self.chars.by_ref() {
            match c {
                'i' | 'm' | 's' | 'U' => {
                    any = true;
                    set.retain(|flag| flag != c);
                    cleared.retain(|flag| flag != c);
                    if negated { &mut cleared } else { &mut set }.push(c);
                }
                '-' if !negated => (negated, any) = (true, false),
                ':' | ')' if !negated || any => {
                    if c == ':' {
                        self.open_group();
                    }
                    // Empty flags are nothing to Go and an error to Rust.
                    if c == ':' || any {
                        let dash = if cleared.is_empty() { "" } else { "-" };
                        self.out.push_str(&format!("(?{set}{dash}{cleared}{c}"));
                    }
                    return Ok(());
                }
                _ => {
                    let end = pos + c.len_utf8();
                    return error("invalid or unsupported Perl syntax", &self.pattern[at..end]);
                }
            }
        }
        error("invalid or unsupported Perl syntax", &self.pattern[at..])
    }

    /// Reads an escape outside of a class, whose backslash stands at `at`.
    fn escape(&mut self, at: usize) -> Result<(), String> {
        let Some((_, c)) = self.chars.peek().copied() else {
            return error("trailing backslash at end of expression", "");
        };
        let text = match c {
            'Q' => {
                self.chars.next();
                return self.quoted();
            }
            'E' if self.out.is_empty() && at > 0 => "",
            'A' => "\\A",
            'z' => "\\z",
            'b' => "(?-u:\\b)",
            'B' => "(?-u:\\B)",
            'C' => return error("invalid escape sequence", &self.pattern[at..at + 2]),
            _ => {
                if let Some(class) = self.class_escape(at)? {
                    self.operand(&format!("[{class}]"));
                } else {
                    let c = self.char_escape(at)?;
                    self.literal(c);
                }
                return Ok(());
            }
        };
        self.chars.next();
        self.operand(text);
        Ok(())
    }

    /// Takes literals up to `\E`. Without it Go would quote the anchors too, and miss a parenthesis.
    fn quoted(&mut self) -> Result<(), String> {
        let rest = self.rest();
        let Some(len) = rest.find("\\E") else {
            let anchored = format!("^(?s:{})$", self.pattern);
            return error("missing closing )", if self.open() > 0 { self.pattern } else { &anchored });
        };
        let end = self.pos() + len + 2;
        for c in rest[..len].chars() {
            self.literal(c);
        }
        self.advance_to(end);
        Ok(())
    }

    /// Reads `d`, `S`, `pL`, `p{Greek}` …: items of a class. `None` where something else follows.
    fn class_escape(&mut self, at: usize) -> Result<Option<String>, String> {
        let Some((_, c)) = self.chars.peek().copied() else { return Ok(None) };
        let items = match c {
            'd' => "0-9",
            'D' => "[^0-9]",
            'w' => "0-9A-Za-z_",
            'W' => "[^0-9A-Za-z_]",
            's' => "\\t\\n\\f\\r\\x20",
            'S' => "[^\\t\\n\\f\\r\\x20]",
            'p' | 'P' => return self.unicode_class(at).map(Some),
            _ => return Ok(None),
        };
        self.chars.next();
        Ok(Some(items.to_owned()))
    }

    fn unicode_class(&mut self, at: usize) -> Result<String, String> {
        self.chars.next();
        let start = self.pos();
        match self.chars.next() {
            None => return error("invalid character class range", &self.pattern[at..]),
            Some((_, '{')) => {
                let Some(len) = self.pattern[start..].find('}') else {
                    return error("invalid character class range", &self.pattern[at..]);
                };
                self.advance_to(start + len + 1);
            }
            Some(_) => {}
        }
        let end = self.pos();
        let text = &self.pattern[at..end];
        let braced = text[2..].strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        let name = braced.unwrap_or(&text[2..]);
        // Go negates within the braces, too.
        let (name, inner) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
        let class = classes::class(name, text.starts_with("\\P") != inner);
        class.map_or_else(|| error("invalid character class range", text), Ok)
    }

    /// Reads an escape that stands for one character.
    fn char_escape(&mut self, at: usize) -> Result<char, String> {
        let Some((_, c)) = self.chars.next() else {
            return error("trailing backslash at end of expression", "");
        };
        let found = match c {
            'a' => Some('\x07'),
            'f' => Some('\x0c'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\x0b'),
            'x' => self.hex(),
            // One digit alone would be a reference to a group, which RE2 does not have.
            '1'..='7' if !self.rest().starts_with(|c| ('0'..='7').contains(&c)) => None,
            '0'..='7' => Some(self.octal(c)),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(c),
            _ => None,
        };
        match found {
            Some(c) => Ok(c),
            None => {
                let end = self.pos();
                error("invalid escape sequence", &self.pattern[at..end])
            }
        }
    }

    fn octal(&mut self, first: char) -> char {
        let mut code = first.to_digit(8).expect("matched as octal");
        for _ in 0..2 {
            let Some((_, c)) = self.chars.next_if(|(_, c)| c.is_digit(8)) else { break };
            code = code * 8 + c.to_digit(8).expect("matched as octal");
        }
        char::from_u32(code).expect("three octal digits are below the surrogates")
    }

    /// `7f` or `{10ffff}`.
    fn hex(&mut self) -> Option<char> {
        let digits = if self.accept('{') {
            let rest = self.rest();
            let len = rest.find('}')?;
            let end = self.pos() + len + 1;
            self.advance_to(end);
            &rest[..len]
        } else {
            let rest = self.rest();
            let digits = rest.get(..2)?;
            let end = self.pos() + 2;
            self.advance_to(end);
            digits
        };
        let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        char::from_u32(u32::from_str_radix(digits, 16).ok().filter(|_| valid)?)
    }

    /// Reads a class in brackets, which opens at `at`.
    fn class(&mut self, at: usize) -> Result<(), String> {
        self.out.push('[');
        if self.accept('^') {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let pos = self.pos();
            let Some((_, c)) = self.chars.peek().copied() else {
                return error("missing closing ]", &self.pattern[at..]);
            };
            if c == ']' && !first {
                self.chars.next();
                break;
            }
            first = false;
            if let Some(len) = posix_class(&self.pattern[pos..]) {
                let name = &self.pattern[pos..pos + len];
                if !is_posix_name(name) {
                    return error("invalid character class range", name);
                }
                self.out.push_str(name);
                self.advance_to(pos + len);
                continue;
            }
            self.class_item(pos)?;
        }
        self.out.push(']');
        self.last = Last::Operand;
        Ok(())
    }

    /// Reads a character, a range or an escape of a class.
    fn class_item(&mut self, pos: usize) -> Result<(), String> {
        if self.accept('\\') {
            if let Some(items) = self.class_escape(pos)? {
                self.out.push_str(&items);
                return Ok(());
            }
            let low = self.char_escape(pos)?;
            return self.class_range(pos, low);
        }
        let (_, low) = self.chars.next().expect("peeked by the caller");
        self.class_range(pos, low)
    }

    /// Reads `-high` behind `low`, if it is there.
    fn class_range(&mut self, pos: usize, low: char) -> Result<(), String> {
        push_literal(&mut self.out, low);
        let rest = self.rest();
        if !rest.starts_with('-') || rest.starts_with("-]") || rest.len() == 1 {
            return Ok(());
        }
        self.chars.next();
        let at = self.pos();
        let high = if self.accept('\\') {
            self.char_escape(at)?
        } else {
            self.chars.next().expect("more than a dash is left").1
        };
        if high < low {
            let end = self.pos();
            return error("invalid character class range", &self.pattern[pos..end]);
        }
        self.out.push('-');
        push_literal(&mut self.out, high);
        Ok(())
    }
}

/// The name of a group in Rust's spelling. Rust wants each name once and no digit in front, which Go does not; nor has Go
/// dots in names.
fn numbered_name(number: u32, name: &str) -> String {
    format!("_{number}.{name}")
}

/// The name that a group has in the pattern, of its name in Rust's spelling.
pub(super) fn name_in_pattern(numbered: &str) -> &str {
    numbered.split_once('.').map_or(numbered, |(_, name)| name)
}

/// Writes a character so that it means itself, within a class and without.
fn push_literal(out: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        out.push(c);
    } else if c.is_ascii_graphic() && c != '<' && c != '>' {
        out.push('\\');
        out.push(c);
    } else {
        out.push_str(&format!("\\x{:02x}", u32::from(c)));
    }
}

/// Reads `{n}`, `{n,}` or `{n,m}`: its length and its greatest number, `None` for one that is
/// beyond reason or smaller than the one before it.
fn counted(text: &str) -> Option<(usize, Option<u32>)> {
    let body = text.strip_prefix('{')?;
    let body = &body[..body.find('}')?];
    let (low, high) = body.split_once(',').map_or((body, None), |(low, high)| (low, Some(high)));
    let is_number = |text: &str| {
        let leading_zero = text.len() > 1 && text.starts_with('0');
        !text.is_empty() && !leading_zero && text.bytes().all(|b| b.is_ascii_digit())
    };
    if !is_number(low) || high.is_some_and(|high| !high.is_empty() && !is_number(high)) {
        return None;
    }
    let low = low.parse::<u32>().ok();
    let high = match high {
        None | Some("") => low,
        Some(high) => high.parse::<u32>().ok(),
    };
    let most = low.zip(high).filter(|(low, high)| low <= high).map(|(_, high)| high);
    Some((body.len() + 2, most))
}

/// The length of `[:name:]` at the start of `text`.
fn posix_class(text: &str) -> Option<usize> {
    let body = text.strip_prefix("[:")?;
    Some(body.find(":]")? + 4)
}

fn is_posix_name(class: &str) -> bool {
    let name = class.trim_start_matches("[:").trim_start_matches('^').trim_end_matches(":]");
    matches!(
        name,
        "alnum"
            | "alpha"
            | "ascii"
            | "blank"
            | "cntrl"
            | "digit"
            | "graph"
            | "lower"
            | "print"
            | "punct"
            | "space"
            | "upper"
            | "word"
            | "xdigit"
    )
}
