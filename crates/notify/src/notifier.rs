//! The state machine between rules and receivers.

use std::collections::BTreeMap;

use tidewatch_model::{Labels, Limits, RelabelConfig, relabel};

use crate::alert::{Alert, Waiting, body, decode, encode};
use crate::queue::Queue;

/// How long the alerts of an address that is configured no more wait for it to come back:
/// discovery may lose a receiver for a moment.
const ABSENT_RETENTION_MS: i64 = 15 * 60 * 1000;

/// What all receivers share.
#[derive(Debug, Clone)]
pub struct Options {
    /// Added to alerts that lack them.
    pub external_labels: Labels,
    /// `alert_relabel_configs`.
    pub relabel: Vec<RelabelConfig>,
    /// Alerts in one request.
    pub batch: usize,
    /// Bytes that may wait in all; over it the oldest of the longest queue is dropped and counted.
    pub outbox_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            external_labels: Labels::empty(),
            relabel: Vec::new(),
            batch: 64,
            outbox_bytes: Limits::default().outbox_bytes,
        }
    }
}

/// An Alertmanager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Where alerts are posted: `http://host:9093/prefix/api/v2/alerts`.
    pub url: String,
    pub timeout_ms: u64,
    /// `alert_relabel_configs` of its section, after those that all share.
    pub relabel: Vec<RelabelConfig>,
    /// Which section of the configuration it is from, for the client that sends the request.
    pub section: usize,
}

/// Joins the parts of an Alertmanager's address.
pub fn alerts_url(scheme: &str, address: &str, path_prefix: &str) -> String {
    let prefix = path_prefix.trim_matches('/');
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("{scheme}://{address}{slash}{prefix}/api/v2/alerts")
}

/// A request to be sent. Its outcome is to be told with [`Notifier::completed`], always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub id: RequestId,
    pub url: String,
    pub method: &'static str,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Vec<u8>,
    pub timeout_ms: u64,
    pub section: usize,
    /// How many alerts it holds.
    pub alerts: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered with this status.
    Status(u16),
    /// There was no answer; the text says why.
    Failed(String),
}

/// What a journal is to note: entries by id. Only what was noted survives a crash, so note it
/// before the requests of [`Notifier::due`] are sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutboxChanges {
    pub puts: Vec<(u64, Vec<u8>)>,
    pub removals: Vec<u64>,
}

impl OutboxChanges {
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removals.is_empty()
    }
}

/// Totals since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Alerts delivered, once for each receiver.
    pub delivered: u64,
    /// Requests that failed and are made again.
    pub failed_requests: u64,
    /// Alerts that a receiver refused for good.
    pub refused: u64,
    /// Alerts dropped as the outbox was full.
    pub dropped_full: u64,
    /// Alerts dropped as their receiver is configured no more.
    pub dropped_absent: u64,
    /// Alerts told while no receiver was configured.
    pub without_receiver: u64,
    /// Alerts that relabelling dropped.
    pub relabelled_away: u64,
}

/// One receiver as the API and the page show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverStatus {
    pub url: String,
    /// Whether it is configured now; others wait to come back or to be forgotten.
    pub active: bool,
    pub waiting: usize,
    pub waiting_bytes: usize,
    pub in_flight: bool,
    pub last_success_ms: Option<i64>,
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
struct Receiver {
    /// Absent for an address that is configured no more.
    endpoint: Option<Endpoint>,
    absent_since_ms: i64,
    queue: Queue,
    last_success_ms: Option<i64>,
    last_error: Option<String>,
}

/// Alerts in, requests out.
///
/// ```text
///            enqueue                 due                  completed(2xx)
/// rules ───────────────► waiting ───────────► in flight ───────────────► (gone)
///                           ▲                     │
///                           └──── after a wait ◄──┘ no answer, 5xx, 429
/// ```
///
/// One request at a time is on its way to a receiver, so that a newer state of an alert can not be
/// overtaken by an older one; receivers do not wait for each other.
#[derive(Debug)]
pub struct Notifier {
    options: Options,
    receivers: BTreeMap<String, Receiver>,
    /// Requests on their way, by id, and the address they go to.
    in_flight: BTreeMap<RequestId, String>,
    next_id: u64,
    changes: OutboxChanges,
    counters: Counters,
}

