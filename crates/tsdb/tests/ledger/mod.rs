//! A ledger of what was sent to a database and what it acknowledged.

// Each test binary uses its part.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use tidewatch_model::{Batch, BatchHistogram, Labels, Matcher, RawLabels, Sample};
use tidewatch_storage::{Append, Refusal, Ticket, TimeRange};
use tidewatch_tsdb::Db;

use crate::support::{Contents, fingerprint};

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
    /// Series and times whose deletion was acknowledged, and that were not sent again since.
    deleted: BTreeSet<(String, i64)>,
    /// Whether what comes too late for its series, or a second time, is no mistake of the workload.
    pub clock_was_wrong: bool,
}

impl Ledger {
    /// Sends samples, one series each, as one batch; notes what the database accepts.
    pub fn append(
        &mut self,
        db: &Db,
        samples: &[(&Labels, Sample)],
        histograms: &[(&Labels, BatchHistogram)],
    ) -> bool {
        let mut batch = Batch::new();
        let mut entries = Vec::new();
        for (labels, sample) in samples {
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[*sample]);
            entries.push(((labels.to_string(), sample.timestamp), sample.value.to_bits()));
        }
        for (labels, histogram) in histograms {
            batch.push_histograms(RawLabels::Canonical(labels.as_bytes()), std::slice::from_ref(histogram));
            let value = fingerprint(&histogram.value.to_float());
            entries.push(((labels.to_string(), histogram.timestamp), value));
        }
        for (key, value) in &entries {
            self.deleted.remove(key);
            self.sent.entry(key.clone()).or_default().insert(*value);
        }
        let Ok(outcome) = db.append(&batch) else { return false };
        let may_refuse =
            |refusal| self.clock_was_wrong && matches!(refusal, Refusal::TooOld | Refusal::Conflict);
        let other = outcome.refused.iter().find(|(refusal, _)| !may_refuse(*refusal));
        assert_eq!(other, None, "the workload sends what can be taken");
        if !outcome.refused.is_empty() {
            // Which of them is not told, so none counts as acknowledged.
            return true;
        }
        self.waiting.push((outcome.ticket, entries));
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

    /// Deletes a series' samples in a range; a deletion that fails may have taken place in part.
    pub fn delete(&mut self, db: &Db, labels: &Labels, range: TimeRange) -> bool {
        let matchers: Vec<Matcher> = labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
        let done = db.delete(&matchers, range).is_ok();
        let name = labels.to_string();
        let is_in = |key: &(String, i64)| key.0 == name && range.start <= key.1 && key.1 <= range.end;
        self.acknowledged.retain(|key, _| !is_in(key));
        self.waiting.iter_mut().for_each(|(_, samples)| samples.retain(|(key, _)| !is_in(key)));
        if done {
            self.deleted.extend(self.sent.keys().filter(|key| is_in(key)).cloned());
        }
        done
    }

    /// The process is gone, and with it whoever waited for an acknowledgement.
    pub fn restart(&mut self) {
        self.waiting.clear();
    }

    /// acknowledged ⊆ read ⊆ sent, bit by bit, and nothing that is deleted.
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
        assert_eq!(self.back_again(read), None, "{context}: what is deleted stays so");
        self.check_sent(read, context);
    }

    /// Samples before this are past retention for long: they may be gone or not.
    pub fn forget_before(&mut self, since_ms: i64) {
        self.acknowledged.retain(|(_, timestamp), _| *timestamp >= since_ms);
        self.deleted.retain(|(_, timestamp)| *timestamp >= since_ms);
    }

    /// Something that is read though its deletion was acknowledged.
    pub fn back_again<'a>(&self, read: &'a Contents) -> Option<&'a (String, i64)> {
        read.keys().find(|key| self.deleted.contains(key))
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

    pub fn deleted(&self) -> usize {
        self.deleted.len()
    }
}
