//! What Go's decoder takes for a bool and for a float.

use std::borrow::Cow;

use base64::Engine;

/// YAML 1.1's booleans.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Some(false),
        _ => None,
    }
}

/// Floats, with YAML's infinities and underscores between digits.
pub fn parse_float(text: &str) -> Option<f64> {
    let text: Cow<'_, str> = match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => "inf".into(),
        "-.inf" | "-.Inf" | "-.INF" => "-inf".into(),
        ".nan" | ".NaN" | ".NAN" => "nan".into(),
        _ => text.replace('_', "").into(),
    };
    text.parse().ok()
}

/// The text of a `!!binary` scalar. Only label values could be bytes, and they must be UTF-8.
pub(crate) fn decode_binary(text: &str) -> Result<String, String> {
    let compact: String = text.split_whitespace().collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(compact)
        .map_err(|_| "yaml: !!binary value contains invalid base64 data".to_owned())?;
    String::from_utf8(bytes).map_err(|error| {
        let shown: String =
            error.as_bytes().iter().map(|b| std::ascii::escape_default(*b).to_string()).collect();
        format!("\"{shown}\" is not a valid label value")
    })
}
