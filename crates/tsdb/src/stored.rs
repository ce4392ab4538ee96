//! Series with their samples as they are stored: for exports.
//!
//! Queries see histograms with float counts. Who writes samples elsewhere must have them as they
//! came, with integer counts where they have such.

use std::ops::ControlFlow;

use tidewatch_model::{Labels, Matcher};
use tidewatch_storage::{RunValues, Scratch, SelectError, Selection, TimeRange};

use crate::block::{StoredRun, StoredValues};
use crate::db::Db;
use crate::gather::Gather;
use crate::select::DbSelection;

/// Some series, in the order of their labels. A snapshot, as a selection is.
pub struct Stored {
    selection: DbSelection,
    /// Where blocks begin, ascending: between two of these lies no more than a block has.
    begins: Vec<i64>,
}

impl Db {
    /// The series that satisfy all matchers and may have samples in `range`.
    pub fn stored(&self, matchers: &[Matcher], range: TimeRange) -> Result<Stored, SelectError> {
        let mut begins: Vec<i64> = self.blocks.metas().iter().map(|meta| meta.min_ms).collect();
        begins.sort_unstable();
        begins.dedup();
        let selection = self.resolve(matchers, range, &mut |_| true)?;
        Ok(Stored { selection, begins })
    }
}

impl Stored {
    pub fn len(&self) -> usize {
        self.selection.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn labels(&self, series: usize) -> &Labels {
        self.selection.labels(series)
    }

    /// Visits the samples of a series within a range, ascending, in stretches of one kind, until
    /// `visit` fails. Memory is that of what a block has of the series.
    pub fn visit<E: From<SelectError>>(
        &self,
        series: usize,
        range: TimeRange,
        visit: &mut dyn FnMut(StoredRun<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.selection.has_floats_only(series)? {
            let mut gather = Gather::default();
            let mut parts = parts(&self.begins, range);
            return parts
                .try_for_each(|part| self.selection.scan_stored(series, part, &mut gather, &mut *visit));
        }
        let mut visited = Ok(());
        self.selection.scan(series..series + 1, range, &mut Scratch::default(), &mut |_, run| {
            let RunValues::Floats(values) = run.values else { unreachable!("the series has floats only") };
            let values = StoredValues::Floats(values);
            visited = visit(StoredRun { timestamps: run.timestamps, values, starts: run.starts });
            if visited.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        visited
    }
}

/// A range cut where blocks begin.
fn parts(begins: &[i64], range: TimeRange) -> impl Iterator<Item = TimeRange> {
    let inside = begins.iter().copied().filter(move |begin| range.start < *begin && *begin <= range.end);
    let starts = std::iter::once(range.start).chain(inside.clone());
    let ends = inside.map(|begin| begin - 1).chain([range.end]);
    starts.zip(ends).map(|(start, end)| TimeRange { start, end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_where_blocks_begin() {
        let cut = |begins: &[i64], start, end| {
            let parts = parts(begins, TimeRange { start, end });
            parts.map(|part| (part.start, part.end)).collect::<Vec<_>>()
        };
        assert_eq!(cut(&[0, 10, 20], 5, 20), [(5, 9), (10, 19), (20, 20)]);
        assert_eq!(cut(&[0, 10, 20], 10, 15), [(10, 15)]);
        assert_eq!(cut(&[], i64::MIN, i64::MAX), [(i64::MIN, i64::MAX)]);
        assert_eq!(cut(&[i64::MAX], i64::MIN, i64::MAX), [(i64::MIN, i64::MAX - 1), (i64::MAX, i64::MAX)]);
    }
}
