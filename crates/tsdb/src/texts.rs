//! Names and values of labels: from head and blocks, each once, within the caller's memory.

use std::collections::BTreeSet;

use tidewatch_storage::{Room, SelectError};

use crate::debt::Debt;

/// What a text takes beside its bytes: its place in the set and the allocator's own.
const TEXT_BYTES: usize = 48;

/// The smallest texts of those that were added, each once.
pub(crate) struct Texts<'a, 'r> {
    limit: usize,
    debt: Debt<'a, 'r>,
    found: BTreeSet<String>,
}

impl<'a, 'r> Texts<'a, 'r> {
    pub(crate) fn new(limit: usize, room: &'a mut Room<'r>) -> Texts<'a, 'r> {
        Texts { limit, debt: Debt::new(room), found: BTreeSet::new() }
    }

    /// Adds a text; gives whether there is room for more.
    pub(crate) fn add(&mut self, text: &str) -> bool {
        if self.debt.check().is_err() {
            return false;
        }
        let full = self.found.len() >= self.limit;
        if full && self.found.last().is_none_or(|last| text >= last.as_str()) || self.found.contains(text) {
            return true;
        }
        if self.debt.owe(text.len() + TEXT_BYTES).is_err() {
            return false;
        }
        if full {
            self.found.pop_last();
        }
        self.found.insert(text.to_owned());
        true
    }

    /// What was taken for them.
    pub(crate) fn debt(&mut self) -> &mut Debt<'a, 'r> {
        &mut self.debt
    }

    /// All of them, sorted.
    pub(crate) fn finish(self) -> Result<Vec<String>, SelectError> {
        self.debt.check()?;
        Ok(self.found.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_are_kept_and_each_once() {
        let mut room = |_| true;
        let mut texts = Texts::new(3, &mut room);
        for text in ["d", "b", "e", "b", "a", "c", "a"] {
            assert!(texts.add(text));
        }
        assert_eq!(texts.finish().expect("there is room"), ["a", "b", "c"]);
    }

    #[test]
    fn what_has_no_room_is_refused() {
        let mut left = 1 << 20;
        let mut room = |bytes: u64| {
            left -= bytes as i64;
            left >= 0
        };
        let mut texts = Texts::new(usize::MAX, &mut room);
        let taken = (0..100_000).take_while(|i| texts.add(&format!("{i:052}"))).count();
        assert!((9_000..11_000).contains(&taken), "{taken} texts of 100 bytes in a MiB");
        assert!(matches!(texts.finish(), Err(SelectError::NoRoom)));
    }
}
