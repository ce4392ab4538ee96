//! Binary operators: which elements meet, and what becomes of two that do.

use std::sync::Arc;

use tidewatch_model::{Labels, SampleValue};
use tidewatch_parser::{BinaryExpr, BinaryOp, Cardinality, VectorMatching};

use super::eval::Query;
use super::{Answer, Element, distinct};

pub(super) fn combine(
    query: &Query<'_>,
    expr: &BinaryExpr,
    lhs: Answer,
    rhs: Answer,
) -> Result<Answer, String> {
    match (lhs, rhs) {
        (Answer::Scalar(a), Answer::Scalar(b)) => Ok(Answer::Scalar(match expr.op.is_comparison() {
            true => f64::from(compare(expr.op, a, b)),
            false => arithmetic(expr.op, a, b),
        })),
        (Answer::Vector(vector), Answer::Scalar(b)) => {
            let b = SampleValue::Float(b);
            with_scalar(query, expr, vector, |value| (value.clone(), b.clone()))
        }
        (Answer::Scalar(a), Answer::Vector(vector)) => {
            let a = SampleValue::Float(a);
            with_scalar(query, expr, vector, |value| (a.clone(), value.clone()))
        }
        (Answer::Vector(lhs), Answer::Vector(rhs)) => {
            let matching = expr.matching.as_ref().expect("present between vectors");
            match expr.op {
                BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => {
                    Ok(Answer::Vector(set(expr.op, matching, lhs, rhs)))
                }
                _ => distinct(vectors(query, expr, matching, lhs, rhs)?),
            }
        }
        (lhs, rhs) => unreachable!("the parser refuses {lhs:?} and {rhs:?}"),
    }
}

fn arithmetic(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Mod => a % b,
        BinaryOp::Pow => a.powf(b),
        BinaryOp::Atan2 => a.atan2(b),
        other => unreachable!("{other:?} is no arithmetic"),
    }
}

fn compare(op: BinaryOp, a: f64, b: f64) -> bool {
    match op {
        BinaryOp::Equal => a == b,
        BinaryOp::NotEqual => a != b,
        BinaryOp::Greater => a > b,
        BinaryOp::Less => a < b,
        BinaryOp::GreaterOrEqual => a >= b,
        BinaryOp::LessOrEqual => a <= b,
        other => unreachable!("{other:?} is no comparison"),
    }
}

/// What becomes of two values.
enum Outcome {
    Value(SampleValue),
    /// A comparison, with the value that it lets pass.
    Compared(bool, SampleValue),
    /// The operator has no meaning for them.
    Incompatible,
}

fn values(query: &Query<'_>, op: BinaryOp, a: &SampleValue, b: &SampleValue) -> Outcome {
    use SampleValue::{Float, Histogram};
    match (a, b) {
        (Float(x), Float(y)) if op.is_comparison() => Outcome::Compared(compare(op, *x, *y), a.clone()),
        (Float(x), Float(y)) => Outcome::Value(Float(arithmetic(op, *x, *y))),
        (Histogram(h), Float(x)) | (Float(x), Histogram(h)) if op == BinaryOp::Mul => {
            let mut product = (**h).clone();
            product.mul(*x);
            Outcome::Value(Histogram(Arc::new(product)))
        }
        (Histogram(h), Float(x)) if op == BinaryOp::Div => {
            let mut quotient = (**h).clone();
            quotient.div(*x);
            Outcome::Value(Histogram(Arc::new(quotient)))
        }
        (Histogram(x), Histogram(y)) => match op {
            BinaryOp::Equal => Outcome::Compared(same(x, y), a.clone()),
            BinaryOp::NotEqual => Outcome::Compared(!same(x, y), a.clone()),
            BinaryOp::Add | BinaryOp::Sub => {
                let mut result = (**x).clone();
                let combined = if op == BinaryOp::Add { result.add(y) } else { result.sub(y) };
                match combined {
                    Ok(reconciled) if reconciled.reset_collision => query.warn(),
                    Ok(_) => {}
                    Err(_) => {
                        query.warn();
                        return Outcome::Incompatible;
                    }
                }
                result.compact();
                Outcome::Value(Histogram(Arc::new(result)))
            }
            _ => Outcome::Incompatible,
        },
        _ => Outcome::Incompatible,
    }
}

/// Whether two histograms are equal but for empty buckets.
fn same(a: &tidewatch_model::FloatHistogram, b: &tidewatch_model::FloatHistogram) -> bool {
    let (mut a, mut b) = (a.clone(), b.clone());
    a.compact();
    b.compact();
    a.same_data(&b)
}

fn with_scalar(
    query: &Query<'_>,
    expr: &BinaryExpr,
    vector: Vec<Element>,
    operands: impl Fn(&SampleValue) -> (SampleValue, SampleValue),
) -> Result<Answer, String> {
    let mut result = Vec::new();
    for Element { labels, value } in vector {
        let (a, b) = operands(&value);
        result.extend(match values(query, expr.op, &a, &b) {
            Outcome::Value(value) => Some(Element { labels: labels.without_metric_name(), value }),
            Outcome::Compared(holds, _) if expr.return_bool => {
                let value = SampleValue::Float(f64::from(holds));
                Some(Element { labels: labels.without_metric_name(), value })
            }
            // Of a scalar and an element it is the element that passes.
            Outcome::Compared(true, _) => Some(Element { labels, value }),
            Outcome::Compared(false, _) | Outcome::Incompatible => None,
        });
    }
    distinct(result)
}

