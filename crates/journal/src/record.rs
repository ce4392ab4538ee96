//! What the journal remembers: plain values under keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidewatch_model::Labels;

/// A group of rules by the file that defines it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GroupKey {
    pub file: String,
    pub group: String,
}

/// One alert: a rule of a group and the labels that tell its alerts apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertKey {
    pub group: GroupKey,
    pub rule: String,
    /// Place of the rule in its group, as two rules may have one name.
    pub rule_index: u32,
    pub labels: Labels,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertState {
    /// Resolved, and kept for a while to be told so.
    Inactive,
    Pending,
    Firing,
}

/// All that is known of an alert. Equality is of bits, so that a NaN equals itself.
#[derive(Debug, Clone)]
pub struct Alert {
    pub state: AlertState,
    pub value: f64,
    pub active_at_ms: i64,
    pub fired_at_ms: Option<i64>,
    pub resolved_at_ms: Option<i64>,
    pub keep_firing_since_ms: Option<i64>,
    pub last_sent_at_ms: Option<i64>,
    pub valid_until_ms: Option<i64>,
    pub annotations: BTreeMap<String, String>,
}

impl Alert {
    /// The optional times in the order in which they are written.
    pub(crate) fn times(&self) -> [Option<i64>; 5] {
        [
            self.fired_at_ms,
            self.resolved_at_ms,
            self.keep_firing_since_ms,
            self.last_sent_at_ms,
            self.valid_until_ms,
        ]
    }
}

impl PartialEq for Alert {
    fn eq(&self, other: &Alert) -> bool {
        self.state == other.state
            && self.value.to_bits() == other.value.to_bits()
            && self.active_at_ms == other.active_at_ms
            && self.times() == other.times()
            && self.annotations == other.annotations
    }
}

impl Eq for Alert {}

/// A stretch of time in which a group should have been evaluated and was not. Ordered by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Gap {
    /// The first evaluation that was missed, and the last.
    pub from_ms: i64,
    pub to_ms: i64,
    pub group: GroupKey,
    pub evaluations: u64,
}

/// One entry of the journal: what is from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Alert(AlertKey, Alert),
    AlertForgotten(AlertKey),
    GroupEvaluated {
        group: GroupKey,
        at_ms: i64,
    },
    GroupForgotten(GroupKey),
    Gap(Gap),
    /// A silence by its id; the bytes are its owner's.
    Silence {
        id: String,
        bytes: Bytes,
    },
    SilenceRemoved {
        id: String,
    },
    /// A notification that waits to be delivered; the bytes are its owner's.
    OutboxPut {
        id: u64,
        bytes: Bytes,
    },
    OutboxRemoved {
        id: u64,
    },
}

/// What a record is about. Of two records with one key only the later counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Group(GroupKey),
    Alert(AlertKey),
    Gap(Gap),
    Silence(String),
    Outbox(u64),
}

impl Record {
    pub(crate) fn key(&self) -> Key {
        match self {
            Record::Alert(key, _) | Record::AlertForgotten(key) => Key::Alert(key.clone()),
            Record::GroupEvaluated { group, .. } | Record::GroupForgotten(group) => Key::Group(group.clone()),
            Record::Gap(gap) => Key::Gap(gap.clone()),
            Record::Silence { id, .. } | Record::SilenceRemoved { id } => Key::Silence(id.clone()),
            Record::OutboxPut { id, .. } | Record::OutboxRemoved { id } => Key::Outbox(*id),
        }
    }

    /// Whether the record says that its key is no more.
    pub(crate) fn is_removal(&self) -> bool {
        match self {
            Record::AlertForgotten(_)
            | Record::GroupForgotten(_)
            | Record::SilenceRemoved { .. }
            | Record::OutboxRemoved { .. } => true,
            Record::Alert(..)
            | Record::GroupEvaluated { .. }
            | Record::Gap(_)
            | Record::Silence { .. }
            | Record::OutboxPut { .. } => false,
        }
    }
}
