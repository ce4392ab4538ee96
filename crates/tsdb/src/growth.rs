//! How cardinalities of the head grow, without a look at its series.
//!
//! The index has the number of series of each metric and of values of each label at hand. Every half hour
//! they are written down; growth is against the older of the two newest such lists, so over half an
//! hour to an hour, or since the start.

use hashbrown::HashMap;
use parking_lot::Mutex;
use tidewatch_model::METRIC_NAME;

use crate::db::Db;
use crate::head::registry::PairId;
use crate::head::{Directory, top};
use crate::status::{Growth, TopEntry};

const PERIOD_MS: i64 = 30 * 60 * 1000;

/// Cardinalities as they were.
#[derive(Debug)]
struct Baseline {
    taken_ms: i64,
    /// Hashes of metric names, ascending, with the number of their series: names would take ten times
    /// the memory, where they are many.
    metrics: Vec<(u64, u32)>,
    labels: HashMap<Box<str>, u64>,
}

/// The two newest lists, the older first.
#[derive(Debug, Default)]
pub(crate) struct GrowthWatch(Mutex<Vec<Baseline>>);

fn hash_of(directory: &Directory, pair: u32) -> u64 {
    directory.registry.hasher().hash(directory.registry.pairs.bytes(PairId(pair)))
}

impl Baseline {
    fn take(directory: &Directory, taken_ms: i64) -> Baseline {
        let mut baseline = Baseline { taken_ms, metrics: Vec::new(), labels: HashMap::new() };
        for (name, pairs) in directory.postings.names() {
            baseline.labels.insert(name.into(), pairs.len() as u64);
            if name == METRIC_NAME {
                let count = |pair: u32| directory.postings.count(pair) as u32;
                baseline.metrics =
                    pairs.iter().map(|pair| (hash_of(directory, *pair), count(*pair))).collect();
                baseline.metrics.sort_unstable();
            }
        }
        baseline
    }

    fn series_of(&self, metric: u64) -> u64 {
        let at = self.metrics.binary_search_by_key(&metric, |(hash, _)| *hash);
        at.map_or(0, |at| u64::from(self.metrics[at].1))
    }
}

impl Db {
    /// Writes cardinalities down, if it is time.
    pub(crate) fn note_growth(&self, now_ms: i64) {
        let mut baselines = self.growth.0.lock();
        let newest = baselines.last().map(|baseline| baseline.taken_ms);
        // A clock that was set back makes it time, too.
        if newest.is_some_and(|newest| newest <= now_ms && now_ms < newest.saturating_add(PERIOD_MS)) {
            return;
        }
        baselines.push(Baseline::take(&self.head.directory.read(), now_ms));
        let past = baselines.len().saturating_sub(2);
        baselines.drain(..past);
    }

    /// The `limit` metrics and labels of the head that grew most.
    pub fn growth(&self, limit: usize) -> Growth {
        let baselines = self.growth.0.lock();
        let Some(before) = baselines.first() else { return Growth::default() };
        let directory = self.head.directory.read();
        let (mut metrics, mut labels) = (Vec::new(), Vec::new());
        let grown = |entries: &mut Vec<TopEntry>, name: &str, now: u64, before: u64| {
            if now > before {
                entries.push(TopEntry { name: name.to_owned(), count: now - before });
            }
        };
        for (name, pairs) in directory.postings.names() {
            grown(&mut labels, name, pairs.len() as u64, before.labels.get(name).copied().unwrap_or(0));
            if name == METRIC_NAME {
                for pair in pairs {
                    let metric = directory.registry.pairs.get(PairId(*pair)).1;
                    let had = before.series_of(hash_of(&directory, *pair));
                    grown(&mut metrics, metric, directory.postings.count(*pair), had);
                }
            }
        }
        Growth {
            since_ms: Some(before.taken_ms),
            series_by_metric: top(metrics, limit),
            values_by_label: top(labels, limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewatch_env::Env;
    use tidewatch_model::{Batch, Labels, RawLabels, Sample};
    use tidewatch_storage::Append;

    use super::*;
    use crate::DbOptions;

    fn append(db: &Db, metric: &str, pods: std::ops::Range<usize>) {
        for pod in pods {
            let labels = Labels::from_pairs([("__name__", metric), ("pod", &pod.to_string())]);
            let mut batch = Batch::new();
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp: 1, value: 1.0 }]);
            db.append(&batch).expect("takes writes");
        }
    }

    #[track_caller]
    fn check(db: &Db, expected: &str) {
        let Growth { since_ms, series_by_metric, values_by_label } = db.growth(2);
        let list = |entries: Vec<TopEntry>| {
            entries
                .iter()
                .map(|entry| format!("{} {}", entry.name, entry.count))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let found = format!("{since_ms:?}: {}; {}", list(series_by_metric), list(values_by_label));
        assert_eq!(found, expected);
    }

    #[test]
    fn growth_is_over_half_an_hour_to_an_hour() {
        let db = Db::in_memory(Env::simulated(1).env, DbOptions::new(""));
        check(&db, "None: ; ");
        append(&db, "up", 0..3);
        db.note_growth(1000);
        check(&db, "Some(1000): ; ");
        append(&db, "up", 3..5);
        append(&db, "down", 0..9);
        append(&db, "odd", 0..1);
        check(&db, "Some(1000): down 9, up 2; pod 6, __name__ 2");
        db.note_growth(PERIOD_MS);
        db.note_growth(PERIOD_MS + 1000);
        append(&db, "odd", 1..2);
        check(&db, "Some(1000): down 9, odd 2; pod 6, __name__ 2");
        db.note_growth(2 * PERIOD_MS + 1000);
        check(&db, "Some(1801000): odd 1; ");
        db.note_growth(5);
        db.note_growth(6);
        check(&db, "Some(3601000): ; ");
    }
}
