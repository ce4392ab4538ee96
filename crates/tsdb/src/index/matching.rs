//! Matchers over an [`Index`]: set arithmetic on lists, the same for head and blocks.

use std::borrow::Cow;

use roaring::{MultiOps, RoaringBitmap};
use tidewatch_model::{MatchOp, Matcher};

use super::{Index, IndexError};

/// Bytes of values that are matched before the caller is asked whether to go on: an expression takes up to some
/// microseconds for each.
const ASKED_BYTES: usize = 16 << 10;

/// Bytes that a value counts beside its own.
const VALUE_BYTES: usize = 16;

/// The series that satisfy all matchers. Where `go_on` says no the result is not whole, and who said so knows.
///
/// A matcher that the empty text satisfies can not be answered by a union: series without the
/// label satisfy it too. It takes away those whose value it refuses. The others are intersected,
/// the smallest first.
pub fn postings_for_matchers(
    index: &dyn Index,
    matchers: &[Matcher],
    go_on: &mut dyn FnMut() -> bool,
) -> Result<RoaringBitmap, IndexError> {
    let mut wanted = Vec::new();
    for matcher in matchers.iter().filter(|matcher| !matcher.matches_empty()) {
        let series = union_of(index, matcher, true, go_on)?;
        if series.is_empty() {
            return Ok(RoaringBitmap::new());
        }
        wanted.push(series);
    }
    wanted.sort_by_key(|series| series.len());
    let mut wanted = wanted.into_iter();
    let mut result = match wanted.next() {
        Some(first) => first.into_owned(),
        None => index.all()?.into_owned(),
    };
    for series in wanted {
        result &= series.as_ref();
    }
    for matcher in matchers.iter().filter(|matcher| matcher.matches_empty()) {
        if result.is_empty() {
            break;
        }
        result -= union_of(index, matcher, false, go_on)?.as_ref();
    }
    Ok(result)
}

/// Lists that are held to be united. Short ones are made into bitmaps of some 150 bytes for it.
const LISTS_AT_ONCE: usize = 4096;

/// The union of the lists of those values for which the matcher holds, or does not.
fn union_of<'a>(
    index: &'a dyn Index,
    matcher: &Matcher,
    holds: bool,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Cow<'a, RoaringBitmap>, IndexError> {
    let pairs = pairs_of(index, matcher, holds, go_on)?;
    match pairs.as_slice() {
        [] => Ok(Cow::Owned(RoaringBitmap::new())),
        [pair] => index.series_of(*pair),
        pairs => {
            let mut union = RoaringBitmap::new();
            for some in pairs.chunks(LISTS_AT_ONCE) {
                let lists = some.iter().map(|pair| index.series_of(*pair)).collect::<Result<Vec<_>, _>>()?;
                union |= lists.iter().map(Cow::as_ref).union();
            }
            Ok(Cow::Owned(union))
        }
    }
}

/// The pairs of the matcher's name with a value for which it holds, or does not.
fn pairs_of(
    index: &dyn Index,
    matcher: &Matcher,
    holds: bool,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Vec<u32>, IndexError> {
    // Whether values are wanted that are equal to the text or match the expression, or the others.
    let like = holds == matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex);
    let (mut pairs, mut matched) = (Vec::new(), 0);
    let mut visit = |prefix| {
        index.visit_values(matcher.name(), prefix, &mut |value, pair| {
            if matcher.matches(value) == holds {
                pairs.push(pair);
            }
            matched += value.len() + VALUE_BYTES;
            matched < ASKED_BYTES || {
                matched = 0;
                go_on()
            }
        })
    };
    match (matcher.regex(), like) {
        (None, true) => pairs.extend(index.find(matcher.name(), matcher.value())?),
        (None, false) => visit("")?,
        (Some(regex), false) if regex.matches_all() => {}
        (Some(_), false) => visit("")?,
        (Some(regex), true) => match regex.set_matches() {
            Some(texts) => {
                for text in texts {
                    pairs.extend(index.find(matcher.name(), text)?);
                }
            }
            None => visit(regex.prefix())?,
        },
    }
    Ok(pairs)
}

/// Visits the names of labels on `series`, or on all, in any order, while `visit` gives true.
pub fn visit_names_of(
    index: &dyn Index,
    series: Option<&RoaringBitmap>,
    visit: &mut dyn FnMut(&str) -> bool,
) -> Result<(), IndexError> {
    let mut goes_on = Ok(true);
    index.visit_names(&mut |name| {
        if let Ok(true) = goes_on {
            goes_on = bears_name(index, name, series).map(|bears| !bears || visit(name));
        }
    })?;
    goes_on.map(drop)
}

fn bears_name(index: &dyn Index, name: &str, series: Option<&RoaringBitmap>) -> Result<bool, IndexError> {
    let Some(series) = series else { return Ok(true) };
    let mut result = Ok(false);
    index.visit_values(name, "", &mut |_, pair| {
        result = index.is_on_any(pair, series);
        matches!(result, Ok(false))
    })?;
    result
}

/// Visits the values of `name` on `series`, or on all, in any order, while `visit` gives true.
pub fn visit_values_of(
    index: &dyn Index,
    name: &str,
    series: Option<&RoaringBitmap>,
    visit: &mut dyn FnMut(&str) -> bool,
) -> Result<(), IndexError> {
    let mut goes_on = Ok(true);
    index.visit_values(name, "", &mut |value, pair| {
        let borne = series.map_or(Ok(true), |series| index.is_on_any(pair, series));
        goes_on = borne.map(|borne| !borne || visit(value));
        matches!(goes_on, Ok(true))
    })?;
    goes_on.map(drop)
}
