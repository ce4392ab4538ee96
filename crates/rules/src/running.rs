//! A rule of a running group: what an evaluation of it does.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidewatch_model::{Annotations, Labels, STALE_NAN, SampleValue};

use crate::alert::{AlertInstance, AlertState};
use crate::alerting::{Alerts, Changes, Moment, series, vector_of};
use crate::definition::{Rule, RuleKind};
use crate::effects::{
    AlertChange, Append, ChangeKind, Effects, EvalError, Notification, RuleFailure, RuleId, RuleSample,
};
use crate::recording;
use crate::status::{AlertStatus, AlertingStatus, Health, RuleStatus};
use crate::template::table_link;

const PANICKED: &str = "the query panicked, which is a defect of this program";

#[derive(Debug)]
pub(crate) struct RunningRule {
    pub(crate) rule: Rule,
    /// Present exactly for an alerting rule.
    pub(crate) alerts: Option<Alerts>,
    /// Series that the last evaluation gave, so that those it gives no more can be ended.
    pub(crate) previous: HashSet<Labels>,
    health: Health,
    last_error: Option<String>,
    evaluation_ns: u64,
    last_ms: Option<i64>,
}

/// Name, labels, and whether it is an alerting rule.
pub(crate) type RuleKey = (String, Labels, bool);

/// What a rule that is no more leaves behind: its alerts, and the series that it gave last.
#[derive(Debug)]
pub(crate) struct Retired {
    pub(crate) key: RuleKey,
    pub(crate) alerts: Vec<(RuleId, AlertInstance)>,
    pub(crate) series: Vec<Labels>,
}

impl RunningRule {
    pub(crate) fn new(rule: Rule) -> RunningRule {
        let alerts = match &rule.kind {
            RuleKind::Alerting(fields) => Some(Alerts::new(&rule, fields)),
            RuleKind::Recording { .. } => None,
        };
        RunningRule {
            rule,
            alerts,
            previous: HashSet::new(),
            health: Health::Unknown,
            last_error: None,
            evaluation_ns: 0,
            last_ms: None,
        }
    }

    pub(crate) fn id(&self, index: usize) -> RuleId {
        RuleId { name: self.rule.name().to_owned(), index }
    }

    /// What makes a rule the same rule after a reload.
    pub(crate) fn key(&self) -> RuleKey {
        (self.rule.name().to_owned(), self.rule.label_set(), self.alerts.is_some())
    }

    pub(crate) fn step(
        &mut self,
        index: usize,
        moment: &Moment<'_>,
        interval_ms: i64,
        append: Append<'_>,
        effects: &mut Effects,
    ) {
        let started_ns = moment.evaluator.monotonic_ns();
        let mut changes = self.redated(moment.at_ms);
        let outcome = self.evaluate(moment, &mut changes, &mut effects.annotations);
        let failed = outcome.is_err();
        self.tell(index, moment, interval_ms, failed, &mut changes, effects);
        let outcome = outcome.and_then(|samples| self.store(samples, moment, append, effects));
        self.health = if outcome.is_ok() { Health::Good } else { Health::Bad };
        self.last_error = outcome.err();
        if let Some(message) = &self.last_error {
            effects.failures.push(RuleFailure { rule: self.id(index), message: message.clone() });
        }
        self.note_changes(index, changes, effects);
        self.evaluation_ns = moment.evaluator.monotonic_ns().saturating_sub(started_ns);
        self.last_ms = Some(moment.at_ms);
    }

    /// Tells of alerts that fire as if the rule had failed.
    pub(crate) fn remind(
        &mut self,
        index: usize,
        moment: &Moment<'_>,
        interval_ms: i64,
        effects: &mut Effects,
    ) {
        let mut changes = self.redated(moment.at_ms);
        self.tell(index, moment, interval_ms, true, &mut changes, effects);
        self.note_changes(index, changes, effects);
    }

    fn redated(&mut self, at_ms: i64) -> Changes {
        let redated = self.alerts.iter_mut().flat_map(|alerts| alerts.not_after(at_ms));
        redated.map(|alert| (ChangeKind::Redated, alert)).collect()
    }

    fn note_changes(&self, index: usize, changes: Changes, effects: &mut Effects) {
        let rule = self.id(index);
        let change = |(kind, instance)| AlertChange { rule: rule.clone(), kind, instance };
        effects.changes.extend(changes.into_iter().map(change));
    }

    fn evaluate(
        &mut self,
        moment: &Moment<'_>,
        changes: &mut Changes,
        annotations: &mut Annotations,
    ) -> Result<Vec<RuleSample>, String> {
        let at_ms = moment.at_ms - moment.offset_ms;
        // Nothing has changed yet, and the other rules have to be judged and told of.
        let query = AssertUnwindSafe(|| moment.evaluator.instant(&self.rule.query.expr, at_ms));
        let answer = catch_unwind(query).unwrap_or_else(|_| Err(EvalError::new(PANICKED)));
        let (value, notes) = answer.map_err(|error| error.message)?;
        annotations.merge(notes);
        let vector = vector_of(value)?;
        match (&self.rule.kind, &mut self.alerts) {
            (RuleKind::Alerting(fields), Some(alerts)) => {
                alerts.evaluate(&self.rule, fields, &vector, moment, changes)
            }
            _ => recording::evaluate(&self.rule, vector, moment),
        }
    }

