//! The running server: every step of the cores gets its thread or task here.
//!
//! ```text
//! configuration ─► store (ready) ─► sockets ─► recovery (complete) ─► rules
//!                                     └► scrapes, notifications, storage jobs
//! ```
//!
//! Invariants: a write is answered after its sync; a reload puts all of a configuration in force
//! or nothing of it; at the end what was taken is committed before the process goes.

mod alerting;
mod backend;
mod committer;
mod jobs;
mod memory;
mod metrics;
mod pulse;
mod query_log;
mod records;
mod reload;
mod replicas;
mod rules;

use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use tidewatch_env::Env;
use tidewatch_journal::Journal;
use tidewatch_model::{Batch, Limits};
use tidewatch_promql::{Engine, EngineOptions, MemoryPool};
use tidewatch_scrape::{ScrapeOptions, Scraper, Sink, SinkOutcome};
use tidewatch_server::{App, Server, ServerOptions, Service};
use tidewatch_tsdb::{Db, DbOptions, STALE_SHARE};
use tokio::sync::{Notify, mpsc, watch};

use crate::cli::serve::ServeArgs;
use crate::evaluate::{self, LocalEvaluator};
use alerting::Alerting;
use backend::{AtomicPhase, Running, retention};
use committer::Committer;
use jobs::JobHealth;
use query_log::QueryLog;
use replicas::Replicas;
use rules::{RuleContext, Rules};

