//! Batches that come while recovery is still running.
//!
//! Their samples can not be compared with what is stored, and their series may have ids that
//! nobody has read yet. So they are logged whole, with their labels, acknowledged as durable,
//! and appended like any batch when recovery is over.
//!
//! The frame: how many series (varint), of each the canonical label bytes (length varint, bytes), how many
//! samples (varint), and each `timestamp i64, bits u64`. Of a batch that has start timestamps or native
//! histograms:
//!
//! ```text
//!      2     …  series  how many (varint), of each the canonical label bytes (length varint, bytes),
//!                       then its floats: how many (varint), of each `timestamp i64, start i64,
//!                       bits u64`; then its histograms: how many (varint), of each `timestamp
//!                       i64, start i64` and the histogram, see `rows`
//! ```

use tidewatch_model::{Batch, BatchHistogram, Labels, RawLabels, Sample};
use tidewatch_storage::{AppendError, AppendOutcome};
use tidewatch_wal::FRAME_BYTES_MAX;

use crate::fields::{Reader, push_text, push_varint};
use crate::head::append::{FrameLog, Terms, checked_histogram, refuse};
use crate::head::registry::check_labels;
use crate::log::{Frame, FrameError, FrameKind, read_frame};
use crate::rows::{push_alone, read_alone};

/// Bytes that may wait for the end of recovery: some seconds of a large server's load.
const DEFERRED_BYTES_MAX: usize = 64 << 20;

/// The last of them are appended while new batches wait: some milliseconds.
const LAST_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Deferred {
    /// Frames, in the order in which they were logged.
    frames: Vec<Vec<u8>>,
    bytes: usize,
}

impl Deferred {
    pub(crate) fn append(
        &mut self,
        batch: &Batch<'_>,
        terms: &Terms<'_>,
        log: &dyn FrameLog,
    ) -> Result<AppendOutcome, AppendError> {
        if self.bytes > DEFERRED_BYTES_MAX {
            let reason = "recovery is running and has enough to do afterwards".to_owned();
            return Err(AppendError::Overloaded { reason });
        }
        let mut outcome = AppendOutcome::default();
        let series = checked(batch, terms, &mut outcome);
        if !series.is_empty() {
            let mut frame = Vec::new();
            write_deferred(&series, &mut frame);
            if frame.len() > FRAME_BYTES_MAX {
                let reason = "recovery is running and takes smaller requests only".to_owned();
                return Err(AppendError::Overloaded { reason });
            }
            outcome.ticket = log.append(&frame)?;
            self.bytes += frame.len();
            self.frames.push(frame);
        }
        Ok(outcome)
    }

    /// Hands out what has come since the last time, and whether that is little enough to keep others waiting for it.
    pub(crate) fn take(&mut self) -> (Vec<Vec<u8>>, bool) {
        let bytes = std::mem::take(&mut self.bytes);
        (std::mem::take(&mut self.frames), bytes <= LAST_BYTES)
    }
}

/// The series and samples that can be taken, as far as that is known.
fn checked(batch: &Batch<'_>, terms: &Terms<'_>, outcome: &mut AppendOutcome) -> Vec<DeferredSeries> {
    let mut taken = Vec::with_capacity(batch.series.len());
    for series in &batch.series {
        let count = (series.samples.len() + series.histograms.len()) as u64;
        let labels = match check_labels(&series.labels, terms.limits) {
            Ok(labels) => Labels::from_sorted(labels.iter().copied()),
            Err((refusal, cause)) => {
                refuse(outcome, refusal, count, || cause);
                continue;
            }
        };
        let mut kept = DeferredSeries { labels, samples: vec![], starts: vec![], histograms: vec![] };
        for at in series.samples.start as usize..series.samples.end as usize {
            let (sample, start) = (batch.samples[at], batch.start_of(at));
            match terms.refusal(sample.timestamp) {
                None => {
                    if start != 0 {
                        kept.starts.resize(kept.samples.len(), 0);
                        kept.starts.push(start);
                    }
                    kept.samples.push(sample);
                }
                Some(refusal) => refuse(outcome, refusal, 1, || {
                    let (timestamp, value) = (sample.timestamp, sample.value);
                    let cause = terms.cause(timestamp, refusal);
                    format!("{}: the sample {value} at {timestamp} ms {cause}", kept.labels)
                }),
            }
        }
        for histogram in &batch.histograms[series.histograms.start as usize..series.histograms.end as usize] {
            match checked_histogram(histogram, terms) {
                Ok(value) => {
                    outcome.accepted_histograms += 1;
                    let value = value.into_owned();
                    kept.histograms.push(BatchHistogram { value, ..*histogram });
                }
                Err((refusal, cause)) => refuse(outcome, refusal, 1, || {
                    format!("{}: the histogram at {} ms {cause}", kept.labels, histogram.timestamp)
                }),
            }
        }
        outcome.accepted += kept.samples.len() as u64;
        if !kept.samples.is_empty() || !kept.histograms.is_empty() {
            taken.push(kept);
        }
    }
    taken
}

