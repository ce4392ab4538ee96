//! Walks a template's tree and writes its output.
//!
//! What costs is counted: every node, command and value by [`Limits::steps`], every byte that is
//! made by [`Limits::bytes`], templates within templates by [`CALLS_MAX`]. Recursion is bounded by
//! the depth of the tree, which the parser bounds, times the calls.

use std::fmt;

use super::functions::{self, Action, Function, Param};
use super::node::{Arg, Branch, Command, Node, Number, Pipe, TemplateCall, Term};
use super::parse::Templates;
use super::value::{Field, Value};
use super::{builtin, gotime};
use tidewatch_model::quote;

/// Calls of templates within one another; each may hold a tree of the parser's full depth.
const CALLS_MAX: usize = 32;

/// What surrounds a template.
pub(super) struct Host<'h> {
    pub(super) now_ms: i64,
    pub(super) external_url: &'h str,
    /// Answers a query with samples.
    pub(super) query: &'h mut dyn FnMut(&str) -> Result<Vec<Value>, String>,
}

/// What an expansion may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) steps: u64,
    pub(super) bytes: usize,
}

/// How values are looked up and written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    /// A map's key that is not there is a mistake, not an empty value.
    pub(super) missing_key_is_error: bool,
    /// The output is HTML: values are escaped unless they are HTML already.
    pub(super) html: bool,
}

/// Expands the template `name` of `templates` with `data` as its dot. `text` is what they were
/// parsed from.
pub(super) fn execute(
    templates: &Templates,
    (name, text): (&str, &str),
    data: &Value,
    host: &mut Host<'_>,
    (options, limits): (Options, Limits),
) -> Result<String, String> {
    let mut run = Run {
        templates,
        file: name,
        text,
        template: name,
        options,
        host,
        limits,
        calls: 0,
        variables: vec![("$", data.clone())],
        site: None,
        out: String::new(),
    };
    let Some(body) = templates.get(name) else {
        return Err(format!("template: {name}: {} is an incomplete or empty template", quote(name)));
    };
    run.walk(data, body)?;
    Ok(run.out)
}

/// What a message points at: the node that was looked at last.
type Site<'t> = Option<(usize, &'t dyn fmt::Display)>;

struct Run<'t, 'h, 'q> {
    templates: &'t Templates,
    /// The name under which all of the text was parsed.
    file: &'t str,
    text: &'t str,
    /// The template being run.
    template: &'t str,
    options: Options,
    host: &'h mut Host<'q>,
    /// What is left of them.
    limits: Limits,
    calls: usize,
    /// Innermost last; `$` is the first of a template.
    variables: Vec<(&'t str, Value)>,
    site: Site<'t>,
    out: String,
}

/// How a list of nodes ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

type Ran<T> = Result<T, String>;

