//! From a file's name to a [`Config`].

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use tidewatch_model::{Labels, NameValidation};
use tidewatch_scrape::{NameEscaping, ScrapeConfig, ScrapeProtocol};
use tidewatch_yaml::Node;

use super::prometheus::{CONFIG, SCRAPE_FILE};
use super::schema::{Problem, Section, check};
use super::{
    AlertmanagerConfig, Config, ConfigError, Folder, Global, Storage, Warning, discovery, http, relabel,
    types,
};
use crate::files;

#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Refuse what Prometheus' agent mode does not allow.
    pub agent: bool,
}

/// Reads and checks a configuration and the scrape configuration files that it names.
pub fn load(file: &Path, options: LoadOptions) -> Result<Config, ConfigError> {
    load_text(&read(file)?, file, options)
}

/// The same for a text that has been read already; `file` names it and roots relative paths.
pub fn load_text(text: &str, file: &Path, options: LoadOptions) -> Result<Config, ConfigError> {
    let folder = Folder::of(file);
    let tree = parse(text, file)?;
    let invalid = |problems: Vec<Problem>| ConfigError::Invalid { file: file.to_owned(), problems };
    let problems = check(&tree, &CONFIG);
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    let root = Section { node: &tree };
    if options.agent
        && let Some(problem) = not_for_agents(&root)
    {
        return Err(invalid(vec![problem]));
    }
    let empty = Node::empty_map();
    let global_section = root.section("global").unwrap_or(Section { node: &empty });
    let global = global(&global_section, &folder);
    let mut warnings = Vec::new();
    let mut scrape = Vec::new();
    let mut problems = Vec::new();
    for section in root.items("scrape_configs") {
        match job(&section, &global_section, &folder) {
            Ok(config) => scrape.push(config),
            Err(problem) => problems.push(problem),
        }
        warn(&section, file, &mut warnings);
    }
    problems.extend(duplicate_jobs(&scrape, &root));
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    for pattern in root.strings("scrape_config_files") {
        for path in files::glob(&folder.join(&pattern))
            .map_err(|reason| ConfigError::Read { file: file.to_owned(), reason })?
        {
            scrape_file(&path, &global_section, &mut scrape, &mut warnings)?;
        }
    }
    let alerting = root.section("alerting").unwrap_or(Section { node: &empty });
    let alertmanagers = alerting.items("alertmanagers");
    let names = validation(&global_section).unwrap_or_default();
    let one = |problem: Problem| invalid(vec![problem]);
    for section in &alertmanagers {
        warn(section, file, &mut warnings);
    }
    for section in root.items("remote_write") {
        // Not served yet, but a rule that Prometheus refuses is refused here too.
        relabel::rules(&section, "write_relabel_configs", names).map_err(one)?;
    }
    for name in ["remote_write", "remote_read", "tracing", "otlp"] {
        if let Some(node) = root.field(name) {
            warnings.push(Warning { file: file.to_owned(), line: node.line, section: name.to_owned() });
        }
    }
    Ok(Config {
        text: text.to_owned(),
        global,
        rule_files: root.strings("rule_files").iter().map(|name| folder.join(name)).collect(),
        scrape,
        alert_relabel_configs: relabel::rules(&alerting, "alert_relabel_configs", names).map_err(one)?,
        alertmanagers: alertmanagers
            .iter()
            .map(|section| alertmanager(section, &folder, names))
            .collect::<Result<_, _>>()
            .map_err(one)?,
        storage: storage(&root),
        warnings,
    })
}

pub(super) fn read(file: &Path) -> Result<String, ConfigError> {
    let error = |reason: String| ConfigError::Read { file: file.to_owned(), reason };
    let bytes = std::fs::read(file).map_err(|cause| error(format!("can not be read: {cause}")))?;
    String::from_utf8(bytes).map_err(|_| error("is not UTF-8 text".to_owned()))
}

pub(super) fn parse(text: &str, file: &Path) -> Result<Arc<Node>, ConfigError> {
    tidewatch_yaml::parse(text).map_err(|error| {
        let problem = Problem { line: error.line, column: error.column, message: error.message };
        ConfigError::Invalid { file: file.to_owned(), problems: vec![problem] }
    })
}

