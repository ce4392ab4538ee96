//! Where a redirect leads, and whether it is still the same peer.

use hyper::{Method, StatusCode, Uri};

/// Redirects followed for one request, as many as Go follows.
pub(crate) const REDIRECTS_MAX: usize = 10;

/// Whether `status` asks for another request, and with which method.
pub(crate) fn redirected_method(status: StatusCode, method: &Method) -> Option<Method> {
    match status.as_u16() {
        301..=303 if *method == Method::GET || *method == Method::HEAD => Some(method.clone()),
        301..=303 => Some(Method::GET),
        307 | 308 => Some(method.clone()),
        _ => None,
    }
}

/// Scheme, host and port: what credentials are meant for.
pub(crate) fn is_same_origin(a: &Uri, b: &Uri) -> bool {
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

fn port(uri: &Uri) -> u16 {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}

/// Resolves a `Location` against the URL that answered with it (RFC 3986, section 5.2).
pub(crate) fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let has_scheme = location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    });
    let text = if has_scheme {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else {
        let (path, query) = match location.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (location, None),
        };
        let directory = &base.path()[..base.path().rfind('/').map_or(0, |at| at + 1)];
        let path = match path {
            "" => base.path().to_owned(),
            absolute if absolute.starts_with('/') => without_dots(absolute),
            relative => without_dots(&format!("{directory}{relative}")),
        };
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{scheme}://{authority}{path}{query}")
    };
    let uri: Uri = text.parse().ok()?;
    matches!(uri.scheme_str(), Some("http" | "https")).then_some(uri)
}

fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    if path.ends_with("/.") || path.ends_with("/..") {
        parts.push("");
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_resolve_against_what_answered() {
        let base: Uri = "http://host:9100/a/b?x=1".parse().unwrap();
        for (location, expected) in [
            ("https://other/m", Some("https://other/m")),
            ("//other:1/m#part", Some("http://other:1/m")),
            ("/metrics?y=2", Some("http://host:9100/metrics?y=2")),
            ("c", Some("http://host:9100/a/c")),
            ("../c/./d", Some("http://host:9100/c/d")),
            ("../../../c", Some("http://host:9100/c")),
            ("?y=2", Some("http://host:9100/a/b?y=2")),
            ("ftp://other/", None),
            ("javascript:alert(1)", None),
        ] {
            let resolved = resolve(&base, location).map(|uri| uri.to_string());
            assert_eq!(resolved.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn the_same_origin_is_the_same_scheme_host_and_port() {
        let same = |a: &str, b: &str| is_same_origin(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("http://host/a", "http://HOST:80/b"));
        assert!(!same("http://host/", "https://host/"));
        assert!(!same("http://host:9100/", "http://host:9101/"));
        assert!(!same("http://host/", "http://sub.host/"));
    }
}
