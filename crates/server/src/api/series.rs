//! `/api/v1/series`, `/api/v1/labels`, `/api/v1/label/NAME/values`, `/api/v1/query_exemplars`.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewatch_model::{Labels, Matcher, is_valid_label_name};
use tidewatch_promql::Lease;
use tidewatch_storage::{Latest, Room, Scratch, SelectError, Selection, TimeRange};

use super::account::Account;
use super::expression::parsed;
use super::query::TRUNCATED;
use super::{blocking, selectors};
use crate::body::More;
use crate::error::ApiError;
use crate::json::Json;
use crate::reply::Reply;
use crate::request::{MAX_TIME_MS, MIN_TIME_MS, Params, unescape_path};
use crate::service::Service;

/// Label sets or texts that are written in one go.
const ITEMS_A_STEP: usize = 200;

pub(crate) async fn series(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    if params.all("match[]").next().is_none() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let limit = params.limit()?;
    let range = time_range(params)?;
    let selectors = selectors(params)?;
    let (mut account, guard) = Account::open(service).await?;
    let (sets, truncated, leases) = blocking(service, move |service| {
        let selected = select(service, &selectors, range, limit, &mut account);
        selected.map(|(sets, truncated)| (sets, truncated, account.computed()))
    })
    .await??;
    drop(guard);
    let write = |out: &mut Vec<u8>, labels: &Labels| Json::new(out).labels(labels);
    Ok(list(sets, leases, write).warn(truncated.then_some(TRUNCATED)))
}

/// Writes a list a part at a time; keeps its memory until it is written.
fn list<T: Send + 'static>(
    items: Vec<T>,
    leases: Vec<Lease>,
    write: impl Fn(&mut Vec<u8>, &T) + Send + 'static,
) -> Reply {
    let mut next = 0;
    Reply::produce(Box::new(move |out: &mut Vec<u8>| {
        let _held = &leases;
        if next == 0 {
            out.push(b'[');
        }
        let end = items.len().min(next + ITEMS_A_STEP);
        for (index, item) in items[next..end].iter().enumerate() {
            if next + index > 0 {
                out.push(b',');
            }
            write(out, item);
        }
        next = end;
        if end < items.len() {
            return More::Follows;
        }
        out.push(b']');
        More::Nothing
    }))
}

/// Label sets of all selectors in order, each once; and whether there were more than `limit`.
fn select(
    service: &Service,
    selectors: &[Vec<Matcher>],
    range: TimeRange,
    limit: Option<usize>,
    account: &mut Account,
) -> Result<(Vec<Labels>, bool), ApiError> {
    // One more tells whether there are more.
    let wanted = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut sets: Vec<Labels> = Vec::new();
    for matchers in selectors {
        sets.extend(first_sets(service, matchers, range, wanted, account)?);
    }
    if selectors.len() > 1 {
        sets.sort_unstable();
        sets.dedup();
    }
    let truncated = limit.is_some_and(|limit| sets.len() > limit);
    sets.truncate(limit.unwrap_or(usize::MAX));
    Ok((sets, truncated))
}

/// Series whose samples are asked for in one go.
const SERIES_A_STEP: usize = 1000;

/// How many more series are looked at where too few of the first have samples.
const SERIES_GROWTH: usize = 32;

/// The label sets of a selector in order: fewer than `wanted` only where there are no more.
fn first_sets(
    service: &Service,
    matchers: &[Matcher],
    range: TimeRange,
    wanted: usize,
    account: &mut Account,
) -> Result<Vec<Labels>, ApiError> {
    let mut most = wanted.max(SERIES_A_STEP);
    loop {
        let select = &service.app.select;
        let selection = select.select_first(matchers, range, most, &mut |bytes| account.take(bytes));
        let selection = selection.map_err(|error| account.explain(error))?;
        account.try_take((selection.len().min(wanted) * size_of::<Labels>()) as u64)?;
        let sets = match range.start <= MIN_TIME_MS && MAX_TIME_MS <= range.end {
            true => (0..selection.len().min(wanted)).map(|at| selection.labels(at).clone()).collect(),
            false => with_samples(&*selection, range, wanted, account)?,
        };
        if sets.len() >= wanted || selection.len() < most {
            return Ok(sets);
        }
        most = most.saturating_mul(SERIES_GROWTH);
    }
}

/// Those of a selection with a sample in the range, as far as they are wanted: a block gives all its series for
/// any part of its range.
fn with_samples(
    selection: &dyn Selection,
    range: TimeRange,
    wanted: usize,
    account: &mut Account,
) -> Result<Vec<Labels>, ApiError> {
    let (after, mut scratch) = (range.start.saturating_sub(1), Scratch::default());
    let (mut sets, mut next) = (Vec::new(), 0);
    while next < selection.len() && sets.len() < wanted {
        account.try_take(0)?;
        let step = next..selection.len().min(next + SERIES_A_STEP);
        next = step.end;
        let mut add = |series: usize, _: Latest| sets.push(selection.labels(series).clone());
        let read = selection.latest(step, after, range.end, &mut scratch, &mut add);
        read.map_err(|error| account.explain(error))?;
    }
    Ok(sets)
}

