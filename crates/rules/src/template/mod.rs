//! Templates of alert labels and annotations: Go's `text/template` with Prometheus' functions.
//!
//! ```text
//! text ─ lex ─► tokens ─ parse ─► tree ─ exec ─► text
//!                                         │ values: value.rs, formatting: verbs.rs, gotime.rs
//!                                         └ functions: builtin.rs (Go's), functions.rs (Prometheus')
//! ```
//!
//! Invariants: parsing and running take a bounded stack whatever the text; a run takes bounded
//! steps and makes a bounded amount of text; messages are Go's to the letter where a user would
//! compare them, places among them.
//!
//! Not here: methods and functions as values (`call` always fails, as nothing is callable), complex
//! numbers, and the contextual escaping of HTML: values are escaped as text.

mod builtin;
mod exec;
mod functions;
mod gotime;
mod humanize;
mod lex;
mod node;
mod parse;
mod value;
mod verbs;

#[cfg(test)]
mod tests;

pub(crate) use gotime::duration_text;
pub use value::{AlertData, TemplateSample, Value};
pub(crate) use verbs::format_float;

/// Steps of one expansion: a loop over ten thousand samples with twenty commands each fits.
const STEPS_MAX: u64 = 500_000;

/// Bytes that one expansion may make, intermediate texts among them.
const BYTES_MAX: usize = 8 << 20;

/// What surrounds an expansion.
pub struct Surroundings<'s> {
    /// What `now` says.
    pub now_ms: i64,
    pub external_url: &'s str,
    /// Answers the function `query`.
    pub query: &'s mut dyn FnMut(&str) -> Result<Vec<TemplateSample>, String>,
}

/// A text that was parsed, to be expanded any number of times.
#[derive(Debug)]
pub struct Template {
    name: String,
    text: String,
    html: bool,
    /// Absent where the text has no action and is its own expansion.
    templates: Option<parse::Templates>,
}

impl Template {
    /// Parses a text. The message is Go's, without Prometheus' prefix. The function `tmpl` is
    /// there in pages only, as in Prometheus.
    pub fn parse(name: &str, text: &str, html: bool) -> Result<Template, String> {
        let is_function = |name: &str| (html || name != "tmpl") && functions::find(name).is_some();
        let templates = match text.contains("{{") {
            true => Some(parse::parse(name, text, &is_function)?),
            false => None,
        };
        Ok(Template { name: name.to_owned(), text: text.to_owned(), html, templates })
    }

    /// Whether the text is its own expansion, whatever the data.
    pub fn is_literal(&self) -> bool {
        self.templates.is_none()
    }

    /// The text, where it is its own expansion.
    pub fn literal(&self) -> Option<&str> {
        self.is_literal().then_some(self.text.as_str())
    }

    /// Expands the text with `data` as its dot. The message is Prometheus': `error executing
    /// template …`. With `missing_key_is_error` a map's absent key is a mistake, not an empty value.
    pub fn expand(
        &self,
        data: &Value,
        surroundings: &mut Surroundings<'_>,
        missing_key_is_error: bool,
    ) -> Result<String, String> {
        let Some(templates) = &self.templates else { return Ok(self.text.clone()) };
        let query = &mut surroundings.query;
        let mut samples = |text: &str| {
            let samples = query(text)?;
            Ok(samples.into_iter().map(|sample| Value::Sample(sample.into())).collect())
        };
        let mut host = exec::Host {
            now_ms: surroundings.now_ms,
            external_url: surroundings.external_url,
            query: &mut samples,
        };
        let limits = exec::Limits { steps: STEPS_MAX, bytes: BYTES_MAX };
        let options = exec::Options { missing_key_is_error, html: self.html };
        exec::execute(templates, (&self.name, &self.text), data, &mut host, (options, limits))
            .map_err(|message| format!("error executing template {}: {message}", self.name))
    }
}

/// Go's `url.QueryEscape`.
pub(crate) fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn graph_link(expr: &str) -> String {
    format!("/graph?g0.expr={}&g0.tab=0", query_escape(expr))
}

/// The path of the page that shows an expression as a table.
pub(crate) fn table_link(expr: &str) -> String {
    format!("/graph?g0.expr={}&g0.tab=1", query_escape(expr))
}

/// The path of an address.
fn url_path(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("", |slash| &after_scheme[slash..]);
    path.split(['?', '#']).next().unwrap_or("")
}