impl Notifier {
    pub fn new(options: Options) -> Notifier {
        Notifier {
            options,
            receivers: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_id: 1,
            changes: OutboxChanges::default(),
            counters: Counters::default(),
        }
    }

    /// Takes new options; what waits was relabelled by the old ones and stays as it is.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Makes `endpoints` the receivers, of which each address counts once.
    pub fn set_endpoints(&mut self, now_ms: i64, endpoints: Vec<Endpoint>) {
        for receiver in self.receivers.values_mut() {
            if receiver.endpoint.take().is_some() {
                receiver.absent_since_ms = now_ms;
            }
        }
        for endpoint in endpoints {
            let receiver = self.receivers.entry(endpoint.url.clone()).or_default();
            receiver.endpoint.get_or_insert(endpoint);
        }
        self.forget_absent(now_ms);
    }

    /// Takes what a journal kept. Returns how many entries could not be read.
    pub fn restore(&mut self, now_ms: i64, entries: impl IntoIterator<Item = (u64, Vec<u8>)>) -> usize {
        let mut unreadable = 0;
        for (id, bytes) in entries {
            self.next_id = self.next_id.max(id + 1);
            let Some((url, waiting)) = decode(&bytes) else {
                unreadable += 1;
                self.changes.removals.push(id);
                continue;
            };
            let fresh = || Receiver { absent_since_ms: now_ms, ..Receiver::default() };
            let receiver = self.receivers.entry(url).or_insert_with(fresh);
            self.changes.removals.extend(receiver.queue.put(id, waiting, bytes.len()));
        }
        unreadable
    }

    /// Takes alerts for every receiver. Of an alert that waits already the newer state stays.
    pub fn enqueue(&mut self, now_ms: i64, alerts: &[Alert]) {
        for alert in alerts {
            let Some(alert) = relabelled(alert, &self.options.external_labels, &self.options.relabel) else {
                self.counters.relabelled_away += 1;
                continue;
            };
            self.hand_out(now_ms, &alert);
        }
        self.make_room();
    }

    fn hand_out(&mut self, now_ms: i64, alert: &Alert) {
        let mut receivers = 0;
        for (url, receiver) in &mut self.receivers {
            let Some(endpoint) = &receiver.endpoint else { continue };
            receivers += 1;
            let Some(alert) = relabelled(alert, &Labels::empty(), &endpoint.relabel) else {
                self.counters.relabelled_away += 1;
                continue;
            };
            let id = self.next_id;
            self.next_id += 1;
            let waiting = Waiting { alert, told_at_ms: now_ms };
            let bytes = encode(url, &waiting);
            self.changes.removals.extend(receiver.queue.put(id, waiting, bytes.len()));
            self.changes.puts.push((id, bytes));
        }
        self.counters.without_receiver += u64::from(receivers == 0);
    }

    fn make_room(&mut self) {
        let bytes = |receivers: &BTreeMap<String, Receiver>| {
            receivers.values().map(|receiver| receiver.queue.bytes()).sum::<usize>()
        };
        while bytes(&self.receivers) > self.options.outbox_bytes {
            let largest = self.receivers.values_mut().max_by_key(|receiver| receiver.queue.bytes());
            let Some(dropped) = largest.and_then(|receiver| receiver.queue.drop_oldest()) else { return };
            self.changes.removals.push(dropped);
            self.counters.dropped_full += 1;
        }
    }

