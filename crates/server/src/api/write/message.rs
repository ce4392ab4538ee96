//! Which message a write request has: what its `Content-Type` and `Content-Encoding` say.
//!
//! ```text
//! application/x-protobuf ; proto = io.prometheus.write.v2.Request     without the spaces around "="
//!     any case            any case    as it is, or in quotes
//! ```
//!
//! A sender that is misunderstood loses everything with a friendly answer, as each message is an empty
//! one of the other kind. So whatever is not plain is refused.

use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};

use super::answer::Refused;
use crate::request::media_type;

/// The message that a request holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// `prometheus.WriteRequest`, of remote write 1.0.
    V1,
    /// `io.prometheus.write.v2.Request`.
    V2,
}

/// Which of the accepted messages a request has. Absent and empty headers mean remote write 1.0 and snappy:
/// old senders name neither.
pub(super) fn message_of(headers: &HeaderMap, accepted: &[String]) -> Result<Message, Refused> {
    let header = |name: HeaderName| {
        let text = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        text.filter(|text| !text.is_empty())
    };
    let text = header(CONTENT_TYPE).unwrap_or("application/x-protobuf".into());
    if !media_type(&text).eq_ignore_ascii_case("application/x-protobuf") {
        return Err(unsupported(format!("Content-Type {text:?} is not application/x-protobuf")));
    }
    let name = proto(&text)
        .map_err(|cause| unsupported(format!("Content-Type {text:?}: {cause}")))?
        .unwrap_or("prometheus.WriteRequest");
    let message = match name {
        "prometheus.WriteRequest" => Some(Message::V1),
        "io.prometheus.write.v2.Request" => Some(Message::V2),
        _ => None,
    };
    let Some(message) = message.filter(|_| accepted.iter().any(|accepted| accepted == name)) else {
        let accepted = accepted.join(" or ");
        return Err(unsupported(format!("message {name:?} is not taken here: send {accepted}")));
    };
    match header(CONTENT_ENCODING).filter(|encoding| !encoding.eq_ignore_ascii_case("snappy")) {
        None => Ok(message),
        Some(other) => Err(unsupported(format!("Content-Encoding {other:?} is not snappy"))),
    }
}

fn unsupported(text: String) -> Refused {
    Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
}

/// The parameter `proto` of a content type, where there is one; or what is wrong with the parameters.
fn proto(content_type: &str) -> Result<Option<&str>, String> {
    let mut proto = None;
    let mut rest = content_type.split_once(';').map_or("", |(_, parameters)| parameters);
    while !rest.is_empty() {
        let (parameter, behind) = split_parameter(rest);
        rest = behind;
        let parameter = parameter.trim();
        // RFC 9110 allows empty ones.
        if parameter.is_empty() {
            continue;
        }
        let (name, value) = name_and_value(parameter)
            .ok_or_else(|| format!("parameter {parameter:?} is not of the form name=value"))?;
        if name.eq_ignore_ascii_case("proto") && proto.replace(value).is_some() {
            return Err("parameter proto is there twice".to_owned());
        }
    }
    Ok(proto)
}

/// Splits behind the first parameter; a semicolon in quotes is part of it.
fn split_parameter(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let end = text.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b';' && !quoted
    });
    end.map_or((text, ""), |end| (&text[..end], &text[end + 1..]))
}

/// The name and the value of a parameter: a token, or in quotes. Nothing that we know is written with
/// backslashes in these.
fn name_and_value(parameter: &str) -> Option<(&str, &str)> {
    let (name, value) = parameter.split_once('=')?;
    let quoted = value.strip_prefix('"').map(|rest| rest.strip_suffix('"'));
    let value = match quoted {
        Some(value) => value.filter(|value| !value.contains(['"', '\\']))?,
        None => Some(value).filter(|value| is_token(value))?,
    };
    is_token(name).then_some((name, value))
}

fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}
