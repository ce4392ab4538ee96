//! The simulated environment: one seed decides everything that chance decides on a real one.
//!
//! Invariant: nothing here reads a real clock, file or source of randomness, so the same seed
//! and the same calls give the same trace.

mod content;
mod disk;
mod faults;
mod names;
mod quiet;
mod random;

use std::sync::Arc;

pub use disk::SimDisk;
pub use faults::Failure;
pub use quiet::{SimClock, SimEntropy, SimParallel};

use crate::real::{RealClock, RealEntropy};
use crate::traits::Env;

/// 2026-01-01T00:00:00Z, when a simulated clock starts.
pub const SIM_START_MS: i64 = 1_767_225_600_000;

/// An environment for tests, with the handles that control it.
#[derive(Clone)]
pub struct Simulation {
    pub env: Env,
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
}

impl Env {
    /// A simulation that starts at [`SIM_START_MS`] with an empty disk.
    pub fn simulated(seed: u64) -> Simulation {
        let disk = SimDisk::new(seed);
        let clock = Arc::new(SimClock::at(SIM_START_MS));
        let env = Env {
            disk: Arc::new(disk.clone()),
            clock: clock.clone(),
            entropy: Arc::new(SimEntropy::new(seed)),
            parallel: Arc::new(SimParallel::new(seed)),
        };
        Simulation { env, disk, clock }
    }

    /// Files in memory that end with the process, under the real clock.
    pub fn in_memory() -> Env {
        Env {
            disk: Arc::new(SimDisk::plain()),
            clock: Arc::new(RealClock::start()),
            entropy: Arc::new(RealEntropy),
            parallel: Arc::new(SimParallel::new(0)),
        }
    }

    /// Files in memory under a clock that the caller moves; the same in every run.
    pub fn in_memory_at(clock: Arc<SimClock>) -> Env {
        Env {
            disk: Arc::new(SimDisk::plain()),
            clock,
            entropy: Arc::new(SimEntropy::new(0)),
            parallel: Arc::new(SimParallel::new(0)),
        }
    }
}