fn not_for_agents(root: &Section<'_>) -> Option<Problem> {
    let field = ["alerting", "rule_files", "remote_read"].into_iter().find(|name| root.filled(name))?;
    Some(root.problem(field, format!("field {field} is not allowed in agent mode")))
}

fn scrape_file(
    path: &Path,
    global: &Section<'_>,
    scrape: &mut Vec<ScrapeConfig>,
    warnings: &mut Vec<Warning>,
) -> Result<(), ConfigError> {
    let invalid = |problems: Vec<Problem>| ConfigError::Invalid { file: path.to_owned(), problems };
    let tree = parse(&read(path)?, path)?;
    let problems = check(&tree, &SCRAPE_FILE);
    if !problems.is_empty() {
        return Err(invalid(problems));
    }
    let root = Section { node: &tree };
    for section in root.items("scrape_configs") {
        let config = job(&section, global, &Folder::of(path)).map_err(|problem| invalid(vec![problem]))?;
        if scrape.iter().any(|other| other.job_name == config.job_name) {
            return Err(invalid(vec![duplicate(&section, &config.job_name)]));
        }
        scrape.push(config);
        warn(&section, path, warnings);
    }
    Ok(())
}

fn duplicate_jobs(scrape: &[ScrapeConfig], root: &Section<'_>) -> Vec<Problem> {
    let mut seen = HashSet::new();
    let sections = root.items("scrape_configs");
    let named = scrape.iter().zip(&sections);
    named
        .filter(|(c, _)| !seen.insert(&c.job_name))
        .map(|(c, section)| duplicate(section, &c.job_name))
        .collect()
}

fn duplicate(section: &Section<'_>, job: &str) -> Problem {
    section.problem("job_name", format!("found multiple scrape configs with job name {job:?}"))
}

fn warn(section: &Section<'_>, file: &Path, warnings: &mut Vec<Warning>) {
    let unserved = discovery::not_served(section).into_iter().chain(http::not_served(section));
    warnings.extend(unserved.map(|(name, line)| Warning {
        file: file.to_owned(),
        line,
        section: name.to_owned(),
    }));
}

fn global(section: &Section<'_>, folder: &Folder) -> Global {
    Global {
        scrape_interval_ms: positive(section, "scrape_interval").unwrap_or(60_000),
        evaluation_interval_ms: positive(section, "evaluation_interval").unwrap_or(60_000),
        rule_query_offset_ms: section.duration_ms("rule_query_offset").unwrap_or(0),
        external_labels: Labels::from_pairs(
            section.pairs("external_labels").into_iter().map(|(n, v)| (n, expand(v))),
        ),
        query_log_file: section
            .filled("query_log_file")
            .then(|| folder.join(&section.string("query_log_file"))),
    }
}

/// `${NAME}` and `$NAME` of the environment, `$$` for a dollar, as Prometheus 3 has it in external labels.
fn expand(value: &str) -> String {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = tail;
            continue;
        }
        let (name, tail) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(parts) => parts,
            None => {
                rest.split_at(rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count())
            }
        };
        expanded.push_str(&std::env::var(name).unwrap_or_default());
        rest = tail;
    }
    expanded + rest
}

/// A duration that counts only when it is not zero: zero means the default.
fn positive(section: &Section<'_>, name: &str) -> Option<i64> {
    section.duration_ms(name).filter(|ms| *ms > 0)
}

