//! From a discovered address to a target: labels, relabelling, URL.

use tidewatch_model::{Labels, LabelsBuilder, METRIC_NAME, parse_duration_ms, quote, relabel};

use crate::ScrapeConfig;
use crate::url::{escape_path, escape_query};

/// Labels with this prefix describe where a target was found; they end with relabelling.
const META_PREFIX: &str = "__meta_";
const PARAM_PREFIX: &str = "__param_";
const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const SCRAPE_INTERVAL: &str = "__scrape_interval__";
const SCRAPE_TIMEOUT: &str = "__scrape_timeout__";
const JOB: &str = "job";
const INSTANCE: &str = "instance";

/// What to scrape, when, and which labels its series get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// All labels that are left after relabelling, `__address__` and its like among them.
    /// They identify the target within its job.
    pub all_labels: Labels,
    /// Those that do not start with `__`: they are on every series of the target.
    pub labels: Labels,
    /// The labels before relabelling.
    pub discovered_labels: Labels,
    pub url: String,
    pub interval_ms: i64,
    pub timeout_ms: i64,
}

/// What became of a discovered address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Built {
    Target(Box<Target>),
    /// Relabelling dropped it; these were its labels.
    Dropped(Labels),
}

/// Builds the target of one address with its discovered labels, in Prometheus' order: defaults
/// of the job, relabelling, checks, then `instance`. The error is in Prometheus' words.
pub fn build_target(config: &ScrapeConfig, discovered: &[(String, String)]) -> Result<Built, String> {
    let mut labels = LabelsBuilder::new();
    for (name, value) in discovered {
        labels.set(name, value);
    }
    add_defaults(config, &mut labels);
    let discovered_labels = labels.build();
    if !relabel(&mut labels, &config.relabel_configs) {
        return Ok(Built::Dropped(discovered_labels));
    }
    let address = labels.get(ADDRESS).unwrap_or_default().to_owned();
    check_address(&address)?;
    let (interval_ms, timeout_ms) = check_times(&labels)?;
    labels.retain(|name| !name.starts_with(META_PREFIX));
    if labels.get(INSTANCE).is_none() {
        labels.set(INSTANCE, &address);
    }
    let all_labels = labels.build();
    Ok(Built::Target(Box::new(Target {
        url: url(config, &all_labels),
        labels: all_labels.without(|name| name.starts_with("__")),
        all_labels,
        discovered_labels,
        interval_ms,
        timeout_ms,
    })))
}

fn add_defaults(config: &ScrapeConfig, labels: &mut LabelsBuilder) {
    let interval = tidewatch_model::format_duration(config.scrape_interval_ms);
    let timeout = tidewatch_model::format_duration(config.scrape_timeout_ms);
    let defaults = [
        (JOB, config.job_name.as_str()),
        (SCRAPE_INTERVAL, &interval),
        (SCRAPE_TIMEOUT, &timeout),
        (METRICS_PATH, &config.metrics_path),
        (SCHEME, &config.scheme),
    ];
    for (name, value) in defaults {
        if labels.get(name).is_none() {
            labels.set(name, value);
        }
    }
    for (name, values) in &config.params {
        if let Some(first) = values.first() {
            labels.set(&format!("{PARAM_PREFIX}{name}"), first);
        }
    }
}

fn check_address(address: &str) -> Result<(), String> {
    if address.is_empty() {
        return Err("no address".to_owned());
    }
    if address.contains('/') {
        return Err(format!("{} is not a valid hostname", quote(address)));
    }
    Ok(())
}

fn check_times(labels: &LabelsBuilder) -> Result<(i64, i64), String> {
    let duration = |label: &str, what: &str| {
        let text = labels.get(label).unwrap_or_default();
        match parse_duration_ms(text) {
            Ok(0) => Err(format!("scrape {what} cannot be 0")),
            Ok(duration_ms) => Ok((text.to_owned(), duration_ms)),
            Err(error) => Err(format!("error parsing scrape {what}: {error}")),
        }
    };
    let (interval, interval_ms) = duration(SCRAPE_INTERVAL, "interval")?;
    let (timeout, timeout_ms) = duration(SCRAPE_TIMEOUT, "timeout")?;
    if timeout_ms > interval_ms {
        let (timeout, interval) = (quote(&timeout), quote(&interval));
        return Err(format!(
            "scrape timeout cannot be greater than scrape interval ({timeout} > {interval})"
        ));
    }
    Ok((interval_ms, timeout_ms))
}

/// The URL: parameters of the job, each first value replaced by its `__param_` label, sorted by
/// name.
fn url(config: &ScrapeConfig, labels: &Labels) -> String {
    let mut params: Vec<(String, Vec<String>)> = config.params.clone();
    for (name, value) in labels.iter() {
        let Some(name) = name.strip_prefix(PARAM_PREFIX) else { continue };
        match params.iter_mut().find(|(known, values)| known == name && !values.is_empty()) {
            Some((_, values)) => value.clone_into(&mut values[0]),
            None => params.push((name.to_owned(), vec![value.to_owned()])),
        }
    }
    params.sort();
    let pairs = params.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    let query: Vec<String> =
        pairs.map(|(name, value)| format!("{}={}", escape_query(name), escape_query(value))).collect();
    let get = |name| labels.get(name).unwrap_or_default();
    let path = escape_path(get(METRICS_PATH));
    let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{}://{}{slash}{path}{mark}{}", get(SCHEME), get(ADDRESS), query.join("&"))
}

/// Labels of the series that a target's scrapes report about themselves.
pub(crate) fn report_labels(name: &str, target: &Target) -> Labels {
    let mut labels = target.labels.to_builder();
    labels.set(METRIC_NAME, name);
    labels.build()
}

