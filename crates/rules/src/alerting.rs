//! What an evaluation does to the alerts of one rule.

use std::collections::BTreeMap;
use std::rc::Rc;

use tidewatch_model::{InstantSample, Labels, METRIC_NAME, SampleValue, Value};
use tidewatch_parser::{ParserOptions, parse_expr};

use crate::alert::{AlertInstance, AlertState};
use crate::definition::{AlertingFields, Rule};
use crate::effects::{ChangeKind, Evaluator, RuleSample};
use crate::file::alert_template;
use crate::group::Settings;
use crate::template::{AlertData, Surroundings, Template, TemplateSample, Value as TemplateValue};

/// How long a resolved alert is kept and told to receivers: one that was not reachable learns of it.
const RESOLVED_RETENTION_MS: i64 = 15 * 60 * 1000;

pub(crate) const ALERTS: &str = "ALERTS";
pub(crate) const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
pub(crate) const ALERT_NAME: &str = "alertname";
const ALERT_STATE: &str = "alertstate";

/// The alerts of a rule, and its texts ready to be expanded.
#[derive(Debug)]
pub(crate) struct Alerts {
    /// Pending, firing, and resolved ones that are still retained; by their labels.
    active: BTreeMap<Labels, AlertInstance>,
    labels: Vec<(String, Template)>,
    annotations: Vec<(String, Template)>,
}

/// The time and place of an evaluation.
pub(crate) struct Moment<'m> {
    pub(crate) at_ms: i64,
    /// How far before `at_ms` the rule looks; its samples are of that time.
    pub(crate) offset_ms: i64,
    pub(crate) limit: usize,
    pub(crate) settings: &'m Settings,
    pub(crate) evaluator: &'m dyn Evaluator,
}

/// Alerts that changed, with what happened to them.
pub(crate) type Changes = Vec<(ChangeKind, AlertInstance)>;

