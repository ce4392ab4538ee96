//! Aggregations: one result for each group, or some elements of each.

use std::sync::Arc;

use tidewatch_model::{FloatHistogram, Labels, SampleValue, format_float};
use tidewatch_parser::{AggregateExpr, AggregateOp};

use super::eval::{Query, float};
use super::{Answer, Element, distinct, numbers};

pub(super) fn aggregate(
    query: &Query<'_>,
    expr: &AggregateExpr,
    param: Option<Answer>,
    mut vector: Vec<Element>,
) -> Result<Answer, String> {
    let mut grouping = expr.grouping.clone();
    if let (AggregateOp::CountValues, Some(Answer::Text(label))) = (expr.op, &param) {
        vector.iter_mut().for_each(|element| name_value(element, label));
        if !expr.without {
            grouping.push(label.clone());
        }
    }
    let number = match param {
        Some(Answer::Scalar(value)) => value,
        _ => 0.0,
    };
    check(query, expr.op, number)?;
    let mut groups: Vec<(Labels, Vec<Element>)> = Vec::new();
    for element in vector {
        let key = group_labels(&element.labels, &grouping, expr.without);
        match groups.iter_mut().find(|(labels, _)| *labels == key) {
            Some((_, members)) => members.push(element),
            None => groups.push((key, vec![element])),
        }
    }
    let mut result = Vec::new();
    for (labels, members) in groups {
        match expr.op {
            AggregateOp::Topk | AggregateOp::Bottomk => {
                result.extend(extremes(members, number, expr.op == AggregateOp::Bottomk));
            }
            AggregateOp::Limitk => result.extend(members.into_iter().take(number.max(0.0) as usize)),
            AggregateOp::LimitRatio => {
                let ratio = number.clamp(-1.0, 1.0);
                result.extend(members.into_iter().filter(|element| within_ratio(&element.labels, ratio)));
            }
            _ => {
                let value = fold(query, expr.op, number, &members);
                result.extend(value.map(|value| Element { labels, value }));
            }
        }
    }
    distinct(result)
}

fn group_labels(labels: &Labels, grouping: &[String], without: bool) -> Labels {
    let named = |name: &str| grouping.iter().any(|label| label == name);
    match without {
        true => labels.without_metric_name().without(named),
        false => labels.without(|name| !named(name)),
    }
}

/// Parameters that are refused, or that deserve a warning.
fn check(query: &Query<'_>, op: AggregateOp, number: f64) -> Result<(), String> {
    match op {
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk => {
            if number.is_nan() {
                return Err("Parameter value is NaN".to_owned());
            }
            if number.abs() >= i64::MAX as f64 {
                return Err(format!("Scalar value {number} overflows int64"));
            }
        }
        AggregateOp::LimitRatio if number.is_nan() => return Err("Ratio value is NaN".to_owned()),
        AggregateOp::LimitRatio if !(-1.0..=1.0).contains(&number) => query.warn(),
        AggregateOp::Quantile if !(0.0..=1.0).contains(&number) => query.warn(),
        _ => {}
    }
    Ok(())
}

fn name_value(element: &mut Element, label: &str) {
    let value = match &element.value {
        SampleValue::Float(value) => format_float(*value),
        SampleValue::Histogram(histogram) => histogram.to_string(),
    };
    let mut labels = element.labels.to_builder();
    labels.set(label, &value);
    element.labels = labels.build();
}

fn fold(query: &Query<'_>, op: AggregateOp, number: f64, members: &[Element]) -> Option<SampleValue> {
    let floats: Vec<f64> = members.iter().filter_map(|member| float(&member.value)).collect();
    match op {
        AggregateOp::Count | AggregateOp::CountValues => {
            return Some(SampleValue::Float(members.len() as f64));
        }
        AggregateOp::Group => return Some(SampleValue::Float(1.0)),
        AggregateOp::Sum | AggregateOp::Avg if floats.len() < members.len() => {
            return fold_histograms(query, op, members, !floats.is_empty());
        }
        _ if floats.is_empty() => return None,
        _ => {}
    }
    let spread = || {
        // What is not finite has no distance from a mean.
        if floats.iter().all(|value| value.is_finite()) { numbers::variance(&floats) } else { f64::NAN }
    };
    Some(SampleValue::Float(match op {
        AggregateOp::Sum => numbers::sum(&floats),
        AggregateOp::Avg => numbers::mean(&floats),
        AggregateOp::Min => extreme(&floats, |a, b| a < b),
        AggregateOp::Max => extreme(&floats, |a, b| a > b),
        AggregateOp::Stdvar => spread(),
        AggregateOp::Stddev => spread().sqrt(),
        AggregateOp::Quantile => numbers::quantile(number, &floats),
        other => unreachable!("{other:?} picks elements"),
    }))
}

/// The value that beats all others; a NaN is beaten by any.
pub(super) fn extreme(values: &[f64], beats: fn(f64, f64) -> bool) -> f64 {
    values.iter().copied().fold(
        f64::NAN,
        |best, value| {
            if beats(value, best) || best.is_nan() { value } else { best }
        },
    )
}

