//! Batches that come while recovery is still running.
//!
//! Their samples can not be compared with what is stored, and their series may have ids that
//! nobody has read yet. So they are logged whole, with their labels, acknowledged as durable,
//! and appended like any batch when recovery is over.

use tidewatch_model::{Batch, Labels};
use tidewatch_storage::{AppendError, AppendOutcome};
use tidewatch_wal::FRAME_BYTES_MAX;

use crate::head::append::{FrameLog, Terms, checked_histogram, refuse};
use crate::head::registry::check_labels;
use crate::log::{DeferredSeries, write_deferred};

/// Bytes that may wait for the end of recovery: some seconds of a large server's load.
const DEFERRED_BYTES_MAX: usize = 64 << 20;

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

    /// Hands out what has come since the last time.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }
}

/// The series and samples that can be taken, as far as that is known.
fn checked(batch: &Batch<'_>, terms: &Terms<'_>, outcome: &mut AppendOutcome) -> Vec<DeferredSeries<Labels>> {
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
                    kept.histograms.push(tidewatch_model::BatchHistogram { value, ..*histogram });
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
