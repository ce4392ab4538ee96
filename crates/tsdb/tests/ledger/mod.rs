//! A ledger of what was sent to a database and what it acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use tidewatch_model::{Batch, Labels, RawLabels, Sample};
use tidewatch_storage::{Append, Ticket};
use tidewatch_tsdb::Db;

use crate::support::Contents;

/// Series and time, and the bits of the value.
type Entry = ((String, i64), u64);

/// What one server was sent and what it acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Every value that was ever offered for a series and time.
    sent: BTreeMap<(String, i64), BTreeSet<u64>>,
    acknowledged: Contents,
    /// Accepted, with the ticket that its acknowledgement waits for.
    waiting: Vec<(Ticket, Vec<Entry>)>,
}

impl Ledger {
    /// Sends samples, one series each, as one batch; notes what the database accepts.
    pub fn append(&mut self, db: &Db, samples: &[(&Labels, Sample)]) -> bool {
        let mut batch = Batch::new();
        for (labels, sample) in samples {
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[*sample]);
            let values = self.sent.entry((labels.to_string(), sample.timestamp)).or_default();
            values.insert(sample.value.to_bits());
        }
        let Ok(outcome) = db.append(&batch) else { return false };
        assert_eq!(outcome.refused, [], "the workload sends what can be taken");
        let key = |(labels, sample): &(&Labels, Sample)| {
            ((labels.to_string(), sample.timestamp), sample.value.to_bits())
        };
        self.waiting.push((outcome.ticket, samples.iter().map(key).collect()));
        true
    }

    /// Commits, and counts as acknowledged what the database says is durable.
    pub fn commit(&mut self, db: &Db) -> bool {
        let committed = db.commit().is_ok();
        let durable = db.durable();
        let (done, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(ticket, _)| *ticket <= durable);
        self.waiting = waiting;
        for (_, samples) in done {
            self.acknowledged.extend(samples);
        }
        committed
    }

    /// The process is gone, and with it whoever waited for an acknowledgement.
    pub fn restart(&mut self) {
        self.waiting.clear();
    }

    /// acknowledged ⊆ read ⊆ sent, bit by bit.
    #[track_caller]
    pub fn check(&self, read: &Contents, context: &str) {
        self.check_since(i64::MIN, read, context);
    }

    /// The same where samples before `since_ms` are past retention and may be gone.
    #[track_caller]
    pub fn check_since(&self, since_ms: i64, read: &Contents, context: &str) {
        for (key, bits) in self.acknowledged.iter().filter(|((_, timestamp), _)| *timestamp >= since_ms) {
            assert_eq!(read.get(key), Some(bits), "{context}: {key:?} was acknowledged");
        }
        self.check_sent(read, context);
    }

    /// read ⊆ sent.
    #[track_caller]
    pub fn check_sent(&self, read: &Contents, context: &str) {
        for (key, bits) in read {
            let sent = self.sent.get(key).is_some_and(|values| values.contains(bits));
            assert!(sent, "{context}: {key:?} = {bits:x} was never sent");
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }
}
