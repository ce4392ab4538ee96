//! Exemplars: the newest ones of all series, a bounded number.
//!
//! ```text
//! batch ─► newer than the series' newest? ─► ring, frame ─► log      query ◄─ ring
//! ```
//!
//! A ring for the whole store: when it is full, the oldest goes, whatever its series. Full it is with as many
//! as were asked for, or at [`EXEMPLAR_BYTES`] for each of these. Exemplars of a series ascend by time, value and
//! labels; what is before its newest, or the same again, is not taken.
//! A frame names series by their labels, since an exemplar may outlive its series in the head.
//!
//! A frame of exemplars (kind 20):
//!
//! ```text
//! offset  size  field
//!      0     2  kind, flags as in `log`
//!      2     4  count
//!            …  of each: the series' canonical label bytes, those of the exemplar (each with its
//!               length as varint), timestamp i64, value u64
//! ```
//!
//! The log is trimmed when images are written; what the ring has is logged again before that.

use std::cmp::Ordering;
use std::collections::VecDeque;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tidewatch_model::{Batch, BatchExemplar, Exemplar, Labels, LabelsBuilder, Limits, Matcher, RawLabels};
use tidewatch_storage::{AppendError, Ticket, TimeRange};

use crate::fields::{Reader, push_text};
use crate::head::append::FrameLog;
use crate::head::registry::check_labels;
use crate::log::{FrameError, FrameKind};

/// Characters of an exemplar's label names and values, as OpenMetrics bounds them.
const LABEL_CHARS_MAX: usize = 128;

/// What exemplars may take on average, with the labels of their series: those of long ones are fewer.
const EXEMPLAR_BYTES: usize = 1 << 10;

/// What is logged of one batch: each exemplar with its series' labels, which the batch may have once. What comes behind
/// is left out.
const BATCH_BYTES: usize = 64 << 20;

/// A frame that has grown to this is followed by another.
const FRAME_BYTES: usize = 4 << 20;

/// What exemplars of a series ascend by. Those that are equal are the same, bit for bit.
fn order(a: &Exemplar, b: &Exemplar) -> Ordering {
    let by_value = || a.value.total_cmp(&b.value);
    a.timestamp.cmp(&b.timestamp).then_with(by_value).then_with(|| a.labels.cmp(&b.labels))
}

/// The exemplars of a database.
#[derive(Debug)]
pub(crate) struct Exemplars {
    /// 0 keeps none.
    max: usize,
    /// Guards the ring; held while a frame is logged, so that the log has its order.
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// The series of each exemplar, oldest first.
    order: VecDeque<Labels>,
    /// Strictly ascending (see [`order`]); never empty.
    series: HashMap<Labels, VecDeque<Exemplar>>,
    /// Of all exemplars with their series' labels, as the log would have them.
    bytes: usize,
    /// Those that came while recovery was running, in their order; `None` once it is over.
    waiting: Option<Waiting>,
}

/// Exemplars with the labels of their series, as many as the ring may have.
#[derive(Debug, Default)]
struct Waiting {
    exemplars: Vec<(Labels, Exemplar)>,
    bytes: usize,
}

impl Waiting {
    fn push(&mut self, max: usize, labels: Labels, exemplar: Exemplar) -> Offer {
        if self.exemplars.len() >= max || self.bytes > max.saturating_mul(EXEMPLAR_BYTES) {
            return Offer::LeftOut;
        }
        self.bytes += size(&labels, &exemplar);
        self.exemplars.push((labels, exemplar));
        Offer::Taken
    }
}

/// What became of an exemplar that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offer {
    Taken,
    /// It is there already.
    Repeat,
    LeftOut,
}

fn size(series: &Labels, exemplar: &Exemplar) -> usize {
    series.as_bytes().len() + exemplar.labels.as_bytes().len() + size_of::<Exemplar>()
}