/// How long open work may take at the end.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// Runs until a signal or `/-/quit`.
pub fn run(mut arguments: ServeArgs) -> Result<()> {
    arguments.normalize();
    crate::logging::start(arguments.log_level, arguments.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tidewatch")
        .build()
        .context("start the runtime")?;
    let outcome = runtime.block_on(serve(arguments));
    runtime.shutdown_timeout(SHUTDOWN);
    outcome
}

async fn serve(arguments: ServeArgs) -> Result<()> {
    let env = Env::real().context("reach the operating system")?;
    let started_ms = env.clock.wall_ms();
    let config = reload::load(&arguments)?;
    for warning in &config.config.warnings {
        tracing::warn!("{warning}");
    }
    for flag in arguments.no_effect.given() {
        tracing::warn!("--{flag} has no effect in this version");
    }
    let mut engine_options = EngineOptions {
        lookback_ms: arguments.lookback_ms,
        samples_max: arguments.query_max_samples,
        ..EngineOptions::default()
    };
    let (parser, unknown) = evaluate::features(&arguments.enable_feature, &mut engine_options);
    for name in unknown {
        tracing::warn!("--enable-feature={name} is not known to this version");
    }
    let limits = limits(&arguments, &config.config);
    let sockets = Server::bind(&arguments.listen).await?;
    let db = Arc::new(open_store(&env, &arguments, &config.config, &limits)?);
    let (committer, committer_thread) = Committer::start(db.clone()).context("start the committer")?;
    let (journal, journal_state) = Journal::open(&env, &arguments.storage_path.join("journal"))?;
    report_findings(&journal_state);
    let alerting = Arc::new(Alerting::new(env.clone(), db.clone(), journal, &journal_state));
    let engine = Arc::new(Engine::new(env.clone(), engine_options));
    let (complete, completed) = watch::channel(false);
    let query_log = Arc::new(QueryLog::default());
    let rules = Arc::new(Rules::new(RuleContext {
        env: env.clone(),
        evaluator: LocalEvaluator {
            env: env.clone(),
            engine: engine.clone(),
            store: db.clone(),
            timeout_ms: arguments.query_timeout_ms,
            memory: MemoryPool::new(limits.rules_memory_bytes as u64),
        },
        query_log: query_log.clone(),
        append: committer.clone(),
        alerting: alerting.clone(),
        complete: completed,
        pulse: Arc::default(),
        said_wait_ms: AtomicI64::new(i64::MIN),
    }));
    let scrape = Arc::new(Scraper::new(
        env.clone(),
        ScrapeOptions {
            limits: limits.clone(),
            exemplars: has_feature(&arguments, "exemplar-storage"),
            start_timestamps: has_feature(&arguments, "st-storage"),
            ..ScrapeOptions::default()
        },
    ));
    let (reload_sender, mut reload_requests) = mpsc::channel(4);
    let notices = notices(&arguments);
    let replicas = Replicas::open(&env, &arguments)?;
    let tracker = replicas.as_ref().map(Replicas::tracker);
    let running = Arc::new(Running {
        env: env.clone(),
        arguments: arguments.clone(),
        db: db.clone(),
        committer: committer.clone(),
        rules: rules.clone(),
        alerting: alerting.clone(),
        scrape: scrape.clone(),
        config: ArcSwap::from_pointee(config.config.clone()),
        reload: reload_sender,
        quit: Notify::new(),
        started_ms,
        reloaded_ms: AtomicI64::new(started_ms),
        reload_succeeded: AtomicBool::new(true),
        phase: AtomicPhase::default(),
        notices,
        missing_files: ArcSwap::default(),
        query_log,
        replicas,
        job_health: JobHealth::default(),
        default_jobs: OnceLock::new(),
    });
    let service = Service::new(App {
        env: env.clone(),
        select: db.clone(),
        append: committer.clone(),
        engine,
        backend: running.clone(),
        parser,
        limits,
        replicas: tracker,
        options: server_options(&arguments),
    })?;
    for address in sockets.addresses() {
        let scheme = if service.uses_tls() { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{address}{}", server_options(&arguments).route_prefix);
    }

    running.phase.recovering();
    let (stop, stopped) = watch::channel(false);
    let http = tokio::spawn(sockets.serve(service.clone(), ended(stopped.clone())));
    let recovery = tokio::task::spawn_blocking({
        let (db, running) = (db.clone(), running.clone());
        move || {
            let outcome = db.recover();
            if outcome.is_ok() {
                running.phase.complete();
                complete.send_replace(true);
            }
            outcome
        }
    });
    reload::apply(&running, &service, config, Some(&journal_state)).await?;
    let sink = Arc::new(StoreSink(committer.clone()));
    let scraping = tokio::spawn(tidewatch_scrape::run(scrape, env, sink, ended(stopped.clone())));
    let sending = tokio::spawn(alerting.clone().send_all());
    let discovery = tokio::spawn(reload::watch_alertmanagers(running.clone(), stopped.clone()));
    let jobs = tokio::spawn(jobs::run(running.clone(), stopped));

    let outcome = until_the_end(&running, &service, &mut reload_requests, recovery).await;

    tracing::info!("shutting down");
    running.phase.stopping();
    stop.send_replace(true);
    db.stop_jobs();
    rules.stop().await;
    for task in [scraping, discovery, jobs, http] {
        if tokio::time::timeout(SHUTDOWN, task).await.is_err() {
            tracing::warn!("a task did not end in time");
        }
    }
    sending.abort();
    alerting.close();
    let ended = tokio::task::spawn_blocking(move || committer_thread.stop()).await;
    ended.context("end the committer")?;
    tracing::info!("everything that was taken is on the disk; good bye");
    outcome
}

/// Says what was wrong with the journal's files.
fn report_findings(state: &tidewatch_journal::JournalState) {
    for damage in &state.findings.damage {
        tracing::error!(?damage, "the journal of alerts is damaged; the file was set aside");
    }
    if let Some(torn) = &state.findings.torn {
        tracing::info!(?torn, "the last write of the journal was under way when the process ended");
    }
    for path in &state.findings.foreign {
        tracing::warn!(file = %path.display(), "a file in the journal's directory is not the journal's");
    }
}

/// Resolves when the value turns true.
async fn ended(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is an end too.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Waits for a signal, a wish to quit, or a recovery that failed; reloads on the way.
async fn until_the_end(
    running: &Arc<Running>,
    service: &Arc<Service>,
    requests: &mut mpsc::Receiver<backend::ReloadRequest>,
    recovery: tokio::task::JoinHandle<Result<(), tidewatch_tsdb::OpenError>>,
) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut recovery = Some(recovery);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = running.quit.notified() => return Ok(()),
            _ = hangup.recv() => {
                // Its outcome is in the log.
                let _ = reload::reload(running, service).await;
            }
            Some(answer) = requests.recv() => {
                let outcome = reload::reload(running, service).await;
                // The one who asked may have gone.
                let _ = answer.send(outcome);
            }
            outcome = async { recovery.as_mut().expect("checked by the condition").await }, if recovery.is_some() => {
                recovery = None;
                outcome.context("recovery")??;
                running.job_health.report_damage(&running.db);
                tracing::info!("the store is complete");
            }
        }
    }
}