fn fold_histograms(
    query: &Query<'_>,
    op: AggregateOp,
    members: &[Element],
    mixed: bool,
) -> Option<SampleValue> {
    if mixed {
        query.warn();
        return None;
    }
    let histograms: Vec<&FloatHistogram> = members
        .iter()
        .filter_map(|member| match &member.value {
            SampleValue::Histogram(histogram) => Some(&**histogram),
            SampleValue::Float(_) => None,
        })
        .collect();
    let mut total = add_up(query, &histograms)?;
    if op == AggregateOp::Avg {
        total.div(histograms.len() as f64);
    }
    total.compact();
    Some(SampleValue::Histogram(Arc::new(total)))
}

/// The sum of histograms; none where they do not go together.
pub(super) fn add_up(query: &Query<'_>, histograms: &[&FloatHistogram]) -> Option<FloatHistogram> {
    let (first, rest) = histograms.split_first()?;
    let mut total = (*first).clone();
    for histogram in rest {
        match total.add(histogram) {
            Ok(reconciled) if reconciled.reset_collision => query.warn(),
            Ok(_) => {}
            Err(_) => {
                query.warn();
                return None;
            }
        }
    }
    Some(total)
}

/// The `k` largest or smallest floats. Which of equal ones stay is decided by the order in which
/// a binary heap of `k` lets them go.
fn extremes(members: Vec<Element>, k: f64, smallest: bool) -> Vec<Element> {
    let k = k.max(0.0) as usize;
    let mut heap: Vec<(f64, Element)> = Vec::new();
    // On top of the heap is what goes first: NaN, then the least.
    let goes = |a: f64, b: f64| a.is_nan() || if smallest { a > b } else { a < b };
    for member in members {
        let Some(value) = float(&member.value) else { continue };
        if heap.len() < k {
            heap.push((value, member));
            let mut child = heap.len() - 1;
            while child > 0 && goes(heap[child].0, heap[(child - 1) / 2].0) {
                heap.swap(child, (child - 1) / 2);
                child = (child - 1) / 2;
            }
        } else if k > 0 && !value.is_nan() && goes(heap[0].0, value) {
            heap[0] = (value, member);
            let mut parent = 0;
            loop {
                let (left, right) = (2 * parent + 1, 2 * parent + 2);
                if left >= heap.len() {
                    break;
                }
                let child =
                    if right < heap.len() && goes(heap[right].0, heap[left].0) { right } else { left };
                if !goes(heap[child].0, heap[parent].0) {
                    break;
                }
                heap.swap(parent, child);
                parent = child;
            }
        }
    }
    heap.into_iter().map(|(_, element)| element).collect()
}

/// Whether `limit_ratio` takes an element: by where the hash of its labels lies between 0 and 1.
fn within_ratio(labels: &Labels, ratio: f64) -> bool {
    let offset = xxhash64(labels.as_bytes()) as f64 / u64::MAX as f64;
    if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
}

/// XXH64 with seed 0. The bytes are those of Prometheus' label sets as long as no name or value
/// is longer than 126 bytes.
fn xxhash64(bytes: &[u8]) -> u64 {
    const P: [u64; 5] = [
        0x9E37_79B1_85EB_CA87,
        0xC2B2_AE3D_27D4_EB4F,
        0x1656_67B1_9E37_79F9,
        0x85EB_CA77_C2B2_AE63,
        0x27D4_EB2F_1656_67C5,
    ];
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let round = |lane: u64, input: u64| {
        lane.wrapping_add(input.wrapping_mul(P[1])).rotate_left(31).wrapping_mul(P[0])
    };
    let mut rest = bytes;
    let mut hash = P[4];
    if bytes.len() >= 32 {
        let mut lanes = [P[0].wrapping_add(P[1]), P[1], 0, P[0].wrapping_neg()];
        while rest.len() >= 32 {
            for (i, lane) in lanes.iter_mut().enumerate() {
                *lane = round(*lane, word(&rest[8 * i..]));
            }
            rest = &rest[32..];
        }
        hash = [1, 7, 12, 18]
            .iter()
            .zip(lanes)
            .fold(0u64, |sum, (by, lane)| sum.wrapping_add(lane.rotate_left(*by)));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(P[0]).wrapping_add(P[3]);
        }
    }
    hash = hash.wrapping_add(bytes.len() as u64);
    while rest.len() >= 8 {
        hash = (hash ^ round(0, word(rest))).rotate_left(27).wrapping_mul(P[0]).wrapping_add(P[3]);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        let half = u64::from(u32::from_le_bytes(rest[..4].try_into().expect("four bytes")));
        hash = (hash ^ half.wrapping_mul(P[0])).rotate_left(23).wrapping_mul(P[1]).wrapping_add(P[2]);
        rest = &rest[4..];
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P[4])).rotate_left(11).wrapping_mul(P[0]);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(P[1]);
    hash = (hash ^ hash >> 29).wrapping_mul(P[2]);
    hash ^ hash >> 32
}
