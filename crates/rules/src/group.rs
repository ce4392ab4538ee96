//! A running group: when it is due, and what an evaluation does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use tidewatch_model::Labels;
use tidewatch_parser::ParserOptions;
use xxhash_rust::xxh3::xxh3_64;

use crate::alert::AlertInstance;
use crate::alerting::{Alerts, Moment};
use crate::definition::{Rule, RuleGroup};
use crate::effects::{AlertChange, Append, ChangeKind, Effects, Evaluator, Gap, RuleId, RuleSample};
use crate::patience::{Patience, Wait};
use crate::running::{Retired, RuleKey, RunningRule, stale};
use crate::status::GroupStatus;

/// What all groups of a server share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For groups that set none.
    pub interval_ms: i64,
    pub query_offset_ms: i64,
    /// How far back an instant selector looks.
    pub lookback_ms: i64,
    /// How long it takes until each series has new samples, two of them, once senders are back.
    pub refill_ms: i64,
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
            lookback_ms: 5 * 60_000,
            refill_ms: 30_000,
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
    pub(crate) patience: Patience,
    pub(crate) wait: Wait,
    last_ms: Option<i64>,
    evaluation_ns: u64,
    missed: u64,
    /// Series of rules that are no more; they end with the next evaluation.
    pub(crate) ended: Vec<Labels>,
}

