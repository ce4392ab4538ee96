//! One series over all steps: a column of values, which of them are present, and beside them
//! the histograms.

use std::sync::Arc;

use tidewatch_model::FloatHistogram;

pub(crate) type Histograms = Vec<Option<Arc<FloatHistogram>>>;

/// What a row has at one step.
#[derive(Clone, Copy)]
pub(crate) enum Cell<'a> {
    Float(f64),
    Histogram(&'a Arc<FloatHistogram>),
}

/// A row that is being computed, reused from series to series.
///
/// A step that is not present has an arbitrary value and no histogram; a step with a histogram
/// is present and has an arbitrary value.
#[derive(Default, Clone)]
pub(crate) struct Row {
    pub values: Vec<f64>,
    pub present: Vec<u64>,
    /// As long as `values`, or empty where no step has a histogram.
    pub histograms: Histograms,
}

/// A row of a frame.
#[derive(Clone, Copy)]
pub(crate) struct RowRef<'a> {
    pub values: &'a [f64],
    pub present: &'a [u64],
    pub histograms: &'a [Option<Arc<FloatHistogram>>],
}

pub(crate) fn words(steps: usize) -> usize {
    steps.div_ceil(64)
}

#[inline]
pub(crate) fn bit(present: &[u64], step: usize) -> bool {
    present[step / 64] >> (step % 64) & 1 != 0
}

#[inline]
pub(crate) fn set_bit(present: &mut [u64], step: usize) {
    present[step / 64] |= 1 << (step % 64);
}

#[inline]
pub(crate) fn clear_bit(present: &mut [u64], step: usize) {
    present[step / 64] &= !(1 << (step % 64));
}

/// The steps whose bit is set.
pub(crate) fn set_steps(present: &[u64]) -> impl Iterator<Item = usize> + '_ {
    present.iter().enumerate().flat_map(|(i, word)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            let step = i * 64 + rest.trailing_zeros() as usize;
            let found = rest != 0;
            rest &= rest.wrapping_sub(1);
            found.then_some(step)
        })
    })
}

impl Row {
    /// Makes it a row of `steps` steps without any sample.
    pub(crate) fn reset(&mut self, steps: usize) {
        self.values.resize(steps, 0.0);
        self.present.clear();
        self.present.resize(words(steps), 0);
        self.histograms.clear();
    }

    #[inline]
    pub(crate) fn set(&mut self, step: usize, value: f64) {
        self.values[step] = value;
        set_bit(&mut self.present, step);
        if !self.histograms.is_empty() {
            self.histograms[step] = None;
        }
    }

    pub(crate) fn set_histogram(&mut self, step: usize, histogram: Arc<FloatHistogram>) {
        if self.histograms.is_empty() {
            self.histograms.resize(self.values.len(), None);
        }
        self.histograms[step] = Some(histogram);
        set_bit(&mut self.present, step);
    }

    pub(crate) fn remove(&mut self, step: usize) {
        clear_bit(&mut self.present, step);
        if !self.histograms.is_empty() {
            self.histograms[step] = None;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.present.iter().all(|word| *word == 0)
    }

    /// Whether every step is present.
    pub(crate) fn is_full(&self) -> bool {
        let present: u32 = self.present.iter().map(|word| word.count_ones()).sum();
        present as usize == self.values.len()
    }

    /// Replaces every float by what `map` makes of it. Absent steps are computed too, which
    /// costs less than asking and changes nothing.
    pub(crate) fn map_floats(&mut self, map: impl Fn(f64) -> f64) {
        for value in &mut self.values {
            *value = map(*value);
        }
    }

    /// Drops the steps that have a histogram.
    pub(crate) fn drop_histograms(&mut self) {
        for (step, histogram) in self.histograms.iter().enumerate() {
            if histogram.is_some() {
                clear_bit(&mut self.present, step);
            }
        }
        self.histograms.clear();
    }

    pub(crate) fn as_ref(&self) -> RowRef<'_> {
        RowRef { values: &self.values, present: &self.present, histograms: &self.histograms }
    }

    pub(crate) fn copy_from(&mut self, row: RowRef<'_>) {
        self.values.clear();
        self.values.extend_from_slice(row.values);
        self.present.clear();
        self.present.extend_from_slice(row.present);
        self.histograms.clear();
        self.histograms.extend_from_slice(row.histograms);
    }
}

impl<'a> RowRef<'a> {
    #[inline]
    pub(crate) fn get(&self, step: usize) -> Option<Cell<'a>> {
        if !bit(self.present, step) {
            return None;
        }
        Some(match self.histograms.get(step) {
            Some(Some(histogram)) => Cell::Histogram(histogram),
            _ => Cell::Float(self.values[step]),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.present.iter().all(|word| *word == 0)
    }

    /// Samples as Prometheus counts them: a histogram counts by its size.
    pub(crate) fn samples(&self) -> u64 {
        let present: u32 = self.present.iter().map(|word| word.count_ones()).sum();
        let extra: u64 = self.histograms.iter().flatten().map(|h| histogram_samples(h) - 1).sum();
        u64::from(present) + extra
    }
}

/// How many float samples a histogram counts for: one for every 16 bytes.
pub(crate) fn histogram_samples(histogram: &FloatHistogram) -> u64 {
    (histogram.size_bytes() as u64 + 8) / 16
}
