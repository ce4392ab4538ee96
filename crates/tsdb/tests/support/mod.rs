//! What the tests of a database share: reading everything back.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use tidewatch_model::{FloatHistogram, Matcher, STALE_NAN_BITS};
use tidewatch_storage::{RunValues, Scratch, Select, TimeRange};
use tidewatch_tsdb::Db;

pub const ALL: TimeRange = TimeRange { start: i64::MIN, end: i64::MAX };

/// Series and time to the bits of a float, or to the [`fingerprint`] of a histogram.
pub type Contents = BTreeMap<(String, i64), u64>;

/// A number that stands for a histogram's data, bit for bit. A marker of staleness is one,
/// whatever it ends.
pub fn fingerprint(histogram: &FloatHistogram) -> u64 {
    if histogram.is_stale() {
        return STALE_NAN_BITS;
    }
    let FloatHistogram { schema, zero_threshold, zero_count, count, sum, .. } = histogram;
    let head = [*zero_threshold, *zero_count, *count, *sum].map(f64::to_bits);
    let spans = histogram.positive_spans.iter().chain(&histogram.negative_spans);
    let spans = spans.flat_map(|span| [span.offset as u64, u64::from(span.length)]);
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
    let floats = buckets.chain(histogram.custom_bounds()).map(|value| value.to_bits());
    let all = [*schema as u64].into_iter().chain(head).chain(spans).chain(floats);
    all.fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(29))
}

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
        let values: Vec<u64> = match run.values {
            RunValues::Floats(values) => values.iter().map(|value| value.to_bits()).collect(),
            RunValues::Histograms(histograms) => histograms.iter().map(fingerprint).collect(),
        };
        assert_eq!(values.len(), run.timestamps.len());
        for (timestamp, value) in run.timestamps.iter().zip(values) {
            assert!(*timestamp > newest[series] || newest[series] == i64::MIN, "time ascends");
            newest[series] = *timestamp;
            contents.insert((selection.labels(series).to_string(), *timestamp), value);
        }
        ControlFlow::Continue(())
    };
    selection.scan(0..selection.len(), range, &mut Scratch::default(), &mut visit).expect("readable");
    contents
}