impl Alerts {
    pub(crate) fn new(rule: &Rule, fields: &AlertingFields) -> Alerts {
        let parse = |texts: &BTreeMap<String, String>| {
            let template = |text: &String| {
                alert_template(&fields.alert, text).expect("checked when the rule file was read")
            };
            texts.iter().map(|(name, text)| (name.clone(), template(text))).collect()
        };
        Alerts {
            active: BTreeMap::new(),
            labels: parse(&rule.labels),
            annotations: parse(&fields.annotations),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &AlertInstance> {
        self.active.values()
    }

    /// Pending and firing alerts.
    pub(crate) fn standing(&self) -> impl Iterator<Item = &AlertInstance> {
        self.iter().filter(|alert| alert.state != AlertState::Inactive)
    }

    pub(crate) fn has(&self, labels: &Labels) -> bool {
        self.active.contains_key(labels)
    }

    /// Takes the alerts of another state of the same rule, or of a journal.
    pub(crate) fn adopt(&mut self, alerts: impl IntoIterator<Item = AlertInstance>) {
        self.active.extend(alerts.into_iter().map(|alert| (alert.labels.clone(), alert)));
    }

    pub(crate) fn into_instances(self) -> impl Iterator<Item = AlertInstance> {
        self.active.into_values()
    }

    /// Whether an alert with these labels may be one of this rule: the rule's labels that are no
    /// templates are among them.
    pub(crate) fn may_own(&self, labels: &Labels) -> bool {
        self.labels.iter().filter(|(_, template)| template.is_literal()).all(|(name, template)| {
            let literal = template.literal().unwrap_or("");
            labels.get(name).unwrap_or("") == literal || name == ALERT_NAME
        })
    }

    /// Moves times that are after `at_ms` back to it: they were noted by a clock that was ahead for a
    /// while, and `for`, tellings and ends would wait until it is there again. Returns what changed.
    pub(crate) fn not_after(&mut self, at_ms: i64) -> Vec<AlertInstance> {
        let ahead = self.active.values_mut().filter(|alert| is_ahead(alert, at_ms));
        ahead
            .map(|alert| {
                alert.active_at_ms = alert.active_at_ms.min(at_ms);
                for time in
                    [&mut alert.fired_at_ms, &mut alert.resolved_at_ms, &mut alert.keep_firing_since_ms]
                {
                    *time = time.map(|ms| ms.min(at_ms));
                }
                // It is told at once: what receivers know of it ends at a time that means nothing.
                alert.last_sent_at_ms = alert.last_sent_at_ms.filter(|ms| *ms <= at_ms);
                alert.clone()
            })
            .collect()
    }

    /// Moves every alert on by what the rule's expression gave, and returns the rule's samples. On
    /// an error nothing has changed.
    pub(crate) fn evaluate(
        &mut self,
        rule: &Rule,
        fields: &AlertingFields,
        vector: &[InstantSample],
        moment: &Moment<'_>,
        changes: &mut Changes,
    ) -> Result<Vec<RuleSample>, String> {
        let mut found = self.found(fields, vector, moment)?;
        self.check_limit(fields, &found, moment)?;
        for (labels, alert) in &mut found {
            let known = self.active.get_mut(labels).filter(|known| known.state != AlertState::Inactive);
            if let Some(known) = known {
                known.value = alert.value;
                known.annotations = std::mem::take(&mut alert.annotations);
                continue;
            }
            let kind = if fields.for_ms <= 0 {
                fire(alert, moment.at_ms);
                ChangeKind::Firing
            } else {
                ChangeKind::Pending
            };
            changes.push((kind, alert.clone()));
            self.active.insert(labels.clone(), alert.clone());
        }
        let at_ms = moment.at_ms;
        self.active.retain(|labels, alert| {
            let change = if found.contains_key(labels) {
                present(alert, fields, at_ms)
            } else {
                absent(alert, fields, at_ms)
            };
            changes.extend(change.map(|kind| (kind, alert.clone())));
            change != Some(ChangeKind::Forgotten)
        });
        Ok(self.samples(rule, moment))
    }

    /// The alerts that the expression's elements stand for, as if they were new.
    fn found(
        &self,
        fields: &AlertingFields,
        vector: &[InstantSample],
        moment: &Moment<'_>,
    ) -> Result<BTreeMap<Labels, AlertInstance>, String> {
        let limit = moment.settings.alerts_per_rule;
        if vector.len() > limit {
            return Err(format!("exceeded limit of {limit} with {} alerts", vector.len()));
        }
        let mut found = BTreeMap::new();
        for sample in vector {
            let alert = self.alert(fields, sample, moment);
            if found.insert(alert.labels.clone(), alert).is_some() {
                return Err(
                    "vector contains metrics with the same labelset after applying alert labels".to_owned()
                );
            }
        }
        Ok(found)
    }

    fn alert(&self, fields: &AlertingFields, sample: &InstantSample, moment: &Moment<'_>) -> AlertInstance {
        let mut expander = Expander::new(sample, moment);
        let mut labels = sample.labels.to_builder();
        labels.remove(METRIC_NAME);
        for (name, template) in &self.labels {
            labels.set(name, &expander.expand(template));
        }
        labels.set(ALERT_NAME, &fields.alert);
        let expanded = |(name, template): &(String, Template)| (name.clone(), expander.expand(template));
        AlertInstance {
            labels: labels.build(),
            annotations: self.annotations.iter().map(expanded).collect(),
            state: AlertState::Pending,
            value: match &sample.value {
                SampleValue::Float(value) => *value,
                SampleValue::Histogram(_) => 0.0,
            },
            active_at_ms: moment.at_ms,
            fired_at_ms: None,
            resolved_at_ms: None,
            keep_firing_since_ms: None,
            last_sent_at_ms: None,
            valid_until_ms: None,
        }
    }

    /// Counts what would be pending or firing, before anything is changed: a rule that is over its
    /// limit keeps the alerts it has.
    fn check_limit(
        &self,
        fields: &AlertingFields,
        found: &BTreeMap<Labels, AlertInstance>,
        moment: &Moment<'_>,
    ) -> Result<(), String> {
        let kept = self
            .active
            .values()
            .filter(|alert| !found.contains_key(&alert.labels))
            .filter(|alert| keeps_firing(alert, fields, moment.at_ms))
            .count();
        let count = found.len() + kept;
        for limit in [moment.limit, moment.settings.alerts_per_rule] {
            if limit > 0 && count > limit {
                return Err(format!("exceeded limit of {limit} with {count} alerts"));
            }
        }
        Ok(())
    }

    fn samples(&self, rule: &Rule, moment: &Moment<'_>) -> Vec<RuleSample> {
        let timestamp = moment.at_ms - moment.offset_ms;
        let sample = |labels, value| RuleSample { labels, timestamp, value: SampleValue::Float(value) };
        let mut samples = Vec::new();
        for alert in self.standing() {
            let [state, since] = series(rule, alert);
            samples.push(sample(state, 1.0));
            samples.push(sample(since, alert.active_at_ms.div_euclid(1000) as f64));
        }
        samples
    }

    /// The alerts that are to be told now, with the times of the telling noted. An alert is told
    /// when it fires, when it is resolved, and again every resend delay. While the rule fails only
    /// firing ones are repeated, so that no receiver takes silence for a resolution.
    pub(crate) fn due(&mut self, moment: &Moment<'_>, interval_ms: i64, failed: bool) -> Vec<AlertInstance> {
        let resend_delay_ms = moment.settings.resend_delay_ms;
        let mut due = Vec::new();
        for alert in self.active.values_mut() {
            let wanted = alert.state == AlertState::Firing || alert.state == AlertState::Inactive && !failed;
            if wanted && needs_sending(alert, moment.at_ms, resend_delay_ms) {
                alert.last_sent_at_ms = Some(moment.at_ms);
                // Room for two evaluations or deliveries that fail.
                alert.valid_until_ms = Some(moment.at_ms + 4 * interval_ms.max(resend_delay_ms));
                due.push(alert.clone());
            }
        }
        due
    }
}

/// The two series that show an alert: its state, and since when.
pub(crate) fn series(rule: &Rule, alert: &AlertInstance) -> [Labels; 2] {
    let mut labels = rule.label_set().to_builder();
    for (name, value) in alert.labels.iter() {
        labels.set(name, value);
    }
    labels.set(ALERT_NAME, rule.name());
    labels.set(METRIC_NAME, ALERTS_FOR_STATE);
    let since = labels.build();
    labels.set(METRIC_NAME, ALERTS);
    labels.set(ALERT_STATE, alert.state.as_str());
    [labels.build(), since]
}

fn is_ahead(alert: &AlertInstance, at_ms: i64) -> bool {
    let AlertInstance { fired_at_ms, resolved_at_ms, keep_firing_since_ms, last_sent_at_ms, .. } = alert;
    let times = [*fired_at_ms, *resolved_at_ms, *keep_firing_since_ms, *last_sent_at_ms];
    times.into_iter().flatten().chain([alert.active_at_ms]).any(|ms| ms > at_ms)
}

fn fire(alert: &mut AlertInstance, at_ms: i64) {
    alert.state = AlertState::Firing;
    alert.fired_at_ms = Some(at_ms);
}

/// The condition holds.
fn present(alert: &mut AlertInstance, fields: &AlertingFields, at_ms: i64) -> Option<ChangeKind> {
    let was_kept = alert.keep_firing_since_ms.take().is_some();
    if alert.state == AlertState::Pending && at_ms - alert.active_at_ms >= fields.for_ms {
        fire(alert, at_ms);
        return Some(ChangeKind::Firing);
    }
    was_kept.then_some(ChangeKind::Kept)
}

/// The condition does not hold: the expression gave no element for the alert. Why it gave none
/// (it is false, its series ended, a target is down) is not known here; when it is, this is where
/// a rule's policy for missing data decides.
fn absent(alert: &mut AlertInstance, fields: &AlertingFields, at_ms: i64) -> Option<ChangeKind> {
    match alert.state {
        AlertState::Pending => Some(ChangeKind::Forgotten),
        AlertState::Inactive => {
            let resolved_at_ms = alert.resolved_at_ms.unwrap_or(at_ms);
            (at_ms - resolved_at_ms > RESOLVED_RETENTION_MS).then_some(ChangeKind::Forgotten)
        }
        AlertState::Firing if keeps_firing(alert, fields, at_ms) => {
            let since = alert.keep_firing_since_ms.replace(alert.keep_firing_since_ms.unwrap_or(at_ms));
            since.is_none().then_some(ChangeKind::Kept)
        }
        AlertState::Firing => {
            alert.state = AlertState::Inactive;
            alert.resolved_at_ms = Some(at_ms);
            Some(ChangeKind::Resolved)
        }
    }
}

/// Whether `keep_firing_for` holds an alert whose condition does not.
fn keeps_firing(alert: &AlertInstance, fields: &AlertingFields, at_ms: i64) -> bool {
    alert.state == AlertState::Firing
        && fields.keep_firing_for_ms > 0
        && at_ms - alert.keep_firing_since_ms.unwrap_or(at_ms) < fields.keep_firing_for_ms
}

fn needs_sending(alert: &AlertInstance, at_ms: i64, resend_delay_ms: i64) -> bool {
    match (alert.resolved_at_ms, alert.last_sent_at_ms) {
        (_, None) => true,
        (Some(resolved), Some(sent)) if resolved > sent => true,
        (_, Some(sent)) => sent + resend_delay_ms < at_ms,
    }
}

/// Expands the texts of one alert.
struct Expander<'m> {
    sample: &'m InstantSample,
    moment: &'m Moment<'m>,
    /// Built for the first text that needs it.
    data: Option<TemplateValue>,
}

impl<'m> Expander<'m> {
    fn new(sample: &'m InstantSample, moment: &'m Moment<'m>) -> Expander<'m> {
        Expander { sample, moment, data: None }
    }

    /// A text that can not be expanded says so itself: better an odd alert than none.
    fn expand(&mut self, template: &Template) -> String {
        let Moment { evaluator, at_ms, settings, .. } = *self.moment;
        let data = self.data.get_or_insert_with(|| alert_data(self.sample, settings));
        let mut query = |text: &str| template_query(evaluator, &settings.parser, text, at_ms);
        let mut surroundings =
            Surroundings { now_ms: at_ms, external_url: &settings.external_url, query: &mut query };
        template
            .expand(data, &mut surroundings, false)
            .unwrap_or_else(|message| format!("<error expanding template: {message}>"))
    }
}

fn map_of(labels: &Labels) -> Rc<BTreeMap<String, String>> {
    Rc::new(labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn alert_data(sample: &InstantSample, settings: &Settings) -> TemplateValue {
    TemplateValue::Alert(Rc::new(AlertData {
        labels: map_of(&sample.labels),
        external_labels: map_of(&settings.external_labels),
        external_url: Rc::from(settings.external_url.as_str()),
        value: template_value(&sample.value),
    }))
}

fn template_value(value: &SampleValue) -> TemplateValue {
    match value {
        SampleValue::Float(value) => TemplateValue::Float(*value),
        SampleValue::Histogram(histogram) => TemplateValue::Histogram(histogram.clone()),
    }
}

/// What the function `query` answers.
fn template_query(
    evaluator: &dyn Evaluator,
    options: &ParserOptions,
    text: &str,
    at_ms: i64,
) -> Result<Vec<TemplateSample>, String> {
    let expr = parse_expr(text, options).map_err(|error| error.to_string())?;
    let (value, _) = evaluator.instant(&expr, at_ms).map_err(|error| error.message)?;
    let samples = vector_of(value)?;
    let sample = |sample: InstantSample| TemplateSample {
        labels: map_of(&sample.labels),
        value: template_value(&sample.value),
    };
    Ok(samples.into_iter().map(sample).collect())
}

/// The elements of a rule's result; a scalar is one without labels.
pub(crate) fn vector_of(value: Value) -> Result<Vec<InstantSample>, String> {
    match value {
        Value::Vector(samples) => Ok(samples),
        Value::Scalar { timestamp, value } => {
            Ok(vec![InstantSample { labels: Labels::empty(), timestamp, value: SampleValue::Float(value) }])
        }
        Value::String { .. } | Value::Matrix(_) => Err("rule result is not a vector or scalar".to_owned()),
    }
}
