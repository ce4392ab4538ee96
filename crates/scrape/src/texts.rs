//! The texts of a target's series, in the order in which the last good scrape showed them.
//!
//! Invariants: of a scrape that shows the same texts in the same order nothing is noted until it
//! differs; a text that comes again within a scrape is no difference. `last` and `order` have each text
//! once, so they are no longer than there are texts. `last` has numbers of texts that are there; a text
//! that is not in it came since.
//!
//! Not here: what a text stands for, and how many are kept (`cache`).

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use crate::cache::Known;
use crate::numbered::Numbered;
use crate::room;

struct Text {
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
    texts: Numbered<Text>,
    bytes: usize,
    /// The number of the scrape in progress, from 1.
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
        self.texts.len()
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

    pub(crate) fn likely(&self) -> &[u8] {
        self.last.get(self.next).map_or(&[], |at| &self.texts[*at].text)
    }

    /// What a text stands for that this scrape shows.
    pub(crate) fn find(&mut self, text: &[u8]) -> Option<Known> {
        if let Some(&at) = self.last.get(self.next)
            && let known = &self.texts[at]
            && *known.text == *text
        {
            let known = known.known;
            self.next += 1;
            self.note(at);
            return Some(known);
        }
        let at = self.texts.find(self.hasher.hash_one(text), |known| *known.text == *text)?;
        let known = &self.texts[at];
        let (stands_for, place) = (known.known, known.place as usize);
        let has_place = self.last.get(place) == Some(&at);
        let comes_again = match self.order {
            Some(_) => known.seen == self.scrape,
            None => has_place && place < self.next,
        };
        if !comes_again {
            self.differ();
            self.note(at);
            // What followed it then is likely to follow it now.
            self.next = if has_place { place + 1 } else { self.next };
        }
        Some(stands_for)
    }

    pub(crate) fn add(&mut self, text: &[u8], known: Known) {
        self.differ();
        self.bytes += text.len();
        let hash = self.hasher.hash_one(text);
        let at = self.texts.add(hash, Text { text: text.into(), known, seen: 0, place: 0 });
        self.note(at);
    }

    /// Notes that this scrape shows a text, where the order does not say so.
    fn note(&mut self, at: u32) {
        if let Some(order) = &mut self.order
            && std::mem::replace(&mut self.texts[at].seen, self.scrape) != self.scrape
        {
            order.push(at);
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
        if room::is_excess(self.last.capacity(), self.last.len()) {
            self.last.shrink_to_fit();
        }
        for (place, at) in self.last.iter().enumerate() {
            self.texts[*at].place = place as u32;
        }
    }

    /// Forgets what this scrape did not show; `gone` is given what each stood for.
    pub(crate) fn forget_unseen(&mut self, mut gone: impl FnMut(Known)) {
        self.differ();
        let (scrape, bytes) = (self.scrape, &mut self.bytes);
        let gone = |text: Text| {
            *bytes -= text.text.len();
            gone(text.known);
        };
        self.texts.forget(|text| text.seen != scrape, gone);
        let texts = &self.texts;
        self.last.retain(|at| texts.has(*at));
        self.next = self.last.len();
    }

    /// Whether there were far more texts than there are.
    pub(crate) fn has_excess_room(&self) -> bool {
        self.texts.has_excess_room()
    }

    /// How many texts there is room for.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.texts.room().max(self.last.capacity()).max(self.order.as_ref().map_or(0, Vec::capacity))
    }
}