/// Merges what a target exposes with the target's own labels. Where both have a label, the exposed one
/// stays as it is if `is_honored` says so of the name, though it may be empty; else it is renamed to
/// `exported_…`.
pub(crate) fn merge_labels(exposed: &mut LabelsBuilder, target: &Labels, is_honored: impl Fn(&str) -> bool) {
    let mut renamed = Vec::new();
    for (name, value) in target.iter().filter(|(name, _)| !is_honored(name)) {
        if let Some(existing) = exposed.get(name) {
            renamed.push((name, existing.to_owned()));
        }
        exposed.set(name, value);
    }
    // Shorter names first, so that `exported_a` of the target can not take the place of `a`.
    renamed.sort_by_key(|(name, _)| name.len());
    for (name, value) in renamed {
        let mut free = format!("exported_{name}");
        while exposed.get(&free).is_some() {
            free.insert_str(0, "exported_");
        }
        exposed.set(&free, &value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewatch_model::{RelabelAction, RelabelConfig, RelabelFields};

    fn rule(change: impl FnOnce(&mut RelabelFields)) -> RelabelConfig {
        let mut fields = RelabelFields::default();
        change(&mut fields);
        RelabelConfig::new(fields).unwrap()
    }

    fn set_label(name: &str, value: &str) -> RelabelConfig {
        rule(|f| (f.target_label, f.replacement) = (name.to_owned(), value.to_owned()))
    }

    fn build(config: &ScrapeConfig, labels: &[(&str, &str)]) -> Result<Target, String> {
        let labels: Vec<_> = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        match build_target(config, &labels)? {
            Built::Target(target) => Ok(*target),
            Built::Dropped(labels) => Err(format!("dropped {labels}")),
        }
    }

    #[test]
    fn a_target_gets_its_jobs_defaults() {
        let config = ScrapeConfig::new("node");
        let target = build(&config, &[("__address__", "host:9100"), ("__meta_x", "y"), ("dc", "a")]).unwrap();
        assert_eq!(target.labels.to_string(), r#"{dc="a", instance="host:9100", job="node"}"#);
        assert_eq!(target.url, "http://host:9100/metrics");
        assert_eq!((target.interval_ms, target.timeout_ms), (60_000, 10_000));
        assert!(!target.all_labels.has("__meta_x"));
        assert_eq!(target.discovered_labels.get("__scrape_interval__"), Some("1m"));
        assert_eq!(target.discovered_labels.get("__meta_x"), Some("y"));
    }

    #[test]
    fn relabelling_decides_address_path_parameters_and_times() {
        let mut config = ScrapeConfig::new("probe");
        config.params =
            vec![("module".into(), vec!["icmp".into(), "more".into()]), ("a b".into(), vec!["&".into()])];
        config.relabel_configs = vec![
            rule(|f| {
                (f.source_labels, f.target_label) = (vec!["__address__".into()], "__param_target".into())
            }),
            rule(|f| (f.source_labels, f.target_label) = (vec!["__param_target".into()], "instance".into())),
            set_label("__address__", "exporter:9115"),
            set_label("__metrics_path__", "/pro be?"),
            set_label("__param_module", "http"),
            set_label("__scrape_interval__", "5s"),
            set_label("__scrape_timeout__", "1s"),
            set_label("__scheme__", "https"),
        ];
        let target = build(&config, &[("__address__", "example.com")]).unwrap();
        assert_eq!(target.labels.to_string(), r#"{instance="example.com", job="probe"}"#);
        assert_eq!(
            target.url,
            "https://exporter:9115/pro%20be%3F?a+b=%26&module=http&module=more&target=example.com"
        );
        assert_eq!((target.interval_ms, target.timeout_ms), (5_000, 1_000));
    }

    #[test]
    fn bad_targets_are_refused_in_prometheus_words() {
        let with = |name: &str, value: &str| {
            let mut config = ScrapeConfig::new("job");
            config.relabel_configs = vec![set_label(name, value)];
            build(&config, &[("__address__", "host:1")]).unwrap_err()
        };
        assert_eq!(with("__address__", ""), "no address");
        assert_eq!(with("__address__", "host/path"), "\"host/path\" is not a valid hostname");
        assert_eq!(with("__scrape_interval__", "0s"), "scrape interval cannot be 0");
        assert_eq!(
            with("__scrape_timeout__", "x"),
            "error parsing scrape timeout: not a valid duration string: \"x\""
        );
        assert_eq!(
            with("__scrape_timeout__", "2m"),
            "scrape timeout cannot be greater than scrape interval (\"2m\" > \"1m\")"
        );
        let mut config = ScrapeConfig::new("job");
        config.relabel_configs = vec![rule(|f| f.action = RelabelAction::Drop)];
        assert!(
            build(&config, &[("__address__", "host:1")]).unwrap_err().starts_with("dropped {__address__=")
        );
    }

    #[test]
    fn conflicting_labels_are_renamed_or_honoured() {
        let target = Labels::from_pairs([("job", "node"), ("instance", "host"), ("exported_job", "t")]);
        let exposed =
            || Labels::from_pairs([("__name__", "up"), ("job", "x"), ("exported_job", "y")]).to_builder();
        let mut renamed = exposed();
        merge_labels(&mut renamed, &target, |_| false);
        assert_eq!(
            renamed.build().to_string(),
            r#"{__name__="up", exported_exported_exported_job="y", exported_exported_job="x", exported_job="t", instance="host", job="node"}"#
        );
        let mut honoured = exposed();
        merge_labels(&mut honoured, &target, |name| name != "instance");
        assert_eq!(
            honoured.build().to_string(),
            r#"{__name__="up", exported_job="y", instance="host", job="x"}"#
        );
    }
}
