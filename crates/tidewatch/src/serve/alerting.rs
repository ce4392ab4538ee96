//! From a rule's effects to a delivered page, durable at each step.
//!
//! ```text
//! Effects ─► store committed ─► journal: { changes, outbox } in one record ─► due ─► HTTP ─► journal
//! ```
//!
//! A page never rests on a sample that a power cut could take back: the store is committed
//! before the change is journaled, and the journal before anything is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tidewatch_env::Env;
use tidewatch_journal::{Journal, JournalError, JournalState, Record, Taken, Waiting};
use tidewatch_net::{Client, Request as HttpRequest};
use tidewatch_notify::{Alert, Endpoint, Notifier, Options, OutboxChanges, Outcome, Request};
use tidewatch_rules::{
    AlertChange, AlertInstance, AlertState, Effects, Group, Notification, RuleId, awake_until_ms, rehome,
};
use tidewatch_server::AlertmanagersView;
use tidewatch_tsdb::Db;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::records;
use crate::exposition::Exposition;

/// The sender looks for what is due at least this often.
const IDLE: Duration = Duration::from_secs(5);

/// For how long a group that is no more is remembered: the marks of all groups tell how long this process
/// slept, also where all of them have other names now and the process ends before these are evaluated.
const FORGET_MS: i64 = 3_600_000;

/// What nobody waits for is synced as often.
const SYNC_NS: u64 = 30_000_000_000;

/// Bytes of an Alertmanager's answer that are read: it says nothing on success.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// State machine and journal of alerts and their notifications.
pub struct Alerting {
    env: Env,
    db: Arc<Db>,
    journal: Journal,
    /// Guards the outbox; held while its records are appended, so that they keep its order.
    state: Mutex<State>,
    /// Wakes the sender when something may be due.
    wake: Notify,
}

struct State {
    notifier: Notifier,
    /// A client for each section of `alerting.alertmanagers`.
    clients: Vec<Client>,
    dropped: Vec<String>,
    /// Why the journal does not take records; alerts are sent from memory meanwhile.
    failed: Option<String>,
    /// It will not take any until the next start.
    closed: bool,
    /// Records for which it had no room.
    waiting: Waiting,
    /// When it was synced last without a need.
    synced_ns: u64,
}

impl Alerting {
    /// Takes what the journal kept for the outbox; the alerts are for [`restore`](restore).
    pub fn new(env: Env, db: Arc<Db>, journal: Journal, state: &JournalState) -> Alerting {
        let mut notifier = Notifier::new(Options::default());
        let unreadable = notifier.restore(env.clock.wall_ms(), records::outbox(state));
        if unreadable > 0 {
            tracing::error!(unreadable, "entries of the notification outbox could not be read");
        }
        let state = State {
            notifier,
            clients: Vec::new(),
            dropped: Vec::new(),
            failed: None,
            closed: false,
            waiting: Waiting::default(),
            synced_ns: env.clock.monotonic_ns(),
        };
        Alerting { env, db, journal, state: Mutex::new(state), wake: Notify::new() }
    }

    /// Puts a new configuration in force.
    pub fn configure(
        &self,
        options: Options,
        endpoints: Vec<Endpoint>,
        clients: Vec<Client>,
        dropped: Vec<String>,
    ) {
        let mut state = self.state.lock();
        state.notifier.set_options(options);
        state.clients = clients;
        state.dropped = dropped;
        state.notifier.set_endpoints(self.env.clock.wall_ms(), endpoints);
        self.persist(&mut state, Vec::new());
        drop(state);
        self.wake.notify_one();
    }

    /// Puts newly discovered endpoints in force.
    pub fn set_endpoints(&self, endpoints: Vec<Endpoint>, dropped: Vec<String>) {
        let mut state = self.state.lock();
        state.dropped = dropped;
        state.notifier.set_endpoints(self.env.clock.wall_ms(), endpoints);
        self.persist(&mut state, Vec::new());
    }

    /// Makes one evaluation's changes durable together with the notifications they cause.
    pub fn record(&self, file: &str, group: &str, effects: &Effects) {
        let told = !effects.notifications.is_empty() || !effects.changes.is_empty();
        if told && let Err(error) = self.db.commit() {
            tracing::error!(%error, "the store could not be committed before alerts changed");
        }
        let alerts: Vec<Alert> = effects.notifications.iter().map(alert).collect();
        let mut state = self.state.lock();
        // As of the evaluation: where the process was stopped in the middle of it, what is told holds as long
        // from when it is sent, and does not arrive as over.
        state.notifier.enqueue(effects.at_ms, &alerts);
        let records = records::of_evaluation(file, group, effects);
        self.persist(&mut state, records);
        drop(state);
        if !alerts.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Records alerts whose rules are no more or stand elsewhere.
    pub fn note(&self, file: &str, group: &str, changes: &[AlertChange]) {
        let mut state = self.state.lock();
        let records = records::of_changes(file, group, changes);
        self.persist(&mut state, records);
    }

    /// Forgets when groups were evaluated that are no more.
    fn forget<'g>(&self, groups: impl Iterator<Item = (&'g str, &'g str, i64)>) {
        let records = groups.map(|(file, name, _)| records::forgotten(file, name)).collect();
        self.persist(&mut self.state.lock(), records);
    }

