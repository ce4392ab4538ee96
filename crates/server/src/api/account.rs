//! The memory and the time of one request that reads series, within the limits of queries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidewatch_env::Clock;
use tidewatch_promql::{Lease, MemoryPool, QueryError};
use tidewatch_storage::SelectError;
use tokio::sync::OwnedSemaphorePermit;

use super::query::{CancelOnDrop, place};
use crate::error::{ApiError, ErrorKind};
use crate::service::Service;

/// What a request holds while it computes; the leases stay until its answer is sent.
pub(super) struct Account {
    pool: Arc<MemoryPool>,
    left: u64,
    limit: u64,
    leases: Vec<Lease>,
    clock: Arc<dyn Clock>,
    deadline_ns: u64,
    cancel: Arc<AtomicBool>,
    /// Why it was last said no.
    refusal: Option<ApiError>,
    place: Option<OwnedSemaphorePermit>,
}

impl Account {
    /// Waits for a place among the queries. The guard ends the work when it is dropped.
    pub(super) async fn open(service: &Arc<Service>) -> Result<(Account, CancelOnDrop), ApiError> {
        let timeout_ms = service.app.limits.query_timeout_ms;
        let clock = service.app.env.clock.clone();
        let deadline_ns = clock.monotonic_ns() + timeout_ms * 1_000_000;
        let place = place(service, timeout_ms).await?;
        let cancel = Arc::new(AtomicBool::new(false));
        let limit = service.app.limits.query_memory_bytes as u64;
        let account = Account {
            pool: service.queries.memory.clone(),
            left: limit,
            limit,
            leases: Vec::new(),
            clock,
            deadline_ns,
            cancel: cancel.clone(),
            refusal: None,
            place: Some(place),
        };
        Ok((account, CancelOnDrop(cancel)))
    }

    /// Takes so many bytes more; `false` where there is no memory or no time for them.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        match self.try_take(bytes) {
            Ok(()) => true,
            Err(refusal) => {
                self.refusal = Some(refusal);
                false
            }
        }
    }

    pub(super) fn try_take(&mut self, bytes: u64) -> Result<(), ApiError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(ApiError::new(ErrorKind::Canceled, "the request was canceled"));
        }
        if self.clock.monotonic_ns() >= self.deadline_ns {
            return Err(ApiError::new(ErrorKind::Timeout, "the request timed out"));
        }
        if bytes == 0 {
            // Asked for the time alone.
            return Ok(());
        }
        let Some(left) = self.left.checked_sub(bytes) else {
            let text = format!("the answer needs more than {} bytes of memory: narrow match[]", self.limit);
            return Err(ApiError::new(ErrorKind::Execution, text));
        };
        let Some(lease) = self.pool.take(bytes) else {
            return Err(QueryError::Overloaded { limit_bytes: self.pool.limit() }.into());
        };
        self.left = left;
        self.leases.push(lease);
        Ok(())
    }

    /// An error of the store, or why this account made it one.
    pub(super) fn explain(&mut self, error: SelectError) -> ApiError {
        match (error, self.refusal.take()) {
            (SelectError::NoRoom, Some(refusal)) => refusal,
            (error, _) => error.into(),
        }
    }

    /// Lets the next query in; what is left keeps the memory of the answer.
    pub(super) fn computed(mut self) -> Vec<Lease> {
        self.place = None;
        self.leases
    }
}
