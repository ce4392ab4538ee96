//! Definitions that are to be logged once more.
//!
//! ```text
//! log ─► definitions │ the same, if short │ samples of theirs, and of others │ the same once more │ …
//!                                         └─ a page of the disk, at least ────┘
//! ```
//!
//! All samples of a series behind the last image rest on the frame that defines it: one that is damaged would cost
//! them all. So it is logged once more so far behind that no page has both. A short one, as those of a small log are,
//! is logged twice at once besides: until the last one comes a changed bit would cost what is a page of samples then.
//! What a process did not come to repeat the next one does.
//!
//! Invariant: a frame waits at most until a page of others is logged, and so they are few.
//!
//! Not here: what a start makes of the second one (`recover`).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::append::FrameLog;
use super::registry::{Registry, SeriesId};

/// Bytes of the log between the two.
const APART: u64 = 4096;

/// How often a frame of definitions is logged before the samples.
pub(super) fn at_once(frame: &[u8]) -> usize {
    if (frame.len() as u64) < APART { 2 } else { 1 }
}

#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Bytes of samples that were logged so far.
    logged: AtomicU64,
    any: AtomicBool,
    waiting: Mutex<VecDeque<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    /// What was logged then.
    since: u64,
    ids: Range<u32>,
    frame: Vec<u8>,
}

impl Repeats {
    /// Notes that the frame is in the log, but not far enough behind, which defines these series.
    pub(super) fn add(&self, ids: Range<u32>, frame: Vec<u8>) {
        let since = self.logged.load(Ordering::Relaxed);
        self.waiting.lock().push_back(Waiting { since, ids, frame });
        self.any.store(true, Ordering::Relaxed);
    }

    /// Notes that so many bytes were logged, and logs what is far enough behind.
    pub(super) fn advance(&self, bytes: u64, registry: &Registry, log: &dyn FrameLog) {
        let logged = self.logged.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock();
        while waiting.front().is_some_and(|first| first.since + APART <= logged)
            && let Some(Waiting { mut ids, frame, .. }) = waiting.pop_front()
        {
            if ids.any(|id| registry.is_alive(SeriesId(id))) {
                // Nobody waits for it. A log that takes it no more takes no samples either.
                let _ = log.append(&frame);
            }
        }
        self.any.store(!waiting.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tidewatch_model::{Batch, Labels, Limits, RawLabels, Sample};

    use crate::head::Head;
    use crate::head::append::{Kept, Terms};
    use crate::log::{Frame, read_frame};

    #[test]
    fn definitions_are_logged_again_a_page_later() {
        let (head, log, limits) = (Head::new(1), Kept::default(), Limits::default());
        let append = |name: &str, timestamp: i64| {
            let labels = Labels::from_pairs([("__name__", name)]);
            let mut batch = Batch::new();
            batch.push(RawLabels::Canonical(labels.as_bytes()), &[Sample { timestamp, value: 0.1 }]);
            let terms = Terms {
                now_ms: 0,
                from_ms: 0,
                until_ms: i64::MAX,
                retention_ms: None,
                limits: &limits,
                series_max: 10,
            };
            head.append(&batch, &terms, &log).expect("a good log");
        };
        append("a", 1);
        append("b", 2);
        (3..1000).for_each(|timestamp| append("a", timestamp * 77));
        let (mut bytes, mut seen) = (0, Vec::new());
        for frame in log.0.lock().iter() {
            if let Ok(Frame::Definitions(definitions)) = read_frame(frame) {
                definitions.for_each(|id, _| seen.push((id.0, bytes / 4096))).expect("whole");
            } else {
                bytes += frame.len();
            }
        }
        assert!(bytes > 8192, "{bytes}");
        assert_eq!(seen, [(0, 0), (0, 0), (1, 0), (1, 0), (0, 1), (1, 1)]);
    }
}
