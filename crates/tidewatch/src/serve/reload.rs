//! Loading a configuration with the files it names, and putting it in force as a whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use tidewatch_journal::JournalState;
use tidewatch_model::{LabelsBuilder, relabel};
use tidewatch_net::Client;
use tidewatch_notify::{Endpoint, Options, alerts_url};
use tidewatch_promql::EngineOptions;
use tidewatch_rules::{LoadOptions, RuleFile, Settings};
use tidewatch_scrape::{InProcess, ScrapeConfig, StaticConfig};
use tidewatch_server::Service;
use tidewatch_tsdb::STALE_SHARE;
use tokio::sync::watch;

use super::alerting;
use super::backend::{Running, retention};
use super::query_log::Target;
use crate::cli::serve::ServeArgs;
use crate::config::{self, AlertmanagerConfig, Config};
use crate::{evaluate, files, host};

/// What the server watches when nobody told it anything: itself and this host.
const DEFAULT_CONFIG: &str = "global:\n  scrape_interval: 15s\n  evaluation_interval: 15s\n";
const DEFAULT_RULES: &str = include_str!("../../defaults/rules.yml");

/// A configuration with its rule files: checked, not in force yet.
pub struct Loaded {
    pub config: Config,
    rules: Vec<RuleFile>,
    /// Rule files that the configuration names and that do not exist.
    missing: Vec<String>,
}

/// Reads everything that the flags name. Nothing has changed if this fails.
pub fn load(arguments: &ServeArgs) -> Result<Loaded> {
    let (parser, _) = evaluate::features(&arguments.enable_feature, &mut EngineOptions::default());
    let options = LoadOptions { parser, ..LoadOptions::default() };
    let Some(file) = &arguments.config_file else {
        let config =
            config::load_text(DEFAULT_CONFIG, Path::new("built-in"), config::LoadOptions::default())?;
        let rules = vec![parse_rules(DEFAULT_RULES, "built-in rules", &options)?];
        return Ok(Loaded { config, rules, missing: Vec::new() });
    };
    let config = config::load(file, config::LoadOptions::default())?;
    let (mut rules, mut missing) = (Vec::new(), Vec::new());
    for path in rule_paths(&config.rule_files)? {
        match std::fs::read_to_string(&path) {
            Ok(text) => rules.push(parse_rules(&text, &path.display().to_string(), &options)?),
            // Prometheus starts too: the file may be the next thing that a deployment writes.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                missing.push(format!(
                    "rule file {} does not exist: none of its alerts is watched; write it and reload",
                    path.display()
                ));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("read rule file {}", path.display()));
            }
        }
    }
    Ok(Loaded { config, rules, missing })
}

/// The files that the patterns name, each once: groups that are there twice would share their alerts in the
/// journal, tell of each twice, and give each sample twice.
fn rule_paths(patterns: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let (mut paths, mut known) = (Vec::new(), BTreeSet::new());
    for pattern in patterns {
        for path in files::glob(pattern).map_err(anyhow::Error::msg)? {
            // Compared by its parts, without those that say nothing: `./a` is `a`.
            if known.insert(path.components().collect::<PathBuf>()) {
                paths.push(path);
            }
        }
    }
    Ok(paths)
}

