//! Whether a request goes through a proxy, and through which.

use std::net::IpAddr;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::Matcher;

use crate::{ClientError, ProxyConfig};

/// The rules of one client.
pub(crate) struct ProxyRules {
    matcher: Matcher,
    /// Loopback addresses are reached directly, as Go does wherever exceptions are in force.
    is_loopback_direct: bool,
}

/// A proxy that a request must take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) uri: Uri,
    pub(crate) authorization: Option<HeaderValue>,
}

impl ProxyRules {
    /// `None` where no request ever takes a proxy.
    pub(crate) fn new(config: &ProxyConfig) -> Result<Option<ProxyRules>, ClientError> {
        let matcher = match &config.url {
            Some(url) => {
                check_url(url)?;
                Matcher::builder().all(url.as_str()).no(config.no_proxy.as_str()).build()
            }
            None if config.from_environment => Matcher::from_env(),
            None => return Ok(None),
        };
        let is_loopback_direct = config.url.is_none() || !config.no_proxy.is_empty();
        Ok(Some(ProxyRules { matcher, is_loopback_direct }))
    }

    pub(crate) fn proxy_for(&self, uri: &Uri) -> Option<Proxy> {
        if self.is_loopback_direct && is_loopback(uri.host().unwrap_or_default()) {
            return None;
        }
        let intercept = self.matcher.intercept(uri)?;
        Some(Proxy { uri: intercept.uri().clone(), authorization: intercept.basic_auth().cloned() })
    }
}

fn check_url(url: &str) -> Result<(), ClientError> {
    let refused = |reason| {
        // Credentials may stand in the URL; only its end is shown.
        let shown = url.rsplit('@').next().unwrap_or_default().to_owned();
        Err(ClientError::Proxy { url: shown, reason })
    };
    match url.parse::<Uri>() {
        Ok(uri) if uri.host().is_none() => refused("the URL names no host"),
        Ok(uri) if uri.scheme_str() == Some("http") => Ok(()),
        Ok(_) => refused("only http proxies are served"),
        Err(_) => refused("the URL can not be read"),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_reached_directly() {
        let config = ProxyConfig {
            url: Some("http://user:secret@proxy:3128".to_owned()),
            no_proxy: "internal.example,10.0.0.0/8".to_owned(),
            ..ProxyConfig::default()
        };
        let rules = ProxyRules::new(&config).unwrap().unwrap();
        let proxied = |url: &str| rules.proxy_for(&url.parse().unwrap()).is_some();
        assert!(proxied("http://example.com/"));
        assert!(!proxied("http://api.internal.example/"));
        assert!(!proxied("https://10.1.2.3:9100/"));
        assert!(!proxied("http://127.0.0.1:9100/"));
        let proxy = rules.proxy_for(&"http://example.com".parse().unwrap()).unwrap();
        assert_eq!(proxy.uri.authority().unwrap().as_str(), "proxy:3128");
        assert_eq!(proxy.authorization.unwrap(), "Basic dXNlcjpzZWNyZXQ=");
    }

    #[test]
    fn a_proxy_that_can_not_be_spoken_to_is_refused_without_its_secret() {
        let config =
            ProxyConfig { url: Some("socks5://u:hidden@proxy:1".to_owned()), ..ProxyConfig::default() };
        let Err(error) = ProxyRules::new(&config) else { panic!("taken") };
        assert_eq!(error.to_string(), "proxy proxy:1: only http proxies are served");
    }
}
