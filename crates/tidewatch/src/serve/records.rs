//! Alert states as the journal keeps them, and back.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidewatch_journal::{Alert, AlertKey, AlertState as KeptState, Gap, GroupKey, JournalState, Record};
use tidewatch_rules::{AlertChange, AlertInstance, AlertState, ChangeKind, Effects, RuleId};

fn group_key(file: &str, group: &str) -> GroupKey {
    GroupKey { file: file.to_owned(), group: group.to_owned() }
}

/// Everything that one evaluation leaves behind: one frame of the journal.
pub fn of_evaluation(file: &str, group: &str, effects: &Effects) -> Vec<Record> {
    let key = group_key(file, group);
    let mut records = of_changes(file, group, &effects.changes);
    if let Some(gap) = effects.gap {
        let (from_ms, to_ms, evaluations) = (gap.from_ms, gap.to_ms, gap.evaluations);
        records.push(Record::Gap(Gap { from_ms, to_ms, group: key.clone(), evaluations }));
    }
    if effects.evaluated {
        records.push(Record::GroupEvaluated { group: key, at_ms: effects.at_ms });
    }
    records
}

pub fn of_changes(file: &str, group: &str, changes: &[AlertChange]) -> Vec<Record> {
    let record = |change: &AlertChange| {
        let key = AlertKey {
            group: group_key(file, group),
            rule: change.rule.name.clone(),
            rule_index: change.rule.index as u32,
            labels: change.instance.labels.clone(),
        };
        match change.kind {
            ChangeKind::Forgotten => Record::AlertForgotten(key),
            _ => Record::Alert(key, kept(&change.instance)),
        }
    };
    changes.iter().map(record).collect()
}

/// Whether losing the record in a crash would change what people are told. The mark that a group
/// was evaluated would not: without it the next start sees a longer gap.
pub fn must_sync(record: &Record) -> bool {
    !matches!(record, Record::GroupEvaluated { .. } | Record::OutboxRemoved { .. })
}

pub fn outbox_puts(puts: Vec<(u64, Vec<u8>)>) -> impl Iterator<Item = Record> {
    puts.into_iter().map(|(id, bytes)| Record::OutboxPut { id, bytes: Bytes::from(bytes) })
}

pub fn outbox_removals(removals: Vec<u64>) -> impl Iterator<Item = Record> {
    removals.into_iter().map(|id| Record::OutboxRemoved { id })
}

pub fn outbox(state: &JournalState) -> impl Iterator<Item = (u64, Vec<u8>)> {
    state.outbox.iter().map(|(id, bytes)| (*id, bytes.to_vec()))
}

/// When a group was last evaluated.
pub fn last_evaluation(state: &JournalState, file: &str, group: &str) -> Option<i64> {
    state.groups.get(&group_key(file, group)).copied()
}

/// File and name of each group that is known, and when it was last evaluated.
pub fn groups(state: &JournalState) -> impl Iterator<Item = (&str, &str, i64)> {
    state.groups.iter().map(|(key, at_ms)| (key.file.as_str(), key.group.as_str(), *at_ms))
}

pub fn forgotten(file: &str, group: &str) -> Record {
    Record::GroupForgotten(group_key(file, group))
}

/// The last evaluation of any group that is not after `now_ms`, as one is whose clock was ahead.
pub fn newest_evaluation(state: &JournalState, now_ms: i64) -> Option<i64> {
    state.groups.values().copied().filter(|at_ms| *at_ms <= now_ms).max()
}

/// For how long of the time from `since_ms` to `until_ms` groups were evaluated: the longest gap of any is not.
pub fn evaluated_ms(state: &JournalState, since_ms: i64, until_ms: i64) -> i64 {
    let missed_ms = |gap: &Gap| gap.to_ms.min(until_ms) - gap.from_ms.max(since_ms);
    until_ms - since_ms - state.gaps.iter().map(missed_ms).max().unwrap_or(0).max(0)
}

/// Alerts by file and name of their group.
pub fn alerts(state: &JournalState) -> BTreeMap<(String, String), Vec<(RuleId, AlertInstance)>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (key, alert) in &state.alerts {
        let id = RuleId { name: key.rule.clone(), index: key.rule_index as usize };
        let group = (key.group.file.clone(), key.group.group.clone());
        groups.entry(group).or_default().push((id, instance(key, alert)));
    }
    groups
}

fn kept(instance: &AlertInstance) -> Alert {
    Alert {
        state: match instance.state {
            AlertState::Inactive => KeptState::Inactive,
            AlertState::Pending => KeptState::Pending,
            AlertState::Firing => KeptState::Firing,
        },
        value: instance.value,
        active_at_ms: instance.active_at_ms,
        fired_at_ms: instance.fired_at_ms,
        resolved_at_ms: instance.resolved_at_ms,
        keep_firing_since_ms: instance.keep_firing_since_ms,
        last_sent_at_ms: instance.last_sent_at_ms,
        valid_until_ms: instance.valid_until_ms,
        annotations: instance.annotations.clone(),
    }
}

fn instance(key: &AlertKey, alert: &Alert) -> AlertInstance {
    AlertInstance {
        labels: key.labels.clone(),
        annotations: alert.annotations.clone(),
        state: match alert.state {
            KeptState::Inactive => AlertState::Inactive,
            KeptState::Pending => AlertState::Pending,
            KeptState::Firing => AlertState::Firing,
        },
        value: alert.value,
        active_at_ms: alert.active_at_ms,
        fired_at_ms: alert.fired_at_ms,
        resolved_at_ms: alert.resolved_at_ms,
        keep_firing_since_ms: alert.keep_firing_since_ms,
        last_sent_at_ms: alert.last_sent_at_ms,
        valid_until_ms: alert.valid_until_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewatch_model::Labels;

    #[test]
    fn an_alert_comes_back_from_the_journal_as_it_went() {
        let instance = AlertInstance {
            labels: Labels::from_pairs([("alertname", "Down"), ("job", "api")]),
            annotations: BTreeMap::from([("summary".to_owned(), "down".to_owned())]),
            state: AlertState::Firing,
            value: 0.5,
            active_at_ms: 1,
            fired_at_ms: Some(2),
            resolved_at_ms: None,
            keep_firing_since_ms: Some(3),
            last_sent_at_ms: Some(4),
            valid_until_ms: Some(5),
        };
        let rule = RuleId { name: "Down".to_owned(), index: 7 };
        let change = AlertChange { rule: rule.clone(), kind: ChangeKind::Firing, instance: instance.clone() };
        let mut state = JournalState::default();
        for record in of_changes("f.yml", "g", &[change]) {
            let Record::Alert(key, alert) = record else { panic!("an alert") };
            state.alerts.insert(key, alert);
        }
        let back = alerts(&state);
        assert_eq!(back[&("f.yml".to_owned(), "g".to_owned())], [(rule, instance)]);
    }
}