fn limits(arguments: &ServeArgs, config: &crate::config::Config) -> Limits {
    let mut limits = Limits {
        query_timeout_ms: arguments.query_timeout_ms.max(1).unsigned_abs(),
        connections: arguments.max_connections,
        ..Limits::default()
    };
    memory::share(&mut limits, memory::limit_bytes());
    if let Some(window_ms) = config.storage.out_of_order_window_ms {
        limits.out_of_order_window_ms = window_ms;
    }
    limits
}

fn open_store(
    env: &Env,
    arguments: &ServeArgs,
    config: &crate::config::Config,
    limits: &Limits,
) -> Result<Db> {
    let kept = retention(arguments, config);
    let defaults = DbOptions::new(arguments.storage_path.clone());
    let options = DbOptions {
        limits: limits.clone(),
        series_max: memory::series_max(memory::limit_bytes()).unwrap_or(defaults.series_max),
        retention_ms: kept.time_ms,
        retention_bytes: kept.size_bytes,
        retention_percent: kept.disk_percent,
        exemplars_max: exemplars_max(arguments, config),
        stale_share: config.storage.stale_share.unwrap_or(STALE_SHARE),
        ..defaults
    };
    Ok(Db::open(env.clone(), options)?)
}

pub fn has_feature(arguments: &ServeArgs, name: &str) -> bool {
    arguments.enable_feature.iter().any(|feature| feature == name)
}

/// Exemplars that are kept: none without the feature, else what the configuration says.
fn exemplars_max(arguments: &ServeArgs, config: &crate::config::Config) -> usize {
    const DEFAULT: i64 = 100_000;
    match has_feature(arguments, "exemplar-storage") {
        true => usize::try_from(config.storage.max_exemplars.unwrap_or(DEFAULT)).unwrap_or(0),
        false => 0,
    }
}

fn server_options(arguments: &ServeArgs) -> ServerOptions {
    let external = arguments.external_url.trim_end_matches('/').to_owned();
    ServerOptions {
        listen: arguments.listen.clone(),
        web_config_file: arguments.web_config_file.clone(),
        external_url: external,
        route_prefix: route_prefix(arguments),
        cors_origin: arguments.cors_origin.clone(),
        page_title: arguments.page_title.clone(),
        enable_lifecycle: arguments.enable_lifecycle,
        per_step_statistics: arguments.enables("promql-per-step-stats"),
        start_timestamps: has_feature(arguments, "st-storage"),
        write_messages: arguments.write_messages.clone(),
        enable_admin: arguments.enable_admin,
        query_concurrency: arguments.query_concurrency(),
        write_bytes_in_flight: memory::in_flight_bytes(&Limits::default(), memory::limit_bytes()),
    }
}

/// What stands before every route: the flag, or else the path of the external URL.
pub fn route_prefix(arguments: &ServeArgs) -> String {
    let external = arguments.external_url.trim_end_matches('/');
    let path =
        || external.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()));
    arguments.route_prefix.clone().or_else(path).unwrap_or_else(|| "/".to_owned())
}

/// What a person should know of how the server was started.
fn notices(arguments: &ServeArgs) -> Vec<String> {
    let mut notices = Vec::new();
    let open = arguments.listen.iter().find(|address| !address.ip().is_loopback());
    if let (Some(address), None) = (open, &arguments.web_config_file) {
        let notice =
            format!("{address} is reachable by others and nobody has to log in: see --web.config.file");
        tracing::warn!("{notice}");
        notices.push(notice);
    }
    notices
}

/// Where scrapes go: into the store, by way of the committer.
struct StoreSink(Arc<Committer>);

impl Sink for StoreSink {
    fn append(&self, batch: &Batch<'_>) -> SinkOutcome {
        match self.0.append_for_soon(batch) {
            Ok(outcome) => {
                SinkOutcome { accepted: outcome.accepted, refused: outcome.refused_count(), error: None }
            }
            Err(error) => SinkOutcome { accepted: 0, refused: 0, error: Some(error.to_string()) },
        }
    }
}