impl Group {
    /// A group that has never been evaluated; the first time is after `now_ms`.
    pub fn new(file: &str, definition: RuleGroup, settings: Arc<Settings>, now_ms: i64) -> Group {
        let rules = definition.rules.iter().cloned().map(RunningRule::new).collect();
        let patience = Patience::of(&definition, &settings);
        let mut group = Group {
            file: file.to_owned(),
            definition,
            settings,
            rules,
            next_ms: 0,
            patience,
            wait: Wait::default(),
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
        self.next_ms.max(self.wait.hold_ms(&self.patience).unwrap_or(i64::MIN))
    }

    /// The first time after `after_ms` at which the group is due.
    pub(crate) fn slot_after(&self, after_ms: i64) -> i64 {
        let interval_ms = self.interval_ms();
        let identity = format!("{}\0{}", self.file, self.definition.name);
        let phase_ms = (xxh3_64(identity.as_bytes()) % interval_ms as u64) as i64;
        let since_slot_ms = (after_ms - phase_ms).rem_euclid(interval_ms);
        after_ms - since_slot_ms + interval_ms
    }

    /// Evaluates the group if it is due at `now_ms`; nothing otherwise, but that a group which waits
    /// after a sleep goes on telling of what fires, so that no receiver takes silence for an end. Of
    /// several evaluations that are due only the last is done and the others are a gap: rules on old
    /// data would answer as of then, and their alerts would tell of the past.
    pub fn step(&mut self, now_ms: i64, evaluator: &dyn Evaluator, append: Append<'_>) -> Option<Effects> {
        let interval_ms = self.interval_ms();
        self.woke(now_ms);
        if self.next_ms - now_ms > interval_ms {
            // The clock was set back: go on from where it is now.
            self.next_ms = self.slot_after(now_ms);
            self.wait.clock_went_back();
        }
        // It was set forward for a while, and the group waits until then.
        self.wait.not_after(now_ms);
        if self.waits_until_ms(now_ms).is_some() {
            return self.remind(now_ms, evaluator);
        }
        let hold_ms = self.wait.hold_ms(&self.patience);
        if now_ms < self.next_ms {
            return None;
        }
        let skipped = (now_ms - self.next_ms) / interval_ms;
        let slot_ms = self.next_ms + skipped * interval_ms;
        // A slot within the wait is missed, too: what it would look at had not come back.
        let at_ms = slot_ms.max(hold_ms.unwrap_or(i64::MIN));
        let missed = if at_ms > slot_ms { skipped + 1 } else { skipped };
        let gap = (missed > 0).then(|| Gap {
            from_ms: self.next_ms,
            to_ms: self.next_ms + (missed - 1) * interval_ms,
            evaluations: missed as u64,
        });
        // First of all: an evaluation that panics is not to be done again at once, and for ever.
        self.next_ms = slot_ms + interval_ms;
        self.missed += missed as u64;
        let mut effects = self.evaluate(at_ms, evaluator, append);
        effects.gap = gap;
        Some(effects)
    }

    /// Hears that the process did nothing from `since_ms` until `now_ms`: it was stopped, or did not
    /// run. Where what was stored before does not last until there is more, rules judge later.
    pub fn slept(&mut self, since_ms: i64, now_ms: i64) {
        self.wait.slept(since_ms, now_ms, &self.patience);
    }

    /// Hears since when the process is awake that goes on from a journal: no later than its first step, and
    /// of all groups the same time, as those that read each other have to judge the sleep alike.
    pub fn woke(&mut self, now_ms: i64) {
        if let Some(since_ms) = self.wait.asleep_since_ms.take() {
            self.slept(since_ms, now_ms);
        }
    }

    /// Until when it waits for samples to come back, if it does.
    pub fn waits_until_ms(&self, now_ms: i64) -> Option<i64> {
        self.wait.hold_ms(&self.patience).filter(|hold_ms| now_ms < *hold_ms)
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.definition.rules
    }

    /// Tells again of alerts that fire, without looking whether they still do.
    fn remind(&mut self, now_ms: i64, evaluator: &dyn Evaluator) -> Option<Effects> {
        let mut effects = Effects { at_ms: now_ms, ..Effects::default() };
        let (interval_ms, settings) = (self.interval_ms(), self.settings.clone());
        let moment = Moment { at_ms: now_ms, offset_ms: 0, limit: 0, settings: &settings, evaluator };
        for (index, rule) in self.rules.iter_mut().enumerate() {
            rule.remind(index, &moment, interval_ms, &mut effects);
        }
        (!effects.changes.is_empty()).then_some(effects)
    }

    /// Evaluates the group as of `at_ms`, due or not.
    pub fn evaluate(&mut self, at_ms: i64, evaluator: &dyn Evaluator, append: Append<'_>) -> Effects {
        let started_ns = evaluator.monotonic_ns();
        let mut effects = Effects { at_ms, evaluated: true, ..Effects::default() };
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
        let ended: Vec<Labels> =
            std::mem::take(&mut self.ended).into_iter().filter(|labels| !self.gives(labels)).collect();
        let samples = stale(ended.iter(), moment.at_ms - moment.offset_ms);
        if samples.is_empty() {
            return;
        }
        match append(&samples) {
            Ok(()) => effects.samples += samples.len() as u64,
            Err(_) => self.ended = ended,
        }
    }

    /// Goes on from what a journal kept: `last_ms` is the group's last evaluation that was recorded, and
    /// `awake_ms` until when samples came (`awake_until_ms`). What was missed since comes out of the next
    /// step as a gap. Takes those of `alerts` that its rules own, and returns what the journal
    /// is to note: alerts whose rules stand elsewhere now.
    pub fn restore(
        &mut self,
        last_ms: Option<i64>,
        awake_ms: Option<i64>,
        alerts: &mut Vec<(RuleId, AlertInstance)>,
    ) -> Vec<AlertChange> {
        if let Some(last_ms) = last_ms {
            self.last_ms = Some(last_ms);
            self.next_ms = self.slot_after(last_ms);
        }
        self.wait.asleep_since_ms = awake_ms;
        self.take_owned(alerts, moved)
    }

    /// Takes over alerts of a group that does not have them any more, as far as rules of this group
    /// own them. Returns what the journal is to note of this group.
    pub(crate) fn take_in(&mut self, alerts: &mut Vec<(RuleId, AlertInstance)>) -> Vec<AlertChange> {
        self.take_owned(alerts, |_, to, instance| vec![note(to, ChangeKind::Moved, instance)])
    }

    /// Whether it was never evaluated, as far as it knows.
    pub(crate) fn is_new(&self) -> bool {
        self.last_ms.is_none()
    }

    /// Moves alerts to the rules that own them; an alert that a rule has already stays as it is.
    fn take_owned(
        &mut self,
        alerts: &mut Vec<(RuleId, AlertInstance)>,
        notes: impl Fn(&RuleId, &RuleId, &AlertInstance) -> Vec<AlertChange>,
    ) -> Vec<AlertChange> {
        let (mut changes, mut owned) = (Vec::new(), BTreeMap::<usize, Vec<AlertInstance>>::new());
        alerts.retain(|(id, instance)| {
            let Some(index) = self.owner_of(id, instance) else { return true };
            let rule = &self.rules[index];
            if !rule.alerts.as_ref().is_some_and(|alerts| alerts.has(&instance.labels)) {
                changes.extend(notes(id, &rule.id(index), instance));
                owned.entry(index).or_default().push(instance.clone());
            }
            false
        });
        owned.into_iter().for_each(|(index, alerts)| self.rules[index].take_alerts(alerts));
        changes
    }

    /// Whether one of its rules gave the series last, or shows an alert with it.
    pub fn gives(&self, series: &Labels) -> bool {
        self.rules.iter().any(|rule| rule.previous.contains(series))
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
    /// same name and labels that no other has taken. Returns what a journal is to note, alerts whose
    /// rules stand elsewhere now, and what rules leave behind that are no more.
    pub(crate) fn succeed(&mut self, old: Group) -> (Vec<AlertChange>, Vec<Retired>) {
        let mut heirs: HashMap<RuleKey, Vec<usize>> = HashMap::new();
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
        self.wait = old.wait;
        let (mut changes, mut retired) = (Vec::new(), Vec::new());
        for (index, rule) in old.rules.into_iter().enumerate() {
            match heirs.get_mut(&rule.key()).and_then(Vec::pop) {
                Some(heir) => {
                    let (from, to) = (rule.id(index), rule.id(heir));
                    let alerts = rule.alerts.iter().flat_map(Alerts::iter);
                    changes.extend(alerts.flat_map(|alert| moved(&from, &to, alert)));
                    self.rules[heir].succeed(rule);
                }
                None => retired.push(rule.retire(index)),
            }
        }
        (changes, retired)
    }

    /// Ends a group that is no more. Returns what its rules leave behind, and the series that were to
    /// be ended already.
    pub(crate) fn retire(self) -> (Vec<Retired>, Vec<Labels>) {
        let retired = self.rules.into_iter().enumerate().map(|(index, rule)| rule.retire(index));
        (retired.collect(), self.ended)
    }

    /// Its recording rules by their places.
    pub(crate) fn recording_rules(&self) -> impl Iterator<Item = (usize, RuleKey)> {
        let rules = self.rules.iter().enumerate().filter(|(_, rule)| rule.alerts.is_none());
        rules.map(|(index, rule)| (index, rule.key()))
    }

    /// The series that the rule at a place gave last, to go on with or to end.
    pub(crate) fn given_by(&mut self, index: usize) -> &mut HashSet<Labels> {
        &mut self.rules[index].previous
    }

    /// All series that its rules gave last.
    pub(crate) fn given(&self) -> impl Iterator<Item = &Labels> {
        self.rules.iter().flat_map(|rule| &rule.previous)
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

/// What a journal, which knows alerts by their rule's place, is to note when that place changed.
fn moved(from: &RuleId, to: &RuleId, instance: &AlertInstance) -> Vec<AlertChange> {
    if from == to {
        return Vec::new();
    }
    vec![note(from, ChangeKind::Forgotten, instance), note(to, ChangeKind::Moved, instance)]
}

fn note(rule: &RuleId, kind: ChangeKind, instance: &AlertInstance) -> AlertChange {
    AlertChange { rule: rule.clone(), kind, instance: instance.clone() }
}

/// The samples that end the series of a group that is no more.
pub fn stale_markers(series: &[Labels], at_ms: i64) -> Vec<RuleSample> {
    stale(series.iter(), at_ms)
}
