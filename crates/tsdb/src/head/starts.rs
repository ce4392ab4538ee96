//! When the counters of a series started: a step function over time.
//!
//! A counter starts seldom, so a series has few steps however many samples it has, and what
//! does not change is neither stored nor logged. A step holds from its time on to the next.
//!
//! ```text
//! samples   t=10  t=20  t=30         steps   10 → 5
//! start        5     5    25                 30 → 25
//! ```

/// From a time on the counter's start is this one; 0 where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) from: i64,
    pub(crate) start: i64,
}

/// The steps of one series, ascending in time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    steps: Vec<Step>,
    /// Before this time steps were forgotten that a start would replay: so what comes there says its start in any
    /// case. Whatever came there since has a step of its own, and there is a step at this time.
    forgotten_until: Option<i64>,
}

/// The start that steps give for a time.
pub(crate) fn start_at(steps: &[Step], timestamp: i64) -> i64 {
    let after = steps.partition_point(|step| step.from <= timestamp);
    after.checked_sub(1).map_or(0, |at| steps[at].start)
}

/// Appends the starts of ascending timestamps to `out`.
pub(crate) fn starts_of(steps: &[Step], timestamps: &[i64], out: &mut Vec<i64>) {
    let mut next = 0;
    let mut start = 0;
    for timestamp in timestamps {
        while let Some(step) = steps.get(next).filter(|step| step.from <= *timestamp) {
            start = step.start;
            next += 1;
        }
        out.push(start);
    }
}

impl Starts {
    /// Says of the sample at a time when its counter started, and of no other sample: `is_newest`
    /// where there is none after it. Gives the steps that this takes, to be logged.
    pub(crate) fn set(&mut self, timestamp: i64, start: i64, is_newest: bool) -> [Option<Step>; 2] {
        let before = start_at(&self.steps, timestamp);
        let is_forgotten = self.forgotten_until.is_some_and(|until| timestamp < until);
        if before == start && !is_forgotten {
            return [None; 2];
        }
        let step = Step { from: timestamp, start };
        let next = timestamp.saturating_add(1);
        let is_step = self.steps.binary_search_by_key(&next, |step| step.from).is_ok();
        let back = (!is_newest && !is_step && !is_forgotten).then_some(Step { from: next, start: before });
        self.insert(step);
        back.into_iter().for_each(|back| self.insert(back));
        [Some(step), back]
    }

    /// Puts a step in its place; one that is there at its time goes.
    pub(crate) fn insert(&mut self, step: Step) {
        match self.steps.binary_search_by_key(&step.from, |step| step.from) {
            Ok(at) => self.steps[at] = step,
            Err(at) => self.steps.insert(at, step),
        }
    }

    /// Forgets what holds only before a time.
    pub(crate) fn truncate(&mut self, floor: i64) {
        let after = self.steps.partition_point(|step| step.from <= floor);
        if after > 1 {
            self.steps.drain(..after - 1);
            self.forgotten_until = self.forgotten_until.max(Some(self.steps[0].from));
        }
    }

    /// An image has the steps, so a start brings back these alone.
    pub(crate) fn imaged(&mut self) {
        self.forgotten_until = None;
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(crate) fn bytes_held(&self) -> usize {
        self.steps.capacity() * size_of::<Step>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(starts: &Starts, expected: &[(i64, i64)]) {
        let times: Vec<i64> = expected.iter().map(|(time, _)| *time).collect();
        let mut found = Vec::new();
        starts_of(starts.steps(), &times, &mut found);
        assert_eq!(times.iter().copied().zip(found).collect::<Vec<_>>(), expected);
        expected.iter().for_each(|(time, start)| assert_eq!(start_at(starts.steps(), *time), *start));
    }

    #[test]
    fn a_start_is_of_its_sample_whenever_it_comes() {
        let mut starts = Starts::default();
        assert_eq!(starts.set(10, 0, true), [None; 2]);
        assert_eq!(starts.set(20, 5, true), [Some(Step { from: 20, start: 5 }), None]);
        assert_eq!(starts.set(30, 5, true), [None; 2]);
        assert_eq!(starts.set(40, 35, true)[1], None);
        check(&starts, &[(10, 0), (20, 5), (30, 5), (40, 35)]);
        // Late ones change nothing but themselves.
        assert!(starts.set(25, 7, false)[1].is_some());
        assert!(starts.set(26, 8, false)[1].is_some());
        check(&starts, &[(10, 0), (20, 5), (25, 7), (26, 8), (30, 5), (40, 35)]);
        starts.truncate(28);
        check(&starts, &[(30, 5), (40, 35)]);
    }

    /// A start has the steps that were forgotten again, until an image is there.
    #[test]
    fn what_comes_where_steps_were_forgotten_says_its_start_in_any_case() {
        let mut starts = Starts::default();
        for (timestamp, start) in [(10, 0), (20, 5), (30, 25), (40, 35)] {
            starts.set(timestamp, start, true);
        }
        // Before the first step nothing was forgotten.
        assert_eq!(starts.set(15, 0, false), [None; 2]);
        let mut replayed = starts.clone();
        starts.truncate(35);
        let late = [(21, 0), (25, 0), (22, 9), (23, 9), (29, 0)];
        for (timestamp, start) in late {
            let steps = starts.set(timestamp, start, false);
            assert_eq!(steps, [Some(Step { from: timestamp, start }), None]);
            steps.into_iter().flatten().for_each(|step| replayed.insert(step));
        }
        assert_eq!(starts.set(35, 25, false), [None; 2]);
        for starts in [&starts, &replayed] {
            check(starts, &[(21, 0), (22, 9), (23, 9), (25, 0), (29, 0), (30, 25), (35, 25), (40, 35)]);
        }
        // A step behind those that came late does not say that those before it are known.
        starts.truncate(24);
        assert_eq!(starts.set(28, 0, false), [Some(Step { from: 28, start: 0 }), None]);
        starts.imaged();
        assert_eq!(starts.set(27, 0, false), [None; 2]);
        let back = Step { from: 27, start: 0 };
        assert_eq!(starts.set(26, 7, false), [Some(Step { from: 26, start: 7 }), Some(back)]);
    }
}
