//! The storage's background work: one job at a time, decided by the store itself.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::backend::Running;

/// How long to wait when the store has nothing to do.
const IDLE: Duration = Duration::from_secs(1);

/// How long to wait after a job failed: a full disk does not empty at once.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Runs jobs until stopped, between two of them.
pub async fn run(running: Arc<Running>, mut stopped: watch::Receiver<bool>) {
    loop {
        let worker = running.clone();
        // Jobs read and write files.
        let wait = tokio::task::spawn_blocking(move || run_due(&worker)).await.unwrap_or_else(|_| {
            tracing::error!("a storage job panicked");
            AFTER_FAILURE
        });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

/// Runs one job that is due; gives how long to wait for the next.
fn run_due(running: &Running) -> Duration {
    if let Err(error) = running.alerting.maintain() {
        tracing::error!(%error, "the journal could not be compacted");
    }
    if !running.db.is_complete() {
        return IDLE;
    }
    let Some(job) = running.db.next_job(running.env.clock.wall_ms()) else { return IDLE };
    let name = format!("{job:?}");
    match running.db.run(job) {
        Ok(()) => Duration::ZERO,
        Err(error) => {
            tracing::error!(job = name, %error, "a storage job failed");
            AFTER_FAILURE
        }
    }
}
