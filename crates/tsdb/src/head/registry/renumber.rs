//! Giving back the texts of labels that no series bears any more.
//!
//! A pair keeps its number while series come and go, and nothing counts who names it. So the texts of
//! pods that are gone would stay for ever; where they are more than half of all, those that are still
//! borne get new numbers, in their old order, and the rest goes.
//!
//! Not here: when that is so, and the lists by pair (`head`, `index`).

use super::{LabelHasher, PairId, Pairs, Registry};
use crate::index::GONE;

impl Pairs {
    /// Those of some numbers, and the new number of each.
    fn kept(&self, hasher: &LabelHasher, keep: &dyn Fn(u32) -> bool) -> (Pairs, Vec<u32>) {
        let mut kept = Pairs::new();
        let mut numbers = vec![GONE; self.len()];
        for (at, number) in numbers.iter_mut().enumerate().filter(|(at, _)| keep(*at as u32)) {
            let bytes = self.bytes(PairId(at as u32));
            *number = kept.len() as u32;
            kept.text.extend_from_slice(bytes);
            kept.starts.push(kept.text.len() as u32);
            let Pairs { text, starts, table, .. } = &mut kept;
            table.insert_unique(hasher.hash(bytes), PairId(*number), |pair| {
                let at = pair.0 as usize;
                hasher.hash(&text[starts[at] as usize..starts[at + 1] as usize])
            });
        }
        kept.text.shrink_to_fit();
        kept.starts.shrink_to_fit();
        (kept, numbers)
    }
}

impl Registry {
    /// Keeps the pairs that `keep` names, which have to be all that living series bear. Gives the new
    /// number of each, or [`GONE`].
    pub(crate) fn renumber(&mut self, keep: &dyn Fn(u32) -> bool) -> Vec<u32> {
        let (pairs, numbers) = self.pairs.kept(&self.hasher, keep);
        self.pairs = pairs;
        for page in self.pages.iter_mut().flatten() {
            let (mut kept, mut start) = (Vec::with_capacity(page.pairs.len()), 0);
            for slot in 0..page.ends.len() {
                let end = page.ends[slot] as usize;
                if page.is_alive(slot) {
                    let renumbered =
                        page.pairs[start..end].iter().map(|pair| PairId(numbers[pair.0 as usize]));
                    kept.extend(renumbered);
                }
                page.ends[slot] = kept.len() as u32;
                start = end;
            }
            debug_assert!(kept.iter().all(|pair| pair.0 != GONE), "living series bear what is kept");
            kept.shrink_to_fit();
            page.pairs = kept;
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use tidewatch_model::{Labels, Limits, Matcher, RawLabels};

    use super::super::{Defined, SeriesId};
    use crate::head::Head;

    /// Defines a series, unless it is there.
    fn define(head: &Head, labels: &Labels) -> SeriesId {
        let mut directory = head.directory.write();
        let raw = RawLabels::Canonical(labels.as_bytes());
        let hash = directory.registry.hasher().hash(raw.bytes());
        if let Some(id) = directory.registry.find(hash, &raw) {
            return id;
        }
        match directory.registry.define(hash, &raw, &Limits::default()).expect("good labels") {
            Defined::Known(id) => id,
            Defined::New(id) => {
                directory.insert_postings(id);
                id
            }
        }
    }

    fn pod(n: usize) -> Labels {
        Labels::from_pairs([("__name__", ["up", "load"][n % 2]), ("pod", &format!("pod-{n}"))])
    }

    #[test]
    fn living_series_are_walked_page_by_page_and_numbers_come_to_an_end() {
        let head = Head::new(3);
        let ids: Vec<SeriesId> = (0..5_000).map(|n| define(&head, &pod(n))).collect();
        let registry = &mut head.directory.write().registry;
        // A page as a whole, another but for one, the end.
        let gone = |id: &SeriesId| (1_000..3_500).contains(&id.0) && id.0 != 3_000 || id.0 == 4_999;
        registry.remove(&ids.iter().copied().filter(gone).collect::<Vec<_>>());
        let expected: Vec<SeriesId> = ids.iter().copied().filter(|id| !gone(id)).collect();
        assert_eq!(registry.ids().collect::<Vec<_>>(), expected);
        registry.next = u32::MAX - 3;
        assert_eq!(registry.ids_left(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whoever_comes_and_goes_the_others_are_found_and_texts_are_bounded(
            steps in proptest::collection::vec((0..600usize, 1..80usize), 1..40),
        ) {
            let head = Head::new(3);
            let mut living: BTreeMap<usize, SeriesId> = BTreeMap::new();
            for (first, count) in steps {
                for n in first..first + count {
                    let id = define(&head, &pod(n));
                    prop_assert_eq!(*living.entry(n).or_insert(id), id);
                }
                // Of those that were there half go, among them all of the oldest.
                let gone: Vec<usize> = living.keys().copied().filter(|n| n % 2 == 0 || *n < first).collect();
                let ids: Vec<SeriesId> = gone.iter().filter_map(|n| living.remove(n)).collect();
                let mut directory = head.directory.write();
                directory.remove(&ids);
                directory.give_back_texts();
                let held = directory.registry.pairs.len();
                prop_assert!(held < 64.max(2 * (living.len() + 2)), "{} texts of {} series", held, living.len());
                for (n, id) in &living {
                    prop_assert_eq!(directory.registry.to_labels(*id), pod(*n));
                    let by_pod = directory.matching(&[Matcher::equal("pod", &format!("pod-{n}"))], &mut || true);
                    prop_assert_eq!(by_pod.iter().collect::<Vec<_>>(), [id.0]);
                }
                prop_assert_eq!(directory.postings.len(), living.len() as u64);
                let up = directory.matching(&[Matcher::equal("__name__", "up")], &mut || true);
                prop_assert_eq!(up.len(), living.keys().filter(|n| *n % 2 == 0).count() as u64);
            }
        }
    }
}
