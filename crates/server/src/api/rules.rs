//! `/api/v1/rules` and `/api/v1/alerts`.

use std::collections::BTreeMap;

use tidewatch_model::Matcher;
use tidewatch_rules::{AlertStatus, AlertingStatus, GroupStatus, RuleStatus};
use tidewatch_storage::SelectError;

use super::selectors;
use crate::backend::Backend;
use crate::error::ApiError;
use crate::json::{Json, push_scientific};
use crate::reply::Reply;
use crate::request::{Params, format_time};

/// What Go prints for a time that was never set.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The groups with their alerts; 503 as for queries until a start is complete.
pub(crate) fn groups(backend: &dyn Backend) -> Result<Vec<GroupStatus>, ApiError> {
    backend.rule_groups().ok_or_else(|| SelectError::Recovering.into())
}

pub(crate) fn alerts(groups: &[GroupStatus]) -> Reply {
    let alerts =
        groups.iter().flat_map(|g| &g.rules).filter_map(|r| r.alerting.as_ref()).flat_map(|a| &a.alerts);
    Reply::json(|json| json.object(|json| json.key("alerts").array(alerts, write_alert)))
}

/// Which groups and rules were asked for.
struct Filter<'a> {
    alerting: bool,
    recording: bool,
    names: Vec<&'a str>,
    groups: Vec<&'a str>,
    files: Vec<&'a str>,
    selectors: Vec<Vec<Matcher>>,
}

impl<'a> Filter<'a> {
    fn read(params: &'a Params) -> Result<Filter<'a>, ApiError> {
        let kind = params.get("type").to_ascii_lowercase();
        if !matches!(kind.as_str(), "" | "alert" | "record") {
            return Err(ApiError::parameter("type", format_args!("not supported value {kind:?}")));
        }
        Ok(Filter {
            alerting: kind != "record",
            recording: kind != "alert",
            names: params.all("rule_name[]").collect(),
            groups: params.all("rule_group[]").collect(),
            files: params.all("file[]").collect(),
            selectors: selectors(params)?,
        })
    }

    fn takes_group(&self, group: &GroupStatus) -> bool {
        let among = |wanted: &[&str], text: &str| wanted.is_empty() || wanted.contains(&text);
        among(&self.groups, &group.name) && among(&self.files, &group.file)
    }

    fn takes_rule(&self, rule: &RuleStatus) -> bool {
        let kind = if rule.alerting.is_some() { self.alerting } else { self.recording };
        let name = self.names.is_empty() || self.names.contains(&rule.name.as_str());
        let holds = |matcher: &Matcher| matcher.matches(rule.labels.get(matcher.name()).unwrap_or(""));
        let labels = self.selectors.is_empty() || self.selectors.iter().any(|all| all.iter().all(holds));
        kind && name && labels
    }
}

pub(crate) fn rules(groups: &[GroupStatus], params: &Params) -> Result<Reply, ApiError> {
    let filter = Filter::read(params)?;
    let exclude_alerts = read_bool(params.get("exclude_alerts")).map_err(|cause| {
        ApiError::parameter("exclude_alerts", format_args!("error converting exclude_alerts: {cause}"))
    })?;
    let mut kept: Vec<Kept<'_>> = Vec::new();
    for group in groups.iter().filter(|group| filter.takes_group(group)) {
        let rules: Vec<&RuleStatus> = group.rules.iter().filter(|rule| filter.takes_rule(rule)).collect();
        if !rules.is_empty() {
            kept.push((group, rules));
        }
    }
    let (page, next_token) = paginate(&kept, params)?;
    Ok(Reply::json(|json| {
        json.object(|json| {
            json.key("groups")
                .array(page, |json, (group, rules)| write_group(json, group, rules, exclude_alerts));
            if let Some(token) = &next_token {
                json.key("groupNextToken").string(token);
            }
        });
    }))
}

/// A group with those of its rules that were asked for.
type Kept<'a> = (&'a GroupStatus, Vec<&'a RuleStatus>);

/// The part of `groups` that `group_limit` and `group_next_token` ask for, and the token of the
/// group behind it.
fn paginate<'a, 'b>(
    groups: &'a [Kept<'b>],
    params: &Params,
) -> Result<(&'a [Kept<'b>], Option<String>), ApiError> {
    let wanted = params.get("group_next_token");
    let limit = params.integer("group_limit").map_err(|error| ApiError::parameter("group_limit", error))?;
    let Some(limit) = limit else {
        if wanted.is_empty() {
            return Ok((groups, None));
        }
        let cause = "group_limit needs to be present in order to paginate over the groups";
        return Err(ApiError::parameter("group_next_token", cause));
    };
    let limit = usize::try_from(limit)
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or_else(|| ApiError::parameter("group_limit", "group_limit must be greater than 0"))?;
    let start = match wanted {
        "" => 0,
        wanted => groups.iter().position(|(group, _)| token(group) == wanted).ok_or_else(|| {
            let cause = format!("invalid group_next_token {wanted:?}. were rule groups changed?");
            ApiError::parameter("group_next_token", cause)
        })?,
    };
    let end = groups.len().min(start.saturating_add(limit));
    Ok((&groups[start..end], groups.get(end).map(|(group, _)| token(group))))
}