fn job(section: &Section<'_>, global: &Section<'_>, folder: &Folder) -> Result<ScrapeConfig, Problem> {
    let mut config = ScrapeConfig::new(&section.string("job_name"));
    config.scrape_interval_ms =
        positive(section, "scrape_interval").or(positive(global, "scrape_interval")).unwrap_or(60_000);
    let timeout = positive(section, "scrape_timeout");
    config.scrape_timeout_ms = timeout.unwrap_or_else(|| {
        positive(global, "scrape_timeout").unwrap_or(10_000).min(config.scrape_interval_ms)
    });
    if config.scrape_timeout_ms > config.scrape_interval_ms {
        let message = format!(
            "scrape timeout greater than scrape interval for scrape config with job name {:?}",
            config.job_name
        );
        return Err(section.problem("scrape_timeout", message));
    }
    if let Some(path) = section.text("metrics_path") {
        path.clone_into(&mut config.metrics_path);
    }
    if let Some(scheme) = section.text("scheme") {
        scheme.clone_into(&mut config.scheme);
    }
    let params = section.section("params");
    config.params = section
        .pairs("params")
        .iter()
        .map(|(name, _)| ((*name).to_owned(), params.map_or_else(Vec::new, |map| map.strings(name))))
        .collect();
    config.honor_labels = section.bool("honor_labels", false);
    config.honor_timestamps = section.bool("honor_timestamps", true);
    config.track_timestamps_staleness = section.bool("track_timestamps_staleness", false);
    config.enable_compression = section.bool("enable_compression", true);
    config.extra_scrape_metrics =
        section.bool("extra_scrape_metrics", global.bool("extra_scrape_metrics", false));
    protocols(section, global, &mut config);
    config.static_configs = discovery::statics(section);
    config.file_sd_configs = discovery::files(section, folder);
    (config.names, config.escaping) = naming(section, global);
    config.relabel_configs = relabel::rules(section, "relabel_configs", config.names)?;
    config.metric_relabel_configs = relabel::rules(section, "metric_relabel_configs", config.names)?;
    limits(section, global, &mut config);
    config.http = http::client(section, folder);
    Ok(config)
}

fn validation(section: &Section<'_>) -> Option<NameValidation> {
    match section.text("metric_name_validation_scheme") {
        Some("legacy") => Some(NameValidation::Legacy),
        Some("utf8") => Some(NameValidation::Utf8),
        _ => None,
    }
}

/// Which names series may have, and how targets are asked to escape others. A job that says only
/// the one takes the other from it, not from global.
fn naming(section: &Section<'_>, global: &Section<'_>) -> (NameValidation, NameEscaping) {
    let escaping =
        |of: &Section<'_>| of.text("metric_name_escaping_scheme").and_then(NameEscaping::from_name);
    let (own, all) = (validation(section), validation(global).unwrap_or_default());
    let names = own.unwrap_or(all);
    let inherited = if own.is_none() { escaping(global) } else { None };
    (names, escaping(section).or(inherited).unwrap_or(NameEscaping::of(names)))
}

fn protocols(section: &Section<'_>, global: &Section<'_>, config: &mut ScrapeConfig) {
    let named =
        [section, global].into_iter().map(|s| s.strings("scrape_protocols")).find(|names| !names.is_empty());
    if let Some(names) = named {
        let known: Vec<_> = names.iter().filter_map(|name| ScrapeProtocol::from_name(name)).collect();
        if !known.is_empty() {
            config.scrape_protocols = known;
        }
    }
    config.fallback_scrape_protocol =
        section.text("fallback_scrape_protocol").and_then(ScrapeProtocol::from_name);
}

fn limits(section: &Section<'_>, global: &Section<'_>, config: &mut ScrapeConfig) {
    // Zero in a job means the global limit, as in Prometheus: a job can not lift it.
    let number = |name: &str| section.positive(name).or(global.positive(name)).unwrap_or(0);
    let size = |of: &Section<'_>| {
        of.text("body_size_limit").and_then(|text| types::parse_size(text).ok()).filter(|size| *size > 0)
    };
    config.body_size_limit = size(section).or(size(global)).unwrap_or(0);
    config.sample_limit = number("sample_limit");
    config.target_limit = number("target_limit");
    config.label_limit = number("label_limit");
    config.label_name_length_limit = number("label_name_length_limit");
    config.label_value_length_limit = number("label_value_length_limit");
    config.keep_dropped_targets = number("keep_dropped_targets");
}

fn alertmanager(
    section: &Section<'_>,
    folder: &Folder,
    names: NameValidation,
) -> Result<AlertmanagerConfig, Problem> {
    Ok(AlertmanagerConfig {
        scheme: section.text("scheme").unwrap_or("http").to_owned(),
        path_prefix: section.text("path_prefix").unwrap_or("/").to_owned(),
        timeout_ms: section.duration_ms("timeout").unwrap_or(10_000),
        static_configs: discovery::statics(section),
        file_sd_configs: discovery::files(section, folder),
        relabel_configs: relabel::rules(section, "relabel_configs", names)?,
        alert_relabel_configs: relabel::rules(section, "alert_relabel_configs", names)?,
        http: http::client(section, folder),
    })
}

