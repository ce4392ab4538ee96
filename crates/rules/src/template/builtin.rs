//! The functions that every Go template has.

use std::cmp::Ordering;

use super::value::{Field, Value};
use super::verbs;

type Outcome = Result<Value, String>;

/// Whether two values are equal in Go's sense: integers of either sign meet, nothing else does.
fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Uint(a), Value::Uint(b)) => a == b,
        (Value::Int(a), Value::Uint(b)) | (Value::Uint(b), Value::Int(a)) => u64::try_from(*a) == Ok(*b),
        (Value::Float(a), Value::Float(b)) => a == b,
        (Value::Str(a) | Value::Html(a), Value::Str(b) | Value::Html(b)) => a == b,
        (Value::Time(a), Value::Time(b)) | (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Nil, Value::Nil) => true,
        (Value::Nil, _) | (_, Value::Nil) => false,
        (Value::List(_), Value::List(_))
        | (Value::Labels(_), Value::Labels(_))
        | (Value::Args(_), Value::Args(_))
        | (Value::Alert(_), Value::Alert(_)) => {
            return Err(format!("non-comparable type {}: {}", verbs::display(b), b.type_name()));
        }
        (Value::Sample(a), Value::Sample(b)) => std::rc::Rc::ptr_eq(a, b),
        _ => return Err(incompatible(a, b)),
    })
}

fn incompatible(a: &Value, b: &Value) -> String {
    format!("incompatible types for comparison: {} and {}", a.type_name(), b.type_name())
}

/// The order of two numbers or texts. `None` where one is no number.
fn order(a: &Value, b: &Value) -> Result<Option<Ordering>, String> {
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Float(a), Value::Float(b)) => a.partial_cmp(b),
        (Value::Str(a), Value::Str(b)) => Some(a.cmp(b)),
        _ if !is_ordered(a) || !is_ordered(b) => return Err("invalid type for comparison".to_owned()),
        _ => return Err(incompatible(a, b)),
    })
}

fn is_ordered(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::Uint(_) | Value::Float(_) | Value::Str(_))
}

