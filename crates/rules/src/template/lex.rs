//! Template text to tokens, with Go's rules for delimiters, trim markers and comments.

/// What a token is. Those after `Variable` are keywords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The text is the message.
    Error,
    End,
    Text,
    LeftDelim,
    RightDelim,
    LeftParen,
    RightParen,
    Space,
    Pipe,
    Declare,
    Assign,
    /// A character without a meaning of its own, such as a comma.
    Char,
    Bool,
    Number,
    CharConstant,
    Str,
    RawStr,
    Identifier,
    Field,
    Variable,
    Dot,
    Nil,
    KeywordIf,
    KeywordElse,
    KeywordEnd,
    KeywordRange,
    KeywordWith,
    KeywordTemplate,
    KeywordDefine,
    KeywordBlock,
    KeywordBreak,
    KeywordContinue,
}

#[derive(Debug, Clone)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: std::borrow::Cow<'t, str>,
    pub(super) pos: usize,
    pub(super) line: usize,
}

const KEYWORDS: [(&str, Kind); 11] = [
    ("if", Kind::KeywordIf),
    ("else", Kind::KeywordElse),
    ("end", Kind::KeywordEnd),
    ("range", Kind::KeywordRange),
    ("with", Kind::KeywordWith),
    ("template", Kind::KeywordTemplate),
    ("define", Kind::KeywordDefine),
    ("block", Kind::KeywordBlock),
    ("break", Kind::KeywordBreak),
    ("continue", Kind::KeywordContinue),
    ("nil", Kind::Nil),
];

impl Token<'_> {
    /// As messages name it: keywords in angles, the rest quoted and cut at ten characters.
    pub(super) fn describe(&self) -> String {
        match self.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Error => self.text.to_string(),
            _ if self.is_keyword() => format!("<{}>", self.text),
            _ if self.text.len() > 10 => {
                let head: String = self.text.chars().take(10).collect();
                format!("{}...", tidewatch_model::quote(&head))
            }
            _ => tidewatch_model::quote(&self.text),
        }
    }

    fn is_keyword(&self) -> bool {
        self.kind == Kind::Dot || KEYWORDS.iter().any(|(_, kind)| *kind == self.kind)
    }
}

/// All tokens of `text`. The last one is `End` or `Error`.
pub(super) fn lex(text: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { text, pos: 0, start: 0, line: 1, parens: 0, tokens: Vec::new() };
    if let Err(message) = lexer.run() {
        let token = Token { kind: Kind::Error, text: message.into(), pos: lexer.start, line: lexer.line };
        lexer.tokens.push(token);
    }
    lexer.tokens
}

struct Lexer<'t> {
    text: &'t str,
    pos: usize,
    /// Where the token being read begins; everything before is in `tokens` or dropped.
    start: usize,
    /// The line of `start`.
    line: usize,
    parens: usize,
    tokens: Vec<Token<'t>>,
}

type Outcome = Result<(), String>;

impl<'t> Lexer<'t> {
    fn run(&mut self) -> Outcome {
        while let Some(ahead) = self.rest().find("{{") {
            self.text_until(self.pos + ahead);
            let trim = 2 * usize::from(has_left_trim(&self.rest()[2..]));
            if self.rest()[2 + trim..].starts_with("/*") {
                self.comment(2 + trim)?;
                continue;
            }
            self.pos += 2;
            self.emit(Kind::LeftDelim);
            self.pos += trim;
            self.skip();
            self.parens = 0;
            while !self.at_right_delim()? {
                self.inside_action()?;
            }
            self.right_delim();
        }
        self.pos = self.text.len();
        if self.pos > self.start {
            self.emit(Kind::Text);
        }
        self.emit(Kind::End);
        Ok(())
    }