pub(crate) async fn label_names(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    let limit = params.limit()?;
    let range = time_range(params)?;
    let selectors = selectors(params)?;
    texts(service, limit, move |service, room| {
        let select = &service.app.select;
        union(&selectors, limit, |matchers, most| select.label_names(matchers, range, most, room))
    })
    .await
}

pub(crate) async fn label_values(
    service: &Arc<Service>,
    params: &Params,
    segment: &str,
) -> Result<Reply, ApiError> {
    let mut name = unescape_path(segment)?;
    if let Some(escaped) = name.strip_prefix("U__") {
        name = unescape_name(escaped).unwrap_or(name);
    }
    if !is_valid_label_name(&name) {
        return Err(ApiError::bad_data(format!("invalid label name: {name:?}")));
    }
    let limit = params.limit()?;
    let range = time_range(params)?;
    let selectors = selectors(params)?;
    texts(service, limit, move |service, room| {
        let select = &service.app.select;
        union(&selectors, limit, |matchers, most| select.label_values(&name, matchers, range, most, room))
    })
    .await
}

/// Answers with a list of texts, within a query's memory.
async fn texts(
    service: &Arc<Service>,
    limit: Option<usize>,
    work: impl FnOnce(&Service, &mut Room<'_>) -> Result<Vec<String>, SelectError> + Send + 'static,
) -> Result<Reply, ApiError> {
    let (mut account, guard) = Account::open(service).await?;
    let (mut texts, leases) = blocking(service, move |service| {
        let texts = work(service, &mut |bytes| account.take(bytes));
        let texts = texts.map_err(|error| account.explain(error))?;
        Ok::<_, ApiError>((texts, account.computed()))
    })
    .await??;
    drop(guard);
    let truncated = limit.is_some_and(|limit| texts.len() > limit);
    texts.truncate(limit.unwrap_or(usize::MAX));
    let write = |out: &mut Vec<u8>, text: &String| Json::new(out).string(text);
    Ok(list(texts, leases, write).warn(truncated.then_some(TRUNCATED)))
}

/// Asks once for each selector, or once without any; gives one more than `limit` where there are.
fn union(
    selectors: &[Vec<Matcher>],
    limit: Option<usize>,
    mut ask: impl FnMut(&[Matcher], usize) -> Result<Vec<String>, SelectError>,
) -> Result<Vec<String>, SelectError> {
    let most = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    match selectors {
        [] => ask(&[], most),
        [matchers] => ask(matchers, most),
        several => {
            let mut all = BTreeSet::new();
            for matchers in several {
                all.extend(ask(matchers, most)?);
            }
            Ok(all.into_iter().take(most).collect())
        }
    }
}

/// The exemplars of all series that a selector of the query selects.
pub(crate) async fn exemplars(service: &Arc<Service>, params: &Params) -> Result<Reply, ApiError> {
    let range = time_range(params)?;
    if range.end < range.start {
        return Err(ApiError::bad_data("end timestamp must not be before start timestamp"));
    }
    let exemplars_of = service.clone();
    let answer = move |expr: &tidewatch_parser::Expr| {
        let mut selectors = Vec::new();
        expr.for_each_selector(&mut |selector| selectors.push(selector.matchers.to_vec()));
        let found = exemplars_of.app.backend.exemplars(&selectors, range)?;
        Ok(Reply::json(|json| {
            json.array(&found, |json, (labels, exemplars)| {
                json.object(|json| {
                    json.key("seriesLabels").labels(labels);
                    json.key("exemplars").array(exemplars, |json, exemplar| {
                        json.object(|json| {
                            json.key("labels").labels(&exemplar.labels);
                            json.key("value").float(exemplar.value);
                            json.key("timestamp").timestamp(exemplar.timestamp);
                        });
                    });
                });
            });
        }))
    };
    parsed(service, params, answer).await
}

fn time_range(params: &Params) -> Result<TimeRange, ApiError> {
    let start = params.time_or("start", MIN_TIME_MS)?;
    let end = params.time_or("end", MAX_TIME_MS)?;
    Ok(TimeRange { start, end })
}

/// Undoes the escaping that lets any name stand in an address: after `U__`, `_HEX_` is a
/// character, `__` an underscore, and the rest are themselves.
fn unescape_name(escaped: &str) -> Option<String> {
    let mut name = String::new();
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        name.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('_') {
            name.push('_');
            rest = tail;
            continue;
        }
        let (code, tail) = rest.split_once('_')?;
        if code.is_empty() || code.len() > 6 || !code.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return None;
        }
        name.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        rest = tail;
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::unescape_name;

    #[test]
    fn escaped_names_come_back() {
        let cases = [
            ("http_2e_status", Some("http.status")),
            ("my__name", Some("my_name")),
            ("_1f600_", Some("😀")),
            ("plain", Some("plain")),
            ("a_zz_b", None),
            ("a_2", None),
            ("a_d800_", None),
            ("a_1234567_", None),
        ];
        for (escaped, name) in cases {
            assert_eq!(unescape_name(escaped).as_deref(), name, "{escaped}");
        }
    }
}
