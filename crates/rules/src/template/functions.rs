//! The functions of templates: their names, their parameters, and those that Prometheus adds.

use std::collections::BTreeMap;
use std::rc::Rc;

use tidewatch_model::regex::{replace_all, search};

use super::builtin;
use super::exec::Host;
use super::humanize;
use super::value::{TemplateSample, Value};

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Param {
    Any,
    Text,
    Sample,
    Results,
}

impl Param {
    /// The name of the type in Go.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Text => "string",
            Self::Sample => "*template.sample",
            Self::Results => "template.queryResult",
        }
    }
}

/// What calling a function does.
#[derive(Clone, Copy)]
pub(super) enum Action {
    /// The first argument that decides; later ones are not evaluated.
    And,
    Or,
    Pure(fn(&[Value]) -> Result<Value, String>),
    /// Needs what surrounds the template: queries, time, addresses.
    Hosted(fn(&mut Host<'_>, &[Value]) -> Result<Value, String>),
    /// The output of the template that the first argument names, with the second as its dot. For
    /// pages only: in alerts Prometheus has no such function.
    Template,
}

pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) params: &'static [Param],
    /// The type of further arguments, where there may be any.
    pub(super) variadic: Option<Param>,
    pub(super) action: Action,
}

/// The function called `name`.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

const fn function(name: &'static str, params: &'static [Param], action: Action) -> Function {
    Function { name, params, variadic: None, action }
}

const fn variadic(name: &'static str, params: &'static [Param], action: Action) -> Function {
    Function { name, params, variadic: Some(Any), action }
}

use Action::{Hosted, Pure};
use Param::{Any, Results, Sample, Text};

static FUNCTIONS: [Function; 49] = [
    variadic("and", &[Any], Action::And),
    variadic("or", &[Any], Action::Or),
    function("not", &[Any], Pure(|args| Ok(Value::Bool(!args[0].is_true())))),
    variadic("eq", &[Any], Pure(builtin::eq)),
    function("ne", &[Any, Any], Pure(builtin::ne)),
    function("lt", &[Any, Any], Pure(builtin::lt)),
    function("le", &[Any, Any], Pure(builtin::le)),
    function("gt", &[Any, Any], Pure(builtin::gt)),
    function("ge", &[Any, Any], Pure(builtin::ge)),
    variadic("index", &[Any], Pure(builtin::index)),
    variadic("slice", &[Any], Pure(builtin::slice)),
    function("len", &[Any], Pure(builtin::len)),
    variadic("call", &[Any], Pure(builtin::call)),
    variadic("print", &[], Pure(builtin::print)),
    variadic("println", &[], Pure(builtin::println)),
    variadic("printf", &[Text], Pure(builtin::printf)),
    variadic("html", &[], Pure(builtin::html)),
    variadic("js", &[], Pure(builtin::js)),
    variadic("urlquery", &[], Pure(builtin::urlquery)),
    function("query", &[Text], Hosted(query)),
    function("first", &[Results], Pure(first)),
    function("label", &[Text, Sample], Pure(label)),
    function("value", &[Sample], Pure(|args| sample(&args[0]).map(|sample| sample.value.clone()))),
    function("strvalue", &[Sample], Pure(strvalue)),
    function("sortByLabel", &[Text, Results], Pure(sort_by_label)),
    variadic("args", &[], Pure(args)),
    function("reReplaceAll", &[Text, Text, Text], Pure(re_replace_all)),
    function("match", &[Text, Text], Pure(re_match)),
    function("safeHtml", &[Text], Pure(|args| Ok(Value::Html(Rc::from(text(&args[0])))))),
    function("title", &[Text], Pure(|args| Ok(Value::str(&title(text(&args[0])))))),
    function(
        "toUpper",
        &[Text],
        Pure(|args| Ok(Value::str(&text(&args[0]).chars().map(upper).collect::<String>()))),
    ),
    function(
        "toLower",
        &[Text],
        Pure(|args| Ok(Value::str(&text(&args[0]).chars().map(lower).collect::<String>()))),
    ),
    function("stripPort", &[Text], Pure(|args| Ok(Value::str(strip_port(text(&args[0])))))),
    function("stripDomain", &[Text], Pure(|args| Ok(Value::str(&strip_domain(text(&args[0])))))),
    function("graphLink", &[Text], Pure(|args| Ok(Value::str(&super::graph_link(text(&args[0])))))),
    function("tableLink", &[Text], Pure(|args| Ok(Value::str(&super::table_link(text(&args[0])))))),
    function("urlQueryEscape", &[Text], Pure(|args| Ok(Value::str(&super::query_escape(text(&args[0])))))),
    function("humanize", &[Any], Pure(|args| humanize::humanize(&args[0]))),
    function("humanize1024", &[Any], Pure(|args| humanize::humanize1024(&args[0]))),
    function("humanizeDuration", &[Any], Pure(|args| humanize::humanize_duration(&args[0]))),
    function("humanizePercentage", &[Any], Pure(|args| humanize::humanize_percentage(&args[0]))),
    function("humanizeTimestamp", &[Any], Pure(|args| humanize::humanize_timestamp(&args[0]))),
    function("toTime", &[Any], Pure(|args| humanize::to_time(&args[0]))),
    function("toDuration", &[Any], Pure(|args| humanize::to_duration(&args[0]))),
    function("parseDuration", &[Text], Pure(|args| humanize::parse_duration(text(&args[0])))),
    function("now", &[], Hosted(|host, _| Ok(Value::Float(host.now_ms as f64 / 1000.0)))),
    function("pathPrefix", &[], Hosted(|host, _| Ok(Value::str(super::url_path(host.external_url))))),
    function("externalURL", &[], Hosted(|host, _| Ok(Value::str(host.external_url)))),
    function("tmpl", &[Text, Any], Action::Template),
];

