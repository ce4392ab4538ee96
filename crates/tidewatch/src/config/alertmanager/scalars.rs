//! Scalars that only `alertmanager.yml` has.

use super::super::schema::Type;
use super::super::types::scheme_and_host;

/// A URL that somebody is reached at.
pub(super) const HTTP_URL: Type = Type::Checked(http_url);
/// The same, made from the alerts when it holds a template.
pub(super) const TEMPLATE_URL: Type = Type::Checked(template_url);
pub(super) const HOST_PORT: Type = Type::Checked(host_port);
pub(super) const GO_DURATION: Type = Type::Checked(go_duration);

fn http_url(text: &str) -> Result<(), String> {
    // What a masked file shows in place of the URL.
    if text == "<secret>" {
        return Ok(());
    }
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        return Err(format!("unsupported scheme {scheme:?} for URL"));
    }
    if scheme_and_host(text).1.is_empty() {
        return Err("missing host for URL".to_owned());
    }
    Ok(())
}

fn template_url(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains("{{") { Ok(()) } else { http_url(text) }
}

fn host_port(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let bracketed = text.starts_with('[');
    match text.rsplit_once(':') {
        None => Err(format!("address {text}: missing port in address")),
        Some((host, _)) if bracketed && !host.ends_with(']') => {
            Err(format!("address {text}: missing port in address"))
        }
        Some((host, _)) if !bracketed && host.contains(':') => {
            Err(format!("address {text}: too many colons in address"))
        }
        Some((_, "")) => Err(format!("address {text:?}: port cannot be empty")),
        Some(_) => Ok(()),
    }
}

/// Go's own durations, `1.5h` or `1m30s`; a number alone counts nanoseconds.
fn go_duration(text: &str) -> Result<(), String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest.is_empty() {
        return Err(invalid());
    }
    if rest.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(());
    }
    while !rest.is_empty() {
        let number = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        rest[..number].parse::<f64>().map_err(|_| invalid())?;
        rest = &rest[number..];
        let unit = rest.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        if !matches!(&rest[..unit], "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h") {
            return Err(invalid());
        }
        rest = &rest[unit..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_what_alertmanager_takes() {
        for good in ["http://h", "HTTPS://h:1/p?q", "<secret>"] {
            assert_eq!(http_url(good), Ok(()), "{good}");
        }
        assert_eq!(http_url("h:9093"), Err("unsupported scheme \"h\" for URL".to_owned()));
        assert_eq!(http_url("http:///p"), Err("missing host for URL".to_owned()));
        for good in ["", "h:25", ":25", "[::1]:25"] {
            assert_eq!(host_port(good), Ok(()), "{good}");
        }
        for bad in ["h", "h:", "::1:25", "[::1]"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
        for good in ["0", "10s", "1.5h", "1h2m3s4ms", "-1µs", "7"] {
            assert_eq!(go_duration(good), Ok(()), "{good}");
        }
        for bad in ["", "-", "1d", "s", "1..5s", "5 s"] {
            assert!(go_duration(bad).is_err(), "{bad}");
        }
    }
}
