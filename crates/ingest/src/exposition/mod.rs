//! Prometheus text 0.0.4 / 1.0.0 and OpenMetrics text 1.0, read line by line without copies.
//!
//! Both grammars are those that Prometheus' scraper accepts, which is more than their
//! specifications allow: documents that strict parsers refuse are scraped every day.

/// Which grammar a document follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `text/plain`, version 0.0.4 or 1.0.0.
    Prometheus,
    /// `application/openmetrics-text`, version 0.0.1 or 1.0.0.
    OpenMetrics,
}