    /// Writes `records` and the outbox's changes as one, and syncs if anything is to be told.
    fn persist(&self, state: &mut State, records: Vec<Record>) {
        let OutboxChanges { puts, removals } = state.notifier.take_changes();
        let must_sync = !puts.is_empty() || records.iter().any(records::must_sync);
        // Where it takes several frames the pages come first: told twice is better than never.
        let mut all: Vec<Record> = records::outbox_puts(puts).collect();
        all.extend(records);
        all.extend(records::outbox_removals(removals));
        if !all.is_empty() {
            self.write(state, all, must_sync);
        }
    }

    /// Writes records behind those that wait for room, and says once that it can not, and that it can again.
    fn write(&self, state: &mut State, records: Vec<Record>, must_sync: bool) {
        if state.closed {
            return;
        }
        match self.try_write(state, records, must_sync) {
            Ok(()) if state.failed.take().is_some() => tracing::info!("alert state is durable again"),
            Ok(()) => {}
            Err(error) => {
                if !error.may_pass() {
                    (state.closed, state.waiting) = (true, Waiting::default());
                }
                if state.failed.replace(error.to_string()).is_none() {
                    tracing::error!(%error, "alert state is not durable; alerts go on from memory");
                }
            }
        }
    }

    fn try_write(
        &self,
        state: &mut State,
        mut records: Vec<Record>,
        must_sync: bool,
    ) -> Result<(), JournalError> {
        let waited = !state.waiting.is_empty();
        if waited {
            state.waiting.add(records, &self.journal);
            // Room is looked for before all that waits is touched: that is much where a disk is full for long.
            self.journal.commit()?;
            records = state.waiting.take();
        }
        let Taken { rest, error, too_large } = self.journal.append_all(records);
        state.waiting.add(rest, &self.journal);
        if too_large > 0 {
            tracing::error!(too_large, "alerts are too large for the journal: shorten their annotations");
        }
        error.map_or(Ok(()), Err)?;
        if must_sync || waited {
            self.journal.commit()?;
        }
        Ok(())
    }

    /// Keeps the journal small and near to what it was told, also where nobody waits for it: the time of the
    /// last evaluation says at the next start how long this process was away. Cheap when there is nothing to do.
    pub fn maintain(&self) -> Result<bool, JournalError> {
        let now_ns = self.env.clock.monotonic_ns();
        let mut state = self.state.lock();
        if state.failed.is_some() || now_ns.saturating_sub(state.synced_ns) >= SYNC_NS {
            state.synced_ns = now_ns;
            self.write(&mut state, Vec::new(), true);
        }
        drop(state);
        self.journal.maintain()
    }

    /// A last sync, with what waited for room.
    pub fn close(&self) {
        let mut state = self.state.lock();
        self.write(&mut state, Vec::new(), true);
        if let Some(reason) = &state.failed {
            tracing::error!(reason, "alert state of the end is not durable");
        }
    }

