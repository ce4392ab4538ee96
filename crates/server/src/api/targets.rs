//! `/api/v1/targets`, `/targets/metadata`, `/metadata`, `/scrape_pools`, `/alertmanagers`.

use std::collections::{BTreeMap, BTreeSet};

use tidewatch_model::format_duration;
use tidewatch_scrape::{MetadataEntry, TargetStatus, TargetsSnapshot};
use tidewatch_storage::SelectError;

use super::rules::time;
use crate::backend::{AlertmanagersView, Backend};
use crate::error::ApiError;
use crate::json::Json;
use crate::reply::Reply;
use crate::request::Params;

pub(crate) fn targets(snapshot: &TargetsSnapshot, params: &Params) -> Reply {
    let state = params.get("state").to_ascii_lowercase();
    let pool = params.get("scrapePool");
    let shows = |kind: &str| matches!(state.as_str(), "" | "any") || state == kind;
    let in_pool = |name: &str| pool.is_empty() || pool == name;
    let active = snapshot.active.iter().filter(|t| shows("active") && in_pool(&t.scrape_pool));
    let dropped = snapshot.dropped.iter().filter(|t| shows("dropped") && in_pool(&t.scrape_pool));
    let counts = snapshot.dropped_counts.iter().filter(|(name, _)| shows("dropped") && in_pool(name));
    Reply::json(|json| {
        json.object(|json| {
            json.key("activeTargets").array(active, write_target);
            json.key("droppedTargets").array(dropped, |json, target| {
                json.object(|json| {
                    json.key("discoveredLabels").labels(&target.discovered_labels);
                    json.key("scrapePool").string(&target.scrape_pool);
                });
            });
            json.key("droppedTargetCounts").object(|json| {
                for (pool, count) in counts {
                    json.key(pool).integer(*count);
                }
            });
        });
    })
}

fn write_target(json: &mut Json<'_>, target: &TargetStatus) {
    json.object(|json| {
        json.key("discoveredLabels").labels(&target.discovered_labels);
        json.key("labels").labels(&target.labels);
        json.key("scrapePool").string(&target.scrape_pool);
        json.key("scrapeUrl").string(&target.scrape_url);
        json.key("globalUrl").string(&target.global_url);
        json.key("lastError").string(&target.last_error);
        json.key("lastScrape").string(&time(target.last_scrape_ms));
        json.key("lastScrapeDuration").number(target.last_scrape_duration_seconds);
        json.key("health").string(target.health.as_str());
        json.key("scrapeInterval").string(&format_duration(target.scrape_interval_ms));
        json.key("scrapeTimeout").string(&format_duration(target.scrape_timeout_ms));
    });
}

pub(crate) fn scrape_pools(snapshot: &TargetsSnapshot) -> Reply {
    let pools: BTreeSet<&String> = snapshot.pools.iter().collect();
    Reply::json(|json| json.object(|json| json.key("scrapePools").strings(pools)))
}

pub(crate) fn alertmanagers(view: &AlertmanagersView) -> Reply {
    let write = |json: &mut Json<'_>, name: &str, urls: &[String]| {
        json.key(name).array(urls, |json, url| json.object(|json| json.key("url").string(url)));
    };
    Reply::json(|json| {
        json.object(|json| {
            write(json, "activeAlertmanagers", &view.active);
            write(json, "droppedAlertmanagers", &view.dropped);
        });
    })
}

/// A limit of which a negative number means none.
fn number(params: &Params, name: &str) -> Result<usize, ApiError> {
    let number = params.integer(name).map_err(|_| ApiError::bad_data(format!("{name} must be a number")))?;
    Ok(number.and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX))
}

pub(crate) fn target_metadata(entries: &[MetadataEntry], params: &Params) -> Result<Reply, ApiError> {
    let limit = number(params, "limit")?;
    let matchers = match params.get("match_target") {
        "" => Vec::new(),
        text => tidewatch_parser::parse_metric_selector(text)
            .map_err(|error| ApiError::parameter("match_target", error))?,
    };
    let metric = params.get("metric");
    let wanted = entries
        .iter()
        .filter(|entry| metric.is_empty() || entry.family == metric)
        .filter(|entry| matchers.iter().all(|m| m.matches(entry.target.get(m.name()).unwrap_or(""))))
        .take(limit);
    Ok(Reply::json(|json| {
        json.array(wanted, |json, entry| {
            json.object(|json| {
                json.key("target").labels(&entry.target);
                // Who asked for one metric knows its name.
                if metric.is_empty() {
                    json.key("metric").string(&entry.family);
                }
                write_metadata(json, (entry.kind.as_str(), &entry.help, &entry.unit));
            });
        });
    }))
}

/// What is known of metrics; 503 as for queries until a start is complete.
pub(crate) fn all_metadata(backend: &dyn Backend) -> Result<Vec<MetadataEntry>, ApiError> {
    backend.all_metadata().ok_or_else(|| SelectError::Recovering.into())
}

pub(crate) fn metadata(entries: &[MetadataEntry], params: &Params) -> Result<Reply, ApiError> {
    let limit = number(params, "limit")?;
    let limit_per_metric = number(params, "limit_per_metric")?;
    let limit_per_metric = if limit_per_metric == 0 { usize::MAX } else { limit_per_metric };
    let metric = params.get("metric");
    let mut families: BTreeMap<&str, BTreeSet<(&str, &str, &str)>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| metric.is_empty() || entry.family == metric) {
        if !families.contains_key(entry.family.as_str()) && families.len() >= limit {
            continue;
        }
        let texts = families.entry(&entry.family).or_default();
        if texts.len() < limit_per_metric {
            texts.insert((entry.kind.as_str(), &entry.help, &entry.unit));
        }
    }
    Ok(Reply::json(|json| {
        json.object(|json| {
            for (family, texts) in &families {
                json.key(family).array(texts, |json, text| json.object(|json| write_metadata(json, *text)));
            }
        });
    }))
}

fn write_metadata(json: &mut Json<'_>, (kind, help, unit): (&str, &str, &str)) {
    json.key("type").string(kind);
    json.key("help").string(help);
    json.key("unit").string(unit);
}