    /// The requests to send now. They are on their way until their outcome is told.
    pub fn due(&mut self, now_ms: i64) -> Vec<Request> {
        self.forget_absent(now_ms);
        let mut requests = Vec::new();
        for (url, receiver) in &mut self.receivers {
            let Some(endpoint) = &receiver.endpoint else { continue };
            if receiver.queue.due_ms().is_none_or(|due_ms| due_ms > now_ms) {
                continue;
            }
            let batch = receiver.queue.take_batch(self.options.batch.max(1));
            let id = RequestId(self.next_id);
            self.next_id += 1;
            self.in_flight.insert(id, url.clone());
            requests.push(Request {
                id,
                url: url.clone(),
                method: "POST",
                headers: vec![("Content-Type", "application/json")],
                alerts: batch.len(),
                body: body(batch.into_iter(), now_ms),
                timeout_ms: endpoint.timeout_ms,
                section: endpoint.section,
            });
        }
        requests
    }

    /// When [`Notifier::due`] will have something, if nothing else happens.
    pub fn next_due_ms(&self) -> Option<i64> {
        let active = self.receivers.values().filter(|receiver| receiver.endpoint.is_some());
        active.filter_map(|receiver| receiver.queue.due_ms()).min()
    }

    /// Takes the outcome of a request.
    pub fn completed(&mut self, now_ms: i64, id: RequestId, outcome: Outcome) {
        let Some(url) = self.in_flight.remove(&id) else { return };
        let Some(receiver) = self.receivers.get_mut(&url) else { return };
        match outcome {
            Outcome::Status(200..=299) => {
                let done = receiver.queue.delivered(now_ms);
                receiver.last_success_ms = Some(now_ms);
                receiver.last_error = None;
                self.counters.delivered += done.len() as u64;
                self.changes.removals.extend(done);
            }
            // What the request holds is at fault, not the time.
            Outcome::Status(status @ (400 | 413 | 415 | 422)) => {
                let dropped = receiver.queue.refused(now_ms);
                receiver.last_error = Some(format!("the receiver refused alerts with status {status}"));
                self.counters.refused += dropped.len() as u64;
                self.changes.removals.extend(dropped);
            }
            Outcome::Status(status) => {
                receiver.queue.failed(now_ms);
                receiver.last_error = Some(format!("bad response status {status}"));
                self.counters.failed_requests += 1;
            }
            Outcome::Failed(reason) => {
                receiver.queue.failed(now_ms);
                receiver.last_error = Some(reason);
                self.counters.failed_requests += 1;
            }
        }
    }

    /// What changed in the outbox since this was last asked.
    pub fn take_changes(&mut self) -> OutboxChanges {
        std::mem::take(&mut self.changes)
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Every receiver, by address.
    pub fn status(&self) -> Vec<ReceiverStatus> {
        let status = |(url, receiver): (&String, &Receiver)| ReceiverStatus {
            url: url.clone(),
            active: receiver.endpoint.is_some(),
            waiting: receiver.queue.len(),
            waiting_bytes: receiver.queue.bytes(),
            in_flight: receiver.queue.is_in_flight(),
            last_success_ms: receiver.last_success_ms,
            last_error: receiver.last_error.clone(),
        };
        self.receivers.iter().map(status).collect()
    }

    /// Forgets receivers that are configured no more and have nothing to wait for, or waited long.
    fn forget_absent(&mut self, now_ms: i64) {
        let (changes, counters) = (&mut self.changes, &mut self.counters);
        self.receivers.retain(|_, receiver| {
            let waiting = receiver.queue.len() > 0 || receiver.queue.is_in_flight();
            let keep = receiver.endpoint.is_some()
                || waiting && now_ms - receiver.absent_since_ms < ABSENT_RETENTION_MS;
            if !keep {
                counters.dropped_absent += receiver.queue.len() as u64;
                changes.removals.extend(receiver.queue.ids());
            }
            keep
        });
    }
}

/// The alert with `external` labels where it lacks them, after `rules`; `None` when these drop it.
fn relabelled(alert: &Alert, external: &Labels, rules: &[RelabelConfig]) -> Option<Alert> {
    let mut labels = alert.labels.to_builder();
    for (name, value) in external.iter() {
        if labels.get(name).is_none() {
            labels.set(name, value);
        }
    }
    relabel(&mut labels, rules).then(|| Alert { labels: labels.build(), ..alert.clone() })
}