    /// Sends what is due until dropped. Each request is a task, so that a receiver that hangs
    /// delays no other.
    pub async fn send_all(self: Arc<Self>) {
        let mut sending = JoinSet::new();
        loop {
            let now_ms = self.env.clock.wall_ms();
            let (requests, next_ms) = {
                let mut state = self.state.lock();
                let requests: Vec<(Request, Option<Client>)> = state
                    .notifier
                    .due(now_ms)
                    .into_iter()
                    .map(|request| {
                        let client = state.clients.get(request.section).cloned();
                        (request, client)
                    })
                    .collect();
                (requests, state.notifier.next_due_ms())
            };
            for (request, client) in requests {
                sending.spawn(self.clone().send(request, client));
            }
            let wait_ms = next_ms.map_or(u64::MAX, |next| (next - now_ms).max(1).unsigned_abs());
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(wait_ms).min(IDLE)) => {}
                Some(_) = sending.join_next() => {}
            }
        }
    }

    async fn send(self: Arc<Self>, request: Request, client: Option<Client>) {
        let outcome = match client {
            None => Outcome::Failed("the Alertmanager's client could not be set up".to_owned()),
            Some(client) => {
                let http = HttpRequest {
                    method: hyper::Method::POST,
                    url: request.url.clone(),
                    headers: request
                        .headers
                        .iter()
                        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                        .collect(),
                    body: Bytes::from(request.body),
                    timeout: Duration::from_millis(request.timeout_ms),
                    body_bytes_max: ANSWER_BYTES_MAX,
                };
                match client.send(&http).await {
                    Ok(response) => Outcome::Status(response.status.as_u16()),
                    Err(error) => Outcome::Failed(error.to_string()),
                }
            }
        };
        if !matches!(outcome, Outcome::Status(200..=299)) {
            tracing::warn!(url = request.url, alerts = request.alerts, ?outcome, "sending alerts failed");
        }
        let mut state = self.state.lock();
        state.notifier.completed(self.env.clock.wall_ms(), request.id, outcome);
        self.persist(&mut state, Vec::new());
    }

    pub fn alertmanagers(&self) -> AlertmanagersView {
        let state = self.state.lock();
        let active = state.notifier.status().into_iter().filter(|receiver| receiver.active);
        AlertmanagersView {
            active: active.map(|receiver| receiver.url).collect(),
            dropped: state.dropped.clone(),
        }
    }

    /// Metrics of notifications and of the journal.
    pub fn render(&self, out: &mut Exposition) {
        let state = self.state.lock();
        let counters = state.notifier.counters();
        let simple = [
            ("tidewatch_notifications_delivered_total", "Alerts that a receiver took.", counters.delivered),
            (
                "tidewatch_notifications_failed_requests_total",
                "Requests that failed and are repeated.",
                counters.failed_requests,
            ),
            ("tidewatch_notifications_refused_total", "Alerts that a receiver refused.", counters.refused),
            (
                "tidewatch_notifications_without_receiver_total",
                "Alerts for which no receiver was known.",
                counters.without_receiver,
            ),
        ];
        for (name, help, count) in simple {
            out.single(name, "counter", help, count as f64);
        }
        out.family("tidewatch_notifications_dropped_total", "counter", "Alerts that were dropped, by cause.");
        out.sample(&[("cause", "outbox_full")], counters.dropped_full as f64);
        out.sample(&[("cause", "receiver_gone")], counters.dropped_absent as f64);
        out.sample(&[("cause", "relabelled")], counters.relabelled_away as f64);
        let receivers = state.notifier.status();
        out.family("tidewatch_notifications_waiting", "gauge", "Alerts that wait for a receiver.");
        for receiver in &receivers {
            out.sample(&[("alertmanager", &receiver.url)], receiver.waiting as f64);
        }
        let failed = f64::from(u8::from(state.failed.is_some()));
        out.single("tidewatch_journal_failed", "gauge", "Whether alert state is no longer durable.", failed);
    }
}

fn alert(notification: &Notification) -> Alert {
    Alert {
        labels: notification.labels.clone(),
        annotations: notification.annotations.clone(),
        starts_at_ms: notification.starts_at_ms,
        ends_at_ms: notification.ends_at_ms,
        resolved: notification.state == AlertState::Inactive,
        generator_url: notification.generator_url.clone(),
    }
}

/// Puts the alerts of the journal into the groups they belong to, wherever their rules stand now, and
/// forgets those whose rules are no more.
pub fn restore(groups: &mut [Group], state: &JournalState, alerting: &Alerting) {
    let mut kept: BTreeMap<(String, String), Vec<(RuleId, AlertInstance)>> = records::alerts(state);
    let newest_ms = records::newest_evaluation(state, alerting.env.clock.wall_ms());
    let last_evaluation = |group: &Group| {
        records::last_evaluation(state, group.file(), group.name())
            .filter(|last_ms| !is_of_the_past(state, *last_ms, newest_ms, group.interval_ms()))
    };
    let awake_ms = newest_ms.map(|newest_ms| awake_until_ms(groups, last_evaluation, newest_ms));
    for group in &mut *groups {
        let (file, name) = (group.file().to_owned(), group.name().to_owned());
        let last_ms = last_evaluation(group);
        let mut none = Vec::new();
        let changes = group.restore(
            last_ms,
            awake_ms,
            kept.get_mut(&(file.clone(), name.clone())).unwrap_or(&mut none),
        );
        alerting.note(&file, &name, &changes);
    }
    for ((file, name), alerts) in kept {
        for note in rehome(groups, &file, &name, alerts) {
            alerting.note(&note.file, &note.group, &note.changes);
        }
    }
    let groups: BTreeSet<(&str, &str)> = groups.iter().map(|group| (group.file(), group.name())).collect();
    alerting.forget(records::groups(state).filter(|(file, name, last_ms)| {
        !groups.contains(&(file, name)) && is_of_the_past(state, *last_ms, newest_ms, 0)
    }));
}

/// Whether a group was not there any more when others were last evaluated. What it missed since is no gap. One
/// that still waits after a long sleep has missed what all have.
fn is_of_the_past(state: &JournalState, last_ms: i64, newest_ms: Option<i64>, interval_ms: i64) -> bool {
    newest_ms.is_some_and(|newest_ms| {
        records::evaluated_ms(state, last_ms, newest_ms) > 2 * interval_ms + FORGET_MS
    })
}

#[cfg(test)]
mod tests;
