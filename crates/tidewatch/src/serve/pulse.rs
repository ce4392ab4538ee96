//! Notices that the process was stopped, or did not run: its tasks look at the clock every few seconds.
//!
//! Invariant: what one task hears all hear, with the same times, as groups that read each other's series
//! have to judge a sleep alike.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

/// Tasks that look at the clock every five seconds and do not for longer than this were stopped with the
/// process, or the clock was set.
const NOTICED_MS: i64 = 15_000;

/// How many sleeps are kept for tasks that have not heard of them. All look as often.
const SLEEPS_MAX: usize = 256;

#[derive(Default)]
pub struct Pulse {
    /// Guards what was noticed; held for a copy.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: usize,
    /// When the first of these began, and when any of them looked last.
    began_ms: i64,
    beat_ms: i64,
    /// The last sleeps, as since and until, and how many there were in all.
    sleeps: VecDeque<(i64, i64)>,
    count: usize,
}

/// A task that looks at the clock until this is dropped.
pub struct Listener {
    pulse: Arc<Pulse>,
    heard: usize,
}

impl Pulse {
    pub fn listen(self: &Arc<Self>, now_ms: i64) -> Listener {
        let mut state = self.state.lock();
        if state.listeners == 0 {
            // Nobody looked before.
            (state.began_ms, state.beat_ms) = (now_ms, now_ms);
        }
        state.listeners += 1;
        Listener { pulse: self.clone(), heard: state.count }
    }
}

impl Listener {
    /// Since when tasks look at the clock.
    pub fn began_ms(&self) -> i64 {
        self.pulse.state.lock().began_ms
    }

    /// Says that this task runs. Gives the sleeps that it has not heard of, the oldest first.
    pub fn beat(&mut self, now_ms: i64) -> Vec<(i64, i64)> {
        let mut state = self.pulse.state.lock();
        if now_ms - state.beat_ms > NOTICED_MS {
            let sleep = (state.beat_ms, now_ms);
            state.sleeps.push_back(sleep);
            state.count += 1;
            if state.sleeps.len() > SLEEPS_MAX {
                state.sleeps.pop_front();
            }
        }
        state.beat_ms = now_ms;
        let news = (state.count - self.heard).min(state.sleeps.len());
        self.heard = state.count;
        state.sleeps.range(state.sleeps.len() - news..).copied().collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.pulse.state.lock().listeners -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Each task had looked at another time, so of two groups one took a stop of four minutes for too long.
    #[test]
    fn all_tasks_hear_of_the_same_sleeps() {
        let pulse = Arc::new(Pulse::default());
        let mut a = pulse.listen(1_000_000);
        assert_eq!(a.beat(1_005_000), []);
        let mut b = pulse.listen(1_006_000);
        assert_eq!(b.beat(1_008_000), []);
        assert_eq!(a.beat(1_100_000), [(1_008_000, 1_100_000)]);
        // A clock that is set back is no sleep.
        assert_eq!(a.beat(1_050_000), []);
        assert_eq!(a.beat(1_065_001), [(1_050_000, 1_065_001)]);
        assert_eq!(b.beat(1_066_000), [(1_008_000, 1_100_000), (1_050_000, 1_065_001)]);
        assert_eq!(b.beat(1_067_000), []);
        // While nobody listens nobody looks.
        drop((a, b));
        let mut c = pulse.listen(2_000_000);
        assert_eq!(c.beat(2_001_000), []);
    }
}
