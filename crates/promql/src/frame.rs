//! Materialised rows: what an expression gave, where it cannot be passed on row by row.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};
use std::sync::Arc;

use hashbrown::HashSet;
use tidewatch_model::{FloatHistogram, Labels};

use crate::context::QueryError;
use crate::eval::is_metadata;
use crate::guard::{Charge, Guard};
use crate::row::{Row, RowRef, words};

/// The labels of a row, and whether its name is to be dropped once the query ends.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub labels: Labels,
    /// Set only with delayed name removal; otherwise names are dropped at once.
    pub drop: bool,
}

impl Name {
    pub(crate) fn keep(labels: Labels) -> Name {
        Name { labels, drop: false }
    }
}

/// Rows in one flat buffer: `values` and `present` hold row after row.
#[derive(Default)]
pub(crate) struct Frame {
    pub names: Vec<Name>,
    pub steps: usize,
    values: Vec<f64>,
    present: Vec<u64>,
    /// One for each row, or empty where no row has any histogram.
    histograms: Vec<Option<HistogramRow>>,
    charges: Vec<Charge>,
    uncharged: usize,
}

/// The histograms of a row, one place for each step.
type HistogramRow = Box<[Option<Arc<FloatHistogram>>]>;

/// What later steps make of each row for a while: a place in a hash table, in an order, in a group.
const TABLE_BYTES: usize = 64;

/// Rows that are charged at once.
const CHARGE_BYTES: usize = 64 << 10;

