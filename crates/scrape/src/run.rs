//! The loop that drives a [`Scraper`] on tokio: sleeps until something is due, fetches without
//! blocking, and hands answers to blocking threads.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tidewatch_env::Env;
use tidewatch_model::quote;
use tidewatch_net::{Client, Request, RequestError, StatusCode};
use tokio::sync::{Notify, Semaphore};
use tokio::task::{JoinSet, spawn_blocking};

use crate::Sink;
use crate::scraper::{Fetch, Scraper, Task};
use crate::target_loop::{FetchError, Fetched};

/// The longest sleep: a reload is noticed no later than this.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// Answers that are read and written at once. Each holds a thread while the store takes it;
/// fetching is not limited, so that targets that hang delay nobody.
const WRITERS_MAX: usize = 4;

/// Scrapes until `shutdown` is ready. Scrapes under way are then given up, and no markers are
/// written: after a restart the same series go on.
pub async fn run(
    scraper: Arc<Scraper>,
    env: Env,
    sink: Arc<dyn Sink>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let shared =
        Arc::new(Shared { scraper, sink, writers: Semaphore::new(WRITERS_MAX), finished: Notify::new() });
    let mut tasks = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        shared.scraper.refresh();
        for task in shared.scraper.due() {
            tasks.spawn(shared.clone().scrape(task));
        }
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a scrape ended in a bug; its target is not scraped again");
            }
        }
        let now_ns = env.clock.monotonic_ns();
        let wait =
            shared.scraper.next_ns().map_or(SLEEP_MAX, |at| Duration::from_nanos(at.saturating_sub(now_ns)));
        tokio::select! {
            () = &mut shutdown => break,
            () = shared.finished.notified() => {}
            () = tokio::time::sleep(wait.min(SLEEP_MAX)) => {}
        }
    }
    tasks.shutdown().await;
}

struct Shared {
    scraper: Arc<Scraper>,
    sink: Arc<dyn Sink>,
    /// Permits to read and write an answer.
    writers: Semaphore,
    /// Told when a target is back in the schedule, where it may be the next that is due.
    finished: Notify,
}

impl Shared {
    async fn scrape(self: Arc<Self>, task: Task) {
        let fetched = match self.scraper.fetch(&task) {
            Fetch::Http(client, request) => fetch(&client, &request).await,
            Fetch::InProcess(source) => match spawn_blocking(move || source()).await {
                Ok(body) => Ok(Fetched::text(body)),
                Err(error) => Err(failed(format!("the source failed: {error}"))),
            },
            Fetch::Nothing => Err(failed("there is nothing to fetch".to_owned())),
        };
        let _permit = self.writers.acquire().await.expect("the semaphore is never closed");
        let shared = self.clone();
        let written = spawn_blocking(move || shared.scraper.finish(task, fetched, &*shared.sink)).await;
        if let Err(error) = written {
            tracing::error!(%error, "writing a scrape ended in a bug; its target is not scraped again");
        }
        self.finished.notify_one();
    }
}

async fn fetch(client: &Client, request: &Request) -> Result<Fetched, FetchError> {
    let response = client.send(request).await.map_err(|error| match error {
        RequestError::BodyTooLarge { .. } => {
            FetchError { message: error.to_string(), is_body_too_large: true }
        }
        _ => failed(format!("Get {}: {error}", quote(&request.url))),
    })?;
    if response.status != StatusCode::OK {
        return Err(failed(format!("server returned HTTP status {}", response.status)));
    }
    let content_type = response.header("content-type").map(str::to_owned);
    Ok(Fetched { body: response.body, content_type })
}

fn failed(message: String) -> FetchError {
    FetchError { message, is_body_too_large: false }
}
