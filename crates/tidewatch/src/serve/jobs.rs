//! The storage's background work: one job at a time, decided by the store itself.
//!
//! A job that fails or panics is counted and shown, on the page and as a metric, until one of
//! its kind succeeds. The store tries it again later and goes on with jobs of other kinds.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidewatch_env::trim_heap;
use tidewatch_tsdb::{Damage, Db, Expired, Job, JobError};
use tokio::sync::watch;

use super::backend::Running;

/// How long to wait when the store has nothing to do.
const IDLE: Duration = Duration::from_secs(1);

/// How long to wait after a job failed: a full disk does not empty at once.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Kinds of jobs, as the metric names them: what decides, and the jobs of the store.
const KINDS: [&str; 9] =
    ["journal", "plan", "mend", "cut", "cut_stale", "image", "retain", "compact", "clean"];

/// How the jobs went so far.
#[derive(Debug, Default)]
pub struct JobHealth {
    kinds: Mutex<BTreeMap<&'static str, Health>>,
    /// Whether the store took no writes when it was asked last.
    is_read_only: AtomicBool,
    /// How many pieces of damage the log was told of.
    damage_told: Mutex<u64>,
}

/// How the jobs of one kind went.
#[derive(Debug, Default)]
struct Health {
    failures: u64,
    /// Why the last one failed, if it did.
    cause: Option<String>,
}

impl JobHealth {
    /// Runs a job and notes how it went; `None` when it failed or panicked.
    fn watch<T, E: ToString>(&self, kind: &'static str, job: impl FnOnce() -> Result<T, E>) -> Option<T> {
        // A job may end anywhere: what it leaves is what a failing disk leaves at that place.
        let (done, cause) = match catch_unwind(AssertUnwindSafe(job)) {
            Ok(Ok(done)) => (Some(done), None),
            Ok(Err(error)) => (None, Some(error.to_string())),
            Err(panic) => (None, Some(format!("it panicked: {}", message(&*panic)))),
        };
        let mut kinds = self.kinds.lock();
        let health = kinds.entry(kind).or_default();
        if let Some(cause) = &cause {
            tracing::error!(job = kind, cause, "a storage job failed");
            health.failures += 1;
        }
        health.cause = cause;
        done
    }

    /// Runs a job of the store and logs what it did that somebody may miss; `None` when it failed or panicked.
    fn run(&self, db: &Db, job: Job) -> Option<()> {
        let run = || match db.run(job.clone()) {
            // The server is going down; the next start does it.
            Err(JobError::Stopped) => Ok(()),
            result => result,
        };
        let before = db.chunks_set_aside();
        let done = self.watch(job.kind(), run);
        if let Job::Retain(expired) = &job {
            log_expired(expired);
        }
        let count = db.chunks_set_aside() - before;
        if count > 0 {
            tracing::error!(count, "damaged parts of a block were set aside: /api/v1/status/tsdb names them");
        }
        done
    }

    /// Logs that the store takes no writes, and that it takes them again.
    fn note_read_only(&self, reason: Option<String>) {
        if self.is_read_only.swap(reason.is_some(), Ordering::Relaxed) == reason.is_some() {
            return;
        }
        match reason {
            Some(reason) => tracing::error!(reason, "the store takes no writes"),
            None => tracing::info!("the store takes writes again"),
        }
    }

    /// Logs what of the stored data was found damaged since the last call: the page shows it too, but not everybody
    /// looks there.
    pub fn report_damage(&self, db: &Db) {
        let mut told = self.damage_told.lock();
        let (damage, found) = db.damage();
        let new = damage.iter().skip(*told as usize);
        let more = found - *told - new.len() as u64;
        for Damage { path, offset, reason } in new {
            tracing::error!(file = path, offset, reason, "stored data is damaged");
        }
        if more > 0 {
            tracing::error!(more, found, "stored data is damaged in more places than are listed");
        }
        *told = found;
    }

    /// How many jobs failed, by kind.
    pub fn failures(&self) -> Vec<(&'static str, u64)> {
        let kinds = self.kinds.lock();
        KINDS.map(|kind| (kind, kinds.get(kind).map_or(0, |health| health.failures))).to_vec()
    }

