//! Tokens to a tree, by descent bounded to [`DEPTH_MAX`] levels.

use std::collections::HashMap;

use super::lex::{Kind, Token, lex};
use super::node::{Arg, Branch, Command, Node, Number, Pipe, TemplateCall, Term};
use super::verbs::unquote;
use tidewatch_model::quote;

/// Blocks and parentheses within one another. People nest five; the stack is for far more.
const DEPTH_MAX: usize = 64;

/// Templates by name. The text itself is the template under the name that it was parsed with.
pub(super) type Templates = HashMap<String, Vec<Node>>;

/// Parses `text`; `is_function` says which names are functions. The error is Go's:
/// `template: NAME:LINE: what`.
pub(super) fn parse(name: &str, text: &str, is_function: &dyn Fn(&str) -> bool) -> Result<Templates, String> {
    let mut parser = Parser {
        name,
        is_function,
        tokens: lex(text),
        next: 0,
        variables: vec!["$".to_owned()],
        ranges: 0,
        depth: 0,
        templates: HashMap::new(),
    };
    parser.run().map_err(|message| format!("template: {name}:{}: {message}", parser.line()))?;
    Ok(parser.templates)
}

struct Parser<'t> {
    name: &'t str,
    is_function: &'t dyn Fn(&str) -> bool,
    /// Never empty; the last is `End` or `Error` and is never passed.
    tokens: Vec<Token<'t>>,
    next: usize,
    /// Variables in scope; a block gives back those it declared.
    variables: Vec<String>,
    /// How many loops enclose what is being read.
    ranges: usize,
    depth: usize,
    templates: Templates,
}

/// What ended a list of nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListEnd {
    Eof,
    End,
    Else,
    /// `{{else if` or `{{else with`: the keyword is next.
    ElseChain(Kind),
}

impl ListEnd {
    fn describe(self) -> &'static str {
        match self {
            ListEnd::Eof => "EOF",
            ListEnd::End => "{{end}}",
            ListEnd::Else | ListEnd::ElseChain(_) => "{{else}}",
        }
    }
}

type Parsed<T> = Result<T, String>;

impl<'t> Parser<'t> {
    fn run(&mut self) -> Parsed<()> {
        let (nodes, end) = self.list()?;
        match end {
            ListEnd::Eof => self.define(self.name.to_owned(), nodes),
            _ => Err(format!("unexpected {}", end.describe())),
        }
    }

    /// The line of the last token that was taken.
    fn line(&self) -> usize {
        self.tokens[self.next.saturating_sub(1)].line
    }

    /// Nodes up to whatever closes the list.
    fn list(&mut self) -> Parsed<(Vec<Node>, ListEnd)> {
        let mut nodes = Vec::new();
        loop {
            let token = self.take();
            match token.kind {
                Kind::End => return Ok((nodes, ListEnd::Eof)),
                Kind::Text => nodes.push(Node::Text(token.text.into_owned())),
                Kind::LeftDelim => match self.action()? {
                    Ok(node) => nodes.extend(node),
                    Err(end) => return Ok((nodes, end)),
                },
                _ => return Err(self.unexpected(&token, "input")),
            }
        }
    }

    /// A list that must be closed.
    fn closed_list(&mut self) -> Parsed<(Vec<Node>, ListEnd)> {
        self.enter()?;
        let (nodes, end) = self.list()?;
        self.depth -= 1;
        if end == ListEnd::Eof {
            return Err("unexpected EOF".to_owned());
        }
        Ok((nodes, end))
    }

    fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("max expression depth exceeded".to_owned());
        }
        Ok(())
    }

    /// What stands between delimiters: perhaps a node, or the end of the list.
    fn action(&mut self) -> Parsed<Result<Option<Node>, ListEnd>> {
        let token = self.take_word();
        let node = match token.kind {
            Kind::KeywordEnd => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Err(ListEnd::End));
            }
            Kind::KeywordElse => return self.else_control().map(Err),
            Kind::KeywordIf => Node::If(self.branches(Kind::KeywordIf, "if")?),
            Kind::KeywordWith => Node::With(self.branches(Kind::KeywordWith, "with")?),
            Kind::KeywordRange => self.range()?,
            Kind::KeywordTemplate => Node::Template(self.template_call()?),
            Kind::KeywordBlock => Node::Template(self.block()?),
            Kind::KeywordDefine if self.depth == 0 => return self.definition().map(|()| Ok(None)),
            Kind::KeywordBreak => self.loop_control(Node::Break, "break")?,
            Kind::KeywordContinue => self.loop_control(Node::Continue, "continue")?,
            _ => {
                self.back();
                Node::Action(self.pipeline("command", Kind::RightDelim)?)
            }
        };
        Ok(Ok(Some(node)))
    }

    fn else_control(&mut self) -> Parsed<ListEnd> {
        let chained = self.peek_word().kind;
        if matches!(chained, Kind::KeywordIf | Kind::KeywordWith) {
            return Ok(ListEnd::ElseChain(chained));
        }
        self.expect(Kind::RightDelim, "else")?;
        Ok(ListEnd::Else)
    }

    /// `if` or `with` with all that follows it. A chain of `else if` is read in a loop, as it may
    /// be long.
    fn branches(&mut self, keyword: Kind, context: &str) -> Parsed<Vec<Branch>> {
        let scope = self.variables.len();
        let mut branches = Vec::new();
        loop {
            let condition = Some(self.pipeline(context, Kind::RightDelim)?);
            let (body, mut end) = self.closed_list()?;
            branches.push(Branch { condition, body });
            if end == ListEnd::ElseChain(keyword) {
                self.take_word();
                continue;
            }
            if end != ListEnd::End {
                let (body, last) = self.else_body(end)?;
                branches.push(Branch { condition: None, body });
                end = last;
            }
            self.variables.truncate(scope);
            return match end {
                ListEnd::End => Ok(branches),
                _ => Err(format!("expected end; found {}", end.describe())),
            };
        }
    }

    /// What follows an `else`: the rest of the list. A keyword that can not be chained here is
    /// out of place.
    fn else_body(&mut self, end: ListEnd) -> Parsed<(Vec<Node>, ListEnd)> {
        if let ListEnd::ElseChain(_) = end {
            let token = self.take_word();
            return Err(self.unexpected(&token, "input"));
        }
        self.closed_list()
    }

    fn range(&mut self) -> Parsed<Node> {
        let scope = self.variables.len();
        let pipe = self.pipeline("range", Kind::RightDelim)?;
        self.ranges += 1;
        let (body, mut end) = self.closed_list()?;
        self.ranges -= 1;
        let mut otherwise = Vec::new();
        if end != ListEnd::End {
            (otherwise, end) = self.else_body(end)?;
        }
        self.variables.truncate(scope);
        match end {
            ListEnd::End => Ok(Node::Range { pipe, body, otherwise }),
            _ => Err(format!("expected end; found {}", end.describe())),
        }
    }

    fn loop_control(&mut self, node: Node, word: &str) -> Parsed<Node> {
        let token = self.take_word();
        if token.kind != Kind::RightDelim {
            return Err(self.unexpected(&token, &format!("{{{{{word}}}}}")));
        }
        if self.ranges == 0 {
            return Err(format!("{{{{{word}}}}} outside {{{{range}}}}"));
        }
        Ok(node)
    }

    fn template_call(&mut self) -> Parsed<TemplateCall> {
        const CONTEXT: &str = "template clause";
        let pos = self.peek_word().pos;
        let name = self.template_name(CONTEXT)?;
        let pipe = if self.peek_word().kind == Kind::RightDelim {
            self.take_word();
            None
        } else {
            Some(self.pipeline(CONTEXT, Kind::RightDelim)?)
        };
        Ok(TemplateCall { pos, name, pipe })
    }

    fn template_name(&mut self, context: &str) -> Parsed<String> {
        let token = self.take_word();
        match token.kind {
            Kind::Str | Kind::RawStr => unquote(&token.text).ok_or_else(|| "invalid syntax".to_owned()),
            _ => Err(self.unexpected(&token, context)),
        }
    }

    /// A definition and its call in one.
    fn block(&mut self) -> Parsed<TemplateCall> {
        const CONTEXT: &str = "block clause";
        let pos = self.peek_word().pos;
        let name = self.template_name(CONTEXT)?;
        let pipe = Some(self.pipeline(CONTEXT, Kind::RightDelim)?);
        self.body_of(&name, CONTEXT)?;
        Ok(TemplateCall { pos, name, pipe })
    }

    fn definition(&mut self) -> Parsed<()> {
        const CONTEXT: &str = "define clause";
        let name = self.template_name(CONTEXT)?;
        self.expect(Kind::RightDelim, CONTEXT)?;
        self.body_of(&name, CONTEXT)
    }

    /// The body of a named template: it sees no variables but `$`.
    fn body_of(&mut self, name: &str, context: &str) -> Parsed<()> {
        let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let ranges = std::mem::take(&mut self.ranges);
        let (body, end) = self.closed_list()?;
        (self.variables, self.ranges) = (outer, ranges);
        if end != ListEnd::End {
            return Err(format!("unexpected {} in {context}", end.describe()));
        }
        self.define(name.to_owned(), body)
    }

    /// An empty template may be defined again, one with content not.
    fn define(&mut self, name: String, body: Vec<Node>) -> Parsed<()> {
        let is_empty = |nodes: &[Node]| {
            nodes.iter().all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
        };
        match self.templates.get(&name) {
            Some(known) if !is_empty(known) => {
                if is_empty(&body) {
                    return Ok(());
                }
                return Err(format!("template: multiple definition of template {}", quote(&name)));
            }
            _ => drop(self.templates.insert(name, body)),
        }
        Ok(())
    }

    /// `declarations? command ('|' command)*`, up to and including `end`.
    fn pipeline(&mut self, context: &str, end: Kind) -> Parsed<Pipe> {
        let pos = self.peek_word().pos;
        let mut pipe = Pipe { pos, declared: Vec::new(), assign: false, commands: Vec::new() };
        self.declarations(context, &mut pipe)?;
        loop {
            let token = self.take_word();
            match token.kind {
                kind if kind == end => break,
                Kind::Bool
                | Kind::CharConstant
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawStr
                | Kind::Str
                | Kind::Variable
                | Kind::LeftParen => {
                    self.back();
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return Err(self.unexpected(&token, context)),
            }
        }
        if pipe.commands.is_empty() {
            return Err(format!("missing value for {context}"));
        }
        for (i, command) in pipe.commands.iter().enumerate().skip(1) {
            if matches!(
                command.args[0].term,
                Term::Bool(_) | Term::Dot | Term::Nil | Term::Number(_) | Term::Str { .. }
            ) {
                return Err(format!("non executable command in pipeline stage {}", i + 1));
            }
        }
        Ok(pipe)
    }

    fn declarations(&mut self, context: &str, pipe: &mut Pipe) -> Parsed<()> {
        loop {
            let before = self.next;
            let variable = self.take_word();
            let operator = self.take_word();
            let comma = operator.kind == Kind::Char && operator.text == ",";
            if variable.kind != Kind::Variable
                || !(comma || matches!(operator.kind, Kind::Assign | Kind::Declare))
            {
                self.next = before;
                return Ok(());
            }
            pipe.declared.push(variable.text.to_string());
            self.variables.push(variable.text.into_owned());
            if !comma {
                pipe.assign = operator.kind == Kind::Assign;
                return Ok(());
            }
            if context != "range" || pipe.declared.len() > 1 {
                return Err(format!("too many declarations in {context}"));
            }
            match self.peek_word().kind {
                Kind::Variable | Kind::RightDelim | Kind::RightParen => {}
                _ => return Err("range can only initialize variables".to_owned()),
            }
        }
    }

    /// Operands between spaces, up to a pipe, which is taken, or the end of the pipeline.
    fn command(&mut self) -> Parsed<Command> {
        let pos = self.peek_word().pos;
        let mut args = Vec::new();
        loop {
            self.peek_word();
            args.extend(self.operand()?);
            let token = self.take();
            match token.kind {
                Kind::Space => continue,
                Kind::RightDelim | Kind::RightParen => self.back(),
                Kind::Pipe => {}
                _ => return Err(self.unexpected(&token, "operand")),
            }
            break;
        }
        if args.is_empty() {
            return Err("empty command".to_owned());
        }
        Ok(Command { pos, args })
    }

    /// A term and the fields that follow it without a space.
    fn operand(&mut self) -> Parsed<Option<Arg>> {
        let Some(arg) = self.term()? else { return Ok(None) };
        let pos = self.peek().pos;
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field {
            fields.push(self.take().text[1..].to_owned());
        }
        if fields.is_empty() {
            return Ok(Some(arg));
        }
        let term = match arg.term {
            Term::Field(mut parts) => {
                parts.append(&mut fields);
                Term::Field(parts)
            }
            Term::Variable(mut parts) => {
                parts.append(&mut fields);
                Term::Variable(parts)
            }
            Term::Bool(_) | Term::Str { .. } | Term::Number(_) | Term::Nil | Term::Dot => {
                return Err(format!("unexpected . after term {}", quote(&arg.to_string())));
            }
            _ => Term::Chain { of: Box::new(arg), fields },
        };
        Ok(Some(Arg { pos, term }))
    }

    fn term(&mut self) -> Parsed<Option<Arg>> {
        let token = self.take_word();
        let text = token.text.as_ref();
        let term = match token.kind {
            Kind::Identifier if !(self.is_function)(text) => {
                return Err(format!("function {} not defined", quote(text)));
            }
            Kind::Identifier => Term::Function(text.to_owned()),
            Kind::Dot => Term::Dot,
            Kind::Nil => Term::Nil,
            Kind::Bool => Term::Bool(text == "true"),
            Kind::Field => Term::Field(vec![text[1..].to_owned()]),
            Kind::Variable if !self.variables.iter().any(|known| known == text) => {
                return Err(format!("undefined variable {}", quote(text)));
            }
            Kind::Variable => Term::Variable(vec![text.to_owned()]),
            Kind::Number | Kind::CharConstant => Term::Number(number(text)?),
            Kind::Str | Kind::RawStr => {
                let value = unquote(text).ok_or("invalid syntax")?;
                Term::Str { quoted: text.to_owned(), text: value }
            }
            Kind::LeftParen => {
                self.enter()?;
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                return Ok(Some(Arg { pos: pipe.pos, term: Term::Pipe(Box::new(pipe)) }));
            }
            _ => {
                self.back();
                return Ok(None);
            }
        };
        Ok(Some(Arg { pos: token.pos, term }))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parsed<()> {
        let token = self.take_word();
        if token.kind == kind { Ok(()) } else { Err(self.unexpected(&token, context)) }
    }

    fn unexpected(&self, token: &Token<'_>, context: &str) -> String {
        if token.kind != Kind::Error {
            return format!("unexpected {} in {context}", token.describe());
        }
        let opened = self.tokens.iter().rev().find(|token| token.kind == Kind::LeftDelim);
        match opened.map(|delim| delim.line).filter(|line| *line != token.line) {
            None => token.text.to_string(),
            Some(line) => {
                let action = if token.text.ends_with(" action") { "" } else { " in action" };
                format!("{}{action} started at {}:{line}", token.text, self.name)
            }
        }
    }

    fn peek(&self) -> &Token<'t> {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token<'t> {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len());
        token
    }

    /// Undoes the last `take`.
    fn back(&mut self) {
        self.next -= 1;
    }

    /// Passes space and looks at what follows.
    fn peek_word(&mut self) -> &Token<'t> {
        while self.peek().kind == Kind::Space {
            self.next += 1;
        }
        self.peek()
    }

    fn take_word(&mut self) -> Token<'t> {
        self.peek_word();
        self.take()
    }
}

