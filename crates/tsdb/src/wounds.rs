//! Damage that reading meets while the database runs, until the status has it.
//!
//! Who reads a block, or a run of the head, is told and goes without an answer. That there is damage must
//! not be known to that reader alone: it is noted here, once for each place.
//!
//! Not here: what becomes of it (`mend`, and `jobs` for what heals).

use std::collections::BTreeSet;

use parking_lot::Mutex;

/// Places that are told apart. A file that is damaged in more is damaged as a whole.
const PLACES_MAX: usize = 1000;

/// What was met in one file, or in the head.
#[derive(Debug, Default)]
pub(crate) struct Wounds(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    known: BTreeSet<String>,
    /// Those that nobody has asked for yet.
    fresh: Vec<Wound>,
    mendable: bool,
    heals: bool,
}

/// One place, and what is lost there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wound {
    pub(crate) offset: u64,
    pub(crate) reason: String,
}

impl Wounds {
    /// Notes damage. `mendable`: whether what is whole around it can be told from it.
    pub(crate) fn meet(&self, offset: u64, reason: String, mendable: bool) {
        let mut met = self.0.lock();
        met.mendable |= mendable;
        if met.known.len() < PLACES_MAX && met.known.insert(format!("{offset} {reason}")) {
            met.fresh.push(Wound { offset, reason });
        }
    }

    /// Notes damage that costs nothing and goes away when the file is written anew.
    pub(crate) fn meet_healing(&self, offset: u64, reason: String) {
        self.meet(offset, reason, false);
        self.0.lock().heals = true;
    }

    pub(crate) fn heals(&self) -> bool {
        self.0.lock().heals
    }

    /// What was met since the last call.
    pub(crate) fn take(&self) -> Vec<Wound> {
        std::mem::take(&mut self.0.lock().fresh)
    }

    pub(crate) fn is_mendable(&self) -> bool {
        self.0.lock().mendable
    }

    /// What was met is hidden now, or turned out not to be mendable.
    pub(crate) fn is_mended(&self) {
        self.0.lock().mendable = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_is_told_once() {
        let wounds = Wounds::default();
        assert!(!wounds.is_mendable());
        for _ in 0..3 {
            wounds.meet(7, "a column".to_owned(), false);
        }
        wounds.meet(9, "a column".to_owned(), true);
        let told = |wounds: Vec<Wound>| wounds.into_iter().map(|wound| wound.offset).collect::<Vec<_>>();
        assert_eq!((told(wounds.take()), wounds.is_mendable()), (vec![7, 9], true));
        wounds.is_mended();
        wounds.meet(9, "a column".to_owned(), false);
        assert_eq!((told(wounds.take()), wounds.is_mendable()), (vec![], false));
        (0..2 * PLACES_MAX as u64).for_each(|at| wounds.meet(at, String::new(), false));
        assert_eq!(wounds.take().len(), PLACES_MAX - 2);
    }
}
