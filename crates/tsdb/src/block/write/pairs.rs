//! The label pairs of a block that is written: numbered as they come, and in the end as they stand in its dictionary.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::index::dictionary;

/// Pairs as they appear, numbered provisionally.
#[derive(Default)]
pub(super) struct Pairs {
    names: HashMap<Box<str>, HashMap<Box<str>, u32, RandomState>, RandomState>,
    count: u32,
}

impl Pairs {
    pub(super) fn intern(&mut self, name: &str, value: &str) -> u32 {
        if !self.names.contains_key(name) {
            self.names.insert(name.into(), HashMap::default());
        }
        let values = self.names.get_mut(name).expect("inserted above");
        if let Some(number) = values.get(value) {
            return *number;
        }
        let number = self.count;
        self.count += 1;
        values.insert(value.into(), number);
        number
    }

    /// Encodes the dictionary; gives the final number of each provisional one.
    pub(super) fn finish(&self, out: &mut Vec<u8>) -> Vec<u32> {
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        let mut finals = vec![0; self.count as usize];
        let mut next = 0;
        let mut sorted = Vec::with_capacity(names.len());
        for (name, values) in names {
            let mut values: Vec<_> = values.iter().map(|(value, number)| (&**value, *number)).collect();
            values.sort_unstable();
            for (_, number) in &values {
                finals[*number as usize] = next;
                next += 1;
            }
            sorted.push((&**name, values));
        }
        let texts = sorted.iter().map(|(name, values)| (*name, values.iter().map(|(value, _)| *value)));
        dictionary::encode(texts, out);
        finals
    }
}
