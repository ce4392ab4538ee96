//! Definitions that are to be logged once more.
//!
//! ```text
//! log ─► definitions │ the same, compressed │ samples of theirs, and of others │ the same once more, compressed │ …
//!                                           └─ a page of the disk, at least ───┘
//! ```
//!
//! All samples of a series behind the last image rest on the frame that defines it: one that is damaged would cost
//! them all. So it is logged again at once, for a bit that changes, and once more so far behind that no page has all
//! of them. What a process did not come to repeat the next one does.
//!
//! Invariant: a frame waits at most until a page of others is logged, and so they are few.
//!
//! Not here: how a repeat is written (`crate::repeat`), what a start makes of it (`recover`).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tidewatch_storage::{AppendError, Ticket};

use super::append::FrameLog;
use super::registry::{Registry, SeriesId};
use crate::repeat::{set_far, write_repeat};
use crate::split::{log_each, split};

/// Bytes of the log between the first and the last.
const APART: u64 = 4096;

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
    repeat: Vec<u8>,
}

impl Repeats {
    /// Logs a frame of definitions of these series, which the log just got, again, and notes that it is to be
    /// logged once more. A log that refuses keeps it, as the head keeps the series.
    pub(super) fn log_again(
        &self,
        ids: Range<u32>,
        definitions: &[u8],
        log: &dyn FrameLog,
    ) -> Result<Ticket, AppendError> {
        // The log has what is too long for it in parts, and each of these is to be known by its own hash.
        let Some(parts) = split(definitions) else {
            return self.log_one_again(ids, definitions, log);
        };
        log_each(parts, |(ids, part)| self.log_one_again(ids, &part, log))
    }

    fn log_one_again(
        &self,
        ids: Range<u32>,
        definitions: &[u8],
        log: &dyn FrameLog,
    ) -> Result<Ticket, AppendError> {
        let repeat = write_repeat(definitions);
        let ticket = log.append(&repeat);
        self.wait(ids, repeat);
        ticket
    }

    /// Notes that a frame of definitions of these series is to be logged once more.
    pub(super) fn add(&self, ids: Range<u32>, definitions: &[u8]) {
        self.wait(ids, write_repeat(definitions));
    }

    fn wait(&self, ids: Range<u32>, mut repeat: Vec<u8>) {
        set_far(&mut repeat);
        let since = self.logged.load(Ordering::Relaxed);
        self.waiting.lock().push_back(Waiting { since, ids, repeat });
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
            && let Some(Waiting { mut ids, repeat, .. }) = waiting.pop_front()
        {
            if ids.any(|id| registry.is_alive(SeriesId(id))) {
                // Nobody waits for it. A log that takes it no more takes no samples either.
                let _ = log.append(&repeat);
            }
        }
        self.any.store(!waiting.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tidewatch_model::{Batch, Labels, Limits, RawLabels, Sample};
    use tidewatch_storage::AppendOutcome;

    use crate::blocks::Blocks;
    use crate::head::Head;
    use crate::head::append::{Kept, Terms};
    use crate::log::{Frame, read_frame};
    use crate::repeat::Place;

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
                blocks: &Blocks::default(),
                looked: None,
            };
            head.append(&batch, &terms, &log, &mut AppendOutcome::default()).expect("a good log");
        };
        append("a", 1);
        append("b", 2);
        (3..1000).for_each(|timestamp| append("a", timestamp * 77));
        let (mut bytes, mut seen) = (0, Vec::new());
        for frame in log.0.lock().iter() {
            let (place, definitions) = match read_frame(frame).expect("whole") {
                Frame::Definitions(_) => ("first", frame.clone()),
                Frame::Repeat(repeat) if repeat.place == Place::Near => {
                    ("near", repeat.unpack().expect("whole"))
                }
                Frame::Repeat(repeat) => ("far", repeat.unpack().expect("whole")),
                _ => {
                    bytes += frame.len();
                    continue;
                }
            };
            let Ok(Frame::Definitions(definitions)) = read_frame(&definitions) else { panic!("{place}") };
            definitions.for_each(|id, _| seen.push((id.0, place, bytes / 4096))).expect("whole");
        }
        assert!(bytes > 8192, "{bytes}");
        let expected =
            [(0, "first", 0), (0, "near", 0), (1, "first", 0), (1, "near", 0), (0, "far", 1), (1, "far", 1)];
        assert_eq!(seen, expected);
    }
}