    /// Emits the text before the delimiter at `delim`, its end cut where the action trims it.
    fn text_until(&mut self, delim: usize) {
        let text = &self.text[self.start..delim];
        let kept =
            if has_left_trim(&self.text[delim + 2..]) { text.trim_end_matches(is_space) } else { text };
        self.pos = self.start + kept.len();
        if !kept.is_empty() {
            self.emit(Kind::Text);
        }
        self.pos = delim;
        self.skip();
    }

    fn comment(&mut self, opening: usize) -> Outcome {
        let body = self.pos + opening + 2;
        let end = self.text[body..].find("*/").ok_or("unclosed comment")?;
        self.pos = body + end + 2;
        match self.right_delim_here() {
            None => return Err("comment ends before closing delimiter".to_owned()),
            Some(trim) => self.pass_right_delim(trim),
        }
        self.skip();
        Ok(())
    }

    /// Whether a right delimiter is next, and whether it trims.
    fn right_delim_here(&self) -> Option<bool> {
        let rest = self.rest();
        if has_right_trim(rest) && rest[2..].starts_with("}}") {
            return Some(true);
        }
        rest.starts_with("}}").then_some(false)
    }

    fn at_right_delim(&self) -> Result<bool, String> {
        match self.right_delim_here() {
            Some(_) if self.parens > 0 => Err("unclosed left paren".to_owned()),
            found => Ok(found.is_some()),
        }
    }

    fn right_delim(&mut self) {
        let trim = self.right_delim_here().expect("the caller saw it");
        if trim {
            self.pos += 2;
            self.skip();
        }
        self.pos += 2;
        self.emit(Kind::RightDelim);
        if trim {
            self.skip_spaces();
        }
        self.skip();
    }

    fn pass_right_delim(&mut self, trim: bool) {
        self.pos += if trim { 4 } else { 2 };
        if trim {
            self.skip_spaces();
        }
    }

    fn skip_spaces(&mut self) {
        self.pos += self.rest().len() - self.rest().trim_start_matches(is_space).len();
    }

    fn inside_action(&mut self) -> Outcome {
        let Some(next) = self.next() else { return Err("unclosed action".to_owned()) };
        match next {
            _ if is_space(next) => self.space(),
            '=' => self.emit(Kind::Assign),
            ':' if self.next() == Some('=') => self.emit(Kind::Declare),
            ':' => return Err("expected :=".to_owned()),
            '|' => self.emit(Kind::Pipe),
            '"' => self.quoted('"', Kind::Str, "unterminated quoted string")?,
            '\'' => self.quoted('\'', Kind::CharConstant, "unterminated character constant")?,
            '`' => self.raw_quoted()?,
            '$' => self.field_or_variable(Kind::Variable)?,
            '.' if !self.peek().is_some_and(|c| c.is_ascii_digit()) => self.field_or_variable(Kind::Field)?,
            '.' | '+' | '-' | '0'..='9' => self.number()?,
            '(' => {
                self.parens += 1;
                self.emit(Kind::LeftParen);
            }
            ')' if self.parens == 0 => return Err("unexpected right paren".to_owned()),
            ')' => {
                self.parens -= 1;
                self.emit(Kind::RightParen);
            }
            _ if is_alphanumeric(next) => self.identifier()?,
            ' '..='~' => self.emit(Kind::Char),
            _ => return Err(format!("unrecognized character in action: {}", unicode_name(next))),
        }
        Ok(())
    }

    fn space(&mut self) {
        while self.right_delim_here().is_none() && self.peek().is_some_and(is_space) {
            self.next();
        }
        self.emit(Kind::Space);
    }

    fn quoted(&mut self, quote: char, kind: Kind, unterminated: &str) -> Outcome {
        loop {
            match self.next() {
                Some('\\') => {
                    if self.next().is_none_or(|c| c == '\n') {
                        return Err(unterminated.to_owned());
                    }
                }
                None | Some('\n') => return Err(unterminated.to_owned()),
                Some(c) if c == quote => break,
                Some(_) => {}
            }
        }
        self.emit(kind);
        Ok(())
    }