impl Frame {
    pub(crate) fn new(steps: usize) -> Frame {
        Frame { steps, ..Frame::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What the rows take, less their labels and histograms, which are shared.
    pub(crate) fn bytes(&self) -> u64 {
        let words = self.values.len() + self.present.len();
        (words * 8 + self.names.len() * size_of::<Name>()) as u64
    }

    pub(crate) fn row(&self, row: usize) -> RowRef<'_> {
        let words = words(self.steps);
        RowRef {
            values: &self.values[row * self.steps..(row + 1) * self.steps],
            present: &self.present[row * words..(row + 1) * words],
            histograms: self.histograms.get(row).and_then(|h| h.as_deref()).unwrap_or(&[]),
        }
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = (&Name, RowRef<'_>)> {
        self.names.iter().enumerate().map(|(i, name)| (name, self.row(i)))
    }

    /// Appends a row and charges for it.
    pub(crate) fn push(&mut self, name: Name, row: RowRef<'_>, guard: &Guard) -> Result<(), QueryError> {
        debug_assert_eq!(row.values.len(), self.steps, "a row has a value for each step");
        self.names.push(name);
        self.values.extend_from_slice(row.values);
        self.present.extend_from_slice(row.present);
        let mut bytes = self.steps * 8 + words(self.steps) * 8 + size_of::<Name>() + TABLE_BYTES;
        if !row.histograms.is_empty() {
            self.histograms.resize_with(self.names.len() - 1, || None);
            self.histograms.push(Some(row.histograms.into()));
            bytes += row
                .histograms
                .iter()
                .flatten()
                .map(|h| 16 + h.size_bytes() / Arc::strong_count(h))
                .sum::<usize>();
        } else if !self.histograms.is_empty() {
            self.histograms.push(None);
        }
        self.uncharged += bytes;
        if self.uncharged >= CHARGE_BYTES {
            self.charges.push(guard.charge(self.uncharged as u64, (self.uncharged / 16) as u64)?);
            self.uncharged = 0;
        }
        Ok(())
    }

    /// Appends the rows of another frame of as many steps.
    pub(crate) fn append(&mut self, mut other: Frame) {
        if self.is_empty() && self.charges.is_empty() {
            *self = other;
            return;
        }
        if !other.histograms.is_empty() || !self.histograms.is_empty() {
            self.histograms.resize_with(self.names.len(), || None);
            other.histograms.resize_with(other.names.len(), || None);
            self.histograms.append(&mut other.histograms);
        }
        self.names.append(&mut other.names);
        self.values.append(&mut other.values);
        self.present.append(&mut other.present);
        self.charges.append(&mut other.charges);
        self.uncharged += other.uncharged;
    }

    /// The same frame with its rows in the order of `order`, which may leave rows out.
    pub(crate) fn pick(&self, order: &[usize], guard: &Guard) -> Result<Frame, QueryError> {
        let mut picked = Frame::new(self.steps);
        for &i in order {
            picked.push(self.names[i].clone(), self.row(i), guard)?;
        }
        Ok(picked)
    }

    /// The same rows once more, and charged once more.
    pub(crate) fn copy(&self, guard: &Guard) -> Result<Frame, QueryError> {
        let mut copy = Frame::new(self.steps);
        for (name, row) in self.rows() {
            copy.push(name.clone(), row, guard)?;
        }
        Ok(copy)
    }

    /// Repeats the single step of each row `steps` times.
    pub(crate) fn broadcast(&self, steps: usize, guard: &Guard) -> Result<Frame, QueryError> {
        let mut wide = Frame::new(steps);
        let mut row = Row::default();
        for (name, narrow) in self.rows() {
            guard.check()?;
            row.reset(steps);
            match narrow.get(0) {
                Some(crate::row::Cell::Float(value)) => (0..steps).for_each(|step| row.set(step, value)),
                Some(crate::row::Cell::Histogram(histogram)) => {
                    (0..steps).for_each(|step| row.set_histogram(step, Arc::clone(histogram)));
                }
                None => continue,
            }
            wide.push(name.clone(), row.as_ref(), guard)?;
        }
        Ok(wide)
    }

    /// Gives every row its name by `rename`. Rows that get equal labels become one, which is an
    /// error where both have a sample at the same step.
    pub(crate) fn rename(
        self,
        guard: &Guard,
        mut rename: impl FnMut(&Name) -> Result<Name, QueryError>,
    ) -> Result<Frame, QueryError> {
        let (mut frame, mut text) = (self, 0);
        for name in &mut frame.names {
            *name = rename(name)?;
            text += name.labels.as_bytes().len() + 32;
            if text >= CHARGE_BYTES {
                guard.check()?;
                frame.charges.push(guard.charge(text as u64, 0)?);
                text = 0;
            }
        }
        frame.merge_equal(guard)
    }

    /// Makes rows with equal labels one.
    pub(crate) fn merge_equal(self, guard: &Guard) -> Result<Frame, QueryError> {
        if !self.has_equal_labels() {
            return Ok(self);
        }
        let mut first = hashbrown::HashMap::<&Labels, usize>::new();
        let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
        for (i, name) in self.names.iter().enumerate() {
            let slot = *first.entry(&name.labels).or_insert_with(|| {
                rows.push((i, Vec::new()));
                rows.len() - 1
            });
            if rows[slot].0 != i {
                rows[slot].1.push(i);
            }
        }
        let mut merged = Frame::new(self.steps);
        let mut row = Row::default();
        for (i, others) in rows {
            row.copy_from(self.row(i));
            for other in others {
                merge_row(&mut row, self.row(other))?;
            }
            merged.push(self.names[i].clone(), row.as_ref(), guard)?;
        }
        Ok(merged)
    }

    pub(crate) fn has_equal_labels(&self) -> bool {
        has_duplicates(self.names.iter().map(|name| &name.labels))
    }
}

pub(crate) fn has_duplicates<'a>(labels: impl ExactSizeIterator<Item = &'a Labels>) -> bool {
    let mut seen = HashSet::<&Labels, foldhash::fast::RandomState>::with_capacity_and_hasher(
        labels.len(),
        foldhash::fast::RandomState::default(),
    );
    labels.into_iter().any(|labels| !seen.insert(labels))
}

/// Whether no two label sets get equal when metadata are taken off. A false "no" is possible, where
/// two hashes meet: below one in a thousand at a hundred million series.
pub(crate) fn distinct_without_metadata<'a>(labels: impl Iterator<Item = &'a Labels>) -> bool {
    let state = foldhash::fast::RandomState::default();
    let hash = |labels: &Labels| {
        let mut hasher = state.build_hasher();
        for pair in labels.iter().filter(|(name, _)| !is_metadata(name)) {
            pair.hash(&mut hasher);
        }
        hasher.finish()
    };
    let mut hashes: Vec<u64> = labels.map(hash).collect();
    hashes.sort_unstable();
    hashes.windows(2).all(|pair| pair[0] != pair[1])
}

pub(crate) fn same_labels_error() -> QueryError {
    QueryError::Execution("vector cannot contain metrics with the same labelset".to_owned())
}

/// Takes the samples of `other` into `row`.
pub(crate) fn merge_row(row: &mut Row, other: RowRef<'_>) -> Result<(), QueryError> {
    if row.present.iter().zip(other.present).any(|(a, b)| a & b != 0) {
        return Err(same_labels_error());
    }
    if row.is_empty() {
        row.copy_from(other);
        return Ok(());
    }
    for step in crate::row::set_steps(other.present) {
        match other.get(step).expect("the bit is set") {
            crate::row::Cell::Float(value) => row.set(step, value),
            crate::row::Cell::Histogram(histogram) => row.set_histogram(step, Arc::clone(histogram)),
        }
    }
    Ok(())
}
