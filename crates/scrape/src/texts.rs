//! The texts of a target's series, in the order in which the last good scrape showed them.
//!
//! Invariants: of a scrape that shows the same texts in the same order nothing is noted until it
//! differs. `last` has places of texts that are there; a text that is not in it came since.
//!
//! Not here: what a text stands for (`cache`).

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::cache::Known;

struct Text {
    hash: u64,
    text: Box<[u8]>,
    known: Known,
    /// The scrape that showed it last, unless that is noted by the order alone.
    seen: u64,
    /// Its place in the order of the last good scrape.
    place: u32,
}

#[derive(Default)]
pub(crate) struct Texts {
    hasher: FixedState,
    /// Free places are `None` and listed in `free`.
    texts: Vec<Option<Text>>,
    free: Vec<u32>,
    by_text: HashTable<u32>,
    bytes: usize,
    scrape: u64,
    /// The order of the last good scrape.
    last: Vec<u32>,
    /// Where in it this scrape is.
    next: usize,
    /// The order of this scrape, once it differs.
    order: Option<Vec<u32>>,
}

impl Texts {
    pub(crate) fn new(seed: u64) -> Texts {
        Texts { hasher: FixedState::with_seed(seed), ..Texts::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_text.len()
    }

    /// Bytes of all texts.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins a scrape.
    pub(crate) fn begin(&mut self) {
        self.scrape += 1;
        (self.next, self.order) = (0, None);
    }

    pub(crate) fn expect_nothing(&mut self) {
        self.differ();
        self.last.clear();
    }

    fn get(&self, at: u32) -> &Text {
        self.texts[at as usize].as_ref().expect("a place names a text that is kept")
    }

    pub(crate) fn likely(&self) -> &[u8] {
        self.last.get(self.next).map_or(&[], |at| &self.get(*at).text)
    }

    /// What a text stands for that this scrape shows.
    pub(crate) fn find(&mut self, text: &[u8]) -> Option<Known> {
        if let Some(&at) = self.last.get(self.next)
            && let known = self.get(at)
            && *known.text == *text
        {
            let known = known.known;
            self.next += 1;
            self.note(at);
            return Some(known);
        }
        let hash = self.hasher.hash_one(text);
        let texts = &self.texts;
        let is_it = |at: &u32| texts[*at as usize].as_ref().is_some_and(|known| *known.text == *text);
        let at = *self.by_text.find(hash, is_it)?;
        self.differ();
        self.note(at);
        let known = self.get(at);
        let known = (known.known, known.place as usize);
        // What followed it then is likely to follow it now.
        self.next = if self.last.get(known.1) == Some(&at) { known.1 + 1 } else { self.next };
        Some(known.0)
    }

    pub(crate) fn add(&mut self, text: &[u8], known: Known) {
        self.differ();
        let hash = self.hasher.hash_one(text);
        self.bytes += text.len();
        let text = Text { hash, text: text.into(), known, seen: self.scrape, place: 0 };
        let at = self.free.pop().unwrap_or_else(|| {
            self.texts.push(None);
            u32::try_from(self.texts.len() - 1).expect("a scrape's lines are counted by its limits")
        });
        self.texts[at as usize] = Some(text);
        let texts = &self.texts;
        self.by_text.insert_unique(hash, at, |at| texts[*at as usize].as_ref().map_or(0, |text| text.hash));
        self.note(at);
    }

    /// Notes that this scrape shows a text, where the order does not say so.
    fn note(&mut self, at: u32) {
        if let Some(order) = &mut self.order {
            order.push(at);
            let scrape = self.scrape;
            self.texts[at as usize].as_mut().expect("a place names a text that is kept").seen = scrape;
        }
    }

    /// From here on the order is noted text by text.
    fn differ(&mut self) {
        if self.order.is_some() {
            return;
        }
        self.order = Some(Vec::with_capacity(self.last.len()));
        for place in 0..self.next {
            self.note(self.last[place]);
        }
    }

    /// Whether this scrape has shown all texts in the order of the last good one, and no others.
    pub(crate) fn is_as_before(&self) -> bool {
        self.order.is_none() && self.next == self.last.len() && self.last.len() == self.len()
    }

    /// Makes the order of this scrape, which was good, the one to be expected.
    pub(crate) fn remember_order(&mut self) {
        self.differ();
        self.last = self.order.take().unwrap_or_default();
        for (place, at) in self.last.iter().enumerate() {
            self.texts[*at as usize].as_mut().expect("was shown just now").place = place as u32;
        }
    }

    /// Forgets what this scrape did not show; `gone` is given what each stood for.
    pub(crate) fn forget_unseen(&mut self, mut gone: impl FnMut(Known)) {
        self.differ();
        for at in 0..self.texts.len() {
            if let Some(text) = self.texts[at].take_if(|text| text.seen != self.scrape) {
                if let Ok(entry) = self.by_text.find_entry(text.hash, |known| *known as usize == at) {
                    entry.remove();
                }
                self.bytes -= text.text.len();
                self.free.push(at as u32);
                gone(text.known);
            }
        }
        let texts = &self.texts;
        self.last.retain(|at| texts[*at as usize].is_some());
        self.next = self.last.len();
    }
}