    fn raw_quoted(&mut self) -> Outcome {
        let end = self.rest().find('`').ok_or("unterminated raw quoted string")?;
        self.pos += end + 1;
        self.emit(Kind::RawStr);
        Ok(())
    }

    fn field_or_variable(&mut self, kind: Kind) -> Outcome {
        if self.at_terminator() {
            self.emit(if kind == Kind::Variable { kind } else { Kind::Dot });
            return Ok(());
        }
        self.word();
        self.must_terminate()?;
        self.emit(kind);
        Ok(())
    }

    fn identifier(&mut self) -> Outcome {
        self.word();
        self.must_terminate()?;
        let word = &self.text[self.start..self.pos];
        let keyword = KEYWORDS.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
        self.emit(match word {
            "true" | "false" => Kind::Bool,
            _ => keyword.unwrap_or(Kind::Identifier),
        });
        Ok(())
    }

    fn word(&mut self) {
        while self.peek().is_some_and(is_alphanumeric) {
            self.next();
        }
    }

    fn must_terminate(&self) -> Outcome {
        match self.peek() {
            Some(next) if !self.at_terminator() => Err(format!("bad character {}", unicode_name(next))),
            _ => Ok(()),
        }
    }

    fn at_terminator(&self) -> bool {
        match self.peek() {
            None | Some('.' | ',' | '|' | ':' | ')' | '(') => true,
            Some(next) => is_space(next) || self.rest().starts_with("}}"),
        }
    }

    /// Takes what may be a number; whether it is one is for the parser to say.
    fn number(&mut self) -> Outcome {
        self.pos = self.start;
        self.accept("+-");
        let mut digits = "0123456789_";
        if self.accept("0") {
            if self.accept("xX") {
                digits = "0123456789abcdefABCDEF_";
            } else if self.accept("oO") {
                digits = "01234567_";
            } else if self.accept("bB") {
                digits = "01_";
            }
        }
        self.accept_run(digits);
        if self.accept(".") {
            self.accept_run(digits);
        }
        let exponent = match digits.len() {
            11 => "eE",
            23 => "pP",
            _ => "",
        };
        if self.accept(exponent) {
            self.accept("+-");
            self.accept_run("0123456789_");
        }
        if self.peek().is_some_and(|next| is_alphanumeric(next) || matches!(next, '+' | '-')) {
            self.next();
            let text = tidewatch_model::quote(&self.text[self.start..self.pos]);
            return Err(format!("bad number syntax: {text}"));
        }
        self.emit(Kind::Number);
        Ok(())
    }

    fn accept(&mut self, set: &str) -> bool {
        let found = self.peek().is_some_and(|next| set.contains(next));
        if found {
            self.pos += 1;
        }
        found
    }

    fn accept_run(&mut self, set: &str) {
        while self.accept(set) {}
    }

    fn rest(&self) -> &'t str {
        &self.text[self.pos..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.pos += next.len_utf8();
        Some(next)
    }

    fn emit(&mut self, kind: Kind) {
        let text = &self.text[self.start..self.pos];
        self.tokens.push(Token { kind, text: text.into(), pos: self.start, line: self.line });
        self.skip();
    }

    /// Forgets what was read since the last token.
    fn skip(&mut self) {
        self.line += self.text[self.start..self.pos].matches('\n').count();
        self.start = self.pos;
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn has_left_trim(after_delim: &str) -> bool {
    let mut chars = after_delim.chars();
    chars.next() == Some('-') && chars.next().is_some_and(is_space)
}

fn has_right_trim(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(is_space) && chars.next() == Some('-')
}

/// `U+0040 '@'`, the character only where it can be seen.
fn unicode_name(c: char) -> String {
    let code = format!("U+{:04X}", u32::from(c));
    if tidewatch_model::is_printable(c) { format!("{code} '{c}'") } else { code }
}