/// The labels by which elements meet.
fn signature(labels: &Labels, matching: &VectorMatching) -> Labels {
    let named = |name: &str| matching.labels.iter().any(|label| label == name);
    match matching.on {
        true => labels.without(|name| !named(name)),
        false => labels.without_metric_name().without(named),
    }
}

fn set(op: BinaryOp, matching: &VectorMatching, lhs: Vec<Element>, rhs: Vec<Element>) -> Vec<Element> {
    let has = |side: &[Element], element: &Element| {
        let wanted = signature(&element.labels, matching);
        side.iter().any(|other| signature(&other.labels, matching) == wanted)
    };
    match op {
        BinaryOp::And => lhs.into_iter().filter(|element| has(&rhs, element)).collect(),
        BinaryOp::Unless => lhs.into_iter().filter(|element| !has(&rhs, element)).collect(),
        _ => {
            let more: Vec<Element> = rhs.into_iter().filter(|element| !has(&lhs, element)).collect();
            lhs.into_iter().chain(more).collect()
        }
    }
}

fn vectors(
    query: &Query<'_>,
    expr: &BinaryExpr,
    matching: &VectorMatching,
    lhs: Vec<Element>,
    rhs: Vec<Element>,
) -> Result<Vec<Element>, String> {
    // From here on the many are on one side and the ones on the other.
    let swapped = matching.cardinality == Cardinality::OneToMany;
    let (many, ones) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    let (fill_many, fill_one) = match swapped {
        true => (matching.fill.rhs, matching.fill.lhs),
        false => (matching.fill.lhs, matching.fill.rhs),
    };
    let fills = fill_many.is_some() || fill_one.is_some();
    if many.is_empty() && ones.is_empty() || (many.is_empty() || ones.is_empty()) && !fills {
        return Ok(Vec::new());
    }
    for (i, one) in ones.iter().enumerate() {
        let wanted = signature(&one.labels, matching);
        if ones[..i].iter().any(|other| signature(&other.labels, matching) == wanted) {
            return Err(format!("found duplicate series for the match group {wanted}"));
        }
    }
    let filled = |labels: Labels, value: f64| Element { labels, value: SampleValue::Float(value) };
    let mut pairs: Vec<(Element, Element, Labels)> = Vec::new();
    for element in many {
        let key = signature(&element.labels, matching);
        let one = ones.iter().find(|one| signature(&one.labels, matching) == key).cloned();
        if let Some(one) = one.or_else(|| fill_one.map(|value| filled(key.clone(), value))) {
            pairs.push((element, one, key));
        }
    }
    if let Some(value) = fill_many {
        for one in &ones {
            let key = signature(&one.labels, matching);
            if !pairs.iter().any(|(_, _, met)| *met == key) {
                pairs.push((filled(key.clone(), value), one.clone(), key));
            }
        }
    }
    meet(query, expr, matching, pairs)
}

/// What becomes of the pairs that met.
fn meet(
    query: &Query<'_>,
    expr: &BinaryExpr,
    matching: &VectorMatching,
    pairs: Vec<(Element, Element, Labels)>,
) -> Result<Vec<Element>, String> {
    let mut result: Vec<Element> = Vec::new();
    let mut taken: Vec<(Labels, Labels)> = Vec::new();
    for (many, one, key) in pairs {
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (a, b) = if swapped { (&one.value, &many.value) } else { (&many.value, &one.value) };
        let keeps_name = expr.op.is_comparison() && !expr.return_bool;
        let labels = result_labels(&many.labels, &one.labels, matching, keeps_name);
        let one_to_one = matching.cardinality == Cardinality::OneToOne;
        let outcome = values(query, expr.op, a, b);
        if !one_to_one && matches!(outcome, Outcome::Incompatible) {
            continue;
        }
        // A pair counts though a comparison will not let it pass.
        if taken.iter().any(|(k, l)| *k == key && (one_to_one || *l == labels)) {
            return Err("multiple matches for labels".to_owned());
        }
        taken.push((key, labels.clone()));
        let value = match outcome {
            Outcome::Value(value) => value,
            Outcome::Compared(holds, _) if expr.return_bool => SampleValue::Float(f64::from(holds)),
            Outcome::Compared(true, value) => value,
            Outcome::Compared(false, _) | Outcome::Incompatible => continue,
        };
        result.push(Element { labels, value });
    }
    Ok(result)
}

fn result_labels(many: &Labels, one: &Labels, matching: &VectorMatching, keeps_name: bool) -> Labels {
    let named = |name: &str| matching.labels.iter().any(|label| label == name);
    let mut labels = if keeps_name { many.clone() } else { many.without_metric_name() };
    if matching.cardinality == Cardinality::OneToOne {
        labels = labels.without(|name| named(name) != matching.on);
    }
    let mut labels = labels.to_builder();
    for name in &matching.include {
        labels.set(name, one.get(name).unwrap_or_default());
    }
    labels.build()
}
