//! Things that are found by their hash, and have a number for as long as they are kept.
//!
//! Invariants: each thing is in `by_hash` once, under its number. The number of a thing that is gone is
//! given again.
//!
//! Not here: what things are (`texts`, `cache`).

use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use crate::room;

pub(crate) struct Numbered<T> {
    /// By number, with their hashes. Free numbers are `None` and listed in `free`.
    things: Vec<Option<(u64, T)>>,
    free: Vec<u32>,
    by_hash: HashTable<u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Numbered<T> {
        Numbered { things: Vec::new(), free: Vec::new(), by_hash: HashTable::new() }
    }
}

impl<T> Index<u32> for Numbered<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.things[number as usize].as_ref().expect("a number is of a thing that is kept").1
    }
}

impl<T> IndexMut<u32> for Numbered<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.things[number as usize].as_mut().expect("a number is of a thing that is kept").1
    }
}

impl<T> Numbered<T> {
    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.things[number as usize].is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.things.iter().flatten().map(|(_, thing)| thing)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.things.iter_mut().flatten().map(|(_, thing)| thing)
    }

    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<u32> {
        let is_it = |at: &u32| self.things[*at as usize].as_ref().is_some_and(|(_, thing)| is_it(thing));
        self.by_hash.find(hash, is_it).copied()
    }

    /// Adds a thing that is not there yet.
    pub(crate) fn add(&mut self, hash: u64, thing: T) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            self.things.push(None);
            u32::try_from(self.things.len() - 1).expect("what scrapes show is bounded far below")
        });
        self.things[number as usize] = Some((hash, thing));
        let things = &self.things;
        self.by_hash.insert_unique(hash, number, |number| hash_of(things, *number));
        number
    }

    /// Forgets what is gone; `gone` is given each.
    pub(crate) fn forget(&mut self, is_gone: impl Fn(&T) -> bool, mut gone: impl FnMut(T)) {
        for at in 0..self.things.len() {
            if let Some((hash, thing)) = self.things[at].take_if(|(_, thing)| is_gone(thing)) {
                if let Ok(entry) = self.by_hash.find_entry(hash, |known| *known as usize == at) {
                    entry.remove();
                }
                self.free.push(at as u32);
                gone(thing);
            }
        }
    }

    /// Whether there were far more things than there are.
    pub(crate) fn has_excess_room(&self) -> bool {
        room::is_excess(self.things.len(), self.len())
    }

    /// How many things there is room for.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.things.capacity().max(self.by_hash.capacity()).max(self.free.capacity())
    }
}

fn hash_of<T>(things: &[Option<(u64, T)>], number: u32) -> u64 {
    things[number as usize].as_ref().map_or(0, |(hash, _)| *hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_found_and_free_numbers_are_given_again() {
        // A hash for three things each: some collide.
        let hash = |thing: u64| thing / 3;
        let mut numbered = Numbered::default();
        let old: Vec<u32> = (0..10_000).map(|thing| numbered.add(hash(thing), thing)).collect();
        assert!(!numbered.has_excess_room());
        let mut gone = 0;
        numbered.forget(|thing| thing % 100 != 7, |_| gone += 1);
        assert_eq!((gone, numbered.len()), (9900, 100));
        assert!(numbered.has_excess_room());
        for thing in 0..10_000 {
            let found = numbered.find(hash(thing), |known| *known == thing);
            assert_eq!(found, (thing % 100 == 7).then(|| old[thing as usize]), "{thing}");
            assert!(found.is_none_or(|number| numbered[number] == thing));
        }
        let again: Vec<u32> = (10_000..19_900).map(|thing| numbered.add(hash(thing), thing)).collect();
        assert!(again.iter().all(|number| *number < 10_000));
        assert!(!numbered.has_excess_room());
    }
}