fn storage(root: &Section<'_>) -> Storage {
    let Some(storage) = root.section("storage") else { return Storage::default() };
    let tsdb = storage.section("tsdb");
    let tsdb = tsdb.as_ref();
    let retention = tsdb.and_then(|tsdb| tsdb.section("retention"));
    let retention = retention.as_ref();
    let exemplars = storage.section("exemplars");
    Storage {
        retention_time_ms: retention.and_then(|retention| retention.duration_ms("time")),
        retention_bytes: retention
            .and_then(|retention| retention.text("size"))
            .and_then(|size| types::parse_size(size).ok()),
        retention_percent: retention.and_then(|retention| retention.number("percentage")),
        out_of_order_window_ms: tsdb.and_then(|tsdb| tsdb.duration_ms("out_of_order_time_window")),
        stale_share: tsdb.and_then(|tsdb| tsdb.number("stale_series_compaction_threshold")),
        max_exemplars: exemplars.and_then(|exemplars| exemplars.number("max_exemplars")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loads a text and gives what a user would see of it.
    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error =
            load_text(text, Path::new("p.yml"), LoadOptions::default()).expect_err("is refused").to_string();
        assert_eq!(error, expected);
    }

    #[test]
    fn a_problem_names_its_file_line_and_column() {
        refused(
            "global:\n  scrape_intervall: 5s\n",
            "parsing YAML file p.yml: unmarshal errors: field scrape_intervall not found in type config.plain; did you mean scrape_interval? (line 2, column 3)",
        );
        refused(
            "scrape_configs:\n  - job_name: a\n    static_configs: [{targets: 'x:1'}]\n    foo: 1\n",
            "parsing YAML file p.yml: unmarshal errors: cannot unmarshal !!str `x:1` into []string (line 3, column 32)\n\
             parsing YAML file p.yml: unmarshal errors: field foo not found in type config.ScrapeConfig (line 4, column 5)",
        );
        refused(
            "scrape_configs:\n  - job_name: a\n    scrape_interval: 5 s\n",
            "parsing YAML file p.yml: unknown unit \" s\" in duration \"5 s\"; write a number and its unit, as in 30s, 5m or 1h30m (line 3, column 22)",
        );
    }

    #[test]
    fn jobs_take_what_they_do_not_say_from_global() {
        let text = "global: {scrape_interval: 5s, sample_limit: 7, label_limit: 9}\nscrape_configs:\n  - job_name: a\n    sample_limit: 0\n    label_limit: 3\n    static_configs: [{targets: ['x:1'], labels: {dc: eu}}]\n    dns_sd_configs: [{names: [n]}]\n";
        let config = load_text(text, Path::new("/etc/p.yml"), LoadOptions::default()).expect("valid");
        let job = &config.scrape[0];
        assert_eq!((job.scrape_interval_ms, job.scrape_timeout_ms, job.sample_limit), (5_000, 5_000, 7));
        assert_eq!(job.label_limit, 3);
        assert_eq!(job.static_configs[0].targets, ["x:1"]);
        assert_eq!(
            config.warnings[0].to_string(),
            "/etc/p.yml:7: dns_sd_configs is valid, but not served by this version"
        );
    }

    /// What is said of a job with this section, without the place; empty where it is valid.
    fn said(section: &str) -> String {
        let text = format!("scrape_configs:\n- job_name: a\n  {section}\n");
        match load_text(&text, Path::new("p.yml"), LoadOptions::default()) {
            Ok(_) => String::new(),
            Err(ConfigError::Invalid { problems, .. }) => problems[0].message.clone(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn discovery_is_refused_in_prometheus_words() {
        assert_eq!(said("nomad_sd_configs: [{refresh_interval: 5s}]"), "");
        assert_eq!(
            said("nomad_sd_configs: [{server: ''}]"),
            "nomad SD configuration requires a server address"
        );
        assert_eq!(said("file_sd_configs: [null]"), "empty or null section in file_sd_configs");
        assert_eq!(
            said("serverset_sd_configs: [{servers: [a], paths: [b]}]"),
            "serverset SD config paths must begin with '/': b"
        );
        assert_eq!(
            said("consul_sd_configs: [{server: ' '}]"),
            "consul SD configuration requires a server address"
        );
        assert_eq!(
            said("triton_sd_configs: [{account: a, dns_suffix: b, endpoint: c, role: x}]"),
            "triton SD configuration requires role to be 'container' or 'cn'"
        );
        assert_eq!(said("hetzner_sd_configs: [{role: x}]"), "unknown role \"x\"");
    }

    #[test]
    fn null_in_a_relabelling_rule_is_the_empty_text() {
        let text = "scrape_configs: [{job_name: a, relabel_configs: [{source_labels: [x], regex: , target_label: y}]}]\n";
        let config = load_text(text, Path::new("p.yml"), LoadOptions::default()).expect("valid");
        let mut labels = Labels::from_pairs([("x", "1")]).to_builder();
        assert!(tidewatch_model::relabel(&mut labels, &config.scrape[0].relabel_configs));
        assert_eq!(labels.build().to_string(), "{x=\"1\"}");
    }

    #[test]
    fn remote_systems_and_tracing_are_refused_in_prometheus_words() {
        let of = |text: &str| match load_text(text, Path::new("p.yml"), LoadOptions::default()) {
            Err(ConfigError::Invalid { problems, .. }) => problems[0].message.clone(),
            _ => String::new(),
        };
        assert_eq!(
            of("remote_write: [{url: 'http://a', sigv4: {}, basic_auth: {username: a}}]\n"),
            "at most one of basic_auth, authorization, oauth2, sigv4, azuread or google_iam must be configured. \
             Currently configured: [basic_auth sigv4]"
        );
        assert_eq!(
            of("remote_read: [{url: 'http://a', headers: {Accept-Encoding: x}}]\n"),
            "Accept-Encoding is a reserved header. It must not be changed"
        );
        assert!(
            of("remote_write: [{url: 'http://a', sigv4: {access_key: a}}]\n")
                .starts_with("must provide a AWS")
        );
        assert!(of("remote_write: [{url: 'http://a', azuread: {}}]\n").starts_with("must provide an Azure"));
        assert_eq!(
            of("tracing: {endpoint: a, client_type: foo}\n"),
            "expected tracing client type to be to be http or grpc, but got foo"
        );
        assert_eq!(
            of("tracing: {endpoint: a, headers: {Authorization: x}}\n"),
            "custom authorization header configuration is not yet supported"
        );
    }

    #[test]
    fn legacy_names_bind_relabelling_and_what_targets_are_asked_for() {
        let job = "scrape_configs: [{job_name: a, relabel_configs: [{target_label: a.b}]}]\n";
        refused(
            &format!("global: {{metric_name_validation_scheme: legacy}}\n{job}"),
            "parsing YAML file p.yml: \"a.b\" is invalid 'target_label' for replace action (line 2, column 50)",
        );
        let naming = |global: &str, own: &str| {
            let text = format!("global: {{{global}}}\nscrape_configs: [{{job_name: a, {own}}}]\n");
            let config = load_text(&text, Path::new("p.yml"), LoadOptions::default()).expect("valid");
            (config.scrape[0].names, config.scrape[0].escaping)
        };
        let legacy = "metric_name_validation_scheme: legacy";
        assert_eq!(naming(legacy, ""), (NameValidation::Legacy, NameEscaping::Underscores));
        assert_eq!(
            naming("metric_name_escaping_scheme: dots", legacy),
            (NameValidation::Legacy, NameEscaping::Underscores)
        );
        assert_eq!(
            naming("", "metric_name_escaping_scheme: dots"),
            (NameValidation::Utf8, NameEscaping::Dots)
        );
        assert_eq!(naming("", ""), (NameValidation::Utf8, NameEscaping::AllowUtf8));
    }

    #[test]
    fn what_storage_keeps_is_read() {
        let text = "storage: {tsdb: {stale_series_compaction_threshold: 0.5, \
                    retention: {time: 30d, size: 10GB, percentage: 12.5}}}\n";
        let config = load_text(text, Path::new("p.yml"), LoadOptions::default()).expect("valid");
        let Storage { retention_time_ms, retention_bytes, retention_percent, stale_share, .. } =
            config.storage;
        assert_eq!(stale_share, Some(0.5));
        assert_eq!(retention_time_ms, Some(30 * 86_400_000));
        assert_eq!((retention_bytes, retention_percent), (Some(10 << 30), Some(12.5)));
    }

    #[test]
    fn external_labels_expand_the_environment() {
        assert_eq!(expand("a$$b${TIDEWATCH_SURELY_UNSET}c"), "a$bc");
    }
}