impl Ring {
    /// Takes an exemplar that comes after those of its series.
    fn push(&mut self, max: usize, labels: Labels, exemplar: Exemplar) -> Offer {
        let entry = self.series.entry(labels);
        // The series' own, so that there is one allocation for all its exemplars.
        let labels = entry.key().clone();
        let have = entry.or_default();
        match have.binary_search_by(|kept| order(kept, &exemplar)) {
            Ok(_) => return Offer::Repeat,
            Err(at) if at < have.len() => return Offer::LeftOut,
            Err(_) => {}
        }
        self.bytes += size(&labels, &exemplar);
        have.push_back(exemplar);
        self.order.push_back(labels);
        while self.order.len() > max || self.bytes > max.saturating_mul(EXEMPLAR_BYTES) {
            self.drop_oldest();
        }
        Offer::Taken
    }

    fn drop_oldest(&mut self) {
        let Some(labels) = self.order.pop_front() else { return };
        let of_series = self.series.get_mut(&labels).expect("the order names series that are here");
        self.bytes -= of_series.pop_front().map_or(0, |exemplar| size(&labels, &exemplar));
        if of_series.is_empty() {
            self.series.remove(&labels);
        }
    }
}

/// What became of the exemplars of a batch.
#[derive(Debug, Default)]
pub(crate) struct TakenExemplars {
    /// Where the log has those that were taken.
    pub(crate) ticket: Option<Ticket>,
    pub(crate) taken: u64,
    /// Those that were there already, perhaps of a batch that is not durable yet.
    pub(crate) repeats: u64,
}

impl Exemplars {
    /// Keeps at most `max`. `recovers`: whether those of the last process are to come.
    pub(crate) fn new(max: usize, recovers: bool) -> Exemplars {
        let ring = Ring { waiting: recovers.then(Waiting::default), ..Ring::default() };
        Exemplars { max, ring: Mutex::new(ring) }
    }

    /// Takes those of a batch that can be taken, and logs them. What can not is left out: an
    /// exemplar is a hint, and its samples are good.
    pub(crate) fn append(
        &self,
        batch: &Batch<'_>,
        limits: &Limits,
        log: &dyn FrameLog,
    ) -> Result<TakenExemplars, AppendError> {
        let mut result = TakenExemplars::default();
        if self.max == 0 || batch.exemplars.is_empty() {
            return Ok(result);
        }
        let mut frame = Frame::default();
        let mut ring = self.ring.lock();
        for exemplar in &batch.exemplars {
            if frame.len() > BATCH_BYTES {
                break;
            }
            let Some((labels, exemplar)) = checked(exemplar, limits) else { continue };
            let offer = match &mut ring.waiting {
                Some(waiting) => waiting.push(self.max, labels.clone(), exemplar.clone()),
                None => ring.push(self.max, labels.clone(), exemplar.clone()),
            };
            match offer {
                Offer::Taken => {
                    frame.push(&labels, &exemplar);
                    result.taken += 1;
                }
                Offer::Repeat => result.repeats += 1,
                Offer::LeftOut => {}
            }
        }
        result.ticket = frame.append(log)?;
        Ok(result)
    }

    /// Puts back what the log has.
    pub(crate) fn restore(&self, exemplars: &Logged<'_>) -> Result<(), FrameError> {
        let mut ring = self.ring.lock();
        exemplars.for_each(|labels, exemplar| {
            if self.max > 0 {
                ring.push(self.max, labels, exemplar);
            }
        })
    }

    /// Recovery is over: what came meanwhile goes behind what the log had.
    pub(crate) fn complete(&self) {
        let mut ring = self.ring.lock();
        for (labels, exemplar) in ring.waiting.take().unwrap_or_default().exemplars {
            ring.push(self.max, labels, exemplar);
        }
    }

    /// Logs everything again, so that the log before may go.
    pub(crate) fn log_all(&self, log: &dyn FrameLog) -> Result<(), AppendError> {
        let ring = self.ring.lock();
        let mut at: HashMap<&Labels, usize> = HashMap::new();
        let mut frame = Frame::default();
        for labels in &ring.order {
            let next = at.entry(labels).or_default();
            frame.push(labels, &ring.series[labels][*next]);
            *next += 1;
        }
        frame.append(log).map(drop)
    }