/// One series of a batch, as far as it is taken.
#[derive(Debug)]
struct DeferredSeries {
    labels: Labels,
    samples: Vec<Sample>,
    /// When the counters of the samples started; empty where that is not known of any.
    starts: Vec<i64>,
    histograms: Vec<BatchHistogram>,
}

impl DeferredSeries {
    fn is_plain(&self) -> bool {
        self.starts.is_empty() && self.histograms.is_empty()
    }
}

/// Writes a deferred batch.
fn write_deferred(series: &[DeferredSeries], out: &mut Vec<u8>) {
    let is_plain = series.iter().all(DeferredSeries::is_plain);
    let kind = if is_plain { FrameKind::Deferred } else { FrameKind::DeferredWhole };
    out.clear();
    out.extend_from_slice(&[kind as u8, 0]);
    push_varint(series.len() as u64, out);
    for one in series {
        push_text(one.labels.as_bytes(), out);
        push_varint(one.samples.len() as u64, out);
        for (at, sample) in one.samples.iter().enumerate() {
            out.extend_from_slice(&sample.timestamp.to_le_bytes());
            if !is_plain {
                let start = one.starts.get(at).copied().unwrap_or(0);
                out.extend_from_slice(&start.to_le_bytes());
            }
            out.extend_from_slice(&sample.value.to_bits().to_le_bytes());
        }
        if !is_plain {
            push_varint(one.histograms.len() as u64, out);
            for BatchHistogram { timestamp, start, value } in &one.histograms {
                out.extend_from_slice(&timestamp.to_le_bytes());
                out.extend_from_slice(&start.to_le_bytes());
                push_alone(value, out);
            }
        }
    }
}

/// A deferred batch as it was logged.
#[derive(Debug)]
pub(crate) struct DeferredBatch<'a> {
    pub(crate) is_plain: bool,
    pub(crate) fields: Reader<'a>,
}

impl<'a> DeferredBatch<'a> {
    /// The batch. Of one that is malformed it has the series before that.
    pub(crate) fn read(&self) -> (Batch<'a>, Result<(), FrameError>) {
        let mut batch = Batch::new();
        let result = self.read_into(&mut batch);
        (batch, result)
    }

    fn read_into(&self, batch: &mut Batch<'a>) -> Result<(), FrameError> {
        let mut reader = self.fields.clone();
        let (mut samples, mut starts, mut histograms) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..reader.varint()? {
            let labels = reader.text()?;
            samples.clear();
            starts.clear();
            for _ in 0..reader.varint()? {
                let timestamp = i64::from_le_bytes(reader.array()?);
                if !self.is_plain {
                    starts.push(i64::from_le_bytes(reader.array()?));
                }
                let value = f64::from_bits(u64::from_le_bytes(reader.array()?));
                samples.push(Sample { timestamp, value });
            }
            let histogram_count = if self.is_plain { 0 } else { reader.varint()? };
            for _ in 0..histogram_count {
                let timestamp = i64::from_le_bytes(reader.array()?);
                let start = i64::from_le_bytes(reader.array()?);
                let value = read_alone(&mut reader)?;
                histograms.push(BatchHistogram { timestamp, start, value });
            }
            batch.push(RawLabels::Canonical(labels), &samples);
            batch.set_starts(&starts);
            let first = batch.histograms.len() as u32;
            batch.histograms.append(&mut histograms);
            if let Some(series) = batch.series.last_mut() {
                series.histograms = first..batch.histograms.len() as u32;
            }
        }
        Ok(())
    }
}

/// The batch of a frame. A malformed rest is left out.
pub(crate) fn batch_of(frame: &[u8]) -> Batch<'_> {
    match read_frame(frame) {
        Ok(Frame::Deferred(deferred)) => deferred.read().0,
        _ => Batch::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_deferred_batches_are_frozen() {
        let mut bytes = Vec::new();
        let labels = Labels::from_pairs([("a", "x")]);
        let samples = vec![Sample { timestamp: 1, value: 1.0 }];
        let mut series = [DeferredSeries { labels, samples, starts: vec![], histograms: vec![] }];
        write_deferred(&series, &mut bytes);
        let expected =
            [5, 0, 1, 4, 1, b'a', 1, b'x', 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f];
        assert_eq!(bytes, expected);
        let stale =
            BatchHistogram { timestamp: 2, start: 1, value: tidewatch_model::NativeHistogram::stale() };
        series[0].histograms.push(stale);
        write_deferred(&series, &mut bytes);
        let mut expected = vec![21, 0, 1, 4, 1, b'a', 1, b'x', 1, 1, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
        expected.extend([1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes, expected);
    }
}
