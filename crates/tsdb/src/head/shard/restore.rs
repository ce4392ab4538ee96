//! How a shard gets back what an image has of it.
//!
//! Not here: the bytes of images (`head::image`).

use tidewatch_model::Sample;

use super::{Open, SeriesId, Shard};
use crate::head::cells::{RunState, Tail};
use crate::head::histograms::HistogramSeries;
use crate::head::sealed::NewChunk;
use crate::head::starts::Step;
use crate::head::tokens::end_of_tokens;
use crate::log::FrameError;

/// How an image has the values of an open run.
pub(crate) enum OpenValues<'a> {
    /// As the cells have them, with the state of the last token.
    Tokens {
        tokens: &'a [u8],
        repeating: bool,
        exponent: u8,
    },
    Column(&'a [u8]),
}

impl Shard {
    /// Puts a step back that was logged.
    pub(crate) fn restore_step(&mut self, id: SeriesId, step: Step) {
        self.starts.entry(id).or_default().insert(step);
    }

    /// Puts a sealed run back; those of a series come from old to new.
    pub(crate) fn restore_chunk(&mut self, id: SeriesId, new: NewChunk) -> Result<(), FrameError> {
        let older = self.open_mut(id).chunk;
        if !self.clocks.refer(new.clock, new.first_row, new.count) {
            return Err(FrameError::Malformed);
        }
        let chunk = self.sealed.restore(new, older).ok_or(FrameError::Malformed)?;
        self.open_mut(id).chunk = chunk;
        self.restored(new.clock, new.first_row, new.count);
        Ok(())
    }

    /// Puts an open run back.
    pub(crate) fn restore_open(
        &mut self,
        id: SeriesId,
        clock: u32,
        (first_row, count): (u8, u8),
        values: OpenValues<'_>,
    ) -> Result<(), FrameError> {
        let rows = usize::from(count);
        let state = match values {
            OpenValues::Tokens { tokens, repeating, exponent } => {
                let end = end_of_tokens(tokens, rows).filter(|_| rows > 0).ok_or(FrameError::Malformed)?;
                let state = RunState { value: end.value, repeating, exponent };
                if !state.is_of(&end) {
                    return Err(FrameError::Malformed);
                }
                Some((tokens, state))
            }
            OpenValues::Column(column) => {
                self.values.clear();
                let decoded = tidewatch_chunk::decode_values(column, rows, &mut self.values);
                decoded.ok().filter(|()| rows > 0).ok_or(FrameError::Malformed)?;
                None
            }
        };
        if !self.clocks.refer(clock, first_row, count) {
            return Err(FrameError::Malformed);
        }
        let tail = match state {
            Some((tokens, state)) => self.cells.restore(tokens, state),
            None => {
                let mut tail = Tail::EMPTY;
                self.values.iter().for_each(|value| self.cells.push(&mut tail, *value));
                tail
            }
        };
        let open = self.open_mut(id);
        *open = Open { tail, clock, first_row, count, ..*open };
        self.restored(clock, first_row, count);
        Ok(())
    }

    /// A cut has ended, as the log says. Rows before its end are back that had gone, as a rule.
    pub(crate) fn replay_cut(&mut self, shard: usize, floor: i64) {
        self.end_cut(shard, floor);
        self.known_from = floor;
    }

    /// All is back, and blocks have samples up to a time.
    pub(crate) fn replayed(&mut self, newest_ms: i64) {
        self.replayed_until = newest_ms.saturating_add(1);
    }

    fn restored(&mut self, clock: u32, first_row: u8, count: u8) {
        let rows = self.clocks.rows(clock, first_row, count);
        self.oldest = self.oldest.min(rows[0]);
        self.newest = self.newest.max(rows[rows.len() - 1]);
        self.samples += u64::from(count);
    }

    pub(crate) fn restore_late(&mut self, id: SeriesId, sample: Sample) {
        self.late.entry(id).or_default().push(sample);
        self.open_mut(id).has_late = true;
        self.count(sample.timestamp);
    }

    pub(crate) fn restore_histograms(&mut self, id: SeriesId, series: HistogramSeries) {
        if series.is_empty() {
            return;
        }
        series.for_each_time(|time| self.count(time));
        self.histograms.insert(id, series);
        self.open_mut(id).has_histograms = true;
    }

    pub(crate) fn restore_bounds(&mut self, floor: i64, bar: i64) {
        (self.floor, self.bar) = (floor, bar);
        self.known_from = floor;
    }
}
