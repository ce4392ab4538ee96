//! Functions of one element at a time: mathematics, clamping, rounding, parts of dates, and what
//! a native histogram says of itself.

use tidewatch_model::FloatHistogram;
use tidewatch_model::histogram::kahan_inc;
use tidewatch_parser::FunctionId;

use super::date;
use crate::context::QueryError;
use crate::eval::Evaluator;
use crate::grid::Grid;
use crate::notes::Notes;
use crate::plan::Node;
use crate::row::{Row, clear_bit};
use crate::stream::Strip;

/// Changes a row in place: called once a row, loops over its steps inside.
pub(crate) type RowMap = Box<dyn Fn(&mut Row, &mut Notes) + Send + Sync>;

fn floats(map: impl Fn(f64) -> f64 + Send + Sync + 'static) -> RowMap {
    Box::new(move |row, _| {
        row.drop_histograms();
        row.map_floats(&map);
    })
}

/// Unary minus, for floats and histograms.
pub(crate) fn negate() -> RowMap {
    Box::new(|row, _| {
        row.map_floats(|value| -value);
        for histogram in row.histograms.iter_mut().flatten() {
            let mut negated = FloatHistogram::clone(histogram);
            negated.mul(-1.0);
            *histogram = negated.into();
        }
    })
}

/// The map that a function is, where it is one, and which labels it takes off.
pub(crate) fn row_map(
    evaluator: &mut Evaluator<'_>,
    id: FunctionId,
    args: &[Node],
    grid: Grid,
) -> Result<Option<(RowMap, Strip)>, QueryError> {
    use FunctionId as F;
    let map = match id {
        F::Clamp | F::ClampMin | F::ClampMax | F::Round => {
            let scalars = args[1..].iter().map(|arg| evaluator.scalar(arg, grid));
            with_scalars(id, scalars.collect::<Result<Vec<_>, _>>()?)
        }
        F::HistogramCount | F::HistogramSum | F::HistogramAvg | F::HistogramStddev | F::HistogramStdvar => {
            return Ok(Some((histograms(id), Strip::MetricName)));
        }
        _ if date::is_date(id) && !args.is_empty() => {
            floats(move |value| date::part(id, date::seconds(value)))
        }
        _ => match function(id) {
            Some(map) => map,
            None => return Ok(None),
        },
    };
    Ok(Some((map, Strip::Metadata)))
}

fn function(id: FunctionId) -> Option<RowMap> {
    use FunctionId as F;
    Some(match id {
        F::Abs => floats(f64::abs),
        F::Ceil => floats(f64::ceil),
        F::Floor => floats(f64::floor),
        F::Exp => floats(f64::exp),
        F::Sqrt => floats(f64::sqrt),
        F::Ln => floats(f64::ln),
        F::Log2 => floats(f64::log2),
        F::Log10 => floats(f64::log10),
        F::Sin => floats(f64::sin),
        F::Cos => floats(f64::cos),
        F::Tan => floats(f64::tan),
        F::Asin => floats(f64::asin),
        F::Acos => floats(f64::acos),
        F::Atan => floats(f64::atan),
        F::Sinh => floats(f64::sinh),
        F::Cosh => floats(f64::cosh),
        F::Tanh => floats(f64::tanh),
        F::Asinh => floats(f64::asinh),
        F::Acosh => floats(f64::acosh),
        F::Atanh => floats(f64::atanh),
        F::Rad => floats(|value| value * std::f64::consts::PI / 180.0),
        F::Deg => floats(|value| value * 180.0 / std::f64::consts::PI),
        F::Sgn => floats(|value| {
            if value < 0.0 {
                -1.0
            } else if value > 0.0 {
                1.0
            } else {
                value
            }
        }),
        _ => return None,
    })
}

/// Go's `math.Max`: NaN where either is, +Inf before that.
pub(super) fn go_max(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

/// Go's `math.Min`: NaN where either is, -Inf before that.
pub(super) fn go_min(a: f64, b: f64) -> f64 {
    if a == f64::NEG_INFINITY || b == f64::NEG_INFINITY {
        f64::NEG_INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

fn with_scalars(id: FunctionId, mut scalars: Vec<Vec<f64>>) -> RowMap {
    if id == FunctionId::Round {
        let nearest = scalars.pop();
        return Box::new(move |row, _| {
            row.drop_histograms();
            for (step, value) in row.values.iter_mut().enumerate() {
                // Multiplying by the inverse is what Prometheus does, and what its digits show.
                let inverse = 1.0 / nearest.as_ref().map_or(1.0, |nearest| nearest[step]);
                *value = (*value * inverse + 0.5).floor() / inverse;
            }
        });
    }
    let last = scalars.pop().expect("the parser has counted arguments");
    let (low, high) = match id {
        FunctionId::Clamp => (scalars.pop(), Some(last)),
        FunctionId::ClampMin => (Some(last), None),
        _ => (None, Some(last)),
    };
    Box::new(move |row, _| {
        row.drop_histograms();
        for step in 0..row.values.len() {
            let low = low.as_ref().map_or(f64::NEG_INFINITY, |low| low[step]);
            let high = high.as_ref().map_or(f64::INFINITY, |high| high[step]);
            if high < low {
                clear_bit(&mut row.present, step);
            }
            row.values[step] = go_max(low, go_min(high, row.values[step]));
        }
    })
}

/// Functions that make a float of each histogram and ignore floats.
fn histograms(id: FunctionId) -> RowMap {
    Box::new(move |row, _| {
        let histograms = std::mem::take(&mut row.histograms);
        row.present.fill(0);
        for (step, histogram) in histograms.iter().enumerate() {
            if let Some(histogram) = histogram {
                row.set(step, of_histogram(id, histogram));
            }
        }
    })
}

fn of_histogram(id: FunctionId, histogram: &FloatHistogram) -> f64 {
    match id {
        FunctionId::HistogramCount => histogram.count,
        FunctionId::HistogramSum => histogram.sum,
        FunctionId::HistogramAvg => histogram.sum / histogram.count,
        FunctionId::HistogramStddev => variance(histogram).sqrt(),
        _ => variance(histogram),
    }
}

/// The variance if each observation lay in the middle of its bucket: the geometric middle of an
/// exponential bucket, zero for the zero bucket, the arithmetic middle of a custom one.
fn variance(histogram: &FloatHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let (mut sum, mut compensation) = (0.0, 0.0);
    for bucket in histogram.all_buckets().filter(|bucket| bucket.count != 0.0) {
        let middle = if histogram.uses_custom_buckets() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
        };
        let delta = middle - mean;
        kahan_inc(bucket.count * delta * delta, &mut sum, &mut compensation);
    }
    (sum + compensation) / histogram.count
}
