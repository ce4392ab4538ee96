//! The bounds of a running query: deadline, cancellation, bytes and samples held.
//!
//! One [`Guard`] is shared by all workers of a query. What holds memory for longer than one
//! series carries a [`Charge`], which gives back what it took when it is dropped. Every charge is
//! taken from the pool of all queries too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidewatch_env::Clock;

use crate::context::{QueryContext, QueryError};
use crate::memory::Lease;

/// Samples between two looks at the clock and the cancel flag.
const CHECK_SAMPLES: u64 = 4096;

const STAGE: &str = "expression evaluation";

#[derive(Clone)]
pub(crate) struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    context: QueryContext,
    samples_max: u64,
    bytes: AtomicU64,
    bytes_peak: AtomicU64,
    samples: AtomicU64,
    samples_peak: AtomicU64,
}

impl Guard {
    pub(crate) fn new(clock: Arc<dyn Clock>, context: QueryContext, samples_max: u64) -> Guard {
        let zero = || AtomicU64::new(0);
        let (bytes, bytes_peak, samples, samples_peak) = (zero(), zero(), zero(), zero());
        Guard {
            shared: Arc::new(Shared {
                clock,
                context,
                samples_max,
                bytes,
                bytes_peak,
                samples,
                samples_peak,
            }),
        }
    }

    /// Whether the query may go on.
    pub(crate) fn check(&self) -> Result<(), QueryError> {
        let context = &self.shared.context;
        if context.cancel.load(Relaxed) {
            return Err(QueryError::Canceled(STAGE));
        }
        if context.deadline_ns.is_some_and(|deadline| self.shared.clock.monotonic_ns() >= deadline) {
            return Err(QueryError::Timeout(STAGE));
        }
        Ok(())
    }

    /// Takes `bytes` and `samples` from the budget until the charge is dropped.
    pub(crate) fn charge(&self, bytes: u64, samples: u64) -> Result<Charge, QueryError> {
        let shared = &self.shared;
        let mut charge = Charge { guard: self.clone(), bytes, samples: 0, _lease: None };
        let asked = bytes;
        let bytes = shared.bytes.fetch_add(bytes, Relaxed) + bytes;
        shared.bytes_peak.fetch_max(bytes, Relaxed);
        if bytes > shared.context.memory_bytes {
            return Err(QueryError::OutOfMemory { limit_bytes: shared.context.memory_bytes });
        }
        charge.add_samples(samples)?;
        if let Some(pool) = &shared.context.pool {
            let lease = pool.take(asked).ok_or(QueryError::Overloaded { limit_bytes: pool.limit() })?;
            charge._lease = Some(lease);
        }
        Ok(charge)
    }

    /// The budget of the query.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.shared.context.memory_bytes
    }

    pub(crate) fn bytes_peak(&self) -> u64 {
        self.shared.bytes_peak.load(Relaxed)
    }

    pub(crate) fn samples_peak(&self) -> u64 {
        self.shared.samples_peak.load(Relaxed)
    }
}

/// A part of the budget that is in use.
pub(crate) struct Charge {
    guard: Guard,
    bytes: u64,
    samples: u64,
    _lease: Option<Lease>,
}

impl Charge {
    fn add_samples(&mut self, more: u64) -> Result<(), QueryError> {
        let shared = &self.guard.shared;
        self.samples += more;
        let samples = shared.samples.fetch_add(more, Relaxed) + more;
        shared.samples_peak.fetch_max(samples, Relaxed);
        if samples > shared.samples_max {
            return Err(QueryError::TooManySamples("query execution"));
        }
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.guard.shared.bytes.fetch_sub(self.bytes, Relaxed);
        self.guard.shared.samples.fetch_sub(self.samples, Relaxed);
    }
}

/// What one worker holds of the series that it is at: grows to the largest of them.
#[derive(Default)]
pub(crate) struct Room {
    bytes: u64,
    samples: u64,
    charges: Vec<Charge>,
}

impl Room {
    /// Bytes are taken in large pieces, samples one by one: their number is what a caller is told.
    pub(crate) fn grow_to(&mut self, guard: &Guard, bytes: u64, samples: u64) -> Result<(), QueryError> {
        if bytes > self.bytes {
            let more = (bytes - self.bytes).max(self.bytes).max(4 << 10);
            self.charges.push(guard.charge(more, 0)?);
            self.bytes += more;
        }
        if samples > self.samples
            && let Some(charge) = self.charges.last_mut()
        {
            charge.add_samples(samples - self.samples)?;
            self.samples = samples;
        }
        Ok(())
    }
}

/// A worker's count with the guard that it asks: for kernels whose windows overlap, so that a
/// series' cost is not bounded by its samples.
pub(crate) struct Checks<'a> {
    pub pace: &'a mut Pace,
    pub guard: &'a Guard,
}

impl Checks<'_> {
    /// Says that so many samples were looked at.
    pub(crate) fn worked(&mut self, samples: usize) -> Result<(), QueryError> {
        self.pace.advance(self.guard, samples)
    }
}

/// Counts one worker's samples between checks.
#[derive(Default)]
pub(crate) struct Pace {
    samples: u64,
}

impl Pace {
    pub(crate) fn advance(&mut self, guard: &Guard, samples: usize) -> Result<(), QueryError> {
        // A series costs something even where it has no samples.
        self.samples += samples as u64 + 16;
        if self.samples < CHECK_SAMPLES {
            return Ok(());
        }
        self.samples = 0;
        guard.check()
    }
}