    /// The exemplars within `range` of the series that satisfy all matchers of one of the
    /// selectors, in the order of the series' labels.
    pub(crate) fn select(
        &self,
        selectors: &[Vec<Matcher>],
        range: TimeRange,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        let ring = self.ring.lock();
        let satisfies = |labels: &Labels, matchers: &[Matcher]| {
            matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).unwrap_or_default()))
        };
        let matching = ring
            .series
            .iter()
            .filter(|(labels, _)| selectors.iter().any(|matchers| satisfies(labels, matchers)));
        let within =
            |exemplar: &&Exemplar| range.start <= exemplar.timestamp && exemplar.timestamp <= range.end;
        let mut found: Vec<(Labels, Vec<Exemplar>)> = matching
            .map(|(labels, exemplars)| (labels.clone(), exemplars.iter().filter(within).cloned().collect()))
            .filter(|(_, exemplars): &(_, Vec<Exemplar>)| !exemplars.is_empty())
            .collect();
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found
    }

    pub(crate) fn count(&self) -> u64 {
        self.ring.lock().order.len() as u64
    }
}

/// The labels of an exemplar's series and the exemplar, if both can be stored.
fn checked(exemplar: &BatchExemplar<'_>, limits: &Limits) -> Option<(Labels, Exemplar)> {
    let series = check_labels(&exemplar.series, limits).ok()?;
    let mut labels = LabelsBuilder::new();
    let mut chars = 0;
    for pair in exemplar.labels.pairs() {
        let (name, value) = pair?;
        let (name, value) = (std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?);
        chars += name.chars().count() + value.chars().count();
        if chars > LABEL_CHARS_MAX || name.is_empty() {
            return None;
        }
        labels.set(name, value);
    }
    let BatchExemplar { value, timestamp, .. } = *exemplar;
    Some((Labels::from_sorted(series.iter().copied()), Exemplar { labels: labels.build(), value, timestamp }))
}

const HEAD_LEN: usize = 6;

/// Builds frames.
#[derive(Debug, Default)]
struct Frame {
    count: u32,
    bytes: Vec<u8>,
    full: Vec<Vec<u8>>,
}

impl Frame {
    fn push(&mut self, labels: &Labels, exemplar: &Exemplar) {
        if self.bytes.len() >= FRAME_BYTES {
            self.close();
        }
        self.bytes.resize(self.bytes.len().max(HEAD_LEN), 0);
        self.count += 1;
        push_text(labels.as_bytes(), &mut self.bytes);
        push_text(exemplar.labels.as_bytes(), &mut self.bytes);
        self.bytes.extend_from_slice(&exemplar.timestamp.to_le_bytes());
        self.bytes.extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
    }

    /// Bytes of all frames.
    fn len(&self) -> usize {
        self.full.iter().map(Vec::len).sum::<usize>() + self.bytes.len()
    }

    fn close(&mut self) {
        if self.count > 0 {
            self.bytes[0] = FrameKind::Exemplars as u8;
            self.bytes[2..HEAD_LEN].copy_from_slice(&self.count.to_le_bytes());
            self.full.push(std::mem::take(&mut self.bytes));
            self.count = 0;
        }
    }

    fn append(mut self, log: &dyn FrameLog) -> Result<Option<Ticket>, AppendError> {
        self.close();
        let mut result = Ok(None);
        for frame in &self.full {
            // The log keeps a frame that it refuses: it is to have them all.
            match (log.append(frame), &mut result) {
                (Ok(ticket), Ok(newest)) => *newest = Some(ticket),
                (Err(error), _) => result = Err(error),
                (Ok(_), Err(_)) => {}
            }
        }
        result
    }
}

/// Exemplars of a frame. Those before a malformed one are good.
#[derive(Debug)]
pub(crate) struct Logged<'a> {
    count: u32,
    fields: Reader<'a>,
}

