//! Matchers against a plain list of label sets.

use tidewatch_model::{Labels, MatchOp, Matcher};

use super::*;

/// Pairs in the order in which they appeared.
#[derive(Default)]
pub(crate) struct Table(Vec<(String, String)>);

impl Table {
    pub(crate) fn intern(&mut self, name: &str, value: &str) -> u32 {
        self.find_pair(name, value).unwrap_or_else(|| {
            self.0.push((name.to_owned(), value.to_owned()));
            self.0.len() as u32 - 1
        })
    }
}

impl PairTable for Table {
    fn pair(&self, pair: u32) -> (&str, &str) {
        let (name, value) = &self.0[pair as usize];
        (name, value)
    }

    fn find_pair(&self, name: &str, value: &str) -> Option<u32> {
        self.0.iter().position(|(n, v)| n == name && v == value).map(|at| at as u32)
    }
}

pub(crate) fn sample_series() -> Vec<Labels> {
    let mut series = Vec::new();
    for (job, hosts) in [("node", 40), ("api", 3), ("API", 2)] {
        for host in 0..hosts {
            let instance = format!("host-{host}:9100");
            series.push(Labels::from_pairs([("__name__", "up"), ("job", job), ("instance", &instance)]));
            if host % 3 == 0 {
                let pairs = [("__name__", "cpu"), ("job", job), ("instance", &instance), ("mode", "idle")];
                series.push(Labels::from_pairs(pairs));
            }
        }
    }
    series.sort_unstable();
    series
}

/// Matchers of every kind, those that the empty text satisfies among them.
pub(crate) fn sample_matchers() -> Vec<Matcher> {
    let mut matchers = Vec::new();
    for name in ["__name__", "job", "mode", "absent"] {
        for value in ["up", "api", "node", "idle", ""] {
            matchers.push(Matcher::equal(name, value));
            matchers.push(Matcher::new(MatchOp::NotEqual, name, value).expect("no regex"));
        }
        for pattern in
            ["api|node", "up|", "n.*", "no?de", ".*", ".+", "", "(?i)api", "idle", "x|y", "ap.+|node", "api*"]
        {
            for op in [MatchOp::Regex, MatchOp::NotRegex] {
                matchers.push(Matcher::new(op, name, pattern).expect("a valid pattern"));
            }
        }
    }
    matchers.push(Matcher::new(MatchOp::Regex, "instance", "host-1.*").expect("a valid pattern"));
    matchers
}

/// Checks an index of `series`, numbered as they stand, against plain evaluation.
#[track_caller]
pub(crate) fn check(index: &dyn Index, series: &[Labels]) {
    let holds = |labels: &Labels, m: &Matcher| m.matches(labels.get(m.name()).unwrap_or(""));
    let matchers = sample_matchers();
    for (i, first) in matchers.iter().enumerate() {
        let second = &matchers[(i * 7 + 3) % matchers.len()];
        for set in [vec![], vec![first.clone()], vec![first.clone(), second.clone()]] {
            let matching = |labels: &&Labels| set.iter().all(|m| holds(labels, m));
            let expected: Vec<u32> =
                (0..series.len() as u32).filter(|at| matching(&&series[*at as usize])).collect();
            let found = postings_for_matchers(index, &set).expect("sound");
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{set:?}");

            let mut names: Vec<String> = Vec::new();
            let mut jobs: Vec<String> = Vec::new();
            for labels in series.iter().filter(matching) {
                names.extend(labels.iter().map(|(name, _)| name.to_owned()));
                jobs.extend(labels.get("job").map(str::to_owned));
            }
            for list in [&mut names, &mut jobs] {
                list.sort_unstable();
                list.dedup();
            }
            assert_eq!(label_names(index, &set, usize::MAX).expect("sound"), names, "{set:?}");
            assert_eq!(label_values(index, "job", &set, usize::MAX).expect("sound"), jobs, "{set:?}");
            jobs.truncate(1);
            assert_eq!(label_values(index, "job", &set, 1).expect("sound"), jobs, "{set:?}");
        }
    }
}

#[test]
fn the_heads_index_answers_as_plain_evaluation_does() {
    let (mut table, mut postings) = (Table::default(), MemPostings::new());
    let series = sample_series();
    for (id, labels) in series.iter().enumerate() {
        let pairs: Vec<u32> = labels.iter().map(|(name, value)| table.intern(name, value)).collect();
        postings.insert(id as u32, pairs, &table);
    }
    check(&postings.index(&table), &series);

    // Without every second series, and with it again.
    let pairs_of = |id: usize| -> Vec<u32> {
        series[id].iter().filter_map(|(name, value)| table.find_pair(name, value)).collect()
    };
    let every_second = || (0..series.len()).rev().step_by(2);
    postings.remove(every_second().map(|id| (id as u32, pairs_of(id))));
    assert_eq!(postings.len(), (series.len() / 2) as u64);
    for id in every_second() {
        postings.insert(id as u32, pairs_of(id), &table);
    }
    check(&postings.index(&table), &series);
    postings.remove((0..series.len()).map(|id| (id as u32, pairs_of(id))));
    assert_eq!(label_names(&postings.index(&table), &[], 10), Ok(Vec::new()));
    assert!(postings.is_empty());
}
