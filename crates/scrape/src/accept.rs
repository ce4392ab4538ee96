//! What a scrape asks for: formats in order of preference, and compression.

use crate::{NameEscaping, ScrapeConfig, ScrapeProtocol};

/// The formats that Prometheus knows, one more than weights start from.
const WEIGHT_MAX: usize = 6;

impl ScrapeProtocol {
    fn media_type(self) -> &'static str {
        match self {
            ScrapeProtocol::PrometheusText004 => "text/plain;version=0.0.4",
            ScrapeProtocol::PrometheusText100 => "text/plain;version=1.0.0",
            ScrapeProtocol::OpenMetricsText001 => "application/openmetrics-text;version=0.0.1",
            ScrapeProtocol::OpenMetricsText100 => "application/openmetrics-text;version=1.0.0",
        }
    }

    /// The grammar of the format.
    pub fn format(self) -> tidewatch_ingest::Format {
        match self {
            ScrapeProtocol::PrometheusText004 | ScrapeProtocol::PrometheusText100 => {
                tidewatch_ingest::Format::Prometheus
            }
            ScrapeProtocol::OpenMetricsText001 | ScrapeProtocol::OpenMetricsText100 => {
                tidewatch_ingest::Format::OpenMetrics
            }
        }
    }
}

/// The `Accept` header. Only the newer versions know how names may be escaped.
fn accept(protocols: &[ScrapeProtocol], escaping: NameEscaping) -> String {
    let escaping = format!(";escaping={}", escaping.as_str());
    let mut parts: Vec<String> = Vec::new();
    for (i, protocol) in protocols.iter().enumerate() {
        let is_new =
            matches!(protocol, ScrapeProtocol::PrometheusText100 | ScrapeProtocol::OpenMetricsText100);
        let escaping = if is_new { escaping.as_str() } else { "" };
        parts.push(format!(
            "{}{escaping};q=0.{}",
            protocol.media_type(),
            WEIGHT_MAX.saturating_sub(i).max(1)
        ));
    }
    parts.push(format!("*/*;q=0.{}", WEIGHT_MAX.saturating_sub(protocols.len()).max(1)));
    parts.join(",")
}

/// The headers of every scrape of a target.
pub(crate) fn headers(config: &ScrapeConfig, timeout_ms: i64) -> Vec<(String, String)> {
    let encoding = if config.enable_compression { "gzip" } else { "identity" };
    let timeout = tidewatch_model::format_float(timeout_ms as f64 / 1000.0);
    [
        ("Accept", accept(&config.scrape_protocols, config.escaping)),
        ("Accept-Encoding", encoding.to_owned()),
        ("X-Prometheus-Scrape-Timeout-Seconds", timeout),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_asked_for_in_order() {
        assert_eq!(
            accept(&ScrapeProtocol::DEFAULT, NameEscaping::AllowUtf8),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert_eq!(
            accept(&[ScrapeProtocol::PrometheusText100], NameEscaping::Values),
            "text/plain;version=1.0.0;escaping=values;q=0.6,*/*;q=0.5"
        );
        let mut config = ScrapeConfig::new("job");
        config.scrape_protocols = vec![ScrapeProtocol::PrometheusText004];
        config.enable_compression = false;
        let headers: Vec<String> =
            headers(&config, 1500).into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            headers,
            [
                "Accept: text/plain;version=0.0.4;q=0.6,*/*;q=0.5",
                "Accept-Encoding: identity",
                "X-Prometheus-Scrape-Timeout-Seconds: 1.5"
            ]
        );
    }
}
