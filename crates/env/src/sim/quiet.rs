//! A clock that only moves when told, seeded entropy, and parallel work that is not.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::random::Random;
use crate::traits::{Clock, Entropy, Job, Parallel};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct SimClock {
    wall_ms: AtomicI64,
    monotonic_ns: AtomicU64,
}

impl SimClock {
    pub fn at(wall_ms: i64) -> SimClock {
        SimClock { wall_ms: AtomicI64::new(wall_ms), monotonic_ns: AtomicU64::new(0) }
    }

    /// Time passes: both clocks go on.
    pub fn advance_ms(&self, ms: u64) {
        let wall = i64::try_from(ms).expect("less than 292 million years");
        self.wall_ms.fetch_add(wall, Ordering::SeqCst);
        self.monotonic_ns.fetch_add(ms * 1_000_000, Ordering::SeqCst);
    }

    /// Somebody sets the wall clock; no time passes.
    pub fn jump_to_ms(&self, wall_ms: i64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ns(&self) -> u64 {
        self.monotonic_ns.load(Ordering::SeqCst)
    }
}

/// The same bytes for the same seed.
#[derive(Debug)]
pub struct SimEntropy {
    random: Mutex<Random>,
}

impl SimEntropy {
    pub fn new(seed: u64) -> SimEntropy {
        SimEntropy { random: Mutex::new(Random::new(seed)) }
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.random.lock().fill(bytes);
    }
}

/// Runs jobs one after the other on the caller's thread, in an order drawn from the seed, so
/// that code which relies on an order is found out.
#[derive(Debug)]
pub struct SimParallel {
    random: Mutex<Random>,
}

impl SimParallel {
    pub fn new(seed: u64) -> SimParallel {
        SimParallel { random: Mutex::new(Random::new(seed)) }
    }
}

impl Parallel for SimParallel {
    fn width(&self) -> usize {
        1
    }

    fn run<'a>(&self, mut jobs: Vec<Job<'a>>) {
        let mut panicked = None;
        while !jobs.is_empty() {
            // The lock is not held while a job runs: a job may run jobs itself.
            let next = self.random.lock().upto(jobs.len() - 1);
            let outcome = catch_unwind(AssertUnwindSafe(jobs.swap_remove(next)));
            panicked = panicked.or(outcome.err());
        }
        if let Some(payload) = panicked {
            resume_unwind(payload);
        }
    }
}
