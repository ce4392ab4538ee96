//! Which format an answer is in, by its `Content-Type`, with Prometheus' rules: an answer whose
//! type is missing or unknown is refused unless the job names a fallback.

use super::{Format, go};

/// The format of an answer, and what to warn of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    pub format: Format,
    /// The type was unusable and the fallback was taken.
    pub warning: Option<String>,
}

/// Why an answer is not read, in Prometheus' words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ContentTypeError {
    pub message: String,
}

/// Chooses the format for a `Content-Type`, absent or empty where the target sent none.
pub fn negotiate(
    content_type: Option<&str>,
    fallback: Option<Format>,
) -> Result<Negotiated, ContentTypeError> {
    let content_type = content_type.unwrap_or_default();
    let problem = match media_type(content_type).as_deref() {
        Some("application/openmetrics-text") => return Ok(usable(Format::OpenMetrics)),
        Some("text/plain") => return Ok(usable(Format::Prometheus)),
        Some(_) => format!("received unsupported Content-Type {}", go::quote(content_type.as_bytes())),
        None if content_type.is_empty() => {
            "non-compliant scrape target sending blank Content-Type".to_owned()
        }
        None => format!("cannot parse Content-Type {}", go::quote(content_type.as_bytes())),
    };
    match fallback {
        Some(format) => {
            let name = match format {
                Format::Prometheus => "text/plain",
                Format::OpenMetrics => "application/openmetrics-text",
            };
            let warning = format!("{problem}, using fallback_scrape_protocol \"{name}\"");
            Ok(Negotiated { format, warning: Some(warning) })
        }
        None => Err(ContentTypeError {
            message: format!("{problem} and no fallback_scrape_protocol specified for target"),
        }),
    }
}

fn usable(format: Format) -> Negotiated {
    Negotiated { format, warning: None }
}

/// `type/subtype` in lower case; `None` where the header's value has no such form.
fn media_type(content_type: &str) -> Option<String> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token = |part: &str| {
        let special = |byte: u8| !byte.is_ascii_graphic() || b"()<>@,;:\\\"/[]?=".contains(&byte);
        !part.is_empty() && !part.bytes().any(special)
    };
    let well_formed = match kind.split_once('/') {
        Some((main, sub)) => is_token(main) && is_token(sub),
        None => is_token(&kind),
    };
    well_formed.then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(content_type: &str, fallback: Option<Format>, expected: Result<Format, &str>) {
        let result = negotiate(Some(content_type), fallback);
        assert_eq!(result.as_ref().map(|n| n.format).map_err(|e| e.message.as_str()), expected);
    }

    #[test]
    fn known_types_are_taken_whatever_their_parameters() {
        check("text/plain", None, Ok(Format::Prometheus));
        check("Text/Plain; version=1.0.0; escaping=allow-utf-8", None, Ok(Format::Prometheus));
        check("application/openmetrics-text; version=1.0.0; charset=utf-8", None, Ok(Format::OpenMetrics));
    }

    #[test]
    fn other_types_need_a_fallback() {
        let unsupported = "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target";
        check("text/html", None, Err(unsupported));
        let blank = "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target";
        check("", None, Err(blank));
        let garbage = "cannot parse Content-Type \"/\" and no fallback_scrape_protocol specified for target";
        check("/", None, Err(garbage));
        check("text/html", Some(Format::Prometheus), Ok(Format::Prometheus));
        let warning = negotiate(None, Some(Format::OpenMetrics)).unwrap().warning.unwrap();
        assert_eq!(
            warning,
            "non-compliant scrape target sending blank Content-Type, using fallback_scrape_protocol \"application/openmetrics-text\""
        );
    }
}
