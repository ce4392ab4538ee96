//! Functions of instant vectors that look at one element at a time, and sorting.

use std::f64::consts::PI;

use tidewatch_model::{FloatHistogram, SampleValue};
use tidewatch_parser::{Call, Expr, FunctionId};

use super::eval::{At, Query, float};
use super::{Answer, Element, distinct};

/// Go's `math.Min`: NaN unless one is -Inf.
pub(super) fn go_min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// Go's `math.Max`: NaN unless one is +Inf.
pub(super) fn go_max(a: f64, b: f64) -> f64 {
    -go_min(-a, -b)
}

/// `scalar()`: the only float of a vector.
pub(super) fn only_float(elements: &[Element]) -> f64 {
    let floats: Vec<f64> = elements.iter().filter_map(|element| float(&element.value)).collect();
    if let [value] = floats[..] { value } else { f64::NAN }
}

/// `timestamp()`: of a selector the times of its samples, of anything else the time of asking.
pub(super) fn timestamp(query: &Query<'_>, arg: &Expr, at: At) -> Result<Answer, String> {
    match arg {
        Expr::Paren(paren) => timestamp(query, &paren.expr, at),
        Expr::Vector(selector) if selector.modifier.is_none() => {
            let newest = query.newest(selector, at)?;
            distinct(newest.into_iter().map(|(time, element)| at_time(element, time)).collect())
        }
        other => {
            distinct(query.vector(other, at)?.into_iter().map(|element| at_time(element, at.0)).collect())
        }
    }
}

fn at_time(element: Element, time: i64) -> Element {
    let value = SampleValue::Float(time as f64 / 1000.0);
    Element { labels: element.labels.without_metric_name(), value }
}

pub(super) fn call(query: &Query<'_>, call: &Call, at: At) -> Result<Answer, String> {
    use FunctionId as F;
    let args = &call.args;
    let vector = match args.first() {
        Some(arg) => query.vector(arg, at)?,
        // Date functions default to now.
        None => {
            let value = SampleValue::Float(at.0 as f64 / 1000.0);
            vec![Element { labels: tidewatch_model::Labels::empty(), value }]
        }
    };
    let number = |i: usize| query.scalar(&args[i], at);
    match call.function.id {
        F::Sort => return Ok(Answer::Vector(sorted(vector, false))),
        F::SortDesc => return Ok(Answer::Vector(sorted(vector, true))),
        F::HistogramCount => return of_histograms(vector, |h| h.count),
        F::HistogramSum => return of_histograms(vector, |h| h.sum),
        F::HistogramAvg => return of_histograms(vector, |h| h.sum / h.count),
        F::Clamp => {
            let (min, max) = (number(1)?, number(2)?);
            if max < min {
                return Ok(Answer::Vector(Vec::new()));
            }
            return of_floats(vector, |v| go_max(min, go_min(max, v)));
        }
        F::ClampMax => {
            let max = number(1)?;
            return of_floats(vector, |v| go_min(max, v));
        }
        F::ClampMin => {
            let min = number(1)?;
            return of_floats(vector, |v| go_max(min, v));
        }
        F::Round => {
            let inverse = 1.0 / if args.len() > 1 { number(1)? } else { 1.0 };
            return of_floats(vector, |v| (v * inverse + 0.5).floor() / inverse);
        }
        _ => {}
    }
    of_floats(vector, plain(call.function.id))
}

/// Functions of one number.
fn plain(function: FunctionId) -> fn(f64) -> f64 {
    use FunctionId as F;
    match function {
        F::Abs => f64::abs,
        F::Acos => f64::acos,
        F::Acosh => f64::acosh,
        F::Asin => f64::asin,
        F::Asinh => f64::asinh,
        F::Atan => f64::atan,
        F::Atanh => f64::atanh,
        F::Ceil => f64::ceil,
        F::Cos => f64::cos,
        F::Cosh => f64::cosh,
        F::Deg => |v| v * 180.0 / PI,
        F::Exp => f64::exp,
        F::Floor => f64::floor,
        F::Ln => f64::ln,
        F::Log10 => f64::log10,
        F::Log2 => f64::log2,
        F::Rad => |v| v * PI / 180.0,
        F::Sgn => |v| match v {
            v if v < 0.0 => -1.0,
            v if v > 0.0 => 1.0,
            v => v,
        },
        F::Sin => f64::sin,
        F::Sinh => f64::sinh,
        F::Sqrt => f64::sqrt,
        F::Tan => f64::tan,
        F::Tanh => f64::tanh,
        F::Minute => |v| (v as i64).rem_euclid(3600).div_euclid(60) as f64,
        F::Hour => |v| (v as i64).rem_euclid(86_400).div_euclid(3600) as f64,
        // 1970-01-01 was a Thursday.
        F::DayOfWeek => |v| ((v as i64).div_euclid(86_400) + 4).rem_euclid(7) as f64,
        F::DayOfMonth => |v| Date::of(v).day as f64,
        F::DayOfYear => |v| Date::of(v).day_of_year as f64,
        F::DaysInMonth => |v| days_in_month(Date::of(v).year, Date::of(v).month) as f64,
        F::Month => |v| Date::of(v).month as f64,
        F::Year => |v| Date::of(v).year as f64,
        other => unreachable!("the oracle leaves {other:?} out"),
    }
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
}

impl Date {
    /// Counts years and months off from 1970.
    fn of(seconds: f64) -> Date {
        let mut days = (seconds as i64).div_euclid(86_400);
        let mut year = 1970;
        let length = |year: i64| (1..=12).map(|month| days_in_month(year, month)).sum::<i64>();
        while days < 0 {
            year -= 1;
            days += length(year);
        }
        while days >= length(year) {
            days -= length(year);
            year += 1;
        }
        let day_of_year = days + 1;
        let mut month = 1;
        while days >= days_in_month(year, month) {
            days -= days_in_month(year, month);
            month += 1;
        }
        Date { year, month, day: days + 1, day_of_year }
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn of_floats(vector: Vec<Element>, function: impl Fn(f64) -> f64) -> Result<Answer, String> {
    let elements = vector.into_iter().filter_map(|element| {
        let value = SampleValue::Float(function(float(&element.value)?));
        Some(Element { labels: element.labels.without_metric_name(), value })
    });
    distinct(elements.collect())
}

fn of_histograms(vector: Vec<Element>, function: impl Fn(&FloatHistogram) -> f64) -> Result<Answer, String> {
    let elements = vector.into_iter().filter_map(|element| match element.value {
        SampleValue::Histogram(histogram) => {
            let value = SampleValue::Float(function(&histogram));
            Some(Element { labels: element.labels.without_metric_name(), value })
        }
        SampleValue::Float(_) => None,
    });
    distinct(elements.collect())
}

/// By value, NaN last in either direction; histograms have no place in an order.
fn sorted(vector: Vec<Element>, descending: bool) -> Vec<Element> {
    let mut keyed: Vec<(f64, Element)> =
        vector.into_iter().filter_map(|element| Some((float(&element.value)?, element))).collect();
    keyed.sort_by(|(a, _), (b, _)| match (a.is_nan(), b.is_nan()) {
        (false, false) if descending => b.partial_cmp(a).expect("neither is NaN"),
        (false, false) => a.partial_cmp(b).expect("neither is NaN"),
        (a, b) => a.cmp(&b),
    });
    keyed.into_iter().map(|(_, element)| element).collect()
}