impl<'t> Run<'t, '_, '_> {
    fn walk(&mut self, dot: &Value, nodes: &'t [Node]) -> Ran<Flow> {
        for node in nodes {
            self.step()?;
            let flow = match node {
                Node::Text(text) => self.write(text)?,
                Node::Action(pipe) => {
                    let value = self.pipeline(dot, pipe)?;
                    if pipe.declared.is_empty() { self.print(&value)? } else { Flow::Next }
                }
                Node::If(branches) => self.branches(dot, branches, false)?,
                Node::With(branches) => self.branches(dot, branches, true)?,
                Node::Range { pipe, body, otherwise } => self.range(dot, pipe, body, otherwise)?,
                Node::Template(call) => self.call_template(dot, call)?,
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn write(&mut self, text: &str) -> Ran<Flow> {
        self.charge(text.len())?;
        self.out.push_str(text);
        Ok(Flow::Next)
    }

    fn print(&mut self, value: &Value) -> Ran<Flow> {
        match (self.options.html, value) {
            (true, Value::Html(text)) => self.write(text),
            (true, Value::Nil) => Ok(Flow::Next),
            (true, _) => self.write(&builtin::escape_html(&value.text())),
            (false, _) => self.write(&value.text()),
        }
    }

    /// The first branch whose condition holds. A `with` makes the condition's value the dot.
    fn branches(&mut self, dot: &Value, branches: &'t [Branch], with: bool) -> Ran<Flow> {
        let mark = self.variables.len();
        let mut flow = Flow::Next;
        for branch in branches {
            let Some(condition) = &branch.condition else {
                flow = self.walk(dot, &branch.body)?;
                break;
            };
            let value = self.pipeline(dot, condition)?;
            if value.is_true() {
                flow = self.walk(if with { &value } else { dot }, &branch.body)?;
                break;
            }
        }
        self.variables.truncate(mark);
        Ok(flow)
    }

    fn range(&mut self, dot: &Value, pipe: &'t Pipe, body: &'t [Node], otherwise: &'t [Node]) -> Ran<Flow> {
        let mark = self.variables.len();
        let over = self.pipeline(dot, pipe)?;
        let two = pipe.declared.len() > 1;
        let mut count = 0;
        let mut rounds: Box<dyn Iterator<Item = (Value, Value)>> = match &over {
            Value::Nil => Box::new(std::iter::empty()),
            Value::Int(_) | Value::Uint(_) if two => {
                let over = over.text();
                return Err(self.error(format!("can't use {over} to iterate over more than one variable")));
            }
            Value::Int(n) => Box::new((0..*n).map(|i| (Value::Nil, Value::Int(i)))),
            Value::Uint(n) => Box::new((0..*n).map(|i| (Value::Nil, Value::Uint(i)))),
            Value::List(items) => {
                let items = items.clone();
                Box::new((0..items.len()).map(move |i| (Value::Int(i as i64), items[i].clone())))
            }
            Value::Labels(_) | Value::Args(_) => {
                Box::new(over.entries().into_iter().map(|(key, value)| (Value::str(&key), value)))
            }
            _ => {
                let over = over.text();
                return Err(self.error(format!("range can't iterate over {over}")));
            }
        };
        let inner = self.variables.len();
        for (key, element) in rounds.by_ref() {
            count += 1;
            self.step()?;
            self.bind_round(pipe, key, &element)?;
            let flow = self.walk(&element, body)?;
            self.variables.truncate(inner);
            if flow == Flow::Break {
                break;
            }
        }
        let flow = if count == 0 { self.walk(dot, otherwise)? } else { Flow::Next };
        self.variables.truncate(mark);
        Ok(flow)
    }

    /// Gives the variables of a loop their values for one round: the element, or key and element.
    fn bind_round(&mut self, pipe: &'t Pipe, key: Value, element: &Value) -> Ran<()> {
        match (pipe.declared.as_slice(), pipe.assign) {
            ([], _) => {}
            ([name], true) => self.assign(name, element.clone())?,
            ([first, second, ..], true) => {
                self.assign(first, key)?;
                self.assign(second, element.clone())?;
            }
            (declared, false) => {
                // The pipeline declared them, so they are the last ones.
                let last = self.variables.len() - 1;
                self.variables[last].1 = element.clone();
                if declared.len() > 1 {
                    self.variables[last - 1].1 = key;
                }
            }
        }
        Ok(())
    }

    fn call_template(&mut self, dot: &Value, call: &'t TemplateCall) -> Ran<Flow> {
        self.site = Some((call.pos, call));
        if !self.templates.contains_key(&call.name) {
            return Err(self.error(format!("template {} not defined", quote(&call.name))));
        }
        let dot = match &call.pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Value::Nil,
        };
        self.run_template(&call.name, &dot)?;
        Ok(Flow::Next)
    }

    /// Runs another template, which sees none of our variables.
    fn run_template(&mut self, name: &str, dot: &Value) -> Ran<()> {
        let Some((name, body)) = self.templates.get_key_value(name) else {
            return Err(self.error(format!("template {} not defined", quote(name))));
        };
        if self.calls == CALLS_MAX {
            return Err(self.error(format!("exceeded maximum template depth ({CALLS_MAX})")));
        }
        let outer = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        let caller = std::mem::replace(&mut self.template, name);
        self.calls += 1;
        self.walk(dot, body)?;
        self.calls -= 1;
        self.template = caller;
        self.variables = outer;
        Ok(())
    }

    fn pipeline(&mut self, dot: &Value, pipe: &'t Pipe) -> Ran<Value> {
        self.site = Some((pipe.pos, pipe));
        let mut value = None;
        for command in &pipe.commands {
            self.step()?;
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.expect("a pipeline has a command");
        for name in &pipe.declared {
            if pipe.assign {
                self.assign(name, value.clone())?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        Ok(value)
    }

    fn assign(&mut self, name: &str, value: Value) -> Ran<()> {
        match self.variables.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = value,
            None => return Err(self.error(format!("undefined variable: {name}"))),
        }
        Ok(())
    }

    /// One command; `piped` is the value of the one before it, its last argument.
    fn command(&mut self, dot: &Value, command: &'t Command, piped: Option<Value>) -> Ran<Value> {
        let (first, rest) = command.args.split_first().expect("a command has a term");
        let site = (command.pos, command as &dyn fmt::Display);
        match &first.term {
            Term::Function(name) => {
                self.site = Some((first.pos, first));
                return self.call(dot, name, site, rest, piped);
            }
            Term::Field(_) | Term::Variable(_) | Term::Chain { .. } => {
                return self.chain(dot, first, rest, piped);
            }
            Term::Pipe(pipe) => {
                self.refuse_arguments(first, rest, piped.as_ref())?;
                return self.pipeline(dot, pipe);
            }
            _ => {}
        }
        self.site = Some((first.pos, first));
        self.refuse_arguments(first, rest, piped.as_ref())?;
        match &first.term {
            Term::Nil => Err(self.error("nil is not a command".to_owned())),
            _ => self.literal(dot, first),
        }
    }

    fn refuse_arguments(&self, first: &Arg, rest: &[Arg], piped: Option<&Value>) -> Ran<()> {
        if rest.is_empty() && piped.is_none() {
            return Ok(());
        }
        Err(self.error(format!("can't give argument to non-function {first}")))
    }

    /// A term that is its own value.
    fn literal(&mut self, dot: &Value, arg: &'t Arg) -> Ran<Value> {
        match &arg.term {
            Term::Bool(b) => Ok(Value::Bool(*b)),
            Term::Dot => Ok(dot.clone()),
            Term::Str { text, .. } => Ok(Value::str(text)),
            Term::Number(number) => {
                self.site = Some((arg.pos, arg));
                self.constant(number)
            }
            _ => Err(self.error(format!("can't evaluate command {}", quote(&arg.to_string())))),
        }
    }

    /// A number where nothing says which type it is to have.
    fn constant(&self, number: &Number) -> Ran<Value> {
        match (number.looks_float, number.float, number.int) {
            (true, Some(float), _) => Ok(Value::Float(float)),
            (_, _, Some(int)) => Ok(Value::Int(int)),
            _ => Err(self.error(format!("{} overflows int", number.text))),
        }
    }

    /// Fields of the dot, of a variable, or of a pipeline's value.
    fn chain(&mut self, dot: &Value, arg: &'t Arg, rest: &'t [Arg], piped: Option<Value>) -> Ran<Value> {
        self.site = Some((arg.pos, arg));
        let (mut receiver, fields) = match &arg.term {
            Term::Field(fields) => (dot.clone(), fields.as_slice()),
            Term::Variable(parts) => {
                let found = self.variables.iter().rev().find(|(name, _)| *name == parts[0]);
                let Some((_, value)) = found else {
                    return Err(self.error(format!("undefined variable: {}", parts[0])));
                };
                (value.clone(), &parts[1..])
            }
            Term::Chain { of, fields } => {
                if matches!(of.term, Term::Nil) {
                    return Err(self.error(format!("indirection through explicit nil in {arg}")));
                }
                (self.argument(dot, Param::Any, of)?, fields.as_slice())
            }
            _ => unreachable!("the caller saw one of these"),
        };
        let Some((last, inner)) = fields.split_last() else {
            self.refuse_arguments(arg, rest, piped.as_ref())?;
            return Ok(receiver);
        };
        // Go forgets the type of what comes from a field of type `interface {}`.
        let mut of_any = false;
        for field in inner {
            let next = self.field(dot, (&receiver, of_any), field, arg, &[], None)?;
            of_any = matches!(receiver, Value::Args(_))
                || matches!(receiver, Value::Alert(_)) && field.as_str() == "Value";
            receiver = next;
        }
        self.field(dot, (&receiver, of_any), last, arg, rest, piped)
    }

    /// A method's result, a struct's field or a map's entry.
    fn field(
        &mut self,
        dot: &Value,
        (receiver, of_any): (&Value, bool),
        name: &str,
        arg: &'t Arg,
        rest: &'t [Arg],
        piped: Option<Value>,
    ) -> Ran<Value> {
        if let Value::Nil = receiver {
            if self.options.missing_key_is_error {
                return Err(self.error(format!("nil data; no entry for key {}", quote(name))));
            }
            if of_any {
                return Err(self.error(format!("nil pointer evaluating interface {{}}.{name}")));
            }
            return Ok(Value::Nil);
        }
        if matches!(receiver, Value::Time(_) | Value::Duration(_)) {
            let mut args = Vec::new();
            for arg in rest {
                args.push(self.argument(dot, Param::Any, arg)?);
            }
            args.extend(piped);
            if let Some(result) = gotime::call_method(receiver, name, &args) {
                self.site = Some((arg.pos, arg));
                return result.map_err(|message| self.error(format!("error calling {name}: {message}")));
            }
            return Err(self.no_field(receiver, of_any, name));
        }
        let has_args = !rest.is_empty() || piped.is_some();
        let is_map = matches!(receiver, Value::Labels(_) | Value::Args(_));
        match receiver.field(name) {
            Some(_) if has_args && is_map => {
                Err(self.error(format!("{name} is not a method but has arguments")))
            }
            Some(_) if has_args => {
                Err(self.error(format!("{name} has arguments but cannot be invoked as function")))
            }
            Some(Field::Found(value)) => Ok(value),
            Some(Field::Absent(_)) if self.options.missing_key_is_error => {
                Err(self.error(format!("map has no entry for key {}", quote(name))))
            }
            Some(Field::Absent(zero)) => Ok(zero),
            None => Err(self.no_field(receiver, of_any, name)),
        }
    }

    fn no_field(&self, receiver: &Value, of_any: bool, name: &str) -> String {
        let receiver = if of_any { "interface {}" } else { receiver.type_name() };
        self.error(format!("can't evaluate field {name} in type {receiver}"))
    }

    fn call(
        &mut self,
        dot: &Value,
        name: &str,
        site: (usize, &'t dyn fmt::Display),
        args: &'t [Arg],
        piped: Option<Value>,
    ) -> Ran<Value> {
        let Some(function) = functions::find(name) else {
            return Err(self.error(format!("{} is not a defined function", quote(name))));
        };
        self.check_count(function, args.len(), piped.is_some())?;
        if let Action::And | Action::Or = function.action {
            return self.short_circuit(dot, matches!(function.action, Action::Or), args, piped);
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in args {
            values.push(self.argument(dot, parameter(function, values.len()), arg)?);
        }
        if let Some(piped) = piped {
            values.push(self.checked(piped, parameter(function, values.len()))?);
        }
        let result = match function.action {
            Action::Pure(apply) => apply(&values),
            Action::Hosted(apply) => apply(self.host, &values),
            Action::Template => return self.template_value(&values),
            Action::And | Action::Or => unreachable!("handled above"),
        };
        match result {
            Ok(value) => {
                self.charge(value.len().unwrap_or(0))?;
                Ok(value)
            }
            Err(message) => {
                self.site = Some(site);
                Err(self.error(format!("error calling {name}: {message}")))
            }
        }
    }

    fn check_count(&self, function: &Function, args: usize, piped: bool) -> Ran<()> {
        let (name, want) = (function.name, function.params.len());
        let got = args + usize::from(piped);
        match function.variadic {
            Some(_) if got < want => {
                Err(self.error(format!("wrong number of args for {name}: want at least {want} got {args}")))
            }
            None if got != want => {
                Err(self.error(format!("wrong number of args for {name}: want {want} got {got}")))
            }
            _ => Ok(()),
        }
    }

    /// `and` and `or` stop at the argument that decides and give it.
    fn short_circuit(&mut self, dot: &Value, or: bool, args: &'t [Arg], piped: Option<Value>) -> Ran<Value> {
        let mut value = Value::Nil;
        for arg in args {
            value = self.argument(dot, Param::Any, arg)?;
            if value.is_true() == or {
                return Ok(value);
            }
        }
        Ok(piped.unwrap_or(value))
    }

    /// `tmpl`: the output of another template as a value.
    fn template_value(&mut self, values: &[Value]) -> Ran<Value> {
        let outer = std::mem::take(&mut self.out);
        self.run_template(&values[0].text(), &values[1])?;
        let inner = std::mem::replace(&mut self.out, outer);
        Ok(Value::Html(inner.into()))
    }

    fn argument(&mut self, dot: &Value, param: Param, arg: &'t Arg) -> Ran<Value> {
        self.step()?;
        self.site = Some((arg.pos, arg));
        let value = match &arg.term {
            Term::Dot => dot.clone(),
            Term::Nil if param == Param::Text => {
                return Err(self.error(format!("cannot assign nil to {}", param.type_name())));
            }
            Term::Nil => return Ok(Value::Nil),
            Term::Field(_) | Term::Variable(_) | Term::Chain { .. } => self.chain(dot, arg, &[], None)?,
            Term::Pipe(pipe) => self.pipeline(dot, pipe)?,
            Term::Function(name) => self.call(dot, name, (arg.pos, arg), &[], None)?,
            Term::Str { text, .. } if matches!(param, Param::Text | Param::Any) => {
                return Ok(Value::str(text));
            }
            Term::Bool(_) | Term::Number(_) | Term::Str { .. } => {
                return match param {
                    Param::Any => self.literal(dot, arg),
                    Param::Text => Err(self.error(format!("expected string; found {arg}"))),
                    _ => Err(self.error(format!("can't handle {arg} for arg of type {}", param.type_name()))),
                };
            }
        };
        self.checked(value, param)
    }

    /// Whether a value may be given for a parameter.
    fn checked(&self, value: Value, param: Param) -> Ran<Value> {
        match (param, &value) {
            (Param::Any, _)
            | (Param::Text, Value::Str(_))
            | (Param::Sample, Value::Sample(_) | Value::Nil)
            | (Param::Results, Value::List(_) | Value::Nil) => Ok(value),
            (Param::Text, Value::Nil) => Err(self.error("invalid value; expected string".to_owned())),
            _ => {
                let (want, got) = (param.type_name(), value.type_name());
                Err(self.error(format!("wrong type for value; expected {want}; got {got}")))
            }
        }
    }

    fn step(&mut self) -> Ran<()> {
        match self.limits.steps.checked_sub(1) {
            Some(left) => self.limits.steps = left,
            None => return Err(self.error("the template takes too many steps".to_owned())),
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Ran<()> {
        match self.limits.bytes.checked_sub(bytes) {
            Some(left) => self.limits.bytes = left,
            None => return Err(self.error("the template makes too much text".to_owned())),
        }
        Ok(())
    }

    /// A message with the place that was looked at last.
    fn error(&self, message: String) -> String {
        let Some((pos, node)) = self.site else {
            return format!("template: {}: {message}", self.template);
        };
        let before = &self.text[..pos.min(self.text.len())];
        let line = 1 + before.matches('\n').count();
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        let (file, template) = (self.file, quote(self.template));
        format!("template: {file}:{line}:{column}: executing {template} at <{node}>: {message}")
    }
}

/// What the argument at `index` is to be.
fn parameter(function: &Function, index: usize) -> Param {
    function.params.get(index).copied().or(function.variadic).unwrap_or(Param::Any)
}
