//! Memory that queries share.
//!
//! Each query has a limit of its own ([`crate::QueryContext::memory_bytes`]); a [`MemoryPool`] bounds
//! what all of them hold together, answers that are still being sent among it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number of bytes that many take from and give back to.
#[derive(Debug)]
pub struct MemoryPool {
    limit: u64,
    used: AtomicU64,
}

impl MemoryPool {
    pub fn new(limit: u64) -> Arc<MemoryPool> {
        Arc::new(MemoryPool { limit, used: AtomicU64::new(0) })
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Takes bytes until the lease is dropped; `None` where so many are not left.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Lease> {
        let lease = Lease { pool: Arc::clone(self), bytes };
        // Where it is too much the lease gives it back at once.
        let used = self.used.fetch_add(bytes, Relaxed).saturating_add(bytes);
        (used <= self.limit).then_some(lease)
    }
}

/// A part of a pool that is in use.
pub struct Lease {
    pool: Arc<MemoryPool>,
    bytes: u64,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.bytes, Relaxed);
    }
}
