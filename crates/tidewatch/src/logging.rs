//! Log lines as Prometheus prints them: logfmt or JSON on standard error.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Logfmt,
    Json,
}

/// Starts logging for the process. `level` is one of debug, info, warn, error.
pub fn start(level: Level, format: LogFormat) {
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .event_format(Line { format })
        .try_init();
}

struct Line {
    format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let time = crate::time::rfc3339(now.as_millis() as i64);
        let level = event.metadata().level();
        let mut fields = Fields::default();
        event.record(&mut fields);
        match self.format {
            LogFormat::Logfmt => {
                write!(out, "time={time} level={level} component={}", component(event.metadata().target()))?;
                write!(out, " msg={}", quoted(&fields.message))?;
                for (name, value) in &fields.rest {
                    write!(out, " {name}={}", quoted(value))?;
                }
                writeln!(out)
            }
            LogFormat::Json => {
                let mut object = serde_json::Map::new();
                let head = [
                    ("time", time),
                    ("level", level.to_string()),
                    ("component", component(event.metadata().target()).to_owned()),
                    ("msg", fields.message),
                ];
                object.extend(head.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
                object.extend(fields.rest.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
                writeln!(out, "{}", serde_json::Value::Object(object))
            }
        }
    }
}

/// The crate that speaks, without the project's name.
fn component(target: &str) -> &str {
    let name = target.split("::").next().unwrap_or(target);
    name.strip_prefix("tidewatch_").unwrap_or(name)
}

/// The text, in quotes where it needs them to stay one value.
fn quoted(text: &str) -> String {
    let plain =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'=' | b'\\'));
    if plain { text.to_owned() } else { format!("{text:?}") }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.rest.push((field.name(), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_where_it_would_fall_apart() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("two words"), "\"two words\"");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("a=\"b\"\n"), "\"a=\\\"b\\\"\\n\"");
        assert_eq!(component("tidewatch_tsdb::head"), "tsdb");
    }
}
