//! What a target's metadata lines were in the last good scrape, by their hashes: a scrape that shows the
//! same again need not read them.
//!
//! Invariants: a line is skipped only where all before it were as in the last scrape; from the first that
//! differs on, and for those before it, metadata is read (`target_loop`). Of an answer with more than
//! [`LINES_MAX`] nothing is remembered: all of the next is read.
//!
//! Not here: what the lines say (`metadata`).

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use tidewatch_model::MetricType;

/// Lines that are remembered of an answer, 1 MiB: those of 20,000 families.
const LINES_MAX: usize = 1 << 16;

#[derive(Debug, Clone, Copy)]
struct Line {
    hash: u64,
    /// What a `TYPE` line says.
    kind: Option<MetricType>,
}

/// The kind that a known line says, if it says one.
pub(crate) type Skipped = Option<MetricType>;

#[derive(Debug)]
pub(crate) struct Lines {
    hasher: FixedState,
    last: Vec<Line>,
    /// How many of them this scrape has shown, until it differs.
    next: usize,
    /// Those of this scrape, once it differs.
    lines: Option<Vec<Line>>,
}

impl Lines {
    /// The seed keeps a hostile target from choosing lines that are taken for others.
    pub(crate) fn new(seed: u64) -> Lines {
        Lines { hasher: FixedState::with_seed(seed), last: Vec::new(), next: 0, lines: None }
    }

    pub(crate) fn begin(&mut self) {
        (self.next, self.lines) = (0, None);
    }

    /// Has all lines of this scrape read, as the last one was in another grammar.
    pub(crate) fn expect_nothing(&mut self) {
        self.last.clear();
    }

    /// Whether the line that comes now is the one that came here in the last scrape.
    pub(crate) fn skip(&mut self, line: &[u8]) -> Option<Skipped> {
        let likely = self.last.get(self.next).filter(|_| self.lines.is_none())?;
        (likely.hash == self.hasher.hash_one(line)).then(|| {
            self.next += 1;
            likely.kind
        })
    }

    /// Notes a line that was not skipped. Whether those before it were.
    pub(crate) fn read(&mut self, line: &[u8], kind: Skipped) -> bool {
        let line = Line { hash: self.hasher.hash_one(line), kind };
        let have_skipped = self.lines.is_none() && self.next > 0;
        let lines = self.lines.get_or_insert_with(|| self.last[..self.next].to_vec());
        // One more than are remembered says that there are too many.
        if lines.len() <= LINES_MAX {
            lines.push(line);
        }
        have_skipped
    }

    /// Whether a scrape that is over has shown the same lines as the last one.
    pub(crate) fn are_as_before(&self) -> bool {
        self.lines.is_none() && self.next == self.last.len()
    }

    /// Whether all lines of a scrape that is over were skipped, and others that came last time are missing.
    pub(crate) fn are_fewer(&self) -> bool {
        self.lines.is_none() && self.next < self.last.len()
    }

    /// Ends a scrape. After a failed one nothing is known, and the next is read.
    pub(crate) fn finish(&mut self, good: bool) {
        if good && self.are_as_before() {
            return;
        }
        // Where the last ones are missing those before them are what there is.
        self.last.truncate(self.next);
        self.last = self.lines.take().unwrap_or(std::mem::take(&mut self.last));
        if !good || self.last.len() > LINES_MAX {
            self.last.clear();
        }
        self.last.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many lines of an answer are read, and how many there is room for after it.
    fn scrape(lines: &mut Lines, answer: impl Iterator<Item = usize>) -> (usize, usize) {
        lines.begin();
        let mut read = 0;
        for line in answer {
            let line = format!("# HELP a {line}\n");
            if lines.skip(line.as_bytes()).is_none() {
                lines.read(line.as_bytes(), None);
                read += 1;
            }
        }
        lines.finish(true);
        assert!(lines.lines.is_none());
        (read, lines.last.capacity())
    }

    #[test]
    fn as_many_lines_as_a_sane_target_has_are_remembered() {
        let mut lines = Lines::new(1);
        assert_eq!(scrape(&mut lines, 0..LINES_MAX), (LINES_MAX, LINES_MAX));
        assert_eq!(scrape(&mut lines, 0..LINES_MAX), (0, LINES_MAX));
        for _ in 0..2 {
            assert_eq!(scrape(&mut lines, 0..LINES_MAX + 1).1, 0);
        }
        assert_eq!(scrape(&mut lines, 0..LINES_MAX), (LINES_MAX, LINES_MAX));
        assert_eq!(scrape(&mut lines, 0..3), (0, 3));
        assert_eq!(scrape(&mut lines, 0..3), (0, 3));
    }
}
