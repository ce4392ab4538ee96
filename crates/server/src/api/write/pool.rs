//! Memory of write requests: buffers that go from one to the next, and the bound on what all hold.

use std::sync::Arc;

use parking_lot::Mutex;
use tidewatch_ingest::{Replaced, Spelling};
use tidewatch_model::Batch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Buffers that wait for a request.
const IDLE_MAX: usize = 32;
/// Buffers larger than this are not kept: one huge request must not cost memory for ever.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// The unit in which [`Room`] is counted, as semaphores count to 2^29 at least.
const ROOM_UNIT: usize = 1 << 10;

/// Memory to decode one request.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) body: Vec<u8>,
    pub(super) batch: Batch<'static>,
    pub(super) labels: LabelBuffers,
    pub(super) replaced: Replaced,
}

/// Labels that are not in the body as they are wanted: those of 1.0 that stand in odd places, those of
/// 2.0.
#[derive(Default)]
pub(super) struct LabelBuffers {
    pub(super) reordered: Vec<u8>,
    pub(super) spelling: Spelling,
}

/// Buffers for write requests, and the bound on what all of them hold.
///
/// A request holds memory for what it received while it waits for the rest, and memory to decode it
/// for a fraction of a millisecond: so few of the large buffers are in use, and who decodes gets those
/// that were used last, which the processor's cache still has.
pub(crate) struct WritePool {
    received: Mutex<Vec<Vec<u8>>>,
    idle: Mutex<Vec<Buffers>>,
    room: Arc<Semaphore>,
}

impl WritePool {
    pub(crate) fn new(bytes_in_flight: usize) -> WritePool {
        let units = (bytes_in_flight / ROOM_UNIT).clamp(1, Semaphore::MAX_PERMITS);
        WritePool {
            received: Mutex::default(),
            idle: Mutex::default(),
            room: Arc::new(Semaphore::new(units)),
        }
    }

    /// Takes room for `bytes`, where there is some.
    pub(super) fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(ROOM_UNIT)).ok()?;
        self.room.clone().try_acquire_many_owned(units).ok()
    }

    /// A buffer to receive a request in.
    pub(super) fn take_received(&self) -> Vec<u8> {
        self.received.lock().pop().unwrap_or_default()
    }

    pub(super) fn give_received(&self, mut compressed: Vec<u8>) {
        compressed.clear();
        keep(&self.received, compressed.capacity(), compressed);
    }

    pub(super) fn take(&self) -> Buffers {
        self.idle.lock().pop().unwrap_or_default()
    }

    pub(super) fn give(&self, mut buffers: Buffers) {
        let Buffers { body, batch, labels: LabelBuffers { reordered, spelling }, replaced } = &mut buffers;
        reordered.clear();
        spelling.clear();
        batch.clear();
        let bytes = body.capacity() + reordered.capacity() + spelling.capacity() + replaced.capacity();
        // Two bytes of a body may have become a histogram, which is a hundred times as much.
        keep(&self.idle, bytes.max(batch.capacity()), buffers);
    }
}

fn keep<T>(idle: &Mutex<Vec<T>>, bytes: usize, memory: T) {
    let mut idle = idle.lock();
    if bytes <= KEPT_BYTES_MAX && idle.len() < IDLE_MAX {
        idle.push(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Empty histograms take two bytes each of a request and hundreds of memory.
    #[test]
    fn what_a_large_batch_took_is_given_back() {
        let pool = WritePool::new(1 << 20);
        let kept = |histograms| {
            let mut buffers = pool.take();
            buffers.batch.histograms.reserve_exact(histograms);
            pool.give(buffers);
            pool.idle.lock().drain(..).count()
        };
        assert_eq!([1000, 200_000].map(kept), [1, 0]);
    }
}
