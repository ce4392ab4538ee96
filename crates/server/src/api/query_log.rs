//! Lines of the query log: one JSON object a query, with Prometheus' fields.
//!
//! ```text
//! {"params":{"end":…,"query":…,"start":…,"step":15},"stats":{…},"error":…,
//!  "httpRequest":{"clientIP":…,"method":…,"path":…},"ts":…}
//! ```

use tidewatch_promql::{Answer, QueryError};

use super::query::{Timings, When};
use super::rules::time;
use super::value::{Stats, write_stats};
use crate::json::Json;
use crate::request::Origin;

/// A query that has ended, however it did.
pub(super) fn line(
    origin: &Origin,
    query: &str,
    when: When,
    Timings { queued_ns, total_ns }: Timings,
    result: &Result<Answer, QueryError>,
    now_ms: i64,
) -> String {
    let (start, end, step_ms) = match when {
        When::At(at) => (at, at, 0),
        When::Range { start, end, step } => (start, end, step),
    };
    let mut text = Vec::new();
    Json::new(&mut text).object(|json| {
        json.key("params").object(|json| {
            json.key("end").string(&time(Some(end)));
            json.key("query").string(query);
            json.key("start").string(&time(Some(start)));
            json.key("step").number(step_ms as f64 / 1000.0);
        });
        match result {
            Ok(answer) => {
                let statistics = answer.statistics.clone();
                let stats = Stats { queued_ns, total_ns, statistics };
                json.key("stats").object(|json| write_stats(json, &stats));
            }
            Err(error) => json.key("error").string(&error.to_string()),
        }
        json.key("httpRequest").object(|json| {
            json.key("clientIP").string(&origin.client.map_or_else(String::new, |ip| ip.to_string()));
            json.key("method").string(&origin.method);
            json.key("path").string(&origin.path);
        });
        json.key("ts").string(&time(Some(now_ms)));
    });
    text.push(b'\n');
    String::from_utf8(text).expect("JSON is UTF-8")
}