/// Whether the first argument equals any other.
pub(super) fn eq(args: &[Value]) -> Outcome {
    if args.len() < 2 {
        return Err("missing argument for comparison".to_owned());
    }
    for other in &args[1..] {
        if equal(&args[0], other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

pub(super) fn ne(args: &[Value]) -> Outcome {
    Ok(Value::Bool(!equal(&args[0], &args[1])?))
}

pub(super) fn lt(args: &[Value]) -> Outcome {
    Ok(Value::Bool(order(&args[0], &args[1])? == Some(Ordering::Less)))
}

pub(super) fn le(args: &[Value]) -> Outcome {
    Ok(Value::Bool(matches!(order(&args[0], &args[1])?, Some(Ordering::Less | Ordering::Equal))))
}

/// Not less and not equal: true where one is no number, as Go has it.
pub(super) fn gt(args: &[Value]) -> Outcome {
    Ok(Value::Bool(!matches!(order(&args[0], &args[1])?, Some(Ordering::Less | Ordering::Equal))))
}

/// Not less: true where one is no number, as Go has it.
pub(super) fn ge(args: &[Value]) -> Outcome {
    Ok(Value::Bool(order(&args[0], &args[1])? != Some(Ordering::Less)))
}

/// `index x 1 "a"` is `x[1]["a"]`.
pub(super) fn index(args: &[Value]) -> Outcome {
    let mut item = args[0].clone();
    if matches!(item, Value::Nil) {
        return Err("index of untyped nil".to_owned());
    }
    for index in &args[1..] {
        item = match &item {
            Value::List(items) => {
                items.get(position(index, items.len())?).cloned().ok_or_else(|| out_of_range(index))?
            }
            Value::Str(text) => {
                let byte = text.as_bytes().get(position(index, text.len())?);
                byte.map(|byte| Value::Uint((*byte).into())).ok_or_else(|| out_of_range(index))?
            }
            Value::Labels(_) | Value::Args(_) => entry(&item, index)?,
            Value::Nil => return Err("index of nil pointer".to_owned()),
            _ => return Err(format!("can't index item of type {}", item.type_name())),
        };
    }
    Ok(item)
}

fn entry(map: &Value, key: &Value) -> Outcome {
    match key {
        Value::Str(key) => match map.field(key) {
            Some(Field::Found(value) | Field::Absent(value)) => Ok(value),
            None => Ok(Value::Nil),
        },
        Value::Nil => Err("value is nil; should be of type string".to_owned()),
        _ => Err(format!("value has type {}; should be string", key.type_name())),
    }
}

fn position(index: &Value, len: usize) -> Result<usize, String> {
    let position = match index {
        Value::Int(n) => usize::try_from(*n).ok(),
        Value::Uint(n) => usize::try_from(*n).ok(),
        Value::Nil => return Err("cannot index slice/array with nil".to_owned()),
        _ => return Err(format!("cannot index slice/array with type {}", index.type_name())),
    };
    position.filter(|position| *position <= len).ok_or_else(|| out_of_range(index))
}

fn out_of_range(index: &Value) -> String {
    format!("index out of range: {}", verbs::display(index))
}

/// `slice x 1 2` is `x[1:2]`.
pub(super) fn slice(args: &[Value]) -> Outcome {
    let (item, indexes) = (&args[0], &args[1..]);
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let len = match item {
        Value::Nil => return Err("slice of untyped nil".to_owned()),
        Value::Str(_) if indexes.len() == 3 => return Err("cannot 3-index slice a string".to_owned()),
        Value::Str(text) => text.len(),
        Value::List(items) => items.len(),
        _ => return Err(format!("can't slice item of type {}", item.type_name())),
    };
    let mut bounds = [0, len, len];
    for (bound, index) in bounds.iter_mut().zip(indexes) {
        *bound = position(index, len)?;
    }
    for pair in bounds.windows(2).take(indexes.len().max(2) - 1) {
        if pair[0] > pair[1] {
            return Err(format!("invalid slice index: {} > {}", pair[0], pair[1]));
        }
    }
    let range = bounds[0]..bounds[1];
    Ok(match item {
        // Go cuts bytes; half a character becomes the replacement character here.
        Value::Str(text) => Value::str(&String::from_utf8_lossy(&text.as_bytes()[range])),
        Value::List(items) => Value::List(items[range].into()),
        _ => Value::Nil,
    })
}

pub(super) fn len(args: &[Value]) -> Outcome {
    match args[0].len() {
        Some(len) => Ok(Value::Int(len as i64)),
        None if matches!(args[0], Value::Nil) => Err("len of nil pointer".to_owned()),
        None => Err(format!("len of type {}", args[0].type_name())),
    }
}

/// No value here is a function.
pub(super) fn call(args: &[Value]) -> Outcome {
    match &args[0] {
        Value::Nil => Err("call of nil".to_owned()),
        value => Err(format!("non-function {} of type {}", verbs::display(value), value.type_name())),
    }
}

pub(super) fn print(args: &[Value]) -> Outcome {
    Ok(Value::str(&verbs::sprint(args)))
}

pub(super) fn println(args: &[Value]) -> Outcome {
    Ok(Value::str(&verbs::sprintln(args)))
}

pub(super) fn printf(args: &[Value]) -> Outcome {
    let Value::Str(format) = &args[0] else { return Ok(Value::str("")) };
    Ok(Value::str(&verbs::sprintf(format, &args[1..])))
}

/// The arguments as a template's output would show them.
fn shown(args: &[Value]) -> String {
    let shown = |arg: &Value| match arg {
        Value::Nil => Value::str("<no value>"),
        _ => arg.clone(),
    };
    verbs::sprint(&args.iter().map(shown).collect::<Vec<_>>())
}

pub(super) fn html(args: &[Value]) -> Outcome {
    Ok(Value::str(&escape_html(&shown(args))))
}

pub(super) fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            _ => out.push(c),
        }
    }
    out
}

pub(super) fn js(args: &[Value]) -> Outcome {
    let mut out = String::new();
    for c in shown(args).chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' | '\0'..='\x1f' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ if c.is_ascii() || tidewatch_model::is_printable(c) => out.push(c),
            _ => out.push_str(&format!("\\u{:04X}", u32::from(c))),
        }
    }
    Ok(Value::str(&out))
}

pub(super) fn urlquery(args: &[Value]) -> Outcome {
    Ok(Value::str(&super::query_escape(&shown(args))))
}