    /// Notes what is to be told to receivers. A change of the same step carries the time of the
    /// telling, so that both are one record.
    fn tell(
        &mut self,
        index: usize,
        moment: &Moment<'_>,
        interval_ms: i64,
        failed: bool,
        changes: &mut Changes,
        effects: &mut Effects,
    ) {
        let rule = self.id(index);
        let Some(alerts) = &mut self.alerts else { return };
        let generator_url =
            || format!("{}{}", moment.settings.external_url, table_link(&self.rule.query.text));
        let places: HashMap<Labels, usize> =
            changes.iter().enumerate().map(|(i, (_, changed))| (changed.labels.clone(), i)).collect();
        for alert in alerts.due(moment, interval_ms, failed) {
            effects.notifications.push(Notification {
                rule: rule.clone(),
                labels: alert.labels.clone(),
                annotations: alert.annotations.clone(),
                starts_at_ms: alert.fired_at_ms.unwrap_or(alert.active_at_ms),
                ends_at_ms: alert.resolved_at_ms.or(alert.valid_until_ms).unwrap_or(moment.at_ms),
                state: alert.state,
                generator_url: generator_url(),
            });
            match places.get(&alert.labels) {
                Some(place) => changes[*place].1 = alert,
                None => changes.push((ChangeKind::Sent, alert)),
            }
        }
    }

    /// Gives the samples to the store, and ends the series that were given before and are not now.
    fn store(
        &mut self,
        samples: Vec<RuleSample>,
        moment: &Moment<'_>,
        append: Append<'_>,
        effects: &mut Effects,
    ) -> Result<(), String> {
        let given: HashSet<Labels> = samples.iter().map(|sample| sample.labels.clone()).collect();
        let mut gone: Vec<&Labels> = self.previous.difference(&given).collect();
        gone.sort();
        let markers = stale(gone.into_iter(), moment.at_ms - moment.offset_ms);
        let count = (samples.len() + markers.len()) as u64;
        if !samples.is_empty() {
            append(&samples)?;
        }
        if !markers.is_empty() {
            // A refusal is no mistake: another rule gives the series now.
            let _ = append(&markers);
        }
        effects.samples += count;
        self.previous = given;
        Ok(())
    }

    /// Takes alerts with the series that showed them.
    pub(crate) fn take_alerts(&mut self, instances: impl IntoIterator<Item = AlertInstance>) {
        let Some(alerts) = &mut self.alerts else { return };
        alerts.adopt(instances);
        self.previous.extend(alerts.standing().flat_map(|alert| series(&self.rule, alert)));
    }

    pub(crate) fn succeed(&mut self, old: RunningRule) {
        if let (Some(alerts), Some(former)) = (&mut self.alerts, old.alerts) {
            alerts.adopt(former.into_instances());
        }
        self.previous = old.previous;
        self.health = old.health;
        self.last_error = old.last_error;
        self.evaluation_ns = old.evaluation_ns;
        self.last_ms = old.last_ms;
    }

    /// What it leaves behind.
    pub(crate) fn retire(self, index: usize) -> Retired {
        let (id, key) = (self.id(index), self.key());
        let instances = self.alerts.into_iter().flat_map(Alerts::into_instances);
        let alerts = instances.map(|instance| (id.clone(), instance)).collect();
        let mut series: Vec<Labels> = self.previous.into_iter().collect();
        series.sort();
        Retired { key, alerts, series }
    }

    pub(crate) fn status(&self) -> RuleStatus {
        let alerting = match (&self.rule.kind, &self.alerts) {
            (RuleKind::Alerting(fields), Some(alerts)) => {
                let alerts: Vec<AlertStatus> = alerts.standing().map(alert_status).collect();
                Some(AlertingStatus {
                    state: alerts.iter().map(|alert| alert.state).max().unwrap_or(AlertState::Inactive),
                    for_ms: fields.for_ms,
                    keep_firing_for_ms: fields.keep_firing_for_ms,
                    annotations: fields.annotations.clone(),
                    alerts,
                })
            }
            _ => None,
        };
        RuleStatus {
            name: self.rule.name().to_owned(),
            query: self.rule.query.text.clone(),
            labels: self.rule.label_set(),
            health: self.health,
            last_error: self.last_error.clone(),
            evaluation_ns: self.evaluation_ns,
            last_evaluation_ms: self.last_ms,
            alerting,
        }
    }
}

fn alert_status(alert: &AlertInstance) -> AlertStatus {
    AlertStatus {
        labels: alert.labels.clone(),
        annotations: alert.annotations.clone(),
        state: alert.state,
        active_at_ms: alert.active_at_ms,
        keep_firing_since_ms: alert.keep_firing_since_ms,
        value: alert.value,
    }
}

pub(crate) fn stale<'l>(series: impl Iterator<Item = &'l Labels>, timestamp: i64) -> Vec<RuleSample> {
    let marker = |labels: &Labels| RuleSample {
        labels: labels.clone(),
        timestamp,
        value: SampleValue::Float(STALE_NAN),
    };
    series.map(marker).collect()
}
