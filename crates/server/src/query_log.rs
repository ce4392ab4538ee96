//! Lines of the query log: one JSON object a query, with the fields of Prometheus 3.
//!
//! ```text
//! {"time":…,"level":"INFO","source":…,"msg":"promql query logged",
//!  "params":{"end":…,"query":…,"start":…,"step":15},"error":…,"stats":{…},"spanID":"0000000000000000",
//!  "httpRequest":{"clientIP":…,"method":…,"path":…}}
//! ```
//!
//! Queries of rules have a `ruleGroup` with file and name where those of clients have `httpRequest`.
//! A query that can not begin, as it does not parse, is not in the log.

use std::net::IpAddr;

use tidewatch_promql::{QueryError, QueryStatistics};

use crate::api::value::{Stats, write_stats};
use crate::json::Json;
use crate::request::format_time;

/// A query that has ended, however it did.
pub struct LoggedQuery<'a> {
    pub query: &'a str,
    pub asker: Asker<'a>,
    pub start_ms: i64,
    pub end_ms: i64,
    /// 0 for a query at one time.
    pub step_ms: i64,
    /// How long it waited for its turn.
    pub queued_ns: u64,
    /// How long it took, waiting included.
    pub total_ns: u64,
    pub result: Result<QueryStatistics, &'a QueryError>,
}

/// Who asked.
pub enum Asker<'a> {
    Http {
        /// Absent where no socket is involved.
        client: Option<IpAddr>,
        method: &'a str,
        path: &'a str,
    },
    RuleGroup {
        file: &'a str,
        name: &'a str,
    },
}

impl LoggedQuery<'_> {
    /// The line, with its line break.
    pub fn line(self, now_ms: i64) -> String {
        let mut text = Vec::new();
        Json::new(&mut text).object(|json| {
            json.key("time").string(&millis(now_ms));
            json.key("level").string("INFO");
            json.key("source").string("query_log.rs");
            json.key("msg").string("promql query logged");
            json.key("params").object(|json| {
                json.key("end").string(&millis(self.end_ms));
                json.key("query").string(self.query);
                json.key("start").string(&millis(self.start_ms));
                json.key("step").integer(self.step_ms / 1000);
            });
            if let Err(error) = &self.result {
                json.key("error").string(&error.to_string());
            }
            let statistics = self.result.unwrap_or_default();
            let stats = Stats { queued_ns: self.queued_ns, total_ns: self.total_ns, statistics };
            json.key("stats").object(|json| write_stats(json, &stats));
            // Nothing is traced here.
            json.key("spanID").string("0000000000000000");
            match self.asker {
                Asker::Http { client, method, path } => json.key("httpRequest").object(|json| {
                    json.key("clientIP").string(&client.map_or_else(String::new, |ip| ip.to_string()));
                    json.key("method").string(method);
                    json.key("path").string(path);
                }),
                Asker::RuleGroup { file, name } => json.key("ruleGroup").object(|json| {
                    json.key("file").string(file);
                    json.key("name").string(name);
                }),
            }
        });
        text.push(b'\n');
        String::from_utf8(text).expect("JSON is UTF-8")
    }
}

/// RFC 3339 with three digits of a second, always.
fn millis(ms: i64) -> String {
    let text = format_time(ms);
    let body = text.strip_suffix('Z').unwrap_or(&text);
    match body.split_once('.') {
        Some((whole, fraction)) => format!("{whole}.{fraction:0<3}Z"),
        None => format!("{body}.000Z"),
    }
}
