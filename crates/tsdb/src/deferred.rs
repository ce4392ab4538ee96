//! Batches that come while recovery is still running.
//!
//! Their samples can not be compared with what is stored, and their series may have ids that
//! nobody has read yet. So they are logged whole, with their labels, acknowledged as durable,
//! and appended like any batch when recovery is over.

use tidewatch_model::{Batch, Labels, Sample};
use tidewatch_storage::{AppendError, AppendOutcome};

use crate::head::append::{FrameLog, Terms, refuse};
use crate::head::registry::check_labels;
use crate::log::write_deferred;

/// Bytes that may wait for the end of recovery: some seconds of a large server's load.
const DEFERRED_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Default)]
pub(crate) struct Deferred {
    /// Bodies of frames, in the order in which they were logged.
    bodies: Vec<Vec<u8>>,
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
            let body = write_deferred(&series, &mut frame);
            outcome.ticket = log.append(&frame)?;
            self.bytes += frame.len();
            self.bodies.push(frame.split_off(body));
        }
        Ok(outcome)
    }

    /// Hands out what has come since the last time.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        self.bytes = 0;
        std::mem::take(&mut self.bodies)
    }
}

/// The series and samples that can be taken, as far as that is known.
fn checked(batch: &Batch<'_>, terms: &Terms<'_>, outcome: &mut AppendOutcome) -> Vec<(Labels, Vec<Sample>)> {
    let mut taken = Vec::with_capacity(batch.series.len());
    for series in &batch.series {
        let samples = &batch.samples[series.samples.start as usize..series.samples.end as usize];
        let labels = match check_labels(&series.labels, terms.limits) {
            Ok(labels) => Labels::from_sorted(labels.iter().copied()),
            Err((refusal, cause)) => {
                refuse(outcome, refusal, samples.len() as u64, || cause);
                continue;
            }
        };
        let mut kept = Vec::with_capacity(samples.len());
        for sample in samples {
            match terms.refusal(sample.timestamp) {
                None => kept.push(*sample),
                Some(refusal) => refuse(outcome, refusal, 1, || {
                    let (timestamp, value) = (sample.timestamp, sample.value);
                    let cause = terms.cause(timestamp, refusal);
                    format!("{labels}: the sample {value} at {timestamp} ms {cause}")
                }),
            }
        }
        outcome.accepted += kept.len() as u64;
        if !kept.is_empty() {
            taken.push((labels, kept));
        }
    }
    taken
}
