//! Scalar types of the configuration: what text is a duration, a size, a URL, a label.

use tidewatch_model::{is_valid_label_name, parse_duration_ms};

use super::schema::Type;

pub(super) const DURATION: Type = Type::Checked(duration);
pub(super) const SIZE: Type = Type::Checked(size);
pub(super) const URL: Type = Type::Checked(url);
pub(super) const LABEL_NAME: Type = Type::Checked(label_name);
pub(super) const TEXTS: Type = Type::List(&Type::Text);
pub(super) const TEXT_MAP: Type = Type::Map(&Type::Text);

fn duration(text: &str) -> Result<(), String> {
    parse_duration_ms(text)
        .map(drop)
        .map_err(|error| format!("{}; write a number and its unit, as in 30s, 5m or 1h30m", error.message))
}

fn size(text: &str) -> Result<(), String> {
    parse_size(text).map(drop)
}

/// Sizes such as `15MB` and `1KiB`. As in Prometheus every unit counts by 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(digits);
    let power = match unit {
        "B" => 0,
        "KB" | "K" | "KiB" => 1,
        "MB" | "M" | "MiB" => 2,
        "GB" | "G" | "GiB" => 3,
        "TB" | "T" | "TiB" => 4,
        "PB" | "P" | "PiB" => 5,
        "EB" | "E" | "EiB" => 6,
        _ => return Err(format!("units: unknown unit {unit} in {text}")),
    };
    let number: f64 = number.parse().map_err(|_| format!("units: invalid {text}"))?;
    Ok((number * 1024f64.powi(power)) as u64)
}

/// A size as Prometheus prints it: `10GiB`, `1GiB512MiB`, `0B`.
pub fn format_size(bytes: u64) -> String {
    let units = ["EiB", "PiB", "TiB", "GiB", "MiB", "KiB", "B"];
    let mut text = String::new();
    for (unit, power) in units.iter().zip((0..7).rev()) {
        let count = (bytes >> (10 * power)) & if power == 6 { u64::MAX } else { 1023 };
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    if text.is_empty() { "0B".to_owned() } else { text }
}

fn url(text: &str) -> Result<(), String> {
    if text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        return Err(format!("parse {text:?}: invalid character in URL"));
    }
    if text.starts_with("//") || text.starts_with(':') {
        return Err(format!("parse {text:?}: missing protocol scheme"));
    }
    let port = scheme_and_host(text).1.rsplit_once(':').map_or("", |(_, port)| port);
    if !port.ends_with(']') && !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("parse {text:?}: invalid port {:?} after host", format!(":{port}")));
    }
    Ok(())
}

/// Scheme and host of a URL; empty where it has none.
pub(super) fn scheme_and_host(url: &str) -> (&str, &str) {
    let Some((scheme, rest)) = url.split_once("://") else { return ("", "") };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if scheme.is_empty() {
        return ("", "");
    }
    (scheme, host.rsplit('@').next().unwrap_or_default())
}

/// An address to scrape may not be a URL: the commonest slip.
pub(super) fn target_address(text: &str) -> Result<(), String> {
    if text.contains('/') {
        return Err(format!("{text:?} is not a valid hostname"));
    }
    Ok(())
}

fn label_name(text: &str) -> Result<(), String> {
    if is_valid_label_name(text) { Ok(()) } else { Err(format!("{text:?} is not a valid label name")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_by_1024_and_need_a_unit() {
        assert_eq!(parse_size("15MB"), Ok(15 << 20));
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("100"), Err("units: unknown unit  in 100".to_owned()));
    }

    #[test]
    fn sizes_print_in_all_units_that_they_have() {
        for (bytes, text) in [
            (0, "0B"),
            (10 << 30, "10GiB"),
            ((1 << 30) + (512 << 20) + 7, "1GiB512MiB7B"),
            (u64::MAX, "15EiB1023PiB1023TiB1023GiB1023MiB1023KiB1023B"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
    }

    #[test]
    fn urls_split_into_scheme_and_host() {
        assert_eq!(scheme_and_host("https://a:b@host:1/x"), ("https", "host:1"));
        assert_eq!(scheme_and_host("/path"), ("", ""));
        assert_eq!(url("http://[::1]/x"), Ok(()));
        assert_eq!(
            url("http://a:b/x"),
            Err("parse \"http://a:b/x\": invalid port \":b\" after host".to_owned())
        );
    }
}