    /// A line for each kind whose last job failed.
    pub fn notices(&self) -> Vec<String> {
        let kinds = self.kinds.lock();
        let failing = kinds.iter().filter_map(|(kind, health)| Some((kind, health, health.cause.as_ref()?)));
        let line = |(kind, health, cause): (&&str, &Health, &String)| {
            let times = health.failures;
            format!("the storage job {kind} fails and is tried again ({times} failures so far): {cause}")
        };
        failing.map(line).collect()
    }
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

/// Runs jobs until stopped, between two of them.
pub async fn run(running: Arc<Running>, mut stopped: watch::Receiver<bool>) {
    loop {
        let worker = running.clone();
        // Jobs read and write files.
        let wait = tokio::task::spawn_blocking(move || run_due(&worker)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "the storage jobs were interrupted");
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
    let health = &running.job_health;
    // Without it the log of alerts grows; the store's jobs do not wait for that.
    let _ = health.watch("journal", || running.alerting.maintain());
    health.note_read_only(running.db.read_only());
    if !running.db.is_complete() {
        return IDLE;
    }
    health.report_damage(&running.db);
    let next = || Ok::<_, JobError>(running.db.next_job(running.env.clock.wall_ms()));
    let Some(next) = health.watch("plan", next) else { return AFTER_FAILURE };
    let Some(job) = next else { return IDLE };
    let done = health.run(&running.db, job);
    trim_heap();
    done.map_or(AFTER_FAILURE, |()| Duration::ZERO)
}

/// Logs which blocks are gone. They are, also where the job has failed: then their files go with the next one.
fn log_expired(expired: &[Expired]) {
    let bytes: u64 = expired.iter().map(|expired| expired.meta.size).sum();
    let blocks: Vec<String> = expired.iter().map(ToString::to_string).collect();
    tracing::info!(
        count = blocks.len(),
        bytes,
        blocks = blocks.join("; "),
        "blocks past retention were removed"
    );
}

#[cfg(test)]
mod tests {
    use tidewatch_env::{Clock, Env};
    use tidewatch_model::{Batch, Labels, RawLabels, Sample};
    use tidewatch_storage::Append;
    use tidewatch_tsdb::{BlockStatus, DbOptions, Retention};
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[test]
    fn a_job_that_fails_or_panics_is_counted_and_shown_until_one_succeeds() {
        let health = JobHealth::default();
        assert_eq!(health.watch("image", || Ok::<_, JobError>(7)), Some(7));
        assert_eq!(health.notices(), [""; 0]);
        assert_eq!(health.watch("image", || Err::<(), _>("the disk is full")), None);
        assert_eq!(health.watch("cut", || -> Result<(), JobError> { panic!("a block has a range") }), None);
        let (times, none) = (2, 0);
        assert_eq!(health.watch("cut", || -> Result<(), JobError> { panic!("{times} > {none}") }), None);
        assert_eq!(
            health.notices(),
            [
                "the storage job cut fails and is tried again (2 failures so far): it panicked: 2 > 0",
                "the storage job image fails and is tried again (1 failures so far): the disk is full",
            ]
        );
        assert_eq!(health.watch("cut", || Ok::<_, JobError>(())), Some(()));
        assert_eq!(health.notices().len(), 1);
        let failures: Vec<_> = health.failures().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(failures, [("cut", 2), ("image", 1)]);
    }

    // Retention removed blocks and no line of the log said which.
    #[test]
    fn blocks_past_retention_are_logged_in_one_line() {
        let simulation = Env::simulated(1);
        let db = Db::open(simulation.env.clone(), DbOptions::new("/data")).expect("a good disk");
        db.recover().expect("a good disk");
        let labels = Labels::from_pairs([("a", "b")]);
        for _ in 0..20 {
            let sample = Sample { timestamp: simulation.clock.wall_ms(), value: 0.5 };
            let mut batch = Batch::new();
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[sample]);
            assert_eq!(db.append(&batch).expect("takes writes").accepted, 1);
            simulation.clock.advance_ms(30 * 60_000);
        }
        let run = |job: Job| {
            let lines = Lines::default();
            let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
            let health = JobHealth::default();
            let done = tracing::subscriber::with_default(subscriber, || health.run(&db, job));
            assert_eq!(done, Some(()));
            let text = String::from_utf8(lines.0.lock().clone()).expect("text");
            text.lines().filter_map(|line| Some(line.split_once("jobs: ")?.1.to_owned())).collect::<Vec<_>>()
        };
        let next = || db.next_job(simulation.clock.wall_ms());
        while let Some(job) = next() {
            assert_eq!(run(job), [""; 0]);
        }
        let blocks = db.status().blocks;
        let of = |block: &BlockStatus| {
            let BlockStatus { name, min_time, max_time, bytes, .. } = block;
            format!("{name} from {min_time} to {max_time} ms, {bytes} bytes, by size")
        };
        let (count, bytes) = (blocks.len(), blocks.iter().map(|block| block.bytes).sum::<u64>());
        assert!(count > 0);
        let names = blocks.iter().map(of).collect::<Vec<_>>().join("; ");
        db.set_retention(Retention { size_bytes: Some(1), ..Retention::default() });
        assert_eq!(
            run(next().expect("past retention")),
            [format!("blocks past retention were removed count={count} bytes={bytes} blocks=\"{names}\"")]
        );
    }

    /// What was logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Lines;

        fn make_writer(&self) -> Lines {
            self.clone()
        }
    }
}
