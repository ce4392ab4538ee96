//! Lines through windows: `deriv`, `predict_linear`, double exponential smoothing.

use tidewatch_model::histogram::kahan_inc;

use crate::context::QueryError;

/// Slope and value at `origin` of the line with the least squares.
fn linear_regression(times: &[i64], values: &[f64], origin: i64) -> (f64, f64) {
    let first = values[0];
    if values.iter().all(|value| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let [mut x_sum, mut y_sum, mut xy_sum, mut xx_sum] = [(0.0, 0.0); 4];
    for (time, y) in times.iter().zip(values) {
        // The time of evaluation may be any, and `@` may look far from it.
        let x = time.saturating_sub(origin) as f64 / 1e3;
        kahan_inc(x, &mut x_sum.0, &mut x_sum.1);
        kahan_inc(*y, &mut y_sum.0, &mut y_sum.1);
        kahan_inc(x * y, &mut xy_sum.0, &mut xy_sum.1);
        kahan_inc(x * x, &mut xx_sum.0, &mut xx_sum.1);
    }
    let count = values.len() as f64;
    let [x, y, xy, xx] = [x_sum, y_sum, xy_sum, xx_sum].map(|(sum, compensation)| sum + compensation);
    let covariance = xy - x * y / count;
    let variance = xx - x * x / count;
    let slope = covariance / variance;
    (slope, y / count - slope * x / count)
}

pub(super) fn deriv(times: &[i64], values: &[f64]) -> Option<f64> {
    // Near the samples, so that squares of times stay small.
    (values.len() >= 2).then(|| linear_regression(times, values, times[0]).0)
}

/// The line's value `seconds` after `now`.
pub(super) fn predict(times: &[i64], values: &[f64], now: i64, seconds: f64) -> Option<f64> {
    (values.len() >= 2).then(|| {
        let (slope, intercept) = linear_regression(times, values, now);
        slope * seconds + intercept
    })
}

/// Holt's linear method: a level and a trend, each smoothed by its factor.
pub(super) fn smoothing(
    values: &[f64],
    level_factor: f64,
    trend_factor: f64,
) -> Result<Option<f64>, QueryError> {
    check_factor("smoothing", "sf", level_factor)?;
    check_factor("trend", "tf", trend_factor)?;
    let [first, second, ..] = *values else { return Ok(None) };
    let (mut previous, mut level, mut trend) = (0.0, first, second - first);
    for (i, value) in values.iter().enumerate().skip(1) {
        if i > 1 {
            trend = trend_factor * (level - previous) + (1.0 - trend_factor) * trend;
        }
        let next = level_factor * value + (1.0 - level_factor) * (level + trend);
        (previous, level) = (level, next);
    }
    Ok(Some(level))
}

fn check_factor(kind: &str, symbol: &str, factor: f64) -> Result<(), QueryError> {
    // Written so that NaN passes, as it does in Prometheus.
    if factor <= 0.0 || factor >= 1.0 {
        return Err(QueryError::Execution(format!(
            "invalid {kind} factor. Expected: 0 < {symbol} < 1, got: {factor:.6}"
        )));
    }
    Ok(())
}
