//! What the server counts about itself, and how it says so.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tidewatch_promql::QueryStatistics;

/// Counters of the server. Requests are counted under a lock that is held for a look-up; the
/// rest are plain atomics.
#[derive(Default)]
pub(crate) struct Counters {
    /// By address pattern and status; both come from closed sets, so this stays small.
    requests: Mutex<Vec<Requests>>,
    /// Refusals by the limit that caused them.
    refused: Mutex<Vec<(&'static str, u64)>>,
    pub(crate) connections: AtomicU64,
    pub(crate) queries: AtomicU64,
    pub(crate) queries_waiting: AtomicU64,
    query_samples: AtomicU64,
    query_samples_read: AtomicU64,
    pub(crate) samples_written: AtomicU64,
    pub(crate) samples_refused: AtomicU64,
}

struct Requests {
    handler: &'static str,
    status: u16,
    count: u64,
    seconds: f64,
}

impl Counters {
    pub(crate) fn query_read(&self, statistics: &QueryStatistics) {
        self.query_samples.fetch_add(statistics.samples_total, Ordering::Relaxed);
        self.query_samples_read.fetch_add(statistics.samples_read, Ordering::Relaxed);
    }

    pub(crate) fn request(&self, handler: &'static str, status: u16, seconds: f64) {
        let mut requests = self.requests.lock();
        // Handlers are few and their names are static, so that comparing addresses would do;
        // comparing texts is as quick at this length.
        match requests.iter_mut().find(|row| row.status == status && row.handler == handler) {
            Some(row) => {
                row.count += 1;
                row.seconds += seconds;
            }
            None => requests.push(Requests { handler, status, count: 1, seconds }),
        }
    }

    /// Counts a refusal under the name of its limit.
    pub(crate) fn refuse(&self, limit: &'static str) {
        let mut refused = self.refused.lock();
        match refused.iter_mut().find(|(name, _)| *name == limit) {
            Some((_, count)) => *count += 1,
            None => refused.push((limit, 1)),
        }
    }

    /// Prometheus' text format.
    pub(crate) fn render(&self, out: &mut String) {
        let mut family = |name: &str, kind: &str, help: &str, samples: &dyn Fn(&mut String)| {
            writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("memory takes all");
            samples(out);
        };
        let plain = |name: &'static str, counter: &AtomicU64| {
            let value = counter.load(Ordering::Relaxed);
            move |out: &mut String| writeln!(out, "{name} {value}").expect("memory takes all")
        };
        family("prometheus_http_requests_total", "counter", "Counter of HTTP requests.", &|out| {
            for row in self.requests.lock().iter() {
                let Requests { handler, status, count, .. } = row;
                writeln!(
                    out,
                    "prometheus_http_requests_total{{code=\"{status}\",handler=\"{handler}\"}} {count}"
                )
                .expect("memory takes all");
            }
        });
        let help = "Time spent on HTTP requests until the answer began.";
        family("tidewatch_http_request_seconds_total", "counter", help, &|out| {
            for row in self.requests.lock().iter() {
                let Requests { handler, status, seconds, .. } = row;
                writeln!(
                    out,
                    "tidewatch_http_request_seconds_total{{code=\"{status}\",handler=\"{handler}\"}} {seconds}"
                )
                .expect("memory takes all");
            }
        });
        let help = "Requests and connections refused, by the limit that refused them.";
        family("tidewatch_http_refused_total", "counter", help, &|out| {
            for (limit, count) in self.refused.lock().iter() {
                writeln!(out, "tidewatch_http_refused_total{{limit=\"{limit}\"}} {count}")
                    .expect("memory takes all");
            }
        });
        let name = "tidewatch_http_connections";
        family(name, "gauge", "Open connections.", &plain(name, &self.connections));
        let name = "prometheus_engine_queries";
        family(name, "gauge", "The current number of queries being executed.", &plain(name, &self.queries));
        let name = "prometheus_engine_query_samples_total";
        let help = "The total number of samples loaded by all queries.";
        family(name, "counter", help, &plain(name, &self.query_samples));
        let name = "prometheus_engine_query_samples_read_total";
        let help = "Samples that queries had the storage read.";
        family(name, "counter", help, &plain(name, &self.query_samples_read));
        let name = "tidewatch_queries_waiting";
        family(name, "gauge", "Queries that wait for their turn.", &plain(name, &self.queries_waiting));
        let name = "tidewatch_remote_write_samples_total";
        let help = "Samples taken from remote write requests.";
        family(name, "counter", help, &plain(name, &self.samples_written));
        let name = "tidewatch_remote_write_samples_refused_total";
        let help = "Samples of remote write requests that were refused one by one.";
        family(name, "counter", help, &plain(name, &self.samples_refused));
    }
}

/// Counts something as going on for as long as it lives.
pub(crate) struct Going<'a>(&'a AtomicU64);

impl<'a> Going<'a> {
    pub(crate) fn on(counter: &'a AtomicU64) -> Going<'a> {
        counter.fetch_add(1, Ordering::Relaxed);
        Going(counter)
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
