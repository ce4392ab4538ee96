//! Records for which the log had no room.

use std::collections::BTreeMap;

use crate::record::{Key, Record};

/// What is to be appended when there is room again: of each key the last record, so that it does not grow
/// with time.
#[derive(Debug, Default)]
pub struct Waiting {
    records: BTreeMap<Key, Record>,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn add(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            let key = record.key();
            // An entry of the outbox has its number for itself: the log has not heard of it.
            if matches!(record, Record::OutboxRemoved { .. }) && self.records.remove(&key).is_some() {
                continue;
            }
            self.records.insert(key, record);
        }
    }

    /// All that waits, the outbox before the alerts that it tells of: after a crash between them an alert is
    /// told twice rather than never.
    pub fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records).into_values().rev().collect()
    }
}
