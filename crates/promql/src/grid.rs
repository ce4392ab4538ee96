//! The times at which an expression is evaluated.

/// `count` times from `start`, `step` milliseconds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Grid {
    pub start: i64,
    /// Positive, also where there is one time only.
    pub step: i64,
    pub count: usize,
}

impl Grid {
    pub(crate) fn single(at: i64) -> Grid {
        Grid { start: at, step: 1, count: 1 }
    }

    /// The times from `start` up to and including `end`; none where `end` lies before `start`.
    pub(crate) fn new(start: i64, end: i64, step: i64) -> Grid {
        let step = step.max(1);
        let count = if end < start { 0 } else { (end.saturating_sub(start) / step) as usize + 1 };
        Grid { start, step, count }
    }

    pub(crate) fn time(&self, step: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(step as i64))
    }

    pub(crate) fn times(self) -> impl ExactSizeIterator<Item = i64> {
        (0..self.count).map(move |step| self.time(step))
    }

    /// Of a single time, so that the order of a vector's elements matters.
    pub(crate) fn is_instant(&self) -> bool {
        self.count == 1
    }
}