/// The text of an argument that was checked to be one.
fn text(value: &Value) -> &str {
    match value {
        Value::Str(text) | Value::Html(text) => text,
        _ => "",
    }
}

/// The sample of an argument that was checked to be one, or to be nil.
fn sample(value: &Value) -> Result<&TemplateSample, String> {
    match value {
        Value::Sample(sample) => Ok(sample),
        _ => Err("runtime error: invalid memory address or nil pointer dereference".to_owned()),
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::List(items) => items,
        _ => &[],
    }
}

fn query(host: &mut Host<'_>, args: &[Value]) -> Result<Value, String> {
    Ok(Value::List((host.query)(text(&args[0]))?.into()))
}

fn first(args: &[Value]) -> Result<Value, String> {
    let first = items(&args[0]).first().cloned();
    first.ok_or_else(|| "first() called on vector with no elements".to_owned())
}

fn label(args: &[Value]) -> Result<Value, String> {
    let found = sample(&args[1])?.labels.get(text(&args[0]));
    Ok(Value::str(found.map_or("", String::as_str)))
}

fn strvalue(args: &[Value]) -> Result<Value, String> {
    let found = sample(&args[0])?.labels.get("__value__");
    Ok(Value::str(found.map_or("", String::as_str)))
}

fn sort_by_label(args: &[Value]) -> Result<Value, String> {
    let name = text(&args[0]);
    let mut sorted = items(&args[1]).to_vec();
    let key = |value: &Value| {
        sample(value).ok().and_then(|sample| sample.labels.get(name).cloned()).unwrap_or_default()
    };
    sorted.sort_by_cached_key(key);
    Ok(Value::List(sorted.into()))
}

fn args(args: &[Value]) -> Result<Value, String> {
    let named = args.iter().enumerate().map(|(i, arg)| (format!("arg{i}"), arg.clone()));
    Ok(Value::Args(Rc::new(named.collect::<BTreeMap<_, _>>())))
}

fn re_replace_all(args: &[Value]) -> Result<Value, String> {
    let (pattern, replacement, subject) = (text(&args[0]), text(&args[1]), text(&args[2]));
    let regex = search(pattern).map_err(|message| format!("regexp: Compile(`{pattern}`): {message}"))?;
    Ok(Value::str(&replace_all(&regex, subject, replacement)))
}

fn re_match(args: &[Value]) -> Result<Value, String> {
    Ok(Value::Bool(search(text(&args[0]))?.is_match(text(&args[1]))))
}

/// The capital of a letter, where it is one letter: Go maps rune by rune, so that `ß` stays.
fn upper(c: char) -> char {
    let mut capital = c.to_uppercase();
    match (capital.next(), capital.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// The same for small letters; `İ` alone becomes two in Unicode and `i` in Go.
fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// Capitals at the beginning of words: after anything but a letter, a digit or an underscore.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut begins = true;
    for c in text.chars() {
        if begins {
            out.push(upper(c));
        } else {
            out.push(c);
        }
        begins = if c.is_ascii() { !(c.is_ascii_alphanumeric() || c == '_') } else { c.is_whitespace() };
    }
    out
}

/// Host and port of `host:port`, where it is that.
fn split_host_port(address: &str) -> Option<(&str, &str)> {
    let colon = address.rfind(':')?;
    let (host, port) = (&address[..colon], &address[colon + 1..]);
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.contains(['[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

fn strip_port(address: &str) -> &str {
    split_host_port(address).map_or(address, |(host, _)| host)
}

/// The first part of a host name, with its port; an IP address stays as it is.
fn strip_domain(address: &str) -> String {
    let (host, port) = split_host_port(address).map_or((address, ""), |(host, port)| (host, port));
    if host.parse::<std::net::IpAddr>().is_ok() {
        return address.to_owned();
    }
    let name = host.split('.').next().unwrap_or(host);
    match port {
        "" => name.to_owned(),
        _ if name.contains(':') => format!("[{name}]:{port}"),
        _ => format!("{name}:{port}"),
    }
}
