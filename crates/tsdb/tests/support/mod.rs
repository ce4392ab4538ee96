//! What the tests of a database share: a ledger of what was sent and acknowledged, and reading
//! everything back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use tidewatch_model::{Batch, Labels, Matcher, RawLabels, Sample};
use tidewatch_storage::{Append, RunValues, Scratch, Select, Ticket, TimeRange};
use tidewatch_tsdb::Db;

pub const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

/// Series and time to the bits of a value.
pub type Contents = BTreeMap<(String, i64), u64>;

/// What one server was sent and what it acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Every value that was ever offered for a series and time.
    sent: BTreeMap<(String, i64), BTreeSet<u64>>,
    acknowledged: Contents,
    /// Accepted, with the ticket that its acknowledgement waits for.
    waiting: Vec<(Ticket, Vec<((String, i64), u64)>)>,
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
        for (key, bits) in &self.acknowledged {
            assert_eq!(read.get(key), Some(bits), "{context}: {key:?} was acknowledged");
        }
        for (key, bits) in read {
            let sent = self.sent.get(key).is_some_and(|values| values.contains(bits));
            assert!(sent, "{context}: {key:?} = {bits:x} was never sent");
        }
    }

    pub fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }
}

/// Everything that a database answers, and checks on the way that a selection keeps its promises.
pub fn contents(db: &Db) -> Contents {
    contents_of(db, &[], ALL)
}

pub fn contents_of(db: &Db, matchers: &[Matcher], range: TimeRange) -> Contents {
    let selection = db.select(matchers, range).expect("the database is complete");
    for at in 1..selection.len() {
        assert!(selection.labels(at - 1) < selection.labels(at), "series ascend by labels");
    }
    let mut contents = Contents::new();
    let mut newest = vec![i64::MIN; selection.len()];
    let mut visit = |series: usize, run: tidewatch_storage::Run<'_>| {
        let RunValues::Floats(values) = run.values else { panic!("only floats went in") };
        assert_eq!(values.len(), run.timestamps.len());
        for (timestamp, value) in run.timestamps.iter().zip(values) {
            assert!(*timestamp > newest[series] || newest[series] == i64::MIN, "time ascends");
            newest[series] = *timestamp;
            contents.insert((selection.labels(series).to_string(), *timestamp), value.to_bits());
        }
        ControlFlow::Continue(())
    };
    selection.scan(0..selection.len(), range, &mut Scratch::default(), &mut visit).expect("readable");
    contents
}