fn parse_rules(text: &str, name: &str, options: &LoadOptions) -> Result<RuleFile> {
    RuleFile::parse(text, name, options).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

/// Loads again and puts it in force; a bad file keeps the last good configuration.
pub async fn reload(running: &Arc<Running>, service: &Arc<Service>) -> Result<(), String> {
    let arguments = running.arguments.clone();
    let outcome = match tokio::task::spawn_blocking(move || load(&arguments)).await {
        Ok(Ok(loaded)) => apply(running, service, loaded, None).await,
        Ok(Err(error)) => Err(error),
        Err(panic) => Err(panic.into()),
    };
    running.reload_succeeded.store(outcome.is_ok(), Ordering::Relaxed);
    match outcome {
        Ok(()) => {
            running.reloaded_ms.store(running.env.clock.wall_ms(), Ordering::Relaxed);
            tracing::info!("the configuration was reloaded");
            Ok(())
        }
        Err(error) => {
            let text = format!("couldn't load configuration: {error:#}");
            tracing::error!("{text}; the last good configuration stays in force");
            Err(text)
        }
    }
}

/// Puts a configuration in force. At the start `state` is what the journal kept.
pub async fn apply(
    running: &Arc<Running>,
    service: &Arc<Service>,
    loaded: Loaded,
    state: Option<&JournalState>,
) -> Result<()> {
    let Loaded { config, rules, missing } = loaded;
    // Everything that can fail comes first, and changes nothing where it does.
    let clients: Vec<Client> = config
        .alertmanagers
        .iter()
        .map(|section| Client::new(section.http.clone(), read_file()))
        .collect::<Result<_, _>>()
        .context("alerting.alertmanagers")?;
    let mut scrape = config.scrape.clone();
    if running.arguments.config_file.is_none() {
        scrape.extend(default_jobs(running, service, &config));
    }
    let query_log = config.global.query_log_file.as_deref().map(Target::open).transpose()?;
    running.scrape.apply(scrape)?;

    running.query_log.switch(query_log);
    running.db.set_retention(retention(&running.arguments, &config));
    running.db.set_stale_share(config.storage.stale_share.unwrap_or(STALE_SHARE));

    let (endpoints, dropped) = endpoints(&config.alertmanagers);
    let options = Options {
        external_labels: config.global.external_labels.clone(),
        relabel: config.alert_relabel_configs.clone(),
        ..Options::default()
    };
    running.alerting.configure(options, endpoints, clients, dropped);

    let settings = Arc::new(Settings {
        interval_ms: config.global.evaluation_interval_ms,
        query_offset_ms: config.global.rule_query_offset_ms,
        lookback_ms: running.arguments.lookback_ms,
        refill_ms: refill_ms(&config, running.arguments.lookback_ms),
        resend_delay_ms: running.arguments.resend_delay_ms,
        external_labels: config.global.external_labels.clone(),
        external_url: external_url(&running.arguments),
        parser: evaluate::features(&running.arguments.enable_feature, &mut EngineOptions::default()).0,
        ..Settings::default()
    });
    let former = running.rules.stop().await;
    let mut reloaded = tidewatch_rules::reload(former, rules, &settings, running.env.clock.wall_ms());
    for note in &reloaded.notes {
        running.alerting.note(&note.file, &note.group, &note.changes);
    }
    if let Some(state) = state {
        alerting::restore(&mut reloaded.groups, state, &running.alerting);
    }
    running.rules.start(reloaded);
    running.config.store(Arc::new(config));
    for notice in &missing {
        tracing::warn!("{notice}");
    }
    running.missing_files.store(Arc::new(missing));
    Ok(())
}

/// How long it takes until all targets were scraped twice. Those that are scraped more rarely than
/// selectors look back are not seen by most rules anyway.
fn refill_ms(config: &Config, lookback_ms: i64) -> i64 {
    let intervals = config.scrape.iter().map(|job| job.scrape_interval_ms);
    let longest_ms = intervals.filter(|ms| *ms <= lookback_ms).max().unwrap_or(0);
    (2 * longest_ms).min(lookback_ms).max(Settings::default().refill_ms)
}

/// The URL under which others reach this server, for links in notifications.
fn external_url(arguments: &ServeArgs) -> String {
    if !arguments.external_url.is_empty() {
        return arguments.external_url.trim_end_matches('/').to_owned();
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let port = arguments.listen.first().map_or(9090, std::net::SocketAddr::port);
    format!("http://{host}:{port}")
}

fn read_file() -> tidewatch_net::ReadFile {
    Arc::new(|path: &Path| std::fs::read(path))
}

/// The jobs of the default mode: functions of this process, no socket between. They are made once,
/// so that a reload finds them unchanged.
fn default_jobs(running: &Running, service: &Arc<Service>, config: &Config) -> Vec<ScrapeConfig> {
    let job = |name: &str, source: Arc<dyn Fn() -> Vec<u8> + Send + Sync>| {
        let mut job = ScrapeConfig::new(name);
        job.scrape_interval_ms = config.global.scrape_interval_ms;
        job.metrics_path =
            format!("{}/metrics", super::route_prefix(&running.arguments).trim_end_matches('/'));
        let address = running.arguments.listen.first().map_or_else(String::new, ToString::to_string);
        job.in_process.push(InProcess { address, labels: Vec::new(), source });
        job
    };
    let make = || {
        // Weak, since the service holds this program's parts and these would hold the service.
        let service = Arc::downgrade(service);
        let own = move || service.upgrade().map_or_else(Vec::new, |service| service.metrics().into_bytes());
        vec![job("tidewatch", Arc::new(own)), job("node", Arc::new(|| host::metrics().into_bytes()))]
    };
    running.default_jobs.get_or_init(make).clone()
}

/// Addresses of the Alertmanagers after discovery and relabelling, and those that were dropped.
fn endpoints(sections: &[AlertmanagerConfig]) -> (Vec<Endpoint>, Vec<String>) {
    let (mut active, mut dropped) = (Vec::new(), Vec::new());
    for (index, section) in sections.iter().enumerate() {
        for group in groups(section) {
            for target in &group.targets {
                let mut labels = LabelsBuilder::new();
                for (name, value) in &group.labels {
                    labels.set(name, value);
                }
                labels.set("__address__", target);
                labels.set("__scheme__", &section.scheme);
                labels.set(
                    "__alerts_path__",
                    &format!("{}/api/v2/alerts", section.path_prefix.trim_end_matches('/')),
                );
                let kept = relabel(&mut labels, &section.relabel_configs);
                let part = |name: &str| labels.get(name).unwrap_or_default().to_owned();
                let prefix = part("__alerts_path__").trim_end_matches("/api/v2/alerts").to_owned();
                let url = alerts_url(&part("__scheme__"), &part("__address__"), &prefix);
                if kept && !part("__address__").is_empty() {
                    active.push(Endpoint {
                        url,
                        timeout_ms: section.timeout_ms.unsigned_abs(),
                        relabel: section.alert_relabel_configs.clone(),
                        section: index,
                    });
                } else {
                    dropped.push(url);
                }
            }
        }
    }
    (active, dropped)
}

/// Static groups and those of discovery files. A file that can not be read now gives none, and
/// says so; it is read again soon.
fn groups(section: &AlertmanagerConfig) -> Vec<StaticConfig> {
    let mut groups = section.static_configs.clone();
    for pattern in section.file_sd_configs.iter().flat_map(|config| &config.files) {
        for path in files::glob(pattern).unwrap_or_default() {
            let read = std::fs::read(&path).map_err(|error| error.to_string());
            match read.and_then(|bytes| tidewatch_scrape::parse_discovery_file(&path, &bytes)) {
                Ok(found) => groups.extend(found),
                Err(error) => {
                    tracing::warn!(file = %path.display(), error, "an Alertmanager discovery file was left out")
                }
            }
        }
    }
    groups
}

/// Reads discovery files of Alertmanagers again and again.
pub async fn watch_alertmanagers(running: Arc<Running>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        let config = running.config.load_full();
        if config.alertmanagers.iter().all(|section| section.file_sd_configs.is_empty()) {
            continue;
        }
        if let Ok((active, dropped)) =
            tokio::task::spawn_blocking(move || endpoints(&config.alertmanagers)).await
        {
            running.alerting.set_endpoints(active, dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // `rule_files: [a.yml, "*.yml"]` evaluated a.yml twice.
    #[test]
    fn a_rule_file_that_two_patterns_name_is_read_once() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a.yml", "b.yml"] {
            std::fs::write(folder.path().join(name), "groups: []").expect("a file");
        }
        let patterns = ["b.yml", "*.yml", "./a.yml", "none.yml"].map(|name| folder.path().join(name));
        let paths = rule_paths(&patterns).expect("patterns");
        let names: Vec<_> = paths.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(names, ["b.yml", "a.yml", "none.yml"]);
    }
}