/// A constant in every type that can hold it.
fn number(text: &str) -> Parsed<Number> {
    let bad = || format!("illegal number syntax: {}", quote(text));
    if let Some(inner) = text.strip_prefix('\'') {
        let quoted = inner.strip_suffix('\'').ok_or_else(bad)?;
        // The syntax of texts, but for which quote needs a backslash.
        let value = match quoted {
            "\"" => "\"".to_owned(),
            "\\'" => "'".to_owned(),
            _ => unquote(&format!("\"{quoted}\"")).ok_or("invalid syntax")?,
        };
        let mut chars = value.chars();
        let (Some(c), None) = (chars.next(), chars.next()) else {
            return Err(format!("malformed character constant: {text}"));
        };
        let int = i64::from(u32::from(c));
        return Ok(Number {
            text: text.to_owned(),
            int: Some(int),
            uint: Some(int as u64),
            float: Some(int as f64),
            looks_float: false,
        });
    }
    let (mut int, mut uint) = (parse_int(text), parse_uint(text));
    let is_hex = text.trim_start_matches(['+', '-']).get(..2).is_some_and(|p| p.eq_ignore_ascii_case("0x"));
    let looks_float = !is_hex && text.contains(['.', 'e', 'E']);
    let float = match int {
        Some(value) => Some(value as f64),
        None if uint.is_some() => uint.map(|value| value as f64),
        None if is_hex => None,
        None => text.replace('_', "").parse::<f64>().ok().filter(|value| value.is_finite()),
    };
    if let (None, None, Some(value)) = (int, uint, float) {
        if !looks_float {
            return Err(format!("integer overflow: {}", quote(text)));
        }
        // A float with an integer's value can stand where an integer is wanted.
        int = (value as i64 as f64 == value).then_some(value as i64);
        uint = (value as u64 as f64 == value).then_some(value as u64);
    }
    if int.is_none() && uint.is_none() && float.is_none() {
        return Err(bad());
    }
    Ok(Number { text: text.to_owned(), int, uint, float, looks_float })
}

fn parse_int(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_uint(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

/// Go's base prefixes; a leading zero means octal.
fn parse_uint(text: &str) -> Option<u64> {
    let plain = text.replace('_', "");
    let (digits, radix) = match plain.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&plain[2..], 16),
        [b'0', b'o' | b'O', ..] => (&plain[2..], 8),
        [b'0', b'b' | b'B', ..] => (&plain[2..], 2),
        [b'0', _, ..] => (&plain[1..], 8),
        _ => (plain.as_str(), 10),
    };
    let all_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    all_digits.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}
