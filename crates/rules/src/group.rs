//! A running group: when it is due, and what an evaluation does.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidewatch_model::{Annotations, Labels, STALE_NAN, SampleValue};
use tidewatch_parser::ParserOptions;
use xxhash_rust::xxh3::xxh3_64;

use crate::alert::{AlertInstance, AlertState};
use crate::alerting::{Alerts, Changes, Moment, series, vector_of};
use crate::definition::{Rule, RuleGroup, RuleKind};
use crate::effects::{
    AlertChange, Append, ChangeKind, Effects, Evaluator, Gap, Notification, RuleFailure, RuleId, RuleSample,
};
use crate::recording;
use crate::status::{AlertStatus, AlertingStatus, GroupStatus, Health, RuleStatus};
use crate::template::table_link;

/// When a process slept for longer than this, what instant selectors find at its return says
/// nothing: they look no further back.
const LOOKBACK_MS: i64 = 5 * 60 * 1000;

/// For how long, at least, new samples may come in after such a sleep before rules judge them.
const RETURN_GRACE_MS: i64 = 60_000;

/// What all groups of a server share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For groups that set none.
    pub interval_ms: i64,
    pub query_offset_ms: i64,
    /// An alert that stands is told again after this time.
    pub resend_delay_ms: i64,
    /// More is an error of the rule.
    pub alerts_per_rule: usize,
    /// For templates; notifications get them from `notify`.
    pub external_labels: Labels,
    pub external_url: String,
    /// The language of queries within templates.
    pub parser: ParserOptions,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            interval_ms: 60_000,
            query_offset_ms: 0,
            resend_delay_ms: 60_000,
            alerts_per_rule: tidewatch_model::Limits::default().alerts_per_rule,
            external_labels: Labels::empty(),
            external_url: String::new(),
            parser: ParserOptions::stable(),
        }
    }
}

/// A group with the state of its rules.
///
/// It is due at times that have the same remainder by its interval; the remainder comes from its
/// file and name, so that groups do not all run at once and keep their times over a restart.
#[derive(Debug)]
pub struct Group {
    file: String,
    definition: RuleGroup,
    settings: Arc<Settings>,
    rules: Vec<RunningRule>,
    /// The next evaluation.
    next_ms: i64,
    /// Restored, and not stepped since.
    returning: bool,
    /// No evaluation before this time, after a long sleep.
    hold_ms: i64,
    last_ms: Option<i64>,
    evaluation_ns: u64,
    missed: u64,
    /// Series of rules that are no more; they end with the next evaluation.
    ended: Vec<Labels>,
}

#[derive(Debug)]
struct RunningRule {
    rule: Rule,
    /// Present exactly for an alerting rule.
    alerts: Option<Alerts>,
    /// Series that the last evaluation gave, so that those it gives no more can be ended.
    previous: HashSet<Labels>,
    health: Health,
    last_error: Option<String>,
    evaluation_ns: u64,
    last_ms: Option<i64>,
}