/// Names a group in a way that clients hand back and do not read.
fn token(group: &GroupStatus) -> String {
    let text = format!("{};{}", group.file, group.name);
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref()[..20].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

fn write_group(json: &mut Json<'_>, group: &GroupStatus, rules: &[&RuleStatus], exclude_alerts: bool) {
    json.object(|json| {
        json.key("name").string(&group.name);
        json.key("file").string(&group.file);
        json.key("rules").array(rules, |json, rule| {
            json.object(|json| match &rule.alerting {
                Some(alerting) => write_alerting(json, rule, alerting, exclude_alerts),
                None => write_recording(json, rule),
            });
        });
        json.key("interval").number(seconds(group.interval_ms));
        json.key("limit").integer(group.limit);
        json.key("evaluationTime").number(group.evaluation_ns as f64 / 1e9);
        json.key("lastEvaluation").string(&time(group.last_evaluation_ms));
    });
}

fn write_alerting(json: &mut Json<'_>, rule: &RuleStatus, alerting: &AlertingStatus, exclude_alerts: bool) {
    json.key("state").string(alerting.state.as_str());
    json.key("name").string(&rule.name);
    json.key("query").string(&rule.query);
    json.key("duration").number(seconds(alerting.for_ms));
    json.key("keepFiringFor").number(seconds(alerting.keep_firing_for_ms));
    json.key("labels").labels(&rule.labels);
    json.key("annotations").pairs(texts(&alerting.annotations));
    if exclude_alerts {
        json.key("alerts").null();
    } else {
        json.key("alerts").array(&alerting.alerts, write_alert);
    }
    write_evaluation(json, rule);
    json.key("type").string("alerting");
}

fn write_recording(json: &mut Json<'_>, rule: &RuleStatus) {
    json.key("name").string(&rule.name);
    json.key("query").string(&rule.query);
    json.key("labels").labels(&rule.labels);
    write_evaluation(json, rule);
    json.key("type").string("recording");
}

fn write_evaluation(json: &mut Json<'_>, rule: &RuleStatus) {
    json.key("health").string(rule.health.as_str());
    if let Some(error) = &rule.last_error {
        json.key("lastError").string(error);
    }
    json.key("evaluationTime").number(rule.evaluation_ns as f64 / 1e9);
    json.key("lastEvaluation").string(&time(rule.last_evaluation_ms));
}

fn write_alert(json: &mut Json<'_>, alert: &AlertStatus) {
    json.object(|json| {
        json.key("labels").labels(&alert.labels);
        json.key("annotations").pairs(texts(&alert.annotations));
        json.key("state").string(alert.state.as_str());
        json.key("activeAt").string(&format_time(alert.active_at_ms));
        if let Some(since) = alert.keep_firing_since_ms {
            json.key("keepFiringSince").string(&format_time(since));
        }
        let mut value = Vec::new();
        push_scientific(&mut value, alert.value);
        json.key("value").string(&String::from_utf8(value).expect("digits are ASCII"));
    });
}

fn texts(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    map.iter().map(|(name, text)| (name.as_str(), text.as_str()))
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

pub(super) fn time(ms: Option<i64>) -> String {
    ms.map_or_else(|| NEVER.to_owned(), format_time)
}
