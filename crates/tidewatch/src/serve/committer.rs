//! The thread that makes batches durable: one sync for all that wait.
//!
//! ```text
//! append ─► ticket ─┐                        ┌─► durable(ticket) of each request
//! append ─► ticket ─┴─► wake ─ Db::commit ─► published
//! ```
//!
//! Requests do not hold a thread while they wait. While one sync runs, further batches gather
//! for the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use tidewatch_model::Batch;
use tidewatch_storage::{Append, AppendError, AppendOutcome, Ticket};
use tidewatch_tsdb::Db;
use tokio::sync::watch;

/// How soon a commit that failed is tried again: a full disk may have room by then.
const RETRY: Duration = Duration::from_secs(1);

/// How far the log is durable, or why it never will be again.
type Durability = Result<Ticket, String>;

/// Appends to the database and wakes the thread that commits.
pub struct Committer {
    db: Arc<Db>,
    durable: watch::Receiver<Durability>,
    thread: Thread,
}

/// The thread; it ends when asked, after a last commit.
pub struct CommitterThread {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl Committer {
    pub fn start(db: Arc<Db>) -> std::io::Result<(Arc<Committer>, CommitterThread)> {
        let (sender, durable) = watch::channel(Ok(Ticket::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (store, halt) = (db.clone(), stop.clone());
        let handle = std::thread::Builder::new().name("committer".to_owned()).spawn(move || {
            let mut failed = false;
            loop {
                // A wake-up that comes before `park` is kept, so none is lost. After a failure
                // nobody may wake us, as appends are refused then: look again by ourselves.
                if failed {
                    std::thread::park_timeout(RETRY)
                } else {
                    std::thread::park()
                }
                let last = halt.load(Ordering::Acquire);
                let outcome = store.commit().map_err(|error| error.to_string());
                failed = outcome.is_err();
                drop(sender.send_replace(outcome));
                if last {
                    return;
                }
            }
        })?;
        let thread = handle.thread().clone();
        Ok((Arc::new(Committer { db, durable, thread }), CommitterThread { stop, handle }))
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
        let outcome = self.db.append(batch)?;
        self.thread.unpark();
        Ok(outcome)
    }
}

impl CommitterThread {
    /// Commits what waits and ends the thread.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.handle.thread().unpark();
        if self.handle.join().is_err() {
            tracing::error!("the committer panicked");
        }
    }
}
