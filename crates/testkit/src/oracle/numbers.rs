//! Sums and quantiles of floats.

/// A sum that keeps what was rounded away (Neumaier's form of Kahan's).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    pub sum: f64,
    pub rest: f64,
}

impl Sum {
    pub(super) fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            self.rest = 0.0;
        } else if self.sum.abs() >= value.abs() {
            self.rest += (self.sum - total) + value;
        } else {
            self.rest += (value - total) + self.sum;
        }
        self.sum = total;
    }

    pub(super) fn value(self) -> f64 {
        self.sum + self.rest
    }
}

pub(super) fn sum(values: &[f64]) -> f64 {
    let mut sum = Sum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum.value()
}

/// The mean of at least one value. A sum that overflows is begun again as a running mean.
pub(super) fn mean(values: &[f64]) -> f64 {
    let mut sum = Sum { sum: values[0], rest: 0.0 };
    let mut running = false;
    for (i, value) in values.iter().enumerate().skip(1) {
        let count = (i + 1) as f64;
        if !running {
            let mut next = sum;
            next.add(*value);
            if !next.sum.is_infinite() {
                sum = next;
                continue;
            }
            running = true;
            sum = Sum { sum: sum.sum / (count - 1.0), rest: sum.rest / (count - 1.0) };
        }
        let share = (count - 1.0) / count;
        sum = Sum { sum: share * sum.sum, rest: share * sum.rest };
        sum.add(value / count);
    }
    if running { sum.value() } else { sum.sum / values.len() as f64 + sum.rest / values.len() as f64 }
}

/// The population variance.
pub(super) fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares) = (Sum::default(), Sum::default());
    for (i, value) in values.iter().enumerate() {
        let delta = value - mean.value();
        mean.add(delta / (i + 1) as f64);
        squares.add(delta * (value - mean.value()));
    }
    squares.value() / values.len() as f64
}

/// The φ-quantile of some values, by linear interpolation between two of them.
pub(super) fn quantile(q: f64, values: &[f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let mut sorted = values.to_vec();
    // NaN is smaller than all others.
    sorted.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(b).expect("neither is NaN"),
        (a, b) => b.cmp(&a),
    });
    let last = sorted.len() - 1;
    let rank = q * last as f64;
    let lower = rank.floor() as usize;
    let upper = last.min(lower + 1);
    let weight = rank - rank.floor();
    sorted[lower] * (1.0 - weight) + sorted[upper] * weight
}

/// Slope and intercept at `origin` of the line through points, by least squares.
pub(super) fn regression(points: &[(i64, f64)], origin: i64) -> (f64, f64) {
    let first = points[0].1;
    if points.iter().all(|(_, value)| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let (mut x_sum, mut y_sum, mut xy_sum, mut xx_sum) =
        (Sum::default(), Sum::default(), Sum::default(), Sum::default());
    for (time, y) in points {
        let x = (time - origin) as f64 / 1000.0;
        x_sum.add(x);
        y_sum.add(*y);
        xy_sum.add(x * y);
        xx_sum.add(x * x);
    }
    let n = points.len() as f64;
    let [x, y, xy, xx] = [x_sum, y_sum, xy_sum, xx_sum].map(Sum::value);
    let slope = (xy - x * y / n) / (xx - x * x / n);
    (slope, y / n - slope * x / n)
}
