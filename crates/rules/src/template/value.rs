//! What templates compute with.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tidewatch_model::FloatHistogram;

use super::{gotime, verbs};

/// A value with the type that Go would give it, as messages and formatting depend on it.
#[derive(Debug, Clone)]
pub enum Value {
    /// Nothing: data that is not there.
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Str(Rc<str>),
    /// Text that is HTML already.
    Html(Rc<str>),
    List(Rc<[Value]>),
    /// `map[string]string`: an absent key is the empty text.
    Labels(Rc<BTreeMap<String, String>>),
    /// `map[string]interface{}`, from `args`.
    Args(Rc<BTreeMap<String, Value>>),
    Sample(Rc<TemplateSample>),
    Alert(Rc<AlertData>),
    /// Nanoseconds since the epoch.
    Time(i64),
    /// Nanoseconds.
    Duration(i64),
    Histogram(Arc<FloatHistogram>),
}

/// An element of a query's result.
#[derive(Debug)]
pub struct TemplateSample {
    pub labels: Rc<BTreeMap<String, String>>,
    /// A float or a histogram.
    pub value: Value,
}

/// What the dot of an alert's templates holds.
#[derive(Debug)]
pub struct AlertData {
    pub labels: Rc<BTreeMap<String, String>>,
    pub external_labels: Rc<BTreeMap<String, String>>,
    pub external_url: Rc<str>,
    pub value: Value,
}

impl AlertData {
    pub(super) fn fields(&self) -> [Value; 4] {
        [
            Value::Labels(self.labels.clone()),
            Value::Labels(self.external_labels.clone()),
            Value::Str(self.external_url.clone()),
            self.value.clone(),
        ]
    }
}

impl Value {
    pub fn str(text: &str) -> Value {
        Value::Str(Rc::from(text))
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self, Value::Str(_) | Value::Html(_))
    }

    /// The name of the value's type in Go.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "<nil>",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint64",
            Value::Float(_) => "float64",
            Value::Str(_) => "string",
            Value::Html(_) => "template.HTML",
            Value::List(_) => "template.queryResult",
            Value::Labels(_) => "map[string]string",
            Value::Args(_) => "map[string]interface {}",
            Value::Sample(_) => "*template.sample",
            Value::Alert(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }"
            }
            Value::Time(_) => "*time.Time",
            Value::Duration(_) => "*time.Duration",
            Value::Histogram(_) => "*histogram.FloatHistogram",
        }
    }

    /// Whether a condition holds: anything but the zero of its type.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(b) => *b,
            Value::Int(n) => *n != 0,
            Value::Uint(n) => *n != 0,
            Value::Float(x) => *x != 0.0,
            Value::Sample(_)
            | Value::Alert(_)
            | Value::Time(_)
            | Value::Duration(_)
            | Value::Histogram(_) => true,
            _ => self.len() != Some(0),
        }
    }

    /// How many parts there are, where the value has parts; for a text its bytes.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Value::Str(text) | Value::Html(text) => Some(text.len()),
            Value::List(items) => Some(items.len()),
            Value::Labels(map) => Some(map.len()),
            Value::Args(map) => Some(map.len()),
            _ => None,
        }
    }

    /// Keys and values of a map, by key; nothing for other values.
    pub(super) fn entries(&self) -> Vec<(String, Value)> {
        match self {
            Value::Labels(map) => map.iter().map(|(key, text)| (key.clone(), Value::str(text))).collect(),
            Value::Args(map) => map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            _ => Vec::new(),
        }
    }

    /// The value as a template's output shows it.
    pub(super) fn text(&self) -> String {
        match self {
            Value::Nil => "<no value>".to_owned(),
            Value::Str(text) | Value::Html(text) => text.to_string(),
            Value::Time(nanos) => gotime::time_text(*nanos),
            Value::Duration(nanos) => gotime::duration_text(*nanos),
            Value::Histogram(histogram) => histogram.to_string(),
            // The output looks through a pointer.
            Value::Sample(_) => verbs::display(self).trim_start_matches('&').to_owned(),
            _ => verbs::display(self),
        }
    }

    /// A field of a struct or an entry of a map. `None` where the type can have no such field.
    pub(super) fn field(&self, name: &str) -> Option<Field> {
        let found = |value: Value| Some(Field::Found(value));
        match self {
            Value::Labels(map) => Some(
                map.get(name).map_or(Field::Absent(Value::str("")), |text| Field::Found(Value::str(text))),
            ),
            Value::Args(map) => Some(map.get(name).cloned().map_or(Field::Absent(Value::Nil), Field::Found)),
            Value::Sample(sample) => match name {
                "Labels" => found(Value::Labels(sample.labels.clone())),
                "Value" => found(sample.value.clone()),
                _ => None,
            },
            Value::Alert(data) => {
                let names = ["Labels", "ExternalLabels", "ExternalURL", "Value"];
                let index = names.iter().position(|field| *field == name)?;
                found(data.fields()[index].clone())
            }
            Value::Histogram(histogram) => match name {
                "Count" => found(Value::Float(histogram.count)),
                "Sum" => found(Value::Float(histogram.sum)),
                "Schema" => found(Value::Int(i64::from(histogram.schema))),
                "ZeroCount" => found(Value::Float(histogram.zero_count)),
                "ZeroThreshold" => found(Value::Float(histogram.zero_threshold)),
                _ => None,
            },
            _ => None,
        }
    }
}

/// What came of looking up a name.
pub(super) enum Field {
    Found(Value),
    /// A map without the key, and the zero of its values.
    Absent(Value),
}
