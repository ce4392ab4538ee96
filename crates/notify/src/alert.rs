//! An alert on its way to a receiver.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidewatch_model::Labels;

/// An alert as rules tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub labels: Labels,
    pub annotations: BTreeMap<String, String>,
    pub starts_at_ms: i64,
    /// When it was resolved, or until when it holds if nothing more is heard.
    pub ends_at_ms: i64,
    pub resolved: bool,
    pub generator_url: String,
}

/// The body of a request to an Alertmanager's API v2. A firing alert holds from `now_ms` for as
/// long as it was to hold when it was told, so that one that had to wait does not arrive as over.
pub(crate) fn body<'a>(alerts: impl Iterator<Item = &'a Waiting>, now_ms: i64) -> Vec<u8> {
    let posted: Vec<Posted<'_>> = alerts.map(|waiting| waiting.posted(now_ms)).collect();
    serde_json::to_vec(&posted).expect("texts become JSON")
}

/// An alert in an outbox, with the time at which it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) alert: Alert,
    pub(crate) told_at_ms: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    annotations: &'a BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
}

impl Waiting {
    fn posted(&self, now_ms: i64) -> Posted<'_> {
        let Alert { labels, annotations, starts_at_ms, ends_at_ms, resolved, generator_url } = &self.alert;
        let waited_ms = if *resolved { 0 } else { (now_ms - self.told_at_ms).max(0) };
        Posted {
            labels: labels.iter().collect(),
            annotations,
            starts_at: rfc3339(*starts_at_ms),
            ends_at: rfc3339(ends_at_ms.saturating_add(waited_ms)),
            generator_url,
        }
    }
}

fn rfc3339(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// An outbox entry as a journal keeps it: JSON, as entries are few and outlive releases.
#[derive(Serialize, Deserialize)]
struct Kept {
    url: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at_ms: i64,
    ends_at_ms: i64,
    resolved: bool,
    generator_url: String,
    told_at_ms: i64,
}

/// Bytes for the journal: the alert and the address it waits for.
pub(crate) fn encode(url: &str, waiting: &Waiting) -> Vec<u8> {
    let Waiting { alert, told_at_ms } = waiting;
    let labels = alert.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let kept = Kept {
        url: url.to_owned(),
        labels,
        annotations: alert.annotations.clone(),
        starts_at_ms: alert.starts_at_ms,
        ends_at_ms: alert.ends_at_ms,
        resolved: alert.resolved,
        generator_url: alert.generator_url.clone(),
        told_at_ms: *told_at_ms,
    };
    serde_json::to_vec(&kept).expect("texts become JSON")
}

/// What [`encode`] wrote; `None` for any other bytes.
pub(crate) fn decode(bytes: &[u8]) -> Option<(String, Waiting)> {
    let kept: Kept = serde_json::from_slice(bytes).ok()?;
    let alert = Alert {
        labels: Labels::from_pairs(&kept.labels),
        annotations: kept.annotations,
        starts_at_ms: kept.starts_at_ms,
        ends_at_ms: kept.ends_at_ms,
        resolved: kept.resolved,
        generator_url: kept.generator_url,
    };
    Some((kept.url, Waiting { alert, told_at_ms: kept.told_at_ms }))
}
