//! The tree of a template. Nodes know the byte where they begin, and print as Go prints them in
//! the messages that point at them.

use std::fmt;

#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    /// `if` and `else if` in turn: the first branch whose condition holds.
    If(Vec<Branch>),
    /// `with` and `else with` in turn.
    With(Vec<Branch>),
    Range {
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Template(TemplateCall),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct Branch {
    /// Absent for the `else` at the end.
    pub(super) condition: Option<Pipe>,
    pub(super) body: Vec<Node>,
}

#[derive(Debug)]
pub(super) struct TemplateCall {
    pub(super) pos: usize,
    pub(super) name: String,
    pub(super) pipe: Option<Pipe>,
}

/// `$declared := command | command`
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) pos: usize,
    pub(super) declared: Vec<String>,
    /// `=`: the variables are there already.
    pub(super) assign: bool,
    pub(super) commands: Vec<Command>,
}

/// A term and its arguments; never empty.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) pos: usize,
    pub(super) args: Vec<Arg>,
}

#[derive(Debug)]
pub(super) struct Arg {
    pub(super) pos: usize,
    pub(super) term: Term,
}

#[derive(Debug)]
pub(super) enum Term {
    Bool(bool),
    Dot,
    Nil,
    Number(Number),
    Str {
        quoted: String,
        text: String,
    },
    /// `.A.B`
    Field(Vec<String>),
    /// `$x.A.B`: the name, then the fields.
    Variable(Vec<String>),
    Function(String),
    Pipe(Box<Pipe>),
    /// Fields of something that is neither a field nor a variable: `(pipe).A.B`.
    Chain {
        of: Box<Arg>,
        fields: Vec<String>,
    },
}

/// A constant, in every type that can hold it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number {
    pub(super) text: String,
    pub(super) int: Option<i64>,
    pub(super) uint: Option<u64>,
    pub(super) float: Option<f64>,
    /// Without a known type the syntax decides: a point or exponent makes it a float.
    pub(super) looks_float: bool,
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.declared.is_empty() {
            write!(f, "{} {} ", self.declared.join(", "), if self.assign { "=" } else { ":=" })?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if i > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, arg) in self.args.iter().enumerate() {
            let space = if i > 0 { " " } else { "" };
            match &arg.term {
                Term::Pipe(pipe) => write!(f, "{space}({pipe})")?,
                _ => write!(f, "{space}{arg}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.term {
            Term::Bool(value) => write!(f, "{value}"),
            Term::Dot => f.write_str("."),
            Term::Nil => f.write_str("nil"),
            Term::Number(number) => f.write_str(&number.text),
            Term::Str { quoted, .. } => f.write_str(quoted),
            Term::Field(fields) => write!(f, ".{}", fields.join(".")),
            Term::Variable(parts) => f.write_str(&parts.join(".")),
            Term::Function(name) => f.write_str(name),
            Term::Pipe(pipe) => pipe.fmt(f),
            Term::Chain { of, fields } => match &of.term {
                Term::Pipe(pipe) => write!(f, "({pipe}).{}", fields.join(".")),
                _ => write!(f, "{of}.{}", fields.join(".")),
            },
        }
    }
}

impl fmt::Display for TemplateCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", tidewatch_model::quote(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}