pub(crate) fn read_exemplars(mut reader: Reader<'_>) -> Result<Logged<'_>, FrameError> {
    let count = u32::from_le_bytes(reader.array()?);
    Ok(Logged { count, fields: reader })
}

impl Logged<'_> {
    pub(crate) fn for_each(&self, mut visit: impl FnMut(Labels, Exemplar)) -> Result<(), FrameError> {
        let mut reader = self.fields.clone();
        for _ in 0..self.count {
            let (series, labels) = (read_labels(&mut reader)?, read_labels(&mut reader)?);
            let timestamp = i64::from_le_bytes(reader.array()?);
            let value = f64::from_bits(u64::from_le_bytes(reader.array()?));
            visit(series, Exemplar { labels, value, timestamp });
        }
        if reader.bytes.is_empty() { Ok(()) } else { Err(FrameError::Malformed) }
    }
}

fn read_labels(reader: &mut Reader<'_>) -> Result<Labels, FrameError> {
    let mut builder = LabelsBuilder::new();
    for pair in RawLabels::Canonical(reader.text()?).pairs() {
        let (name, value) = pair.ok_or(FrameError::Malformed)?;
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| FrameError::Malformed);
        builder.set(text(name)?, text(value)?);
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::append::Kept;
    use crate::log::{Frame as LogFrame, read_frame};

    fn series(i: i64) -> Labels {
        Labels::from_pairs([("__name__", "m"), ("i", &i.to_string())])
    }

    /// Offers one exemplar; says what became of it.
    fn offer(exemplars: &Exemplars, log: &Kept, i: i64, timestamp: i64, trace: &str) -> &'static str {
        let (labels, own) = (series(i), Labels::from_pairs([("trace_id", trace)]));
        let mut batch = Batch::new();
        batch.exemplars.push(BatchExemplar {
            series: RawLabels::Canonical(labels.as_bytes()),
            labels: RawLabels::Canonical(own.as_bytes()),
            value: 0.5,
            timestamp,
        });
        let result = exemplars.append(&batch, &Limits::default(), log).expect("the log takes all");
        assert_eq!(result.ticket.is_some(), result.taken > 0);
        match (result.taken, result.repeats) {
            (1, 0) => "taken",
            (0, 1) => "repeat",
            (0, 0) => "left out",
            counts => panic!("{counts:?} of one"),
        }
    }

    fn found(exemplars: &Exemplars) -> Vec<String> {
        let all = exemplars.select(&[vec![]], TimeRange { start: 0, end: 1000 });
        let describe = |(labels, exemplars): &(Labels, Vec<Exemplar>)| {
            let each = exemplars
                .iter()
                .map(|e| format!(" {}@{}", e.labels.get("trace_id").unwrap_or(""), e.timestamp));
            format!("{}:{}", labels.get("i").unwrap_or(""), each.collect::<String>())
        };
        all.iter().map(describe).collect()
    }

    fn replayed(max: usize, log: &Kept) -> Exemplars {
        let again = Exemplars::new(max, true);
        for frame in &*log.0.lock() {
            let Ok(LogFrame::Exemplars(logged)) = read_frame(frame) else { panic!("not exemplars") };
            again.restore(&logged).expect("whole");
        }
        again.complete();
        again
    }

    #[test]
    fn the_newest_of_all_series_are_kept_and_come_back() {
        let (exemplars, log) = (Exemplars::new(4, false), Kept::default());
        for (i, timestamp, trace, expected) in [
            (1, 1, "a", "taken"),
            (2, 2, "b", "taken"),
            (1, 3, "c", "taken"),
            (1, 3, "c", "repeat"),
            (1, 1, "a", "repeat"),
            (1, 2, "late", "left out"),
            (3, 4, "d", "taken"),
            (2, 5, "e", "taken"),
            (2, 6, "f", "taken"),
            (1, 1, "a", "left out"),
            (2, 9, &"x".repeat(200), "left out"),
        ] {
            assert_eq!(offer(&exemplars, &log, i, timestamp, trace), expected, "{trace} at {timestamp}");
        }
        assert_eq!(offer(&Exemplars::new(0, false), &log, 1, 1, "a"), "left out");
        assert_eq!(found(&exemplars), ["1: c@3", "2: e@5 f@6", "3: d@4"]);
        assert_eq!(found(&replayed(4, &log)), found(&exemplars));
        // Logged again as a whole, all comes back from that alone, and from both.
        let whole = Kept::default();
        exemplars.log_all(&whole).expect("the log takes all");
        assert_eq!(found(&replayed(4, &whole)), found(&exemplars));
        log.0.lock().append(&mut whole.0.lock());
        assert_eq!(found(&replayed(4, &log)), found(&exemplars));
        assert_eq!(found(&Exemplars::new(0, false)), [""; 0]);
    }

    // A sender that repeats a request must not fill the ring with it.
    #[test]
    fn exemplars_that_differ_in_their_labels_alone_are_taken_once_each() {
        let (exemplars, log) = (Exemplars::new(9, false), Kept::default());
        for expected in ["taken", "repeat", "repeat"] {
            for trace in ["a", "b"] {
                assert_eq!(offer(&exemplars, &log, 1, 5, trace), expected, "{trace}");
            }
        }
        assert_eq!(found(&exemplars), ["1: a@5 b@5"]);
    }

    // A request of a few bytes for each exemplar of a series with long labels must not take gigabytes, in
    // memory or in the log.
    #[test]
    fn exemplars_of_long_labels_are_fewer() {
        let long: Vec<(String, String)> = (0..4).map(|i| (format!("l{i}"), "x".repeat(4000))).collect();
        let labels = Labels::from_pairs(long);
        let mut batch = Batch::new();
        let offer = |timestamp| BatchExemplar {
            series: RawLabels::Canonical(labels.as_bytes()),
            labels: RawLabels::Canonical(&[]),
            value: 0.5,
            timestamp,
        };
        batch.exemplars.extend((0..5000).map(offer));
        let (exemplars, log) = (Exemplars::new(100, false), Kept::default());
        let result = exemplars.append(&batch, &Limits::default(), &log).expect("the log takes all");
        assert!((4100..4250).contains(&result.taken), "{} were taken", result.taken);
        let logged: usize = log.0.lock().iter().map(Vec::len).sum();
        assert!(logged < BATCH_BYTES + 20_000, "{logged} bytes were logged");
        // 100 KiB of 16 kB each, the newest.
        let kept = exemplars.select(&[vec![]], TimeRange { start: 0, end: 5000 });
        let newest: Vec<i64> = kept[0].1.iter().map(|exemplar| exemplar.timestamp).collect();
        let last = result.taken as i64;
        assert_eq!(newest, (last - 6..last).collect::<Vec<_>>());
        assert_eq!(exemplars.count(), 6);
    }

    #[test]
    fn a_frame_of_exemplars_is_frozen() {
        let (exemplars, log) = (Exemplars::new(4, false), Kept::default());
        offer(&exemplars, &log, 7, 3, "x");
        let mut expected = vec![20, 0, 1, 0, 0, 0, 15, 8];
        expected.extend(b"__name__\x01m\x01i\x017");
        expected.extend(b"\x0b\x08trace_id\x01x");
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]);
        assert_eq!(log.0.lock()[0], expected);
    }

    #[test]
    fn what_comes_during_recovery_goes_behind_what_was_there() {
        let (before, log) = (Exemplars::new(4, false), Kept::default());
        offer(&before, &log, 1, 1, "a");
        let again = Exemplars::new(4, true);
        offer(&again, &Kept::default(), 1, 2, "b");
        let logged = log.0.lock()[0].clone();
        let Ok(LogFrame::Exemplars(logged)) = read_frame(&logged) else { panic!("not exemplars") };
        again.restore(&logged).expect("whole");
        again.complete();
        assert_eq!(found(&again), ["1: a@1 b@2"]);
    }
}
