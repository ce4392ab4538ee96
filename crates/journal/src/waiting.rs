//! Records for which the log had no room.

use crate::journal::Journal;
use crate::record::Record;
use crate::state::Latest;

/// What is to be appended when there is room again: of each key the last record, so that it does not grow
/// with time.
#[derive(Debug, Default)]
pub struct Waiting {
    latest: Latest,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.latest.is_empty()
    }

    /// Takes what `journal` did not.
    pub fn add(&mut self, records: impl IntoIterator<Item = Record>, journal: &Journal) {
        for record in records {
            let key = record.key();
            // What came and went meanwhile was never in the log.
            if record.is_removal() && !journal.knows(&key) {
                self.latest.remove(&key);
            } else {
                self.latest.insert(key, record);
            }
        }
    }

    /// All that waits, the outbox before the alerts that it tells of: after a crash between them an alert is
    /// told twice rather than never.
    pub fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.latest).into_records().rev().collect()
    }
}
