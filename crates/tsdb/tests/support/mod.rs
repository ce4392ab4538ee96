//! What the tests of a database share: reading everything back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tidewatch_model::Matcher;
use tidewatch_storage::{RunValues, Scratch, Select, TimeRange};
use tidewatch_tsdb::Db;

pub const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

/// Series and time to the bits of a value.
pub type Contents = BTreeMap<(String, i64), u64>;

/// Everything that a database answers, and checks on the way that a selection keeps its promises.
pub fn contents(db: &Db) -> Contents {
    contents_of(db, &[], ALL)
}

/// What a selector answers.
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
