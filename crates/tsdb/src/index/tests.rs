//! Matchers against a plain list of label sets.

use proptest::prelude::*;
use roaring::RoaringBitmap;
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

/// What is visited, sorted.
fn visited(run: impl FnOnce(&mut dyn FnMut(&str) -> bool) -> Result<(), IndexError>) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |text: &str| {
        found.push(text.to_owned());
        true
    };
    run(&mut add).expect("sound");
    found.sort_unstable();
    found
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
            let found = postings_for_matchers(index, &set, &mut || true).expect("sound");
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
            assert_eq!(visited(|visit| visit_names_of(index, Some(&found), visit)), names, "{set:?}");
            assert_eq!(visited(|visit| visit_values_of(index, "job", Some(&found), visit)), jobs, "{set:?}");
            if set.is_empty() {
                assert_eq!(visited(|visit| visit_names_of(index, None, visit)), names);
                assert_eq!(visited(|visit| visit_values_of(index, "job", None, visit)), jobs);
            }
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
    visit_names_of(&postings.index(&table), None, &mut |name| panic!("{name} is left")).expect("sound");
    assert!(postings.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_dictionary_finds_what_it_holds_and_nothing_else(
        names in prop::collection::btree_map(
            "[a-c]{1,2}",
            prop::collection::btree_set("[abé]{1,6}", 1..60),
            1..4,
        ),
        probes in prop::collection::vec("[abé]{0,4}", 8),
    ) {
        let mut bytes = Vec::new();
        let texts = names.iter().map(|(name, values)| (name.as_str(), values.iter().map(String::as_str)));
        dictionary::encode(texts, &mut bytes);
        let dictionary = dictionary::Dictionary::open(&bytes.into()).expect("just encoded");
        let mut number = 0;
        let mut value = String::new();
        for (name, values) in &names {
            let first = number;
            for expected in values {
                prop_assert_eq!(dictionary.pair(number, &mut value), Ok(name.as_str()));
                prop_assert_eq!(&value, expected);
                prop_assert_eq!(dictionary.find(name, expected), Ok(Some(number)));
                number += 1;
            }
            for probe in &probes {
                let place = values.iter().position(|value| value == probe).map(|at| first + at as u32);
                prop_assert_eq!(dictionary.find(name, probe), Ok(place));
                let mut found = Vec::new();
                let visit = &mut |value: &str, pair| {
                    found.push((value.to_owned(), pair));
                    true
                };
                dictionary.visit_values(name, probe, visit).expect("just encoded");
                let all = values.iter().cloned().zip(first..);
                let expected: Vec<_> = all.filter(|(value, _)| value.starts_with(probe.as_str())).collect();
                prop_assert_eq!(found, expected);
            }
        }
        prop_assert_eq!(dictionary.pair_count(), number);
        prop_assert!(dictionary.pair(number, &mut value).is_err());
    }

    #[test]
    fn lists_come_back(
        lists in prop::collection::vec(prop::collection::btree_set(0..5_000u32, 1..200), 1..8),
        dense in 0..5_000u32,
    ) {
        let mut bitmaps: Vec<RoaringBitmap> = lists.iter().map(|list| list.iter().copied().collect()).collect();
        bitmaps.push((0..=dense).collect());
        let mut bytes = Vec::new();
        lists::encode(&mut bitmaps, 5_000, &mut bytes);
        let stored = lists::Lists::open(&bytes.into()).expect("just encoded");
        prop_assert_eq!(stored.len() as usize, bitmaps.len());
        prop_assert_eq!(stored.all().len(), 5_000);
        for (pair, expected) in (0..).zip(&bitmaps) {
            prop_assert_eq!(&stored.list(pair).expect("just encoded"), expected);
        }
        prop_assert!(stored.list(bitmaps.len() as u32).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Stretches, gaps, and pairs of one, few and many series, over the bounds of bitmaps' containers.
    #[test]
    fn lists_that_are_filled_are_those_that_are_inserted_one_by_one(
        pieces in proptest::collection::vec((0u32..40_000, 0u32..3_000, 0u32..6, 1u32..40), 1..12),
        first in 0u32..100_000,
    ) {
        let mut table = Table::default();
        (0..71).for_each(|i| { table.intern(&format!("n{}", i % 5), &format!("v{i}")); });
        // Of each id its pairs; many have none.
        let mut series: Vec<Vec<u32>> = Vec::new();
        for (gap, count, pair, every) in pieces {
            series.resize(series.len() + gap as usize, vec![]);
            series.extend((0..count).map(|i| {
                // Some have one more in front, so that the others stand elsewhere.
                let more = (i / every % 3 == 0).then_some(70);
                more.into_iter().chain([pair, 6 + i % 3, 10 + i / every % 60]).collect()
            }));
        }
        let pairs_of = |id: u32| &series[(id - first) as usize][..];
        let ids = first..first + series.len() as u32;
        let (mut filled, mut inserted) = (MemPostings::new(), MemPostings::new());
        filled.fill(ids.clone(), pairs_of, &table);
        let mut alive = ids.filter(|id| !pairs_of(*id).is_empty());
        alive.clone().for_each(|id| inserted.insert(id, pairs_of(id).iter().copied(), &table));
        prop_assert_eq!(filled.len(), inserted.len());
        let (filled_index, inserted_index) = (filled.index(&table), inserted.index(&table));
        for pair in 0..71 {
            prop_assert_eq!(filled_index.series_of(pair), inserted_index.series_of(pair));
        }
        let names = |index: &dyn Index| visited(|add| index.visit_names(&mut |name| { add(name); }));
        prop_assert_eq!(names(&filled_index), names(&inserted_index));
        let values = |index: &dyn Index| visited(|add| index.visit_values("n1", "", &mut |value, _| add(value)));
        prop_assert_eq!(values(&filled_index), values(&inserted_index));
        // A list goes on as if it had grown one by one.
        let next = first + series.len() as u32;
        let last = alive.next_back();
        for lists in [&mut filled, &mut inserted] {
            lists.insert(next, [0, 69], &table);
            lists.remove(last.map(|id| (id, pairs_of(id).iter().copied())));
        }
        for pair in 0..71 {
            prop_assert_eq!(filled.count(pair), inserted.count(pair));
        }
    }
}