impl Group {
    /// A group that has never been evaluated; the first time is after `now_ms`.
    pub fn new(file: &str, definition: RuleGroup, settings: Arc<Settings>, now_ms: i64) -> Group {
        let rules = definition.rules.iter().cloned().map(RunningRule::new).collect();
        let mut group = Group {
            file: file.to_owned(),
            definition,
            settings,
            rules,
            next_ms: 0,
            returning: false,
            hold_ms: i64::MIN,
            last_ms: None,
            evaluation_ns: 0,
            missed: 0,
            ended: Vec::new(),
        };
        group.next_ms = group.slot_after(now_ms);
        group
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn name(&self) -> &str {
        &self.definition.name
    }

    pub fn interval_ms(&self) -> i64 {
        self.definition.interval_ms.unwrap_or(self.settings.interval_ms).max(1)
    }

    fn query_offset_ms(&self) -> i64 {
        self.definition.query_offset_ms.unwrap_or(self.settings.query_offset_ms)
    }

    /// When the group is to be evaluated next.
    pub fn next_due_ms(&self) -> i64 {
        self.next_ms.max(self.hold_ms)
    }

    /// The first time after `after_ms` at which the group is due.
    fn slot_after(&self, after_ms: i64) -> i64 {
        let interval_ms = self.interval_ms();
        let identity = format!("{}\0{}", self.file, self.definition.name);
        let phase_ms = (xxh3_64(identity.as_bytes()) % interval_ms as u64) as i64;
        let since_slot_ms = (after_ms - phase_ms).rem_euclid(interval_ms);
        after_ms - since_slot_ms + interval_ms
    }

    /// Evaluates the group if it is due at `now_ms`; nothing otherwise. Of several evaluations that
    /// are due only the last is done and the others are a gap: rules on old data would answer as of
    /// then, and their alerts would tell of the past.
    pub fn step(&mut self, now_ms: i64, evaluator: &dyn Evaluator, append: Append<'_>) -> Option<Effects> {
        let interval_ms = self.interval_ms();
        self.hold_after_sleep(now_ms);
        if self.next_ms - now_ms > interval_ms {
            // The clock was set back: go on from where it is now.
            self.next_ms = self.slot_after(now_ms);
            self.hold_ms = i64::MIN;
        }
        if now_ms < self.next_due_ms() {
            return None;
        }
        let skipped = (now_ms - self.next_ms) / interval_ms;
        let at_ms = self.next_ms + skipped * interval_ms;
        let gap = (skipped > 0).then(|| Gap {
            from_ms: self.next_ms,
            to_ms: at_ms - interval_ms,
            evaluations: skipped as u64,
        });
        let mut effects = self.evaluate(at_ms, evaluator, append);
        self.missed += skipped as u64;
        self.next_ms = at_ms + interval_ms;
        effects.gap = gap;
        Some(effects)
    }

    /// After a long sleep no sample is fresh: rules that judged at once would take every alert for
    /// resolved. They wait until samples had the time to come in.
    fn hold_after_sleep(&mut self, now_ms: i64) {
        if !std::mem::take(&mut self.returning) {
            return;
        }
        if self.last_ms.is_some_and(|last_ms| now_ms - last_ms > LOOKBACK_MS) {
            self.hold_ms = now_ms + self.interval_ms().max(RETURN_GRACE_MS);
        }
    }

    /// Evaluates the group as of `at_ms`, due or not.
    pub fn evaluate(&mut self, at_ms: i64, evaluator: &dyn Evaluator, append: Append<'_>) -> Effects {
        let started_ns = evaluator.monotonic_ns();
        let mut effects = Effects { at_ms, ..Effects::default() };
        let interval_ms = self.interval_ms();
        let settings = self.settings.clone();
        let moment = Moment {
            at_ms,
            offset_ms: self.query_offset_ms(),
            limit: self.definition.limit,
            settings: &settings,
            evaluator,
        };
        for (index, rule) in self.rules.iter_mut().enumerate() {
            rule.step(index, &moment, interval_ms, append, &mut effects);
        }
        self.end_series(&moment, append, &mut effects);
        self.evaluation_ns = evaluator.monotonic_ns().saturating_sub(started_ns);
        self.last_ms = Some(at_ms);
        effects
    }

    /// Ends the series of rules that are no more, but for those that another rule gives now.
    fn end_series(&mut self, moment: &Moment<'_>, append: Append<'_>, effects: &mut Effects) {
        let ended: Vec<Labels> = std::mem::take(&mut self.ended)
            .into_iter()
            .filter(|labels| !self.rules.iter().any(|rule| rule.previous.contains(labels)))
            .collect();
        let samples = stale(ended.iter(), moment.at_ms - moment.offset_ms);
        if samples.is_empty() {
            return;
        }
        match append(&samples) {
            Ok(()) => effects.samples += samples.len() as u64,
            Err(_) => self.ended = ended,
        }
    }

    /// Goes on from what a journal kept: `last_ms` is the last evaluation that was recorded. What
    /// was missed since comes out of the next step as a gap. Returns what the journal is to note:
    /// alerts whose rules are no more or stand elsewhere now.
    pub fn restore(
        &mut self,
        last_ms: Option<i64>,
        alerts: impl IntoIterator<Item = (RuleId, AlertInstance)>,
    ) -> Vec<AlertChange> {
        if let Some(last_ms) = last_ms {
            self.last_ms = Some(last_ms);
            self.next_ms = self.slot_after(last_ms);
            self.returning = true;
        }
        let mut changes = Vec::new();
        for (id, instance) in alerts {
            let Some(index) = self.owner_of(&id, &instance) else {
                changes.push(AlertChange { rule: id, kind: ChangeKind::Forgotten, instance });
                continue;
            };
            let rule = &mut self.rules[index];
            changes.extend(moved(&id, &rule.id(index), &instance));
            rule.take_alerts([instance]);
        }
        changes
    }

    /// The rule that an alert belongs to: its name and labels agree, at its place if may be.
    fn owner_of(&self, id: &RuleId, instance: &AlertInstance) -> Option<usize> {
        let owns = |rule: &RunningRule| {
            rule.rule.name() == id.name
                && rule.alerts.as_ref().is_some_and(|alerts| alerts.may_own(&instance.labels))
        };
        match self.rules.get(id.index) {
            Some(rule) if owns(rule) => Some(id.index),
            _ => self.rules.iter().position(owns),
        }
    }

    /// Takes over the state of the group that it replaces: each rule that of the first rule of the
    /// same name and labels that no other has taken. Returns what a journal is to note: alerts whose
    /// rules are no more or stand elsewhere now.
    pub fn succeed(&mut self, old: Group) -> Vec<AlertChange> {
        let mut heirs: HashMap<(String, Labels, bool), Vec<usize>> = HashMap::new();
        for (index, rule) in self.rules.iter().enumerate().rev() {
            heirs.entry(rule.key()).or_default().push(index);
        }
        let old_interval_ms = old.interval_ms();
        self.last_ms = old.last_ms;
        self.missed = old.missed;
        self.evaluation_ns = old.evaluation_ns;
        self.ended = old.ended;
        if old_interval_ms == self.interval_ms() {
            self.next_ms = old.next_ms;
        }
        (self.returning, self.hold_ms) = (old.returning, old.hold_ms);
        let mut changes = Vec::new();
        for (index, rule) in old.rules.into_iter().enumerate() {
            match heirs.get_mut(&rule.key()).and_then(Vec::pop) {
                Some(heir) => {
                    let (from, to) = (rule.id(index), rule.id(heir));
                    let alerts = rule.alerts.iter().flat_map(Alerts::iter);
                    changes.extend(alerts.flat_map(|alert| moved(&from, &to, alert)));
                    self.rules[heir].succeed(rule);
                }
                None => {
                    let (alerts, series) = rule.retire(index);
                    changes.extend(alerts);
                    self.ended.extend(series);
                }
            }
        }
        changes
    }

    /// Ends a group that is no more. Returns its alerts, as forgotten, and the series that are to
    /// be ended (see [`stale_markers`]).
    pub fn retire(self) -> (Vec<AlertChange>, Vec<Labels>) {
        let (mut forgotten, mut series) = (Vec::new(), self.ended);
        for (index, rule) in self.rules.into_iter().enumerate() {
            let (alerts, ended) = rule.retire(index);
            forgotten.extend(alerts);
            series.extend(ended);
        }
        (forgotten, series)
    }

    /// Every alert that is pending, firing or resolved and retained, by rule.
    pub fn alerts(&self) -> impl Iterator<Item = (RuleId, &AlertInstance)> {
        self.rules.iter().enumerate().flat_map(|(index, rule)| {
            let alerts = rule.alerts.iter().flat_map(Alerts::iter);
            alerts.map(move |alert| (rule.id(index), alert))
        })
    }

    pub fn status(&self) -> GroupStatus {
        GroupStatus {
            name: self.definition.name.clone(),
            file: self.file.clone(),
            interval_ms: self.interval_ms(),
            query_offset_ms: self.query_offset_ms(),
            limit: self.definition.limit,
            rules: self.rules.iter().map(RunningRule::status).collect(),
            evaluation_ns: self.evaluation_ns,
            last_evaluation_ms: self.last_ms,
            missed: self.missed,
        }
    }
}

impl RunningRule {
    fn new(rule: Rule) -> RunningRule {
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

    fn id(&self, index: usize) -> RuleId {
        RuleId { name: self.rule.name().to_owned(), index }
    }

    /// What makes a rule the same rule after a reload.
    fn key(&self) -> (String, Labels, bool) {
        (self.rule.name().to_owned(), self.rule.label_set(), self.alerts.is_some())
    }

    fn step(
        &mut self,
        index: usize,
        moment: &Moment<'_>,
        interval_ms: i64,
        append: Append<'_>,
        effects: &mut Effects,
    ) {
        let started_ns = moment.evaluator.monotonic_ns();
        let mut changes = Changes::new();
        let outcome = self.evaluate(moment, &mut changes, &mut effects.annotations);
        let failed = outcome.is_err();
        self.tell(index, moment, interval_ms, failed, &mut changes, effects);
        let outcome = outcome.and_then(|samples| self.store(samples, moment, append, effects));
        self.health = if outcome.is_ok() { Health::Good } else { Health::Bad };
        self.last_error = outcome.err();
        if let Some(message) = &self.last_error {
            effects.failures.push(RuleFailure { rule: self.id(index), message: message.clone() });
        }
        let rule = self.id(index);
        let changes = changes.into_iter();
        effects.changes.extend(changes.map(|(kind, instance)| AlertChange {
            rule: rule.clone(),
            kind,
            instance,
        }));
        self.evaluation_ns = moment.evaluator.monotonic_ns().saturating_sub(started_ns);
        self.last_ms = Some(moment.at_ms);
    }

    fn evaluate(
        &mut self,
        moment: &Moment<'_>,
        changes: &mut Changes,
        annotations: &mut Annotations,
    ) -> Result<Vec<RuleSample>, String> {
        let at_ms = moment.at_ms - moment.offset_ms;
        let answer = moment.evaluator.instant(&self.rule.query.expr, at_ms);
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
    fn take_alerts(&mut self, instances: impl IntoIterator<Item = AlertInstance>) {
        let Some(alerts) = &mut self.alerts else { return };
        alerts.adopt(instances);
        self.previous.extend(alerts.standing().flat_map(|alert| series(&self.rule, alert)));
    }

    fn succeed(&mut self, old: RunningRule) {
        if let (Some(alerts), Some(former)) = (&mut self.alerts, old.alerts) {
            alerts.adopt(former.into_instances());
        }
        self.previous = old.previous;
        self.health = old.health;
        self.last_error = old.last_error;
        self.evaluation_ns = old.evaluation_ns;
        self.last_ms = old.last_ms;
    }

    fn retire(self, index: usize) -> (Vec<AlertChange>, Vec<Labels>) {
        let rule = self.id(index);
        let instances = self.alerts.into_iter().flat_map(Alerts::into_instances);
        let forgotten = |instance| AlertChange { rule: rule.clone(), kind: ChangeKind::Forgotten, instance };
        let mut series: Vec<Labels> = self.previous.into_iter().collect();
        series.sort();
        (instances.map(forgotten).collect(), series)
    }

    fn status(&self) -> RuleStatus {
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

/// What a journal, which knows alerts by their rule's place, is to note when that place changed.
fn moved(from: &RuleId, to: &RuleId, instance: &AlertInstance) -> Vec<AlertChange> {
    if from == to {
        return Vec::new();
    }
    let change = |rule: &RuleId, kind| AlertChange { rule: rule.clone(), kind, instance: instance.clone() };
    vec![change(from, ChangeKind::Forgotten), change(to, ChangeKind::Moved)]
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

fn stale<'l>(series: impl Iterator<Item = &'l Labels>, timestamp: i64) -> Vec<RuleSample> {
    let marker = |labels: &Labels| RuleSample {
        labels: labels.clone(),
        timestamp,
        value: SampleValue::Float(STALE_NAN),
    };
    series.map(marker).collect()
}

/// The samples that end the series of a group that is no more.
pub fn stale_markers(series: &[Labels], at_ms: i64) -> Vec<RuleSample> {
    stale(series.iter(), at_ms)
}
