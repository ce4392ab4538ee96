//! Matchers over an [`Index`]: set arithmetic on lists, the same for head and blocks.

use std::borrow::Cow;

use roaring::{MultiOps, RoaringBitmap};
use tidewatch_model::{MatchOp, Matcher};

use super::{Index, IndexError};

/// The series that satisfy all matchers.
///
/// A matcher that the empty text satisfies can not be answered by a union: series without the
/// label satisfy it too. It takes away those whose value it refuses. The others are intersected,
/// the smallest first.
pub fn postings_for_matchers(index: &dyn Index, matchers: &[Matcher]) -> Result<RoaringBitmap, IndexError> {
    let mut wanted = Vec::new();
    for matcher in matchers.iter().filter(|matcher| !matcher.matches_empty()) {
        let series = union_of(index, matcher, true)?;
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
        result -= union_of(index, matcher, false)?.as_ref();
    }
    Ok(result)
}

/// The union of the lists of those values for which the matcher holds, or does not.
fn union_of<'a>(
    index: &'a dyn Index,
    matcher: &Matcher,
    holds: bool,
) -> Result<Cow<'a, RoaringBitmap>, IndexError> {
    let pairs = pairs_of(index, matcher, holds)?;
    match pairs.as_slice() {
        [] => Ok(Cow::Owned(RoaringBitmap::new())),
        [pair] => index.series_of(*pair),
        pairs => {
            let lists = pairs.iter().map(|pair| index.series_of(*pair)).collect::<Result<Vec<_>, _>>()?;
            Ok(Cow::Owned(lists.iter().map(Cow::as_ref).union()))
        }
    }
}

/// The pairs of the matcher's name with a value for which it holds, or does not.
fn pairs_of(index: &dyn Index, matcher: &Matcher, holds: bool) -> Result<Vec<u32>, IndexError> {
    // Whether values are wanted that are equal to the text or match the expression, or the others.
    let like = holds == matches!(matcher.op(), MatchOp::Equal | MatchOp::Regex);
    let mut pairs = Vec::new();
    let mut visit = |prefix| {
        index.visit_values(matcher.name(), prefix, &mut |value, pair| {
            if matcher.matches(value) == holds {
                pairs.push(pair);
            }
            true
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

/// Names of labels on series that satisfy the matchers, sorted; at most `limit`.
pub fn label_names(index: &dyn Index, matchers: &[Matcher], limit: usize) -> Result<Vec<String>, IndexError> {
    let mut names = Vec::new();
    index.visit_names(&mut |name| names.push(name.to_owned()))?;
    names.sort_unstable();
    if !matchers.is_empty() {
        let series = postings_for_matchers(index, matchers)?;
        let mut borne = Vec::new();
        for name in names {
            if borne.len() == limit || series.is_empty() {
                break;
            }
            if bears_name(index, &name, &series)? {
                borne.push(name);
            }
        }
        names = borne;
    }
    names.truncate(limit);
    Ok(names)
}

fn bears_name(index: &dyn Index, name: &str, series: &RoaringBitmap) -> Result<bool, IndexError> {
    let mut result = Ok(false);
    index.visit_values(name, "", &mut |_, pair| {
        result = index.series_of(pair).map(|list| !list.is_disjoint(series));
        matches!(result, Ok(false))
    })?;
    result
}

/// Values of `name` on series that satisfy the matchers, sorted; at most `limit`.
pub fn label_values(
    index: &dyn Index,
    name: &str,
    matchers: &[Matcher],
    limit: usize,
) -> Result<Vec<String>, IndexError> {
    let series = if matchers.is_empty() { None } else { Some(postings_for_matchers(index, matchers)?) };
    let mut values = Vec::new();
    let mut failed = None;
    index.visit_values(name, "", &mut |value, pair| {
        let borne = match &series {
            None => Ok(true),
            Some(series) => index.series_of(pair).map(|list| !list.is_disjoint(series)),
        };
        match borne {
            Ok(true) => values.push(value.to_owned()),
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    values.sort_unstable();
    values.truncate(limit);
    Ok(values)
}
