//! Which series match: from label pairs to series and from matchers to sets of series.
//!
//! ```text
//! head ── insert ──► MemPostings ─┐
//!                                 ├─ Index ──► postings_for_matchers, visit_names_of, visit_values_of
//! block file ──► BlockIndex ──────┘
//! ```
//!
//! Head and blocks answer selectors by the same code over the trait [`Index`]: a pair (name and
//! value) has a number, and a list of the series that bear it. Matchers select pairs by their text,
//! and series by set arithmetic on the lists; the labels of a series are never touched.
//!
//! Invariants: series and pairs are `u32`, lists ascend; a list that is reachable by name is not
//! empty. In a block, series are numbered in the order of their labels and pairs in the order
//! of name and value.
//!
//! Not here: where the text of the head's labels lives (`head`), files (`block`).

pub mod dictionary;
pub mod lists;

mod gather;
mod matching;
mod mem;

use std::borrow::Cow;

use roaring::RoaringBitmap;

pub use matching::{postings_for_matchers, visit_names_of, visit_values_of};
pub use mem::{MemIndex, MemPostings, PairTable};

/// A stored index contradicts its format although its checksum holds. Quarantine the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the index is inconsistent: {0}")]
pub struct IndexError(pub &'static str);

/// Stands for the new number of a pair that is gone.
pub(crate) const GONE: u32 = u32::MAX;

/// What matchers are evaluated against.
pub trait Index {
    /// Every series.
    fn all(&self) -> Result<Cow<'_, RoaringBitmap>, IndexError>;

    /// The series that bear a pair.
    fn series_of(&self, pair: u32) -> Result<Cow<'_, RoaringBitmap>, IndexError>;

    /// Whether one of `series` bears a pair.
    fn is_on_any(&self, pair: u32, series: &RoaringBitmap) -> Result<bool, IndexError> {
        Ok(!self.series_of(pair)?.is_disjoint(series))
    }

    /// The pair of this name and value, if a series bears it.
    fn find(&self, name: &str, value: &str) -> Result<Option<u32>, IndexError>;

    /// Visits the values of a name that start with `prefix`, in any order, while `visit` gives true.
    fn visit_values(
        &self,
        name: &str,
        prefix: &str,
        visit: &mut dyn FnMut(&str, u32) -> bool,
    ) -> Result<(), IndexError>;

    /// Visits all names, in any order.
    fn visit_names(&self, visit: &mut dyn FnMut(&str)) -> Result<(), IndexError>;
}

#[cfg(test)]
pub(crate) mod tests;
