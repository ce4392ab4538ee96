//! What all records together say.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::PathBuf;

use bytes::Bytes;
use tidewatch_wal::Damage;

use crate::record::{Alert, AlertKey, Gap, GroupKey, Key, Record};

/// How many gaps are remembered; the oldest are dropped. One group that misses evaluations in
/// a thousand different stretches has a story that its series tell better.
pub const GAPS_MAX: usize = 1_000;

/// The whole content of a journal as plain values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalState {
    pub alerts: BTreeMap<AlertKey, Alert>,
    /// When each group was last evaluated.
    pub groups: BTreeMap<GroupKey, i64>,
    pub gaps: BTreeSet<Gap>,
    pub silences: BTreeMap<String, Bytes>,
    pub outbox: BTreeMap<u64, Bytes>,
    /// What was wrong with the files when the journal was opened.
    pub findings: Findings,
}

/// What a start has to tell about the journal's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Records that are lost.
    pub damage: Vec<Damage>,
    /// A write that was under way at the last end, and never acknowledged.
    pub torn: Option<Damage>,
    /// Files that are not the journal's.
    pub foreign: Vec<PathBuf>,
}

/// The last record of each key, and of gaps the newest.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    records: BTreeMap<Key, Record>,
    gap_count: usize,
}

impl Latest {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn insert(&mut self, key: Key, record: Record) {
        let is_gap = matches!(record, Record::Gap(_));
        let is_new = self.records.insert(key, record).is_none();
        if is_gap && is_new {
            self.gap_count += 1;
            self.limit_gaps();
        }
    }

    /// Of gaps none is removed.
    pub(crate) fn remove(&mut self, key: &Key) {
        self.records.remove(key);
    }

    pub(crate) fn into_records(self) -> impl DoubleEndedIterator<Item = Record> {
        self.records.into_values()
    }

    fn limit_gaps(&mut self) {
        while self.gap_count > GAPS_MAX {
            let least = Key::Gap(Gap { from_ms: i64::MIN, to_ms: i64::MIN, ..Gap::default() });
            let oldest = self.records.range(least..).next().map(|(key, _)| key.clone());
            self.records.remove(&oldest.expect("there are gaps, and gaps are counted"));
            self.gap_count -= 1;
        }
    }
}

/// The last record of each key that was not removed.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    latest: Latest,
}

impl Mirror {
    pub(crate) fn apply(&mut self, record: Record) {
        let key = record.key();
        if record.is_removal() {
            self.latest.remove(&key);
        } else {
            self.latest.insert(key, record);
        }
    }

    pub(crate) fn has(&self, key: &Key) -> bool {
        self.latest.records.contains_key(key)
    }

    /// Records behind the key `after`, ascending; all of them without one.
    pub(crate) fn records_after(&self, after: Option<&Key>) -> impl Iterator<Item = (&Key, &Record)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.latest.records.range((start, Bound::Unbounded))
    }

    pub(crate) fn to_state(&self, findings: Findings) -> JournalState {
        let mut state = JournalState { findings, ..JournalState::default() };
        for record in self.latest.records.values().cloned() {
            match record {
                Record::Alert(key, alert) => drop(state.alerts.insert(key, alert)),
                Record::GroupEvaluated { group, at_ms } => drop(state.groups.insert(group, at_ms)),
                Record::Gap(gap) => drop(state.gaps.insert(gap)),
                Record::Silence { id, bytes } => drop(state.silences.insert(id, bytes)),
                Record::OutboxPut { id, bytes } => drop(state.outbox.insert(id, bytes)),
                Record::AlertForgotten(_)
                | Record::GroupForgotten(_)
                | Record::SilenceRemoved { .. }
                | Record::OutboxRemoved { .. } => unreachable!("removals are not kept"),
            }
        }
        state
    }
}
