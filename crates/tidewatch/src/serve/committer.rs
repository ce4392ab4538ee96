//! The thread that makes batches durable: one sync for all that wait.
//!
//! ```text
//! append ─► ticket ─┐                        ┌─► durable(ticket) of each request
//! append ─► ticket ─┴─► wake ─ Db::commit ─► published
//! ```
//!
//! Requests do not hold a thread while they wait. While one sync runs, further batches gather
//! for the next; and before it begins, it waits a moment for requests that are being decoded: a sync
//! costs what some hundred samples do, and one for several requests no more than for a single one.
//!
//! Nobody waits for the samples of a scrape: they are committed with what comes next, a tenth of a second
//! later at most. What rests on them (a rule group's evaluation) commits them first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use tidewatch_model::Batch;
use tidewatch_storage::{Append, AppendError, AppendOutcome, Ticket};
use tidewatch_tsdb::Db;
use tokio::sync::watch;

/// How soon a commit that failed is tried again: a full disk may have room by then.
const RETRY: Duration = Duration::from_secs(1);

/// How long a batch waits at most for others that are being decoded: about as long as a sync takes.
const GATHER: Duration = Duration::from_micros(500);

/// How long a batch for which nobody waits waits for others.
const SOON: Duration = Duration::from_millis(100);

/// How far the log is durable, or why it never will be again.
type Durability = Result<Ticket, String>;

/// Appends to the database and wakes the thread that commits.
pub struct Committer {
    db: Arc<Db>,
    durable: watch::Receiver<Durability>,
    calls: Arc<Calls>,
    thread: Thread,
}

/// The thread; it ends when asked, after a last commit.
pub struct CommitterThread {
    calls: Arc<Calls>,
    handle: JoinHandle<()>,
}

/// What the others tell the thread.
#[derive(Default)]
struct Calls {
    /// Something waits for a sync that has not begun.
    wanted: AtomicBool,
    /// Something is to be committed soon.
    soon: AtomicBool,
    /// Requests that are being decoded and appended.
    underway: AtomicUsize,
    /// Whether the thread knows that it waits for those.
    gathers: AtomicBool,
    stop: AtomicBool,
}

impl Calls {
    /// Who raises the flag behind this look finds that the thread does not gather, and wakes it.
    fn is_wanted(&self) -> bool {
        self.gathers.store(false, Ordering::SeqCst);
        self.wanted.load(Ordering::SeqCst)
    }

    /// Returns when there is something to commit, and the others that will be soon are there or
    /// their time is over.
    fn wait(&self) {
        let mut due = None;
        // A wake-up that comes before `park` is kept, so none is lost; it may be one too many.
        while !self.is_wanted() && !self.stop.load(Ordering::Acquire) {
            if !self.soon.load(Ordering::Acquire) {
                std::thread::park();
                continue;
            }
            let now = Instant::now();
            match due.get_or_insert(now + SOON).saturating_duration_since(now) {
                Duration::ZERO => break,
                rest => std::thread::park_timeout(rest),
            }
        }
        let until = Instant::now() + GATHER;
        while self.underway.load(Ordering::Acquire) > 0 && !self.stop.load(Ordering::Acquire) {
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => break,
                rest => std::thread::park_timeout(rest),
            }
        }
    }
}

impl Committer {
    pub fn start(db: Arc<Db>) -> std::io::Result<(Arc<Committer>, CommitterThread)> {
        let (sender, durable) = watch::channel(Ok(Ticket::default()));
        let calls = Arc::<Calls>::default();
        let (store, heard) = (db.clone(), calls.clone());
        let handle = std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
            let mut failed = false;
            loop {
                // After a failure nobody may wake us, as appends are refused then: look again by
                // ourselves.
                match failed {
                    true => std::thread::park_timeout(RETRY),
                    false => heard.wait(),
                }
                let last = heard.stop.load(Ordering::Acquire);
                // Before the commit: who appends from here on asks for the next.
                heard.wanted.store(false, Ordering::SeqCst);
                heard.soon.store(false, Ordering::SeqCst);
                let outcome = store.commit().map_err(|error| error.to_string());
                failed = outcome.is_err();
                drop(sender.send_replace(outcome));
                if last {
                    return;
                }
            }
        })?;
        let thread = handle.thread().clone();
        let committer = Committer { db, durable, calls: calls.clone(), thread };
        Ok((Arc::new(committer), CommitterThread { calls, handle }))
    }

    /// Appends what nobody waits for.
    pub fn append_for_soon(&self, batch: &Batch<'_>) -> Result<AppendOutcome, AppendError> {
        let outcome = self.db.append(batch);
        // The first wakes the thread; the others are seen by it.
        if !self.calls.soon.swap(true, Ordering::SeqCst) {
            self.thread.unpark();
        }
        outcome
    }

    pub fn write_began(&self) {
        self.calls.underway.fetch_add(1, Ordering::SeqCst);
    }

    /// The last wakes the thread; so does the first, from which on it waits no longer than it may.
    pub fn write_ended(&self) {
        let is_last = self.calls.underway.fetch_sub(1, Ordering::SeqCst) == 1;
        let is_wanted = self.calls.wanted.load(Ordering::SeqCst);
        if is_wanted && (is_last || !self.calls.gathers.swap(true, Ordering::SeqCst)) {
            self.thread.unpark();
        }
    }

    /// Resolves when everything up to `ticket` is durable.
    pub async fn durable(&self, ticket: Ticket) -> Result<(), String> {
        let mut durable = self.durable.clone();
        let reached = durable.wait_for(|state| state.as_ref().map_or(true, |done| *done >= ticket)).await;
        match reached.as_deref() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(reason)) => Err(reason.clone()),
            Err(_) => Err("the server is shutting down".to_owned()),
        }
    }
}

impl Append for Committer {
    fn append(&self, batch: &Batch<'_>) -> Result<AppendOutcome, AppendError> {
        // A part of a batch that is refused may have been taken.
        let outcome = self.db.append(batch);
        self.calls.wanted.store(true, Ordering::SeqCst);
        // A request that is under way, this one or another, wakes the thread when it ends: once is enough.
        if self.calls.underway.load(Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        outcome
    }
}

impl CommitterThread {
    /// Commits what waits and ends the thread.
    pub fn stop(self) {
        self.calls.stop.store(true, Ordering::Release);
        self.handle.thread().unpark();
        if self.handle.join().is_err() {
            tracing::error!("the committer panicked");
        }
    }
}
