//! Regular expressions, matched while nobody waits for it.
//!
//! An expression may take milliseconds for one value. Whoever wants to add a series waits for those who read the
//! directory, and everybody else for him; so texts are copied a piece at a time, and matched when the directory is
//! free. It then meets the list of those that match.
//!
//! Not here: blocks, whose index nobody changes.

use std::borrow::Cow;

use parking_lot::RwLockReadGuard;
use roaring::RoaringBitmap;
use tidewatch_model::regex::GoRegex;
use tidewatch_model::{MatchOp, Matcher};
use tidewatch_storage::SelectError;

use super::registry::SeriesId;
use super::{Directory, Head};
use crate::debt::Debt;
use crate::index::PairTable;

/// Bytes of texts that are copied at once, and how many values are looked at for it.
const PIECE_BYTES: usize = 16 << 10;
const PIECE_VALUES: usize = 4096;

/// What a text takes beside its bytes.
const TEXT_BYTES: usize = size_of::<String>() + 16;

/// Texts that were copied, one behind the other, and where each ends.
#[derive(Default)]
struct Piece {
    texts: String,
    ends: Vec<usize>,
}

impl Piece {
    fn push(&mut self, text: &str) {
        self.texts.push_str(text);
        self.ends.push(self.texts.len());
    }

    fn clear(&mut self) {
        self.texts.clear();
        self.ends.clear();
    }

    fn is_full(&self) -> bool {
        self.texts.len() + self.ends.len() * TEXT_BYTES >= PIECE_BYTES
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.texts[start..*end])
    }
}

impl Head {
    /// The series below `until` that satisfy all matchers, and the directory that they are of. `until` was the next id
    /// when the caller asked: of series that came since, what was listed meanwhile may say something else.
    pub(crate) fn matching_below(
        &self,
        until: SeriesId,
        matchers: &[Matcher],
        debt: &mut Debt<'_, '_>,
    ) -> Result<(RwLockReadGuard<'_, Directory>, RoaringBitmap), SelectError> {
        let matchers = self.listed(matchers, debt)?;
        let directory = self.directory.read();
        let mut ids = directory.matching(&matchers, &mut || debt.goes_on());
        debt.check()?;
        ids.remove_range(until.0..);
        Ok((directory, ids))
    }

    /// Matchers that say the same of the series that there are now, without an expression that an engine has to
    /// match. Of series that come later they may say something else.
    fn listed<'m>(
        &self,
        matchers: &'m [Matcher],
        debt: &mut Debt<'_, '_>,
    ) -> Result<Cow<'m, [Matcher]>, SelectError> {
        let needs_engine = |matcher: &Matcher| matcher.regex().is_some_and(GoRegex::needs_engine);
        if !matchers.iter().any(needs_engine) {
            return Ok(Cow::Borrowed(matchers));
        }
        let is_plain = |matcher: &&Matcher| matcher.op() == MatchOp::Equal && !matcher.matches_empty();
        let plain: Vec<Matcher> = matchers.iter().filter(is_plain).cloned().collect();
        if !plain.is_empty() && self.directory.read().matching(&plain, &mut || true).is_empty() {
            // Of the series that there are these alone say no: many metrics are asked for that nobody has.
            return Ok(Cow::Owned(plain));
        }
        let mut listed = Vec::with_capacity(matchers.len());
        for matcher in matchers {
            listed.push(match needs_engine(matcher) {
                true => matcher.listed(self.texts_that_match(matcher, debt)?),
                false => matcher.clone(),
            });
        }
        Ok(Cow::Owned(listed))
    }

    /// The values of the matcher's name that match its expression.
    fn texts_that_match(
        &self,
        matcher: &Matcher,
        debt: &mut Debt<'_, '_>,
    ) -> Result<Vec<String>, SelectError> {
        let regex = matcher.regex().expect("asked by the caller");
        let (mut found, mut piece) = (Vec::new(), Piece::default());
        let (mut next, mut moves_before) = (0, None);
        loop {
            piece.clear();
            let is_last = {
                let directory = self.directory.read();
                let (pairs, moves) = directory.postings.pairs_of_name(matcher.name());
                if moves_before.replace(moves).is_some_and(|before| before != moves) {
                    // Where a pair stands has changed.
                    next = 0;
                }
                let end = pairs.len().min(next + PIECE_VALUES);
                while next < end && !piece.is_full() {
                    let value = directory.registry.pair(pairs[next]).1;
                    if value.starts_with(regex.prefix()) {
                        piece.push(value);
                    }
                    next += 1;
                }
                next >= pairs.len()
            };
            for text in piece.iter().filter(|text| regex.is_match(text)) {
                debt.owe(text.len() + TEXT_BYTES)?;
                found.push(text.to_owned());
            }
            if is_last {
                return Ok(found);
            }
            debt.goes_on();
            debt.check()?;
        }
    }
}
